"""Which SYNs of a flood are answered (RFC 4987)."""

from __future__ import annotations

from appliance.net.syn_budget import BURST, PERIOD, RATE, SynBudget


def flows(count: int, start: int = 0) -> list[bytes]:
    return [number.to_bytes(12) for number in range(start, start + count)]


def test_a_burst_is_answered_whole() -> None:
    budget = SynBudget()
    assert all(budget.admits(flow, 1.0) for flow in flows(int(BURST)))
    assert not budget.admits(b"one more", 1.0)


def test_the_rate_holds_under_any_flood() -> None:
    """Half of these come within a second; a few answers more are collisions."""
    budget = SynBudget()
    answered = sum(budget.admits(flow, i / 50_000) for i, flow in enumerate(flows(100_000)))
    assert 2 * RATE <= answered <= 2 * RATE + BURST + 100_000 * 0.25


def test_who_sends_again_is_answered() -> None:
    """RFC 6298 §2.1: a client repeats its SYN after a second, and then after two more."""
    budget = SynBudget()
    for i, flow in enumerate(flows(60_000, 1000)):
        budget.admits(flow, 1.0 + i / 60_000)
    client = b"a real client"
    while budget.admits(b"until empty", 2.0):
        client += b"'"
        if len(client) > 2000:
            break
    first = budget.admits(client, 2.0)
    assert first or budget.admits(client, 2.0)


def test_old_sights_are_forgotten() -> None:
    """Two tables of one period each: what was seen long ago does not count as a repetition."""
    budget = SynBudget()
    now = 1.0
    for flow in flows(int(BURST)):
        budget.admits(flow, now)
    assert not budget.admits(b"someone", now)
    for later in range(1, 4):
        at = now + later * (PERIOD + 1)
        for flow in flows(int(BURST), 10_000 * later):
            budget.admits(flow, at)
        budget.admits(b"turn the tables", at)
    assert not budget.admits(b"someone", now + 3 * (PERIOD + 1))
