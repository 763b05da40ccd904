"""HTTP/1.1 on a connection: framing, order, limits, deadlines, back-pressure, endings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.http.http1 import MAX_LINGER
from appliance.http.message import Answer
from appliance.http.preconditions import http_date
from appliance.http.server import SMALL, Limits
from appliance.http.strict import MAX_HEAD, MAX_LINE
from tests.http.fakes import (
    TEXT,
    Client,
    FakeLoop,
    Reply,
    document,
    make_server,
    make_site,
    replies,
    take_slowly,
)

GET = b"GET /about HTTP/1.1\r\nHost: example.org\r\n\r\n"
BIG = bytes(range(256)) * 4096  # 1 MiB

# One octet stream each; what a peer may send on one connection, right and wrong.
SCENARIOS = {
    "one": GET,
    "three": GET * 3,
    "different": GET + GET.replace(b"GET", b"HEAD") + GET.replace(b"/about", b"/nope") + GET,
    "conditional": GET.replace(b"\r\n\r\n", b"\r\nIf-None-Match: *\r\n\r\n") * 2,
    "empty lines first": b"\r\n\r\n" + GET + b"\r\n" + GET,
    "only empty lines": b"\r\n\r\n\r\n",
    "body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /" + GET,
    "get with body": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + GET,
    "chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nGET /\r\n0\r\n\r\n" + GET,
    "trailers": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\nX: y\r\n\r\n" + GET,
    "bare LF after chunks": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\n" + GET,
    "faulty chunk": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + GET,
    "chunk too short": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\r\nabc\r\n0\r\n\r\n" + GET,
    "both framings": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
    "expect": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    "expect nothing": GET.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") + GET,
    "upgrade": GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n") + GET,
    "close": GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET,
    "HTTP/1.0": b"GET /about HTTP/1.0\r\n\r\n" + GET,
    "HTTP/1.0 stays": GET.replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n") * 2 + GET,
    "https": GET.replace(b"/about", b"https://example.org/about") + GET,
    "HTTP/0.9": b"GET /about\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3": b"PRI * HTTP/3.0\r\n\r\n" + GET,
    "bare LF": GET.replace(b"\r\n", b"\n") + GET,
    "bare LF late": GET[:-2] + b"X: y\n\r\n" + GET,
    "bare CR": GET[:-2] + b"X: y\rz\r\n\r\n" + GET,
    "fold": GET[:-2] + b"X: y\r\n z\r\n\r\n" + GET,
    "no host": b"GET / HTTP/1.1\r\n\r\n" + GET,
    "head of nothing": b"HEAD /%zz HTTP/1.1\r\nHost: a\r\n\r\n" + GET,
    "faulty head": b"HEAD / HTTP/1.1\r\n\r\n" + GET,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    "long line": b"GET /" + b"a" * MAX_LINE + b" HTTP/1.1\r\nHost: a\r\n\r\n" + GET,
    "long line, then LF": b"GET /" + b"a" * MAX_LINE + b"\n\r\n\r\n" + GET,
    "long head": GET[:-2] + b"X: " + b"y" * MAX_HEAD + b"\r\n\r\n" + GET,
    "longest head": GET[:-2] + b"X: " + b"y" * (MAX_HEAD - len(GET) - 5) + b"\r\n\r\n" + GET,
    "one too long": GET[:-2] + b"X: " + b"y" * (MAX_HEAD - len(GET) - 4) + b"\r\n\r\n" + GET,
    "many fields": GET[:-2] + b"X: y\r\n" * 100 + b"\r\n" + GET,
    "body too large": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 999,
    "chunks too large": b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
     b"4000\r\n" + b"x" * 0x4000 + b"\r\n" + b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    + b"8001\r\n" + b"x" * 0x8001 + b"\r\n0\r\n\r\n",
    "ranges": GET.replace(b"\r\n\r\n", b"\r\nRange: bytes=0-1,500-600\r\n\r\n") * 2,
    "half": GET[:20],
}  # fmt: skip


def run(data: bytes, *, step: int = 0, remember: bool = True) -> tuple[bytes, bool]:
    """Feed octets, whole or in steps; return what came back and whether that was all."""
    client = Client(remember=remember)
    for start in range(0, len(data), step or len(data) or 1):
        if client.transport.closed:
            break
        client.protocol.data_received(data[start : start + (step or len(data))])
    return bytes(client.transport.sent), client.transport.ended


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_octet_at_a_time_equals_one_chunk(name: str) -> None:
    whole = run(SCENARIOS[name])
    assert run(SCENARIOS[name], step=1) == whole
    assert run(SCENARIOS[name], step=7) == whole


@pytest.mark.parametrize("name", SCENARIOS)
def test_with_the_memo_equals_without(name: str) -> None:
    assert run(SCENARIOS[name]) == run(SCENARIOS[name], remember=False)


@pytest.mark.parametrize(
    ("name", "statuses", "ended"),
    [
        ("three", [200, 200, 200], False),
        ("empty lines first", [200, 200], False),
        ("only empty lines", [], False),
        ("body", [405, 200], False),
        ("get with body", [200, 200], False),
        ("chunked", [405, 200], False),
        ("trailers", [405], True),
        ("bare LF after chunks", [400], True),
        ("faulty chunk", [400], True),
        ("chunk too short", [400], True),
        ("both framings", [400], True),
        ("expect", [405], True),
        ("expect nothing", [200, 200], False),
        ("upgrade", [200, 200], False),
        ("close", [200], True),
        ("HTTP/1.0", [200], True),
        ("https", [421], True),
        ("HTTP/0.9", [400], True),
        ("HTTP/3", [505], True),
        ("bare LF", [400], True),
        ("bare LF late", [400], True),
        ("bare CR", [400], True),
        ("fold", [400], True),
        ("no host", [400], True),
        ("tls", [400], True),
        ("long line", [414], True),
        ("long line, then LF", [414], True),
        ("long head", [431], True),
        ("longest head", [200, 200], False),
        ("one too long", [431], True),
        ("many fields", [431], True),
        ("body too large", [413], True),
        ("chunks too large", [413], True),
        ("half", [], False),
    ],
)
def test_rfc9112_messages_end_where_they_say(name: str, statuses: list[int], ended: bool) -> None:
    """RFC 9112 §2.2, §6, §9: so many answers, and the connection open or not after them."""
    octets, over = run(SCENARIOS[name])
    found = replies(octets, *["GET"] * len(statuses))
    assert [reply.status for reply in found] == statuses
    assert over is ended
    for reply in found:
        last = ended and reply is found[-1]
        # RFC 9112 §9.6: the last answer says that it is.
        if last:
            assert reply["connection"] == "close"
        else:
            assert reply["connection"] is None


def test_rfc9112_http10_stays_when_it_asks() -> None:
    """RFC 9112 §9.3: and is told so; an answer that HTTP/1.1 gets is none of its answers."""
    octets, over = run(SCENARIOS["HTTP/1.0 stays"])
    found = replies(octets, "GET", "GET", "GET")
    assert [reply["connection"] for reply in found] == ["keep-alive", "keep-alive", None]
    assert not over


def test_rfc9110_7_4_https_is_not_given_in_the_clear() -> None:
    """RFC 9110 §7.4: over TLS it is, and so is http there (RFC 8164)."""
    for scheme, status in (("http", 421), ("https", 200)):
        for place, wanted in (("HTTPS://a/about", status), ("http://a/about", 200)):
            assert Client(make_server(scheme=scheme)).ask(f"GET {place}").status == wanted


def test_rfc9112_pipelined_answers_come_in_order() -> None:
    """RFC 9112 §9.3.2: and HEAD has no body between them."""
    octets, _ = run(SCENARIOS["different"])
    found = replies(octets, "GET", "HEAD", "GET", "GET")
    assert [reply.status for reply in found] == [200, 200, 404, 200]


def test_rfc9110_a_refused_head_has_no_body() -> None:
    """RFC 9110 §9.3.2: not even when the HEAD is faulty."""
    for name in ("head of nothing", "faulty head"):
        octets, _ = run(SCENARIOS[name])
        assert replies(octets, "HEAD", *["GET"] * (octets.count(b"HTTP/1.1 ") - 1))[0].status == 400


HOSTILE = st.lists(
    st.sampled_from(
        [
            GET, GET[:-2], b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"POST / HTTP/1.1\r\n",
            b"Host: a\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
            b"0\r\n\r\n", b"5\r\n", b"\0", b"Connection: close\r\n", b"GET", b" ", b"HTTP/1.1",
            b"\xff\xfe", b"Expect: 100-continue\r\n", b"Range: bytes=0-5,-5\r\n",
            b"If-None-Match: *\r\n", b"x" * 300,
        ]
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


@settings(max_examples=300)
@given(HOSTILE, st.integers(1, 50))
def test_hostile_octets_never_raise_and_never_depend_on_their_pieces(
    data: bytes, step: int
) -> None:
    whole = run(data)
    assert run(data, step=step) == whole
    assert run(data, remember=False) == whole


@settings(max_examples=200)
@given(st.data())
def test_mutated_heads_never_raise(data: st.DataObject) -> None:
    octets = bytearray(data.draw(st.sampled_from(sorted(SCENARIOS.values(), key=len)[:25])))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(octets)))
        octets[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    sent, _ = run(bytes(octets))
    assert sent == b"" or sent.startswith((b"HTTP/1.1 ", b"\0\0"))


# -- deadlines --------------------------------------------------------------------------------


def test_a_head_has_ten_seconds_however_it_trickles() -> None:
    client = Client()
    for octet in GET[:9]:
        client.protocol.data_received(bytes([octet]))
        client.loop.advance(1)
    assert not client.transport.ended
    client.protocol.data_received(GET[9:10])
    client.loop.advance(2.1)
    assert client.transport.ended
    reply = Reply(bytes(client.transport.sent))
    assert (reply.status, reply["connection"]) == (408, "close")
    assert client.server.counters()["timeouts"] == 1


def test_empty_lines_do_not_keep_a_connection() -> None:
    for pieces in ((b"\r\n",), (b"\r", b"\n"), (b"\r\n\r", b"\n")):
        client = Client(limits=Limits(idle_seconds=20))
        for number in range(25):
            if not client.transport.ended:
                client.protocol.data_received(pieces[number % len(pieces)])
                client.loop.advance(1)
        assert client.transport.ended
        assert client.transport.sent == b""


def test_half_an_empty_line_takes_nothing_off_a_head_s_time() -> None:
    client = Client()
    client.send(GET + b"\r")
    client.loop.advance(30)
    assert not client.transport.ended
    client.send(b"\n" + GET[:20])
    client.loop.advance(8)
    assert Reply(client.send(GET[20:])).status == 200


def test_an_idle_connection_is_closed_in_silence() -> None:
    client = Client()
    client.loop.advance(60)
    client.send(GET)
    client.loop.advance(70)
    client.send(GET)
    client.loop.advance(74)
    assert not client.transport.ended
    before = len(client.transport.sent)
    client.loop.advance(3)
    assert client.transport.closed or client.transport.eof_written
    assert len(client.transport.sent) == before


def test_a_body_has_a_deadline_too() -> None:
    client = Client()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n")
    for _ in range(32):
        if not client.transport.ended:
            client.send(b"x")
            client.loop.advance(1)
    assert client.transport.ended
    assert Reply(bytes(client.transport.sent)).status == 408


def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    client = Client(site=make_site({b"/big": document(BIG, "big")}), room=1000)
    client.send(GET.replace(b"/about", b"/big"))
    client.loop.advance(25)
    client.transport.take()
    client.loop.advance(25)
    assert not client.transport.closed
    client.loop.advance(15)
    assert client.transport.aborted


def test_a_reader_that_takes_crumbs_is_cut_off_and_a_slow_one_is_not() -> None:
    for each_second, survives in ((100, False), (5_000, True)):
        client = Client(site=make_site({b"/big": document(BIG, "big")}), room=1000)
        client.send(GET.replace(b"/about", b"/big"))
        for _ in range(120):
            client.loop.advance(1)
            if client.transport.waiting > each_second + 1000:
                client.transport.waiting -= each_second
            elif not client.transport.closed:
                client.transport.take()
        assert client.transport.aborted != survives


@pytest.mark.parametrize("last", [False, True])
def test_a_slow_reader_gets_an_answer_that_was_written_at_once(last: bool) -> None:
    """What is measured is what the peer takes, not what the transport is given."""
    site = make_site({b"/mid": document(bytes(200_000), "mid.bin")})
    head = GET.replace(b"/about", b"/mid")
    if last:
        head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for rate, survives in ((2_000, True), (100, False)):
        client = Client(site=site, room=64 * 1024)
        client.send(head)
        take_slowly(client, rate, 95)
        assert client.transport.aborted != survives
        if survives:
            take_slowly(client, rate, 8)
            assert client.transport.waiting == 0
            assert client.transport.eof_written == last


def test_a_slow_reader_gets_the_whole_of_a_last_answer() -> None:
    """RFC 9112 §9.6: the moment to close begins when the peer has the last of it."""
    client = Client(site=make_site({b"/mid": document(bytes(60_000), "mid.bin")}), room=64 * 1024)
    client.send(b"GET /mid HTTP/1.0\r\n\r\n")
    assert client.transport.eof_written
    take_slowly(client, 5_000, 13)
    assert client.transport.waiting == 0
    assert not client.transport.closed
    client.loop.advance(8)
    assert client.transport.aborted
    assert client.server.counters()["timeouts"] == 0


def test_a_peer_that_does_not_close_is_closed() -> None:
    """RFC 9112 §9.6: after the last answer the peer gets time to read it, not for ever."""
    client = Client()
    client.send(b"rubbish\n\n")
    assert client.transport.eof_written
    assert not client.transport.closed
    client.transport.take()
    client.loop.advance(8)
    assert client.transport.aborted
    client = Client()
    client.send(b"rubbish\n\n")
    client.protocol.data_received(bytes(MAX_LINGER))
    assert not client.transport.closed
    client.protocol.data_received(b"x")
    assert client.transport.aborted


def test_one_timer_serves_all_and_rests_when_nobody_is_there() -> None:
    server = make_server()
    clients = [Client(server) for _ in range(5)]
    loop = clients[0].loop
    assert loop.armed == 1
    loop.advance(5)
    assert loop.armed == 1
    for client in clients:
        client.transport.close()
    assert server.counters()["connections"] == 0
    loop.advance(1)
    assert loop.armed == 0


def test_connections_one_after_the_other_begin_no_second_of_their_own() -> None:
    """What a second costs (its Date, a timer, a round of checks) is paid once in a second."""
    server = make_server()
    clock, times = server.clock, list[float]()

    def counted() -> float:
        times.append(clock())
        return times[-1]

    server.clock = counted
    for _ in range(5):
        client = Client(server)
        assert b"200 OK" in client.send(GET)
        client.transport.close()
    assert len(times) == 1


def test_a_date_is_of_now_after_nobody_was_there() -> None:
    """RFC 9110 §6.6.1: the best available approximation of the time of the message."""
    server = make_server()
    client = Client(server)
    client.transport.close()
    client.loop.advance(10)
    assert client.loop.armed == 0
    later = Client(server)
    assert b"Date: %s" % http_date(client.loop.wall()) in later.send(GET)


# -- back-pressure ----------------------------------------------------------------------------


def test_a_large_answer_goes_out_as_the_peer_takes_it() -> None:
    client = Client(site=make_site({b"/big": document(BIG, "big")}), room=64 * 1024)
    client.send(GET.replace(b"/about", b"/big") + GET)
    held = client.transport.waiting
    assert held <= SMALL + 1024
    while client.transport.waiting > client.transport.room:
        assert max(client.transport.writes) <= SMALL
        client.transport.take()
    big, small = replies(bytes(client.transport.sent), "GET", "GET")
    assert big.body == BIG
    assert small.status == 200


def test_requests_wait_while_the_peer_does_not_read() -> None:
    client = Client(room=2000)
    client.send(GET * 50)
    answered = client.transport.sent.count(b"HTTP/1.1 200")
    assert answered < 5
    assert client.transport.reading  # nothing more has come, so nothing is held back
    client.protocol.data_received(GET * 50)
    assert not client.transport.reading
    for _ in range(99):
        client.transport.take()
    assert client.transport.sent.count(b"HTTP/1.1 200") == 100
    assert client.transport.reading
    assert client.send(GET).startswith(b"HTTP/1.1 200")


def test_small_answers_leave_in_one_write() -> None:
    client = Client()
    client.send(GET * 2)
    client.send(GET)
    assert len(client.transport.writes) == 3


# -- endings ----------------------------------------------------------------------------------


def test_rfc9112_a_half_closed_peer_still_gets_its_answers() -> None:
    """RFC 9112 §9.6: all that was asked for is answered after the peer's FIN."""
    client = Client(site=make_site({b"/big": document(BIG, "big")}), room=1000)
    client.send(GET.replace(b"/about", b"/big") + GET)
    assert client.protocol.eof_received() is True
    while not client.transport.closed:
        client.transport.take()
    big, small = replies(bytes(client.transport.sent), "GET", "GET")
    assert (big.body, small.status) == (BIG, 200)
    assert not client.transport.aborted


