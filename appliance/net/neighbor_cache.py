"""Neighbours by address: a table, the queues of those that are being asked for, and their timers.

An entry is trusted for 30 to 60 seconds; then, if it was used, the neighbour is asked again
directly while traffic goes on, and one that nobody uses for ten minutes is forgotten (RFC 1122
§2.3.2.1 wants both a timeout and a limit of one request a second).

How a question looks and what an answer teaches is said by `neighbor4` and `neighbor6`, and the
latter's states are more. It knows no routes: which address is the next hop, and from which of our
own it is asked, is told by the caller. Sans-I/O. Imports `neighbor`, `wire`.
"""

from __future__ import annotations

import math
import random as random_module
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final
from weakref import WeakValueDictionary

from appliance.net.agenda import Agenda
from appliance.net.neighbor import (
    ATTEMPTS,
    CAPACITY,
    IDLE,
    INCOMPLETE,
    PROBING,
    QUEUE_FRAMES,
    QUEUE_OCTETS,
    REACHABLE,
    REACHABLE_MAX,
    REACHABLE_MIN,
    RETRY,
    UNUSED,
    WANTED,
    Neighbor,
    NeighborCounters,
    Sender,
)
from appliance.net.wire import ethernet
from appliance.net.wire.virtio import VNET_HDR_LEN

_PATCH_AT: Final = VNET_HDR_LEN
_PATCH_END: Final = VNET_HDR_LEN + ethernet.ADDRESS_LEN
"""Where the destination stands in a frame, in octets."""


