"""The faces of the engine: datagrams, streams of messages framed by their length, and NOTIFY.

Plain asyncio protocols, so they run on any loop's transports or on our own stack's. A query is
answered inside the call that brought it: no task, no future. A stream may bring many messages at
once, and their answers leave in one write (RFC 7766 §6.2.1.1, §8); when the peer does not read its
answers, we stop reading its queries. Idle peers, and those that keep a message unfinished, are shut
out after a while (RFC 7766 §6.2.3).

Imports asyncio; never `net`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Hashable, Iterator
from struct import Struct
from typing import Any, Final, Protocol, cast

from appliance.dns.answer import Catalog
from appliance.dns.consts import HEADER_LEN
from appliance.dns.datagrams import Datagrams, is_update
from appliance.dns.edns import QUERIES_TLS
from appliance.dns.notify import Notifier
from appliance.dns.shorten import shortened
from appliance.dns.zone import Zone

IDLE_TIMEOUT: Final = 10.0
"""Seconds without a complete query until a stream is closed; RFC 7766 §6.2.3 asks for a few."""
WRITE_HIGH: Final = 256 << 10
"""Octets of answers waiting in a stream before its queries wait too: four of the largest."""
WRITE_CHUNK: Final = 64 << 10
"""Octets of answers gathered for one write."""
MAX_STREAMS: Final = 2000
"""Streams at once: with a full message unread in each, 128 MB."""
MAX_STREAMS_EACH: Final = 100
"""Streams of one client address at once; resolvers behind one address keep a handful."""

_LENGTH: Final = Struct("!H").pack


MAX_TRANSFERS: Final = 4
"""Zone transfers under way in one stream; what is asked for behind them waits."""
ANSWER_TIMEOUT: Final = 60.0
"""Seconds that a stream is kept for the answer to an update, beyond those of an idle one: the disk
may be slow, and a primary that is not there is followed by the next (`forward`)."""
MAX_WAITING: Final = 100
"""Updates of one stream that wait for the disk; a client waits for the answer, mostly."""


class Holder(Protocol):
    """Whatever has the catalog of the moment; a reload swaps it between two queries.

    If it has a method `update` too, as `Authority` has, it is given UPDATE messages, with the
    sender and a function that takes the answer.
    """

    @property
    def current(self) -> Catalog:
        """The catalog to ask now."""
        ...


class DnsDatagramProtocol(asyncio.DatagramProtocol):
    """Answers each datagram at once."""

    def __init__(self, holder: Holder) -> None:
        """`holder.current` is asked anew for each datagram."""
        self.answer_datagram = Datagrams(holder, self._reply).answer
        """The answer to a datagram and its sender, if there is one now; our own stack asks so."""
        self._holder = holder
        self._transport: asyncio.DatagramTransport | None = None

    def shorten_datagram(self, answer: bytes) -> bytes | None:
        """What to send of an answer that its path would cut; None: all of it (RFC 9715)."""
        short = shortened(answer)
        self._holder.current.counters.truncated += short is not None
        return short

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The endpoint is bound."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer, or keep silent where the RFCs want that."""
        answer = self.answer_datagram(data, addr)
        if answer is not None:
            self._reply(answer, addr)

    def _reply(self, answer: bytes, addr: Any) -> None:
        if self._transport is not None:
            self._transport.sendto(answer, addr)

    def error_received(self, exc: Exception) -> None:
        """An earlier answer found nobody; the client's business."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The endpoint is gone."""
        self._transport = None


class Streams:
    """Counts streams, all of them and by client, for the limits."""

    __slots__ = ("_by_client", "each", "limit", "total")

    def __init__(self, limit: int = MAX_STREAMS, each: int = MAX_STREAMS_EACH) -> None:
        """`limit` streams at once, `each` of them from one address."""
        self.limit = limit
        self.each = each
        self.total = 0
        self._by_client: dict[Hashable, int] = {}

    def enter(self, client: Hashable) -> bool:
        """Count a stream in; False if there is no room."""
        count = self._by_client.get(client, 0)
        if self.total >= self.limit or count >= self.each:
            return False
        self.total += 1
        self._by_client[client] = count + 1
        return True

    def leave(self, client: Hashable) -> None:
        """Count out a stream that was let in."""
        self.total -= 1
        count = self._by_client[client] - 1
        if count:
            self._by_client[client] = count
        else:
            del self._by_client[client]


