"""TCP's timers: what is done when nothing came (RFC 9293 §3.8.1 to §3.8.6, RFC 6298, RFC 8985 §7).

    retransmission   the oldest octet was not acknowledged in time: all is suspect
    tail probe       the end of what was sent may be lost where no later segment could show it
    reordering       what came out of order has had its time: the gaps are losses
    persist          the peer's window is closed, and the segment that opens it may be lost
    delayed ACK      an acknowledgment has waited long enough for data to carry it
    keep-alive       a peer that has been silent for long may have gone

A timer is an attribute that holds the time when it is due.  The host keeps one entry per connection
in its agenda, for the earliest, and calls `expire`.
"""

from __future__ import annotations

from math import inf
from typing import Final

from appliance.net import plpmtud
from appliance.net.plpmtud import BLACK_HOLE_TIMEOUTS, PathMtuSearch
from appliance.net.seq import MASK
from appliance.net.tcp_output import PERSIST_MAX, Output
from appliance.net.tcp_state import (
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    LAST_ACK,
    SYN_RECEIVED,
)
from appliance.net.wire.tcp import ACK, FIN, PSH

DATA_RETRIES: Final = 15  # Linux's tcp_retries2: about 15 minutes; R2 of RFC 9293 §3.8.3

_SENDING: Final = frozenset((ESTABLISHED, CLOSE_WAIT, FIN_WAIT_1, CLOSING, LAST_ACK))


