"""Octets that arrived ahead of a hole, kept until the hole is filled.

The queue holds disjoint *stretches* ordered by sequence number, each a run of contiguous octets
in the pieces in which they came.  What has been accepted once is never replaced: when two segments
overlap with different octets, the first to arrive wins, in whatever order a third party sends
them (RFC 9293 §3.10.7.4 trims the *new* segment).

Bounds: the receive window limits how far ahead, and so how many octets; `MAX_STRETCHES` limits
into how many islands an attacker may chop them.  At the bound a new island is refused, which
costs the sender a retransmission and us nothing.  Values in, values out.  It imports only the
standard library.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

# Islands per connection.  Losing one segment in three at random, a window of 1 MB has about 240.
MAX_STRETCHES: Final = 512
# Octets up to which pieces are joined: a million segments of one octet must not be a million
# objects, and joining must stay cheaper than receiving.
SMALL_PIECE: Final = 1024


class _Stretch:
    """Contiguous octets numbered [start, end), in the pieces in which they arrived."""

    __slots__ = ("end", "pieces")

    def __init__(self, end: int, pieces: list[bytes]) -> None:
        self.end = end
        self.pieces = pieces


class ReassemblyQueue:
    """Out-of-order octets of one direction of a connection, by unwrapped sequence number."""

    __slots__ = ("_starts", "_stretches", "octets")

    def __init__(self) -> None:
        self._starts: list[int] = []  # ascending; same indices as _stretches
        self._stretches: list[_Stretch] = []  # never touching: those that do are joined
        self.octets = 0  # held in all

    def __len__(self) -> int:
        return len(self._starts)

    def insert(self, seq: int, data: bytes) -> int:
        """Keep the octets of `data`, whose first is number `seq`, that are not held yet.

        Returns how many octets were kept: 0 when all were duplicates, -1 when the queue is full.
        """
        starts, stretches = self._starts, self._stretches
        end = seq + len(data)
        # The stretch that `seq` continues or falls into, if there is one.
        at = bisect_right(starts, seq) - 1
        if at >= 0 and stretches[at].end >= seq:
            home = stretches[at]
            if home.end >= end:
                return 0
            data = data[home.end - seq :]
            seq = home.end
        else:
            if len(starts) >= MAX_STRETCHES:
                return -1
            at += 1
            home = _Stretch(seq, [])
            starts.insert(at, seq)
            stretches.insert(at, home)
        kept = 0
        # Fill the holes that the data spans, joining the stretches behind them to this one.
        while True:
            following = starts[at + 1] if at + 1 < len(starts) else end
            hole = min(following, end) - seq
            if hole > 0:
                piece = data[:hole] if hole < len(data) else data
                if home.pieces and len(home.pieces[-1]) + hole <= SMALL_PIECE:
                    home.pieces[-1] += piece
                else:
                    home.pieces.append(piece)
                home.end = seq + hole
                kept += hole
            if following > home.end or at + 1 >= len(starts):
                break
            joined = stretches[at + 1]
            home.pieces += joined.pieces
            home.end = joined.end
            del starts[at + 1], stretches[at + 1]
            if joined.end >= end:
                break
            data = data[joined.end - seq :]
            seq = joined.end
        self.octets += kept
        return kept

    def take(self, rcv_nxt: int) -> bytes:
        """Remove and return the octets that have become contiguous with `rcv_nxt`."""
        out = b""
        n = 0
        for start, stretch in zip(self._starts, self._stretches, strict=True):
            if start > rcv_nxt:
                break
            n += 1
            self.octets -= stretch.end - start
            if stretch.end > rcv_nxt:
                whole = stretch.pieces[0] if len(stretch.pieces) == 1 else b"".join(stretch.pieces)
                out += whole[rcv_nxt - start :]
                rcv_nxt = stretch.end
        if n:
            del self._starts[:n]
            del self._stretches[:n]
        return out

    def blocks(self) -> list[tuple[int, int]]:
        """Return the stretches held, ascending, as (first, past the last) numbers."""
        return [(s, t.end) for s, t in zip(self._starts, self._stretches, strict=True)]

    def clear(self) -> None:
        """Give everything back."""
        self._starts.clear()
        self._stretches.clear()
        self.octets = 0
