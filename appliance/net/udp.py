"""UDP sockets: ports, and where their datagrams go (RFC 768).

A server answers the same few resolvers over and over, so a socket keeps a header template per
correspondent.  The table is bounded; the oldest goes first, and costs its owner two microseconds
when it writes again.

It imports the path and its host's interface.
"""

from __future__ import annotations

import errno
from typing import Final, Protocol

from appliance.net.path import Ipv4UdpPath

# Correspondents remembered by one socket: a busy authoritative server's resolvers of a few
# minutes, at about 700 octets each.
MAX_PATHS: Final = 4096

Endpoint = tuple[str, int]


class UdpUser(Protocol):
    """The application's side of a socket."""

    def udp_datagram(self, data: bytes, source: Endpoint) -> None:
        """A datagram arrived."""

    def udp_error(self, error: OSError) -> None:
        """An ICMP error told that a datagram of ours did not arrive."""


class UdpHost(Protocol):
    """What a socket asks of its host."""

    def udp_path(self, socket: UdpSocket, destination: Endpoint) -> Ipv4UdpPath:
        """Find the way to `destination`; OSError(ENETUNREACH) when there is none."""
        ...

    def udp_transmit(self, path: Ipv4UdpPath, head: bytes, payload: bytes) -> None:
        """Send one datagram."""

    def udp_close(self, socket: UdpSocket) -> None:
        """Give the port back."""


class UdpSocket:
    """One bound port; `address` is "" for any of ours."""

    __slots__ = ("_closed", "_host", "_paths", "address", "flows", "port", "user")

    def __init__(self, host: UdpHost, address: str, port: int, user: UdpUser) -> None:
        self._host = host
        self.address = address
        self.port = port
        self.user = user
        self._paths: dict[Endpoint, Ipv4UdpPath] = {}
        self.flows: set[bytes] = set()  # the host's keys of who writes to us; it bounds them
        self._closed = False

    def send(self, data: bytes, destination: Endpoint) -> None:
        """Send one datagram now.

        Raises OSError(EMSGSIZE) when it does not fit one packet, OSError(ENETUNREACH) without a
        route, ValueError for what is not an address.
        """
        path = self._paths.get(destination)
        if path is None:
            if self._closed:
                raise OSError(errno.EBADF, "the socket is closed")
            path = self._host.udp_path(self, destination)
            self.remember(destination, path)
        length = len(data)
        if length + 28 > path.mtu:
            raise OSError(errno.EMSGSIZE, f"a datagram of {length} octets; {path.mtu - 28} fit")
        self._host.udp_transmit(path, path.head(length), data)

    def remember(self, source: Endpoint, path: Ipv4UdpPath) -> None:
        """Send to `source` by `path` from now on."""
        paths = self._paths
        if len(paths) >= MAX_PATHS and source not in paths:
            del paths[next(iter(paths))]
        paths[source] = path

    def close(self) -> None:
        """Give the port back; nothing more arrives."""
        if not self._closed:
            self._closed = True
            self._paths.clear()
            self._host.udp_close(self)


class UdpFlow:
    """Who sends from one remote port to one of our sockets."""

    __slots__ = ("path", "socket", "source")

    def __init__(self, socket: UdpSocket, source: Endpoint, path: Ipv4UdpPath) -> None:
        self.socket = socket
        self.source = source
        self.path = path  # back, from the address that was asked
