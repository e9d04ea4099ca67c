"""What the backends read of a result file: whole lines of their own attempt, and how the batch ended."""

from __future__ import annotations

from pathlib import Path

from runner_core.backends.results import ResultReader


def reader(folder: Path, *, attempt: int = 1) -> ResultReader:
    return ResultReader(folder / "results.jsonl", key="job-1-0", attempt=attempt)


def test_the_reader_understands_what_a_worker_writes(bench, warm):
    script = bench.guarded("open(sys.argv[4], 'w').write('{}')", top="import sys\n")
    bench.run(script, 2, warm=warm)
    news = reader(bench.folder).read_new()
    assert news.started == (0, 1)
    assert [(result.index, result.returncode, result.output) for result in news.results] == [(0, 0, "{}"), (1, 0, "{}")]
    assert news.ended == "complete"


def test_lines_of_another_attempt_are_passed_over(bench):
    bench.run(["/bin/true"])
    bench.run(["/bin/false"], attempt=2)
    news = reader(bench.folder, attempt=2).read_new()
    assert [result.returncode for result in news.results] == [1]


def test_the_end_is_told_also_after_it_was_read(bench):
    """The last line is often read before the worker's process has ended, which is when it is asked for."""
    bench.run(["/bin/true"])
    lines = reader(bench.folder)
    assert [lines.read_new().ended, lines.read_new().ended] == ["complete", "complete"]


def test_a_torn_last_line_is_not_waited_for(bench):
    """It is what a worker leaves that is killed while it writes; nobody will ever end that line."""
    bench.run(["/bin/true"])
    path = bench.folder / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    lines = reader(bench.folder)
    assert lines.has_more()
    news = lines.read_new()
    assert (len(news.results), news.ended, lines.has_more()) == (1, None, False)
    path.write_bytes(whole)
    assert lines.has_more()
    assert (lines.read_new().ended, lines.has_more()) == ("complete", False)
