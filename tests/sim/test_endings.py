"""Resets, peers that vanish, wires that are cut: what the application hears, and what is left."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from appliance.fuzz import Link
from appliance.net.tcb import TcpSettings
from tests.sim.network import CLIENT, SERVER, Peer, World, exchange, pieces
from tests.sim.test_transfer import LINK, WIRES, check

CUT = Link(loss=1.0)


@pytest.mark.parametrize("seed", range(5))
def test_nobody_listens(seed: int) -> None:
    """RFC 9293 §3.10.7.1: a reset, at once, also over a bad wire."""
    world = World(seed, WIRES["everything"])
    client = Peer([b"hello?"])
    client.attach(world.client.host.tcp_connect(SERVER, 81, client))
    world.run(lambda: bool(client.closed))
    assert [type(error) for error in client.closed] == [ConnectionRefusedError]
    world.settle()
    assert world.connections() == []


def test_nobody_there() -> None:
    """RFC 9293 §3.8.3: the attempt is given up after its retransmissions."""
    world = World(1, LINK)
    client = Peer([b"hello?"])
    client.attach(world.client.host.tcp_connect("10.0.0.99", 80, client))
    world.run(lambda: bool(client.closed))
    (error,) = client.closed
    assert isinstance(error, OSError)
    assert world.connections() == []


def test_wire_cut_while_connecting() -> None:
    world = World(2, LINK)
    server = Peer([])
    world.server.host.tcp_listen("", 80, server.attach)
    world.wire.set(CUT)
    client = Peer([b"hello?"])
    client.attach(world.client.host.tcp_connect(SERVER, 80, client))
    start = world.now
    world.run(lambda: bool(client.closed), seconds=1000.0)
    (error,) = client.closed
    assert isinstance(error, OSError)
    assert world.now - start < 200.0
    world.settle()
    assert world.connections() == []


@pytest.mark.parametrize("offload", [True, False])
def test_peer_vanishes_in_the_middle(offload: bool) -> None:
    """RFC 9293 §3.8.3, R2: data that nobody acknowledges ends the connection."""
    world = World(3, LINK, offload=offload)
    client = Peer(pieces(random.Random(3), 2_000_000, 50_000))
    server = Peer([])
    exchange(world, client, server, settings=TcpSettings(receive_buffer=100_000))
    world.run(lambda: len(server.got) > 100_000)
    world.wire.set(CUT)
    world.run(lambda: bool(client.closed), seconds=3000.0)
    (error,) = client.closed
    assert isinstance(error, (TimeoutError, OSError))
    assert bytes(server.got) == client.expected[: len(server.got)]
    # The receiver has nothing to send and no keepalive: it cannot know.
    assert not server.closed


def test_keepalive_finds_out() -> None:
    """RFC 9293 §3.8.4: an idle connection whose peer is gone."""
    world = World(4, LINK)
    client, server = Peer([]), Peer([])
    client.finished_sending = server.finished_sending = True
    settings = TcpSettings(keepalive=60.0, keepalive_interval=10.0, keepalive_count=5)
    exchange(world, client, server, settings=settings)
    world.run(seconds=3600.0)
    assert not client.closed
    assert not server.closed
    world.wire.set(CUT)
    start = world.now
    world.run(lambda: bool(client.closed and server.closed), seconds=3600.0)
    for peer in (client, server):
        assert [type(error) for error in peer.closed] == [TimeoutError]
    assert world.now - start < 60.0 + 10.0 * 6 + 1
    assert world.connections() == []


def test_outage_is_survived() -> None:
    """A minute without the wire delays the stream and does not break it."""
    world = World(5, LINK)
    client = Peer(pieces(random.Random(5), 1_000_000, 50_000))
    server = Peer([])
    exchange(world, client, server, settings=TcpSettings(receive_buffer=60_000))
    world.run(lambda: len(server.got) > 200_000)
    world.wire.set(CUT)
    world.run(seconds=60.0)
    assert not client.closed
    world.wire.set(LINK)
    world.run(lambda: bool(client.closed and server.closed))
    check(client, server)


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("name", ["perfect", "everything"])
@pytest.mark.parametrize("seed", range(5))
def test_abort_in_the_middle(who: str, name: str, seed: int) -> None:
    """RFC 9293 §3.10.5: the other side hears of a reset; what it had is a prefix.

    A reset may be lost, and a side that has sent everything asks again by keepalive only.
    """
    world = World(seed, WIRES[name])
    generator = random.Random(seed)
    client = Peer(pieces(generator, 400_000, 20_000))
    server = Peer(pieces(generator, 400_000, 20_000))
    exchange(world, client, server, settings=TcpSettings(keepalive=30.0))
    world.run(lambda: len(server.got) > 20_000 and len(client.got) > 20_000)
    aborter, other = (client, server) if who == "client" else (server, client)
    aborter.conn.abort()
    world.run(lambda: bool(other.closed))
    assert [type(error) for error in other.closed] == [ConnectionResetError]
    assert aborter.closed == []
    assert bytes(server.got) == client.expected[: len(server.got)]
    assert bytes(client.got) == server.expected[: len(client.got)]
    world.settle()
    assert world.connections() == []


@pytest.mark.parametrize("name", ["perfect", "everything"])
@pytest.mark.parametrize("seed", range(5))
def test_close_sends_what_is_queued(name: str, seed: int) -> None:
    """Contract of `close`: queue and FIN go out, nothing is heard but the end."""
    world = World(seed, WIRES[name])
    client, server = Peer([]), Peer([])
    client.finished_sending = True
    exchange(world, client, server)
    world.run(lambda: bool(client.established and server.established))
    client.expected = random.Random(seed).randbytes(100_000)
    client.conn.send(client.expected)
    client.conn.close()
    world.run(lambda: bool(client.closed and server.closed))
    assert bytes(server.got) == client.expected
    assert client.closed == [None]
    assert server.eof
    world.settle()
    assert world.connections() == []


def test_data_for_a_closed_connection_is_reset() -> None:
    """RFC 9293 §3.10.7.1 (and RFC 2525 §2.17): octets that nobody will read."""
    world = World(7, LINK)
    client, server = Peer([]), Peer([])
    client.finished_sending = server.finished_sending = True
    exchange(world, client, server)
    world.run(lambda: bool(client.established and server.established))
    client.conn.close()
    world.run(lambda: server.eof)
    for _ in range(3):
        if not server.closed:
            server.conn.send(b"nobody reads this")
            world.run(seconds=1.0)
    assert [type(error) for error in server.closed] == [ConnectionResetError]
    world.settle()
    assert world.connections() == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["perfect", "everything"])
def test_simultaneous_close(name: str, seed: int) -> None:
    """RFC 9293 §3.6.1, figure 13: both FINs cross."""
    world = World(seed, WIRES[name])
    client, server = Peer([b"a" * 1000]), Peer([b"b" * 1000])
    exchange(world, client, server)
    world.run(lambda: bool(client.closed and server.closed))
    check(client, server)
    world.settle()
    assert world.connections() == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["perfect", "everything"])
def test_simultaneous_open(name: str, seed: int) -> None:
    """RFC 9293 §3.5, figure 8: both SYNs cross, and one connection comes of it."""
    world = World(seed, WIRES[name])
    generator = random.Random(seed)
    left = Peer(pieces(generator, 5_000, 500))
    right = Peer(pieces(generator, 5_000, 500))
    left.attach(world.client.host.tcp_connect(SERVER, 2000, left, local_port=1000))
    right.attach(world.server.host.tcp_connect(CLIENT, 1000, right, local_port=2000))
    world.run(lambda: bool(left.closed and right.closed))
    check(left, right)
    world.settle()
    assert world.connections() == []


def test_duplicate_of_an_old_connection_does_no_harm() -> None:
    """RFC 9293 §3.6.1 and RFC 7323 §5: wires that repeat and delay, ports used again and again."""
    late = replace(LINK, duplicate=0.5, reorder=0.3, reorder_by=1.5)
    world = World(13, late)
    generator = random.Random(13)
    servers: list[Peer] = []

    def accept(connection: object) -> Peer:
        servers.append(Peer(pieces(generator, 3_000, 1_000)).attach(connection))
        return servers[-1]

    world.server.host.tcp_listen("", 80, accept)
    done = 0
    for _ in range(15):
        client = Peer(pieces(generator, 3_000, 1_000))
        try:
            connection = world.client.host.tcp_connect(SERVER, 80, client, local_port=4000)
        except OSError:
            world.run(seconds=30.0)  # our own TIME-WAIT holds the port
            continue
        client.attach(connection)
        before = len(servers)
        world.run(lambda client=client: bool(client.closed and servers and servers[-1].closed))
        assert len(servers) >= before + 1
        check(client, servers[-1])
        done += 1
    assert done >= 5
    world.settle()
    assert world.connections() == []
