"""Which records answer a question: RFC 1034 §4.3.2 as RFC 4592, 6672 and 8482 have amended it.

    find the zone (the longest origin that is a suffix; for DS the parent's)      step 2
    find the closest encloser in it                                             step 3
      covered by a zone cut   → referral                                        3b
      covered by a DNAME      → DNAME, synthesized CNAME, start again            3c, RFC 6672 §3.2
      the name itself         → CNAME: start again; otherwise the RRset or NODATA 3a
      a wildcard beside it    → the same, from the wildcard                      3c, RFC 4592 §3.3.1
      nothing                 → NXDOMAIN

Pure decision: zones and a name in, an `Answer` of RRsets out; no octets are rendered here, and
nothing is remembered. Asked with a `trace` it says what it decided and by which RFC. Work is
bounded by `MAX_CHAIN` whatever the zones contain. Imports `consts`, `names` and `zone`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from appliance.dns import names
from appliance.dns.consts import (
    AAAA,
    ANY,
    CNAME,
    DNAME,
    DS,
    HTTPS,
    KEY,
    MAX_CHAIN,
    MAX_NAME,
    MX,
    NOERROR,
    NS,
    NSEC,
    NSEC3,
    NXDOMAIN,
    REFUSED,
    RRSIG,
    SERVFAIL,
    SIG,
    SRV,
    SVCB,
    YXDOMAIN,
    A,
)
from appliance.dns.errors import LocalError
from appliance.dns.zone import Node, RRset, Zone, is_cut

BESIDE_CNAME: Final = frozenset((CNAME, RRSIG, NSEC, SIG, KEY))
"""Types that may share a name with CNAME and are asked of that name itself: RFC 4034 §3 and §4,
RFC 3007 §3, and RFC 2535 §2.3.5 before them. NXT is gone with RFC 3755."""
Record = tuple[bytes, RRset]
Trace = list[tuple[str, str]]
"""Steps of a decision: the RFC's section, and what was found."""

_ADDRESSES: Final = (A, AAAA)
MAX_HELPED: Final = 64
"""Records of one RRset for which additional data is looked up: bounds the work, and a UDP answer
cannot hold more."""
_TARGET_AT: Final = {NS: 0, MX: 2, SRV: 6, SVCB: 2, HTTPS: 2}
"""Octets before the host name in the rdata of types that call for additional data: RFC 1035 §3.3.9
and §3.3.11, RFC 2782, RFC 9460 §4.1."""


NAME_ERROR, NO_DATA, NO_DATA_WILD, EXPANDED, DELEGATED = range(5)
"""What is claimed of a name, and needs a proof in a signed zone (RFC 4035 §3.1.3, §3.1.4)."""


class Claim(NamedTuple):
    """One of them; see `denial`."""

    kind: int
    zone: Zone
    name: bytes
    """Of which it is claimed, in lower case."""
    node: Node
    """Its own node, the cut's or the closest encloser's."""


class Shape:
    """What an answer depends on besides the type and the length of the question's name."""

    __slots__ = ("known", "place")

    def __init__(self, place: Zone | Node, known: int) -> None:
        """`place`: a zone (NXDOMAIN), a cut (referral) or a wildcard's parent (synthesis).

        `known`: octets at the end of the name that all such names share.
        """
        self.place = place
        self.known = known


class Answer:
    """The decision: a response code and the RRsets of each section."""

    __slots__ = (
        "aa",
        "additional",
        "answer",
        "authority",
        "claims",
        "courtesy",
        "exact",
        "glue",
        "rcode",
        "shape",
        "zone",
    )

    def __init__(self) -> None:
        """An empty NOERROR answer that is not authoritative yet."""
        self.rcode = NOERROR
        self.aa = False
        self.answer: list[Record] = []
        self.authority: list[Record] = []
        self.glue: list[Record] = []
        """Addresses that a referral cannot work without (RFC 9471 §2.1): lost means TC."""
        self.additional: list[Record] = []
        """Helpful records; may be left out for want of room."""
        self.claims: list[Claim] = []
        """What is to be proved to who wants proofs; of signed zones only."""
        self.courtesy = False
        """The authority section may be left out for want of room too."""
        self.zone: Zone | None = None
        """Where the question's own name belongs; None: not ours."""
        self.exact = False
        """True if the name exists, so that there are only so many such answers."""
        self.shape: Shape | None = None
        """Set if every name that comes to the same place with the same length gets the same octets,
        so that one rendering serves a whole flood of names."""

    @property
    def bare(self) -> bool:
        """True if there is nothing of DNSSEC to be added for who wants it; see `denial`."""
        return not self.claims and all(
            rrset.signatures is None
            for section in (self.answer, self.authority, self.additional)
            for _, rrset in section
        )


