"""ICMP for IPv4 (RFC 792): eight octets of header and a body, read and written.

The second half of the header means something else for each type; it is given as one 32-bit number
and taken apart by small functions. Rate limits, and to what an error must never be sent, are
decided in `appliance.net.icmp`. Imports `errors` and `checksum`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from appliance.net.checksum import checksum, ones_complement_sum
from appliance.net.errors import WireError

HEADER_LEN: Final = 8
"""Octets."""
PROTOCOL: Final = 1

# https://www.iana.org/assignments/icmp-parameters
ECHO_REPLY: Final = 0
UNREACHABLE: Final = 3
SOURCE_QUENCH: Final = 4
REDIRECT: Final = 5
ECHO_REQUEST: Final = 8
TIME_EXCEEDED: Final = 11
PARAMETER_PROBLEM: Final = 12

ERROR_TYPES: Final = frozenset(
    (UNREACHABLE, SOURCE_QUENCH, REDIRECT, TIME_EXCEEDED, PARAMETER_PROBLEM)
)
"""Messages that quote a datagram, and to which none is ever answered (RFC 1122 §3.2.2)."""

# Codes of UNREACHABLE (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1).
UNREACHABLE_NET: Final = 0
UNREACHABLE_HOST: Final = 1
UNREACHABLE_PROTOCOL: Final = 2
UNREACHABLE_PORT: Final = 3
UNREACHABLE_FRAGMENTATION: Final = 4
UNREACHABLE_SOURCE_ROUTE: Final = 5
UNREACHABLE_ADMIN: Final = 13

# Codes of TIME_EXCEEDED (RFC 792).
EXCEEDED_TTL: Final = 0
EXCEEDED_REASSEMBLY: Final = 1

QUOTE_MAX: Final = 576 - 20 - HEADER_LEN
"""Octets quoted at the most: the error must fit 576 octets (RFC 1812 §4.3.2.3)."""

_STRUCT: Final = Struct("!BBHI")

COUNTERS: Final = ("icmp_truncated", "icmp_checksum")


class IcmpMessage(NamedTuple):
    """Type, code, the 32 bits after the checksum, and where the body stands in the buffer."""

    type: int
    code: int
    rest: int
    body_at: int
    body_end: int

    @property
    def echo_id(self) -> int:
        """Identifier of an echo message."""
        return self.rest >> 16

    @property
    def echo_seq(self) -> int:
        """Sequence number of an echo message."""
        return self.rest & 0xFFFF

    @property
    def next_hop_mtu(self) -> int:
        """Octets; RFC 1191 §4, of "fragmentation needed"; 0 from a router that predates it."""
        return self.rest & 0xFFFF

    @property
    def pointer(self) -> int:
        """Octet of the quoted header that a parameter problem is about (RFC 792)."""
        return self.rest >> 24


def parse(data: bytes | memoryview, at: int, end: int, *, verified: bool = False) -> IcmpMessage:
    """Read the message in data[at:end]; raises only WireError.

    `verified`: the link has checked the sum already.
    """
    if end - at < HEADER_LEN or len(data) < end:
        raise WireError("icmp_truncated")
    # RFC 1122 §3.2.2: a message with a wrong checksum is dropped like any unknown one.
    if not verified and ones_complement_sum(data[at:end]) != 0xFFFF:
        raise WireError("icmp_checksum")
    kind, code, _, rest = _STRUCT.unpack_from(data, at)
    return IcmpMessage(kind, code, rest, at + HEADER_LEN, end)


def build(kind: int, code: int, rest: int, body: bytes | memoryview) -> bytes:
    """A whole message with its checksum; `rest` is the 32 bits after the checksum."""
    message = _STRUCT.pack(kind, code, 0, rest) + body
    return message[:2] + checksum(message).to_bytes(2) + message[4:]


def echo_request(ident: int, seq: int, body: bytes | memoryview) -> bytes:
    """An echo request; `ident` and `seq` have 16 bits (RFC 792)."""
    return build(ECHO_REQUEST, 0, ident << 16 | seq, body)


def echo_reply(data: bytes | memoryview, request: IcmpMessage) -> bytes:
    """The reply to `request`, which was parsed from `data`: the same body comes back (RFC 792)."""
    return build(ECHO_REPLY, 0, request.rest, data[request.body_at : request.body_end])


def unreachable(code: int, original: bytes | memoryview, mtu: int = 0) -> bytes:
    """Destination unreachable, quoting the head of `original`; `mtu` for code 4 (RFC 1191 §4)."""
    return build(UNREACHABLE, code, mtu, original[:QUOTE_MAX])


def time_exceeded(code: int, original: bytes | memoryview) -> bytes:
    """Time exceeded, quoting the head of `original` (RFC 792)."""
    return build(TIME_EXCEEDED, code, 0, original[:QUOTE_MAX])


def parameter_problem(pointer: int, original: bytes | memoryview) -> bytes:
    """Parameter problem at octet `pointer` of `original`, whose head is quoted (RFC 792)."""
    return build(PARAMETER_PROBLEM, 0, pointer << 24, original[:QUOTE_MAX])
