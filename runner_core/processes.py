"""Processes of this machine: who one is, whether it still lives, and how to end all of a session.

A pid alone proves nothing, since it is used again: a process is known by host, boot, pid and start time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from runner_core.model import Json


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process, for good. `start` is in clock ticks since the boot."""

    host: str
    boot: str
    pid: int
    start: int

    def to_json(self) -> Json:
        """Write it for the journal or a lease."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Json) -> ProcessId:
        """Read what `to_json` wrote; raises `KeyError` for anything else."""
        return cls(document["host"], document["boot"], document["pid"], document["start"])


def boot_id() -> str:
    """Tell this boot of this kernel from all others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> ProcessId | None:
    """Give a process of this host its full name; `None` if there is none, or only its remains (a zombie)."""
    stat = _stat(pid)
    if stat is None or stat[0] in "ZX":
        return None
    return ProcessId(socket.gethostname(), boot_id(), pid, int(stat[19]))


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, from the state on; see proc(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def is_alive(process: ProcessId) -> bool | None:
    """Whether the process lives; `None` when it is another host's and nothing here can tell."""
    if process.host != socket.gethostname():
        return None
    return process.boot == boot_id() and identify(process.pid) == process


def process_ids() -> list[int]:
    """Pids of all processes of this machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names are enough


def session_members(session: int) -> list[int]:
    """Pids of the processes of a session, whatever their process group."""
    return [
        pid
        for pid in process_ids()
        if (stat := _stat(pid)) is not None and int(stat[3]) == session and stat[0] not in "ZX"
    ]


def session_lives(leader: ProcessId) -> bool | None:
    """Whether any process of a session lives, the leader or what it left; `None` when it is another host's."""
    if leader.host != socket.gethostname():
        return None
    now = identify(leader.pid)
    if leader.boot != boot_id() or (now is not None and now != leader):
        return False  # a pid is not used again while its session has members
    return bool(session_members(leader.pid))


def end_session(session: int, *, patience: float = 5.0) -> None:
    """Kill all processes of a session; returns when none is left, or after `patience` seconds."""
    deadline = time.monotonic() + patience
    while (pids := session_members(session)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
