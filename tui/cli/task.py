"""`pilothouse task`: the task packages that workflows can use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import runner_core
from tui.cli.invocation import Group, Invocation, json_option, pass_invocation, print_json, terminal_width
from tui.cli.layout import counted, table
from tui.cli.progress import steps


@click.group("task", cls=Group)
def command() -> None:
    """Collect task packages, list and remove them."""


@command.command("collect")
@click.argument("spec", required=False, type=click.Path())
@click.option("--python", metavar="VERSION", help="The Python of the new environment, such as 3.11.")
@click.option("--profile", metavar="P", help="The profile whose machine the package is for.")
@click.option("--interpreter", metavar="PYTHON", help="The Python of an environment that exists already.")
@click.option("--package", metavar="NAME", help="The package in that environment.")
@json_option
@pass_invocation
def collect(
    invocation: Invocation,
    *,
    spec: str | None,
    python: str | None,
    profile: str | None,
    interpreter: str | None,
    package: str | None,
    as_json: bool,
) -> None:
    """Collect a task package into an environment of its own.

    SPEC is a requirement of the package index (fractal-tasks-core==2.1.0), a wheel, or a folder to install. With
    --interpreter and --package, the tasks of an environment that exists are collected, and nothing is installed.
    """
    invocation.require_writing()
    if profile is not None:
        _require_local(invocation.settings, profile)
    if interpreter is not None and package is not None and spec is None and python is None:
        tasks = runner_core.register_tasks(invocation.settings, interpreter=Path(interpreter), package=package)
    elif spec is not None and interpreter is None and package is None:
        with steps(invocation, f"Collecting {spec}") as report:
            tasks = runner_core.collect_tasks(invocation.settings, spec, python=python, report=report)
    else:
        raise click.UsageError("give either SPEC (and --python), or --interpreter and --package")
    if as_json:
        print_json(tasks)
        return
    invocation.say(f"collected {counted(len(tasks), 'task')}:")
    _say_tasks(invocation, tasks)


def _require_local(settings: runner_core.Settings, profile: str) -> None:
    backend = settings.profile_named(profile).backend
    if backend == "slurm_ssh":
        raise runner_core.Refused(
            f"the profile {profile!r} is for another machine ({backend}), which this version does not reach",
            hint="collect there, or leave --profile out",
        )


@command.command("list")
@json_option
@pass_invocation
def list_(invocation: Invocation, *, as_json: bool) -> None:
    """List the collected tasks."""
    tasks = runner_core.list_tasks(invocation.settings)
    if as_json:
        print_json(tasks)
    elif tasks:
        _say_tasks(invocation, tasks)
    else:
        invocation.say("no task is collected yet; `pilothouse task collect fractal-tasks-core` collects some")


def _say_tasks(invocation: Invocation, tasks: list[dict[str, Any]]) -> None:
    rows = [
        (task["id"], *(runner_core.safe_line(task[key]) for key in ("name", "type", "pkg_name", "version")))
        for task in tasks
    ]
    invocation.say(*table(("ID", "TASK", "TYPE", "PACKAGE", "VERSION"), rows, width=terminal_width()))


@command.command("remove")
@click.argument("package")
@json_option
@pass_invocation
def remove(invocation: Invocation, *, package: str, as_json: bool) -> None:
    """Remove a task package and the environment that was made for it.

    PACKAGE is a name, or NAME==VERSION where several versions are collected, or a package's id. Refused while a
    workflow uses one of its tasks.
    """
    invocation.require_writing()
    removed = runner_core.remove_tasks(invocation.settings, package)
    if as_json:
        print_json(removed)
    else:
        tasks = counted(removed["task_count"], "task")
        invocation.say(f"removed {removed['pkg_name']} {removed['version']} with {tasks}")
