"""A job in words, from the document that `job show` prints. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import runner_core
from tui.cli.errors import ExitCode
from tui.cli.layout import coloured, elapsed, heading, local_time, table

Json = dict[str, Any]

_DETAIL_LINES = 15


def name_of(job: Json, *, arrow: str) -> str:
    """What the job runs, and on what."""
    workflow = runner_core.safe_line(job["workflow_name"] or "(deleted)")
    dataset = runner_core.safe_line(job["dataset_name"] or "(deleted)")
    return f"{workflow} {arrow} {dataset}"


def tasks_done(job: Json) -> str:
    """How many of the job's tasks are done."""
    done = sum(task["state"] == "done" for task in job["tasks"])
    return f"{done}/{job['last_task_index'] - job['first_task_index'] + 1}"


def units_done(units: dict[str, int]) -> str:
    """How many units are done, and how many failed."""
    failed = f" ({units['failed']:,} failed)" if units["failed"] else ""
    return f"{units['done']:,}/{units['total']:,}{failed}"


def all_units(job: Json) -> dict[str, int]:
    """The counts of all tasks together."""
    keys = ("total", "done", "failed", "running", "pending")
    return {key: sum(task["units"][key] for task in job["tasks"]) for key in keys}


def job_lines(job: Json, *, now: datetime, arrow: str, width: int | None) -> Iterator[str]:
    """All that a person wants to know of a job, and what to do next."""
    phase = job["phase"]
    since = f" since {local_time(job['phase_since'])}" if job["phase_since"] else ""
    title = heading(f"Job {job['id']}")
    yield f"{title}  {coloured(phase)}{since}  {name_of(job, arrow=arrow)}"
    profile = f" (profile {job['profile']})" if job["profile"] else ""
    backend = runner_core.safe_line(f"{job['backend']}{profile}")
    took = elapsed(job["start_timestamp"], job["end_timestamp"], now=now)
    ending = f"took {took}" if job["end_timestamp"] else f"for {took}"
    yield f"  backend {backend}, started {local_time(job['start_timestamp'])}, {ending}"
    yield from _failure_lines(job["failure"])
    yield ""
    yield from _task_table(job, now=now, width=width)
    yield ""
    yield from _place_lines(job)
    yield heading("Next")
    yield from (f"  {command}" for command in next_commands(job))


def _failure_lines(failure: Json | None) -> Iterator[str]:
    if failure is None:
        return
    yield ""
    yield heading("Why it ended" if failure["kind"] == "stopped" else "Why it failed")
    yield f"  {runner_core.safe_line(failure['headline'])}"
    if len(failure["counts"]) > 1:
        yield from (f"  {count:>8,}  {runner_core.safe_line(cause)}" for cause, count in failure["counts"].items())
    detail = runner_core.safe_text(failure["detail"]).strip()
    if detail and detail not in failure["headline"]:
        lines = detail.splitlines()
        yield from (f"    {line}" for line in lines[:_DETAIL_LINES])
        if len(lines) > _DETAIL_LINES:
            yield f"    … {len(lines) - _DETAIL_LINES} more lines"
    if failure["hint"]:
        yield f"  → {runner_core.safe_line(failure['hint'])}"


def _task_table(job: Json, *, now: datetime, width: int | None) -> list[str]:
    rows = [
        (
            task["order"],
            runner_core.safe_line(task["name"]),
            task["type"],
            task["state"],
            units_done(task["units"]) if task["units"]["total"] else "",
            task["units"]["running"] or None,
            elapsed(task["started"], task["ended"] or job["end_timestamp"], now=now),
        )
        for task in job["tasks"]
    ]
    return table(("#", "TASK", "TYPE", "STATE", "UNITS", "RUNNING", "TIME"), rows, width=width)


def _place_lines(job: Json) -> Iterator[str]:
    if job["archive"]:
        yield f"  files  {runner_core.safe_line(job['archive'])}"
    elif job["working_dir"]:
        being_zipped = job["status"] != "submitted" and job["runner"]["state"] == "alive"
        yield f"  files  {runner_core.safe_line(job['working_dir'])}{' (being zipped)' if being_zipped else ''}"


def next_commands(job: Json) -> Iterator[str]:
    """The commands that a person may want next."""
    job_id, failure = job["id"], job["failure"]
    if failure is not None and failure["task_order"] is not None and failure["unit"] is not None:
        yield f"pilothouse job logs {job_id} --task {failure['task_order']} --unit {failure['unit']}"
    if job["status"] == "submitted":
        yield f"pilothouse job logs {job_id} -f"
        yield f"pilothouse job stop {job_id}"
        return
    yield f"pilothouse job logs {job_id}"
    yield f"pilothouse job files {job_id}"
    if job["dataset_id"] is None or job["workflow_id"] is None:
        return
    if job["status"] == "done":
        yield f"pilothouse dataset show {job['dataset_id']}"
    elif failure is not None and failure["task_order"] is not None:
        span = f"--first {failure['task_order']} --last {job['last_task_index']}"
        yield f"pilothouse run {job['workflow_id']} {job['dataset_id']} {span} --wait"


def outcome_code(job: Json) -> ExitCode:
    """The exit code that says how a job ended."""
    if job["status"] == "done":
        return ExitCode.DONE
    return ExitCode.STOPPED if job["phase"] == "stopped" else ExitCode.JOB_FAILED
