"""One view over the files of a job, whether its folder is live, zipped, or both are there (row O8).

A live folder wins; when it goes while it is looked at, the zip takes over. Paths are relative, with forward slashes,
and the same in both. Nothing is read outside the folder and nothing of a file is trusted: a path may not lead out,
by its parts or by a link, and what is read at a time is bounded. Text is handed on as it is: it goes through
`runner_core.text` before it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from runner_core.failures import BadInput, NotFound, PilothouseError, Refused
from runner_core.file_sources import FileEntry, FileSource, FolderSource, ZipSource
from runner_core.folder_writer import FolderWriter
from runner_core.text import decode
from runner_core.zip_members import ArchiveError

READ_LIMIT = 64 << 20
"""Bytes that `read` returns at most when no size is asked for."""
TAIL_LIMIT = 4 << 20
"""Bytes at the end of a file that `tail` looks at."""
LINE_LIMIT = 64 << 10
"""Bytes after which `search` takes a line in pieces."""
EXCERPT_LIMIT = 500
"""Characters of a matching line that `search` returns."""
UNPACKED_LIMIT = 1 << 30
"""Bytes that a zip may unpack to, however small it is, before `export` asks whether its sizes are to be trusted."""
RATIO_LIMIT = 200
"""How many times its own size a zip may unpack to above that; logs reach 5 to 20."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Match:
    """A line that was searched for: its file, its number from 1, and its text around the find."""

    path: str
    line_number: int
    line: str


