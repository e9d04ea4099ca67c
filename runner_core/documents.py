"""What the store, the journals and the job files say, as the JSON documents that scripts and screens read.

Every function reads and changes nothing, and gives plain dicts and lists; timestamps are ISO 8601 in UTC. Lists never
load what grows with the data, and only jobs that are submitted have their lease and their journal looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from runner_core.failures import JobExecutionError, NotFound
from runner_core.history import task_statuses
from runner_core.job_folder import JobFolder
from runner_core.model import JobStatus, Json, Phase, TaskState
from runner_core.settings import Settings
from runner_core.store import queries
from runner_core.store.models import Dataset, Job, Task, Workflow, WorkflowTask
from runner_core.store.session import open_store

if TYPE_CHECKING:
    from runner_core.journal import JobState
    from runner_core.lease import LeaseReport

_TASK_KEYS = (
    "id",
    "name",
    "version",
    "pkg_name",
    "source",
    "type",
    "command_non_parallel",
    "command_parallel",
    "input_types",
    "output_types",
)
_OVER = {Phase.DONE, Phase.FAILED, Phase.STOPPED}


def store_exists(settings: Settings) -> bool:
    """Whether there is anything to read: a store of its own URL, or the file that is made at the first use."""
    return settings.database_url is not None or (settings.home / "store.db").exists()


# ----------------------------------------------------------------------------------------------------------------------
# Tasks, workflows, datasets


def list_tasks(settings: Settings, *, package_id: int | None = None) -> list[Json]:
    """All collected tasks, or those of one package."""
    with _session(settings) as session:
        rows = queries.list_tasks(session)
    return [
        {key: getattr(row, key) for key in _TASK_KEYS}
        for row in rows
        if package_id is None or row.package_id == package_id
    ]


def list_packages(settings: Settings) -> list[Json]:
    """The collected task packages, and how many workflows use each."""
    with _session(settings) as session:
        return [_with_iso_times(asdict(row)) for row in queries.list_packages(session)]


def list_workflows(settings: Settings) -> list[Json]:
    """The workflows, oldest first."""
    with _session(settings) as session:
        return [_with_iso_times(asdict(row)) for row in queries.list_workflows(session)]


def show_workflow(settings: Settings, key: int | str) -> Json:
    """One workflow, by id or name, with its tasks, their arguments and filters; raises `NotFound`."""
    with _session(settings) as session:
        workflow = queries.find_workflow(session, key)
        steps = session.scalars(
            select(WorkflowTask)
            .where(WorkflowTask.workflow_id == workflow.id)
            .options(joinedload(WorkflowTask.task).joinedload(Task.package))
            .order_by(WorkflowTask.order)
        )
        return {
            "id": workflow.id,
            "name": workflow.name,
            "timestamp_created": workflow.timestamp_created.isoformat(),
            "task_list": [_step_document(step) for step in steps],
        }


def _step_document(step: WorkflowTask) -> Json:
    task = step.task
    return {
        "id": step.id,
        "order": step.order,
        "args_non_parallel": step.args_non_parallel,
        "args_parallel": step.args_parallel,
        "meta_non_parallel": step.meta_non_parallel,
        "meta_parallel": step.meta_parallel,
        "input_filters": step.input_filters,
        "task": {key: task.package.pkg_name if key == "pkg_name" else getattr(task, key) for key in _TASK_KEYS},
    }


def list_datasets(settings: Settings) -> list[Json]:
    """The datasets, oldest first, each with the job that it is busy with."""
    with _session(settings) as session:
        return [_with_iso_times(asdict(row)) for row in queries.list_datasets(session)]


def show_dataset(settings: Settings, key: int | str) -> Json:
    """One dataset, by id or name, with its images, filters and history; raises `NotFound`."""
    with _session(settings) as session:
        dataset = queries.find_dataset(session, key)
        return {
            "id": dataset.id,
            "name": dataset.name,
            "zarr_dir": dataset.zarr_dir,
            "images": dataset.images,
            "filters": dataset.filters,
            "history": dataset.history,
            "timestamp_created": dataset.timestamp_created.isoformat(),
            "submitted_job_id": queries.submitted_job_id(session, dataset.id),
        }


def workflow_statuses(settings: Settings, *, workflow: int | str, dataset: int | str) -> Json:
    """How a workflow stands over a dataset (E4): `done`, `failed` or `submitted` by the id of the workflow task.

    Tasks without a status are left out. Workflow and dataset are given by id or name; raises `NotFound`.
    """
    with _session(settings) as session:
        found, over = queries.find_workflow(session, workflow), queries.find_dataset(session, dataset)
        of_workflow = WorkflowTask.workflow_id == found.id
        task_ids = session.scalars(select(WorkflowTask.id).where(of_workflow).order_by(WorkflowTask.order)).all()
        of_pair = (Job.workflow_id == found.id, Job.dataset_id == over.id)
        job = session.scalar(select(Job).where(*of_pair, Job.status == JobStatus.SUBMITTED))
        statuses = task_statuses(
            history=over.history,
            workflow_task_ids=task_ids,
            running=(job.first_task_index, job.last_task_index) if job else None,
            running_history=_history_of(job) if job else (),
        )
    return {str(task_id): status for task_id, status in statuses.items()}


def _history_of(job: Job) -> list[Json]:
    """What a running job has written of its own history."""
    try:
        return (JobFolder(Path(job.working_dir)).read_state("history") if job.working_dir else None) or []
    except (OSError, JobExecutionError):
        return []  # it cannot be looked at; what came before the job can


# ----------------------------------------------------------------------------------------------------------------------
# Jobs


def list_jobs(settings: Settings, *, status: JobStatus | None = None, limit: int | None = None) -> list[Json]:
    """The jobs, newest first: what `show_job` says of each, but for its log, its archive and its runner."""
    with _session(settings) as session:
        rows = queries.list_jobs(session, status=status, limit=limit)
    return [_job_document(row, _evidence_of(settings, row)) for row in rows]


def is_any_job_submitted(settings: Settings) -> bool:
    """Whether there is a job that has not ended."""
    with _session(settings) as session:
        return session.scalar(select(Job.id).where(Job.status == JobStatus.SUBMITTED).limit(1)) is not None


def show_job(settings: Settings, job_id: int) -> Json:
    """One job, as it stands now; raises `NotFound`.

    `log` is what has been logged so far while the job is submitted. `archive` is the zip's path once it is there.
    `runner` says what is known of the process that drives the job: `state` (`none`, `alive`, `gone`, `unknown`),
    `host`, `pid` and its `last_sign` of life. `tasks` are those of the workflow while the job has not begun.
    """
    from runner_core.lease import lease_path, look

    # What may change is looked at first: a job that the store then still calls submitted was so all the while.
    report = look(lease_path(settings.runners_dir, job_id))
    with _session(settings) as session:
        row, log = _job_row(session, job_id)
        evidence = _evidence_of(settings, row, report=report)
        document = _job_document(row, evidence)
        if not document["tasks"]:
            document["tasks"] = _tasks_not_begun(session, row)
    folder = JobFolder(Path(row.working_dir)) if row.working_dir else None
    if folder is not None and row.status == JobStatus.SUBMITTED:
        log = _text_of(folder.workflow_log)
    process = report.process
    return {
        **document,
        "archive": str(folder.archive) if folder is not None and folder.archive.is_file() else None,
        "log": log,
        "runner": {
            "state": report.holder.value,
            "host": process.host if process else None,
            "pid": process.pid if process else None,
            "last_sign": _iso(report.last_sign),
        },
        "slurm_jobs": [],
    }


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What lease and journal say of a job that the store calls submitted."""

    phase: Phase
    since: float | None
    state: JobState


