"""TCP's sending side: what leaves, when, and in which segments (RFC 9293 §3.8, §3.9.1).

Once per turn `output` looks at everything that has happened to the connection since:

    what was lost, then what is new, then (if nothing carried it) the acknowledgment

New octets leave as far as the peer's window and the congestion window reach, in segments as large
as the link takes: a super-segment is one frame that the link, or the peer's kernel, treats as many.
The window that each segment offers, and the blocks of what came out of order, are made here too.
When, if nothing comes back, is the business of `tcp_timers`.
"""

from __future__ import annotations

from math import inf
from typing import Final

from appliance.net import sack
from appliance.net.fast_open import Opening
from appliance.net.plpmtud import PathMtuSearch
from appliance.net.seq import MASK
from appliance.net.tcb import Tcb
from appliance.net.tcp_state import (
    CLOSE_WAIT,
    CLOSED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
)
from appliance.net.wire.tcp import (
    ACK,
    CWR,
    ECE,
    FIN,
    PSH,
    RST,
    SYN,
    build_fast_open,
    build_options,
    build_syn_options,
)

DELAYED_ACK: Final = 0.04  # seconds; RFC 9293 §3.8.6.3 allows 0.5 (MUST-40), Linux has 40 ms
PERSIST_MAX: Final = 60.0  # seconds between window probes, Linux's order; RFC 9293 §3.8.6.1
FIN_WAIT_2_LIMIT: Final = 60.0  # seconds an orphan waits for the peer's FIN; Linux's fin_timeout
MAX_SEGMENT_DATA: Final = 65_535  # octets: no IP packet is longer


