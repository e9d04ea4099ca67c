"""The journal: what is appended survives, what is torn is cut, and any prefix tells where the job stood."""

from __future__ import annotations

import json
import stat
import tempfile
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner_core.failures import Refused
from runner_core.journal import (
    JobState,
    Journal,
    fold,
    from_ranges,
    parse_events,
    read_events,
    to_ranges,
    valid_prefix,
)
from runner_core.model import Json, Phase, TaskState
from tests.pure.small_disk import SmallDisk


def open_journal(path: Path) -> closing[Journal]:
    return closing(Journal(path, clock=lambda: 1000.0))


def note(text: str) -> Json:
    return {"event": "note", "text": text}


def texts_of(path: Path) -> list[str]:
    return [event["text"] for event in read_events(path) if event["event"] == "note"]


def numbers_of(path: Path) -> list[int]:
    return [event["seq"] for event in read_events(path)]


# ----------------------------------------------------------------------------------------------------------------------
# Writing and reading


def test_a_journal_says_its_version_and_numbers_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    times = count(10.00049)
    with closing(Journal(path, clock=lambda: next(times))) as journal:
        journal.append(note("a"), note("b"))
        journal.append()
        journal.append(note("c"))
    assert read_events(path) == [
        {"seq": 0, "time": 10.0, "event": "journal", "version": 1},
        {"seq": 1, "time": 11.0, "event": "note", "text": "a"},
        {"seq": 2, "time": 12.0, "event": "note", "text": "b"},
        {"seq": 3, "time": 13.0, "event": "note", "text": "c"},
    ]
    assert path.read_bytes().count(b"\n") == 4
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_journal_that_is_opened_again_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for text in "abc":
        with open_journal(path) as journal:
            journal.append(note(text))
    assert texts_of(path) == ["a", "b", "c"]
    assert numbers_of(path) == [0, 1, 2, 3]


def test_no_file_is_no_events_and_reading_makes_none(tmp_path: Path) -> None:
    assert read_events(tmp_path / "events.jsonl") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "line\nbreak\r\n", "\0\x1b[2J\u2028", "größe", "\udcff", "x" * 100_000])
def test_foreign_text_stays_on_one_line_and_comes_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "events.jsonl"
    with open_journal(path) as journal:
        journal.append(note(text), note("after"))
    assert texts_of(path) == [text, "after"]
    assert path.read_bytes().isascii()


def test_a_clock_that_goes_backwards_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    times = iter([100.0, 50.0, -1.0, 70.0])
    with closing(Journal(path, clock=lambda: next(times))) as journal:
        journal.append(note("a"))
        journal.append(note("b"), note("c"))
    assert texts_of(path) == ["a", "b", "c"]
    assert fold(read_events(path)).last_time == 70.0


@pytest.mark.parametrize(
    "tail",
    [
        b'{"seq":3,"time":1,"event":"no',
        b'{"seq":3,"time":1,"event":"note"}',
        b'{"seq":2,"time":1,"event":"note"}\n',
        b'{"seq":4,"time":1,"event":"note"}\n',
        b'{"time":1,"event":"note"}\n',
        b'{"seq":3,"time":1}\n',
        b'{"seq":3,"time":1,"event":7}\n',
        b"[3]\n",
        b"null\n",
        b"\n",
        b"\0" * 4096,
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"seq":3,"ti\r',
    ],
    ids=lambda tail: ascii(tail[:24]),
)
def test_a_torn_or_broken_tail_is_passed_over_by_readers_and_cut_by_the_next_writer(
    tmp_path: Path, tail: bytes
) -> None:
    path = tmp_path / "events.jsonl"
    with open_journal(path) as journal:
        journal.append(note("a"), note("b"))
    whole = path.read_bytes()
    path.write_bytes(whole + tail)

    assert texts_of(path) == ["a", "b"]
    assert path.read_bytes() == whole + tail, "reading changes nothing"
    with open_journal(path) as journal:
        assert path.read_bytes() == whole
        journal.append(note("c"))
    assert texts_of(path) == ["a", "b", "c"]
    assert numbers_of(path) == [0, 1, 2, 3]


