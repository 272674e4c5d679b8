"""`epic-run gateway`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from epic_runner.cli import completing
from epic_runner.cli.common import acting
from epic_runner.output import emit, output_option
from epic_runner.site import site_hosts
from epic_runner.store import Store


@click.group()
def gateway() -> None:
    """Bring up the one address in front of all clusters, look at it, remove it.

    \b
    Examples:
      epic-run gateway up
      epic-run login --cluster lab
    """


@gateway.command("up")
@click.option("--address", metavar="ADDR", help="The address to listen on; all at first.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port; 8443 at first.")
@click.option(
    "--public-name", metavar="NAME",
    help="The name by which people reach it; that of this machine, or ADDR, at first.",
)  # fmt: skip
@click.option(
    "--certificate",
    metavar="FILE",
    shell_complete=completing.files,
    help="The site's own certificate, PEM, with its chain.",
)
@click.option(
    "--key",
    metavar="FILE",
    shell_complete=completing.files,
    help="The key of that certificate, PEM.",
)
@click.option(
    "--own-authority", is_flag=True,
    help="Go back from the site's own certificate to one of the private authority.",
)  # fmt: skip
@click.option(
    "--host",
    shell_complete=completing.hosts,
    help="The host that it runs on; the first one of the inventory at first.",
)
@click.option("--name", help="The gateway's name, where several sites share a Docker host.")
@output_option
def up(
    address: str | None,
    port: int | None,
    public_name: str | None,
    certificate: str | None,
    key: str | None,
    *,
    own_authority: bool,
    host: str | None,
    name: str | None,
    output: str,
) -> None:
    """Bring the gateway up, or hand a running one what has changed.

    What is not given stays as it was. Without a certificate a private certificate authority is
    made, which vouches for the gateway alone. Connections that are open go on, unless address or
    port change.

    \b
    Examples:
      epic-run gateway up
      epic-run gateway up --public-name gw.example.com --port 443
      epic-run gateway up --certificate gw.pem --key gw.key
    """
    from epic_runner.catalog import load_catalog
    from epic_runner.gateway import lifecycle
    from epic_runner.resources import content_root

    pair = lifecycle.read_pair(certificate, key)
    if pair is not None and own_authority:
        raise click.UsageError("--certificate and --own-authority exclude each other.")
    wanted = lifecycle.wanted(
        site_hosts(Store()),
        host=host,
        name=name,
        address=address,
        port=port,
        public_name=public_name,
        has_own_authority=False if pair is not None else own_authority or None,
    )
    image = load_catalog(content_root() / "images").apps["gateway"].reference
    with acting(output) as context:
        lifecycle.up(context, wanted, image=image, pair=pair)
    _show(output)


@gateway.command()
@output_option
def status(output: str) -> None:
    """Show the gateway: its address, its certificate, and what it leads to.

    \b
    Examples:
      epic-run gateway status
    """
    _show(output)


@gateway.command()
@click.option("--lost", is_flag=True, help="Its host is gone for good: only forget it.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@output_option
def down(*, lost: bool, yes: bool, output: str) -> None:
    """Remove the gateway; its keys, certificates and settings stay.

    Another `epic-run gateway up`, also on another host, leads to the clusters that were behind it.
    Without one they are reached on this machine again after `epic-run repair`, if it is the only
    host.

    \b
    Examples:
      epic-run gateway down --yes
      epic-run gateway down --lost && epic-run gateway up --host host-2
    """
    from epic_runner.gateway import lifecycle, site

    known = site.load_or_refuse()
    if not yes:
        click.confirm(
            f"Remove the gateway {known.url}, and end all connections?", abort=True, err=True
        )
    with acting(output) as context:
        left = lifecycle.down(context, known, lost=lost)

    def human() -> None:
        if lost:
            click.echo(f"{known.url} is forgotten; nothing was asked of host {known.host}.")
            click.echo(
                click.style("Hint: ", fg="cyan")
                + "epic-run gateway up --host OTHER makes another one, which leads to the same "
                f"clusters. Should {known.host} come back, epic-run host drain {known.host} --undo "
                "removes what is left there."
            )
            return
        click.echo(f"{known.url} is gone.")
        for name in left:
            click.echo(
                click.style("Hint: ", fg="cyan")
                + f" epic-run repair {name} brings its addresses back to this machine; it restarts "
                "its nodes."
            )

    emit({"removed": known.name, "left": left}, human, output)


def _show(output: str) -> None:
    data = _state()
    emit(data, lambda: _print_state(data), output)


def _state() -> dict[str, Any]:
    from epic_runner.deadline import ANSWER_SECONDS, within
    from epic_runner.docker_api import inspect
    from epic_runner.errors import DockerUnavailable, EpicError
    from epic_runner.gateway import certificates, lifecycle, site

    known = site.load_or_refuse()
    hosts = site_hosts(Store())
    try:
        with within(ANSWER_SECONDS):
            state = str(inspect(hosts[known.host], known.container)["State"]["Status"])
    except DockerUnavailable:
        state = "silent"
    except (EpicError, KeyError):
        state = "missing"
    tells = state not in ("missing", "silent")
    with Store().read() as transaction:
        clusters = transaction.clusters()
    certificate = site.file("server.pem").read_bytes()
    return {
        **asdict(known),
        "url": known.url,
        "container": known.container,
        "state": state,
        "authority_file": str(site.file("ca.pem")) if known.has_own_authority else None,
        "certificate_names": certificates.names_of(certificate),
        "certificate_ends": certificates.expires(certificate).isoformat(),
        "paths": sorted(site.routed_paths(known, hosts)) if tells else [],
        "not_behind": lifecycle.not_routed(known, clusters, hosts) if tells else [],
    }


def _print_state(data: dict[str, Any]) -> None:
    click.secho(f"{data['url']}  {data['state']}", bold=True)
    click.echo(f"  certificate  for {', '.join(data['certificate_names'])}")
    click.echo(f"  ends         {data['certificate_ends'][:10]}")
    if data["authority_file"]:
        click.echo(f"  authority    {data['authority_file']} (let browsers trust it)")
    # Every node has a path for ssh, which no browser opens.
    for path in (path for path in data["paths"] if not path.endswith("/ssh")):
        click.echo(f"  {data['url']}{path}/")
    if data["state"] == "silent":
        click.echo(
            click.style("Hint: ", fg="cyan")
            + f" Host {data['host']} does not answer. epic-run gateway up brings its routes up to "
            "date when it is back; if it is gone for good, epic-run gateway down --lost."
        )
    elif data["state"] != "running":
        click.echo(click.style("Hint: ", fg="cyan") + " epic-run gateway up")
    for name in data["not_behind"]:
        click.echo(
            click.style("Hint: ", fg="cyan")
            + f" epic-run repair {name} puts {name} behind the gateway; it restarts its nodes."
        )
