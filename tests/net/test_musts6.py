"""What a host MUST and MUST NOT do by RFC 8200, 4861 and 4862, a whole host against scapy.

The machines by themselves are in test_slaac.py and test_neighbor6.py, the octets in wire/, errors
and fragments in test_network6.py; here is what only the whole shows, section by section.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    PadN,
    fragment6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from appliance.net.link import Ipv6Settings
from appliance.net.neighbor import REACHABLE, STALE
from appliance.net.router_discovery import MAX_PREFIXES, MAX_ROUTERS, MAX_SERVERS
from appliance.net.slaac import MAX_ADDRESSES, Slaac
from appliance.net.stack import Host
from appliance.net.vif.pair import pair
from appliance.net.wire import ipv6
from appliance.net.wire.address import from_text, to_text
from appliance.net.wire.virtio import PLAIN
from tests.net.test_network6 import OURS, PEER, PEER_MAC, Inbox, Wire, six

ROUTER, OTHER_ROUTER, ROUTER_MAC = "fe80::9", "fe80::8", "02:00:00:00:00:09"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
AWAY = "2001:db8:77::1"


def advertising(wire: Wire) -> Slaac:
    machine = wire.host.links[0].slaac
    assert machine is not None
    return machine


def ra(*options: Packet, src: str = ROUTER, hlim: int = 255, **fields: Any) -> Packet:
    packet = IPv6(src=src, dst=ALL_NODES, hlim=hlim) / ICMPv6ND_RA(**fields)
    for option in options:
        packet = packet / option
    return packet


def prefix(text: str = "2001:db8:5::", **fields: Any) -> Packet:
    fields = {"validlifetime": 3600, "preferredlifetime": 1800, **fields}
    return ICMPv6NDOptPrefixInfo(prefix=text, prefixlen=64, **fields)


def routed(*options: Packet) -> Wire:
    """A host that has heard one router, and has an address from it."""
    wire = Wire("10.0.0.1/24", autonomous=True)
    told = ra(ICMPv6NDOptSrcLLAddr(lladdr=ROUTER_MAC), prefix(), *options)
    wire.put(told, dst=ALL_NODES_MAC)
    wire.run(3.0)
    wire.taken()
    return wire


def autoconfigured(wire: Wire) -> str:
    made = [own for own in wire.host.addresses.local.values() if own.origin == "slaac"]
    return to_text(made[0].address)


def icmp(wire: Wire, kind: type[Packet]) -> list[Packet]:
    return [frame for frame in wire.taken() if frame.haslayer(kind)]


# ---------------------------------------------------------------------- RFC 8200


@pytest.mark.parametrize(
    "chain",
    [
        (IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0\0\0")]),),
        (IPv6ExtHdrDestOpt(), IPv6ExtHdrDestOpt(), IPv6ExtHdrDestOpt()),
        (IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(type=4, segleft=0), IPv6ExtHdrDestOpt()),
        (IPv6ExtHdrFragment(id=5), IPv6ExtHdrRouting(type=0, segleft=0), IPv6ExtHdrFragment(id=6)),
        (IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1E, optdata=b"any")]),),
    ],
)
def test_headers_in_any_order_and_number(chain: tuple[Packet, ...]) -> None:
    """RFC 8200 §4.1: MUST accept extension headers in any order, any number of times.

    §4.2: options with action bits 00 are skipped; §4.4: a routing header that is done with is
    ignored whatever its type.
    """
    (reply,) = Wire().answers(six(*chain, ICMPv6EchoRequest(id=3)))
    assert reply[ICMPv6EchoReply].id == 3
    # §8.4: what answers MUST NOT carry a routing header that was not asked for by the host itself.
    assert not reply.haslayer(IPv6ExtHdrRouting)


@pytest.mark.parametrize("hops", [0, 1])
def test_the_hop_limit_does_not_matter_at_the_destination(hops: int) -> None:
    """RFC 8200 §3: a node that is the destination should not discard for a hop limit of nought."""
    assert len(Wire().answers(six(ICMPv6EchoRequest(), hlim=hops))) == 1


def test_fragments_belong_together_by_source_destination_and_number() -> None:
    """RFC 8200 §4.5: from fragments with the same three only; the next header is the first's."""
    wire = Wire(f"{OURS}/64", "2001:db8::1:1/64")
    inbox = Inbox()
    wire.host.udp_bind("", 53, inbox)
    wire.know_peer()
    data = bytes(range(200)) * 10
    first, second = fragment6(
        six(IPv6ExtHdrFragment(id=7), UDP(sport=9, dport=53), Raw(data)), 1280
    )
    strangers = []
    for change in ({"src": "2001:db8::3"}, {"dst": "2001:db8::1:1"}, {"id": 8}):
        other = second.copy()
        if "id" in change:
            other[IPv6ExtHdrFragment].id = change["id"]
        else:
            setattr(other[IPv6], *next(iter(change.items())))
        strangers.append(other)
    wire.put(first, *strangers)
    assert inbox.got == []
    # A last fragment whose header names another protocol: RFC 8200 §4.5, it is not looked at.
    second[IPv6ExtHdrFragment].nh = 6
    wire.put(second)
    assert inbox.got == [(data, (PEER, 9))]


