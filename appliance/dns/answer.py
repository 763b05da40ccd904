"""`Catalog.answer`: a query's octets in, the answer's octets out.

    plain query ┬ key known ───── hot: rendered at load; three slices and a look-up
                ├ place known ─── shaped: one rendering for a flood of names that do not exist
                └ not ours ────── refused
    any query ─── parse ─ lookup ─ render ─ remembered for the next

A hot answer costs no parse: the first zero octet behind the header can only be the end of the name
if the octets up to it, in lower case, with type and class behind them are a key of our making. The
identifier, RD and the question (in the querier's case) are copied, OPT is a constant, and the
body was rendered against the question's fixed place; see `render`. All ways lead to the same
octets; tests hold them against each other.

Floods cannot push out what is hot: answers for names that exist live in one dictionary filled at
load, all others in bounded ones (`cache`). Imports the leaves of this package only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from appliance.dns import names
from appliance.dns.cache import Generations
from appliance.dns.consts import (
    ANY,
    CH,
    CLASS_ANY,
    CLASSIC_UDP,
    DEFAULT_UDP,
    HEADER_LEN,
    MAX_MESSAGE,
    REFUSED,
    TXT,
)
from appliance.dns.counters import Counters
from appliance.dns.edit import Edited
from appliance.dns.edns import EXTENDED, Extensions, extended_error, opt_record
from appliance.dns.errors import LocalError
from appliance.dns.lookup import Answer, Lookup, Trace, Zones
from appliance.dns.message import DO, Query
from appliance.dns.places import UNSHAPED, Places
from appliance.dns.prepared import COMMON, EAGER, Prepared, Rendered, refused, render_all
from appliance.dns.respond import UNPLAIN, Responder, Services
from appliance.dns.rrl import RateLimiter, address_of
from appliance.dns.transfer import Transfers
from appliance.dns.zone import RRset, Zone, collector_paused

# What a plain query has behind its identifier: RD in the low bit; AD and CD may be set and mean
# nothing here (RFC 4035 §3.1.6); one question; with bit 1 one additional record, which is OPT.
_HEADS: Final[dict[bytes, int]] = {
    bytes((rd, bits, 0, 1, 0, 0, 0, 0, 0, opt)): opt << 1 | rd
    for rd in (0, 1)
    for bits in (0, 0x10, 0x20, 0x30)
    for opt in (0, 1)
}
_PLAIN_OPT: Final = {b"\0\0\0\0\0\0": 0, b"\0\0\x80\0\0\0": 1}
"""An OPT without options behind its size: extended code, version, DO, no options."""

_CLASS_IN: Final = b"\0\1"

WARM_ENTRIES: Final = 100_000
WARM_OCTETS: Final = 32 << 20
"""Bounds of the answers remembered for names that exist: the busy part of a large zone."""
SHAPED_ENTRIES: Final = 20_000
SHAPED_OCTETS: Final = 8 << 20
"""Bounds of the renderings that names share: one for each wildcard, cut or zone and length."""


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
        "_refused",
        "_refused_opts",
        "_services",
        "_shaped",
        "_slow",
        "_warm",
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
        answers rendered now; `progress` is told names done and their part of a zone. LocalError if two zones have one origin or `udp_size` is not in
        512..65535.
        """
        self.zones = Zones(zones)
        self.counters = counters if counters is not None else Counters()
        self._lookup = Lookup(self.zones, minimal=minimal)
        self._refused = refused()
        self._warm: Generations[bytes, Prepared] = Generations(WARM_ENTRIES, WARM_OCTETS)
        self._shaped: Generations[int, Prepared] = Generations(SHAPED_ENTRIES, SHAPED_OCTETS)
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
            self._places = Places(self.zones)
            tallies = self.counters.tallies
            rendered = render_all(self.zones, self._lookup, eager, tallies, progress)
        self._hot = rendered.ready
        self._fragile = rendered.fragile
        self._eager = eager

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

    # The path of a plain query.

    def answer(self, query: bytes, *, transport: str = "udp", peer: Any = None) -> bytes | None:
        """The answer to one message, None if there is to be none; never raises on any octets.

        `transport` is "udp" or the name of a stream; `peer` is the sender's address, if known.
        """
        kind = _HEADS.get(query[2:12])
        if kind is not None:
            name_end = query.find(0, 12) + 1
            end = name_end + 4
            do = None
            if kind < 2:
                if len(query) == end:
                    do = -1
            elif len(query) == end + 11 and query[end : end + 3] == b"\0\0\x29":
                do = _PLAIN_OPT.get(query[end + 5 :])
            if do is not None:
                name = query[12:name_end].lower()
                ready = self._hot.get(name + query[name_end:end])
                if ready is None:
                    ready = self._shared(name, query[name_end:end])
                elif ready.small:
                    ready.tally[0] += 1
                if ready is not None and ready.small:
                    if self._limiter is not None and transport == "udp":
                        verdict = self._limiter.judge(address_of(peer), ready.kind, self._clock())
                        if verdict:
                            return self._slow.limited(query, end, self._opts[do], verdict)
                    opt = self._opts[do] if ready is not self._refused else self._refused_opts[do]
                    return query[:2] + ready.heads[kind] + query[12:end] + ready.octets + opt
        return self._slow.answer(query, transport, peer)

    def stream(
        self, query: bytes, *, transport: str = "tcp", peer: Any = None
    ) -> bytes | Iterator[bytes] | None:
        """Like `answer`, but a zone transfer gives all its messages, made as they are asked for."""
        if b"\0\xfc\0\1" in query or b"\0\xfb\0\1" in query:
            messages = self._slow.transfer(query, peer)
            if messages is not None:
                return messages
        return self.answer(query, transport=transport, peer=peer)

    def _shared(self, name: bytes, kind: bytes) -> Prepared | None:
        """A remembered answer for a name whose extent is a guess; None if it takes more.

        `kind` is type and class. The guess was right if labels lead from its start to a known name.
        """
        if kind[2:] != _CLASS_IN or kind[:2] in UNPLAIN or len(name) > 255:
            return None
        table = self._places.table
        at = 0
        place = table.get(name)
        try:
            while place is None:
                length = name[at]
                if not 0 < length < 64:
                    break
                at += 1 + length
                place = table.get(name[at:])
            else:
                counters = self.counters
                if not at:
                    ready = self._warm.get(name + kind)
                elif place:
                    key = place << 24 | len(name) << 16
                    if place & 1:
                        key |= kind[0] << 8 | kind[1]
                    ready = self._shaped.get(key)
                else:
                    return None
                if ready is not None and ready.small:
                    counters.rcodes[ready.rcode] += 1
                    counters.shaped += 1
                    counters.kind(kind)[0] += 1
                    return ready
                return None
        except IndexError:
            return None
        if at + 1 != len(name) or self.zones.absent:
            return None
        self.counters.rcodes[REFUSED] += 1
        self.counters.kind(kind)[0] += 1
        return self._refused

    # The path of every other query, as far as it needs the zones.

    def _prepared(self, message: bytes, query: Query) -> Prepared:
        """The rendering for a question, remembered or made."""
        qname = message[HEADER_LEN : query.name_end]
        key = qname.lower() + query.qtype.to_bytes(2, "big") + message[query.end - 2 : query.end]
        prepared = self._hot.get(key) or self._warm.get(key)
        if prepared is not None:
            self.counters.warm += 1
            return prepared
        if query.qclass == CH:
            return self._chaos(qname, query.qtype)
        found = self._lookup.resolve(qname, query.qtype)
        if query.qclass == CLASS_ANY:
            # RFC 1035 §6.2: the records of one class are no authoritative answer for all of them.
            found.aa = False
            found.shape = None
            found.exact = False
        if found.shape is not None:
            shaped_at = self._places.key(found.shape, len(qname), query.qtype)
            prepared = self._shaped.get(shaped_at)
            if prepared is not None:
                self.counters.shaped += 1
                return prepared
        self.counters.slow += 1
        prepared = Prepared(qname, found)
        if found.shape is not None:
            self._shaped.put(shaped_at, prepared, len(prepared.octets))
        elif found.exact:
            self._warm.put(key, prepared, len(prepared.octets) + len(key))
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
        return Prepared(qname, found, CH)

    # Other versions of zones. Each method ends before the next query is asked.

    def edit(self, edited: Edited) -> None:
        """Serve another version of a zone, of whose names only some have changed."""
        zone = edited.zone
        old = self.zones.by_origin[zone.origin]
        self._forget()
        self._drop(old, edited.names)
        self.zones.by_origin[zone.origin] = zone
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
        self.zones.absent.discard(origin)
        self._exchange(origin, None)

    def expire(self, origin: bytes) -> None:
        """Have no data for a zone that is ours to serve: SERVFAIL until `replace` brings some."""
        self._exchange(origin, None)
        self.zones.absent.add(origin)
        self._places.table[origin] = UNSHAPED

    def render_zone(self, zone: Zone) -> Rendered:
        """What `replace` may be given; touches nothing, so another thread may do it."""
        zones = Zones(one for one in self.zones.by_origin.values() if one.origin != zone.origin)
        zones.by_origin[zone.origin] = zone
        rendered = Rendered(self.counters.tallies)
        rendered.zone(zone, Lookup(zones, minimal=self._lookup.minimal), self._eager)
        return rendered

    def _exchange(self, origin: bytes, zone: Zone | None) -> None:
        self._forget()
        old = self.zones.by_origin.pop(origin, None)
        if origin in self.zones.absent:
            self.zones.absent.discard(origin)
            self._places.table.pop(origin, None)
        if zone is not None:
            self.zones.by_origin[origin] = zone
        if old is not None:
            self._drop(old, old.nodes)
        if old is None or zone is None:
            # What stands at and below its name in the zones around it comes to light or is hidden.
            for other in self.zones.by_origin.values():
                if names.is_below(origin, other.origin):
                    self._drop(other, [n for n in other.nodes if names.is_below(n, origin)])
        self._places.replaced(old, zone)

    def _forget(self) -> None:
        """Forget all answers that any change may concern; they are rendered when asked for."""
        hot = self._hot
        for key in self._fragile:
            hot.pop(key, None)
        self._fragile = []
        self._warm = Generations(WARM_ENTRIES, WARM_OCTETS)
        self._shaped = Generations(SHAPED_ENTRIES, SHAPED_OCTETS)

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
