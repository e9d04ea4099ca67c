"""Import and export of workflows in Fractal's JSON, and building them task by task."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from runner_core.catalog.arguments import check_arguments
from runner_core.catalog.documents import checked_document, checked_name, parse_json
from runner_core.catalog.task_reference import TaskReference, find_tasks
from runner_core.failures import BadInput, quoted
from runner_core.images import Filters
from runner_core.model import Json, TaskType
from runner_core.store.models import Task, Workflow, WorkflowTask
from runner_core.task_io import FilterUpdate, Types

MAX_WORKFLOW_BYTES = 64 * 1024 * 1024


def _empty_for_null(value: Any) -> Any:
    return {} if value is None else value


_Object = Annotated[Json, BeforeValidator(_empty_for_null), Field(default_factory=dict)]


class _WorkflowTaskDocument(BaseModel):
    """One task of a workflow document. Filters come as `input_filters` (older) or `type_filters` (newer)."""

    task: TaskReference
    args_non_parallel: _Object
    args_parallel: _Object
    meta_non_parallel: _Object
    meta_parallel: _Object
    input_filters: Annotated[FilterUpdate, BeforeValidator(_empty_for_null), Field(default_factory=FilterUpdate)]
    type_filters: Annotated[Types, BeforeValidator(_empty_for_null), Field(default_factory=dict)]

    @field_validator("type_filters")
    @classmethod
    def _agrees_with_input_filters(cls, types: dict[str, bool], info: ValidationInfo) -> dict[str, bool]:
        older: FilterUpdate | None = info.data.get("input_filters")
        for key, value in types.items():
            if older is not None and older.types.get(key, value) != value:
                raise ValueError(f"input_filters sets {quoted(key, 80)} too, to another value")
        return types

    @property
    def filters(self) -> Filters:
        """The filters of either form."""
        return Filters(self.input_filters.attributes, {**self.input_filters.types, **self.type_filters})


class _WorkflowDocument(BaseModel):
    name: str | None = None
    task_list: list[_WorkflowTaskDocument]


def import_workflow(session: Session, document: bytes | Json, *, name: str | None = None) -> Workflow:
    """Make a workflow from a document that Fractal or `export_workflow` wrote; `name` replaces the one in there.

    Raises `BadInput` with the exact field, or `NotFound` that names all tasks that are not collected.
    """
    what = "the workflow"
    if isinstance(document, bytes):
        document = parse_json(document, what=what, limit=MAX_WORKFLOW_BYTES)
    checked = checked_document(_WorkflowDocument, document, what=what)
    if name is None and checked.name is None:
        raise BadInput(f"{what}: name: is missing")
    tasks = find_tasks(session, [item.task for item in checked.task_list])
    workflow = Workflow(name=checked_name(name if name is not None else str(checked.name), what="workflow"))
    for index, (item, task) in enumerate(zip(checked.task_list, tasks, strict=True)):
        try:
            append_task(
                workflow,
                task,
                args_non_parallel=item.args_non_parallel,
                args_parallel=item.args_parallel,
                meta_non_parallel=item.meta_non_parallel,
                meta_parallel=item.meta_parallel,
                input_filters=item.filters,
            )
        except BadInput as error:
            raise BadInput(f"{what}: task_list[{index}]: {error.message}", hint=error.hint) from None
    session.add(workflow)
    session.flush()
    return workflow


def create_workflow(session: Session, *, name: str) -> Workflow:
    """Make a workflow without tasks; `append_task` fills it."""
    workflow = Workflow(name=checked_name(name, what="workflow"))
    session.add(workflow)
    session.flush()
    return workflow


def append_task(
    workflow: Workflow,
    task: Task,
    *,
    args_non_parallel: Json | None = None,
    args_parallel: Json | None = None,
    meta_non_parallel: Json | None = None,
    meta_parallel: Json | None = None,
    input_filters: Filters | None = None,
) -> WorkflowTask:
    """Put a task at the end of a workflow; what its manifest says in `meta` holds where the given one is silent.

    Raises `BadInput` for arguments or meta that the task does not take.
    """
    check_arguments(task, args_non_parallel=args_non_parallel or {}, args_parallel=args_parallel or {})
    kind = TaskType(task.type)
    if (meta_non_parallel and not kind.has_non_parallel_part) or (meta_parallel and not kind.has_parallel_part):
        part = "meta_parallel" if meta_parallel and not kind.has_parallel_part else "meta_non_parallel"
        raise BadInput(f"task {quoted(task.name, 80)}: {part} must be empty: a {kind.value} task has no such part")
    placed = WorkflowTask(
        order=len(workflow.task_list),
        task=task,
        args_non_parallel=args_non_parallel or {},
        args_parallel=args_parallel or {},
        meta_non_parallel={**task.meta_non_parallel, **(meta_non_parallel or {})},
        meta_parallel={**task.meta_parallel, **(meta_parallel or {})},
        input_filters=(input_filters or Filters()).to_json(),
    )
    workflow.task_list.append(placed)
    return placed


def export_workflow(session: Session, workflow: Workflow) -> Json:
    """The workflow as a document that `import_workflow` and Fractal read.

    Filters are written as `input_filters`, since all versions read that form: older ones refuse `type_filters`, and
    newer ones take over the types from here.
    """
    task_list = (
        select(WorkflowTask)
        .where(WorkflowTask.workflow_id == workflow.id)
        .options(joinedload(WorkflowTask.task).joinedload(Task.package))
        .order_by(WorkflowTask.order)
    )
    return {
        "name": workflow.name,
        "task_list": [
            {
                "args_non_parallel": placed.args_non_parallel,
                "args_parallel": placed.args_parallel,
                "meta_non_parallel": placed.meta_non_parallel,
                "meta_parallel": placed.meta_parallel,
                "input_filters": placed.input_filters,
                "task": {
                    "pkg_name": placed.task.package.pkg_name,
                    "version": placed.task.version,
                    "name": placed.task.name,
                },
            }
            for placed in session.scalars(task_list)
        ],
    }
