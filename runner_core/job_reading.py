"""Reading what a job wrote: its files, the logs of its units, and a log that is still growing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runner_core.archive import open_regular
from runner_core.documents import show_job
from runner_core.failures import NotFound
from runner_core.job_files import JobFiles
from runner_core.job_folder import BatchFiles
from runner_core.journal import fold, parse_events
from runner_core.model import TaskState
from runner_core.settings import Settings

WORKFLOW_LOG = "workflow.log"
JOURNAL = "events.jsonl"
POLL_SECONDS = 0.5
"""How often a growing file is looked at. Asking works on every file system; notifications do not reach over NFS."""

_CHUNK = 1 << 16
_UNIT_LOG = re.compile(r"(?P<folder>\d+)_[^/]*/(?P<order>\d+)(?:_par_(?P<unit>\d{7}))?\.log")


@dataclass(frozen=True, slots=True)
class UnitLog:
    """The log of one unit: its path among the job's files, and how the unit stands.

    `unit` is the index of a unit of the parallel part, `None` for the non-parallel unit.
    """

    path: str
    unit: int | None
    state: TaskState


def job_folder_path(settings: Settings, job_id: int) -> Path:
    """Where the folder of a job is, or was before its zip; raises `NotFound`."""
    working_dir = show_job(settings, job_id)["working_dir"]
    if working_dir is None:
        raise NotFound(f"job {job_id} has no folder")
    return Path(working_dir)


def open_job_files(settings: Settings, job_id: int) -> JobFiles:
    """Open the files of a job, from its folder or from its zip; raises `NotFound` when there is neither."""
    return JobFiles.open(job_folder_path(settings, job_id))


def unit_logs(files: JobFiles, order: int, *, unit: int | None = None) -> list[UnitLog]:
    """The logs of one task's units, or of the one that is asked for; failed ones first, else in order.

    A task without a parallel part has one unit, of index 0. Raises `NotFound` when there is none (yet).
    """
    failed = _failed_units(files, order)
    found = []
    for entry in files.entries():
        match = _UNIT_LOG.fullmatch(entry.path)
        if match and int(match["order"]) == int(match["folder"]) == order:
            index = int(match["unit"]) if match["unit"] else None
            state = TaskState.FAILED if index in failed else TaskState.DONE
            found.append(UnitLog(entry.path, index, state))
    parallel = [log for log in found if log.unit is not None]
    if unit is not None:
        found = [log for log in parallel if log.unit == unit] or [log for log in found if not parallel and unit == 0]
    if not found:
        what = f"unit {unit} of task {order}" if unit is not None else f"task {order}"
        raise NotFound(f"there is no log of {what}", hint="it has not run; `pilothouse job show` tells what has")
    return sorted(found, key=lambda log: (log.state is not TaskState.FAILED, log.unit is not None, log.unit))


def _failed_units(files: JobFiles, order: int) -> set[int | None]:
    """The units of a task that failed, by the journal; `None` stands for the non-parallel one."""
    try:
        state = fold(parse_events(files.read(JOURNAL)))
    except NotFound:
        return set()
    failed: set[int | None] = set()
    for key, batch in state.batches.items():
        if batch.order == order:
            alone = key.endswith(f"-{BatchFiles.non_parallel(order).name}")
            failed |= {None} if alone and batch.failed else batch.failed
    return failed


def follow_file(
    path: Path, *, is_over: Callable[[], bool], sleep: Callable[[float], object] = time.sleep
) -> Iterator[bytes]:
    """Yield the bytes of a file from its start, and what is added, until nothing more can come.

    The file may not be there yet. One that is truncated, or put in another's place, is read anew from its start; one
    whose folder goes is read to its end. `is_over` is asked only when there is nothing new to read.
    """
    file: BinaryIO | None = None
    over = False
    try:
        while True:
            newer = _other_file_at(path, file)
            read_any = False
            for chunk in _rest_of(file):
                read_any = True
                yield chunk
            if newer is not None:
                if file is not None:
                    file.close()
                file = newer
            elif over and not read_any:
                return
            elif not read_any:
                over = is_over()
                if not over:
                    sleep(POLL_SECONDS)
    finally:
        if file is not None:
            file.close()


def _other_file_at(path: Path, file: BinaryIO | None) -> BinaryIO | None:
    """Open the file at a path, unless it is the given one or there is none."""
    try:
        newer = os.fdopen(open_regular(str(path)), "rb", buffering=0)
    except OSError:
        return None
    if file is not None and os.path.sameopenfile(newer.fileno(), file.fileno()):
        newer.close()
        return None
    return newer


def _rest_of(file: BinaryIO | None) -> Iterator[bytes]:
    """The bytes from where reading stopped; from the start, if the file has become shorter than that."""
    if file is None:
        return
    if os.fstat(file.fileno()).st_size < file.tell():
        file.seek(0)
    while chunk := file.read(_CHUNK):
        yield chunk
