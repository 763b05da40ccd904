"""The way from the host's own sockets into a stack that runs on a pair, without any privilege.

A second stack, on the other end of the pair, speaks to the appliance; the gateway listens on
sockets of the kernel and carries octets between the two. Each accepted connection becomes a
connection of our own, so everything that a browser sees has crossed TCP/IP written here:

    browser -- kernel socket -- gateway -- our TCP -- pair -- our TCP -- HTTP

Back-pressure, half-close and reset are carried both ways. It looks at no octet that it carries.
May import everything; needs the kernel's sockets, which nothing else in the appliance uses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from appliance.net.transport import Stack
from appliance.net.udp import UdpSocket
from appliance.ports import PortsError, bind_near

MAX_CONNECTIONS: Final = 960
"""Relayed connections at once, of all ports together: a process has 1,024 descriptors unless
somebody raised that, and without one left it can load nothing again."""
MAX_FLOWS: Final = 1024
"""UDP exchanges remembered at once, one socket of ours each (some 1 KB); the idlest makes room."""
FLOW_IDLE: Final = 10.0
"""Seconds without a datagram after which a UDP exchange is over: twice what dig waits."""
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing the kernel's socket sends RST; socket(7)."""

Address = tuple[str, int]


@dataclass
class Tally:
    """What the gateway has counted."""

    connections: int = 0  # accepted from the kernel
    relayed: int = 0  # of these, the ones that are there now
    refused: int = 0  # of these, reset because the appliance did not take them
    over_limit: int = 0  # of these, reset because there were MAX_CONNECTIONS
    flows: int = 0  # UDP exchanges begun
    flows_evicted: int = 0  # ended early to make room
    datagrams_dropped: int = 0  # the stack took one not


class _Side(asyncio.Protocol):
    """One of the two transports of a relayed connection; octets that arrive go to the other."""

    __slots__ = ("finished", "other", "transport")

    def __init__(self) -> None:
        self.transport: Any = None  # a kernel transport, or one of ours
        self.other: _Side | None = None  # None before both exist, and after the end
        self.finished = False  # this side has said all: EOF came from it

    def data_received(self, data: bytes) -> None:
        """Carry octets across."""
        if self.other is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Carry a half-close across; the second one ends both sides."""
        other = self.other
        if other is not None and not self.finished:
            self.finished = True
            other.transport.write_eof()
            if other.finished or self.is_last_word():
                self.transport.close()
                other.transport.close()
        return True

    def is_last_word(self) -> bool:
        """Whether an EOF from this side ends the other direction too."""
        return False

    def pause_writing(self) -> None:
        """Stop reading the other side: this one takes no more."""
        other = self.other
        # asyncio's resume_reading() after EOF would deliver the EOF again.
        if other is not None and not other.finished and not other.transport.is_closing():
            other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read the other side again."""
        other = self.other
        if other is not None and not other.finished and not other.transport.is_closing():
            other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Carry the end across: a reset as a reset."""
        other, self.other = self.other, None
        if other is None:
            return
        other.other = None
        if exc is None:
            other.transport.close()
        else:
            other.reset()

    def reset(self) -> None:
        """End this side so that its peer sees a reset."""
        self.transport.abort()


class _Far(_Side):
    """Our connection to the appliance."""

    __slots__ = ("_relay",)

    def __init__(self, relay: TcpRelay, near: _Near) -> None:
        super().__init__()
        self._relay = relay
        self.other = near

    def is_last_word(self) -> bool:
        """While the appliance drains its connections an EOF means that it has closed."""
        return self._relay.draining

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the two sides and begin to read from the kernel's."""
        self.transport = transport
        near = self.other
        assert isinstance(near, _Near)
        if near.transport.is_closing():
            self.other = None
            self.reset()
            return
        near.join(self)


