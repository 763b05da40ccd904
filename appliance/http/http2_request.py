"""What a request of HTTP/2 is: h2's fields checked and taken apart, and its content.

Imports this package's pure rooms.
"""

from __future__ import annotations

import re

from appliance.http.lane import Fields
from appliance.http.message import Answer, Request, plain
from appliance.http.server import Hook, HttpServer
from appliance.http.strict import KNOWN
from appliance.http.target import is_authority

# RFC 9113 §8.3.1: a path and a query; the authority has a pseudo-field of its own.
_TARGET = re.compile(rb"/[\x21-\x7e]*")
# Octets of content that nobody wants for which its answer waits: a form's.
HELD = 16 * 1024


class Body:
    """A request whose content is still coming: for a hook, or before the answer that it gets.

    RFC 9113 §8.1.1 has a request whose content or trailers are malformed reset rather than
    answered, which can be told only at its end.
    """

    __slots__ = ("answer", "content", "headers", "hook", "request", "size")

    def __init__(self, request: Request, headers: Fields, by: Hook | Answer) -> None:
        self.request = request
        self.headers = headers
        self.hook = None if isinstance(by, Answer) else by
        self.answer = by if isinstance(by, Answer) else None
        self.content = bytearray()  # for the hook
        self.size = 0

    def take(self, data: bytes, limit: int) -> Answer | None:
        """Take octets; returns the answer when no more are wanted, of a hook's past `limit`."""
        self.size += len(data)
        if self.answer is not None:
            return self.answer if self.size > HELD else None
        self.content += data
        return plain(413, "request content too large") if self.size > limit else None

    def ended(self, server: HttpServer, address: str) -> Answer:
        """Return the answer to a request that is whole."""
        if self.hook is None:
            assert self.answer is not None
            return self.answer
        return server.ask(self.hook, self.request, bytes(self.content), address)


def announces_little(request: Request) -> bool:
    """Say whether it is worth waiting for the content of a request that does not want it.

    RFC 9110 §10.1.1: who expects 100 (Continue) waits for us, and gets the final answer instead.
    """
    stated = request.fields.get(b"content-length", b"0")
    little = stated.isdigit() and len(stated) < 9 and int(stated) <= HELD
    return little and b"expect" not in request.fields


def log_head(request: Request, headers: Fields) -> bytes:
    """Return a request in the form of a head of HTTP/1.1, as the log reads it."""
    lines = [b"%s %s HTTP/2.0" % (request.method, request.target)]
    if request.authority:
        lines.append(b"host: " + request.authority)
    lines += [b"%s: %s" % pair for pair in headers if not pair[0].startswith(b":")]
    return b"\r\n".join([*lines, b"", b""])


def read_request(headers: Fields) -> tuple[Request, Answer | None]:
    """Make a request of h2's validated headers, and the answer to it if it is faulty.

    h2 has checked names, pseudo-headers and connection fields (RFC 9113 §8.2, §8.3); what the
    semantics rely on beyond that is checked here.
    """
    pseudo: dict[bytes, bytes] = {}
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name.startswith(b":"):
            pseudo[name] = value
        elif name in KNOWN:
            fields[name] = fields[name] + b", " + value if name in fields else value
    authority = pseudo.get(b":authority", fields.get(b"host", b""))
    target = pseudo.get(b":path", b"") or b"/"
    request = Request(pseudo.get(b":method", b""), target, authority.lower(), fields)
    if not _TARGET.fullmatch(target) and (target, request.method) != (b"*", b"OPTIONS"):
        return request, plain(400, "malformed request target")
    if not is_authority(authority):
        return request, plain(400, "malformed authority")
    return request, None
