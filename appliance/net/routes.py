"""The routing table: for each destination, by which link and next hop (RFC 1122 §3.3.1).

The longest prefix wins, then the smaller metric, then who came first; a route without a gateway is
on-link. A host has a handful of routes, so the table is a sorted list and a look-up a walk, once
per flow and never per packet. Which of several routers are alive is said by `demote`.

Links are opaque here. Imports `wire.address`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.net.wire.address import to_text

CAPACITY: Final = 256
"""Routes: honest routers give a few, and what advertisements can make is bounded before."""
UNREACHABLE_PENALTY: Final = 1 << 20
"""Added to the metric of a gateway that does not answer (RFC 4861 §6.3.6: only when none does)."""


@dataclass(eq=False, slots=True)
class Route:
    """What lies behind a prefix; `gateway` None: neighbours on `link`. `origin` made it."""

    network: bytes
    prefix_len: int
    link: Any
    gateway: bytes | None
    metric: int = 0
    origin: str = "static"
    source: bytes = b""
    """Our address to prefer, if any (RFC 3442 leaves it open; link-local routes want theirs)."""
    demoted: bool = False
    _value: int = field(default=0, init=False)
    _shift: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._shift = len(self.network) * 8 - self.prefix_len
        self._value = int.from_bytes(self.network) >> self._shift

    def covers(self, value: int) -> bool:
        """Tell whether an address of this family, as a number, is behind the prefix."""
        return value >> self._shift == self._value

    @property
    def rank(self) -> tuple[int, int]:
        """Ascending: what is looked at first."""
        return -self.prefix_len, self.metric + (UNREACHABLE_PENALTY if self.demoted else 0)

    def __str__(self) -> str:
        to = f"{to_text(self.network)}/{self.prefix_len}" if self.prefix_len else "default"
        via = f" via {to_text(self.gateway)}" if self.gateway is not None else ""
        return f"{to}{via}"


class Routes:
    """A host's routes of both families."""

    def __init__(self) -> None:
        self._by_family: dict[int, list[Route]] = {4: [], 16: []}

    def __iter__(self) -> Any:
        for routes in self._by_family.values():
            yield from routes

    def __len__(self) -> int:
        return sum(map(len, self._by_family.values()))

    def add(self, route: Route) -> Route:
        """Add a route; the same one (prefix, link, gateway, origin) again replaces it.

        ValueError beyond `CAPACITY` routes, or for a gateway of another family.
        """
        if route.gateway is not None and len(route.gateway) != len(route.network):
            raise ValueError(f"gateway {to_text(route.gateway)} for {to_text(route.network)}")
        routes = self._by_family[len(route.network)]
        routes[:] = [r for r in routes if not _same(r, route)]
        if len(self) >= CAPACITY:
            raise ValueError(f"more than {CAPACITY} routes")
        routes.append(route)
        routes.sort(key=lambda r: r.rank)  # stable: who came first stays first
        return route

    def remove(self, wanted: Callable[[Route], bool]) -> int:
        """Remove every route that `wanted` picks; how many there were."""
        before = len(self)
        for routes in self._by_family.values():
            routes[:] = [r for r in routes if not wanted(r)]
        return before - len(self)

    def demote(self, gateway: bytes, link: Any, demoted: bool) -> bool:
        """Note whether the routes by `gateway` are a last resort; tells whether that is news.

        RFC 1122 §3.3.1.4, RFC 4861 §6.3.6: those that are silent take turns, when all are.
        """
        routes = self._by_family[len(gateway)]
        by = [route for route in routes if route.gateway == gateway and route.link is link]
        news = [route for route in by if route.demoted != demoted]
        if news or (by and demoted):
            for route in by:
                route.demoted = demoted
                if demoted:
                    routes.remove(route)
                    routes.append(route)
            routes.sort(key=lambda r: r.rank)
        return bool(news)

    def is_demoted(self, gateway: bytes, link: Any) -> bool:
        """Tell whether the routes by `gateway` are a last resort."""
        routes = self._by_family[len(gateway)]
        return any(r.demoted for r in routes if r.gateway == gateway and r.link is link)

    def lookup(self, destination: bytes, link: Any = None) -> Route | None:
        """The route to `destination`, on `link` if one is named; None: there is no way."""
        value = int.from_bytes(destination)
        for route in self._by_family[len(destination)]:
            if route.covers(value) and (link is None or route.link is link):
                return route
        return None


def _same(one: Route, other: Route) -> bool:
    return (
        one.network == other.network
        and one.prefix_len == other.prefix_len
        and one.link is other.link
        and one.gateway == other.gateway
        and one.origin == other.origin
    )
