"""IPv6 on a link: the messages of discovery and of listeners, and what `slaac` wants done.

`slaac` decides about addresses, routers and prefixes; here its decisions become addresses and
routes of the network layer, and messages on the link. Routes of the settings stand whatever
routers say.

Imports the machines and `wire`; it knows its link and the network layer by their interfaces.
"""

from __future__ import annotations

import random as random_module
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.net.ip import Local
from appliance.net.mld import Listener
from appliance.net.path import frame
from appliance.net.routes import Route
from appliance.net.slaac import DEPRECATED, OwnAddress, Slaac
from appliance.net.wire import icmpv6, ipv6, mld, ndp

if TYPE_CHECKING:
    from appliance.net.link import Link, LinkNetwork


@dataclass(frozen=True, slots=True)
class Ipv6Settings:
    """How a link speaks IPv6; `secret` makes identifiers stable (RFC 7217), 16 octets or more."""

    secret: bytes
    autonomous: bool = True  # take routers and prefixes from advertisements
    detect: int = 1  # solicitations of duplicate address detection; 0: none
    follows: bool = False  # another process finds the addresses (see `steer`): ask for none


class Ipv6Configuration:
    """The IPv6 addresses, groups and routes of one link."""

    def __init__(self, link: Link, network: LinkNetwork, random: random_module.Random) -> None:
        self.slaac: Slaac | None = None
        self.groups = Listener(self._report, self._report_v1, random)
        self._link = link
        self._network = network
        self._random = random
        self._pending: list[tuple[bytes, int]] = []  # addresses to take at the first turn
        self._follows = False
        self._begun = False

    def use(self, settings: Ipv6Settings) -> None:
        """Speak IPv6 from the next turn on."""
        if self.slaac is None:
            self._follows = settings.follows
            self.slaac = Slaac(
                self,
                self._link.nd,
                self._link.mac,
                self._link.name,
                self._link.vif.mtu,
                secret=settings.secret,
                random=self._random,
                autonomous=settings.autonomous,
                detect=settings.detect,
            )

    def add(self, address: bytes, prefix_len: int) -> None:
        """Take an address that the operator gave, when nobody has objected; `use` comes first."""
        self._pending.append((address, prefix_len))

    # ------------------------------------------------------------------ time

    def deadline(self) -> float:
        """When `advance` is due, seconds; inf: never."""
        due = self.groups.deadline()
        return due if self.slaac is None else min(due, self.slaac.deadline())

    def start(self, now: float) -> None:
        """Begin with what has not begun."""
        if self.slaac is not None and not self._follows:
            if not self._begun:
                self._begun = True
                self.slaac.start(now)
            while self._pending:
                self.slaac.add(*self._pending.pop(0), now)

    def advance(self, now: float) -> None:
        """Let every machine do what is due."""
        if self.slaac is not None and self.slaac.deadline() <= now:
            self.slaac.advance(now)
        if self.groups.deadline() <= now:
            self.groups.advance(now)

    def lost(self, address: bytes, now: float) -> bool:
        """A neighbour no longer answers; False when nobody here cares."""
        if self.slaac is None:
            return False
        self.slaac.lost(address, now)
        return True

    def is_host(self, address: bytes, now: float) -> None:
        """A neighbour is no router any more."""
        if self.slaac is not None:
            self.slaac.is_host(address, now)

    # ------------------------------------------------------------------ what arrives

    def icmp_arrives(
        self, data: bytes, packet: ipv6.Ipv6Packet, message: icmpv6.Icmpv6Message, now: float
    ) -> bool:
        """A message of discovery or of listeners; False if it is none. Raises WireError."""
        kind = message.type
        machine = self.slaac
        counters = self._network.counters
        if machine is None:
            return False
        if kind in (icmpv6.MLD_QUERY, icmpv6.MLD_REPORT):
            # RFC 3810 §6.2: from a link-local address, with a hop limit of 1 and a router alert.
            if (
                not ipv6.is_link_local(packet.src)
                or packet.hop_limit != 1
                or not ipv6.has_router_alert(data, packet)
            ):
                counters.mld_ignored += 1
            else:
                counters.mld_in += 1
                at, end = message.body_at, message.body_end
                query = mld.parse_query(data, at, end, message.rest)
                if kind == icmpv6.MLD_QUERY:
                    self.groups.query_arrives(query, now)
                else:
                    self.groups.report_arrives(query.group)  # RFC 2710 §3: laid out the same
            return True
        if not icmpv6.ROUTER_SOLICITATION <= kind <= icmpv6.REDIRECT:
            return False
        # RFC 6980 §5: MUST be ignored; filters on the way could not see what it was.
        if ipv6.has_fragment_header(data, packet):
            counters.nd_ignored += 1
            return True
        # RFC 4861 §6.1, §7.1, §8.1: nothing that was forwarded, and code 0.
        if packet.hop_limit != ndp.HOP_LIMIT or message.code:
            counters.nd_hop_limit += 1
            return True
        counters.nd_in += 1
        self._discovery(machine, data, packet, message, now)
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
        routes = self._network.routes
        if kind == icmpv6.NEIGHBOR_SOLICITATION:
            machine.solicited(src, ndp.parse_solicitation(data, at, end, src, dst), now)
        elif kind == icmpv6.NEIGHBOR_ADVERTISEMENT:
            heard = ndp.parse_advertisement(data, at, end, dst, rest)
            machine.advertised(heard, now)
            if heard.solicited:
                routes.demote(heard.target, self._link, False)
        elif kind == icmpv6.ROUTER_ADVERTISEMENT:
            machine.router_advertised(
                src, ndp.parse_router_advertisement(data, at, end, src, rest), now
            )
            routes.demote(src, self._link, False)
        elif kind == icmpv6.REDIRECT:
            redirect = ndp.parse_redirect(data, at, end, src)
            before = self.first_hop(redirect.destination)
            machine.redirected(src, redirect, now)
            if before is not None:
                self._network.rerouted(self._link, before)
        else:
            self._network.counters.nd_ignored += 1  # a solicitation for routers: we are none

    # ------------------------------------------------------------------ slaac's owner

    def send_icmp6(
        self, src: bytes, dst: bytes, kind: int, rest: int, body: bytes, mac: bytes = b""
    ) -> None:
        """Send a Neighbour Discovery message with hop limit 255."""
        link = self._link
        message = icmpv6.build(src, dst, kind, 0, rest, body)
        head = ipv6.header(src, dst, icmpv6.PROTOCOL, len(message), hop_limit=ndp.HOP_LIMIT)
        if ipv6.is_multicast(dst):
            mac = ipv6.multicast_mac(dst)
        packet = head + message
        if mac:
            link.emit(frame(link.mac, mac, packet))
            return
        neighbor = link.nd.lookup(dst, self._network.now)
        if neighbor.mac is None:
            link.nd.enqueue(neighbor, frame(link.mac, bytes(6), packet))
        else:
            link.emit(frame(link.mac, neighbor.mac, packet))

    def _report(self, records: list[tuple[int, bytes]]) -> None:
        """RFC 3810 §5.2.14: to the routers' group."""
        rest, body = mld.report(records)
        self._send_mld(ipv6.ALL_MLDV2_ROUTERS, icmpv6.MLDV2_REPORT, rest, body)

    def _report_v1(self, kind: int, group: bytes) -> None:
        """RFC 2710 §3.8: a report goes to its group, so that its other listeners may be silent."""
        dst = group if kind == icmpv6.MLD_REPORT else ipv6.ALL_ROUTERS
        self._send_mld(dst, kind, 0, group)

    def _send_mld(self, dst: bytes, kind: int, rest: int, body: bytes) -> None:
        """RFC 3810 §5, RFC 2710 §3: behind a router alert, with a hop limit of 1."""
        source = self.slaac.link_local() if self.slaac is not None else None
        src = source or ipv6.UNSPECIFIED
        message = icmpv6.build(src, dst, kind, 0, rest, body)
        alert = ipv6.router_alert(icmpv6.PROTOCOL)
        head = ipv6.header(src, dst, ipv6.HOP_BY_HOP, len(alert) + len(message), hop_limit=1)
        self._link.emit(frame(self._link.mac, ipv6.multicast_mac(dst), head + alert + message))

    def address_changed(self, own: OwnAddress) -> None:
        """An address is ours, or its state has changed."""
        deprecated = own.state == DEPRECATED
        try:
            self._network.address_taken(
                Local(own.address, own.prefix_len, self._link, own.origin, deprecated)
            )
        except ValueError:
            pass  # beyond the bound of addresses: it is not used
        if own.origin == "link-local":
            self.groups.report_anew(self._network.now)

    def address_gone(self, own: OwnAddress, duplicate: bool) -> None:
        """An address expired, or is somebody else's."""
        if duplicate:
            self._network.counters.nd_duplicate_address += 1
            self._network.contested(own.address, b"")
        self._network.address_lost(own.address)

    def join(self, group: bytes) -> None:
        """Hear a group."""
        self.groups.join(group, self._network.now)

    def leave(self, group: bytes) -> None:
        """Hear it no longer."""
        self.groups.leave(group, self._network.now)

    def set_route(self, network: bytes, prefix_len: int, gateway: bytes | None) -> None:
        """There is a way to a prefix; what the settings say stands."""
        link = self._link
        for route in self._network.routes:
            where = (route.network, route.prefix_len, route.gateway, route.origin)
            if route.link is link and where == (network, prefix_len, gateway, "static"):
                return
        try:
            self._network.routes.add(Route(network, prefix_len, link, gateway, origin="ra"))
        except ValueError:
            pass  # the table is full: longer detours, nothing worse

    def drop_route(self, network: bytes, prefix_len: int, gateway: bytes | None) -> None:
        """There is no longer."""
        self._network.routes.remove(
            lambda r: (
                r.origin == "ra"
                and r.link is self._link
                and (r.network, r.prefix_len, r.gateway) == (network, prefix_len, gateway)
            )
        )
        if gateway is not None:
            self._network.rerouted(self._link, gateway)

    def first_hop(self, destination: bytes) -> bytes | None:
        """The router that packets to `destination` go to now."""
        route = self._network.routes.lookup(destination, self._link)
        return route.gateway if route is not None else None

    def path_mtu6(self, mtu: int) -> None:
        """A router says what packets this link carries (RFC 4861 §6.3.4)."""
        self._link.carry(self._link.mtu, mtu)
