"""Neighbour unreachability detection: the cache of `neighbor_cache`, kept by RFC 4861 §7.

    INCOMPLETE -> REACHABLE -> STALE -> DELAY -> PROBE (-> REACHABLE, or forgotten)

A solicited answer, or a transport that sees progress, makes an entry REACHABLE for a random time
around what the router advertised. Then it is STALE: still right, probably. The first packet sent
through a STALE entry starts DELAY; when no confirmation comes of itself within five seconds, the
neighbour is asked directly.

The first packet is noticed without a look at every packet: a STALE entry hides its address (`mac`
is None, `last_mac` has it), so its next packet takes the way of packets that wait for an address.

What is our own address, and who answers for it, is `slaac`'s. Sans-I/O. Imports the cache, `wire`.
"""

from __future__ import annotations

import math
import random as random_module
from collections.abc import Callable
from typing import Any, Final

from appliance.net.agenda import Agenda
from appliance.net.neighbor import (
    ATTEMPTS,
    CAPACITY,
    DELAY,
    IDLE,
    INCOMPLETE,
    PROBING,
    REACHABLE,
    STALE,
    UNUSED,
    WANTED,
    Neighbor,
    Sender,
)
from appliance.net.neighbor_cache import NeighborCache
from appliance.net.wire import ethernet, icmpv6, ipv6, ndp
from appliance.net.wire.virtio import PLAIN

REACHABLE_TIME: Final = 30.0
RETRANS_TIMER: Final = 1.0
DELAY_FIRST_PROBE_TIME: Final = 5.0
"""Seconds (RFC 4861 §10)."""
MIN_RANDOM_FACTOR: Final = 0.5
MAX_RANDOM_FACTOR: Final = 1.5
"""Between which the advertised reachable time is multiplied (RFC 4861 §10)."""


