"""The schema's history, and how a store is brought up to date.

A revision is a file in `versions`, written by hand; it names plain SQLAlchemy types, since models change and
history does not. Stores only move forward. To add one: change the models, write the file, move `HEAD` on.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from runner_core.failures import Refused
from runner_core.store.databases import Database

HEAD = "0002"
"""The newest revision. Known here so that Alembic is loaded only for a store that is not up to date."""


def bring_up_to_date(database: Database) -> None:
    """Carry the schema to `HEAD`, data and all, in one transaction; where files are used, after a backup.

    Raises `Refused` for a store of a newer version.
    """
    with database.engine.connect() as connection:
        if _revision_of(connection) == HEAD:
            return
    with database.writing_engine.begin() as connection:
        database.lock_schema(connection)
        revision = _revision_of(connection)
        if revision != HEAD:
            _upgrade(database, connection, revision)


def _revision_of(connection: Connection) -> str | None:
    """The revision of the schema; `None` before the first."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(database: Database, connection: Connection, revision: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None:
        if revision not in known:
            raise Refused(
                f"the store {database.name} was made by a newer version (its schema is {revision[:40]!r})",
                hint="upgrade pilothouse: pip install --upgrade pilothouse",
            )
        database.back_up(revision)
    command.upgrade(config, "head")
