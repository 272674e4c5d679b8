"""Leads connections on, and runs a command beside it: the way out of a network of its own.

Arguments: FROM=TO for each, a port of 127.0.0.1 or the path of a socket; then perhaps -- COMMAND.
A socket is reached from every network, so one relay on either side of it makes a port of this
machine one of a network that has nothing else.
"""

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def bring_loopback_up() -> None:
    """Give a new network its 127.0.0.1; nothing changes where there is one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        named = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(way, SIOCGIFFLAGS, named))[1]
        if not flags & IFF_UP:
            fcntl.ioctl(way, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


async def connect(to: str) -> Streams:
    """Open a connection to a port or a socket."""
    if to.isdigit():
        return await asyncio.open_connection("127.0.0.1", int(to))
    return await asyncio.open_unix_connection(to)


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what comes, until it ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def main(pairs: list[str], command: list[str]) -> int:
    """Relay until the command ends, or for ever without one."""

    def lead(to: str):
        async def begun(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                far_reader, far_writer = await connect(to)
                await asyncio.gather(pour(reader, far_writer), pour(far_reader, writer))
                far_writer.close()
            writer.close()

        return begun

    for pair in pairs:
        source, _, to = pair.partition("=")
        if source.isdigit():
            await asyncio.start_server(lead(to), "127.0.0.1", int(source))
        else:
            await asyncio.start_unix_server(lead(to), source)
    if not command:
        await asyncio.Event().wait()
    process = await asyncio.create_subprocess_exec(*command)
    return await process.wait()


if __name__ == "__main__":
    where = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    bring_loopback_up()
    sys.exit(asyncio.run(main(sys.argv[1:where], sys.argv[where + 1 :])))
