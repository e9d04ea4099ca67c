"""Whatever a zip holds or claims, reading it stays in the folder, in memory, and in our own errors."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runner_core.failures import NotFound, PilothouseError, Refused
from runner_core.job_files import JobFiles
from runner_core.zip_members import ArchiveError

CENTRAL = b"PK\x01\x02"
LOCAL = b"PK\x03\x04"


def zip_of(members: list[tuple[zipfile.ZipInfo | str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as opened:
        warnings.simplefilter("ignore")  # duplicate names are what is tested
        for info, data in members:
            opened.writestr(info, data, method)
    return buffer.getvalue()


def named(name: str, *, mode: int = stat.S_IFREG | 0o600) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo()
    info.filename = name
    info.external_attr = mode << 16
    return info


def patched(data: bytes, *, signature: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite a field of the record, central or local, of one member."""
    name_offset = 46 if signature == CENTRAL else 30
    start = 0
    while data[start + name_offset : start + name_offset + len(name)] != name or not data[start:].startswith(signature):
        start = data.index(signature, start + 1)
    return data[: start + offset] + value + data[start + offset + len(value) :]


def job_with(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "job.zip").write_bytes(data)
    return tmp_path / "job"


GOOD = ("good.log", b"good\n")
SECRET = b"evil"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "leads out"),
        ("a/../../evil", "leads out"),
        ("/tmp/evil", "absolute"),
        ("C:\\evil", "backslash"),
        ("..\\evil", "backslash"),
        ("C:evil", "drive letter"),
        ("evil\0.log", "NUL"),
        ("a//evil", "empty or dotted"),
        ("./evil", "empty or dotted"),
        ("../", "leads out"),
    ],
)
def test_a_name_that_could_lead_out_is_refused_and_the_rest_can_be_used(tmp_path, name, reason):
    job = job_with(tmp_path, zip_of([(named(name), SECRET), GOOD]))
    with JobFiles.open(job) as files:
        assert [entry.path for entry in files.entries()] == ["good.log"]
        (problem,) = files.problems
        assert reason in problem
        with pytest.raises(Refused, match=reason):
            files.read(name)
        files.export(tmp_path / "deep" / "er" / "out")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["job.zip", "good.log"]
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
def test_a_link_or_special_file_is_refused(tmp_path, kind):
    job = job_with(tmp_path, zip_of([(named("link", mode=kind | 0o777), b"/etc/passwd"), ("link/evil", SECRET), GOOD]))
    with JobFiles.open(job) as files:
        with pytest.raises(Refused, match="is a link or another special file"):
            files.read("link")
        files.export(tmp_path / "out")
    assert not (tmp_path / "out/link").is_symlink()


def test_two_files_of_one_name_are_both_refused(tmp_path):
    job = job_with(tmp_path, zip_of([("same.log", b"one"), ("same.log", b"two"), GOOD]))
    with JobFiles.open(job) as files:
        assert [entry.path for entry in files.entries()] == ["good.log"]
        with pytest.raises(Refused, match="more than once"):
            files.read("same.log")


def test_a_file_that_is_a_folder_to_another_is_never_half_of_both(tmp_path):
    job = job_with(tmp_path, zip_of([("a", b"file"), ("a/b", b"below")]))
    with JobFiles.open(job) as files:
        assert files.read("a/b") == b"below"
        with pytest.raises(Refused, match="in the way"):
            files.export(tmp_path / "out")
    assert (tmp_path / "out/a").read_bytes() == b"file"


def test_folders_in_a_zip_are_not_files(tmp_path):
    job = job_with(tmp_path, zip_of([(named("folder/", mode=stat.S_IFDIR | 0o700), b""), GOOD]))
    with JobFiles.open(job) as files:
        assert [entry.path for entry in files.entries()] == ["good.log"]
        assert files.problems == []
        with pytest.raises(NotFound):
            files.read("folder")


def test_an_encrypted_file_is_refused(tmp_path):
    data = patched(zip_of([("locked", SECRET), GOOD]), signature=CENTRAL, name=b"locked", offset=8, value=b"\x01\x00")
    with JobFiles.open(job_with(tmp_path, data)) as files:
        with pytest.raises(Refused, match="is encrypted"):
            files.read("locked")
        assert files.read("good.log") == b"good\n"


