"""The check before launch: what a job would meet, found out before anything runs.

What the filters select is exact for the first task. For the later ones it is foretold as if each task before gave one
image for each that it takes, with the types of its manifest; what a converter makes cannot be foretold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy.orm import Session

from runner_core.backends.local import read_local_config
from runner_core.catalog.arguments import check_arguments
from runner_core.commands import command_words
from runner_core.engine import DatasetState, WorkflowTask
from runner_core.failures import BadInput, JobExecutionError, PilothouseError, quoted
from runner_core.images import (
    Filters,
    Image,
    apply_output,
    filters_after_task,
    image_list,
    require_types,
    select_images,
)
from runner_core.job_record import task_range, workflow_task_dump
from runner_core.jobs import JobRequest, backend_of
from runner_core.model import Json, TaskType
from runner_core.settings import Settings
from runner_core.store import models
from runner_core.store.queries import find_dataset, find_workflow, submitted_job_id
from runner_core.store.session import open_store
from runner_core.task_io import TaskOutput


def check_launch(settings: Settings, request: JobRequest) -> Json:
    """Tell what would become of a job if it were launched now.

    `problems`, of the job and of each task, would refuse the job or make it fail; `ok` says that there are none.
    `warnings` may turn out well. A task's `images` are `{total, selected, unfit, exact}`: those of the dataset, those
    that the filters select, those of them without the input types; `null` for converters, and after one.

    Raises `NotFound` for an unknown workflow or dataset.
    """
    with open_store(settings.store).session() as session:
        workflow = find_workflow(session, request.workflow)
        dataset = find_dataset(session, request.dataset)
        problems = list(_problems_of_job(settings, request, session, dataset))
        steps: Sequence[models.WorkflowTask] = ()
        try:
            first, last = task_range(request.first_task_index, request.last_task_index, len(workflow.task_list))
            steps = workflow.task_list[first : last + 1]
        except PilothouseError as error:
            problems.append(str(error))
        tasks = list(_checked_tasks(steps, dataset, max_units=settings.max_units_per_task))
        return {
            "ok": not problems and not any(task["problems"] for task in tasks),
            "workflow_id": workflow.id,
            "workflow_name": workflow.name,
            "dataset_id": dataset.id,
            "dataset_name": dataset.name,
            "problems": problems,
            "tasks": tasks,
        }


def _problems_of_job(
    settings: Settings, request: JobRequest, session: Session, dataset: models.Dataset
) -> Iterator[str]:
    try:
        backend_of(settings, request)
    except PilothouseError as error:
        yield str(error)
    if settings.local_config_file is not None:
        try:
            read_local_config(settings.local_config_file)
        except PilothouseError as error:
            yield str(error)
    job_id = submitted_job_id(session, dataset.id)
    if job_id is not None:
        yield f"dataset {quoted(dataset.name, 80)} is busy with job {job_id}; wait for its end, or stop it"


# ----------------------------------------------------------------------------------------------------------------------
# Task by task


def _checked_tasks(steps: Sequence[models.WorkflowTask], dataset: models.Dataset, *, max_units: int) -> Iterator[Json]:
    state: DatasetState | None = DatasetState(image_list(dataset.images), Filters.from_json(dataset.filters))
    exact = True
    for step in steps:
        task = WorkflowTask.from_dump(workflow_task_dump(step))
        problems = [*_problems_of_commands(task), *_problems_of_arguments(step)]
        warnings: list[str] = []
        images: Json | None = None
        takes_images = TaskType(task.type).takes_images
        if state is not None and takes_images:
            selected = select_images(state.images, state.filters.overlaid(task.input_filters))
            found = list(_problems_of_images(task, selected, max_units=max_units))
            (problems if exact else warnings).extend(found)
            if not selected:
                warnings.append("its filters select no image")
            images = {
                "total": len(state.images),
                "selected": len(selected),
                "unfit": len(_unfit(task, selected)),
                "exact": exact,
            }
            state = _state_after(state, task, selected, zarr_dir=dataset.zarr_dir)
            exact = exact and not selected and task.type == TaskType.PARALLEL
        elif not takes_images:
            state = None
        yield {
            "order": task.order,
            "name": task.name,
            "type": task.type,
            "images": images,
            "problems": problems,
            "warnings": warnings,
        }


def _state_after(state: DatasetState, task: WorkflowTask, selected: Sequence[Image], *, zarr_dir: str) -> DatasetState:
    """The state that the task leaves if it says nothing: its input images count as updated."""
    types = task.output_types
    images = apply_output(state.images, TaskOutput(), inputs=selected, output_types=types, zarr_dir=zarr_dir)
    filters = filters_after_task(state.filters, output_filters=None, output_types=types)
    return replace(state, images=images, filters=filters)


def _unfit(task: WorkflowTask, selected: Sequence[Image]) -> list[Image]:
    fitting = Filters(types=task.input_types)
    return [image for image in selected if not fitting.match(image)]


def _problems_of_images(task: WorkflowTask, selected: Sequence[Image], *, max_units: int) -> Iterator[str]:
    try:
        require_types(selected, task.input_types)
    except JobExecutionError as error:
        yield str(error)
    if task.type == TaskType.PARALLEL and len(selected) > max_units:
        yield (
            f"it would run {len(selected):,} units, and at most {max_units:,} are allowed; "
            "raise PILOTHOUSE_MAX_UNITS_PER_TASK, or narrow the filters"
        )


def _problems_of_arguments(step: models.WorkflowTask) -> Iterator[str]:
    try:
        check_arguments(step.task, args_non_parallel=step.args_non_parallel, args_parallel=step.args_parallel)
    except BadInput as error:
        yield str(error)


def _problems_of_commands(task: WorkflowTask) -> Iterator[str]:
    kind = TaskType(task.type)
    if kind.has_non_parallel_part:
        yield from _problems_of_command(task.command_non_parallel)
    if kind.has_parallel_part and task.command_parallel != task.command_non_parallel:
        yield from _problems_of_command(task.command_parallel)


def _problems_of_command(command: str | None) -> Iterator[str]:
    try:
        words = command_words(command or "")
    except ValueError as error:
        yield f"{error} (collect its package again)"
        return
    if missing := [word for word in words[1:] if word.startswith("/") and not Path(word).exists()]:
        yield f"its script {quoted(missing[0])} was not found (collect its package again)"
