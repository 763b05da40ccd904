"""The system calls of scripts, by name: arguments in, result or errno out.

Each is a generator (see `sockets`): it yields while it would wait.  A call, option or flag that
the stack has no counterpart for raises `InapplicableError`; a wrong out-parameter raises
`MismatchError`.  Imports the sockets and the symbols.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from appliance.fuzz.script import events as e
from appliance.fuzz.script import packets
from appliance.fuzz.script.faults import InapplicableError, MismatchError, Row
from appliance.fuzz.script.option_calls import OptionCalls
from appliance.fuzz.script.process import DEFAULT_PORT, File
from appliance.fuzz.script.sockets import O_NONBLOCK, O_RDWR, ErrnoError, Socket, Waiting
from appliance.fuzz.script.symbols import member, names_in, number, number_of, written
from appliance.fuzz.script.wait_calls import WaitCalls

__all__ = ["DEFAULT_PORT", "Calls"]

_ABSENT: Final = {
    "MSG_EOR": "MSG_EOR keeps the segments of one write apart, which RFC 9293 does not know",
    "MSG_ERRQUEUE": "Linux's socket error queue is not there",
    "MSG_OOB": "urgent data stays in line (RFC 6093)",
    "MSG_PEEK": "MSG_PEEK is not there",
    "MSG_ZEROCOPY": "zero-copy sending is Linux's own",
    "SO_TIMESTAMPING": "Linux's time-stamping of sent packets is not there",
    "SO_ZEROCOPY": "zero-copy sending is Linux's own",
    "TCP_MD5SIG": "TCP MD5 signatures (RFC 2385) are not there",
    "TCP_NOTSENT_LOWAT": "TCP_NOTSENT_LOWAT bounds Linux's send buffer",
}


class Calls(OptionCalls, WaitCalls):
    """Everything that a script may call."""

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

    # -- making and ending sockets

    def sys_socket(self, call: e.Call) -> int:
        """socket(domain, type, protocol)."""
        self._family(call.arguments[0] if call.arguments else e.WHATEVER)
        kind, protocol = self._int(call, 1), self._int(call, 2)
        names = {(1, 6): "tcp", (1, 0): "tcp", (2, 17): "udp", (2, 0): "udp"}
        named = names.get((kind & 0xF, protocol))
        if named is None:
            raise InapplicableError(f"sockets of protocol {protocol} are not there")
        opened = Socket(
            self.stage, self.environment.tcp, named,
            flags=O_RDWR | (kind & O_NONBLOCK),
            fast=self.environment,
        )  # fmt: skip
        return self._new(call, opened)

    def _family(self, domain: e.Value) -> None:
        """Refuse a socket that could not speak to the peer of this run."""
        if isinstance(domain, e.Whatever):
            return
        wanted = number(domain)
        if wanted not in (number_of("AF_INET"), number_of("AF_INET6")):
            raise InapplicableError(f"sockets of {written(domain)} are not there")
        if wanted == number_of("AF_INET") and self.version != packets.IPV4:
            raise InapplicableError(f"a socket of IPv4 where the peer's are of {self.version}")

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
        named = member(value, "sin_port") or member(value, "sin6_port")
        if isinstance(named, e.Applied):
            port = number(named.arguments[0])
        address = member(value, "sin_addr") or member(value, "sin6_addr")
        if isinstance(address, e.Applied) and isinstance(address.arguments[-1], str):
            host = address.arguments[-1]  # inet_addr("..."), inet_pton(AF_INET6, "...")
        # RFC 4291 §2.5.5.2: a socket of IPv6 with a peer of IPv4.
        host = host.lower().removeprefix("::ffff:") if "." in host else host
        if host and (":" in host) != self.six:
            raise InapplicableError(f"{host} is no address of {self.version}")
        return ("" if host in ("0.0.0.0", "::") else host), port  # noqa: S104

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

    def _send(self, call: e.Call, size: int, flags: int = 0) -> Waiting:
        sending = self._socket(call)
        wanted = call.result
        fast = sending.stream is None and sending.kind == "tcp"
        if isinstance(wanted, int) and 0 < wanted < size and not fast:
            raise InapplicableError(
                "how much fits into SO_SNDBUF is counted in Linux's own structures"
            )
        if sending.opens_fast(bool(flags & number_of("MSG_FASTOPEN"))):
            blocking = sending.blocking and not flags & number_of("MSG_DONTWAIT")
            writing = sending.write_fast(size, *self._peer(call, sending), blocking=blocking)
            self.newest = sending
            return (yield from writing)
        # A write that does not wait, by the script, was taken whole.
        whole = call.ends is None and wanted == size
        more = bool(flags & number_of("MSG_MORE"))
        return (yield from sending.write(size, bounded=not whole, more=more))

    def _peer(self, call: e.Call, sending: Socket) -> tuple[str, int]:
        """Whom a first write opens a connection to: by sendto's address, or by connect() before."""
        if sending.deferred is not None:
            return sending.deferred
        address = call.arguments[4] if call.name == "sendto" else e.WHATEVER
        if address == e.Symbol("AF_UNSPEC"):
            raise ErrnoError(errno.EOPNOTSUPP)
        return self._address(address, self.there, self.connect_port)

    def sys_send(self, call: e.Call) -> Waiting:
        """send(fd, ..., count, flags)."""
        self._buffer(call.arguments[1])
        return (yield from self._send(call, self._int(call, 2), self._int(call, 3)))

    def sys_sendto(self, call: e.Call) -> Waiting:
        """sendto(fd, ..., count, flags, address, length)."""
        self._buffer(call.arguments[1])
        sending = self._socket(call)
        if sending.kind == "udp":
            return self._send_datagram(sending, self._int(call, 2), call.arguments[4])
        return (yield from self._send(call, self._int(call, 2), self._int(call, 3)))

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
        flags = self._int(call, 2)
        return (yield from self._send(call, _iov_total(call.arguments[1]), flags))

    def sys_writev(self, call: e.Call) -> Waiting:
        """writev(fd, vector, count)."""
        vector = call.arguments[1]
        return (yield from self._send(call, _total(vector)))

    def sys_open(self, call: e.Call) -> int:
        """open(path, O_RDONLY), of a file that a command of the script has made."""
        size = self.environment.files.get(str(call.arguments[0]))
        if size is None:
            raise ErrnoError(errno.ENOENT)
        if self._int(call, 1) & 3:
            raise InapplicableError("files are there to be read only")
        return self._new(call, File(size))

    def sys_sendfile(self, call: e.Call) -> Waiting:
        """sendfile(out, in, [offset], count)."""
        source = self.table.get(self._int(call, 1))
        if not isinstance(source, File):
            raise ErrnoError(errno.EBADF)
        offset = call.arguments[2]
        at = number(offset) if isinstance(offset, e.Array) else source.at
        size = max(min(self._int(call, 3), source.size - at), 0)
        sent = yield from self._send(call, size)
        if not isinstance(offset, e.Array):
            source.at += sent
        return sent

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
