"""Runs the units of one batch beside the data, and writes how each ended into one result file.

    python run_units.py PLAN.json

This file stands alone: it needs nothing but a Python from 3.8 on, so it can be sent to any node. The plan is a JSON
object: `command` (words), `folder` (where all files of the units lie), `results` (file name), `key`, `attempt`,
`parallel` (units at a time), `grace` (seconds between SIGTERM and SIGKILL), `environment` (added variables), `warm`
(`null`, or the number of units per warm process) and `units` (a list of `{index, name, arguments}`).

The result file holds one JSON object a line, each written at once, so a kill at any byte loses at most the units in
flight: `begin`, then `start` and `end` of every unit and `note`s for people, then `finish`. SIGTERM ends the units
in flight (TERM, grace, KILL, whole process groups) and takes no new ones.

A *warm* process is the task's own interpreter, which imports the task's modules once and then runs unit after unit,
each in a fresh `__main__` with its own argv and log. It is replaced after a number of units and after any failure.
"""

import ast
import contextlib
import ctypes
import errno
import gc
import io
import json
import os
import re
import resource
import selectors
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import types

VERSION = 1
MAX_OUTPUT = 256 * 1024 * 1024  # bytes of one metadiff file; more is a defect of the task
HEARTBEAT = 10.0  # seconds between touches of the result file, so that a silent worker is known to live
WRITE_PATIENCE = 20.0  # seconds to wait for room on a full disk before giving up
PR_SET_CHILD_SUBREAPER = 36
CONTROL_IN, CONTROL_OUT = 3, 4  # the file descriptors by which a warm process is spoken to


# ----------------------------------------------------------------------------------------------------------------------
# The result file


class ResultFile:
    """Appends whole lines; a line that did not fit (a full disk) is cut off again before the next try."""

    def __init__(self, path):
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._synced = self._touched = time.monotonic()

    def append(self, event, **values):
        line = json.dumps(dict(event=event, **values), separators=(",", ":")).encode() + b"\n"
        deadline = time.monotonic() + WRITE_PATIENCE
        while True:
            try:
                self._write(line)
                return
            except OSError as error:
                os.ftruncate(self._fd, self._size)
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def _write(self, line):
        done = 0
        while done < len(line):
            done += os.write(self._fd, line[done:])
        self._size += len(line)
        self._touched = time.monotonic()

    def tick(self):
        """Make lines durable once a second, and show life when there is nothing to write."""
        now = time.monotonic()
        if self._touched > self._synced and now - self._synced >= 1.0:
            os.fsync(self._fd)
            self._synced = now
        if now - self._touched >= HEARTBEAT:
            os.utime(self._fd)
            self._touched = self._synced = now

    def close(self):
        os.fsync(self._fd)
        os.close(self._fd)


# ----------------------------------------------------------------------------------------------------------------------
# Files of one unit


def prepare_files(unit):
    """Write the arguments and give the unit a clean slate: no old output, an old log kept beside."""
    name = unit["name"]
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name + ".metadiff.json")
    with open(name + ".args.json", "w", opener=_private) as file:
        json.dump(unit["arguments"], file, indent=2)
    log = name + ".log"
    if os.path.lexists(log):
        count = 1
        while os.path.lexists("%s.%d" % (log, count)):
            count += 1
        os.rename(log, "%s.%d" % (log, count))
    return log


def _private(path, flags):
    return os.open(path, flags, 0o600)


def unit_words(unit):
    """The words that follow the task's command: the contract of every Fractal task."""
    paths = (os.path.abspath(unit["name"] + ending) for ending in (".args.json", ".metadiff.json"))
    args_json, out_json = paths
    return ["--args-json", args_json, "--out-json", out_json]


def read_output(unit):
    """The text of the unit's metadiff file (`None`: there is none), and what is wrong with the file itself."""
    try:
        with open(unit["name"] + ".metadiff.json", "rb") as file:
            data = file.read(MAX_OUTPUT + 1)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, "the output file cannot be read: %s" % error
    if len(data) > MAX_OUTPUT:
        return None, "the output file is larger than %d bytes" % MAX_OUTPUT
    return data.decode("utf-8", "surrogateescape"), None


# ----------------------------------------------------------------------------------------------------------------------
# The two ways of running a unit: a process of its own, or a warm process


class Running:
    """A unit in flight: where to send signals, and since when."""

    def __init__(self, unit, pid, warm=None):
        self.unit = unit
        self.pid = pid
        self.warm = warm
        self.started = time.time()