def test_a_file_packed_in_another_way_is_refused(tmp_path):
    job = job_with(tmp_path, zip_of([("packed", SECRET)], zipfile.ZIP_BZIP2))
    with JobFiles.open(job) as files, pytest.raises(Refused, match="other than deflate"):
        files.read("packed")


def test_a_stored_file_is_read(tmp_path):
    with JobFiles.open(job_with(tmp_path, zip_of([GOOD], zipfile.ZIP_STORED))) as files:
        assert files.read("good.log") == b"good\n"
        assert files.read("good.log", offset=2, size=2) == b"od"


def test_a_name_in_an_old_encoding_is_read(tmp_path):
    data = zip_of([("caf?.log", b"coffee")]).replace(b"caf?.log", b"caf\x82.log")
    with JobFiles.open(job_with(tmp_path, data)) as files:
        assert files.read("café.log") == b"coffee"


SIZE, PACKED, CRC = 24, 20, 16  # where a central record has them


@pytest.mark.parametrize(
    ("field", "value", "damage"),
    [
        (SIZE, 999, "holds more than the 999 bytes it claims"),
        (SIZE, 1_001, "holds 1000 bytes and claims 1001"),
        (CRC, 7, "wrong checksum"),
        (PACKED, 5, "cut short|cannot be unpacked|holds"),
    ],
)
def test_a_file_that_is_not_what_it_claims_is_damaged_and_nothing_of_it_is_exported(tmp_path, field, value, damage):
    data = zip_of([("false.log", bytes(range(250)) * 4), GOOD])
    data = patched(data, signature=CENTRAL, name=b"false.log", offset=field, value=struct.pack("<L", value))
    with JobFiles.open(job_with(tmp_path, data)) as files:
        with pytest.raises(ArchiveError, match=f"false.log.*damaged.*({damage})"):
            files.read("false.log")
        with pytest.raises(ArchiveError):
            files.export(tmp_path / "out")
        with pytest.raises(ArchiveError, match="could not be searched"):
            list(files.search("good"))
        assert files.read("good.log") == b"good\n"
    assert not (tmp_path / "out/false.log").exists()


def test_a_size_that_deflate_cannot_reach_is_refused_unread(tmp_path):
    data = zip_of([("bomb", b"small")])
    data = patched(data, signature=CENTRAL, name=b"bomb", offset=SIZE, value=struct.pack("<L", 0xFFFFFFF0))
    with JobFiles.open(job_with(tmp_path, data)) as files, pytest.raises(Refused, match="cannot be true"):
        files.read("bomb")


def test_files_that_share_their_bytes_are_refused(tmp_path):
    """The way in which a bomb of a few bytes holds any number of large files."""
    data = zip_of([("one.log", b"x" * 5000), ("two.log", b"y" * 5000), GOOD])
    first_header = struct.pack("<L", 0)
    data = patched(data, signature=CENTRAL, name=b"two.log", offset=42, value=first_header)
    with JobFiles.open(job_with(tmp_path, data)) as files:
        for path in ("one.log", "two.log"):
            with pytest.raises(Refused, match="shares its bytes"):
                files.read(path)
        assert files.read("good.log") == b"good\n"