def test_rfc9110_9_3_2_a_faulty_body_of_head_gets_no_content() -> None:
    """RFC 9110 §9.3.2: the answer to HEAD MUST NOT have content, whatever it is."""
    for ending in ("eof", "late", "bad"):
        client = Client()
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
        if ending == "eof":
            client.protocol.eof_received()
        elif ending == "late":
            client.loop.advance(32)
        else:
            client.protocol.data_received(b"cdefgh")
        reply = Reply(bytes(client.transport.sent), "HEAD")
        assert (reply.status, reply.rest) == (408 if ending == "late" else 400, b"")


def test_rfc9112_half_a_body_is_a_faulty_request() -> None:
    """RFC 9112 §8."""
    client = Client()
    assert client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc") == b""
    client.protocol.eof_received()
    reply = Reply(bytes(client.transport.sent))
    assert (reply.status, reply["connection"]) == (400, "close")


def test_eof_at_rest_closes() -> None:
    client = Client()
    client.send(GET)
    assert client.protocol.eof_received() is False  # the transport closes itself


def test_a_transport_without_half_close_is_closed_at_once() -> None:
    client = Client(half_close=False)
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert client.transport.closed
    assert not client.transport.eof_written


def test_drain_answers_a_request_whose_body_is_on_its_way() -> None:
    client = Client()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    client.server.drain()
    answer = Reply(client.send(b"cde" + GET))
    assert (answer.status, answer["connection"]) == (405, "close")
    assert client.transport.ended


