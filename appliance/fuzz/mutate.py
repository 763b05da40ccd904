"""Mutators that know what they mutate: frames, DNS messages, HTTP heads.

Blind flips mostly die at the first checksum or length. These change one *field* at a time, to a
value that is near a limit, and repair what stands before the interesting part, so that most of what
they make gets as far as the code that it is meant for. Bytes and a random source in, bytes out;
whatever they are given, they give something back. Imports `net.wire` and `net.checksum`.
"""

from __future__ import annotations

import random as random_module
from typing import Final

from appliance.net.checksum import ones_complement_sum, pseudo_header_sum

Random = random_module.Random

ETHERNET: Final = 14
"""Octets before the network header, in frames without virtio header, as here."""
_EDGES: Final = {
    1: (0, 1, 2, 3, 4, 5, 8, 15, 16, 64, 127, 128, 254, 255),
    2: (0, 1, 7, 8, 20, 40, 67, 68, 127, 128, 255, 256, 536, 1460, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF),
    4: (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF),
}
# (offset from the network header, octets) of what IPv4, then TCP, UDP, ICMP and ARP have.
_IP_FIELDS: Final = (
    (0, 1), (1, 1), (2, 2), (4, 2), (6, 2), (8, 1), (9, 1), (10, 2), (12, 4), (16, 4),
)  # fmt: skip
_TCP_FIELDS: Final = ((0, 2), (2, 2), (4, 4), (8, 4), (12, 1), (13, 1), (14, 2), (16, 2), (18, 2))
_UDP_FIELDS: Final = ((0, 2), (2, 2), (4, 2), (6, 2))
_ICMP_FIELDS: Final = ((0, 1), (1, 1), (2, 2), (4, 2), (6, 2), (8, 1), (10, 2), (20, 4), (24, 4))
_ARP_FIELDS: Final = ((0, 2), (2, 2), (4, 1), (5, 1), (6, 2), (8, 2), (14, 4), (18, 2), (24, 4))
_OPTIONS: Final = (
    b"\x02\x04\x05\xb4", b"\x02\x04\x00\x00", b"\x03\x03\x0f", b"\x03\x03\x00", b"\x04\x02",
    b"\x05\x0a\x00\x00\x00\x01\x00\x00\x00\x02", b"\x05\x12" + bytes(16), b"\x08\x0a" + bytes(8),
    b"\x01", b"\x00", b"\x02\x03\x01", b"\x08\x02", b"\x05\x02", b"\xfe\x00", b"\xfe\xff", b"\x22",
    b"\x22\x02", b"\x1c\x04\x80\x01", b"\x13\x12" + bytes(16),
)  # fmt: skip


def edge(random: Random, size: int) -> int:
    """A number of `size` octets, near a limit more often than not."""
    if random.random() < 0.7 and size in _EDGES:
        return random.choice(_EDGES[size])
    return random.getrandbits(8 * size)


def octets(data: bytes, random: Random) -> bytes:
    """Change octets without knowing what they mean."""
    if not data:
        return random.randbytes(random.randint(1, 8))
    at = random.randrange(len(data))
    way = random.randrange(6)
    if way == 0:
        return data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :]
    if way == 1:
        return data[:at] + bytes((random.choice(_EDGES[1]),)) + data[at + 1 :]
    if way == 2:
        return data[:at]
    if way == 3:
        return data[:at] + random.randbytes(random.randint(1, 20)) + data[at:]
    end = min(len(data), at + random.randint(1, 16))
    if way == 4:
        return data[:at] + data[end:]
    return data[:end] + data[at:]


# ---------------------------------------------------------------------- frames


