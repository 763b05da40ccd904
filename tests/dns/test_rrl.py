"""Response rate limiting: the measure by itself, and what goes over the wire."""

from __future__ import annotations

import dns.edns
import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import Catalog, Counters
from appliance.dns.cookies import Cookies
from appliance.dns.edns import Extensions
from appliance.dns.rrl import DROP, SEND, SLIP, RateLimiter
from tests.dns.util import Reply, question, zone

A = "192.0.2.1"


def limiter(**how: object) -> RateLimiter:
    settings: dict[str, object] = {"rate": 10, "total": 1000, "burst": 1, "slip": 2, **how}
    return RateLimiter(b"key", **settings)  # type: ignore[arg-type]


def test_a_burst_and_then_the_rate() -> None:
    rate = limiter()
    # One second's worth may come at once, and the one that is due.
    assert [rate.judge(A, 7, 100.0) for _ in range(11)] == [SEND] * 11
    assert rate.judge(A, 7, 100.0) == DROP
    assert rate.judge(A, 7, 100.0) == SLIP
    sent = sum(rate.judge(A, 7, 100 + step / 100) == SEND for step in range(1, 1001))
    assert 99 <= sent <= 101
    assert [rate.judge(A, 7, 200.0) for _ in range(11)] == [SEND] * 11


def test_networks_and_kinds_are_apart() -> None:
    rate = limiter(rate=1, burst=0.1)
    assert rate.judge(A, 7, 1.0) == SEND
    assert rate.judge("192.0.2.200", 7, 1.0) != SEND
    assert rate.judge("192.0.3.1", 7, 1.0) == SEND
    assert rate.judge(A, 9, 1.0) == SEND
    assert rate.judge("2001:db8::1", 7, 1.0) == SEND
    assert rate.judge("2001:db8:0:ff::1", 7, 1.0) != SEND
    assert rate.judge("2001:db8:0:100::1", 7, 1.0) == SEND


def test_all_kinds_together_have_a_limit_too() -> None:
    """Names may be varied to get around the limit for each."""
    rate = limiter(rate=10, total=50)
    sent = sum(rate.judge(A, kind, 1.0) == SEND for kind in range(0, 1000, 2))
    assert sent in (50, 51)


@pytest.mark.parametrize(("slip", "expected"), [(0, {DROP}), (1, {SLIP})])
def test_slip(slip: int, expected: set[int]) -> None:
    rate = limiter(slip=slip, rate=1, burst=0)
    rate.judge(A, 1, 1.0)
    assert {rate.judge(A, 1, 1.0) for _ in range(10)} == expected


def test_exempt_networks_and_what_is_no_address() -> None:
    rate = limiter(rate=1, burst=0, exempt=["192.0.2.0/28", "2001:db8::/32"])
    for address in ("192.0.2.15", "2001:db8::1", "", "a pipe"):
        assert [rate.judge(address, 1, 1.0) for _ in range(50)] == [SEND] * 50
    rate.judge("192.0.2.16", 1, 1.0)
    assert rate.judge("192.0.2.16", 1, 1.0) != SEND


@pytest.mark.parametrize(
    "how", [{"rate": 0}, {"total": -1}, {"ipv4_prefix": 33}, {"exempt": ["x"]}, {"slip": -1}]
)
def test_senseless_settings(how: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"rates|prefixes|exempt"):
        limiter(**how)


@given(st.lists(st.tuples(st.floats(0, 0.3), st.integers(0, 3)), max_size=200))
def test_never_more_than_rate_and_burst(steps: list[tuple[float, int]]) -> None:
    rate = limiter(rate=5, total=8, burst=2)
    now = 50.0
    sent: list[tuple[float, int]] = []
    for step, kind in steps:
        now += step
        if rate.judge(A, kind << 1, now) == SEND:
            sent.append((now, kind))
    for start in range(len(sent)):
        for end in range(start, len(sent)):
            length = sent[end][0] - sent[start][0]
            part = [one for one in sent[start : end + 1] if one[1] == sent[start][1]]
            assert end - start + 1 <= 8 * (length + 2) + 1.001
            assert len(part) <= 5 * (length + 2) + 1.001


ZONE = zone(
    "a A 192.0.2.1\nbig TXT "
    + " ".join('"' + "x" * 200 + '"' for _ in range(5))
    + "\n*.w TXT "
    + " ".join('"' + "y" * 200 + '"' for _ in range(2))
    + "\nd DNAME w\n"
)


class Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


def catalog(extensions: Extensions | None = None) -> Catalog:
    return Catalog(
        [ZONE],
        limiter=limiter(rate=10, total=1000, burst=0.5),
        clock=Clock(),
        extensions=extensions,
        counters=Counters(),
    )


@pytest.mark.parametrize("how", [{}, {"use_edns": 0}, {"use_edns": 0, "payload": 4096}])
@pytest.mark.parametrize(
    ("name", "rdtype"),
    [
        ("a", "A"),
        ("big", "TXT"),
        ("%d.no", "A"),
        ("%d.w", "TXT"),
        ("%d.d", "TXT"),
        ("a", "AXFR"),
        ("a", "ANY"),
        ("no", "MX"),
    ],
)
def test_a_limited_client_gets_no_more_than_it_sends(
    how: dict[str, int], name: str, rdtype: str
) -> None:
    """No amplification above 1.0 once the limit is reached, whatever is asked and varied."""
    one = catalog()
    sent = received = slipped = 0
    for number in range(200):
        label = name % number if "%" in name else name
        wire = question(f"{label}.example.test.", rdtype, **how)
        answer = one.answer(wire, peer=(A, 53))
        if number < 20:
            continue  # the burst
        sent += len(wire)
        if answer is not None:
            received += len(answer)
            reply = Reply(answer)
            assert "TC" in reply.flags
            assert reply.kinds() == ([], [], [])
            assert answer[:2] == wire[:2]
            slipped += 1
    assert slipped == 90
    assert received <= sent / 2
    assert one.counters.rate_dropped >= 90
    assert one.counters.rate_slipped >= 90


def test_malformed_queries_are_limited_too() -> None:
    one = catalog()
    wire = question("a.example.test.") + b"junk"
    answers = [one.answer(wire, peer=(A, 53)) for _ in range(100)]
    assert 40 < answers.count(None) < 50
    assert all(len(answer) <= len(wire) for answer in answers if answer is not None)


def test_streams_and_good_cookies_are_not_limited() -> None:
    """RFC 7873 §1 and §5.2.5: whoever returns a cookie is at the address it claims."""
    extensions = Extensions(cookies=Cookies([bytes(16)]), clock=lambda: 1000.0)
    one = catalog(extensions)
    plain = question("a.example.test.")

    def cookied(data: bytes) -> bytes:
        options = [dns.edns.GenericOption(10, data)]
        return question("a.example.test.", use_edns=0, options=options)

    first = one.answer(cookied(b"12345678"), peer=(A, 53))
    assert first is not None
    full = dns.message.from_wire(first).options[0].to_wire() or b""
    for _ in range(100):
        one.answer(plain, peer=(A, 53))
    assert one.counters.rate_dropped > 40
    for _ in range(100):
        assert Reply(one.answer(cookied(full), peer=(A, 53))).answer
        assert Reply(one.answer(plain, peer=(A, 53), transport="tcp")).answer
    limited = [one.answer(cookied(b"12345678"), peer=(A, 53)) for _ in range(10)]
    assert limited.count(None) == 5
    assert one.answer(plain, peer=("198.51.100.1", 53)) is not None
