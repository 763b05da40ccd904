"""HTTP/2 on one connection (RFC 9113): h2 keeps the protocol, this decides what to send when.

The same semantics answer as for HTTP/1.1.  h2 parses frames and header blocks, keeps states and
windows; here are the order in which streams are served (RFC 9218), back-pressure, deadlines, and
a budget for what costs a peer nothing and a server something: resets, pings, settings and empty
frames.  Past the budget the connection ends with ENHANCE_YOUR_CALM.  While the transport takes
nothing more, nothing is read either, so that no queue grows.  Imports h2 and this package.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from functools import lru_cache
from typing import cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from appliance.http.largefile import Mapped, open_parts
from appliance.http.message import Answer, Request, plain
from appliance.http.priority import Priority, parse_priority, rank
from appliance.http.semantics import decide
from appliance.http.server import HttpServer
from appliance.http.strict import KNOWN, MAX_HEAD
from appliance.http.target import is_authority

# RFC 9113 §3.4: the connection preface up to the blank line, which reads like a request head.
PREFACE_HEAD = b"PRI * HTTP/2.0\r\n\r\n"
# Octets given to h2 at a time, so that a budget is looked at before all of a flood is parsed.
CHUNK = 4096
# Octets gathered before they are written.
WRITE = 64 * 1024
# Octets of one DATA frame: RFC 9113 §4.2, what every peer accepts.
FRAME = 16384
# Octets that a reader has to take within `stall_seconds`.
MIN_PROGRESS = 8 * 1024
# Streams remembered after their end, for late frames: RFC 9113 §5.1.
MAX_CLOSED = 1000
# RFC 9218 §7.1: the frame type of PRIORITY_UPDATE; §2.1: the setting that says we go by it.
PRIORITY_UPDATE = 0x10
NO_RFC7540_PRIORITIES = 0x9  # h2 has no name for it, and sends what it is given

# RFC 9113 §6.8: a first GOAWAY that promises to take what is on its way, stream 2**31-1, no error.
GOAWAY_SOON = bytes.fromhex("000008 07 00 00000000 7fffffff 00000000")

_TARGET = re.compile(rb"[\x21-\x7e]+")


class Budget:
    """A bucket of tokens: so many at once, and so many more each second."""

    __slots__ = ("_burst", "_last", "_rate", "_tokens")

    def __init__(self, burst: int, rate: int, now: float) -> None:
        self._burst = burst
        self._rate = rate
        self._tokens = float(burst)
        self._last = now

    def spend(self, now: float, cost: int = 1) -> bool:
        """Take tokens; False when there are too few."""
        self._tokens = min(self._burst, self._tokens + (now - self._last) * self._rate)
        self._last = now
        self._tokens -= cost
        return self._tokens >= 0


class _Connection(h2.connection.H2Connection):
    """h2 with this server's bounds."""

    DEFAULT_MAX_HEADER_LIST_SIZE = MAX_HEAD
    MAX_CLOSED_STREAMS = MAX_CLOSED


class _Stream:
    """A response that is not sent yet."""

    __slots__ = ("file", "number", "parts", "priority", "turn", "unread")

    def __init__(
        self,
        number: int,
        parts: list[bytes | memoryview],
        file: Mapped | None,
        priority: Priority,
        unread: bool,
    ) -> None:
        self.number = number
        self.parts = deque(part for part in parts if len(part))
        self.file = file  # what the parts are mapped from
        self.priority = priority
        self.unread = unread  # the request's content has not ended
        self.turn = 0


