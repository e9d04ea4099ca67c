"""Packs a job folder into one zip, and lets the folder go only when the zip is proven to hold it.

The order is what makes it safe (rows Z1 and Z2): write `<folder>_tmp.zip`, make it durable, read every byte back from
the disk, look at the folder once more, give the zip its name, and only then remove the folder, which disappears from
view in one step. Whatever fails on the way, the folder stays as it is.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from runner_core.failures import NotFound
from runner_core.job_folder import sync_folder
from runner_core.zip_members import CHUNK, ArchiveError, member_chunks, member_name, read_index

DEFLATE_LEVEL = 3
"""On task logs 108 MB/s and a fifth of the size; level 6 makes them 14 % smaller at 40 MB/s."""

# A member that is written as a stream takes its level from here, not from the zip; public since Python 3.13.
_LEVEL_OF_MEMBER = "compress_level" if sys.version_info >= (3, 13) else "_compresslevel"
_FIRST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_LAST_SECOND = 2**32  # in the year 2106; zips end a year later
_NAMED_AT_MOST = 3  # of the files that were left out, in the log

_KEPT = "the folder is kept; try again once nothing writes to it"

_logger = logging.getLogger(__name__)


def archive_folder(folder: Path, *, keep_folder: bool, report: Callable[[int, int], None] | None = None) -> Path:
    """Pack the files of a folder into `<folder>.zip`, replacing an older one, and return its path.

    Symbolic links to files inside the folder are stored as those files; other links, sockets, pipes and devices are
    left out, with a warning in the log. Nothing outside the folder is read. The folder goes when the zip is in
    place, unless `keep_folder`; called again after a crash, this finishes what was begun. `report` is given the steps
    done and the steps in all: two for each file, one when it is written and one when it has been read back.

    Raises `ArchiveError`, with the folder still there, when anything goes wrong or a file changes meanwhile, and
    `NotFound` when there is nothing to pack.
    """
    folder = folder.absolute()
    archive = folder.with_name(f"{folder.name}.zip")
    unproven = folder.with_name(f"{folder.name}_tmp.zip")
    try:
        if not folder.is_symlink() and folder.is_dir():
            _build(folder, unproven, report or _no_report)
            unproven.replace(archive)
            sync_folder(archive.parent)
        elif not archive.is_file():
            raise NotFound(f"there is no folder {folder}", hint="nothing was zipped")
    except OSError as error:
        raise ArchiveError(
            f"{folder.name} could not be zipped: {_in_words(error)}", hint=f"{folder} is kept"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unproven.unlink()
    if not keep_folder:
        _remove(folder, archive)
    return archive


@dataclass(frozen=True, slots=True)
class FolderScan:
    """The files below a folder, member name to path, in order; and the paths that are left out of a zip."""

    files: dict[str, str]
    left_out: list[str]


def scan_folder(folder: Path) -> FolderScan:
    """Find the files below a folder without following a link out of it. Raises `OSError`."""
    root = os.path.realpath(folder)
    files: dict[str, str] = {}
    left_out: list[str] = []
    pending = [""]
    while pending:
        within = pending.pop()
        with os.scandir(f"{root}/{within}") as found:
            for entry in found:
                path = within + entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                elif entry.is_file(follow_symlinks=False):
                    files[member_name(path)] = entry.path
                elif target := _linked_file(root, entry.path):
                    files[member_name(path)] = target
                else:
                    left_out.append(path)
    return FolderScan(files=dict(sorted(files.items())), left_out=sorted(left_out))


def is_inside(root: str, path: str) -> bool:
    """Whether a path is below a folder, by its parts; both are absolute and without links."""
    return path.startswith(f"{root.rstrip('/')}/")


def open_regular(path: str) -> int:
    """A descriptor to read a regular file by; never opens a link and never waits for a pipe. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "not a regular file", path)


class _Packed(NamedTuple):
    """What a file was when it was packed: bytes, their CRC, and when it had last changed (ns)."""

    size: int
    crc: int
    changed: int