class Zones:
    """The set of zones served, found by the longest matching origin."""

    __slots__ = ("absent", "by_origin")

    def __init__(self, zones: Iterable[Zone]) -> None:
        """LocalError if two zones have one origin."""
        self.by_origin: dict[bytes, Zone] = {}
        self.absent: set[bytes] = set()
        """Origins of zones that are ours to serve and whose data we have not (any more)."""
        for zone in zones:
            if zone.origin in self.by_origin:
                raise LocalError(f"two zones are called {zone.name}")
            self.by_origin[zone.origin] = zone

    def find(self, name: bytes, qtype: int = A) -> Zone | None:
        """The zone to answer from for a lower-cased name; None: not ours."""
        if qtype == DS and name in self.by_origin and name[0]:
            # RFC 4035 §3.1.4.1: DS stands in the parent, which is asked if we have it.
            above = self.find(names.parent(name))
            if above is not None:
                return above
        zones = self.by_origin
        while True:
            zone = zones.get(name)
            if zone is not None:
                return zone
            if not name[0]:
                return None
            name = name[1 + name[0] :]

    def is_absent(self, name: bytes, found: Zone | None) -> bool:
        """True if a lower-cased name is in a zone without data, more deeply than in `found`."""
        shortest = 0 if found is None else len(found.origin)
        while len(name) > shortest:
            if name in self.absent:
                return True
            if not name[0]:
                return False
            name = name[1 + name[0] :]
        return False


