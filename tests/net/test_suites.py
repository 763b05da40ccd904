"""What conformance suites ask of a host besides the MUSTs: odd packets at a whole host, by scapy.

The cases follow what such suites put to a host (errors about errors, pings too large for the path,
nested fragments, source routes); what RFC 8200, 4861 and 4862 demand is in test_musts6.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import (
    ICMP,
    IP,
    UDP,
    IPOption,
    IPOption_LSRR,
    IPOption_RR,
    IPOption_SSRR,
    fragment,
)
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLQuery,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    Pad1,
    RouterAlert,
)
from scapy.packet import Packet, Raw

from appliance.net.link4 import MAX_REDIRECTS
from appliance.net.network import MAX_NESTED
from appliance.net.wire import ethernet
from appliance.net.wire.address import from_text
from tests.net.test_musts4 import LEASE, MINE, SERVER, Leased
from tests.net.test_network6 import OURS, PEER, Inbox, Wire, six

OURS4, PEER4 = "10.0.0.1", "10.0.0.2"
EVERYBODY_MAC = "ff:ff:ff:ff:ff:ff"
ALL_NODES_MAC = "33:33:00:00:00:01"


def four(*layers: Packet, dst: str = OURS4, **fields: object) -> Packet:
    packet: Packet = IP(**{"src": PEER4, "dst": dst, **fields})
    for layer in layers:
        packet = packet / layer
    return packet


# ---------------------------------------------------------------------- no errors about errors


REDIRECT = ICMPv6ND_Redirect(tgt="fe80::8", dst="2001:db8:77::1")
UNREACHABLE6 = Raw(bytes((1, 4, 0, 0)) + bytes(9))


@pytest.mark.parametrize(
    "packet",
    [
        # An option that would be told of, in front of a redirect (RFC 4443 §2.4 (e.2)) ...
        six(IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x85)]), REDIRECT, hlim=255),
        # ... and a first fragment of the wrong length, of an error (e.1), plain or behind options.
        six(IPv6ExtHdrFragment(m=1, nh=58), UNREACHABLE6),
        six(IPv6ExtHdrFragment(m=1, nh=60), Raw(bytes((58, 0, 1, 4, 0, 0, 0, 0))), UNREACHABLE6),
    ],
)
def test_no_error_about_an_error_or_a_redirect(packet: Packet) -> None:
    """RFC 4443 §2.4 (e.1), (e.2): MUST NOT, whatever else is wrong with the packet."""
    assert Wire().answers(packet) == []


@pytest.mark.parametrize("family", [4, 6])
def test_no_error_about_a_fragment_of_an_error(family: int) -> None:
    """RFC 1122 §3.2.2, RFC 4443 §2.4 (e.1): when the rest of it never comes, silence."""
    wire = Wire()
    wire.know_peer()
    if family == 4:
        wire.put(four(Raw(bytes((3, 3, 0, 0)) + bytes(12)), proto=1, flags="MF"))
    else:
        wire.put(six(IPv6ExtHdrFragment(m=1, nh=58), Raw(bytes((1, 4, 0, 0)) + bytes(12))))
    wire.run(65.0)
    told = [p for p in wire.taken() if p.haslayer(ICMPv6TimeExceeded) or p.haslayer(ICMP)]
    assert told == []
    assert wire.counter("ip_fragment_timeout") == 1


@pytest.mark.parametrize("family", [4, 6])
def test_no_error_without_the_first_fragment(family: int) -> None:
    """RFC 1122 §3.3.2, RFC 8200 §4.5: nobody could tell what the error was about."""
    wire = Wire()
    wire.know_peer()
    if family == 4:
        wire.put(four(Raw(bytes(16)), proto=17, frag=2))
    else:
        wire.put(six(IPv6ExtHdrFragment(offset=2, nh=17), Raw(bytes(16))))
    wire.run(65.0)
    assert [p for p in wire.taken() if p.haslayer(ICMPv6TimeExceeded) or p.haslayer(ICMP)] == []


@pytest.mark.parametrize("size", [0, 100, 1400])
def test_how_much_is_quoted(size: int) -> None:
    """RFC 4443 §2.4 (c): what fits 1,280 octets; RFC 1812 §4.3.2.3: 576. Ports are always there."""
    for packet, most in (
        (six(UDP(sport=7, dport=9), Raw(bytes(size))), 1280),
        (four(UDP(sport=7, dport=9), Raw(bytes(size))), 576),
    ):
        (told,) = Wire().answers(packet)
        error = bytes(told.payload)
        head = len(bytes(packet)) - size - 8
        quoted = error[head + 8 :]
        assert len(error) == min(most, len(bytes(packet)) + head + 8)
        assert quoted == bytes(packet)[: len(quoted)]


# ---------------------------------------------------------------------- pings and the path's MTU


def too_big(reply: Packet, mtu: int) -> Packet:
    if IPv6 in reply:
        return six(ICMPv6PacketTooBig(mtu=mtu), Raw(bytes(reply[IPv6])[:1232]))
    return four(ICMP(type=3, code=4, nexthopmtu=mtu), Raw(bytes(reply[IP])[:548]))


def ping(wire: Wire, family: int, number: int, size: int = 1400) -> list[int]:
    """Octets of each packet of the reply."""
    return [len(p[IPv6] if family == 6 else p[IP]) for p in reply_to(wire, family, number, size)]


def reply_to(wire: Wire, family: int, number: int, size: int = 1400) -> list[Packet]:
    wire.know_peer()
    if family == 6:
        wire.put(six(ICMPv6EchoRequest(id=1, seq=number, data=bytes(size))))
    else:
        wire.put(four(ICMP(id=1, seq=number), Raw(bytes(size))))
    # Without what asks whether the neighbour is still there.
    return [p for p in wire.taken() if p.haslayer(IP) or (p.haslayer(IPv6) and len(p) > 100)]


@pytest.mark.parametrize(("family", "mtu"), [(4, 600), (6, 1280), (6, 1400)])
def test_packet_too_big_about_an_echo(family: int, mtu: int) -> None:
    """RFC 8201 §4, RFC 1191 §3: the next reply fits the path, in fragments; ten minutes long.

    RFC 8201 §4: less than 1,280 MUST be ignored, and so is what quotes nothing that we sent.
    """
    wire = Wire()
    (reply,) = reply_to(wire, family, 1)
    whole = len(reply) - 14
    never_sent = reply.copy()
    never_sent[IPv6 if family == 6 else IP].payload.id = 77
    wire.put(too_big(never_sent, mtu))
    if family == 6:
        wire.put(too_big(reply, 1279))
    assert ping(wire, family, 2) == [whole]
    wire.put(too_big(reply, mtu))
    sizes = ping(wire, family, 3)
    assert len(sizes) > 1
    assert max(sizes) <= mtu
    # Only of echo messages: whoever has us send one must not shrink the packets of others.
    link = wire.host.links[0]
    there = {4: b"\x0a\0\0\2", 6: bytes.fromhex("20010db8") + bytes(11) + b"\2"}[family]
    assert wire.host.network.mtu_of(link, there) == 1500
    wire.run(601.0)
    assert ping(wire, family, 4) == [whole]


@pytest.mark.parametrize("family", [4, 6])
def test_why_a_ping_has_no_reply(family: int) -> None:
    """RFC 1122 §3.2.2, RFC 4443 §2.4 (d): an error goes to who sent what it quotes, if anybody did.

    RFC 1122 §2.3.2.1: and nobody answers at the next hop after three questions.
    """
    wire = Wire()
    wire.know_peer()
    heard: list[tuple[str, int, str]] = []
    there, nobody = (PEER4, "10.0.0.77") if family == 4 else (PEER, "2001:db8::77")
    wire.host.network.ping(from_text(there), 7, 1, 10, lambda *what: heard.append(what))
    (request,) = wire.taken()
    never_sent = request.copy()
    never_sent[IPv6 if family == 6 else IP].payload.id = 8
    for quoted in (never_sent, request):
        octets = Raw(bytes(quoted.payload))
        if family == 4:
            wire.put(four(ICMP(type=11), octets, src="10.0.0.9"))
        else:
            wire.put(six(ICMPv6TimeExceeded(), octets))
    assert heard == [("10.0.0.9" if family == 4 else PEER, 1, "No route to host (time exceeded)")]
    wire.host.network.ping(from_text(nobody), 7, 2, 10, lambda *what: heard.append(what))
    wire.run(3.5)
    ours = OURS4 if family == 4 else OURS
    assert heard[1:] == [(ours, 2, "No route to host")]


def test_a_router_with_a_smaller_link() -> None:
    """RFC 4861 §6.3.4, RFC 8200 §5: what the router advertises as the link's MTU holds at once."""
    wire = Wire()
    wire.host.links[0].v6.path_mtu6(1280)
    assert ping(wire, 6, 1) == [1280, 224]


