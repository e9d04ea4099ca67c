"""Becomes a command that ends when its starter ends: `python -I mortal.py STARTER COMMAND ...`, with the starter's pid.

Standard library only. What is installed or imported for a collection must not go on when the terminal is closed or the
collection is killed: the next one would work on the same folders.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # see prctl(2); it stays in force across exec


def main(starter: int, command: list[str]) -> None:
    """Ask the kernel for a SIGKILL at the starter's death, then become the command, or say why that cannot be."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != starter:  # it ended before that
        sys.exit("the starter is gone")
    try:
        os.execvp(command[0], command)  # noqa: S606 (never through a shell)
    except OSError as error:
        sys.exit(error.strerror)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