def test_atomic_fragments_stand_alone() -> None:
    """RFC 8200 §4.5, RFC 6946 §4: processed by itself, whatever waits with the same number."""
    wire = Wire()
    inbox = Inbox()
    wire.host.udp_bind("", 53, inbox)
    wire.know_peer()
    pieces = fragment6(
        six(IPv6ExtHdrFragment(id=7), UDP(sport=9, dport=53), Raw(b"a" * 2000)), 1280
    )
    atomic = six(IPv6ExtHdrFragment(id=7), UDP(sport=9, dport=53), Raw(b"atomic"))
    wire.put(pieces[0], atomic)
    assert [data for data, _ in inbox.got] == [b"atomic"]
    wire.put(*pieces[1:])
    assert [data for data, _ in inbox.got] == [b"atomic", b"a" * 2000]


def test_overlaps_are_dropped_without_a_word() -> None:
    """RFC 8200 §4.5: overlaps MUST end the reassembly, silently: no ICMPv6, now or later."""
    wire = Wire()
    inbox = Inbox()
    wire.host.udp_bind("", 53, inbox)
    wire.know_peer()
    whole = bytes(UDP(sport=9, dport=53, len=48, chksum=0) / Raw(bytes(40)))
    wire.put(
        six(IPv6ExtHdrFragment(m=1, id=3, nh=17), Raw(whole[:24])),
        six(IPv6ExtHdrFragment(offset=2, m=1, id=3, nh=17), Raw(bytes(16))),
        six(IPv6ExtHdrFragment(offset=4, id=3, nh=17), Raw(whole[32:])),
    )
    wire.run(70.0)
    assert inbox.got == []
    assert icmp(wire, ICMPv6TimeExceeded) == []
    assert wire.counter("ip_fragment_overlap") >= 1


