"""RACK-TLP: what was sent before something that has arrived since should have arrived too.

Time replaces counting (RFC 8985).  RACK remembers the transmission that was sent last among
those known to be delivered.  Any record sent before it, and still missing after one round trip
plus a margin for reordering, is lost.  The margin is nothing while the path has shown no
reordering, and grows to a round trip at most while duplicate-SACKs say that we were hasty.
TLP answers the one case with no later delivery to compare with, the lost tail: after about two
round trips of silence the last segment (or new data) is sent as a probe, so that its
acknowledgment wakes RACK long before the retransmission timeout would expire.

Values and `now` in, verdicts out; it arms nothing.  It imports the records of `flight`.
"""

from __future__ import annotations

from math import inf
from typing import Final

from appliance.net.flight import Flight, Sent

# RFC 8985 §7.2, TLP.max_ack_delay: how long a peer may sit on an ACK; Linux's delayed-ACK cap.
MAX_ACK_DELAY: Final = 0.2  # seconds
# Linux's TCP_TIMEOUT_MIN of two ticks of 1 ms: no probe sooner than a scheduler's hiccup.
MIN_PROBE: Final = 0.002  # seconds
DUP_THRESH: Final = 3  # segments; RFC 8985 §6.2 step 4, RFC 5681 §3.2
WINDOW_PERSISTS: Final = 16  # recoveries; RACK.reo_wnd_persist of RFC 8985 §6.1


class Rack:
    """RACK's memory of one connection (RFC 8985 §5.3)."""

    __slots__ = (
        "_dsack_round",
        "_persist",
        "displaced",
        "end_seq",
        "fack",
        "min_rtt",
        "reordering_seen",
        "rtt",
        "window_mult",
        "xmit_at",
    )

    def __init__(self) -> None:
        self.xmit_at = -1.0  # when the latest-sent delivered record left; -1: none yet
        self.end_seq = 0  # its end, to break ties of one super-segment
        self.rtt = 0.0  # its round trip, seconds
        self.min_rtt = inf  # seconds
        self.fack = 0  # past the highest number ever delivered
        self.reordering_seen = False
        self.displaced = 0  # octets: the furthest that anything came behind its place
        self.window_mult = 1  # quarters of min_rtt in the reordering window
        self._persist = WINDOW_PERSISTS
        self._dsack_round = -1  # snd_nxt when the window last grew; -1: may grow

    def delivered(self, record: Sent, end: int, now: float, spurious: bool) -> None:
        """Take in that `record` has arrived up to `end` (RFC 8985 §6.2, steps 1 to 3).

        `spurious` says that the timestamp echoed is older than the record's retransmission, so
        that the acknowledgment is of an earlier copy.
        """
        sent_at = record.sent_at
        rtt = now - sent_at
        if record.retransmitted:
            # Step 2: which copy was acknowledged?  A reply sooner than possible is of the first.
            if spurious or rtt < self.min_rtt:
                return
        else:
            if rtt < self.min_rtt:
                self.min_rtt = rtt
            # Step 3: something below the highest delivered arrived late without being sent again.
            if end < self.fack:
                self.reordering_seen = True
                if self.fack - record.start > self.displaced:
                    self.displaced = self.fack - record.start
        if end > self.fack:
            self.fack = end
        if sent_at > self.xmit_at or (sent_at == self.xmit_at and end > self.end_seq):
            self.xmit_at = sent_at
            self.end_seq = end
            self.rtt = rtt

    def duplicate_sacked(self, snd_una: int, snd_nxt: int) -> None:
        """A DSACK: we retransmitted needlessly; widen the window, once a round (§6.2 step 4)."""
        if self._dsack_round < 0 or snd_una >= self._dsack_round:
            self._dsack_round = snd_nxt
            self.window_mult += 1
            self._persist = WINDOW_PERSISTS

    def recovered(self) -> None:
        """A recovery has ended: after sixteen of them the window returns to its size (§6.2)."""
        self._persist -= 1
        if self._persist <= 0:
            self.window_mult = 1
            self._persist = WINDOW_PERSISTS

    def reordering_window(self, srtt: float, recovering: bool, sacked_segments: int) -> float:
        """Return how many seconds late a delivery may be (RFC 8985 §6.2 step 4)."""
        if not self.reordering_seen and (recovering or sacked_segments >= DUP_THRESH):
            return 0.0
        if self.min_rtt == inf:
            return 0.0
        return min(self.window_mult * self.min_rtt / 4.0, srtt)

    def detect(self, flight: Flight, now: float, window: float) -> float:
        """Mark what is lost at `now`; return in how many seconds to look again, 0.0 for never.

        RFC 8985 §6.2 step 5.
        """
        again = 0.0
        xmit_at, end_seq = self.xmit_at, self.end_seq
        if xmit_at < 0.0:
            return 0.0
        allowance = self.rtt + window
        for record in flight.records:
            if record.sacked or record.lost:
                continue
            sent_at = record.sent_at
            if sent_at > xmit_at or (sent_at == xmit_at and record.end >= end_seq):
                if not record.retransmitted and record.start >= end_seq:
                    break  # new data above all that was delivered: none of it can be judged
                continue
            left = sent_at + allowance - now
            if left <= 0.0:
                flight.mark_lost(record)
            elif left > again:
                again = left
        return again


def probe_timeout(srtt: float, rto: float, segments_out: int) -> float:
    """Return the PTO, seconds from the last transmission to a tail loss probe (RFC 8985 §7.2)."""
    if srtt <= 0.0:
        return rto
    pto = 2.0 * srtt
    pto += MAX_ACK_DELAY if segments_out <= 1 else MIN_PROBE
    return min(rto, pto)
