"""Short ways to zones, questions and answers; every answer is read by two libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dnslib

from appliance.dns import Catalog, Zone

DATA = Path(__file__).parent / "data"
SOA = """\
@ 600 IN SOA ns1 hostmaster 1 7200 1800 1209600 300
@ 600 IN NS ns1
ns1 600 IN A 192.0.2.53
"""


def zone(text: str = "", origin: str = "example.test.") -> Zone:
    """A zone with the usual apex and what `text` adds."""
    return Zone.from_text(f"$ORIGIN {origin}\n$TTL 600\n{SOA}{text}")


def corner() -> Catalog:
    """The catalog of data/corner.zone."""
    return Catalog([Zone.from_file(DATA / "corner.zone")])


def question(name: str, rdtype: str = "A", **how: Any) -> bytes:
    """A question's octets; without EDNS and RD unless told otherwise."""
    how.setdefault("use_edns", False)
    how.setdefault("flags", 0)
    return dns.message.make_query(name, rdtype, **how).to_wire()


def read(wire: bytes | None) -> dns.message.Message:
    """An answer read by dnspython, after dnslib has read as many records in it."""
    assert wire is not None
    message = dns.message.from_wire(wire)
    other = dnslib.DNSRecord.parse(wire)
    for section, theirs in (
        (message.answer, other.rr),
        (message.authority, other.auth),
        (message.additional, [rr for rr in other.ar if rr.rtype != dnslib.QTYPE.OPT]),
    ):
        assert sum(len(rrset) for rrset in section) == len(theirs)
    return message


def lines(section: list[Any]) -> list[str]:
    """`name type data` for every record, sorted; names relative to nothing."""
    return sorted(
        f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {rdata}"
        for rrset in section
        for rdata in rrset
    )


class Reply:
    """What a test wants to look at."""

    def __init__(self, wire: bytes | None) -> None:
        """Read it."""
        self.message = message = read(wire)
        self.rcode = dns.rcode.to_text(message.rcode())
        self.flags = set(dns.flags.to_text(message.flags).split())
        self.answer = lines(message.answer)
        self.authority = lines(message.authority)
        self.additional = lines(message.additional)

    def kinds(self) -> tuple[list[str], list[str], list[str]]:
        """Types in each section, without repetition."""
        message = self.message
        a, b, c = (
            [dns.rdatatype.to_text(rrset.rdtype) for rrset in section]
            for section in (message.answer, message.authority, message.additional)
        )
        return a, b, c


def ask(catalog: Catalog, name: str, rdtype: str = "A", **how: Any) -> Reply:
    """One question and its answer over UDP."""
    return Reply(catalog.answer(question(name, rdtype, **how)))