def test_tiny_fragments_are_bounded() -> None:
    """RFC 8200 §4.5 puts no least size: 8 octets each are taken, but not without end."""
    wire = Wire()
    inbox = Inbox()
    wire.host.udp_bind("", 53, inbox)
    wire.know_peer()
    for number, size in ((1, 400), (2, 4000)):
        whole = bytes(six(UDP(sport=9, dport=53), Raw(bytes(size))))[40:]
        pieces = [
            six(
                IPv6ExtHdrFragment(offset=at // 8, m=int(at + 8 < len(whole)), id=number, nh=17),
                Raw(whole[at : at + 8]),
            )
            for at in range(0, len(whole), 8)
        ]
        wire.put(*pieces)
    assert [len(data) for data, _ in inbox.got] == [400]
    assert wire.counter("ip_fragment_limit") == 1


def test_fifteen_hundred_octets_put_together() -> None:
    """RFC 8200 §5: MUST accept what is 1,500 octets when put together, and 1,280 in one piece."""
    wire = Wire()
    wire.know_peer()
    for size in (1280, 1500):
        echo = six(IPv6ExtHdrFragment(id=size), ICMPv6EchoRequest(data=bytes(size - 48)))
        wire.put(*fragment6(echo, 1280))
        (reply,) = wire.taken()
        assert reply[IPv6].plen == size - 40


def test_a_datagram_without_a_checksum() -> None:
    """RFC 8200 §8.1: MUST be discarded over IPv6."""
    wire = Wire()
    inbox = Inbox()
    wire.host.udp_bind("", 53, inbox)
    assert wire.answers(six(UDP(sport=9, dport=53, chksum=0), Raw(b"x"))) == []
    assert inbox.got == []
    wire.put(six(UDP(sport=9, dport=53), Raw(b"x")))
    assert len(inbox.got) == 1


def test_the_first_fragment_has_the_ports() -> None:
    """RFC 8200 §4.5, RFC 7112 §5: else it is discarded, and a parameter problem code 3 says so."""
    wire = Wire()
    tcp = bytes(TCP(sport=1, dport=80, flags="S"))
    told = wire.answers(six(IPv6ExtHdrFragment(m=1, id=1, nh=6), Raw(tcp[:8])))
    assert [(e[ICMPv6ParamProblem].code, e[ICMPv6ParamProblem].ptr) for e in told] == [(3, 0)]
    options = IPv6ExtHdrFragment(m=1, id=2, nh=60) / Raw(bytes((6, 1)) + bytes(6))
    told = wire.answers(six(options))
    assert [e[ICMPv6ParamProblem].code for e in told] == [3]


# ---------------------------------------------------------------------- RFC 4861, routers


def broken(packet: Packet) -> Packet:
    packet[1].cksum = 0x1234
    return packet


@pytest.mark.parametrize(
    "packet",
    [
        ra(prefix(), src="2001:db8::9"),
        ra(prefix(), hlim=254),
        ra(prefix(), code=1),
        broken(ra(prefix())),
        IPv6(src=ROUTER, dst=ALL_NODES, hlim=255, nh=58) / Raw(bytes((134, 0, 0, 0, 0, 0, 0, 0))),
        ra(prefix(), ICMPv6NDOptUnknown(type=200, len=0, data=b"")),
    ],
)
def test_advertisements_that_are_none(packet: Packet) -> None:
    """RFC 4861 §6.1.2: MUST silently discard what fails any of its conditions."""
    wire = Wire("10.0.0.1/24", autonomous=True)
    wire.put(packet, dst=ALL_NODES_MAC)
    wire.run(3.0)
    machine = advertising(wire)
    assert (machine.routers, machine.prefixes) == ({}, {})
    assert icmp(wire, ICMPv6ParamProblem) == []


def test_unknown_options_are_ignored() -> None:
    """RFC 4861 §4.6: options that are not recognized MUST be ignored, the rest processed."""
    wire = Wire("10.0.0.1/24", autonomous=True)
    wire.put(ra(ICMPv6NDOptUnknown(type=200, len=1, data=b"123456"), prefix()), dst=ALL_NODES_MAC)
    wire.run(3.0)
    assert autoconfigured(wire)


def test_what_a_host_never_sends_or_hears() -> None:
    """RFC 4861 §6.2.2, §8.2: no router's advertisements, no redirects; §6.1.1: RS are dropped."""
    wire = routed()
    wire.put(IPv6(src=PEER, dst="ff02::2", hlim=255) / ICMPv6ND_RS(), dst="33:33:00:00:00:02")
    mine = autoconfigured(wire)
    wire.know_peer()
    # Somebody takes us for a router: what is not for us goes nowhere (RFC 8200 §2, host).
    wire.put(six(UDP(), dst=AWAY))
    wire.run(20.0)
    sent = wire.taken()
    assert not [p for p in sent if p.haslayer(ICMPv6ND_RA) or p.haslayer(ICMPv6ND_Redirect)]
    assert not [p for p in sent if p.haslayer(UDP)]
    # §7.2.4: and the router flag of our advertisements is nought.
    question = IPv6(src=PEER, dst=mine, hlim=255) / ICMPv6ND_NS(tgt=mine)
    wire.put(question / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC))
    (told,) = icmp(wire, ICMPv6ND_NA)
    assert (told[ICMPv6ND_NA].R, told[ICMPv6ND_NA].S, told[IPv6].hlim) == (0, 1, 255)


def test_what_an_advertisement_leaves_open_stays() -> None:
    """RFC 4861 §6.3.4: nought is "unspecified"; what is left out MUST NOT undo what was told."""
    wire = routed(ICMPv6NDOptMTU(mtu=1400), ICMPv6NDOptRDNSS(dns=["2001:db8::53"], lifetime=600))
    wire.put(ra(chlim=33, reachabletime=20_000, retranstimer=500), dst=ALL_NODES_MAC)
    link, machine = wire.host.links[0], advertising(wire)
    for source in (ROUTER, OTHER_ROUTER):
        wire.put(ra(chlim=0, src=source), dst=ALL_NODES_MAC)
        assert machine.hop_limit == 33
        assert (link.nd.base_reachable, link.nd.retransmit) == (20.0, 0.5)
        assert link.mtu6 == 1400
        assert len(machine.prefixes) == 1
        assert wire.host.network.resolvers() == ["2001:db8::53"]
    assert autoconfigured(wire)


