"""The benchmark's long path and its hostile packets: the same for both, and valid."""

from __future__ import annotations

import math
import random

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bench.client import syn
from bench.relay import Way, has_data


def frame(payload: bytes = b"", flags: str = "A") -> bytes:
    built = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(flags=flags, options=[("NOP", None)])
    return bytes(built / Raw(payload) if payload else built)


def test_data_is_told_from_acknowledgments() -> None:
    assert has_data(frame(b"x"))
    assert not has_data(frame())
    assert not has_data(frame() + bytes(6))  # padded to Ethernet's least
    assert not has_data(bytes(Ether(type=0x0806)) + bytes(60))
    assert not has_data(b"short")


def lost(seed: int, frames: list[bytes]) -> list[int]:
    way = Way(0.0, math.inf, 0.2)
    way.seed(seed)
    found = []
    for number, each in enumerate(frames):
        before = len(way.waiting)
        way.enter(each, 1.0)
        if len(way.waiting) == before:
            found.append(number)
    return found


def test_the_schedule_counts_data_and_nothing_else() -> None:
    """Whoever sends, the n-th segment with data meets the same fate."""
    data = [frame(bytes([n])) for n in range(100)]
    assert lost(1, data) == lost(1, data)
    assert lost(1, data) != lost(2, data)
    assert 5 < len(lost(1, data)) < 40
    mixed = [each for one in data for each in (one, frame())]
    assert lost(1, mixed) == [2 * n for n in lost(1, data)]


def test_the_bottleneck_spaces_frames_and_its_queue_ends() -> None:
    way = Way(0.025, 8_000_000.0, 0.0)
    each = bytes(1000)  # one millisecond of the rate
    for _ in range(3):
        way.enter(each, 10.0)
    assert [due for due, _ in way.waiting] == pytest.approx([10.026, 10.027, 10.028])
    for _ in range(1000):
        way.enter(each, 10.0)
    assert 250 <= len(way.waiting) <= 252  # 250,000 octets wait


def test_the_flood_s_packets_are_valid() -> None:
    """RFC 9293 §3.1: the checksum holds, the offset covers the options."""
    chance = random.Random(1)
    for _ in range(50):
        packet = syn(chance.randbytes(4), b"\x0a\x00\x00\x02", chance.randbytes(4), 7)
        parsed = IP(packet)
        rebuilt = parsed.copy()
        del rebuilt[TCP].chksum
        assert IP(bytes(rebuilt))[TCP].chksum == parsed[TCP].chksum
        assert parsed[TCP].flags == "S"
        assert dict(parsed[TCP].options)["MSS"] == 1460
