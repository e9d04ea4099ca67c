"""Progress on stderr: bars on a terminal, plain lines or nothing elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import runner_core
from tui.cli.invocation import Invocation
from tui.cli.job_text import units_done

Json = dict[str, Any]

_POLL_SECONDS = 0.5
_RETRY_SECONDS = tuple(2.0**n for n in range(8))  # four minutes in all
_POLL_SHARE = 20  # looking takes at most a twentieth of the time, however long the journal has become


def steps(invocation: Invocation, title: str) -> AbstractContextManager[Callable[[str], None]]:
    """Report work that tells its steps and not their number: a spinner with the last step, or a line for each."""
    if invocation.has_live_stderr:
        from tui.cli.bars import spinner

        return spinner(title, ascii_only=invocation.ascii, low_bandwidth=invocation.low_bandwidth)
    return _lines(invocation)


def counting(invocation: Invocation, title: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Report work that tells how much is done, of how much (0: not known). Nothing is shown without a terminal."""
    if invocation.has_live_stderr:
        from tui.cli.bars import count_bar

        return count_bar(title, ascii_only=invocation.ascii, low_bandwidth=invocation.low_bandwidth)
    return _nothing()


def follow_job(invocation: Invocation, job_id: int, *, sleep: Callable[[float], object] = time.sleep) -> Json:
    """Show a job's progress until it has ended and its runner has put its files away; returns its last document.

    Raises `OutOfReach` if the store does not answer for some minutes on end.
    """
    with _job_display(invocation) as show:
        while True:
            began = time.monotonic()
            job = _settled_job(invocation, job_id, sleep=sleep)
            show(job)
            if job["status"] != "submitted" and job["runner"]["state"] != "alive":
                return job
            sleep(max(_POLL_SECONDS, _POLL_SHARE * (time.monotonic() - began)))


def _settled_job(invocation: Invocation, job_id: int, *, sleep: Callable[[float], object]) -> Json:
    """Look at a job; a store out of reach is asked again, since the job goes on meanwhile."""

    def look() -> Json:
        invocation.settle()
        return runner_core.show_job(invocation.settings, job_id)

    for seconds in _RETRY_SECONDS:
        try:
            return look()
        except runner_core.OutOfReach as error:
            if seconds == _RETRY_SECONDS[0]:
                reason = runner_core.safe_line(error.message)
                invocation.note(f"warning: job {job_id} cannot be seen, trying again: {reason}")
            sleep(seconds)
    return look()


def _job_display(invocation: Invocation) -> AbstractContextManager[Callable[[Json], None]]:
    if invocation.has_live_stderr:
        from tui.cli.bars import task_bars

        return task_bars(ascii_only=invocation.ascii, low_bandwidth=invocation.low_bandwidth)
    return _task_lines(invocation)


@contextmanager
def _lines(invocation: Invocation) -> Iterator[Callable[[str], None]]:
    yield lambda step: invocation.note(runner_core.safe_line(step))


@contextmanager
def _nothing() -> Iterator[Callable[[int, int], None]]:
    yield lambda _done, _total: None


@contextmanager
def _task_lines(invocation: Invocation) -> Iterator[Callable[[Json], None]]:
    """A line whenever something changed."""
    last: dict[object, str] = {}

    def tell(subject: object, line: str) -> None:
        if last.get(subject) != line:
            invocation.note(line)
            last[subject] = line

    def show(job: Json) -> None:
        for task in job["tasks"]:
            if task["state"] != "pending":
                counts = f" {units_done(task['units'])}" if task["units"]["total"] else ""
                name = runner_core.safe_line(task["name"])
                tell(task["order"], f"task {task['order']} {name}: {task['state']}{counts}")
        tell("job", f"job {job['id']}: {job['phase']}")

    yield show
