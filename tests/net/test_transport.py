"""What is ours alone in asyncio's face: the driver's turns and timer, the stack's life, its errors.

What asyncio promises too is in test_transport_suite.py.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import random
import subprocess
import sys
import weakref
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.net import Stack
from appliance.net.tcb import TcpSettings
from appliance.net.transport_driver import (
    BATCH,
    TIMER_GRAIN,
    Driver,
)
from appliance.net.transport_pause import CROWD, SHORT
from appliance.net.vif.pair import PairEnd, pair

DEADLINE = 30.0


def runs(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(scenario(), DEADLINE))

    run.__doc__ = scenario.__doc__
    return run


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - the scenario's deadline is the bound
        await asyncio.sleep(0.001)


# The driver, with a host and a link that only write down what happens.


class FakeHost:
    """Has the turns of a host and does nothing in them but remember."""

    def __init__(self) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.turns: list[tuple[str, int, float]] = []
        self.due = math.inf
        self.full = False
        self.fail = False
        self.counters = SimpleNamespace(udp_in=0)
        self.datagrams = 0
        """Of the frames of a turn so many are datagrams."""

    def receive(self, frames: list[bytes], now: float, link: object = None) -> None:
        self.turns.append(("receive", len(frames), now))
        self.counters.udp_in += self.datagrams
        if self.fail:
            raise LookupError("a bug")

    def flush(self, now: float, link: object = None) -> None:
        self.turns.append(("flush", 0, now))

    def run_timers(self, now: float) -> None:
        self.turns.append(("timers", 0, now))
        self.due = math.inf

    def deadline(self) -> float:
        return self.due

    def blocked(self) -> bool:
        return self.full

    @property
    def kinds(self) -> list[str]:
        return [turn[0] for turn in self.turns]


class FakeVif:
    """A link without a descriptor that delivers what it is given."""

    name = "fake"
    mac = bytes(6)
    mtu = 1500
    gso_max = 65535
    checksum_offload = True
    udp_segments = 0

    def __init__(self, frames: int = 0) -> None:
        self.waiting = [b"frame"] * frames
        self.on_readable: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None

    def fileno(self) -> int:
        return -1

    def receive(self, limit: int) -> list[bytes]:
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        return True

    def close(self) -> None:
        pass


class PipeVif(FakeVif):
    """A link with a descriptor: each octet in a pipe is a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def fileno(self) -> int:
        return self.reader

    def receive(self, limit: int) -> list[bytes]:
        try:
            return [b"frame"] * len(os.read(self.reader, limit))
        except BlockingIOError:
            return []

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class CountingLoop:
    """Writes down the timers and hands the rest to the running loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.delays: list[float] = []
        self.cancelled = 0
        self.fire: Callable[[], None] = lambda: None

    def call_soon(self, callback: Callable[..., object], *args: object) -> asyncio.Handle:
        return self.loop.call_soon(callback, *args)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        self.delays.append(delay)
        self.fire = callback
        counter = self

        class Handle:
            def cancel(self) -> None:
                counter.cancelled += 1

        return Handle()


def fake_driver(
    frames: int = 0,
) -> tuple[Driver, FakeHost, FakeVif, Clock, CountingLoop]:
    host, vif, clock, loop = FakeHost(), FakeVif(frames), Clock(), CountingLoop()
    return Driver(loop, host, vif, clock), host, vif, clock, loop  # type: ignore[arg-type]


async def spin(times: int = 3) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


@runs
async def test_frames_come_in_batches_and_the_loop_is_let_run_between() -> None:
    driver, host, vif, _, loop = fake_driver(2 * BATCH + 5)
    driver.start()
    others: list[int] = []

    def other() -> None:
        others.append(len(host.turns))
        loop.call_soon(other)

    loop.call_soon(other)
    await spin(8)
    sizes = [size for kind, size, _ in host.turns if kind == "receive"]
    assert sizes == [BATCH, BATCH, 5]
    assert vif.waiting == []
    after_each = [host.kinds[:n].count("receive") for n in others]
    assert {1, 2, 3} <= set(after_each)  # somebody else ran after each batch


@runs
async def test_a_link_without_descriptor_is_read_when_it_says_so() -> None:
    driver, host, vif, _, _ = fake_driver()
    driver.start()
    await spin()
    host.turns.clear()
    vif.waiting = [b"frame"]
    assert vif.on_readable is not None
    vif.on_readable()
    vif.on_readable()  # said twice, read once
    assert host.turns == []  # never from inside the other end's turn
    await spin()
    assert host.kinds == ["receive"]


@runs
async def test_a_descriptor_is_polled() -> None:
    host, vif, clock = FakeHost(), PipeVif(), Clock()
    driver = Driver(asyncio.get_running_loop(), host, vif, clock)  # type: ignore[arg-type]
    driver.start()
    os.write(vif.writer, bytes(BATCH + 3))
    await until(lambda: sum(turn[1] for turn in host.turns) == BATCH + 3)
    assert max(turn[1] for turn in host.turns) == BATCH
    driver.stop()
    os.write(vif.writer, b"x")
    before = len(host.turns)
    await spin()
    assert len(host.turns) == before
    vif.close()


@pytest.mark.parametrize(
    ("frames", "datagrams", "pauses"),
    [
        (CROWD, CROWD, 1),
        (CROWD - 1, CROWD - 1, 0),  # few at a time are not kept waiting
        (3 * CROWD, CROWD, 0),  # mostly segments, whose senders wait for acknowledgments
        (BATCH, BATCH, 0),  # a full turn could not be fuller
    ],
)
def test_a_link_with_many_datagrams_is_left_alone_for_a_moment(
    frames: int, datagrams: int, pauses: int
) -> None:
    host, slept = FakeHost(), list[float]()
    host.datagrams = datagrams

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert host.kinds[-1] == "receive"  # what came is answered before

    @runs
    async def scenario() -> None:
        loop, vif = asyncio.get_running_loop(), PipeVif()
        driver = Driver(loop, host, vif, sleep=sleep)  # type: ignore[arg-type]
        driver.start()
        os.write(vif.writer, bytes(frames))
        await until(lambda: "receive" in host.kinds)
        driver.stop()
        vif.close()

    scenario()
    assert slept == [SHORT] * pauses


@runs
async def test_work_queued_outside_a_turn_gets_one() -> None:
    driver, host, _, clock, _ = fake_driver()
    driver.start()
    await spin()
    host.turns.clear()
    clock.now = 1234.5
    host.wake()
    assert host.turns == []
    await spin()
    assert host.turns == [("flush", 0, 1234.5)]


@runs
async def test_only_an_earlier_deadline_arms_the_timer_again() -> None:
    driver, host, _, clock, loop = fake_driver()
    driver.start()
    await spin()

    def turn(due: float) -> None:
        host.due = due
        driver._flush()

    turn(1001.0)
    assert loop.delays == [1.0]
    for due in (1001.5, 1002.0, 1001.0, math.inf):
        turn(due)
    assert loop.delays == [1.0]
    assert loop.cancelled == 0
    turn(1000.25)
    assert loop.delays == [1.0, 0.25]
    assert loop.cancelled == 1
    # It fires early, as the deadline has moved away: no timers run, and it is armed for the rest.
    host.due = 1003.0
    clock.now = 1000.25
    loop.fire()
    assert "timers" not in host.kinds
    assert loop.delays == [1.0, 0.25, 2.75]
    clock.now = 1003.0
    loop.fire()
    assert host.kinds[-1] == "timers"
    assert len(loop.delays) == 3  # nothing left to wait for


@runs
async def test_a_deadline_in_the_past_or_very_near_does_not_spin() -> None:
    driver, host, _, _, loop = fake_driver()
    driver.start()
    await spin()
    host.due = 999.0
    driver._flush()
    host.due = 998.0
    driver._flush()
    assert loop.delays == [TIMER_GRAIN, TIMER_GRAIN]


@runs
async def test_a_full_link_gets_its_turn_when_there_is_room() -> None:
    driver, host, vif, _, _ = fake_driver()
    driver.start()
    await spin()
    host.full = True
    driver._flush()
    host.turns.clear()
    assert vif.on_writable is not None
    vif.on_writable()
    await spin()
    assert host.kinds == ["flush"]


@runs
async def test_a_full_descriptor_is_polled_for_room() -> None:
    host, clock = FakeHost(), Clock()
    vif = PipeVif()
    os.close(vif.reader)
    os.close(vif.writer)
    import socket

    ours, theirs = socket.socketpair()
    vif.reader, vif.writer = ours.detach(), theirs.detach()
    os.set_blocking(vif.reader, False)
    driver = Driver(asyncio.get_running_loop(), host, vif, clock)  # type: ignore[arg-type]
    driver.start()
    await spin()
    host.turns.clear()
    host.full = True
    driver._flush()
    host.full = False
    await until(lambda: host.kinds == ["flush", "flush"])
    await spin()
    assert host.kinds == ["flush", "flush"]  # and not again and again
    driver.stop()
    vif.close()


def test_a_turn_that_fails_does_not_stop_the_next() -> None:
    """A bug in the stack costs a batch; what is queued behind it is still read."""
    contexts: list[dict[str, Any]] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: contexts.append(context)
        )
        driver, host, vif, _, _ = fake_driver(BATCH + 1)
        host.fail = True
        driver.start()
        await spin(4)
        assert [size for kind, size, _ in host.turns if kind == "receive"] == [BATCH, 1]
        assert vif.waiting == []

    asyncio.run(scenario())
    assert [type(context["exception"]) for context in contexts] == [LookupError, LookupError]


@runs
async def test_a_stopped_driver_leaves_host_and_link_alone() -> None:
    driver, host, vif, _, loop = fake_driver()
    driver.start()
    await spin()
    host.due = 1001.0
    driver._flush()
    readable, wake = vif.on_readable, host.wake
    assert readable is not None
    readable()
    wake()
    driver.stop()
    host.turns.clear()
    await spin()
    assert host.turns == []
    assert vif.on_readable is None
    assert loop.cancelled == 1


# The stack.


class Quiet(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: Any = None
        self.lost: list[Exception | None] = []
        self.data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


def stacks() -> tuple[Stack, Stack]:
    left, right = pair()
    seeds = random.Random(7)
    return (
        Stack(left, addresses=["10.0.0.2/24", "10.0.0.3/24"], random=random.Random(seeds.random())),
        Stack(right, addresses=["10.0.0.1/24"], random=random.Random(seeds.random())),
    )


@runs
async def test_the_same_seed_gives_the_same_sequence_numbers() -> None:
    numbers = []
    for _ in range(2):
        left, right = pair()
        host = Stack(left, addresses=["10.0.0.2/24"], random=random.Random(5)).host
        right.close()
        connection = host.tcp_connect("10.0.0.1", 80, _Nobody())
        numbers.append((connection.iss, connection.local[1]))
    assert numbers[0] == numbers[1]


class _Nobody:
    def tcp_established(self) -> None: ...
    def tcp_data(self, data: bytes) -> None: ...
    def tcp_eof(self) -> None: ...
    def tcp_writable(self) -> None: ...
    def tcp_closed(self, error: Exception | None) -> None: ...


@runs
async def test_nothing_works_before_the_start_or_after_the_end() -> None:
    ours, theirs = stacks()
    with pytest.raises(RuntimeError, match="not running"):
        await ours.create_server(Quiet, port=80)
    with pytest.raises(RuntimeError, match="not running"):
        await ours.create_connection(Quiet, "10.0.0.1", 80)
    with pytest.raises(RuntimeError, match="not running"):
        await ours.create_datagram_endpoint(asyncio.DatagramProtocol, ("", 53))
    async with ours:
        await ours.start()  # twice is once
    with pytest.raises(RuntimeError, match="not running"):
        await ours.create_server(Quiet, port=80)
    with pytest.raises(RuntimeError, match="closed"):
        await ours.start()
    await ours.close()
    await theirs.close()


@runs
async def test_a_server_on_several_addresses_has_one_port() -> None:
    ours, theirs = stacks()
    async with ours, theirs:
        server = await ours.create_server(Quiet, ["10.0.0.2", "10.0.0.3"], 0)
        (first, port), (second, same) = server.addresses
        assert (first, second, same) == ("10.0.0.2", "10.0.0.3", port)
        for address in (first, second):
            transport, _ = await theirs.create_connection(Quiet, address, port)
            assert transport.get_extra_info("peername") == (address, port)


@runs
async def test_a_transport_tells_of_its_connection() -> None:
    """`tcp_info` has Linux's names and units, and follows what happens."""
    ours, theirs = stacks()
    async with ours, theirs:
        await ours.create_server(Quiet, "10.0.0.2", 80)
        transport, _ = await theirs.create_connection(Quiet, "10.0.0.2", 80)
        info = transport.get_extra_info("tcp_info")
        assert info.tcpi_state == 1  # TCP_ESTABLISHED
        assert info.tcpi_ca_state == 0
        assert info.tcpi_options == 7  # timestamps, SACK, window scaling
        assert info.tcpi_snd_mss == 1448
        assert info.tcpi_snd_cwnd == 10
        assert (info.tcpi_bytes_acked, info.tcpi_bytes_received) == (0, 0)
        assert 200_000 <= info.tcpi_rto <= 1_000_000
        transport.write(bytes(10_000))
        assert transport.get_extra_info("tcp_info").tcpi_notsent_bytes == 10_000
        await until(lambda: transport.get_extra_info("tcp_info").tcpi_bytes_acked == 10_000)
        info = transport.get_extra_info("tcp_info")
        assert (info.tcpi_unacked, info.tcpi_lost, info.tcpi_total_retrans) == (0, 0, 0)
        assert 0 < info.tcpi_rtt < 1_000_000
        assert info.tcpi_min_rtt <= info.tcpi_rtt


