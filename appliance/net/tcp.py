"""TCP: one connection, from its first SYN to its last ACK (RFC 9293).

A TCP turns packets that may be lost, doubled, reordered or forged into two streams of octets that
are none of these.  Everything rests on numbering: each octet has a *sequence number*, the receiver
says which number it expects next (the acknowledgment), and the sender keeps each octet until it
has been acknowledged, sending it again when it seems lost.  The *window* that comes with every
acknowledgment says how much the receiver has room for; a second window, kept by the sender alone,
guesses how much the network has room for (congestion control).

    arrival:  trim to the window -> acknowledgment -> selective acknowledgment -> loss detection
              -> congestion control -> octets to the application -> FIN
    output:   what was lost, then what is new, then (if nothing carried it) the acknowledgment

`Connection` is the trunk.  It takes events (a segment, a timer, a call by the application) and
hands finished segments to its host; it never waits, and it learns the time from its caller.  The
application's calls only change state and mark the connection: one `output` per turn sends, so
answers carry their acknowledgments.  Its record is in `tcb`, the sending side in `tcp_output`, the
timers in `tcp_timers`; here are the application's calls and SEGMENT ARRIVES.  What it decides by
are leaves that know nothing of it: `reassembly`, `sendq`, `flight`, `rtt`, `sack`, `rack`, `prr`
and the congestion controls.

Numbers inside are unwrapped (see `seq`), so they compare as plain integers.  The LISTEN state and
connections not yet accepted live in `syn_queue`, TIME-WAIT in `time_wait`.
"""

from __future__ import annotations

from math import inf
from struct import Struct
from typing import Final

from appliance.net import sack
from appliance.net.fast_open import OPTIONS_ROOM, Opening
from appliance.net.path import TIMESTAMP_WORD
from appliance.net.plpmtud import PathMtuSearch
from appliance.net.reassembly import SMALL_PIECE
from appliance.net.seq import HALF, MASK, unwrap
from appliance.net.tcb import (
    MIN_MSS,
    default_mss,
    first_hop_mtu,
)
from appliance.net.tcp_state import (
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    LISTEN,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
)
from appliance.net.tcp_timers import Timers
from appliance.net.wire.tcp import (
    ACK,
    CWR,
    ECE,
    FIN,
    RST,
    SYN,
    TcpOptions,
    parse_options,
)

CHALLENGE_INTERVAL: Final = 0.5  # seconds between challenge ACKs of one connection; RFC 5961 §7

_TIMESTAMP: Final = Struct(">III")
_RECEIVING: Final = frozenset((ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2))


