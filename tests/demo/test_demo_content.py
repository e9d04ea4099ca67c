"""The demo's content: images made of real pictures, and a workflow over them."""

import json
import stat
import sys
from pathlib import Path

import pytest

from runner_core import demo
from runner_core.failures import PilothouseError, Refused


def no_report(done: int, total: int) -> None:
    raise AssertionError(f"nothing is made here, and {done} of {total} was reported")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def demo_folder(tmp_path: Path) -> Path:
    """A demo folder whose images exist already; a tiny stand-in for the real ones."""
    folder = tmp_path / "demo"
    image = folder / "originals" / "plate.zarr" / "A" / "01" / "0"
    image.mkdir(parents=True)
    (image / ".zattrs").write_text("{}")
    listed = [{"path": "plate.zarr/A/01/0", "attributes": {"well": "A01"}, "types": {"is_3D": True}}]
    (folder / "originals" / "images.json").write_text(json.dumps(listed))
    return folder


def test_images_are_made_of_real_pictures_by_the_task_packages_interpreter(
    tmp_path: Path, real_tasks_python: Path
) -> None:
    reports: list[tuple[int, int]] = []
    folder = tmp_path / "demo"

    made = demo.make_demo_images(real_tasks_python, folder, report=lambda done, total: reports.append((done, total)))

    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert made.zarr_dir == folder / "run-001"
    assert [image["attributes"] for image in made.images] == [
        {"plate": "plate.zarr", "well": well, "picture": picture}
        for well, picture in [("A01", "tissue"), ("A02", "coins"), ("B01", "cell"), ("B02", "galaxies")]
    ]
    for image in made.images:
        group = Path(image["zarr_url"])
        assert group.is_relative_to(made.zarr_dir)
        multiscales = json.loads((group / ".zattrs").read_text())["multiscales"]
        assert [axis["name"] for axis in multiscales[0]["axes"]] == ["c", "z", "y", "x"]
        assert (group / "tables" / "FOV_ROI_table").is_dir()
        assert image["origin"] is None
        assert image["types"] == {"is_3D": True}
    assert (folder / "originals" / "flatfield.tif").is_file()
    assert names_in(folder) == ["originals", "run-001"]
    assert stat.S_IMODE(made.zarr_dir.stat().st_mode) == 0o700


def test_a_second_demo_gets_a_run_folder_of_its_own_and_makes_nothing_again(demo_folder: Path) -> None:
    nobody = Path("/nonexistent/python")  # proof that no interpreter is started

    first = demo.make_demo_images(nobody, demo_folder, report=no_report)
    Path(first.images[0]["zarr_url"], "result").write_text("of the first run")
    second = demo.make_demo_images(nobody, demo_folder, report=no_report)

    assert (first.zarr_dir.name, second.zarr_dir.name) == ("run-001", "run-002")
    assert names_in(Path(second.images[0]["zarr_url"])) == [".zattrs"]


def test_a_relative_folder_gives_absolute_paths(demo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo_folder.parent)

    made = demo.make_demo_images(Path("/nonexistent/python"), Path("demo"), report=no_report)

    assert made.images[0]["zarr_url"] == str(demo_folder / "run-001" / "plate.zarr" / "A" / "01" / "0")


def test_an_interpreter_without_the_package_fails_with_its_own_words_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PilothouseError, match="No module named") as failed:
        demo.make_demo_images(Path(sys.executable), tmp_path, report=no_report)

    assert demo.REQUIREMENT in failed.value.hint
    assert names_in(tmp_path) == []


def test_an_interpreter_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(PilothouseError, match=r"/nonexistent/python.*No such file"):
        demo.make_demo_images(Path("/nonexistent/python"), tmp_path, report=no_report)


def test_a_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "originals").mkdir()

    with pytest.raises(Refused, match=r"originals.*holds no images of the demo"):
        demo.make_demo_images(Path("/nonexistent/python"), tmp_path, report=no_report)


def test_the_workflow_names_the_package_that_the_demo_collects(tmp_path: Path) -> None:
    document = demo.demo_workflow_document(tmp_path)

    names = [item["task"]["name"] for item in document["task_list"]]
    assert names == [
        "Illumination Correction",
        "Project Image (HCS Plate)",
        "Threshold Segmentation",
        "Measure Features",
    ]
    packages = {f"{item['task']['pkg_name']}=={item['task']['version']}" for item in document["task_list"]}
    assert packages == {demo.REQUIREMENT}


def test_the_workflow_reads_the_profile_of_its_folder_whatever_the_folders_name(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" ${originals} \\ folder'

    document = demo.demo_workflow_document(folder)

    profiles = document["task_list"][0]["args_parallel"]["illumination_profiles"]
    assert profiles["folder"] == str(folder / "originals")
    assert profiles["profiles"] == {"A01_C01": "flatfield.tif"}


def test_measurements_count_the_objects_of_each_image(tmp_path: Path) -> None:
    def write_table(plate: str, text: str) -> Path:
        table = tmp_path / plate / "A" / "01" / "0" / "tables" / "object_features" / "table.csv"
        table.parent.mkdir(parents=True)
        table.write_text(text, encoding="latin-1")
        return table

    two = write_table("b.zarr", '"label","region"\n1,"one\nfield"\n2,"\xe9"\n')
    none = write_table("a.zarr", '"label","region"\n')

    assert demo.measurements(tmp_path) == [
        demo.Measurements(zarr_url=str(tmp_path / "a.zarr/A/01/0"), table=none, objects=0),
        demo.Measurements(zarr_url=str(tmp_path / "b.zarr/A/01/0"), table=two, objects=2),
    ]


def test_there_are_no_measurements_where_no_task_wrote_any(tmp_path: Path) -> None:
    assert demo.measurements(tmp_path) == []
