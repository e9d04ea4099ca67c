"""What people see of the store: lists as plain rows, each by one statement, and look-ups by id or name.

Rows hold no column that grows with the data: no images, histories, logs, dumps or schemas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from runner_core.failures import NotFound, Refused
from runner_core.model import JobStatus, Json
from runner_core.store.column_types import storable
from runner_core.store.models import Dataset, Job, Task, TaskPackage, Workflow, WorkflowTask

_SHOWN = 5  # so many names or ids in a message


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in a list. The names are `None` once the workflow or the dataset has been deleted."""

    id: int
    status: str
    workflow_id: int | None
    workflow_name: str | None
    dataset_id: int | None
    dataset_name: str | None
    backend: str
    profile: str | None
    first_task_index: int
    last_task_index: int
    slurm_account: str | None
    start_timestamp: datetime
    end_timestamp: datetime | None
    working_dir: str | None
    working_dir_user: str | None
    outcome: Json | None


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A dataset in a list; `submitted_job_id` is the job that it is busy with."""

    id: int
    name: str
    zarr_dir: str
    image_count: int
    submitted_job_id: int | None
    timestamp_created: datetime


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """A workflow in a list."""

    id: int
    name: str
    task_count: int
    timestamp_created: datetime


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task in a list, with what it has from its package."""

    id: int
    name: str
    version: str
    pkg_name: str
    source: str
    type: str
    command_non_parallel: str | None
    command_parallel: str | None
    input_types: Json
    output_types: Json
    category: str | None
    modality: str | None
    tags: list[str]
    package_id: int
    interpreter: str


@dataclass(frozen=True, slots=True)
class PackageRow:
    """A task package in a list; `workflow_count` workflows use tasks of it."""

    id: int
    pkg_name: str
    version: str
    origin: str
    requested: str
    interpreter: str
    env_dir: str | None
    task_count: int
    workflow_count: int
    timestamp_created: datetime


def list_jobs(session: Session, *, status: JobStatus | None = None, limit: int | None = None) -> list[JobRow]:
    """The jobs, newest first."""
    statement = (
        select(
            Job.id,
            Job.status,
            Job.workflow_id,
            Workflow.name.label("workflow_name"),
            Job.dataset_id,
            Dataset.name.label("dataset_name"),
            Job.backend,
            Job.profile,
            Job.first_task_index,
            Job.last_task_index,
            Job.slurm_account,
            Job.start_timestamp,
            Job.end_timestamp,
            Job.working_dir,
            Job.working_dir_user,
            Job.outcome,
        )
        .outerjoin(Workflow, Workflow.id == Job.workflow_id)
        .outerjoin(Dataset, Dataset.id == Job.dataset_id)
        .order_by(Job.id.desc())
        .limit(limit)
    )
    if status is not None:
        statement = statement.where(Job.status == status.value)
    return _rows(session, JobRow, statement)


def list_datasets(session: Session) -> list[DatasetRow]:
    """The datasets, oldest first."""
    statement = (
        select(
            Dataset.id,
            Dataset.name,
            Dataset.zarr_dir,
            Dataset.image_count,
            Job.id.label("submitted_job_id"),
            Dataset.timestamp_created,
        )
        .outerjoin(Job, Job.submitted_dataset_id == Dataset.id)
        .order_by(Dataset.id)
    )
    return _rows(session, DatasetRow, statement)


def list_workflows(session: Session) -> list[WorkflowRow]:
    """The workflows, oldest first."""
    task_count = (
        select(func.count()).where(WorkflowTask.workflow_id == Workflow.id).scalar_subquery().label("task_count")
    )
    statement = select(Workflow.id, Workflow.name, task_count, Workflow.timestamp_created).order_by(Workflow.id)
    return _rows(session, WorkflowRow, statement)


