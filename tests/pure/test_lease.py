"""The lease: one process drives a job, and whether it still lives is answered without a clock."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import pytest

from runner_core.failures import Refused
from runner_core.lease import Holder, Lease, look
from runner_core.processes import ProcessId, identify

HOLD = """
import os, sys
from pathlib import Path
from runner_core.lease import Lease
lease = Lease.inherited_or_acquired(Path(sys.argv[1]))
print(os.getpid(), flush=True)
"""
UNTIL_TOLD = "sys.stdin.read()\n"
LAUNCH = """
import os, subprocess, sys
from pathlib import Path
from runner_core.lease import Lease
lease = Lease.acquire(Path(sys.argv[1]))
runner = subprocess.Popen(
    [sys.executable, "-c", sys.argv[2], sys.argv[1]],
    env={**os.environ, **lease.environment()},
    pass_fds=[lease.fd],
    start_new_session=True,
)
lease.name_holder(runner.pid)
lease.pass_on()
"""
WITH_A_CHILD = """
import subprocess
child = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, close_fds=False)
print(child.pid, flush=True)
"""


@contextmanager
def holder_of(path: Path, *, more: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease until its input ends; it has printed its pid."""
    command = [sys.executable, "-c", HOLD + more + UNTIL_TOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        yield process


def wait_for_end(pidfd: int) -> None:
    assert select.select([pidfd], [], [], 60)[0], "the process did not end"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runners" / "job_0000001.lease"


def test_without_a_lease_there_is_no_holder_and_looking_makes_none(path: Path) -> None:
    assert look(path).holder is Holder.NONE
    assert not path.exists()


def test_the_holder_of_a_lease_is_alive_and_named(path: Path) -> None:
    lease = Lease.acquire(path)
    report = look(path)
    assert report.holder is Holder.ALIVE
    assert report.process == identify(os.getpid())
    assert report.last_sign == path.stat().st_mtime
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    lease.release()


def test_a_lease_that_is_given_back_leaves_nothing(path: Path) -> None:
    Lease.acquire(path).release()
    assert look(path).holder is Holder.NONE
    assert list(path.parent.iterdir()) == []


def test_a_lease_that_is_abandoned_says_that_its_holder_is_gone(path: Path) -> None:
    Lease.acquire(path).abandon()
    assert look(path).holder is Holder.GONE


def test_a_lease_of_another_process_is_refused(path: Path) -> None:
    with holder_of(path) as process:
        with pytest.raises(Refused, match="another process drives this job"):
            Lease.acquire(path, patience=0)
        report = look(path)
        assert report.process is not None
        assert (report.holder, report.process.pid) == (Holder.ALIVE, process.pid)


def test_a_holder_that_is_killed_is_gone_at_once(path: Path) -> None:
    with holder_of(path) as process:
        process.kill()
        process.wait()
        report = look(path)
    assert report.holder is Holder.GONE
    assert report.process is not None
    assert report.process.pid == process.pid
    assert report.last_sign is not None


def test_a_killed_holder_is_gone_even_before_anybody_has_reaped_it(path: Path) -> None:
    with holder_of(path) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert look(path).holder is Holder.GONE


def test_the_lease_of_a_holder_that_is_gone_can_be_taken(path: Path) -> None:
    with holder_of(path) as process:
        process.kill()
    lease = Lease.acquire(path, patience=0)
    report = look(path)
    assert (report.holder, report.process) == (Holder.ALIVE, identify(os.getpid()))
    lease.release()


@pytest.mark.parametrize("now", [0.0, 1e12])
def test_on_one_host_the_clock_does_not_matter(path: Path, now: float) -> None:
    with holder_of(path) as process:
        for sign_of_life in (0, 2**32):
            os.utime(path, (sign_of_life, sign_of_life))
            assert look(path, clock=lambda: now).holder is Holder.ALIVE
        process.kill()
        process.wait()
        for sign_of_life in (0, 2**32):
            os.utime(path, (sign_of_life, sign_of_life))
            assert look(path, clock=lambda: now).holder is Holder.GONE


def test_the_lease_passes_from_launcher_to_runner_and_survives_the_launcher(path: Path) -> None:
    command = [sys.executable, "-c", LAUNCH, str(path), HOLD + UNTIL_TOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        runner = int(launcher.stdout.readline())
        assert launcher.wait() == 0
        report = look(path)
        assert report.process is not None
        assert (report.holder, report.process.pid) == (Holder.ALIVE, runner)
        with pytest.raises(Refused):
            Lease.acquire(path, patience=0)

        pidfd = os.pidfd_open(runner)
        os.kill(runner, signal.SIGKILL)
        wait_for_end(pidfd)
        os.close(pidfd)
        assert look(path).holder is Holder.GONE


def test_the_lease_is_held_in_the_moment_between_launcher_and_runner(path: Path) -> None:
    """The launcher has let go, and the runner has not begun to run any code of ours."""
    lease = Lease.acquire(path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lease.fd]) as runner:
        lease.name_holder(runner.pid)
        lease.pass_on()
        report = look(path)
        assert report.process is not None
        assert (report.holder, report.process.pid) == (Holder.ALIVE, runner.pid)


def test_children_of_the_runner_do_not_keep_its_lease(path: Path) -> None:
    command = [sys.executable, "-c", LAUNCH, str(path), HOLD + WITH_A_CHILD + UNTIL_TOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        runner, child = (int(launcher.stdout.readline()) for _ in range(2))
        pidfd = os.pidfd_open(runner)
        os.kill(runner, signal.SIGKILL)
        wait_for_end(pidfd)
        os.close(pidfd)
        try:
            assert identify(child) is not None
            assert look(path).holder is Holder.GONE
        finally:
            os.kill(child, signal.SIGKILL)


def test_looking_never_disturbs_the_holder_nor_who_wants_to_be(path: Path) -> None:
    stop = Event()

    def look_on() -> int:
        looks = 0
        while not stop.is_set():
            look(path)
            looks += 1
        return looks

    with ThreadPoolExecutor(2) as pool:
        lookers = [pool.submit(look_on) for _ in range(2)]
        try:
            for _ in range(50):
                lease = Lease.acquire(path, patience=60)
                assert look(path).holder is Holder.ALIVE
                lease.abandon()
                Lease.acquire(path, patience=60).release()
        finally:
            stop.set()
        assert all(looker.result() > 0 for looker in lookers)


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_many_who_want_the_lease_one_gets_it(path: Path, left_behind: bool) -> None:
    for _ in range(20):
        if left_behind:
            Lease.acquire(path).abandon()

        def wanted(_: int) -> Lease | None:
            try:
                return Lease.acquire(path, patience=0)
            except Refused:
                return None

        with ThreadPoolExecutor(8) as pool:
            leases = [lease for lease in pool.map(wanted, range(8)) if lease is not None]
        assert len(leases) == 1
        assert look(path).holder is Holder.ALIVE
        leases[0].release()


def test_a_lease_has_one_holder_at_a_time_though_it_is_given_back_and_taken_at_once(path: Path) -> None:
    holders: list[int] = []
    seen: list[list[int]] = []

    def take() -> Lease:
        while True:
            with suppress(Refused):
                return Lease.acquire(path, patience=0)

    def take_turns(me: int) -> None:
        for _ in range(40):
            lease = take()
            holders.append(me)
            os.sched_yield()
            seen.append(list(holders))
            holders.remove(me)
            lease.release()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(take_turns, range(4))) == [None] * 4
    assert {len(together) for together in seen} == {1}


def test_somebody_else_who_looks_is_not_taken_for_the_holder(path: Path) -> None:
    Lease.acquire(path).abandon()
    with path.open("rb") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        assert look(path).holder is Holder.GONE


def write_foreign_lease(path: Path, *, sign_of_life: float) -> ProcessId:
    process = ProcessId("another-host", "another-boot", os.getpid(), 1)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(process.to_json()))
    os.utime(path, (sign_of_life, sign_of_life))
    return process


