"""Records of other people's messages: names decompressed, rdata as a zone holds it.

For transfers and updates, whose records become ours. Only types whose names may come compressed are
looked into for that (RFC 3597 §4 names those that old senders compress besides RFC 1035's); whether
the rest of the rdata is sound is dnspython's to say, but for the few types that large zones consist
of. Raises `WireError` for whatever octets. Imports `consts`, `errors`, `names`, and
dnspython when a rare type comes.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from appliance.dns import names
from appliance.dns.consts import (
    AAAA,
    DNAME,
    HEADER_LEN,
    MAX_NAME,
    MAX_TTL,
    NAME_FIELDS,
    NAPTR,
    OPT,
    SIG,
    SOA,
    SRV,
    TSIG,
    TXT,
    A,
)
from appliance.dns.errors import WireError

_FIXED: Final = Struct("!HHIH").unpack_from
_COUNTS: Final = Struct("!HHHH").unpack_from
MAX_RDATA: Final = 64_000
"""Octets of one record's data that go into a message beside names, OPT and a signature."""
_RP: Final = 17
_AFSDB: Final = 18
_ISDN: Final = 20
_RT: Final = 21
_PX: Final = 26
_KX: Final = 36
_COMPRESSED: Final[dict[int, tuple[int, int]]] = {
    **NAME_FIELDS,
    _RP: (0, 2),
    _AFSDB: (2, 1),
    _RT: (2, 1),
    SIG: (18, 1),
    _PX: (2, 2),
    SRV: (6, 1),
    _KX: (2, 1),
    DNAME: (0, 1),
}
"""Octets before the names, and how many names: RFC 3597 §4; KX and DNAME by RFC 2230 and 6672,
which forbid it, but a receiver loses nothing by understanding it."""
_SOUND: Final = frozenset((*NAME_FIELDS, DNAME))
"""Types that are known to be sound once their names and lengths have been read."""


class WireRecord(NamedTuple):
    """One record of a message."""

    owner: bytes
    """Wire form, in the sender's case."""
    rtype: int
    rclass: int
    ttl: int
    rdata: bytes
    """Uncompressed."""


def name_at(message: bytes, at: int) -> tuple[bytes, int]:
    """The uncompressed name at `at`, and where the octets after it begin.

    Every pointer must lead further back than the one before, so that the work is bounded.
    """
    out = bytearray()
    behind = 0
    limit = at
    try:
        while length := message[at]:
            if length >= 0xC0:
                target = (length & 0x3F) << 8 | message[at + 1]
                if not behind:
                    behind = at + 2
                if target >= limit:
                    raise WireError("a compression pointer leads forward")
                limit = at = target
                continue
            if length > 63:
                raise WireError("unknown label")
            out += message[at : at + 1 + length]
            at += 1 + length
            if at > len(message) or len(out) >= MAX_NAME:
                raise WireError("name too long")
    except IndexError:
        raise WireError("name runs past the message") from None
    out.append(0)
    return bytes(out), behind or at + 1


def record_at(message: bytes, at: int) -> tuple[WireRecord, int]:
    """The record at `at`, and where it ends."""
    owner, at = name_at(message, at)
    if at + 10 > len(message):
        raise WireError("record runs past the message")
    rtype, rclass, ttl, length = _FIXED(message, at)
    start = at + 10
    end: int = start + length
    if end > len(message):
        raise WireError("rdata runs past the message")
    # RFC 2181 §8: a TTL with the highest bit set means zero.
    if ttl > MAX_TTL:
        ttl = 0
    if length == 0:
        return WireRecord(owner, rtype, rclass, ttl, b""), end
    fields = _COMPRESSED.get(rtype)
    if fields is not None:
        return WireRecord(owner, rtype, rclass, ttl, _names(message, start, end, *fields)), end
    if rtype == NAPTR:
        before = start + 4
        for _ in range(3):
            if before >= end:
                raise WireError("malformed NAPTR")
            before += 1 + message[before]
        rdata = _names(message, start, end, before - start, 1)
        return WireRecord(owner, rtype, rclass, ttl, rdata), end
    return WireRecord(owner, rtype, rclass, ttl, message[start:end]), end


def _names(message: bytes, start: int, end: int, before: int, count: int) -> bytes:
    parts = [message[start : start + before]]
    at = start + before
    for _ in range(count):
        if at >= end:
            raise WireError("rdata ends before its names")
        name, at = name_at(message, at)
        parts.append(name)
    if at > end:
        raise WireError("a name runs past its rdata")
    parts.append(message[at:end])
    return b"".join(parts)


