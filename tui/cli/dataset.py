"""`pilothouse dataset`: image lists that workflows run over."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import runner_core
from tui.cli.files import read_input, write_output
from tui.cli.invocation import Group, Invocation, json_option, pass_invocation, print_json, terminal_width
from tui.cli.layout import counted, heading, local_time, table
from tui.cli.progress import counting

Json = dict[str, Any]

_SHOWN_IMAGES = 20
_SHOWN_PROBLEMS = 10


@click.group("dataset", cls=Group)
def command() -> None:
    """Create, scan, export and look at datasets."""


@command.command("create")
@click.argument("name")
@click.option(
    "--zarr-dir", required=True, metavar="DIR", type=click.Path(), help="The folder that tasks write new images into."
)
@click.option(
    "--images", metavar="FILE.json", type=click.Path(), help="A list of images, or a dataset's export (- for stdin)."
)
@click.option("--filters", metavar="FILE.json", type=click.Path(), help='{"attributes": {...}, "types": {...}}')
@json_option
@pass_invocation
def create(
    invocation: Invocation, *, name: str, zarr_dir: str, images: str | None, filters: str | None, as_json: bool
) -> None:
    """Create a dataset."""
    invocation.require_writing()
    dataset = runner_core.create_dataset(
        invocation.settings,
        name=name,
        zarr_dir=zarr_dir,
        images=read_input(images) if images is not None else None,
        filters=read_input(filters) if filters is not None else None,
    )
    if as_json:
        print_json(dataset)
        return
    named = runner_core.safe_line(dataset["name"])
    invocation.say(f"dataset {dataset['id']} {named!r}: {counted(len(dataset['images']), 'image')}")


@command.command("scan")
@click.argument("dataset", metavar="ID")
@click.argument("folder", metavar="DIR", type=click.Path())
@json_option
@pass_invocation
def scan(invocation: Invocation, *, dataset: str, folder: str, as_json: bool) -> None:
    """Add the OME-Zarr images found below DIR to a dataset, given by id or name."""
    invocation.require_writing()
    invocation.settle()
    with counting(invocation, f"Scanning {folder}") as report:
        scanned = runner_core.scan_into_dataset(
            invocation.settings, dataset, Path(folder), report=lambda found: report(found, 0)
        )
    problems = [runner_core.safe_line(problem) for problem in scanned["problems"]]
    invocation.note(*(f"warning: {problem}" for problem in problems[:_SHOWN_PROBLEMS]))
    if len(problems) > _SHOWN_PROBLEMS:
        invocation.note(f"warning: … {len(problems) - _SHOWN_PROBLEMS} more (--json lists them)")
    if as_json:
        print_json(scanned)
        return
    known = scanned["found"] - scanned["added"]
    already = f", {known:,} of them in the dataset already" if known else ""
    invocation.say(
        f"found {counted(scanned['found'], 'image')}{already}; "
        f"dataset {scanned['id']} now has {counted(len(scanned['images']), 'image')}"
    )


@command.command("list")
@json_option
@pass_invocation
def list_(invocation: Invocation, *, as_json: bool) -> None:
    """List the datasets."""
    invocation.settle()
    datasets = runner_core.list_datasets(invocation.settings)
    if as_json:
        print_json(datasets)
    elif datasets:
        rows = [
            (
                row["id"],
                runner_core.safe_line(row["name"]),
                row["image_count"],
                f"job {row['submitted_job_id']}" if row["submitted_job_id"] else "",
                local_time(row["timestamp_created"]),
                runner_core.safe_line(row["zarr_dir"]),
            )
            for row in datasets
        ]
        headings = ("ID", "DATASET", "IMAGES", "BUSY WITH", "CREATED", "ZARR_DIR")
        invocation.say(*table(headings, rows, width=terminal_width()))
    else:
        invocation.say("there is no dataset yet; `pilothouse dataset create NAME --zarr-dir DIR` creates one")


@command.command("show")
@click.argument("dataset", metavar="ID")
@click.option("--all", "all_images", is_flag=True, help="List all images, however many.")
@json_option
@pass_invocation
def show(invocation: Invocation, *, dataset: str, all_images: bool, as_json: bool) -> None:
    """Show a dataset, by id or name: its images, filters and history."""
    document = runner_core.show_dataset(invocation.settings, dataset)
    if as_json:
        print_json(document)
    else:
        invocation.say(*_dataset_lines(document, shown=None if all_images else _SHOWN_IMAGES))


def _dataset_lines(dataset: Json, *, shown: int | None) -> Iterator[str]:
    images = dataset["images"]
    title = heading(f"Dataset {dataset['id']}")
    yield f"{title}  {runner_core.safe_line(dataset['name'])}"
    yield f"  zarr_dir  {runner_core.safe_line(dataset['zarr_dir'])}"
    yield f"  filters   {_described(dataset['filters']) or 'none'}"
    if dataset["submitted_job_id"]:
        yield f"  busy with job {dataset['submitted_job_id']}"
    if dataset["history"]:
        yield ""
        yield heading("History")
        for item in dataset["history"]:
            yield f"  {item['status']:<8}  {runner_core.safe_line(item['workflowtask']['task']['name'])}"
    yield ""
    kinds = Counter(name for image in images for name, value in image["types"].items() if value)
    of_types = f" ({', '.join(f'{count:,} {runner_core.safe_line(name)}' for name, count in kinds.items())})"
    yield heading(counted(len(images), "image")) + (of_types if kinds else "")
    for image in images[:shown]:
        url = runner_core.safe_line(image["zarr_url"])
        below = url.removeprefix(f"{runner_core.safe_line(dataset['zarr_dir'])}/")
        described = _described(image)
        yield f"  {below}" + (f"  {described}" if described else "")
    if shown is not None and len(images) > shown:
        yield f"  … {len(images) - shown:,} more (--all lists them)"


def _described(filters: Json) -> str:
    """Types and attributes on one line."""
    values = {**filters["types"], **filters["attributes"]}
    return runner_core.safe_line(" ".join(f"{name}={json.dumps(value)}" for name, value in values.items()))


@command.command("export")
@click.argument("dataset", metavar="ID")
@click.argument("file", type=click.Path())
@pass_invocation
def export(invocation: Invocation, *, dataset: str, file: str) -> None:
    """Export a dataset, by id or name, to FILE (- for stdout)."""
    write_output(file, runner_core.export_dataset(invocation.settings, dataset))


@command.command("delete")
@click.argument("dataset", metavar="ID")
@json_option
@pass_invocation
def delete(invocation: Invocation, *, dataset: str, as_json: bool) -> None:
    """Delete a dataset, by id or name, from the store; its images stay on disk, and its jobs in the list."""
    invocation.require_writing()
    invocation.settle()
    deleted = runner_core.delete_dataset(invocation.settings, dataset)
    if as_json:
        print_json(deleted)
        return
    name, zarr_dir = runner_core.safe_line(deleted["name"]), runner_core.safe_line(deleted["zarr_dir"])
    invocation.say(f"deleted dataset {deleted['id']} {name!r}; its images stay in {zarr_dir}")
