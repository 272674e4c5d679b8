"""`epic-run`: the verbs, each in a module of its name, loaded only when it is called."""

from __future__ import annotations

import importlib
import os

import click

from epic_runner import __version__

# One line each, so that `epic-run --help` loads no verb; a test holds them to the verbs' own help.
VERBS = {
    "Clusters": {
        "launch": "Bring a cluster up from a template, or finish doing so.",
        "list": "List clusters.",
        "status": "Show a cluster: health, nodes, endpoints, what is missing and why.",
        "expand": "Add nodes to a running cluster.",
        "shrink": "Remove the newest nodes of a node role, in order.",
        "stop": "Stop a cluster; its data stays.",
        "start": "Start a stopped cluster.",
        "restart": "Stop a cluster and start it again.",
        "repair": "Bring a drifted cluster back, and rebuild what the store has lost.",
        "destroy": "Remove a cluster and its nodes' volumes.",
        "lifetime": "See who uses clusters and when they end, and end those that are due.",
        "extend": "Put off the end of a cluster that has a lifetime.",
    },
    "Work": {
        "run": "Run a job from its YAML, on a cluster that is there or on one made for it.",
        "submit": "Run a job on a cluster, and follow its output.",
        "job": "Look at jobs: list them, show them and what they printed, cancel them.",
        "schedule": "Run jobs by the clock, and look at what came of them.",
        "action": "Run scripts on the nodes of a cluster, and look at what they did.",
        "shell": "Open a shell on a node.",
        "ssh": "Open a shell on a node by ssh, through the gateway.",
        "logs": "Show the logs of a cluster's services.",
    },
    "Files": {
        "validate": "Check files, and report every mistake with its line.",
        "plan": "Show what a launch would do.",
        "export": "Write a running cluster as a template.",
        "inventory": "Write a cluster's Ansible inventory.",
        "schema": "Print the JSON Schema of the YAML, for editors.",
    },
    "Site": {
        "host": "Prepare, check, list, drain and remove Docker hosts.",
        "tenant": "Apply, list, show and remove tenants.",
        "gateway": "Bring up the one address in front of all clusters, look at it, remove it.",
        "login": "Open the gateway for a member: print an address that logs a browser in, once.",
        "image": "Build the images of apps, list them, show what is inside, bring them to hosts.",
        "doctor": "Check this machine and all hosts, and tell how to mend what is wrong.",
        "completion": "Print the script for a shell's completion.",
    },
}


# Verbs that play, which Ansible can be started for while they are still being read.
_PLAYING = (
    "launch", "expand", "shrink", "stop", "start", "restart", "repair", "destroy", "submit",
    "run",
)  # fmt: skip


def _is_to_run(context: click.Context, arguments: list[str]) -> bool:
    """Whether a verb is called to do its work, not to be explained or completed."""
    return not context.resilient_parsing and not {"-h", "--help"} & {*arguments}


class Verbs(click.Group):
    """A group whose commands are modules of this package, imported when they are called."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return all verbs, in the order of the help."""
        del context
        return [name for section in VERBS.values() for name in section]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import the verb's module and return its command."""
        if name not in self.list_commands(context):
            return None
        module = importlib.import_module(f"epic_runner.cli.{name}")
        command = getattr(module, name if name != "list" else "list_")
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or suggest the nearest one; Ansible starts while it is imported."""
        name = arguments[0]
        is_known = name in self.list_commands(context)
        if not (is_known or name.startswith("-") or context.resilient_parsing):
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(context), n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            context.fail(f'There is no verb "{name}".{hint}')
        if arguments[0] in _PLAYING and _is_to_run(context, arguments):
            from epic_runner import ahead

            ahead.begin()
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by section, from the table above."""
        del context
        for title, section in VERBS.items():
            with formatter.section(title):
                # `list` may be this package's module of that name by now.
                formatter.write_dl([*section.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="epic-run")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
def cli(*, debug: bool) -> None:
    """Spark clusters in containers on your own hosts, from a template's YAML.

    \b
    Examples:
      epic-run launch examples/sandbox.yml
      epic-run submit sandbox examples/jobs/pi.py
      epic-run expand lab --role worker --by 2
      epic-run status lab

    Files and state are kept under EPIC_HOME (~/.local/share/epic-runner). Exit codes: 0 done,
    1 the run failed, 2 bad input, 130 a job, script or shell was cancelled; run, submit, shell,
    ssh and schedule run-now end with the code of what they ran.
    """
    if debug:
        os.environ["EPIC_DEBUG"] = "1"
