"""How many octets reach a destination, as routers on the way have said (RFC 1191, RFC 8201 §5).

A smaller path MTU is believed for ten minutes, and then tried anew: the owner asks what has expired
and tells whoever kept a number of its own. Whether a router is believed at all is `icmp_errors`'
business, and TCP's own search is `plpmtud`'s. Imports the standard library only.
"""

from __future__ import annotations

from math import inf
from typing import Final

PATH_MTU_SECONDS: Final = 600.0
"""How long a smaller path MTU is remembered (RFC 1191 §6.3, RFC 8201 §4: ten minutes)."""
MAX_PATH_MTUS: Final = 1024
"""Destinations whose path MTU is remembered: about 0.2 MB; the oldest goes first."""


class PathMtus:
    """Destinations with a path MTU of their own; addresses are 4 or 16 octets."""

    def __init__(self, capacity: int = MAX_PATH_MTUS) -> None:
        self._capacity = capacity
        self._known: dict[bytes, tuple[int, float]] = {}
        """Destination -> octets, and until when, seconds; in the order of the latter."""

    def __len__(self) -> int:
        return len(self._known)

    def towards(self, there: bytes, mtu: int, now: float) -> int:
        """Octets of packet that reach `there` by a link of `mtu` octets."""
        known = self._known.get(there)
        if known is None or known[1] <= now:
            return mtu
        return min(mtu, known[0])

    def learn(self, there: bytes, mtu: int, now: float) -> bytes:
        """Remember that a router on the way to `there` takes no more than `mtu` octets.

        Returns the destination that is forgotten for it, b"" for none.
        """
        gone = b""
        # RFC 8201 §4: a router's word MUST NOT raise what is known.
        mtu = self.towards(there, mtu, now)
        if self._known.pop(there, None) is None and len(self._known) >= self._capacity:
            gone = next(iter(self._known))
            del self._known[gone]
        self._known[there] = (mtu, now + PATH_MTU_SECONDS)
        return gone

    def deadline(self) -> float:
        """When `expire` forgets something, seconds; inf: never."""
        for _, until in self._known.values():
            return until
        return inf

    def expire(self, now: float) -> list[bytes]:
        """Forget what was told too long ago; returns the destinations."""
        gone = []
        for there, (_, until) in self._known.items():
            if until > now:
                break
            gone.append(there)
        for there in gone:
            del self._known[there]
        return gone
