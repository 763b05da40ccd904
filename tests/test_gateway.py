"""Kernel sockets on one side, our own TCP on the other, and what is carried between them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from appliance import gateway as gateway_module
from appliance import ports
from appliance.gateway import Gateway, _Near
from appliance.net import Stack
from appliance.net.vif.pair import pair
from tests.ports import free_port

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
BLOCK = bytes(range(256)) * 1024
DEADLINE = 20.0


class Fixture:
    """An appliance's stack with services on ports 80 and 53, and a gateway to them."""

    def __init__(self, appliance: Stack, gateway: Gateway) -> None:
        self.appliance = appliance
        self.gateway = gateway
        self.near: list[Any] = []  # writers and transports to close

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.http)
        self.near.append(writer)
        return reader, writer

    async def datagrams(self) -> tuple[asyncio.DatagramTransport, asyncio.Queue[bytes]]:
        answers: asyncio.Queue[bytes] = asyncio.Queue()

        class Client(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                answers.put_nowait(data)

        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            Client, remote_addr=("127.0.0.1", self.gateway.dns)
        )
        self.near.append(transport)
        return transport, answers


@pytest.mark.parametrize(
    ("bind", "place"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("192.0.2.7", "192.0.2.7"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
    ],
)
def test_rfc1122_no_one_is_sent_to_the_unspecified_address(bind: str, place: str) -> None:
    """RFC 1122 §3.2.1.3 (a): it MUST NOT be sent to, and browsers do not."""
    _, right = pair()
    assert Gateway(Stack(right), "10.0.0.2", bind=bind).place == place


@pytest.mark.parametrize(
    ("bind", "place", "local"),
    [
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("192.0.2.7", "192.0.2.7", "127.0.0.1"),
        ("127.0.0.5", "127.0.0.5", "127.0.0.5"),
        ("::", "::1", "::1"),
    ],
)
def test_what_is_for_this_host_alone(bind: str, place: str, local: str) -> None:
    """Where the others are is another question."""
    _, right = pair()
    made = Gateway(Stack(right), "10.0.0.2", bind=bind, local=["metrics"])
    assert (made.place_of("HTTPS"), made.place_of("metrics")) == (place, local)
    assert (made._bind_of("HTTPS"), made._bind_of("metrics")) == (bind, local)


Service = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def served(service: Service | None) -> AsyncIterator[Fixture]:
    class Upper(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data.upper(), addr)

    left, right = pair()
    async with (
        Stack(left, addresses=["10.0.0.2/24"]) as appliance,
        Stack(right, addresses=["10.0.0.1/24"]) as other,
    ):
        if service is not None:
            await appliance.start_server(service, port=80)
        await appliance.create_datagram_endpoint(Upper, ("", 53))
        gateway = Gateway(other, "10.0.0.2", http=free_port(), dns=free_port())
        await gateway.start()
        fixture = Fixture(appliance, gateway)
        try:
            yield fixture
        finally:
            for near in fixture.near:
                near.close()
            await gateway.close()
            await asyncio.sleep(0)


def on_both_loops(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    async def timed() -> None:
        async with asyncio.timeout(DEADLINE):
            await scenario()

    @pytest.mark.parametrize("loop", LOOPS)
    def run(loop: str) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(timed())

    run.__doc__ = scenario.__doc__
    return run


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - the scenario's deadline is the bound
        await asyncio.sleep(0.001)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a kernel socket so that its peer sees RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@on_both_loops
async def test_octets_go_there_and_back() -> None:
    async with served(echo) as fixture:
        reader, writer = await fixture.client()
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert fixture.appliance.counters.tcp_accepted == 1
        assert fixture.gateway.connections == 1


@on_both_loops
async def test_a_big_body_each_way_with_a_half_close_between() -> None:
    """The client sends everything, says so, and then reads: both directions close by themselves."""
    size = 40 * len(BLOCK)

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = hashlib.sha256()
        while data := await reader.read(1 << 20):
            digest.update(data)
        writer.write(digest.digest())
        for _ in range(40):
            writer.write(BLOCK)
            await writer.drain()
        writer.close()

    async with served(service) as fixture:
        reader, writer = await fixture.client()
        for _ in range(40):
            writer.write(BLOCK)
            await writer.drain()
        writer.write_eof()
        answer = await reader.read()
        assert answer[:32] == hashlib.sha256(BLOCK * 40).digest()
        assert len(answer) == 32 + size
        assert answer[32:] == BLOCK * 40
        writer.close()
        await until(lambda: fixture.gateway.connections == 0)


@on_both_loops
async def test_a_half_close_by_the_appliance_leaves_the_other_direction_open() -> None:
    heard: list[bytes] = []

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"that is all")
        writer.write_eof()
        heard.append(await reader.read())
        writer.close()

    async with served(service) as fixture:
        reader, writer = await fixture.client()
        assert await reader.read() == b"that is all"
        writer.write(b"but I go on")
        await writer.drain()
        writer.write_eof()
        await until(lambda: heard)
        assert heard == [b"but I go on"]
        await until(lambda: fixture.gateway.connections == 0)


@on_both_loops
async def test_a_client_s_reset_is_a_reset_to_the_appliance() -> None:
    seen: list[BaseException | None] = []

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        try:
            await reader.read()
        except ConnectionResetError as exc:
            seen.append(exc)

    async with served(service) as fixture:
        reader, writer = await fixture.client()
        await reader.readexactly(1)
        reset(writer)
        await until(lambda: seen)
        await until(lambda: fixture.gateway.connections == 0)


@on_both_loops
async def test_a_reset_by_the_appliance_is_a_reset_to_the_client() -> None:
    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()

    async with served(service) as fixture:
        reader, writer = await fixture.client()
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await until(lambda: fixture.gateway.connections == 0)


@on_both_loops
async def test_a_refused_connection_resets_the_client() -> None:
    async with served(None) as fixture:
        reader, _ = await fixture.client()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert fixture.gateway.tally.refused == 1
        await until(lambda: fixture.gateway.connections == 0)


@on_both_loops
async def test_a_client_that_leaves_while_the_appliance_is_asked() -> None:
    """The appliance hears of nothing, or of a connection that ends."""
    async with served(echo) as fixture:
        for _ in range(20):
            _, writer = await fixture.client()
            reset(writer)
        await until(lambda: fixture.gateway.tally.connections == 20)
        await until(lambda: fixture.gateway.connections == 0)


@on_both_loops
async def test_an_appliance_that_reads_nothing_stops_the_client() -> None:
    """Back-pressure is carried: what lies in between is bounded by windows and buffers."""
    go = asyncio.Event()
    taken = 0

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await go.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        while data := await reader.read(1 << 20):
            taken += len(data)
        writer.close()

    async with served(service) as fixture:
        reader, writer = await fixture.client()
        total = 64 << 20
        sock = writer.get_extra_info("socket")
        writer.write(bytes(total))
        before = -1
        while writer.transport.get_write_buffer_size() != before:
            before = writer.transport.get_write_buffer_size()
            await asyncio.sleep(0.1)
        assert before > total // 2  # most of it stays with the client
        assert sock is not None
        go.set()
        writer.write_eof()
        assert await reader.read() == b""
        assert taken == total


@on_both_loops
async def test_a_client_that_reads_nothing_stops_the_appliance() -> None:
    sent = 0
    total = 64 << 20

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < total:
            writer.write(BLOCK)
            sent += len(BLOCK)
            await writer.drain()
        writer.close()

    async with served(service) as fixture:
        reader, writer = await fixture.client()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < total // 2
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        got = 0
        while data := await reader.read(1 << 20):
            got += len(data)
        assert got == total


@on_both_loops
async def test_a_hundred_connections_at_once() -> None:
    async with served(echo) as fixture:

        async def one(n: int) -> None:
            reader, writer = await fixture.client()
            for _ in range(5):
                writer.write(b"%d," % n)
            writer.write_eof()
            assert await reader.read() == b"%d," % n * 5

        await one(0)  # so that the link's addresses are known: few packets wait for that
        await asyncio.gather(*(one(n) for n in range(100)))
        await until(lambda: fixture.gateway.connections == 0)


def test_connections_over_the_limit_are_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "MAX_CONNECTIONS", 2)

    async def scenario() -> None:
        async with served(echo) as fixture:
            kept = [await fixture.client() for _ in range(2)]
            for reader, writer in kept:
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
            reader, _ = await fixture.client()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert fixture.gateway.tally.over_limit == 1
            assert fixture.gateway.connections == 2

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


