"""One link of a host: an interface, the neighbours behind it, and how it gets its addresses.

What finds addresses is in two halves, `link4` and `link6`. The link itself takes in what arrives
for them, gives them their time, and lets go of frames. What is due next over all of them is kept as
one number, since it is asked for after every turn.

Imports the two halves, the neighbours, `wire`; it knows the network layer by an interface only.
"""

from __future__ import annotations

import random as random_module
from math import inf
from typing import Any, Protocol

from appliance.net.agenda import Agenda
from appliance.net.counters import Counters
from appliance.net.dhcp import Client, Lease
from appliance.net.ip import Local
from appliance.net.link4 import Ipv4Configuration
from appliance.net.link6 import Ipv6Configuration, Ipv6Settings
from appliance.net.mld import Listener
from appliance.net.neighbor import Sender
from appliance.net.neighbor4 import NeighborCache4
from appliance.net.neighbor6 import NeighborCache6
from appliance.net.routes import Routes
from appliance.net.slaac import Slaac
from appliance.net.vif.base import Vif
from appliance.net.wire import arp, ethernet, icmpv6, ipv6
from appliance.net.wire.address import to_text

__all__ = ["Ipv6Settings", "Link", "LinkNetwork"]


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

    def unreachable(self, link: Link, address: bytes, frames: list[bytes]) -> None:
        """Nobody answers at a next hop."""

    def rerouted(self, link: Link, hop: bytes) -> None:
        """What went by `hop` goes another way, if there is one."""

    def contested(self, address: bytes, mac: bytes, kept: bool = False) -> None:
        """Somebody else has an address that was to be ours, or is; `mac` if it is known."""

    def link_mtu_changed(self, link: Link) -> None:
        """What a link carries is another number of octets from now on."""


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
        self._network = network
        self.arp = NeighborCache4(
            vif.mac,
            vif.send,
            source_for=lambda address: network.source_on(self, address),
            random=random,
            on_unreachable=lambda address, frames: network.unreachable(self, address, frames),
            link=self,
            agenda=network.agenda,
        )
        self.nd = NeighborCache6(
            vif.mac,
            vif.send,
            source_for=lambda address: network.source_on(self, address),
            random=random,
            on_unreachable=lambda address, frames: network.unreachable(self, address, frames),
            on_lost=self._lost,
            on_host=self._is_host,
            link=self,
            agenda=network.agenda,
        )
        self.v4 = Ipv4Configuration(self, network, random)
        self.v6 = Ipv6Configuration(self, network, random)

    # What the halves have, for those who ask the link.

    @property
    def slaac(self) -> Slaac | None:
        """The machine that configures IPv6; None: none is spoken here."""
        return self.v6.slaac

    @property
    def groups(self) -> Listener:
        """The multicast groups that are heard here."""
        return self.v6.groups

    @property
    def dhcp(self) -> Client | None:
        """The client that asks for an IPv4 address, if one does."""
        return self.v4.dhcp

    @property
    def lease(self) -> Lease | None:
        """What is lent to us now."""
        return self.v4.lease

    def resolvers(self) -> list[bytes]:
        """Resolvers that routers advertise (RFC 8106) and servers lend (RFC 2132 §3.8)."""
        found = list(self.v6.slaac.servers) if self.v6.slaac is not None else []
        return found + list(self.v4.lease.servers if self.v4.lease is not None else ())

    # ------------------------------------------------------------------ beginning

    def use_ipv6(self, settings: Ipv6Settings) -> None:
        """Speak IPv6 from the next turn on."""
        self.v6.use(settings)
        self.soon(-inf)

    def use_dhcp(self, name: str = "") -> None:
        """Ask for an IPv4 address from the next turn on, and take a link-local one without."""
        self.v4.use_dhcp(name)
        self.soon(-inf)

    def add_static(self, address: bytes, prefix_len: int, *, probe: bool = False) -> None:
        """Take an address that the operator gave; `use_ipv6` first, for one of IPv6.

        One of IPv4 is ours at once, or with `probe` when nobody else has it (RFC 5227 §2.1).
        """
        if len(address) == 16:
            self.v6.add(address, prefix_len)
        else:
            self.v4.add(address, prefix_len, probe=probe)
        self.soon(-inf)

    # ------------------------------------------------------------------ time

    def soon(self, at: float) -> None:
        """Something of this link is due at `at`, seconds; minus infinity: at the next turn."""
        self.due = min(self.due, at)
        self._network.agenda.lower(self.due)

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
        self.v6.start(now)
        self.v4.start(now)
        self.v6.advance(now)
        self.v4.advance(now)
        self.review()

    def review(self) -> None:
        """Look at when the machines are next due; called after whatever may have moved that."""
        self.due = min(self.v4.deadline(), self.v6.deadline())
        self._network.agenda.lower(self.due)

    def divert(self, send: Sender) -> None:
        """Send by `send` from now on: for those who watch a link."""
        self.send = send
        self.arp.divert(send)
        self.nd.divert(send)

    def close(self, now: float) -> None:
        """Give back what was lent."""
        self.v4.close(now)

    # ------------------------------------------------------------------ what arrives

    def arp_arrives(self, data: bytes, at: int, now: float, local: dict[bytes, Local]) -> None:
        """An ARP packet, to the cache and to those who watch over addresses; raises WireError."""
        self.arp.arp_arrives(data, at, len(data), now, local)
        packet = arp.parse(data, at, len(data))
        self._network.routes.demote(packet.sender, self, False)
        if self.v4.watching:
            self.v4.arp_arrives(packet, now)
            self.review()

    def dhcp_arrives(self, payload: bytes, now: float) -> None:
        """A datagram to the client's port; raises WireError."""
        if self.v4.dhcp is not None:
            try:
                self.v4.dhcp.received(payload, now)
            finally:
                self.review()

    def icmp6_arrives(
        self, data: bytes, packet: ipv6.Ipv6Packet, message: icmpv6.Icmpv6Message, now: float
    ) -> bool:
        """A message of discovery or of listeners; False if it is none. Raises WireError."""
        try:
            return self.v6.icmp_arrives(data, packet, message, now)
        finally:
            self.review()

    def _lost(self, address: bytes) -> None:
        """A neighbour no longer answers: its routes are the last to be taken."""
        self._network.routes.demote(address, self, True)
        if self.v6.lost(address, self._network.now):
            self.review()
        self._network.rerouted(self, address)

    def _is_host(self, address: bytes) -> None:
        """A neighbour is no router any more: nothing goes by it, whatever else there is."""
        self.v6.is_host(address, self._network.now)
        self.review()
        self._network.rerouted(self, address)

    # ------------------------------------------------------------------ what leaves

    def carry(self, mtu: int, mtu6: int) -> None:
        """Carry packets of so many octets from now on, of IPv4 and of IPv6."""
        if (mtu, mtu6) != (self.mtu, self.mtu6):
            self.mtu, self.mtu6 = mtu, mtu6
            self._network.link_mtu_changed(self)

    def emit(self, octets: bytes) -> None:
        """Send a whole frame now, or count that there was no room."""
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
            "resolvers": [to_text(address) for address in self.resolvers()],
        }
