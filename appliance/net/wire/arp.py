"""ARP for IPv4 over Ethernet (RFC 826): twenty-eight octets, read and written.

Only the layout. Who is asked and what is believed is decided in `neighbor`. Imports `errors` only.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from appliance.net.errors import WireError

PACKET_LEN: Final = 28
"""Octets of a packet for 6-octet hardware and 4-octet protocol addresses."""
REQUEST: Final = 1
REPLY: Final = 2

_PREFIX: Final = b"\x00\x01\x08\x00\x06\x04"
"""Hardware type Ethernet, protocol type IPv4, lengths 6 and 4 (RFC 826, RFC 5494)."""
_STRUCT: Final = Struct("!6sH6s4s6s4s")

COUNTERS: Final = ("arp_truncated", "arp_unsupported")


class ArpPacket(NamedTuple):
    """Operation, and the sender's and target's hardware (6 octets) and protocol (4) addresses."""

    operation: int
    sender_mac: bytes
    sender: bytes
    target_mac: bytes
    target: bytes


def parse(data: bytes | memoryview, at: int, end: int) -> ArpPacket:
    """Read the packet in data[at:end], padding allowed behind it; raises only WireError."""
    if end - at < PACKET_LEN or len(data) < end:
        raise WireError("arp_truncated")
    prefix, operation, sender_mac, sender, target_mac, target = _STRUCT.unpack_from(data, at)
    if prefix != _PREFIX:
        raise WireError("arp_unsupported")
    return ArpPacket(operation, sender_mac, sender, target_mac, target)


def build(
    operation: int, sender_mac: bytes, sender: bytes, target_mac: bytes, target: bytes
) -> bytes:
    """Twenty-eight octets of ARP for IPv4 over Ethernet."""
    return _STRUCT.pack(_PREFIX, operation, sender_mac, sender, target_mac, target)
