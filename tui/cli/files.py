"""Files that are named on the command line: read in, or written out whole; `-` is stdin or stdout."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

import runner_core

_STANDARD = "-"


def read_input(name: str) -> bytes:
    """The bytes of a file, or of stdin for `-`; raises `NotFound` or `BadInput` in words."""
    try:
        return sys.stdin.buffer.read() if name == _STANDARD else Path(name).read_bytes()
    except FileNotFoundError:
        raise runner_core.NotFound(f"there is no file {name[:300]!r}") from None
    except (OSError, ValueError) as error:
        raise runner_core.BadInput(f"{name[:300]!r} cannot be read: {_reason(error)}") from None


def write_output(name: str, document: Any) -> None:
    """Write a document as JSON into a private file, whole or not at all, or to stdout for `-`.

    A file that is there is replaced. Raises `Refused` in words.
    """
    data = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if name == _STANDARD:
        click.echo(data, nl=False)
        return
    path = Path(name)
    try:
        if path.exists() and not path.is_file():  # a device such as /dev/null, or a pipe: nothing to replace
            path.write_text(data, encoding="utf-8")
        else:
            _replace(path.resolve(), data)
    except (OSError, ValueError) as error:
        raise runner_core.Refused(f"{name[:300]!r} cannot be written: {_reason(error)}") from None


def _replace(path: Path, data: str) -> None:
    fd, beside = tempfile.mkstemp(prefix=".exported-", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(beside).unlink()
        raise


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
