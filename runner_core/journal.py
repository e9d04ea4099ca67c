"""The journal: what happened to a job, one JSON object a line, in `events.jsonl` of its folder.

The first line says the version; every line has a sequence number and a time. Lines are grouped per tick and made
durable with one fsync. A line that a crash tore is cut off when the journal is opened for writing, and passed over
when it is only read. `fold` is pure: any prefix of a valid journal gives the state of the job at that moment, so that
going on after a crash is to read, to fold, and to look at what is really there.

    journal{version}
    job{job_id, backend, tasks: [{order, name, type}]}
    task_started{order}        units_planned{order, units}
    submitting{key, order, units}                      before the effect: the plan of this batch is on disk
    submitted{key, handle}                             after it: how to find the batch again
    units{key, order, started, done, failed}           since the last tick, as index ranges: "0-7,9"
    batch_ended{key, order, reason}
    task_ended{order, state}
    stop_requested{}   ended{phase, failure}
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner_core.failures import PilothouseError, Refused
from runner_core.job_folder import sync_folder
from runner_core.model import Json, Phase, TaskState

VERSION = 1


# ----------------------------------------------------------------------------------------------------------------------
# Writing and reading


class Journal:
    """Appends events; the only writer is the runner that holds the job's lease.

    Raises `Refused` for a journal that a newer version wrote.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        valid = valid_prefix(path.read_bytes()) if path.exists() else b""
        next(parse_events(valid), None)  # looks at the version
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self._fd, len(valid))
        self._size = len(valid)
        self._next = valid.count(b"\n")
        if not valid:
            self.append({"event": "journal", "version": VERSION})
            sync_folder(path.parent)

    def append(self, *events: Json) -> None:
        """Append events and make them durable; after an error the file ends where it did before."""
        lines = []
        for number, event in enumerate(events, start=self._next):
            record = {"seq": number, "time": round(self._clock(), 3), **event}
            lines.append(json.dumps(record, separators=(",", ":")) + "\n")
        data = "".join(lines).encode()
        try:
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:])
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)
        self._next += len(events)

    def close(self) -> None:
        """Close the file; the journal cannot be appended to any more."""
        os.close(self._fd)


def valid_prefix(data: bytes) -> bytes:
    """What of a journal's bytes is whole: up to the first line that is torn, broken or out of sequence."""
    end = 0
    for number, line in enumerate(data.splitlines(keepends=True)):
        if not line.endswith(b"\n") or _event(line, number) is None:
            break
        end += len(line)
    return data[:end]


def _event(line: bytes, number: int) -> Json | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(event, dict) and event.get("seq") == number and isinstance(event.get("event"), str)
    return event if whole else None


def parse_events(data: bytes) -> Iterator[Json]:
    """Read the whole events of a journal's bytes.

    Raises `Refused` for a journal that a newer version wrote.
    """
    for number, line in enumerate(data.splitlines(keepends=True)):
        event = _event(line, number) if line.endswith(b"\n") else None
        if event is None:
            return
        if number == 0 and event.get("version") != VERSION:
            raise Refused(
                f"the job's journal has version {event.get('version')!r}, this program reads {VERSION}",
                hint="upgrade pilothouse",
            )
        yield event


def read_events(path: Path) -> list[Json]:
    """Read the whole events of a journal file; none if there is no such file, or none that can be read."""
    try:
        return list(parse_events(path.read_bytes()))
    except OSError:
        return []


# ----------------------------------------------------------------------------------------------------------------------
# Index ranges


