"""Child processes that leave nothing behind, however this one ends; and those that answer a question."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from runner_core.catalog import mortal as mortal_script
from runner_core.text import safe_line

_ANSWER_BYTES = 1 << 20


def mortal(command: Sequence[str]) -> list[str]:
    """The command in a form that ends with this process, even when that is killed."""
    return [sys.executable, "-I", "-S", mortal_script.__file__, str(os.getpid()), *command]


def end_group(leader: int) -> None:
    """End what a process of ours started and left behind; its own session keeps others out of it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


class NoAnswer(Exception):
    """A script of ours said nothing, with what is known of the cause."""


def answer_of(command: Sequence[str], *, seconds: float) -> dict[str, Any]:
    """Run a command and read the JSON object on its last line; whatever it started ends with it.

    Output goes to a file, and the options of Python (`-I`) keep the caller's variables and folder out.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            mortal(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            returncode = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"no answer within {seconds:.0f} s") from None
        finally:
            end_group(process.pid)
            process.wait()
        output.seek(max(0, output.seek(0, os.SEEK_END) - _ANSWER_BYTES))
        lines = output.read().decode(errors="replace").splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        answer = None
    if not isinstance(answer, dict):
        raise NoAnswer(safe_line(lines[-1] if lines else "", 300) or f"it ended with {returncode}")
    return answer
