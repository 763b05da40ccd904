from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from OpenSSL import SSL

from appliance.tls.hello import NOTHING, Gathered, HelloTooLongError, is_http, read_hello


def hello(name: str = "www.example.org", alpn: tuple[bytes, ...] = (b"h2", b"http/1.1")) -> bytes:
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_connect_state()
    client.set_tlsext_host_name(name.encode())
    client.set_alpn_protos(list(alpn))
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(65536)


def test_name_and_protocols() -> None:
    """RFC 6066 §3, RFC 7301 §3.1."""
    found = read_hello(hello("WWW.Example.org"))
    assert found is not None
    assert found.server_name == "www.example.org"
    assert found.alpn == (b"h2", b"http/1.1")
    assert found.ticket_names == ()


def test_it_waits_for_the_rest() -> None:
    whole = hello()
    assert all(read_hello(whole[:n]) is None for n in range(len(whole)))
    assert read_hello(whole) == read_hello(whole + b"and more")


@given(st.binary(max_size=300))
@example(b"\x01\x01\x00\x00")  # says that it is longer than any hello
def test_anything_may_come(data: bytes) -> None:
    for octets in (data, b"\x16\x03\x01" + len(data).to_bytes(2, "big") + data):
        with suppress(HelloTooLongError):
            read_hello(octets)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_hello_with_one_wrong_octet(place: int, octet: int) -> None:
    """RFC 8446 §4.1.2: whatever is broken is left to OpenSSL to judge."""
    data = bytearray(WHOLE)
    data[place % len(data)] = octet
    try:
        found = read_hello(bytes(data))
    except HelloTooLongError:
        return
    assert found is None or isinstance(found.server_name, str)


WHOLE = hello()


def in_tiny_records(data: bytes) -> list[bytes]:
    return [b"\x16\x03\x01\0\x01" + bytes((octet,)) for octet in data[5:]]


@pytest.mark.parametrize("size", [1, 2, 7, 600])
@pytest.mark.parametrize("data", [WHOLE, b"".join(in_tiny_records(WHOLE)), WHOLE[:50] + WHOLE])
def test_pieces_are_as_good_as_the_whole(data: bytes, size: int) -> None:
    gathered = Gathered()
    found = None
    for at in range(0, len(data), size):
        assert found is None
        found = gathered.add(data[at : at + size])
        if found is not None:
            break
    assert found == read_hello(data)
    assert data.startswith(gathered.octets)


class Counted(bytearray):
    """Octets that count how many of them were looked at."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        Counted.looks += len(found) if isinstance(at, slice) else 1
        return found


def test_each_record_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is as long as the hello, not as its square: a few looks for each of 1,500 records."""
    monkeypatch.setattr(Counted, "looks", 0)
    gathered = Gathered()
    gathered.octets, gathered._message = Counted(), Counted()
    pieces = in_tiny_records(WHOLE)
    found = [gathered.add(piece) for piece in pieces]
    assert found[-1] == read_hello(WHOLE)
    assert len(pieces) > 1000
    assert len(pieces) < Counted.looks < 20 * len(pieces)


@pytest.mark.parametrize(
    "data", [b"\x16\x02\x01\0\x05hello", b"\x17\x03\x03\0\x01\0", b"SSH-2.0-x"]
)
def test_what_is_no_hello_is_not_waited_for(data: bytes) -> None:
    assert read_hello(data) is NOTHING


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"GET / HTTP/1.1", True), (b"G", True), (b"GIT ", False), (b"\x16\x03", False),
     (b"PRI * HTTP/2.0", True), (b"\0", False)],
)  # fmt: skip
def test_http_is_recognised(data: bytes, expected: bool) -> None:
    assert is_http(data) is expected
