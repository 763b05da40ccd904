"""A rendered answer, ready to have an identifier and a question put into it.

`heads` are the ten octets behind the identifier (flags and counts, RFC 1035 §4.1.1), one for each
kind of query: without and with RD, the same two with EDNS. They depend on little, so all answers
share a few of them. Imports `consts`, `lookup`, `render` and `tally`.
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
from appliance.dns.tally import Tally
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

Heads = tuple[bytes, ...]
"""Four, by kind of query."""
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

_NO_TALLY: Final = Tally()

_heads: dict[tuple[int, int, int, int, int], Heads] = {}
"""All heads in use, but for answers of more than `_FEW` records: some thousands at most."""
_FEW: Final = 32


def heads(flags: int, rcode: int, mark: Mark) -> Heads:
    """The four heads for an answer that ends at `mark`; `flags` is AA and TC."""
    key = (flags, rcode, mark.answers, mark.authorities, mark.additionals)
    found = _heads.get(key)
    if found is None:
        found = tuple(
            HEAD(QR | flags | bit, rcode, 1, *key[2:4], key[4] + opt)
            for opt in (0, 1)
            for bit in (0, RD)
        )
        if sum(key[2:]) <= _FEW:
            _heads[key] = found
    return found


class Prepared:
    """One answer; immutable."""

    __slots__ = (
        "bare",
        "flags",
        "heads",
        "kind",
        "marks",
        "octets",
        "rcode",
        "required",
        "small",
        "tally",
    )

    def __init__(
        self,
        octets: bytes,
        rcode: int,
        flags: int,
        heads: Heads,
        kind: int,
        small: bool,
        marks: tuple[Mark, ...],
        required: int,
        tally: Tally,
        bare: bool,
    ) -> None:
        """Made by `prepare`."""
        self.octets = octets
        """Everything behind the question but OPT."""
        self.rcode = rcode
        self.flags = flags
        """AA, or none."""
        self.heads = heads
        self.kind = kind
        """What is counted as one for rate limiting."""
        self.small = small
        """It fits wherever it is sent, unless OPT carries options."""
        self.marks = marks
        """Where it may be cut; a small answer is whole or nothing."""
        self.required = required
        self.tally = tally
        """Where answers from what was rendered at load are counted: one for each type."""
        self.bare = bare
        """It is the same for who wants signatures and proofs, as there are none."""

    def __reduce__(self) -> tuple[type[Prepared], tuple[object, ...]]:
        # An image holds answers, and who reads it may be compiled or not.
        return Prepared, (
            *(self.octets, self.rcode, self.flags, self.heads, self.kind),
            *(self.small, self.marks, self.required, self.tally, self.bare),
        )

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


def prepare(qname: bytes, found: Answer, rclass: int = IN, tally: Tally = _NO_TALLY) -> Prepared:
    """Render a decision for a question's name, in the case in which it was decided."""
    shape = found.shape
    end = HEADER_LEN + len(qname) + 4
    body = render(
        question_table(qname, shape.known if shape is not None else 0),
        end,
        [(QUESTION_NAME if owner is qname else owner, rrset) for owner, rrset in found.answer],
        found.authority,
        found.glue,
        [(QUESTION_NAME if owner is qname else owner, rr) for owner, rr in found.additional],
        courtesy=found.courtesy,
        rclass=rclass,
    )
    flags = AA if found.aa else 0
    small = end + len(body.octets) <= SMALL
    # Answers that can be had under many names are of one kind: all of a wildcard's, all below
    # a cut or a DNAME, all NXDOMAIN of a zone.
    kind = ERRORS
    if shape is not None:
        place = shape.place
        kind = hash(place.origin if isinstance(place, Zone) else place.name)
    elif found.answer:
        kind = hash(found.answer[0][0].lower())
    return Prepared(
        body.octets,
        found.rcode,
        flags,
        heads(flags, found.rcode, body.marks[-1]),
        kind,
        small,
        () if small else body.marks,
        body.required,
        tally,
        found.bare,
    )


def refused() -> Prepared:
    """REFUSED without any record: the answer to names that are not ours (RFC 8906 §3.1.1)."""
    found = Answer()
    found.rcode = REFUSED
    return prepare(b"\0", found)


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
        self.ready[key] = prepare(name, found, IN, self.tallies.setdefault(qtype, Tally()))
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