# ---------------------------------------------------------------------- who is answered


@pytest.mark.parametrize(
    ("packet", "mac", "answers"),
    [
        (six(ICMPv6EchoRequest(), dst="ff02::1"), ALL_NODES_MAC, 1),
        (six(ICMPv6EchoRequest(), dst="ff02::7"), "33:33:00:00:00:07", 0),
        (six(ICMPv6EchoRequest(), dst="ff01::1"), ALL_NODES_MAC, 0),
        (six(ICMPv6EchoRequest()), ALL_NODES_MAC, 0),
        (IPv6(src="::", dst=OURS) / ICMPv6EchoRequest(), "", 0),
        (four(ICMP()), EVERYBODY_MAC, 0),
        (four(ICMP(), dst="255.255.255.255"), EVERYBODY_MAC, 0),
        (four(UDP(dport=9), dst="10.0.0.255"), EVERYBODY_MAC, 0),
        (four(ICMP(), ttl=0), "", 1),
        *[
            (four(ICMP(), src=source), "", 0)
            for source in (
                "224.0.0.1", "255.255.255.255", "10.0.0.255", "127.0.0.1", "0.0.0.0", "240.0.0.1",
                OURS4,
            )
        ],
    ],
)  # fmt: skip
def test_who_is_answered(packet: Packet, mac: str, answers: int) -> None:
    """RFC 1122 §3.2.1.3, §3.2.1.7, §3.2.2.6, §3.3.6; RFC 4291 §2.7; RFC 4443 §4.2."""
    wire = Wire()
    wire.know_peer()
    wire.put(packet, dst=mac)
    replies = wire.taken()
    assert len(replies) == answers
    for reply in replies:
        assert ICMPv6EchoReply not in reply or reply[IPv6].src == OURS