class Output(Tcb):
    """A connection that sends."""

    __slots__ = ()

    def output(self, now: float) -> None:
        """Send whatever may be sent now; called once per turn for a connection that was touched."""
        self.dirty = False
        if self.state == CLOSED:
            if self._held and not self._paused:
                self._release_held(now)
            return
        if self._reset_pending:
            if self._send_reset(self._bare_number() & MASK, now):
                self._finish(self._error)
            else:
                self.host.touch(self)  # a peer that waits for us would never hear of it
            return
        if self._held and not self._paused:
            self._release_held(now)
        state: int = self.state
        if state in (CLOSED, TIME_WAIT):
            return
        if state <= SYN_RECEIVED:
            self._send_syn(now)
            # RFC 7413 §4.2.2: who opened fast may be answered before the handshake is complete,
            # but not before our SYN has found room on the link, whose number comes first.
            opened = self.fast is not None and self.passive
            if not opened or self.snd_nxt == self.iss or self.repair.flight.lost:
                return
        elif self.repair.flight.lost:
            self._retransmit(now)
        more = True
        while more:
            if self.unsent <= self.notify_below:
                self.notify_below = -1
                self.user.tcp_writable()
            more = (self.unsent > 0 or self._fin_seq == self.snd_nxt) and self._send_new(now)
        if self._orphan and self._fin_seq >= 0 and self.snd_nxt > self._fin_seq:
            self._tell_closed(None)
            if self.state == FIN_WAIT_2 and self._end_at == inf:
                # RFC 9293 §3.6, figure 5 has no way out of FIN-WAIT-2 when the peer never closes;
                # Linux's fin_timeout gives one when nobody could read what comes.
                self._end_at = now + FIN_WAIT_2_LIMIT
                self._arm(self._end_at)
        if self._ack_now or self._unacked or self._paused or self._dsack_out is not None:
            self._acknowledge(now)

    def _release_held(self, now: float) -> None:
        """Hand over what was kept while the application paused."""
        held, self._held = self._held, []
        for i, data in enumerate(held):
            if self._paused or self._orphan:
                self._held = held[i:]
                break
            self._held_octets -= len(data)
            self.user.tcp_data(data)
        if self._orphan:
            self._held = []
            self._held_octets = 0
            if self.state in (CLOSED, TIME_WAIT):
                self._tell_closed(None)
            return
        if not self._held and 0 <= self._peer_fin < self.rcv_nxt:
            self._tell_eof()
            if self.state in (CLOSED, TIME_WAIT):
                self._tell_closed(None)
                return
        # RFC 9293 §3.8.6.2.2: reopen the window once it can grow by a worthwhile step, which is
        # a segment at least, and (as Linux does) twice what the peer still has.
        room = self.rcv_nxt + self.rcv_buffer - self._held_octets - self.rcv_adv
        left = max(self.rcv_adv - self.rcv_nxt, 0)
        if room >= max(min(self.rcv_buffer // 2, self.rcv_mss), left):
            self._ack_now = True
        self._look_straight()

    def _send_syn(self, now: float) -> None:
        """Send, or send again, our SYN (with an ACK in SYN-RECEIVED)."""
        flight = self.repair.flight
        first = self.snd_nxt == self.iss
        if not first and not flight.records[0].lost:
            if self._ack_now and self.state == SYN_RECEIVED:
                self._send_ack(now)
            if self._retransmit_at == inf:
                self._arm_retransmit(now)  # accepted, by a segment that did not complete it
            return
        settings = self._settings
        limit = self.path.mtu - self.path.overhead - 20
        mss = min(settings.max_segment or limit, limit)
        passive = self.state == SYN_RECEIVED
        stamp = (self._clock(now), self.ts_recent if passive else 0) if self.ts_on else None
        options = build_syn_options(
            mss,
            self.rcv_wscale if self.scaling else None,
            self.sack_on,
            stamp,
        )
        payload: bytes | memoryview = b""
        fast = self.fast
        # RFC 7413 §4.1.3.1: a SYN that is repeated has neither cookie nor data.
        if fast is not None and (first or self.passive):
            if fast.cookie is not None:
                options += build_fast_open(fast.cookie, fast.experimental)
            if not passive:
                payload = self._fast_data(fast, mss)
        window = settings.first_window
        head = self.path.head(
            self.iss & MASK,
            self.rcv_nxt & MASK if passive else 0,
            self._syn_flags(passive),
            window,
            options,
            len(payload),
        )
        if not self.host.transmit(self.path, head, payload):
            self.host.touch(self)
            return
        self._ack_now = False
        self.host.counters.tcp_out += 1
        if passive:
            self.rcv_adv = max(self.rcv_adv, self.rcv_nxt + window)
            self._ack_sent(now)
        if first:
            self.snd_nxt = self.iss + 1
            self.repair.sent_new(self.iss, self.snd_nxt, now)
            if payload and fast is not None:
                fast.octets = len(payload)
                self.unsent -= fast.octets
                self.snd_nxt += fast.octets
                self.repair.sent_new(self.iss + 1, self.snd_nxt, now)
        else:
            self.host.counters.tcp_syn_retransmitted += 1
            self._syn_repeats += 1
            flight.sent_again(flight.records[0], 1, now)
        self.last_sent_at = now
        self._arm_retransmit(now)

    def _fast_data(self, fast: Opening, segment: int) -> bytes | memoryview:
        """What goes with our SYN (RFC 7413 §4.2.1)."""
        length = min(fast.room(segment), self.unsent)
        return self._sendq.slice(self.iss + 1, length) if length else b""

    def _syn_flags(self, passive: bool) -> int:
        """RFC 3168 §6.1.1: ECN is offered by ECE and CWR together, taken up by ECE alone."""
        if passive:
            return SYN | ACK | (ECE if self.ecn_on else 0)
        # §6.1.1.1: a SYN that got no answer is repeated without.
        offer = self._settings.ecn_request and self.snd_nxt == self.iss
        return SYN | ECE | CWR if offer else SYN

    # ------------------------------------------------------------------ new octets

    def _send_new(self, now: float) -> bool:
        """Send one (super-)segment of new data, or the FIN; False when nothing may leave."""
        nxt, unsent = self.snd_nxt, self.unsent
        probe = self._path_probe(now) if self._search is not None else 0
        length = probe or self._sendable(now)
        # RFC 9293 §3.10.4, CLOSE in SYN-RECEIVED: the FIN waits for ESTABLISHED.
        carries_fin = self._fin_seq >= 0 and length == unsent and self.state != SYN_RECEIVED
        if length <= 0 and not carries_fin:
            return False
        # PSH where Linux puts it: at the end of the queue (MUST-61), and on every super-segment,
        # so that a receiver that joins segments knows where to stop (RFC 9293 §3.9.1.2).
        flags = ACK | PSH if length > self.mss else ACK
        if length == unsent:
            if length:
                flags |= PSH
            if carries_fin:
                flags |= FIN
        if probe:
            self.path.set_segment(probe)
        sent = self._transmit(nxt, length, flags, now)
        if probe:
            self.path.set_segment(self.mss)
        if not sent:
            return False
        if probe and self._search is not None:
            self._search.sent(probe + self._option_octets, nxt, nxt + length)
            self.repair.path_probe = nxt
            self._straight = False
        self.unsent = unsent - length
        end = nxt + length
        if not self.nodelay and not probe and length % self.mss:
            self._small_end = end
        if carries_fin:
            end += 1
            self._become(LAST_ACK if self.state == CLOSE_WAIT else FIN_WAIT_1, now)
        self.snd_nxt = end
        self.repair.sent_new(nxt, end, now)
        self.last_sent_at = now
        self._persist_at = inf
        self._arm_retransmit(now, self.snd_una < nxt and self._retransmit_at < inf)
        return True

    def _sendable(self, now: float) -> int:
        """Return how many octets of new data may leave as one segment now; -1: wait."""
        una, nxt, mss, unsent = self.snd_una, self.snd_nxt, self.mss, self.unsent
        repair = self.repair
        if una == self.iss:
            una += 1  # the window of the peer's SYN, and ours, are for what follows the SYN
        outstanding = nxt - una
        idle = outstanding == 0 and now - self.last_sent_at > repair.rtt.rto and self.last_sent_at
        if idle and self._settings.slow_start_after_idle:
            # RFC 5681 §4.1: after an idle period the window is an old guess.
            repair.cc.idle(int((now - self.last_sent_at) / repair.rtt.rto))
        allowed = repair.allowed(outstanding)  # by the network
        room = min(una + self.snd_wnd - nxt, allowed)  # and by the peer
        # Nagle with Minshall's modification, as in Linux: a small segment waits while another is
        # unacknowledged, so that no write waits for its own tail (RFC 9293 §3.7.4, appendix A.3).
        waits = self._small_end > una and not self.nodelay and self._fin_seq < 0
        if unsent <= mss and unsent <= room:
            return -1 if waits and unsent < mss else unsent
        room = min(unsent, room)
        length = min(room, self._burst())
        if length >= mss:
            # Whole segments; a small tail goes along if it ends the queue and need not wait.
            tail = length % mss
            return length - tail if tail and (length < unsent or waits) else length
        # The sender's side of silly window avoidance (RFC 9293 §3.8.6.2.1, MUST-38): less than a
        # segment goes only when it is half of the most that the peer ever offered.
        if length > 0 and length * 2 >= self.max_snd_wnd and allowed >= mss:
            return length
        if unsent:
            self._await_window(now)
        return -1

    def _burst(self) -> int:
        """Octets of the largest super-segment the link takes, in whole segments."""
        mss = self.mss
        limit = min(self.host.gso_max, MAX_SEGMENT_DATA) - self.path.overhead - 60
        return limit - limit % mss if limit > mss else mss

    def _await_window(self, now: float) -> None:
        """If nothing is under way that could bring a new window, set out to ask for it."""
        if self.snd_una == self.snd_nxt and self._persist_at == inf:
            # RFC 9293 §3.8.6.1: probe a closed window, first after one timeout (SHLD-29).
            wait = min(self.repair.rtt.rto * (1 << min(self.probes, 16)), PERSIST_MAX)
            self._persist_at = now + wait
            self._arm(self._persist_at)
            self._silent_since = now
            self._straight = False

    # ------------------------------------------------------------------ once more

    def _retransmit(self, now: float) -> None:
        """Send again what is lost, lowest first, as far as the windows allow (RFC 6675 §5)."""
        repair, mss = self.repair, self.mss
        if not repair.recovering():
            repair.enter_by_time(now, self.snd_una, self.snd_nxt)
        while True:
            outstanding = self.snd_nxt - self.snd_una
            record = repair.next_lost(self.snd_una, self.snd_nxt, self.snd_una + self.snd_wnd)
            if record is None:
                return
            allowed = max(repair.allowed(outstanding), mss)
            length = min(record.end - record.start, allowed, self._burst())
            if length > mss:
                length -= length % mss
            flags = ACK
            data = length
            if self._fin_seq >= 0 and record.start + length > self._fin_seq:
                flags |= FIN
                data = self._fin_seq - record.start
            if record.start + data == self._sendq.end and data:
                flags |= PSH
            if not self._transmit(record.start, data, flags, now):
                return
            count = -(-max(data, 1) // mss)
            self.retransmitted += count
            self.host.counters.tcp_retransmitted += count
            repair.sent_again(record, length, now, self._clock(now))
            self.last_sent_at = now
            self._arm_retransmit(now)

    # ------------------------------------------------------------------ the path, RFC 4821

    def _path_probe(self, now: float) -> int:
        """Return the octets of a segment that tries what the path carries; 0: none (RFC 4821)."""
        search = self._search
        if search is None or self.repair.recovering():
            return 0
        length = search.next_size(now) - self._option_octets
        room = min(
            self.snd_una + self.snd_wnd - self.snd_nxt,
            self.repair.allowed(self.snd_nxt - self.snd_una),
        )
        return length if 0 < length < min(self.unsent, room) else 0

    def _judge_path_probe(self, search: PathMtuSearch, now: float) -> None:
        """Did the larger segment arrive?  A second copy of it, in pieces, proves nothing."""
        for record in self.repair.flight.records:
            if record.start >= search.probe_end:
                break
            if record.end > search.probe_start:
                if record.lost or record.retransmitted:
                    search.lost(now)
                return
        if self.snd_una >= search.probe_end:
            segment = search.arrived(now)
            self._set_mss(segment)
            self.path.mtu = max(self.path.mtu, segment + self.path.overhead + 20)
            self.repair.raise_mss(self.mss)
            self.host.counters.tcp_path_mtu_raised += 1

    # ------------------------------------------------------------------ one segment

    def _transmit(self, start: int, length: int, flags: int, now: float) -> bool:
        """Build one segment of `length` octets from number `start` and hand it to the link."""
        payload = self._sendq.slice(start, length) if length else b""
        if self.ecn_on:
            flags = self._mark(start, length, flags)
        if self.ts_on and not self.reassembly.octets and self._dsack_out is None:
            head = self.path.head_timestamp(
                start & MASK,
                self.rcv_nxt & MASK,
                flags,
                self._window(),
                (int(now * 1000.0) + self.ts_offset) & MASK,
                self.ts_recent,
                length,
            )
        else:
            # RFC 2018 §4: SACK options ride on every ACK that does not acknowledge everything;
            # a data segment would shrink by them, so only pure ACKs carry them here.
            options = self._options(now) if not length else self._bare_options(now)
            head = self.path.head(
                start & MASK, self.rcv_nxt & MASK, flags, self._window(), options, length
            )
            if not length:
                self._dsack_out = None
        if not self.host.transmit(self.path, head, payload):
            self.host.touch(self)  # once more when the link has room
            if flags & CWR:
                self.repair.reduced = True
            return False
        self.host.counters.tcp_out += 1
        self._ack_sent(now)
        return True

    def _mark(self, start: int, length: int, flags: int) -> int:
        """Set ECN-capable transport and the ECN flags as RFC 3168 §6.1 has them."""
        # §6.1.4, §6.1.5: not on pure ACKs, retransmissions and window probes; §6.1.1: nor at all
        # when a SYN of ours has left without the offer.
        new = bool(length) and start == self.snd_nxt and self.snd_wnd > 0
        if self._syn_repeats and not self.passive:
            new = False
        self.path.set_ect(new)
        if self._ece:
            flags |= ECE
        if new and self.repair.reduced:
            self.repair.reduced = False
            flags |= CWR
        return flags

    def _ack_sent(self, now: float) -> None:
        """Every segment that leaves acknowledges all there is."""
        self._last_ack_sent = self.rcv_nxt
        if self._unacked:
            self._unacked = 0
            if self._quick_acks:
                self._quick_acks -= 1
            if now >= self._tune_at:
                self._tune(now)
        # Out-of-order octets want an acknowledgment of their own, with its blocks.
        if not self.reassembly.octets:
            self._ack_now = False
        self._delack_at = inf

    def _arm_retransmit(self, now: float, running: bool = False) -> None:
        """Start the retransmission timer, or the tail probe's when that comes first.

        `running`: new octets leave behind others, whose time stays what it is (RFC 6298 §5.1), so
        that a probe is not put off beyond it either (RFC 8985 §7.2).
        """
        at, self._retransmit_is_probe = self.repair.timer(now, self.snd_nxt - self.snd_una)
        if not running:
            self._expires_at = now + self.repair.rtt.rto
        elif at > self._expires_at:
            at = self._expires_at
        self._retransmit_at = at
        if at < self.heap_at:
            self.heap_at = at
            self.host.schedule(self, at)

    def _send_reset(self, wire_seq: int, now: float) -> bool:
        """Send a RST with this sequence number (RFC 9293 §3.5.2, §3.10.7); False: no room."""
        if self.state == SYN_SENT:
            head = self.path.head(wire_seq, 0, RST, 0, b"", 0)
        else:
            # RFC 7323 §3.2: a RST SHOULD carry the timestamp too.
            options = self._bare_options(now)
            head = self.path.head(wire_seq, self.rcv_nxt & MASK, RST | ACK, 0, options, 0)
        sent = self.host.transmit(self.path, head, b"")
        if sent:
            self.host.counters.tcp_resets_out += 1
        return sent

    # ------------------------------------------------------------------ acknowledgments

    def _acknowledge(self, now: float) -> None:
        """Send the acknowledgment that no data carried, now or a little later (RFC 5681 §4.2)."""
        if (
            self._ack_now
            or self._dsack_out is not None
            or self._unacked >= 2 * self.rcv_mss
            or (self._unacked and self._quick_acks)
        ):
            self._send_ack(now)
        elif self._unacked and self._delack_at == inf:
            self._delack_at = self._unacked_since + DELAYED_ACK
            self._arm(self._delack_at)

    def _send_ack(self, now: float) -> None:
        if self._transmit(self._bare_number(), 0, ACK, now):
            self._ack_now = False

    def _bare_number(self) -> int:
        """Return the number of a segment without data: SND.NXT, or the edge of the peer's window.

        RFC 9293 §3.10.7.4, first: beyond its window a peer drops a segment and all that it says.
        SND.NXT lies there while a window probe is out, or when the window has shrunk; the edge is
        what Linux takes then. A FIN that went with the octets that fill the window lies there too,
        and whoever has taken it takes nothing before it: two that end at once would never hear it.
        """
        edge = self.snd_una + self.snd_wnd
        if self.snd_nxt <= edge or self.snd_una == self.iss:
            return self.snd_nxt
        fin_alone = self._fin_seq == edge > self.snd_una and self.snd_nxt == edge + 1
        return self.snd_nxt if fin_alone else edge

    def _options(self, now: float) -> bytes:
        """Timestamp and SACK blocks of an acknowledgment."""
        stamp = (self._clock(now), self.ts_recent) if self.ts_on else None
        if not self.sack_on:
            return build_options(stamp)
        islands = sack.by_recency(self.reassembly.blocks(), self._recent)
        self._recent = [left for left, _ in islands]
        return build_options(stamp, sack.write(islands, self._dsack_out, 3 if stamp else 4))

    def _window(self) -> int:
        """The window field: how far the peer may send (RFC 9293 §3.8.6)."""
        buffer = self.rcv_buffer
        nxt = self.rcv_nxt
        shift = self.rcv_wscale
        if not self._held_octets:
            edge = nxt + (min(buffer >> shift, 0xFFFF) << shift)
        else:
            edge = nxt + (min(max(buffer - self._held_octets, 0) >> shift, 0xFFFF) << shift)
            # RFC 9293 §3.8.6.2.2, receiver's silly window avoidance: no crumbs (MUST-39).
            if edge - self.rcv_adv < min(buffer // 2, self.rcv_mss):
                edge = self.rcv_adv
        # RFC 9293 §3.8.6: the right edge never moves left (SHLD-14).
        if edge < self.rcv_adv:
            edge = self.rcv_adv
        # RFC 7323 §2.4: rounded down, so that crumbs cannot push the edge; what was offered counts.
        window = min((edge - nxt) >> shift, 0xFFFF)
        self.rcv_adv = max(self.rcv_adv, nxt + (window << shift))
        return window

    def _tune(self, now: float) -> None:
        """Offer four times what the application took in the last round trip.

        Dynamic right-sizing (Fisk and Feng, 2001): the window follows the need.  A sender in slow
        start wants twice as much in the next round and four times in the one that this offer
        reaches; a connection that receives little never offers much.
        """
        wanted = 4 * (self.rcv_nxt - self._tune_from - self._held_octets)
        if self._tune_at and wanted > self.rcv_buffer and not self.host.short_of_memory:
            self.rcv_buffer = min(wanted, self._settings.receive_buffer)
        self._tune_from = self.rcv_nxt
        self._tune_at = now + self.repair.rtt.srtt