class Lookup:
    """Decides answers from a set of zones."""

    __slots__ = ("minimal", "zones")

    def __init__(self, zones: Zones, *, minimal: bool = True) -> None:
        """With `minimal` off, positive answers carry the apex NS RRset (RFC 1034 §6.2.1)."""
        self.zones = zones
        self.minimal = minimal

    def resolve(self, qname: bytes, qtype: int, trace: Trace | None = None) -> Answer:
        """Decide the answer for class IN; `qname` in any case (DNAME carries it on as written)."""
        result = Answer()
        name = qname.lower()
        zone = self.zones.find(name, qtype)
        if self.zones.absent and self.zones.is_absent(name, zone):
            # RFC 1035 §4.3.5: data that has expired is not answered from; nor is it denied.
            result.rcode = SERVFAIL
            _note(trace, "RFC 1035 §4.3.5", "a zone of ours that is expired or not here yet")
            return result
        if zone is None:
            # RFC 8906 §3.1.1 (and RFC 9471 before it): a name that is not ours is refused.
            result.rcode = REFUSED
            _note(trace, "RFC 8906 §3.1.1", "no zone of ours holds the name: REFUSED")
            return result
        result.zone = zone
        result.aa = True
        owner = qname
        if trace is not None:
            _note_zone(trace, zone, qtype, name)
        seen = {name}
        for hop in range(MAX_CHAIN + 1):
            target = self._step(result, zone, owner, name, qtype, hop, trace)
            if target is None:
                break
            name, owner = target.lower(), target
            if name in seen:
                result.shape = None
                _note(trace, "RFC 1034 §3.6.2", f"{names.to_text(name)} was here: a loop ends here")
                break
            seen.add(name)
            found = self.zones.find(name, qtype)
            if self.zones.absent and self.zones.is_absent(name, found):
                result.shape = None
                _note(trace, "RFC 1035 §4.3.5", f"{names.to_text(name)} has expired: stop here")
                break
            if found is None:
                _note(trace, "RFC 1034 §4.3.2", f"{names.to_text(name)} is not ours: stop here")
                break
            if hop == MAX_CHAIN:
                _note(trace, "RFC 1034 §3.6.2", f"{MAX_CHAIN} aliases are enough: stop here")
            if found is not zone:
                _note(trace, "RFC 1034 §4.3.2 step 2", f"on in our zone {found.name}")
            zone = found
        return result

    def _step(
        self,
        result: Answer,
        zone: Zone,
        owner: bytes,
        name: bytes,
        qtype: int,
        hop: int,
        trace: Trace | None,
    ) -> bytes | None:
        """One pass through RFC 1034 §4.3.2 step 3; the next name if an alias leads on."""
        node = zone.closest(name)
        if zone.signed and NSEC3 in node.rrsets and node is not zone.apex:
            # RFC 5155 §7.2.8: the owner of an NSEC3 RRset is not among the zone's names.
            node = zone.apex
        exact = len(node.name) == len(name)
        cover = node.cover
        if trace is not None:
            _note_node(trace, zone, node, name)
        if cover is not None:
            at_cover = exact and node is cover
            if NS in cover.rrsets and cover.name != zone.origin:
                if not (at_cover and qtype == DS):
                    self._referral(result, zone, cover, hop, trace)
                    return None
            elif not at_cover:
                # RFC 6672 §2.4: a DNAME redirects what is below it, not its own name.
                return self._dname(result, cover, owner, qtype, trace)
        if exact:
            result.exact = result.exact or hop == 0
            return self._at_node(result, zone, node, owner, qtype, trace, node)
        source = node.wildcard
        if source is None:
            result.rcode = NXDOMAIN
            result.authority.append((zone.apex.owner, zone.negative))
            if zone.signed:
                result.claims.append(Claim(NAME_ERROR, zone, name, node))
            if hop == 0:
                result.shape = Shape(zone, len(zone.origin))
            _note(trace, "RFC 8020 §2", f"nothing at or below {names.to_text(name)}: NXDOMAIN")
            return None
        _note(trace, "RFC 4592 §3.3.1", f"synthesized from {names.to_text(source.name)}")
        # A name made by a wildcard further down a chain may be the question's own.
        result.shape = Shape(node, len(node.name)) if hop == 0 else None
        return self._at_node(result, zone, source, owner, qtype, trace, node)

    def _at_node(
        self,
        result: Answer,
        zone: Zone,
        node: Node,
        owner: bytes,
        qtype: int,
        trace: Trace | None,
        closest: Node,
    ) -> bytes | None:
        """RFC 1034 §4.3.2 step 3a at a node, which may be a wildcard standing in for `owner`.

        Then `closest` is its closest encloser, else the node itself.
        """
        rrsets = node.rrsets
        found = rrsets.get(qtype)
        if qtype == RRSIG and found is not None and zone.signed:
            # RFC 8482 §7: as with ANY; the signatures of one set will do.
            found = _one_of(rrsets).signatures or found
        if found is None and rrsets:
            if qtype == ANY:
                found = _one_of(rrsets)
                _note(trace, "RFC 8482 §4.1", "ANY is answered with one RRset")
            elif CNAME in rrsets and qtype not in BESIDE_CNAME:
                alias = rrsets[CNAME]
                result.answer.append((owner, alias))
                if zone.signed and node is not closest:
                    result.claims.append(Claim(EXPANDED, zone, owner.lower(), closest))
                target = alias.rdatas[0]
                _note(trace, "RFC 1034 §3.6.2", f"CNAME to {names.to_text(target)}")
                return target
        if found is None:
            result.authority.append((zone.apex.owner, zone.negative))
            if zone.signed:
                kind = NO_DATA if node is closest else NO_DATA_WILD
                result.claims.append(Claim(kind, zone, owner.lower(), closest))
            _note(trace, "RFC 2308 §2.2", "the name exists without this type: NODATA")
            return None
        result.answer.append((owner, found))
        if zone.signed and node is not closest:
            result.claims.append(Claim(EXPANDED, zone, owner.lower(), closest))
        _note(trace, "RFC 1034 §4.3.2 step 3a", _count(found))
        if found.rtype in _TARGET_AT:
            self._helpers(result, zone, owner, found)
        if not self.minimal and qtype != ANY and (found.rtype != NS or node is not zone.apex):
            result.courtesy = True
            result.authority.append((zone.apex.owner, zone.apex.rrsets[NS]))
            self._helpers(result, zone, owner, zone.apex.rrsets[NS])
        return None

    def _referral(
        self, result: Answer, zone: Zone, cut: Node, hop: int, trace: Trace | None
    ) -> None:
        """RFC 1034 §4.3.2 step 3b: the cut's NS RRset and what addresses of it we hold."""
        if hop == 0:
            # RFC 1034 §6.2.6: not authoritative. Behind an alias AA speaks of the alias's owner.
            result.aa = False
            result.shape = Shape(cut, len(cut.name))
        delegation = cut.rrsets[NS]
        result.authority.append((cut.owner, delegation))
        if zone.signed:
            result.claims.append(Claim(DELEGATED, zone, cut.name, cut))
        _note(trace, "RFC 1034 §4.3.2 step 3b", f"referral to {names.to_text(cut.name)}")
        for target in delegation.rdatas:
            lowered = target.lower()
            host = zone.nodes.get(lowered)
            if host is None:
                continue
            # RFC 9471 §2.1: only glue below the cut itself must not be lost.
            wanted = result.glue if names.is_below(lowered, cut.name) else result.additional
            wanted.extend((target, host.rrsets[kind]) for kind in _ADDRESSES if kind in host.rrsets)

    def _dname(
        self, result: Answer, cover: Node, owner: bytes, qtype: int, trace: Trace | None
    ) -> bytes | None:
        """RFC 6672 §3.2 step 3c: the DNAME, and the CNAME that it makes for this name."""
        dname = cover.rrsets[DNAME]
        if all(rrset is not dname for _, rrset in result.answer):
            result.answer.append((cover.owner, dname))
        target = owner[: len(owner) - len(cover.name)] + dname.rdatas[0]
        if len(target) > MAX_NAME:
            result.rcode = YXDOMAIN
            _note(trace, "RFC 6672 §2.2", "the substituted name would be too long: YXDOMAIN")
            return None
        _note(trace, "RFC 6672 §3.2", f"DNAME leads to {names.to_text(target)}")
        # RFC 6672 §3.1: the synthesized CNAME has the TTL of its DNAME.
        result.answer.append((owner, RRset(CNAME, dname.ttl, (target,))))
        return None if qtype == CNAME else target

    def _helpers(self, result: Answer, zone: Zone, owner: bytes, found: RRset) -> None:
        """Addresses (and for SVCB kin further records) of the hosts that an RRset names."""
        rtype = found.rtype
        skip = _TARGET_AT[rtype]
        wanted = (*_ADDRESSES, rtype) if rtype in (SVCB, HTTPS) else _ADDRESSES
        present = {
            (name.lower(), rrset.rtype)
            for section in (result.answer, result.additional)
            for name, rrset in section
        }
        for rdata in found.rdatas[:MAX_HELPED]:
            target = rdata[skip : names.end_of(rdata, skip)]
            if target == names.ROOT:
                # RFC 9460 §2.5: in ServiceMode "." stands for the owner itself; elsewhere for none.
                if rtype not in (SVCB, HTTPS) or rdata[:2] == b"\0\0":
                    continue
                target = owner
            lowered = target.lower()
            if not names.is_below(lowered, zone.origin):
                continue
            host = zone.closest(lowered)
            kinds = wanted
            if len(host.name) != len(lowered):
                if host.wildcard is None or host.cover is not None:
                    continue
                # A wildcard's own names must not be told apart here; see `Shape`.
                host, kinds = host.wildcard, _ADDRESSES
            for kind in kinds:
                rrset = host.rrsets.get(kind)
                if rrset is not None and (lowered, kind) not in present:
                    present.add((lowered, kind))
                    result.additional.append((target, rrset))


