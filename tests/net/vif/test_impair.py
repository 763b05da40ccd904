"""The bad wire: seeded, in virtual time, and honest about what it did."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.checksum import verify
from appliance.net.errors import WireError
from appliance.net.vif.impair import Impairment, Wire, corrupted, impaired_pair
from appliance.net.vif.offload import finish_checksum
from appliance.net.vif.pair import PairEnd
from appliance.net.wire import arp, ethernet, ipv4, tcp, udp, virtio
from appliance.net.wire.virtio import PLAIN
from tests.net.vif.frames import MACS, V4, V6, super_segment

Link = tuple[PairEnd, PairEnd, Wire]
PERFECT = Impairment()


def link(seed: int = 1, *, there: Impairment = PERFECT, **options: object) -> Link:
    return impaired_pair(random=random.Random(seed), there=there, **options)


def numbered(count: int) -> list[bytes]:
    return [PLAIN + ethernet.header(*MACS, 0x88B5) + n.to_bytes(4) for n in range(count)]


def drive(wire: Wire, far: PairEnd, until: float = math.inf) -> list[tuple[float, bytes]]:
    """Jump from deadline to deadline; every frame with the instant of its arrival."""
    got: list[tuple[float, bytes]] = []
    now = 0.0
    while (due := wire.deadline()) <= until and due != math.inf:
        now = max(now, due)
        wire.advance(now)
        got += [(now, frame) for frame in far.receive(10_000)]
    return got


def test_perfect_wire() -> None:
    left, right, wire = link()
    frames = numbered(3)
    for frame in frames:
        left.send(frame)
    right.send(frames[0])
    assert wire.deadline() == -math.inf
    wire.advance(5.0)
    assert right.receive(9) == frames
    assert left.receive(9) == [frames[0]]
    assert wire.deadline() == math.inf
    assert (wire.there.delivered, wire.back.delivered) == (3, 1)


def test_delay_is_virtual() -> None:
    left, right, wire = link(there=Impairment(delay=2.0), back=Impairment())
    left.send(numbered(1)[0])
    wire.advance(10.0)
    assert right.receive(9) == []
    assert wire.deadline() == 12.0
    wire.advance(11.99)
    assert right.receive(9) == []
    wire.advance(12.0)
    assert right.receive(9) == numbered(1)


def test_jitter_keeps_the_order() -> None:
    left, right, wire = link(there=Impairment(delay=0.1, jitter=0.5))
    for frame in numbered(200):
        left.send(frame)
    got = drive(wire, right)
    assert [frame for _, frame in got] == numbered(200)
    assert 0.1 <= got[0][0] <= got[-1][0] <= 0.6
    assert len({now for now, _ in got}) > 3


@pytest.mark.parametrize("kind", ["loss", "duplicate", "reorder"])
def test_chances_come_true(kind: str) -> None:
    left, right, wire = link(there=Impairment(**{kind: 0.25}, delay=0.01), capacity=100_000)
    frames = numbered(4000)
    for at, frame in enumerate(frames):
        left.send(frame)
        if at % 10 == 9:
            wire.advance(at / 1000)
    arrived = [frame for _, frame in drive(wire, right)]
    seen = Counter(arrived)
    if kind == "loss":
        assert wire.there.lost == 4000 - len(arrived)
        assert 850 < wire.there.lost < 1150
        assert arrived == [frame for frame in frames if frame in seen]
    elif kind == "duplicate":
        assert wire.there.duplicated == len(arrived) - 4000
        assert 850 < wire.there.duplicated < 1150
        assert set(seen.values()) == {1, 2}
    else:
        assert sorted(arrived) == sorted(frames)
        assert arrived != frames
        assert 850 < wire.there.reordered < 1150


def test_the_same_seed_does_the_same() -> None:
    def run(seed: int) -> list[tuple[float, bytes]]:
        bad = Impairment(loss=0.1, duplicate=0.1, corrupt=0.1, reorder=0.1, delay=0.02, jitter=0.01)
        left, right, wire = link(seed, there=bad)
        for number in range(200):
            left.send(*super_segment(V4, number.to_bytes(4) * 10, 1448))
        return drive(wire, right)

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_rate_spaces_frames_and_the_queue_overflows() -> None:
    left, right, wire = link(there=Impairment(rate=8000.0, queue=2500))
    for _ in range(6):
        left.send(PLAIN + bytes(1000))
    got = drive(wire, right)
    # 1000 octets a second: one is leaving, and those wait that find at most 2500 before them.
    assert [now for now, _ in got] == [1.0, 2.0, 3.0]
    assert wire.there.overflowed == 3


def test_rate_starts_anew_after_silence() -> None:
    left, right, wire = link(there=Impairment(rate=8000.0, delay=0.5))
    left.send(PLAIN + bytes(1000))
    wire.advance(0.0)
    assert wire.deadline() == 1.5
    wire.advance(100.0)
    right.receive(9)
    left.send(PLAIN + bytes(1000))
    wire.advance(100.0)
    assert wire.deadline() == 101.5


def test_receiver_without_room_loses_frames() -> None:
    left, _right, wire = link(capacity=4)
    for frame in numbered(4):
        left.send(frame)
    wire.advance(0.0)
    left.send(numbered(1)[0])
    wire.advance(0.0)
    assert (wire.there.delivered, wire.there.refused) == (4, 1)


def test_directions_are_impaired_apart_and_changed_at_run_time() -> None:
    left, right, wire = link(there=Impairment(loss=1.0), back=Impairment())
    left.send(PLAIN + b"lost")
    right.send(PLAIN + b"kept")
    wire.advance(0.0)
    assert right.receive(9) == []
    assert left.receive(9) == [PLAIN + b"kept"]
    wire.set_impairment(Impairment(), Impairment(loss=1.0))
    left.send(PLAIN + b"kept")
    right.send(PLAIN + b"lost")
    wire.advance(0.0)
    assert right.receive(9) == [PLAIN + b"kept"]
    assert left.receive(9) == []


# Corruption must be noticed


def tcp_intact(frame: bytes) -> bool:
    """Would a receiver of IPv4 take this TCP segment?"""
    try:
        _, _, kind = ethernet.parse(frame, 10)
        header = ipv4.parse(frame, 24, len(frame))
        tcp.parse(frame, header.payload_at, header.payload_end)
    except WireError:
        return False
    if kind != ethernet.ETHERTYPE_IPV4 or header.protocol != tcp.PROTOCOL:
        return False
    if frame[0] & (virtio.NEEDS_CSUM | virtio.DATA_VALID):
        return True
    return tcp.verify(frame, header.payload_at, header.payload_end, header.src, header.dst)


@given(st.integers(0, 1 << 32), st.binary(min_size=1, max_size=5000), st.integers(500, 1448))
def test_a_damaged_segment_is_never_taken(seed: int, payload: bytes, size: int) -> None:
    """Unfinished checksums are finished before a bit is flipped, else nobody could notice."""
    frame = b"".join(super_segment(V4, payload, size))
    assert tcp_intact(frame)
    damaged = corrupted(frame, random.Random(seed))
    assert damaged is not None
    assert len(damaged) == len(frame)
    assert damaged[:10] == PLAIN
    assert not tcp_intact(damaged)


@given(st.integers(0, 1 << 32))
def test_a_damaged_segment_over_ipv6_fails_its_sum_or_its_header(seed: int) -> None:
    frame = b"".join(super_segment(V6, b"payload", 1448))
    damaged = corrupted(frame, random.Random(seed))
    assert damaged is not None
    whole = finish_checksum(frame)
    (changed,) = [at for at in range(10, len(frame)) if damaged[at] != whole[at]]
    segment = damaged[64:]
    pseudo = damaged[32:64] + len(segment).to_bytes(4) + b"\0\0\0\6"
    # RFC 8200 §8.1: the pseudo-header covers the addresses, not the eight octets before them.
    assert verify(pseudo + segment) == (changed < 32)


def test_what_has_no_checksum_is_lost_instead() -> None:
    generator = random.Random(1)
    question = arp.build(1, MACS[1], V4[0], bytes(6), V4[1])
    assert corrupted(PLAIN + ethernet.header(*MACS, 0x0806) + question, generator) is None
    datagram = udp.build(*V4, 1, 2, b"x")
    unsummed = datagram[:6] + b"\0\0" + datagram[8:]
    head = PLAIN + ethernet.header(*MACS, 0x0800) + ipv4.header(*V4, 17, len(datagram))
    assert corrupted(head + unsummed, generator) is None
    assert corrupted(head + datagram, generator) is not None
    assert corrupted(PLAIN + b"short", generator) is None


def test_corruption_on_the_wire_is_counted() -> None:
    left, right, wire = link(there=Impairment(corrupt=1.0))
    left.send(*super_segment(V4, b"hello", 1448))
    left.send(numbered(1)[0])
    wire.advance(0.0)
    (frame,) = right.receive(9)
    assert not tcp_intact(frame)
    assert (wire.there.corrupted, wire.there.lost, wire.there.delivered) == (1, 1, 1)