@pytest.mark.parametrize(
    ("age", "holder"),
    [(0, Holder.ALIVE), (30, Holder.ALIVE), (61, Holder.UNKNOWN), (10**8, Holder.UNKNOWN), (-5, Holder.ALIVE)],
)
def test_on_another_host_a_fresh_heartbeat_is_life_and_an_old_one_is_no_answer(
    path: Path, age: float, holder: Holder
) -> None:
    process = write_foreign_lease(path, sign_of_life=10**9)
    report = look(path, clock=lambda: 10**9 + age)
    assert (report.holder, report.process, report.last_sign) == (holder, process, 10**9)


@pytest.mark.parametrize("age", [-(10**9), -3600, 0, 3600, 10**9])
def test_a_holder_on_another_host_is_never_gone_whatever_the_clocks_say(path: Path, age: float) -> None:
    write_foreign_lease(path, sign_of_life=2 * 10**9)
    assert look(path, clock=lambda: 2 * 10**9 + age).holder is not Holder.GONE


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b"\0" * 4096, b'{"host": "x"}'])
def test_a_lease_that_names_nobody_and_is_not_held_is_of_one_who_is_gone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    report = look(path)
    assert (report.holder, report.process) == (Holder.GONE, None)


def test_a_lease_of_a_process_whose_pid_was_used_again_is_of_one_who_is_gone(path: Path) -> None:
    me = identify(os.getpid())
    assert me is not None
    path.parent.mkdir()
    path.write_text(json.dumps({**me.to_json(), "start": me.start - 1}))
    assert me.host == socket.gethostname()
    assert look(path).holder is Holder.GONE


async def test_a_beat_is_a_sign_of_life(path: Path) -> None:
    lease = Lease.acquire(path)
    os.utime(path, (0, 0))
    beat = asyncio.create_task(lease.beat())
    await asyncio.sleep(0)
    assert look(path).last_sign != 0
    beat.cancel()
    lease.release()
