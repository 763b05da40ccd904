"""RFC 9113 and RFC 7541, section by section, frame by frame: what a server has to make of each.

The cases are those that conformance suites for HTTP/2 ask about, in octets of our own: no library
of frames stands between the test and the server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import hpack
import pytest

from tests.http.fakes import ABOUT, Client, make_site

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONT = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIO = 0x1, 0x1, 0x4, 0x8, 0x20
(
    NO_ERROR, PROTOCOL, INTERNAL, FLOW, SETTINGS_TIMEOUT, CLOSED, FRAME_SIZE, REFUSED, CANCEL,
    COMPRESSION,
) = range(10)  # fmt: skip
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SITE = make_site()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def u32(number: int) -> bytes:
    return number.to_bytes(4)


def block(*fields: tuple[str, str], **changed: str | None) -> bytes:
    """A header block without the dynamic table: GET /about, with changes of pseudo-fields."""
    pseudo: dict[str, str | None] = {
        ":method": "GET", ":scheme": "http", ":path": "/about", ":authority": "example.org",
    }  # fmt: skip
    pseudo |= {":" + name: value for name, value in changed.items()}
    pairs = [(name, value) for name, value in pseudo.items() if value is not None]
    return literal(*pairs, *fields)


def literal(*pairs: tuple[str, str]) -> bytes:
    return b"".join(
        b"\0" + b"".join(bytes([len(part)]) + part.encode() for part in pair) for pair in pairs
    )


def request(stream: int = 1, flags: int = END_STREAM | END_HEADERS, octets: bytes = b"") -> bytes:
    return frame(HEADERS, flags, stream, octets or block())


def post(stream: int = 1, *fields: tuple[str, str]) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, block(*fields, method="POST"))


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


class Peer:
    """Sends octets and reads frames."""

    def __init__(self) -> None:
        self.client = Client(site=SITE)
        self._taken = 0
        self.frames: list[Frame] = []
        self.heads: dict[int, dict[str, str]] = {}
        self.decoder = hpack.Decoder()

    def send(self, octets: bytes) -> None:
        if not self.client.transport.closed:
            self.client.protocol.data_received(octets)
        sent = bytes(self.client.transport.sent)
        while len(sent) - self._taken >= 9:
            at = self._taken
            length = int.from_bytes(sent[at : at + 3])
            stream = int.from_bytes(sent[at + 5 : at + 9])
            payload = sent[at + 9 : at + 9 + length]
            assert len(payload) == length
            self.frames.append(Frame(sent[at + 3], sent[at + 4], stream, payload))
            if sent[at + 3] == HEADERS:
                self.heads[stream] = dict(self.decoder.decode(payload))
            self._taken += 9 + length

    def of(self, kind: int, stream: int | None = None) -> list[Frame]:
        return [f for f in self.frames if f.kind == kind and stream in (None, f.stream)]

    @property
    def ended(self) -> bool:
        return self.client.transport.ended

    def body(self, stream: int) -> bytes:
        return b"".join(f.payload for f in self.of(DATA, stream))

    def status(self, stream: int) -> str:
        return self.heads.get(stream, {}).get(":status", "")


Expect = Callable[[Peer], str]


def dies(*codes: int) -> Expect:
    """A connection error: GOAWAY with one of these codes, and the end."""

    def check(peer: Peer) -> str:
        goaways = peer.of(GOAWAY)
        if not goaways or not peer.ended:
            return "the connection goes on"
        code = int.from_bytes(goaways[-1].payload[4:8])
        return "" if code in codes else f"GOAWAY {code}"

    return check


def fails(stream: int, *codes: int) -> Expect:
    """A stream error; RFC 9113 §5.4.2 lets it be one of the connection."""

    def check(peer: Peer) -> str:
        for reset in peer.of(RST, stream):
            code = int.from_bytes(reset.payload)
            return "" if code in codes else f"RST_STREAM {code}"
        return dies(*codes)(peer)

    return check


def refuses(stream: int, *codes: int) -> Expect:
    """A malformed request: a stream error, or an answer of 400 (RFC 9113 §8.1.1)."""

    def check(peer: Peer) -> str:
        return "" if peer.status(stream) == "400" else fails(stream, *codes)(peer)

    return check


def answers(*streams: int, status: str = "200") -> Expect:
    """These streams get an answer, and the connection goes on."""

    def check(peer: Peer) -> str:
        if peer.ended:
            return "the connection ended"
        for stream in streams:
            if (found := peer.status(stream)) != status:
                return f"stream {stream}: {found or 'nothing'}"
            last = [f for f in peer.frames if f.stream == stream and f.kind in (DATA, HEADERS)][-1]
            if not last.flags & END_STREAM:
                return f"stream {stream} does not end"
        return ""

    return check


def goes_on(peer: Peer) -> str:
    """Nothing happens but the answer to a ping."""
    peer.send(frame(PING, 0, 0, b"are you?"))
    if peer.ended:
        return "the connection ended"
    return "" if [f.payload for f in peer.of(PING)][-1:] == [b"are you?"] else "no answer to a ping"


R, S, W = request(), frame(SETTINGS, 0, 0), frame
HALF = request(1, END_STREAM)  # no END_HEADERS
CASES: dict[str, tuple[bytes | list[bytes], Expect]] = {
    # -- what is right --------------------------------------------------------------------------
    "5.1 PRIORITY on an idle stream": (frame(PRIORITY, 0, 1, u32(0) + b"\x0f") + R, answers(1)),
    "5.1 half-closed: WINDOW_UPDATE": (R + frame(WINDOW, 0, 1, u32(1)), goes_on),
    "5.1 half-closed: PRIORITY": (R + frame(PRIORITY, 0, 1, u32(0) + b"\x0f"), goes_on),
    "5.1 half-closed: RST_STREAM": (R + frame(RST, 0, 1, u32(8)), goes_on),
    "5.1 closed: PRIORITY": (
        R + frame(RST, 0, 1, u32(8)) + frame(PRIORITY, 0, 1, u32(0) + b"\x0f"), goes_on),
    "6.1 DATA": (post() + frame(DATA, END_STREAM, 1, b"x"), answers(1, status="405")),
    "6.1 DATA, padded": (post() + frame(DATA, END_STREAM | PADDED, 1, b"\4x" + bytes(4)),
                         answers(1, status="405")),
    "6.2 HEADERS": (R, answers(1)),
    "6.2 HEADERS, padded": (
        request(1, END_STREAM | END_HEADERS | PADDED, b"\5" + block() + bytes(5)), answers(1)),
    "6.2 HEADERS with priority": (
        request(1, END_STREAM | END_HEADERS | PRIO, u32(0) + b"\xff" + block()), answers(1)),
    "6.2 HEADERS, padded, with priority": (
        request(1, END_STREAM | END_HEADERS | PRIO | PADDED,
                b"\2" + u32(0x80000000) + b"\0" + block() + bytes(2)), answers(1)),
    "6.5 SETTINGS": (S, lambda p: "" if len([f for f in p.of(SETTINGS) if f.flags & ACK]) == 2
                     else "no acknowledgement"),
    "6.5.2 an unknown setting": (frame(SETTINGS, 0, 0, b"\xff\xff" + u32(1)) + R, answers(1)),
    "6.7 PING": (b"", goes_on),
    "6.7 PING with ACK": (frame(PING, ACK, 0, bytes(8)),
                          lambda p: "answered" if p.of(PING) else goes_on(p)),
    "6.8 GOAWAY": (R + frame(GOAWAY, 0, 0, bytes(8)),
                   lambda p: "" if p.status(1) == "200" else "no answer"),
    "6.9 WINDOW_UPDATE": (frame(WINDOW, 0, 0, u32(1)) + R, answers(1)),
    "6.10 CONTINUATION": (
        request(1, END_STREAM, block()[:9]) + frame(CONT, END_HEADERS, 1, block()[9:]), answers(1)),
    "6.10 CONTINUATION, several": (
        request(1, END_STREAM, block()[:5]) + frame(CONT, 0, 1, block()[5:9])
        + frame(CONT, 0, 1) + frame(CONT, END_HEADERS, 1, block()[9:]), answers(1)),
    "8.1 HEAD": (request(1, 5, block(method="HEAD")),
                 lambda p: "a body" if p.body(1) else answers(1)(p)),
    "8.1 POST with trailers": (
        post() + frame(DATA, 0, 1, b"x") + request(1, 5, literal(("x", "y"))),
        answers(1, status="405")),
    "8.3.1 host instead of :authority": (
        request(1, 5, block(("host", "example.org"), authority=None)), answers(1)),
    "4.1 an unknown type": (frame(0x16, 0xFF, 0, b"x" * 8) + R, answers(1)),
    "4.1 undefined flags": (frame(PING, 0x16, 0, bytes(8)), goes_on),
    "4.1 the reserved bit": (frame(PING, 0, 0x80000000, bytes(8)), goes_on),
    "4.2 a frame of 2^14 octets": (post() + frame(DATA, END_STREAM, 1, bytes(16384)), goes_on),
    "5.5 an extension frame": (frame(0xEE, 0, 1, b"x"), goes_on),
    # -- 3 to 5 ---------------------------------------------------------------------------------
    "4.2 DATA too long": (post() + frame(DATA, 0, 1, bytes(16385)), dies(FRAME_SIZE)),
    "4.2 HEADERS too long": (request(1, 5, block() + bytes(16385)), dies(FRAME_SIZE)),
    "4.2 SETTINGS too long": (frame(SETTINGS, 0, 0, bytes(16386)), dies(FRAME_SIZE)),
    "4.3 a broken header block": (request(1, 5, b"\0\5abc"), dies(COMPRESSION)),
    "4.3 PRIORITY inside a block": (HALF + frame(PRIORITY, 0, 1, u32(0) + b"\1"), dies(PROTOCOL)),
    "4.3 HEADERS of another stream inside a block": (HALF + request(3), dies(PROTOCOL)),
    "5.1 idle: DATA": (frame(DATA, END_STREAM, 1, b"x"), dies(PROTOCOL, CLOSED)),
    "5.1 idle: RST_STREAM": (frame(RST, 0, 1, u32(8)), dies(PROTOCOL)),
    "5.1 idle: WINDOW_UPDATE": (frame(WINDOW, 0, 1, u32(1)), dies(PROTOCOL)),
    "5.1 idle: CONTINUATION": (frame(CONT, END_HEADERS, 1, block()), dies(PROTOCOL)),
    "5.1 half-closed: DATA": (R + frame(DATA, END_STREAM, 1, b"x"), fails(1, CLOSED)),
    "5.1 half-closed: HEADERS": (R + R, fails(1, CLOSED)),
    "5.1 half-closed: CONTINUATION": (R + frame(CONT, 4, 1, block()), fails(1, CLOSED, PROTOCOL)),
    "5.1 reset: DATA": (post() + frame(RST, 0, 1, u32(8)) + frame(DATA, 1, 1, b"x"),
                        fails(1, CLOSED, NO_ERROR)),
    "5.1 reset: HEADERS": (post() + frame(RST, 0, 1, u32(8)) + R, fails(1, CLOSED, NO_ERROR)),
    "5.1 reset: CONTINUATION": (
        R + frame(RST, 0, 1, u32(8)) + frame(CONT, 4, 1, block()), dies(CLOSED, PROTOCOL)),
    "5.1.1 an even stream": (request(2), dies(PROTOCOL)),
    "5.1.1 a smaller stream": (request(5) + request(3), dies(PROTOCOL)),
    "5.3.1 HEADERS that depend on themselves": (
        request(1, 0x25, u32(1) + b"\xff" + block()), fails(1, PROTOCOL)),
    "5.3.1 PRIORITY that depends on itself": (
        R + frame(PRIORITY, 0, 1, u32(1) + b"\xff"), fails(1, PROTOCOL)),
    "5.5 an extension frame inside a block": (HALF + frame(0xEE, 0, 1), dies(PROTOCOL)),
    # -- 6 --------------------------------------------------------------------------------------
    "6.1 DATA on stream 0": (R + frame(DATA, 0, 0, b"x"), dies(PROTOCOL)),
    "6.1 padding longer than DATA": (post() + frame(DATA, PADDED | 1, 1, b"\x09x"), dies(PROTOCOL)),
    "6.2 HEADERS on stream 0": (request(0), dies(PROTOCOL)),
    "6.2 padding longer than HEADERS": (
        request(1, END_STREAM | END_HEADERS | PADDED, b"\xff" + block()), dies(PROTOCOL)),
    "6.3 PRIORITY on stream 0": (frame(PRIORITY, 0, 0, u32(1) + b"\1"), dies(PROTOCOL)),
    "6.3 PRIORITY of four octets": (R + frame(PRIORITY, 0, 1, u32(0)), fails(1, FRAME_SIZE)),
    "6.4 RST_STREAM on stream 0": (frame(RST, 0, 0, u32(8)), dies(PROTOCOL)),
    "6.4 RST_STREAM of three octets": (R + frame(RST, 0, 1, bytes(3)), dies(FRAME_SIZE)),
    "6.5 SETTINGS on a stream": (frame(SETTINGS, 0, 1), dies(PROTOCOL)),
    "6.5 SETTINGS, ACK with content": (frame(SETTINGS, ACK, 0, bytes(6)), dies(FRAME_SIZE)),
    "6.5 SETTINGS of five octets": (frame(SETTINGS, 0, 0, bytes(5)), dies(FRAME_SIZE)),
    "6.5.2 ENABLE_PUSH 2": (frame(SETTINGS, 0, 0, b"\0\2" + u32(2)), dies(PROTOCOL)),
    "6.5.2 INITIAL_WINDOW_SIZE 2^31": (frame(SETTINGS, 0, 0, b"\0\4" + u32(1 << 31)), dies(FLOW)),
    "6.5.2 MAX_FRAME_SIZE 16383": (frame(SETTINGS, 0, 0, b"\0\5" + u32(16383)), dies(PROTOCOL)),
    "6.5.2 MAX_FRAME_SIZE 2^24": (frame(SETTINGS, 0, 0, b"\0\5" + u32(1 << 24)), dies(PROTOCOL)),
    "6.6 PUSH_PROMISE": (R + frame(PUSH, END_HEADERS, 1, u32(2) + block()), dies(PROTOCOL)),
    "6.7 PING on a stream": (frame(PING, 0, 1, bytes(8)), dies(PROTOCOL)),
    "6.7 PING of six octets": (frame(PING, 0, 0, bytes(6)), dies(FRAME_SIZE)),
    "6.8 GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), dies(PROTOCOL)),
    "6.9 an increment of nought": (frame(WINDOW, 0, 0, u32(0)), dies(PROTOCOL)),
    "6.9 an increment of nought, of a stream": (post() + frame(WINDOW, 0, 1, u32(0)),
                                                fails(1, PROTOCOL, NO_ERROR)),
    "6.9 WINDOW_UPDATE of three octets": (frame(WINDOW, 0, 0, bytes(3)), dies(FRAME_SIZE)),
    "6.9.1 a stream window over 2^31-1": (
        post() + frame(WINDOW, 0, 1, u32(0x7FFFFFFF)) * 2, fails(1, FLOW)),
    "6.9.1 a connection window over 2^31-1": (
        frame(WINDOW, 0, 0, u32(0x7FFFFFFF)) * 2, dies(FLOW)),
    "6.10 CONTINUATION on stream 0": (HALF + frame(CONT, END_HEADERS, 0), dies(PROTOCOL)),
    "6.10 CONTINUATION after a whole block": (R + frame(CONT, END_HEADERS, 1), dies(PROTOCOL)),
    "6.10 CONTINUATION after CONTINUATION with END_HEADERS": (
        request(1, END_STREAM) + frame(CONT, END_HEADERS, 1) + frame(CONT, END_HEADERS, 1),
        dies(PROTOCOL)),
    "6.10 CONTINUATION after DATA": (post() + frame(DATA, 0, 1) + frame(CONT, 4, 1),
                                     dies(PROTOCOL)),
    "6.10 DATA inside a block": (HALF + frame(DATA, 0, 1, b"x"), dies(PROTOCOL)),
    # -- 8 --------------------------------------------------------------------------------------
    "8.1 trailers without END_STREAM": (
        post(1, ("x", "y")) + frame(HEADERS, END_HEADERS, 1, literal(("a", "b"))),
        fails(1, PROTOCOL)),
    "8.2.1 an upper-case name": (request(1, 5, block(("X-A", "b"))), refuses(1, PROTOCOL)),
    "8.2.2 connection": (request(1, 5, block(("connection", "keep-alive"))), refuses(1, PROTOCOL)),
    "8.2.2 transfer-encoding": (request(1, 5, block(("transfer-encoding", "chunked"))),
                                refuses(1, PROTOCOL)),
    "8.2.2 te: gzip": (request(1, 5, block(("te", "trailers, gzip"))), refuses(1, PROTOCOL)),
    "8.2.2 te: trailers": (request(1, 5, block(("te", "trailers"))), answers(1)),
    "8.3 an unknown pseudo-field": (request(1, 5, block((":test", "x"))), refuses(1, PROTOCOL)),
    "8.3 a pseudo-field of responses": (request(1, 5, block((":status", "200"))),
                                        refuses(1, PROTOCOL)),
    "8.3 a pseudo-field after others": (
        request(1, 5, literal((":method", "GET"), (":scheme", "http"), ("x", "y"),
                              (":authority", "a"), (":path", "/"))), refuses(1, PROTOCOL)),
    "8.3 a pseudo-field in trailers": (
        post() + frame(DATA, 0, 1, b"x") + request(1, 5, literal((":method", "GET"))),
        fails(1, PROTOCOL)),
    "8.3.1 an empty :path": (request(1, 5, block(path="")), refuses(1, PROTOCOL)),
    "8.3.1 no :method": (request(1, 5, block(method=None)), refuses(1, PROTOCOL)),
    "8.3.1 no :scheme": (request(1, 5, block(scheme=None)), refuses(1, PROTOCOL)),
    "8.3.1 no :path": (request(1, 5, block(path=None)), refuses(1, PROTOCOL)),
    "8.3.1 two :method": (request(1, 5, literal((":method", "GET")) + block()),
                          refuses(1, PROTOCOL)),
    "8.3.1 two :scheme": (request(1, 5, literal((":scheme", "http")) + block()),
                          refuses(1, PROTOCOL)),
    "8.3.1 two :path": (request(1, 5, literal((":path", "/")) + block()), refuses(1, PROTOCOL)),
    "8.1.1 content shorter than said": (
        post(1, ("content-length", "5")) + frame(DATA, END_STREAM, 1, b"x"),
        fails(1, PROTOCOL)),
    "8.1.1 content longer than said": (
        post(1, ("content-length", "1")) + frame(DATA, 0, 1, b"x") + frame(DATA, 1, 1, b"y"),
        fails(1, PROTOCOL)),
}  # fmt: skip

# RFC 7541: indices of the static table give GET / over http with an authority.
BASE = b"\x82\x86\x84\x41\x01a"
BLOCKS: dict[str, tuple[bytes, Expect]] = {
    "6.1 indexed": (BASE, answers(1)),
    "6.2.1 literal, indexed name": (BASE + b"\x7a\x01x", answers(1)),
    "6.2.1 literal, new name": (BASE + b"\x40\x01a\x01b", answers(1)),
    "6.2.2 without indexing": (BASE + b"\x00\x01a\x01b", answers(1)),
    "6.2.3 never indexed": (BASE + b"\x10\x01a\x01b", answers(1)),
    "5.2 Huffman": (
        b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
        answers(1),
    ),
    "6.3 a smaller table": (b"\x20" + BASE, answers(1)),
    "2.3.3 an index past the tables": (BASE + b"\xc6", dies(COMPRESSION)),
    "2.3.3 a name past the tables": (BASE + b"\x7f\x07\x01x", dies(COMPRESSION)),
    "4.2 a size update at the end": (BASE + b"\x20", dies(COMPRESSION)),
    "5.2 Huffman padding of eight bits": (
        BASE + b"\x00\x01x\x84\x49\x50\x9f\xff",
        dies(COMPRESSION),
    ),
    "5.2 Huffman padding of zeros": (BASE + b"\x00\x01x\x83\x49\x50\x90", dies(COMPRESSION)),
    "5.2 Huffman with EOS": (
        BASE + b"\x00\x01x\x87\x49\x50\x9f\xff\xff\xff\xff",
        dies(COMPRESSION),
    ),
    "5.2 Huffman of test": (BASE + b"\x00\x01x\x83\x49\x50\x9f", answers(1)),
    "6.1 index nought": (BASE + b"\x80", dies(COMPRESSION)),
    "6.3 a larger table than allowed": (b"\x3f\xe2\x1f" + BASE, dies(COMPRESSION)),
    "5.1 an integer without end": (BASE + b"\xff" + b"\x80" * 20 + b"\x01", dies(COMPRESSION)),
}


RIGHT = {name for name in BLOCKS if BLOCKS[name][0].startswith((BASE, b"\x20" + BASE))} & {
    "6.1 indexed", "6.2.1 literal, indexed name", "6.2.1 literal, new name", "6.3 a smaller table",
    "6.2.2 without indexing", "6.2.3 never indexed", "5.2 Huffman of test", "5.2 Huffman",
}  # fmt: skip


def begun() -> Peer:
    peer = Peer()
    peer.send(PREFACE + frame(SETTINGS, 0, 0))
    return peer


@pytest.mark.parametrize("name", CASES)
def test_rfc9113(name: str) -> None:
    """RFC 9113, the section in the name."""
    octets, expect = CASES[name]
    peer = begun()
    peer.send(octets if isinstance(octets, bytes) else b"".join(octets))
    assert expect(peer) == "", name


@pytest.mark.parametrize("name", CASES)
def test_rfc9113_a_read_for_each_frame(name: str) -> None:
    """The same as it comes over TLS: some frames come when the connection has ended already."""
    octets, expect = CASES[name]
    assert isinstance(octets, bytes)
    peer = begun()
    while octets:
        stop = 9 + int.from_bytes(octets[:3])
        peer.send(octets[:stop])
        octets = octets[stop:]
    assert expect(peer) == "", name


@pytest.mark.parametrize("name", CASES)
def test_rfc9113_after_requests_that_were_seen_before(name: str) -> None:
    """The same with the fast lane warm: streams 1 and 3 shift by four, and nothing else."""
    octets, expect = CASES[name]
    assert isinstance(octets, bytes)
    peer = begun()
    peer.client.server.ready = dict(_seen().ready)
    peer.send(octets)
    assert expect(peer) == "", name


def _seen() -> object:
    """A server that has answered what the cases ask."""
    first = Client(site=SITE)
    first.send(PREFACE + frame(SETTINGS, 0, 0) + request(1) + request(3, 5, BASE))
    assert len(first.server.ready) == 2
    return first.server


@pytest.mark.parametrize("name", BLOCKS)
def test_rfc7541(name: str) -> None:
    """RFC 7541, the section in the name; once as the first request and once in the fast lane."""
    octets, expect = BLOCKS[name]
    for warm in (False, True):
        peer = begun()
        stream = 1
        if warm:
            peer.send(request(1))
            stream = 3
        peer.send(request(stream, 5, octets))
        wanted = answers(stream) if name in RIGHT else expect
        assert wanted(peer) == "", (name, warm)


@pytest.mark.parametrize(
    "octets",
    [b"INVALID PREFACE\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + frame(SETTINGS, 0, 0)],
)
def test_rfc9113_3_4_a_preface_that_is_none(octets: bytes) -> None:
    """RFC 9113 §3.4."""
    peer = Peer()
    peer.client.protocol.data_received(octets)
    assert peer.ended


def test_rfc9113_3_4_the_first_frame_is_settings() -> None:
    """RFC 9113 §3.4: of the server as well, and before it has heard any."""
    peer = Peer()
    peer.send(PREFACE)
    assert peer.frames[0].kind == SETTINGS
    assert not peer.frames[0].flags & ACK


def test_rfc9113_6_9_2_windows_follow_the_settings() -> None:
    """RFC 9113 §6.9.2: nothing at first, then an octet, then what a larger window allows."""
    peer = Peer()
    peer.send(PREFACE + frame(SETTINGS, 0, 0, b"\0\4" + u32(0)) + request(1))
    assert peer.body(1) == b""
    peer.send(frame(SETTINGS, 0, 0, b"\0\4" + u32(1)))
    assert peer.body(1) == ABOUT[:1]
    peer.send(frame(SETTINGS, 0, 0, b"\0\4" + u32(0)))
    peer.send(frame(WINDOW, 0, 1, u32(1)))
    assert peer.body(1) == ABOUT[:1], "the window is negative by one and then nought"
    peer.send(frame(WINDOW, 0, 1, u32(len(ABOUT))))
    assert peer.body(1) == ABOUT
    peer.send(request(3))
    assert peer.body(3) == b"", "the fast lane, too, goes by the window"
    assert peer.status(3) == "200"


def test_rfc9113_6_5_3_the_last_of_several_values_counts() -> None:
    """RFC 9113 §6.5.3."""
    peer = Peer()
    twice = b"\0\4" + u32(100) + b"\0\4" + u32(1)
    peer.send(PREFACE + frame(SETTINGS, 0, 0, twice) + request(1))
    assert peer.body(1) == ABOUT[:1]


def test_rfc9113_6_9_1_a_stream_window_over_its_bound() -> None:
    """RFC 9113 §6.9.1: a stream error, FLOW_CONTROL_ERROR."""
    peer = Peer()
    peer.send(PREFACE + frame(SETTINGS, 0, 0, b"\0\4" + u32(0)) + request(1))
    peer.send(frame(WINDOW, 0, 1, u32(0x7FFFFFFF)) * 2)
    assert fails(1, FLOW)(peer) == ""
    # The largest window of all is none too large.
    peer = Peer()
    peer.send(PREFACE + frame(SETTINGS, 0, 0, b"\0\4" + u32(0)) + request(1))
    peer.send(frame(SETTINGS, 0, 0, b"\0\4" + u32(0x7FFFFFFF)))
    assert peer.body(1) == ABOUT


def test_rfc9113_5_1_2_streams_over_the_limit() -> None:
    """RFC 9113 §5.1.2: REFUSED_STREAM or PROTOCOL_ERROR."""
    peer = Peer()
    peer.send(PREFACE + frame(SETTINGS, 0, 0, b"\0\4" + u32(0)))
    for stream in range(1, 205, 2):
        peer.send(request(stream))
    assert fails(201, REFUSED, PROTOCOL)(peer) == ""


@pytest.mark.parametrize("pieces", [1, 7, 100])
def test_pieces_do_not_matter(pieces: int) -> None:
    octets = PREFACE + frame(SETTINGS, 0, 0) + request(1) + request(3, 5, BASE) * 1 + request(5)
    octets += frame(PING, 0, 0, b"12345678") + request(7)
    whole, cut = Peer(), Peer()
    whole.send(octets)
    for start in range(0, len(octets), pieces):
        cut.send(octets[start : start + pieces])
    for stream in (1, 3, 5, 7):
        assert cut.body(stream) == whole.body(stream) != b""


def test_the_fast_lane_keeps_the_dynamic_table_right() -> None:
    """RFC 7541 §2.3: blocks that insert, blocks that refer, over both ways, in any order."""
    peer = begun()
    encoder = hpack.Encoder()
    for number in range(200):
        path = ("/about", "/digits.txt", "/docs/")[number % 3]
        agent = f"agent {number % 7}" * (1 + 40 * (number % 11 == 0))
        fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "example.org"),
            ("user-agent", agent),
            ("n", str(number // 100)),
        ]
        flags = 5 | (PADDED if number % 13 == 0 else 0)
        octets = encoder.encode(fields)
        stream = 2 * number + 1
        peer.send(request(stream, flags, (b"\0" if flags & PADDED else b"") + octets)
                  + frame(WINDOW, 0, 0, u32(20_000)))  # fmt: skip
        assert answers(stream)(peer) == "", number
        wanted = SITE.resources[path.encode()].identity.body  # type: ignore[union-attr]
        assert peer.body(stream) == wanted
        peer.frames.clear()
    server = peer.client.server
    assert server.counters()["memo_hits"] > 20
    assert server.counters()["requests"] == 200