@pytest.mark.parametrize("mtu", [0, 1279, 1501, 9000, 0xFFFF_FFFF])
def test_mtus_that_no_link_has(mtu: int) -> None:
    """RFC 4861 §6.3.4: below the least or above the link's own: MUST be ignored."""
    wire = routed(ICMPv6NDOptMTU(mtu=mtu))
    assert wire.host.links[0].mtu6 == 1500


def test_a_router_is_one_with_or_without_its_address() -> None:
    """RFC 4861 §6.3.4: IsRouter MUST be set whether or not the option is there."""
    wire = routed()
    link = wire.host.links[0]
    link.nd.heard(from_text(OTHER_ROUTER), b"\2\0\0\0\0\x08", wire.now, create=True)
    entry = link.nd.lookup(from_text(OTHER_ROUTER), wire.now)
    assert not entry.router
    wire.put(ra(src=OTHER_ROUTER), dst=ALL_NODES_MAC)
    assert entry.router


def na(target: str, mac: str = ROUTER_MAC, dst: str = ALL_NODES, **flags: int) -> Packet:
    flags = {"R": 0, "S": 0, "O": 1, **flags}
    packet = IPv6(src=target, dst=dst, hlim=255) / ICMPv6ND_NA(tgt=target, **flags)
    return packet / ICMPv6NDOptDstLLAddr(lladdr=mac)


def test_a_router_that_becomes_a_host() -> None:
    """RFC 4861 §7.2.5: from TRUE to FALSE MUST remove it from the default router list."""
    wire = routed()
    network = wire.host.network
    assert network.way(from_text(AWAY)) is not None
    wire.put(na(ROUTER), dst=ALL_NODES_MAC)
    assert advertising(wire).routers == {}
    assert network.way(from_text(AWAY)) is None
    # It advertises itself once more, and is a router again.
    wire.put(ra(ICMPv6NDOptSrcLLAddr(lladdr=ROUTER_MAC)), dst=ALL_NODES_MAC)
    assert network.way(from_text(AWAY)) is not None


def test_when_routers_are_asked_for() -> None:
    """RFC 4861 §6.3.7: MUST desist at an advertisement with a lifetime, and no other.

    RFC 7559 §2.1: else it goes on without end; and when the last router has gone it begins anew.
    """
    wire = Wire("10.0.0.1/24", autonomous=True)
    wire.put(ra(routerlifetime=0), dst=ALL_NODES_MAC)
    wire.run(60.0)
    assert len(icmp(wire, ICMPv6ND_RS)) >= 3
    wire.put(ra(ICMPv6NDOptSrcLLAddr(lladdr=ROUTER_MAC)), dst=ALL_NODES_MAC)
    wire.run(300.0)
    assert icmp(wire, ICMPv6ND_RS) == []
    wire.put(ra(routerlifetime=0), dst=ALL_NODES_MAC)
    wire.run(10.0)
    asked = icmp(wire, ICMPv6ND_RS)
    assert len(asked) >= 2
    # §6.1.1, §4.1: from an address of ours, to all routers, with a hop limit of 255.
    assert {(p[IPv6].dst, p[IPv6].hlim) for p in asked} == {("ff02::2", 255)}
    assert all(p[IPv6].src.startswith("fe80::") and p[ICMPv6NDOptSrcLLAddr] for p in asked)


def test_another_router_takes_over() -> None:
    """RFC 4861 §6.3.6, §7.3.3: one that does not answer is passed over for one that may."""
    wire = routed()
    second = ra(ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC), src=OTHER_ROUTER)
    wire.put(second, dst=ALL_NODES_MAC)
    inbox = Inbox()
    socket = wire.host.udp_bind("", 53, inbox)
    hops = set()
    for _ in range(12):
        socket.send(b"x", (AWAY, 9))
        hops |= {p.dst for p in wire.taken() if p.haslayer(UDP)}
        wire.run(1.0)
    assert hops == {ROUTER_MAC, PEER_MAC}
    way = wire.host.network.way(from_text(AWAY))
    assert way is not None
    assert to_text(way[1].address) == OTHER_ROUTER


# ---------------------------------------------------------------------- RFC 4861, neighbours


