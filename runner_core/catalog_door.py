"""What operators ask of the catalog: each call is its own short transaction and answers with a JSON document.

This is where the door's callers, which know settings and no sessions, meet the catalog. What comes from outside is
handed in as the bytes of its file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from runner_core import documents
from runner_core.catalog import collect, datasets, packages, scan, workflows
from runner_core.catalog.documents import parse_json
from runner_core.failures import BadInput, NotFound, Refused, quoted
from runner_core.model import JobStatus, Json
from runner_core.settings import Settings
from runner_core.store.models import Dataset, Job, Workflow
from runner_core.store.queries import find_dataset, find_workflow
from runner_core.store.session import open_store

MAX_FILTERS_BYTES = 1 << 20


# ----------------------------------------------------------------------------------------------------------------------
# Task packages


def collect_tasks(
    settings: Settings, spec: str, *, python: str | None = None, report: Callable[[str], None]
) -> list[Json]:
    """Collect a requirement of the package index, a wheel or a folder; returns its tasks as `list_tasks` has them.

    Errors as of `catalog.collect.collect_package`; `report` is given one line per step.
    """
    store = open_store(settings.store)
    package = collect.collect_package(store, spec, envs_dir=settings.envs_dir, python=python, report=report)
    return documents.list_tasks(settings, package_id=package.id)


def register_tasks(settings: Settings, *, interpreter: Path, package: str) -> list[Json]:
    """Collect a package of an environment that exists; returns its tasks as `list_tasks` has them."""
    store = open_store(settings.store)
    row = collect.register_environment(store, interpreter=interpreter, package=package)
    return documents.list_tasks(settings, package_id=row.id)


def remove_tasks(settings: Settings, package: str) -> Json:
    """Remove a collected package and its environment, given its id, its name, or `name==version`; returns its row.

    Raises `NotFound`, and `Refused` while a workflow uses one of its tasks or when several packages are meant.
    """
    row = _package_row(documents.list_packages(settings), package)
    packages.remove_package(open_store(settings.store), row["id"], envs_dir=settings.envs_dir)
    return row


def _package_row(rows: list[Json], wanted: str) -> Json:
    names = {row["id"]: {str(row["id"]), row["pkg_name"], f"{row['pkg_name']}=={row['version']}"} for row in rows}
    found = [row for row in rows if wanted in names[row["id"]]]
    if not found:
        known = ", ".join(f"{row['pkg_name']}=={row['version']}" for row in rows[-5:]) or "none"
        raise NotFound(f"there is no task package {quoted(wanted, 80)}", hint=f"collected: {known}")
    if len(found) > 1:
        ids = ", ".join(f"{row['id']} ({row['version']}, {row['origin']})" for row in found[:5])
        raise Refused(f"{len(found)} task packages go by {quoted(wanted, 80)}", hint=f"use an id: {ids}")
    return found[0]


# ----------------------------------------------------------------------------------------------------------------------
# Workflows


def import_workflow(settings: Settings, document: bytes, *, name: str | None = None) -> Json:
    """Make a workflow from a file that Fractal or `export_workflow` wrote; returns it as `show_workflow` does.

    Raises `BadInput` with the exact field, or `NotFound` with the commands that collect the tasks that are missing.
    """
    with open_store(settings.store).session(write=True) as session:
        workflow_id = workflows.import_workflow(session, document, name=name).id
    return documents.show_workflow(settings, workflow_id)


def export_workflow(settings: Settings, key: int | str) -> Json:
    """Write a workflow as a document that `import_workflow` and Fractal read."""
    with open_store(settings.store).session() as session:
        return workflows.export_workflow(session, find_workflow(session, key))


def delete_workflow(settings: Settings, key: int | str) -> Json:
    """Delete a workflow; returns its id and name. Raises `Refused` while a job runs it."""
    with open_store(settings.store).session(write=True) as session:
        workflow = find_workflow(session, key)
        _require_no_job(session, workflow)
        session.delete(workflow)
        return {"id": workflow.id, "name": workflow.name}


# ----------------------------------------------------------------------------------------------------------------------
# Datasets


def create_dataset(
    settings: Settings, *, name: str, zarr_dir: str, images: bytes | None = None, filters: bytes | None = None
) -> Json:
    """Make a dataset from the bytes of an image list and of filters; returns it as `show_dataset` does.

    Raises `BadInput` with the exact field.
    """
    image_list = datasets.read_images(images, what="the image list") if images is not None else []
    with open_store(settings.store).session(write=True) as session:
        dataset_id = datasets.create_dataset(
            session, name=name, zarr_dir=zarr_dir, images=image_list, filters=_filters(filters)
        ).id
    return documents.show_dataset(settings, dataset_id)


def _filters(document: bytes | None) -> Json | None:
    if document is None:
        return None
    filters = parse_json(document, what="the filters", limit=MAX_FILTERS_BYTES)
    if not isinstance(filters, dict):
        raise BadInput("the filters are not a JSON object", hint='write {"attributes": {...}, "types": {...}}')
    return filters


def scan_into_dataset(
    settings: Settings,
    key: int | str,
    folder: Path,
    *,
    report: Callable[[int], None] | None = None,
) -> Json:
    """Add the OME-Zarr images found below a folder that are not in the dataset yet.

    Returns the dataset as `show_dataset` does, with the numbers of images `found` and `added` and a list of `problems`
    met on the way. `report` is given the number of images found so far. Raises `NotFound` when there is no such folder,
    `BadInput` for images that do not lie under `zarr_dir`, `Refused` while a job is submitted on the dataset.
    """
    store = open_store(settings.store)
    with store.session() as session:
        dataset_id = find_dataset(session, key).id
    problems: list[str] = []
    found: list[Json] = []
    for image in scan.scan_for_images(folder, report=problems.append):
        found.append(image.to_json())
        if report is not None:
            report(len(found))
    with store.session(write=True) as session:
        dataset = find_dataset(session, dataset_id)
        known = {image["zarr_url"] for image in dataset.images}
        added = datasets.add_images(session, dataset, [image for image in found if image["zarr_url"] not in known])
    shown = documents.show_dataset(settings, dataset_id)
    return {**shown, "found": len(found), "added": added, "problems": problems}


def export_dataset(settings: Settings, key: int | str) -> Json:
    """Write a dataset as a document whose values `create_dataset` takes again."""
    with open_store(settings.store).session() as session:
        return datasets.export_dataset(session, find_dataset(session, key))


def delete_dataset(settings: Settings, key: int | str) -> Json:
    """Delete a dataset from the store, no file of it; returns its id, name and `zarr_dir`.

    Raises `Refused` while a job is submitted on it.
    """
    with open_store(settings.store).session(write=True) as session:
        dataset = find_dataset(session, key)
        _require_no_job(session, dataset)
        session.delete(dataset)
        return {"id": dataset.id, "name": dataset.name, "zarr_dir": dataset.zarr_dir}


def _require_no_job(session: Session, row: Workflow | Dataset) -> None:
    column = Job.workflow_id if isinstance(row, Workflow) else Job.dataset_id
    job_id = session.scalar(select(Job.id).where(column == row.id, Job.status == JobStatus.SUBMITTED).limit(1))
    if job_id is not None:
        raise Refused(
            f"{row.__tablename__} {quoted(row.name, 80)} is in use by job {job_id}",
            hint=f"wait for its end, or `pilothouse job stop {job_id}`",
        )
