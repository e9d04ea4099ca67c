"""Errors in words for people: row E1, the causes of failures and how they are grouped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner_core.failures import (
    BadInput,
    JobExecutionError,
    NotFound,
    OutOfReach,
    PilothouseError,
    Refused,
    TaskExecutionError,
    UnitEvidence,
    classify,
    failure_of_error,
    failure_of_units,
    last_error,
    process_report,
    quoted,
)
from runner_core.model import Failure, FailureKind

TRACEBACK = 'Traceback (most recent call last):\n  File "/tasks/segment.py", line 88, in f\n    x()\n'

any_text = st.text(st.characters(codec=None), max_size=400)  # lone surrogates too


def evidence(log: str = "", *, index: int = 0, returncode: int | None = 1, problem: str | None = None) -> UnitEvidence:
    return UnitEvidence(index, returncode, problem, log)


# ----------------------------------------------------------------------------------------------------------------------
# Messages


def test_an_error_says_what_is_wrong_and_how_to_mend_it() -> None:
    assert str(BadInput("it is wrong", hint="mend it")) == "it is wrong; mend it"
    assert str(Refused("it is wrong")) == "it is wrong"


@given(any_text, st.integers(1, 50))
def test_quoted_foreign_text_is_one_bounded_line_that_every_file_can_hold(text: str, limit: int) -> None:
    shown = quoted(text, limit)
    assert shown.isprintable()
    assert len(shown) <= 10 * limit + 40
    assert shown.encode().decode() == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A01", "'A01'"),
        ("größe 1", "'größe 1'"),
        ("", "''"),
        ("a\nb", r"'a\nb'"),
        ("\x1b[2J", r"'\x1b[2J'"),
        ("\udcff", r"'\udcff'"),
        ("a\u202eb", r"'a\u202eb'"),
        (12, "'12'"),
        ("x" * 301, f"'{'x' * 300}'... (301 characters)"),
    ],
)
def test_quoted_text_is_shown_as_it_is_if_it_can_be_read(text: object, shown: str) -> None:
    assert quoted(text) == shown


@pytest.mark.parametrize(
    ("stdout", "stderr", "expected"),
    [
        ("out", "err", "COMMAND:\ncmd\n\nSTDOUT:\nout\n\nSTDERR:\nerr\n\nADDITIONAL INFO:\ninfo"),
        (" \n", "", "COMMAND:\ncmd\n\nSTDOUT file is empty\n\nSTDERR file is empty\n\nADDITIONAL INFO:\ninfo"),
        (None, None, "COMMAND:\ncmd\n\nSTDOUT file is missing\n\nSTDERR file is missing\n\nADDITIONAL INFO:\ninfo"),
    ],
)
def test_e1_a_report_has_the_four_headings_and_says_what_is_empty_or_missing(
    stdout: str | None, stderr: str | None, expected: str
) -> None:
    assert process_report(command="cmd", files={"STDOUT": stdout, "STDERR": stderr}, info="info") == expected


def test_e1_an_error_without_files_falls_back_to_its_text() -> None:
    assert str(JobExecutionError("the text")) == "the text"


# ----------------------------------------------------------------------------------------------------------------------
# The last error of a log

NESTED = """
def deep():
    raise ValueError("first")
def high():
    try:
        deep()
    except ValueError as error:
        {how}
high()
"""
GROUP = """
def member(): raise TypeError("in a member")
errors = [ValueError("never raised")]
try:
    member()
except TypeError as error:
    errors.append(error)
