"""Sessions: one transaction each, short, shared by many; and one clear line when the database will not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select, update

from runner_core.failures import BadInput, OutOfReach, PilothouseError
from runner_core.store.models import Dataset
from runner_core.store.session import Store, open_store


def add_dataset(store: Store) -> int:
    with store.session(write=True) as session:
        dataset = Dataset(name="d", zarr_dir="/d")
        session.add(dataset)
        session.flush()
        return dataset.id


def rename(store: Store, name: str) -> None:
    with store.session(write=True) as session:
        session.execute(update(Dataset).values(name=name))


def names(store: Store) -> list[str]:
    with store.session() as session:
        return list(session.scalars(select(Dataset.name)))


def open_files() -> set[str]:
    """Files and sockets that this process has open."""
    found = set()
    for descriptor in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):  # the one that read the folder
            found.add(str(descriptor.readlink()))
    return found


class TestTransactions:
    def test_a_session_commits_at_its_end(self, store: Store):
        add_dataset(store)

        assert names(open_store(store.url)) == ["d"]

    def test_a_session_that_fails_leaves_nothing(self, store: Store):
        def fail_after_writing() -> None:
            with store.session(write=True) as session:
                session.add(Dataset(name="d", zarr_dir="/d"))
                session.flush()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail_after_writing()

        assert names(store) == []

    def test_objects_can_be_used_after_the_end(self, store: Store):
        with store.session(write=True) as session:
            dataset = Dataset(name="d", zarr_dir="/d")
            session.add(dataset)

        assert (dataset.id, dataset.name, dataset.image_count) == (1, "d", 0)

    def test_a_reading_session_cannot_add(self, store: Store):
        with pytest.raises(RuntimeError, match="write=True"), store.session() as session:
            session.add(Dataset(name="d", zarr_dir="/d"))

        assert names(store) == []

    def test_a_reading_session_cannot_update(self, store: Store):
        add_dataset(store)

        with pytest.raises(RuntimeError, match="write=True"), store.session() as session:
            session.execute(update(Dataset).values(name="x"))

    def test_a_reading_session_sees_one_moment(self, store: Store):
        add_dataset(store)

        with store.session() as session:
            before = session.scalar(select(Dataset.name))
            rename(store, "changed")
            assert session.scalar(select(Dataset.name)) == before == "d"

        assert names(store) == ["changed"]

    def test_o5_no_connection_is_held_between_sessions(self, store: Store):
        before = open_files()
        add_dataset(store)
        names(store)

        assert open_files() == before


class TestManyUsers:
    def test_writers_take_turns_and_no_change_is_lost(self, store: Store):
        dataset_id = add_dataset(store)

        def count_ten(_: int) -> None:
            for _ in range(10):
                with store.session(write=True) as session:
                    dataset = session.get_one(Dataset, dataset_id, with_for_update=True)
                    dataset.image_count += 1

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count_ten, range(4)))
        with store.session() as session:
            assert session.get_one(Dataset, dataset_id).image_count == 40

    def test_a_writer_waits_while_the_store_is_locked(self, store: Store):
        add_dataset(store)

        with ThreadPoolExecutor(1) as pool:
            with store.session(write=True) as session:
                session.execute(update(Dataset).values(name="first"))
                second = pool.submit(rename, store, "second")
                with pytest.raises(TimeoutError):
                    second.result(timeout=0.5)
            second.result()

        assert names(store) == ["second"]

    def test_a_writer_that_has_waited_too_long_says_so(self, store: Store):
        add_dataset(store)
        hasty = open_store(store.url, lock_timeout=0.1)

        with store.session(write=True) as session:
            session.execute(update(Dataset).values(name="first"))
            with pytest.raises(OutOfReach, match=r"does not answer: .*lock") as refusal:
                rename(hasty, "second")

        assert "nothing was changed; try again" in str(refusal.value)
        assert names(store) == ["first"]

    def test_readers_do_not_wait_for_a_writer(self, store: Store):
        add_dataset(store)

        with store.session(write=True) as session:
            session.execute(update(Dataset).values(name="first"))
            assert names(open_store(store.url, lock_timeout=0)) == ["d"]


class TestTrouble:
    def told(self, url: str) -> PilothouseError:
        """What opening that store says: one bounded line without the password."""
        with pytest.raises(PilothouseError) as refusal:
            open_store(url)
        line = str(refusal.value)
        assert "\n" not in line
        assert len(line) < 700
        assert "secret" not in line
        return refusal.value

    def test_a_server_that_does_not_answer_is_out_of_reach(self, tmp_path: Path):
        error = self.told(f"postgresql://me:secret@/name?host={tmp_path}&password=secret")

        assert isinstance(error, OutOfReach)
        assert str(error).startswith("the store postgresql://me:***@/name does not answer: connection")
        assert "No such file or directory" in str(error)

    def test_a_database_that_is_missing_on_the_server_is_out_of_reach(self, postgresql_server):
        error = self.told(f"postgresql://pilothouse:secret@/absent?host={postgresql_server.folder}")

        assert isinstance(error, OutOfReach)
        assert 'database "absent" does not exist' in str(error)

    def test_a_role_without_the_right_to_make_tables_is_refused(self, postgresql_server):
        url = postgresql_server.new_database()
        store = open_store(url)
        with store.session(write=True) as session:
            connection = session.connection()
            connection.exec_driver_sql("DROP TABLE alembic_version")
            connection.exec_driver_sql("CREATE ROLE guest LOGIN PASSWORD 'secret'")

        error = self.told(url.replace("pilothouse@", "guest:secret@"))

        assert isinstance(error, BadInput)
        assert "permission denied for schema public" in str(error)

    def test_a_driver_that_is_not_installed_is_named(self):
        error = self.told("oracle+cx_oracle://me:secret@host/name")

        assert isinstance(error, BadInput)
        assert "driver for oracle+cx_oracle://me:***@host/name is not installed (cx_Oracle)" in str(error)

    def test_an_unknown_kind_of_database_is_refused(self):
        assert "no kind of database goes by papyrus://me:***@host/name" in str(
            self.told("papyrus://me:secret@host/name")
        )

    @pytest.mark.parametrize(
        "url", ["", "store.db", "/home/me:secret/store.db", "postgresql://me:secret@host:port/name"]
    )
    def test_what_is_no_url_is_refused_without_repeating_it(self, url: str):
        assert "PILOTHOUSE_DATABASE_URL is not a database URL" in str(self.told(url))

    def test_a_file_that_is_no_database_is_left_alone(self, tmp_path: Path):
        path = tmp_path / "notes.txt"
        path.write_text("not a database, and long enough to be told apart from an empty one\n" * 100)

        error = self.told(f"sqlite:///{path}")

        assert isinstance(error, BadInput)
        assert f"the store sqlite:///{path} cannot be used: file is not a database" in str(error)
        assert path.read_text().startswith("not a database")

    def test_a_folder_in_place_of_the_file_is_refused(self, tmp_path: Path):
        assert "cannot be used: unable to open database file" in str(self.told(f"sqlite:///{tmp_path}"))

    def test_a_place_where_no_folder_can_be_made_is_refused(self, tmp_path: Path):
        (tmp_path / "file").touch()

        assert "Not a directory" in str(self.told(f"sqlite:///{tmp_path}/file/store.db"))

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:store.db?uri=true"])
    def test_a_store_in_memory_is_refused(self, url: str):
        assert "names no plain file" in str(self.told(url))

    def test_a_store_that_was_removed_is_not_made_anew_half_way(self, tmp_path: Path):
        path = tmp_path / "store.db"
        store = open_store(f"sqlite:///{path}")
        path.unlink()

        with pytest.raises(BadInput, match="unable to open database file"):
            add_dataset(store)

        assert not path.exists()

    def test_a_full_disk_is_told_as_one(self, tmp_path: Path):
        store = open_store(f"sqlite:///{tmp_path}/store.db")

        def outgrow() -> None:
            with store.session(write=True) as session:
                session.connection().exec_driver_sql("PRAGMA max_page_count = 1")  # the file may not grow
                session.add(Dataset(name="d" * 100_000, zarr_dir="/d"))

        with pytest.raises(OutOfReach, match=r"the disk that holds the store .* is full or failing") as refusal:
            outgrow()

        assert "does not answer" not in str(refusal.value)
        assert names(store) == []

    def test_a_defect_of_ours_stays_a_defect(self, store: Store):
        with pytest.raises(Exception, match="no_such_table") as refusal, store.session() as session:
            session.connection().exec_driver_sql("SELECT * FROM no_such_table")

        assert not isinstance(refusal.value, PilothouseError)

    def test_a_store_shows_itself_without_its_password(self, postgresql_server):
        url = postgresql_server.new_database().replace("pilothouse@", "pilothouse:secret@")

        store = open_store(url)

        assert "secret" not in repr(store) + store.name
        assert "secret" in store.url
