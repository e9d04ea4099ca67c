"""`submit_workflow`: the one door by which a job runs, step by step (rows O1-O9 and Z1 of the behaviour reference).

    load job, dataset, workflow  ->  backend  ->  folders  ->  workflow.log  ->  tasks  ->  store  ->  zip

A failure before the log exists ends the job without touching the dataset; any later one assembles the dataset from
what the last successful task left. The status changes before the zip exists (O8).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runner_core import __version__
from runner_core.archive import archive_folder
from runner_core.backends import Backend, LocalOptions, make_backend
from runner_core.backends.local import read_local_config, usable_cpus
from runner_core.conclusion import (
    Conclusion,
    failure_before_start,
    failure_during_run,
    success,
    write_conclusion,
)
from runner_core.engine import Run, run_tasks
from runner_core.failures import JobExecutionError, PilothouseError
from runner_core.job_folder import JobFolder
from runner_core.job_record import JobRecord, NothingToRun, load_job
from runner_core.journal import JobState, Journal, known_state
from runner_core.lease import Lease, lease_path
from runner_core.model import FailureKind
from runner_core.settings import Settings, UserSettings, read_settings
from runner_core.store.session import Store, open_store


async def submit_workflow(
    *,
    workflow_id: int,
    dataset_id: int,
    job_id: int,
    user_settings: UserSettings,
    worker_init: str | None = None,
    slurm_user: str | None = None,
    user_cache_dir: str | None = None,
    fractal_ssh: Any = None,  # noqa: ARG001 - for the backend over SSH
) -> None:
    """Run a job that is in the store as `submitted`, to its end.

    `worker_init` holds lines for Slurm's submission script; `slurm_user`, `user_settings` and `fractal_ssh` are for the
    Slurm backends; `user_cache_dir` is what tasks get as `FRACTAL_CACHE_DIR`. Whatever goes wrong ends in the store, as
    a job that is `failed` with the reason in its log. A job that is not there to be run is only logged (O1).

    Raises `Refused` when another process drives this job already, and what the store raises when it stays out of reach.
    """
    settings = read_settings()
    lease = Lease.inherited_or_acquired(lease_path(settings.runners_dir, job_id))
    beat = asyncio.create_task(lease.beat())
    try:
        store = open_store(settings.store)
        submission = _Submission(
            settings=settings,
            store=store,
            logger=logging.getLogger(f"WF{workflow_id}_job{job_id}"),
            job_id=job_id,
            workflow_id=workflow_id,
            dataset_id=dataset_id,
        )
        await submission.run(
            worker_init=worker_init,
            slurm_user=slurm_user or user_settings.slurm_user,
            cache_dir=Path(user_cache_dir) if user_cache_dir else settings.task_cache_dir,
        )
    except BaseException:
        lease.abandon()
        raise
    finally:
        beat.cancel()
    lease.release()


class _Submission:
    """One call of `submit_workflow`."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        logger: logging.Logger,
        job_id: int,
        workflow_id: int,
        dataset_id: int,
    ) -> None:
        self._settings = settings
        self._store = store
        self._logger = logger
        self._job_id = job_id
        self._workflow_id = workflow_id
        self._dataset_id = dataset_id
        logger.setLevel(logging.INFO)

    async def run(self, *, worker_init: str | None, slurm_user: str | None, cache_dir: Path) -> None:
        """Run the job to its end."""
        try:
            record = self._load()
            backend = self._make_backend(record, cache_dir)
            record.folder.create((task.order, task.name) for task in record.tasks)
        except NothingToRun as error:
            self._logger.error("%s", error)
            return
        except Exception as error:
            self._logger.exception("the job could not be started")
            await self._conclude(failure_before_start(error), JobState())
            return
        try:
            with _logging_to(record.folder.workflow_log, self._logger):
                self._log_start(record, worker_init=worker_init, slurm_user=slurm_user)
                conclusion = await self._run_tasks(record, backend)
        except OSError as error:  # the log itself cannot be written
            conclusion = failure_during_run(record, record.state, error, logger=self._logger)
        await self._conclude(conclusion, known_state(record.folder.journal))
        await self._put_away(record.folder, conclusion)

    def _load(self) -> JobRecord:
        with self._store.session() as session:
            return load_job(session, job_id=self._job_id, workflow_id=self._workflow_id, dataset_id=self._dataset_id)

    def _make_backend(self, record: JobRecord, cache_dir: Path) -> Backend:
        settings = self._settings
        configured = read_local_config(settings.local_config_file) if settings.local_config_file else None
        options = LocalOptions(
            parallel=configured or usable_cpus(),
            grace_seconds=settings.stop_grace_seconds,
            environment={"FRACTAL_CACHE_DIR": str(cache_dir)},
            warm_units=settings.warm_units_per_process,
        )
        backend = make_backend(settings.runner_backend, local=options)
        if record.working_dir != record.working_dir_user:
            raise JobExecutionError(
                f"the backend {settings.runner_backend!r} needs one job folder for both sides, not "
                f"{record.working_dir} and {record.working_dir_user}",
                kind=FailureKind.SETUP,
            )
        return backend

    def _log_start(self, record: JobRecord, *, worker_init: str | None, slurm_user: str | None) -> None:
        """Say what was asked for (O5)."""
        for line in (
            f"START workflow {record.workflow_id} over dataset {record.dataset_id}",
            f"pilothouse {__version__}, process {os.getpid()}",
            f"backend: {self._settings.runner_backend}",
            f"slurm user: {slurm_user}, slurm account: {record.slurm_account}",
            f"worker_init: {worker_init!r}",
            f"job id: {record.job_id}",
            f"working dir: {record.working_dir}",
            f"working dir of the user: {record.working_dir_user}",
            f"first task index: {record.first_task_index}",
            f"last task index: {record.last_task_index}",
        ):
            self._logger.info(line)
        if record.backend != self._settings.runner_backend:
            self._logger.warning("the job was made for the backend %s", record.backend)
        if worker_init:
            self._logger.warning("worker_init is for Slurm's submission script; this backend makes no use of it")

    async def _run_tasks(self, record: JobRecord, backend: Backend) -> Conclusion:
        folder, state = record.folder, record.state
        try:
            with contextlib.closing(Journal(folder.journal, clock=time.time)) as journal:
                journal.append(_job_event(record, self._settings.runner_backend))
                async with backend:
                    run = Run(
                        job_id=record.job_id,
                        zarr_dir=record.zarr_dir,
                        folder=folder,
                        journal=journal,
                        backend=backend,
                        logger=self._logger,
                        max_units=self._settings.max_units_per_task,
                        stop_requested=folder.stop_requested,
                    )
                    async for reached in run_tasks(run, record.tasks, record.state):
                        state = reached
            self._logger.info("END workflow")
            return success(record, state)
        except asyncio.CancelledError:
            error = JobExecutionError("the process that ran the job was told to end", kind=FailureKind.LOST)
            return failure_during_run(record, state, error, logger=self._logger)
        except Exception as error:  # noqa: BLE001 - every failure is assembled and told (O7)
            conclusion = failure_during_run(record, state, error, logger=self._logger)
            self._logger.error("FAILED: %s", conclusion.headline)
            return conclusion

    async def _conclude(self, conclusion: Conclusion, state: JobState) -> None:
        """Write the end into the store, beside the loop: the lease has to give signs of life meanwhile."""
        await asyncio.to_thread(
            write_conclusion, self._store, conclusion, state, job_id=self._job_id, dataset_id=self._dataset_id
        )

    async def _put_away(self, folder: JobFolder, conclusion: Conclusion) -> None:
        """Close the journal and put the zip in the place of the folder; a job that ended stays ended if this fails."""
        try:
            journal_end(folder, conclusion)
            folder.early_stop.unlink(missing_ok=True)
            await asyncio.to_thread(archive_folder, folder.path, keep_folder=self._settings.keep_job_folder)
        except (OSError, PilothouseError):
            self._logger.exception("the job folder could not be archived and stays as it is: %s", folder.path)


def journal_end(folder: JobFolder, conclusion: Conclusion) -> None:
    """Append how the job ended, as the last line of its journal."""
    failure = asdict(conclusion.failure) if conclusion.failure else None
    with contextlib.closing(Journal(folder.journal, clock=time.time)) as journal:
        journal.append({"event": "ended", "phase": conclusion.phase, "failure": failure})


def _job_event(record: JobRecord, backend: str) -> dict[str, Any]:
    return {
        "event": "job",
        "job_id": record.job_id,
        "workflow_id": record.workflow_id,
        "dataset_id": record.dataset_id,
        "zarr_dir": record.zarr_dir,
        "backend": backend,
        "tasks": [{"order": task.order, "name": task.name, "type": task.type} for task in record.tasks],
    }


@contextlib.contextmanager
def _logging_to(path: Path, logger: logging.Logger) -> Iterator[None]:
    """Write the job's log records into its `workflow.log`, in UTC."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(fd, "a", encoding="utf-8", errors="backslashreplace") as file:
        handler = logging.StreamHandler(file)
        formatter = logging.Formatter("%(asctime)s; %(levelname)s; %(message)s")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            handler.close()
