"""Plain text on its way into records: what waits, and how large the records are to be.

A browser can use a record only when all of it is there, so the first window leaves in records of a
segment each; whoever goes on writing gets whole records, which cost a third. After a rest the
window may have shrunk, and records begin small again.

Imports this package.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from appliance.tls.engine import CHUNK, Engine

SMALL_RECORD: Final = 1390
"""Octets of plain text for one segment: 1,440 (IPv6), less 12 (timestamps), less 29 (TLS 1.2)."""
SMALL_UNTIL: Final = 10 * SMALL_RECORD
"""Octets sent in small records: the first window (RFC 6928); the next ones carry whole records."""
REST: Final = 1.0
"""Seconds without a large answer after which records begin small again, as the window may."""


class Outgoing:
    """What one connection still has to encrypt."""

    __slots__ = ("_queue", "_sent", "_since", "queued")

    def __init__(self) -> None:
        self._queue: deque[bytes | memoryview] = deque()
        self.queued = 0  # octets of it
        self._sent = 0  # octets written while records grow
        self._since = 0.0  # when something larger than a record was last written

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Let octets wait; what their owner may change is copied."""
        piece = data if isinstance(data, bytes) else _frozen(data)
        self._queue.append(piece)
        self.queued += len(piece)

    def send(self, tls: Engine, write: Callable[[bytes], None], now: float) -> None:
        """Encrypt the next part, at most a CHUNK, and write it; raises TlsError."""
        piece = self._queue.popleft()
        self.queued -= len(piece)
        used = self._send_some(piece, tls, write, now)
        if used < len(piece):
            rest = memoryview(piece)[used:]
            self._queue.appendleft(rest)
            self.queued += len(rest)

    def _send_some(
        self, piece: bytes | memoryview, tls: Engine, write: Callable[[bytes], None], now: float
    ) -> int:
        """Send the beginning of a piece; how many octets that was."""
        size = len(piece)
        if size > SMALL_RECORD:
            if now - self._since > REST:
                self._sent = 0
            self._since = now
        if self._sent >= SMALL_UNTIL or size <= SMALL_RECORD:
            part = piece if size <= CHUNK else memoryview(piece)[:CHUNK]
            write(tls.encrypt(part))
            self._sent += len(part)
            return len(part)
        # All small records of the first window leave in one write.
        view = memoryview(piece)
        end = min(size, SMALL_UNTIL - self._sent)
        for at in range(0, end, SMALL_RECORD):
            tls.write(view[at : min(end, at + SMALL_RECORD)])
        write(tls.take())
        self._sent += end
        return end

    @property
    def large(self) -> bool:
        """Whether so much has been sent that OpenSSL's buffer is as large as a CHUNK."""
        return self._sent > SMALL_UNTIL + CHUNK

    def rests(self, now: float) -> bool:
        """Whether there was nothing to send for a while; then records begin small again."""
        if self.queued or now - self._since <= REST:
            return False
        self._sent = 0
        return True


def _frozen(data: bytearray | memoryview) -> bytes | memoryview:
    """Octets that nobody changes while they wait."""
    if isinstance(data, memoryview) and type(data.obj) is bytes and data.c_contiguous:
        return data if data.itemsize == 1 and data.ndim == 1 else data.cast("B")
    return bytes(data)
