"""Many secondaries: each is looked at when its time has come, and not whenever another's has."""

from __future__ import annotations

import asyncio
import math
from random import Random

import pytest

from appliance.dns import LoadedZones, Zone, names
from appliance.dns.agenda import STALE, Agenda
from appliance.dns.authority import Authority, Options
from appliance.dns.errors import WireError
from appliance.dns.incoming import Incoming
from appliance.dns.secondary import Primary, Secondary
from appliance.dns.service import CONVERSATIONS, Service

ONE = Primary("192.0.2.1")


def version(origin: str) -> Zone:
    return Zone.from_text(
        f"$ORIGIN {origin}\n$TTL 60\n@ SOA ns h 1 7200 1800 1209600 60\n@ NS ns\nns A 192.0.2.1\n"
    )


def secondary(number: int) -> Secondary:
    origin = names.from_text(f"z{number}.test.")
    return Secondary(origin, (ONE,), random=Random(number))


def test_they_come_in_the_order_of_their_deadlines() -> None:
    agenda, some = Agenda(), [secondary(number) for number in range(5)]
    for number, one in enumerate(some):
        one.have(version(f"z{number}.test."), number * 10_000.0)
        agenda.plan(one)
    assert agenda.due(0.0) == []
    assert agenda.deadline() == some[0].deadline()
    assert agenda.due(18_000.0) == some[:2]
    assert agenda.due(18_000.0) == []  # until they are planned again
    some[4].ask_now(18_001.0)
    agenda.plan(some[4])
    some[2].confirmed(25_000.0)  # later than was planned
    agenda.forget(some[3])
    assert agenda.due(39_000.0) == [some[4], some[2]]
    assert agenda.deadline() == math.inf or agenda.due(1e9) == []


def test_what_is_out_of_date_is_forgotten() -> None:
    agenda, one = Agenda(), secondary(1)
    one.have(version("z1.test."), 1e6)
    for number in range(5000, 0, -1):
        one.ask_now(float(number))
        agenda.plan(one)
        assert len(agenda._heap) <= STALE + 2
    assert agenda.due(1.0) == [one]


class Quick(Service):
    """A service whose primaries have nothing."""

    talks = 0
    most = 0
    wanted = 1

    def __init__(self, server: Authority) -> None:
        super().__init__(server, random=Random(1))
        self.over = asyncio.Event()

    async def _converse(self, secondary: Secondary, primary: Primary, before: object) -> Incoming:
        self.talks += 1
        self.most = max(self.most, self._talking)
        if self.talks == self.wanted:
            self.over.set()
        await asyncio.sleep(0)
        raise WireError("the primary says REFUSED")


def test_conversations_look_at_no_other_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalog may bring 100,000 zones, of which some are due in each second."""
    looks = 0
    deadline, expired = Secondary.deadline, Secondary.expired

    def looked(self: Secondary) -> float:
        nonlocal looks
        looks += 1
        return deadline(self)

    def looked_too(self: Secondary, now: float) -> bool:
        nonlocal looks
        looks += 1
        return expired(self, now)

    monkeypatch.setattr(Secondary, "deadline", looked)
    monkeypatch.setattr(Secondary, "expired", looked_too)
    origins = [names.from_text(f"z{number}.test.") for number in range(500)]
    server = Authority(Options(secondaries=dict.fromkeys(origins, (ONE,))), random=Random(1))
    server.begin(LoadedZones((), ()))
    service = Quick(server)
    service.wanted = len(origins)

    async def run() -> None:
        await service.begin()
        await service.over.wait()
        await service.end()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert service.most == CONVERSATIONS
    assert looks < 20 * len(origins)


def test_a_zone_that_waits_for_its_turn_expires_in_time() -> None:
    now = 0.0
    server = Authority(
        Options(secondaries={names.from_text("z1.test."): (ONE,)}),
        random=Random(1),
        clock=lambda: now,
    )
    server.begin(LoadedZones((), ()))
    (one,) = server.secondaries.values()
    service = Quick(server)
    service._talking = CONVERSATIONS  # with primaries that say nothing
    server.follow(one, version("z1.test."))

    async def run() -> None:
        nonlocal now
        now = 1_209_599.0
        service._stir()
        assert one.queued
        assert one.zone is not None
        now = 1_209_600.0
        service._stir()
        assert one.zone is None
        service._talking = 0
        service._stir()
        await service.over.wait()
        assert not one.queued
        await service.end()

    asyncio.run(run())
    assert server.counters.zones_expired == 1