@pytest.mark.parametrize("version", [2, "1", None])
def test_a_journal_of_another_version_is_refused_and_left_as_it_is(tmp_path: Path, version: Any) -> None:
    path = tmp_path / "events.jsonl"
    content = json.dumps({"seq": 0, "time": 1, "event": "journal", "version": version}) + "\nof another kind"
    path.write_text(content)
    with pytest.raises(Refused, match="reads 1; upgrade"):
        read_events(path)
    with pytest.raises(Refused, match="reads 1; upgrade"):
        Journal(path, clock=lambda: 0.0)
    assert path.read_text() == content


def test_appending_on_a_full_disk_leaves_the_journal_whole(disk: SmallDisk) -> None:
    path = disk.path / "events.jsonl"
    with open_journal(path) as journal:
        journal.append(note("before"))
        disk.fill()
        whole = path.read_bytes()

        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                journal.append(note("fits"), note("y" * 8192))
            assert path.read_bytes() == whole

        disk.free()
        journal.append(note("after"))
    assert texts_of(path) == ["before", "after"]
    assert numbers_of(path) == [0, 1, 2]


# ----------------------------------------------------------------------------------------------------------------------
# Index ranges


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        (set(), ""),
        ({0}, "0"),
        ({0, 1, 2, 5}, "0-2,5"),
        ({7, 8}, "7-8"),
        ({1, 3, 5}, "1,3,5"),
        (set(range(100_000)), "0-99999"),
    ],
)
def test_unit_indices_are_written_as_ranges(indices: set[int], text: str) -> None:
    assert to_ranges(indices) == text
    assert from_ranges(text) == indices


@given(st.lists(st.integers(0, 60)))
def test_indices_come_back_from_their_ranges_whatever_their_order_and_repetition(indices: list[int]) -> None:
    assert from_ranges(to_ranges(indices)) == set(indices)


# ----------------------------------------------------------------------------------------------------------------------
# Folding

few = settings(max_examples=40)  # a run is long, and every prefix of it is looked at


@st.composite
def unit_events(draw: st.DrawFn, key: str, order: int, units: range, *, all_end: bool) -> list[Json]:
    """What the ticks of one batch report: each unit starts, then ends once, some of them never if the batch is lost."""
    waiting = list(units)
    running: list[int] = []
    events: list[Json] = []
    while waiting or running:
        started = waiting[: draw(st.integers(0, len(waiting)))]
        waiting = waiting[len(started) :]
        running += started
        ended = running[: draw(st.integers(0, len(running)))]
        running = running[len(ended) :]
        failed = set() if all_end else draw(st.sets(st.sampled_from(ended))) if ended else set()
        events.append(
            {
                "event": "units",
                "key": key,
                "order": order,
                "started": to_ranges(started),
                "done": to_ranges(set(ended) - failed),
                "failed": to_ranges(failed),
            }
        )
        if not all_end and draw(st.booleans()):
            break
    return events


@st.composite
def task_events(draw: st.DrawFn, order: int) -> list[Json]:
    """One task: perhaps a planning unit, then batches whose reports come in any interleaving."""
    well = draw(st.booleans())
    events: list[Json] = [{"event": "task_started", "order": order}]
    parts = [[1]] if draw(st.booleans()) else []
    parts.append(draw(st.lists(st.integers(1, 4), max_size=3)))
    for number, sizes in enumerate(parts):
        events.append({"event": "units_planned", "order": order, "units": sum(sizes)})
        streams, first = [], 0
        for batch, size in enumerate(sizes):
            key, units = f"job-1-{order}-{number}-{batch}", range(first, first + size)
            first += size
            events.append({"event": "submitting", "key": key, "order": order, "units": to_ranges(units)})
            events.append({"event": "submitted", "key": key, "handle": {"pid": batch}})
            reports = draw(unit_events(key, order, units, all_end=well))
            reason = "complete" if well else draw(st.sampled_from(["complete", "stopped", "lost"]))
            streams.append([*reports, {"event": "batch_ended", "key": key, "order": order, "reason": reason}])
        while streams:
            stream = draw(st.sampled_from(streams))
            events.append(stream.pop(0))
            streams = [stream for stream in streams if stream]
    return [*events, {"event": "task_ended", "order": order, "state": "done" if well else "failed"}]


