"""Sequence numbers: 32 bits on the wire, plain unbounded integers inside.

TCP numbers its octets modulo 2**32 (RFC 9293 §3.4), which makes "less than" a question of
interpretation.  This stack answers that question once, where a segment enters: the number from
the wire is *unwrapped* to the one integer that is congruent to it and nearest to a reference
which the connection already trusts.  Everything inside then compares with ``<`` and ``-``, and
a number is cut to 32 bits again only where a segment is built.

This module does not know what the numbers count.  It imports nothing.
"""

from __future__ import annotations

from typing import Final

MODULUS: Final = 1 << 32
MASK: Final = 0xFFFFFFFF
HALF: Final = 1 << 31


def unwrap(wire: int, near: int) -> int:
    """Return the integer congruent to `wire` modulo 2**32 that lies nearest to `near`.

    The result is in ``[near - 2**31, near + 2**31)`` and so may be negative when `near` is small.
    Source: RFC 9293 §3.4, the comparison rules for a finite sequence space.
    """
    return near + ((wire - near + HALF) & MASK) - HALF


def before(a: int, b: int) -> bool:
    """Tell whether the 32-bit number `a` precedes `b` (RFC 1982 §3.2, RFC 7323 §5.2)."""
    return (a - b) & MASK > HALF
