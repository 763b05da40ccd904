"""Loss by time (RFC 8985)."""

from __future__ import annotations

from math import inf

import pytest

from appliance.net.flight import Flight
from appliance.net.rack import MAX_ACK_DELAY, MIN_PROBE, WINDOW_PERSISTS, Rack, probe_timeout


def sent(*times: float) -> Flight:
    """Ten octets at each of these times."""
    flight = Flight()
    for n, at in enumerate(times):
        flight.sent(10 * n, 10 * n + 10, at)
    return flight


def delivered(rack: Rack, flight: Flight, n: int, now: float) -> None:
    record = flight.sack(10 * n, 10 * n + 10)[0]
    rack.delivered(record, record.end, now, False)


def lost(flight: Flight) -> list[int]:
    return [r.start // 10 for r in flight.records if r.lost]


def test_what_was_sent_before_a_delivered_one_is_lost_in_time() -> None:
    """RFC 8985 §6.2 step 5: sent earlier, and RACK.rtt + reo_wnd ago."""
    flight, rack = sent(0.0, 0.1, 0.2), Rack()
    delivered(rack, flight, 1, 0.2)
    assert rack.rtt == pytest.approx(0.1)
    assert rack.detect(flight, 0.2, 0.0) == 0.0
    assert lost(flight) == [0]


def test_it_is_waited_for_as_long_as_reordering_may_last() -> None:
    """RFC 8985 §6.2 step 5: the remainder comes back, to be timed."""
    flight, rack = sent(0.0, 0.01, 0.2), Rack()
    delivered(rack, flight, 1, 0.11)
    assert rack.detect(flight, 0.11, 0.05) == pytest.approx(0.04)
    assert lost(flight) == []
    assert rack.detect(flight, 0.1501, 0.05) == 0.0
    assert lost(flight) == [0]


def test_of_one_instant_the_order_of_numbers_decides() -> None:
    """RFC 8985 §6.2, RACK_sent_after: equal times are told apart by end_seq."""
    flight, rack = sent(0.0, 0.0, 0.0), Rack()
    delivered(rack, flight, 1, 0.1)
    rack.detect(flight, 0.1, 0.0)
    assert lost(flight) == [0]


def test_a_lost_retransmission_is_lost_again() -> None:
    """RFC 8985 §3.2: what was sent after it has arrived."""
    flight, rack = sent(0.0, 0.0, 0.0), Rack()
    delivered(rack, flight, 1, 0.1)
    rack.detect(flight, 0.1, 0.0)
    flight.sent_again(flight.records[0], 10, 0.1, 1)
    flight.sent(30, 40, 0.11)
    delivered(rack, flight, 3, 0.21)
    rack.detect(flight, 0.22, 0.0)
    assert 0 in lost(flight)


def test_a_reply_sooner_than_possible_is_to_the_first_copy() -> None:
    """RFC 8985 §6.2 step 2: it says nothing about when copies arrive."""
    flight, rack = sent(0.0, 0.0), Rack()
    delivered(rack, flight, 1, 0.1)
    flight.mark_lost(flight.records[0])
    flight.sent_again(flight.records[0], 10, 0.1, 1)
    rack.delivered(flight.records[0], 10, 0.11, False)
    assert rack.xmit_at == 0.0
    rack.delivered(flight.records[0], 10, 0.25, True)
    assert rack.xmit_at == 0.0, "the timestamp says so too"
    rack.delivered(flight.records[0], 10, 0.25, False)
    assert rack.xmit_at == 0.1


def test_nothing_is_lost_before_anything_was_delivered() -> None:
    flight, rack = sent(0.0, 0.0), Rack()
    assert rack.detect(flight, 100.0, 0.0) == 0.0
    assert lost(flight) == []


def test_reordering_window() -> None:
    """RFC 8985 §6.2 step 4: none with DupThresh or in recovery, until reordering was seen."""
    flight, rack = sent(0.0, 0.0, 0.0), Rack()
    assert rack.reordering_window(0.1, False, 1) == 0.0, "nothing is known yet"
    delivered(rack, flight, 2, 0.08)
    assert rack.reordering_window(0.1, False, 1) == pytest.approx(0.02)
    assert rack.reordering_window(0.1, False, 3) == 0.0
    assert rack.reordering_window(0.1, True, 1) == 0.0
    delivered(rack, flight, 0, 0.09)
    assert rack.reordering_seen
    assert rack.reordering_window(0.1, True, 3) == pytest.approx(0.02)


def test_what_was_sent_again_is_no_sign_of_reordering() -> None:
    """RFC 8985 §6.2 step 3."""
    flight, rack = sent(0.0, 0.0, 0.0), Rack()
    delivered(rack, flight, 2, 0.1)
    flight.mark_lost(flight.records[0])
    flight.sent_again(flight.records[0], 10, 0.1, 1)
    delivered(rack, flight, 0, 0.2)
    assert not rack.reordering_seen


def test_duplicate_reports_widen_the_window_once_a_round() -> None:
    """RFC 8985 §6.2 step 4: by a quarter of min_rtt, up to SRTT, and not for ever."""
    flight, rack = sent(0.0, 0.0), Rack()
    delivered(rack, flight, 1, 0.1)
    delivered(rack, flight, 0, 0.1)
    rack.duplicate_sacked(100, 200)
    rack.duplicate_sacked(150, 250)
    assert rack.reordering_window(1.0, False, 0) == pytest.approx(2 * 0.1 / 4)
    rack.duplicate_sacked(200, 300)
    assert rack.reordering_window(1.0, False, 0) == pytest.approx(3 * 0.1 / 4)
    for n in range(10):
        rack.duplicate_sacked(300 + 100 * n, 400 + 100 * n)
    assert rack.reordering_window(0.1, False, 0) == 0.1
    for _ in range(WINDOW_PERSISTS):
        rack.recovered()
    assert rack.reordering_window(1.0, False, 0) == pytest.approx(0.1 / 4)


@pytest.mark.parametrize(
    ("srtt", "rto", "out", "expected"),
    [
        (0.1, 1.0, 5, 0.2 + MIN_PROBE),
        (0.1, 1.0, 1, 0.2 + MAX_ACK_DELAY),
        (0.1, 0.15, 5, 0.15),
        (0.0, 1.0, 5, 1.0),
    ],
)
def test_probe_timeout(srtt: float, rto: float, out: int, expected: float) -> None:
    """RFC 8985 §7.2: two round trips, a delayed ACK's worth for a lone segment, at most RTO."""
    assert probe_timeout(srtt, rto, out) == pytest.approx(expected)


def test_nothing_known_is_infinitely_far() -> None:
    assert Rack().min_rtt == inf


def test_how_far_a_segment_came_behind_its_place() -> None:
    """RFC 8985 §6.2 step 3: seen by what was delivered below the highest, never sent again."""
    flight, rack = sent(0.0, 0.0, 0.0, 0.0, 0.0), Rack()
    delivered(rack, flight, 4, 0.1)
    assert (rack.reordering_seen, rack.displaced) == (False, 0)
    delivered(rack, flight, 1, 0.1)
    delivered(rack, flight, 2, 0.1)
    assert (rack.reordering_seen, rack.displaced) == (True, 40)
