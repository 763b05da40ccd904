"""A bad wire between two interfaces, in virtual time.

`Wire` takes the frames that each of two interfaces has received and sends them out of the other:
late, out of order, twice, damaged, or not at all, by a seeded random source, so that a run can be
repeated. It does no waiting: `advance(now)` moves what is due, `deadline()` tells when to call
again, and `now` is whatever the caller calls time.

    stack A - end | Wire | end - stack B        impaired_pair() makes the ends and the wire

A damaged frame has one bit flipped in its IP packet, which the Internet checksum always notices,
since sums that differ by a power of two differ; unfinished checksums are finished first, so there
is something to notice with. Where nothing could notice (ARP, UDP without a checksum) a frame is
lost instead, as a card that checks Ethernet's own sequence would lose it. Imports `vif.pair`,
`vif.offload` and `wire`.
"""

from __future__ import annotations

import math
import random as random_module
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from appliance.net.errors import WireError
from appliance.net.vif.base import Vif
from appliance.net.vif.offload import ETHERTYPE_AT, NETWORK_AT, finish_checksum
from appliance.net.vif.pair import CAPACITY, PairEnd, pair
from appliance.net.wire import ethernet, ipv4
from appliance.net.wire.virtio import PLAIN, VNET_HDR_LEN

BATCH: Final = 64
"""Frames taken from an interface at a time."""
QUEUE: Final = 1 << 24
"""Octets waiting to leave at the wire's rate before more are dropped."""

# Where UDP's checksum stands behind an IPv4 header without options, in octets.
_UDP_CHECKSUM_AT: Final = NETWORK_AT + ipv4.HEADER_LEN + 6


@dataclass(frozen=True, kw_only=True)
class Impairment:
    """What one direction of a wire does to frames; chances are per frame, from 0 to 1."""

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    """A bit is flipped."""
    reorder: float = 0.0
    """The frame is held back by `reorder_by`, and others overtake it."""
    delay: float = 0.0
    """Seconds from one end to the other."""
    jitter: float = 0.0
    """Seconds: up to this much more, never so that frames change their order."""
    reorder_by: float = 0.01
    """Seconds."""
    rate: float = math.inf
    """Bits per second of Ethernet frame."""
    queue: int = QUEUE
    """Octets that may wait to be sent at `rate`; more are dropped."""


class WireCounters:
    """What one direction did; plain ints."""

    __slots__ = (
        "corrupted",
        "delivered",
        "duplicated",
        "lost",
        "overflowed",
        "refused",
        "reordered",
    )

    def __init__(self) -> None:
        self.corrupted = 0
        self.delivered = 0
        """Frames that the interface at the end took."""
        self.duplicated = 0
        self.lost = 0
        self.overflowed = 0
        """Frames that found the queue of a slow wire full."""
        self.refused = 0
        """Frames that the interface at the end had no room for."""
        self.reordered = 0