@runs
async def test_settings_of_one_listener_of_one_connection_and_of_the_stack() -> None:
    left, right = pair()
    stack = Stack(left, addresses=["10.0.0.1/24"], tcp=TcpSettings(congestion="newreno"))
    async with stack as one, Stack(right, addresses=["10.0.0.2/24"]) as two:
        accepted: list[asyncio.BaseTransport] = []

        class Noting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.append(transport)

        chosen = TcpSettings(congestion="newreno", user_timeout=30.0)
        await two.create_server(Noting, port=7, tcp=chosen)
        await two.create_server(Noting, port=8)
        first, _ = await one.create_connection(asyncio.Protocol, "10.0.0.2", 7)
        await until(lambda: len(accepted) == 1)
        second, _ = await one.create_connection(
            asyncio.Protocol, "10.0.0.2", 8, tcp=TcpSettings(congestion="cubic")
        )
        await until(lambda: len(accepted) == 2)
        names = [
            transport.get_extra_info("tcp_congestion")
            for transport in (first, accepted[0], second, accepted[1])
        ]
        assert names == ["newreno", "newreno", "cubic", "cubic"]


@runs
async def test_only_who_asks_for_it_opens_fast() -> None:
    """RFC 7413 §6.1, as on Linux: what a stack's servers may take, its clients do not ask for."""
    left, right = pair()
    fast = TcpSettings(fast_open=4)
    stack = Stack(left, addresses=["10.0.0.1/24"], tcp=fast)
    async with stack as one, Stack(right, addresses=["10.0.0.2/24"], tcp=fast) as two:
        await two.create_server(asyncio.Protocol, port=7)
        await one.create_connection(asyncio.Protocol, "10.0.0.2", 7, early=b"early")
        assert two.counters.tcp_fast_open_cookies_given == 0
        for _ in range(2):
            await one.create_connection(asyncio.Protocol, "10.0.0.2", 7, tcp=fast, early=b"early")
        await until(lambda: two.counters.tcp_fast_open_accepted == 1)
        assert two.counters.tcp_fast_open_cookies_given == 1


