"""The job folder: rows S4, O3, T13, X1 and the file names of the reference."""

from __future__ import annotations

import json
import os
import shutil
import stat
import string
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner_core.failures import JobExecutionError
from runner_core.job_folder import (
    BatchFiles,
    JobFolder,
    UnitFiles,
    job_folder_name,
    read_excerpt,
    task_folder_name,
    write_atomically,
    write_together,
)
from tests.pure.small_disk import SmallDisk


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ----------------------------------------------------------------------------------------------------------------------
# Names


@pytest.mark.parametrize(
    ("workflow_id", "job_id", "created", "name"),
    [
        (2, 3, datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC), "proj_v2_0000001_wf_0000002_job_0000003_20260131_235959"),
        (
            12345678,
            1,
            datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=2))),
            "proj_v2_0000001_wf_12345678_job_0000001_20251231_223000",
        ),
    ],
)
def test_s4_the_folder_of_a_job_has_ids_of_seven_digits_and_the_time_in_utc(
    workflow_id: int, job_id: int, created: datetime, name: str
) -> None:
    assert job_folder_name(workflow_id=workflow_id, job_id=job_id, created=created) == name


@pytest.mark.parametrize(
    ("order", "task_name", "name"),
    [
        (0, "Cellpose", "0_cellpose"),
        (11, "Convert Cellvoyager to OME-Zarr", "11_convert_cellvoyager_to_ome_zarr"),
        (1, "a.b/c:d(e)", "1_a_b_c_d_e_"),
        (1, "a \t\n\r\x0b\x0cb", "1_a______b"),
        (1, string.punctuation, "1_" + "_" * len(string.punctuation)),
        (1, "Größe 5 µm", "1_größe_5_µm"),
        (1, "..", "1___"),
        (1, "../../etc/passwd", "1_______etc_passwd"),
        (1, "", "1_"),
        (1, "a\0b\x1b[2J", "1_a_b__2j"),
        (1, "\u202egnp\u2028\xa0", "1__gnp__"),
        (1, "\ud800x", "1__x"),
        (1, "x" * 200, "1_" + "x" * 200),
    ],
)
def test_o3_the_folder_of_a_task_is_its_order_and_its_name_in_lower_case_with_underscores(
    order: int, task_name: str, name: str
) -> None:
    assert task_folder_name(order, task_name) == name


@given(st.integers(0, 10**9), st.text(st.characters(codec=None), max_size=300))
@example(0, "\U0001f52c" * 300)
@example(10**9, "İ" * 300)
@example(0, "a/" * 300)
def test_o3_whatever_a_task_is_called_its_folder_is_one_plain_name(order: int, task_name: str) -> None:
    name = task_folder_name(order, task_name)
    assert len(name.encode()) <= 255
    assert name.isprintable()
    assert not {"/", "\0", " ", "."} & set(name)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).mkdir()
        assert names_in(Path(folder)) == [name]


def test_files_of_a_unit_and_of_a_batch_have_the_names_of_the_reference() -> None:
    assert UnitFiles.non_parallel(3).name == "3"
    assert UnitFiles.non_parallel(3).log == "3.log"
    assert UnitFiles.parallel(3, 12).name == "3_par_0000012"
    assert UnitFiles.parallel(3, 12).log == "3_par_0000012.log"
    assert BatchFiles.non_parallel(3).name == "3"
    assert BatchFiles.parallel(3, 1).name == "3_batch_000001"


def test_files_of_the_job_have_the_names_of_the_reference(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "job")
    assert folder.workflow_log == tmp_path / "job" / "workflow.log"
    assert folder.shutdown == tmp_path / "job" / "shutdown"
    assert folder.archive == tmp_path / "job.zip"


# ----------------------------------------------------------------------------------------------------------------------
# Folders


def test_o3_the_folder_is_made_with_one_subfolder_per_task_all_private(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "jobs" / "job")
    folder.create([(0, "First Task"), (1, "Second")])
    assert names_in(folder.path) == ["0_first_task", "1_second"]
    for path in (folder.path.parent, folder.path, folder.task_folder(0, "First Task")):
        assert mode_of(path) == 0o700


def test_o2_a_folder_that_exists_already_is_an_error_and_left_as_it_is(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "job")
    folder.path.mkdir()
    (folder.path / "kept").touch()
    with pytest.raises(FileExistsError, match="already exists"):
        folder.create([(0, "Task")])
    assert names_in(folder.path) == ["kept"]


def test_task_folders_are_on_the_users_side(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "job", user_path=tmp_path / "user" / "job")
    assert folder.task_folder(2, "A B") == tmp_path / "user" / "job" / "2_a_b"
    assert JobFolder(tmp_path / "job").task_folder(2, "A B") == tmp_path / "job" / "2_a_b"


# ----------------------------------------------------------------------------------------------------------------------
# Stop


def test_x1_a_job_is_not_stopped_by_itself(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "job")
    assert not folder.stop_requested()
    folder.create([])
    assert not folder.stop_requested()


def test_x1_a_stop_is_a_file_in_the_folder(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "job")
    folder.create([])
    folder.request_stop()
    folder.request_stop()
    assert folder.stop_requested()
    assert names_in(tmp_path) == ["job"]
    assert names_in(folder.path) == ["shutdown"]
    assert mode_of(folder.shutdown) == 0o600


def test_x1_a_stop_before_the_folder_exists_counts(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "jobs" / "job")
    folder.request_stop()
    assert folder.stop_requested()
    folder.create([(0, "Task")])
    assert folder.stop_requested()


def test_x1_a_stop_after_the_folder_is_gone_is_no_error(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "job")
    folder.create([])
    shutil.rmtree(folder.path)
    folder.request_stop()
    assert not folder.path.exists()


