"""Column types that keep the same values on every database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json
from sqlalchemy import DateTime, Dialect, String, Text, TypeDecorator

from runner_core.failures import BadInput


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC, also on databases that store no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """The time in UTC; a `ValueError` for a naive one, which could mean any zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"the store keeps aware times only, not {value!r}")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """The stored time, aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class StoredText(TypeDecorator[str]):
    """Text that comes back exactly as it was, or is refused."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """The text itself; `BadInput` for a NUL or half a surrogate pair, which PostgreSQL cannot hold."""
        if value is not None and value != storable(value):
            raise BadInput(f"{value[:80]!r} holds characters that a database cannot keep")
        return value


class LogText(TypeDecorator[str]):
    """Foreign text for people to read: what a database cannot hold is replaced by U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """The text with replacements."""
        return None if value is None else storable(value)


class JsonText(TypeDecorator[Any]):
    """JSON, kept as text; `None` is NULL.

    As text, because PostgreSQL's own JSON types refuse NaN and the infinities, which Python's JSON writes and
    tasks return.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> str | None:
        """The value as JSON; fast, since image lists are long."""
        if value is None:
            return None
        try:
            return to_json(value, inf_nan_mode="constants").decode()
        except PydanticSerializationError:  # half a surrogate pair, or nested very deep
            return json.dumps(value)

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        """What the text says."""
        if value is None:
            return None
        try:
            return from_json(value)
        except ValueError:
            return json.loads(value)

    def compare_values(self, x: Any, y: Any) -> bool:
        """Whether a column needs no update: only for the same object, since `1 == True` in Python alone."""
        return x is y


def storable(text: str) -> str:
    """The text with U+FFFD in place of NUL and of halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
