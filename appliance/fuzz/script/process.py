"""The process that a script is: its descriptors, and what its calls have in common.

Imports the sockets and the symbols.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Final

from appliance.fuzz.script import events as e
from appliance.fuzz.script import packets
from appliance.fuzz.script.environment import Environment
from appliance.fuzz.script.faults import MismatchError, Row
from appliance.fuzz.script.sockets import ErrnoError, Socket
from appliance.fuzz.script.stage import Stage
from appliance.fuzz.script.symbols import number, written

DEFAULT_PORT: Final = 8080  # packetdrill's, for bind and connect alike
MAX_FDS: Final = 1024  # descriptors of one script; Linux's own soft limit


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
class File:
    """A file of noughts that is open for reading; `size` in octets."""

    size: int
    at: int = 0


@dataclass
class Process:
    """Descriptors by the numbers that the script gives them."""

    stage: Stage
    environment: Environment
    here: str
    there: str
    listen_port: int = DEFAULT_PORT
    connect_port: int = DEFAULT_PORT
    version: str = packets.IPV4
    table: dict[int, Socket | Epoll | File] = field(default_factory=dict)
    newest: Socket | None = None  # the socket that `tcpi_` names look at

    @property
    def six(self) -> bool:
        """Whether the packets are IPv6's."""
        return self.version == packets.IPV6

    def _new(self, call: e.Call, thing: Socket | Epoll | File) -> int:
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

    def _equal(self, what: str, expected: e.Value, found: int) -> None:
        if isinstance(expected, e.Whatever) or number(expected) == found:
            return
        raise MismatchError(
            f"{what} {written(expected)} expected, {found} found",
            [Row(what, written(expected), str(found), False)],
        )
