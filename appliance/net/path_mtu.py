"""How many octets reach a destination, as routers on the way have said (RFC 1191, RFC 8201 §5).

A smaller path MTU is believed for ten minutes, and then tried anew; whether it is believed at all
is `icmp_errors`' business, and TCP's own search is `plpmtud`'s. Imports the standard library only.
"""

from __future__ import annotations

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
        """Destination -> octets, and until when, seconds."""

    def __len__(self) -> int:
        return len(self._known)

    def towards(self, there: bytes, mtu: int, now: float) -> int:
        """Octets of packet that reach `there` by a link of `mtu` octets."""
        known = self._known.get(there)
        if known is None:
            return mtu
        if known[1] > now:
            return min(mtu, known[0])
        del self._known[there]
        return mtu

    def learn(self, there: bytes, mtu: int, now: float) -> None:
        """Remember that a router on the way to `there` takes no more than `mtu` octets."""
        self._known.pop(there, None)
        if len(self._known) >= self._capacity:
            del self._known[next(iter(self._known))]
        self._known[there] = (mtu, now + PATH_MTU_SECONDS)
