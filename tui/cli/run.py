"""`pilothouse run`: launch a job, or check what would become of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

import runner_core
from tui.cli.errors import ExitCode
from tui.cli.files import read_input
from tui.cli.invocation import Command, Invocation, json_option, pass_invocation, print_json
from tui.cli.job import print_job
from tui.cli.job_text import name_of, next_commands, outcome_code
from tui.cli.layout import counted, heading
from tui.cli.progress import follow_job

Json = dict[str, Any]


@click.command("run", cls=Command)
@click.argument("workflow")
@click.argument("dataset")
@click.option("--first", type=int, metavar="N", help="Position of the first task to run, from 0.")
@click.option("--last", type=int, metavar="N", help="Position of the last task to run.")
@click.option("--backend", metavar="NAME", help="How to run it: local, local_experimental.")
@click.option("--profile", metavar="P", help="A profile of config.toml, instead of a backend.")
@click.option("--slurm-account", metavar="A", help="One of the profile's Slurm accounts.")
@click.option(
    "--worker-init", metavar="FILE", type=click.Path(), help="Lines for Slurm's submission script (- for stdin)."
)
@click.option("--check", is_flag=True, help="Launch nothing; say what would become of the job.")
@click.option("--wait", is_flag=True, help="Follow the job to its end; exit as it ended.")
@json_option
@pass_invocation
@click.pass_context
def command(
    context: click.Context,
    invocation: Invocation,
    *,
    workflow: str,
    dataset: str,
    first: int | None,
    last: int | None,
    backend: str | None,
    profile: str | None,
    slurm_account: str | None,
    worker_init: str | None,
    check: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Run a WORKFLOW over a DATASET, each given by id or name.

    The job has a process of its own: it goes on when this command or the terminal ends.
    """
    if backend is not None and profile is not None:
        raise click.UsageError("give --backend or --profile, not both")
    request = runner_core.JobRequest(
        workflow=workflow,
        dataset=dataset,
        first_task_index=first,
        last_task_index=last,
        backend=backend,
        profile=profile,
        slurm_account=slurm_account,
        worker_init=_text_of(worker_init) if worker_init is not None else None,
    )
    if check:
        context.exit(_check(invocation, request, as_json=as_json))
    invocation.require_writing()
    job_id = runner_core.launch_job(invocation.settings, request)
    if wait:
        job = follow_job(invocation, job_id)
        print_job(invocation, job, as_json=as_json)
        context.exit(outcome_code(job))
    job = runner_core.show_job(invocation.settings, job_id)
    if as_json:
        print_json(job)
        return
    invocation.say(f"job {job_id} is launched: {name_of(job, arrow=invocation.arrow)}")
    invocation.say(f"  pilothouse job show {job_id}", *(f"  {line}" for line in next_commands(job)))


def _text_of(file: str) -> str:
    try:
        return read_input(file).decode()
    except UnicodeDecodeError:
        raise runner_core.BadInput(f"{file[:300]!r} is not UTF-8 text") from None


def _check(invocation: Invocation, request: runner_core.JobRequest, *, as_json: bool) -> ExitCode:
    invocation.settle()
    found = runner_core.check_launch(invocation.settings, request)
    if as_json:
        print_json(found)
    else:
        invocation.say(*_check_lines(found, arrow=invocation.arrow))
    return ExitCode.DONE if found["ok"] else ExitCode.REFUSED


def _check_lines(found: Json, *, arrow: str) -> Iterator[str]:
    yield f"{heading('Check')}  {name_of(found, arrow=arrow)}"
    for task in found["tasks"]:
        yield f"  {task['order']}  {runner_core.safe_line(task['name'])} ({task['type']}): {_images_line(task)}"
        yield from _complaints(task, indent=5)
    yield from _complaints(found, indent=2)
    if any(task["images"] is not None and not task["images"]["exact"] for task in found["tasks"]):
        yield "  what later tasks get is foretold from the manifests; only the first task's images are certain"
    yield "nothing speaks against it" if found["ok"] else "it would fail, or be refused"


def _images_line(task: Json) -> str:
    images = task["images"]
    if images is None:
        return (
            "takes no images" if task["type"].startswith("converter") else "images not known before the converter ran"
        )
    unfit = f", {images['unfit']:,} of them without its input types" if images["unfit"] else ""
    about = "" if images["exact"] else "probably "
    return f"{about}{images['selected']:,} of {counted(images['total'], 'image')}{unfit}"


def _complaints(found: Json, *, indent: int) -> Iterator[str]:
    for kind, colour in (("problems", "red"), ("warnings", "yellow")):
        for text in found.get(kind, ()):
            yield f"{' ' * indent}{click.style(kind[:-1], fg=colour)}: {runner_core.safe_line(text)}"
