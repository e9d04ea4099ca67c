"""Datasets: image lists that are created, extended and exported. Every operation is linear in the number of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from runner_core.catalog.documents import checked_document, checked_name, first_problem, parse_json
from runner_core.failures import BadInput, Refused, quoted
from runner_core.images import Image, normalized_path, require_under
from runner_core.model import Json
from runner_core.store.models import Dataset
from runner_core.store.queries import submitted_job_id
from runner_core.task_io import FilterUpdate, ImageDocument

MAX_IMAGES_BYTES = 1024 * 1024 * 1024


def create_dataset(
    session: Session, *, name: str, zarr_dir: str, images: Iterable[Json] = (), filters: Json | None = None
) -> Dataset:
    """Make a dataset; `zarr_dir` is where tasks write, an absolute path that need not exist (T14).

    Raises `BadInput` with the exact field, as `add_images` does.
    """
    try:
        zarr_dir = normalized_path(zarr_dir)
    except ValueError as error:
        raise BadInput(f"zarr_dir: {error}") from None
    checked_filters = checked_document(FilterUpdate, filters or {}, what="the filters").to_filters()
    dataset = Dataset(name=checked_name(name, what="dataset"), zarr_dir=zarr_dir, filters=checked_filters.to_json())
    dataset.images = _checked_images(images, zarr_dir=zarr_dir, known=())
    session.add(dataset)
    session.flush()
    return dataset


def add_images(session: Session, dataset: Dataset, images: Iterable[Json]) -> int:
    """Append images to a dataset; return how many.

    Raises `BadInput` with the exact field for malformed images, for those outside `zarr_dir` and for those that are
    in the list already; `Refused` while a job on the dataset is submitted, which would overwrite them at its end.
    """
    # Who launches a job writes a row that refers to this one, and so waits for the end of our transaction.
    session.refresh(dataset, ["images"], with_for_update=True)
    job_id = submitted_job_id(session, dataset.id)
    if job_id is not None:
        raise Refused(
            f"dataset {quoted(dataset.name, 80)} is busy with job {job_id}", hint="wait for its end, or stop it"
        )
    added = _checked_images(images, zarr_dir=dataset.zarr_dir, known=(image["zarr_url"] for image in dataset.images))
    dataset.images = dataset.images + added
    session.flush()
    return len(added)


def read_images(data: bytes, *, what: str) -> list[Json]:
    """The images of a file: a list of them, or a document with the key `images` such as `export_dataset` writes."""
    document = parse_json(data, what=what, limit=MAX_IMAGES_BYTES)
    images = document.get("images") if isinstance(document, dict) else document
    if not isinstance(images, list):
        raise BadInput(f"{what}: it holds no list of images")
    return images


def export_dataset(session: Session, dataset: Dataset) -> Json:
    """The dataset as a document; `create_dataset` takes its values again."""
    session.refresh(dataset, ["images"])
    return {
        "name": dataset.name,
        "zarr_dir": dataset.zarr_dir,
        "filters": dataset.filters,
        "images": dataset.images,
    }


@cache
def _image_documents() -> TypeAdapter[list[ImageDocument]]:
    return TypeAdapter(list[ImageDocument])


def _checked_images(images: Iterable[Any], *, zarr_dir: str, known: Iterable[str]) -> list[Json]:
    try:
        checked: list[Image] = [document.to_image() for document in _image_documents().validate_python(list(images))]
    except ValidationError as error:
        raise BadInput(f"images{first_problem(error)}") from None
    require_under(checked, zarr_dir)
    urls = Counter(image.zarr_url for image in checked)
    urls.update(known)
    twice = [url for url, count in urls.items() if count > 1]
    if twice:
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        raise BadInput(f"an image can be in a dataset only once: {quoted(twice[0])}{more}")
    return [image.to_json() for image in checked]
