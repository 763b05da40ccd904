"""Signatures and proofs in answers from zones that were signed elsewhere (RFC 4035 §3.1).

`complete` takes a decision of `lookup` and adds what a resolver with the DO bit is due: beside each
RRset its signatures, and for what the answer *claims* (no such name, no such type, a wildcard's
records, a delegation without DS) the NSEC records that prove it, or the NSEC3 records (RFC 5155
§7.2). Which name comes next is found by bisection in a chain that is made when a zone is loaded
(`link`); NSEC3 costs a few hashes an answer, with iterations that `checks` bounds for all zones.

It signs nothing and verifies nothing. Imports `consts`, `lookup`, `names` and `zone`.
"""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, Union

from appliance.dns import names
from appliance.dns.consts import DS, NSEC, NSEC3, NSEC3PARAM
from appliance.dns.lookup import (
    DELEGATED,
    EXPANDED,
    NAME_ERROR,
    NO_DATA,
    NO_DATA_WILD,
    Answer,
    Claim,
    Record,
)
from appliance.dns.zone import Node, RRset, Zone

SHA1: Final = 1
"""The only hash of NSEC3 there is (RFC 5155 §11)."""

Chain = Union["Names", "Hashes"]


def complete(found: Answer) -> None:
    """Add signatures and proofs to an answer; nothing, if its zones are not signed."""
    present = {id(rrset) for _, rrset in found.authority}
    for claim in found.claims:
        for owner, rrset in _proof(claim):
            if id(rrset) not in present:
                present.add(id(rrset))
                found.authority.append((owner, rrset))
    if found.claims:
        found.courtesy = False  # the authority section says more than who is responsible
    found.answer = _signed(found.answer)
    found.authority = _signed(found.authority)
    found.additional = _signed(found.additional)


def _signed(section: list[Record]) -> list[Record]:
    out: list[Record] = []
    for record in section:
        out.append(record)
        signatures = record[1].signatures
        if signatures is not None:
            out.append((record[0], signatures))
    return out


def _proof(claim: Claim) -> Iterator[Record]:
    zone, node = claim.zone, claim.node
    if claim.kind == DELEGATED and DS in node.rrsets:
        # RFC 4035 §3.1.4: DS says that the zone below is signed, and by which key.
        yield node.owner, node.rrsets[DS]
        return
    chain = link(zone)
    if chain is not None and chain.nodes:
        yield from chain.proof(claim)


def link(zone: Zone, before: Zone | None = None, some: Iterable[bytes] = ()) -> Chain | None:
    """The chain of a signed zone, made if need be; None for an unsigned one.

    `before` is a version that differs at `some` names only, so that its chain can be gone on with.
    """
    chain = zone.chain
    if chain is None and zone.signed:
        old = before.chain if before is not None else None
        parameters = _parameters(zone)
        if isinstance(old, Names) and parameters is None:
            chain = Names(zone, old, some)
        elif isinstance(old, Hashes) and parameters == old.parameters:
            chain = Hashes(zone, parameters, old, some)
        else:
            chain = Names(zone) if parameters is None else Hashes(zone, parameters)
        zone.chain = chain
    assert chain is None or isinstance(chain, Names | Hashes)
    return chain


class Names:
    """NSEC: each name says which one follows in canonical order (RFC 4034 §6.1)."""

    __slots__ = ("_keys", "nodes")

    def __init__(self, zone: Zone, old: Names | None = None, some: Iterable[bytes] = ()) -> None:
        """Sort the zone's names, or change `some` in an older version's order."""
        self._keys: list[bytes]
        self.nodes: list[Node]
        if old is not None:
            self._keys, self.nodes = old._keys.copy(), old.nodes.copy()
            for name in some:
                _change(self._keys, self.nodes, _place(name), _with(zone, name, NSEC))
            return
        pairs = [(_place(name), node) for name, node in zone.nodes.items() if NSEC in node.rrsets]
        pairs.sort(key=lambda pair: pair[0])
        self._keys = [place for place, _ in pairs]
        self.nodes = [node for _, node in pairs]

    def at(self, name: bytes) -> Record:
        """The record of a name, or the one that says that there is none."""
        # The last one leads back to the apex, but nothing sorts before that.
        node = self.nodes[bisect_right(self._keys, _place(name)) - 1]
        return node.owner, node.rrsets[NSEC]

    def proof(self, claim: Claim) -> Iterator[Record]:
        """RFC 4035 §3.1.3.1 to §3.1.3.4, §3.1.4."""
        yield self.at(claim.name)
        if claim.kind in (NAME_ERROR, NO_DATA_WILD):
            yield self.at(names.WILDCARD + claim.node.name)


def _with(zone: Zone, name: bytes, rtype: int) -> Node | None:
    node = zone.nodes.get(name)
    return node if node is not None and rtype in node.rrsets else None


