"""A TCP connection with the face of `asyncio.Transport`.

The transport is the connection's user: the host calls `tcp_...` inside a turn, and these call the
protocol at once, without a task, a future or a copy between. What asyncio promises to protocols is
kept here: `connection_made` first and `connection_lost` last and once (from the loop, never from
inside another callback), flow control by `pause_writing` and `resume_writing`, and a callback that
raises loses its own connection and nothing else.

"Buffered", for the write limits, means queued and not yet transmitted once; what is in flight is
TCP's affair. No state of TCP is kept here. May import the host and asyncio.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from appliance.net.tcp import Connection
from appliance.net.tcp_info import snapshot

logger = logging.getLogger("appliance.net")

HIGH_WATER: Final = 64 * 1024
"""Octets of write buffer above which the protocol is paused; asyncio's default."""
LOUD_WRITES: Final = 5
"""Writes into a lost connection that pass in silence; asyncio's constant of the same purpose."""

Buffer = bytes | bytearray | memoryview
ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Owner(Protocol):
    """Who counts transports: a server those it accepted, the stack those it opened."""

    def attach(self, transport: StreamTransport) -> None:
        """Take notice of a transport whose protocol has been made."""
        ...

    def detach(self, transport: StreamTransport) -> None:
        """Forget a transport; its `connection_lost` has been called."""
        ...


