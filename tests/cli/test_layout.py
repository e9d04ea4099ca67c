"""Tables, times and sizes as text."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.cli.layout import columns_of, counted, duration, elapsed, file_size, fitted, table


def test_columns_are_as_wide_as_their_widest_cell_and_numbers_stand_right() -> None:
    lines = [click.unstyle(line) for line in table(("ID", "NAME"), [(1, "short"), (200, "a long one")])]

    assert lines == [" ID  NAME", "  1  short", "200  a long one"]


def test_wide_characters_take_two_columns() -> None:
    assert columns_of("日本") == 4
    assert columns_of("e\u0301") == 1
    lines = table(("NAME", "X"), [("日本語", "x"), ("abc", "x")])
    assert columns_of(lines[1]) == columns_of(lines[2])


def test_a_narrow_terminal_shortens_the_widest_column_first() -> None:
    lines = table(("A", "B"), [("x" * 50, "y" * 12)], width=40)

    assert lines[1] == f"{'x' * 25}…  {'y' * 12}"


def test_only_what_stands_under_state_is_coloured() -> None:
    (row,) = table(("STATE", "NAME"), [("failed", "failed")])[1:]

    assert row == f"{click.style('failed', fg='red')}  failed"


@given(st.text(alphabet=st.characters(exclude_categories=["C", "M"]), max_size=30), st.integers(1, 40))
def test_a_fitted_text_fills_its_columns_exactly(text: str, width: int) -> None:
    assert columns_of(fitted(text, width)) == width


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (60, "1m 00s"),
        (3599, "59m 59s"),
        (18_420, "5h 07m"),
        (183_600, "2d 03h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_elapsed_is_empty_before_the_start_and_between_given_moments_exact() -> None:
    assert elapsed(None, None) == ""
    assert elapsed("2026-01-31T23:59:00+00:00", "2026-02-01T00:00:02+00:00") == "1m 02s"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (4_100_000, "4.1 MB"), (2e12, "2.0 TB")]
)
def test_a_size_is_in_the_unit_that_people_read(count: int, text: str) -> None:
    assert file_size(int(count)) == text


def test_a_number_has_its_noun() -> None:
    assert (counted(1, "image"), counted(20_000, "image")) == ("1 image", "20,000 images")
