"""Framing, order, back-pressure and bounds of streams (RFC 1035 §4.2.2, RFC 7766)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import Catalog, DnsDatagramProtocol, DnsStreamProtocol, Streams
from appliance.dns import protocol as protocol_module
from appliance.dns.shorten import shortened
from tests.dns.util import Reply, question, zone

ZONE = zone("a A 192.0.2.1\n" + "".join(f'big TXT "{n:03d}{"x" * 250}"\n' for n in range(200)))
A = question("a.example.test.")
BIG = question("big.example.test.", "TXT")


class FakeLoop:
    """Virtual time and timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Any, tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, what: Any, *args: Any) -> Any:
        timer = (self.now + delay, what, args)
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: timer in self.timers and self.timers.remove(timer))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer[0] <= end]:
            timer = min(due, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1](*timer[2])
        self.now = end


class FakeTransport(asyncio.Transport):
    """Keeps what is written; its peer reads when told to."""

    def __init__(self, peer: Any = ("192.0.2.99", 1234)) -> None:
        super().__init__()
        self.peer = peer
        self.protocol: DnsStreamProtocol | None = None
        self.sent = bytearray()
        self.writes = 0
        self.waiting = 0
        self.reads = True
        self.high = 1 << 16
        self.reading = True
        self.closed = ""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.peer if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self.high = high

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def write(self, data: Any) -> None:
        assert not self.closed
        self.sent += data
        self.writes += 1
        if not self.reads:
            before = self.waiting
            self.waiting += len(data)
            if before <= self.high < self.waiting:
                assert self.protocol is not None
                self.protocol.pause_writing()

    def drain(self) -> None:
        assert self.protocol is not None
        self.waiting = 0
        self.protocol.resume_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed = "aborted"


class Stream:
    """A protocol between a fake loop and a fake transport."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None, **how: Any) -> None:
        self.loop = FakeLoop()
        if monkeypatch is not None:
            fake = SimpleNamespace(get_running_loop=lambda: self.loop)
            monkeypatch.setattr(protocol_module.asyncio, "get_running_loop", fake.get_running_loop)
        self.holder = SimpleNamespace(current=Catalog([ZONE]))
        self.transport = FakeTransport()
        self.protocol = DnsStreamProtocol(self.holder, **how)
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    def replies(self) -> list[Reply]:
        data, out = bytes(self.transport.sent), []
        while data:
            length = int.from_bytes(data[:2], "big")
            out.append(Reply(data[2 : 2 + length]))
            assert len(data) >= 2 + length
            data = data[2 + length :]
        return out


def framed(*messages: bytes) -> bytes:
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


def numbered(count: int, message: bytes = A) -> list[bytes]:
    return [number.to_bytes(2, "big") + message[2:] for number in range(count)]


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    return Stream(monkeypatch)


def test_many_queries_in_one_segment_are_answered_in_one_write(stream: Stream) -> None:
    """RFC 7766 §6.2.1.1 (pipelining), §8 (length and message leave together)."""
    stream.protocol.data_received(framed(*numbered(50)))
    assert stream.transport.writes == 1
    assert [reply.message.id for reply in stream.replies()] == list(range(50))
    assert stream.holder.current.counters.tcp_queries == 50


def test_octet_by_octet_is_the_same_as_at_once(stream: Stream) -> None:
    """RFC 1035 §4.2.2; streams have no boundaries."""
    for octet in framed(*numbered(5)):
        stream.protocol.data_received(bytes((octet,)))
    assert [reply.message.id for reply in stream.replies()] == list(range(5))


@given(st.lists(st.integers(1, 90), max_size=30))
def test_any_cuts_give_the_same_answers(cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stream = Stream(patch)
        data = framed(*numbered(20))
        for cut in cuts:
            stream.protocol.data_received(data[:cut])
            data = data[cut:]
        stream.protocol.data_received(data)
        assert [reply.message.id for reply in stream.replies()] == list(range(20))


def test_a_swapped_catalog_answers_the_next_query(stream: Stream) -> None:
    stream.protocol.data_received(framed(A))
    stream.holder.current = Catalog([])
    stream.protocol.data_received(framed(A))
    assert [reply.rcode for reply in stream.replies()] == ["NOERROR", "REFUSED"]


def test_back_pressure(stream: Stream) -> None:
    """A peer that reads nothing gets a bounded number of answers until it reads."""
    stream.transport.reads = False
    stream.protocol.data_received(framed(*numbered(50, BIG)))
    one = len(stream.holder.current.answer(BIG, transport="tcp") or b"") + 2
    assert not stream.transport.reading
    assert (
        stream.transport.high < stream.transport.waiting < stream.transport.high + 2 * one + 65536
    )
    rounds = 0
    while not stream.transport.reading:
        stream.transport.drain()
        rounds += 1
    assert rounds > 4
    assert [reply.message.id for reply in stream.replies()] == list(range(50))


def test_eof_behind_back_pressure_waits_for_the_answers(stream: Stream) -> None:
    stream.transport.reads = False
    stream.protocol.data_received(framed(*numbered(20, BIG)))
    assert stream.protocol.eof_received() is True
    while not stream.transport.closed:
        stream.transport.drain()
    assert len(stream.replies()) == 20
    assert stream.transport.closed == "closed"


def test_eof_otherwise_closes_at_once(stream: Stream) -> None:
    assert not stream.protocol.eof_received()


@pytest.mark.parametrize("octets", [b"\0\0", b"\0\x0b" + bytes(11)])
def test_what_cannot_be_a_message_ends_the_stream(stream: Stream, octets: bytes) -> None:
    stream.protocol.data_received(framed(A) + octets + framed(A))
    assert len(stream.replies()) == 1
    assert stream.transport.closed == "closed"
    assert stream.holder.current.counters.tcp_garbage == 1
    stream.protocol.data_received(framed(A))
    assert len(stream.replies()) == 1


def test_malformed_messages_get_their_answer_and_the_stream_goes_on(stream: Stream) -> None:
    stream.protocol.data_received(framed(A[:12] + b"\xff" * 20, A[:2] + b"\x80" + A[3:], A))
    assert [reply.rcode for reply in stream.replies()] == ["FORMERR", "NOERROR"]


def test_idle_streams_are_closed(stream: Stream) -> None:
    """RFC 7766 §6.2.3: after some seconds, counted from the last query."""
    stream.loop.advance(9.9)
    stream.protocol.data_received(framed(A))
    stream.loop.advance(9.9)
    assert not stream.transport.closed
    stream.loop.advance(0.2)
    assert stream.transport.closed == "closed"
    assert stream.holder.current.counters.tcp_idle == 1


def updating(monkeypatch: pytest.MonkeyPatch) -> tuple[Stream, list[Any]]:
    """A stream whose server takes updates, and who waits for their answers."""
    stream, answers = Stream(monkeypatch), list[Any]()
    services: Any = SimpleNamespace(takes=lambda _opcode: True)
    stream.holder.current = Catalog([ZONE], services=services)
    stream.protocol._update = lambda _message, _peer, reply: answers.append(reply)
    return stream, answers


def test_rfc7766_6_2_3_who_waits_for_an_answer_is_not_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An update may wait for the disk, or for primaries that are not there one after the other."""
    stream, answers = updating(monkeypatch)
    update = A[:2] + b"\x28\0" + A[4:]
    stream.loop.call_soon = lambda what: stream.loop.call_later(0.0, what)  # type: ignore[attr-defined]
    stream.protocol.data_received(framed(update))
    stream.loop.advance(25)
    assert not stream.transport.closed
    answers[0](update)
    assert bytes(stream.transport.sent) == framed(update)
    stream.loop.advance(9.9)
    assert not stream.transport.closed
    stream.loop.advance(0.2 + 10)
    assert stream.transport.closed == "closed"


