"""Ends of cables, in virtual time. Imports `link` and `net`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from appliance.fuzz.link import Direction
from appliance.net.vif.base import derived_mac
from appliance.net.wire.ipv4 import MAX_TOTAL_LEN

if TYPE_CHECKING:
    from appliance.fuzz.world import World

Watcher = Callable[[float, bool, bytes], None]
"""Called with the time, whether the station sent (or else received) it, and the frame."""


class Sink(Protocol):
    """What frames and wake-ups are for: an end of a cable, or whoever holds it."""

    inbox: list[bytes]

    def turn(self, now: float) -> None:
        """Do what there is to do at `now`."""


class Port:
    """One end of a cable; a `Vif` for a host."""

    def __init__(self, world: World, name: str, mtu: int, offload: bool) -> None:
        self.name = name
        self.mac = derived_mac(name)
        self.mtu = mtu
        self.gso_max = MAX_TOTAL_LEN if offload else 0
        self.checksum_offload = offload
        self.udp_segments = 0
        self.on_readable: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.out: Direction | None = None
        """None: no cable is plugged in."""
        self.watchers: list[Watcher] = []
        self.sink: Sink | None = None
        self._world = world
        self._waits = False  # a wake-up for a full queue is under way

    def fileno(self) -> int:
        """Always -1: nothing to poll."""
        return -1

    def receive(self, limit: int) -> list[bytes]:
        """Up to `limit` frames that have arrived."""
        if self.sink is None:
            return []
        inbox = self.sink.inbox
        taken = inbox[:limit]
        del inbox[:limit]
        return taken

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        """Put head + payload on the cable; False when it holds its senders up and is full."""
        frame = head + payload if payload else head
        out = self.out
        if out is None:
            return True
        now = self._world.now
        if not out.admit(frame, now):
            if not self._waits:
                self._waits = True
                self._world.at(out.writable_at(now), self._writable)
            return False
        for watcher in self.watchers:
            watcher(now, True, frame)
        return True

    def close(self) -> None:
        """Pull the cable."""
        self.out = None

    def _writable(self) -> None:
        self._waits = False
        if self.on_writable is not None:
            self.on_writable()
