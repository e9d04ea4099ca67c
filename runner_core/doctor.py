"""What works here and what does not: one finding per thing that jobs depend on, each with its mend.

Nothing is changed; the probes of the file system leave no file behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy import text

from runner_core import documents
from runner_core.backends import AVAILABLE
from runner_core.backends.local import read_local_config, usable_cpus
from runner_core.failures import PilothouseError
from runner_core.file_systems import is_network, mount_under
from runner_core.model import JobStatus, Json, Phase
from runner_core.settings import Settings, read_settings
from runner_core.store.session import open_store

_LITTLE_SPACE = 2 << 30  # bytes
_FEW_INODES = 20_000  # about two jobs of some thousand units
_FEW_FILES = 256
_SKEW_SECONDS = 5.0
_PROBE_SECONDS = 20.0
_SHOWN = 5


class Health(StrEnum):
    """How a thing stands."""

    OK = "ok"
    WARNING = "warning"  # works, and may not for long or not well
    PROBLEM = "problem"  # jobs cannot be launched, or fail


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, and how to mend it where that is needed."""

    name: str
    health: Health
    found: str
    mend: str = ""

    def to_json(self) -> Json:
        """The finding as `doctor --json` prints it."""
        return {"name": self.name, "health": self.health.value, "found": self.found, "mend": self.mend}


def examine_installation(*, write: bool = True) -> Iterator[Finding]:
    """Look at all that jobs depend on; without `write`, file systems are not probed with files of ours.

    Never raises: what cannot be looked at is a finding too.
    """
    yield Finding("python", Health.OK, f"{platform.python_version()} at {sys.executable}")
    try:
        settings = read_settings()
    except PilothouseError as error:
        yield Finding("settings", Health.PROBLEM, error.message, error.hint or "mend this setting")
        return
    checks: list[Callable[[Settings], Iterator[Finding]]] = [_settings, _home, _space]
    if write:
        checks += [_locks, _clock]
    checks += [_store, _uv, _cpus, _limits, _interpreters, _packages, _jobs]
    for check in checks:
        name = check.__name__.removeprefix("_")
        try:
            yield from check(settings)
        except PilothouseError as error:
            yield Finding(name, Health.PROBLEM, error.message, error.hint)
        except (OSError, subprocess.SubprocessError) as error:
            yield Finding(name, Health.PROBLEM, f"it could not be looked at: {error}", "see the error")


# ----------------------------------------------------------------------------------------------------------------------
# Settings


def _settings(settings: Settings) -> Iterator[Finding]:
    config = settings.home / "config.toml"
    backend = settings.runner_backend
    if settings.profile is not None:
        backend = settings.profile_named(settings.profile).backend
    if backend not in AVAILABLE:
        mend = f"set PILOTHOUSE_RUNNER_BACKEND to one of: {', '.join(AVAILABLE)}"
        yield Finding("settings", Health.PROBLEM, f"there is no backend {backend!r} in this version", mend)
        return
    source = f"{config} and the environment" if config.is_file() else "the environment and the defaults"
    profiles = f", profiles: {', '.join(sorted(settings.profiles))}" if settings.profiles else ""
    yield Finding("settings", Health.OK, f"backend {backend}, from {source}{profiles}")


# ----------------------------------------------------------------------------------------------------------------------
# File systems


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    place = _existing_parent(home)
    mount = mount_under(home)
    network = is_network(mount.fs_type)
    found = f"{home} on {mount.fs_type} ({'network' if network else 'local'}), mounted at {mount.point}"
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("home", Health.PROBLEM, f"{found}: {place} cannot be written to", "set PILOTHOUSE_HOME")
    elif not home.is_dir():
        yield Finding("home", Health.OK, f"{found}; it is made at the first use")
    elif home.stat().st_mode & 0o077:
        yield Finding("home", Health.WARNING, f"{found}: others may enter it", f"chmod 700 {shlex.quote(str(home))}")
    else:
        yield Finding("home", Health.OK, found)


def _space(settings: Settings) -> Iterator[Finding]:
    seen: set[int] = set()
    for folder in (settings.home, settings.jobs_dir, settings.envs_dir):
        place = _existing_parent(folder)
        device = place.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        state = os.statvfs(place)
        free, inodes = state.f_bavail * state.f_frsize, state.f_favail
        found = f"{free / (1 << 30):,.1f} GiB free at {folder}"
        if state.f_files:  # some file systems do not count
            found += f", {inodes:,} inodes"
        if free < _LITTLE_SPACE or (state.f_files and inodes < _FEW_INODES):
            yield Finding("space", Health.WARNING, found, "remove old jobs' zips, or move PILOTHOUSE_HOME")
        else:
            yield Finding("space", Health.OK, found)


def _locks(settings: Settings) -> Iterator[Finding]:
    """Whether a lock that one process holds keeps another out: leases and SQLite depend on it."""
    code = (
        "import fcntl, sys\n"
        "with open(sys.argv[1]) as file:\n"
        "    try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    except BlockingIOError: sys.exit(7)\n"
    )
    with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=_existing_parent(settings.home)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        command = [sys.executable, "-I", "-c", code, file.name]
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS, check=False
        )
    if ended.returncode == 7:
        yield Finding("locks", Health.OK, "file locks hold between processes")
    else:
        mend = "put PILOTHOUSE_HOME on a file system with locks (NFS: mount it without nolock)"
        yield Finding("locks", Health.PROBLEM, "file locks do not hold between processes", mend)


