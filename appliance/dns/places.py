"""Where a name that does not exist ends up: one table for all zones.

Cut labels off the front of any name until this table knows the rest, and you are at its closest
encloser in the right zone. What the table says there decides, together with the length of the name,
all octets of the answer (see `lookup.Shape`): below a cut the referral, beside a wildcard its
records (for each type), elsewhere NXDOMAIN. So a flood of random names needs a few slices and
look-ups a query, and as many renderings as it has lengths. Imports `consts`, `lookup`,
`names` and `zone`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from appliance.dns import names
from appliance.dns.consts import NS, NSEC3
from appliance.dns.lookup import Shape, Zones
from appliance.dns.zone import Node, Zone

UNSHAPED: Final = 0
"""The place of names whose answers depend on more: those below a DNAME."""


class Places:
    """Closest enclosers and what they mean; built with the catalog."""

    __slots__ = ("_below", "_nested", "_numbers", "_zones", "table")

    def __init__(self, zones: Zones) -> None:
        """Walk all nodes of all zones once."""
        self.table: dict[bytes, int] = {}
        """Lower-cased wire name to place. The lowest bit tells that the type matters."""
        self._numbers: dict[tuple[bytes, bool, bool], int] = {}
        """By name, whether it is a zone's, and whether the type matters."""
        self._zones = zones
        self._nested: set[bytes] = set()
        self._below: dict[bytes, set[bytes]] = {}
        """By name, the origins of zones below it, of which there may be 100,000 side by side."""
        for origin in zones.by_origin:
            for above in _above(origin):
                self._below.setdefault(above, set()).add(origin)
            self._nest(origin)
        for zone in zones.by_origin.values():
            self.put(zone, zone.nodes)

    def _nest(self, origin: bytes) -> None:
        # A name belongs to the deepest zone above it; nodes under another zone's apex are hidden.
        zones = self._zones
        inside = origin != names.ROOT and zones.find(names.parent(origin)) is not None
        if inside and origin in zones.by_origin:
            self._nested.add(origin)
        else:
            self._nested.discard(origin)

    def put(self, zone: Zone, some: Iterable[bytes]) -> None:
        """Look at some names of a zone anew, which may have come, changed or gone."""
        nodes, table, zones = zone.nodes, self.table, self._zones
        for name in some:
            if self._nested and zones.find(name) is not zone:
                continue
            if zones.absent and zones.is_absent(name, zone):
                continue
            node = nodes.get(name)
            if node is None:
                table.pop(name, None)
            else:
                table[name] = self._place(zone, node)

    def hide(self, origin: bytes) -> None:
        """A zone is without data: nothing is known at and below its name, whatever is around it."""
        self._clear(origin)
        self.table[origin] = UNSHAPED

    def _clear(self, origin: bytes) -> None:
        """Forget what zones around one have at and below its name."""
        for above in _above(origin):
            zone = self._zones.by_origin.get(above)
            for name in zone.nodes if zone is not None else ():
                if names.is_below(name, origin) and not self._is_inner(name, origin):
                    self.table.pop(name, None)

    def show(self, origin: bytes) -> None:
        """It is not any more: the zone around it, if there is one, says what is there."""
        self.table.pop(origin, None)
        zone = self._zones.find(origin)
        if zone is not None and zone.origin != origin:
            self.put(zone, [name for name in zone.nodes if names.is_below(name, origin)])

    def replaced(self, old: Zone | None, new: Zone | None) -> None:
        """A zone has come, gone or changed as a whole; the set of zones has it already."""
        changed = old if old is not None else new
        if changed is None:
            return
        origin, around = changed.origin, []
        if old is None or new is None:
            # Names of a zone that came or went may lie in the zones around it.
            around = self._around(origin)
            for one in (origin, *around):
                self._nest(one)
            for above in _above(origin):
                if new is not None:
                    self._below.setdefault(above, set()).add(origin)
                else:
                    self._below[above].discard(origin)
                    if not self._below[above]:
                        del self._below[above]
        alone = origin not in self._below and not self._zones.absent
        for name in old.nodes if old is not None else ():
            if alone or not self._is_inner(name, origin):
                self.table.pop(name, None)
        if new is not None:
            if old is None:
                self._clear(origin)
            self.put(new, new.nodes)
        for one in around:
            zone = self._zones.by_origin[one]
            self.put(zone, zone.nodes)

    def _is_inner(self, name: bytes, origin: bytes) -> bool:
        """Whether a name is of a zone further down than one, with or without data."""
        zones = self._zones
        while len(name) > len(origin):
            if name in zones.by_origin or name in zones.absent:
                return True
            name = names.parent(name)
        return False

    def _around(self, origin: bytes) -> list[bytes]:
        """The origins of other zones above and below one."""
        known = self._zones.by_origin
        return [*(one for one in _above(origin) if one in known), *self._below.get(origin, ())]

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


def _above(origin: bytes) -> Iterator[bytes]:
    """The names above one, up to the root."""
    while origin != names.ROOT:
        origin = names.parent(origin)
        yield origin
