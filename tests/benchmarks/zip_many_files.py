"""What a proven zip of many small files costs, beside the floor: the same files through `zipfile` and no proof.

`python tests/benchmarks/zip_many_files.py --files 100000`; both are timed in turn, and the medians are compared.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from runner_core.archive import archive_folder

ROUNDS = 3
FILES_PER_FOLDER = 10_000


def run(*, files: int = 100_000) -> dict[str, float]:
    """Time both ways; seconds, and how many times the floor the proven zip takes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "job"
        _write_files(folder, files)
        proven: list[float] = []
        bare: list[float] = []
        for _ in range(ROUNDS):
            bare.append(_seconds(lambda: _bare_zip(folder, Path(place) / "bare.zip")))
            proven.append(_seconds(lambda: archive_folder(folder, keep_folder=True)))
    return {
        "files": files,
        "proven_seconds": median(proven),
        "floor_seconds": median(bare),
        "ratio": median(proven) / median(bare),
    }


def _write_files(folder: Path, files: int) -> None:
    """Files such as tasks leave: a few hundred bytes of JSON or log each."""
    for index in range(files):
        below = folder / f"{index // FILES_PER_FOLDER}_task"
        if index % FILES_PER_FOLDER == 0:
            below.mkdir(parents=True)
        line = f"2026-01-31 23:59:59,{index % 1000:03d} INFO image {index} of {files}: segmented, {index % 97} labels\n"
        (below / f"{index:07d}.log").write_text(line * (index % 8))


def _bare_zip(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bare:
        for place, _, names in os.walk(folder):
            below = os.path.relpath(place, folder)
            for name in names:
                bare.write(f"{place}/{name}", f"{below}/{name}")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    figures = run(files=parser.parse_args().files)
    print(
        f"{figures['files']:,} small files: proven zip {figures['proven_seconds']:.2f} s, "
        f"bare zip {figures['floor_seconds']:.2f} s, ratio {figures['ratio']:.2f}"
    )


if __name__ == "__main__":
    main()
