"""What is under way, against a model that keeps each octet's condition."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from appliance.net.flight import Flight


class FlightMachine(RuleBasedStateMachine):
    """Every octet is in flight, sacked or lost; the sums of `Flight` are counts of them."""

    def __init__(self) -> None:
        super().__init__()
        self.flight = Flight()
        self.una = self.nxt = 100
        self.octets: dict[int, str] = {}
        self.now = 0.0

    @rule(length=st.integers(1, 30))
    def send(self, length: int) -> None:
        self.now += 1.0
        self.flight.sent(self.nxt, self.nxt + length, self.now)
        for n in range(self.nxt, self.nxt + length):
            self.octets[n] = "flight"
        self.nxt += length

    @precondition(lambda self: self.octets)
    @rule(data=st.data())
    def acknowledge(self, data: Any) -> None:
        self.una = data.draw(st.integers(self.una, self.nxt))
        self.flight.acknowledge(self.una)
        self.octets = {n: c for n, c in self.octets.items() if n >= self.una}

    @precondition(lambda self: self.octets)
    @rule(data=st.data())
    def sack(self, data: Any) -> None:
        left = data.draw(st.integers(self.una, self.nxt - 1))
        right = data.draw(st.integers(left + 1, self.nxt))
        news = self.flight.sack(left, right)
        fresh = {n for n in range(left, right) if self.octets[n] != "sacked"}
        assert {n for r in news for n in range(r.start, r.end)} == fresh
        for n in fresh:
            self.octets[n] = "sacked"

    @precondition(lambda self: self.flight.records)
    @rule(data=st.data())
    def lose(self, data: Any) -> None:
        record = data.draw(st.sampled_from(self.flight.records))
        self.flight.mark_lost(record)
        for n in range(record.start, record.end):
            if self.octets[n] != "sacked":
                self.octets[n] = "lost"

    @rule()
    def lose_all(self) -> None:
        self.flight.mark_all_lost()
        self.octets = {n: "sacked" if c == "sacked" else "lost" for n, c in self.octets.items()}

    @rule()
    def take_back(self) -> None:
        self.flight.unmark_lost()
        self.octets = {n: "flight" if c == "lost" else c for n, c in self.octets.items()}

    @rule()
    def renege(self) -> None:
        self.flight.forget_sacks()
        self.octets = {n: "flight" if c == "sacked" else c for n, c in self.octets.items()}

    @precondition(lambda self: self.flight.lost)
    @rule(data=st.data())
    def repair(self, data: Any) -> None:
        record = self.flight.first_lost()
        assert record is not None
        assert record.start == min(n for n, c in self.octets.items() if c == "lost")
        octets = data.draw(st.integers(1, record.end - record.start))
        start = record.start
        self.now += 1.0
        self.flight.sent_again(record, octets, self.now, 7)
        for n in range(start, start + octets):
            self.octets[n] = "flight"
        assert record.retransmitted
        assert (record.end, record.sent_at) == (start + octets, self.now)

    @invariant()
    def conditions_agree(self) -> None:
        conditions = list(self.octets.values())
        assert self.flight.sacked == conditions.count("sacked")
        assert self.flight.lost == conditions.count("lost")
        covered = [n for r in self.flight.records for n in range(r.start, r.end)]
        assert covered == sorted(self.octets), "ascending, disjoint, without gaps"
        for r in self.flight.records:
            condition = "sacked" if r.sacked else "lost" if r.lost else "flight"
            assert {self.octets[n] for n in range(r.start, r.end)} == {condition}
        going = sum(r.end - r.start for r in self.flight.in_flight())
        assert going == conditions.count("flight")


TestFlight = FlightMachine.TestCase


def test_what_was_sent_twice_is_not_measured() -> None:
    """RFC 6298 §3, Karn: nor anything acknowledged together with it."""
    flight = Flight()
    for n in range(3):
        flight.sent(10 * n, 10 * n + 10, float(n))
    assert flight.acknowledge(10) == 0.0
    flight.mark_lost(flight.records[0])
    flight.sent_again(flight.records[0], 10, 5.0, 1)
    assert flight.acknowledge(30) == -1.0


def test_the_newest_of_what_is_acknowledged_is_measured() -> None:
    """RFC 6298 §3: the segment that made the peer acknowledge."""
    flight = Flight()
    flight.sent(0, 10, 1.0)
    flight.sent(10, 20, 2.0)
    flight.sent(20, 30, 3.0)
    assert flight.acknowledge(25) == 3.0
    assert flight.records[0].start == 25
    assert flight.acknowledge(25) == -1.0


def test_what_was_sacked_is_not_measured() -> None:
    """RFC 6298 §3: it arrived long before this acknowledgment."""
    flight = Flight()
    flight.sent(0, 10, 1.0)
    flight.sent(10, 20, 2.0)
    flight.sack(10, 20)
    assert flight.acknowledge(20) == 1.0


@given(st.integers(1, 9))
def test_a_split_keeps_what_is_known(at: int) -> None:
    flight = Flight()
    flight.sent(0, 10, 1.0)
    record = flight.records[0]
    flight.mark_lost(record)
    upper = record.split(at)
    assert (record.start, record.end, upper.start, upper.end) == (0, at, at, 10)
    assert (upper.lost, upper.sacked, upper.sent_at) == (True, False, 1.0)


def test_of_a_segment_held_in_part_nothing_is_known() -> None:
    """RFC 8985 §6.2 step 2: segments are delivered, not octets; blocks are rounded inwards."""
    flight = Flight()
    flight.sent(0, 50, 0.0)  # five segments of ten octets
    flight.sent(50, 53, 0.0)
    assert flight.sack(49, 50, 10) == []
    assert flight.sack(1, 19, 10) == []
    assert flight.sack(50, 52, 10) == []
    assert [(r.start, r.end) for r in flight.sack(5, 42, 10)] == [(10, 40)]
    assert [(r.start, r.end) for r in flight.sack(45, 53, 10)] == [(50, 53)]
    assert flight.sacked == 33
