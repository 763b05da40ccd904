"""Internet addresses as text and as octets.

Above the wire an address is `bytes`, four octets for IPv4 and sixteen for IPv6, and its length says
which it is. Here alone it becomes text and back. Imports the standard library only.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address, ip_interface
from struct import Struct
from typing import Final

V4_LEN: Final = 4
V6_LEN: Final = 16
"""Octets of an address (RFC 791 §3.1, RFC 8200 §3)."""

CACHED: Final = 4096
"""Addresses whose text is kept: enough for the peers of a busy minute, about 0.5 MB at the most."""

_GROUPS: Final = Struct("!8H")
_SHAPE: Final = ":" + "{:x}:" * 8
_TWO_ZEROS: Final = bytes(4)
_RUNS: Final = tuple(":" + "0:" * length for length in range(8, 1, -1))


@lru_cache(CACHED)
def to_text(address: bytes) -> str:
    """Text of four octets (dotted decimal) or sixteen (RFC 5952); ValueError for other lengths."""
    if len(address) == V4_LEN:
        return f"{address[0]}.{address[1]}.{address[2]}.{address[3]}"
    if len(address) == V6_LEN:
        return _text6(address)
    raise ValueError(f"an address has 4 or 16 octets, not {len(address)}")


def _text6(address: bytes) -> str:
    """RFC 5952 §4, in less time than `ipaddress` takes: name servers hear from many strangers."""
    text = _SHAPE.format(*_GROUPS.unpack(address))
    if _TWO_ZEROS in address:
        # §4.2: the longest run of two or more, and the first of those.
        for run in _RUNS:
            at = text.find(run)
            if at >= 0:
                return f"{text[1 : max(at, 1)]}::{text[at + len(run) : -1]}"
    return text[1:-1]


@lru_cache(CACHED)
def from_text(text: str) -> bytes:
    """Four or sixteen octets from an address's text; ValueError for anything else."""
    return ip_address(text).packed


def interface_from_text(cidr: str) -> tuple[bytes, int]:
    """(address, prefix length in bits) from `10.0.0.2/24`; a bare address is its own network."""
    interface = ip_interface(cidr)
    return interface.ip.packed, interface.network.prefixlen


def in_network(address: bytes, network: bytes, prefix_len: int) -> bool:
    """True if the first `prefix_len` bits of both are equal and they are of one family."""
    if len(address) != len(network):
        return False
    shift = len(address) * 8 - prefix_len
    return int.from_bytes(address) >> shift == int.from_bytes(network) >> shift
