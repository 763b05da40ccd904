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
answers carry their acknowledgments.  What it decides by are leaves that know nothing of it:
`reassembly`, `sendq`, `flight`, `rtt`, `sack`, `rack`, `prr` and the congestion controls.

Numbers inside are unwrapped (see `seq`), so they compare as plain integers.  The LISTEN state and
connections not yet accepted live in `syn_queue`, TIME-WAIT in `time_wait`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from struct import Struct
from typing import Final, Protocol

from appliance.net import plpmtud, sack
from appliance.net.counters import Counters
from appliance.net.path import IPV4_LEN, TIMESTAMP_WORD, TcpPath
from appliance.net.plpmtud import BLACK_HOLE_TIMEOUTS, PathMtuSearch
from appliance.net.reassembly import SMALL_PIECE, ReassemblyQueue
from appliance.net.repair import Repair
from appliance.net.sendq import SendQueue
from appliance.net.seq import HALF, MASK, unwrap
from appliance.net.tcp_state import (
    ALLOWED,
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    LISTEN,
    NAMES,
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
    TcpOptions,
    build_options,
    build_syn_options,
    parse_options,
)

# Octets; RFC 9293 §3.7.1, when the peer's SYN names none (MUST-15): over IPv4, over IPv6.
DEFAULT_MSS: Final = 536
DEFAULT_MSS_IPV6: Final = 1220
MIN_MSS: Final = 88  # octets; Linux's TCP_MIN_MSS plus options: a peer may not ask for crumbs
DELAYED_ACK: Final = 0.04  # seconds; RFC 9293 §3.8.6.3 allows 0.5 (MUST-40), Linux has 40 ms
QUICK_ACKS: Final = 16  # segments acknowledged at once at the start, while the peer's window grows
CHALLENGE_INTERVAL: Final = 0.5  # seconds between challenge ACKs of one connection; RFC 5961 §7
SYN_RETRIES: Final = 6  # Linux's tcp_syn_retries: 127 s; RFC 9293 §3.8.3 (MUST-23): >= 3 min by
# timeouts that back off from 1 s comes to the same order; `user_timeout` overrides.
DATA_RETRIES: Final = 15  # Linux's tcp_retries2: about 15 minutes; R2 of RFC 9293 §3.8.3
FIN_WAIT_2_LIMIT: Final = 60.0  # seconds an orphan waits for the peer's FIN; Linux's fin_timeout
PERSIST_MAX: Final = 60.0  # seconds between window probes, Linux's order; RFC 9293 §3.8.6.1
MAX_SEGMENT_DATA: Final = 65_535  # octets: no IP packet is longer

_TIMESTAMP: Final = Struct(">III")
_SENDING: Final = frozenset((ESTABLISHED, CLOSE_WAIT, FIN_WAIT_1, CLOSING, LAST_ACK))
_RECEIVING: Final = frozenset((ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2))


def default_mss(path: TcpPath) -> int:
    """Return the MSS of a peer that names none: what every host takes (RFC 9293 §3.7.1)."""
    return DEFAULT_MSS if path.overhead == IPV4_LEN else DEFAULT_MSS_IPV6


