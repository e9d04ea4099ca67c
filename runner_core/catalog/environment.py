"""Environments of task packages on disk: one per package, version and content.

- `<envs_dir>/<package>/.lock` is held while a collection of that package is under way.
- `<envs_dir>/<package>/collect.log` has all that uv said in the last one.
- `<envs_dir>/<package>/<version>/<unique>` is an environment. A file of the same name with `.disposable` added says
  that it is unfinished or replaced; the next collection of the package removes both.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner_core.catalog.installer import Report, run_uv

_DISPOSABLE = ".disposable"


@contextmanager
def package_lock(envs_dir: Path, package: str, *, report: Report) -> Iterator[Path]:
    """Give the folder of a package to one collection at a time, over all processes of this user."""
    envs_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = envs_dir / package
    folder.mkdir(exist_ok=True)
    with os.fdopen(os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting: {package} is being collected already")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield folder


@contextmanager
def new_environment(
    package_dir: Path, *, version: str, python: str | None, log: Path, report: Report
) -> Iterator[Path]:
    """Make an empty environment, which goes again if the block fails.

    `python` is a version that uv finds or downloads; by default the one that runs this program. The environment is
    disposable until `keep_environment`: one whose maker was killed before is removed by the next collection.
    """
    folder = package_dir / version / secrets.token_hex(4)
    folder.parent.mkdir(exist_ok=True)
    mark_disposable(folder)
    try:
        run_uv(["venv", "--no-project", "--python", python or sys.executable, str(folder)], log=log, report=report)
        yield folder
    except BaseException:
        remove_environment(folder)
        raise


def interpreter_of(folder: Path) -> Path:
    """The Python of an environment that uv made."""
    return folder / "bin" / "python"


def _mark_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _DISPOSABLE)


def keep_environment(folder: Path) -> None:
    """Say that an environment is whole and in use."""
    _mark_of(folder).unlink()


def mark_disposable(folder: Path) -> None:
    """Let the next collection of the package remove this environment."""
    _mark_of(folder).touch()


def remove_disposable(package_dir: Path) -> None:
    """Remove what earlier collections left unfinished or replaced; only while holding the package's lock."""
    for mark in package_dir.glob(f"*/*{_DISPOSABLE}"):
        remove_environment(mark.with_name(mark.name.removesuffix(_DISPOSABLE)))


def remove_environment(folder: Path) -> None:
    """Remove an environment with its mark; a link is never followed."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
    _mark_of(folder).unlink(missing_ok=True)
    with suppress(OSError):  # other environments of the same version stay
        folder.parent.rmdir()


def is_ours(folder: Path, package_dir: Path) -> bool:
    """Whether an environment really lies where we make them, whatever links there are on the way."""
    return folder.parent.parent.resolve() == package_dir.resolve() == folder.parent.resolve().parent


def python_version(folder: Path) -> str | None:
    """The version of the Python of an environment, such as `3.11.7`; `None` if the environment is not whole."""
    try:
        settings = (folder / "pyvenv.cfg").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"^version(?:_info)?\s*=\s*(\S+)", settings, re.MULTILINE)
    return found.group(1) if found and interpreter_of(folder).exists() else None
