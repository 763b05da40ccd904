"""Two hosts on a bad wire, in virtual time.

A `World` jumps from deadline to deadline; nothing waits and nothing reads a clock. One seed decides
everything random: ports and secrets of both hosts, and each frame's fate.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from appliance.net.stack import Host
from appliance.net.tcp import Connection, TcpSettings
from appliance.net.vif.base import Vif
from appliance.net.vif.impair import Impairment, impaired_pair
from appliance.net.vif.offload import equip
from appliance.net.wire.address import from_text

CLIENT, SERVER = "10.0.0.1", "10.0.0.2"
BATCH = 64
SPINS = 20_000
"""Rounds at one instant before the world is called a livelock."""


class Node:
    """A host, its interface, and what its driver would remember."""

    def __init__(self, vif: Vif, address: str, seed: int) -> None:
        self.vif = vif
        self.host = Host(vif, random=random.Random(seed))
        self.woken = False
        self.writable = False
        self.trace: list[tuple[float, bytes]] = []
        """Every frame that the host was given, and when."""
        self.host.wake = self._wake
        vif.on_writable = self._writable
        self.host.add_address(f"{address}/24")

    def turn(self, now: float) -> bool:
        """Do what a driver does in one wake-up; False when there was nothing to do."""
        worked = False
        frames = self.vif.receive(BATCH)
        if frames:
            self.trace += [(now, frame) for frame in frames]
            self.host.receive(frames, now)
            worked = True
        if self.woken or (self.writable and self.host.blocked()):
            self.woken = self.writable = False
            self.host.flush(now)
            worked = True
        if self.host.deadline() <= now:
            self.host.run_timers(now)
            worked = True
        return worked

    def _wake(self) -> None:
        self.woken = True

    def _writable(self) -> None:
        self.writable = True


class World:
    """A client's host, a server's host, and the wire between them."""

    def __init__(
        self,
        seed: int,
        there: Impairment,
        back: Impairment | None = None,
        *,
        offload: bool = True,
        mtu: int = 1500,
        capacity: int = 1024,
    ) -> None:
        left, right, self.wire = impaired_pair(
            random=random.Random(seed * 3),
            there=Impairment(),
            offload=offload,
            mtu=mtu,
            capacity=capacity,
        )
        self.now = 100.0
        self.client = Node(equip(left), CLIENT, seed * 3 + 1)
        self.server = Node(equip(right), SERVER, seed * 3 + 2)
        self.nodes = (self.client, self.server)
        # Who they are they learn on a good wire: three lost questions end an attempt to connect,
        # which is right (RFC 1122 §2.3.2.1), and not what is asked here.
        self.client.host.neighbors.lookup(from_text(SERVER), self.now)
        self.run(seconds=0.0)
        self.wire.set_impairment(there, back)

    def run(self, done: Callable[[], bool] = lambda: False, *, seconds: float = 600.0) -> None:
        """Go on until `done()`, or until nothing is left to happen, at most for `seconds`."""
        until = self.now + seconds
        while not done():
            for spin in range(SPINS):
                self.wire.advance(self.now)
                if not self._turns() and self.wire.deadline() > self.now:
                    break
                assert spin < SPINS - 1, f"livelock at {self.now}"
            if done():
                return
            following = min(self.wire.deadline(), *(node.host.deadline() for node in self.nodes))
            if following > until:
                self.now = until if following != math.inf else self.now
                return
            assert following > self.now
            self.now = following

    def settle(self) -> None:
        """Let everything end: FIN exchanges, orphans, TIME-WAIT."""
        self.run(seconds=1_000.0)

    def connections(self) -> list[object]:
        """Everything that either host still keeps of any connection."""
        return [flow for node in self.nodes for flow in node.host.tcp.flows.values()]

    def _turns(self) -> bool:
        worked = False
        for node in self.nodes:
            worked |= node.turn(self.now)
        return worked


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