@st.composite
def runs(draw: st.DrawFn) -> list[Json]:
    """A valid run: tasks one after the other until one fails, perhaps a stop somewhere, perhaps an end."""
    orders = range(draw(st.integers(0, 3)))
    tasks = [{"order": order, "name": f"task {order}", "type": "compound"} for order in orders]
    events: list[Json] = [{"event": "job", "job_id": 1, "backend": "local", "tasks": tasks}]
    for order in orders:
        events += draw(task_events(order))
        if events[-1]["state"] == "failed":
            break
    if draw(st.booleans()):
        events.insert(draw(st.integers(1, len(events))), {"event": "stop_requested"})
    if draw(st.booleans()):
        events.append({"event": "ended", "phase": "failed", "failure": {"kind": "task"}})
    return events


def numbered(events: list[Json]) -> list[Json]:
    """The events as they are in a file, one second apart."""
    header: Json = {"event": "journal", "version": 1}
    return [{"seq": i, "time": 1000.0 + i, **event} for i, event in enumerate([header, *events])]


def as_bytes(events: list[Json]) -> bytes:
    return "".join(json.dumps(event) + "\n" for event in numbered(events)).encode()


def assert_counts_add_up(state: JobState) -> None:
    for order in state.tasks:
        counts = state.unit_counts(order)
        assert min(counts.values()) >= 0
        assert counts["total"] == counts["done"] + counts["failed"] + counts["running"] + counts["pending"]
        assert counts["total"] == state.tasks[order].planned


@few
@given(runs())
def test_every_prefix_of_a_run_folds_to_counts_that_add_up(events: list[Json]) -> None:
    for length in range(len(events) + 1):
        assert_counts_add_up(fold(numbered(events[:length])))


@few
@given(runs())
def test_units_that_are_done_or_failed_stay_so(events: list[Json]) -> None:
    before: dict[int, tuple[int, int]] = {}
    for length in range(len(events) + 1):
        state = fold(numbered(events[:length]))
        for order in state.tasks:
            counts = state.unit_counts(order)
            done, failed = before.get(order, (0, 0))
            assert counts["done"] >= done
            assert counts["failed"] >= failed
            before[order] = counts["done"], counts["failed"]


@few
@given(runs())
def test_a_task_that_ended_well_has_done_all_its_units(events: list[Json]) -> None:
    state = fold(numbered(events))
    for order, task in state.tasks.items():
        if task.state is TaskState.DONE:
            assert state.unit_counts(order)["done"] == task.planned


@few
@given(runs(), st.data())
def test_any_prefix_of_the_bytes_folds_like_the_whole_lines_in_it(events: list[Json], data: st.DataObject) -> None:
    content = as_bytes(events)
    cut = content[: data.draw(st.integers(0, len(content)))]
    parsed = list(parse_events(cut))
    assert parsed == numbered(events)[: cut.count(b"\n")]
    assert valid_prefix(cut) == cut[: cut.rfind(b"\n") + 1]
    assert_counts_add_up(fold(parsed))


