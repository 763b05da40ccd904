"""Initial sequence numbers that an outsider cannot guess (RFC 6528).

    ISN = M + F(local address, local port, remote address, remote port, secret)

M is the 4-microsecond clock of RFC 9293 §3.4.1, so that numbers of successive incarnations of a
connection still grow; F is a keyed hash, so that they tell nothing about those of another.  The
timestamp clock of RFC 7323 gets an offset per address pair from the same hash (RFC 7323 §7.1).

Time and the secret are handed in.  It imports only the standard library.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

TICKS_PER_SECOND: Final = 250_000  # RFC 9293 §3.4.1: the clock steps about every 4 microseconds
SECRET_LENGTH: Final = 16  # octets; RFC 6528 §3 asks for at least 128 bits
KEYS: Final = 16  # secrets whose hash is kept begun; a host has a handful
OFFSETS: Final = 4096  # address pairs whose offset is kept: those of a busy minute, some 1 MB


def keyed_hash(secret: bytes, data: bytes) -> int:
    """Return a 32-bit keyed hash of `data` (F of RFC 6528 §3; BLAKE2b with a key, RFC 7693)."""
    state = _keyed(secret).copy()
    state.update(data)
    return int.from_bytes(state.digest())


@lru_cache(KEYS)
def _keyed(secret: bytes) -> Any:
    """The hash with its key taken in, which is half of the work on data as short as ours."""
    return blake2b(digest_size=4, key=secret)


def initial_sequence_number(secret: bytes, four_tuple: bytes, now: float) -> int:
    """Return the 32-bit ISN of the connection named by `four_tuple` at `now` (RFC 6528 §3)."""
    return (keyed_hash(secret, four_tuple) + int(now * TICKS_PER_SECOND)) & 0xFFFFFFFF


@lru_cache(OFFSETS)
def timestamp_offset(secret: bytes, address_pair: bytes) -> int:
    """Return where the timestamp clock of an address pair starts, 32 bits (RFC 7323 §7.1)."""
    return keyed_hash(secret, b"timestamp" + address_pair)
