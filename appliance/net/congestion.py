"""Congestion control: the interface behind which the algorithms stand, and slow start.

An algorithm is a leaf that owns two numbers, `cwnd` and `ssthresh` (octets), and is told what
happened: octets acknowledged, loss, timeout, the loss having been an error, idleness.  It never
sends and never looks at a segment.  During a repair the window follows PRR instead.

All of them start slowly in the same way, with HyStart++; they differ in how they avoid congestion
(`avoid`) and how they shrink (`reduced`).  It imports `hystart` and `rtt`.
"""

from __future__ import annotations

from typing import Final

from appliance.net.hystart import HyStart
from appliance.net.rtt import RttEstimator

INITIAL_SEGMENTS: Final = 10  # RFC 6928 §2
LOSS_WINDOW_SEGMENTS: Final = 1  # RFC 5681 §3.1, LW
INFINITE: Final = 1 << 30  # octets; "arbitrarily high" of RFC 5681 §3.1


def initial_window(mss: int) -> int:
    """Return IW in octets: min(10 MSS, max(2 MSS, 14600)) (RFC 6928 §2)."""
    return min(INITIAL_SEGMENTS * mss, max(2 * mss, 14_600))


class CongestionControl:
    """What every algorithm shares; `mss` is the payload of a full segment in octets."""

    __slots__ = ("_hystart", "_undo", "cwnd", "mss", "ssthresh")

    name = "none"

    def __init__(self, mss: int) -> None:
        self.mss = mss
        self.cwnd = initial_window(mss)
        self.ssthresh = INFINITE
        self._hystart: HyStart | None = HyStart()  # until the first slow start is over
        self._undo: tuple[int, int] = (0, 0)  # cwnd, ssthresh before the last reduction

    def start(self, mss: int) -> None:
        """Begin with what the handshake has settled; nothing is out but a SYN, and what it took."""
        self.mss = mss
        self.cwnd = initial_window(mss)

    def acked(self, octets: int, now: float, rtt: RttEstimator, ack: int, nxt: int) -> None:
        """Grow: `octets` were acknowledged, up to `ack`, while the window was what limited us."""
        cwnd = self.cwnd
        if cwnd < self.ssthresh:
            # RFC 5681 §3.1, equation 2, by octets acknowledged (RFC 3465 §2.2).  Its limit L per
            # ACK guards against stretch ACKs of a lossy path; here one ACK of a super-segment
            # stands for those that the link has merged, so, as in Linux, there is none.
            step = octets
            if self._hystart is not None:
                step, over = self._hystart.acked(octets, rtt.latest, ack, nxt)
                if over:
                    self.ssthresh = cwnd
                    self._hystart = None
            room = self.ssthresh - cwnd
            if step < room:
                self.cwnd = cwnd + step
                return
            self.cwnd = cwnd + room
            octets -= room
            if octets <= 0:
                return
        self.avoid(octets, now, rtt)

    def avoid(self, octets: int, now: float, rtt: RttEstimator) -> None:
        """Congestion avoidance: grow `cwnd` for `octets` acknowledged."""
        raise NotImplementedError

    def reduced(self, window: int, now: float) -> int:
        """Return the new ssthresh, in octets, after a loss or mark met a window of `window`."""
        raise NotImplementedError

    def lost(self, in_flight: int, now: float) -> None:
        """A loss or congestion mark was detected: lower ssthresh (RFC 5681 §3.2 step 2)."""
        self._undo = (self.cwnd, self.ssthresh)
        self.ssthresh = self.reduced(in_flight, now)
        self._hystart = None

    def timed_out(self, in_flight: int, now: float, first: bool) -> None:
        """The retransmission timer expired (RFC 5681 §3.1, equation 4; only once per loss)."""
        if first:
            self.lost(in_flight, now)
        self.cwnd = LOSS_WINDOW_SEGMENTS * self.mss

    def undo(self) -> None:
        """The loss was an illusion: return to what was before it (RFC 4015 §3)."""
        cwnd, ssthresh = self._undo
        if cwnd:
            self.cwnd = max(self.cwnd, cwnd)
            self.ssthresh = max(self.ssthresh, ssthresh)
            self._undo = (0, 0)

    def forget(self) -> None:
        """What is repaired now cost nothing: there is nothing to return to."""
        self._undo = (0, 0)

    def idle(self, rounds: int) -> None:
        """Nothing was sent for `rounds` RTOs: decay towards the restart window (RFC 2861 §3)."""
        restart = min(initial_window(self.mss), self.cwnd)
        self.ssthresh = max(self.ssthresh, self.cwnd * 3 // 4)
        cwnd = self.cwnd
        while rounds > 0 and cwnd > restart:
            cwnd >>= 1
            rounds -= 1
        self.cwnd = max(cwnd, restart)

    def set_mss(self, mss: int) -> None:
        """The path's segment size changed: keep the window's count of segments (RFC 1191 §6)."""
        self.cwnd = max(self.cwnd * mss // self.mss, mss)
        self.mss = mss
