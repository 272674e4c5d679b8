"""`epic-run completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script for a shell's completion.

    It completes verbs, options, files, and the names that the store knows: clusters, nodes,
    tenants, schedules, jobs, actions, hosts.

    \b
    Examples:
      epic-run completion bash >> ~/.bashrc
      epic-run completion zsh > ~/.zfunc/_epic-run
      epic-run completion fish > ~/.config/fish/completions/epic-run.fish
    """
    from epic_runner.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the choices above are click's own shells
    click.echo(kind(cli, {}, "epic-run", "_EPIC_RUN_COMPLETE").source())
