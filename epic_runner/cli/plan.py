"""`epic-run plan`: what a launch would do, without doing it."""

from __future__ import annotations

import click

from epic_runner.cli import completing
from epic_runner.cli.reading import read_template
from epic_runner.output import counted, emit, output_option, shortened, table
from epic_runner.plan import Plan, make_plan
from epic_runner.site import site_hosts
from epic_runner.store import Store


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", shell_complete=completing.files
)
@click.option("--name", "-n", help="The cluster's name; the template's by default.")
@click.option(
    "--tenant",
    "-t",
    shell_complete=completing.tenants,
    help="The tenant; the template's by default.",
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="As for launch.")
@output_option
def plan(
    files: tuple[str, ...], name: str | None, tenant: str | None, sets: tuple[str, ...], output: str
) -> None:
    """Show what a launch would do: nodes, hosts, quota; nothing is changed.

    Nodes are created, recreated (their volumes stay), restarted, started or kept, each with the
    reason. For nodes that are there, the play that decides this in a launch is asked.

    \b
    Examples:
      epic-run plan examples/multi-node.yml
      epic-run plan lab.yml --set roles.worker.count=5 --output json
    """
    store = Store()
    reading = read_template(store, files, sets, name, tenant)
    made = make_plan(store, site_hosts(store), reading.spec, reading.tenant)
    emit(made.as_dict(), lambda: _print(made), output)


def _print(made: Plan) -> None:
    click.echo(f"{made.tenant}/{made.cluster}  {made.app}")
    rows = [
        (node["action"], node["name"], node["host"], node["image"], node["size"], node["reason"])
        for node in made.nodes
    ]
    click.echo(table(["ACTION", "NODE", "HOST", "IMAGE", "SIZE", "REASON"], rows))
    click.echo()
    if made.actions:
        actions = [
            (shortened(item["name"]), item["sha256"][:12], ", ".join(item["nodes"]) or "-")
            for item in made.actions
        ]
        click.echo(table(["DECLARED ACTION", "SHA256", "RUNS ON"], actions))
        click.echo()
    limits = [(name, before, after, limit) for name, (before, after, limit) in made.quota.items()]
    click.echo(table([f"QUOTA OF {made.tenant.upper()}", "NOW", "AFTER", "LIMIT"], limits))
    for image in made.missing_images:
        click.echo(f"\nImage {image} is not on the host yet: epic-run image build")
    changes = sum(node["action"] != "keep" for node in made.nodes)
    runs = sum(bool(item["nodes"]) for item in made.actions)
    todo = [f"{counted(changes, 'node')} to change"] * bool(changes)
    todo += [f"{counted(runs, 'action')} to run"] * bool(runs)
    click.echo(f"\n{', '.join(todo)}." if todo else "\nNothing to do.")
