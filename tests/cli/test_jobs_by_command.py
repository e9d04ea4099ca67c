"""Running, watching, stopping and reading jobs by the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.command_line import COMMAND, Cli, Stage, until

JOB_KEYS = {
    "id", "status", "phase", "workflow_id", "dataset_id", "backend", "profile", "first_task_index", "last_task_index",
    "start_timestamp", "end_timestamp", "working_dir", "working_dir_user", "archive", "slurm_account", "log", "failure",
    "tasks", "slurm_jobs",
}  # fmt: skip
TASK_KEYS = {"order", "name", "type", "state", "units", "started", "ended"}
UNIT_KEYS = {"total", "done", "failed", "running", "pending"}
FAILURE_KEYS = {"kind", "headline", "detail", "hint", "task_order", "task_name", "unit", "counts"}


# -- run


def test_run_with_wait_prints_the_job_as_ended(cli: Cli, stage: Stage, zarr_dir: Path) -> None:
    new = {"image_list_updates": [{"zarr_url": f"{zarr_dir}/new", "types": {"flat": True}}]}
    workflow = stage.workflow({"task": "Each"}, {"task": "Whole", "args_non_parallel": {"output": new}})

    answer = cli("run", workflow, stage.dataset(3), "--wait", "--json")

    job = answer.json
    assert answer.code == 0
    assert set(job) >= JOB_KEYS
    assert (job["status"], job["phase"], job["failure"]) == ("done", "done", None)
    assert [(task["order"], task["name"], task["type"], task["state"]) for task in job["tasks"]] == [
        (0, "Each", "parallel", "done"),
        (1, "Whole", "non_parallel", "done"),
    ]
    assert all(set(task) == TASK_KEYS and set(task["units"]) == UNIT_KEYS for task in job["tasks"])
    assert job["tasks"][0]["units"] == {"total": 3, "done": 3, "failed": 0, "running": 0, "pending": 0}
    assert Path(job["archive"]).is_file()
    assert not Path(job["working_dir"]).exists()
    assert "END workflow" in job["log"]
    assert job["slurm_jobs"] == []
    assert job == cli("job", "show", job["id"], "--json").json
    assert len(cli("dataset", "show", 1, "--json").json["images"]) == 4


def test_run_without_wait_prints_the_job_as_submitted(cli: Cli, held_job: tuple[int, Path]) -> None:
    job_id, _ = held_job

    until(lambda: cli("job", "show", job_id, "--json").json["tasks"][0]["units"]["running"] == 1)
    job = cli("job", "show", job_id, "--json").json

    assert set(job) >= JOB_KEYS
    assert (job["status"], job["phase"], job["end_timestamp"], job["archive"]) == ("submitted", "running", None, None)
    assert job["tasks"][0]["units"] == {"total": 1, "done": 0, "failed": 0, "running": 1, "pending": 0}
    assert "START workflow" in job["log"]
    assert job["runner"]["state"] == "alive"


def test_progress_without_a_terminal_is_a_line_for_each_change(cli: Cli, stage: Stage) -> None:
    workflow = stage.workflow({"task": "Each"})

    answer = cli("run", workflow, stage.dataset(2), "--wait")

    lines = answer.err.splitlines()
    assert answer.code == 0
    assert len(lines) == len(set(lines))
    assert lines[-2:] == ["task 0 Each: done 2/2", "job 1: done"]
    assert answer.out.startswith("Job 1  done  toys → images\n")


def test_a_failed_job_is_explained_and_ends_with_one(cli: Cli, stage: Stage, zarr_dir: Path) -> None:
    failing = {"of_url": {f"{zarr_dir}/1": {"raise": "not today"}, f"{zarr_dir}/2": {"exit": 3}}}
    workflow = stage.workflow({"task": "Each"}, {"task": "Each", "args_parallel": failing})

    answer = cli("run", workflow, stage.dataset(3), "--wait", "--json")

    failure = answer.json["failure"]
    assert answer.code == 1
    assert set(failure) == FAILURE_KEYS
    assert (failure["kind"], failure["task_order"], failure["unit"]) == ("task", 1, 1)
    assert [re.sub(r"\d+$", "N", cause) for cause in failure["counts"]] == [
        "ValueError in toy_task.py:N",
        "exit code N",
    ]
    shown = cli("job", "show", 1).out
    assert "Why it failed\n  2 of 3 units of Each failed" in shown
    assert "pilothouse job logs 1 --task 1 --unit 1" in shown
    assert "pilothouse run 1 1 --first 1 --last 1 --wait" in shown


def test_first_and_last_are_positions_with_the_last_one_included(cli: Cli, stage: Stage) -> None:
    workflow = stage.workflow(*({"task": "Each"} for _ in range(4)))
    dataset = stage.dataset(1)

    job = cli("run", workflow, dataset, "--first", 1, "--last", 2, "--wait", "--json").json

    assert [task["order"] for task in job["tasks"]] == [1, 2]
    for first, last in ((-1, 2), (0, 4), (3, 2)):
        refused = cli("run", workflow, dataset, "--first", first, "--last", last)
        assert refused.code == 5
        assert "does not fit a workflow of 4 tasks" in refused.err


def test_a_workflow_without_tasks_is_refused(cli: Cli, stage: Stage) -> None:
    answer = cli("run", stage.workflow(name="empty"), stage.dataset())

    assert answer.code == 5
    assert "the workflow has no tasks" in answer.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--backend", "abacus"], "unknown backend 'abacus'"),
        (["--profile", "nobody"], "there is no profile 'nobody'"),
        (["--slurm-account", "a"], "Slurm account 'a' is not among"),
    ],
)
def test_settings_that_cannot_work_are_refused(cli: Cli, stage: Stage, words: list[str], says: str) -> None:
    workflow, dataset = stage.workflow({"task": "Each"}), stage.dataset()

    answer = cli("run", workflow, dataset, *words)

    assert answer.code in {2, 5}
    assert says in answer.err
    assert cli("job", "list", "--json").json == []


def test_a_profile_and_a_worker_init_file_are_taken(cli: Cli, stage: Stage, home: Path, tmp_path: Path) -> None:
    (home / "config.toml").write_text('[profiles.quick]\nbackend = "local_experimental"\n')
    script = tmp_path / "init.sh"
    script.write_text("module load python\n")

    job = cli(
        "run", stage.workflow({"task": "Each"}), stage.dataset(), "--profile", "quick", "--worker-init", script,
        "--wait", "--json",
    ).json  # fmt: skip

    assert (job["profile"], job["backend"], job["status"]) == ("quick", "local_experimental", "done")
    assert "module load python" in job["log"]


def test_a_busy_dataset_is_refused_and_can_be_neither_scanned_nor_deleted(
    cli: Cli, held_job: tuple[int, Path], zarr_dir: Path
) -> None:
    zarr_dir.mkdir()
    for words in (["run", 1, 1], ["dataset", "delete", 1], ["workflow", "delete", 1], ["dataset", "scan", 1, zarr_dir]):
        answer = cli(*words)
        assert answer.code == 5, words
        assert "job" in answer.err
    assert cli("dataset", "list", "--json").json[0]["submitted_job_id"] == held_job[0]


# -- list


def test_jobs_are_listed_newest_first_and_by_status(cli: Cli, stage: Stage) -> None:
    good, bad = stage.workflow({"task": "Each"}), stage.workflow({"task": "Each", "args_parallel": {"exit": 1}})
    dataset = stage.dataset(2)
    for workflow in (good, bad):
        cli("run", workflow, dataset, "--wait")

    listed = cli("job", "list", "--json").json

    assert [(job["id"], job["status"]) for job in listed] == [(2, "failed"), (1, "done")]
    assert [job["id"] for job in cli("job", "list", "--status", "failed", "--json").json] == [2]
    assert [job["id"] for job in cli("job", "list", "--limit", 1, "--json").json] == [2]
    shown = cli("job", "show", 2, "--json").json
    assert listed[0] == {key: shown[key] for key in listed[0]}
    assert re.search(r"^ 2  failed  toys → images +0/1 +0/2 \(2 failed\) ", cli("job", "list").out, re.MULTILINE)


def test_deleted_workflows_and_datasets_leave_their_jobs(cli: Cli, stage: Stage) -> None:
    stage.run({"task": "Each"})
    cli("workflow", "delete", 1)
    cli("dataset", "delete", 1)

    assert "(deleted) → (deleted)" in cli("job", "list").out
    shown = cli("job", "show", 1)
    assert shown.code == 0
    assert "pilothouse run" not in shown.out


# -- stop


def test_x1_a_stopped_job_says_so_and_ends_with_three(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    does = {"touch": str(begun), "wait_for": str(tmp_path / "never")}
    workflow, dataset = stage.workflow({"task": "Each", "args_parallel": does}), stage.dataset(1)
    waiting = subprocess.Popen(
        [*COMMAND, "run", str(workflow), str(dataset), "--wait", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until(begun.exists)

    stopped = cli("job", "stop", 1)
    out, _ = waiting.communicate()

    job = json.loads(out)
    assert stopped.code == 0
    assert waiting.returncode == 3
    assert (job["status"], job["phase"], job["failure"]["kind"]) == ("failed", "stopped", "stopped")
    assert "Why it ended\n  stopped by operator" in cli("job", "show", 1).out
    again = cli("job", "stop", 1)
    assert again.code == 5
    assert "is not running" in again.err


def test_a_job_whose_runner_died_is_shown_as_such_and_frees_its_dataset(cli: Cli, held_job: tuple[int, Path]) -> None:
    job_id, gate = held_job
    runner = cli("job", "show", job_id, "--json").json["runner"]
    os.kill(runner["pid"], signal.SIGKILL)
    until(lambda: cli("job", "show", job_id, "--json", "--read-only").json["runner"]["state"] == "gone")

    watched = cli("job", "show", job_id, "--read-only")
    assert "runner gone since " in watched.out.splitlines()[0]
    assert cli("job", "show", job_id, "--read-only", "--json").json["status"] == "submitted"

    assert "warning" in cli("doctor").out
    assert cli("job", "stop", job_id).code == 0
    job = cli("job", "show", job_id, "--json").json
    assert job["status"] == "failed"
    assert job["phase"] in {"runner gone", "stopped"}
    gate.touch()
    assert cli("dataset", "list", "--json").json[0]["submitted_job_id"] is None


# -- logs and files


def test_the_log_is_the_same_live_and_from_the_zip(cli: Cli, held_job: tuple[int, Path]) -> None:
    job_id, gate = held_job
    live = cli("job", "logs", job_id)
    unit = cli("job", "logs", job_id, "--task", 0, "--unit", 0)
    assert "START workflow" in live.out
    assert "first line" in unit.out

    gate.touch()
    followed = cli("job", "logs", job_id, "-f")
    until(lambda: cli("job", "show", job_id, "--json").json["archive"] is not None)

    assert followed.code == 0
    assert followed.out.endswith("END workflow\n")
    assert followed.out.startswith(live.out)
    assert cli("job", "logs", job_id).out == followed.out
    assert cli("job", "logs", job_id, "--task", 0).out == unit.out


def test_a_units_log_is_followed_to_its_end(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    does = {"print": ["hello"], "touch": str(begun), "wait_for": str(gate), "raise": "the end"}
    cli("run", stage.workflow({"task": "Whole", "args_non_parallel": does}), stage.dataset(1))
    until(begun.exists)
    following = subprocess.Popen([*COMMAND, "job", "logs", "1", "-f", "--task", "0"], stdout=subprocess.PIPE)
    assert following.stdout is not None
    first = following.stdout.readline()
    gate.touch()

    rest, _ = following.communicate()

    assert first.startswith(b"arguments:")
    assert rest.startswith(b"hello\n")
    assert rest.endswith(b"ValueError: the end\n")


def test_of_many_units_the_failed_ones_are_printed_first(cli: Cli, stage: Stage, zarr_dir: Path) -> None:
    failing = {"of_url": {f"{zarr_dir}/2": {"raise": "not today"}}}
    job = stage.run({"task": "Each", "args_parallel": failing})

    printed = cli("job", "logs", job["id"], "--task", 0).out

    headings = [line for line in printed.splitlines() if line.startswith("==>")]
    assert headings == [
        "==> 0_each/0_par_0000002.log (failed) <==",
        "==> 0_each/0_par_0000000.log <==",
        "==> 0_each/0_par_0000001.log <==",
    ]
    assert cli("job", "logs", job["id"], "--task", 0, "--unit", 2).out.endswith("ValueError: not today\n")
    assert cli("job", "logs", job["id"], "--task", 0, "--unit", 9).code == 4
    assert cli("job", "logs", job["id"], "--task", 5).code == 4


def test_into_a_pipe_logs_go_byte_for_byte(cli: Cli, stage: Stage) -> None:
    raw = b"\x1b[31m\xff\r\n"
    job = stage.run({"task": "Whole", "args_non_parallel": {"print_bytes": raw.hex()}})

    printed = subprocess.run([*COMMAND, "job", "cat", "1", "0_whole/0.log"], stdout=subprocess.PIPE, check=True).stdout
    logged = subprocess.run([*COMMAND, "job", "logs", "1", "--task", "0"], stdout=subprocess.PIPE, check=True).stdout

    assert job["status"] == "done"
    assert printed.endswith(raw)
    assert logged == printed


def test_a_job_that_failed_before_it_had_a_folder_has_the_stores_log(cli: Cli, stage: Stage, home: Path) -> None:
    (home / "jobs").write_text("in the way")
    workflow, dataset = stage.workflow({"task": "Each"}), stage.dataset()

    answer = cli("run", workflow, dataset, "--wait", "--json")

    assert answer.code == 1
    assert answer.json["tasks"][0]["state"] == "pending"
    assert cli("job", "logs", 1).out == answer.json["log"]
    assert cli("job", "files", 1).code in {4, 5}


def test_a_local_job_has_no_slurm_logs(cli: Cli, stage: Stage) -> None:
    job = stage.run({"task": "Each"})

    answer = cli("job", "logs", job["id"], "--slurm")

    assert (answer.code, answer.out) == (5, "")
    assert "job 1 ran on the backend 'local', it has no Slurm logs" in answer.err


def test_files_are_listed_printed_and_exported_from_the_zip(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    job = stage.run({"task": "Each"})

    listed = cli("job", "files", job["id"], "--json").json
    assert {"workflow.log", "images.json", "0_each/0_par_0000002.log"} <= {file["path"] for file in listed}
    assert all(set(file) == {"path", "size", "modified"} for file in listed)
    assert "0_each/0_par_0000002.log" in cli("job", "files", job["id"]).out
    assert len(json.loads(cli("job", "cat", job["id"], "images.json").out)) == 3

    missing = cli("job", "cat", job["id"], "workflow.logg")
    outside = cli("job", "cat", job["id"], "../../store.db")
    assert (missing.code, outside.code) == (4, 5)
    assert "did you mean 'workflow.log'?" in missing.err

    target = tmp_path / "copy"
    exported = cli("job", "export", job["id"], target)
    assert exported.out == f"exported {len(listed)} files to {target}\n"
    assert (target / "workflow.log").read_text() == job["log"]
    assert cli("job", "export", job["id"], target).code == 5


# -- the overview


def test_an_empty_store_gets_first_steps(cli: Cli, pilothouse_home: Path) -> None:
    answer = cli()

    assert answer.code == 0
    assert "no job yet" in answer.out
    assert "pilothouse demo" in answer.out


def test_the_overview_shows_what_runs_and_what_ended(cli: Cli, held_job: tuple[int, Path]) -> None:
    during = cli().out
    held_job[1].touch()
    until(lambda: cli("job", "show", 1, "--json").json["status"] == "done")
    after = cli().out

    assert during.splitlines()[0] == "Now"
    assert "Ended last" not in during
    assert after.splitlines()[0] == "Ended last"
