"""Sockets for scripts: the calls of BSD sockets over a host in virtual time.

Just enough of a kernel's socket layer to ask a TCP the questions that scripts ask.  A stream's
connection is paused for as long as nobody reads, so octets that wait close the window, and closing
with some unread resets, as with sockets.  A call that must wait is a generator that yields; whoever
runs it asks again after each turn of the host.

A cork (TCP_CORK, MSG_MORE) is this layer's own, as it could be any application's: what is no full
segment is kept here, and given to the connection when the cork is pulled, when an acknowledgment
comes, or after a retransmission timeout, as Linux does.

What the host has no counterpart for (a send buffer counted in Linux's own structures, zero copy,
error queues) raises `InapplicableError`.  Imports `net`.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Final

from appliance.fuzz.script.environment import Environment
from appliance.fuzz.script.faults import InapplicableError
from appliance.fuzz.script.stage import MICRO, Stage
from appliance.net.syn_queue import Listener
from appliance.net.tcb import TcpSettings
from appliance.net.tcp import Connection
from appliance.net.tcp_state import CLOSED, ESTABLISHED, SYN_RECEIVED, SYN_SENT
from appliance.net.udp import Endpoint, UdpSocket
from appliance.net.wire.address import from_text

O_NONBLOCK: Final = 0o4000
O_RDWR: Final = 2
POLLIN: Final = 0x01
POLLOUT: Final = 0x04
POLLERR: Final = 0x08
POLLHUP: Final = 0x10
POLLRDHUP: Final = 0x2000
MAX_WAITING: Final = 4096  # connections that nobody accepts: more than any script opens

Waiting = Generator[None, None, int]


class ErrnoError(Exception):
    """A call fails with this errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, str(number)))
        self.number = number


