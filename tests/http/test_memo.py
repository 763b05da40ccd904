"""The memo of heads: sound, and bounded."""

from __future__ import annotations

import pytest

from appliance.http.memo import ENTRY_OVERHEAD, Memo
from appliance.http.message import Answer
from tests.http.fakes import Client, make_site

GET = b"GET /about HTTP/1.1\r\nHost: example.org\r\n\r\n"


def with_field(field: bytes, method: bytes = b"GET") -> bytes:
    return GET.replace(b"GET", method).replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [GET, GET.replace(b"GET", b"HEAD"), with_field(b"If-None-Match: *"),
     with_field(b"Range: bytes=0-1"), GET.replace(b"/about", b"/nope"),
     GET.replace(b"/about", b"/docs")],
)  # fmt: skip
def test_plain_heads_are_remembered(head: bytes) -> None:
    client = Client()
    first = client.send(head)
    assert len(client.server.memo) == 1
    assert client.send(head) == first
    assert client.send(head) == first
    assert client.server.counters()["memo_hits"] == 2


@pytest.mark.parametrize(
    "head",
    [
        with_field(b"Content-Length: 0"),
        with_field(b"Content-Length: 2") + b"xx",
        with_field(b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        with_field(b"Expect: 100-continue"),
        with_field(b"Upgrade: h2c"),
        GET.replace(b"GET", b"OPTIONS"),
        GET.replace(b"GET", b"POST"),
        GET.replace(b"/about", b"/%zz"),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_others_are_not(head: bytes) -> None:
    client = Client()
    client.send(head)
    assert len(client.server.memo) == 0


@pytest.mark.parametrize(
    "head", [with_field(b"Connection: close"), GET.replace(b"HTTP/1.1", b"HTTP/1.0")]
)
def test_last_heads_are_remembered_apart(head: bytes) -> None:
    """RFC 9112 §9.6: however it is found, a last answer says so, and the connection closes."""
    server = Client().server
    answers = []
    for _ in range(4):
        client = Client(server)
        answers.append(client.send(head))
        assert client.transport.eof_written
        assert client.send(GET) == b""
    assert len(set(answers)) == 1
    assert b"\r\nConnection: close\r\n" in answers[0]
    assert len(server.memo) == 0
    assert len(server.last_memo) == 1
    assert server.counters()["memo_hits"] == 3


def test_a_head_inside_a_body_is_not_one() -> None:
    """Only at a message boundary is the memo asked."""
    client = Client()
    client.send(GET)
    client.send(GET)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(GET))
    assert client.send(GET).startswith(b"HTTP/1.1 405")
    assert client.send(GET).startswith(b"HTTP/1.1 200")


def test_a_head_after_half_a_head_is_not_one() -> None:
    client = Client()
    client.send(GET)
    client.send(GET)
    client.send(GET[:-2] + b"X: ")
    assert client.send(GET).startswith(b"HTTP/1.1 400")  # Host twice in one head


def test_one_octet_of_difference_is_another_head() -> None:
    client = Client()
    client.send(GET)
    for changed in (GET.replace(b"/about", b"/About"), with_field(b"Accept-Encoding: gzip")):
        assert client.send(changed) != client.send(GET)


def test_servers_share_nothing() -> None:
    site = make_site()
    one, other = Client(site=site), Client(site=site)
    one.send(GET)
    assert len(other.server.memo) == 0


def answer(size: int = 0) -> Answer:
    return Answer(200, b"x" * size)


def test_bounded_in_entries() -> None:
    memo = Memo(max_entries=10)
    for number in range(1000):
        memo.put(b"%d" % number, answer())
        assert len(memo) <= 20
    assert memo.get(b"999") is not None
    assert memo.get(b"1") is None


def test_bounded_in_octets() -> None:
    memo = Memo(max_bytes=10 * (ENTRY_OVERHEAD + 1000))
    for number in range(200):
        memo.put(b"%d" % number, answer(1000))
        assert len(memo) <= 22


def test_what_is_asked_for_survives_a_flood() -> None:
    memo = Memo(max_entries=10)
    wanted = answer()
    memo.put(b"wanted", wanted)
    for number in range(1000):
        memo.put(b"%d" % number, answer())
        if number % 9 == 0:
            assert memo.get(b"wanted") is wanted


def test_clear() -> None:
    memo = Memo(max_entries=2)
    for number in range(3):
        memo.put(b"%d" % number, answer())
    memo.clear()
    assert len(memo) == 0
    assert memo.get(b"2") is None
