"""Looking into an environment through its own interpreter: where a package is, and whether its tasks import."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner_core.catalog import preload, probe
from runner_core.catalog.child_process import NoAnswer, answer_of
from runner_core.catalog.installer import Report
from runner_core.failures import NotFound, Refused, quoted
from runner_core.text import safe_line

_PROBE_SECONDS = 60.0
_PRELOAD_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """A task package as its environment has it: `python` is `3.11`, `root` the folder that holds the manifest."""

    version: str
    python: str
    root: Path


def find_package(interpreter: Path, package: str) -> InstalledPackage:
    """Ask an interpreter where a package is, without importing it.

    Raises `NotFound` when it is not installed there, `Refused` when it is no task package or the interpreter does not
    answer.
    """
    answer = _ask(interpreter, package)
    if "error" in answer:
        raise NotFound(f"{package} is not installed in the environment of {quoted(interpreter)}")
    manifests = [Path(path) for path in answer["manifests"]]
    if len(manifests) > 1:
        manifests = [path for path in manifests if path.parent.name == package.replace("-", "_")]
    if not manifests:
        raise Refused(f"{package} {answer['version']} is not a task package: it has no {probe.MANIFEST_NAME}")
    return InstalledPackage(answer["version"], answer["python"], manifests[0].parent)


def _ask(interpreter: Path, package: str) -> dict[str, Any]:
    try:
        return answer_of([str(interpreter), "-I", probe.__file__, package], seconds=_PROBE_SECONDS)
    except NoAnswer as why:
        raise Refused(f"{quoted(interpreter)} is not a working Python: {why}") from None


def preload_scripts(interpreter: Path, scripts: Iterable[Path], *, report: Report) -> None:
    """Import what tasks import, once, so that its bytecode is there when they run; report what cannot be imported.

    Compiling whole environments takes four times as long. Tasks that find no bytecode pay seconds for it: where they
    run as another user, or with PYTHONDONTWRITEBYTECODE, every single time.
    """
    names = sorted({str(script) for script in scripts})
    try:
        problems = answer_of([str(interpreter), "-I", preload.__file__, *names], seconds=_PRELOAD_SECONDS)
    except NoAnswer as why:
        report(f"warning: the tasks could not be imported beforehand: {why}")
        return
    for script, problem in problems.items():
        report(f"warning: {Path(script).name} cannot be imported here: {safe_line(str(problem), 300)}")