def test_drain_closes_the_idle_and_finishes_the_busy() -> None:
    server = make_server(make_site({b"/big": document(BIG, "big")}))
    idle, busy, half = Client(server), Client(server, room=1000), Client(server)
    idle.send(GET)
    busy.send(GET.replace(b"/about", b"/big"))
    half.send(GET[:10])
    server.drain()
    assert idle.transport.ended
    assert not busy.transport.ended
    while busy.transport.waiting > 1000:
        busy.transport.take()
    assert busy.transport.ended
    assert Reply(bytes(busy.transport.sent)).body == BIG
    reply = Reply(half.send(GET[10:]))
    assert (reply.status, reply["connection"]) == (200, "close")
    assert half.transport.ended
    # Even a head that was remembered says so now.
    late = Client(server)
    assert Reply(late.send(GET))["connection"] == "close"
    assert late.transport.ended


def test_too_many_connections_are_told_to_come_back() -> None:
    """RFC 9110 §15.6.4: 503 with Retry-After, and the others do not notice."""
    server = make_server(limits=Limits(connections=2))
    first, second, third = (Client(server) for _ in range(3))
    reply = Reply(bytes(third.transport.sent))
    assert (reply.status, reply["retry-after"], reply["connection"]) == (503, "5", "close")
    assert third.transport.ended
    assert b" 200 OK" in first.send(GET)
    assert b" 200 OK" in second.send(GET)
    assert server.counters()["connections_refused"] == 1
    third.transport.close()
    first.transport.close()
    assert b" 200 OK" in Client(server).send(GET)


