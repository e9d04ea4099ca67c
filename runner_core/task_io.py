"""What tasks read and write: arguments, outputs, and the merging of the outputs of many units.

Rows P2-P7 and T14 of the behaviour reference. Everything here is pure; texts come from `--out-json` files.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from runner_core.failures import JobExecutionError, quoted
from runner_core.images import Filters, Image, checked_attributes, checked_keys, normalized_path
from runner_core.model import FailureKind, Json, Scalar

RESERVED_ARGUMENTS = frozenset({"zarr_dir", "zarr_url", "zarr_urls", "init_args"})
"""What the runner fills in; users may not set these (P2)."""


def _stripped(value: Any) -> Any:
    return checked_keys(value) if isinstance(value, dict) else value


def _scalars_or_none(value: Any) -> Any:
    return checked_attributes(value, none_allowed=True) if isinstance(value, dict) else value


ZarrUrl = Annotated[str, AfterValidator(normalized_path)]
Types = Annotated[dict[str, bool], BeforeValidator(_stripped)]
Attributes = Annotated[dict[str, Any], BeforeValidator(_scalars_or_none)]


@dataclass(frozen=True, slots=True)
class ImageUpdate:
    """A new image, or a change of one that exists. Unknown keys are ignored (P6).

    A plain dataclass, which pydantic checks all the same: there may be 100,000, and a model costs twice the time.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    zarr_url: ZarrUrl
    origin: ZarrUrl | None = None
    attributes: Attributes = field(default_factory=dict)
    types: Types = field(default_factory=dict)


class FilterUpdate(BaseModel):
    """Filters that a task sets for the tasks after it."""

    model_config = ConfigDict(extra="forbid")

    attributes: Attributes = Field(default_factory=dict)
    types: Types = Field(default_factory=dict)

    def to_filters(self) -> Filters:
        """The same as the image list's own noun."""
        return Filters(self.attributes, self.types)


class TaskOutput(BaseModel):
    """What a task says of the image list. `type_filters`, the newer form, is read as filters on types."""

    model_config = ConfigDict(extra="forbid")

    image_list_updates: list[ImageUpdate] = Field(default_factory=list)
    image_list_removals: list[ZarrUrl] = Field(default_factory=list)
    filters: FilterUpdate = Field(default_factory=FilterUpdate)
    type_filters: Types = Field(default_factory=dict)

    @property
    def all_filters(self) -> Filters:
        """The filters of either form."""
        return Filters(self.filters.attributes, {**self.filters.types, **self.type_filters})


class InitItem(BaseModel):
    """One item of a compound task's plan: an image and what its unit gets as `init_args`."""

    model_config = ConfigDict(extra="forbid")

    zarr_url: ZarrUrl
    init_args: dict[str, Any] = Field(default_factory=dict)


class InitTaskOutput(BaseModel):
    """What the planning part of a compound task writes."""

    model_config = ConfigDict(extra="forbid")

    parallelization_list: list[InitItem] = Field(default_factory=list)


_Output = TypeVar("_Output", TaskOutput, InitTaskOutput)


def parse_task_output(text: str | None) -> TaskOutput:
    """The output of a unit from the text of its metadiff file; `None`, `null` and `{}` are no output (P6).

    Raises `JobExecutionError` that quotes the text, bounded, for anything else that is not a task output.
    """
    return _parsed(text, TaskOutput)


def parse_init_output(text: str | None) -> InitTaskOutput:
    """The plan of a compound task, with exact duplicates dropped (P4); errors as in `parse_task_output`."""
    items: dict[Hashable, InitItem] = {}
    for item in _parsed(text, InitTaskOutput).parallelization_list:
        items.setdefault((item.zarr_url, _hashable(item.init_args)), item)
    return InitTaskOutput.model_construct(parallelization_list=list(items.values()))


def _parsed(text: str | None, model: type[_Output]) -> _Output:
    if text is None:
        return model()
    try:
        document = from_json(text)
    except (ValueError, TypeError) as error:  # TypeError: bytes that are not UTF-8, kept as lone surrogates
        raise _unusable(text, f"it is not valid JSON ({error})") from None
    if document is None:
        return model()
    if not isinstance(document, dict):
        raise _unusable(text, f"it is a JSON {_json_kind(document)}, not an object")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = quoted(".".join(str(part) for part in problem["loc"]))
        more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        raise _unusable(text, f"{where}: {problem['msg']}{more}") from None


