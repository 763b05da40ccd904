"""Dynamic update (RFC 2136): whether it may be, and what it does to a zone.

A pure decision: a zone and an UPDATE message in, a response code and a difference out. All of a
message's changes come to pass or none. An update that leaves a zone as no master file may be (an
alias beside other data, records below a DNAME) is refused. Signatures, journals and answers are
`authority`'s work. Imports the leaves of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from appliance.dns import names
from appliance.dns.checks import check_names
from appliance.dns.consts import (
    ANY,
    CLASS_ANY,
    CLASS_NONE,
    CNAME,
    DNAME,
    FORMERR,
    IN,
    NOERROR,
    NOTZONE,
    NS,
    NXDOMAIN,
    NXRRSET,
    REFUSED,
    SOA,
    YXDOMAIN,
    YXRRSET,
)
from appliance.dns.edit import Edited, apply
from appliance.dns.errors import LocalError, WireError
from appliance.dns.lookup import BESIDE_CNAME
from appliance.dns.reader import Parts, WireRecord, check_rdata, is_meta
from appliance.dns.serial import (
    Difference,
    Record,
    is_newer,
    serial_of,
    soa_record,
    successor,
    with_serial,
)
from appliance.dns.zone import RRset, Zone, canonical

Allowed = Callable[[bytes, int], bool]
"""Whether the one who asks may change a lower-cased name's records of a type (ANY: of all)."""


class Outcome(NamedTuple):
    """What is to be answered, and what changes."""

    rcode: int
    change: Difference | None
    """None: nothing."""
    edited: Edited | None


def decide(zone: Zone, message: Parts, allowed: Allowed, today: int) -> Outcome:
    """RFC 2136 §3 from the prerequisites on; `today` as 20260131, for serials that are dates."""
    try:
        prerequisites, updates = message.sections
        rcode = _prerequisites(zone, prerequisites)
        if not rcode:
            rcode = _prescan(zone, updates, allowed)
        if rcode:
            return Outcome(rcode, None, None)
        draft = _Draft(zone)
        for record in updates:
            draft.take(record)
    except WireError:
        return Outcome(FORMERR, None, None)
    change = draft.difference(today)
    if change is None:
        return Outcome(NOERROR, None, None)
    try:
        edited = apply(zone, change)
    except LocalError:
        return Outcome(REFUSED, None, None)  # a set that is too large
    if _is_ill(edited):
        return Outcome(REFUSED, None, None)
    return Outcome(NOERROR, change, edited)


def _is_ill(edited: Edited) -> bool:
    zone = edited.zone
    for name in edited.names:
        node = zone.nodes.get(name)
        # RFC 6672 §2.4: nothing may stand below a DNAME.
        if node is not None and DNAME in node.rrsets and node.children and name != zone.origin:
            return True
    return any(severity == "error" for _, severity, _ in check_names(zone, edited.names))


def _prerequisites(zone: Zone, records: Iterable[WireRecord]) -> int:
    """RFC 2136 §3.2."""
    wanted: dict[tuple[bytes, int], set[bytes]] = {}
    for record in records:
        name = record.owner.lower()
        if record.ttl:
            return FORMERR
        if not names.is_below(name, zone.origin):
            return NOTZONE
        node = zone.nodes.get(name)
        rrsets = node.rrsets if node is not None else {}
        if record.rclass in (CLASS_ANY, CLASS_NONE):
            if record.rdata:
                return FORMERR
            there = bool(rrsets) if record.rtype == ANY else record.rtype in rrsets
            if record.rclass == CLASS_ANY and not there:
                return NXDOMAIN if record.rtype == ANY else NXRRSET
            if record.rclass == CLASS_NONE and there:
                return YXDOMAIN if record.rtype == ANY else YXRRSET
        elif record.rclass == IN:
            check_rdata(record.rtype, record.rdata)
            form = canonical(record.rtype, record.rdata)
            wanted.setdefault((name, record.rtype), set()).add(form)
        else:
            return FORMERR
    for (name, rtype), forms in wanted.items():
        node = zone.nodes.get(name)
        rrset = node.rrsets.get(rtype) if node is not None else None
        if rrset is None or {canonical(rtype, one) for one in rrset.rdatas} != forms:
            return NXRRSET
    return NOERROR


def _prescan(zone: Zone, records: Iterable[WireRecord], allowed: Allowed) -> int:
    """RFC 2136 §3.4.1.3, and whether the one who asks may do all of it (§3.3)."""
    refused = False
    for record in records:
        name = record.owner.lower()
        if not names.is_below(name, zone.origin):
            return NOTZONE
        meta = is_meta(record.rtype)
        if record.rclass == IN:
            if meta:
                return FORMERR
            check_rdata(record.rtype, record.rdata)
        elif record.rclass == CLASS_ANY:
            if record.ttl or record.rdata or (meta and record.rtype != ANY):
                return FORMERR
        elif record.rclass == CLASS_NONE:
            if record.ttl or meta:
                return FORMERR
        else:
            return FORMERR
        refused = refused or not allowed(name, record.rtype)
    return REFUSED if refused else NOERROR


