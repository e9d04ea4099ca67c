"""What `pilothouse demo` needs before it can launch: tasks, images, a dataset and a workflow in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from runner_core.catalog.collect import collect_package
from runner_core.catalog.datasets import create_dataset
from runner_core.catalog.workflows import export_workflow, import_workflow
from runner_core.demo import REQUIREMENT, demo_workflow_document, make_demo_images
from runner_core.model import Json
from runner_core.settings import Settings
from runner_core.store.models import Workflow
from runner_core.store.session import open_store


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo's job runs, and on what; `zarr_dir` is the folder of this run's images."""

    workflow_id: int
    dataset_id: int
    zarr_dir: Path
    images: int


def prepare_demo(
    settings: Settings,
    folder: Path,
    *,
    report: Callable[[str], None],
    report_images: Callable[[int, int], None],
) -> Demo:
    """Collect the demo's tasks, make its images and put a dataset and the workflow into the store.

    What an earlier demo made is used again, but for the images, which each run changes. `report` is given one line per
    step, `report_images` the images made and those to make. Errors as of collecting and of `make_demo_images`.
    """
    store = open_store(settings.store)
    package = collect_package(store, REQUIREMENT, envs_dir=settings.envs_dir, report=report)
    made = make_demo_images(Path(package.interpreter), folder, report=report_images)
    with store.session(write=True) as session:
        workflow = _workflow(session, demo_workflow_document(folder))
        dataset = create_dataset(
            session, name=f"demo {made.zarr_dir.name}", zarr_dir=str(made.zarr_dir), images=made.images
        )
        return Demo(workflow.id, dataset.id, made.zarr_dir, len(made.images))


def _workflow(session: Session, document: Json) -> Workflow:
    """The workflow of the document: the one that an earlier demo imported, if it is still the same."""
    imported = import_workflow(session, document)
    same_name = select(Workflow).where(Workflow.name == imported.name, Workflow.id != imported.id)
    wanted = export_workflow(session, imported)
    for earlier in session.scalars(same_name.order_by(Workflow.id)):
        if export_workflow(session, earlier) == wanted:
            session.delete(imported)
            return earlier
    return imported
