"""One neighbour: what a sender holds of a host on its link, and what is counted about all of them.

A sender holds the `Neighbor` itself in its header template: `mac` is read for each packet, `used`
is written, and no look-up is made. While `mac` is None packets go through the `enqueue` of its
cache, which keeps the newest few and asks. Who keeps neighbours and when they are asked for is
`neighbor_cache`'s; how, `neighbor4`'s (ARP) and `neighbor6`'s (Neighbor Discovery).

Bounds and states are here, since both share them. Imports the cache for its type only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from appliance.net.neighbor_cache import NeighborCache

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

Sender = Callable[[bytes, bytes | memoryview], bool]
"""A link's: (head, payload) -> False when it is full."""


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
