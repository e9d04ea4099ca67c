"""`pilothouse job logs`: the log of a job or of its units, whole or while it grows."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

import runner_core
from tui.cli.invocation import Command, Invocation, pass_invocation

Json = dict[str, Any]


@click.command("logs", cls=Command)
@click.argument("job_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--task", "order", type=click.IntRange(min=0), metavar="ORDER", help="The task at this position.")
@click.option("--unit", type=click.IntRange(min=0), metavar="N", help="This unit of the task alone.")
@click.option("--slurm", is_flag=True, help="What Slurm itself logged.")
@pass_invocation
def logs(
    invocation: Invocation, *, job_id: int, follow: bool, order: int | None, unit: int | None, slurm: bool
) -> None:
    """Print the log of a job or of its units.

    Without --task this is the job's own log; with it, what the units of that task printed. Of several units each has a
    heading, and those that failed come first. On a terminal, what could harm it is spelled out; into a pipe or a file
    the bytes go as they are.
    """
    if unit is not None and order is None:
        raise click.UsageError("--unit needs --task")
    invocation.settle()
    job = runner_core.show_job(invocation.settings, job_id)
    if slurm:
        backend = runner_core.safe_line(job["backend"])
        raise runner_core.Refused(f"job {job_id} ran on the backend {backend!r}, it has no Slurm logs")
    if follow and job["status"] == "submitted":
        name = runner_core.WORKFLOW_LOG if order is None else _only_log(invocation, job_id, order=order, unit=unit)
        show_bytes(_followed(invocation, job_id, name))
    elif order is None:
        show_bytes(_workflow_log(invocation, job))
    else:
        with runner_core.open_job_files(invocation.settings, job_id) as files:
            _show_units(files, runner_core.unit_logs(files, order, unit=unit))


def _workflow_log(invocation: Invocation, job: Json) -> Iterator[bytes]:
    """The job's own log from its files; from the store, where there are none, as when it failed before it began."""
    try:
        with runner_core.open_job_files(invocation.settings, job["id"]) as files:
            yield from files.stream(runner_core.WORKFLOW_LOG)
    except (runner_core.NotFound, runner_core.Refused):
        yield (job["log"] or "").encode()


def _show_units(files: runner_core.JobFiles, found: list[runner_core.UnitLog]) -> None:
    for log in found:
        if len(found) > 1:
            state = " (failed)" if log.state == runner_core.TaskState.FAILED else ""
            click.echo(f"==> {runner_core.safe_line(log.path)}{state} <==")
        show_bytes(files.stream(log.path))


def _only_log(invocation: Invocation, job_id: int, *, order: int, unit: int | None) -> str:
    with runner_core.open_job_files(invocation.settings, job_id) as files:
        found = runner_core.unit_logs(files, order, unit=unit)
    if len(found) > 1:
        raise runner_core.BadInput(f"task {order} has {len(found)} logs", hint="say which to follow, with --unit N")
    return found[0].path


def _followed(invocation: Invocation, job_id: int, name: str) -> Iterator[bytes]:
    """The bytes of a log as it grows, until the job has ended; from the zip if its folder was too quick."""

    def is_over() -> bool:
        invocation.settle()
        return bool(runner_core.show_job(invocation.settings, job_id)["status"] != "submitted")

    path = runner_core.job_folder_path(invocation.settings, job_id) / name
    seen = False
    for chunk in runner_core.follow_file(path, is_over=is_over):
        seen = True
        yield chunk
    if not seen:
        with runner_core.open_job_files(invocation.settings, job_id) as files:
            yield from files.stream(name)


def show_bytes(chunks: Iterable[bytes]) -> None:
    """Print bytes: as they are into a pipe or a file; on a terminal as lines that can do no harm."""
    if not sys.stdout.isatty():
        for chunk in chunks:
            click.echo(chunk, nl=False)
        return
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    begun = ""
    for chunk in chunks:
        lines, newline, begun = (begun + decoder.decode(chunk)).rpartition("\n")
        if newline:
            click.echo(runner_core.safe_text(lines))
    begun += decoder.decode(b"", final=True)
    if begun:
        click.echo(runner_core.safe_text(begun))