def is_meta(rtype: int) -> bool:
    """RFC 6895 §3.1: types that no zone has."""
    return rtype in (0, OPT) or 128 <= rtype <= 255


def check_rdata(rtype: int, rdata: bytes) -> None:
    """Refuse rdata that no record of the type can have; WireError."""
    length = len(rdata)
    if length > MAX_RDATA:
        raise WireError(f"{length} octets of data are too many for any message")
    if rtype == A:
        sound = length == 4
    elif rtype == AAAA:
        sound = length == 16
    elif rtype == TXT:
        at = 0
        while at < length:
            at += 1 + rdata[at]
        sound = at == length and length > 0
    elif rtype in _SOUND:
        before, count = NAME_FIELDS.get(rtype, (0, 1))
        at = before
        for _ in range(count):
            at = names.end_of(rdata, at)
        sound = at + (20 if rtype == SOA else 0) == length
    else:
        sound = _dnspython_reads(rtype, rdata)
    if not sound:
        raise WireError(f"malformed data of type {rtype}")


def _dnspython_reads(rtype: int, rdata: bytes) -> bool:
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype

    kind = dns.rdatatype.RdataType.make(rtype)
    try:
        read = dns.rdata.from_wire(dns.rdataclass.IN, kind, rdata, 0, len(rdata))
        written = read.to_wire()
        # RFC 1183 §3.2: the sub-address may be there and empty.
        return rdata in (written, (written or b"") + b"\0" * (rtype == _ISDN))
    except Exception:  # its rdata modules raise whatever struct and int do
        return False


def sections(message: bytes) -> tuple[int, tuple[int, int, int, int]]:
    """Where the records begin, behind the questions, and the four counts; WireError."""
    if len(message) < HEADER_LEN:
        raise WireError("no header")
    counts = _COUNTS(message, 4)
    at = HEADER_LEN
    for _ in range(counts[0]):
        _, at = name_at(message, at)
        at += 4
    if at > len(message):
        raise WireError("question runs past the message")
    return at, (counts[0], counts[1], counts[2], counts[3])


def last_record(message: bytes) -> int:
    """Where the last record begins; 0 if there is none or the message is malformed."""
    try:
        at, counts = sections(message)
        last = 0
        for _ in range(sum(counts[1:])):
            last = at
            at = names.skip(message, at)
            at += 10 + int.from_bytes(message[at + 8 : at + 10], "big")
    except WireError:
        return 0
    return last if at == len(message) else 0


class Parts(NamedTuple):
    """A message with one question, taken apart: what UPDATE and NOTIFY have."""

    name: bytes
    """The question's name in lower case; of an UPDATE, the zone."""
    qtype: int
    qclass: int
    end: int
    """Where the question ends."""
    sections: tuple[tuple[WireRecord, ...], tuple[WireRecord, ...]]
    """The answer and authority sections; of an UPDATE, prerequisites and updates."""
    edns: bool
    version: int
    """Of EDNS; 0 without."""
    do: int
    """The flags of EDNS, of which DO is copied (RFC 3225 §3)."""
    tsig_at: int
    """Where a TSIG record begins, 0 when there is none."""


def take_apart(message: bytes) -> Parts:
    """Every record of a message with one question; WireError."""
    at, counts = sections(message)
    if counts[0] != 1:
        raise WireError("not one question")
    end = at
    name, name_end = name_at(message, HEADER_LEN)
    qtype, qclass = (int.from_bytes(message[i : i + 2], "big") for i in (name_end, name_end + 2))
    found: list[list[WireRecord]] = [[], [], []]
    edns, version, do, tsig_at = False, 0, 0, 0
    for section in range(3):
        for _ in range(counts[section + 1]):
            if tsig_at:
                raise WireError("record behind TSIG")  # RFC 8945 §5.1
            start = at
            record, at = record_at(message, at)
            if record.rtype == TSIG:
                if section < 2:
                    raise WireError("misplaced TSIG")
                tsig_at = start
            elif record.rtype == OPT:
                # RFC 6891 §6.1.1, §6.1.2: the root's one OPT, whose TTL has version and flags.
                if section < 2 or edns or message[start]:
                    raise WireError("misplaced OPT")
                edns, version = True, message[start + 6]
                do = int.from_bytes(message[start + 7 : start + 9], "big")
            found[section].append(record)
    if at != len(message):
        raise WireError("octets behind the message")
    records = (tuple(found[0]), tuple(found[1]))
    return Parts(name.lower(), qtype, qclass, end, records, edns, version, do, tsig_at)