def _evidence_of(settings: Settings, row: queries.JobRow, *, report: LeaseReport | None = None) -> _Evidence | None:
    """Look at the lease and the journal of a submitted job; `None` for one that has ended."""
    if row.status != JobStatus.SUBMITTED or row.working_dir is None:
        return None
    from runner_core.journal import JobState, fold, read_events
    from runner_core.lease import Holder, lease_path, look

    report = report or look(lease_path(settings.runners_dir, row.id))
    folder = JobFolder(Path(row.working_dir))
    try:
        state = fold(read_events(folder.journal))
    except OSError:
        state = JobState()  # it cannot be looked at; one such job must not keep people from the others
    if report.holder is Holder.GONE:
        return _Evidence(Phase.RUNNER_GONE, report.last_sign, state)
    if report.holder is Holder.UNKNOWN:
        return _Evidence(Phase.NO_CONTACT, report.last_sign, state)
    phase = Phase.RUNNING if state.phase in _OVER else state.phase  # not over before the store says so
    return _Evidence(Phase.STOPPING if folder.stop_requested() else phase, None, state)


def _job_document(row: queries.JobRow, evidence: _Evidence | None) -> Json:
    outcome = row.outcome or {}
    phase, since, tasks = outcome.get("phase", row.status), None, outcome.get("tasks", [])
    if evidence is not None:
        from runner_core.conclusion import task_documents

        phase, since, tasks = evidence.phase.value, evidence.since, task_documents(evidence.state)
    return {
        "id": row.id,
        "status": row.status,
        "phase": phase,
        "phase_since": _iso(since),
        "workflow_id": row.workflow_id,
        "workflow_name": row.workflow_name,
        "dataset_id": row.dataset_id,
        "dataset_name": row.dataset_name,
        "backend": row.backend,
        "profile": row.profile,
        "first_task_index": row.first_task_index,
        "last_task_index": row.last_task_index,
        "start_timestamp": row.start_timestamp.isoformat(),
        "end_timestamp": row.end_timestamp.isoformat() if row.end_timestamp else None,
        "working_dir": row.working_dir,
        "working_dir_user": row.working_dir_user,
        "slurm_account": row.slurm_account,
        "failure": outcome.get("failure"),
        "tasks": [{**task, "started": _iso(task["started"]), "ended": _iso(task["ended"])} for task in tasks],
    }


