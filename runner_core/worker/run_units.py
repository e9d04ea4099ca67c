"""Runs the units of one batch beside the data, and writes how each ended into one result file.

    python run_units.py PLAN.json

This file stands alone: it needs nothing but a Python from 3.8 on, so it can be sent to any node. The plan is a JSON
object with the fields of `Plan`. The result file holds one JSON object a line, so a kill at any byte loses at most the
units in flight: `begin`, then `start` and `end` of every unit and `note`s for people, then `finish`. SIGTERM ends the
units in flight (TERM, grace, KILL, whole process groups) and takes no new ones.

A *warm* process is the task's own interpreter, which imports the task's modules once and then runs unit after unit,
each in a fresh `__main__` with its own argv and log. What a unit changed of the process is put back. Where that is not
certain (it failed, or left threads, children, exit handlers or open files), the process ends as a plain one would, and
another takes its place. What libraries remember does stay: imported modules, their caches, the state of `random`.
Where the modules cannot be loaded, a note says why, and all units start plainly, a first few for the second time.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import contextlib
import errno
import gc
import io
import json
import logging
import math
import os
import re
import resource
import selectors
import shutil
import signal
import socket
import stat
import sys
import threading
import time
import traceback
import types
import warnings
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

VERSION = 1
MAX_OUTPUT = 256 * 1024 * 1024  # bytes of one metadiff file; more is a defect of the task
MAX_MESSAGE = 128 * 1024  # bytes that a warm process is told, or tells, at a time
HEARTBEAT = 10.0  # seconds between touches of the result file, so that a silent worker is known to live
PATIENCE = 60.0  # seconds to wait for room on a full disk or in a full process table before giving up
PRELOAD_PATIENCE = 300.0  # seconds that a warm process may take to import the task's modules
EXIT_PATIENCE = 10.0  # seconds that a warm process may take to end when there is no more to do
GROUP_PATIENCE = 0.5  # seconds that the other processes of a unit may outlive it
SHORTAGES = {errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
SIGNALS = sorted(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))  # whose action can be set
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # see prctl(2)

Json = Dict[str, Any]


class Plan(NamedTuple):
    """What the worker is told to do."""

    key: str
    attempt: int
    command: List[str]
    folder: str  # where all files of the units lie
    results: str  # the result file's name in it
    parallel: int  # units at a time
    grace: float  # seconds between SIGTERM and SIGKILL
    environment: Dict[str, str]  # added to the worker's own
    warm: Optional[int]  # units per warm process; `None`: a process for each unit
    units: List[Unit]
    preload: float = PRELOAD_PATIENCE


def read_plan(path: str) -> Plan:
    """Read a plan from its file."""
    with open(path, "rb") as file:
        fields = json.load(file)
    fields["units"] = [Unit(**unit) for unit in fields["units"]]
    return Plan(**fields)


# ----------------------------------------------------------------------------------------------------------------------
# Files


class ResultFile:
    """Appends whole lines, and keeps those that find no room until there is some.

    A line is safe only after an fsync, where some file systems tell first that the disk is full. So when anything
    fails, the file is cut back to what is safe, and the rest is written again.
    """

    def __init__(self, path: str, *, patience: float = PATIENCE) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(path, "rb") as file:
            self._safe = file.read().rfind(b"\n") + 1  # an earlier worker may have been killed in a line
        os.ftruncate(self._fd, self._safe)
        self._tail = b""  # the lines that are not safe yet
        self._written = 0  # bytes of them in the file
        self._synced = self._touched = time.monotonic()
        self._full_since = math.inf
        self._patience = patience

    @property
    def blocked(self) -> bool:
        """Whether there are lines that found no room yet."""
        return self._full_since != math.inf

    def append(self, event: str, **values: Any) -> None:
        """Write a line, now or when there is room; raises `OSError` when there was none for too long."""
        self._tail += json.dumps(dict(event=event, **values), separators=(",", ":")).encode() + b"\n"
        if not self.blocked:
            self._write()

    def tick(self) -> None:
        """Make lines safe once a second, and show life when there is nothing to write."""
        now = time.monotonic()
        if self._tail and now - self._synced >= 1.0:
            self._synced = self._touched = now
            self._write(sync=True)
        if now - self._touched >= HEARTBEAT:
            self._touched = now
            os.utime(self._fd)

    def close(self) -> None:
        """Wait until all lines are safe."""
        self._write(sync=True)
        while self.blocked:
            time.sleep(0.5)
            self._write(sync=True)
        os.close(self._fd)

    def _write(self, *, sync: bool = False) -> None:
        try:
            while self._written < len(self._tail):
                self._written += os.write(self._fd, self._tail[self._written :])
            if sync:
                os.fsync(self._fd)
                self._safe += len(self._tail)
                self._tail, self._written = b"", 0
            self._full_since = math.inf
        except OSError as error:
            self._full_since = min(self._full_since, time.monotonic())
            if error.errno not in SHORTAGES or time.monotonic() - self._full_since > self._patience:
                raise
            os.ftruncate(self._fd, self._safe)
            self._written = 0


class Unit:
    """One run of the task's command; `name` starts the names of its files."""

    def __init__(self, index: int, name: str, arguments: Json) -> None:
        self.index = index
        self.arguments = arguments
        self.args_json, self.out_json, self.log = name + ".args.json", name + ".metadiff.json", name + ".log"

    def words(self) -> List[str]:
        """The words that follow the task's command: the contract of every Fractal task."""
        return ["--args-json", os.path.abspath(self.args_json), "--out-json", os.path.abspath(self.out_json)]

    def prepare_files(self) -> None:
        """Write the arguments and give the unit a clean slate: no old output, an old log kept beside."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.out_json)
        with open(self.args_json, "w", opener=open_private) as file:
            file.write(json.dumps(self.arguments, indent=2))
        if os.path.exists(self.log) and os.path.getsize(self.log):
            count = 1
            while os.path.lexists("%s.%d" % (self.log, count)):
                count += 1
            os.rename(self.log, "%s.%d" % (self.log, count))
        os.close(open_private(self.log, os.O_WRONLY | os.O_CREAT))

    def read_output(self) -> Tuple[Optional[str], Optional[str]]:
        """The text of its metadiff file (`None`: there is none), and what is wrong with the file itself."""
        try:
            # Whatever a task has put there: a pipe must not keep the worker waiting.
            with open(os.open(self.out_json, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return None, "the output is not a file"
                data = file.read(MAX_OUTPUT + 1)
        except FileNotFoundError:
            return None, None
        except OSError as error:
            return None, "the output file cannot be read: %s" % error
        if len(data) > MAX_OUTPUT:
            return None, "the output file is larger than %d bytes" % MAX_OUTPUT
        return data.decode("utf-8", "surrogateescape"), None


def open_private(path: str, flags: int) -> int:
    """Open a file that only its owner may read; returns its descriptor."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


