"""Responses of one HTTP/2 connection that are on their way: whose turn it is, and the next frame.

The order is RFC 9218's; windows are h2's; a stream whose file has to be waited for is left out
until it came.  Imports h2 and this package.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable

import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from appliance.http.lane import FRAME
from appliance.http.largefile import Stretch
from appliance.http.priority import Priority, parse_priority, rank
from appliance.http.server import HttpServer

# RFC 9218 §7.1: the frame type of PRIORITY_UPDATE.
PRIORITY_UPDATE = 0x10
# Requests of one connection whose content is read after their answer, and octets of each.
MAX_UNREAD = 8
MAX_REST = 1024 * 1024


class Stream:
    """A response that is not sent yet."""

    __slots__ = ("fetching", "number", "parts", "priority", "turn", "unread")

    def __init__(
        self,
        number: int,
        parts: list[bytes | memoryview | Stretch],
        priority: Priority,
        unread: bool,
    ) -> None:
        self.number = number
        self.parts = deque(part for part in parts if len(part))
        self.fetching = False  # a thread reads its next slice
        self.priority = priority
        self.unread = unread  # the request's content has not ended
        self.turn = 0


class Outgoing:
    """The streams of a connection that have something to send."""

    __slots__ = ("_h2", "_pump", "_server", "_turn", "early", "progress", "streams", "unread")

    def __init__(
        self, connection: h2.connection.H2Connection, server: HttpServer, pump: Callable[[], None]
    ) -> None:
        """`pump` is called when a file that was waited for is there."""
        self._h2 = connection
        self._server = server
        self._pump = pump
        self._turn = 0
        self.streams: dict[int, Stream] = {}
        self.early: dict[int, Priority] = {}  # PRIORITY_UPDATE before its request (§7.1)
        self.unread: dict[int, int] = {}  # answered requests that go on: octets still taken
        self.progress = 0  # octets of content sent since the owner set it to nought

    @property
    def fetching(self) -> bool:
        """Whether a file is being waited for."""
        return any(stream.fetching for stream in self.streams.values())

    def prioritise(self, event: h2.events.UnknownFrameReceived) -> h2.errors.ErrorCodes | None:
        """Go by a PRIORITY_UPDATE; any other frame is none of ours.

        Returns what is wrong with it, if that ends the connection.
        """
        frame = event.frame
        if getattr(frame, "type", None) != PRIORITY_UPDATE:
            return None
        body = bytes(getattr(frame, "body", b""))
        if len(body) < 4:
            return h2.errors.ErrorCodes.FRAME_SIZE_ERROR  # RFC 9113 §4.2
        number = int.from_bytes(body[:4]) & 0x7FFFFFFF
        # RFC 9218 §7.1: it comes on stream 0, and is about another one.
        if getattr(frame, "stream_id", 0) or not number:
            return h2.errors.ErrorCodes.PROTOCOL_ERROR
        priority = parse_priority(body[4:])
        if stream := self.streams.get(number):
            stream.priority = priority
        else:
            if len(self.early) >= self._server.limits.streams:
                self.early.clear()  # of streams that were never opened, or are over
            self.early[number] = priority
        return None

    def next(self) -> Stream | None:
        """Return the stream whose turn it is, of those whose windows are open."""
        best = None
        for stream in self.streams.values():
            if (
                not stream.fetching
                and self._h2.local_flow_control_window(stream.number) > 0
                and (
                    best is None
                    or rank(stream.priority, stream.number, stream.turn)
                    < rank(best.priority, best.number, best.turn)
                )
            ):
                best = stream
        return best

    def send_some(self, stream: Stream) -> int:
        """Send one DATA frame of a stream; returns its octets of content."""
        part = stream.parts[0]
        if isinstance(part, Stretch):
            if not part.at_hand():
                self._fetch(stream, part)
                return 0
            try:
                octets = part.read()
            except OSError:
                self._lost_file(stream)
                return 0
            self._next_slice(stream, part, octets)
            part = octets
        room = min(
            self._h2.local_flow_control_window(stream.number),
            self._h2.max_outbound_frame_size,
            FRAME,
        )
        if len(part) > room:
            view = memoryview(part)
            stream.parts[0] = view[room:]
            part = view[:room]
        else:
            stream.parts.popleft()
        self._turn += 1
        stream.turn = self._turn
        self._h2.send_data(stream.number, bytes(part), end_stream=not stream.parts)
        self.progress += len(part)
        if not stream.parts:
            del self.streams[stream.number]
            self.refuse_rest(stream)
        return len(part)

    def _next_slice(self, stream: Stream, stretch: Stretch, octets: bytes) -> None:
        """Put a slice in front of what is left of its file."""
        if not stretch:
            stream.parts.popleft()
        stream.parts.appendleft(octets)

    def _fetch(self, stream: Stream, stretch: Stretch) -> None:
        """Have the next slice read in a thread; other streams go on."""
        stream.fetching = True

        def done(octets: bytes | None) -> None:
            stream.fetching = False
            if self.streams.get(stream.number) is not stream:
                return  # reset, or the connection is gone
            if octets is None:
                self._lost_file(stream)
            else:
                self._next_slice(stream, stretch, octets)
            self._pump()

        self._server.fetch(stretch, done)

    def _lost_file(self, stream: Stream) -> None:
        """Reset a stream whose file is another one now."""
        self._server.files_changed += 1
        self.streams.pop(stream.number, None)
        self._h2.reset_stream(stream.number, h2.errors.ErrorCodes.INTERNAL_ERROR)

    def begin(self, number: int, *, unread: bool) -> bool:
        """Say whether what is left of a request has to be refused after its answer.

        RFC 9113 §8.1 lets a server refuse it at once, with NO_ERROR.  But there are clients that
        lose the answer by that (curl 7.88), or wait for a window and look at nothing else before
        they have said all (httpx); so some is read first, and thrown away.
        """
        if unread and len(self.unread) < MAX_UNREAD:
            self.unread[number] = MAX_REST
            return False
        return unread

    def content(self, number: int, octets: int, *, ended: bool) -> bool:
        """Take octets of an answered request; False when it is none."""
        left = self.unread.get(number)
        if left is None:
            return False
        if octets > left:
            del self.unread[number]
            self._refuse(number)
        elif octets and not ended:
            self.unread[number] = left - octets
            self._h2.increment_flow_control_window(octets, number)
        return True

    def refuse_unread(self) -> None:
        """Take no more of any answered request."""
        for number in self.unread:
            self._refuse(number)
        self.unread.clear()

    def refuse_rest(self, stream: Stream) -> None:
        """Tell the peer of an answered request that what is left of it is not wanted (§8.1)."""
        if stream.unread:
            self._refuse(stream.number)

    def _refuse(self, number: int) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError):  # it has ended meanwhile
            self._h2.reset_stream(number, h2.errors.ErrorCodes.NO_ERROR)
