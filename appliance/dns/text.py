"""Types, rdata and records as master files write them (RFC 1035 §5, RFC 3597 §5).

Imports dnspython and `names`.
"""

from __future__ import annotations

import re
import socket
from struct import Struct
from typing import Final

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from appliance.dns import names
from appliance.dns.consts import AAAA, CNAME, DNAME, MX, NS, PTR, SOA, SRV, TXT, A
from appliance.dns.errors import LocalError, WireError

_NUMBERS: Final = {MX: 1, SRV: 3}
"""Types of so many 16-bit numbers and a name."""
_PLAIN: Final = re.compile(rb"[ !#-\[\]-~]*")
_SOA_FIELDS: Final = Struct("!IIIII")
_NAMES: Final = frozenset((NS, CNAME, PTR, DNAME))


def type_name(rtype: int) -> str:
    """The mnemonic of a type, or `TYPE65280` (RFC 3597 §5)."""
    return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rtype))


def type_number(text: str) -> int:
    """The number of a type's mnemonic or of `TYPE65280`; LocalError if it is none."""
    try:
        return int(dns.rdatatype.from_text(text))
    except Exception:
        raise LocalError(f"{text!r} is no record type") from None


def relative(name: bytes, origin: bytes | None) -> str:
    """A name as short as it can be written below `origin`, in the case that it has."""
    if origin is not None and origin != names.ROOT:
        lowered, below = name.lower(), origin.lower()
        if lowered == below:
            return "@"
        if names.is_below(lowered, below):
            return names.to_text(name[: len(name) - len(origin)] + names.ROOT)[:-1]
    return names.to_text(name)


def rdata_text(rtype: int, rdata: bytes, origin: bytes | None = None) -> str:
    """Rdata as text, its names relative to `origin`; the notation of RFC 3597 if nothing else."""
    text = _common_text(rtype, rdata, origin)
    if text is not None:
        return text
    kind = dns.rdatatype.RdataType.make(rtype)
    below = None if origin is None else dns.name.Name([*names.labels(origin), b""])
    try:
        read = dns.rdata.from_wire(dns.rdataclass.IN, kind, rdata, 0, len(rdata), below)
        # What cannot be written so that it is read as the same again is written in octets.
        text = read.to_text(origin=below, relativize=below is not None)
        again = dns.rdata.from_text(
            dns.rdataclass.IN, kind, text, origin=below, relativize=False
        ).to_wire()
        if again == rdata:
            return text
    except Exception:  # noqa: S110 - its rdata modules raise whatever struct and int do
        pass
    return f"\\# {len(rdata)} {rdata.hex()}" if rdata else "\\# 0"


def _common_text(rtype: int, rdata: bytes, origin: bytes | None) -> str | None:
    """What dnspython writes of the types that large zones consist of, in a tenth of the time."""
    try:
        if rtype == A and len(rdata) == 4:
            return socket.inet_ntop(socket.AF_INET, rdata)
        if rtype == AAAA and len(rdata) == 16 and any(rdata[:10]):
            # The first 80 bits zero: addresses that are written in several ways.
            return socket.inet_ntop(socket.AF_INET6, rdata)
        before = 2 * _NUMBERS.get(rtype, 0)
        if (before or rtype in _NAMES) and names.end_of(rdata, before) == len(rdata):
            values = [str(rdata[at] << 8 | rdata[at + 1]) for at in range(0, before, 2)]
            return " ".join((*values, _host_text(rdata[before:], origin)))
        if rtype == TXT:
            return _strings_text(rdata)
        if rtype == SOA:
            second = names.end_of(rdata, 0)
            end = names.end_of(rdata, second)
            if len(rdata) == end + 20:
                both = (_host_text(one, origin) for one in (rdata[:second], rdata[second:end]))
                return " ".join((*both, *map(str, _SOA_FIELDS.unpack_from(rdata, end))))
    except (WireError, IndexError):
        pass
    return None


def _host_text(name: bytes, origin: bytes | None) -> str:
    """A name in rdata, relative where that does not change its case."""
    if origin is not None and not name.endswith(origin):
        origin = None
    return relative(name, origin)


def _strings_text(rdata: bytes) -> str | None:
    """Character strings in quotes, if there is nothing in them that must be escaped."""
    out: list[str] = []
    at = 0
    while at < len(rdata):
        end = at + 1 + rdata[at]
        one = rdata[at + 1 : end]
        if end > len(rdata) or not _PLAIN.fullmatch(one):
            return None
        out.append(f'"{one.decode()}"')
        at = end
    return " ".join(out) or None


def record_text(
    owner: bytes, rtype: int, ttl: int, rdata: bytes, origin: bytes | None = None
) -> str:
    """One record on a line: owner, TTL, class, type, data, separated by blanks."""
    what = rdata_text(rtype, rdata, origin)
    return f"{relative(owner, origin)} {ttl} IN {type_name(rtype)} {what}"
