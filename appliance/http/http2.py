"""HTTP/2 on one connection (RFC 9113): h2 keeps the protocol, this decides what to send when.

The same semantics answer as for HTTP/1.1.  Octets are cut into frames here.  Requests that were
seen before take the fast lane (`lane`); everything else goes to h2, which parses it, keeps states
and windows, and says what was wrong.  Here are also the order in which streams are served (RFC
9218), back-pressure, deadlines, and budgets for resets and for frames that ask for nothing; past
them the connection ends with ENHANCE_YOUR_CALM.  While the transport takes nothing more, nothing
is read either, so that no queue grows.  Imports h2 and this package.
"""

from __future__ import annotations

import asyncio
from typing import cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from appliance.http.budget import Budget
from appliance.http.http2_request import Body, announces_little, log_head, read_request
from appliance.http.http2_streams import Outgoing, Stream
from appliance.http.lane import FRAME, MAX_BLOCKS, Fields, LaneDecoder, Ready, fields_of
from appliance.http.largefile import Stretch, open_parts
from appliance.http.message import Answer, Request, plain
from appliance.http.priority import parse_priority
from appliance.http.semantics import decide
from appliance.http.server import HttpServer
from appliance.http.strict import MAX_HEAD

PREFACE = 24  # octets of the whole preface
# Octets gathered before they are written.
WRITE = 64 * 1024
# Requests of one connection whose content is waited for, 64 KB each at most.
MAX_BODIES = 8
# Octets thrown away after our end, while the peer has not closed.
MAX_LINGER = 1024 * 1024
# Streams remembered after their end, for late frames: RFC 9113 §5.1.
MAX_CLOSED = 1000
# RFC 9113 §6: frame types.
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, CONTINUATION = 0, 1, 3, 4, 7, 9
# RFC 9113 §6.1, §6.2: flags.
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x01, 0x01, 0x04, 0x08, 0x20
# RFC 9218 §2.1: the setting that says we go by its priorities.
NO_RFC7540_PRIORITIES = 0x9  # h2 has no name for it, and sends what it is given
# Octets sent that pay for one more frame which asks for nothing: a window of 16 KB or more is
# then opened for free, however fast the download.
EARNING = 16 * 1024

# RFC 9113 §6.8: a first GOAWAY that promises to take what is on its way, stream 2**31-1, no error.
GOAWAY_SOON = bytes.fromhex("000008 07 00 00000000 7fffffff 00000000")


class _Connection(h2.connection.H2Connection):
    """h2 with this server's bounds."""

    DEFAULT_MAX_HEADER_LIST_SIZE = MAX_HEAD
    MAX_CLOSED_STREAMS = MAX_CLOSED