@runs
async def test_listening_twice_or_on_a_foreign_address() -> None:
    ours, theirs = stacks()
    async with ours, theirs:
        await ours.create_server(Quiet, None, 80)
        with pytest.raises(OSError, match="80"):
            await ours.create_server(Quiet, "10.0.0.2", 80)
        with pytest.raises(OSError, match=r"192\.0\.2\.1"):
            await ours.create_server(Quiet, "192.0.2.1", 80)
        # The first address is given back when the second cannot be had.
        with pytest.raises(OSError, match=r"192\.0\.2\.1"):
            await ours.create_server(Quiet, ["10.0.0.2", "192.0.2.1"], 81)
        await ours.create_server(Quiet, "10.0.0.2", 81)


@runs
async def test_names_are_refused_in_clear_words() -> None:
    ours, theirs = stacks()
    async with ours, theirs:
        with pytest.raises(OSError, match=r"'example\.org' is not an IP address"):
            await ours.create_connection(Quiet, "example.org", 80)
        with pytest.raises(OSError, match="names are not resolved"):
            await ours.create_server(Quiet, "localhost", 80)
        with pytest.raises(ValueError, match="TLS is a protocol"):
            await ours.create_server(Quiet, port=443, ssl=object())  # type: ignore[arg-type]


@runs
async def test_a_server_that_begins_later() -> None:
    ours, theirs = stacks()
    async with ours, theirs:
        server = await ours.create_server(Quiet, None, 80, start_serving=False)
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await theirs.create_connection(Quiet, "10.0.0.2", 80)
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        await theirs.create_connection(Quiet, "10.0.0.2", 80)
        server.close()
        with pytest.raises(RuntimeError, match="closed"):
            await server.start_serving()


