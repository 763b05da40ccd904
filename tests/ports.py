"""Ports of 127.0.0.1 for programs that are to listen there."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

LOWEST, HIGHEST = 15_000, 32_000
"""Below the ports that Linux gives to outgoing connections (32,768 on), whose ends would hold one
for TCP that nothing holds for UDP."""


def free_port() -> int:
    """A port that nothing holds, for UDP and TCP alike."""
    while True:
        port = random.randint(LOWEST, HIGHEST)
        with ExitStack() as held:
            try:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    held.enter_context(socket.socket(type=kind)).bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
