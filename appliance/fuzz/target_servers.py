"""Hostile messages for the name server and the web server.

Imports `target`, `mutate`, and the rooms that it tries when a target is made.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Callable
from typing import Any, Final

from appliance.fuzz import mutate
from appliance.fuzz.target import BrokenRuleError, corpus

# ---------------------------------------------------------------------- DNS


_ZONE: Final = """\
$ORIGIN example.test.
$TTL 600
@ IN SOA ns1 hostmaster 1 7200 1800 1209600 300
@ IN NS ns1
@ IN MX 10 mail
@ IN TXT "one" "two"
ns1 IN A 192.0.2.53
ns1 IN AAAA 2001:db8::53
mail IN A 192.0.2.25
www IN CNAME web
web IN A 192.0.2.80
loop IN CNAME loop2
loop2 IN CNAME loop
*.wild IN A 192.0.2.99
a.b.empty IN TXT "deep"
child IN NS ns.child
ns.child IN A 192.0.2.100
dn IN DNAME example.test.
big IN TXT "{big}"
"""


class Dns:
    """A name server with one zone: octets in, an answer out, or none."""

    name = "dns"

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """A new catalog."""
        from appliance.dns import Catalog, Zone

        text = _ZONE.replace("{big}", '" "'.join(["x" * 200] * 20))
        self._catalog = Catalog([Zone.from_text(text)])

    def seeds(self) -> list[bytes]:
        """Questions of many kinds."""
        names = (
            "", "example.test", "www.example.test", "x.wild.example.test", "loop.example.test",
            "a.child.example.test", "x.dn.example.test", "big.example.test",
            "b.empty.example.test", "nothing.example.test", "elsewhere.test",
        )  # fmt: skip
        out: list[bytes] = []
        for name in names:
            wire = b"".join(bytes((len(p),)) + p.encode() for p in name.split(".") if p) + b"\0"
            head = b"\x12\x34\1\0\0\1\0\0\0\0\0"
            out += [head + b"\0" + wire + bytes((0, kind, 0, 1)) for kind in (1, 16, 255)]
            out.append(head + b"\1" + wire + b"\0\1\0\1\0\0\x29\x04\xd0" + bytes(6))
        return corpus(self.name) + out

    def mutate(self, data: bytes, random: random_module.Random) -> bytes:
        """Another message."""
        return mutate.dns(data, random)

    def try_one(self, data: bytes) -> None:
        """RFC 1035 §4: an answer has the question's number and fits what the asker takes."""
        for transport, limit in (("udp", 4_096), ("tcp", 65_535)):
            answer = self._catalog.answer(data, transport=transport)
            if answer is None:
                continue
            if len(data) < 12 or answer[:2] != data[:2] or not answer[2] & 0x80:
                raise BrokenRuleError("answer: not to what was asked")
            if len(answer) > limit:
                raise BrokenRuleError(f"size: {len(answer)} octets over {transport}")
            if data[2] & 0x80:
                raise BrokenRuleError("answer: an answer was answered")


# ---------------------------------------------------------------------- HTTP


class _Holder:
    def __init__(self, current: Any) -> None:
        self.current = current


class _Timer:
    def cancel(self) -> None: ...


class _Loop:
    """Time that stands still."""

    def time(self) -> float:
        return 100.0

    def call_later(self, delay: float, call: Callable[..., Any], *args: Any) -> _Timer:
        return _Timer()

    def call_soon(self, call: Callable[..., Any], *args: Any) -> _Timer:
        return _Timer()


class _Transport(asyncio.Transport):
    """Collects what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711)})
        self.sent = bytearray()
        self.protocol: Any = None
        self.closed = False

    def write(self, data: Any) -> None:
        if self.closed:
            raise BrokenRuleError("transport: written to after it was closed")
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connection_lost(None)

    abort = close


class Http:
    """A web server with a small site: a request's octets in, answers out."""

    name = "http"

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """A new server."""
        from appliance.http.media import media_type
        from appliance.http.representation import Redirect, build
        from appliance.http.served import Site
        from appliance.http.server import HttpServer, Limits
        from appliance.http.target import location

        page = build(b"<!doctype html><p>home" * 50, media_type("x.html"), last_modified=1391212800)
        resources: dict[bytes, Any] = {
            b"/": page,
            b"/about": page,
            b"/about.html": Redirect(location(b"/about")),
            b"/data.bin": build(
                bytes(range(256)) * 9, media_type("x.bin"), last_modified=1391212800
            ),
        }
        missing = build(b"<!doctype html><p>no such page", media_type("x.html"))
        site = Site(resources, missing, loaded_at=1391310245)
        self._server = HttpServer(
            _Holder(site),
            limits=Limits(),
            clock=lambda: 1391310245.0,
            loop=_Loop(),  # type: ignore[arg-type]
        )

    def seeds(self) -> list[bytes]:
        """Requests of many kinds."""
        host = b"Host: example.org\r\n"
        return [
            *corpus(self.name),
            b"GET / HTTP/1.1\r\n" + host + b"\r\n",
            b"HEAD /about HTTP/1.1\r\n" + host + b"Accept-Encoding: gzip, br\r\n\r\n",
            b"GET /data.bin HTTP/1.1\r\n" + host + b"Range: bytes=0-9,20-29\r\n\r\n",
            b"GET /data.bin HTTP/1.1\r\n" + host + b'If-None-Match: "x", W/"y"\r\n\r\n',
            b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 5\r\n\r\nhello",
            b"POST / HTTP/1.1\r\n"
            + host
            + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\n" + host + b"\r\nGET /about.html HTTP/1.1\r\n" + host + b"\r\n",
            b"GET http://example.org/nothing?q#f HTTP/1.1\r\n"
            + host
            + b"Connection: close\r\n\r\n",
        ]

    def mutate(self, data: bytes, random: random_module.Random) -> bytes:
        """Another request."""
        return mutate.http(data, random)

    def try_one(self, data: bytes) -> None:
        """RFC 9112 §2: what comes back is answers, whole and in pieces of the input alike."""
        from appliance.http.http1 import HttpProtocol

        transport = _Transport()
        transport.protocol = HttpProtocol(self._server)
        transport.protocol.connection_made(transport)
        half = len(data) // 2
        for part in (data[:half], data[half:]):
            if part and not transport.closed:
                transport.protocol.data_received(part)
        if transport.sent and not transport.sent.startswith((b"HTTP/1.1 ", b"\0")):
            raise BrokenRuleError(f"answer: begins with {bytes(transport.sent[:20])!r}")
        if not transport.closed:
            transport.closed = True
            transport.protocol.connection_lost(None)
