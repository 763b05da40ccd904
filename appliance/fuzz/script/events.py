"""What a script says, as plain values: options, and events with the time at which they happen.

Only shapes; the parser makes them and the runner reads them.  Times are whole microseconds, as in
packetdrill.  Imports the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

RELATIVE: Final = "relative"
ABSOLUTE: Final = "absolute"
ANY: Final = "any"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file; both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class When:
    """The time of an event in microseconds; `until` is the end of a range, or None."""

    kind: Literal["relative", "absolute", "any"]
    at: int = 0
    until: int | None = None


# ---------------------------------------------------------------------- packets


@dataclass(frozen=True, slots=True)
class TcpOption:
    """One option: the name that scripts use, and its numbers (for `sack` two a block)."""

    name: str
    numbers: tuple[int, ...] = ()
    blob: bytes = b""


@dataclass(frozen=True, slots=True)
class IpInfo:
    """What a script says about the IP header; None where it says nothing."""

    ecn: Literal["noecn", "ect0", "ect1", "ect01", "ce"] | None = None
    tos: int | None = None
    ttl: int | None = None
    flow_label: int | None = None


NO_IP_INFO: Final = IpInfo()


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment in the script's numbers; `options` None means that any will do."""

    arrives: bool
    flags: str  # packetdrill's letters; "." is ACK
    seq: int
    end: int
    length: int
    ack: int | None
    window: int | None
    urgent: int
    options: tuple[TcpOption, ...] | None
    ip: IpInfo = NO_IP_INFO
    ports: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram of `length` octets of payload."""

    arrives: bool
    length: int
    ip: IpInfo = NO_IP_INFO
    ports: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Icmp:
    """An ICMP message by its names; `echoed` is the protocol that it quotes, with its numbers."""

    arrives: bool
    type: str
    code: str | None
    mtu: int | None
    ident: int | None
    echoed: tuple[str, tuple[int, ...]] | None
    ip: IpInfo = NO_IP_INFO


# ---------------------------------------------------------------------- system calls


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name of the C library, such as O_NONBLOCK."""

    name: str


@dataclass(frozen=True, slots=True)
class Either:
    """Two values joined by |."""

    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class Applied:
    """`name(arguments)`, such as htons(80)."""

    name: str
    arguments: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Assigned:
    """`key = value` inside a structure."""

    key: Value
    value: Value


@dataclass(frozen=True, slots=True)
class Structure:
    """`{...}`."""

    members: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """`[...]`."""

    members: tuple[Value, ...]


class Whatever:
    """`...`: anything will do."""

    __slots__ = ()


WHATEVER: Final = Whatever()

Value = int | float | str | Symbol | Either | Applied | Assigned | Structure | Array | Whatever


@dataclass(frozen=True, slots=True)
class Call:
    """A system call; `ends` (microseconds) tells that it blocks until then."""

    name: str
    arguments: tuple[Value, ...]
    result: Value
    errno: str | None
    ends: int | None


@dataclass(frozen=True, slots=True)
class Command:
    """Words for a shell."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """Python that looks at the connection by `tcpi_...` names."""

    text: str


Action = Segment | Datagram | Icmp | Call | Command | Code


@dataclass(frozen=True, slots=True)
class Event:
    """One action, when it happens, and where it is written (`last_line` inclusive)."""

    when: When
    action: Action
    place: Place
    last_line: int


@dataclass(frozen=True, slots=True)
class Script:
    """A whole file; `options` are the `--name=value` words, value "" where there is none."""

    path: str
    text: str
    options: dict[str, str]
    setup: tuple[Command, Place] | None
    events: tuple[Event, ...]
    cleanup: Command | None
