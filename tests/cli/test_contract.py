"""What every command promises: exit codes, one line per error, clean stdout, global options anywhere."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.cli.command_line import COMMAND, Cli, Stage


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["frobnicate"], 2, "no such command 'frobnicate'"),
        (["job"], 2, "missing command"),
        (["job", "show"], 2, "missing argument"),
        (["job", "show", "one"], 2, "not a valid integer"),
        (["job", "list", "--status", "happy"], 2, "'happy' is not one of"),
        (["run", "1", "1", "--backend", "local", "--profile", "p"], 2, "not both"),
        (["task", "collect"], 2, "give either SPEC"),
        (["task", "collect", "x", "--package", "y"], 2, "give either SPEC"),
        (["task", "collect", "x", "--python", "snake"], 2, "not a Python version"),
        (["job", "logs", "1", "--unit", "0"], 2, "--unit needs --task"),
        (["dataset", "create", "x", "--zarr-dir", "relative/path"], 2, "not an absolute path"),
        (["dataset", "create", "x", "--zarr-dir", "s3://bucket"], 2, "S3"),
        (["dataset", "create", "a\x1b[2Jb", "--zarr-dir", "/data"], 2, "control characters"),
        (["job", "show", "77"], 4, "there is no job 77"),
        (["job", "stop", "77"], 4, "there is no job 77"),
        (["job", "logs", "77"], 4, "there is no job 77"),
        (["job", "files", "77"], 4, "there is no job 77"),
        (["job", "cat", "77", "x"], 4, "there is no job 77"),
        (["workflow", "show", "77"], 4, "there is no workflow '77'"),
        (["workflow", "import", "/nowhere/at-all.json"], 4, "there is no file"),
        (["dataset", "show", "nobody"], 4, "there is no dataset 'nobody'"),
        (["dataset", "scan", "nobody", "/"], 4, "there is no dataset"),
        (["run", "77", "77"], 4, "there is no"),
        (["run", "77", "77", "--check"], 4, "there is no workflow"),
        (["task", "remove", "nothing"], 4, "there is no task package 'nothing'"),
        (["task", "collect", "--interpreter", "/no/python", "--package", "x"], 4, "there is no interpreter"),
    ],
)
def test_a_wrong_call_ends_with_its_exit_code_and_one_line_on_stderr(
    cli: Cli, home: Path, words: list[str], code: int, says: str
) -> None:
    answer = cli(*words)

    assert answer.code == code
    assert answer.out == ""
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("error: ")
    assert says in answer.err
    assert "\x1b" not in answer.err


def test_a_store_that_does_not_answer_is_out_of_reach(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTHOUSE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/store")

    answer = cli("job", "list")

    assert answer.code == 6
    assert answer.out == ""
    assert answer.err.startswith("error: the store postgresql")


def test_broken_settings_are_named_with_their_file(cli: Cli, home: Path) -> None:
    (home / "config.toml").write_text("colour = 'blue'\n")

    answer = cli("job", "list")

    assert answer.code == 2
    assert "config.toml: unknown key 'colour'" in answer.err


@pytest.mark.parametrize(
    "words", [["--debug", "job", "show", "77"], ["job", "--debug", "show", "77"], ["job", "show", "77", "--debug"]]
)
def test_debug_adds_the_traceback_wherever_it_stands(cli: Cli, home: Path, words: list[str]) -> None:
    answer = cli(*words)

    assert answer.code == 4
    assert answer.err.startswith("Traceback (most recent call last):")
    assert answer.err.splitlines()[-1].startswith("error: there is no job 77")


@pytest.mark.parametrize("words", [["task", "list"], ["workflow", "list"], ["dataset", "list"], ["job", "list"]])
def test_json_prints_one_document_and_nothing_else_on_stdout(cli: Cli, home: Path, words: list[str]) -> None:
    answer = cli(*words, "--json")

    assert answer.code == 0
    assert isinstance(answer.json, list)
    assert answer.err == ""


def test_help_of_every_command_tells_its_first_sentence(cli: Cli) -> None:
    top = cli("--help").out
    for name in ("demo", "doctor", "task", "workflow", "dataset", "run", "job", "completion"):
        answer = cli(name, "--help")
        assert answer.code == 0
        assert f"\n  {name} " in top
        assert answer.out.startswith(f"Usage: pilothouse {name}")


# -- read only


@pytest.mark.parametrize(
    "words",
    [
        ["demo"],
        ["task", "collect", "x"],
        ["task", "remove", "x"],
        ["workflow", "import", "x"],
        ["workflow", "delete", "x"],
        ["dataset", "create", "x", "--zarr-dir", "/data"],
        ["dataset", "scan", "x", "/data"],
        ["dataset", "delete", "x"],
        ["run", "x", "x"],
        ["job", "stop", "1"],
        ["job", "export", "1", "x"],
    ],
)
def test_read_only_refuses_what_changes_things(cli: Cli, home: Path, words: list[str]) -> None:
    answer = cli(*words, "--read-only")

    assert answer.code == 5
    assert answer.err == "error: this command changes things; leave --read-only out\n"


def test_read_only_makes_no_store_where_there_is_none(cli: Cli, pilothouse_home: Path) -> None:
    listing = cli("--read-only", "job", "list")
    overview = cli("--read-only")
    cli("doctor", "--read-only")

    assert listing.code == 4
    assert "there is no store" in listing.err
    assert overview.code == 0
    assert not pilothouse_home.exists()


# -- what is printed


def test_names_from_elsewhere_cannot_reach_the_terminal_as_they_are(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    evil = {"name": "bidi \u202e and 日本語 \U0001f9ec", "task_list": []}
    stage.cli("workflow", "import", "-", stdin=json.dumps(evil).encode())

    listed = cli("workflow", "list")
    as_json = cli("workflow", "list", "--json")

    assert "\u202e" not in listed.out + as_json.out
    assert as_json.out.isascii()


def test_ascii_prints_ascii_alone(cli: Cli, stage: Stage) -> None:
    stage.run({"task": "Each"})

    answers = [cli(*words, "--ascii") for words in (["job", "list"], ["job", "show", 1], [], ["run", 1, 1, "--check"])]

    for answer in answers:
        assert answer.out.isascii()
    assert "toys -> images" in answers[0].out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_that_cannot_hold_unicode_gets_everything_spelled_out(cli: Cli, stage: Stage, encoding: str) -> None:
    stage.workflow({"task": "Each"})
    cli("dataset", "create", "größe 日本", "--zarr-dir", "/data")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}

    def printed(*words: str) -> bytes:
        return subprocess.run([*COMMAND, *words], env=environment, capture_output=True, check=True).stdout

    assert b"toys -> gr" in printed("run", "1", "1", "--check")
    assert rb"gr\xf6\xdfe \u65e5\u672c" in printed("dataset", "list")


def test_json_holds_null_where_a_task_gave_no_finite_number_and_an_export_keeps_it(
    cli: Cli, stage: Stage, home: Path
) -> None:
    dataset = stage.dataset(1)
    attributes = '{"a": NaN, "b": Infinity, "c": "NaN", "d": 1.5}'
    with sqlite3.connect(home / "store.db") as connection:
        connection.execute(
            "UPDATE dataset SET images = replace(images, '\"attributes\":{}', ?)", (f'"attributes":{attributes}',)
        )

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    shown = json.loads(cli("dataset", "show", dataset, "--json").out, parse_constant=refuse)
    exported = cli("dataset", "export", dataset, "-").out

    assert shown["images"][0]["attributes"] == {"a": None, "b": None, "c": "NaN", "d": 1.5}
    assert '"a": NaN' in exported
    assert '"b": Infinity' in exported


# -- endings


def test_a_closed_pipe_is_silent(home: Path, cli: Cli) -> None:
    cli("dataset", "create", "images", "--zarr-dir", "/data")
    reader, writer = os.pipe()
    os.close(reader)

    ended = subprocess.run([*COMMAND, "dataset", "list"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)

    assert ended.returncode == 141
    assert ended.stderr == b""


def test_a_full_disk_below_stdout_is_one_line(home: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([*COMMAND, "task", "list"], stdout=full, stderr=subprocess.PIPE, check=False)

    assert ended.returncode == 5
    assert ended.stderr.decode().strip() == "error: No space left on device"


def test_ctrl_c_is_silent_and_leaves_the_job_running(cli: Cli, held_job: tuple[int, Path]) -> None:
    job_id, gate = held_job
    following = subprocess.Popen(
        [*COMMAND, "job", "logs", str(job_id), "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert following.stdout is not None
    following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, errors = following.communicate()

    assert following.returncode == 130
    assert errors == b""
    assert cli("job", "show", job_id, "--json").json["phase"] == "running"
    gate.touch()


# -- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(cli: Cli, shell: str) -> None:
    answer = cli("completion", shell)

    assert answer.code == 0
    assert f"_PILOTHOUSE_COMPLETE={shell}_complete" in answer.out


def test_the_script_completes_commands_and_options(home: Path) -> None:
    def completed(line: str) -> list[str]:
        words = line.split(" ")
        asked = {"_PILOTHOUSE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        done = subprocess.run(COMMAND, env={**os.environ, **asked}, capture_output=True, check=True, text=True)
        return [answer.partition(",")[2] for answer in done.stdout.splitlines()]

    assert completed("pilothouse wor") == ["workflow"]
    assert completed("pilothouse job s") == ["show", "stop"]
    assert completed("pilothouse job list --status d") == ["done"]
