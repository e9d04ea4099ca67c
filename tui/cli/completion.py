"""`pilothouse completion`: the script that teaches a shell to complete our words."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from tui.cli.invocation import Command, Invocation

COMPLETE_VARIABLE = "_PILOTHOUSE_COMPLETE"


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    For bash: pilothouse completion bash >> ~/.bashrc
    """
    click.echo(shell_completion(context.find_root().command, shell).source())


def shell_completion(root: click.Command, shell: str) -> ShellComplete:
    """Click's completion of the given root command for a shell; raises `BadParameter` for one it does not know."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.BadParameter(f"{shell!r} is no shell that can be served")
    return kind(root, {"obj": Invocation()}, "pilothouse", COMPLETE_VARIABLE)