def test_the_limit_is_of_all_ports_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is short is descriptors of the process."""
    monkeypatch.setattr(gateway_module, "MAX_CONNECTIONS", 2)

    async def scenario() -> None:
        async with served(echo) as fixture:
            gateway = fixture.gateway
            for relay, other in zip(gateway._relays, reversed(gateway._relays), strict=True):
                one, another, third = (_Near(relay), _Near(other), _Near(relay))
                assert relay.admit(one)
                assert other.admit(another)
                assert not relay.admit(third)
                relay.leave(third)  # which was not among them
                assert not other.admit(third)
                relay.leave(one)
                assert other.admit(third)
                for near in (another, third):
                    other.leave(near)
            assert gateway.tally.relayed == gateway.connections == 0

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


@on_both_loops
async def test_draining_waits_for_answers_and_not_for_idle_clients() -> None:
    go = asyncio.Event()

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        await go.wait()
        writer.write(b"the answer")
        writer.close()

    async with served(service) as fixture:
        reader, writer = await fixture.client()
        writer.write(b"?")
        await until(lambda: fixture.appliance.counters.tcp_accepted)
        fixture.gateway.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            await fixture.client()
        drained = asyncio.create_task(fixture.gateway.drained())
        await asyncio.sleep(0.02)
        assert not drained.done()
        go.set()
        assert await reader.read() == b"the answer"
        await drained  # although the client has not closed its side


# Datagrams.


@on_both_loops
async def test_datagrams_are_carried_for_each_client() -> None:
    async with served(None) as fixture:
        first, answers = await fixture.datagrams()
        second, other_answers = await fixture.datagrams()
        first.sendto(b"one")
        second.sendto(b"two")
        assert await answers.get() == b"ONE"
        assert await other_answers.get() == b"TWO"
        first.sendto(b"three")
        assert await answers.get() == b"THREE"
        assert fixture.gateway.tally.flows == 2


def test_an_exchange_ends_when_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "FLOW_IDLE", 0.05)

    async def scenario() -> None:
        async with served(None) as fixture:
            first, answers = await fixture.datagrams()
            first.sendto(b"one")
            assert await answers.get() == b"ONE"
            relay = fixture.gateway._datagrams
            assert relay is not None
            assert len(relay) == 1
            await until(lambda: len(relay) == 0)
            first.sendto(b"two")
            assert await answers.get() == b"TWO"
            assert fixture.gateway.tally.flows == 2
            assert fixture.gateway.tally.flows_evicted == 0

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


def test_the_idlest_exchange_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "MAX_FLOWS", 2)

    async def scenario() -> None:
        async with served(None) as fixture:
            clients = [await fixture.datagrams() for _ in range(3)]
            for n in (0, 1, 0, 2, 0):  # the last two are 0 and 2: 1 has been idle longest
                transport, answers = clients[n]
                transport.sendto(b"x")
                assert await answers.get() == b"X"
            assert fixture.gateway.tally.flows == 3
            assert fixture.gateway.tally.flows_evicted == 1

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


def test_a_datagram_longer_than_a_packet_goes_in_fragments() -> None:
    """RFC 791 §3.2: cut by one stack, put together by the other, and back."""

    async def scenario() -> None:
        async with served(None) as fixture:
            transport, answers = await fixture.datagrams()
            transport.sendto(b"long" * 5_000)
            assert await answers.get() == b"LONG" * 5_000
            assert fixture.gateway.tally.datagrams_dropped == 0
            counters = fixture.gateway._stack.counters
            assert (counters.ip_fragments_out, counters.ip_reassembled) == (14, 1)

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


# Ports.


def bound_gateway(**ports: Any) -> Gateway:
    """A gateway that listened for a moment."""

    async def scenario() -> Gateway:
        left, right = pair()
        async with Stack(right, addresses=["10.0.0.1/24"]) as stack:
            gateway = Gateway(stack, "10.0.0.2", **ports)
            await gateway.start()
            await gateway.close()
            left.close()
            return gateway

    return asyncio.run(scenario())


def test_free_ports_are_taken_as_wished() -> None:
    http, dns = free_port(), free_port()
    gateway = bound_gateway(http=http, dns=dns)
    assert (gateway.http, gateway.dns, gateway.notes) == (http, dns, [])


def test_a_taken_port_is_replaced_and_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        gateway = bound_gateway(http=taken, dns=free_port())
    assert gateway.http != taken
    assert gateway.notes == [f"port {taken} is taken: HTTP is on {gateway.http} instead"]


def test_dns_has_one_port_for_both_transports() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        taken = holder.getsockname()[1]
        gateway = bound_gateway(http=free_port(), dns=taken)
    assert gateway.dns != taken
    assert gateway.notes == [f"port {taken} is taken: DNS is on {gateway.dns} instead"]


def test_an_address_that_is_not_of_this_host() -> None:
    with pytest.raises(ports.PortsError, match=r"cannot listen on 192\.0\.2\.1"):
        bound_gateway(bind="192.0.2.1")


def test_no_port_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(ports, "_bind", refuse)
    with pytest.raises(ports.PortsError, match=r"no port of 127\.0\.0\.1 is free: port 8080 is"):
        bound_gateway()
