"""Arguments against the JSON Schemas of manifests: what passes, and what people are told of the rest."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner_core.catalog.arguments import check_arguments
from runner_core.failures import BadInput
from runner_core.store.models import Task

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["zarr_url", "init_args", "channel"],
    "properties": {
        "zarr_url": {"type": "string"},
        "init_args": {"$ref": "#/$defs/InitArgs"},
        "channel": {"$ref": "#/$defs/Channel"},
        "level": {"type": "integer", "minimum": 0, "default": 0},
        "label": {"type": "string", "title": "optional, so tasks take null"},
        "method": {"enum": ["mean", "median", "maximum"], "default": "mean"},
        "sigma": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        "crop": {"anyOf": [{"$ref": "#/$defs/Channel"}, {"type": "null"}], "default": None},
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "background": {
            "default": {"model": "None"},
            "discriminator": {
                "propertyName": "model",
                "mapping": {"None": "#/$defs/NoBackground", "Constant": "#/$defs/Constant"},
            },
            "oneOf": [{"$ref": "#/$defs/NoBackground"}, {"$ref": "#/$defs/Constant"}],
        },
    },
    "$defs": {
        "InitArgs": {"type": "object", "required": ["origin"], "properties": {"origin": {"type": "string"}}},
        "Channel": {
            "type": "object",
            "required": ["identifier"],
            "properties": {"identifier": {"type": "string"}, "index": {"type": "integer"}},
        },
        "NoBackground": {"type": "object", "properties": {"model": {"const": "None", "default": "None"}}},
        "Constant": {
            "type": "object",
            "required": ["value"],
            "properties": {"model": {"const": "Constant", "default": "Constant"}, "value": {"type": "integer"}},
        },
    },
}
CHANNEL = {"identifier": "DAPI"}


def task(type_: str = "compound", schema: dict[str, Any] | None = SCHEMA) -> Task:
    return Task(name="Segment", type=type_, args_schema_non_parallel=None, args_schema_parallel=schema)


def refusal(arguments: dict[str, Any], *, of: Task | None = None, non_parallel: dict[str, Any] | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        check_arguments(of or task(), args_non_parallel=non_parallel or {}, args_parallel=arguments)
    assert str(caught.value).startswith("task 'Segment': ")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("task 'Segment': ")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"level": 3, "method": "median", "name": "abc"},
        {"sigma": None},
        {"sigma": 1.5},
        {"label": None},
        {"crop": {"identifier": "x"}},
        {"background": {"model": "None"}},
        {"background": {"model": "Constant", "value": 3}},
    ],
)
def test_arguments_that_the_task_takes_pass(arguments: dict[str, Any]) -> None:
    check_arguments(task(), args_non_parallel={}, args_parallel={"channel": CHANNEL, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "2"}, 'args_parallel.level must be an integer, not "2"'),
        ({"level": None}, "args_parallel.level must be an integer, not null"),
        ({"level": -1}, "args_parallel.level does not fit minimum 0: -1"),
        ({"name": "ABC"}, 'args_parallel.name does not fit pattern "^[a-z]+$": "ABC"'),
        ({"levle": 2}, 'args_parallel.levle is not an argument; did you mean "level"?'),
        ({"xyz": 2}, 'args_parallel.xyz is not an argument (known: "background", "channel", "crop"'),
        (
            {"method": "medain"},
            'args_parallel.method must be one of "mean", "median", "maximum", not "medain"; did you mean "median"?',
        ),
        ({"channel": {}}, "args_parallel.channel.identifier is missing"),
        ({"channel": {"identifier": "x", "index": "1"}}, 'args_parallel.channel.index must be an integer, not "1"'),
        ({"sigma": "x"}, 'args_parallel.sigma must be a number or null, not "x"'),
        ({"crop": {}}, "args_parallel.crop.identifier is missing"),
        ({"background": {"model": "Constant"}}, "args_parallel.background.value is missing"),
        ({"background": {}}, 'args_parallel.background.model is missing: one of "None", "Constant"'),
        (
            {"background": {"model": "Constnt"}},
            'args_parallel.background.model must be one of "None", "Constant", not "Constnt"; did you mean "Constant"?',
        ),
        (
            {"background": 5},
            'args_parallel.background must be an object with model one of "None", "Constant", not 5',
        ),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(arguments: dict[str, Any], message: str) -> None:
    assert refusal({"channel": CHANNEL, **arguments}).startswith(message)


def test_what_is_required_is_missed_but_for_what_the_runner_fills_in() -> None:
    assert refusal({}) == "args_parallel.channel is missing"


def test_several_problems_are_told_together_and_bounded() -> None:
    message = refusal({"level": "1", "name": "A", "method": 3, "sigma": "x" * 1000})
    assert message.count("; ") == 3
    assert message.endswith("; and 2 more")
    assert len(message) < 500


@pytest.mark.parametrize("name", ["zarr_url", "zarr_urls", "zarr_dir", "init_args"])
def test_p2_reserved_arguments_may_not_be_set(name: str) -> None:
    assert refusal({"channel": CHANNEL, name: "x"}).startswith(f"args_parallel.{name} may not be set")
    assert refusal({name: "x"}, of=task(schema=None)).startswith(f"args_parallel.{name} may not be set")


@pytest.mark.parametrize(("type_", "part"), [("parallel", "args_non_parallel"), ("non_parallel", "args_parallel")])
def test_arguments_for_a_part_that_the_task_does_not_have_are_refused(type_: str, part: str) -> None:
    arguments = {"args_non_parallel": {}, "args_parallel": {}, part: {"x": 1}}
    with pytest.raises(BadInput, match=f'{part} must be empty: a {type_} task has no such part \\(got "x"\\)'):
        check_arguments(task(type_, None), **arguments)


def test_without_a_schema_everything_but_reserved_names_passes() -> None:
    check_arguments(task(schema=None), args_non_parallel={"a": 1}, args_parallel={"b": [None]})


def test_a_schema_that_needs_the_network_is_refused_without_asking_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        place = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        message = refusal({"a": 1}, of=task(schema={"type": "object", "properties": {"a": {"$ref": place}}}))
        assert "the schema of args_parallel refers to something that is not in it" in message
        with pytest.raises(BlockingIOError):
            server.accept()


def test_schemas_that_cannot_be_used_are_told_as_such() -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}
    assert "nested too deeply" in refusal({"a": 1}, of=task(schema=endless))
    pattern = {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}
    assert "unusable pattern" in refusal({"a": "x"}, of=task(schema=pattern))


@given(
    st.dictionaries(
        st.sampled_from([*SCHEMA["properties"], "other"]),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=3)
        | st.dictionaries(st.sampled_from(["model", "identifier", "value"]), st.text(max_size=8) | st.none()),
    )
)
def test_any_arguments_pass_or_are_refused_in_one_line(arguments: dict[str, Any]) -> None:
    said = ""
    try:
        check_arguments(task(), args_non_parallel={}, args_parallel=arguments)
    except BadInput as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 2000