class Stream:
    """One connection as its socket sees it; a `TcpUser`."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.unread = bytearray()  # the rest of a piece of which some was read
        self.established = False
        self.eof = False
        self.closed = False
        self.error: OSError | None = None
        self.edges = 0  # counts what an edge-triggered watcher would be told of
        self._wanted = 0

    # -- what the connection tells

    def tcp_established(self) -> None:
        """The handshake is complete."""
        self.established = True
        self.edges += 1

    def tcp_data(self, data: bytes) -> None:
        """Octets arrived and somebody reads; what is too much is kept."""
        self.unread += data
        if len(self.unread) >= self._wanted and self.connection is not None:
            self.connection.pause()

    def tcp_eof(self) -> None:
        """The peer will send no more."""
        self.eof = True
        self.edges += 1

    def tcp_writable(self) -> None:
        """There is room."""
        self.edges += 1

    def tcp_closed(self, error: Exception | None) -> None:
        """The connection is over."""
        self.closed = True
        self.edges += 1
        if self.connection is not None:
            # A kernel lets them be read all the same (RFC 9293 §3.10.7.4 would flush them).
            self.unread += b"".join(self.connection._held)
        if isinstance(error, OSError):
            self.error = error

    # -- what the socket asks

    def available(self) -> int:
        """Octets that can be read at once."""
        held = self.connection._held_octets if self.connection is not None else 0
        return len(self.unread) + held

    def finished(self) -> bool:
        """Whether the peer has ended its stream, read to the end or not."""
        connection = self.connection
        return self.eof or (
            connection is not None and 0 <= connection._peer_fin < connection.rcv_nxt
        )

    def take(self, stage: Stage, size: int) -> bytes:
        """Read up to `size` octets that are there."""
        if len(self.unread) < size and self.connection is not None:
            self._wanted = size
            self.connection.resume()
            stage.flush()
            self.connection.pause()
        data = bytes(self.unread[:size])
        del self.unread[:size]
        return data


@dataclass
class Socket:
    """One descriptor."""

    stage: Stage
    settings: TcpSettings
    kind: str = "tcp"
    flags: int = O_RDWR
    address: str = ""
    port: int = 0
    listener: Listener | None = None
    waiting: deque[Stream] = field(default_factory=deque)
    stream: Stream | None = None
    datagrams: UdpSocket | None = None
    inbox: deque[tuple[bytes, Endpoint]] = field(default_factory=deque)
    read_shut: bool = False
    write_shut: bool = False
    told: OSError | None = None  # an error that the application has been told of
    sndbuf: int = 0  # octets; 0: as much as there is
    inq: bool = False
    options: dict[tuple[int, int], int] = field(default_factory=dict)
    fast: Environment | None = None  # where tcp_fastopen stands (RFC 7413)
    fast_connect: bool = False  # TCP_FASTOPEN_CONNECT: connect() leaves the SYN to the first write
    deferred: tuple[str, int] | None = None  # whom it would have gone to
    fast_keys: tuple[bytes, ...] = ()  # TCP_FASTOPEN_KEY
    cork: bool = False  # TCP_CORK
    held: int = 0  # octets behind the cork
    _held_until: int = 0  # microseconds of the script
    _held_una: int = 0  # SND.UNA when the first of them came

    @property
    def blocking(self) -> bool:
        """Whether calls wait."""
        return not self.flags & O_NONBLOCK

    def connection(self) -> Connection | None:
        """The connection of a stream socket, if it has one."""
        return self.stream.connection if self.stream else None

    def _again(self) -> None:
        if not self.blocking:
            raise ErrnoError(errno.EAGAIN)

    # -- opening

    def listen(self, backlog: int) -> int:
        """Passive OPEN."""
        if self.port == 0:
            raise InapplicableError("listening without an address of its own")

        def accept(connection: Connection) -> Stream:
            stream = Stream()
            stream.connection = connection
            connection.pause()
            if len(self.waiting) < MAX_WAITING:
                self.waiting.append(stream)
            return stream

        if (
            self.fast is not None
            and self.fast.serves_every_listener
            and not self.settings.fast_open
        ):
            self.settings = replace(self.settings, fast_open=max(backlog, 1))
        if self.listener is None:
            self.listener = self.stage.host.tcp_listen(
                self.address, self.port, accept, backlog=max(backlog, 1), settings=self.settings
            )
            self.listener.opens.keys = self.fast_keys
        return 0

    def accept(self) -> Generator[None, None, Socket]:
        """Take the oldest connection whose handshake is complete."""
        if self.listener is None:
            raise ErrnoError(errno.EINVAL)
        while True:
            for stream in self.waiting:
                if stream.established:
                    self.waiting.remove(stream)
                    return Socket(self.stage, self.settings, stream=stream, sndbuf=self.sndbuf)
            self._again()
            yield

    def connect(self, remote: str, port: int) -> Waiting:
        """Active OPEN."""
        if self.kind == "udp":
            return 0
        if self.deferred is not None:
            raise ErrnoError(errno.EISCONN)
        if self.fast_connect and self.stream is None:
            if self.stage.host.tcp.fast_servers.knows_cookie(from_text(remote)):
                self.deferred = (remote, port)
                return 0
            settings = self._fast_settings()
        else:
            settings = self.settings
        stream, _ = self._open(remote, port, settings)
        self.stage.flush()
        if not self.blocking:
            raise ErrnoError(errno.EINPROGRESS)
        while not stream.established:
            self._fail()
            yield
        return 0

    def _open(self, remote: str, port: int, settings: TcpSettings) -> tuple[Stream, Connection]:
        """Begin to open; the SYN leaves with the next flush."""
        if self.stream is not None:
            raise ErrnoError(errno.EISCONN if self.stream.established else errno.EALREADY)
        stream = Stream()
        try:
            connection = self.stage.host.tcp_connect(
                remote, port, stream, local=self.address, local_port=self.port, settings=settings
            )
        except OSError as error:
            raise ErrnoError(error.errno or errno.EINVAL) from None
        self.stream, stream.connection = stream, connection
        connection.pause()
        return stream, connection

    # -- opening with a write (RFC 7413)

    def _fast_settings(self) -> TcpSettings:
        """What a connection has that opens fast; raises EOPNOTSUPP."""
        if self.fast is None or not self.fast.fast_open_connects:
            raise ErrnoError(errno.EOPNOTSUPP)
        return replace(
            self.settings, fast_open=1, fast_open_cookies=not self.fast.fast_open_without_cookies
        )

    def opens_fast(self, asked: bool) -> bool:
        """Tell whether a write is to open the connection; `asked` for by MSG_FASTOPEN."""
        if self.deferred is not None:
            return True
        return asked and self.kind == "tcp" and (self.stream is None or not self.stream.established)

    def write_fast(self, size: int, remote: str, port: int, *, blocking: bool) -> Waiting:
        """Open, with as many of `size` octets in the SYN as may go with it."""
        stream, connection = self._open(remote, port, self._fast_settings())
        self.deferred = None
        if blocking:
            connection.send(bytes(size))
            self.stage.flush()
            while not stream.established:
                self._fail()
                yield
            return size
        limit = connection.path.mtu - connection.path.overhead - 20
        limit = min(connection._settings.max_segment or limit, limit)
        room = min(connection.fast.room(limit), size) if connection.fast is not None else 0
        connection.send(bytes(room))
        self.stage.flush()
        if not room:
            raise ErrnoError(errno.EINPROGRESS)
        return room

    def _fail(self) -> None:
        """Raise what ended the connection, once."""
        stream = self.stream
        if stream is not None and stream.error is not None and self.told is not stream.error:
            self.told = stream.error
            raise ErrnoError(stream.error.errno or errno.ECONNRESET)

    # -- octets

    def write(self, size: int, *, bounded: bool = True, more: bool = False) -> Waiting:
        """Queue `size` octets of nought; `bounded`: by what Linux's buffer would take.

        `more` are to follow (MSG_MORE): what is no full segment waits for them.
        """
        stream = self.stream
        connection = self.connection()
        if stream is None or connection is None:
            raise ErrnoError(errno.ENOTCONN if self.kind == "tcp" else errno.EDESTADDRREQ)
        self._fail()
        if self.write_shut or stream.closed or connection.state == CLOSED:
            raise ErrnoError(errno.EPIPE)
        while connection.state in (SYN_SENT, SYN_RECEIVED) and not stream.established:
            self._again()
            yield
            self._fail()
        if bounded and self.sndbuf and size > self.sndbuf // 2:
            raise InapplicableError(
                "how much fits into SO_SNDBUF is counted in Linux's own structures"
            )
        if more or self.cork:
            whole = (self.held + size) // connection.mss * connection.mss
            rest = self.held + size - whole
            if whole or not self.held:
                self._held_una = connection.snd_una
                self._held_until = self.stage.now + round(connection.repair.rtt.rto * MICRO)
            self.held = rest
            if rest:
                self.stage.alarms[id(self)] = (self._held_until, self.pull)
            size, total = whole, size
        else:
            size, total = size + self.held, size
            self.held = 0
        if size:
            connection.send(bytes(size))
            self.stage.flush()
        return total

    def set_cork(self, cork: bool) -> None:
        """TCP_CORK: put it in, or pull it."""
        self.cork = cork
        if not cork:
            self.pull()

    def pull(self, *, ends: bool = False) -> None:
        """Give the connection what the cork has held back; `ends`: a FIN follows at once."""
        self.stage.alarms.pop(id(self), None)
        connection, octets = self.connection(), self.held
        self.held = 0
        if octets and connection is not None and connection.state != CLOSED:
            connection.send(bytes(octets))
            if not ends:
                self.stage.flush()

    def acknowledged(self) -> None:
        """After a turn of the host: an acknowledgment lets out what is held."""
        connection = self.connection()
        if self.held and connection is not None and connection.snd_una > self._held_una:
            self.pull()

    def read(self, size: int) -> Waiting:
        """Read up to `size` octets; 0 at the end of the stream."""
        data = yield from self.receive(size)
        return len(data)

    def receive(self, size: int) -> Generator[None, None, bytes]:
        """Read up to `size` octets."""
        stream = self.stream
        if self.deferred is not None:
            self._again()
        if stream is None:
            raise ErrnoError(errno.ENOTCONN)
        while not stream.available():
            if stream.error is not None and self.told is not stream.error:
                self._fail()
            if stream.eof or stream.closed or self.read_shut:
                return b""
            self._again()
            yield
        return stream.take(self.stage, size)

    def shutdown(self, how: int) -> int:
        """SHUT_RD (0), SHUT_WR (1), SHUT_RDWR (2)."""
        connection = self.connection()
        if self.stream is None or connection is None or not self.stream.established:
            raise ErrnoError(errno.ENOTCONN)
        if how not in (0, 1, 2):
            raise ErrnoError(errno.EINVAL)
        if how != 1:
            self.read_shut = True
        if how != 0 and not self.write_shut:
            self.pull(ends=True)
            self.write_shut = True
            connection.shutdown()
            self.stage.flush()
        return 0

    def close(self) -> int:
        """Give the descriptor up."""
        if self.listener is not None:
            self.listener.close()
            for stream in self.waiting:
                if stream.connection is not None:
                    stream.connection.abort()
        self.pull(ends=True)
        connection = self.connection()
        if self.stream is not None and connection is not None:
            linger = self.options.get((1, 13))
            if self.stream.unread or linger == 0:
                connection.abort()  # RFC 2525 §2.17: unread octets make it a reset
            else:
                connection.close()
        if self.datagrams is not None:
            self.datagrams.close()
        self.stage.flush()
        return 0

    # -- looking

    def events(self) -> int:
        """What poll would tell now."""
        found = 0
        if self.listener is not None:
            return POLLIN if any(stream.established for stream in self.waiting) else 0
        stream = self.stream
        if self.kind == "udp":
            return POLLOUT | (POLLIN if self.inbox else 0)
        if stream is None:
            return POLLOUT if self.deferred is not None else POLLOUT | POLLHUP
        ended = stream.finished() or self.read_shut or stream.closed
        if stream.available() or ended:
            found |= POLLIN
        if ended:
            found |= POLLRDHUP
        if stream.error is not None and self.told is not stream.error:
            found |= POLLERR
        if stream.closed or (ended and self.write_shut):
            found |= POLLHUP
        if stream.established or stream.closed:
            found |= POLLOUT
        return found

    # -- options

    def set_option(self, settings: dict[str, object]) -> None:
        """Change `TcpSettings`, also those of a connection that exists."""
        self.settings = replace(self.settings, **settings)  # type: ignore[arg-type]
        if self.listener is not None:
            self.listener.settings = self.settings
        connection = self.connection()
        if connection is not None:
            connection._settings = replace(connection._settings, **settings)  # type: ignore[arg-type]
            if "nodelay" in settings:
                connection.nodelay = bool(settings["nodelay"])
                if connection.nodelay:
                    self.pull()  # as in Linux, corked or not
            if settings.keys() & {"keepalive", "keepalive_interval"} and (
                connection.state == ESTABLISHED
            ):
                connection._set_keepalive(self.stage.clock())
            self.stage.host.touch(connection)
            self.stage.flush()

    # -- UDP: a `UdpUser`

    def udp_datagram(self, data: bytes, source: Endpoint) -> None:
        """A datagram arrived; what nobody reads is lost beyond a bound, as with sockets."""
        if len(self.inbox) < MAX_WAITING:
            self.inbox.append((data, source))

    def udp_error(self, error: OSError) -> None:
        """An ICMP error came for this socket."""
        self.told = error
