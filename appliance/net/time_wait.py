"""TIME-WAIT: what is remembered of a connection that is over (RFC 9293 §3.6.1).

The end that closed first keeps the pair of addresses and ports for twice a segment's lifetime, so
that a lost last ACK can be sent again and no old duplicate enters a new connection.  Nothing else
of the connection is needed for that, so a small record takes the place of the whole.

`TimeWaitQueue` keeps them in the order in which they end, and forgets the oldest at its bound.  It
imports `seq`, `wire` and the counters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from appliance.net.counters import Counters
from appliance.net.seq import HALF, MASK, unwrap
from appliance.net.wire.tcp import ACK, FIN, RST, SYN, build_options, parse_options

# Deviates from RFC 9293 §3.4.2 (MSL of two minutes) as Linux does: 2 MSL = 60 s.
TIME_WAIT_SECONDS: Final = 60.0


class TimeWaitHost(Protocol):
    """What the record asks of its host."""

    counters: Counters

    def answer(
        self, key: bytes, seq: int, ack: int, flags: int, window: int, options: bytes
    ) -> None:
        """Send a bare segment along the flow `key`."""

    def restart_time_wait(self, record: TimeWait, now: float) -> None:
        """Count the 2 MSL anew."""

    def reopen(self, record: TimeWait) -> bool:
        """Forget the record, a new connection being about to take its place (RFC 6191)."""

    def forget(self, record: TimeWait) -> None:
        """Forget the record."""


class TimeWait:
    """One pair of sockets in TIME-WAIT; numbers are unwrapped."""

    __slots__ = ("ends_at", "host", "key", "rcv_nxt", "snd_nxt", "ts_offset", "ts_recent", "window")

    def __init__(
        self,
        host: TimeWaitHost,
        key: bytes,
        snd_nxt: int,
        rcv_nxt: int,
        window: int,
        ts_recent: int,
        ts_offset: int,
    ) -> None:
        self.host = host
        self.key = key
        self.snd_nxt = snd_nxt
        self.rcv_nxt = rcv_nxt
        self.window = window  # the window field last sent
        self.ts_recent = ts_recent  # -1: the connection had no timestamps
        self.ts_offset = ts_offset
        self.ends_at = 0.0

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
    ) -> bool:
        """RFC 9293 §3.10.7.4 for TIME-WAIT; True: hand this SYN to a listener."""
        flags = offset_flags & 0xFF
        seq = unwrap(wire_seq, self.rcv_nxt)
        options = parse_options(frame, options_at, payload_at)
        stamp = options.timestamp
        newer = (
            stamp is not None
            and self.ts_recent >= 0
            and 0 < (stamp[0] - self.ts_recent) & MASK < HALF
        )
        if flags & RST:
            # RFC 5961 §3.2: the exact number only.  (RFC 1337 would ignore even that.)
            if seq == self.rcv_nxt:
                self.host.counters.tcp_resets_in += 1
                self.host.forget(self)
            return False
        old = stamp is not None and self.ts_recent >= 0 and not newer and stamp[0] != self.ts_recent
        if flags & SYN and not flags & ACK and not old and (newer or seq > self.rcv_nxt):
            # RFC 6191 §2, RFC 9293 §3.6.1 (MAY-2): surely a new incarnation.
            self.host.counters.tcp_time_wait_reused += 1
            return self.host.reopen(self)
        last = seq + (end - payload_at) + 1 == self.rcv_nxt  # its FIN would be the peer's FIN
        if flags & FIN and last and not old:
            # RFC 9293 §3.10.7.4, eighth: a FIN sent again restarts the 2 MSL timer.
            self.host.restart_time_wait(self, now)
        elif seq == self.rcv_nxt and payload_at == end and not flags & SYN:
            return False  # a bare acknowledgment of what we have said already
        options_out = b""
        if self.ts_recent >= 0:
            options_out = build_options(
                ((int(now * 1000.0) + self.ts_offset) & MASK, self.ts_recent)
            )
        self.host.answer(
            self.key, self.snd_nxt & MASK, self.rcv_nxt & MASK, ACK, self.window, options_out
        )
        return False


class TimeWaitQueue:
    """The records of a host, oldest first; those whose time was moved stand again further back."""

    def __init__(self, limit: int, counters: Counters, on_end: Callable[[TimeWait], None]) -> None:
        self.count = 0
        self._limit = limit
        self._counters = counters
        self._on_end = on_end  # takes the record from the table of flows
        self._queue: deque[tuple[float, TimeWait]] = deque()

    def add(self, record: TimeWait, now: float) -> None:
        """Keep `record` for 2 MSL; the oldest makes room for it."""
        while self.count >= self._limit and self._queue:
            at, oldest = self._queue.popleft()
            if oldest.ends_at == at:
                self._counters.tcp_time_wait_evicted += 1
                self.end(oldest)
        self.count += 1
        self.restart(record, now)

    def restart(self, record: TimeWait, now: float) -> None:
        """Count the 2 MSL from `now`."""
        if record.ends_at != now + TIME_WAIT_SECONDS:
            record.ends_at = now + TIME_WAIT_SECONDS
            self._queue.append((record.ends_at, record))
            # A peer that repeats its FIN moves its record each time: drop what is void.
            if len(self._queue) > 2 * self._limit:
                self._queue = deque(e for e in self._queue if e[1].ends_at == e[0])

    def end(self, record: TimeWait) -> None:
        """Forget `record`."""
        if record.ends_at:
            record.ends_at = 0.0
            self.count -= 1
            self._on_end(record)

    def run(self, now: float) -> None:
        """Forget what has waited long enough."""
        queue = self._queue
        while queue and queue[0][0] <= now:
            at, record = queue.popleft()
            if record.ends_at == at:
                self.end(record)

    def deadline(self) -> float:
        """When `run` has something to do; inf: never."""
        return self._queue[0][0] if self._queue else inf
