"""UDP and ICMP across the bad wire: a datagram comes as it was sent, or not at all."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from appliance.fuzz import Station
from tests.sim.network import SERVER, World
from tests.sim.test_transfer import LINK, WIRES

Source = tuple[str, int]


class Inbox:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, Source]] = []
        self.errors: list[OSError] = []

    def udp_datagram(self, data: bytes, source: Source) -> None:
        self.got.append((bytes(data), source))

    def udp_error(self, error: OSError) -> None:
        self.errors.append(error)


class Echo(Inbox):
    """Sends everything back."""

    def __init__(self, node: Station) -> None:
        super().__init__()
        self.socket = node.host.udp_bind("", 7, self)

    def udp_datagram(self, data: bytes, source: Source) -> None:
        super().udp_datagram(data, source)
        self.socket.send(data, source)


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("name", WIRES)
def test_datagrams_come_whole_or_not_at_all(name: str, offload: bool) -> None:
    """RFC 768, RFC 1122 §4.1.3.4: what fails its checksum is dropped."""
    generator = random.Random(1)
    world = World(1, WIRES[name], offload=offload)
    echo = Echo(world.server)
    inbox = Inbox()
    socket = world.client.host.udp_bind("", 0, inbox)
    sent = [generator.randbytes(generator.randint(0, 1472)) for _ in range(500)]
    for datagram in sent:
        socket.send(datagram, (SERVER, 7))
        world.run(seconds=0.001)
    world.run(seconds=5.0)
    assert {source for _, source in inbox.got} == {(SERVER, 7)}
    times = Counter(sent)
    for box in (echo, inbox):
        assert all(data in times for data, _ in box.got)
        if name in ("perfect", "jitter"):
            assert [data for data, _ in box.got] == sent
        if name in ("reordering", "perfect", "jitter", "slow"):
            assert not Counter(data for data, _ in box.got) - times
    if name in ("loss", "everything"):
        assert 200 < len({data for data, _ in inbox.got}) < 500
    if name in ("corruption", "everything"):
        counted = [node.host.counters for node in world.nodes]
        assert sum(c.udp_checksum + c.ip_checksum for c in counted) > 10


def test_too_long_is_refused_at_the_call() -> None:
    world = World(2, LINK)
    socket = world.client.host.udp_bind("", 0, Inbox())
    with pytest.raises(OSError, match="65507 fit"):
        socket.send(bytes(70_000), (SERVER, 7))


def test_nobody_at_the_port() -> None:
    """RFC 1122 §3.2.2.1, §4.1.3.3: port unreachable comes back, and is told."""
    world = World(3, LINK)
    inbox = Inbox()
    socket = world.client.host.udp_bind("", 0, inbox)
    socket.send(b"anyone?", (SERVER, 9))
    world.run(seconds=1.0)
    assert [type(error) for error in inbox.errors] == [ConnectionRefusedError]
    assert inbox.got == []


def test_nobody_at_the_address() -> None:
    """RFC 1122 §2.3.2.1 and §3.3.2: three questions, then the application hears of it."""
    world = World(4, LINK)
    inbox = Inbox()
    socket = world.client.host.udp_bind("", 0, inbox)
    socket.send(b"anyone?", ("10.0.0.99", 9))
    world.run(seconds=10.0)
    assert [error.strerror for error in inbox.errors] == ["No route to host"]


def test_errors_are_limited_in_rate() -> None:
    """RFC 1812 §4.3.2.8, RFC 1122 §3.2.2: a flood to closed ports is not answered by a flood."""
    world = World(5, replace(LINK, delay=0.0))
    inbox = Inbox()
    socket = world.client.host.udp_bind("", 0, inbox)
    for port in range(10_000, 15_000):
        socket.send(b"?", (SERVER, port))
        world.run(seconds=0.0)
    counters = world.server.host.counters
    assert counters.udp_no_port == 5_000
    assert 0 < counters.icmp_errors_out < 500
    assert counters.icmp_errors_out + counters.icmp_rate_limited == 5_000
