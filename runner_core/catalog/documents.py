"""JSON documents that come from outside: read within bounds, refused with the exact field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from runner_core.failures import BadInput, quoted

_Model = TypeVar("_Model", bound=BaseModel)

_SHOWN = 80  # characters of a foreign value in a message
_WORDS = {
    "missing": "is missing",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "string_type": "must be a string",
}
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")


def _printable(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


Name = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
"""What things are called: one line for people, as long as the store's columns."""


def checked_name(name: str, *, what: str) -> str:
    """Strip a name that a person gave; raise `BadInput` if it cannot be one."""
    try:
        stripped = _printable(name).strip()
    except ValueError as error:
        raise BadInput(f"the name of a {what} {error} (got {quoted(name, 80)})") from None
    if len(stripped) > 200:
        raise BadInput(f"the name of a {what} has at most 200 characters (got {len(stripped)})")
    return stripped


def parse_json(data: bytes, *, what: str, limit: int) -> Any:
    """Parse a document of at most `limit` bytes.

    Raises `BadInput` for text that is not UTF-8 or not JSON; NaN and the infinities are not. `what` names the document
    in the message.
    """
    if len(data) > limit:
        raise BadInput(f"{what} is too large: {len(data)} bytes, at most {limit} are read")
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise BadInput(f"{what} is not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise BadInput(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise BadInput(f"{what} is not valid JSON: {error}") from None


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(f"the number {literal[:30]} is too large")
    return number


def checked_document(model: type[_Model], document: Any, *, what: str) -> _Model:
    """Validate a parsed document; raise `BadInput` that names the first wrong field and what is wrong with it."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise BadInput(f"{what}: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first wrong field of a document, in words: `task_list[3].name: must be a string (got 5)`."""
    problem = error.errors(include_url=False)[0]
    path = field_path(problem["loc"])
    message = _WORDS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    if message[1:2].islower():
        message = message[0].lower() + message[1:]
    got = "" if problem["type"] in {"missing", "value_error"} else f" (got {shown(problem['input'])})"
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{path}: {message}{got}{more}" if path else f"{message}{got}{more}"


def shown(value: Any) -> str:
    """A foreign JSON value for a message: as JSON, on one line, bounded."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def field_path(parts: Sequence[str | int]) -> str:
    """The place of a field in a document: `task_list[3].args_parallel.channel`."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            path += f".{part}" if path else part
        else:
            path += f"[{quoted(part, 80)}]"
    return path
