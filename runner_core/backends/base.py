"""What a backend is: it runs batches of units somewhere and reports what became of each.

The engine decides what to run and in which order; it drives every backend in the same way: `submit` what was written to
the journal as an intent, `poll` for news, `cancel` on a stop. A batch that a poll says nothing of has no news.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from runner_core.job_folder import BatchFiles
from runner_core.model import Json, Unit, UnitResult


@dataclass(frozen=True, slots=True)
class Batch:
    """Units that one worker runs.

    `key` names the batch for good and is where it is looked for after a crash. `folder` is the task's folder on the
    user's side; `command` the task's command in words; `meta` the task's requirements from manifest and workflow.
    """

    key: str
    attempt: int
    folder: Path
    files: BatchFiles
    command: tuple[str, ...]
    units: tuple[Unit, ...]
    meta: Json


@dataclass(frozen=True, slots=True)
class BatchNews:
    """What has become known of a batch since the last poll.

    `ended` is `None` while it runs, then `complete`, `stopped`, or `lost` with `problem` saying what was seen.
    """

    started: tuple[int, ...] = ()
    results: tuple[UnitResult, ...] = ()
    notes: tuple[str, ...] = ()
    ended: str | None = None
    problem: str | None = None

    def __bool__(self) -> bool:
        return bool(self.started or self.results or self.notes or self.ended)


class Backend(Protocol):
    """One way of running batches."""

    async def __aenter__(self) -> Self:
        """Get ready; raises `JobExecutionError` for a configuration that cannot work."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Let go of everything; batches that still run are ended."""
        ...

    def split(self, units: Sequence[Unit], *, meta: Json) -> list[tuple[Unit, ...]]:
        """Divide the units of one part of a task into batches."""
        ...

    async def submit(self, batch: Batch) -> Json:
        """Start a batch, once per key; returns the handle by which another process finds it again."""
        ...

    async def poll(self, keys: Collection[str]) -> dict[str, BatchNews]:
        """Wait a while for news of these batches; the backend chooses how long."""
        ...

    async def cancel(self, keys: Collection[str]) -> None:
        """Ask the batches to end; what they had finished is still reported by `poll`."""
        ...

    async def adopt(self, batch: Batch, handle: Json | None) -> None:
        """Take over a batch that an earlier process submitted, with the handle if the journal has it."""
        ...