def _one_of(rrsets: Mapping[int, RRset]) -> RRset:
    """RFC 8482 §4.1: one RRset stands for all; the smallest, signatures and proofs last."""
    return min(
        rrsets.values(),
        key=lambda rrset: (rrset.rtype in (RRSIG, NSEC), sum(map(len, rrset.rdatas)), rrset.rtype),
    )


def _note_zone(trace: Trace, zone: Zone, qtype: int, name: bytes) -> None:
    if qtype == DS and name != zone.origin:
        _note(trace, "RFC 4035 §3.1.4.1", f"DS is the parent's: the zone is {zone.name}")
    else:
        text = f"the deepest zone of ours that holds the name is {zone.name}"
        _note(trace, "RFC 1034 §4.3.2 step 2", text)


def _count(found: RRset) -> str:
    count = len(found.rdatas)
    return "1 record found" if count == 1 else f"{count} records found"


def _note_node(trace: Trace, zone: Zone, node: Node, name: bytes) -> None:
    shown, at = names.to_text(name), names.to_text(node.name)
    if node.cover is not None and is_cut(node.cover, zone.origin) and node.cover.name != name:
        text = f"{shown} lies below {names.to_text(node.cover.name)}, which is delegated"
        _note(trace, "RFC 1034 §4.2.1", text)
    elif len(node.name) != len(name):
        _note(trace, "RFC 4592 §3.3.1", f"{shown} does not exist; what exists of it is {at}")
    elif not node.rrsets:
        text = f"{at} exists without records, because names below it do"
        _note(trace, "RFC 4592 §2.2.2", text)
    else:
        _note(trace, "RFC 1034 §4.3.2 step 3", f"{at} exists")


def _note(trace: Trace | None, section: str, text: str) -> None:
    if trace is not None:
        trace.append((section, text))
