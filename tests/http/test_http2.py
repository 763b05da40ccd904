"""HTTP/2: the same answers, flow control, priorities, floods and endings, with h2 as the client."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from appliance.http.priority import Priority, parse_priority
from appliance.http.server import Limits
from tests.http.fakes import ABOUT, TEXT, Client, document, make_site, take_slowly

BIG = bytes(range(256)) * 2000  # 512,000 octets
SITE = make_site(
    {
        b"/big": document(BIG, "big"),
        b"/other": document(BIG[::-1], "big"),
        b"/half": document(BIG[:130_000], "big"),
    }
)


class H2Client:
    """An HTTP/2 client over a fake transport."""

    def __init__(self, *, window: int = 65535, start: bool = True, **options: Any) -> None:
        self.client = Client(site=SITE, **options)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window},
        )
        self.taken = 0
        self.headers: dict[int, dict[str, str]] = {}
        self.informed: dict[int, str] = {}  # informational statuses
        self.bodies: dict[int, bytes] = defaultdict(bytes)
        self.order: list[int] = []  # stream of each DATA frame
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.goaway: int | None = None
        self.number = -1
        if start:
            self.h2.initiate_connection()
            self.exchange()

    def exchange(self) -> None:
        """Carry octets both ways until neither side has any."""
        while True:
            out = self.h2.data_to_send()
            if out and not self.client.transport.closed:
                self.client.protocol.data_received(out)
            got = bytes(self.client.transport.sent[self.taken :])
            self.taken += len(got)
            if not got and not out:
                return
            for event in self.h2.receive_data(got):
                self._event(event)

    def _event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.headers[event.stream_id] = {str(name): str(value) for name, value in event.headers}
        elif isinstance(event, h2.events.InformationalResponseReceived):
            self.informed[event.stream_id] = str(dict(event.headers)[":status"])
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            self.order.append(event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = int(event.error_code)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = int(event.error_code)

    def ask(self, target: str, method: str = "GET", *, end: bool = True, **fields: str) -> int:
        self.number += 2
        headers = [
            (":method", method), (":scheme", "http"), (":authority", "example.org"),
            (":path", target), *((k.replace("_", "-"), v) for k, v in fields.items()),
        ]  # fmt: skip
        self.h2.send_headers(self.number, headers, end_stream=end)
        return self.number

    def fetch(
        self, target: str, method: str = "GET", **fields: str
    ) -> tuple[dict[str, str], bytes]:
        number = self.ask(target, method, **fields)
        self.exchange()
        while number not in self.ended:
            before = len(self.bodies[number])
            self.open(number)
            assert number in self.ended or len(self.bodies[number]) > before, "stuck"
        return self.headers[number], self.bodies[number]

    def open(self, *numbers: int, size: int = 60_000) -> None:
        """Give windows back."""
        self.h2.increment_flow_control_window(size)
        for number in numbers:
            if number not in self.ended:
                self.h2.increment_flow_control_window(size, number)
        self.exchange()

    def raw(self, *frames: Frame) -> None:
        for frame in frames:
            if not self.client.transport.ended:
                self.client.protocol.data_received(frame.serialize())
        self.exchange()


@pytest.mark.parametrize(
    ("target", "method", "fields"),
    [
        ("/about", "GET", {}),
        ("/about", "HEAD", {}),
        ("/about", "GET", {"accept_encoding": "gzip"}),
        ("/about", "GET", {"if_none_match": "*"}),
        ("/digits.bin", "GET", {"range": "bytes=5-99"}),
        ("/digits.bin", "GET", {"range": "bytes=0-1,1000-1001"}),
        ("/digits.bin", "GET", {"range": "bytes=9999-"}),
        ("/docs?x", "GET", {}),
        ("/nope", "GET", {}),
        ("/empty.txt", "GET", {}),
        ("/%zz", "GET", {}),
        ("*", "OPTIONS", {}),
        ("/", "POST", {}),
        ("/", "BREW", {}),
    ],
)
def test_answers_are_those_of_http1(target: str, method: str, fields: dict[str, str]) -> None:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    one = Client(site=SITE).ask(f"{method} {target}", *lines)
    headers, body = H2Client().fetch(target, method, **fields)
    assert int(headers.pop(":status")) == one.status
    assert headers == one.fields
    assert body == one.body


def test_rfc9113_many_streams_at_once() -> None:
    """RFC 9113 §5.1.2: a hundred streams on one connection, each answered."""
    client = H2Client()
    numbers = [client.ask("/digits.bin" if n % 2 else "/about") for n in range(100)]
    client.exchange()
    for _ in range(20):
        client.open(*(n for n in numbers if n not in client.ended))
    assert client.ended == set(numbers)
    assert all(client.bodies[n] == (TEXT if n // 2 % 2 else ABOUT) for n in numbers)


def test_rfc9113_flow_control_is_honoured() -> None:
    """RFC 9113 §5.2: not an octet more than both windows allow."""
    client = H2Client(window=1000)
    number = client.ask("/big")
    client.exchange()
    assert len(client.bodies[number]) == 1000
    client.h2.increment_flow_control_window(500, number)
    client.exchange()
    assert len(client.bodies[number]) == 1500
    for _ in range(20):
        client.open(number)
    assert client.bodies[number] == BIG


def test_rfc9113_windows_of_the_connection_are_shared() -> None:
    """RFC 9113 §6.9.1: the connection's window bounds all streams together."""
    client = H2Client(window=2**20)
    one, two = client.ask("/big"), client.ask("/other")
    client.exchange()
    assert len(client.bodies[one]) + len(client.bodies[two]) == 65535


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"", (3, False)), (b"u=0", (0, False)), (b"u=7, i", (7, True)), (b"i=?1", (3, True)),
        (b"i=?0,u=1", (1, False)), (b"u=8", (3, False)), (b"u=-1", (3, False)), (b"u", (3, False)),
        (b"x=1, u=2;y", (3, False)), (b"u=?1", (3, False)), (b"i=3", (3, False)),
        (b"u=5,u=6", (6, False)),
    ],
)  # fmt: skip
def test_rfc9218_priority_field(value: bytes, wanted: tuple[int, bool]) -> None:
    """RFC 9218 §4: urgency 0 to 7, incremental or not, anything else ignored."""
    assert parse_priority(value) == Priority(*wanted)