@pytest.mark.parametrize(
    "packet",
    [
        IPv6(src=PEER, dst=OURS, hlim=254) / ICMPv6ND_NS(tgt=OURS),
        IPv6(src=PEER, dst=OURS, hlim=255) / ICMPv6ND_NS(tgt=OURS, code=1),
        broken(IPv6(src=PEER, dst=OURS, hlim=255) / ICMPv6ND_NS(tgt=OURS)),
        IPv6(src=PEER, dst=OURS, hlim=255) / ICMPv6ND_NS(tgt=ALL_NODES),
        IPv6(src="::", dst=OURS, hlim=255) / ICMPv6ND_NS(tgt=OURS),
        IPv6(src=PEER, dst=OURS, hlim=255) / ICMPv6ND_NS(tgt="2001:db8::99"),
        IPv6(src=PEER, dst=OURS, hlim=255, nh=58) / Raw(bytes((135, 0, 0, 0)) + bytes(12)),
    ],
)
def test_solicitations_that_are_not_answered(packet: Packet) -> None:
    """RFC 4861 §7.1.1, §7.2.3: MUST silently discard; another's target is none of ours."""
    wire = Wire()
    assert wire.answers(packet) == []


@pytest.mark.parametrize(
    "packet",
    [
        IPv6(src=ROUTER, dst=ALL_NODES, hlim=254) / ICMPv6ND_NA(tgt=ROUTER, R=0, S=0, O=1),
        IPv6(src=ROUTER, dst=ALL_NODES, hlim=255) / ICMPv6ND_NA(tgt=ROUTER, R=0, S=1, O=1),
        IPv6(src=ROUTER, dst=ALL_NODES, hlim=255) / ICMPv6ND_NA(tgt=ROUTER, R=0, code=1),
        IPv6(src=ROUTER, dst=ALL_NODES, hlim=255) / ICMPv6ND_NA(tgt=ALL_NODES, R=0),
        broken(IPv6(src=ROUTER, dst=ALL_NODES, hlim=255) / ICMPv6ND_NA(tgt=ROUTER, R=0)),
    ],
)
def test_advertisements_that_teach_nothing(packet: Packet) -> None:
    """RFC 4861 §7.1.2: MUST silently discard; a router stays one, at the MAC that it had."""
    wire = routed()
    before = wire.host.links[0].nd.lookup(from_text(ROUTER), wire.now)
    known = before.mac or before.last_mac
    wire.put(packet / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC), dst=ALL_NODES_MAC)
    assert (before.mac or before.last_mac) == known
    assert len(advertising(wire).routers) == 1


def test_spoofed_advertisements() -> None:
    """RFC 4861 §7.2.5: without override a known MAC stays, and the doubt makes the entry STALE.

    Unasked for and unknown: nothing is made. About our own address: counted, not believed.
    """
    wire = routed()
    link = wire.host.links[0]
    wire.put(na(ROUTER, R=1, S=1, dst=autoconfigured(wire)))
    entry = link.nd.lookup(from_text(ROUTER), wire.now)
    assert entry.state == REACHABLE
    wire.put(na(ROUTER, PEER_MAC, R=1, O=0), dst=ALL_NODES_MAC)
    assert (entry.state, entry.last_mac.hex(":")) == (STALE, ROUTER_MAC)
    size = len(link.nd)
    for number in range(1000):
        wire.put(na(f"2001:db8:5::{number:x}", PEER_MAC), dst=ALL_NODES_MAC)
    assert len(link.nd) == size
    mine = autoconfigured(wire)
    claim = na(mine, PEER_MAC)
    claim[IPv6].src = PEER
    wire.put(claim, dst=ALL_NODES_MAC)
    assert advertising(wire).duplicates == 1
    assert autoconfigured(wire) == mine


def test_nobody_answers_for_a_neighbour() -> None:
    """RFC 4861 §7.2.2: who waited hears that it is unreachable, after MAX_MULTICAST_SOLICIT."""
    wire = Wire()
    inbox = Inbox()
    socket = wire.host.udp_bind("", 53, inbox)
    socket.send(b"x", ("2001:db8::77", 9))
    wire.run(1.5)
    asked = icmp(wire, ICMPv6ND_NS)
    # One question a RetransTimer, each to the solicited-node group, from the address of the packet.
    assert len(asked) == 2
    group = to_text(ipv6.solicited_node(from_text("2001:db8::77")))
    assert {(p[IPv6].src, p[IPv6].dst, p[IPv6].hlim) for p in asked} == {(OURS, group, 255)}
    wire.run(3.0)
    assert [type(error) for error in inbox.errors] == [OSError]
    assert icmp(wire, UDP) == []


