"""Sockets of the kernel on a wished port, or on another free one when that cannot be had.

Imports the standard library only.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Final

NEIGHBOURS: Final = 20
"""Ports tried after a taken one, before any free port will do: 8081 is easier to remember."""
_REASONS: Final = {
    errno.EADDRINUSE: "is taken",
    errno.EACCES: "needs a privilege",  # below 1024, for most people
}


class PortsError(Exception):
    """No port can be had; the text says where and why."""


def bind_near(
    address: str, wanted: int, kinds: Sequence[socket.SocketKind]
) -> tuple[list[socket.socket], str]:
    """Bind one socket of each kind to one port: the wanted one, one near it, or any.

    The text says why it is not the wanted one, and is empty when it is. Raises PortsError.
    """
    near = [port for port in range(wanted, wanted + NEIGHBOURS + 1) if port <= 65535]
    reason = ""
    for port in [*near, *[0] * NEIGHBOURS]:
        try:
            sockets = _bind(address, port, kinds)
        except OSError as exc:
            if exc.errno not in _REASONS:
                raise PortsError(f"cannot listen on {address}: {exc.strerror}") from exc
            reason = reason or f"port {wanted} {_REASONS[exc.errno]}"
        else:
            return sockets, reason
    raise PortsError(f"no port of {address} is free: {reason}")


def _bind(address: str, port: int, kinds: Sequence[socket.SocketKind]) -> list[socket.socket]:
    """One bound socket of each kind on the same port (0: the one that the first gets)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sockets: list[socket.socket] = []
    try:
        for kind in kinds:
            sock = socket.socket(family, kind)
            sockets.append(sock)
            sock.setblocking(False)
            if kind == socket.SOCK_STREAM:
                # Or connections in TIME-WAIT would keep the port after a restart.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            port = sock.getsockname()[1]
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets
