"""What a request of HTTP/2 is: h2's fields checked and taken apart, and its content for a hook.

Imports this package's pure rooms.
"""

from __future__ import annotations

import re

from appliance.http.lane import Fields
from appliance.http.message import Answer, Request, plain
from appliance.http.server import Hook
from appliance.http.strict import KNOWN
from appliance.http.target import is_authority

_TARGET = re.compile(rb"[\x21-\x7e]+")


class Body:
    """A request whose content is still coming, for a hook."""

    __slots__ = ("content", "headers", "hook", "request")

    def __init__(self, hook: Hook, request: Request, headers: Fields) -> None:
        self.hook = hook
        self.request = request
        self.headers = headers
        self.content = bytearray()


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
    if not _TARGET.fullmatch(target):
        return request, plain(400, "malformed request target")
    if not is_authority(authority):
        return request, plain(400, "malformed authority")
    return request, None
