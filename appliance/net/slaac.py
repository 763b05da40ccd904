"""An IPv6 interface configures itself: addresses, on top of what routers tell (RFC 4862).

    link-local address -> is it a duplicate? -> routers? -> prefixes -> addresses -> duplicates?

Addresses are *tentative* until nobody has objected (duplicate address detection, with the nonce of
RFC 7527 against our own echo), then *preferred*, later perhaps *deprecated*, and gone when their
lifetime ends. Identifiers are those of RFC 7217. Routers, prefixes, redirects and resolvers are
`router_discovery`'s.

The machine decides; its owner acts: sends messages, keeps the tables of addresses and routes.
Sans-I/O. Imports `router_discovery`, `neighbor6`, `stable_iid`, `wire`.
"""

from __future__ import annotations

import random as random_module
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from appliance.net.neighbor6 import NeighborCache6
from appliance.net.router_discovery import LinkOwner, RouterDiscovery, ends_at, network_of
from appliance.net.stable_iid import IDGEN_DELAY, IDGEN_RETRIES, identifier
from appliance.net.wire import icmpv6, ipv6, ndp

MAX_RTR_SOLICITATION_DELAY: Final = 1.0
"""Seconds (RFC 4861 §10)."""
DUP_ADDR_DETECT_TRANSMITS: Final = 1
"""Solicitations before an address is ours (RFC 4862 §5.1)."""
TWO_HOURS: Final = 7200.0
"""Seconds that an advertisement cannot shorten a lifetime below (RFC 4862 §5.5.3 (e))."""
SPOILT: Final = 60.0
"""Seconds until identifiers are tried anew for a prefix whose every address was somebody else's:
RFC 7217 §6 does not say, and for IPv4 one waits as long (RFC 5227 §1.1)."""
MAX_ADDRESSES: Final = 16
"""A flood of prefixes makes no more of them (RFC 6104, RFC 8504 §5.4)."""

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


class Owner(LinkOwner, Protocol):
    """What the machine has done to the world around it."""

    def address_changed(self, own: OwnAddress) -> None:
        """An address became preferred or deprecated."""

    def address_gone(self, own: OwnAddress, duplicate: bool) -> None:
        """An address expired, or is somebody else's."""

    def join(self, group: bytes) -> None:
        """Hear a group."""

    def leave(self, group: bytes) -> None:
        """Hear it no longer."""


class Slaac(RouterDiscovery):
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
        super().__init__(owner, cache, mac, mtu, random=random, autonomous=autonomous)
        self._owner = owner
        self._name = name
        self._secret = secret
        self._detect = detect
        self.addresses: dict[bytes, OwnAddress] = {}
        self.duplicates = 0
        self._spoilt: dict[bytes, float] = {}
        """First half of a prefix -> until when no address is made of it."""
        self.ready = False
        """The link-local address is ours."""

    # ------------------------------------------------------------------ beginning

    def start(self, now: float) -> None:
        """Make the link-local address, and go on from there (RFC 4862 §5.3)."""
        self._owner.join(ipv6.ALL_NODES)
        self._make(LINK_LOCAL_PREFIX, "link-local", now, now, inf, inf, 0)

    def add(self, address: bytes, prefix_len: int, now: float) -> None:
        """Take a static address; it is ours when nobody has objected."""
        self._admit(OwnAddress(address, prefix_len, "static"), now, now)
        network = network_of(address, prefix_len)
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
        times = [self._told_until(), self._spoilt.get(LINK_LOCAL_PREFIX, inf)]
        for own in self.addresses.values():
            times.append(own.check_at)
            if own.state != TENTATIVE:
                times.append(own.valid_until)
                if own.state == PREFERRED:
                    times.append(own.preferred_until)
        return min(times)

    def advance(self, now: float) -> None:
        """Do what is due."""
        for prefix in [prefix for prefix, until in self._spoilt.items() if until <= now]:
            del self._spoilt[prefix]
            if prefix == LINK_LOCAL_PREFIX:
                self._make(prefix, "link-local", now, now, inf, inf, 0)
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
        self._forget_expired(now)

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
            self._look_for_routers(now)
        if own.prefix_len < 128 and own.origin == "link-local":
            self._owner.set_route(LINK_LOCAL_PREFIX + bytes(8), 64, None)

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
        prefix = own.address[:8]
        if own.origin == "static":
            return
        if own.counter >= IDGEN_RETRIES:
            self._spoilt[prefix] = now + SPOILT  # each cost its sender seconds, so they are few
        else:
            at = now + self._random.random() * IDGEN_DELAY
            self._make(
                prefix, own.origin, now, at, own.valid_until, own.preferred_until, own.counter + 1
            )

    def _remove(self, own: OwnAddress, *, duplicate: bool = False) -> None:
        del self.addresses[own.address]
        self._owner.leave(ipv6.solicited_node(own.address))
        self._owner.address_gone(own, duplicate)

    # ------------------------------------------------------------------ routers speak

    def _address_from(self, network: bytes, prefix: ndp.Prefix, now: float) -> None:
        # RFC 4862 §5.5.3: (c) lifetimes that contradict, (d) no address of ours yet, and length.
        if prefix.preferred > prefix.valid or prefix.length != 64:
            return
        valid = ends_at(now, prefix.valid)
        existing = [
            own
            for own in self.addresses.values()
            if own.origin == "slaac" and own.address[:8] == network[:8]
        ]
        preferred = ends_at(now, prefix.preferred)
        if not existing and prefix.valid and self._spoilt.get(network[:8], now) <= now:
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