def test_the_last_packets_wait() -> None:
    """RFC 4861 §7.2.2: MUST keep at least one packet for a neighbour, the newest ones."""
    wire = Wire()
    socket = wire.host.udp_bind("", 53, Inbox())
    for number in range(60):
        socket.send(bytes((number,)), (PEER, 9))
    wire.run(0.1)
    wire.taken()
    answer = IPv6(src=PEER, dst=OURS, hlim=255) / ICMPv6ND_NA(tgt=PEER, S=1, O=1)
    wire.put(answer / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC))
    waited = [bytes(p[UDP].payload)[0] for p in wire.taken() if p.haslayer(UDP)]
    assert waited == list(range(60 - len(waited), 60))
    assert len(waited) > 1


@pytest.mark.parametrize("size", [0, 8, 56])
def test_discovery_in_fragments(size: int) -> None:
    """RFC 6980 §5: MUST be ignored, in pieces, behind options, and as an atomic fragment."""
    wire = Wire("10.0.0.1/24", autonomous=True)
    told = ra(ICMPv6NDOptSrcLLAddr(lladdr=ROUTER_MAC), prefix())
    octets = bytes(told)[40:]
    nh = 58
    if size == 8:
        octets, nh = bytes((58, 0, 1, 4, 0, 0, 0, 0)) + octets, 60
    if size:
        pieces = [octets[:24], octets[24:]]
    else:
        pieces = [octets]
    for index, piece in enumerate(pieces):
        header = IPv6ExtHdrFragment(id=3, nh=nh, offset=index * 3, m=int(index + 1 < len(pieces)))
        wire.put(IPv6(src=ROUTER, dst=ALL_NODES, hlim=255) / header / Raw(piece), dst=ALL_NODES_MAC)
    assert advertising(wire).routers == {}
    assert wire.counter("nd_ignored") == 1
    wire.put(told, dst=ALL_NODES_MAC)
    assert len(advertising(wire).routers) == 1


# ---------------------------------------------------------------------- RFC 4861 §8


def redirect(
    target: str = OTHER_ROUTER,
    dst: str = AWAY,
    *,
    src: str = ROUTER,
    hlim: int = 255,
    code: int = 0,
) -> Packet:
    packet = IPv6(src=src, dst=OURS, hlim=hlim)
    return packet / ICMPv6ND_Redirect(tgt=target, dst=dst, code=code)


@pytest.mark.parametrize(
    "options",
    [
        {"src": OTHER_ROUTER},
        {"src": "2001:db8::9"},
        {"hlim": 254},
        {"code": 1},
        {"dst": "ff02::7"},
        {"target": "2001:db8::9"},
    ],
)
def test_redirects_that_are_none(options: dict[str, Any]) -> None:
    """RFC 4861 §8.1: MUST silently discard; above all what is not from the current first hop."""
    wire = routed()
    packet = redirect(**options)
    packet[IPv6].dst = autoconfigured(wire)
    wire.put(packet)
    way = wire.host.network.way(from_text(AWAY))
    assert way is not None
    assert to_text(way[1].address) == ROUTER
    assert advertising(wire).redirects == {}


@pytest.mark.parametrize("target", [OTHER_ROUTER, AWAY])
def test_redirects(target: str) -> None:
    """RFC 4861 §8.3: the better hop is used, and is a router; or the destination is near."""
    wire = routed()
    packet = redirect(target) / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC)
    packet[IPv6].dst = autoconfigured(wire)
    wire.put(packet)
    way = wire.host.network.way(from_text(AWAY))
    assert way is not None
    assert to_text(way[1].address) == target
    assert way[1].router is (target == OTHER_ROUTER)
    # Other destinations go where they went.
    elsewhere = wire.host.network.way(from_text("2001:db8:78::1"))
    assert elsewhere is not None
    assert to_text(elsewhere[1].address) == ROUTER


# ---------------------------------------------------------------------- RFC 4862


def test_the_groups_come_before_the_question() -> None:
    """RFC 4862 §5.4.2: MUST join all-nodes and the solicited-node group before it asks."""
    wire = Wire("10.0.0.1/24", autonomous=False)
    wire.host.add_address(f"{OURS}/64")
    wire.run(0.0)
    groups = wire.host.links[0].groups
    assert ipv6.ALL_NODES in groups
    assert ipv6.solicited_node(from_text(OURS)) in groups
    wire.run(3.0)
    asked = [p for p in icmp(wire, ICMPv6ND_NS) if p[ICMPv6ND_NS].tgt == OURS]
    # §5.4.2: from "::", to the group, without our MAC.
    assert [(p[IPv6].src, p.haslayer(ICMPv6NDOptSrcLLAddr)) for p in asked] == [("::", 0)]


