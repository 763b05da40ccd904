"""A host over IPv6 and in fragments: two hosts on a cable, and odd packets made with scapy."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    fragment6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from appliance.net.link import Ipv6Settings
from appliance.net.stack import Host
from appliance.net.vif.pair import PairEnd, pair
from appliance.net.wire import ethernet
from appliance.net.wire.address import from_text, to_text
from appliance.net.wire.virtio import PLAIN

OURS, PEER = "2001:db8::1", "2001:db8::2"
PEER_MAC = "02:00:00:00:00:02"


class Inbox:
    def __init__(self) -> None:
        self.got: list[tuple[bytes, tuple[str, int]]] = []
        self.errors: list[OSError] = []

    def udp_datagram(self, data: bytes, source: tuple[str, int]) -> None:
        self.got.append((data, source))

    def udp_error(self, error: OSError) -> None:
        self.errors.append(error)


class Wire:
    """One host, whose address is its own already, and scapy at the other end of the cable."""

    def __init__(self, *cidrs: str, **options: Any) -> None:
        self.vif, self.far = pair(offload=True)
        self.host = Host(self.vif, random=random.Random(1))
        self.now = 100.0
        if options:
            self.host.use_ipv6(Ipv6Settings(b"s" * 16, **options))
        for cidr in cidrs or (f"{OURS}/64", "10.0.0.1/24"):
            self.host.add_address(cidr)
        self.run(5.0)
        self.taken()

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        self.host.flush(self.now)
        while (due := self.host.deadline()) <= until:
            self.now = max(self.now, due)
            self.host.run_timers(self.now)
        self.now = until

    def put(self, *packets: Packet, dst: str = "") -> None:
        frames = []
        for packet in packets:
            to = dst or ethernet.mac_text(self.vif.mac)
            frames.append(PLAIN + bytes(Ether(src=PEER_MAC, dst=to) / packet))
        self.host.receive(frames, self.now)

    def taken(self) -> list[Packet]:
        """What left, as scapy reads it; nobody is asked for who has told its MAC."""
        packets: list[Packet] = []
        while frames := self.far.receive(64):
            packets += [Ether(frame[10:]) for frame in frames]
        return packets

    def know_peer(self) -> None:
        """The neighbour has been heard of."""
        for link in self.host.links:
            link.nd.heard(from_text(PEER), ethernet.mac_from_text(PEER_MAC), self.now, create=True)
        self.host.links[0].arp.learn(
            from_text("10.0.0.2"), ethernet.mac_from_text(PEER_MAC), self.now, create=True
        )

    def answers(self, *packets: Packet) -> list[Packet]:
        self.know_peer()
        self.put(*packets)
        return self.taken()

    def counter(self, name: str) -> int:
        return int(getattr(self.host.counters, name))


def six(*layers: Packet, dst: str = OURS, **fields: Any) -> Packet:
    packet: Packet = IPv6(src=PEER, dst=dst, **fields)
    for layer in layers:
        packet = packet / layer
    return packet


# ---------------------------------------------------------------------- ICMPv6, RFC 4443


def test_echo() -> None:
    """RFC 4443 §4.2: the same identifier, number and data, from the address that was asked."""
    (reply,) = Wire().answers(six(ICMPv6EchoRequest(id=7, seq=9, data=b"hello")))
    assert reply[IPv6].src == OURS
    assert (reply[IPv6].payload.id, reply[IPv6].payload.seq) == (7, 9)
    assert reply[IPv6].payload.data == b"hello"
    assert reply[IPv6].hlim == 64


@pytest.mark.parametrize(
    ("packet", "kind", "code", "pointer"),
    [
        (six(UDP(dport=9) / b"x"), 1, 4, None),
        (six(Raw(b"x"), nh=200), 4, 1, 6),
        (six(IPv6ExtHdrDestOpt(), Raw(b"x" * 8)), 4, 1, 40),
        (six(IPv6ExtHdrRouting(type=0, addresses=["2001:db8::9"]), UDP()), 4, 0, 42),
        (six(IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0xC5)]), UDP()), 4, 2, 42),
        (six(IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70_000)]), UDP()), 4, 2, 42),
        (six(IPv6ExtHdrFragment(m=1, nh=17), Raw(bytes(9))), 4, 0, 4),
        (six(IPv6ExtHdrFragment(offset=8191, nh=17), Raw(bytes(16))), 4, 0, 42),
        (six(IPv6ExtHdrFragment(m=1, nh=6), Raw(bytes(8))), 4, 3, 0),  # RFC 7112: tiny first one
    ],
)
def test_errors_that_are_told(packet: Packet, kind: int, code: int, pointer: int | None) -> None:
    """RFC 4443 §3, RFC 8200 §4: type, code and pointer, and the packet quoted."""
    if packet.haslayer(IPv6ExtHdrDestOpt) and packet.haslayer(Raw):
        packet[IPv6ExtHdrDestOpt].nh = 200
    wire = Wire()
    (error,) = wire.answers(packet)
    told = error[IPv6].payload
    assert (error[IPv6].dst, told.type, told.code) == (PEER, kind, code)
    if pointer is not None:
        assert told.ptr == pointer
    assert bytes(packet)[:40] == bytes(told.payload)[:40]


@pytest.mark.parametrize(
    "packet",
    [
        six(Raw(b"x"), nh=59),
        six(UDP(dport=9), dst="ff02::1"),
        IPv6(src="::", dst=OURS) / UDP(dport=9),
        IPv6(src="ff02::5", dst=OURS) / UDP(dport=9),
        IPv6(src="::1", dst=OURS) / UDP(dport=9),
        IPv6(src="::ffff:10.0.0.9", dst=OURS) / UDP(dport=9),
        IPv6(src=OURS, dst=OURS) / UDP(dport=9),
        six(UDP(dport=9), dst="2001:db8::77"),
        six(IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x45)]), UDP(dport=9)),
        six(ICMPv6PacketTooBig(mtu=1300) / Raw(bytes(60))),
        six(TCP(dport=9, flags="R")),
    ],
)
def test_what_is_dropped_in_silence(packet: Packet) -> None:
    """RFC 4443 §2.4 (e): never about groups, nobody, or errors; RFC 8200 §4.7: nothing follows."""
    assert Wire().answers(packet) == []


def test_errors_are_limited_in_rate() -> None:
    """RFC 4443 §2.4 (f)."""
    wire = Wire()
    wire.know_peer()
    wire.put(*[six(UDP(dport=9) / b"x")] * 500)
    assert len(wire.taken()) == 50
    assert wire.counter("icmp_rate_limited") == 450


def test_unknown_option_to_a_group_is_told_with_action_bits_10() -> None:
    """RFC 4443 §2.4 (e.3), exception: from an address of ours, as the group cannot be a source."""
    wire = Wire()
    wire.know_peer()
    packet = six(IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x85)]), UDP(), dst="ff02::1")
    wire.put(packet, dst="33:33:00:00:00:01")
    (error,) = wire.taken()
    assert (error[IPv6].src, error[IPv6].payload.type) == (OURS, 4)


# ---------------------------------------------------------------------- UDP, and fragments


@pytest.mark.parametrize("size", [10, 1452, 1453, 5000, 65_500])
def test_datagrams_both_ways(size: int) -> None:
    """RFC 8200 §4.5, §5: whole while they fit, in fragments beyond; atomic ones are whole."""
    wire = Wire()
    inbox = Inbox()
    socket = wire.host.udp_bind("", 53, inbox)
    data = bytes(i & 0xFF for i in range(size))
    packet = six(IPv6ExtHdrFragment(id=77), UDP(sport=4000, dport=53), Raw(data))
    pieces = fragment6(packet, 1280)
    random.Random(size).shuffle(pieces)
    wire.know_peer()
    wire.put(*pieces)
    assert inbox.got == [(data, (PEER, 4000))]
    socket.send(data, (PEER, 4000))
    sent = [frame[IPv6] for frame in wire.taken()]
    if size <= 1452:
        assert len(sent) == 1
        assert bytes(sent[0][UDP].payload) == data
        return
    assert all(len(packet) <= 1500 for packet in sent)
    assert len({packet[IPv6ExtHdrFragment].id for packet in sent}) == 1
    joined = b"".join(bytes(packet[IPv6ExtHdrFragment].payload) for packet in sent)
    assert joined[8:] == data
    whole = IPv6(src=OURS, dst=PEER) / UDP(joined)
    del whole[UDP].chksum
    assert bytes(whole)[40:] == joined  # scapy finds the same checksum


def test_packet_too_big_for_a_datagram() -> None:
    """RFC 8201 §4: believed about what we sent, remembered; not below 1,280 octets."""
    wire = Wire()
    socket = wire.host.udp_bind("", 53, Inbox())
    wire.know_peer()
    socket.send(bytes(1400), (PEER, 4000))
    (sent,) = wire.taken()
    quoted = Raw(bytes(sent[IPv6])[:1200])
    wire.put(six(ICMPv6PacketTooBig(mtu=1279) / quoted))
    wire.put(six(ICMPv6PacketTooBig(mtu=1300) / Raw(bytes(six(UDP(), dst=PEER)))))
    socket.send(bytes(1400), (PEER, 4000))
    assert len(wire.taken()) == 1
    wire.put(six(ICMPv6PacketTooBig(mtu=1300) / quoted))
    socket.send(bytes(1400), (PEER, 4000))
    assert max(len(frame[IPv6]) for frame in wire.taken()) <= 1300
    assert wire.host.network.mtu_of(wire.host.links[0], from_text(PEER)) == 1300
    # RFC 8201 §4: ten minutes later larger packets are tried again.
    wire.now += 700.0
    wire.host.flush(wire.now)
    assert wire.host.network.mtu_of(wire.host.links[0], from_text(PEER)) == 1500


@pytest.mark.parametrize("family", [4, 6])
def test_reassembly_timeout(family: int) -> None:
    """RFC 1122 §3.3.2, RFC 8200 §4.5: time exceeded, if the first fragment has come."""
    wire = Wire()
    wire.know_peer()
    if family == 4:
        pieces = fragment(IP(src="10.0.0.2", dst="10.0.0.1") / UDP() / Raw(bytes(3000)), 1400)
    else:
        pieces = fragment6(six(IPv6ExtHdrFragment(id=5), UDP(), Raw(bytes(3000))), 1400)
    wire.put(*pieces[:2])
    wire.run(29.0)
    wire.know_peer()
    wire.taken()
    wire.run(40.0)
    told = [f for f in wire.taken() if f.type in (0x800, 0x86DD)]
    errors = [f[IP].payload if family == 4 else f[IPv6].payload for f in told]
    kind = 11 if family == 4 else 3
    assert [(e.type, e.code) for e in errors if e.type == kind] == [(kind, 1)]
    assert wire.counter("ip_fragment_timeout") == 1


def test_overlaps_and_nested_fragments() -> None:
    """RFC 5722 §4; a fragment header inside the payload of fragments is walked once more."""
    wire = Wire()
    inbox = Inbox()
    wire.host.udp_bind("", 53, inbox)
    wire.know_peer()
    first = six(IPv6ExtHdrFragment(m=1, id=3, nh=17), Raw(bytes(16)))
    wire.put(first, six(IPv6ExtHdrFragment(offset=1, id=3, nh=17), Raw(bytes(16))))
    assert wire.counter("ip_fragment_overlap") == 1
    # Sixty-four levels of fragments in fragments come to rest.
    inner: Packet = UDP(sport=1, dport=53) / Raw(b"x")
    for level in range(64):
        inner = IPv6ExtHdrFragment(id=level) / inner
    wire.put(six(inner))
    assert wire.counter("ip6_extension_limit") == 1
    assert inbox.got == []


def test_ipv4_fragments() -> None:
    """RFC 791 §3.2, RFC 6864 §4.1: put together; ours have identifications of their own."""
    wire = Wire()
    inbox = Inbox()
    socket = wire.host.udp_bind("", 53, inbox)
    wire.know_peer()
    packet = IP(src="10.0.0.2", dst="10.0.0.1", id=7) / UDP(sport=4000, dport=53) / Raw(b"z" * 4000)
    wire.put(*reversed(fragment(packet, 1000)))
    assert inbox.got == [(b"z" * 4000, ("10.0.0.2", 4000))]
    for _ in range(2):
        socket.send(b"z" * 4000, ("10.0.0.2", 4000))
    sent = [frame[IP] for frame in wire.taken()]
    assert [packet.frag for packet in sent] == [0, 185, 370] * 2
    assert len({packet.id for packet in sent}) == 2


# ---------------------------------------------------------------------- discovery in a host


def test_a_host_configures_itself() -> None:
    """RFC 4862, RFC 4861 §6.3.4: an advertisement gives an address, a router and a route."""
    wire = Wire("10.0.0.1/24", autonomous=True)
    ra = (
        IPv6(src="fe80::9", dst="ff02::1", hlim=255)
        / ICMPv6ND_RA()
        / ICMPv6NDOptPrefixInfo(
            prefix="2001:db8:5::", prefixlen=64, validlifetime=600, preferredlifetime=300
        )
    )
    wire.put(ra, dst="33:33:00:00:00:01")
    wire.run(3.0)
    mine = [to_text(a) for a in wire.host.addresses.local if a[:6] == from_text("2001:db8:5::")[:6]]
    assert len(mine) == 1
    way = wire.host.network.way(from_text("2001:db8:77::1"))
    assert way is not None
    assert to_text(way[1].address) == "fe80::9"
    assert wire.host.network.source_for(from_text("2001:db8:77::1")) == from_text(mine[0])
    # RFC 4861 §6.1.2: what was forwarded on the way here is not believed.
    forged = ra.copy()
    forged.hlim, forged.src = 254, "fe80::66"
    wire.put(forged, dst="33:33:00:00:00:01")
    assert wire.counter("nd_hop_limit") == 1
    # §6.3.5: everything ends in its time, and what was bound to the address with it.
    wire.run(700.0)
    assert from_text(mine[0]) not in wire.host.addresses.local


def test_a_tentative_address_is_not_ours() -> None:
    """RFC 4862 §5.4: no packet is accepted for it, and somebody else may have it."""
    wire = Wire("10.0.0.1/24", autonomous=False)
    wire.host.add_address(f"{OURS}/64")
    wire.host.flush(wire.now)
    wire.taken()
    wire.put(six(ICMPv6EchoRequest()))
    assert [f for f in wire.taken() if f.haslayer(ICMPv6EchoRequest)] == []
    na = IPv6(src=PEER, dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=OURS, S=0, O=1)
    wire.put(na / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC), dst="33:33:00:00:00:01")
    wire.run(5.0)
    assert from_text(OURS) not in wire.host.addresses.local
    assert wire.counter("nd_duplicate_address") == 1


def join(*hosts: tuple[Host, PairEnd], now: float, seconds: float) -> float:
    """Let two hosts and their cable run in virtual time."""
    until = now + seconds
    while now <= until:
        busy = True
        while busy:
            busy = False
            for host, vif in hosts:
                host.flush(now)
                if frames := vif.receive(64):
                    host.receive(frames, now)
                    busy = True
                if host.deadline() <= now:
                    host.run_timers(now)
        now = max(min(*(host.deadline() for host, _ in hosts), until + 1), now + 1e-6)
    return until


def test_tcp_over_ipv6() -> None:
    """RFC 9293 over RFC 8200: super-segments both ways; the MSS is the path's (RFC 9293 §3.7.1)."""
    left, right = pair()
    one, two = Host(left, random=random.Random(1)), Host(right, random=random.Random(2))
    one.add_address(f"{OURS}/64")
    two.add_address(f"{PEER}/64")
    ends = ((one, left), (two, right))
    now = join(*ends, now=100.0, seconds=5.0)
    got = bytearray()

    class User:
        connection: Any = None

        def tcp_established(self) -> None: ...
        def tcp_data(self, data: bytes) -> None:
            got.extend(data)

        def tcp_eof(self) -> None:
            self.connection.close()

        def tcp_writable(self) -> None: ...
        def tcp_closed(self, error: Exception | None) -> None:
            assert error is None

    server, client = User(), User()

    def accept(connection: Any) -> User:
        server.connection = connection
        assert connection.remote[0] == OURS
        return server

    two.tcp_listen("", 80, accept)
    client.connection = one.tcp_connect(PEER, 80, client)
    data = random.Random(3).randbytes(3_000_000)
    client.connection.send(data)
    client.connection.shutdown()
    join(*ends, now=now, seconds=120.0)
    assert bytes(got) == data
    assert client.connection.mss == 1500 - 40 - 20 - 12
    assert two.counters.tcp_fast_path > 10
    assert one.tcp.flows == two.tcp.flows == {}


