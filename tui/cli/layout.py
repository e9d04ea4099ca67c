"""Text for people: tables, times, sizes and states as lines. Pure, but for `style` of click."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

import click

_GAP = "  "
_NARROWEST = 8  # columns that a shortened cell keeps

_COLOURS = {
    "queued": "blue",
    "running": "cyan",
    "stopping": "yellow",
    "stopped": "yellow",
    "done": "green",
    "failed": "red",
    "runner gone": "red",
    "no contact": "magenta",
    "submitted": "cyan",
    "pending": "bright_black",
    "ok": "green",
    "warning": "yellow",
    "problem": "red",
}


def coloured(word: str, *, padded: str | None = None) -> str:
    """A state in its colour; `padded` is what is printed for it."""
    colour = _COLOURS.get(word)
    return click.style(padded or word, fg=colour) if colour else padded or word


def heading(text: str) -> str:
    """A line above a part of the output."""
    return click.style(text, bold=True)


@lru_cache(maxsize=4096)
def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes; it holds no control characters."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fitted(text: str, width: int) -> str:
    """The text in exactly `width` columns: filled up with spaces, or cut with an ellipsis."""
    missing = width - columns_of(text)
    if missing >= 0:
        return text + " " * missing
    kept, used = "", 0
    for character in text:
        used += columns_of(character)
        if used > width - 1:
            break
        kept += character
    return fitted(f"{kept}…", width)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, width: int | None = None) -> list[str]:
    """Rows under headings, in lines of at most `width` columns (any, without one).

    Numbers stand to the right. The widest columns are shortened first. What stands under `STATE` gets its colour.
    """
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    widths = [max(map(columns_of, column)) for column in zip(headings, *cells, strict=True)]
    if width is not None:
        widths = _shrunk(widths, width - len(_GAP) * (len(widths) - 1))
    numeric = [
        bool(rows) and all(isinstance(row[i], int) or row[i] is None for row in rows) for i in range(len(widths))
    ]
    lines = [heading(_GAP.join(_placed(headings, widths, numeric)).rstrip())]
    for row in cells:
        placed = _placed(row, widths, numeric)
        if "STATE" in headings:
            at = headings.index("STATE")
            placed[at] = coloured(row[at], padded=placed[at])
        lines.append(_GAP.join(placed).rstrip())
    return lines


def _placed(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    return [
        cell.rjust(width) if is_number else fitted(cell, width)
        for cell, width, is_number in zip(cells, widths, numeric, strict=True)
    ]


def _shrunk(widths: list[int], room: int) -> list[int]:
    """The widths cut down to fit, the widest first, none below what can still be read."""
    widths = list(widths)
    while sum(widths) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def duration(seconds: float) -> str:
    """A span of time in its two largest units: `3s`, `1m 02s`, `5h 07m`, `2d 03h`."""
    whole = max(0, round(seconds))
    for unit, smaller, size, step in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // step:02}{smaller}"
    return f"{whole}s"


def elapsed(started: str | None, ended: str | None, *, now: datetime | None = None) -> str:
    """The time between two moments in ISO 8601, or up to `now`; empty when either is not known."""
    until = datetime.fromisoformat(ended) if ended else now
    if started is None or until is None:
        return ""
    return duration((until - datetime.fromisoformat(started)).total_seconds())


def local_time(moment: str | None) -> str:
    """A moment in ISO 8601 as the clock on this host's wall shows it, to the second."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def file_size(count: int) -> str:
    """Bytes in a unit that people read: `312 B`, `4.1 kB`, `2.0 GB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 image`, `20,000 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