def frame(data: bytes, random: Random) -> bytes:
    """Change one to three things of an Ethernet frame, then mostly repair its sums."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = _one_field(data, random)
    return repaired(data) if random.random() < 0.9 else data


def _one_field(data: bytes, random: Random) -> bytes:
    kind = data[12:14]
    if len(data) < ETHERNET + 20 or random.random() < 0.1:
        return octets(data, random)
    if kind == b"\x08\x06":
        return _set(data, ETHERNET, random.choice(_ARP_FIELDS), random)
    if kind != b"\x08\x00":
        return (
            octets(data[:ETHERNET], random)
            if random.random() < 0.05
            else (data[:ETHERNET] + octets(data[ETHERNET:], random))
        )
    way = random.random()
    if way < 0.15:
        return _set(data, ETHERNET, random.choice(_IP_FIELDS), random)
    if way < 0.2:
        return _with_ip_options(data, random)
    at = ETHERNET + (data[ETHERNET] & 15) * 4
    protocol = data[ETHERNET + 9]
    if protocol == 6:
        if way < 0.5:
            return _with_tcp_options(data, at, random)
        if way < 0.6:
            return with_length(data[:at] + octets(data[at:], random))
        return _set(data, at, random.choice(_TCP_FIELDS), random)
    if way < 0.5:
        return with_length(data[:at] + octets(data[at:], random))
    fields = _UDP_FIELDS if protocol == 17 else _ICMP_FIELDS
    return _set(data, at, random.choice(fields), random)


def _set(data: bytes, base: int, field: tuple[int, int], random: Random) -> bytes:
    at, size = base + field[0], field[1]
    if at + size > len(data):
        return data
    if random.random() < 0.3:
        old = int.from_bytes(data[at : at + size])
        value = (old + random.choice((-2, -1, 1, 2, 100, -100))) % (1 << 8 * size)
    else:
        value = edge(random, size)
    return data[:at] + value.to_bytes(size) + data[at + size :]


def _with_tcp_options(data: bytes, at: int, random: Random) -> bytes:
    """Give a segment other options, and mostly the data offset that they need."""
    if at + 20 > len(data):
        return data
    old = at + (data[at + 12] >> 4) * 4
    made = b"".join(random.choice(_OPTIONS) for _ in range(random.randint(0, 5)))[:40]
    made += bytes((random.randrange(2),)) * (-len(made) % 4)
    offset = (20 + len(made)) << 2
    if random.random() < 0.1:
        offset = random.choice((0, 0x40, 0x50, 0xF0))
    body = data[max(old, at + 20) :]
    head = data[at : at + 12] + bytes((offset,)) + data[at + 13 : at + 20]
    return with_length(data[:at] + head + made + body)


def _with_ip_options(data: bytes, random: Random) -> bytes:
    """Put options into an IPv4 header that has none (RFC 791 §3.1)."""
    if data[ETHERNET] != 0x45:
        return data
    made = random.choice(
        (b"\x01\x01\x01\x00", b"\x07\x07\x04\0\0\0\0\0", b"\x83\x07\x04" + bytes(5),
         b"\x88\x04\0\0", b"\x44\x04\x05\0", b"\x07\xff\0\0", b"\x07\x01\0\0")
    )  # fmt: skip
    head = bytes((0x45 + len(made) // 4,)) + data[ETHERNET + 1 : ETHERNET + 20]
    return with_length(data[:ETHERNET] + head + made + data[ETHERNET + 20 :])


def with_length(data: bytes) -> bytes:
    """Say the true length in an IPv4 header."""
    if len(data) < ETHERNET + 20:
        return data
    total = min(len(data) - ETHERNET, 0xFFFF)
    return data[: ETHERNET + 2] + total.to_bytes(2) + data[ETHERNET + 4 :]


def repaired(data: bytes) -> bytes:
    """The frame with right sums, as far as its headers can be found."""
    if len(data) >= ETHERNET + 40 and data[12:14] == b"\x86\xdd":
        return _repaired6(data)
    if len(data) < ETHERNET + 20 or data[12:14] != b"\x08\x00":
        return data
    octet = bytearray(data)
    length = (octet[ETHERNET] & 15) * 4
    at = ETHERNET + length
    if length < 20 or at > len(octet):
        return data
    octet[ETHERNET + 10 : ETHERNET + 12] = b"\0\0"
    total = ones_complement_sum(bytes(octet[ETHERNET:at])) ^ 0xFFFF
    octet[ETHERNET + 10 : ETHERNET + 12] = total.to_bytes(2)
    end = min(ETHERNET + int.from_bytes(octet[ETHERNET + 2 : ETHERNET + 4]), len(octet))
    protocol = octet[ETHERNET + 9]
    place = {6: at + 16, 17: at + 6, 1: at + 2}.get(protocol)
    if place is None or place + 2 > end:
        return bytes(octet)
    octet[place : place + 2] = b"\0\0"
    initial = 0
    if protocol != 1:
        src = bytes(octet[ETHERNET + 12 : ETHERNET + 16])
        dst = bytes(octet[ETHERNET + 16 : ETHERNET + 20])
        initial = pseudo_header_sum(src, dst, protocol, end - at)
    total = ones_complement_sum(bytes(octet[at:end]), initial) ^ 0xFFFF
    octet[place : place + 2] = total.to_bytes(2)
    return bytes(octet)


def _repaired6(data: bytes) -> bytes:
    """The same for IPv6 without extension headers, its length besides (RFC 8200 §8.1)."""
    octet = bytearray(data)
    at = ETHERNET + 40
    length = len(octet) - at
    octet[ETHERNET + 4 : ETHERNET + 6] = min(length, 0xFFFF).to_bytes(2)
    protocol = octet[ETHERNET + 6]
    place = {6: at + 16, 17: at + 6, 58: at + 2}.get(protocol)
    if place is None or place + 2 > len(octet):
        return bytes(octet)
    octet[place : place + 2] = b"\0\0"
    src, dst = bytes(octet[ETHERNET + 8 : ETHERNET + 24]), bytes(octet[ETHERNET + 24 : at])
    initial = pseudo_header_sum(src, dst, protocol, length)
    total = ones_complement_sum(bytes(octet[at:]), initial) ^ 0xFFFF
    octet[place : place + 2] = total.to_bytes(2)
    return bytes(octet)


# ---------------------------------------------------------------------- DNS

_TYPES: Final = (1, 2, 5, 6, 15, 16, 28, 33, 41, 43, 46, 47, 48, 50, 64, 65, 250, 251, 252, 255, 0)
_NAMES: Final = (
    b"\0", b"\xc0\x0c", b"\xc0\xff", b"\x3f" + b"a" * 63 + b"\0", b"\x40", b"\x80", b"\x01*\0",
    b"\x03www\x07example\x04test\0", b"\x01\0\0", (b"\x3f" + b"a" * 63) * 4 + b"\0",
)  # fmt: skip
_EDNS: Final = (
    b"", b"\0\x0a\0\x08" + bytes(8), b"\0\x0c\0\x04" + bytes(4), b"\0\x03\0\xff",
    b"\0\x08\0\x07\0\x01\x18\0\xc0\0\x02",
)  # fmt: skip
_OPT: Final = b"\0\0\x29"


def dns(data: bytes, random: Random) -> bytes:
    """Change one to three things of a DNS message (RFC 1035 §4)."""
    for _ in range(random.choice((1, 1, 2, 3))):
        data = _dns_once(data, random)
    return data


def _dns_once(data: bytes, random: Random) -> bytes:
    if len(data) < 17:
        return octets(data, random)
    way = random.randrange(8)
    if way == 0:  # flags
        return data[:2] + edge(random, 2).to_bytes(2) + data[4:]
    if way == 1:  # a count
        at = random.choice((4, 6, 8, 10))
        value = random.choice((0, 1, 2, 255, 65_535))
        return data[:at] + value.to_bytes(2) + data[at + 2 :]
    end = data.find(b"\0", 12) + 1 or len(data)
    if way == 2:  # the name
        return data[:12] + random.choice(_NAMES) + data[end:]
    if way == 3:  # the type
        return data[:end] + random.choice(_TYPES).to_bytes(2) + data[end + 2 :]
    if way == 4:  # letters' case: no answer depends on it
        name = bytes(b ^ 0x20 if chr(b).isalpha() and random.random() < 0.5 else b
                     for b in data[12:end])  # fmt: skip
        return data[:12] + name + data[end:]
    if way == 5:  # an EDNS record more, sound or not (RFC 6891 §6.1.2)
        options = random.choice(_EDNS)
        size = edge(random, 2).to_bytes(2)
        flags = bytes((0, random.choice((0, 0, 1)), random.choice((0, 0x80)), 0))
        made = _OPT + size + flags + len(options).to_bytes(2) + options
        count = (int.from_bytes(data[10:12]) + 1) & 0xFFFF
        return data[:10] + count.to_bytes(2) + data[12:] + made
    if way == 6:
        return data[: random.randrange(len(data))]
    return octets(data, random)


# ---------------------------------------------------------------------- HTTP

_PIECES: Final = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b"\0", b"\xff", b"\r\n\r\n", b"%00", b"%2e%2e/",
    b"../", b"//", b"?", b"#", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"GET", b"HEAD",
    b"PUT", b"OPTIONS *", b"CONNECT a:1", b"http://example.org/", b"Host: a\r\nHost: b\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 5, 6\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked, gzip\r\n", b"Expect: x\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n", b"\x85",
    b"Range: bytes=0-0,5-9,-1\r\n", b"Range: bytes=9-5\r\n", b"Range: bytes=" + b"0-0," * 50,
    b"If-None-Match: \"", b"If-Modified-Since: Sun, 30 Feb 2014 03:04:05 GMT\r\n", b"a" * 9_000,
    b"Accept-Encoding: br;q=1.0001, *;q=0\r\n", b"X: \r\n y\r\n", b"5\r\nhello\r\n0\r\n\r\n",
    b"Upgrade: h2c\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"fffffffffffffffff\r\n",
)  # fmt: skip


def http(data: bytes, random: Random) -> bytes:
    """Change one to three things of an HTTP/1.1 request (RFC 9112)."""
    for _ in range(random.choice((1, 1, 2, 3))):
        lines = data.split(b"\r\n")
        way = random.randrange(6)
        at = random.randrange(len(data) + 1)
        if way == 0:
            data = data[:at] + random.choice(_PIECES) + data[at:]
        elif way == 1:
            n = random.randrange(len(lines))
            data = b"\r\n".join((*lines[:n], *lines[n + 1 :]))
        elif way == 2:
            n = random.randrange(len(lines))
            data = b"\r\n".join((*lines[: n + 1], *lines[n:]))
        elif way == 3:
            n = random.randrange(1, max(len(lines), 2))
            data = (
                b"\r\n".join(lines[:n]) + b"\r\n" + random.choice(_PIECES) + b"\r\n".join(lines[n:])
            )
        elif way == 4:
            data = data.replace(
                random.choice((b" ", b"\r\n", b":", b"/")), random.choice(_PIECES), 1
            )
        else:
            data = octets(data, random)
    return data[:20_000]