class _Near(_Side):
    """The kernel's connection to a client of this host."""

    __slots__ = ("_early", "_early_eof", "_relay", "_task")

    def __init__(self, relay: TcpRelay) -> None:
        super().__init__()
        self._relay = relay
        self._task: asyncio.Task[None] | None = None
        # What came before the appliance took the connection: uvloop begins to read after
        # connection_made() although that paused it. One read at most, since it is paused again.
        self._early = b""
        self._early_eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing until the appliance has taken the connection."""
        self.transport = transport
        self.transport.pause_reading()
        if self._relay.admit(self):
            self._task = asyncio.get_running_loop().create_task(self._relay.join(self))
        else:
            self.reset()

    def data_received(self, data: bytes) -> None:
        """As for any side, and kept while there is no other."""
        if self.other is not None:
            self.other.transport.write(data)
        elif self._task is not None:
            self._early += data
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """As for any side, and noted while there is no other."""
        if self.other is None:
            self._early_eof = True
        return super().eof_received()

    def join(self, far: _Far) -> None:
        """The appliance has taken the connection: carry on."""
        self.other = far
        self._task = None
        early, self._early = self._early, b""
        if not self._early_eof:
            self.transport.resume_reading()
        if early:
            far.transport.write(early)  # last, since it may pause this side again
        if self._early_eof:
            self.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """As for any side, and the place is free again."""
        super().connection_lost(exc)
        self._relay.leave(self)
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def reset(self) -> None:
        """RST needs more than abort(), which sends FIN when nothing is unread."""
        sock = self.transport.get_extra_info("socket")
        if not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()


class TcpRelay:
    """Carries the connections of one kernel port to one port of the appliance."""

    def __init__(self, stack: Stack, target: Address, tally: Tally) -> None:
        self._stack = stack
        self._target = target
        self._tally = tally
        self._sides: set[_Near] = set()  # at most MAX_CONNECTIONS with those of other ports
        self._empty: asyncio.Future[None] | None = None  # drained() waits for it
        self.draining = False
        self._server: asyncio.AbstractServer | None = None

    async def start(self, sock: socket.socket) -> None:
        """Accept from a bound kernel socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), sock=sock, backlog=256)

    def stop_accepting(self) -> None:
        """Close the listening socket; connections go on until the appliance closes them."""
        self.draining = True
        if self._server is not None:
            self._server.close()
            self._server = None
        for near in tuple(self._sides):
            if near.other is not None and near.other.finished:
                near.transport.close()

    def abort(self) -> None:
        """Reset what is still there."""
        for near in tuple(self._sides):
            near.reset()

    def __len__(self) -> int:
        return len(self._sides)

    def admit(self, near: _Near) -> bool:
        """Count a new connection; False: there are too many."""
        self._tally.connections += 1
        if self._tally.relayed >= MAX_CONNECTIONS:
            self._tally.over_limit += 1
            return False
        self._tally.relayed += 1
        self._sides.add(near)
        return True

    def leave(self, near: _Near) -> None:
        """Forget a connection that is over."""
        if near in self._sides:
            self._sides.remove(near)
            self._tally.relayed -= 1
        if not self._sides and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def drained(self) -> None:
        """Wait for the last connection."""
        if self._sides:
            self._empty = asyncio.get_running_loop().create_future()
            await self._empty

    async def join(self, near: _Near) -> None:
        """Open our connection for a kernel connection, or reset the latter."""
        try:
            await self._stack.create_connection(lambda: _Far(self, near), *self._target)
        except OSError:
            self._tally.refused += 1
            near.reset()


class _Flow:
    """One UDP exchange: a client of this host, and the socket of ours that speaks for it."""

    __slots__ = ("client", "heard", "relay", "socket")

    def __init__(self, relay: UdpRelay, client: Address) -> None:
        self.relay = relay
        self.client = client
        self.heard = 0.0  # when a datagram last passed; the loop's seconds
        self.socket: UdpSocket

    def udp_datagram(self, data: bytes, source: Address) -> None:
        """An answer from the appliance."""
        if source == self.relay.target:
            self.relay.answer(self, data)

    def udp_error(self, error: OSError) -> None:
        """Nothing that UDP over the kernel's sockets could carry on."""


class UdpRelay(asyncio.DatagramProtocol):
    """Carries the datagrams of one kernel port to one port of the appliance, and the answers."""

    def __init__(self, stack: Stack, target: Address, tally: Tally) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = stack.host
        self.target = target
        self._tally = tally
        self._transport: Any = None
        self._flows: OrderedDict[Address, _Flow] = OrderedDict()  # the idlest first
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._flows)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The kernel's socket is ready."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """A datagram of a client: on to the appliance, from the client's own port of ours."""
        flow = self._flows.get(addr)
        if flow is None:
            flow = self._open(addr)
            if flow is None:
                return
        else:
            self._flows.move_to_end(addr)
        flow.heard = self._loop.time()
        try:
            flow.socket.send(data, self.target)
        except OSError:
            self._tally.datagrams_dropped += 1

    def answer(self, flow: _Flow, data: bytes) -> None:
        """An answer of the appliance: back to the client."""
        flow.heard = self._loop.time()
        self._flows.move_to_end(flow.client)
        self._transport.sendto(data, flow.client)

    def error_received(self, exc: Exception) -> None:
        """A client went away before its answer came; nothing is to be done."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The kernel's socket is closed: so are ours."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._flows:
            self._close_idlest()

    def close(self) -> None:
        """Close the kernel's socket."""
        if self._transport is not None:
            self._transport.close()

    def _open(self, client: Address) -> _Flow | None:
        if len(self._flows) >= MAX_FLOWS:
            self._tally.flows_evicted += 1
            self._close_idlest()
        flow = _Flow(self, client)
        try:
            flow.socket = self._host.udp_bind("", 0, flow)
        except OSError:
            self._tally.datagrams_dropped += 1
            return None
        self._flows[client] = flow
        self._tally.flows += 1
        if self._timer is None:
            self._timer = self._loop.call_later(FLOW_IDLE, self._expire)
        return flow

    def _expire(self) -> None:
        """Close what has been idle, and look again when the next one might be."""
        self._timer = None
        now = self._loop.time()
        while self._flows:
            due = next(iter(self._flows.values())).heard + FLOW_IDLE
            if due > now:
                self._timer = self._loop.call_at(due, self._expire)
                return
            self._close_idlest()

    def _close_idlest(self) -> None:
        _, flow = self._flows.popitem(last=False)
        flow.socket.close()


