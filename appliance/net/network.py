"""The network layer of a host: its links, its addresses and routes, and the long way in.

A frame that does not fit one of the host's patterns is taken apart here layer by layer, and what it
carries is handed up: segments to the TCP table, datagrams to the UDP table. Both Internet Protocols
come in here and hand up the same; what they say of errors is `icmp_errors`'. Ways out, as header
templates, are found here too.

It imports `wire`, the links, the paths, the fragments, and knows the layers above it by their
interfaces only.
"""

from __future__ import annotations

import errno
import random as random_module
from math import inf
from typing import Final

from appliance.net.agenda import Agenda
from appliance.net.counters import Counters
from appliance.net.errors import WireError
from appliance.net.fragments import TIMEOUT_V4, TIMEOUT_V6, Identifications, cut_ipv4, cut_ipv6
from appliance.net.icmp_errors import Answered, Errors
from appliance.net.ip import Addresses, Local
from appliance.net.isn import keyed_hash
from appliance.net.link import Ipv6Settings, Link
from appliance.net.neighbor import Neighbor
from appliance.net.path import TCP, UDP, Ipv4Path, Ipv4UdpPath, TcpPath, UdpPath, frame
from appliance.net.path6 import Ipv6Path, Ipv6UdpPath, Labels, label_of
from appliance.net.path_mtu import PathMtus
from appliance.net.pieces import Pieces
from appliance.net.routes import Route, Routes
from appliance.net.upper import Upper
from appliance.net.vif.base import Vif
from appliance.net.wire import dhcp, ethernet, icmp, icmpv6, ipv4, ipv6
from appliance.net.wire import udp as wire_udp
from appliance.net.wire.address import from_text, interface_from_text, to_text
from appliance.net.wire.virtio import DATA_VALID, NEEDS_CSUM, VNET_HDR_LEN

ETHERNET_AT: Final = VNET_HDR_LEN
IP_AT: Final = ETHERNET_AT + ethernet.HEADER_LEN
CHECKED: Final = NEEDS_CSUM | DATA_VALID
"""Flags of the virtio header that say: no need to sum this."""
MAX_NESTED: Final = 4
"""Fragments that are of fragments: RFC 8200 §4.1 has us try, and nobody sends any (Linux takes no
second level). Else one packet could complete as many datagrams as may wait, one in the other."""
SECRET: Final = 16
"""Octets of secrets for labels and identifications."""


