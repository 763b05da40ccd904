"""One link of a host: an interface, the neighbours behind it, and how it gets its addresses.

The machines that find addresses (`slaac`, `dhcp`, `acd`) decide, and a link does what they say: it
sends their messages, and tells the network layer which addresses and routes there are now. What
is due next over all of them is kept as one number, since it is asked for after every turn.

Imports the machines, the neighbours, `wire`; it knows the network layer by an interface only.
"""

from __future__ import annotations

import random as random_module
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Protocol

from appliance.net import dhcp, linklocal
from appliance.net.acd import Claim
from appliance.net.agenda import Agenda
from appliance.net.counters import Counters
from appliance.net.ip import Local
from appliance.net.mld import Listener
from appliance.net.neighbor import NeighborCache, Sender
from appliance.net.neighbor6 import NeighborCache6
from appliance.net.path import frame
from appliance.net.routes import Route, Routes
from appliance.net.slaac import DEPRECATED, OwnAddress, Slaac
from appliance.net.vif.base import Vif
from appliance.net.wire import arp, ethernet, icmpv6, ipv4, ipv6, mld, ndp, udp
from appliance.net.wire import dhcp as wire_dhcp
from appliance.net.wire.virtio import PLAIN

UNANSWERED: Final = 3
"""Discovers without an answer before an address is taken by RFC 3927: after some 12 seconds."""


class LinkNetwork(Protocol):
    """What a link tells its network layer."""

    counters: Counters
    routes: Routes
    agenda: Agenda
    now: float

    def address_taken(self, own: Local) -> None:
        """An address is ours from now on, or has become deprecated or preferred."""

    def address_lost(self, address: bytes) -> None:
        """An address is ours no longer."""

    def source_on(self, link: Link, destination: bytes) -> bytes:
        """Our address to speak to a neighbour from; all zero without one."""
        ...

    def unreachable(self, address: bytes, frames: list[bytes]) -> None:
        """Nobody answers at a next hop."""

    def rerouted(self, link: Link, hop: bytes) -> None:
        """What went by `hop` goes another way, if there is one."""


@dataclass(frozen=True, slots=True)
class Ipv6Settings:
    """How a link speaks IPv6; `secret` makes identifiers stable (RFC 7217), 16 octets or more."""

    secret: bytes
    autonomous: bool = True  # take routers and prefixes from advertisements
    detect: int = 1  # solicitations of duplicate address detection; 0: none


