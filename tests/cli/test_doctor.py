"""What the doctor finds, and the mend that it names."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command_line import Cli


def findings(answer: Any) -> dict[str, dict[str, str]]:
    return {finding["name"]: finding for finding in answer.json}


def test_a_healthy_installation_has_no_problem(cli: Cli, home: Path) -> None:
    answer = cli("doctor", "--json")

    found = findings(answer)
    assert answer.code == 0
    assert {"python", "settings", "home", "space", "locks", "clock", "store", "uv", "cpus", "limits"} <= set(found)
    assert all(set(finding) == {"name", "health", "found", "mend"} for finding in answer.json)
    assert all(finding["health"] != "problem" for finding in answer.json)
    assert "write-ahead log" in found["store"]["found"]
    assert found["task packages"]["found"] == "1 collected"
    assert found["jobs"]["found"] == "none is submitted"
    assert not list(home.glob(".doctor-*"))


def test_each_finding_is_one_line(cli: Cli, home: Path) -> None:
    lines = cli("doctor").out.splitlines()

    assert all(line.split()[0] in {"ok", "warning", "problem"} for line in lines)


def test_nothing_is_made_where_there_is_nothing_yet(cli: Cli, pilothouse_home: Path) -> None:
    answer = cli("doctor", "--json")

    assert answer.code == 0
    assert "at the first use" in findings(answer)["store"]["found"]
    assert not pilothouse_home.exists()


@pytest.mark.parametrize(
    ("setting", "value", "name", "says"),
    [
        ("PILOTHOUSE_RUNNER_BACKEND", "abacus", "settings", "'abacus'"),
        ("PILOTHOUSE_PROFILE", "nobody", "settings", "there is no profile"),
        ("PILOTHOUSE_LOCAL_CONFIG_FILE", "/no/such/file.json", "cpus", "/no/such/file.json"),
        ("PILOTHOUSE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/x", "store", "does not answer"),
        ("PILOTHOUSE_MAX_UNITS_PER_TASK", "many", "settings", "max_units_per_task"),
    ],
)
def test_what_is_wrong_is_a_problem_with_its_mend(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, name: str, says: str
) -> None:
    monkeypatch.setenv(setting, value)

    answer = cli("doctor", "--json")

    finding = findings(answer)[name]
    assert answer.code == 1
    assert finding["health"] == "problem"
    assert says.lower() in finding["found"].lower()


def test_a_package_without_its_interpreter_is_named_with_the_command_that_mends_it(cli: Cli, home: Path) -> None:
    with sqlite3.connect(home / "store.db") as connection:
        connection.execute("UPDATE task_package SET interpreter = '/gone/bin/python'")

    answer = cli("doctor", "--json")

    finding = findings(answer)["task packages"]
    assert answer.code == 1
    assert finding["found"] == "toy-tasks 1.0: its interpreter /gone/bin/python is gone"
    assert finding["mend"] == "pilothouse task collect --interpreter PYTHON --package toy-tasks"


def test_a_home_that_others_may_enter_is_a_warning(cli: Cli, home: Path) -> None:
    home.chmod(0o755)

    answer = cli("doctor", "--json")

    finding = findings(answer)["home"]
    assert answer.code == 0
    assert (finding["health"], finding["mend"]) == ("warning", f"chmod 700 {home}")


def test_a_damaged_store_is_a_problem(cli: Cli, home: Path) -> None:
    (home / "store.db").write_bytes(b"no database at all" * 100)
    for leftover in home.glob("store.db-*"):
        shutil.rmtree(leftover, ignore_errors=True)

    answer = cli("doctor", "--json")

    assert answer.code == 1
    assert findings(answer)["store"]["health"] == "problem"
