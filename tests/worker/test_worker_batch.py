"""A batch: its result file, how many units run at a time, and what becomes of the processes that units leave."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest


def test_the_result_file_tells_the_whole_story(bench, warm):
    before = time.time()
    script = bench.guarded("open(sys.argv[4], 'w').write('{\"filters\": {}}')", top="import sys\n")
    report = bench.run(script, 2, warm=warm)
    begin, *between, finish = report.lines
    assert begin.pop("time") >= before
    assert begin == {
        "event": "begin",
        "version": 1,
        "key": "job-1-0",
        "attempt": 1,
        "host": socket.gethostname(),
        "pid": begin["pid"],
    }
    assert [(line["event"], line["unit"]) for line in between] == [("start", 0), ("end", 0), ("start", 1), ("end", 1)]
    end = between[1]
    assert before <= end.pop("started") <= end.pop("ended") <= finish["time"]
    assert 0 < end.pop("cpu") < 30
    assert 1_000_000 < end.pop("memory") < 1_000_000_000
    assert end == {"event": "end", "unit": 0, "returncode": 0, "output": '{"filters": {}}', "problem": None}
    assert finish == {"event": "finish", "reason": "complete", "left": [], "time": finish["time"]}


def test_a_batch_without_units_is_complete(bench, warm):
    assert bench.run(bench.guarded("pass"), 0, warm=warm).finish["reason"] == "complete"


def test_units_run_side_by_side_up_to_the_bound(bench, warm):
    """Each unit waits until three have begun, which happens only if three run at a time; and never do four."""
    body = """
        here = Path.cwd() / "begun"
        here.mkdir(exist_ok=True)
        (here / str(os.getpid()) ).touch()
        (here / Path(sys.argv[2]).name).touch()
        while len(list(here.glob("unit*"))) < 3:
            time.sleep(0.001)
    """
    report = bench.run(
        bench.guarded(body, top="import os, sys, time\nfrom pathlib import Path\n"), 9, warm=warm, parallel=3
    )
    assert report.returncodes == [0] * 9
    in_flight = most = 0
    for line in report.lines:
        in_flight += {"start": 1, "end": -1}.get(line["event"], 0)
        most = max(most, in_flight)
    assert most == 3


def test_there_may_be_fewer_units_than_run_at_a_time(bench, warm):
    assert bench.run(bench.guarded("pass"), 2, warm=warm, parallel=64).returncodes == [0, 0]


def test_units_start_in_their_order(bench):
    report = bench.run(["/bin/true"], 40, parallel=4)
    assert [line["unit"] for line in report.of_kind("start")] == list(range(40))


def test_a_command_is_looked_for_in_the_tasks_own_path(bench):
    tool = bench.script("#!/bin/sh\necho found\n", "bin/tool")
    tool.chmod(0o755)
    report = bench.run(["tool"], environment={"PATH": f"{tool.parent}:/usr/bin:/bin"})
    assert report.log(0) == "found\n"


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (None, None, "No such file or directory"),
        ("#!/bin/sh\n", 0o644, "Permission denied"),
        ("no program at all\n", 0o755, "Exec format error"),
        ("#!/nowhere/sh\n", 0o755, "No such file or directory"),
    ],
)
def test_a_command_that_cannot_be_run_is_a_problem_of_each_unit(bench, content, mode, why):
    tool = bench.folder / "tool"
    if content is not None:
        tool.write_text(content)
        tool.chmod(mode)
    report = bench.run([str(tool)], 2)
    for end in report.ends.values():
        assert end["returncode"] is None
        assert end["problem"].startswith("the unit could not be started: ")
        assert why in end["problem"]
    assert report.of_kind("start") == []


def test_a_unit_gets_a_clean_process(bench, warm):
    """No input, default signals, no blocked ones and no foreign descriptors, whatever the worker itself has got."""

    def spoil() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    body = """
        status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
        ignored = int(status["SigIgn"], 16)
        print(int(status["SigBlk"], 16), [n for n in others if ignored >> n - 1 & 1], os.getpgrp() == os.getpid())
        print(sorted(map(os.readlink, fds())), flush=True)
        os.kill(os.getpid(), signal.SIGUSR2)
    """
    top = """
import os, signal
others = signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}  # which Python itself ignores
def fds():
    return ["/proc/self/fd/" + name for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)]
"""
    worker = bench.start(bench.plan(bench.guarded(body, top=top), warm=warm), preexec_fn=spoil)
    report = bench.report(worker)
    first, second = report.log(0).splitlines()
    assert first == "0 [] True"
    log = str(bench.folder / "unit0.log")
    opened = [name for name in ast.literal_eval(second) if not (warm and name.startswith("socket:"))]
    assert opened == sorted(["/dev/null", log, log])
    assert report.returncodes == [-signal.SIGUSR2]


LEAVES = """
    import os, subprocess, sys
    from pathlib import Path
    if __name__ == "__main__":
        code = "import os, sys, time; print(os.getpid(), flush=True); os.closerange(0, 3); time.sleep(600)"
        escapes = Path(sys.argv[2]).read_text().count("true") > 0
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=escapes)
        print(child.stdout.readline().decode(), end="")
        child.returncode = 0  # nobody waits for it
