"""Files are copied out without leaving the target, without a link, and over nothing."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runner_core.archive import archive_folder
from runner_core.failures import NotFound, Refused
from runner_core.job_files import JobFiles

in_each_state = pytest.mark.parametrize("state", ["folder", "zip"])


def opened(job: Path, state: str) -> JobFiles:
    if state == "zip":
        archive_folder(job, keep_folder=False)
    return JobFiles.open(job)


def content_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@in_each_state
def test_z3_all_files_come_out_as_they_went_in(job, state, tmp_path):
    before = content_below(job)
    steps: list[tuple[int, int]] = []
    with opened(job, state) as files:
        count = files.export(tmp_path / "new" / "place", report=lambda done, total: steps.append((done, total)))
    assert count == len(before)
    assert content_below(tmp_path / "new" / "place") == before
    assert steps == [(done, 6) for done in range(1, 7)]


@in_each_state
def test_chosen_files_come_out_alone(job, state, tmp_path):
    with opened(job, state) as files:
        assert files.export(tmp_path / "out", paths=["images.json", "images.json"]) == 1
    assert content_below(tmp_path / "out") == {"images.json": b"[]\n"}


@in_each_state
def test_one_chosen_file_that_is_missing_stops_it_before_anything_is_written(job, state, tmp_path):
    with opened(job, state) as files, pytest.raises(NotFound, match=r"did you mean 'images\.json'"):
        files.export(tmp_path / "out", paths=["workflow.log", "image.json"])
    assert not (tmp_path / "out").exists()


@in_each_state
def test_exported_files_are_private_and_keep_their_time(job, state, tmp_path):
    os.utime(job / "workflow.log", (1_600_000_000, 1_600_000_000))
    with opened(job, state) as files:
        files.export(tmp_path / "out")
    exported = (tmp_path / "out/workflow.log").stat()
    assert stat.S_IMODE(exported.st_mode) == 0o600
    assert exported.st_mtime == 1_600_000_000
    assert stat.S_IMODE((tmp_path / "out/0_project").stat().st_mode) == 0o700


@in_each_state
@pytest.mark.parametrize("what", ["file", "dangling link"])
def test_nothing_is_overwritten(job, state, tmp_path, what):
    target = tmp_path / "out"
    target.mkdir()
    if what == "file":
        (target / "workflow.log").write_text("mine")
    else:
        (target / "workflow.log").symlink_to(tmp_path / "elsewhere")
    with (
        opened(job, state) as files,
        pytest.raises(Refused, match=r"already holds 1 of the files, such as 'workflow.log'"),
    ):
        files.export(target)
    assert [path.name for path in target.iterdir()] == ["workflow.log"]
    assert not (tmp_path / "elsewhere").exists()


@in_each_state
def test_a_link_in_the_target_is_not_followed(job, state, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "out"
    target.mkdir()
    (target / "0_project").symlink_to(outside)
    with opened(job, state) as files, pytest.raises(Refused, match="in the way"):
        files.export(target)
    assert list(outside.iterdir()) == []


@in_each_state
def test_a_file_where_a_folder_is_needed_is_said(job, state, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "0_project").write_text("mine")
    with opened(job, state) as files, pytest.raises(Refused, match="in the way"):
        files.export(target)
    assert (target / "0_project").read_text() == "mine"


@in_each_state
def test_a_target_that_is_no_folder_is_refused(job, state, tmp_path):
    (tmp_path / "out").write_text("mine")
    with opened(job, state) as files, pytest.raises(Refused, match="cannot be used as a folder"):
        files.export(tmp_path / "out")


def test_a_live_folder_can_be_exported_into_itself(job):
    before = content_below(job)
    with JobFiles.open(job) as files:
        files.export(job / "copy")
    assert content_below(job / "copy") == before


@pytest.mark.parametrize("trouble", ["too large", "fits at first sight"])
def test_a_disk_that_is_too_small_gets_no_half_file(job, tmp_path, trouble):
    """On a file system of 1 MB, mounted for one process alone."""
    sizes = [2_000_000] if trouble == "too large" else [4_096] * 200
    for number, size in enumerate(sizes):
        (job / f"{number:03d}.log").write_bytes(os.urandom(size))
    script = """
import json, os, sys
from pathlib import Path
from runner_core.failures import Refused
from runner_core.job_files import JobFiles
target, job = Path(sys.argv[1]), Path(sys.argv[2])
filler = target / "filler"
def fill(done, total):
    if done == 50:
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)): pass
            except OSError: pass
try:
    JobFiles.open(job).export(target, report=fill)
except Refused as error:
    print(error)
written = [path.relative_to(target) for path in target.rglob("*.log")]
half = [str(path) for path in written if (target / path).read_bytes() != (job / path).read_bytes()]
print(json.dumps([len(written), half]))
"""
    mounted = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" -c "$3" "$1" "$4"'
    (tmp_path / "small").mkdir()
    command = ["unshare", "--mount", "sh", "-c", mounted, "sh", tmp_path / "small", sys.executable, script, job]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    said, written = ended.stdout.splitlines() or [ended.stderr, ""]
    assert ("bytes free" if trouble == "too large" else "No space left on device") in said
    count, half = json.loads(written)
    assert half == []
    assert (count == 0) == (trouble == "too large")
