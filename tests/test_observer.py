"""What operators are told of a running appliance: of all its workers, whatever its clock does."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.dns.counters import Counters
from appliance.parts.observer import Observer
from appliance.tls.counters import TlsCounters


@pytest.fixture
def observer() -> Observer:
    """Of an appliance that does nothing."""
    stack: Any = SimpleNamespace(
        host=SimpleNamespace(tcp=SimpleNamespace(flows={})),
        counters=SimpleNamespace(as_dict=dict),
    )
    taster: Any = SimpleNamespace(
        tick=lambda: None, names=SimpleNamespace(most_common=lambda _: [])
    )
    return Observer(stack, [], Counters(), taster)


def samples(observer: Observer, family: str, label: str) -> dict[str, float]:
    found = {one.name: one for one in observer.collect()}
    return {sample.labels[label]: sample.value for sample in found[family].samples}


def test_handshakes_are_those_of_all_workers(observer: Observer) -> None:
    ours, theirs = TlsCounters(), TlsCounters()
    for counters, count in ((ours, 1), (theirs, 10)):
        counters.accepted, counters.tls13, counters.resumed = 3 * count, 2 * count, count
        for _ in range(count):
            counters.failed("no shared cipher")
    theirs.failed("bad certificate")
    certificates: Any = SimpleNamespace(counters=ours, days_left=list)
    observer.certificates = lambda: certificates
    observer.others = lambda: [{"tls": dict(theirs.as_dict())}, {"net": {}}]
    assert samples(observer, "appliance_tls_handshakes", "version") == {"1.2": 0, "1.3": 22}
    assert samples(observer, "appliance_tls_failures", "reason") == {
        "no shared cipher": 11,
        "bad certificate": 1,
    }
    events = samples(observer, "appliance_tls_events", "event")
    assert (events["accepted"], events["resumed"]) == (33, 11)
    assert set(events) == set(ours.events())


def test_a_clock_that_is_set_makes_nobody_older(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine's is, soon after its boot; the beginning stays the same while it merely drifts."""
    now, wall = time.monotonic(), time.time()

    def told() -> tuple[float, float]:
        found = {one.name: one for one in observer.collect()}
        [sample] = found["appliance_start_time_seconds"].samples
        uptime = json.loads(observer.status(time.monotonic()))["uptime"]
        return sample.value, uptime

    before, _ = told()
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    for drift in (0.0, 1.0):
        monkeypatch.setattr(time, "time", lambda by=drift: wall + 100 + by)
        assert told()[0] == before
    monkeypatch.setattr(time, "time", lambda: wall + 1e9)
    began, uptime = told()
    assert abs(began - (wall + 1e9 - 100)) < 5
    assert 95 < uptime < 105
