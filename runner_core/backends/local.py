"""The local backends: one worker process per batch on this machine.

The worker leads a session of its own, so it outlives the runner, and everything that it started can be found and
ended. `local` starts a process per unit; `local_experimental` is the same with warm processes (see the worker).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from runner_core.backends.base import Batch, BatchNews
from runner_core.backends.results import ResultReader
from runner_core.failures import JobExecutionError, quoted
from runner_core.job_folder import write_atomically
from runner_core.model import FailureKind, Json, Unit
from runner_core.processes import ProcessId, end_session, identify, is_alive, process_ids, session_lives
from runner_core.worker import WORKER_FILE

_POLL_SECONDS = 0.2
_PARALLEL_KEY = "parallel_tasks_per_job"


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """What the local backends need to know; `parallel` is the number of units that run at a time."""

    parallel: int
    grace_seconds: float
    environment: Mapping[str, str]
    warm_units: int | None = None


def usable_cpus() -> int:
    """How many CPUs this process may use, by its affinity and by its control group."""
    cpus = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError, IndexError):
        group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
        quota, period = Path(f"/sys/fs/cgroup{group}/cpu.max").read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus


def read_local_config(path: Path) -> int | None:
    """How many units run at a time, by a JSON file with the one key `parallel_tasks_per_job` (L1).

    Raises `JobExecutionError` that names the file and the key.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _bad_config(path, str(error)) from None
    if not isinstance(document, dict):
        raise _bad_config(path, "it is not a JSON object")
    unknown = sorted(set(document) - {_PARALLEL_KEY})
    if unknown:
        raise _bad_config(path, f"unknown key {quoted(unknown[0])}; the one key is {_PARALLEL_KEY!r}")
    value = document.get(_PARALLEL_KEY)
    return None if value is None else _positive(value, where=f"{path}: {_PARALLEL_KEY}")


def _bad_config(path: Path, why: str) -> JobExecutionError:
    return JobExecutionError(f"the local configuration file {path} cannot be used: {why}", kind=FailureKind.SETUP)


