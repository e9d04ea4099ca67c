"""A bench for the worker: plans and scripts in a folder, real worker processes, and what they wrote."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runner_core.worker import WORKER_FILE


@dataclass(frozen=True)
class Report:
    """What a worker left: its exit code, what it printed itself, and the lines of its result file."""

    folder: Path
    returncode: int
    printed: str
    lines: list[dict[str, Any]]

    def of_kind(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    @property
    def ends(self) -> dict[int, dict[str, Any]]:
        ends = self.of_kind("end")
        by_unit = {line["unit"]: line for line in ends}
        assert len(by_unit) == len(ends), "a unit ended twice"
        return by_unit

    @property
    def returncodes(self) -> list[int | None]:
        return [end["returncode"] for _, end in sorted(self.ends.items())]

    @property
    def pids(self) -> list[int]:
        return [line["pid"] for line in sorted(self.of_kind("start"), key=lambda line: line["unit"])]

    @property
    def notes(self) -> str:
        return "\n".join(line["text"] for line in self.of_kind("note"))

    @property
    def finish(self) -> dict[str, Any]:
        assert self.lines[-1]["event"] == "finish"
        return self.lines[-1]

    def log(self, unit: int) -> str:
        return (self.folder / f"unit{unit}.log").read_text(errors="surrogateescape")


def environment() -> dict[str, str]:
    """This process's environment without what would change the interpreters under test."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def reset_signals() -> None:
    """As in a shell, also when the tests themselves run in its background."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)


@dataclass
class Bench:
    """Runs workers in one folder."""

    folder: Path
    workers: list[subprocess.Popen[str]] = field(default_factory=list)

    def script(self, source: str, name: str = "task.py") -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    def guarded(self, body: str, *, top: str = "") -> Path:
        """A script with this body behind its main guard."""
        guard = 'if __name__ == "__main__":\n'
        return self.script(textwrap.dedent(top) + guard + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n")

    def plan(self, command: Path | list[str], units: int | list[dict[str, Any]] = 1, **fields: Any) -> dict[str, Any]:
        arguments = [{"number": number} for number in range(units)] if isinstance(units, int) else units
        plan = {
            "key": "job-1-0",
            "attempt": 1,
            "command": [sys.executable, str(command)] if isinstance(command, Path) else command,
            "folder": str(self.folder),
            "results": "results.jsonl",
            "parallel": 1,
            "grace": 5.0,
            "environment": {},
            "warm": None,
            "units": [{"index": i, "name": f"unit{i}", "arguments": item} for i, item in enumerate(arguments)],
        }
        return {**plan, **fields}

    def start(self, plan: dict[str, Any], **options: Any) -> subprocess.Popen[str]:
        """Start a worker as a backend does."""
        path = self.folder / "plan.json"
        if not path.exists() or path.is_file():
            path.write_text(json.dumps(plan))
        words = [sys.executable, "-I", "-S", str(WORKER_FILE), str(path)]
        options = {"env": environment(), **options}
        worker = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )
        self.workers.append(worker)
        return worker

    def report(self, worker: subprocess.Popen[str]) -> Report:
        """Wait for the worker's end."""
        printed, _ = worker.communicate(timeout=60)
        lines = (self.folder / "results.jsonl").read_text().splitlines(keepends=True)
        assert all(line.endswith("\n") for line in lines)
        return Report(self.folder, worker.returncode, printed, [json.loads(line) for line in lines])

    def run(self, command: Path | list[str], units: int | list[dict[str, Any]] = 1, **fields: Any) -> Report:
        """Run a batch to its end, which must be an orderly one."""
        report = self.report(self.start(self.plan(command, units, **fields)))
        assert (report.returncode, report.printed) == (0, "")
        return report

    def run_bare(self, script: Path, **arguments: Any) -> tuple[int, str, str | None]:
        """Run a script by itself, without any worker; returns its exit code, its log and its output."""
        folder = self.folder / "bare"
        folder.mkdir(exist_ok=True)
        names = [folder / f"unit0.{ending}" for ending in ("args.json", "metadiff.json", "log")]
        for name in names:
            name.unlink(missing_ok=True)
        args_json, out_json, log = names
        args_json.write_text(json.dumps(arguments))
        words = [sys.executable, str(script), "--args-json", str(args_json), "--out-json", str(out_json)]
        with log.open("ab") as file:
            process = subprocess.run(
                words,
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                check=False,
                preexec_fn=reset_signals,
            )
        output = out_json.read_text() if out_json.exists() else None
        return process.returncode, log.read_text(errors="surrogateescape"), output


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "task"
    folder.mkdir()
    bench = Bench(folder)
    yield bench
    for worker in bench.workers:
        with worker:  # one that hangs is not left behind by its test
            worker.kill()


@pytest.fixture(params=[None, 50], ids=["plain", "warm"])
def warm(request: pytest.FixtureRequest) -> int | None:
    """The way in which a batch runs its units."""
    way: int | None = request.param
    return way


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Wait until something holds, and give it back; a generous deadline makes a hanging test fail."""

    def wait(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 30
        while not (value := condition()):
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.005)
        return value

    return wait


def is_running(pid: int) -> bool:
    """Whether a process lives; its remains (a zombie) do not count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.fixture
def running() -> Iterator[Callable[[int], bool]]:
    """Ask whether a process lives; those asked for are ended with the test."""
    asked: set[int] = set()

    def ask(pid: int) -> bool:
        asked.add(pid)
        return is_running(pid)

    yield ask
    for pid in filter(is_running, asked):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
