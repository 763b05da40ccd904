"""Sections of RRsets to octets: one body that stands behind header and question.

Compression is right by construction for every case of the question: the question's name always
begins at offset 12 of a message, so a body rendered against it stays valid whatever case the next
querier writes (RFC 4343 §4.1, and the "0x20" trick), and whatever its identifier and flags are.
Names are compared with the question without regard to case, but among themselves exactly, so that
the case a zone's owner wrote is kept. A pointer reaches only the first 16,383 octets (RFC 1035
§4.1.4): names further back are neither remembered nor pointed to. Only rdata of RFC 1035's types is
compressed (RFC 3597 §4). Imports `consts`, `names` and `zone`; knows nothing of headers or EDNS.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from appliance.dns import names
from appliance.dns.consts import HEADER_LEN, IN, NAME_FIELDS
from appliance.dns.zone import RRset

Record = tuple[bytes, RRset]
"""Owner in wire form and RRset."""

QUESTION_NAME: Final = b"\xc0\x0c"
"""The pointer to the question's name, which follows the header."""
MAX_POINTER: Final = 0x3FFF
"""The furthest offset that 14 bits reach (RFC 1035 §4.1.4)."""
MAX_POINTERS: Final = 4
"""Pointers that lead from a name to its end: RFC 1035 sets no bound, but readers do (dnspython 16),
and aliases that grow by a label each would make a chain of any length."""

_POINTER: Final = Struct("!H").pack
_FIXED: Final = Struct("!HHIH").pack
"""Type, class, TTL, rdata length (RFC 1035 §4.1.3)."""


class Mark(NamedTuple):
    """The message as it would be if it ended after an RRset: body length and section counts."""

    end: int
    answers: int
    authorities: int
    additionals: int


class Body(NamedTuple):
    """Everything behind the question; `marks` has one entry an RRset, after one for none."""

    octets: bytes
    marks: tuple[Mark, ...]
    required: int
    """The index in `marks` from which on nothing is lost that the answer needs."""


def question_table(name: bytes, known: int = 0) -> dict[bytes, int]:
    """Offsets of the suffixes of the question's name, keyed in lower case.

    With `known` only the last `known` octets are offered, which makes a body that depends on the
    rest of the name by its length alone.
    """
    table: dict[bytes, int] = {}
    name = name.lower()
    at = 0
    while name[at]:
        if not known or len(name) - at <= known:
            table[name[at:]] = HEADER_LEN + at
        at += 1 + name[at]
    return table


class Renderer:
    """Writes one body; use once."""

    __slots__ = ("_base", "_class", "_question", "_table", "octets")

    def __init__(self, question: dict[bytes, int], base: int, rclass: int = IN) -> None:
        """`question` from `question_table`; `base` is the offset of the body in the message."""
        self._class = rclass
        self.octets = bytearray()
        self._question = question
        self._table: dict[bytes, tuple[int, int]] = {}
        """Suffixes written so far: offset, and pointers on the way to the end."""
        self._base = base

    def seed(self, name: bytes, offset: int) -> None:
        """Let a name that stands at `offset` be pointed to where its case is the same."""
        at = 0
        while name[at]:
            self._table[name[at:]] = (offset + at, 0)
            at += 1 + name[at]

    def name(self, name: bytes) -> None:
        """Write a name, its tail as a pointer where one is known."""
        octets, table, question = self.octets, self._table, self._question
        here = self._base + len(octets)
        at = hops = 0
        new: list[int] = []
        while length := name[at]:
            suffix = name[at:]
            offset = question.get(suffix.lower())
            known = table.get(suffix)
            if known is not None and known[1] < MAX_POINTERS:
                offset, hops = known
            if offset is not None:
                octets += name[:at]
                octets += _POINTER(0xC000 | offset)
                hops += 1
                break
            if here + at <= MAX_POINTER:
                new.append(at)
            at += 1 + length
        else:
            octets += name
        for at in new:
            table[name[at:]] = (here + at, hops)

    def rrset(self, owner: bytes, rrset: RRset) -> None:
        """Write all records of an RRset; `owner` may be the ready-made `QUESTION_NAME`."""
        for rdata in rrset.rdatas:
            self.record(owner, rrset.rtype, rrset.ttl, rdata)

    def record(self, owner: bytes, rtype: int, ttl: int, rdata: bytes) -> None:
        """Write one record."""
        octets = self.octets
        if owner is QUESTION_NAME:
            octets += owner
        else:
            self.name(owner)
        octets += _FIXED(rtype, self._class, ttl, len(rdata))
        fields = NAME_FIELDS.get(rtype)
        if fields is None:
            octets += rdata
            return
        start = len(octets)
        at, count = fields
        octets += rdata[:at]
        for _ in range(count):
            end = names.end_of(rdata, at)
            self.name(rdata[at:end])
            at = end
        octets += rdata[at:]
        octets[start - 2 : start] = _POINTER(len(octets) - start)


def render(
    question: dict[bytes, int],
    base: int,
    answer: Sequence[Record],
    authority: Sequence[Record],
    glue: Sequence[Record],
    extra: Sequence[Record],
    *,
    courtesy: bool = False,
    rclass: int = IN,
) -> Body:
    """Render the three sections; `glue` and then `extra` make up the additional one.

    Everything but `extra` is required: leaving it out makes a truncated message (RFC 2181 §9,
    RFC 9471 §2). With `courtesy` that is so for the answer section only. An owner that
    is `QUESTION_NAME` itself becomes that pointer.
    """
    writer = Renderer(question, base, rclass)
    marks = [Mark(0, 0, 0, 0)]
    counts = [0, 0, 0]
    for section, records in ((0, answer), (1, authority), (2, glue), (2, extra)):
        for owner, rrset in records:
            writer.rrset(owner, rrset)
            counts[section] += len(rrset.rdatas)
            marks.append(Mark(len(writer.octets), counts[0], counts[1], counts[2]))
    required = len(answer) if courtesy else len(marks) - 1 - len(extra)
    return Body(bytes(writer.octets), tuple(marks), required)


def fit(marks: Sequence[Mark], required: int, room: int) -> tuple[Mark, bool]:
    """How much of a body goes into `room` octets, in whole RRsets, and whether TC must be set."""
    last = len(marks) - 1
    while last and marks[last].end > room:
        last -= 1
    return marks[last], last < required
