"""A store with toy workflows, run for real through the door."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner_core import JobRequest, Settings, UserSettings, create_job, read_settings, submit_workflow
from runner_core.store.models import Dataset, Job, Task, TaskPackage, Workflow, WorkflowTask
from runner_core.store.session import open_store

TOY_TASK = Path(__file__).with_name("toy_task.py")
NO_FILTERS: dict[str, Any] = {"attributes": {}, "types": {}}


def image(url: str, **types_and_attributes: Any) -> dict[str, Any]:
    """An image whose booleans are types and whose other values are attributes."""
    types = {k: v for k, v in types_and_attributes.items() if isinstance(v, bool)}
    attributes = {k: v for k, v in types_and_attributes.items() if k not in types}
    return {"zarr_url": url, "origin": None, "attributes": attributes, "types": types}


@dataclass
class Step:
    """One workflow task: `does` are the arguments of its parallel part (or its only part), `plans` of its init part."""

    does: dict[str, Any] = field(default_factory=dict)
    type: str = "parallel"
    plans: dict[str, Any] = field(default_factory=dict)
    name: str = "Toy Task"
    input_types: dict[str, bool] = field(default_factory=dict)
    output_types: dict[str, bool] = field(default_factory=dict)
    input_filters: dict[str, Any] = field(default_factory=lambda: dict(NO_FILTERS))
    meta: dict[str, Any] = field(default_factory=dict)
    command: str | None = None


class Ended:
    """A job that has ended, as the store and its folder show it."""

    def __init__(self, settings: Settings, job_id: int) -> None:
        with open_store(settings.store).session() as session:
            self.job = session.get(Job, job_id)
            assert self.job is not None
            self.log = self.job.log or ""
            self.dumps = {
                "project": self.job.project_dump,
                "workflow": self.job.workflow_dump,
                "dataset": self.job.dataset_dump,
            }
            dataset = session.get(Dataset, self.job.dataset_id)
            self.images: list[dict[str, Any]] = dataset.images
            self.filters: dict[str, Any] = dataset.filters
            self.history: list[dict[str, Any]] = dataset.history
            self.image_count = dataset.image_count
        self.status = self.job.status
        self.outcome: dict[str, Any] = self.job.outcome or {}
        self.folder = Path(self.job.working_dir)
        self.zip = self.folder.with_name(self.folder.name + ".zip")

    @property
    def urls(self) -> list[str]:
        return [item["zarr_url"] for item in self.images]

    @property
    def statuses(self) -> list[tuple[int, str]]:
        return [(item["workflowtask"]["order"], item["status"]) for item in self.history]

    @property
    def failure(self) -> dict[str, Any]:
        return self.outcome["failure"]

    def names(self) -> list[str]:
        return sorted(zipfile.ZipFile(self.zip).namelist())

    def read(self, name: str) -> str:
        return zipfile.ZipFile(self.zip).read(name).decode("utf-8", "replace")

    def read_json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def events(self, kind: str) -> list[dict[str, Any]]:
        events = map(json.loads, self.read("events.jsonl").splitlines())
        return [event for event in events if event["event"] == kind]


class Workbench:
    """Makes workflows, datasets and jobs, and runs them."""

    def __init__(self, tmp_path: Path) -> None:
        self.zarr_dir = tmp_path / "zarr"
        self._count = 0

    @property
    def settings(self) -> Settings:
        return read_settings()

    def url(self, name: object) -> str:
        return f"{self.zarr_dir}/{name}"

    def dataset(self, images: list[dict[str, Any]] | int, **columns: Any) -> int:
        if isinstance(images, int):
            images = [image(self.url(n)) for n in range(images)]
        row = Dataset(name="dataset", zarr_dir=str(self.zarr_dir), images=images, image_count=len(images), **columns)
        return self._add(row)

    def workflow(self, *steps: Step) -> int:
        self._count += 1
        package = TaskPackage(
            pkg_name="toy", version="1", origin="folder", requested="toy", interpreter=f"python-{self._count}"
        )
        workflow = Workflow(name="workflow")
        for order, step in enumerate(steps):
            command = step.command or shlex.join([sys.executable, str(TOY_TASK)])
            two_parts = step.type in {"compound", "converter_compound"}
            task = Task(
                name=step.name,
                type=step.type,
                source=f"toy:{self._count}:{order}",
                version="1",
                command_non_parallel=command if step.type != "parallel" else None,
                command_parallel=command if two_parts or step.type == "parallel" else None,
                input_types=step.input_types,
                output_types=step.output_types,
            )
            package.tasks.append(task)
            row = WorkflowTask(order=order, task=task, input_filters=step.input_filters)
            if step.type == "parallel" or two_parts:
                row.args_parallel, row.meta_parallel = step.does, step.meta
                row.args_non_parallel = step.plans
            else:
                row.args_non_parallel, row.meta_non_parallel = step.does, step.meta
            workflow.task_list.append(row)
        self._add(package)
        return self._add(workflow)

    def _add(self, row: Any) -> int:
        with open_store(self.settings.store).session(write=True) as session:
            session.add(row)
            session.flush()
            return row.id

    def job(self, *steps: Step, images: list[dict[str, Any]] | int = 2, **request: Any) -> int:
        workflow = self.workflow(*steps)
        dataset = request.pop("dataset", None) or self.dataset(images, **request.pop("columns", {}))
        return create_job(self.settings, JobRequest(workflow, dataset, **request))

    def submit(self, job_id: int, **more: Any) -> Ended:
        with open_store(self.settings.store).session() as session:
            job = session.get(Job, job_id)
        keywords = {
            "workflow_id": job.workflow_id,
            "dataset_id": job.dataset_id,
            "job_id": job_id,
            "user_settings": UserSettings(),
            **more,
        }
        asyncio.run(submit_workflow(**keywords))
        return self.ended(job_id)

    def ended(self, job_id: int) -> Ended:
        return Ended(self.settings, job_id)

    def run(self, *steps: Step, images: list[dict[str, Any]] | int = 2, **request: Any) -> Ended:
        return self.submit(self.job(*steps, images=images, **request))
