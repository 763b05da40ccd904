"""What ICMP errors mean, and how many of our own may leave."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.icmp import BURST, RATE, TokenBucket, error_of


def test_bucket_gives_a_burst_and_then_the_rate() -> None:
    """RFC 1812 §4.3.2.8."""
    bucket = TokenBucket(10.0, 5.0)
    assert [bucket.take(100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [bucket.take(100.125) for _ in range(2)] == [True, False]
    assert sum(bucket.take(1000.0) for _ in range(100)) == 5


@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=200))
def test_bucket_never_gives_more(gaps: list[float]) -> None:
    """RFC 1812 §4.3.2.8: burst + rate * time at the most, whatever the rhythm."""
    bucket, now, taken = TokenBucket(10.0, 5.0), 50.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now)
    assert taken <= 5 + 10 * sum(gaps) + 1e-6


def test_limits_are_those_of_linux() -> None:
    """icmp_msgs_per_sec and icmp_msgs_burst."""
    assert (RATE, BURST) == (1000.0, 50.0)


@pytest.mark.parametrize(
    ("kind", "code", "number"),
    [
        (3, 0, errno.ENETUNREACH),
        (3, 1, errno.EHOSTUNREACH),
        (3, 2, errno.ECONNREFUSED),
        (3, 3, errno.ECONNREFUSED),
        (3, 13, errno.EHOSTUNREACH),
        (11, 0, errno.EHOSTUNREACH),
        (12, 0, errno.EPROTO),
    ],
)
def test_errors(kind: int, code: int, number: int) -> None:
    """RFC 1122 §4.2.3.9."""
    error = error_of(kind, code)
    assert error is not None
    assert error.errno == number


@pytest.mark.parametrize(("kind", "code"), [(3, 4), (4, 0), (5, 1), (0, 0), (8, 0), (200, 0)])
def test_no_errors(kind: int, code: int) -> None:
    """RFC 1191, RFC 6633, RFC 1122 §3.2.2.2: no news for a socket."""
    assert error_of(kind, code) is None


def test_a_refusal_is_a_refusal() -> None:
    """As with sockets."""
    assert isinstance(error_of(3, 3), ConnectionRefusedError)
