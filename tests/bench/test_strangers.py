"""The benchmark's sender of queries from many ports."""

from __future__ import annotations

import socket

import pytest

from bench import strangers
from tests.bench.test_barrage import QUERIES, answer, served


def test_each_query_comes_from_another_port() -> None:
    """Until all ports have had their turn; then the first one's comes again."""
    with served(lambda query, _count: answer(query)) as (address, port):
        sender = strangers.Strangers(address, QUERIES, port, ports=600)
        ports = [each.getsockname()[1] for each in sender._sockets]
        took = sender.run(0.1)
        sender.close()
    assert took >= 0.1
    assert len(set(ports)) == 600
    assert sender.completed == sender.sent > 1200


def test_the_ports_take_turns() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address, port = server.getsockname()
        sender = strangers.Strangers(address, QUERIES, port, ports=50)
        sender._ask(30)
        sender._ask(30)  # those that have no answer yet are passed by
        asked = [server.recvfrom(512) for _ in range(50)]
        sender.close()
    assert sender.sent == 50
    assert len({peer for _, peer in asked}) == 50
    assert [query for query, _ in asked] == QUERIES[:50]


def test_what_is_lost_is_counted_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "PATIENCE", 0.2)
    monkeypatch.setattr(strangers, "GREETING", 0.05)
    with served(lambda query, count: answer(query) if count % 10 else None) as (address, port):
        sender = strangers.Strangers(address, QUERIES, port, ports=500)
        sender.run(0.05)
        sender.close()
    assert 0 < sender.completed < sender.sent


def test_a_lie_ends_it() -> None:
    with served(lambda query, _count: query) as (address, port):
        sender = strangers.Strangers(address, QUERIES, port, ports=500)
        with pytest.raises(SystemExit, match="no answer to any"):
            sender.run(1.0)
        sender.close()
