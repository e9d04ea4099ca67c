"""Progress bars on stderr, drawn by rich; imported only when stderr is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress_bar import ProgressBar
from rich.text import Text

import runner_core
from tui.cli.job_text import units_done

Json = dict[str, Any]

_TITLE_COLUMNS = 60


@contextmanager
def spinner(title: str, *, ascii_only: bool, low_bandwidth: bool) -> Iterator[Callable[[str], None]]:
    """Show the last step that was reported; warnings stay."""
    with _bars(ascii_only=ascii_only, low_bandwidth=low_bandwidth) as bars:
        bar = bars.add_task(_plain(title))

        def report(step: str) -> None:
            if step.startswith("warning"):
                bars.console.print(runner_core.safe_line(step), markup=False, highlight=False)
            else:
                bars.update(bar, description=_plain(f"{title}: {step}"))

        yield report


@contextmanager
def count_bar(title: str, *, ascii_only: bool, low_bandwidth: bool) -> Iterator[Callable[[int, int], None]]:
    """Show how much is done, of how much (0: not known)."""
    counts_column = TextColumn("{task.fields[counts]}", markup=False)
    with _bars(BarColumn(), counts_column, ascii_only=ascii_only, low_bandwidth=low_bandwidth) as bars:
        bar = bars.add_task(_plain(title), total=None, counts="")

        def report(done: int, total: int) -> None:
            counts = f"{done:,}/{total:,}" if total else f"{done:,}"
            bars.update(bar, completed=done, total=total or None, counts=counts)

        yield report


@contextmanager
def task_bars(*, ascii_only: bool, low_bandwidth: bool) -> Iterator[Callable[[Json], None]]:
    """Show a bar per task of a job, and one line for the job itself."""
    counts_column = TextColumn("{task.fields[counts]}", markup=False)
    with _bars(_StillBarColumn(), counts_column, ascii_only=ascii_only, low_bandwidth=low_bandwidth) as bars:
        job_bar = bars.add_task("", total=None, counts="")
        task_bar: dict[int, TaskID] = {}

        def show(job: Json) -> None:
            for task in job["tasks"]:
                if task["order"] not in task_bar:
                    title = _plain(f"{task['order']} {task['name']}")
                    task_bar[task["order"]] = bars.add_task(title, total=None, start=False, counts="")
                _show_task(bars, task_bar[task["order"]], task)
            over = job["status"] != "submitted"
            phase = "zipping its files" if over and job["runner"]["state"] == "alive" else job["phase"]
            done = sum(task["state"] == "done" for task in job["tasks"])
            total = len(job["tasks"]) or None
            failed = job["status"] == "failed"
            title = f"Job {job['id']}"
            bars.update(job_bar, description=title, counts=phase, total=total, completed=done, failed=failed)
            if over:
                bars.stop_task(job_bar)

        yield show


def _show_task(bars: Progress, bar: TaskID, task: Json) -> None:
    units = task["units"]
    if task["started"]:
        bars.start_task(bar)
    if units["total"]:
        ended = units["done"] + units["failed"]
        failed = units["failed"] > 0
        bars.update(bar, completed=ended, total=units["total"], counts=units_done(units), failed=failed)
    elif task["state"] == "done":
        bars.update(bar, completed=1, total=1)
    if task["ended"]:
        bars.stop_task(bar)


class _StillBarColumn(BarColumn):
    """A bar that stays empty, and does not move, while there is nothing to count; red where something failed."""

    def render(self, task: Task) -> ProgressBar:
        failed = task.fields.get("failed", False)
        return ProgressBar(
            total=task.total or 1,
            completed=task.completed if task.total else 0,
            width=self.bar_width,
            complete_style="red" if failed else "cyan",
            finished_style="red" if failed else "green",
        )


class _StartedSpinnerColumn(SpinnerColumn):
    """A spinner beside what has begun and not ended."""

    def render(self, task: Task) -> RenderableType:
        waits = not task.started or task.stop_time is not None
        return Text(" ") if waits else super().render(task)


class _AsciiConsole(Console):
    """A console that draws with ASCII characters whatever the terminal's encoding is."""

    @property
    def encoding(self) -> str:
        return "ascii"


def _bars(*columns: ProgressColumn, ascii_only: bool, low_bandwidth: bool) -> Progress:
    kind = _AsciiConsole if ascii_only else Console
    return Progress(
        _StartedSpinnerColumn("line" if ascii_only else "dots"),
        TextColumn("{task.description}"),
        *columns,
        TimeElapsedColumn(),
        console=kind(stderr=True),
        refresh_per_second=1 if low_bandwidth else 8,
    )


def _plain(text: str) -> str:
    """Foreign text as a description, which rich reads as markup."""
    return escape(runner_core.safe_line(text, _TITLE_COLUMNS))
