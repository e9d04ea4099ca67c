"""Collecting task packages: from what was asked for to rows of the store, through an environment of its own.

Collecting the same thing again gives the rows that exist, at once. "The same" is a pinned requirement, or a wheel or
folder with the same content, for the Python that was asked for (any, if none was). A wheel or folder of a known
version with other content takes the place of the old one: ids stay, so workflows go on and run the new code; the old
environment goes as soon as no job can be using it.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version
from sqlalchemy import select

from runner_core.catalog.environment import (
    interpreter_of,
    is_ours,
    keep_environment,
    mark_disposable,
    new_environment,
    package_lock,
    python_version,
    remove_disposable,
)
from runner_core.catalog.inspection import InstalledPackage, find_package, preload_scripts
from runner_core.catalog.installer import Report, require_python_version, run_uv
from runner_core.catalog.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from runner_core.catalog.package_spec import (
    IndexPackage,
    PackageSpec,
    SourceFolder,
    WheelFile,
    checked_package_name,
    index_package,
    parse_spec,
    wheel_version,
)
from runner_core.catalog.packages import CollectedPackage, is_running, package_to_replace, record_package
from runner_core.catalog.probe import MANIFEST_NAME
from runner_core.failures import BadInput, NotFound, Refused, quoted
from runner_core.store.models import TaskPackage

if TYPE_CHECKING:
    from runner_core.store.session import Store


def collect_package(
    store: Store, spec: str, *, envs_dir: Path, python: str | None = None, report: Report
) -> TaskPackage:
    """Collect a requirement of the package index, a wheel, or a folder (see `package_spec`).

    `python` is a version such as `3.11`. No transaction is open during the installation. The package that comes back
    has its tasks loaded, and no session.

    Raises `BadInput` (not a package, a wrong manifest), `NotFound` (no such package, version or file), `OutOfReach`
    (the index does not answer) or `Refused` (no resolution, no space, not a task package, a task in use is gone).
    """
    require_python_version(python)
    wanted = parse_spec(spec)
    known = _collected_before(store, wanted, python)
    if known is not None:
        return known
    try:
        with package_lock(envs_dir, wanted.name, report=report) as package_dir:
            return _Collection(store, package_dir, python, report).collect(wanted)
    except OSError as error:
        raise Refused(f"cannot write below {quoted(envs_dir)}: {error.strerror or error}") from error


def register_environment(store: Store, *, interpreter: Path, package: str) -> TaskPackage:
    """Collect a package from an environment that exists already, and which stays its owner's.

    Raises `NotFound` if there is no such interpreter or it has no such package; else as `collect_package`.
    """
    name = checked_package_name(package)
    interpreter = interpreter.expanduser().absolute()  # not resolved: the link is what makes a virtual environment
    if not interpreter.is_file():
        raise NotFound(f"there is no interpreter {quoted(interpreter)}")
    installed = find_package(interpreter, name)
    collected = CollectedPackage(
        name=name,
        origin="interpreter",
        requested=str(interpreter),
        interpreter=interpreter,
        installed=installed,
        manifest=_read_manifest(name, installed),
    )
    with store.session(write=True) as session:
        return record_package(session, collected, replaced=package_to_replace(session, collected))


@dataclass(frozen=True, slots=True)
class _Collection:
    """One collection, while it holds the lock of its package."""

    store: Store
    package_dir: Path
    python: str | None
    report: Report

    @property
    def log(self) -> Path:
        return self.package_dir / "collect.log"

    def collect(self, wanted: PackageSpec) -> TaskPackage:
        """Install what was wanted, unless a collection that was under way has done so."""
        self.log.unlink(missing_ok=True)
        self.remove_leftovers(wanted.name)
        if isinstance(wanted, IndexPackage) and wanted.version is None:
            wanted = self.newest(wanted)
        known = _collected_before(self.store, wanted, self.python)
        if known is not None:
            return known
        if isinstance(wanted, SourceFolder):
            with tempfile.TemporaryDirectory(prefix="build-", dir=self.package_dir) as folder:
                wheel = self.build(wanted, Path(folder))
                return self.install(wanted, target=_direct(wanted.name, wheel), version=wheel_version(wheel))
        assert wanted.version is not None
        target = _direct(wanted.name, wanted.path) if isinstance(wanted, WheelFile) else str(wanted)
        return self.install(wanted, target=target, version=wanted.version)

    def newest(self, wanted: IndexPackage) -> IndexPackage:
        """The requirement, pinned to the newest version that this Python can have."""
        self.report(f"looking for {wanted}")
        options = ["--no-deps", "--no-header", "--no-annotate", "--quiet", "--python", self.python or sys.executable]
        lines = run_uv(["pip", "compile", *options, "-"], log=self.log, report=self.report, stdin=str(wanted))
        found = [line.partition("==")[2] for line in lines if line.startswith((f"{wanted.name}==", f"{wanted.name}["))]
        if not found:
            raise Refused(f"uv named no version of {wanted.name} (full output: {self.log})")
        return wanted.pinned(found[-1])

    def build(self, source: SourceFolder, folder: Path) -> Path:
        """Build the wheel of a source tree, whose version is not known before."""
        self.report(f"building {source.name}")
        options = ["--wheel", "--out-dir", str(folder), "--python", self.python or sys.executable]
        run_uv(["build", *options, str(source.path)], log=self.log, report=self.report)
        return next(folder.glob("*.whl"))

    def install(self, wanted: PackageSpec, *, target: str, version: Version) -> TaskPackage:
        """Make an environment with the package in it, and the rows that point there."""
        self.report(f"making an environment for {wanted.name} {version}")
        with new_environment(
            self.package_dir, version=str(version), python=self.python, log=self.log, report=self.report
        ) as folder:
            interpreter = interpreter_of(folder)
            command = ["pip", "install", "--python", str(interpreter), target]
            run_uv(command, log=self.log, report=self.report)
            collected = _collected(wanted, folder)
            self.report("importing what the tasks import, so that they start fast")
            preload_scripts(interpreter, collected.scripts, report=self.report)
            with self.store.session(write=True) as session:
                replaced = package_to_replace(session, collected)
                old_env_dir = replaced.env_dir if replaced else None
                package = record_package(session, collected, replaced=replaced)
                keep_environment(folder)  # before the commit: rows never name an environment that may be removed
        self.report(f"collected {len(collected.manifest.task_list)} tasks of {wanted.name} {version}")
        if old_env_dir is not None:
            self.report(f"{wanted.name} {version} was collected before: its tasks run the new code from now on")
            if is_ours(Path(old_env_dir), self.package_dir) and Path(old_env_dir).is_dir():
                mark_disposable(Path(old_env_dir))
                self.remove_leftovers(wanted.name)
        return package

    def remove_leftovers(self, name: str) -> None:
        """Remove unfinished and replaced environments, unless a job may be running in one."""
        with self.store.session() as session:
            running = is_running(session, name)
        if not running:
            remove_disposable(self.package_dir)


def _direct(name: str, wheel: Path) -> str:
    """The requirement of that very file; in a plain path or URL uv mistakes some of `?`, `#` and `%`."""
    return f"{name} @ {wheel.as_uri()}"


def _collected_before(store: Store, wanted: PackageSpec, python: str | None) -> TaskPackage | None:
    """The newest package that is what was wanted and whose environment is whole."""
    packages = select(TaskPackage).where(TaskPackage.pkg_name == wanted.name).order_by(TaskPackage.id.desc())
    with store.session() as session:
        return next((p for p in session.scalars(packages) if _is_same(p, wanted) and _is_whole(p, python)), None)


def _is_same(package: TaskPackage, wanted: PackageSpec) -> bool:
    if not isinstance(wanted, IndexPackage):
        return package.content_hash == wanted.content_hash
    if package.origin != "pypi":
        return False
    return Version(package.version) == wanted.version and index_package(package.requested).extras == wanted.extras


def _is_whole(package: TaskPackage, python: str | None) -> bool:
    """Whether the environment is there with the tasks' scripts, and has the Python that is asked for."""
    found = python_version(Path(package.env_dir)) if package.env_dir else None
    if found is None:
        return False
    if python is not None and found.split(".")[: python.count(".") + 1] != python.split("."):
        return False
    commands = (command for task in package.tasks for command in (task.command_non_parallel, task.command_parallel))
    return all(Path(shlex.split(command)[-1]).is_file() for command in commands if command)


