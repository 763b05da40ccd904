"""HTTP/1.1 on one connection: octets in, answers out, in order (RFC 9112).

`data_received` has a straight line for the common case, a whole head that was answered before in
this second, and a loop for everything else: heads in pieces, several heads at once, bodies to be
thrown away, answers that the peer does not take yet.  While an answer is blocked nothing more is
read, so what a connection holds is bounded by one head, one read and the transport's buffer, and
so is the number of requests that are answered ahead of it.
Imports asyncio's protocol interface and this package.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from appliance.http.largefile import Stretch, open_parts
from appliance.http.message import PREFACE_HEAD, Answer, Refusal, Request, plain
from appliance.http.semantics import decide
from appliance.http.server import SMALL, Hook, HttpServer
from appliance.http.strict import MAX_HEAD, Head, incomplete, parse_head
from appliance.http.tally import target_of

if TYPE_CHECKING:
    from appliance.http.inbound import Inbound

# Octets thrown away after the last answer, while the peer has not closed yet.
MAX_LINGER = 1024 * 1024

# Where a connection stands towards its end.
OPEN, LAST, LINGERING, CLOSED = range(4)


def web_protocol(server: HttpServer, alpn: str | None = None) -> asyncio.Protocol:
    """Make the protocol for a new connection; `alpn` is what TLS negotiated (RFC 7301)."""
    if alpn == "h2" and server.limits.http2:
        from appliance.http.http2 import Http2Protocol  # as in _upgrade

        return Http2Protocol(server)
    return HttpProtocol(server)


class HttpProtocol(asyncio.Protocol):
    """One connection of an `HttpServer`."""

    __slots__ = (
        "_asked",
        "_at",
        "_boundary",
        "_buffer",
        "_end",
        "_eof",
        "_fed",
        "_fetching",
        "_inbound",
        "_lingered",
        "_outgoing",
        "_paused",
        "_scanned",
        "_server",
        "_since",
        "_stopped_reading",
        "_transport",
        "_write",
        "address",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._boundary = False  # nothing buffered, nothing under way: the memo may be asked
        self._buffer: bytes | bytearray = b""
        self._at = 0  # offset in the buffer of the first octet not consumed
        self._scanned = 0  # offset up to which the end of a head was looked for
        self._inbound: Inbound | None = None  # the body being read
        # Of the request whose body it is: who answers it, or with what, and its head.
        self._asked: tuple[Hook | Answer, Request, bytes] | None = None
        # Of a large answer, not written yet.  A list, because an empty deque weighs 760 octets.
        self._outgoing: list[bytes | memoryview | Stretch] = []
        self._fetching = False  # a thread reads the next slice of a file
        # Octets that the transport had to send at `_since`, and was given since; -1: not looked at.
        self._fed = -1
        self._paused = False  # the transport wants no more
        self._stopped_reading = False
        self._end = OPEN
        self._eof = False  # the peer sends no more
        self._lingered = 0  # octets thrown away after the last answer
        self._since = 0.0  # the loop's time, to a second, at which the present wait began
        self.address = ""

    # -- what asyncio calls -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: RFC 9112 §9."""
        self._transport = cast(asyncio.Transport, transport)
        self._write = self._transport.write
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = str(peer[0])
        accepted = self._server.opened(self)
        self._since = self._server.now
        if accepted:
            self._boundary = True
        elif self._server.overrun:
            self._end = LAST
            self._transport.abort()
        else:
            # RFC 9110 §15.6.4: say when to come back rather than let the peer guess.
            self._say(plain(503, "too many connections", b"Retry-After: 5\r\n"), b"")

    def data_received(self, data: bytes) -> None:
        """Take octets; never raises for anything a peer can send."""
        if self._boundary:
            server = self._server
            if server.holder.current is server.site and (hit := server.wires.get(data)):
                hit.count += 1
                self._since = server.now
                self._write(hit.wire)
                if server.on_request is not None:
                    self._log(data, hit.answer)
                if hit.last:
                    self._farewell()
                return
        self._receive(data)

    def eof_received(self) -> bool:
        """Close, but first answer what was asked (RFC 9112 §9.6)."""
        self._eof = True
        self._boundary = False
        if self._end == OPEN and self._asked is not None and not self._paused:
            # RFC 9112 §8: an incomplete request may be answered so.
            self._refuse(Refusal(400, "incomplete request content"), self._asked[2])
        if self._end <= LAST and (self._outgoing or self._paused):
            # A TLS transport cannot stay half open; its answer ends here.
            return self._transport.can_write_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._end = CLOSED
        self._boundary = False
        self._buffer = b""
        self._inbound = self._asked = None
        self._outgoing.clear()
        self._server.closed(self)

    def pause_writing(self) -> None:
        """Stop answering until the peer takes what it has."""
        self._paused = True
        self._boundary = False
        self._fed = -1  # the transport is in the middle of a write: `_stalls` looks at it

    def resume_writing(self) -> None:
        """Go on where `pause_writing` stopped."""
        self._paused = False
        self._since = self._server.now
        self._fed = self._transport.get_write_buffer_size()
        self._go_on()

    def _go_on(self) -> None:
        """Feed what is left of an answer, and then look at what was asked meanwhile."""
        self._feed()
        if not self._outgoing:
            if self._end == LAST:
                if not self._paused:
                    self._close()
            elif self._end == OPEN:
                self._since = self._server.now
                self._run()

    # -- what the server calls ----------------------------------------------------------------

    def check(self, now: float) -> None:
        """End a wait that was too long."""
        limits = self._server.limits
        waited = now - self._since
        if self._end >= LINGERING:
            self._linger(now)
        elif self._outgoing or self._paused:
            if self._stalls(now):
                self._server.timeouts += 1
                self._transport.abort()
        elif self._inbound is not None:
            if waited > limits.body_seconds:
                self._server.timeouts += 1
                self._refuse(Refusal(408, ""), b"" if self._asked is None else self._asked[2])
        elif self._buffer and self._buffer != b"\r":
            if waited > limits.head_seconds:
                self._server.timeouts += 1
                self._say(plain(408), b"")
        elif waited > limits.idle_seconds:
            self._close()

    def _stalls(self, now: float) -> bool:
        """Say whether the peer takes less than `min_rate`, by what the transport still has."""
        limits = self._server.limits
        waiting = self._transport.get_write_buffer_size()
        waited = now - self._since
        if self._fed >= 0:
            if waited <= limits.stall_seconds:
                return False
            if self._fed - waiting < limits.min_rate * waited and not self._fetching:
                return True
        self._since, self._fed = now, waiting
        return False

    def _linger(self, now: float) -> None:
        """Let the peer take all that was written, and then have a moment to close."""
        if self._transport.get_write_buffer_size():
            if self._stalls(now):
                self._server.timeouts += 1
                self._transport.abort()
        elif self._fed > 0:
            self._since, self._fed = now, 0  # it has the last of it
        elif now - self._since > self._server.limits.linger_seconds:
            self._transport.abort()

    def waiting_since(self) -> float | None:
        """Return since when nothing is under way but a request to come; None: something is."""
        if self._end != OPEN or self._outgoing or self._paused or self._inbound is not None:
            return None
        return self._since

    def shed(self) -> None:
        """Close without a word, to make room."""
        self._end = CLOSED
        self._boundary = False
        self._transport.abort()

    def drain(self) -> None:
        """Close at once when at rest, else after the answer to what was begun."""
        if self._end == OPEN:
            if self._outgoing:
                self._end = LAST
            elif self._inbound is None and (self._boundary or not self._buffer):
                self._close()

    # -- reading ------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        if self._end != OPEN:
            self._lingered += len(data)
            if self._lingered > MAX_LINGER:
                self._transport.abort()
            return
        if not self._buffer:
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer) + data
        self._boundary = False
        if self._paused or self._outgoing:
            if not self._stopped_reading:
                self._stopped_reading = True
                self._transport.pause_reading()
            return
        self._run()

    def _run(self) -> None:
        """Take whole messages off the buffer until it has none or an answer is blocked."""
        while self._buffer and not self._paused and not self._outgoing and self._end == OPEN:
            if not (self._next_head() if self._inbound is None else self._next_body()):
                break
        if self._end != OPEN or self._paused or self._outgoing:
            return
        if self._eof:
            self._last()
            return
        if self._at:
            self._buffer = self._buffer[self._at :]
            self._scanned -= self._at
            self._at = 0
        self._boundary = not self._buffer and self._inbound is None
        if self._stopped_reading:
            self._stopped_reading = False
            self._transport.resume_reading()

    def _next_head(self) -> bool:
        """Answer one head; False when the buffer holds no whole one."""
        buffer, start = self._buffer, self._at
        # RFC 9112 §2.2: empty lines before a request line are ignored.
        while buffer.startswith(b"\r\n", start):
            start += 2
        if start != self._at:
            self._at = self._scanned = start
        if start == len(buffer):
            self._buffer, self._at, self._scanned = b"", 0, 0
            return False
        stop = buffer.find(b"\r\n\r\n", max(start, self._scanned - 3), start + MAX_HEAD) + 4
        if stop < 4:
            if len(buffer) == start + 1 and buffer.endswith(b"\r"):
                return False  # half an empty line is no beginning either
            if self._scanned <= start:
                self._since = self._server.now  # the deadline counts from the first octet
            try:
                incomplete(buffer, start, self._scanned)
            except Refusal as refusal:
                self._refuse(refusal, bytes(buffer[start:]))
            self._scanned = len(buffer)
            return False
        head = bytes(buffer[start:stop])
        if stop == len(buffer):
            self._buffer, self._at, self._scanned = b"", 0, 0
        else:
            self._at = self._scanned = stop
        self._since = self._server.now
        try:
            self._answer_head(head)
        except Refusal as refusal:
            self._refuse(refusal, head)
        return True

    def _answer_head(self, head: bytes) -> None:
        server = self._server
        site = server.renew()
        if (hit := server.wires.get(head)) is not None:
            hit.count += 1
            self._write(hit.wire)
            if server.on_request is not None:
                self._log(head, hit.answer)
            if hit.last:
                self._farewell()
            return
        for last in (False, True):
            answer = server.recall(head, last=last)
            if answer is not None:
                self._send(answer, head, persistent=not last)
                return
        if head == PREFACE_HEAD and server.limits.http2:
            self._upgrade()
            return
        parsed = parse_head(head)
        if server.scheme == "http" and parsed.request.target[:8].lower() == b"https://":
            # RFC 9110 §7.4: what is asked for securely is not given in the clear.  (In HTTP/2
            # :scheme may be what a gateway in front of us was asked with.)
            raise Refusal(421, "https is on another port")
        hook = server.hook(parsed.request.target)
        if hook is not None:
            self._answer_by(hook, head, parsed)
            return
        answer = decide(site, parsed.request)
        if parsed.plain:
            server.keep(head, answer, last=not parsed.persistent)
        if not parsed.length:
            self._send(answer, head, persistent=parsed.persistent, stay=parsed.stays)
        elif not self._take_body(answer, head, parsed):
            self._send(answer, head, persistent=False)

    def _answer_by(self, hook: Hook, head: bytes, parsed: Head) -> None:
        """Let a hook answer, once the body is there if there is one."""
        if not parsed.length:
            answer = self._server.ask(hook, parsed.request, b"", self.address)
            self._send(answer, head, persistent=parsed.persistent)
            return
        limit = self._server.limits.body
        if parsed.length > limit:
            raise Refusal(413, "request content too large")
        from appliance.http.inbound import Inbound

        self._inbound = Inbound(head, parsed, limit, keep=True)
        self._asked = (hook, parsed.request, head)
        if parsed.expects:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")  # RFC 9110 §10.1.1

    def _upgrade(self) -> None:
        """Hand the connection over to HTTP/2: the peer began it with the preface (§3.3)."""
        # h2 is imported when first spoken: a tenth of the time that a booting machine has.
        from appliance.http.http2 import Http2Protocol

        rest = PREFACE_HEAD + bytes(self._buffer[self._at :])
        self._end = CLOSED
        self._buffer = b""
        if self._stopped_reading:
            self._transport.resume_reading()
        successor = Http2Protocol(self._server, self._transport)
        self._server.replaced(self, successor)
        self._transport.set_protocol(successor)
        successor.data_received(rest)

    def _take_body(self, answer: Answer, head: bytes, parsed: Head) -> bool:
        """Answer a request when its body has been read and was right; False: answer it now."""
        limit = self._server.limits.body
        if parsed.length > limit:
            self._too_large(parsed.request)
            return False
        if parsed.expects:
            # RFC 9110 §10.1.1: the final answer without a 100; whether the body still comes is
            # not known, so nothing after it can be.
            return False
        from appliance.http.inbound import Inbound  # and h11 with it, when there is a body

        self._inbound = Inbound(head, parsed, limit)
        self._asked = (answer, parsed.request, head)
        return True

    def _too_large(self, request: Request) -> None:
        """Refuse a body past the limit where it is not the method that is refused anyway."""
        if request.method in {b"GET", b"HEAD", b"OPTIONS"}:
            raise Refusal(413, "request content too large")

    def _next_body(self) -> bool:
        """Take body octets; False when more must come."""
        assert self._inbound is not None
        assert self._asked is not None
        by, request, head = self._asked
        data = bytes(self._buffer[self._at :])
        self._buffer, self._at, self._scanned = b"", 0, 0
        try:
            try:
                rest = self._inbound.feed(data)
            except Refusal as refusal:
                if refusal.status != 413 or not isinstance(by, Answer):
                    raise
                self._too_large(request)
                self._send(by, head, persistent=False)
                return False
        except Refusal as refusal:
            self._refuse(refusal, head)
            return False
        if rest is None:
            return False
        inbound, self._inbound, self._asked = self._inbound, None, None
        self._buffer = rest
        self._since = self._server.now
        if not isinstance(by, Answer):
            by = self._server.ask(by, request, bytes(inbound.content or b""), self.address)
        self._send(by, head, persistent=inbound.persistent)
        return bool(rest)

    # -- writing ------------------------------------------------------------------------------

    def _send(self, answer: Answer, head: bytes, *, persistent: bool, stay: bool = False) -> None:
        """Write an answer, whole if it is small, and go on or close after it.

        RFC 9112 §9.3: `stay` is for HTTP/1.0, which goes on only if it asks and is told so.
        """
        server = self._server
        close = not (persistent or stay) or server.draining
        if close:
            self._end = LAST
        try:
            parts = open_parts(answer.parts)
        except OSError:
            server.files_changed += 1
            self._end = OPEN
            self._say(plain(503, "changed on disk", b"Retry-After: 5\r\n"), head)
            return
        server.count(answer, target_of(head))
        if server.on_request is not None:
            self._log(head, answer)
        octets = server.head(answer, close=close, stay=stay)
        if answer.length <= SMALL and not any(type(part) is Stretch for part in parts):
            self._write(octets + b"".join(cast("list[bytes]", parts)))
        else:
            self._fed = len(octets)
            self._outgoing.extend(parts)
            self._write(octets)
            self._feed()
        if close and not self._outgoing and not self._paused:
            self._close()

    def _feed(self) -> None:
        """Write the pieces of a large answer while the transport takes them."""
        outgoing = self._outgoing
        while outgoing and not self._paused and not self._fetching:
            part = outgoing[0]
            if isinstance(part, Stretch):
                if not self._feed_file(part):
                    return
                continue
            if len(part) > SMALL:
                view = memoryview(part)
                outgoing[0] = view[SMALL:]
                part = view[:SMALL]
            else:
                del outgoing[0]
            self._fed += len(part)
            self._write(part)

    def _feed_file(self, part: Stretch) -> bool:
        """Write the next slice of a file; False when it has to be waited for, or is lost."""
        if not part.at_hand():
            self._fetching = True
            self._server.fetch(part, self._fetched)
            return False
        try:
            octets = part.read()
        except OSError:
            self._lost_file()
            return False
        if not part:
            del self._outgoing[0]
        self._fed += len(octets)
        self._write(octets)
        return True

    def _fetched(self, octets: bytes | None) -> None:
        """Go on with a slice that a thread has read."""
        self._fetching = False
        if self._end == CLOSED or not self._outgoing:
            return
        if octets is None:
            self._lost_file()
            return
        if not self._outgoing[0]:
            del self._outgoing[0]
        self._fed += len(octets)
        self._write(octets)
        self._go_on()

    def _lost_file(self) -> None:
        """Break an answer off: RFC 9112 §8, the peer has to see that it is incomplete."""
        self._server.files_changed += 1
        self._outgoing.clear()
        self._transport.abort()

    def _refuse(self, refusal: Refusal, head: bytes) -> None:
        """Answer a faulty head; where the next one would begin is not known."""
        with_body = not head.startswith(b"HEAD ")
        self._say(plain(refusal.status, refusal.reason, with_body=with_body), head)

    def _farewell(self) -> None:
        """Close once the answer that was just written is taken."""
        self._end = LAST
        if not self._paused:
            self._close()

    def _last(self) -> None:
        """Close: there is nothing more to say."""
        self._end = LAST
        self._close()

    def _say(self, answer: Answer, head: bytes) -> None:
        """Write a last, small answer and close."""
        if self._end != OPEN:
            return
        self._end = LAST
        self._server.count(answer, target_of(head))
        if self._server.on_request is not None:
            self._log(head, answer)
        self._write(
            self._server.head(answer, close=True)
            + b"".join(cast("tuple[bytes, ...]", answer.parts))
        )
        if not self._paused:
            self._close()

    def _close(self) -> None:
        """Send FIN after what was written, and wait a little for the peer's.

        RFC 9112 §9.6: closing with octets unread resets the connection, and a reset can destroy
        the last answer before the peer has read it.
        """
        self._boundary = False
        self._buffer = b""
        self._since, self._fed = self._server.now, -1
        if self._end == LAST and not self._eof and self._transport.can_write_eof():
            self._end = LINGERING
            if self._stopped_reading:
                self._stopped_reading = False
                self._transport.resume_reading()
            self._transport.write_eof()
        else:
            self._end = CLOSED
            self._transport.close()

    def _log(self, head: bytes, answer: Answer) -> None:
        on_request = self._server.on_request
        if on_request is not None:
            on_request(self.address, head, answer.status, answer.length)
