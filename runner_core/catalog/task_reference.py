"""How workflow documents name tasks, and which collected task is meant.

The older form is the task's source, `pip_remote:fractal_tasks_core:1.3.2:fractal-tasks:py3.11:project_image`: the same
task may have been collected with another Python or from elsewhere, so package, version and name are what count. The
newer form has these three as `pkg_name`, `version` (null: the newest) and `name`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from runner_core.catalog.manifest import comparable_slug
from runner_core.catalog.package_spec import index_package
from runner_core.failures import BadInput, NotFound, quoted
from runner_core.store.models import Task, TaskPackage
from runner_core.text import safe_line

_SHOWN_MISSING = 10


class TaskReference(BaseModel):
    """The `task` of a workflow document, in either form; `pkg_name` and `name` win where both are given."""

    source: str | None = None
    pkg_name: str | None = None
    version: str | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _names_a_task(self) -> TaskReference:
        if not (self.source or (self.pkg_name and self.name)):
            raise ValueError("names no task: it needs pkg_name, version and name, or a source")
        return self

    @property
    def wanted(self) -> _WantedTask:
        """What is to be found, whatever the form."""
        if self.pkg_name and self.name:
            return _WantedTask(package=canonicalize_name(self.pkg_name), version=self.version, name=self.name)
        assert self.source is not None
        _, *parts = self.source.split(":", 5)
        if len(parts) < 5:
            return _WantedTask(source=self.source, name=self.source)
        package, version, extras, _, slug = parts
        return _WantedTask(
            source=self.source, package=canonicalize_name(package), version=version, extras=extras, name=slug
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _WantedTask:
    """A task to be found. With a `source`, `name` is a slug."""

    source: str | None = None
    package: str | None = None
    version: str | None = None
    extras: str = ""
    name: str

    def is_version(self, task: Task) -> bool:
        return self.version is None or _comparable(self.version) == _comparable(task.version)

    def is_name(self, task: Task) -> bool:
        if self.source is None:
            return task.name == self.name
        return comparable_slug(task.name) == comparable_slug(self.name)

    def __str__(self) -> str:
        if self.package is None:
            return f"the task with source {quoted(self.name, 80)}"
        package = " ".join(filter(None, (self.package, self.version)))
        return f"{quoted(self.name, 80)} of {safe_line(package, 120)}"

    @property
    def requirement(self) -> str | None:
        """What would have to be collected; `None` if that cannot be told."""
        extras = f"[{self.extras}]" if self.extras else ""
        version = f"=={self.version}" if self.version else ""
        try:
            return str(index_package(f"{self.package}{extras}{version}")) if self.package else None
        except BadInput:
            return None


def _comparable(version: str) -> tuple[int, Any]:
    """Versions in order; what is none, as text, before all that are."""
    try:
        return 1, Version(version)
    except InvalidVersion:
        return 0, version


def find_tasks(session: Session, references: Sequence[TaskReference]) -> list[Task]:
    """The collected tasks that are meant, in order.

    Raises `NotFound` that names all that are not collected, with the commands that collect them.
    """
    known: dict[str | None, list[Task]] = {}
    found: list[Task] = []
    missing: dict[str, str | None] = {}
    for wanted in (reference.wanted for reference in references):
        if wanted.package not in known:
            known[wanted.package] = _tasks_of(session, wanted.package)
        task = _with_source(session, wanted.source) or _newest(known[wanted.package], wanted)
        if task is not None:
            found.append(task)
        else:
            missing.update([_explained(wanted, known[wanted.package])])
    if missing:
        raise _not_collected(missing)
    return found


def _tasks_of(session: Session, package: str | None) -> list[Task]:
    query = select(Task).join(TaskPackage).where(TaskPackage.pkg_name == package).options(joinedload(Task.package))
    return list(session.scalars(query)) if package else []


def _with_source(session: Session, source: str | None) -> Task | None:
    return session.scalar(select(Task).where(Task.source == source)) if source else None


def _newest(tasks: Sequence[Task], wanted: _WantedTask) -> Task | None:
    """The fitting task of the newest version; among equals, the one collected last."""
    fitting = [task for task in tasks if wanted.is_name(task) and wanted.is_version(task)]
    return max(fitting, key=lambda task: (_comparable(task.version), task.package_id), default=None)


def _explained(wanted: _WantedTask, known: Sequence[Task]) -> tuple[str, str | None]:
    """What is missing, and the requirement that would bring it."""
    same_version = [task.name for task in known if wanted.is_version(task)]
    if same_version:
        close = difflib.get_close_matches(wanted.name.replace("_", " "), same_version, n=1, cutoff=0.5)
        return f"{wanted} (it has no such task{f', but {quoted(close[0], 80)}' if close else ''})", None
    others = sorted({task.version for task in known}, key=_comparable)
    return f"{wanted} (collected: {', '.join(others)})" if others else str(wanted), wanted.requirement


def _not_collected(missing: dict[str, str | None]) -> NotFound:
    named = list(missing)
    more = f" and {len(named) - _SHOWN_MISSING} more" if len(named) > _SHOWN_MISSING else ""
    one = len(named) == 1
    commands = dict.fromkeys(f"pilothouse task collect '{need}'" for need in missing.values() if need)
    return NotFound(
        f"{'a task is' if one else f'{len(named)} tasks are'} not collected: {'; '.join(named[:_SHOWN_MISSING])}{more}",
        hint=f"run {' && '.join(commands)}" if commands else "",
    )
