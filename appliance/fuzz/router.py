"""Routers between simulated networks: forward by prefix, count hops, tell of what does not fit.

    router = net.router()
    net.link(client, router.port("10.0.1.254/24"), Link(delay=0.02))
    net.link(router.port("10.0.2.254/24", mtu=1000), server, Link(rate=1e6, queue=20_000))
    client.via("10.0.1.254"); server.via("10.0.2.254")

A packet leaves by the longest prefix that has its destination, one hop older, with its next hop's
Ethernet address, which is asked for (ARP, Neighbour Discovery). What is too long for the port is
cut (IPv4 without DF) or told of (RFC 1191, RFC 8201); what has no hop left, no route, or no
neighbour, too (RFC 1812 §4.3.3, §5.3.1; RFC 4443 §3). The queue is that of the cable it leaves by.
Super-segments are cut on arrival. Not here: advertisements, redirects, options, multicast.
Imports `port`, the packets of `script`, and `net`.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Final

from appliance.fuzz.port import Port
from appliance.fuzz.script import packets
from appliance.net.checksum import ones_complement_sum
from appliance.net.errors import WireError
from appliance.net.vif.offload import NETWORK_AT, finish_checksum, segments
from appliance.net.wire import arp, ethernet, icmp, icmpv6, ipv4, ipv6
from appliance.net.wire.address import from_text, to_text
from appliance.net.wire.virtio import PLAIN, VNET_HDR_LEN

if TYPE_CHECKING:
    from appliance.fuzz.world import World

WAITING: Final = 64
"""Packets kept for a neighbour that has not answered yet."""
NEIGHBORS: Final = 4096
"""Neighbours known at once: more than any scenario has."""
TRIES: Final = 3
"""Questions for a neighbour, ASK apart (RFC 4861 §10)."""
ASK: Final = 1.0  # seconds
ERRORS: Final = 1000
"""ICMP errors in one second (RFC 4443 §2.4 (f), RFC 1812 §4.3.2.8)."""
_DF: Final = 0x4000
_MF: Final = 0x2000
_OFFSET: Final = 0x1FFF

Address = tuple[int, bytes]
"""A port's number and an address on its network."""


class RouterPort:
    """One interface of a router, on one network of each version at the most."""

    def __init__(self, router: Router, number: int, port: Port, cidrs: tuple[str, ...]) -> None:
        self.router = router
        self.number = number
        self.port = port
        self.port.sink = self
        self.inbox: list[bytes] = []
        self.addresses = [from_text(cidr.partition("/")[0]) for cidr in cidrs]

    def plug(self) -> RouterPort:
        """The port itself: it takes one cable."""
        return self

    def turn(self, _: float) -> None:
        """Forward what has arrived."""
        frames, self.inbox = self.inbox, []
        for frame in frames:
            self.router.arrives(self, frame)

    def own(self, like: bytes) -> bytes | None:
        """The port's address of the same version."""
        return next((a for a in self.addresses if len(a) == len(like)), None)

    def send(self, mac: bytes, kind: int, packet: bytes) -> bool:
        """Put a packet into a frame and on the cable."""
        return self.port.send(PLAIN + ethernet.header(mac, self.port.mac, kind) + packet)