@dataclass(frozen=True, slots=True)
class TcpSettings:
    """What one end of a connection may choose; times in seconds, sizes in octets."""

    congestion: str = "cubic"  # or "newreno"
    nodelay: bool = False  # True: no Nagle (RFC 9293 §3.7.4)
    receive_buffer: int = 6 << 20  # largest window offered; it grows to what is used (Linux: 6 MB)
    receive_start: int = 1 << 16  # window offered at first
    window_scaling: bool = True  # RFC 7323 §2
    timestamps: bool = True  # RFC 7323 §3
    sack: bool = True  # RFC 2018
    ecn: bool = True  # RFC 3168: accept when the peer offers it
    ecn_request: bool = False  # offer it ourselves; Linux does not by default either
    max_segment: int = 0  # largest MSS to announce and to send; 0: what the path's MTU gives
    slow_start_after_idle: bool = True  # False: an idle connection keeps its window (RFC 5681 §4.1)
    tail_probe: bool = True  # RFC 8985 §7; False: a lost tail waits for the timer
    keepalive: float = 0.0  # idle time before the first probe; 0: none (RFC 9293 §3.8.4)
    keepalive_interval: float = 75.0
    keepalive_count: int = 9
    user_timeout: float = 0.0  # give up on unacknowledged data after this; 0: DATA_RETRIES
    fast_path: bool = True  # False: every segment takes the full path (tests compare the two)

    @property
    def window_shift(self) -> int:
        """The smallest shift that can express the receive buffer (RFC 7323 §2.2)."""
        return min((self.receive_buffer >> 16).bit_length(), 14)

    @property
    def first_window(self) -> int:
        """The window of our SYN, which is never scaled (RFC 7323 §2.2)."""
        return min(self.receive_buffer, self.receive_start, 0xFFFF)


class TcpUser(Protocol):
    """The application's side: what a connection tells it, always inside a turn of the stack."""

    def tcp_established(self) -> None:
        """The handshake is complete."""

    def tcp_data(self, data: bytes) -> None:
        """Octets arrived, in order."""

    def tcp_eof(self) -> None:
        """The peer will send no more."""

    def tcp_writable(self) -> None:
        """`unsent` has fallen to `notify_below`."""

    def tcp_closed(self, error: Exception | None) -> None:
        """The connection is over, for this `error` or (None) properly.  The last call."""


class TcpHost(Protocol):
    """What a connection asks of the host that it lives in."""

    counters: Counters
    gso_max: int
    short_of_memory: bool  # near the bound of all connections together

    def transmit(self, path: TcpPath, head: bytes, payload: bytes | memoryview) -> bool:
        """Send one frame; False: the link is full and has taken nothing."""
        ...

    def schedule(self, connection: Connection, at: float) -> None:
        """Call `connection.expire` at `at`."""

    def touch(self, connection: Connection) -> None:
        """Call `connection.output` before the turn ends."""

    def established(self, connection: Connection) -> None:
        """A connection completed its handshake."""

    def release(self, connection: Connection) -> None:
        """The connection is CLOSED: forget it."""

    def enter_time_wait(self, connection: Connection, now: float) -> None:
        """The connection is in TIME-WAIT: something smaller takes its place."""


