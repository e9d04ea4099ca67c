"""Launching, stopping, and what becomes of a job whose runner dies: rows S1, S5, X1 and the decisions on them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from runner_core import (
    JobRequest,
    NotFound,
    Refused,
    Settings,
    create_job,
    launch_job,
    settle_gone_jobs,
    start_runner,
    stop_job,
)
from runner_core.lease import Holder, lease_path, look
from runner_core.processes import end_session, process_ids, session_members
from runner_core.store.models import Job
from runner_core.store.session import open_store
from tests.runner.workbench import Step, Workbench

NEW = {"output": {"image_list_updates": [{"zarr_url": "{url}_n"}]}}


def wait_until(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def holder(bench: Workbench, job_id: int) -> Holder:
    return look(lease_path(bench.settings.runners_dir, job_id)).holder


def wait_for_end(bench: Workbench, job_id: int) -> None:
    wait_until(lambda: bench.ended(job_id).status != "submitted" and holder(bench, job_id) is not Holder.ALIVE)


def launch(bench: Workbench, *steps: Step, **request: object) -> int:
    job_id = bench.job(*steps, **request)
    start_runner(bench.settings, job_id)
    return job_id


def runner_pid(bench: Workbench, job_id: int) -> int:
    process = look(lease_path(bench.settings.runners_dir, job_id)).process
    assert process is not None
    return process.pid


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def processes_naming(path: Path) -> list[int]:
    """Living processes whose command line names a path."""
    found = []
    for pid in process_ids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(path) in words:
            found.append(pid)
    return found


# -- launching


def test_s1_an_empty_workflow_is_refused(bench: Workbench):
    with pytest.raises(Refused, match="has no tasks"):
        bench.job()


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (0, -1), (0, 2), (1, 0), (5, 5)])
def test_s1_s6_a_bad_range_is_refused(bench: Workbench, first: int, last: int):
    with pytest.raises(Refused, match="positions go from 0 to 1"):
        bench.job(Step(), Step(), first_task_index=first, last_task_index=last)


def test_s1_a_busy_dataset_is_refused_and_the_job_named(bench: Workbench):
    bench.job(Step())
    with pytest.raises(Refused, match=r"dataset.*has a job that has not ended"):
        bench.job(Step(), dataset=1)


def test_s1_one_submitted_job_per_dataset_is_a_rule_of_the_database(bench: Workbench):
    bench.job(Step())
    row = Job(dataset_id=1, backend="local", first_task_index=0, last_task_index=0)
    with pytest.raises(IntegrityError), open_store(bench.settings.store).session(write=True) as session:
        session.add(row)


def test_s1_an_account_must_be_one_of_the_profile_s_and_the_first_is_the_default(bench: Workbench):
    bench.settings.home.mkdir(parents=True, exist_ok=True)
    (bench.settings.home / "config.toml").write_text(
        '[profiles.here]\nbackend = "local"\nuser = { slurm_accounts = ["lab", "core"] }\n'
    )
    with pytest.raises(Refused, match="'other' is not among the profile's: lab, core"):
        bench.job(Step(), profile="here", slurm_account="other")
    assert bench.ended(bench.job(Step(), profile="here")).job.slurm_account == "lab"


def test_unknown_names_are_not_found(bench: Workbench):
    bench.dataset(1)
    with pytest.raises(NotFound):
        create_job(bench.settings, JobRequest("no such workflow", 1))


def test_a_launched_job_runs_in_a_session_of_its_own(bench: Workbench, tmp_path: Path):
    go = tmp_path / "go"
    job_id = launch(bench, Step({"wait_for": str(go)}))
    assert holder(bench, job_id) is Holder.ALIVE  # from the first moment on
    wait_until(bench.ended(job_id).folder.exists)
    assert os.getsid(runner_pid(bench, job_id)) == runner_pid(bench, job_id)
    go.touch()
    wait_for_end(bench, job_id)
    ended = bench.ended(job_id)
    assert ended.status == "done"
    assert ended.zip.exists()
    assert holder(bench, job_id) is Holder.NONE


def test_a_job_outlives_the_process_that_launched_it(bench: Workbench, tmp_path: Path):
    workflow, dataset = bench.workflow(Step(NEW)), bench.dataset(2)
    code = (
        "from runner_core import *; import os\n"
        f"print(launch_job(read_settings(), JobRequest({workflow}, {dataset})), flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    launcher = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    assert launcher.returncode == -9
    job_id = int(launcher.stdout)
    wait_for_end(bench, job_id)
    assert bench.ended(job_id).status == "done"


def test_a_hang_up_changes_nothing(bench: Workbench, tmp_path: Path):
    go = tmp_path / "go"
    job_id = launch(bench, Step({"wait_for": str(go)}))
    folder = bench.ended(job_id).folder
    wait_until(lambda: processes_naming(folder) != [])
    os.kill(runner_pid(bench, job_id), signal.SIGHUP)
    go.touch()
    wait_for_end(bench, job_id)
    assert bench.ended(job_id).status == "done"


def test_a_job_has_one_runner(bench: Workbench, tmp_path: Path):
    go = tmp_path / "go"
    job_id = launch(bench, Step({"wait_for": str(go)}))
    with pytest.raises(Refused, match="another process drives this job"):
        start_runner(bench.settings, job_id)
    go.touch()
    wait_for_end(bench, job_id)


# -- stopping


def test_x1_stop_ends_the_units_and_everything_that_they_started(bench: Workbench, backend: str, tmp_path: Path):
    here, child = tmp_path / "here", tmp_path / "child"
    never = str(tmp_path / "never")
    does = {"child": str(child), "child_escapes": True, "touch": str(here), "wait_for": never}
    job_id = launch(bench, Step(NEW), Step({"of_url": {bench.url("0_n"): does}}), images=1)
    wait_until(here.exists)
    pid = int(child.read_text())
    (session,) = worker_sessions(bench, job_id)
    stop_job(bench.settings, job_id)
    wait_for_end(bench, job_id)
    ended = bench.ended(job_id)
    assert ended.status == "failed"
    assert ended.outcome["phase"] == "stopped"
    assert ended.failure["kind"] == "stopped"
    assert "stopped by operator" in ended.log
    assert ended.statuses == [(0, "done"), (1, "failed")]
    assert bench.url("0_n") in ended.urls
    assert not lives(pid)
    assert session_members(session) == []


def test_x1_a_unit_that_ignores_sigterm_is_killed_after_the_grace_time(bench: Workbench, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PILOTHOUSE_STOP_GRACE_SECONDS", "0.2")
    here = tmp_path / "here"
    does = {"ignore_term": True, "touch": str(here), "wait_for": str(tmp_path / "never")}
    job_id = launch(bench, Step(does), images=1)
    wait_until(here.exists)
    stop_job(bench.settings, job_id)
    wait_for_end(bench, job_id)
    assert bench.ended(job_id).outcome["phase"] == "stopped"
    assert processes_naming(bench.ended(job_id).folder) == []


def test_x1_a_stop_before_the_runner_has_begun_counts(bench: Workbench, backend: str):
    job_id = bench.job(Step(NEW))
    bench.ended(job_id)
    from runner_core.job_folder import JobFolder

    JobFolder(bench.ended(job_id).folder).request_stop()
    ended = bench.submit(job_id)
    assert ended.outcome["phase"] == "stopped"
    assert not [name for name in ended.names() if name.endswith("args.json")]
    assert list(bench.settings.jobs_dir.glob("*.stop")) == []


def test_x1_a_job_that_nobody_has_taken_on_can_be_stopped(bench: Workbench):
    job_id = bench.job(Step())
    stop_job(bench.settings, job_id)
    assert bench.ended(job_id).outcome["phase"] == "stopped"
    assert bench.job(Step(), dataset=1)


def test_x1_the_file_of_the_reference_stops_a_job(bench: Workbench, backend: str, tmp_path: Path):
    here = tmp_path / "here"
    job_id = launch(bench, Step({"touch": str(here), "wait_for": str(tmp_path / "never")}))
    wait_until(here.exists)
    (bench.ended(job_id).folder / "shutdown").touch()
    wait_for_end(bench, job_id)
    assert bench.ended(job_id).outcome["phase"] == "stopped"


def test_x1_stop_is_refused_for_a_job_that_has_ended(bench: Workbench):
    ended = bench.run(Step())
    with pytest.raises(Refused, match="is not running: it is done"):
        stop_job(bench.settings, ended.job.id)
    with pytest.raises(NotFound, match="there is no job 99"):
        stop_job(bench.settings, 99)


def test_sigterm_to_the_runner_is_a_stop(bench: Workbench, tmp_path: Path):
    here = tmp_path / "here"
    job_id = launch(bench, Step({"touch": str(here), "wait_for": str(tmp_path / "never")}))
    wait_until(here.exists)
    os.kill(runner_pid(bench, job_id), signal.SIGTERM)
    wait_for_end(bench, job_id)
    assert bench.ended(job_id).outcome["phase"] == "stopped"


def test_what_ran_well_before_a_stop_is_journaled(bench: Workbench, tmp_path: Path, monkeypatch):
    here = tmp_path / "here"
    of_url = {bench.url(1): {"touch": str(here), "wait_for": str(tmp_path / "never")}}
    meta = {"parallel_tasks_per_job": 1}
    job_id = launch(bench, Step({"of_url": of_url}, meta=meta), images=4)
    wait_until(here.exists)
    stop_job(bench.settings, job_id)
    wait_for_end(bench, job_id)
    units = bench.ended(job_id).outcome["tasks"][0]["units"]
    assert units == {"total": 4, "done": 1, "failed": 1, "running": 0, "pending": 2}


# -- a runner that dies


def kill_runner(bench: Workbench, job_id: int) -> None:
    os.kill(runner_pid(bench, job_id), signal.SIGKILL)
    wait_until(lambda: holder(bench, job_id) is Holder.GONE)


def worker_sessions(bench: Workbench, job_id: int) -> set[int]:
    return {os.getsid(pid) for pid in processes_naming(bench.ended(job_id).folder)}


class Killed(BaseException):
    """What no code of ours catches, as if the process had been killed there."""


def die_at(function: str, bench: Workbench, job_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a job in this process until it calls a function, and no further."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(function, die)
        with pytest.raises(Killed):
            bench.submit(job_id)


def end_workers(bench: Workbench, job_id: int) -> None:
    for session in worker_sessions(bench, job_id):
        end_session(session)


def test_s5_a_dead_runner_is_shown_and_what_was_finished_is_assembled(bench: Workbench, backend: str, tmp_path: Path):
    here = tmp_path / "here"
    waits = {"of_url": {bench.url("0_n"): {"touch": str(here), "wait_for": str(tmp_path / "never")}}}
    job_id = launch(bench, Step(NEW, output_types={"made": True}), Step(waits), images=1)
    wait_until(here.exists)
    kill_runner(bench, job_id)
    end_workers(bench, job_id)
    settle_gone_jobs(bench.settings)
    ended = bench.ended(job_id)
    assert ended.status == "failed"
    assert ended.outcome["phase"] == "runner gone"
    assert ended.failure["headline"].startswith("runner gone since 20")
    assert ended.statuses == [(0, "done"), (1, "failed")]
    assert ended.urls == [bench.url("0"), bench.url("0_n")]
    assert [task["state"] for task in ended.outcome["tasks"]] == ["done", "failed"]
    assert ended.outcome["tasks"][1]["units"] == {"total": 1, "done": 0, "failed": 1, "running": 0, "pending": 0}
    assert bench.job(Step(), dataset=1)  # the dataset is free again


def test_work_that_outlives_its_runner_is_left_alone_until_it_is_stopped(bench: Workbench, tmp_path: Path):
    here = tmp_path / "here"
    job_id = launch(bench, Step({"touch": str(here), "wait_for": str(tmp_path / "never")}), images=1)
    wait_until(here.exists)
    kill_runner(bench, job_id)
    settle_gone_jobs(bench.settings)
    assert bench.ended(job_id).status == "submitted"
    assert processes_naming(bench.ended(job_id).folder)
    stop_job(bench.settings, job_id)
    assert bench.ended(job_id).outcome["phase"] == "stopped"
    assert processes_naming(bench.ended(job_id).folder) == []


def test_units_that_outlive_both_runner_and_worker_are_found_and_ended(bench: Workbench, tmp_path: Path):
    here = tmp_path / "here"
    job_id = launch(bench, Step({"touch": str(here), "wait_for": str(tmp_path / "never")}), images=1)
    wait_until(here.exists)
    (worker,) = [pid for pid in processes_naming(bench.ended(job_id).folder) if os.getsid(pid) == pid]
    os.kill(runner_pid(bench, job_id), signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: holder(bench, job_id) is Holder.GONE and not lives(worker))
    (unit,) = processes_naming(bench.ended(job_id).folder)
    settle_gone_jobs(bench.settings)
    assert bench.ended(job_id).status == "submitted"
    stop_job(bench.settings, job_id)
    assert bench.ended(job_id).outcome["phase"] == "stopped"
    assert not lives(unit)


def test_launching_on_a_dataset_whose_runner_is_gone_settles_it_first(bench: Workbench, tmp_path: Path):
    here = tmp_path / "here"
    job_id = launch(bench, Step({"touch": str(here), "wait_for": str(tmp_path / "never")}), images=1)
    wait_until(here.exists)
    kill_runner(bench, job_id)
    end_workers(bench, job_id)
    second = launch_job(bench.settings, JobRequest(bench.workflow(Step(NEW)), 1))
    wait_for_end(bench, second)
    assert bench.ended(job_id).outcome["phase"] == "runner gone"
    assert bench.ended(second).status == "done"


def test_l2_a_dead_worker_is_a_job_error(bench: Workbench, backend: str, tmp_path: Path):
    here = tmp_path / "here"
    job_id = launch(bench, Step({"touch": str(here), "wait_for": str(tmp_path / "never")}), images=1)
    wait_until(here.exists)
    end_workers(bench, job_id)
    wait_for_end(bench, job_id)
    ended = bench.ended(job_id)
    assert ended.log.startswith(f"JOB ERROR in Fractal job {job_id}:\nTRACEBACK:\n")
    assert "returncode=-9" in ended.log
    assert ended.failure["kind"] == "lost"


def test_a_job_whose_tasks_were_all_done_when_its_runner_died_is_done(bench: Workbench, monkeypatch):
    """The runner dies between the last task and the store: nothing is lost, and nothing is called failed."""
    job_id = bench.job(Step(NEW))

    die_at("runner_core.submission.write_conclusion", bench, job_id, monkeypatch)
    assert bench.ended(job_id).status == "submitted"
    settle_gone_jobs(bench.settings)
    ended = bench.ended(job_id)
    assert ended.status == "done"
    assert ended.statuses == [(0, "done")]
    assert len(ended.urls) == 4


# -- what the runner, its files and its launcher can meet


def script(bench: Workbench, tmp_path: Path, code: str) -> Step:
    """A non-parallel task that runs some code; `job` is the job folder, `out` the output file."""
    path = tmp_path / "evil_task.py"
    path.write_text(
        f"import json, sys\nfrom pathlib import Path\nout = Path(sys.argv[4])\njob = out.parents[1]\n{code}\n"
    )
    return Step(type="non_parallel", command=f"{sys.executable} {path}")


@pytest.mark.parametrize(
    "code",
    [
        "(job / 'history.json').write_text('{broken'); sys.exit(3)",
        "(job / 'history.json').write_text('3'); sys.exit(3)",
        "(job / 'events.jsonl').unlink(); (job / 'events.jsonl').mkdir(); sys.exit(3)",
        "(job / 'events.jsonl').write_text('[]\\n{}\\n'); sys.exit(3)",
    ],
)
def test_a_task_that_damages_what_the_runner_wrote_fails_the_job_and_not_the_dataset(bench, tmp_path, code):
    ended = bench.run(Step(NEW), script(bench, tmp_path, code), images=1)
    assert ended.status == "failed"
    assert ended.statuses == [(0, "done"), (1, "failed")]
    assert ended.urls == [bench.url("0"), bench.url("0_n")]


def test_a_task_that_removes_the_log_does_not_fail_a_job_that_is_done(bench, tmp_path):
    ended = bench.run(script(bench, tmp_path, "(job / 'workflow.log').unlink()"))
    assert ended.status == "done"


def test_lines_that_are_no_results_are_passed_over_and_said(bench, tmp_path):
    code = "(out.parent / '0.results.jsonl').open('a').write('[1]\\n{\"event\":3}\\n{}\\n')"
    ended = bench.run(script(bench, tmp_path, code))
    assert ended.status == "done"
    assert "cannot be read and was passed over" in ended.log


@pytest.mark.parametrize("damage", ["{broken", "3", "[3]"])
def test_a_dead_runner_s_job_is_settled_also_when_its_files_are_damaged(bench, tmp_path, damage):
    here = tmp_path / "here"
    job_id = launch(bench, Step(NEW), Step({"touch": str(here), "wait_for": str(tmp_path / "never")}), images=1)
    wait_until(here.exists)
    kill_runner(bench, job_id)
    end_workers(bench, job_id)
    (bench.ended(job_id).folder / "history.json").write_text(damage)
    settle_gone_jobs(bench.settings)
    ended = bench.ended(job_id)
    assert ended.status == "failed"
    assert "were changed by somebody" in ended.log
    assert ended.urls == [bench.url("0")]


@pytest.mark.parametrize(("number", "phase"), [(signal.SIGHUP, "done"), (signal.SIGTERM, "stopped")])
def test_a_signal_in_the_runner_s_first_moment_is_heeded_when_it_is_ready(bench, number, phase):
    job_id = launch(bench, Step(NEW))
    os.kill(runner_pid(bench, job_id), number)
    wait_for_end(bench, job_id)
    assert bench.ended(job_id).outcome["phase"] == phase


def test_a_runner_that_dies_before_it_made_the_folder_adds_nothing_to_the_history(bench):
    job_id = launch(bench, Step(NEW))
    kill_runner(bench, job_id)
    settle_gone_jobs(bench.settings)
    ended = bench.ended(job_id)
    assert ended.outcome["phase"] == "runner gone"
    assert ended.history == []


def test_a_profile_that_vanished_is_the_reason_that_the_job_gives(bench):
    bench.settings.home.mkdir(parents=True, exist_ok=True)
    config = bench.settings.home / "config.toml"
    config.write_text('[profiles.here]\nbackend = "local"\n')
    job_id = bench.job(Step(), profile="here")
    config.write_text("")
    start_runner(bench.settings, job_id)
    wait_for_end(bench, job_id)
    assert "there is no profile 'here'" in bench.ended(job_id).log


def test_what_a_dead_runner_said_last_is_told(bench):
    bench.settings.home.mkdir(parents=True, exist_ok=True)
    job_id = bench.job(Step())
    settings = bench.settings
    (settings.home / "config.toml").write_text("broken = [")
    start_runner(settings, job_id)
    wait_until(lambda: holder_of(settings, job_id) is Holder.GONE)
    (settings.home / "config.toml").unlink()
    settle_gone_jobs(bench.settings)
    assert "config.toml cannot be read" in bench.ended(job_id).log


def holder_of(settings: Settings, job_id: int) -> Holder:
    return look(lease_path(settings.runners_dir, job_id)).holder


def test_a_zip_that_the_runner_could_not_finish_is_made_by_whoever_finds_it(bench, monkeypatch):
    job_id = bench.job(Step(NEW))

    die_at("runner_core.submission.archive_folder", bench, job_id, monkeypatch)
    ended = bench.ended(job_id)
    assert ended.status == "done"
    assert not ended.zip.exists()
    settle_gone_jobs(bench.settings)
    assert ended.zip.exists()
    assert not ended.folder.exists()
    assert list(bench.settings.runners_dir.glob("*.lease")) == []


def test_the_door_can_be_used_from_inside_an_event_loop(bench, tmp_path):
    here = tmp_path / "here"
    job_id = launch(bench, Step({"touch": str(here), "wait_for": str(tmp_path / "never")}), images=1)
    wait_until(here.exists)
    kill_runner(bench, job_id)

    async def use() -> int:
        settle_gone_jobs(bench.settings)
        stop_job(bench.settings, job_id)
        return launch_job(bench.settings, JobRequest(bench.workflow(Step(NEW)), 1))

    second = asyncio.run(use())
    wait_for_end(bench, second)
    assert bench.ended(job_id).outcome["phase"] == "stopped"
    assert bench.ended(second).status == "done"


def test_a_launch_that_fails_leaves_no_job_behind(bench):
    bench.dataset(1)
    workflow = bench.workflow(Step())
    bench.settings.runners_dir.mkdir(parents=True)
    bench.settings.runners_dir.rmdir()
    bench.settings.runners_dir.write_text("not a folder")
    with pytest.raises(OSError, match="runners"):
        launch_job(bench.settings, JobRequest(workflow, 1))
    bench.settings.runners_dir.unlink()
    assert create_job(bench.settings, JobRequest(workflow, 1)) >= 1


def test_tasks_do_not_see_our_settings(bench, monkeypatch):
    monkeypatch.setenv("PILOTHOUSE_SECRET", "password")
    ended = bench.run(Step({"environment": ["PILOTHOUSE_SECRET", "PILOTHOUSE_HOME", "PATH"]}), images=1)
    log = ended.read("0_toy_task/0_par_0000000.log")
    assert "'PILOTHOUSE_SECRET': None, 'PILOTHOUSE_HOME': None, 'PATH': '/" in log


def test_a_home_with_characters_of_urls_holds_its_own_store(bench, tmp_path, monkeypatch):
    home = tmp_path / "h?a#b%20c"
    monkeypatch.setenv("PILOTHOUSE_HOME", str(home))
    job_id = launch(bench, Step(NEW))
    wait_for_end(bench, job_id)
    assert bench.ended(job_id).status == "done"
    assert (home / "store.db").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("h?")) == [home.name]
    assert not (tmp_path / "h").exists()
