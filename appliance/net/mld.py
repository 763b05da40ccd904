"""A multicast listener: which groups we want to hear, told to the routers (RFC 3810, RFC 2710).

A host only joins and leaves, without lists of sources, so its state is a set. A change is reported
at once and once more within a second (robustness 2); a query is answered after a random time. While
there is a querier of version 1, its version is spoken: a message for each group, and none for a
group that somebody else has just reported (RFC 3810 §8.2).

Sans-I/O. Imports `wire`.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable
from math import inf
from typing import Final

from appliance.net.wire import icmpv6, ipv6, mld

UNSOLICITED_REPORT_INTERVAL: Final = 1.0
"""Seconds (RFC 3810 §9.11)."""
ROBUSTNESS: Final = 2
"""Times that a change is reported (RFC 3810 §9.1)."""
OLDER_VERSION_QUERIER_PRESENT: Final = ROBUSTNESS * 125.0 + 10.0
"""Seconds that a querier of version 1 is taken to be there after its last query (§9.12)."""
MAX_GROUPS: Final = 128
"""Groups joined: a solicited-node group for each address (`ip.MAX_ADDRESSES`), and a few."""


class Listener:
    """The groups of one link; `send(records)` sends a report of (type, group) records.

    `send_v1(kind, group)` sends one of version 1's: `REPORT` or `DONE`, as ICMPv6 numbers them.
    """

    def __init__(
        self,
        send: Callable[[list[tuple[int, bytes]]], None],
        send_v1: Callable[[int, bytes], None],
        random: random_module.Random,
    ) -> None:
        self._send = send
        self._send_v1 = send_v1
        self._v1_until = -inf  # seconds: a querier of version 1 is there
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

    def report_anew(self, now: float) -> None:
        """Tell of every group once more: what was told so far had no sender (RFC 3590 §4)."""
        for group in self._groups:
            self._change(group, mld.CHANGE_TO_EXCLUDE, now)

    def _change(self, group: bytes, kind: int, now: float) -> None:
        self._speaks_v1(now)
        if _reported(group):
            self._changes[group] = (kind, ROBUSTNESS)
            self._change_at = now

    def query_arrives(self, query: mld.Query, now: float) -> None:
        """RFC 3810 §6.2: answer within the time that the query gives."""
        speaks = self._speaks_v1(now)
        if query.version == 1:
            if not speaks:
                self._forget_pending()
            self._v1_until = now + OLDER_VERSION_QUERIER_PRESENT
        if any(query.group):
            if query.group not in self._groups:
                return
            self._asked.add(query.group)
        else:
            self._general = True
        self._answer_at = min(self._answer_at, now + self._random.random() * query.max_response)

    def report_arrives(self, group: bytes) -> None:
        """RFC 2710 §4: somebody else has answered for `group`, so we need not."""
        if self._general:
            self._general = False
            self._asked |= self._groups.keys()
        self._asked.discard(group)
        if not self._asked:
            self._answer_at = inf

    def _speaks_v1(self, now: float) -> bool:
        """Whether there is a querier of version 1."""
        if -inf < self._v1_until <= now:
            self._v1_until = -inf
            self._forget_pending()
        return self._v1_until > now

    def _forget_pending(self) -> None:
        """RFC 3810 §8.2.1: a change of version cancels all that waits."""
        self._changes = {}
        self._change_at = self._answer_at = inf
        self._asked, self._general = set(), False

    def deadline(self) -> float:
        """When `advance` is due, seconds; inf: never."""
        return min(self._change_at, self._answer_at)

    def advance(self, now: float) -> None:
        """Send the reports that are due (RFC 3810 §6.1, §6.3)."""
        self._speaks_v1(now)
        if self._change_at <= now:
            self._tell([(kind, group) for group, (kind, _) in self._changes.items()])
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
                self._tell(records)
            self._answer_at, self._general = inf, False
            self._asked = set()

    def _tell(self, records: list[tuple[int, bytes]]) -> None:
        if self._v1_until == -inf:
            self._send(records)
            return
        # Deviates from RFC 2710 §4, where each group has a time of its own to answer after.
        for kind, group in records:
            left = kind == mld.CHANGE_TO_INCLUDE
            self._send_v1(icmpv6.MLD_DONE if left else icmpv6.MLD_REPORT, group)


def _reported(group: bytes) -> bool:
    """RFC 3810 §6: never all-nodes, nor groups of a scope that ends in the host."""
    return group != ipv6.ALL_NODES and group[1] & 15 > 1
