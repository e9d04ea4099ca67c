"""How long the command line takes to start, against a bare Python."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from sqlalchemy import insert

from runner_core import read_settings
from runner_core.store.models import Job
from runner_core.store.session import open_store

PILOTHOUSE = [sys.executable, "-m", "tui"]


def cpu_seconds(*words: str) -> float:
    """CPU seconds, user and system, of one run of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def make_jobs(count: int) -> None:
    """A store with that many jobs that have ended."""
    outcome = {"phase": "done", "failure": None, "tasks": []}
    job = {"status": "done", "backend": "local", "first_task_index": 0, "last_task_index": 0, "outcome": outcome}
    with open_store(read_settings().store).session(write=True) as session:
        session.execute(insert(Job), [job] * count)


def run(*, rounds: int = 9, jobs: int = 10_000) -> dict[str, float]:
    """Medians in CPU seconds, and how many bare starts of Python each is worth."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PILOTHOUSE_HOME"] = str(Path(folder) / "home")
        make_jobs(jobs)
        commands = {
            "bare_python": [sys.executable, "-c", ""],
            "help": [*PILOTHOUSE, "--help"],
            "job_list_10_000": [*PILOTHOUSE, "job", "list"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, words in commands.items():
                seconds[name].append(cpu_seconds(*words))
    medians = {f"{name}_cpu_seconds": statistics.median(values) for name, values in seconds.items()}
    bare = medians["bare_python_cpu_seconds"]
    ratios = {f"{name}_ratio": medians[f"{name}_cpu_seconds"] / bare for name in ("help", "job_list_10_000")}
    return medians | ratios
