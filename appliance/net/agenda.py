"""When the network layer has something to do next, as one number that all who arm timers lower.

A host looks at it after every turn, so it must cost a comparison: whoever arms a timer lowers it,
nobody raises it but the one who has done what was due and asks all of them anew. So it may be too
early, for a timer that has been disarmed, and never too late. Imports nothing.
"""

from __future__ import annotations

from math import inf


class Agenda:
    """`at`: monotonic seconds; inf when nothing is due, minus infinity when something is now."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = inf

    def lower(self, at: float) -> None:
        """Something is due at `at`."""
        if at < self.at:
            self.at = at
