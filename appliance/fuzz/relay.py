"""A bad link in real time: between a host of ours and whatever interface it is on.

The kernel's TCP at the other end of a tap meets the same faults, drawn from the same seed, as a
simulated peer does. What comes from the interface and what goes to it passes a `Direction` each;
the event loop's clock says when it arrives. Segments are cut and summed before they are harmed, so
that a lost frame is a lost packet; the kernel's side has to have its offloads switched off for the
same reason. Imports asyncio and `link`.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections import deque
from collections.abc import Callable
from typing import Final

from appliance.fuzz.link import Direction, Link
from appliance.net.vif.base import Vif

BATCH: Final = 64
"""Frames read from the interface at a time."""
INBOX: Final = 4096
"""Frames that wait to be read by the host; beyond, they are lost, as in a card's ring."""


class Relay:
    """An interface behind a bad link; a `Vif` for a host that runs on `loop`.

    `to_us` is the way from the interface to the host, `from_us` the way back.
    """

    def __init__(
        self,
        inner: Vif,
        *,
        to_us: Link,
        from_us: Link,
        seed: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.name = f"{inner.name} behind a bad link"
        self.mac = inner.mac
        self.mtu = inner.mtu
        self.gso_max = 0
        self.checksum_offload = False
        self.udp_segments = 0
        self.on_readable: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.refused = 0
        """Frames for which the interface, or our inbox, had no room."""
        self._inner = inner
        self._loop = loop
        self._inbox: deque[bytes] = deque()
        random = random_module.Random(seed)
        now = loop.time()
        self.to_us = Direction(to_us, random, self._arrive_at, self._leave, since=now, mac=self.mac)
        self.from_us = Direction(
            from_us, random, self._leave_at, self._arrive, since=now, mac=self.mac
        )
        self._fd = inner.fileno()
        if self._fd >= 0:
            loop.add_reader(self._fd, self._readable)
        else:
            inner.on_readable = self._readable

    def fileno(self) -> int:
        """Always -1: frames come when they are due, not when the interface has them."""
        return -1

    def receive(self, limit: int) -> list[bytes]:
        """Up to `limit` frames that have arrived."""
        inbox = self._inbox
        return [inbox.popleft() for _ in range(min(limit, len(inbox)))]

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        """Put head + payload on the link; it is always taken, and maybe lost."""
        self.from_us.admit(head + payload if payload else head, self._loop.time())
        return True

    def close(self) -> None:
        """Close the interface; what is under way is lost."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._fd = -1
        self._inner.close()

    def _readable(self) -> None:
        while frames := self._inner.receive(BATCH):
            for frame in frames:
                self.to_us.admit(frame, self._loop.time())

    def _arrive_at(self, due: float, frame: bytes) -> None:
        self._loop.call_at(due, self._arrive, frame)

    def _leave_at(self, due: float, frame: bytes) -> None:
        self._loop.call_at(due, self._leave, frame)

    def _arrive(self, frame: bytes) -> None:
        if len(self._inbox) >= INBOX:
            self.refused += 1
            return
        self._inbox.append(frame)
        if len(self._inbox) == 1 and self.on_readable is not None:
            self.on_readable()

    def _leave(self, frame: bytes) -> None:
        if not self._inner.send(frame):
            self.refused += 1
