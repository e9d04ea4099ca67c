"""A folder goes only when its zip is proven to hold it (rows Z1 and Z2)."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from runner_core.archive import DEFLATE_LEVEL, archive_folder
from runner_core.failures import NotFound
from runner_core.job_files import JobFiles
from runner_core.zip_members import ArchiveError


def content_of(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def content_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_beside(job: Path) -> list[str]:
    """What is there of the job: its folder, its zip, anything half-made."""
    return sorted(path.name.removeprefix(job.name) for path in job.parent.glob(f"{job.name}*"))


def test_z1_the_zip_holds_every_file_by_its_path_within_the_folder_and_no_folders(job):
    before = content_below(job)
    archive = archive_folder(job, keep_folder=True)
    assert archive == job.with_name(f"{job.name}.zip")
    assert content_of(archive) == before
    assert zipfile.is_zipfile(archive)


def test_z2_a_small_folder_goes_as_well(job):
    archive_folder(job, keep_folder=False)
    assert names_beside(job) == [".zip"]


def test_z2_the_folder_stays_when_it_is_to_be_kept(job):
    before = content_below(job)
    archive_folder(job, keep_folder=True)
    assert names_beside(job) == ["", ".zip"]
    assert content_below(job) == before


def test_z1_an_older_zip_is_replaced(job):
    job.with_name(f"{job.name}.zip").write_bytes(b"older")
    before = content_below(job)
    assert content_of(archive_folder(job, keep_folder=True)) == before


def test_files_are_deflated_and_other_programs_agree_with_the_zip(job):
    (job / "long.log").write_text("the same line again\n" * 10_000)
    archive = archive_folder(job, keep_folder=False)
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        assert all(info.compress_type == zipfile.ZIP_DEFLATED for info in opened.infolist())
    assert archive.stat().st_size < 10_000


def test_the_level_that_was_chosen_for_its_speed_is_the_one_in_use(job):
    data = b"".join(b"line %d of a log, %d labels\n" % (number, number * 7919 % 1009) for number in range(20_000))
    (job / "long.log").write_bytes(data)
    deflater = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    with zipfile.ZipFile(archive_folder(job, keep_folder=False)) as opened:
        assert opened.getinfo("long.log").compress_size == len(deflater.compress(data) + deflater.flush())


def test_the_zip_is_private_whatever_the_umask(job):
    old = os.umask(0)
    try:
        archive = archive_folder(job, keep_folder=False)
    finally:
        os.umask(old)
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600


def test_an_empty_folder_becomes_an_empty_zip(tmp_path):
    (tmp_path / "empty").mkdir()
    assert content_of(archive_folder(tmp_path / "empty", keep_folder=False)) == {}


def test_progress_counts_every_file_twice_and_ends_complete(job):
    steps: list[tuple[int, int]] = []
    archive_folder(job, keep_folder=False, report=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 12) for done in range(1, 13)]


def test_more_files_than_a_plain_zip_can_hold():
    """In memory, where making and removing so many files takes no time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        folder = Path(memory) / "many"
        folder.mkdir()
        for number in range(66_000):
            os.close(os.open(f"{folder}/{number:07d}.log", os.O_CREAT | os.O_WRONLY))
        archive = archive_folder(folder, keep_folder=False)
        with zipfile.ZipFile(archive) as opened:
            assert len(opened.namelist()) == 66_000
        with JobFiles.open(folder) as files:
            assert [files.entries()[n].path for n in (0, -1)] == ["0000000.log", "0065999.log"]