@runs
async def test_closing_and_aborting_the_clients_of_a_server() -> None:
    """As asyncio.Server has it from Python 3.13."""
    ours, theirs = stacks()
    async with ours, theirs:
        server = await ours.create_server(Quiet, None, 80)
        for end, error in (("close_clients", None), ("abort_clients", ConnectionResetError)):
            clients = [await theirs.create_connection(Quiet, "10.0.0.2", 80) for _ in range(3)]
            await until(lambda: len(server._transports) == 3)
            getattr(server, end)()
            await until(lambda clients=clients: all(protocol.lost for _, protocol in clients))
            for _, protocol in clients:
                assert isinstance(protocol.lost[0], error) if error else protocol.lost == [None]
        server.close()
        await server.wait_closed()


@runs
async def test_wait_closed_waits_for_the_last_connection() -> None:
    ours, theirs = stacks()
    async with ours, theirs:
        server = await ours.create_server(Quiet, None, 80)
        transport, _ = await theirs.create_connection(Quiet, "10.0.0.2", 80)
        await until(lambda: server._transports)
        server.close()
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        transport.close()
        await waiting


@runs
async def test_closing_a_stack_sends_what_is_queued() -> None:
    ours, theirs = stacks()
    data = bytes(range(256)) * 16_384  # 4 MB
    async with theirs:
        await ours.start()
        received = Quiet()
        await theirs.create_server(lambda: received, None, 80)
        transport, sender = await ours.create_connection(Quiet, "10.0.0.1", 80)
        transport.write(data)
        await ours.close()
        assert sender.lost == [None]
        await until(lambda: received.lost)
        assert received.data == data