class Timers(Output):
    """A connection that sends, and does not wait for ever."""

    __slots__ = ()

    def expire(self, now: float) -> None:
        """Run whichever timers are due (USER TIMEOUT, RETRANSMISSION TIMEOUT and kin, §3.10.8)."""
        if self._delack_at <= now:
            self._delack_at = inf
            self._ack_now = True
        if self._reorder_at <= now:
            self._reorder_at = inf
            self.repair.detect(now, self.snd_una, False)
            self._reorder_at = self.repair.reorder_at
            self._straight = False
        if self._retransmit_at <= now:
            self._retransmit_at = inf
            if self._retransmit_is_probe:
                self._tail_probe(now)
            else:
                self._retransmission_timeout(now)
        if self._persist_at <= now:
            self._persist_at = inf
            self._window_probe(now)
        if self._keepalive_at <= now:
            self._keepalive(now)
        if self._end_at <= now:
            self.host.counters.tcp_orphans_timed_out += 1
            self._finish(None)
        if self.state != CLOSED:
            if not self.dirty:
                self.host.touch(self)
            self._arm(self.next_deadline())

    def _retransmission_timeout(self, now: float) -> None:
        """RFC 6298 §5.4 to §5.7, RFC 5681 §3.1."""
        if self.snd_una == self.snd_nxt:
            return
        if self.snd_wnd == 0 and self.state in _SENDING:
            # RFC 9293 §3.8.6.1: a window that closed over what is out is probed, not given up.
            self._window_probe(now)
            return
        rtt, flight = self.repair.rtt, self.repair.flight
        self.host.counters.tcp_timeouts += 1
        opening = self.state <= SYN_RECEIVED
        patience = self._settings.user_timeout
        if self._timeouts == 0 and flight.records:
            self._silent_since = flight.records[0].sent_at
        waited = now - self._silent_since
        if self._timeouts >= (self._settings.syn_retries if opening else DATA_RETRIES) or (
            patience and waited >= patience
        ):
            # RFC 9293 §3.8.3, R2: give up on what was sent so often.  The timer's own doubling says
            # less: it outlives progress that measures nothing (RFC 6298 §3).
            self._finish(TimeoutError(110, "Connection timed out"))
            return
        self._timeouts += 1
        if opening:
            rtt.back_off()
            flight.mark_all_lost()
            return
        if self._search is not None and self._search.probe_start >= 0:
            self._search.lost(now)
        elif self._timeouts >= BLACK_HOLE_TIMEOUTS:
            self._suspect_black_hole(now)
        self.repair.timed_out(now, self.snd_una, self.snd_nxt)
        self._reorder_at = inf
        self._straight = False
        self._arm_retransmit(now)

    def _suspect_black_hole(self, now: float) -> None:
        """Timeouts in a row: perhaps full segments are what the path drops (RFC 4821 §7.7)."""
        segment = self.mss + self._option_octets
        smaller = plpmtud.shrunk(segment)
        if smaller < segment:
            self.host.counters.tcp_black_holes_suspected += 1
            most = self._search.most if self._search is not None else segment
            self._search = PathMtuSearch(smaller, most, now)
            self._set_mss(smaller)
            self.repair.set_mss(self.mss, self.snd_nxt, self.iss + 1)

    def _tail_probe(self, now: float) -> None:
        """Send new data if there is any, else the last segment again (RFC 8985 §7.3)."""
        self.host.counters.tcp_tail_probes += 1
        self._straight = False
        nxt, mss = self.snd_nxt, self.mss
        room = self.snd_una + self.snd_wnd - nxt
        if self.unsent and room >= min(self.unsent, mss):
            length = min(self.unsent, mss)
            if self._transmit(nxt, length, ACK | PSH, now):
                self.unsent -= length
                self.snd_nxt = nxt + length
                if length < mss:
                    self._small_end = self.snd_nxt
                self.repair.sent_new(nxt, self.snd_nxt, now)
                self.repair.probe_sent(self.snd_nxt, None, nxt, now, 0)
        elif self.repair.flight.records:
            record = self.repair.flight.records[-1]
            flags, end = ACK | PSH, record.end
            if self._fin_seq >= 0 and end > self._fin_seq:
                end = self._fin_seq
                flags |= FIN
            start = max(record.start, end - mss)
            if self._transmit(start, end - start, flags, now):
                self.retransmitted += 1
                self.host.counters.tcp_retransmitted += 1
                self.repair.probe_sent(nxt, record, start, now, self._clock(now))
        self.last_sent_at = now
        # §7.3: the retransmission timer takes over.
        self._retransmit_is_probe = False
        self._retransmit_at = self._expires_at = now + self.repair.rtt.rto
        self._arm(self._retransmit_at)

    def _window_probe(self, now: float) -> None:
        """Send one octet past a closed window, to learn whether it opened (RFC 9293 §3.8.6.1).

        It is the next new octet the first time, and the same one again until it is taken.
        """
        una, nxt = self.snd_una, self.snd_nxt
        if self.state not in _SENDING or (una == nxt and not self.unsent):
            return
        patience = self._settings.user_timeout
        if (
            self._unanswered >= DATA_RETRIES
            or (self._orphan and self.probes >= DATA_RETRIES)
            or (patience and now - max(self.last_heard, self._silent_since) >= patience)
        ):
            # A peer may keep its window closed for as long as it answers (RFC 9293 §3.8.6.1,
            # MUST-37), but not for an application that has gone.
            self._finish(TimeoutError(110, "the peer never opened its window"))
            return
        room = una + self.snd_wnd - nxt
        if una == nxt and room > 0:
            # RFC 9293 §3.8.6.2.1: the override timeout; what fits goes, small as it is.
            length = min(self.unsent, room, self.mss)
            if self._transmit(nxt, length, ACK | PSH, now):
                self.unsent -= length
                self.snd_nxt = self._small_end = nxt + length
                self.repair.sent_new(nxt, nxt + length, now)
                self.last_sent_at = now
                self._arm_retransmit(now)
            return
        self.host.counters.tcp_window_probes += 1
        self.probes += 1
        self._unanswered += 1
        self._straight = False
        if una == nxt:
            if self._transmit(nxt, 1, ACK, now):
                self.unsent -= 1
                self.snd_nxt = nxt + 1
                self.repair.sent_new(nxt, nxt + 1, now)
        elif una < self._sendq.end:
            record = self.repair.flight.records[0]
            if self._transmit(una, 1, ACK, now):
                self.repair.sent_again(record, 1, now, self._clock(now))
        else:
            self._transmit(una, 0, ACK | FIN, now)
        self.last_sent_at = now
        self._retransmit_at = inf
        wait = min(self.repair.rtt.rto * (1 << min(self.probes, 16)), PERSIST_MAX)
        self._persist_at = now + wait
        self._arm(self._persist_at)

    def _set_keepalive(self, now: float) -> None:
        if self._settings.keepalive > 0.0:
            self._keepalive_at = now + self._settings.keepalive
            self._arm(self._keepalive_at)

    def _keepalive(self, now: float) -> None:
        """RFC 9293 §3.8.4: probe a peer not heard of for long (MUST-26 to MUST-31)."""
        settings = self._settings
        self._keepalive_at = inf
        due = self.last_heard + settings.keepalive
        if self._keepalive_sent == 0 and now < due:
            self._keepalive_at = due
            return
        if self.snd_una < self.snd_nxt:
            self._keepalive_at = now + settings.keepalive  # data is its own probe
            return
        if self._keepalive_sent >= settings.keepalive_count:
            self._finish(TimeoutError(110, "no answer to keep-alive probes"))
            return
        self._keepalive_sent += 1
        self._straight = False
        self.host.counters.tcp_keepalive_probes += 1
        # A number already acknowledged: the peer must answer with where it is.
        stamp = self._bare_options(now)
        head = self.path.head(
            (self.snd_nxt - 1) & MASK, self.rcv_nxt & MASK, ACK, self._window(), stamp, 0
        )
        self.host.transmit(self.path, head, b"")
        self._keepalive_at = now + settings.keepalive_interval
