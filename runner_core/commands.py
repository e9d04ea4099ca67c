"""A task's command: the words that are run, and what is wrong with one that cannot be."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from runner_core.failures import quoted

FORBIDDEN_CHARACTERS = frozenset("`#$&*()\\|[]{};<>?!")
"""Characters that mean something to a shell; commands from outside may not hold them (P1)."""


def command_words(command: str) -> tuple[str, ...]:
    """Split a command into the words that are run; no shell ever reads them.

    Forbidden characters may stand in the path of something that exists: a folder of ours may be named so. Raises
    `ValueError` that says why the command cannot be run on this machine.
    """
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise ValueError(f"the command {quoted(command)} cannot be split into words: {error}") from None
    if not words:
        raise ValueError("the task has no command")
    if any(FORBIDDEN_CHARACTERS & set(word) and not _exists(word) for word in words):
        raise ValueError(f"the command {quoted(command)} holds a character that is not allowed")
    if shutil.which(words[0]) is None:
        raise ValueError(f"the command {quoted(words[0])} was not found; was its environment removed?")
    return words


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except OSError:  # too long for a path
        return False
