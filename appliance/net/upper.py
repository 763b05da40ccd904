"""The layers above the network layer, as those below know them, and what they are handed.

It imports `wire`, and of the links their type.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from appliance.net.link import Link
from appliance.net.wire import ipv4, ipv6

Packet = ipv4.Ipv4Header | ipv6.Ipv6Packet
"""One that was taken apart; its octets are those of the frame that it came in."""


class Upper(Protocol):
    """The layers above: who gets what arrives."""

    def tcp_arrives(self, frame: bytes, packet: Packet, now: float, trusted: bool) -> None:
        """A packet carries a segment; `trusted`: its checksum needs no look."""

    def udp_arrives(
        self, frame: bytes, packet: Packet, now: float, trusted: bool, broadcast: bool
    ) -> bool:
        """A packet carries a datagram; False: nobody receives on its port."""
        ...

    def tcp_error(
        self, key: bytes, sequence: int, error: OSError | None, mtu: int, now: float
    ) -> bool:
        """ICMP speaks of a segment of ours on flow `key`: an error, or a path MTU.

        False: it speaks of nothing outstanding (RFC 5927 §4).
        """
        ...

    def udp_error(
        self, local: bytes, port: int, remote: bytes, remote_port: int, error: OSError | None
    ) -> bool:
        """ICMP speaks of a datagram; False if we never sent one."""
        ...

    def path_mtus_changed(self, remotes: Collection[bytes]) -> None:
        """Packets to `remotes` must be smaller, or may be larger again, from now on."""

    def link_mtu_changed(self, link: Link, now: float) -> None:
        """The same of packets that leave by `link`."""

    def neighbor_failed(self, cache: object, hop: bytes, error: OSError) -> None:
        """Nobody answers at the neighbour `hop` of `cache`."""

    def rerouted(self, cache: object, hop: bytes) -> None:
        """What goes by the neighbour `hop` of `cache` must find its way anew."""

    def address_lost(self, address: bytes) -> None:
        """An address is ours no longer."""