@runs
async def test_closing_a_stack_does_not_wait_for_a_peer_that_reads_nothing() -> None:
    ours, theirs = stacks()
    async with theirs:
        await ours.start()
        received = Quiet()
        await theirs.create_server(lambda: received, None, 80)
        transport, sender = await ours.create_connection(Quiet, "10.0.0.1", 80)
        await until(lambda: received.transport)
        received.transport.pause_reading()
        transport.write(bytes(32 << 20))
        await ours.close(timeout=0.05)
        assert len(sender.lost) == 1


@runs
async def test_closing_a_stack_ends_a_connect_under_way() -> None:
    ours, theirs = stacks()
    async with theirs:
        await ours.start()
        connecting = asyncio.create_task(ours.create_connection(Quiet, "10.0.0.99", 80))
        await spin()
        await ours.close()
        with pytest.raises(ConnectionAbortedError):
            await connecting


@runs
async def test_a_cancelled_connect_leaves_nothing_behind() -> None:
    ours, theirs = stacks()
    async with ours, theirs:
        connecting = asyncio.create_task(ours.create_connection(Quiet, "10.0.0.99", 80))
        await spin()
        assert not connecting.done()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert ours._transports == set()


@runs
async def test_a_factory_that_raises() -> None:
    """The caller of a connect hears it; for a server it goes to the loop's handler."""
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))

    def broken() -> Quiet:
        raise LookupError("no protocol today")

    ours, theirs = stacks()
    async with ours, theirs:
        await ours.create_server(Quiet, None, 80)
        with pytest.raises(LookupError, match="today"):
            await theirs.create_connection(broken, "10.0.0.2", 80)
        assert contexts == []
        assert theirs._transports == set()
        await ours.create_server(broken, None, 81)
        _, client = await theirs.create_connection(Quiet, "10.0.0.2", 81)
        await until(lambda: client.lost)
        assert isinstance(client.lost[0], ConnectionResetError)
        assert [type(context["exception"]) for context in contexts] == [LookupError]


