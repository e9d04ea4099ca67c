"""What tasks get and give, by their type: rows P1-P8 and T1-T6 seen through whole jobs."""

from __future__ import annotations

import json
import shlex
import signal
import sys

import pytest

from tests.runner.workbench import Step, Workbench, image


def arguments_in(log: str) -> dict:
    return json.loads(log.split("arguments: ", 1)[1].split("\n", 1)[0])


def test_p2_a_non_parallel_task_runs_once_with_all_urls(bench: Workbench, backend: str):
    ended = bench.run(Step({"a": 1}, type="non_parallel"))
    assert arguments_in(ended.read("0_toy_task/0.log")) == {
        "a": 1,
        "zarr_dir": str(bench.zarr_dir),
        "zarr_urls": [bench.url(0), bench.url(1)],
    }


def test_p2_a_non_parallel_task_runs_also_without_images(bench: Workbench):
    ended = bench.run(Step(type="non_parallel"), images=0)
    assert arguments_in(ended.read("0_toy_task/0.log"))["zarr_urls"] == []


def test_p3_a_parallel_task_runs_once_per_image(bench: Workbench, backend: str):
    ended = bench.run(Step({"a": 1}))
    for n in range(2):
        assert arguments_in(ended.read(f"0_toy_task/0_par_000000{n}.log")) == {"a": 1, "zarr_url": bench.url(n)}


def test_p3_a_parallel_task_without_images_runs_nothing(bench: Workbench):
    ended = bench.run(Step(output_types={"t": True}), images=0)
    assert ended.status == "done"
    assert not [name for name in ended.names() if name.startswith("0_toy_task/")]
    assert ended.filters["types"] == {"t": True}


def test_p4_a_compound_task_runs_its_plan_without_repetitions(bench: Workbench, backend: str):
    items = [{"zarr_url": "/a", "init_args": {"n": 1}}, {"zarr_url": "/a", "init_args": {"n": 2}}]
    plan = {"output": {"parallelization_list": [*items, items[0]]}}
    ended = bench.run(Step({"b": 2}, type="compound", plans=plan))
    logs = [name for name in ended.names() if name.startswith("0_toy_task/0_par_") and name.endswith(".log")]
    assert [arguments_in(ended.read(name)) for name in logs] == [
        {"b": 2, "init_args": {"n": 1}, "zarr_url": "/a"},
        {"b": 2, "init_args": {"n": 2}, "zarr_url": "/a"},
    ]
    assert ended.outcome["tasks"][0]["units"] == {"total": 3, "done": 3, "failed": 0, "running": 0, "pending": 0}


def test_p4_an_empty_plan_is_an_empty_output(bench: Workbench):
    ended = bench.run(Step(type="compound", output_types={"t": True}))
    assert ended.status == "done"
    assert [item["types"] for item in ended.images] == [{"t": True}] * 2


@pytest.mark.parametrize("kind", ["converter_non_parallel", "converter_compound"])
def test_converters_get_no_images_and_flag_none(bench: Workbench, kind: str):
    new = {"image_list_updates": [{"zarr_url": bench.url("new")}]}
    step = Step({"output": new}, type=kind, plans={"output": {"parallelization_list": [{"zarr_url": "/raw"}]}})
    step.output_types = {"t": True}
    ended = bench.run(step)
    assert "zarr_urls" not in arguments_in(ended.read("0_toy_task/0.log"))
    assert arguments_in(ended.read("0_toy_task/0.log"))["zarr_dir"] == str(bench.zarr_dir)
    assert [item["types"] for item in ended.images] == [{}, {}, {"t": True}]


def test_t5_an_unknown_task_type_is_an_unknown_error(bench: Workbench):
    ended = bench.run(Step(type="quantum"))
    assert ended.log.startswith(f"UNKNOWN ERROR in Fractal job {ended.job.id}\nTRACEBACK:\n")
    assert "quantum" in ended.log


def test_p5_exactly_the_limit_is_fine_and_one_more_is_not(bench: Workbench, monkeypatch):
    monkeypatch.setenv("PILOTHOUSE_MAX_UNITS_PER_TASK", "3")
    assert bench.run(Step(), images=3).status == "done"
    ended = bench.run(Step(), images=4)
    assert ended.log.startswith(f"JOB ERROR in Fractal job {ended.job.id}:")
    assert "would run 4 units; at most 3 are allowed" in ended.log


def test_p5_the_default_limit_is_20_000(bench: Workbench):
    ended = bench.run(Step(), images=20_001)
    assert "would run 20,001 units; at most 20,000 are allowed" in ended.log
    assert ended.statuses == [(0, "failed")]


