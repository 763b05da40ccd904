"""The size that a path really carries, found by TCP itself (RFC 4821).

Routers that drop what is too large should say so (RFC 1191); some do not, and some firewalls eat
what they say.  A connection whose full segments vanish while everything else works is in such a
black hole.  After a few timeouts in a row it sends smaller segments; later it tries larger ones,
one at a time, and keeps those that arrive.  Paths change: when the search has found what passes, it
begins anew after the same while, for as long as less passes than both ends would take.

Sizes are octets of data and options in a segment, `low` what is known to pass, `high` what may, and
`most` what both ends would take.
It decides only; it imports nothing.
"""

from __future__ import annotations

from typing import Final

BLACK_HOLE_TIMEOUTS: Final = 3  # in a row, then segments shrink; Linux's tcp_retries1
BASE: Final = 984  # octets: a packet of 1,024, which nearly every path carries (RFC 4821 §7.2)
LEAST: Final = 536  # octets: every IPv4 host takes packets of 576 (RFC 9293 §3.7.1)
RAISE_AFTER: Final = 600.0  # seconds until something larger is tried; RFC 1191 §6.3
WORTH: Final = 32  # octets: a smaller gain is not searched for


def shrunk(segment: int) -> int:
    """Return the size to fall back to from `segment`, itself when it is small enough already."""
    return min(segment, max(min(segment // 2, BASE), LEAST))


class PathMtuSearch:
    """The search of one connection, from the moment that its path turned out narrower."""

    __slots__ = ("_due", "high", "low", "most", "probe_end", "probe_start", "size")

    def __init__(self, low: int, most: int, now: float) -> None:
        self.low = low
        self.high = self.most = most
        self._due = now + RAISE_AFTER
        self.size = 0  # of the probe under way
        self.probe_start = -1  # its first number; -1: none is under way
        self.probe_end = -1

    def next_size(self, now: float) -> int:
        """Return the size to try now, 0 for none (RFC 4821 §7.3)."""
        if self.probe_start >= 0 or now < self._due:
            return 0
        if self.high - self.low < WORTH:
            # RFC 8201 §4, RFC 8899 §5.1.1 (PMTU_RAISE_TIMER): found, a while ago.
            self.high, self.size = self.most, 0
            if self.high - self.low < WORTH:
                return 0
        # The top first: the narrow path may be gone, as after a change of routes.
        return self.high if not self.size else (self.low + self.high + 1) // 2

    def bound(self, most: int) -> None:
        """Try nothing larger than `most` from now on."""
        self.most = min(self.most, most)
        self.high = max(min(self.high, most), self.low)

    def sent(self, size: int, start: int, end: int) -> None:
        """A probe of `size` left with the numbers [start, end)."""
        self.size = size
        self.probe_start = start
        self.probe_end = end

    def arrived(self, now: float) -> int:
        """The probe was acknowledged: return the size that is known to pass now."""
        self.low = self.size
        self.probe_start = self.probe_end = -1
        if self.high - self.low < WORTH:
            self._due = now + RAISE_AFTER
        return self.low

    def lost(self, now: float, limit: int = 0) -> None:
        """The probe was lost, or a router said that `limit` is the most (RFC 4821 §7.6.2)."""
        self.high = max(min(limit or self.size - 1, self.high), self.low)
        self.probe_start = self.probe_end = -1
        soon = limit > 0 and self.high - self.low >= WORTH
        self._due = now + (0.0 if soon else RAISE_AFTER)
