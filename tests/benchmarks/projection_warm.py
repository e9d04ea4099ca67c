"""The real task `projection` on small images: a process per image against warm processes."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.runner.workbench import Ended, Step, Workbench, image
from tests.worker.test_worker_real_task import MAKE_IMAGES

TASK_ENVIRONMENT = Path(__file__).parents[1] / "task_environment.py"


def real_tasks_python() -> Path:
    """The interpreter of the environment that holds fractal-tasks-core, made if it is not there."""
    words = [sys.executable, TASK_ENVIRONMENT]
    return Path(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


def unit_seconds(ended: Ended) -> list[float]:
    """Seconds that each unit took, in the order in which they ended."""
    lines = map(json.loads, ended.read("0_toy_task/0_batch_000000.results.jsonl").splitlines())
    return [line["ended"] - line["started"] for line in lines if line["event"] == "end"]


def run_projection(python: Path, backend: str, *, images: int, folder: Path) -> tuple[float, list[float]]:
    """Seconds of the whole job, and of each of its units."""
    os.environ["PILOTHOUSE_HOME"] = str(folder / "home")
    os.environ["FRACTAL_RUNNER_BACKEND"] = backend
    bench = Workbench(folder)
    bench.zarr_dir.mkdir()
    subprocess.run([python, "-c", MAKE_IMAGES, bench.zarr_dir, str(images)], check=True)
    (script,) = python.parents[1].glob("lib/python3*/site-packages/fractal_tasks_core/projection.py")
    command = shlex.join([str(python), str(script)])
    job_id = bench.job(
        Step(command=command), images=[image(bench.url(f"image{number}.zarr")) for number in range(images)]
    )
    start = time.perf_counter()
    ended = bench.submit(job_id)
    seconds = time.perf_counter() - start
    assert ended.status == "done", ended.log
    return seconds, unit_seconds(ended)


def run(*, images: int = 40) -> dict[str, float]:
    """Seconds of the job and of the median unit, plain and warm, and their ratios."""
    python = real_tasks_python()
    measured = {}
    for backend in ("local", "local_experimental"):
        with tempfile.TemporaryDirectory() as folder:
            measured[backend] = run_projection(python, backend, images=images, folder=Path(folder))
    (plain, plain_units), (warm, warm_units) = measured["local"], measured["local_experimental"]
    plain_unit, warm_unit = statistics.median(plain_units), statistics.median(warm_units)
    return {
        "images": images,
        "plain_job_seconds": plain,
        "warm_job_seconds": warm,
        "job_ratio": plain / warm,
        "plain_unit_seconds": plain_unit,
        "warm_unit_seconds": warm_unit,
        "unit_ratio": plain_unit / warm_unit,
    }
