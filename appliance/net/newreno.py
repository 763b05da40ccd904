"""NewReno: one segment more per round, half as much after a loss (RFC 5681, RFC 3465).

It imports `congestion` and `rtt`.
"""

from __future__ import annotations

from appliance.net.congestion import CongestionControl
from appliance.net.rtt import RttEstimator


class NewReno(CongestionControl):
    """RFC 5681 with appropriate byte counting."""

    __slots__ = ("_counted",)

    name = "newreno"

    def __init__(self, mss: int) -> None:
        super().__init__(mss)
        self._counted = 0  # octets acknowledged since cwnd last grew in avoidance

    def avoid(self, octets: int, now: float, rtt: RttEstimator) -> None:
        """Grow by one segment per window of acknowledged octets (RFC 3465 §2.1)."""
        self._counted += octets
        while self._counted >= self.cwnd:
            self._counted -= self.cwnd
            self.cwnd += self.mss

    def reduced(self, window: int, now: float) -> int:
        """Halve, to two segments at least (RFC 5681 §3.1, equation 4)."""
        self._counted = 0
        return max(window // 2, 2 * self.mss)
