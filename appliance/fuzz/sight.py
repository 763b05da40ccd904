"""What stands in a frame: the IP packet, of either version. Imports `net.wire`."""

from __future__ import annotations

from typing import NamedTuple

from appliance.net.vif.offload import NETWORK_AT
from appliance.net.wire import ethernet, ipv4, ipv6
from appliance.net.wire.virtio import VNET_HDR_LEN


class Packet(NamedTuple):
    """An IP packet of either version; offsets are into the frame, `tos` has DSCP and ECN."""

    protocol: int
    src: bytes
    dst: bytes
    tos: int
    payload_at: int
    payload_end: int


def packet_of(frame: bytes) -> Packet | None:
    """Read a frame; None when it is no IP packet.  Raises only WireError."""
    kind = ethernet.parse(frame, VNET_HDR_LEN)[2]
    if kind == ethernet.ETHERTYPE_IPV4:
        four = ipv4.parse(frame, NETWORK_AT, len(frame))
        return Packet(
            four.protocol, four.src, four.dst, four.dscp_ecn, four.payload_at, four.payload_end
        )
    if kind == ethernet.ETHERTYPE_IPV6:
        six = ipv6.parse(frame, NETWORK_AT, len(frame))
        return Packet(
            six.protocol, six.src, six.dst, six.traffic_class, six.payload_at, six.payload_end
        )
    return None
