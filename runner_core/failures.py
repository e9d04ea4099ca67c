"""The exception tree, and how evidence becomes a failure that people understand.

    PilothouseError            one line that says what is wrong and how to mend it
    ├── BadInput               the request itself is malformed
    ├── NotFound               what was asked for does not exist
    ├── Refused                well-formed, and not possible as things stand
    ├── OutOfReach             the cluster or the host does not answer
    ├── JobExecutionError      a job failed outside a task's own code
    └── TaskExecutionError     a task's own code failed

Whatever else escapes during a job is a defect and ends the job as an unknown error. Everything here is pure.
"""

from __future__ import annotations

import posixpath
import re
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner_core.model import Failure, FailureKind


class PilothouseError(Exception):
    """What went wrong in one line, and how to mend it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class BadInput(PilothouseError):
    """The request itself is malformed: a broken file, a wrong value, a name that cannot be."""


class NotFound(PilothouseError):
    """What was asked for does not exist."""


class Refused(PilothouseError):
    """Well-formed, but not possible as things stand: a busy dataset, an empty workflow, bad settings."""


class OutOfReach(PilothouseError):
    """The cluster or the host does not answer."""


class JobExecutionError(PilothouseError):
    """A job failed outside a task's own code: a signal, an unusable output, the image list's rules, a stop.

    `failure` carries more than `message` where more is known, such as how many units failed for which causes.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: FailureKind = FailureKind.INTERNAL,
        hint: str = "",
        failure: Failure | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.failure = failure


class TaskExecutionError(PilothouseError):
    """A task's own code failed; the message is what it logged, the rest says which task (P8)."""

    def __init__(
        self,
        message: str,
        *,
        workflow_task_id: int,
        task_order: int,
        task_name: str,
        failure: Failure | None = None,
    ) -> None:
        super().__init__(message)
        self.workflow_task_id = workflow_task_id
        self.task_order = task_order
        self.task_name = task_name
        self.failure = failure


def quoted(text: object, limit: int = 300) -> str:
    """Foreign text for a message: escaped, on one line, bounded."""
    shown = str(text)
    cut = f"... ({len(shown)} characters)" if len(shown) > limit else ""
    shown = shown[:limit]
    return (f"'{shown}'" if shown.isprintable() else ascii(shown)) + cut


def _one_line(text: str, limit: int = 300) -> str:
    """Foreign text as a part of a headline: on one line, printable, bounded."""
    line = " ".join(text[: 2 * limit].split())
    if len(line) > limit:
        line = f"{line[: limit - 3]}..."
    return line if line.isprintable() else ascii(line)[1:-1]


def process_report(*, command: str, files: Mapping[str, str | None], info: str) -> str:
    """What is known of a process that failed, under the reference's headings (E1).

    `files` holds the contents of what it wrote by heading (STDOUT, STDERR, or both where they share a file), `None` for
    a file that is missing.
    """

    def content(name: str, text: str | None) -> str:
        if text is None:
            return f"{name} file is missing"
        return f"{name} file is empty" if not text.strip() else f"{name}:\n{text}"

    contents = [content(name, text) for name, text in files.items()]
    return "\n\n".join([f"COMMAND:\n{command}", *contents, f"ADDITIONAL INFO:\n{info}"])


# ----------------------------------------------------------------------------------------------------------------------
# From evidence to causes


@dataclass(frozen=True, slots=True)
class UnitEvidence:
    """What is known of one unit that failed; `log_tail` is the end of what it printed."""

    index: int
    returncode: int | None
    problem: str | None
    log_tail: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Why one unit failed: `group` is equal for units that failed alike."""

    kind: FailureKind
    group: str
    headline: str


_HINTS = {
    FailureKind.OUT_OF_MEMORY: "run fewer units at a time (parallel_tasks_per_job), or give the task more memory",
    FailureKind.TASK: "read the unit's log; the error is in the task, its arguments or this image",
    FailureKind.LOST: "look into the worker's log in the job folder, then run the job again",
    FailureKind.SETUP: "mend the configuration that is named, then run the job again",
    FailureKind.OUTPUT: "tell the authors of the task package, with the text above",
    FailureKind.IMAGES: "look at the dataset's images and the workflow's filters",
}
_HINT_OF_SYSTEM_ERROR = "look at the free space and the rights where that happened, then run the job again"

_HEADER = "Traceback (most recent call last)"
_GROUP_MARGIN = re.compile(r"( +)[+|] ")  # what an exception group draws around the tracebacks of its members
_FRAME = re.compile(r' +File "([^"]+)", line (\d+)')
_RAISED = re.compile(r"[^\W\d][\w.<>]*(?::|$)")  # `TypeError: ...` or `pkg.module.Error`, below the frames
_ERROR_LINE = re.compile(r"[^\W\d][\w.]*(?:Error|Exception|Interrupt|Exit|Failure|Timeout)(?::|$)")
_MEMORY = re.compile(r"MemoryError|(?i:out ?of ?memory|cannot allocate memory|bad_alloc)")
_KILLED = re.compile(r"^Killed$|: line \d+: +\d+ Killed\b|<Signals\.SIGKILL")  # a shell's words, and `subprocess`'s
_KILLED_IN_SHELL = 128 + signal.SIGKILL


def classify(evidence: UnitEvidence) -> Cause:
    """Find the cause of one unit's failure in what is known of it."""
    code = evidence.returncode
    if code is None:
        problem = evidence.problem or "it was never run"
        return Cause(FailureKind.LOST, _one_line(problem, 200), _one_line(problem))
    if code < 0:
        return _cause_of_signal(-code)
    if evidence.problem:
        return Cause(FailureKind.OUTPUT, _one_line(evidence.problem, 200), _one_line(evidence.problem))
    return _cause_in_log(code, evidence.log_tail)


