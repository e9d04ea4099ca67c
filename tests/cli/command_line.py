"""A command line to test: how it is called, what it answers, and a store that is set up through it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "tui"]
"""The command, as a process of its own."""


@dataclass(frozen=True)
class Answer:
    """What a command line answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Answer]


def document(*steps: dict[str, Any], name: str = "toys") -> dict[str, Any]:
    """A workflow document; each step is `{"task": name, **fields}`, of the toy package."""
    task_list = []
    for step in steps:
        task = {"pkg_name": "toy-tasks", "version": "1.0", "name": step["task"]}
        task_list.append({**step, "task": task})
    return {"name": name, "task_list": task_list}


@dataclass(frozen=True)
class Stage:
    """A workflow and a dataset in the store, ready to run."""

    cli: Cli
    zarr_dir: Path

    def workflow(self, *steps: dict[str, Any], name: str = "toys") -> int:
        text = json.dumps(document(*steps, name=name)).encode()
        answer = self.cli("workflow", "import", "-", "--json", stdin=text)
        assert answer.code == 0, answer.err
        return answer.json["id"]

    def dataset(self, images: int = 3, *, name: str = "images", **types: bool) -> int:
        listed = [{"zarr_url": f"{self.zarr_dir}/{n}", "types": types} for n in range(images)]
        answer = self.cli(
            "dataset", "create", name, "--zarr-dir", self.zarr_dir, "--images", "-", "--json",
            stdin=json.dumps(listed).encode(),
        )  # fmt: skip
        assert answer.code == 0, answer.err
        return answer.json["id"]

    def run(self, *steps: dict[str, Any], images: int = 3) -> dict[str, Any]:
        """Run a workflow of these steps to its end; returns the job's document."""
        answer = self.cli("run", self.workflow(*steps), self.dataset(images), "--wait", "--json")
        return answer.json


def until(happened: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
