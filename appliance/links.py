"""What a link may be called, and who is at its other end: for the settings and who acts on them.

On its own, because a machine that boots acts on settings that were validated when its image was
made, and does not import what validates them. Imports the standard library.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from itertools import chain
from typing import Final

PAIR: Final = "pair"
"""The link without any privilege: two interfaces back to back, and the gateway at the other end."""


def opposite(addresses: Sequence[str], gateways: Sequence[str]) -> str | None:
    """An IPv4 address, with its prefix length, for the other end of a link of ours.

    The router's, if it is on our first IPv4 network, or else a host's that we are not; None where
    there is no such network, or no room in it.
    """
    static = [ipaddress.IPv4Interface(cidr) for cidr in addresses if ":" not in cidr]
    if not static:
        return None
    network, own = static[0].network, {interface.ip for interface in static}
    routers = [ipaddress.IPv4Address(text) for text in gateways if ":" not in text]
    for address in chain((one for one in routers if one in network), network.hosts()):
        if address not in own:
            return f"{address}/{network.prefixlen}"
    return None
