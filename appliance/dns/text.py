"""Types, rdata and records as master files write them (RFC 1035 §5, RFC 3597 §5).

Imports dnspython and `names`.
"""

from __future__ import annotations

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from appliance.dns import names
from appliance.dns.errors import LocalError


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


def record_text(
    owner: bytes, rtype: int, ttl: int, rdata: bytes, origin: bytes | None = None
) -> str:
    """One record on a line: owner, TTL, class, type, data, separated by blanks."""
    what = rdata_text(rtype, rdata, origin)
    return f"{relative(owner, origin)} {ttl} IN {type_name(rtype)} {what}"