def to_ranges(indices: Iterable[int]) -> str:
    """Write a set of unit indices as ranges: `{0, 1, 2, 5}` as `0-2,5`."""
    runs: list[list[int]] = []
    for index in sorted(set(indices)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def from_ranges(text: str) -> set[int]:
    """Read what `to_ranges` wrote."""
    indices: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        indices.update(range(int(first), int(last or first) + 1))
    return indices


# ----------------------------------------------------------------------------------------------------------------------
# Folding


@dataclass(slots=True)
class BatchProgress:
    """Where one batch stands: its units by index, and how to find it again."""

    order: int
    units: set[int]
    handle: Any = None
    started: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    ended: str | None = None


@dataclass(slots=True)
class TaskProgress:
    """Where one task stands; `planned` counts its units as far as they are known."""

    order: int
    name: str
    type: str
    state: TaskState = TaskState.PENDING
    planned: int = 0
    started: float | None = None
    ended: float | None = None


@dataclass(slots=True)
class JobState:
    """What a journal says of a job. Times are seconds since the epoch."""

    job: Json = field(default_factory=dict)
    phase: Phase = Phase.QUEUED
    failure: Json | None = None
    tasks: dict[int, TaskProgress] = field(default_factory=dict)
    batches: dict[str, BatchProgress] = field(default_factory=dict)
    last_time: float | None = None

    def unit_counts(self, order: int) -> dict[str, int]:
        """Count the units of one task: total, done, failed, running, pending."""
        batches = [batch for batch in self.batches.values() if batch.order == order]
        done = sum(len(batch.done) for batch in batches)
        failed = sum(len(batch.failed) for batch in batches)
        running = sum(len(batch.started - batch.done - batch.failed) for batch in batches if batch.ended is None)
        total = max(self.tasks[order].planned, done + failed + running)
        pending = total - done - failed - running
        return {"total": total, "done": done, "failed": failed, "running": running, "pending": pending}


def fold(events: Iterable[Json]) -> JobState:
    """The state of a job after these events; events of an unknown kind are passed over."""
    state = JobState()
    for event in events:
        state.last_time = event.get("time", state.last_time)
        apply = _APPLY.get(event["event"])
        if apply is not None:
            apply(state, event)
    return state


def known_state(path: Path) -> JobState:
    """What a journal file tells, and nothing where somebody damaged it: tasks can write into this folder, too."""
    try:
        return fold(read_events(path))
    except (PilothouseError, KeyError, TypeError, ValueError):
        return JobState()


def _job(state: JobState, event: Json) -> None:
    state.job = {key: value for key, value in event.items() if key not in {"seq", "time", "event"}}
    for task in event["tasks"]:
        state.tasks[task["order"]] = TaskProgress(task["order"], task["name"], task["type"])


def _task_started(state: JobState, event: Json) -> None:
    task = state.tasks[event["order"]]
    task.state, task.started = TaskState.RUNNING, event["time"]
    if state.phase is Phase.QUEUED:
        state.phase = Phase.RUNNING


def _units_planned(state: JobState, event: Json) -> None:
    state.tasks[event["order"]].planned += event["units"]


def _submitting(state: JobState, event: Json) -> None:
    state.batches[event["key"]] = BatchProgress(event["order"], from_ranges(event["units"]))


def _submitted(state: JobState, event: Json) -> None:
    state.batches[event["key"]].handle = event["handle"]


def _units(state: JobState, event: Json) -> None:
    batch = state.batches[event["key"]]
    batch.started |= from_ranges(event["started"])
    batch.done |= from_ranges(event["done"])
    batch.failed |= from_ranges(event["failed"])


def _batch_ended(state: JobState, event: Json) -> None:
    batch = state.batches[event["key"]]
    batch.ended = event["reason"]
    if event["reason"] == "lost":
        batch.failed |= batch.units - batch.done


def _task_ended(state: JobState, event: Json) -> None:
    task = state.tasks[event["order"]]
    task.state, task.ended = TaskState(event["state"]), event["time"]


def _stop_requested(state: JobState, _event: Json) -> None:
    state.phase = Phase.STOPPING


def _ended(state: JobState, event: Json) -> None:
    state.phase, state.failure = Phase(event["phase"]), event["failure"]


_APPLY: dict[str, Callable[[JobState, Json], None]] = {
    "job": _job,
    "task_started": _task_started,
    "units_planned": _units_planned,
    "submitting": _submitting,
    "submitted": _submitted,
    "units": _units,
    "batch_ended": _batch_ended,
    "task_ended": _task_ended,
    "stop_requested": _stop_requested,
    "ended": _ended,
}
