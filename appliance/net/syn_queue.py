"""LISTEN, and connections whose handshake is not complete.

A SYN costs its sender one packet, so it must cost us little: a half-open connection is a record
of what its SYN said, not a `Connection`.  The record answers with SYN,ACK, sends that again when
no answer comes, and turns into a connection when the ACK does.  The queue is bounded; beyond its
bound SYNs are answered by cookies (`syn_cookie`), which remember nothing (RFC 4987 §3.6).

It imports the leaves, `wire` and the path's interface.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol

from appliance.net import syn_cookie
from appliance.net.counters import Counters
from appliance.net.fast_open import OpenQueue
from appliance.net.path import TcpPath
from appliance.net.seq import HALF, MASK, unwrap
from appliance.net.tcb import TcpSettings, TcpUser
from appliance.net.tcp import CHALLENGE_INTERVAL, Connection
from appliance.net.wire.tcp import (
    ACK,
    CWR,
    ECE,
    RST,
    SYN,
    TcpOptions,
    build_options,
    build_syn_options,
    parse_options,
)

SYN_ACK_RETRIES: Final = 5  # Linux's tcp_synack_retries: given up after 63 s
FIRST_TIMEOUT: Final = 1.0  # seconds; RFC 6298 §2.1


@dataclass(eq=False, slots=True)
class Listener:
    """A passive open: who is told of connections to one address ("" for any) and port."""

    address: str
    port: int
    accept: Callable[[Connection], TcpUser]
    backlog: int  # half-open connections at most
    settings: TcpSettings
    _close: Callable[[Listener], None]
    half_open: int = 0
    opens: OpenQueue = field(default_factory=OpenQueue)  # RFC 7413 §5.1

    def close(self) -> None:
        """Accept no more; connections that exist live on."""
        self._close(self)


class SynHost(Protocol):
    """What a half-open connection asks of its host."""

    counters: Counters

    def promote(self, half: HalfOpen, now: float) -> Connection | None:
        """Replace the record with a connection; None when there is no room for one."""

    def drop_half_open(self, half: HalfOpen) -> None:
        """Forget the record."""

    def emit(self, path: TcpPath, head: bytes) -> None:
        """Send a segment without data."""


class HalfOpen:
    """One connection in SYN-RECEIVED that the peer opened."""

    __slots__ = (
        "challenged_at",
        "due_at",
        "ecn",
        "fast_open",
        "host",
        "irs",
        "iss",
        "key",
        "listener",
        "options",
        "path",
        "repeated",
        "retries",
        "sent_at",
        "ts_offset",
        "waiting",
        "window",
    )

    def __init__(
        self,
        host: SynHost,
        listener: Listener,
        path: TcpPath,
        key: bytes,
        irs: int,
        iss: int,
        window: int,
        options: TcpOptions,
        ts_offset: int,
        ecn: bool,
    ) -> None:
        self.host = host
        self.ecn = ecn  # RFC 3168 §6.1.1: both ends will mark and answer marks
        self.listener = listener
        self.path = path
        self.key = key
        self.irs = irs
        self.iss = iss
        self.window = window
        self.options = options
        self.ts_offset = ts_offset
        self.retries = 0
        self.repeated = False  # our SYN,ACK was sent more than once: it measures nothing
        self.challenged_at = -inf
        self.sent_at = 0.0
        self.due_at = 0.0
        self.waiting = False  # it stands in the queue
        self.fast_open = b""  # option of the SYN,ACK that gives a cookie (RFC 7413 §4.2.1)

    def send_syn_ack(self, now: float, cookie: bool = False) -> None:
        """Send SYN,ACK and set when to send it again (RFC 9293 §3.10.7.2, RFC 6298 §5).

        `cookie`: this record is about to be forgotten, its timestamp must remember its options.
        """
        settings = self.listener.settings
        options = self.options
        limit = self.path.mtu - self.path.overhead - 20
        stamp = None
        if settings.timestamps and options.timestamp is not None:
            clock = (int(now * 1000.0) + self.ts_offset) & MASK
            if cookie:
                clock = syn_cookie.timestamp(clock, options)
            stamp = (clock, options.timestamp[0])
        elif cookie:
            # Nothing would carry them: the connection does without.
            options = TcpOptions(mss=options.mss)
        scaling = settings.window_scaling and options.window_scale is not None
        head = self.path.head(
            self.iss & MASK,
            (self.irs + 1) & MASK,
            SYN | ACK | (ECE if self.ecn else 0),
            settings.first_window,
            build_syn_options(
                min(settings.max_segment or limit, limit),
                settings.window_shift if scaling else None,
                settings.sack and options.sack_permitted,
                stamp,
            )
            + self.fast_open,
            0,
        )
        self.host.emit(self.path, head)
        self.sent_at = now
        self.due_at = now + FIRST_TIMEOUT * (1 << self.retries)

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
        """RFC 9293 §3.10.7.4 for SYN-RECEIVED, up to the acceptable ACK."""
        flags = offset_flags & 0xFF
        nxt = self.irs + 1
        seq = unwrap(wire_seq, nxt)
        counters = self.host.counters
        options = parse_options(frame, options_at, payload_at)
        if flags & SYN and seq == self.irs and not flags & (ACK | RST):
            # Our SYN,ACK was lost, or is late.
            if flags & (ECE | CWR) != ECE | CWR:
                self.ecn = False  # RFC 3168 §6.1.1: it has given ECN up for this connection
            counters.tcp_syn_retransmitted += 1
            due_at = self.due_at
            self.send_syn_ack(now)
            self.due_at = due_at  # who repeats a SYN does not keep its place for longer
            self.repeated = True
            return
        stamp = options.timestamp
        agreed = self.options.timestamp if self.listener.settings.timestamps else None
        if agreed is not None and stamp is None and not flags & RST:
            # Deviates from RFC 7323 §3.2 (SHOULD drop); why is said in tcp.py.
            counters.tcp_missing_timestamp += 1
        if (
            not flags & RST
            and stamp is not None
            and agreed is not None
            and (stamp[0] - agreed[0]) & MASK >= HALF
        ):
            counters.tcp_paws_dropped += 1
            self._acknowledge(now)
            return
        edge = nxt + self.listener.settings.first_window
        length = end - payload_at
        if not (nxt <= seq < edge or (length and seq < nxt < seq + length)):
            counters.tcp_out_of_window += 1
            if not flags & RST:
                self._acknowledge(now)
            return
        if flags & RST:
            # RFC 9293 §3.10.7.4, second: back to LISTEN, without a word (RFC 5961 §3.2).
            if seq == nxt:
                counters.tcp_resets_in += 1
                self.host.drop_half_open(self)
            else:
                self._acknowledge(now)
            return
        if flags & SYN:
            self._acknowledge(now)
            return
        if not flags & ACK:
            counters.tcp_no_ack_flag += 1
            return
        if wire_ack != (self.iss + 1) & MASK:
            # RFC 9293 §3.10.7.4, fifth: <SEQ=SEG.ACK><CTL=RST>.
            self.host.emit(self.path, self.path.head(wire_ack, 0, RST, 0, b"", 0))
            counters.tcp_resets_out += 1
            return
        connection = self.host.promote(self, now)
        if connection is not None:
            connection.segment_arrives(
                now, wire_seq, wire_ack, offset_flags, window, frame, options_at, payload_at, end
            )

    def _acknowledge(self, now: float) -> None:
        """Challenge a segment that cannot be right, twice a second at most (RFC 5961 §7)."""
        if now - self.challenged_at < CHALLENGE_INTERVAL:
            self.host.counters.tcp_challenge_throttled += 1
            return
        self.challenged_at = now
        self.host.counters.tcp_challenge_acks += 1
        agreed = self.options.timestamp if self.listener.settings.timestamps else None
        stamp = None
        if agreed is not None:
            # RFC 7323 §3.2: every segment but a RST carries it.
            stamp = ((int(now * 1000.0) + self.ts_offset) & MASK, agreed[0])
        settings = self.listener.settings
        scaling = settings.window_scaling and self.options.window_scale is not None
        window = settings.first_window >> (settings.window_shift if scaling else 0)
        seq, ack = (self.iss + 1) & MASK, (self.irs + 1) & MASK
        self.host.emit(self.path, self.path.head(seq, ack, ACK, window, build_options(stamp), 0))


class SynQueue:
    """The half-open connections of all listeners of a host, by when each is due (RFC 4987 §2).

    Timeouts double, so those that wait for the same one stand in the order in which they began to:
    a row for each needs no sorting.  Whoever has left stays in its row until its time.
    """

    def __init__(self, limit: int, counters: Counters) -> None:
        self.count = 0
        self.limit = limit
        self._counters = counters
        self._rows: list[deque[tuple[float, HalfOpen]]] = [
            deque() for _ in range(SYN_ACK_RETRIES + 1)
        ]  # by how often the SYN,ACK was sent again
        self._due_at = inf  # when the first of any row is due

    def is_full(self, listener: Listener) -> bool:
        """Tell whether one more would be too many, here or at `listener`."""
        return self.count >= self.limit or listener.half_open >= listener.backlog

    def add(self, half: HalfOpen) -> None:
        """Wait for the answer to the SYN,ACK that `half` has sent."""
        half.waiting = True
        half.listener.half_open += 1
        self.count += 1
        self._push(half)

    def drop(self, half: HalfOpen) -> bool:
        """Wait no more; False when nobody did."""
        if not half.waiting:
            return False
        half.waiting = False
        half.listener.half_open -= 1
        self.count -= 1
        return True

    def of(self, listener: Listener) -> list[HalfOpen]:
        """Return those that a listener waits for."""
        return [
            half
            for row in self._rows
            for _, half in row
            if half.waiting and half.listener is listener
        ]

    def _push(self, half: HalfOpen) -> None:
        row = self._rows[half.retries]
        row.append((half.due_at, half))
        if half.due_at < self._due_at:
            self._due_at = half.due_at
        if len(row) > 4 * self.limit:
            # A busy server's handshakes are complete long before they are due.
            self._rows[half.retries] = deque(entry for entry in row if entry[1].waiting)

    def run(self, now: float) -> None:
        """Send the SYN,ACKs again that are due, and give up on those that were sent often."""
        if now < self._due_at:
            return
        self._due_at = inf
        for row in self._rows:
            # Nobody is woken up for those that have left.
            while row and (row[0][0] <= now or not row[0][1].waiting):
                half = row.popleft()[1]
                if half.waiting:
                    self._repeat(half, now)
            if row and row[0][0] < self._due_at:
                self._due_at = row[0][0]

    def _repeat(self, half: HalfOpen, now: float) -> None:
        half.retries += 1
        half.repeated = True
        if half.retries > SYN_ACK_RETRIES:
            half.host.drop_half_open(half)
            return
        self._counters.tcp_syn_retransmitted += 1
        half.send_syn_ack(now)
        self._push(half)

    def deadline(self) -> float:
        """When `run` has something to do; inf: never."""
        return self._due_at