# -- files on disk ----------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, Client]:
    from appliance.http.problem import Problem
    from appliance.http.representation import build
    from appliance.http.walk import Walk, open_large

    path = tmp_path / "big.bin"
    path.write_bytes(BIG)
    problems: list[Problem] = []
    (source,) = Walk(tmp_path, problems).sources()
    file, tag = open_large(source)
    site = make_site({b"/big": build(file, "application/octet-stream", etag=tag)})
    return path, Client(site=site, room=300_000)


def test_a_mapped_file_is_served_whole_and_in_parts(large: tuple[Path, Client]) -> None:
    _, client = large
    client.send(GET.replace(b"/about", b"/big"))
    while client.transport.waiting > client.transport.room:
        client.transport.take()
    assert Reply(bytes(client.transport.sent)).body == BIG
    part = client.ask("GET /big", "Range: bytes=1000-1999")
    assert (part.status, part.body) == (206, BIG[1000:2000])
    parts = client.ask("GET /big", "Range: bytes=0-99,500000-500099")
    assert BIG[500000:500100] in parts.body


def test_a_file_that_became_another_is_not_served_under_the_old_tag(
    large: tuple[Path, Client],
) -> None:
    path, client = large
    new = path.with_suffix(".new")
    new.write_bytes(BIG[::-1])
    os.replace(new, path)
    reply = client.ask("GET /big")
    assert (reply.status, reply["retry-after"]) == (503, "5")
    assert client.server.counters()["files_changed"] == 1


