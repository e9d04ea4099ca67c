"""Reads a worker's result file while it grows."""

from __future__ import annotations

import json
import os
from pathlib import Path

from runner_core.backends.base import BatchNews
from runner_core.model import Json, UnitResult

_CHUNK = 16 * 1024 * 1024  # bytes of result lines handled per poll, so that a long backlog does not fill the memory


class ResultReader:
    """Gives the lines that came since the last reading; a line that is not whole yet waits for the next.

    Lines of another batch or attempt are passed over: `begin` says whose the lines after it are.
    """

    def __init__(self, path: Path, *, key: str, attempt: int) -> None:
        self._path = path
        self._offset = 0  # the end of the last whole line that was read
        self._seen = 0  # the end of what was read: a torn line, of a worker that was killed, may follow
        self._key = key
        self._attempt = attempt
        self._ours = False
        self._ended: str | None = None
        self.worker_pid: int | None = None
        self.worker_host: str | None = None

    def read_new(self) -> BatchNews:
        """Read what came since the last call; there may be more when the file is far ahead.

        How the batch ended is told by every call from then on.
        """
        lines = self._new_lines()
        started: list[int] = []
        results: list[UnitResult] = []
        notes: list[str] = []
        for line in lines:
            try:
                event = json.loads(line)
                kind = event["event"]
                if kind == "begin":
                    self._begin(event)
                elif not self._ours:
                    continue
                elif kind == "start":
                    started.append(int(event["unit"]))
                elif kind == "end":
                    results.append(_result(event, attempt=self._attempt, host=self.worker_host))
                elif kind == "note":
                    notes.append(str(event["text"]))
                elif kind == "finish":
                    self._ended = str(event["reason"])
            except (ValueError, TypeError, KeyError, RecursionError):  # tasks can write into this folder, too
                notes.append(f"a line of {self._path.name} cannot be read and was passed over")
        return BatchNews(tuple(started), tuple(results), tuple(notes), self._ended)

    def _begin(self, event: Json) -> None:
        self._ours = event["key"] == self._key and event["attempt"] == self._attempt
        if self._ours:
            self.worker_pid, self.worker_host = event["pid"], event["host"]

    def _new_lines(self) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_CHUNK)
                while b"\n" not in data and (more := file.read(_CHUNK)):
                    data += more
        except FileNotFoundError:
            return []
        self._seen = self._offset + len(data)
        whole, newline, _ = data.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return whole.split(b"\n") if newline else []

    def has_more(self) -> bool:
        """Whether the file holds bytes that were not read yet."""
        try:
            return os.stat(self._path).st_size > self._seen  # noqa: PTH116 - asked in a loop
        except FileNotFoundError:
            return False


def _result(event: Json, *, attempt: int, host: str | None) -> UnitResult:
    return UnitResult(
        index=int(event["unit"]),
        attempt=attempt,
        returncode=event["returncode"],
        output=event["output"],
        problem=event["problem"],
        started=event["started"],
        ended=event["ended"],
        cpu=event.get("cpu"),
        memory=event.get("memory"),
        host=host,
    )