def test_p1_the_command_is_words_and_no_shell_ever_reads_it(bench: Workbench, tmp_path):
    strange = tmp_path / "a folder (with) $HOME & more"
    strange.mkdir()
    script = strange / "it's a task.py"
    script.write_text("print('ran')")
    ended = bench.run(Step(command=shlex.join([sys.executable, str(script)])), images=1)
    assert ended.status == "done", ended.log
    assert "ran" in ended.read("0_toy_task/0_par_0000000.log")


@pytest.mark.parametrize("character", list("`#$&*()\\|[]{};<>?!"))
def test_p1_a_forbidden_character_is_a_task_error(bench: Workbench, character: str):
    ended = bench.run(Step(command=f"'echo' 'a{character}b'"), images=1)
    assert ended.log.startswith("TASK ERROR: Task name: Toy Task, position in Workflow: 0\nTRACEBACK:\n")
    assert "not allowed" in ended.log


def test_p1_a_command_that_is_not_on_the_path_is_a_task_error(bench: Workbench, backend: str):
    ended = bench.run(Step(command="no-such-command --really"), images=1)
    assert ended.log.startswith("TASK ERROR: Task name: Toy Task, position in Workflow: 0\nTRACEBACK:\n")
    assert "'no-such-command' was not found" in ended.log
    assert ended.statuses == [(0, "failed")]


def test_p8_a_return_code_above_zero_is_a_task_error_with_the_log(bench: Workbench, backend: str):
    ended = bench.run(Step({"print": ["before"], "raise": "cannot segment"}, name="Segment"), images=1)
    assert ended.log.startswith("TASK ERROR: Task name: Segment, position in Workflow: 0\nTRACEBACK:\n")
    assert "before" in ended.log
    assert "ValueError: cannot segment" in ended.log
    assert ended.outcome["phase"] == "failed"
    assert ended.failure["kind"] == "task"
    assert "ValueError: cannot segment in toy_task.py:" in ended.failure["headline"]
    assert (ended.failure["task_order"], ended.failure["task_name"], ended.failure["unit"]) == (0, "Segment", 0)


def test_p8_a_signal_is_a_job_error(bench: Workbench, backend: str):
    ended = bench.run(Step({"kill": int(signal.SIGKILL)}), images=1)
    assert ended.log.startswith(f"JOB ERROR in Fractal job {ended.job.id}:\nTRACEBACK:\n")
    assert "returncode=-9" in ended.log
    assert "COMMAND:" in ended.log
    assert ended.failure["kind"] == "out of memory"


def test_failures_of_many_units_are_counted_by_cause(bench: Workbench, backend: str):
    of_url = {bench.url(n): {"raise": f"image {n}"} for n in range(3)}
    of_url[bench.url(3)] = {"exit": 7}
    ended = bench.run(Step({"of_url": of_url}), images=6)
    assert ended.failure["headline"].startswith("4 of 6 units of Toy Task failed: 3 ValueError in toy_task.py:")
    assert sorted(ended.failure["counts"].values()) == [1, 3]
    assert ended.outcome["tasks"][0]["units"] == {"total": 6, "done": 2, "failed": 4, "running": 0, "pending": 0}
    assert "ValueError: image 0" in ended.log  # the first in the order of the images


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("", "not valid JSON"),
        ('{"image_list_updates": [', "not valid JSON"),
        ("[]", "it is a JSON list"),
        ("3", "it is a JSON number"),
        ('{"image_list_updates": null}', "image_list_updates"),
        ('{"surprise": 1}', "surprise"),
        ("\udcff\udcfe", "not valid JSON"),
    ],
)
def test_p6_an_unusable_output_is_a_job_error_that_quotes_it(bench: Workbench, raw: str, said: str):
    ended = bench.run(Step({"raw": raw}), images=1)
    assert ended.log.startswith(f"JOB ERROR in Fractal job {ended.job.id}:\nTRACEBACK:\n")
    assert said in ended.log
    assert ended.failure["kind"] == "output"
    assert ended.statuses == [(0, "failed")]


@pytest.mark.parametrize("raw", ["null", "{}"])
def test_p6_t6_no_output_flags_all_input_images(bench: Workbench, raw: str):
    ended = bench.run(Step({"raw": raw}, output_types={"seen": True}))
    assert [item["types"] for item in ended.images] == [{"seen": True}] * 2


def test_p7_filters_that_differ_between_units_are_a_job_error_that_names_both(bench: Workbench):
    of_url = {bench.url(n): {"output": {"filters": {"types": {"t": bool(n)}}}} for n in range(2)}
    ended = bench.run(Step({"of_url": of_url}))
    assert ended.log.startswith("JOB ERROR")
    assert '"t": false' in ended.log
    assert '"t": true' in ended.log


