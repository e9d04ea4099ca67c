"""The command line: names, flags, JSON keys and exit codes are a contract that scripts rely on.

`--json` prints one document on stdout and nothing else there. Results go to stdout, progress and words about it to
stderr. An error is one line on stderr that says what is wrong and how to mend it. Modules are loaded for the command
that is asked for, and rooms behind the door when their first name is used, so that help costs next to nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

import runner_core
from tui.cli.errors import ExitCode, colour_setting, exit_code_of, report_error
from tui.cli.invocation import Group, Invocation, pass_invocation

_COMMANDS = ("demo", "doctor", "task", "workflow", "dataset", "run", "job", "completion")
"""In the order of a newcomer's day; each is the attribute `command` of the module of its name."""


class _Root(Group):
    """The commands, each loaded when it is first needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"tui.cli.{cmd_name}").command
        return command


@click.group(
    cls=_Root,
    invoke_without_command=True,
    epilog="Exit codes: 0 done, 1 the job failed, 2 wrong use, 3 stopped by an operator, 4 not found, 5 refused, "
    "6 out of reach. The global options are taken after a command as well.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(runner_core.__version__, message="pilothouse %(version)s")
@pass_invocation
@click.pass_context
def root(context: click.Context, invocation: Invocation) -> None:
    """Run workflows of Fractal tasks over OME-Zarr images.

    Without a command: what runs now, what ended last, and what to do next.
    """
    context.color = colour_setting()
    if context.invoked_subcommand is None:
        from tui.cli.overview import print_overview

        print_overview(invocation)


def main() -> NoReturn:
    """Run the command line of this process."""
    _be_able_to_print_anything()
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run one command line and return its exit code."""
    invocation = Invocation(ascii=not _speaks_unicode())
    try:
        code = _completed() if "_PILOTHOUSE_COMPLETE" in os.environ else _invoked(words, invocation)
        sys.stdout.flush()
    except BrokenPipeError:
        _stop_writing()
        return ExitCode.CLOSED_PIPE
    except (KeyboardInterrupt, EOFError, click.Abort):
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, people get one line
        report_error(error, debug=invocation.debug)
        return exit_code_of(error)
    return code


def _invoked(words: list[str], invocation: Invocation) -> int:
    try:
        with root.make_context("pilothouse", words, obj=invocation) as context:
            root.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return ExitCode.DONE


def _completed() -> int:
    """Answer a shell that asks how the line being typed may go on, or for the script that lets it ask."""
    from tui.cli.completion import COMPLETE_VARIABLE, shell_completion

    shell, _, instruction = os.environ[COMPLETE_VARIABLE].partition("_")
    completion = shell_completion(root, shell)
    click.echo(completion.source() if instruction == "source" else completion.complete())
    return ExitCode.DONE


def _be_able_to_print_anything() -> None:
    """Names from elsewhere need not fit this terminal's encoding; they are spelled out then."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _speaks_unicode() -> bool:
    try:
        "→…".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _stop_writing() -> None:
    """Nobody reads any more: what is still in the buffer must not raise again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
