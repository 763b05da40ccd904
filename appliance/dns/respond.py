"""The answer to a query that takes more than a look-up: options, signatures, errors, sizes, limits.

    parse ┬ malformed ─────────────────────── FORMERR
          └ TSIG ─ options ─ servable? ┬ no ─ NOTIMP, BADVERS, BADCOOKIE, REFUSED …
                                       └ yes ─ the catalog's rendering, cut to size ┬ OPT ─ TSIG
                                                                                    └ rate limit

Knows no zones: the rendering comes from the function it is given. Raises nothing, whatever octets
come. Imports the leaves of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from appliance.dns.consts import (
    AXFR,
    BADCOOKIE,
    BADVERS,
    CH,
    CLASS_ANY,
    CLASSIC_UDP,
    FORMERR,
    HEADER_LEN,
    IN,
    IXFR,
    MAILA,
    MAILB,
    MAX_MESSAGE,
    NOERROR,
    NOTAUTH,
    NOTIMP,
    OPCODE_NOTIFY,
    OPT,
    REFUSED,
    SERVFAIL,
    SOA,
    TKEY,
    TSIG,
)
from appliance.dns.counters import Counters
from appliance.dns.edns import (
    ENCRYPTED,
    EXTENDED,
    NOTHING,
    OPT_LENGTH,
    PROHIBITED,
    QUERIES_TLS,
    Extensions,
    Said,
    extended_error,
    opt_record,
    padding,
)
from appliance.dns.errors import WireError
from appliance.dns.lookup import Zones
from appliance.dns.message import FormatError, Query, parse
from appliance.dns.prepared import ERRORS, HEAD, QR, RD, TC, Prepared
from appliance.dns.rrl import SLIP, RateLimiter, address_of
from appliance.dns.transfer import CONCURRENT, Transfers, client_serial
from appliance.dns.tsig import Signer
from appliance.dns.zone import Zone

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
UNPLAIN: Final = frozenset(qtype.to_bytes(2, "big") for qtype in _NO_QUESTION)
"""The same, as they stand in a question."""


class Services(Protocol):
    """What a server does besides answering queries."""

    def takes(self, opcode: int) -> bool:
        """True if messages with this opcode have somebody to take them."""
        ...

    def notified(self, message: bytes, peer: Any) -> bytes:
        """The answer to a NOTIFY."""
        ...

    def chaos(self, name: bytes) -> bytes | None:
        """TXT rdata of a name in class CHAOS, in lower-cased wire form; None: refused."""
        ...


class Responder:
    """Everything about an answer but the records."""

    __slots__ = (
        "_clock",
        "_counters",
        "_extensions",
        "_limiter",
        "_prepare",
        "_services",
        "_transfers",
        "_udp_size",
        "_zones",
    )

    def __init__(
        self,
        prepare: Callable[[bytes, Query], Prepared],
        zones: Zones,
        *,
        udp_size: int,
        counters: Counters,
        extensions: Extensions,
        limiter: RateLimiter | None,
        transfers: Transfers | None,
        services: Services | None,
        clock: Callable[[], float],
    ) -> None:
        """`prepare` renders the answer to a sound question; `clock` is monotonic."""
        self._prepare = prepare
        self._zones = zones
        self._udp_size = udp_size
        self._counters = counters
        self._extensions = extensions
        self._limiter = limiter
        self._transfers = transfers
        self._services = services
        self._clock = clock

    def answer(self, message: bytes, transport: str, peer: Any = None) -> bytes | None:
        """The answer to any octets, None if there is to be none."""
        # A response is never answered, lest two servers talk for ever; and a message without
        # a whole header cannot be.
        if len(message) < HEADER_LEN or message[2] & QR:
            self._counters.dropped += 1
            return None
        opcode = message[2] >> 3 & 15
        if opcode and self._services is not None and self._services.takes(opcode):
            # An UPDATE is answered when it is on the disk: by whoever brought it (see `protocol`).
            return self._services.notified(message, peer) if opcode == OPCODE_NOTIFY else None
        said = NOTHING
        signer: Signer | None = None
        prepared: Prepared | None = None
        try:
            query = parse(message)
        except FormatError as error:
            query = error.query
            answer = self._error(message, query, FORMERR)
        else:
            rcode, why = NOERROR, 0
            try:
                if query.tsig_at:
                    signer = self._extensions.signer(message, query.tsig_at)
                if query.edns is not None and query.edns.options:
                    said = self._extensions.reply(query.edns, transport, peer)
                udp = transport == "udp"
                ixfr = udp and query.qtype == IXFR
                if ixfr and self._wanted(message, query, signer, transport, peer):
                    # RFC 1995 §2: an answer too long for UDP is the SOA alone; then TCP is used.
                    query.qtype = SOA
                rcode, why = self._unservable(message, query, said, signer)
                if rcode == REFUSED and self._full(message, query, signer, transport, peer):
                    rcode, why = SERVFAIL, 0
            except WireError:
                rcode = FORMERR
            if not rcode and query.end > HEADER_LEN:
                self._counters.kind(message[query.name_end : query.end]).count += 1
                prepared = self._prepare(message, query)
                rcode, why = prepared.rcode, EXTENDED.get(prepared.rcode, 0)
            if prepared is None or rcode in (REFUSED, SERVFAIL):
                answer = self._error(message, query, rcode, said, why)
            else:
                room = signer.length if signer is not None else 0
                answer = self._finish(message, query, prepared, said, transport, room)
            if signer is not None:
                answer = signer.sign(answer, self._extensions.clock())
        known = said.known or (signer is not None and not signer.error)
        if self._limiter is not None and transport == "udp" and not known:
            kind = prepared.kind if prepared is not None else ERRORS
            verdict = self._limiter.judge(address_of(peer), kind, self._clock())
            if verdict:
                edns = query.edns
                opt = b"" if edns is None else opt_record(self._udp_size, edns.flags)
                return self.limited(message, query.end, opt, verdict)
        return answer

    def transfer(self, message: bytes, transport: str, peer: Any) -> Iterator[bytes] | None:
        """The messages of a zone transfer over a stream; None: answer it like any other query."""
        transfers = self._transfers
        if transfers is None or len(message) < HEADER_LEN or message[2] & QR:
            return None
        try:
            query = parse(message)
            signer: Signer | None = None
            if query.tsig_at:
                signer = self._extensions.signer(message, query.tsig_at)
            zone = self._wanted(message, query, signer, transport, peer)
        except WireError:
            return None
        if zone is None or transfers.active >= CONCURRENT:
            return None
        serial = None
        if query.qtype == IXFR:
            serial = client_serial(message, query.authority_at)
        reserved = signer.length if signer is not None else 0
        edns = query.edns

        def opt(length: int) -> bytes:
            if edns is None:
                return b""
            pad = padding(length + OPT_LENGTH + reserved, edns, transport)
            return opt_record(self._udp_size, edns.flags, 0, pad)

        self._counters.transfers += 1
        rows = transfers.answer(zone, serial)
        return transfers.messages(message, query.end, rows, opt, signer, self._extensions.clock)

    def _wanted(
        self, message: bytes, query: Query, signer: Signer | None, transport: str, peer: Any
    ) -> Zone | None:
        """The zone that a client asks a transfer of, if it may have it."""
        if query.opcode or query.qclass != IN or query.qtype not in (AXFR, IXFR):
            return None
        if (query.edns is not None and query.edns.version) or (signer is not None and signer.error):
            return None
        zone = self._zones.by_origin.get(message[HEADER_LEN : query.name_end].lower())
        key = signer.key.name if signer is not None and signer.key is not None else None
        if zone is None or self._transfers is None:
            return None
        if transport == QUERIES_TLS:
            return None  # RFC 9103 §7.1, §7.2: "dot", and TLS 1.3 or later, only
        tls = transport == "tls"
        may = self._transfers.allows(zone.origin, address_of(peer), key, tls=tls)
        return zone if may else None

    def _full(
        self, message: bytes, query: Query, signer: Signer | None, transport: str, peer: Any
    ) -> bool:
        """Whether a transfer is refused only since too many are under way."""
        # RFC 9103 §6.3.3: SERVFAIL, since a later try may succeed.
        return (
            self._transfers is not None
            and self._transfers.active >= CONCURRENT
            and self._wanted(message, query, signer, transport, peer) is not None
        )

    def limited(self, message: bytes, end: int, opt: bytes, verdict: int) -> bytes | None:
        """Nothing, or the question alone with TC, which is never longer than the query was."""
        if verdict != SLIP:
            self._counters.rate_dropped += 1
            return None
        self._counters.rate_slipped += 1
        head = HEAD(QR | TC | message[2] & 0x79, 0, end > HEADER_LEN, 0, 0, bool(opt))
        return message[:2] + head + message[HEADER_LEN:end] + opt

    def _unservable(
        self, message: bytes, query: Query, said: Said, signer: Signer | None
    ) -> tuple[int, int]:
        """Response code and extended error for what no zone could answer."""
        if query.opcode:
            # RFC 8906 §3.1.4: an unknown opcode gets NOTIMP; its message has a form of its own,
            # so nothing but the header is sent back.
            return NOTIMP, 0
        if signer is not None and signer.error:
            return NOTAUTH, 0  # RFC 8945 §5.2
        if query.edns is not None and query.edns.version:
            return BADVERS, 0  # RFC 6891 §6.1.3
        if query.end == HEADER_LEN:
            # RFC 7873 §5.4: a question about nothing but the cookie.
            if self._extensions.cookies is None:
                return FORMERR, 0
            return BADCOOKIE if said.bad_cookie else NOERROR, 0
        if query.qclass not in (IN, CLASS_ANY, CH):
            return REFUSED, EXTENDED[REFUSED]  # RFC 8906 §3.1.1
        if query.qtype in (AXFR, IXFR):
            name = message[HEADER_LEN : query.name_end].lower()
            if name not in self._zones.by_origin and name not in self._zones.absent:
                return NOTAUTH, EXTENDED[REFUSED]  # RFC 5936 §2.2.1
        rcode = _NO_QUESTION.get(query.qtype, NOERROR)
        return rcode, PROHIBITED if rcode == REFUSED else EXTENDED.get(rcode, 0)

    def _finish(
        self,
        message: bytes,
        query: Query,
        prepared: Prepared,
        said: Said,
        transport: str,
        reserved: int,
    ) -> bytes:
        """Header, question, as much of the body as goes in beside `reserved` octets, and OPT."""
        edns = query.edns
        opt = b""
        if edns is not None:
            opt = opt_record(self._udp_size, edns.flags, prepared.rcode, said.options)
        limit = MAX_MESSAGE
        if transport == "udp":
            # RFC 6891 §6.2.3: sizes below 512 mean 512.
            size = 0 if edns is None else min(edns.size, self._udp_size)
            limit = max(CLASSIC_UDP, size)
        limit -= reserved
        heads, octets, truncated = prepared.cut(limit - query.end - len(opt))
        self._counters.truncated += truncated
        self._counters.rcodes[prepared.rcode].count += 1
        head = heads[(edns is not None) << 1 | message[2] & RD]
        if edns is not None and transport in ENCRYPTED:
            pad = padding(query.end + len(octets) + len(opt) + reserved, edns, transport)
            if query.end + len(octets) + len(opt) + len(pad) <= limit:
                opt = opt_record(self._udp_size, edns.flags, prepared.rcode, said.options + pad)
        return message[:2] + head + message[HEADER_LEN : query.end] + octets + opt

    def _error(
        self, message: bytes, query: Query, rcode: int, said: Said = NOTHING, why: int = 0
    ) -> bytes:
        """Header, the question as far as it was understood, and OPT."""
        self._counters.rcodes[rcode].count += 1
        edns = query.edns
        # RFC 8906 §3.2: opcode and RD are copied, everything else is cleared.  What the flags of an
        # unknown opcode mean is unknown too (§3.1.3: what is not understood is not copied).
        head = HEAD(
            QR | (query.opcode << 3 or message[2] & RD),
            rcode & 15,
            query.end > HEADER_LEN,
            0,
            0,
            edns is not None,
        )
        opt = b""
        if edns is not None:
            options = said.options + (extended_error(why) if why else b"")
            opt = opt_record(self._udp_size, edns.flags, rcode, options)
        return message[:2] + head + message[HEADER_LEN : query.end] + opt
