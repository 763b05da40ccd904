"""asyncio's face on a host: servers, connections and datagram endpoints with asyncio's signatures.

    async with Stack(vif, addresses=["10.0.0.2/24"], gateways=["10.0.0.1"]) as stack:
        server = await stack.create_server(MyProtocol, port=80)
        await server.serve_forever()

Any asyncio protocol runs on it unchanged. What is not here: names (addresses must be literal), TLS
(a protocol of its own on top), and every decision about packets, which is the host's.
May import the host, the interfaces and asyncio.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random as random_module
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from appliance.net.counters import Counters
from appliance.net.link import Ipv6Settings, Link
from appliance.net.stack import Host
from appliance.net.syn_queue import Listener
from appliance.net.tcb import TcpSettings
from appliance.net.tcp import Connection
from appliance.net.transport_datagram import DatagramTransport
from appliance.net.transport_driver import Driver
from appliance.net.transport_stream import ProtocolFactory, StreamTransport
from appliance.net.transport_watch import Seen, Watchers
from appliance.net.vif.base import Vif
from appliance.net.vif.offload import equip
from appliance.net.wire.address import from_text, to_text

BACKLOG = 100
"""Connections that wait for accept(); asyncio's default."""
CLOSE_TIMEOUT = 5.0
"""Seconds that `Stack.close` gives connections to send what they have queued."""
STREAM_LIMIT = 64 * 1024
"""Octets a StreamReader buffers before it pauses reading (at twice this); asyncio's default."""

P = TypeVar("P", bound=asyncio.BaseProtocol)
ConnectedCallback = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None] | None
]


class Server(asyncio.AbstractServer):
    """A listening port (or several addresses) and the connections it has accepted."""

    def __init__(
        self,
        stack: Stack,
        factory: ProtocolFactory,
        addresses: Sequence[str],
        port: int,
        backlog: int,
        tcp: TcpSettings,
    ) -> None:
        self._stack = stack
        self._tcp = tcp
        self._loop = asyncio.get_running_loop()
        self._factory = factory
        self._wanted = addresses
        self._port = port
        self._backlog = backlog
        self._listeners: list[Listener] = []
        self._transports: set[StreamTransport] = set()
        self._closed = False
        self._waiters: list[asyncio.Future[None]] = []
        self._forever: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} addresses={self.addresses}>"

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The (address, port) pairs listened on; an empty address is every local one."""
        return tuple((listener.address, listener.port) for listener in self._listeners)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which protocols are called."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._listeners)

    def listen(self) -> None:
        """Begin to accept; OSError when a port is taken or an address is not ours."""
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        if self._listeners:
            return
        port = self._port
        try:
            for address in self._wanted:
                listener = self._stack.host.tcp_listen(
                    address, port, self._accept, backlog=self._backlog, settings=self._tcp
                )
                self._listeners.append(listener)
                port = listener.port  # of all addresses, when any would do
        except BaseException:
            self._stop_listening()
            raise

    async def start_serving(self) -> None:
        """Begin to accept, if that has not begun."""
        self.listen()

    async def serve_forever(self) -> None:
        """Accept until cancelled, then close and wait for the connections."""
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        self.listen()
        self._forever = self._loop.create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    def close(self) -> None:
        """Stop accepting; connections that exist go on."""
        if self._closed:
            return
        self._closed = True
        self._stop_listening()
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()
        self._wake_if_done()

    def close_clients(self) -> None:
        """Close every accepted connection after what it has queued."""
        for transport in tuple(self._transports):
            transport.close()

    def abort_clients(self) -> None:
        """Reset every accepted connection."""
        for transport in tuple(self._transports):
            transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the server is closed and its last connection is gone (as from Python 3.12)."""
        if self._closed and not self._transports:
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def attach(self, transport: StreamTransport) -> None:
        """Count a connection; called by its transport."""
        self._transports.add(transport)

    def detach(self, transport: StreamTransport) -> None:
        """Forget a connection; called by its transport after `connection_lost`."""
        self._transports.discard(transport)
        if self._closed:
            self._wake_if_done()

    def _accept(self, connection: Connection) -> StreamTransport:
        return StreamTransport(self._loop, self._factory, self, connection)

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _wake_if_done(self) -> None:
        if self._transports:
            return
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        self._stack.forget_server(self)


