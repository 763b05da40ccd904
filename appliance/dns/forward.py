"""Updates that came to a secondary, handed on to the zone's primary (RFC 2136 §6).

    client ── UPDATE ──> secondary ── the same octets, over a stream ──> primary
    client <── answer ── secondary <──────── the same octets ──────────── primary

Nothing is changed on the way, so that the client's signature is good at the primary, and the
primary's answer at the client, whether we know their key or not. Unsigned updates are not handed
on: the primary would take them for ours. Whether what comes back is signed is for the client to
judge. Which are handed on, and how many at once, is `updates`' to say; here each is bounded in time
and its answer in length.

Imports asyncio and the leaves of this package; never `net`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from struct import Struct
from typing import Any, Final, cast

from appliance.dns.consts import HEADER_LEN, OPCODE_UPDATE
from appliance.dns.errors import LocalError, WireError
from appliance.dns.prepared import QR
from appliance.dns.secondary import Primary

PATIENCE: Final = 5.0
"""Seconds for a connection, and for an answer: clients ask again after as long (RFC 2136 §6.2
leaves it to us; nsupdate waits three, four times)."""
MAX_ANSWER: Final = 1232
"""Octets of an answer that is passed back: it has no more than a header, a zone, OPT and TSIG, and
must go into a datagram (RFC 9715 §3.1)."""

_LENGTH: Final = Struct("!H").pack


class ForwardProtocol(asyncio.Protocol):
    """One update and its answer, over one stream."""

    def __init__(self, message: bytes) -> None:
        """`done` has the answer, or a WireError."""
        self._message = message
        self._buffer = bytearray()
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand it on."""
        stream = cast(asyncio.Transport, transport)
        stream.write(_LENGTH(len(self._message)) + self._message)

    def data_received(self, data: bytes) -> None:
        """Take in the answer."""
        self._buffer += data
        if self.done.done() or len(self._buffer) < 2:
            return
        length = self._buffer[0] << 8 | self._buffer[1]
        if not HEADER_LEN <= length <= MAX_ANSWER:
            self._fail(f"an answer of {length} octets")
        elif len(self._buffer) >= 2 + length:
            answer = bytes(self._buffer[2 : 2 + length])
            if answer[:2] != self._message[:2] or answer[2] & 0xF8 != QR | OPCODE_UPDATE << 3:
                self._fail("an answer to something else")
            else:
                self.done.set_result(answer)

    def eof_received(self) -> bool:
        """The primary has nothing more to say."""
        self._fail("the primary ended the conversation")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is gone."""
        self._fail(str(exc) if exc is not None else "the connection was closed")

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(WireError(why))
            self.done.exception()  # whoever waited may be gone; asyncio is not to complain of that


async def carry(
    message: bytes,
    primaries: Iterable[Primary],
    connect: Callable[[Callable[[], asyncio.Protocol], Primary], Awaitable[tuple[Any, Any]]],
    failed: Callable[[Primary, str], None],
) -> bytes | None:
    """Hand an update on to the first primary that can be reached; its answer, if it has one.

    `connect` makes a stream and its protocol; `failed` hears of each that was of no use.
    """
    for primary in primaries:
        try:
            async with asyncio.timeout(PATIENCE):
                transport, protocol = await connect(lambda: ForwardProtocol(message), primary)
        except (OSError, LocalError, TimeoutError) as error:
            failed(primary, str(error) or type(error).__name__)
            continue
        try:
            async with asyncio.timeout(PATIENCE):
                answer: bytes = await protocol.done
                return answer
        except (WireError, TimeoutError) as error:
            # It may have been done all the same, so nobody else is given it.
            failed(primary, str(error) or type(error).__name__)
            return None
        finally:
            protocol.done.cancel()
            transport.abort()
    return None