# ---------------------------------------------------------------------- headers


def test_options_of_ipv4_that_cannot_be() -> None:
    """RFC 1122 §3.2.2.5: a parameter problem that points at the option; none about an error."""
    for octets, pointer in (
        (b"\1\1\1\x44", 23),  # no length
        (b"\x44\0\x09\0\1\2\3\4", 20),
        (b"\x44\1\x09\0\1\2\3\4", 20),
        (b"\1\1\x44\x09\x09\0\0\0", 22),  # beyond the header
        (b"\x83\2\0\0", 20),  # a source route without a pointer
    ):
        option = IPOption(octets)
        (told,) = Wire().answers(four(ICMP(), options=[option]))
        assert (told[ICMP].type, told[ICMP].code, told[ICMP].ptr) == (12, 0, pointer), octets
        assert Wire().answers(four(ICMP(type=3, code=3), options=[option])) == []
        broadcast = four(ICMP(), options=[option], dst="10.0.0.255")
        assert Wire().answers(broadcast) == []


@pytest.mark.parametrize("route", [IPOption_LSRR, IPOption_SSRR])
def test_source_routes(route: type[Packet]) -> None:
    """RFC 1122 §3.3.5: a host that does not forward says so, code 5; §3.2.1.8 (c): at its end it is
    an option like any other.
    """
    wire = Wire()
    hops = {"routers": ["10.0.0.9", "10.0.0.8"]}
    for pointer in (4, 8):
        (told,) = wire.answers(four(ICMP(), options=[route(pointer=pointer, **hops)]))
        assert (told[ICMP].type, told[ICMP].code) == (3, 5)
    (reply,) = wire.answers(four(ICMP(), options=[route(pointer=12, **hops)]))
    assert (reply[ICMP].type, reply[IP].options) == (0, [])
    (reply,) = wire.answers(four(ICMP(), options=[IPOption_RR(pointer=4, routers=["0.0.0.0"])]))
    assert reply[ICMP].type == 0


def test_six_octets_of_padding() -> None:
    """RFC 8200 §4.2: Pad1 as often as alignment needs it."""
    hops = IPv6ExtHdrHopByHop(options=[Pad1()] * 6)
    assert len(Wire().answers(six(hops, ICMPv6EchoRequest()))) == 1


def nested(levels: int) -> list[Packet]:
    """Datagrams of which each is the last fragment of the next, once it is whole."""
    packets = [
        six(
            IPv6ExtHdrFragment(nh=44, m=1, id=level),
            Raw(bytes(IPv6ExtHdrFragment(nh=59, offset=1, id=level + 1))),
        )
        for level in range(levels)
    ]
    return [*packets, six(IPv6ExtHdrFragment(nh=44, offset=1, id=0), Raw(bytes(8)))]


