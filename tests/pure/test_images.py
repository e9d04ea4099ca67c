"""The image list and the filters: rows T2-T4, T6-T11 and T14, and their fine print."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runner_core.failures import BadInput, JobExecutionError
from runner_core.images import (
    Filters,
    Image,
    ImageList,
    apply_output,
    checked_attributes,
    checked_keys,
    filters_after_task,
    image_list,
    is_inside,
    normalized_path,
    require_types,
    require_under,
    select_images,
)
from runner_core.model import FailureKind, Scalar
from runner_core.task_io import ImageUpdate, TaskOutput
from tests.pure import strategies as drawn
from tests.pure.strategies import ZARR_DIR

A, B, C, D = (f"{ZARR_DIR}/{name}" for name in "abcd")


def images_of(*items: Image) -> ImageList:
    return {item.zarr_url: item for item in items}


def output_of(*updates: ImageUpdate, removals: Sequence[str] = ()) -> TaskOutput:
    return TaskOutput(image_list_updates=list(updates), image_list_removals=list(removals))


def applied(
    images: ImageList,
    output: TaskOutput,
    *,
    inputs: Sequence[Image] | None = None,
    output_types: Mapping[str, bool] | None = None,
    zarr_dir: str = ZARR_DIR,
) -> ImageList:
    return apply_output(
        images,
        output,
        inputs=list(images.values()) if inputs is None else inputs,
        output_types=output_types or {},
        zarr_dir=zarr_dir,
    )


# ----------------------------------------------------------------------------------------------------------------------
# T14: paths, attributes, keys


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b"),
        ("/a//b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/x/../b", "/a/b"),
        ("/", "/"),
        ("/..", "/"),
        ("/a b/ü/%20", "/a b/ü/%20"),
        ("//a/b", "//a/b"),
        ("//a//b", "//a/b"),
        ("///a/b", "/a/b"),
        ("////a", "/a"),
    ],
)
def test_t14_paths_have_one_spelling_and_two_leading_slashes_survive(path: str, normal: str) -> None:
    assert normalized_path(path) == normal


@pytest.mark.parametrize("path", ["s3://bucket/key", "s3", "s3:/bucket"])
def test_t14_s3_paths_are_not_supported_yet(path: str) -> None:
    with pytest.raises(ValueError, match="S3 paths are not supported yet"):
        normalized_path(path)


@pytest.mark.parametrize("path", [" /a/b", "/a/b ", "\t/a/b\n"])
def test_t14_spaces_around_a_path_are_dropped(path: str) -> None:
    assert normalized_path(path) == "/a/b"


@pytest.mark.parametrize("path", ["", " ", "a/b", "./a", "../a", "~/a", "file:///a", "https://host/a", "\\a", "C:/a"])
def test_t14_a_path_that_is_not_absolute_is_an_error(path: str) -> None:
    with pytest.raises(ValueError, match="not an absolute path"):
        normalized_path(path)


def test_t14_a_path_with_a_nul_is_an_error() -> None:
    with pytest.raises(ValueError, match="NUL"):
        normalized_path("/a\0/b")


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b c"])).map("/".join))
def test_t14_a_normalised_path_is_normal(rest: str) -> None:
    path = normalized_path(f"/{rest}")
    assert normalized_path(path) == path
    assert path.startswith("/")
    assert not {"..", "."} & set(path.split("/"))
    assert "//" not in path.removeprefix("/")


@pytest.mark.parametrize("value", [1, 0, -3, 1.5, float("inf"), "text", "", True, False, 10**400])
@pytest.mark.parametrize("none_allowed", [True, False])
def test_t14_attributes_are_scalars(value: Scalar, none_allowed: bool) -> None:
    assert checked_attributes({"key": value}, none_allowed=none_allowed) == {"key": value}


@pytest.mark.parametrize("value", [[], {}, ["a"], {"a": 1}, b"bytes", 1j])
@pytest.mark.parametrize("none_allowed", [True, False])
def test_t14_an_attribute_that_is_not_a_scalar_is_an_error(value: Any, none_allowed: bool) -> None:
    with pytest.raises(ValueError, match="attribute 'well' must be a number, a string or a boolean"):
        checked_attributes({"well": value}, none_allowed=none_allowed)


def test_t14_none_is_for_task_outputs_and_filters_alone() -> None:
    assert checked_attributes({"well": None}, none_allowed=True) == {"well": None}
    with pytest.raises(ValueError, match="not null"):
        checked_attributes({"well": None}, none_allowed=False)


def test_t14_keys_are_stripped_of_spaces() -> None:
    assert checked_keys({" a": 1, "b\t": 2, "c d": 3}) == {"a": 1, "b": 2, "c d": 3}


@pytest.mark.parametrize("key", ["", " ", "\t\n"])
def test_t14_an_empty_key_is_an_error(key: str) -> None:
    with pytest.raises(ValueError, match="an empty key"):
        checked_keys({key: 1})


def test_t14_keys_that_are_equal_once_stripped_are_an_error() -> None:
    with pytest.raises(ValueError, match="equal once spaces are stripped: 'well'"):
        checked_keys({"well": 1, "plate": 2, " well ": 1})


# ----------------------------------------------------------------------------------------------------------------------
# T2, T3: filters

FILTERS = Filters({"plate": "p1", "well": "A01"}, {"is_3D": True})


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        (Filters(), FILTERS),
        (Filters({"well": "B02"}), Filters({"plate": "p1", "well": "B02"}, {"is_3D": True})),
        (Filters({"well": None}), Filters({"plate": "p1", "well": None}, {"is_3D": True})),
        (Filters({"cycle": 1}), Filters({"plate": "p1", "well": "A01", "cycle": 1}, {"is_3D": True})),
        (Filters({}, {"is_3D": False}), Filters({"plate": "p1", "well": "A01"}, {"is_3D": False})),
        (Filters({}, {"new": True}), Filters({"plate": "p1", "well": "A01"}, {"is_3D": True, "new": True})),
    ],
)
def test_t2_the_workflow_tasks_filters_are_laid_over_the_current_ones_key_by_key(
    overlay: Filters, expected: Filters
) -> None:
    before = copy.deepcopy(FILTERS)
    assert FILTERS.overlaid(overlay) == expected
    assert before == FILTERS, "the overlay is for one task, it does not persist"


@given(drawn.filters, drawn.filters, drawn.filters)
def test_t2_overlays_can_be_taken_in_any_grouping(a: Filters, b: Filters, c: Filters) -> None:
    assert a.overlaid(b).overlaid(c) == a.overlaid(b.overlaid(c))
    assert a.overlaid(Filters()) == Filters().overlaid(a) == a


IMAGE = Image(A, None, {"well": "A01", "cycle": 1, "sum": 0.5, "ok": True}, {"is_3D": True, "corrected": False})


@pytest.mark.parametrize(
    ("attributes", "types", "matches"),
    [
        ({}, {}, True),
        ({"well": "A01"}, {}, True),
        ({"well": "A02"}, {}, False),
        ({"well": "a01"}, {}, False),
        ({"well": "A01", "cycle": 1}, {}, True),
        ({"well": "A01", "cycle": 2}, {}, False),
        ({"missing": "x"}, {}, False),
        ({"missing": False}, {}, False),
        ({"missing": None}, {}, True),
        ({"well": None}, {}, True),
        ({"well": None, "cycle": 2}, {}, False),
        ({"cycle": 1.0}, {}, True),
        ({"cycle": True}, {}, True),
        ({"cycle": "1"}, {}, False),
        ({"ok": 1}, {}, True),
        ({"ok": 1.0}, {}, True),
        ({"ok": "True"}, {}, False),
        ({"sum": 0.5}, {}, True),
        ({}, {"is_3D": True}, True),
        ({}, {"is_3D": False}, False),
        ({}, {"corrected": False}, True),
        ({}, {"corrected": True}, False),
        ({}, {"missing": False}, True),
        ({}, {"missing": True}, False),
        ({"well": "A01"}, {"is_3D": True, "missing": False}, True),
        ({"well": "A01"}, {"is_3D": True, "missing": True}, False),
    ],
)
def test_t3_an_image_matches_if_all_types_and_attributes_are_equal(
    attributes: dict[str, Scalar], types: dict[str, bool], matches: bool
) -> None:
    """A missing type counts as false, a filter value of null matches all, and values compare as in Python."""
    assert Filters(attributes, types).match(IMAGE) is matches


@given(drawn.image_lists())
def test_t3_empty_filters_select_all_images_in_order(images: ImageList) -> None:
    assert select_images(images, Filters()) == list(images.values())


@given(drawn.image_lists(), drawn.filters)
def test_t3_selection_keeps_the_order_of_the_dataset(images: ImageList, filters: Filters) -> None:
    selected = select_images(images, filters)
    assert selected == [image for image in images.values() if image in selected]


@given(drawn.image_lists(), drawn.filters, drawn.filters)
def test_t3_one_more_condition_never_selects_more(images: ImageList, filters: Filters, more: Filters) -> None:
    narrower = Filters({**more.attributes, **filters.attributes}, {**more.types, **filters.types})
    selected = {image.zarr_url for image in select_images(images, filters)}
    assert {image.zarr_url for image in select_images(images, narrower)} <= selected


@given(drawn.image_lists(), drawn.filters)
def test_t3_a_filter_of_null_is_no_filter(images: ImageList, filters: Filters) -> None:
    without = Filters({key: value for key, value in filters.attributes.items() if value is not None}, filters.types)
    assert select_images(images, filters) == select_images(images, without)


@given(drawn.filters)
def test_filters_and_images_come_back_from_json(filters: Filters) -> None:
    assert Filters.from_json(filters.to_json()) == filters
    assert Filters.from_json(None) == Filters.from_json({}) == Filters()
    assert Image.from_json(IMAGE.to_json()) == IMAGE


@given(drawn.image_lists())
def test_an_image_list_comes_back_from_json_in_order(images: ImageList) -> None:
    again = image_list(image.to_json() for image in images.values())
    assert list(again.items()) == list(images.items())


# ----------------------------------------------------------------------------------------------------------------------
# T4: input types


@pytest.mark.parametrize("types", [{}, {"is_3D": True}, {"is_3D": True, "missing": False}])
def test_t4_images_that_all_have_the_input_types_pass(types: dict[str, bool]) -> None:
    require_types([IMAGE, IMAGE], types)
    require_types([], {"anything": True})


def test_t4_one_selected_image_without_the_input_types_fails_the_job_and_is_named() -> None:
    flat = Image(B, types={"is_3D": False})
    with pytest.raises(JobExecutionError, match="Invalid filtered image list") as caught:
        require_types([IMAGE, flat], {"is_3D": True})
    assert caught.value.kind is FailureKind.IMAGES
    assert B in caught.value.message
    assert A not in caught.value.message
    assert '"is_3D": true' in caught.value.message
    assert caught.value.hint


def test_t4_a_message_about_many_images_names_a_few_and_counts_the_rest() -> None:
    wrong = [Image(f"{ZARR_DIR}/{i}") for i in range(20_000)]
    with pytest.raises(JobExecutionError, match="and 19995 more") as caught:
        require_types(wrong, {"is_3D": True})
    assert len(caught.value.message) < 2_000


# ----------------------------------------------------------------------------------------------------------------------
# T11: filters after a task


@pytest.mark.parametrize(
    ("output_filters", "output_types", "expected"),
    [
        (None, {}, FILTERS),
        (Filters(), {}, FILTERS),
        (Filters({"well": "B02"}), {}, Filters({"plate": "p1", "well": "B02"}, {"is_3D": True})),
        (Filters({"well": None}), {}, Filters({"plate": "p1", "well": None}, {"is_3D": True})),
        (None, {"is_3D": False}, Filters({"plate": "p1", "well": "A01"}, {"is_3D": False})),
        (
            Filters({"cycle": 1}, {"new": True}),
            {"is_3D": False},
            Filters({"plate": "p1", "well": "A01", "cycle": 1}, {"is_3D": False, "new": True}),
        ),
        (Filters({}, {"is_3D": False}), {}, Filters({"plate": "p1", "well": "A01"}, {"is_3D": False})),
    ],
)
def test_t11_filters_take_the_outputs_attributes_and_the_types_of_manifest_and_output(
    output_filters: Filters | None, output_types: dict[str, bool], expected: Filters
) -> None:
    assert filters_after_task(FILTERS, output_filters=output_filters, output_types=output_types) == expected


@pytest.mark.parametrize("of_output", [True, False])
@pytest.mark.parametrize("of_manifest", [True, False])
def test_t11_a_type_that_output_and_manifest_both_set_is_an_error_even_if_they_agree(
    of_output: bool, of_manifest: bool
) -> None:
    with pytest.raises(JobExecutionError, match="both set 'corrected'"):
        filters_after_task(
            FILTERS, output_filters=Filters({}, {"corrected": of_output}), output_types={"corrected": of_manifest}
        )


# ----------------------------------------------------------------------------------------------------------------------
# T6: outputs that say nothing


def test_t6_without_updates_and_removals_all_input_images_get_the_output_types() -> None:
    images = images_of(Image(A, C, {"well": "A01"}, {"is_3D": True}), Image(B), Image(C))
    after = applied(images, output_of(), inputs=[images[A], images[C]], output_types={"is_3D": False, "new": True})
    assert list(after.values()) == [
        Image(A, C, {"well": "A01"}, {"is_3D": False, "new": True}),
        Image(B),
        Image(C, None, {}, {"is_3D": False, "new": True}),
    ]


def test_t6_filters_alone_do_not_stop_the_flagging() -> None:
    output = TaskOutput.model_validate({"filters": {"attributes": {"well": "A01"}}})
    assert applied(images_of(Image(A)), output, output_types={"new": True})[A].types == {"new": True}


@pytest.mark.parametrize("output", [output_of(ImageUpdate(A)), output_of(removals=[A])], ids=["update", "removal"])
def test_t6_one_update_or_removal_stops_the_flagging_of_the_other_inputs(output: TaskOutput) -> None:
    after = applied(images_of(Image(A), Image(B)), output, output_types={"new": True})
    assert after[B] == Image(B)


def test_t6_t11_after_removals_only_the_filters_get_the_output_types_and_the_images_do_not() -> None:
    """A later task may then select nothing."""
    output = output_of(removals=[A])
    after = applied(images_of(Image(A), Image(B)), output, output_types={"new": True})
    filters = filters_after_task(Filters(), output_filters=output.all_filters, output_types={"new": True})
    assert after == images_of(Image(B))
    assert filters == Filters({}, {"new": True})
    assert select_images(after, filters) == []


# ----------------------------------------------------------------------------------------------------------------------
# T7: each image once


@pytest.mark.parametrize(
    "output",
    [
        output_of(ImageUpdate(A), ImageUpdate(A, attributes={"cycle": 1})),
        output_of(ImageUpdate(A), ImageUpdate(A)),
        output_of(ImageUpdate(A), removals=[A]),
        output_of(removals=[A, B, A]),
    ],
    ids=["two updates", "the same update twice", "update and removal", "two removals"],
)
def test_t7_an_image_that_an_output_names_twice_is_a_clear_job_error_that_lists_it(output: TaskOutput) -> None:
    with pytest.raises(JobExecutionError, match="more than once") as caught:
        applied(images_of(Image(A), Image(B)), output)
    assert A in caught.value.message
    assert B not in caught.value.message
    assert caught.value.kind is FailureKind.OUTPUT


def test_t7_repetitions_are_found_by_the_normalised_path() -> None:
    output = TaskOutput.model_validate({"image_list_updates": [{"zarr_url": A}], "image_list_removals": [f"{A}//."]})
    with pytest.raises(JobExecutionError, match="more than once"):
        applied(images_of(Image(A)), output)


# ----------------------------------------------------------------------------------------------------------------------
# T8: updates of known images


def test_t8_an_update_is_merged_into_the_image_in_its_place() -> None:
    images = images_of(Image(A), Image(B, C, {"well": "A01", "cycle": 1}, {"is_3D": True, "old": True}), Image(C))
    update = ImageUpdate(B, attributes={"cycle": 2, "new": "x"}, types={"old": False, "is_3D": True})
    after = applied(images, output_of(update), output_types={"is_3D": False, "done": True})
    assert list(after) == [A, B, C]
    assert after[B] == Image(
        B, C, {"well": "A01", "cycle": 2, "new": "x"}, {"is_3D": False, "old": False, "done": True}
    )


def test_t8_types_are_of_the_image_then_of_the_update_then_of_the_task() -> None:
    images = images_of(Image(A, types={"image": True, "update": False, "task": False}))
    after = applied(
        images, output_of(ImageUpdate(A, types={"update": True, "task": False})), output_types={"task": True}
    )
    assert after[A].types == {"image": True, "update": True, "task": True}


def test_t8_an_attribute_of_null_unsets_the_key() -> None:
    images = images_of(Image(A, attributes={"well": "A01", "cycle": 1}))
    after = applied(images, output_of(ImageUpdate(A, attributes={"well": None, "never there": None})))
    assert after[A].attributes == {"cycle": 1}


@pytest.mark.parametrize("origin", [None, A])
@pytest.mark.parametrize("stored", [None, A, C])
def test_t8_an_update_with_no_origin_or_itself_leaves_the_stored_origin(stored: str | None, origin: str | None) -> None:
    after = applied(images_of(Image(A, stored)), output_of(ImageUpdate(A, origin=origin)))
    assert after[A].origin == stored


@pytest.mark.parametrize("stored", [None, A, C])
@pytest.mark.parametrize("origin", [B, C, f"{ZARR_DIR}/elsewhere"])
def test_t8_an_update_with_another_origin_is_a_job_error_even_if_it_is_the_stored_one(
    stored: str | None, origin: str
) -> None:
    with pytest.raises(JobExecutionError, match="with another origin") as caught:
        applied(images_of(Image(A, stored), Image(B)), output_of(ImageUpdate(A, origin=origin)))
    assert A in caught.value.message
    assert origin in caught.value.message


def test_t8_an_image_outside_zarr_dir_that_is_known_already_can_be_updated() -> None:
    outside = "/elsewhere/image"
    after = applied(images_of(Image(outside)), output_of(ImageUpdate(outside, types={"new": True})))
    assert after[outside].types == {"new": True}


# ----------------------------------------------------------------------------------------------------------------------
# T9: new images


def test_t9_a_new_image_inherits_from_its_origin_and_is_appended() -> None:
    origin = Image(A, None, {"well": "A01", "cycle": 1}, {"is_3D": True, "old": True})
    update = ImageUpdate(D, origin=A, attributes={"cycle": None, "new": "x"}, types={"old": False})
    after = applied(images_of(origin, Image(B)), output_of(update), output_types={"is_3D": False})
    assert list(after) == [A, B, D]
    assert after[A] == origin
    assert after[D] == Image(D, A, {"well": "A01", "new": "x"}, {"is_3D": False, "old": False})


@pytest.mark.parametrize("origin", [None, C, "/elsewhere", D])
def test_t9_a_new_image_whose_origin_is_not_in_the_list_starts_empty_and_keeps_its_origin(origin: str | None) -> None:
    update = ImageUpdate(D, origin=origin, attributes={"new": "x", "nothing": None})
    after = applied(images_of(Image(A, None, {"well": "A01"}, {"is_3D": True})), output_of(update))
    assert after[D] == Image(D, origin, {"new": "x"}, {})


def test_t9_a_new_image_may_come_from_one_that_the_same_output_made_or_removes() -> None:
    output = output_of(
        ImageUpdate(C, origin=A, attributes={"step": 1}), ImageUpdate(D, origin=C, types={"new": True}), removals=[A]
    )
    after = applied(images_of(Image(A, None, {"well": "A01"})), output)
    assert list(after.values()) == [
        Image(C, A, {"well": "A01", "step": 1}),
        Image(D, C, {"well": "A01", "step": 1}, {"new": True}),
    ]


@pytest.mark.parametrize(
    ("path", "folder", "inside"),
    [
        ("/data/zarr/a", "/data/zarr", True),
        ("/data/zarr/a/b/c", "/data/zarr", True),
        ("/data/zarr", "/data/zarr", False),
        ("/data/zarr2", "/data/zarr", False),
        ("/data/zarr2/a", "/data/zarr", False),
        ("/data", "/data/zarr", False),
        ("/other/zarr/a", "/data/zarr", False),
        ("//data/zarr/a", "/data/zarr", False),
        ("//data/zarr/a", "//data/zarr", True),
        ("/data/zarr/a", "//data/zarr", False),
        ("/a", "/", True),
        ("/", "/", False),
        ("//a", "/", False),
        ("//a", "//", True),
        ("/data/zarr/..a", "/data/zarr", True),
    ],
)
def test_t9_a_path_is_inside_a_folder_by_path_component(path: str, folder: str, inside: bool) -> None:
    assert is_inside(path, folder) is inside


@pytest.mark.parametrize(
    "url", ["/data/plate.zarr2", "/data/plate.zarr2/a", "/data", "/elsewhere/a", "//data/plate.zarr/a"]
)
def test_t9_a_new_image_that_does_not_lie_under_zarr_dir_is_a_job_error(url: str) -> None:
    with pytest.raises(JobExecutionError, match="does not lie under the dataset's zarr_dir") as caught:
        applied({}, output_of(ImageUpdate(url)))
    assert caught.value.kind is FailureKind.OUTPUT
    assert url in caught.value.message
    assert ZARR_DIR in caught.value.message


def test_t9_a_new_image_that_is_zarr_dir_itself_is_a_job_error_of_its_own() -> None:
    with pytest.raises(JobExecutionError, match="cannot be the dataset's zarr_dir itself"):
        applied({}, output_of(ImageUpdate(ZARR_DIR)))


def test_import_images_that_do_not_lie_under_zarr_dir_are_refused() -> None:
    require_under([Image(A), Image(B)], ZARR_DIR)
    with pytest.raises(BadInput, match="do not lie under zarr_dir") as caught:
        require_under([Image(A), Image("/data/plate.zarr2"), Image(ZARR_DIR)], ZARR_DIR)
    assert "/data/plate.zarr2" in caught.value.message
    assert A not in caught.value.message


# ----------------------------------------------------------------------------------------------------------------------
# T10: removals


def test_t10_removed_images_leave_the_list_and_the_others_keep_their_order() -> None:
    images = images_of(Image(A), Image(B), Image(C), Image(D))
    assert list(applied(images, output_of(removals=[C, A]))) == [B, D]


def test_t10_a_removal_of_an_image_that_is_not_in_the_list_is_a_job_error() -> None:
    with pytest.raises(JobExecutionError, match="not in the list") as caught:
        applied(images_of(Image(A)), output_of(removals=[B]))
    assert B in caught.value.message


# ----------------------------------------------------------------------------------------------------------------------
# Properties of all of it


def by_the_words_of_the_rows(
    images: list[dict[str, Any]], output: TaskOutput, inputs: list[str], output_types: Mapping[str, bool]
) -> list[dict[str, Any]] | None:
    """T6-T10 done slowly, on a list of plain documents; `None` for a job error."""
    images = copy.deepcopy(images)
    updates = output.image_list_updates
    if not updates and not output.image_list_removals:
        updates = [ImageUpdate(url) for url in inputs]
    for update in updates:
        found = [image for image in images if image["zarr_url"] == update.zarr_url]
        if found:
            if update.origin not in {None, update.zarr_url}:
                return None
            image = found[0]
        else:
            origins = [image for image in images if image["zarr_url"] == update.origin]
            start = origins[0] if origins else {"attributes": {}, "types": {}}
            image = {**copy.deepcopy(start), "zarr_url": update.zarr_url, "origin": update.origin}
            images.append(image)
        image["attributes"].update(update.attributes)
        for key in [key for key, value in image["attributes"].items() if value is None]:
            del image["attributes"][key]
        image["types"].update(update.types)
        image["types"].update(output_types)
    for url in output.image_list_removals:
        found = [image for image in images if image["zarr_url"] == url]
        if not found:
            return None
        images.remove(found[0])
    return images


@given(drawn.image_lists(), drawn.task_outputs(), drawn.types, drawn.filters)
def test_t6_to_t10_the_result_is_what_the_rows_say(
    images: ImageList, output: TaskOutput, output_types: dict[str, bool], filters: Filters
) -> None:
    inputs = select_images(images, filters)
    documents = [image.to_json() for image in images.values()]
    expected = by_the_words_of_the_rows(documents, output, [image.zarr_url for image in inputs], output_types)
    try:
        after = applied(images, output, inputs=inputs, output_types=output_types)
    except JobExecutionError:
        assert expected is None
    else:
        assert [image.to_json() for image in after.values()] == expected
        assert list(after) == [image.zarr_url for image in after.values()]


@given(drawn.image_lists(), drawn.task_outputs(), drawn.types)
def test_t6_to_t10_the_given_list_and_the_output_are_left_as_they_were(
    images: ImageList, output: TaskOutput, output_types: dict[str, bool]
) -> None:
    before = copy.deepcopy((list(images.items()), output, output_types))
    try:
        after = applied(images, output, output_types=output_types)
    except JobExecutionError:
        pass
    else:
        after.clear()
    assert (list(images.items()), output, output_types) == before


@given(drawn.image_lists(), drawn.task_outputs(), drawn.types)
def test_t8_t9_known_images_keep_their_order_and_new_ones_follow_in_the_order_of_the_output(
    images: ImageList, output: TaskOutput, output_types: dict[str, bool]
) -> None:
    try:
        after = list(applied(images, output, output_types=output_types))
    except JobExecutionError:
        assume(False)
    removed = set(output.image_list_removals)
    new = [update.zarr_url for update in output.image_list_updates if update.zarr_url not in images]
    assert after == [url for url in images if url not in removed] + new


@given(drawn.image_lists(), drawn.task_outputs(), drawn.types)
def test_t8_an_output_that_only_updates_changes_nothing_when_it_comes_again(
    images: ImageList, output: TaskOutput, output_types: dict[str, bool]
) -> None:
    again = TaskOutput.model_construct(
        image_list_updates=[
            ImageUpdate(update.zarr_url, attributes=update.attributes, types=update.types)
            for update in output.image_list_updates
        ],
        image_list_removals=[],
        filters=output.filters,
        type_filters={},
    )
    once = applied(images, again, output_types=output_types)
    assert applied(once, again, inputs=list(images.values()), output_types=output_types) == once


class CountedUrl(str):
    """A URL that counts how often it is compared with another."""

    __slots__ = ()
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountedUrl.comparisons += 1
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return str.__hash__(self)


def comparisons_of(count: int) -> int:
    """How many comparisons it takes to edit, add and remove `count` images each."""
    urls = [CountedUrl(f"{ZARR_DIR}/{i}") for i in range(3 * count)]
    images = images_of(*(Image(url) for url in urls[: 2 * count]))
    updates = [ImageUpdate(CountedUrl(str(url))) for url in urls[:count]]
    updates += [ImageUpdate(url, origin=CountedUrl(str(urls[0]))) for url in urls[2 * count :]]
    removals: list[str] = [CountedUrl(str(url)) for url in urls[count : 2 * count]]
    output = TaskOutput.model_construct(
        image_list_updates=updates, image_list_removals=removals, type_filters={}, filters=TaskOutput().filters
    )
    CountedUrl.comparisons = 0
    assert len(applied(images, output)) == 2 * count
    return CountedUrl.comparisons


def test_the_work_grows_linearly_with_the_number_of_images() -> None:
    few, many = comparisons_of(100), comparisons_of(1_000)
    assert few > 0
    assert many < 12 * few


def test_p5_a_hundred_thousand_images_are_updated() -> None:
    images = images_of(*(Image(f"{ZARR_DIR}/{i}", None, {"i": i}) for i in range(100_000)))
    output = output_of(*(ImageUpdate(url, types={"new": True}) for url in images))
    after = applied(images, output)
    assert list(after) == list(images)
    assert all(image.types == {"new": True} for image in after.values())
