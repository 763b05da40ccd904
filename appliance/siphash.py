"""SipHash-2-4, a keyed hash that others compute too: DNS cookies (RFC 9018 §4.4), Fast Open.

Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012): four 64-bit words are stirred
twice for each word of the message and four times at the end. Imports nothing of ours.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

_WORD: Final = Struct("<Q")
_KEY: Final = Struct("<QQ")
_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF
KEY_LEN: Final = 16
"""Octets."""


def siphash24(key: bytes, message: bytes) -> bytes:
    """Eight octets, little-endian, for a 16-octet key and any message."""
    k0, k1 = _KEY.unpack(key)
    # The constants spell "somepseudorandomlygeneratedbytes".
    v0, v1 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    v2, v3 = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    whole = len(message) & ~7
    last = message[whole:].ljust(7, b"\0") + bytes((len(message) & 0xFF,))
    for at in range(0, whole + 8, 8):
        (word,) = _WORD.unpack_from(message, at) if at < whole else _WORD.unpack(last)
        v3 ^= word
        v0, v1, v2, v3 = _rounds(2, v0, v1, v2, v3)
        v0 ^= word
    v0, v1, v2, v3 = _rounds(4, v0, v1, v2 ^ 0xFF, v3)
    return _WORD.pack(v0 ^ v1 ^ v2 ^ v3)


def _rounds(count: int, v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    mask = _MASK
    for _ in range(count):
        v0 = (v0 + v1) & mask
        v1 = (v1 << 13 & mask | v1 >> 51) ^ v0
        v0 = v0 << 32 & mask | v0 >> 32
        v2 = (v2 + v3) & mask
        v3 = (v3 << 16 & mask | v3 >> 48) ^ v2
        v0 = (v0 + v3) & mask
        v3 = (v3 << 21 & mask | v3 >> 43) ^ v0
        v2 = (v2 + v1) & mask
        v1 = (v1 << 17 & mask | v1 >> 47) ^ v2
        v2 = v2 << 32 & mask | v2 >> 32
    return v0, v1, v2, v3
