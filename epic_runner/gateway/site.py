"""The gateway of this site: what is remembered of it below `EPIC_HOME`, and where it leads."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from epic_runner.deadline import ANSWER_SECONDS, within
from epic_runner.errors import DockerUnavailable, EpicError, InputError
from epic_runner.gateway.paths import cluster_prefix
from epic_runner.hosts import Host
from epic_runner.resources import home, private_directory

DEFAULT_NAME = "gateway"
DEFAULT_PORT = 8443
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - a gateway is there to be reached

# What containers of the project's own are called, behind `epic-`.
TAKEN_NAMES = frozenset({"firewall", "registry"})

# The cookie that carries a session; the role `gateway` has the same name.
COOKIE = "__Secure-epic"

_HTTPS_PORT = 443
_ROUTES_FILE = "/var/lib/gateway/routes.map"


@dataclass(frozen=True)
class Gateway:
    """The gateway that people reach this site's clusters by.

    Attributes:
        name: Its name; container, network and volume are `epic-NAME`.
        host: The Docker host that it runs on; empty of one that was lost with its host.
        address: The host's address on which it is published.
        port: The port.
        public_name: The name by which people reach it, in addresses and in its certificate.
        has_own_authority: Whether its certificate is from the private certificate authority.
    """

    name: str
    host: str
    address: str
    port: int
    public_name: str
    has_own_authority: bool

    @property
    def container(self) -> str:
        """The name of its container."""
        return f"epic-{self.name}"

    @property
    def url(self) -> str:
        """Where people reach it, without a slash at the end."""
        name = f"[{self.public_name}]" if ":" in self.public_name else self.public_name
        return f"https://{name}" + ("" if self.port == _HTTPS_PORT else f":{self.port}")


def folder() -> Path:
    """Return where the gateway's keys and certificates are kept."""
    return home() / "gateway"


def file(name: str) -> Path:
    """Return a file of the gateway's."""
    return folder() / name


def keep_file(name: str, content: bytes) -> Path:
    """Write a file that only its owner can read, as a whole or not at all."""
    private_directory(folder())
    path = file(name)
    draft = path.with_name(f".{name}")
    draft.unlink(missing_ok=True)
    draft.touch(0o600)
    draft.write_bytes(content)
    draft.replace(path)
    return path


def keep_once(name: str, make: Callable[[], bytes]) -> bytes:
    """Return what a file of the gateway's holds; the first one who asks makes it.

    Of several at once, one makes it for all.
    """
    path = file(name)
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    private_directory(folder())
    draft = path.with_name(f".{name}.{secrets.token_hex(4)}")
    draft.touch(0o600)
    try:
        draft.write_bytes(make())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()
    return path.read_bytes()


def load() -> Gateway | None:
    """Return the gateway of this site; None where it has none."""
    try:
        text = file("site.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return Gateway(**json.loads(text))


def load_or_refuse() -> Gateway:
    """Return the gateway of this site.

    Raises:
        InputError: It has none.
    """
    gateway = load()
    if gateway is None:
        raise InputError("This site has no gateway.", "epic-run gateway up")
    return gateway


def before() -> Gateway | None:
    """Return the gateway that this site had before; None where it has one, or had none."""
    try:
        text = file("before.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return Gateway(**json.loads(text))


def refuse_host(host: str, what: str) -> None:
    """Refuse what a host cannot do while the gateway is on it.

    Raises:
        InputError: The gateway is on `host`; `what` says what is refused.
    """
    gateway = load()
    if gateway is not None and gateway.host == host:
        raise InputError(
            f"Host {host} has the gateway, and cannot be {what} with it.",
            "epic-run gateway down, then epic-run gateway up --host OTHER moves it; connections "
            f"through it end. If {host} is gone for good: epic-run gateway down --lost.",
        )


def keep(gateway: Gateway) -> None:
    """Remember the gateway."""
    keep_file("site.json", _as_json(gateway))
    file("before.json").unlink(missing_ok=True)


def forget(gateway: Gateway) -> None:
    """Have a gateway for one that was; keys and certificates stay: browsers know the next one."""
    keep_file("before.json", _as_json(gateway))
    file("site.json").unlink(missing_ok=True)


def _as_json(gateway: Gateway) -> bytes:
    return json.dumps(asdict(gateway), indent=1).encode()


def routed_paths(gateway: Gateway, hosts: Mapping[str, Host]) -> frozenset[str]:
    """Return the paths that lead through the gateway, as its own file has them.

    Raises:
        EpicError: Docker does not answer.
    """
    from epic_runner.docker_api import read_file

    if gateway.host not in hosts:
        return frozenset()
    text = (read_file(hosts[gateway.host], gateway.container, _ROUTES_FILE) or b"").decode()
    return frozenset(f"/{line.split(' ', 1)[0]}" for line in text.splitlines() if line)


def behind(tenant: str, cluster: str, hosts: Mapping[str, Host]) -> Gateway | None:
    """Return the gateway that a cluster is reached by now; None where none is, or none tells."""
    try:
        return surely_behind(tenant, cluster, hosts)
    except DockerUnavailable:
        return None


def surely_behind(tenant: str, cluster: str, hosts: Mapping[str, Host]) -> Gateway | None:
    """Return the gateway that a cluster is reached by now; None where it is reached by none.

    Raises:
        DockerUnavailable: The gateway's host does not tell.
    """
    gateway = load()
    if gateway is None:
        return None
    try:
        with within(ANSWER_SECONDS):
            paths = routed_paths(gateway, hosts)
    except DockerUnavailable:
        raise
    except EpicError:
        return None
    prefix = f"{cluster_prefix(tenant, cluster)}/"
    return gateway if any(path.startswith(prefix) for path in paths) else None