def _build(folder: Path, unproven: Path, report: Callable[[int, int], None]) -> None:
    """Write a zip of the folder and prove it; on success it is durable, though not yet by its name."""
    scan = scan_folder(folder)
    if scan.left_out:
        named = ", ".join(repr(path[:200]) for path in scan.left_out[:_NAMED_AT_MOST])
        _logger.warning("%d links, pipes or the like are not zipped: %s", len(scan.left_out), named)
    unproven.unlink(missing_ok=True)
    with open(unproven, "x+b", opener=_private) as file:
        packed = _write(file, scan.files, report)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that reading asks the disk
        _read_back(file, packed, report)
    _check_unchanged(folder, packed)


def _write(file: BinaryIO, files: dict[str, str], report: Callable[[int, int], None]) -> dict[str, _Packed]:
    packed: dict[str, _Packed] = {}
    with zipfile.ZipFile(file, "w") as archive:
        for name, path in files.items():
            packed[name] = _pack(archive, name, path)
            report(len(packed), 2 * len(files))
    return packed


def _pack(archive: zipfile.ZipFile, name: str, path: str) -> _Packed:
    source = open_regular(path)
    try:
        before = os.fstat(source)
        info = zipfile.ZipInfo(name, _zip_time(before.st_mtime))
        info.compress_type = zipfile.ZIP_DEFLATED
        setattr(info, _LEVEL_OF_MEMBER, DEFLATE_LEVEL)
        info.external_attr = (stat.S_IFREG | before.st_mode & 0o777) << 16
        info.file_size = left = before.st_size
        with archive.open(info, "w") as member:
            while left and (chunk := os.read(source, min(left, CHUNK))):
                member.write(chunk)
                left -= len(chunk)
        after = os.fstat(source)
    finally:
        os.close(source)
    if left or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _changed([name])
    return _Packed(size=info.file_size, crc=info.CRC, changed=after.st_mtime_ns)


def _read_back(file: BinaryIO, packed: dict[str, _Packed], report: Callable[[int, int], None]) -> None:
    """Check that the zip, as the disk returns it, unpacks to exactly the bytes that were read from the folder."""
    index = read_index(file)
    found = {name: (member.size, member.crc) for name, member in index.members.items()}
    if index.damage or found != {name: (was.size, was.crc) for name, was in packed.items()}:
        raise ArchiveError("the disk does not return the zip as it was written", hint=_KEPT)
    for done, member in enumerate(index.members.values(), start=len(found) + 1):
        for _ in member_chunks(file, member):
            pass
        report(done, 2 * len(found))


def _check_unchanged(folder: Path, packed: dict[str, _Packed]) -> None:
    files = scan_folder(folder).files
    changed = list(files.keys() ^ packed.keys())
    for name in files.keys() & packed.keys():
        now = os.lstat(files[name])
        if (now.st_size, now.st_mtime_ns) != (packed[name].size, packed[name].changed):
            changed.append(name)
    if changed:
        raise _changed(changed)


def _remove(folder: Path, archive: Path) -> None:
    """Remove a folder that its zip holds; a reader sees all of it or nothing, also when this is interrupted."""
    leaving = folder.with_name(f"{folder.name}_removing")
    try:
        if leaving.exists():
            shutil.rmtree(leaving)
        if folder.exists():
            folder.rename(leaving)
            sync_folder(folder.parent)
            shutil.rmtree(leaving)
    except OSError as error:
        raise ArchiveError(
            f"the folder could not be removed: {_in_words(error)}", hint=f"{archive} is complete"
        ) from error


def _linked_file(root: str, link: str) -> str | None:
    target = os.path.realpath(link)
    return target if is_inside(root, target) and Path(target).is_file() else None


def _changed(names: list[str]) -> ArchiveError:
    named = ", ".join(repr(name[:200]) for name in sorted(names)[:_NAMED_AT_MOST])
    return ArchiveError(f"{len(names)} files changed while they were zipped: {named}", hint=_KEPT)


def _in_words(error: OSError) -> str:
    where = f": {str(error.filename)[-200:]!r}" if error.filename else ""
    return f"{error.strerror or error}{where}"


def _zip_time(seconds: float) -> tuple[int, int, int, int, int, int]:
    """A time of change as zips hold it: local, from 1980 on, and no later than fits."""
    year, month, day, hour, minute, second, *_ = time.localtime(min(max(seconds, 0), _LAST_SECOND))
    return max((year, month, day, hour, minute, second), _FIRST_ZIP_TIME)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _no_report(done: int, steps: int) -> None:
    """Nobody wants to know."""
