"""The IPv6 header and its extension headers (RFC 8200 §3, §4), read and written.

`parse` walks the chain up to the upper layer, or up to a fragment header that is more than a
formality, and checks every length against the octets at hand. What a node must answer to a header
that it cannot process is told by `HeaderError`, a `WireError` that names code and pointer of the
ICMPv6 Parameter Problem; whether one is sent is decided in `icmp`. Jumbograms (RFC 2675) are not
spoken: their option is one of the unknown ones, whose action bits say what happens.

The chain is walked once per packet and its length is limited (RFC 8504 §5.3), since a header costs
its sender eight octets and each of its receivers a look. Imports `errors` only.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from appliance.net.errors import WireError

HEADER_LEN: Final = 40
"""Octets of the fixed header."""
MIN_MTU: Final = 1280
"""Octets every link carries (RFC 8200 §5)."""
MIN_REASSEMBLY: Final = 1500
"""Octets of datagram that every node puts together again (RFC 8200 §5)."""
MAX_PAYLOAD: Final = 65_535
"""Octets behind the fixed header (RFC 8200 §3)."""
PAYLOAD_LEN_AT: Final = 4
NEXT_HEADER_AT: Final = 6
HOP_LIMIT_AT: Final = 7
SRC_AT: Final = 8
DST_AT: Final = 24
"""Offsets of fields in octets (RFC 8200 §3)."""
DEFAULT_HOP_LIMIT: Final = 64
"""Hops (RFC 1700, as for IPv4)."""

# https://www.iana.org/assignments/ipv6-parameters, and RFC 8200 §4
HOP_BY_HOP: Final = 0
ROUTING: Final = 43
FRAGMENT: Final = 44
NO_NEXT_HEADER: Final = 59
DESTINATION_OPTIONS: Final = 60
PROTO_ICMPV6: Final = 58

FRAGMENT_LEN: Final = 8
"""Octets of a fragment header (RFC 8200 §4.5)."""
MAX_EXTENSIONS: Final = 8
"""Extension headers walked: RFC 8200 §4.1 knows of seven; RFC 8504 §5.3 allows a limit."""
MAX_OPTIONS: Final = 8
"""Options in one header, padding not counted (RFC 8504 §5.3 (e))."""
MAX_PADDING: Final = 7
"""Octets of padding in a row: what alignment can need (RFC 8504 §5.3 (d))."""

OPTION_PAD1: Final = 0
OPTION_PADN: Final = 1
OPTION_ROUTER_ALERT: Final = 5

# Codes of ICMPv6 Parameter Problem (RFC 4443 §3.4, RFC 7112 §5).
ERRONEOUS_FIELD: Final = 0
UNKNOWN_NEXT_HEADER: Final = 1
UNKNOWN_OPTION: Final = 2
INCOMPLETE_CHAIN: Final = 3

UNSPECIFIED: Final = bytes(16)
LOOPBACK: Final = bytes(15) + b"\1"
ALL_NODES: Final = bytes.fromhex("ff020000000000000000000000000001")
ALL_ROUTERS: Final = bytes.fromhex("ff020000000000000000000000000002")
ALL_MLDV2_ROUTERS: Final = bytes.fromhex("ff020000000000000000000000000016")
"""RFC 4291 §2.7.1, RFC 3810 §11."""

STRUCT: Final = Struct("!IHBB16s16s")
_FRAGMENT: Final = Struct("!BBHI")

COUNTERS: Final = (
    "ip6_truncated",
    "ip6_version",
    "ip6_extension",
    "ip6_extension_limit",
    "ip6_option",
    "ip6_routing_header",
)


class HeaderError(WireError):
    """A header that must not be ignored; `code` and `pointer` of the Parameter Problem to send.

    `pointer` counts from the start of the IPv6 header; `always`: also about a multicast packet.
    """

    __slots__ = ("always", "code", "pointer")

    def __init__(self, counter: str, code: int, pointer: int, *, always: bool = False) -> None:
        super().__init__(counter)
        self.code = code
        self.pointer = pointer
        self.always = always


class Ipv6Packet(NamedTuple):
    """One packet; lengths in octets, `*_at` and `payload_end` are offsets into the buffer.

    `protocol` is the first header that is not an extension header, and `payload_at` where it
    begins; for a fragment `fragment_at` is where its header stands (else -1), `protocol` what that
    header names, and `payload_at` where the fragment's octets begin. `named_at` is the octet that
    named `protocol`, or that named the fragment header.
    """

    header_at: int
    traffic_class: int
    flow_label: int
    payload_len: int
    hop_limit: int
    protocol: int
    src: bytes
    dst: bytes
    payload_at: int
    payload_end: int
    fragment_at: int
    named_at: int


class FragmentHeader(NamedTuple):
    """A fragment header (RFC 8200 §4.5); `offset` in octets."""

    next_header: int
    offset: int
    more: bool
    ident: int


def parse(data: bytes | memoryview, at: int, end: int) -> Ipv6Packet:
    """Read data[at:end], extension headers included; raises only WireError.

    What stands behind the payload length is the link's padding and cut off.
    """
    first, length, next_header, hop_limit, src, dst = _fixed(data, at, end)
    payload_end = at + HEADER_LEN + length
    if payload_end > end:
        raise WireError("ip6_truncated")
    protocol, payload_at, fragment_at, named_at = _walk(data, at, next_header, payload_end)
    return Ipv6Packet(
        at,
        first >> 20 & 0xFF,
        first & 0xFFFFF,
        length,
        hop_limit,
        protocol,
        src,
        dst,
        payload_at,
        payload_end,
        fragment_at,
        named_at,
    )


def parse_quoted(data: bytes | memoryview, at: int, end: int) -> Ipv6Packet:
    """Read the packet of ours that an ICMPv6 error quotes, cut short; raises only WireError.

    Options are not judged: we wrote them. A fragment's header is stepped over when it is the first.
    """
    first, length, next_header, hop_limit, src, dst = _fixed(data, at, end)
    payload_at, named_at, fragment_at = at + HEADER_LEN, at + NEXT_HEADER_AT, -1
    for _ in range(MAX_EXTENSIONS):
        if next_header not in _EXTENSIONS:
            break
        if payload_at + 8 > end:
            raise WireError("ip6_truncated")
        named_at = payload_at
        if next_header == FRAGMENT:
            fragment_at = payload_at
            size = FRAGMENT_LEN
        else:
            size = 8 * data[payload_at + 1] + 8
        next_header = data[payload_at]
        payload_at += size
        if fragment_at >= 0 and int.from_bytes(data[fragment_at + 2 : fragment_at + 4]) >> 3:
            break  # no upper-layer header in there
    payload_end = min(end, max(at + HEADER_LEN + length, payload_at))
    return Ipv6Packet(
        at,
        first >> 20 & 0xFF,
        first & 0xFFFFF,
        length,
        hop_limit,
        next_header,
        src,
        dst,
        payload_at,
        payload_end,
        fragment_at,
        named_at,
    )


def parse_fragment(data: bytes | memoryview, at: int) -> FragmentHeader:
    """Read the fragment header at `at`, which `parse` has found to be there."""
    next_header, _, field, ident = _FRAGMENT.unpack_from(data, at)
    return FragmentHeader(next_header, field & 0xFFF8, bool(field & 1), ident)


def chain_is_whole(data: bytes | memoryview, protocol: int, at: int, end: int) -> bool:
    """Tell whether a first fragment has every header up to the upper layer's (RFC 7112 §5)."""
    for _ in range(MAX_EXTENSIONS):
        if protocol not in _EXTENSIONS:
            # Of the upper layer's header as much as it always has: ports, or type and code.
            return protocol == NO_NEXT_HEADER or end - at >= _UPPER.get(protocol, 0)
        if at + 8 > end:
            return False
        size = FRAGMENT_LEN if protocol == FRAGMENT else 8 * data[at + 1] + 8
        protocol = data[at]
        at += size
    return True


