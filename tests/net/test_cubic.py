"""CUBIC: the curve, the Reno-friendly region, and what a loss leaves (RFC 9438)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from appliance.net.cubic import ALPHA, BETA, C, Cubic
from appliance.net.rtt import RttEstimator

MSS = 1000


class Flow:
    """A window that is always full, acknowledged once per round trip, segment by segment."""

    def __init__(self, segments: int, rtt: float) -> None:
        self.cc = Cubic(MSS)
        self.cc.cwnd = segments * MSS
        self.cc.ssthresh = MSS  # in congestion avoidance
        self.rtt = RttEstimator()
        self.rtt.sample(rtt)
        self.period = rtt
        self.now = 100.0

    def round(self) -> float:
        """One round trip; the window afterwards, in segments."""
        for _ in range(self.cc.cwnd // MSS):
            self.now += self.period / (self.cc.cwnd / MSS)
            self.cc.acked(MSS, self.now, self.rtt, 0, 0)
        return self.cc.cwnd / MSS

    def lose(self) -> None:
        self.cc.lost(self.cc.cwnd, self.now)
        self.cc.cwnd = self.cc.ssthresh


def test_a_loss_leaves_seven_tenths() -> None:
    """RFC 9438 §4.6."""
    flow = Flow(1000, 0.1)
    flow.lose()
    assert flow.cc.cwnd == pytest.approx(700 * MSS, abs=MSS)
    flow.cc.lost(MSS, flow.now)
    assert flow.cc.ssthresh == 2 * MSS


def test_the_window_returns_to_where_the_loss_was_after_k() -> None:
    """RFC 9438 §4.2, equation 2: K = cbrt(W_max (1 - beta) / C)."""
    flow = Flow(1000, 0.1)
    flow.lose()
    began = flow.now
    k = (1000 * (1 - BETA) / C) ** (1 / 3)
    while flow.round() < 990:
        assert flow.now - began < 2 * k
    assert flow.now - began == pytest.approx(k, rel=0.35)


def test_it_is_concave_below_and_convex_above() -> None:
    """RFC 9438 §4.4, §4.5: fast, then slow around W_max, then fast again."""
    flow = Flow(1000, 0.1)
    flow.lose()
    steps = []
    before = flow.cc.cwnd / MSS
    for _ in range(180):
        after = flow.round()
        steps.append(after - before)
        before = after
    third = len(steps) // 3
    early, middle, late = (sum(steps[n * third : (n + 1) * third]) for n in range(3))
    assert early > 3 * middle
    assert late > 3 * middle


def test_growth_follows_time_and_not_round_trips() -> None:
    """RFC 9438 §3.2: two flows of unlike round trips are equally far at the same time."""
    after = []
    for rtt in (0.05, 0.2):
        flow = Flow(2000, rtt)
        flow.lose()
        until = flow.now + 8.0
        while flow.now < until:
            flow.round()
        after.append(flow.cc.cwnd / MSS)
    assert after[0] == pytest.approx(after[1], rel=0.1)


def test_on_short_paths_it_is_as_fast_as_reno() -> None:
    """RFC 9438 §4.3: W_est grows by alpha per round trip until it has caught up, then by one."""
    flow = Flow(20, 0.005)
    flow.lose()
    windows = [flow.round() for _ in range(40)]
    assert windows[-1] >= 14 + 0.9 * ALPHA * 11
    for before, after in pairwise(windows):
        assert after - before <= 2


def test_losing_ground_makes_room_for_newcomers() -> None:
    """RFC 9438 §4.7, fast convergence: W_max below the window that met the second loss."""
    flow = Flow(1000, 0.1)
    flow.lose()
    flow.lose()
    assert flow.cc._w_max == pytest.approx(700 * (1 + BETA) / 2, rel=0.01)


def test_idle_time_does_not_count() -> None:
    """RFC 9438 §5.8: the curve does not run on while nothing is sent."""
    flow = Flow(1000, 0.1)
    flow.lose()
    for _ in range(10):
        flow.round()
    before = flow.cc.cwnd
    flow.now += 3600
    flow.round()
    assert flow.cc.cwnd < 1.2 * before


def test_never_more_than_half_as_much_again_per_round() -> None:
    """RFC 9438 §4.2: the target is bounded."""
    flow = Flow(10, 0.5)
    flow.lose()
    before = flow.cc.cwnd
    for _ in range(60):
        flow.round()
        assert flow.cc.cwnd <= 1.6 * before + MSS
        before = flow.cc.cwnd


def test_a_timeout_begins_anew() -> None:
    """RFC 9438 §4.8."""
    flow = Flow(100, 0.1)
    flow.cc.timed_out(100 * MSS, flow.now, True)
    assert flow.cc.cwnd == MSS
    assert flow.cc.ssthresh == pytest.approx(70 * MSS, abs=MSS)
    flow.round()
    assert flow.cc.cwnd == 2 * MSS


@pytest.mark.parametrize("timeout", [False, True])
def test_a_needless_reduction_leaves_no_trace(timeout: bool) -> None:
    """RFC 9438 §4.9.1, §4.9.2: W_max, K, epoch, W_est and cwnd_prior are restored, too."""
    flows = [Flow(1000, 0.1), Flow(1000, 0.1)]
    for flow in flows:
        flow.lose()
        for _ in range(20):
            flow.round()
    cc, now = flows[0].cc, flows[0].now
    if timeout:
        cc.timed_out(cc.cwnd, now, True)
    else:
        cc.lost(cc.cwnd, now)
        cc.cwnd = cc.ssthresh
    cc.undo()
    for _ in range(50):
        assert flows[0].round() == pytest.approx(flows[1].round(), rel=0.001)
