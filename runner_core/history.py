"""The dataset's history: one item per task that ran, what it holds, and what a status view makes of it.

Rows T12, E2 and E4. Everything here is pure and works on dumps of workflow tasks as the store makes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from runner_core.model import Json

_KEPT_OF_WORKFLOW_TASK = ("id", "workflow_id", "order", "input_filters", "task_id")
_KEPT_OF_TASK = (
    "id",
    "name",
    "type",
    "command_non_parallel",
    "command_parallel",
    "source",
    "version",
    "input_types",
    "output_types",
)


def done_item(workflow_task: Json) -> Json:
    """The item of a task that succeeded: the trimmed dump, without arguments and schemas (T12)."""
    trimmed = {key: workflow_task[key] for key in _KEPT_OF_WORKFLOW_TASK}
    trimmed["task"] = {key: workflow_task["task"][key] for key in _KEPT_OF_TASK}
    return {"workflowtask": trimmed, "status": "done", "parallelization": {}}


def failed_item(workflow_task: Json) -> Json:
    """The item of the task that failed: the full dump, so that one can see with what it was run."""
    return {"workflowtask": workflow_task, "status": "failed", "parallelization": {}}


def failed_history(
    *,
    before: Sequence[Json],
    done: Sequence[Json],
    tasks: Sequence[Json],
    failed_workflow_task_id: int | None,
) -> tuple[list[Json], bool]:
    """The history of a dataset after a failed job (E2), and whether the failed task could be told.

    `before` is the dataset's history, `done` the items of this job, `tasks` the dumps of the job's range. The failed
    task is known by its id, or else it is the one after those that are done.
    """
    history = [*before, *done]
    if failed_workflow_task_id is not None:
        failed = next((task for task in tasks if task["id"] == failed_workflow_task_id), None)
    else:
        failed = tasks[len(done)] if len(done) < len(tasks) else None
    if failed is None:
        return history, False
    return [*history, failed_item(failed)], True


def task_statuses(
    *,
    history: Sequence[Json],
    workflow_task_ids: Sequence[int],
    running: tuple[int, int] | None = None,
    running_history: Iterable[Json] = (),
) -> Mapping[int, str]:
    """The status of each workflow task over a dataset: `done`, `failed` or `submitted` (E4).

    `history` is the dataset's; `running` the range of a running job (first and last position, inclusive) and
    `running_history` its own items. The last item of a task wins; a running job's range is submitted, except for what
    it has done already. Tasks without a status are left out. The view is in workflow order and ends after the first
    failed task, or after the last relevant one: the last of the range, or else the task of the last item, since what
    lies behind it is from before and of other images.
    """
    statuses: dict[int, str] = {item["workflowtask"]["id"]: item["status"] for item in history}
    last = history[-1]["workflowtask"]["id"] if history else None
    if running is not None:
        in_range = workflow_task_ids[running[0] : running[1] + 1]
        statuses |= dict.fromkeys(in_range, "submitted")
        statuses |= {item["workflowtask"]["id"]: item["status"] for item in running_history}
        last = in_range[-1] if in_range else None
    view: dict[int, str] = {}
    for workflow_task_id in workflow_task_ids:
        if workflow_task_id in statuses:
            view[workflow_task_id] = statuses[workflow_task_id]
            if view[workflow_task_id] == "failed" or workflow_task_id == last:
                break
    return view
