"""Which routers and prefixes there are on an IPv6 link: a host hears them (RFC 4861 §6.3, §8).

    solicit, more and more rarely (RFC 7559) -> an advertisement -> routers, prefixes, resolvers

Default routers, on-link prefixes, redirects and resolvers (RFC 8106) are kept for as long as they
were told to live; the link's parameters are the last router's word. What a prefix means for our
addresses is `slaac`'s, which is made on top of this. There is no DHCPv6: the flag that asks for it
is remembered and told.

The machine decides; its owner acts. Sans-I/O. Imports `neighbor6`, `wire`.
"""

from __future__ import annotations

import random as random_module
from math import inf
from typing import Final, Protocol

from appliance.net.neighbor6 import NeighborCache6
from appliance.net.wire import icmpv6, ipv6, ndp

RTR_SOLICITATION_INTERVAL: Final = 4.0
MAX_RTR_SOLICITATION_INTERVAL: Final = 3600.0
"""Seconds (RFC 4861 §10, RFC 7559 §2: IRT and MRT)."""
MAX_REACHABLE: Final = 3600.0
"""Seconds (RFC 4861 §6.2.1)."""
MAX_RETRANSMIT: Final = 60.0
"""Seconds: an advertised timer beyond is a way to switch resolution off, and is ignored."""
MAX_ROUTERS: Final = 8
MAX_PREFIXES: Final = 16
MAX_REDIRECTS: Final = 64
MAX_SERVERS: Final = 8
"""Of each: a flood of advertisements fills these tables and no more (RFC 6104, RFC 8504 §5.4)."""


class LinkOwner(Protocol):
    """What discovery has its owner do."""

    def send_icmp6(
        self, src: bytes, dst: bytes, kind: int, rest: int, body: bytes, mac: bytes = b""
    ) -> None:
        """Send a Neighbour Discovery message with hop limit 255; `mac` if it is known."""

    def set_route(self, network: bytes, prefix_len: int, gateway: bytes | None) -> None:
        """There is a way to a prefix."""

    def drop_route(self, network: bytes, prefix_len: int, gateway: bytes | None) -> None:
        """There is no longer."""

    def first_hop(self, destination: bytes) -> bytes | None:
        """The router that packets to `destination` go to now; None if none does."""
        ...

    def path_mtu6(self, mtu: int) -> None:
        """Packets on this link have `mtu` octets at the most."""


