"""What a command costs before it does anything: it imports what it needs and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command_line import COMMAND, Cli

IMPORTED = """
import json, os, sys
from tui.cli import run
code = run(sys.argv[1:])
os.write(2, json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]).encode())
"""


def modules_after(*words: str) -> set[str]:
    """The top-level modules that a command has imported, its output going into a pipe."""
    ended = subprocess.run([sys.executable, "-c", IMPORTED, *words], capture_output=True, check=True)
    code, modules = json.loads(ended.stderr)
    assert code == 0
    return set(modules)


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["job", "--help"], ["run", "--help"], ["completion", "zsh"]]
)
def test_help_imports_click_and_nothing_heavy(words: list[str]) -> None:
    heavy = {"pydantic", "pydantic_core", "sqlalchemy", "rich", "jsonschema", "alembic", "textual", "asyncio"}

    assert modules_after(*words).isdisjoint(heavy)


def test_a_list_into_a_pipe_imports_neither_screens_nor_schemas(home: Path) -> None:
    heavy = {"alembic", "jsonschema", "textual", "rich", "packaging"}

    assert modules_after("job", "list").isdisjoint(heavy)


def test_ten_thousand_jobs_are_listed_without_a_look_at_their_folders(many_jobs: Path, cli: Cli) -> None:
    listed = cli("job", "list", "--json")

    assert len(listed.json) == 10_000
    assert listed.json[0]["id"] == 10_000
    table = subprocess.run([*COMMAND, "job", "list"], env=os.environ, capture_output=True, check=True).stdout
    assert table.count(b"\n") == 10_001
