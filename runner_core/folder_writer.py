"""Writes files below a folder of someone's choice: never through a link, never over a file, never half."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from runner_core.failures import Refused


class FolderWriter:
    """Writes below `folder`, which is made when it is missing. For use in a `with`. Files and folders are private.

    Raises `Refused` when the folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise Refused(f"{folder} cannot be used as a folder: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    @property
    def free(self) -> int:
        """Bytes that may still be written."""
        state = os.fstatvfs(self._fd)
        return state.f_bavail * state.f_frsize

    def holds(self, path: str) -> bool:
        """Whether something of that name is there already, be it a dangling link."""
        return os.path.lexists(self._folder / path)

    def write(self, path: str, chunks: Iterable[bytes], *, modified: datetime | None = None) -> None:
        """Write one file with the folders above it; when that fails, nothing of the file stays.

        `path` is relative and has no dotted parts. Raises `Refused` when something is in the way or the disk is full.
        """
        *folders, name = path.split("/")
        try:
            parent = self._entered(folders)
        except OSError as error:
            raise self._refusal(path, error) from None
        try:
            _write_new(parent, name, chunks, modified)
        except OSError as error:
            raise self._refusal(path, error) from None
        finally:
            os.close(parent)

    def _entered(self, folders: list[str]) -> int:
        """A descriptor of a folder below, made where it is missing. A link on the way raises `OSError`."""
        here = os.dup(self._fd)
        for folder in folders:
            above = here
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, 0o700, dir_fd=above)
                here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            finally:
                os.close(above)
        return here

    def _refusal(self, path: str, error: OSError) -> Refused:
        in_the_way = error.errno in {errno.EEXIST, errno.ELOOP, errno.ENOTDIR}
        return Refused(
            f"{path[:200]!r} was not written below {self._folder}: {error.strerror}",
            hint="something of that name is in the way; choose an empty folder" if in_the_way else "",
        )


def _write_new(folder: int, name: str, chunks: Iterable[bytes], modified: datetime | None) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            if modified:
                os.utime(fd, (modified.timestamp(), modified.timestamp()))
    except BaseException:
        os.unlink(name, dir_fd=folder)
        raise
