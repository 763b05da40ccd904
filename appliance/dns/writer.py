"""A zone as a master file that people like to read, and tools like to compare.

Records stand in the order of the DNS (RFC 4034 §6.1), the apex first, types in a fixed order, in
columns; names are relative to the origin, TTLs are written where they differ from the common one.
The same content always gives the same text. Imports the leaves of this package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from appliance.dns import names
from appliance.dns.consts import AAAA, CNAME, DNAME, MX, NS, SOA, TXT, A
from appliance.dns.text import rdata_text, relative, type_name
from appliance.dns.zone import Node, RRset, Zone

_ORDER: Final = {rtype: n for n, rtype in enumerate((SOA, NS, A, AAAA, CNAME, DNAME, MX, TXT))}
_SOA_FIELDS: Final = ("serial", "refresh", "retry", "expire", "negative caching")
TYPE_WIDTH: Final = 6
"""Columns of a type; longer ones push their data to the right."""
OWNER_WIDTH: Final = 15
"""Columns of an owner at least."""
OWNER_WIDEST: Final = 31
"""Columns of an owner at most: longer names push what follows to the right."""


def in_order(zone: Zone) -> list[Node]:
    """The nodes that have records, in canonical order (RFC 4034 §6.1)."""
    some = [node for node in zone.nodes.values() if node.rrsets]
    some.sort(key=lambda node: names.labels(node.name)[::-1])
    return some


def type_order(rtype: int) -> tuple[int, int]:
    """What the sets of one name are sorted by: SOA and NS first, then addresses."""
    return _ORDER.get(rtype, len(_ORDER)), rtype


def common_ttl(zone: Zone) -> int:
    """The TTL that most sets have; the least of those."""
    counted = Counter(rrset.ttl for _, rrset in zone)
    most = max(counted.values())
    return min(ttl for ttl, count in counted.items() if count == most)


def soa_lines(rdata: bytes, origin: bytes, indent: int) -> list[str]:
    """An SOA's data with a field on each line and what it means beside it."""
    text = rdata_text(SOA, rdata, origin).split()
    first = f"{text[0]} {text[1]} ("
    width = max(map(len, text[2:])) + 2
    lines = [
        f"{' ' * indent}{value + (' )' if field is _SOA_FIELDS[-1] else ''):<{width}} ; {field}"
        for value, field in zip(text[2:], _SOA_FIELDS, strict=True)
    ]
    return [first, *lines]


def zone_lines(zone: Zone) -> Iterator[str]:
    """The lines of a master file, without line ends."""
    default = common_ttl(zone)
    origin = zone.apex.owner
    nodes = in_order(zone)
    width = OWNER_WIDTH
    if len(nodes) < 10_000:
        longest = max(len(relative(node.owner, origin)) for node in nodes)
        width = min(max(width, longest), OWNER_WIDEST)
    yield f"$ORIGIN {names.to_text(origin)}"
    yield f"$TTL {default}"
    yield ""
    for node in nodes:
        owner = relative(node.owner, origin)
        for rtype in sorted(node.rrsets, key=type_order):
            for line in rrset_lines(node.rrsets[rtype], owner, origin, default, width):
                yield line
                owner = ""


def rrset_lines(
    rrset: RRset, owner: str, origin: bytes, default: int | None, width: int
) -> Iterator[str]:
    """The lines of one set; `owner` may be empty for that of the line before."""
    ttl = "" if rrset.ttl == default else f"{rrset.ttl} "
    kind = f"{type_name(rrset.rtype):<{TYPE_WIDTH}}"
    for rdata in rrset.rdatas:
        head = f"{owner:<{width}} {ttl}IN {kind} "
        owner = ""
        if rrset.rtype == SOA:
            first, *more = soa_lines(rdata, origin, len(head))
            yield head + first
            yield from more
        else:
            yield head + rdata_text(rrset.rtype, rdata, origin)


def zone_text(zone: Zone, head: str = "") -> str:
    """A whole master file; `head` comes first, as comment."""
    comment = "".join(f"; {line}".rstrip() + "\n" for line in head.splitlines())
    return comment + "\n".join(zone_lines(zone)) + "\n"
