"""`epic-run login`."""

from __future__ import annotations

from pathlib import Path

import click

from epic_runner.cli import completing
from epic_runner.lifecycle import who_asks
from epic_runner.output import emit, output_option
from epic_runner.store import Store


@click.command()
@click.argument("user", required=False, envvar="EPIC_USER", shell_complete=completing.members)
@click.option(
    "--tenant",
    "-t",
    shell_complete=completing.tenants,
    help="The tenant; that of the cluster, or the only one.",
)
@click.option(
    "--cluster",
    "-c",
    shell_complete=completing.clusters,
    help="The one cluster to open; all of the tenant's if absent.",
)
@click.option(
    "--hours", type=click.FloatRange(min=0, max=24 * 7, min_open=True), default=12,
    show_default=True, help="How long the session lasts.",
)  # fmt: skip
@click.option("--token", is_flag=True, help="Print the session itself, for programs.")
@click.option(
    "--ssh", "folder", metavar="DIR", type=click.Path(path_type=Path),
    help="Write a folder with all that ssh to the cluster's nodes needs, to be handed over.",
)  # fmt: skip
@output_option
def login(
    user: str | None,
    *,
    tenant: str | None,
    cluster: str | None,
    hours: float,
    token: bool,
    folder: Path | None,
    output: str,
) -> None:
    """Open the gateway for a member: print an address that logs a browser in, once.

    USER is a member of the tenant; that of EPIC_USER, else its first administrator by default. The
    address is good for ten minutes and for one login; what stands behind # in it can also be
    pasted into the login form.

    \b
    Examples:
      epic-run login --cluster lab
      epic-run login bob --tenant analytics --hours 2
      epic-run login bob --cluster lab --ssh lab-ssh && ssh -F lab-ssh/config lab
      printf 'cookie = "__Secure-epic=%s"' "$(epic-run login --token)" | curl --config - URL
    """
    from epic_runner.gateway import lifecycle, site

    if folder is not None:
        _write_folder(folder, user, tenant, cluster, hours, output)
        return
    gateway = site.load_or_refuse()
    with Store().read() as transaction:
        made = lifecycle.login(
            transaction, gateway, user=user, tenant=tenant, cluster=cluster, hours=hours,
            asker=who_asks(),
        )  # fmt: skip
    session = made.session
    data = {
        "user": session.user,
        "tenant": session.tenant,
        "cluster": session.cluster,
        "hours": session.hours,
        **({"token": made.token} if token else {"url": made.url, "code": made.code}),
    }

    def human() -> None:
        click.echo(made.token if token else made.url)
        if not token:
            what = f"{session.tenant}/{session.cluster}" if session.cluster else session.tenant
            click.echo(
                f"Logs {session.user} in to {what} for {session.hours:g} h; to be opened once, "
                "within 10 minutes.",
                err=True,
            )

    emit(data, human, output)


def _write_folder(
    folder: Path,
    user: str | None,
    tenant: str | None,
    cluster: str | None,
    hours: float,
    output: str,
) -> None:
    from epic_runner.actions.due import awaited
    from epic_runner.gateway import ssh_folder
    from epic_runner.site import site_hosts

    if cluster is None:
        raise click.UsageError("--ssh is for the nodes of one cluster: --cluster NAME.")
    store = Store()
    with store.read() as transaction:
        record = transaction.find_cluster(cluster, tenant)
        awaits = awaited(record, transaction.declared_history(record))
    gateway = ssh_folder.reached(record, site_hosts(store), awaits)
    with store.read() as transaction:
        member = ssh_folder.write(
            transaction, gateway, record, folder, user=user, hours=hours, asker=who_asks()
        )
    data = {"user": member, "tenant": record.tenant, "cluster": record.name, "hours": hours,
            "folder": str(folder)}  # fmt: skip

    def human() -> None:
        click.echo(f"ssh -F {folder}/config {record.name}")
        click.echo(
            f"Opens the nodes of {record.tenant}/{record.name} as {member} for {hours:g} h, to "
            "whoever has the folder. Where it was moved: python3 tunnel.py --configure",
            err=True,
        )

    emit(data, human, output)
