"""Who may have a connection: so many in all, so many from one address, the idlest makes room.

A server that is full has been filled by somebody.  Before a newcomer is refused, connections that
wait for a request are closed, those of the address that has the most of them first, and of each
the one that has waited longest; a peer whose connection is at rest loses a round trip by it and
one that trickles a head loses its hold.  Pure: knows neither time nor transports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

# Seconds that a connection may wait for a request before it can be asked to make room.
PATIENCE = 2.0
# Of all connections, the part that is closed at once when room is needed: looking through all of
# them is paid once for so many newcomers.
PORTION = 20


class Waiting(Protocol):
    """A connection as this module sees it."""

    address: str  # of the peer; "" when it has none

    def waiting_since(self) -> float | None:
        """Return since when nothing is under way but a request to come; None: something is."""


W = TypeVar("W", bound=Waiting)


class Admission:
    """Counts connections by address."""

    __slots__ = ("_each", "_most", "addresses")

    def __init__(self, most: int, each: int) -> None:
        """Allow `most` connections, and `each` from one address."""
        self._most = most
        self._each = each
        self.addresses: dict[str, int] = {}

    def arrive(self, address: str) -> bool:
        """Count a connection in; False when its address has too many."""
        count = self.addresses.get(address, 0) + 1
        self.addresses[address] = count
        return count <= self._each or not address

    def leave(self, address: str) -> None:
        """Count a connection out."""
        count = self.addresses.get(address, 0) - 1
        if count > 0:
            self.addresses[address] = count
        else:
            self.addresses.pop(address, None)

    def to_shed(self, connections: Iterable[W], now: float) -> list[W]:
        """Choose who makes room for newcomers."""
        counts = self.addresses
        waiting: list[tuple[int, float, int, W]] = []
        for number, connection in enumerate(connections):
            since = connection.waiting_since()
            if since is not None and now - since >= PATIENCE:
                waiting.append((-counts.get(connection.address, 0), since, number, connection))
        waiting.sort(key=lambda found: found[:3])
        return [found[3] for found in waiting[: max(self._most // PORTION, 1)]]
