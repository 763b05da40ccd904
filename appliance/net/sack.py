"""Selective acknowledgments: reading the peer's, writing ours (RFC 2018, RFC 2883).

A block says "I hold these octets above the hole".  A first block that lies below the cumulative
acknowledgment, or inside the second, is a *duplicate* report (DSACK): "these came twice", from
which the sender learns that a retransmission was needless.

Wire numbers in, unwrapped numbers out, and back.  It imports `seq`.
"""

from __future__ import annotations

from typing import Final

from appliance.net.seq import MASK, unwrap

MAX_BLOCKS: Final = 4  # RFC 2018 §3: forty octets of options hold four, three beside a timestamp

Block = tuple[int, int]


def read(
    wire: tuple[tuple[int, int], ...], ack: int, snd_nxt: int
) -> tuple[Block | None, list[Block]]:
    """Return (duplicate report or None, blocks above `ack`) of a segment that acknowledges `ack`.

    Blocks that are empty, inverted or above `snd_nxt` are dropped (RFC 2018 §5, RFC 5961 spirit).
    """
    duplicate: Block | None = None
    blocks: list[Block] = []
    for i, (left_wire, right_wire) in enumerate(wire):
        left = unwrap(left_wire, ack)
        right = left + ((right_wire - left_wire) & MASK)
        if right <= left or right > snd_nxt:
            continue
        if i == 0:
            # RFC 2883 §4: below the cumulative ACK, or contained in the second block.
            if right <= ack:
                duplicate = (left, right)
                continue
            if len(wire) > 1:
                outer_left = unwrap(wire[1][0], ack)
                outer_right = unwrap(wire[1][1], ack)
                if outer_left <= left and right <= outer_right:
                    duplicate = (left, right)
                    continue
        if right > ack:
            blocks.append((max(left, ack), right))
    return duplicate, blocks


def write(
    held: list[Block], recent: int, duplicate: Block | None, room: int
) -> tuple[tuple[int, int], ...]:
    """Return at most `room` blocks for the wire, from the stretches `held` above the hole.

    RFC 2018 §4: the first block holds the segment that arrived last (its number is `recent`), the
    others follow in the order in which they were reported; RFC 2883 §4: a `duplicate` goes first.
    """
    first = [b for b in held if b[0] <= recent < b[1]]
    blocks = first + [b for b in reversed(held) if b not in first]
    if duplicate is not None:
        blocks = [duplicate, *blocks]
    return tuple((left & MASK, right & MASK) for left, right in blocks[:room])
