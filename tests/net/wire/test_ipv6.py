"""IPv6, ICMPv6, discovery, MLD and DHCP on the wire: against the RFCs and against scapy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6EchoRequest,
    ICMPv6MLDMultAddrRec,
    ICMPv6MLQuery2,
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
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    PadN,
    RouterAlert,
)
from scapy.packet import Packet, Raw

from appliance.net.errors import WireError
from appliance.net.wire import COUNTERS, address, dhcp, icmpv6, ipv6, mld, ndp

A, B = address.from_text("2001:db8::1"), address.from_text("2001:db8::2")
LL = address.from_text("fe80::1")
MAC = b"\2\0\0\0\0\7"
MAC_TEXT = "02:00:00:00:00:07"
u8 = st.integers(0, 255)
v6 = st.binary(min_size=16, max_size=16)


def six(*layers: Packet, src: str = "2001:db8::1", dst: str = "2001:db8::2") -> bytes:
    packet: Packet = IPv6(src=src, dst=dst)
    for layer in layers:
        packet = packet / layer
    return bytes(packet)


def parsed(data: bytes, at: int = 0) -> ipv6.Ipv6Packet:
    return ipv6.parse(b"\0" * at + data, at, at + len(data))


# ---------------------------------------------------------------------- the header, RFC 8200 §3


@given(v6, v6, u8.filter(lambda n: n not in (0, 43, 44, 60)), u8, u8, st.integers(0, 0xFFFFF))
def test_header_both_ways(src: bytes, dst: bytes, nh: int, hops: int, tc: int, fl: int) -> None:
    theirs = bytes(
        IPv6(src=address.to_text(src), dst=address.to_text(dst), nh=nh, hlim=hops, tc=tc, fl=fl)
        / Raw(b"payload")
    )
    ours = ipv6.header(src, dst, nh, 7, hop_limit=hops, traffic_class=tc, flow_label=fl)
    assert ours + b"payload" == theirs
    got = parsed(theirs + b"padding", 3)
    assert (got.src, got.dst, got.protocol, got.hop_limit) == (src, dst, nh, hops)
    assert (got.traffic_class, got.flow_label, got.fragment_at) == (tc, fl, -1)
    assert (got.header_at, got.payload_at, got.payload_end) == (3, 43, 50)


def test_every_extension_header_in_a_row() -> None:
    """RFC 8200 §4.1: hop-by-hop, destination options, routing (done with), destination options."""
    packet = six(
        IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN(optdata=b"")]),
        IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1E, optdata=b"xy")]),
        IPv6ExtHdrRouting(type=0, segleft=0, addresses=["2001:db8::9"]),
        IPv6ExtHdrFragment(id=7),
        IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0\0\0\0")]),
        UDP(dport=53),
    )
    got = parsed(packet)
    assert got.protocol == 17
    assert packet[got.payload_at + 2 : got.payload_at + 4] == b"\0\x35"
    assert got.fragment_at == -1  # RFC 6946: an atomic fragment is a whole packet
    assert packet[got.named_at] == 17


@pytest.mark.parametrize(
    ("layers", "code", "pointer", "always"),
    [
        # RFC 8200 §4.1: hop-by-hop anywhere but first is an unknown next header.
        ((IPv6ExtHdrDestOpt(), IPv6ExtHdrHopByHop(), UDP()), 1, 40, False),
        # RFC 5095 §3: routing type 0 with segments left; RFC 8200 §4.4: and any unknown type.
        ((IPv6ExtHdrRouting(type=0, addresses=["2001:db8::9"]), UDP()), 0, 42, False),
        ((IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(type=77, segleft=1), UDP()), 0, 50, False),
        # RFC 8200 §4.2: action bits 10 and 11; a jumbo option (RFC 2675) is one of the unknown.
        ((IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x9E)]), UDP()), 2, 42, True),
        ((IPv6ExtHdrHopByHop(options=[HBHOptUnknown(otype=0xDE)]), UDP()), 2, 42, False),
        ((IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70000)]), UDP()), 2, 42, False),
    ],
)
def test_what_must_be_answered(
    layers: tuple[Packet, ...], code: int, pointer: int, always: bool
) -> None:
    """RFC 8200 §4.1, §4.2, §4.4: code and pointer, and whether also to a group."""
    with pytest.raises(ipv6.HeaderError) as caught:
        parsed(six(*layers), 10)
    assert (caught.value.code, caught.value.pointer, caught.value.always) == (
        code, pointer, always,
    )  # fmt: skip


def test_option_that_wants_silence() -> None:
    """RFC 8200 §4.2: action bits 01 discard the packet, and nothing is sent."""
    with pytest.raises(WireError) as caught:
        parsed(six(IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x5E)]), UDP()))
    assert caught.type is WireError


def test_limits_of_chains() -> None:
    """RFC 8504 §5.3: many headers, many options, much padding are dropped."""
    deep = [IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0\0\0\0")])] * 9
    many = IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1E, optdata=b"")] * 11)
    padded = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))])
    assert parsed(six(*deep[:8], UDP())).protocol == 17
    for layers in (deep, [many], [padded]):
        with pytest.raises(WireError, match="ip6_extension_limit"):
            parsed(six(*layers, UDP()))


def test_option_whose_length_lies() -> None:
    packet = bytearray(six(IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1E)]), UDP()))
    packet[43] = 200
    with pytest.raises(ipv6.HeaderError) as caught:
        parsed(bytes(packet))
    assert (caught.value.code, caught.value.pointer) == (0, 43)


def test_fragment_stops_the_walk() -> None:
    """RFC 8200 §4.5: what is behind a fragment header is not looked at before it is whole."""
    packet = six(IPv6ExtHdrFragment(offset=3, m=1, id=0xABCDEF01, nh=60), Raw(bytes(16)))
    got = parsed(packet)
    assert (got.protocol, got.fragment_at, got.payload_at) == (60, 40, 48)
    assert ipv6.parse_fragment(packet, 40) == (60, 24, True, 0xABCDEF01)
    assert ipv6.fragment_header(60, 24, True, 0xABCDEF01) == packet[40:48]


@pytest.mark.parametrize(
    ("protocol", "body", "whole"),
    [
        (17, bytes(8), True),
        (17, bytes(7), False),
        (6, bytes(16), False),
        (60, b"\x11\0" + bytes(6) + bytes(8), True),
        (60, b"\x11\0" + bytes(6) + bytes(4), False),
        (60, b"\x11\1" + bytes(6), False),
        (59, b"", True),
        (200, b"", True),
    ],
)
def test_first_fragment_has_the_whole_chain(protocol: int, body: bytes, whole: bool) -> None:
    """RFC 7112 §5."""
    assert ipv6.chain_is_whole(body, protocol, 0, len(body)) is whole


def test_quoted() -> None:
    """RFC 4443 §3: an error quotes what fits; the ports are found behind extension headers."""
    packet = six(IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(m=1, id=1), TCP(sport=7, dport=9))
    got = ipv6.parse_quoted(packet, 0, len(packet) - 8)
    assert (got.protocol, got.payload_at) == (6, 56)
    assert packet[got.payload_at : got.payload_at + 4] == b"\0\7\0\x09"
    later = six(IPv6ExtHdrFragment(offset=9, id=1, nh=6), Raw(bytes(20)))
    assert ipv6.parse_quoted(later, 0, len(later)).fragment_at == 40


def test_addresses() -> None:
    """RFC 4291 §2.7.1, RFC 2464 §7."""
    unicast = address.from_text("fe80::2aa:ff:fe28:9c5a")
    group = ipv6.solicited_node(unicast)
    assert address.to_text(group) == "ff02::1:ff28:9c5a"
    assert ipv6.multicast_mac(group) == bytes.fromhex("3333ff289c5a")
    assert ipv6.is_multicast(group)
    assert ipv6.is_link_local(unicast)
    assert not ipv6.is_link_local(address.from_text("fec0::1"))


def test_router_alert_is_scapys() -> None:
    theirs = six(IPv6ExtHdrHopByHop(options=[RouterAlert()]), ICMPv6EchoRequest())
    assert theirs[40:48] == ipv6.router_alert(58)


# ---------------------------------------------------------------------- ICMPv6, RFC 4443


@given(st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=50))
def test_echo_both_ways(ident: int, seq: int, body: bytes) -> None:
    theirs = six(ICMPv6EchoRequest(id=ident, seq=seq, data=body))
    ours = icmpv6.build(A, B, icmpv6.ECHO_REQUEST, 0, ident << 16 | seq, body)
    assert theirs[40:] == ours
    got = icmpv6.parse(theirs, 40, len(theirs), A, B)
    assert (got.type, got.rest, theirs[got.body_at : got.body_end]) == (
        128, ident << 16 | seq, body,
    )  # fmt: skip
    with pytest.raises(WireError, match="icmp6_checksum"):
        icmpv6.parse(theirs, 40, len(theirs), A, A)


def test_errors_are_scapys() -> None:
    original = six(UDP(dport=9), Raw(bytes(3000)))
    for theirs, kind, code, rest in (
        (ICMPv6PacketTooBig(mtu=1400), icmpv6.PACKET_TOO_BIG, 0, 1400),
        (ICMPv6ParamProblem(code=1, ptr=40), icmpv6.PARAMETER_PROBLEM, 1, 40),
    ):
        ours = icmpv6.error(A, B, kind, code, rest, original)
        assert len(ours) == 1240  # RFC 4443 §2.4 (c): the error is no longer than the least MTU
        assert ours == six(theirs, Raw(original[: icmpv6.QUOTE_MAX]))[40:]


# ---------------------------------------------------------------------- Neighbour Discovery


def body_of(*layers: Packet, src: str = "fe80::1", dst: str = "2001:db8::2") -> tuple[bytes, int]:
    """The body behind the 32 bits, and those."""
    data = six(*layers, src=src, dst=dst)
    message = icmpv6.parse(data, 40, len(data), address.from_text(src), address.from_text(dst))
    return data[message.body_at : message.body_end], message.rest


def test_solicitation_both_ways() -> None:
    body, _ = body_of(ICMPv6ND_NS(tgt="2001:db8::2"), ICMPv6NDOptSrcLLAddr(lladdr=MAC_TEXT))
    assert body == ndp.solicitation(B, MAC)
    assert ndp.parse_solicitation(body, 0, len(body), LL, B) == (B, MAC, b"")
    nonced = ndp.solicitation(B, b"", b"nonce!")
    group = ipv6.solicited_node(B)
    assert (
        ndp.parse_solicitation(nonced, 0, len(nonced), ipv6.UNSPECIFIED, group).nonce == b"nonce!"
    )


@pytest.mark.parametrize(
    ("body", "src", "dst"),
    [
        (ndp.solicitation(B, MAC), ipv6.UNSPECIFIED, ipv6.solicited_node(B)),
        (ndp.solicitation(B), ipv6.UNSPECIFIED, B),
        (ndp.solicitation(ipv6.ALL_NODES), LL, B),
        (ndp.solicitation(B)[:15], LL, B),
        (ndp.solicitation(B) + b"\1\0", LL, B),
        (ndp.solicitation(B) + b"\1\2" + MAC, LL, B),
    ],
)
def test_solicitations_to_drop(body: bytes, src: bytes, dst: bytes) -> None:
    """RFC 4861 §7.1.1: each of its conditions; §4.6: no option of length nought."""
    with pytest.raises(WireError):
        ndp.parse_solicitation(body, 0, len(body), src, dst)


@pytest.mark.parametrize("flags", range(8))
def test_advertisement_both_ways(flags: int) -> None:
    r, s, o = flags >> 2 & 1, flags >> 1 & 1, flags & 1
    body, rest = body_of(
        ICMPv6ND_NA(R=r, S=s, O=o, tgt="2001:db8::1"), ICMPv6NDOptDstLLAddr(lladdr=MAC_TEXT)
    )
    assert body == ndp.advertisement(A, MAC)
    assert rest == r * ndp.ROUTER | s * ndp.SOLICITED | o * ndp.OVERRIDE
    got = ndp.parse_advertisement(body, 0, len(body), B, rest)
    assert got == (A, MAC, bool(r), bool(s), bool(o))
    if s:
        # RFC 4861 §7.1.2: solicited, to a group.
        with pytest.raises(WireError):
            ndp.parse_advertisement(body, 0, len(body), ipv6.ALL_NODES, rest)


def test_router_advertisement() -> None:
    """RFC 4861 §4.2, RFC 8106 §5.1: every option that is looked at, as scapy writes it."""
    body, rest = body_of(
        ICMPv6ND_RA(
            chlim=63, M=1, O=1, routerlifetime=1800, reachabletime=15_000, retranstimer=500
        ),
        ICMPv6NDOptSrcLLAddr(lladdr=MAC_TEXT),
        ICMPv6NDOptMTU(mtu=1400),
        ICMPv6NDOptPrefixInfo(
            prefixlen=64, L=1, A=1, validlifetime=7200, preferredlifetime=3600, prefix="2001:db8::"
        ),
        ICMPv6NDOptRDNSS(lifetime=600, dns=["2001:db8::53", "2001:db8::54"]),
    )
    got = ndp.parse_router_advertisement(body, 0, len(body), LL, rest)
    assert got.hop_limit == 63
    assert (got.managed, got.other, got.lifetime) == (True, True, 1800)
    assert (got.reachable, got.retransmit, got.link, got.mtu) == (15.0, 0.5, MAC, 1400)
    network = address.from_text("2001:db8::")
    assert got.prefixes == (ndp.Prefix(64, True, True, 7200, 3600, network),)
    servers = (address.from_text("2001:db8::53"), address.from_text("2001:db8::54"))
    assert got.servers == ((600, servers),)
    with pytest.raises(WireError):  # RFC 4861 §6.1.2: from a link-local address only
        ndp.parse_router_advertisement(body, 0, len(body), A, rest)


def test_router_solicitation() -> None:
    body, _ = body_of(ICMPv6ND_RS(), ICMPv6NDOptSrcLLAddr(lladdr=MAC_TEXT))
    assert body == ndp.router_solicitation(MAC)
    assert ndp.router_solicitation() == b""


def test_redirect() -> None:
    """RFC 4861 §4.5, §8.1."""
    body, _ = body_of(
        ICMPv6ND_Redirect(tgt="fe80::9", dst="2001:db8:9::1"), ICMPv6NDOptDstLLAddr(lladdr=MAC_TEXT)
    )
    target, there = address.from_text("fe80::9"), address.from_text("2001:db8:9::1")
    assert ndp.parse_redirect(body, 0, len(body), LL) == (target, there, MAC)
    for bad, src in (
        (body, A),
        (body[:31], LL),
        (A + body[16:], LL),
        (body[:16] + ipv6.ALL_NODES + body[32:], LL),
    ):
        with pytest.raises(WireError):
            ndp.parse_redirect(bad, 0, len(bad), src)


# ---------------------------------------------------------------------- MLD, RFC 3810


def test_report_is_scapys() -> None:
    groups = [address.from_text("ff02::1:ff00:1"), address.from_text("ff02::fb")]
    rest, body = mld.report([(mld.CHANGE_TO_EXCLUDE, groups[0]), (mld.MODE_IS_EXCLUDE, groups[1])])
    records = [
        ICMPv6MLDMultAddrRec(rtype=4, dst="ff02::1:ff00:1"),
        ICMPv6MLDMultAddrRec(rtype=2, dst="ff02::fb"),
    ]
    theirs = six(ICMPv6MLReport2(records=records))
    assert icmpv6.build(A, B, icmpv6.MLDV2_REPORT, 0, rest, body) == theirs[40:]


@pytest.mark.parametrize(("code", "seconds"), [(1000, 1.0), (0x7FFF, 32.767), (0x8000, 32.768)])
def test_query(code: int, seconds: float) -> None:
    """RFC 3810 §5.1.3: beyond 32767 the response code is a floating-point number."""
    body, rest = body_of(ICMPv6MLQuery2(mladdr="ff02::fb", mrd=code))
    assert mld.parse_query(body, 0, len(body), rest) == (address.from_text("ff02::fb"), seconds, 2)
    assert mld.parse_query(body[:16], 0, 16, rest).version == 1
    with pytest.raises(WireError):
        mld.parse_query(body, 0, 17, rest)


# ---------------------------------------------------------------------- DHCP, RFC 2131


def test_dhcp_both_ways() -> None:
    options = [(dhcp.REQUESTED_ADDRESS, b"\n\0\0\5"), (dhcp.CLIENT_ID, b"\1" + MAC)]
    ours = dhcp.build(dhcp.DISCOVER, 0x01020304, MAC, options, seconds=9, broadcast=True)
    assert len(ours) == 300
    theirs = BOOTP(ours)
    assert (theirs.op, theirs.xid, theirs.secs, int(theirs.flags)) == (1, 0x01020304, 9, 0x8000)
    assert ("message-type", 1) in theirs[DHCP].options
    assert ("requested_addr", "10.0.0.5") in theirs[DHCP].options
    reply = bytes(
        BOOTP(op=2, xid=7, yiaddr="10.0.0.5", chaddr=MAC)
        / DHCP(options=[
            ("message-type", "ack"), ("lease_time", 3600),
            ("router", "10.0.0.1", "10.0.0.2"), "end",
        ])
    )  # fmt: skip
    got = dhcp.parse(reply)
    assert (got.op, got.xid, got.yiaddr, got.chaddr, got.kind) == (2, 7, b"\n\0\0\5", MAC, dhcp.ACK)
    assert got.number(dhcp.LEASE_TIME, 4) == 3600
    assert got.addresses(dhcp.ROUTER) == (b"\n\0\0\1", b"\n\0\0\2")


def test_dhcp_overload_and_long_options() -> None:
    """RFC 2131 §4.1, RFC 3396 §7: options in `file` and `sname`, and in several parts."""
    whole = bytearray(dhcp.build(dhcp.OFFER, 1, MAC, [(dhcp.OVERLOAD, b"\3"), (6, b"\1\2")]))
    whole[108:113] = b"\x06\2\3\4\xff"
    whole[44:49] = b"\x0f\2hi\xff"
    got = dhcp.parse(bytes(whole))
    assert got.options[dhcp.DNS] == b"\1\2\3\4"
    assert got.options[dhcp.DOMAIN_NAME] == b"hi"


def test_classless_routes() -> None:
    """RFC 3442: its own examples; bits beyond the mask are cleared."""
    value = bytes((24, 10, 27, 129, 10, 27, 129, 1, 0, 10, 0, 0, 1, 9, 10, 255, 10, 0, 0, 2))
    assert dhcp.classless_routes(value) == [
        (bytes((10, 27, 129, 0)), 24, bytes((10, 27, 129, 1))),
        (bytes(4), 0, bytes((10, 0, 0, 1))),
        (bytes((10, 128, 0, 0)), 9, bytes((10, 0, 0, 2))),
    ]
    for bad in (b"\x21\0\0\0\0\0", b"\x18\1\2"):
        with pytest.raises(WireError):
            dhcp.classless_routes(bad)


# ---------------------------------------------------------------------- hostile octets

PARSERS: dict[str, Callable[[bytes], object]] = {
    "ipv6": lambda d: ipv6.parse(d, 0, len(d)),
    "ipv6 quoted": lambda d: ipv6.parse_quoted(d, 0, len(d)),
    "chain": lambda d: ipv6.chain_is_whole(d, 60, 0, len(d)),
    "icmpv6": lambda d: icmpv6.parse(d, 0, len(d), A, B, verified=True),
    "solicitation": lambda d: ndp.parse_solicitation(d, 0, len(d), LL, B),
    "advertisement": lambda d: ndp.parse_advertisement(d, 0, len(d), B, 0),
    "router": lambda d: ndp.parse_router_advertisement(d, 0, len(d), LL, 0),
    "redirect": lambda d: ndp.parse_redirect(d, 0, len(d), LL),
    "query": lambda d: mld.parse_query(d, 0, len(d), 0xFFFF0000),
    "dhcp": dhcp.parse,
    "routes": dhcp.classless_routes,
}
SEEDS = {
    "ipv6": six(IPv6ExtHdrHopByHop(options=[RouterAlert()]), IPv6ExtHdrFragment(), UDP()),
    "ipv6 quoted": six(IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(), UDP()),
    "solicitation": ndp.solicitation(B, MAC, b"123456"),
    "advertisement": ndp.advertisement(B, MAC),
    "dhcp": dhcp.build(dhcp.ACK, 1, MAC, [(dhcp.OVERLOAD, b"\3"), (121, b"\0\1\2\3\4")]),
}


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_hostile_octets_raise_only_wire_errors(name: str, data: st.DataObject) -> None:
    octets = bytearray(SEEDS.get(name, b"")) or bytearray(data.draw(st.binary(max_size=120)))
    for _ in range(data.draw(st.integers(0, 4))):
        if octets:
            octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(u8)
    cut = octets[: data.draw(st.integers(0, len(octets)))]
    for variant in (bytes(octets), bytes(cut)):
        assert outcome(name, variant) in {"", *COUNTERS}


def outcome(name: str, data: bytes) -> str:
    """The counter that the parser named, or nothing; anything else it raises fails the test."""
    try:
        PARSERS[name](data)
    except WireError as error:
        return error.counter
    return ""
