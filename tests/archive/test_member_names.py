"""What a file is called in a zip leads back to it, and can be used nowhere to leave the folder."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner_core.zip_members import member_name, raw_path, why_unfit

parts = st.binary(min_size=1, max_size=12).map(lambda name: name.replace(b"/", b"-").replace(b"\0", b"0"))
odd_parts = st.lists(st.sampled_from([b"%", b"4", b"1", b"E9", b"\xe9", b"\\", b":", b"C", b"\n", b"a"]), min_size=1)
paths = (
    st.lists(parts | odd_parts.map(b"".join), min_size=1, max_size=4)
    .filter(lambda found: not {b".", b".."} & set(found))
    .map(lambda found: os.fsdecode(b"/".join(found)))
)


@given(paths)
def test_every_path_has_a_fit_name_that_leads_back_to_it(path):
    name = member_name(path)
    assert raw_path(name) == path
    assert why_unfit(name) == ""
    assert name.encode("utf-8").decode() == name


@given(paths, paths)
def test_two_paths_never_share_a_name(one, other):
    assert (member_name(one) == member_name(other)) == (one == other)


@pytest.mark.parametrize(
    "path", ["0_project/0.log", "größe µm.log", "100%.log", "a b", "t1:0", ".hidden", "...", "画像"]
)
def test_usual_names_stay_as_they_are(path):
    assert member_name(path) == path
    assert why_unfit(path) == ""


@pytest.mark.parametrize("name", ["%2E%2E/x", "%41", "%2F", "a\nb", "caf\udce9"])
def test_a_name_that_no_file_is_given_leads_nowhere(name):
    assert raw_path(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("//x", "absolute"),
        ("../x", "leads out"),
        ("a/../../x", "leads out"),
        ("a/..", "leads out"),
        ("..", "leads out"),
        ("C:x", "drive letter"),
        ("c:/x", "drive letter"),
        ("a\\b", "backslash"),
        ("..\\x", "backslash"),
        ("a\0.log", "NUL"),
        ("", "empty or dotted"),
        (".", "empty or dotted"),
        ("./a", "empty or dotted"),
        ("a//b", "empty or dotted"),
        ("a/", "empty or dotted"),
    ],
)
def test_names_that_are_not_of_a_file_inside_are_refused(name, reason):
    assert reason in why_unfit(name)
