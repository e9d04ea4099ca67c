"""SIGTERM ends a batch at any moment: the units in flight get a term, a grace and a kill, and no new ones start."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

WAITING = """
import os, signal, subprocess, sys, time
from pathlib import Path
def ready(word=""):
    Path(sys.argv[4]).with_suffix(".ready").write_text(f"{os.getpid()} {word}\\n")
def wait():
    while True:
        time.sleep(600)
"""


def stop(worker) -> None:
    os.kill(worker.pid, signal.SIGTERM)


def ready(bench, unit: int = 0) -> list[int]:
    """The pids that a unit wrote when it was ready to be stopped."""
    path = bench.folder / f"unit{unit}.metadiff.ready"
    text = path.read_text() if path.exists() else ""
    return [int(word) for word in text.split()] if text.endswith("\n") else []


def test_what_is_in_flight_ends_and_nothing_new_starts(bench, warm, eventually):
    body = """
        if "false" in Path(sys.argv[2]).read_text():
            sys.exit()
        ready()
        wait()
    """
    units = [{"wait": False}, {"wait": True}, {"wait": True}]
    worker = bench.start(bench.plan(bench.guarded(body, top=WAITING), units, warm=warm))
    eventually(lambda: ready(bench, 1))
    stop(worker)
    report = bench.report(worker)
    assert {unit: end["returncode"] for unit, end in report.ends.items()} == {0: 0, 1: -signal.SIGTERM}
    assert (report.returncode, report.finish["reason"], report.finish["left"]) == (0, "stopped", [2])


def test_a_unit_may_use_its_grace_to_end_well(bench, warm, eventually):
    body = """
        def end(*_):
            Path(sys.argv[4]).write_text("{}")
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        ready()
        wait()
    """
    worker = bench.start(bench.plan(bench.guarded(body, top=WAITING), warm=warm))
    eventually(lambda: ready(bench))
    stop(worker)
    report = bench.report(worker)
    assert report.finish["reason"] == "stopped"
    assert (report.ends[0]["returncode"], report.ends[0]["output"]) == (0, "{}")


def test_a_unit_that_ignores_the_term_is_killed_after_the_grace(bench, warm, eventually):
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); wait()"
    worker = bench.start(bench.plan(bench.guarded(body, top=WAITING), warm=warm, grace=0.3))
    eventually(lambda: ready(bench))
    start = time.monotonic()
    stop(worker)
    stop(worker)
    report = bench.report(worker)
    assert report.ends[0]["returncode"] == -signal.SIGKILL
    assert time.monotonic() - start >= 0.3


def test_a_unit_that_stopped_itself_hears_the_term(bench, warm, eventually):
    body = "ready(); os.kill(os.getpid(), signal.SIGSTOP); wait()"
    worker = bench.start(bench.plan(bench.guarded(body, top=WAITING), warm=warm, grace=60.0))
    (pid,) = eventually(lambda: ready(bench))
    eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    stop(worker)
    assert bench.report(worker).ends[0]["returncode"] == -signal.SIGTERM


@pytest.mark.parametrize("escapes", [False, True])
def test_the_children_of_a_unit_end_with_it(bench, warm, eventually, running, escapes):
    body = f"""
        child = subprocess.Popen(["sleep", "600"], start_new_session={escapes})
        ready(child.pid)
        wait()
    """
    worker = bench.start(bench.plan(bench.guarded(body, top=WAITING), warm=warm))
    pids = eventually(lambda: ready(bench))
    stop(worker)
    report = bench.report(worker)
    assert report.finish["reason"] == "stopped"
    assert not any(running(pid) for pid in pids)


def test_a_worker_that_was_started_with_signals_blocked_can_be_stopped(bench, eventually):
    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])

    worker = bench.start(bench.plan(bench.guarded("ready(); wait()", top=WAITING)), preexec_fn=block)
    eventually(lambda: ready(bench))
    stop(worker)
    assert bench.report(worker).finish["reason"] == "stopped"


def test_a_stop_while_the_modules_load_counts(bench, eventually):
    script = bench.script(WAITING + "ready()\nwait()\nif __name__ == '__main__':\n    pass\n")
    body = script.read_text().replace("sys.argv[4]", repr(str(bench.folder / "unit0.metadiff.json")))
    script.write_text(body)
    worker = bench.start(bench.plan(script, 3, warm=50))
    eventually(lambda: ready(bench))
    stop(worker)
    report = bench.report(worker)
    assert (report.finish["reason"], report.finish["left"]) == ("stopped", [1, 2])
    assert report.returncodes == [-signal.SIGTERM]
    assert report.notes == ""


def test_a_stop_before_the_first_unit_counts(bench, warm, eventually):
    """The worker is held at its plan, a pipe, until the stop has been sent."""
    plan = bench.plan(bench.guarded("pass"), 3, warm=warm)
    os.mkfifo(bench.folder / "plan.json")
    worker = bench.start(plan)
    term = 1 << signal.SIGTERM - 1

    def catches_term() -> bool:
        status = Path(f"/proc/{worker.pid}/status").read_text()
        return bool(int(status.split("SigCgt:")[1].split()[0], 16) & term)

    eventually(catches_term)
    stop(worker)
    threading.Thread(target=(bench.folder / "plan.json").write_text, args=(json.dumps(plan),), daemon=True).start()
    report = bench.report(worker)
    assert [line["event"] for line in report.lines] == ["begin", "finish"]
    assert (report.finish["reason"], report.finish["left"]) == ("stopped", [0, 1, 2])


def test_a_stop_that_comes_too_late_changes_nothing(bench, warm):
    report = bench.run(bench.guarded("os.kill(os.getppid(), 0)", top="import os\n"), warm=warm)
    assert report.finish["reason"] == "complete"
