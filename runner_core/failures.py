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
from collections.abc import Sequence
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


def process_report(*, command: str, stdout: str | None, stderr: str | None, info: str) -> str:
    """What is known of a process that failed, under the reference's four headings (E1).

    `stdout` and `stderr` are the contents of its files, `None` for a file that is missing.
    """

    def content(name: str, text: str | None) -> str:
        if text is None:
            return f"{name} file is missing"
        return f"{name} file is empty" if not text.strip() else f"{name}:\n{text}"

    parts = [f"COMMAND:\n{command}", content("STDOUT", stdout), content("STDERR", stderr), f"ADDITIONAL INFO:\n{info}"]
    return "\n\n".join(parts)


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
_FRAME = re.compile(r'^ +File "([^"\n]+)", line (\d+)', re.MULTILINE)
_ERROR_LINE = re.compile(
    r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning|Failure|Timeout)\b.*|[A-Z]\w*: .*)$"
)


def classify(evidence: UnitEvidence) -> Cause:
    """Find the cause of one unit's failure in what is known of it."""
    code = evidence.returncode
    if code is None:
        problem = evidence.problem or "it was never run"
        return Cause(FailureKind.LOST, problem[:200], problem)
    if code < 0:
        name = _signal_name(-code)
        kind = FailureKind.OUT_OF_MEMORY if -code == signal.SIGKILL else FailureKind.TASK
        why = "; often the system's answer to too much memory" if kind is FailureKind.OUT_OF_MEMORY else ""
        return Cause(kind, f"killed by {name}", f"killed by {name} (returncode={code}){why}")
    if evidence.problem:
        return Cause(FailureKind.OUTPUT, evidence.problem[:200], evidence.problem)
    error, place = last_error(evidence.log_tail)
    if error is None:
        return Cause(FailureKind.TASK, f"exit code {code}", f"exit code {code}")
    name = error.partition(":")[0].rpartition(".")[2]
    kind = FailureKind.OUT_OF_MEMORY if name in {"MemoryError", "_ArrayMemoryError"} else FailureKind.TASK
    where = f" in {place}" if place else ""
    return Cause(kind, f"{name}{where}", f"{error[:300]}{where}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_error(log: str) -> tuple[str | None, str | None]:
    """The last error line of a log (`TypeError: ...`) and where it was raised (`segment.py:88`)."""
    start = log.rfind("Traceback (most recent call last)")
    if start < 0:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        if lines and _ERROR_LINE.match(lines[-1]):
            return lines[-1], None
        return None, None
    trace = log[start:]
    frames = list(_FRAME.finditer(trace))
    place = f"{posixpath.basename(frames[-1][1])}:{frames[-1][2]}" if frames else None
    after = trace[frames[-1].end() if frames else 0 :]
    for line in after.splitlines()[1:]:
        if line and not line[0].isspace():
            return line.strip(), place
    return None, place


def failure_of_units(evidence: Sequence[UnitEvidence], *, total: int, task_order: int, task_name: str) -> Failure:
    """One failure for all failed units of a task, equal causes counted together.

    `evidence` is in the order of the units, and not empty; `total` counts all units of that part of the task.
    """
    causes = [classify(item) for item in evidence]
    groups = Counter(cause.group for cause in causes)
    first = causes[0]
    if total == 1:
        headline = f"{task_name} failed: {first.headline}"
    elif len(evidence) == 1:
        headline = f"1 of {total:,} units of {task_name} failed: {first.headline}"
    else:
        listed = ", ".join(f"{count:,} {group}" for group, count in groups.most_common(4))
        more = f" and {len(groups) - 4} other causes" if len(groups) > 4 else ""
        headline = f"{len(evidence):,} of {total:,} units of {task_name} failed: {listed}{more}"
    return Failure(
        kind=first.kind,
        headline=headline.replace("\n", " "),
        detail=first.headline,
        hint=_HINTS.get(first.kind, ""),
        task_order=task_order,
        task_name=task_name,
        unit=evidence[0].index,
        counts=dict(groups.most_common(20)),
    )


def failure_of_error(error: BaseException, *, task_order: int | None = None, task_name: str | None = None) -> Failure:
    """The failure that an exception stands for; one that is not of our tree is a defect of ours."""
    if isinstance(error, JobExecutionError | TaskExecutionError) and error.failure is not None:
        return error.failure
    if isinstance(error, JobExecutionError):
        kind, message, hint = error.kind, error.message, error.hint
    elif isinstance(error, TaskExecutionError):
        kind, message, hint = FailureKind.TASK, error.message, ""
        task_order, task_name = error.task_order, error.task_name
    else:
        kind, hint = FailureKind.INTERNAL, "please report it, with the job's log"
        message = f"{type(error).__name__}: {error}"
    headline = message.strip().split("\n", 1)[0][:300]
    return Failure(kind, headline, message[:5000], hint or _HINTS.get(kind, ""), task_order, task_name)
