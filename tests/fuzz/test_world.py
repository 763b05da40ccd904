"""Worlds: time that jumps, hosts that meet, and the same seed on every machine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.fuzz import Link, LivelockError, World, invent, run
from appliance.fuzz.world import Station
from appliance.net.tcp import Connection

Make = Callable[..., World]


class Talker:
    """Says its piece, keeps what it hears, ends when the other end does."""

    def __init__(self, says: bytes = b"") -> None:
        self.says = says
        self.heard = b""
        self.closed: list[Exception | None] = []
        self.connection: Connection

    def meet(self, connection: Connection) -> Talker:
        self.connection = connection
        return self

    def tcp_established(self) -> None:
        self.connection.send(self.says)
        if self.says:
            self.connection.shutdown()

    def tcp_data(self, data: bytes) -> None:
        self.heard += data

    def tcp_eof(self) -> None:
        self.connection.shutdown()

    def tcp_writable(self) -> None: ...

    def tcp_closed(self, error: Exception | None) -> None:
        self.closed.append(error)


def talk(world: World, client: Station, server: Station, says: bytes) -> Talker:
    """Let `client` say something to `server`; the server's end comes back."""
    listener = Talker()
    server.host.tcp_listen("", 80, listener.meet)
    talker = Talker(says)
    talker.connection = client.host.tcp_connect(server.address, 80, talker)
    world.run(lambda: bool(talker.closed and listener.closed))
    return listener


def test_ten_lines(world: Make) -> None:
    """What the page on testing shows."""
    net = world()
    client, server = net.host("client"), net.host("server")
    net.link(client, server, Link(delay=0.05, loss=0.05))
    assert talk(net, client, server, b"hello" * 10_000).heard == b"hello" * 10_000
    assert client.host.counters.tcp_retransmitted > 0


def test_over_ipv6(world: Make) -> None:
    """RFC 8200, RFC 4861, RFC 8201: found by discovery, and cut to what the path carries."""
    net = world()
    client, server = net.host("client", "fd00::1/64"), net.host("server", "fd00::2/64")
    cable = net.link(client, server, Link(delay=0.05, loss=0.03, corrupt=0.02, mtu=1300))
    assert talk(net, client, server, b"hello" * 20_000).heard == b"hello" * 20_000
    assert cable.there.corrupted > 0
    assert cable.there.too_big > 0
    assert client.host.counters.tcp_path_mtu_reduced == 1


def test_a_switch_between_many(world: Make) -> None:
    net = world()
    switch = net.switch()
    hosts = [net.host(f"host{n}") for n in range(5)]
    for one in hosts:
        net.link(one, switch, Link(delay=0.01))
    for one in hosts[1:]:
        one_heard = talk(net, one, hosts[0], one.name.encode()).heard
        assert one_heard == one.name.encode()
        for listener in list(hosts[0].host.tcp._listeners.values()):
            listener.close()
    # Learnt, not flooded: of the last talk the others heard nothing.
    idle = hosts[1].host.counters.ethernet_not_ours
    hosts[4].host.tcp_connect(hosts[0].address, 81, Talker())
    net.run(seconds=1.0)
    assert hosts[1].host.counters.ethernet_not_ours == idle


def test_asymmetric_paths(world: Make) -> None:
    net = world()
    client, server = net.host("client"), net.host("server")
    cable = net.link(client, server, Link(delay=0.2), Link(delay=0.01, duplicate=0.5))
    talk(net, client, server, bytes(100_000))
    assert cable.there.duplicated == 0 < cable.back.duplicated


@pytest.mark.parametrize("clock", [-10_000.0, -1.0, 0.001, 86_400.0])
def test_clocks_may_differ(world: Make, clock: float) -> None:
    net = world()
    client, server = net.host("client"), net.host("server", clock=clock)
    net.link(client, server, Link(delay=0.01, loss=0.1))
    assert talk(net, client, server, bytes(50_000)).heard == bytes(50_000)
    assert server.now - client.now == pytest.approx(clock)


def test_misuse_is_told_at_the_call() -> None:
    net = World()
    one, other = net.host("one"), net.host("other")
    net.link(one, other, Link())
    with pytest.raises(ValueError, match="already"):
        net.host("one")
    with pytest.raises(ValueError, match="connected"):
        net.link(one, net.host("third"), Link())
    with pytest.raises(ValueError, match="behind"):
        net.host("late", clock=-1e9)


def test_time_that_stands_still_is_an_error() -> None:
    net = World()

    def again() -> None:
        net.at(net.now, again)

    again()
    with pytest.raises(LivelockError):
        net.run()


def test_run_stops_when_it_is_told_to() -> None:
    net = World()
    seen: list[float] = []
    start = net.now
    for n in (1, 2, 3):
        net.after(n, lambda: seen.append(net.now - start))
    assert net.run(lambda: len(seen) == 2)
    assert seen == [1.0, 2.0]
    assert not net.run(lambda: False, seconds=0.5)
    assert net.now - start == 2.5
    assert not net.run(lambda: len(seen) == 9)
    assert seen == [1.0, 2.0, 3.0]


SEEDS = (3, 14, 15, 92)
DIGESTS = """
import sys
from appliance.fuzz import invent, run
for seed in map(int, sys.argv[1:]):
    print(run.run(invent.scenario(seed)).digest)
"""


def test_the_same_seed_gives_the_same_packets() -> None:
    """Octet for octet and time for time, in another process with other hash seeds."""
    here = [run.run(invent.scenario(seed)).digest for seed in SEEDS]
    assert len(set(here)) == len(SEEDS)
    words = [sys.executable, "-c", DIGESTS, *map(str, SEEDS)]
    root = str(Path(__file__).parents[2])
    there = subprocess.run(
        words,
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONHASHSEED": "12345", "PYTHONPATH": root},
    ).stdout.split()
    assert here == there
    assert here[0] != hashlib.sha256(b"").hexdigest()
