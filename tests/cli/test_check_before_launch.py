"""`pilothouse run --check`: what would become of a job, before anything runs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.cli.command_line import Cli, Stage


def test_the_check_counts_what_the_first_filters_select_and_launches_nothing(cli: Cli, stage: Stage) -> None:
    workflow = stage.workflow({"task": "Planned"}, {"task": "Flat Only", "type_filters": {"flat": True}})

    answer = cli("run", workflow, stage.dataset(3), "--check", "--json")

    first, second = answer.json["tasks"]
    assert answer.code == 0
    assert answer.json["ok"] is True
    assert first["images"] == {"total": 3, "selected": 3, "unfit": 0, "exact": True}
    assert second["images"] == {"total": 3, "selected": 3, "unfit": 0, "exact": False}
    assert cli("job", "list", "--json").json == []


def test_t4_the_check_finds_images_that_the_input_types_refuse(cli: Cli, stage: Stage) -> None:
    workflow = stage.workflow({"task": "Flat Only"})

    answer = cli("run", workflow, stage.dataset(3), "--check")

    assert answer.code == 5
    assert "3 of 3 images, 3 of them without its input types" in answer.out
    assert "Invalid filtered image list" in answer.out
    assert cli("run", workflow, 1, "--wait", "--json").json["failure"]["kind"] == "images"


def test_the_check_of_a_later_task_only_warns(cli: Cli, stage: Stage) -> None:
    workflow = stage.workflow({"task": "Each"}, {"task": "Flat Only"})

    answer = cli("run", workflow, stage.dataset(3), "--check", "--json")

    assert answer.code == 0
    assert answer.json["tasks"][1]["problems"] == []
    assert "Invalid filtered image list" in answer.json["tasks"][1]["warnings"][0]


def test_the_check_says_that_nobody_knows_what_a_converter_makes(cli: Cli, stage: Stage) -> None:
    workflow = stage.workflow({"task": "Convert"}, {"task": "Each"})

    answer = cli("run", workflow, stage.dataset(0), "--check")

    assert answer.code == 0
    assert "Convert (converter_non_parallel): takes no images" in answer.out
    assert "Each (parallel): images not known before the converter ran" in answer.out


def test_p5_the_check_finds_too_many_units(cli: Cli, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = stage.workflow({"task": "Each"})
    monkeypatch.setenv("PILOTHOUSE_MAX_UNITS_PER_TASK", "2")

    answer = cli("run", workflow, stage.dataset(3), "--check")

    assert answer.code == 5
    assert "it would run 3 units, and at most 2 are allowed" in answer.out


def test_the_check_warns_of_filters_that_select_nothing(cli: Cli, stage: Stage) -> None:
    workflow = stage.workflow({"task": "Each", "type_filters": {"nobody_has_it": True}})

    answer = cli("run", workflow, stage.dataset(3), "--check")

    assert answer.code == 0
    assert "warning: its filters select no image" in answer.out


def test_the_check_finds_a_busy_dataset_and_a_bad_range(cli: Cli, held_job: tuple[int, Path]) -> None:
    answer = cli("run", 1, 1, "--first", 7, "--backend", "abacus", "--check", "--json")

    assert answer.code == 5
    busy = [problem for problem in answer.json["problems"] if f"busy with job {held_job[0]}" in problem]
    assert len(busy) == 1
    assert any("does not fit a workflow of 1 tasks" in problem for problem in answer.json["problems"])
    assert any("unknown backend" in problem for problem in answer.json["problems"])


def test_the_check_finds_an_environment_that_is_gone(cli: Cli, stage: Stage, home: Path) -> None:
    workflow = stage.workflow({"task": "Each"})
    with sqlite3.connect(home / "store.db") as connection:
        connection.execute("UPDATE task SET command_parallel = '/no/such/python /no/such/task.py'")

    answer = cli("run", workflow, stage.dataset(1), "--check")

    assert answer.code == 5
    assert "the command '/no/such/python' was not found" in answer.out
    assert "collect its package again" in answer.out


@pytest.mark.parametrize("command", ["echo 'half a", "echo a;b", "", "/bin/sh /no/such/task.py"])
def test_p1_the_check_finds_a_command_that_cannot_be_run(cli: Cli, stage: Stage, home: Path, command: str) -> None:
    workflow = stage.workflow({"task": "Each"})
    with sqlite3.connect(home / "store.db") as connection:
        connection.execute("UPDATE task SET command_parallel = ?", (command,))

    (task,) = cli("run", workflow, stage.dataset(1), "--check", "--json").json["tasks"]

    assert len(task["problems"]) == 1
    assert task["problems"][0].endswith("(collect its package again)")
