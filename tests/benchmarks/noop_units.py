"""N no-op units through the `local` backend, against the same commands under `xargs -P`.

The whole job counts: folders, arguments, logs, journal, store and zip. The floor does none of that.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runner_core.backends.local import usable_cpus
from tests.runner.workbench import Step, Workbench

NOOP = Path(__file__).with_name("noop_task.py")


def command() -> list[str]:
    """The plainest process that Python can be: no site packages, nothing imported."""
    return [str(Path(sys.executable).resolve()), "-I", "-S", str(NOOP)]


def time_ours(units: int) -> float:
    """Seconds from the call of `submit_workflow` to its return."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PILOTHOUSE_HOME"] = f"{folder}/home"
        bench = Workbench(Path(folder))
        job_id = bench.job(Step(command=shlex.join(command())), images=units)
        start = time.perf_counter()
        ended = bench.submit(job_id)
        seconds = time.perf_counter() - start
        assert ended.status == "done", ended.log
        return seconds


def time_floor(units: int) -> float:
    """Seconds that `xargs -P` needs for the same commands."""
    with tempfile.TemporaryDirectory() as folder:
        lines = (f"--args-json {folder}/{n}.args.json --out-json {folder}/{n}.metadiff.json\n" for n in range(units))
        words = ["xargs", f"-P{usable_cpus()}", "-L1", *command()]
        start = time.perf_counter()
        subprocess.run(words, input="".join(lines), text=True, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def run(*, units: int = 1_000, rounds: int = 5) -> dict[str, float]:
    """Medians of alternating runs, in seconds, and the median of the ratios of neighbours."""
    pairs = [(time_ours(units), time_floor(units)) for _ in range(rounds)]
    ours, floor = zip(*pairs, strict=True)
    return {
        "units": units,
        "ours_seconds": statistics.median(ours),
        "xargs_seconds": statistics.median(floor),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


if __name__ == "__main__":
    print(run())
