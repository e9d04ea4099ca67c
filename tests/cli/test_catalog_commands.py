"""Task packages, workflows and datasets by the command line."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.cli.command_line import Cli, Stage, until

TASK_KEYS = {
    "id",
    "name",
    "version",
    "pkg_name",
    "source",
    "type",
    "command_non_parallel",
    "command_parallel",
    "input_types",
    "output_types",
}


def image_group(path: Path) -> None:
    """A flat OME-Zarr image, as far as a scan looks at it."""
    (path / "0").mkdir(parents=True)
    axes = [{"name": "y"}, {"name": "x"}]
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text(json.dumps({"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}))
    (path / "0" / ".zarray").write_text(json.dumps({"shape": [8, 8]}))


# -- tasks


def test_collecting_prints_the_tasks_as_the_list_does(cli: Cli, home: Path, toy_python: Path) -> None:
    collected = cli("task", "collect", "--interpreter", toy_python, "--package", "toy-tasks", "--json")

    assert collected.code == 0
    assert [task["name"] for task in collected.json] == ["Each", "Whole", "Planned", "Convert", "Flat Only"]
    assert all(set(task) == TASK_KEYS for task in collected.json)
    assert collected.json == cli("task", "list", "--json").json
    assert {task["pkg_name"] for task in collected.json} == {"toy-tasks"}


def test_tasks_are_listed_for_people_in_a_table(cli: Cli, home: Path) -> None:
    lines = cli("task", "list").out.splitlines()

    assert lines[0].split() == ["ID", "TASK", "TYPE", "PACKAGE", "VERSION"]
    assert lines[-1].split() == ["5", "Flat", "Only", "parallel", "toy-tasks", "1.0"]


@pytest.mark.parametrize("package", ["toy-tasks", "toy-tasks==1.0", "1"])
def test_a_package_is_removed_by_name_version_or_id(cli: Cli, home: Path, package: str) -> None:
    answer = cli("task", "remove", package)

    assert answer.out == "removed toy-tasks 1.0 with 5 tasks\n"
    assert cli("task", "list", "--json").json == []


def test_a_package_that_a_workflow_uses_is_not_removed(cli: Cli, stage: Stage) -> None:
    stage.workflow({"task": "Each"})

    answer = cli("task", "remove", "toy-tasks")

    assert answer.code == 5
    assert "is used by workflow 1 'toys'" in answer.err


# -- workflows


def test_a_workflow_goes_out_and_comes_in_again(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    stage.workflow(
        {"task": "Each", "args_parallel": {"print": ["ä"]}, "type_filters": {"flat": False}}, {"task": "Whole"}
    )
    file = tmp_path / "exported.json"

    assert cli("workflow", "export", "toys", file).code == 0
    again = cli("workflow", "import", file, "--name", "again", "--json").json

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert again["name"] == "again"
    first, second = again["task_list"]
    assert first["args_parallel"] == {"print": ["ä"]}
    assert first["input_filters"] == {"attributes": {}, "types": {"flat": False}}
    assert (second["order"], second["task"]["name"]) == (1, "Whole")
    assert cli("workflow", "export", "again", "-").out.replace("again", "toys") == file.read_text()
    assert [row["task_count"] for row in cli("workflow", "list", "--json").json] == [2, 2]


def test_the_older_form_names_a_task_by_its_source(cli: Cli, home: Path) -> None:
    source = cli("task", "list", "--json").json[0]["source"]
    text = json.dumps({"name": "old", "task_list": [{"task": {"source": source}}]}).encode()

    imported = cli("workflow", "import", "-", "--json", stdin=text)

    assert imported.code == 0
    assert imported.json["task_list"][0]["task"]["source"] == source


def test_a_task_that_is_not_collected_is_named_with_the_command_that_collects_it(cli: Cli, home: Path) -> None:
    reference = {"pkg_name": "other-tasks", "version": "2.0", "name": "Blur"}
    text = json.dumps({"name": "w", "task_list": [{"task": reference}]}).encode()

    answer = cli("workflow", "import", "-", stdin=text)

    assert answer.code == 4
    assert "'Blur' of other-tasks 2.0" in answer.err
    assert "pilothouse task collect 'other-tasks==2.0'" in answer.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "must be an object"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"name": "w", "task_list": 5}', "task_list: must be a list"),
        (b'{"name": "w", "task_list": [{}]}', "task_list[0].task: is missing"),
        (b'{"name": "w", "task_list": [{"task": {}}]}', "task_list[0].task"),
        (b'{"name": "\\u001b[2J", "task_list": []}', "control characters"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_workflow_file_is_refused_with_the_field(cli: Cli, home: Path, text: bytes, says: str) -> None:
    answer = cli("workflow", "import", "-", stdin=text)

    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert says in answer.err


def test_a_folder_is_no_file(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    stage.workflow({"task": "Each"})

    read = cli("workflow", "import", tmp_path)
    written = cli("workflow", "export", 1, tmp_path)

    assert (read.code, written.code) == (2, 5)
    assert "Is a directory" in read.err
    assert "Is a directory" in written.err


def test_exporting_replaces_a_file_whole_or_not_at_all(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    stage.workflow({"task": "Each"})
    file = tmp_path / "old.json"
    file.write_text("old")

    missing = cli("workflow", "export", "nobody", file)
    assert (missing.code, file.read_text()) == (4, "old")

    cli("workflow", "export", 1, file)
    assert json.loads(file.read_text())["name"] == "toys"
    assert cli("workflow", "export", 1, tmp_path / "no" / "such" / "folder.json").code == 5
    assert cli("workflow", "export", 1, "/dev/null").code == 0


def test_a_workflow_can_be_shown_and_deleted(cli: Cli, stage: Stage) -> None:
    stage.workflow({"task": "Each", "args_parallel": {"print": ["x"]}, "type_filters": {"flat": True}})

    shown = cli("workflow", "show", "toys").out
    assert 'print: ["x"]' in shown
    assert "only images with flat = true" in shown
    assert cli("workflow", "delete", "toys").out == "deleted workflow 1 'toys'\n"
    assert cli("workflow", "list", "--json").json == []


# -- datasets


def test_e4_a_workflow_shows_how_its_tasks_stand_over_a_dataset(cli: Cli, stage: Stage) -> None:
    tasks = [{"task": "Each"}, {"task": "Each", "args_parallel": {"exit": 1}}, {"task": "Each"}]
    workflow, dataset = stage.workflow(*tasks), stage.dataset(1)
    before = cli("workflow", "show", workflow, "--dataset", dataset, "--json").json
    cli("run", workflow, dataset, "--wait")

    shown = cli("workflow", "show", workflow, "--dataset", "images")
    document = cli("workflow", "show", workflow, "--dataset", dataset, "--json").json

    first, second, _ = (str(step["id"]) for step in document["task_list"])
    assert before["statuses"] == {}
    assert document["statuses"] == {first: "done", second: "failed"}
    titles = [line for line in shown.out.splitlines() if ", toy-tasks 1.0" in line]
    assert [title.rpartition("1.0")[2] for title in titles] == ["  done", "  failed", ""]
    assert "statuses" not in cli("workflow", "show", workflow, "--json").json
    assert cli("workflow", "show", workflow, "--dataset", "nobody").code == 4


def test_e4_a_running_job_shows_what_it_has_done_and_what_it_is_to_do(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    waits = {"task": "Each", "args_parallel": {"touch": str(begun), "wait_for": str(gate)}}
    workflow, dataset = stage.workflow({"task": "Each"}, waits, {"task": "Each"}), stage.dataset(1)
    cli("run", workflow, dataset, "--last", 1)
    until(begun.exists)

    document = cli("workflow", "show", workflow, "--dataset", dataset, "--json").json
    gate.touch()
    cli("job", "logs", 1, "-f")

    assert list(document["statuses"].values()) == ["done", "submitted"]


def test_a_dataset_is_created_with_images_and_filters(cli: Cli, home: Path, tmp_path: Path) -> None:
    images, filters = tmp_path / "images.json", tmp_path / "filters.json"
    listed = [{"zarr_url": "/data/b", "attributes": {"well": "A1"}, "types": {"flat": True}}, {"zarr_url": "/data/a"}]
    images.write_text(json.dumps(listed))
    filters.write_text('{"attributes": {"well": null}, "types": {"flat": true}}')

    created = cli(
        "dataset", "create", "plate", "--zarr-dir", "/data/", "--images", images, "--filters", filters, "--json"
    )

    assert created.code == 0
    assert {"id", "name", "zarr_dir", "images", "filters", "history"} <= set(created.json)
    assert created.json["zarr_dir"] == "/data"
    assert created.json["images"] == [
        {"zarr_url": "/data/b", "origin": None, "attributes": {"well": "A1"}, "types": {"flat": True}},
        {"zarr_url": "/data/a", "origin": None, "attributes": {}, "types": {}},
    ]
    assert created.json["filters"] == {"attributes": {"well": None}, "types": {"flat": True}}
    assert created.json == cli("dataset", "show", "plate", "--json").json


@pytest.mark.parametrize(
    ("option", "text", "says"),
    [
        ("--images", b"nonsense", "not valid JSON"),
        ("--images", b'{"pictures": []}', "no list of images"),
        ("--images", b'[{"zarr_url": "/elsewhere/x"}]', "do not lie under zarr_dir"),
        ("--images", b'[{"zarr_url": "/data/x"}, {"zarr_url": "/data/./x"}]', "only once"),
        ("--images", b'[{"zarr_url": "/data/x", "types": {"flat": 2}}]', "types.flat"),
        ("--filters", b"[]", "not a JSON object"),
        ("--filters", b'{"colour": {}}', "colour"),
    ],
)
def test_a_broken_image_list_or_filter_is_refused(cli: Cli, home: Path, option: str, text: bytes, says: str) -> None:
    answer = cli("dataset", "create", "plate", "--zarr-dir", "/data", option, "-", stdin=text)

    assert answer.code == 2
    assert says in answer.err
    assert cli("dataset", "list", "--json").json == []


def test_a_scan_adds_what_it_finds_once(cli: Cli, home: Path, zarr_dir: Path) -> None:
    for name in ("b.zarr", "a.zarr"):
        image_group(zarr_dir / name)
    (zarr_dir / "broken.zarr").mkdir()
    (zarr_dir / "broken.zarr" / ".zattrs").write_text("{")
    cli("dataset", "create", "found", "--zarr-dir", zarr_dir)

    first = cli("dataset", "scan", "found", zarr_dir, "--json")
    second = cli("dataset", "scan", "found", zarr_dir)

    assert first.code == 0
    assert (first.json["found"], first.json["added"]) == (2, 2)
    assert [image["zarr_url"] for image in first.json["images"]] == [f"{zarr_dir}/a.zarr", f"{zarr_dir}/b.zarr"]
    assert first.json["images"][0]["types"] == {"is_3D": False}
    assert "broken.zarr" in first.err
    assert second.out == "found 2 images, 2 of them in the dataset already; dataset 1 now has 2 images\n"


def test_a_scan_needs_a_folder_below_zarr_dir(cli: Cli, home: Path, zarr_dir: Path, tmp_path: Path) -> None:
    image_group(tmp_path / "elsewhere" / "a.zarr")
    cli("dataset", "create", "found", "--zarr-dir", zarr_dir)

    outside = cli("dataset", "scan", "found", tmp_path / "elsewhere")
    missing = cli("dataset", "scan", "found", tmp_path / "nowhere")

    assert (outside.code, missing.code) == (2, 4)
    assert "do not lie under zarr_dir" in outside.err


def test_an_exported_dataset_is_created_again(cli: Cli, stage: Stage, zarr_dir: Path, tmp_path: Path) -> None:
    stage.dataset(2, flat=True)
    file = tmp_path / "exported.json"

    cli("dataset", "export", "images", file)
    again = cli("dataset", "create", "again", "--zarr-dir", zarr_dir, "--images", file, "--json").json

    assert again["images"] == cli("dataset", "show", "images", "--json").json["images"]


def test_an_id_wins_over_a_name_that_looks_like_one(cli: Cli, home: Path) -> None:
    cli("dataset", "create", "2", "--zarr-dir", "/first")
    cli("dataset", "create", "other", "--zarr-dir", "/second")
    cli("dataset", "create", "77", "--zarr-dir", "/third")

    assert cli("dataset", "show", "2", "--json").json["name"] == "other"
    assert cli("dataset", "show", "77", "--json").json["zarr_dir"] == "/third"


def test_two_of_one_name_are_told_apart_by_id(cli: Cli, home: Path) -> None:
    for zarr_dir in ("/a", "/b"):
        cli("dataset", "create", "twin", "--zarr-dir", zarr_dir)

    answer = cli("dataset", "show", "twin")

    assert answer.code == 5
    assert answer.err == "error: 2 datasets are named 'twin'; use an id: 1, 2\n"


def test_a_dataset_is_deleted_from_the_store_alone(cli: Cli, home: Path, zarr_dir: Path) -> None:
    image_group(zarr_dir / "a.zarr")
    cli("dataset", "create", "short-lived", "--zarr-dir", zarr_dir)

    answer = cli("dataset", "delete", "short-lived", "--json")

    assert answer.json == {"id": 1, "name": "short-lived", "zarr_dir": str(zarr_dir)}
    assert (zarr_dir / "a.zarr").is_dir()
    assert cli("dataset", "show", 1).code == 4


def test_a_long_image_list_is_cut_for_people_and_whole_in_json(cli: Cli, stage: Stage) -> None:
    stage.dataset(50)

    assert "… 30 more (--all lists them)" in cli("dataset", "show", 1).out
    assert len(cli("dataset", "show", 1, "--all").out.splitlines()) > 50
    assert len(cli("dataset", "show", 1, "--json").json["images"]) == 50
