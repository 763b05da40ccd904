"""How long a TLS connection may take over anything, and how many of them there may be.

Imports the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how many; times in seconds."""

    handshake_seconds: float = 10.0  # from the connection to the end of the handshake
    linger_seconds: float = 5.0  # for the peer to close after we have
    stall_seconds: float = 30.0  # for a peer to take what was written before close(),
    min_rate: int = 500  # or else so many octets of it a second
    handshakes: int = 2000  # under way at once: each costs 60 KB and 0.3 ms of CPU
    patience: float = 1.0  # an older handshake may be ended for a new one, at the limit
    hellos: int = 16 * 1024 * 1024  # octets of unfinished hellos at once; small ones always may


LIMITS: Final = Limits()