# ----------------------------------------------------------------------------------------------------------------------
# Processes


class Process:
    """A process group that the worker started for a unit."""

    def __init__(self, pid: int, unit: Optional[Unit] = None) -> None:
        self.pid = pid
        self.unit = unit
        self.started = time.time()
        self.ended = 0.0
        self.returncode: Optional[int] = None  # of the group's leader
        self.cpu = self.cpu_before = 0.0  # seconds used in all, and by earlier units
        self.memory = 0  # bytes at the peak
        self.kill_at = math.inf  # on the monotonic clock
        self.killed = False

    def end(self, status: int, usage: resource.struct_rusage) -> None:
        """Note how the leader ended; the rest of the group gets a moment to follow."""
        self.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        self.ended = time.time()
        self.cpu, self.memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
        self.kill_before(time.monotonic() + GROUP_PATIENCE)

    def kill_before(self, deadline: float) -> None:
        """Let it live until then at most."""
        self.kill_at = min(self.kill_at, deadline)


class WarmProcess(Process):
    """The near end of a warm process: one unit at a time, asked and answered by a JSON message."""

    def __init__(self, command: List[str], log: str, environment: Dict[str, str]) -> None:
        self.channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        far.set_inheritable(True)
        with far:
            words = [command[0], os.path.abspath(__file__), "--warm", str(far.fileno()), command[1]]
            super().__init__(spawn(words, log, environment))
        self.ready = False
        self.served = 0

    def ask(self, unit: Unit) -> bool:
        """Hand it a unit; whether it still lives to hear of it."""
        try:
            self.channel.send(json.dumps({"words": unit.words(), "log": os.path.abspath(unit.log)}).encode())
        except OSError:
            return False
        self.unit, self.started = unit, time.time()
        self.served += 1
        return True

    def hear(self) -> Optional[Json]:
        """What it says; `None` when it will say no more. Raises `BlockingIOError` while it says nothing."""
        try:
            answer: Json = json.loads(self.channel.recv(MAX_MESSAGE))
        except (ConnectionError, ValueError):
            return None
        return answer