def at_the_same_time(*actions: Callable[[], object]) -> None:
    barrier = Barrier(len(actions))

    def run(action: Callable[[], object]) -> None:
        barrier.wait()
        action()

    with ThreadPoolExecutor(len(actions)) as pool:
        for future in [pool.submit(run, action) for action in actions]:
            future.result()


@pytest.mark.parametrize("round_number", range(50))
def test_x1_a_stop_while_the_folder_is_made_counts(tmp_path: Path, round_number: int) -> None:
    folder = JobFolder(tmp_path / "job")
    at_the_same_time(lambda: folder.create([]), folder.request_stop, folder.request_stop)
    assert folder.stop_requested()


@pytest.mark.parametrize("round_number", range(20))
def test_x1_a_stop_while_the_folder_goes_is_no_error(tmp_path: Path, round_number: int) -> None:
    folder = JobFolder(tmp_path / "job")
    folder.create([])
    at_the_same_time(lambda: folder.path.rename(tmp_path / "away"), folder.request_stop)
    assert not folder.path.exists()


# ----------------------------------------------------------------------------------------------------------------------
# State files


def test_t13_the_state_is_three_indented_files(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    images = [{"zarr_url": "/a", "origin": None, "attributes": {"größe": 1.5}, "types": {"is_3D": True}}]
    folder.write_state(history=[{"status": "done"}], filters={"attributes": {}, "types": {}}, images=images)
    assert names_in(tmp_path) == ["filters.json", "history.json", "images.json"]
    assert (tmp_path / "history.json").read_text() == '[\n  {\n    "status": "done"\n  }\n]'
    assert json.loads((tmp_path / "images.json").read_bytes()) == images
    assert {mode_of(path) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(
    "value",
    [[], {"x": None}, [10**400], ["\ud800 half a pair"], [{"ü\n": "\0"}], [float("inf")], {"x": [1, 1.0, True, "1"]}],
    ids=ascii,
)
def test_t13_what_was_written_is_read_again(tmp_path: Path, value: Any) -> None:
    folder = JobFolder(tmp_path)
    folder.write_state(history=[], filters=value, images=[])
    again = folder.read_state("filters")
    assert again == value
    assert repr(again) == repr(value), "1, 1.0 and true stay what they are"


def test_t13_no_state_yet_is_none(tmp_path: Path) -> None:
    assert JobFolder(tmp_path).read_state("history") is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1,"])
def test_t13_a_broken_state_file_is_a_clear_job_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "history.json").write_bytes(content)
    with pytest.raises(JobExecutionError, match=r"history\.json is not valid JSON"):
        JobFolder(tmp_path).read_state("history")


def test_t13_on_a_full_disk_all_three_state_files_stay_as_they_were(disk: SmallDisk) -> None:
    folder = JobFolder(disk.path / "job")
    folder.create([])
    folder.write_state(history=[1], filters={"old": True}, images=[1])
    with pytest.raises(OSError, match="No space left"):
        folder.write_state(history=[1, 2], filters={"old": False}, images=["y" * 70_000])
    with pytest.raises(OSError, match="No space left"):
        folder.write_state(history=["y" * 70_000], filters={"old": False}, images=[1, 2])
    assert [folder.read_state(name) for name in ("history", "filters", "images")] == [[1], {"old": True}, [1]]
    assert names_in(folder.path) == ["filters.json", "history.json", "images.json"]


# ----------------------------------------------------------------------------------------------------------------------
# Atomic writes


def test_a_file_is_written_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"", b"third" * 100_000):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert mode_of(path) == 0o600
    assert names_in(tmp_path) == ["file"]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_beside(disk: SmallDisk) -> None:
    path = disk.path / "file"
    write_atomically(path, b"old")
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new" * 4096)
    assert path.read_bytes() == b"old"
    assert names_in(disk.path) == ["file", "filler"]


def test_a_file_that_cannot_take_its_name_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "file" / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "file", b"new")
    assert names_in(tmp_path) == ["file"]


def test_files_written_together_are_all_old_if_one_cannot_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"old")
    with pytest.raises(FileNotFoundError):
        write_together({tmp_path / "a": b"new", tmp_path / "missing" / "b": b"new"})
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names_in(tmp_path) == ["a"]


# ----------------------------------------------------------------------------------------------------------------------
# Reading what others wrote


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ""),
        (b"short", "short"),
        (b"0123456789abcdef0123", "0123456789abcdef0123"),
        (b"head5" + b"x" * 30 + b"the tail of 15.", "head5\n... 30 bytes left out ...\nthe tail of 15."),
        ("größe".encode(), "größe"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"a\0b", "a\\0b"),
    ],
)
def test_a_log_is_read_whole_or_as_its_beginning_and_its_end(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    assert read_excerpt(path, 20) == expected


def test_a_log_of_5_gb_is_read_at_both_ends_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"the beginning")
        file.truncate(5 * 1024**3)
        file.seek(0, os.SEEK_END)
        file.write(b"the end")
    excerpt = read_excerpt(path, 100_000)
    assert excerpt is not None
    assert excerpt.startswith("the beginning\\0")
    assert excerpt.endswith("\\0the end")
    assert len(excerpt) <= 2 * 100_000 + 100


@pytest.mark.parametrize("name", ["missing", "folder", "file/below"])
def test_what_cannot_be_read_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert read_excerpt(tmp_path / name, 100) is None


@given(st.binary(max_size=300), st.integers(4, 100))
def test_an_excerpt_is_bounded_text_that_every_database_takes(content: bytes, limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(content)
        excerpt = read_excerpt(path, limit)
    assert excerpt is not None
    assert "\0" not in excerpt
    assert excerpt.encode().decode() == excerpt
    assert len(excerpt) <= 2 * limit + 50
