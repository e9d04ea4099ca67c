"""Outputs that cannot be read, and disks that are full."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_core.worker.run_units import ResultFile

OUTPUTS = {
    "nothing": ("pass", None, None),
    "an empty file": ("open(out, 'w')", "", None),
    "text": ("open(out, 'w').write('{\"é\": 1}')", '{"é": 1}', None),
    "bytes that are no text": ("open(out, 'wb').write(b'\\xff{}')", "\udcff{}", None),
    "a folder": ("os.mkdir(out)", None, "the output file cannot be read: "),
    "a pipe": ("os.mkfifo(out)", None, "the output is not a file"),
    "a link that leads nowhere": ("os.symlink('nowhere', out)", None, None),
    "a link to itself": ("os.symlink(out, out)", None, "the output file cannot be read: "),
    "too much": ("os.truncate(os.open(out, os.O_CREAT | os.O_WRONLY), 2**28 + 1)", None, "is larger than 268435456"),
}


@pytest.mark.parametrize(("body", "output", "problem"), OUTPUTS.values(), ids=OUTPUTS)
def test_the_output_is_handed_on_or_said_to_be_unusable(bench, body, output, problem):
    script = bench.guarded(f"out = sys.argv[4]\n{body}", top="import os, sys\n")
    end = bench.run(script).ends[0]
    assert (end["returncode"], end["output"]) == (0, output)
    if problem is None:
        assert end["problem"] is None
    else:
        assert problem in end["problem"]


def test_the_output_of_a_unit_that_failed_is_not_read(bench, warm):
    end = bench.run(
        bench.guarded("open(sys.argv[4], 'w').write('{}'); sys.exit(1)", top="import sys\n"), warm=warm
    ).ends[0]
    assert (end["returncode"], end["output"]) == (1, None)


def test_an_output_that_cannot_be_cleared_away_is_a_problem_of_that_unit(bench):
    (bench.folder / "unit0.metadiff.json").mkdir()
    report = bench.run(["/bin/true"], 2)
    assert report.ends[0]["problem"].startswith("the unit could not be started: ")
    assert report.returncodes == [None, 0]


@contextlib.contextmanager
def small_disk(folder: Path, *, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Fill the disk to the last byte."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))


def test_a_full_disk_is_waited_for_and_no_line_is_lost_or_torn(bench, tmp_path, eventually):
    """The first unit fills the disk and says so elsewhere; room is made only when the worker had none."""
    with small_disk(tmp_path / "disk", size="64k") as disk:
        junk, full = disk / "junk", tmp_path / "full"
        body = f"""
            if not full.exists():
                try:
                    with open({str(junk)!r}, "ab", buffering=0) as junk:
                        while True:
                            junk.write(bytes(1024))
                except OSError:
                    full.touch()
        """
        top = f"from pathlib import Path\nfull = Path({str(full)!r})\n"
        arguments = [{"padding": "x" * 5000}] * 3
        worker = bench.start(bench.plan(bench.guarded(body, top=top), arguments, folder=str(disk)))
        eventually(full.exists)
        eventually(lambda: not list(Path(f"/proc/{worker.pid}/task/{worker.pid}").joinpath("children").read_text()))
        assert worker.poll() is None
        junk.unlink()
        assert worker.wait(timeout=30) == 0
        lines = [json.loads(line) for line in (disk / "results.jsonl").read_text().splitlines()]
    kinds = [line["event"] for line in lines if line["event"] != "note"]
    assert kinds == ["begin", *["start", "end"] * 3, "finish"]
    assert [line["returncode"] for line in lines if line["event"] == "end"] == [0, 0, 0]


def test_lines_that_find_no_room_are_kept_whole_until_there_is_some(tmp_path):
    with small_disk(tmp_path / "disk", size="16k") as disk:
        results = ResultFile(str(disk / "results.jsonl"))
        results.append("note", text="before")
        fill(disk / "junk")
        results.append("note", text="x" * 6000)
        results.append("note", text="after")
        assert results.blocked
        assert not (disk / "results.jsonl").read_bytes().strip(b"\n").endswith(b"x"), "a torn line"
        (disk / "junk").unlink()
        results.close()
        lines = [json.loads(line) for line in (disk / "results.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == ["before", "x" * 6000, "after"]


def test_a_disk_that_stays_full_is_given_up(tmp_path):
    with small_disk(tmp_path / "disk", size="16k") as disk:
        results = ResultFile(str(disk / "results.jsonl"), patience=0.0)
        fill(disk / "junk")
        with pytest.raises(OSError) as caught:  # noqa: PT012 - which of them it is depends on the clock
            results.append("note", text="x" * 6000)
            results.close()
    assert caught.value.errno == errno.ENOSPC
    assert os.strerror(errno.ENOSPC) in str(caught.value)
