"""Is a container well? One real query and one real request to the appliance in it.

    python -m appliance.image.health [HTTP-PORT [DNS-PORT]]

On a pair they go through the gateway, as everybody's do. A host of its own cannot be reached from
beside it: what the kernel sends on a card never comes in there. Then the running appliance is asked
on its control socket (state/control) for its addresses, and is well if it has one. Ends with status
0 or 1. Imports the standard library.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

WAIT: Final = 2.0
"""Seconds for each answer."""
HTTP, DNS = 8080, 5353
"""The gateway's ports (site/docs/configure.md)."""
CONTROL: Final = Path("state/control")
"""Where the appliance listens for questions about itself (site/docs/configure.md)."""
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


def host_of_its_own(control: Path = CONTROL) -> bool:
    """Whether the appliance runs, and has an address on an interface that is no pair's."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(WAIT)
            link.connect(str(control))
            link.sendall(b'{"do": "route"}\n')
            with link.makefile("rb") as lines:
                rows = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return False
    return any(row.get("kind") == "address" and not row["link"].startswith("pair") for row in rows)


def main(words: Sequence[str]) -> int:
    """Ask once."""
    http, dns = ([int(word) for word in words] + [HTTP, DNS][len(words) :])[:2]
    return 0 if well(http, dns) or host_of_its_own() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
