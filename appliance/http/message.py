"""The plain values that the rooms of this package hand to one another.

`Request` is a head that passed the strict checks, `Answer` is what the semantics decided, and
`Refusal` is the exception for bytes or targets that get an error instead.  None of them knows
which version of HTTP carries it.  Imports the standard library and the large-file body.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from appliance.http.largefile import FileSlice

# One run of octets of a body: memory that is there already, or a stretch of a file on disk.
Part = bytes | memoryview | FileSlice

# Source: IANA HTTP status code registry, as the standard library carries it.
PHRASES = {int(status): status.phrase for status in HTTPStatus} | {
    # RFC 9110 renamed these; the standard library of 3.11 still has the old words.
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}

# RFC 9113 §3.4: the connection preface up to the blank line, which reads like a request head.
PREFACE_HEAD = b"PRI * HTTP/2.0\r\n\r\n"

STATUS_LINES = {
    status: b"HTTP/1.1 %d %s\r\n" % (status, phrase.encode()) for status, phrase in PHRASES.items()
}


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure of ours
    """A request that is answered with an error; `status` says which, `reason` says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Request(NamedTuple):
    """A request head whose syntax was found right."""

    method: bytes  # as sent; methods are case-sensitive (RFC 9110 §9.1)
    target: bytes  # request-target, printable ASCII
    authority: bytes  # Host or :authority, lower case; b"" only in HTTP/1.0
    fields: dict[bytes, bytes]  # lower-case names the server acts on; repeats joined by ", "


class Answer:
    """What to send: a status, a header block, and the octets of the body.

    Compared and hashed by identity: an answer prepared at load is shared by all who get it.
    """

    __slots__ = ("block", "length", "parts", "status")

    def __init__(self, status: int, block: bytes, parts: tuple[Part, ...] = ()) -> None:
        self.status = status
        self.block = block  # field lines each ended by CRLF; neither Date nor Connection
        self.parts = parts  # empty for HEAD, 204 and 304
        self.length = sum(map(len, parts))  # octets that follow the head


# RFC 9110 §10.2.4: short, and without a version that would only help an attacker.
SERVER = b"Server: appliance\r\n"
NOSNIFF = b"X-Content-Type-Options: nosniff\r\n"


def plain(status: int, reason: str = "", extra: bytes = b"", *, with_body: bool = True) -> Answer:
    """Make a short text/plain answer; `extra` holds further field lines, each ended by CRLF."""
    text = f"{status} {PHRASES[status]}\n" + (f"{reason}\n" if reason else "")
    body = text.encode()
    block = b"%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n%s%s" % (
        SERVER,
        len(body),
        extra,
        NOSNIFF,
    )
    return Answer(status, block, (body,) if with_body else ())
