"""How long one task's output takes to become the dataset: from the text that the task wrote to the store.

Three tasks of N images: one that adds them, one that edits them, and one whose N units edit one image each. Each is
measured through parsing, merging, the image list, the state files of the job folder and the write into SQLite; beside
it, in the same minute, the floor: a linear merge of the same JSON into a dict, and one SQL update.
"""

from __future__ import annotations

import json
import math
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner_core.images import Filters, ImageList, apply_output, filters_after_task, image_list
from runner_core.job_folder import JobFolder
from runner_core.store.models import Dataset
from runner_core.store.session import Store, open_store
from runner_core.task_io import TaskOutput, merged_outputs, parse_task_output

ZARR_DIR = "/data/plate.zarr"
OUTPUT_TYPES = {"illumination_corrected": True}
KINDS = ("add", "edit", "edit_by_units")


@dataclass(frozen=True)
class Work:
    """What a task finds and what it says: the images before, and the texts of its units' outputs."""

    before: list[dict[str, Any]]
    texts: list[str]
    merge: bool


def make_work(kind: str, size: int) -> Work:
    urls = [f"{ZARR_DIR}/{'ABCDEFGH'[i % 8]}/{i % 12:02d}/{i}" for i in range(size)]
    before = [
        {
            "zarr_url": url,
            "origin": None,
            "attributes": {"plate": "plate.zarr", "well": f"{url[len(ZARR_DIR) + 1]}{i % 12:02d}", "acquisition": 1},
            "types": {"is_3D": True},
        }
        for i, url in enumerate(urls)
    ]
    if kind == "add":
        updates = [
            {"zarr_url": f"{url}_new", "origin": url, "attributes": {"well": "A01", "cycle": 2}, "types": {}}
            for url in urls
        ]
        return Work(before[:1], [json.dumps({"image_list_updates": updates})], merge=False)
    updates = [{"zarr_url": url, "attributes": {"cycle": 2}, "types": {"registered": True}} for url in urls]
    if kind == "edit":
        return Work(before, [json.dumps({"image_list_updates": updates})], merge=False)
    return Work(before, [json.dumps({"image_list_updates": [update]}) for update in updates], merge=True)


class Ours:
    """The way through the runner's own rooms."""

    def __init__(self, folder: Path, work: Work) -> None:
        self._work = work
        self._images: ImageList = image_list(work.before)
        self._job_folder = JobFolder(folder / "job")
        self._job_folder.create([])
        self._store: Store = open_store(f"sqlite:///{folder / 'store.db'}")
        with self._store.session(write=True) as session:
            dataset = Dataset(name="benchmark", zarr_dir=ZARR_DIR, images=work.before)
            session.add(dataset)
            session.flush()
            self._dataset_id = dataset.id

    def close(self) -> None:
        self._store.dispose()

    def update(self) -> None:
        output = self._output()
        images = apply_output(
            self._images, output, inputs=self._images.values(), output_types=OUTPUT_TYPES, zarr_dir=ZARR_DIR
        )
        filters = filters_after_task(Filters(), output_filters=output.all_filters, output_types=OUTPUT_TYPES)
        documents = [image.to_json() for image in images.values()]
        self._job_folder.write_state(history=[], filters=filters.to_json(), images=documents)
        with self._store.session(write=True) as session:
            dataset = session.get_one(Dataset, self._dataset_id)
            dataset.images, dataset.filters = documents, filters.to_json()

    def _output(self) -> TaskOutput:
        if self._work.merge:
            return merged_outputs(parse_task_output(text) for text in self._work.texts)
        return parse_task_output(self._work.texts[0])


class Floor:
    """A linear merge of the same texts, and one update."""

    def __init__(self, folder: Path, work: Work) -> None:
        self._work = work
        self._database = sqlite3.connect(folder / "floor.db")
        self._database.execute("CREATE TABLE dataset (images TEXT)")
        self._database.execute("INSERT INTO dataset VALUES (?)", (json.dumps(work.before),))
        self._database.commit()

    def close(self) -> None:
        self._database.close()

    def update(self) -> None:
        images = {image["zarr_url"]: image for image in self._work.before}
        for text in self._work.texts:
            for update in json.loads(text)["image_list_updates"]:
                old = images.get(update["zarr_url"]) or {"attributes": {}, "types": {}}
                images[update["zarr_url"]] = {
                    **old,
                    **update,
                    "attributes": {**old["attributes"], **update["attributes"]},
                    "types": {**old["types"], **update["types"], **OUTPUT_TYPES},
                }
        self._database.execute("UPDATE dataset SET images = ?", (json.dumps(list(images.values())),))
        self._database.commit()


def best_of(repeats: int, action: Callable[[], None]) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(kind: str, size: int) -> tuple[float, float]:
    """Seconds of our way and of the floor."""
    work = make_work(kind, size)
    repeats = 3 if size <= 20_000 else 2
    with tempfile.TemporaryDirectory(prefix="image-list-") as name:
        ours, floor = Ours(Path(name), work), Floor(Path(name), work)
        try:
            return best_of(repeats, ours.update), best_of(repeats, floor.update)
        finally:
            ours.close()
            floor.close()


def run(sizes: Sequence[int] = (1_000, 5_000, 20_000, 100_000)) -> dict[str, float]:
    """Seconds, their ratio to the floor's, and the exponent of growth from the size before (1 is linear)."""
    figures: dict[str, float] = {}
    for kind in KINDS:
        before: tuple[int, float] | None = None
        for size in sizes:
            seconds, floor = measure(kind, size)
            name = f"{kind}_{size:_}"
            figures |= {f"{name}_seconds": seconds, f"{name}_floor_seconds": floor, f"{name}_ratio": seconds / floor}
            if before is not None:
                figures[f"{name}_growth"] = math.log(seconds / before[1], size / before[0])
            before = (size, seconds)
    return figures