def header(
    src: bytes,
    dst: bytes,
    next_header: int,
    payload_len: int,
    *,
    hop_limit: int = DEFAULT_HOP_LIMIT,
    traffic_class: int = 0,
    flow_label: int = 0,
) -> bytes:
    """Forty octets of fixed header; ValueError if the payload does not fit its length field."""
    if payload_len > MAX_PAYLOAD:
        raise ValueError(f"an IPv6 payload of {payload_len} octets")
    first = 6 << 28 | traffic_class << 20 | flow_label
    return STRUCT.pack(first, payload_len, next_header, hop_limit, src, dst)


def fragment_header(next_header: int, offset: int, more: bool, ident: int) -> bytes:
    """Eight octets of fragment header; `offset` in octets, a multiple of eight (RFC 8200 §4.5)."""
    return _FRAGMENT.pack(next_header, 0, offset | more, ident)


def router_alert(next_header: int) -> bytes:
    """A hop-by-hop header with the router alert option for MLD (RFC 2711 §2.1, RFC 3810 §5)."""
    return bytes((next_header, 0, OPTION_ROUTER_ALERT, 2, 0, 0, OPTION_PADN, 0))


def has_router_alert(data: bytes | memoryview, packet: Ipv6Packet) -> bool:
    """Whether a packet that `parse` has read asks routers to look, for MLD (RFC 2711 §2.1)."""
    at = packet.header_at
    if data[at + NEXT_HEADER_AT] != HOP_BY_HOP:
        return False
    at += HEADER_LEN
    end = at + 8 * data[at + 1] + 8
    at += 2
    while at < end:
        if data[at] == OPTION_ROUTER_ALERT:
            return bytes(data[at + 1 : at + 4]) == b"\2\0\0"
        at += 1 if data[at] == OPTION_PAD1 else 2 + data[at + 1]
    return False


