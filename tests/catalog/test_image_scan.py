"""Finding OME-Zarr images below a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from runner_core.catalog.scan import scan_for_images
from runner_core.failures import BadInput, NotFound
from runner_core.images import Image

AXES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def group(folder: Path, metadata: dict[str, Any], *, ngff: str) -> None:
    """A Zarr group with OME metadata, as version 0.4 or 0.5 of the format holds it."""
    if ngff == "0.5":
        ome = {"version": "0.5", **metadata}
        write(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}})
    else:
        write(folder / ".zgroup", {"zarr_format": 2})
        write(folder / ".zattrs", metadata)


def make_image(
    folder: Path, shape: tuple[int, ...] = (2, 5, 64, 64), *, axes: str = "czyx", ngff: str = "0.4", labels: bool = True
) -> Path:
    named = [{"name": name, "type": AXES[name]} for name in axes]
    group(folder, {"multiscales": [{"axes": named, "datasets": [{"path": "0"}, {"path": "1"}]}]}, ngff=ngff)
    for level in "01":
        array = {"zarr_format": 3, "node_type": "array", "shape": shape}
        write(folder / level / ("zarr.json" if ngff == "0.5" else ".zarray"), array)
    if labels:
        group(folder / "labels", {"labels": ["nuclei"]}, ngff=ngff)
        label = {"multiscales": [{"axes": named, "datasets": [{"path": "0"}]}], "image-label": {}}
        group(folder / "labels" / "nuclei", label, ngff=ngff)
    return folder


def make_plate(folder: Path, wells: dict[str, list[dict[str, Any]]], *, ngff: str = "0.4") -> Path:
    rows = [{"name": row} for row in sorted({well.split("/")[0] for well in wells})]
    group(folder, {"plate": {"rows": rows, "wells": [{"path": well} for well in wells]}}, ngff=ngff)
    for well, images in wells.items():
        group(folder / well, {"well": {"images": images}}, ngff=ngff)
        for image in images:
            make_image(folder / well / image["path"], ngff=ngff)
    return folder


def scan(folder: Path) -> tuple[list[Image], list[str]]:
    problems: list[str] = []
    return list(scan_for_images(folder, report=problems.append)), problems


def urls(folder: Path) -> list[str]:
    """What is found without a problem, relative to the folder."""
    found, problems = scan(folder)
    assert not problems
    return [os.path.relpath(image.zarr_url, folder) for image in found]


# ------------------------------------------------------------------------------------------------------- what is found


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_the_images_of_a_plate_are_found_with_their_places(tmp_path: Path, ngff: str) -> None:
    wells = {
        "B/03": [{"path": "0", "acquisition": 0}, {"path": "1", "acquisition": 3}],
        "A/12": [{"path": "0"}],
    }
    make_plate(tmp_path / "my plate.zarr", wells, ngff=ngff)
    found, problems = scan(tmp_path)
    assert not problems
    plate = str(tmp_path / "my plate.zarr")
    assert found == [
        Image(f"{plate}/B/03/0", None, {"plate": "my plate.zarr", "well": "B03", "acquisition": 0}, {"is_3D": True}),
        Image(f"{plate}/B/03/1", None, {"plate": "my plate.zarr", "well": "B03", "acquisition": 3}, {"is_3D": True}),
        Image(f"{plate}/A/12/0", None, {"plate": "my plate.zarr", "well": "A12"}, {"is_3D": True}),
    ]


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "shape", "is_3d"),
    [
        ("czyx", (2, 5, 8, 8), True),
        ("czyx", (2, 1, 8, 8), False),
        ("yx", (8, 8), False),
        ("tczyx", (1, 1, 2, 8, 8), True),
    ],
)
def test_an_image_is_3d_when_it_has_more_than_one_plane(
    tmp_path: Path, ngff: str, axes: str, shape: tuple[int, ...], is_3d: bool
) -> None:
    make_image(tmp_path / "one.zarr", shape, axes=axes, ngff=ngff)
    (found,), problems = scan(tmp_path)
    assert (found.types, found.attributes, problems) == ({"is_3D": is_3d}, {}, [])


@pytest.mark.parametrize("axes", [None, ["t", "c", "z", "y", "x"]])
def test_axes_of_the_oldest_versions_are_understood(tmp_path: Path, axes: list[str] | None) -> None:
    multiscale = {"datasets": [{"path": "0"}]} | ({"axes": axes} if axes else {})
    group(tmp_path / "old.zarr", {"multiscales": [multiscale]}, ngff="0.4")
    write(tmp_path / "old.zarr" / "0" / ".zarray", {"shape": [1, 1, 7, 8, 8]})
    (found,), problems = scan(tmp_path)
    assert (found.types, problems) == ({"is_3D": True}, [])


def test_the_folder_itself_may_be_a_plate_a_well_or_an_image(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr", {"B/03": [{"path": "0", "acquisition": 1}]})
    expected = {"plate": "p.zarr", "well": "B03", "acquisition": 1}
    for folder in (plate, plate / "B", plate / "B" / "03"):
        (found,), problems = scan(folder)
        assert (found.attributes, problems) == (expected, [])
    (found,), _ = scan(plate / "B" / "03" / "0")
    assert found.zarr_url == str(plate / "B" / "03" / "0")


def test_images_are_not_entered_and_labels_are_no_images(tmp_path: Path) -> None:
    image = make_image(tmp_path / "one.zarr")
    make_image(image / "tables" / "hidden")
    assert urls(tmp_path) == ["one.zarr"]
    assert urls(image / "labels") == []
    assert urls(image / "0") == []


def test_a_bioformats2raw_folder_gives_its_series(tmp_path: Path) -> None:
    group(tmp_path / "raw.zarr", {"bioformats2raw.layout": 3}, ngff="0.4")
    group(tmp_path / "raw.zarr" / "OME", {"series": ["0", "1"]}, ngff="0.4")
    for series in range(11):
        make_image(tmp_path / "raw.zarr" / str(series))
    assert urls(tmp_path) == [f"raw.zarr/{series}" for series in range(11)]


def test_the_order_depends_on_names_alone_with_numbers_by_value(tmp_path: Path) -> None:
    for name in ("img10", "b/x2", "img9", "b/x1", "img09", "a", "Z"):
        make_image(tmp_path / name)
    assert urls(tmp_path) == ["Z", "a", "b/x1", "b/x2", "img09", "img9", "img10"]


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    make_image(tmp_path / "data" / "one.zarr")
    elsewhere = tmp_path / "elsewhere"
    make_image(elsewhere / "two.zarr")
    (tmp_path / "data" / "a-link-to-one").symlink_to("one.zarr")
    (tmp_path / "data" / "loop").symlink_to(tmp_path)
    (tmp_path / "data" / "self").symlink_to("self")
    (tmp_path / "data" / "linked").symlink_to(elsewhere)
    assert urls(tmp_path / "data") == ["one.zarr", "linked/two.zarr"]


def test_hidden_folders_are_left_alone(tmp_path: Path) -> None:
    make_image(tmp_path / ".snapshot" / "one.zarr")
    assert urls(tmp_path) == []


# ------------------------------------------------------------------------------------------- what is broken or strange


@pytest.mark.parametrize(
    "broken", ["{", "[]", "\x00", "[" * 100_000, '{"plate": 3}', '{"plate": {"wells": {}}}', '{"well": {}}']
)
@pytest.mark.parametrize("name", [".zattrs", "zarr.json"])
def test_broken_metadata_is_reported_and_the_scan_goes_on(tmp_path: Path, broken: str, name: str) -> None:
    if name == "zarr.json" and broken.startswith('{"'):
        broken = json.dumps({"node_type": "group", "attributes": {"ome": json.loads(broken)}})
    write(tmp_path / "a.zarr" / name, broken)
    make_image(tmp_path / "b.zarr")
    found, problems = scan(tmp_path)
    assert [Path(image.zarr_url).name for image in found] == ["b.zarr"]
    assert len(problems) == 1
    assert "a.zarr" in problems[0]
    assert "\n" not in problems[0]


def test_a_plate_with_broken_metadata_still_gives_its_wells(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr", {"B/03": [{"path": "0"}]})
    (plate / ".zattrs").write_text("{")
    (found,), problems = scan(tmp_path)
    assert found.attributes == {"plate": "p.zarr", "well": "B03"}
    assert len(problems) == 1


def test_wells_and_images_that_are_listed_but_not_there_are_reported(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr", {"B/03": [{"path": "0"}, {"path": "1"}]})
    (plate / "B/03/1/.zattrs").unlink()
    wells = {"plate": {"wells": [{"path": "B/03"}, {"path": "B/04"}]}}
    group(plate, wells, ngff="0.4")
    found, problems = scan(tmp_path)
    assert [image.zarr_url for image in found] == [f"{plate}/B/03/0"]
    assert [problem.split(" is listed")[0] for problem in problems] == [
        f"missing: '{plate}/B/03/1'",
        f"missing: '{plate}/B/04'",
    ]


@pytest.mark.parametrize("place", ["../../secret", "/etc", "", ".", "B//03", 3, None, "a\n", "\ud800"])
def test_metadata_cannot_lead_out_of_its_group(tmp_path: Path, place: Any) -> None:
    make_image(tmp_path / "secret")
    group(tmp_path / "plates" / "p.zarr", {"plate": {"wells": [{"path": place}]}}, ngff="0.4")
    found, problems = scan(tmp_path / "plates")
    assert found == []
    assert len(problems) == 1
    assert "what is no path" in problems[0]


@pytest.mark.parametrize(
    "multiscales",
    [[], {}, [{"datasets": []}], [{"axes": 3, "datasets": [{"path": "0"}]}], [{"datasets": [{"path": "9"}]}]],
)
def test_an_image_of_unknown_shape_is_found_without_types(tmp_path: Path, multiscales: Any) -> None:
    group(tmp_path / "odd.zarr", {"multiscales": multiscales}, ngff="0.4")
    (found,), problems = scan(tmp_path)
    assert found.types == {}
    assert len(problems) == 1


def test_names_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    make_image(tmp_path / "good.zarr")
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.zarr"))
    bad.mkdir()
    found, problems = scan(tmp_path)
    assert [Path(image.zarr_url).name for image in found] == ["good.zarr"]
    assert problems == [f"left out, because its name is not UTF-8: {f'{tmp_path}/bad' + chr(0xDCFF) + '.zarr'!a}"]
    with pytest.raises(BadInput, match="not UTF-8"):
        scan(bad)


def test_a_folder_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    make_image(tmp_path / "good.zarr")
    here = os.open(tmp_path, os.O_RDONLY)
    name = "deep" * 60
    for _ in range(20):  # in the end longer than a path may be
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    found, problems = scan(tmp_path)
    assert [Path(image.zarr_url).name for image in found] == ["good.zarr"]
    assert len(problems) == 1
    assert problems[0].endswith("File name too long")


def test_a_pipe_in_the_place_of_metadata_does_not_hang_the_scan(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    os.mkfifo(tmp_path / "a.zarr" / ".zattrs")
    assert scan(tmp_path) == ([], [f"broken metadata: '{tmp_path}/a.zarr/.zattrs' is not JSON"])


def test_a_folder_that_is_none_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot read the folder"):
        scan_for_images(tmp_path / "absent", report=pytest.fail)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFound, match="Not a directory"):
        scan_for_images(tmp_path / "file", report=pytest.fail)