def test_rfc9218_the_urgent_goes_first() -> None:
    """RFC 9218 §10: lower urgency values first, then in the order of streams."""
    client = H2Client(window=2**20)
    late = client.ask("/big", priority="u=6")
    client.exchange()
    client.order.clear()
    third, first, second = (client.ask("/other", priority=f"u={u}") for u in (5, 0, 2))
    client.open(size=2**21)
    assert list(dict.fromkeys(client.order)) == [first, second, third, late]
    assert client.ended == {first, second, third, late}


def test_rfc9218_incremental_streams_take_turns() -> None:
    """RFC 9218 §10: equals that are useful in part share; the others come one by one."""
    client = H2Client(window=2**20)
    client.ask("/big")
    client.exchange()  # takes the connection's window
    one, two = (client.ask("/other", priority="u=1, i") for _ in range(2))
    client.order.clear()
    client.open(size=2**21)
    assert client.order[:6] == [one, two, one, two, one, two]


def test_rfc9218_priority_update() -> None:
    """RFC 9218 §7.1: a frame changes the priority of a stream, even before its request."""
    client = H2Client(window=2**20)
    one, two = client.ask("/big"), client.ask("/other")
    client.exchange()
    client.order.clear()
    update = (two).to_bytes(4) + b"u=0"
    client.client.protocol.data_received(len(update).to_bytes(3) + b"\x10\0\0\0\0\0" + update)
    client.open(size=2**21)
    assert client.order[0] == two
    assert client.ended == {one, two}


def test_unwanted_content_is_answered_at_once_and_read_on() -> None:
    """A client may hear nothing before it has said all, or lose an answer by RST_STREAM."""
    for fields in ({"content_length": "200000"}, {"expect": "100-continue"}):
        client = H2Client()
        number = client.ask("/", "POST", end=False, **fields)
        client.exchange()
        assert client.headers[number][":status"] == "405"
        assert number in client.ended
        for left in range(19, -1, -1):
            client.h2.send_data(number, bytes(10_000), end_stream=not left)
            client.exchange()
        assert client.resets == {}
        assert client.fetch("/about")[0][":status"] == "200"


