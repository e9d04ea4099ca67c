"""The installer: uv, run to its end with its progress reported, and its failures in words for people."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from runner_core.catalog.child_process import end_group, mortal
from runner_core.failures import BadInput, NotFound, OutOfReach, PilothouseError, Refused, quoted
from runner_core.text import safe_line

Report = Callable[[str], None]
"""Takes one line of progress for people."""

_SHOWN = 600  # characters of uv's words in a message
_PYTHON_VERSION = re.compile(r"3(\.\d{1,3}){0,2}")
_PROGRESS = re.compile(r"\s*(Resolved|Downloading|Downloaded|Building|Built|Prepared|Installed)\b")
_UV_ERROR = re.compile(r"\s*(error:|×)")
_DECORATION = re.compile(r"\s*(error:|×|│)?\s*")
_CAUSE = re.compile(r"\s*(cause:|Caused by:|[╰├]─▶)\s*")
_EXCEPTION = re.compile(r"\s*[\w.]*(Error|Exception): ")
# These would send uv, or a build, to another environment than ours.
_ELSEWHERE = frozenset(
    [
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PYTHONPATH",
        "PYTHONHOME",
        "UV_SYSTEM_PYTHON",
        "UV_PYTHON",
        "UV_TARGET",
        "UV_PREFIX",
    ]
)


def require_python_version(python: str | None) -> None:
    """Raise `BadInput` unless it is `None` or a version such as `3.11`."""
    if python is not None and not _PYTHON_VERSION.fullmatch(python):
        raise BadInput(f"not a Python version: {quoted(python, 80)}", hint="give one such as 3.11")


def run_uv(arguments: Sequence[str], *, log: Path, report: Report, stdin: str = "") -> list[str]:
    """Run uv to its end, its lines reported and appended to the log; return them.

    Raises what went wrong in uv's last words: `NotFound` for packages and versions that do not exist, `OutOfReach`
    when an index does not answer, `Refused` otherwise.
    """
    from uv import find_uv_bin

    environment = {key: value for key, value in os.environ.items() if key not in _ELSEWHERE}
    process = subprocess.Popen(
        mortal([find_uv_bin(), "--no-progress", "--color", "never", *arguments]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=log.parent,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines: list[str] = []
    try:
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(stdin)
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
            file.write(f"$ uv {shlex.join(arguments)}\n")
            for line in process.stdout:
                file.write(line)
                lines.append(line.rstrip())
                if _PROGRESS.match(line):
                    report(safe_line(line.strip(), 300))
        returncode = process.wait()
    finally:
        end_group(process.pid)
        process.wait()
        process.stdout.close()
    if returncode != 0:
        raise _uv_failure(lines, log)
    return lines


_KINDS: tuple[tuple[str, type[PilothouseError], str], ...] = (
    ("was not found in the package registry", NotFound, "check the name of the package"),
    ("was not found in the provided package locations", NotFound, "check the name of the package"),
    ("there is no version of", NotFound, "check the version"),
    ("there are no versions of", NotFound, "check the version"),
    ("does not satisfy Python", Refused, "choose another Python with --python VERSION"),
    ("No interpreter found", Refused, "install that Python, or choose another one with --python VERSION"),
    ("No space left on device", Refused, "make room where the environments are kept"),
    ("error sending request", OutOfReach, "check the network, or the index that uv is set up with"),
    ("Failed to fetch", OutOfReach, "check the network, or the index that uv is set up with"),
    ("Network connectivity is disabled", OutOfReach, "uv is set to work offline"),
)


def _uv_failure(lines: Sequence[str], log: Path) -> PilothouseError:
    words = last_words(lines)
    if len(words) > _SHOWN:  # the cause of causes comes last
        words = f"{words[: _SHOWN // 3]} ... {words[-2 * _SHOWN // 3 :]}"
    message = f"{words} (full output: {log})"
    said = " ".join(lines)
    kind, hint = next(((kind, hint) for sign, kind, hint in _KINDS if sign in said), (Refused, ""))
    return kind(message, hint=hint)


def last_words(lines: Sequence[str]) -> str:
    """What uv's output says of the failure, on one line: its error with the causes, and a build's own exception."""
    starts = [index for index, line in enumerate(lines) if _UV_ERROR.match(line)]
    if not starts:
        return safe_line(" ".join(lines[-3:])) or "uv ended without a word"
    words = ""
    for line in lines[starts[-1] :]:
        if not line.strip() or line.lstrip().startswith("hint:"):
            break
        cause = _CAUSE.match(line)
        words += f": {line[cause.end() :]}" if cause else f" {_DECORATION.sub('', line, count=1)}"
    raised = [line for line in lines if _EXCEPTION.match(line)][-1:]
    return safe_line(" ".join(": ".join([words, *raised]).split()))
