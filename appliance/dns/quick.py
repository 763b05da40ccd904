"""The path of a plain query: three slices, a look-up, an answer put together.

A hot answer costs no parse but a walk over the name's labels: the question as it stands, or in
lower case, is a key of our making. The identifier, RD and the question
(in the querier's case) are copied, OPT is a constant, and the body was rendered against the
question's fixed place; see `render`. Whatever does not fit the pattern is for `respond`.

This module is compiled by mypyc where packages are built with a compiler, as are `cache`,
`datagrams` and `prepared`. Imports the leaves of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from appliance.dns.cache import Generations
from appliance.dns.counters import MAX_TYPES, Counters
from appliance.dns.prepared import Prepared
from appliance.dns.respond import UNPLAIN, Responder
from appliance.dns.rrl import RateLimiter, address_of
from appliance.dns.tally import Tally

# What a plain query has behind its identifier: RD in the low bit; AD and CD may be set and mean
# nothing here (RFC 4035 §3.1.6); one question; with bit 1 one additional record, which is OPT.
_HEADS: Final[dict[bytes, int]] = {
    bytes((rd, bits, 0, 1, 0, 0, 0, 0, 0, opt)): opt << 1 | rd
    for rd in (0, 1)
    for bits in (0, 0x10, 0x20, 0x30)
    for opt in (0, 1)
}
_PLAIN_OPT: Final[dict[bytes, int]] = {b"\0\0\0\0\0\0": 0, b"\0\0\x80\0\0\0": 1}
"""An OPT without options behind its size: extended code, version, DO, no options."""
_DO: Final = 1
"""RFC 3225 §3: signatures and proofs are wanted, so only an answer that has none will do."""
_NO_OPT: Final = 2
"""The place in `opts` for queries without EDNS."""
_ODD: Final = -1

_CLASS_IN: Final = b"\0\1"
Opts = tuple[bytes, ...]
"""OPT records for answers to queries without DO, with DO, and without EDNS."""


class Quick:
    """Answers plain queries from what was rendered; made anew when any of its tables is."""

    def __init__(
        self,
        hot: dict[bytes, Prepared],
        table: dict[bytes, int],
        warm: Generations[bytes, Prepared],
        shaped: Generations[int, Prepared],
        absent: set[bytes],
        counters: Counters,
        limiter: RateLimiter | None,
        clock: Callable[[], float],
        slow: Responder,
        opts: Opts,
        refused: Prepared,
        refused_opts: Opts,
    ) -> None:
        """The tables are the catalog's own; `table` is that of `places`."""
        self._hot = hot
        self._table = table
        self._warm = warm
        self._shaped = shaped
        self._absent = absent
        self._counters = counters
        self._rcodes = counters.rcodes
        self._shared_hits = counters.shared
        self._kinds: dict[bytes, Tally] = {}
        """Where questions of a type and class are counted, of those that `_shared` may answer; at
        most MAX_TYPES."""
        self._limiter = limiter
        self._clock = clock
        self._slow = slow
        self._opts = opts
        self._refused = refused
        self._refused_opts = refused_opts

    def answer(
        self,
        query: bytes | bytearray | memoryview,
        *,
        transport: str = "udp",
        peer: Any = None,
    ) -> bytes | None:
        """The answer to one message, None if there is to be none; never raises on any octets.

        `transport` is "udp" or the name of a stream; `peer` is the sender's address, if known.
        """
        if not isinstance(query, bytes):
            query = bytes(query)  # libraries pack bytearrays, which are no keys
        kind = _HEADS.get(query[2:12])
        named = name_end(query) if kind is not None else 0
        if kind is not None and named:
            end = named + 4
            do = _ODD
            if kind < 2:
                if len(query) == end:
                    do = _NO_OPT
            elif len(query) == end + 11 and query[end : end + 3] == b"\0\0\x29":
                do = _PLAIN_OPT.get(query[end + 5 :], _ODD)
            if do != _ODD:
                question = query[12:end]
                ready = self._hot.get(question)
                if ready is None:
                    ready = self._elsewhere(question, named - 12, do == _DO)
                elif ready.small and (ready.bare or do != _DO):
                    ready.tally.count += 1
                else:
                    ready = None
                if ready is not None:
                    if self._limiter is not None and transport == "udp":
                        verdict = self._limiter.judge(address_of(peer), ready.kind, self._clock())
                        if verdict:
                            return self._slow.limited(query, end, self._opts[do], verdict)
                    opts = self._opts if ready is not self._refused else self._refused_opts
                    return b"".join(
                        (query[:2], ready.heads[kind], question, ready.octets, opts[do])
                    )
        return self._slow.answer(query, transport, peer)

    def _elsewhere(self, question: bytes, length: int, proofs: bool) -> Prepared | None:
        """An answer for a question that is no key as it stands; None if it takes more.

        Most names are asked for in lower case, so this is tried second. `length`: octets of the
        name.
        """
        name = question[:length].lower()
        asked = question[length:]
        key = name + asked
        if key != question:
            ready = self._hot.get(key)
            if ready is not None:
                if not ready.small or (proofs and not ready.bare):
                    return None
                ready.tally.count += 1
                return ready
        return self._shared(name, asked, key, proofs)

    def _shared(self, name: bytes, asked: bytes, key: bytes, proofs: bool) -> Prepared | None:
        """A remembered answer for a sound name; None if it takes more.

        `asked` is type and class, `key` all of it.
        """
        kind = self._kinds.get(asked)
        if kind is None:
            kind = self._kind(asked)
            if kind is None:
                return None
        table = self._table
        length = len(name)
        at = 0
        place = table.get(name)
        while place is None and at + 1 < length:
            at += 1 + name[at]
            place = table.get(name[at:])
        ready: Prepared | None = None
        if place is None:
            if not self._absent:
                ready = self._refused
        elif not at:
            ready = self._warm.get(key)
        elif place:
            shape = place << 24 | length << 16
            if place & 1:
                shape |= asked[0] << 8 | asked[1]
            ready = self._shaped.get(shape)
        if ready is None or not ready.small or (proofs and not ready.bare):
            return None
        if at and place:
            self._shared_hits.count += 1
        self._rcodes[ready.rcode].count += 1
        kind.count += 1
        return ready

    def _kind(self, asked: bytes) -> Tally | None:
        """Where questions of this type and class are counted; None: those are no plain ones."""
        if asked[2:] != _CLASS_IN or asked[:2] in UNPLAIN:
            return None
        kind = self._counters.kind(asked)
        if len(self._kinds) < MAX_TYPES:
            self._kinds[asked] = kind
        return kind


def name_end(query: bytes) -> int:
    """Where the name of the first question ends; 0 if it is no plain one.

    RFC 1035 §2.3.4: labels have up to 63 octets, names 255. §4.1.4: an octet that is more begins a
    pointer, and the first name of a message has none before it to point to.
    """
    most = min(len(query), 12 + 255)
    at = 12
    while at < most:
        step = query[at]
        at += 1 + step
        if not step:
            return at
        if step > 63:
            break
    return 0