def has_fragment_header(data: bytes | memoryview, packet: Ipv6Packet) -> bool:
    """Whether a packet that `parse` has read is an atomic fragment (RFC 6946 §2)."""
    at, protocol = packet.header_at + HEADER_LEN, data[packet.header_at + NEXT_HEADER_AT]
    while at < packet.payload_at:
        if protocol == FRAGMENT:
            return True
        protocol, at = data[at], at + 8 * data[at + 1] + 8
    return False


def is_multicast(address: bytes) -> bool:
    """True for ff00::/8 (RFC 4291 §2.7)."""
    return address[0] == 0xFF


def is_link_local(address: bytes) -> bool:
    """True for fe80::/10 (RFC 4291 §2.5.6)."""
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def solicited_node(address: bytes) -> bytes:
    """The solicited-node group of a unicast address (RFC 4291 §2.7.1)."""
    return _SOLICITED_NODE + address[13:]


def multicast_mac(group: bytes) -> bytes:
    """The Ethernet address of an IPv6 group (RFC 2464 §7)."""
    return b"\x33\x33" + group[12:]


_SOLICITED_NODE: Final = bytes.fromhex("ff0200000000000000000001ff")
_EXTENSIONS: Final = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS))
_UPPER: Final = {6: 20, 17: 8, PROTO_ICMPV6: 8}
"""Octets of the upper layer's header, by protocol; of one that we do not know, nothing is asked."""


def _fixed(data: bytes | memoryview, at: int, end: int) -> tuple[int, int, int, int, bytes, bytes]:
    if end - at < HEADER_LEN or len(data) < end:
        raise WireError("ip6_truncated")
    fields: tuple[int, int, int, int, bytes, bytes] = STRUCT.unpack_from(data, at)
    if fields[0] >> 28 != 6:
        raise WireError("ip6_version")
    return fields


def _walk(
    data: bytes | memoryview, start: int, protocol: int, end: int
) -> tuple[int, int, int, int]:
    """(protocol, where it begins, where a fragment header stands or -1, where it was named)."""
    at, named_at = start + HEADER_LEN, start + NEXT_HEADER_AT
    seen = 0
    while protocol in _EXTENSIONS:
        if protocol == HOP_BY_HOP and seen:
            # RFC 8200 §4.1: only immediately behind the fixed header.
            raise HeaderError("ip6_extension", UNKNOWN_NEXT_HEADER, named_at - start)
        seen += 1
        if seen > MAX_EXTENSIONS:
            raise WireError("ip6_extension_limit")
        if at + 8 > end:
            raise WireError("ip6_truncated")
        size = FRAGMENT_LEN if protocol == FRAGMENT else 8 * data[at + 1] + 8
        if at + size > end:
            raise WireError("ip6_truncated")
        if protocol == FRAGMENT:
            # RFC 6946 §4, RFC 8200 §4.5: offset 0 and nothing to follow is a whole packet.
            if int.from_bytes(data[at + 2 : at + 4]) & 0xFFF9:
                return data[at], at + size, at, named_at
        elif protocol == ROUTING:
            # RFC 8200 §4.4, RFC 5095 §3: no type is known here; with segments left it is an error.
            if data[at + 3]:
                raise HeaderError("ip6_routing_header", ERRONEOUS_FIELD, at + 2 - start)
        else:
            _walk_options(data, start, at + 2, at + size)
        protocol, named_at = data[at], at
        at += size
    return protocol, at, -1, named_at


def _walk_options(data: bytes | memoryview, start: int, at: int, end: int) -> None:
    """RFC 8200 §4.2: what an option that we do not know wants to happen to the packet."""
    options = padding = 0
    while at < end:
        kind = data[at]
        if kind == OPTION_PAD1:
            size = 1
        elif at + 1 >= end or at + 2 + data[at + 1] > end:
            # The length lies: the octet that does is the erroneous field.
            raise HeaderError("ip6_option", ERRONEOUS_FIELD, min(at + 1, end - 1) - start)
        else:
            size = 2 + data[at + 1]
        if kind <= OPTION_PADN:
            padding += size
        else:
            padding = 0
            options += 1
            action = kind >> 6
            if action == 1:
                raise WireError("ip6_option")
            if action:
                raise HeaderError("ip6_option", UNKNOWN_OPTION, at - start, always=action == 2)
        if padding > MAX_PADDING or options > MAX_OPTIONS:
            raise WireError("ip6_extension_limit")
        at += size
