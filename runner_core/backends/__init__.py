"""The registry of backends: a name, and how to make one."""

from __future__ import annotations

from dataclasses import replace

from runner_core.backends.base import Backend, Batch, BatchNews
from runner_core.backends.local import LocalBackend, LocalOptions
from runner_core.failures import JobExecutionError, quoted
from runner_core.model import FailureKind

__all__ = ["AVAILABLE", "Backend", "Batch", "BatchNews", "LocalOptions", "make_backend"]

AVAILABLE = ("local", "local_experimental")
"""The backends of this version."""


def make_backend(name: str, *, local: LocalOptions) -> Backend:
    """Make the backend of that name; raises `JobExecutionError` for a name that is not available."""
    match name:
        case "local":
            return LocalBackend(replace(local, warm_units=None))
        case "local_experimental":
            return LocalBackend(local)
    raise JobExecutionError(
        f"unknown backend {quoted(name)}",
        kind=FailureKind.SETUP,
        hint=f"set FRACTAL_RUNNER_BACKEND to one of: {', '.join(AVAILABLE)}",
    )