class Http2Protocol(asyncio.Protocol):
    """One HTTP/2 connection of an `HttpServer`."""

    def __init__(self, server: HttpServer, transport: asyncio.Transport | None = None) -> None:
        """Serve a connection that ALPN said is HTTP/2, or with a transport take one over."""
        self._server = server
        self.address = ""
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = _Connection(config)
        self._decoder = self._h2.decoder = LaneDecoder(MAX_HEAD)
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: server.limits.streams,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
                cast("h2.settings.SettingCodes", NO_RFC7540_PRIORITIES): 1,
            },
        )
        self._h2.initiate_connection()
        self._out = Outgoing(self._h2, server, self._pump)
        self._streams = self._out.streams
        self._bodies: dict[int, Body] = {}  # requests whose content is waited for
        self._tail = b""  # the beginning of a frame
        self._preface = PREFACE  # octets of the preface to come
        self._greeted = False  # the first frame was SETTINGS
        self._block = False  # a header block has not ended: only CONTINUATION may come
        self._lane = False  # h2 has seen a request, so the connection is open
        self._ready: object = None  # where the decoder's blocks were found
        self._gone: dict[int, None] = {}  # streams of the fast lane, the latest MAX_CLOSED
        self._sending: list[bytes] = []  # frames of the fast lane, not written yet
        self._paused = False
        self._reading = True
        self._draining = server.draining  # its handshake took longer than the server was wanted
        self._ended = False
        self._lingered = 0  # octets that came after that
        self._since = server.now  # when the present wait began
        self._left = -1  # octets that the transport had to send then; -1: not looked at
        self._partial: float | None = None  # when a frame or a block began that has no end yet
        # A browser cancels a page full of images at once; a rapid reset never stops.
        self._resets = Budget(burst=200, rate=20, now=server.now)
        # Pings, settings and the like: a client sends a few in a minute.
        self._control = Budget(burst=500, rate=50, now=server.now)
        if transport is not None:
            self._transport = transport
            self.address = _address(transport)

    # -- what asyncio calls -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: RFC 9113 §3.2."""
        self._transport = cast(asyncio.Transport, transport)
        self.address = _address(self._transport)
        welcome = self._server.opened(self)
        self._since = self._server.now
        if not welcome:
            # RFC 9113 §8.7: nothing was processed, so whatever was asked may be asked again.
            self._goaway(h2.errors.ErrorCodes.REFUSED_STREAM)

    def data_received(self, data: bytes) -> None:
        """Take octets; never raises for anything a peer can send."""
        if self._ended:
            # RFC 9113 §6.8: what comes after our GOAWAY is ignored.  It is read, because closing
            # with octets unread resets the connection, and a reset can destroy that GOAWAY.
            self._lingered += len(data)
            if self._lingered > MAX_LINGER:
                self._transport.abort()
            return
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if self._paused:
            self._tail = data  # no more than a read: nothing is read meanwhile
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Cut octets into frames and do what they say, as long as answers can be written."""
        at, size = 0, len(data)
        if self._preface:
            at = min(self._preface, size)
            self._preface -= at
            if not self._give(data[:at]):
                return
        while size - at >= 9:
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            if length > FRAME:
                at += self._give(data[at:]) * (size - at)  # h2 says what is wrong with it
                break
            stop = at + 9 + length
            if stop > size:
                break
            self._partial = None
            if not (data[at + 3] == HEADERS and self._is_fast(data, at, stop)) and not self._frame(
                data, at, stop
            ):
                break
            at = stop
            if self._paused:
                break  # what is answered from memory would pile up, the rest in h2
        if self._ended:
            return
        if at < size:
            self._tail = data[at:]
        if self._paused:
            return
        if self._partial is None and (self._tail or self._block or self._preface):
            self._partial = self._server.now
        self._pump()

    def _is_fast(self, data: bytes, at: int, stop: int) -> bool:
        """Answer a request by the fast lane; False when it has to go through h2."""
        flags = data[at + 4]
        wanted = flags & (END_STREAM | END_HEADERS | PADDED) == END_STREAM | END_HEADERS
        if not wanted or not self._lane or self._block:
            return False
        number = int.from_bytes(data[at + 5 : at + 9])
        if number <= self._h2.highest_inbound_stream_id or not number & 1 or number >> 31:
            return False
        start = at + 9
        if flags & PRIORITY:
            # RFC 9113 §5.3.2: read past it; h2 has to complain of a dependency on itself.
            start += 5
            if start > stop or int.from_bytes(data[at + 9 : at + 13]) & 0x7FFFFFFF == number:
                return False
        server, decoder = self._server, self._decoder
        server.renew()
        if server.ready is not self._ready:
            decoder.blocks.clear()
            self._ready = server.ready
        block = data[start:stop]
        ready = decoder.blocks.get(block)
        if ready is None:
            fields = decoder.ahead(block)
            ready = server.ready.get(fields) if fields is not None else None
            if ready is None:
                return False
            if decoder.steady and len(decoder.blocks) < MAX_BLOCKS:
                decoder.blocks[block] = ready
        if not self._fits(ready):
            if decoder.blocks.get(block) is ready:
                decoder.ahead(block)
            return False
        decoder.taken()
        self._answer_fast(number, data[at + 5 : at + 9], ready)
        return True

    def _fits(self, ready: Ready) -> bool:
        """Say whether an answer can be sent as a whole, at once, without harm to another."""
        length = ready.answer.length
        return not (
            self._paused
            or self._streams
            or self._draining
            # RFC 7541 §4.2: h2 has to say first that the table of what we send is another size.
            or self._h2.encoder.header_table.resized
            or not (ready.urgent or length <= FRAME)
            or length > self._h2.outbound_flow_control_window
            or length > self._h2.remote_settings.initial_window_size
        )

    def _answer_fast(self, number: int, stream: bytes, ready: Ready) -> None:
        server, gone = self._server, self._gone
        if ready.made is not server.date:
            ready.make(server.date, server.extra)
        self._h2.highest_inbound_stream_id = number
        self._h2.outbound_flow_control_window -= ready.answer.length
        gone[number] = None
        if len(gone) > MAX_CLOSED:
            del gone[next(iter(gone))]
        ready.count += 1
        self._since = server.now
        self._sending.append(ready.frames(stream))
        self._out.early.pop(number, None)
        if len(self._sending) >= 16 or ready.answer.length > FRAME:
            self._flush()
        if server.on_request is not None:
            server.on_request(self.address, ready.log, ready.answer.status, ready.answer.length)

    def _frame(self, data: bytes, at: int, stop: int) -> bool:
        """Give a frame to h2; False when the connection ends by it."""
        kind, flags = data[at + 3], data[at + 4]
        number = int.from_bytes(data[at + 5 : at + 9]) & 0x7FFFFFFF
        calm = True
        now = self._server.now
        if not self._greeted:
            # RFC 9113 §3.4: the preface ends with SETTINGS, which cannot be an acknowledgement.
            if kind != SETTINGS or flags & ACK:
                self._goaway(h2.errors.ErrorCodes.PROTOCOL_ERROR)
                return False
            self._greeted = True
        if kind == RST_STREAM and (number in self._streams or number in self._gone):
            calm = self._resets.spend(now)
        elif kind == DATA:
            calm = stop - at > 9 or bool(flags & END_STREAM) or self._control.spend(now)
        elif kind == HEADERS:
            self._block = not flags & END_HEADERS
        elif kind == CONTINUATION:
            self._block = self._block and not flags & END_HEADERS
            calm = self._control.spend(now)
        else:
            calm = self._control.spend(now)
        if not calm:
            self._goaway(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            return False
        if kind == GOAWAY and not number and stop - at >= 17 and not self._block:
            # The peer's own goodbye (§6.8).  h2 would send nothing after it; here what was asked
            # for is still sent.
            self._draining = True
            return True
        if kind == SETTINGS and flags & ACK and stop - at > 9:
            self._goaway(h2.errors.ErrorCodes.FRAME_SIZE_ERROR)  # §6.5
            return False
        if number in self._gone and kind in (DATA, HEADERS):
            # RFC 9113 §5.1: after END_STREAM only PRIORITY, WINDOW_UPDATE and RST_STREAM may come.
            self._goaway(h2.errors.ErrorCodes.STREAM_CLOSED)
            return False
        return self._give(data[at:stop])

    def _give(self, octets: bytes) -> bool:
        """Let h2 read octets, and act upon what it found; False when the connection ends."""
        try:
            events = self._h2.receive_data(octets)
        except h2.exceptions.ProtocolError:
            # h2 has prepared the GOAWAY that says why, with a wrong code for header compression:
            # RFC 9113 §4.3 wants COMPRESSION_ERROR.
            if self._decoder.failed:
                octets = self._h2.data_to_send()[:-4]
                self._sending.append(octets + h2.errors.ErrorCodes.COMPRESSION_ERROR.to_bytes(4))
            self._end()
            return False
        self._decoder.taken()
        if not events:
            answer = self._h2.data_to_send()
            if answer:
                # Frames of streams that are over: h2 says so with a RST_STREAM of 13 octets each.
                self._sending.append(answer)
                if self._lane and not self._control.spend(self._server.now, len(answer) // 13):
                    self._goaway(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        for event in events:
            self._event(event)
        return not self._ended

    def eof_received(self) -> bool:
        """Close: a peer that sends no more cannot open a window either."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._ended = True
        self._streams.clear()
        self._bodies.clear()
        self._out.unread.clear()
        self._sending.clear()
        self._server.closed(self)

    def pause_writing(self) -> None:
        """Send and read nothing more until the peer takes what it has."""
        self._paused = True
        self._left = -1  # answers of the fast lane were not counted
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on where `pause_writing` stopped."""
        self._paused = False
        if not self._ended:
            if self._tail:
                self.data_received(b"")
            else:
                self._pump()
        if not self._paused and not self._reading:
            self._reading = True
            self._transport.resume_reading()

    # -- what the server calls ----------------------------------------------------------------

    def check(self, now: float) -> None:
        """End a wait that was too long."""
        limits = self._server.limits
        waited = now - self._since
        if self._ended:
            self._linger(now)
        elif self._streams or self._paused:
            if self._stalls(now):
                self._server.timeouts += 1
                self._transport.abort()
        elif (self._bodies and waited > limits.body_seconds) or (
            self._partial is not None and now - self._partial > limits.head_seconds
        ):
            self._server.timeouts += 1
            for number, body in tuple(self._bodies.items()):
                if body.answer is not None:
                    self._respond_early(number, body.answer)
            self._pump()
            self._goaway(h2.errors.ErrorCodes.NO_ERROR)
        elif self._out.unread and waited > limits.body_seconds:
            self._out.refuse_unread()
            self._pump()
        elif waited > limits.idle_seconds:
            self._goaway(h2.errors.ErrorCodes.NO_ERROR)

    def _stalls(self, now: float) -> bool:
        """Say whether the peer takes less than `min_rate`, by what the transport still has."""
        limits, out = self._server.limits, self._out
        waiting = self._transport.get_write_buffer_size()
        waited = now - self._since
        if self._left >= 0:
            if waited <= limits.stall_seconds:
                return False
            taken = out.progress + self._left - waiting
            if taken < limits.min_rate * waited and not out.fetching:
                return True
        self._since, self._left, out.progress = now, waiting, 0
        return False

    def _linger(self, now: float) -> None:
        """Let the peer take all that was written, and then have a moment to close."""
        if self._transport.get_write_buffer_size():
            if self._stalls(now):
                self._server.timeouts += 1
                self._transport.abort()
        elif self._left > 0:
            self._since, self._left = now, 0  # it has the last of it
        elif now - self._since > self._server.limits.linger_seconds:
            self._transport.abort()

    def waiting_since(self) -> float | None:
        """Return since when nothing is under way but a request to come; None: something is."""
        busy = self._ended or self._streams or self._bodies or self._paused
        return None if busy else self._since

    def shed(self) -> None:
        """Close without a word, to make room."""
        self._ended = True
        self._transport.abort()

    def drain(self) -> None:
        """Say that no new streams are wanted, and close after those under way (§6.8)."""
        if self._ended or self._draining:
            return
        self._draining = True
        self._flush()
        self._transport.write(GOAWAY_SOON)
        self._pump()

    # -- events -------------------------------------------------------------------------------

    def _event(self, event: h2.events.Event) -> None:
        if self._ended:
            return
        if isinstance(event, h2.events.RequestReceived):
            self._request(event)
        elif isinstance(event, h2.events.DataReceived):
            self._content(event)
        elif isinstance(event, h2.events.StreamEnded):
            self._out.unread.pop(event.stream_id, None)
            body = self._bodies.pop(event.stream_id, None)
            if body is not None:
                answer = body.ended(self._server, self.address)
                self._respond(event.stream_id, body.request, body.headers, answer)
        elif isinstance(event, h2.events.StreamReset):
            self._forget(event.stream_id)
        elif isinstance(event, h2.events.UnknownFrameReceived):
            fault = self._out.prioritise(event)
            if fault is not None:
                self._goaway(fault)

    def _content(self, event: h2.events.DataReceived) -> None:
        """Take content; of what nobody waits for only the connection's window is given back."""
        number, octets = event.stream_id, event.flow_controlled_length
        if octets:
            self._h2.increment_flow_control_window(octets)
        body = self._bodies.get(number)
        ended = event.stream_ended is not None
        if self._out.content(number, octets, ended=ended) or body is None:
            return
        if octets and not ended:
            self._h2.increment_flow_control_window(octets, number)
        answer = body.take(event.data, self._server.limits.body)
        if answer is not None:
            self._respond_early(number, answer)

    def _forget(self, number: int) -> None:
        for some in (self._streams, self._bodies, self._out.unread):
            some.pop(number, None)

    def _respond_early(self, number: int, answer: Answer) -> None:
        """Answer a request whose content has not ended."""
        body = self._bodies.pop(number)
        self._respond(number, body.request, body.headers, answer, unread=True)

    def _request(self, event: h2.events.RequestReceived) -> None:
        server = self._server
        self._wait_anew()
        self._lane = True
        number = event.stream_id
        headers = tuple((bytes(name), bytes(value)) for name, value in event.headers or ())
        request, answer = read_request(headers)
        ended = event.stream_ended is not None
        hook = server.hook(request.target) if answer is None else None
        if hook is None:
            kept = answer is None and ended
            answer = answer or decide(server.renew(), request)
            if ended or len(self._bodies) >= MAX_BODIES or not announces_little(request):
                self._respond(number, request, headers, answer, unread=not ended, keep=kept)
            else:
                self._bodies[number] = Body(request, headers, answer)
        elif ended:
            self._respond(number, request, headers, server.ask(hook, request, b"", self.address))
        elif len(self._bodies) < MAX_BODIES:
            self._bodies[number] = Body(request, headers, hook)
            if request.fields.get(b"expect", b"").lower() == b"100-continue":
                self._h2.send_headers(number, [(b":status", b"100")])  # RFC 9110 §10.1.1
        else:
            # RFC 9113 §8.7: not processed, and may be asked again.
            self._h2.reset_stream(number, h2.errors.ErrorCodes.REFUSED_STREAM)

    def _respond(
        self,
        number: int,
        request: Request,
        headers: Fields,
        answer: Answer,
        *,
        unread: bool = False,
        keep: bool = False,
    ) -> None:
        """Begin an answer; `unread`: the request has not ended, `keep`: it may be remembered."""
        server = self._server
        try:
            parts = open_parts(answer.parts)
        except OSError:
            server.files_changed += 1
            keep = False
            answer = plain(503, "changed on disk", b"Retry-After: 5\r\n")
            parts = open_parts(answer.parts)
        priority = self._out.early.pop(number, None) or parse_priority(
            request.fields.get(b"priority", b"")
        )
        stream = Stream(number, parts, priority, self._out.begin(number, unread=unread))
        date = server.date[6:-2]  # without "Date: " and CRLF
        fields = [
            (b":status", b"%d" % answer.status), (b"date", date),
            *fields_of(answer.block + server.extra),
        ]  # fmt: skip
        try:
            self._h2.send_headers(number, fields, end_stream=not stream.parts)
        except h2.exceptions.ProtocolError:
            return  # reset by its peer in the same read
        server.count(answer, request.target, "2")
        keep = keep and not any(type(part) is Stretch for part in parts)
        if keep or server.on_request is not None:
            log = log_head(request, headers)
            if server.on_request is not None:
                server.on_request(self.address, log, answer.status, answer.length)
            if keep:
                server.keep_ready(request, headers, answer, log)
        if stream.parts:
            self._streams[number] = stream
        else:
            self._out.refuse_rest(stream)
            self._wait_anew()

    # -- sending ------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what windows and transport allow, in the order of priority."""
        written = 0
        while not self._paused and not self._ended:
            stream = self._out.next()
            if stream is not None:
                sent = self._out.send_some(stream)
                written += sent
                self._control.earn(sent / EARNING)
                if not stream.parts:
                    self._wait_anew()
            if stream is None or written >= WRITE:
                written = 0
                self._flush()
            if stream is None:
                break
        if self._draining and not (self._streams or self._bodies or self._ended):
            self._goaway(h2.errors.ErrorCodes.NO_ERROR)

    def _wait_anew(self) -> None:
        """Something was asked for, or finished: what the peer takes counts from the next second."""
        self._since, self._left = self._server.now, -1

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if self._sending:
            octets = b"".join(self._sending)
            self._sending.clear()
            self._control.earn(len(octets) / EARNING)
            self._transport.write(octets + data if data else octets)
        elif data:
            self._transport.write(data)

    def _goaway(self, code: h2.errors.ErrorCodes) -> None:
        if not self._ended:
            self._h2.close_connection(code)
            self._end()

    def _end(self) -> None:
        """Write what is left, close, and give the peer a moment to read it."""
        self._ended = True
        self._streams.clear()
        self._wait_anew()
        self._flush()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()


def _address(transport: asyncio.Transport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""
