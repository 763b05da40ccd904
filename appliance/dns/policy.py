"""Who may change what by dynamic update: rules for each key (RFC 2136 §3.3, RFC 3007 §3).

A rule names a key, zones, names and types. What no rule allows is refused. Imports `consts`,
`errors`, `names`, `text`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from appliance.dns import names
from appliance.dns.consts import ANY
from appliance.dns.errors import LocalError


class Rule(NamedTuple):
    """One permission; made by `rule`."""

    key: bytes
    """The key's name in lower-cased wire form."""
    zone: bytes | None
    """The zone's, likewise; None: every zone."""
    patterns: tuple[str, ...]
    """As written: `www`, `*.dyn` for everything below, `@` for the apex, `*` for every name."""
    types: frozenset[int] | None
    """None: all types."""


def rule(key: str, zone: str | None, patterns: Iterable[str], types: Iterable[str]) -> Rule:
    """A rule from text; no types means all of them. LocalError for what is no name or no type."""
    from appliance.dns.text import type_number  # brings dnspython

    some = tuple(patterns)
    origin = None if zone is None else names.from_text(zone, names.ROOT).lower()
    for pattern in some:
        if pattern not in ("*", "@"):
            names.from_text(pattern, origin or names.ROOT)
    numbers = frozenset(map(type_number, types))
    return Rule(names.from_text(key, names.ROOT).lower(), origin, some, numbers or None)


class Policy:
    """All rules of a server."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        """Without rules nobody may change anything."""
        self._rules = tuple(rules)

    def __bool__(self) -> bool:
        """True if anybody may change anything."""
        return bool(self._rules)

    def knows(self, key: bytes, zone: bytes) -> bool:
        """True if a key may change something in a zone."""
        return any(one.key == key and one.zone in (None, zone) for one in self._rules)

    def concerns(self, zone: bytes) -> bool:
        """True if somebody may change something in a zone."""
        return any(one.zone in (None, zone) for one in self._rules)

    def allows(self, key: bytes, zone: bytes, name: bytes, rtype: int) -> bool:
        """True if a key may change a lower-cased name's records of a type (ANY: all of them)."""
        return any(
            one.key == key
            and one.zone in (None, zone)
            and (one.types is None or (rtype in one.types and rtype != ANY))
            and any(_matches(pattern, zone, name) for pattern in one.patterns)
            for one in self._rules
        )


def _matches(pattern: str, zone: bytes, name: bytes) -> bool:
    if pattern == "*":
        return True
    try:
        wire = names.from_text(pattern, zone).lower()
    except LocalError:
        return False  # too long below this zone's name
    if wire[:2] == names.WILDCARD:
        above = wire[2:]
        return name != above and names.is_below(name, above)
    return name == wire
