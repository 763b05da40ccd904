"""NOTIFY to secondaries (RFC 1996)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from types import SimpleNamespace
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import DnsNotifyProtocol, Notifier, Target, key
from appliance.dns import notify as notify_module
from appliance.dns.notify import FIRST, JITTER, TRIES
from tests.dns.test_protocol import FakeLoop
from tests.dns.util import zone

SECRET = b"0123456789abcdef0123456789abcdef"
KEY = key("n.example.", "hmac-sha256", SECRET)
THEIRS = dns.tsig.Key(dns.name.from_text("n.example."), SECRET, "hmac-sha256")
ONE = Target("192.0.2.1")
TWO = Target("2001:db8::2", 5353, KEY)


def notifier(*targets: Target) -> Notifier:
    import time

    return Notifier(default=targets, random=Random(1), wall=time.time)


def reply(message: bytes, rcode: int = 0) -> bytes:
    """What a secondary says."""
    query = dns.message.from_wire(message, keyring={THEIRS.name: THEIRS})
    answer = dns.message.make_response(query)
    answer.set_rcode(rcode)
    return answer.to_wire()


def test_rfc1996_3_7_what_is_said() -> None:
    """RFC 1996 §3.6, §3.7: opcode, AA, the zone's name, type SOA, the new SOA as a hint."""
    one = notifier(ONE)
    one.changed(zone(), 5.0)
    ((target, message),) = one.due(5.0)
    read = dns.message.from_wire(message)
    assert target == ONE
    assert read.opcode() == dns.opcode.NOTIFY
    assert read.flags & ~0x7800 == dns.flags.AA
    assert str(read.question[0]) == "example.test. IN SOA"
    assert str(read.answer[0]).startswith("example.test. 600 IN SOA ns1.example.test.")


def test_rfc1996_3_6_it_is_repeated_with_growing_pauses_and_given_up() -> None:
    """RFC 1996 §3.6: until an answer or the end of the tries."""
    one = notifier(ONE)
    one.changed(zone(), 0.0)
    times = []
    while (now := one.deadline()) < math.inf:
        times += [now] * len(one.due(now))
    assert len(times) == TRIES
    pauses = [after - before for before, after in pairwise(times)]
    for number, pause in enumerate(pauses):
        assert FIRST * 2**number <= pause <= FIRST * 2**number * (1 + JITTER)
    assert (one.heard, one.given_up) == (0, 1)


def test_an_answer_ends_it() -> None:
    one = notifier(ONE, TWO)
    one.changed(zone(), 0.0)
    (_, first), (_, second) = one.due(0.0)
    assert one.received(reply(first), ("192.0.2.1", 53))
    assert one.received(reply(second), ("2001:db8::2", 5353, 0, 0))
    assert one.deadline() == math.inf
    assert one.heard == 2


def test_rfc1996_4_7_a_refusal_ends_it_too() -> None:
    one = notifier(ONE)
    one.changed(zone(), 0.0)
    ((_, message),) = one.due(0.0)
    assert one.received(reply(message, dns.rcode.REFUSED), ("192.0.2.1", 53))
    assert (one.deadline(), one.heard, one.given_up) == (math.inf, 0, 1)


def test_what_is_no_answer_changes_nothing() -> None:
    one = notifier(ONE, TWO)
    one.changed(zone(), 0.0)
    (_, first), (_, second) = one.due(0.0)
    good = reply(first)
    assert not one.received(good, ("192.0.2.2", 53))
    assert not one.received(good, ("192.0.2.1", 54))
    assert not one.received(b"\0\0" + good[2:], ("192.0.2.1", 53))
    assert not one.received(good[:2] + b"\x84" + good[3:], ("192.0.2.1", 53))
    assert not one.received(first, ("192.0.2.1", 53))
    assert not one.received(good[:11], ("192.0.2.1", 53))
    # Unsigned, or signed with another key: not from the secondary that has the key.
    unsigned = dns.message.from_wire(second, keyring=False)
    unsigned.tsig = None
    unsigned.flags |= dns.flags.QR
    assert not one.received(unsigned.to_wire(), ("2001:db8::2", 5353))
    signed = reply(second)
    assert not one.received(signed[:-20] + b"x" + signed[-19:], ("2001:db8::2", 5353))
    assert one.received(signed, ("2001:db8::2", 5353))


