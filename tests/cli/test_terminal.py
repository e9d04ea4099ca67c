"""On a terminal: bars while something is going on, colours, and nothing that could harm it."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.cli.command_line import COMMAND, Cli, Stage

UTF8 = {"LANG": "C.UTF-8", "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}


def on_terminal(*words: str, **environment: str) -> tuple[int, str]:
    """Run a command with a terminal for stdout and stderr; returns its exit code and all that it drew."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **UTF8, **environment},
        )
        os.close(theirs)
        drawn = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            drawn += chunk
        return process.wait(), drawn.decode()
    finally:
        os.close(ours)


def test_waiting_draws_a_bar_per_task(cli: Cli, stage: Stage) -> None:
    workflow = stage.workflow({"task": "Each"}, {"task": "Whole"})

    code, drawn = on_terminal("run", str(workflow), str(stage.dataset(2)), "--wait", NO_COLOR="")

    assert code == 0
    assert "━" in drawn
    assert "0 Each" in drawn
    assert "1 Whole" in drawn
    assert "2/2" in drawn
    assert "\x1b[32mdone\x1b[0m" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")  # the cursor is back


def test_ascii_and_no_color_hold_for_bars_too(cli: Cli, stage: Stage) -> None:
    workflow = stage.workflow({"task": "Each"})

    _, drawn = on_terminal("run", str(workflow), str(stage.dataset(1)), "--wait", "--ascii", NO_COLOR="1")

    assert drawn.isascii()
    assert "\x1b[32m" not in drawn
    assert "1/1" in drawn


def test_a_dumb_terminal_gets_plain_lines(cli: Cli, stage: Stage) -> None:
    workflow = stage.workflow({"task": "Each"})

    _, drawn = on_terminal("run", str(workflow), str(stage.dataset(1)), "--wait", TERM="dumb")

    assert "\x1b" not in drawn
    assert "task 0 Each: done 1/1" in drawn


def test_collecting_shows_its_steps_while_they_last(home: Path) -> None:
    code, drawn = on_terminal("task", "collect", "no-such-tasks", UV_OFFLINE="1", NO_COLOR="1")

    assert code in {4, 5, 6}
    assert "Collecting no-such-tasks: looking for no-such-tasks" in drawn
    assert "\x1b[31m" not in drawn
    assert "error: " in drawn.splitlines()[-1]


def test_logs_can_only_be_read_on_a_terminal(cli: Cli, stage: Stage) -> None:
    evil = b"\x1b]0;title\x07\x1b[2Jcleared\rover \xe2\x80\xae bidi \xff end\n"
    job = stage.run({"task": "Whole", "args_non_parallel": {"print_bytes": evil.hex()}})

    for words in (["logs", str(job["id"]), "--task", "0"], ["cat", str(job["id"]), "0_whole/0.log"]):
        code, drawn = on_terminal("job", *words)
        assert code == 0
        assert "\x1b" not in drawn
        assert r"\u202e bidi" in drawn
        assert "\u202e" not in drawn


@pytest.mark.parametrize(("limit", "shown"), [([], 30), (["--limit", "40"], 40)])
def test_a_terminal_gets_the_newest_jobs_only(many_jobs: Path, limit: list[str], shown: int) -> None:
    _, drawn = on_terminal("job", "list", *limit, NO_COLOR="1")

    lines = drawn.splitlines()
    assert sum(line.strip()[:1].isdigit() for line in lines) == shown
    assert ("--limit N shows more" in drawn) == (not limit)
    assert all(len(line) <= 100 for line in lines)
