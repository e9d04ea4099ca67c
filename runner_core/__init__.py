"""The runner: workflows of Fractal tasks over datasets of OME-Zarr images, without a server.

This package is the one door; everything outside imports these names from here and no submodule.

    door ─ job row ─ runner process ─ submit_workflow ─ engine ─ backend ─ worker beside the task
                                           │               │                     │
                                         store ◄─── image list, history ◄─── result file
                                           │               │
                                          zip ◄─────── job folder, journal

A pure *engine* decides (`engine`, `images`, `task_io`, `history`, `failures`), a *backend* executes (`backends`,
`worker`), a *journal* remembers (`journal`, `job_folder`), a *store* shows (`store`, `documents`). `jobs` launches and
stops, `lease` says who drives, `settlement` concludes what a dead runner left, `catalog` holds task packages and
workflows. Names are loaded when they are first used, so that asking for help costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner_core.catalog_door import (
        collect_tasks,
        create_dataset,
        delete_dataset,
        delete_workflow,
        export_dataset,
        export_workflow,
        import_workflow,
        register_tasks,
        remove_tasks,
        scan_into_dataset,
    )
    from runner_core.demo import Measurements, measurements
    from runner_core.demo_preparation import Demo, prepare_demo
    from runner_core.doctor import Finding, Health, examine_installation
    from runner_core.documents import (
        is_any_job_submitted,
        list_datasets,
        list_jobs,
        list_packages,
        list_tasks,
        list_workflows,
        show_dataset,
        show_job,
        show_workflow,
        store_exists,
        workflow_statuses,
    )
    from runner_core.failures import (
        BadInput,
        JobExecutionError,
        NotFound,
        OutOfReach,
        PilothouseError,
        Refused,
        TaskExecutionError,
    )
    from runner_core.file_sources import FileEntry
    from runner_core.job_files import JobFiles
    from runner_core.job_reading import WORKFLOW_LOG, UnitLog, follow_file, job_folder_path, open_job_files, unit_logs
    from runner_core.jobs import JobRequest, create_job, launch_job, start_runner, stop_job
    from runner_core.launch_check import check_launch
    from runner_core.model import JobStatus, Phase, TaskState
    from runner_core.settings import Profile, Settings, UserSettings, read_settings
    from runner_core.settlement import settle_gone_jobs
    from runner_core.submission import submit_workflow
    from runner_core.text import safe_line, safe_text

__version__ = "0.1.0"

_ROOM_OF = {
    "BadInput": "failures",
    "Demo": "demo_preparation",
    "FileEntry": "file_sources",
    "Finding": "doctor",
    "Health": "doctor",
    "JobExecutionError": "failures",
    "JobFiles": "job_files",
    "JobRequest": "jobs",
    "JobStatus": "model",
    "Measurements": "demo",
    "NotFound": "failures",
    "OutOfReach": "failures",
    "Phase": "model",
    "PilothouseError": "failures",
    "Profile": "settings",
    "Refused": "failures",
    "Settings": "settings",
    "TaskExecutionError": "failures",
    "TaskState": "model",
    "UnitLog": "job_reading",
    "UserSettings": "settings",
    "WORKFLOW_LOG": "job_reading",
    "check_launch": "launch_check",
    "collect_tasks": "catalog_door",
    "create_dataset": "catalog_door",
    "create_job": "jobs",
    "delete_dataset": "catalog_door",
    "delete_workflow": "catalog_door",
    "examine_installation": "doctor",
    "export_dataset": "catalog_door",
    "export_workflow": "catalog_door",
    "follow_file": "job_reading",
    "import_workflow": "catalog_door",
    "is_any_job_submitted": "documents",
    "job_folder_path": "job_reading",
    "launch_job": "jobs",
    "list_datasets": "documents",
    "list_jobs": "documents",
    "list_packages": "documents",
    "list_tasks": "documents",
    "list_workflows": "documents",
    "measurements": "demo",
    "open_job_files": "job_reading",
    "prepare_demo": "demo_preparation",
    "read_settings": "settings",
    "register_tasks": "catalog_door",
    "remove_tasks": "catalog_door",
    "safe_line": "text",
    "safe_text": "text",
    "scan_into_dataset": "catalog_door",
    "settle_gone_jobs": "settlement",
    "show_dataset": "documents",
    "show_job": "documents",
    "show_workflow": "documents",
    "start_runner": "jobs",
    "stop_job": "jobs",
    "store_exists": "documents",
    "submit_workflow": "submission",
    "unit_logs": "job_reading",
    "workflow_statuses": "documents",
}

__all__ = [
    "WORKFLOW_LOG",
    "BadInput",
    "Demo",
    "FileEntry",
    "Finding",
    "Health",
    "JobExecutionError",
    "JobFiles",
    "JobRequest",
    "JobStatus",
    "Measurements",
    "NotFound",
    "OutOfReach",
    "Phase",
    "PilothouseError",
    "Profile",
    "Refused",
    "Settings",
    "TaskExecutionError",
    "TaskState",
    "UnitLog",
    "UserSettings",
    "check_launch",
    "collect_tasks",
    "create_dataset",
    "create_job",
    "delete_dataset",
    "delete_workflow",
    "examine_installation",
    "export_dataset",
    "export_workflow",
    "follow_file",
    "import_workflow",
    "is_any_job_submitted",
    "job_folder_path",
    "launch_job",
    "list_datasets",
    "list_jobs",
    "list_packages",
    "list_tasks",
    "list_workflows",
    "measurements",
    "open_job_files",
    "prepare_demo",
    "read_settings",
    "register_tasks",
    "remove_tasks",
    "safe_line",
    "safe_text",
    "scan_into_dataset",
    "settle_gone_jobs",
    "show_dataset",
    "show_job",
    "show_workflow",
    "start_runner",
    "stop_job",
    "store_exists",
    "submit_workflow",
    "unit_logs",
    "workflow_statuses",
]


def __getattr__(name: str) -> Any:
    """Load a name of the door from its room, the first time that it is asked for."""
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value
