"""NewReno: slow start, congestion avoidance and halving (RFC 5681), counted in octets (RFC 3465).

It imports `congestion` and `rtt`.
"""

from __future__ import annotations

from typing import Final

from appliance.net.congestion import CongestionControl
from appliance.net.rtt import RttEstimator

# RFC 3465 §2.2: L = 2 segments per ACK in slow start.  A super-segment's ACK stands for many
# segments whose own ACKs the link has merged, so L counts per ACK of up to that many segments:
# RFC 3465 §2.3 allows more where ACKs are known to be coalesced; Linux uses no limit.
SLOW_START_LIMIT_SEGMENTS: Final = 64


class NewReno(CongestionControl):
    """RFC 5681 with appropriate byte counting."""

    __slots__ = ("_counted",)

    name = "newreno"

    def __init__(self, mss: int) -> None:
        super().__init__(mss)
        self._counted = 0  # octets acknowledged since cwnd last grew in avoidance

    def acked(self, octets: int, now: float, rtt: RttEstimator) -> None:
        """Grow by what was acknowledged, or by one segment per window of it (RFC 5681 §3.1)."""
        cwnd = self.cwnd
        if cwnd < self.ssthresh:
            # RFC 5681 §3.1, equation 2, by octets.
            step = min(octets, SLOW_START_LIMIT_SEGMENTS * self.mss)
            room = self.ssthresh - cwnd
            if step < room:
                self.cwnd = cwnd + step
                return
            self.cwnd = cwnd = cwnd + room
            octets -= room
        # RFC 3465 §2.1: one segment per cwnd of acknowledged octets.
        self._counted += octets
        while self._counted >= self.cwnd:
            self._counted -= self.cwnd
            self.cwnd += self.mss

    def reduced(self, cwnd: int, now: float) -> int:
        """Halve, to two segments at least (RFC 5681 §3.1, equation 4)."""
        self._counted = 0
        return max(cwnd // 2, 2 * self.mss)
