"""The virtio_net_hdr that stands before every Ethernet frame inside the process.

VIRTIO 1.2 §5.1.6: ten octets, little-endian, that say what is left to do to a frame: a checksum to
be finished, a TCP super-segment to be cut. `csum_start` counts from the Ethernet header.

Only layout; cutting and summing is the work of `vif.offload`. Imports the standard library only.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from appliance.net.errors import WireError

VNET_HDR_LEN: Final = 10
"""Octets of struct virtio_net_hdr without num_buffers (VIRTIO 1.2 §5.1.6.1, legacy layout)."""

NEEDS_CSUM: Final = 1
"""Flag: the checksum at csum_start + csum_offset holds only the folded pseudo-header sum."""
DATA_VALID: Final = 2
"""Flag: the checksum has been verified (received frames only)."""

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
"""Several datagrams of one flow and of gso_size octets each, the last of which may be shorter."""
GSO_ECN: Final = 0x80
"""Bit beside the type: the super-segment carries CWR, which belongs to the first piece only."""

PLAIN: Final = bytes(VNET_HDR_LEN)
"""Header of a frame that is complete: no flag, no segmentation."""

STRUCT: Final = Struct("<BBHHHH")
GSO_SIZE_AT: Final = 4
"""Where gso_size stands in the header."""

COUNTERS: Final = ("vnet_truncated",)


class VnetHeader(NamedTuple):
    """Fields of a virtio_net_hdr; lengths and positions in octets."""

    flags: int
    gso_type: int
    hdr_len: int
    gso_size: int
    csum_start: int
    csum_offset: int


def pack(
    flags: int = 0,
    gso_type: int = GSO_NONE,
    hdr_len: int = 0,
    gso_size: int = 0,
    csum_start: int = 0,
    csum_offset: int = 0,
) -> bytes:
    """Ten octets of header (VIRTIO 1.2 §5.1.6.1)."""
    return STRUCT.pack(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)


def parse(frame: bytes | memoryview, at: int = 0) -> VnetHeader:
    """Read the header at `at`; raises only WireError("vnet_truncated")."""
    if len(frame) - at < VNET_HDR_LEN:
        raise WireError("vnet_truncated")
    return VnetHeader(*STRUCT.unpack_from(frame, at))