def _job_row(session: Session, job_id: int) -> tuple[queries.JobRow, str | None]:
    """The row of one job, as lists have it, and its log."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}", hint="`pilothouse job list` shows them")
    workflow = session.get(Workflow, job.workflow_id) if job.workflow_id else None
    dataset = session.get(Dataset, job.dataset_id) if job.dataset_id else None
    names: Json = {
        "workflow_name": workflow.name if workflow else None,
        "dataset_name": dataset.name if dataset else None,
    }
    columns: Json = {
        field.name: getattr(job, field.name) for field in fields(queries.JobRow) if field.name not in names
    }
    return queries.JobRow(**columns, **names), job.log


def _tasks_not_begun(session: Session, row: queries.JobRow) -> list[Json]:
    """The tasks that the job is to run, or was to run when it failed before its first one."""
    steps = session.execute(
        select(WorkflowTask.order, Task.name, Task.type)
        .join(WorkflowTask.task)
        .where(
            WorkflowTask.workflow_id == row.workflow_id,
            WorkflowTask.order.between(row.first_task_index, row.last_task_index),
        )
        .order_by(WorkflowTask.order)
    )
    return [
        {
            "order": step.order,
            "name": step.name,
            "type": step.type,
            "state": TaskState.PENDING.value,
            "units": dict.fromkeys(("total", "done", "failed", "running", "pending"), 0),
            "started": None,
            "ended": None,
        }
        for step in steps
    ]


# ----------------------------------------------------------------------------------------------------------------------


@contextmanager
def _session(settings: Settings) -> Iterator[Session]:
    with open_store(settings.store).session() as session:
        yield session


def _iso(seconds: float | None) -> str | None:
    """Write seconds since the epoch as ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _with_iso_times(row: Json) -> Json:
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
