"""Who may have a connection, who makes room, and who is told to come back."""

from __future__ import annotations

from appliance.http.admission import PATIENCE, Admission
from appliance.http.http1 import HttpProtocol
from appliance.http.server import MAX_REFUSED, HttpServer, Limits
from tests.http.fakes import (
    Client,
    FakeLoop,
    FakeTransport,
    Reply,
    document,
    make_server,
    make_site,
)

BIG = bytes(1 << 20)


class From(Client):
    """A client with an address of its own."""

    def __init__(self, server: HttpServer, address: str, room: float = float("inf")) -> None:
        self.loop = server._loop  # type: ignore[assignment]
        self.server = server
        self.transport = FakeTransport(room)
        self.transport._extra["peername"] = (address, 4711)  # type: ignore[attr-defined]
        self.transport.protocol = HttpProtocol(server)
        self.protocol.connection_made(self.transport)


def refused(client: Client) -> bool:
    return client.transport.sent.startswith(b"HTTP/1.1 503")


def server(loop: FakeLoop, **limits: int) -> HttpServer:
    site = make_site({b"/big": document(BIG, "big")})
    return make_server(site, loop=loop, limits=Limits(**limits))  # type: ignore[arg-type]


def test_one_address_has_so_many_and_others_do_not_notice() -> None:
    shared = server(FakeLoop(), connections_each=2)
    greedy = [From(shared, "192.0.2.1") for _ in range(4)]
    assert [refused(client) for client in greedy] == [False, False, True, True]
    reply = Reply(bytes(greedy[2].transport.sent))
    assert reply["retry-after"] == "5"
    assert not refused(From(shared, "192.0.2.2"))
    greedy[0].transport.close()
    greedy[2].transport.close()
    greedy[3].transport.close()
    assert not refused(From(shared, "192.0.2.1"))


def test_the_idlest_of_the_greediest_make_room() -> None:
    loop = FakeLoop()
    shared = server(loop, connections=40)
    greedy = [From(shared, "192.0.2.1") for _ in range(30)]
    modest = [From(shared, f"198.51.100.{n}") for n in range(10)]
    loop.advance(PATIENCE + 2)
    greedy[0].ask("GET /")  # this one was heard of just now
    newcomer = From(shared, "203.0.113.1")
    assert not refused(newcomer)
    assert newcomer.ask("GET /").status == 200
    gone = [client for client in greedy if client.transport.aborted]
    assert len(gone) == 2  # a twentieth of all
    assert greedy[0] not in gone
    assert not any(client.transport.closed for client in modest)
    assert shared.counters()["connections_shed"] == 2


def test_slow_heads_make_room_and_downloads_do_not() -> None:
    loop = FakeLoop()
    shared = server(loop, connections=2)
    busy = From(shared, "192.0.2.1", room=1000)
    busy.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    slow = From(shared, "192.0.2.1")
    slow.send(b"GET / HTTP/1.1\r\nX: ")
    loop.advance(PATIENCE + 1)
    assert not refused(From(shared, "192.0.2.2"))
    assert slow.transport.aborted
    assert not busy.transport.closed


def test_where_nobody_waits_newcomers_are_told_and_then_cut_off() -> None:
    loop = FakeLoop()
    shared = server(loop, connections=1)
    busy = From(shared, "192.0.2.1", room=1000)
    busy.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    loop.advance(PATIENCE + 1)
    more = [From(shared, f"198.51.100.{n % 250}") for n in range(MAX_REFUSED + 5)]
    assert all(refused(client) for client in more[: MAX_REFUSED - 1])
    assert more[-1].transport.aborted
    assert not more[-1].transport.sent
    assert not busy.transport.closed


def test_counts_by_address_leave_nothing_behind() -> None:
    admission = Admission(10, 5)
    for address in ("a", "a", "b"):
        assert admission.arrive(address)
    for address in ("a", "b", "a", "a"):
        admission.leave(address)
    assert admission.addresses == {}


def test_connections_without_an_address_are_not_one_peer() -> None:
    admission = Admission(10, 1)
    assert all(admission.arrive("") for _ in range(5))
