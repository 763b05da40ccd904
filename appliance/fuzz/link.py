"""One direction of a link: when each frame arrives at the other end, in what shape, if at all.

    loss? -> too long for the link? -> room in the queue? -> duplicate, damage -> rate -> delay

`Link` says what a direction does, `Direction` does it: frames and `now` in, (due, frame) out, by a
random source that the caller gives. A frame's fate is drawn when it is handed in; the queue is a
number (when its last octet will have left), so a frame costs the same on a long queue as on none.

Super-segments are one frame here, as on a cable between cards that cut and join them. Imports
`damage` and `codel`.
"""

from __future__ import annotations

import math
import random as random_module
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from annotated_types import Ge, Interval, Le

from appliance.fuzz import damage
from appliance.fuzz.codel import CoDel
from appliance.net.vif.offload import NETWORK_AT
from appliance.net.wire.virtio import VNET_HDR_LEN

QUEUE: Final = 1 << 24
"""Octets waiting to leave at the link's rate before more are dropped."""

Chance = Annotated[float, Interval(ge=0.0, le=1.0)]
"""Per frame, from 0 (never) to 1 (always)."""
Seconds = Annotated[float, Ge(0.0), Le(1e6)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Burst:
    """Losses that come in bursts, after Gilbert (1960) and Elliott (1963).

    The link is good or bad, and may change with each frame.
    """

    begin: Chance = 0.01
    """Chance of a good link to turn bad."""
    end: Chance = 0.3
    """Chance of a bad link to turn good: bursts last 1 / `end` frames."""
    loss: Chance = 1.0
    """Chance of a frame to be lost while the link is bad."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """What one direction of a link does to frames."""

    delay: Seconds = 0.0
    """Seconds from one end to the other."""
    jitter: Seconds = 0.0
    """Seconds: up to this much more, never so that frames change their order."""
    rate: Annotated[float, Ge(100.0)] = math.inf
    """Bits per second of Ethernet frame."""
    queue: Annotated[int, Ge(0)] = QUEUE
    """Octets that may wait to be sent at `rate`."""
    discipline: Literal["tail", "codel"] = "tail"
    """What keeps the queue short: its end alone, or CoDel besides (RFC 8289)."""
    full: Literal["drop", "refuse"] = "drop"
    """A full queue loses the frame, or holds its sender up until half of it is free."""
    mark: bool = False
    """CoDel marks what is ECN-capable instead of dropping it (RFC 3168)."""
    mtu: Annotated[int, Ge(0)] = 0
    """Octets of the longest IP packet that passes; 0: as the interfaces have it."""
    signal: bool = True
    """Longer packets are told of by ICMP (RFC 1191); False: a black hole."""
    loss: Chance = 0.0
    burst: Burst | None = None
    duplicate: Chance = 0.0
    corrupt: Chance = 0.0
    """A bit is flipped."""
    truncate: Chance = 0.0
    """The end is missing."""
    pad: Chance = 0.0
    """Octets follow that do not belong to the packet."""
    reorder: Chance = 0.0
    """The frame is held back by `reorder_by`, and others overtake it."""
    reorder_by: Seconds = 0.01
    blackouts: tuple[tuple[Seconds, Seconds], ...] = ()
    """(from, to) in seconds since the link was made: nothing that is sent then arrives."""


COUNTS: Final = (
    "blacked_out", "corrupted", "delivered", "duplicated", "lost", "marked", "overflowed", "padded",
    "refused", "reordered", "too_big", "truncated",
)  # fmt: skip


class Counts:
    """What one direction did to frames; plain ints."""

    __slots__ = COUNTS

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin at nought."""
        for name in COUNTS:
            setattr(self, name, 0)

    blacked_out: int
    corrupted: int
    delivered: int
    """Frames, and second copies, that will arrive at the other end."""
    duplicated: int
    lost: int
    """By chance, or damaged where no checksum would have told."""
    marked: int
    overflowed: int
    """Frames that found the queue full, or that CoDel dropped."""
    padded: int
    refused: int
    """Frames that were not taken in, `full` being "refuse"; they are not lost."""
    reordered: int
    too_big: int
    truncated: int

    def as_dict(self) -> dict[str, int]:
        """Every count by name."""
        return {name: getattr(self, name) for name in COUNTS}


class Direction:
    """One way through a link.

    `deliver(due, frame)` is called for what arrives at the other end, `bounce(frame)` for what goes
    back to the sender at once. `since` is the time that blackouts count from, in seconds.
    """

    def __init__(
        self,
        link: Link,
        random: random_module.Random,
        deliver: Callable[[float, bytes], None],
        bounce: Callable[[bytes], None],
        *,
        since: float,
        mac: bytes,
    ) -> None:
        self.counts = Counts()
        self.since = since
        self._random = random
        self._deliver = deliver
        self._bounce = bounce
        self._mac = mac
        self._free_at = -math.inf  # when the last octet accepted so far has left, seconds
        self._last_due = -math.inf  # of the last frame that was not reordered, seconds
        self._bad = False  # the state of `burst`
        self._codel = CoDel()
        self.tamper: Callable[[bytes], list[bytes]] | None = None
        """What somebody on the cable makes of each frame."""
        self._link = link
        self._plain = False
        self.link = link

    @property
    def link(self) -> Link:
        """What happens to frames from now on; those on their way stay as they are."""
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        self._link = link
        # Links that need one draw and one addition per frame are most of all links.
        self._plain = link == Link(delay=link.delay, loss=link.loss, reorder_by=link.reorder_by)

    def admit(self, frame: bytes, now: float) -> bool:
        """Take a frame in at `now`; False: the queue is full, and nothing was taken."""
        if self.tamper is not None:
            for made in self.tamper(frame):
                self._take(made, now)
            return True
        return self._take(frame, now)

    def _take(self, frame: bytes, now: float) -> bool:
        link = self._link
        if self._plain:
            if link.loss and self._random.random() < link.loss:
                self.counts.lost += 1
                return True
            # What was sent before the link was changed is not overtaken.
            due = self._last_due = max(now + link.delay, self._last_due)
            self.counts.delivered += 1
            self._deliver(due, frame)
            return True
        if link.full == "refuse" and self._waiting(now) > link.queue:
            self.counts.refused += 1
            return False
        if self._passes(link, frame, now):
            self._schedule(frame, now)
            if link.duplicate and self._random.random() < link.duplicate:
                self.counts.duplicated += 1
                self._schedule(frame, now)
        return True

    def writable_at(self, now: float) -> float:
        """When half of the queue is free again, in seconds."""
        return max(now, self._free_at - self._link.queue * 4 / self._link.rate)

    def _waiting(self, now: float) -> float:
        """Octets that have not begun to leave."""
        return max(self._free_at - now, 0.0) * self._link.rate / 8 if self._free_at > now else 0.0

    def _passes(self, link: Link, frame: bytes, now: float) -> bool:
        """Tell whether a frame gets as far as the queue."""
        counts, chance = self.counts, self._random.random
        if link.blackouts and any(start <= now - self.since < end for start, end in link.blackouts):
            counts.blacked_out += 1
            return False
        lost = link.loss > 0.0 and chance() < link.loss
        burst = link.burst
        if burst is not None:
            if chance() < (burst.end if self._bad else burst.begin):
                self._bad = not self._bad
            lost |= self._bad and chance() < burst.loss
        if lost:
            counts.lost += 1
            return False
        if link.mtu and packet_length(frame) > link.mtu:
            counts.too_big += 1
            if link.signal and (answer := damage.too_big(frame, link.mtu, self._mac)) is not None:
                self._bounce(answer)
            return False
        return True

    def _schedule(self, frame: bytes, now: float) -> None:
        link, chance = self._link, self._random.random
        left_at = now
        if link.rate != math.inf:
            begin = max(now, self._free_at)
            if (begin - now) * link.rate > link.queue * 8:
                self.counts.overflowed += 1
                return
            if link.discipline == "codel" and self._codel.drops(begin, begin - now):
                marked = damage.marked(frame) if link.mark else None
                if marked is None:
                    self.counts.overflowed += 1
                    return
                self.counts.marked += 1
                frame = marked
            left_at = self._free_at = begin + (len(frame) - VNET_HDR_LEN) * 8 / link.rate
        damaged = self._damaged(frame) if link.corrupt or link.truncate or link.pad else frame
        if damaged is None:
            self.counts.lost += 1
            return
        due = left_at + link.delay + (link.jitter * chance() if link.jitter else 0.0)
        if link.reorder and chance() < link.reorder:
            self.counts.reordered += 1
            due += link.reorder_by
        else:
            due = self._last_due = max(due, self._last_due)
        self.counts.delivered += 1
        self._deliver(due, damaged)

    def _damaged(self, frame: bytes) -> bytes | None:
        """The frame as the link leaves it; None: lost, since nothing could notice the damage."""
        link, random, counts = self._link, self._random, self.counts
        damaged: bytes | None = frame
        if link.corrupt and random.random() < link.corrupt:
            damaged = damage.corrupted(frame, random)
            counts.corrupted += damaged is not None
        elif link.truncate and random.random() < link.truncate:
            damaged = damage.truncated(frame, random)
            counts.truncated += damaged is not None
        elif link.pad and random.random() < link.pad:
            damaged = damage.padded(frame, random) or frame
            counts.padded += damaged is not frame
        return damaged


def packet_length(frame: bytes) -> int:
    """Octets of the longest IP packet that a frame is, or will be cut into."""
    if frame[1]:  # virtio's gso_type: hdr_len at 2 counts from Ethernet, gso_size at 4
        head = int.from_bytes(frame[2:4], "little") - (NETWORK_AT - VNET_HDR_LEN)
        size = int.from_bytes(frame[4:6], "little")
        return min(head + size, len(frame) - NETWORK_AT)
    return len(frame) - NETWORK_AT