@given(st.binary(max_size=80))
def test_any_octets_change_nothing(octets: bytes) -> None:
    one = notifier(ONE, TWO)
    one.changed(zone(), 0.0)
    ((_, first), _) = one.due(0.0)
    for message in (octets, first[:2] + b"\xa4\0" + octets, reply(first)[:12] + octets):
        assert not one.received(message, ("2001:db8::2", 5353))


def test_a_newer_version_replaces_the_word_about_the_older() -> None:
    one = notifier(ONE)
    one.changed(zone(), 0.0)
    ((_, before),) = one.due(0.0)
    one.changed(zone("a A 192.0.2.1"), 1.0)
    ((_, after),) = one.due(1.0)
    assert before[:2] != after[:2]
    assert not one.received(reply(before), ("192.0.2.1", 53))
    assert one.received(reply(after), ("192.0.2.1", 53))


def test_targets_by_zone_and_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Notifier({"Example.test": [TWO]}, [ONE], random=Random(1), wall=lambda: 0.0)
    one.changed(zone(), 0.0)
    one.changed(zone(origin="other.test."), 0.0)
    assert [target for target, _ in one.due(0.0)] == [TWO, ONE]
    monkeypatch.setattr(notify_module, "PENDING", 2)
    one.changed(zone(origin="third.test."), 0.0)
    assert one.given_up == 1
    assert len(one.due(100.0)) == 2


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLoop]:
    fake = FakeLoop()
    fake.call_at = lambda when, what: fake.call_later(when - fake.now, what)  # type: ignore[attr-defined]
    monkeypatch.setattr("appliance.dns.protocol.asyncio.get_running_loop", lambda: fake)
    yield fake
    assert fake.timers == []


def test_the_endpoint_sends_repeats_and_stops(loop: FakeLoop) -> None:
    sent: list[tuple[float, Any]] = []
    transport: Any = SimpleNamespace(sendto=lambda data, addr: sent.append((loop.now, addr)))
    protocol = DnsNotifyProtocol(notifier(ONE))
    protocol.changed(zone())
    assert sent == []
    protocol.connection_made(transport)
    assert sent == [(0.0, ("192.0.2.1", 53))]
    loop.advance(1000)
    assert len(sent) == TRIES
    messages: list[bytes] = []
    transport.sendto = lambda data, addr: messages.append(data)
    protocol.changed(zone())
    protocol.error_received(OSError())
    protocol.datagram_received(reply(messages[0]), ("192.0.2.1", 53))
    loop.advance(1000)
    assert len(messages) == 1
    protocol.connection_lost(None)


def test_many_zones_are_told_of_in_as_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a start all of them at once, and again one by one while a secondary is not there."""
    looks = 0
    at = notify_module._Word.__dict__["at"]

    class Watched(notify_module._Word):
        __slots__ = ()

        @property  # type: ignore[override]
        def at(self) -> float:
            nonlocal looks
            looks += 1
            value: float = at.__get__(self)
            return value

        @at.setter
        def at(self, value: float) -> None:
            at.__set__(self, value)

    monkeypatch.setattr(notify_module, "_Word", Watched)
    one = notifier(ONE)
    zones = [zone(origin=f"z{number}.test.") for number in range(1000)]
    for some in zones:
        one.changed(some, 0.0)
        assert len(one.due(0.0)) == 1
        one.deadline()
    sent = len(zones)
    while (now := one.deadline()) < math.inf:
        sent += len(one.due(now))
    assert sent == TRIES * len(zones)
    assert one.given_up == len(zones)
    assert looks < 20 * TRIES * len(zones)


def test_what_is_out_of_date_is_forgotten() -> None:
    """A zone may be changed a thousand times before its word's time has come."""
    one = notifier(ONE)
    for number in range(5000):
        one.changed(zone(), 0.0)
        assert len(one.due(0.0)) == 1
        assert len(one._agenda) <= 1 + notify_module.STALE
        if number % 1000 == 999:
            assert one.deadline() >= FIRST
    one.changed(zone(), 1.0)
    assert one.deadline() == 1.0
