"""DNS over HTTPS (RFC 8484): a query in, by GET or POST, and an answer of the web server out.

No I/O. What answers is a function, so that this knows neither zones nor listeners.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final

from appliance.http.message import NOSNIFF, SERVER, Answer, Request, plain

MEDIA_TYPE: Final = b"application/dns-message"
"""RFC 8484 §6."""
HEADER: Final = 12
"""Octets of a DNS header: RFC 1035 §4.1.1."""
MAX_MESSAGE: Final = 65535
"""Octets of a DNS message: RFC 1035 §4.2.2, and RFC 8484 §6."""
ALLOW: Final = b"Allow: GET, HEAD, POST\r\n"
OPT: Final = 41
SOA: Final = 6

Ask = Callable[[bytes, str], bytes | None]
"""Query and client's address in, answer out; None: the query gets none."""


class Doh:
    """A hook for a path of the web server."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.queries = 0
        self.refused = 0  # requests that held no query

    def __call__(self, request: Request, body: bytes, address: str) -> Answer | None:
        """Answer one request; never raises for what a client sends."""
        query = self._query(request, body)
        if isinstance(query, Answer):
            self.refused += 1
            return query
        answer = self._ask(query, address)
        if answer is None:
            # RFC 8484 §4.2.1: what cannot be answered in DNS is answered in HTTP.
            self.refused += 1
            return plain(400, "this query gets no answer")
        self.queries += 1
        block = b"%sContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: max-age=%d\r\n%s" % (
            SERVER,
            MEDIA_TYPE,
            len(answer),
            freshness(answer),
            NOSNIFF,
        )
        return Answer(200, block, () if request.method == b"HEAD" else (answer,))

    def _query(self, request: Request, body: bytes) -> bytes | Answer:
        """RFC 8484 §4.1: the query, or what is wrong with the request."""
        if request.method == b"POST":
            kind = request.fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind != MEDIA_TYPE:
                return plain(415, f"POST a body of type {MEDIA_TYPE.decode()}")
            query = body
        elif request.method in (b"GET", b"HEAD"):
            found = _parameter(request.target)
            if found is None:
                return plain(
                    400, "GET with ?dns= and the query in base64url (RFC 8484 section 4.1)"
                )
            query = found
        else:
            return plain(405, "", ALLOW)
        if not HEADER <= len(query) <= MAX_MESSAGE:
            return plain(400, "not a DNS message")
        return query


def _parameter(target: bytes) -> bytes | None:
    """The `dns` variable of a target's query, decoded; None if it is not there or no base64url."""
    for pair in target.partition(b"?")[2].split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == b"dns":
            # RFC 8484 §6: without padding; RFC 4648 §5's alphabet only.
            if b"+" in value or b"/" in value or b"=" in value:
                return None
            try:
                return base64.b64decode(
                    value + b"=" * (-len(value) % 4), altchars=b"-_", validate=True
                )
            except (binascii.Error, ValueError):
                return None
    return None


def freshness(answer: bytes) -> int:
    """Seconds that an answer may be cached: its smallest TTL (RFC 8484 §5.1); 0 if in doubt.

    An answer without records is as fresh as RFC 2308 §5 has it: by the SOA in its authority.
    """
    try:
        return _freshness(answer)
    except IndexError:
        return 0


def _freshness(answer: bytes) -> int:
    counts = [int.from_bytes(answer[at : at + 2], "big") for at in (4, 6, 8)]
    at = HEADER
    for _ in range(counts[0]):
        at = _after_name(answer, at) + 4
    ttls: list[int] = []
    for section, count in enumerate(counts[1:]):
        for _ in range(count):
            at = _after_name(answer, at)
            kind = int.from_bytes(answer[at : at + 2], "big")
            ttl = int.from_bytes(answer[at + 4 : at + 8], "big")
            end = at + 10 + int.from_bytes(answer[at + 8 : at + 10], "big")
            if end > len(answer):
                return 0
            if section == 1 and kind == SOA:
                ttl = min(ttl, int.from_bytes(answer[end - 4 : end], "big"))
            if kind != OPT:
                ttls.append(ttl)
            at = end
        if ttls:
            break  # RFC 8484 §5.1: of the answer section, where there is one
    return min(ttls, default=0)


def _after_name(message: bytes, at: int) -> int:
    while True:
        length = message[at]
        if length >= 0xC0:
            return at + 2
        if not length:
            return at + 1
        at += 1 + length