def spawn(words: List[str], log: str, environment: Dict[str, str]) -> int:
    """Start a process in a group of its own with its output in a file and no input; returns its pid."""
    return os.posix_spawn(
        words[0],
        words,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setpgroup=0,
        setsigdef=SIGNALS,
    )


def why_not_warm(command: List[str]) -> Optional[str]:
    """Why this command cannot be kept warm, or `None`."""
    if not re.fullmatch(r"python[0-9.]*", os.path.basename(command[0])):
        return "it is not run by a Python interpreter"
    if len(command) != 2 or not os.path.isfile(command[1]):
        return "its command is not one Python script"
    return None


def signal_group(pid: int, *numbers: int) -> bool:
    """Send signals to a process group; whether there is one (0 only asks)."""
    try:
        for number in numbers:
            os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def call_libc(function: str, *arguments: Optional[int]) -> None:
    """Call a function of the C library, where this Python can."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        getattr(ctypes.CDLL(None), function)(*arguments)


def children() -> Iterator[int]:
    """The pids of this process's children."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open("/proc/%s/stat" % name, "rb") as file:
            if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                yield int(name)


def end_children() -> int:
    """Kill all children, orphans that came to this process included, until none is left; how many were killed."""
    killed = set()
    deadline = time.monotonic() + EXIT_PATIENCE
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            for child in children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGKILL)
                    killed.add(child)
            time.sleep(0.01)
    return len(killed)


# ----------------------------------------------------------------------------------------------------------------------
# The batch