def test_rfc9113_unwanted_content_is_refused_politely() -> None:
    """RFC 9113 §8.1: after a full answer and a megabyte, half a minute, or beside eight others."""

    def upload(client: H2Client) -> int:
        number = client.ask("/", "POST", end=False, content_length="20000000")
        client.exchange()
        assert client.headers[number][":status"] == "405"
        return number

    client = H2Client()
    number = upload(client)
    sent = 0
    while number not in client.resets:
        client.h2.send_data(number, bytes(16_384))
        client.exchange()
        sent += 16_384
    assert client.resets == {number: 0}
    assert sent - 16_384 == 1024 * 1024
    numbers = [upload(client) for _ in range(9)]
    assert client.resets == {number: 0, numbers[8]: 0}
    client.client.loop.advance(32)
    client.exchange()
    assert client.resets == dict.fromkeys([number, *numbers], 0)
    assert client.fetch("/about")[0][":status"] == "200"


def test_an_answer_waits_for_a_little_content_and_for_no_more() -> None:
    """RFC 9113 §8.1.1: whether a request is malformed shows at its end."""
    client = H2Client()
    number = client.ask("/", "POST", end=False)
    client.h2.send_data(number, b"x" * 16000)
    client.exchange()
    assert client.headers == {}
    client.h2.send_data(number, b"x" * 1000)
    client.exchange()
    assert client.headers[number][":status"] == "405"


def test_an_answer_waits_half_a_minute_for_content() -> None:
    client = H2Client()
    number = client.ask("/", "POST", end=False)
    client.exchange()
    client.client.loop.advance(29)
    client.exchange()
    assert client.headers == {}
    client.client.loop.advance(3)
    client.exchange()
    assert client.headers[number][":status"] == "405"
    assert client.goaway == 0


def test_not_many_answers_wait_for_content() -> None:
    client = H2Client()
    numbers = [client.ask("/", "POST", end=False) for _ in range(20)]
    client.exchange()
    assert sorted(client.headers) == numbers[8:]


def test_rfc9113_malformed_requests() -> None:
    """RFC 9113 §8.3: what h2 lets through and the semantics could not bear is 400."""
    client = H2Client()
    for path in ("no-slash", "/a b", "/\u00fc", "http://example.org/about", "*"):
        headers, _ = client.fetch(path)
        assert headers[":status"] == "400", path
    client = H2Client()
    number = client.ask("/a\r\nX: y")
    client.exchange()
    assert client.headers.get(number, {}).get(":status") in {"400", None}
    for fields in (
        [(":method", "GET"), (":scheme", "http"), (":path", "/")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a b")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"),
         ("connection", "close")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"),
         ("host", "b")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"),
         ("content-length", "0"), ("content-length", "7")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"),
         ("content-length", "+0")],
    ):  # fmt: skip
        client = H2Client()
        client.h2.config.validate_outbound_headers = False
        client.h2.config.normalize_outbound_headers = False
        client.h2.send_headers(1, fields, end_stream=True)
        client.exchange()
        assert client.goaway is not None or client.headers[1][":status"] == "400"


def test_an_octet_at_a_time_equals_one_chunk() -> None:
    def run(step: int) -> bytes:
        client = H2Client(start=False)
        client.h2.initiate_connection()
        client.ask("/about")
        client.ask("/nope")
        data = client.h2.data_to_send()
        for start in range(0, len(data), step):
            client.client.protocol.data_received(data[start : start + step])
        return bytes(client.client.transport.sent)

    def answers(octets: bytes) -> dict[int, bytes]:
        reader = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        reader.initiate_connection()
        for _ in range(2):
            number = reader.get_next_available_stream_id()
            reader.send_headers(
                number,
                [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")],
                end_stream=True,
            )
        found: dict[int, bytes] = defaultdict(bytes)
        for event in reader.receive_data(octets):
            if isinstance(event, h2.events.DataReceived):
                found[event.stream_id] += event.data
        return found

    whole = answers(run(10**6))
    assert whole[1] == ABOUT
    assert answers(run(1)) == whole


def test_rfc9113_http2_can_be_switched_off() -> None:
    """RFC 9113 §3.3: without it the preface is a request of an unknown version."""
    client = Client(limits=Limits(http2=False))
    assert client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"HTTP/1.1 505")