@few
@given(runs(), st.data())
def test_a_journal_cut_anywhere_is_mended_on_opening_and_goes_on(events: list[Json], data: st.DataObject) -> None:
    content = as_bytes(events)
    cut = content[: data.draw(st.integers(0, len(content)))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        path.write_bytes(cut)
        with open_journal(path) as journal:
            journal.append(note("after"))
        after = read_events(path)
    kept = max(cut.count(b"\n"), 1)
    assert [event["seq"] for event in after] == list(range(kept + 1))
    assert after[1:kept] == numbered(events)[1:kept]
    assert after[-1]["text"] == "after"


@few
@given(runs(), st.integers(0, 20))
def test_events_of_an_unknown_kind_are_passed_over(events: list[Json], where: int) -> None:
    where = min(where, len(events))
    known = numbered(events)
    unknown: Json = {"seq": 0, "time": known[where]["time"], "event": "from the future", "order": 99}
    assert fold([*known[: where + 1], unknown, *known[where + 1 :]]) == fold(known)


def test_an_empty_journal_is_a_job_that_waits() -> None:
    assert fold([]) == JobState()
    assert fold([]).phase is Phase.QUEUED


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        ([], Phase.QUEUED),
        ([{"event": "task_started", "order": 0}], Phase.RUNNING),
        ([{"event": "stop_requested"}], Phase.STOPPING),
        ([{"event": "stop_requested"}, {"event": "task_started", "order": 0}], Phase.STOPPING),
        ([{"event": "task_started", "order": 0}, {"event": "stop_requested"}], Phase.STOPPING),
        ([{"event": "stop_requested"}, {"event": "ended", "phase": "stopped", "failure": None}], Phase.STOPPED),
        ([{"event": "ended", "phase": "done", "failure": None}], Phase.DONE),
    ],
)
def test_the_phase_of_a_job(events: list[Json], phase: Phase) -> None:
    job: Json = {"event": "job", "tasks": [{"order": 0, "name": "a", "type": "parallel"}]}
    assert fold(numbered([job, *events])).phase is phase


def test_a_run_is_told_in_full() -> None:
    state = fold(
        numbered(
            [
                {"event": "job", "job_id": 3, "tasks": [{"order": 4, "name": "a", "type": "parallel"}]},
                {"event": "task_started", "order": 4},
                {"event": "units_planned", "order": 4, "units": 10},
                {"event": "submitting", "key": "k", "order": 4, "units": "0-5"},
                {"event": "submitting", "key": "l", "order": 4, "units": "6-9"},
                {"event": "submitted", "key": "k", "handle": {"pid": 7}},
                {"event": "units", "key": "k", "order": 4, "started": "0-4", "done": "0-1", "failed": "2"},
            ]
        )
    )
    assert state.job == {"job_id": 3, "tasks": [{"order": 4, "name": "a", "type": "parallel"}]}
    assert state.unit_counts(4) == {"total": 10, "done": 2, "failed": 1, "running": 2, "pending": 5}
    assert state.batches["k"].handle == {"pid": 7}
    assert state.batches["l"].handle is None, "submitted in doubt: it is looked for by its key"
    assert state.batches["l"].units == {6, 7, 8, 9}
    assert (state.tasks[4].state, state.tasks[4].started, state.last_time) == (TaskState.RUNNING, 1002.0, 1007.0)


def test_units_of_a_lost_batch_have_failed_but_for_those_that_are_done() -> None:
    state = fold(
        numbered(
            [
                {"event": "job", "tasks": [{"order": 0, "name": "a", "type": "parallel"}]},
                {"event": "task_started", "order": 0},
                {"event": "units_planned", "order": 0, "units": 3},
                {"event": "submitting", "key": "k", "order": 0, "units": "0-2"},
                {"event": "units", "key": "k", "order": 0, "started": "0-1", "done": "0", "failed": ""},
                {"event": "batch_ended", "key": "k", "order": 0, "reason": "lost"},
            ]
        )
    )
    assert state.unit_counts(0) == {"total": 3, "done": 1, "failed": 2, "running": 0, "pending": 0}