def spawn(words, stdout, environment, more_actions=()):
    """Start a process in a group of its own with its output in a file and no input; returns its pid."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, stdout, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(
        words[0],
        words,
        environment,
        file_actions=actions + list(more_actions),
        setpgroup=0,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD),
    )


class WarmProcess:
    """The near end of a warm process: one unit at a time, asked and answered by lines of JSON."""

    def __init__(self, command, stdout, environment):
        ask_there, ask_here = socket.socketpair()
        # High numbers, so that the copies made at CONTROL_IN and CONTROL_OUT cannot hit them.
        there = _high(ask_there.detach())
        actions = [(os.POSIX_SPAWN_DUP2, there, CONTROL_IN), (os.POSIX_SPAWN_DUP2, there, CONTROL_OUT)]
        words = [command[0], os.path.abspath(__file__), "--warm", command[1]]
        self.pid = spawn(words, stdout, environment, actions)
        os.close(there)
        ask_here.setblocking(False)
        self.channel = ask_here
        self.served = 0
        self.ready = False
        self._buffer = b""

    def ask(self, unit, log):
        request = {"index": unit["index"], "words": unit_words(unit), "log": os.path.abspath(log)}
        self.channel.sendall(json.dumps(request).encode() + b"\n")
        self.served += 1

    def answers(self):
        """The lines that have arrived; `None` at the end of the process."""
        try:
            data = self.channel.recv(65536)
        except BlockingIOError:
            return []
        except ConnectionError:
            data = b""
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self):
        self.channel.close()


def _high(fd):
    import fcntl

    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)
    os.close(fd)
    return high


def why_not_warm(command):
    """Why this command cannot be kept warm, or `None`."""
    if not re.fullmatch(r"python[0-9.]*", os.path.basename(command[0])):
        return "it is not run by a Python interpreter"
    if len(command) != 2 or not os.path.isfile(command[1]):
        return "its command is not one Python script"
    return None


# ----------------------------------------------------------------------------------------------------------------------
# The batch


class Batch:
    """Runs the units of a plan, a bounded number at a time."""

    def __init__(self, plan):
        self.plan = plan
        self.todo = list(reversed(plan["units"]))
        self.command = list(plan["command"])
        self.results = ResultFile(plan["results"])
        self.environment = dict(os.environ, **plan.get("environment", {}))
        self.running = {}  # pid -> Running
        self.idle = []  # warm processes that wait for a unit
        self.warming = {}  # pid -> WarmProcess: all that live
        self.stopping = False
        self.selector = selectors.DefaultSelector()
        self.warm_log = plan["results"] + ".warm.log"

    def run(self):
        plan = self.plan
        host, pid = socket.gethostname(), os.getpid()
        self.results.append(
            "begin", version=VERSION, key=plan["key"], attempt=plan["attempt"], host=host, pid=pid, time=time.time()
        )
        self._catch_signals()
        adopt_orphans()
        self._choose_way()
        while self.running or (self.todo and not self.stopping):
            while self.todo and not self.stopping and len(self.running) < plan["parallel"]:
                self._start(self.todo.pop())
            self._wait()
            self.results.tick()
        end_all_children()
        left = sorted(unit["index"] for unit in self.todo)
        self.results.append("finish", reason="stopped" if self.stopping else "complete", left=left, time=time.time())
        self.results.close()

    def _choose_way(self):
        found = shutil.which(self.command[0], path=self.environment.get("PATH"))
        if found is not None:
            self.command[0] = found
        self.warm = self.plan.get("warm")
        if self.warm:
            why = why_not_warm(self.command)
            if why is not None:
                self._stay_cold(why)

    def _stay_cold(self, why):
        self.warm = None
        self.results.append("note", text="the task cannot be kept warm, so every unit starts plainly: " + why)

    # -- starting

    def _start(self, unit):
        try:
            log = prepare_files(unit)
            running = self._start_warm(unit, log) if self.warm else self._start_plain(unit, log)
        except OSError as error:
            self._record(unit, None, problem="the unit could not be started: %s" % error)
            return
        self.running[running.pid] = running
        self.results.append("start", unit=unit["index"], pid=running.pid, time=running.started)

    def _start_plain(self, unit, log):
        return Running(unit, spawn(self.command + unit_words(unit), log, self.environment))

    def _start_warm(self, unit, log):
        warm = self.idle.pop() if self.idle else self._new_warm()
        warm.ask(unit, log)
        return Running(unit, warm.pid, warm)

    def _new_warm(self):
        """Start a warm process; it tells later whether the task's modules could be loaded."""
        warm = WarmProcess(self.command, self.warm_log, self.environment)
        self.warming[warm.pid] = warm
        self.selector.register(warm.channel, selectors.EVENT_READ, warm)
        return warm

    # -- waiting

    def _catch_signals(self):
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        self._wakeup = near, far
        signal.set_wakeup_fd(far.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        self.selector.register(near, selectors.EVENT_READ, None)

    def _wait(self):
        for key, _ in self.selector.select(timeout=1.0):
            if key.data is None:
                numbers = key.fileobj.recv(4096)
                if signal.SIGTERM in numbers:
                    self._stop()
            else:
                self._hear(key.data)
        self._reap()

    def _hear(self, warm):
        for answer in warm.answers() or ():
            if "cold" in answer:
                self._give_up_warm(warm, answer["cold"])
            elif "ready" in answer:
                warm.ready = True
            else:
                running = self.running.pop(warm.pid)
                self._record(
                    running.unit, answer["returncode"], running.started, cpu=answer["cpu"], memory=answer["memory"]
                )
                if answer["recycle"] or warm.served >= self.warm or self.stopping or not self.todo:
                    self._end_warm(warm)
                else:
                    self.idle.append(warm)

    def _give_up_warm(self, warm, why):
        """The task's modules could not be loaded: this unit and all others run plainly."""
        if self.warm:
            self._stay_cold(why)
        running = self.running.pop(warm.pid)
        self._end_warm(warm)
        self.todo.append(running.unit)

    def _end_warm(self, warm):
        """Close the channel: a warm process with nothing to hear ends by itself; its group goes with it."""
        if self.warming.pop(warm.pid, None) is not None:
            self.selector.unregister(warm.channel)
            warm.close()
            if warm in self.idle:
                self.idle.remove(warm)

    def _reap(self):
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, status, usage)

    def _ended(self, pid, status, usage):
        left_some = end_group(pid)
        warm = self.warming.get(pid)
        if warm is not None:
            self._hear(warm)  # an answer that was sent just before the end still counts
            if pid in self.running and not warm.ready and not self.stopping:
                self._give_up_warm(warm, "its interpreter died while it loaded the modules")
            self._end_warm(warm)
        running = self.running.pop(pid, None)
        if running is None:
            return
        if left_some and warm is None:
            text = "unit %d left processes behind; they were ended" % running.unit["index"]
            self.results.append("note", text=text)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        if warm is not None and code == 0:
            code = 1  # a warm process that vanishes without an answer has not done its unit
        cpu, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
        self._record(running.unit, code, running.started, cpu=cpu, memory=memory)

    def _record(self, unit, returncode, started=None, problem=None, **used):
        output = None
        if returncode == 0:
            output, problem = read_output(unit)
        self.results.append(
            "end",
            unit=unit["index"],
            returncode=returncode,
            output=output,
            problem=problem,
            started=started,
            ended=time.time(),
            **used,
        )

    # -- stopping

    def _stop(self):
        if self.stopping:
            return
        self.stopping = True
        self._signal_all(signal.SIGTERM)
        threading.Thread(target=self._kill_later, daemon=True).start()

    def _kill_later(self):
        deadline = time.monotonic() + self.plan["grace"]
        while self.running and time.monotonic() < deadline:
            time.sleep(0.05)
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, number):
        for pid in list(self.running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)


