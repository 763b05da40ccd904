"""One behaviour, two stacks: what asyncio's own transports promise to protocols, ours promise too.

Every scenario runs on asyncio's loopback sockets first, so that it states what asyncio does and not
what we think it does, and then on two of our stacks over a pair, on the default loop and on uvloop.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from appliance.net import Stack
from appliance.net.vif.pair import pair

DEADLINE = 60.0  # seconds; a scenario that takes them hangs


class Net:
    """A server's side and a client's side of one network, whichever it is."""

    server_host: str

    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []  # what reached the loop's exception handler
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))

    async def listen(self, factory: Callable[[], Any]) -> tuple[Any, int]:
        raise NotImplementedError

    async def connect(self, factory: Callable[[], Any], port: int) -> tuple[Any, Any]:
        raise NotImplementedError

    async def server_datagrams(self, factory: Callable[[], Any]) -> tuple[Any, Any]:
        raise NotImplementedError

    async def client_datagrams(
        self, factory: Callable[[], Any], remote: tuple[str, int] | None = None
    ) -> tuple[Any, Any]:
        raise NotImplementedError

    def reset(self, transport: Any) -> None:
        """Abort so that the peer sees a reset."""
        transport.abort()

    async def close(self) -> None:
        pass

    async def joined(
        self, server: Callable[[], Any], client: Callable[[], Any]
    ) -> tuple[Any, Any, Any]:
        """A connection: the server's protocol, the client's transport and protocol."""
        made: list[Any] = []

        def factory() -> Any:
            made.append(server())
            return made[-1]

        _, port = await self.listen(factory)
        transport, protocol = await self.connect(client, port)
        await until(lambda: made and made[0].transport is not None)
        return made[0], transport, protocol


class Kernel(Net):
    server_host = "127.0.0.1"

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Any] = []  # protocols whose transports must be closed, or asyncio warns
        self.servers: list[asyncio.Server] = []  # likewise

    def kept(self, factory: Callable[[], Any]) -> Callable[[], Any]:
        def make() -> Any:
            protocol = factory()
            self.open.append(protocol)
            return protocol

        return make

    async def close(self) -> None:
        for server in self.servers:
            server.close()
        for protocol in self.open:
            transport = getattr(protocol, "transport", None)
            if transport is not None and not transport.is_closing():
                transport.abort()
        await asyncio.sleep(0)

    async def listen(self, factory: Callable[[], Any]) -> tuple[Any, int]:
        server = await self.loop.create_server(self.kept(factory), self.server_host, 0, backlog=256)
        self.servers.append(server)
        return server, server.sockets[0].getsockname()[1]

    async def connect(self, factory: Callable[[], Any], port: int) -> tuple[Any, Any]:
        return await self.loop.create_connection(self.kept(factory), self.server_host, port)

    async def server_datagrams(self, factory: Callable[[], Any]) -> tuple[Any, Any]:
        return await self.loop.create_datagram_endpoint(self.kept(factory), (self.server_host, 0))

    async def client_datagrams(
        self, factory: Callable[[], Any], remote: tuple[str, int] | None = None
    ) -> tuple[Any, Any]:
        local = None if remote else (self.server_host, 0)
        return await self.loop.create_datagram_endpoint(self.kept(factory), local, remote)

    def reset(self, transport: Any) -> None:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()


class Ours(Net):
    server_host = "10.0.0.2"

    def __init__(self) -> None:
        super().__init__()
        left, right = pair()
        self.server = Stack(left, addresses=["10.0.0.2/24"])
        self.client = Stack(right, addresses=["10.0.0.1/24"])

    async def start(self) -> None:
        await self.server.start()
        await self.client.start()

    async def listen(self, factory: Callable[[], Any]) -> tuple[Any, int]:
        server = await self.server.create_server(factory, self.server_host, 0, backlog=256)
        return server, server.addresses[0][1]

    async def connect(self, factory: Callable[[], Any], port: int) -> tuple[Any, Any]:
        return await self.client.create_connection(factory, self.server_host, port)

    async def server_datagrams(self, factory: Callable[[], Any]) -> tuple[Any, Any]:
        return await self.server.create_datagram_endpoint(factory, (self.server_host, 0))

    async def client_datagrams(
        self, factory: Callable[[], Any], remote: tuple[str, int] | None = None
    ) -> tuple[Any, Any]:
        return await self.client.create_datagram_endpoint(factory, remote_addr=remote)

    async def close(self) -> None:
        await self.client.close(0.2)
        await self.server.close(0.2)


KINDS: dict[str, tuple[type[Net], Callable[[], asyncio.AbstractEventLoop]]] = {
    "kernel": (Kernel, asyncio.new_event_loop),
    "ours": (Ours, asyncio.new_event_loop),
    "ours-uvloop": (Ours, uvloop.new_event_loop),
}
Scenario = Callable[[Net], Coroutine[Any, Any, None]]


def everywhere(scenario: Scenario) -> Callable[[str], None]:
    """Run a scenario on each kind of network; it fails on errors that it does not take away."""

    async def play(kind: type[Net]) -> None:
        net = kind()
        if isinstance(net, Ours):
            await net.start()
        try:
            async with asyncio.timeout(DEADLINE):
                await scenario(net)
        finally:
            await net.close()
        assert net.errors == []

    @pytest.mark.parametrize("kind", KINDS)
    def run(kind: str) -> None:
        net, loop_factory = KINDS[kind]
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(play(net))

    run.__doc__ = scenario.__doc__
    return run


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until the condition holds; the scenario's deadline is the bound."""
    while not condition():  # noqa: ASYNC110 - any condition, of protocols that know no events
        await asyncio.sleep(0.001)


