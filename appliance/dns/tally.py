"""A number that several count into. Imports nothing of ours; compiled with `quick`.

Where what is counted hangs together (all answers of a type, all queries over UDP), those who count
share one of these instead of a table to look it up in: counting is then an addition.
"""

from __future__ import annotations


class Tally:
    """One number."""

    __slots__ = ("count",)

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def __reduce__(self) -> tuple[type[Tally], tuple[int]]:
        # An image holds some, and who reads it may be compiled or not.
        return Tally, (self.count,)
