"""The image list and the filters: what a task sees of a dataset, and what its output makes of it.

An image list is a dict from `zarr_url` to `Image`, in the dataset's order; every operation is linear in the number of
images. Rows T1-T14 of the behaviour reference. Everything here is pure.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner_core.failures import BadInput, JobExecutionError, quoted
from runner_core.model import FailureKind, Json, Scalar

if TYPE_CHECKING:
    from runner_core.task_io import ImageUpdate, TaskOutput

_SHOWN = 5  # how many offenders a message lists


@dataclass(frozen=True, slots=True)
class Image:
    """One OME-Zarr image of a dataset.

    `zarr_url` is its absolute path, `origin` the image that it was made from, `attributes` (plate, well, ...) are
    scalars and `types` (`is_3D`, ...) booleans.
    """

    zarr_url: str
    origin: str | None = None
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    types: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Json) -> Image:
        """The image of a document that has been checked already, as the store holds it."""
        return cls(
            document["zarr_url"],
            document.get("origin"),
            document.get("attributes") or {},
            document.get("types") or {},
        )

    def to_json(self) -> Json:
        """The image as the store, `images.json` and exports hold it."""
        return {
            "zarr_url": self.zarr_url,
            "origin": self.origin,
            "attributes": dict(self.attributes),
            "types": dict(self.types),
        }


ImageList = dict[str, Image]
"""Images by `zarr_url`, in the dataset's order."""


def image_list(documents: Iterable[Json]) -> ImageList:
    """The image list of documents that have been checked already."""
    return {document["zarr_url"]: Image.from_json(document) for document in documents}


# --------------------------------------------------------------------------------------------------------------------
# Checked values: paths, attributes, types


def normalized_path(path: str) -> str:
    """Give an absolute POSIX path its one spelling (T14).

    Spaces around it are dropped. Two leading slashes survive, as POSIX has it; such a path lies under no ordinary
    folder. Raises `ValueError` for anything that is not an absolute path.
    """
    path = path.strip()
    if path.startswith("s3"):
        raise ValueError(f"S3 paths are not supported yet: {quoted(path)}")
    if not path.startswith("/"):
        raise ValueError(f"not an absolute path (it must begin with '/'): {quoted(path)}")
    if "\0" in path:
        raise ValueError(f"a path cannot hold a NUL character: {quoted(path)}")
    return posixpath.normpath(path)


def is_inside(path: str, folder: str) -> bool:
    """Whether a normalised path lies strictly below a normalised folder, component by component (T9).

    `//data` is not below `/`: POSIX gives two leading slashes a root of their own.
    """
    same_root = path.startswith("//") == folder.startswith("//")
    return same_root and path != folder and path.startswith(folder.rstrip("/") + "/")


