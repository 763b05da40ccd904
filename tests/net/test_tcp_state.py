"""The table of states: complete, connected, and that of RFC 9293."""

from __future__ import annotations

import pytest

from appliance.net import tcp_state
from appliance.net.tcp_state import (
    ALLOWED,
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    LISTEN,
    NAMES,
    STEPS,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
    TRANSITIONS,
    allowed,
)

FIGURE_5 = {
    (CLOSED, LISTEN), (CLOSED, SYN_SENT), (LISTEN, SYN_RECEIVED), (LISTEN, SYN_SENT),
    (SYN_SENT, SYN_RECEIVED), (SYN_SENT, ESTABLISHED), (SYN_RECEIVED, ESTABLISHED),
    (SYN_RECEIVED, FIN_WAIT_1), (SYN_RECEIVED, LISTEN), (ESTABLISHED, FIN_WAIT_1),
    (ESTABLISHED, CLOSE_WAIT), (FIN_WAIT_1, FIN_WAIT_2), (FIN_WAIT_1, CLOSING),
    (FIN_WAIT_1, TIME_WAIT), (FIN_WAIT_2, TIME_WAIT), (CLOSE_WAIT, LAST_ACK),
    (CLOSING, TIME_WAIT), (LAST_ACK, CLOSED), (TIME_WAIT, CLOSED), (LISTEN, CLOSED),
    (SYN_SENT, CLOSED),
}  # fmt: skip


def test_every_arrow_of_the_figure_is_there() -> None:
    """RFC 9293 §3.3.2, figure 5."""
    assert FIGURE_5 <= ALLOWED


def test_the_bits_say_the_same() -> None:
    for source in range(len(NAMES)):
        allowed = {target for target in range(16) if STEPS[source] >> target & 1}
        assert allowed == {target for a, target in ALLOWED if a == source}


def test_what_the_figure_leaves_out_leads_to_closed() -> None:
    """RFC 9293 §3.10: reset, abort and timeout end every state."""
    assert {target for _, target in ALLOWED - FIGURE_5} == {CLOSED}
    assert {source for source, target in ALLOWED if target == CLOSED} == set(range(11)) - {CLOSED}


def test_names_are_those_of_the_rfc() -> None:
    """RFC 9293 §3.3.2."""
    assert len(NAMES) == len(set(NAMES)) == 11
    assert NAMES[ESTABLISHED] == "ESTABLISHED"
    assert NAMES[FIN_WAIT_2] == "FIN-WAIT-2"
    numbers = [getattr(tcp_state, name.replace("-", "_")) for name in NAMES]
    assert numbers == list(range(11))


def test_every_state_can_be_reached_and_left() -> None:
    """A diagram without islands and dead ends."""
    reached = {CLOSED}
    while more := {t for s, t in ALLOWED if s in reached} - reached:
        reached |= more
    assert reached == set(range(11))
    assert {s for s, _ in ALLOWED} == set(range(11))


@pytest.mark.parametrize(
    ("source", "target"),
    [(CLOSED, ESTABLISHED), (ESTABLISHED, LISTEN), (TIME_WAIT, ESTABLISHED), (LAST_ACK, TIME_WAIT)],
)
def test_what_cannot_be(source: int, target: int) -> None:
    """RFC 9293 §3.3.2."""
    assert not allowed(source, target)


def test_rows_say_why() -> None:
    """The picture in the documentation is drawn from these words."""
    assert all(row.event for row in TRANSITIONS)
    assert len({row[:2] for row in TRANSITIONS}) == len(TRANSITIONS)
