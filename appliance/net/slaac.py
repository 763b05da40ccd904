"""An IPv6 interface configures itself: addresses, routers, prefixes (RFC 4861 §6.3, RFC 4862).

    link-local address -> is it a duplicate? -> routers? -> prefixes -> addresses -> duplicates?

Addresses are *tentative* until nobody has objected (duplicate address detection, with the nonce of
RFC 7527 against our own echo), then *preferred*, later perhaps *deprecated*, and gone when their
lifetime ends. Identifiers are those of RFC 7217. Solicitations for routers go on, more and more
rarely, until one answers (RFC 7559).

The machine decides; its owner acts: sends messages, keeps the tables of addresses and routes.
There is no DHCPv6: the flag that asks for it is remembered and told. Sans-I/O. Imports
`neighbor6`, `stable_iid`, `wire`.
"""

from __future__ import annotations

import random as random_module
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from appliance.net.neighbor6 import NeighborCache6
from appliance.net.stable_iid import IDGEN_DELAY, IDGEN_RETRIES, identifier
from appliance.net.wire import icmpv6, ipv6, ndp

MAX_RTR_SOLICITATION_DELAY: Final = 1.0
RTR_SOLICITATION_INTERVAL: Final = 4.0
MAX_RTR_SOLICITATION_INTERVAL: Final = 3600.0
"""Seconds (RFC 4861 §10, RFC 7559 §2: IRT and MRT)."""
DUP_ADDR_DETECT_TRANSMITS: Final = 1
"""Solicitations before an address is ours (RFC 4862 §5.1)."""
TWO_HOURS: Final = 7200.0
"""Seconds that an advertisement cannot shorten a lifetime below (RFC 4862 §5.5.3 (e))."""
MAX_REACHABLE: Final = 3600.0
"""Seconds (RFC 4861 §6.2.1)."""
MAX_RETRANSMIT: Final = 60.0
"""Seconds: an advertised timer beyond is a way to switch resolution off, and is ignored."""
MAX_ROUTERS: Final = 8
MAX_PREFIXES: Final = 16
MAX_ADDRESSES: Final = 16
MAX_REDIRECTS: Final = 64
MAX_SERVERS: Final = 8
"""Of each: a flood of advertisements fills these tables and no more (RFC 6104, RFC 8504 §5.4)."""

LINK_LOCAL_PREFIX: Final = bytes.fromhex("fe80") + bytes(6)

TENTATIVE: Final = "tentative"
PREFERRED: Final = "preferred"
DEPRECATED: Final = "deprecated"


@dataclass(slots=True, eq=False)
class OwnAddress:
    """One address of ours; times are absolute seconds."""

    address: bytes
    prefix_len: int
    origin: str  # "static", "link-local" or "slaac"
    state: str = TENTATIVE
    valid_until: float = inf
    preferred_until: float = inf
    counter: int = 0  # DAD_Counter of RFC 7217 §5
    sent: int = 0  # solicitations of duplicate address detection
    check_at: float = inf  # when the next one, or the verdict, is due
    nonce: bytes = b""


class Owner(Protocol):
    """What the machine has done to the world around it."""

    def send_icmp6(
        self, src: bytes, dst: bytes, kind: int, rest: int, body: bytes, mac: bytes = b""
    ) -> None:
        """Send a Neighbour Discovery message with hop limit 255; `mac` if it is known."""

    def address_changed(self, own: OwnAddress) -> None:
        """An address became preferred or deprecated."""

    def address_gone(self, own: OwnAddress, duplicate: bool) -> None:
        """An address expired, or is somebody else's."""

    def join(self, group: bytes) -> None:
        """Hear a group."""

    def leave(self, group: bytes) -> None:
        """Hear it no longer."""

    def set_route(self, network: bytes, prefix_len: int, gateway: bytes | None) -> None:
        """There is a way to a prefix."""

    def drop_route(self, network: bytes, prefix_len: int, gateway: bytes | None) -> None:
        """There is no longer."""

    def first_hop(self, destination: bytes) -> bytes | None:
        """The router that packets to `destination` go to now; None if none does."""

    def path_mtu6(self, mtu: int) -> None:
        """Packets on this link have `mtu` octets at the most."""


