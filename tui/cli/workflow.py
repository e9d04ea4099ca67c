"""`pilothouse workflow`: import, export, look at and delete workflows."""

from __future__ import annotations

import json
from typing import Any

import click

import runner_core
from tui.cli.files import read_input, write_output
from tui.cli.invocation import Group, Invocation, json_option, pass_invocation, print_json, terminal_width
from tui.cli.layout import counted, heading, local_time, table

Json = dict[str, Any]


@click.group("workflow", cls=Group)
def command() -> None:
    """Import, export and look at workflows."""


@command.command("import")
@click.argument("file", type=click.Path())
@click.option("--name", help="The name to give it, instead of the one in the file.")
@json_option
@pass_invocation
def import_(invocation: Invocation, *, file: str, name: str | None, as_json: bool) -> None:
    """Import a workflow from FILE, the JSON that Fractal exports (- for stdin)."""
    invocation.require_writing()
    workflow = runner_core.import_workflow(invocation.settings, read_input(file), name=name)
    if as_json:
        print_json(workflow)
        return
    named = runner_core.safe_line(workflow["name"])
    invocation.say(f"workflow {workflow['id']} {named!r}: {counted(len(workflow['task_list']), 'task')}")


@command.command("export")
@click.argument("workflow", metavar="ID")
@click.argument("file", type=click.Path())
@pass_invocation
def export(invocation: Invocation, *, workflow: str, file: str) -> None:
    """Export a workflow, by id or name, to FILE (- for stdout)."""
    write_output(file, runner_core.export_workflow(invocation.settings, workflow))


@command.command("list")
@json_option
@pass_invocation
def list_(invocation: Invocation, *, as_json: bool) -> None:
    """List the workflows."""
    workflows = runner_core.list_workflows(invocation.settings)
    if as_json:
        print_json(workflows)
    elif workflows:
        rows = [
            (row["id"], runner_core.safe_line(row["name"]), row["task_count"], local_time(row["timestamp_created"]))
            for row in workflows
        ]
        invocation.say(*table(("ID", "WORKFLOW", "TASKS", "CREATED"), rows, width=terminal_width()))
    else:
        invocation.say("there is no workflow yet; `pilothouse workflow import FILE` imports one")


@command.command("show")
@click.argument("workflow", metavar="ID")
@click.option("--dataset", metavar="D", help="Show how each task stands over this dataset, by id or name.")
@json_option
@pass_invocation
def show(invocation: Invocation, *, workflow: str, dataset: str | None, as_json: bool) -> None:
    """Show a workflow, by id or name: its tasks with their arguments and filters."""
    document = runner_core.show_workflow(invocation.settings, workflow)
    if dataset is not None:
        invocation.settle()
        document["statuses"] = runner_core.workflow_statuses(invocation.settings, workflow=workflow, dataset=dataset)
    if as_json:
        print_json(document)
        return
    title = heading(f"Workflow {document['id']}")
    invocation.say(f"{title}  {runner_core.safe_line(document['name'])}")
    for step in document["task_list"]:
        invocation.say("", *_step_lines(step, status=document.get("statuses", {}).get(str(step["id"]))))


def _step_lines(step: Json, *, status: str | None) -> list[str]:
    task = step["task"]
    title = heading(f"{step['order']}  {runner_core.safe_line(task['name'])}")
    package = runner_core.safe_line(f"{task['pkg_name']} {task['version']}")
    lines = [f"{title}  {task['type']}, {package}" + (f"  {status}" if status else "")]
    for key in ("args_non_parallel", "args_parallel", "meta_non_parallel", "meta_parallel"):
        if step[key]:
            lines.append(f"   {key}")
            lines += [f"     {name}: {value}" for name, value in _shown(step[key])]
    filters = {**step["input_filters"]["types"], **step["input_filters"]["attributes"]}
    if filters:
        lines.append("   only images with " + ", ".join(f"{name} = {value}" for name, value in _shown(filters)))
    return lines


def _shown(values: Json) -> list[tuple[str, str]]:
    return [(runner_core.safe_line(name), runner_core.safe_line(json.dumps(value))) for name, value in values.items()]


@command.command("delete")
@click.argument("workflow", metavar="ID")
@json_option
@pass_invocation
def delete(invocation: Invocation, *, workflow: str, as_json: bool) -> None:
    """Delete a workflow, by id or name; its jobs stay. Refused while a job runs it."""
    invocation.require_writing()
    invocation.settle()
    deleted = runner_core.delete_workflow(invocation.settings, workflow)
    if as_json:
        print_json(deleted)
    else:
        invocation.say(f"deleted workflow {deleted['id']} {runner_core.safe_line(deleted['name'])!r}")
