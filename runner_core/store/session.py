"""The store: opened by URL, brought up to date, and used in short sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from runner_core.store.databases import Database, database_at
from runner_core.store.errors import told_clearly
from runner_core.store.migrations import bring_up_to_date


class Store:
    """An open store. It holds no connection between sessions, so it may be kept, and may cross a fork."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"Store({self._database.name})"

    @property
    def url(self) -> str:
        """The URL with its password, valid in any folder; not for messages."""
        return self._database.url.render_as_string(hide_password=False)

    @property
    def name(self) -> str:
        """The URL without its password, for messages."""
        return self._database.name

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine of the reading sessions."""
        return self._database.engine

    @contextmanager
    def session(self, *, write: bool = False) -> Iterator[Session]:
        """A session in one transaction: committed at the end, rolled back on an error.

        A reading session sees one moment's state and cannot write (`RuntimeError`). With `write`, SQLite lets one
        session in at a time and the others wait, so what it reads stays true until it has written; elsewhere rows
        that must not change meanwhile are read with `with_for_update`. Keep both short. Objects can be used after
        the end, apart from columns that were not loaded.

        Raises `OutOfReach` when the database does not answer, is full, or stays locked for 30 s; `BadInput` when
        it cannot be used or cannot hold a text; SQLAlchemy's `IntegrityError` when a constraint is broken.
        """
        engine = self._database.writing_engine if write else self._database.engine
        with (
            told_clearly(self.name, writes=write),
            Session(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def dispose(self) -> None:
        """Give back what the engine holds."""
        self.engine.dispose()


def open_store(where: str | Path, *, lock_timeout: float = 30.0, mountinfo: str | None = None) -> Store:
    """Open the store at a SQLAlchemy URL, or in an SQLite file, made or brought up to date if need be.

    `lock_timeout` (seconds) bounds how long a session waits for others. `mountinfo` stands in for
    `/proc/self/mountinfo`. Opening an up-to-date store takes about a millisecond.

    Raises `BadInput` for a URL or a file that cannot be used, `OutOfReach` for a server that does not answer,
    `Refused` for a store made by a newer version of this program.
    """
    database = database_at(where, lock_timeout=lock_timeout, mountinfo=mountinfo)
    with told_clearly(database.name, writes=True), database.opening():
        bring_up_to_date(database)
    return Store(database)