def test_p7_two_units_may_remove_the_same_image(bench: Workbench):
    ended = bench.run(Step({"output": {"image_list_removals": [bench.url(0)]}}))
    assert ended.status == "done"
    assert ended.urls == [bench.url(1)]


def test_t1_t2_filters_of_one_task_hold_for_that_task_only(bench: Workbench):
    images = [image(bench.url(n), well=f"A0{n}", is_3D=bool(n)) for n in range(3)]
    narrow = {"attributes": {"well": "A01"}, "types": {}}
    ended = bench.run(Step(input_filters=narrow, name="One"), Step(name="All"), images=images)
    logs = [name for name in ended.names() if name.endswith(".log") and "/" in name and "par" in name]
    assert len([name for name in logs if name.startswith("0_one/")]) == 1
    assert len([name for name in logs if name.startswith("1_all/")]) == 3


def test_t4_an_image_that_the_task_cannot_take_fails_the_job(bench: Workbench):
    images = [image(bench.url(0), is_3D=True), image(bench.url(1))]
    ended = bench.run(Step(input_types={"is_3D": True}), images=images)
    assert ended.log.startswith("JOB ERROR")
    assert "Invalid filtered image list" in ended.log
    assert bench.url(1) in ended.log


def test_l1_meta_and_configuration_file_bound_how_many_units_run_at_a_time(bench: Workbench, tmp_path, monkeypatch):
    """Each unit waits for the next one's file, so with fewer than three at a time nothing would end."""
    chain = {
        bench.url(n): {"touch": str(tmp_path / str(n)), "wait_for": str(tmp_path / str((n + 1) % 3))} for n in range(3)
    }
    config = tmp_path / "local.json"
    config.write_text('{"parallel_tasks_per_job": 3}')
    monkeypatch.setenv("FRACTAL_LOCAL_CONFIG_FILE", str(config))
    assert bench.run(Step({"of_url": chain}), images=3).status == "done"

    config.write_text('{"parallel_tasks_per_job": 1}')
    for n in range(3):
        (tmp_path / str(n)).unlink()
    assert bench.run(Step({"of_url": chain}, meta={"parallel_tasks_per_job": 3}), images=3).status == "done"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be used"),
        ('{"parallel": 3}', "unknown key 'parallel'"),
        ('{"parallel_tasks_per_job": 0}', "must be a whole number from 1 on"),
        ("[1]", "not a JSON object"),
    ],
)
def test_l1_a_wrong_configuration_file_is_named_with_its_key(bench: Workbench, tmp_path, monkeypatch, text, said):
    config = tmp_path / "local.json"
    config.write_text(text)
    monkeypatch.setenv("FRACTAL_LOCAL_CONFIG_FILE", str(config))
    ended = bench.run(Step())
    assert str(config) in ended.log
    assert said in ended.log


def test_e2_e3_after_a_failure_the_dataset_is_that_of_the_last_whole_task(bench: Workbench, backend: str):
    new = {"output": {"image_list_updates": [{"zarr_url": "{url}_n", "origin": "{url}"}]}}
    only_new = {"attributes": {}, "types": {"made": True}}
    broken = {"of_url": {bench.url("0_n"): {"raise": "no"}, bench.url("1_n"): new}}
    ended = bench.run(
        Step(new, name="Good", output_types={"made": True}),
        Step(broken, name="Bad", input_filters=only_new, output_types={"worse": True}),
        Step(name="Never"),
    )
    assert ended.statuses == [(0, "done"), (1, "failed")]
    assert ended.urls == [bench.url(n) for n in ("0", "1", "0_n", "1_n")]
    assert all("worse" not in item["types"] for item in ended.images)
    assert ended.filters["types"] == {"made": True}
    done, failed = (item["workflowtask"] for item in ended.history)
    assert set(done) == {"id", "workflow_id", "order", "input_filters", "task_id", "task"}  # T12: trimmed
    assert failed["args_parallel"] == broken  # T12: in full


def test_e3_the_outputs_of_units_that_succeeded_are_kept_for_a_retry(bench: Workbench, backend: str):
    new = {"output": {"image_list_updates": [{"zarr_url": "{url}_n"}]}}
    ended = bench.run(Step({"of_url": {bench.url(0): {"raise": "no"}, bench.url(1): new}}))
    lines = map(json.loads, ended.read("0_toy_task/0_batch_000000.results.jsonl").splitlines())
    ends = {line["unit"]: line for line in lines if line["event"] == "end"}
    assert ends[0]["returncode"] == 1
    assert json.loads(ends[1]["output"])["image_list_updates"] == [{"zarr_url": bench.url("1_n")}]
    (units,) = {event["failed"] for event in ended.events("units") if event["failed"]}
    assert units == "0"
