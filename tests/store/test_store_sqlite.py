"""A store in a file: private to its owner, and journalled as its file system allows."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from runner_core.store.databases import database_at
from runner_core.store.models import Dataset
from runner_core.store.session import Store, open_store

LOCAL = "27 1 254:0 / / rw - ext4 /dev/vda1 rw"
NETWORK = "27 1 0:40 / / rw - nfs4 server:/export rw"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def pragma(store: Store, name: str) -> object:
    with store.session() as session:
        return session.execute(text(f"PRAGMA {name}")).scalar()


def open_at(path: Path, mountinfo: str) -> Store:
    return open_store(f"sqlite:///{path}", mountinfo=mountinfo)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o277])
def test_folders_and_files_are_private_whatever_the_umask(tmp_path: Path, mask: int):
    path = tmp_path / "home" / "deep" / "store.db"

    with umask(mask):
        store = open_at(path, LOCAL)
        with store.session(write=True) as session:
            session.add(Dataset(name="d", zarr_dir="/d"))
            session.flush()
            files = {file.name: mode(file) for file in path.parent.iterdir()}

    assert files == dict.fromkeys(("store.db", "store.db-shm", "store.db-wal", "store.db.lock"), 0o600)
    assert [mode(folder) for folder in (path.parent, path.parent.parent)] == [0o700, 0o700]


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o750)

    open_at(tmp_path / "shared" / "store.db", LOCAL)

    assert mode(tmp_path / "shared") == 0o750


def test_on_a_local_disk_there_is_a_write_ahead_log(tmp_path: Path):
    store = open_at(tmp_path / "store.db", LOCAL)

    assert (pragma(store, "journal_mode"), pragma(store, "synchronous")) == ("wal", 1)


def test_on_a_network_file_system_there_is_a_rollback_journal(tmp_path: Path):
    path = tmp_path / "store.db"
    store = open_at(path, NETWORK)

    with store.session(write=True) as session:
        session.add(Dataset(name="d", zarr_dir="/d"))
        session.flush()
        files = {file.name for file in tmp_path.iterdir() if file.name.startswith("store")}

    assert files == {"store.db", "store.db.lock", "store.db-journal"}
    assert mode(tmp_path / "store.db-journal") == 0o600
    assert (pragma(store, "journal_mode"), pragma(store, "synchronous")) == ("truncate", 2)


@pytest.mark.parametrize(("first", "then", "journal"), [(LOCAL, NETWORK, "truncate"), (NETWORK, LOCAL, "wal")])
def test_a_store_that_moved_gets_the_journal_of_its_new_place(tmp_path: Path, first: str, then: str, journal: str):
    path = tmp_path / "store.db"
    with open_at(path, first).session(write=True) as session:
        session.add(Dataset(name="d", zarr_dir="/d"))

    store = open_at(path, then)

    assert pragma(store, "journal_mode") == journal
    with store.session() as session:
        assert session.get_one(Dataset, 1).name == "d"


def test_foreign_keys_are_enforced_and_every_wait_is_bounded(tmp_path: Path):
    store = open_at(tmp_path / "store.db", LOCAL)

    assert (pragma(store, "foreign_keys"), pragma(store, "busy_timeout")) == (1, 30_000)


def test_one_process_at_a_time_makes_the_store_ready(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'store.db'}"

    with ThreadPoolExecutor(1) as pool:
        with database_at(url, lock_timeout=5).opening():
            second = pool.submit(open_store, url)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
            assert (tmp_path / "store.db").stat().st_size == 0
        assert second.result().url == url


def test_a_relative_path_is_made_absolute_so_that_another_process_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)

    assert open_store("sqlite:///here/store.db").url == f"sqlite:///{tmp_path}/here/store.db"


def test_any_file_name_will_do(tmp_path: Path):
    path = tmp_path / "100% #1 é ~ 'a'.db"

    store = open_at(path, LOCAL)

    with store.session(write=True) as session:
        session.add(Dataset(name="d", zarr_dir="/d"))
    assert path.stat().st_size > 0
