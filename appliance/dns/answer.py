"""`Catalog.answer`: a query's octets in, the answer's octets out.

    query ─ header known, question known ──────────── hot: rendered at load, 3 slices and a look-up
          └ message.parse ─ edns ─ key known ──────── warm: rendered for an earlier query
                                 └ lookup ─ shape known ─ shaped: one rendering for a flood of names
                                          └ render ──── slow

A hot answer costs no parse: the first zero octet behind the header can only be the end of the
name if the octets up to it, in lower case, with type and class behind them are a key of our making.
The identifier, RD and the question (in the querier's case) are copied, OPT is a constant, and the
body was rendered against the question's fixed place; see `render`. The three other ways lead to the
same octets; tests hold them against each other.

Floods cannot push out what is hot: answers for names that exist live in one dictionary filled at
load, everything else in two bounded ones (`cache`). Imports the leaves of this package only.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Any, Final

from appliance.dns import names
from appliance.dns.cache import Generations
from appliance.dns.consts import (
    AAAA,
    ANY,
    AXFR,
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
    A,
)
from appliance.dns.counters import Counters
from appliance.dns.errors import LocalError
from appliance.dns.lookup import Answer, Lookup, Trace, Zones
from appliance.dns.message import DO, Edns, FormatError, Query, parse
from appliance.dns.render import QUESTION_NAME, Body, Mark, fit, question_table, render
from appliance.dns.zone import Zone

_COUNTS: Final = Struct("!BBHHHH").pack
"""The header behind the identifier."""
_OPT: Final = Struct("!BHHBBHH").pack
"""Root, OPT, size, extended response code, version, flags, length of options (RFC 6891 §6.1.2)."""
OPT_LEN: Final = 11
"""Octets of an OPT record without options."""

_QR, _AA, _TC, _RD = 0x80, 0x04, 0x02, 0x01

# What a plain query has behind its identifier: RD in the low bit; AD and CD may be set and mean
# nothing here (RFC 4035 §3.1.6); one question; with bit 1 one additional record, which is OPT.
_HEADS: Final[dict[bytes, int]] = {
    bytes((rd, bits, 0, 1, 0, 0, 0, 0, 0, opt)): opt << 1 | rd
    for rd in (0, 1)
    for bits in (0, 0x10, 0x20, 0x30)
    for opt in (0, 1)
}
_OPT_START: Final = b"\0\0\x29"
_PLAIN_OPT: Final = {b"\0\0\0\0\0\0": 0, b"\0\0\x80\0\0\0": 1}
"""The rest of an OPT without options behind its size: extended code, version, DO, no options."""

HOT_MAX: Final = CLASSIC_UDP - OPT_LEN
"""Octets of a hot answer before OPT: goes into any datagram, so nobody need look at the limits."""
WARM_ENTRIES: Final = 100_000
WARM_OCTETS: Final = 32 << 20
"""Bounds of the answers remembered for names that exist: the busy part of a large zone."""
SHAPED_ENTRIES: Final = 20_000
SHAPED_OCTETS: Final = 8 << 20
"""Bounds of the renderings that names share: one for each wildcard, cut or zone and length."""
EAGER_RECORDS: Final = 2_000_000
"""RRsets rendered at load at most; what lies beyond is rendered when it is first asked for."""

Hot = tuple[bytes, bytes, bytes, bytes, bytes]
"""Flags and counts for no RD, RD, EDNS, EDNS and RD; then the body."""


class Prepared:
    """A rendered answer and what is needed to put a header before it."""

    __slots__ = ("aa", "body", "rcode")

    def __init__(self, rcode: int, aa: bool, body: Body) -> None:
        """`rcode` without extension."""
        self.rcode = rcode
        self.aa = aa
        self.body = body

    def head(self, mark: Mark, *, rd: int, tc: bool, opt: bool) -> bytes:
        """Flags and counts for the part of the body that `mark` ends."""
        return _COUNTS(
            _QR | (_AA if self.aa else 0) | (_TC if tc else 0) | rd,
            self.rcode,
            1,
            mark.answers,
            mark.authorities,
            mark.additionals + opt,
        )

    def hot(self) -> Hot:
        """The same for the hot dictionary."""
        mark = self.body.marks[-1]
        a, b, c, d = (
            self.head(mark, rd=rd, tc=False, opt=opt) for opt in (False, True) for rd in (0, 1)
        )
        return a, b, c, d, self.body.octets


class Catalog:
    """The zones served and everything rendered from them; made anew when a zone changes."""

    __slots__ = (
        "_hot",
        "_lookup",
        "_opts",
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
        eager: int = EAGER_RECORDS,
    ) -> None:
        """Index the zones and render what they can be asked for.

        `udp_size`: octets of a UDP answer at most; `minimal`: no apex NS beside positive answers;
        `eager`: answers rendered now. Raises LocalError if two zones have one origin or `udp_size`
        is not in 512..65535.
        """
        if not CLASSIC_UDP <= udp_size <= MAX_MESSAGE:
            raise LocalError(f"udp_size {udp_size} is not in {CLASSIC_UDP}..{MAX_MESSAGE}")
        self.zones = Zones(zones)
        self.udp_size = udp_size
        self.counters = counters if counters is not None else Counters()
        self._lookup = Lookup(self.zones, minimal=minimal)
        self._opts = tuple(_OPT(0, OPT, udp_size, 0, 0, do, 0) for do in (0, DO))
        self._hot: dict[bytes, Hot] = {}
        self._warm: Generations[bytes, Prepared] = Generations(WARM_ENTRIES, WARM_OCTETS)
        self._shaped: Generations[tuple[Any, int], Prepared] = Generations(
            SHAPED_ENTRIES, SHAPED_OCTETS
        )
        self._render_all(eager)

    # The path of a query.

    def answer(self, query: bytes, *, transport: str = "udp", peer: Any = None) -> bytes | None:
        """The answer to one message, None if there is to be none; never raises on any octets.

        `transport` is "udp" or the name of a stream; `peer` is the sender's address, if known.
        """
        kind = _HEADS.get(query[2:12])
        if kind is not None:
            name_end = query.find(0, 12) + 1
            end = name_end + 4
            hot = self._hot.get(query[12:name_end].lower() + query[name_end:end])
            if hot is not None:
                if kind < 2:
                    if len(query) == end:
                        self.counters.hot += 1
                        return query[:2] + hot[kind] + query[12:end] + hot[4]
                elif len(query) == end + 11 and query[end : end + 3] == _OPT_START:
                    do = _PLAIN_OPT.get(query[end + 5 :])
                    if do is not None:
                        self.counters.hot += 1
                        return query[:2] + hot[kind] + query[12:end] + hot[4] + self._opts[do]
        return self._answer(query, transport)

    def _answer(self, message: bytes, transport: str) -> bytes | None:
        """Everything that is not hot."""
        # A response is never answered, lest two servers talk for ever (RFC 8906 §2 names silence
        # a fault for queries only); less than a header cannot be answered.
        if len(message) < HEADER_LEN or message[2] & _QR:
            self.counters.dropped += 1
            return None
        try:
            query = parse(message)
        except FormatError as error:
            return self._error(message, error.query, FORMERR)
        if query.opcode:
            # RFC 8906 §3.1.4: an unknown opcode gets NOTIMP; its message has a form of its own,
            # so nothing but the header is sent back.
            return self._error(message, query, NOTIMP)
        edns = query.edns
        if edns is not None and edns.version:
            return self._error(message, query, BADVERS)
        rcode = self._unservable(query)
        if rcode:
            return self._error(message, query, rcode)
        prepared = self._prepared(message, query)
        if prepared.rcode == REFUSED:
            return self._error(message, query, REFUSED)
        return self._finish(message, query, prepared, transport)

    @staticmethod
    def _unservable(query: Query) -> int:
        """A response code for questions that no zone could answer."""
        qtype = query.qtype
        if query.qclass not in (IN, CLASS_ANY):
            return REFUSED  # RFC 8906 §3.1.1; CHAOS is answered by nobody unless configured
        if qtype in (OPT, TSIG, TKEY, 0):
            return FORMERR  # RFC 6895 §3.1: these are no questions
        if qtype in (AXFR, IXFR):
            return REFUSED  # RFC 5936 §2.2.1: not allowed to this client
        if qtype in (MAILA, MAILB):
            return NOTIMP  # RFC 1035 §3.2.3: obsolete
        return NOERROR

    def _prepared(self, message: bytes, query: Query) -> Prepared:
        """The rendering for a question, remembered or made."""
        qname = message[HEADER_LEN : query.name_end]
        key = qname.lower() + message[query.name_end : query.end]
        prepared = self._warm.get(key)
        if prepared is not None:
            self.counters.warm += 1
            return prepared
        found = self._lookup.resolve(qname, query.qtype)
        if query.qclass == CLASS_ANY:
            # RFC 1035 §6.2: one class of all cannot be the authoritative answer for every class.
            found.aa = False
            found.shape = None
        shape = found.shape
        if shape is not None:
            shaped_key = (shape.key, len(qname))
            prepared = self._shaped.get(shaped_key)
            if prepared is not None:
                self.counters.shaped += 1
                return prepared
        self.counters.slow += 1
        prepared = self._render(qname, found)
        if shape is not None:
            self._shaped.put(shaped_key, prepared, len(prepared.body.octets))
        elif found.exact:
            self._warm.put(key, prepared, len(prepared.body.octets) + len(key))
        return prepared

    @staticmethod
    def _render(qname: bytes, found: Answer) -> Prepared:
        """Render a decision against the question's name."""
        shape = found.shape
        answer = [
            (QUESTION_NAME if owner is qname else owner, rrset) for owner, rrset in found.answer
        ]
        body = render(
            question_table(qname, shape.known if shape is not None else 0),
            HEADER_LEN + len(qname) + 4,
            answer,
            found.authority,
            found.glue,
            found.additional,
        )
        return Prepared(found.rcode, found.aa, body)

    def _finish(self, message: bytes, query: Query, prepared: Prepared, transport: str) -> bytes:
        """Header, question, as much of the body as goes in, and OPT."""
        edns = query.edns
        opt = self._opt(edns, prepared.rcode) if edns is not None else b""
        limit = MAX_MESSAGE
        if transport == "udp":
            # RFC 6891 §6.2.3: sizes below 512 mean 512.
            limit = CLASSIC_UDP if edns is None else max(CLASSIC_UDP, min(edns.size, self.udp_size))
        body = prepared.body
        mark, tc = body.marks[-1], False
        room = limit - query.end - len(opt)
        if mark.end > room:
            mark, tc = fit(body, room)
            self.counters.truncated += tc
        self.counters.rcodes[prepared.rcode] += 1
        return b"".join(
            (
                message[:2],
                prepared.head(mark, rd=message[2] & _RD, tc=tc, opt=edns is not None),
                message[HEADER_LEN : query.end],
                body.octets[: mark.end],
                opt,
            )
        )

    def _error(self, message: bytes, query: Query, rcode: int) -> bytes:
        """Header, the question as far as it was understood, and OPT."""
        self.counters.rcodes[rcode] += 1
        edns = query.edns
        opt = self._opt(edns, rcode) if edns is not None else b""
        # RFC 8906 §3.2: opcode and RD are copied, everything else is cleared.
        return b"".join(
            (
                message[:2],
                _COUNTS(
                    _QR | query.opcode << 3 | message[2] & _RD,
                    rcode & 15,
                    query.end > HEADER_LEN,
                    0,
                    0,
                    edns is not None,
                ),
                message[HEADER_LEN : query.end],
                opt,
            )
        )

    def _opt(self, edns: Edns, rcode: int) -> bytes:
        """The OPT record that goes with a response code; DO is copied (RFC 3225 §3)."""
        return _OPT(0, OPT, self.udp_size, rcode >> 4, 0, edns.flags & DO, 0)

    # What is done at load.

    def _render_all(self, eager: int) -> None:
        """Fill the hot dictionary: every RRset, and NODATA for the types that everyone asks for."""
        hot = self._hot
        shared: dict[Hot, Hot] = {}
        for zone in self.zones.by_origin.values():
            for node in zone.nodes.values():
                types = {A, AAAA, ANY, *node.rrsets} if node.rrsets else {A, AAAA}
                for qtype in types:
                    if len(hot) >= eager:
                        return
                    self._render_one(node.name, qtype, shared)

    def _render_one(self, name: bytes, qtype: int, shared: dict[Hot, Hot]) -> None:
        key = name + qtype.to_bytes(2, "big") + b"\0\1"
        if key in self._hot:
            return
        found = self._lookup.resolve(name, qtype)
        if found.rcode != NOERROR:
            return
        entry = self._render(name, found).hot()
        if len(name) + HEADER_LEN + 4 + len(entry[4]) > HOT_MAX:
            return
        # Referrals and NODATA of one length are the same octets for many names.
        self._hot[key] = shared.setdefault(entry, entry) if found.shape is not None else entry

    # For people.

    def explain(self, name: str, qtype: int) -> tuple[Answer, Trace]:
        """Decide without rendering and say why: the answer and the steps that led to it."""
        trace: Trace = []
        return self._lookup.resolve(names.from_text(name, names.ROOT), qtype, trace), trace