class Signals:
    """SIGTERM as a flag, and SIGTERM and SIGCHLD as something that a selector can wait for."""

    def __init__(self) -> None:
        self.stop = False
        self.near, self._far = socket.socketpair()
        self.near.setblocking(False)
        self._far.setblocking(False)
        signal.set_wakeup_fd(self._far.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _on_stop(self, *_: object) -> None:
        self.stop = True


class Batch:
    """Runs the units of a plan, a bounded number at a time."""

    def __init__(self, plan: Plan, signals: Signals) -> None:
        self.plan = plan
        self.signals = signals
        self.warm = plan.warm
        self.command = list(plan.command)
        self.environment = dict(os.environ, **plan.environment)
        self.todo = plan.units[::-1]
        self.processes: Dict[int, Process] = {}  # by pid: every group that lives
        self.idle: List[WarmProcess] = []
        self.untidy: List[int] = []  # indices of the units that left processes behind
        self.stopping = False
        self.short_since = math.inf
        self.hold_until = 0.0
        self.results = ResultFile(plan.results)
        self.selector = selectors.DefaultSelector()
        self.selector.register(signals.near, selectors.EVENT_READ)

    def run(self) -> None:
        """Run all units, or until a stop; whatever happens, no process is left."""
        who = {"key": self.plan.key, "attempt": self.plan.attempt, "host": socket.gethostname(), "pid": os.getpid()}
        self.results.append("begin", version=VERSION, time=time.time(), **who)
        call_libc("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of the units become children of this process
        try:
            self._choose_way()
            while self.processes or (self.todo and not self.stopping):
                self._heed_stop()
                self._start_units()
                self._wait()
                self._reap()
                self._kill_overdue()
                self.results.tick()
        finally:
            escaped = end_children()
        self._note_leftovers(escaped)
        left = sorted(unit.index for unit in self.todo)
        self.results.append("finish", reason="stopped" if self.stopping else "complete", left=left, time=time.time())
        self.results.close()

    def _choose_way(self) -> None:
        self.command[0] = shutil.which(self.command[0], path=self.environment.get("PATH")) or self.command[0]
        why = why_not_warm(self.command)
        if why is not None:
            self._stay_cold(why)

    def _stay_cold(self, why: str) -> None:
        if self.warm is not None:
            self.warm = None
            self._note("the task cannot be kept warm, so every unit starts plainly: " + why)

    def _note(self, text: str) -> None:
        self.results.append("note", text=text)

    def _note_leftovers(self, escaped: int) -> None:
        if self.untidy:
            counts = len(self.untidy), len(self.plan.units), self.untidy[0]
            self._note("%d of %d units left processes behind, the first was unit %d; they were ended" % counts)
        if escaped:
            self._note("%d processes had left the process groups of their units; they were ended" % escaped)

    # -- starting

    def _start_units(self) -> None:
        while self.todo and self._may_start():
            self._start(self.todo.pop())
        if self.stopping or not self.todo or self.warm is None:
            while self.idle:
                self._retire(self.idle.pop())

    def _may_start(self) -> bool:
        if self.stopping or self.results.blocked or time.monotonic() < self.hold_until:
            return False
        return self._in_flight() < self.plan.parallel

    def _in_flight(self) -> int:
        return sum(process.unit is not None for process in self.processes.values())

    def _start(self, unit: Unit) -> None:
        try:
            unit.prepare_files()
            process = self._start_plain(unit) if self.warm is None else self._start_warm(unit)
        except OSError as error:
            if self._may_pass(error):
                self.todo.append(unit)
            else:
                self._record(unit, None, problem="the unit could not be started: %s" % error)
            return
        self.short_since = math.inf
        self.results.append("start", unit=unit.index, pid=process.pid, time=process.started)

    def _start_plain(self, unit: Unit) -> Process:
        process = Process(spawn(self.command + unit.words(), unit.log, self.environment), unit)
        self.processes[process.pid] = process
        return process

    def _start_warm(self, unit: Unit) -> Process:
        while self.idle:
            warm = self.idle.pop()
            if warm.ask(unit):
                return warm
        warm = WarmProcess(self.command, self.plan.results + ".warm.log", self.environment)
        warm.kill_before(time.monotonic() + self.plan.preload)
        self.processes[warm.pid] = warm
        self.selector.register(warm.channel, selectors.EVENT_READ, warm)
        warm.ask(unit)
        warm.unit = unit  # if it has died already, this is seen when it is reaped
        return warm

    def _may_pass(self, error: OSError) -> bool:
        """Whether to try again in a second: a full disk or process table is not the fault of this unit."""
        if error.errno not in SHORTAGES:
            return False
        now = time.monotonic()
        if self.short_since == math.inf:
            self.short_since = now
            self._note("no unit can be started for now, which is tried again: %s" % error)
        self.hold_until = now + 1.0
        return self._in_flight() > 0 or now - self.short_since < PATIENCE

    # -- waiting

    def _wait(self) -> None:
        now = time.monotonic()
        due = min([process.kill_at for process in self.processes.values()], default=math.inf)
        for key, _ in self.selector.select(min(1.0, max(0.0, due - now))):
            if key.data is None:
                self.signals.near.recv(4096)
            else:
                self._hear(key.data)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            while pid:
                if pid in self.processes:
                    self.processes[pid].end(status, usage)
                pid, status, usage = os.wait4(-1, os.WNOHANG)
        for process in list(self.processes.values()):
            if process.returncode is not None and not signal_group(process.pid, 0):
                self._conclude(process)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for process in [process for process in self.processes.values() if process.kill_at <= now]:
            has_leader = process.returncode is None
            if process.killed and not has_leader:
                self._conclude(process)  # what a kill does not end hangs in the kernel, and is not waited for
                continue
            signal_group(process.pid, signal.SIGKILL)
            process.killed, process.kill_at = True, now + EXIT_PATIENCE
            if process.unit is not None and not has_leader and not self.stopping:
                self.untidy.append(process.unit.index)

    def _conclude(self, process: Process) -> None:
        """The whole group has ended, and with it the unit that it ran."""
        del self.processes[process.pid]
        if isinstance(process, WarmProcess):
            self._part_with(process)
        if process.unit is not None:
            self._record_end(process, process.unit, process.returncode)

    def _record_end(self, process: Process, unit: Unit, returncode: Optional[int]) -> None:
        output, problem = unit.read_output() if returncode == 0 else (None, None)
        used = {"cpu": round(process.cpu - process.cpu_before, 6), "memory": process.memory}
        times = {"started": process.started, "ended": process.ended}
        self._record(unit, returncode, output=output, problem=problem, **times, **used)
        process.unit, process.cpu_before = None, process.cpu

    def _record(self, unit: Unit, returncode: Optional[int], **known: Any) -> None:
        fields = {"output": None, "problem": None, "started": None, "ended": time.time(), **known}
        self.results.append("end", unit=unit.index, returncode=returncode, **fields)

    # -- stopping

    def _heed_stop(self) -> None:
        if not self.signals.stop or self.stopping:
            return
        self.stopping = True
        for process in self.processes.values():
            process.kill_before(time.monotonic() + self.plan.grace)
            if process.unit is not None:
                signal_group(process.pid, signal.SIGTERM, signal.SIGCONT)  # also one that had stopped itself

    # -- warm processes

    def _hear(self, warm: WarmProcess) -> None:
        answer = warm.hear()
        if answer is None:
            self._hang_up(warm)
        elif "cold" in answer:
            self._give_up(warm, answer["cold"])
            self._retire(warm)
        elif "ready" in answer:
            warm.ready = True
            if not self.stopping:
                warm.kill_at = math.inf
        elif warm.unit is not None:
            warm.ended, warm.cpu, warm.memory = time.time(), answer["cpu"], answer["memory"]
            self._record_end(warm, warm.unit, 0)
            if self.warm is None or warm.served >= self.warm:
                self._retire(warm)
            else:
                self.idle.append(warm)

    def _give_up(self, warm: WarmProcess, why: str) -> None:
        """The task's modules could not be loaded: this unit and all others run plainly."""
        self._stay_cold(why)
        if warm.unit is not None:
            self.todo.append(warm.unit)
            warm.unit = None

    def _retire(self, warm: WarmProcess) -> None:
        """A warm process that will hear nothing more ends by itself."""
        self._hang_up(warm)
        warm.kill_before(time.monotonic() + EXIT_PATIENCE)

    def _hang_up(self, warm: WarmProcess) -> None:
        if warm.channel.fileno() >= 0:
            self.selector.unregister(warm.channel)
            warm.channel.close()

    def _part_with(self, warm: WarmProcess) -> None:
        """It has ended; what it said just before still counts."""
        with contextlib.suppress(BlockingIOError):
            while warm.channel.fileno() >= 0:
                self._hear(warm)
        self._hang_up(warm)
        if not warm.ready and not self.stopping:
            slow = warm.ended - warm.started >= self.plan.preload
            how = "took longer than %g s" % self.plan.preload if slow else "ended with returncode=%s" % warm.returncode
            self._give_up(warm, "loading its modules " + how)


# ----------------------------------------------------------------------------------------------------------------------
# The far end of a warm process: runs in the task's own interpreter


class NotWarm(Exception):
    """Why a script cannot be kept warm."""


class WarmScript:
    """A task's script whose modules have been imported."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.wants_exit = False  # whether the script itself has asked to be called at the end of the process
        folder = os.path.dirname(os.path.realpath(path))
        with io.open_code(path) as file:
            self._source = file.read()
        if not has_main_guard(ast.parse(self._source, path)):
            raise NotWarm('the script has no `if __name__ == "__main__":`')
        hidden = {name.partition(".")[0] for name in os.listdir(folder)} & set(sys.modules) - {"__main__"}
        if hidden:
            raise NotWarm("%s beside the script has the name of a module of Python's own" % min(hidden))
        if not getattr(sys.flags, "safe_path", False):
            sys.path[0] = folder
        self._watch_exit_handlers()
        sys.argv = [path]
        self._execute("__preload__")
        gc.collect()
        gc.freeze()

    def run(self, words: List[str]) -> None:
        """Run the script as `__main__`; returns if a plain process would now end well, and raises otherwise."""
        sys.argv = [self.path, *words]
        try:
            self._execute("__main__")
        except SystemExit as end:
            if end.code is not None and not (isinstance(end.code, int) and end.code == 0):
                raise
        except BaseException:
            hide_own_frames()
            raise

    def _execute(self, name: str) -> None:
        module = sys.modules[name] = types.ModuleType(name)
        if "__mp_main__" in sys.modules:  # multiprocessing's other name for the main module
            sys.modules["__mp_main__"] = module
        module.__dict__.update(__file__=self.path, __builtins__=builtins)
        # Compiled each time, since the compiler may have warnings for the log.
        exec(compile(self._source, self.path, "exec", dont_inherit=True), module.__dict__)

    def _watch_exit_handlers(self) -> None:
        register = atexit.register

        def watched(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
            self.wants_exit = self.wants_exit or is_of_script(sys._getframe(1))
            return register(function, *args, **kwargs)

        atexit.register = watched  # type: ignore[assignment]


def has_main_guard(tree: ast.Module) -> bool:
    """Whether the module has `if __name__ == "__main__":`, either way round, at its top level."""
    for statement in tree.body:
        for node in ast.walk(statement.test) if isinstance(statement, ast.If) else ():
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
                sides = [node.left, node.comparators[0]]
                names = [side.id for side in sides if isinstance(side, ast.Name)]
                values = [side.value for side in sides if isinstance(side, ast.Constant)]
                if names == ["__name__"] and values == ["__main__"]:
                    return True
    return False


def is_of_script(frame: types.FrameType) -> bool:
    """Whether a frame runs code of the script itself, and not of a module that it imported."""
    return frame.f_globals.get("__name__") == "__main__"


def hide_own_frames() -> None:
    """Let the interpreter show the coming traceback as a plain run shows it."""
    show = sys.excepthook

    def show_without(kind: type[BaseException], error: BaseException, trace: Optional[types.TracebackType]) -> None:
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        show(kind, error.with_traceback(trace), trace)

    sys.excepthook = show_without


class ProcessState:
    """What a unit may change of its process, and the next must find as it was."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.descriptors = self._look_at_descriptors()
        self.streams = sys.stdin, sys.stdout, sys.stderr
        self.threads = set(threading.enumerate())
        self.files = open_files()
        self.directory = os.getcwd()
        self.environment = dict(os.environ)
        self.path = list(sys.path)
        self.hooks = sys.excepthook, threading.excepthook, warnings.showwarning
        self.filters = list(warnings.filters)
        self.umask = os.umask(0o077)
        os.umask(self.umask)
        self.handlers = {number: signal.getsignal(number) for number in SIGNALS}
        self.logging_disabled = logging.root.manager.disable
        self.loggers = {logger: logger_state(logger) for logger in all_loggers()}

    def _look_at_descriptors(self) -> List[Optional[int]]:
        """What stands behind input, output and the channel, which a fork has not, and a daemon may have closed."""
        return [inode(fd) for fd in (0, 1, 2, self.channel)]

    def redirect_output(self, path: str) -> None:
        """Send all that is printed from now on, by this process or its children, to another file."""
        sys.stderr.flush()
        sys.stdout.flush()
        call_libc("fflush", None)  # what libraries print in C waits in a buffer of its own
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.close(fd)
        self.descriptors = self._look_at_descriptors()

    def holds_leftovers(self) -> bool:
        """Whether there is something that a plain process waits for, or clears away, at its end."""
        return (
            self.descriptors != self._look_at_descriptors()
            or self.streams != (sys.stdin, sys.stdout, sys.stderr)
            or not open_files() <= self.files
            or has_children()
            or self._has_busy_threads()
        )

    def _has_busy_threads(self) -> bool:
        deadline = time.monotonic() + 0.2  # those that libraries keep for later work are idle by then
        while any(self._is_busy(thread) for thread in threading.enumerate()):
            if time.monotonic() > deadline:
                return True
            time.sleep(0.002)
        return False

    def _is_busy(self, thread: threading.Thread) -> bool:
        top = sys._current_frames().get(thread.ident or 0)
        if top is None or thread is threading.current_thread():
            return False
        if any(is_of_script(frame) for frame, _ in traceback.walk_stack(top)):
            return True
        pools = sys.modules.get("concurrent.futures.thread")
        queue = getattr(pools, "_threads_queues", {}).get(thread)
        if queue is not None:
            return not queue.empty() or top.f_code.co_name != "_worker"
        return not thread.daemon and thread not in self.threads

    def restore(self) -> None:
        """Put back what can be put back; raises whatever goes wrong."""
        sys.stderr.flush()
        sys.stdout.flush()
        os.chdir(self.directory)
        os.umask(self.umask)
        if dict(os.environ) != self.environment:
            os.environ.clear()
            os.environ.update(self.environment)
        sys.path[:] = self.path
        self._restore_logging()
        sys.excepthook, threading.excepthook, warnings.showwarning = self.hooks
        warnings.resetwarnings()  # which also lets every place warn anew
        warnings.filters[:] = self.filters  # type: ignore[index]
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self.handlers.items():
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)

    def _restore_logging(self) -> None:
        if warnings.showwarning is not self.hooks[2]:
            logging.captureWarnings(False)
        logging.disable(self.logging_disabled)
        for logger in all_loggers():
            state = self.loggers.get(logger, ([], [], logging.NOTSET, True, False))
            for handler in set(logger.handlers).difference(state[0]):
                handler.flush()
                handler.close()
            logger.handlers[:], logger.filters[:], level, logger.propagate, logger.disabled = state
            if logger.level != level:
                logger.setLevel(level)


def all_loggers() -> List[logging.Logger]:
    """Every logger of this process."""
    known = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]