_KILLED_GROUP = "killed, often out of memory"


def _cause_of_signal(number: int) -> Cause:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    headline = f"killed by {name} (returncode={-number})"
    if number == signal.SIGKILL:
        why = "often the system's answer to too much memory, unless somebody killed it"
        return Cause(FailureKind.OUT_OF_MEMORY, _KILLED_GROUP, f"{headline}; {why}")
    return Cause(FailureKind.TASK, f"killed by {name}", headline)


def _cause_in_log(code: int, log: str) -> Cause:
    error, place = last_error(log)
    said = error or _last_line(log)
    where = f" in {place}" if place else ""
    if error is not None:
        group = error.partition(":")[0].rpartition(".")[2] + where
        headline = _one_line(_one_line(error) + where, 500)
    else:
        group = f"exit code {code}"
        headline = f"{group}: {_one_line(said)}" if said else group
    if _MEMORY.search(said):
        return Cause(FailureKind.OUT_OF_MEMORY, "out of memory", headline)
    if code == _KILLED_IN_SHELL or _KILLED.search(said):
        return Cause(FailureKind.OUT_OF_MEMORY, _KILLED_GROUP, headline)
    return Cause(FailureKind.TASK, _one_line(group, 200), headline)


def _last_line(log: str) -> str:
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")


def last_error(log: str) -> tuple[str | None, str | None]:
    """The last error line of a log (`TypeError: ...`) and where it was raised (`segment.py:88`).

    Of a chain of tracebacks this is the last, of an exception group its last member with a traceback.
    """
    lines = log.splitlines()
    start = max((number for number, line in enumerate(lines) if _HEADER in line), default=None)
    if start is None:
        last = _last_line(log)
        return (last if _ERROR_LINE.match(last) else None), None
    margin = _GROUP_MARGIN.match(lines[start])
    trace = [line.removeprefix(f"{margin[1]}| ") if margin else line for line in lines[start + 1 :]]
    frames = [(number, frame) for number, line in enumerate(trace) if (frame := _FRAME.match(line))]
    below, place = 0, None
    if frames:
        number, frame = frames[-1]
        below, place = number + 1, f"{posixpath.basename(frame[1])}:{frame[2]}"
    return next((line.strip() for line in trace[below:] if _RAISED.match(line)), None), place


def failure_of_units(evidence: Sequence[UnitEvidence], *, total: int, task_order: int, task_name: str) -> Failure:
    """One failure for all failed units of a task, equal causes counted together.

    `evidence` is in the order of the units, and not empty; `total` counts all units of that part of the task. The kind
    is the first unit's; the detail has one line per cause, with the first unit of each.
    """
    causes = [classify(item) for item in evidence]
    groups = Counter(cause.group for cause in causes)
    common = groups.most_common(20)
    name = _one_line(task_name, 100)
    if total == 1:
        headline = f"{name} failed: {causes[0].headline}"
    elif len(evidence) == 1:
        headline = f"1 of {total:,} units of {name} failed: {causes[0].headline}"
    else:
        listed = ", ".join(f"{count:,} {group}" for group, count in common[:4])
        more = f" and {len(groups) - 4:,} more causes" if len(groups) > 4 else ""
        headline = f"{len(evidence):,} of {total:,} units of {name} failed: {listed}{more}"
    firsts: dict[str, str] = {}
    for item, cause in zip(evidence, causes, strict=True):
        firsts.setdefault(cause.group, f"unit {item.index}: {cause.headline}")
    return Failure(
        kind=causes[0].kind,
        headline=headline,
        detail="\n".join(firsts[group] for group, _ in common),
        hint=_HINTS.get(causes[0].kind, ""),
        task_order=task_order,
        task_name=task_name,
        unit=evidence[0].index,
        counts=dict(common),
    )


def failure_of_error(error: BaseException, *, task_order: int | None = None, task_name: str | None = None) -> Failure:
    """The failure that an exception stands for; one of neither our tree nor the system is a defect of ours."""
    if isinstance(error, JobExecutionError | TaskExecutionError) and error.failure is not None:
        return error.failure
    if isinstance(error, JobExecutionError):
        kind, message, hint = error.kind, error.message, error.hint
    elif isinstance(error, TaskExecutionError):
        kind, message, hint = FailureKind.TASK, error.message, ""
        task_order, task_name = error.task_order, error.task_name
    elif isinstance(error, PilothouseError):
        kind, message, hint = FailureKind.SETUP, error.message, error.hint
    else:
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError):
            kind, hint = FailureKind.SETUP, _HINT_OF_SYSTEM_ERROR
        else:
            kind, hint = FailureKind.INTERNAL, "please report it, with the job's log"
    headline = _one_line(message.strip().partition("\n")[0])
    return Failure(kind, headline, message[:5000], hint or _HINTS.get(kind, ""), task_order, task_name)
