"""Which Ethernet address stands behind a next hop: a cache filled by ARP (RFC 826).

A sender holds the `Neighbor` itself in its header template: `mac` is read for each packet, `used`
is written, and no look-up is made. While `mac` is None packets go through `enqueue`, which keeps
the newest few and asks. An entry is trusted for 30 to 60 seconds; then, if it was used, the
neighbour is asked again directly while traffic goes on, and an entry that nobody uses for ten
minutes is forgotten (RFC 1122 §2.3.2.1 wants both a timeout and a limit of one request a second).

The cache is about states, queues and timers, and speaks ARP in few methods only: `neighbor6` puts
Neighbor Discovery in their place and keeps the rest. It knows no routes: which address is the next
hop, and from which of our own it is asked, is told by the caller. Sans-I/O. Imports `wire` and
`errors`.
"""

from __future__ import annotations

import math
import random as random_module
from collections.abc import Callable, Container
from heapq import heappop, heappush
from typing import Any, Final
from weakref import WeakValueDictionary

from appliance.net.agenda import Agenda
from appliance.net.wire import arp, ethernet
from appliance.net.wire.virtio import PLAIN, VNET_HDR_LEN

CAPACITY: Final = 1024
"""Entries: a /22 full of hosts; a scan of the link costs no more than this (about 0.3 MB)."""
QUEUE_FRAMES: Final = 48
"""Frames kept per neighbour while it is asked for; RFC 1122 §2.3.2.2 wants at least the latest."""
QUEUE_OCTETS: Final = 4 << 20
"""Octets kept for all neighbours together: some 64 super-segments."""
RETRY: Final = 1.0
"""Seconds between requests (RFC 1122 §2.3.2.1: at most one a second for one address)."""
ATTEMPTS: Final = 3
"""Requests before giving up (RFC 4861 §10, MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT)."""
REACHABLE_MIN: Final = 30.0
REACHABLE_MAX: Final = 60.0
"""Seconds between which a confirmation is trusted, drawn anew each time so that hosts that were
started together do not all ask together (RFC 4861 §6.3.2; RFC 1122 §2.3.2.1: about a minute)."""
UNUSED: Final = 600.0
"""Seconds without a packet after which an entry is forgotten."""

# States of a neighbour.
IDLE: Final = 0
"""Not in the table; whoever still holds it revives it through `enqueue`."""
WANTED: Final = 1
"""To be asked for at the next `advance`."""
INCOMPLETE: Final = 2
"""Asked for by broadcast, no answer yet."""
REACHABLE: Final = 3
"""`mac` is known and trusted until `due`."""
PROBING: Final = 4
"""`mac` is in use, and its owner is being asked whether it is still there."""
STALE: Final = 5
"""Of Neighbor Discovery: `last_mac` was right once; the next packet sees to it (RFC 4861 §7.3)."""
DELAY: Final = 6
"""Of Neighbor Discovery: `mac` is in use, and confirmation may come by itself for a while."""

_PATCH_AT: Final = VNET_HDR_LEN
_PATCH_END: Final = VNET_HDR_LEN + ethernet.ADDRESS_LEN
"""Where the destination stands in a frame, in octets."""
_ZERO_ADDRESS: Final = bytes(4)


Sender = Callable[[bytes, bytes | memoryview], bool]


class NeighborCounters:
    """What happened to neighbours; plain ints, read by whoever shows counters."""

    __slots__ = (
        "arp_conflicts",
        "arp_ignored",
        "arp_in",
        "arp_replies_sent",
        "arp_requests_sent",
        "neighbor_changed",
        "neighbor_evicted",
        "neighbor_failed",
        "neighbor_lost",
        "neighbor_queue_dropped",
        "neighbor_resolved",
        "neighbor_send_refused",
    )

    def __init__(self) -> None:
        self.arp_conflicts = 0
        """Packets in which someone else claims one of our addresses (RFC 5227 §2.4)."""
        self.arp_ignored = 0
        """Packets whose sender cannot be a neighbour: group, zero or loopback addresses."""
        self.arp_in = 0
        """Packets of a sound layout, whatever became of them."""
        self.arp_replies_sent = 0
        self.arp_requests_sent = 0
        self.neighbor_changed = 0
        """A known address moved to another Ethernet address."""
        self.neighbor_evicted = 0
        """Entries given up because the table was full."""
        self.neighbor_failed = 0
        """Addresses that nobody answered for."""
        self.neighbor_lost = 0
        """Known neighbours that stopped answering."""
        self.neighbor_queue_dropped = 0
        """Frames dropped because too many waited for an answer."""
        self.neighbor_resolved = 0
        self.neighbor_send_refused = 0
        """Frames, or ARP packets, that the link had no room for."""

    def as_dict(self) -> dict[str, int]:
        """Every counter by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Neighbor:
    """One host on the link, held by those who send to it."""

    __slots__ = (
        "__weakref__",
        "address",
        "attempts",
        "cache",
        "confirmed_at",
        "due",
        "last_mac",
        "mac",
        "queue",
        "router",
        "send",
        "state",
        "used",
        "used_at",
    )

    def __init__(self, address: bytes, cache: NeighborCache, send: Sender) -> None:
        self.address = address
        """Four octets, or sixteen."""
        self.cache = cache
        """Whose it is; its `enqueue` takes what cannot be sent yet."""
        self.send = send
        """The link's: (head, payload) -> False when it is full."""
        self.mac: bytes | None = None
        """Six octets to send to, or None: use `NeighborCache.enqueue`."""
        self.last_mac = b""
        """Of a STALE entry: six octets to try first; its `mac` is None so that the next packet
        passes through `enqueue`, which notes that there was one."""
        self.router = False
        """Of Neighbor Discovery: it says that it forwards (RFC 4861 §5.1, IsRouter)."""
        self.used = False
        """Set by senders with every packet; cleared here when the timer has seen it."""
        self.confirmed_at = -math.inf
        """When the neighbour was last heard of, seconds. A sender whose packets are being
        acknowledged writes `now` here (RFC 4861 §7.3.1: forward progress), and nothing else: the
        timers look at it, and ask only those of whom nobody has heard."""
        self.used_at = -math.inf
        """When `used` was last seen set, seconds."""
        self.state = IDLE
        self.attempts = 0
        """Requests sent since the last answer."""
        self.due = math.inf
        """When the timer has something to do, seconds; heap entries with another time are void."""
        self.queue: list[bytes] = []
        """Whole frames that wait for `mac`, oldest first; at most QUEUE_FRAMES."""

    def __lt__(self, other: Neighbor) -> bool:
        """Break ties between heap entries of the same instant, the same way in each run."""
        return self.address < other.address


