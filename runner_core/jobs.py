"""Jobs from outside: launch one, stop one, and settle one whose runner died.

Launching makes the job's row and starts a runner process of its own (see `runner`); the lease passes from the launcher
to the runner without a gap. A job whose runner is gone, by proof, is settled by whoever finds it: what its last
successful task left is assembled into the dataset, as for any failed job.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from runner_core.backends import AVAILABLE, Batch, LocalOptions, make_backend
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
from runner_core.failures import JobExecutionError, NotFound, Refused, quoted
from runner_core.job_folder import PROJECT_ID, BatchFiles, JobFolder, job_folder_name
from runner_core.job_record import JobRecord, NothingToRun, load_job, task_range
from runner_core.journal import BatchProgress, JobState, Journal, fold, read_events
from runner_core.lease import Holder, Lease, LeaseReport, lease_path, look
from runner_core.model import FailureKind, JobStatus, Json, Phase, TaskState
from runner_core.settings import BACKENDS, Settings
from runner_core.store.errors import dataset_is_busy
from runner_core.store.models import Dataset, Job, Workflow, utc_now
from runner_core.store.queries import find_dataset, find_workflow, submitted_job_id
from runner_core.store.session import Store, open_store
from runner_core.submission import journal_end

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What an operator asks for; workflow and dataset by id or by name, positions from 0, the last one included."""

    workflow: int | str
    dataset: int | str
    first_task_index: int | None = None
    last_task_index: int | None = None
    backend: str | None = None
    profile: str | None = None
    slurm_account: str | None = None
    worker_init: str | None = None


# ----------------------------------------------------------------------------------------------------------------------
# Launching


def create_job(settings: Settings, request: JobRequest) -> int:
    """Make the row of a job (S1-S4, S6) and return its id; nothing runs yet.

    Raises `NotFound` for an unknown workflow or dataset, `Refused` for a busy dataset, an empty workflow, a bad range
    or settings that the backend cannot work with.
    """
    backend, profile_name, account = backend_of(settings, request)
    _settle_job_of(settings, request.dataset)
    now = utc_now()
    try:
        with open_store(settings.store_url).session(write=True) as session:
            workflow = find_workflow(session, request.workflow)
            dataset = find_dataset(session, request.dataset)
            first, last = task_range(request.first_task_index, request.last_task_index, len(workflow.task_list))
            job = Job(
                workflow_id=workflow.id,
                dataset_id=dataset.id,
                backend=backend,
                profile=profile_name,
                first_task_index=first,
                last_task_index=last,
                worker_init=request.worker_init,
                slurm_account=account,
                user_email=getpass.getuser(),
                start_timestamp=now,
                project_dump={"id": PROJECT_ID, "name": "pilothouse"},
                workflow_dump=_workflow_dump(workflow),
                dataset_dump=_dataset_dump(dataset),
            )
            session.add(job)
            session.flush()
            folder = settings.jobs_dir / job_folder_name(workflow_id=workflow.id, job_id=job.id, created=now)
            job.working_dir = job.working_dir_user = str(folder)
            return job.id
    except IntegrityError as error:
        if not dataset_is_busy(error):
            raise
        raise Refused(
            f"dataset {quoted(request.dataset)} has a job that has not ended",
            hint="wait for it, or stop it (pilothouse job list --status submitted)",
        ) from None


def backend_of(settings: Settings, request: JobRequest) -> tuple[str, str | None, str | None]:
    """Backend, profile and Slurm account of a request (S1: the first account when none is named)."""
    name = request.profile or (None if request.backend else settings.profile)
    if name is None:
        backend = request.backend or settings.runner_backend
        accounts: tuple[str, ...] = ()
    else:
        profile = settings.profile_named(name)
        backend, accounts = request.backend or profile.backend, profile.user.slurm_accounts
    if backend in BACKENDS and backend not in AVAILABLE:
        raise Refused(f"the backend {backend!r} is not part of this version", hint=f"available: {', '.join(AVAILABLE)}")
    if backend not in BACKENDS:
        raise Refused(f"unknown backend {quoted(backend)}", hint=f"available: {', '.join(AVAILABLE)}")
    account = request.slurm_account
    if account is not None and account not in accounts:
        raise Refused(
            f"the Slurm account {quoted(account)} is not among the profile's: {', '.join(accounts) or 'none'}",
            hint="add it to slurm_accounts of the profile",
        )
    return backend, name, account or (accounts[0] if accounts else None)


