"""The nouns that every room shares: statuses, phases, task types, units and their results.

Frozen dataclasses and enumerations only; nothing here reads a file, a clock or a setting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = dict[str, Any]
"""A JSON object whose content has been checked, or is handed on as it came."""

Scalar = int | float | str | bool | None
"""What an image attribute may be. `None` only in task outputs and filters, where it unsets or matches all."""


class JobStatus(StrEnum):
    """What the store knows of a job: the three statuses of the field, no more."""

    SUBMITTED = "submitted"  # launched and not ended
    DONE = "done"  # every task succeeded
    FAILED = "failed"  # ended otherwise, by whatever cause


class Phase(StrEnum):
    """What an operator needs beyond the status; derived from the lease and the journal."""

    QUEUED = "queued"  # launched, no unit has started yet
    RUNNING = "running"  # units are being worked on
    STOPPING = "stopping"  # an operator asked it to stop, and it has not ended yet
    STOPPED = "stopped"  # ended because an operator asked
    DONE = "done"  # ended well
    FAILED = "failed"  # ended badly
    RUNNER_GONE = "runner gone"  # the process that drove it died, by proof
    NO_CONTACT = "no contact"  # its runner is on another host and its heartbeat is old: unknown


class TaskState(StrEnum):
    """Where one task of a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class TaskType(StrEnum):
    """The task types of manifests, version 2."""

    PARALLEL = "parallel"  # one unit per image
    NON_PARALLEL = "non_parallel"  # one unit over all images
    COMPOUND = "compound"  # one unit that plans, then one unit per planned item
    CONVERTER_NON_PARALLEL = "converter_non_parallel"  # non_parallel, without input images
    CONVERTER_COMPOUND = "converter_compound"  # compound, without input images

    @property
    def takes_images(self) -> bool:
        """Whether the task works on the images of the dataset; converters do not."""
        return self not in {TaskType.CONVERTER_NON_PARALLEL, TaskType.CONVERTER_COMPOUND}

    @property
    def has_non_parallel_part(self) -> bool:
        """Whether one unit runs over all images (the whole task, or the planning of a compound one)."""
        return self is not TaskType.PARALLEL

    @property
    def has_parallel_part(self) -> bool:
        """Whether there is one unit per image or planned item."""
        return self in {TaskType.PARALLEL, TaskType.COMPOUND, TaskType.CONVERTER_COMPOUND}


class FailureKind(StrEnum):
    """Why a job failed, in the order in which the causes are looked for."""

    STOPPED = "stopped"  # an operator asked for it
    OUT_OF_MEMORY = "out of memory"
    TIME_LIMIT = "time limit"
    NODE = "node"  # preempted, or the node failed
    TASK = "task"  # the task's own code failed
    OUTPUT = "output"  # the task ended well and its output cannot be used
    IMAGES = "images"  # the image list or the filters do not allow what was asked
    SETUP = "setup"  # configuration, command or folder: nothing ran
    LOST = "lost"  # the worker or the runner vanished
    INTERNAL = "internal"  # a defect of ours


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed, in words for people.

    `headline` is one line, `detail` holds the evidence (bounded), `hint` the next step. `counts` groups equal
    causes: cause in words -> number of units.
    """

    kind: FailureKind
    headline: str
    detail: str = ""
    hint: str = ""
    task_order: int | None = None
    task_name: str | None = None
    unit: int | None = None
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unit:
    """One run of one command: the smallest thing that succeeds or fails.

    `index` counts the units of a batch's task from 0 (the item's place in the image or parallelization list).
    `name` starts all its file names (`0`, or `0_par_0000012`). `arguments` is what the task reads as `--args-json`.
    """

    index: int
    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class UnitResult:
    """How one unit ended, as its worker saw it.

    `returncode` is negative for a signal, as in `subprocess`; `None` when the unit was not run or could not be
    started (`problem` says why). `output` is the text of the metadiff file, `None` when the task wrote none.
    Times are seconds since the epoch, on the worker's clock; `cpu` is seconds of user and system time;
    `memory` is the peak resident size in bytes; `attempt` tells a result from one of an earlier run.
    """

    index: int
    attempt: int
    returncode: int | None
    output: str | None = None
    problem: str | None = None
    started: float | None = None
    ended: float | None = None
    cpu: float | None = None
    memory: int | None = None
    host: str | None = None
