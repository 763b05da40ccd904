"""Fragments: RFC 815's holes, RFC 5722's overlaps, bounds, timeouts; cutting and joining."""

from __future__ import annotations

import itertools
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.packet import Raw

from appliance.net.errors import WireError
from appliance.net.fragments import (
    MAX_PIECES,
    SOURCE_OCTETS,
    TIMEOUT_V4,
    TIMEOUT_V6,
    TOTAL_OCTETS,
    Identifications,
    Reassembler,
    Whole,
    cut_ipv4,
    cut_ipv6,
)
from appliance.net.wire import ipv4, ipv6

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
A6, B6 = (
    bytes.fromhex("20010db8") + bytes(11) + b"\1",
    bytes.fromhex("20010db8") + bytes(11) + b"\2",
)


def add(
    box: Reassembler, offset: int, more: bool, payload: bytes, *,
    key: object = 1, source: bytes = A, now: float = 0.0,
) -> Whole | None:  # fmt: skip
    return box.add(key, source, offset, more, payload, b"head%d" % offset, b"quote", now)


@given(st.data())
def test_any_order_and_any_repetition(data: st.DataObject) -> None:
    """RFC 791 §3.2, RFC 8200 §4.5: whatever the order, with duplicates, the octets come back."""
    body = data.draw(st.binary(min_size=1, max_size=600))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(len(body) // 8, 1)), max_size=12)))
    bounds = [0, *(8 * c for c in cuts if 8 * c < len(body)), len(body)]
    pieces = [(a, b < len(body), body[a:b]) for a, b in itertools.pairwise(bounds)]
    order = data.draw(st.permutations(pieces))
    box = Reassembler()
    got = None
    for index, piece in enumerate(order):
        assert got is None
        got = add(box, *piece)
        if index + 1 < len(order):
            assert add(box, *piece) is None
    assert got == Whole(b"head0", body, False)
    assert (len(box), box.octets, box._by_source) == (0, 0, {})


@pytest.mark.parametrize(
    "second",
    [(8, True, bytes(16)), (0, True, bytes(16)), (4096, True, bytes(8)), (16, True, b"x" * 16)],
)
def test_overlap_kills_the_datagram(second: tuple[int, bool, bytes]) -> None:
    """RFC 5722 §4: the datagram, and what is still to come of it, MUST be silently discarded."""
    box = Reassembler()
    assert add(box, 16, True, bytes(16)) is None
    assert add(box, 4088, False, bytes(5)) is None
    if second[0] != 0:
        with pytest.raises(WireError, match="ip_fragment_overlap"):
            add(box, *second)
    else:
        assert add(box, *second) is None
        with pytest.raises(WireError, match="ip_fragment_overlap"):
            add(box, 0, True, bytes(8))
    with pytest.raises(WireError, match="ip_fragment_overlap"):
        add(box, 32, True, bytes(8))
    assert box.expire(TIMEOUT_V4) == []  # silently: no ICMP about it either
    assert box.octets == 0


def test_an_end_before_the_end() -> None:
    """RFC 8200 §4.5: a last fragment that contradicts octets already there."""
    box = Reassembler()
    add(box, 800, True, bytes(8))
    with pytest.raises(WireError, match="ip_fragment_overlap"):
        add(box, 80, False, bytes(8))


@pytest.mark.parametrize(
    ("offset", "more", "size"), [(65_528, False, 8), (0, True, 7), (8, True, 0), (65_528, True, 8)]
)
def test_malformed(offset: int, more: bool, size: int) -> None:
    """RFC 8200 §4.5: multiples of eight, and no more than 65,535 octets in all."""
    with pytest.raises(WireError, match="ip_fragment_malformed"):
        add(Reassembler(), offset, more, bytes(size))


def test_the_longest() -> None:
    box = Reassembler()
    size = 8 * 1024
    for at in range(0, 65_535 - size, size):
        assert add(box, at, True, bytes(size)) is None
    whole = add(box, 57_344, False, bytes(8191))
    assert whole is not None
    assert len(whole.payload) == 65_535


def test_timeouts() -> None:
    """RFC 1122 §3.3.2, RFC 8200 §4.5: ICMP only if the first fragment came; each its own time."""
    box = Reassembler()
    add(box, 0, True, bytes(8), key=1, now=1.0)
    add(box, 8, True, bytes(8), key=2, now=2.0)
    box.add(3, A6, 0, True, bytes(8), b"h", b"six", 0.5)
    assert box.deadline() == 1.0 + TIMEOUT_V4
    assert [e.quote for e in box.expire(2.0 + TIMEOUT_V4)] == [b"quote", b""]
    assert box.deadline() == 0.5 + TIMEOUT_V6
    assert [(e.family, e.quote) for e in box.expire(100.0)] == [(16, b"six")]
    assert (len(box), box.octets) == (0, 0)


def test_pieces_of_one_datagram_are_bounded() -> None:
    box = Reassembler()
    for index in range(MAX_PIECES):
        add(box, 16 * index, True, bytes(8))
    with pytest.raises(WireError, match="ip_fragment_limit"):
        add(box, 16 * MAX_PIECES, True, bytes(8))


def test_a_flood_from_one_source_spares_the_others() -> None:
    box = Reassembler()
    add(box, 0, True, bytes(800), key="good", source=B)
    for key in range(5000):
        add(box, 8, True, bytes(1400), key=key)
        assert box._by_source[A] <= SOURCE_OCTETS
    assert box.evicted > 4000
    whole = add(box, 800, False, b"end", key="good", source=B)
    assert whole is not None
    assert len(whole.payload) == 803


def test_total_bound() -> None:
    box = Reassembler()
    for key in range(5000):
        add(box, 8, True, bytes(1400), key=key, source=key.to_bytes(4))
        assert box.octets <= TOTAL_OCTETS
        assert len(box) <= 1024


def test_random_fragments_stay_under_the_cap() -> None:
    """The bound is of memory, not of what we say it is: measured with the allocator's own count."""
    rng = random.Random(5)
    box = Reassembler()
    tracemalloc.start()
    for index in range(20_000):
        key = rng.randrange(3000)
        source = (key % 40).to_bytes(4)
        size = 8 * rng.randrange(1, 185)
        try:
            add(
                box, 8 * rng.randrange(0, 400), rng.random() < 0.9, rng.randbytes(size),
                key=key, source=source, now=index / 1000,
            )  # fmt: skip
        except WireError:
            pass
        if box.deadline() <= index / 1000:
            box.expire(index / 1000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert box.octets <= TOTAL_OCTETS
    assert held < 1.3 * TOTAL_OCTETS


@given(st.integers(68, 2000), st.binary(min_size=1, max_size=5000), st.integers(0, 0xFFFF))
def test_cut_ipv4(mtu: int, body: bytes, ident: int) -> None:
    """RFC 791 §3.2: no piece over the MTU, and scapy puts them together to what was cut."""
    packets = cut_ipv4(A, B, 17, body, mtu, ident)
    assert all(len(packet) <= mtu for packet in packets)
    box = Reassembler()
    got = None
    for packet in packets:
        header = ipv4.parse(packet, 0, len(packet))
        assert header.ident == ident
        more = bool(header.flags & ipv4.FLAG_MF)
        if header.fragment_offset == 0 and not more:
            got = Whole(b"", packet[20:], False)
            break
        got = box.add(ident, A, header.fragment_offset, more, packet[20:], packet[:20], packet, 0)
    assert got is not None
    assert got.payload == body


def test_cut_ipv4_as_scapy_does() -> None:
    packet = IP(src="10.0.0.1", dst="10.0.0.2", id=77, flags=0) / UDP() / Raw(bytes(3000))
    theirs = [bytes(p) for p in fragment(packet, 1480)]
    body = bytes(packet)[20:]
    assert cut_ipv4(A, B, 17, body, 1500, 77) == theirs


def test_cut_ipv6_as_scapy_does() -> None:
    """RFC 8200 §4.5: the same packets, octet by octet."""
    packet = (
        IPv6(src="2001:db8::1", dst="2001:db8::2")
        / IPv6ExtHdrFragment(id=77)
        / UDP()
        / Raw(bytes(4000))
    )
    theirs = [bytes(p) for p in fragment6(packet, 1280)]
    body = bytes(IPv6(bytes(packet))[UDP])
    ours = cut_ipv6(A6, B6, 17, body, 1280, 77, hop_limit=64)
    assert [len(p) for p in ours] == [len(p) for p in theirs]
    assert ours == theirs


@pytest.mark.parametrize(("cut", "more"), [(cut_ipv4, ()), (cut_ipv6, (64,))])
def test_what_cannot_be_cut(cut: object, more: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="MTU"):
        cut(A, B, 17, b"", 67, 1, *more)  # type: ignore[operator]
    with pytest.raises(ValueError, match="octets"):
        cut(A, B, 17, bytes(65_536), 1500, 1, *more)  # type: ignore[operator]


def test_identifications_do_not_repeat() -> None:
    """RFC 6864 §4.3: unique per addresses and protocol; RFC 7739: not to be foretold by others."""
    source = Identifications(b"k" * 32)
    ours = [source.following(A, B, 17) & 0xFFFF for _ in range(65_536)]
    assert len(set(ours)) == 65_536
    assert source.following(B, A, 17) != (source.following(A, B, 17))
    assert Identifications(b"j" * 32).following(A, B, 17) != ours[0]


def test_reassembly_of_ipv6_pieces() -> None:
    box = Reassembler()
    whole = None
    for packet in cut_ipv6(A6, B6, 17, bytes(range(256)) * 20, 1280, 9, 64):
        parsed = ipv6.parse(packet, 0, len(packet))
        header = ipv6.parse_fragment(packet, parsed.fragment_at)
        payload = packet[parsed.payload_at : parsed.payload_end]
        key = (parsed.src, parsed.dst, header.ident)
        whole = box.add(key, parsed.src, header.offset, header.more, payload, b"h", packet, 0.0)
    assert whole is not None
    assert whole.payload == bytes(range(256)) * 20
