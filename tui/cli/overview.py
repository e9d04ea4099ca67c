"""What `pilothouse` alone prints: what runs now, what ended last, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator

import runner_core
from tui.cli.invocation import Invocation
from tui.cli.job import jobs_table
from tui.cli.layout import counted, heading

_SHOWN_ENDED = 5


def print_overview(invocation: Invocation) -> None:
    """Print the state of the store; an empty one gets first steps."""
    settings = runner_core.read_settings()
    if invocation.read_only and not runner_core.store_exists(settings):
        invocation.say(f"there is nothing in {settings.home} yet", *_first_steps())
        return
    invocation.settle()
    running = runner_core.list_jobs(settings, status=runner_core.JobStatus.SUBMITTED)
    newest = runner_core.list_jobs(settings, limit=_SHOWN_ENDED + len(running))
    ended = [job for job in newest if job["status"] != "submitted"][:_SHOWN_ENDED]
    if not newest:
        tasks, workflows, datasets = (
            len(found)
            for found in (
                runner_core.list_tasks(settings),
                runner_core.list_workflows(settings),
                runner_core.list_datasets(settings),
            )
        )
        invocation.say(
            f"{counted(tasks, 'task')}, {counted(workflows, 'workflow')}, {counted(datasets, 'dataset')}, no job yet"
        )
        invocation.say(*_first_steps(tasks=tasks, workflows=workflows, datasets=datasets))
        return
    if running:
        invocation.say(heading("Now"), *jobs_table(running, arrow=invocation.arrow), "")
    if ended:
        invocation.say(heading("Ended last"), *jobs_table(ended, arrow=invocation.arrow), "")
    newest_id = (running or ended)[0]["id"]
    invocation.say(f"pilothouse job show {newest_id} tells more; pilothouse --help lists the commands")


def _first_steps(*, tasks: int = 0, workflows: int = 0, datasets: int = 0) -> Iterator[str]:
    if not tasks:
        yield "  pilothouse demo                                       real tasks on real images, from nothing"
        yield "  pilothouse task collect fractal-tasks-core            tasks to build workflows of"
    if not workflows:
        yield "  pilothouse workflow import FILE.json                  a workflow that Fractal exported"
    if not datasets:
        yield "  pilothouse dataset create NAME --zarr-dir DIR         images to run it over"
    if workflows and datasets:
        yield "  pilothouse run WORKFLOW DATASET --wait                by id or name"