class NeighborCache6(NeighborCache):
    """Neighbours of one link over IPv6.

    `on_lost(address)` is called when one that used to answer no longer does, `on_host(address)`
    when one that was a router says that it is none; the rest is as in `NeighborCache`.
    """

    def __init__(
        self,
        own_mac: bytes,
        send: Sender,
        *,
        source_for: Callable[[bytes], bytes],
        random: random_module.Random,
        on_unreachable: Callable[[bytes, list[bytes]], None],
        on_lost: Callable[[bytes], None],
        on_host: Callable[[bytes], None] | None = None,
        capacity: int = CAPACITY,
        link: Any = None,
        agenda: Agenda | None = None,
    ) -> None:
        super().__init__(
            own_mac,
            send,
            source_for=source_for,
            random=random,
            on_unreachable=on_unreachable,
            capacity=capacity,
            link=link,
            agenda=agenda,
        )
        self.base_reachable = REACHABLE_TIME
        """Seconds, as the router wants it (RFC 4861 §6.3.4)."""
        self.retransmit = RETRANS_TIMER
        """Seconds between solicitations."""
        self._on_lost = on_lost
        self._on_host = on_host if on_host is not None else on_lost

    # What is heard.

    def advertised(self, advertisement: ndp.Advertisement, now: float) -> None:
        """RFC 4861 §7.2.5: a neighbour advertisement, valid and not about our own address."""
        neighbor = self._table.get(advertisement.target)
        if neighbor is None:
            return
        link = advertisement.link
        if neighbor.state in (WANTED, INCOMPLETE):
            if not link or ethernet.is_group(link):
                return
            self.counters.neighbor_resolved += 1
            neighbor.router = advertisement.router
            self._settle(neighbor, link, advertisement.solicited, now)
            return
        known = neighbor.mac or neighbor.last_mac
        changed = bool(link) and link != known
        if changed and not advertisement.override:
            if neighbor.state == REACHABLE:
                self._make_stale(neighbor, now)
            return
        if changed and ethernet.is_group(link):
            return
        if changed:
            self.counters.neighbor_changed += 1
        if advertisement.solicited or changed:
            self._settle(neighbor, link or known, advertisement.solicited, now)
        if neighbor.router and not advertisement.router:
            # RFC 4861 §7.2.5: it MUST be removed from the default router list.
            neighbor.router = False
            self._on_host(neighbor.address)
        neighbor.router = advertisement.router

    def heard(
        self, address: bytes, link: bytes, now: float, *, create: bool, router: bool = False
    ) -> None:
        """Take a MAC from the option of a solicitation, an advertisement or a redirect.

        RFC 4861 §6.2.6, §6.3.4, §7.2.3, §8.3: what is new makes the entry STALE.
        """
        if ethernet.is_group(link) or link in (ethernet.ZERO, self._own_mac):
            return
        neighbor = self._table.get(address)
        if neighbor is None:
            if not create:
                return
            neighbor = self._admit(address)
        neighbor.router = neighbor.router or router
        if (neighbor.mac or neighbor.last_mac) != link:
            if neighbor.state in (WANTED, INCOMPLETE):
                self.counters.neighbor_resolved += 1
            else:
                self.counters.neighbor_changed += 1
            self._settle(neighbor, link, False, now)

    def forwards(self, address: bytes) -> None:
        """RFC 4861 §6.3.4, §8.3: whoever advertises itself, or is redirected to, is a router."""
        neighbor = self._table.get(address)
        if neighbor is not None:
            neighbor.router = True

    # What leaves, in the terms of Neighbor Discovery.

    def enqueue(self, neighbor: Neighbor, head: bytes, payload: bytes | memoryview = b"") -> None:
        """Send as soon as the address is known: at once through a STALE entry, which notes it."""
        if neighbor.state == STALE:
            # RFC 4861 §7.3.3: the first packet starts the delay.
            neighbor.mac = neighbor.last_mac
            neighbor.state = DELAY
            neighbor.used = True
            # A sender has no clock at hand: the time is counted from the turn's end.
            neighbor.attempts = -1
            self._arm(neighbor, -math.inf)
        super().enqueue(neighbor, head, payload)

    def _ask(self, neighbor: Neighbor, now: float) -> None:
        """RFC 4861 §7.2.2: to the solicited-node group, or to the neighbour itself."""
        neighbor.attempts += 1
        self._arm(neighbor, now + self.retransmit)
        target = neighbor.address
        source = self._source_for(target)
        if neighbor.mac is not None:
            to, mac = target, neighbor.mac
        else:
            to = ipv6.solicited_node(target)
            mac = ipv6.multicast_mac(to)
        body = ndp.solicitation(target, self._own_mac if any(source) else b"")
        kind = icmpv6.NEIGHBOR_SOLICITATION
        message = icmpv6.build(source, to, kind, 0, 0, body)
        self.counters.arp_requests_sent += 1
        frame = (
            PLAIN
            + ethernet.header(mac, self._own_mac, ethernet.ETHERTYPE_IPV6)
            + ipv6.header(
                source, to, ipv6.PROTO_ICMPV6, len(message), hop_limit=ndp.HOP_LIMIT
            )
            + message
        )  # fmt: skip
        if not self._send(frame, b""):
            self.counters.neighbor_send_refused += 1

    # Timers.

    def _expired(self, neighbor: Neighbor, now: float) -> None:
        state = neighbor.state
        if state == STALE:
            # Of no use to anyone for a long time (RFC 4861 §5.3 leaves the collection to us).
            self._forget(neighbor)
        elif state == DELAY:
            self._delayed(neighbor, now)
        elif state == REACHABLE:
            self._review(neighbor, now)
        elif state == WANTED:
            self._ask_first(neighbor, now)
        elif neighbor.attempts < 0:  # asked for between turns
            neighbor.attempts = 1
            self._arm(neighbor, now + self.retransmit)
        elif self._confirmed(neighbor, now - self.retransmit):
            pass
        elif neighbor.attempts < ATTEMPTS:
            self._ask(neighbor, now)
        else:
            self._fail(neighbor)

    def _review(self, neighbor: Neighbor, now: float) -> None:
        """RFC 4861 §7.3.3: the reachable time has passed since the last confirmation."""
        until = neighbor.confirmed_at + self.base_reachable * MIN_RANDOM_FACTOR
        if until > now:
            self._arm(neighbor, until)
        else:
            self._make_stale(neighbor, now)

    def _delayed(self, neighbor: Neighbor, now: float) -> None:
        if neighbor.attempts < 0:  # the packet that began it has just been sent
            neighbor.attempts = 0
            self._arm(neighbor, now + DELAY_FIRST_PROBE_TIME)
        elif neighbor.confirmed_at > now - DELAY_FIRST_PROBE_TIME:
            neighbor.state = REACHABLE
            self._arm(neighbor, neighbor.confirmed_at + self._lifetime())
        else:
            neighbor.state = PROBING
            self._ask(neighbor, now)

    def _fail(self, neighbor: Neighbor) -> None:
        lost = neighbor.state == PROBING
        super()._fail(neighbor)
        if lost:
            self._on_lost(neighbor.address)

    def _make_stale(self, neighbor: Neighbor, now: float) -> None:
        if neighbor.mac is not None:
            neighbor.last_mac = neighbor.mac
        neighbor.mac = None
        neighbor.state = STALE
        self._arm(neighbor, now + UNUSED)

    def _settle(self, neighbor: Neighbor, mac: bytes, confirmed: bool, now: float) -> None:
        """The neighbour is at `mac`: sure of it when `confirmed`, else STALE."""
        waiting = self._take_queue(neighbor)
        neighbor.attempts = 0
        neighbor.last_mac = mac
        if confirmed:
            neighbor.mac = mac
            neighbor.state = REACHABLE
            neighbor.confirmed_at = now
            self._arm(neighbor, now + self._lifetime())
        else:
            neighbor.mac = mac
            self._make_stale(neighbor, now)
        for frame in waiting:
            self.enqueue(neighbor, frame)

    def _forget(self, neighbor: Neighbor) -> None:
        super()._forget(neighbor)
        neighbor.last_mac = b""
        assert neighbor.state == IDLE

    def _lifetime(self) -> float:
        return self.base_reachable * self._random.uniform(MIN_RANDOM_FACTOR, MAX_RANDOM_FACTOR)