class DnsStreamProtocol(asyncio.Protocol):
    """Answers the messages of one stream; those that take long do not keep the others waiting."""

    def __init__(
        self,
        holder: Holder,
        *,
        idle_timeout: float = IDLE_TIMEOUT,
        streams: Streams | None = None,
        kind: str = "tcp",
    ) -> None:
        """`streams` is shared by all streams of a server; `kind` is told to the catalog."""
        self._holder = holder
        self._update = getattr(holder, "update", None)
        self._idle_timeout = idle_timeout
        self._streams = streams
        self._kind = kind
        self._transport: asyncio.Transport | None = None
        self._peer: Any = None
        self._client: Hashable = None
        self._entered = False
        self._buffer = bytearray()
        self._need = 2
        """Octets in the buffer from which on there is something to do."""
        self._paused = False
        self._eof = False
        self._transfers: deque[Iterator[bytes]] = deque()
        """Zone transfers under way, the first of which is being sent."""
        self._sending = False
        """The next part of a transfer has its turn coming."""
        self._waiting = 0
        """Updates that are not answered yet."""
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the stream in, or close it when there are too many."""
        stream = cast(asyncio.Transport, transport)
        counters = self._holder.current.counters
        self._peer = peer = stream.get_extra_info("peername")
        self._client = peer[0] if isinstance(peer, tuple) else peer
        if self._streams is not None and not self._streams.enter(self._client):
            counters.tcp_refused += 1
            stream.abort()
            return
        self._entered = True
        counters.tcp_accepted += 1
        self._transport = stream
        if self._kind == "tls" and not _hands_over(stream):
            self._kind = QUERIES_TLS
        stream.set_write_buffer_limits(high=WRITE_HIGH)
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + self._idle_timeout
        self._timer = loop.call_later(self._idle_timeout, self._check_idle, loop)

    @property
    def _busy(self) -> bool:
        """Nothing more is to be taken on now."""
        return self._paused or len(self._transfers) >= MAX_TRANSFERS or self._waiting >= MAX_WAITING

    def data_received(self, data: bytes) -> None:
        """Take in octets and answer the messages that are complete."""
        self._buffer += data
        if len(self._buffer) >= self._need and not self._busy:
            self._work()

    def eof_received(self) -> bool:
        """The peer has asked all it wants; close when everything is answered."""
        self._eof = True
        return self._paused or bool(self._transfers) or bool(self._waiting)

    def pause_writing(self) -> None:
        """The peer does not read: let its queries wait."""
        self._paused = True
        if self._transport is not None and not self._eof:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._paused = False
        self._go_on()

    def _go_on(self) -> None:
        """Take up what was left when the peer did not read, or when something has ended."""
        stream = self._transport
        if stream is None or stream.is_closing():
            return
        if not self._busy:
            self._work()
        self._send_transfer()
        if self._busy or stream.is_closing():
            return
        if not self._eof:
            stream.resume_reading()
        elif not self._transfers and not self._waiting:
            stream.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is gone."""
        self._transport = None
        self._buffer.clear()
        while self._transfers:
            self._end_transfer()
        if self._timer is not None:
            self._timer.cancel()
        if self._entered and self._streams is not None:
            self._streams.leave(self._client)
            self._entered = False

    def _work(self) -> None:
        """Answer complete messages until there are none left or the peer does not keep up."""
        stream = self._transport
        if stream is None or stream.is_closing():
            return
        data = bytes(self._buffer)
        catalog = self._holder.current
        answer, peer, kind = catalog.stream, self._peer, self._kind
        out: list[bytes] = []
        size = messages = at = 0
        have = len(data)
        need = 2
        while have - at >= 2:
            length = data[at] << 8 | data[at + 1]
            if have - at - 2 < length:
                need = 2 + length
                break
            if length < HEADER_LEN:
                # No message is that short: the peer speaks something else.
                catalog.counters.tcp_garbage += 1
                if out:
                    stream.write(b"".join(out))
                stream.close()
                return
            message = data[at + 2 : at + 2 + length]
            at += 2 + length
            messages += 1
            reply = answer(message, transport=kind, peer=peer)
            if reply is None:
                if self._take_update(message):
                    break
                continue
            if not isinstance(reply, bytes):
                self._transfers.append(reply)
                if len(self._transfers) >= MAX_TRANSFERS:
                    break
                continue
            out.append(_LENGTH(len(reply)))
            out.append(reply)
            size += len(reply)
            if size >= WRITE_CHUNK:
                stream.write(b"".join(out))
                out.clear()
                size = 0
                if self._paused:
                    break
        if out:
            stream.write(b"".join(out))
        del self._buffer[:at]
        self._need = need
        if messages:
            catalog.counters.streamed(kind, messages)
            self._deadline = asyncio.get_running_loop().time() + self._idle_timeout
        if self._busy and not self._eof:
            stream.pause_reading()
        self._send_transfer()

    def _take_update(self, message: bytes) -> bool:
        """Hand an UPDATE on; True if no more are taken for now."""
        if self._update is not None and is_update(message):
            self._waiting += 1
            self._update(message, self._peer, self._updated)
        return self._waiting >= MAX_WAITING

    def _updated(self, answer: bytes) -> None:
        """The answer to an update, at once or much later (RFC 7766 §6.2.1.1: in any order)."""
        self._waiting -= 1
        stream = self._transport
        if stream is not None and not stream.is_closing():
            self._deadline = asyncio.get_running_loop().time() + self._idle_timeout
            stream.write(_LENGTH(len(answer)) + answer)
            asyncio.get_running_loop().call_soon(self._go_on)

    def _send_transfer(self) -> None:
        """Send a part of a transfer; the rest when the peer has read, and others had their turn."""
        stream = self._transport
        if stream is None or not self._transfers or self._sending or self._paused:
            return
        # Under TLS records end where messages do: NSD 4.6, as a secondary, forgets what lies behind
        # a message in the last record until the stream ends.
        each = self._kind == "tls"
        out: list[bytes] = []
        size = 0
        for message in self._transfers[0]:
            size += len(message)
            if each:
                stream.write(_LENGTH(len(message)) + message)
            else:
                out += (_LENGTH(len(message)), message)
            if size >= WRITE_CHUNK:
                break
        else:
            self._end_transfer()
        loop = asyncio.get_running_loop()
        # A peer that reads on is not idle, however long the zone is.
        self._deadline = loop.time() + self._idle_timeout
        self._sending = True
        loop.call_soon(self._sent)
        if out:
            stream.write(b"".join(out))

    def _sent(self) -> None:
        self._sending = False
        self._go_on()

    def _end_transfer(self) -> None:
        close = getattr(self._transfers.popleft(), "close", None)
        if close is not None:
            close()

    def _check_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        stream = self._transport
        if stream is None:
            return
        left = self._deadline - loop.time()
        if self._waiting and left > -ANSWER_TIMEOUT:
            # RFC 7766 §3, §6.2.3: idle is who waits for nothing.
            left = max(left, self._idle_timeout)
        if left > 0:
            self._timer = loop.call_later(left, self._check_idle, loop)
            return
        self._holder.current.counters.tcp_idle += 1
        if stream.get_write_buffer_size():
            stream.abort()  # it has not read its answers all that time
        else:
            stream.close()


