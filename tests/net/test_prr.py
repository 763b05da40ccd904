"""Proportional rate reduction (RFC 9937)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.prr import Prr

MSS = 1000


def recover(losses: int, flight: int, ssthresh: int, *, safe: bool) -> list[int]:
    """Segments sent per ACK when the first `losses` of `flight` were lost, each ACK one SACK."""
    prr = Prr(flight * MSS, ssthresh * MSS)
    pipe = (flight - losses) * MSS
    sent = []
    for _ in range(flight - losses):
        pipe -= MSS
        budget = prr.window(MSS, pipe, MSS, safe) - pipe
        segments = budget // MSS
        prr.out += segments * MSS
        pipe += segments * MSS
        sent.append(segments)
    return sent


def test_half_as_much_goes_out_as_comes_in() -> None:
    """RFC 9937 §6.2: while the flight is above ssthresh, in proportion."""
    sent = recover(1, 20, 10, safe=False)
    assert sum(sent) in (9, 10)
    assert max(sent) == 1
    for acks in range(1, len(sent) + 1):
        assert abs(sum(sent[:acks]) - acks / 2) <= 1


def test_heavy_losses_are_made_up_for_by_slow_start_only_when_it_is_safe() -> None:
    """RFC 9937 §6.2: SafeACK chooses between one and two segments per segment delivered."""
    careful, bold = (recover(16, 20, 10, safe=safe) for safe in (False, True))
    assert sum(careful) <= sum(bold)
    assert max(bold) <= 2
    assert max(careful[1:]) <= 1


def test_the_first_retransmission_always_leaves() -> None:
    """RFC 9937 §6.2: "force a fast retransmit upon entering recovery"."""
    prr = Prr(20 * MSS, 10 * MSS)
    assert prr.window(0, 19 * MSS, MSS, False) >= 20 * MSS
    prr = Prr(2 * MSS, 1 * MSS)
    assert prr.window(1, 0, MSS, False) >= MSS


@given(
    st.integers(1, 100),
    st.integers(2, 100),
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60),
)
def test_never_more_than_both_bounds(
    flight: int, ssthresh: int, acks: list[tuple[int, bool]]
) -> None:
    """RFC 9937 §6.2: at most ssthresh from below; from above, no more than was delivered."""
    prr = Prr(flight * MSS, ssthresh * MSS)
    pipe, delivered = flight * MSS, 0
    for segments, safe in acks:
        segments = min(segments, pipe // MSS)
        pipe -= segments * MSS
        delivered += segments * MSS
        first = prr.out == 0
        cwnd = prr.window(segments * MSS, pipe, MSS, safe)
        assert cwnd >= pipe, "never less than is out"
        assert cwnd <= max(pipe, ssthresh * MSS) + (MSS if first else 0) or pipe > ssthresh * MSS
        budget = (cwnd - pipe) // MSS * MSS
        prr.out += budget
        pipe += budget
        assert prr.out <= delivered + MSS * (1 + len(acks)) or pipe <= ssthresh * MSS


@pytest.mark.parametrize("flight", [0, 1])
def test_a_flight_of_nothing_divides_nothing_by_nothing(flight: int) -> None:
    assert Prr(flight, 1000).window(0, 2000, MSS, True) >= 0
