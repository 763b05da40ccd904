"""Addresses without anybody's help for IPv4 (RFC 3927): 169.254/16, tried until one is free.

A last resort, for networks whose DHCP server does not answer. The first address is always the same
for a MAC, so that a host keeps it over restarts (§2.1). Claiming and defending is `acd`'s.
Sans-I/O. Imports the standard library only.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

PREFIX_LEN: Final = 16
MAX_CONFLICTS: Final = 10
RATE_LIMIT_INTERVAL: Final = 60.0
"""Seconds between attempts after MAX_CONFLICTS of them (RFC 3927 §9)."""


def candidate(mac: bytes, attempt: int) -> bytes:
    """The address to try: 169.254.1.0 to 169.254.254.255, evenly (RFC 3927 §2.1)."""
    digest = blake2b(attempt.to_bytes(4), key=mac, digest_size=8).digest()
    return (0xA9FE0100 + int.from_bytes(digest) % (254 * 256)).to_bytes(4)


def wait(conflicts: int) -> float:
    """Seconds to wait before the next attempt (RFC 3927 §2.2.1)."""
    return RATE_LIMIT_INTERVAL if conflicts >= MAX_CONFLICTS else 0.0
