"""Streams to primaries, and the conversations in them; what is said is `incoming`'s.

A stream carries one conversation at a time. It then waits a little for the next, about this zone or
another, since a primary of many zones is asked about many of them at once (RFC 9103 §6.3.1); when
none waits another is made, so that one large zone holds up nobody. Queries are not pipelined, which
RFC 9103 §6 leaves to us.

Imports asyncio and the leaves of this package; never `net`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from struct import Struct
from typing import Any, Final, cast

from appliance.dns.errors import WireError
from appliance.dns.incoming import Incoming
from appliance.dns.secondary import Primary

CONNECT: Final = 10.0
"""Seconds until a primary must have taken the connection."""
SILENCE: Final = 30.0
"""Seconds without an octet from a primary until a transfer is given up."""
KEEP: Final = 5.0
"""Seconds that a stream waits for the next conversation, where the primary names none (RFC 9103
§6.3.4: a few)."""
LONGEST: Final = 30.0
"""Seconds that it waits at most, whatever the primary names (RFC 7828 §3.1: up to 109 minutes)."""
MAX_WAITING: Final = 20
"""Streams that wait; beyond them the oldest is closed. Under TLS each costs 30 KB."""

_LENGTH: Final = Struct("!H").pack

Reach = Callable[[Callable[[], asyncio.Protocol], Primary], Awaitable[tuple[Any, Any]]]
"""Makes a stream to a primary, and the protocol on it; OSError, LocalError."""


class TransferProtocol(asyncio.Protocol):
    """Conversations with a primary over one stream, one after another."""

    def __init__(self) -> None:
        self._incoming: Incoming | None = None
        self._done: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self.answered = False
        """The primary has said something since the conversation began."""
        self.heard = 0.0
        """When it did so last, or the conversation began, by the loop's clock."""

    @property
    def idle(self) -> bool:
        """Whether a conversation can begin."""
        stream = self._transport
        over = self._done is None or self._done.done()
        return stream is not None and not stream.is_closing() and over and not self._buffer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is there."""
        self._transport = cast(asyncio.Transport, transport)

    def begin(self, incoming: Incoming) -> asyncio.Future[None]:
        """Ask; the future has the outcome: nothing, or a WireError."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._incoming, self._done = incoming, loop.create_future()
        self.answered, self.heard = False, loop.time()
        self._send(incoming.start())
        return self._done

    def wait(self, seconds: float) -> None:
        """Close the stream when no conversation has begun by then."""
        self._incoming = None  # what has come of it may be a whole zone
        self._timer = asyncio.get_running_loop().call_later(seconds, self.close)

    def close(self) -> None:
        """In an orderly way: over TLS the primary is to hear that this is all (RFC 8446 §6.1)."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Let go of the stream."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self, message: bytes) -> None:
        if self._transport is not None:
            self._transport.write(_LENGTH(len(message)) + message)
        else:
            self._fail(WireError("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        """Take in whatever messages are whole."""
        incoming, done = self._incoming, self._done
        if incoming is None or done is None or done.done():
            self.abort()  # nobody has asked
            return
        self.answered, self.heard = True, asyncio.get_running_loop().time()
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= 2 and not done.done():
                length = buffer[at] << 8 | buffer[at + 1]
                if len(buffer) - at - 2 < length:
                    break
                message = bytes(buffer[at + 2 : at + 2 + length])
                at += 2 + length
                following = incoming.received(message)
                if following is not None:
                    self._send(following)
                elif incoming.result is not None:
                    done.set_result(None)
        except WireError as error:
            self._fail(error)
        del buffer[:at]

    def eof_received(self) -> bool:
        """The primary has nothing more to say."""
        self._fail(WireError("the primary ended the conversation"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is gone."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._fail(WireError(str(exc) if exc is not None else "the connection was closed"))

    def _fail(self, error: WireError) -> None:
        done = self._done
        if done is not None and not done.done():
            done.set_exception(error)
            done.exception()  # whoever waited may be gone; asyncio is not to complain of that


class Conversations:
    """What is said to primaries, and the streams that wait between."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._waiting: dict[TransferProtocol, Primary] = {}  # the one that waits longest first

    async def converse(self, primary: Primary, make: Callable[[], Incoming]) -> Incoming:
        """Hold a conversation that `make` gives; WireError, OSError, LocalError."""
        protocol = self._take(primary)
        if protocol is not None:
            try:
                return await self._talk(protocol, primary, make())
            except WireError:
                if protocol.answered:
                    raise
                # RFC 7766 §6.2.4: it was closed while we asked, which says nothing about the zone.
        protocol = await self._open(primary)
        return await self._talk(protocol, primary, make())

    def close(self) -> None:
        """Close all that wait."""
        for protocol in self._waiting:
            protocol.close()
        self._waiting.clear()

    def _take(self, primary: Primary) -> TransferProtocol | None:
        """A stream that waits; of several the one that did so for the shortest time."""
        for protocol, other in reversed(self._waiting.items()):
            if other == primary and protocol.idle:
                del self._waiting[protocol]
                return protocol
        return None

    async def _open(self, primary: Primary) -> TransferProtocol:
        try:
            async with asyncio.timeout(CONNECT):
                _, protocol = await self._reach(TransferProtocol, primary)
        except TimeoutError as error:
            raise WireError(str(error) or f"no connection within {CONNECT:.0f} s") from None
        return cast(TransferProtocol, protocol)

    async def _talk(
        self, protocol: TransferProtocol, primary: Primary, incoming: Incoming
    ) -> Incoming:
        loop = asyncio.get_running_loop()
        done = protocol.begin(incoming)
        try:
            while not done.done():
                left = protocol.heard + SILENCE - loop.time()
                if left <= 0:
                    raise WireError(f"the primary says nothing for {SILENCE:.0f} s")
                await asyncio.wait([done], timeout=left)
            done.result()
        except BaseException:
            done.cancel()
            protocol.abort()
            raise
        self._keep(protocol, primary, incoming.keepalive)
        return incoming

    def _keep(self, protocol: TransferProtocol, primary: Primary, seconds: float | None) -> None:
        """Let a stream wait for as long as the primary likes, None: it says nothing of that."""
        self._waiting = {one: whose for one, whose in self._waiting.items() if one.idle}
        if seconds == 0 or not protocol.idle:
            protocol.close()  # RFC 7828 §3.4: 0 asks for that
            return
        if len(self._waiting) >= MAX_WAITING:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.close()
        self._waiting[protocol] = primary
        protocol.wait(KEEP if seconds is None else min(seconds, LONGEST))
