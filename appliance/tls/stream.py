"""TLS between any asyncio transport and any asyncio protocol: one connection, of either side.

One object is the lower transport's protocol and the upper protocol's transport. The upper protocol
is made when the handshake is done; it sees plain octets, and runs unchanged.

What this adds to OpenSSL: a deadline for handshakes, back-pressure in both directions, records of
the right size (outgoing.py), alerts that reach the peer, and closing in the way of RFC 8446 §6.1.
How a connection begins is the business of the sides (protocol.py).

It has all that `asyncio.Transport` has but does not derive from it: mypyc's classes keep their
attributes where that one keeps its own, and compiled a handshake is cheaper by a tenth.

Imports asyncio, pyOpenSSL and this package.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from OpenSSL import SSL

from appliance.tls.engine import INFORMATION, Engine
from appliance.tls.errors import TlsError
from appliance.tls.limits import Limits
from appliance.tls.outgoing import REST, SMALL_RECORD, Outgoing

WRITE_HIGH: Final = 256 * 1024
"""Octets of cipher text that wait below before the upper protocol is paused: four CHUNKs."""
MAX_LINGER: Final = 1024 * 1024
"""Octets thrown away after our end, while the peer has not closed."""

# Where a connection stands.
HELLO, HANDSHAKE, OPEN, CLOSING, LINGERING, CLOSED = range(6)


class TlsStream(asyncio.Protocol):
    """One connection: a protocol for what is below, a transport for what is above.

    `isinstance(stream, asyncio.Transport)` is False; see the module.
    """

    __slots__ = (
        "__weakref__",
        "_app",
        "_app_paused",
        "_deliver",
        "_discarded",
        "_engine",
        "_eof_above",
        "_error",
        "_half_closed",
        "_held",
        "_lacking",
        "_left",
        "_limits",
        "_loop",
        "_lower",
        "_lower_paused",
        "_lower_write",
        "_outgoing",
        "_peer_closed",
        "_reading_paused",
        "_state",
        "_timer",
        "_told",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = HELLO
        self._loop: asyncio.AbstractEventLoop
        self._lower: Any = None  # a transport
        self._lower_write: Callable[[bytes], None]
        self._engine: Engine | None = None
        self._app: Any = None  # a protocol, from the end of the handshake on
        self._deliver: Callable[[bytes], object] = _nowhere
        self._outgoing: Outgoing | None = None  # from the first large write on
        self._lower_paused = False  # what is below takes no more
        self._app_paused = False  # what is above was told
        self._reading_paused = False  # what is above takes no more
        self._held = False  # records may lie in the BIO, unread
        self._peer_closed = False  # close_notify, or the end of the TCP, came
        self._eof_above = False  # eof_received() was called
        self._lacking = 0  # octets until a record begins; -1: not known
        self._half_closed = False  # our close_notify is out, and the peer may go on
        self._discarded = 0
        self._left = 0  # octets that waited here and below when last the end was looked for
        self._error: BaseException | None = None
        self._told = False  # connection_lost() was called
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = ("hello", "handshake", "open", "closing", "lingering", "closed")[self._state]
        return f"<{type(self).__name__} {state} over {self._lower!r}>"

    # -- what the transport below calls --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._lower = transport
        self._lower_write = self._lower.write
        self._loop = asyncio.get_running_loop()
        self._lower.set_write_buffer_limits(high=WRITE_HIGH)
        self._begin()

    def data_received(self, data: bytes) -> None:
        """Take octets; never raises for anything a peer can send."""
        if self._state == OPEN and not self._held:
            tls = self._engine
            assert tls is not None
            try:
                plain = tls.decrypt(data)
            except TlsError as exc:
                self._fail(exc)
                return
            # Most often this is one whole record: then there is nothing more to be read.
            if self._lacking or len(data) < 5 or len(data) - 5 != data[3] << 8 | data[4]:
                self._walk(data)
                if plain:
                    self._deliver(plain)
                    self._read_on()
                    return
            if plain:
                self._deliver(plain)
            elif plain is None:
                self._flush_engine()
            else:
                self._closed_by_peer()
        else:
            self._receive(data)

    def eof_received(self) -> bool:
        """The peer's TCP has ended; True, since this side decides when to close."""
        if self._state in (HELLO, HANDSHAKE):
            self._peer_closed = True
            self._fail(TlsError("ended during the handshake"))
        elif self._state in (LINGERING, CLOSED):
            self._lower.close()
        elif self._held:
            # Records wait to be read; the end follows them.
            self._peer_closed = True
        elif not self._peer_closed:
            self._ended_ragged()
        elif self._half_closed or self._app is None:
            self._lower.close()
        return True

    def pause_writing(self) -> None:
        """What is below is full: so are we."""
        self._lower_paused = True
        self._pause_app()

    def resume_writing(self) -> None:
        """There is room below: first for what waits here."""
        self._lower_paused = False
        self._drain_queue()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._state = CLOSED
        self._cancel_timer()
        self._over()
        self._engine = None
        self._outgoing = None
        self._tell(self._error or exc)

    # -- reading ------------------------------------------------------------------------------

    def _begin(self) -> None:
        raise NotImplementedError

    def _judge(self) -> None:
        """The handshake is done; TlsError if this side will not go on with that peer."""

    def _established(self) -> asyncio.BaseProtocol:
        """Make the upper protocol; the handshake is done."""
        raise NotImplementedError

    def _over(self) -> None:
        """Nothing more will come of the handshake, or it is done."""

    def _refused(self, reason: str) -> None:
        """A failure, for the counters."""

    def _receive(self, data: bytes) -> None:
        """Take octets in any state but the usual one."""
        if self._state == HANDSHAKE:
            assert self._engine is not None
            self._walk(data)
            self._engine.feed(data)
            self._shake()
        elif self._state in (OPEN, CLOSING):
            assert self._engine is not None
            self._engine.feed(data)
            self._walk(data)
            if self._state == CLOSING:
                self._discard(data)  # RFC 8446 §6.1: nobody reads it any more
        elif self._state == LINGERING:
            self._discard(data)

    def _walk(self, data: bytes) -> None:
        """Follow the records' headers, to know whether the next octets begin a record."""
        at, size = self._lacking, len(data)
        if at < 0:
            return
        while at + 5 <= size:
            at += 5 + (data[at + 3] << 8 | data[at + 4])
        # Within a header it is lost, which costs no more than a look into an empty BIO each time.
        self._lacking = -1 if at < size else at - size

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > MAX_LINGER:
            self._lower.abort()

    def _shake(self) -> None:
        """Go on with the handshake; at its end begin to serve."""
        tls = self._engine
        assert tls is not None
        try:
            done = tls.handshake()
            if done:
                self._judge()
        except TlsError as exc:
            self._fail(exc)
            return
        out = tls.take()
        if out:
            self._lower_write(out)
        if not done:
            return
        self._state = OPEN
        self._cancel_timer()
        self._over()
        self._app = app = self._established()
        self._deliver = app.data_received  # type: ignore[attr-defined]
        app.connection_made(cast(asyncio.Transport, self))
        # RFC 8446 §2: a client may speak in the segment that ends its handshake; most wait.
        if tls.unread():
            self._read_on()
        if self._engine is not None and not self._held:
            self._engine.shrink(both=True)

    def _read_on(self) -> None:
        """Deliver what the BIO still has, until it is empty or nobody wants more."""
        tls = self._engine
        while tls is not None and self._state == OPEN:
            if self._reading_paused:
                self._held = True
                return
            try:
                plain = tls.read()
            except TlsError as exc:
                self._fail(exc)
                return
            if plain is None:
                self._held = False
                self._flush_engine()
                if self._peer_closed and not self._eof_above:
                    self._ended_ragged()
                return
            if not plain:
                self._held = False
                self._closed_by_peer()
                return
            self._deliver(plain)
            tls = self._engine

    def _flush_engine(self) -> None:
        """Send what OpenSSL itself has to say: tickets, key updates, alerts."""
        if self._engine is not None and (out := self._engine.take()):
            self._lower_write(out)

    def _closed_by_peer(self) -> None:
        """The peer's close_notify: it sends no more, and has sent all it meant to."""
        self._peer_closed = True
        self._tell_eof()

    def _ended_ragged(self) -> None:
        """The peer's TCP ended without close_notify."""
        self._peer_closed = True
        self._tell_eof()

    def _tell_eof(self) -> None:
        if self._eof_above or self._state != OPEN:
            return
        self._eof_above = True
        keep = self._app.eof_received()
        if self._half_closed:
            self._end(LINGERING)
            self._lower.close()
        elif not (keep and self.can_write_eof()):
            self.close()

    # -- reading, for what is above -------------------------------------------------------------

    def is_reading(self) -> bool:
        """Whether data may be delivered."""
        return self._state == OPEN and not self._reading_paused

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`, and let the peer wait."""
        if self._reading_paused or self._state != OPEN:
            return
        self._reading_paused = True
        self._held = True
        self._lower.pause_reading()

    def resume_reading(self) -> None:
        """Deliver again, from the next turn of the loop on."""
        if not self._reading_paused or self._state != OPEN:
            return
        self._reading_paused = False
        self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._state == OPEN and not self._reading_paused:
            self._read_on()
        if not self._reading_paused and not self._lower.is_closing():
            self._lower.resume_reading()

    # -- writing ------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send octets; what cannot go yet waits here."""
        size = len(data)
        if size <= SMALL_RECORD and self._state == OPEN and not self._lower_paused:
            if self._half_closed:
                raise RuntimeError("Cannot call write() after write_eof()")
            if size and (self._outgoing is None or not self._outgoing.queued):
                assert self._engine is not None
                try:
                    out = self._engine.encrypt(data if type(data) is bytes else bytes(data))
                except TlsError as exc:
                    self._fail(exc)
                    return
                self._lower_write(out)
                return
        self._write(data)

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        """Write in any case but the usual one."""
        if self._half_closed:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._state not in (HELLO, HANDSHAKE, OPEN) or not len(data):
            return
        if self._outgoing is None:
            self._outgoing = Outgoing()
        self._outgoing.add(data)
        if self._state == OPEN:
            self._drain_queue()
        if self._lower_paused or self._queued():
            self._pause_app()

    def _queued(self) -> int:
        """Octets of plain text that wait here."""
        return self._outgoing.queued if self._outgoing is not None else 0

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several buffers as one."""
        self.write(b"".join(list_of_data))

    def _drain_queue(self) -> None:
        """Encrypt and send what waits, while there is room below."""
        out, tls = self._outgoing, self._engine
        if out is not None and tls is not None:
            try:
                while out.queued and not self._lower_paused and self._state in (OPEN, CLOSING):
                    out.send(tls, self._lower_write, self._loop.time())
            except TlsError as exc:
                self._fail(exc)
                return
            if self._timer is None and self._state == OPEN and out.large and not out.queued:
                self._timer = self._loop.call_later(REST, self._give_back)
        if self._lower_paused or self._queued():
            return
        if self._state == CLOSING:
            self._finish()
        elif self._app_paused and self._state == OPEN:
            self._app_paused = False
            self._app.resume_writing()

    def _give_back(self) -> None:
        """After long answers the BIO is as large as a CHUNK: not for a connection at rest."""
        self._timer = None
        if self._state != OPEN or self._engine is None or self._outgoing is None:
            return
        if self._outgoing.rests(self._loop.time()):
            self._engine.shrink(both=False)
        else:
            self._timer = self._loop.call_later(REST, self._give_back)

    def _pause_app(self) -> None:
        if not self._app_paused and self._app is not None and self._state == OPEN:
            self._app_paused = True
            self._app.pause_writing()

    def get_write_buffer_size(self) -> int:
        """Octets that wait here and below."""
        return self._queued() + int(self._lower.get_write_buffer_size())

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """(low, high) water marks in octets, of the transport below."""
        low, high = self._lower.get_write_buffer_limits()
        return int(low), int(high)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the water marks of the transport below."""
        self._lower.set_write_buffer_limits(high=high, low=low)

    def can_write_eof(self) -> bool:
        """TLS 1.3 can half-close (RFC 8446 §6.1), TLS 1.2 cannot (RFC 5246 §7.2.1)."""
        tls = self._engine
        return tls is not None and tls.connection.get_protocol_version() == SSL.TLS1_3_VERSION

    def write_eof(self) -> None:
        """Say close_notify after what is queued; receiving goes on.

        Raises NotImplementedError where `can_write_eof` is False.
        """
        if self._half_closed or self._state != OPEN:
            return
        if not self.can_write_eof():
            raise NotImplementedError("TLS 1.2 has no half-close")
        self._half_closed = True
        if self._queued():
            self._state = CLOSING  # _finish() comes back to OPEN
        else:
            self._finish()

    # -- the end --------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether the transport is closing or closed."""
        return self._state in (CLOSING, LINGERING, CLOSED) and not (
            self._half_closed and self._state == CLOSING
        )

    def close(self) -> None:
        """Send what waits, then close_notify and FIN; `connection_lost(None)` follows."""
        if self._state in (HELLO, HANDSHAKE):
            self.abort()
            return
        if self._half_closed and self._state in (OPEN, CLOSING):
            self._half_closed = False
            if self._state == OPEN:  # close_notify and FIN are out
                self._end(LINGERING)
                self._linger()
                return
            self._state = OPEN  # close_notify waits, and has to go in time
        if self._state != OPEN:
            return
        self._end(CLOSING)
        if self._reading_paused:
            self._reading_paused = False
            self._lower.resume_reading()  # or the peer's end would never be seen
        if self._queued():
            self._left = self.get_write_buffer_size()
            self._set_timer(self._limits.stall_seconds)
        else:
            self._finish()

    def _end(self, state: int) -> None:
        """Deliver nothing from now on."""
        self._state = state
        self._deliver = _nowhere

    def _finish(self) -> None:
        """Everything is written: say that it was all."""
        tls = self._engine
        assert tls is not None
        tls.close()
        self._flush_engine()
        if self._half_closed:
            self._state = OPEN
            self._lower.write_eof()
            if self._peer_closed:
                self._end(LINGERING)
                self._lower.close()
            return
        self._end(LINGERING)
        if self._peer_closed:
            self._lower.close()
        else:
            self._lower.write_eof()
            self._linger()

    def _linger(self) -> None:
        """Wait a little for the peer's end.

        Closing with octets unread resets the connection, and a reset can destroy what the peer has
        not read yet: our last answer, or the alert that says what was wrong (RFC 9112 §9.6).
        """
        self._engine = None  # nothing is read or written any more
        self._cancel_timer()
        self._left = self.get_write_buffer_size()
        self._await_end()

    def _await_end(self) -> None:
        """Let `too_late` be called when the peer has not closed in time."""
        self._set_timer(self._limits.linger_seconds)

    def _fail(self, error: TlsError) -> None:
        """The connection cannot go on: send the alert, and close."""
        if self._state in (LINGERING, CLOSED):
            return
        before = self._state in (HELLO, HANDSHAKE)
        self._refused(error.reason)
        self._error = error
        self._outgoing = None
        self._flush_engine()
        self._give_up()
        if not before:
            self._loop.call_soon(self._tell, error)

    def _give_up(self) -> None:
        """What was written last is all there is."""
        self._end(LINGERING)
        self._over()
        if self._reading_paused:
            self._reading_paused = False
            self._lower.resume_reading()
        if self._lower.can_write_eof() and not self._peer_closed:
            self._lower.write_eof()
            self._linger()
        else:
            self._lower.close()

    def abort(self) -> None:
        """Drop what is queued and reset the connection; `connection_lost` follows."""
        self._end(CLOSED)
        self._cancel_timer()
        if self._lower is not None:
            self._lower.abort()

    def _tell(self, error: BaseException | None) -> None:
        """Tell what is above that it is over; once."""
        app = self._app
        if not self._told:
            self._told = True
            self._deliver = _nowhere
            self._app = None
            if app is not None:
                app.connection_lost(error)

    def _set_timer(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(seconds, self.too_late)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _takes(self, seconds: float) -> bool:
        """Whether the peer has taken enough of what waited `seconds` ago, to be waited for."""
        before, self._left = self._left, self.get_write_buffer_size()
        # Who has the last of it has a moment to close, too.
        return before - self._left >= (self._limits.min_rate * seconds if self._left else 1)

    def too_late(self) -> None:
        """What was waited for has not come: the connection is reset."""
        self._timer = None
        if self._state == LINGERING and self._takes(self._limits.linger_seconds):
            self._await_end()
            return
        if self._state == CLOSING and self._takes(self._limits.stall_seconds):
            self._set_timer(self._limits.stall_seconds)
            return
        if self._state in (HELLO, HANDSHAKE):
            self._refused("handshake took too long")
            self._error = TimeoutError("the TLS handshake took too long")
        self.abort()

    # -- information ------------------------------------------------------------------------------

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that receives."""
        protocol: asyncio.BaseProtocol = self._app
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol receive from now on."""
        self._app = protocol
        self._deliver = protocol.data_received  # type: ignore[attr-defined]

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`alpn`, `tls_version`, `cipher`, `server_name`, `peercert`, or what is below knows."""
        tls = self._engine
        if name not in INFORMATION:
            return self._lower.get_extra_info(name, default)
        if tls is None:
            return default
        return INFORMATION[name](tls.connection)


def _nowhere(data: bytes) -> None:
    """Where octets go that nobody wants."""
