"""Manifests, version 2: what a task package says of its tasks.

Manifests evolve, so keys that are not known are left alone; what is known is checked, and refused with its path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator, model_validator

from runner_core.catalog.documents import Name, checked_document, parse_json
from runner_core.commands import FORBIDDEN_CHARACTERS
from runner_core.failures import BadInput, quoted
from runner_core.model import Json, TaskType
from runner_core.task_io import Types

MAX_MANIFEST_BYTES = 16 * 1024 * 1024


def _inside_package(executable: str) -> str:
    wrong = sorted(
        {character for character in executable if character in FORBIDDEN_CHARACTERS or not character.isprintable()}
    )
    if wrong:
        raise ValueError(f"a command must not hold {quoted(' '.join(wrong), 80)} (got {quoted(executable, 80)})")
    path = PurePosixPath(executable)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"must be a path inside the package (got {quoted(executable, 80)})")
    return str(path)


def _json_schema(schema: Json) -> Json:
    """Check that it is a JSON Schema that needs nothing but itself."""
    from jsonschema import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for

    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"not a JSON Schema: {error.json_path}: {quoted(error.message, 200)}") from None
    except RecursionError:
        raise ValueError("not a usable JSON Schema: it is nested too deeply") from None
    for reference in _references(schema):
        if not (isinstance(reference, str) and reference.startswith("#")):
            raise ValueError(f"the schema refers to something outside itself: {quoted(reference, 80)}")
    return schema


def _references(schema: Any) -> list[Any]:
    found, rest = [], [schema]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            # A property may itself be called "$ref": then its value is a schema, not a reference.
            found += [v for k, v in value.items() if k in {"$ref", "$dynamicRef"} and not isinstance(v, dict)]
            rest += value.values()
        elif isinstance(value, list):
            rest += value
    return found


Executable = Annotated[str, Field(max_length=500), AfterValidator(_inside_package)]
JsonSchema = Annotated[Json, AfterValidator(_json_schema)]


class TaskManifest(BaseModel):
    """One task of a package. Executables are POSIX paths relative to the package's folder."""

    name: Name
    type: TaskType
    executable_non_parallel: Executable | None = None
    executable_parallel: Executable | None = None
    meta_non_parallel: Json = Field(default_factory=dict)
    meta_parallel: Json = Field(default_factory=dict)
    args_schema_non_parallel: JsonSchema | None = None
    args_schema_parallel: JsonSchema | None = None
    input_types: Types = Field(default_factory=dict)
    output_types: Types = Field(default_factory=dict)
    category: Name | None = None
    modality: Name | None = None
    tags: list[str] = Field(default_factory=list)
    docs_info: str | None = None
    docs_link: str | None = None

    @property
    def slug(self) -> str:
        """The last part of the task's source."""
        return task_slug(self.name)

    @model_validator(mode="before")
    @classmethod
    def _derive_type(cls, values: Any) -> Any:
        """Older manifests have no `type`: the executables tell it."""
        if not isinstance(values, dict) or values.get("type") is not None:
            return values
        if values.get("executable_non_parallel") is None:
            return {**values, "type": TaskType.PARALLEL}
        has_both = values.get("executable_parallel") is not None
        return {**values, "type": TaskType.COMPOUND if has_both else TaskType.NON_PARALLEL}

    @field_validator("executable_non_parallel", "executable_parallel")
    @classmethod
    def _executables_fit_type(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind, part, belongs = _part_of(info)
        if belongs is True and value is None:
            raise ValueError(f"is missing: a {kind} task needs it")
        if belongs is False and value is not None:
            raise ValueError(f"does not belong here: a {kind} task has no {part} part")
        return value

    @field_validator("meta_non_parallel", "meta_parallel", "args_schema_non_parallel", "args_schema_parallel")
    @classmethod
    def _rest_fits_type(cls, value: Json | None, info: ValidationInfo) -> Json | None:
        kind, part, belongs = _part_of(info)
        if belongs is False and value:
            raise ValueError(f"does not belong here: a {kind} task has no {part} part")
        return value

    @field_validator("input_types")
    @classmethod
    def _converters_have_none(cls, value: dict[str, bool], info: ValidationInfo) -> dict[str, bool]:
        kind: TaskType | None = info.data.get("type")
        if kind is not None and not kind.takes_images and value:
            raise ValueError("a converter takes no images, so it has no input types")
        return value

    model_config = {"validate_default": True}


def _part_of(info: ValidationInfo) -> tuple[str, str, bool | None]:
    """The task's type, the part that a field speaks of, and whether such tasks have it (None: the type is wrong)."""
    kind: TaskType | None = info.data.get("type")
    non_parallel = str(info.field_name).endswith("non_parallel")
    if kind is None:
        return "", "", None
    belongs = kind.has_non_parallel_part if non_parallel else kind.has_parallel_part
    return kind.value, "non-parallel" if non_parallel else "parallel", belongs


class Manifest(BaseModel):
    """All that a package says of its tasks."""

    manifest_version: Literal["2"]
    has_args_schemas: bool = False
    args_schema_version: Annotated[str, Field(max_length=100)] | None = None
    authors: str | None = None
    task_list: list[TaskManifest] = Field(min_length=1)


def parse_manifest(data: bytes, *, what: str) -> Manifest:
    """Parse and check the content of a manifest file.

    Raises `BadInput` with the exact field: `<what>: task_list[3].executable_parallel: ...`.
    """
    document = parse_json(data, what=what, limit=MAX_MANIFEST_BYTES)
    manifest = checked_document(Manifest, document, what=what)
    for field, problem in _problems_between_fields(manifest):
        raise BadInput(f"{what}: {field}: {problem}")
    return manifest


def _problems_between_fields(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """What no field can know alone: names that are too alike, schemas that were promised."""
    first_with: dict[str, int] = {}
    for index, task in enumerate(manifest.task_list):
        if first_with.setdefault(task.slug, index) < index:
            yield (
                f"task_list[{index}].name",
                f"{quoted(task.name, 80)} is the name of task_list[{first_with[task.slug]}] already",
            )
        if not manifest.has_args_schemas:
            continue
        if task.type.has_non_parallel_part and task.args_schema_non_parallel is None:
            yield f"task_list[{index}].args_schema_non_parallel", "is missing, though has_args_schemas is true"
        if task.type.has_parallel_part and task.args_schema_parallel is None:
            yield f"task_list[{index}].args_schema_parallel", "is missing, though has_args_schemas is true"


def task_slug(name: str) -> str:
    """A task's name as sources hold it: `Project Image` is `project_image`."""
    return name.strip().lower().replace(" ", "_")


def comparable_slug(slug: str) -> str:
    """A slug without what versions of the reference spelled differently: only letters, digits and single `_`."""
    return re.sub(r"[^a-z0-9]+", "_", slug.lower()).strip("_")
