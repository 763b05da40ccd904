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


def by_recency(held: list[Block], recent: list[int]) -> list[Block]:
    """Return the stretches `held` above the hole, at most four, the last touched first.

    `recent` has a number inside each of them, last touched first.  RFC 2018 §4: the first block
    holds the segment that arrived last, the others follow as they were last reported, so that
    each is reported several times and the loss of an acknowledgment does no harm.
    """
    ordered: list[Block] = []
    for number in recent:
        for block in held:
            if block[0] <= number < block[1] and block not in ordered:
                ordered.append(block)
    ordered += [block for block in reversed(held) if block not in ordered]
    return ordered[:MAX_BLOCKS]


def write(islands: list[Block], duplicate: Block | None, room: int) -> tuple[tuple[int, int], ...]:
    """Return at most `room` blocks for the wire; a `duplicate` goes first (RFC 2883 §4)."""
    blocks = islands if duplicate is None else [duplicate, *islands]
    return tuple((left & MASK, right & MASK) for left, right in blocks[:room])