# -- floods -----------------------------------------------------------------------------------

CALM = int(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)


def test_rapid_reset_ends_the_connection() -> None:
    """CVE-2023-44487: streams opened and cancelled at once cost a budget."""
    client = H2Client()
    for _ in range(300):
        if client.goaway is None:
            number = client.ask("/big")
            client.h2.reset_stream(number)
            client.exchange()
    assert client.goaway == CALM
    assert 200 <= (client.number + 1) // 2 <= 210
    # A page full of images that is left is no attack.
    client = H2Client()
    for _ in range(10):
        numbers = [client.ask("/big") for _ in range(80)]
        client.exchange()
        for number in numbers:
            client.h2.reset_stream(number)
        client.exchange()
        client.client.loop.advance(5)
    assert client.goaway is None


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, opaque_data=b"12345678"),
        SettingsFrame(0, settings={3: 100}),
        SettingsFrame(0),
        DataFrame(1, data=b""),
    ],
)
def test_control_frames_have_a_budget(frame: Frame) -> None:
    """CVE-2019-9512, -9515, -9518: ping, settings and empty data floods."""
    client = H2Client()
    client.ask("/", "POST", end=False) if isinstance(frame, DataFrame) else None
    client.exchange()
    client.raw(*[frame] * 100)
    if not isinstance(frame, DataFrame):  # the stream was answered and reset
        assert client.goaway is None
    client.raw(*[frame] * 900)
    assert client.client.transport.ended
    assert len(client.client.transport.sent) < 60_000


def test_continuation_flood_ends_the_connection() -> None:
    """CVE-2024-27316: a header block that never ends is bounded in frames and octets."""
    client = H2Client()
    client.raw(HeadersFrame(1, b""), *[ContinuationFrame(1, b"\x00")] * 100)
    assert client.client.transport.ended


def test_a_header_list_is_bounded() -> None:
    """RFC 9113 §10.5.1: 16 KB of fields, also when HPACK makes them of a few octets."""
    client = H2Client()
    client.ask("/", **{f"x_{n}": "y" * 1000 for n in range(17)})
    client.exchange()
    assert client.goaway == CALM
    client = H2Client()
    # One entry in the dynamic table, referred to a thousand times (the HPACK bomb).
    block = b"\x82\x86\x84\x41\x01a" + b"\x40\x01x\x7f\x81\x1e" + b"y" * 4000 + b"\xbe" * 1000
    client.raw(HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"]))
    assert client.client.transport.ended
    assert client.headers == {}


def test_more_streams_than_allowed_end_the_connection() -> None:
    """RFC 9113 §5.1.2: the limit that was announced is kept."""
    client = H2Client(window=0, limits=Limits(streams=10))
    client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 100
    client.h2.remote_settings.acknowledge()
    for _ in range(11):
        client.ask("/big")
    client.exchange()
    assert client.goaway is not None


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_hostile_frames_never_raise(seed: int, count: int) -> None:
    generator = random.Random(seed)
    client = H2Client()
    client.ask("/big")
    client.exchange()
    for _ in range(count):
        if client.client.transport.ended:
            break
        body = generator.randbytes(generator.choice([0, 1, 4, 5, 6, 8, 40, 300]))
        kind = generator.choice([*range(12), 16, 255])
        flags = generator.choice([0, 1, 4, 5, 8, 0x20, 0x2D, 255])
        stream = generator.choice([0, 1, 2, 3, 5, 2**31 - 1])
        client.client.protocol.data_received(
            len(body).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + body
        )


@given(st.binary(max_size=200))
def test_hostile_octets_never_raise(data: bytes) -> None:
    client = Client(site=SITE)
    client.protocol.data_received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + data)


# -- waiting and ending -----------------------------------------------------------------------


