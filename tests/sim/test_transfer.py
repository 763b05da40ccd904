"""Every octet across a bad wire, compared: two hosts, one seed, virtual time.

RFC 9293 §1: TCP provides a reliable, in-order octet stream. Loss, reordering, duplication and
corruption may cost time, and nothing else.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from appliance.fuzz import Link
from appliance.net.tcb import TcpSettings
from tests.sim.network import Peer, World, exchange, pieces

LINK = Link(delay=0.01)
WIRES = {
    "perfect": LINK,
    "loss": replace(LINK, loss=0.1),
    "reordering": replace(LINK, reorder=0.2, reorder_by=0.03),
    "duplication": replace(LINK, duplicate=0.2),
    "corruption": replace(LINK, corrupt=0.1),
    "jitter": replace(LINK, jitter=0.05),
    "slow": replace(LINK, rate=2e6, queue=30_000),
    "everything": replace(
        LINK, loss=0.1, reorder=0.1, reorder_by=0.03, duplicate=0.1, corrupt=0.05, jitter=0.01
    ),
}
OCTETS = 200_000


def run_both_ways(
    seed: int,
    wire: Link,
    *,
    offload: bool = True,
    total: int = OCTETS,
    largest: int = 20_000,
    settings: TcpSettings | None = None,
    mtu: int = 1500,
) -> tuple[World, Peer, Peer]:
    """Send `total` octets each way at once, check both ends, and let everything end."""
    generator = random.Random(seed)
    world = World(seed, wire, offload=offload, mtu=mtu)
    client = Peer(pieces(generator, total, largest))
    server = Peer(pieces(generator, total, largest))
    exchange(world, client, server, settings=settings)
    world.run(lambda: bool(client.closed and server.closed), seconds=900.0)
    check(client, server)
    world.settle()
    assert world.connections() == []
    return world, client, server


def check(client: Peer, server: Peer) -> None:
    """Both streams arrived whole, were ended once, and both ends heard how it went once."""
    assert bytes(server.got) == client.expected
    assert bytes(client.got) == server.expected
    for peer in (client, server):
        assert peer.established == 1
        assert peer.eof
        assert peer.closed == [None]


@pytest.mark.parametrize("offload", [True, False], ids=["super-segments", "segments"])
@pytest.mark.parametrize("name", WIRES)
def test_every_octet_arrives(name: str, offload: bool) -> None:
    done: Counter[str] = Counter()
    for seed in range(3):
        world, _, _ = run_both_ways(seed + 10, WIRES[name], offload=offload)
        for way in (world.wire.there, world.wire.back):
            done.update({kind: getattr(way, kind) for kind in way.__slots__})
    # The wire did what it was told: a test that impairs nothing shows nothing.
    told = {
        "loss": "lost",
        "reordering": "reordered",
        "duplication": "duplicated",
        "corruption": "corrupted",
    }
    for kind in told.values() if name == "everything" else [told[name]] if name in told else []:
        assert done[kind]


@pytest.mark.parametrize("seed", range(20))
def test_many_seeds_of_everything(seed: int) -> None:
    run_both_ways(1000 + seed, WIRES["everything"], offload=bool(seed & 1), total=60_000)


@pytest.mark.parametrize("mtu", [296, 576, 9000])
def test_other_link_sizes(mtu: int) -> None:
    run_both_ways(5, WIRES["everything"], mtu=mtu, total=60_000)
    run_both_ways(5, WIRES["everything"], mtu=mtu, total=60_000, offload=False)


@pytest.mark.parametrize(
    "settings",
    [
        TcpSettings(congestion="newreno"),
        TcpSettings(sack=False),
        TcpSettings(timestamps=False),
        TcpSettings(window_scaling=False),
        TcpSettings(sack=False, timestamps=False, window_scaling=False, congestion="newreno"),
        TcpSettings(nodelay=True),
        TcpSettings(receive_buffer=5_000),
        TcpSettings(receive_buffer=600),
        TcpSettings(max_segment=200),
    ],
    ids=lambda settings: ",".join(
        f"{name}={getattr(settings, name)}"
        for name in settings.__dataclass_fields__
        if getattr(settings, name) != getattr(TcpSettings(), name)
    ),
)
def test_other_settings(settings: TcpSettings) -> None:
    for offload in (True, False):
        run_both_ways(7, WIRES["everything"], settings=settings, total=60_000, offload=offload)


def test_crumbs() -> None:
    """Writes of a few octets: Nagle gathers them, and order is kept (RFC 9293 §3.7.4)."""
    run_both_ways(3, WIRES["everything"], total=8_000, largest=9)


@pytest.mark.parametrize("name", ["perfect", "everything"])
def test_slow_reader(name: str) -> None:
    """RFC 9293 §3.8.6: a closed window stops the sender, and its reopening is not missed."""
    generator = random.Random(4)
    world = World(4, WIRES[name])
    client = Peer(pieces(generator, OCTETS, 20_000))
    server = Peer([])
    server.pause_every = 3
    exchange(world, client, server, settings=TcpSettings(receive_buffer=20_000))
    held = 0
    for _ in range(5_000):
        world.run(lambda: bool(server.closed and client.closed), seconds=0.7)
        if server.closed and client.closed:
            break
        if server.connection is not None and not server.closed:
            held += 1
            server.conn.resume()
    assert held > 3
    check(client, server)
    world.settle()
    assert world.connections() == []


def test_both_windows_closed_and_both_probing() -> None:
    """RFC 9293 §3.8.6.1: each side's probe takes one octet, and both acknowledgments must count.

    Each then stands one octet before the number that the other expects: an ACK that is dropped with
    its "old" segment would leave both sides probing for ever.
    """
    world = World(15, Link(delay=0.01), offload=False)
    client, server = Peer([]), Peer([])
    client.finished_sending = server.finished_sending = True
    # Six segments of 88 leave 72 octets of window: too little for a segment, enough for a probe.
    settings = TcpSettings(receive_buffer=600, max_segment=100)
    exchange(world, client, server, settings=settings)
    world.run(lambda: bool(client.established and server.established))
    # At the same instant, so that all that follows is symmetric, and the probes cross.
    for peer in (client, server):
        peer.conn.pause()
        peer.expected = random.Random(peer.conn.iss).randbytes(5_000)
        peer.conn.send(peer.expected)
        peer.conn.shutdown()
    world.run(seconds=30.0)
    for peer in (client, server):
        peer.conn.resume()
    world.run(lambda: bool(client.closed and server.closed), seconds=200.0)
    check(client, server)


@pytest.mark.parametrize("nibble", [1, 3])
def test_reader_that_takes_a_little_at_a_time(nibble: int) -> None:
    """RFC 9293 §3.8.6.2.2: the window opens as the buffer empties, not only when it is empty."""
    generator = random.Random(16)
    world = World(16, LINK, offload=False)
    client = Peer(pieces(generator, 100_000, 5_000))
    server = Peer([])
    server.pause_every = nibble
    exchange(world, client, server, settings=TcpSettings(receive_buffer=14_480, max_segment=1460))
    start = world.now
    for _ in range(10_000):
        if client.closed and server.closed:
            break
        world.run(lambda: bool(client.closed and server.closed), seconds=0.1)
        if server.connection is not None:
            server.conn.resume()
    check(client, server)
    # Seventy segments, `nibble` of them a tenth of a second, and nothing to wait for in between.
    assert world.now - start < 70 * 0.1 / nibble + 2.0


@pytest.mark.parametrize("close_first", ["reader", "writer"])
def test_reader_wakes_after_the_connection_has_ended(close_first: str) -> None:
    """What arrived in order belongs to the application, however late it asks (RFC 9293 §3.10.3).

    Both FINs may have been acknowledged by then: octets, end of stream, then the end are told.
    """
    world = World(14, LINK)
    client, server = Peer([bytes(range(256)) * 100]), Peer([])
    server.finished_sending = close_first == "writer"
    exchange(world, client, server, settings=TcpSettings(receive_buffer=200_000))
    server.pause_every = 1
    world.run(seconds=5.0)
    if close_first == "writer":
        server.finished_sending = False
        server.conn.shutdown()
    world.run(seconds=200.0)
    assert len(server.got) < len(client.expected)
    assert not server.eof
    for _ in range(50):
        if server.closed:
            break
        server.conn.resume()
        world.run(seconds=0.1)
    check(client, server)
    world.settle()
    assert world.connections() == []


def test_long_silence_of_the_reader() -> None:
    """RFC 9293 §3.8.6.1: zero-window probes go on, and the connection lives, for an hour."""
    world = World(5, replace(LINK, loss=0.2))
    client = Peer([bytes(50_000)])
    server = Peer([])
    server.pause_every = 1
    exchange(world, client, server, settings=TcpSettings(receive_buffer=4_000))
    world.run(lambda: bool(server.deliveries))
    world.run(seconds=3600.0)
    assert not client.closed
    assert not server.closed
    assert world.client.host.counters.tcp_window_probes > 10
    for _ in range(1_000):
        server.conn.resume()
        world.run(lambda: bool(server.closed and client.closed), seconds=70.0)
        if server.closed and client.closed:
            break
    check(client, server)


def test_half_closed_for_long() -> None:
    """RFC 9293 §3.6: one side has ended, the other sends on."""
    generator = random.Random(6)
    world = World(6, WIRES["everything"])
    client = Peer([b"the question"])
    server = Peer(pieces(generator, 50_000, 5_000))
    answer, server.pieces = server.pieces, iter(())
    server.finished_sending = True
    exchange(world, client, server)
    world.run(lambda: server.eof)
    world.run(seconds=300.0)
    assert not server.closed
    server.pieces, server.finished_sending = answer, False
    server.feed()
    world.run(lambda: bool(client.closed and server.closed))
    check(client, server)
    world.settle()
    assert world.connections() == []


def test_many_connections_at_once() -> None:
    generator = random.Random(8)
    world = World(8, WIRES["everything"])
    servers: list[Peer] = []
    clients: list[Peer] = []

    def accept(connection: object) -> Peer:
        # The client says first which of the answers it wants.
        servers.append(Peer(pieces(generator, 10_000, 3_000)).attach(connection))
        return servers[-1]

    world.server.host.tcp_listen("", 80, accept)
    for _ in range(40):
        client = Peer(pieces(generator, 10_000, 3_000))
        clients.append(client.attach(world.client.host.tcp_connect("10.0.0.2", 80, client)))
    world.run(
        lambda: len(servers) == 40 and all(peer.closed for peer in (*clients, *servers)),
        seconds=900.0,
    )
    by_port = {server.conn.remote[1]: server for server in servers}
    assert len(by_port) == 40
    for client in clients:
        check(client, by_port[client.conn.local[1]])
    world.settle()
    assert world.connections() == []


@pytest.mark.parametrize("offload", [True, False])
def test_small_queue_of_the_link_blocks_and_goes_on(offload: bool) -> None:
    """A link that refuses frames holds the sender up, and loses nothing by it."""
    generator = random.Random(9)
    narrow = replace(LINK, rate=1e8, queue=6_000, full="refuse")
    world = World(9, narrow, offload=offload)
    client = Peer(pieces(generator, OCTETS, 20_000))
    server = Peer(pieces(generator, OCTETS, 20_000))
    exchange(world, client, server)
    world.run(lambda: bool(client.closed and server.closed))
    check(client, server)


def test_bad_wire_costs_time_only_in_measure() -> None:
    """One loss in a hundred must not bring the stream to its knees: recovery, not timeouts."""
    world = World(11, Link(delay=0.01, loss=0.01), offload=False)
    client = Peer(pieces(random.Random(11), 2_000_000, 50_000))
    server = Peer([])
    exchange(world, client, server)
    start = world.now
    world.run(lambda: bool(client.closed and server.closed), seconds=900.0)
    check(client, server)
    # Mathis et al. 1997: Reno reaches about MSS / RTT x 1.22 / sqrt(p), 1448 / 0.02 x 12 = 880 KB/s
    # here, so 2.3 s; twice that leaves room for the odd timeout.
    assert world.now - start < 4.6