def _unusable(text: str, why: str) -> JobExecutionError:
    return JobExecutionError(
        f"the task's output cannot be used: {why}; the output was: {quoted(text, 1000)}",
        kind=FailureKind.OUTPUT,
        hint="the task package has to write an object with image_list_updates and image_list_removals",
    )


def _json_kind(value: Any) -> str:
    if isinstance(value, list):
        return "list"
    return "string" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"


def merged_outputs(outputs: Iterable[TaskOutput]) -> TaskOutput:
    """One output from those of all units of a task (P7).

    Updates are concatenated without exact repetitions, removals without repetitions. All units must agree on the
    filters; one that says nothing has empty filters. Raises `JobExecutionError` that names two that differ.
    """
    first: TaskOutput | None = None
    updates: dict[Hashable, ImageUpdate] = {}
    removals: dict[str, None] = {}
    for index, output in enumerate(outputs):
        first = first or output
        if output.all_filters != first.all_filters:
            raise _differing_filters(first.all_filters, index, output.all_filters)
        for update in output.image_list_updates:
            key = (update.zarr_url, update.origin, _hashable(update.attributes), _hashable(update.types))
            updates.setdefault(key, update)
        removals.update(dict.fromkeys(output.image_list_removals))
    if first is None:
        return TaskOutput()
    return TaskOutput.model_construct(
        image_list_updates=list(updates.values()),
        image_list_removals=list(removals),
        filters=first.filters,
        type_filters=first.type_filters,
    )


def _differing_filters(first: Filters, index: int, other: Filters) -> JobExecutionError:
    return JobExecutionError(
        f"the units of the task set different filters: unit 0 {quoted(json.dumps(first.to_json()))}, "
        f"unit {index} {quoted(json.dumps(other.to_json()))}",
        kind=FailureKind.OUTPUT,
    )


_NAN = object()


def _hashable(value: Any) -> Hashable:
    """A stand-in for a JSON value: equal where the values are equal in Python, and NaN equal to itself."""
    if isinstance(value, dict):
        return frozenset((key, _hashable(item)) for key, item in value.items())
    if isinstance(value, list):
        return tuple(_hashable(item) for item in value)
    hashable: Hashable = _NAN if isinstance(value, float) and isnan(value) else value
    return hashable


# --------------------------------------------------------------------------------------------------------------------
# Arguments


def non_parallel_arguments(images: Sequence[Image], *, zarr_dir: str, takes_images: bool, arguments: Json) -> Json:
    """What a non-parallel task, or the planning part of a compound one, reads (P2); converters get no images."""
    urls: Json = {"zarr_urls": [image.zarr_url for image in images]} if takes_images else {}
    return {**urls, "zarr_dir": zarr_dir, **_of_users(arguments)}


def parallel_arguments(images: Sequence[Image], *, arguments: Json) -> list[Json]:
    """What each unit of a parallel task reads, one per image (P3)."""
    arguments = _of_users(arguments)
    return [{"zarr_url": image.zarr_url, **arguments} for image in images]


def compound_arguments(plan: InitTaskOutput, *, arguments: Json) -> list[Json]:
    """What each unit of a compound task reads, one per planned item (P4)."""
    arguments = _of_users(arguments)
    return [{"zarr_url": item.zarr_url, "init_args": item.init_args, **arguments} for item in plan.parallelization_list]


def _of_users(arguments: Json) -> Json:
    """Arguments that users may set; raises `JobExecutionError` for one that the runner fills in."""
    reserved = sorted(RESERVED_ARGUMENTS & set(arguments))
    if reserved:
        raise JobExecutionError(
            f"the workflow sets the reserved argument {quoted(reserved[0])}",
            kind=FailureKind.SETUP,
            hint="take it out of the workflow task's arguments; the runner fills it in",
        )
    return arguments


# --------------------------------------------------------------------------------------------------------------------
# Images that come from outside


class ImageDocument(BaseModel):
    """An image as people and other programs hand it in."""

    model_config = ConfigDict(extra="forbid")

    zarr_url: ZarrUrl
    origin: ZarrUrl | None = None
    attributes: Annotated[
        dict[str, Any],
        BeforeValidator(lambda v: checked_attributes(v, none_allowed=False) if isinstance(v, dict) else v),
    ] = Field(default_factory=dict)
    types: Types = Field(default_factory=dict)

    def to_image(self) -> Image:
        """The same as the image list's own noun."""
        attributes: dict[str, Scalar] = self.attributes
        return Image(self.zarr_url, self.origin, attributes, self.types)
