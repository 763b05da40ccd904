"""The IPv4 header (RFC 791 §3.1), validated as RFC 1122 §3.2.1 asks of a host.

Every length is checked against the octets at hand before it is believed; what follows the datagram
in the frame (Ethernet's padding) is cut off by `end`. Options are walked, so that lying lengths and
source routes that go on are noticed, and otherwise skipped. Whether the datagram is for us, and
what its fragments mean, is the business of `ip`. Imports `errors` and `checksum`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from appliance.net.checksum import checksum, ones_complement_sum
from appliance.net.errors import WireError

HEADER_LEN: Final = 20
"""Octets without options."""
MAX_TOTAL_LEN: Final = 65535
MIN_MTU: Final = 68
"""Every link carries this many octets unfragmented (RFC 791 §3.2)."""
MIN_REASSEMBLY: Final = 576
"""Every host takes datagrams of this many octets (RFC 791 §3.1)."""

# https://www.iana.org/assignments/protocol-numbers
PROTO_ICMP: Final = 1
PROTO_TCP: Final = 6
PROTO_UDP: Final = 17

FLAG_DF: Final = 2
FLAG_MF: Final = 1
"""Bits of the three-bit flags field (RFC 791 §3.1)."""

DEFAULT_TTL: Final = 64
"""Hops (RFC 1700, "IP time to live")."""

OPTION_END: Final = 0
OPTION_NOP: Final = 1
OPTION_LSRR: Final = 131
OPTION_SSRR: Final = 137

STRUCT: Final = Struct("!BBHHHBBH4s4s")

COUNTERS: Final = (
    "ip_truncated",
    "ip_version",
    "ip_header_length",
    "ip_total_length",
    "ip_checksum",
    "ip_options",
)


class OptionError(WireError):
    """Options that a datagram is dropped for; its sender may hear of it.

    `pointer` counts octets from the start of the header; -1: a source route that goes on from here.
    """

    __slots__ = ("pointer",)

    def __init__(self, pointer: int) -> None:
        super().__init__("ip_options")
        self.pointer = pointer


def is_link_local(address: bytes) -> bool:
    """True for 169.254/16 (RFC 3927 §1.4)."""
    return address[:2] == b"\xa9\xfe"


class Ipv4Header(NamedTuple):
    """One header; lengths in octets; `payload_at` and `payload_end` are offsets into the buffer."""

    header_len: int
    total_len: int
    dscp_ecn: int
    ident: int
    flags: int
    fragment_offset: int
    ttl: int
    protocol: int
    src: bytes
    dst: bytes
    options: bytes
    payload_at: int
    payload_end: int


def parse(data: bytes | memoryview, at: int, end: int) -> Ipv4Header:
    """Read and validate the header in data[at:end]; raises only WireError.

    `payload_end` comes from the total length: octets after it are the link's padding.
    """
    header = _take_apart(data, at, end)
    # RFC 1122 §3.2.1.2: a host MUST verify the header checksum.
    if ones_complement_sum(data[at : at + header.header_len]) != 0xFFFF:
        raise WireError("ip_checksum")
    if header.total_len < header.header_len:
        raise WireError("ip_total_length")
    if header.payload_end > end:
        raise WireError("ip_truncated")
    if header.options:
        _walk_options(header.options)
    return header


def parse_quoted(data: bytes | memoryview, at: int, end: int) -> Ipv4Header:
    """Read the header that an ICMP error quotes; raises only WireError.

    The quotation is cut short (RFC 792: eight octets of payload suffice) and may have passed
    translators, so neither the total length nor the checksum is held against it; `payload_end` is
    where the octets at hand end.
    """
    header = _take_apart(data, at, end)
    return header._replace(payload_end=min(end, max(header.payload_end, header.payload_at)))


def _take_apart(data: bytes | memoryview, at: int, end: int) -> Ipv4Header:
    if end - at < HEADER_LEN or len(data) < end:
        raise WireError("ip_truncated")
    (
        version_ihl,
        dscp_ecn,
        total_len,
        ident,
        flags_offset,
        ttl,
        protocol,
        _,
        src,
        dst,
    ) = STRUCT.unpack_from(data, at)
    # RFC 1122 §3.2.1.1: any version but 4 MUST be silently discarded.
    if version_ihl >> 4 != 4:
        raise WireError("ip_version")
    header_len = (version_ihl & 15) * 4
    if header_len < HEADER_LEN:
        raise WireError("ip_header_length")
    payload_at = at + header_len
    if payload_at > end:
        raise WireError("ip_truncated")
    return Ipv4Header(
        header_len,
        total_len,
        dscp_ecn,
        ident,
        flags_offset >> 13,
        (flags_offset & 0x1FFF) * 8,
        ttl,
        protocol,
        src,
        dst,
        bytes(data[at + HEADER_LEN : payload_at]),
        payload_at,
        at + total_len,
    )


def _walk_options(options: bytes) -> None:
    """RFC 791 §3.1: two one-octet kinds, all others carry their length; RFC 1122 §3.2.1.8.

    Deviates from RFC 1122 §3.2.1.8 (c): a source route that ends here is not used for answers
    (RFC 7126 §4.3.5: what is routed by its source is best dropped).
    """
    at, end = 0, len(options)
    while at < end:
        kind = options[at]
        if kind == OPTION_END:
            return
        if kind == OPTION_NOP:
            at += 1
            continue
        if at + 1 >= end or options[at + 1] < 2 or at + options[at + 1] > end:
            raise OptionError(HEADER_LEN + at)
        if kind in (OPTION_LSRR, OPTION_SSRR):
            if options[at + 1] < 3:
                raise OptionError(HEADER_LEN + at)
            if options[at + 2] <= options[at + 1]:
                raise OptionError(-1)
        at += options[at + 1]


def header(
    src: bytes,
    dst: bytes,
    protocol: int,
    payload_len: int,
    *,
    ttl: int = DEFAULT_TTL,
    dscp_ecn: int = 0,
    ident: int = 0,
    flags: int = FLAG_DF,
    fragment_offset: int = 0,
    options: bytes = b"",
) -> bytes:
    """A whole header with its checksum; `options` is padded to a multiple of four octets.

    Raises ValueError if the datagram would not fit its length fields.
    """
    options += bytes(-len(options) % 4)
    header_len = HEADER_LEN + len(options)
    total_len = header_len + payload_len
    if header_len > 60 or total_len > MAX_TOTAL_LEN:
        raise ValueError(f"an IPv4 datagram of {total_len} octets, {header_len} of them header")
    packed = STRUCT.pack(
        0x40 | header_len // 4,
        dscp_ecn,
        total_len,
        ident,
        flags << 13 | fragment_offset // 8,
        ttl,
        protocol,
        0,
        src,
        dst,
    )
    packed += options
    return packed[:10] + checksum(packed).to_bytes(2) + packed[12:]