def test_fragments_of_fragments_end_somewhere() -> None:
    """RFC 8200 §4.1: headers may occur again; one packet must not complete hundreds of others."""
    wire = Wire()
    wire.put(*nested(400))
    assert wire.counter("ip_reassembled") == MAX_NESTED
    assert wire.counter("ip_fragment_limit") == 1


def test_source_and_length_of_reassembly_over_ipv4() -> None:
    """RFC 791 §3.2: by source, destination, protocol and identification; in any order; once."""
    wire = Wire()
    wire.know_peer()
    pieces = fragment(four(ICMP(id=5, seq=1), Raw(bytes(3000)), id=9), 1000)
    for change in ({"src": "10.0.0.3"}, {"id": 10}, {"proto": 17}):
        stranger = pieces[1].copy()
        for name, value in change.items():
            setattr(stranger[IP], name, value)
        del stranger[IP].chksum
        wire.put(stranger)
    wire.put(pieces[3], pieces[0], pieces[2], pieces[0])
    assert wire.taken() == []
    wire.put(pieces[1])
    assert sum(len(p[IP].payload) for p in wire.taken()) == 3008


# ---------------------------------------------------------------------- IPv4 redirects

GATEWAY, BETTER, AWAY4 = "10.0.0.9", "10.0.0.8", "192.0.2.1"
GATEWAY_MAC, BETTER_MAC = "02:00:00:00:00:09", "02:00:00:00:00:08"


class Redirected:
    """A host that writes to somebody behind a router, of which there are two."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.wire.host.network.add_gateway(GATEWAY)
        self.meet()
        self.socket = self.wire.host.udp_bind("", 53, Inbox())
        (self.sent,) = self.send()

    def meet(self) -> None:
        for address, mac in ((GATEWAY, GATEWAY_MAC), (BETTER, BETTER_MAC)):
            octets = ethernet.mac_from_text(mac)
            self.wire.host.links[0].arp.learn(
                from_text(address), octets, self.wire.now, create=True
            )

    def send(self, to: str = AWAY4) -> list[Packet]:
        self.socket.send(b"x", (to, 9))
        return [p for p in self.wire.taken() if p.haslayer(UDP)]

    def told(self, *, src: str = GATEWAY, gw: str = BETTER, code: int = 1, **change: int) -> None:
        quoted = self.sent[IP].copy()
        for name, value in change.items():
            setattr(quoted[UDP], name, value)
        octets = Raw(bytes(quoted)[:28])
        self.wire.put(IP(src=src, dst=OURS4) / ICMP(type=5, code=code, gw=gw) / octets)

    def hop(self, to: str = AWAY4) -> str:
        return str(self.send(to)[0].dst)


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_router_knows_a_better_one(code: int) -> None:
    """RFC 1122 §3.2.2.2: MUST be believed, for the host that was quoted, whatever the code.

    §3.3.1.5: and not for longer than the better one answers.
    """
    scene = Redirected()
    assert scene.hop() == GATEWAY_MAC
    scene.told(code=code)
    assert scene.hop() == BETTER_MAC
    assert scene.hop("192.0.2.2") == GATEWAY_MAC
    for _ in range(130):  # nobody answers for the better one any more, and the other is there
        scene.wire.run(1.0)
        octets = ethernet.mac_from_text(GATEWAY_MAC)
        scene.wire.host.links[0].arp.learn(from_text(GATEWAY), octets, scene.wire.now, create=True)
        scene.send()
    assert scene.hop() == GATEWAY_MAC


@pytest.mark.parametrize(
    "change",
    [
        {"src": BETTER}, {"src": "10.0.0.7"}, {"gw": "192.0.2.9"}, {"gw": OURS4},
        {"gw": "10.0.0.255"}, {"gw": "224.0.0.1"}, {"gw": "0.0.0.0"}, {"sport": 54}, {"dport": 10},
    ],
)  # fmt: skip
def test_redirects_that_are_none(change: dict[str, Any]) -> None:
    """RFC 1122 §3.2.2.2: from the first hop, to a neighbour; RFC 5927 §4: about what we sent."""
    scene = Redirected()
    scene.told(**change)
    assert scene.hop() == GATEWAY_MAC
    assert len([r for r in scene.wire.host.network.routes if r.origin == "redirect"]) == 0


def test_redirects_are_bounded() -> None:
    """RFC 1122 §3.3.1.2: they are a cache of some destinations, the last ones."""
    scene = Redirected()
    routes = scene.wire.host.network.routes
    for number in range(100):
        (scene.sent,) = scene.send(f"192.0.2.{number}")
        scene.told()
    assert len([r for r in routes if r.origin == "redirect"]) == MAX_REDIRECTS
    assert scene.hop("192.0.2.99") == BETTER_MAC
    assert scene.hop("192.0.2.0") == GATEWAY_MAC


def test_redirects_end_with_the_lease() -> None:
    """RFC 2131 §4.4.5: with an address its network's routers are gone."""
    ports = Leased()
    ports.bind()
    for address in (SERVER, BETTER):
        ports.learn(0, address)
    socket = ports.host.udp_bind("", 53, Inbox())
    socket.send(b"x", (AWAY4, 9))
    (sent,) = [p for p in ports.taken(0) if p.haslayer(UDP)]
    redirect = IP(src=SERVER, dst=MINE) / ICMP(type=5, code=1, gw=BETTER)
    ports.put(0, redirect / Raw(bytes(sent[IP])[:28]))
    origins = [route.origin for route in ports.host.network.routes]
    assert origins.count("redirect") == 1
    ports.messages(LEASE + 10.0)
    origins = [route.origin for route in ports.host.network.routes]
    assert "redirect" not in origins
    assert "dhcp" not in origins


