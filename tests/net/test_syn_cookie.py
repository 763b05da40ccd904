"""SYN cookies: what is sent to the peer comes back, and nothing else does (RFC 4987 §3.6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net import syn_cookie
from appliance.net.seq import MASK
from appliance.net.syn_cookie import MSS_TABLE, PERIOD
from appliance.net.wire.tcp import NO_OPTIONS, TcpOptions

SECRET = bytes(range(16))
KEY = bytes(range(12))
numbers = st.integers(0, MASK)
times = st.floats(PERIOD, 1e7)
NOW = 1000.0


@given(numbers, st.integers(0, 65_535), times)
def test_the_segment_size_comes_back_rounded_down(irs: int, mss: int, now: float) -> None:
    """RFC 4987 §3.6: to one of eight values; never more than the peer can take."""
    iss = syn_cookie.sequence_number(SECRET, KEY, irs, mss, now)
    seq, ack = (irs + 1) & MASK, (iss + 1) & MASK
    options = syn_cookie.read(SECRET, KEY, seq, ack, NO_OPTIONS, now)
    assert options is not None
    assert options.mss in MSS_TABLE
    assert options.mss <= max(mss, MSS_TABLE[0])
    assert options == TcpOptions(mss=options.mss)


@given(numbers, st.one_of(st.none(), st.integers(0, 14)), st.booleans())
def test_the_timestamp_remembers_the_other_options(
    clock: int, scale: int | None, permitted: bool
) -> None:
    """RFC 4987 §3.6: scale and SACK in its low bits, and it never runs ahead of the clock."""
    asked = TcpOptions(window_scale=scale, sack_permitted=permitted, timestamp=(1, 0))
    value = syn_cookie.timestamp(clock, asked)
    assert (clock - value) & MASK < 128
    iss = syn_cookie.sequence_number(SECRET, KEY, 5, 1460, NOW)
    echoed = TcpOptions(timestamp=(2, value))
    options = syn_cookie.read(SECRET, KEY, 6, (iss + 1) & MASK, echoed, NOW)
    assert options is not None
    assert (options.window_scale, options.sack_permitted) == (scale, permitted)


@pytest.mark.parametrize(("later", "good"), [(0.0, True), (PERIOD, True), (2 * PERIOD, False)])
def test_a_cookie_goes_stale(later: float, good: bool) -> None:
    """RFC 4987 §3.6: what is accepted must have been sent in the last two minutes."""
    iss = syn_cookie.sequence_number(SECRET, KEY, 5, 1460, 1000.0)
    options = syn_cookie.read(SECRET, KEY, 6, iss + 1, NO_OPTIONS, 1000.0 + later)
    assert (options is not None) == good


@given(st.integers(0, 11), st.integers(1, 255))
def test_a_cookie_is_for_one_flow(at: int, change: int) -> None:
    """RFC 4987 §3.6: addresses, ports and the peer's number are all in it."""
    other = bytearray(KEY)
    other[at] ^= change
    iss = syn_cookie.sequence_number(SECRET, KEY, 5, 1460, NOW)
    assert syn_cookie.read(SECRET, bytes(other), 6, iss + 1, NO_OPTIONS, NOW) is None
    assert syn_cookie.read(SECRET, KEY, 6 + change, iss + 1, NO_OPTIONS, NOW) is None
    assert syn_cookie.read(SECRET[::-1], KEY, 6, iss + 1, NO_OPTIONS, NOW) is None


@given(st.lists(numbers, min_size=200, max_size=200))
def test_guessing_does_not_pay(guesses: list[int]) -> None:
    """RFC 4987 §3.6: 29 bits of the number are a keyed hash."""
    hits = [syn_cookie.read(SECRET, KEY, 6, g, NO_OPTIONS, NOW) for g in guesses]
    assert sum(hit is not None for hit in hits) <= 2


@given(st.floats(0, PERIOD), numbers)
def test_a_clock_that_has_just_started(now: float, ack: int) -> None:
    """A machine that has been up for a minute is attacked like any other."""
    assert syn_cookie.read(SECRET, KEY, 6, ack, NO_OPTIONS, now) in (None, TcpOptions(mss=536))