def adopt_orphans():
    """Become the parent of what units leave behind, so that nothing outlives the batch unseen."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_group(pid):
    """Kill what is left of a process group; whether there was anything."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_all_children():
    """Kill every child that is left, also one that left its group; returns when there is none."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            for child in children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.01)


def children():
    """The pids of this process's children."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open("/proc/%s/stat" % name) as file:
                fields = file.read().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                found.append(int(name))
    return found


# ----------------------------------------------------------------------------------------------------------------------
# The far end of a warm process: runs in the task's own interpreter


def has_main_guard(tree):
    """Whether the module has `if __name__ == "__main__":` at its top level."""
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare):
            sides = [node.test.left] + node.test.comparators
            names = [side.id for side in sides if isinstance(side, ast.Name)]
            values = [getattr(side, "value", None) for side in sides]
            if "__name__" in names and "__main__" in values:
                return True
    return False


class WarmScript:
    """A task's script, its modules imported once."""

    def __init__(self, path):
        with io.open_code(path) as file:
            source = file.read()
        tree = ast.parse(source, path)
        if not has_main_guard(tree):
            raise ValueError('the script has no `if __name__ == "__main__":`')
        self.path = path
        self.code = compile(tree, path, "exec", dont_inherit=True)
        sys.path[0] = os.path.dirname(os.path.realpath(path))
        sys.argv = [path]
        # The name that multiprocessing gives to a main module that is imported and not run.
        exec(self.code, self._fresh_module("__mp_main__").__dict__)
        gc.collect()
        gc.freeze()
        self.state = ProcessState()

    def _fresh_module(self, name):
        module = types.ModuleType(name)
        module.__file__ = self.path
        module.__builtins__ = __builtins__
        sys.modules[name] = module
        return module

    def run(self, words):
        """Run the script as `__main__`; returns the exit code that a plain process would have had."""
        sys.argv = [self.path] + words
        try:
            exec(self.code, self._fresh_module("__main__").__dict__)
            code = 0
        except SystemExit as error:
            code = exit_code(error)
        except BaseException:
            show_traceback(self.path)
            code = 1
        finally:
            self.state.join_threads()
        return code


