"""Datagrams in pieces: put together when they arrive, cut when they leave.

Reassembly keeps, for each datagram, the pieces and a list of *holes* (RFC 815): at first one hole
from nought to the end of everything; a piece that lies inside a hole leaves what is left of it on
either side. When there is no hole, the datagram is whole. A piece that lies across octets that are
already there is an attack, or a broken network: the whole datagram is given up and what still
comes of it is ignored (RFC 5722 §4; for IPv4, too, where RFC 791 would let the later octets win).
Only an exact repetition is a duplicate (RFC 8200 §4.5).

Memory is an attacker's aim here, so it is bounded by datagram, by source and in total, and each
piece is charged what it costs to keep, not what it carries. At the bound of a source its oldest
datagram goes, at the total the oldest of all: who does not flood loses least.

Both families are the same here; headers are octets that somebody else understands. Sans-I/O.
Imports `errors`, `wire`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from appliance.net.errors import WireError
from appliance.net.wire import ipv4, ipv6

TIMEOUT_V4: Final = 30.0
"""Seconds. Deviates from RFC 1122 §3.3.2 (60 to 120): Linux's ipfrag_time. A link at 1 Mbit/s
sends the 64 KB in half a second, and identifications come round sooner than in a minute."""
TIMEOUT_V6: Final = 60.0
"""Seconds from the first fragment (RFC 8200 §4.5)."""
MAX_LENGTH: Final = 65_535
"""Octets of a datagram put together (RFC 791 §3.1, RFC 8200 §4.5)."""
MAX_PIECES: Final = 128
"""Of one datagram: 64 KB in pieces of 512 octets; smaller ones are nobody's MTU (RFC 791: 576)."""
MAX_DATAGRAMS: Final = 1024
"""At the same time."""
PIECE_COST: Final = 160
"""Octets charged for keeping one piece besides its own (objects of CPython, measured)."""
DATAGRAM_COST: Final = 1024
"""Octets charged for keeping one datagram besides its pieces, the quoted first one included."""
SOURCE_OCTETS: Final = 512 << 10
"""Charged to one source at the most: seven datagrams of 64 KB."""
TOTAL_OCTETS: Final = 4 << 20
"""Charged to all sources: Linux's ipfrag_high_thresh."""
QUOTE: Final = ipv6.MIN_MTU - ipv6.HEADER_LEN - 8
"""Octets of the first fragment kept to quote in an ICMP error."""


class Hole(NamedTuple):
    """Octets that are missing, `first` to `last` (RFC 815 §3); `last` is inf in the last hole."""

    first: int
    last: float


@dataclass(slots=True)
class Whole:
    """A datagram put together: the first fragment's header, the payload, congestion mark."""

    head: bytes
    payload: bytes
    marked: bool


@dataclass(slots=True)
class Expired:
    """A datagram that was given up; `quote` is the first fragment, b"" if it never came."""

    family: int
    quote: bytes


@dataclass(slots=True, eq=False)
class _Datagram:
    key: Hashable
    source: bytes
    family: int
    expires: float
    holes: list[Hole] = field(default_factory=lambda: [Hole(0, inf)])
    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    length: int = -1  # octets of payload, once the last fragment has come
    head: bytes = b""
    quote: bytes = b""
    cost: int = DATAGRAM_COST
    dead: bool = False  # overlapped: swallow the rest
    marked: bool = False


