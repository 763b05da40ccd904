"""Throughput against loss, delay and reordering, and fairness: what theory has, within bounds.

RFC 9438 §5 gives CUBIC's response to a loss rate, Mathis et al. (1997) Reno's. Bounds are those of
one run of some hundred losses; beyond a few percent of loss the formulas leave out the timeouts.
"""

from __future__ import annotations

import pytest

from appliance.fuzz import Link
from tests.sim.response import CONTROLS, expectation, jain, opened, rate

BOTTLENECK = 10e6  # bits per second
FULL = BOTTLENECK / 8 / 1514  # segments per second


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize(
    ("loss", "rtt", "low", "high"),
    [
        (0.1, 0.05, 0.5, 1.1),
        (0.03, 0.05, 0.7, 1.2),
        (0.01, 0.01, 0.75, 1.3),
        (0.01, 0.05, 0.75, 1.3),
        (0.01, 0.3, 0.75, 1.3),
        (0.003, 0.1, 0.75, 1.3),
        (0.001, 0.3, 0.6, 1.4),
    ],
)
def test_throughput_under_loss(
    control: str, loss: float, rtt: float, low: float, high: float
) -> None:
    """RFC 9438 §5.1 and §4.3; RFC 5681 §3: neither timid nor aggressive."""
    runs = [rate(control, loss, rtt, segments=15_000, seed=seed) for seed in (1, 2)]
    assert low < sum(runs) / 2 / expectation(control, loss, rtt) < high


def test_cubic_gets_more_than_reno_where_paths_are_long_and_clean() -> None:
    """RFC 9438 §5.2: that is what it is for; §4.3: and elsewhere they are alike."""
    long = [rate(control, 0.001, 0.3, segments=20_000) for control in CONTROLS]
    assert long[0] > 1.4 * long[1]
    short = [rate(control, 0.01, 0.02, segments=15_000) for control in CONTROLS]
    assert 0.8 < short[0] / short[1] < 1.25


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("rtt", [0.0, 0.01, 0.1, 0.3])
def test_a_clean_bottleneck_is_filled(control: str, rtt: float) -> None:
    """A queue of one bandwidth-delay product suffices both (Appenzeller et al., 2004)."""
    queue = int(BOTTLENECK * max(rtt, 0.01) / 8)
    link = Link(delay=rtt / 2, rate=BOTTLENECK, queue=queue)
    assert rate(control, 0.0, rtt, segments=10_000, link=link) > 0.93 * FULL


@pytest.mark.parametrize("control", CONTROLS)
def test_reordering_is_not_loss(control: str) -> None:
    """RFC 8985 §6.2, §3.3: segments late by less than a quarter of the round trip cost little."""
    link = Link(delay=0.025, rate=BOTTLENECK, queue=62_500, reorder=0.1, reorder_by=0.0125)
    assert rate(control, 0.0, 0.05, segments=10_000, link=link) > 0.85 * FULL


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("rtt", [0.02, 0.1])
def test_two_flows_share_a_bottleneck_fairly(control: str, rtt: float) -> None:
    """RFC 9438 §4.7, §5; Jain, Chiu and Hawe (1984): with equal round trips, equal shares."""
    # A little jitter: without any, whose segment meets the full queue is decided once for all.
    link = Link(delay=rtt / 2, rate=BOTTLENECK / 2, queue=int(BOTTLENECK * rtt / 16), jitter=0.0005)
    network = opened(control, link, Link(delay=rtt / 2), seed=1, flows=2)
    network.world.run(seconds=10.0)
    shares = network.rates(50.0)
    assert jain(shares) >= 0.95
    assert sum(shares) > 0.9 * FULL / 2


def test_the_index_of_fairness() -> None:
    assert jain([3.0, 3.0]) == 1.0
    assert jain([1.0, 0.0]) == 0.5
