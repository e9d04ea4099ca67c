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
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import select

from runner_core.backends import Batch, LocalOptions, make_backend
from runner_core.backends.local import is_batch_alive
from runner_core.conclusion import (
    Conclusion,
    completed_state,
    failure_during_run,
    is_complete,
    success,
    write_conclusion,
)
from runner_core.engine import units_event
from runner_core.failures import JobExecutionError, Refused
from runner_core.job_folder import BatchFiles
from runner_core.job_record import JobRecord, NothingToRun, load_job
from runner_core.journal import BatchProgress, JobState, Journal, fold, read_events
from runner_core.lease import Holder, Lease, LeaseReport, lease_path, look
from runner_core.model import FailureKind, JobStatus, Json, Phase, TaskState
from runner_core.settings import Settings
from runner_core.store.models import Job
from runner_core.store.queries import find_dataset, submitted_job_id
from runner_core.store.session import Store, open_store
from runner_core.submission import journal_end

_logger = logging.getLogger(__name__)


def settle_gone_jobs(settings: Settings) -> None:
    """Settle every submitted job whose runner is gone and whose work has ended."""
    with open_store(settings.store_url).session() as session:
        job_ids = session.scalars(select(Job.id).where(Job.status == JobStatus.SUBMITTED)).all()
    for job_id in job_ids:
        if look(lease_path(settings.runners_dir, job_id)).holder is Holder.GONE:
            settle_job(settings, job_id)


def settle_job_of(settings: Settings, dataset: int | str) -> None:
    """Settle the submitted job of a dataset if its runner is gone, so that it does not block the dataset for ever."""
    with open_store(settings.store_url).session() as session:
        job_id = submitted_job_id(session, find_dataset(session, dataset).id)
    if job_id is not None and look(lease_path(settings.runners_dir, job_id)).holder is Holder.GONE:
        settle_job(settings, job_id)


def settle_job(settings: Settings, job_id: int, *, end_work: bool = False) -> bool:
    """Conclude a job that nobody drives any more; whether that could be done.

    Work that outlived its runner is left to end by itself, unless `end_work` asks to end it now. A job whose tasks were
    all done is concluded as done.
    """
    store = open_store(settings.store_url)
    report = look(lease_path(settings.runners_dir, job_id))
    try:
        record, state = _left_behind(store, job_id)
    except NothingToRun:
        return True
    if not end_work and is_work_alive(record, state):
        return False
    try:
        lease = Lease.acquire(lease_path(settings.runners_dir, job_id))
    except Refused:
        return False
    try:
        state = _close_journal(record, state, asyncio.run(_harvest(settings, record, state)))
        conclusion = _conclusion_of_gone(record, report)
        write_conclusion(store, conclusion, state, job_id=job_id, dataset_id=record.dataset_id)
        if record.folder.path.is_dir():
            journal_end(record.folder, conclusion)
        record.folder.early_stop.unlink(missing_ok=True)
    except BaseException:
        lease.abandon()
        raise
    lease.release()
    return True


def _left_behind(store: Store, job_id: int) -> tuple[JobRecord, JobState]:
    """What the store and the folder know of a job that nobody drives."""
    with store.session() as session:
        job = session.get(Job, job_id)
        workflow_id, dataset_id = (job.workflow_id, job.dataset_id) if job else (None, None)
        record = load_job(session, job_id=job_id, workflow_id=workflow_id, dataset_id=dataset_id)
    return record, fold(read_events(record.folder.journal))


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


async def _harvest(settings: Settings, record: JobRecord, state: JobState) -> list[Json]:
    """End what outlived its runner, and take in what it had finished; returns what the journal has to learn."""
    options = LocalOptions(parallel=1, grace_seconds=settings.stop_grace_seconds, environment={})
    batches = unfinished_batches(record, state)
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


def _close_journal(record: JobRecord, state: JobState, events: list[Json]) -> JobState:
    """Bring the journal of a job whose runner died up to what is known now; returns the state that it tells."""
    running = [task.order for task in state.tasks.values() if task.state is TaskState.RUNNING]
    events += [{"event": "task_ended", "order": order, "state": TaskState.FAILED} for order in running]
    if events:
        with contextlib.closing(Journal(record.folder.journal, clock=time.time)) as journal:
            journal.append(*events)
    return fold(read_events(record.folder.journal))


def _conclusion_of_gone(record: JobRecord, report: LeaseReport) -> Conclusion:
    if is_complete(record):
        return success(record, completed_state(record))
    if record.folder.stop_requested():
        error = JobExecutionError("Job stopped by operator.", kind=FailureKind.STOPPED)
        return failure_during_run(record, error, logger=_logger)
    since = "an unknown time"
    if report.last_sign is not None:
        since = datetime.fromtimestamp(report.last_sign, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    error = JobExecutionError(
        f"runner gone since {since}: the process that ran the job died",
        kind=FailureKind.LOST,
        hint="what the tasks before made is in the dataset; run the job again from the failed task on",
    )
    return replace(failure_during_run(record, error, logger=_logger), phase=Phase.RUNNER_GONE)
