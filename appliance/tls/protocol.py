"""The two sides of TLS over asyncio: a listener's connections, and one that we opened.

A server reads the hello before it begins (hello.py), chooses a context by it (contexts.py), limits
how many handshakes are under way, and has one plain sentence for whoever speaks HTTP to this port.
A client verifies, and tells whoever waits how the handshake ended.

Imports asyncio, pyOpenSSL and this package.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from OpenSSL import SSL

from appliance.tls.contexts import Contexts, RefusedError
from appliance.tls.counters import TlsCounters
from appliance.tls.engine import engine, resumed
from appliance.tls.errors import TlsError, TruncatedError, alert
from appliance.tls.hello import HANDSHAKE as RECORD
from appliance.tls.hello import (
    MAX_HELLO,
    MAX_RECORD,
    Gathered,
    Hello,
    HelloTooLongError,
    is_http,
    read_hello,
)
from appliance.tls.limits import LIMITS, Limits
from appliance.tls.stream import HANDSHAKE, HELLO, TlsStream

HTTP_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s"
)
HTTP_TEXT: Final = (
    b"This port speaks TLS, and the request was plain HTTP. Use https:// in the URL.\n"
)
TICK: Final = 0.001
"""Seconds: timers of event loops are no more precise than that."""

Factory = Callable[[str | None], asyncio.BaseProtocol]
"""Makes the upper protocol of one connection; the argument is what ALPN agreed on, if anything."""


class Deadlines(dict["ServerStream", float]):
    """Who waits, and since when, the oldest first; all wait equally long, so one timer does."""

    __slots__ = ("_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, stream: ServerStream, loop: asyncio.AbstractEventLoop) -> None:
        """Call the stream's `too_late` when it has waited, unless it is removed before."""
        self[stream] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        while self:
            stream, since = next(iter(self.items()))
            left = since + self._seconds - loop.time()
            if left > TICK:
                self._timer = loop.call_later(left, self._look, loop)
                return
            del self[stream]
            stream.too_late()  # which may begin anew
        self._timer = None


class TlsServer:
    """What the connections of one listener share; `TlsServer(...)` is their protocol factory.

    `factory` makes the upper protocols. Counters may be shared with other listeners.
    """

    def __init__(
        self,
        contexts: Contexts,
        factory: Factory,
        *,
        limits: Limits = LIMITS,
        counters: TlsCounters | None = None,
    ) -> None:
        self.contexts = contexts
        self.factory = factory
        self.limits = limits
        self.counters = counters or TlsCounters()
        self.handshaking = Deadlines(limits.handshake_seconds)
        self.lingering = Deadlines(limits.linger_seconds)  # who has yet to close
        self.gathered = 0  # octets of hellos that are not whole yet

    def __call__(self) -> ServerStream:
        """A protocol for a new connection."""
        return ServerStream(self)

    def admit(self, stream: ServerStream, loop: asyncio.AbstractEventLoop) -> bool:
        """Count a handshake in; at the limit the oldest makes room, if it had its time."""
        self.counters.accepted += 1
        waiting = self.handshaking
        if len(waiting) >= self.limits.handshakes:
            self.counters.limited += 1
            oldest, began = next(iter(waiting.items()))
            if loop.time() - began < self.limits.patience:
                return False
            oldest.abort()
            waiting.pop(oldest, None)
        waiting.begin(stream, loop)
        return True


