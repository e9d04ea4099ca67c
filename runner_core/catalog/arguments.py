"""A workflow task's arguments, checked against the JSON Schemas of its manifest.

Two things differ from plain validation. The runner fills the standard arguments, so they are not required, and nobody
may set them. And `null` for an argument that has no default other than null means that it is not given: manifests
leave `null` out of the schema of an optional argument, while tasks accept it and workflows hold it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from runner_core.catalog.documents import field_path, shown
from runner_core.failures import BadInput, quoted
from runner_core.model import Json, TaskType
from runner_core.store.models import Task
from runner_core.task_io import RESERVED_ARGUMENTS

_LISTED = 12  # how many allowed values or names a message lists
_SHOWN_PROBLEMS = 3


def check_arguments(task: Task, *, args_non_parallel: Json, args_parallel: Json) -> None:
    """Raise `BadInput` that names the task, each wrong argument, what is wrong with it, and what is allowed."""
    kind = TaskType(task.type)
    parts = (
        ("args_non_parallel", args_non_parallel, kind.has_non_parallel_part, task.args_schema_non_parallel),
        ("args_parallel", args_parallel, kind.has_parallel_part, task.args_schema_parallel),
    )
    for part, arguments, exists, schema in parts:
        problems = list(_problems(part, arguments, kind=kind, exists=exists, schema=schema))
        if problems:
            more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
            raise BadInput(f"task {quoted(task.name, 80)}: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}")


def _problems(part: str, arguments: Json, *, kind: TaskType, exists: bool, schema: Json | None) -> Iterator[str]:
    if arguments and not exists:
        yield f"{part} must be empty: a {kind.value} task has no such part (got {_listed(arguments)})"
        return
    reserved = sorted(RESERVED_ARGUMENTS & set(arguments))
    if reserved:
        yield f"{part}.{reserved[0]} may not be set: the runner fills in {', '.join(sorted(RESERVED_ARGUMENTS))}"
    elif exists and schema is not None:
        yield from _schema_problems(part, arguments, schema)


def _schema_problems(part: str, arguments: Json, schema: Json) -> Iterator[str]:
    from referencing.exceptions import Unresolvable

    required = [name for name in schema.get("required", ()) if name not in RESERVED_ARGUMENTS]
    validator = _validator_class()({**schema, "required": required}, registry=_registry())
    try:
        errors = sorted(validator.iter_errors(arguments), key=lambda error: [str(key) for key in error.absolute_path])
        problems = [_explained(error) for error in errors]
    except Unresolvable as error:
        yield f"the schema of {part} refers to something that is not in it: {quoted(error.ref, 80)}"
    except re.error as error:
        yield f"the schema of {part} has an unusable pattern: {error}"
    except RecursionError:
        yield f"{part} or its schema is nested too deeply"
    else:
        yield from (f"{field_path([part, *path])} {problem}" for path, problem in problems)


@cache
def _validator_class() -> Any:
    from jsonschema.validators import Draft202012Validator, extend

    return extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"properties": _properties_without_unset, "oneOf": _one_of_tagged}
    )


@cache
def _registry() -> Any:
    """A registry that knows nothing and fetches nothing."""
    from referencing import Registry

    return Registry()


def _properties_without_unset(validator: Any, properties: Json, instance: Any, schema: Json) -> Iterator[Any]:
    """The keyword `properties`, but for a `null` that means "not given"."""
    if not isinstance(instance, dict):
        return
    for name, subschema in properties.items():
        if name not in instance:
            continue
        has_default = isinstance(subschema, dict) and subschema.get("default") is not None
        if instance[name] is None and not has_default and name not in schema.get("required", ()):
            continue
        yield from validator.descend(instance[name], subschema, path=name, schema_path=name)


def _one_of_tagged(validator: Any, options: list[Json], instance: Any, schema: Json) -> Iterator[Any]:
    """The keyword `oneOf`, where a discriminator names the option that counts; tasks insist that it is given."""
    from jsonschema import Draft202012Validator, ValidationError

    tag, mapping = _discriminator(schema)
    if not mapping:
        yield from Draft202012Validator.VALIDATORS["oneOf"](validator, options, instance, schema)
    elif not isinstance(instance, dict):
        message = f"must be an object with {tag} one of {_listed(mapping)}, not {shown(instance)}"
        yield ValidationError(message, validator="discriminator")
    elif tag not in instance:
        yield ValidationError(f"is missing: one of {_listed(mapping)}", validator="discriminator", path=[tag])
    elif not isinstance(instance[tag], str) or instance[tag] not in mapping:
        yield ValidationError(_not_among(instance[tag], mapping), validator="discriminator", path=[tag])
    else:
        yield from validator.descend(instance, {"$ref": mapping[instance[tag]]})


def _discriminator(schema: Json) -> tuple[str, Json]:
    """The name of the property that tells the options apart, and which of its values means which option."""
    discriminator: Any = schema.get("discriminator")
    mapping = discriminator.get("mapping") if isinstance(discriminator, dict) else None
    if not isinstance(mapping, dict) or not all(isinstance(target, str) for target in mapping.values()):
        return "", {}
    return str(discriminator.get("propertyName")), mapping


# --------------------------------------------------------------------------------------------------------------------
# Errors in words


def _explained(error: Any) -> tuple[list[str | int], str]:
    """The place of a `jsonschema.ValidationError` and what is wrong there, followed into the option that was meant."""
    path, value, wanted = list(error.absolute_path), error.instance, error.validator_value
    if error.validator in {"oneOf", "anyOf"}:
        return _explained_choice(error)
    if error.validator == "additionalProperties" and wanted is False:
        return _explained_unknown(error)
    if error.validator == "required":
        path.append(next(name for name in wanted if name not in value))
    words: dict[str, Callable[[], str]] = {
        "discriminator": lambda: error.message,
        "required": lambda: "is missing",
        "type": lambda: f"must be {_kinds([wanted] if isinstance(wanted, str) else wanted)}, not {shown(value)}",
        "enum": lambda: _not_among(value, wanted),
        "const": lambda: f"must be {shown(wanted)}, not {shown(value)}",
    }
    return path, words.get(error.validator, lambda: f"does not fit {error.validator} {shown(wanted)}: {shown(value)}")()


def _explained_unknown(error: Any) -> tuple[list[str | int], str]:
    properties = error.schema.get("properties", {})
    known = sorted(set(properties) - RESERVED_ARGUMENTS)
    unknown = next(name for name in error.instance if name not in properties)
    hint = _did_you_mean(unknown, known) or f" (known: {_listed(known)})"
    return [*error.absolute_path, unknown], f"is not an argument{hint}"


def _explained_choice(error: Any) -> tuple[list[str | int], str]:
    """An error among options: the one within the only option that the value has the type of, if there is one."""
    options, inner = error.validator_value, error.context or []
    wrong_type = {e.schema_path[0] for e in inner if e.validator == "type" and not e.path}
    possible = [e for e in inner if e.schema_path[0] not in wrong_type]
    if len(wrong_type) == len(options) - 1 and possible:
        return _explained(possible[0])
    kinds = [option["type"] for option in options if isinstance(option.get("type"), str)]
    if len(wrong_type) == len(options) == len(kinds):
        return list(error.absolute_path), f"must be {_kinds(kinds)}, not {shown(error.instance)}"
    return list(error.absolute_path), f"fits none of {len(options)} alternatives: {shown(error.instance)}"


def _kinds(kinds: Iterable[str]) -> str:
    """JSON types in words: `an integer or null`."""
    return " or ".join(kind if kind == "null" else f"{'an' if kind[0] in 'aio' else 'a'} {kind}" for kind in kinds)


def _listed(values: Iterable[Any]) -> str:
    values = list(values)
    more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    return ", ".join(map(shown, values[:_LISTED])) + more


def _not_among(value: Any, allowed: Iterable[Any]) -> str:
    return f"must be one of {_listed(allowed)}, not {shown(value)}{_did_you_mean(value, allowed)}"


def _did_you_mean(value: Any, known: Iterable[Any]) -> str:
    close = difflib.get_close_matches(str(value), [str(k) for k in known], n=1) if isinstance(value, str) else []
    return f"; did you mean {shown(close[0])}?" if close else ""
