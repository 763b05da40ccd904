"""Two hosts on a bad wire, in virtual time: the harness of `appliance.fuzz` with an application.

One seed decides everything random: ports and secrets of both hosts, and each frame's fate.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from appliance.fuzz import Cable, Link, Station
from appliance.fuzz import World as Net
from appliance.net.tcb import TcpSettings
from appliance.net.tcp import Connection

CLIENT, SERVER = "10.0.0.1", "10.0.0.2"

Trace = list[tuple[float, bytes]]


class World(Net):
    """A client's host, a server's host, and the wire between them."""

    def __init__(
        self,
        seed: int,
        there: Link,
        back: Link | None = None,
        *,
        offload: bool = True,
        mtu: int = 1500,
    ) -> None:
        super().__init__(seed)
        self.client = self.host("client", f"{CLIENT}/24", mtu=mtu, offload=offload)
        self.server = self.host("server", f"{SERVER}/24", mtu=mtu, offload=offload)
        self.nodes = (self.client, self.server)
        self.wire: Cable = self.link(self.client, self.server, there, back)
        self.traces: dict[str, Trace] = {}
        """Every frame that each host was given, and when."""
        for node in self.nodes:
            self._record(node)

    def _record(self, node: Station) -> None:
        trace = self.traces[node.name] = []

        def watch(now: float, sent: bool, frame: bytes) -> None:
            if not sent:
                trace.append((now, frame))

        node.port.watchers.append(watch)

    def connections(self) -> list[object]:
        """Everything that either host still keeps of any connection."""
        return self.flows()


class Peer:
    """An application at one end: sends what it is given, keeps what it gets, closes its side.

    It writes at most `high` octets ahead of the network, as asyncio's transports do, and can be
    slow: `reads(peer)` is asked after each delivery and may pause it.
    """

    def __init__(self, pieces: list[bytes], *, high: int = 65_536) -> None:
        self.pieces: Iterator[bytes] = iter(pieces)
        self.expected = b"".join(pieces)
        self.got = bytearray()
        self.high = high
        self.connection: Connection | None = None
        self.established = 0
        self.eof = False
        self.closed: list[Exception | None] = []
        self.pause_every = 0
        self.deliveries = 0
        self.finished_sending = False

    def attach(self, connection: Connection) -> Peer:
        self.connection = connection
        return self

    @property
    def conn(self) -> Connection:
        assert self.connection is not None
        return self.connection

    def tcp_established(self) -> None:
        self.established += 1
        self.feed()

    def tcp_data(self, data: bytes) -> None:
        assert data
        assert not self.eof
        assert not self.closed
        self.got += data
        self.deliveries += 1
        if self.pause_every and self.deliveries % self.pause_every == 0:
            self.conn.pause()

    def tcp_eof(self) -> None:
        assert not self.eof
        self.eof = True

    def tcp_writable(self) -> None:
        self.feed()

    def tcp_closed(self, error: Exception | None) -> None:
        self.closed.append(error)

    def feed(self) -> None:
        """Write up to the mark, then end the stream."""
        while self.conn.unsent <= self.high:
            piece = next(self.pieces, None)
            if piece is None:
                if not self.finished_sending:
                    self.finished_sending = True
                    self.conn.shutdown()
                return
            self.conn.send(piece)
        self.conn.notify_below = self.high // 2


def exchange(
    world: World,
    client: Peer,
    server: Peer,
    *,
    port: int = 80,
    settings: TcpSettings | None = None,
) -> None:
    """Connect `client` to `server`, which begins to send as soon as it is accepted."""
    world.server.host.tcp_listen("", port, server.attach, settings=settings)
    client.attach(world.client.host.tcp_connect(SERVER, port, client, settings=settings))


def pieces(generator: random.Random, total: int, largest: int) -> list[bytes]:
    """`total` random octets in random pieces of up to `largest`."""
    out: list[bytes] = []
    while total > 0:
        size = min(total, generator.randint(1, largest))
        out.append(generator.randbytes(size))
        total -= size
    return out
