"""A unit ends, prints and writes as the bare command does, in a process of its own as in a warm one.

Each script runs by itself first, then as the second unit of a warm process; some also as plain units, which are nothing
but the command with its output in a file.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

EXITS = {
    "the end of the script": "pass",
    "exit without a code": "sys.exit()",
    "exit with nothing": "sys.exit(None)",
    "exit with zero": "sys.exit(0)",
    "exit with a code": "sys.exit(3)",
    "exit with a negative code": "sys.exit(-1)",
    "exit with a code above a byte": "sys.exit(256)",
    "exit with words": "sys.exit('that is all')",
    "exit with True": "sys.exit(True)",
    "exit with a float": "sys.exit(0.0)",
    "exit at once": "print('never seen'); os._exit(0)",
    "exit at once with a code": "os._exit(7)",
    "abort": "os.abort()",
    "a segmentation fault": "os.kill(os.getpid(), signal.SIGSEGV)",
    "a termination": "os.kill(os.getpid(), signal.SIGTERM)",
    "a keyboard interrupt": "raise KeyboardInterrupt",
    "an exit handler that fails": "atexit.register(int, 'x')",
    "a thread that exits": "t = threading.Thread(target=sys.exit, args=(4,)); t.start(); t.join()",
    "a thread that fails": "t = threading.Thread(target=int, args=('x',), name='T'); t.start(); t.join()",
    "a full disk on stdout": "sys.stdout.flush(); os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('lost')",
}

FAILURES = {
    "an exception": "raise ValueError('no')",
    "a cause and a context": """
        def inner():
            try:
                {}["key"]
            except KeyError as error:
                raise RuntimeError("outer") from error
        try:
            inner()
        finally:
            int("x")
    """,
    "a group of exceptions": "raise ExceptionGroup('all', [ValueError('one'), TypeError('two')])",
    "a syntax error in an import": "Path('broken.py').write_text('a b'); sys.path.append('.'); import broken",
    "an error in code of the library": "json.loads('{')",
    "a hook of its own": "sys.excepthook = lambda kind, error, trace: print('hook', trace.tb_lineno); int('x')",
    "words that cannot be encoded": "print('\\udcff')",
}

PRINTS = {
    "stdout and stderr in turn": """
        print("one"); print("two", file=sys.stderr); print("three", flush=True)
        os.write(1, b"four\\n"); print("five")
    """,
    "words that end no line": "print('out'); print('err', end='', file=sys.stderr)",
    "a child's words between": "print('one', flush=True); os.system('echo two'); print('three')",
    "words of a C library": "import ctypes; ctypes.CDLL(None).puts(b'from C'); print('from Python')",
    "bytes that are no text": "os.write(1, bytes(range(256)))",
    "another stdout": "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='latin-1'); print('\\xe9')",
    "a detached stdout": "sys.stdout = io.TextIOWrapper(sys.stdout.detach()); print('one')",
    "a closed stdout": "print('one'); sys.stdout.close(); print('two', file=sys.stderr)",
    "closed descriptors": "print('one', flush=True); os.close(1); os.close(2)",
    "all descriptors closed": "print('one'); os.closerange(3, 256)",
    "a redirected descriptor": "os.dup2(os.open(os.devnull, os.O_WRONLY), 2); print('one'); int('x')",
    "an exit handler": "atexit.register(print, 'last'); print('first')",
    "an exit handler as decorator": "atexit.register(atexit.register(print), 'again'); print('first')",
    "a thread that outlives the script": """
        threading.Thread(target=lambda: (time.sleep(0.05), print("last"))).start(); print("first")
    """,
    "a timer": "threading.Timer(0.05, print, ['last']).start(); print('first')",
    "work left to a pool": """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(2)
        for number in range(4):
            pool.submit(lambda: (time.sleep(0.02), print("done")))
        print("first")
    """,
    "a fork that runs to the end": """
        print("before", flush=True)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            time.sleep(0.05)
            Path(sys.argv[4]).write_text("{}")
        print("both", flush=True)
    """,
    "a fork after all descriptors were closed": """
        os.closerange(3, 64)
        files = [open(sys.argv[2]) for _ in range(20)]
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        print(len({os.fstat(file.fileno()).st_ino for file in files}), flush=True)
    """,
    "a fork that fails": """
        child = os.fork()
        if child:
            print(os.waitpid(child, 0)[1])
        else:
            raise ValueError("in the child")
    """,
    "a child that is waited for at the end": """
        import multiprocessing
        last = lambda: (time.sleep(0.05), print("last"))
        multiprocessing.get_context("fork").Process(target=last).start()
        print("first", flush=True)
    """,
    "what is left of tidy objects": """
        class Tidy:
            def __del__(self):
                print("tidied", self.arguments)
        print("first"); tidy = Tidy(); tidy.me = tidy
        tidy.arguments = json.loads(Path(sys.argv[2]).read_text())
    """,
}

SURROUNDINGS = {
    "its main module": """
        import __main__
        print(__name__, __file__, __spec__, __package__, __doc__, __main__.__dict__ is globals())
    """,
    "its words": "print(len(sys.argv), sys.argv[0], sys.argv[1::2]); sys.argv.append('more'); del sys.argv[0]",
    "its path": "print(sys.path[0]); sys.path.insert(0, '/nowhere'); print(sys.path.count('/nowhere'))",
    "its input": "print(repr(sys.stdin.read()), os.readlink('/proc/self/fd/0'))",
    "its folder": "print(os.getcwd()); os.chdir('/')",
    "its environment": "print(os.environ.get('NEW')); os.environ['NEW'] = '1'; os.environ.pop('PATH')",
    "its mask for new files": "print(oct(os.umask(0o077)))",
    "its signals": """
        print([signal.getsignal(number) for number in sorted(signal.valid_signals())])
        print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        for number in (signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, lambda *_: None)
    """,
    "its descriptors": "print(sorted(int(name) for name in os.listdir('/proc/self/fd') if int(name) < 3))",
    "handlers of the root logger": """
        logging.basicConfig(level="INFO", format="%(message)s"); logging.info("seen")
        logging.getLogger().addHandler(logging.StreamHandler()); logging.info("seen twice")
    """,
    "handlers of a logger": """
        logger = logging.getLogger("mine"); logger.setLevel("DEBUG"); logger.propagate = False
        logger.addHandler(logging.StreamHandler(sys.stdout)); logger.debug("seen")
    """,
    "a log that is off": "logging.warning('seen'); logging.disable(); logging.warning('unseen')",
    "a log that waits": """
        import logging.handlers
        handler = logging.handlers.MemoryHandler(100, target=logging.StreamHandler(sys.stdout))
        logging.getLogger().addHandler(handler); logging.warning("kept for later")
    """,
    "warnings once for each place": """
        import beside
        for number in range(2):
            beside.warn("take care", UserWarning)
            beside.warn("grown old", DeprecationWarning)
    """,
    "a hook for exceptions": """
        if here["number"] == 0:
            sys.excepthook = threading.excepthook = lambda *_: print("hooked")
        else:
            int("x")
    """,
    "a warning of the compiler": "print('seen' is 'seen')",
    "warnings that are off": "warnings.warn('seen'); warnings.simplefilter('ignore'); warnings.warn('unseen')",
    "warnings that are errors": "warnings.warn('seen'); warnings.simplefilter('error'); warnings.warn('raised')",
    "warnings in the log": "warnings.warn('seen'); logging.captureWarnings(True); warnings.warn('logged')",
    "an alarm that is left": "signal.setitimer(signal.ITIMER_REAL, 0.02) if here['number'] == 0 else time.sleep(0.05)",
    "garbage that is not collected": "print(gc.isenabled())",
}

MODULES = {
    "the guard the other way round": "if '__main__' == __name__:\n    print('seen')\n",
    "a guard with a condition more": "if __name__ == '__main__' and True:\n    print('seen')\n",
    "code beside the guard": "print('top')\nif __name__ == '__main__':\n    print('seen')\nprint('bottom')\n",
    "no guard": "print('seen')\n",
    "a module beside the script": """
        from beside import VALUE
        if __name__ == "__main__":
            print(VALUE)
    """,
    "a package beside the script": """
        from package import value
        if __name__ == "__main__":
            print(value.VALUE)
    """,
    "a future import": """
        from __future__ import annotations
        def task(value: Unknown) -> None: ...
        if __name__ == "__main__":
            print(task.__annotations__)
    """,
    "no future import": """
        def task(value: Unknown) -> None: ...
        if __name__ == "__main__":
            print("never reached")
    """,
    "pickles of its own classes": """
        import copy, dataclasses, pickle
        @dataclasses.dataclass
        class Point:
            x: int
        if __name__ == "__main__":
            print(pickle.loads(pickle.dumps(Point(1))) == Point(1), pickle.dumps(Point)[:40])
    """,
    "types named before they exist": """
        from __future__ import annotations
        import dataclasses, typing
        @dataclasses.dataclass
        class Node:
            next: Node | None = None
        if __name__ == "__main__":
            print(typing.get_type_hints(Node)["next"])
    """,
    "children by fork": """
        import multiprocessing
        def double(number):
            return 2 * number
        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                print(pool.map(double, range(3)))
    """,
    "children by spawn": """
        import concurrent.futures, multiprocessing
        class Answer:
            def __init__(self, number):
                self.number = number
        if __name__ == "__main__":
            method = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=method) as pool:
                answer = pool.submit(Answer, 5).result()
            print(answer.number, isinstance(answer, Answer))
    """,
    "an output that is never closed": """
        import sys
        out = open(sys.argv[4], "w")
        if __name__ == "__main__":
            print("opened")
    """,
}

IMPORTS = """
import atexit, gc, io, json, logging, os, signal, sys, threading, time, warnings
from pathlib import Path
"""


def assert_same_as_bare(bench, script: Path, warm: int | None = 50) -> None:
    bare = bench.run_bare(script, number=1)
    report = bench.run(script, [{"number": 0}, {"number": 1}], warm=warm)
    assert (report.returncodes[1], report.log(1), report.ends[1]["output"]) == bare


def each(table: dict[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("source", [pytest.param(source, id=name) for name, source in table.items()])


@each({**EXITS, **FAILURES})
def test_a_unit_ends_as_the_bare_command_does(bench, source):
    assert_same_as_bare(bench, bench.guarded(source, top=IMPORTS))


@pytest.mark.parametrize(
    "name", ["exit with words", "abort", "an exception", "stdout and stderr in turn", "its signals"]
)
def test_a_plain_unit_is_the_bare_command(bench, name):
    source = {**EXITS, **FAILURES, **PRINTS, **SURROUNDINGS}[name]
    assert_same_as_bare(bench, bench.guarded(source, top=IMPORTS), warm=None)


@each(PRINTS)
def test_a_unit_prints_as_the_bare_command_does(bench, source):
    assert_same_as_bare(bench, bench.guarded(source, top=IMPORTS))


@each(SURROUNDINGS)
def test_a_unit_finds_its_process_as_the_bare_command_does(bench, source):
    bench.script("import warnings\ndef warn(*words):\n    warnings.warn(*words)\n", "beside.py")
    top = IMPORTS + "here = json.loads(Path(sys.argv[2]).read_text()) if __name__ == '__main__' else {}\n"
    assert_same_as_bare(bench, bench.guarded(source, top=top))


@each(MODULES)
def test_a_script_is_loaded_as_by_the_bare_command(bench, source):
    bench.script("VALUE = 'from beside'\n", "beside.py")
    bench.script("VALUE = 'from within'\n", "package/value.py")
    assert_same_as_bare(bench, bench.script(source))


def test_a_script_may_be_encoded_in_its_own_way(bench):
    script = bench.folder / "task.py"
    script.write_bytes("# coding: latin-1\nif __name__ == '__main__':\n    print(ascii('é'))\n".encode("latin-1"))
    assert_same_as_bare(bench, script)


def test_a_script_may_be_reached_through_a_link(bench, tmp_path):
    bench.script("VALUE = 'beside the real script'\n", "beside.py")
    real = bench.guarded("print(VALUE, __file__)", top="from beside import VALUE\n")
    link = tmp_path / "link.py"
    link.symlink_to(real)
    assert_same_as_bare(bench, link)


def test_a_unit_writes_its_output_when_a_file_is_left_open(bench):
    script = bench.guarded("out = open(sys.argv[4], 'w'); out.write('{}')", top="import sys\ndef task(): ...\n")
    assert_same_as_bare(bench, script)


def test_the_interpreters_settings_hold(bench, warm):
    """`-u` and the like come from the environment, for a warm process as for a plain one."""
    script = bench.guarded("print('one'); os.write(1, b'two\\n')", top="import os\n")
    report = bench.run(script, 2, warm=warm, environment={"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"})
    assert report.returncodes == [0, 0]
    assert report.log(1) == "one\ntwo\n"


def test_odd_bytes_in_the_environment_arrive(bench, warm):
    odd = os.fsdecode(b"odd \xff\x01")
    script = bench.guarded("print(os.environb[b'ODD'])", top="import os\n")
    report = bench.run(script, warm=warm, environment={"ODD": odd})
    assert report.log(0) == "b'odd \\xff\\x01'\n"
