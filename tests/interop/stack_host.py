"""A host of our own on a tap, with small services for the kernel's TCP and UDP to talk to.

    python stack_host.py TAP CIDR

Port 7 echoes (TCP and UDP), port 9 hashes what it is sent until the end and answers the digest,
port 19 sends as many octets as the line it reads says, port 21 connects to "ADDRESS PORT SIZE",
sends there and passes on the answer. Prints `ready`, leaves on SIGTERM.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
from collections.abc import Callable

from appliance.net import Stack, TcpSettings
from appliance.net.vif.base import Vif
from appliance.net.vif.tap import open_tap
from tests.interop.peer import pattern

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


async def _echo(reader: Reader, writer: Writer) -> None:
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()
    writer.close()


async def _sink(reader: Reader, writer: Writer) -> None:
    digest = hashlib.sha256()
    while piece := await reader.read(1 << 16):
        digest.update(piece)
    writer.write(digest.hexdigest().encode())
    writer.close()


async def _source(reader: Reader, writer: Writer) -> None:
    data = pattern(int(await reader.readline()))
    for start in range(0, len(data), 100_000):
        writer.write(data[start : start + 100_000])
        await writer.drain()
    writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


async def main(tap: str, cidr: str, wrap: Callable[[Vif], Vif] = lambda vif: vif) -> None:
    """Serve until SIGTERM; `wrap` may put something between the tap and the stack."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Stack(wrap(open_tap(tap)), addresses=[cidr]) as stack:

        async def connect(reader: Reader, writer: Writer) -> None:
            address, port, size = (await reader.readline()).decode().split()
            to_them, from_us = await stack.open_connection(address, int(port))
            from_us.write(pattern(int(size)))
            await from_us.drain()
            from_us.write_eof()
            writer.write(await to_them.read(-1))
            from_us.close()
            writer.close()

        async def connect_fast(reader: Reader, writer: Writer) -> None:
            """Send a line to the port that is named, as early as may be."""
            address, port = (await reader.readline()).decode().split()
            transport, _ = await stack.create_connection(
                asyncio.Protocol, address, int(port), tcp=TcpSettings(fast_open=1), early=b"early\n"
            )
            transport.write_eof()
            writer.close()

        for port, service in (
            (7, _echo), (9, _sink), (19, _source), (21, connect), (22, connect_fast),
        ):  # fmt: skip
            await stack.start_server(service, None, port)
        await stack.create_server(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), _echo),
            port=8,
            tcp=TcpSettings(fast_open=16),
        )
        await stack.create_datagram_endpoint(_Datagrams, local_addr=("", 7))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
