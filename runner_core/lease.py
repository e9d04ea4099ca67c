"""The lease: who drives a job, and whether that process still lives.

A lease is a locked file that names its holder. The kernel gives the lock back when the holder dies, however it dies, so
on one host the answer needs no clock. The launcher takes the lock and the runner inherits it: there is no moment
between them in which the job seems to be driven by nobody. From another host, where a file system may not pass locks
on, only a fresh heartbeat (the file's modification time) is an answer; an old one is none.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from runner_core.failures import Refused
from runner_core.processes import ProcessId, identify, is_alive

HEARTBEAT_SECONDS = 10.0
_FRESH_SECONDS = 6 * HEARTBEAT_SECONDS
_INHERITED = "PILOTHOUSE_LEASE_FD"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def lease_path(runners_dir: Path, job_id: int) -> Path:
    """Name the file that says which process drives a job."""
    return runners_dir / f"job_{job_id:07d}.lease"


def runner_log(runners_dir: Path, job_id: int) -> Path:
    """Name the file that takes what the runner process itself prints."""
    return runners_dir / f"job_{job_id:07d}.log"


class Holder(StrEnum):
    """What is known of the process that drives a job."""

    NONE = "none"  # there is no lease: nobody has taken the job on, or it has ended
    ALIVE = "alive"
    GONE = "gone"  # dead, by proof
    UNKNOWN = "unknown"  # on another host, and silent


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """The holder of a lease, and when it last gave a sign of life (seconds since the epoch)."""

    holder: Holder
    process: ProcessId | None = None
    last_sign: float | None = None


class Lease:
    """The right to drive one job; held until `release`, or until the process ends."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    @classmethod
    def acquire(cls, path: Path, *, patience: float = 1.0) -> Self:
        """Take the lease; raises `Refused` when another process holds it.

        Somebody who only looks holds the lock for an instant, hence the patience (seconds).
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + patience
        while True:
            fd = _open_locked(path)
            if fd is not None:
                lease = cls(path, fd)
                lease.name_holder(os.getpid())
                return lease
            if time.monotonic() > deadline:
                raise Refused(f"another process drives this job ({path.stem})", hint="leave it to that one")
            time.sleep(0.02)

    @classmethod
    def inherited_or_acquired(cls, path: Path) -> Self:
        """The lease that the launcher handed to this process, or else a new one; says who holds it."""
        fd = os.environ.pop(_INHERITED, None)
        if fd is None:
            lease = cls.acquire(path)
        else:
            os.set_inheritable(int(fd), False)
            lease = cls(path, int(fd))
            lease.name_holder(os.getpid())
        return lease

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to inherit this lease; its file descriptor must be passed on."""
        return {_INHERITED: str(self._fd)}

    @property
    def fd(self) -> int:
        """The file descriptor that carries the lock."""
        return self._fd

    def name_holder(self, pid: int) -> None:
        """Write down which process holds the lease."""
        process = identify(pid)
        data = json.dumps(process.to_json() if process else {}).encode()
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    async def beat(self) -> None:
        """Give signs of life until cancelled."""
        while True:
            os.utime(self._fd)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def pass_on(self) -> None:
        """Close this process's copy; the lease lives on with the process that inherited it."""
        os.close(self._fd)

    def abandon(self) -> None:
        """Give the lease up with the job unfinished: from now on its holder is gone."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)

    def release(self) -> None:
        """Give the lease back: the job has ended."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def _lock(fd: int, kind: int) -> bool:
    """Lock without waiting; a file system that has no locks says yes to everybody."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _open_locked(path: Path) -> int | None:
    """Open the lease file and lock it; `None` while somebody else has it.

    A new file gets its name only when it is locked: nobody ever sees a lease that is about to be taken as free.
    """
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
        fd = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600)
        _lock(fd, fcntl.LOCK_EX)
        try:
            os.link(beside, path)
        except FileExistsError:
            os.close(fd)
            return None
        finally:
            beside.unlink()
        return fd
    if _lock(fd, fcntl.LOCK_EX) and _is_file_at(fd, path):
        return fd
    os.close(fd)
    return None


def _is_file_at(fd: int, path: Path) -> bool:
    """Whether the path still names the open file; a lease that was released meanwhile does not count."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def look(path: Path, *, clock: Callable[[], float] = time.time) -> LeaseReport:
    """Tell who holds a lease, without taking it."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return LeaseReport(Holder.NONE)
    try:
        last_sign = os.fstat(fd).st_mtime
        process = _holder(fd)
        free = _lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)
    if not free:
        return LeaseReport(Holder.ALIVE, process, last_sign)
    if process is None or process.host == socket.gethostname():
        # The lock is free, which is proof where there are locks; the process itself is asked where there are none.
        alive = process is not None and is_alive(process)
        return LeaseReport(Holder.ALIVE if alive else Holder.GONE, process, last_sign)
    fresh = clock() - last_sign < _FRESH_SECONDS
    return LeaseReport(Holder.ALIVE if fresh else Holder.UNKNOWN, process, last_sign)


def _holder(fd: int) -> ProcessId | None:
    try:
        return ProcessId.from_json(json.loads(os.pread(fd, 4096, 0)))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