class Stack:
    """An internet host, with asyncio's way to make servers and connections.

    `addresses` are like "10.0.0.2/24" or "2001:db8::2/64", `gateways` like "10.0.0.1"; a malformed
    one is a ValueError. `vif` is the first link. `ipv6` has it take addresses from routers, `dhcp`
    from a server; `configured` waits for them. `tcp` is for servers and connections that bring no
    settings of their own. `random` is the source of sequence numbers and ports; the operating
    system's by default. The stack owns its interfaces and closes them.
    """

    def __init__(
        self,
        vif: Vif,
        *,
        addresses: Sequence[str] = (),
        gateways: Sequence[str] = (),
        random: random_module.Random | None = None,
        tcp_random: random_module.Random | None = None,
        ipv6: Ipv6Settings | None = None,
        dhcp: bool = False,
        tcp: TcpSettings | None = None,
    ) -> None:
        self.tcp = tcp or TcpSettings()
        # As on Linux, a server's fast opens are no wish to have any as a client (RFC 7413 §6.1).
        self._outgoing = replace(self.tcp, fast_open=0)
        self.vif = equip(vif)
        self.vifs = [self.vif]
        self.host = Host(
            self.vif, random=random or random_module.SystemRandom(), tcp_random=tcp_random
        )
        self.host.network.on_change.append(self._addresses_changed)
        self._changed: asyncio.Event | None = None
        self._watchers: Watchers | None = None
        if ipv6 is not None:
            self.host.use_ipv6(ipv6)
        if dhcp:
            self.host.use_dhcp()
        for cidr in addresses:
            self.host.add_address(cidr)
        for gateway in gateways:
            self.host.add_gateway(gateway)
        self._driver: Driver | None = None
        self._closed = False
        self._servers: set[Server] = set()
        self._transports: set[StreamTransport] = set()
        self._datagrams: set[DatagramTransport] = set()
        self._last_one: asyncio.Future[None] | None = None  # close() awaits the last transport

    def add_vif(
        self,
        vif: Vif,
        *,
        addresses: Sequence[str] = (),
        ipv6: Ipv6Settings | None = None,
        dhcp: bool = False,
    ) -> Link:
        """Have one more interface, with addresses and configuration of its own."""
        vif = equip(vif)
        link = self.host.add_vif(vif)
        self.vifs.append(vif)
        if ipv6 is not None:
            self.host.use_ipv6(ipv6, link)
        if dhcp:
            self.host.use_dhcp(link=link)
        for cidr in addresses:
            self.host.add_address(cidr, link)
        if self._driver is not None:
            self._driver.more(vif, link)
        if self._watchers is not None:
            self._watchers.review()
        return link

    def watch(self, seen: Seen, link: str = "") -> Callable[[], None]:
        """Have `seen(frame, name)` told of every frame, both ways; returns what ends that.

        `link` names one (ValueError if there is none of that name); else it is all of them.
        Nothing is slower while nobody watches.
        """
        self._check_started()
        assert self._watchers is not None
        return self._watchers.add(seen, link)

    def share_watching(self, told: Callable[[bool], None]) -> Seen:
        """For stacks that are one host: `told` whether anybody watches, when that changes.

        Returns what tells those who watch of a frame that another of the stacks has seen.
        """
        self._check_started()
        assert self._watchers is not None
        self._watchers.on_change = told
        return self._watchers.tell

    def ping(
        self,
        to: str,
        ident: int,
        sequence: int,
        size: int,
        answered: Callable[[str, int, str], None],
    ) -> None:
        """Send one echo request; `answered(address, sequence, why)` hears of replies to `ident`.

        `why` there is none is what a router said, or that no neighbour answered; "" with a reply.
        Raises OSError(ENETUNREACH) without a way there, ValueError for what is not an address.
        """
        self._check_started()
        self.host.network.ping(from_text(to), ident, sequence, size, answered)
        self.host.wake()

    def forget_ping(self, ident: int) -> None:
        """Hear of replies to `ident` no longer."""
        self.host.network.errors.echoes.pop(ident, None)

    def addresses(self) -> list[str]:
        """Our addresses now, with prefix lengths: those given, then those found."""
        local = self.host.addresses.local.values()
        return [f"{to_text(own.address)}/{own.prefix_len}" for own in local]

    async def configured(
        self, timeout: float, wanted: Callable[[list[str]], bool] = bool
    ) -> list[str]:
        """Wait, at most `timeout` seconds, until the addresses are `wanted`; what there is then."""
        self._changed = changed = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                while not wanted(self.addresses()):
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            pass
        return self.addresses()

    def _addresses_changed(self) -> None:
        if self._changed is not None:
            self._changed.set()

    @property
    def counters(self) -> Counters:
        """What the host has counted since it began."""
        return self.host.counters

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to receive, on the running loop."""
        if self._closed:
            raise RuntimeError("the stack is closed")
        if self._driver is None:
            self._driver = Driver(asyncio.get_running_loop(), self.host, self.vif)
            for vif, link in zip(self.vifs[1:], self.host.links[1:], strict=True):
                self._driver.more(vif, link)
            self._watchers = Watchers(self._driver, self.vifs, self.host.links)
            self._driver.start()

    async def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Stop accepting, let connections send what is queued, reset the rest, close the interface.

        `timeout` in seconds bounds the wait.
        """
        if self._closed:
            return
        self._closed = True
        transports = set(self._transports)
        servers = tuple(self._servers)
        for server in servers:
            server.close()
            server.close_clients()
        for datagram in tuple(self._datagrams):
            datagram.close()
        for transport in transports:
            transport.close()
        for link in self.host.links:
            link.close(self.host.network.now)
        if self._driver is None:
            self._close_vifs()
            return
        try:
            await asyncio.wait_for(self._drained(), timeout)
        except TimeoutError:
            for transport in tuple(self._transports):
                transport.abort()
            for server in servers:
                server.abort_clients()
            await self._drained()
        finally:
            self._driver.stop()
            self._close_vifs()

    def _close_vifs(self) -> None:
        for vif in self.vifs:
            vif.close()

    async def _drained(self) -> None:
        """Wait until the last connection_lost() has been called."""
        for server in tuple(self._servers):
            await server.wait_closed()
        if self._transports or self._datagrams:
            self._last_one = asyncio.get_running_loop().create_future()
            await self._last_one

    # Streams.

    async def create_server(
        self,
        protocol_factory: ProtocolFactory,
        host: str | Sequence[str] | None = None,
        port: int = 0,
        *,
        backlog: int = BACKLOG,
        ssl: None = None,
        start_serving: bool = True,
        tcp: TcpSettings | None = None,
    ) -> Server:
        """Accept connections on `port` of the local address(es) `host`; None is all of them.

        Port 0 picks a free one. `tcp` chooses the congestion control, buffers and timeouts of these
        connections; the stack's by default. Raises OSError (EADDRINUSE, EADDRNOTAVAIL).
        """
        _refuse_ssl(ssl)
        self._check_started()
        if host is None or isinstance(host, str):
            host = [host or ""]
        wanted = [_local(name) for name in host]
        server = Server(self, protocol_factory, wanted, port, backlog, tcp or self.tcp)
        if start_serving:
            server.listen()
        self._servers.add(server)
        return server

    async def create_connection(
        self,
        protocol_factory: Callable[[], P],
        host: str,
        port: int,
        *,
        ssl: None = None,
        local_addr: tuple[str, int] | None = None,
        tcp: TcpSettings | None = None,
        early: bytes = b"",
    ) -> tuple[StreamTransport, P]:
        """Open a connection, with settings `tcp` or the stack's, and send the octets `early`.

        They go along with the SYN if `tcp.fast_open` is set (the stack's is for its servers) and
        the server has given a cookie before, and may then reach it twice (RFC 7413 §6.1); else as
        soon as there is a connection.
        Raises the kin of OSError that tells why it could not be.
        """
        _refuse_ssl(ssl)
        self._check_started()
        remote = _literal(host)
        local, local_port = local_addr or ("", 0)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        transport = StreamTransport(loop, protocol_factory, self, waiter=waiter)
        connection = self.host.tcp_connect(
            remote,
            port,
            transport,
            local=_local(local),
            local_port=local_port,
            settings=tcp or self._outgoing,
        )
        connection.send(early)
        transport.bind(connection)
        self.attach(transport)  # so that close() ends it while it is still connecting
        try:
            await waiter
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                transport.abort()
            self.detach(transport)
            raise
        return transport, transport.get_protocol()  # type: ignore[return-value]

    async def open_connection(
        self,
        host: str,
        port: int,
        *,
        limit: int = STREAM_LIMIT,
        local_addr: tuple[str, int] | None = None,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """`create_connection` with a StreamReader and a StreamWriter on it."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await self.create_connection(
            lambda: protocol, host, port, local_addr=local_addr
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def start_server(
        self,
        client_connected_cb: ConnectedCallback,
        host: str | Sequence[str] | None = None,
        port: int = 0,
        *,
        limit: int = STREAM_LIMIT,
        backlog: int = BACKLOG,
        start_serving: bool = True,
    ) -> Server:
        """`create_server` that gives each connection's reader and writer to a callback."""
        loop = asyncio.get_running_loop()

        def factory() -> asyncio.StreamReaderProtocol:
            reader = asyncio.StreamReader(limit=limit, loop=loop)
            return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

        return await self.create_server(
            factory, host, port, backlog=backlog, start_serving=start_serving
        )

    # Datagrams.

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
    ) -> tuple[DatagramTransport, P]:
        """Open a UDP socket, connected if `remote_addr` is given; OSError if the port is taken."""
        self._check_started()
        remote = None
        if remote_addr is not None:
            remote = (_literal(remote_addr[0]), remote_addr[1])
        address, port = local_addr or ("", 0)
        loop = asyncio.get_running_loop()
        transport = DatagramTransport(loop, remote, self._forget_datagram)
        protocol = protocol_factory()
        transport.bind(self.host.udp_bind(_local(address), port, transport))
        transport.set_protocol(protocol)
        self._datagrams.add(transport)
        try:
            protocol.connection_made(transport)
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    # Bookkeeping for transports and servers.

    def attach(self, transport: StreamTransport) -> None:
        """Count a connection that was opened here; called by its transport."""
        self._transports.add(transport)

    def detach(self, transport: StreamTransport) -> None:
        """Forget a connection; called by its transport after `connection_lost`."""
        self._transports.discard(transport)
        self._tell_if_last()

    def _forget_datagram(self, transport: DatagramTransport) -> None:
        self._datagrams.discard(transport)
        self._tell_if_last()

    def _tell_if_last(self) -> None:
        waiter = self._last_one
        if waiter is not None and not (self._transports or self._datagrams or waiter.done()):
            waiter.set_result(None)

    def forget_server(self, server: Server) -> None:
        """Forget a server that is closed and has no connections; called by the server."""
        self._servers.discard(server)

    def _check_started(self) -> None:
        if self._driver is None or self._closed:
            raise RuntimeError("the stack is not running: use `async with` or await start()")


def _refuse_ssl(ssl: object) -> None:
    if ssl is not None:
        raise ValueError("ssl= is not supported here: TLS is a protocol on top of the transport")


def _literal(host: str) -> str:
    """The address in its usual spelling; OSError for a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise OSError(f"{host!r} is not an IP address, and names are not resolved here") from None


def _local(host: str) -> str:
    """A local address to bind; any of them is spelt ""."""
    return "" if host in ("", "0.0.0.0", "::") else _literal(host)  # noqa: S104 - of the stack
