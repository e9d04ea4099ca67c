"""The tables: task packages, tasks, workflows, workflow tasks, datasets, jobs.

Columns that grow with the data (images, histories, schemas, logs, dumps) are deferred: a list of datasets or jobs
never loads them. All timestamps are UTC and aware.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Computed, ForeignKey, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, validates

from runner_core.model import JobStatus, Json
from runner_core.store.column_types import JsonText, LogText, StoredText, UtcDateTime

# An id is never given twice, not even after its row is gone: folders and scripts go on naming it.
_IDS_ONCE = {"sqlite_autoincrement": True}


class Base(DeclarativeBase):
    """Gives every constraint a name, so that migrations can say what they change."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        Json: JsonText,
        str: StoredText,
        datetime: UtcDateTime,
    }


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


class TaskPackage(Base):
    """One version of a task package in one environment."""

    __tablename__ = "task_package"
    __table_args__ = (UniqueConstraint("pkg_name", "version", "interpreter"), _IDS_ONCE)

    id: Mapped[int] = mapped_column(primary_key=True)
    pkg_name: Mapped[str]  # normalised as on PyPI: `fractal-tasks-core`
    version: Mapped[str]
    origin: Mapped[str]  # pypi, wheel, folder, interpreter
    requested: Mapped[str]  # the requirement, path or interpreter as it was given
    interpreter: Mapped[str]  # absolute path of the Python that runs the tasks
    env_dir: Mapped[str | None]  # the environment that we made and may remove; None: not ours
    content_hash: Mapped[str | None]  # of a wheel or folder, to know it again
    timestamp_created: Mapped[datetime] = mapped_column(default=utc_now)

    tasks: Mapped[list[Task]] = relationship(back_populates="package", cascade="all, delete-orphan", order_by="Task.id")


class Task(Base):
    """One task of a collected package."""

    __tablename__ = "task"
    __table_args__ = _IDS_ONCE

    id: Mapped[int] = mapped_column(primary_key=True)
    package_id: Mapped[int] = mapped_column(ForeignKey("task_package.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    type: Mapped[str]  # a model.TaskType
    source: Mapped[str] = mapped_column(unique=True)
    version: Mapped[str]
    command_non_parallel: Mapped[str | None]  # words quoted as by shlex.join
    command_parallel: Mapped[str | None]
    input_types: Mapped[Json] = mapped_column(default=dict)
    output_types: Mapped[Json] = mapped_column(default=dict)
    meta_non_parallel: Mapped[Json] = mapped_column(default=dict)
    meta_parallel: Mapped[Json] = mapped_column(default=dict)
    category: Mapped[str | None]
    modality: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(JsonText, default=list)
    authors: Mapped[str | None]
    docs_link: Mapped[str | None]
    docs_info: Mapped[str | None] = mapped_column(LogText, deferred=True)
    args_schema_version: Mapped[str | None]
    args_schema_non_parallel: Mapped[Json | None] = mapped_column(deferred=True)
    args_schema_parallel: Mapped[Json | None] = mapped_column(deferred=True)

    package: Mapped[TaskPackage] = relationship(back_populates="tasks")


class Workflow(Base):
    """A named list of tasks with their arguments."""

    __tablename__ = "workflow"
    __table_args__ = _IDS_ONCE

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    timestamp_created: Mapped[datetime] = mapped_column(default=utc_now)

    task_list: Mapped[list[WorkflowTask]] = relationship(
        back_populates="workflow", cascade="all, delete-orphan", order_by="WorkflowTask.order"
    )


class WorkflowTask(Base):
    """One task at one place of one workflow."""

    __tablename__ = "workflow_task"
    __table_args__ = (UniqueConstraint("workflow_id", "order"), _IDS_ONCE)

    id: Mapped[int] = mapped_column(primary_key=True)
    workflow_id: Mapped[int] = mapped_column(ForeignKey("workflow.id", ondelete="CASCADE"))
    order: Mapped[int]
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id", ondelete="RESTRICT"), index=True)
    args_non_parallel: Mapped[Json] = mapped_column(default=dict)
    args_parallel: Mapped[Json] = mapped_column(default=dict)
    meta_non_parallel: Mapped[Json] = mapped_column(default=dict)
    meta_parallel: Mapped[Json] = mapped_column(default=dict)
    input_filters: Mapped[Json] = mapped_column(default=lambda: {"attributes": {}, "types": {}})

    workflow: Mapped[Workflow] = relationship(back_populates="task_list")
    task: Mapped[Task] = relationship()


class Dataset(Base):
    """An image list with its filters and history; `zarr_dir` is where tasks write new images."""

    __tablename__ = "dataset"
    __table_args__ = _IDS_ONCE

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    zarr_dir: Mapped[str]
    filters: Mapped[Json] = mapped_column(default=lambda: {"attributes": {}, "types": {}})
    image_count: Mapped[int] = mapped_column(default=0)  # follows `images`; lists show it
    images: Mapped[list[Json]] = mapped_column(JsonText, default=list, deferred=True)
    history: Mapped[list[Json]] = mapped_column(JsonText, default=list, deferred=True)
    timestamp_created: Mapped[datetime] = mapped_column(default=utc_now)

    @validates("images")
    def _count(self, _name: str, images: list[Json]) -> list[Json]:
        self.image_count = len(images)
        return images


class Job(Base):
    """One run of a range of a workflow's tasks over a dataset."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint("status IN ('submitted', 'done', 'failed')", name="status"),
        UniqueConstraint("submitted_dataset_id"),
        _IDS_ONCE,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    workflow_id: Mapped[int | None] = mapped_column(ForeignKey("workflow.id", ondelete="SET NULL"), index=True)
    dataset_id: Mapped[int | None] = mapped_column(ForeignKey("dataset.id", ondelete="SET NULL"), index=True)
    # One submitted job per dataset: unique, and NULL (which never collides) once the job has ended.
    submitted_dataset_id: Mapped[int | None] = mapped_column(
        Computed("CASE WHEN status = 'submitted' THEN dataset_id END", persisted=True)
    )
    status: Mapped[str] = mapped_column(default=JobStatus.SUBMITTED.value, index=True)
    backend: Mapped[str]
    profile: Mapped[str | None]
    first_task_index: Mapped[int]
    last_task_index: Mapped[int]
    worker_init: Mapped[str | None]
    slurm_account: Mapped[str | None]
    user_email: Mapped[str | None]
    start_timestamp: Mapped[datetime] = mapped_column(default=utc_now)
    end_timestamp: Mapped[datetime | None]
    working_dir: Mapped[str | None]
    working_dir_user: Mapped[str | None]
    # How it ended, for lists and for people: {"phase", "tasks", "failure"}; NULL while it is submitted.
    outcome: Mapped[Json | None]
    log: Mapped[str | None] = mapped_column(LogText, deferred=True)
    project_dump: Mapped[Json] = mapped_column(default=dict, deferred=True)
    workflow_dump: Mapped[Json] = mapped_column(default=dict, deferred=True)
    dataset_dump: Mapped[Json] = mapped_column(default=dict, deferred=True)
