"""Foreign text cannot do anything to a terminal but be read on it."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner_core.text import LINE_LIMIT, decode, head_and_tail, safe_line, safe_text

NOT_SEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format, surrogate, line and paragraph separators

hostile_text = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("\x1b[]0;2JKm\x07\r\n\t\x08\x9b\x90\x7f\u202e\u2066\u200b\u200d\ufeff\ud800\U000e0041 ab"),
    )
)
hostile_lines = st.lists(
    st.sampled_from(
        ["a", "bc", "\r", "\n", "\t", "\x1b[K", "\x1b[31m", "\x1b", "[", "m", "\x9b", "0", ";", "\x1b[2J", "\x07"]
    )
).map("".join)


def is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in NOT_SEEN


@given(hostile_text | hostile_lines)
def test_safe_text_holds_no_control_or_format_character_but_newline_and_tab(text):
    assert all(is_harmless(c) or c in "\n\t" for c in safe_text(text))


@given(hostile_text | hostile_lines)
def test_a_safe_line_is_one_line_of_characters_that_are_seen(text):
    assert all(map(is_harmless, safe_line(text)))


@given(hostile_text | hostile_lines, st.integers(0, 20))
def test_making_safe_text_safe_again_changes_nothing(text, width):
    assert safe_text(safe_text(text)) == safe_text(text)
    assert safe_line(safe_line(text)) == safe_line(text)
    assert safe_line(safe_line(text, width), width) == safe_line(text, width)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.sampled_from("\n\t")))
def test_plain_text_is_unchanged(text):
    assert safe_text(text) == text


def test_letters_of_all_scripts_are_unchanged():
    text = "Größe µm ≥ 3 ± 0.5 — 画像 изображение תמונה صورة 🔬 e\u0301"
    assert safe_text(text) == text
    assert safe_line(text) == text


def test_every_character_that_is_not_seen_is_spelled_out():
    unseen = [
        chr(code) for code in range(sys.maxunicode + 1) if not is_harmless(chr(code)) and chr(code) not in "\n\t\r"
    ]
    for character in unseen:
        assert safe_text(f"a{character}b") == f"a{character.encode('unicode_escape').decode()}b"


@pytest.mark.parametrize(
    "filler", ["\u034f", "\u115f", "\u3164", "\uffa0", "\ufe0f", "\u180b", "\U000e0100", "\U000e0fff"]
)
def test_characters_that_are_drawn_as_nothing_are_spelled_out(filler):
    assert filler not in safe_text(f"a{filler}b")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m and \x1b[1;38;5;208mbold\x1b[m", "red and bold"),
        ("\x9b31mred", "red"),
        ("\x1b[2J\x1b[H", r"\x1b[2J\x1b[H"),
        ("\x9b2J", r"\x9b2J"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b]52;c;ZXZpbA==\x1b\\", r"\x1b]52;c;ZXZpbA==\x1b" + "\\"),
        ('\x1bP$q"p\x1b\\', r"\x1bP$q" + '"p' + r"\x1b" + "\\"),
        ("\x1b\x1b[31m[2J", r"\x1b[2J"),
        ("pay\u202egnp.exe", r"pay\u202egnp.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("bell\x07 back\x08 nul\x00 del\x7f", r"bell\x07 back\x08 nul\x00 del\x7f"),
        ("half\ud83d pair", r"half\ud83d pair"),
        ("line\u2028separator\x85", r"line\u2028separator\x85"),
        ("form\x0cfeed\x0b", r"form\x0cfeed\x0b"),
    ],
)
def test_colours_are_dropped_and_all_else_is_shown(text, shown):
    assert safe_text(text) == shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\r  0%|    | 0/2\r 50%|##  | 1/2\r100%|####| 2/2", "100%|####| 2/2"),
        ("a long line\rshort", "shortg line"),
        ("a long line\r\x1b[Kshort", "short"),
        ("a long line\r\x1b[2Kshort", "short"),
        ("first\rsecond\r\x1b[K", ""),
        ("kept\x1b[K", "kept"),
        ("windows\r", "windows"),
        ("windows\r\nline ends\r\n", "windows\nline ends\n"),
        ("\x1b[32m done\x1b[0m\rDONE", "DONEe"),
    ],
)
def test_a_line_drawn_over_is_shown_as_it_last_stood(line, shown):
    assert safe_text(line) == shown


@given(st.lists(st.tuples(st.booleans(), st.text("abc", max_size=5)), max_size=6))
@example([(False, "abc"), (True, ""), (False, "a")])
def test_carriage_returns_do_what_a_terminal_does(drawings):
    screen: list[str] = []
    for erases, drawing in drawings:
        if erases:
            screen.clear()
        screen[: len(drawing)] = drawing
    line = "".join("\r" + "\x1b[K" * erases + drawing for erases, drawing in drawings)
    assert safe_text(line) == "".join(screen)


def test_a_very_long_line_is_cut_with_a_note_and_its_neighbours_are_not():
    cut = safe_text("before\n" + "x" * 1_000_000 + "\nafter")
    before, line, after = cut.split("\n")
    assert (before, after) == ("before", "after")
    assert len(line) <= LINE_LIMIT
    assert line.startswith("xxx")
    shown = line.count("x")
    assert line.endswith(f"… [{1_000_000 - shown:,} more characters]")


def test_a_line_at_the_limit_is_whole():
    assert safe_text("x" * LINE_LIMIT) == "x" * LINE_LIMIT


def test_line_breaks_in_a_safe_line_are_spelled_out_and_tabs_become_spaces():
    assert safe_line("name\nwith\ta\r\nbreak\n") == r"name\nwith    a\nbreak"


@given(hostile_text, st.integers(-3, 30))
def test_a_safe_line_is_never_wider_than_asked(text, width):
    assert len(safe_line(text, width)) <= max(width, 0)


def test_what_was_cut_from_a_safe_line_ends_in_an_ellipsis():
    assert safe_line("0123456789", 5) == "0123…"
    assert safe_line("01234", 5) == "01234"
    assert safe_line("01234", 1) == "…"


def test_bytes_that_are_no_utf8_are_replaced():
    assert decode(b"caf\xe9 \xff caf\xc3\xa9") == "caf\ufffd \ufffd café"


@given(st.text(max_size=400), st.integers(0, 300))
def test_head_and_tail_keeps_the_limit_and_short_text(text, limit):
    assert len(head_and_tail(text, limit)) <= limit or head_and_tail(text, limit) == text
    if len(text) <= limit:
        assert head_and_tail(text, limit) == text


def test_head_and_tail_says_how_much_it_leaves_out():
    text = "".join(f"line {number}\n" for number in range(10_000)) + "ValueError: the cause"
    excerpt = head_and_tail(text, 1_000)
    head, _, tail = excerpt.partition("\n[… ")
    left_out, _, tail = tail.partition(" characters left out …]\n")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert tail.endswith("ValueError: the cause")
    assert len(head) < len(tail)
    assert int(left_out.replace(",", "")) == len(text) - len(head) - len(tail)


@pytest.mark.timeout(60)  # each takes a fraction of a second; quadratic time would be an hour
@pytest.mark.parametrize(
    "text",
    [
        "x" * 2_000_000,
        "\x1b" * 2_000_000,
        "\x1b[" * 1_000_000,
        "\x1b[" + "1;" * 1_000_000,
        "y" * 1_000_000 + "\rx" * 500_000,
        "\r\x1b[K" * 500_000,
        "\r" * 2_000_000,
        "\n" * 2_000_000,
        "a\x00" * 1_000_000,
    ],
    ids=["long", "escapes", "sequences", "colour", "drawn over", "erased", "returns", "breaks", "binary"],
)
def test_hostile_megabytes_take_linear_time(text):
    assert len(safe_line(text, 100)) <= 100
