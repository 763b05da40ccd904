"""Routers between simulated networks: prefixes, hops, path MTU, neighbours, and what is told."""

from __future__ import annotations

import tomllib
from collections.abc import Callable

import pytest

from appliance.fuzz import Link, Router, World, invent, run
from appliance.fuzz.run import Outcome
from appliance.fuzz.scenario import ScenarioError, dump, from_table
from appliance.fuzz.script import packets
from appliance.fuzz.world import Station
from appliance.net.vif.offload import NETWORK_AT
from appliance.net.wire import ethernet
from appliance.net.wire.address import from_text
from appliance.net.wire.virtio import PLAIN
from tests.fuzz.test_world import Talker

Make = Callable[..., World]
SAYS = bytes(range(256)) * 200


def two_networks(
    world: World, *, six: bool = False, mtu: int = 1500, offload: bool = False, signals: bool = True
) -> tuple[Station, Station, Router, Router]:
    """A client, two routers with a narrow link between them, a server."""
    net = "fd00:{}::{}/64" if six else "10.0.{}.{}/24"
    client = world.host("client", net.format(1, 1), offload=offload)
    server = world.host("server", net.format(2, 1), offload=offload)
    near, far = world.router("near"), world.router("far")
    near.signals = far.signals = signals
    world.link(client, near.port(net.format(1, 254)), Link(delay=0.001))
    narrow = [router.port(net.format(9, n), mtu=mtu) for n, router in enumerate((near, far), 1)]
    world.link(narrow[0], narrow[1], Link(delay=0.01))
    world.link(far.port(net.format(2, 254)), server, Link(delay=0.001))
    near.route("fd00:2::/64" if six else "10.0.2.0/24", net.format(9, 2).partition("/")[0])
    far.route("::/0" if six else "0.0.0.0/0", net.format(9, 1).partition("/")[0])
    client.via(net.format(1, 254).partition("/")[0])
    server.via(net.format(2, 254).partition("/")[0])
    return client, server, near, far


def talk(world: World, client: Station, server: Station) -> Talker:
    listener = Talker(SAYS)
    server.host.tcp_listen("", 80, listener.meet)
    talker = Talker(SAYS)
    talker.connection = client.host.tcp_connect(server.address, 80, talker)
    world.run(lambda: bool(talker.closed and listener.closed), seconds=60.0)
    assert talker.closed == listener.closed == [None]
    assert talker.heard == listener.heard == SAYS
    return listener


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("offload", [False, True])
def test_a_narrow_link_in_the_middle(world: Make, six: bool, offload: bool) -> None:
    """RFC 1191 §3, RFC 8201 §4: the router tells, and segments become as long as fits."""
    net = world(seed=5)
    client, server, near, far = two_networks(net, six=six, mtu=1300, offload=offload)
    listener = talk(net, client, server)
    assert near.counters["too_big"] > 0
    assert far.counters["too_big"] > 0
    headers = 40 if six else 20
    assert listener.connection.mss == 1300 - headers - 20 - 12
    assert not near.counters["malformed"] + near.counters["dropped"] + near.counters["unroutable"]


def test_a_wide_link_changes_nothing(world: Make) -> None:
    net = world(seed=5)
    client, server, near, far = two_networks(net)
    talk(net, client, server)
    assert not near.counters["too_big"] + near.counters["fragmented"] + far.counters["too_big"]
    assert client.host.counters.tcp_retransmitted == 0


