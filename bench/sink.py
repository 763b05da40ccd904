"""A server that throws away what it is sent and then says how much it was, for the upload row.

    python -m bench.sink stack TAP CIDR PORT        on the appliance's TCP, as a library
    python -m bench.sink kernel ADDRESS PORT        on a kernel socket, by a plain loop of recv_into

The one place of the benchmark that imports the appliance: a library has no command line.
Prints `ready`; leaves on SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable

_PIECE = 1 << 20  # octets of one receive


class _Sink(asyncio.Protocol):
    """Counts."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._count = 0

    def data_received(self, data: bytes) -> None:
        """Throw away."""
        self._count += len(data)

    def eof_received(self) -> bool | None:
        """Say how much it was."""
        self._transport.write(f"{self._count}\n".encode())
        return False


async def on_our_stack(tap: str, cidr: str, port: int) -> None:
    """Serve on a tap until SIGTERM."""
    from appliance.net import Stack
    from appliance.net.vif.tap import open_tap

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Stack(open_tap(tap), addresses=[cidr]) as stack:
        await stack.create_server(_Sink, None, port)
        print("ready", flush=True)
        await stop.wait()


def on_the_kernel(address: str, port: int) -> None:
    """Serve one connection after the other."""
    buffer = bytearray(_PIECE)
    with socket.create_server((address, port)) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                count = 0
                while size := connection.recv_into(buffer):
                    count += size
                connection.sendall(f"{count}\n".encode())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop that `appliance serve` would run on."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["stack", tap, cidr, port]:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(on_our_stack(tap, cidr, int(port)))
        case ["kernel", address, port]:
            on_the_kernel(address, int(port))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
