"""The retransmission timeout: how long to wait before believing a segment lost.

Jacobson's estimator keeps a smoothed round-trip time and its mean deviation; the timeout is the
former plus four of the latter, so it widens when the path turns erratic and tightens when it
calms (RFC 6298 §2).  After a timeout it doubles, until a new measurement arrives.

Karn's rule (RFC 6298 §3), never to measure a segment that was sent twice, is the caller's duty:
it alone knows which those are.  This leaf holds no timer and no clock.  It imports nothing.
"""

from __future__ import annotations

from typing import Final

INITIAL_RTO: Final = 1.0  # seconds; RFC 6298 §2.1
# Deviates from RFC 6298 §2.4 (1 s): 200 ms is Linux's TCP_RTO_MIN, safe with timestamps in use.
# Like there it is the least that is added to SRTT, not the least timeout: on a steady path RTTVAR
# decays to nothing, and a timeout of one round trip would take every hiccup for a loss.
MIN_RTO: Final = 0.2  # seconds
MAX_RTO: Final = 120.0  # seconds; RFC 6298 §2.5 asks for at least 60, Linux has 120
# RFC 6298 §5.7: the timeout after a SYN that had to be sent again.
RTO_AFTER_LOST_SYN: Final = 3.0  # seconds


class RttEstimator:
    """SRTT, RTTVAR and RTO of one path, in seconds (RFC 6298)."""

    __slots__ = ("backoffs", "latest", "minimum", "rto", "rttvar", "srtt")

    def __init__(self) -> None:
        self.srtt = 0.0  # 0.0: not measured yet
        self.rttvar = 0.0
        self.latest = 0.0  # the last sample
        self.minimum = 0.0  # smallest sample seen, 0.0 before the first
        self.rto = INITIAL_RTO
        self.backoffs = 0  # consecutive doublings since the last sample

    def sample(self, rtt: float) -> None:
        """Take in one round-trip measurement of `rtt` seconds (RFC 6298 §2.2, §2.3)."""
        if rtt < 0.0:
            return
        self.latest = rtt
        srtt = self.srtt
        if srtt == 0.0:
            self.srtt = srtt = rtt if rtt > 0.0 else 1e-9
            self.rttvar = rtt * 0.5
            self.minimum = rtt
        else:
            # RFC 6298 §2.3: alpha = 1/8, beta = 1/4; RTTVAR is updated before SRTT.
            error = srtt - rtt
            self.rttvar += ((error if error >= 0.0 else -error) - self.rttvar) * 0.25
            self.srtt = srtt = srtt - error * 0.125
            if rtt < self.minimum:
                self.minimum = rtt
        spread = self.rttvar * 4.0
        rto = srtt + max(spread, MIN_RTO)
        if rto > MAX_RTO:
            rto = MAX_RTO
        self.rto = rto
        self.backoffs = 0

    def back_off(self) -> None:
        """Double the timeout after it expired (RFC 6298 §5.5)."""
        self.backoffs += 1
        rto = self.rto * 2.0
        self.rto = min(MAX_RTO, rto)

    def undo_back_off(self) -> None:
        """Return to the timeout that the estimate gives, the expiry having been spurious."""
        if self.backoffs and self.srtt:
            self.backoffs = 0
            spread = self.rttvar * 4.0
            self.rto = min(self.srtt + max(spread, MIN_RTO), MAX_RTO)

    def forget_lost_syn(self) -> None:
        """Start data with 3 s when the SYN was retransmitted and nothing was measured (§5.7)."""
        if self.srtt == 0.0:
            self.rto = RTO_AFTER_LOST_SYN
            self.backoffs = 0
