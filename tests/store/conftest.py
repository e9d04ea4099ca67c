"""The databases of the store's tests: SQLite in a file, and a PostgreSQL server of our own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from runner_core.store.models import Base
from runner_core.store.session import Store, open_store

_ROLE = "pilothouse"


class PostgresqlServer:
    """A private server: its own folder, a Unix socket, no network; nothing of it survives the tests.

    PostgreSQL refuses to run as root, so root lends it to the user `postgres`, or to `nobody`.
    """

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._numbers = count()
        self._process: subprocess.Popen[str] | None = None
        self._owner: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short
        if os.geteuid() == 0:
            user = _unprivileged_user()
            self._owner = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)

    def start(self) -> None:
        """Make the data folder and start the server; it says when it is ready."""
        initdb = self._run("initdb", "-U", _ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D", "data")
        output, _ = initdb.communicate()
        assert initdb.returncode == 0, output
        options = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "timezone": "Pacific/Auckland",
            "shared_buffers": "16MB",
            "fsync": "off",
            "full_page_writes": "off",
            "log_min_messages": "log",
        }
        self._process = self._run("postgres", "-D", "data", *(f"--{name}={value}" for name, value in options.items()))
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "ready to accept connections" in line:
                return
        pytest.fail(f"the PostgreSQL server did not start: {''.join(said)}")

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.communicate()
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """The URL of a new database."""
        name = f"store_{next(self._numbers)}"
        with psycopg.connect(host=str(self.folder), user=_ROLE, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://{_ROLE}@/{name}?host={self.folder}"

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._binaries / program, *arguments],
            cwd=self.folder,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **self._owner,
        )


def _unprivileged_user() -> pwd.struct_passwd:
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _postgresql_binaries() -> Path:
    """The folder of the newest server on this machine."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    if on_path is None and not found:
        pytest.fail("no PostgreSQL server is installed here (Debian: apt-get install postgresql)", pytrace=False)
    return Path(on_path).parent if on_path else found[-1].parent


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer(_postgresql_binaries())
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that holds nothing yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'store.db'}"
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    return server.new_database()


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store to copy, so that most tests need not migrate."""
    path = tmp_path_factory.mktemp("empty") / "store.db"
    open_store(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def reused_store(postgresql_server: PostgresqlServer) -> Store:
    """A store on PostgreSQL to empty and use again, for the same reason."""
    return open_store(postgresql_server.new_database())


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of the newest schema."""
    if request.param == "sqlite":
        path = shutil.copy(request.getfixturevalue("empty_file"), tmp_path)
        return open_store(f"sqlite:///{path}")
    store: Store = request.getfixturevalue("reused_store")
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    with store.session(write=True) as session:
        session.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
    return store
