"""Manifests, version 2: what is accepted, and how the rest is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner_core.catalog.manifest import MAX_MANIFEST_BYTES, parse_manifest
from runner_core.failures import BadInput

SCHEMA = {"type": "object", "properties": {"level": {"type": "integer"}}, "additionalProperties": False}
TASKS: list[dict[str, Any]] = [
    {"name": "A", "type": "parallel", "executable_parallel": "a.py", "args_schema_parallel": SCHEMA},
    {"name": "B", "type": "non_parallel", "executable_non_parallel": "b.py", "args_schema_non_parallel": SCHEMA},
    {
        "name": "C",
        "type": "compound",
        "executable_non_parallel": "c/init.py",
        "executable_parallel": "c/compute.py",
        "args_schema_non_parallel": SCHEMA,
        "args_schema_parallel": SCHEMA,
        "meta_parallel": {"mem": 4000, "needs_gpu": True},
        "input_types": {"is_3D": True},
        "output_types": {"is_3D": False},
        "tags": ["3D"],
        "docs_link": "https://example.org",
    },
    {
        "name": "D",
        "type": "converter_non_parallel",
        "executable_non_parallel": "d.py",
        "args_schema_non_parallel": SCHEMA,
    },
    {
        "name": "E",
        "type": "converter_compound",
        "executable_non_parallel": "e_init.py",
        "executable_parallel": "e.py",
        "args_schema_non_parallel": SCHEMA,
        "args_schema_parallel": SCHEMA,
    },
]
GOOD: dict[str, Any] = {
    "manifest_version": "2",
    "has_args_schemas": True,
    "args_schema_version": "pydantic_v2",
    "authors": "A. Uthor",
    "task_list": TASKS,
}


def parse(document: Any) -> Any:
    return parse_manifest(json.dumps(document).encode(), what="M")


def changed(*path: Any, to: Any = None, drop: bool = False) -> dict[str, Any]:
    """The good manifest with one value changed, or dropped."""
    document = copy.deepcopy(GOOD)
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return document


def test_manifests_all_five_task_types_are_accepted() -> None:
    manifest = parse(GOOD)
    assert [task.type.value for task in manifest.task_list] == [task["type"] for task in TASKS]
    compound = manifest.task_list[2]
    assert compound.executable_parallel == "c/compute.py"
    assert compound.meta_parallel == {"mem": 4000, "needs_gpu": True}
    assert (compound.input_types, compound.output_types) == ({"is_3D": True}, {"is_3D": False})


def test_older_manifests_tell_the_type_by_the_executables() -> None:
    older = {**GOOD, "task_list": [{k: v for k, v in task.items() if k != "type"} for task in TASKS]}
    types = [task.type.value for task in parse(older).task_list]
    assert types == ["parallel", "non_parallel", "compound", "non_parallel", "compound"]


def test_keys_of_later_versions_are_left_alone() -> None:
    assert parse({**GOOD, "new": 1, "task_list": [{**TASKS[0], "new": {"x": 1}}]}).task_list[0].name == "A"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (changed("manifest_version", to="1"), """manifest_version: input should be '2' (got "1")"""),
        (changed("manifest_version", drop=True), "manifest_version: is missing"),
        (changed("task_list", to={}), "task_list: must be a list (got {})"),
        (changed("task_list", to=[]), "task_list: list should have at least 1 item"),
        (changed("task_list", 1, to=7), "task_list[1]: must be an object (got 7)"),
        (changed("task_list", 1, "name", drop=True), "task_list[1].name: is missing"),
        (changed("task_list", 1, "name", to=" "), "task_list[1].name: must not be empty"),
        (changed("task_list", 1, "name", to="x\x1b[2J"), "task_list[1].name: must not hold control characters"),
        (changed("task_list", 1, "name", to="x" * 201), "task_list[1].name: string should have at most 200"),
        (changed("task_list", 1, "name", to="A"), "task_list[1].name: 'A' is the name of task_list[0] already"),
        (changed("task_list", 1, "name", to="a"), "task_list[1].name: 'a' is the name of task_list[0] already"),
        (changed("task_list", 0, "type", to="serial"), "task_list[0].type: input should be 'parallel'"),
        (changed("task_list", 0, "executable_parallel", drop=True), "task_list[0].executable_parallel: is missing"),
        (
            changed("task_list", 0, "executable_non_parallel", to="a.py"),
            "task_list[0].executable_non_parallel: does not belong here: a parallel task has no non-parallel part",
        ),
        (
            changed("task_list", 0, "meta_non_parallel", to={"mem": 1}),
            "task_list[0].meta_non_parallel: does not belong",
        ),
        (changed("task_list", 1, "args_schema_parallel", to=SCHEMA), "task_list[1].args_schema_parallel: does not"),
        (changed("task_list", 2, "input_types", "is_3D", to="perhaps"), "task_list[2].input_types.is_3D: input should"),
        (changed("task_list", 2, "output_types", to=["is_3D"]), "task_list[2].output_types: must be an object"),
        (changed("task_list", 3, "input_types", to={"is_3D": True}), "task_list[3].input_types: a converter takes no"),
        (changed("task_list", 4, "tags", to=[1]), "task_list[4].tags[0]: must be a string (got 1)"),
        (changed("task_list", 0, "args_schema_parallel", drop=True), "task_list[0].args_schema_parallel: is missing"),
        (
            changed("task_list", 0, "args_schema_parallel", to=[]),
            "task_list[0].args_schema_parallel: must be an object",
        ),
        (
            changed("task_list", 0, "args_schema_parallel", "properties", "level", "type", to="int"),
            "task_list[0].args_schema_parallel: not a JSON Schema: $.properties.level.type:",
        ),
        (
            changed("task_list", 0, "args_schema_parallel", "properties", "level", to={"$ref": "http://evil/x.json"}),
            "task_list[0].args_schema_parallel: the schema refers to something outside itself: 'http://evil/x.json'",
        ),
        ([], "M: must be an object (got [])"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_exact_field(document: Any, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(document)
    assert message in str(caught.value)
    assert str(caught.value).startswith("M")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("character", "`#$&*()\\|[]{};<>?!\n\x00")
def test_p1_commands_with_forbidden_characters_are_refused(character: str) -> None:
    with pytest.raises(BadInput, match="must not hold"):
        parse(changed("task_list", 0, "executable_parallel", to=f"a{character}b.py"))


@pytest.mark.parametrize("path", ["/etc/a.py", "../a.py", "a/../../b.py", "", ".", "//a.py"])
def test_executables_do_not_leave_the_package(path: str) -> None:
    with pytest.raises(BadInput, match=r"task_list\[0\].executable_parallel: must be a path inside the package"):
        parse(changed("task_list", 0, "executable_parallel", to=path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe{}", "M is not UTF-8 text (byte 0)"),
        (b"{", "M is not valid JSON: Expecting property name"),
        (b"", "M is not valid JSON"),
        (b"[" * 200_000, "M is nested too deeply"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": 1e999}', "the number 1e999 is too large"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "M is too large"),
    ],
)
def test_a_file_that_is_no_usable_json_is_one_clear_line(data: bytes, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_manifest(data, what="M")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(
    path=st.sampled_from(
        [("task_list",), *[(key,) for key in GOOD], *[("task_list", i, key) for i in range(5) for key in TASKS[i]]]
    ),
    value=ANY_JSON,
)
def test_any_value_at_any_place_is_accepted_or_clearly_refused(path: tuple[Any, ...], value: Any) -> None:
    said = ""
    try:
        parse(changed(*path, to=value))
    except BadInput as error:
        said = str(error)
    assert not said or said.startswith("M")
    assert len(said) < 1000
