"""`pilothouse demo`: real tasks on real images, from nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import runner_core
from tui.cli.errors import ExitCode
from tui.cli.invocation import Command, Invocation, pass_invocation
from tui.cli.job import print_job
from tui.cli.job_text import outcome_code
from tui.cli.layout import counted, elapsed, heading
from tui.cli.progress import follow_job, steps

Json = dict[str, Any]


@click.command("demo", cls=Command)
@click.option("--dir", "folder", metavar="DIR", help="Where the images go, instead of the program's own folder.")
@click.option("--backend", metavar="NAME", help="How to run it: local, local_experimental.")
@pass_invocation
@click.pass_context
def command(context: click.Context, invocation: Invocation, *, folder: str | None, backend: str | None) -> None:
    """Run real tasks on real images, from nothing.

    The first time this collects a task package (some minutes); after that it starts in seconds.
    """
    invocation.require_writing()
    settings = invocation.settings
    place = Path(folder).absolute() if folder is not None else settings.home / "demo"
    with steps(invocation, "Preparing the demo") as report:
        demo = runner_core.prepare_demo(
            settings,
            place,
            report=report,
            report_images=lambda done, total: report(f"made image {done} of {total}"),
        )
    request = runner_core.JobRequest(workflow=demo.workflow_id, dataset=demo.dataset_id, backend=backend)
    job = follow_job(invocation, runner_core.launch_job(settings, request))
    if outcome_code(job) is ExitCode.DONE:
        dataset = runner_core.show_dataset(settings, demo.dataset_id)
        invocation.say(*_summary(demo, job, dataset, runner_core.measurements(demo.zarr_dir)))
    else:
        print_job(invocation, job, as_json=False)
    context.exit(outcome_code(job))


def _summary(
    demo: runner_core.Demo, job: Json, dataset: Json, measured: list[runner_core.Measurements]
) -> Iterator[str]:
    took = elapsed(job["start_timestamp"], job["end_timestamp"])
    yield heading(f"The demo is done: {counted(len(job['tasks']), 'task')} in {took}")
    yield f"  images before  {counted(demo.images, 'image')}, each a stack of planes"
    kinds = Counter("3D" if image["types"].get("is_3D") else "2D" for image in dataset["images"])
    listed = ", ".join(f"{count} in {kind}" for kind, count in sorted(kinds.items()))
    yield f"  images after   {counted(len(dataset['images']), 'image')}: {listed}"
    yield f"  they are in    {runner_core.safe_line(dataset['zarr_dir'])}"
    yield "  measurements"
    for found in measured:
        yield f"    {counted(found.objects, 'object'):>12}  {runner_core.safe_line(str(found.table))}"
    if job["archive"]:
        yield f"  job files      {runner_core.safe_line(job['archive'])}"
    yield heading("Next")
    yield f"  pilothouse job show {job['id']}"
    yield f"  pilothouse dataset show {dataset['id']}"
    yield f"  pilothouse job files {job['id']}"