def _positive(value: Any, *, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise JobExecutionError(f"{where} must be a whole number from 1 on, not {value!r}", kind=FailureKind.SETUP)
    return value


def task_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of this process's environment that is a task's business: our settings may hold a password."""
    return {name: value for name, value in environment.items() if not name.startswith("PILOTHOUSE_")}


def find_worker(plan: Path) -> ProcessId | None:
    """Find the worker that runs this plan on this machine, by its command line."""
    wanted = os.fsencode(plan)
    for pid in process_ids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if wanted in words and os.fsencode(WORKER_FILE) in words:
                return identify(pid)
    return None


def is_batch_alive(batch: Batch, handle: Json | None) -> bool | None:
    """Whether anything of a batch still runs, its worker or what that left; `None` when nothing here can tell."""
    if handle:
        return session_lives(ProcessId.from_json(handle))
    return find_worker(batch.folder / batch.files.plan) is not None


@dataclass(slots=True)
class _Worker:
    """A batch in work: its process, and the result file that it writes."""

    batch: Batch
    reader: ResultReader
    process: ProcessId | None
    child: subprocess.Popen[bytes] | None = None
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    kill_at: float | None = None


class LocalBackend:
    """Runs batches on this machine."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._workers: dict[str, _Worker] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        keys = list(self._workers)
        await self.cancel(keys)
        while self._workers:
            await self.poll(list(self._workers))

    def split(self, units: Sequence[Unit], *, meta: Json) -> list[tuple[Unit, ...]]:
        """One batch: its worker bounds how many units run at a time, so nothing waits for the slowest of a chunk."""
        self._parallel(meta)
        return [tuple(units)]

    def _parallel(self, meta: Json) -> int:
        value = meta.get(_PARALLEL_KEY)
        return self._options.parallel if value is None else _positive(value, where=f"the task's meta: {_PARALLEL_KEY}")

    async def submit(self, batch: Batch) -> Json:
        """Start the worker of a batch."""
        plan = {
            "key": batch.key,
            "attempt": batch.attempt,
            "command": batch.command,
            "folder": str(batch.folder),
            "results": batch.files.results,
            "parallel": self._parallel(batch.meta),
            "grace": self._options.grace_seconds,
            "environment": dict(self._options.environment),
            "warm": self._options.warm_units,
            "units": [{"index": u.index, "name": u.name, "arguments": u.arguments} for u in batch.units],
        }
        plan_path = batch.folder / batch.files.plan
        write_atomically(plan_path, json.dumps(plan).encode())
        child = self._start_worker(plan_path, batch.folder / batch.files.worker_log)
        worker = _Worker(batch, self._reader(batch), identify(child.pid), child)
        self._workers[batch.key] = worker
        self._watch(worker, child.pid)
        return worker.process.to_json() if worker.process else {}

    @staticmethod
    def _start_worker(plan: Path, log: Path) -> subprocess.Popen[bytes]:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(WORKER_FILE), str(plan)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=task_environment(os.environ),
                start_new_session=True,
            )

    @staticmethod
    def _reader(batch: Batch) -> ResultReader:
        return ResultReader(batch.folder / batch.files.results, key=batch.key, attempt=batch.attempt)

    def _watch(self, worker: _Worker, pid: int) -> None:
        """Set `exited` the moment the process ends, whoever its parent is."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            worker.exited.set()
            return
        loop = asyncio.get_running_loop()

        def on_exit() -> None:
            loop.remove_reader(fd)
            os.close(fd)
            worker.exited.set()

        loop.add_reader(fd, on_exit)

    async def adopt(self, batch: Batch, handle: Json | None) -> None:
        """Take over a worker that another runner started; one that has ended is reported by the next poll."""
        process = ProcessId.from_json(handle) if handle else find_worker(batch.folder / batch.files.plan)
        if process is not None and not session_lives(process):
            process = None  # its pid may be another's by now
        worker = _Worker(batch, self._reader(batch), process)
        self._workers[batch.key] = worker
        if process is not None and is_alive(process):
            self._watch(worker, process.pid)
        else:
            worker.exited.set()

    async def poll(self, keys: Collection[str]) -> dict[str, BatchNews]:
        """Give news of these batches, after a fifth of a second or as soon as one of their workers has ended."""
        workers = [self._workers[key] for key in keys if key in self._workers]
        if not any(worker.exited.is_set() or worker.reader.has_more() for worker in workers):
            waits = [asyncio.create_task(worker.exited.wait()) for worker in workers]
            await asyncio.wait(waits, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        news = {worker.batch.key: self._news(worker) for worker in workers}
        return {key: item for key, item in news.items() if item}

    def _news(self, worker: _Worker) -> BatchNews:
        if worker.kill_at is not None and time.monotonic() > worker.kill_at and worker.process:
            end_session(worker.process.pid)
        had_exited = worker.exited.is_set()  # asked before reading: what it wrote until its end is in the file
        news = worker.reader.read_new()
        if not had_exited or worker.reader.has_more():
            return replace(news, ended=None)
        del self._workers[worker.batch.key]
        returncode = worker.child.wait() if worker.child else None
        if worker.process:
            end_session(worker.process.pid)
        if news.ended is None:
            return replace(news, ended="lost", problem=self._why_lost(worker, returncode))
        return news

    @staticmethod
    def _why_lost(worker: _Worker, returncode: int | None) -> str:
        log = worker.batch.folder / worker.batch.files.worker_log
        said = ""
        with contextlib.suppress(OSError):
            said = log.read_text(errors="replace").strip()[-2000:]
        how = "its worker vanished" if returncode is None else f"its worker ended with returncode={returncode}"
        return f"{how}{': ' + said if said else ''}"

    async def cancel(self, keys: Collection[str]) -> None:
        """Tell the workers to end their units (TERM, grace, KILL); a worker that does not obey is killed."""
        for key in keys:
            worker = self._workers.get(key)
            if worker is None or worker.kill_at is not None or worker.process is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGTERM)
            worker.kill_at = time.monotonic() + self._options.grace_seconds + 2.0
