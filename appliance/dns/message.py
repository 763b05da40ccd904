"""Takes a query apart as far as an authority must: header, one question, OPT and TSIG.

The questioner's octets are kept where they are and echoed; nothing is copied into objects that the
answer does not need. Everything hostile ends in `FormatError`, which knows how much of the message
was sound. The pre-rendered path does not come by here. Imports `consts`, `errors`, `names`.
"""

from __future__ import annotations

import contextlib
from struct import Struct
from typing import Final

from appliance.dns import names
from appliance.dns.consts import HEADER_LEN, IXFR, OPCODE_QUERY, OPT, TSIG
from appliance.dns.errors import WireError

_COUNTS: Final = Struct("!HHHH").unpack_from
_PAIR: Final = Struct("!HH").unpack_from
_FIXED: Final = Struct("!HHIH").unpack_from
_FIXED_LEN: Final = 10
"""Octets of type, class, TTL and rdata length."""
COOKIE: Final = 10
"""The option of RFC 7873 §4."""
MAX_EXTRA: Final = 4
"""Records that a query may carry besides its question: OPT, TSIG or SIG(0), an IXFR's SOA, and one
more. Nothing that exists sends more, and the work stays bounded."""

DO: Final = 0x8000
"""RFC 3225 §3, as a mask on the EDNS flags."""


class Edns:
    """What a query's OPT record says (RFC 6891 §6.1)."""

    __slots__ = ("flags", "options", "size", "version")

    def __init__(
        self, size: int, version: int, flags: int, options: list[tuple[int, bytes]]
    ) -> None:
        """`size`: octets of UDP payload that the sender takes; `options`: codes and data."""
        self.size = size
        self.version = version
        self.flags = flags
        self.options = options


class Query:
    """A query that has been understood; offsets count from the message's start."""

    __slots__ = (
        "authority_at",
        "edns",
        "end",
        "flags",
        "name_end",
        "opcode",
        "qclass",
        "qtype",
        "tsig_at",
    )

    def __init__(self, flags: int) -> None:
        """`flags`: the second 16 bits of the header."""
        self.flags = flags
        self.opcode = flags >> 11 & 15
        self.name_end = HEADER_LEN
        self.end = HEADER_LEN
        """The end of the question section; HEADER_LEN: none was understood."""
        self.qtype = 0
        self.qclass = 0
        self.edns: Edns | None = None
        self.authority_at = 0
        """Where the record of an IXFR query's authority section begins, 0 when there is none."""
        self.tsig_at = 0
        """Where a TSIG record begins, 0 when there is none."""


class FormatError(WireError):
    """The message is to be answered with FORMERR; `query` has what was understood before that."""

    def __init__(self, why: str, query: Query) -> None:
        """`why` is for counters and logs."""
        super().__init__(why)
        self.query = query


def parse(message: bytes) -> Query:
    """Understand a query of at least 12 octets; raises only FormatError.

    A message with an opcode other than QUERY is left at its header, since NOTIMP needs no more but
    an OPT record for an OPT record (RFC 6891 §6.1.1), where one is found as in a query.
    """
    query = Query(message[2] << 8 | message[3])
    if query.opcode != OPCODE_QUERY:
        as_query = Query(query.flags)
        with contextlib.suppress(WireError):
            _parse(message, as_query)
            query.edns = as_query.edns
        return query
    try:
        _parse(message, query)
    except WireError as error:
        raise FormatError(str(error), query) from None
    return query


def _parse(message: bytes, query: Query) -> None:
    questions, answers, authorities, additionals = _COUNTS(message, 4)
    # RFC 9619 §4: a QUERY with more than one question is a format error.
    if questions > 1:
        raise WireError("more than one question")
    at = HEADER_LEN
    if questions:
        name_end = names.end_of(message, HEADER_LEN)
        if name_end + 4 > len(message):
            raise WireError("question runs past the message")
        query.name_end = name_end
        query.end = at = name_end + 4
        query.qtype, query.qclass = _PAIR(message, name_end)
    # RFC 1995 §3: only an IXFR query has an authority section, and none has answers.
    if answers or (authorities and query.qtype != IXFR):
        raise WireError("records where a query has none")
    if authorities:
        query.authority_at = at
    if authorities + additionals > MAX_EXTRA:
        raise WireError("too many records")
    for index in range(authorities + additionals):
        if query.tsig_at:
            raise WireError("record behind TSIG")  # RFC 8945 §5.1
        at = _record(message, at, query, index >= authorities)
    if at != len(message):
        raise WireError("octets behind the message")
    # RFC 7873 §5.4: no question is one way to ask for a cookie, and else makes no sense; what
    # makes sense in another version of EDNS is not known here.
    if not questions and not (query.edns is not None and query.edns.version):
        options = query.edns.options if query.edns is not None else []
        if all(code != COOKIE for code, _ in options):
            raise WireError("no question")


def _record(message: bytes, at: int, query: Query, additional: bool) -> int:
    """Look at one record and return where it ends."""
    start = at
    at = names.skip(message, at)
    if at + _FIXED_LEN > len(message):
        raise WireError("record runs past the message")
    rtype, rclass, ttl, length = _FIXED(message, at)
    at += _FIXED_LEN
    end: int = at + length
    if end > len(message):
        raise WireError("rdata runs past the message")
    if rtype == OPT:
        # RFC 6891 §6.1.1: one OPT at most, in the additional section, owned by the root.
        if query.edns is not None or not additional or message[start]:
            raise WireError("misplaced OPT")
        edns = query.edns = Edns(rclass, ttl >> 16 & 0xFF, ttl & 0xFFFF, [])
        # RFC 6891 §6.1.3: what another version's options look like is not known here.
        if edns.version == 0:
            _options(message, at, end, edns.options)
    elif rtype == TSIG:
        if not additional:
            raise WireError("misplaced TSIG")
        query.tsig_at = start
    return end


def _options(message: bytes, at: int, end: int, options: list[tuple[int, bytes]]) -> None:
    while at < end:
        if at + 4 > end:
            raise WireError("option runs past OPT")
        code, length = _PAIR(message, at)
        at += 4 + length
        if at > end:
            raise WireError("option runs past OPT")
        options.append((code, message[at - length : at]))
