"""The tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _create_catalog()
    _create_workflows()
    _create_datasets()
    _create_jobs()


def _create_catalog() -> None:
    op.create_table(
        "task_package",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pkg_name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("requested", sa.String(), nullable=False),
        sa.Column("interpreter", sa.String(), nullable=False),
        sa.Column("env_dir", sa.String()),
        sa.Column("timestamp_created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_task_package"),
        sa.UniqueConstraint("pkg_name", "version", "interpreter", name="uq_task_package_pkg_name_version_interpreter"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "task",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("package_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("command_non_parallel", sa.String()),
        sa.Column("command_parallel", sa.String()),
        sa.Column("input_types", sa.Text(), nullable=False),
        sa.Column("output_types", sa.Text(), nullable=False),
        sa.Column("meta_non_parallel", sa.Text(), nullable=False),
        sa.Column("meta_parallel", sa.Text(), nullable=False),
        sa.Column("category", sa.String()),
        sa.Column("modality", sa.String()),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("authors", sa.String()),
        sa.Column("docs_link", sa.String()),
        sa.Column("docs_info", sa.Text()),
        sa.Column("args_schema_version", sa.String()),
        sa.Column("args_schema_non_parallel", sa.Text()),
        sa.Column("args_schema_parallel", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_task"),
        sa.ForeignKeyConstraint(["package_id"], ["task_package.id"], name="fk_task_package_id", ondelete="CASCADE"),
        sa.UniqueConstraint("source", name="uq_task_source"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_task_package_id", "task", ["package_id"])


def _create_workflows() -> None:
    op.create_table(
        "workflow",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("timestamp_created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workflow"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "workflow_task",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("workflow_id", sa.Integer(), nullable=False),
        sa.Column("order", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("args_non_parallel", sa.Text(), nullable=False),
        sa.Column("args_parallel", sa.Text(), nullable=False),
        sa.Column("meta_non_parallel", sa.Text(), nullable=False),
        sa.Column("meta_parallel", sa.Text(), nullable=False),
        sa.Column("input_filters", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workflow_task"),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflow.id"], name="fk_workflow_task_workflow_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_workflow_task_task_id", ondelete="RESTRICT"),
        sa.UniqueConstraint("workflow_id", "order", name="uq_workflow_task_workflow_id_order"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_workflow_task_task_id", "workflow_task", ["task_id"])


def _create_datasets() -> None:
    op.create_table(
        "dataset",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("zarr_dir", sa.String(), nullable=False),
        sa.Column("filters", sa.Text(), nullable=False),
        sa.Column("image_count", sa.Integer(), nullable=False),
        sa.Column("images", sa.Text(), nullable=False),
        sa.Column("history", sa.Text(), nullable=False),
        sa.Column("timestamp_created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dataset"),
        sqlite_autoincrement=True,
    )


def _create_jobs() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("workflow_id", sa.Integer()),
        sa.Column("dataset_id", sa.Integer()),
        sa.Column(
            "submitted_dataset_id",
            sa.Integer(),
            sa.Computed("CASE WHEN status = 'submitted' THEN dataset_id END", persisted=True),
        ),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("backend", sa.String(), nullable=False),
        sa.Column("profile", sa.String()),
        sa.Column("first_task_index", sa.Integer(), nullable=False),
        sa.Column("last_task_index", sa.Integer(), nullable=False),
        sa.Column("worker_init", sa.String()),
        sa.Column("slurm_account", sa.String()),
        sa.Column("user_email", sa.String()),
        sa.Column("start_timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_timestamp", sa.DateTime(timezone=True)),
        sa.Column("working_dir", sa.String()),
        sa.Column("working_dir_user", sa.String()),
        sa.Column("log", sa.Text()),
        sa.Column("project_dump", sa.Text(), nullable=False),
        sa.Column("workflow_dump", sa.Text(), nullable=False),
        sa.Column("dataset_dump", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name="fk_job_workflow_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name="fk_job_dataset_id", ondelete="SET NULL"),
        sa.UniqueConstraint("submitted_dataset_id", name="uq_job_submitted_dataset_id"),
        sa.CheckConstraint("status IN ('submitted', 'done', 'failed')", name="ck_job_status"),
        sqlite_autoincrement=True,
    )
    for column in ("workflow_id", "dataset_id", "status"):
        op.create_index(f"ix_job_{column}", "job", [column])
