"""The dataset's history: rows T12, E2 and E4."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner_core.history import done_item, failed_history, failed_item, task_statuses
from runner_core.model import Json


def workflow_task(number: int) -> Json:
    """A full dump, as the store makes it."""
    return {
        "id": number,
        "workflow_id": 7,
        "order": number - 100,
        "args_non_parallel": {"secret": 1},
        "args_parallel": {},
        "meta_non_parallel": {"cpus_per_task": 1},
        "meta_parallel": {},
        "input_filters": {"attributes": {"well": "A01"}, "types": {}},
        "task_id": 5,
        "task": {
            "id": 5,
            "name": "Project",
            "type": "compound",
            "source": "pip_remote:pkg:1.0:project",
            "version": "1.0",
            "pkg_name": "pkg",
            "command_non_parallel": "python init.py",
            "command_parallel": "python project.py",
            "input_types": {"is_3D": True},
            "output_types": {"is_3D": False},
            "meta_non_parallel": {},
            "meta_parallel": {"mem": 1},
            "args_schema_version": "pydantic_v2",
            "args_schema_non_parallel": {"type": "object"},
            "args_schema_parallel": {"type": "object"},
        },
    }


TASKS = [workflow_task(number) for number in (100, 101, 102, 103)]
BEFORE = [done_item(workflow_task(90)), failed_item(workflow_task(91))]


def test_t12_a_done_item_holds_the_trimmed_dump() -> None:
    assert done_item(TASKS[0]) == {
        "workflowtask": {
            "id": 100,
            "workflow_id": 7,
            "order": 0,
            "input_filters": {"attributes": {"well": "A01"}, "types": {}},
            "task_id": 5,
            "task": {
                "id": 5,
                "name": "Project",
                "type": "compound",
                "command_non_parallel": "python init.py",
                "command_parallel": "python project.py",
                "source": "pip_remote:pkg:1.0:project",
                "version": "1.0",
                "input_types": {"is_3D": True},
                "output_types": {"is_3D": False},
            },
        },
        "status": "done",
        "parallelization": {},
    }


def test_t12_a_failed_item_holds_the_full_dump() -> None:
    assert failed_item(TASKS[0]) == {"workflowtask": TASKS[0], "status": "failed", "parallelization": {}}


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_e2_without_an_id_the_failed_task_is_the_one_after_those_that_are_done(done: int) -> None:
    items = [done_item(task) for task in TASKS[:done]]
    history, known = failed_history(before=BEFORE, done=items, tasks=TASKS, failed_workflow_task_id=None)
    assert known
    assert history == [*BEFORE, *items, failed_item(TASKS[done])]


@pytest.mark.parametrize("failed", [0, 1, 2, 3])
def test_e2_a_task_error_says_by_its_id_which_task_failed(failed: int) -> None:
    items = [done_item(TASKS[0])]
    history, known = failed_history(before=BEFORE, done=items, tasks=TASKS, failed_workflow_task_id=TASKS[failed]["id"])
    assert known
    assert history == [*BEFORE, *items, failed_item(TASKS[failed])]


@pytest.mark.parametrize(("done", "failed_id"), [(4, None), (5, None), (1, 999), (0, 90)])
def test_e2_a_failed_task_that_cannot_be_told_adds_no_item(done: int, failed_id: int | None) -> None:
    items = [done_item(workflow_task(100 + i)) for i in range(done)]
    history, known = failed_history(before=BEFORE, done=items, tasks=TASKS, failed_workflow_task_id=failed_id)
    assert not known
    assert history == [*BEFORE, *items]


def test_e2_nothing_that_is_handed_in_is_changed() -> None:
    before, done, tasks = copy.deepcopy((BEFORE, [done_item(TASKS[0])], TASKS))
    failed_history(before=before, done=done, tasks=tasks, failed_workflow_task_id=None)
    assert (before, done, tasks) == (BEFORE, [done_item(TASKS[0])], TASKS)


# ----------------------------------------------------------------------------------------------------------------------
# E4: the status view


def items(*pairs: tuple[int, str]) -> list[Json]:
    return [{"workflowtask": {"id": number}, "status": status, "parallelization": {}} for number, status in pairs]


IDS = [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("history", "view"),
    [
        ([], []),
        ([(1, "done")], [(1, "done")]),
        ([(1, "done"), (2, "done")], [(1, "done"), (2, "done")]),
        ([(1, "done"), (2, "failed")], [(1, "done"), (2, "failed")]),
        ([(2, "failed"), (2, "done")], [(2, "done")]),
        ([(2, "done"), (2, "failed")], [(2, "failed")]),
        ([(3, "done")], [(3, "done")]),
        ([(1, "done"), (3, "done")], [(1, "done"), (3, "done")]),
        ([(2, "done"), (1, "done")], [(1, "done")]),
        ([(1, "done"), (2, "done"), (3, "done"), (1, "done")], [(1, "done")]),
        ([(1, "failed"), (2, "done")], [(1, "failed")]),
        ([(99, "done")], []),
        ([(1, "done"), (2, "done"), (99, "done")], [(1, "done"), (2, "done")]),
    ],
)
def test_e4_without_a_job_the_view_goes_as_far_as_the_last_item_or_the_first_failure(
    history: list[tuple[int, str]], view: list[tuple[int, str]]
) -> None:
    """In the workflow's order, the last item of each task, passing over tasks that never ran."""
    statuses = task_statuses(history=items(*history), workflow_task_ids=IDS)
    assert list(statuses.items()) == view