class Asker:
    """A UDP socket that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.errors: list[OSError] = []

    def udp_datagram(self, data: bytes, source: tuple[str, int]) -> None:
        self.heard.append(data)

    def udp_error(self, error: OSError) -> None:
        self.errors.append(error)


def ask(world: World, client: Station, there: str, octets: int) -> Asker:
    asker = Asker()
    socket = client.host.udp_bind("", 0, asker)
    socket.send(bytes(octets), (there, 53))
    client.host.flush(client.now)
    world.run(seconds=10.0)
    return asker


def test_what_may_be_cut_is_cut(world: Make) -> None:
    """RFC 791 §3.2: a datagram without DF, a fragment of one as well, arrives in pieces, whole."""
    net = world(seed=5)
    client, server, near, _ = two_networks(net, mtu=600)
    heard = Asker()
    server.host.udp_bind("", 53, heard)
    ask(net, client, server.address, 4_000)
    assert [len(data) for data in heard.heard] == [4_000]
    assert near.counters["fragmented"] == 3


def errors_to(station: Station) -> list[tuple[int, int]]:
    """Type and code of each ICMP error that a host will be given from now on."""
    told: list[tuple[int, int]] = []

    def watch(_: float, sent: bool, frame: bytes) -> None:
        packet = frame[NETWORK_AT:]
        if frame[22:24] != b"\x08\x06" and not sent:
            head = packets.read(packet)
            if packets.is_icmp_error(packet, head):
                told.append(packets.icmp_told(packet, head))

    station.port.watchers.append(watch)
    return told


@pytest.mark.parametrize("six", [False, True])
def test_a_router_answers_echo_requests(world: Make, six: bool) -> None:
    """RFC 1812 §4.3.3.6, RFC 4443 §4.2: also those that come from another network."""
    net = world(seed=5)
    client, *_ = two_networks(net, six=six)
    heard: list[float] = []
    there = "fd00:9::2" if six else "10.0.9.2"
    source = client.address
    kind = 128 if six else 8
    echo = packets.icmp(from_text(source), from_text(there), kind, 0, 7 << 16, b"ping")

    def watch(now: float, sent: bool, frame: bytes) -> None:
        if not sent and frame.endswith(b"ping"):
            heard.append(now)

    client.port.watchers.append(watch)
    link = client.host.links[0]
    gateway = net._beside[id(client)][0]
    ethertype = 0x86DD if six else 0x0800
    frame = PLAIN + ethernet.header(gateway.port.mac, link.mac, ethertype) + echo
    start = net.now
    client.port.send(frame)
    net.run(lambda: bool(heard), seconds=5.0)
    # There and back, and once more for the question who has the next address.
    assert round(heard[0] - start, 6) == 0.042


@pytest.mark.parametrize("six", [False, True])
def test_packets_in_a_ring_grow_old(world: Make, six: bool) -> None:
    """RFC 1812 §5.3.1, RFC 8200 §3: the last hop is counted; who sent is told."""
    net = world(seed=5)
    client, _, near, far = two_networks(net, six=six)
    away = "fd00:77::1" if six else "10.0.77.1"
    prefix = "fd00:77::/64" if six else "10.0.77.0/24"
    near.route(prefix, "fd00:9::2" if six else "10.0.9.2")
    before = near.counters["forwarded"] + far.counters["forwarded"]
    told = errors_to(client)
    ask(net, client, away, 10)
    assert near.counters["expired"] + far.counters["expired"] == 1
    hops = near.counters["forwarded"] + far.counters["forwarded"] - before
    assert hops >= 63
    assert told == [(3, 0) if six else (11, 0)]


@pytest.mark.parametrize("six", [False, True])
def test_nowhere_and_nobody(world: Make, six: bool) -> None:
    """RFC 1812 §5.2.7.1, RFC 4443 §3.1: no route, and no neighbour after three questions."""
    net = world(seed=5)
    client, _, near, far = two_networks(net, six=six)
    told = errors_to(client)
    ask(net, client, "fd00:5::1" if six else "10.0.5.1", 10)
    assert near.counters["unroutable"] == 1
    ask(net, client, "fd00:2::77" if six else "10.0.2.77", 10)
    assert far.counters["unresolved"] == 1
    assert told == ([(1, 0), (1, 3)] if six else [(3, 0), (3, 1)])


def test_a_black_hole_is_found_out(world: Make) -> None:
    """RFC 8899: a router that says nothing."""
    net = world(seed=5)
    client, server, near, _ = two_networks(net, mtu=1200, signals=False)
    talk(net, client, server)
    assert near.counters["too_big"] > 0


def test_the_longest_prefix(world: Make) -> None:
    net = world(seed=5)
    router = net.router()
    one, other = router.port("10.0.1.254/24"), router.port("10.0.2.254/24")
    router.route("10.0.0.0/8", "10.0.1.1")
    router.route("10.9.0.0/16", "10.0.2.1")
    for there, port in (((10, 9, 1, 1), other), ((10, 8, 1, 1), one), ((10, 0, 2, 9), other)):
        found = router._lookup(bytes(there))
        assert found is not None
        assert found[0] is port
    assert router._lookup(bytes((192, 0, 2, 1))) is None
    with pytest.raises(ValueError, match="on none of"):
        router.route("192.0.2.0/24", "10.77.0.1")
    with pytest.raises(ValueError, match="not appear"):
        router.port("somewhere")


# ---------------------------------------------------------------------- in scenarios


@pytest.mark.parametrize("ip", [4, 6])
def test_a_scenario_with_a_narrow_middle(scenario: Callable[..., Outcome], ip: int) -> None:
    """RFC 1191, RFC 8201: both ends hear of it, and every rule holds."""
    outcome = scenario(
        ip=ip,
        link={"delay": 0.01},
        middle={"mtu": 1280, "link": {"delay": 0.02, "rate": 1e7}},
        flow=[{"client": {"sends": 100_000}, "server": {"sends": 100_000}}],
    )
    assert outcome.errors == {}
    assert outcome.counters["tcp_retransmitted"] > 0
    wide = scenario(
        ip=ip,
        link={"delay": 0.01},
        middle={"link": {"delay": 0.02}},
        flow=[{"client": {"sends": 100_000}}],
        expect={"retransmissions": 0},
    )
    assert wide.packets > 0


def test_a_router_that_says_nothing(scenario: Callable[..., Outcome]) -> None:
    """RFC 8899 §4: a black hole is found out, or the connection gives up."""
    scenario(middle={"mtu": 1000, "signal": False}, flow=[{"client": {"sends": 20_000}}])


def test_some_invented_scenarios_have_one() -> None:
    chosen = [seed for seed in range(300) if invent.scenario(seed).middle is not None]
    assert 15 < len(chosen) < 60
    for seed in chosen[:6]:
        outcome = run.run(invent.scenario(seed))
        assert outcome.findings == [], f"seed {seed}"
        again = from_table(tomllib.loads(dump(outcome.scenario)))
        assert again == outcome.scenario


def test_narrow_middles_of_ipv6_do_not_exist() -> None:
    """RFC 8200 §5."""
    with pytest.raises(ScenarioError, match=r"middle\.mtu: IPv6 has no links below 1280"):
        from_table({"ip": 6, "middle": {"mtu": 1279}})
