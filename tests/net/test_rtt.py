"""The retransmission timeout, computed (RFC 6298)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.rtt import INITIAL_RTO, MAX_RTO, MIN_RTO, RttEstimator


def estimator(*samples: float) -> RttEstimator:
    rtt = RttEstimator()
    for sample in samples:
        rtt.sample(sample)
    return rtt


def test_before_any_measurement() -> None:
    """RFC 6298 §2.1: one second."""
    assert RttEstimator().rto == INITIAL_RTO == 1.0


def test_first_measurement() -> None:
    """RFC 6298 §2.2: SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 RTTVAR."""
    rtt = estimator(0.4)
    assert (rtt.srtt, rtt.rttvar, rtt.rto) == pytest.approx((0.4, 0.2, 1.2))


def test_later_measurements() -> None:
    """RFC 6298 §2.3: RTTVAR first, from the old SRTT; alpha = 1/8, beta = 1/4."""
    rtt = estimator(0.4, 0.8)
    assert rtt.rttvar == pytest.approx(0.75 * 0.2 + 0.25 * 0.4)
    assert rtt.srtt == pytest.approx(0.875 * 0.4 + 0.125 * 0.8)
    assert rtt.rto == pytest.approx(rtt.srtt + 4 * rtt.rttvar)
    assert rtt.minimum == 0.4
    assert rtt.latest == 0.8


@given(st.lists(st.floats(0.0, 500.0), min_size=1, max_size=50))
def test_bounds(samples: list[float]) -> None:
    """RFC 6298 §2.4, §2.5: never below the floor, never above the ceiling."""
    rtt = estimator(*samples)
    assert MIN_RTO <= rtt.rto <= MAX_RTO
    assert min(samples) * 0.999 <= max(rtt.srtt, 1e-9)
    assert rtt.srtt <= max(*samples, 1e-9) * 1.001
    assert rtt.minimum == min(samples)


def test_a_steady_path_is_trusted() -> None:
    """RFC 6298 §2.3: the variation dies away; what is added to SRTT keeps its floor (§2.4)."""
    assert estimator(*[0.05] * 100).rto == pytest.approx(0.05 + MIN_RTO)
    assert estimator(*[1.0] * 100).rto == pytest.approx(1.0 + MIN_RTO, abs=0.01)


def test_backing_off_doubles_to_the_ceiling() -> None:
    """RFC 6298 §5.5, §2.5."""
    rtt = RttEstimator()
    seen = []
    for _ in range(10):
        rtt.back_off()
        seen.append(rtt.rto)
    assert seen == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0] + [MAX_RTO] * 4
    assert rtt.backoffs == 10


def test_a_sample_ends_the_backing_off() -> None:
    """RFC 6298 §5, end."""
    rtt = estimator(0.4)
    rtt.back_off()
    rtt.sample(0.4)
    assert rtt.backoffs == 0
    assert rtt.rto < 1.2


def test_a_spurious_expiry_is_taken_back() -> None:
    """RFC 4015 §3.3: the timeout that the estimate gives."""
    rtt = estimator(0.4)
    rtt.back_off()
    rtt.undo_back_off()
    assert rtt.rto == pytest.approx(1.2)
    assert rtt.backoffs == 0
    fresh = RttEstimator()
    fresh.back_off()
    fresh.undo_back_off()
    assert fresh.rto == 2.0, "nothing is known to return to"


def test_a_lost_syn() -> None:
    """RFC 6298 §5.7: three seconds, unless something was measured."""
    rtt = RttEstimator()
    rtt.back_off()
    rtt.forget_lost_syn()
    assert rtt.rto == 3.0
    known = estimator(0.4)
    known.forget_lost_syn()
    assert known.rto == pytest.approx(1.2)


def test_nonsense_is_ignored() -> None:
    """A clock that seems to run backwards measures nothing."""
    rtt = estimator(-1.0)
    assert rtt.srtt == 0.0
    assert rtt.rto == INITIAL_RTO


def test_no_time_at_all_is_a_measurement() -> None:
    """Two hosts in one process: below the clock's resolution, but known."""
    rtt = estimator(0.0)
    assert rtt.srtt > 0.0
    assert rtt.rto == pytest.approx(MIN_RTO)