def _collected(wanted: PackageSpec, folder: Path) -> CollectedPackage:
    """What the installation of a package has brought."""
    interpreter = interpreter_of(folder)
    installed = find_package(interpreter, wanted.name)
    is_index = isinstance(wanted, IndexPackage)
    return CollectedPackage(
        name=wanted.name,
        origin="pypi" if is_index else "folder" if isinstance(wanted, SourceFolder) else "wheel",
        requested=str(wanted),
        extras=wanted.extras if isinstance(wanted, IndexPackage) else (),
        interpreter=interpreter,
        env_dir=folder,
        content_hash=None if isinstance(wanted, IndexPackage) else wanted.content_hash,
        installed=installed,
        manifest=_read_manifest(wanted.name, installed),
    )


def _read_manifest(name: str, installed: InstalledPackage) -> Manifest:
    """Read the manifest of an installed package, and check that the executables it names are there."""
    path = installed.root / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise Refused(f"cannot read {quoted(path)}: {error.strerror}") from None
    what = f"the manifest of {name} {installed.version}"
    manifest = parse_manifest(data, what=what)
    for index, task in enumerate(manifest.task_list):
        for field in ("executable_non_parallel", "executable_parallel"):
            executable = getattr(task, field)
            if executable is not None and not (installed.root / executable).is_file():
                raise BadInput(f"{what}: task_list[{index}].{field}: the package has no file {quoted(executable, 80)}")
    return manifest
