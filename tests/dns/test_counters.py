"""What is counted: queries by transport, and how that is shown."""

from __future__ import annotations

import json
import pickle
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.dns import Catalog, DnsDatagramProtocol, LoadedZones
from appliance.dns.authority import Authority, Options
from appliance.parts.observer import Observer
from tests.dns.test_protocol import Stream, framed, numbered
from tests.dns.util import question, zone

A = question("a.example.test.")


def server() -> Authority:
    one = Authority(Options(), random=Random(1))
    one.begin(LoadedZones((zone("a A 192.0.2.1"),), ()))
    return one


def ask_by_every_way(one: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """One over UDP, two over TCP, three over TLS, four over HTTPS."""
    DnsDatagramProtocol(one).answer_datagram(A, ("192.0.2.9", 1))
    for kind, count in (("tcp", 2), ("tls", 3)):
        stream = Stream(monkeypatch, kind=kind)
        stream.protocol._holder = one
        stream.protocol.data_received(framed(*numbered(count, A)))
        assert len(stream.replies()) == count
    for _ in range(4):
        assert one.answer_http(A, ("192.0.2.9", 0)) is not None


def test_a_catalog_out_of_an_image_answers_and_counts_as_before() -> None:
    """Compiled classes are pickled as they say themselves; answers of a type share one number."""
    before = Catalog([zone("a A 192.0.2.1\nb A 192.0.2.2\n*.w A 192.0.2.3")])
    after: Catalog = pickle.loads(pickle.dumps(before, protocol=5))
    for name in ("a", "b", "x.w", "none"):
        asked = question(f"{name}.example.test.")
        assert after.answer(asked) == after.answer(asked) == before.answer(asked) is not None
    found = after.counters.as_dict()
    assert (found["hot"], found["type_a"], found["rcode_nxdomain"]) == (4, 8, 2)


def test_each_transport_has_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7858 and RFC 8484 are transports of their own, beside RFC 1035 §4.2's two."""
    one = server()
    ask_by_every_way(one, monkeypatch)
    found = one.counters.as_dict()
    assert [found[f"{kind}_queries"] for kind in ("udp", "tcp", "tls", "https")] == [1, 2, 3, 4]
    assert found["rcode_noerror"] == 10


def test_transports_in_metrics_and_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    one = server()
    ask_by_every_way(one, monkeypatch)
    stack: Any = SimpleNamespace(
        host=SimpleNamespace(tcp=SimpleNamespace(flows={})),
        counters=SimpleNamespace(as_dict=dict),
    )
    taster: Any = SimpleNamespace(
        tick=lambda: None, names=SimpleNamespace(most_common=lambda _: [])
    )
    observer = Observer(stack, [], one.counters, taster)
    families = {family.name: family for family in observer.collect()}
    told = {x.labels["transport"]: x.value for x in families["appliance_dns_queries"].samples}
    assert told == {"udp": 1, "tcp": 2, "tls": 3, "https": 4}
    events = {x.labels["event"] for x in families["appliance_dns_events"].samples}
    assert not any(event.endswith("_queries") for event in events)
    assert "updates_forwarded" in events
    observer.tick(1.0)
    [sample] = json.loads(observer.status(1.0))["samples"]
    assert sample["dns"] == 10
    assert [sample[f"dns_{kind}"] for kind in ("udp", "tcp", "tls", "https")] == [1, 2, 3, 4]
