"""What the verbs share: options, the context they act in, and how they end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from epic_runner.cli import completing
from epic_runner.lifecycle import Context
from epic_runner.progress import Live, open_progress
from epic_runner.site import site_hosts
from epic_runner.store import ClusterRecord, Store

if TYPE_CHECKING:
    # pydantic takes a tenth of a second to import, which most verbs have no use for.
    from epic_runner.spec.models import AppProbe

Command = TypeVar("Command", bound=Callable[..., Any])

# States of jobs and actions; all others are red.
COLOURS = {
    "done": "green", "running": "cyan", "waiting": "cyan", "starting": "cyan",
    "cancelled": "yellow", "cancelling": "yellow", "unknown": "yellow",
}  # fmt: skip


def tenant_option(command: Command) -> Command:
    """Add `--tenant`, for names that more than one tenant uses."""
    return click.option(
        "--tenant",
        "-t",
        envvar="EPIC_TENANT_NAME",
        shell_complete=completing.tenants,
        help="The tenant, where the name needs it.",
    )(command)


def as_option(what: str) -> Callable[[Command], Command]:
    """Return what adds `--as`, the member who acts; `what` says who that is."""
    return click.option(
        "--as",
        "user",
        metavar="USER",
        envvar="EPIC_USER",
        shell_complete=completing.members,
        help=what,
    )


# Who acts if nobody says so.
FIRST_ADMIN = "the tenant's first administrator by default."


def env_option(whose: str) -> Callable[[Command], Command]:
    """Return what adds `--env NAME=VALUE` of a script or program."""
    return click.option(
        "--env", "-e", "environment", multiple=True, metavar="NAME=VALUE",
        help=f"A variable of the {whose}'s environment. May be repeated.",
    )  # fmt: skip


def timeout_option(what: str) -> Callable[[Command], Command]:
    """Return what adds `--timeout DURATION`."""
    return click.option("--timeout", metavar="DURATION", help=what)


def seconds_of(timeout: str | None) -> int:
    """Return the seconds of `--timeout`; 0 if it was not given.

    Raises:
        InputError: It is no duration.
    """
    from epic_runner.errors import InputError
    from epic_runner.spec.quantities import parse_duration

    try:
        return parse_duration(timeout) if timeout else 0
    except ValueError as problem:
        raise InputError(f"--timeout {timeout}: {problem}.") from problem


def by_options(command: Command) -> Command:
    """Add `--role` and `--by`, of expand and shrink."""
    command = click.option(
        "--by", type=click.IntRange(min=1), default=1, show_default=True, help="How many nodes."
    )(command)
    return click.option(
        "--role",
        default="worker",
        show_default=True,
        shell_complete=completing.roles,
        help="Which node role.",
    )(command)


@contextmanager
def acting(output: str) -> Iterator[Context]:
    """Open the store and show the progress of one change."""
    store = Store()
    hosts = site_hosts(store)
    progress = open_progress(quiet=output == "json")
    listener = progress.step
    if isinstance(progress, Live):
        from epic_runner.watch import Watcher

        listener = Watcher(store, hosts, probes(), progress).step
    try:
        with progress:
            yield Context(store, hosts, listener)
    finally:
        store.close()


def probes() -> dict[str, AppProbe]:
    """Return the probe of each service of the catalogue that has one."""
    from epic_runner.catalog import load_catalog
    from epic_runner.resources import content_root

    return {
        name: service.probe
        for app in load_catalog(content_root() / "images")
        for name, service in app.services.items()
        if service.probe is not None
    }


def node_of(cluster: ClusterRecord, name: str | None) -> Any:
    """Return the node that `name` (`worker-2`, `lab-worker-2`, or a node role) means.

    The first node when None. Raises NotFound.
    """
    from epic_runner.errors import NotFound

    for node in cluster.nodes:
        if name in (None, node.short_name, node.name, node.role):
            return node
    names = ", ".join(node.short_name for node in cluster.nodes)
    raise NotFound(f"{cluster.name} has no node {name}; it has {names or 'none'}.")


def when(at: float) -> str:
    """Return a time, in seconds since the epoch, as people read it here."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def is_terminal() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()
