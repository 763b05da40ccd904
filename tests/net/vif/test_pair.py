"""Two interfaces back to back: order, bounds, callbacks, and the promise of offload."""

from __future__ import annotations

import pytest

from appliance.net.vif.base import Vif, derived_mac
from appliance.net.vif.pair import pair
from appliance.net.wire import virtio

PLAIN = virtio.PLAIN


def test_frames_cross_in_order_and_whole() -> None:
    left, right = pair()
    assert left.send(PLAIN + b"one")
    assert left.send(PLAIN + b"two-", memoryview(b"tail"))
    assert right.send(PLAIN + b"back")
    assert right.receive(64) == [PLAIN + b"one", PLAIN + b"two-tail"]
    assert right.receive(64) == []
    assert left.receive(64) == [PLAIN + b"back"]


def test_receive_takes_at_most_the_limit() -> None:
    left, right = pair()
    frames = [PLAIN + bytes((number,)) for number in range(10)]
    for frame in frames:
        left.send(frame)
    assert [right.receive(4), right.receive(4), right.receive(4)] == [
        frames[:4],
        frames[4:8],
        frames[8:],
    ]


def test_a_memoryview_of_a_changing_buffer_is_copied() -> None:
    left, right = pair()
    buffer = bytearray(b"before")
    left.send(PLAIN, memoryview(buffer))
    buffer[:] = b"after!"
    assert right.receive(1) == [PLAIN + b"before"]


def test_readable_is_called_when_the_queue_stops_being_empty() -> None:
    left, right = pair()
    calls: list[str] = []
    right.on_readable = lambda: calls.append("readable")
    left.send(PLAIN)
    left.send(PLAIN)
    assert calls == ["readable"]
    right.receive(1)
    left.send(PLAIN)
    assert calls == ["readable"]
    right.receive(64)
    left.send(PLAIN)
    assert calls == ["readable", "readable"]


def test_full_then_writable_once_half_is_free() -> None:
    left, right = pair(capacity=4)
    calls: list[str] = []
    left.on_writable = lambda: calls.append("writable")
    assert [left.send(PLAIN + bytes((n,))) for n in range(6)] == [True] * 4 + [False] * 2
    right.receive(1)
    assert calls == []
    right.receive(1)
    assert calls == ["writable"]
    right.receive(2)
    assert calls == ["writable"]
    assert left.send(PLAIN)


def test_writable_is_not_called_when_nothing_was_refused() -> None:
    left, right = pair(capacity=4)
    left.on_writable = lambda: pytest.fail("nobody was waiting")
    left.send(PLAIN)
    right.receive(64)


def test_closed_end_swallows() -> None:
    left, right = pair(capacity=1)
    calls: list[str] = []
    left.on_writable = lambda: calls.append("writable")
    left.send(PLAIN)
    assert not left.send(PLAIN)
    right.close()
    assert calls == ["writable"]
    assert left.send(PLAIN)
    assert right.receive(64) == []
    assert right.send(PLAIN)
    assert left.receive(64) == []


def test_offload_is_declared_and_kept() -> None:
    left, right = pair(offload=True)
    assert (left.gso_max, left.checksum_offload) == (65535, True)
    frame = virtio.pack(virtio.NEEDS_CSUM, virtio.GSO_TCPV4, 66, 1448, 34, 16) + bytes(65549)
    assert left.send(frame)
    assert right.receive(1) == [frame]


@pytest.mark.parametrize(
    "head", [virtio.pack(virtio.NEEDS_CSUM), virtio.pack(gso_type=virtio.GSO_TCPV4)]
)
def test_without_offload_unfinished_frames_are_a_mistake(head: bytes) -> None:
    left, _ = pair(offload=False)
    assert (left.gso_max, left.checksum_offload) == (0, False)
    with pytest.raises(ValueError, match="equip"):
        left.send(head + bytes(60))


def test_addresses_are_local_unicast_and_stable() -> None:
    left, right = pair()
    ends: list[Vif] = [left, right]
    assert left.mac != right.mac
    for end in ends:
        assert len(end.mac) == 6
        assert end.mac[0] & 3 == 2
        assert end.mac == derived_mac(end.name)
        assert end.fileno() == -1
