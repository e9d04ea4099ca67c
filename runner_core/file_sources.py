"""Where a job's files are: a live folder, or its zip. Both answer the same questions under the same paths."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

from runner_core.archive import is_inside, open_regular, scan_folder
from runner_core.failures import NotFound, Refused
from runner_core.zip_members import CHUNK, Member, member_chunks, raw_path, read_index, why_unfit

_NEIGHBOURS = 100  # names before and after the place of a missing one that are compared with it
_DIGITS = re.compile("[0-9]+")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a job: its path, bytes, time of last change (UTC), and bytes in the zip if it is read from there."""

    path: str
    size: int
    modified: datetime | None
    packed: int | None = None


class FileSource(Protocol):
    """What is asked of a folder and of a zip alike.

    Paths that lead out raise `Refused`, those of no file `NotFound` with the nearest names.
    """

    def problems(self) -> list[str]:
        """What is wrong with it, one line each."""

    def entries(self) -> list[FileEntry]:
        """All files, in natural order: 2 before 10."""

    def entry(self, path: str) -> FileEntry:
        """One file."""

    def chunks(self, path: str, start: int) -> Iterator[bytes]:
        """The bytes of a file from `start` on, at most `CHUNK` at a time."""


class FolderSource:
    """The files of a live folder; it may change and go at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = os.path.realpath(folder)

    def problems(self) -> list[str]:
        """A live folder is what it is."""
        return []

    def entries(self) -> list[FileEntry]:
        """All files, in natural order; those that vanish meanwhile are left out."""
        found: list[FileEntry] = []
        for path, real in self._files().items():
            with contextlib.suppress(FileNotFoundError):
                found.append(_entry(path, os.lstat(real)))
        return in_natural_order(found)

    def entry(self, path: str) -> FileEntry:
        """One file, as it is now."""
        with self._opened(path) as file:
            return _entry(path, os.fstat(file.fileno()))

    def chunks(self, path: str, start: int) -> Iterator[bytes]:
        """The bytes of a file, up to where it ends when they are taken."""
        return _taken(path, self._opened(path), start)

    def _files(self) -> dict[str, str]:
        try:
            return scan_folder(self._folder).files
        except FileNotFoundError:
            raise NotFound(f"{self._folder} is gone") from None
        except OSError as error:
            raise Refused(f"{self._folder} cannot be listed: {error.strerror}") from None

    def _opened(self, path: str) -> BinaryIO:
        _check_fit(path)
        raw = raw_path(path)
        try:
            if raw is None:
                raise FileNotFoundError
            real = os.path.realpath(f"{self._root}/{raw}")
            if not is_inside(self._root, real):
                raise Refused(f"{path[:200]!r} leads out of the folder")
            return os.fdopen(open_regular(real), "rb", buffering=0)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeEncodeError):
            raise not_found(path, [entry.path for entry in self.entries()]) from None
        except OSError as error:
            raise _unreadable(path, error) from None


class ZipSource:
    """The files in a zip. Raises `OSError` when there is none."""

    def __init__(self, archive: Path) -> None:
        self._name = archive.name
        self._file = archive.open("rb")
        self._index = read_index(self._file)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def problems(self) -> list[str]:
        """A broken index, and the members that are refused."""
        damage = [f"{self._name} is damaged: {self._index.damage}"] if self._index.damage else []
        return damage + [f"{name[:200]!r} {reason}" for name, reason in self._index.refused.items()]

    def entries(self) -> list[FileEntry]:
        """All files that are fit to be read, in natural order."""
        return list(self._entries)

    @cached_property
    def _entries(self) -> list[FileEntry]:
        return in_natural_order([_entry_of_member(member) for member in self._index.members.values()])

    def entry(self, path: str) -> FileEntry:
        """One file, as the index describes it."""
        return _entry_of_member(self._member(path))

    def chunks(self, path: str, start: int) -> Iterator[bytes]:
        """The bytes of a file; what comes before `start` is unpacked and dropped."""
        return _from(start, member_chunks(self._file, self._member(path)))

    def _member(self, path: str) -> Member:
        if reason := self._index.refused.get(path):
            raise Refused(f"{path[:200]!r} {reason}")
        _check_fit(path)
        member = self._index.members.get(path)
        if member is None:
            raise not_found(path, [entry.path for entry in self._entries])
        return member


def in_natural_order(entries: list[FileEntry]) -> list[FileEntry]:
    """Sorted as people count, folder by folder."""
    return sorted(entries, key=lambda entry: _natural(entry.path))


def not_found(path: str, paths: Sequence[str]) -> NotFound:
    """The error for a path that is none of `paths` (in natural order); it names up to three that may be meant."""
    inside = [other for other in paths if other.startswith(f"{path.rstrip('/')}/")]
    last = path.rpartition("/")[2]
    same_name = [other for other in paths if other.rpartition("/")[2] == last]
    place = bisect(paths, _natural(path), key=_natural)
    around = paths[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS]
    near = [*inside, *same_name, *difflib.get_close_matches(path, around)]
    named = ", ".join(repr(other[:200]) for other in list(dict.fromkeys(near))[:3])
    return NotFound(f"there is no file {path[:200]!r}", hint=f"did you mean {named}?" if named else "")


def _check_fit(path: str) -> None:
    if reason := why_unfit(path):
        raise Refused(f"{path[:200]!r} {reason}")


def _natural(path: str) -> tuple[str, str]:
    """Numbers padded to one length, and the slash before all else; then the path itself, so that none are equal."""
    return _DIGITS.sub(lambda digits: digits[0].zfill(12), path).replace("/", "\0"), path


def _entry(path: str, state: os.stat_result) -> FileEntry:
    return FileEntry(path=path, size=state.st_size, modified=_utc(state.st_mtime))


def _entry_of_member(member: Member) -> FileEntry:
    return FileEntry(path=member.name, size=member.size, modified=member.modified, packed=member.packed)


def _utc(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError):
        return None


def _taken(path: str, file: BinaryIO, start: int) -> Iterator[bytes]:
    with file:
        try:
            file.seek(start)
            while chunk := file.read(CHUNK):
                yield chunk
        except OSError as error:
            raise _unreadable(path, error) from None


def _from(start: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if start < len(chunk):
            yield chunk[start:]
        start = max(0, start - len(chunk))


def _unreadable(path: str, error: OSError) -> Refused:
    return Refused(f"{path[:200]!r} cannot be read: {error.strerror}")
