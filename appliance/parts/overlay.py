"""Records that come and go while the appliance runs: proofs for ACME (RFC 8555 §8.4), TLSA.

They are laid over the zones that were loaded, as new versions with new serials, so that secondaries
hear of them; a reload lays them over the new zones. What a zone has at such a name and type by
itself is hidden meanwhile, and comes back.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import dns.exception
import dns.message
import dns.rdata
import dns.rdatatype

from appliance.dns import names
from appliance.dns.consts import SOA
from appliance.dns.edit import apply
from appliance.dns.serial import Difference, successor, with_serial

if TYPE_CHECKING:
    from dns.rdata import Rdata

    from appliance.dns import Zone
    from appliance.dns.zone import RRset

Set = tuple[int, tuple[bytes, ...]]
"""TTL in seconds, rdatas in wire form."""


class Current(Protocol):
    """Whatever has the catalog of the moment."""

    @property
    def current(self) -> Any:
        """The catalog to ask now."""


class Overlay:
    """A few sets of records: one for each proof under way, and one for each service with TLSA."""

    def __init__(self, catalog: Current, told: Callable[[Zone], None] = lambda _zone: None) -> None:
        """`catalog.current` answers; `told` hears of each new version, to tell secondaries."""
        self._catalog = catalog
        self._told = told
        self._wanted: dict[tuple[bytes, int], Set] = {}
        self._hidden: dict[tuple[bytes, int], Set] = {}  # what the zones have there themselves

    def publish(self, name: str, rrtype: str, ttl: int, rdatas: Sequence[str]) -> None:
        """Answer with these records for a name and type, from now on.

        Raises LookupError when no zone of ours has the name, ValueError for malformed records.
        """
        owner, kind = names.from_text(name), dns.rdatatype.from_text(rrtype)
        try:
            wires = tuple(dns.rdata.from_text("IN", kind, text).to_wire() or b"" for text in rdatas)
        except dns.exception.DNSException as exc:
            raise ValueError(f"{name} {rrtype}: {exc}") from exc
        key = (owner.lower(), int(kind))
        zone = self._zone(key[0])
        if zone is None:
            raise LookupError(f"{name} is in no zone of ours")
        old = _present(zone, key)
        if key not in self._wanted and old is not None:
            self._hidden[key] = (old.ttl, old.rdatas)
        self._wanted[key] = (ttl, wires)
        self._set(zone, key, (ttl, wires))

    def withdraw(self, name: str, rrtype: str) -> None:
        """Take a set away that was published; nothing happens if it was not."""
        key = (names.from_text(name).lower(), int(dns.rdatatype.from_text(rrtype)))
        if self._wanted.pop(key, None) is None:
            return
        zone = self._zone(key[0])
        before = self._hidden.pop(key, None)
        if zone is not None:
            self._set(zone, key, before)

    def ours(self, name: str) -> bool:
        """Whether a zone of ours has the name."""
        return self._zone(names.from_text(name).lower()) is not None

    def lookup(self, name: str, rrtype: str) -> list[Rdata]:
        """The records that we answer with for a name and type; empty if there are none."""
        query = dns.message.make_query(name, rrtype)
        answer = self._catalog.current.answer(query.to_wire(), transport="tcp", peer=None)
        if answer is None:
            return []
        try:
            reply = cast(dns.message.QueryMessage, dns.message.from_wire(answer))
            found = reply.resolve_chaining().answer
        except dns.exception.DNSException:
            return []
        return list(found or ())

    def lay(self) -> None:
        """Lay everything over zones that were loaded or updated meanwhile."""
        for key, wanted in self._wanted.items():
            zone = self._zone(key[0])
            if zone is None:
                continue
            old = _present(zone, key)
            if old is not None and (old.ttl, old.rdatas) == wanted:
                continue
            self._hidden.pop(key, None)
            if old is not None:
                self._hidden[key] = (old.ttl, old.rdatas)
            self._set(zone, key, wanted)

    def _zone(self, name: bytes) -> Zone | None:
        found: Zone | None = self._catalog.current.zones.find(name)
        return found

    def _set(self, zone: Zone, key: tuple[bytes, int], wanted: Set | None) -> None:
        name, kind = key
        old = _present(zone, key)
        ttl, rdatas = wanted or (0, ())
        removed = () if old is None else tuple((name, kind, old.ttl, r) for r in old.rdatas)
        today = int(f"{dt.datetime.now(dt.UTC):%Y%m%d}")
        soa = zone.soa
        before = (zone.origin, SOA, soa.ttl, soa.rdatas[0])
        after = (
            zone.origin,
            SOA,
            soa.ttl,
            with_serial(soa.rdatas[0], successor(zone.serial, today)),
        )
        change = Difference(before, after, removed, tuple((name, kind, ttl, r) for r in rdatas))
        edited = apply(zone, change, lenient=True)
        self._catalog.current.edit(edited)
        self._told(edited.zone)


def _present(zone: Zone, key: tuple[bytes, int]) -> RRset | None:
    node = zone.nodes.get(key[0])
    return None if node is None else node.rrsets.get(key[1])