class StreamTransport(asyncio.Transport):
    """asyncio's transport over one of our connections; made by the stack, never by hand."""

    __slots__ = (
        "__weakref__",
        "_closing",
        "_conn",
        "_data_received",
        "_ended",
        "_eof_held",
        "_eof_sent",
        "_factory",
        "_held",
        "_high_water",
        "_loop",
        "_lost",
        "_lost_writes",
        "_low_water",
        "_owner",
        "_protocol",
        "_protocol_paused",
        "_reading_paused",
        "_waiter",
        "_write_shut",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: ProtocolFactory,
        owner: Owner,
        connection: Connection | None = None,
        waiter: asyncio.Future[None] | None = None,
    ) -> None:
        self._loop = loop
        self._factory: ProtocolFactory | None = factory  # until the handshake is done
        self._owner = owner
        self._conn: Connection = connection  # type: ignore[assignment]  # bind() comes at once
        self._waiter = waiter  # who awaits the active open, until it is decided
        self._protocol: Any = None
        self._data_received: Callable[[bytes], object] = _unconnected
        self._high_water = HIGH_WATER  # octets
        self._low_water = HIGH_WATER // 4  # octets
        self._protocol_paused = False  # pause_writing() is out and resume_writing() is not
        self._reading_paused = False
        self._held: memoryview | None = None  # data of a paused BufferedProtocol
        self._eof_held = False  # the peer's end, while reading is paused
        self._ended = False  # both streams have, before the protocol had taken all
        self._eof_sent = False  # write_eof() was called
        self._closing = False  # close(), abort() or the end of the connection
        self._write_shut = False  # _eof_sent or _closing: write() takes nothing more
        self._lost = False  # connection_lost() is queued or done
        self._lost_writes = 0  # writes after the end

    def bind(self, connection: Connection) -> None:
        """Say which connection this is, for an active open that begins with its user."""
        self._conn = connection

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open"
        conn = self._conn
        return (
            f"<{type(self).__name__} {state} local={conn.local} remote={conn.remote} "
            f"unsent={self.get_write_buffer_size()}>"
        )

    # The host's upcalls, inside a turn.

    def tcp_established(self) -> None:
        """The handshake is done: make the protocol and introduce the transport."""
        factory, self._factory = self._factory, None
        waiter, self._waiter = self._waiter, None
        assert factory is not None
        try:
            protocol = factory()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._closing = self._write_shut = self._lost = True
            self._conn.abort()
            if waiter is None:
                self._report(exc, "Error on transport creation for incoming connection")
            elif not waiter.done():
                waiter.set_exception(exc)
            return
        # As asyncio does on its sockets: what a protocol writes in one turn leaves in one piece
        # anyway, so Nagle's algorithm could only delay it.
        self._conn.nodelay = True
        self._owner.attach(self)
        self.set_protocol(protocol)
        try:
            protocol.connection_made(self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal error: protocol.connection_made() call failed.")
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def tcp_data(self, data: bytes) -> None:
        """Octets in order, straight to the protocol."""
        try:
            self._data_received(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal error: protocol.data_received() call failed.")

    def tcp_eof(self) -> None:
        """The peer has said all: ask the protocol whether this side goes on."""
        if self._reading_paused or self._held is not None:
            self._eof_held = True
            return
        try:
            keep_open = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal error: protocol.eof_received() call failed.")
            return
        if not keep_open:
            self.close()

    def tcp_writable(self) -> None:
        """The write buffer has drained to the low-water mark."""
        self._protocol_paused = False
        try:
            self._protocol.resume_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "protocol.resume_writing() failed")

    def tcp_closed(self, error: Exception | None) -> None:
        """The connection is over, or never came to be."""
        if error is None and self._eof_held and not self._closing:
            self._ended = True  # well; but what the protocol has paused for is its own still
            return
        self._closing = self._write_shut = True
        if self._factory is None:
            self._lose(error)
        else:
            self._never_was(error)

    # Writing.

    def write(self, data: Buffer) -> None:
        """Queue octets; raises TypeError for anything else, RuntimeError after `write_eof`."""
        if type(data) is not bytes:
            data = _frozen(data)
        if self._write_shut:
            self._refuse_write()
            return
        if not data:
            return
        conn = self._conn
        conn.send(data)
        if conn.unsent > self._high_water and not self._protocol_paused:
            self._pause_protocol()

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        """Queue several buffers one after the other, without joining them."""
        pieces = [data if type(data) is bytes else _frozen(data) for data in list_of_data]
        if self._write_shut:
            self._refuse_write()
            return
        conn = self._conn
        for piece in pieces:
            if piece:
                conn.send(piece)
        if conn.unsent > self._high_water and not self._protocol_paused:
            self._pause_protocol()

    def write_eof(self) -> None:
        """Close the sending half after what is queued; receiving goes on."""
        if self._write_shut:
            return
        self._eof_sent = self._write_shut = True
        self._conn.shutdown()

    def can_write_eof(self) -> bool:
        """TCP can half-close."""
        return True

    def get_write_buffer_size(self) -> int:
        """Octets queued and not yet transmitted."""
        return 0 if self._lost else self._conn.unsent

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """(low, high) water marks in octets."""
        return self._low_water, self._high_water

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the water marks in octets; ValueError unless high >= low >= 0."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high_water = high
        self._low_water = low
        if self._closing or self._protocol is None:
            return
        if self._protocol_paused:
            self._conn.notify_below = low
        elif self._conn.unsent > high:
            self._pause_protocol()

    def _pause_protocol(self) -> None:
        self._protocol_paused = True
        self._conn.notify_below = self._low_water
        try:
            self._protocol.pause_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            # As asyncio: the write itself has succeeded, so the connection lives.
            self._report(exc, "protocol.pause_writing() failed")

    def _refuse_write(self) -> None:
        if self._eof_sent:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._lost_writes >= LOUD_WRITES:
            logger.warning("write() on a connection that is lost: %r", self)
        self._lost_writes += 1

    # Reading.

    def is_reading(self) -> bool:
        """Whether data may be delivered."""
        return not self._closing and not self._reading_paused

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`; the receive window closes as it fills."""
        if self._closing or self._reading_paused:
            return
        self._reading_paused = True
        self._conn.pause()

    def resume_reading(self) -> None:
        """Deliver again, beginning with the next turn of the loop."""
        if self._closing or not self._reading_paused:
            return
        self._reading_paused = False
        if self._held is None and not self._eof_held:
            self._conn.resume()
        else:
            self._loop.call_soon(self._release)

    # Protocol and information.

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that receives."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol receive from now on."""
        self._protocol = protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            self._data_received = self._feed
        else:
            self._data_received = protocol.data_received  # type: ignore[attr-defined]

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername` and `sockname` as (address, port), `tcp_info` as a `TcpInfo` of now.

        `tcp_congestion` is the name of the congestion control, as of Linux's socket option.
        Anything else is the default.
        """
        if name == "peername":
            return self._conn.remote
        if name == "sockname":
            return self._conn.local
        if name == "tcp_info":
            return snapshot(self._conn, time.monotonic())
        if name == "tcp_congestion":
            return self._conn.repair.cc.name
        return default

    # BufferedProtocol.

    def _feed(self, data: bytes) -> None:
        """Copy into the protocol's own buffer; it may pause, close or be replaced in between."""
        view = memoryview(data)
        while view and not self._closing:
            if self._reading_paused:
                self._held = view
                return
            protocol = self._protocol
            if not isinstance(protocol, asyncio.BufferedProtocol):
                protocol.data_received(bytes(view))
                return
            buffer = memoryview(protocol.get_buffer(-1))
            room = len(buffer)
            if not room:
                raise RuntimeError("get_buffer() returned an empty buffer")
            size = min(room, len(view))
            buffer[:size] = view[:size]
            protocol.buffer_updated(size)
            view = view[size:]

    def _release(self) -> None:
        """Hand over what was held while reading was paused, then let the connection go on."""
        if not self.is_reading():
            return
        held, self._held = self._held, None
        if held is not None:
            self.tcp_data(held.tobytes())
        if not self.is_reading():
            return
        if self._eof_held:
            self._eof_held = False
            self.tcp_eof()
            if self._ended:
                self.close()
        else:
            self._conn.resume()

    # The end.

    def is_closing(self) -> bool:
        """Whether the transport is closing or closed."""
        return self._closing

    def close(self) -> None:
        """Send what is queued, then FIN; `connection_lost(None)` follows, and no other callback."""
        if self._closing:
            return
        if self._factory is not None:
            self._force_close(None)
            return
        self._closing = self._write_shut = True
        self._conn.close()
        if self._ended:
            self._lose(None)

    def abort(self) -> None:
        """Drop what is queued and reset the connection; `connection_lost(None)` follows."""
        self._force_close(None)

    def _force_close(self, error: BaseException | None) -> None:
        if self._lost:
            return
        self._closing = self._write_shut = True
        self._conn.abort()
        if self._factory is None:
            self._lose(error)
        else:
            self._never_was(error)

    def _never_was(self, error: BaseException | None) -> None:
        """Tell who awaits the active open that nothing came of it; there is no protocol to tell."""
        self._lost = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error or ConnectionAbortedError("closed during the handshake"))

    def _lose(self, error: BaseException | None) -> None:
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._call_connection_lost, error)

    def _call_connection_lost(self, error: BaseException | None) -> None:
        self._held = None
        try:
            self._protocol.connection_lost(error)
        finally:
            # No cycle is left for the collector: a busy server ends thousands of connections a
            # second.
            self._protocol = None
            self._data_received = _unconnected
            self._conn.user = _NOBODY
            self._owner.detach(self)

    def _fatal_error(self, error: BaseException, message: str) -> None:
        self._report(error, message)
        self._force_close(error)

    def _report(self, error: BaseException, message: str) -> None:
        self._loop.call_exception_handler(
            {
                "message": message,
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )


class _Nobody:
    """The user of a connection that has told its last; nothing is called any more."""

    def tcp_established(self) -> None: ...
    def tcp_data(self, data: bytes) -> None: ...
    def tcp_eof(self) -> None: ...
    def tcp_writable(self) -> None: ...
    def tcp_closed(self, error: Exception | None) -> None: ...


_NOBODY: Final = _Nobody()


def _unconnected(data: bytes) -> None:
    """Where data goes without a protocol: nowhere."""


def _frozen(data: Buffer) -> bytes | memoryview:
    """Octets that nobody changes under the send queue; only a view of bytes is taken uncopied."""
    if isinstance(data, memoryview):
        if type(data.obj) is bytes and data.c_contiguous:
            return data if data.itemsize == 1 and data.ndim == 1 else data.cast("B")
        return data.tobytes()
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
