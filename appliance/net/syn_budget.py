"""How many SYNs are worth an answer while more come than can be waited for (RFC 4987).

An answer with a cookie remembers nothing but costs the time of a handshake's half, and a flood of
SYNs would so take all the time that established connections need.  Answers are therefore counted
against a rate; beyond it a SYN is dropped on its first appearance and answered when it is sent
again, as every real client does within seconds, and addresses made up at random do not.

What was seen is remembered as one octet of a table by the flow's hash; a collision costs an answer.
It imports nothing.
"""

from __future__ import annotations

from typing import Final

RATE: Final = 5_000.0  # answers a second: less than a tenth of a processor's time
BURST: Final = 500.0  # answers at once
SLOTS: Final = 1 << 18  # octets of each of two tables: flows told apart in one period
PERIOD: Final = 4.0  # seconds; clients repeat a SYN after 1 s, then 2 s (RFC 6298 §2.1)


class SynBudget:
    """The account of one host."""

    __slots__ = ("_at", "_old", "_tokens", "_turned_at", "_young")

    def __init__(self) -> None:
        self._tokens = BURST
        self._at = 0.0
        self._turned_at = 0.0
        self._young = bytearray()  # made when first needed
        self._old = bytearray()

    def admits(self, flow: bytes, now: float) -> bool:
        """Tell whether the SYN of `flow` is answered; `flow` is its addresses and ports."""
        tokens = min(self._tokens + (now - self._at) * RATE, BURST)
        self._at = now
        if tokens >= 1.0:
            self._tokens = tokens - 1.0
            return True
        self._tokens = tokens
        if not self._young or now - self._turned_at >= PERIOD:
            self._old = self._young or bytearray(SLOTS)
            self._young = bytearray(SLOTS)
            self._turned_at = now
        # Python's hash of octets is keyed per process: nobody can choose whom to collide with.
        slot = hash(flow) & (SLOTS - 1)
        if self._young[slot] or self._old[slot]:
            return True
        self._young[slot] = 1
        return False
