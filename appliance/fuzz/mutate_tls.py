"""Mutators that know TLS's records and the ClientHello (RFC 8446 §4.1.2, §5.1), and their seeds.

Octets and a random source in, octets out; whatever they are given, they give something back.
Imports `mutate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.fuzz.mutate import Random, edge, octets

HANDSHAKE: Final = 22
RECORD: Final = 1 << 14
"""Octets of a record's fragment at the most, in the clear (RFC 8446 §5.1)."""
MOST: Final = 150_000
"""Octets of an input: two hellos of 64 KB."""

# RFC 8446 §4.2, RFC 6066, RFC 7301, RFC 7685, RFC 8701 (values that mean nothing on purpose).
_EXTENSIONS: Final = (0, 5, 10, 11, 13, 16, 21, 23, 35, 41, 42, 43, 44, 45, 51, 0x0A0A, 0xFF01)
_TYPES: Final = (0, 20, 21, 22, 23, 24, 25, 128, 255)
_VERSIONS: Final = (
    b"\x03\0", b"\x03\x01", b"\x03\x02", b"\x03\x03", b"\x03\x04", b"\0\x02", b"\xff\xff",
)  # fmt: skip
_STRANGE: Final = (
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x14\x03\x03\0\x01\x01", b"\x14\x03\x03\0\x01\x02", b"\x15\x03\x03\0\x02\x01\0",
    b"\x15\x03\x03\0\x02\x02\x28", b"\x15\x03\x03\0\x01\x02", b"\x17\x03\x03\0\0",
    b"\x17\x03\x03\xff\xff", b"\x16\x03\x01\0\0", b"\x16\x03\x03\0\x04\0\0\0\0",
    b"\x18\x03\x02\0\x03\x01\x40\0", b"\x16\x03\x03\0\x05\x18\0\0\x01\0", b"\x80\x2e\x01\x03\x01",
    b"\x16\x03\x03\0\x04\x14\0\0\0", b"SSH-2.0-OpenSSH\r\n", b"\0" * 40,
)  # fmt: skip


def vector(data: bytes, width: int) -> bytes:
    """Octets behind their length, in `width` octets (RFC 8446 §3.4)."""
    return len(data).to_bytes(width) + data


def record(kind: int, body: bytes, version: bytes = b"\x03\x01") -> bytes:
    """One record with any body, its length as it is."""
    return bytes((kind,)) + version + (len(body) & 0xFFFF).to_bytes(2) + body


def records(message: bytes, size: int = RECORD) -> bytes:
    """A handshake message in records of `size` octets."""
    return b"".join(
        record(HANDSHAKE, message[at : at + size]) for at in range(0, len(message), size)
    )


def extension(kind: int, body: bytes) -> bytes:
    """One extension."""
    return kind.to_bytes(2) + vector(body, 2)


def hello(
    *,
    name: bytes = b"example.org",
    protocols: Sequence[bytes] = (b"h2", b"http/1.1"),
    suites: bytes = b"\x13\x01\x13\x02\xc0\x2b\xc0\x2f",
    session: bytes = b"",
    compression: bytes = b"\0",
    tls13: bool = True,
    more: bytes = b"",
) -> bytes:
    """A ClientHello, with its header of four octets (RFC 8446 §4.1.2)."""
    asked = [
        extension(0, vector(b"\0" + vector(name, 2), 2)),
        extension(10, vector(b"\0\x1d\0\x17", 2)),
        extension(11, b"\x01\0"),
        extension(13, vector(b"\x04\x03\x08\x04\x04\x01", 2)),
        extension(16, vector(b"".join(vector(p, 1) for p in protocols), 2)),
        extension(23, b""),
    ]
    if tls13:
        share = b"\0\x1d" + vector(b"\x09" + bytes(31), 2)
        asked += [extension(43, vector(b"\x03\x04\x03\x03", 1)), extension(45, b"\x01\x01")]
        asked.append(extension(51, vector(share, 2)))
    body = b"\x03\x03" + bytes(range(32)) + vector(session, 1) + vector(suites, 2)
    body += vector(compression, 1) + vector(b"".join(asked) + more, 2)
    return b"\x01" + vector(body, 3)


