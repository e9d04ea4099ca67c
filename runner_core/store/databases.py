"""The databases that can hold a store: how each is reached, shared and locked.

Connections are not pooled: none outlives its session, so that nothing is held during a long run and nothing
leaks into a forked process.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from runner_core.failures import BadInput
from runner_core.file_systems import is_network, mount_of, mount_under
from runner_core.store.errors import unusable

_SCHEMA_LOCK = 0x70696C6F74686F75  # any fixed number will do; this one spells "pilothou"


class Database:
    """Any database that SQLAlchemy speaks; the subclasses know more of theirs.

    `name` is its URL without secrets, for messages. `engine` gives reading connections, `writing_engine` those
    that may write.
    """

    def __init__(self, url: URL, *, lock_timeout: float) -> None:
        self.url = url
        self.name = url.set(query={}).render_as_string(hide_password=True)
        self.lock_timeout = lock_timeout
        self.engine = self._make_engine()
        self.writing_engine: Engine = self.engine.execution_options(writes=True)
        event.listen(self.engine, "begin", self._begin)

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Hold this while a store is opened: what must exist before the first connection is made."""
        yield

    def lock_schema(self, connection: Connection) -> None:
        """Let one transaction at a time change the schema; it ends the lock."""

    def back_up(self, revision: str) -> None:
        """Keep a copy of the data, which have the schema of that revision."""

    def _make_engine(self, **options: Any) -> Engine:
        try:
            return create_engine(self.url, poolclass=NullPool, **options)
        except ArgumentError:
            known = "sqlite:///FILE, postgresql://USER@HOST/NAME"
            raise BadInput(f"no kind of database goes by {self.name}", hint=f"try {known}") from None
        except ImportError as error:
            raise BadInput(
                f"the driver for {self.name} is not installed ({error.name or error})",
                hint="for PostgreSQL: pip install 'pilothouse[postgresql]'",
            ) from None

    def _begin(self, connection: Connection) -> None:
        """What starts every transaction."""


class Postgresql(Database):
    """A PostgreSQL server."""

    def lock_schema(self, connection: Connection) -> None:
        """See the base class; the server keeps the lock."""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    def _make_engine(self, **options: Any) -> Engine:
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        if "connect_timeout" not in self.url.query:
            options["connect_args"] = {"connect_timeout": 10}
        return super()._make_engine(**options)

    def _begin(self, connection: Connection) -> None:
        """Bound the waiting, and give a reading session one unchanging view, both as on SQLite."""
        timeout = max(1, round(self.lock_timeout * 1000))  # 0 would mean for ever
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {timeout}")
        if not _writes(connection):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


class Sqlite(Database):
    """One private file, for any number of processes, on a local disk or a network file system.

    On a local disk it has a write-ahead log, so that readers and the writer do not wait for each other. That
    needs memory shared by all its users, which hosts do not share: on a network file system it keeps a rollback
    journal instead (https://www.sqlite.org/wal.html).
    """

    def __init__(self, url: URL, *, lock_timeout: float, mountinfo: str | None = None) -> None:
        self.path = _path_of(url)
        mount = mount_under(self.path) if mountinfo is None else mount_of(self.path, mountinfo)
        self.is_shared = is_network(mount.fs_type)
        super().__init__(url.set(database=str(self.path)), lock_timeout=lock_timeout)
        event.listen(self.engine, "connect", self._set_up)

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Make the folder (0700) and the file (0600), and keep other openers out until it is ready.

        The lock is needed beside SQLite's own, which let two that turn on the write-ahead log at once fail.
        """
        lock_path = self.path.with_name(f"{self.path.name}.lock")
        try:
            _make_private_folder(self.path.parent)
            _make_private_file(lock_path)
            _make_private_file(self.path)
            lock = lock_path.open("r+b")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise unusable(self.name, error) from error
        with lock:
            yield

    def back_up(self, revision: str) -> None:
        """Copy the store to a private file beside it, named for the revision."""
        copy = self.path.with_name(f"{self.path.name}.{revision}.backup")
        unfinished = copy.with_name(f"{copy.name}.part")
        try:
            unfinished.unlink(missing_ok=True)
            _make_private_file(unfinished)
            with closing(self._connect()) as source, closing(sqlite3.connect(unfinished)) as target:
                source.backup(target)
            unfinished.replace(copy)
        except (OSError, sqlite3.Error) as error:
            raise unusable(self.name, error) from error

    def _make_engine(self, **options: Any) -> Engine:
        return super()._make_engine(creator=self._connect, **options)

    def _connect(self) -> sqlite3.Connection:
        """A connection that never makes the file, which would be readable for others then."""
        uri = f"file:{quote(os.fsencode(self.path))}?mode=rw"
        # Without an isolation level the driver starts no transactions: `_begin` does, as it should.
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=self.lock_timeout)

    def _set_up(self, connection: sqlite3.Connection, _record: object) -> None:
        journal, synchronous = ("TRUNCATE", "FULL") if self.is_shared else ("WAL", "NORMAL")
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")

    def _begin(self, connection: Connection) -> None:
        """Writers queue before they begin: one that turns writer half-way can find itself locked out."""
        writes = _writes(connection)
        connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if writes else 'ON'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def database_at(where: str | Path, *, lock_timeout: float, mountinfo: str | None = None) -> Database:
    """The SQLite file, or the database that a SQLAlchemy URL names; `BadInput` when it can hold no store."""
    if isinstance(where, Path):
        return Sqlite(URL.create("sqlite", database=str(where)), lock_timeout=lock_timeout, mountinfo=mountinfo)
    try:
        parsed = make_url(where)
    except (ArgumentError, ValueError):  # its text holds the URL, and the URL may hold a password
        raise BadInput(
            "PILOTHOUSE_DATABASE_URL is not a database URL",
            hint="examples: sqlite:////home/me/store.db, postgresql://me@host/pilothouse",
        ) from None
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        return Sqlite(parsed, lock_timeout=lock_timeout, mountinfo=mountinfo)
    if parsed.get_backend_name() == "postgresql":
        return Postgresql(parsed, lock_timeout=lock_timeout)
    return Database(parsed, lock_timeout=lock_timeout)


def _writes(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("writes", False))


def _path_of(url: URL) -> Path:
    """The file of a SQLite URL, absolute: whoever gets the URL next may be in another folder."""
    if url.database in {None, "", ":memory:"} or url.query:
        raise BadInput(f"{url.render_as_string()} names no plain file", hint="write sqlite:////path/to/store.db")
    return Path(url.database or "").expanduser().absolute()


def _make_private_folder(folder: Path) -> None:
    """Make the folder and its missing parents, mode 0700 whatever the umask."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)


def _make_private_file(path: Path) -> None:
    """Make the file unless it exists, mode 0600 whatever the umask."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)
