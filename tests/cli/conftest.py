"""The command line with a store that holds toy tasks: run in this process, or as a process of its own."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uv

from tests.cli.command_line import COMMAND, Answer, Cli, Stage, until
from tui.cli import run

TOY_TASK = Path(__file__).parents[1] / "runner" / "toy_task.py"


def toy_manifest() -> dict[str, Any]:
    """One task of each kind, and one that takes flat images alone."""
    script = "toy_task.py"
    schema = {"type": "object", "properties": {"speed": {"type": "integer"}}, "required": []}
    return {
        "manifest_version": "2",
        "task_list": [
            {"name": "Each", "type": "parallel", "executable_parallel": script},
            {"name": "Whole", "type": "non_parallel", "executable_non_parallel": script},
            {
                "name": "Planned",
                "type": "compound",
                "executable_non_parallel": script,
                "executable_parallel": script,
                "output_types": {"flat": True},
            },
            {"name": "Convert", "type": "converter_non_parallel", "executable_non_parallel": script},
            {
                "name": "Flat Only",
                "type": "parallel",
                "executable_parallel": script,
                "input_types": {"flat": True},
                "args_schema_parallel": schema,
            },
        ],
    }


@pytest.fixture(scope="session")
def toy_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the package `toy-tasks`, version 1.0."""
    environment = tmp_path_factory.mktemp("toy") / "env"
    subprocess.run([uv.find_uv_bin(), "venv", "--quiet", "--python", sys.executable, environment], check=True)
    site = next(environment.glob("lib/python*/site-packages"))
    package, metadata = site / "toy_tasks", site / "toy_tasks-1.0.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__FRACTAL_MANIFEST__.json").write_text(json.dumps(toy_manifest()))
    shutil.copy(TOY_TASK, package / "toy_task.py")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-tasks\nVersion: 1.0\n")
    (metadata / "RECORD").write_text("toy_tasks/__FRACTAL_MANIFEST__.json,,\n")
    return environment / "bin" / "python"


@pytest.fixture(scope="session")
def stocked_home(toy_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store holds the toy tasks; to copy, since making one takes longer than most tests."""
    home = tmp_path_factory.mktemp("stocked")
    ours = {name for name in os.environ if name.startswith(("PILOTHOUSE_", "FRACTAL_"))}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    collect = ["task", "collect", "--interpreter", str(toy_python), "--package", "toy-tasks", "--json"]
    subprocess.run(
        [*COMMAND, *collect], env={**environment, "PILOTHOUSE_HOME": str(home)}, check=True, stdout=subprocess.DEVNULL
    )
    return home


@pytest.fixture
def home(pilothouse_home: Path, stocked_home: Path) -> Path:
    """This test's home, with the toy tasks in its store."""
    pilothouse_home.mkdir(mode=0o700)
    shutil.copy(stocked_home / "store.db", pilothouse_home / "store.db")
    return pilothouse_home


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs one command line in this process, as `main` does: `cli("job", "list", stdin=b"")`."""

    def invoke(*words: object, stdin: bytes = b"") -> Answer:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        code = run([str(word) for word in words])
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return invoke


@pytest.fixture
def zarr_dir(tmp_path: Path) -> Path:
    return tmp_path / "zarr"


@pytest.fixture
def stage(cli: Cli, home: Path, zarr_dir: Path) -> Stage:
    return Stage(cli, zarr_dir)


@pytest.fixture
def held_job(stage: Stage, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A job that runs until the file is there; its first unit has begun."""
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    does = {"print": ["first line"], "touch": str(begun), "wait_for": str(gate)}
    workflow = stage.workflow({"task": "Each", "args_parallel": does})
    answer = stage.cli("run", workflow, stage.dataset(1), "--json")
    assert answer.code == 0, answer.err
    until(begun.exists)
    yield answer.json["id"], gate
    gate.touch()
    stage.cli("job", "logs", answer.json["id"], "-f")


@pytest.fixture
def many_jobs(home: Path) -> Path:
    """A home with ten thousand jobs that have ended, whose folders are gone."""
    unit_counts = {"total": 96, "done": 96, "failed": 0, "running": 0, "pending": 0}
    task = {"order": 0, "name": "Each", "type": "parallel", "state": "done", "units": unit_counts}
    outcome = {"phase": "done", "failure": None, "tasks": [{**task, "started": 1.8e9, "ended": 1.8e9 + 60}]}
    row = ("done", "local", 0, 0, "2026-01-31 12:00:00", "2026-01-31 12:01:00", "/gone", json.dumps(outcome), "{}")
    columns = "status, backend, first_task_index, last_task_index, start_timestamp, end_timestamp, working_dir, outcome"
    dumps = "project_dump, workflow_dump, dataset_dump"
    with sqlite3.connect(home / "store.db") as connection:
        statement = f"INSERT INTO job ({columns}, {dumps}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        connection.executemany(statement, [(*row, "{}", "{}")] * 10_000)
    return home
