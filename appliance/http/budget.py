"""A bucket of tokens, against what costs a peer nothing and a server something.

Imports nothing.
"""

from __future__ import annotations


class Budget:
    """So many tokens at once, and so many more each second."""

    __slots__ = ("_burst", "_last", "_rate", "_tokens")

    def __init__(self, burst: int, rate: int, now: float) -> None:
        self._burst = burst
        self._rate = rate
        self._tokens = float(burst)
        self._last = now

    def spend(self, now: float, cost: int = 1) -> bool:
        """Take tokens; False when there are too few."""
        self._tokens = min(self._burst, self._tokens + (now - self._last) * self._rate)
        self._last = now
        self._tokens -= cost
        return self._tokens >= 0

    def earn(self, tokens: float) -> None:
        """Give tokens for useful work."""
        self._tokens = min(self._burst, self._tokens + tokens)
