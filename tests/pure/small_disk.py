"""A real disk that is soon full: a small tmpfs, seen through the process that holds it."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MOUNT = "mount -t tmpfs -o size=64k,mode=0700 tmpfs /mnt && echo mounted && exec cat"


class SmallDisk:
    """A disk of 64 kB, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave not one block free."""
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink()


@contextmanager
def small_disk() -> Iterator[SmallDisk]:
    """Mount a small disk, in a mount namespace that ends with the process that holds it.

    Root makes such a namespace as it is; others need one of their own for users too.
    """
    alone = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *alone, "--mount", "sh", "-c", _MOUNT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mounted\n", "a test of a full disk needs the right to mount one"
        yield SmallDisk(Path(f"/proc/{holder.pid}/root/mnt"))