def test_nobody_is_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, _ = updating(monkeypatch)
    stream.protocol.data_received(framed(A[:2] + b"\x28\0" + A[4:]))
    stream.loop.advance(65)
    assert not stream.transport.closed
    stream.loop.advance(15)
    assert stream.transport.closed == "closed"


def test_half_a_query_is_no_query(stream: Stream) -> None:
    for octet in framed(A)[:12]:
        stream.protocol.data_received(bytes((octet,)))
        stream.loop.advance(1)
    assert stream.transport.closed == "closed"


def test_a_peer_that_does_not_read_is_aborted(stream: Stream) -> None:
    stream.transport.reads = False
    stream.protocol.data_received(framed(*numbered(100, BIG)))
    stream.loop.advance(11)
    assert stream.transport.closed == "aborted"


def test_no_timer_is_left_behind(stream: Stream) -> None:
    stream.protocol.connection_lost(None)
    assert stream.loop.timers == []
    stream.protocol.data_received(framed(A))
    assert not stream.transport.sent


def test_limits_for_all_and_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7766 §6.2.2: limits per client, so that one cannot shut out the others."""
    streams = Streams(3, 2)
    first = Stream(monkeypatch, streams=streams)
    second = Stream(monkeypatch, streams=streams)
    third = Stream(monkeypatch, streams=streams)
    assert [one.transport.closed for one in (first, second, third)] == ["", "", "aborted"]
    assert third.holder.current.counters.tcp_refused == 1
    third.protocol.connection_lost(None)
    first.protocol.connection_lost(None)
    assert Stream(monkeypatch, streams=streams).transport.closed == ""
    assert streams.enter("elsewhere")
    assert not streams.enter("and more")
    assert streams.total == 3


def test_datagrams_are_answered_at_once() -> None:
    sent: list[tuple[bytes, Any]] = []
    holder = SimpleNamespace(current=Catalog([ZONE]))
    protocol = DnsDatagramProtocol(holder)
    protocol.datagram_received(A, ("192.0.2.9", 5))
    assert sent == []  # not bound yet
    transport = SimpleNamespace(sendto=lambda data, addr: sent.append((data, addr)))
    protocol.connection_made(transport)  # type: ignore[arg-type]
    protocol.datagram_received(A, ("192.0.2.9", 5))
    protocol.datagram_received(b"short", ("192.0.2.9", 5))
    protocol.error_received(OSError())
    assert [addr for _, addr in sent] == [("192.0.2.9", 5)]
    assert Reply(sent[0][0]).answer == ["a.example.test. A 192.0.2.1"]
    assert holder.current.counters.udp_queries == 3
    protocol.connection_lost(None)
    protocol.datagram_received(A, ("192.0.2.9", 5))
    assert len(sent) == 1


def test_an_answer_that_its_path_does_not_carry() -> None:
    """RFC 9715 §3.1, R4: with TC and the question; RFC 6891 §6.1.1: and the OPT, if there was."""
    holder = SimpleNamespace(current=Catalog([ZONE]))
    protocol = DnsDatagramProtocol(holder)
    for edns in (False, True):
        asks = question("a.example.test.", use_edns=edns)
        whole = protocol.answer_datagram(asks, ("192.0.2.9", 5))
        assert whole is not None
        short = protocol.shorten_datagram(whole)
        assert short is not None
        assert short[2:4] == bytes((whole[2] | 2, whole[3]))
        assert short[4:12] == bytes((0, 1, 0, 0, 0, 0, 0, edns))
        asked = len(b"\1a\7example\4test\0") + 4
        assert short[12 : 12 + asked] == whole[12 : 12 + asked]
        assert len(short) == 12 + asked + (11 if edns else 0)
        assert whole.endswith(short[12 + asked :])
        assert not Reply(short).answer
    assert holder.current.counters.truncated == 2


@given(st.binary(max_size=100))
def test_whatever_is_no_answer_is_left_as_it_is(octets: bytes) -> None:
    """And what is signed (RFC 8945 §5.3): nobody could verify less of it."""
    short = shortened(octets)
    assert short is None or len(short) <= len(octets)
    signed = octets[:4].ljust(4, b"\0") + b"\0\0\0\0\0\0\0\1" + b"\0\0\xfa\0\xff" + bytes(6)
    assert shortened(signed) is None


def test_each_datagram_is_answered_by_the_catalog_of_the_moment() -> None:
    """One that took another's place, one whose tables are new, and one that is looked at."""
    first, second = Catalog([ZONE]), Catalog([])
    holder = SimpleNamespace(current=first)
    ask = DnsDatagramProtocol(holder).answer_datagram

    def records() -> list[str]:
        answer = ask(A, ("192.0.2.9", 5))
        assert answer is not None
        return Reply(answer).answer

    assert records() == ["a.example.test. A 192.0.2.1"]
    holder.current = second
    assert records() == []
    second.replace(zone("a A 192.0.2.7"))
    assert records() == ["a.example.test. A 192.0.2.7"]
    seen: list[bytes] = []

    class Watched:
        counters = second.counters

        def answer(self, query: bytes, *, peer: Any) -> bytes | None:
            seen.append(query)
            return second.answer(query, peer=peer)

    holder.current = Watched()
    assert records() == ["a.example.test. A 192.0.2.7"]
    assert seen == [A]
    assert (first.counters.udp_queries, second.counters.udp_queries) == (1, 3)


def test_both_run_on_asyncios_own_transports() -> None:
    async def scenario() -> tuple[list[int], bytes]:
        loop = asyncio.get_running_loop()
        holder = SimpleNamespace(current=Catalog([ZONE]))
        server = await loop.create_server(lambda: DnsStreamProtocol(holder), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(framed(*numbered(30, BIG)))
        writer.write_eof()
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        identifiers = []
        while data:
            length = int.from_bytes(data[:2], "big")
            identifiers.append(int.from_bytes(data[2:4], "big"))
            data = data[2 + length :]

        endpoint, _ = await loop.create_datagram_endpoint(
            lambda: DnsDatagramProtocol(holder), local_addr=("127.0.0.1", 0)
        )
        received: asyncio.Future[bytes] = loop.create_future()

        class Client(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                received.set_result(data)

        client, _ = await loop.create_datagram_endpoint(
            Client, remote_addr=endpoint.get_extra_info("sockname")
        )
        client.sendto(A)
        answer = await received
        client.close()
        endpoint.close()
        await asyncio.sleep(0)
        return identifiers, answer

    identifiers, answer = asyncio.run(scenario())
    assert identifiers == list(range(30))
    assert Reply(answer).answer == ["a.example.test. A 192.0.2.1"]
