"""Settling: concluding a job whose runner died, by whoever finds it.

What its last successful task left is assembled into the dataset, as for any failed job, so that the dataset is not
blocked for ever. It takes proof that the runner is gone, and the lease; work that outlived the runner is never ended
without being asked to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from runner_core.archive import archive_folder
from runner_core.backends import Batch, LocalOptions, make_backend
from runner_core.backends.local import is_batch_alive
from runner_core.conclusion import (
    Conclusion,
    failure_before_start,
    failure_during_run,
    state_left_behind,
    success,
    write_conclusion,
)
from runner_core.engine import units_event
from runner_core.failures import JobExecutionError, NotFound, PilothouseError, Refused, last_error, quoted
from runner_core.job_folder import BatchFiles, JobFolder, read_excerpt
from runner_core.job_record import JobRecord, load_job
from runner_core.journal import BatchProgress, JobState, Journal, known_state
from runner_core.lease import Holder, Lease, LeaseReport, lease_path, look, runner_log
from runner_core.model import FailureKind, JobStatus, Json, Phase, TaskState
from runner_core.settings import Settings
from runner_core.store.models import Job
from runner_core.store.queries import find_dataset, submitted_job_id
from runner_core.store.session import Store, open_store
from runner_core.submission import journal_end

_logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_SAID_LIMIT = 16_384  # bytes at the end of what the runner printed


def settle_gone_jobs(settings: Settings) -> None:
    """Settle every job whose runner is gone and whose work has ended; costs nothing where there is no lease."""
    for path in sorted(settings.runners_dir.glob("job_*.lease")):
        if look(path).holder is Holder.GONE:
            settle_job(settings, int(path.stem.removeprefix("job_")))


def settle_job_of(settings: Settings, dataset: int | str) -> None:
    """Settle the submitted job of a dataset if its runner is gone, so that it does not block the dataset for ever."""
    with open_store(settings.store).session() as session:
        job_id = submitted_job_id(session, find_dataset(session, dataset).id)
    if job_id is not None and look(lease_path(settings.runners_dir, job_id)).holder is Holder.GONE:
        settle_job(settings, job_id)


def settle_job(settings: Settings, job_id: int, *, end_work: bool = False) -> bool:
    """Conclude a job that nobody drives any more; whether that could be done.

    Work that outlived its runner is left to end by itself, unless `end_work` asks to end it now. A job whose tasks were
    all done is concluded as done; one that had been concluded gets the zip that its runner could not finish.
    """
    path = lease_path(settings.runners_dir, job_id)
    report = look(path)
    store = open_store(settings.store)
    job = _job_row(store, job_id)
    if job is not None and job.status == JobStatus.SUBMITTED:
        record = _record_of(store, job)
        if not end_work and record is not None and is_work_alive(record, known_state(record.folder.journal)):
            return False
    try:
        lease = Lease.acquire(path)
    except Refused:
        return False
    try:
        job = _job_row(store, job_id)  # as it is now that nobody else can conclude it
        if job is not None:
            _conclude_and_put_away(settings, store, job, report)
    except BaseException:
        lease.abandon()
        raise
    lease.release()
    return True


def _job_row(store: Store, job_id: int) -> Job | None:
    with store.session() as session:
        return session.get(Job, job_id)


def _record_of(store: Store, job: Job) -> JobRecord | None:
    """Everything that running the job needed; `None` if its workflow or dataset is gone by now."""
    try:
        with store.session() as session:
            return load_job(session, job_id=job.id, workflow_id=job.workflow_id, dataset_id=job.dataset_id)
    except (NotFound, Refused):
        return None


def _conclude_and_put_away(settings: Settings, store: Store, job: Job, report: LeaseReport) -> None:
    folder = JobFolder(Path(job.working_dir or ""))
    phase = (job.outcome or {}).get("phase")
    if job.status == JobStatus.SUBMITTED:
        record = _record_of(store, job)
        state = JobState()
        if record is None or not folder.path.is_dir():
            conclusion = failure_before_start(_why_it_ended(settings, job.id, folder, report))
        else:
            state = _close_journal(record, _run_apart(_harvest(settings, record)))
            conclusion = _conclusion_of_gone(record, _why_it_ended(settings, job.id, folder, report))
        if conclusion.failure is not None and conclusion.failure.kind is FailureKind.LOST:
            conclusion = replace(conclusion, phase=Phase.RUNNER_GONE)
        write_conclusion(store, conclusion, state, job_id=job.id, dataset_id=job.dataset_id)
        phase = conclusion.phase
        if folder.path.is_dir():
            with contextlib.suppress(OSError, PilothouseError):
                journal_end(folder, conclusion)
        folder.early_stop.unlink(missing_ok=True)
    if phase != Phase.RUNNER_GONE and folder.path.is_dir():
        try:
            archive_folder(folder.path, keep_folder=settings.keep_job_folder)
        except (OSError, PilothouseError):
            _logger.exception("the job folder could not be archived and stays as it is: %s", folder.path)


def unfinished_batches(record: JobRecord, state: JobState) -> dict[str, tuple[Batch, BatchProgress]]:
    """The batches of which the journal knows no end, by key."""
    names = {task.order: task.name for task in record.tasks}
    batches = {}
    for key, progress in state.batches.items():
        if progress.ended is None:
            files = BatchFiles(key.removeprefix(f"job-{record.job_id}-"))
            folder = record.folder.task_folder(progress.order, names[progress.order])
            batches[key] = Batch(key, 1, folder, files, command=(), units=(), meta={}), progress
    return batches


def is_work_alive(record: JobRecord, state: JobState) -> bool:
    """Whether anything still runs for a job; what cannot be told counts as running."""
    batches = unfinished_batches(record, state).values()
    return any(is_batch_alive(batch, progress.handle) is not False for batch, progress in batches)


def _run_apart(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine to its end, also where the caller is inside a running event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


async def _harvest(settings: Settings, record: JobRecord) -> list[Json]:
    """End what outlived its runner, and take in what it had finished; returns what the journal has to learn."""
    options = LocalOptions(parallel=1, grace_seconds=settings.stop_grace_seconds, environment={})
    batches = unfinished_batches(record, known_state(record.folder.journal))
    open_keys = set(batches)
    events: list[Json] = []
    async with make_backend("local", local=options) as backend:
        for batch, progress in batches.values():
            await backend.adopt(batch, progress.handle)
        await backend.cancel(open_keys)
        while open_keys:
            for key, news in (await backend.poll(open_keys)).items():
                order = batches[key][1].order
                events.append(units_event(key, order, news))
                if news.ended is not None:
                    open_keys.discard(key)
                    events.append({"event": "batch_ended", "key": key, "order": order, "reason": news.ended})
    return events


def _close_journal(record: JobRecord, events: list[Json]) -> JobState:
    """Bring the journal of a job whose runner died up to what is known now; returns the state that it tells."""
    path = record.folder.journal
    running = [task.order for task in known_state(path).tasks.values() if task.state is TaskState.RUNNING]
    events += [{"event": "task_ended", "order": order, "state": TaskState.FAILED} for order in running]
    if events:
        with (
            contextlib.suppress(OSError, PilothouseError),
            contextlib.closing(Journal(path, clock=time.time)) as journal,
        ):
            journal.append(*events)
    return known_state(path)


def _conclusion_of_gone(record: JobRecord, error: JobExecutionError) -> Conclusion:
    try:
        reached = state_left_behind(record)
    except JobExecutionError as unusable:
        return failure_before_start(unusable)
    if len(reached.history) == len(record.tasks):
        return success(record, reached)
    return failure_during_run(record, reached, error, logger=_logger)


def _why_it_ended(settings: Settings, job_id: int, folder: JobFolder, report: LeaseReport) -> JobExecutionError:
    """Stopped, if an operator asked for it; or else that the runner died, with the last that it said."""
    if folder.stop_requested():
        return JobExecutionError("Job stopped by operator.", kind=FailureKind.STOPPED)
    since = "an unknown time"
    if report.last_sign is not None:
        since = datetime.fromtimestamp(report.last_sign, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    said, _ = last_error(read_excerpt(runner_log(settings.runners_dir, job_id), _SAID_LIMIT) or "")
    return JobExecutionError(
        f"runner gone since {since}: the process that ran the job died{f' of {quoted(said)}' if said else ''}",
        kind=FailureKind.LOST,
        hint="what the tasks before made is in the dataset; run the job again from the failed task on",
    )
