"""`epic-run image`: build the images of apps, look at them, and bring them to hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from epic_runner.catalog import Catalog, load_catalog
from epic_runner.cli import completing
from epic_runner.output import bytes_text, emit, output_option, table
from epic_runner.resources import content_root

if TYPE_CHECKING:
    from epic_runner.images import BuildLine, BuiltImage, ImageState
    from epic_runner.images.hosts import Brought


def _catalog() -> Catalog:
    return load_catalog(content_root() / "images")


@click.group()
def image() -> None:
    """Build the images of apps, list them, show what is inside, bring them to hosts."""


@image.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completing.apps)
@click.option("--force", is_flag=True, help="Build even what is fresh, without cached steps.")
@click.option(
    "--relock",
    is_flag=True,
    help="Take the Debian packages that are served now, and write them into the lock files.",
)
@click.option("--base", metavar="IMAGE", help="An image of Debian 12 to build the base on.")
@click.option("--verbose", "-v", is_flag=True, help="Print all that the steps print.")
@output_option
def build(
    names: tuple[str, ...],
    *,
    force: bool,
    relock: bool,
    base: str | None,
    verbose: bool,
    output: str,
) -> None:
    """Build the images of the apps NAME, or of all apps.

    Parents are built first; what is fresh is left alone. Certificate authorities in
    /usr/local/share/ca-certificates and in the file that EPIC_CA_BUNDLE names, and http_proxy,
    https_proxy and no_proxy are used.

    \b
    Examples:
      epic-run image build
      epic-run image build spark --verbose
      EPIC_CA_BUNDLE=site.pem epic-run image build --force
    """
    from epic_runner import images
    from epic_runner.docker_build import connect

    def on_line(line: BuildLine) -> None:
        if line.kind != "output" or verbose:
            mark = "warning: " if line.kind == "warning" else ""
            click.echo(f"{line.image:8} {mark}{line.text}", err=True)

    built = images.build(
        names,
        docker_client=connect(),
        on_line=on_line,
        catalog=_catalog(),
        options=images.BuildOptions(force=force, relock=relock, base=base),
    )
    emit([_outcome(item) for item in built], lambda: _print_outcome(built), output)


def _outcome(item: BuiltImage) -> dict[str, Any]:
    return {
        "name": item.app,
        "image": item.reference,
        "id": item.id,
        "size_bytes": item.size,
        "lock": item.lock,
        "built": item.built,
        "seconds": round(item.seconds, 1),
        "drift": list(item.drift),
    }


def _print_outcome(built: list[BuiltImage]) -> None:
    rows = [
        (
            item.app,
            item.reference,
            bytes_text(item.size),
            f"built in {item.seconds:.0f} s" if item.built else "fresh",
        )
        for item in built
    ]
    click.echo(table(("NAME", "IMAGE", "SIZE", "OUTCOME"), rows))


@image.command("list")
@output_option
def list_(output: str) -> None:
    """List the images of all apps.

    STATE is fresh, stale (a build would change it) or missing (not built here).

    \b
    Examples:
      epic-run image list
      epic-run image list --output json
    """
    found = _states(_catalog())
    emit([_state(item) for item in found.values()], lambda: _print_states(found), output)


def _states(catalog: Catalog) -> dict[str, ImageState]:
    from epic_runner import images
    from epic_runner.docker_build import connect

    return {state.app.name: state for state in images.states(catalog, connect())}


def _state(item: ImageState) -> dict[str, Any]:
    app, facts = item.app, item.facts
    return {
        "name": app.name,
        "version": app.version,
        "revision": app.revision,
        "image": app.reference,
        "parent": app.parent,
        "launchable": app.launchable,
        "label": app.label,
        "summary": app.summary,
        "state": str(item.freshness),
        "built": facts is not None,
        "id": facts.id if facts else None,
        "size_bytes": facts.size if facts else None,
        "created": facts.created if facts else None,
    }


def _print_states(found: Mapping[str, ImageState]) -> None:
    rows = [
        (
            item.app.name,
            item.app.version,
            item.app.reference,
            bytes_text(item.facts.size) if item.facts else "-",
            item.freshness,
            item.app.summary,
        )
        for item in found.values()
    ]
    click.echo(table(("NAME", "VERSION", "IMAGE", "SIZE", "STATE", "SUMMARY"), rows))


@image.command()
@click.argument("name", shell_complete=completing.apps)
@click.option("--sbom", is_flag=True, help="Print its bill of materials, CycloneDX JSON.")
@output_option
def show(name: str, *, sbom: bool, output: str) -> None:
    """Show the image of the app NAME: versions, labels, services, endpoints, packages.

    \b
    Examples:
      epic-run image show spark
      epic-run image show spark --sbom > spark.cdx.json
    """
    from epic_runner import images
    from epic_runner.docker_build import connect

    catalog = _catalog()
    app = images.choose(catalog, [name])[0]
    engine = connect()
    state = next(item for item in images.states(catalog, engine) if item.app is app)
    if sbom:
        bill = images.read_sbom(state, engine)
        emit(bill, lambda: None, "json")
        return
    data = _state(state)
    data["labels"] = dict(state.facts.labels) if state.facts else {}
    data["packages"] = images.package_counts(state, engine)
    data["services"] = [
        {
            "name": service_name,
            "summary": service.summary,
            "endpoints": [endpoint.model_dump() for endpoint in service.endpoints],
        }
        for service_name, service in catalog.services(app).items()
    ]
    data["roles"] = {key: role.model_dump() for key, role in app.roles.items()}
    emit(data, lambda: _print_shown(data), output)


def _print_shown(data: Mapping[str, Any]) -> None:
    click.echo(f"{data['label']}: {data['summary']}")
    size = "-" if data["size_bytes"] is None else bytes_text(data["size_bytes"])
    rows: list[tuple[str, object]] = [
        ("image", data["image"]),
        ("state", data["state"]),
        ("size", size),
        ("created", data["created"] or "-"),
        ("parent", data["parent"] or "-"),
    ]
    rows += [(f"label {key}", value) for key, value in sorted(data["labels"].items())]
    rows += [(f"packages {kind}", count) for kind, count in sorted(data["packages"].items())]
    rows += [(f"role {role}", ", ".join(item["services"])) for role, item in data["roles"].items()]
    for service in data["services"]:
        rows.append((f"service {service['name']}", service["summary"]))
        rows += [
            (f"endpoint {item['name']}", f"{item['label']}, port {item['port']}{item['path']}")
            for item in service["endpoints"]
        ]
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        click.echo(f"  {key.ljust(width)}  {value}")


@image.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completing.apps)
@click.option(
    "--host",
    "-H",
    "hosts",
    multiple=True,
    shell_complete=completing.hosts,
    help="A host to bring them to; all, if none is named.",
)
@click.option(
    "--registry",
    envvar="EPIC_REGISTRY",
    metavar="HOST[:PORT][/PREFIX]",
    help="A registry of the site to go through; else they go through SSH.",
)
@output_option
def push(
    names: tuple[str, ...], *, hosts: tuple[str, ...], registry: str | None, output: str
) -> None:
    """Bring the images of the apps NAME to the hosts, or of all apps that nodes run.

    Only layers move that a host lacks. A launch does the same by itself, for what its nodes need;
    this does it beforehand.

    \b
    Examples:
      epic-run image push
      epic-run image push spark --host rack1-a --host rack1-b
      epic-run image push --registry registry.example.com:5000/epic
    """
    from epic_runner.images import hosts as bringing
    from epic_runner.progress import open_progress
    from epic_runner.site import chosen, site_hosts
    from epic_runner.store import Store

    references = bringing.wanted(_catalog(), names)
    targets = chosen(site_hosts(Store()), hosts)
    with open_progress(quiet=output == "json") as progress:
        came = bringing.push(references, targets, registry=registry, listener=progress.step)
    emit([_brought(item) for item in came], lambda: _print_brought(came), output)


def _brought(item: Brought) -> dict[str, Any]:
    return {"host": item.host, "images": dict(item.images), "moved_bytes": item.moved_bytes}


def _print_brought(came: Sequence[Brought]) -> None:
    rows = [
        (
            item.host,
            reference,
            outcome,
            "-" if item.moved_bytes is None else bytes_text(item.moved_bytes),
        )
        for item in came
        for reference, outcome in item.images.items()
    ]
    click.echo(table(("HOST", "IMAGE", "OUTCOME", "MOVED"), rows))
