"""When a warm process is used again, when another takes its place, and when a task cannot be kept warm at all."""

from __future__ import annotations

import pytest

COUNTING = """
    import sys
    import counter
    if __name__ == "__main__":
        print("imports:", counter.imported, "runs:", counter.run())
"""
COUNTER = """
    from pathlib import Path
    log = Path(__file__).with_name("imports")
    log.write_text(log.read_text() + "." if log.exists() else ".")
    imported, runs = len(log.read_text()), 0
    def run():
        global runs
        runs += 1
        return runs
"""


def test_the_modules_are_imported_once_for_many_units(bench):
    bench.script(COUNTER, "counter.py")
    report = bench.run(bench.script(COUNTING), 5, warm=50)
    assert [report.log(unit) for unit in range(5)] == [f"imports: 1 runs: {unit + 1}\n" for unit in range(5)]
    assert len(set(report.pids)) == 1
    assert report.notes == ""


def test_a_warm_process_is_replaced_after_a_number_of_units(bench):
    report = bench.run(bench.guarded("pass"), 5, warm=2)
    first, second, third, fourth, fifth = report.pids
    assert first == second != third == fourth != fifth


def test_there_are_at_most_as_many_warm_processes_as_units_at_a_time(bench):
    report = bench.run(bench.guarded("pass"), 20, warm=50, parallel=3)
    assert len(set(report.pids)) <= 3
    assert report.returncodes == [0] * 20


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(source, id=name)
        for name, source in {
            "a failure": "sys.exit(1)",
            "a signal": "os.kill(os.getpid(), 9)",
            "a thread": "threading.Thread(target=time.sleep, args=(0.4,)).start()",
            "a thread of its own that would be cut off": "threading.Thread(target=wait, daemon=True).start()",
            "a child": "os.posix_spawn('/bin/sleep', ['sleep', '600'], {})",
            "an exit handler": "atexit.register(print)",
            "an open file": "import keep; keep.file = open(__file__)",
            "a replaced stream": "sys.stderr = sys.stdout",
        }.items()
    ],
)
def test_a_warm_process_is_replaced_after(bench, source):
    bench.script("", "keep.py")
    top = "import atexit, os, sys, threading, time\ndef wait():\n    time.sleep(600)\n"
    body = f"if len(open(sys.argv[2]).read()) > 2:\n    {source}"
    report = bench.run(bench.guarded(body, top=top), [{}, {"leave": "something"}, {}, {}], warm=50)
    first, second, third, fourth = report.pids
    assert first == second != third == fourth


def test_threads_that_a_library_keeps_do_not_end_a_warm_process(bench):
    library = """
        import asyncio, atexit, threading
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(2)
        loop = asyncio.new_event_loop()
        def work():
            if not loop.is_running():
                threading.Thread(target=loop.run_forever, daemon=True).start()
                atexit.register(print, "the end of the process")
            return asyncio.run_coroutine_threadsafe(asyncio.sleep(0, pool.submit(abs, -1).result()), loop).result()
    """
    bench.script(library, "library.py")
    report = bench.run(bench.guarded("print(library.work())", top="import library\n"), 4, warm=50)
    assert [report.log(unit) for unit in range(4)] == ["1\n"] * 4
    assert len(set(report.pids)) == 1


COLD = {
    "no main guard": ("print('seen')", "has no `if __name__"),
    "modules that cannot be imported": ("import nowhere\n", "ModuleNotFoundError: No module named 'nowhere'"),
    "an exit while its modules load": (
        "import sys\nif __name__ != '__main__':\n    sys.exit('not like this')\n",
        "SystemExit: not like this",
    ),
    "a crash while its modules load": (
        "import os\nif __name__ != '__main__':\n    os.kill(os.getpid(), 11)\n",
        "loading its modules ended with returncode=-11",
    ),
    "a hang while its modules load": (
        "import time\nif __name__ != '__main__':\n    time.sleep(600)\n",
        "loading its modules took longer than 1 s",
    ),
    "broken syntax": ("a b\n", "SyntaxError"),
    "a neighbour with a standard module's name": ("import stat; print(stat.WHO)\n", "stat beside the script"),
}


@pytest.mark.parametrize(("source", "why"), COLD.values(), ids=COLD)
def test_a_task_that_cannot_be_kept_warm_runs_plainly(bench, source, why):
    if "WHO" in source:
        bench.script("WHO = 'the neighbour'\n", "stat.py")
    script = bench.script(source + ("" if "seen" in source else "\nif __name__ == '__main__':\n    print('seen')\n"))
    bare = bench.run_bare(script)
    report = bench.run(script, 4, warm=50, parallel=2, preload=1.0 if "600" in source else 300.0)
    for unit in range(4):
        assert (report.returncodes[unit], report.log(unit)) == bare[:2]
    assert report.notes.count("the task cannot be kept warm, so every unit starts plainly: ") == 1
    assert why in report.notes
    assert len({line["pid"] for line in report.of_kind("start") if line["unit"] > 1}) == 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["/bin/echo", "hello"], "not run by a Python interpreter"),
        (["python3", "-c", "print('hello')"], "not one Python script"),
        (["python3", "/nowhere.py"], "not one Python script"),
    ],
)
def test_a_command_that_is_not_one_python_script_runs_plainly(bench, words, why):
    report = bench.run(words, 2, warm=50)
    assert why in report.notes
    assert report.returncodes[0] == report.returncodes[1] == (2 if "/nowhere.py" in words else 0)


def test_the_cpu_time_of_a_unit_is_its_own(bench):
    body = "while args[0] == '0' and time.process_time() < 0.3:\n    pass"
    top = "import sys, time\nargs = [word[-11:-10] for word in sys.argv[2:3]]\n"
    report = bench.run(bench.guarded(body, top=top), 3, warm=50)
    assert len(set(report.pids)) == 1
    assert report.ends[0]["cpu"] >= 0.25
    assert report.ends[1]["cpu"] < 0.2
    assert report.ends[1]["memory"] > 1_000_000
