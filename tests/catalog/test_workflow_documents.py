"""Workflows in Fractal's JSON: import, export, and which collected task is meant."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from runner_core.catalog.workflows import append_task, create_workflow, export_workflow, import_workflow
from runner_core.failures import BadInput, NotFound
from runner_core.images import Filters
from runner_core.store.models import TaskPackage, Workflow

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["zarr_url"],
    "properties": {"zarr_url": {"type": "string"}, "level": {"type": "integer"}, "notes": {"type": "object"}},
}
TASKS = (
    {
        "name": "Project Image",
        "executable_parallel": "project.py",
        "args_schema_parallel": SCHEMA,
        "meta_parallel": {"cpus_per_task": 1, "mem": 4000},
    },
    {
        "name": "Project Image (HCS Plate)",
        "executable_non_parallel": "plan.py",
        "executable_parallel": "project.py",
    },
)


@pytest.fixture
def core(collected: Callable[..., TaskPackage], manifest: Callable[..., dict[str, Any]]) -> TaskPackage:
    """The package that most documents name."""
    return collected(manifest(*TASKS), name="fractal-tasks-core", version="1.3.2")


def document(*tasks: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {"name": "Projection", "task_list": [copy.deepcopy(task) for task in tasks], **top}


def named(name: str = "Project Image", version: str | None = "1.3.2", package: str = "fractal-tasks-core") -> Any:
    return {"task": {"pkg_name": package, "version": version, "name": name}}


def sourced(source: str) -> dict[str, Any]:
    return {"task": {"source": source}}


# ---------------------------------------------------------------------------------------------------------------- tasks


def test_the_newer_form_names_package_version_and_task(session: Session, core: TaskPackage) -> None:
    workflow = import_workflow(session, document(named(package="Fractal_Tasks.Core"), named(version="1.3.2.0")))
    assert [placed.task_id for placed in workflow.task_list] == [core.tasks[0].id] * 2
    assert [placed.order for placed in workflow.task_list] == [0, 1]


def test_without_a_version_the_newest_collected_one_is_meant(
    session: Session, collected: Callable[..., TaskPackage], manifest: Callable[..., dict[str, Any]]
) -> None:
    for version in ("1.9.0", "1.10.0", "1.2.0", "1.10.0rc1"):
        collected(manifest(*TASKS), name="fractal-tasks-core", version=version)
    workflow = import_workflow(session, document(named(version=None)))
    assert workflow.task_list[0].task.version == "1.10.0"


@pytest.mark.parametrize(
    "source",
    [
        "pip_remote:fractal_tasks_core:1.3.2::py3.11:project_image",  # exactly as collected
        "pip_remote:fractal_tasks_core:1.3.2:fractal-tasks:py3.10:project_image",
        "pip_remote:fractal_tasks_core:1.3.2:fractal-tasks::project_image",
        "pip_local:fractal_tasks_core:1.3.2::py3.9:project_image",
    ],
)
def test_the_older_form_matches_by_package_version_and_task_name(
    session: Session, core: TaskPackage, source: str
) -> None:
    assert import_workflow(session, document(sourced(source))).task_list[0].task_id == core.tasks[0].id


def test_the_older_form_spells_punctuation_in_several_ways(session: Session, core: TaskPackage) -> None:
    for slug in ("project_image_(hcs_plate)", "project_image__hcs_plate_", "project-image-hcs-plate"):
        source = f"pip_remote:fractal_tasks_core:1.3.2:fractal-tasks:py3.11:{slug}"
        assert import_workflow(session, document(sourced(source))).task_list[0].task_id == core.tasks[1].id


def test_tasks_that_are_not_collected_are_named_all_at_once_with_the_commands(
    session: Session, core: TaskPackage
) -> None:
    wanted = document(
        named(),
        named(version="9.0"),
        named("Cellpose", "0.2", "other-tasks"),
        sourced("pip_remote:third_tasks:2.0:gpu:py3.11:train"),
        sourced("admin:my_task"),
        named("Projekt Image"),
    )
    with pytest.raises(NotFound) as caught:
        import_workflow(session, wanted)
    assert caught.value.message == (
        "5 tasks are not collected: 'Project Image' of fractal-tasks-core 9.0 (collected: 1.3.2); "
        "'Cellpose' of other-tasks 0.2; 'train' of third-tasks 2.0; the task with source 'admin:my_task'; "
        "'Projekt Image' of fractal-tasks-core 1.3.2 (it has no such task, but 'Project Image')"
    )
    assert caught.value.hint == (
        "run pilothouse task collect 'fractal-tasks-core==9.0' && pilothouse task collect 'other-tasks==0.2' "
        "&& pilothouse task collect 'third-tasks[gpu]==2.0'"
    )
    assert not session.query(Workflow).all()


def test_no_command_is_made_of_a_name_that_is_none(session: Session) -> None:
    for wanted in (named(package="x'; rm -rf /;'"), named(version="1.0'; reboot"), named(package="x\x1b[2J")):
        with pytest.raises(NotFound) as caught:
            import_workflow(session, document(wanted))
        assert "collect" not in caught.value.hint
        assert str(caught.value).isprintable()


# ------------------------------------------------------------------------------------------------ arguments and filters


def test_arguments_meta_and_filters_are_taken_over(session: Session, core: TaskPackage) -> None:
    item = {
        **named(),
        "args_parallel": {"level": 2},
        "args_non_parallel": None,
        "meta_parallel": {"mem": 8000},
        "input_filters": {"attributes": {"plate": "p.zarr", "well": None}, "types": {"is_3D": True}},
        "description": "new keys are left alone",
    }
    (placed,) = import_workflow(session, document(item, description=None)).task_list
    assert placed.args_parallel == {"level": 2}
    assert placed.args_non_parallel == {}
    assert placed.meta_parallel == {"cpus_per_task": 1, "mem": 8000}, "the manifest's meta holds where it is silent"
    assert placed.input_filters == item["input_filters"]


def test_manifests_decision_type_filters_are_read_as_filters_on_types(session: Session, core: TaskPackage) -> None:
    both = {"input_filters": {"types": {"is_3D": True}}, "type_filters": {"is_3D": True, "corrected": False}}
    tasks = [{**named(), "type_filters": {"is_3D": False}}, {**named(), **both}, {**named(), "type_filters": None}]
    workflow = import_workflow(session, document(*tasks))
    assert [placed.input_filters["types"] for placed in workflow.task_list] == [
        {"is_3D": False},
        {"is_3D": True, "corrected": False},
        {},
    ]


def test_a_name_given_beside_replaces_the_documents_own(session: Session, core: TaskPackage) -> None:
    assert import_workflow(session, document(), name=" Mine ").name == "Mine"
    assert import_workflow(session, {"task_list": []}, name="Mine").name == "Mine"
    assert import_workflow(session, json.dumps(document()).encode()).name == "Projection"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (b"{", "the workflow is not valid JSON"),
        (b"\xff", "the workflow is not UTF-8 text"),
        ([], "the workflow: must be an object (got [])"),
        ({"name": "x"}, "the workflow: task_list: is missing"),
        ({"task_list": []}, "the workflow: name: is missing"),
        (document(name=3), "the workflow: name: must be a string (got 3)"),
        (document(name=" "), "the name of a workflow must not be empty"),
        (document(name="a\nb"), "the name of a workflow must not hold control characters"),
        (document(name="x" * 300), "the name of a workflow has at most 200 characters (got 300)"),
        (document({}), "the workflow: task_list[0].task: is missing"),
        (document({"task": {}}), "the workflow: task_list[0].task: names no task"),
        (document({"task": {"pkg_name": "x"}}), "the workflow: task_list[0].task: names no task"),
        (document(named(), {**named(), "args_parallel": [1]}), "task_list[1].args_parallel: must be an object"),
        (document({**named(), "type_filters": {"is_3D": "maybe"}}), "task_list[0].type_filters.is_3D: input should"),
        (document({**named(), "input_filters": {"attributes": {"a": []}}}), "task_list[0].input_filters.attributes:"),
        (
            document({**named(), "input_filters": {"types": {"a": True}}, "type_filters": {"a": False}}),
            "task_list[0].type_filters: input_filters sets 'a' too, to another value",
        ),
        (
            document(named(), {**named(), "args_parallel": {"levle": 1}}),
            "task_list[1]: task 'Project Image': args_parallel.levle is not an argument; did you mean \"level\"?",
        ),
        (document({**named(), "args_non_parallel": {"x": 1}}), "task_list[0]: task 'Project Image': args_non_parallel"),
        (document({**named(), "meta_non_parallel": {"mem": 1}}), "task 'Project Image': meta_non_parallel must be"),
    ],
)
def test_a_wrong_document_is_refused_with_the_exact_field(
    session: Session, core: TaskPackage, wrong: Any, message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        import_workflow(session, wrong)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    session.flush()
    assert not session.query(Workflow).all()


# --------------------------------------------------------------------------------------------------------------- export


def test_an_export_holds_the_keys_that_all_versions_read(session: Session, core: TaskPackage) -> None:
    workflow = import_workflow(session, document({**named(), "type_filters": {"is_3D": True}}))
    assert export_workflow(session, workflow) == {
        "name": "Projection",
        "task_list": [
            {
                "args_non_parallel": {},
                "args_parallel": {},
                "meta_non_parallel": {},
                "meta_parallel": {"cpus_per_task": 1, "mem": 4000},
                "input_filters": {"attributes": {}, "types": {"is_3D": True}},
                "task": {"pkg_name": "fractal-tasks-core", "version": "1.3.2", "name": "Project Image"},
            }
        ],
    }


KEYS = st.text(min_size=1, max_size=5).map(str.strip).filter(bool)
SCALARS = st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(
    st.none() | SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
ITEMS = st.fixed_dictionaries(
    {
        **{key: st.dictionaries(st.text(), JSON, max_size=3) for key in ("meta_non_parallel", "meta_parallel")},
        "args_parallel": st.fixed_dictionaries({}, optional={"level": st.integers(), "notes": st.just({"a": None})}),
        "input_filters": st.fixed_dictionaries(
            {
                "attributes": st.dictionaries(KEYS, st.none() | SCALARS, max_size=3),
                "types": st.dictionaries(KEYS, st.booleans(), max_size=3),
            }
        ),
    }
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(st.tuples(st.sampled_from(["Project Image", "Project Image (HCS Plate)"]), ITEMS), max_size=3))
def test_what_is_exported_can_be_imported_again_as_it_was(
    session: Session, core: TaskPackage, items: list[tuple[str, Any]]
) -> None:
    tasks = [{**named(name), **item} for name, item in items]
    for task in tasks:
        if task["task"]["name"] == "Project Image":
            task["meta_non_parallel"] = {}
    exported = export_workflow(session, import_workflow(session, document(*tasks)))
    again = export_workflow(session, import_workflow(session, json.dumps(exported).encode()))
    assert again == exported
    for given_item, out in zip(tasks, exported["task_list"], strict=True):
        assert out["args_parallel"] == given_item["args_parallel"]
        assert out["input_filters"] == given_item["input_filters"]


def test_a_workflow_can_be_built_task_by_task(session: Session, core: TaskPackage) -> None:
    workflow = create_workflow(session, name="By hand")
    for level in range(2):
        append_task(workflow, core.tasks[0], args_parallel={"level": level}, input_filters=Filters(types={"a": True}))
    session.flush()
    exported = export_workflow(session, workflow)
    assert [task["args_parallel"]["level"] for task in exported["task_list"]] == [0, 1]
    with pytest.raises(BadInput, match="must be an integer"):
        append_task(workflow, core.tasks[0], args_parallel={"level": "high"})


def test_another_environment_of_the_same_version_serves_as_well(
    session: Session,
    core: TaskPackage,
    collected: Callable[..., TaskPackage],
    manifest: Callable[..., dict[str, Any]],
) -> None:
    other = collected(manifest(*TASKS), name="fractal-tasks-core", version="1.3.2", python="3.12")
    workflow = import_workflow(session, document(named(), sourced(core.tasks[0].source)))
    assert [placed.task.package_id for placed in workflow.task_list] == [other.id, core.id]
    assert Path(workflow.task_list[0].task.package.interpreter).parts[2].endswith("3.12-")
