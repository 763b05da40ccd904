"""Domain names in wire form: `bytes` of length-prefixed labels, ended by the root's zero octet.

Every table of the engine is keyed by such names in lower case. `bytes.lower` may be used on a whole
name because a label's length octet (0 to 63) is never an ASCII capital (65 to 90). RFC 4343 folds
only ASCII, and so does `bytes.lower`. Does no IDNA; a master file's non-ASCII names go through
dnspython. Imports `consts` and `errors`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from appliance.dns.consts import MAX_LABEL, MAX_NAME
from appliance.dns.errors import LocalError, WireError

ROOT: Final = b"\0"
MAX_FILE: Final = 255
"""Octets of a file's name (Linux: NAME_MAX); a zone's may have 253, and four times as many escaped.
"""
MAX_ENDING: Final = 12
"""Octets that are left for an ending, such as `.journal`."""
WILDCARD: Final = b"\x01*"
"""The label that makes a name a wildcard (RFC 4592 §2.1.1)."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_*/-]+(?:\.[A-Za-z0-9_*/-]+)*\.?", re.ASCII)
_ESCAPE: Final = re.compile(rb"\\(?:([0-9]{3})|([^0-9]))", re.DOTALL)
_SPECIAL: Final = frozenset(b'."\\();@$')


def from_text(text: str, origin: bytes | None = None) -> bytes:
    r"""The wire form of a name as master files write it, case kept.

    A name without a final dot stands below `origin`, and `@` is the origin itself (RFC 1035 §5.1).
    `\X` and `\DDD` are understood. LocalError when it is no name, or relative without an origin.
    """
    if _PLAIN.fullmatch(text):
        absolute = text[-1] == "."
        parts = (text[:-1] if absolute else text).encode().split(b".")
    elif text == "@":
        absolute, parts = False, []
    elif text == ".":
        return ROOT
    else:
        absolute, parts = _escaped_labels(text)
    for part in parts:
        if not 0 < len(part) <= MAX_LABEL:
            raise LocalError(f"{text!r}: a label has 1 to {MAX_LABEL} octets, not {len(part)}")
    if absolute:
        tail = ROOT
    elif origin is None:
        raise LocalError(f"{text!r} is relative and there is no origin")
    else:
        tail = origin
    wire = b"".join([bytes((len(part),)) + part for part in parts]) + tail
    if len(wire) > MAX_NAME:
        raise LocalError(f"{text!r} is longer than {MAX_NAME} octets")
    return wire


def _escaped_labels(text: str) -> tuple[bool, list[bytes]]:
    """Labels of a name with escapes, and whether it ends with a dot."""
    try:
        data = text.encode("ascii")
    except UnicodeEncodeError:
        raise LocalError(f"{text!r} is not ASCII") from None
    labels: list[bytes] = []
    label = bytearray()
    at = 0
    while at < len(data):
        octet = data[at]
        if octet == 0x5C:
            match = _ESCAPE.match(data, at)
            if match is None:
                raise LocalError(f"{text!r}: a backslash wants one character or three digits")
            value = int(match[1]) if match[1] else match[2][0]
            if value > 255:
                raise LocalError(f"{text!r}: \\{value} is no octet")
            label.append(value)
            at = match.end()
            continue
        at += 1
        if octet == 0x2E:
            labels.append(bytes(label))
            label.clear()
        else:
            label.append(octet)
    if label or not labels:
        labels.append(bytes(label))
        return False, labels
    return True, labels


def to_text(wire: bytes) -> str:
    """The name as master files write it, with the final dot; octets that need it are escaped."""
    if wire == ROOT:
        return "."
    out: list[str] = []
    for label in labels(wire):
        for octet in label:
            if octet in _SPECIAL:
                out.append("\\" + chr(octet))
            elif 0x21 <= octet <= 0x7E:
                out.append(chr(octet))
            else:
                out.append(f"\\{octet:03d}")
        out.append(".")
    return "".join(out)


def file_name(origin: bytes) -> str:
    """A file name for a zone: its own, without the final dot and without slashes.

    One that is too long for a file ends with a hash; to it may come `MAX_ENDING` octets.
    """
    text = to_text(origin).rstrip(".").replace("%", "%25").replace("/", "%2F")
    if len(text) > MAX_FILE - MAX_ENDING:
        digest = hashlib.sha256(origin).hexdigest()[:32]
        text = f"{text[: MAX_FILE - MAX_ENDING - 33]}%{digest}"
    return text or "%root"


def labels(wire: bytes) -> list[bytes]:
    """The labels, leftmost first, without the root."""
    out: list[bytes] = []
    at = 0
    while length := wire[at]:
        out.append(wire[at + 1 : at + 1 + length])
        at += 1 + length
    return out


def parent(wire: bytes) -> bytes:
    """The name without its leftmost label; the root is its own parent."""
    return wire[1 + wire[0] :] if wire[0] else wire


def is_below(wire: bytes, ancestor: bytes) -> bool:
    """True if `wire` is `ancestor` or stands below it; both in the same case."""
    if not wire.endswith(ancestor):
        return False
    excess = len(wire) - len(ancestor)
    at = 0
    while at < excess:
        at += 1 + wire[at]
    return at == excess


def end_of(message: bytes, at: int) -> int:
    """The offset behind the uncompressed name at `at`; WireError when none stands there.

    A question's name has nothing before it that it could point to, so a pointer is an error here.
    """
    start = at
    try:
        while length := message[at]:
            if length > MAX_LABEL:
                raise WireError("compressed or unknown label")
            at += 1 + length
    except IndexError:
        raise WireError("name runs past the message") from None
    at += 1
    if at - start > MAX_NAME:
        raise WireError("name too long")
    return at


def skip(message: bytes, at: int) -> int:
    """The offset behind the possibly compressed name at `at`; the pointer is not followed.

    WireError when none stands there.
    """
    start = at
    try:
        while length := message[at]:
            if length >= 0xC0:
                return at + 2
            if length > MAX_LABEL:
                raise WireError("unknown label")
            at += 1 + length
    except IndexError:
        raise WireError("name runs past the message") from None
    if at - start >= MAX_NAME:
        raise WireError("name too long")
    return at + 1
