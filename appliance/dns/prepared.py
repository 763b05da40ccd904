"""A rendered answer, ready to have an identifier and a question put into it.

`heads` are the ten octets behind the identifier (flags and counts, RFC 1035 §4.1.1), one for each
kind of query: without and with RD, the same two with EDNS. They depend on little, so all answers
share a few of them. Imports `consts`, `lookup` and `render`.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from appliance.dns.consts import (
    AAAA,
    ANY,
    CLASSIC_UDP,
    CNAME,
    DNAME,
    HEADER_LEN,
    HTTPS,
    IN,
    NOERROR,
    REFUSED,
    A,
)
from appliance.dns.lookup import Answer, Lookup, Zones
from appliance.dns.render import QUESTION_NAME, Mark, fit, question_table, render
from appliance.dns.zone import Zone

QR: Final = 0x80
AA: Final = 0x04
TC: Final = 0x02
RD: Final = 0x01
"""Bits of the header's third octet (RFC 1035 §4.1.1)."""

HEAD: Final = Struct("!BBHHHH").pack
"""The header behind the identifier."""
OPT_LEN: Final = 11
"""Octets of an OPT record without options (RFC 6891 §6.1.2)."""
SMALL: Final = CLASSIC_UDP - OPT_LEN
"""Octets of an answer before OPT that goes into any datagram with any OPT but one with options."""

Heads = tuple[bytes, bytes, bytes, bytes]
ERRORS: Final = 0
"""The kind of answers without records, for rate limiting."""
EAGER: Final = 2_000_000
"""Answers rendered at load at most; what lies beyond is rendered when it is first asked for."""
COMMON: Final = (A, AAAA, HTTPS, ANY)
"""Types that resolvers ask of every name, whether it has them or not."""
PROGRESS_EVERY: Final = 20_000
"""Names between two calls of a progress function."""
COMMON_NAMES: Final = 100_000
"""Names up to which a zone's NODATA for `COMMON` is rendered at load as well."""

Tally = list[int]
"""One number, shared by all answers of a type."""
_NO_TALLY: Final[Tally] = [0]

_heads: dict[tuple[int, int, int, int, int], Heads] = {}
"""All heads in use, but for answers of more than `_FEW` records: some thousands at most."""
_FEW: Final = 32


def heads(flags: int, rcode: int, mark: Mark) -> Heads:
    """The four heads for an answer that ends at `mark`; `flags` is AA and TC."""
    key = (flags, rcode, mark.answers, mark.authorities, mark.additionals)
    found = _heads.get(key)
    if found is None:
        plain, rd, edns, edns_rd = (
            HEAD(QR | flags | bit, rcode, 1, *key[2:4], key[4] + opt)
            for opt in (0, 1)
            for bit in (0, RD)
        )
        found = (plain, rd, edns, edns_rd)
        if sum(key[2:]) <= _FEW:
            _heads[key] = found
    return found


