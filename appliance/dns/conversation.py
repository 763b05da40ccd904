"""The stream of a conversation with a primary; what is said in it is `incoming`'s.

Imports asyncio; never `net`.
"""

from __future__ import annotations

import asyncio
from struct import Struct
from typing import Final, cast

from appliance.dns.errors import WireError
from appliance.dns.incoming import Incoming

_LENGTH: Final = Struct("!H").pack


class TransferProtocol(asyncio.Protocol):
    """One conversation with a primary, over one stream."""

    def __init__(self, incoming: Incoming) -> None:
        """`done` has the outcome: nothing, or a WireError."""
        self._incoming = incoming
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self.heard = 0.0
        """When the primary said something last, by the loop's clock."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast(asyncio.Transport, transport)
        self.heard = asyncio.get_running_loop().time()
        self._send(self._incoming.start())

    def _send(self, message: bytes) -> None:
        assert self._transport is not None
        self._transport.write(_LENGTH(len(message)) + message)

    def data_received(self, data: bytes) -> None:
        """Take in whatever messages are whole."""
        self.heard = asyncio.get_running_loop().time()
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= 2 and not self.done.done():
                length = buffer[at] << 8 | buffer[at + 1]
                if len(buffer) - at - 2 < length:
                    break
                message = bytes(buffer[at + 2 : at + 2 + length])
                at += 2 + length
                following = self._incoming.received(message)
                if following is not None:
                    self._send(following)
                elif self._incoming.result is not None:
                    self.done.set_result(None)
        except WireError as error:
            self._fail(str(error))
        del buffer[:at]

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
