"""Hostile TLS for a live listener: our TLS over our TCP, across a link in virtual time.

An input's first octet says when its octets come and how; the rest is a stream of records, or not.

    bits 0-1   at once; after a sound ClientHello; after a sound handshake; as plain text of one
    bits 2-3   whole; in halves; octet by octet (the first PIECES); record by record, 0.7 s apart
    bits 4-5   then: silence until the deadlines are over; FIN; reset; FIN in the same instant

OpenSSL's own randomness has no seed, so keys differ from run to run; what is asked and judged does
not. Imports `target`, `mutate_tls`, `world`, the stack's transport, and TLS when it is made.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Callable
from typing import Any, Final

from appliance.fuzz import invariants, mutate_tls
from appliance.fuzz.link import Link
from appliance.fuzz.target import PATIENCE, BrokenRuleError, corpus
from appliance.fuzz.world import World
from appliance.net.tcp import Connection
from appliance.net.tcp_state import CLOSED
from appliance.net.transport_stream import StreamTransport

PORT: Final = 443
PIECES: Final = 60
"""Octets that come one by one; the rest follows whole."""
APART: Final = 0.7
"""Seconds between records that come one by one; ten of them outlast a handshake's deadline."""
RECORDS: Final = 20
"""Records that come one by one; the rest follows whole."""
OVER: Final = 60.0
"""Seconds after which a connection that says no more is gone: the handshake's deadline (10 s), or
close() (stall and two lingers, 40 s), and what TCP needs to end."""
LARGEST: Final = mutate_tls.RECORD + 256
"""Octets of a protected record (RFC 8446 §5.2)."""


class VirtualLoop:
    """As much of an event loop as transports and protocols ask for, in a world's time."""

    def __init__(self, world: World) -> None:
        self.escaped: list[str] = []
        self._world = world

    def time(self) -> float:
        """Seconds."""
        return self._world.now

    def call_soon(self, call: Callable[..., Any], *words: Any, context: Any = None) -> _Handle:
        """Call at this instant."""
        return self.call_later(0.0, call, *words)

    def call_later(
        self, delay: float, call: Callable[..., Any], *words: Any, context: Any = None
    ) -> _Handle:
        """Call in `delay` seconds."""
        handle = _Handle(call, words)
        self._world.after(delay, handle.run)
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An exception came out of a protocol: that is what is looked for."""
        self.escaped.append(f"{context.get('message')}: {context.get('exception')!r}")


class _Handle:
    def __init__(self, call: Callable[..., Any], words: tuple[Any, ...]) -> None:
        self._call: Callable[..., Any] | None = call
        self._words = words

    def run(self) -> None:
        if self._call is not None:
            self._call(*self._words)

    def cancel(self) -> None:
        self._call = None
        self._words = ()


class _Owner:
    """Counts transports; nobody asks."""

    def attach(self, transport: StreamTransport) -> None: ...

    def detach(self, transport: StreamTransport) -> None: ...


class _Echo(asyncio.Protocol):
    """What is above TLS."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data[:4_096])


class _Wire:
    """A client's end of a TCP connection: collects, and says what it is told."""

    def __init__(self) -> None:
        self.connection: Connection
        self.received = bytearray()
        self.open = False
        self.ended = False
        self.closed = False

    def tcp_established(self) -> None:
        self.open = True

    def tcp_data(self, data: bytes) -> None:
        self.received += data

    def tcp_eof(self) -> None:
        self.ended = True

    def tcp_writable(self) -> None: ...

    def tcp_closed(self, error: Exception | None) -> None:
        self.closed = self.ended = True

    def send(self, data: bytes) -> None:
        """Say it, unless there is nobody to hear it."""
        if data and not self.closed and self.connection.state != CLOSED:
            self.connection.send(data)


