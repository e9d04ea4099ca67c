"""What tasks read and write: rows P2-P7 and T14, and their fine print."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runner_core.failures import JobExecutionError
from runner_core.images import Filters, Image
from runner_core.model import FailureKind, Json
from runner_core.task_io import (
    RESERVED_ARGUMENTS,
    FilterUpdate,
    ImageDocument,
    ImageUpdate,
    InitTaskOutput,
    TaskOutput,
    compound_arguments,
    merged_outputs,
    non_parallel_arguments,
    parallel_arguments,
    parse_init_output,
    parse_task_output,
)
from tests.pure import strategies as drawn
from tests.pure.strategies import ZARR_DIR

A, B, C = (f"{ZARR_DIR}/{name}" for name in "abc")


def refused(document: Any) -> JobExecutionError:
    """The error of an output that cannot be used."""
    with pytest.raises(JobExecutionError) as caught:
        parse_task_output(json.dumps(document))
    return caught.value


# ----------------------------------------------------------------------------------------------------------------------
# P2-P4: what tasks read


def test_p2_a_non_parallel_task_reads_all_urls_zarr_dir_and_its_arguments() -> None:
    arguments = non_parallel_arguments([Image(B), Image(A)], zarr_dir=ZARR_DIR, takes_images=True, arguments={"x": [1]})
    assert arguments == {"zarr_urls": [B, A], "zarr_dir": ZARR_DIR, "x": [1]}


def test_p2_a_non_parallel_task_runs_with_an_empty_image_list_too() -> None:
    arguments = non_parallel_arguments([], zarr_dir=ZARR_DIR, takes_images=True, arguments={})
    assert arguments == {"zarr_urls": [], "zarr_dir": ZARR_DIR}


def test_a_converter_reads_no_urls() -> None:
    arguments = non_parallel_arguments([Image(A)], zarr_dir=ZARR_DIR, takes_images=False, arguments={"x": 1})
    assert arguments == {"zarr_dir": ZARR_DIR, "x": 1}


def test_p2_the_names_that_the_runner_fills_in_are_reserved() -> None:
    plan = InitTaskOutput.model_validate({"parallelization_list": [{"zarr_url": A}]})
    filled_in = (
        set(non_parallel_arguments([], zarr_dir=ZARR_DIR, takes_images=True, arguments={}))
        | set(parallel_arguments([Image(A)], arguments={})[0])
        | set(compound_arguments(plan, arguments={})[0])
    )
    assert filled_in == RESERVED_ARGUMENTS


@pytest.mark.parametrize("name", sorted(RESERVED_ARGUMENTS))
def test_p2_a_workflow_that_sets_a_reserved_name_is_a_clear_job_error(name: str) -> None:
    for fill_in in (
        lambda arguments: non_parallel_arguments([], zarr_dir=ZARR_DIR, takes_images=True, arguments=arguments),
        lambda arguments: parallel_arguments([Image(A)], arguments=arguments),
        lambda arguments: compound_arguments(InitTaskOutput(), arguments=arguments),
    ):
        with pytest.raises(JobExecutionError, match=f"reserved argument '{name}'") as caught:
            fill_in({"mine": 1, name: "x"})
        assert caught.value.kind is FailureKind.SETUP


def test_p3_a_parallel_task_reads_one_url_and_its_arguments_in_each_unit() -> None:
    assert parallel_arguments([Image(B), Image(A)], arguments={"x": 1}) == [
        {"zarr_url": B, "x": 1},
        {"zarr_url": A, "x": 1},
    ]


def test_p3_no_images_are_no_units() -> None:
    assert parallel_arguments([], arguments={"x": 1}) == []


def test_p4_each_unit_of_a_compound_task_reads_one_planned_item() -> None:
    plan = {"parallelization_list": [{"zarr_url": B, "init_args": {"y": [2]}}, {"zarr_url": A}]}
    assert compound_arguments(parse_init_output(json.dumps(plan)), arguments={"x": 1}) == [
        {"zarr_url": B, "init_args": {"y": [2]}, "x": 1},
        {"zarr_url": A, "init_args": {}, "x": 1},
    ]


@pytest.mark.parametrize("text", [None, "null", "{}", '{"parallelization_list": []}'])
def test_p4_an_empty_plan_is_no_units(text: str | None) -> None:
    assert parse_init_output(text).parallelization_list == []


@pytest.mark.parametrize(
    ("first", "second", "repeated"),
    [
        ({"x": 1}, {"x": 1}, True),
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}, True),
        ({}, {}, True),
        ({"x": {"y": [1, {"z": None}]}}, {"x": {"y": [1, {"z": None}]}}, True),
        ({"x": 1}, {"x": 1.0}, True),
        ({"x": float("nan")}, {"x": float("nan")}, True),
        ({"x": float("nan")}, {"x": "NaN"}, False),
        ({"x": 1}, {"x": "1"}, False),
        ({"x": 1}, {"x": 2}, False),
        ({"x": 1}, {}, False),
        ({"x": None}, {}, False),
        ({"x": []}, {"x": {}}, False),
        ({"x": [1, 2]}, {"x": [2, 1]}, False),
        ({"x": [["a", 1]]}, {"x": {"a": 1}}, False),
    ],
)
def test_p4_exact_duplicates_of_a_plan_are_dropped(first: Json, second: Json, repeated: bool) -> None:
    items = [{"zarr_url": A, "init_args": first}, {"zarr_url": B}, {"zarr_url": A, "init_args": second}]
    plan = parse_init_output(json.dumps({"parallelization_list": items})).parallelization_list
    assert [item.zarr_url for item in plan] == ([A, B] if repeated else [A, B, A])


def test_p4_items_of_one_image_that_differ_are_all_kept_however_many_there_are() -> None:
    items = [{"zarr_url": A, "init_args": {"region": [i, i + 1]}} for i in range(20_001)]
    plan = parse_init_output(json.dumps({"parallelization_list": items * 2})).parallelization_list
    assert [item.init_args["region"][0] for item in plan] == list(range(20_001))


# ----------------------------------------------------------------------------------------------------------------------
# P6: what counts as an output


@pytest.mark.parametrize("text", [None, "null", " null\n", "{}", "{ }"])
def test_p6_a_missing_file_null_and_an_empty_object_are_no_output(text: str | None) -> None:
    assert parse_task_output(text) == TaskOutput()
    assert parse_init_output(text) == InitTaskOutput()


@pytest.mark.parametrize(
    ("text", "kind"),
    [("[]", "list"), ('"text"', "string"), ("1", "number"), ("1.5", "number"), ("NaN", "number"), ("false", "boolean")],
)
def test_p6_json_that_is_no_object_is_a_clear_job_error(text: str, kind: str) -> None:
    for parse in (parse_task_output, parse_init_output):
        with pytest.raises(JobExecutionError, match=f"it is a JSON {kind}, not an object"):
            parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        '{"image_list_updates": [}',
        "{'image_list_updates': []}",
        "{} {}",
        "\ufeff{}",
        "[" * 100_000,
        '{"a": ' * 100_000,
        "9" * 100_000,
        '{"image_list_removals": ["\\ud800"]}',
        b'{"image_list_removals": ["/a\xff"]}'.decode(errors="surrogateescape"),
        "\0",
        "\x89PNG\r\n",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_p6_broken_json_is_a_clear_job_error(text: str) -> None:
    for parse in (parse_task_output, parse_init_output):
        with pytest.raises(JobExecutionError, match="it is not valid JSON") as caught:
            parse(text)
        assert caught.value.kind is FailureKind.OUTPUT


def test_p6_a_full_output_is_read() -> None:
    document = {
        "image_list_updates": [{"zarr_url": f"{A}/", "origin": f"{B}//", "attributes": {" well ": "A01"}, "types": {}}],
        "image_list_removals": [f"{C}/."],
        "filters": {"attributes": {"well": None}, "types": {"is_3D": "no"}},
    }
    output = parse_task_output(json.dumps(document))
    assert output.image_list_updates == [ImageUpdate(A, B, {"well": "A01"}, {})]
    assert output.image_list_removals == [C]
    assert output.all_filters == Filters({"well": None}, {"is_3D": False})


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"image_list_update": []}, "image_list_update"),
        ({"image_list_updates": [], "extra": 1}, "extra"),
        ({"filters": {"attributes": {}, "extra": 1}}, "filters.extra"),
    ],
)
def test_p6_extra_keys_are_forbidden_at_the_top_level_and_in_filters(document: Json, where: str) -> None:
    assert f"'{where}': Extra inputs are not permitted" in refused(document).message


@pytest.mark.parametrize(
    "document",
    [
        {"parallelization_list": [], "extra": 1},
        {"parallelization_list": [{"zarr_url": A, "extra": 1}]},
        {"parallelization_list": [{"zarr_url": A, "init_args": None}]},
        {"parallelization_list": [{"init_args": {}}]},
        {"parallelization_list": None},
        {"image_list_updates": []},
    ],
)
def test_p6_a_plan_with_extra_keys_or_null_lists_is_a_job_error(document: Json) -> None:
    with pytest.raises(JobExecutionError, match="cannot be used"):
        parse_init_output(json.dumps(document))


def test_p6_extra_keys_of_an_image_update_are_ignored() -> None:
    output = parse_task_output(json.dumps({"image_list_updates": [{"zarr_url": A, "extra": {"x": 1}, "path": None}]}))
    assert output.image_list_updates == [ImageUpdate(A)]


@pytest.mark.parametrize(
    "document",
    [
        {"image_list_updates": None},
        {"image_list_removals": None},
        {"filters": None},
        {"type_filters": None},
        {"filters": {"types": None}},
        {"filters": {"attributes": None}},
        {"image_list_updates": [{"zarr_url": A, "types": None}]},
        {"image_list_updates": [{"zarr_url": A, "attributes": None}]},
        {"image_list_updates": [None]},
        {"image_list_updates": [{"zarr_url": None}]},
        {"image_list_removals": [None]},
    ],
)
def test_p6_null_where_a_list_or_an_object_belongs_is_a_job_error(document: Json) -> None:
    assert refused(document).kind is FailureKind.OUTPUT


@pytest.mark.parametrize(
    "document",
    [
        {"image_list_updates": {"zarr_url": A}},
        {"image_list_updates": [A]},
        {"image_list_updates": [{}]},
        {"image_list_updates": [{"zarr_url": 1}]},
        {"image_list_updates": [{"zarr_url": "relative"}]},
        {"image_list_updates": [{"zarr_url": A, "origin": "s3://bucket/a"}]},
        {"image_list_removals": A},
        {"image_list_removals": ["relative"]},
        {"image_list_removals": [{"zarr_url": A}]},
        {"filters": []},
    ],
)
def test_p6_values_of_a_wrong_kind_are_a_job_error_that_quotes_the_output(document: Json) -> None:
    assert f"the output was: '{json.dumps(document)}'" in refused(document).message


def test_p6_the_error_says_where_the_first_fault_is_and_how_many_more_there_are() -> None:
    bad = [{"zarr_url": A}, {"zarr_url": B, "types": {"is_3D": 2}}, {"zarr_url": "c"}, {}]
    message = refused({"image_list_updates": bad}).message
    assert "'image_list_updates.1.types.is_3D'" in message
    assert ", and 2 more" in message


def test_p6_the_quotation_of_a_long_output_is_bounded() -> None:
    message = refused({"image_list_updates": [{"zarr_url": "x" * 10_000_000}]}).message
    assert len(message) < 2_000
    assert "characters)" in message


def test_p6_a_key_that_is_hostile_is_named_in_a_safe_way() -> None:
    message = refused({"\x1b[2J\n" + "x" * 100_000: 1}).message
    assert message.isprintable()
    assert len(message) < 2_000


def test_p6_of_a_key_that_comes_twice_the_last_counts() -> None:
    output = parse_task_output(f'{{"image_list_removals": ["{A}"], "image_list_removals": ["{B}"]}}')
    assert output.image_list_removals == [B]


# ----------------------------------------------------------------------------------------------------------------------
# T14: coercions


@pytest.mark.parametrize(
    ("given", "value"),
    [
        *((text, True) for text in (True, 1, 1.0, "1", "yes", "YES", "on", "t", "true", "True", "y")),
        *((text, False) for text in (False, 0, 0.0, "0", "no", "No", "off", "f", "false", "FALSE", "n")),
    ],
)
def test_t14_types_are_coerced_as_usual_for_booleans(given: Any, value: bool) -> None:
    output = parse_task_output(json.dumps({"image_list_updates": [{"zarr_url": A, "types": {" new ": given}}]}))
    assert output.image_list_updates[0].types == {"new": value}
    assert type(output.image_list_updates[0].types["new"]) is bool


@pytest.mark.parametrize("given", [2, -1, 0.5, "2", "maybe", "", " yes", None, [], {}])
def test_t14_other_values_of_a_type_are_an_error(given: Any) -> None:
    refused({"image_list_updates": [{"zarr_url": A, "types": {"new": given}}]})
    refused({"filters": {"types": {"new": given}}})


@pytest.mark.parametrize("value", [1, 1.5, -0.0, True, "x", "", "ü", None, 10**300])
def test_t14_attributes_keep_the_value_and_the_kind_that_the_task_gave(value: Any) -> None:
    document = {
        "image_list_updates": [{"zarr_url": A, "attributes": {"x": value}}],
        "filters": {"attributes": {"x": value}},
    }
    output = parse_task_output(json.dumps(document))
    for got in (output.image_list_updates[0].attributes["x"], output.filters.attributes["x"]):
        assert got == value
        assert type(got) is type(value)


@pytest.mark.parametrize(
    "attributes", [{"x": []}, {"x": {}}, {"x": [1]}, {"": 1}, {" ": 1}, {"x": 1, " x": 1}, [], "x"]
)
def test_t14_attributes_that_are_no_scalars_or_have_bad_keys_are_an_error(attributes: Any) -> None:
    refused({"image_list_updates": [{"zarr_url": A, "attributes": attributes}]})
    refused({"filters": {"attributes": attributes}})


@pytest.mark.parametrize("types", [{"": True}, {" ": True}, {"x": True, "x ": True}])
def test_t14_types_with_empty_or_clashing_keys_are_an_error(types: Any) -> None:
    refused({"image_list_updates": [{"zarr_url": A, "types": types}]})
    refused({"filters": {"types": types}})
    refused({"type_filters": types})


def test_manifests_the_newer_type_filters_are_read_as_filters_on_types() -> None:
    output = parse_task_output('{"type_filters": {" is_3D": "no"}, "filters": {"types": {"new": true}}}')
    assert output.all_filters == Filters({}, {"is_3D": False, "new": True})


def test_t14_images_that_are_handed_in_are_checked_like_outputs_and_hold_no_nulls() -> None:
    document = {"zarr_url": f"{A}/", "origin": None, "attributes": {" well": "A01"}, "types": {"is_3D": 1}}
    assert ImageDocument.model_validate(document).to_image() == Image(A, None, {"well": "A01"}, {"is_3D": True})
    for wrong in ({"extra": 1}, {"attributes": {"well": None}}, {"types": None}, {"zarr_url": "a"}, {"origin": "a"}):
        with pytest.raises(ValidationError):
            ImageDocument.model_validate({**document, **wrong})


# ----------------------------------------------------------------------------------------------------------------------
# P7: merging


def test_p7_updates_and_removals_of_all_units_are_concatenated_without_repetitions() -> None:
    merged = merged_outputs(
        [
            parse_task_output(json.dumps({"image_list_updates": [{"zarr_url": A}], "image_list_removals": [C]})),
            parse_task_output(None),
            parse_task_output(
                json.dumps({"image_list_updates": [{"zarr_url": B}, {"zarr_url": A}], "image_list_removals": [C]})
            ),
        ]
    )
    assert merged.image_list_updates == [ImageUpdate(A), ImageUpdate(B)]
    assert merged.image_list_removals == [C]


@pytest.mark.parametrize(
    ("first", "second", "repeated"),
    [
        ({"attributes": {"x": 1, "y": None}}, {"attributes": {"y": None, "x": 1}}, True),
        ({"attributes": {"x": 1}}, {"attributes": {"x": 1.0}}, True),
        ({"attributes": {"x": 1}}, {"attributes": {"x": True}}, True),
        ({"attributes": {"x": float("nan")}}, {"attributes": {"x": float("nan")}}, True),
        ({"types": {"x": 1}}, {"types": {"x": "yes"}}, True),
        ({"attributes": {"x": 1}}, {"attributes": {"x": "1"}}, False),
        ({"attributes": {"x": 1}}, {"attributes": {"x": 2}}, False),
        ({"attributes": {"x": None}}, {}, False),
        ({"types": {"x": False}}, {}, False),
        ({"origin": B}, {}, False),
    ],
)
def test_p7_updates_are_repetitions_if_they_are_equal_as_in_python(first: Json, second: Json, repeated: bool) -> None:
    texts = [json.dumps({"image_list_updates": [{"zarr_url": A, **update}]}) for update in (first, second)]
    merged = merged_outputs([parse_task_output(text) for text in texts])
    assert len(merged.image_list_updates) == (1 if repeated else 2)


def test_p7_units_that_set_different_filters_are_a_clear_job_error_that_names_both() -> None:
    outputs = [{"filters": {"attributes": {"well": well}}} for well in ("A01", "A01", "B02")]
    with pytest.raises(JobExecutionError, match="different filters") as caught:
        merged_outputs([parse_task_output(json.dumps(output)) for output in outputs])
    message = caught.value.message
    assert "unit 0" in message
    assert "A01" in message
    assert "unit 2" in message
    assert "B02" in message
    assert caught.value.kind is FailureKind.OUTPUT


@pytest.mark.parametrize("silent_first", [True, False])
def test_p7_a_unit_without_output_differs_from_units_that_set_filters(silent_first: bool) -> None:
    outputs = [parse_task_output(None), parse_task_output('{"filters": {"types": {"x": true}}}')]
    with pytest.raises(JobExecutionError, match="different filters"):
        merged_outputs(outputs if silent_first else outputs[::-1])


def test_p7_filters_on_which_all_units_agree_in_either_form_are_kept() -> None:
    old, new = '{"filters": {"types": {"x": true}}}', '{"type_filters": {"x": 1}}'
    assert merged_outputs([parse_task_output(text) for text in (old, new, old)]).all_filters == Filters({}, {"x": True})


def test_p3_p4_no_outputs_merge_to_an_empty_one() -> None:
    assert merged_outputs([]) == TaskOutput()


def with_filters(output: TaskOutput, filters: FilterUpdate) -> TaskOutput:
    return output.model_copy(update={"filters": filters})


some_outputs = st.lists(drawn.task_outputs(), min_size=1, max_size=2)


@given(some_outputs, some_outputs, drawn.filter_updates)
def test_p7_merging_can_be_taken_in_any_grouping(
    first: list[TaskOutput], second: list[TaskOutput], filters: FilterUpdate
) -> None:
    first, second = ([with_filters(output, filters) for output in outputs] for outputs in (first, second))
    assert merged_outputs([merged_outputs(first), merged_outputs(second)]) == merged_outputs([*first, *second])


@given(drawn.task_outputs(), st.integers(1, 4))
def test_p7_an_output_that_comes_several_times_counts_once(output: TaskOutput, times: int) -> None:
    merged = merged_outputs([output] * times)
    assert merged == output
    assert merged is not output


@given(st.lists(drawn.task_outputs(), max_size=4))
def test_p7_merging_loses_nothing_repeats_nothing_and_keeps_the_order(outputs: list[TaskOutput]) -> None:
    outputs = [with_filters(output, FilterUpdate()) for output in outputs]
    merged = merged_outputs(outputs)
    for name in ("image_list_updates", "image_list_removals"):
        kept: list[Any] = []
        for item in (item for output in outputs for item in getattr(output, name)):
            if item not in kept:
                kept.append(item)
        assert getattr(merged, name) == kept


# ----------------------------------------------------------------------------------------------------------------------
# Whatever a task writes


def error_of(parse: Callable[[str], object], text: str) -> JobExecutionError | None:
    try:
        parse(text)
    except JobExecutionError as error:
        return error
    return None


def parses_or_is_a_clear_error(text: str) -> None:
    for parse in (parse_task_output, parse_init_output):
        error = error_of(parse, text)
        if error is not None:
            assert error.kind is FailureKind.OUTPUT
            assert error.message.isprintable()
            assert len(error.message.encode()) < 15_000


@given(st.text())
def test_p6_any_text_parses_or_is_a_clear_job_error(text: str) -> None:
    parses_or_is_a_clear_error(text)


@given(st.binary())
def test_p6_any_bytes_parse_or_are_a_clear_job_error(data: bytes) -> None:
    parses_or_is_a_clear_error(data.decode(errors="surrogateescape"))


@given(drawn.foreign_json)
def test_p6_any_json_parses_or_is_a_clear_job_error(document: Any) -> None:
    parses_or_is_a_clear_error(json.dumps(document))
    parses_or_is_a_clear_error(json.dumps(document, ensure_ascii=False))


@given(drawn.almost_outputs)
def test_p6_json_that_looks_like_an_output_parses_or_is_a_clear_job_error(document: Any) -> None:
    parses_or_is_a_clear_error(json.dumps(document))


@given(drawn.task_outputs())
def test_p6_what_a_well_behaved_task_writes_is_read_as_it_was_meant(output: TaskOutput) -> None:
    assert parse_task_output(output.model_dump_json()) == output
