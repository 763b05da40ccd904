"""What must not be visible from outside: the fast path, the batch size, and chance itself."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from appliance.net.tcb import TcpSettings
from tests.sim.network import Peer, Trace, World, exchange, pieces
from tests.sim.test_transfer import WIRES, run_both_ways


def traces(seed: int, name: str, settings: TcpSettings, *, offload: bool = True) -> list[Trace]:
    """Every frame that either host was given, and when, during one exchange and its end."""
    generator = random.Random(seed)
    world = World(seed, WIRES[name], offload=offload)
    # A low mark: a stream whose end is queued already leaves the fast path.
    client = Peer(pieces(generator, 60_000, 4_000), high=8_000)
    server = Peer(pieces(generator, 60_000, 4_000), high=8_000)
    server.pause_every = 7
    exchange(world, client, server, settings=settings)
    for _ in range(500):
        world.run(lambda: bool(client.closed and server.closed), seconds=0.3)
        if client.closed and server.closed:
            break
        if server.connection is not None:
            server.conn.resume()
    world.settle()
    taken = [node.host.counters.tcp_fast_path for node in world.nodes]
    # On a bad wire there may be no two segments in a row that are in order.
    assert settings.fast_path or not any(taken)
    assert any(taken) or name != "perfect" or not settings.fast_path
    return [world.traces[node.name] for node in world.nodes]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("offload", [True, False], ids=["super-segments", "segments"])
@pytest.mark.parametrize("name", WIRES)
def test_the_fast_path_changes_nothing(name: str, offload: bool, seed: int) -> None:
    """The same seed with and without it: the same frames at the same instants."""
    with_it = traces(seed, name, TcpSettings(), offload=offload)
    without = traces(seed, name, TcpSettings(fast_path=False), offload=offload)
    assert with_it == without


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("offload", [True, False], ids=["super-segments", "segments"])
def test_nor_with_hardly_any_window(offload: bool, seed: int) -> None:
    """Windows that close and reopen all the time, on segments that come late and twice."""
    small = TcpSettings(receive_buffer=600, max_segment=100)
    with_it = traces(seed, "everything", small, offload=offload)
    assert with_it == traces(seed, "everything", replace(small, fast_path=False), offload=offload)


def test_a_run_can_be_repeated() -> None:
    assert traces(1, "everything", TcpSettings()) == traces(1, "everything", TcpSettings())


@pytest.mark.parametrize("batch", [1, 2, 1000])
def test_the_batch_size_loses_nothing(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Frames one at a time and all at once give the same octets (the segments may differ)."""
    monkeypatch.setattr("appliance.fuzz.world.BATCH", batch)
    run_both_ways(2, WIRES["everything"], offload=False)
