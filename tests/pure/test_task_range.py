"""Which tasks of a workflow a job runs (S6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner_core.failures import Refused
from runner_core.job_record import task_range


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (None, None, (0, 4)),
        (2, None, (2, 4)),
        (None, 2, (0, 2)),
        (0, 0, (0, 0)),
        (4, 4, (4, 4)),
    ],
)
def test_s6_the_range_is_by_default_the_whole_workflow_and_includes_its_last_task(
    first: int | None, last: int | None, expected: tuple[int, int]
) -> None:
    assert task_range(first, last, 5) == expected


@pytest.mark.parametrize(
    ("first", "last"),
    [(-1, None), (None, -1), (-2, -1), (None, 5), (5, None), (3, 2), (0, 10**30)],
)
def test_s6_a_range_that_does_not_fit_is_refused_with_the_positions_that_would(
    first: int | None, last: int | None
) -> None:
    with pytest.raises(Refused, match="positions go from 0 to 4"):
        task_range(first, last, 5)


@pytest.mark.parametrize(("first", "last"), [(None, None), (0, 0), (0, None), (-1, 3)])
def test_s1_an_empty_workflow_is_refused_whatever_the_range(first: int | None, last: int | None) -> None:
    with pytest.raises(Refused, match="has no tasks"):
        task_range(first, last, 0)


@given(st.none() | st.integers(-3, 9), st.none() | st.integers(-3, 9), st.integers(1, 6))
def test_s6_a_range_that_is_not_refused_is_a_slice_of_the_workflow(
    first: int | None, last: int | None, count: int
) -> None:
    try:
        start, end = task_range(first, last, count)
    except Refused:
        assert not 0 <= (first or 0) <= (count - 1 if last is None else last) < count
    else:
        assert 0 <= start <= end < count
        assert (start, end) == (first or 0, count - 1 if last is None else last)
