"""`Catalog.answer`: a query's octets in, the answer's octets out.

    plain query ┬ key known ───── hot: rendered at load; three slices and a look-up
                ├ place known ─── shaped: one rendering for a flood of names that do not exist
                └ not ours ────── refused
    any query ─── parse ─ lookup ─ render ─ remembered for the next

All ways lead to the same octets; tests hold them against each other. The first two are `quick`.

Floods cannot push out what is hot: answers for names that exist live in one dictionary filled at
load, all others in bounded ones (`cache`). Imports the leaves of this package only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from appliance.dns import names
from appliance.dns.cache import Generations
from appliance.dns.consts import (
    ANY,
    CH,
    CLASS_ANY,
    CLASSIC_UDP,
    DEFAULT_UDP,
    HEADER_LEN,
    IN,
    MAX_MESSAGE,
    REFUSED,
    TXT,
)
from appliance.dns.counters import Counters
from appliance.dns.denial import complete, link
from appliance.dns.edit import Edited
from appliance.dns.edns import EXTENDED, Extensions, extended_error, opt_record
from appliance.dns.errors import LocalError
from appliance.dns.lookup import Answer, Lookup, Trace, Zones
from appliance.dns.message import DO, Query
from appliance.dns.places import Places
from appliance.dns.prepared import COMMON, EAGER, Prepared, Rendered, prepare, refused, render_all
from appliance.dns.quick import Quick
from appliance.dns.respond import Responder, Services
from appliance.dns.rrl import RateLimiter
from appliance.dns.transfer import Transfers
from appliance.dns.zone import RRset, Zone, collector_paused

_CLASS_IN: Final = b"\0\1"

WARM_ENTRIES: Final = 100_000
WARM_OCTETS: Final = 32 << 20
"""Bounds of the answers remembered for names that exist: the busy part of a large zone."""
PROVED_ENTRIES: Final = 20_000
PROVED_OCTETS: Final = 16 << 20
"""Bounds of the answers with signatures and proofs: those depend on the whole name."""
SHAPED_ENTRIES: Final = 20_000
SHAPED_OCTETS: Final = 8 << 20
"""Bounds of the renderings that names share: one for each wildcard, cut or zone and length."""


class Answers(Protocol):
    """What `Catalog.answer` is, a function that is made anew with its tables."""

    def __call__(self, query: bytes, *, transport: str = "udp", peer: Any = None) -> bytes | None:
        """`transport` is "udp" or the name of a stream; `peer` the sender's address, if known."""
        ...


