"""Stands where ansible-runner expects ansible-playbook, and hands all to an `ansible_server`.

Run as a script, with the standard library alone: it has to start in no time.
Arguments: the name of the server's socket, then the command of ansible-playbook.
"""

import json
import os
import socket
import struct
import sys


def owner(connection: socket.socket) -> int:
    """Return the user of the process at the other end."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", data)[1])


def handed_over(server: socket.socket, address: str, command: list[str]) -> bool:
    """Give the server the command and all that it inherits; return whether it takes it."""
    server.connect("\0" + address)
    if owner(server) != os.getuid():
        return False  # it has gone, and somebody else has its name
    data = json.dumps({"arguments": command, "environment": dict(os.environ)}).encode()
    inherited = [0, 1, 2, os.open(".", os.O_RDONLY)]
    socket.send_fds(server, [struct.pack(">L", len(data))], inherited)
    server.sendall(data)
    return server.recv(1) == b"y"


def main() -> None:
    """End with the exit code of the server's play, or become the command."""
    address, command = sys.argv[1], sys.argv[2:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        try:
            accepted = handed_over(server, address, command)
        except OSError:
            accepted = False
        if not accepted:
            os.execvp(command[0], command)  # noqa: S606 - the very words that were asked for
        # The exit code is its last word, and the end of the connection its own end. A server that
        # was killed leaves none.
        said = b"\1"
        while data := server.recv(1):
            said = data
    sys.exit(said[0])


if __name__ == "__main__":
    main()