class Reassembler:
    """Datagrams of both families that are not complete yet."""

    def __init__(
        self,
        *,
        datagrams: int = MAX_DATAGRAMS,
        total: int = TOTAL_OCTETS,
        each: int = SOURCE_OCTETS,
    ) -> None:
        self._max_datagrams = datagrams
        self._max_total = total
        self._max_each = each
        # In the order of arrival; with two timeouts that is nearly the order of expiry.
        self._table: dict[Hashable, _Datagram] = {}
        self._by_source: dict[bytes, int] = {}
        self.octets = 0
        """Charged at the moment."""
        self.evicted = 0
        """Datagrams given up for the bounds."""

    def __len__(self) -> int:
        return len(self._table)

    def add(
        self,
        key: Hashable,
        source: bytes,
        offset: int,
        more: bool,
        payload: bytes,
        head: bytes,
        quote: bytes,
        now: float,
        *,
        marked: bool = False,
    ) -> Whole | None:
        """Take a piece; the datagram when it was the last one missing.

        `key` tells datagrams apart and is of one family with `source`; `head` (kept of the first
        fragment) is the header to give back, `quote` the packet as it came. Raises only WireError.
        """
        end = offset + len(payload)
        if end > MAX_LENGTH or not payload or (more and len(payload) & 7):
            raise WireError("ip_fragment_malformed")
        datagram = self._table.get(key)
        if datagram is None:
            datagram = self._admit(key, source, now)
        if datagram.dead:
            raise WireError("ip_fragment_overlap")
        if not self._fits(datagram, offset, end, more, payload):
            return None
        cost = len(payload) + PIECE_COST
        if len(datagram.pieces) >= MAX_PIECES:
            self._kill(datagram)
            raise WireError("ip_fragment_limit")
        datagram.pieces.append((offset, payload))
        datagram.marked |= marked
        self._charge(datagram, cost)
        if offset == 0:
            datagram.head, datagram.quote = head, quote[:QUOTE]
        if not more:
            datagram.length = end
        if datagram.holes:
            self._make_room(datagram)
            return None
        self._drop(datagram)
        datagram.pieces.sort()
        whole = b"".join(octets for _, octets in datagram.pieces)
        return Whole(datagram.head, whole, datagram.marked)

    def deadline(self) -> float:
        """When `expire` has something to do, seconds; inf: never."""
        # The oldest of either family: the first of the table, or one close behind it.
        return min((d.expires for d in self._heads()), default=inf)

    def expire(self, now: float) -> list[Expired]:
        """Give up what has waited too long (RFC 1122 §3.3.2, RFC 8200 §4.5)."""
        gone: list[Expired] = []
        while True:
            late = [d for d in self._heads() if d.expires <= now]
            if not late:
                return gone
            for datagram in late:
                self._drop(datagram)
                if not datagram.dead:
                    gone.append(Expired(datagram.family, datagram.quote))

    def _heads(self) -> Iterator[_Datagram]:
        """The oldest datagram of each family (each has one timeout, so it expires first)."""
        seen = 0
        for datagram in self._table.values():
            bit = 1 if datagram.family == 4 else 2
            if not seen & bit:
                seen |= bit
                yield datagram
                if seen == 3:
                    return

    # RFC 815 §3.

    def _fits(self, datagram: _Datagram, offset: int, end: int, more: bool, payload: bytes) -> bool:
        """Take the piece out of its hole; False for a duplicate, WireError for an overlap."""
        hole = next((h for h in datagram.holes if h.first <= offset and end - 1 <= h.last), None)
        if hole is None:
            if (offset, payload) in datagram.pieces:
                return False  # RFC 8200 §4.5: an exact duplicate may be ignored
            self._kill(datagram)
            raise WireError("ip_fragment_overlap")
        if not more and hole.last != inf:
            # The end lies before octets that are there already.
            self._kill(datagram)
            raise WireError("ip_fragment_overlap")
        left: list[Hole] = []
        if hole.first < offset:
            left.append(Hole(hole.first, offset - 1))
        if more and end <= hole.last:
            left.append(Hole(end, hole.last))
        place = datagram.holes.index(hole)
        datagram.holes[place : place + 1] = left
        return True

    # Bounds.

    def _admit(self, key: Hashable, source: bytes, now: float) -> _Datagram:
        family = len(source)
        datagram = _Datagram(key, source, family, now + (TIMEOUT_V4 if family == 4 else TIMEOUT_V6))
        if len(self._table) >= self._max_datagrams:
            self.evicted += 1
            self._drop(next(iter(self._table.values())))
        self._table[key] = datagram
        self.octets += DATAGRAM_COST
        self._by_source[source] = self._by_source.get(source, 0) + DATAGRAM_COST
        return datagram

    def _charge(self, datagram: _Datagram, octets: int) -> None:
        datagram.cost += octets
        self.octets += octets
        self._by_source[datagram.source] += octets

    def _make_room(self, kept: _Datagram) -> None:
        """Give up the oldest of this source, then the oldest of all, while over the bounds."""
        source = kept.source
        while self._by_source.get(source, 0) > self._max_each:
            self.evicted += 1
            self._drop(next(d for d in self._table.values() if d.source == source))
        while self.octets > self._max_total:
            self.evicted += 1
            self._drop(next(iter(self._table.values())))

    def _kill(self, datagram: _Datagram) -> None:
        """Forget the pieces, remember the datagram: what still comes of it is ignored."""
        freed = datagram.cost - DATAGRAM_COST
        datagram.dead = True
        datagram.pieces = []
        datagram.quote = datagram.head = b""
        self._charge(datagram, -freed)

    def _drop(self, datagram: _Datagram) -> None:
        del self._table[datagram.key]
        self.octets -= datagram.cost
        left = self._by_source[datagram.source] - datagram.cost
        if left:
            self._by_source[datagram.source] = left
        else:
            del self._by_source[datagram.source]