def test_a_segment_of_no_flow_is_answered_alike_on_the_long_way() -> None:
    told = []
    for strays in (None, lambda frame, packet, now: False):  # asked about: the long way
        wire = Wire()
        wire.host.strays = strays
        wire.host.tcp_listen("", 80, lambda connection: pytest.fail("no handshake was complete"))
        packets = [
            IPv6(src=src, dst=dst) / TCP(sport=4000 + flags, dport=port, seq=5, ack=77, flags=flags)
            for port in (80, 81)
            for src, dst in ((PEER, OURS), (OURS, OURS), ("ff02::1", OURS), (PEER, "ff02::1"))
            for flags in (0, 1, 2, 4, 16, 17, 18, 20, 0xC2)
        ]
        answers = [bytes(packet) for packet in wire.answers(*packets)]
        told.append((answers, wire.host.counters.as_dict()))
    assert told[0] == told[1]
    assert told[0][1]["tcp_in"] == 18
    assert len(told[0][0]) > 8


def test_a_peer_that_names_no_mss() -> None:
    """RFC 9293 §3.7.1, MUST-15: 1,220 octets over IPv6, 536 over IPv4."""
    for ours, theirs, family, expected in (
        (OURS, PEER, IPv6, 1220),
        ("10.0.0.1", "10.0.0.2", IP, 536),
    ):
        wire = Wire()
        sizes: list[int] = []

        class User:
            def tcp_established(self) -> None: ...
            def tcp_data(self, data: bytes) -> None: ...
            def tcp_eof(self) -> None: ...
            def tcp_writable(self) -> None: ...
            def tcp_closed(self, error: Exception | None) -> None: ...

        def accept(connection: Any, sizes: list[int] = sizes) -> User:
            sizes.append(connection.mss)
            return User()

        wire.host.tcp_listen("", 80, accept)
        segment = {"sport": 4000, "dport": 80}
        ip = family(src=theirs, dst=ours)
        (first,) = (p for p in wire.answers(ip / TCP(**segment, seq=100, flags="S")) if TCP in p)
        answer = first[TCP]
        wire.answers(ip / TCP(**segment, seq=101, ack=answer.seq + 1, flags="A"))
        assert sizes == [expected]
