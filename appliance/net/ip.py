"""Our addresses: which packets are for us, and which of ours others are to see (RFC 1122 §3.3).

One table for the host, whatever link an address belongs to: a packet for any of them is for us
(the weak model of RFC 1122 §3.3.4.2), but a link-local address means its link. Addresses are bytes
of 4 or 16. An address that is not yet known to be ours alone is not in here (RFC 4862 §5.4).

It imports `source`, `wire.address`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from appliance.net.source import Candidate, choose
from appliance.net.wire.address import interface_from_text

LIMITED_BROADCAST: Final = b"\xff\xff\xff\xff"  # RFC 919 §7
_LINK_LOCAL: Final = 0xFE  # the first octet of fe80::/10, and of no other address of ours
MAX_ADDRESSES: Final = 64  # of all links: more is a misconfiguration, and each costs a look


@dataclass(slots=True, eq=False)
class Local:
    """One address of ours; `origin` tells who gave it: static, slaac, dhcp, link-local."""

    address: bytes
    prefix_len: int
    link: Any
    origin: str
    deprecated: bool = False


class Addresses:
    """Our addresses on all links, and the broadcast addresses of their networks."""

    __slots__ = ("broadcasts", "local", "several")

    def __init__(self) -> None:
        self.local: dict[bytes, Local] = {}  # in the order of addition
        self.broadcasts: set[bytes] = {LIMITED_BROADCAST}
        self.several = False  # more than one of IPv4: a datagram may ask either

    def add(self, cidr: str, link: Any = None) -> bytes:
        """Take `cidr` ("10.0.0.2/24") as ours, return the address; ValueError if it cannot be."""
        address, prefix_len = interface_from_text(cidr)
        if not self.is_unicast(address):
            raise ValueError(f"{cidr} is not the address of a host")
        self.take(Local(address, prefix_len, link, "static"))
        return address

    def take(self, own: Local) -> None:
        """Add an address, or replace what is known of it; ValueError beyond MAX_ADDRESSES."""
        if own.address not in self.local and len(self.local) >= MAX_ADDRESSES:
            raise ValueError(f"more than {MAX_ADDRESSES} addresses")
        self.local[own.address] = own
        self._review()

    def remove(self, address: bytes) -> Local | None:
        """Give an address up; what it was, if it was ours."""
        own = self.local.pop(address, None)
        self._review()
        return own

    def _review(self) -> None:
        self.broadcasts.clear()
        self.broadcasts.add(LIMITED_BROADCAST)
        number = 0
        for address, own in self.local.items():
            if len(address) != 4:
                continue
            number += 1
            if own.prefix_len < 31:
                # RFC 1122 §3.2.1.3 (e): the directed broadcast, host part all ones (RFC 3021: not
                # for /31).
                host_bits = (1 << (32 - own.prefix_len)) - 1
                self.broadcasts.add((int.from_bytes(address) | host_bits).to_bytes(4))
        self.several = number > 1

    @staticmethod
    def is_unicast(address: bytes) -> bool:
        """Tell whether a packet may come from, or a connection go to, `address`.

        RFC 1122 §3.2.1.3: no broadcast, multicast, loopback or "this host" address as a source;
        RFC 4291 §2.5.2, §2.5.3, §2.5.5: nor ::, ::1 or what stands for an IPv4 address.
        """
        if len(address) == 4:
            return 0 < address[0] < 224 and address[0] != 127
        if address[0]:
            return address[0] != 0xFF
        return any(address[:10]) or address[10:12] not in (b"\0\0", b"\xff\xff")

    def are_ends(self, source: bytes, destination: bytes) -> bool:
        """Tell whether a packet between these is one host's, for an address of ours on any link.

        RFC 1122 §3.2.1.3, RFC 4291 §2.5; a link-local address means its link (§2.5.6).
        """
        return (
            destination in self.local
            and destination[0] != _LINK_LOCAL
            and source not in self.local
            and source not in self.broadcasts
            and self.is_unicast(source)
        )

    def of(self, link: Any) -> list[Local]:
        """Our addresses on one link."""
        return [own for own in self.local.values() if own.link is link]

    def source_for(self, destination: bytes, link: Any = None) -> bytes | None:
        """Return our address to use towards `destination`, which leaves by `link` (RFC 6724)."""
        return choose(
            destination,
            (
                Candidate(own.address, own.prefix_len, own.link, own.deprecated)
                for own in self.local.values()
            ),
            link,
        )
