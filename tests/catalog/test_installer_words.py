"""What people are told of the installer's output."""

from __future__ import annotations

import pytest

from runner_core.catalog.installer import last_words

PLAIN = """\
Using Python 3.11.7 environment at: env
error: No solution found when resolving dependencies
  cause: Because tiny was not found in the package registry and you require
  tiny, we can conclude that your requirements are unsatisfiable.

hint: something long
"""
DRAWN = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because tiny was not found in the package registry and you require
      tiny, we can conclude that your requirements are unsatisfiable.
"""
BUILD = """\
Traceback (most recent call last):
  File "setup.py", line 1, in <module>
ModuleNotFoundError: No module named 'numpy'
error: Failed to build `tiny`
  cause: The build backend returned an error
"""


@pytest.mark.parametrize("output", [PLAIN, DRAWN])
def test_the_error_and_its_causes_come_on_one_line(output: str) -> None:
    said = last_words(output.splitlines())
    assert said.replace("::", ":").startswith(
        "No solution found when resolving dependencies: Because tiny was not found"
    )
    assert said.endswith("requirements are unsatisfiable.")


def test_a_builds_own_exception_is_told() -> None:
    assert last_words(BUILD.splitlines()) == (
        "Failed to build `tiny`: The build backend returned an error: ModuleNotFoundError: No module named 'numpy'"
    )


def test_output_without_an_error_gives_its_end() -> None:
    assert last_words(["one", "two", "three", "four"]) == "two three four"
    assert last_words([]) == "uv ended without a word"


def test_control_characters_are_spelled_out() -> None:
    assert last_words(["error: \x1b]0;title\x07"]).isprintable()
