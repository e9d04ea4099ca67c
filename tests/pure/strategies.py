"""What Hypothesis draws images, filters, task outputs and foreign JSON from.

Names come from small sets, so that images, updates and filters meet.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from runner_core.images import Filters, Image, ImageList
from runner_core.task_io import FilterUpdate, ImageUpdate, TaskOutput

ZARR_DIR = "/data/plate.zarr"

keys = st.sampled_from(["plate", "well", "cycle", "größe"])
scalars = st.one_of(st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, 2.5, "", "A01", "1", "ü"]))
attributes = st.dictionaries(keys, scalars, max_size=3)
attributes_or_none = st.dictionaries(keys, scalars | st.none(), max_size=3)
types = st.dictionaries(st.sampled_from(["is_3D", "corrected", "registered"]), st.booleans(), max_size=3)
urls = st.sampled_from([f"{ZARR_DIR}/{name}" for name in "abcdefg"])
origins = st.none() | urls

images = st.builds(Image, urls, origins, attributes, types)
filters = st.builds(Filters, attributes_or_none, types)
updates = st.builds(ImageUpdate, zarr_url=urls, origin=origins, attributes=attributes_or_none, types=types)
filter_updates = st.builds(FilterUpdate, attributes=attributes_or_none, types=types)


def image_lists() -> st.SearchStrategy[ImageList]:
    return st.lists(images, unique_by=lambda image: image.zarr_url, max_size=5).map(
        lambda drawn: {image.zarr_url: image for image in drawn}
    )


@st.composite
def task_outputs(draw: st.DrawFn) -> TaskOutput:
    """Outputs that name each image once, among updates and removals together, as T7 asks."""
    named = draw(st.lists(updates, unique_by=lambda update: update.zarr_url, max_size=5))
    removed = draw(st.integers(0, len(named)))
    return TaskOutput.model_construct(
        image_list_updates=named[removed:],
        image_list_removals=[update.zarr_url for update in named[:removed]],
        filters=draw(filter_updates),
        type_filters={},
    )


foreign_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)

_almost_urls: st.SearchStrategy[Any] = st.one_of(
    st.text(), urls, st.sampled_from(["", "/", "//", "a/b", "s3://bucket/a", "/a\0", None, 1, []])
)
_almost_updates = st.fixed_dictionaries(
    {},
    optional={"zarr_url": _almost_urls, "origin": _almost_urls, "attributes": foreign_json, "types": foreign_json},
)
almost_outputs: st.SearchStrategy[Any] = st.dictionaries(
    st.sampled_from(
        ["image_list_updates", "image_list_removals", "filters", "type_filters", "parallelization_list", "\x1b[2J"]
    ),
    st.one_of(foreign_json, st.lists(_almost_updates, max_size=3), st.lists(_almost_urls, max_size=3)),
    max_size=3,
)
"""JSON that looks like a task's output more or less."""
