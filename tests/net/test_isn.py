"""Initial sequence numbers and timestamp offsets (RFC 6528, RFC 7323 §7.1)."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from appliance.net.isn import (
    SECRET_LENGTH,
    TICKS_PER_SECOND,
    initial_sequence_number,
    keyed_hash,
    timestamp_offset,
)

SECRET = bytes(range(SECRET_LENGTH))
FLOW = bytes(12)


@given(st.binary(min_size=12, max_size=12), st.floats(0, 1e9))
def test_thirty_two_bits(flow: bytes, now: float) -> None:
    """RFC 9293 §3.4.1."""
    assert 0 <= initial_sequence_number(SECRET, flow, now) < 1 << 32


def test_the_clock_ticks_every_four_microseconds() -> None:
    """RFC 9293 §3.4.1 MUST-8, RFC 6528 §3 (M)."""
    assert TICKS_PER_SECOND == 250_000
    first = initial_sequence_number(SECRET, FLOW, 100.0)
    second = initial_sequence_number(SECRET, FLOW, 100.5)
    assert (second - first) & 0xFFFFFFFF == 125_000


def test_flows_and_secrets_differ() -> None:
    """RFC 6528 §3 MUST-9: F is a hash of both sockets and a secret."""
    numbers = {
        initial_sequence_number(secret, flow, 0.0)
        for secret in (SECRET, SECRET[::-1])
        for flow in (bytes(11) + bytes((n,)) for n in range(100))
    }
    assert len(numbers) == 200


def test_a_hash_of_every_octet_of_the_flow() -> None:
    """RFC 6528 §3: either address, either port."""
    base = keyed_hash(SECRET, FLOW)
    for at in range(12):
        assert keyed_hash(SECRET, FLOW[:at] + b"\1" + FLOW[at + 1 :]) != base


def test_timestamps_start_elsewhere_for_each_pair_of_addresses() -> None:
    """RFC 7323 §7.1: and not where the sequence numbers start."""
    pair = os.urandom(8)
    assert timestamp_offset(SECRET, pair) == timestamp_offset(SECRET, pair)
    assert timestamp_offset(SECRET, pair) != timestamp_offset(SECRET, pair[::-1] + b"x")
    assert timestamp_offset(SECRET, pair) != keyed_hash(SECRET, pair)