@runs
async def test_an_ended_connection_needs_no_collector() -> None:
    """A transport that its protocol has let go is gone at once: nothing refers to itself."""
    ours, theirs = stacks()
    async with ours, theirs:
        server = await ours.create_server(Quiet, None, 80)

        async def exchange() -> list[weakref.ref[Any]]:
            transport, protocol = await theirs.create_connection(Quiet, "10.0.0.2", 80)
            await until(lambda: server._transports)
            both = [weakref.ref(transport), weakref.ref(next(iter(server._transports)))]
            transport.close()
            await until(lambda: protocol.lost and not server._transports)
            return both

        gc.disable()
        try:
            assert [ref() for ref in await exchange()] == [None, None]
        finally:
            gc.enable()


@runs
async def test_the_local_address_and_port_of_a_connection() -> None:
    ours, theirs = stacks()
    async with ours, theirs:
        await theirs.create_server(Quiet, None, 80)
        transport, _ = await ours.create_connection(
            Quiet, "10.0.0.1", 80, local_addr=("10.0.0.3", 4000)
        )
        assert transport.get_extra_info("sockname") == ("10.0.0.3", 4000)
        with pytest.raises(OSError, match="4000"):
            await ours.create_connection(Quiet, "10.0.0.1", 80, local_addr=("10.0.0.3", 4000))


@runs
async def test_a_datagram_protocol_that_fails_at_once_gives_the_port_back() -> None:
    class Broken(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            raise LookupError("not today")

    ours, theirs = stacks()
    async with ours, theirs:
        with pytest.raises(LookupError):
            await ours.create_datagram_endpoint(Broken, ("", 53))
        await ours.create_datagram_endpoint(asyncio.DatagramProtocol, ("", 53))
        with pytest.raises(OSError, match="53"):
            await ours.create_datagram_endpoint(asyncio.DatagramProtocol, ("", 53))


@runs
async def test_a_pair_that_fills_up_loses_nothing() -> None:
    """A link of four frames: every turn ends on a full link, and the driver comes back."""
    left, right = pair(capacity=4)
    ours = Stack(left, addresses=["10.0.0.2/24"])
    theirs = Stack(right, addresses=["10.0.0.1/24"])
    data = bytes(range(256)) * 8192  # 2 MB
    async with ours, theirs:
        received = Quiet()
        await theirs.create_server(lambda: received, None, 80)
        transport, _ = await ours.create_connection(Quiet, "10.0.0.1", 80)
        transport.write(data)
        transport.close()
        await until(lambda: received.lost)
        assert received.data == data


@runs
async def test_a_pair_without_offload() -> None:
    """The edge cuts super-segments and fills checksums in."""
    left, right = pair(offload=False)
    assert isinstance(left, PairEnd)
    ours = Stack(left, addresses=["10.0.0.2/24"])
    theirs = Stack(right, addresses=["10.0.0.1/24"])
    data = bytes(range(256)) * 2048
    async with ours, theirs:
        received = Quiet()
        await theirs.create_server(lambda: received, None, 80)
        transport, _ = await ours.create_connection(Quiet, "10.0.0.1", 80)
        transport.write(data)
        transport.close()
        await until(lambda: received.lost)
        assert received.data == data


# The package.


def test_every_public_name_can_be_had() -> None:
    import appliance.net

    for name in appliance.net.__all__:
        assert getattr(appliance.net, name).__name__ == name
        assert name in dir(appliance.net)
    with pytest.raises(AttributeError, match="no_such_thing"):
        appliance.net.no_such_thing  # noqa: B018


def test_a_leaf_imports_neither_asyncio_nor_an_interface() -> None:
    code = (
        "import sys, appliance.net.tcp_state, appliance.net.seq;"
        "assert 'asyncio' not in sys.modules and 'pytun' not in sys.modules, 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
