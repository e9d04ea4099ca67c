"""What databases complain of, told as one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    StatementError,
)

from runner_core.failures import BadInput, OutOfReach, PilothouseError
from runner_core.text import safe_line

# SQLite's names and SQLSTATE codes: the first group says that the place is wrong or forbidden, so trying again
# would not help; the second that a reading session tried to write; the third that a statement of ours is wrong; the
# last that the file cannot grow, or cannot be read or written.
_UNUSABLE = (
    "SQLITE_AUTH",
    "SQLITE_CANTOPEN",
    "SQLITE_CORRUPT",
    "SQLITE_NOTADB",
    "SQLITE_PERM",
    "SQLITE_READONLY",
    "42501",
)
_READ_ONLY = ("SQLITE_READONLY", "25006")
_OURS = ("SQLITE_ERROR",)
_DISK = ("SQLITE_FULL", "SQLITE_IOERR")

_WHERE = "PILOTHOUSE_DATABASE_URL, or else PILOTHOUSE_HOME, says where the store is"
_AGAIN = "nothing was changed; try again once it answers"
_MAKE_ROOM = "nothing was changed; make room, or see to the disk, and try again"


@contextmanager
def told_clearly(store: str, *, writes: bool) -> Iterator[None]:
    """Turn a database's errors into a `BadInput` or an `OutOfReach` about the store of that name.

    Broken constraints pass as they are, for the caller to explain, and so do defects of this program.
    """
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        code = code_of(error.orig)
        if code.startswith(_READ_ONLY) and not writes:
            raise RuntimeError("this session only reads; ask for session(write=True)") from error
        if code.startswith(_UNUSABLE):
            raise unusable(store, error.orig) from error
        if isinstance(error, (OperationalError, InterfaceError)) and not code.startswith(_OURS):
            raise out_of_reach(store, error.orig) from error
        raise
    except StatementError as error:
        if isinstance(error.orig, PilothouseError):  # refused by a column's type
            raise error.orig from None
        raise


def code_of(error: BaseException | None) -> str:
    """The database's own code for an error: a name of SQLite's, a SQLSTATE, or nothing."""
    return getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or ""


def unusable(store: str, error: BaseException | None) -> BadInput:
    """The store cannot be opened, and trying again would not help."""
    return BadInput(f"the store {store} cannot be used: {_in_short(error)}", hint=_WHERE)


def out_of_reach(store: str, error: BaseException | None) -> OutOfReach:
    """The store does not answer, or not now."""
    if code_of(error).startswith(_DISK):
        message = f"the disk that holds the store {store} is full or failing: {_in_short(error)}"
        return OutOfReach(message, hint=_MAKE_ROOM)
    return OutOfReach(f"the store {store} does not answer: {_in_short(error)}", hint=_AGAIN)


def dataset_is_busy(error: IntegrityError) -> bool:
    """Whether a job was refused because its dataset has a submitted one already."""
    return "submitted_dataset_id" in str(error.orig)


def _in_short(error: BaseException | None) -> str:
    """The first line of an error's text, bounded and safe to print."""
    return safe_line(str(error).strip().split("\n")[0], 300)
