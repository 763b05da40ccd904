"""A server's stream, and a client of pyOpenSSL's own at the other end: no sockets, no clock."""

from __future__ import annotations

import asyncio
import datetime as dt
import heapq
from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL

from appliance.tls.authority import Authority
from appliance.tls.contexts import Contexts
from appliance.tls.credential import Credential
from appliance.tls.limits import LIMITS, Limits
from appliance.tls.protocol import ServerStream, TlsServer

NOW = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)
NAMES = ("example.org", "*.example.org", "localhost", "127.0.0.1")
# Clients judge by the real clock, so what they verify has to be valid now.
AUTHORITY = Authority.make(["example.org", "localhost", "127.0.0.1"], dt.datetime.now(dt.UTC))
CREDENTIAL = AUTHORITY.issue(NAMES, dt.datetime.now(dt.UTC))


class Loop:
    """Time that moves when told to, and callbacks that run when told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.soon: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._timers: list[tuple[float, int, Timer]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        self.soon.append((callback, args))

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        timer = Timer(callback, args)
        heapq.heappush(self._timers, (self.now + delay, id(timer), timer))
        return timer

    def run(self) -> None:
        while self.soon:
            callback, args = self.soon.pop(0)
            callback(*args)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                timer.callback(*timer.args)
                self.run()
        self.now = end


class Timer:
    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback, self.args, self.cancelled = callback, args, False

    def cancel(self) -> None:
        self.cancelled = True


class Below(asyncio.Transport):
    """The transport under TLS: collects what is written; `room` octets fit before it pauses us."""

    def __init__(self, loop: Loop, room: float = float("inf")) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711)})
        self.loop = loop
        self.protocol: Any = None
        self.sent = bytearray()
        self.writes: list[int] = []
        self.room = room
        self.high = 0
        self.paused = False
        self.reading = True
        self.eof_written = self.closed = self.aborted = False

    def write(self, data: Any) -> None:
        assert isinstance(data, bytes)
        assert not self.eof_written, "written after FIN"
        if self.closed or self.aborted:
            return
        self.sent += data
        self.writes.append(len(data))
        if len(self.sent) > self.room and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def take(self) -> bytes:
        """The network takes everything; room is there again."""
        data, self.sent = bytes(self.sent), bytearray()
        if self.paused:
            self.paused = False
            self.protocol.resume_writing()
        return data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self.high // 4, self.high

    def get_write_buffer_size(self) -> int:
        return len(self.sent)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_written = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        if not self.closed and not self.aborted:
            self.closed = True
            self.loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        if not self.aborted:
            gone = self.closed
            self.aborted = True
            if not gone:
                self.loop.call_soon(self.protocol.connection_lost, None)


class App(asyncio.Protocol):
    """The protocol above TLS: notes what it is told."""

    def __init__(self, alpn: str | None = None) -> None:
        self.alpn = alpn
        self.transport: Any = None
        self.received = bytearray()
        self.pieces: list[int] = []
        self.eof = False
        self.keep_open = False
        self.paused = False
        self.lost: list[BaseException | None] = []
        self.on_data: Callable[[bytes], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.pieces.append(len(data))
        if self.on_data is not None:
            self.on_data(data)

    def eof_received(self) -> bool:
        self.eof = True
        return self.keep_open

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


def contexts(*credentials: Credential, alpn: tuple[bytes, ...] = (b"h2", b"http/1.1")) -> Contexts:
    return Contexts(credentials or (CREDENTIAL,), protocols=alpn, service="test", now=0.0)


def client_context(*, tls12: bool = False) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if tls12:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
    return context


class Rig:
    """`server` has `stream` over `below`; `client` talks to it when told to."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        offered: Contexts | None = None,
        limits: Limits = LIMITS,
        server: TlsServer | None = None,
        loop: Loop | None = None,
    ) -> None:
        self.loop = loop or Loop()
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self.loop)
        self.server = server or TlsServer(offered or contexts(), App, limits=limits)
        self.below = Below(self.loop)
        self.stream: ServerStream = self.server()
        self.below.protocol = self.stream
        self.stream.connection_made(self.below)
        self.client: SSL.Connection

    @property
    def app(self) -> App:
        app = self.stream.get_protocol()
        assert isinstance(app, App)
        return app

    def open(
        self,
        *,
        name: str | None = "example.org",
        alpn: list[bytes] | None = None,
        tls12: bool = False,
        session: SSL.Session | None = None,
        context: SSL.Context | None = None,
        groups: bytes | None = None,
    ) -> SSL.Connection:
        self.client = client = SSL.Connection(context or client_context(tls12=tls12), None)
        client.set_connect_state()
        if name is not None:
            client.set_tlsext_host_name(name.encode())
        if alpn is not None:
            client.set_alpn_protos(alpn)
        if session is not None:
            client.set_session(session)
        return client

    def shake(self, **options: Any) -> Rig:
        """Handshake; afterwards both sides are open, and the client has read its tickets."""
        client = self.open(**options)
        for _ in range(6):
            try:
                client.do_handshake()
            except SSL.WantReadError:
                self.exchange()
            else:
                break
        self.exchange()
        assert self.hear() == b""
        return self

    def exchange(self) -> None:
        """Carry octets both ways, once."""
        self.give(self.out())
        self.loop.run()
        if answer := self.below.take():
            self.client.bio_write(answer)

    def out(self) -> bytes:
        """What the client would send."""
        data = b""
        while True:
            try:
                data += self.client.bio_read(65536)
            except SSL.WantReadError:
                return data

    def give(self, data: bytes) -> None:
        if data:
            self.stream.data_received(data)

    def say(self, data: bytes) -> None:
        """The client says something; the server hears it."""
        self.client.sendall(data)
        self.give(self.out())
        self.loop.run()

    def hear(self) -> bytes:
        """What the server has said since, as the client understands it."""
        if answer := self.below.take():
            self.client.bio_write(answer)
        heard = b""
        while True:
            try:
                piece = self.client.recv(65536)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                return heard
            heard += piece

    def lost(self) -> None:
        """The lower transport's end, after close()."""
        self.loop.run()
