"""A UDP socket of ours with the face of `asyncio.DatagramTransport`.

A datagram goes from the host's turn to `datagram_received` and the answer back into the same turn:
one call each way. A protocol that has a method `answer_datagram(data, addr)` is asked by that
instead, and what it returns (None: nothing) goes back at the end of the turn, with what else goes
there. If it has `shorten_datagram(data)` besides, that is asked for something shorter (None: there
is nothing) when an answer would leave in fragments because of what a router has said. May import
the host and asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from appliance.net.udp import UdpSocket

Address = tuple[str, int]


class DatagramTransport(asyncio.DatagramTransport):
    """asyncio's datagram transport over one of our UDP sockets; made by the stack.

    With a `remote` address it is connected: other senders are not heard, other destinations are
    a ValueError.
    """

    __slots__ = (
        "_closing",
        "_datagram_received",
        "_forget",
        "_loop",
        "_protocol",
        "_remote",
        "_socket",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        remote: Address | None,
        forget: Callable[[DatagramTransport], object],
    ) -> None:
        self._loop = loop
        self._remote = remote
        self._forget = forget  # called when connection_lost() has been
        self._protocol: Any = None
        self._datagram_received: Callable[[bytes, Address], object] = _unconnected
        self._socket: UdpSocket
        self._closing = False

    def bind(self, socket: UdpSocket) -> None:
        """Say which socket this is; the socket begins with its user."""
        self._socket = socket

    def __repr__(self) -> str:
        state = "closed" if self._closing else "open"
        return f"<{type(self).__name__} {state} local={self.get_extra_info('sockname')}>"

    # The host's upcalls, inside a turn.

    def udp_datagram(self, data: bytes, source: Address) -> None:
        """A datagram, straight to the protocol."""
        if self._remote is not None and source != self._remote:
            return
        try:
            self._datagram_received(data, source)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report(exc, "Error in protocol.datagram_received()")

    def udp_error(self, error: OSError) -> None:
        """What ICMP said about something that was sent."""
        if self._closing:
            return
        try:
            self._protocol.error_received(error)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report(exc, "Error in protocol.error_received()")

    def _failed(self, error: Exception) -> None:
        self._report(error, "Error in protocol.answer_datagram()")

    # asyncio's face.

    def sendto(  # type: ignore[override]  # addresses here are of one kind only
        self, data: bytes | bytearray | memoryview, addr: Address | None = None
    ) -> None:
        """Send one datagram at once; ValueError without a destination or for one that is not ours.

        What the host refuses (too long, no route) is told to the protocol's `error_received`.
        """
        if type(data) is not bytes:
            if not isinstance(data, bytes | bytearray | memoryview):
                raise TypeError(
                    f"data argument must be a bytes-like object, not {type(data).__name__!r}"
                )
            data = bytes(data)
        if self._closing:
            return
        if addr is None or self._remote is not None:
            addr = self._destination(addr)
        try:
            self._socket.send(data, addr)
        except OSError as exc:
            self._protocol.error_received(exc)

    def _destination(self, addr: Address | None) -> Address:
        remote = self._remote
        if remote is None:
            raise ValueError("a transport without a remote address needs a destination")
        if addr is not None and addr != remote:
            raise ValueError(f"Invalid address: must be None or {remote}")
        return remote

    def get_write_buffer_size(self) -> int:
        """0: a datagram is sent or dropped at once."""
        return 0

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that receives."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol receive from now on."""
        self._protocol = protocol
        self._datagram_received = protocol.datagram_received  # type: ignore[attr-defined]
        if self._remote is None:
            self._socket.answer_by(
                getattr(protocol, "answer_datagram", None),
                self._failed,
                getattr(protocol, "shorten_datagram", None),
            )

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername` and `sockname` as (address, port); anything else is the default."""
        if name == "sockname":
            return self._socket.address, self._socket.port
        if name == "peername":
            return self._remote if self._remote is not None else default
        return default

    def is_closing(self) -> bool:
        """Whether the transport is closing or closed."""
        return self._closing

    def close(self) -> None:
        """Give the port back; `connection_lost(None)` follows."""
        if self._closing:
            return
        self._closing = True
        self._datagram_received = _unconnected
        self._socket.close()
        self._loop.call_soon(self._call_connection_lost)

    def abort(self) -> None:
        """The same as `close`: nothing is buffered."""
        self.close()

    def _call_connection_lost(self) -> None:
        protocol, self._protocol = self._protocol, None
        try:
            protocol.connection_lost(None)
        finally:
            self._forget(self)

    def _report(self, error: BaseException, message: str) -> None:
        self._loop.call_exception_handler(
            {
                "message": message,
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )


def _unconnected(data: bytes, source: Address) -> None:
    """Where datagrams go without a protocol: nowhere."""