class Connection:
    """One end of a TCP connection (the TCB of RFC 9293 §3.3.1)."""

    __slots__ = (
        "_ack_now", "_challenged_at", "_closed_told", "_cwr", "_cwr_end", "_delack_at",
        "_dsack_out", "_ece", "_end_at", "_eof_told", "_error", "_fin_seq", "_held",
        "_held_octets", "_keepalive_at", "_keepalive_sent", "_last_ack_sent", "_orphan",
        "_paused", "_peer_fin", "_persist_at", "_quick_acks", "_recent", "_reorder_at",
        "_reset_pending", "_retransmit_at", "_retransmit_is_probe", "_search", "_sendq",
        "_settings", "_shown", "_silent_since", "_straight", "_syn_repeats", "_ts_offset",
        "_tune_at", "_tune_from", "_unacked", "_unacked_since", "_unanswered", "dirty", "ecn_on",
        "heap_at", "host", "irs", "iss", "key", "last_data_at", "last_heard", "last_sent_at",
        "local", "max_snd_wnd", "mss", "nodelay", "notify_below", "passive", "path", "probes",
        "rcv_adv", "rcv_buffer", "rcv_mss", "rcv_nxt", "rcv_wscale", "reassembly", "remote",
        "repair", "retransmitted", "sack_on", "scaling", "snd_nxt", "snd_una", "snd_wl1", "snd_wl2",
        "snd_wnd", "snd_wscale", "state", "ts_on", "ts_recent", "ts_recent_at", "unsent", "user",
    )  # fmt: skip

    def __init__(
        self,
        host: TcpHost,
        path: TcpPath,
        key: bytes,
        local: tuple[str, int],
        remote: tuple[str, int],
        settings: TcpSettings,
        user: TcpUser,
        iss: int,
        ts_offset: int,
    ) -> None:
        self.host = host
        self.path = path
        self.key = key  # the host's name for this flow
        self.local = local
        self.remote = remote
        self.user = user
        self._settings = settings
        self.nodelay = settings.nodelay
        self.passive = False  # opened by the peer
        self._syn_repeats = 0  # how often our SYN was sent again
        self.state = CLOSED
        self.dirty = False  # in the host's set of connections to run `output` for

        # Send sequence variables, RFC 9293 §3.3.1.
        self.iss = iss
        self.snd_una = iss  # oldest unacknowledged number
        self.snd_nxt = iss  # next number to send
        self.snd_wnd = 0  # octets the peer has room for beyond snd_una
        self.snd_wl1 = 0  # sequence number of the segment of the last window update
        self.snd_wl2 = 0  # its acknowledgment number
        self.max_snd_wnd = 0  # largest window the peer ever offered
        self.snd_wscale = 0  # shift of the windows that the peer sends
        self.mss = DEFAULT_MSS  # octets of data in a full segment, options deducted
        self.unsent = 0  # octets queued and never sent
        self.notify_below = -1
        self._sendq = SendQueue(iss + 1)
        self._fin_seq = -1  # number of our FIN once the application has asked for it

        # Receive sequence variables.
        self.irs = 0
        self.rcv_nxt = 0  # next number expected
        self.rcv_adv = 0  # right edge of the window last offered
        self.scaling = settings.window_scaling  # both ends scale windows (RFC 7323 §2.2)
        self.rcv_wscale = settings.window_shift if settings.window_scaling else 0
        self.rcv_mss = DEFAULT_MSS  # our guess of the peer's segment size, for delayed ACKs
        self.reassembly = ReassemblyQueue()
        self._peer_fin = -1  # number of the peer's FIN, when seen
        self._paused = False
        self._held: list[bytes] = []  # in-order octets the application does not want yet
        self._held_octets = 0
        self._last_ack_sent = 0
        self._unacked = 0  # octets received since
        self.rcv_buffer = min(settings.receive_buffer, settings.receive_start)
        self._tune_at = 0.0  # when a round trip of receiving ends, to be measured by
        self._tune_from = 0  # rcv_nxt when it began
        self._unacked_since = 0.0
        self._ack_now = False
        self._quick_acks = QUICK_ACKS
        self._recent: list[int] = []  # one number of each island, last touched first
        self._dsack_out: sack.Block | None = None  # octets that came twice, to be reported

        # RFC 7323.
        self.ts_on = settings.timestamps
        self.ts_recent = 0  # the peer's timestamp to echo
        self.ts_recent_at = 0.0
        self._ts_offset = ts_offset

        # RFC 3168.
        self.ecn_on = False
        self._ece = False  # echo a congestion mark until the peer says that it has reduced
        self._cwr = False  # tell the peer with the next new data that we have
        self._cwr_end = -1  # reduce again only after this number is acknowledged

        self.retransmitted = 0  # segments sent again
        self.sack_on = settings.sack
        self.repair = Repair(settings.congestion, DEFAULT_MSS, settings.sack, host.counters)
        self.repair.probing = settings.tail_probe

        # Timers: absolute times, inf when disarmed.  Disarming is this write and nothing else.
        self._retransmit_at = inf  # RFC 6298, or the tail probe of RFC 8985 §7
        self._retransmit_is_probe = False
        self._reorder_at = inf  # RFC 8985 §6.3
        self._persist_at = inf  # RFC 9293 §3.8.6.1
        self.probes = 0
        self._delack_at = inf
        self._keepalive_at = inf
        self._keepalive_sent = 0
        self._shown = -1  # past the octet of the last probe that was taken back
        self._unanswered = 0  # window probes since the peer was last heard of
        self._end_at = inf  # FIN-WAIT-2 of an orphan
        self.heap_at = inf  # when the host will look at us
        self.last_heard = 0.0
        self.last_data_at = 0.0  # when octets came last, or the handshake was complete
        self.last_sent_at = 0.0
        self._challenged_at = -inf
        self._silent_since = 0.0  # when what is now timing out was first sent

        self._orphan = False  # the application has closed and wants to hear no more
        self._closed_told = False
        self._eof_told = False
        self._reset_pending = False
        self._error: Exception | None = None
        self._search: PathMtuSearch | None = None  # once the path turned out narrower
        self._straight = False  # the fast path may be taken

    def __lt__(self, other: Connection) -> bool:
        """Break ties in the host's heap, the same way on every machine."""
        return self.key < other.key

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
            if self.state == FIN_WAIT_2:
                self._end_at = self.last_heard + FIN_WAIT_2_LIMIT
                self._arm(self._end_at)
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

    @property
    def state_name(self) -> str:
        """The state as RFC 9293 writes it."""
        return NAMES[self.state]

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
        self._learn_syn(irs, options, window)
        self.rcv_adv = self.rcv_nxt + self._settings.first_window
        self._last_ack_sent = self.rcv_nxt
        self.last_heard = self.ts_recent_at = now
        self._arm_retransmit(now)

    def _learn_syn(self, irs: int, options: TcpOptions, window: int) -> None:
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
        limit = self.path.mtu - self.path.overhead - 20
        if settings.max_segment:
            limit = min(limit, settings.max_segment)
        self._set_mss(max(min(announced, limit), MIN_MSS))
        self.repair.start(self.mss, self.sack_on)

    def _set_mss(self, segment: int) -> None:
        """Set the data of a full segment, `segment` being what fits without options."""
        self.mss = segment - 12 if self.ts_on else segment
        self.rcv_mss = self.mss
        self.path.set_segment(self.mss)

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

    def _look_straight(self) -> None:
        """Decide whether the next segment may take the fast path."""
        self._straight = (
            self._settings.fast_path
            and self.state == ESTABLISHED
            and self.ts_on
            and self._peer_fin < 0
            and not self._paused
            and not self._held
            and not self._orphan
            and not self.reassembly.octets
            and self.repair.quiet(self.snd_una)
            and self._dsack_out is None
            and self._persist_at == inf
            and self._keepalive_sent == 0
            and (self._search is None or self._search.probe_start < 0)
        )

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
        if acceptable and self.ts_on and options.timestamp is not None and not flags & RST:
            age = (self._clock(now) - options.timestamp[1]) & MASK
            if age >= HALF:
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
        self._learn_syn(wire_seq, options, window)
        self.ts_recent_at = now
        self.ecn_on = self._settings.ecn_request and flags & (ECE | CWR) == ECE
        self.rcv_adv = self.rcv_nxt + self._settings.first_window
        if acceptable:
            self._take_acknowledgment(now, ack, options)
            self._become(ESTABLISHED, now)
            self._ack_now = True
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
        # RFC 7323 §4.3: the echo comes from the segment that covers the last ACK sent.
        if (
            self.ts_on
            and options.timestamp is not None
            and seq <= self._last_ack_sent
            and (options.timestamp[0] - self.ts_recent) & MASK < HALF
        ):
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
            self.snd_wnd = wnd
            self.snd_wl1 = seq
            self.snd_wl2 = ack
            if wnd > self.max_snd_wnd:
                self.max_snd_wnd = wnd
            if wnd and self._persist_at < inf:
                self._persist_at = inf
                if self.probes and ack == self.snd_una == self.snd_nxt - 1 < self._sendq.end:
                    # The probe was refused: its octet leaves anew, with those behind it.
                    self.repair.flight.records.pop()
                    self._shown = self.snd_nxt
                    self.snd_nxt = ack
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
            self._ece = True
            self._ack_now = True

    def _ecn_flags(self, now: float, flags: int, out: int) -> None:
        """Answer the peer's echo of a mark, once per window (RFC 3168 §6.1.2, §6.1.3).

        `out` octets were outstanding when it came.
        """
        if flags & CWR:
            self._ece = False
        if flags & ECE and self.snd_una > self._cwr_end:
            self._cwr_end = self.snd_nxt
            self._cwr = True
            self.repair.marked(now, out)

    # -- seventh and eighth

    def _text(self, now: float, seq: int, payload: bytes) -> None:
        """RFC 9293 §3.10.7.4, seventh: octets to the application, or to the reassembly queue."""
        if self.state not in _RECEIVING:
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
            if self._orphan:
                # RFC 9293 §3.6, figure 5 has no way out of FIN-WAIT-2 when the peer never closes;
                # Linux's fin_timeout gives one when nobody could read what comes.
                self._end_at = now + FIN_WAIT_2_LIMIT
                self._arm(self._end_at)
        elif state == CLOSING:
            self._enter_time_wait(now)
        elif state == LAST_ACK:
            self._finish(None)

    # ------------------------------------------------------------------ state and upcalls

    def _become(self, state: int, now: float) -> None:
        """Assign the state; every change goes through here and is checked against the table."""
        if (self.state, state) not in ALLOWED:
            raise AssertionError(f"no transition from {NAMES[self.state]} to {NAMES[state]}")
        self.state = state
        self._straight = False

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

    def _tell_eof(self) -> None:
        if not self._eof_told and not self._orphan:
            self._eof_told = True
            self.user.tcp_eof()

    def _tell_closed(self, error: Exception | None) -> None:
        if not self._closed_told:
            self._closed_told = True
            self._orphan = True
            self.user.tcp_closed(error)

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

    def _finish(self, error: Exception | None) -> None:
        """Go to CLOSED at once, for this reason."""
        if self.state == CLOSED:
            return
        self._become(CLOSED, 0.0)
        self._disarm()
        self.reassembly.clear()
        self.unsent = 0
        self.host.release(self)
        if self._held and error is None and not self._orphan:
            return  # both streams ended well: what the application has not read yet is its own
        self._held.clear()
        self._held_octets = 0
        self._tell_closed(error)

    def _disarm(self) -> None:
        self._retransmit_at = self._reorder_at = self._persist_at = inf
        self._delack_at = self._keepalive_at = self._end_at = inf

    # ------------------------------------------------------------------ output

    def output(self, now: float) -> None:
        """Send whatever may be sent now; called once per turn for a connection that was touched."""
        self.dirty = False
        if self.state == CLOSED:
            if self._held and not self._paused:
                self._release_held(now)
            return
        if self._reset_pending:
            self._send_reset(self.snd_nxt & MASK, now)
            self._finish(self._error)
            return
        if self._held and not self._paused:
            self._release_held(now)
        state: int = self.state
        if state in (CLOSED, TIME_WAIT):
            return
        if state <= SYN_RECEIVED:
            self._send_syn(now)
            return
        if self.repair.flight.lost:
            self._retransmit(now)
        more = True
        while more:
            if self.unsent <= self.notify_below:
                self.notify_below = -1
                self.user.tcp_writable()
            more = (self.unsent > 0 or self._fin_seq == self.snd_nxt) and self._send_new(now)
        if self._orphan and self._fin_seq >= 0 and self.snd_nxt > self._fin_seq:
            self._tell_closed(None)
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
        if self.snd_nxt > self.iss and not flight.lost:
            if self._ack_now and self.state == SYN_RECEIVED:
                self._send_ack(now)
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
        window = settings.first_window
        head = self.path.head(
            self.iss & MASK,
            self.rcv_nxt & MASK if passive else 0,
            self._syn_flags(passive),
            window,
            options,
            0,
        )
        if not self.host.transmit(self.path, head, b""):
            self.host.touch(self)
            return
        self._ack_now = False
        self.host.counters.tcp_out += 1
        if passive:
            self.rcv_adv = max(self.rcv_adv, self.rcv_nxt + window)
            self._last_ack_sent = self.rcv_nxt
        if self.snd_nxt == self.iss:
            self.snd_nxt = self.iss + 1
            self.repair.sent_new(self.iss, self.snd_nxt, now)
        else:
            self.host.counters.tcp_syn_retransmitted += 1
            self._syn_repeats += 1
            flight.sent_again(flight.records[0], 1, now)
        self.last_sent_at = now
        self._arm_retransmit(now)

    def _syn_flags(self, passive: bool) -> int:
        """RFC 3168 §6.1.1: ECN is offered by ECE and CWR together, taken up by ECE alone."""
        if passive:
            return SYN | ACK | (ECE if self.ecn_on else 0)
        # §6.1.1.1: a SYN that got no answer is repeated without.
        offer = self._settings.ecn_request and self.snd_nxt == self.iss
        return SYN | ECE | CWR if offer else SYN

    def _send_new(self, now: float) -> bool:
        """Send one (super-)segment of new data, or the FIN; False when nothing may leave."""
        nxt, unsent = self.snd_nxt, self.unsent
        probe = self._path_probe(now) if self._search is not None else 0
        length = probe or self._sendable(now)
        carries_fin = self._fin_seq >= 0 and length == unsent
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
            self._straight = False
        self.unsent = unsent - length
        end = nxt + length
        if carries_fin:
            end += 1
            self._become(LAST_ACK if self.state == CLOSE_WAIT else FIN_WAIT_1, now)
        self.snd_nxt = end
        self.repair.sent_new(nxt, end, now)
        self.last_sent_at = now
        self._persist_at = inf
        self._arm_retransmit(now)
        return True

    @property
    def _option_octets(self) -> int:
        return 12 if self.ts_on else 0

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
            self._set_mss(search.arrived())
            self.repair.raise_mss(self.mss)
            self.host.counters.tcp_path_mtu_raised += 1

    def _sendable(self, now: float) -> int:
        """Return how many octets of new data may leave as one segment now; -1: wait."""
        una, nxt, mss, unsent = self.snd_una, self.snd_nxt, self.mss, self.unsent
        repair = self.repair
        outstanding = nxt - una
        idle = outstanding == 0 and now - self.last_sent_at > repair.rtt.rto and self.last_sent_at
        if idle and self._settings.slow_start_after_idle:
            # RFC 5681 §4.1: after an idle period the window is an old guess.
            repair.cc.idle(int((now - self.last_sent_at) / repair.rtt.rto))
        allowed = repair.allowed(outstanding)  # by the network
        room = min(una + self.snd_wnd - nxt, allowed)  # and by the peer
        # Nagle: a small segment waits while anything is unacknowledged (RFC 9293 §3.7.4).
        waits = outstanding > 0 and not self.nodelay and self._fin_seq < 0
        if unsent <= mss and unsent <= room:
            return -1 if waits and unsent < mss else unsent
        length = min(unsent, room, self._burst())
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
            self._straight = False

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
                (int(now * 1000.0) + self._ts_offset) & MASK,
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
            return False
        self.host.counters.tcp_out += 1
        self._ack_sent(now)
        return True

    def _mark(self, start: int, length: int, flags: int) -> int:
        """Set ECN-capable transport and the ECN flags as RFC 3168 §6.1 has them."""
        # §6.1.4, §6.1.5: not on pure ACKs, retransmissions and window probes.
        new = bool(length) and start == self.snd_nxt and self.snd_wnd > 0
        self.path.set_ect(new)
        if self._ece:
            flags |= ECE
        if new and self._cwr:
            self._cwr = False
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
        if self._transmit(self.snd_nxt, 0, ACK, now):
            self._ack_now = False

    def _bare_options(self, now: float) -> bytes:
        return build_options((self._clock(now), self.ts_recent) if self.ts_on else None)

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

    def _send_reset(self, wire_seq: int, now: float) -> None:
        """Send a RST with this sequence number (RFC 9293 §3.5.2, §3.10.7)."""
        if self.state == SYN_SENT:
            head = self.path.head(wire_seq, 0, RST, 0, b"", 0)
        else:
            # RFC 7323 §3.2: a RST SHOULD carry the timestamp too.
            options = self._bare_options(now)
            head = self.path.head(wire_seq, self.rcv_nxt & MASK, RST | ACK, 0, options, 0)
        self.host.transmit(self.path, head, b"")
        self.host.counters.tcp_resets_out += 1

    # ------------------------------------------------------------------ timers

    def _clock(self, now: float) -> int:
        """Our timestamp clock: milliseconds, from a secret start (RFC 7323 §4.1, §7.1)."""
        return (int(now * 1000.0) + self._ts_offset) & MASK

    def _arm(self, at: float) -> None:
        if at < self.heap_at:
            self.heap_at = at
            self.host.schedule(self, at)

    def _arm_retransmit(self, now: float) -> None:
        """Start the retransmission timer, or the tail probe's when that comes first."""
        at, self._retransmit_is_probe = self.repair.timer(now, self.snd_nxt - self.snd_una)
        self._retransmit_at = at
        if at < self.heap_at:
            self.heap_at = at
            self.host.schedule(self, at)

    def next_deadline(self) -> float:
        """When the earliest armed timer expires; inf when none is armed."""
        return min(
            self._retransmit_at,
            self._reorder_at,
            self._persist_at,
            self._delack_at,
            self._keepalive_at,
            self._end_at,
        )

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
        if rtt.backoffs == 0 and flight.records:
            self._silent_since = flight.records[0].sent_at
        waited = now - self._silent_since
        if rtt.backoffs >= (SYN_RETRIES if opening else DATA_RETRIES) or (
            patience and waited >= patience
        ):
            # RFC 9293 §3.8.3, R2: give up.
            self._finish(TimeoutError(110, "Connection timed out"))
            return
        if opening:
            rtt.back_off()
            flight.mark_all_lost()
            return
        if self._search is not None and self._search.probe_start >= 0:
            self._search.lost(now)
        elif rtt.backoffs + 1 >= BLACK_HOLE_TIMEOUTS:
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
            high = self._search.high if self._search is not None else segment
            self._search = PathMtuSearch(smaller, high, now)
            self._set_mss(smaller)
            self.repair.set_mss(self.mss, self.snd_nxt)

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
        self._retransmit_at = now + self.repair.rtt.rto
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
            or (patience and now - self.last_heard >= patience)
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
                self.snd_nxt = nxt + length
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
        elif self.state > SYN_RECEIVED and segment < current:
            self.host.counters.tcp_path_mtu_reduced += 1
            # RFC 1191 §6.3: after a while something larger is tried again.
            self._search = PathMtuSearch(segment, search.high if search else current, now)
            self.path.mtu = mtu
            self._set_mss(segment)
            self.repair.set_mss(self.mss, self.snd_nxt)
            self._straight = False
            self.host.touch(self)

    def memory(self) -> int:
        """Octets that this connection makes the host keep, both ways."""
        return len(self._sendq) + self.reassembly.octets + self._held_octets

    def shed(self, now: float) -> None:
        """Give everything up: the host needs the memory more than this peer its connection."""
        self.host.counters.tcp_memory_shed += 1
        self._send_reset(self.snd_nxt & MASK, now)
        self._finish(ConnectionAbortedError(103, "given up for want of memory"))

    def covers(self, wire_seq: int) -> bool:
        """Tell whether `wire_seq` is the number of something outstanding (RFC 5927 §4)."""
        return self.snd_una <= unwrap(wire_seq, self.snd_una) < self.snd_nxt