def list_tasks(session: Session) -> list[TaskRow]:
    """The tasks, package by package in the order of collection."""
    statement = (
        select(
            Task.id,
            Task.name,
            Task.version,
            TaskPackage.pkg_name,
            Task.source,
            Task.type,
            Task.command_non_parallel,
            Task.command_parallel,
            Task.input_types,
            Task.output_types,
            Task.category,
            Task.modality,
            Task.tags,
            Task.package_id,
            TaskPackage.interpreter,
        )
        .join(Task.package)
        .order_by(Task.package_id, Task.id)
    )
    return _rows(session, TaskRow, statement)


def list_packages(session: Session) -> list[PackageRow]:
    """The task packages, in the order of collection."""
    task_count = select(func.count()).where(Task.package_id == TaskPackage.id).scalar_subquery()
    workflow_count = (
        select(func.count(WorkflowTask.workflow_id.distinct()))
        .join(Task, Task.id == WorkflowTask.task_id)
        .where(Task.package_id == TaskPackage.id)
        .scalar_subquery()
    )
    statement = select(
        TaskPackage.id,
        TaskPackage.pkg_name,
        TaskPackage.version,
        TaskPackage.origin,
        TaskPackage.requested,
        TaskPackage.interpreter,
        TaskPackage.env_dir,
        task_count.label("task_count"),
        workflow_count.label("workflow_count"),
        TaskPackage.timestamp_created,
    ).order_by(TaskPackage.id)
    return _rows(session, PackageRow, statement)


def find_workflow(session: Session, key: int | str) -> Workflow:
    """The workflow of that id or name; see `find_dataset`."""
    return _find(session, Workflow, key)


def find_dataset(session: Session, key: int | str) -> Dataset:
    """The dataset of that id or name; digits are an id first, and a name if no dataset has that id.

    Raises `NotFound`, naming a few that exist, and `Refused` when several have the name.
    """
    return _find(session, Dataset, key)


def submitted_job_id(session: Session, dataset_id: int) -> int | None:
    """The job that the dataset is busy with."""
    return session.scalar(select(Job.id).where(Job.submitted_dataset_id == dataset_id))


_Row = TypeVar("_Row", JobRow, DatasetRow, WorkflowRow, TaskRow, PackageRow)
_Named = TypeVar("_Named", Workflow, Dataset)


def _rows(session: Session, kind: type[_Row], statement: Select[*tuple[object, ...]]) -> list[_Row]:
    """The statement's rows; its columns have the names of the fields."""
    return [kind(**row) for row in session.execute(statement).mappings()]


def _find(session: Session, kind: type[_Named], key: int | str) -> _Named:
    noun, text = kind.__tablename__, str(key)
    is_id = text.isascii() and text.isdecimal() and len(text) < 10
    if is_id and (found := session.get(kind, int(text))) is not None:
        return found
    by_name = select(kind).where(kind.name == storable(text)).order_by(kind.id)
    same_name = [] if isinstance(key, int) else list(session.scalars(by_name))
    if not same_name:
        raise NotFound(f"there is no {noun} {text[:80]!r}", hint=_existing(session, kind))
    if len(same_name) > 1:
        ids = _some([str(found.id) for found in same_name])
        raise Refused(f"{len(same_name)} {noun}s are named {text[:80]!r}", hint=f"use an id: {ids}")
    return same_name[0]


def _existing(session: Session, kind: type[_Named]) -> str:
    """The newest ones, and how to see all."""
    noun = kind.__tablename__
    newest = session.execute(select(kind.id, kind.name).order_by(kind.id.desc()).limit(_SHOWN + 1)).all()
    if not newest:
        return f"none exists yet, see `pilothouse {noun} --help`"
    names = _some([f"{row.id} {row.name[:40]!r}" for row in newest])
    return f"there are {names} (`pilothouse {noun} list` shows all)"


def _some(words: Sequence[str]) -> str:
    """The words, or the first few of them and an ellipsis."""
    return ", ".join(words[:_SHOWN]) + (", …" if len(words) > _SHOWN else "")
