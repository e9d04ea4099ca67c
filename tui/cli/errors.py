"""Errors at the command line: one line for people, one exit code for scripts."""

from __future__ import annotations

import os
import sys
import traceback
from enum import IntEnum

import click

import runner_core


class ExitCode(IntEnum):
    """What the exit code of a command says."""

    DONE = 0
    JOB_FAILED = 1
    WRONG_USE = 2
    STOPPED = 3  # the job was stopped by an operator
    NOT_FOUND = 4
    REFUSED = 5  # dataset busy, empty workflow, bad settings
    OUT_OF_REACH = 6  # the cluster or the host does not answer
    DEFECT = 70  # of this program; as in sysexits.h
    INTERRUPTED = 130  # by ctrl-C, as shells have it
    CLOSED_PIPE = 141  # nobody reads the output any more, as shells have it


def exit_code_of(error: Exception) -> ExitCode:
    """The exit code that an error asks for."""
    if isinstance(error, click.ClickException | runner_core.BadInput):
        return ExitCode.WRONG_USE
    if isinstance(error, runner_core.NotFound):
        return ExitCode.NOT_FOUND
    if isinstance(error, runner_core.OutOfReach):
        return ExitCode.OUT_OF_REACH
    if isinstance(error, runner_core.PilothouseError | OSError):
        return ExitCode.REFUSED
    return ExitCode.DEFECT


def report_error(error: Exception, *, debug: bool) -> None:
    """Write one line on stderr, after the traceback if that was asked for."""
    if debug:
        traceback.print_exception(error)
    line = runner_core.safe_line(_in_words(error))
    click.echo(f"{click.style('error:', fg='red', bold=True)} {line}", file=sys.stderr, color=colour_setting())


def colour_setting() -> bool | None:
    """`False` where no colour is wanted at all; `None` leaves it to whether the output is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _in_words(error: Exception) -> str:
    if isinstance(error, runner_core.PilothouseError):
        return str(error)
    if isinstance(error, click.ClickException):
        message = " ".join(error.format_message().split()).rstrip(".")
        context = error.ctx if isinstance(error, click.UsageError) else None
        path = context.command_path if context else "pilothouse"
        return f"{message[:1].lower()}{message[1:]}; `{path} --help` shows the usage"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}; this is a defect, please report it with what --debug prints"
