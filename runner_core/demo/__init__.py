"""Content of `pilothouse demo`: a plate of real pictures, and the workflow that measures them.

Its folder holds `originals/`, the plate and its illumination profile, made once, and `run-001/` and
so on, the zarr_dir of each run: they start as copies of the plate, so that runs never meet.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner_core.failures import PilothouseError, Refused
from runner_core.model import Json

REQUIREMENT = "fractal-tasks-core==2.1.0"
"""The task package of the demo's workflow; its interpreter also makes the images."""

_HERE = Path(__file__).parent
_ORIGINALS_PLACEHOLDER = "${originals}"
_TABLE = "object_features/table.csv"  # as workflow.json asks for


@dataclass(frozen=True, slots=True)
class DemoImages:
    """What a dataset needs: its folder, and its images as `{zarr_url, origin, attributes, types}`."""

    zarr_dir: Path
    images: list[Json]


@dataclass(frozen=True, slots=True)
class Measurements:
    """The table of one image, one row per object that was found on it."""

    zarr_url: str
    table: Path
    objects: int


def demo_workflow_document(folder: Path) -> Json:
    """Return the workflow in Fractal's export form, its paths those of the demo in `folder`."""
    originals = str(_originals(folder))

    def filled(members: Json) -> Json:
        return {key: originals if value == _ORIGINALS_PLACEHOLDER else value for key, value in members.items()}

    text = (_HERE / "workflow.json").read_text(encoding="utf-8")
    document: Json = json.loads(text, object_hook=filled)
    return document


def make_demo_images(interpreter: Path, folder: Path, *, report: Callable[[int, int], None]) -> DemoImages:
    """Make a fresh run folder with its images; what an earlier demo made in `folder` is reused.

    `interpreter` is the Python of the collected `REQUIREMENT`. `report(done, total)` is called per image made.
    Raises `PilothouseError` when the images cannot be made, `Refused` when `folder` holds something else.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    originals = _originals(folder)
    if not originals.exists():
        _make_originals(interpreter, originals, report=report)
    try:
        listed: list[Json] = json.loads((originals / "images.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(
            f"{str(originals)!r} exists and holds no images of the demo",
            hint="remove it, or choose another folder",
        ) from error
    zarr_dir = _fresh_run_folder(folder.absolute())
    for plate in originals.glob("*.zarr"):
        shutil.copytree(plate, zarr_dir / plate.name)
    images = [
        {
            "zarr_url": str(zarr_dir / image["path"]),
            "origin": None,
            "attributes": image["attributes"],
            "types": image["types"],
        }
        for image in listed
    ]
    return DemoImages(zarr_dir=zarr_dir, images=images)


def measurements(zarr_dir: Path) -> list[Measurements]:
    """Return the tables that the demo's workflow wrote below `zarr_dir`, in the order of their paths."""
    found = []
    for table in sorted(zarr_dir.glob(f"*.zarr/*/*/*/tables/{_TABLE}")):
        with table.open(encoding="utf-8", errors="replace", newline="") as rows:
            objects = sum(1 for _ in csv.DictReader(rows))
        image = table.parents[2]
        found.append(Measurements(zarr_url=str(image), table=table, objects=objects))
    return found


def _originals(folder: Path) -> Path:
    return folder.absolute() / "originals"


def _make_originals(interpreter: Path, originals: Path, *, report: Callable[[int, int], None]) -> None:
    """Make the folder beside its place and move it there: once it exists, it is complete."""
    beside = Path(tempfile.mkdtemp(prefix=".originals-", dir=originals.parent))
    try:
        _run_script(interpreter, beside, report=report)
        try:
            beside.rename(originals)
        except OSError:
            if not originals.is_dir():  # else another demo was quicker
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _run_script(interpreter: Path, into: Path, *, report: Callable[[int, int], None]) -> None:
    # -I: neither PYTHONPATH nor the folder of the script may lend the task environment our modules.
    argv = [str(interpreter), "-I", str(_HERE / "make_images.py"), str(into)]
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        except OSError as error:
            raise PilothouseError(
                f"the interpreter {str(interpreter)!r} cannot be started: {error.strerror}",
                hint=f"collect {REQUIREMENT} again",
            ) from error
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                if progress := _progress(line):
                    report(*progress)
        if process.returncode:
            errors.seek(0)
            last_line = (errors.read().decode(errors="replace").strip().splitlines() or [""])[-1]
            raise PilothouseError(
                f"the demo's images could not be made: {last_line[:500]!r}",
                hint=f"does {str(interpreter)!r} belong to {REQUIREMENT}?",
            )


def _progress(line: bytes) -> tuple[int, int] | None:
    """Read (done, total) from a line of the script; `None` for what its libraries print between."""
    message: Any = None
    with suppress(ValueError):
        message = json.loads(line)
    match message:
        case {"done": int(done), "total": int(total)}:
            return done, total
    return None


def _fresh_run_folder(folder: Path) -> Path:
    number = 1
    while True:
        run = folder / f"run-{number:03}"
        try:
            run.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return run
