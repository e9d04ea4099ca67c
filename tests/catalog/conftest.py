"""A store, and tiny task packages that are really built, installed and run."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from runner_core.catalog.inspection import InstalledPackage
from runner_core.catalog.manifest import parse_manifest
from runner_core.catalog.packages import CollectedPackage, package_to_replace, record_package
from runner_core.store.models import TaskPackage
from runner_core.store.session import Store, open_store

HELLO = "import sys\n\nif __name__ == '__main__':\n    print('hello', sys.argv[1:])\n"


@pytest.fixture(scope="session")
def empty_store_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store to copy, since making one takes longer than most tests."""
    file = tmp_path_factory.mktemp("empty") / "store.db"
    open_store(f"sqlite:///{file}").dispose()
    return file


@pytest.fixture
def store(tmp_path: Path, empty_store_file: Path) -> Iterator[Store]:
    """An empty store."""
    shutil.copy(empty_store_file, tmp_path / "store.db")
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.dispose()


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    """One writing transaction on the empty store."""
    with store.session(write=True) as opened:
        yield opened


@pytest.fixture
def envs_dir(tmp_path: Path) -> Path:
    """Where environments go; the name has what shells trip over."""
    return tmp_path / "task envs (it's ours)"


def manifest_of(*tasks: dict[str, Any], **top: Any) -> dict[str, Any]:
    """A manifest; each task is completed to a parallel one that says hello."""
    hello = {"name": "Say Hello", "executable_parallel": "hello.py"}
    return {"manifest_version": "2", "task_list": [hello | task for task in tasks or ({},)], **top}


@pytest.fixture
def manifest() -> Callable[..., dict[str, Any]]:
    """Makes manifests: `manifest({...task...}, ..., has_args_schemas=True)`."""
    return manifest_of


def package_files(name: str, manifest: Any, scripts: dict[str, str] | None) -> dict[str, str]:
    """The files of a task package, by path."""
    folder = name.replace("-", "_")
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    files = {"__init__.py": "", "__FRACTAL_MANIFEST__.json": text, "hello.py": HELLO} | (scripts or {})
    return {f"{folder}/{path}": content for path, content in files.items()}


@pytest.fixture
def wheel(tmp_path: Path) -> Callable[..., Path]:
    """Makes wheels: `wheel("tiny-tasks", "1.0", manifest=..., scripts={path: content}, metadata=...)`."""

    def make(
        name: str = "tiny-tasks",
        version: str = "1.0",
        *,
        manifest: Any = None,
        scripts: dict[str, str] | None = None,
        metadata: str = "",
        folder: str = "wheels",
    ) -> Path:
        files = package_files(name, manifest or manifest_of(), scripts)
        if manifest == "":
            files = {path: text for path, text in files.items() if "MANIFEST" not in path}
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}"
        files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        record = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
        files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
        target = tmp_path / folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        target.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(target, "w") as archive:
            for path, text in files.items():
                archive.writestr(zipfile.ZipInfo(path), text)
        return target

    return make


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def source_tree(tmp_path: Path) -> Callable[..., Path]:
    """Writes source trees with a `pyproject.toml`: `source_tree("tiny-tasks", "1.0", manifest=..., scripts=...)`."""

    def make(
        name: str = "tiny-tasks", version: str = "1.0", *, manifest: Any = None, scripts: dict[str, str] | None = None
    ) -> Path:
        folder = tmp_path / "source tree"
        for path, text in package_files(name, manifest or manifest_of(), scripts).items():
            (folder / "src" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "src" / path).write_text(text)
        (folder / "pyproject.toml").write_text(
            f'[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
            f'[project]\nname = "{name}"\nversion = "{version}"\n'
            f'[tool.hatch.build.targets.wheel]\npackages = ["src/{name.replace("-", "_")}"]\n'
        )
        return folder

    return make


@pytest.fixture
def collected(session: Session) -> Callable[..., TaskPackage]:
    """Writes the rows of a package whose environment nobody will run."""

    def collect(
        manifest: dict[str, Any],
        *,
        name: str = "tiny-tasks",
        version: str = "1.0",
        python: str = "3.11",
        extras: str = "",
    ) -> TaskPackage:
        found = CollectedPackage(
            name=name,
            origin="pypi",
            requested=f"{name}=={version}",
            extras=tuple(filter(None, extras.split(","))),
            interpreter=Path(f"/envs/{name}-{version}-{python}-{extras}/bin/python"),
            installed=InstalledPackage(version, python, Path("/envs/package")),
            manifest=parse_manifest(json.dumps(manifest).encode(), what="the manifest"),
        )
        return record_package(session, found, replaced=package_to_replace(session, found))

    return collect
