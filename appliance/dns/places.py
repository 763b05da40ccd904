"""Where a name that does not exist ends up: one table for all zones.

Cut labels off the front of any name until this table knows the rest, and you are at its closest
encloser in the right zone. What the table says there decides, together with the length of the name,
all octets of the answer (see `lookup.Shape`): below a cut the referral, beside a wildcard its
records (for each type), elsewhere NXDOMAIN. So a flood of random names needs a few slices and
look-ups a query, and as many renderings as it has lengths. Imports `consts`, `lookup`,
`names` and `zone`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from appliance.dns import names
from appliance.dns.consts import NS, NSEC3
from appliance.dns.lookup import Shape, Zones
from appliance.dns.zone import Node, Zone

UNSHAPED: Final = 0
"""The place of names whose answers depend on more: those below a DNAME."""


class Places:
    """Closest enclosers and what they mean; built with the catalog."""

    __slots__ = ("_nested", "_numbers", "_zones", "table")

    def __init__(self, zones: Zones) -> None:
        """Walk all nodes of all zones once."""
        self.table: dict[bytes, int] = {}
        """Lower-cased wire name to place. The lowest bit tells that the type matters."""
        self._numbers: dict[tuple[bytes, bool, bool], int] = {}
        """By name, whether it is a zone's, and whether the type matters."""
        self._zones = zones
        self._nested: set[bytes] = set()
        self._nest()
        for zone in zones.by_origin.values():
            self.put(zone, zone.nodes)

    def _nest(self) -> None:
        # A name belongs to the deepest zone above it; nodes under another zone's apex are hidden.
        zones = self._zones
        self._nested = {
            origin
            for origin in zones.by_origin
            if origin[0] and zones.find(origin[1 + origin[0] :]) is not None
        }

    def put(self, zone: Zone, some: Iterable[bytes]) -> None:
        """Look at some names of a zone anew, which may have come, changed or gone."""
        nodes, table, zones = zone.nodes, self.table, self._zones
        for name in some:
            if self._nested and zones.find(name) is not zone:
                continue
            node = nodes.get(name)
            if node is None:
                table.pop(name, None)
            else:
                table[name] = self._place(zone, node)

    def replaced(self, old: Zone | None, new: Zone | None) -> None:
        """A zone has come, gone or changed as a whole; the set of zones has it already."""
        self._nest()
        for name in old.nodes if old is not None else ():
            self.table.pop(name, None)
        if new is not None:
            self.put(new, new.nodes)
        changed = old if old is not None else new
        if changed is None or (old is not None and new is not None):
            return
        # Names of a zone that came or went may lie in the zones around it.
        for zone in self._zones.by_origin.values():
            if zone is not new and (
                names.is_below(changed.origin, zone.origin)
                or names.is_below(zone.origin, changed.origin)
            ):
                self.put(zone, zone.nodes)

    def _place(self, zone: Zone, node: Node) -> int:
        if zone.signed and NSEC3 in node.rrsets and node is not zone.apex:
            node = zone.apex  # RFC 5155 §7.2.8, as in `lookup`
        cover = node.cover
        if cover is not None:
            if NS in cover.rrsets and cover.name != zone.origin:
                return self._number(cover.name, False, False)
            return UNSHAPED
        if node.wildcard is not None:
            return self._number(node.name, False, True)
        return self._number(zone.origin, True, False)

    def _number(self, name: bytes, whole: bool, typed: bool) -> int:
        key = (name, whole, typed)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = (len(self._numbers) + 1) << 1 | typed
        return number

    def key(self, shape: Shape, length: int, qtype: int) -> int:
        """The key of a shaped answer: place, length of the name, and type where it matters."""
        what = shape.place
        if isinstance(what, Node):
            place = self._number(what.name, False, what.cover is None)
        else:
            place = self._number(what.origin, True, False)
        return place << 24 | length << 16 | (qtype if place & 1 else 0)
