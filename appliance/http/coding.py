"""Content-coding negotiation: which of the stored representations a request gets.

RFC 9110 §12.5.3 in full: q-values, `*`, `identity`, and the difference between a coding that is
not named and one that is refused.  Pure; imports the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# RFC 9110 §12.4.2: weight = OWS ";" OWS "q=" qvalue, three decimals at most.
_MEMBER = re.compile(
    rb"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)"
    rb"(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*"
)
# RFC 9110 §8.4.1: the names a recipient treats as the same coding.
_ALIASES = {b"x-gzip": b"gzip", b"x-compress": b"compress"}


def weights(field: bytes) -> dict[bytes, int]:
    """Parse Accept-Encoding into coding → weight in thousandths; malformed members are skipped."""
    found: dict[bytes, int] = {}
    for member in field.split(b","):
        match = _MEMBER.fullmatch(member)
        if match is not None:
            name = match[1].lower()
            weight = round(float(match[2]) * 1000) if match[2] else 1000
            found[_ALIASES.get(name, name)] = weight
    return found


def choose(field: bytes | None, codings: Sequence[bytes]) -> int:
    """Return the index of the coding to send, or -1 when none is acceptable.

    `codings` lists what is stored, most wanted first, identity as b"".  Without the field any
    coding would do (RFC 9110 §12.5.3 rule 1), and identity is what every client understands.
    """
    if field is None or (len(codings) == 1 and not field.count(b"0")):
        return codings.index(b"")
    wanted = weights(field)
    star = wanted.get(b"*")
    best, best_weight = -1, 0
    for index, coding in enumerate(codings):
        if coding:
            weight = wanted.get(coding, star or 0)
        else:
            # Rule 2: identity is acceptable unless refused by name or by "*;q=0"; named by
            # nobody it is the last resort, below every coding that was asked for.
            weight = wanted.get(b"identity", 0 if star == 0 else -1)
            if weight == -1:
                if best == -1:
                    best = index
                continue
        if weight > best_weight:
            best, best_weight = index, weight
    return best