class _Set:
    """An RRset that changes; a message may bring thousands of its records."""

    __slots__ = ("records", "ttl")

    def __init__(self, rtype: int, ttl: int, rdatas: Iterable[bytes]) -> None:
        self.ttl = ttl
        self.records = {canonical(rtype, one): one for one in rdatas}
        """By canonical rdata."""

    @property
    def rdatas(self) -> tuple[bytes, ...]:
        return tuple(self.records.values())


class _Draft:
    """The touched names of a zone as they will be."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.touched: dict[bytes, tuple[bytes, dict[int, _Set]]] = {}
        """Lower-cased name to the owner as written and the RRsets."""

    def rrsets(self, owner: bytes) -> dict[int, _Set]:
        name = owner.lower()
        found = self.touched.get(name)
        if found is None:
            node = self.zone.nodes.get(name)
            if node is not None:
                some = node.rrsets.items()
                found = (node.owner, {one: _Set(one, its.ttl, its.rdatas) for one, its in some})
            else:
                found = (owner, {})
            self.touched[name] = found
        return found[1]

    def take(self, record: WireRecord) -> None:
        """RFC 2136 §3.4.2.2 to §3.4.2.4, for one record of the update section."""
        rrsets = self.rrsets(record.owner)
        apex = record.owner.lower() == self.zone.origin
        rtype = record.rtype
        if record.rclass == IN:
            self._add(rrsets, apex, record)
        elif record.rclass == CLASS_ANY:
            gone = list(rrsets) if rtype == ANY else [rtype]
            for one in gone:
                if not (apex and one in (SOA, NS)):
                    rrsets.pop(one, None)
        else:
            rrset = rrsets.get(rtype)
            if rtype == SOA or rrset is None:
                return
            form = canonical(rtype, record.rdata)
            last = form in rrset.records and len(rrset.records) == 1
            if last and apex and rtype == NS:
                return  # §3.4.2.4: the last name server stays
            rrset.records.pop(form, None)
            if last:
                del rrsets[rtype]

    def _add(self, rrsets: dict[int, _Set], apex: bool, record: WireRecord) -> None:
        """RFC 2136 §3.4.2.2."""
        rtype = record.rtype
        if rtype == SOA:
            soa = rrsets.get(SOA)
            if apex and soa is not None and is_newer(serial_of(record.rdata), _serial(soa)):
                rrsets[SOA] = _Set(SOA, record.ttl, (record.rdata,))
            return
        others = set(rrsets) - BESIDE_CNAME
        if rtype == CNAME and others:
            return  # an alias where there is something else: silently ignored
        if rtype not in BESIDE_CNAME and CNAME in rrsets:
            return
        rrset = rrsets.get(rtype)
        if rrset is None or rtype in (CNAME, DNAME):
            if rrset is not None and rrset.rdatas == (record.rdata,) and rrset.ttl == record.ttl:
                return
            rrsets[rtype] = _Set(rtype, record.ttl, (record.rdata,))
            return
        rrset.records.setdefault(canonical(rtype, record.rdata), record.rdata)
        # RFC 2181 §5.2: a set has one TTL; the newest word about it counts.
        rrset.ttl = record.ttl

    def difference(self, today: int) -> Difference | None:
        """What leads from the zone to the draft, with a newer serial; None: nothing."""
        removed: list[Record] = []
        added: list[Record] = []
        for name, (owner, after) in self.touched.items():
            node = self.zone.nodes.get(name)
            before: dict[int, RRset] = node.rrsets if node is not None else {}
            removed += _missing(owner, before, after)
            added += _missing(owner, after, before)
        old = soa_record(self.zone)
        touched = self.touched.get(self.zone.origin)
        soa: RRset | _Set = touched[1][SOA] if touched is not None else self.zone.soa
        rdata = soa.rdatas[0]
        if not removed and not added and rdata == old[3]:
            return None
        if rdata == old[3]:
            rdata = with_serial(rdata, successor(self.zone.serial, today))
        new = (old[0], SOA, soa.ttl, rdata)
        return Difference(old, new, tuple(removed), tuple(added))


def _serial(soa: _Set) -> int:
    return serial_of(soa.rdatas[0])


def _missing(
    owner: bytes, one: Mapping[int, RRset | _Set], other: Mapping[int, RRset | _Set]
) -> Iterator[Record]:
    """Records of one state, but for the SOA, that the other has not with the same TTL."""
    for rtype, rrset in one.items():
        if rtype == SOA:
            continue
        theirs = other.get(rtype)
        same = theirs is not None and theirs.ttl == rrset.ttl
        kept = frozenset(theirs.rdatas if theirs is not None and same else ())
        for rdata in rrset.rdatas:
            if rdata not in kept:
                yield owner, rtype, rrset.ttl, rdata