def logger_state(logger: logging.Logger) -> Tuple[List[logging.Handler], List[Any], int, bool, bool]:
    """What can be set of a logger."""
    return list(logger.handlers), list(logger.filters), logger.level, logger.propagate, logger.disabled


def has_children() -> bool:
    """Whether this process has children, also such as have ended and were not waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def inode(fd: int) -> Optional[int]:
    """What a descriptor stands for; `None` if it is closed."""
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return None


def open_files() -> Set[Tuple[str, str]]:
    """The descriptors and names of the files that this process holds open."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            name = os.readlink("/proc/self/fd/" + fd)
            if int(fd) > 2 and name.startswith("/") and not name.startswith(("/dev/", "/proc/", "/sys/", "/memfd:")):
                found.add((fd, name))
    return found


def is_as_before(script: WarmScript, state: ProcessState) -> bool:
    """Put back what the unit has changed; whether all is as it was before."""
    if script.wants_exit or state.holds_leftovers():
        return False
    try:
        sys.modules["__main__"] = types.ModuleType("__main__")
        gc.collect()
        state.restore()
    except Exception:
        return False
    return True


def serve_warm(fd: int, path: str) -> None:
    """Load a script, then run a unit for every request, until nobody asks or the process must end."""
    call_libc("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # without the worker nobody hears of the unit
    os.set_inheritable(fd, False)
    channel = inode(fd)

    def leave_to_parent() -> None:
        if inode(fd) == channel:
            os.close(fd)

    def tell(**answer: Any) -> None:
        os.write(fd, json.dumps(answer).encode())

    os.register_at_fork(after_in_child=leave_to_parent)
    request = os.read(fd, MAX_MESSAGE)  # a warm process is started for a unit, so there is one
    try:
        script = WarmScript(path)
    except NotWarm as why:
        tell(cold=str(why))
        return
    except BaseException as error:  # also SystemExit: whatever it is, a plain run will show it to the operator
        traceback.print_exc()
        tell(cold="loading its modules failed: %s: %.1000s" % (type(error).__name__, error))
        return
    state = ProcessState(fd)
    tell(ready=True)
    while request:
        asked = json.loads(request)
        state.redirect_output(asked["log"])
        script.run(asked["words"])
        if not is_as_before(script, state):
            sys.exit()
        state.redirect_output(os.devnull)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        tell(cpu=sum(os.times()[:4]), memory=memory)
        request = os.read(fd, MAX_MESSAGE)


def main(words: List[str]) -> None:
    """Run a batch, or serve as a warm process."""
    if words[0] == "--warm":
        serve_warm(int(words[1]), words[2])
        return
    signals = Signals()
    plan = read_plan(words[0])
    os.chdir(plan.folder)
    Batch(plan, signals).run()


if __name__ == "__main__":
    main(sys.argv[1:])