def checked_keys(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Strip the keys of attributes, types and filters; empty and clashing keys raise `ValueError` (T14)."""
    stripped = {str(key).strip(): value for key, value in values.items()}
    if "" in stripped:
        raise ValueError("an empty key")
    if len(stripped) < len(values):
        twice = [key for key, n in Counter(str(key).strip() for key in values).items() if n > 1]
        raise ValueError(f"keys that are equal once spaces are stripped: {quoted(twice[0])}")
    return stripped


def checked_attributes(values: Mapping[Any, Any], *, none_allowed: bool) -> dict[str, Scalar]:
    """Check that attributes are scalars; `None` is for task outputs and filters alone (T14)."""
    attributes = checked_keys(values)
    for key, value in attributes.items():
        if value is None and none_allowed:
            continue
        if not isinstance(value, str | int | float):
            kind = "null" if value is None else type(value).__name__
            raise ValueError(f"attribute {quoted(key)} must be a number, a string or a boolean, not {kind}")
    return attributes


# --------------------------------------------------------------------------------------------------------------------
# Filters


@dataclass(frozen=True, slots=True)
class Filters:
    """Which images a task works on: required attributes (`None` matches all) and types."""

    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    types: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Json | None) -> Filters:
        """The filters of a document that has been checked already."""
        document = document or {}
        return cls(document.get("attributes") or {}, document.get("types") or {})

    def to_json(self) -> Json:
        """The filters as the store and `filters.json` hold them."""
        return {"attributes": dict(self.attributes), "types": dict(self.types)}

    def overlaid(self, other: Filters) -> Filters:
        """These filters with the other's keys laid over them (T2)."""
        return Filters({**self.attributes, **other.attributes}, {**self.types, **other.types})

    def match(self, image: Image) -> bool:
        """Whether the image has every required type (missing: false) and attribute (T3)."""
        return _has_types(image, self.types) and all(
            value is None or (key in image.attributes and image.attributes[key] == value)
            for key, value in self.attributes.items()
        )


def _has_types(image: Image, types: Mapping[str, bool]) -> bool:
    return all(image.types.get(key, False) == value for key, value in types.items())


def select_images(images: ImageList, filters: Filters) -> list[Image]:
    """The images that match, in order (T3)."""
    return [image for image in images.values() if filters.match(image)]


def require_types(images: Iterable[Image], types: Mapping[str, bool]) -> None:
    """Raise `JobExecutionError` if any image has not the types that a task takes (T4)."""
    wrong = [image.zarr_url for image in images if not _has_types(image, types)]
    if wrong:
        raise JobExecutionError(
            f"Invalid filtered image list: the task takes images of the types {quoted(json.dumps(dict(types)))}, "
            f"and these that the filters select have others ({len(wrong)}): {_listed(wrong)}",
            kind=FailureKind.IMAGES,
            hint="set the workflow task's input filters so that they select only fitting images",
        )


def filters_after_task(
    filters: Filters, *, output_filters: Filters | None, output_types: Mapping[str, bool]
) -> Filters:
    """The filters that the next task starts from (T11).

    Raises `JobExecutionError` where the task's output and its manifest set the same type.
    """
    output_filters = output_filters or Filters()
    both = sorted(set(output_filters.types) & set(output_types))
    if both:
        raise JobExecutionError(
            f"the task's output filters and its output types both set {', '.join(map(quoted, both))}",
            kind=FailureKind.OUTPUT,
        )
    return Filters(
        {**filters.attributes, **output_filters.attributes},
        {**filters.types, **output_types, **output_filters.types},
    )


# --------------------------------------------------------------------------------------------------------------------
# What a task's output makes of the list


def apply_output(
    images: ImageList,
    output: TaskOutput,
    *,
    inputs: Iterable[Image],
    output_types: Mapping[str, bool],
    zarr_dir: str,
) -> ImageList:
    """A new image list: the updates applied, then the removals (T6-T10).

    An output without updates and removals counts as an update of every input image, so that these get the task's
    output types. Raises `JobExecutionError` where the output breaks a rule; the given list is left as it was.
    """
    _require_distinct(output)
    changed = dict(images)
    if not output.image_list_updates and not output.image_list_removals:
        for image in inputs:
            changed[image.zarr_url] = Image(
                image.zarr_url, image.origin, image.attributes, {**image.types, **output_types}
            )
        return changed
    for update in output.image_list_updates:
        known = changed.get(update.zarr_url)
        base = _base_of_new(changed, update, zarr_dir) if known is None else _base_of_known(known, update)
        changed[update.zarr_url] = Image(
            update.zarr_url,
            update.origin if known is None else known.origin,
            _merged_attributes(base.attributes, update.attributes),
            {**base.types, **update.types, **output_types},
        )
    for zarr_url in output.image_list_removals:
        if changed.pop(zarr_url, None) is None:
            raise JobExecutionError(
                f"cannot remove an image that is not in the list: {quoted(zarr_url)}",
                kind=FailureKind.OUTPUT,
            )
    return changed


def _require_distinct(output: TaskOutput) -> None:
    urls = [update.zarr_url for update in output.image_list_updates]
    urls += output.image_list_removals
    if len(set(urls)) < len(urls):
        twice = [url for url, n in Counter(urls).items() if n > 1]
        raise JobExecutionError(
            f"the task's output names images more than once among its updates and removals ({len(twice)}): "
            f"{_listed(twice)}",
            kind=FailureKind.OUTPUT,
        )


def _base_of_known(known: Image, update: ImageUpdate) -> Image:
    if update.origin not in {None, known.zarr_url}:
        raise JobExecutionError(
            f"cannot update the image {quoted(known.zarr_url)} with another origin, {quoted(update.origin)}",
            kind=FailureKind.OUTPUT,
        )
    return known


def _base_of_new(images: ImageList, update: ImageUpdate, zarr_dir: str) -> Image:
    if update.zarr_url == zarr_dir:
        raise JobExecutionError(
            f"the new image {quoted(update.zarr_url)} cannot be the dataset's zarr_dir itself",
            kind=FailureKind.OUTPUT,
        )
    if not is_inside(update.zarr_url, zarr_dir):
        raise JobExecutionError(
            f"the new image {quoted(update.zarr_url)} does not lie under the dataset's zarr_dir {quoted(zarr_dir)}",
            kind=FailureKind.OUTPUT,
        )
    return images.get(update.origin or "") or Image(update.zarr_url)


def _merged_attributes(base: Mapping[str, Scalar], update: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The update laid over the base; `None` takes a key away (T8)."""
    return {key: value for key, value in {**base, **update}.items() if value is not None}


def require_under(images: Iterable[Image], zarr_dir: str) -> None:
    """Raise `BadInput` if an image does not lie under the dataset's `zarr_dir`."""
    outside = [image.zarr_url for image in images if not is_inside(image.zarr_url, zarr_dir)]
    if outside:
        raise BadInput(f"images do not lie under zarr_dir {quoted(zarr_dir)} ({len(outside)}): {_listed(outside)}")


def _listed(urls: list[str]) -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(urls) - _SHOWN} more" if len(urls) > _SHOWN else ""
    return ", ".join(map(quoted, urls[:_SHOWN])) + more
