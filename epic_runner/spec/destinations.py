"""What a tenant may reach outside of its network, as people write it: `packages`, `nn1:8020`."""

from __future__ import annotations

import difflib
import ipaddress
import re
from dataclasses import dataclass
from typing import Final

WORDS: Final = ("packages", "datataps")
# Mirrors of packages are served by HTTP and HTTPS.
PACKAGE_PORTS: Final = (80, 443)
_PORTS: Final = range(1, 65536)
_NAME: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*"
)
_NEVER: Final = {
    "169.254.0.0/16": "link-local addresses",
    "127.0.0.0/8": "loopback addresses",
    "224.0.0.0/4": "multicast addresses",
}


@dataclass(frozen=True)
class Destination:
    """What may be reached: an address or network (`10.1.0.0/16`) or a name, and a port; 0: all."""

    to: str
    port: int = 0


class DestinationError(ValueError):
    """A destination is not one; `message` reads on from its place."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def parse_destination(text: str) -> Destination:
    """Return what `ADDRESS`, `CIDR` or `NAME`, each with `:PORT` or without, means.

    Raises:
        DestinationError: It is none of them.
    """
    if "://" in text:
        raise DestinationError("must be a name or an address, not a URL", _without_scheme(text))
    to, colon, port = text.lower().rpartition(":")
    if not colon:
        to, port = text.lower(), ""
    if ":" in to or "[" in to:
        raise DestinationError("must be an IPv4 address: networks of tenants carry no IPv6")
    if colon and not (re.fullmatch("[0-9]{1,5}", port) and int(port) in _PORTS):
        raise DestinationError(f'must have a port from 1 to 65535, not "{port[:20]}"')
    number = int(port or 0)
    if re.fullmatch(r"[0-9./]+", to):
        return Destination(_network(to), number)
    if not _NAME.fullmatch(to):
        raise DestinationError(
            "must be packages, datataps, a network such as 10.1.0.0/16 or a host's name, "
            "the last two with :PORT if not all ports are meant"
        )
    alike = [] if "." in to else difflib.get_close_matches(to, WORDS, n=1, cutoff=0.75)
    if alike:
        raise DestinationError("is neither a network nor a name", f'Did you mean "{alike[0]}"?')
    return Destination(to, number)


def is_network(to: str) -> bool:
    """Whether a destination is an address or a network, and no name."""
    return re.fullmatch(r"[0-9./]+", to) is not None


def _network(text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        raise DestinationError("must be an IPv4 address or a network such as 10.1.0.0/16") from None
    if "/" in text and str(network) != text:
        raise DestinationError(
            "is an address within a network", f"Write {network}, or {text.partition('/')[0]}."
        )
    for never, what in _NEVER.items():
        if network.subnet_of(ipaddress.IPv4Network(never)):
            raise DestinationError(f"is of the {what}, which no tenant may reach")
    return text


def _without_scheme(url: str) -> str:
    scheme, _, rest = url.partition("://")
    host = rest.split("/")[0].rpartition("@")[2]
    port = "" if ":" in host else {"http": ":80", "https": ":443"}.get(scheme, "")
    return f"Write {host[:253]}{port}."
