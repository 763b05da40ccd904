"""The transmission control block: what one end of a connection remembers (RFC 9293 §3.3.1).

    what was sent      SND.UNA  SND.NXT  SND.WND, the send queue, and what `repair` knows of it
    what was received  RCV.NXT  the window's right edge, the reassembly queue, what is to be said
    the timers         absolute times, which `tcp_timers` runs
    the state          of RFC 9293 §3.3.2; every change goes through `_become`

Three modules make a connection of it, each a class upon the one before: `tcp_output` sends,
`tcp_timers` acts when nothing came, and `tcp`, whose `Connection` is the whole, takes in segments
and the application's calls.  Here too is what a connection asks of its host (`TcpHost`) and tells
its application (`TcpUser`), and what either may choose (`TcpSettings`).

Numbers are unwrapped (see `seq`), times in seconds.  Nothing here sends or reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from appliance.net import sack
from appliance.net.counters import Counters
from appliance.net.fast_open import Opening
from appliance.net.path import IPV4_LEN, TcpPath
from appliance.net.plpmtud import PathMtuSearch
from appliance.net.reassembly import ReassemblyQueue
from appliance.net.repair import Repair
from appliance.net.sendq import SendQueue
from appliance.net.seq import MASK, unwrap
from appliance.net.tcp_state import CLOSED, ESTABLISHED, NAMES, STEPS
from appliance.net.wire.tcp import build_options

# Octets; RFC 9293 §3.7.1, when the peer's SYN names none (MUST-15): over IPv4, over IPv6.
DEFAULT_MSS: Final = 536
DEFAULT_MSS_IPV6: Final = 1220
MIN_MSS: Final = 88  # octets; Linux's TCP_MIN_MSS plus options: a peer may not ask for crumbs
SYN_RETRIES: Final = 6  # Linux's tcp_syn_retries: 127 s; RFC 9293 §3.8.3 (MUST-23): >= 3 min by
# timeouts that back off from 1 s comes to the same order; `user_timeout` overrides.
QUICK_ACKS: Final = 16  # segments acknowledged at once at the start, while the peer's window grows


def default_mss(path: TcpPath) -> int:
    """Return the MSS of a peer that names none: what every host takes (RFC 9293 §3.7.1)."""
    return DEFAULT_MSS if path.overhead == IPV4_LEN else DEFAULT_MSS_IPV6


def first_hop_mtu(path: TcpPath) -> int:
    """Return how many octets of packet the first link of a way carries; `path.mtu` may be less."""
    link = path.neighbor.cache.link
    mtu: int = link.mtu if path.overhead == IPV4_LEN else link.mtu6
    return mtu


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
    syn_retries: int = SYN_RETRIES  # how often our SYN is sent again (MUST-21, MUST-23)
    # RFC 7413.  At most so many connections from octets in a SYN, before the handshake is complete;
    # to connect: any number lets octets go with the SYN.  0: never (§6.1: they may arrive twice).
    fast_open: int = 0
    fast_open_cookies: bool = True  # False: neither end wants a cookie for it (RFC 7413 §7.3)
    fast_path: bool = True  # False: every segment takes the full path (tests compare the two)

    @property
    def window_shift(self) -> int:
        """The smallest shift that can express the receive buffer (RFC 7323 §2.2)."""
        return min((self.receive_buffer >> 16).bit_length(), 14)

    @property
    def first_window(self) -> int:
        """The window of our SYN, which is never scaled (RFC 7323 §2.2)."""
        offered = min(self.receive_buffer, self.receive_start)
        return min(offered, 0xFFFF)


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

    def schedule(self, connection: Tcb, at: float) -> None:
        """Call `connection.expire` at `at`."""

    def touch(self, connection: Tcb) -> None:
        """Call `connection.output` before the turn ends."""

    def established(self, connection: Tcb) -> None:
        """A connection completed its handshake."""

    def release(self, connection: Tcb) -> None:
        """The connection is CLOSED: forget it."""

    def enter_time_wait(self, connection: Tcb, now: float) -> None:
        """The connection is in TIME-WAIT: something smaller takes its place."""


class Tcb:
    """The record of one end of a connection."""

    __slots__ = (
        "_ack_now", "_challenged_at", "_closed_told", "_cwr_end", "_delack_at",
        "_dsack_out", "_ece", "_end_at", "_eof_told", "_error", "_expires_at", "_fin_seq",
        "_held", "_held_octets", "_keepalive_at", "_keepalive_sent", "_last_ack_sent", "_marked",
        "_orphan", "_paused", "_peer_fin", "_persist_at", "_quick_acks", "_recent",
        "_reorder_at", "_reset_pending", "_retransmit_at", "_retransmit_is_probe", "_search",
        "_sendq", "_settings", "_shown", "_silent_since", "_small_end", "_straight",
        "_syn_repeats", "_timeouts", "_tune_at", "_tune_from", "_unacked", "_unacked_since",
        "_unanswered", "dirty", "ecn_on", "fast", "heap_at", "host", "irs", "iss", "key",
        "last_data_at", "last_heard", "last_sent_at", "local", "max_snd_wnd", "mss", "nodelay",
        "notify_below", "passive", "path", "probes", "rcv_adv", "rcv_buffer", "rcv_mss",
        "rcv_nxt", "rcv_wscale", "reassembly", "remote", "repair", "retransmitted", "sack_on",
        "scaling", "snd_nxt", "snd_una", "snd_wl1", "snd_wl2", "snd_wnd", "snd_wscale",
        "state", "ts_offset", "ts_on", "ts_recent", "ts_recent_at", "unsent", "user",
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
        self.fast: Opening | None = None  # RFC 7413, at either end
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
        self._small_end = 0  # past the last segment of new data that was not full
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
        self.ts_offset = ts_offset

        # RFC 3168.
        self.ecn_on = False
        self._ece = False  # echo a congestion mark until the peer says that it has reduced
        self._marked = False  # a router has marked the segment that arrives now
        self._cwr_end = -1  # reduce again only after this number is acknowledged

        self.retransmitted = 0  # segments sent again
        self.sack_on = settings.sack
        self.repair = Repair(settings.congestion, DEFAULT_MSS, settings.sack, host.counters)
        self.repair.probing = settings.tail_probe

        # Timers: absolute times, inf when disarmed.  Disarming is this write and nothing else.
        self._retransmit_at = inf  # RFC 6298, or the tail probe of RFC 8985 §7
        self._retransmit_is_probe = False
        self._expires_at = inf  # the former, whichever of them is armed
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
        self._silent_since = 0.0  # when what is now timing out was first sent, or wanted to be
        self._timeouts = 0  # of the retransmission timer, since anything was acknowledged

        self._orphan = False  # the application has closed and wants to hear no more
        self._closed_told = False
        self._eof_told = False
        self._reset_pending = False
        self._error: Exception | None = None
        self._search: PathMtuSearch | None = None  # once the path turned out narrower
        self._straight = False  # the fast path may be taken

    def __lt__(self, other: Tcb) -> bool:
        """Break ties in the host's heap, the same way on every machine."""
        return self.key < other.key

    def output(self, now: float) -> None:
        """Send whatever may be sent now; called once per turn for a connection that was touched."""
        raise NotImplementedError

    def expire(self, now: float) -> None:
        """Run whichever timers are due (USER TIMEOUT, RETRANSMISSION TIMEOUT and kin, §3.10.8)."""
        raise NotImplementedError

    # ------------------------------------------------------------------ what is asked of it

    @property
    def state_name(self) -> str:
        """The state as RFC 9293 writes it."""
        return NAMES[self.state]

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

    def memory(self) -> int:
        """Octets that this connection makes the host keep, both ways."""
        return len(self._sendq) + self.reassembly.octets + self._held_octets

    def covers(self, wire_seq: int) -> bool:
        """Tell whether `wire_seq` is the number of something outstanding (RFC 5927 §4)."""
        return self.snd_una <= unwrap(wire_seq, self.snd_una) < self.snd_nxt

    # ------------------------------------------------------------------ the state

    def _become(self, state: int, now: float) -> None:
        """Assign the state; every change goes through here and is checked against the table."""
        if not STEPS[self.state] >> state & 1:
            raise AssertionError(f"no transition from {NAMES[self.state]} to {NAMES[state]}")
        self.state = state
        self._straight = False

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

    def _tell_eof(self) -> None:
        if not self._eof_told and not self._orphan:
            self._eof_told = True
            self.user.tcp_eof()

    def _tell_closed(self, error: Exception | None) -> None:
        if not self._closed_told:
            self._closed_told = True
            self._orphan = True
            self.user.tcp_closed(error)

    def _finish(self, error: Exception | None) -> None:
        """Go to CLOSED at once, for this reason."""
        if self.state == CLOSED:
            return
        self._become(CLOSED, 0.0)
        self._disarm()
        self.reassembly.clear()
        self.unsent = 0
        if self.fast is not None:
            self.fast.over(self.last_heard, was_reset=isinstance(error, ConnectionResetError))
        self.host.release(self)
        if self._held and error is None and not self._orphan:
            return  # both streams ended well: what the application has not read yet is its own
        self._tell_closed(error)
        self._held.clear()
        self._held_octets = 0

    def _disarm(self) -> None:
        self._retransmit_at = self._reorder_at = self._persist_at = inf
        self._delack_at = self._keepalive_at = self._end_at = inf

    # ------------------------------------------------------------------ small things of every kind

    def _set_mss(self, segment: int) -> None:
        """Set the data of a full segment, `segment` being what fits without options."""
        self.mss = segment - 12 if self.ts_on else segment
        self.rcv_mss = self.mss
        self.path.set_segment(self.mss)

    @property
    def _option_octets(self) -> int:
        return 12 if self.ts_on else 0

    def _bare_options(self, now: float) -> bytes:
        return build_options((self._clock(now), self.ts_recent) if self.ts_on else None)

    def _clock(self, now: float) -> int:
        """Our timestamp clock: milliseconds, from a secret start (RFC 7323 §4.1, §7.1)."""
        return (int(now * 1000.0) + self.ts_offset) & MASK

    def _arm(self, at: float) -> None:
        if at < self.heap_at:
            self.heap_at = at
            self.host.schedule(self, at)
