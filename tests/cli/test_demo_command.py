"""`pilothouse demo`: real tasks over real pictures, from the command to the measurements."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from runner_core import prepare_demo, read_settings
from tests.cli.command_line import Cli


@pytest.fixture
def collected_home(cli: Cli, pilothouse_home: Path, real_tasks_python: Path) -> Path:
    """A home that holds the real task package, as if it had been collected from the index."""
    cli("task", "collect", "--interpreter", real_tasks_python, "--package", "fractal-tasks-core")
    with sqlite3.connect(pilothouse_home / "store.db") as connection:
        connection.execute(
            "UPDATE task_package SET origin = 'pypi', requested = 'fractal-tasks-core==2.1.0', env_dir = ?",
            (str(real_tasks_python.parents[1]),),
        )
    return pilothouse_home


def test_the_demo_runs_real_tasks_and_tells_where_everything_is(cli: Cli, collected_home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"

    answer = cli("demo", "--dir", folder, "--backend", "local_experimental")

    assert answer.code == 0, answer.err + answer.out
    assert answer.out.startswith("The demo is done: 4 tasks in ")
    assert "images before  4 images" in answer.out
    assert "images after   12 images: 4 in 2D, 8 in 3D" in answer.out
    tables = re.findall(r"^ +\d+ objects?  (\S+)$", answer.out, re.MULTILINE)
    assert len(tables) == 4
    assert all(Path(table).is_relative_to(folder / "run-001") and Path(table).is_file() for table in tables)
    archive = re.search(r"job files +(\S+\.zip)$", answer.out, re.MULTILINE)
    assert archive is not None
    assert Path(archive[1]).is_file()
    assert "pilothouse job show 1" in answer.out
    assert "task 3 Measure Features: done 4/4" in answer.err


def test_a_second_demo_uses_what_the_first_one_made_and_has_images_of_its_own(
    collected_home: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    made: list[tuple[int, int]] = []
    first, second = (
        prepare_demo(
            read_settings(),
            tmp_path / "demo",
            report=said.append,
            report_images=lambda done, total: made.append((done, total)),
        )
        for _ in range(2)
    )

    assert said == []  # nothing was collected
    assert made == [(1, 4), (2, 4), (3, 4), (4, 4)]  # by the first one
    assert first.workflow_id == second.workflow_id
    assert first.dataset_id != second.dataset_id
    assert (first.zarr_dir.name, second.zarr_dir.name) == ("run-001", "run-002")
