"""NewReno's congestion avoidance and reduction (RFC 5681, RFC 3465)."""

from __future__ import annotations

from appliance.net.newreno import NewReno
from appliance.net.rtt import RttEstimator

MSS = 1000
RTT = RttEstimator()


def avoiding(segments: int) -> NewReno:
    cc = NewReno(MSS)
    cc.cwnd = cc.ssthresh = segments * MSS
    return cc


def test_one_segment_per_window_acknowledged() -> None:
    """RFC 5681 §3.1, equation 3 by octets: RFC 3465 §2.1."""
    cc = avoiding(10)
    for _ in range(9):
        cc.acked(MSS, 0.0, RTT, 0, 0)
    assert cc.cwnd == 10 * MSS
    cc.acked(MSS, 0.0, RTT, 0, 0)
    assert cc.cwnd == 11 * MSS


def test_stretch_acknowledgments_count_in_full() -> None:
    """RFC 3465 §2.1: by octets, not by acknowledgments."""
    single, stretched = avoiding(10), avoiding(10)
    for _ in range(100):
        single.acked(MSS, 0.0, RTT, 0, 0)
    for _ in range(10):
        stretched.acked(10 * MSS, 0.0, RTT, 0, 0)
    assert single.cwnd == stretched.cwnd


def test_slow_start_ends_at_the_threshold_exactly() -> None:
    """RFC 5681 §3.1: what goes beyond counts as congestion avoidance."""
    cc = NewReno(MSS)
    cc.ssthresh = 12 * MSS
    cc.acked(10 * MSS, 0.0, RTT, 0, 0)
    assert cc.cwnd == 12 * MSS
    cc.acked(4 * MSS, 0.0, RTT, 0, 0)
    assert cc.cwnd == 13 * MSS


def test_a_loss_halves_what_was_in_flight() -> None:
    """RFC 5681 §3.1, equation 4: max(FlightSize / 2, 2 SMSS)."""
    cc = avoiding(40)
    cc.lost(30 * MSS, 0.0)
    assert cc.ssthresh == 15 * MSS
    cc.lost(3 * MSS, 0.0)
    assert cc.ssthresh == 2 * MSS


def test_avoidance_begins_anew_after_a_loss() -> None:
    """RFC 3465 §2.1: what had been counted belongs to the old window."""
    cc = avoiding(10)
    cc.acked(9 * MSS, 0.0, RTT, 0, 0)
    cc.lost(10 * MSS, 0.0)
    cc.cwnd = cc.ssthresh
    cc.acked(MSS, 0.0, RTT, 0, 0)
    assert cc.cwnd == 5 * MSS
