"""The benchmark's sender of queries, against a server that answers, one that lies, and silence."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dns.message
import dns.rdatatype
import pytest

from bench import barrage, material

QUERIES = [barrage.query(n, *asked) for n, asked in enumerate(material.queries()[:500])]


def test_a_query_is_what_it_says() -> None:
    read = dns.message.from_wire(barrage.query(4711, "www.bench.test.", "AAAA"))
    assert (read.id, read.opcode(), read.edns) == (4711, 0, -1)
    assert [(str(each.name), each.rdtype) for each in read.question] == [
        ("www.bench.test.", dns.rdatatype.AAAA)
    ]


def answer(query: bytes) -> bytes:
    return query[:2] + b"\x84\x00" + query[4:] + b"whatever"


@pytest.mark.parametrize(
    ("message", "good"),
    [
        (answer(QUERIES[7]), True),
        (answer(QUERIES[7])[:3] + b"\x03" + answer(QUERIES[7])[4:], True),  # NXDOMAIN
        (answer(QUERIES[7])[:3] + b"\x02" + answer(QUERIES[7])[4:], False),  # SERVFAIL
        (QUERIES[7], False),  # no answer
        (b"\0\x08" + answer(QUERIES[7])[2:], False),  # to another question
        (b"\xff\xff" + answer(QUERIES[7])[2:], False),  # to none
        (answer(QUERIES[7])[:11], False),
    ],
)
def test_an_answer_is_one_to_a_question_that_was_asked(message: bytes, good: bool) -> None:
    assert barrage.is_answer(message, QUERIES) is good


@contextmanager
def served(answers: Callable[[bytes, int], bytes | None]) -> Iterator[tuple[str, int]]:
    """A server on the loopback interface; each query comes with how many were before it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # all that are under way
        server.settimeout(0.05)
        ended = threading.Event()

        def serve() -> None:
            count = 0
            while not ended.is_set():
                try:
                    query, peer = server.recvfrom(512)
                except TimeoutError:
                    continue
                reply = answers(query, count)
                count += 1
                if reply is not None:
                    server.sendto(reply, peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            ended.set()
            thread.join()


def test_all_that_was_asked_is_answered() -> None:
    asked = set()

    def answers(query: bytes, _count: int) -> bytes:
        asked.add(query)
        return answer(query)

    with served(answers) as (address, port):
        sender = barrage.Barrage(address, QUERIES, port)
        took = sender.run(0.2)
        sender.close()
    assert took >= 0.2
    assert sender.completed == sender.sent > len(QUERIES)
    assert asked == set(QUERIES)


def test_what_is_lost_is_counted_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barrage, "PATIENCE_MS", 200)
    monkeypatch.setattr(barrage, "GREETING", 0.05)
    with served(lambda query, count: answer(query) if count % 10 else None) as (address, port):
        sender = barrage.Barrage(address, QUERIES, port)
        sender.run(0.05)
        sender.close()
    assert 0 < sender.completed < sender.sent


def test_a_lie_ends_it() -> None:
    with served(lambda query, _count: query) as (address, port):
        sender = barrage.Barrage(address, QUERIES, port)
        with pytest.raises(SystemExit, match="no answer to any"):
            sender.run(1.0)
        sender.close()