class JobFiles:
    """The files of one job. Close it, or use it in a `with`; several threads may read at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._live = FolderSource(self._folder)
        self._zip: ZipSource | None = None

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Look at the job folder of that path, or at its zip beside. Raises `NotFound` when there is neither."""
        files = cls(folder)
        files._source()
        return files

    def close(self) -> None:
        """Let go of the zip."""
        if self._zip:
            self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def problems(self) -> list[str]:
        """What is wrong with the zip, one line each: a broken index, and the files that are refused."""
        return self._ask(lambda source: source.problems())

    def entries(self) -> list[FileEntry]:
        """All files that can be read, in natural order: 2 before 10."""
        return self._ask(lambda source: source.entries())

    def entry(self, path: str) -> FileEntry:
        """One file. Raises `NotFound` with the nearest paths, and `Refused` for a path that leads out of the folder."""
        return self._ask(lambda source: source.entry(path))

    def read(self, path: str, *, offset: int = 0, size: int | None = None) -> bytes:
        """Up to `size` bytes of a file from `offset` on; all of the rest without a size.

        Raises as `entry` does; also `Refused` when the rest is over `READ_LIMIT`, and `ArchiveError` when the zip is
        damaged there.
        """
        if offset < 0 or (size is not None and size < 0):
            raise BadInput(f"offset {offset} and size {size} of a read may not be negative")
        limit = READ_LIMIT + 1 if size is None else size
        found = bytearray()
        for chunk in self._chunks(path, offset):
            found += chunk
            if len(found) >= limit:
                break
        if size is None and len(found) >= limit:
            raise Refused(f"{path!r} is over {READ_LIMIT >> 20} MiB", hint="read it in parts, or export it")
        return bytes(found[:limit])

    def stream(self, path: str) -> Iterator[bytes]:
        """The bytes of a file in chunks. Raises as `read` does, for damage while the chunks are taken."""
        return self._chunks(path, 0)

    def tail(self, path: str, lines: int) -> list[str]:
        """The last lines of a file, without line ends; of a huge file, those within its last `TAIL_LIMIT` bytes."""
        start = max(0, self.entry(path).size - TAIL_LIMIT)
        data = self.read(path, offset=start, size=TAIL_LIMIT)
        if start:
            data = data.partition(b"\n")[2] or data
        return decode(data).removesuffix("\n").split("\n")[-lines:] if data and lines > 0 else []

    def search(self, pattern: str | re.Pattern[str], *, suffix: str = ".log") -> Iterator[Match]:
        """The lines in which a regular expression is found, in all files whose path ends in `suffix`.

        A line over `LINE_LIMIT` bytes is taken in pieces. Files that cannot be read do not end the search: they are
        named by an `ArchiveError` after the last match. Raises `BadInput` for a malformed expression.
        """
        try:
            wanted = re.compile(pattern)
        except re.error as error:
            raise BadInput(f"{pattern!r} is not a regular expression: {error}") from None
        return self._matches(wanted, suffix)

    def export(
        self,
        target: Path,
        *,
        paths: Iterable[str] | None = None,
        trust_size: bool = False,
        report: Callable[[int, int], None] | None = None,
    ) -> int:
        """Copy files, all or the chosen ones, into a folder that holds none of them yet; returns how many.

        `report` is given the files done and the files in all. Raises `Refused`, with nothing written, when a file is
        there already, the disk is too small, or the zip unpacks to implausibly much (`UNPACKED_LIMIT`, `RATIO_LIMIT`;
        not with `trust_size`); and as `read` does. A file that fails half-way is removed; those before it stay.
        """
        chosen = self.entries() if paths is None else [self.entry(path) for path in dict.fromkeys(paths)]
        if not trust_size:
            _check_plausible(chosen)
        with FolderWriter(target) as writer:
            if present := [entry.path for entry in chosen if writer.holds(entry.path)]:
                raise Refused(
                    f"{target} already holds {len(present)} of the files, such as {present[0]!r}",
                    hint="choose an empty folder",
                )
            total = sum(entry.size for entry in chosen)
            if total > writer.free:
                raise Refused(f"{target} has {writer.free:,} bytes free, and the files take {total:,}")
            for done, entry in enumerate(chosen, start=1):
                writer.write(entry.path, self.stream(entry.path), modified=entry.modified)
                if report:
                    report(done, len(chosen))
        return len(chosen)

    def _source(self) -> FileSource:
        try:
            if self._folder.is_dir():
                return self._live
            if self._zip is None:
                self._zip = ZipSource(self._folder.with_name(f"{self._folder.name}.zip"))
        except FileNotFoundError:
            raise NotFound(f"neither {self._folder} nor its zip is there") from None
        except OSError as error:
            raise Refused(f"the files of {self._folder.name} cannot be read: {error.strerror}") from None
        return self._zip

    def _ask(self, question: Callable[[FileSource], _Answer]) -> _Answer:
        """Ask the folder, and the zip when the folder went away before it could answer."""
        source = self._source()
        try:
            return question(source)
        except NotFound:
            if source is not self._live or self._folder.is_dir():
                raise
            return question(self._source())

    def _chunks(self, path: str, start: int) -> Iterator[bytes]:
        return self._ask(lambda source: source.chunks(path, start))

    def _matches(self, wanted: re.Pattern[str], suffix: str) -> Iterator[Match]:
        unread: list[str] = []
        for entry in self.entries():
            if not entry.path.endswith(suffix):
                continue
            try:
                for number, line in _numbered_lines(self.stream(entry.path)):
                    if found := wanted.search(line):
                        yield Match(entry.path, number, _excerpt(line, found.start()))
            except PilothouseError:
                unread.append(entry.path)
        if unread:
            raise ArchiveError(f"{len(unread)} files could not be searched, such as {unread[0]!r}")


def _numbered_lines(chunks: Iterator[bytes]) -> Iterator[tuple[int, str]]:
    """The lines with their numbers from 1; the pieces of a very long one share its number."""
    number = 1
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield number, decode(line)
            number += 1
        while len(rest) > LINE_LIMIT:
            yield number, decode(rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
    if rest:
        yield number, decode(rest)


def _excerpt(line: str, find: int) -> str:
    """The line if it is short, else the part around the find."""
    start = max(0, find - EXCERPT_LIMIT // 4) if len(line) > EXCERPT_LIMIT else 0
    return line[start : start + EXCERPT_LIMIT]


def _check_plausible(entries: list[FileEntry]) -> None:
    packed = sum(entry.packed for entry in entries if entry.packed is not None)
    unpacked = sum(entry.size for entry in entries if entry.packed is not None)
    if unpacked > UNPACKED_LIMIT and unpacked > packed * RATIO_LIMIT:
        raise Refused(
            f"{packed:,} bytes in the zip would become {unpacked:,}",
            hint="export fewer files, or say that the sizes are to be trusted",
        )