def _hands_over(stream: asyncio.Transport) -> bool:
    """Whether zones may be transferred in a stream under TLS."""
    # RFC 9103 §7.1: "dot" MUST be selected; §7.2: TLS 1.3 or later.
    alpn: str | None = stream.get_extra_info("alpn")
    version: str | None = stream.get_extra_info("tls_version")
    return alpn == "dot" and version != "TLSv1.2"


class DnsNotifyProtocol(asyncio.DatagramProtocol):
    """Sends a notifier's messages from one endpoint, and brings it the answers."""

    def __init__(self, notifier: Notifier) -> None:
        """The endpoint need not be port 53: secondaries judge by address and key."""
        self._notifier = notifier
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The endpoint is bound; whatever waits is sent."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._send()

    def changed(self, zone: Zone) -> None:
        """Tell the secondaries of a zone's new version."""
        self._notifier.changed(zone, asyncio.get_running_loop().time())
        self._send()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """An answer, or something nobody waits for."""
        self._notifier.received(data, addr)

    def error_received(self, exc: Exception) -> None:
        """A secondary is not there; it will be tried again."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The endpoint is gone."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def _send(self) -> None:
        transport = self._transport
        if transport is None:
            return
        loop = asyncio.get_running_loop()
        for target, message in self._notifier.due(loop.time()):
            transport.sendto(message, (target.address, target.port))
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._notifier.deadline()
        self._timer = loop.call_at(deadline, self._send) if deadline < math.inf else None
