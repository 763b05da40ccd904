"""A multicast listener: which groups we want to hear, told to the routers (RFC 3810).

A host only joins and leaves, without lists of sources, so its state is a set. A change is reported
at once and once more within a second (robustness 2); a query is answered after a random time. The
querier of version 1 is answered in version 2, which switches that snoop understand (RFC 3810 §8.2
would have us fall back; no address resolution depends on it).

Sans-I/O. Imports `wire`.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable
from math import inf
from typing import Final

from appliance.net.wire import ipv6, mld

UNSOLICITED_REPORT_INTERVAL: Final = 1.0
"""Seconds (RFC 3810 §9.11)."""
ROBUSTNESS: Final = 2
"""Times that a change is reported (RFC 3810 §9.1)."""
MAX_GROUPS: Final = 128
"""Groups joined: a solicited-node group for each address (`ip.MAX_ADDRESSES`), and a few."""


class Listener:
    """The groups of one link; `send(records)` sends a report of (type, group) records."""

    def __init__(
        self, send: Callable[[list[tuple[int, bytes]]], None], random: random_module.Random
    ) -> None:
        self._send = send
        self._random = random
        self._groups: dict[bytes, int] = {}  # group -> how often joined
        self._changes: dict[bytes, tuple[int, int]] = {}  # group -> record type, times left
        self._change_at = inf
        self._answer_at = inf
        self._asked: set[bytes] = set()  # groups to answer for; all of them when general
        self._general = False

    def __contains__(self, group: object) -> bool:
        return group in self._groups

    def groups(self) -> list[bytes]:
        """The groups that are joined."""
        return list(self._groups)

    def join(self, group: bytes, now: float) -> None:
        """Hear `group`; ValueError beyond MAX_GROUPS. Each `join` wants its `leave`."""
        times = self._groups.get(group, 0)
        if not times and len(self._groups) >= MAX_GROUPS:
            raise ValueError(f"more than {MAX_GROUPS} groups")
        self._groups[group] = times + 1
        if not times:
            self._change(group, mld.CHANGE_TO_EXCLUDE, now)

    def leave(self, group: bytes, now: float) -> None:
        """Hear `group` no longer, when nobody else here wants it."""
        times = self._groups.get(group, 0)
        if times > 1:
            self._groups[group] = times - 1
        elif times:
            del self._groups[group]
            self._change(group, mld.CHANGE_TO_INCLUDE, now)

    def _change(self, group: bytes, kind: int, now: float) -> None:
        if _reported(group):
            self._changes[group] = (kind, ROBUSTNESS)
            self._change_at = now

    def query_arrives(self, query: mld.Query, now: float) -> None:
        """RFC 3810 §6.2: answer within the time that the query gives."""
        if any(query.group):
            if query.group not in self._groups:
                return
            self._asked.add(query.group)
        else:
            self._general = True
        self._answer_at = min(self._answer_at, now + self._random.random() * query.max_response)

    def deadline(self) -> float:
        """When `advance` is due, seconds; inf: never."""
        return min(self._change_at, self._answer_at)

    def advance(self, now: float) -> None:
        """Send the reports that are due (RFC 3810 §6.1, §6.3)."""
        if self._change_at <= now:
            self._send([(kind, group) for group, (kind, _) in self._changes.items()])
            self._changes = {
                group: (kind, left - 1) for group, (kind, left) in self._changes.items() if left > 1
            }
            delay = self._random.random() * UNSOLICITED_REPORT_INTERVAL
            self._change_at = now + delay if self._changes else inf
        if self._answer_at <= now:
            wanted = self._groups if self._general else self._asked
            records = [
                (mld.MODE_IS_EXCLUDE, group)
                for group in wanted
                if group in self._groups and _reported(group)
            ]
            if records:
                self._send(records)
            self._answer_at, self._general = inf, False
            self._asked = set()


def _reported(group: bytes) -> bool:
    """RFC 3810 §6: never all-nodes, nor groups of a scope that ends in the host."""
    return group != ipv6.ALL_NODES and group[1] & 15 > 1
