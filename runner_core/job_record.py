"""A job as the runner needs it: plain values read from the store in one short session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from runner_core.engine import DatasetState, WorkflowTask
from runner_core.failures import NotFound, Refused
from runner_core.images import Filters, image_list
from runner_core.job_folder import JobFolder
from runner_core.model import JobStatus, Json
from runner_core.store.models import Dataset, Job, Task, Workflow
from runner_core.store.models import WorkflowTask as WorkflowTaskRow


class NothingToRun(NotFound):
    """The job is not in the store, or it has ended already."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job with its dataset's state at the start and the tasks of its range, first to last."""

    job_id: int
    workflow_id: int
    dataset_id: int
    backend: str
    first_task_index: int
    last_task_index: int
    worker_init: str | None
    slurm_account: str | None
    working_dir: Path
    working_dir_user: Path
    zarr_dir: str
    history: list[Json]
    state: DatasetState
    tasks: list[WorkflowTask]

    @property
    def folder(self) -> JobFolder:
        """The job's folder on either side."""
        return JobFolder(self.working_dir, user_path=self.working_dir_user)


def load_job(session: Session, *, job_id: int, workflow_id: int | None, dataset_id: int | None) -> JobRecord:
    """Read all that running a job needs; raises `NotFound`, or `NothingToRun`, that names what is missing.

    The range is checked again (S6): the workflow may have been changed since the job was made.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise NothingToRun(f"job {job_id} does not exist")
    if job.status != JobStatus.SUBMITTED:
        raise NothingToRun(f"job {job_id} is not submitted: it is {job.status}")
    dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise NotFound(f"dataset {dataset_id} of job {job_id} does not exist")
    workflow = session.get(Workflow, workflow_id)
    if workflow is None:
        raise NotFound(f"workflow {workflow_id} of job {job_id} does not exist")
    if job.working_dir is None:
        raise NotFound(f"job {job_id} has no working directory")
    first, last = task_range(job.first_task_index, job.last_task_index, len(workflow.task_list))
    in_range = workflow.task_list[first : last + 1]
    return JobRecord(
        job_id=job.id,
        workflow_id=workflow.id,
        dataset_id=dataset.id,
        backend=job.backend,
        first_task_index=job.first_task_index,
        last_task_index=job.last_task_index,
        worker_init=job.worker_init,
        slurm_account=job.slurm_account,
        working_dir=Path(job.working_dir),
        working_dir_user=Path(job.working_dir_user or job.working_dir),
        zarr_dir=dataset.zarr_dir,
        history=dataset.history,
        state=DatasetState(image_list(dataset.images), Filters.from_json(dataset.filters)),
        tasks=[WorkflowTask.from_dump(workflow_task_dump(row)) for row in in_range],
    )


def task_range(first: int | None, last: int | None, count: int) -> tuple[int, int]:
    """First and last position of the tasks to run (S6); raises `Refused` for positions that cannot be."""
    if count == 0:
        raise Refused("the workflow has no tasks", hint="import or build one that has")
    first = 0 if first is None else first
    last = count - 1 if last is None else last
    if first < 0 or last < 0 or last > count - 1 or first > last:
        raise Refused(
            f"the task range {first} to {last} does not fit a workflow of {count} tasks",
            hint=f"positions go from 0 to {count - 1}, and the first is not after the last",
        )
    return first, last


def workflow_task_dump(row: WorkflowTaskRow) -> Json:
    """Write a workflow task out in full, as the history of a failed task keeps it (T12)."""
    return {
        "id": row.id,
        "workflow_id": row.workflow_id,
        "order": row.order,
        "args_non_parallel": row.args_non_parallel,
        "args_parallel": row.args_parallel,
        "meta_non_parallel": row.meta_non_parallel,
        "meta_parallel": row.meta_parallel,
        "input_filters": row.input_filters,
        "task_id": row.task_id,
        "task": task_dump(row.task),
    }


def task_dump(task: Task) -> Json:
    """Write a task out in full."""
    return {
        "id": task.id,
        "name": task.name,
        "type": task.type,
        "source": task.source,
        "version": task.version,
        "pkg_name": task.package.pkg_name,
        "command_non_parallel": task.command_non_parallel,
        "command_parallel": task.command_parallel,
        "input_types": task.input_types,
        "output_types": task.output_types,
        "meta_non_parallel": task.meta_non_parallel,
        "meta_parallel": task.meta_parallel,
        "args_schema_version": task.args_schema_version,
        "args_schema_non_parallel": task.args_schema_non_parallel,
        "args_schema_parallel": task.args_schema_parallel,
    }
