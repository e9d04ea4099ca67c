"""Datasets: created, extended, exported."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from runner_core.catalog.datasets import add_images, create_dataset, export_dataset, read_images
from runner_core.catalog.scan import scan_for_images
from runner_core.failures import BadInput, Refused
from runner_core.store.models import Dataset, Job
from runner_core.store.session import Store


def image(url: str, **rest: Any) -> dict[str, Any]:
    return {"zarr_url": url, **rest}


FULL = image("/zarr/p/B/03/0", origin="/zarr/p/B/03/raw", attributes={"plate": "p", "n": 1.5}, types={"is_3D": True})


def test_a_dataset_holds_its_images_as_they_were_given(session: Session) -> None:
    filters = {"attributes": {"plate": "p", "well": None}, "types": {"is_3D": True}}
    dataset = create_dataset(
        session, name=" Cells ", zarr_dir="/zarr/", images=[FULL, image("/zarr/x")], filters=filters
    )
    assert (dataset.name, dataset.zarr_dir, dataset.image_count) == ("Cells", "/zarr", 2)
    assert dataset.filters == filters
    assert dataset.images == [FULL, {"zarr_url": "/zarr/x", "origin": None, "attributes": {}, "types": {}}]


def test_zarr_dir_decision_creating_a_dataset_does_not_create_zarr_dir(session: Session, tmp_path: Path) -> None:
    create_dataset(session, name="d", zarr_dir=str(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


def test_t14_paths_are_normalised_and_types_read_as_booleans(session: Session) -> None:
    given = image("/zarr//a/../b/", origin="/zarr/c/", types={" is_3D ": "yes"}, attributes={" plate": "p"})
    dataset = create_dataset(session, name="d", zarr_dir="///zarr/./", images=[given])
    assert dataset.images == [
        {"zarr_url": "/zarr/b", "origin": "/zarr/c", "attributes": {"plate": "p"}, "types": {"is_3D": True}}
    ]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([image("zarr/a")], "images[0].zarr_url: not an absolute path"),
        ([image("s3://bucket/a")], "images[0].zarr_url: S3 paths are not supported yet"),
        ([image("/zarr/a"), {}], "images[1].zarr_url: is missing"),
        ([3], "images[0]: must be an object (got 3)"),
        ([image("/zarr/a", attributes={"x": None})], "images[0].attributes: attribute 'x' must be a number"),
        ([image("/zarr/a", attributes={"x": [1]})], "images[0].attributes: attribute 'x' must be a number"),
        ([image("/zarr/a", types={"x": 2})], "images[0].types.x: input should be a valid boolean"),
        ([image("/zarr/a", types={" ": True})], "images[0].types: an empty key"),
        ([image("/zarr/a", type={})], "images[0].type: extra inputs are not permitted"),
        ([image("/zarr")], "images do not lie under zarr_dir '/zarr'"),
        ([image("/zarr2/a")], "'/zarr2/a'"),
        ([image("/zarr/../etc/a")], "'/etc/a'"),
        ([image("/zarr/a"), image("/zarr//a")], "an image can be in a dataset only once: '/zarr/a'"),
        ([image("/zarr/known/")], "an image can be in a dataset only once: '/zarr/known'"),
    ],
)
def test_import_row_images_that_cannot_be_are_refused_and_none_is_added(
    session: Session, images: list[Any], message: str
) -> None:
    dataset = create_dataset(session, name="d", zarr_dir="/zarr", images=[image("/zarr/known")])
    with pytest.raises(BadInput) as caught:
        add_images(session, dataset, images)
    assert message in str(caught.value)
    session.flush()
    session.refresh(dataset)
    assert len(dataset.images) == dataset.image_count == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": ""}, "the name of a dataset must not be empty"),
        ({"zarr_dir": "zarr"}, "zarr_dir: not an absolute path"),
        ({"zarr_dir": "s3://x"}, "zarr_dir: S3 paths are not supported yet"),
        ({"filters": {"types": {"a": "perhaps"}}}, "the filters: types.a: input should be a valid boolean"),
        ({"filters": {"attributes": {"a": {}}}}, "the filters: attributes: attribute 'a' must be a number"),
        ({"filters": {"plate": "p"}}, "the filters: plate: extra inputs are not permitted"),
        ({"filters": [1]}, "the filters: must be an object"),
    ],
)
def test_a_dataset_that_cannot_be_is_refused_with_the_field(
    session: Session, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        create_dataset(session, **{"name": "d", "zarr_dir": "/zarr", **changed})
    assert message in str(caught.value)


def test_images_are_appended_in_order_and_counted(session: Session) -> None:
    dataset = create_dataset(session, name="d", zarr_dir="/zarr", images=[image("/zarr/2")])
    assert add_images(session, dataset, (image(f"/zarr/{n}") for n in (1, 10))) == 2
    session.expire_all()
    assert [one["zarr_url"] for one in dataset.images] == ["/zarr/2", "/zarr/1", "/zarr/10"]
    assert dataset.image_count == 3


def test_s1_a_dataset_with_a_submitted_job_takes_no_images(session: Session) -> None:
    dataset = create_dataset(session, name="d", zarr_dir="/zarr")
    job = Job(dataset_id=dataset.id, backend="local", first_task_index=0, last_task_index=0)
    session.add(job)
    session.flush()
    with pytest.raises(Refused, match=f"dataset 'd' is busy with job {job.id}"):
        add_images(session, dataset, [image("/zarr/a")])
    job.status = "done"
    session.flush()
    assert add_images(session, dataset, [image("/zarr/a")]) == 1


def test_an_export_can_be_created_again(session: Session) -> None:
    dataset = create_dataset(session, name="d", zarr_dir="/zarr", images=[FULL], filters={"types": {"is_3D": True}})
    exported = export_dataset(session, dataset)
    assert list(exported) == ["name", "zarr_dir", "filters", "images"]
    text = json.dumps(exported).encode()
    again = create_dataset(session, **{**exported, "images": read_images(text, what="the file")})
    assert export_dataset(session, again) == exported


def test_image_files_are_lists_or_documents_with_images() -> None:
    assert read_images(b'[{"zarr_url": "/a"}]', what="f") == [{"zarr_url": "/a"}]
    assert read_images(b'{"images": []}', what="f") == []
    for wrong in (b"{}", b"3", b'{"images": {}}'):
        with pytest.raises(BadInput, match="f: it holds no list of images"):
            read_images(wrong, what="f")


def test_what_a_scan_finds_can_be_added(session: Session, tmp_path: Path) -> None:
    folder = tmp_path / "one.zarr"
    folder.mkdir()
    metadata = {"multiscales": [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}]}
    (folder / ".zattrs").write_text(json.dumps(metadata))
    dataset = create_dataset(session, name="d", zarr_dir=str(tmp_path))
    found = scan_for_images(tmp_path, report=pytest.fail)
    assert add_images(session, dataset, (one.to_json() for one in found)) == 1
    assert dataset.images[0]["types"] == {"is_3D": False}


def test_p5_a_hundred_thousand_images_take_time_in_proportion(store: Store) -> None:
    def seconds(count: int) -> float:
        images = [image(f"/zarr/p/B/{n}/0", attributes={"well": f"B{n}"}, types={"is_3D": True}) for n in range(count)]
        with store.session(write=True) as session:
            started = time.process_time()
            dataset = create_dataset(session, name="d", zarr_dir="/zarr", images=images)
            add_images(session, dataset, [image("/zarr/last")])
            return time.process_time() - started

    seconds(1_000)
    assert seconds(100_000) < 40 * seconds(10_000)


def test_a_list_of_datasets_does_not_load_the_images(session: Session) -> None:
    create_dataset(session, name="d", zarr_dir="/zarr", images=[FULL])
    session.expire_all()
    (dataset,) = session.query(Dataset).all()
    assert "images" not in dataset.__dict__
    assert dataset.image_count == 1
