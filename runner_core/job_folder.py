"""The job folder: the only place that knows file names, and the one that writes files whole.

proj_v2_0000001_wf_0000002_job_0000003_20260131_235959/     rows S4, O3, T13 and "File names" of the reference
    workflow.log  history.json  filters.json  images.json  shutdown
    events.jsonl                                            the journal
    0_project_image/                                        one folder per task in range
        0.args.json  0.metadiff.json  0.log                 the non-parallel unit
        0_par_0000012.args.json ...                         the units of the parallel part
        0.plan.json  0_batch_000000.plan.json               what a worker is told to do
        0.results.jsonl  0_batch_000000.results.jsonl       how its units ended
"""

from __future__ import annotations

import contextlib
import json
import os
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from runner_core.failures import JobExecutionError
from runner_core.model import FailureKind

PROJECT_ID = 1  # the reference's folders begin with a project; here there is one
_SLUG_BYTES = 200  # a file name holds 255 bytes, and the order takes some of them
_REPLACED = str.maketrans(dict.fromkeys(string.punctuation + string.whitespace, "_"))


def job_folder_name(*, workflow_id: int, job_id: int, created: datetime) -> str:
    """Name the folder of a job (S4); `created` is aware, and told in UTC."""
    stamp = created.astimezone(UTC).strftime("%Y%m%d_%H%M%S")
    return f"proj_v2_{PROJECT_ID:07d}_wf_{workflow_id:07d}_job_{job_id:07d}_{stamp}"


def task_folder_name(order: int, task_name: str) -> str:
    """Name the subfolder of a task (O3): whatever the task is called, one plain file name."""
    slug = "".join(c if c.isprintable() else "_" for c in task_name.lower().translate(_REPLACED))
    return f"{order}_{slug.encode()[:_SLUG_BYTES].decode(errors='ignore')}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a private file whole: a reader sees the old content or the new, also after a crash."""
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write private files whole, each as `write_atomically` does.

    All are on disk before the first takes its name: a disk that is full changes none of them, and a crash finds them
    out of step only if it falls between two renames.
    """
    beside = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, data in files.items():
            with open(beside[path], "wb", opener=_private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, new in beside.items():
            new.replace(path)
    except BaseException:
        for new in beside.values():
            new.unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in files}:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@dataclass(frozen=True, slots=True)
class UnitFiles:
    """The names of one unit's files, relative to its task's folder."""

    name: str

    @classmethod
    def non_parallel(cls, order: int) -> UnitFiles:
        """Name the unit of a non-parallel task, or the planning unit of a compound one."""
        return cls(f"{order}")

    @classmethod
    def parallel(cls, order: int, index: int) -> UnitFiles:
        """Name the unit of one image or planned item."""
        return cls(f"{order}_par_{index:07d}")

    @property
    def log(self) -> str:
        """What the unit printed, standard output and standard error."""
        return f"{self.name}.log"


@dataclass(frozen=True, slots=True)
class BatchFiles:
    """The names of one batch's files, relative to its task's folder; `name` is also a part of its key."""

    name: str

    @classmethod
    def non_parallel(cls, order: int) -> BatchFiles:
        """Name the batch that holds the one non-parallel unit."""
        return cls(f"{order}")

    @classmethod
    def parallel(cls, order: int, number: int) -> BatchFiles:
        """Name one batch of the parallel part."""
        return cls(f"{order}_batch_{number:06d}")

    @property
    def plan(self) -> str:
        """What the worker is told to do."""
        return f"{self.name}.plan.json"

    @property
    def results(self) -> str:
        """How its units ended, as the worker writes it."""
        return f"{self.name}.results.jsonl"

    @property
    def worker_log(self) -> str:
        """What the worker itself printed: nothing, unless it failed."""
        return f"{self.name}.worker.log"


class JobFolder:
    """One job's folder on this host, and the folder of the same name on the user's side."""

    def __init__(self, path: Path, *, user_path: Path | None = None) -> None:
        self.path = path
        self.user_path = user_path or path

    @property
    def workflow_log(self) -> Path:
        """The job's own log."""
        return self.path / "workflow.log"

    @property
    def journal(self) -> Path:
        """The events of the run."""
        return self.path / "events.jsonl"

    @property
    def shutdown(self) -> Path:
        """The file that asks the job to stop (X1)."""
        return self.path / "shutdown"

    @property
    def early_stop(self) -> Path:
        """The same request, made before the folder exists."""
        return self.path.with_name(f"{self.path.name}.stop")

    @property
    def archive(self) -> Path:
        """The zip that takes the folder's place (Z1)."""
        return self.path.with_name(f"{self.path.name}.zip")

    def task_folder(self, order: int, task_name: str) -> Path:
        """Where a task's files go, on the user's side."""
        return self.user_path / task_folder_name(order, task_name)

    def create(self, tasks: Iterable[tuple[int, str]]) -> None:
        """Make the folder and one subfolder per task, private to their owner (O2, O3).

        Raises `FileExistsError` for a folder that exists already, and `OSError` as it comes.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            raise FileExistsError(f"the job folder already exists: {self.path}") from None
        for order, name in tasks:
            self.task_folder(order, name).mkdir(mode=0o700)

    def stop_requested(self) -> bool:
        """Whether an operator asked this job to stop, at whatever time."""
        return self.shutdown.exists() or self.early_stop.exists()

    def request_stop(self) -> None:
        """Ask the job to stop.

        The request beside the folder comes first, and stays where there is no folder yet, or no longer: a runner that
        makes the folder at this moment looks in both places.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.early_stop.touch(mode=0o600)
        with contextlib.suppress(FileNotFoundError):
            self.shutdown.touch(mode=0o600)
            self.early_stop.unlink(missing_ok=True)

    def write_state(self, *, history: list[Any], filters: Any, images: list[Any]) -> None:
        """Rewrite `history.json`, `filters.json` and `images.json` (T13).

        The history takes its name last: it tells how many tasks are done.
        """
        values = {"images": images, "filters": filters, "history": history}
        write_together({self.path / f"{name}.json": _indented_json(value) for name, value in values.items()})

    def read_state(self, name: str) -> Any | None:
        """What `write_state` wrote under that name; `None` when there is no such file (yet)."""
        try:
            return json.loads((self.path / f"{name}.json").read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise JobExecutionError(
                f"{self.path / name}.json is not valid JSON ({error})", kind=FailureKind.INTERNAL
            ) from None


def _indented_json(value: Any) -> bytes:
    try:
        return to_json(value, indent=2, inf_nan_mode="constants")
    except PydanticSerializationError:  # half a surrogate pair, as in a file name that is not UTF-8
        return json.dumps(value, indent=2).encode()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_excerpt(path: Path, limit: int) -> str | None:
    """Read a foreign text file: all of it, or its beginning and its end when it is longer than `limit` bytes.

    Whatever the bytes are, the result is valid Unicode without NUL characters (databases refuse those). `None` when
    there is no such file. A pipe in its place is not waited for.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= limit:
                data = file.read(limit)
            else:
                head = file.read(limit // 4)
                file.seek(size - (limit - limit // 4))
                left_out = size - limit
                data = head + f"\n... {left_out:,} bytes left out ...\n".encode() + file.read(limit)
    except OSError:
        return None
    return data.decode("utf-8", "replace").replace("\0", "\\0")