class Router:
    """Ports, routes, and what is known of neighbours; `World.router` makes one."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.ports: list[RouterPort] = []
        self.counters: Counter[str] = Counter()
        """forwarded, fragmented; expired, too_big, unroutable, unresolved, dropped, malformed."""
        self.signals = True
        """Tells of what it cannot forward; False: a black hole."""
        self._world = world
        self._routes: list[tuple[int, int, int, RouterPort, bytes | None]] = []
        self._known: dict[Address, bytes] = {}
        self._pending: dict[Address, list[tuple[RouterPort, bytes]]] = {}
        self._second = 0
        self._errors = 0  # in that second

    # ------------------------------------------------------------------ building

    def port(self, *cidrs: str, mtu: int = 1500) -> RouterPort:
        """A new interface with these addresses and networks; ValueError if one is malformed."""
        interfaces = [ip_interface(cidr) for cidr in cidrs]
        number = len(self.ports)
        made = RouterPort(
            self, number, Port(self._world, f"{self.name}.{number}", mtu, True), cidrs
        )
        self.ports.append(made)
        for interface in interfaces:
            self._add(str(interface.network), made, None)
        return made

    def route(self, prefix: str, via: str) -> None:
        """Send what is for `prefix` to the router `via`; ValueError if that is on no network."""
        gateway = from_text(via)
        found = self._lookup(gateway)
        if found is None or found[1] is not None:
            raise ValueError(f"gateway {via} is on none of {self.name}'s networks")
        self._add(prefix, found[0], gateway)

    def _add(self, prefix: str, port: RouterPort, gateway: bytes | None) -> None:
        network = ip_network(prefix)
        octets = network.max_prefixlen // 8
        number = int(network.network_address)
        self._routes.append((network.prefixlen, octets, number, port, gateway))
        self._routes.sort(key=lambda route: -route[0])

    def _lookup(self, there: bytes) -> tuple[RouterPort, bytes | None] | None:
        """The port and gateway of the longest prefix; RFC 1812 §5.2.4.3."""
        wanted = int.from_bytes(there)
        for length, octets, number, port, gateway in self._routes:
            if octets == len(there) and (wanted ^ number) >> (8 * octets - length) == 0:
                return port, gateway
        return None

    # ------------------------------------------------------------------ what arrives

    def arrives(self, port: RouterPort, frame: bytes) -> None:
        """Take a frame in."""
        try:
            to, _, kind = ethernet.parse(frame, VNET_HDR_LEN)
            if to != port.port.mac and not ethernet.is_group(to):
                return
            if kind == ethernet.ETHERTYPE_ARP:
                self._arp(port, frame)
            elif kind in (ethernet.ETHERTYPE_IPV4, ethernet.ETHERTYPE_IPV6):
                if frame[1]:  # virtio's gso_type
                    for head, payload in segments(frame, unfinished=False):
                        self._packet(port, (head + bytes(payload))[NETWORK_AT:])
                else:
                    self._packet(port, finish_checksum(frame)[NETWORK_AT:])
        except WireError:
            self.counters["malformed"] += 1

    def _packet(self, port: RouterPort, packet: bytes) -> None:
        head = packets.read(packet)
        packet = packet[: head.payload_end]
        group = head.dst[0] >= 224 if len(head.dst) == 4 else head.dst[0] == 0xFF
        if group or any(head.dst in other.addresses for other in self.ports):
            self._local(port, packet, head)
            return
        found = self._lookup(head.dst)
        if found is None or (len(head.src) == 16 and ipv6.is_link_local(head.src)):
            self.counters["unroutable"] += 1
            self._complain(port, packet, head, *_UNREACHABLE[len(head.src)])
            return
        if head.ttl <= 1:  # RFC 1812 §5.3.1, RFC 8200 §3
            self.counters["expired"] += 1
            self._complain(port, packet, head, *_EXCEEDED[len(head.src)])
            return
        out, gateway = found
        hop = (out.number, head.dst if gateway is None else gateway)
        mtu = out.port.mtu
        if len(packet) <= mtu:
            self._emit(port, hop, _older(packet))
        elif len(head.src) == 4 and not int.from_bytes(packet[6:8]) & _DF:
            self.counters["fragmented"] += 1
            for piece in _fragments(_older(packet), head.payload_at, mtu):
                self._emit(port, hop, piece)
        else:
            self.counters["too_big"] += 1
            self._complain(port, packet, head, *_TOO_BIG[len(head.src)], mtu)

    def _local(self, port: RouterPort, packet: bytes, head: packets.Header) -> None:
        """What is for the router itself: questions of neighbours, and echo requests."""
        if len(head.src) == 16 and head.protocol == icmpv6.PROTOCOL:
            at = head.payload_at
            kind, target = packet[at], packet[at + 8 : at + 24]
            link = packet[at + 26 : at + 32]
            if kind == icmpv6.NEIGHBOR_ADVERTISEMENT and len(link) == 6:
                self._learn((port.number, target), link)
            asked = kind == icmpv6.NEIGHBOR_SOLICITATION and target in port.addresses
            if asked and len(link) == 6 and any(head.src):
                self._learn((port.number, head.src), link)
                said = packets.neighbor(target, head.src, port.port.mac, asks=False)
                port.send(link, ethernet.ETHERTYPE_IPV6, said)
        if packets.is_echo_request(packet, head):
            rest = int.from_bytes(packet[head.payload_at + 4 : head.payload_at + 8])
            body = packet[head.payload_at + 8 :]
            answer = packets.icmp(head.dst, head.src, packets.ECHO[len(head.src)], 0, rest, body)
            found = self._lookup(head.src)
            if found is not None:
                self._emit(port, (found[0].number, found[1] or head.src), answer)

    def _arp(self, port: RouterPort, frame: bytes) -> None:
        said = arp.parse(frame, NETWORK_AT, len(frame))
        if any(said.sender):
            self._learn((port.number, said.sender), said.sender_mac)
        if said.operation == arp.REQUEST and said.target in port.addresses:
            answer = arp.build(arp.REPLY, port.port.mac, said.target, said.sender_mac, said.sender)
            port.send(said.sender_mac, ethernet.ETHERTYPE_ARP, answer)

    # ------------------------------------------------------------------ what leaves

    def _emit(self, came: RouterPort, hop: Address, packet: bytes) -> None:
        """Send a packet to a neighbour, whose Ethernet address may have to be asked for."""
        mac = self._known.get(hop)
        if mac is None:
            waiting = self._pending.setdefault(hop, [])
            if len(waiting) < WAITING:
                waiting.append((came, packet))
            else:
                self.counters["dropped"] += 1
            if len(waiting) == 1:
                self._ask(hop, TRIES)
            return
        kind = ethernet.ETHERTYPE_IPV4 if len(hop[1]) == 4 else ethernet.ETHERTYPE_IPV6
        sent = self.ports[hop[0]].send(mac, kind, packet)
        self.counters["forwarded" if sent else "dropped"] += 1

    def _ask(self, hop: Address, tries: int) -> None:
        if hop not in self._pending:
            return
        if not tries:
            for came, packet in self._pending.pop(hop):
                self.counters["unresolved"] += 1
                head = packets.read(packet)
                self._complain(came, packet, head, *_NO_HOST[len(head.src)])
            return
        port, there = self.ports[hop[0]], hop[1]
        own = port.own(there)
        if own is not None and len(there) == 4:
            asked = arp.build(arp.REQUEST, port.port.mac, own, bytes(6), there)
            port.send(ethernet.BROADCAST, ethernet.ETHERTYPE_ARP, asked)
        elif own is not None:
            group = ipv6.solicited_node(there)
            asked = packets.neighbor(own, there, port.port.mac, asks=True, to=group)
            port.send(ipv6.multicast_mac(group), ethernet.ETHERTYPE_IPV6, asked)
        self._world.after(ASK, lambda: self._ask(hop, tries - 1))

    def _learn(self, hop: Address, mac: bytes) -> None:
        if hop in self._known or len(self._known) < NEIGHBORS:
            self._known[hop] = mac
        for came, packet in self._pending.pop(hop, []):
            self._emit(came, hop, packet)

    def _complain(
        self, port: RouterPort, packet: bytes, head: packets.Header, kind: int, code: int,
        rest: int = 0,
    ) -> None:  # fmt: skip
        """Tell the sender, unless that is forbidden (RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e))."""
        own = port.own(head.src)
        if not self.signals or own is None or head.later or packets.is_icmp_error(packet, head):
            return
        second = int(self._world.now)
        self._errors = self._errors + 1 if second == self._second else 1
        self._second = second
        if self._errors > ERRORS:
            return
        # As much as fits the least MTU (RFC 4443 §2.4 (c), RFC 1812 §4.3.2.3).
        quoted = packet[: icmpv6.QUOTE_MAX if len(own) == 16 else 548]
        error = packets.icmp(own, head.src, kind, code, rest, quoted)
        found = self._lookup(head.src)
        if found is not None:
            self._emit(port, (found[0].number, found[1] or head.src), error)

    def __repr__(self) -> str:
        own = ", ".join(to_text(a) for port in self.ports for a in port.addresses)
        return f"<Router {self.name} {own}>"


# Type and code of errors, by the octets of an address.
_UNREACHABLE: Final = {4: (icmp.UNREACHABLE, 0), 16: (icmpv6.UNREACHABLE, 0)}
_NO_HOST: Final = {4: (icmp.UNREACHABLE, 1), 16: (icmpv6.UNREACHABLE, 3)}
_EXCEEDED: Final = {4: (icmp.TIME_EXCEEDED, 0), 16: (icmpv6.TIME_EXCEEDED, 0)}
_TOO_BIG: Final = {
    4: (icmp.UNREACHABLE, icmp.UNREACHABLE_FRAGMENTATION), 16: (icmpv6.PACKET_TOO_BIG, 0),
}  # fmt: skip


def _older(packet: bytes) -> bytes:
    """The packet with one hop less to go."""
    if packet[0] >> 4 == 6:
        at = ipv6.HOP_LIMIT_AT
        return packet[:at] + bytes((packet[at] - 1,)) + packet[at + 1 :]
    head = bytearray(packet[: (packet[0] & 15) * 4])
    head[8] -= 1
    return _summed(head) + packet[len(head) :]


def _summed(head: bytearray) -> bytes:
    head[10:12] = b"\0\0"
    head[10:12] = (ones_complement_sum(bytes(head)) ^ 0xFFFF).to_bytes(2)
    return bytes(head)


def _fragments(packet: bytes, body_at: int, mtu: int) -> list[bytes]:
    """An IPv4 packet, or a fragment, in smaller ones (RFC 791 §3.2)."""
    field = int.from_bytes(packet[6:8])
    first, more, body = (field & _OFFSET) * 8, field & _MF, packet[body_at:]
    step = (max(mtu, ipv4.MIN_MTU) - body_at) & ~7
    made = []
    for at in range(0, len(body), step):
        piece = body[at : at + step]
        head = bytearray(packet[:body_at])
        head[2:4] = (body_at + len(piece)).to_bytes(2)
        flag = _MF if at + step < len(body) else more
        head[6:8] = (flag | (first + at) >> 3).to_bytes(2)
        made.append(_summed(head) + piece)
    return made