def test_a_tentative_address_does_not_answer_who_has_one() -> None:
    """RFC 4862 §5.4.3: a solicitation from a unicast address MUST be silently ignored."""
    wire = Wire("10.0.0.1/24", autonomous=False)
    wire.host.add_address(f"{OURS}/64")
    wire.run(0.0)
    wire.taken()
    group = to_text(ipv6.solicited_node(from_text(OURS)))
    question = IPv6(src=PEER, dst=group, hlim=255) / ICMPv6ND_NS(tgt=OURS)
    wire.put(question / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC), dst="33:33:ff:00:00:01")
    assert icmp(wire, ICMPv6ND_NA) == []
    wire.run(3.0)
    assert from_text(OURS) in wire.host.addresses.local  # nor is it a duplicate
    # From "::" it is somebody who wants the same address: a duplicate (§5.4.3).
    other = Wire("10.0.0.1/24", autonomous=False)
    told: list[tuple[str, str, bool]] = []
    other.host.network.on_conflict.append(lambda *what: told.append(what))
    other.host.add_address(f"{OURS}/64")
    other.run(0.0)
    rival = IPv6(src="::", dst=group, hlim=255) / ICMPv6ND_NS(tgt=OURS)
    other.put(rival, dst="33:33:ff:00:00:01")
    other.run(3.0)
    assert from_text(OURS) not in other.host.addresses.local
    assert told == [(OURS, "", False)]  # §5.4.5: the operator hears of it


def test_deprecated_and_invalid() -> None:
    """RFC 4862 §5.5.4: a deprecated address still takes packets; an invalid one MUST NOT."""
    wire = routed()
    mine = autoconfigured(wire)
    near = "2001:db8:5::77"

    def answered() -> int:
        link = wire.host.links[0]
        link.nd.heard(from_text(near), b"\2\0\0\0\0\2", wire.now, create=True)
        return len(icmp_answers(wire, IPv6(src=near, dst=mine) / ICMPv6EchoRequest()))

    wire.run(1810.0)
    assert wire.host.addresses.local[from_text(mine)].deprecated
    assert answered() == 1
    wire.run(1800.0)
    assert answered() == 0
    assert wire.host.network.source_for(from_text("2001:db8:5::77")) != from_text(mine)


@pytest.mark.parametrize(
    "option",
    [
        prefix(A=0),
        prefix("fe80::"),
        prefix(preferredlifetime=7200),
        prefix(validlifetime=0, preferredlifetime=0),
        ICMPv6NDOptPrefixInfo(prefix="2001:db8:5::", prefixlen=48),
        ICMPv6NDOptPrefixInfo(prefix="2001:db8:5::", prefixlen=80),
        ICMPv6NDOptPrefixInfo(prefix="2001:db8:5::", prefixlen=192),
    ],
)
def test_prefixes_without_an_address(option: Packet) -> None:
    """RFC 4862 §5.5.3 (a) to (d): MUST be ignored, silently."""
    wire = Wire("10.0.0.1/24", autonomous=True)
    wire.put(ra(option), dst=ALL_NODES_MAC)
    wire.run(3.0)
    assert [own for own in wire.host.addresses.local.values() if own.origin == "slaac"] == []
    assert max((bits for _, bits in advertising(wire).prefixes), default=0) <= 80


def test_a_flood_of_advertisements() -> None:
    """RFC 6104 §2, RFC 8504 §5.4: thousands of routers and prefixes fill tables of a fixed size.

    And the address and the router that were there first go on.
    """
    wire = routed()
    mine, machine = autoconfigured(wire), advertising(wire)
    rng = random.Random(5)
    for _ in range(1500):
        words = rng.getrandbits(48)
        told = ra(
            ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC),
            prefix(to_text(b"\x20\x01" + words.to_bytes(6) + bytes(8))),
            ICMPv6NDOptRDNSS(dns=[to_text(b"\xfd" + rng.randbytes(15))], lifetime=3600),
            src=to_text(b"\xfe\x80" + bytes(6) + rng.randbytes(8)),
        )
        wire.put(told, dst=ALL_NODES_MAC)
    wire.run(5.0)
    assert len(machine.routers) <= MAX_ROUTERS
    assert len(machine.prefixes) <= MAX_PREFIXES
    assert len(machine.addresses) <= MAX_ADDRESSES
    assert len(machine.servers) <= MAX_SERVERS
    assert len(wire.host.links[0].groups.groups()) <= MAX_ADDRESSES + 1
    assert autoconfigured(wire) == mine
    way = wire.host.network.way(from_text(AWAY))
    assert way is not None
    assert to_text(way[1].address) == ROUTER
    wire.host.links[0].nd.heard(from_text(PEER), b"\2\0\0\0\0\2", wire.now, create=True)
    wire.taken()
    assert len(icmp_answers(wire, six(ICMPv6EchoRequest(), dst=mine))) == 1