class RouterDiscovery:
    """What one link's routers have told; lifetimes and deadlines are absolute seconds.

    `autonomous` False takes nothing from advertisements.
    """

    def __init__(
        self,
        owner: LinkOwner,
        cache: NeighborCache6,
        mac: bytes,
        mtu: int,
        *,
        random: random_module.Random,
        autonomous: bool,
    ) -> None:
        self._link_owner = owner
        self._cache = cache
        self._mac = mac
        self._mtu = mtu
        self._random = random
        self._autonomous = autonomous
        self.hop_limit = ipv6.DEFAULT_HOP_LIMIT
        self.managed = False
        """A router says that addresses come by DHCPv6 (not spoken here)."""
        self.routers: dict[bytes, float] = {}
        """Default routers -> when they stop to be, seconds."""
        self.prefixes: dict[tuple[bytes, int], float] = {}
        """On-link prefixes -> when they stop to be."""
        self.redirects: dict[bytes, bytes] = {}
        """Destination -> better first hop (RFC 4861 §8.3), oldest first."""
        self.servers: dict[bytes, float] = {}
        """Recursive resolvers (RFC 8106) -> when they expire."""
        self._solicit_at = inf
        self._solicit_after = 0.0  # RT of RFC 7559

    # ------------------------------------------------------------------ what our addresses are

    def link_local(self) -> bytes | None:
        """The link-local address, once it is ours."""
        raise NotImplementedError

    def _address_from(self, network: bytes, prefix: ndp.Prefix, now: float) -> None:
        """A router says that hosts make addresses of a prefix."""
        raise NotImplementedError

    # ------------------------------------------------------------------ time

    def _look_for_routers(self, now: float) -> None:
        """Ask from now on, until one answers."""
        if self._autonomous and not self.routers:
            self._solicit_after = 0.0
            self._solicit_at = now

    def _told_until(self) -> float:
        """When the next thing ends that routers told, or a question is due."""
        times = [self._solicit_at, *self.routers.values()]
        return min((*times, *self.prefixes.values(), *self.servers.values()))

    def _forget_expired(self, now: float) -> None:
        """RFC 4861 §6.3.5: what was told ends in its time; and ask when that is due."""
        for router in [r for r, until in self.routers.items() if until <= now]:
            self._drop_router(router, now)
        for key in [k for k, until in self.prefixes.items() if until <= now]:
            del self.prefixes[key]
            self._link_owner.drop_route(key[0], key[1], None)
        for server in [s for s, until in self.servers.items() if until <= now]:
            del self.servers[server]
        if self._solicit_at <= now:
            self._solicit(now)

    def _solicit(self, now: float) -> None:
        """RFC 4861 §6.3.7, RFC 7559 §2.1: ask, and ask again, ever more rarely."""
        source = self.link_local() or ipv6.UNSPECIFIED
        body = ndp.router_solicitation(self._mac if any(source) else b"")
        self._link_owner.send_icmp6(source, ipv6.ALL_ROUTERS, icmpv6.ROUTER_SOLICITATION, 0, body)
        previous, jitter = self._solicit_after, self._random.uniform(-0.1, 0.1)
        if not previous:
            after = RTR_SOLICITATION_INTERVAL * (1 + jitter)
        else:
            after = previous * (2 + jitter)
        if after > MAX_RTR_SOLICITATION_INTERVAL:
            after = MAX_RTR_SOLICITATION_INTERVAL * (1 + jitter)
        self._solicit_after = after
        self._solicit_at = now + after

    # ------------------------------------------------------------------ routers speak

    def router_advertised(self, src: bytes, ra: ndp.RouterAdvertisement, now: float) -> None:
        """RFC 4861 §6.3.4: a router advertisement that is valid."""
        if not self._autonomous:
            return
        if ra.lifetime:
            # RFC 4861 §6.3.7: a router that is none today does not end the search for one.
            self._solicit_at = inf
        if ra.hop_limit:
            self.hop_limit = ra.hop_limit
        if 0 < ra.reachable <= MAX_REACHABLE:
            self._cache.base_reachable = ra.reachable
        if 0 < ra.retransmit <= MAX_RETRANSMIT:
            self._cache.retransmit = ra.retransmit
        self.managed = ra.managed
        if not ra.lifetime:
            self._drop_router(src, now)
        elif src in self.routers or len(self.routers) < MAX_ROUTERS:
            if src not in self.routers:
                self._link_owner.set_route(bytes(16), 0, src)
            self.routers[src] = now + ra.lifetime
        if ra.link:
            # Entries are made for routers that are used: a flood must not push out neighbours.
            self._cache.heard(src, ra.link, now, create=src in self.routers, router=True)
        self._cache.forwards(src)  # with its option or without
        if ipv6.MIN_MTU <= ra.mtu <= self._mtu:
            self._link_owner.path_mtu6(ra.mtu)
        for prefix in ra.prefixes:
            self._prefix(prefix, now)
        for lifetime, addresses in ra.servers:
            self._resolvers(lifetime, addresses, now)

    def _prefix(self, prefix: ndp.Prefix, now: float) -> None:
        network = network_of(prefix.prefix, prefix.length)
        if ipv6.is_link_local(prefix.prefix) or ipv6.is_multicast(prefix.prefix):
            return
        valid = ends_at(now, prefix.valid)
        if prefix.on_link:
            key = (network, prefix.length)
            if not prefix.valid:
                if self.prefixes.pop(key, None) is not None:
                    self._link_owner.drop_route(*key, None)
            elif key in self.prefixes or len(self.prefixes) < MAX_PREFIXES:
                if key not in self.prefixes:
                    self._link_owner.set_route(*key, None)
                self.prefixes[key] = valid
        if prefix.autonomous:
            self._address_from(network, prefix, now)

    def _resolvers(self, lifetime: int, addresses: tuple[bytes, ...], now: float) -> None:
        """RFC 8106 §5.3.1, §6.2."""
        for address in addresses:
            self.servers.pop(address, None)
            if lifetime and len(self.servers) < MAX_SERVERS:
                self.servers[address] = ends_at(now, lifetime)

    def redirected(self, src: bytes, redirect: ndp.Redirect, now: float) -> None:
        """RFC 4861 §8.3: a better first hop, if it is our first hop that says so (§8.1)."""
        if self._link_owner.first_hop(redirect.destination) != src:
            return
        target, destination = redirect.target, redirect.destination
        on_link = target == destination
        if redirect.link:
            self._cache.heard(target, redirect.link, now, create=True, router=not on_link)
        if not on_link:
            self._cache.forwards(target)
        self._forget_redirect(destination)
        if len(self.redirects) >= MAX_REDIRECTS:
            self._forget_redirect(next(iter(self.redirects)))
        self.redirects[destination] = target
        self._link_owner.set_route(destination, 128, None if on_link else target)

    def lost(self, address: bytes, now: float) -> None:
        """A neighbour no longer answers, or no longer forwards (RFC 4861 §7.3.3, §6.3.6)."""
        for destination in [d for d, hop in self.redirects.items() if hop == address]:
            self._forget_redirect(destination)
        if address in self.routers and not self.routers.keys() - {address}:
            # The only router we knew: ask whether there is another.
            self._solicit_after = 0.0
            self._solicit_at = now

    def is_host(self, address: bytes, now: float) -> None:
        """A neighbour that was a router says that it is none (RFC 4861 §7.2.5)."""
        self.lost(address, now)
        self._drop_router(address, now)

    def _forget_redirect(self, destination: bytes) -> None:
        target = self.redirects.pop(destination, None)
        if target is not None:
            hop = None if target == destination else target
            self._link_owner.drop_route(destination, 128, hop)

    def _drop_router(self, router: bytes, now: float) -> None:
        if self.routers.pop(router, None) is not None:
            self._look_for_routers(now)
            self._link_owner.drop_route(bytes(16), 0, router)
            for destination in [d for d, hop in self.redirects.items() if hop == router]:
                self._forget_redirect(destination)


def network_of(address: bytes, prefix_len: int) -> bytes:
    """The network that an address is in: the rest is nought."""
    shift = 128 - prefix_len
    return (int.from_bytes(address) >> shift << shift).to_bytes(16)


def ends_at(now: float, lifetime: int) -> float:
    """When something that was told to live for `lifetime` seconds ends (RFC 4861 §4.6.2)."""
    return inf if lifetime == ndp.INFINITE else now + lifetime
