"""How long a link is left alone: senders that wait for answers, and such that do not."""

from __future__ import annotations

import pytest

from appliance.net.transport_pause import AGAIN, CROWD, FAST, GAP, LONG, SHORT, TRIAL, Pauses

SLACK = 50e-6  # seconds that Linux sleeps longer
WAKING = 40e-6  # seconds of a turn, whatever it brings
ANSWERING = 2e-6  # seconds of a turn for each datagram
ASKING = 4e-6  # seconds that a sender takes for each
FULL = 64  # datagrams in a turn


class Steady:
    """Senders that do not wait for answers: so many datagrams a second."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._due = now

    def sent(self, now: float) -> int:
        count = max(int((now - self._due) * self._rate), 0)
        self._due += count / self._rate
        return count

    def answered(self, count: int, now: float) -> None:
        pass


class Waiting:
    """A sender that has so many questions under way, and asks one for each answer that it reads."""

    def __init__(self, count: int, now: float) -> None:
        self._answers = count  # to be read
        self._free = now

    def sent(self, now: float) -> int:
        count = max(min(self._answers, int((now - self._free) / ASKING)), 0)
        self._answers -= count
        self._free += count * ASKING
        return count

    def answered(self, count: int, now: float) -> None:
        if not self._answers:
            self._free = now
        self._answers += count


class Line:
    """A server in turns, in virtual time; `fixed` is its pause, whatever `pauses` says."""

    def __init__(self, fixed: float | None = None) -> None:
        self.pauses = Pauses()
        self.now = 1000.0
        self._fixed = fixed

    def run(self, senders: Steady | Waiting, seconds: float) -> tuple[float, float]:
        """Datagrams a second, and in a turn."""
        end, began = self.now + seconds, self.now
        waiting = turns = total = 0
        while self.now < end:
            waiting += senders.sent(self.now)
            if not waiting:
                self.now += 1e-6
                continue
            datagrams = min(waiting, FULL)
            waiting -= datagrams
            turns += 1
            total += datagrams
            pause = self.pauses.after(datagrams, datagrams, datagrams == FULL, self.now)
            if self._fixed is not None and pause:
                pause = self._fixed
            self.now += WAKING + datagrams * ANSWERING
            senders.answered(datagrams, self.now)
            self.now += pause + SLACK if pause else 0.0
        return total / (self.now - began), total / turns

    def waiting(self, count: int, seconds: float) -> tuple[float, float]:
        return self.run(Waiting(count, self.now), seconds)

    def steady(self, rate: float, seconds: float) -> tuple[float, float]:
        return self.run(Steady(rate, self.now), seconds)


TRIED = 2 * TRIAL + 0.01  # seconds after which a trial is over


def test_who_does_not_wait_for_answers_is_left_alone_for_longer() -> None:
    line = Line()
    line.steady(200_000, TRIED)
    assert line.pauses.pause == LONG
    rate, size = line.steady(200_000, 0.5)
    assert rate == pytest.approx(200_000, rel=0.01)
    assert size > 1.8 * Line(SHORT).steady(200_000, 0.5)[1]


def test_a_few_who_wait_are_not_held_up() -> None:
    line = Line()
    line.waiting(16, TRIED)
    assert line.pauses.pause == SHORT
    assert line.waiting(16, 0.5)[0] > 1.3 * Line(LONG).waiting(16, 0.5)[0]


def test_many_who_wait_are_left_alone_for_longer() -> None:
    """Who has two hundred under way still reads answers when the next ones are made."""
    line = Line()
    line.waiting(200, TRIED)
    assert line.pauses.pause == LONG
    assert line.waiting(200, 0.5)[0] > 0.99 * Line(SHORT).waiting(200, 0.5)[0]


def test_senders_change_and_are_tried_again() -> None:
    line = Line()
    line.waiting(16, TRIED)
    line.steady(200_000, AGAIN / 2)
    assert line.pauses.pause == SHORT
    line.steady(200_000, AGAIN / 2 + TRIED)
    assert line.pauses.pause == LONG
    line.waiting(16, AGAIN + TRIED)
    assert line.pauses.pause == SHORT


@pytest.mark.parametrize(("rate", "pause"), [(0.9 * FAST, SHORT), (1.1 * FAST, LONG)])
def test_a_server_with_time_to_spare_answers_soon(rate: float, pause: float) -> None:
    pauses, now = Pauses(), 1000.0
    while now < 1000.0 + TRIED:
        pauses.after(CROWD, CROWD, False, now)
        now += CROWD / rate
    assert pauses.pause == pause


@pytest.mark.parametrize("silent_at", [TRIAL / 2, 3 * TRIAL / 2])
def test_a_long_silence_is_not_held_against_a_pause(silent_at: float) -> None:
    """As many come with both, but nobody asked for a second while one of them was being tried."""
    pauses, now, silent = Pauses(), 1000.0, False
    end = now + 2 * TRIAL + 0.01
    while now < end:
        pauses.after(2 * CROWD, 2 * CROWD, False, now)
        now += 0.0001
        if not silent and now > 1000.0 + silent_at:
            silent = True
            now, end = now + 1.0, end + 1.0
    assert pauses.pause == LONG
    assert 10 * GAP < TRIAL  # so that one silence is less than what is counted as a difference


@pytest.mark.parametrize(
    ("datagrams", "frames", "full", "pause"),
    [
        (CROWD, CROWD, False, SHORT),
        (CROWD - 1, CROWD - 1, False, 0.0),  # few at a time are not kept waiting
        (CROWD, 2 * CROWD, False, 0.0),  # segments, whose senders wait for acknowledgments
        (FULL, FULL, True, 0.0),  # a full turn could not be fuller
    ],
)
def test_there_is_a_pause_for_a_crowd(
    datagrams: int, frames: int, full: bool, pause: float
) -> None:
    assert Pauses().after(datagrams, frames, full, 0.0) == pause