class ServerStream(TlsStream):
    """The server's side."""

    __slots__ = ("_gathered", "_server")

    def __init__(self, server: TlsServer) -> None:
        super().__init__(server.limits)
        self._server = server
        self._gathered: Gathered | None = None  # of a hello that did not come at once

    def _begin(self) -> None:
        if not self._server.admit(self, self._loop):
            self.abort()

    def _over(self) -> None:
        self._server.handshaking.pop(self, None)
        if self._gathered is not None:
            self._forget()

    def _await_end(self) -> None:
        self._server.lingering.begin(self, self._loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._server.lingering.pop(self, None)
        super().connection_lost(exc)

    def _forget(self) -> None:
        """The hello is needed no more."""
        if self._gathered is not None:
            self._server.gathered -= len(self._gathered.octets)
            self._gathered = None

    def _refused(self, reason: str) -> None:
        counters = self._server.counters
        if reason == "handshake took too long":
            counters.late += 1
        counters.failed(reason)

    def _receive(self, data: bytes) -> None:
        if self._state == HELLO:
            self._read_hello(data)
        else:
            super()._receive(data)

    def _read_hello(self, data: bytes) -> None:
        """Gather the hello, and begin with the context that it asks for."""
        gathered = self._gathered
        if gathered is not None and gathered.octets[0] != RECORD:
            data = bytes(gathered.octets) + data  # it began as HTTP does
            self._forget()
            gathered = None
        if gathered is None and is_http(data):
            self._answer_http(data)
            return
        try:
            hello = read_hello(data) if gathered is None else None
            if hello is None:
                hello = self._gather(data)
                if hello is None:
                    return
                assert self._gathered is not None
                data = bytes(self._gathered.octets)
            chosen = self._server.contexts.choose(hello)
        except HelloTooLongError:
            # RFC 8446 §6.2, decode_error: a length out of range.
            self._refuse(50, f"ClientHello of more than {MAX_HELLO} octets")
            return
        except RefusedError as exc:
            self._refuse(exc.alert, exc.reason)
            return
        self._forget()
        connection = SSL.Connection(chosen.accept, None)
        connection.set_context(chosen.named)
        connection.set_accept_state()
        self._engine = engine(connection)
        self._state = HANDSHAKE
        self._walk(data)
        self._engine.feed(data)
        self._shake()

    def _gather(self, data: bytes) -> Hello | None:
        """Add to a hello that is not all here; raises HelloTooLongError or RefusedError."""
        if self._gathered is None:
            self._gathered = Gathered()
        gathered, server = self._gathered, self._server
        server.gathered += len(data)
        hello = gathered.add(data)
        if server.gathered > server.limits.hellos and len(gathered.octets) > MAX_RECORD:
            # RFC 8446 §6.2, internal_error: nothing that the peer has done.
            raise RefusedError(80, "unfinished hellos take too much memory")
        return hello

    def _refuse(self, description: int, reason: str) -> None:
        self._refused(reason)
        self._lower_write(alert(description))
        self._give_up()

    def _answer_http(self, data: bytes) -> None:
        if len(data) < 8 and b"\n" not in data:
            # Too little to be sure; the deadline is running.
            self._gathered = Gathered()
            self._gathered.octets += data
            self._server.gathered += len(data)
            return
        self._server.counters.http += 1
        # RFC 9110 §6.6.1: who has a clock says in every 4xx what it shows.
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()).encode()
        # RFC 9110 §9.3.2: an answer to HEAD has no content.
        content = b"" if data.startswith(b"HEAD ") else HTTP_TEXT
        self._lower_write(HTTP_ANSWER % (date, len(HTTP_TEXT), content))
        self._give_up()

    def _established(self) -> asyncio.BaseProtocol:
        tls = self._engine
        assert tls is not None
        connection = tls.connection
        counters = self._server.counters
        counters.handshakes += 1
        if connection.get_protocol_version() == SSL.TLS1_3_VERSION:
            counters.tls13 += 1
        else:
            counters.tls12 += 1
        if resumed(connection):
            counters.resumed += 1
        return self._server.factory(tls.protocol())

    def _ended_ragged(self) -> None:
        # Requests say themselves where they end; what was begun may be answered.
        self._server.counters.ragged += 1
        super()._ended_ragged()


class ClientStream(TlsStream):
    """The client's side: `connection` is ready to connect, `waiter` hears how that ends."""

    __slots__ = ("_connection", "_factory", "_judges", "_keep", "_waiter")

    def __init__(
        self,
        connection: SSL.Connection,
        factory: Callable[[], asyncio.BaseProtocol],
        waiter: asyncio.Future[None],
        limits: Limits = LIMITS,
        judges: Iterable[Callable[[SSL.Connection], None]] = (),
        keep: Callable[[SSL.Connection], None] | None = None,
    ) -> None:
        """`judges` see the connection when its handshake is done, and raise TlsError to end it.

        `keep` sees it when it has ended well, and may take its session.
        """
        super().__init__(limits)
        self._keep = keep
        self._judges = judges
        self._connection = connection
        self._factory = factory
        self._waiter: asyncio.Future[None] | None = waiter

    def _begin(self) -> None:
        self._set_timer(self._limits.handshake_seconds)
        self._engine = engine(self._connection)
        self._state = HANDSHAKE
        self._shake()

    def _judge(self) -> None:
        for judge in self._judges:
            judge(self._connection)

    def _established(self) -> asyncio.BaseProtocol:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        return self._factory()

    def _tell(self, error: BaseException | None) -> None:
        self._wake(error)
        if error is None and not self._told and self._keep is not None:
            self._keep(self._connection)
        super()._tell(error)

    def _fail(self, error: TlsError) -> None:
        super()._fail(error)
        self._wake(error)

    def _wake(self, error: BaseException | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error or TlsError("ended during the handshake"))

    def _ended_ragged(self) -> None:
        # A client has to know whether it got all (RFC 8446 §6.1).
        self._fail(TruncatedError("ended without close_notify"))
