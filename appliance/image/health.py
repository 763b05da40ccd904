"""Is a container well? One real query and one real request to the appliance in it.

    python -m appliance.image.health [HTTP-PORT [DNS-PORT]]

Ends with status 0 if both were answered, 1 if not. Imports the standard library.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from typing import Final

WAIT: Final = 2.0
"""Seconds for each answer."""
HTTP, DNS = 8080, 5353
"""The gateway's ports (site/docs/configure.md)."""
QUERY: Final = b"\x2a\x2a\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x01"
"""The root's SOA: REFUSED by whoever is not the root, which is an answer (RFC 8906 §3.1.1)."""


def well(http: int = HTTP, dns: int = DNS, host: str = "127.0.0.1") -> bool:
    """Whether the web and the name server answer."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
            query.settimeout(WAIT)
            query.connect((host, dns))
            query.send(QUERY)
            answer = query.recv(512)
        with socket.create_connection((host, http), WAIT) as request:
            request.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            head = request.recv(64)
    except OSError:
        return False
    return answer[:2] == QUERY[:2] and bool(answer[2] & 0x80) and head.startswith(b"HTTP/1.1 ")


def main(words: Sequence[str]) -> int:
    """Ask once."""
    http, dns = ([int(word) for word in words] + [HTTP, DNS][len(words) :])[:2]
    return 0 if well(http, dns) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