def test_back_pressure_stops_sending_and_reading() -> None:
    client = H2Client(window=2**20, room=10_000)
    client.open(size=2**20)
    number = client.ask("/big")
    client.exchange()
    assert client.client.transport.waiting < 10_000 + 2 * 65536
    assert not client.client.transport.reading
    for _ in range(100):
        client.client.transport.take()
        client.exchange()
    assert client.ended == {number}
    assert client.bodies[number] == BIG
    assert client.client.transport.reading


def test_drain_says_so_and_finishes() -> None:
    """RFC 9113 §6.8: GOAWAY first, the streams under way to their end, then the last GOAWAY."""
    client = H2Client()
    number = client.ask("/big")
    client.exchange()
    client.client.server.drain()
    client.exchange()
    assert client.goaway == 0
    assert not client.client.transport.ended
    # h2's client considers the connection over now; the octets still come.
    before = len(client.client.transport.sent)
    for _ in range(20):
        client.client.protocol.data_received(
            b"\0\0\4\x08\0\0\0\0\0\0\0\xff\xff\0\0\4\x08\0" + number.to_bytes(4) + b"\0\0\xff\xff"
        ) if not client.client.transport.ended else None
    assert len(client.client.transport.sent) - before > len(BIG) - 65535
    assert client.client.transport.ended


@pytest.mark.parametrize("known", [False, True])
def test_a_slow_reader_is_judged_by_what_it_takes(known: bool) -> None:
    """A transport that is full is given nothing for a while, however well its peer reads."""
    for rate, survives in ((2_000, True), (100, False)):
        client = H2Client(window=10_000_000, room=200_000)
        client.h2.increment_flow_control_window(10_000_000)
        client.exchange()
        for _ in range(3 if known else 1):  # from the second on by the fast lane
            client.ask("/half")
        client.ask("/big")
        client.exchange()
        assert client.client.transport.waiting > 200_000
        take_slowly(client.client, rate, 150, low=50_000)
        assert client.client.transport.aborted != survives


def test_a_slow_reader_with_small_windows_is_judged_by_what_it_takes() -> None:
    """A transport that has room is given nothing either, while the windows are closed."""
    client = H2Client()
    client.h2.increment_flow_control_window(10_000_000)
    client.ask("/big")
    client.ask("/about")
    client.exchange()
    assert client.client.transport.waiting > 65535
    take_slowly(client.client, 2_000, 33)
    assert not client.client.transport.aborted
    take_slowly(client.client, 2_000, 62)
    assert client.client.transport.aborted


def test_a_slow_reader_gets_all_that_was_written_before_the_end() -> None:
    client = H2Client(window=10_000_000)
    client.h2.increment_flow_control_window(10_000_000)
    client.ask("/half")
    client.exchange()
    client.client.server.drain()
    assert client.client.transport.eof_written
    take_slowly(client.client, 5_000, 29)
    assert client.client.transport.waiting == 0
    assert not client.client.transport.closed
    client.client.loop.advance(8)
    assert client.client.transport.aborted


def test_an_idle_connection_is_closed_with_goaway() -> None:
    client = H2Client()
    client.fetch("/about")
    client.client.loop.advance(74)
    assert not client.client.transport.ended
    client.client.loop.advance(3)
    client.exchange()
    assert client.goaway == 0
    assert client.client.transport.ended
    client.client.transport.take()
    client.client.loop.advance(10)
    assert client.client.transport.closed


def test_a_frame_has_ten_seconds_however_it_trickles() -> None:
    client = H2Client()
    client.ask("/about")
    for octet in client.h2.data_to_send():
        client.client.loop.advance(1.5)
        if client.client.transport.ended:
            break
        client.client.protocol.data_received(bytes([octet]))
    assert client.client.transport.ended
    assert client.client.server.counters()["timeouts"] == 1


def test_a_reader_that_takes_crumbs_is_cut_off() -> None:
    client = H2Client(window=100)
    number = client.ask("/big")
    client.exchange()
    for _ in range(40):
        client.client.loop.advance(1)
        if not client.client.transport.closed:
            client.open(number, size=10)
    assert client.client.transport.aborted