class Network:
    """Links, addresses and routes; `now` is the time of the current or last turn."""

    def __init__(
        self, vif: Vif, counters: Counters, random: random_module.Random, upper: Upper
    ) -> None:
        self.counters = counters
        self.addresses = Addresses()
        self.routes = Routes()
        self.agenda = Agenda()
        self.now = 0.0
        self.upper = upper
        self.on_change: list[object] = []
        """Called (each without arguments) when addresses have come or gone."""
        self.on_conflict: list[object] = []
        """Called with an address, the MAC of who else has it ("" if unknown), and whether we keep
        it all the same."""
        self.pieces = Pieces(counters)
        self.fragments = self.pieces.reassembler
        self.path_mtus = PathMtus()
        self._random = random
        self._secret = random.randbytes(SECRET)
        self._labels = Labels(self._secret)
        self._identifications = Identifications(random.randbytes(SECRET))
        self.errors = Errors(self, counters)
        self.links = [Link(self, vif, random)]
        self._link_in = self.links[0]  # of the frame that is being taken apart

    # ------------------------------------------------------------------ configuration

    def add_link(self, vif: Vif) -> Link:
        """Have one more interface."""
        link = Link(self, vif, self._random)
        self.links.append(link)
        return link

    def add_address(self, cidr: str, link: Link | None = None, probe: bool = False) -> None:
        """Take the address and network `cidr`, such as "10.0.0.2/24"; ValueError if malformed.

        One of IPv6 is ours when duplicate address detection has found nobody (RFC 4862 §5.4), one
        of IPv4 at once, or with `probe` when nobody has answered for it (RFC 5227 §2.1).
        """
        link = link or self.links[0]
        address, prefix_len = interface_from_text(cidr)
        if not self.addresses.is_unicast(address):
            raise ValueError(f"{cidr} is not the address of a host")
        if len(address) == 16:
            link.use_ipv6(Ipv6Settings(self._secret, autonomous=False))
            shift = 128 - prefix_len
            network = (int.from_bytes(address) >> shift << shift).to_bytes(16)
            self.routes.add(Route(network, prefix_len, link, None))
        link.add_static(address, prefix_len, probe=probe)

    def add_gateway(self, address: str, link: Link | None = None) -> None:
        """Send what is not local by `address`; ValueError unless it is on one of our networks."""
        gateway = from_text(address)
        on = self.routes.lookup(gateway, link)
        if len(gateway) == 16 and ipv6.is_link_local(gateway):
            via = link or self.links[0]
        elif on is None or on.gateway is not None:
            raise ValueError(f"gateway {address} is on none of our networks")
        else:
            via = on.link
        self.routes.add(Route(bytes(len(gateway)), 0, via, gateway))

    # What links tell.

    def address_taken(self, own: Local) -> None:
        """An address is ours from now on, or has become deprecated or preferred."""
        self.addresses.take(own)
        self._changed()

    def address_lost(self, address: bytes) -> None:
        """An address is ours no longer: its connections end."""
        if self.addresses.remove(address) is not None:
            self.upper.address_lost(address)
            self._changed()

    def redirected4(self, src: bytes, destination: bytes, gateway: bytes) -> None:
        """A router says that another is a better first hop (RFC 1122 §3.2.2.2)."""
        usable = self.addresses.is_unicast(gateway) and gateway not in self.addresses.broadcasts
        if usable and gateway not in self.addresses.local:
            self._link_in.v4.redirected(src, destination, gateway)

    def contested(self, address: bytes, mac: bytes, kept: bool = False) -> None:
        """Somebody else has an address that was to be ours, or is and is `kept`: tell of it."""
        for told in self.on_conflict:
            whose = ethernet.mac_text(mac) if mac else ""
            told(to_text(address), whose, kept)  # type: ignore[operator]
        self._changed()  # who waits for it need not

    def resolvers(self) -> list[str]:
        """Recursive resolvers that routers advertise and DHCP servers name, in that order."""
        return [to_text(address) for link in self.links for address in link.resolvers()]

    def source_on(self, link: Link, destination: bytes) -> bytes:
        """Our address to ask a neighbour from; all zero without one."""
        return self.addresses.source_for(destination, link) or bytes(len(destination))

    def rerouted(self, link: Link, hop: bytes) -> None:
        """What went by `hop` goes another way, if there is one."""
        self.upper.rerouted(link.arp if len(hop) == 4 else link.nd, hop)

    def unreachable(self, link: Link, address: bytes, frames: list[bytes]) -> None:
        """Nobody answers at a next hop: who wanted it hears EHOSTUNREACH (RFC 1122 §2.3.2.1)."""
        error = OSError(errno.EHOSTUNREACH, "No route to host")
        link.v4.lost(address)
        if self.routes.demote(address, link, True):
            # RFC 1122 §3.3.1.4 (MUST), RFC 4861 §6.3.6: by another gateway, if there is one.
            self.rerouted(link, address)
        # Of this link alone: routers of several have the same link-local address.
        self.upper.neighbor_failed(link.arp if len(address) == 4 else link.nd, address, error)
        for waited in frames:
            if not self._goes_by_another(link, address, waited):
                self.errors.not_sent(waited, IP_AT, error)

    def _goes_by_another(self, link: Link, hop: bytes, waited: bytes) -> bool:
        """Send what waited for a gateway by another of the link, if there is one."""
        if waited[IP_AT] >> 4 == 4:
            src, dst = waited[IP_AT + 12 : IP_AT + 16], waited[IP_AT + 16 : IP_AT + 20]
        else:
            src, dst = waited[IP_AT + 8 : IP_AT + 24], waited[IP_AT + 24 : IP_AT + 40]
        found = self.next_hop(dst, src)
        if found is None or found[0] is not link or found[1] == hop:
            return False
        if self.routes.is_demoted(found[1], link):
            return False  # silent as well: nothing goes from one to the other for ever
        cache = link.arp if len(dst) == 4 else link.nd
        cache.enqueue(cache.lookup(found[1], self.now), waited)
        return True

    def _changed(self) -> None:
        for told in self.on_change:
            told()  # type: ignore[operator]  # mypyc cannot keep callables in lists by type

    # ------------------------------------------------------------------ time

    def deadline(self) -> float:
        """When `advance` is due, seconds; inf: never."""
        earliest = self.links[0].deadline()
        for link in self.links[1:]:
            earliest = min(earliest, link.deadline())
        if len(self.fragments):
            earliest = min(earliest, self.fragments.deadline())
        return min(earliest, self.path_mtus.deadline())

    def advance(self, now: float) -> None:
        """Let links, fragments and path MTUs do what is due."""
        for link in self.links:
            if link.deadline() <= now:
                link.advance(now)
        if len(self.fragments):
            for expired in self.fragments.expire(now):
                self.counters.ip_fragment_timeout += 1
                if expired.quote:
                    self.errors.reassembly_timeout(expired.family, expired.quote, now)
        if self.path_mtus.deadline() <= now:
            # RFC 8201 §5.3: who keeps a number is told that it may be larger.
            self.upper.path_mtus_changed(set(self.path_mtus.expire(now)))
        self.agenda.at = inf
        self.agenda.lower(self.deadline())

    # ------------------------------------------------------------------ ways out

    def way(self, there: bytes, here: bytes = b"") -> tuple[Link, Neighbor] | None:
        """The link and the neighbour for packets to `there` from our `here`; None: no way."""
        found = self.next_hop(there, here)
        if found is None:
            return None
        by, hop = found
        cache = by.arp if len(there) == 4 else by.nd
        return by, cache.lookup(hop, self.now)

    def next_hop(self, there: bytes, here: bytes = b"") -> tuple[Link, bytes] | None:
        """The link and the neighbour's address, who is not asked for."""
        if len(there) == 4 and ipv4.is_link_local(there):
            # RFC 3927 §2.6.2: MUST be asked for on the link, and never be sent by a router.
            return self._near(here), there
        route = None
        if len(self.links) > 1:
            route = self._own_way(there, here)
        if route is None:
            route = self.routes.lookup(there)
        if route is None:
            return None
        by: Link = route.link
        return by, there if route.gateway is None else route.gateway

    def _near(self, here: bytes) -> Link:
        """The link on which link-local neighbours are spoken to from our `here`."""
        own = self.addresses.local.get(here)
        link: Link = self._link_in if own is None or own.link is None else own.link
        return link

    def _own_way(self, there: bytes, here: bytes) -> Route | None:
        """With several links: what comes from an address of a link leaves by that link if it can.

        RFC 1122 §3.3.4.2 calls this the strong model; routers that look at sources
        (RFC 3704 §2) take nothing else. A link-local destination is on the link we were asked on.
        """
        own = self.addresses.local.get(here)
        if own is not None and own.link is not None:
            return self.routes.lookup(there, own.link)
        if len(there) == 16 and ipv6.is_link_local(there):
            return self.routes.lookup(there, self._link_in)
        return None

    def tcp_path(self, key: bytes) -> TcpPath | None:
        """Return the way back along the flow `key`; None when there is none."""
        size = (len(key) - 4) >> 1
        there, here = key[:size], key[size : 2 * size]
        way = self.way(there, here)
        if way is None:
            self.counters.ip_no_route += 1
            return None
        link, neighbor = way
        port, remote_port = int.from_bytes(key[-2:]), int.from_bytes(key[-4:-2])
        mtu = self.mtu_of(link, there)
        if size == 4:
            return Ipv4Path(neighbor, link.mac, here, there, port, remote_port, mtu)
        label = label_of(keyed_hash(self._secret, b"label" + key))
        return Ipv6Path(
            neighbor, link.mac, here, there, port, remote_port, mtu, self._hops(link), label
        )

    def udp_path(self, here: bytes, there: bytes, port: int, remote_port: int) -> UdpPath | None:
        """Return the way from our `here` to `there`; None when there is none."""
        way = self.way(there, here)
        if way is None:
            return None
        link, neighbor = way
        mtu = self.mtu_of(link, there)
        if len(there) == 4:
            return Ipv4UdpPath(neighbor, link.mac, here, there, port, remote_port, mtu)
        hops = self._hops(link)
        return Ipv6UdpPath(
            neighbor, link.mac, here, there, port, remote_port, mtu, hops, self._labels
        )

    def _hops(self, link: Link) -> int:
        return link.slaac.hop_limit if link.slaac is not None else ipv6.DEFAULT_HOP_LIMIT

    def mtu_of(self, link: Link, there: bytes) -> int:
        """Octets of packet that reach `there`, as far as we know."""
        return self.path_mtus.towards(there, self.link_mtu(link, there), self.now)

    def link_mtu(self, link: Link, there: bytes) -> int:
        """Octets of packet to `there` that the link itself carries."""
        return link.mtu if len(there) == 4 else link.mtu6

    def learn_path_mtu(self, there: bytes, mtu: int) -> None:
        """Remember that a router on the way to `there` takes no more than `mtu` octets."""
        gone = self.path_mtus.learn(there, mtu, self.now)
        self.agenda.lower(self.path_mtus.deadline())
        self.upper.path_mtus_changed({there, gone} if gone else {there})

    def link_mtu_changed(self, link: Link) -> None:
        """Whoever sends by `link` must follow (RFC 4861 §6.3.4, RFC 2132 §5.1)."""
        self.upper.link_mtu_changed(link, self.now)

    def source_for(self, there: bytes) -> bytes | None:
        """Our address to speak to `there` from; None without a way or an address."""
        if len(there) == 4 and ipv4.is_link_local(there):
            return self.addresses.source_for(there, self._near(b""))
        route = self.routes.lookup(there)
        return self.addresses.source_for(there, route.link) if route is not None else None

    def reachable(self, address: bytes) -> bool:
        """Tell whether `address` can be one host's (RFC 9293 §3.9.2.3, MUST-46)."""
        return self.addresses.is_unicast(address) and address not in self.addresses.broadcasts

    def own(self, packed: bytes, address: str) -> bytes:
        """Return `packed`, one of our addresses; OSError(EADDRNOTAVAIL) if it is none."""
        if packed not in self.addresses.local:
            raise OSError(errno.EADDRNOTAVAIL, f"{address} is not an address of this host")
        return packed

    def send(self, src: bytes, dst: bytes, protocol: int, body: bytes) -> None:
        """Send a whole message of `protocol`, in fragments if it does not fit the path."""
        way = self.way(dst, src)
        if way is None:
            self.counters.ip_no_route += 1
            return
        link, neighbor = way
        mtu = self.mtu_of(link, dst)
        if protocol != UDP:
            mtu = self.errors.echo_mtu(dst, mtu)
        if len(dst) == 4:
            if len(body) + ipv4.HEADER_LEN <= mtu:
                packets = [ipv4.header(src, dst, protocol, len(body)) + body]
            else:
                ident = self._identifications.following(src, dst, protocol)
                packets = cut_ipv4(src, dst, protocol, body, mtu, ident)
        else:
            hops = self._hops(link)
            if len(body) + ipv6.HEADER_LEN <= mtu:
                head = ipv6.header(src, dst, protocol, len(body), hop_limit=hops)
                packets = [head + body]
            else:
                ident = self._identifications.following(src, dst, protocol)
                packets = cut_ipv6(src, dst, protocol, body, mtu, ident, hops)
        if len(packets) > 1:
            self.counters.ip_fragments_out += len(packets)
        for packet in packets:
            octets = frame(link.mac, neighbor.mac or bytes(6), packet)
            if neighbor.mac is None:
                neighbor.cache.enqueue(neighbor, octets)
            elif link.send(octets, b""):
                self.counters.frames_out += 1
            else:
                self.counters.vif_full += 1

    def ping(
        self,
        there: bytes,
        ident: int,
        sequence: int,
        size: int,
        answered: Answered,
    ) -> None:
        """Send an echo request with `size` octets (RFC 792, RFC 4443 §4.1).

        `answered(address, sequence, why)` hears of replies to `ident`, and why there is none;
        OSError without a way there.
        """
        src = self.source_for(there)
        if src is None:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        self.errors.echoes[ident] = answered
        body = bytes(index & 0xFF for index in range(size))
        rest = ident << 16 | sequence & 0xFFFF
        self.errors.echo_leaves(there, rest, size + icmp.HEADER_LEN)
        if len(there) == 4:
            message = icmp.build(icmp.ECHO_REQUEST, 0, rest, body)
            self.send(src, there, icmp.PROTOCOL, message)
        else:
            message = icmpv6.build(src, there, icmpv6.ECHO_REQUEST, 0, rest, body)
            self.send(src, there, icmpv6.PROTOCOL, message)

    # ------------------------------------------------------------------ the long way in

    def arrives(self, frame: bytes, now: float, link: Link) -> None:
        """Take a frame apart layer by layer; what is wrong with it is counted and dropped."""
        self._link_in = link
        try:
            to_mac, _, kind = ethernet.parse(frame, ETHERNET_AT)
            group = ethernet.is_group(to_mac)
            if to_mac != link.mac and not group:
                self.counters.ethernet_not_ours += 1
            elif kind == ethernet.ETHERTYPE_IPV4:
                self._ipv4_arrives(frame, now, link, group)
            elif kind == ethernet.ETHERTYPE_IPV6:
                self._ipv6_arrives(frame, now, link, group)
            elif kind == ethernet.ETHERTYPE_ARP:
                local = self.addresses.local
                if len(self.links) > 1:
                    # RFC 826: an address is answered for on its own link.
                    local = {own.address: own for own in self.addresses.of(link)}
                link.arp_arrives(frame, IP_AT, now, local)
            else:
                self.counters.ethertype_unknown += 1
        except WireError as error:
            self.counters.count(error.counter)

    def _ipv4_arrives(self, frame: bytes, now: float, link: Link, group: bool) -> None:
        """RFC 1122 §3.2.1; raises WireError."""
        try:
            header = ipv4.parse(frame, IP_AT, len(frame))
        except ipv4.OptionError as problem:
            bare = ipv4.parse_quoted(frame, IP_AT, len(frame))
            if not self._is_for_us4(bare, group):
                return
            if bare.dst not in self.addresses.broadcasts:
                self.errors.bad_option4(problem, frame, IP_AT, bare, now)
            raise
        if link.dhcp is not None and self._is_dhcp(frame, header, now, link):
            return
        if not self._is_for_us4(header, group):
            return
        broadcast = header.dst in self.addresses.broadcasts
        if header.flags & ipv4.FLAG_MF or header.fragment_offset:
            self.agenda.lower(now + TIMEOUT_V4)
            whole = self.pieces.ipv4(frame, header, now)
            if whole is not None:
                self._ipv4_arrives(whole, now, link, group)
            return
        trusted = bool(frame[0] & CHECKED)
        if header.protocol == TCP:
            if broadcast:
                # RFC 9293 §3.9.2.3 (MUST-57): a SYN to a broadcast address is silently dropped.
                self.counters.ip_not_ours += 1
            else:
                self.upper.tcp_arrives(frame, header, now, trusted)
        elif header.protocol == UDP:
            known = self.upper.udp_arrives(frame, header, now, trusted, broadcast)
            if not known and not broadcast:
                # RFC 1122 §4.1.3.1: an unused port SHOULD be told of.
                self.errors.unreachable4(icmp.UNREACHABLE_PORT, frame, IP_AT, header, now)
        elif header.protocol == icmp.PROTOCOL:
            self.errors.icmp4_arrives(frame, header, now, broadcast)
        else:
            self.counters.ip_protocol_unknown += 1
            if not broadcast:
                # RFC 1122 §3.2.2.1: code 2 when the protocol is not supported.
                self.errors.unreachable4(icmp.UNREACHABLE_PROTOCOL, frame, IP_AT, header, now)

    def _is_for_us4(self, header: ipv4.Ipv4Header, group: bool) -> bool:
        """RFC 1122 §3.2.1.3, §3.3.6: whether the addresses of a datagram make sense here."""
        broadcast = header.dst in self.addresses.broadcasts
        if header.dst not in self.addresses.local and not broadcast:
            # RFC 1122 §3.2.1.3: not for us; a host does not forward.
            self.counters.ip_not_ours += 1
            return False
        if (
            not self.addresses.is_unicast(header.src)
            or header.src in self.addresses.broadcasts
            or header.src in self.addresses.local
        ):
            # RFC 1122 §3.2.1.3: a source MUST NOT be a broadcast or multicast address.
            self.counters.ip_bad_source += 1
            return False
        # RFC 1122 §3.3.6: a link-layer broadcast must carry an IP broadcast, or be dropped.
        if group and not broadcast:
            self.counters.ip_not_ours += 1
            return False
        return True

    def _is_dhcp(self, frame: bytes, header: ipv4.Ipv4Header, now: float, link: Link) -> bool:
        """Hand on what a server sends to a client, whose address is not ours yet (RFC 2131 §4.1).

        Raises WireError.
        """
        if header.protocol != UDP or header.flags & ipv4.FLAG_MF or header.fragment_offset:
            return False
        datagram = wire_udp.parse(frame, header.payload_at, header.payload_end)
        if datagram.dst_port != dhcp.CLIENT_PORT or datagram.src_port != dhcp.SERVER_PORT:
            return False
        at = header.payload_at
        if not frame[0] & CHECKED and not wire_udp.verify(
            frame, at, datagram, header.src, header.dst
        ):
            self.counters.udp_checksum += 1
        else:
            self.counters.udp_in += 1
            link.dhcp_arrives(frame[datagram.payload_at : datagram.payload_end], now)
        return True

    def _ipv6_arrives(
        self, frame: bytes, now: float, link: Link, group: bool, nested: int = 0
    ) -> None:
        """RFC 8200 §3, §4; raises WireError. `nested`: how often it was put together already."""
        if link.slaac is None:
            self.counters.ethertype_unknown += 1
            return
        try:
            packet = ipv6.parse(frame, IP_AT, len(frame))
        except ipv6.HeaderError as problem:
            # RFC 8200 §4: a header that must not be ignored is answered, if the packet was for us.
            bare = ipv6.parse_quoted(frame, IP_AT, len(frame))
            if not self._is_for_us(bare.src, bare.dst, bare.protocol, link, group):
                return
            self._tell_sender(problem, frame, bare, now)
            raise
        if not self._is_for_us(packet.src, packet.dst, packet.protocol, link, group):
            return
        multicast = ipv6.is_multicast(packet.dst)
        if packet.fragment_at >= 0:
            if nested >= MAX_NESTED:
                raise WireError("ip_fragment_limit")
            self.agenda.lower(now + TIMEOUT_V6)
            try:
                whole = self.pieces.ipv6(frame, packet, now)
            except ipv6.HeaderError as problem:
                self._tell_sender(problem, frame, packet, now)
                raise
            if whole is not None:
                self._ipv6_arrives(whole, now, link, group, nested + 1)
            return
        trusted = bool(frame[0] & CHECKED)
        protocol = packet.protocol
        if protocol == TCP:
            if multicast:
                self.counters.ip_not_ours += 1
            else:
                self.upper.tcp_arrives(frame, packet, now, trusted)
        elif protocol == UDP:
            known = self.upper.udp_arrives(frame, packet, now, trusted, multicast)
            if not known and not multicast:
                self.errors.error6(
                    icmpv6.UNREACHABLE, icmpv6.UNREACHABLE_PORT, 0, frame, IP_AT, packet, now
                )
        elif protocol == icmpv6.PROTOCOL:
            self.errors.icmp6_arrives(frame, packet, now, link)
        elif protocol == ipv6.NO_NEXT_HEADER:
            self.counters.ip6_no_next_header += 1
        else:
            self.counters.ip_protocol_unknown += 1
            # RFC 8200 §4: an unknown next header, pointed at.
            self.errors.error6(
                icmpv6.PARAMETER_PROBLEM,
                ipv6.UNKNOWN_NEXT_HEADER,
                packet.named_at - IP_AT,
                frame,
                IP_AT,
                packet,
                now,
            )

    def _is_for_us(self, src: bytes, dst: bytes, protocol: int, link: Link, group: bool) -> bool:
        """RFC 4291 §2.5, §2.7: whether the addresses of a packet make sense here."""
        local = self.addresses.local
        if ipv6.is_multicast(dst):
            mine = dst in link.groups and dst[1] & 15 > 1
        else:
            own = local.get(dst)
            mine = own is not None and not group
            if own is not None and ipv6.is_link_local(dst):
                mine = mine and own.link is link
        if not mine:
            self.counters.ip_not_ours += 1
            return False
        unspecified = not any(src)
        if src in local or not (unspecified or self.addresses.is_unicast(src)):
            self.counters.ip_bad_source += 1
            return False
        if unspecified and protocol != icmpv6.PROTOCOL:
            self.counters.ip_bad_source += 1
            return False
        return True

    def _tell_sender(
        self, problem: ipv6.HeaderError, frame: bytes, packet: ipv6.Ipv6Packet, now: float
    ) -> None:
        kind, code, pointer = icmpv6.PARAMETER_PROBLEM, problem.code, problem.pointer
        self.errors.error6(
            kind, code, pointer, frame, IP_AT, packet, now, always=problem.always
        )  # fmt: skip
