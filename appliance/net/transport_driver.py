"""What turns the event loop's wake-ups into turns of a host.

A host does nothing by itself: it has no descriptor, no clock and no thread. The driver polls the
host's link, hands over what arrived in batches together with the time, keeps the one timer that the
host's deadlines need, and tells the host when a full link has room again. One wake-up is one
batch; a link with more to give waits until the loop's other descriptors had their turn.

A link that brings datagrams in numbers is left alone for a moment after each turn, so that the next
one is fuller; `transport_pause` says for how long.

The timer is lazy: a deadline that moves away (every acknowledgement moves one) costs a comparison,
because only an earlier deadline re-arms. A timer that fires early asks again.

No protocol work happens here. May import the host, the interfaces' protocol and asyncio.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from appliance.net.link import Link
from appliance.net.stack import Host
from appliance.net.transport_pause import Pauses
from appliance.net.vif.base import Vif

BATCH = 64
"""Frames in one turn: enough to share its fixed cost, few enough (some 0.5 ms) to be fair."""
TIMER_GRAIN = 0.001
"""Seconds. uvloop rounds timers to milliseconds; a shorter wait would spin until it is over."""


class Driver:
    """Runs one host on one event loop; `clock` gives monotonic seconds.

    A host with several links has a driver for each: the others are made by `more` of the first,
    which keeps the host's one timer and hears its wake-ups.

    Invariant: while `_armed` is finite, `_timer` is a pending handle for that time.
    """

    __slots__ = (
        "_armed",
        "_clock",
        "_fd",
        "_host",
        "_link",
        "_loop",
        "_main",
        "_others",
        "_pauses",
        "_receive",
        "_receiving",
        "_running",
        "_sleep",
        "_timer",
        "_vif",
        "_waiting_for_room",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        host: Host,
        vif: Vif,
        clock: Callable[[], float] = time.monotonic,
        *,
        link: Link | None = None,
        main: Driver | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._loop = loop
        self._host = host
        self._vif = vif
        self._receive: Callable[[int], list[bytes]] = vif.receive
        self._clock = clock
        self._sleep = sleep
        self._link = link  # of the host; None: its first
        self._main = main if main is not None else self
        self._others: list[Driver] = []
        self._fd = vif.fileno()
        self._timer: asyncio.TimerHandle | None = None
        self._armed = math.inf  # monotonic seconds at which _timer fires
        self._receiving = False  # a receiving turn is queued on the loop (links without descriptor)
        self._waiting_for_room = False  # the link was full and will tell when it is not
        self._pauses = Pauses()
        self._running = False

    def start(self) -> None:
        """Begin to poll the link and to answer the host's calls for a turn."""
        self._running = True
        if self._main is self:
            self._host.wake = self._wake
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._readable)
        else:
            self._vif.on_readable = self._receive_soon
            self._vif.on_writable = self._room_soon
            self._receive_soon()  # frames may have come before the first turn
        self._wake()
        for other in self._others:
            other.start()

    def more(self, vif: Vif, link: Link) -> None:
        """Poll one more link of the host, from now on if this runs."""
        other = Driver(
            self._loop, self._host, vif, self._clock, link=link, main=self, sleep=self._sleep
        )
        self._others.append(other)
        if self._running:
            other.start()

    def divert(self, receive: Callable[[int], list[bytes]], link: Link) -> None:
        """Take the frames of a link by `receive` from now on: for those who watch it."""
        driver = next((other for other in self._others if other._link is link), self)
        driver._receive = receive

    def stop(self) -> None:
        """Leave the links and the host alone from now on; the links stay open."""
        for other in self._others:
            other.stop()
        self._running = False
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
        else:
            self._vif.on_readable = self._vif.on_writable = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._armed = math.inf
        if self._main is self:
            self._host.wake = _nothing

    # Turns.

    def _readable(self) -> None:
        frames = self._receive(BATCH)
        if not frames:
            return
        counters = self._host.counters
        before = counters.udp_in
        began = self._clock()
        self._host.receive(frames, began, self._link)
        self._after_turn()
        size = len(frames)
        pause = self._pauses.after(counters.udp_in - before, size, size == BATCH, began)
        if pause:
            self._sleep(pause)

    def _receive_queued(self) -> None:
        """A receiving turn on a link that tells only when its queue stops being empty."""
        self._receiving = False
        if not self._running:
            return
        frames = self._receive(BATCH)
        if len(frames) == BATCH:
            self._receive_soon()  # before the turn, which might raise
        if frames:
            self._host.receive(frames, self._clock(), self._link)
            self._after_turn()

    def _flush(self) -> None:
        if self._running:
            self._host.flush(self._clock(), self._link)
            self._after_turn()

    def _room(self) -> None:
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
        self._waiting_for_room = False
        self._flush()

    def _timer_fired(self) -> None:
        self._timer = None
        self._armed = math.inf
        now = self._clock()
        if self._host.deadline() <= now:
            self._host.run_timers(now)
        self._after_turn()

    def _after_turn(self) -> None:
        if self._main is not self:
            self._main._after_turn()
            return
        host = self._host
        deadline = host.deadline()
        if deadline < self._armed:
            self._arm(deadline)
        if host.blocked():
            self._wait_for_room(not self._others)
            for other in self._others:
                other._wait_for_room(False)

    def _wait_for_room(self, alone: bool) -> None:
        """Have the loop tell when the link has room, if it was full; `alone`: if any was."""
        if self._waiting_for_room:
            return
        if not alone and not (self._link or self._host.links[0]).blocked:
            return
        self._waiting_for_room = True
        if self._fd >= 0:
            self._loop.add_writer(self._fd, self._room)

    def _arm(self, deadline: float) -> None:
        if not self._running:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = deadline
        # Relative, because loop.time() of uvloop is the start of the iteration in whole
        # milliseconds while the host is given the clock itself.
        delay = max(deadline - self._clock(), TIMER_GRAIN)
        self._timer = self._loop.call_later(delay, self._timer_fired)

    # Wake-ups.

    def _wake(self) -> None:
        self._loop.call_soon(self._flush)

    def _receive_soon(self) -> None:
        if not self._receiving:
            self._receiving = True
            self._loop.call_soon(self._receive_queued)

    def _room_soon(self) -> None:
        self._loop.call_soon(self._room)


def _nothing() -> None:
    """Stands where the driver was; a host without one is only asked for its counters."""