# ---------------------------------------------------------------------- listeners


def query(*headers: Packet, hlim: int = 1, src: str = "fe80::2") -> Packet:
    packet = IPv6(src=src, dst="ff02::1", hlim=hlim)
    for header in headers:
        packet = packet / header
    return packet / ICMPv6MLQuery2(mrd=1000)


ALERT = IPv6ExtHdrHopByHop(options=[RouterAlert()])


@pytest.mark.parametrize(
    ("packet", "reports"),
    [
        (query(ALERT), 1),
        (query(IPv6ExtHdrHopByHop(options=[Pad1(), Pad1(), RouterAlert()])), 1),
        (query(), 0),
        (query(IPv6ExtHdrHopByHop(options=[RouterAlert(value=1)])), 0),
        (query(IPv6ExtHdrDestOpt(options=[RouterAlert()])), 0),
        (query(ALERT, hlim=2), 0),
        (query(ALERT, src=PEER), 0),
    ],
)
def test_queries_that_are_answered(packet: Packet, reports: int) -> None:
    """RFC 3810 §6.2: from a link-local address, with a hop limit of 1 and a router alert."""
    wire = Wire()
    wire.run(10.0)
    wire.taken()
    wire.put(packet, dst=ALL_NODES_MAC)
    assert [p for p in wire.taken() if ICMPv6MLReport2 in p] == []  # not at once
    wire.run(1.1)
    assert len([p for p in wire.taken() if ICMPv6MLReport2 in p]) == reports


def test_listeners_of_version_1() -> None:
    """RFC 2710 §3: each report to its group, with a hop limit of 1, behind a router alert."""
    wire = Wire()
    wire.run(10.0)
    wire.taken()
    asked = IPv6(src="fe80::2", dst="ff02::1", hlim=1) / ALERT / ICMPv6MLQuery(mrd=1000)
    wire.put(asked, dst=ALL_NODES_MAC)
    heard = IPv6(src="fe80::2", dst="ff02::1:ff00:1", hlim=1) / ALERT
    wire.put(heard / ICMPv6MLReport(mladdr="ff02::1:ff00:1"), dst="33:33:ff:00:00:01")
    wire.run(1.1)
    sent = [p for p in wire.taken() if ICMPv6MLReport in p]
    assert sent
    for report in sent:
        group = report[ICMPv6MLReport].mladdr
        assert group != "ff02::1:ff00:1"  # somebody else has reported it
        assert (report[IPv6].dst, report[IPv6].hlim) == (group, 1)
        assert report[RouterAlert].value == 0


def test_hop_by_hop_behind_another_header() -> None:
    """RFC 8200 §4.1: an unrecognized next header, pointed at where it is named."""
    (told,) = Wire().answers(six(IPv6ExtHdrDestOpt(), IPv6ExtHdrHopByHop(), ICMPv6EchoRequest()))
    assert (told[ICMPv6ParamProblem].code, told[ICMPv6ParamProblem].ptr) == (1, 40)
