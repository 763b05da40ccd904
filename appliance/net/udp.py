"""UDP sockets: ports, and where their datagrams go (RFC 768).

A server answers the same few resolvers over and over, so a socket keeps a header template per
correspondent.  The table is bounded; the oldest goes first, and costs its owner two microseconds
when it writes again.

Who has an answer to a datagram at once gives the socket an `answerer`.  Its answers leave at the
end of the turn, those to one correspondent together where the link can do that, and not always in
the order of the questions: UDP promises none.

It imports the path and its host's interface.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from typing import Final, Protocol

from appliance.net.path import UDP, UdpPath

# Correspondents remembered by one socket: a busy authoritative server's resolvers of a few
# minutes, at about 700 octets each.
MAX_PATHS: Final = 4096

Endpoint = tuple[str, int]
Answerer = Callable[[bytes, Endpoint], bytes | None]
"""A datagram and its source in, what to send back at once out; None: nothing."""


class UdpUser(Protocol):
    """The application's side of a socket."""

    def udp_datagram(self, data: bytes, source: Endpoint) -> None:
        """A datagram arrived."""

    def udp_error(self, error: OSError) -> None:
        """An ICMP error told that a datagram of ours did not arrive."""


class UdpHost(Protocol):
    """What a socket asks of its host."""

    def udp_path(self, socket: UdpSocket, destination: Endpoint) -> UdpPath:
        """Find the way to `destination`; OSError(ENETUNREACH) when there is none."""
        ...

    def udp_transmit(self, path: UdpPath, head: bytes, payload: bytes) -> None:
        """Send one datagram."""

    def udp_cut(self, path: UdpPath, payload: bytes) -> None:
        """Send one datagram that does not fit a packet, in fragments; OSError(EMSGSIZE)."""

    def udp_close(self, socket: UdpSocket) -> None:
        """Give the port back."""


class UdpSocket:
    """One bound port; `address` is "" for any of ours."""

    __slots__ = (
        "_closed",
        "_host",
        "_paths",
        "address",
        "answerer",
        "flows",
        "on_failure",
        "port",
        "shorten",
        "user",
    )

    def __init__(self, host: UdpHost, address: str, port: int, user: UdpUser) -> None:
        self._host = host
        self.address = address
        self.port = port
        self.user = user
        self.answerer: Answerer | None = None
        """Asked in place of `user.udp_datagram`, if set; see `answer_by`."""
        self.on_failure: Callable[[Exception], None] = _nothing
        self.shorten: Callable[[bytes], bytes | None] | None = None
        self._paths: dict[Endpoint, UdpPath] = {}
        self.flows: set[bytes] = set()  # the host's keys of who writes to us; it bounds them
        self._closed = False

    def send(self, data: bytes, destination: Endpoint) -> None:
        """Send one datagram now.

        Raises OSError(EMSGSIZE) when no packet can carry it, OSError(ENETUNREACH) without a
        route, ValueError for what is not an address.
        """
        path = self._paths.get(destination)
        if path is None:
            if self._closed:
                raise OSError(errno.EBADF, "the socket is closed")
            path = self._host.udp_path(self, destination)
            self.remember(destination, path)
        length = len(data)
        if length + path.overhead > path.mtu:
            self._host.udp_cut(path, data)
            return
        self._host.udp_transmit(path, path.head(length), data)

    def answer_by(
        self,
        answerer: Answerer | None,
        on_failure: Callable[[Exception], None],
        shorten: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        """Ask `answerer` from now on (None: the user again); `on_failure` hears what it raises.

        `shorten` is asked for what to send in place of an answer that a narrow path would cut.
        """
        self.answerer = answerer
        self.on_failure = on_failure
        self.shorten = shorten

    def remember(self, source: Endpoint, path: UdpPath) -> None:
        """Send to `source` by `path` from now on."""
        paths = self._paths
        if len(paths) >= MAX_PATHS and source not in paths:
            del paths[next(iter(paths))]
        paths[source] = path

    def unlearn(self, source: Endpoint) -> None:
        """Find the way anew to `source`, who has written again and perhaps elsewhere."""
        if self._paths:
            self._paths.pop(source, None)

    def knows(self, remote: Endpoint) -> bool:
        """Tell whether datagrams have been sent to `remote`, as far as remembered."""
        return remote in self._paths

    def paths(self) -> Collection[UdpPath]:
        """The ways to those who are remembered."""
        return self._paths.values()

    def forget(self, wanted: Callable[[UdpPath], bool]) -> None:
        """Find the way anew to those whose path `wanted` picks."""
        gone = [endpoint for endpoint, path in self._paths.items() if wanted(path)]
        for endpoint in gone:
            del self._paths[endpoint]

    def close(self) -> None:
        """Give the port back; nothing more arrives."""
        if not self._closed:
            self._closed = True
            self.answerer = None
            self._paths.clear()
            self._host.udp_close(self)


class UdpPeer:
    """An address that asks one of our ports from ports of its own: how each is answered."""

    __slots__ = ("path", "port", "socket", "text", "words")

    def __init__(self, socket: UdpSocket, text: str, path: UdpPath) -> None:
        self.socket = socket
        self.text = text
        self.path = path  # back, aimed at whichever port is answered; nobody else holds it
        self.port = path.local_port.to_bytes(2)  # ours, as it arrives
        self.words = words_of(path.local + path.remote)

    def leads_as(self, path: UdpPath) -> bool:
        """Tell whether a path is ours but for the remote port."""
        ours = self.path
        return (
            ours.remote == path.remote
            and ours.local == path.local
            and ours.local_port == path.local_port
        )


class UdpFlow:
    """Who sends from one remote port to one of our sockets."""

    __slots__ = ("answers", "path", "socket", "source", "words")

    def __init__(self, socket: UdpSocket, source: Endpoint, path: UdpPath) -> None:
        self.socket = socket
        self.source = source
        self.path = path  # back, from the address that was asked
        self.answers: list[bytes] = []  # of this turn; no more than a turn has frames
        self.words = words_of(path.local + path.remote)


def words_of(addresses: bytes) -> int:
    """Sum of the words of a plain IPv4 header that all datagrams between two addresses share.

    Version and length, protocol, addresses (RFC 1071 §1).
    """
    return 0x4500 + UDP + int.from_bytes(addresses) % 0xFFFF


def _nothing(error: Exception) -> None:
    """Stand in for whoever hears of failures."""