class Identifications:
    """Numbers for datagrams that may be cut (RFC 6864 §4.3, RFC 7739 §5.3).

    One counter per slot of a keyed hash of the addresses: unique for longer than a datagram lives,
    and nobody learns from his own packets what others are sent.
    """

    SLOTS: Final = 2048  # 16 KB; a collision only makes a counter run faster

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._counters: dict[int, int] = {}

    def following(self, src: bytes, dst: bytes, protocol: int) -> int:
        """Thirty-two bits; for IPv4 the low sixteen are used."""
        digest = hashlib.blake2b(
            src + dst + bytes((protocol,)), key=self._secret[:64], digest_size=8
        ).digest()
        slot = int.from_bytes(digest[4:]) % self.SLOTS
        counter = self._counters.get(slot, 0) + 1
        self._counters[slot] = counter
        return (int.from_bytes(digest[:4]) + counter) & 0xFFFF_FFFF


def cut_ipv4(
    src: bytes, dst: bytes, protocol: int, body: bytes, mtu: int, ident: int
) -> list[bytes]:
    """IPv4 packets of at most `mtu` octets that carry `body` (RFC 791 §3.2, RFC 6864 §4.3).

    ValueError for an MTU below 68 or a body over 65,515 octets.
    """
    if mtu < ipv4.MIN_MTU:
        raise ValueError(f"an MTU of {mtu} octets")
    if len(body) + ipv4.HEADER_LEN > ipv4.MAX_TOTAL_LEN:
        raise ValueError(f"an IPv4 datagram of {len(body) + ipv4.HEADER_LEN} octets")
    step = (mtu - ipv4.HEADER_LEN) & ~7
    packets = []
    for at in range(0, len(body), step):
        piece = body[at : at + step]
        head = ipv4.header(
            src, dst, protocol, len(piece),
            ident=ident & 0xFFFF,
            flags=ipv4.FLAG_MF if at + step < len(body) else 0,
            fragment_offset=at,
        )  # fmt: skip
        packets.append(head + piece)
    return packets


def cut_ipv6(
    src: bytes, dst: bytes, protocol: int, body: bytes, mtu: int, ident: int, hop_limit: int
) -> list[bytes]:
    """IPv6 packets of at most `mtu` octets that carry `body` (RFC 8200 §4.5).

    ValueError for an MTU below 1,280 or a body over 65,535 octets.
    """
    if mtu < ipv6.MIN_MTU:
        raise ValueError(f"an MTU of {mtu} octets")
    if len(body) > ipv6.MAX_PAYLOAD:
        raise ValueError(f"an IPv6 payload of {len(body)} octets")
    step = (mtu - ipv6.HEADER_LEN - ipv6.FRAGMENT_LEN) & ~7
    packets = []
    for at in range(0, len(body), step):
        piece = body[at : at + step]
        head = ipv6.header(
            src, dst, ipv6.FRAGMENT, len(piece) + ipv6.FRAGMENT_LEN, hop_limit=hop_limit
        ) + ipv6.fragment_header(protocol, at, at + step < len(body), ident)
        packets.append(head + piece)
    return packets
