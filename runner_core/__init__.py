"""The runner: workflows of Fractal tasks over datasets of OME-Zarr images, without a server.

This package is the one door; everything outside imports these names from here and no submodule.

    door ─ job row ─ runner process ─ submit_workflow ─ engine ─ backend ─ worker beside the task
                                           │               │                     │
                                         store ◄─── image list, history ◄─── result file
                                           │               │
                                          zip ◄─────── job folder, journal

A pure *engine* decides (`engine`, `images`, `task_io`, `history`, `failures`), a *backend* executes (`backends`,
`worker`), a *journal* remembers (`journal`, `job_folder`), a *store* shows (`store`, `documents`). `jobs` launches and
stops, `lease` says who drives, `catalog` holds task packages and workflows. Names are loaded when they are first used,
so that asking for help costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner_core.failures import (
        BadInput,
        JobExecutionError,
        NotFound,
        OutOfReach,
        PilothouseError,
        Refused,
        TaskExecutionError,
    )
    from runner_core.jobs import (
        JobRequest,
        create_job,
        launch_job,
        settle_gone_jobs,
        start_runner,
        stop_job,
    )
    from runner_core.settings import Profile, Settings, UserSettings, read_settings
    from runner_core.submission import submit_workflow

__version__ = "0.1.0"

_ROOM_OF = {
    "BadInput": "failures",
    "JobExecutionError": "failures",
    "JobRequest": "jobs",
    "NotFound": "failures",
    "OutOfReach": "failures",
    "PilothouseError": "failures",
    "Profile": "settings",
    "Refused": "failures",
    "Settings": "settings",
    "TaskExecutionError": "failures",
    "UserSettings": "settings",
    "create_job": "jobs",
    "launch_job": "jobs",
    "read_settings": "settings",
    "settle_gone_jobs": "jobs",
    "start_runner": "jobs",
    "stop_job": "jobs",
    "submit_workflow": "submission",
}

__all__ = [
    "BadInput",
    "JobExecutionError",
    "JobRequest",
    "NotFound",
    "OutOfReach",
    "PilothouseError",
    "Profile",
    "Refused",
    "Settings",
    "TaskExecutionError",
    "UserSettings",
    "create_job",
    "launch_job",
    "read_settings",
    "settle_gone_jobs",
    "start_runner",
    "stop_job",
    "submit_workflow",
]


def __getattr__(name: str) -> Any:
    """Load a name of the door from its room, the first time that it is asked for."""
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value
