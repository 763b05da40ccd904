"""ICMPv6 (RFC 4443): header, checksum and error messages, read and written.

Neighbour Discovery and Multicast Listener Discovery are ICMPv6 messages whose bodies are `ndp`'s
and `mld`'s. Rates, and to what an error must never be sent, are decided in `appliance.net.icmp`.
Imports `errors`, `checksum` and `ipv6`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from appliance.net.checksum import checksum, ones_complement_sum, pseudo_header_sum
from appliance.net.errors import WireError
from appliance.net.wire.ipv6 import HEADER_LEN as IPV6_LEN
from appliance.net.wire.ipv6 import MIN_MTU, PROTO_ICMPV6

HEADER_LEN: Final = 8
"""Octets, the 32 bits behind the checksum included."""
PROTOCOL: Final = PROTO_ICMPV6

# https://www.iana.org/assignments/icmpv6-parameters
UNREACHABLE: Final = 1
PACKET_TOO_BIG: Final = 2
TIME_EXCEEDED: Final = 3
PARAMETER_PROBLEM: Final = 4
ECHO_REQUEST: Final = 128
ECHO_REPLY: Final = 129
MLD_QUERY: Final = 130
MLD_REPORT: Final = 131
MLD_DONE: Final = 132
ROUTER_SOLICITATION: Final = 133
ROUTER_ADVERTISEMENT: Final = 134
NEIGHBOR_SOLICITATION: Final = 135
NEIGHBOR_ADVERTISEMENT: Final = 136
REDIRECT: Final = 137
MLDV2_REPORT: Final = 143

FIRST_INFORMATIONAL: Final = 128
"""Types below are errors (RFC 4443 §2.1)."""

# Codes of UNREACHABLE (RFC 4443 §3.1).
UNREACHABLE_ROUTE: Final = 0
UNREACHABLE_ADMIN: Final = 1
UNREACHABLE_SCOPE: Final = 2
UNREACHABLE_ADDRESS: Final = 3
UNREACHABLE_PORT: Final = 4

# Codes of TIME_EXCEEDED (RFC 4443 §3.3).
EXCEEDED_HOPS: Final = 0
EXCEEDED_REASSEMBLY: Final = 1

QUOTE_MAX: Final = MIN_MTU - IPV6_LEN - HEADER_LEN
"""Octets quoted: as much as fits the least MTU (RFC 4443 §2.4 (c))."""

_STRUCT: Final = Struct("!BBHI")

COUNTERS: Final = ("icmp6_truncated", "icmp6_checksum")


class Icmpv6Message(NamedTuple):
    """Type, code, the 32 bits after the checksum, and where the body behind them stands."""

    type: int
    code: int
    rest: int
    body_at: int
    body_end: int


def parse(
    data: bytes | memoryview, at: int, end: int, src: bytes, dst: bytes, *, verified: bool = False
) -> Icmpv6Message:
    """Read the message in data[at:end]; raises only WireError.

    `verified`: the link has checked the sum already, which covers a pseudo-header (RFC 4443 §2.3).
    """
    if end - at < HEADER_LEN or len(data) < end:
        raise WireError("icmp6_truncated")
    if not verified:
        initial = pseudo_header_sum(src, dst, PROTOCOL, end - at)
        if ones_complement_sum(data[at:end], initial) != 0xFFFF:
            raise WireError("icmp6_checksum")
    kind, code, _, rest = _STRUCT.unpack_from(data, at)
    return Icmpv6Message(kind, code, rest, at + HEADER_LEN, end)


def build(
    src: bytes, dst: bytes, kind: int, code: int, rest: int, body: bytes | memoryview
) -> bytes:
    """A whole message with its checksum; `rest` is the 32 bits after the checksum."""
    message = _STRUCT.pack(kind, code, 0, rest) + body
    total = checksum(message, pseudo_header_sum(src, dst, PROTOCOL, len(message)))
    return message[:2] + total.to_bytes(2) + message[4:]


def error(
    src: bytes, dst: bytes, kind: int, code: int, rest: int, original: bytes | memoryview
) -> bytes:
    """An error that quotes as much of `original` as fits (RFC 4443 §2.4 (c), §3).

    `rest` is the pointer of a parameter problem, the MTU of "packet too big", 0 otherwise.
    """
    return build(src, dst, kind, code, rest, original[:QUOTE_MAX])