class Prepared:
    """One answer; immutable."""

    __slots__ = ("flags", "heads", "kind", "marks", "octets", "rcode", "required", "small", "tally")

    def __init__(self, qname: bytes, found: Answer, rclass: int = IN) -> None:
        """Render a decision for a question's name, in the case in which it was decided."""
        shape = found.shape
        body = render(
            question_table(qname, shape.known if shape is not None else 0),
            HEADER_LEN + len(qname) + 4,
            [(QUESTION_NAME if owner is qname else owner, rrset) for owner, rrset in found.answer],
            found.authority,
            found.glue,
            [(QUESTION_NAME if owner is qname else owner, rr) for owner, rr in found.additional],
            courtesy=found.courtesy,
            rclass=rclass,
        )
        self.octets = body.octets
        """Everything behind the question but OPT."""
        self.rcode = found.rcode
        self.flags = AA if found.aa else 0
        self.heads = heads(self.flags, self.rcode, body.marks[-1])
        self.small = HEADER_LEN + len(qname) + 4 + len(body.octets) <= SMALL
        """It fits wherever it is sent, unless OPT carries options."""
        self.marks = () if self.small else body.marks
        """Where it may be cut; a small answer is whole or nothing."""
        self.required = body.required
        # Answers that can be had under many names are of one kind: all of a wildcard's, all below
        # a cut or a DNAME, all NXDOMAIN of a zone.
        self.kind = ERRORS
        if shape is not None:
            place = shape.place
            self.kind = hash(place.origin if isinstance(place, Zone) else place.name)
        elif found.answer:
            self.kind = hash(found.answer[0][0].lower())
        self.tally = _NO_TALLY
        """Where answers from what was rendered at load are counted: one number for each type."""

    def cut(self, room: int) -> tuple[Heads, bytes, bool]:
        """Heads and octets of what goes into `room` octets, and whether TC was set."""
        if len(self.octets) <= room:
            return self.heads, self.octets, False
        if not self.marks:
            mark, truncated = Mark(0, 0, 0, 0), True
        else:
            mark, truncated = fit(self.marks, self.required, room)
        flags = self.flags | (TC if truncated else 0)
        return heads(flags, self.rcode, mark), self.octets[: mark.end], truncated


def refused() -> Prepared:
    """REFUSED without any record: the answer to names that are not ours (RFC 8906 §3.1.1)."""
    found = Answer()
    found.rcode = REFUSED
    return Prepared(b"\0", found)


def is_solid(found: Answer) -> bool:
    """True if an answer is one RRset of the name itself, which no other name's change touches."""
    return (
        len(found.answer) == 1
        and not (found.authority or found.glue or found.additional or found.shape is not None)
        and found.answer[0][1].rtype not in (CNAME, DNAME)
    )


class Rendered:
    """What can be asked of existing names, rendered."""

    __slots__ = ("fragile", "ready", "tallies")

    def __init__(self, tallies: dict[int, Tally]) -> None:
        """`tallies` by type: where hits are counted."""
        self.ready: dict[bytes, Prepared] = {}
        """By lower-cased name, type and class."""
        self.fragile: list[bytes] = []
        """Keys of answers that are not solid: any change of any zone may be one of theirs."""
        self.tallies = tallies

    def add(self, lookup: Lookup, name: bytes, qtype: int) -> None:
        """Render one answer, if it is NOERROR; the other codes are counted one by one."""
        key = name + qtype.to_bytes(2, "big") + b"\0\1"
        found = lookup.resolve(name, qtype)
        if found.rcode != NOERROR or key in self.ready:
            return
        prepared = self.ready[key] = Prepared(name, found)
        prepared.tally = self.tallies.setdefault(qtype, [0])
        if not is_solid(found):
            self.fragile.append(key)

    def zone(
        self,
        zone: Zone,
        lookup: Lookup,
        limit: int,
        progress: Callable[[int, float], None] | None = None,
    ) -> None:
        """Render every RRset of a zone, and in zones of moderate size NODATA for common types.

        At most until there are `limit` answers; `progress` is told the number of names done, and
        which part of all that is.
        """
        common = COMMON if len(zone.nodes) <= COMMON_NAMES else ()
        for done, (name, node) in enumerate(zone.nodes.items(), 1):
            if progress is not None and done % PROGRESS_EVERY == 0:
                progress(done, done / len(zone.nodes))
            for qtype in {*common, *node.rrsets}:
                if len(self.ready) >= limit:
                    return
                self.add(lookup, name, qtype)


def render_all(
    zones: Zones,
    lookup: Lookup,
    limit: int,
    tallies: dict[int, Tally],
    progress: Callable[[int, float], None] | None = None,
) -> Rendered:
    """What can be asked of the existing names of all zones; at most `limit` answers."""
    rendered = Rendered(tallies)
    for zone in zones.by_origin.values():
        rendered.zone(zone, lookup, limit, progress)
    return rendered