def _clock(settings: Settings) -> Iterator[Finding]:
    """Whether the file system tells the same time: heartbeats of runners are times of files."""
    with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=_existing_parent(settings.home)) as file:
        skew = os.fstat(file.fileno()).st_mtime - time.time()
    if abs(skew) > _SKEW_SECONDS:
        found = f"the file system's clock is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} this host's"
        yield Finding("clock", Health.WARNING, found, "have both synchronised (chrony, ntp)")
    else:
        yield Finding("clock", Health.OK, "this host and its file system tell the same time")


def _existing_parent(folder: Path) -> Path:
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))


# ----------------------------------------------------------------------------------------------------------------------
# Store


def _store(settings: Settings) -> Iterator[Finding]:
    if not documents.store_exists(settings):
        yield Finding("store", Health.OK, f"{settings.home / 'store.db'} is made at the first use")
        return
    store = open_store(settings.store)
    with store.session() as session:
        if store.engine.dialect.name == "sqlite":
            mode = session.scalar(text("PRAGMA journal_mode"))
            mood = "write-ahead log" if mode == "wal" else f"rollback journal ({mode})"
        else:
            mood = f"server {session.scalar(text('SHOW server_version'))}"
    yield Finding("store", Health.OK, f"{store.name}, {mood}")


# ----------------------------------------------------------------------------------------------------------------------
# Programs and limits


def _uv(_settings: Settings) -> Iterator[Finding]:
    from uv import find_uv_bin

    try:
        binary = find_uv_bin()
    except FileNotFoundError:
        yield Finding("uv", Health.PROBLEM, "uv was not found", "pip install uv, into the environment of pilothouse")
        return
    yield Finding("uv", Health.OK, f"{_output_of([binary, '--version'])} at {binary}")


def _cpus(settings: Settings) -> Iterator[Finding]:
    cpus = usable_cpus()
    found = f"{cpus} of {os.cpu_count()} CPUs may be used"
    config = settings.local_config_file
    if config is not None:
        found += f"; {config} has {read_local_config(config) or cpus} units run at a time"
    yield Finding("cpus", Health.OK, found)


def _limits(_settings: Settings) -> Iterator[Finding]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    found = f"{_limit(files)} open files, {_limit(processes)} processes"
    if 0 <= files < _FEW_FILES:
        yield Finding("limits", Health.WARNING, found, "ulimit -n 4096")
    else:
        yield Finding("limits", Health.OK, found)


def _limit(value: int) -> str:
    return "any number of" if value == resource.RLIM_INFINITY else f"{value:,}"


def _interpreters(_settings: Settings) -> Iterator[Finding]:
    from uv import find_uv_bin

    try:
        command = [find_uv_bin(), "python", "list", "--only-installed", "--offline", "--output-format", "json"]
        found = json.loads(_output_of(command))
    except (FileNotFoundError, ValueError):
        return
    versions = ", ".join(dict.fromkeys(python["version"] for python in found))
    yield Finding("interpreters", Health.OK, f"for --python: {versions or 'none; uv downloads what is asked for'}")


def _output_of(command: list[str]) -> str:
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
    )
    return ended.stdout.strip()


# ----------------------------------------------------------------------------------------------------------------------
# What is in the store


def _packages(settings: Settings) -> Iterator[Finding]:
    if not documents.store_exists(settings):
        return
    packages = documents.list_packages(settings)
    gone = [row for row in packages if shutil.which(row["interpreter"]) is None]
    for row in gone[:_SHOWN]:
        found = f"{row['pkg_name']} {row['version']}: its interpreter {row['interpreter']} is gone"
        again = f"pilothouse task collect {shlex.quote(row['requested'])}"
        if row["origin"] == "interpreter":
            again = f"pilothouse task collect --interpreter PYTHON --package {row['pkg_name']}"
        yield Finding("task packages", Health.PROBLEM, found, again)
    if len(gone) > _SHOWN:
        yield Finding("task packages", Health.PROBLEM, f"{len(gone) - _SHOWN} more have no interpreter", "as above")
    if not gone:
        yield Finding("task packages", Health.OK, f"{len(packages)} collected")


def _jobs(settings: Settings) -> Iterator[Finding]:
    if not documents.store_exists(settings):
        return
    jobs = documents.list_jobs(settings, status=JobStatus.SUBMITTED)
    odd = [job for job in jobs if job["phase"] in {Phase.NO_CONTACT, Phase.RUNNER_GONE}]
    for job in odd[:_SHOWN]:
        found = f"job {job['id']}: {job['phase']} since {job['phase_since']}"
        mend = f"pilothouse job stop {job['id']}"
        if job["phase"] == Phase.NO_CONTACT:
            mend = "look at the host that ran it, and whether it shares this file system"
        yield Finding("jobs", Health.WARNING, found, mend)
    if len(odd) > _SHOWN:
        yield Finding("jobs", Health.WARNING, f"{len(odd) - _SHOWN} more are without a runner", "as above")
    if not odd:
        yield Finding("jobs", Health.OK, f"{len(jobs)} submitted, all in contact" if jobs else "none is submitted")
