"""`Catalog.answer`: a query's octets in, the answer's octets out.

    plain query ┬ key known ───── hot: rendered at load; three slices and a look-up
                ├ place known ─── shaped: one rendering for a flood of names that do not exist
                └ not ours ────── refused
    any query ─── parse ─ lookup ─ render ─ remembered for the next

A hot answer costs no parse: the first zero octet behind the header can only be the end of the name
if the octets up to it, in lower case, with type and class behind them are a key of our making. The
identifier, RD and the question (in the querier's case) are copied, OPT is a constant, and the
body was rendered against the question's fixed place; see `render`. All ways lead to the same
octets; tests hold them against each other.

Floods cannot push out what is hot: answers for names that exist live in one dictionary filled at
load, all others in bounded ones (`cache`). Imports the leaves of this package only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from appliance.dns import names
from appliance.dns.cache import Generations
from appliance.dns.consts import (
    AXFR,
    BADCOOKIE,
    BADVERS,
    CLASS_ANY,
    CLASSIC_UDP,
    DEFAULT_UDP,
    FORMERR,
    HEADER_LEN,
    IN,
    IXFR,
    MAILA,
    MAILB,
    MAX_MESSAGE,
    NOERROR,
    NOTIMP,
    OPT,
    REFUSED,
    TKEY,
    TSIG,
)
from appliance.dns.counters import Counters
from appliance.dns.edns import (
    ENCRYPTED,
    EXTENDED,
    NOTHING,
    PROHIBITED,
    Extensions,
    Said,
    extended_error,
    opt_record,
    padding,
)
from appliance.dns.errors import LocalError, WireError
from appliance.dns.lookup import Answer, Lookup, Trace, Zones
from appliance.dns.message import DO, FormatError, Query, parse
from appliance.dns.places import Places
from appliance.dns.prepared import EAGER, ERRORS, HEAD, QR, RD, TC, Prepared, refused, render_all
from appliance.dns.rrl import SLIP, RateLimiter, address_of
from appliance.dns.zone import Zone, collector_paused

# What a plain query has behind its identifier: RD in the low bit; AD and CD may be set and mean
# nothing here (RFC 4035 §3.1.6); one question; with bit 1 one additional record, which is OPT.
_HEADS: Final[dict[bytes, int]] = {
    bytes((rd, bits, 0, 1, 0, 0, 0, 0, 0, opt)): opt << 1 | rd
    for rd in (0, 1)
    for bits in (0, 0x10, 0x20, 0x30)
    for opt in (0, 1)
}
_PLAIN_OPT: Final = {b"\0\0\0\0\0\0": 0, b"\0\0\x80\0\0\0": 1}
"""An OPT without options behind its size: extended code, version, DO, no options."""

_NO_QUESTION: Final = {
    # RFC 6895 §3.1: these types are no questions.
    0: FORMERR,
    OPT: FORMERR,
    TKEY: FORMERR,
    TSIG: FORMERR,
    # RFC 5936 §2.2.1: not allowed to this client.
    AXFR: REFUSED,
    IXFR: REFUSED,
    # RFC 1035 §3.2.3: obsolete.
    MAILA: NOTIMP,
    MAILB: NOTIMP,
}
"""Types that no zone could answer, and what is said instead."""
_UNPLAIN: Final = frozenset(qtype.to_bytes(2, "big") for qtype in _NO_QUESTION)
_CLASS_IN: Final = b"\0\1"

WARM_ENTRIES: Final = 100_000
WARM_OCTETS: Final = 32 << 20
"""Bounds of the answers remembered for names that exist: the busy part of a large zone."""
SHAPED_ENTRIES: Final = 20_000
SHAPED_OCTETS: Final = 8 << 20
"""Bounds of the renderings that names share: one for each wildcard, cut or zone and length."""


class Catalog:
    """The zones served and everything rendered from them; made anew when a zone changes."""

    __slots__ = (
        "_clock",
        "_extensions",
        "_hot",
        "_limiter",
        "_lookup",
        "_opts",
        "_places",
        "_refused",
        "_refused_opts",
        "_shaped",
        "_warm",
        "counters",
        "udp_size",
        "zones",
    )

    def __init__(
        self,
        zones: Iterable[Zone],
        *,
        udp_size: int = DEFAULT_UDP,
        minimal: bool = True,
        counters: Counters | None = None,
        extensions: Extensions | None = None,
        limiter: RateLimiter | None = None,
        clock: Callable[[], float] = time.monotonic,
        eager: int = EAGER,
    ) -> None:
        """Index the zones and render what they can be asked for.

        `udp_size`: octets of a UDP answer at most; `minimal`: no apex NS beside positive answers;
        `extensions`: what is said in EDNS; `limiter`: how often, by monotonic `clock`; `eager`:
        answers rendered now. LocalError if two zones have one origin or `udp_size` is not in
        512..65535.
        """
        if not CLASSIC_UDP <= udp_size <= MAX_MESSAGE:
            raise LocalError(f"udp_size {udp_size} is not in {CLASSIC_UDP}..{MAX_MESSAGE}")
        self.zones = Zones(zones)
        self.udp_size = udp_size
        self.counters = counters if counters is not None else Counters()
        self._lookup = Lookup(self.zones, minimal=minimal)
        self._limiter = limiter
        self._clock = clock
        self._extensions = extensions if extensions is not None else Extensions()
        # For queries without EDNS (the last), without DO, with DO.
        self._opts = (opt_record(udp_size, 0), opt_record(udp_size, DO), b"")
        self._refused = refused()
        why = extended_error(EXTENDED[REFUSED])
        self._refused_opts = (
            opt_record(udp_size, 0, REFUSED, why),
            opt_record(udp_size, DO, REFUSED, why),
            b"",
        )
        self._warm: Generations[bytes, Prepared] = Generations(WARM_ENTRIES, WARM_OCTETS)
        self._shaped: Generations[int, Prepared] = Generations(SHAPED_ENTRIES, SHAPED_OCTETS)
        with collector_paused():
            self._places = Places(self.zones)
            self._hot = render_all(self.zones, self._lookup, eager)

    # The path of a plain query.

    def answer(self, query: bytes, *, transport: str = "udp", peer: Any = None) -> bytes | None:
        """The answer to one message, None if there is to be none; never raises on any octets.

        `transport` is "udp" or the name of a stream; `peer` is the sender's address, if known.
        """
        kind = _HEADS.get(query[2:12])
        if kind is not None:
            name_end = query.find(0, 12) + 1
            end = name_end + 4
            do = None
            if kind < 2:
                if len(query) == end:
                    do = -1
            elif len(query) == end + 11 and query[end : end + 3] == b"\0\0\x29":
                do = _PLAIN_OPT.get(query[end + 5 :])
            if do is not None:
                name = query[12:name_end].lower()
                ready = self._hot.get(name + query[name_end:end])
                if ready is None:
                    ready = self._shared(name, query[name_end:end])
                elif ready.small:
                    self.counters.hot += 1
                if ready is not None and ready.small:
                    if self._limiter is not None and transport == "udp":
                        verdict = self._limiter.judge(address_of(peer), ready.kind, self._clock())
                        if verdict:
                            return self._limited(query, end, self._opts[do], verdict)
                    opt = self._opts[do] if ready is not self._refused else self._refused_opts[do]
                    return query[:2] + ready.heads[kind] + query[12:end] + ready.octets + opt
        return self._answer(query, transport, peer)

    def _shared(self, name: bytes, kind: bytes) -> Prepared | None:
        """A remembered answer for a name whose extent is a guess; None if it takes more.

        `kind` is type and class. The guess was right if labels lead from its start to a known name.
        """
        if kind[2:] != _CLASS_IN or kind[:2] in _UNPLAIN or len(name) > 255:
            return None
        table = self._places.table
        at = 0
        place = table.get(name)
        try:
            while place is None:
                length = name[at]
                if not 0 < length < 64:
                    break
                at += 1 + length
                place = table.get(name[at:])
            else:
                counters = self.counters
                if not at:
                    ready = self._warm.get(name + kind)
                elif place:
                    key = place << 24 | len(name) << 16
                    if place & 1:
                        key |= kind[0] << 8 | kind[1]
                    ready = self._shaped.get(key)
                else:
                    return None
                if ready is not None and ready.small:
                    counters.rcodes[ready.rcode] += 1
                    counters.shaped += 1
                    return ready
                return None
        except IndexError:
            return None
        if at + 1 != len(name):
            return None
        self.counters.rcodes[REFUSED] += 1
        return self._refused

    # The path of every other query.

    def _answer(self, message: bytes, transport: str, peer: Any = None) -> bytes | None:
        # A response is never answered, lest two servers talk for ever; and a message without
        # a whole header cannot be.
        if len(message) < HEADER_LEN or message[2] & QR:
            self.counters.dropped += 1
            return None
        said = NOTHING
        prepared: Prepared | None = None
        try:
            query = parse(message)
        except FormatError as error:
            query = error.query
            answer = self._error(message, query, FORMERR)
        else:
            edns = query.edns
            try:
                if edns is not None and edns.options:
                    said = self._extensions.reply(edns, transport, peer)
                rcode, why = self._unservable(query, said)
            except WireError:
                rcode, why = FORMERR, 0
            if not rcode and query.end > HEADER_LEN:
                prepared = self._prepared(message, query)
                rcode, why = prepared.rcode, EXTENDED[REFUSED]
            if prepared is None or rcode == REFUSED:
                answer = self._error(message, query, rcode, said, why)
            else:
                answer = self._finish(message, query, prepared, said, transport)
        if self._limiter is not None and transport == "udp" and not said.known:
            kind = prepared.kind if prepared is not None else ERRORS
            verdict = self._limiter.judge(address_of(peer), kind, self._clock())
            if verdict:
                edns = query.edns
                opt = b"" if edns is None else opt_record(self.udp_size, edns.flags)
                return self._limited(message, query.end, opt, verdict)
        return answer

    def _limited(self, message: bytes, end: int, opt: bytes, verdict: int) -> bytes | None:
        """Nothing, or the question alone with TC, which is never longer than the query was."""
        if verdict != SLIP:
            self.counters.rate_dropped += 1
            return None
        self.counters.rate_slipped += 1
        head = HEAD(QR | TC | message[2] & 0x79, 0, end > HEADER_LEN, 0, 0, bool(opt))
        return message[:2] + head + message[HEADER_LEN:end] + opt

    def _unservable(self, query: Query, said: Said) -> tuple[int, int]:
        """Response code and extended error for what no zone could answer."""
        if query.opcode:
            # RFC 8906 §3.1.4: an unknown opcode gets NOTIMP; its message has a form of its own,
            # so nothing but the header is sent back.
            return NOTIMP, 0
        if query.edns is not None and query.edns.version:
            return BADVERS, 0  # RFC 6891 §6.1.3
        if query.end == HEADER_LEN:
            # RFC 7873 §5.4: a question about nothing but the cookie.
            if self._extensions.cookies is None:
                return FORMERR, 0
            return BADCOOKIE if said.bad_cookie else NOERROR, 0
        if query.qclass not in (IN, CLASS_ANY):
            return REFUSED, EXTENDED[REFUSED]  # RFC 8906 §3.1.1; CHAOS too
        rcode = _NO_QUESTION.get(query.qtype, NOERROR)
        return rcode, PROHIBITED if rcode == REFUSED else EXTENDED.get(rcode, 0)

    def _prepared(self, message: bytes, query: Query) -> Prepared:
        """The rendering for a question, remembered or made."""
        qname = message[HEADER_LEN : query.name_end]
        key = qname.lower() + message[query.name_end : query.end]
        prepared = self._hot.get(key) or self._warm.get(key)
        if prepared is not None:
            self.counters.warm += 1
            return prepared
        found = self._lookup.resolve(qname, query.qtype)
        if query.qclass == CLASS_ANY:
            # RFC 1035 §6.2: the records of one class are no authoritative answer for all of them.
            found.aa = False
            found.shape = None
            found.exact = False
        if found.shape is not None:
            shaped_at = self._places.key(found.shape, len(qname), query.qtype)
            prepared = self._shaped.get(shaped_at)
            if prepared is not None:
                self.counters.shaped += 1
                return prepared
        self.counters.slow += 1
        prepared = Prepared(qname, found)
        if found.shape is not None:
            self._shaped.put(shaped_at, prepared, len(prepared.octets))
        elif found.exact:
            self._warm.put(key, prepared, len(prepared.octets) + len(key))
        return prepared

    def _finish(
        self, message: bytes, query: Query, prepared: Prepared, said: Said, transport: str
    ) -> bytes:
        """Header, question, as much of the body as goes in, and OPT."""
        edns = query.edns
        opt = b""
        if edns is not None:
            opt = opt_record(self.udp_size, edns.flags, prepared.rcode, said.options)
        limit = MAX_MESSAGE
        if transport == "udp":
            # RFC 6891 §6.2.3: sizes below 512 mean 512.
            limit = CLASSIC_UDP if edns is None else max(CLASSIC_UDP, min(edns.size, self.udp_size))
        heads, octets, truncated = prepared.cut(limit - query.end - len(opt))
        self.counters.truncated += truncated
        self.counters.rcodes[prepared.rcode] += 1
        head = heads[(edns is not None) << 1 | message[2] & RD]
        if edns is not None and transport in ENCRYPTED:
            pad = padding(query.end + len(octets) + len(opt), edns, transport)
            if query.end + len(octets) + len(opt) + len(pad) <= limit:
                opt = opt_record(self.udp_size, edns.flags, prepared.rcode, said.options + pad)
        return message[:2] + head + message[HEADER_LEN : query.end] + octets + opt

    def _error(
        self,
        message: bytes,
        query: Query,
        rcode: int,
        said: Said = NOTHING,
        why: int = 0,
    ) -> bytes:
        """Header, the question as far as it was understood, and OPT."""
        self.counters.rcodes[rcode] += 1
        edns = query.edns
        # RFC 8906 §3.2: opcode and RD are copied, everything else is cleared.
        head = HEAD(
            QR | query.opcode << 3 | message[2] & RD,
            rcode & 15,
            query.end > HEADER_LEN,
            0,
            0,
            edns is not None,
        )
        opt = b""
        if edns is not None:
            options = said.options + (extended_error(why) if why else b"")
            opt = opt_record(self.udp_size, edns.flags, rcode, options)
        return message[:2] + head + message[HEADER_LEN : query.end] + opt

    # For people.

    def explain(self, name: str, qtype: int) -> tuple[Answer, Trace]:
        """Decide without rendering and say why: the answer and the steps that led to it."""
        trace: Trace = []
        return self._lookup.resolve(names.from_text(name, names.ROOT), qtype, trace), trace
