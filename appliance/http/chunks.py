"""The lines of a chunked body, as RFC 9112 §7.1 writes them, and nothing else.

h11 takes whatever stands behind the semicolon of a chunk's size, bare CR included, white space
behind the size, and a bare LF at the end of a trailer section; but not the white space that must be
read before an extension.  Where two readers part over such a line they part over where the next
request begins; so the lines are matched here first, and h11 is given sizes without extensions.
Knows nothing of content.  Imports `message`, `strict` and the standard library.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from appliance.http.message import Refusal
from appliance.http.strict import MAX_HEAD, TCHAR, VALUE

# RFC 9112 §7.1: 16 digits are more than any chunk.
_SIZE = rb"([0-9A-Fa-f]{1,16})"
# RFC 9112 §7.1.1, with the white space that must be read (RFC 9110 §5.6.3), and RFC 9110 §5.6.4.
_BWS = rb"[ \t]*+"
_TOKEN = rb"[" + TCHAR + rb"]++"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_EXTENSION = (
    _BWS + rb";" + _BWS + _TOKEN + rb"(?:" + _BWS + rb"=" + _BWS + rb"(?:" + _TOKEN + rb"|"
    + _QUOTED + rb"))?"
)  # fmt: skip
_CHUNK = re.compile(_SIZE + rb"(?:" + _EXTENSION + rb")*+\r\n")
_TRAILER = re.compile(_TOKEN + rb":" + VALUE + rb"\r\n")


class _At(Enum):
    SIZE = auto()
    DATA = auto()
    AFTER = auto()  # the CRLF behind a chunk's data
    TRAILERS = auto()
    END = auto()


class Chunks:
    """Follows one chunked body."""

    __slots__ = ("_at", "_left", "_line", "_spare")

    def __init__(self) -> None:
        self._at = _At.SIZE
        self._left = 0  # octets of the chunk
        self._line = b""  # the beginning of a line
        # Octets of extensions and trailers that may still come: RFC 9112 §7.1.1 asks for a limit.
        self._spare = MAX_HEAD

    def feed(self, data: bytes) -> tuple[bytes, int | None]:
        """Take octets; returns the body's whole lines and data, without extensions, and its end.

        The end is how many of the octets are of this body, None when all are and it goes on.
        Raises Refusal 400 for a line that is none, and for too much that is not content.
        """
        plain: list[bytes] = []
        at, size = 0, len(data)
        while at < size:
            if self._at is _At.DATA:
                taken = min(self._left, size - at)
                self._left -= taken
                plain.append(data[at : at + taken])
                at += taken
                if not self._left:
                    self._at = _At.AFTER
                continue
            stop = data.find(b"\n", at) + 1 or size
            line = self._line + data[at:stop]
            at = stop
            if not line.endswith(b"\n"):
                if len(line) > MAX_HEAD or (self._at is _At.AFTER and line != b"\r"):
                    raise Refusal(400, "malformed request content")
                self._line = line
                break
            self._line = b""
            plain.append(self._take(line))
            if self._at is _At.END:
                return b"".join(plain), at
        return b"".join(plain), None

    def _take(self, line: bytes) -> bytes:
        """Act upon a whole line; what is left of it without extensions."""
        if self._at is _At.AFTER:
            if line != b"\r\n":
                raise Refusal(400, "malformed request content")
            self._at = _At.SIZE
        elif self._at is _At.SIZE:
            match = _CHUNK.fullmatch(line)
            if match is None:
                raise Refusal(400, "malformed request content")
            self._spend(len(line) - match.end(1) - 2)
            self._left = int(match[1], 16)
            self._at = _At.DATA if self._left else _At.TRAILERS
            return match[1] + b"\r\n"
        elif line == b"\r\n":
            self._at = _At.END
        else:
            if not _TRAILER.fullmatch(line):
                raise Refusal(400, "malformed request content")
            self._spend(len(line))
        return line

    def _spend(self, octets: int) -> None:
        self._spare -= octets
        if self._spare < 0:
            raise Refusal(400, "too much beside the request content")