"""


def test_a_process_that_a_unit_leaves_ends_with_the_unit(bench, warm, running):
    report = bench.run(bench.script(LEAVES), 2, warm=warm)
    assert report.returncodes == [0, 0]
    assert [running(int(report.log(unit))) for unit in range(2)] == [False] * 2
    assert report.notes == "2 of 2 units left processes behind, the first was unit 0; they were ended"


def test_a_process_that_left_its_group_ends_with_the_batch(bench, warm, running):
    report = bench.run(bench.script(LEAVES), [{"escapes": True}] * 2, warm=warm)
    assert [running(int(report.log(unit))) for unit in range(2)] == [False] * 2
    assert report.notes == "2 processes had left the process groups of their units; they were ended"


def test_a_daemon_ends_with_the_batch(bench, warm, running):
    body = """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(3, 64)
                Path("pid").write_text(str(os.getpid()))
                time.sleep(600)
            os._exit(0)
        os.wait()
        while not Path("pid").exists() or not Path("pid").read_text():
            time.sleep(0.001)
    """
    report = bench.run(bench.guarded(body, top="import os, time\nfrom pathlib import Path\n"), warm=warm)
    assert not running(int((bench.folder / "pid").read_text()))
    assert report.returncodes == [0]
    assert "1 processes had left" in report.notes


def test_a_tree_of_processes_ends_with_the_batch(bench, warm, running):
    """A small bomb: every second process of it in a session of its own, none of them gives way to SIGTERM."""
    body = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for depth in range(6):
            if os.fork() == 0 and depth % 2:
                os.setsid() if os.getpgrp() != os.getpid() else None
            with open("pids", "a") as pids:
                pids.write("%d\\n" % os.getpid())
        if os.getpid() != first:
            time.sleep(600)
        while len(set(open("pids").read().split())) < 64:
            time.sleep(0.005)
        os._exit(0)
    """
    top = "import os, signal, time\nfirst = os.getpid()\n"
    report = bench.run(bench.guarded(body, top=top), warm=warm)
    pids = {int(pid) for pid in (bench.folder / "pids").read_text().split()}
    assert len(pids) == 64
    assert not any(running(pid) for pid in pids)
    assert report.returncodes == [0]


def test_children_that_nobody_waited_for_are_not_left_behind(bench, warm):
    body = "pid = os.posix_spawn('/bin/true', ['true'], {}); os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)"
    report = bench.run(bench.guarded(body, top="import os\n"), 2, warm=warm)
    assert report.returncodes == [0, 0]
    assert report.notes == ""


def test_a_process_that_ends_just_after_its_unit_is_left_in_peace(bench, warm):
    """As the resource tracker of multiprocessing does, which has to clear away shared memory."""
    body = "os.posix_spawn('/bin/sh', ['sh', '-c', 'sleep 0.05; echo done'], dict(os.environ))"
    report = bench.run(bench.guarded(body, top="import os\n"), warm=warm)
    assert report.log(0) == "done\n"
    assert report.notes == ""


def test_a_unit_cannot_end_the_worker_through_its_process_group(bench, warm):
    report = bench.run(bench.guarded("os.kill(0, signal.SIGKILL)", top="import os, signal\n"), 2, warm=warm)
    assert report.returncodes == [-9, -9]


def test_the_worker_dies_and_its_warm_process_with_it(bench, running, eventually):
    script = bench.guarded("print(os.getpid(), flush=True); time.sleep(600)", top="import os, time\n")
    worker = bench.start(bench.plan(script, warm=50))
    log = bench.folder / "unit0.log"
    pid = int(eventually(lambda: log.exists() and log.read_text()))
    assert running(pid)
    worker.kill()
    report = bench.report(worker)
    assert [line["event"] for line in report.lines] == ["begin", "start"]
    eventually(lambda: not running(pid))


def test_a_second_attempt_starts_clean_and_keeps_the_old_log(bench, warm):
    """Also after a worker that was killed in the middle of a line."""
    body = "print('seen', os.path.exists(sys.argv[4])); open(sys.argv[4], 'w').write('{}')"
    script = bench.guarded(body, top="import os, sys\n")
    bench.run(script, warm=warm)
    results = bench.folder / "results.jsonl"
    first = results.read_bytes()
    results.write_bytes(first + b'{"event":"end","uni')
    bench.run(script, warm=warm, attempt=2)
    bench.run(script, warm=warm, attempt=3)
    assert results.read_bytes().startswith(first + b'{"event":"begin"')
    events = [json.loads(line) for line in results.read_bytes().splitlines()]
    assert [event["attempt"] for event in events if event["event"] == "begin"] == [1, 2, 3]
    logs = sorted(path.name for path in bench.folder.glob("unit0.log*"))
    assert logs == ["unit0.log", "unit0.log.1", "unit0.log.2"]
    assert {(bench.folder / name).read_text() for name in logs} == {"seen False\n"}


def test_a_file_of_the_worker_is_its_owners_alone(bench, warm):
    def open_to_all() -> None:
        os.umask(0)

    body = "print(oct(os.umask(0))); open('made', 'w')"
    worker = bench.start(bench.plan(bench.guarded(body, top="import os\n"), warm=warm), preexec_fn=open_to_all)
    report = bench.report(worker)
    names = ["unit0.args.json", "unit0.log", "results.jsonl", *(["results.jsonl.warm.log"] if warm else [])]
    assert {name: oct((bench.folder / name).stat().st_mode & 0o777) for name in names} == dict.fromkeys(names, "0o600")
    assert report.log(0) == "0o0\n"
    assert (bench.folder / "made").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("name", [b"f\xc3\xbcr mich", b"odd \xff byte", b"new\nline", b"$(touch x);'\""])
def test_a_folder_may_be_called_anything(bench, warm, name):
    folder = Path(os.fsdecode(os.fsencode(bench.folder) + b"/" + name))
    folder.mkdir()
    script = bench.guarded("open(sys.argv[4], 'w').write(open(sys.argv[2]).read())", top="import sys\n")
    arguments = {"zarr_url": os.fsdecode(b"/data/\xff\xc3\xbc.zarr")}
    plan = bench.plan(script, [arguments], warm=warm, folder=str(folder))
    assert bench.start(plan).wait(timeout=60) == 0
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert json.loads(lines[2]["output"]) == arguments
