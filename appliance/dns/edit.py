"""The next version of a zone, made from this one and a difference, without reading it again.

Nodes that a difference does not touch are shared by both versions, so a change costs what it
touches and one copy of the dictionary of names (20 ms for a million); many differences, one upon
the other, cost one copy too. Only where a delegation or a DNAME comes or goes must everything below
it be told. The old version is left as it is: transfers
that are under way go on from it. Imports `consts`, `errors`, `names`, `serial`, `zone`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from appliance.dns import names
from appliance.dns.consts import DNAME, NS, RRSIG, SOA
from appliance.dns.errors import LocalError
from appliance.dns.serial import Difference, Record, soa_record, with_serial
from appliance.dns.zone import (
    MANY,
    MAX_SET,
    Node,
    RRset,
    Zone,
    attach,
    canonical,
    is_signed,
    too_many,
)


class Edited(NamedTuple):
    """Another version of a zone."""

    zone: Zone
    names: frozenset[bytes]
    """All names, in lower case, at which the versions differ or lead elsewhere."""


def apply(zone: Zone, change: Difference, *, lenient: bool = False) -> Edited:
    """The version that a difference leads to; LocalError if it is not a difference of this zone.

    `lenient`: what is to go and is not there, and what is to come and is there, is no matter.
    """
    return apply_all(zone, (change,), lenient=lenient)


def apply_all(zone: Zone, changes: Iterable[Difference], *, lenient: bool = False) -> Edited:
    """The version that differences lead to, each upon the one before, as `apply` makes each.

    LocalError as soon as one does not fit the version before it.
    """
    editor = _Editor(zone, lenient)
    for change in changes:
        editor.take(change)
    return editor.finish()


def renumbered(zone: Zone, serial: int) -> Zone:
    """The zone with a serial; another version, since this one may have been rendered."""
    if serial == zone.serial:
        return zone
    old = soa_record(zone)
    return apply(zone, Difference(old, (*old[:3], with_serial(old[3], serial)), (), ())).zone


class _Editor:
    """Makes one version; use once."""

    def __init__(self, zone: Zone, lenient: bool) -> None:
        self.zone = zone
        self.lenient = lenient
        self.nodes = dict(zone.nodes)
        self.records = zone.records
        self.mine: set[bytes] = set()
        """Names whose nodes are this version's own and may be changed."""
        self.tops: set[bytes] = set()
        """Names at or below which covers must be told anew."""
        self.touched: set[bytes] = set()
        """Names of records that went or came."""
        self.serial = zone.serial
        self.forms: dict[tuple[bytes, int], set[bytes]] = {}
        """Canonical rdata of sets with at least `MANY` records, by name and type."""

    def take(self, change: Difference) -> None:
        """Go on by a difference; LocalError, after which nothing is of use."""
        if not self.lenient and change.old_serial != self.serial:
            raise LocalError(f"the difference is from {change.old_serial}, not from {self.serial}")
        self.serial = change.new_serial
        touched = {record[0].lower() for record in (*change.removed, *change.added)}
        self.touched |= touched
        for record in change.removed:
            self._remove(record)
        for record in change.added:
            self._add(record)
        soa = self._soa(change)
        self._own(self.zone.origin).rrsets[SOA] = RRset(SOA, soa[2], (soa[3],), self.zone.soa.where)
        # Empty nodes that lead nowhere are no names any more; the deepest go first.
        for name in sorted(touched, key=len, reverse=True):
            self._prune(name)

    def finish(self) -> Edited:
        """The version that the differences have led to."""
        touched = self.touched
        signed = is_signed(self.nodes[self.zone.origin])
        if signed != self.zone.signed:
            # From now on all signatures count, or none.
            for name in [name for name, node in self.nodes.items() if RRSIG in node.rrsets]:
                self._own(name)
        self.tops.update(n for n in touched if _covers(self.nodes.get(n), self.zone.origin))
        if self.tops:
            self._cover()
        for name in self.mine:
            if name in self.nodes:
                attach(self.nodes[name], signed=signed)
        zone = Zone(
            self.zone.origin,
            self.nodes,
            records=self.records,
            files=self.zone.files,
            digest=self.zone.digest,
        )
        return Edited(zone, frozenset(self.mine | touched))

    def _soa(self, change: Difference) -> Record:
        old, new = change.old, change.new
        if self.lenient and with_serial(old[3], 0) == with_serial(new[3], 0):
            # Only the serial was changed: what else the zone's SOA says is somebody's word.
            ours = self.nodes[self.zone.origin].rrsets[SOA]
            return new[0], SOA, ours.ttl, with_serial(ours.rdatas[0], change.new_serial)
        return new

    def _own(self, name: bytes) -> Node:
        """The node of a name that exists, as one of this version."""
        node = self.nodes[name]
        if name in self.mine:
            return node
        self.mine.add(name)
        if node.cover is node:
            self.tops.add(name)
        fresh = Node(name, node.owner)
        fresh.rrsets = dict(node.rrsets)
        fresh.cover = node.cover
        fresh.wildcard = node.wildcard
        fresh.children = node.children
        self.nodes[name] = fresh
        if name[:2] == names.WILDCARD and name != self.zone.origin:
            self._own(names.parent(name)).wildcard = fresh
        return fresh

    def _remove(self, record: Record) -> None:
        owner, rtype, _, rdata = record
        name = owner.lower()
        node = self.nodes.get(name)
        rrset = node.rrsets.get(rtype) if node is not None else None
        form = canonical(rtype, rdata)
        kept = () if rrset is None else rrset.rdatas
        left = tuple(one for one in kept if one != rdata)
        if len(left) == len(kept):
            left = tuple(one for one in kept if canonical(rtype, one) != form)
        if rrset is None or len(left) == len(kept):
            if self.lenient:
                return
            raise LocalError(f"{names.to_text(owner)} has no such record of type {rtype}")
        forms = self.forms.get((name, rtype))
        if forms is not None:
            forms.discard(form)
        rrsets = self._own(name).rrsets
        if left:
            rrsets[rtype] = RRset(rtype, rrset.ttl, left, rrset.where)
        else:
            del rrsets[rtype]
        self.records -= 1

    def _add(self, record: Record) -> None:
        owner, rtype, ttl, rdata = record
        name = owner.lower()
        if not names.is_below(name, self.zone.origin) or rtype == SOA:
            raise LocalError(f"{names.to_text(owner)} of type {rtype} is not the zone's")
        if name not in self.nodes:
            self._grow(name, owner)
        node = self._own(name)
        rrset = node.rrsets.get(rtype)
        if rrset is None:
            node.rrsets[rtype] = RRset(rtype, ttl, (rdata,))
        else:
            if self._is_there(name, rrset, canonical(rtype, rdata)):
                if not self.lenient:
                    raise LocalError(f"{names.to_text(owner)} has this record already")
                return
            if len(rrset.rdatas) >= MAX_SET:
                raise too_many(owner)
            # RFC 2181 §5.2: one TTL for all; the newcomer's is what is meant now.
            node.rrsets[rtype] = RRset(rtype, ttl, (*rrset.rdatas, rdata), rrset.where)
        self.records += 1

    def _is_there(self, name: bytes, rrset: RRset, form: bytes) -> bool:
        """Whether a set has a record; it is to get it if it has not."""
        rtype = rrset.rtype
        if len(rrset.rdatas) < MANY:
            self.forms.pop((name, rtype), None)
            return any(canonical(rtype, one) == form for one in rrset.rdatas)
        forms = self.forms.get((name, rtype))
        if forms is None:
            forms = self.forms[name, rtype] = {canonical(rtype, one) for one in rrset.rdatas}
        there = form in forms
        forms.add(form)
        return there

    def _grow(self, name: bytes, owner: bytes) -> None:
        """A new node and the empty non-terminals that lead to it."""
        fresh: list[Node] = []
        while name not in self.nodes:
            node = self.nodes[name] = Node(name, name if owner == name else owner)
            self.mine.add(name)
            fresh.append(node)
            name, owner = names.parent(name), names.parent(owner)
        cover = self.nodes[name].cover
        for node in fresh:
            node.cover = cover
            above = self._own(names.parent(node.name))
            above.children += 1
            if node.name[:2] == names.WILDCARD:
                above.wildcard = node

    def _prune(self, name: bytes) -> None:
        """Take away a node without records and without names below it, and so upwards."""
        while name != self.zone.origin:
            node = self.nodes.get(name)
            if node is None or node.rrsets or node.children:
                return
            del self.nodes[name]
            above = self._own(names.parent(name))
            above.children -= 1
            if name[:2] == names.WILDCARD:
                above.wildcard = None
            name = above.name

    def _cover(self) -> None:
        """Tell everything at or below `tops` its highest cut or DNAME anew."""
        origin = self.zone.origin
        tails = tuple(self.tops)
        below = [
            name
            for name in self.nodes
            if name.endswith(tails) and any(names.is_below(name, top) for top in tails)
        ]
        below.sort(key=len)
        for name in below:
            node = self._own(name)
            node.cover = None if name == origin else self.nodes[names.parent(name)].cover
            if node.cover is None and _covers(node, origin):
                node.cover = node


def _covers(node: Node | None, origin: bytes) -> bool:
    """True if the node is a zone cut or owns a DNAME."""
    return node is not None and (
        DNAME in node.rrsets or (NS in node.rrsets and node.name != origin)
    )
