"""The Internet checksum: RFC 1071's own example, a word-by-word oracle, and the two zeros."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.checksum import (
    checksum,
    fold,
    ones_complement_sum,
    pseudo_header_sum,
    verify,
)


def by_words(data: bytes, initial: int = 0) -> int:
    """RFC 1071 §4.1, as written there: add words, then fold the carries."""
    total = initial
    for at in range(0, len(data) - 1, 2):
        total += data[at] << 8 | data[at + 1]
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_example_of_rfc_1071() -> None:
    """RFC 1071 §3: 0001 f203 f4f5 f6f7 sums to ddf2."""
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert ones_complement_sum(data) == 0xDDF2
    assert checksum(data) == 0xDDF2 ^ 0xFFFF


@given(st.binary(max_size=200), st.integers(0, 1 << 20))
def test_equals_the_sum_by_words(data: bytes, initial: int) -> None:
    assert ones_complement_sum(data, initial) == by_words(data, initial)
    assert ones_complement_sum(memoryview(data), initial) == by_words(data, initial)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"\0\0\0\0", 0),
        (b"\xff\xff", 0xFFFF),
        (b"\xff\xff\xff\xff", 0xFFFF),
        (b"\x80\x00\x7f\xff", 0xFFFF),
        (b"\x01", 0x0100),
    ],
)
def test_zero_has_two_faces(data: bytes, expected: int) -> None:
    """RFC 1071: only words that are all zero sum to 0000; any other multiple of ffff is ffff."""
    assert ones_complement_sum(data) == expected


@given(st.integers(0, 1 << 70))
def test_fold_adds_carries_around(total: int) -> None:
    expected = total
    while expected >> 16:
        expected = (expected & 0xFFFF) + (expected >> 16)
    assert fold(total) == expected


@given(st.binary(min_size=2, max_size=100).filter(lambda data: len(data) % 2 == 0))
def test_what_is_stored_verifies(data: bytes) -> None:
    assert verify(data + checksum(data).to_bytes(2))


@given(st.binary(min_size=4, max_size=64), st.data())
def test_one_flipped_bit_is_noticed(data: bytes, pick: st.DataObject) -> None:
    whole = bytearray(data + bytes(len(data) % 2))
    whole += checksum(whole).to_bytes(2)
    whole[pick.draw(st.integers(0, len(whole) - 1))] ^= 1 << pick.draw(st.integers(0, 7))
    assert not verify(whole)


@given(st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4), st.integers(0, 65535))
def test_pseudo_header_of_ipv4(src: bytes, dst: bytes, length: int) -> None:
    """RFC 9293 §3.1: addresses, zero, protocol, length."""
    layout = src + dst + b"\0\x06" + length.to_bytes(2)
    assert pseudo_header_sum(src, dst, 6, length) == by_words(layout)


@given(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
    st.integers(0, (1 << 32) - 1),
)
def test_pseudo_header_of_ipv6(src: bytes, dst: bytes, length: int) -> None:
    """RFC 8200 §8.1: addresses, 32 bits of length, three zeros, next header."""
    layout = src + dst + length.to_bytes(4) + b"\0\0\0\x11"
    assert pseudo_header_sum(src, dst, 17, length) == by_words(layout)


def test_pseudo_header_of_a_known_datagram() -> None:
    """The worked example of many a lecture: "Hi" from port 20 to port 10 has 0x35c5."""
    src, dst = (ipaddress.ip_address(text).packed for text in ("192.168.0.31", "192.168.0.30"))
    header = bytes.fromhex("0014000a000a0000") + b"Hi"  # ports 20 and 10, length 10
    assert checksum(header, pseudo_header_sum(src, dst, 17, 10)) == 0x35C5
