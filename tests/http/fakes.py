"""A transport, a loop and a site for tests: no sockets, no clock, no disk."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping
from typing import Any

from appliance.http.http1 import HttpProtocol
from appliance.http.media import media_type
from appliance.http.representation import CACHE_PAGES, Redirect, Resource, build
from appliance.http.semantics import Hosting
from appliance.http.served import Site
from appliance.http.server import HttpServer, Limits
from appliance.http.target import location

# Sat, 01 Feb 2014 00:00:00 GMT, when everything in the test site was last modified.
MODIFIED = 1391212800
# Sun, 02 Feb 2014 03:04:05 GMT, when it was loaded.
NOW = 1391310245
TEXT = b"".join(b"%07d\n" % n for n in range(500))  # 4000 octets, each place different
ABOUT = b"<!doctype html>" + b"<p>About this site.</p>" * 40


class FakeLoop:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def time(self) -> float:
        return self.now

    def wall(self) -> float:
        return NOW + self.now - 100.0

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> FakeTimer:
        timer = FakeTimer(callback, args)
        heapq.heappush(self._timers, (self.now + delay, id(timer), timer))
        return timer

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                timer.callback(*timer.args)
        self.now = end

    @property
    def armed(self) -> int:
        return sum(not timer.cancelled for _, _, timer in self._timers)


class FakeTimer:
    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback, self.args, self.cancelled = callback, args, False

    def cancel(self) -> None:
        self.cancelled = True


class FakeTransport(asyncio.Transport):
    """Collects what is written; `room` octets fit before it asks to pause."""

    def __init__(self, room: float = float("inf"), half_close: bool = True) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711)})
        self.protocol: asyncio.Protocol
        self.sent = bytearray()
        self.writes: list[int] = []
        self.room = room
        self.half_close = half_close
        self.waiting = 0
        self.reading = True
        self.eof_written = False
        self.closed = False
        self.aborted = False

    def write(self, data: Any) -> None:
        assert not self.closed, "write after close"
        assert not self.eof_written, "write after write_eof"
        self.sent += data
        self.writes.append(len(data))
        self.waiting += len(data)
        if self.waiting > self.room:
            self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def take(self) -> None:
        """The peer takes all that is waiting."""
        paused = self.waiting > self.room
        self.waiting = 0
        if paused:
            self.protocol.resume_writing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def can_write_eof(self) -> bool:
        return self.half_close

    def write_eof(self) -> None:
        assert not self.closed
        self.eof_written = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connection_lost(None)

    def abort(self) -> None:
        if not self.closed:
            self.closed = self.aborted = True
            self.protocol.connection_lost(None)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    @property
    def ended(self) -> bool:
        """The peer has seen the end of the octets."""
        return self.closed or self.eof_written


class Holder:
    def __init__(self, current: Hosting) -> None:
        self.current = current


def document(body: bytes, name: str, **options: Any) -> Resource:
    return build(body, media_type(name), last_modified=MODIFIED, **options)


def make_site(more: Mapping[bytes, Resource | Redirect] | None = None) -> Site:
    resources: dict[bytes, Resource | Redirect] = {
        b"/": document(b"<!doctype html><p>home", "index.html", cache_control=CACHE_PAGES),
        b"/about": document(ABOUT, "about.html", cache_control=CACHE_PAGES),
        b"/about.html": Redirect(location(b"/about")),
        b"/docs/": document(b"<!doctype html><p>docs", "index.html"),
        b"/docs": Redirect(location(b"/docs/")),
        b"/digits.bin": document(TEXT, "digits.bin"),
        b"/digits.txt": document(TEXT, "digits.txt"),
        b"/empty.txt": document(b"", "empty.txt"),
        b"/pixel.png": document(b"\x89PNG" + bytes(60), "pixel.png"),
        "/grüße.txt".encode(): document(b"hello", "x.txt"),
        b"/a b.txt": document(b"space", "x.txt"),
        **(more or {}),
    }
    not_found = build(
        b"<!doctype html><title>No</title>" + b"<p>no such page" * 30, media_type("x.html")
    )
    return Site(resources, not_found, loaded_at=NOW - 60)


class Client:
    """A connection to a server over a fake transport."""

    def __init__(
        self,
        server: HttpServer | None = None,
        *,
        site: Hosting | None = None,
        room: float = float("inf"),
        half_close: bool = True,
        **options: Any,
    ) -> None:
        self.loop = FakeLoop()
        if server is None:
            server = make_server(site, loop=self.loop, **options)
        else:
            self.loop = server._loop  # type: ignore[assignment]
        self.server = server
        self.transport = FakeTransport(room, half_close)
        self.transport.protocol = HttpProtocol(server)
        self.protocol.connection_made(self.transport)

    @property
    def protocol(self) -> asyncio.Protocol:
        return self.transport.protocol

    def send(self, data: bytes) -> bytes:
        """Send octets and return what came back for them."""
        before = len(self.transport.sent)
        self.protocol.data_received(data)
        return bytes(self.transport.sent[before:])

    def ask(self, request: str, *fields: str, host: str = "example.org") -> Reply:
        """Send `GET /path` with fields and return the reply."""
        method, _, target = request.partition(" ")
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]
        return Reply(self.send("\r\n".join(lines).encode("latin-1")), method)


def take_slowly(client: Client, rate: int, seconds: int, low: int = 1000) -> None:
    """Let the peer take so many octets a second; the transport resumes at its low-water mark."""
    transport = client.transport
    for _ in range(seconds):
        client.loop.advance(1)
        if transport.closed:
            return
        paused = transport.waiting > transport.room
        transport.waiting = max(transport.waiting - rate, 0)
        if paused and transport.waiting <= low:
            transport.protocol.resume_writing()
        elif paused:
            transport.room = min(transport.room, transport.waiting - 1)


def make_server(
    site: Hosting | None = None,
    *,
    loop: FakeLoop | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> HttpServer:
    loop = loop or FakeLoop()
    return HttpServer(
        Holder(site or make_site()),
        limits=limits or Limits(),
        clock=loop.wall,
        loop=loop,
        **options,  # type: ignore[arg-type]
    )


class Reply:
    """One response taken apart, independently of the code under test."""

    def __init__(self, octets: bytes, method: str = "GET") -> None:
        self.octets = octets
        head, blank, rest = octets.partition(b"\r\n\r\n")
        assert blank, octets
        line, *fields = head.decode("latin-1").split("\r\n")
        version, status, self.phrase = line.split(" ", 2)
        assert version == "HTTP/1.1"
        self.status = int(status)
        self.fields: dict[str, str] = {}
        for field in fields:
            name, _, value = field.partition(": ")
            assert name.lower() not in self.fields, f"repeated {name}"
            self.fields[name.lower()] = value
        length = int(self.fields.get("content-length", "0"))
        if method == "HEAD" or self.status in {204, 304}:
            length = 0
        self.body, self.rest = rest[:length], rest[length:]
        assert len(self.body) == length, "cut short"

    def __getitem__(self, name: str) -> str | None:
        return self.fields.get(name.lower())


def replies(octets: bytes, *methods: str) -> list[Reply]:
    """Take apart the responses to several requests."""
    found = []
    for method in methods:
        reply = Reply(octets, method)
        found.append(reply)
        octets = reply.rest
    assert not octets, octets
    return found