def icmp_answers(wire: Wire, packet: Packet) -> list[Packet]:
    wire.put(packet)
    return [p for p in wire.taken() if p.haslayer(ICMPv6EchoReply) or p.haslayer(ICMPv6DestUnreach)]


@pytest.mark.parametrize("length", [0, 8, 65_535])
def test_jumbograms_are_not_spoken(length: int) -> None:
    """RFC 2675 §3: a length of nought, or one that is too small, and the option; §5: for no host.

    What can be read is told of (RFC 8200 §4.2, action bits 11), what cannot is dropped and counted.
    """
    packet = six(IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70_000)]), UDP(dport=53), plen=length)
    wire = Wire()
    inbox = Inbox()
    wire.host.udp_bind("", 53, inbox)
    told = wire.answers(packet)
    assert [(e[ICMPv6ParamProblem].code, e[ICMPv6ParamProblem].ptr) for e in told] == (
        [(2, 42)] if length == 8 else []
    )
    assert inbox.got == []


def test_groups_are_reported_anew_from_an_address() -> None:
    """RFC 3590 §4: routers discard what came from "::", before there was an address."""
    near, far = pair()
    host = Host(near, random=random.Random(1))
    host.use_ipv6(Ipv6Settings(b"s" * 16))
    host.add_address(f"{OURS}/64")
    now = 100.0
    host.flush(now)
    told: dict[str, set[str]] = {}
    while (due := host.deadline()) < 110.0:
        now = max(now, due)
        host.run_timers(now)
        for frame in far.receive(64):
            packet = Ether(frame[10:])
            if ICMPv6MLReport2 in packet:
                groups = told.setdefault(packet[IPv6].src, set())
                records = bytes(packet[ICMPv6MLReport2])[8:]  # of 20 octets, without sources
                groups |= {to_text(records[at + 4 : at + 20]) for at in range(0, len(records), 20)}
    ours = [own.address for own in host.addresses.of(host.links[0])]
    (link_local,) = (to_text(address) for address in ours if address[0] == 0xFE)
    assert told == dict.fromkeys(("::", link_local), told["::"])
    assert told["::"] == {to_text(ipv6.solicited_node(address)) for address in ours}


def test_who_has_every_address_is_not_asked_for_ever() -> None:
    """RFC 7217 §6, RFC 4862 §5.4.5: four identifiers, then silence for a minute; then anew."""
    near, far = pair()
    host = Host(near, random=random.Random(1))
    host.use_ipv6(Ipv6Settings(b"s" * 16))
    now = 100.0
    host.flush(now)
    asked: list[float] = []

    def run(until: float, taken: bool) -> None:
        nonlocal now
        while (due := host.deadline()) < until:
            now = max(now, due)
            host.run_timers(now)
            for frame in far.receive(64):
                packet = Ether(frame[10:])
                if ICMPv6ND_NS in packet and packet[IPv6].src == "::":
                    asked.append(now)
                    if taken:
                        theirs = na(packet[ICMPv6ND_NS].tgt)
                        host.receive(
                            [PLAIN + bytes(Ether(src=ROUTER_MAC, dst=ALL_NODES_MAC) / theirs)], now
                        )

    run(600.0, taken=True)
    assert 20 < len(asked) < 40
    assert not host.addresses.local
    assert host.links[0].groups.groups() == [ipv6.ALL_NODES]
    run(700.0, taken=False)
    assert len(host.addresses.local) == 1


def test_a_prefix_whose_addresses_are_all_taken_is_left_alone() -> None:
    """RFC 7217 §6: whatever routers go on to say of it."""
    wire = Wire("10.0.0.1/24", autonomous=True)
    asked = 0
    for _ in range(30):
        wire.put(ra(prefix()), dst=ALL_NODES_MAC)
        for _ in range(10):
            wire.run(0.5)
            for frame in wire.taken():
                if ICMPv6ND_NS in frame and frame[IPv6].src == "::":
                    asked += 1
                    wire.put(na(frame[ICMPv6ND_NS].tgt), dst=ALL_NODES_MAC)
    assert 4 <= asked <= 16