@lru_cache(maxsize=4096)
def _fields(block: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Turn a header block of field lines into h2's pairs; names are lower case in HTTP/2."""
    pairs = (line.partition(b": ") for line in block.split(b"\r\n") if line)
    return tuple((name.lower(), value) for name, _, value in pairs)


class Http2Protocol(asyncio.Protocol):
    """One HTTP/2 connection of an `HttpServer`, taken over after its preface was seen."""

    def __init__(self, server: HttpServer, transport: asyncio.Transport) -> None:
        self._server = server
        self._transport = transport
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = _Connection(config)
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: server.limits.streams,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
                cast("h2.settings.SettingCodes", NO_RFC7540_PRIORITIES): 1,
            },
        )
        self._h2.initiate_connection()
        self._streams: dict[int, _Stream] = {}
        self._early: dict[int, Priority] = {}  # PRIORITY_UPDATE before its request (§7.1)
        self._turn = 0
        self._paused = False
        self._reading = True
        self._draining = False
        self._ended = False
        self._since = server.now  # when the present wait began
        self._partial: float | None = None  # when a frame began that has no end yet
        self._progress = 0  # octets of content sent since `_since`
        # A browser cancels a page full of images at once; a rapid reset never stops.
        self._resets = Budget(burst=200, rate=20, now=server.now)
        # Pings, settings and the like: a client sends a few in a minute.
        self._control = Budget(burst=500, rate=50, now=server.now)

    # -- what asyncio calls -------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take octets; never raises for anything a peer can send."""
        for start in range(0, len(data), CHUNK):
            if self._ended:
                return
            try:
                events = self._h2.receive_data(data[start : start + CHUNK])
            except h2.exceptions.ProtocolError:
                self._end()  # h2 has prepared the GOAWAY that says why
                return
            if events:
                self._partial = None
            elif not self._quiet():
                return
            for event in events:
                self._event(event)
        self._pump()

    def _quiet(self) -> bool:
        """Judge octets that led to no event; False when they were too many."""
        answer = self._h2.data_to_send()
        if answer:
            # Frames of streams that are over: h2 says so with a RST_STREAM of 13 octets each.
            self._transport.write(answer)
            if not self._control.spend(self._server.now, len(answer) // 13):
                self._goaway(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                return False
        elif self._partial is None:
            self._partial = self._server.now
        return True

    def eof_received(self) -> bool:
        """Close: a peer that sends no more cannot open a window either."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._ended = True
        self._streams.clear()
        self._server.closed(self)

    def pause_writing(self) -> None:
        """Send and read nothing more until the peer takes what it has."""
        self._paused = True
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on where `pause_writing` stopped."""
        self._paused = False
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        if not self._ended:
            self._pump()

    # -- what the server calls ----------------------------------------------------------------

    def check(self, now: float) -> None:
        """End a wait that was too long."""
        limits = self._server.limits
        waited = now - self._since
        if self._ended:
            if waited > limits.linger_seconds:
                self._transport.abort()
        elif self._streams or self._paused:
            if waited > limits.stall_seconds:
                if self._progress < MIN_PROGRESS:
                    self._server.timeouts += 1
                    self._transport.abort()
                self._since, self._progress = now, 0
        elif self._partial is not None and now - self._partial > limits.head_seconds:
            self._server.timeouts += 1
            self._goaway(h2.errors.ErrorCodes.NO_ERROR)
        elif waited > limits.idle_seconds:
            self._goaway(h2.errors.ErrorCodes.NO_ERROR)

    def drain(self) -> None:
        """Say that no new streams are wanted, and close after those under way (§6.8)."""
        if self._ended or self._draining:
            return
        self._draining = True
        self._transport.write(self._h2.data_to_send() + GOAWAY_SOON)
        self._pump()

    # -- events -------------------------------------------------------------------------------

    def _event(self, event: h2.events.Event) -> None:
        now = self._server.now
        calm = True
        if self._ended:
            return
        if isinstance(event, h2.events.RequestReceived):
            self._request(event)
        elif isinstance(event, h2.events.DataReceived):
            # Content is not wanted; the connection's window is given back, the stream's is not.
            length = event.flow_controlled_length
            if length:
                self._h2.increment_flow_control_window(length)
            if not event.data and event.stream_ended is None:
                calm = self._control.spend(now)
        elif isinstance(event, h2.events.StreamReset):
            self._streams.pop(event.stream_id, None)
            calm = self._resets.spend(now) if event.remote_reset else True
        elif isinstance(event, h2.events.WindowUpdated):
            calm = bool(self._streams) or self._control.spend(now)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._draining = True  # the peer's own goodbye; what it asked for is still sent
        elif isinstance(event, h2.events.UnknownFrameReceived):
            calm = self._control.spend(now)
            self._priority_update(event)
        elif not isinstance(event, h2.events.StreamEnded | h2.events.PingAckReceived):
            calm = self._control.spend(now)
        if not calm:
            self._goaway(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)

    def _priority_update(self, event: h2.events.UnknownFrameReceived) -> None:
        frame = event.frame
        body = bytes(getattr(frame, "body", b""))
        if getattr(frame, "type", None) != PRIORITY_UPDATE or len(body) < 4:
            return
        number = int.from_bytes(body[:4]) & 0x7FFFFFFF
        priority = parse_priority(body[4:])
        if stream := self._streams.get(number):
            stream.priority = priority
        else:
            if len(self._early) >= self._server.limits.streams:
                self._early.clear()  # of streams that were never opened, or are over
            self._early[number] = priority

    def _request(self, event: h2.events.RequestReceived) -> None:
        server = self._server
        self._since = server.now
        number = event.stream_id
        headers = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
        request, answer = read_request(headers)
        if answer is None:
            answer = decide(server.renew(), request)
        try:
            parts, file = open_parts(answer.parts)
        except OSError:
            server.files_changed += 1
            answer = plain(503, "changed on disk", b"Retry-After: 5\r\n")
            parts, file = [part for part in answer.parts if isinstance(part, bytes)], None
        priority = self._early.pop(number, None) or parse_priority(
            request.fields.get(b"priority", b"")
        )
        stream = _Stream(number, parts, file, priority, event.stream_ended is None)
        date = server.date[6:-2]  # without "Date: " and CRLF
        fields = [(b":status", b"%d" % answer.status), (b"date", date), *_fields(answer.block)]
        try:
            self._h2.send_headers(number, fields, end_stream=not stream.parts)
        except h2.exceptions.ProtocolError:
            return  # reset by its peer in the same read
        server.count(answer)
        if server.on_request is not None:
            self._log(request, headers, answer)
        if stream.parts:
            self._streams[number] = stream
        else:
            self._finished(stream)

    # -- sending ------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what windows and transport allow, in the order of priority."""
        written = 0
        while not self._paused and not self._ended:
            stream = self._next()
            if stream is not None:
                written += self._send_some(stream)
            if stream is None or written >= WRITE:
                written = 0
                self._flush()
            if stream is None:
                break
        if self._draining and not self._streams and not self._ended:
            self._goaway(h2.errors.ErrorCodes.NO_ERROR)

    def _next(self) -> _Stream | None:
        best = None
        for stream in self._streams.values():
            if self._h2.local_flow_control_window(stream.number) > 0 and (
                best is None
                or rank(stream.priority, stream.number, stream.turn)
                < rank(best.priority, best.number, best.turn)
            ):
                best = stream
        return best

    def _send_some(self, stream: _Stream) -> int:
        """Send one DATA frame of a stream; returns its octets of content."""
        if stream.file is not None and not stream.file.intact:
            self._server.files_changed += 1
            del self._streams[stream.number]
            self._h2.reset_stream(stream.number, h2.errors.ErrorCodes.INTERNAL_ERROR)
            return 0
        room = min(
            self._h2.local_flow_control_window(stream.number),
            self._h2.max_outbound_frame_size,
            FRAME,
        )
        part = stream.parts.popleft()
        if len(part) > room:
            view = memoryview(part)
            stream.parts.appendleft(view[room:])
            part = view[:room]
        self._turn += 1
        stream.turn = self._turn
        self._h2.send_data(stream.number, bytes(part), end_stream=not stream.parts)
        self._progress += len(part)
        if not stream.parts:
            del self._streams[stream.number]
            self._finished(stream)
        return len(part)

    def _finished(self, stream: _Stream) -> None:
        self._since, self._progress = self._server.now, 0
        if stream.unread:
            # RFC 9113 §8.1: answered in full; the rest of the content is not wanted.
            self._h2.reset_stream(stream.number, h2.errors.ErrorCodes.NO_ERROR)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._transport.write(data)

    def _goaway(self, code: h2.errors.ErrorCodes) -> None:
        if not self._ended:
            self._h2.close_connection(code)
            self._end()

    def _end(self) -> None:
        """Write what is left, close, and give the peer a moment to read it."""
        self._ended = True
        self._streams.clear()
        self._since = self._server.now
        self._flush()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _log(self, request: Request, headers: list[tuple[bytes, bytes]], answer: Answer) -> None:
        """Tell the log, in the form of a head of HTTP/1.1."""
        lines = [b"%s %s HTTP/2.0" % (request.method, request.target)]
        lines += [b"%s: %s" % pair for pair in headers if not pair[0].startswith(b":")]
        on_request = self._server.on_request
        if on_request is not None:
            peer = self._transport.get_extra_info("peername")
            head = b"\r\n".join([*lines, b"", b""])
            on_request(peer, head, answer.status, answer.length)


def read_request(headers: list[tuple[bytes, bytes]]) -> tuple[Request, Answer | None]:
    """Make a request of h2's validated headers, and the answer to it if it is faulty.

    h2 has checked names, pseudo-headers and connection fields (RFC 9113 §8.2, §8.3); what the
    semantics rely on beyond that is checked here.
    """
    pseudo: dict[bytes, bytes] = {}
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name.startswith(b":"):
            pseudo[name] = value
        elif name in KNOWN:
            fields[name] = fields[name] + b", " + value if name in fields else value
    authority = pseudo.get(b":authority", fields.get(b"host", b""))
    target = pseudo.get(b":path", b"") or b"/"
    request = Request(pseudo.get(b":method", b""), target, authority.lower(), fields)
    if not _TARGET.fullmatch(target):
        return request, plain(400, "malformed request target")
    if not is_authority(authority):
        return request, plain(400, "malformed authority")
    return request, None
