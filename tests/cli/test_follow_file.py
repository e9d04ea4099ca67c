"""Following a file that another process writes: growth, truncation, rotation, and the folder that goes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from runner_core import follow_file

Step = Callable[[], object]


def followed(path: Path, *steps: Step) -> bytes:
    """What is read when one step happens each time that the reader sleeps; after the last one it is over."""
    waiting: Iterator[Step] = iter(steps)
    left = len(steps)

    def sleep(_seconds: float) -> None:
        nonlocal left
        next(waiting)()
        left -= 1

    return b"".join(follow_file(path, is_over=lambda: left == 0, sleep=sleep))


def appended(path: Path, data: bytes) -> Step:
    def append() -> None:
        with path.open("ab") as file:
            file.write(data)

    return append


def test_what_is_there_and_what_is_added_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one ")

    assert followed(path, appended(path, b"two "), lambda: None, appended(path, b"three")) == b"one two three"


def test_a_file_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log"

    assert followed(path, lambda: None, appended(path, b"late")) == b"late"


def test_what_is_written_last_is_read_though_the_job_is_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"begin ")
    asked = []

    def is_over() -> bool:
        appended(path, b"end")()  # between the last look and the answer
        asked.append(True)
        return True

    assert b"".join(follow_file(path, is_over=is_over, sleep=lambda _: None)) == b"begin end"
    assert asked == [True]


def test_a_truncated_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a long first version ")

    def truncate() -> None:
        os.truncate(path, 0)
        appended(path, b"second")()

    assert followed(path, truncate) == b"a long first version second"


def test_a_rotated_file_is_read_to_its_end_before_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one ")

    def rotate() -> None:
        appended(path, b"two ")()
        path.rename(tmp_path / "log.1")
        path.write_bytes(b"three")

    assert followed(path, rotate) == b"one two three"


def test_a_folder_that_goes_takes_nothing_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    path = folder / "log"
    path.write_bytes(b"one ")

    def go() -> None:
        appended(path, b"two")()
        shutil.rmtree(folder)

    assert followed(path, go) == b"one two"


def test_a_pipe_or_a_link_in_its_place_is_not_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(secret)
    os.mkfifo(pipe)

    assert followed(link, lambda: None) == b""
    assert followed(pipe, lambda: None) == b""