def test_counters_and_log() -> None:
    told: list[tuple[object, bytes, int, int]] = []
    client = H2Client(on_request=lambda *line: told.append(line))
    client.fetch("/about", user_agent="me")
    assert told == [
        (
            "192.0.2.1",
            b"GET /about HTTP/2.0\r\nhost: example.org\r\nuser-agent: me\r\n\r\n",
            200,
            len(ABOUT),
        )
    ]
    assert client.client.server.counters()["status_200"] == 1
    client.client.transport.close()
    assert client.client.server.counters()["connections"] == 0


def test_reset_frames_of_unknown_streams_are_an_error() -> None:
    """RFC 9113 §5.1: a frame on an idle stream is a connection error."""
    client = H2Client()
    client.raw(RstStreamFrame(7))
    assert client.client.transport.ended


# -- what is no HTTP/2 ------------------------------------------------------------------------


@pytest.mark.parametrize("first", [PingFrame(0), SettingsFrame(0, flags=["ACK"]), None])
def test_rfc9113_3_4_the_preface_ends_with_settings(first: Frame | None) -> None:
    """RFC 9113 §3.4: an invalid preface MUST be a connection error of type PROTOCOL_ERROR."""
    client = H2Client(start=False)
    client.h2.initiate_connection()
    preface = client.h2.data_to_send()[:24]
    if first is None:
        client.ask("/about")
        octets = client.h2.data_to_send()
    else:
        octets = first.serialize()
    client.client.protocol.data_received(preface + octets)
    client.exchange()
    assert client.goaway == h2.errors.ErrorCodes.PROTOCOL_ERROR
    assert client.headers == {}


def test_rfc7541_4_2_a_known_answer_waits_for_the_size_of_the_table() -> None:
    """RFC 7541 §4.2: the first block after the acknowledgement MUST begin with the new size."""
    client = H2Client()
    for _ in range(3):
        client.fetch("/about")
    for size in (0, 100):
        client.h2.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: size})
        client.exchange()
        for first in (True, False):
            client.ask("/about")
            octets = client.client.send(client.h2.data_to_send())
            assert octets[3] == 1
            assert (octets[9] >> 5 == 1) == first  # §6.3: 001 and five bits of the size
            client.exchange()


@pytest.mark.parametrize("kind", [GoAwayFrame, PingFrame])
def test_rfc9113_6_10_nothing_comes_within_a_header_block(kind: type[Frame]) -> None:
    client = H2Client()
    number = client.ask("/about")
    octets = client.h2.data_to_send()
    block = octets[9:]
    client.raw(
        HeadersFrame(number, block[:3], flags=["END_STREAM"]),
        kind(0),
        ContinuationFrame(number, block[3:], flags=["END_HEADERS"]),
    )
    assert client.goaway == h2.errors.ErrorCodes.PROTOCOL_ERROR
    assert client.headers == {}


@pytest.mark.parametrize(
    ("stream", "body", "code"),
    [(1, b"\0\0\0\1u=1", "PROTOCOL_ERROR"), (0, b"\0\0\0\0u=1", "PROTOCOL_ERROR"),
     (0, b"\0\0\1", "FRAME_SIZE_ERROR")],
)  # fmt: skip
def test_rfc9218_7_1_a_priority_update_is_about_a_stream(
    stream: int, body: bytes, code: str
) -> None:
    """RFC 9218 §7.1: MUST be on stream 0 and about another; RFC 9113 §4.2: long enough."""
    client = H2Client()
    client.client.protocol.data_received(
        len(body).to_bytes(3) + b"\x10\0" + stream.to_bytes(4) + body
    )
    client.exchange()
    assert client.goaway == h2.errors.ErrorCodes[code]


def test_a_connection_that_comes_after_the_drain_is_answered_once() -> None:
    """RFC 9113 §6.8: who opens a connection while the server ends is told so."""
    client = H2Client(start=False)
    client.client.server.draining = True
    successor = H2Client(start=False, server=client.client.server)
    successor.h2.initiate_connection()
    number = successor.ask("/about")
    successor.exchange()
    assert successor.bodies[number] == ABOUT
    assert successor.goaway == 0
    assert successor.client.transport.ended
