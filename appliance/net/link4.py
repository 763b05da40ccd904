"""How a link comes by its IPv4 addresses: given, lent (DHCP), or taken where nobody has one.

The machines decide (`dhcp`, `acd`, `linklocal`); here their decisions meet, and become addresses
and routes of the network layer. An address that was given is probed for first if that is wanted
(RFC 5227 §2.1) and announced and defended in any case; one that is lent is always probed for.

Imports the machines and `wire`; it knows its link and the network layer by their interfaces.
"""

from __future__ import annotations

import random as random_module
from math import inf
from typing import TYPE_CHECKING, Final

from appliance.net import dhcp, linklocal
from appliance.net.acd import Claim
from appliance.net.ip import Local
from appliance.net.path import frame
from appliance.net.routes import Route
from appliance.net.wire import arp, ethernet, ipv4, udp
from appliance.net.wire import dhcp as wire_dhcp
from appliance.net.wire.virtio import PLAIN

if TYPE_CHECKING:
    from appliance.net.link import Link, LinkNetwork

UNANSWERED: Final = 3
"""Discovers without an answer before an address is taken by RFC 3927: after some 12 seconds."""
MAX_REDIRECTS: Final = 64
"""Destinations with a first hop of their own: they are taken from the table of all routes."""
PROBE_AGAIN: Final = linklocal.RATE_LIMIT_INTERVAL
"""Seconds after which a given address that somebody else has is asked for again."""


