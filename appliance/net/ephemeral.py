"""Which port is free: for listeners that name one, and for whoever takes any (RFC 6056).

It imports the standard library.
"""

from __future__ import annotations

import errno
import random as random_module
from collections.abc import Callable, Mapping
from typing import Final

EPHEMERAL_FIRST: Final = 49_152  # RFC 6335 §6
EPHEMERAL_COUNT: Final = 65_536 - EPHEMERAL_FIRST
_PORT_TRIES: Final = 64  # draws before a port is searched for in order


def claim(
    random: random_module.Random,
    port: int,
    address: bytes,
    table: Mapping[tuple[bytes, int], object],
    name: str,
) -> int:
    """Return the port that a listener on `address` (b"" for any) gets; 0 asks for any.

    Raises OSError: EADDRINUSE when it is taken, EADDRNOTAVAIL when none is free; OverflowError for
    what is no port.
    """
    if not 0 <= port < 65_536:
        raise OverflowError(f"port {port} is not in 0-65535")

    def taken(port: int) -> bool:
        if (address, port) in table or (b"", port) in table:
            return True
        return not address and any(p == port for _, p in table)

    if port == 0:
        return free_port(random, taken)
    if taken(port):
        raise OSError(errno.EADDRINUSE, f"{name} port {port} is in use")
    return port


def free_port(random: random_module.Random, taken: Callable[[int], bool]) -> int:
    """Draw an ephemeral port (RFC 6056 §3.3.1), or search when the draw is unlucky."""
    for _ in range(_PORT_TRIES):
        port = EPHEMERAL_FIRST + random.randrange(EPHEMERAL_COUNT)
        if not taken(port):
            return port
    for port in range(EPHEMERAL_FIRST, 65_536):
        if not taken(port):
            return port
    raise OSError(errno.EADDRNOTAVAIL, "no ephemeral port is free")
