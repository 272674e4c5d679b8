"""Bringing images to hosts: which ones, and running the playbook that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epic_runner import docker_api
from epic_runner.catalog import Catalog
from epic_runner.errors import InputError, NotFound
from epic_runner.events import Listener, Step
from epic_runner.hosts import Host, local_host
from epic_runner.images.builder import choose
from epic_runner.inventory import hosts_inventory
from epic_runner.operations import new_id, operation_directory
from epic_runner.runner import run_playbook

# An image that a host has because it is the machine on which it was built.
OWN = "own"


@dataclass(frozen=True)
class Brought:
    """What came of one host.

    Attributes:
        host: Its name.
        images: By reference `pulled`, `unchanged` or `own`.
        moved_bytes: What went through SSH; None where a registry of the site was used.
    """

    host: str
    images: Mapping[str, str] = field(default_factory=dict)
    moved_bytes: int | None = None


def wanted(catalog: Catalog, names: Sequence[str]) -> list[str]:
    """Return the references of apps' images; without names, all that nodes run and that are built.

    Raises:
        NotFound: There is no such app, or its image is not built.
    """
    apps = choose(catalog, names)
    built = docker_api.images(local_host())
    if not names:
        apps = tuple(app for app in apps if app.reference in built and (app.roles or app.services))
    missing = [app for app in apps if app.reference not in built]
    if missing or not apps:
        what = f"{', '.join(app.reference for app in missing)} is not" if missing else "No image is"
        raise NotFound(
            f"{what} built yet.",
            " ".join(["epic-run image build", *(app.name for app in missing)]),
        )
    return [app.reference for app in apps]


def push(
    references: Sequence[str],
    hosts: Mapping[str, Host],
    *,
    registry: str | None = None,
    listener: Listener = lambda _step: None,
) -> list[Brought]:
    """Bring images to the hosts that lack them, all hosts at once.

    Args:
        references: The images.
        hosts: The hosts by name; nothing has to be done for this machine.
        registry: A registry of the site to go through, `HOST[:PORT][/PREFIX]`; by default the
            controller's own, through SSH.
        listener: Told of each step.

    Raises:
        InputError: `registry` names none.
        OperationFailed: A host could not get them; the others have theirs.
    """
    first = (registry or "localhost").partition("/")[0]
    if first != "localhost" and not {".", ":"} & {*first}:
        raise InputError(
            f'"{registry}" is no registry.',
            "Write it as HOST[:PORT][/PREFIX], such as reg.site:5000/epic.",
        )
    came = {
        name: Brought(name, dict.fromkeys(references, OWN), 0)
        for name, host in hosts.items()
        if host.is_local
    }
    others = {name: host for name, host in hosts.items() if not host.is_local}

    def listen(step: Step) -> None:
        if step.result:
            came[step.node] = Brought(
                step.node, step.result["images"], step.result.get("moved_bytes")
            )
        listener(step)

    if others:
        variables: dict[str, Any] = {"epic_images": list(references)}
        if registry:
            variables["epic_registry"] = registry
        operation = new_id()
        run_playbook(
            "images",
            hosts_inventory(others, variables),
            operation_directory(operation),
            operation=operation,
            listener=listen,
        )
    return [came[name] for name in hosts if name in came]
