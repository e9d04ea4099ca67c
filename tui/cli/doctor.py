"""`pilothouse doctor`: what works here, one line each, with the mend."""

from __future__ import annotations

import click

import runner_core
from tui.cli.invocation import Command, Invocation, json_option, pass_invocation, print_json
from tui.cli.layout import coloured


@click.command("doctor", cls=Command)
@json_option
@pass_invocation
@click.pass_context
def command(context: click.Context, invocation: Invocation, as_json: bool) -> None:
    """Tell what works here, and how to mend what does not.

    Exits with 0 unless there is a problem, and with 1 then; warnings are not problems.
    """
    findings = []
    for finding in runner_core.examine_installation(write=not invocation.read_only):
        findings.append(finding)
        if not as_json:
            mend = f"; {finding.mend}" if finding.mend else ""
            shown = coloured(finding.health, padded=f"{finding.health:<7}")
            invocation.say(f"{shown}  {finding.name:<13}  {runner_core.safe_line(finding.found + mend)}")
    if as_json:
        print_json([finding.to_json() for finding in findings])
    context.exit(int(any(finding.health == runner_core.Health.PROBLEM for finding in findings)))