class NeighborCache:
    """Neighbours by address, asked for and kept fresh.

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

    def arp_arrives(
        self, frame: bytes, at: int, end: int, now: float, local_addresses: Container[bytes]
    ) -> None:
        """Take in the ARP packet in frame[at:end]: learn, and answer for our own addresses.

        Raises only WireError.
        """
        packet = arp.parse(frame, at, end)
        self.counters.arp_in += 1
        sender, mac = packet.sender, packet.sender_mac
        for_us = packet.target in local_addresses
        if mac == self._own_mac or ethernet.is_group(mac) or mac == ethernet.ZERO:
            self.counters.arp_ignored += 1
            return
        if sender in local_addresses:
            # RFC 5227 §2.4: an address of ours in use by another. Keeping it and saying so once
            # more is allowed when the address is a server's; believing the packet never is.
            self.counters.arp_conflicts += 1
        elif sender == _ZERO_ADDRESS:
            pass  # RFC 5227 §2.1.1: a probe is answered, and teaches nothing
        elif sender[0] == 127 or sender[0] >= 224 or sender[0] == 0:
            self.counters.arp_ignored += 1
            return
        else:
            # RFC 826, "Packet Reception": an entry is updated whatever the packet was for, and
            # made only when it was for us.
            self.learn(sender, mac, now, create=for_us)
        if for_us and packet.operation == arp.REQUEST:
            answer = arp.build(arp.REPLY, self._own_mac, packet.target, mac, sender)
            self.counters.arp_replies_sent += 1
            self._send_arp(mac, answer)

    def learn(self, address: bytes, mac: bytes, now: float, *, create: bool) -> None:
        """Note that `address` is at `mac`, and send what waited for it.

        An address that nobody holds is ignored unless `create` says otherwise.
        """
        neighbor = self._table.get(address)
        if neighbor is None:
            if not create:
                return
            neighbor = self._admit(address)
        if neighbor.mac is None:
            self.counters.neighbor_resolved += 1
        elif neighbor.mac != mac:
            self.counters.neighbor_changed += 1
        neighbor.mac = mac
        neighbor.confirmed_at = now
        neighbor.used_at = max(neighbor.used_at, now)
        neighbor.state = REACHABLE
        neighbor.attempts = 0
        self._arm(neighbor, now + self._lifetime())
        for frame in self._take_queue(neighbor):
            self._send_to(mac, frame)

    def announce(self, address: bytes) -> None:
        """Tell the whole link that `address` is ours (RFC 5227 §2.3, RFC 5944 §4.6)."""
        packet = arp.build(arp.REQUEST, self._own_mac, address, ethernet.ZERO, address)
        self.counters.arp_requests_sent += 1
        self._send_arp(ethernet.BROADCAST, packet)

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
        """One request: to the neighbour itself while its address is known, else to everybody.

        RFC 1122 §2.3.2.1 (2), unicast poll.
        """
        neighbor.attempts += 1
        self._arm(neighbor, now + RETRY)
        target = neighbor.mac if neighbor.mac is not None else ethernet.BROADCAST
        source = self._source_for(neighbor.address)
        packet = arp.build(arp.REQUEST, self._own_mac, source, ethernet.ZERO, neighbor.address)
        self.counters.arp_requests_sent += 1
        self._send_arp(target, packet)

    def _send_arp(self, mac: bytes, packet: bytes) -> None:
        head = PLAIN + ethernet.header(mac, self._own_mac, ethernet.ETHERTYPE_ARP)
        if not self._send(head + packet, b""):
            self.counters.neighbor_send_refused += 1

    def _send_to(self, mac: bytes, frame: bytes) -> None:
        if not self._send(b"".join((frame[:_PATCH_AT], mac, frame[_PATCH_END:])), b""):
            self.counters.neighbor_send_refused += 1