class Tls:
    """A TLS listener with an echo above it, a good client that stays, and attackers that come."""

    name = "tls"

    def __init__(self) -> None:
        from OpenSSL import SSL

        from appliance.tls.authority import throwaway
        from appliance.tls.contexts import Contexts

        self._ssl = SSL
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._contexts = Contexts([throwaway()], protocols=[b"http/1.1"], service="fuzz", now=0.0)
        self.renew()

    def renew(self) -> None:
        """A new listener, a new good client."""
        from appliance.tls.protocol import TlsServer

        self._used = 0
        self._world = World(1)
        self._loop = VirtualLoop(self._world)
        self._host = self._world.host("victim")
        self._peer = self._world.host("peer")
        self._world.link(self._host, self._peer, Link(delay=0.001))
        self._server = TlsServer(self._contexts, lambda _: _Echo())
        owner = _Owner()

        def accept(connection: Connection) -> StreamTransport:
            loop: Any = self._loop
            return StreamTransport(loop, self._server, owner, connection)

        self._host.host.tcp_listen("", PORT, accept)
        self._wire, self._good = self._shaken()
        self._asks = 0

    @property
    def counters(self) -> Any:
        """What the listener has counted."""
        return self._server.counters

    def seeds(self) -> list[bytes]:
        """Streams for each time and way to come."""
        made = mutate_tls.seeds()
        first = [bytes((how,)) + data for how in (0x00, 0x04, 0x10) for data in made[:14]]
        ways = (0x01, 0x02, 0x03, 0x08, 0x0C, 0x12, 0x21, 0x22, 0x30, 0x32)
        return (
            corpus(self.name) + first + [bytes((way,)) + data for way in ways for data in made[14:]]
        )

    def mutate(self, data: bytes, random: random_module.Random) -> bytes:
        """Another stream, now and then at another time."""
        how = data[:1] if data and random.random() < 0.8 else bytes((random.randrange(64),))
        return how + mutate_tls.tls(data[1:], random)

    # ------------------------------------------------------------------ one attack

    def try_one(self, data: bytes) -> None:
        """No exception; every connection told of, and gone; the good client is answered."""
        if not data:
            return
        self._used += 1
        if self._used > PATIENCE:
            self.renew()
        how, octets = data[0], data[1:]
        counters = self._server.counters
        before, accepted = self._told(), counters.accepted
        wire, client = self._begin(how & 3)
        if how & 3 == 3 and client is not None:
            self._say(wire, client, octets[: mutate_tls.RECORD] or b"x")
        else:
            self._send(wire, octets, how >> 2 & 3)
        reset = self._end(wire, how >> 4 & 3)
        if self._loop.escaped:
            raise BrokenRuleError(f"exception: {self._loop.escaped[0]}")
        if counters.accepted != accepted + 1:
            raise BrokenRuleError(f"accounting: {counters.accepted - accepted} for one connection")
        if self._told() == before and not reset:
            raise BrokenRuleError("accounting: no counter tells what became of a connection")
        self._judge(wire)
        self._ask()

    def _told(self) -> int:
        counters = self._server.counters
        return counters.handshakes + counters.http + sum(counters.failures.values())

    def _begin(self, when: int) -> tuple[_Wire, Any]:
        if when >= 2:
            return self._shaken()
        wire = self._connected()
        if when == 1:
            client = self._client()
            self._pump(wire, client)
            self._run(0.01)
        return wire, None

    def _send(self, wire: _Wire, octets: bytes, way: int) -> None:
        if way == 1:
            pieces = [octets[: len(octets) // 2], octets[len(octets) // 2 :]]
        elif way == 2:
            pieces = [octets[i : i + 1] for i in range(min(PIECES, len(octets)))]
            pieces.append(octets[PIECES:])
        elif way == 3:
            parts = mutate_tls.taken_apart(octets)
            pieces = [*parts[:RECORDS], b"".join(parts[RECORDS:])]
        else:
            pieces = [octets]
        for piece in pieces:
            wire.send(piece)
            self._run(APART if way == 3 else 0.003)

    def _end(self, wire: _Wire, way: int) -> bool:
        """End a connection, wait until it is gone; whether it was a reset of ours that ended it."""
        reset = way == 2 and not wire.closed
        if not wire.closed:
            if reset:
                wire.connection.abort()
            elif way:
                wire.connection.shutdown()
        if way == 0:
            self._run(OVER, lambda: wire.ended)
            if not wire.ended and self._server.handshaking:
                raise BrokenRuleError("deadline: a handshake was waited for longer than it may")
            if not wire.closed:
                wire.connection.shutdown()
        self._run(OVER, lambda: wire.closed)
        if not wire.closed:
            wire.connection.abort()
            self._run(1.0)
        if self._server.handshaking:
            raise BrokenRuleError("afterlife: a handshake of a connection that is gone")
        return reset

    def _judge(self, wire: _Wire) -> None:
        """RFC 8446 §5.1: what came back is records, or the one sentence for plain HTTP."""
        data = bytes(wire.received)
        if data.startswith(b"HTTP/1.1 400 "):
            return
        for record in mutate_tls.taken_apart(data):
            size = int.from_bytes(record[3:5])
            if record[0] not in (20, 21, 22, 23) or record[1:2] != b"\x03" or size > LARGEST:
                raise BrokenRuleError(f"answer: a record begins with {record[:5].hex()}")
        for rule, text in invariants.of_host(self._host.host):
            raise BrokenRuleError(f"{rule}: {text}")

    def _ask(self) -> None:
        """The good client asks, and is answered."""
        self._asks += 1
        question = f"question {self._asks}".encode()
        self._say(self._wire, self._good, question)
        heard = self._hear(self._wire, self._good)
        if heard != question:
            raise BrokenRuleError(f"neighbour: a good client heard {heard!r}")

    # ------------------------------------------------------------------ good clients

    def _run(self, seconds: float, done: Callable[[], bool] | None = None) -> None:
        """Let time pass, with the loop as the running one."""
        loop: Any = self._loop
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(loop)
        try:
            self._world.run(done, seconds=seconds)
        finally:
            asyncio._set_running_loop(before)

    def _connected(self) -> _Wire:
        wire = _Wire()
        wire.connection = self._peer.host.tcp_connect(self._host.address, PORT, wire)
        self._run(5.0, lambda: wire.open or wire.closed)
        if not wire.open:
            raise BrokenRuleError("neighbour: a connection is refused")
        return wire

    def _client(self) -> Any:
        client = self._ssl.Connection(self._context, None)
        client.set_tlsext_host_name(b"probe.invalid")
        client.set_connect_state()
        return client

    def _shaken(self) -> tuple[_Wire, Any]:
        wire, client = self._connected(), self._client()
        for _ in range(6):
            if self._pump(wire, client):
                break
            self._run(0.01)
        else:
            raise BrokenRuleError("neighbour: a sound handshake does not end")
        self._run(0.01)
        return wire, client

    def _pump(self, wire: _Wire, client: Any) -> bool:
        """One step of a handshake; whether it is done."""
        self._feed(wire, client)
        try:
            client.do_handshake()
            done = True
        except self._ssl.WantReadError:
            done = False
        self._flush(wire, client)
        return done

    def _feed(self, wire: _Wire, client: Any) -> None:
        if wire.received:
            client.bio_write(bytes(wire.received))
            wire.received.clear()

    def _flush(self, wire: _Wire, client: Any) -> None:
        try:
            while True:
                wire.send(client.bio_read(1 << 16))
        except self._ssl.WantReadError:
            return

    def _say(self, wire: _Wire, client: Any, octets: bytes) -> None:
        client.send(octets)
        self._flush(wire, client)
        self._run(0.01)

    def _hear(self, wire: _Wire, client: Any) -> bytes:
        self._feed(wire, client)
        try:
            return bytes(client.recv(1 << 16))
        except self._ssl.Error as error:
            return repr(error).encode()
