# It stands in folders of people who have Python and nothing of ours.
# ruff: noqa: T201
"""The way of ssh through the gateway: what a member's ssh_config names as its ProxyCommand.

    python3 tunnel.py HOST          carry this program's input and output to a node
    python3 tunnel.py --configure   write `config` anew, after the folder was moved or copied

It lies in a folder with the member's key, certificate and session, and needs Python 3.7 alone.
"""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import sys
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CHUNK = 1 << 16
CONNECT_SECONDS = 20
LONGEST_ANSWER = 1 << 16
SETTINGS = "gateway.json"

# What the gateway's answers mean to who sits here.
REFUSALS = {
    401: "the session has ended; ask for a new folder: epic-run login --ssh",
    403: "this session is for another tenant or cluster",
    404: "the gateway knows no such node",
    426: "the gateway, or something before it, does not pass on the upgrade to ssh",
    503: "the node does not answer",
}


class Refused(Exception):
    """The gateway did not open the way."""


def node_of(host: str, settings: Mapping[str, Any]) -> str:
    """Return the short name of the node that a host of the config means."""
    cluster: str = settings["cluster"]
    if host == cluster:
        return str(settings["nodes"][0])
    prefix = cluster + "-"
    return host[len(prefix) :] if host.startswith(prefix) else host


def config_text(folder: str, settings: Mapping[str, Any]) -> str:
    """Return the ssh_config of a folder that is at this path.

    Nodes that come later have names like those there are, so they are reached as well.
    """
    cluster = settings["cluster"]
    roles = dict.fromkeys(name.rpartition("-")[0] for name in settings["nodes"])
    later = ["{}-{}-{}".format(cluster, role, "?" * n) for role in roles for n in (1, 2, 3)]
    hosts = [cluster, *(f"{cluster}-{name}" for name in settings["nodes"])]
    # In ssh_config, a % begins what ssh puts in.
    inside = folder.replace("%", "%%")
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(settings["ends"]))
    lines = [
        "# The nodes of {}, for {}, until {}.".format(settings["alias"], settings["user"], until),
        f"# ssh -F {folder}/config {hosts[0]}",
        "Host {}".format(" ".join([*hosts, *later])),
        "    User {}".format(settings["user"]),
        "    HostKeyAlias {}".format(settings["alias"]),
        f'    ProxyCommand python3 "{inside}/tunnel.py" %n',
        f'    IdentityFile "{inside}/key"',
        f'    CertificateFile "{inside}/key-cert.pub"',
        "    IdentitiesOnly yes",
        f'    UserKnownHostsFile "{inside}/known_hosts"',
        "    GlobalKnownHostsFile /dev/null",
        "    StrictHostKeyChecking yes",
        "    UpdateHostKeys no",
        "    PreferredAuthentications publickey",
        "    ServerAliveInterval 60",
    ]
    return "\n".join(lines) + "\n"


def configure(folder: Path) -> None:
    """Write the config of a folder for where it is now, and keep it from others."""
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    (folder / "config").write_text(config_text(str(folder), settings), encoding="utf-8")
    folder.chmod(0o700)
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o600)


def opened(folder: Path, host: str) -> ssl.SSLSocket:
    """Return a connection to a node's SSH server.

    Raises:
        Refused: The gateway did not open the way.
    """
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    session = (folder / "session").read_text(encoding="ascii").strip()
    authority = folder / "ca.pem"
    context = ssl.create_default_context(cafile=str(authority) if authority.exists() else None)
    where = (settings["host"], settings["port"])
    raw = socket.create_connection(where, timeout=CONNECT_SECONDS)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = context.wrap_socket(raw, server_hostname=settings["host"])
    name = f"[{where[0]}]" if ":" in where[0] else where[0]
    request = [
        "GET {}/{}/ssh HTTP/1.1".format(settings["path"], node_of(host, settings)),
        f"Host: {name}:{where[1]}",
        "Connection: Upgrade",
        "Upgrade: ssh",
        "Cookie: {}={}".format(settings["cookie"], session),
    ]
    connection.sendall(("\r\n".join(request) + "\r\n\r\n").encode("ascii"))
    refuse(_answer(connection))
    connection.settimeout(None)
    return connection


def _answer(connection: ssl.SSLSocket) -> bytes:
    """Return the head of the gateway's answer; not a byte of what follows is taken."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < LONGEST_ANSWER:
        piece = connection.recv(1)
        if not piece:
            break
        head += piece
    return head


def refuse(head: bytes) -> None:
    """Raise Refused unless an answer's head opens the way."""
    words = head.split(None, 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    if status != 101:  # noqa: PLR2004 - Switching Protocols
        raise Refused(REFUSALS.get(status, "the gateway answers {}".format(status or "nothing")))


def carry(connection: ssl.SSLSocket) -> None:
    """Pass on this program's input and the connection's output, until one of them ends."""
    connection.settimeout(0)
    waiting = b""
    while True:
        readers = [connection] if waiting else [connection, sys.stdin]
        ready, _, _ = select.select(readers, [connection] if waiting else [], [])
        while True:
            try:
                data = connection.recv(CHUNK)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            if not data:
                return
            while data:
                data = data[os.write(1, data) :]
        if sys.stdin in ready:
            waiting = os.read(0, CHUNK)
            if not waiting:
                return
        if waiting:
            try:
                waiting = waiting[connection.send(waiting) :]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                continue


def main(arguments: list[str]) -> int:
    """Run the program; return its exit code."""
    folder = Path(__file__).resolve().parent
    if arguments == ["--configure"]:
        configure(folder)
        return 0
    if len(arguments) != 1:
        print("usage: tunnel.py HOST | --configure", file=sys.stderr)
        return 2
    try:
        carry(opened(folder, arguments[0]))
    except Refused as problem:
        print(f"{arguments[0]}: {problem}.", file=sys.stderr)
        return 1
    except (BrokenPipeError, ConnectionResetError):
        return 1
    except OSError as problem:
        print(f"{arguments[0]}: the gateway is not reached: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
