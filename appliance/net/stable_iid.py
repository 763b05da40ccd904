"""Interface identifiers that stay the same in one network and say nothing elsewhere (RFC 7217).

    identifier = hash(prefix, interface, network, counter, secret)

Imports the standard library only.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

IDGEN_RETRIES: Final = 3
IDGEN_DELAY: Final = 1.0
"""Seconds before another identifier is tried, at the most; and how many are (RFC 7217 §7)."""

_ROUTERS_ANYCAST: Final = bytes(8)
_IANA: Final = bytes.fromhex("02005efffe")
_ANYCAST: Final = bytes.fromhex("fdffffffffffff")


def identifier(
    secret: bytes, prefix: bytes, interface: str, counter: int, network: bytes = b""
) -> bytes:
    """Eight octets for the 64-bit `prefix` on `interface`; `counter` of duplicates (RFC 7217 §5).

    `secret` has at least 16 octets; identifiers that IANA reserves (RFC 5453) are passed over.
    """
    while True:
        parts = (prefix[:8], interface.encode(), network, counter.to_bytes(4))
        data = b"".join(len(part).to_bytes(2) + part for part in parts)
        found = blake2b(data, key=secret[:64], digest_size=8).digest()
        if not reserved(found):
            return found
        counter += 1


def reserved(found: bytes) -> bool:
    """Tell whether an identifier has another meaning (RFC 5453 §3)."""
    return (
        found == _ROUTERS_ANYCAST
        or found.startswith(_IANA)
        or (found.startswith(_ANYCAST) and found[7] >= 0x80)
    )
