"""Two interfaces back to back in memory: what leaves one arrives at the other.

With offload, super-segments cross whole and unfinished checksums cross unfinished: nothing between
the two ends could damage them. Without, the ends behave like a plain cable, and frames that still
need work are refused as a mistake of the caller (`vif.offload.equip` does that work).

The callbacks are called from inside `send` and `receive` of the other end, so they may only note
that something is to be done. Imports `wire` and the standard library.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from appliance.net.vif.base import derived_mac
from appliance.net.wire.ipv4 import MAX_TOTAL_LEN
from appliance.net.wire.virtio import GSO_NONE, NEEDS_CSUM

CAPACITY: Final = 1024
"""Frames in flight in one direction: sixteen batches of 64, so that a driver that reads once per
turn keeps up; the octets behind them are bounded by the TCP windows of both stacks."""


class PairEnd:
    """One end of a pair; a `Vif`."""

    def __init__(self, name: str, mac: bytes, mtu: int, offload: bool, capacity: int) -> None:
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.gso_max = MAX_TOTAL_LEN if offload else 0
        self.checksum_offload = offload
        self.udp_segments = 0
        self.on_readable: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self._peer = self
        """The other end; set by `pair`."""
        self._arrived: deque[bytes] = deque()
        """Frames for this end, oldest first; at most `capacity`."""
        self._capacity = capacity
        self._refused = False
        """`send` returned False, and `on_writable` has not been called since."""
        self._closed = False

    def fileno(self) -> int:
        """Always -1: nothing to poll."""
        return -1

    def receive(self, limit: int) -> list[bytes]:
        """Up to `limit` frames; never blocks."""
        arrived = self._arrived
        if len(arrived) <= limit:
            frames = list(arrived)
            arrived.clear()
        else:
            frames = [arrived.popleft() for _ in range(limit)]
        peer = self._peer
        # Half the queue must be free: otherwise a busy link would wake its sender for each frame.
        if peer._refused and len(arrived) * 2 <= self._capacity:
            peer._refused = False
            if peer.on_writable is not None:
                peer.on_writable()
        return frames

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        """Hand head + payload to the other end; False when its queue is full.

        ValueError for a frame that asks for offload on a pair that has none.
        """
        if not self.checksum_offload and (head[0] & NEEDS_CSUM or head[1] != GSO_NONE):
            raise ValueError(f"{self.name} has no offload; wrap it with offload.equip()")
        peer = self._peer
        if peer._closed or self._closed:
            return True
        arrived = peer._arrived
        if len(arrived) >= self._capacity:
            self._refused = True
            return False
        arrived.append(head + payload if payload else head)
        if len(arrived) == 1 and peer.on_readable is not None:
            peer.on_readable()
        return True

    def close(self) -> None:
        """Unplug this end: what is sent to it from now on is lost, as on a cut cable."""
        self._closed = True
        self._arrived.clear()
        self.on_readable = self.on_writable = None
        peer = self._peer
        if peer._refused:
            peer._refused = False
            if peer.on_writable is not None:
                peer.on_writable()


def pair(
    mtu: int = 1500,
    offload: bool = True,
    capacity: int = CAPACITY,
    *,
    names: tuple[str, str] = ("pair-a", "pair-b"),
) -> tuple[PairEnd, PairEnd]:
    """Two joined interfaces; `mtu` in octets of IP packet, `capacity` in frames each way."""
    left, right = (PairEnd(name, derived_mac(name), mtu, offload, capacity) for name in names)
    left._peer, right._peer = right, left
    return left, right
