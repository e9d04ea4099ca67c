"""A small job folder, and a way to lose root's rights for a while."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534

CONTENT = {
    "workflow.log": b"START\nEND\n",
    "images.json": b"[]\n",
    "0_project/0_par_0000002.log": b"two\nTypeError: wrong\n",
    "0_project/0_par_0000010.log": b"ten\n",
    "0_project/0_par_0000010.metadiff.json": b"",
    "1_measure/deep/er/0.log": b"\xff\xfe\x00binary\r\n" * 100,
}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job folder with the files of CONTENT and an empty subfolder."""
    return fill(tmp_path / "proj_v2_0000001")


def fill(folder: Path) -> Path:
    for path, data in CONTENT.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "2_empty").mkdir()
    return folder


@pytest.fixture
def job_of_nobody() -> Iterator[Path]:
    """The same, seen by a user who may not read everything: root may, so it becomes nobody for the test."""
    place = Path(tempfile.mkdtemp())
    folder = fill(place / "proj_v2_0000002")
    was_root = os.geteuid() == 0
    if was_root:
        for path in [place, *place.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield folder
    if was_root:
        os.seteuid(0)
    place.chmod(0o700)
    shutil.rmtree(place)