class Link:
    """One interface of a host; `name` is its interface's."""

    def __init__(self, network: LinkNetwork, vif: Vif, random: random_module.Random) -> None:
        self.vif = vif
        self.name = vif.name
        self.mac = vif.mac
        self.udp_segments = vif.udp_segments
        """Datagrams that may leave in one frame; 0: each in its own."""
        self.mtu = vif.mtu
        """Octets of IPv4 packet."""
        self.mtu6 = vif.mtu
        """Octets of IPv6 packet: a router may say less."""
        self.send: Sender = vif.send
        self.blocked = False
        """The interface has refused a frame; cleared when it has room."""
        self.due = inf
        """When `advance` has something to do besides the neighbours, seconds."""
        self.on_duplicate: list[str] = []
        """Addresses that turned out to be somebody else's, for those who report."""
        self._network = network
        self._random = random
        self.arp = NeighborCache(
            vif.mac,
            vif.send,
            source_for=lambda address: network.source_on(self, address),
            random=random,
            on_unreachable=network.unreachable,
            link=self,
            agenda=network.agenda,
        )
        self.nd = NeighborCache6(
            vif.mac,
            vif.send,
            source_for=lambda address: network.source_on(self, address),
            random=random,
            on_unreachable=network.unreachable,
            on_lost=self._lost,
            link=self,
            agenda=network.agenda,
        )
        self.groups = Listener(self._report, random)
        self.slaac: Slaac | None = None
        self.dhcp: dhcp.Client | None = None
        self.lease: dhcp.Lease | None = None
        self._claims: dict[bytes, Claim] = {}
        self._conflicts = 0  # of link-local addresses (RFC 3927)
        self._fallback: bytes = b""  # the link-local address that is claimed or held
        self._pending: list[tuple[bytes, int]] = []  # IPv6 addresses to take at the first turn

    # ------------------------------------------------------------------ beginning

    def use_ipv6(self, settings: Ipv6Settings) -> None:
        """Speak IPv6 from the next turn on."""
        if self.slaac is None:
            self.slaac = Slaac(
                self,
                self.nd,
                self.mac,
                self.name,
                self.vif.mtu,
                secret=settings.secret,
                random=self._random,
                autonomous=settings.autonomous,
                detect=settings.detect,
            )
            self._at_once()

    def use_dhcp(self, name: str = "") -> None:
        """Ask for an IPv4 address from the next turn on, and take a link-local one without."""
        if self.dhcp is None:
            self.dhcp = dhcp.Client(self, self.mac, random=self._random, name=name)
            self._at_once()

    def add_static(self, address: bytes, prefix_len: int) -> None:
        """Take an address that the operator gave; `use_ipv6` first, for one of IPv6."""
        if len(address) == 16:
            self._pending.append((address, prefix_len))
            self._at_once()
            return
        self._take(address, prefix_len, "static")
        # Deviates from RFC 5227 §2.1, which would probe first: the operator's word is taken at
        # once, announced, and defended for as long as the appliance runs (§2.4 (c)).
        self._claim(address, keep=True, probe=False)

    def _at_once(self) -> None:
        self.due = -inf
        self._network.agenda.lower(-inf)

    def _start(self, now: float) -> None:
        if self.slaac is not None and not self.slaac.addresses:
            self.slaac.start(now)
        if self.dhcp is not None and self.dhcp.deadline() == inf and self.lease is None:
            self.dhcp.start(now)
        while self._pending and self.slaac is not None:
            self.slaac.add(*self._pending.pop(0), now)

    # ------------------------------------------------------------------ time

    def deadline(self) -> float:
        """When `advance` is due, seconds; inf: never."""
        return min(self.due, self.arp.deadline(), self.nd.deadline())

    def advance(self, now: float) -> None:
        """Let every machine do what is due."""
        if self.arp.deadline() <= now:
            self.arp.advance(now)
        if self.nd.deadline() <= now:
            self.nd.advance(now)
        if self.due > now:
            return
        self._start(now)
        if self.slaac is not None and self.slaac.deadline() <= now:
            self.slaac.advance(now)
        if self.groups.deadline() <= now:
            self.groups.advance(now)
        for claim in list(self._claims.values()):
            if claim.deadline() <= now:
                claim.advance(now)
        client = self.dhcp
        if client is not None and client.deadline() <= now:
            client.advance(now)
            if client.unanswered >= UNANSWERED and not self._fallback:
                self._fall_back()
        self.review()

    def review(self) -> None:
        """Look at when the machines are next due; called after whatever may have moved that."""
        due = self.groups.deadline()
        if self.slaac is not None:
            due = min(due, self.slaac.deadline())
        if self.dhcp is not None:
            due = min(due, self.dhcp.deadline())
        for claim in self._claims.values():
            due = min(due, claim.deadline())
        self.due = due
        self._network.agenda.lower(due)

    def divert(self, send: Sender) -> None:
        """Send by `send` from now on: for those who watch a link."""
        self.send = send
        self.arp.divert(send)
        self.nd.divert(send)

    def close(self, now: float) -> None:
        """Give back what was lent."""
        if self.dhcp is not None:
            self.dhcp.stop(now)

    # ------------------------------------------------------------------ what arrives

    def arp_arrives(self, data: bytes, at: int, now: float, local: dict[bytes, Local]) -> None:
        """An ARP packet, to the cache and to those who watch over addresses; raises WireError."""
        self.arp.arp_arrives(data, at, len(data), now, local)
        if self._claims:
            packet = arp.parse(data, at, len(data))
            for claim in list(self._claims.values()):
                claim.arp_arrives(packet, now)
            self.review()

    def dhcp_arrives(self, payload: bytes, now: float) -> None:
        """A datagram to the client's port; raises WireError."""
        if self.dhcp is not None:
            try:
                self.dhcp.received(payload, now)
            finally:
                self.review()

    def icmp6_arrives(
        self, data: bytes, packet: ipv6.Ipv6Packet, message: icmpv6.Icmpv6Message, now: float
    ) -> bool:
        """A message of discovery or of listeners; False if it is none. Raises WireError."""
        kind = message.type
        machine = self.slaac
        if machine is None:
            return False
        if kind == icmpv6.MLD_QUERY:
            # RFC 3810 §6.2: from a link-local address, with a hop limit of 1.
            counters = self._network.counters
            if not ipv6.is_link_local(packet.src) or packet.hop_limit != 1:
                counters.mld_ignored += 1
            else:
                counters.mld_in += 1
                at, end = message.body_at, message.body_end
                self.groups.query_arrives(mld.parse_query(data, at, end, message.rest), now)
                self.review()
            return True
        if not icmpv6.ROUTER_SOLICITATION <= kind <= icmpv6.REDIRECT:
            return False
        # RFC 4861 §6.1, §7.1, §8.1: nothing that was forwarded, and code 0.
        if packet.hop_limit != ndp.HOP_LIMIT or message.code:
            self._network.counters.nd_hop_limit += 1
            return True
        self._network.counters.nd_in += 1
        try:
            self._discovery(machine, data, packet, message, now)
        finally:
            self.review()
        return True

    def _discovery(
        self,
        machine: Slaac,
        data: bytes,
        packet: ipv6.Ipv6Packet,
        message: icmpv6.Icmpv6Message,
        now: float,
    ) -> None:
        kind, at, end, rest = message.type, message.body_at, message.body_end, message.rest
        src, dst = packet.src, packet.dst
        if kind == icmpv6.NEIGHBOR_SOLICITATION:
            machine.solicited(src, ndp.parse_solicitation(data, at, end, src, dst), now)
        elif kind == icmpv6.NEIGHBOR_ADVERTISEMENT:
            heard = ndp.parse_advertisement(data, at, end, dst, rest)
            machine.advertised(heard, now)
            if heard.solicited:
                self._network.routes.demote(heard.target, self, False)
        elif kind == icmpv6.ROUTER_ADVERTISEMENT:
            machine.router_advertised(
                src, ndp.parse_router_advertisement(data, at, end, src, rest), now
            )
            self._network.routes.demote(src, self, False)
        elif kind == icmpv6.REDIRECT:
            redirect = ndp.parse_redirect(data, at, end, src)
            before = self.first_hop(redirect.destination)
            machine.redirected(src, redirect, now)
            if before is not None:
                self._network.rerouted(self, before)
        else:
            self._network.counters.nd_ignored += 1  # a solicitation for routers: we are none

    # ------------------------------------------------------------------ IPv6: slaac's owner

    def send_icmp6(
        self, src: bytes, dst: bytes, kind: int, rest: int, body: bytes, mac: bytes = b""
    ) -> None:
        """Send a Neighbour Discovery message with hop limit 255."""
        message = icmpv6.build(src, dst, kind, 0, rest, body)
        head = ipv6.header(src, dst, icmpv6.PROTOCOL, len(message), hop_limit=ndp.HOP_LIMIT)
        if ipv6.is_multicast(dst):
            mac = ipv6.multicast_mac(dst)
        packet = head + message
        if mac:
            self._emit(frame(self.mac, mac, packet))
            return
        neighbor = self.nd.lookup(dst, self._network.now)
        if neighbor.mac is None:
            self.nd.enqueue(neighbor, frame(self.mac, bytes(6), packet))
        else:
            self._emit(frame(self.mac, neighbor.mac, packet))

    def _report(self, records: list[tuple[int, bytes]]) -> None:
        """RFC 3810 §5: behind a router alert, with a hop limit of 1, to the routers' group."""
        source = self.slaac.link_local() if self.slaac is not None else None
        src, dst = source or ipv6.UNSPECIFIED, ipv6.ALL_MLDV2_ROUTERS
        rest, body = mld.report(records)
        message = icmpv6.build(src, dst, icmpv6.MLDV2_REPORT, 0, rest, body)
        alert = ipv6.router_alert(icmpv6.PROTOCOL)
        head = ipv6.header(src, dst, ipv6.HOP_BY_HOP, len(alert) + len(message), hop_limit=1)
        self._emit(frame(self.mac, ipv6.multicast_mac(dst), head + alert + message))

    def address_changed(self, own: OwnAddress) -> None:
        """An IPv6 address is ours, or its state has changed."""
        deprecated = own.state == DEPRECATED
        try:
            self._network.address_taken(
                Local(own.address, own.prefix_len, self, own.origin, deprecated)
            )
        except ValueError:
            pass  # beyond the bound of addresses: it is not used

    def address_gone(self, own: OwnAddress, duplicate: bool) -> None:
        """An IPv6 address expired, or is somebody else's."""
        if duplicate:
            self._network.counters.nd_duplicate_address += 1
        self._network.address_lost(own.address)

    def join(self, group: bytes) -> None:
        """Hear a group."""
        self.groups.join(group, self._network.now)

    def leave(self, group: bytes) -> None:
        """Hear it no longer."""
        self.groups.leave(group, self._network.now)

    def set_route(self, network: bytes, prefix_len: int, gateway: bytes | None) -> None:
        """There is a way to a prefix; what the settings say stands."""
        for route in self._network.routes:
            where = (route.network, route.prefix_len, route.gateway, route.origin)
            if route.link is self and where == (network, prefix_len, gateway, "static"):
                return
        try:
            self._network.routes.add(Route(network, prefix_len, self, gateway, origin="ra"))
        except ValueError:
            pass  # the table is full: longer detours, nothing worse

    def drop_route(self, network: bytes, prefix_len: int, gateway: bytes | None) -> None:
        """There is no longer."""
        self._network.routes.remove(
            lambda r: (
                r.origin == "ra"
                and r.link is self
                and (r.network, r.prefix_len, r.gateway) == (network, prefix_len, gateway)
            )
        )
        if gateway is not None:
            self._network.rerouted(self, gateway)

    def first_hop(self, destination: bytes) -> bytes | None:
        """The router that packets to `destination` go to now."""
        route = self._network.routes.lookup(destination, self)
        return route.gateway if route is not None else None

    def path_mtu6(self, mtu: int) -> None:
        """A router says what packets this link carries (RFC 4861 §6.3.4)."""
        self.mtu6 = mtu

    def _lost(self, address: bytes) -> None:
        """A neighbour no longer answers: its routes are the last to be taken."""
        self._network.routes.demote(address, self, True)
        if self.slaac is not None:
            self.slaac.lost(address, self._network.now)
            self.review()
        self._network.rerouted(self, address)

    # ------------------------------------------------------------------ IPv4

    def _take(self, address: bytes, prefix_len: int, origin: str) -> None:
        shift = 32 - prefix_len
        network = (int.from_bytes(address) >> shift << shift).to_bytes(4)
        self._network.address_taken(Local(address, prefix_len, self, origin))
        if prefix_len < 32:
            self._network.routes.add(Route(network, prefix_len, self, None, origin=origin))

    def _give_up(self, address: bytes, origin: str) -> None:
        claim = self._claims.pop(address, None)
        if claim is not None:
            claim.withdraw()
        self._network.routes.remove(lambda r: r.link is self and r.origin == origin)
        self._network.address_lost(address)

    def _claim(self, address: bytes, *, keep: bool, probe: bool) -> None:
        claim = Claim(
            address,
            self.mac,
            self._send_arp,
            random=self._random,
            on_ready=lambda: self._claimed(address),
            on_conflict=lambda mac: self._contested(address),
            keep=keep,
        )
        self._claims[address] = claim
        claim.start(self._network.now, probe=probe)
        self.due = min(self.due, claim.deadline())
        self._network.agenda.lower(self.due)

    def _send_arp(self, packet: bytes) -> None:
        head = PLAIN + ethernet.header(ethernet.BROADCAST, self.mac, ethernet.ETHERTYPE_ARP)
        self._network.counters.arp_announcements += 1
        self._emit(head + packet)

    def _claimed(self, address: bytes) -> None:
        if address == self._fallback:
            self._take(address, linklocal.PREFIX_LEN, "link-local")
        elif self.dhcp is not None and self.dhcp.lease is not None:
            self.dhcp.checked(True, self._network.now)

    def _contested(self, address: bytes) -> None:
        """Somebody else has, or wants, an address (RFC 5227 §2.1.1, §2.4; RFC 3927 §2.5)."""
        self._network.counters.arp_address_conflicts += 1
        if address == self._fallback:
            self._conflicts += 1
            self._give_up(address, "link-local")
            self._fallback = b""
            if linklocal.wait(self._conflicts) == 0.0:
                self._fall_back()
        elif self.dhcp is not None:
            self._claims.pop(address, None)
            if self.dhcp.state == dhcp.CHECKING:
                self.dhcp.checked(False, self._network.now)
            else:
                self.dhcp.conflict(self._network.now)

    def _fall_back(self) -> None:
        """RFC 3927: no server answers, so an address is taken that nobody else has."""
        self._fallback = linklocal.candidate(self.mac, self._conflicts)
        self._claim(self._fallback, keep=False, probe=True)

    # dhcp's owner.

    def send_dhcp(self, message: bytes, src: bytes, dst: bytes) -> None:
        """Send from port 68 to port 67; without an address, or to everybody, as a broadcast."""
        body = udp.build(src, dst, wire_dhcp.CLIENT_PORT, wire_dhcp.SERVER_PORT, message)
        packet = ipv4.header(src, dst, ipv4.PROTO_UDP, len(body)) + body
        mac: bytes | None = ethernet.BROADCAST
        if dst != dhcp.EVERYBODY:
            route = self._network.routes.lookup(dst, self)
            hop = dst if route is None or route.gateway is None else route.gateway
            neighbor = self.arp.lookup(hop, self._network.now)
            mac = neighbor.mac
            if mac is None:
                self.arp.enqueue(neighbor, frame(self.mac, bytes(6), packet))
                return
        self._emit(frame(self.mac, mac or ethernet.BROADCAST, packet))

    def check(self, address: bytes) -> None:
        """Probe the address that a server offers (RFC 2131 §2.2, RFC 5227)."""
        self._claim(address, keep=False, probe=True)

    def bound(self, lease: dhcp.Lease) -> None:
        """The lease is ours, or goes on with these routes."""
        self._network.routes.remove(lambda r: r.link is self and r.origin == "dhcp")
        self.lease = lease
        if self._fallback:
            # RFC 3927 §1.9: no link-local address beside a better one.
            self._give_up(self._fallback, "link-local")
            self._fallback = b""
        self._take(lease.address, lease.prefix_len, "dhcp")
        for network, prefix_len, router in lease.routes:
            gateway = router if any(router) else None
            try:
                self._network.routes.add(Route(network, prefix_len, self, gateway, origin="dhcp"))
            except ValueError:
                break
        if lease.mtu:
            self.mtu = min(lease.mtu, self.vif.mtu)

    def unbound(self, lease: dhcp.Lease) -> None:
        """The lease is over."""
        self.lease = None
        self.mtu = self.vif.mtu
        self._give_up(lease.address, "dhcp")

    def _emit(self, octets: bytes) -> None:
        if self.send(octets, b""):
            self._network.counters.frames_out += 1
        else:
            self._network.counters.vif_full += 1

    def __repr__(self) -> str:
        return f"<Link {self.name}>"

    def state(self) -> dict[str, Any]:
        """What an engineer wants to know of the link, in words and numbers."""
        return {
            "name": self.name,
            "mac": ethernet.mac_text(self.mac),
            "mtu": self.mtu,
            "mtu6": self.mtu6,
            "dhcp": self.dhcp.state if self.dhcp is not None else None,
        }
