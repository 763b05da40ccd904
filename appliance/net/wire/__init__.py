"""Wire formats: bytes to plain values and back, without any state.

Each module takes `(data, at, end)` and never copies a payload. A function on hostile bytes raises
only `WireError`, whose counter is one of `COUNTERS`. May import `errors` and `checksum`.
"""

from __future__ import annotations

from typing import Final

from appliance.net.wire import (
    arp,
    dhcp,
    ethernet,
    icmp,
    icmpv6,
    ipv4,
    ipv6,
    mld,
    ndp,
    tcp,
    udp,
    virtio,
)

COUNTERS: Final[tuple[str, ...]] = (
    *virtio.COUNTERS,
    *ethernet.COUNTERS,
    *arp.COUNTERS,
    *ipv4.COUNTERS,
    *icmp.COUNTERS,
    *ipv6.COUNTERS,
    *icmpv6.COUNTERS,
    *ndp.COUNTERS,
    *mld.COUNTERS,
    *dhcp.COUNTERS,
    *udp.COUNTERS,
    *tcp.COUNTERS,
)
"""The name of every counter that a WireError of these modules may carry."""
