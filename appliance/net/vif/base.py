"""What a virtual network interface is to the stack.

A *frame* inside the process is always `bytes`: the ten octets of a virtio_net_hdr (see
`wire.virtio`), then the Ethernet frame. The header is how super-segments and unfinished checksums
travel; an interface whose wire knows no such header adds and strips it at its own edge, and
`vif.offload.equip` does in software what an interface says it cannot do.

Protocol only: nothing here opens anything. Imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Protocol


class Vif(Protocol):
    """One link, as the stack sees it.

    `mtu` and `gso_max` count octets of IP packet, `mac` is six octets. `on_readable` and
    `on_writable` are for interfaces without a descriptor; the driver sets them.
    """

    name: str
    mac: bytes
    """The stack's own Ethernet address on this link."""
    mtu: int
    gso_max: int
    """Largest IP packet of a TCP super-segment that `send` takes; 0: no segmentation offload."""
    checksum_offload: bool
    """`send` takes frames with NEEDS_CSUM, the pseudo-header sum being in place."""
    udp_segments: int
    """Datagrams of one flow that `send` takes as one super-datagram (GSO_UDP_L4); 0: none."""
    on_readable: Callable[[], None] | None
    """Called when the receive queue goes from empty to non-empty, if fileno() is -1."""
    on_writable: Callable[[], None] | None
    """Called when there is room again after `send` returned False, if fileno() is -1."""

    def fileno(self) -> int:
        """The descriptor to poll, or -1: then `on_readable` and `on_writable` are called."""
        ...

    def receive(self, limit: int) -> list[bytes]:
        """Up to `limit` frames, an empty list when there are none; never blocks."""
        ...

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        """Send the frame head + payload; False when the link is full, and then nothing is taken."""
        ...

    def close(self) -> None:
        """Give the link up; afterwards `receive` returns nothing and `send` drops."""
        ...


def derived_mac(name: str) -> bytes:
    """A locally administered unicast address (six octets) that always belongs to this name.

    IEEE 802 §8.2: the second lowest bit of the first octet says "locally administered". A stable
    address spares the neighbours' caches a restart of this process.
    """
    return b"\x02" + sha256(b"appliance link " + name.encode()).digest()[:5]