def test_a_huge_sparse_log_is_packed_small_and_in_bounded_memory(job):
    with (job / "sparse.log").open("wb") as log:
        log.truncate(100 << 20)
    tracemalloc.start()
    archive = archive_folder(job, keep_folder=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert archive.stat().st_size < 1 << 20
    assert peak < 20 << 20


@pytest.mark.parametrize(("seconds", "year"), [(-(10**9), 1980), (0, 1980), (10**11, 2106), (10**9, 2001)])
def test_times_that_a_zip_cannot_hold_become_the_nearest(job, seconds, year):
    os.utime(job / "workflow.log", (seconds, seconds))
    archive = archive_folder(job, keep_folder=False)
    with zipfile.ZipFile(archive) as opened:
        assert opened.getinfo("workflow.log").date_time[0] == year


def test_names_that_are_no_utf8_or_would_mislead_are_escaped_and_nothing_is_lost(job):
    for name in (b"caf\xe9.log", b"back\\slash", b"new\nline", b"C:drive", b"50%41", b"100%.log", "größe".encode()):
        (job / os.fsdecode(name)).write_bytes(name)
    content = content_of(archive_folder(job, keep_folder=False))
    assert content["caf%E9.log"] == b"caf\xe9.log"
    assert content["back%5Cslash"] == b"back\\slash"
    assert content["new%0Aline"] == b"new\nline"
    assert content["C%3Adrive"] == b"C:drive"
    assert content["50%2541"] == b"50%41"
    assert content["100%.log"] == b"100%.log"
    assert content["größe"] == "größe".encode()


def test_a_link_to_a_file_inside_is_stored_as_the_file_and_links_out_are_not_followed(job, tmp_path, caplog):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (job / "inside.log").symlink_to("workflow.log")
    (job / "out.log").symlink_to(outside / "secret")
    (job / "out").symlink_to(outside)
    (job / "dangling").symlink_to("nowhere")
    (job / "loop").symlink_to("loop")
    (job / "up").symlink_to("..")
    with caplog.at_level(logging.WARNING):
        content = content_of(archive_folder(job, keep_folder=False))
    assert content["inside.log"] == content["workflow.log"]
    assert not {"out.log", "out", "out/secret", "dangling", "loop", "up"} & set(content)
    assert b"secret" not in content.values()
    assert "5 links, pipes or the like are not zipped" in caplog.text
    assert (outside / "secret").read_text() == "secret"


def test_pipes_and_sockets_are_left_out_and_nobody_waits_for_them(job, monkeypatch):
    os.mkfifo(job / "pipe")
    monkeypatch.chdir(job)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        content = content_of(archive_folder(job, keep_folder=False))
    assert not {"pipe", "socket"} & set(content)


def test_a_folder_that_is_a_link_or_is_not_there_is_not_packed(job, tmp_path):
    (tmp_path / "link").symlink_to(job)
    for folder in (tmp_path / "link", tmp_path / "missing", job / "workflow.log"):
        with pytest.raises(NotFound):
            archive_folder(folder, keep_folder=False)
    assert content_below(job)


def grow(job: Path) -> None:
    with (job / "0_project/0_par_0000002.log").open("ab") as log:
        log.write(b"one more line\n")


def touch(job: Path) -> None:
    os.utime(job / "0_project/0_par_0000002.log", ns=(1, 1))


def remove(job: Path) -> None:
    (job / "0_project/0_par_0000002.log").unlink()


def add(job: Path) -> None:
    (job / "0_project/new.log").write_bytes(b"new")


def replace_by_pipe(job: Path) -> None:
    (job / "workflow.log").unlink()
    os.mkfifo(job / "workflow.log")


@pytest.mark.parametrize("change", [grow, touch, remove, add, replace_by_pipe])
@pytest.mark.parametrize("step", [1, 3, 6, 7, 12])
def test_z1_a_folder_that_changes_while_it_is_zipped_is_kept(job, change, step):
    job.with_name(f"{job.name}.zip").write_bytes(b"older")

    def report(done: int, total: int) -> None:
        if done == step:
            change(job)

    with pytest.raises(ArchiveError, match="is kept"):
        archive_folder(job, keep_folder=False, report=report)
    assert names_beside(job) == ["", ".zip"]
    assert job.with_name(f"{job.name}.zip").read_bytes() == b"older"


def test_z1_a_disk_that_returns_other_bytes_is_noticed_before_the_zip_gets_its_name(job):
    (job / "0_project/0_par_0000002.log").write_bytes(random.Random(1).randbytes(10_000))

    def flip_a_bit(done: int, total: int) -> None:
        if done == total // 2 + 1:
            with job.with_name(f"{job.name}_tmp.zip").open("r+b") as written:
                written.seek(6_000)
                byte = written.read(1)[0]
                written.seek(6_000)
                written.write(bytes([byte ^ 1]))

    before = content_below(job)
    (job / "0_a").mkdir()
    (job / "0_a/first.log").write_bytes(b"read back before the bit flips")
    with pytest.raises(ArchiveError, match=r"0_par_0000002\.log.* damaged"):
        archive_folder(job, keep_folder=False, report=flip_a_bit)
    assert names_beside(job) == [""]
    assert before.items() <= content_below(job).items()


def test_an_interrupt_leaves_the_folder_and_no_half_zip(job):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = content_below(job)
    with pytest.raises(KeyboardInterrupt):
        archive_folder(job, keep_folder=False, report=interrupt)
    assert names_beside(job) == [""]
    assert content_below(job) == before


def test_a_file_that_cannot_be_read_keeps_the_folder(job_of_nobody):
    (job_of_nobody / "images.json").chmod(0)
    with pytest.raises(ArchiveError, match=r"Permission denied.*images\.json"):
        archive_folder(job_of_nobody, keep_folder=False)
    assert names_beside(job_of_nobody) == [""]


def test_a_subfolder_that_cannot_be_listed_keeps_the_folder(job_of_nobody):
    (job_of_nobody / "0_project").chmod(0)
    with pytest.raises(ArchiveError, match="Permission denied"):
        archive_folder(job_of_nobody, keep_folder=False)
    assert names_beside(job_of_nobody) == [""]
    (job_of_nobody / "0_project").chmod(0o700)


def test_a_place_that_cannot_be_written_keeps_the_folder(job_of_nobody):
    job_of_nobody.parent.chmod(0o500)
    with pytest.raises(ArchiveError, match="Permission denied"):
        archive_folder(job_of_nobody, keep_folder=False)
    assert names_beside(job_of_nobody) == [""]


def test_a_folder_that_cannot_be_removed_is_said_and_its_zip_is_complete(job_of_nobody):
    before = content_below(job_of_nobody)
    (job_of_nobody / "0_project").chmod(0o500)
    with pytest.raises(ArchiveError, match=r"could not be removed.*\.zip is complete"):
        archive_folder(job_of_nobody, keep_folder=False)
    assert content_of(job_of_nobody.with_name(f"{job_of_nobody.name}.zip")) == before
    assert not job_of_nobody.exists()
    for folder in job_of_nobody.parent.rglob("0_project"):
        folder.chmod(0o700)


def test_a_full_disk_keeps_the_folder(tmp_path):
    """On a file system of 2 MB, mounted for one process alone."""
    script = """
import os, sys
from pathlib import Path
from runner_core.archive import DEFLATE_LEVEL, archive_folder
from runner_core.job_files import JobFiles
from runner_core.zip_members import ArchiveError
job = Path(sys.argv[1]) / "job"
job.mkdir()
for number in range(12):
    (job / f"{number}.log").write_bytes(os.urandom(100_000))
try:
    archive_folder(job, keep_folder=False)
except ArchiveError as error:
    print(error)
print(sorted(os.listdir(job.parent)), len(os.listdir(job)))
"""
    mounted = 'mount -t tmpfs -o size=2m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "sh", "-c", mounted, "sh", tmp_path, sys.executable, script]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout.splitlines()[1:] == ["['job'] 12"], ended.stderr
    assert "No space left on device" in ended.stdout
    assert "is kept" in ended.stdout


def test_a_process_killed_while_it_zips_leaves_the_folder_and_the_next_attempt_succeeds(job):
    script = """
import sys
from pathlib import Path
from runner_core.archive import DEFLATE_LEVEL, archive_folder
def wait(done, total):
    print(done, flush=True)
    sys.stdin.read()
archive_folder(Path(sys.argv[1]), keep_folder=False, report=wait)
"""
    before = content_below(job)
    command = [sys.executable, "-c", script, job]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as zipping:
        assert zipping.stdout is not None
        assert zipping.stdout.readline() == "1\n"
        zipping.send_signal(signal.SIGKILL)
    assert names_beside(job) == ["", "_tmp.zip"]
    assert content_below(job) == before
    assert content_of(archive_folder(job, keep_folder=False)) == before
    assert names_beside(job) == [".zip"]


def test_a_removal_that_was_cut_short_is_finished_by_the_next_call(job):
    before = content_below(job)
    archive = archive_folder(job, keep_folder=True)
    leaving = job.rename(job.with_name(f"{job.name}_removing"))
    (leaving / "images.json").unlink()
    assert archive_folder(job, keep_folder=False) == archive
    assert names_beside(job) == [".zip"]
    assert content_of(archive) == before
