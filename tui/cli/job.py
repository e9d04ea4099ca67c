"""`pilothouse job`: what runs, what ran, and what is left of it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

import runner_core
from tui.cli.invocation import Group, Invocation, json_option, pass_invocation, print_json, terminal_width
from tui.cli.job_logs import logs, show_bytes
from tui.cli.job_text import all_units, job_lines, name_of, tasks_done, units_done
from tui.cli.layout import counted, elapsed, file_size, local_time, table
from tui.cli.progress import counting

Json = dict[str, Any]

_SHOWN_ON_TERMINAL = 30

job_argument = click.argument("job_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))


@click.group("job", cls=Group)
def command() -> None:
    """Look at jobs, their logs and files, and stop them."""


command.add_command(logs)


@command.command("list")
@click.option("--status", type=click.Choice(["submitted", "done", "failed"]), help="Only jobs of this status.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N. On a terminal: 30.")
@json_option
@pass_invocation
def list_(invocation: Invocation, *, status: str | None, limit: int | None, as_json: bool) -> None:
    """List the jobs, newest first."""
    invocation.settle()
    shortened = limit is None and not as_json and sys.stdout.isatty()
    if shortened:
        limit = _SHOWN_ON_TERMINAL + 1
    wanted = runner_core.JobStatus(status) if status else None
    jobs = runner_core.list_jobs(invocation.settings, status=wanted, limit=limit)
    if as_json:
        print_json(jobs)
    elif jobs:
        shown = jobs[:_SHOWN_ON_TERMINAL] if shortened else jobs
        invocation.say(*jobs_table(shown, arrow=invocation.arrow))
        if len(jobs) > len(shown):
            invocation.note("… and older ones; --limit N shows more")
    else:
        invocation.say("there is no such job" if status else "there is no job yet; `pilothouse run --help` tells how")


def jobs_table(jobs: list[Json], *, arrow: str) -> list[str]:
    """Jobs in a table."""
    now = datetime.now(UTC)
    rows = []
    for job in jobs:
        units = all_units(job)
        rows.append(
            (
                job["id"],
                job["phase"],
                name_of(job, arrow=arrow),
                tasks_done(job),
                units_done(units) if units["total"] else "",
                local_time(job["start_timestamp"]),
                elapsed(job["start_timestamp"], job["end_timestamp"], now=now),
            )
        )
    headings = ("ID", "STATE", f"WORKFLOW {arrow} DATASET", "TASKS", "UNITS", "STARTED", "TOOK")
    return table(headings, rows, width=terminal_width())


@command.command("show")
@job_argument
@json_option
@pass_invocation
def show(invocation: Invocation, *, job_id: int, as_json: bool) -> None:
    """Show how far a job is, or why it failed."""
    invocation.settle()
    print_job(invocation, runner_core.show_job(invocation.settings, job_id), as_json=as_json)


def print_job(invocation: Invocation, job: Json, *, as_json: bool) -> None:
    """Print the document of a job, or what it says in words."""
    if as_json:
        print_json(job)
    else:
        now = datetime.now(UTC)
        invocation.say(*job_lines(job, now=now, arrow=invocation.arrow, width=terminal_width()))


@command.command("stop")
@job_argument
@pass_invocation
def stop(invocation: Invocation, *, job_id: int) -> None:
    """Stop a job that runs. What its finished tasks made stays in the dataset."""
    invocation.require_writing()
    runner_core.stop_job(invocation.settings, job_id)
    phase = runner_core.show_job(invocation.settings, job_id)["phase"]
    invocation.say(f"job {job_id} is {phase}; `pilothouse job show {job_id}` tells more")


@command.command("files")
@job_argument
@json_option
@pass_invocation
def files(invocation: Invocation, *, job_id: int, as_json: bool) -> None:
    """List the files of a job, live or zipped."""
    with runner_core.open_job_files(invocation.settings, job_id) as opened:
        entries = opened.entries()
        invocation.note(*(f"warning: {runner_core.safe_line(problem)}" for problem in opened.problems))
    if as_json:
        print_json(
            [
                {"path": entry.path, "size": entry.size, "modified": entry.modified and entry.modified.isoformat()}
                for entry in entries
            ]
        )
        return
    rows = [
        (
            file_size(entry.size),
            local_time(entry.modified.isoformat()) if entry.modified else "",
            runner_core.safe_line(entry.path),
        )
        for entry in entries
    ]
    invocation.say(*table(("SIZE", "CHANGED", "PATH"), rows))


@command.command("cat")
@job_argument
@click.argument("path")
@pass_invocation
def cat(invocation: Invocation, *, job_id: int, path: str) -> None:
    """Print a file of a job.

    Byte for byte into a pipe or a file, made safe on a terminal.
    """
    with runner_core.open_job_files(invocation.settings, job_id) as opened:
        show_bytes(opened.stream(path))


@command.command("export")
@job_argument
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--trust-size", is_flag=True, help="Unpack a zip even if it claims to become implausibly large.")
@pass_invocation
def export(invocation: Invocation, *, job_id: int, folder: str, trust_size: bool) -> None:
    """Copy all files of a job into a folder."""
    invocation.require_writing()
    with (
        runner_core.open_job_files(invocation.settings, job_id) as opened,
        counting(invocation, f"Exporting job {job_id}") as report,
    ):
        count = opened.export(Path(folder), trust_size=trust_size, report=report)
    invocation.say(f"exported {counted(count, 'file')} to {runner_core.safe_line(folder)}")