def _change(keys: list[bytes], nodes: list[Node], key: bytes, node: Node | None) -> None:
    """Put a node in its place, or in that of another; None: take away what is there."""
    at = bisect_left(keys, key)
    there = at < len(keys) and keys[at] == key
    if node is None:
        if there:
            del keys[at], nodes[at]
    elif there:
        nodes[at] = node
    else:
        keys.insert(at, key)
        nodes.insert(at, node)


def _place(name: bytes) -> bytes:
    """Octets that sort as names do (RFC 4034 §6.1): by labels from the right, ends before all."""
    return b"".join(
        [label.replace(b"\0", b"\0\1") + b"\0\0" for label in reversed(names.labels(name))]
    )


def _parameters(zone: Zone) -> bytes | None:
    """The NSEC3PARAM rdata to go by (RFC 5155 §4.1.2: those without flags), if there are any."""
    rrset = zone.apex.rrsets.get(NSEC3PARAM)
    for rdata in rrset.rdatas if rrset is not None else ():
        if rdata[0] == SHA1 and not rdata[1]:
            return rdata
    return None


class Hashes:
    """NSEC3: the names' hashes in their order (RFC 5155 §3)."""

    __slots__ = ("_apex", "_labels", "_rounds", "_salt", "nodes", "parameters")

    def __init__(
        self, zone: Zone, parameters: bytes, old: Hashes | None = None, some: Iterable[bytes] = ()
    ) -> None:
        """Sort the hashes of one chain, or change `some` in an older version's order."""
        self.parameters = parameters
        self._apex = zone.origin
        self._rounds = int.from_bytes(parameters[2:4], "big")
        self._salt = parameters[5:]
        self._labels: list[bytes]
        self.nodes: list[Node]
        if old is not None:
            self._labels, self.nodes = old._labels.copy(), old.nodes.copy()
            for name in some:
                node = _with(zone, name, NSEC3)
                node = node if node is not None and self._is_mine(node) else None
                _change(self._labels, self.nodes, name[1 : 1 + name[0]], node)
            return
        nodes = [node for node in zone.nodes.values() if NSEC3 in node.rrsets]
        self.nodes = sorted(filter(self._is_mine, nodes), key=_label)
        self._labels = list(map(_label, self.nodes))

    def _is_mine(self, node: Node) -> bool:
        """Another chain may be there while the salt is changed (RFC 5155 §10.4)."""
        rdata = node.rrsets[NSEC3].rdatas[0]
        return rdata[2 : 5 + len(self._salt)] == self.parameters[2:]

    def _hash(self, name: bytes) -> bytes:
        """RFC 5155 §5, as a label in lower case; base32 with the hex alphabet keeps the order."""
        digest = hashlib.sha1(name + self._salt, usedforsecurity=False).digest()
        for _ in range(self._rounds):
            digest = hashlib.sha1(digest + self._salt, usedforsecurity=False).digest()
        return base64.b32hexencode(digest).lower()

    def _at(self, name: bytes) -> Record | None:
        """The record of a name."""
        label = self._hash(name)
        at = bisect_left(self._labels, label)
        there = at < len(self._labels) and self._labels[at] == label
        return _record(self.nodes[at]) if there else None

    def _over(self, name: bytes) -> Record:
        """The record that says that there is no such name."""
        return _record(self.nodes[bisect_right(self._labels, self._hash(name)) - 1])

    def proof(self, claim: Claim) -> Iterator[Record]:
        """RFC 5155 §7.2.2 to §7.2.7."""
        kind, name, closest = claim.kind, claim.name, claim.node.name
        if kind == EXPANDED:
            yield self._over(_next_closer(name, closest))
            return
        if kind in (NO_DATA, DELEGATED):
            record = self._at(name)
            if record is not None:
                yield record
                return
            closest = names.parent(name)
        # §7.2.1: the closest name that is spoken of, and that the next one is not; names that
        # opted out are not (§7.2.4, §7.2.7).
        while (record := self._at(closest)) is None:
            if closest == self._apex:
                return  # no whole chain: nothing can be proved
            closest = names.parent(closest)
        yield record
        yield self._over(_next_closer(name, closest))
        if kind in (NAME_ERROR, NO_DATA_WILD):
            wildcard = names.WILDCARD + closest
            match = self._at(wildcard) if kind == NO_DATA_WILD else None
            yield match if match is not None else self._over(wildcard)


def _label(node: Node) -> bytes:
    return node.name[1 : 1 + node.name[0]]


def _record(node: Node) -> Record:
    rrset: RRset = node.rrsets[NSEC3]
    return node.owner, rrset


def _next_closer(name: bytes, closest: bytes) -> bytes:
    """The name one label longer than `closest` on the way to `name` (RFC 5155 §1.3)."""
    while len(parent := names.parent(name)) > len(closest):
        name = parent
    return name
