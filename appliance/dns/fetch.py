"""A zone from a server by AXFR, for tools: through the host's sockets, and waiting for it.

Imports the standard library's sockets and the leaves of this package.
"""

from __future__ import annotations

import socket
import time
from random import SystemRandom
from typing import Final

from appliance.dns.errors import WireError
from appliance.dns.incoming import Incoming, Whole
from appliance.dns.tsig import Key
from appliance.dns.zone import Zone, collector_paused

PATIENCE: Final = 30.0
"""Seconds for a connection, and for each further octet."""


def fetch(name: bytes, host: str, port: int, key: Key | None = None) -> Zone:
    """The zone of this name as a server has it; OSError, WireError."""
    incoming = Incoming(name, None, key=key, random=SystemRandom(), wall=time.time)
    with socket.create_connection((host, port), PATIENCE) as stream, collector_paused():
        message: bytes | None = incoming.start()
        while True:
            if message is not None:
                stream.sendall(len(message).to_bytes(2, "big") + message)
            length = int.from_bytes(_read(stream, 2), "big")
            message = incoming.received(_read(stream, length))
            if isinstance(incoming.result, Whole):
                return incoming.result.builder.finish()


def _read(stream: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            raise WireError("the server ended the conversation")
        data += part
    return bytes(data)
