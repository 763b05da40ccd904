"""Constants of the IPv6 header (RFC 8200 §3) that the layers below IP already need.

Segmentation at the edge knows where the lengths and addresses stand; parsing and validation come
with IPv6 itself. Addresses as text are in `address`. Imports the standard library only.
"""

from __future__ import annotations

from typing import Final

HEADER_LEN: Final = 40
"""Octets of the fixed header."""
MIN_MTU: Final = 1280
"""Octets every link carries (RFC 8200 §5)."""
PAYLOAD_LEN_AT: Final = 4
NEXT_HEADER_AT: Final = 6
HOP_LIMIT_AT: Final = 7
SRC_AT: Final = 8
DST_AT: Final = 24
"""Offsets of fields in octets (RFC 8200 §3)."""
PROTO_ICMPV6: Final = 58
DEFAULT_HOP_LIMIT: Final = 64
"""Hops (RFC 1700, as for IPv4)."""