async def settle() -> None:
    """Let whatever is under way arrive; only for asserting that something did *not* happen."""
    await asyncio.sleep(0.05)


class Recorder(asyncio.Protocol):
    """Writes down every callback, and the data."""

    keep_open: bool | None = None

    def __init__(self) -> None:
        self.transport: Any = None
        self.events: list[str] = []
        self.data = bytearray()
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.data += data
        if self.events[-1] != "data":
            self.events.append("data")

    def eof_received(self) -> bool | None:
        self.events.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.error = exc

    @property
    def lost(self) -> bool:
        return "lost" in self.events


class KeepOpen(Recorder):
    keep_open = True


class Echo(Recorder):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


def pattern(size: int) -> bytes:
    """Octets that differ from any shift of themselves by less than 64 KB."""
    return b"".join(struct.pack("!I", n) for n in range(size // 4))


# Streams.


@everywhere
async def test_echo(net: Net) -> None:
    server, transport, client = await net.joined(Echo, Recorder)
    transport.write(b"hello")
    await until(lambda: client.data == b"hello")
    assert server.events == ["made", "data"]
    assert client.events == ["made", "data"]


@everywhere
async def test_each_side_knows_both_addresses(net: Net) -> None:
    server, transport, _ = await net.joined(Recorder, Recorder)
    assert transport.get_extra_info("peername") == server.transport.get_extra_info("sockname")
    assert transport.get_extra_info("sockname") == server.transport.get_extra_info("peername")
    assert transport.get_extra_info("peername")[0] == net.server_host
    assert transport.get_extra_info("no such thing", 7) == 7


@everywhere
async def test_what_the_server_says_first_comes_after_connection_made(net: Net) -> None:
    class Greeter(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.write(b"220 ready")

    _, _, client = await net.joined(Greeter, Recorder)
    await until(lambda: client.data == b"220 ready")
    assert client.events == ["made", "data"]


@everywhere
async def test_big_transfer_pauses_and_resumes_the_writer(net: Net) -> None:
    block = pattern(256 * 1024)
    count = 64

    class Feeder(Recorder):
        left = count

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.feed()

        def feed(self) -> None:
            while self.left and self.events[-1] != "pause":
                self.left -= 1
                self.transport.write(block)
            if not self.left:
                # Not at once: asyncio of Python 3.11 trips over close() inside resume_writing().
                asyncio.get_running_loop().call_soon(self.transport.close)

        def resume_writing(self) -> None:
            super().resume_writing()
            self.feed()

    class Digest(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.size = 0
            self.hash = hashlib.sha256()

        def data_received(self, data: bytes) -> None:
            self.size += len(data)
            self.hash.update(data)

    server, _, client = await net.joined(Feeder, Digest)
    await until(lambda: client.lost)
    assert client.size == count * len(block)
    assert client.hash.digest() == hashlib.sha256(block * count).digest()
    assert client.events == ["made", "eof", "lost"]
    await until(lambda: server.lost)
    turns = [event for event in server.events if event in ("pause", "resume")]
    assert turns.count("pause") > 1
    assert turns == (["pause", "resume"] * count)[: len(turns)]


@everywhere
async def test_echo_of_more_than_all_buffers_in_both_directions(net: Net) -> None:
    class Careful(Echo):
        """Reads only while its own writes go out, as an echo should."""

        def pause_writing(self) -> None:
            super().pause_writing()
            self.transport.pause_reading()

        def resume_writing(self) -> None:
            super().resume_writing()
            self.transport.resume_reading()

    data = pattern(8 * 1024 * 1024)
    _, transport, client = await net.joined(Careful, Recorder)
    transport.write(data)
    await until(lambda: len(client.data) == len(data))
    assert client.data == data


@everywhere
async def test_a_paused_reader_stops_the_writer_and_loses_nothing(net: Net) -> None:
    server, transport, client = await net.joined(Recorder, Recorder)
    server.transport.pause_reading()
    assert not server.transport.is_reading()
    data = pattern(16 * 1024 * 1024)
    transport.write(data)
    await until(lambda: client.events[-1] == "pause")
    await settle()
    assert server.data == b""
    assert client.events == ["made", "pause"]
    assert transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]
    server.transport.resume_reading()
    assert server.transport.is_reading()
    await until(lambda: len(server.data) == len(data))
    assert server.data == data
    await until(lambda: client.events[-1] == "resume")
    assert transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[0]


@everywhere
async def test_pausing_inside_data_received_holds_from_the_next_octet(net: Net) -> None:
    class OneAtATime(Recorder):
        calls = 0

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.calls += 1
            self.transport.pause_reading()

    server, transport, _ = await net.joined(OneAtATime, Recorder)
    transport.write(b"first")
    await until(lambda: server.data == b"first")
    transport.write(b"second")
    await settle()
    assert server.data == b"first"
    server.transport.resume_reading()
    await until(lambda: server.data == b"firstsecond")
    assert server.calls == 2


@everywhere
async def test_pause_and_resume_reading_may_be_repeated(net: Net) -> None:
    server, transport, _ = await net.joined(Recorder, Recorder)
    for _ in range(2):
        server.transport.pause_reading()
    for _ in range(2):
        server.transport.resume_reading()
    assert server.transport.is_reading()
    transport.write(b"x")
    await until(lambda: server.data == b"x")


@everywhere
async def test_a_paused_reader_hears_of_the_end_only_after_resuming(net: Net) -> None:
    server, transport, _ = await net.joined(Recorder, Recorder)
    server.transport.pause_reading()
    transport.write(b"last words")
    transport.close()
    await settle()
    assert server.events == ["made"]
    server.transport.resume_reading()
    await until(lambda: server.lost)
    assert server.events == ["made", "data", "eof", "lost"]
    assert server.data == b"last words"


@everywhere
async def test_a_paused_reader_hears_of_a_bare_end_only_after_resuming(net: Net) -> None:
    server, transport, _ = await net.joined(Recorder, Recorder)
    server.transport.pause_reading()
    transport.write_eof()
    await settle()
    assert server.events == ["made"]
    server.transport.resume_reading()
    await until(lambda: server.lost)
    assert server.events == ["made", "eof", "lost"]


@everywhere
async def test_a_paused_reader_that_has_ended_hears_of_the_end_too(net: Net) -> None:
    server, transport, client = await net.joined(Recorder, Recorder)
    server.transport.pause_reading()
    server.transport.write_eof()
    await until(lambda: "eof" in client.events)
    transport.close()
    await settle()
    assert "eof" not in server.events
    assert not server.lost
    server.transport.resume_reading()
    await until(lambda: server.lost)
    assert server.events[-2:] == ["eof", "lost"]


@everywhere
async def test_write_eof_closes_one_direction_only(net: Net) -> None:
    server, transport, client = await net.joined(KeepOpen, Recorder)
    assert transport.can_write_eof()
    transport.write(b"question")
    transport.write_eof()
    transport.write_eof()
    await until(lambda: "eof" in server.events)
    assert server.data == b"question"
    server.transport.write(b"long ")
    await until(lambda: client.data == b"long ")
    server.transport.write(b"answer")
    await until(lambda: client.data == b"long answer")
    assert not transport.is_closing()
    server.transport.close()
    await until(lambda: client.lost and server.lost)
    assert server.events == ["made", "data", "eof", "lost"]
    assert client.events == ["made", "data", "eof", "lost"]
    assert (server.error, client.error) == (None, None)


@everywhere
async def test_write_eof_comes_after_what_is_queued(net: Net) -> None:
    data = pattern(4 * 1024 * 1024)
    server, transport, _ = await net.joined(Recorder, Recorder)
    transport.write(data)
    transport.write_eof()
    await until(lambda: server.lost)
    assert server.data == data


@everywhere
async def test_eof_received_none_closes(net: Net) -> None:
    server, transport, client = await net.joined(Recorder, Recorder)
    transport.write_eof()
    await until(lambda: server.lost and client.lost)
    assert server.events == ["made", "eof", "lost"]
    assert server.error is None
    assert client.events == ["made", "eof", "lost"]


@everywhere
async def test_eof_received_true_keeps_the_transport_open(net: Net) -> None:
    server, transport, client = await net.joined(KeepOpen, Recorder)
    transport.write_eof()
    await until(lambda: "eof" in server.events)
    await settle()
    assert not server.transport.is_closing()
    assert not server.lost
    server.transport.write(b"still here")
    await until(lambda: client.data == b"still here")
    server.transport.close()
    await until(lambda: server.lost and client.lost)


@everywhere
async def test_close_sends_what_is_queued_first(net: Net) -> None:
    data = pattern(8 * 1024 * 1024)
    server, transport, client = await net.joined(Recorder, Recorder)
    transport.write(data)
    transport.close()
    assert transport.is_closing()
    await until(lambda: server.lost and client.lost)
    assert server.data == data
    assert server.events == ["made", "data", "eof", "lost"]
    assert (server.error, client.error) == (None, None)


@everywhere
async def test_connection_lost_is_never_called_from_inside_close_or_abort(net: Net) -> None:
    for end in ("close", "abort"):
        _, transport, client = await net.joined(Recorder, Recorder)
        getattr(transport, end)()
        assert transport.is_closing()
        assert not client.lost
        await until(lambda client=client: client.lost)
        assert client.error is None


@everywhere
async def test_connection_lost_comes_exactly_once(net: Net) -> None:
    server, transport, client = await net.joined(Recorder, Recorder)
    transport.write(b"x")
    transport.close()
    transport.close()
    transport.abort()
    transport.abort()
    await until(lambda: server.lost and client.lost)
    transport.close()
    transport.abort()
    await settle()
    assert client.events.count("lost") == 1
    assert server.events.count("lost") == 1


@everywhere
async def test_a_protocol_can_be_asked_for_until_it_has_heard_of_the_end(net: Net) -> None:
    class Asking(Recorder):
        def connection_lost(self, exc: Exception | None) -> None:
            self.asked = self.transport.get_protocol()
            super().connection_lost(exc)

    server, transport, _ = await net.joined(Asking, Recorder)
    transport.close()
    await until(lambda: server.lost)
    assert server.asked is server


@everywhere
async def test_no_data_after_close(net: Net) -> None:
    class Hasty(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.close()

    server, transport, client = await net.joined(Hasty, Recorder)
    for _ in range(4):
        transport.write(b"x")
        await asyncio.sleep(0)
    await until(lambda: server.lost and client.lost)
    seen = bytes(server.data)
    await settle()
    assert server.data == seen
    assert server.events == ["made", "data", "lost"]


@everywhere
async def test_abort_drops_what_is_queued(net: Net) -> None:
    server, transport, client = await net.joined(Recorder, Recorder)
    server.transport.pause_reading()
    transport.write(bytes(32 * 1024 * 1024))
    transport.abort()
    assert transport.get_write_buffer_size() == 0
    await until(lambda: client.lost)
    assert client.error is None
    server.transport.resume_reading()
    await until(lambda: server.lost)
    assert len(server.data) < 32 * 1024 * 1024


@everywhere
async def test_a_reset_is_told_as_connection_reset(net: Net) -> None:
    server, transport, client = await net.joined(Recorder, Recorder)
    net.reset(transport)
    await until(lambda: server.lost and client.lost)
    assert isinstance(server.error, ConnectionResetError)
    assert server.events == ["made", "lost"]
    assert client.error is None


@everywhere
async def test_a_refused_connection(net: Net) -> None:
    server, port = await net.listen(Recorder)
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await net.connect(Recorder, port)


@everywhere
async def test_writes_after_the_end(net: Net) -> None:
    server, transport, client = await net.joined(KeepOpen, Recorder)
    transport.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        transport.write(b"x")
    _, transport, client = await net.joined(Recorder, Recorder)
    transport.close()
    transport.write(b"into the void")
    await until(lambda: client.lost)
    transport.write(b"into the void")
    assert client.error is None
    assert not server.transport.is_closing()


@everywhere
async def test_only_octets_are_written(net: Net) -> None:
    _, transport, client = await net.joined(Echo, Recorder)
    for wrong in ("text", 7, None):
        with pytest.raises(TypeError):
            transport.write(wrong)
    buffer = bytearray(b"bytearray ")
    transport.write(b"")
    transport.write(buffer)
    buffer[:] = b"overwritte"
    view = memoryview(b"--memoryview--")[2:-2]
    transport.write(view)
    transport.writelines([b" of", bytearray(b" several"), memoryview(b" buffers")])
    expected = b"bytearray memoryview of several buffers"
    await until(lambda: len(client.data) == len(expected))
    assert client.data == expected


@everywhere
async def test_many_small_writes_arrive_in_order(net: Net) -> None:
    pieces = [b"%d," % n for n in range(5000)]
    server, transport, _ = await net.joined(Recorder, Recorder)
    for piece in pieces:
        transport.write(piece)
    transport.close()
    await until(lambda: server.lost)
    assert server.data == b"".join(pieces)


@everywhere
async def test_write_buffer_limits(net: Net) -> None:
    server, transport, client = await net.joined(Recorder, Recorder)
    assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    for high, low, expected in (
        (1000, None, (250, 1000)),
        (None, 500, (500, 2000)),
        (7, 7, (7, 7)),
        (None, None, (16 * 1024, 64 * 1024)),
    ):
        transport.set_write_buffer_limits(high, low)
        assert transport.get_write_buffer_limits() == expected
    for high, low in ((1, 2), (10, -1)):
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high, low)
    server.transport.pause_reading()
    transport.set_write_buffer_limits(high=0)
    transport.write(pattern(16 * 1024 * 1024))
    assert client.events == ["made", "pause"]
    server.transport.resume_reading()
    await until(lambda: client.events == ["made", "pause", "resume"])
    assert transport.get_write_buffer_size() == 0


@everywhere
async def test_an_exception_in_data_received_costs_that_connection_only(net: Net) -> None:
    class Faulty(Echo):
        def data_received(self, data: bytes) -> None:
            if data == b"crash":
                raise LookupError("bug in the protocol")
            super().data_received(data)

    made: list[Faulty] = []

    def factory() -> Faulty:
        made.append(Faulty())
        return made[-1]

    _, port = await net.listen(factory)
    bad, bad_client = await net.connect(Recorder, port)
    good, good_client = await net.connect(Recorder, port)
    bad.write(b"crash")
    good.write(b"hello")
    await until(lambda: bad_client.lost and good_client.data == b"hello")
    await until(lambda: made[0].lost)
    assert isinstance(made[0].error, LookupError)
    (context,) = net.errors
    assert isinstance(context["exception"], LookupError)
    assert context["protocol"] is made[0]
    net.errors.clear()
    good.write(b" again")
    await until(lambda: good_client.data == b"hello again")


@everywhere
async def test_an_exception_in_eof_received_costs_that_connection_only(net: Net) -> None:
    class Faulty(Recorder):
        def eof_received(self) -> bool | None:
            raise LookupError("bug in the protocol")

    server, transport, _ = await net.joined(Faulty, Recorder)
    transport.write_eof()
    await until(lambda: server.lost)
    assert isinstance(server.error, LookupError)
    assert [type(context["exception"]) for context in net.errors] == [LookupError]
    net.errors.clear()


@everywhere
async def test_another_protocol_takes_over(net: Net) -> None:
    server, transport, _ = await net.joined(Recorder, Recorder)
    transport.write(b"to the first")
    await until(lambda: server.data == b"to the first")
    heir = Echo()
    heir.connection_made(server.transport)
    server.transport.set_protocol(heir)
    assert server.transport.get_protocol() is heir
    transport.write(b"to the second")
    await until(lambda: heir.data == b"to the second")
    transport.close()
    await until(lambda: heir.lost)
    assert not server.lost


class Buffered(asyncio.BufferedProtocol):
    """Reads through a buffer of its own, far smaller than what arrives at once."""

    size = 1000

    def __init__(self) -> None:
        self.transport: Any = None
        self.buffer = bytearray(self.size)
        self.data = bytearray()
        self.events: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert 0 < nbytes <= self.size
        self.data += self.buffer[:nbytes]

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")


@everywhere
async def test_buffered_protocol(net: Net) -> None:
    data = pattern(100_000)
    server, transport, _ = await net.joined(Buffered, Recorder)
    transport.write(data)
    transport.close()
    await until(lambda: server.events == ["eof", "lost"])
    assert server.data == data


@everywhere
async def test_buffered_protocol_that_pauses_between_its_buffers(net: Net) -> None:
    class Pausing(Buffered):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.pause_reading()

    data = pattern(20_000)
    server, transport, _ = await net.joined(Pausing, Recorder)
    transport.write(data)
    transport.write_eof()
    await until(lambda: server.data)
    await settle()
    assert len(server.data) <= server.size
    while len(server.data) < len(data):
        before = len(server.data)
        server.transport.resume_reading()
        await until(lambda before=before: len(server.data) > before)
    server.transport.resume_reading()
    await until(lambda: server.events == ["eof", "lost"])
    assert server.data == data


@everywhere
async def test_a_paused_buffered_protocol_loses_nothing_when_both_ends_have_ended(net: Net) -> None:
    class Pausing(Buffered):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.pause_reading()

    data = pattern(5_000)
    server, transport, _ = await net.joined(Pausing, Recorder)
    server.transport.write_eof()
    transport.write(data)
    transport.write_eof()
    await until(lambda: server.data)
    await settle()
    assert server.events == []
    while len(server.data) < len(data):
        before = len(server.data)
        server.transport.resume_reading()
        await until(lambda before=before: len(server.data) > before)
    server.transport.resume_reading()
    await until(lambda: server.events == ["eof", "lost"])
    assert server.data == data


@everywhere
async def test_no_buffer_is_filled_after_close(net: Net) -> None:
    class Closing(Buffered):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.close()

    server, transport, _ = await net.joined(Closing, Recorder)
    transport.write(pattern(5_000))
    await until(lambda: server.events == ["lost"])
    assert len(server.data) <= server.size


@everywhere
async def test_buffered_protocol_without_a_buffer(net: Net) -> None:
    class Empty(Buffered):
        size = 0

    server, transport, _ = await net.joined(Empty, Recorder)
    transport.write(b"x")
    await until(lambda: server.events == ["lost"])
    assert [type(context["exception"]) for context in net.errors] == [RuntimeError]
    net.errors.clear()


@everywhere
async def test_a_server_stops_accepting_and_keeps_its_connections(net: Net) -> None:
    made: list[Echo] = []

    def factory() -> Echo:
        made.append(Echo())
        return made[-1]

    server, port = await net.listen(factory)
    assert server.is_serving()
    transport, client = await net.connect(Recorder, port)
    await until(lambda: made and made[0].transport)
    server.close()
    server.close()
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await net.connect(Recorder, port)
    transport.write(b"still open")
    await until(lambda: client.data == b"still open")
    transport.close()
    await until(lambda: made[0].lost)
    await server.wait_closed()


@everywhere
async def test_serve_forever_until_cancelled(net: Net) -> None:
    server, port = await net.listen(Echo)
    forever = asyncio.create_task(server.serve_forever())
    transport, client = await net.connect(Recorder, port)
    transport.write(b"x")
    await until(lambda: client.data == b"x")
    transport.close()
    await until(lambda: client.lost)
    forever.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forever
    assert not server.is_serving()


@everywhere
async def test_two_hundred_connections_at_once(net: Net) -> None:
    _, port = await net.listen(Echo)
    joined = await asyncio.gather(*(net.connect(Recorder, port) for _ in range(200)))
    for n, (transport, _) in enumerate(joined):
        transport.write(pattern(4096) + b"%d" % n)
    await until(lambda: all(len(client.data) > 4096 for _, client in joined))
    for n, (transport, client) in enumerate(joined):
        assert client.data == pattern(4096) + b"%d" % n
        transport.close()
    await until(lambda: all(client.lost for _, client in joined))


@everywhere
async def test_stream_reader_and_writer(net: Net) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    assert isinstance(net, Ours | Kernel)
    if isinstance(net, Ours):
        server = await net.server.start_server(serve, net.server_host, 0)
        port = server.addresses[0][1]
        reader, writer = await net.client.open_connection(net.server_host, port)
    else:
        kernel = await asyncio.start_server(serve, net.server_host, 0)
        net.servers.append(kernel)
        port = kernel.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(net.server_host, port)
    for n in range(20):
        writer.write(b"line %d\n" % n)
        await writer.drain()
        assert await reader.readline() == b"LINE %d\n" % n
    body = b"x" * 30_000 + b"\n"
    writer.write(body)
    writer.write_eof()
    assert await reader.read() == body.upper()
    writer.close()
    await writer.wait_closed()


# Datagrams.


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.transport: Any = None
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class DatagramEcho(Datagrams):
    def datagram_received(self, data: bytes, addr: Any) -> None:
        super().datagram_received(data, addr)
        self.transport.sendto(data.upper(), addr)


@everywhere
async def test_datagrams_are_answered(net: Net) -> None:
    there, _ = await net.server_datagrams(DatagramEcho)
    address = there.get_extra_info("sockname")
    here, client = await net.client_datagrams(Datagrams)
    for n in range(10):
        here.sendto(b"ping %d" % n, address)
        await until(lambda n=n: len(client.received) == n + 1)
    here.sendto(bytearray(b"octets"), address)
    await until(lambda: len(client.received) == 11)
    assert client.received[0] == (b"PING 0", address)
    assert client.received[10] == (b"OCTETS", address)


@everywhere
async def test_connected_datagrams(net: Net) -> None:
    there, server = await net.server_datagrams(DatagramEcho)
    stranger, _ = await net.server_datagrams(Datagrams)
    address = there.get_extra_info("sockname")
    here, client = await net.client_datagrams(Datagrams, address)
    assert here.get_extra_info("peername") == address
    here.sendto(b"one")
    here.sendto(b"two", address)
    with pytest.raises(ValueError, match="Invalid address"):
        here.sendto(b"three", (address[0], 1))
    await until(lambda: len(client.received) == 2)
    stranger.sendto(b"not for you", server.received[0][1])
    await settle()
    assert [data for data, _ in client.received] == [b"ONE", b"TWO"]


@everywhere
async def test_a_datagram_to_a_closed_port(net: Net) -> None:
    there, _ = await net.server_datagrams(Datagrams)
    address = there.get_extra_info("sockname")
    there.close()
    await settle()
    here, client = await net.client_datagrams(Datagrams, address)
    here.sendto(b"anyone?")
    await until(lambda: client.errors)
    assert isinstance(client.errors[0], ConnectionRefusedError)
    assert not here.is_closing()


@everywhere
async def test_a_datagram_too_long(net: Net) -> None:
    there, _ = await net.server_datagrams(Datagrams)
    here, client = await net.client_datagrams(Datagrams)
    here.sendto(bytes(70_000), there.get_extra_info("sockname"))
    await until(lambda: client.errors)
    assert isinstance(client.errors[0], OSError)


@everywhere
async def test_datagram_types(net: Net) -> None:
    here, _ = await net.client_datagrams(Datagrams)
    with pytest.raises(TypeError):
        here.sendto("text", (net.server_host, 1))


@everywhere
async def test_closing_a_datagram_endpoint(net: Net) -> None:
    for end in ("close", "abort"):
        here, client = await net.client_datagrams(Datagrams)
        getattr(here, end)()
        assert here.is_closing()
        assert client.lost == []
        await until(lambda client=client: client.lost == [None])


@everywhere
async def test_an_exception_in_datagram_received_costs_one_datagram(net: Net) -> None:
    class Faulty(DatagramEcho):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            if data == b"crash":
                raise LookupError("bug in the protocol")
            super().datagram_received(data, addr)

    there, _ = await net.server_datagrams(Faulty)
    address = there.get_extra_info("sockname")
    here, client = await net.client_datagrams(Datagrams)
    here.sendto(b"crash", address)
    await until(lambda: net.errors)
    here.sendto(b"fine", address)
    await until(lambda: client.received)
    assert client.received == [(b"FINE", address)]
    assert [type(context["exception"]) for context in net.errors] == [LookupError]
    net.errors.clear()