class Connection(Timers):
    """One end of a TCP connection."""

    __slots__ = ()

    # ------------------------------------------------------------------ the application's calls

    def send(self, data: bytes | memoryview) -> None:
        """Queue `data`, which the caller will not change; transmits nothing.

        Raises ValueError after `shutdown`.  On a connection that is over it does nothing.
        """
        if self._fin_seq >= 0 or self._orphan:
            raise ValueError("send after shutdown")
        if self.state == CLOSED or not data:
            return
        self._sendq.append(data)
        self.unsent += len(data)
        if not self.dirty:
            self.host.touch(self)

    def shutdown(self) -> None:
        """End our stream once the queue has been sent (CLOSE of RFC 9293 §3.10.4); idempotent."""
        if self._fin_seq < 0 and self.state != CLOSED:
            self._fin_seq = self._sendq.end
            self.host.touch(self)

    def close(self) -> None:
        """End both directions.  The one upcall to come is `tcp_closed`, once all has been sent.

        Octets of the peer that nobody read make this a reset (RFC 9293 §3.10.7.1, RFC 2525 §2.17).
        """
        if self._orphan:
            return
        if self.state in (CLOSED, TIME_WAIT):
            # Only octets that nobody read were left.
            self._held.clear()
            self._held_octets = 0
            self._tell_closed(None)
            return
        if self.state == SYN_SENT:
            self._orphan = True
            self._finish(None)
            return
        if self._held_octets:
            self._reset_pending = True
        else:
            self.shutdown()
        self._orphan = True
        self._straight = False
        self._paused = False
        self.notify_below = -1
        self.host.touch(self)

    def abort(self) -> None:
        """Reset the connection (ABORT of RFC 9293 §3.10.5); no upcall follows."""
        self._orphan = True
        self._closed_told = True
        if self.state in (CLOSED, TIME_WAIT):
            self._held.clear()
            self._held_octets = 0
            return
        self._straight = False
        self.notify_below = -1
        if self.state in (SYN_SENT, CLOSING, LAST_ACK):
            self._finish(None)
        else:
            self._reset_pending = True
            self.host.touch(self)

    def pause(self) -> None:
        """Deliver nothing for now; what arrives is kept and closes the window."""
        self._paused = True
        self._straight = False

    def resume(self) -> None:
        """Deliver again, from the next turn on."""
        if self._paused:
            self._paused = False
            self.host.touch(self)

    # ------------------------------------------------------------------ opening

    def open(self, now: float) -> None:
        """Begin the handshake (active OPEN of RFC 9293 §3.10.1)."""
        self._become(SYN_SENT, now)
        self.host.touch(self)

    def accept(
        self, irs: int, options: TcpOptions, window: int, now: float, repeats: int, ecn: bool
    ) -> None:
        """Take over a handshake whose SYN,ACK left the SYN queue at `now`, after `repeats` others.

        The caller then hands in the segment that completes it.
        """
        self.passive = True
        self.ecn_on = ecn
        self.state = LISTEN
        self._become(SYN_RECEIVED, now)
        self.snd_nxt = self.iss + 1
        self.repair.sent_new(self.iss, self.snd_nxt, now)
        self.repair.flight.records[0].retransmitted = repeats > 0
        self._syn_repeats = repeats
        self._learn_syn(irs, options, window, now)
        self.rcv_adv = self.rcv_nxt + self._settings.first_window
        self._last_ack_sent = self.rcv_nxt
        self.last_heard = self.ts_recent_at = now

    def accept_fast(
        self, now: float, fast: Opening, irs: int, options: TcpOptions, window: int, ecn: bool
    ) -> None:
        """Take over a SYN that a cookie vouches for; our SYN,ACK is yet to leave (RFC 7413 §4.2.2).

        The caller then names the user, and hands the octets of the SYN to `taste`.
        """
        self.fast = fast
        self.passive = True
        self.ecn_on = ecn
        self.state = LISTEN
        self._become(SYN_RECEIVED, now)
        self._learn_syn(irs, options, window, now)
        self.rcv_adv = self.rcv_nxt + self._settings.first_window
        self.last_heard = self.ts_recent_at = now

    def taste(self, now: float, payload: bytes) -> None:
        """Deliver the octets of a SYN before the handshake is complete (RFC 7413 §4.2.2)."""
        self._tell_established(now)
        if payload and self._orphan:
            # RFC 1122 §4.2.2.13: nobody is there to read them; the reset needs an ACK as well, or
            # is not heard in SYN-SENT (RFC 9293 §3.10.7.3).
            self._reset_pending = True
        elif payload and self.state != CLOSED:
            self._text(now, self.rcv_nxt, payload)
        self.host.touch(self)

    def _learn_syn(self, irs: int, options: TcpOptions, window: int, now: float) -> None:
        """Take in what the peer's SYN says: its first number and its options."""
        settings = self._settings
        self.irs = irs
        self.rcv_nxt = self._last_ack_sent = irs + 1
        # RFC 7323 §2.2, §3.2 and RFC 2018 §2: an option is on when both SYNs carried it.
        self.ts_on = settings.timestamps and options.timestamp is not None
        if options.timestamp is not None:
            self.ts_recent = options.timestamp[0]
        self.sack_on = settings.sack and options.sack_permitted
        self.scaling = settings.window_scaling and options.window_scale is not None
        if self.scaling and options.window_scale is not None:
            self.snd_wscale = options.window_scale
        else:
            self.snd_wscale = self.rcv_wscale = 0
        # RFC 7323 §2.2: the window of a SYN is never scaled.
        self.snd_wnd = self.max_snd_wnd = window
        self.snd_wl1 = irs
        self.snd_wl2 = self.iss
        # RFC 9293 §3.7.1, MUST-14 to MUST-16; RFC 6691: options are deducted by the sender.
        announced = options.mss if options.mss is not None else default_mss(self.path)
        path = self.path
        most = min(announced, settings.max_segment or announced)
        segment = max(min(most, path.mtu - path.overhead - 20), MIN_MSS)
        self._set_mss(segment)
        # RFC 8201 §4: the way is narrower than its first link, as routers said to others before.
        most = min(most, first_hop_mtu(path) - path.overhead - 20)
        if most > segment:
            self._search = PathMtuSearch(segment, most, now)
        self.repair.start(self.mss, self.sack_on)

    def _tell_established(self, now: float) -> None:
        counters = self.host.counters
        if self.passive:
            counters.tcp_accepted += 1
        else:
            counters.tcp_connected += 1
        self.last_data_at = now
        if self._syn_repeats:
            self.repair.syn_lost(self._syn_repeats)
        self._set_keepalive(now)
        self.host.established(self)
        if not self._orphan:
            self.user.tcp_established()

    # ------------------------------------------------------------------ a segment arrives

    def segment_arrives(
        self,
        now: float,
        wire_seq: int,
        wire_ack: int,
        offset_flags: int,
        window: int,
        frame: bytes,
        options_at: int,
        payload_at: int,
        end: int,
    ) -> None:
        """SEGMENT ARRIVES (RFC 9293 §3.10.7) for a segment whose checksum holds.

        `offset_flags` is the sixteen bits of data offset and flags; options and payload are
        frame[options_at:payload_at] and frame[payload_at:end].
        """
        # The fast path: established, in order, nothing but the timestamp, nothing to repair.
        # RFC 7323 appendix A gives the pattern; the full path below gives the same results.
        if (
            self._straight
            and (offset_flags == 0x8010 or offset_flags == 0x8018)
            and wire_seq == self.rcv_nxt & MASK
        ):
            word, tsval, _ = _TIMESTAMP.unpack_from(frame, options_at)
            una = self.snd_una
            acked = (wire_ack - una) & MASK
            length = end - payload_at
            if (
                word == TIMESTAMP_WORD
                and (tsval - self.ts_recent) & MASK < HALF
                and acked <= self.snd_nxt - una
                and length <= self.rcv_adv - self.rcv_nxt
                and (acked or length)
            ):
                self.host.counters.tcp_fast_path += 1
                self.last_heard = now
                # RFC 7323 §4.3: only the segment that the last ACK asked for.
                if self._last_ack_sent == self.rcv_nxt:
                    self.ts_recent = tsval
                    self.ts_recent_at = now
                # RFC 9293 §3.10.7.4: the window of a newer segment replaces the old.
                ack = una + acked
                nxt = self.rcv_nxt
                if acked or self.snd_wl1 < nxt or (self.snd_wl1 == nxt and self.snd_wl2 <= ack):
                    wnd = window << self.snd_wscale
                    self.snd_wnd = wnd
                    if wnd > self.max_snd_wnd:
                        self.max_snd_wnd = wnd
                    self.snd_wl1 = nxt
                    self.snd_wl2 = ack
                if acked:
                    self._advance(now, ack)
                if length:
                    if self._unacked == 0:
                        self._unacked_since = now
                    self._unacked += length
                    self.last_data_at = now
                    if length > self.rcv_mss:
                        self._measure(frame, length)
                        self._ack_now = True
                    self.rcv_nxt += length
                    self.user.tcp_data(frame[payload_at:end])
                if not self.dirty:
                    self.host.touch(self)
                return
        if self.state == CLOSED:
            return
        options = parse_options(frame, options_at, payload_at)
        if options.malformed:
            self.host.counters.tcp_options_malformed += 1
        flags = offset_flags & 0xFF
        payload = frame[payload_at:end]
        self._measure(frame, len(payload))
        if self.state == SYN_SENT:
            self._in_syn_sent(now, wire_seq, wire_ack, flags, window, options, payload)
        else:
            self._otherwise(now, wire_seq, wire_ack, flags, window, options, payload)
        self._marked = False
        self._look_straight()
        if not self.dirty and self.state != CLOSED:
            self.host.touch(self)

    def _measure(self, frame: bytes, length: int) -> None:
        """Learn from a super-segment what the peer's segments are: every second is acknowledged.

        RFC 5681 §4.2; VIRTIO 1.2 §5.1.6: gso_size, at octet 4 of the frame.
        """
        if length > self.rcv_mss:
            size = frame[4] | frame[5] << 8
            if size:
                self.rcv_mss = max(size, MIN_MSS)

    def _in_syn_sent(
        self,
        now: float,
        wire_seq: int,
        wire_ack: int,
        flags: int,
        window: int,
        options: TcpOptions,
        payload: bytes,
    ) -> None:
        """RFC 9293 §3.10.7.3."""
        ack = unwrap(wire_ack, self.snd_una)
        # First, the ACK bit.
        acceptable = False
        if flags & ACK:
            if ack <= self.iss or ack > self.snd_nxt:
                if not flags & RST:
                    self._send_reset(wire_ack, now)
                return
            acceptable = True
        # RFC 7323 §3.2: an echo of a timestamp that was never sent is not an answer to this SYN.
        # Nought, as in Linux, is no echo: some boxes that answer for others have none.
        if acceptable and self.ts_on and options.timestamp is not None and not flags & RST:
            age = (self._clock(now) - options.timestamp[1]) & MASK
            if options.timestamp[1] and age >= HALF:
                self._send_reset(wire_ack, now)
                return
        # Second, the RST bit.
        if flags & RST:
            if acceptable:
                self.host.counters.tcp_resets_in += 1
                self.host.counters.tcp_connections_refused += 1
                self._finish(ConnectionRefusedError(111, "Connection refused"))
            return
        # Fourth, the SYN bit.
        if not flags & SYN:
            return
        self.last_heard = now
        self._learn_syn(wire_seq, options, window, now)
        self.ts_recent_at = now
        self.ecn_on = self._settings.ecn_request and flags & (ECE | CWR) == ECE
        self.rcv_adv = self.rcv_nxt + self._settings.first_window
        if acceptable:
            if self.fast is not None:
                self._fast_answered(self.fast, now, ack, options)
            self._take_acknowledgment(now, ack, options)
            self._become(ESTABLISHED, now)
            self._ack_now = True
            if self.unsent:
                # RFC 9293 §3.8.6.3 (SHLD-18): who has more to say than that it is here talks in
                # turns, and its words will carry the acknowledgments, as Linux guesses too.
                self._quick_acks = 0
            self._tell_established(now)
            # A SYN may carry data (RFC 9293 §3.10.7.3, fourth step); the rest is sixth step on.
            if self.state != CLOSED:
                if payload:
                    self._text(now, self.rcv_nxt, payload)
                if flags & FIN:
                    self._peer_fin = self.irs + 1 + len(payload)
                    self._take_fin(now)
        else:
            # Simultaneous open: both sent a SYN; ours goes out again with an ACK (MUST-10).
            self._become(SYN_RECEIVED, now)
            self.repair.flight.mark_all_lost()

    def _fast_answered(self, fast: Opening, now: float, ack: int, options: TcpOptions) -> None:
        """RFC 7413 §4.2.1: keep the cookie, and send again what the server has not taken."""
        counters = self.host.counters
        mss = options.mss if options.mss is not None else default_mss(self.path)
        if fast.servers is not None:
            fast.servers.answered(
                fast, options.fast_open, mss, self._syn_repeats, ack - self.iss - 1, now
            )
        if fast.taken:
            counters.tcp_fast_open_connected += 1
        elif fast.octets:
            counters.tcp_fast_open_refused += 1
            edge = ack + self.snd_wnd
            if edge < self.snd_nxt:
                # They were sent without knowing the window; what is beyond it waits.
                self.unsent += self.snd_nxt - edge
                self.snd_nxt = edge
                self.repair.flight.cut(edge)
            if ack < self.snd_nxt:
                self.repair.refused(self.snd_nxt, self.iss + 1)

    def _otherwise(
        self,
        now: float,
        wire_seq: int,
        wire_ack: int,
        flags: int,
        window: int,
        options: TcpOptions,
        payload: bytes,
    ) -> None:
        """RFC 9293 §3.10.7.4, in its order."""
        seq = unwrap(wire_seq, self.rcv_nxt)
        # First, the sequence number; RFC 7323 §5.3 has PAWS before it.
        if self._paws_rejects(now, flags, options):
            return
        if flags & (SYN | ACK) == SYN and seq == self.irs and self._repeats_fast_syn():
            return
        length = len(payload) + (flags & FIN)
        if flags & SYN:
            length += 1
        if not self._acceptable(now, seq, length, flags):
            return
        # Second, the RST bit.
        if flags & RST:
            self._reset_arrives(now, seq)
            return
        # Fourth, the SYN bit (the third, security, is obsolete).
        if flags & SYN:
            # RFC 5961 §4.2: in every synchronized state, whatever the number.
            self._challenge(now)
            return
        # Fifth, the ACK field.
        if not flags & ACK:
            self.host.counters.tcp_no_ack_flag += 1
            return
        self.last_heard = now
        self._keepalive_sent = self._unanswered = 0
        out = self.snd_nxt - self.snd_una
        if not self._ack_field(now, seq, unwrap(wire_ack, self.snd_una), window, options, length):
            return
        # RFC 7323 §4.3: the echo comes from the segment that covers the last ACK sent.  PAWS found
        # it newer, or what was kept so old that it says nothing (§5.5).
        if self.ts_on and options.timestamp is not None and seq <= self._last_ack_sent:
            self.ts_recent = options.timestamp[0]
            self.ts_recent_at = now
        if self.ecn_on:
            self._ecn_flags(now, flags, out)
        # Sixth, URG: RFC 6093 §5 counsels applications against it; urgent octets stay in line.
        # Seventh, the text; eighth, FIN.
        if payload:
            self._text(now, seq, payload)
        if flags & FIN and self.state != CLOSED and self._peer_fin < 0:
            fin = seq + len(payload)
            if fin <= self.rcv_adv:
                self._peer_fin = fin
        if self._peer_fin >= 0:
            self._take_fin(now)

    # -- first

    def _paws_rejects(self, now: float, flags: int, options: TcpOptions) -> bool:
        """Drop what is too old to belong to this incarnation (RFC 7323 §5.3, R1)."""
        if not self.ts_on or flags & RST:
            return False
        if options.timestamp is None:
            # Deviates from RFC 7323 §3.2 (SHOULD drop) as Linux does: peers that forget it on some
            # segments and boxes that strip it would hang the connection for ever.
            self.host.counters.tcp_missing_timestamp += 1
            return False
        if (options.timestamp[0] - self.ts_recent) & MASK < HALF:
            return False
        # RFC 7323 §5.5: after 24 days the remembered value says nothing.
        if now - self.ts_recent_at > 24 * 86_400:
            return False
        self.host.counters.tcp_paws_dropped += 1
        self._ack_now = True
        return True

    def _repeats_fast_syn(self) -> bool:
        """Tell whether the SYN that opened fast came again: its answer was lost, or is late."""
        if self.fast is None or not self.passive or self.state != SYN_RECEIVED:
            return False
        # A copy that came in the same batch is here before the answer has left.
        if self.snd_nxt > self.iss and self._syn_repeats <= self._settings.syn_retries:
            self.repair.flight.mark_lost(self.repair.flight.records[0])
        return True

    def _acceptable(self, now: float, seq: int, length: int, flags: int) -> bool:
        """RFC 9293 §3.10.7.4, first: the four cases of an acceptable segment."""
        nxt = self.rcv_nxt
        window = self.rcv_adv - nxt
        if length == 0:
            good = nxt <= seq < nxt + window if window else seq == nxt
            # Deviates from RFC 9293 §3.10.7.4 as Linux does: a bare ACK at the right edge, sent by
            # a peer that has filled the window and lost some of it, still acknowledges.
            if not good and seq == nxt + window and not flags & (RST | SYN):
                good = True
        else:
            good = seq < nxt + window and seq + length > nxt
            # "special allowance should be made to accept valid ACKs, URGs, and RSTs".
            if window == 0 and seq == nxt:
                good = True
        if good:
            return True
        if not flags & RST:
            self.host.counters.tcp_out_of_window += 1
            if length and not flags & SYN:
                # An old duplicate, or a probe: say at once where we are (and what came twice).
                if self.sack_on and seq < nxt:
                    self.host.counters.tcp_duplicate_octets += length
                    self._dsack_out = (seq, min(seq + length, nxt))
                self._ack_now = True
            else:
                self._challenge(now)
        else:
            self.host.counters.tcp_resets_ignored += 1
        return False

    # -- second

    def _reset_arrives(self, now: float, seq: int) -> None:
        """RFC 9293 §3.10.7.4, second; RFC 5961 §3.2: only the exact number resets."""
        if seq != self.rcv_nxt:
            self._challenge(now)
            return
        self.host.counters.tcp_resets_in += 1
        if self.state == SYN_RECEIVED and not self.passive:
            self._finish(ConnectionRefusedError(111, "Connection refused"))
        elif self.state in (CLOSING, LAST_ACK) and self.snd_una >= self._fin_seq:
            # All but our FIN has arrived: both streams ended well.
            self._finish(None)
        else:
            self._finish(ConnectionResetError(104, "Connection reset by peer"))

    def _challenge(self, now: float) -> None:
        """Answer with where we are, twice a second at most (RFC 5961 §7)."""
        if now - self._challenged_at < CHALLENGE_INTERVAL:
            self.host.counters.tcp_challenge_throttled += 1
            return
        self._challenged_at = now
        self.host.counters.tcp_challenge_acks += 1
        self._ack_now = True

    # -- fifth

    def _ack_field(
        self, now: float, seq: int, ack: int, window: int, options: TcpOptions, length: int
    ) -> bool:
        """RFC 9293 §3.10.7.4, fifth; False: the segment is to be dropped."""
        if self.state == SYN_RECEIVED:
            if not self.snd_una < ack <= self.snd_nxt:
                # <SEQ=SEG.ACK><CTL=RST>
                self.host.transmit(self.path, self.path.head(ack & MASK, 0, RST, 0, b"", 0), b"")
                self.host.counters.tcp_resets_out += 1
                return False
            self._become(ESTABLISHED, now)
            self.snd_wnd = self.max_snd_wnd = window << self.snd_wscale
            self.snd_wl1 = seq
            self.snd_wl2 = ack
            self._take_acknowledgment(now, ack, options)
            if self.fast is not None and self.passive:
                self.fast.complete()
                if self._syn_repeats:
                    self.repair.syn_lost(self._syn_repeats)
            else:
                self._tell_established(now)
            return self.state != CLOSED
        if ack == self._shown > self.snd_nxt:
            # The probe that seemed refused was taken after all.
            self.repair.sent_new(self.snd_nxt, ack, self.last_sent_at)
            self.unsent -= 1
            self.snd_nxt = ack
        if ack > self.snd_nxt:
            # Something not yet sent.
            self.host.counters.tcp_ack_invalid += 1
            self._challenge(now)
            return False
        if ack < self.snd_una - self.max_snd_wnd:
            # RFC 5961 §5.2: too old to be anything but a blind guess.
            self.host.counters.tcp_ack_invalid += 1
            self._challenge(now)
            return False
        wnd = window << self.snd_wscale
        # RFC 5681 §2: the five conditions of a duplicate acknowledgment.
        duplicate = (
            ack == self.snd_una
            and length == 0
            and wnd == self.snd_wnd
            and self.snd_una < self.snd_nxt
        )
        # The window is newer if the segment is, or (as in Linux) if its acknowledgment is: SND.UNA
        # is about to move, and the old window counted from where it stood.
        if ack > self.snd_una or (
            ack == self.snd_una
            and (self.snd_wl1 < seq or (self.snd_wl1 == seq and self.snd_wl2 <= ack))
        ):
            grown = wnd > self.snd_wnd
            self.snd_wnd = wnd
            self.snd_wl1 = seq
            self.snd_wl2 = ack
            if wnd > self.max_snd_wnd:
                self.max_snd_wnd = wnd
            if grown and self._persist_at < inf:
                self._persist_at = inf
                if self.probes and ack == self.snd_una == self.snd_nxt - 1 < self._sendq.end:
                    # The probe was refused: its octet leaves anew, with those behind it.
                    self.repair.flight.take_back()
                    self._shown = self.snd_nxt
                    self.snd_nxt = ack
                    self._small_end = min(self._small_end, ack)
                    self.unsent += 1
                elif ack < self.snd_nxt:
                    self._arm_retransmit(now)
                self.probes = 0
        if ack >= self.snd_una:
            self._take_acknowledgment(now, ack, options, duplicate)
        return self.state != CLOSED

    def _advance(self, now: float, ack: int) -> None:
        """Take in that everything below `ack` arrived, when nothing needs repair."""
        self.repair.advanced(now, self.snd_una, self.snd_nxt, ack)
        self.snd_una = ack
        self.path.neighbor.confirmed_at = now  # forward progress: RFC 4861 §7.3.1
        self._sendq.acknowledge(ack)
        # RFC 6298 §5.2, §5.3.
        if ack == self.snd_nxt:
            self._retransmit_at = inf
        else:
            self._arm_retransmit(now)

    def _take_acknowledgment(
        self, now: float, ack: int, options: TcpOptions, duplicate: bool = False
    ) -> None:
        """Everything an acknowledgment can tell: progress, holes, losses, closing."""
        repair, una = self.repair, self.snd_una
        tsecr = options.timestamp[1] if self.ts_on and options.timestamp else 0
        repair.acknowledged(
            now, una, self.snd_nxt, ack, options.sack, tsecr, self._clock(now), duplicate
        )
        self._reorder_at = repair.reorder_at
        self._arm(self._reorder_at)
        if ack > una:
            self.snd_una = ack
            self._timeouts = 0
            self._sendq.acknowledge(ack)
            self.path.neighbor.confirmed_at = now
        if self._search is not None and self._search.probe_start >= 0:
            self._judge_path_probe(self._search, now)
        # RFC 6298 §5.2, §5.3.
        if ack == self.snd_nxt:
            self._retransmit_at = self._reorder_at = inf
        elif ack > una:
            self._arm_retransmit(now)
        if self._fin_seq >= 0 and self.snd_una > self._fin_seq and self.snd_nxt > self._fin_seq:
            self._fin_acknowledged(now)

    def congestion_experienced(self) -> None:
        """A router marked the packet that is about to arrive (RFC 3168 §6.1.3)."""
        if self.ecn_on:
            self._marked = True
            self._straight = False  # whether the packet counts is found out on the full path

    def _ecn_flags(self, now: float, flags: int, out: int) -> None:
        """Answer the peer's echo of a mark, once per window (RFC 3168 §6.1.2, §6.1.3).

        `out` octets were outstanding when it came.
        """
        if flags & CWR:
            self._ece = False
        if self._marked:
            # It may have been marked anew, whatever it says.
            self._ece = self._ack_now = True
        if flags & ECE and self.snd_una > self._cwr_end:
            self._cwr_end = self.snd_nxt
            self.repair.marked(now, out)

    # -- seventh and eighth

    def _text(self, now: float, seq: int, payload: bytes) -> None:
        """RFC 9293 §3.10.7.4, seventh: octets to the application, or to the reassembly queue."""
        if self.state not in _RECEIVING and self.state != SYN_RECEIVED:
            return
        if self._orphan:
            # RFC 9293 §3.10.7.4 with half-closed receivers gone, RFC 1122 §4.2.2.13: data for an
            # application that has closed is answered with a reset.
            if seq + len(payload) > self.rcv_nxt:
                self.host.counters.tcp_data_after_close += 1
                # RFC 9293 §3.5.2: <SEQ=SEG.ACK><CTL=RST>, the number that the peer expects.
                head = self.path.head(self.snd_una & MASK, 0, RST, 0, b"", 0)
                self.host.transmit(self.path, head, b"")
                self.host.counters.tcp_resets_out += 1
                self._finish(ConnectionResetError(104, "data arrived after close"))
            return
        self.last_data_at = now
        seq, payload = self._trimmed(seq, payload)
        nxt = self.rcv_nxt
        if not payload:
            return
        if self._unacked == 0:
            self._unacked_since = now
        if seq > nxt:
            self.host.counters.tcp_out_of_order += 1
            self._recent.insert(0, seq)
            del self._recent[sack.MAX_BLOCKS :]
            # RFC 5681 §4.2: out-of-order segments are acknowledged at once.
            self._ack_now = True
            kept = self.reassembly.insert(seq, payload)
            if kept < 0:
                self.host.counters.tcp_reassembly_full += 1
            elif kept == 0 and self.sack_on:
                self._dsack_out = (seq, seq + len(payload))
            return
        self._unacked += len(payload)
        if len(payload) > self.rcv_mss or self.reassembly.octets:
            # RFC 5681 §4.2: so is one that fills a hole, wholly or in part.
            self._ack_now = True
        self.rcv_nxt += len(payload)
        self._deliver(payload)
        if self.reassembly.octets and self.state != CLOSED:
            more = self.reassembly.take(self.rcv_nxt)
            if self._peer_fin >= 0 and self.rcv_nxt + len(more) >= self._peer_fin:
                more = more[: self._peer_fin - self.rcv_nxt]
                self.reassembly.clear()
            if more:
                self.rcv_nxt += len(more)
                self._deliver(more)

    def _trimmed(self, seq: int, payload: bytes) -> tuple[int, bytes]:
        """Cut off what has been received before and what lies beyond the window or the FIN."""
        nxt = self.rcv_nxt
        if seq < nxt:
            if self.sack_on:
                self._dsack_out = (seq, min(seq + len(payload), nxt))
            self.host.counters.tcp_duplicate_octets += min(len(payload), nxt - seq)
            payload = payload[nxt - seq :]
            seq = nxt
            self._ack_now = True
        if seq + len(payload) > self.rcv_adv:
            payload = payload[: max(self.rcv_adv - seq, 0)]
            self._ack_now = True
        if self._peer_fin >= 0 and seq + len(payload) > self._peer_fin:
            payload = payload[: max(self._peer_fin - seq, 0)]  # beyond its FIN a peer has no octets
        return seq, payload

    def _deliver(self, data: bytes) -> None:
        if self._paused or self._held:
            if self._held and len(self._held[-1]) + len(data) <= SMALL_PIECE:
                self._held[-1] += data  # crumbs are kept in one object
            else:
                self._held.append(data)
            self._held_octets += len(data)
        elif not self._orphan:
            self.user.tcp_data(data)
        else:
            # RFC 1122 §4.2.2.13: closed by what it was given a moment ago, it reads no more.
            self._reset_pending = True

    def _take_fin(self, now: float) -> None:
        """RFC 9293 §3.10.7.4, eighth: the peer's FIN, once everything before it is here."""
        if self._peer_fin != self.rcv_nxt:
            if self._peer_fin > self.rcv_nxt:
                self._ack_now = True
            return
        state = self.state
        self.rcv_nxt += 1
        self.rcv_adv = max(self.rcv_adv, self.rcv_nxt)
        self._ack_now = True
        if state in (ESTABLISHED, SYN_RECEIVED):
            self._become(CLOSE_WAIT, now)
        elif state == FIN_WAIT_1:
            self._become(CLOSING, now)
        elif state == FIN_WAIT_2:
            self._enter_time_wait(now)
        if self.state != CLOSED and not self._held:
            self._tell_eof()

    def _fin_acknowledged(self, now: float) -> None:
        """Our FIN has arrived: the closing states move on (RFC 9293 §3.10.7.4, fifth)."""
        state = self.state
        if state == FIN_WAIT_1:
            self._become(FIN_WAIT_2, now)
        elif state == CLOSING:
            self._enter_time_wait(now)
        elif state == LAST_ACK:
            self._finish(None)

    def _enter_time_wait(self, now: float) -> None:
        self._become(TIME_WAIT, now)
        if not self._held:
            self._tell_eof()
        if self._ack_now:
            self._send_ack(now)
        self._disarm()
        self.host.enter_time_wait(self, now)
        if not self._held:
            self._tell_closed(None)

    # ------------------------------------------------------------------ told by the network

    def unreachable(self, error: OSError) -> None:
        """An ICMP error quotes one of our segments that is in flight (RFC 5927 §6).

        It ends a handshake; an established connection treats every such error as soft.
        """
        if self.state in (SYN_SENT, SYN_RECEIVED):
            self._finish(error)
        else:
            self._error = error

    def lose(self, error: OSError) -> None:
        """The address that this connection has is ours no longer: it ends here, without a word."""
        self._finish(error)

    def link_mtu(self, mtu: int, now: float) -> None:
        """The first link carries packets of `mtu` octets at most; nothing larger is tried."""
        if self._search is not None:
            self._search.bound(max(mtu - self.path.overhead - 20, MIN_MSS))
        if mtu < self.path.mtu:
            self.path_mtu(mtu, now)
            self.path.mtu = mtu

    def path_mtu(self, mtu: int, now: float) -> None:
        """The path carries packets of `mtu` octets at most (RFC 1191 §6.5)."""
        segment = max(mtu - self.path.overhead - 20, MIN_MSS)
        current = self.mss + self._option_octets
        search = self._search
        if search is not None and search.probe_start >= 0 and current <= segment < search.size:
            for record in self.repair.flight.records:
                if record.start == search.probe_start:
                    self.repair.flight.mark_lost(record)
                    break
            search.lost(now, segment)
            self._straight = False
            self.host.touch(self)
        elif (
            self.state == SYN_SENT
            and self.fast is not None
            and self.fast.octets + OPTIONS_ROOM > segment
            and mtu < self.path.mtu
        ):
            # RFC 7413 §4.1.3.1: what was too large leaves again without its data.
            self.path.mtu = mtu
            self.repair.flight.mark_all_lost()
            self.host.touch(self)
        elif (
            self.state > SYN_RECEIVED
            # RFC 7413 §4.2.2: who opened fast may have been answered already.
            or (self.state == SYN_RECEIVED and self.snd_nxt > self.iss + 1)
        ) and segment < current:
            self.host.counters.tcp_path_mtu_reduced += 1
            # RFC 1191 §6.3: after a while something larger is tried again.
            most = min(
                search.most if search else current,
                max(first_hop_mtu(self.path) - self.path.overhead - 20, MIN_MSS),
            )
            self._search = PathMtuSearch(segment, most, now)
            if self.state > SYN_RECEIVED:
                self.path.mtu = mtu  # else a SYN,ACK that is repeated would name another MSS
            self._set_mss(segment)
            self.repair.set_mss(self.mss, self.snd_nxt, self.iss + 1)
            self._straight = False
            self.host.touch(self)

    def shed(self, now: float) -> None:
        """Give everything up: the host needs the memory more than this peer its connection."""
        self.host.counters.tcp_memory_shed += 1
        self._send_reset(self._bare_number() & MASK, now)
        self._finish(ConnectionAbortedError(103, "given up for want of memory"))
