"""CoDel, the queue discipline that watches how long packets wait (RFC 8289).

A queue that absorbs a burst empties within a round trip; one that does not is a standing queue and
only adds delay. CoDel drops (or marks) the packet at its head once every packet has waited longer
than TARGET for a whole INTERVAL, and then ever more often, after the inverse square root, until
the wait is short again. Values and `now` in, a verdict out. Imports the standard library only.

What it is asked per packet is the wait that the packet will have had when it leaves, which a link
of constant rate knows on arrival; so "the queue holds less than one packet", the other reason of
RFC 8289 §5.4 to stop, is covered by the wait being shorter than TARGET on any but very slow links.
"""

from __future__ import annotations

import math
from typing import Final

TARGET: Final = 0.005
"""Seconds that a packet may wait for long (RFC 8289 §4.2)."""
INTERVAL: Final = 0.1
"""Seconds within which a good queue empties: a long round trip (RFC 8289 §4.3)."""


class CoDel:
    """The state of one queue."""

    __slots__ = ("_above_since", "_count", "_dropping", "_last_count", "_next")

    def __init__(self) -> None:
        self._above_since = math.inf  # when the wait will have been long for an interval
        self._dropping = False
        self._next = 0.0  # when the next packet is to go, while dropping
        self._count = 0
        self._last_count = 0

    def drops(self, now: float, wait: float) -> bool:
        """Tell whether the packet that leaves the queue at `now` after `wait` seconds is to go."""
        if wait < TARGET:
            self._above_since = math.inf
            self._dropping = False
            return False
        if self._above_since == math.inf:
            self._above_since = now + INTERVAL
        if self._dropping:
            if now < self._next:
                return False
            self._count += 1
            self._next += INTERVAL / math.sqrt(self._count)
            return True
        if now < self._above_since:
            return False
        self._dropping = True
        # RFC 8289 §5.5: a queue that was dropping a moment ago goes on near its last rate.
        recent = now - self._next < 16 * INTERVAL
        delta = self._count - self._last_count
        self._count = delta if recent and delta > 1 else 1
        self._last_count = self._count
        self._next = now + INTERVAL / math.sqrt(self._count)
        return True