def test_a_file_cut_short_under_a_download_breaks_it_off(large: tuple[Path, Client]) -> None:
    path, client = large
    client.send(GET.replace(b"/about", b"/big"))
    os.truncate(path, 1000)
    client.transport.take()
    assert client.transport.aborted
    assert client.server.counters()["files_changed"] == 1


def test_a_file_that_is_renamed_over_goes_on_as_it_was(large: tuple[Path, Client]) -> None:
    path, client = large
    client.send(GET.replace(b"/about", b"/big"))
    new = path.with_suffix(".new")
    new.write_bytes(b"other")
    os.replace(new, path)
    while client.transport.waiting > client.transport.room:
        client.transport.take()
    assert Reply(bytes(client.transport.sent)).body == BIG


# -- what the server keeps --------------------------------------------------------------------


def test_rfc9110_date_is_the_present_second() -> None:
    """RFC 9110 §6.6.1: Date is live, also in an answer that was remembered."""
    client = Client()
    client.loop.advance(0.5)
    dates = []
    for _ in range(3):
        dates += [Reply(client.send(GET))["date"] for _ in range(3)]
        client.loop.advance(1)
    assert dates == [f"Sun, 02 Feb 2014 03:04:0{s} GMT" for s in (5, 5, 5, 6, 6, 6, 7, 7, 7)]
    client.transport.close()
    client.loop.advance(3600.6)
    again = Client(client.server)
    assert Reply(again.send(GET))["date"] == "Sun, 02 Feb 2014 04:04:09 GMT"


