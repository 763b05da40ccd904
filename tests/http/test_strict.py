"""Request heads by RFC 9112: what is read, and what is refused before h11 sees it."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.http.message import Refusal
from appliance.http.strict import MAX_HEAD, MAX_LINE, Head, incomplete, parse_head


def head(*lines: str, host: str | None = "Host: a") -> bytes:
    fields = [host] if host is not None else []
    return "\r\n".join([lines[0], *fields, *lines[1:], "", ""]).encode("latin-1")


def test_rfc9112_a_head_is_read() -> None:
    """RFC 9112 §3, §5: method, target, and fields without the white space around them."""
    parsed = parse_head(
        head("GET /a?b HTTP/1.1", "ACCEPT-Encoding:gzip,br", "Range: \t bytes=0-1 \t", "X-Other: 1")
    )
    assert parsed.request == (
        b"GET",
        b"/a?b",
        b"a",
        {b"host": b"a", b"accept-encoding": b"gzip,br", b"range": b"bytes=0-1"},
    )
    assert parsed[1:] == (True, 0, False, True, False)


def test_rfc9110_repeated_list_fields_are_one_list() -> None:
    """RFC 9110 §5.3: repeats of a list field are joined in their order."""
    parsed = parse_head(head("GET / HTTP/1.1", 'If-None-Match: "a"', 'if-none-match: "b"'))
    assert parsed.request.fields[b"if-none-match"] == b'"a", "b"'


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),  # bare LF
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),  # bare CR
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),  # obs-fold
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),  # white space before the colon
        (b"GET / HTTP/1.1\r\nHost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX y: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x00c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\xc3: b\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/11\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),  # HTTP/0.9
        (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
    ],
)
def test_rfc9112_syntax_is_refused(octets: bytes, status: int) -> None:
    """RFC 9112 §2.2, §3, §5: each deviation from the grammar, obsolete forms included."""
    with pytest.raises(Refusal) as caught:
        parse_head(octets)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (None, 400), ("Host:", 400), ("Host: a\r\nHost: a", 400), ("Host: a\r\nhost: b", 400),
        ("Host: a, b", 400), ("Host: a/b", 400), ("Host: u@a", 400), ("Host: a b", 400),
    ],
)  # fmt: skip
def test_rfc9112_host_is_refused(host: str | None, status: int) -> None:
    """RFC 9112 §3.2: missing, repeated and invalid Host are 400."""
    with pytest.raises(Refusal) as caught:
        parse_head(head("GET / HTTP/1.1", host=host))
    assert caught.value.status == status


def test_rfc9112_http10_needs_no_host() -> None:
    """RFC 9112 §3.2, §9.3: an HTTP/1.0 request may lack Host, and its connection closes."""
    parsed = parse_head(head("GET / HTTP/1.0", host=None))
    assert parsed.request.authority == b""
    assert not parsed.persistent


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["Content-Length: 3", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked", "Content-Length: 3"], 400),
        (["Content-Length: 3", "Content-Length: 3"], 400),
        (["Content-Length: 3, 3"], 400),
        (["Content-Length: +3"], 400),
        (["Content-Length: -3"], 400),
        (["Content-Length: 0x3"], 400),
        (["Content-Length: 3 3"], 400),
        (["Content-Length: \xb2"], 400),
        (["Content-Length:"], 400),
        (["Content-Length: 9999999999999999999"], 400),
        (["Transfer-Encoding: chunked, chunked"], 400),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked, gzip"], 400),
        (["Transfer-Encoding: identity"], 400),
        (["Transfer-Encoding: xchunked"], 400),
        (["Transfer-Encoding:"], 400),
        (["Transfer-Encoding: \x0bchunked"], 400),
        (["Transfer-Encoding: gzip, chunked"], 501),
        (["Expect: 200-maybe"], 417),
        (["Expect: 100-continue, more"], 417),
    ],
)
def test_rfc9112_framing_is_refused(fields: list[str], status: int) -> None:
    """RFC 9112 §6: whatever two readers could frame differently (request smuggling)."""
    with pytest.raises(Refusal) as caught:
        parse_head(head("POST / HTTP/1.1", *fields))
    assert caught.value.status == status


def test_rfc9112_http10_may_ask_to_stay() -> None:
    """RFC 9112 §9.3: by keep-alive, which says nothing in HTTP/1.1; never with a body."""
    asks = "Connection: x, Keep-Alive"
    assert parse_head(head("GET / HTTP/1.0", asks))[1:] == (False, 0, False, False, True)
    for line, *fields in (
        ("GET / HTTP/1.0", "Connection: keep-alive, close"),
        ("GET / HTTP/1.0", asks, "Content-Length: 0"),
        ("POST / HTTP/1.0", asks),
        ("GET / HTTP/1.1", asks),
    ):
        assert not parse_head(head(line, *fields)).stays


def test_rfc9112_http10_has_no_transfer_codings() -> None:
    """RFC 9112 §6.1: Transfer-Encoding in HTTP/1.0 is faulty framing."""
    with pytest.raises(Refusal):
        parse_head(head("POST / HTTP/1.0", "Transfer-Encoding: chunked"))


@pytest.mark.parametrize(
    ("line", "fields", "persistent", "length", "expects", "plain"),
    [
        ("GET / HTTP/1.1", [], True, 0, False, True),
        ("HEAD / HTTP/1.1", [], True, 0, False, True),
        ("GET / HTTP/1.2", [], True, 0, False, True),
        ("OPTIONS / HTTP/1.1", [], True, 0, False, False),
        ("POST / HTTP/1.1", ["Content-Length: 12"], True, 12, False, False),
        ("GET / HTTP/1.1", ["Content-Length: 0"], True, 0, False, False),
        ("POST / HTTP/1.1", ["Transfer-Encoding: Chunked"], True, -1, False, False),
        ("POST / HTTP/1.1", ["Content-Length: 1", "Expect: 100-Continue"], True, 1, True, False),
        ("GET / HTTP/1.1", ["Connection: close"], False, 0, False, True),
        ("GET / HTTP/1.1", ["Connection: x, CLOSE"], False, 0, False, True),
        ("GET / HTTP/1.1", ["Connection: x", "Connection: close"], False, 0, False, True),
        ("GET / HTTP/1.1", ["Connection: keep-alive"], True, 0, False, True),
        ("GET / HTTP/1.1", ["Connection: disclose"], True, 0, False, True),
        ("GET / HTTP/1.1", ["Connection: Upgrade", "Upgrade: h2c"], True, 0, False, False),
        ("GET / HTTP/1.0", ["Connection: keep-alive, close"], False, 0, False, True),
        ("GET / HTTP/1.0", ["Expect: 100-continue"], False, 0, False, False),
    ],
)
def test_rfc9112_framing(
    line: str, fields: list[str], persistent: bool, length: int, expects: bool, plain: bool
) -> None:
    """RFC 9112 §6.3, §9.3; RFC 9110 §10.1.1: what a head says of its message and connection."""
    parsed = parse_head(head(line, *fields))
    assert parsed[1:] == (persistent, length, expects, plain, False)


def test_limits_of_fields_and_line() -> None:
    """RFC 9112 §3, RFC 6585 §5: 414 for the request line, 431 for the fields."""
    assert parse_head(head("GET / HTTP/1.1", *["X: y"] * 99))
    for octets, status in (
        (head("GET / HTTP/1.1", *["X: y"] * 100), 431),
        (head(f"GET /{'a' * MAX_LINE} HTTP/1.1"), 414),
        (head(f"{'G' * MAX_LINE} / HTTP/1.1"), 414),
    ):
        with pytest.raises(Refusal) as caught:
            parse_head(octets)
        assert caught.value.status == status
    fits = "a" * (MAX_LINE - len("GET / HTTP/1.1\r\n"))
    assert parse_head(head(f"GET /{fits} HTTP/1.1")).request.target == b"/" + fits.encode()


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"GET / HT", None),
        (b"GET / HTTP/1.1\r\nHost: a\r", None),
        (b"GET / HTTP/1.1\nHost", 400),
        (b"GET /\r\n", 400),  # HTTP/0.9
        (b"SSH-2.0-x\r\n", 400),
        (b"GET / HTTP/1.1\r\n", None),
        (b"\x16\x03\x01\x02\x00", 400),  # a TLS client on the plain port
        (b"{}", 400),
        (b"G" * MAX_LINE, None),
        (b"G" * (MAX_LINE + 1), 414),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * (MAX_HEAD - 19), None),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * (MAX_HEAD - 18), 431),
    ],
)
def test_beginnings_are_judged_early(octets: bytes, status: int | None) -> None:
    """RFC 9112 §2.2, §3: no further octets could mend these, so nobody waits for them."""
    if status is None:
        incomplete(octets, 0, 0)
        return
    with pytest.raises(Refusal) as caught:
        incomplete(octets, 0, 0)
    assert caught.value.status == status


# Heads that are nearly right: the right parts, with a wrong one here and there.
PIECES = st.sampled_from(
    [
        b"GET", b"POST", b" ", b"  ", b"/", b"/a", b"*", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n",
        b"\r", b"Host: a", b"Host:a", b"Host : a", b"Content-Length: 3", b"Content-Length: 3, 3",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked ", b"Expect: 100-continue",
        b"Connection: close", b"X: ", b"\t", b":", b"\x00", b"\xff", b"\x0b", b"Y: \xe4", b"\x7f",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=14).map(b"".join))
def test_hostile_heads_are_read_or_refused(octets: bytes) -> None:
    for candidate in (octets, b"GET / HTTP/1.1\r\nHost: a\r\n" + octets + b"\r\n\r\n"):
        try:
            parsed = parse_head(candidate)
        except Refusal:
            continue
        _same_in_h11(candidate, parsed)


def _same_in_h11(octets: bytes, parsed: Head) -> None:
    """h11 has to read in an accepted head what was read here, or two readers disagree."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    connection.receive_data(octets)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == parsed.request[:2]
    length = 0
    for name, value in event.headers:
        if name in parsed.request.fields and name != b"transfer-encoding":
            assert value in parsed.request.fields[name]
        if name == b"content-length":
            length = int(value)
        if name == b"transfer-encoding":
            length = -1
    assert length == parsed.length
    assert connection.they_are_waiting_for_100_continue == parsed.expects


FIELD_NAMES = st.sampled_from(["Host2", "X", "Accept", "Range", "If-Range", "!#$%&'*+-.^_`|~"])
FIELD_VALUES = st.text(
    alphabet=st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"),
    max_size=20,
)


@given(st.lists(st.tuples(FIELD_NAMES, FIELD_VALUES), max_size=6))
def test_what_is_accepted_h11_accepts_alike(fields: list[tuple[str, str]]) -> None:
    octets = head("GET /x HTTP/1.1", *(f"{name}: {value}" for name, value in fields))
    _same_in_h11(octets, parse_head(octets))
