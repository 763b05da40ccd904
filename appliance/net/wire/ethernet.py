"""Ethernet II frames (IEEE 802.3 §3, RFC 894): fourteen octets of header, and MAC address text.

No 802.1Q tags and no LLC: a frame whose type field is below 0x0600 is a length, and its type is
reported as it stands, so that the caller counts it as unknown. Imports `errors` only.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import Final

from appliance.net.errors import WireError

HEADER_LEN: Final = 14
"""Octets: destination, source, type."""
ADDRESS_LEN: Final = 6
"""Octets of an EUI-48."""
MIN_FRAME: Final = 60
"""Shortest frame on a real wire, in octets without the check sequence (IEEE 802.3 §4.2.3.3)."""

# https://www.iana.org/assignments/ieee-802-numbers (RFC 9542 §3)
ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_ARP: Final = 0x0806
ETHERTYPE_IPV6: Final = 0x86DD

BROADCAST: Final = b"\xff" * 6
ZERO: Final = bytes(6)

STRUCT: Final = Struct("!6s6sH")
_MAC_TEXT: Final = re.compile("[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}")

COUNTERS: Final = ("ethernet_truncated",)


def parse(frame: bytes | memoryview, at: int) -> tuple[bytes, bytes, int]:
    """(destination, source, type) of the frame at `at`; raises only WireError."""
    if len(frame) - at < HEADER_LEN:
        raise WireError("ethernet_truncated")
    dst, src, ethertype = STRUCT.unpack_from(frame, at)
    return dst, src, ethertype


def header(dst: bytes, src: bytes, ethertype: int) -> bytes:
    """Fourteen octets of Ethernet II header."""
    return STRUCT.pack(dst, src, ethertype)


def is_group(mac: bytes) -> bool:
    """True for multicast and broadcast addresses (the I/G bit, IEEE 802 §8.2)."""
    return bool(mac[0] & 1)


def mac_text(mac: bytes) -> str:
    """`02:00:5e:10:00:01` from six octets."""
    return mac.hex(":")


def mac_from_text(text: str) -> bytes:
    """Six octets from `02:00:5e:10:00:01` (or with hyphens); ValueError for anything else."""
    if _MAC_TEXT.fullmatch(text) is None:
        raise ValueError(f"not a MAC address: {text!r} (six pairs of hex digits with colons)")
    return bytes.fromhex(text.replace(":", "").replace("-", ""))