def test_a_new_site_is_served_at_once_and_old_decisions_are_forgotten() -> None:
    client = Client()
    for _ in range(3):
        old = Reply(client.send(GET)).body
    client.server.holder.current = make_site({b"/about": document(b"new", "x.html")})  # type: ignore[misc]
    assert Reply(client.send(GET)).body == b"new" != old
    assert Reply(client.send(GET)).body == b"new"
    assert Reply(client.send(GET)).body == b"new"


def test_counters_count_every_answer_once() -> None:
    client = Client()
    for _ in range(4):
        client.send(GET)
        client.loop.advance(0.4)
    client.send(GET.replace(b"/about", b"/nope"))
    counters = client.server.counters()
    assert counters["requests"] == 5
    assert counters["status_200"] == 4
    assert counters["status_404"] == 1
    assert counters["memo_hits"] == 3
    assert counters["memo_entries"] == 2
    lengths = [len(reply.body) for reply in replies(bytes(client.transport.sent), *["GET"] * 5)]
    assert counters["body_bytes"] == sum(lengths)


def test_counters_lose_nothing_when_hits_come_by_both_ways() -> None:
    client = Client()
    for data in (GET, GET, GET, GET * 3, GET, GET[:5], GET[5:], GET):
        client.send(data)
    counters = client.server.counters()
    assert counters["requests"] == 9 == client.transport.sent.count(b"HTTP/1.1 200")
    assert counters["memo_hits"] == 8


def test_every_answer_is_told_to_the_log() -> None:
    told: list[tuple[object, bytes, int, int]] = []
    client = Client(on_request=lambda *line: told.append(line))
    size = len(Reply(client.send(GET)).body)
    client.send(GET * 2)
    client.send(b"rubbish\n")
    peer = "192.0.2.1"
    assert told[:3] == [(peer, GET, 200, size)] * 3
    assert told[3][2] == 400


def test_answers_of_a_second_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.http.server.MAX_WIRES", 5000)
    client = Client()
    for number in range(20):
        head = GET.replace(b"/about", b"/digits.bin").replace(b"org", b"org%d" % number)
        head = head.replace(b"\r\n\r\n", b"\r\nRange: bytes=%d-\r\n\r\n" % number)
        for _ in range(3):
            assert TEXT[number:] in client.send(head)
    assert sum(len(hit.wire) for hit in client.server.wires.values()) < 5000 + 4500


def test_an_answer_is_found_by_identity() -> None:
    """Two answers are never taken for each other because they look alike."""
    assert Answer(200, b"") != Answer(200, b"")


def test_time_in_the_fake_loop_goes_forward() -> None:
    loop = FakeLoop()
    seen: list[float] = []
    loop.call_later(2, lambda: seen.append(loop.time()))
    loop.call_later(1, lambda: seen.append(loop.time()))
    loop.advance(5)
    assert seen == [101.0, 102.0]
