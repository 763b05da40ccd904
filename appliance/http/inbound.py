"""Request bodies, read by h11, and thrown away unless a hook wants them.

A static site has no use for a body, but the next request begins after it.  h11 does the framing,
and the `Expect` and trailer rules with it; it is made only for a message that has a body, so that
a connection at rest costs nothing.  h11 reads the head as well: a head that it understands
otherwise than the strict parser did is refused, because that is what smuggling is made of.
Imports h11, `chunks`, `message`, `strict`.
"""

from __future__ import annotations

import h11

from appliance.http.chunks import Chunks
from appliance.http.message import Refusal
from appliance.http.strict import MAX_HEAD, Head


class Inbound:
    """One request body on its way to nowhere, or to a hook."""

    __slots__ = ("_chunks", "_connection", "_left", "content", "persistent")

    def __init__(self, head: bytes, parsed: Head, limit: int, *, keep: bool = False) -> None:
        """Begin a message; `limit` is the octets of content it may have, kept if asked to.

        Raises Refusal 400 when h11 does not read in the head what the strict parser read.
        """
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._left = limit
        self._chunks = Chunks() if parsed.length < 0 else None
        self.content: bytearray | None = bytearray() if keep else None
        self.persistent = parsed.persistent
        try:
            self._connection.receive_data(head)
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise Refusal(400, "malformed request head") from error
        if not isinstance(event, h11.Request) or (event.method, event.target) != (
            parsed.request.method,
            parsed.request.target,
        ):
            raise Refusal(400, "malformed request head")

    def feed(self, data: bytes) -> bytes | None:
        """Take octets; None while the body goes on, else what came after it.

        Raises Refusal for faulty framing and for a body past the limit.
        """
        connection = self._connection
        plain, size = data, None
        if self._chunks is not None:
            plain, size = self._chunks.feed(data)
        try:
            if plain:  # nothing would be the end of the connection
                connection.receive_data(plain)
            while True:
                event = connection.next_event()
                if isinstance(event, h11.Data):
                    self._left -= len(event.data)
                    if self._left < 0:
                        raise Refusal(413, "request content too large")
                    if self.content is not None:
                        self.content += event.data
                elif isinstance(event, h11.EndOfMessage):
                    rest = bytes(connection.trailing_data[0])
                    if self._chunks is not None:
                        if size is None or rest:
                            raise Refusal(400, "malformed request content")
                        rest = data[size:]
                    # Trailers are ignored, and nothing is read on a connection after them.
                    self.persistent &= not event.headers
                    return rest
                elif size is not None:
                    raise Refusal(400, "malformed request content")  # ended, and not for h11
                else:
                    return None
        except h11.RemoteProtocolError as error:
            raise Refusal(400, "malformed request content") from error
