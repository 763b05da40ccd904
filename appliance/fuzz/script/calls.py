"""The system calls of scripts, by name: arguments in, result or errno out.

Each is a generator (see `sockets`): it yields while it would wait.  A call, option or flag that
the stack has no counterpart for raises `InapplicableError`; a wrong out-parameter raises
`MismatchError`.  Imports the sockets and the symbols.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from appliance.fuzz.script import events as e
from appliance.fuzz.script.environment import Environment
from appliance.fuzz.script.faults import InapplicableError, MismatchError, Row
from appliance.fuzz.script.sockets import (
    O_NONBLOCK,
    O_RDWR,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    ErrnoError,
    Socket,
    Waiting,
)
from appliance.fuzz.script.stage import MICRO, Stage
from appliance.fuzz.script.symbols import member, names_in, number, number_of, written
from appliance.net.tcp_state import SYN_SENT

EPOLLET: Final = 1 << 31
EPOLLONESHOT: Final = 1 << 30
EPOLLEXCLUSIVE: Final = 1 << 28
DEFAULT_PORT: Final = 8080  # packetdrill's, for bind and connect alike
MAX_FDS: Final = 1024  # descriptors of one script; Linux's own soft limit

# Flags of send and receive calls that change nothing here, and those that ask for what is not.
_IGNORED_FLAGS: Final = {"MSG_NOSIGNAL"}
_ABSENT: Final = {
    "MSG_EOR": "MSG_EOR keeps the segments of one write apart, which RFC 9293 does not know",
    "MSG_ERRQUEUE": "Linux's socket error queue is not there",
    "MSG_FASTOPEN": "TCP Fast Open (RFC 7413) is not there",
    "MSG_MORE": "MSG_MORE corks Linux's sockets",
    "MSG_OOB": "urgent data stays in line (RFC 6093)",
    "MSG_PEEK": "MSG_PEEK is not there",
    "MSG_ZEROCOPY": "zero-copy sending is Linux's own",
    "SO_TIMESTAMPING": "Linux's time-stamping of sent packets is not there",
    "SO_ZEROCOPY": "zero-copy sending is Linux's own",
    "TCP_CORK": "TCP_CORK corks Linux's sockets",
    "TCP_FASTOPEN": "TCP Fast Open (RFC 7413) is not there",
    "TCP_FASTOPEN_CONNECT": "TCP Fast Open (RFC 7413) is not there",
    "TCP_FASTOPEN_KEY": "TCP Fast Open (RFC 7413) is not there",
    "TCP_MD5SIG": "TCP MD5 signatures (RFC 2385) are not there",
    "TCP_NOTSENT_LOWAT": "TCP_NOTSENT_LOWAT bounds Linux's send buffer",
    "TCP_SYNCNT": "the number of SYNs cannot be set for one socket",
}
# Options that may be set and mean nothing to one host on one link without a wall clock.
_HARMLESS: Final = {
    "SO_REUSEADDR", "SO_REUSEPORT", "SO_RCVLOWAT", "SO_RCVTIMEO", "SO_SNDTIMEO", "SO_KEEPALIVE",
    "IP_MTU_DISCOVER", "IP_FREEBIND", "IP_RECVERR", "IP_TTL", "SO_MARK", "SO_PRIORITY",
    "TCP_QUICKACK", "SO_BINDTODEVICE",
}  # fmt: skip


@dataclass
class Watch:
    """One descriptor in an epoll set."""

    wanted: int
    data: int
    last: int = 0  # what was told last, for edges
    edges: int = -1
    available: int = 0


@dataclass
class Epoll:
    """An epoll descriptor."""

    watches: dict[int, Watch] = field(default_factory=dict)


@dataclass
class Calls:
    """The process that a script is: its descriptors and what it may call."""

    stage: Stage
    environment: Environment
    here: str
    there: str
    listen_port: int = DEFAULT_PORT
    connect_port: int = DEFAULT_PORT
    table: dict[int, Socket | Epoll] = field(default_factory=dict)
    newest: Socket | None = None  # the socket that `tcpi_` names look at

    def start(self, call: e.Call) -> Waiting:
        """Begin a call; the generator returns its result, or raises `ErrnoError`."""
        method: Callable[[e.Call], Waiting | int] | None
        method = getattr(self, f"sys_{call.name}", None)
        if method is None:
            raise InapplicableError(f"the system call {call.name}() means nothing here")
        for name in set().union(*map(names_in, call.arguments), set()):
            if name in _ABSENT and not (name == "TCP_NOTSENT_LOWAT" and call.name == "getsockopt"):
                raise InapplicableError(_ABSENT[name])
        begun = method(call)
        return begun if isinstance(begun, int) else (yield from begun)

    # -- descriptors

    def _new(self, call: e.Call, thing: Socket | Epoll) -> int:
        """Bind `thing` to the number that the script gives it."""
        wanted = call.result
        fd = wanted if isinstance(wanted, int) and wanted >= 0 else -1
        if fd < 0:
            fd = next(n for n in range(3, MAX_FDS) if n not in self.table)
        self.table[fd] = thing
        return fd

    def _socket(self, call: e.Call) -> Socket:
        thing = self.table.get(number(call.arguments[0]))
        if not isinstance(thing, Socket):
            raise ErrnoError(errno.EBADF)
        return thing

    def _int(self, call: e.Call, index: int) -> int:
        if index >= len(call.arguments):
            raise MismatchError(f"{call.name}() wants more than {len(call.arguments)} arguments")
        return number(call.arguments[index])

    # -- making and ending sockets

    def sys_socket(self, call: e.Call) -> int:
        """socket(domain, type, protocol)."""
        kind, protocol = self._int(call, 1), self._int(call, 2)
        names = {(1, 6): "tcp", (1, 0): "tcp", (2, 17): "udp", (2, 0): "udp"}
        named = names.get((kind & 0xF, protocol))
        if named is None:
            raise InapplicableError(f"sockets of protocol {protocol} are not there")
        opened = Socket(
            self.stage, self.environment.tcp, named,
            flags=O_RDWR | (kind & O_NONBLOCK),
        )  # fmt: skip
        return self._new(call, opened)

    def sys_bind(self, call: e.Call) -> int:
        """bind(fd, address, length)."""
        bound = self._socket(call)
        bound.address, bound.port = self._address(call.arguments[1], "", self.listen_port)
        if bound.kind == "udp":
            bound.datagrams = self.stage.host.udp_bind(bound.address, bound.port, bound)
        return 0

    def _address(self, value: e.Value, host: str, port: int) -> tuple[str, int]:
        if not isinstance(value, e.Structure):
            return host, port
        named = member(value, "sin_port")
        if isinstance(named, e.Applied):
            port = number(named.arguments[0])
        address = member(value, "sin_addr")
        if isinstance(address, e.Applied) and isinstance(address.arguments[0], str):
            host = address.arguments[0]
        return ("" if host == "0.0.0.0" else host), port  # noqa: S104

    def sys_listen(self, call: e.Call) -> int:
        """listen(fd, backlog)."""
        return self._socket(call).listen(self._int(call, 1))

    def sys_accept(self, call: e.Call) -> Waiting:
        """accept(fd, address, length)."""
        accepted = yield from self._socket(call).accept()
        self.newest = accepted
        return self._new(call, accepted)

    sys_accept4 = sys_accept

    def sys_connect(self, call: e.Call) -> Waiting:
        """connect(fd, address, length)."""
        opened = self._socket(call)
        remote, port = self._address(call.arguments[1], self.there, self.connect_port)
        connecting = opened.connect(remote, port)
        self.newest = opened
        return (yield from connecting)

    def sys_shutdown(self, call: e.Call) -> int:
        """shutdown(fd, how)."""
        return self._socket(call).shutdown(self._int(call, 1))

    def sys_close(self, call: e.Call) -> int:
        """close(fd)."""
        thing = self.table.pop(number(call.arguments[0]), None)
        if thing is None:
            raise ErrnoError(errno.EBADF)
        if isinstance(thing, Socket):
            thing.close()
        return 0

    # -- octets out

    def sys_write(self, call: e.Call) -> Waiting:
        """write(fd, ..., count)."""
        self._buffer(call.arguments[1])
        return (yield from self._send(call, self._int(call, 2)))

    def _buffer(self, value: e.Value) -> None:
        if isinstance(value, e.Symbol) and value.name == "NULL":
            raise InapplicableError("there are no bad addresses in Python")

    def _send(self, call: e.Call, size: int) -> Waiting:
        sending = self._socket(call)
        wanted = call.result
        if isinstance(wanted, int) and 0 < wanted < size:
            raise InapplicableError(
                "how much fits into SO_SNDBUF is counted in Linux's own structures"
            )
        return (yield from sending.write(size))

    def sys_send(self, call: e.Call) -> Waiting:
        """send(fd, ..., count, flags)."""
        self._buffer(call.arguments[1])
        return (yield from self._send(call, self._int(call, 2)))

    def sys_sendto(self, call: e.Call) -> Waiting:
        """sendto(fd, ..., count, flags, address, length)."""
        self._buffer(call.arguments[1])
        sending = self._socket(call)
        if sending.kind == "udp":
            return self._send_datagram(sending, self._int(call, 2), call.arguments[4])
        return (yield from self._send(call, self._int(call, 2)))

    def _send_datagram(self, sending: Socket, size: int, address: e.Value) -> int:
        remote = self._address(address, self.there, self.connect_port)
        if sending.datagrams is None:
            sending.datagrams = self.stage.host.udp_bind("", 0, sending)
            sending.port = sending.datagrams.port
        sending.datagrams.send(bytes(size), remote)
        self.stage.flush()
        self.newest = sending
        return size

    def sys_sendmsg(self, call: e.Call) -> Waiting:
        """sendmsg(fd, message, flags)."""
        return (yield from self._send(call, _iov_total(call.arguments[1])))

    def sys_writev(self, call: e.Call) -> Waiting:
        """writev(fd, vector, count)."""
        vector = call.arguments[1]
        return (yield from self._send(call, _total(vector)))

    # -- octets in

    def sys_read(self, call: e.Call) -> Waiting:
        """read(fd, ..., count)."""
        self._buffer(call.arguments[1])
        return (yield from self._read(call, self._int(call, 2)))

    def _read(self, call: e.Call, size: int) -> Waiting:
        reading = self._socket(call)
        if reading.kind == "udp":
            while not reading.inbox:
                if not reading.blocking:
                    raise ErrnoError(errno.EAGAIN)
                yield
            return min(len(reading.inbox.popleft()[0]), size)
        return (yield from reading.read(size))

    sys_recv = sys_read
    sys_recvfrom = sys_read

    def sys_recvmsg(self, call: e.Call) -> Waiting:
        """recvmsg(fd, message, flags); control messages of TCP_INQ are compared."""
        size = yield from self._read(call, _iov_total(call.arguments[1]))
        control = member(call.arguments[1], "msg_control")
        for message in control.members if isinstance(control, e.Array) else ():
            kind = member(message, "cmsg_type")
            if kind != e.Symbol("TCP_CM_INQ"):
                raise InapplicableError(f"control messages {written(message)} are not there")
            wanted = member(message, "cmsg_data")
            reading = self._socket(call)
            stream = reading.stream
            left = stream.available() if stream else 0
            if stream and not left and stream.eof:
                left = 1  # Linux's promise that a read will not wait
            if not reading.inq or wanted != left:
                raise MismatchError(
                    f"TCP_CM_INQ {left}", [Row("cmsg_data", str(wanted), str(left), False)]
                )
        return size

    # -- options

    def sys_fcntl(self, call: e.Call) -> int:
        """fcntl(fd, F_GETFL | F_SETFL, flags)."""
        thing = self._socket(call)
        command = self._int(call, 1)
        if command == number_of("F_GETFL"):
            return thing.flags
        if command != number_of("F_SETFL"):
            raise InapplicableError("fcntl() knows F_GETFL and F_SETFL")
        thing.flags = O_RDWR | (self._int(call, 2) & O_NONBLOCK)
        return 0

    def sys_ioctl(self, call: e.Call) -> int:
        """ioctl(fd, SIOCINQ | SIOCOUTQ, [n])."""
        thing = self._socket(call)
        request = self._int(call, 1)
        connection = thing.connection()
        if connection is None or thing.stream is None:
            raise ErrnoError(errno.EINVAL)
        if request == number_of("SIOCINQ"):
            found = thing.stream.available()
        elif request == number_of("SIOCOUTQ"):
            found = connection.snd_nxt + connection.unsent - connection.snd_una
        else:
            raise InapplicableError("ioctl() knows SIOCINQ and SIOCOUTQ")
        self._equal("value", call.arguments[2], found)
        return 0

    def _equal(self, what: str, expected: e.Value, found: int) -> None:
        if isinstance(expected, e.Whatever) or number(expected) == found:
            return
        raise MismatchError(
            f"{what} {written(expected)} expected, {found} found",
            [Row(what, written(expected), str(found), False)],
        )

    def sys_setsockopt(self, call: e.Call) -> int:
        """setsockopt(fd, level, name, value, length)."""
        thing = self._socket(call)
        option = _option_name(call.arguments[2])
        if option == "SO_LINGER":
            on, seconds = (member(call.arguments[3], key) for key in ("onoff", "linger"))
            if on and seconds:
                raise InapplicableError("SO_LINGER with a time to wait is not there")
            thing.options[1, 13] = 0 if on else -1
            return 0
        value = number(call.arguments[3])
        thing.options[self._int(call, 1), number_of(option)] = value
        self._apply(thing, option, value)
        return 0

    def _apply(self, thing: Socket, option: str, value: int) -> None:
        seconds = float(value)
        settings: dict[str, object]
        if option == "TCP_NODELAY":
            settings = {"nodelay": value != 0}
        elif option == "TCP_MAXSEG":
            settings = {"max_segment": value}
        elif option == "TCP_USER_TIMEOUT":
            settings = {"user_timeout": seconds / 1000.0}
        elif option == "TCP_KEEPIDLE":
            settings = {"keepalive": seconds}
        elif option == "TCP_KEEPINTVL":
            settings = {"keepalive_interval": seconds}
        elif option == "TCP_KEEPCNT":
            settings = {"keepalive_count": value}
        elif option == "SO_RCVBUF":
            doubled = 2 * value  # Linux counts its own structures in; half of it is for octets
            settings = {"receive_buffer": doubled // 2, "receive_start": doubled // 2}
        elif option == "TCP_CONGESTION":
            raise InapplicableError("TCP_CONGESTION wants a string")
        elif option == "SO_SNDBUF":
            thing.sndbuf = 2 * value
            return
        elif option == "TCP_INQ":
            thing.inq = value != 0
            return
        elif option == "IP_TOS":
            if value & ~3:
                thing.options[0, 1] = value
            return
        elif option in _HARMLESS:
            return
        else:
            raise InapplicableError(f"the socket option {option} means nothing here")
        thing.set_option(settings)

    def sys_getsockopt(self, call: e.Call) -> int:
        """getsockopt(fd, level, name, [value], [length])."""
        thing = self._socket(call)
        option = _option_name(call.arguments[2])
        connection = thing.connection()
        if option == "SO_ERROR":
            error = thing.stream.error if thing.stream else None
            found = 0
            if error is not None and thing.told is not error:
                thing.told, found = error, error.errno or 0
        elif option == "TCP_MAXSEG" and connection is not None and connection.state > SYN_SENT:
            found = connection.mss
        elif option == "TCP_MAXSEG":
            found = thing.settings.max_segment or 536
        elif option == "SO_SNDBUF":
            found = thing.sndbuf
        elif option == "TCP_NOTSENT_LOWAT":
            found = thing.options.get((6, number_of(option)), 0)
        else:
            key = (self._int(call, 1), number_of(option))
            if key not in thing.options and option not in ("TCP_NODELAY", "SO_REUSEADDR"):
                raise InapplicableError(f"getsockopt() does not know {option}")
            found = thing.options.get(key, 0)
        self._equal(option, call.arguments[3], found)
        return 0

    # -- waiting for several

    def sys_poll(self, call: e.Call) -> Waiting:
        """poll([{fd=, events=, revents=}], count, milliseconds)."""
        entries = call.arguments[0]
        if not isinstance(entries, e.Array):
            raise MismatchError("poll() wants an array")
        timeout = self._int(call, 2)
        until = self.stage.now + timeout * MICRO // 1000
        always = POLLERR | POLLHUP
        while True:
            ready: list[tuple[e.Value, int]] = []
            for entry in entries.members:
                thing = self.table.get(number(member(entry, "fd") or 0))
                wanted = number(member(entry, "events") or 0)
                found = thing.events() & (wanted | always) if isinstance(thing, Socket) else 0
                ready.append((entry, found))
            count = sum(found != 0 for _, found in ready)
            if count or timeout == 0 or (timeout > 0 and self.stage.now >= until):
                break
            yield
        for entry, found in ready:
            self._equal("revents", member(entry, "revents") or 0, found)
        return count

    def sys_epoll_create(self, call: e.Call) -> int:
        """epoll_create(size)."""
        return self._new(call, Epoll())

    sys_epoll_create1 = sys_epoll_create

    def sys_epoll_ctl(self, call: e.Call) -> int:
        """epoll_ctl(epfd, EPOLL_CTL_ADD | MOD | DEL, fd, {events=, fd=})."""
        thing = self.table.get(number(call.arguments[0]))
        operation, fd = self._int(call, 1), self._int(call, 2)
        if not isinstance(thing, Epoll) or fd not in self.table:
            raise ErrnoError(errno.EBADF)
        if operation == number_of("EPOLL_CTL_DEL"):
            thing.watches.pop(fd, None)
            return 0
        wanted = number(member(call.arguments[3], "events") or 0)
        if wanted & (EPOLLONESHOT | EPOLLEXCLUSIVE):
            raise InapplicableError("EPOLLONESHOT and EPOLLEXCLUSIVE are Linux's own")
        thing.watches[fd] = Watch(wanted, fd)
        return 0

    def sys_epoll_wait(self, call: e.Call) -> Waiting:
        """epoll_wait(epfd, {events=, fd=}, most, milliseconds)."""
        thing = self.table.get(number(call.arguments[0]))
        if not isinstance(thing, Epoll):
            raise ErrnoError(errno.EBADF)
        timeout = self._int(call, 3)
        until = self.stage.now + timeout * MICRO // 1000
        while True:
            ready = [
                (watch, found) for watch in thing.watches.values() if (found := self._look(watch))
            ]
            if ready or timeout == 0 or (timeout > 0 and self.stage.now >= until):
                break
            yield
        wanted = member(call.arguments[1], "events")
        if wanted is not None:
            self._equal("events", wanted, ready[0][1] if ready else 0)
        return min(len(ready), self._int(call, 2))

    def _look(self, watch: Watch) -> int:
        """What a watched descriptor has to tell; for an edge, only when something came."""
        thing = self.table.get(watch.data)
        if not isinstance(thing, Socket):
            return 0
        found = thing.events() & (watch.wanted | POLLERR | POLLHUP)
        if not watch.wanted & EPOLLET:
            return found
        stream = thing.stream
        edges = stream.edges if stream else len(thing.waiting)
        arrived = 0
        if stream is not None and stream.connection is not None:
            arrived = stream.connection.rcv_nxt
        fresh = edges != watch.edges or arrived > watch.available or found & ~watch.last
        watch.edges, watch.available, watch.last = edges, arrived, found
        return found if fresh and found & (POLLIN | POLLOUT | POLLERR | POLLHUP) else 0


def _option_name(value: e.Value) -> str:
    if isinstance(value, e.Symbol):
        return value.name
    raise InapplicableError(f"a socket option without a name: {written(value)}")


def _iov_total(message: e.Value) -> int:
    """Octets of all the pieces of a message."""
    if isinstance(message, e.Structure):
        for entry in message.members:
            key = entry.key if isinstance(entry, e.Assigned) else None
            if isinstance(entry, e.Assigned) and getattr(key, "name", "") == "msg_iov":
                return _total(entry.value)
    raise MismatchError("a message without msg_iov")


def _total(vector: e.Value) -> int:
    if not isinstance(vector, e.Array):
        raise MismatchError("an array of {..., size} is wanted")
    sizes = (piece.members[1] for piece in vector.members if isinstance(piece, e.Structure))
    return sum(number(size) for size in sizes)
