"""Where a name that does not exist ends up: one table for all zones.

Cut labels off the front of any name until this table knows the rest, and you are at its closest
encloser in the right zone. What the table says there decides, together with the length of the name,
all octets of the answer (see `lookup.Shape`): below a cut the referral, beside a wildcard its
records (for each type), elsewhere NXDOMAIN. So a flood of random names needs a few slices and
look-ups a query, and as many renderings as it has lengths. Imports `consts`, `lookup` and `zone`.
"""

from __future__ import annotations

from typing import Final

from appliance.dns.consts import NS
from appliance.dns.lookup import Shape, Zones
from appliance.dns.zone import Node, Zone

UNSHAPED: Final = 0
"""The place of names whose answers depend on more: those below a DNAME."""


class Places:
    """Closest enclosers and what they mean; built with the catalog."""

    __slots__ = ("_numbers", "table")

    def __init__(self, zones: Zones) -> None:
        """Walk all nodes of all zones once."""
        self.table: dict[bytes, int] = {}
        """Lower-cased wire name to place. The lowest bit tells that the type matters."""
        self._numbers: dict[Zone | Node, int] = {}
        origins = zones.by_origin
        # A name belongs to the deepest zone above it; nodes under another zone's apex are hidden.
        nested = {origin for origin in origins if origin[0] and zones.find(origin[1 + origin[0] :])}
        for zone in origins.values():
            for name, node in zone.nodes.items():
                if nested and zones.find(name) is not zone:
                    continue
                self.table[name] = self._place(zone, node)

    def _place(self, zone: Zone, node: Node) -> int:
        cover = node.cover
        if cover is not None:
            if NS in cover.rrsets and cover is not zone.apex:
                return self._number(cover, False)
            return UNSHAPED
        if node.wildcard is not None:
            return self._number(node, True)
        return self._number(zone, False)

    def _number(self, what: Zone | Node, typed: bool) -> int:
        number = self._numbers.get(what)
        if number is None:
            number = self._numbers[what] = (len(self._numbers) + 1) << 1 | typed
        return number

    def key(self, shape: Shape, length: int, qtype: int) -> int:
        """The key of a shaped answer: place, length of the name, and type where it matters."""
        what = shape.place
        place = self._number(what, isinstance(what, Node) and what.cover is None)
        return place << 24 | length << 16 | (qtype if place & 1 else 0)
