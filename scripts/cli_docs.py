"""Writes docs/cli.md from the verbs' own help; a test holds the two together.

Run: python scripts/cli_docs.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from epic_runner.cli import VERBS, cli

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

HEAD = """\
# The command line
Written by `scripts/cli_docs.py` from what `epic-run VERB --help` prints. Every verb that
does not pass on what others print takes `--output json` for programs; exit codes are 0 done, 1 the
run failed, 2 bad input, 130 a job, script or shell was cancelled, and of `submit`, `run`, `shell`,
`ssh` and `schedule run-now` those of what they ran; `epic-run --debug VERB` shows tracebacks.
`epic-run completion bash` gives your shell completion of verbs, options, files and names.

Settings from the environment: `EPIC_HOME` (state, default `~/.local/share/epic-runner`),
`EPIC_DATABASE_URL` (the store, default a file under `EPIC_HOME`), `EPIC_OUTPUT` (`json`),
`EPIC_VAULT_ADDR` and other `EPIC_VAULT_` variables (Vault for secrets: docs/tenants.md),
`EPIC_PORTS` (loopback ports for pages, default `20000-29999`), `EPIC_USER` (as `--as`),
`EPIC_DEBUG`, `DOCKER_HOST` (another local socket of Docker).
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for section, verbs in VERBS.items():
        parts.append(f"## {section}")
        for name in verbs:
            command = cli.get_command(click.Context(cli), name)
            if command is not None:
                parts += blocks(
                    command, f"epic-run {name}", click.Context(cli, info_name="epic-run")
                )
    return "\n".join(parts) + "\n"


def blocks(command: click.Command, title: str, parent: click.Context) -> Iterator[str]:
    """Yield the help of a verb, and of its own verbs where it is a group."""
    context = click.Context(
        command,
        info_name=command.name,
        parent=parent,
        terminal_width=96,
        help_option_names=["-h", "--help"],
    )
    yield f"### {title}\n```\n{command.get_help(context).rstrip()}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from blocks(child, f"{title} {name}", context)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
