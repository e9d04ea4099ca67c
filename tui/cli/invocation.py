"""One call of the command line: its global options, its settings, and how it speaks."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import click

import runner_core

_ASCII = str.maketrans({"→": "->", "…": "...", "·": "-", "—": "-", "✓": "+", "✗": "x"})


@dataclass
class Invocation:
    """What all commands share. The flags are set while the words of the command line are read."""

    debug: bool = False
    read_only: bool = False
    low_bandwidth: bool = False
    ascii: bool = False

    @cached_property
    def settings(self) -> runner_core.Settings:
        """The settings; with `--read-only`, `NotFound` if there is no store, which would be made otherwise."""
        settings = runner_core.read_settings()
        if self.read_only and not runner_core.store_exists(settings):
            raise runner_core.NotFound(f"there is no store in {settings.home} yet", hint="leave --read-only out")
        return settings

    def require_writing(self) -> None:
        """Raise `Refused` with `--read-only`."""
        if self.read_only:
            raise runner_core.Refused("this command changes things", hint="leave --read-only out")

    def settle(self) -> None:
        """Conclude the jobs whose runners died, so that nobody is shown them as running.

        What stands in the way of that is told, and does not stand in the way of looking.
        """
        if self.read_only or not runner_core.is_any_job_submitted(self.settings):
            return
        try:
            runner_core.settle_gone_jobs(self.settings)
        except (runner_core.PilothouseError, OSError) as error:
            self.note(f"warning: a job without a runner could not be settled: {runner_core.safe_line(str(error))}")

    # -- speaking

    def say(self, *lines: str) -> None:
        """Print lines for people on stdout."""
        for line in lines:
            click.echo(self.shown(line))

    def note(self, *lines: str) -> None:
        """Print lines about what is going on on stderr, beside the result."""
        for line in lines:
            click.echo(self.shown(line), file=sys.stderr)

    def shown(self, line: str) -> str:
        """The line in characters that were asked for."""
        return line.translate(_ASCII).encode("ascii", "backslashreplace").decode() if self.ascii else line

    @property
    def has_live_stderr(self) -> bool:
        """Whether bars can be drawn on stderr."""
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def arrow(self) -> str:
        """What stands between a workflow and its dataset."""
        return "->" if self.ascii else "→"


def print_json(document: Any) -> None:
    """Print one JSON document on stdout: in plain ASCII, so that nothing in it can harm a terminal.

    It is JSON that every program reads: NaN and the infinities, which tasks may give as attributes, become null.
    """
    indent = 2 if sys.stdout.isatty() else None
    try:
        text = json.dumps(document, indent=indent, allow_nan=False)
    except ValueError:
        finite = json.loads(json.dumps(document), parse_constant=lambda _name: None)
        text = json.dumps(finite, indent=indent)
    click.echo(text)


pass_invocation = click.make_pass_decorator(Invocation)


def terminal_width() -> int | None:
    """How many columns lines on stdout may take; `None` when it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document; null stands for NaN too.")


# ----------------------------------------------------------------------------------------------------------------------
# Commands that take the global options in any place

_GLOBAL_OPTIONS = {
    "--debug": "Print a traceback with an error.",
    "--read-only": "Change nothing: no job is settled, nothing is written.",
    "--low-bandwidth": "Redraw progress seldom.",
    "--ascii": "Print ASCII characters only.",
}


def _set_flag(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and isinstance(context.obj, Invocation):
        setattr(context.obj, str(parameter.name), True)


def _global_options(*, hidden: bool) -> list[click.Parameter]:
    return [
        click.Option(
            [flag], is_flag=True, is_eager=True, expose_value=False, hidden=hidden, callback=_set_flag, help=text
        )
        for flag, text in _GLOBAL_OPTIONS.items()
    ]


class Command(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _global_options(hidden=True)


class Group(click.Group):
    """A group that takes the global options too, as do its commands."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, **kwargs})
        self.params += _global_options(hidden=self.name != "root")

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Name the commands in the order in which people meet them."""
        return list(self.commands)
