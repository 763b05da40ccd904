"""Every wire format against scapy, in both directions, on random headers.

scapy stands for everybody else's reading of the RFCs: what it builds we must read as it meant it,
and what we build it must read as we meant it, checksums included (it recomputes them when the
field is deleted, so equal octets mean equal sums).
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.utils import checksum

from appliance.net.wire import address, arp, ethernet, icmp, ipv4, tcp, udp

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
mac = st.binary(min_size=6, max_size=6)
v4 = st.binary(min_size=4, max_size=4)
v6 = st.binary(min_size=16, max_size=16)
payloads = st.binary(max_size=100)
sack_blocks = st.lists(st.tuples(u32, u32), max_size=4).map(tuple)
stamps = st.none() | st.tuples(u32, u32)


# Ethernet (IEEE 802.3) and ARP (RFC 826)


@given(mac, mac, u16, payloads)
def test_ethernet_both_ways(dst: bytes, src: bytes, kind: int, payload: bytes) -> None:
    theirs = bytes(
        Ether(dst=ethernet.mac_text(dst), src=ethernet.mac_text(src), type=kind) / payload
    )
    assert ethernet.parse(b"??" + theirs, 2) == (dst, src, kind)
    assert ethernet.header(dst, src, kind) + payload == theirs


@given(st.sampled_from((1, 2)), mac, v4, mac, v4, st.binary(max_size=18))
def test_arp_both_ways(
    operation: int, smac: bytes, sender: bytes, tmac: bytes, target: bytes, padding: bytes
) -> None:
    theirs = bytes(
        ARP(
            op=operation,
            hwsrc=ethernet.mac_text(smac),
            psrc=address.to_text(sender),
            hwdst=ethernet.mac_text(tmac),
            pdst=address.to_text(target),
        )
    )
    ours = arp.build(operation, smac, sender, tmac, target)
    assert ours == theirs
    data = b"x" + theirs + padding
    assert arp.parse(data, 1, len(data)) == (operation, smac, sender, tmac, target)


# IPv4 (RFC 791)


@given(
    src=v4,
    dst=v4,
    protocol=u8,
    tos=u8,
    ident=u16,
    flags=st.integers(0, 3),
    fragment=st.integers(0, 0x1FFF),
    ttl=u8,
    options=st.lists(st.binary(max_size=6), max_size=4),
    payload=payloads,
    padding=st.binary(max_size=46),
)
def test_ipv4_both_ways(
    src: bytes,
    dst: bytes,
    protocol: int,
    tos: int,
    ident: int,
    flags: int,
    fragment: int,
    ttl: int,
    options: list[bytes],
    payload: bytes,
    padding: bytes,
) -> None:
    raw_options = b"".join(bytes((0x94, 2 + len(body))) + body for body in options)
    raw_options += bytes(-len(raw_options) % 4)
    packet = IP(
        src=address.to_text(src),
        dst=address.to_text(dst),
        proto=protocol,
        tos=tos,
        id=ident,
        flags=flags,
        frag=fragment,
        ttl=ttl,
        options=IPOption(raw_options) if raw_options else [],
    )
    theirs = bytes(packet)
    theirs = bytes(IP(theirs[:2] + (len(theirs) + len(payload)).to_bytes(2) + theirs[4:]))
    # scapy keeps the checksum it was given: have it compute that of the final header.
    again = IP(theirs)
    del again.chksum
    theirs = bytes(again) + payload
    ours = ipv4.header(
        src,
        dst,
        protocol,
        len(payload),
        ttl=ttl,
        dscp_ecn=tos,
        ident=ident,
        flags=flags,
        fragment_offset=fragment * 8,
        options=raw_options,
    )
    assert ours + payload == theirs
    data = b"head" + theirs + padding
    got = ipv4.parse(data, 4, len(data))
    assert got == (
        len(ours),
        len(theirs),
        tos,
        ident,
        flags,
        fragment * 8,
        ttl,
        protocol,
        src,
        dst,
        raw_options,
        4 + len(ours),
        4 + len(theirs),
    )
    assert data[got.payload_at : got.payload_end] == payload


# ICMP (RFC 792)


@given(u16, u16, payloads)
def test_icmp_echo_both_ways(ident: int, seq: int, body: bytes) -> None:
    theirs = bytes(ICMP(type=8, id=ident, seq=seq) / body)
    assert icmp.echo_request(ident, seq, body) == theirs
    request = icmp.parse(theirs, 0, len(theirs))
    assert (request.echo_id, request.echo_seq) == (ident, seq)
    assert icmp.echo_reply(theirs, request) == bytes(ICMP(type=0, id=ident, seq=seq) / body)


@given(
    st.sampled_from(
        [
            (lambda quote, mtu: icmp.unreachable(4, quote, mtu), 3, 4, "nexthopmtu"),
            (lambda quote, _: icmp.unreachable(3, quote), 3, 3, None),
            (lambda quote, _: icmp.time_exceeded(1, quote), 11, 1, None),
            (lambda quote, ptr: icmp.parameter_problem(ptr & 255, quote), 12, 0, "ptr"),
        ]
    ),
    u16,
    st.binary(min_size=28, max_size=900),
)
def test_icmp_errors_are_read_by_scapy(case: tuple, value: int, quote: bytes) -> None:
    build, kind, code, field = case
    ours = build(quote, value)
    theirs = ICMP(ours)
    assert (theirs.type, theirs.code) == (kind, code)
    if field:
        assert getattr(theirs, field) == (value & 255 if field == "ptr" else value)
    assert ours[8:] == quote[: icmp.QUOTE_MAX]
    assert len(ours) + 20 <= 576
    # Over our octets: scapy takes a quote for a packet, and builds it anew in its own way.
    assert checksum(ours[:2] + bytes(2) + ours[4:]) == int.from_bytes(ours[2:4], "big")
    got = icmp.parse(ours, 0, len(ours))
    assert (got.type, got.code) == (kind, code)
    if field == "nexthopmtu":
        assert got.next_hop_mtu == value
    if field == "ptr":
        assert got.pointer == value & 255


# UDP (RFC 768) and TCP (RFC 9293), over both families


def network(src: bytes, dst: bytes) -> IP | IPv6:
    layer = IP if len(src) == 4 else IPv6
    return layer(src=address.to_text(src), dst=address.to_text(dst))


both_families = st.tuples(v4, v4) | st.tuples(v6, v6)


@given(both_families, u16, u16, payloads)
def test_udp_both_ways(ends: tuple[bytes, bytes], sport: int, dport: int, payload: bytes) -> None:
    src, dst = ends
    ours = udp.build(src, dst, sport, dport, payload)
    packet = network(src, dst) / UDP(sport=sport, dport=dport) / payload
    theirs = bytes(packet)[-len(ours) :]
    assert ours == theirs
    data = b"abc" + theirs + b"padding"
    got = udp.parse(data, 3, len(data))
    assert (got.src_port, got.dst_port, got.length) == (sport, dport, len(ours))
    assert data[got.payload_at : got.payload_end] == payload
    assert udp.verify(data, 3, got, src, dst)


@given(
    ends=both_families,
    ports=st.tuples(u16, u16),
    seq=u32,
    ack=u32,
    flags=u8,
    window=u16,
    mss=st.none() | u16,
    scale=st.none() | st.integers(0, 14),
    permitted=st.booleans(),
    stamp=stamps,
    sack=sack_blocks,
    payload=payloads,
)
def test_tcp_from_scapy(
    ends: tuple[bytes, bytes],
    ports: tuple[int, int],
    seq: int,
    ack: int,
    flags: int,
    window: int,
    mss: int | None,
    scale: int | None,
    permitted: bool,
    stamp: tuple[int, int] | None,
    sack: tuple[tuple[int, int], ...],
    payload: bytes,
) -> None:
    options: list[tuple[object, object]] = []
    if mss is not None:
        options.append(("MSS", mss))
    if scale is not None:
        options.append(("WScale", scale))
    if permitted:
        options.append(("SAckOK", b""))
    if stamp is not None:
        options.append(("Timestamp", stamp))
    room = 40 - sum({"MSS": 4, "WScale": 3, "SAckOK": 2, "Timestamp": 10}[k] for k, _ in options)
    sack = sack[: (room - 2) // 8]
    if sack:
        options.append(("SAck", tuple(number for block in sack for number in block)))
    random.Random(seq).shuffle(options)
    layer = TCP(
        sport=ports[0], dport=ports[1], seq=seq, ack=ack, flags=flags, window=window,
        urgptr=7, options=options,
    )  # fmt: skip
    packet = network(*ends) / layer / payload
    whole = bytes(packet)
    at = 20 if len(ends[0]) == 4 else 40
    got = tcp.parse(whole, at, len(whole))
    assert got[:6] == (*ports, seq, ack, flags, window)
    assert got.urgent == 7
    assert whole[got.payload_at : got.payload_end] == payload
    assert tcp.verify(whole, at, len(whole), *ends)
    assert tcp.parse_options(whole, got.options_at, got.payload_at) == tcp.TcpOptions(
        mss, scale, permitted, sack, stamp, None, False
    )


@given(
    both_families, u16, u16, u32, u32, u8, u16, u16,
    st.none() | st.integers(0, 14), st.booleans(), stamps, payloads,
)  # fmt: skip
def test_tcp_to_scapy(
    ends: tuple[bytes, bytes],
    sport: int,
    dport: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    mss: int,
    scale: int | None,
    permitted: bool,
    stamp: tuple[int, int] | None,
    payload: bytes,
) -> None:
    options = tcp.build_syn_options(mss, scale, permitted, stamp)
    ours = tcp.build(*ends, sport, dport, seq, ack, flags, window, options=options, payload=payload)
    theirs = TCP(ours)
    assert (theirs.sport, theirs.dport, theirs.seq, theirs.ack) == (sport, dport, seq, ack)
    assert (int(theirs.flags), theirs.window, theirs.urgptr) == (flags, window, 0)
    seen = [option for option in theirs.options if option[0] != "NOP"]
    # Linux's order, which middleboxes and scripts know.
    expected: list[tuple[object, object]] = [("MSS", mss)]
    if permitted:
        expected.append(("SAckOK", b""))
    if stamp is not None:
        expected.append(("Timestamp", stamp))
    if scale is not None:
        expected.append(("WScale", scale))
    assert seen == expected
    assert bytes(theirs.payload) == payload
    packet = network(*ends) / theirs
    del packet[TCP].chksum
    assert bytes(packet)[-len(ours) :] == ours


@given(stamps, sack_blocks)
def test_options_of_other_segments(
    stamp: tuple[int, int] | None, sack: tuple[tuple[int, int], ...]
) -> None:
    """RFC 2018 §3: three blocks fit beside timestamps, four without."""
    options = tcp.build_options(stamp, sack)
    assert len(options) % 4 == 0
    assert len(options) <= tcp.MAX_OPTIONS
    kept = sack[: 3 if stamp is not None else 4]
    theirs = TCP(tcp.header(1, 2, 3, 4, tcp.ACK, 5, options=options))
    seen = dict(option for option in theirs.options if option[0] != "NOP")
    assert seen.get("Timestamp") == stamp
    assert seen.get("SAck", ()) == tuple(number for block in kept for number in block)
    assert tcp.parse_options(options, 0, len(options)) == tcp.TcpOptions(sack=kept, timestamp=stamp)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # As read from Linux 6.x SYNs: tcp_options_write() in net/ipv4/tcp_output.c.
        ((1460, 7, True, (1, 2)), "020405b4 0402080a 00000001 00000002 01030307"),
        ((1460, 7, True, None), "020405b4 01010402 01030307"),
        ((1460, None, False, (1, 2)), "020405b4 0101080a 00000001 00000002"),
        ((1460, None, False, None), "020405b4"),
    ],
)
def test_layout_of_syn_options_is_linux(arguments: tuple, expected: str) -> None:
    assert tcp.build_syn_options(*arguments) == bytes.fromhex(expected)
