"""Bad disks, bad logs, large lists: whatever happens, the job ends in the store and the dataset is whole."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_core.store.models import Dataset
from runner_core.store.session import open_store
from tests.runner.workbench import Step, Workbench, image


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_huge_log_fills_neither_memory_nor_store(bench: Workbench):
    ended = bench.run(Step({"print_megabytes": 100, "raise": "at last"}), images=1)
    assert "ValueError: at last" in ended.log
    assert "bytes left out" in ended.log
    assert len(ended.log) < 200_000


def test_a_binary_log_ends_up_as_valid_text(bench: Workbench):
    ended = bench.run(Step({"print_bytes": bytes(range(256)).hex(), "raise": "at last"}), images=1)
    assert "ValueError: at last" in ended.log
    assert "\0" not in ended.log
    ended.log.encode("utf-8")


def test_strange_image_paths_are_only_data(bench: Workbench):
    urls = [bench.url(name) for name in ("a b", "$(rm -rf x)", "x;y", "é\x1b[31m", "new\nline", "'\"")]
    ended = bench.run(
        Step({"output": {"image_list_updates": []}}, output_types={"t": True}), images=[image(u) for u in urls]
    )
    assert ended.status == "done"
    assert ended.urls == urls
    assert all(item["types"] == {"t": True} for item in ended.images)


def test_a_full_disk_fails_the_job_and_leaves_the_dataset_whole(bench: Workbench, backend: str, tmp_path, monkeypatch):
    small = tmp_path / "small"
    monkeypatch.setenv("FRACTAL_RUNNER_WORKING_BASE_DIR", str(small))
    new = {"output": {"image_list_updates": [{"zarr_url": "{url}_n"}]}}
    with mounted(small, "size=1m"):
        fills = {"of_url": {bench.url("0_n"): {"fill": str(small / "junk")}}}
        ended = bench.run(Step(new, output_types={"made": True}), Step(fills), images=1)
    assert ended.status == "failed"
    assert "No space left on device" in ended.log
    assert ended.urls == [bench.url("0"), bench.url("0_n")]
    assert ended.statuses == [(0, "done"), (1, "failed")]


def test_a_disk_that_is_full_from_the_start_fails_the_job(bench: Workbench, tmp_path, monkeypatch):
    small = tmp_path / "small"
    monkeypatch.setenv("FRACTAL_RUNNER_WORKING_BASE_DIR", str(small))
    with mounted(small, "size=16k,nr_inodes=3"):
        ended = bench.run(Step(), images=1)
    assert ended.status == "failed"
    assert "No space left on device" in ended.log
    assert ended.urls == [bench.url("0")]


def test_a_read_only_folder_fails_the_job(bench: Workbench, tmp_path, monkeypatch):
    folder = tmp_path / "read-only"
    monkeypatch.setenv("FRACTAL_RUNNER_WORKING_BASE_DIR", str(folder))
    with mounted(folder, "size=1m,ro"):
        ended = bench.run(Step(), images=1)
    assert ended.status == "failed"
    assert "Read-only file system" in ended.log


def test_100_000_images_go_through_a_task(bench: Workbench):
    images = [image(bench.url(n), well=f"A{n}") for n in range(100_000)]
    removal = {"image_list_removals": [bench.url(0)]}
    ended = bench.run(Step(type="non_parallel"), Step({"output": removal}, type="non_parallel"), images=images)
    assert ended.status == "done"
    assert ended.image_count == len(ended.images) == 99_999


def test_an_image_list_that_changed_meanwhile_is_not_loaded_for_nothing(bench: Workbench):
    """A list of datasets never loads image lists: the column is deferred."""
    bench.dataset(3)
    with open_store(bench.settings.store).session() as session:
        row = session.get(Dataset, 1)
        assert "images" not in row.__dict__
        assert row.image_count == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 10**30, "\u202e", ""])
def test_odd_attribute_values_survive_the_way_through_files_and_store(bench: Workbench, value):
    ended = bench.run(Step(), Step(), images=[image(bench.url(0), odd=value)])
    assert repr(ended.images[0]["attributes"]["odd"]) == repr(value)
