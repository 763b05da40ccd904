"""Addresses, and the way to others: what a host knows of the Internet around it (RFC 1122 §3.3).

One interface with a few addresses; what lies in one of their networks is a neighbour, everything
else goes to the gateway.  Addresses are bytes of 4 or 16, and nothing here asks which.

It imports `wire.address`.
"""

from __future__ import annotations

from typing import Final

from appliance.net.wire.address import from_text, in_network, interface_from_text

LIMITED_BROADCAST: Final = b"\xff\xff\xff\xff"  # RFC 919 §7
MAX_ADDRESSES: Final = 64  # per interface: more is a misconfiguration, and each costs a look-up


class Addresses:
    """Our addresses on one interface, their networks, and the gateways beyond them."""

    __slots__ = ("_gateways", "_networks", "broadcasts", "local")

    def __init__(self) -> None:
        self.local: dict[bytes, int] = {}  # address -> prefix length, in the order of addition
        self.broadcasts: set[bytes] = {LIMITED_BROADCAST}
        self._networks: list[tuple[bytes, int]] = []
        self._gateways: list[bytes] = []

    def add(self, cidr: str) -> bytes:
        """Take `cidr` ("10.0.0.2/24") as ours, return the address; ValueError if it cannot be."""
        address, prefix = interface_from_text(cidr)
        if len(self.local) >= MAX_ADDRESSES:
            raise ValueError(f"more than {MAX_ADDRESSES} addresses on one interface")
        if not self.is_unicast(address):
            raise ValueError(f"{cidr} is not the address of a host")
        self.local[address] = prefix
        self._networks.append((address, prefix))
        if len(address) == 4 and prefix < 31:
            # RFC 1122 §3.2.1.3 (e): the directed broadcast, host part all ones (RFC 3021: not /31).
            host_bits = (1 << (32 - prefix)) - 1
            self.broadcasts.add((int.from_bytes(address) | host_bits).to_bytes(4))
        return address

    def add_gateway(self, address: str) -> None:
        """Send what is not local by `address`; ValueError unless it is on one of our networks."""
        gateway = from_text(address)
        if not self.on_link(gateway):
            raise ValueError(f"gateway {address} is on none of our networks")
        self._gateways.append(gateway)

    @staticmethod
    def is_unicast(address: bytes) -> bool:
        """Tell whether a packet may come from, or a connection go to, `address`.

        RFC 1122 §3.2.1.3: no broadcast, multicast, loopback or "this host" address as a source.
        """
        if len(address) == 4:
            return 0 < address[0] < 224 and address[0] != 127
        return address[0] != 0xFF and any(address)

    def on_link(self, address: bytes) -> bool:
        """Tell whether `address` is on a network of ours (RFC 1122 §3.3.1.1)."""
        return any(in_network(address, network, prefix) for network, prefix in self._networks)

    def next_hop(self, destination: bytes) -> bytes | None:
        """Return the neighbour that a packet to `destination` goes to; None: there is no way."""
        if self.on_link(destination):
            return destination
        for gateway in self._gateways:
            if len(gateway) == len(destination):
                return gateway
        return None

    def source_for(self, destination: bytes) -> bytes | None:
        """Return our address to use towards `destination` (RFC 1122 §3.3.4.3)."""
        fallback = None
        for address, prefix in self.local.items():
            if len(address) == len(destination):
                if in_network(destination, address, prefix):
                    return address
                fallback = fallback or address
        return fallback
