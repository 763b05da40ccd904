"""Catalog zones (RFC 9432): a zone that lists zones, so that secondaries need no configuration.

`read` takes the members out of a catalog that a primary made, `make` writes the catalog of our own
zones. Imports the leaves of this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from appliance.dns import names
from appliance.dns.consts import NS, PTR, SOA, TXT
from appliance.dns.errors import LocalError
from appliance.dns.zone import Zone, ZoneBuilder

VERSION: Final = b"\x012"
"""The schema version as a TXT character string (RFC 9432 §4.2.1)."""
MAX_MEMBERS: Final = 100_000
"""Zones that one catalog may bring."""
_INVALID: Final = b"\x07invalid\x00"
_COO: Final = b"\x03coo"
_TTL: Final = 0
"""RFC 9432 §4.1 leaves TTLs open: nobody asks a catalog questions."""


class Member(NamedTuple):
    """One zone of a catalog."""

    label: bytes
    """Unique in the catalog; another one means another zone of that name (RFC 9432 §5.4)."""
    heir: bytes | None
    """The catalog that may take it over (RFC 9432 §4.3.1), in lower case."""


def read(zone: Zone) -> dict[bytes, Member]:
    """Members by origin; LocalError if the catalog is broken.

    RFC 9432 §5.1: a broken catalog is not processed at all, so nothing is lost by it.
    """
    origin = zone.origin
    version = zone.nodes.get(b"\x07version" + origin)
    rrset = version.rrsets.get(TXT) if version is not None else None
    if rrset is None or rrset.rdatas != (VERSION,):
        raise LocalError(f"{zone.name} is no catalog of version 2 (RFC 9432 §4.2.1)")
    parent = b"\x05zones" + origin
    found: dict[bytes, Member] = {}
    for name, node in zone.nodes.items():
        if names.parent(name) != parent or name == origin:
            continue
        pointers = node.rrsets.get(PTR)
        if pointers is None:
            continue
        if len(pointers.rdatas) != 1:
            raise LocalError(f"{names.to_text(name)} has not one PTR record (RFC 9432 §4.1)")
        member = pointers.rdatas[0].lower()
        if member in found:
            raise LocalError(f"{names.to_text(member)} is listed twice (RFC 9432 §4.1)")
        if len(found) >= MAX_MEMBERS:
            raise LocalError(f"more than {MAX_MEMBERS} zones")
        coo = zone.nodes.get(_COO + name)
        heirs = coo.rrsets[PTR].rdatas if coo is not None and PTR in coo.rrsets else ()
        # RFC 9432 §4.3.1: one record; what is none such says nothing.
        heir = heirs[0].lower() if len(heirs) == 1 else None
        found[member] = Member(name[1 : 1 + name[0]], heir)
    return found


def make(origin: bytes, members: Iterable[bytes], serial: int) -> Zone:
    """The catalog zone of some zones, given as wire names; `origin` is its own."""
    builder = ZoneBuilder(origin)
    numbers = b"".join(n.to_bytes(4, "big") for n in (serial, 3600, 600, 2147483646, 0))
    builder.add(origin, SOA, _TTL, _INVALID + _INVALID + numbers)
    builder.add(origin, NS, _TTL, _INVALID)
    builder.add(b"\x07version" + origin, TXT, _TTL, VERSION)
    for member in sorted({one.lower() for one in members}):
        # RFC 9432 §4.1: the label is unique, and stays as long as the zone is a member.
        label = hashlib.sha256(member).hexdigest()[:32].encode()
        owner = bytes((len(label),)) + label + b"\x05zones" + origin
        builder.add(owner, PTR, _TTL, member)
    return builder.finish()
