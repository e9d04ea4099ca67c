"""The door, row by row: O (orchestration), S (folder names), Z (zip) of the behaviour reference."""

from __future__ import annotations

import inspect
import re
import stat
from pathlib import Path

import pytest
from sqlalchemy import delete, update

import runner_core
from runner_core import UserSettings, submit_workflow
from runner_core.store.models import Dataset, Job, Workflow
from runner_core.store.session import open_store
from tests.runner.workbench import Step, Workbench

NEW_IMAGE = {"output": {"image_list_updates": [{"zarr_url": "{url}_new", "origin": "{url}"}]}}


def test_the_door_has_the_reference_s_signature():
    parameters = inspect.signature(submit_workflow).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters)
    assert {p.name: p.default for p in parameters if p.default is not p.empty} == {
        "worker_init": None,
        "slurm_user": None,
        "user_cache_dir": None,
        "fractal_ssh": None,
    }
    required = [p.name for p in parameters if p.default is p.empty]
    assert required == ["workflow_id", "dataset_id", "job_id", "user_settings"]
    assert inspect.iscoroutinefunction(submit_workflow)


def test_every_name_of_the_door_can_be_had():
    assert len(set(runner_core.__all__)) == len(runner_core.__all__)
    assert all(getattr(runner_core, name) for name in runner_core.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = runner_core.no_such_name


def test_user_settings_have_the_reference_s_fields():
    assert set(UserSettings.model_fields) == {
        "slurm_accounts",
        "ssh_host",
        "ssh_username",
        "ssh_private_key_path",
        "ssh_tasks_dir",
        "ssh_jobs_dir",
        "slurm_user",
        "cache_dir",
    }


def test_o6_success_extends_history_and_replaces_filters_and_images(bench: Workbench, backend: str):
    before = {"workflowtask": {"id": 0, "order": 0}, "status": "done", "parallelization": {}}
    ended = bench.run(
        Step(NEW_IMAGE, output_types={"made": True}),
        Step({}, input_filters={"attributes": {}, "types": {"made": True}}),
        columns={"history": [before]},
    )
    assert ended.status == "done"
    assert ended.history[0] == before
    assert ended.statuses[1:] == [(0, "done"), (1, "done")]
    assert ended.filters == {"attributes": {}, "types": {"made": True}}
    assert ended.urls == [bench.url(n) for n in ("0", "1", "0_new", "1_new")]
    assert ended.image_count == 4
    assert ended.job.end_timestamp >= ended.job.start_timestamp
    assert ended.outcome["phase"] == "done"
    assert ended.log == ended.read("workflow.log")


def test_o5_the_workflow_log_says_what_was_asked_for(bench: Workbench):
    job_id = bench.job(Step(name="First"), Step(name="Second"), worker_init="export A=1\nexport B=2")
    ended = bench.submit(job_id, worker_init="export A=1\nexport B=2")
    for said in (
        "START workflow 1 over dataset 1",
        f"pilothouse {runner_core.__version__}",
        "backend: local",
        "slurm account: None",
        r"worker_init: 'export A=1\nexport B=2'",
        f"job id: {job_id}",
        f"working dir: {ended.folder}",
        "first task index: 0",
        "last task index: 1",
        "SUBMIT 0-th task (name='First')",
        "END    0-th task (name='First')",
        "SUBMIT 1-th task (name='Second')",
        "END workflow",
    ):
        assert said in ended.log, said


def test_s4_the_folder_is_named_by_ids_and_utc_time(bench: Workbench):
    ended = bench.run(Step())
    created = ended.job.start_timestamp.strftime("%Y%m%d_%H%M%S")
    assert ended.folder.name == f"proj_v2_0000001_wf_0000001_job_0000001_{created}"
    assert ended.folder.parent == bench.settings.jobs_dir
    assert ended.job.working_dir_user == ended.job.working_dir


def test_s4_the_reference_s_variable_says_where_folders_go(bench: Workbench, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("FRACTAL_RUNNER_WORKING_BASE_DIR", str(tmp_path / "elsewhere"))
    assert bench.run(Step()).folder.parent == tmp_path / "elsewhere"


def test_s3_the_dumps_leave_out_what_grows(bench: Workbench):
    dumps = bench.run(Step()).dumps
    assert dumps["project"]["id"] == 1
    assert dumps["workflow"]["name"] == "workflow"
    assert "task_list" not in dumps["workflow"]
    assert dumps["dataset"]["zarr_dir"] == str(bench.zarr_dir)
    assert not {"images", "history"} & set(dumps["dataset"])


def test_o1_a_job_that_does_not_exist_is_only_logged(bench: Workbench, caplog: pytest.LogCaptureFixture):
    open_store(bench.settings.store)
    import asyncio

    asyncio.run(submit_workflow(workflow_id=1, dataset_id=1, job_id=99, user_settings=UserSettings()))
    assert "job 99 does not exist" in caplog.text


@pytest.mark.parametrize(("table", "word"), [(Dataset, "dataset"), (Workflow, "workflow")])
def test_o1_a_missing_dataset_or_workflow_fails_the_job(bench: Workbench, table: type, word: str):
    job_id = bench.job(Step())
    store = open_store(bench.settings.store)
    with store.session() as session:
        job = session.get(Job, job_id)
    with store.session(write=True) as session:
        session.execute(delete(table))
    import asyncio

    asyncio.run(
        submit_workflow(
            workflow_id=job.workflow_id, dataset_id=job.dataset_id, job_id=job_id, user_settings=UserSettings()
        )
    )
    with store.session() as session:
        job = session.get(Job, job_id)
        assert job.status == "failed"
        assert f"{word} 1 of job {job_id} does not exist" in job.log


def test_o1_an_unknown_backend_fails_the_job(bench: Workbench, monkeypatch):
    job_id = bench.job(Step())
    monkeypatch.setenv("FRACTAL_RUNNER_BACKEND", "kubernetes")
    ended = bench.submit(job_id)
    assert ended.status == "failed"
    assert "unknown backend 'kubernetes'" in ended.log
    assert ended.history == []
    assert not ended.zip.exists()
    assert not ended.folder.exists()


def test_o2_an_existing_folder_fails_the_job_and_stays_untouched(bench: Workbench):
    job_id = bench.job(Step())
    folder = bench.ended(job_id).folder
    folder.mkdir(parents=True)
    (folder / "somebody's").write_text("file")
    ended = bench.submit(job_id)
    assert ended.status == "failed"
    assert "FileExistsError" in ended.log
    assert [path.name for path in folder.iterdir()] == ["somebody's"]


def test_o4_a_folder_that_cannot_be_made_changes_neither_history_nor_disk(bench: Workbench, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("FRACTAL_RUNNER_WORKING_BASE_DIR", str(tmp_path / "file"))
    ended = bench.run(Step())
    assert ended.status == "failed"
    assert re.match(r"(NotADirectory|FileExists)Error: ", ended.log)
    assert ended.history == []
    assert ended.outcome["failure"]["kind"]


def test_o9_the_local_backends_need_one_folder_for_both_sides(bench: Workbench, backend: str):
    job_id = bench.job(Step())
    with open_store(bench.settings.store).session(write=True) as session:
        session.execute(update(Job).values(working_dir_user="/elsewhere"))
    ended = bench.submit(job_id)
    assert ended.status == "failed"
    assert "one job folder for both sides" in ended.log


def test_o3_task_folders_are_slugs_that_cannot_leave_the_job_folder(bench: Workbench):
    names = ["../../etc/passwd", "With  Spaces\tand\nlines", "\x1b[2Jcontrol\x00", "Ünïcode é", "x" * 300]
    ended = bench.run(*[Step(name=name.replace("\0", "")) for name in names])
    assert ended.status == "done"
    folders = sorted({name.split("/")[0] for name in ended.names() if "/" in name})
    assert folders[:4] == ["0_______etc_passwd", "1_with__spaces_and_lines", "2___2jcontrol", "3_ünïcode_é"]
    assert folders[4].startswith("4_xxx")


def test_file_names_are_those_of_the_reference(bench: Workbench, backend: str):
    ended = bench.run(Step(type="compound", plans={"plan": {}}, does={"output": {}}), Step(NEW_IMAGE))
    names = set(ended.names())
    assert {"workflow.log", "history.json", "filters.json", "images.json"} <= names
    for kind in ("args.json", "metadiff.json", "log"):
        assert f"0_toy_task/0.{kind}" in names
        assert {f"0_toy_task/0_par_000000{n}.{kind}" for n in (0, 1)} <= names
        assert {f"1_toy_task/1_par_000000{n}.{kind}" for n in (0, 1)} <= names


def test_t13_the_state_after_each_task_is_in_the_job_folder(bench: Workbench):
    ended = bench.run(Step(NEW_IMAGE), Step({"raise": "no"}))
    assert [item["status"] for item in ended.read_json("history.json")] == ["done"]
    assert ended.read_json("filters.json") == {"attributes": {}, "types": {}}
    assert len(ended.read_json("images.json")) == 4
    assert ended.read("images.json").startswith('[\n  {\n    "zarr_url"')  # indented by two


def test_z1_z2_the_zip_takes_the_place_of_the_folder_even_a_small_one(bench: Workbench):
    ended = bench.run(Step())
    assert ended.zip.exists()
    assert not ended.folder.exists()
    assert stat.S_IMODE(ended.zip.stat().st_mode) == 0o600


def test_z2_a_setting_keeps_the_folder(bench: Workbench, monkeypatch):
    monkeypatch.setenv("PILOTHOUSE_KEEP_JOB_FOLDER", "true")
    ended = bench.run(Step())
    assert ended.zip.exists()
    assert (ended.folder / "workflow.log").exists()


def test_what_we_keep_is_private_to_its_owner(bench: Workbench, monkeypatch):
    monkeypatch.setenv("PILOTHOUSE_KEEP_JOB_FOLDER", "true")
    ended = bench.run(Step({"print": ["x"]}))
    loose = [
        str(path)
        for path in [bench.settings.home, *bench.settings.home.rglob("*")]
        if stat.S_IMODE(path.stat().st_mode) & 0o077 and not path.name.endswith((".metadiff.json",))
    ]
    assert loose == []
    assert ended.status == "done"


def test_env_tasks_get_the_cache_dir(bench: Workbench, backend: str):
    step = Step({"environment": ["FRACTAL_CACHE_DIR"]})
    ended = bench.run(step, images=1)
    assert f"{{'FRACTAL_CACHE_DIR': '{bench.settings.home}/cache'}}" in ended.read("0_toy_task/0_par_0000000.log")
    ended = bench.submit(bench.job(step, images=1), user_cache_dir="/some/cache")
    assert "{'FRACTAL_CACHE_DIR': '/some/cache'}" in ended.read("0_toy_task/0_par_0000000.log")


def test_s6_only_the_tasks_of_the_range_run_the_last_one_included(bench: Workbench):
    steps = [Step(name=f"T{n}") for n in range(4)]
    ended = bench.run(*steps, first_task_index=1, last_task_index=2)
    assert ended.statuses == [(1, "done"), (2, "done")]
    assert sorted({n.split("/")[0] for n in ended.names() if "/" in n}) == ["1_t1", "2_t2"]


def test_an_ended_job_is_not_run_again(bench: Workbench, caplog):
    job_id = bench.job(Step(NEW_IMAGE))
    first = bench.submit(job_id)
    again = bench.submit(job_id)
    assert again.urls == first.urls
    assert again.job.end_timestamp == first.job.end_timestamp
    assert f"job {job_id} is not submitted: it is done" in caplog.text


def test_s6_a_range_that_does_not_fit_the_workflow_any_more_fails_the_job(bench: Workbench):
    job_id = bench.job(Step(), Step())
    with open_store(bench.settings.store).session(write=True) as session:
        session.execute(update(Job).values(last_task_index=5))
    ended = bench.submit(job_id)
    assert ended.status == "failed"
    assert "the task range 0 to 5 does not fit a workflow of 2 tasks" in ended.log


def test_p2_a_reserved_argument_in_the_store_fails_the_job(bench: Workbench, backend: str):
    ended = bench.run(Step({"zarr_url": "/elsewhere"}))
    assert ended.log.startswith(f"JOB ERROR in Fractal job {ended.job.id}:")
    assert "the workflow sets the reserved argument 'zarr_url'" in ended.log