class NeighborCache:
    """Neighbours by address, asked for and kept fresh; `_ask` is for those who know how.

    `send(head, payload)` is the link's; `source_for(address)` gives our own address to ask from.
    `on_unreachable(address, frames)` is called from `advance` when a neighbour did not answer, with
    the frames that waited (whole, oldest first).
    """

    def __init__(
        self,
        own_mac: bytes,
        send: Sender,
        *,
        source_for: Callable[[bytes], bytes],
        random: random_module.Random,
        on_unreachable: Callable[[bytes, list[bytes]], None],
        counters: NeighborCounters | None = None,
        capacity: int = CAPACITY,
        link: Any = None,
        agenda: Agenda | None = None,
    ) -> None:
        self.counters = counters if counters is not None else NeighborCounters()
        self._own_mac = own_mac
        self._send = send
        self.link = link
        """Whatever the cache was told that it belongs to."""
        self._source_for = source_for
        self._agenda = agenda if agenda is not None else Agenda()
        self._random = random
        self._on_unreachable = on_unreachable
        self._capacity = capacity
        self._table: dict[bytes, Neighbor] = {}
        """By address, at most `capacity`, in the order of `_make_room`'s clock hand."""
        self._held: WeakValueDictionary[bytes, Neighbor] = WeakValueDictionary()
        """Every entry that anyone still holds, so that one address never has two entries."""
        self._heap: list[tuple[float, Neighbor]] = []
        """Lazy: an entry counts only while its time is the neighbour's `due`."""
        self._queued = 0
        """Octets in all queues; at most QUEUE_OCTETS."""

    def __len__(self) -> int:
        return len(self._table)

    def divert(self, send: Sender) -> None:
        """Send by `send` from now on, whoever holds the neighbours: for those who watch a link."""
        self._send = send
        for neighbor in list(self._held.values()):
            neighbor.send = send

    def entries(self) -> list[Neighbor]:
        """Every entry of the table, for those who show it."""
        return list(self._table.values())

    def lookup(self, address: bytes, now: float) -> Neighbor:
        """The entry for `address`, which is asked for if it is not known yet."""
        neighbor = self._table.get(address)
        if neighbor is None:
            neighbor = self._admit(address)
        neighbor.used = True
        if neighbor.state <= WANTED:
            self._ask_first(neighbor, now)
            # An application that sends between turns has the time of the last one, perhaps long
            # ago: the second between questions is counted from the end of the turn that follows.
            neighbor.attempts = -1
            self._arm(neighbor, -math.inf)
        return neighbor

    def enqueue(self, neighbor: Neighbor, head: bytes, payload: bytes | memoryview = b"") -> None:
        """Send head + payload as soon as the neighbour's address is known.

        The destination in `head` is patched. Beyond the bounds the oldest frame of this neighbour
        goes (RFC 1122 §2.3.2.2: the latest is the one to save), or else this one.
        """
        neighbor.used = True
        frame = b"".join((head, payload))
        if neighbor.mac is not None:
            self._send_to(neighbor.mac, frame)
            return
        if neighbor.state == IDLE:
            self._revive(neighbor)
        queue = neighbor.queue
        if len(queue) >= QUEUE_FRAMES:
            self._queued -= len(queue.pop(0))
            self.counters.neighbor_queue_dropped += 1
        if self._queued + len(frame) > QUEUE_OCTETS:
            self.counters.neighbor_queue_dropped += 1
            return
        queue.append(frame)
        self._queued += len(frame)

    def deadline(self) -> float:
        """When `advance` is due, seconds: infinity when never, minus infinity when at once."""
        heap = self._heap
        while heap and heap[0][1].due != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else math.inf

    def advance(self, now: float) -> None:
        """Ask again, refresh, give up and forget, as far as it is due."""
        while self.deadline() <= now:
            _, neighbor = heappop(self._heap)
            neighbor.due = math.inf
            self._expired(neighbor, now)

    # Timers.

    def _expired(self, neighbor: Neighbor, now: float) -> None:
        if neighbor.state == WANTED:
            self._ask_first(neighbor, now)
        elif neighbor.state == REACHABLE:
            self._review(neighbor, now)
        elif neighbor.attempts < 0:  # asked for between turns
            neighbor.attempts = 1
            self._arm(neighbor, now + RETRY)
        elif self._confirmed(neighbor, now - RETRY):
            pass
        elif neighbor.attempts < ATTEMPTS:
            self._ask(neighbor, now)
        else:
            self._fail(neighbor)

    def _confirmed(self, neighbor: Neighbor, since: float) -> bool:
        """RFC 4861 §7.3.1: progress that a transport saw spares the rest of the questions."""
        if neighbor.state != PROBING or neighbor.confirmed_at <= since:
            return False
        neighbor.state = REACHABLE
        neighbor.attempts = 0
        self._arm(neighbor, neighbor.confirmed_at + self._lifetime())
        return True

    def _review(self, neighbor: Neighbor, now: float) -> None:
        """The trust in an entry has run out: was it used, and has anyone confirmed it since?"""
        if neighbor.used:
            neighbor.used = False
            neighbor.used_at = now
            if neighbor.confirmed_at + REACHABLE_MIN > now:
                self._arm(neighbor, neighbor.confirmed_at + self._lifetime())
                return
            neighbor.state = PROBING
            neighbor.attempts = 0
            self._ask(neighbor, now)
        elif now - neighbor.used_at >= UNUSED:
            self._forget(neighbor)
        else:
            self._arm(neighbor, now + self._lifetime())

    def _fail(self, neighbor: Neighbor) -> None:
        """Nobody answered: a neighbour that used to answer is asked for afresh when next needed."""
        if neighbor.state == PROBING:
            self.counters.neighbor_lost += 1
            self._forget(neighbor)
            return
        self.counters.neighbor_failed += 1
        frames = self._take_queue(neighbor)
        self._forget(neighbor)
        # Also without frames: a connection may have everything in flight and wait for nothing else.
        self._on_unreachable(neighbor.address, frames)

    def _arm(self, neighbor: Neighbor, due: float) -> None:
        neighbor.due = due
        heap = self._heap
        # Void entries come from answers, at most a few per second and neighbour; a heap of nothing
        # but them is thrown away rather than carried along.
        if len(heap) > 4 * self._capacity:
            heap[:] = sorted(entry for entry in heap if entry[1].due == entry[0])
        heappush(heap, (due, neighbor))
        self._agenda.lower(due)

    def _lifetime(self) -> float:
        return self._random.uniform(REACHABLE_MIN, REACHABLE_MAX)

    # The table.

    def _admit(self, address: bytes) -> Neighbor:
        neighbor = self._held.get(address)
        if neighbor is None:
            neighbor = Neighbor(address, self, self._send)
            self._held[address] = neighbor
        self._revive(neighbor)
        return neighbor

    def _revive(self, neighbor: Neighbor) -> None:
        """Put a neighbour (back) into the table, to be asked for at the next `advance`."""
        if len(self._table) >= self._capacity:
            self._make_room()
        self._table[neighbor.address] = neighbor
        neighbor.state = WANTED
        neighbor.attempts = 0
        # A sender has no clock at hand: minus infinity is due whatever the time is.
        self._arm(neighbor, -math.inf)

    def _make_room(self) -> None:
        """Give up one entry: the first that was not used since the hand last passed (CLOCK)."""
        table = self._table
        for _ in range(len(table)):
            address = next(iter(table))
            neighbor = table.pop(address)
            if not neighbor.used:
                break
            neighbor.used = False
            neighbor.used_at = max(neighbor.used_at, neighbor.confirmed_at)
            table[address] = neighbor
        else:
            neighbor = next(iter(table.values()))
        self.counters.neighbor_evicted += 1
        self.counters.neighbor_queue_dropped += len(self._take_queue(neighbor))
        self._forget(neighbor)

    def _forget(self, neighbor: Neighbor) -> None:
        self._table.pop(neighbor.address, None)
        neighbor.state = IDLE
        neighbor.mac = None
        neighbor.due = math.inf

    def _take_queue(self, neighbor: Neighbor) -> list[bytes]:
        frames, neighbor.queue = neighbor.queue, []
        for frame in frames:
            self._queued -= len(frame)
        return frames

    # What leaves.

    def _ask_first(self, neighbor: Neighbor, now: float) -> None:
        neighbor.state = INCOMPLETE
        neighbor.attempts = 0
        self._ask(neighbor, now)

    def _ask(self, neighbor: Neighbor, now: float) -> None:
        """Ask once, of all or of the neighbour itself, and count it in `attempts`."""
        raise NotImplementedError

    def _send_to(self, mac: bytes, frame: bytes) -> None:
        if not self._send(b"".join((frame[:_PATCH_AT], mac, frame[_PATCH_END:])), b""):
            self.counters.neighbor_send_refused += 1