raise ExceptionGroup("many", errors)
"""
REAL_FAILURES = {
    "plain": ('print("INFO: start")\nraise ValueError("bad value")\n', "ValueError: bad value", 2),
    "module": ("import json\njson.loads('{')\n", "json.decoder.JSONDecodeError: ", None),
    "no message": ("raise KeyError\n", "KeyError", 1),
    "several lines": ('raise RuntimeError("one\\ntwo\\nthree")\n', "RuntimeError: one", 1),
    "chained": (NESTED.format(how='raise RuntimeError("second") from error'), "RuntimeError: second", 8),
    "in handling": (NESTED.format(how="{}['x']"), "KeyError: 'x'", 8),
    "local class": (
        "def make():\n    class Odd(Exception): pass\n    return Odd\nraise make()('x')\n",
        "make.<locals>.Odd: x",
        4,
    ),
    "recursion": ("def f(): f()\nf()\n", "RecursionError: ", 1),
    "syntax": ("compile('x = = 1', 'other.py', 'exec')\n", "SyntaxError: invalid syntax", None),
    "group": (GROUP, "TypeError: in a member", 2),
    "group of errors never raised": (
        "raise ExceptionGroup('many', [ValueError(1)])\n",
        "ExceptionGroup: many (1 sub-exception)",
        1,
    ),
    "progress bar before": (
        'import sys\nsys.stderr.write("\\r 50%|##   | 1/2 [00:01<00:01]")\nraise ValueError("bad")\n',
        "ValueError: bad",
        3,
    ),
    "progress bar after": (
        'import atexit\natexit.register(print, "\\r100%|#####| 2/2", end="")\nraise ValueError("bad")\n',
        "ValueError: bad",
        3,
    ),
    "words after": (
        'import atexit\natexit.register(print, "INFO: bye")\nraise ValueError("bad")\n',
        "ValueError: bad",
        3,
    ),
}


@pytest.mark.parametrize("name", REAL_FAILURES)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_the_last_error_of_a_real_log_is_found_with_its_place(tmp_path: Path, name: str, line_end: str) -> None:
    source, error, line = REAL_FAILURES[name]
    script = tmp_path / "segment.py"
    script.write_text(source)
    run = subprocess.run([sys.executable, "-u", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    found, place = last_error(run.stdout.decode().replace("\n", line_end).rstrip())
    assert run.returncode == 1
    assert found is not None
    assert found.startswith(error)
    if line is not None:
        assert place == f"segment.py:{line}"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", (None, None)),
        ("\n \n", (None, None)),
        ("INFO: all is well", (None, None)),
        ("Done: 5 images", (None, None)),
        ("ModuleNotFoundError: No module named 'x'\n\n", ("ModuleNotFoundError: No module named 'x'", None)),
        ("lots of text\npkg.mod.OddException", ("pkg.mod.OddException", None)),
        ("an Error: in a sentence", (None, None)),
        ("Traceback (most recent call last):", (None, None)),
        ('Traceback (most recent call last):\n  File "/a/b.py", line 3, in f', (None, "b.py:3")),
        (f'{TRACEBACK}INFO: a thread\n  File "b.py", line 3, in f\nE: x', ("E: x", "b.py:3")),
        (
            'Traceback (most recent call last):\n  File "b.py", line 3, in f\n    100%|##|\n5/5\nE: x',
            ("E: x", "b.py:3"),
        ),
    ],
)
def test_a_log_with_gaps_or_noise_gives_what_it_has(log: str, expected: tuple[str | None, str | None]) -> None:
    assert last_error(log) == expected


# ----------------------------------------------------------------------------------------------------------------------
# Causes


@pytest.mark.parametrize(
    ("item", "kind", "group"),
    [
        (evidence(f"{TRACEBACK}TypeError: no"), FailureKind.TASK, "TypeError in segment.py:88"),
        (evidence(f"{TRACEBACK}pkg.errors.Odd: no"), FailureKind.TASK, "Odd in segment.py:88"),
        (evidence(f"{TRACEBACK}MemoryError"), FailureKind.OUT_OF_MEMORY, "out of memory"),
        (
            evidence(f"{TRACEBACK}numpy._core._exceptions._ArrayMemoryError: Unable to allocate 1 TiB"),
            FailureKind.OUT_OF_MEMORY,
            "out of memory",
        ),
        (
            evidence(f"{TRACEBACK}torch.OutOfMemoryError: CUDA out of memory."),
            FailureKind.OUT_OF_MEMORY,
            "out of memory",
        ),
        (
            evidence(f"{TRACEBACK}OSError: [Errno 12] Cannot allocate memory"),
            FailureKind.OUT_OF_MEMORY,
            "out of memory",
        ),
        (
            evidence(f"{TRACEBACK}subprocess.CalledProcessError: Command 'x' died with <Signals.SIGKILL: 9>."),
            FailureKind.OUT_OF_MEMORY,
            "killed, often out of memory",
        ),
        (evidence("step 3\nKilled\n"), FailureKind.OUT_OF_MEMORY, "killed, often out of memory"),
        (
            evidence("run.sh: line 2:    71 Killed     python x.py"),
            FailureKind.OUT_OF_MEMORY,
            "killed, often out of memory",
        ),
        (evidence("step 3", returncode=137), FailureKind.OUT_OF_MEMORY, "killed, often out of memory"),
        (evidence(returncode=-9), FailureKind.OUT_OF_MEMORY, "killed, often out of memory"),
        (evidence("Killed cells: 5"), FailureKind.TASK, "exit code 1"),
        (evidence("KeyError: 'Killed'"), FailureKind.TASK, "KeyError"),
        (evidence(returncode=-11), FailureKind.TASK, "killed by SIGSEGV"),
        (evidence(returncode=-6), FailureKind.TASK, "killed by SIGABRT"),
        (evidence(returncode=-99), FailureKind.TASK, "killed by signal 99"),
        (evidence(returncode=3), FailureKind.TASK, "exit code 3"),
        (evidence("usage: x\nx.py: error: arguments are required", returncode=2), FailureKind.TASK, "exit code 2"),
        (evidence("Error: No such option: --x", returncode=2), FailureKind.TASK, "exit code 2"),
        (evidence(returncode=0, problem="the output is too large"), FailureKind.OUTPUT, "the output is too large"),
        (evidence(returncode=None, problem="its worker vanished"), FailureKind.LOST, "its worker vanished"),
        (evidence(returncode=None), FailureKind.LOST, "it was never run"),
    ],
)
def test_the_cause_of_a_units_failure(item: UnitEvidence, kind: FailureKind, group: str) -> None:
    cause = classify(item)
    assert (cause.kind, cause.group) == (kind, group)


def test_the_cause_of_a_usage_error_is_told_in_the_words_of_the_task(tmp_path: Path) -> None:
    script = tmp_path / "task.py"
    script.write_text("import argparse\nargparse.ArgumentParser().parse_args()\n")
    run = subprocess.run([sys.executable, script, "--args-json"], stderr=subprocess.PIPE, text=True, check=False)
    cause = classify(evidence(run.stderr, returncode=run.returncode))
    assert cause.group == "exit code 2"
    assert cause.headline == "exit code 2: task.py: error: unrecognized arguments: --args-json"


def test_a_problem_in_several_lines_is_told_in_one() -> None:
    assert classify(evidence(returncode=0, problem="it is\n\t bad")).headline == "it is bad"


def test_p8_a_signal_is_named_with_its_returncode() -> None:
    assert "returncode=-9" in classify(evidence(returncode=-9)).headline
    assert classify(evidence(returncode=-15)).headline == "killed by SIGTERM (returncode=-15)"


@given(any_text, any_text.map("problem {}".format), st.none() | st.integers(-70, 260))
def test_whatever_a_unit_printed_its_cause_is_one_bounded_line(log: str, problem: str, returncode: int | None) -> None:
    for item in (
        evidence(log, returncode=returncode),
        evidence(TRACEBACK + log, returncode=returncode),
        evidence(log, returncode=returncode, problem=problem),
        evidence(f"{TRACEBACK}{log}Error: {problem}", returncode=returncode),
    ):
        cause = classify(item)
        for line in (cause.group, cause.headline):
            assert line.isprintable()
            assert line
            assert len(line) < 6_000


# ----------------------------------------------------------------------------------------------------------------------
# Groups


def failure_of(*items: UnitEvidence, total: int, task_name: str = "Segment") -> Failure:
    return failure_of_units(items, total=total, task_order=2, task_name=task_name)


def test_equal_failures_are_counted_together_the_most_common_first() -> None:
    type_errors = [evidence(f"{TRACEBACK}TypeError: image {i}", index=i) for i in range(12)]
    memory_errors = [evidence(f"{TRACEBACK}MemoryError", index=i) for i in range(12, 412)]
    failure = failure_of(*type_errors, *memory_errors, total=20_000)
    assert failure.headline == (
        "412 of 20,000 units of Segment failed: 400 out of memory, 12 TypeError in segment.py:88"
    )
    assert failure.counts == {"out of memory": 400, "TypeError in segment.py:88": 12}
    assert failure.detail == "unit 12: MemoryError in segment.py:88\nunit 0: TypeError: image 0 in segment.py:88"
    assert (failure.task_order, failure.task_name, failure.unit) == (2, "Segment", 0)


def test_the_failure_is_of_the_first_unit_that_failed() -> None:
    failure = failure_of(evidence(f"{TRACEBACK}TypeError: no", index=7), evidence(returncode=-9, index=9), total=20)
    assert failure.unit == 7
    assert failure.kind is FailureKind.TASK
    assert failure.hint == failure_of(evidence(f"{TRACEBACK}TypeError: no"), total=1).hint != ""


def test_one_failed_unit_of_many_is_told_in_full() -> None:
    failure = failure_of(evidence(f"{TRACEBACK}TypeError: no"), total=1_000)
    assert failure.headline == "1 of 1,000 units of Segment failed: TypeError: no in segment.py:88"


def test_the_only_unit_of_a_task_is_not_counted() -> None:
    failure = failure_of(evidence(f"{TRACEBACK}TypeError: no"), total=1)
    assert failure.headline == "Segment failed: TypeError: no in segment.py:88"
    assert failure.detail == "unit 0: TypeError: no in segment.py:88"


def test_many_different_causes_are_listed_up_to_a_bound() -> None:
    items = [evidence(returncode=code, index=code) for code in range(1, 101)]
    failure = failure_of(*items, total=100)
    assert failure.headline.endswith("1 exit code 1, 1 exit code 2, 1 exit code 3, 1 exit code 4 and 96 more causes")
    assert len(failure.counts) == 20
    assert len(failure.detail.splitlines()) == 20


@given(any_text, any_text)
def test_a_headline_is_one_bounded_line_whatever_the_task_is_called(name: str, problem: str) -> None:
    items = [evidence(returncode=None, problem=problem, index=i) for i in range(2)]
    for failure in (failure_of(*items, total=2, task_name=name), failure_of(items[0], total=1, task_name=name)):
        assert failure.headline.isprintable()
        assert len(failure.headline) < 6_000
        assert len(failure.detail) < 5_000


# ----------------------------------------------------------------------------------------------------------------------
# Failures of errors

KNOWN = Failure(FailureKind.STOPPED, "stopped by operator")


def task_error(failure: Failure | None = None) -> TaskExecutionError:
    return TaskExecutionError(
        "the log\nin lines", workflow_task_id=1, task_order=3, task_name="Segment", failure=failure
    )


@pytest.mark.parametrize("error", [JobExecutionError("x", failure=KNOWN), task_error(KNOWN)])
def test_an_error_that_knows_its_failure_stands_for_it(error: PilothouseError) -> None:
    assert failure_of_error(error) == KNOWN


@pytest.mark.parametrize(
    ("error", "kind", "headline"),
    [
        (JobExecutionError("x is bad\nmore", kind=FailureKind.OUTPUT), FailureKind.OUTPUT, "x is bad"),
        (task_error(), FailureKind.TASK, "the log"),
        (NotFound("there is no x", hint="make one"), FailureKind.SETUP, "there is no x"),
        (BadInput("x is bad", hint="y"), FailureKind.SETUP, "x is bad"),
        (Refused("x is busy", hint="y"), FailureKind.SETUP, "x is busy"),
        (OutOfReach("x does not answer", hint="y"), FailureKind.SETUP, "x does not answer"),
        (OSError(28, "No space left on device"), FailureKind.SETUP, "OSError: [Errno 28] No space left on device"),
        (PermissionError(13, "Denied", "/x"), FailureKind.SETUP, "PermissionError: [Errno 13] Denied: '/x'"),
        (ZeroDivisionError("a defect"), FailureKind.INTERNAL, "ZeroDivisionError: a defect"),
        (ExceptionGroup("two", [ValueError(1)]), FailureKind.INTERNAL, "ExceptionGroup: two (1 sub-exception)"),
    ],
)
def test_e1_every_error_has_a_kind_a_headline_and_a_next_step(
    error: BaseException, kind: FailureKind, headline: str
) -> None:
    failure = failure_of_error(error, task_order=1, task_name="Project")
    assert (failure.kind, failure.headline) == (kind, headline)
    assert failure.hint
    if isinstance(error, PilothouseError) and error.hint:
        assert failure.hint == error.hint


def test_e1_only_a_defect_of_ours_asks_for_a_report() -> None:
    assert "report" in failure_of_error(ZeroDivisionError()).hint
    assert "report" not in failure_of_error(OSError(28, "No space left on device")).hint


def test_e1_a_task_error_says_which_task_it_was() -> None:
    failure = failure_of_error(task_error(), task_order=1, task_name="Project")
    assert (failure.task_order, failure.task_name) == (3, "Segment")


@given(any_text)
def test_e1_headline_and_detail_are_bounded_whatever_the_message(message: str) -> None:
    for error in (JobExecutionError(message * 50), ValueError(message * 50), OSError(message * 50)):
        failure = failure_of_error(error)
        assert failure.headline.isprintable()
        assert len(failure.headline) < 4_000
        assert len(failure.detail) <= 5_000
