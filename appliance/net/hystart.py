"""HyStart++: leaving slow start before it overflows the bottleneck's queue (RFC 9406).

Slow start doubles the window each round until something is lost, which by then is a whole window.
A growing queue shows earlier: the smallest round-trip time of a round rises above that of the one
before.  Then growth is slowed to a quarter for five rounds (Conservative Slow Start); if the delay
falls back meanwhile, it was a fluctuation and slow start goes on, otherwise it ends here.

A round is one window's worth of acknowledgments.  It arms nothing and imports nothing.
"""

from __future__ import annotations

from math import inf
from typing import Final

# RFC 9406 §4.3, its tuning constants.
MIN_RTT_THRESH: Final = 0.004  # seconds
MAX_RTT_THRESH: Final = 0.016  # seconds
MIN_RTT_DIVISOR: Final = 8
N_RTT_SAMPLE: Final = 8  # samples of a round before it is judged
CSS_GROWTH_DIVISOR: Final = 4
CSS_ROUNDS: Final = 5


class HyStart:
    """The delay bookkeeping of one slow start; sequence numbers are unwrapped."""

    __slots__ = (
        "_baseline",
        "_css_rounds",
        "_current_min",
        "_last_min",
        "_samples",
        "_window_end",
        "conservative",
    )

    def __init__(self) -> None:
        self.conservative = False  # in Conservative Slow Start
        self._window_end = -1  # the round ends when this number is acknowledged; -1: none yet
        self._last_min = inf  # seconds, of the round before
        self._current_min = inf
        self._samples = 0
        self._baseline = inf  # cssBaselineMinRtt
        self._css_rounds = 0

    def acked(self, octets: int, rtt: float, ack: int, nxt: int) -> tuple[int, bool]:
        """Return (octets to grow by, whether slow start is over) for `octets` acknowledged.

        `rtt` is the latest sample in seconds (0.0: none), `ack` and `nxt` are SND.UNA and SND.NXT.
        """
        if ack > self._window_end:
            # RFC 9406 §4.2: a new round.
            if self.conservative:
                self._css_rounds += 1
                if self._css_rounds >= CSS_ROUNDS:
                    return 0, True
            self._last_min = self._current_min
            self._current_min = inf
            self._samples = 0
            self._window_end = nxt
        if rtt > 0.0:
            self._samples += 1
            if rtt < self._current_min:
                self._current_min = rtt
        if self.conservative:
            if self._samples >= N_RTT_SAMPLE and self._current_min < self._baseline:
                # The delay was a fluctuation.
                self.conservative = False
                self._baseline = inf
                return octets, False
            return octets // CSS_GROWTH_DIVISOR, False
        if self._samples >= N_RTT_SAMPLE and self._last_min < inf:
            threshold = min(max(self._last_min / MIN_RTT_DIVISOR, MIN_RTT_THRESH), MAX_RTT_THRESH)
            if self._current_min >= self._last_min + threshold:
                self._baseline = self._current_min
                self.conservative = True
                self._css_rounds = 0
        return octets, False
