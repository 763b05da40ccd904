"""Serial numbers: which is newer, which comes next, and what changed between two of them.

Serials are compared by RFC 1982: they are points on a circle of 2³², so "greater" means less than
half the circle ahead. Imports `consts`, `names` and `zone`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from appliance.dns.consts import RRSIG, SOA
from appliance.dns.zone import Node, RRset, Zone

HALF: Final = 1 << 31
MASK: Final = 0xFFFFFFFF
_SERIAL_AT: Final = -20
"""Octets from the end of an SOA's rdata at which the serial begins (RFC 1035 §3.3.13)."""

Record = tuple[bytes, int, int, bytes]
"""Owner, type, TTL, rdata."""


def is_newer(serial: int, than: int) -> bool:
    """RFC 1982 §3.2; False also for two that stand exactly opposite, of which it says nothing."""
    return 0 < (serial - than & MASK) < HALF


def successor(serial: int, today: int) -> int:
    """The next serial by the convention that the old one follows; `today` is a date as 20260131.

    A serial that reads as a date of this century and two digits (RFC 1912 §2.2) stays one; any
    other is raised by one.
    """
    date = serial // 100
    month, day = date // 100 % 100, date % 100
    if 1990 <= date // 10_000 <= 2099 and 1 <= month <= 12 and 1 <= day <= 31:
        return max(serial + 1, today * 100)
    return serial + 1 & MASK


def with_serial(soa: bytes, serial: int) -> bytes:
    """An SOA's rdata with another serial."""
    return soa[:_SERIAL_AT] + serial.to_bytes(4, "big") + soa[_SERIAL_AT + 4 :]


class Difference(NamedTuple):
    """What leads from one version of a zone to the next; SOA records stand apart (RFC 1995 §4)."""

    old: Record
    """The SOA before."""
    new: Record
    """The SOA after."""
    removed: tuple[Record, ...]
    added: tuple[Record, ...]

    @property
    def old_serial(self) -> int:
        """The serial to which it applies."""
        return serial_of(self.old[3])

    @property
    def new_serial(self) -> int:
        """The serial to which it leads."""
        return serial_of(self.new[3])


def serial_of(soa: bytes) -> int:
    """The serial in an SOA's rdata."""
    return int.from_bytes(soa[_SERIAL_AT : _SERIAL_AT + 4], "big")


def soa_record(zone: Zone) -> Record:
    """A zone's SOA record."""
    return zone.apex.owner, SOA, zone.soa.ttl, zone.soa.rdatas[0]


def records(zone: Zone) -> Iterator[Record]:
    """Every record of a zone but the SOA."""
    for node, rrset in zone:
        if rrset.rtype == RRSIG:
            for rdata in rrset.rdatas:
                yield node.owner, RRSIG, signature_ttl(node, rrset, rdata), rdata
        elif rrset.rtype != SOA:
            for rdata in rrset.rdatas:
                yield node.owner, rrset.rtype, rrset.ttl, rdata


def signature_ttl(node: Node, signatures: RRset, rdata: bytes) -> int:
    """RFC 4034 §3: the TTL of what a signature signs, of which each has its own."""
    signed = node.rrsets.get(rdata[0] << 8 | rdata[1])
    return signatures.ttl if signed is None else signed.ttl


def difference(old: Zone, new: Zone) -> Difference:
    """What changed; both are versions of one zone.

    A TTL's change is a record removed and one added. Nothing removed and added, and SOAs that
    differ by the serial at most: the content is the same.
    """
    removed = tuple(_only_in(old, new))
    added = tuple(_only_in(new, old))
    return Difference(soa_record(old), soa_record(new), removed, added)


def _only_in(one: Zone, other: Zone) -> Iterator[Record]:
    """Records, but for the SOA, that the other version has not with the same TTL."""
    for name, node in one.nodes.items():
        beside = other.nodes.get(name)
        for rtype, rrset in node.rrsets.items():
            theirs = beside.rrsets.get(rtype) if beside is not None else None
            if rtype == SOA:
                continue
            kept: frozenset[bytes] = frozenset()
            if rtype == RRSIG:
                before = _signatures(beside, theirs)
                for rdata, ttl in _signatures(node, rrset).items():
                    if before.get(rdata) != ttl:
                        yield node.owner, rtype, ttl, rdata
                continue
            if theirs is not None and theirs.ttl == rrset.ttl:
                if theirs.rdatas == rrset.rdatas:
                    continue
                kept = frozenset(theirs.rdatas)
            for rdata in rrset.rdatas:
                if rdata not in kept:
                    yield node.owner, rtype, rrset.ttl, rdata


def _signatures(node: Node | None, rrset: RRset | None) -> dict[bytes, int]:
    if node is None or rrset is None:
        return {}
    return {rdata: signature_ttl(node, rrset, rdata) for rdata in rrset.rdatas}


def is_same_content(change: Difference) -> bool:
    """True if nothing but the serial differs."""
    old, new = change.old, change.new
    return (
        not change.removed
        and not change.added
        and old[:3] == new[:3]
        and with_serial(old[3], 0) == with_serial(new[3], 0)
    )


def is_newer_or_same(serial: int, than: int) -> bool:
    """RFC 1982 §3.2, or equal."""
    return serial == than or is_newer(serial, than)