class _Direction:
    """One way through the wire: frames from `source`, into `sink`."""

    def __init__(
        self, source: Vif, sink: Vif, impairment: Impairment, random: random_module.Random
    ) -> None:
        self.impairment = impairment
        self.counters = WireCounters()
        self._source = source
        self._sink = sink
        self._random = random
        self._heap: list[tuple[float, int, bytes]] = []
        """(due in seconds, order of arrival, frame); bounded by `queue` and by delay times rate,
        or, without a rate, by what the stacks have in flight."""
        self._order = 0
        self._free_at = -math.inf
        """When the last octet accepted so far has left at `rate`, seconds."""
        self._last_due = -math.inf
        """Due time of the last frame that was not reordered, seconds."""
        self.waiting = False
        """`source` has frames."""
        source.on_readable = self._readable

    def deadline(self) -> float:
        if self.waiting:
            return -math.inf
        return self._heap[0][0] if self._heap else math.inf

    def advance(self, now: float) -> None:
        while frames := self._source.receive(BATCH):
            for frame in frames:
                self._accept(frame, now)
        self.waiting = False
        heap = self._heap
        while heap and heap[0][0] <= now:
            if self._sink.send(heappop(heap)[2]):
                self.counters.delivered += 1
            else:
                self.counters.refused += 1

    def _readable(self) -> None:
        self.waiting = True

    def _accept(self, frame: bytes, now: float) -> None:
        impairment, chance = self.impairment, self._random.random
        if chance() < impairment.loss:
            self.counters.lost += 1
            return
        self._schedule(frame, now)
        if chance() < impairment.duplicate:
            self.counters.duplicated += 1
            self._schedule(frame, now)

    def _schedule(self, frame: bytes, now: float) -> None:
        impairment, chance = self.impairment, self._random.random
        left_at = now
        if impairment.rate != math.inf:
            begin = max(now, self._free_at)
            if (begin - now) * impairment.rate > impairment.queue * 8:
                self.counters.overflowed += 1
                return
            left_at = self._free_at = begin + (len(frame) - VNET_HDR_LEN) * 8 / impairment.rate
        if chance() < impairment.corrupt:
            damaged = corrupted(frame, self._random)
            if damaged is None:
                self.counters.lost += 1
                return
            self.counters.corrupted += 1
            frame = damaged
        due = left_at + impairment.delay + impairment.jitter * chance()
        if chance() < impairment.reorder:
            self.counters.reordered += 1
            due += impairment.reorder_by
        else:
            due = self._last_due = max(due, self._last_due)
        self._order += 1
        heappush(self._heap, (due, self._order, frame))


def corrupted(frame: bytes, random: random_module.Random) -> bytes | None:
    """The frame with one bit of its IP packet flipped, its checksum finished and to be verified.

    None when no checksum covers the packet.
    """
    ethertype = int.from_bytes(frame[ETHERTYPE_AT : ETHERTYPE_AT + 2])
    if len(frame) <= NETWORK_AT or ethertype not in (
        ethernet.ETHERTYPE_IPV4,
        ethernet.ETHERTYPE_IPV6,
    ):
        return None
    try:
        frame = finish_checksum(frame)
    except WireError:
        return None
    if (
        ethertype == ethernet.ETHERTYPE_IPV4
        and frame[NETWORK_AT + 9] == ipv4.PROTO_UDP
        and frame[_UDP_CHECKSUM_AT : _UDP_CHECKSUM_AT + 2] == b"\0\0"
    ):
        return None
    at = random.randrange(NETWORK_AT, len(frame))
    flipped = bytes((frame[at] ^ 1 << random.randrange(8),))
    # PLAIN: neither "unfinished" nor "verified", so that the receiver looks.
    return b"".join((PLAIN, frame[VNET_HDR_LEN:at], flipped, frame[at + 1 :]))


class Wire:
    """Joins two interfaces, which it then owns the reading side of, by two impaired directions."""

    def __init__(
        self,
        left: Vif,
        right: Vif,
        *,
        random: random_module.Random,
        there: Impairment,
        back: Impairment | None = None,
    ) -> None:
        back = there if back is None else back
        self._there = _Direction(left, right, there, random)
        self._back = _Direction(right, left, back, random)
        self.there = self._there.counters
        self.back = self._back.counters

    def advance(self, now: float) -> None:
        """Take in what the interfaces have received, and deliver what is due at `now` (seconds)."""
        self._there.advance(now)
        self._back.advance(now)

    def deadline(self) -> float:
        """When `advance` has something to do: minus infinity at once, infinity when never."""
        return min(self._there.deadline(), self._back.deadline())

    def set_impairment(self, there: Impairment, back: Impairment | None = None) -> None:
        """Change what happens to frames from now on; those on their way stay as they are."""
        self._there.impairment = there
        self._back.impairment = there if back is None else back


def impaired_pair(
    *,
    random: random_module.Random,
    there: Impairment,
    back: Impairment | None = None,
    mtu: int = 1500,
    offload: bool = True,
    capacity: int = CAPACITY,
) -> tuple[PairEnd, PairEnd, Wire]:
    """The outer ends for two stacks, and the wire between them; see `pair` for the sizes."""
    left, inner_left = pair(mtu, offload, capacity, names=("left", "wire-left"))
    inner_right, right = pair(mtu, offload, capacity, names=("wire-right", "right"))
    return left, right, Wire(inner_left, inner_right, random=random, there=there, back=back)
