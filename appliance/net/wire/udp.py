"""The UDP header (RFC 768): eight octets, over IPv4 and IPv6 alike. Imports `errors`, `checksum`.

Whether a checksum must be looked at is known to the caller (the VIF may have done it), so reading
the header and verifying the sum are two functions.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from appliance.net.checksum import checksum, ones_complement_sum, pseudo_header_sum
from appliance.net.errors import WireError

HEADER_LEN: Final = 8
"""Octets."""
CHECKSUM_OFFSET: Final = 6
"""Octets from the start of the header (virtio's csum_offset)."""
PROTOCOL: Final = 17

STRUCT: Final = Struct("!HHHH")

COUNTERS: Final = ("udp_truncated", "udp_length")


class UdpHeader(NamedTuple):
    """Ports, length (octets, header included), checksum as sent, and the payload's offsets."""

    src_port: int
    dst_port: int
    length: int
    checksum: int
    payload_at: int
    payload_end: int


def parse(data: bytes | memoryview, at: int, end: int) -> UdpHeader:
    """Read the header in data[at:end]; raises only WireError.

    Octets between the UDP length and `end` are left out of the payload.
    """
    if end - at < HEADER_LEN or len(data) < end:
        raise WireError("udp_truncated")
    src_port, dst_port, length, stored = STRUCT.unpack_from(data, at)
    if length < HEADER_LEN or at + length > end:
        raise WireError("udp_length")
    return UdpHeader(src_port, dst_port, length, stored, at + HEADER_LEN, at + length)


def verify(data: bytes | memoryview, at: int, header: UdpHeader, src: bytes, dst: bytes) -> bool:
    """True if the checksum holds, or is absent where it may be.

    RFC 768: a stored zero means none was made; RFC 8200 §8.1: not so over IPv6.
    """
    if header.checksum == 0:
        return len(src) == 4
    initial = pseudo_header_sum(src, dst, PROTOCOL, header.length)
    return ones_complement_sum(data[at : header.payload_end], initial) == 0xFFFF


def build(
    src: bytes, dst: bytes, src_port: int, dst_port: int, payload: bytes | memoryview
) -> bytes:
    """Header with a full checksum, and payload; ValueError if it would not fit the length field."""
    length = HEADER_LEN + len(payload)
    if length > 0xFFFF:
        raise ValueError(f"a UDP datagram of {length} octets")
    initial = pseudo_header_sum(src, dst, PROTOCOL, length)
    datagram = STRUCT.pack(src_port, dst_port, length, 0) + payload
    # RFC 768: a computed zero is sent as all ones, its equal in ones' complement.
    value = checksum(datagram, initial) or 0xFFFF
    return datagram[:6] + value.to_bytes(2) + datagram[8:]