def _workflow_dump(workflow: Workflow) -> dict[str, object]:
    return {"id": workflow.id, "name": workflow.name, "timestamp_created": workflow.timestamp_created.isoformat()}


def _dataset_dump(dataset: Dataset) -> dict[str, object]:
    return {
        "id": dataset.id,
        "name": dataset.name,
        "zarr_dir": dataset.zarr_dir,
        "filters": dataset.filters,
        "timestamp_created": dataset.timestamp_created.isoformat(),
    }


def launch_job(settings: Settings, request: JobRequest) -> int:
    """Make a job and start its runner, which outlives this process; returns the job's id. Errors as `create_job`."""
    job_id = create_job(settings, request)
    start_runner(settings, job_id)
    return job_id


def start_runner(settings: Settings, job_id: int) -> None:
    """Start the runner process of a submitted job; raises `Refused` if it has one already."""
    lease = Lease.acquire(lease_path(settings.runners_dir, job_id))
    output = os.open(runner_log(settings, job_id), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        runner = subprocess.Popen(
            [sys.executable, "-m", "runner_core.runner", str(job_id)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={**os.environ, **_absolute(settings), **lease.environment()},
            pass_fds=[lease.fd],
            start_new_session=True,
        )
        lease.name_holder(runner.pid)
    except BaseException:
        lease.abandon()
        raise
    finally:
        os.close(output)
    lease.pass_on()


def _absolute(settings: Settings) -> dict[str, str]:
    """The settings that may have been given relative to the launcher's working directory, which the runner leaves."""
    values = {"PILOTHOUSE_HOME": settings.home, "PILOTHOUSE_LOCAL_CONFIG_FILE": settings.local_config_file}
    values |= {"PILOTHOUSE_CACHE_DIR": settings.cache_dir}
    paths = {name: str(value) for name, value in values.items() if value is not None}
    return paths | {"PILOTHOUSE_DATABASE_URL": open_store(settings.store_url).url}


def runner_log(settings: Settings, job_id: int) -> Path:
    """Name the file that takes what the runner process itself prints."""
    return settings.runners_dir / f"job_{job_id:07d}.log"


# ----------------------------------------------------------------------------------------------------------------------
# Stopping


def stop_job(settings: Settings, job_id: int) -> None:
    """Ask a running job to stop, or settle one whose runner is gone (X1).

    Raises `NotFound` for an unknown job and `Refused` for one that has ended.
    """
    with open_store(settings.store_url).session() as session:
        job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}", hint="pilothouse job list shows them")
    if job.status != JobStatus.SUBMITTED:
        raise Refused(f"job {job_id} is not running: it is {job.status}")
    JobFolder(Path(job.working_dir or "")).request_stop()
    holder = look(lease_path(settings.runners_dir, job_id)).holder
    if holder in {Holder.GONE, Holder.NONE}:
        settle_job(settings, job_id, end_work=True)


# ----------------------------------------------------------------------------------------------------------------------
# Settling what a dead runner left


def settle_gone_jobs(settings: Settings) -> None:
    """Settle every submitted job whose runner is gone and whose work has ended."""
    with open_store(settings.store_url).session() as session:
        job_ids = session.scalars(select(Job.id).where(Job.status == JobStatus.SUBMITTED)).all()
    for job_id in job_ids:
        if look(lease_path(settings.runners_dir, job_id)).holder is Holder.GONE:
            settle_job(settings, job_id)


def _settle_job_of(settings: Settings, dataset: int | str) -> None:
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