class Ipv4Configuration:
    """The IPv4 addresses of one link."""

    def __init__(self, link: Link, network: LinkNetwork, random: random_module.Random) -> None:
        self.dhcp: dhcp.Client | None = None
        self.lease: dhcp.Lease | None = None
        self._asking = False
        self._link = link
        self._network = network
        self._random = random
        self._claims: dict[bytes, Claim] = {}
        self._given: dict[bytes, tuple[int, bool]] = {}
        """Addresses of the operator's -> prefix length, and whether they are probed for."""
        self._again: dict[bytes, float] = {}
        """Those that are to be probed for -> when, seconds; minus infinity is the first turn."""
        self._redirects: dict[bytes, bytes] = {}
        """Destination -> better first hop (RFC 1122 §3.2.2.2), oldest first."""
        self._conflicts = 0  # of link-local addresses (RFC 3927)
        self._fall_back_at = -inf  # not before, seconds: what RFC 3927 §2.2.1 limits
        self._fallback: bytes = b""  # the link-local address that is claimed or held

    def use_dhcp(self, name: str) -> None:
        """Ask for an address from the next turn on, and take a link-local one without."""
        if self.dhcp is None:
            self.dhcp = dhcp.Client(self, self._link.mac, random=self._random, name=name)

    def add(self, address: bytes, prefix_len: int, *, probe: bool) -> None:
        """Take an address that the operator gave; with `probe`, when nobody else has it."""
        self._given[address] = prefix_len, probe
        if probe:
            self._again[address] = -inf
            # A gateway may be named before the address is ours.
            self._on_link(address, prefix_len, "static")
        else:
            # Deviates from RFC 5227 §2.1, which would probe first: the operator's word is taken at
            # once, announced, and defended for as long as the appliance runs (§2.4 (c)).
            self._take(address, prefix_len, "static")
            self._claim(address, keep=True, probe=False)

    # ------------------------------------------------------------------ time

    def deadline(self) -> float:
        """When `advance` is due, seconds; inf: never."""
        due = self.dhcp.deadline() if self.dhcp is not None else inf
        for claim in self._claims.values():
            due = min(due, claim.deadline())
        for at in self._again.values():
            due = min(due, at)
        return due

    def start(self, now: float) -> None:
        """Begin with what has not begun."""
        if self.dhcp is not None and not self._asking:
            self._asking = True
            self.dhcp.start(now)

    def advance(self, now: float) -> None:
        """Let every machine do what is due."""
        for address in [address for address, at in self._again.items() if at <= now]:
            del self._again[address]
            self._claim(address, keep=True, probe=True)
        for claim in list(self._claims.values()):
            if claim.deadline() <= now:
                claim.advance(now)
        client = self.dhcp
        if client is not None and client.deadline() <= now:
            client.advance(now)
            if client.unanswered >= UNANSWERED and not self._fallback and self._fall_back_at <= now:
                self._fall_back()

    def close(self, now: float) -> None:
        """Give back what was lent."""
        if self.dhcp is not None:
            self.dhcp.stop(now)

    # ------------------------------------------------------------------ what arrives

    def arp_arrives(self, packet: arp.ArpPacket, now: float) -> None:
        """Any ARP packet, to those who watch over addresses."""
        for claim in list(self._claims.values()):
            claim.arp_arrives(packet, now)

    @property
    def watching(self) -> bool:
        """Whether `arp_arrives` has anybody to tell."""
        return bool(self._claims)

    def redirected(self, src: bytes, destination: bytes, gateway: bytes) -> None:
        """A better first hop, if it is our first hop that says so, of a neighbour of ours.

        RFC 1122 §3.2.2.2: everything else MUST be discarded.
        """
        routes = self._network.routes
        before = routes.lookup(destination, self._link)
        near = routes.lookup(gateway, self._link)
        if before is None or before.gateway != src or near is None or near.gateway is not None:
            return
        self._forget_redirect(destination)
        if len(self._redirects) >= MAX_REDIRECTS:
            oldest, hop = next(iter(self._redirects.items()))
            self._forget_redirect(oldest)
            self._network.rerouted(self._link, hop)
        try:
            routes.add(Route(destination, 32, self._link, gateway, origin="redirect"))
        except ValueError:
            return  # the table is full: longer detours, nothing worse
        self._redirects[destination] = gateway
        self._network.rerouted(self._link, src)

    def lost(self, address: bytes) -> None:
        """A neighbour does not answer: nothing is redirected to it (RFC 1122 §3.3.1.5)."""
        for destination in [d for d, hop in self._redirects.items() if hop == address]:
            self._forget_redirect(destination)
            self._network.rerouted(self._link, address)

    def _forget_redirect(self, destination: bytes) -> None:
        if self._redirects.pop(destination, None) is not None:
            self._network.routes.remove(
                lambda r: (
                    r.origin == "redirect" and r.link is self._link and r.network == destination
                )
            )

    # ------------------------------------------------------------------ addresses and routes

    def _on_link(self, address: bytes, prefix_len: int, origin: str) -> None:
        shift = 32 - prefix_len
        network = (int.from_bytes(address) >> shift << shift).to_bytes(4)
        if prefix_len < 32:
            self._network.routes.add(Route(network, prefix_len, self._link, None, origin=origin))

    def _take(self, address: bytes, prefix_len: int, origin: str) -> None:
        self._network.address_taken(Local(address, prefix_len, self._link, origin))
        self._on_link(address, prefix_len, origin)

    def _give_up(self, address: bytes, origin: str) -> None:
        claim = self._claims.pop(address, None)
        if claim is not None:
            claim.withdraw()
        for destination in list(self._redirects):
            self._forget_redirect(destination)
        self._network.routes.remove(lambda r: r.link is self._link and r.origin == origin)
        self._network.address_lost(address)

    # ------------------------------------------------------------------ claims

    def _claim(self, address: bytes, *, keep: bool, probe: bool) -> None:
        claim = Claim(
            address,
            self._link.mac,
            self._send_arp,
            random=self._random,
            on_ready=lambda: self._claimed(address),
            on_conflict=lambda mac: self._contested(address, mac),
            on_rival=(lambda mac: self._rival(address, mac)) if keep else None,
            keep=keep,
        )
        self._claims[address] = claim
        claim.start(self._network.now, probe=probe)
        self._link.soon(claim.deadline())

    def _send_arp(self, packet: bytes) -> None:
        mac = self._link.mac
        head = PLAIN + ethernet.header(ethernet.BROADCAST, mac, ethernet.ETHERTYPE_ARP)
        self._network.counters.arp_announcements += 1
        self._link.emit(head + packet)

    def _claimed(self, address: bytes) -> None:
        if address in self._given:
            prefix_len, probed = self._given[address]
            if probed:
                self._take(address, prefix_len, "static")
        elif address == self._fallback:
            self._take(address, linklocal.PREFIX_LEN, "link-local")
        elif self.dhcp is not None and self.dhcp.lease is not None:
            self.dhcp.checked(True, self._network.now)

    def _contested(self, address: bytes, mac: bytes) -> None:
        """Somebody else has, or wants, an address (RFC 5227 §2.1.1, §2.4; RFC 3927 §2.5)."""
        self._network.counters.arp_address_conflicts += 1
        self._network.contested(address, mac)
        if address in self._given:
            # RFC 5227 §2.1.1: it MUST NOT be used, and the operator hears so. Who has it may be
            # switched off, so it is asked for now and then.
            del self._claims[address]
            self._again[address] = self._network.now + PROBE_AGAIN
        elif address == self._fallback:
            self._conflicts += 1
            self._give_up(address, "link-local")
            self._fallback = b""
            wait = linklocal.wait(self._conflicts)
            self._fall_back_at = self._network.now + wait
            if not wait:
                self._fall_back()
        elif self.dhcp is not None:
            self._claims.pop(address, None)
            if self.dhcp.state == dhcp.CHECKING:
                self.dhcp.checked(False, self._network.now)
            else:
                self.dhcp.conflict(self._network.now)

    def _rival(self, address: bytes, mac: bytes) -> None:
        """Somebody else uses an address that is kept (RFC 5227 §2.4 (c)): the operator hears so."""
        self._network.counters.arp_address_conflicts += 1
        self._network.contested(address, mac, kept=True)

    def _fall_back(self) -> None:
        """RFC 3927: no server answers, so an address is taken that nobody else has."""
        self._fallback = linklocal.candidate(self._link.mac, self._conflicts)
        self._claim(self._fallback, keep=False, probe=True)

    # ------------------------------------------------------------------ dhcp's owner

    def send_dhcp(self, message: bytes, src: bytes, dst: bytes) -> None:
        """Send from port 68 to port 67; without an address, or to everybody, as a broadcast."""
        link = self._link
        body = udp.build(src, dst, wire_dhcp.CLIENT_PORT, wire_dhcp.SERVER_PORT, message)
        packet = ipv4.header(src, dst, ipv4.PROTO_UDP, len(body)) + body
        mac: bytes | None = ethernet.BROADCAST
        if dst != dhcp.EVERYBODY:
            route = self._network.routes.lookup(dst, link)
            hop = dst if route is None or route.gateway is None else route.gateway
            neighbor = link.arp.lookup(hop, self._network.now)
            mac = neighbor.mac
            if mac is None:
                link.arp.enqueue(neighbor, frame(link.mac, bytes(6), packet))
                return
        link.emit(frame(link.mac, mac or ethernet.BROADCAST, packet))

    def check(self, address: bytes) -> None:
        """Probe the address that a server offers (RFC 2131 §2.2, RFC 5227)."""
        self._claim(address, keep=False, probe=True)

    def bound(self, lease: dhcp.Lease) -> None:
        """The lease is ours, or goes on with these routes."""
        self._network.routes.remove(lambda r: r.link is self._link and r.origin == "dhcp")
        before, self.lease = self.lease, lease
        if self._fallback:
            # RFC 3927 §1.9: no link-local address beside a better one.
            self._give_up(self._fallback, "link-local")
            self._fallback = b""
        self._take(lease.address, lease.prefix_len, "dhcp")
        for network, prefix_len, router in lease.routes:
            gateway = router if any(router) else None
            try:
                self._network.routes.add(
                    Route(network, prefix_len, self._link, gateway, origin="dhcp")
                )
            except ValueError:
                break
        if before is not None:
            # Whoever went by a router of before finds the way anew.
            for router in {was[2] for was in before.routes} - {now[2] for now in lease.routes}:
                self._network.rerouted(self._link, router)
        most = self._link.vif.mtu
        self._link.carry(min(lease.mtu or most, most), self._link.mtu6)

    def unbound(self, lease: dhcp.Lease) -> None:
        """The lease is over."""
        self.lease = None
        self._link.carry(self._link.vif.mtu, self._link.mtu6)
        self._give_up(lease.address, "dhcp")
