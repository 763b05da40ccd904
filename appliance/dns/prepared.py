"""A rendered answer, ready to have an identifier and a question put into it.

`heads` are the ten octets behind the identifier (flags and counts, RFC 1035 §4.1.1), one for each
kind of query: without and with RD, the same two with EDNS. They depend on little, so all answers
share a few of them. Imports `consts`, `lookup` and `render`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from appliance.dns.consts import CLASSIC_UDP, HEADER_LEN, REFUSED
from appliance.dns.lookup import Answer
from appliance.dns.render import QUESTION_NAME, Mark, fit, question_table, render

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

    __slots__ = ("flags", "heads", "marks", "octets", "rcode", "required", "small")

    def __init__(self, qname: bytes, found: Answer) -> None:
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
