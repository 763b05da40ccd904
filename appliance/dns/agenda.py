"""Which secondary has something to do next: a heap of them by their deadlines.

A catalog may bring 100,000 zones, so nothing may be looked for among all of them whenever one has
been asked for. Whoever may have made a deadline earlier `plan`s it; one that has become later is
found out when its old time has come. Imports `secondary`.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import Final

from appliance.dns.secondary import Secondary

STALE: Final = 1000
"""Entries that may be about nothing, beyond one for each secondary."""


class Agenda:
    """Secondaries by when they are next due, or expire."""

    __slots__ = ("_heap", "_number", "_times")

    def __init__(self) -> None:
        """Empty."""
        self._heap: list[tuple[float, int, Secondary]] = []
        self._times: dict[Secondary, float] = {}
        """The entry of each that counts."""
        self._number = 0

    def plan(self, secondary: Secondary) -> None:
        """Its deadline may have become earlier, or it is new."""
        at = secondary.deadline()
        if at >= self._times.get(secondary, math.inf):
            return
        self._times[secondary] = at
        self._number += 1
        heappush(self._heap, (at, self._number, secondary))
        if len(self._heap) > len(self._times) + STALE:
            self._heap = [entry for entry in self._heap if self._counts(entry)]
            heapify(self._heap)

    def forget(self, secondary: Secondary) -> None:
        """It is nobody's any more."""
        self._times.pop(secondary, None)

    def due(self, now: float) -> list[Secondary]:
        """Those whose deadline has come, each once; they are to be planned again."""
        found: list[Secondary] = []
        later: list[Secondary] = []
        while self._heap and self._heap[0][0] <= now:
            entry = heappop(self._heap)
            if self._counts(entry):
                secondary = entry[2]
                del self._times[secondary]
                (found if secondary.deadline() <= now else later).append(secondary)
        for secondary in later:
            self.plan(secondary)
        return found

    def deadline(self) -> float:
        """When the next one may be due; infinity if never."""
        return self._heap[0][0] if self._heap else math.inf

    def _counts(self, entry: tuple[float, int, Secondary]) -> bool:
        return self._times.get(entry[2]) == entry[0]