def test_a_file_under_another_name_than_its_header_has_is_damaged(tmp_path):
    data = patched(zip_of([("shown.log", b"x"), GOOD]), signature=LOCAL, name=b"shown.log", offset=30, value=b"other")
    with JobFiles.open(job_with(tmp_path, data)) as files, pytest.raises(ArchiveError, match="another name"):
        files.read("shown.log")


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A zip of about 1 MB that becomes over 1 GB."""
    once = zip_of([("0.log", bytes(1 << 28))])
    buffer = io.BytesIO(once)
    with zipfile.ZipFile(buffer) as opened:
        info = opened.getinfo("0.log")
        packed = once[30 + 5 : 30 + 5 + info.compress_size]
    return b"".join(_raw_zip([(f"{number}.log".encode(), packed, info) for number in range(5)]))


def _raw_zip(members: list[tuple[bytes, bytes, zipfile.ZipInfo]]) -> list[bytes]:
    """The records of a zip whose members are packed already."""
    parts: list[bytes] = []
    index: list[bytes] = []
    for name, packed, info in members:
        sizes = struct.pack("<3L2H", info.CRC, len(packed), info.file_size, len(name), 0)
        fields = struct.pack("<5H", 20, 0, 8, 0, 0x21)
        offset = sum(map(len, parts))
        parts += [LOCAL + fields + sizes + name, packed]
        index.append(CENTRAL + b"\x14\x03" + fields + sizes + struct.pack("<3H2L", 0, 0, 0, 0, offset) + name)
    start, length = sum(map(len, parts)), sum(map(len, index))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(members), len(members), length, start, 0)
    return [*parts, *index, end]


def test_a_bomb_is_not_exported_unless_its_sizes_are_trusted(tmp_path, bomb):
    with JobFiles.open(job_with(tmp_path, bomb)) as files:
        assert sum(entry.size for entry in files.entries()) == 5 << 28
        with pytest.raises(Refused, match="would become 1,342,177,280; export fewer files"):
            files.export(tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert files.export(tmp_path / "out", paths=["0.log"], trust_size=True) == 1


def test_reading_in_a_bomb_takes_little_memory(tmp_path, bomb):
    with JobFiles.open(job_with(tmp_path, bomb)) as files:
        tracemalloc.start()
        assert files.read("0.log", offset=1 << 24, size=100) == bytes(100)
        assert len(next(files.stream("1.log"))) <= 1 << 20
        with pytest.raises(Refused, match="over 64 MiB"):
            files.read("2.log")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < (64 << 20) * 2 + (20 << 20)


LOGS = {f"0_task/{number:03d}.log": f"line of {number}\n".encode() * (number + 1) for number in range(20)}
SOUND = zip_of(list(LOGS.items()))
INDEX_START = SOUND.index(CENTRAL)


def test_without_its_index_a_zip_still_gives_its_files(tmp_path):
    with JobFiles.open(job_with(tmp_path, SOUND[:INDEX_START])) as files:
        assert {entry.path: files.read(entry.path) for entry in files.entries()} == LOGS
        (problem,) = files.problems
        assert "index is broken" in problem
        assert "20 files were found without it" in problem


def test_a_zip_cut_in_the_middle_gives_the_files_before_the_cut(tmp_path):
    tenth = SOUND.index(b"0_task/010.log")
    with JobFiles.open(job_with(tmp_path, SOUND[: tenth + 20])) as files:
        found = {entry.path: files.read(entry.path) for entry in files.entries()}
        assert found == dict(list(LOGS.items())[:10])
        with pytest.raises(NotFound):
            files.read("0_task/010.log")


def test_a_salvaged_file_keeps_its_time(tmp_path):
    info = zipfile.ZipInfo("timed.log", (2025, 6, 7, 8, 9, 10))
    data = zip_of([(info, b"x")])
    with JobFiles.open(job_with(tmp_path, data)) as files:
        whole = files.entry("timed.log").modified
    with JobFiles.open(job_with(tmp_path, data[:-22])) as files:
        assert files.entry("timed.log").modified == whole


def test_a_salvaged_name_is_not_trusted_either(tmp_path):
    data = zip_of([(named("../evil"), SECRET), GOOD])
    with JobFiles.open(job_with(tmp_path, data[: data.index(CENTRAL)])) as files:
        assert [entry.path for entry in files.entries()] == ["good.log"]
        with pytest.raises(Refused, match="leads out"):
            files.read("../evil")


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip at all" * 100, LOCAL, bytes(10_000)])
def test_what_is_no_zip_is_an_empty_view_that_says_so(tmp_path, data):
    with JobFiles.open(job_with(tmp_path, data)) as files:
        assert files.entries() == []
        assert "index is broken" in files.problems[0]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([(INDEX_START + 42, 1)], None)
@given(
    st.lists(st.tuples(st.integers(0, len(SOUND) - 1) | st.integers(INDEX_START, len(SOUND) - 1), st.integers(0, 255))),
    st.none() | st.integers(0, len(SOUND)),
)
def test_any_damage_ends_in_true_content_or_in_our_error(tmp_path, bytes_changed, cut):
    data = bytearray(SOUND)
    for position, value in bytes_changed:
        data[position] = value
    with JobFiles.open(job_with(tmp_path, bytes(data[:cut]))) as files:
        assert isinstance(files.problems, list)
        for entry in files.entries():
            with contextlib.suppress(PilothouseError):
                assert files.read(entry.path) in LOGS.values()
