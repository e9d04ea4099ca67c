r"""Makes foreign text safe for a terminal, and short enough for people.

Logs, file names and task outputs may hold anything: sequences that clear the screen, set its title or hide what
follows. What comes out of `safe_text` and `safe_line` can only be read. Colours are dropped, a line that was drawn
over with carriage returns is shown as it last stood, and every other character that is not seen is spelled out as in
a Python string (`\x1b`, `\u202e`). Everything here takes time linear in the text.
"""

from __future__ import annotations

import re
from functools import cache

LINE_LIMIT = 10_000
"""Longest line, in characters, that is shown in full."""

_COLOUR = re.compile(r"(?:\x1b\[|\x9b)[0-9;:]*m")
_ERASE_TO_END = re.compile(r"(?:\x1b\[|\x9b)[02]?K")

# Control, format (bidirectional, zero width, tags), line and paragraph separators, surrogates; and what Unicode lets
# a renderer ignore: fillers, joiners, variation selectors, reserved places among them. Newline and tab are not here.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad"
    r"\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff]"
)
_CUT_ROOM = 40  # characters that the note on a cut line may take
_GAP_ROOM = 60  # characters that the note between head and tail may take


def decode(data: bytes) -> str:
    """The text of a log's bytes: UTF-8, with U+FFFD for what is not."""
    return data.decode("utf-8", errors="replace")


def safe_text(text: str) -> str:
    """The text in lines that a terminal can only print; lines over `LINE_LIMIT` characters are cut, with a note."""
    text = _COLOUR.sub("", text)
    if "\r" in text:
        text = "\n".join([_as_last_drawn(line) for line in text.split("\n")])
    text = _UNSEEN.sub(lambda unseen: _spelling(unseen[0]), _ERASE_TO_END.sub("", text))
    if len(text) <= LINE_LIMIT:
        return text
    return "\n".join([_cut(line) for line in text.split("\n")])


def safe_line(text: str, width: int | None = None) -> str:
    r"""The text as one line of at most `width` characters (`LINE_LIMIT` without one).

    Line breaks inside are spelled out as `\n`, tabs become spaces; what was cut ends in an ellipsis.
    """
    line = safe_text(text).rstrip("\n").replace("\n", r"\n").replace("\t", "    ")
    limit = LINE_LIMIT if width is None else max(width, 0)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"[:limit]


def head_and_tail(text: str, limit: int) -> str:
    """At most `limit` characters: the first third, a note of how much was left out, and the end, where errors are."""
    if len(text) <= limit:
        return text
    room = limit - _GAP_ROOM
    if room <= 0:
        return text[: max(limit, 0)]
    head = text[: room // 3]
    tail = text[len(text) - (room - len(head)) :]
    return f"{head}\n[… {len(text) - room:,} characters left out …]\n{tail}"


def _as_last_drawn(line: str) -> str:
    """What a terminal shows after all carriage returns of the line: later text lies over earlier, column by column.

    Goes from the last drawing back, taking from each only the columns that later ones left free.
    """
    shown: list[str] = []
    columns = 0
    for drawing in reversed(line.split("\r")):
        printed = _ERASE_TO_END.sub("", drawing)
        if len(printed) > columns:
            shown.append(printed[columns:])
            columns = len(printed)
        if len(printed) < len(drawing):  # it erased what earlier drawings had to its right
            break
    return "".join(shown)


@cache
def _spelling(unseen: str) -> str:
    return unseen.encode("unicode_escape").decode("ascii")


def _cut(line: str) -> str:
    if len(line) <= LINE_LIMIT:
        return line
    kept = LINE_LIMIT - _CUT_ROOM
    return f"{line[:kept]}… [{len(line) - kept:,} more characters]"
