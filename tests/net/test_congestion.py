"""What every congestion control shares: initial window, slow start, timeouts, idleness, undo."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.congestion import INFINITE, CongestionControl, initial_window
from appliance.net.cubic import Cubic
from appliance.net.newreno import NewReno
from appliance.net.rtt import RttEstimator

MSS = 1000
RTT = RttEstimator()
both = pytest.mark.parametrize("kind", [NewReno, Cubic])


@pytest.mark.parametrize(
    ("mss", "octets"), [(1460, 14_600), (536, 5360), (4380, 14_600), (8960, 17_920), (76, 760)]
)
def test_initial_window(mss: int, octets: int) -> None:
    """RFC 6928 §2, equation 1: min(10 MSS, max(2 MSS, 14600))."""
    assert initial_window(mss) == octets


@both
def test_slow_start(kind: type[CongestionControl]) -> None:
    """RFC 5681 §3.1: the window grows by what is acknowledged; ssthresh starts arbitrarily high."""
    cc = kind(MSS)
    assert (cc.cwnd, cc.ssthresh) == (10 * MSS, INFINITE)
    cc.acked(10 * MSS, 0.0, RTT, 0, 0)
    assert cc.cwnd == 20 * MSS


@both
def test_timeout(kind: type[CongestionControl]) -> None:
    """RFC 5681 §3.1: cwnd to one segment, ssthresh lowered once per loss."""
    cc = kind(MSS)
    cc.timed_out(10 * MSS, 0.0, True)
    assert cc.cwnd == MSS
    first = cc.ssthresh
    assert 2 * MSS <= first < 10 * MSS
    cc.timed_out(MSS, 1.0, False)
    assert cc.ssthresh == first


@both
def test_undo(kind: type[CongestionControl]) -> None:
    """RFC 4015 §3.2: as if nothing had happened; and not twice."""
    cc = kind(MSS)
    cc.timed_out(10 * MSS, 0.0, True)
    cc.undo()
    assert (cc.cwnd, cc.ssthresh) == (10 * MSS, INFINITE)
    cc.cwnd = MSS
    cc.undo()
    assert cc.cwnd == MSS


@both
@given(segments=st.integers(1, 1000), rounds=st.integers(0, 40))
def test_idleness(kind: type[CongestionControl], segments: int, rounds: int) -> None:
    """RFC 5681 §4.1, RFC 2861 §3: halved per RTO, never below the restart window nor raised."""
    cc = kind(MSS)
    cc.cwnd = before = segments * MSS
    cc.ssthresh = 5 * MSS
    cc.idle(rounds)
    assert min(before, 10 * MSS) <= cc.cwnd <= before
    if rounds > 12:
        assert cc.cwnd == min(before, 10 * MSS)
    assert cc.ssthresh >= before * 3 // 4


@both
def test_segment_size_changes(kind: type[CongestionControl]) -> None:
    """RFC 1191 §6.5: as many segments as before, smaller ones."""
    cc = kind(1400)
    cc.set_mss(700)
    assert cc.cwnd == 10 * 700
    assert cc.mss == 700
    cc.cwnd = 1
    cc.set_mss(500)
    assert cc.cwnd == 500


@both
@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["acked", "lost", "timeout", "undo", "idle"]),
            st.integers(1, 100_000),
            st.floats(0.0, 5.0),
        ),
        max_size=40,
    )
)
def test_whatever_happens_the_window_is_sane(
    kind: type[CongestionControl], events: list[tuple[str, int, float]]
) -> None:
    """RFC 5681 §3.1: at least one segment, ssthresh at least two."""
    cc, now, nxt = kind(MSS), 0.0, 0
    rtt = RttEstimator()
    for event, octets, wait in events:
        now += wait
        nxt += octets
        if event == "acked":
            rtt.sample(wait)
            cc.acked(octets, now, rtt, nxt, nxt + cc.cwnd)
        elif event == "lost":
            cc.lost(min(octets, cc.cwnd), now)
            cc.cwnd = max(cc.ssthresh, MSS)
        elif event == "timeout":
            cc.timed_out(min(octets, cc.cwnd), now, True)
        elif event == "undo":
            cc.undo()
        else:
            cc.idle(int(wait))
        assert isinstance(cc.cwnd, int)
        assert cc.cwnd >= MSS
        assert cc.ssthresh >= 2 * MSS