class Catalog:
    """The zones served and everything rendered from them.

    When zones change, it is told (`edit`, `replace`, `remove`), or another takes its place.
    """

    __slots__ = (
        "_clock",
        "_eager",
        "_fragile",
        "_hot",
        "_limiter",
        "_lookup",
        "_opts",
        "_places",
        "_proved",
        "_refused",
        "_refused_opts",
        "_services",
        "_shaped",
        "_slow",
        "_warm",
        "answer",
        "counters",
        "zones",
    )

    def __init__(
        self,
        zones: Iterable[Zone],
        *,
        udp_size: int = DEFAULT_UDP,
        minimal: bool = True,
        counters: Counters | None = None,
        extensions: Extensions | None = None,
        limiter: RateLimiter | None = None,
        transfers: Transfers | None = None,
        services: Services | None = None,
        clock: Callable[[], float] = time.monotonic,
        eager: int = EAGER,
        progress: Callable[[int, float], None] | None = None,
    ) -> None:
        """Index the zones and render what they can be asked for.

        `udp_size`: octets of a UDP answer at most; `minimal`: no apex NS beside positive answers;
        `extensions`: what is said besides; `limiter`: how often, by monotonic `clock`; `transfers`:
        who may have whole zones; `services`: who hears of NOTIFY, and says what CHAOS has; `eager`:
        answers rendered now; `progress` is told names done and their part of a zone. LocalError if
        two zones have one origin or `udp_size` is not in 512..65535.
        """
        self.answer: Answers
        """The answer to one message, None if there is to be none; never raises on any octets."""
        self._hot: dict[bytes, Prepared] = {}
        self.zones = Zones(zones)
        self._places = Places(Zones(()))
        self.counters = counters if counters is not None else Counters()
        self._lookup = Lookup(self.zones, minimal=minimal)
        self._refused = refused()
        self._warm: Generations[bytes, Prepared] = Generations(WARM_ENTRIES, WARM_OCTETS)
        self._shaped: Generations[int, Prepared] = Generations(SHAPED_ENTRIES, SHAPED_OCTETS)
        self._proved: Generations[bytes, Prepared] = Generations(PROVED_ENTRIES, PROVED_OCTETS)
        self.equip(
            udp_size=udp_size,
            counters=self.counters,
            extensions=extensions,
            limiter=limiter,
            transfers=transfers,
            services=services,
            clock=clock,
        )
        with collector_paused():
            for zone in self.zones.by_origin.values():
                link(zone)
            self._places = Places(self.zones)
            tallies = self.counters.tallies
            rendered = render_all(self.zones, self._lookup, eager, tallies, progress)
        self._hot = rendered.ready
        self._fragile = rendered.fragile
        self._eager = eager
        self._renew()

    def equip(
        self,
        *,
        udp_size: int = DEFAULT_UDP,
        counters: Counters | None = None,
        extensions: Extensions | None = None,
        limiter: RateLimiter | None = None,
        transfers: Transfers | None = None,
        services: Services | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Become another server's catalog; arguments as those of the constructor."""
        if not CLASSIC_UDP <= udp_size <= MAX_MESSAGE:
            raise LocalError(f"udp_size {udp_size} is not in {CLASSIC_UDP}..{MAX_MESSAGE}")
        if counters is not None and counters is not self.counters:
            # What was rendered counts where it was told to.
            counters.tallies = self.counters.tallies
            self.counters = counters
        self._limiter = limiter
        self._services = services
        self._clock = clock
        self._slow = Responder(
            self._prepared,
            self.zones,
            udp_size=udp_size,
            counters=self.counters,
            extensions=extensions if extensions is not None else Extensions(),
            limiter=limiter,
            transfers=transfers,
            services=services,
            clock=clock,
        )
        # For queries without EDNS (the last), without DO, with DO.
        self._opts = (opt_record(udp_size, 0), opt_record(udp_size, DO), b"")
        why = extended_error(EXTENDED[REFUSED])
        self._refused_opts = (
            opt_record(udp_size, 0, REFUSED, why),
            opt_record(udp_size, DO, REFUSED, why),
            b"",
        )
        self._renew()

    def _renew(self) -> None:
        """Let plain queries be answered from the tables as they are now."""
        self.answer = Quick(
            self._hot,
            self._places.table,
            self._warm,
            self._shaped,
            self.zones.absent,
            self.counters,
            self._limiter,
            self._clock,
            self._slow,
            self._opts,
            self._refused,
            self._refused_opts,
        ).answer

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what compiled modules hold, which begins anew."""
        anew = ("answer", "_warm", "_shaped", "_proved")
        return {name: getattr(self, name) for name in self.__slots__ if name not in anew}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._warm = Generations(WARM_ENTRIES, WARM_OCTETS)
        self._shaped = Generations(SHAPED_ENTRIES, SHAPED_OCTETS)
        self._proved = Generations(PROVED_ENTRIES, PROVED_OCTETS)
        self._renew()

    def stream(
        self, query: bytes, *, transport: str = "tcp", peer: Any = None
    ) -> bytes | Iterator[bytes] | None:
        """Like `answer`, but a zone transfer gives all its messages, made as they are asked for."""
        if b"\0\xfc\0\1" in query or b"\0\xfb\0\1" in query:
            messages = self._slow.transfer(query, transport, peer)
            if messages is not None:
                return messages
        return self.answer(query, transport=transport, peer=peer)

    # The path of every other query, as far as it needs the zones.

    def _prepared(self, message: bytes, query: Query) -> Prepared:
        """The rendering for a question, remembered or made."""
        qname = message[HEADER_LEN : query.name_end]
        key = qname.lower() + query.qtype.to_bytes(2, "big") + message[query.end - 2 : query.end]
        edns = query.edns
        proofs = edns is not None and bool(edns.flags & DO) and query.qclass == IN
        prepared = self._hot.get(key) or self._warm.get(key)
        if proofs and (prepared is None or not prepared.bare):
            prepared = self._proved.get(key)
        if prepared is not None:
            self.counters.warm += 1
            return prepared
        if query.qclass == CH:
            return self._chaos(qname, query.qtype)
        found = self._lookup.resolve(qname, query.qtype)
        if proofs and not found.bare:
            return self._proven(qname, found, key)
        if query.qclass == CLASS_ANY:
            # RFC 1035 §6.2: the records of one class are no authoritative answer for all of them.
            found.aa = False
            found.shape = None
            found.exact = False
        if found.shape is not None:
            shaped_at = self._places.key(found.shape, len(qname), query.qtype)
            prepared = self._shaped.get(shaped_at)
            if prepared is not None:
                self.counters.shared.count += 1
                return prepared
        self.counters.slow += 1
        prepared = prepare(qname, found)
        if found.shape is not None:
            self._shaped.put(shaped_at, prepared, len(prepared.octets))
        elif found.exact:
            self._warm.put(key, prepared, len(prepared.octets) + len(key))
        return prepared

    def _proven(self, qname: bytes, found: Answer, key: bytes) -> Prepared:
        """An answer with its signatures and proofs."""
        self.counters.slow += 1
        complete(found)
        prepared = prepare(qname, found)
        if found.exact or found.shape is not None:
            # What a DNAME makes carries the case that it was asked in.
            self._proved.put(key, prepared, len(prepared.octets) + len(key))
        return prepared

    def _chaos(self, qname: bytes, qtype: int) -> Prepared:
        """The server's own words (RFC 4892); never remembered, as they are for people."""
        rdata = self._services.chaos(qname.lower()) if self._services is not None else None
        if rdata is None:
            return self._refused
        found = Answer()
        found.aa = True
        if qtype in (TXT, ANY):
            found.answer.append((qname, RRset(TXT, 0, (rdata,))))
        return prepare(qname, found, CH)

    # Other versions of zones. Each method ends before the next query is asked.

    def edit(self, edited: Edited) -> None:
        """Serve another version of a zone, of whose names only some have changed."""
        zone = edited.zone
        old = self.zones.by_origin[zone.origin]
        self._forget()
        self._drop(old, edited.names)
        self.zones.by_origin[zone.origin] = zone
        link(zone, old, edited.names)
        self._places.put(zone, edited.names)
        if len(self._hot) < self._eager:
            rendered = Rendered(self.counters.tallies)
            for name in edited.names:
                node = zone.nodes.get(name)
                for qtype in node.rrsets if node is not None else ():
                    rendered.add(self._lookup, name, qtype)
            self._take(rendered)

    def replace(self, zone: Zone, rendered: Rendered | None = None) -> None:
        """Serve a zone that is new, or of which much has changed.

        `rendered` by `render_zone`; without it answers are rendered when they are asked for.
        """
        self._exchange(zone.origin, zone)
        if rendered is not None:
            self._take(rendered)

    def remove(self, origin: bytes) -> None:
        """Serve a zone no more; names in it are refused."""
        self._exchange(origin, None)

    def expire(self, origin: bytes) -> None:
        """Have no data for a zone that is ours to serve: SERVFAIL until `replace` brings some."""
        self._exchange(origin, None)
        self.zones.absent.add(origin)
        self._places.hide(origin)

    def render_zone(self, zone: Zone) -> Rendered:
        """What `replace` may be given; touches nothing, so another thread may do it."""
        zones = Zones(one for one in self.zones.by_origin.values() if one.origin != zone.origin)
        zones.by_origin[zone.origin] = zone
        zones.absent = self.zones.absent - {zone.origin}
        link(zone)
        rendered = Rendered(self.counters.tallies)
        rendered.zone(zone, Lookup(zones, minimal=self._lookup.minimal), self._eager)
        return rendered

    def _exchange(self, origin: bytes, zone: Zone | None) -> None:
        self._forget()
        old = self.zones.by_origin.pop(origin, None)
        absent = origin in self.zones.absent
        self.zones.absent.discard(origin)
        if zone is not None:
            link(zone)
            self.zones.by_origin[origin] = zone
        if old is not None:
            self._drop(old, old.nodes)
        if old is None or zone is None:
            # What stands at and below its name in the zones around it comes to light or is hidden.
            above = origin
            while above != names.ROOT:
                above = names.parent(above)
                other = self.zones.by_origin.get(above)
                if other is not None:
                    self._drop(other, [n for n in other.nodes if names.is_below(n, origin)])
        if absent:
            self._places.show(origin)
        self._places.replaced(old, zone)

    def _forget(self) -> None:
        """Forget all answers that any change may concern; they are rendered when asked for."""
        hot = self._hot
        for key in self._fragile:
            hot.pop(key, None)
        self._fragile = []
        self._warm = Generations(WARM_ENTRIES, WARM_OCTETS)
        self._shaped = Generations(SHAPED_ENTRIES, SHAPED_OCTETS)
        self._proved = Generations(PROVED_ENTRIES, PROVED_OCTETS)
        self._renew()

    def _drop(self, zone: Zone, some: Iterable[bytes]) -> None:
        """Forget what was rendered for some names of a zone that is served."""
        hot, nodes = self._hot, zone.nodes
        for name in some:
            node = nodes.get(name)
            for qtype in {*COMMON, *node.rrsets} if node is not None else COMMON:
                hot.pop(name + qtype.to_bytes(2, "big") + _CLASS_IN, None)

    def _take(self, rendered: Rendered) -> None:
        self._hot.update(rendered.ready)
        self._fragile += rendered.fragile

    # For people.

    def explain(self, name: str, qtype: int) -> tuple[Answer, Trace]:
        """Decide without rendering and say why: the answer and the steps that led to it."""
        trace: Trace = []
        return self._lookup.resolve(names.from_text(name, names.ROOT), qtype, trace), trace