def seeds() -> list[bytes]:
    """Streams of records that clients begin with, and some that nobody should."""
    plain = hello()
    ticket = extension(35, bytes(16) + b"t" * 160)
    psk = vector(vector(bytes(16) + b"i" * 160, 2) + bytes(4), 2) + vector(vector(b"b" * 32, 1), 2)
    tall = [extension(21, bytes(n)) for n in (3_000, 33_000, 60_000)]
    return [
        records(plain),
        records(hello(tls13=False)),
        records(hello(name=b"unknown.example", protocols=(b"acme-tls/1",))),
        records(hello(protocols=(b"nothing",))),
        records(hello(suites=b"\0\x05")),
        records(hello(tls13=False, more=ticket)),
        records(hello(more=extension(45, b"\x01\x01") + extension(41, psk))),
        records(hello(session=bytes(32)) + b"\x14\0\0\0"),
        records(plain, 1),
        records(plain, 100),
        *(records(hello(more=pad)) for pad in tall),
        records(hello(more=tall[2]), 50),
        records(plain) + _STRANGE[2] + record(23, bytes(100), b"\x03\x03"),
        *_STRANGE,
    ]


def taken_apart(data: bytes) -> list[bytes]:
    """The records of a stream; what is left when a length runs past the end is the last one."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 3 : at + 5])
        found.append(data[at:end])
        at = max(end, at + 5)
    return found


def tls(data: bytes, random: Random) -> bytes:
    """Change one to three things of a stream of records."""
    for _ in range(random.choice((1, 1, 2, 3))):
        data = _one_thing(data, random)
    return data[:MOST]


def _one_thing(data: bytes, random: Random) -> bytes:
    parts = taken_apart(data) or [b""]
    n = random.randrange(len(parts))
    part = parts[n]
    way = random.randrange(9)
    if way == 0:  # a record's header
        field = random.randrange(3)
        if field == 0:
            part = bytes((random.choice(_TYPES),)) + part[1:]
        elif field == 1:
            part = part[:1] + random.choice(_VERSIONS) + part[3:]
        else:
            part = part[:3] + edge(random, 2).to_bytes(2) + part[5:]
    elif way == 1 and len(part) > 6:  # one record becomes two
        at = random.randrange(6, len(part))
        body = part[5:]
        halves = (body[: at - 5], body[at - 5 :])
        part = b"".join(record(part[0], half, part[1:3]) for half in halves)
    elif way == 2:
        part = random.choice((b"", part + part))
    elif way == 3:
        part = random.choice((random.choice(_STRANGE) + part, part + random.choice(_STRANGE)))
    elif way == 4 and len(part) > 9:  # the message's length
        part = part[:6] + random.randrange(1 << 16).to_bytes(3) + part[9:]
    elif way in (5, 6) and part[5:6] == b"\x01":
        part = record(HANDSHAKE, _hello(part[5:], random), part[1:3])
    elif way == 7:
        whole = b"".join(p[5:] for p in parts if p[:1] == b"\x16")
        return records(whole, random.choice((1, 2, 7, 64, 500, RECORD)))[:MOST]
    else:
        part = octets(part, random)
    return b"".join((*parts[:n], part, *parts[n + 1 :]))


def _hello(message: bytes, random: Random) -> bytes:
    """Change one vector of a ClientHello, its length kept true or not."""
    at = 38
    spans: list[tuple[int, int]] = []  # where a length stands, and its octets
    for width in (1, 2, 1, 2):
        if at + width > len(message):
            return octets(message, random)
        spans.append((at, width))
        if len(spans) < 4:
            at += width + int.from_bytes(message[at : at + width])
    ends = at + 2
    while ends + 4 <= len(message):
        spans.append((ends + 2, 2))
        ends += 4 + int.from_bytes(message[ends + 2 : ends + 4])
    at, width = random.choice(spans)
    size = int.from_bytes(message[at : at + width])
    head, body, tail = message[:at], message[at + width :][:size], message[at + width + size :]
    way = random.randrange(4)
    if way == 0:
        return head + edge(random, width).to_bytes(width) + body + tail
    if way == 1:
        kind = random.choice(_EXTENSIONS)
        body += extension(kind, random.randbytes(random.choice((0, 1, 2, 5, 40))))
    elif way == 2:
        body = octets(body, random)
    else:
        body = body[: size // 2]
    whole = head[4:] + (len(body) & (1 << 8 * width) - 1).to_bytes(width) + body + tail
    return message[:1] + vector(whole, 3)
