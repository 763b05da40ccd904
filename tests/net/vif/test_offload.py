"""Cutting super-segments and finishing checksums, with scapy reading the pieces."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from appliance.net.checksum import pseudo_header_sum
from appliance.net.errors import WireError
from appliance.net.vif.offload import SoftwareOffload, equip, finish_checksum, segments
from appliance.net.vif.pair import PairEnd, pair
from appliance.net.wire import ethernet, ipv4, tcp, virtio
from appliance.net.wire.virtio import PLAIN
from tests.net.vif.frames import MACS, V4, V6, sums_hold, super_segment

families = st.sampled_from((V4, V6))


@given(
    ends=families,
    size=st.integers(1, 1448),
    payload=st.binary(min_size=1, max_size=40).flatmap(
        lambda seed: st.integers(1, 12000).map(lambda n: (seed * n)[:n])
    ),
    seq=st.integers(0, 0xFFFFFFFF),
    flags=st.integers(0, 255),
    stamp=st.none() | st.just((1, 2)),
    ident=st.integers(0, 0xFFFF),
)
def test_pieces_are_what_a_network_card_would_send(
    ends: tuple[bytes, bytes],
    size: int,
    payload: bytes,
    seq: int,
    flags: int,
    stamp: tuple[int, int] | None,
    ident: int,
) -> None:
    """RFC 9293 §3.1, RFC 3168 §6.1.2: sequence numbers, flags, lengths and sums of each piece."""
    size = max(size, len(payload) // 20 + 1)
    options = tcp.build_options(stamp)
    head, body = super_segment(
        ends, payload, size, seq=seq, flags=flags, options=options, ident=ident
    )
    frames = [bytes(h) + bytes(p) for h, p in segments(head + body, unfinished=False)]
    assert len(frames) == -(-len(payload) // size)
    got = b""
    for index, frame in enumerate(frames):
        assert frame[:10] == PLAIN
        packet = Ether(frame[10:])
        network, segment = packet.payload, packet[TCP]
        assert isinstance(network, IP if ends is V4 else IPv6)
        assert sums_hold(packet)
        octets = bytes(frame[10 + 14 + (20 if ends is V4 else 40) + 20 + len(options) :])
        if ends is V4:
            assert network.len == len(frame) - 24
            assert network.id == (ident + index) & 0xFFFF
        else:
            assert network.plen == len(frame) - 24 - 40
        assert segment.seq == (seq + len(got)) & 0xFFFFFFFF
        last = index == len(frames) - 1
        keep = 0xFF
        if index:
            keep &= ~tcp.CWR
        if not last:
            keep &= ~(tcp.FIN | tcp.PSH)
        assert int(segment.flags) & 0xFF == flags & keep
        assert len(octets) == size if not last else 0 < len(octets) <= size
        got += octets
    assert got == payload


@given(families, st.integers(1, 5000), st.integers(500, 1448))
def test_unfinished_pieces_finish_to_the_same(
    ends: tuple[bytes, bytes], length: int, size: int
) -> None:
    """A link that sums but does not cut gets NEEDS_CSUM pieces: finished, they are the others."""
    payload = random.Random(length).randbytes(length)
    frame = b"".join(super_segment(ends, payload, size, flags=tcp.ACK | tcp.PSH | tcp.FIN))
    whole = [h + p for h, p in segments(frame, unfinished=False)]
    parts = [h + p for h, p in segments(frame, unfinished=True)]
    assert all(part[0] == virtio.NEEDS_CSUM and part[1] == 0 for part in parts)
    assert [finish_checksum(part) for part in parts] == whole


def test_a_super_segment_is_summed_whole() -> None:
    frame = b"".join(super_segment(V4, bytes(range(256)) * 20, 1448))
    done = finish_checksum(frame)
    assert done[0] == 0
    assert done[1] == virtio.GSO_TCPV4
    assert sums_hold(Ether(done[10:]))


def test_udp_sum_of_zero_is_stored_as_ones() -> None:
    """RFC 768: a computed zero is sent as ffff."""
    payload = b"\0\0"
    src, dst = V4
    initial = pseudo_header_sum(src, dst, 17, 10)
    udp_header = (5).to_bytes(2) + (6).to_bytes(2) + (10).to_bytes(2)
    frame = (
        virtio.pack(virtio.NEEDS_CSUM, csum_start=34, csum_offset=6)
        + ethernet.header(*MACS, ethernet.ETHERTYPE_IPV4)
        + ipv4.header(src, dst, 17, 10)
        + udp_header
        + initial.to_bytes(2)
    )
    ordinary = finish_checksum(frame + payload)[-4:-2]
    frame_with_zero = finish_checksum(frame + ordinary)
    assert frame_with_zero[-4:-2] == b"\xff\xff"


@pytest.mark.parametrize(
    "header",
    [
        virtio.pack(virtio.NEEDS_CSUM, csum_start=34, csum_offset=1000),
        virtio.pack(virtio.NEEDS_CSUM, csum_start=0xFFFF, csum_offset=16),
        virtio.pack(virtio.NEEDS_CSUM, csum_start=2, csum_offset=2),
    ],
)
def test_checksum_outside_the_frame(header: bytes) -> None:
    with pytest.raises(WireError, match="vnet_checksum_place"):
        finish_checksum(header + bytes(80))


@given(st.binary(max_size=10), st.binary(max_size=90))
def test_any_frame_raises_only_wire_errors(header: bytes, body: bytes) -> None:
    frame = header + body
    for work in (finish_checksum, lambda data: list(segments(data, unfinished=False))):
        try:
            work(frame)
        except WireError:
            pass


@pytest.mark.parametrize("cut", [60, 30, 12])
def test_segment_that_is_too_short(cut: int) -> None:
    frame = b"".join(super_segment(V4, bytes(3000), 1448))[:cut]
    with pytest.raises(WireError, match="vnet_segment_layout"):
        list(segments(frame, unfinished=False))


# The wrapper


def test_equip_leaves_a_capable_link_alone() -> None:
    capable, _ = pair(offload=True)
    assert equip(capable) is capable
    plain, _ = pair(offload=False)
    wrapped = equip(plain)
    assert (wrapped.gso_max, wrapped.checksum_offload) == (65535, True)
    assert (wrapped.mac, wrapped.mtu, wrapped.name) == (plain.mac, plain.mtu, plain.name)


def wrapped_pair(capacity: int = 1024) -> tuple[SoftwareOffload, PairEnd]:
    left, right = pair(offload=False, capacity=capacity)
    return SoftwareOffload(left), right


def test_complete_frames_pass_untouched() -> None:
    vif, far = wrapped_pair()
    assert vif.send(PLAIN + b"anything", b" at all")
    assert far.receive(9) == [PLAIN + b"anything at all"]
    far.send(PLAIN + b"answer")
    assert vif.receive(9) == [PLAIN + b"answer"]


def test_single_segment_is_summed() -> None:
    vif, far = wrapped_pair()
    head, payload = super_segment(V4, b"hello", 1448)
    assert vif.send(head, payload)
    (frame,) = far.receive(9)
    assert frame[:10] == PLAIN
    assert sums_hold(Ether(frame[10:]))


def test_checksum_offload_alone_is_used() -> None:
    plain, far = pair(offload=True)
    plain.gso_max = 0
    vif = equip(plain)
    assert vif is not plain
    vif.send(*super_segment(V4, bytes(3000), 1448))
    assert [frame[:2] for frame in far.receive(9)] == [b"\1\0"] * 3


def test_partly_taken_super_segment_is_finished_later() -> None:
    vif, far = wrapped_pair(capacity=4)
    writable: list[int] = []
    vif.on_writable = lambda: writable.append(1)
    payload = random.Random(1).randbytes(9000)
    head, _ = super_segment(V4, payload, 1000)
    assert vif.send(head, payload)
    assert not vif.send(head, payload)
    got = far.receive(64)
    assert len(got) == 4
    # Room came back: four more pieces left by themselves, the ninth waits.
    assert writable == []
    got += far.receive(64)
    got += far.receive(64)
    assert writable == [1]
    assert b"".join(frame[64:] for frame in got) == payload


def test_waiting_pieces_go_with_the_next_receive() -> None:
    """A driver that polls a descriptor may never learn that the link is writable again."""
    vif, far = wrapped_pair(capacity=2)
    vif.inner.on_writable = None
    payload = bytes(4000)
    assert vif.send(super_segment(V4, payload, 1000)[0], payload)
    assert len(far.receive(64)) == 2
    vif.receive(64)
    assert len(far.receive(64)) == 2


def test_full_link_takes_nothing() -> None:
    vif, far = wrapped_pair(capacity=1)
    assert vif.send(PLAIN + b"first")
    head, payload = super_segment(V4, bytes(3000), 1448)
    assert not vif.send(head, payload)
    assert far.receive(64) == [PLAIN + b"first"]
    assert far.receive(64) == []


def test_unknown_segmentation_is_counted_and_dropped() -> None:
    vif, far = wrapped_pair()
    assert vif.send(virtio.pack(virtio.NEEDS_CSUM, 77, 0, 100, 34, 16) + bytes(200))
    assert vif.send(virtio.pack(virtio.NEEDS_CSUM, 1, 0, 0, 34, 16) + bytes(200))
    assert vif.send(virtio.pack(virtio.NEEDS_CSUM, 0, 0, 0, 3400, 16) + bytes(200))
    assert far.receive(9) == []
    assert vif.refused == 3


def test_close_closes_the_link() -> None:
    vif, far = wrapped_pair(capacity=1)
    payload = bytes(3000)
    vif.send(super_segment(V4, payload, 1448)[0], payload)
    vif.close()
    assert far.send(PLAIN)
    assert vif.receive(9) == []
