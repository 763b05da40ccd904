"""Chunked bodies by RFC 9112 §7.1: what is read, and what is refused before h11 sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.http.chunks import Chunks
from appliance.http.message import Refusal
from appliance.http.strict import MAX_HEAD
from tests.http.fakes import Client


def read(octets: bytes, step: int = 0) -> int | str | None:
    """How many octets are of the body, None when it goes on, or the refusal; in steps or whole."""
    chunks = Chunks()
    step = step or len(octets) or 1
    for start in range(0, len(octets), step):
        try:
            _, size = chunks.feed(octets[start : start + step])
        except Refusal as refusal:
            return refusal.reason
        if size is not None:
            return start + size
    return None


FAULTY = "malformed request content"


@pytest.mark.parametrize(
    "octets",
    [
        b"0\r\n\r\n",
        b"000\r\n\r\n",
        b"5\r\nGET /\r\nA\r\n0123456789\r\n0\r\n\r\n",
        b"a\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n",  # content that looks like lines
        b'3;a;b=c ; d = "e\\"f" \t;g=""\r\nabc\r\n0;x\r\n\r\n',
        b"3;a=\"\xe9\"\r\nabc\r\n0\r\n\r\n",
        b"0\r\nX: y\r\nZ:\r\n\r\n",
        b"0000000000000003\r\nabc\r\n0\r\n\r\n",
    ],
)  # fmt: skip
def test_rfc9112_7_1_what_is_right(octets: bytes) -> None:
    """RFC 9112 §7.1."""
    for step in (0, 1, 2, 3):
        assert read(octets, step) == len(octets)
        assert read(octets + b"GET / HTTP/1.1\r\n", step) == len(octets)
        assert read(octets[:-1], step) is None


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n", b" 0\r\n", b"0 \r\n", b"0\t\r\n", b"0x0\r\n", b"+0\r\n", b"-0\r\n", b"0_0\r\n",
        b"zz\r\n", b"0\n", b"0\r\r\n", b"3\r\nabcd\r\n", b"3\r\nabc\n", b"3\r\nabc0\r\n",
        b"00000000000000000\r\n",  # 17 digits
        b"3;\r\n", b"3;=\r\n", b"3;a=\r\n", b"3;a b\r\n", b"3 a\r\n", b"3;a=b c\r\n",
        b'3;a="b\r\n', b'3;a="b"c\r\n', b"3;a\r\rb\r\n", b"3;a\n", b"3;a=\"\x00\"\r\n",
        b"3\r\r;a\r\n", b"3\x00\r\n",
        b"0\r\n\n", b"0\r\nX y: z\r\n", b"0\r\nX : y\r\n", b"0\r\nX\r\n", b"0\r\n X: y\r\n",
        b"0\r\nX: y\n", b"0\r\nX: \x00\r\n", b"0\r\n: y\r\n", b"0\r\nX: y\rZ: a\r\n",
    ],
)  # fmt: skip
def test_rfc9112_7_1_what_is_not(octets: bytes) -> None:
    """RFC 9112 §2.2, §7.1: a reader that is less strict finds the next request elsewhere."""
    for step in (0, 1):
        assert read(octets, step) == FAULTY
    client = Client()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent = client.send(head + octets + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert sent.startswith(b"HTTP/1.1 400 ")
    assert sent.count(b"HTTP/1.1 ") == 1
    assert client.transport.ended


@pytest.mark.parametrize("step", [0, 1])
def test_rfc9112_7_1_1_white_space_before_an_extension(step: int) -> None:
    """RFC 9110 §5.6.3: bad white space must be read; h11 takes none behind a size."""
    client = Client()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b'5 ;a\r\nhello\r\n2\t;\tb = "c"\r\n:)\r\n0 ; d\r\nX: y\r\n\r\n'
    octets = head + body
    sent = b"".join(
        client.send(octets[at : at + (step or len(octets))])
        for at in range(0, len(octets), step or len(octets))
    )
    assert sent.startswith(b"HTTP/1.1 405 ")
    plain, end = Chunks().feed(body)
    assert plain == b"5\r\nhello\r\n2\r\n:)\r\n0\r\nX: y\r\n\r\n"
    assert end == len(body)


def test_rfc9112_7_1_1_extensions_have_a_limit() -> None:
    """RFC 9112 §7.1.1: in all, however many chunks they come with."""
    chunk = b"1;" + b"x" * 1000 + b"\r\na\r\n"
    assert read(chunk * 16 + b"0\r\n\r\n") == len(chunk) * 16 + 5
    assert read(chunk * 17) == "too much beside the request content"
    assert read(b"1;" + b"x" * (MAX_HEAD + 1)) == FAULTY  # a line without end
    assert read(b"0\r\n" + b"x: y\r\n" * (MAX_HEAD // 6 + 1)) == (
        "too much beside the request content"
    )


@given(
    st.lists(
        st.sampled_from([b"0\r\n", b"\r\n", b"\r", b"\n", b"3", b"3\r\nabc\r\n", b";a", b"X: y"])
    ).map(b"".join),
    st.integers(1, 5),
)
def test_pieces_do_not_matter(octets: bytes, step: int) -> None:
    assert read(octets, step) == read(octets)
