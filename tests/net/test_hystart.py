"""HyStart++: slow start that ends before the queue overflows (RFC 9406)."""

from __future__ import annotations

from appliance.net.hystart import CSS_GROWTH_DIVISOR, CSS_ROUNDS, N_RTT_SAMPLE, HyStart


class Rounds:
    """Feeds whole rounds of acknowledgments of one size and one delay."""

    def __init__(self) -> None:
        self.hystart = HyStart()
        self.ack = 0

    def round(self, rtt: float, acks: int = 10) -> list[tuple[int, bool]]:
        nxt = self.ack + 2000 * acks
        out = []
        for _ in range(acks):
            self.ack += 1000
            out.append(self.hystart.acked(1000, rtt, self.ack, nxt))
        self.ack = nxt
        return out


def test_steady_delay_never_ends_slow_start() -> None:
    """RFC 9406 §4.2."""
    rounds = Rounds()
    for _ in range(50):
        assert set(rounds.round(0.1)) == {(1000, False)}


def test_rising_delay_slows_growth_to_a_quarter() -> None:
    """RFC 9406 §4.2: RttThresh above the last round's minimum, with eight samples."""
    rounds = Rounds()
    rounds.round(0.1)
    out = rounds.round(0.113)
    assert out[N_RTT_SAMPLE - 1] == (1000, False)
    assert out[N_RTT_SAMPLE] == (1000 // CSS_GROWTH_DIVISOR, False)
    assert rounds.hystart.conservative


def test_a_small_rise_is_none() -> None:
    """RFC 9406 §4.3: an eighth of the round trip, at least 4 ms and at most 16 ms."""
    for base, rise, ends in (
        (0.1, 0.0120, False), (0.1, 0.0126, True), (0.01, 0.0039, False), (0.01, 0.0041, True),
        (1.0, 0.0159, False), (1.0, 0.0161, True),
    ):  # fmt: skip
        rounds = Rounds()
        rounds.round(base)
        rounds.round(base + rise)
        assert rounds.hystart.conservative == ends


def test_few_samples_judge_nothing() -> None:
    """RFC 9406 §4.3: N_RTT_SAMPLE."""
    rounds = Rounds()
    rounds.round(0.1)
    rounds.round(0.5, acks=N_RTT_SAMPLE - 1)
    assert not rounds.hystart.conservative


def test_delay_that_stays_ends_slow_start() -> None:
    """RFC 9406 §4.2: after five rounds of Conservative Slow Start."""
    rounds = Rounds()
    rounds.round(0.1)
    rounds.round(0.12)
    over = []
    for _ in range(CSS_ROUNDS):
        assert not any(over)
        over = [done for _, done in rounds.round(0.125)]
    assert over[0]


def test_delay_that_falls_back_was_a_fluctuation() -> None:
    """RFC 9406 §4.2: back to slow start."""
    rounds = Rounds()
    rounds.round(0.1)
    rounds.round(0.12)
    assert rounds.hystart.conservative
    rounds.round(0.1)
    assert not rounds.hystart.conservative
    assert rounds.round(0.1)[0] == (1000, False)


def test_acknowledgments_without_a_sample_count_for_nothing() -> None:
    """RFC 6298 §3: what was sent twice."""
    rounds = Rounds()
    rounds.round(0.1)
    rounds.round(0.0)
    assert not rounds.hystart.conservative
