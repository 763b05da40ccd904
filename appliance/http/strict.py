"""The checks in front of h11: request heads as RFC 9112 writes them, and nothing else.

h11 accepts bare LF, folded lines and control characters, and a sender and a recipient that read
the same octets differently are how requests are smuggled.  So a head is matched here as a whole
against the grammar first, and what framing it announces must be beyond doubt.  A head without a
body needs nothing more; one with a body goes to h11, which reads the same head again, and the two
must agree.  Pure; imports `message`, `target` and the standard library.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from appliance.http.message import Refusal, Request
from appliance.http.target import is_authority

# Octets of a whole head, and its number of fields.  Browsers send about 1 KB and 20 fields;
# nginx's default is 4 buffers of 8 KB.
MAX_HEAD = 16 * 1024
MAX_FIELDS = 100
# Octets of the request line.  RFC 9112 §3: at least 8000 should be supported.
MAX_LINE = 8 * 1024

TCHAR = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"  # RFC 9110 §5.6.2
VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"  # RFC 9110 §5.5: no control character but HTAB
_LINE = rb"([" + TCHAR + rb"]++) ([\x21-\x7e]++) HTTP/([0-9])\.([0-9])\r\n"
_HEAD = re.compile(_LINE + rb"((?:[" + TCHAR + rb"]++:" + VALUE + rb"\r\n)*+)\r\n")
_REQUEST_LINE = re.compile(_LINE)
_FIELD = re.compile(rb"([" + TCHAR + rb"]+):([^\r]*)\r\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_FIRST = re.compile(rb"[" + TCHAR + rb"]")

# The fields that change what is answered or how the message is framed; the rest is ignored.
KNOWN = frozenset(
    b"accept-encoding connection content-length content-type expect host if-match "
    b"if-modified-since if-none-match if-range if-unmodified-since priority range "
    b"transfer-encoding upgrade".split()
)
# RFC 9110 §5.3: these are no lists, so a second one contradicts the first.
_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding"})


class Head(NamedTuple):
    """A request head and what it says of its message and its connection."""

    request: Request
    persistent: bool  # the connection may carry another request (RFC 9112 §9.3)
    length: int  # octets of body announced; -1: chunked
    expects: bool  # Expect: 100-continue
    plain: bool  # none of the fields that forbid remembering the head
    stays: bool = False  # HTTP/1.0, and asks for a persistent connection


def incomplete(buffer: bytes | bytearray, start: int, scanned: int) -> None:
    """Check the beginning of a head that has no end within bounds yet.

    Nothing before the offset `scanned` is searched again.  Raises Refusal for what no further
    octets can mend, and the same one whether the octets come singly or all at once.
    """
    fault = _fault(buffer, start, scanned)
    if fault is not None:
        raise fault
    if len(buffer) - start > MAX_HEAD:
        raise Refusal(431, "request head too large")


def _fault(buffer: bytes | bytearray, start: int, scanned: int) -> Refusal | None:
    """Return the first thing wrong that shows before a head is complete."""
    if not _FIRST.match(buffer, start):
        return Refusal(400, "malformed request line")
    stop = buffer.find(b"\r\n", start, start + MAX_LINE)
    if stop >= 0:
        # What is no request line is told as soon as it is whole: an SSH client, HTTP/0.9.
        whole = scanned < stop + 2 and buffer.find(b"\n", start, stop) < 0
        if whole and not _REQUEST_LINE.fullmatch(buffer, start, stop + 2):
            return Refusal(400, "malformed request line")
        if _BARE_LF.search(buffer, max(scanned - 1, start), start + MAX_HEAD):
            return Refusal(400, "bare LF")
    elif _BARE_LF.search(buffer, max(scanned - 1, start), start + MAX_LINE):
        return Refusal(400, "bare LF")
    elif len(buffer) - start > MAX_LINE:
        return Refusal(414, "request line too long")
    return None


def parse_head(head: bytes) -> Head:
    """Read one whole head, blank line included.

    Raises Refusal 400, 414, 431, 501 or 505; after any of them the connection cannot go on,
    because where the next message begins is not known.
    """
    match = _HEAD.fullmatch(head)
    if match is None:
        raise _diagnose(head)
    method, target, major, minor, lines = match.groups()
    if major != b"1":
        raise Refusal(505, "this is an HTTP/1.1 server")
    if len(head) > MAX_LINE and head.find(b"\r\n") + 2 > MAX_LINE:
        raise Refusal(414, "request line too long")
    if lines.count(b"\n") > MAX_FIELDS:
        raise Refusal(431, "too many fields")
    fields: dict[bytes, bytes] = {}
    for name, value in _FIELD.findall(lines):
        name = name.lower()
        if name in KNOWN:
            value = value.strip(b" \t")
            if name in fields:
                if name in _SINGLE:
                    raise Refusal(400, f"repeated {name.decode().title()}")
                value = fields[name] + b", " + value
            fields[name] = value
    modern = minor != b"0"
    return _frame(Request(method, target, _authority(fields, modern), fields), modern)


def _authority(fields: dict[bytes, bytes], modern: bool) -> bytes:
    # RFC 9112 §3.2: exactly one Host, and a valid one, or 400.
    host = fields.get(b"host")
    if host is None:
        if modern:
            raise Refusal(400, "missing Host")
        return b""
    if not is_authority(host):
        raise Refusal(400, "malformed Host")
    return host.lower()


def _frame(request: Request, modern: bool) -> Head:
    """Decide where the message ends and whether the connection outlives it (RFC 9112 §6, §9)."""
    fields = request.fields
    length = 0
    coding = fields.get(b"transfer-encoding")
    stated = fields.get(b"content-length")
    if coding is not None:
        if stated is not None:
            raise Refusal(400, "both Transfer-Encoding and Content-Length")
        if not modern:
            # RFC 9112 §6.1: HTTP/1.0 has no transfer codings, so the framing is faulty.
            raise Refusal(400, "Transfer-Encoding in HTTP/1.0")
        names = [name.strip(b" \t") for name in coding.lower().split(b",")]
        if names.count(b"chunked") != 1 or names[-1] != b"chunked":
            raise Refusal(400, "chunked is not the last transfer coding, once")
        if len(names) > 1:
            raise Refusal(501, "unknown transfer coding")
        length = -1
    elif stated is not None:
        # RFC 9112 §6.3: digits only; 18 of them are more than any body.
        if not stated.isdigit() or len(stated) > 18:
            raise Refusal(400, "malformed Content-Length")
        length = int(stated)
    expects = False
    expect = fields.get(b"expect")
    if expect is not None and modern:
        # RFC 9110 §10.1.1: the only expectation there is; HTTP/1.0 cannot have it.
        if expect.lower() != b"100-continue":
            raise Refusal(417, "unknown expectation")
        expects = True
    persistent, stays = _persistence(fields.get(b"connection"), modern)
    simple = (
        coding is None
        and stated is None
        and expect is None
        and b"upgrade" not in fields
        and request.method in {b"GET", b"HEAD"}
    )
    return Head(request, persistent, length, expects, simple and not stays, simple and stays)


def _persistence(options: bytes | None, modern: bool) -> tuple[bool, bool]:
    """Say whether a connection goes on, and whether it would by HTTP/1.0's way of asking."""
    if options is None:
        return modern, False
    said = {option.strip(b" \t") for option in options.lower().split(b",")}
    # RFC 9112 §9.3: close goes before keep-alive, which is for HTTP/1.0 alone.
    stays = b"close" not in said
    return stays and modern, stays and not modern and b"keep-alive" in said


def _diagnose(head: bytes) -> Refusal:
    """Find out why a head did not match, for an error that helps whoever wrote the client."""
    fault = _fault(head, 0, 0)
    if fault is not None:
        return fault
    for field in head.partition(b"\r\n")[2].split(b"\r\n"):
        if field[:1] in {b" ", b"\t"}:
            return Refusal(400, "folded field line")
        name = field.partition(b":")[0]
        if name.rstrip(b" \t") != name:
            return Refusal(400, "white space before the colon")
    return Refusal(400, "malformed field line")
