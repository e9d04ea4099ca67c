"""Jobs from outside: launch one, and stop one.

Launching makes the job's row and starts a runner process of its own (see `runner`); the lease passes from the launcher
to the runner without a gap. A job whose runner is gone is settled first (see `settlement`).
"""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from runner_core.backends import AVAILABLE
from runner_core.failures import NotFound, Refused, quoted
from runner_core.job_folder import PROJECT_ID, JobFolder, job_folder_name
from runner_core.job_record import task_range
from runner_core.lease import Holder, Lease, lease_path, look, runner_log
from runner_core.model import JobStatus
from runner_core.settings import BACKENDS, Settings
from runner_core.settlement import settle_job, settle_job_of
from runner_core.store.errors import dataset_is_busy
from runner_core.store.models import Dataset, Job, Workflow, utc_now
from runner_core.store.queries import find_dataset, find_workflow
from runner_core.store.session import open_store


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
    """Make the row of a job (S1-S4, S6) for `submit_workflow`, and return its id; nothing runs yet.

    Raises `NotFound` for an unknown workflow or dataset, `Refused` for a busy dataset, an empty workflow, a bad range
    or settings that the backend cannot work with.
    """
    return _make_job(settings, request, claim=lambda _job_id: None)


def _make_job(settings: Settings, request: JobRequest, *, claim: Callable[[int], None]) -> int:
    """Make the row of a job; `claim` is called with its id before anybody else can see it."""
    backend, profile_name, account = backend_of(settings, request)
    settle_job_of(settings, request.dataset)
    now = utc_now()
    try:
        with open_store(settings.store).session(write=True) as session:
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
            claim(job.id)
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
    """Make a job and start its runner, which outlives this process; returns the job's id. Errors as `create_job`.

    The lease is taken before the job is visible: there is no moment in which it seems to be nobody's.
    """
    leases: list[Lease] = []
    try:
        job_id = _make_job(settings, request, claim=lambda job_id: leases.append(_take(settings, job_id)))
    except BaseException:
        for lease in leases:
            lease.release()
        raise
    _start_runner(settings, job_id, leases[0])
    return job_id


def start_runner(settings: Settings, job_id: int) -> None:
    """Start the runner process of a submitted job; raises `Refused` if it has one already."""
    _start_runner(settings, job_id, _take(settings, job_id))


def _take(settings: Settings, job_id: int) -> Lease:
    return Lease.acquire(lease_path(settings.runners_dir, job_id))


def _start_runner(settings: Settings, job_id: int, lease: Lease) -> None:
    output = None
    held_back = {signal.SIGHUP, signal.SIGTERM}  # until the runner can heed them
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, held_back)
    try:
        output = os.open(runner_log(settings.runners_dir, job_id), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
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
        settle_job(settings, job_id)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if output is not None:
            os.close(output)
    lease.pass_on()


def _absolute(settings: Settings) -> dict[str, str]:
    """The settings that may have been given relative to the launcher's working directory, which the runner leaves."""
    values = {"PILOTHOUSE_HOME": settings.home, "PILOTHOUSE_LOCAL_CONFIG_FILE": settings.local_config_file}
    values |= {"PILOTHOUSE_CACHE_DIR": settings.cache_dir}
    paths = {name: str(value) for name, value in values.items() if value is not None}
    if settings.database_url:
        paths["PILOTHOUSE_DATABASE_URL"] = open_store(settings.database_url).url
    return paths


# ----------------------------------------------------------------------------------------------------------------------
# Stopping


def stop_job(settings: Settings, job_id: int) -> None:
    """Ask a running job to stop, or settle one whose runner is gone (X1).

    Raises `NotFound` for an unknown job and `Refused` for one that has ended.
    """
    with open_store(settings.store).session() as session:
        job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}", hint="pilothouse job list shows them")
    if job.status != JobStatus.SUBMITTED:
        phase = (job.outcome or {}).get("phase", job.status)
        raise Refused(f"job {job_id} is not running: it is {phase}")
    JobFolder(Path(job.working_dir or "")).request_stop()
    holder = look(lease_path(settings.runners_dir, job_id)).holder
    if holder in {Holder.GONE, Holder.NONE}:
        settle_job(settings, job_id, end_work=True)
