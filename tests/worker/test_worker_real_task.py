"""Real tasks on real images: a warm process gives the same outputs, and the same files byte for byte."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

COUNT = 3
MAKE_IMAGES = """
import sys
import numpy as np
from ngio import create_ome_zarr_from_array

counts = np.random.default_rng(1)
for number in range(int(sys.argv[2])):
    create_ome_zarr_from_array(
        f"{sys.argv[1]}/image{number}.zarr",
        counts.integers(0, 4000, (1, 4, 64, 64)).astype(np.uint16),
        pixelsize=0.65,
        z_spacing=2.0,
        levels=2,
        channel_labels=["signal"],
        channel_wavelengths=["A01_C01"],
    )
"""


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def words_of(log: str) -> list[str]:
    """A log without its times of day."""
    return [line.partition(";")[2] for line in log.splitlines()]


@pytest.fixture
def images(tmp_path: Path, real_tasks_python: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    subprocess.run([real_tasks_python, "-c", MAKE_IMAGES, folder, str(COUNT)], check=True)
    return folder


def test_l2_projection_makes_the_same_images_plain_and_warm(bench, images, real_tasks_python):
    """Decision L2: warm workers import the task's modules once; what they write is what plain runs write."""
    (script,) = real_tasks_python.parents[1].glob("lib/python3*/site-packages/fractal_tasks_core/projection.py")
    command = [str(real_tasks_python), str(script)]
    made = []
    for warm in (None, 50):
        shutil.rmtree(bench.folder)
        bench.folder.mkdir()
        data = bench.folder / "data"
        shutil.copytree(images, data)
        arguments = [{"zarr_url": f"{data}/image{number}.zarr"} for number in range(COUNT)]
        report = bench.run(command, arguments, warm=warm, parallel=1 if warm else 2)
        assert report.returncodes == [0] * COUNT
        assert report.notes == ""
        assert len(set(report.pids)) == (1 if warm else COUNT)
        outputs = [json.loads(report.ends[unit]["output"]) for unit in range(COUNT)]
        made.append((outputs, files(data), [words_of(report.log(unit)) for unit in range(COUNT)]))
    (plain_outputs, plain_files, plain_logs), warm_made = made
    assert [output["image_list_updates"][0]["types"] for output in plain_outputs] == [{"is_3D": False}] * COUNT
    assert sum("_mip.zarr/" in name for name in plain_files) >= 3 * COUNT
    assert plain_logs[0][0] == " run_fractal_task; INFO; START projection task"
    assert warm_made == (plain_outputs, plain_files, plain_logs)