class Slaac:
    """The configuration of one IPv6 interface.

    `secret` has 16 octets or more and makes identifiers stable; `autonomous` False takes neither
    routers nor prefixes from advertisements. Lifetimes and deadlines are absolute seconds.
    """

    def __init__(
        self,
        owner: Owner,
        cache: NeighborCache6,
        mac: bytes,
        name: str,
        mtu: int,
        *,
        secret: bytes,
        random: random_module.Random,
        autonomous: bool = True,
        detect: int = DUP_ADDR_DETECT_TRANSMITS,
    ) -> None:
        self._owner = owner
        self._cache = cache
        self._mac = mac
        self._name = name
        self._mtu = mtu
        self._secret = secret
        self._random = random
        self._autonomous = autonomous
        self._detect = detect
        self.hop_limit = ipv6.DEFAULT_HOP_LIMIT
        self.managed = False
        """A router says that addresses come by DHCPv6 (not spoken here)."""
        self.addresses: dict[bytes, OwnAddress] = {}
        self.routers: dict[bytes, float] = {}
        """Default routers -> when they stop to be, seconds."""
        self.prefixes: dict[tuple[bytes, int], float] = {}
        """On-link prefixes -> when they stop to be."""
        self.redirects: dict[bytes, bytes] = {}
        """Destination -> better first hop (RFC 4861 §8.3), oldest first."""
        self.servers: dict[bytes, float] = {}
        """Recursive resolvers (RFC 8106) -> when they expire."""
        self.duplicates = 0
        self.ready = False
        """The link-local address is ours."""
        self._solicit_at = inf
        self._solicit_after = 0.0  # RT of RFC 7559

    # ------------------------------------------------------------------ beginning

    def start(self, now: float) -> None:
        """Make the link-local address, and go on from there (RFC 4862 §5.3)."""
        self._owner.join(ipv6.ALL_NODES)
        self._make(LINK_LOCAL_PREFIX, "link-local", now, now, inf, inf, 0)

    def add(self, address: bytes, prefix_len: int, now: float) -> None:
        """Take a static address; it is ours when nobody has objected."""
        self._admit(OwnAddress(address, prefix_len, "static"), now, now)
        network = _network(address, prefix_len)
        if prefix_len < 128:
            self._owner.set_route(network, prefix_len, None)

    def link_local(self) -> bytes | None:
        """The link-local address, once it is ours."""
        for own in self.addresses.values():
            if own.origin == "link-local" and own.state != TENTATIVE:
                return own.address
        return None

    def _make(
        self, prefix: bytes, origin: str, now: float, at: float,
        valid: float, preferred: float, counter: int,
    ) -> None:  # fmt: skip
        address = prefix[:8] + identifier(self._secret, prefix, self._name, counter)
        own = OwnAddress(address, 64, origin, TENTATIVE, valid, preferred, counter)
        self._admit(own, now, at)

    def _admit(self, own: OwnAddress, now: float, at: float) -> None:
        if own.address in self.addresses or len(self.addresses) >= MAX_ADDRESSES:
            return
        self.addresses[own.address] = own
        self._owner.join(ipv6.solicited_node(own.address))
        if not self._detect:
            own.check_at = now
            return
        own.nonce = self._random.randbytes(6)
        # RFC 4862 §5.4.2: the first packet of an interface is delayed, so that hosts that were
        # switched on together do not all speak together.
        if not self.ready:
            at += self._random.random() * MAX_RTR_SOLICITATION_DELAY
        own.check_at = at

    # ------------------------------------------------------------------ time

    def deadline(self) -> float:
        """When `advance` is due, seconds; inf: never."""
        times = [self._solicit_at]
        for own in self.addresses.values():
            times.append(own.check_at)
            if own.state != TENTATIVE:
                times.append(own.valid_until)
                if own.state == PREFERRED:
                    times.append(own.preferred_until)
        times += self.routers.values()
        times += self.prefixes.values()
        times += self.servers.values()
        return min(times)

    def advance(self, now: float) -> None:
        """Do what is due."""
        for own in list(self.addresses.values()):
            if own.check_at <= now:
                self._check(own, now)
            if own.state == TENTATIVE:
                continue
            if own.valid_until <= now:
                self._remove(own)
            elif own.state == PREFERRED and own.preferred_until <= now:
                own.state = DEPRECATED
                self._owner.address_changed(own)
        for router in [r for r, until in self.routers.items() if until <= now]:
            self._drop_router(router)
        for key in [k for k, until in self.prefixes.items() if until <= now]:
            del self.prefixes[key]
            self._owner.drop_route(key[0], key[1], None)
        for server in [s for s, until in self.servers.items() if until <= now]:
            del self.servers[server]
        if self._solicit_at <= now:
            self._solicit(now)

    def _check(self, own: OwnAddress, now: float) -> None:
        """RFC 4862 §5.4.2: solicit, and after a silence believe."""
        if own.sent < self._detect:
            own.sent += 1
            own.check_at = now + self._cache.retransmit
            group = ipv6.solicited_node(own.address)
            body = ndp.solicitation(own.address, b"", own.nonce)
            self._owner.send_icmp6(ipv6.UNSPECIFIED, group, icmpv6.NEIGHBOR_SOLICITATION, 0, body)
            return
        own.check_at = inf
        own.state = PREFERRED
        self._owner.address_changed(own)
        if own.origin == "link-local":
            self.ready = True
            if self._autonomous and not self.routers:
                self._solicit_after = 0.0
                self._solicit_at = now
        if own.prefix_len < 128 and own.origin == "link-local":
            self._owner.set_route(LINK_LOCAL_PREFIX + bytes(8), 64, None)

    def _solicit(self, now: float) -> None:
        """RFC 4861 §6.3.7, RFC 7559 §2.1: ask, and ask again, ever more rarely."""
        source = self.link_local() or ipv6.UNSPECIFIED
        body = ndp.router_solicitation(self._mac if any(source) else b"")
        self._owner.send_icmp6(source, ipv6.ALL_ROUTERS, icmpv6.ROUTER_SOLICITATION, 0, body)
        previous, jitter = self._solicit_after, self._random.uniform(-0.1, 0.1)
        if not previous:
            after = RTR_SOLICITATION_INTERVAL * (1 + jitter)
        else:
            after = previous * (2 + jitter)
        if after > MAX_RTR_SOLICITATION_INTERVAL:
            after = MAX_RTR_SOLICITATION_INTERVAL * (1 + jitter)
        self._solicit_after = after
        self._solicit_at = now + after

    # ------------------------------------------------------------------ neighbours speak

    def solicited(self, src: bytes, solicitation: ndp.Solicitation, now: float) -> None:
        """RFC 4861 §7.2.3, RFC 4862 §5.4.3: a neighbour solicitation for an address of ours."""
        own = self.addresses.get(solicitation.target)
        if own is None:
            return
        asks_for_itself = not any(src)
        if own.state == TENTATIVE:
            # RFC 7527 §4.2: our own solicitation, looped back, says nothing.
            if asks_for_itself and solicitation.nonce != own.nonce:
                self._duplicate(own, now)
            return
        rest = ndp.OVERRIDE
        mac = b""
        if asks_for_itself:
            to = ipv6.ALL_NODES
        else:
            to = src
            rest |= ndp.SOLICITED
            mac = solicitation.link
            if mac:
                self._cache.heard(src, mac, now, create=True)
        body = ndp.advertisement(own.address, self._mac)
        self._owner.send_icmp6(own.address, to, icmpv6.NEIGHBOR_ADVERTISEMENT, rest, body, mac)

    def advertised(self, advertisement: ndp.Advertisement, now: float) -> None:
        """RFC 4861 §7.2.5, RFC 4862 §5.4.4: a neighbour advertisement."""
        own = self.addresses.get(advertisement.target)
        if own is None:
            self._cache.advertised(advertisement, now)
        elif advertisement.link != self._mac:
            self.duplicates += 1
            if own.state == TENTATIVE:
                self._duplicate(own, now)

    def _duplicate(self, own: OwnAddress, now: float) -> None:
        """RFC 4862 §5.4.5, RFC 7217 §6: give it up, and try another identifier."""
        self._remove(own, duplicate=True)
        if own.origin != "static" and own.counter < IDGEN_RETRIES:
            at = now + self._random.random() * IDGEN_DELAY
            prefix = own.address[:8]
            self._make(
                prefix, own.origin, now, at, own.valid_until, own.preferred_until, own.counter + 1
            )

    def _remove(self, own: OwnAddress, *, duplicate: bool = False) -> None:
        del self.addresses[own.address]
        self._owner.leave(ipv6.solicited_node(own.address))
        self._owner.address_gone(own, duplicate)

    # ------------------------------------------------------------------ routers speak

    def router_advertised(self, src: bytes, ra: ndp.RouterAdvertisement, now: float) -> None:
        """RFC 4861 §6.3.4: a router advertisement that is valid."""
        if not self._autonomous:
            return
        self._solicit_at = inf
        if ra.hop_limit:
            self.hop_limit = ra.hop_limit
        if 0 < ra.reachable <= MAX_REACHABLE:
            self._cache.base_reachable = ra.reachable
        if 0 < ra.retransmit <= MAX_RETRANSMIT:
            self._cache.retransmit = ra.retransmit
        self.managed = ra.managed
        if not ra.lifetime:
            self._drop_router(src)
        elif src in self.routers or len(self.routers) < MAX_ROUTERS:
            if src not in self.routers:
                self._owner.set_route(bytes(16), 0, src)
            self.routers[src] = now + ra.lifetime
        if ra.link:
            # Entries are made for routers that are used: a flood must not push out neighbours.
            self._cache.heard(src, ra.link, now, create=src in self.routers, router=True)
        self._cache.forwards(src)  # with its option or without
        if ipv6.MIN_MTU <= ra.mtu <= self._mtu:
            self._owner.path_mtu6(ra.mtu)
        for prefix in ra.prefixes:
            self._prefix(prefix, now)
        for lifetime, addresses in ra.servers:
            self._resolvers(lifetime, addresses, now)

    def _prefix(self, prefix: ndp.Prefix, now: float) -> None:
        network = _network(prefix.prefix, prefix.length)
        if ipv6.is_link_local(prefix.prefix) or ipv6.is_multicast(prefix.prefix):
            return
        valid = _until(now, prefix.valid)
        if prefix.on_link:
            key = (network, prefix.length)
            if not prefix.valid:
                if self.prefixes.pop(key, None) is not None:
                    self._owner.drop_route(*key, None)
            elif key in self.prefixes or len(self.prefixes) < MAX_PREFIXES:
                if key not in self.prefixes:
                    self._owner.set_route(*key, None)
                self.prefixes[key] = valid
        # RFC 4862 §5.5.3: (c) lifetimes that contradict, (d) no address of ours yet, and length.
        if not prefix.autonomous or prefix.preferred > prefix.valid or prefix.length != 64:
            return
        existing = [
            own
            for own in self.addresses.values()
            if own.origin == "slaac" and own.address[:8] == network[:8]
        ]
        preferred = _until(now, prefix.preferred)
        if not existing and prefix.valid:
            self._make(network, "slaac", now, now, valid, preferred, 0)
        for own in existing:
            # (e): nobody shortens a lifetime below two hours by an advertisement.
            left = own.valid_until - now
            if prefix.valid > TWO_HOURS or valid > own.valid_until:
                own.valid_until = valid
            elif left > TWO_HOURS:
                own.valid_until = now + TWO_HOURS
            own.preferred_until = preferred
            if own.state == DEPRECATED and preferred > now:
                own.state = PREFERRED
                self._owner.address_changed(own)

    def _resolvers(self, lifetime: int, addresses: tuple[bytes, ...], now: float) -> None:
        """RFC 8106 §5.3.1, §6.2."""
        for address in addresses:
            self.servers.pop(address, None)
            if lifetime and len(self.servers) < MAX_SERVERS:
                self.servers[address] = _until(now, lifetime)

    def redirected(self, src: bytes, redirect: ndp.Redirect, now: float) -> None:
        """RFC 4861 §8.3: a better first hop, if it is our first hop that says so (§8.1)."""
        if self._owner.first_hop(redirect.destination) != src:
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
        self._owner.set_route(destination, 128, None if on_link else target)

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
        self._drop_router(address)

    def _forget_redirect(self, destination: bytes) -> None:
        target = self.redirects.pop(destination, None)
        if target is not None:
            hop = None if target == destination else target
            self._owner.drop_route(destination, 128, hop)

    def _drop_router(self, router: bytes) -> None:
        if self.routers.pop(router, None) is not None:
            self._owner.drop_route(bytes(16), 0, router)
            for destination in [d for d, hop in self.redirects.items() if hop == router]:
                self._forget_redirect(destination)


def _network(address: bytes, prefix_len: int) -> bytes:
    shift = 128 - prefix_len
    return (int.from_bytes(address) >> shift << shift).to_bytes(16)


def _until(now: float, lifetime: int) -> float:
    """When something that was told to live for `lifetime` seconds ends (RFC 4861 §4.6.2)."""
    return inf if lifetime == ndp.INFINITE else now + lifetime
