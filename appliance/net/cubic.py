"""CUBIC: growth that depends on time since the last loss, not on the round-trip time (RFC 9438).

After a loss at window W_max the window is cut to 0.7 of it and then follows the cubic curve

    W(t) = C (t - K)^3 + W_max,    K = cbrt((W_max - cwnd_epoch) / C)

which rises fast while far below W_max, hesitates around it, and then probes ever faster beyond.
On short or slow paths Reno would be quicker; there its estimate W_est is followed instead, so
that CUBIC is never less than fair (RFC 9438 §4.3).

Windows inside are in segments, as in the RFC.  It imports `congestion` and `rtt`.
"""

from __future__ import annotations

from typing import Final

from appliance.net.congestion import CongestionControl
from appliance.net.rtt import RttEstimator

C: Final = 0.4  # segments per second cubed; RFC 9438 §5.1
BETA: Final = 0.7  # RFC 9438 §4.6
ALPHA: Final = 3.0 * (1.0 - BETA) / (1.0 + BETA)  # RFC 9438 §4.3: as much as Reno, on average


class Cubic(CongestionControl):
    """RFC 9438."""

    __slots__ = ("_epoch", "_exact", "_k", "_last", "_prior", "_saved", "_w_est", "_w_max")

    name = "cubic"

    def __init__(self, mss: int) -> None:
        super().__init__(mss)
        self._w_max = 0.0  # segments before the last reduction; 0.0: none, or after a timeout
        self._prior = 0.0  # cwnd_prior: segments when the last reduction came
        self._epoch = -1.0  # when this stage of congestion avoidance began; -1: not begun
        self._k = 0.0  # seconds from the epoch to W_max
        self._w_est = 0.0  # what Reno would have, segments
        self._exact = 0.0  # cwnd with its fraction, segments
        self._last = 0.0  # when the window last grew
        # W_max, cwnd_prior, epoch, K and W_est before the last reduction
        self._saved: tuple[float, float, float, float, float] = (0.0, 0.0, -1.0, 0.0, 0.0)

    def avoid(self, octets: int, now: float, rtt: RttEstimator) -> None:
        """Follow the curve, or Reno where that is more (RFC 9438 §4.2 to §4.5)."""
        segments = self.cwnd / self.mss
        acked = octets / self.mss
        if self._epoch < 0.0:
            self._begin(now, segments)
        elif now - self._last > 2.0 * rtt.rto:
            # RFC 9438 §5.8: time in which nothing was asked of the window does not count.
            self._epoch += now - self._last
        self._last = now
        if int(self._exact * self.mss) != self.cwnd:
            self._exact = segments  # someone else has set the window
        elapsed = now - self._epoch
        # RFC 9438 §4.2: where the curve will be one round trip from now, within bounds.
        target = self._curve(elapsed + rtt.srtt)
        target = min(max(target, segments), 1.5 * segments)
        grown = self._exact + (target - segments) / segments * acked
        # RFC 9438 §4.3: the Reno-friendly region.
        alpha = ALPHA if self._w_est < self._prior else 1.0
        self._w_est += alpha * acked / segments
        if self._curve(elapsed) < self._w_est:
            grown = max(self._w_est, self._exact)
        self._exact = grown
        self.cwnd = int(grown * self.mss)

    def _begin(self, now: float, segments: float) -> None:
        """Start a stage of congestion avoidance (RFC 9438 §4.2, §4.8, §4.10)."""
        self._epoch = now
        self._w_est = self._exact = segments
        if self._w_max > segments:
            self._k = ((self._w_max - segments) / C) ** (1.0 / 3.0)
        else:
            # After slow start or a timeout: the curve begins at its plateau.
            self._k = 0.0
            self._w_max = segments

    def _curve(self, t: float) -> float:
        """W_cubic(t) in segments (RFC 9438, equation 1)."""
        return C * (t - self._k) ** 3 + self._w_max

    def reduced(self, window: int, now: float) -> int:
        """Cut to 0.7 of the window (RFC 9438 §4.6), and remember where it was (§4.7)."""
        segments = window / self.mss
        self._prior = segments
        # RFC 9438 §4.7, fast convergence: losing ground, make room for newcomers.
        self._w_max = segments * (1.0 + BETA) / 2.0 if segments < self._w_max else segments
        self._epoch = -1.0
        return max(int(window * BETA), 2 * self.mss)

    def lost(self, in_flight: int, now: float) -> None:
        """Lower ssthresh, and keep what `undo` may need."""
        self._saved = (self._w_max, self._prior, self._epoch, self._k, self._w_est)
        super().lost(in_flight, now)

    def undo(self) -> None:
        """Return to the curve that was followed, where the window returns (RFC 9438 §4.9)."""
        if self._undo[0] > self.cwnd:
            self._w_max, self._prior, self._epoch, self._k, self._w_est = self._saved
        super().undo()

    def timed_out(self, in_flight: int, now: float, first: bool) -> None:
        """After a timeout the curve begins anew (RFC 9438 §4.8)."""
        super().timed_out(in_flight, now, first)
        self._epoch = -1.0
