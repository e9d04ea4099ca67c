"""A job's files read alike from its folder, from its zip, and while one becomes the other (rows O8 and Z3)."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner_core.archive import archive_folder
from runner_core.failures import BadInput, NotFound, Refused
from runner_core.job_files import LINE_LIMIT, READ_LIMIT, TAIL_LIMIT, JobFiles
from runner_core.zip_members import ArchiveError

LOG = "0_project/0_par_0000002.log"
IN_ORDER = [
    "0_project/0_par_0000002.log",
    "0_project/0_par_0000010.log",
    "0_project/0_par_0000010.metadiff.json",
    "1_measure/deep/er/0.log",
    "images.json",
    "workflow.log",
]

in_each_state = pytest.mark.parametrize("state", ["folder", "folder and zip", "zip"])


def bring(job: Path, state: str) -> Path:
    if state != "folder":
        archive_folder(job, keep_folder=state == "folder and zip")
    return job


@in_each_state
def test_o8_files_are_listed_and_read_from_folder_zip_and_both(job, state):
    before = {path: (job / path).read_bytes() for path in IN_ORDER}
    with JobFiles.open(bring(job, state)) as files:
        entries = files.entries()
        assert [entry.path for entry in entries] == IN_ORDER
        assert [entry.size for entry in entries] == [len(before[path]) for path in IN_ORDER]
        for path in IN_ORDER:
            assert files.read(path) == before[path]
            assert b"".join(files.stream(path)) == before[path]
        assert files.problems == []


def test_o8_where_both_are_there_the_live_folder_wins(job):
    archive_folder(job, keep_folder=True)
    (job / "workflow.log").write_bytes(b"changed")
    (job / "images.json").unlink()
    with JobFiles.open(job) as files:
        assert files.read("workflow.log") == b"changed"
        with pytest.raises(NotFound):
            files.read("images.json")


def test_o8_a_view_of_the_folder_goes_on_when_the_folder_becomes_a_zip(job):
    with JobFiles.open(job) as files:
        live = [entry.path for entry in files.entries()]
        archive_folder(job, keep_folder=False)
        assert [entry.path for entry in files.entries()] == live
        assert files.read("workflow.log") == b"START\nEND\n"
        assert files.tail(LOG, 1) == ["TypeError: wrong"]


def test_neither_folder_nor_zip_is_said(tmp_path):
    with pytest.raises(NotFound, match=r"neither .*job_7 nor its zip"):
        JobFiles.open(tmp_path / "job_7")


@in_each_state
def test_the_time_of_change_is_aware_and_in_utc(job, state):
    written = datetime(2025, 1, 2, 3, 4, 6, tzinfo=UTC)
    os.utime(job / "workflow.log", (written.timestamp(), written.timestamp()))
    with JobFiles.open(bring(job, state)) as files:
        found = files.entry("workflow.log").modified
    assert found is not None
    assert found.tzinfo is UTC
    assert abs(found - written) <= timedelta(seconds=2)


@in_each_state
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(offset=st.integers(0, 2500), size=st.none() | st.integers(0, 2500))
def test_a_part_of_a_file_is_the_slice_of_the_whole(tmp_path, state, offset, size):
    data = bytes(range(256)) * 8
    job = tmp_path / f"{state} to slice"
    if not job.exists() and not job.with_name(f"{job.name}.zip").exists():
        job.mkdir()
        (job / "data").write_bytes(data)
        bring(job, state)
    end = None if size is None else offset + size
    with JobFiles.open(job) as files:
        assert files.read("data", offset=offset, size=size) == data[offset:end]


@in_each_state
def test_a_negative_offset_or_size_is_refused(job, state):
    with JobFiles.open(bring(job, state)) as files:
        for wrong in ({"offset": -1}, {"size": -1}):
            with pytest.raises(BadInput, match="negative"):
                files.read("workflow.log", **wrong)


@in_each_state
def test_reading_all_of_a_huge_file_is_refused_and_a_part_of_it_takes_little_memory(job, state):
    with (job / "huge.log").open("wb") as log:
        log.truncate(READ_LIMIT + 1)
    with JobFiles.open(bring(job, state)) as files:
        with pytest.raises(Refused, match="over 64 MiB"):
            files.read("huge.log")
        tracemalloc.start()
        assert files.read("huge.log", offset=READ_LIMIT - 9) == bytes(10)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10 << 20


@in_each_state
@pytest.mark.parametrize(
    ("data", "lines", "last"),
    [
        (b"one\ntwo\nthree\n", 2, ["two", "three"]),
        (b"one\ntwo\nthree", 2, ["two", "three"]),
        (b"one\n", 5, ["one"]),
        (b"one\n\n", 2, ["one", ""]),
        (b"\n", 2, [""]),
        (b"", 2, []),
        (b"one\n", 0, []),
        (b"caf\xe9\n", 1, ["caf\ufffd"]),
        (b"x" * TAIL_LIMIT + b"\nlast line\n", 10, ["last line"]),
        (b"first\n" + b"x" * TAIL_LIMIT, 10, ["x" * TAIL_LIMIT]),
    ],
    ids=[
        "ended",
        "not ended",
        "short",
        "empty last",
        "one empty",
        "empty",
        "none",
        "binary",
        "huge first",
        "huge last",
    ],
)
def test_the_tail_is_the_last_lines(job, state, data, lines, last):
    (job / "tailed.log").write_bytes(data)
    with JobFiles.open(bring(job, state)) as files:
        assert files.tail("tailed.log", lines) == last


@in_each_state
def test_a_search_finds_lines_with_their_numbers_in_all_logs(job, state):
    with JobFiles.open(bring(job, state)) as files:
        found = [(match.path, match.line_number, match.line) for match in files.search(r"TypeError|^ten$")]
        assert found == [(LOG, 2, "TypeError: wrong"), ("0_project/0_par_0000010.log", 1, "ten")]
        assert [match.path for match in files.search(r"\[\]", suffix=".json")] == ["images.json"]
        assert list(files.search("nowhere")) == []


@in_each_state
def test_a_search_goes_through_lines_of_any_length_and_shows_the_place(job, state):
    data = b"a" * (3 << 20) + b"needle" + b"b" * (1 << 20) + b"\nneedle\n"
    (job / "long.log").write_bytes(data)
    with JobFiles.open(bring(job, state)) as files:
        first, second = files.search("needle")
    assert (first.line_number, second.line_number) == (1, 2)
    assert "needle" in first.line
    assert len(first.line) <= LINE_LIMIT // 100
    assert second.line == "needle"


def test_a_malformed_expression_is_refused_before_anything_is_read(job):
    with JobFiles.open(job) as files, pytest.raises(BadInput, match="not a regular expression"):
        files.search("(")


@in_each_state
@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "0_project/../../x", "a\\b", "a\0b", "C:x", "", "."]
)
def test_a_path_that_could_lead_out_is_refused(job, state, path):
    with JobFiles.open(bring(job, state)) as files:
        for read in (files.read, files.entry, files.stream, lambda wrong: files.tail(wrong, 1)):
            with pytest.raises(Refused):
                read(path)


@in_each_state
@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("0_project/0_par_000010.log", "'0_project/0_par_0000010.log'"),
        ("0_par_0000010.log", "'0_project/0_par_0000010.log'"),
        ("0_project", "'0_project/0_par_0000002.log'"),
        ("workflow.lo", "'workflow.log'"),
    ],
)
def test_a_missing_file_is_answered_with_the_nearest(job, state, path, near):
    with JobFiles.open(bring(job, state)) as files, pytest.raises(NotFound) as caught:
        files.read(path)
    assert near in str(caught.value)


@in_each_state
def test_a_missing_file_that_resembles_none_is_just_missing(job, state):
    with JobFiles.open(bring(job, state)) as files, pytest.raises(NotFound, match=r"no file 'zzz'$"):
        files.read("zzz")


@in_each_state
def test_odd_names_are_listed_as_names_that_can_be_read(job, state):
    odd = {
        b"caf\xe9.log": "caf%E9.log",
        b"back\\slash": "back%5Cslash",
        b"50%41": "50%2541",
        b"new\nline": "new%0Aline",
    }
    for name in odd:
        (job / os.fsdecode(name)).write_bytes(name)
    with JobFiles.open(bring(job, state)) as files:
        assert set(odd.values()) < {entry.path for entry in files.entries()}
        for name, path in odd.items():
            assert files.read(path) == name


@in_each_state
def test_a_link_within_is_a_file_and_a_link_out_is_not_there(job, state, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (job / "inside.log").symlink_to(LOG)
    (job / "out.log").symlink_to(tmp_path / "secret")
    (job / "out").symlink_to(tmp_path)
    with JobFiles.open(bring(job, state)) as files:
        assert files.read("inside.log") == b"two\nTypeError: wrong\n"
        assert not {"out.log", "out", "out/secret"} & {entry.path for entry in files.entries()}
        for path in ("out.log", "out/secret"):
            with pytest.raises((Refused, NotFound)):
                files.read(path)


def test_a_pipe_in_a_live_folder_is_refused_at_once(job):
    os.mkfifo(job / "pipe.log")
    with JobFiles.open(job) as files:
        with pytest.raises(Refused, match="not a regular file"):
            files.read("pipe.log")
        assert len(list(files.search("TypeError"))) == 1


def test_a_file_that_may_not_be_read_is_named_after_a_search_of_the_rest(job_of_nobody):
    (job_of_nobody / "0_project/0_par_0000010.log").chmod(0)
    with JobFiles.open(job_of_nobody) as files:
        with pytest.raises(Refused, match="Permission denied"):
            files.read("0_project/0_par_0000010.log")
        matches = files.search("TypeError")
        assert next(matches).path == LOG
        with pytest.raises(ArchiveError, match=r"1 files could not be searched.*0000010\.log"):
            next(matches)


def test_a_live_log_is_read_as_it_grows(job):
    with JobFiles.open(job) as files:
        assert files.tail("workflow.log", 1) == ["END"]
        with (job / "workflow.log").open("ab") as log:
            log.write(b"more\n")
        assert files.tail("workflow.log", 1) == ["more"]
        assert files.read("workflow.log", offset=10) == b"more\n"


def test_a_folder_that_went_without_a_zip_is_said(job):
    with JobFiles.open(job) as files:
        shutil.rmtree(job)
        with pytest.raises(NotFound):
            files.entries()
