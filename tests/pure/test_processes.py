"""Processes: known by host, boot, pid and start time, and ended as whole sessions."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runner_core.processes import (
    ProcessId,
    boot_id,
    end_session,
    identify,
    is_alive,
    process_ids,
    session_lives,
    session_members,
)


@contextmanager
def waiting_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with its input."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield process


def identity_of(pid: int) -> ProcessId:
    process = identify(pid)
    assert process is not None
    return process


def test_a_process_is_known_by_host_boot_pid_and_start() -> None:
    with waiting_process() as process:
        found = identity_of(process.pid)
        assert (found.host, found.boot, found.pid) == (socket.gethostname(), boot_id(), process.pid)
        assert found.start >= identity_of(os.getpid()).start
        assert found == identity_of(process.pid)
        assert is_alive(found) is True
        assert process.pid in process_ids()


def test_a_process_that_ended_is_not_alive() -> None:
    with waiting_process() as process:
        found = identity_of(process.pid)
    assert identify(process.pid) is None
    assert is_alive(found) is False


def test_the_remains_of_a_process_are_no_process() -> None:
    with waiting_process() as process:
        found = identity_of(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process.pid in process_ids(), "nobody has reaped it yet"
        assert identify(process.pid) is None
        assert is_alive(found) is False


@pytest.mark.parametrize(
    ("change", "alive"),
    [({"start": 1}, False), ({"boot": "an earlier boot"}, False), ({"host": "another-host"}, None), ({}, True)],
    ids=["recycled pid", "earlier boot", "another host", "itself"],
)
def test_a_process_with_the_same_pid_is_not_mistaken_for_another(change: dict[str, object], alive: bool | None) -> None:
    wanted = dataclasses.replace(identity_of(os.getpid()), **change)  # type: ignore[arg-type]
    assert is_alive(wanted) is alive


@pytest.mark.parametrize("name", [") Z 1 1 1", "a b", "((", ")", "\n) X"])
def test_the_name_that_a_process_gives_itself_does_not_matter(name: str) -> None:
    script = "import sys; open('/proc/self/comm', 'w').write(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert identity_of(process.pid).start >= identity_of(os.getpid()).start
        assert session_members(process.pid) == [process.pid]


def test_an_identity_comes_back_from_json() -> None:
    found = identity_of(os.getpid())
    assert ProcessId.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("document", [{}, {"host": "x", "boot": "y", "pid": 1}])
def test_an_identity_that_lacks_a_part_is_a_key_error(document: dict[str, object]) -> None:
    with pytest.raises(KeyError):
        ProcessId.from_json(document)


FAMILY = """
import os, signal, subprocess, sys
def sleeper(**options):
    return subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options).pid
pids = [
    os.getpid(),
    sleeper(),
    sleeper(process_group=0),
    sleeper(preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in (1, 2, 15)]),
    int(subprocess.check_output(["sh", "-c", "sleep 600 >/dev/null & echo $!"])),
]
print(*pids, flush=True)
sys.stdin.read()
"""


@contextmanager
def family() -> Iterator[tuple[subprocess.Popen[str], set[int]]]:
    """A session: a leader, children in two process groups, one that ignores signals, and an orphan."""
    command = [sys.executable, "-c", FAMILY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        pids = {int(word) for word in leader.stdout.readline().split()}
        try:
            yield leader, pids
        finally:
            end_session(leader.pid)


def test_a_session_is_all_that_its_leader_started_in_whatever_process_group() -> None:
    with family() as (leader, pids):
        assert len(pids) == 5
        assert set(session_members(leader.pid)) == pids
        assert os.getpid() not in pids


def test_a_session_is_ended_as_a_whole() -> None:
    with family() as (leader, pids):
        end_session(leader.pid)
        assert session_members(leader.pid) == []
        assert [pid for pid in pids if identify(pid) is not None] == []
        assert leader.wait() == -signal.SIGKILL


def test_what_a_dead_leader_left_is_still_its_session_and_can_be_ended() -> None:
    with family() as (leader, pids):
        known = identity_of(leader.pid)
        leader.kill()
        leader.wait()
        assert session_lives(known) is True
        assert set(session_members(leader.pid)) == pids - {leader.pid}
        end_session(leader.pid)
        assert session_lives(known) is False


@pytest.mark.parametrize(
    ("change", "lives"),
    [({"start": 1}, False), ({"boot": "an earlier boot"}, False), ({"host": "another-host"}, None), ({}, True)],
    ids=["recycled pid", "earlier boot", "another host", "itself"],
)
def test_a_session_of_another_process_with_the_same_pid_is_not_mistaken(
    change: dict[str, object], lives: bool | None
) -> None:
    with family() as (leader, _):
        wanted = dataclasses.replace(identity_of(leader.pid), **change)  # type: ignore[arg-type]
        assert session_lives(wanted) is lives


def test_ending_a_session_that_has_ended_returns_at_once() -> None:
    with family() as (leader, _):
        end_session(leader.pid)
        start = time.monotonic()
        end_session(leader.pid, patience=60)
        assert time.monotonic() - start < 30


def test_other_sessions_are_left_alone() -> None:
    with waiting_process() as other, family() as (leader, _):
        end_session(leader.pid)
        assert identify(other.pid) is not None