class Gateway:
    """Offers an appliance's ports on an address of this host.

    `stack` is the one at the other end of the pair, `appliance` the address it reaches. `http` and
    `dns` are wished for; `start` sets them to the ports got. `streams` are further TCP ports by
    name, each wished for with the appliance's own; `ports` tells what became of them. Those of
    `local` are for this host alone, whatever `bind` is.
    """

    def __init__(
        self,
        stack: Stack,
        appliance: str,
        *,
        bind: str = "127.0.0.1",
        http: int = 8080,
        dns: int = 5353,
        http_port: int = 80,
        dns_port: int = 53,
        streams: Mapping[str, tuple[int, int]] | None = None,
        local: Collection[str] = (),
    ) -> None:
        self.bind = bind
        self.http = http
        self.dns = dns
        self.ports: dict[str, int] = {}  # of `streams`, by name
        self.notes: list[str] = []  # what turned out otherwise than wished, for the banner
        self.tally = Tally()
        self._stack = stack
        self._streams = dict(streams or {})
        self._local = frozenset(local)
        self._relays = [
            TcpRelay(stack, (appliance, port), self.tally)
            for port in (http_port, dns_port, *(port for _, port in self._streams.values()))
        ]
        self._dns_target = (appliance, dns_port)
        self._datagrams: UdpRelay | None = None

    @property
    def place(self) -> str:
        """Where this host finds it; nobody sends to any address (RFC 1122 §3.2.1.3 a)."""
        own = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound
        return own.get(self.bind, self.bind)

    def place_of(self, name: str) -> str:
        """Where this host finds one of the streams."""
        return self._bind_of(name) if name in self._local else self.place

    def _bind_of(self, name: str) -> str:
        if name not in self._local or ipaddress.ip_address(self.bind).is_loopback:
            return self.bind
        return "::1" if ":" in self.bind else "127.0.0.1"

    async def start(self) -> None:
        """Listen; raises PortsError when no port of the address can be had."""
        bound: list[socket.socket] = []
        try:
            bound += self._bound("HTTP", self.http, socket.SOCK_STREAM)
            bound += self._bound("DNS", self.dns, socket.SOCK_STREAM, socket.SOCK_DGRAM)
            for name, (wanted, _) in self._streams.items():
                bound += self._bound(name, wanted, socket.SOCK_STREAM)
        except PortsError:
            for sock in bound:
                sock.close()
            raise
        datagram = bound.pop(2)
        self.http, self.dns, *others = (sock.getsockname()[1] for sock in bound)
        self.ports = dict(zip(self._streams, others, strict=True))
        for relay, sock in zip(self._relays, bound, strict=True):
            await relay.start(sock)
        loop = asyncio.get_running_loop()
        _, self._datagrams = await loop.create_datagram_endpoint(
            lambda: UdpRelay(self._stack, self._dns_target, self.tally), sock=datagram
        )

    def stop_accepting(self) -> None:
        """Close the listening sockets; what has begun goes on."""
        for relay in self._relays:
            relay.stop_accepting()

    @property
    def connections(self) -> int:
        """Relayed connections that are open."""
        return sum(map(len, self._relays))

    async def drained(self) -> None:
        """Wait until the relayed connections are over; the caller sets the limit."""
        for relay in self._relays:
            await relay.drained()

    async def close(self) -> None:
        """Stop, and reset what is still there."""
        self.stop_accepting()
        for relay in self._relays:
            relay.abort()
        if self._datagrams is not None:
            self._datagrams.close()
        await asyncio.sleep(0)  # the transports' connection_lost()

    def _bound(self, name: str, wanted: int, *kinds: socket.SocketKind) -> list[socket.socket]:
        """Sockets for a service, and a note when its port is another one than wished."""
        sockets, note = bind_near(self._bind_of(name), wanted, kinds)
        if note:
            self.notes.append(f"{note}: {name} is on {sockets[0].getsockname()[1]} instead")
        return sockets
