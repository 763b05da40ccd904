"""Zones as somebody else might have signed them, and a judge of what their answers prove.

Signatures are made up, since a server does not look at them; the chains are real, and hashed by
dnspython. The judge follows RFC 4035 §5.4 and RFC 5155 §8 as a resolver does.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

import dns.dnssec
import dns.message
import dns.name
import dns.rdatatype
import dns.rdtypes.ANY.NSEC
import dns.rdtypes.ANY.NSEC3
import dns.rrset

from appliance.dns import Zone
from appliance.dns.zone import is_cut
from tests.dns.util import SOA

ORIGIN = dns.name.from_text("example.test.")
DNSKEY = "@ DNSKEY 257 3 13 AQID\n"
ZONE = f"""$ORIGIN example.test.
$TTL 600
{SOA}{DNSKEY}www A 192.0.2.1
www 60 TXT "x"
alias CNAME www
away CNAME nothing
x.y.ent TXT "below"
*.wild A 192.0.2.2
host.wild A 192.0.2.3
*.cw CNAME www
*.cnx CNAME none
*.cd CNAME q.wild
sub NS ns.sub
sub DS 1 13 2 {"00" * 32}
ns.sub A 192.0.2.4
plain NS ns.plain
ns.plain A 192.0.2.5
deep.opt NS ns.plain
dn DNAME wild
a.*.star TXT "inside"
mx MX 10 www
UPPER HTTPS 1 . alpn=h2
"""


def signed(
    text: str = ZONE, *, nsec3: bool = False, salt: str = "", rounds: int = 0, opt_out: bool = False
) -> Zone:
    """The zone with signatures and a chain, as a master file gives it."""
    head = f"@ NSEC3PARAM 1 0 {rounds} {salt or '-'}\n" if nsec3 else ""
    zone = Zone.from_text(text + head)
    lines: list[str] = []
    bitmaps: dict[dns.name.Name, list[str]] = {}
    for node in zone.nodes.values():
        below = node.cover is not None and node.cover is not node
        if below or (node.cover is not None and not is_cut(node, zone.origin) and below):
            continue
        name = dns.name.from_wire(node.owner, 0)[0]
        cut = is_cut(node, zone.origin)
        types = ["NS", "DS"] if cut else [dns.rdatatype.to_text(t) for t in node.rrsets]
        held = [one for one in types if int(dns.rdatatype.from_text(one)) in node.rrsets]
        sets = [one for one in held if one != "NS" or not cut]
        if cut and opt_out and not sets:
            continue
        bitmaps[name] = [*held, *(["RRSIG"] if sets or not nsec3 else [])] if held else []
        for one in sets:
            ttl = node.rrsets[int(dns.rdatatype.from_text(one))].ttl
            lines.append(signature(name, one, ttl))
    if opt_out:
        # Names that only lead to what has opted out have opted out as well (RFC 5155 §7.1).
        for name in [name for name, held in bitmaps.items() if not held]:
            if not any(other != name and other.is_subdomain(name) for other in bitmaps):
                del bitmaps[name]
    made = hashed(bitmaps, salt, rounds, opt_out) if nsec3 else chained(bitmaps)
    return Zone.from_text(text + head + "".join([*lines, *made]))


def signature(name: dns.name.Name, rdtype: str, ttl: int) -> str:
    labels = len(name.labels) - 1 - (name.labels[0] == b"*")
    times = "20400101000000 20200101000000"
    return f"{name} {ttl} RRSIG {rdtype} 13 {labels} {ttl} {times} 1 {ORIGIN} AAAA\n"


def chained(bitmaps: dict[dns.name.Name, list[str]]) -> Iterator[str]:
    order = sorted(name for name, held in bitmaps.items() if held)
    for name, after in zip(order, [*order[1:], order[0]], strict=True):
        yield f"{name} 300 NSEC {after} {' '.join(bitmaps[name])} NSEC\n"
        yield signature(name, "NSEC", 300)


def digest(name: dns.name.Name, salt: str, rounds: int) -> str:
    return dns.dnssec.nsec3_hash(name, salt or None, rounds, "SHA1")


def hashed(
    bitmaps: dict[dns.name.Name, list[str]], salt: str, rounds: int, opt_out: bool
) -> Iterator[str]:
    hashes = {digest(name, salt, rounds): held for name, held in bitmaps.items()}
    order = sorted(hashes)
    for one, after in zip(order, [*order[1:], order[0]], strict=True):
        fields = f"1 {int(opt_out)} {rounds} {salt or '-'} {after} {' '.join(hashes[one])}"
        yield f"{one} 300 NSEC3 {fields}\n"
        yield signature(dns.name.from_text(one, ORIGIN), "NSEC3", 300)


class Proofs:
    """The NSEC or NSEC3 records of an answer."""

    def __init__(self, message: dns.message.Message) -> None:
        self.nsec: dict[dns.name.Name, dns.rdtypes.ANY.NSEC.NSEC] = {}
        self.nsec3: dict[str, dns.rdtypes.ANY.NSEC3.NSEC3] = {}
        for rrset in message.authority:
            if rrset.rdtype == dns.rdatatype.NSEC:
                self.nsec[rrset.name] = rrset[0]
            elif rrset.rdtype == dns.rdatatype.NSEC3:
                self.nsec3[rrset.name.labels[0].decode().upper()] = rrset[0]

    def _hash(self, name: dns.name.Name) -> str:
        some = next(iter(self.nsec3.values()))
        return dns.dnssec.nsec3_hash(name, some.salt or None, some.iterations, "SHA1")

    def matched(self, name: dns.name.Name) -> set[str] | None:
        """The types that a name is said to have; None if nothing is said of it."""
        record = self.nsec3.get(self._hash(name)) if self.nsec3 else self.nsec.get(name)
        if record is None:
            below = (
                owner < name and one.next.is_subdomain(name) for owner, one in self.nsec.items()
            )
            return set() if any(below) else None  # an empty non-terminal, or nothing
        return {
            dns.rdatatype.to_text(dns.rdatatype.RdataType.make(window * 256 + at * 8 + bit))
            for window, bitmap in record.windows
            for at, octet in enumerate(bitmap)
            for bit in range(8)
            if octet & 0x80 >> bit
        }

    def covered(self, name: dns.name.Name) -> bool:
        """True if it is said that there is no such name."""
        if self.nsec3:
            wanted = self._hash(name)
            for owner, record in self.nsec3.items():
                after = base64.b32hexencode(record.next).decode()
                if owner < wanted < after or (after <= owner and not after <= wanted <= owner):
                    return True
            return False
        return any(
            owner < name and (name < record.next or record.next == ORIGIN)
            for owner, record in self.nsec.items()
        )

    def above(self, name: dns.name.Name) -> dns.name.Name | None:
        """The closest encloser of a name that does not exist, if that is proved."""
        closer = name
        while closer != ORIGIN:
            encloser = closer.parent()
            if self.nsec3:
                if self.matched(encloser) is not None and self.covered(closer):
                    return encloser
            elif self.covered(name) and any(
                one.is_subdomain(encloser)
                for owner, record in self.nsec.items()
                if owner < name
                for one in (owner, record.next)
            ):
                return encloser
            closer = encloser
        return None

    def no_type(self, name: dns.name.Name, rdtype: str) -> bool:
        """NODATA, of the name itself or of the wildcard that stands in for it."""
        types = self.matched(name)
        if types is None:
            encloser = self.above(name)
            if encloser is None:
                return False
            types = self.matched(dns.name.Name([b"*", *encloser.labels]))
            if types is None:
                # RFC 5155 §8.6: it has opted out, and leads to what is not signed at most.
                return any(one.flags & 1 for one in self.nsec3.values())
        return not types & {rdtype, "CNAME"}

    def no_name(self, name: dns.name.Name) -> bool:
        """NXDOMAIN: neither the name nor a wildcard for it."""
        encloser = self.above(name)
        return encloser is not None and self.covered(dns.name.Name([b"*", *encloser.labels]))


def unproved(message: dns.message.Message) -> list[str]:
    """What an answer claims without a proof or a signature; nothing, if all is well."""
    out: list[str] = []
    proofs = Proofs(message)
    over = {
        (rrset.name, rrset.covers): rrset
        for section in (message.answer, message.authority)
        for rrset in section
        if rrset.rdtype == dns.rdatatype.RRSIG
    }
    dnames = [rrset for rrset in message.answer if rrset.rdtype == dns.rdatatype.DNAME]
    (question,) = message.question
    name, rdtype = question.name, dns.rdatatype.to_text(question.rdtype)
    for rrset in (*message.answer, *message.authority):
        signatures = over.get((rrset.name, rrset.rdtype))
        made = rrset.rdtype == dns.rdatatype.CNAME and any(
            rrset.name.is_subdomain(one.name) and rrset.name != one.name for one in dnames
        )
        cut = rrset.rdtype == dns.rdatatype.NS and rrset in message.authority
        if rrset.rdtype == dns.rdatatype.RRSIG or made or cut:
            continue
        if signatures is None:
            out.append(f"{rrset.name} {rrset.rdtype} is not signed")
        elif signatures.ttl != rrset.ttl:
            out.append(f"{rrset.name}: signatures live {signatures.ttl}, not {rrset.ttl}")
        elif signatures[0].labels < len(rrset.name.labels) - 1 - (rrset.name.labels[0] == b"*"):
            labels = rrset.name.labels[-signatures[0].labels - 2 :]
            if not proofs.covered(dns.name.Name(labels) if proofs.nsec3 else rrset.name):
                out.append(f"{rrset.name} may be more than a wildcard")
    for _ in message.answer:
        for rrset in message.answer:
            if rrset.name == name and rrset.rdtype == dns.rdatatype.CNAME and rdtype != "CNAME":
                name = rrset[0].target
    cuts = [rrset for rrset in message.authority if rrset.rdtype == dns.rdatatype.NS]
    found = any(rrset.name == name and rrset.rdtype == question.rdtype for rrset in message.answer)
    if cuts:
        signed_below = (cuts[0].name, dns.rdatatype.DS) in over
        if not signed_below and not proofs.no_type(cuts[0].name, "DS"):
            out.append(f"{cuts[0].name} may have DS")
    elif message.rcode() == dns.rcode.NXDOMAIN:
        if not proofs.no_name(name):
            out.append(f"{name} may exist")
    elif not found and name.is_subdomain(ORIGIN) and not proofs.no_type(name, rdtype):
        out.append(f"{name} may have {rdtype}")
    return out


def owners(zone: Zone) -> list[dns.name.Name]:
    """The names of a zone, without hashes."""
    return [
        dns.name.from_wire(node.owner, 0)[0]
        for node in zone.nodes.values()
        if dns.rdatatype.NSEC3 not in node.rrsets
    ]
