"""Octets that arrived ahead of a hole, kept until the hole is filled.

The queue holds disjoint pieces ordered by sequence number.  What has been accepted once is never
replaced: when two segments overlap with different octets, the first to arrive wins, whatever the
order in which a third party sends them (RFC 9293 §3.10.7.4 trims the *new* segment).

Bounds: the receive window limits how far ahead a piece may lie; `MAX_PIECES` limits how finely
an attacker may chop it.  At the bound the new segment is refused, which costs the sender a
retransmission and us nothing.  Values in, values out.  It imports only the standard library.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

# Pieces held per connection: a window of 1 MB at 1,448 octets has 724 segments, every other one
# of which may be missing; beyond that the peer is chopping, not sending.
MAX_PIECES: Final = 512


class ReassemblyQueue:
    """Out-of-order octets of one direction of a connection, by unwrapped sequence number."""

    __slots__ = ("_data", "_starts", "octets")

    def __init__(self) -> None:
        self._starts: list[int] = []  # ascending; same indices as _data
        self._data: list[bytes] = []  # never empty pieces, never touching out of order
        self.octets = 0  # held in all

    def __len__(self) -> int:
        return len(self._starts)

    def insert(self, seq: int, data: bytes) -> int:
        """Keep the octets of `data`, whose first is number `seq`, that are not held yet.

        Returns how many octets were kept: 0 when all were duplicates, -1 when the queue is full.
        """
        starts, pieces = self._starts, self._data
        at = bisect_right(starts, seq)
        end = seq + len(data)
        if at:
            held_to = starts[at - 1] + len(pieces[at - 1])
            if held_to > seq:
                if held_to >= end:
                    return 0
                data = data[held_to - seq :]
                seq = held_to
        kept = 0
        while seq < end:
            hole_end = starts[at] if at < len(starts) else end
            if hole_end > seq:
                if len(starts) >= MAX_PIECES:
                    return kept or -1
                piece = data if hole_end >= end else data[: hole_end - seq]
                starts.insert(at, seq)
                pieces.insert(at, piece)
                at += 1
                kept += len(piece)
                self.octets += len(piece)
            if hole_end >= end or at >= len(starts):
                break
            # Step over the piece that is held already.
            held_to = starts[at] + len(pieces[at])
            if held_to >= end:
                break
            data = data[held_to - seq :]
            seq = held_to
            at += 1
        return kept

    def take(self, rcv_nxt: int) -> bytes:
        """Remove and return the octets that have become contiguous with `rcv_nxt`."""
        out: list[bytes] = []
        n = 0
        for start, piece in zip(self._starts, self._data, strict=True):
            if start > rcv_nxt:
                break
            n += 1
            end = start + len(piece)
            self.octets -= len(piece)
            if end > rcv_nxt:
                out.append(piece[rcv_nxt - start :])
                rcv_nxt = end
        if n:
            del self._starts[:n]
            del self._data[:n]
        return out[0] if len(out) == 1 else b"".join(out)

    def blocks(self) -> list[tuple[int, int]]:
        """Return the contiguous stretches held, ascending, as (first, past the last) numbers."""
        out: list[tuple[int, int]] = []
        for start, piece in zip(self._starts, self._data, strict=True):
            end = start + len(piece)
            if out and out[-1][1] == start:
                out[-1] = (out[-1][0], end)
            else:
                out.append((start, end))
        return out

    def clear(self) -> None:
        """Give everything back."""
        self._starts.clear()
        self._data.clear()
        self.octets = 0