@pytest.mark.parametrize(
    ("history", "running", "own", "view"),
    [
        ([], (0, 3), [], [(1, "submitted"), (2, "submitted"), (3, "submitted"), (4, "submitted")]),
        ([], (0, 1), [], [(1, "submitted"), (2, "submitted")]),
        ([], (1, 2), [], [(2, "submitted"), (3, "submitted")]),
        ([(1, "done")], (1, 2), [], [(1, "done"), (2, "submitted"), (3, "submitted")]),
        ([(1, "done"), (2, "failed")], (1, 2), [], [(1, "done"), (2, "submitted"), (3, "submitted")]),
        ([(1, "done")], (1, 2), [(2, "done")], [(1, "done"), (2, "done"), (3, "submitted")]),
        ([], (0, 1), [(1, "done"), (2, "done")], [(1, "done"), (2, "done")]),
        ([(1, "done"), (2, "done"), (3, "done")], (0, 1), [], [(1, "submitted"), (2, "submitted")]),
        ([(1, "failed")], (1, 1), [], [(1, "failed")]),
        ([], (0, 1), [(1, "done"), (2, "failed")], [(1, "done"), (2, "failed")]),
    ],
)
def test_e4_the_range_of_a_running_job_is_submitted_except_for_what_it_has_done(
    history: list[tuple[int, str]], running: tuple[int, int], own: list[tuple[int, str]], view: list[tuple[int, str]]
) -> None:
    statuses = task_statuses(
        history=items(*history), workflow_task_ids=IDS, running=running, running_history=items(*own)
    )
    assert list(statuses.items()) == view


some_items = st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["done", "failed"])), max_size=6)
some_range = st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda pair: (min(pair), max(pair)))


@given(some_items, some_range)
def test_e4_the_view_is_in_workflow_order_and_shows_at_most_one_failure_at_its_end(
    history: list[tuple[int, str]], running: tuple[int, int] | None
) -> None:
    statuses: dict[Any, str] = dict(task_statuses(history=items(*history), workflow_task_ids=IDS, running=running))
    assert list(statuses) == sorted(statuses)
    assert "failed" not in list(statuses.values())[:-1]
    assert ("submitted" in statuses.values()) <= (running is not None)
