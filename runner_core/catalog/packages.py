"""Task packages and tasks as rows of the store: written from a manifest, replaced, removed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from runner_core.catalog.environment import is_ours, package_lock, remove_environment
from runner_core.catalog.inspection import InstalledPackage
from runner_core.catalog.manifest import Manifest, TaskManifest, task_slug
from runner_core.failures import NotFound, Refused, quoted
from runner_core.model import JobStatus
from runner_core.store.models import Job, Task, TaskPackage, Workflow, WorkflowTask

if TYPE_CHECKING:
    from runner_core.store.session import Store

_SOURCE_KINDS = {"pypi": "pip_remote", "wheel": "pip_local", "folder": "pip_local", "interpreter": "interpreter"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedPackage:
    """What a collection found: `origin` is pypi, wheel, folder or interpreter, the rest as in `TaskPackage`."""

    name: str
    origin: str
    requested: str
    extras: tuple[str, ...] = ()
    interpreter: Path
    env_dir: Path | None = None
    content_hash: str | None = None
    installed: InstalledPackage
    manifest: Manifest

    @property
    def source(self) -> str:
        """What the sources of all its tasks begin with: `pip_remote:fractal_tasks_core:2.1.0::py3.11`."""
        variant = str(self.interpreter) if self.origin == "interpreter" else ",".join(self.extras)
        parts = (self.name.replace("-", "_"), self.installed.version, variant, f"py{self.installed.python}")
        return ":".join((_SOURCE_KINDS[self.origin], *parts))

    @property
    def scripts(self) -> list[Path]:
        """The tasks' executables, as absolute paths."""
        executables = [
            executable
            for task in self.manifest.task_list
            for executable in (task.executable_non_parallel, task.executable_parallel)
        ]
        return [self.installed.root / executable for executable in executables if executable is not None]


def package_to_replace(session: Session, collected: CollectedPackage) -> TaskPackage | None:
    """The package whose place a collected one takes.

    Packages from an index, and local ones, give way to the same version for the same Python; those of an existing
    interpreter to any version there, since it holds one at a time.
    """
    query = select(TaskPackage).where(TaskPackage.pkg_name == collected.name)
    if collected.origin == "interpreter":
        query = query.where(TaskPackage.origin == "interpreter", TaskPackage.interpreter == str(collected.interpreter))
    else:
        query = query.where(TaskPackage.tasks.any(Task.source.startswith(f"{collected.source}:", autoescape=True)))
    return session.scalars(query).first()


def record_package(session: Session, collected: CollectedPackage, *, replaced: TaskPackage | None) -> TaskPackage:
    """Write the rows of a package and its tasks.

    With `replaced` its rows are moved to what was collected and keep their ids, so the workflows that use them run
    the new code. Raises `Refused` if a task that a workflow uses is there no more.
    """
    package = replaced or TaskPackage(pkg_name=collected.name)
    package.version = collected.installed.version
    package.origin = collected.origin
    package.requested = collected.requested
    package.interpreter = str(collected.interpreter)
    package.env_dir = str(collected.env_dir) if collected.env_dir else None
    package.content_hash = collected.content_hash
    known = {task_slug(task.name): task for task in package.tasks}
    tasks = []
    for described in collected.manifest.task_list:
        task = known.pop(described.slug, None) or Task()
        for column, value in _task_columns(described, collected).items():
            setattr(task, column, value)
        tasks.append(task)
    _require_unused(session, known.values(), collected)
    package.tasks = tasks
    session.add(package)
    session.flush()
    return package


def _task_columns(task: TaskManifest, collected: CollectedPackage) -> dict[str, Any]:
    """The columns of a task's row; `TaskManifest` has them under the same names, but for the commands."""
    columns = task.model_dump(mode="json", exclude={"executable_non_parallel", "executable_parallel"})
    return {
        **columns,
        "source": f"{collected.source}:{task.slug}",
        "version": collected.installed.version,
        "command_non_parallel": _command(task.executable_non_parallel, collected),
        "command_parallel": _command(task.executable_parallel, collected),
        "authors": collected.manifest.authors,
        "args_schema_version": collected.manifest.args_schema_version,
    }


def _command(executable: str | None, collected: CollectedPackage) -> str | None:
    if executable is None:
        return None
    return shlex.join([str(collected.interpreter), str(collected.installed.root / executable)])


def _require_unused(session: Session, tasks: Iterable[Task], collected: CollectedPackage) -> None:
    for task in tasks:
        using = _workflows_using(session, Task.id == task.id)
        if using:
            raise Refused(
                f"{collected.name} {collected.installed.version} has no task {quoted(task.name, 80)} any more, which "
                f"is used by {using}",
                hint="give the changed package a new version, or remove these workflows",
            )


def _workflows_using(session: Session, condition: Any) -> str:
    """The workflows that use certain tasks, for a message; empty if there are none."""
    rows = session.execute(
        select(Workflow.id, Workflow.name)
        .join(WorkflowTask, WorkflowTask.workflow_id == Workflow.id)
        .join(Task, Task.id == WorkflowTask.task_id)
        .where(condition)
        .distinct()
        .order_by(Workflow.id)
    ).all()
    named = ", ".join(f"workflow {id_} {quoted(name, 80)}" for id_, name in rows[:5])
    return f"{named} and {len(rows) - 5} more" if len(rows) > 5 else named


def is_running(session: Session, package_name: str) -> bool:
    """Whether a submitted job may be using an environment of the package."""
    uses_package = Workflow.task_list.any(WorkflowTask.task.has(Task.package.has(TaskPackage.pkg_name == package_name)))
    jobs = (
        select(Job.id)
        .outerjoin(Workflow, Workflow.id == Job.workflow_id)
        .where(Job.status == JobStatus.SUBMITTED.value, or_(Workflow.id.is_(None), uses_package))
    )
    return session.scalars(jobs.limit(1)).first() is not None


def remove_package(store: Store, package_id: int, *, envs_dir: Path) -> None:
    """Remove a package with its tasks, and its environment if it is one that we made below `envs_dir`.

    Raises `NotFound`, or `Refused` while a workflow uses one of its tasks.
    """
    with store.session() as session:
        package = _package(session, package_id)
        name, env_dir = package.pkg_name, package.env_dir
    with package_lock(envs_dir, name, report=lambda _: None):
        with store.session(write=True) as session:
            package = _package(session, package_id)
            using = _workflows_using(session, Task.package_id == package_id)
            if using:
                raise Refused(f"{name} {package.version} is used by {using}", hint="remove these workflows first")
            session.delete(package)
        if env_dir is not None and is_ours(Path(env_dir), envs_dir / name):
            remove_environment(Path(env_dir))


def _package(session: Session, package_id: int) -> TaskPackage:
    package = session.get(TaskPackage, package_id)
    if package is None:
        raise NotFound(f"there is no task package {package_id}")
    return package
