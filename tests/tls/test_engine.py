"""Both engines, the one by pyOpenSSL's methods and the direct one, do the same."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from appliance.tls.engine import CHUNK, DIRECT, DirectEngine, Engine
from appliance.tls.errors import TlsError
from tests.tls.rig import client_context, contexts

KINDS = [Engine, pytest.param(DirectEngine, marks=pytest.mark.skipif(not DIRECT, reason="absent"))]


def joined(kind: type[Engine], offer: tuple[bytes, ...] = ()) -> tuple[Engine, SSL.Connection]:
    """An engine and a client, who offers these protocols, at the end of their handshake."""
    from appliance.tls.hello import NOTHING

    chosen = contexts(alpn=offer).choose(NOTHING)
    server = SSL.Connection(chosen.accept, None)
    server.set_context(chosen.named)
    server.set_accept_state()
    tls = kind(server)
    client = SSL.Connection(client_context(), None)
    client.set_connect_state()
    if offer:
        client.set_alpn_protos(list(offer))
    for _ in range(4):
        try:
            client.do_handshake()
        except SSL.WantReadError:
            pass
        try:
            tls.feed(client.bio_read(65536))
        except SSL.WantReadError:
            pass
        done = tls.handshake()
        if flight := tls.take():
            client.bio_write(flight)
    assert done
    return tls, client


def test_the_direct_way_is_there() -> None:
    """With the pyOpenSSL of the day; without it everything is slower, and works."""
    assert DIRECT


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways(kind: type[Engine]) -> None:
    """RFC 8446 §5: content, its end, and nothing in between."""
    tls, client = joined(kind)
    assert tls.take() == b""
    client.sendall(b"question")
    assert tls.decrypt(client.bio_read(65536)) == b"question"
    assert tls.read() is None
    client.bio_write(tls.encrypt(memoryview(b"an answer")[3:]))
    assert client.recv(100) == b"answer"
    tls.shrink(both=True)
    client.bio_write(tls.encrypt(b"again"))
    assert client.recv(100) == b"again"
    client.shutdown()
    assert tls.decrypt(client.bio_read(65536)) == b""


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_unread(kind: type[Engine]) -> None:
    """Whoever is told that nothing waits need not look; who cannot tell says that something may."""
    tls, client = joined(kind)
    assert tls.unread() is (kind is Engine)
    client.sendall(b"one")
    client.sendall(b"two")
    tls.feed(client.bio_read(65536))
    assert tls.unread()
    assert tls.read() == b"one"
    assert tls.unread()
    assert tls.read() == b"two"
    assert tls.unread() is (kind is Engine)
    client.sendall(b"three")
    record = client.bio_read(65536)
    assert tls.decrypt(record[:7]) is None
    assert tls.unread() is (kind is Engine)  # OpenSSL has them
    assert tls.decrypt(record[7:]) == b"three"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offer", [(), (b"h2", b"http/1.1"), (b"http/1.1",)])
def test_what_alpn_agreed_on(kind: type[Engine], offer: tuple[bytes, ...]) -> None:
    """RFC 7301 §3.1."""
    tls, _ = joined(kind, offer)
    assert tls.protocol() == (offer[0].decode() if offer else None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_chunk(kind: type[Engine]) -> None:
    tls, client = joined(kind)
    sealed = tls.encrypt(bytes(CHUNK))
    assert CHUNK < len(sealed) < CHUNK + 5 * 30
    client.bio_write(sealed)
    got = 0
    while got < CHUNK:
        got += len(client.recv(65536))
    assert got == CHUNK


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_record(kind: type[Engine]) -> None:
    """RFC 8446 §5.2: an error, and an alert to be sent."""
    tls, _ = joined(kind)
    with pytest.raises(TlsError, match="record"):
        tls.decrypt(b"\x17\x03\x03\0\x20" + bytes(32))
    assert tls.take()
