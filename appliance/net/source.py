"""Which of our addresses a packet leaves from (RFC 6724 §5, with the default policy table).

Rules 4 (home addresses) and 7 (temporary addresses) have nothing to choose from here: neither is
made by this host. Rule 5.5 is not followed: the next hop is chosen before the source. For IPv4 the
same rules apply to the mapped addresses, which comes to RFC 1122 §3.3.4.3: the same network first.
Imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

# RFC 6724 §2.1: prefix, bits, label (precedence orders destinations, which callers choose).
_MAPPED: Final = bytes(10) + b"\xff\xff"
_POLICY: Final = (
    (bytes(15) + b"\1", 128, 0),
    (_MAPPED + bytes(4), 96, 4),
    (bytes(16), 96, 3),
    (bytes.fromhex("20010000") + bytes(12), 32, 5),
    (bytes.fromhex("2002") + bytes(14), 16, 2),
    (bytes.fromhex("3ffe") + bytes(14), 16, 12),
    (bytes.fromhex("fec0") + bytes(14), 10, 11),
    (bytes.fromhex("fc") + bytes(15), 7, 13),
)
_DEFAULT_LABEL: Final = 1

LINK_LOCAL: Final = 2
SITE_LOCAL: Final = 5
GLOBAL: Final = 14
"""Scopes (RFC 6724 §3.1, RFC 4291 §2.7)."""


class Candidate(NamedTuple):
    """One of our addresses: octets, prefix length, link, and whether it is deprecated."""

    address: bytes
    prefix_len: int
    link: Any
    deprecated: bool


def mapped(address: bytes) -> bytes:
    """Sixteen octets: an IPv4 address as ::ffff:a.b.c.d (RFC 6724 §3.2)."""
    return address if len(address) == 16 else _MAPPED + address


def scope(address: bytes) -> int:
    """How far an address means the same (RFC 6724 §3.1, §3.2)."""
    if len(address) == 4:
        return LINK_LOCAL if address[:2] == b"\xa9\xfe" or address[0] == 127 else GLOBAL
    if address[0] == 0xFF:
        return address[1] & 15
    if address[0] == 0xFE:
        if address[1] & 0xC0 == 0x80:
            return LINK_LOCAL
        if address[1] & 0xC0 == 0xC0:
            return SITE_LOCAL
    return LINK_LOCAL if address == _POLICY[0][0] else GLOBAL


def label(address: bytes) -> int:
    """The label of the default policy table (RFC 6724 §2.1)."""
    value = int.from_bytes(mapped(address))
    for prefix, bits, its in _POLICY:
        if value >> (128 - bits) == int.from_bytes(prefix) >> (128 - bits):
            return its
    return _DEFAULT_LABEL


def common_prefix(one: bytes, other: bytes, limit: int) -> int:
    """Leading bits that both share, at most `limit` (RFC 6724 §2.2: the source's prefix)."""
    bits = len(one) * 8
    difference = int.from_bytes(one) ^ int.from_bytes(other)
    return min(bits - difference.bit_length(), limit)


def choose(destination: bytes, candidates: Iterable[Candidate], link: Any) -> bytes | None:
    """The source for `destination`, which leaves by `link`; None without one of its family."""
    best: tuple[tuple[int, ...], bytes] | None = None
    wanted, its_label = scope(destination), label(destination)
    for address, prefix_len, its_link, deprecated in candidates:
        if len(address) != len(destination):
            continue
        # RFC 6724 §4: a link-local address belongs to its link.
        has = scope(address)
        if has == LINK_LOCAL and its_link is not link:
            continue
        rank = (
            address == destination,  # rule 1
            # Rule 2: big enough beats too small; then the smaller of the big, the bigger of the
            # small ones.
            has >= wanted,
            -has if has >= wanted else has,
            not deprecated,  # rule 3
            its_link is link,  # rule 5
            label(address) == its_label,  # rule 6
            common_prefix(address, destination, prefix_len),  # rule 8
        )
        if best is None or rank > best[0]:
            best = rank, address
    return best[1] if best else None
