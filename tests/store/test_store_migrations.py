"""A store is made, and brought up to date, by its first user, without loss."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import IntegrityError

from runner_core.failures import BadInput, Refused
from runner_core.store import migrations
from runner_core.store.databases import database_at
from runner_core.store.models import Base, Dataset, Job, TaskPackage, WorkflowTask
from runner_core.store.session import open_store

OLD_ROWS = [
    """INSERT INTO task_package (id, pkg_name, version, origin, requested, interpreter, timestamp_created)
       VALUES (7, 'demo-tasks', '1.0', 'pypi', 'demo-tasks==1.0', '/env/bin/python', '2024-10-01 12:00:00+00:00')""",
    """INSERT INTO task (id, package_id, name, type, source, version, input_types, output_types, meta_non_parallel,
       meta_parallel, tags) VALUES (3, 7, 'blur', 'parallel', 'demo:blur', '1.0', '{}', '{}', '{}', '{}', '[]')""",
    "INSERT INTO workflow (id, name, timestamp_created) VALUES (2, 'demo', '2024-10-01 12:00:00+00:00')",
    """INSERT INTO workflow_task (id, workflow_id, "order", task_id, args_non_parallel, args_parallel,
       meta_non_parallel, meta_parallel, input_filters) VALUES (4, 2, 0, 3, '{}', '{"sigma": 2}', '{}', '{}', '{}')""",
    """INSERT INTO dataset (id, name, zarr_dir, filters, image_count, images, history, timestamp_created)
       VALUES (5, 'plate', '/d', '{}', 1, '[{"zarr_url": "/d/é"}]', '[]', '2024-10-01 12:00:00+00:00')""",
    *(
        f"""INSERT INTO job (id, workflow_id, dataset_id, status, backend, first_task_index, last_task_index,
            start_timestamp, project_dump, workflow_dump, dataset_dump)
            VALUES ({job_id}, 2, 5, '{status}', 'local', 0, 0, '2024-10-01 12:00:00+00:00', '{{}}', '{{}}', '{{}}')"""
        for job_id, status in ((8, "done"), (9, "submitted"))
    ),
]


def configured(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


@pytest.fixture
def old_url(new_url: str) -> str:
    """A store of the first revision, with data in it."""
    database = database_at(new_url, lock_timeout=5)
    with database.opening(), database.writing_engine.begin() as connection:
        command.upgrade(configured(connection), "0001")
        for statement in OLD_ROWS:
            connection.exec_driver_sql(statement)
    return new_url


def columns(store_url: str, table: str) -> set[str]:
    with database_at(store_url, lock_timeout=5).engine.connect() as connection:
        return {column["name"] for column in inspect(connection).get_columns(table)}


def backups(url: str) -> list[Path]:
    return sorted(Path(url.removeprefix("sqlite:///")).parent.glob("*.backup*"))


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


class TestHistory:
    def test_it_ends_where_the_program_thinks_it_does(self):
        assert ScriptDirectory.from_config(configured()).get_heads() == [migrations.HEAD]

    def test_it_leads_to_the_tables_of_the_models(self, new_url: str):
        with open_store(new_url).engine.connect() as connection:
            differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)

        assert differences == []

    def test_it_gives_constraints_the_names_of_the_models(self, new_url: str):
        with open_store(new_url).engine.connect() as connection:
            found = inspect(connection)
            for table in Base.metadata.sorted_tables:
                named = {
                    *(item["name"] for item in found.get_foreign_keys(table.name)),
                    *(item["name"] for item in found.get_unique_constraints(table.name)),
                    *(item["name"] for item in found.get_check_constraints(table.name)),
                }
                assert named == {item.name for item in table.constraints if item is not table.primary_key}


class TestNewStore:
    def test_it_is_made_by_the_first_to_open_it(self, new_url: str):
        store = open_store(new_url)

        with store.session(write=True) as session:
            session.add(Dataset(name="d", zarr_dir="/d"))

    @pytest.mark.parametrize("new_url", ["sqlite"], indirect=True)
    def test_it_needs_no_backup(self, new_url: str):
        open_store(new_url)

        assert backups(new_url) == []

    def test_two_processes_may_be_the_first_at_the_same_time(self, new_url: str):
        code = (
            "import sys, alembic.command, sqlalchemy\n"
            "from runner_core.store.session import open_store\n"
            "print('ready', flush=True); sys.stdin.readline(); open_store(sys.argv[1]); print('opened')"
        )
        openers = [run_python(code, new_url) for _ in range(2)]
        for opener in openers:
            assert opener.stdout is not None
            assert opener.stdout.readline() == "ready\n"
        for opener in openers:
            assert opener.stdin is not None
            opener.stdin.write("\n")
            opener.stdin.flush()

        assert [opener.communicate()[0] for opener in openers] == ["opened\n"] * 2

    def test_opening_it_again_does_not_load_alembic(self, new_url: str):
        open_store(new_url)
        code = (
            "import sys; from runner_core.store.session import open_store\n"
            "open_store(sys.argv[1]); print('alembic' in sys.modules)"
        )

        assert run_python(code, new_url).communicate()[0] == "False\n"


class TestOldStore:
    def test_its_data_survive_the_upgrade(self, old_url: str):
        assert "outcome" not in columns(old_url, "job")
        assert "content_hash" not in columns(old_url, "task_package")

        with open_store(old_url).session() as session:
            package = session.get_one(TaskPackage, 7)
            assert (package.pkg_name, package.content_hash) == ("demo-tasks", None)
            assert [task.name for task in package.tasks] == ["blur"]
            assert session.get_one(WorkflowTask, 4).args_parallel == {"sigma": 2}
            assert session.get_one(Dataset, 5).images == [{"zarr_url": "/d/é"}]
            jobs = [session.get_one(Job, job_id) for job_id in (8, 9)]
            assert [(job.status, job.submitted_dataset_id, job.outcome) for job in jobs] == [
                ("done", None, None),
                ("submitted", 5, None),
            ]
            assert jobs[0].start_timestamp.isoformat() == "2024-10-01T12:00:00+00:00"

    def test_s1_its_constraints_survive_the_upgrade(self, old_url: str):
        store = open_store(old_url)

        with pytest.raises(IntegrityError), store.session(write=True) as session:
            session.add(Job(dataset_id=5, backend="local", first_task_index=0, last_task_index=0))

    def test_the_new_columns_can_be_used(self, old_url: str):
        store = open_store(old_url)
        with store.session(write=True) as session:
            session.get_one(Job, 8).outcome = {"phase": "done"}

        with store.session() as session:
            assert session.get_one(Job, 8).outcome == {"phase": "done"}

    @pytest.mark.parametrize("new_url", ["sqlite"], indirect=True)
    def test_a_private_backup_of_the_file_is_kept(self, old_url: str):
        open_store(old_url)
        open_store(old_url)

        (backup,) = backups(old_url)
        assert backup.name == "store.db.0001.backup"
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600
        with closing(sqlite3.connect(backup)) as connection:
            (images,) = connection.execute("SELECT images FROM dataset").fetchone()
            assert json.loads(images) == [{"zarr_url": "/d/é"}]
            assert "outcome" not in {row[1] for row in connection.execute("PRAGMA table_info(job)")}

    @pytest.mark.parametrize("new_url", ["sqlite"], indirect=True)
    def test_where_no_backup_can_be_made_there_is_no_upgrade(self, tmp_path: Path, old_url: str):
        (tmp_path / "new" / "store.db.0001.backup.part").mkdir()

        with pytest.raises(BadInput, match="cannot be used: "):
            open_store(old_url)

        assert "outcome" not in columns(old_url, "job")

    def test_an_upgrade_that_fails_half_way_leaves_it_as_it_was(self, old_url: str):
        # The second revision's last step will find its column there already.
        with database_at(old_url, lock_timeout=5).writing_engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE job ADD COLUMN outcome TEXT")

        with pytest.raises(Exception, match="outcome"):
            open_store(old_url)

        assert "content_hash" not in columns(old_url, "task_package")
        with database_at(old_url, lock_timeout=5).engine.connect() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0001"


def test_a_store_of_a_newer_version_is_refused_and_left_alone(new_url: str):
    store = open_store(new_url)
    with store.session(write=True) as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(Refused, match=r"made by a newer version .*9999.*upgrade pilothouse"):
        open_store(new_url)

    with store.session() as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