def exit_code(error):
    """What `sys.exit(...)` makes of its argument."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def show_traceback(path):
    """Print the traceback as a plain run prints it, without the frames of this file."""
    kind, error, trace = sys.exc_info()
    while trace is not None and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    traceback.print_exception(kind, error, trace)


class ProcessState:
    """What a unit may change of the process and the next must find as it was."""

    def __init__(self):
        import logging

        self.logging = logging
        self.directory = os.getcwd()
        self.environment = dict(os.environ)
        self.path = list(sys.path)
        self.streams = sys.stdin, sys.stdout, sys.stderr
        self.threads = set(threading.enumerate())
        self.umask = os.umask(0o077)
        os.umask(self.umask)
        self.loggers = {logger: self._of_logger(logger) for logger in self._all_loggers()}

    def _all_loggers(self):
        known = self.logging.Logger.manager.loggerDict.values()
        return [self.logging.root] + [item for item in known if isinstance(item, self.logging.Logger)]

    @staticmethod
    def _of_logger(logger):
        return list(logger.handlers), list(logger.filters), logger.level, logger.propagate, logger.disabled

    def join_threads(self):
        """Wait for what a plain process would wait for at its exit."""
        for thread in threading.enumerate():
            if thread not in self.threads and not thread.daemon:
                thread.join()

    def restore(self):
        os.chdir(self.directory)
        if dict(os.environ) != self.environment:
            os.environ.clear()
            os.environ.update(self.environment)
        sys.path[:] = self.path
        sys.stdin, sys.stdout, sys.stderr = self.streams
        os.umask(self.umask)
        for logger, state in self.loggers.items():
            logger.handlers[:], logger.filters[:], level, logger.propagate, logger.disabled = state
            if logger.level != level:
                logger.setLevel(level)
        gc.collect()


def has_children():
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def cpu_seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def reset_peak_memory():
    with contextlib.suppress(OSError):
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def peak_memory():
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def redirect_output(path):
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError, AttributeError):
            stream.flush()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def serve_warm(script_path):
    """Load the script, then run a unit for every line that arrives, until the channel closes."""
    for fd in (CONTROL_IN, CONTROL_OUT):
        os.set_inheritable(fd, False)
    requests = os.fdopen(CONTROL_IN, "r")

    def answer(**values):
        os.write(CONTROL_OUT, json.dumps(values).encode() + b"\n")

    try:
        script = WarmScript(script_path)
    except BaseException as error:  # also SystemExit: whatever it is, the plain run will show it to the operator
        traceback.print_exc()
        answer(cold="loading its modules failed: %s: %s" % (type(error).__name__, error))
        return
    answer(ready=True)
    for line in requests:
        request = json.loads(line)
        redirect_output(request["log"])
        reset_peak_memory()
        before = cpu_seconds()
        code = script.run(request["words"])
        recycle = bool(code) or has_children()
        script.state.restore()
        redirect_output(os.devnull)
        answer(returncode=code, cpu=cpu_seconds() - before, memory=peak_memory(), recycle=recycle)
        if recycle:
            return


def main(words):
    """Run a batch, or serve as a warm process."""
    if words[0] == "--warm":
        serve_warm(words[1])
        return
    with open(words[0]) as file:
        plan = json.load(file)
    os.chdir(plan["folder"])
    Batch(plan).run()


if __name__ == "__main__":
    main(sys.argv[1:])
