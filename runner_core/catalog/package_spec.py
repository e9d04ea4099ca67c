"""What a person asks to collect: a requirement of a package index, a wheel file, or a folder to install."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from runner_core.failures import BadInput, NotFound, quoted

_PACKAGE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")
_LOOKS_LIKE_PATH = re.compile(r"[./~]|.*/|.*\.whl\Z", re.DOTALL)
_NOT_SOURCE = frozenset({"__pycache__", "build", "dist", "node_modules"})


@dataclass(frozen=True, slots=True)
class IndexPackage:
    """A package of an index such as PyPI; `name` and `extras` are normalised as there."""

    name: str
    extras: tuple[str, ...]
    requirement: Requirement

    @property
    def version(self) -> Version | None:
        """The one version that is asked for; `None` where several would do."""
        specifiers = list(self.requirement.specifier)
        if len(specifiers) != 1 or specifiers[0].operator != "==" or specifiers[0].version.endswith(".*"):
            return None
        return Version(specifiers[0].version)

    def pinned(self, version: str) -> IndexPackage:
        """The same package in exactly this version."""
        return IndexPackage(self.name, self.extras, Requirement(f"{self.name}=={version}"))

    def __str__(self) -> str:
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"{self.name}{extras}{self.requirement.specifier}"


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A wheel on this machine; `content_hash` is the SHA-256 of its bytes."""

    name: str
    version: Version
    path: Path
    content_hash: str

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """A source tree with a `pyproject.toml`; `content_hash` covers names and contents of its files."""

    name: str
    path: Path
    content_hash: str

    def __str__(self) -> str:
        return str(self.path)


PackageSpec = IndexPackage | WheelFile | SourceFolder


def parse_spec(spec: str) -> PackageSpec:
    """Read what a person asked for; relative paths are taken from the current folder.

    Whatever has a slash, begins with `.` or `~`, or ends in `.whl` is a path; all else is a requirement. Raises
    `BadInput` for what is neither and `NotFound` for a path where nothing is.
    """
    spec = spec.strip()
    if not spec.isprintable() or not spec or spec.startswith("-") or len(spec) > 4000:
        raise BadInput(
            f"not a package: {quoted(spec, 80)}", hint="give a requirement such as 'name==1.0', a wheel, or a folder"
        )
    if "://" in spec or " @ " in spec:
        raise BadInput(
            f"packages are not taken from URLs: {quoted(spec, 80)}",
            hint="download the wheel, or clone the repository, and collect that",
        )
    if not _LOOKS_LIKE_PATH.match(spec):
        return index_package(spec)
    try:
        path = Path(spec).expanduser().resolve(strict=True)
    except (OSError, RuntimeError):
        raise NotFound(f"there is no file or folder {quoted(spec)}") from None
    return _source_folder(path) if path.is_dir() else _wheel_file(path)


def index_package(text: str) -> IndexPackage:
    """Read a requirement; raise `BadInput` if it is none."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        problem = str(error).splitlines()[0]
        hint = "write 'name==1.0', or a path with a slash such as './folder'"
        raise BadInput(f"not a requirement: {quoted(text, 80)} ({problem})", hint=hint) from None
    if requirement.url or requirement.marker:
        raise BadInput(f"a requirement here is a name and a version: {quoted(text, 80)}", hint="drop what follows")
    extras = tuple(sorted(map(canonicalize_name, requirement.extras)))
    return IndexPackage(checked_package_name(requirement.name), extras, requirement)


def checked_package_name(name: str) -> str:
    """The normalised name of a package; raises `BadInput` for what cannot be one."""
    if not _PACKAGE_NAME.fullmatch(name):
        raise BadInput(f"not the name of a package: {quoted(name, 80)}")
    return canonicalize_name(name)


def wheel_version(path: Path) -> Version:
    """The version that a wheel's file name says."""
    return parse_wheel_filename(path.name)[1]


def _wheel_file(path: Path) -> WheelFile:
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
    except InvalidWheelFilename:
        raise BadInput(
            f"{quoted(path)} is not a wheel (name-version-...-any.whl)", hint="unpack an archive and collect the folder"
        ) from None
    try:
        content_hash = _file_hash(path)
    except OSError as error:
        raise BadInput(f"cannot read {quoted(path)}: {error.strerror}") from None
    return WheelFile(checked_package_name(name), version, path, content_hash.hex())


def _source_folder(path: Path) -> SourceFolder:
    return SourceFolder(_project_name(path / "pyproject.toml"), path, _folder_hash(path))


def _project_name(pyproject: Path) -> str:
    try:
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(
            f"{quoted(pyproject.parent)} is not a package: it has no pyproject.toml",
            hint="give the folder that holds it, or build a wheel and collect that",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{quoted(pyproject)} cannot be read: {error}") from None
    name = _value_at(project, "project", "name") or _value_at(project, "tool", "poetry", "name")
    if not isinstance(name, str):
        raise BadInput(
            f"{quoted(pyproject)} does not say project.name", hint="add it, or build a wheel and collect that"
        )
    return checked_package_name(name)


def _value_at(table: Any, *keys: str) -> Any:
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _folder_hash(folder: Path) -> str:
    """SHA-256 over the paths and contents of the sources: not hidden files, caches, builds or environments."""
    digest = hashlib.sha256()
    try:
        for relative, path in _source_files(folder):
            digest.update(os.fsencode(relative) + b"\0" + (_file_hash(path) if path.is_file() else b""))
    except OSError as error:
        raise BadInput(f"cannot read {quoted(error.filename)}: {error.strerror}") from None
    return digest.hexdigest()


def _file_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _source_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for parent, subfolders, files in os.walk(folder, onerror=_raise):
        subfolders[:] = sorted(name for name in subfolders if _is_source(Path(parent, name)))
        for name in sorted(files):
            if not name.startswith(".") and not name.endswith(".pyc"):
                path = Path(parent, name)
                yield str(path.relative_to(folder)), path


def _raise(error: OSError) -> NoReturn:
    raise error


def _is_source(folder: Path) -> bool:
    hidden_or_made = folder.name.startswith(".") or folder.name in _NOT_SOURCE or folder.name.endswith(".egg-info")
    return not hidden_or_made and not (folder / "pyvenv.cfg").exists()
