"""From the zones that are served and those just read: what to serve now, and what has changed.

    read, newer serial              → serve; the difference goes to the secondaries
    read, content changed, serial not → its serial is raised by the zone's own convention, and told
    read, nothing changed           → keep the old one, and what was rendered for it
    read, but with errors           → keep the last good one, and tell so
    its file is gone                → serve it no more

No file is read or written here. Imports the leaves of this package.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from appliance.dns.errors import Problem
from appliance.dns.serial import Difference, difference, is_newer, is_same_content, successor
from appliance.dns.zone import Zone


@dataclass(frozen=True, slots=True)
class LoadedZones:
    """What a directory gave: the zones that can be served, and all problems of all files."""

    zones: tuple[Zone, ...]
    problems: tuple[Problem, ...]
    stale: frozenset[bytes] = frozenset()
    """Origins of zones whose files have errors now; they are as they were read before."""


class Reloaded(NamedTuple):
    """The outcome of a reload."""

    zones: tuple[Zone, ...]
    """To be served from now on."""
    changes: tuple[Difference, ...]
    """Of zones that were served before: for `Transfers.changed`."""
    news: tuple[Zone, ...]
    """Zones that are new or changed: for `Notifier.changed`."""
    problems: tuple[Problem, ...]
    """Of the files read, and what was done about them."""
    served: tuple[Zone, ...]
    """What was served when this was decided."""


def reload(served: Iterable[Zone], loaded: LoadedZones, today: int) -> Reloaded:
    """Decide what a reload leads to; `today` is a date as 20260131, for serials that are dates."""
    served = tuple(served)
    old = {zone.origin: zone for zone in served}
    zones: list[Zone] = []
    changes: list[Difference] = []
    news: list[Zone] = []
    problems = list(loaded.problems)
    for zone in loaded.zones:
        before = old.pop(zone.origin, None)
        if before is None:
            zones.append(zone)
            news.append(zone)
            continue
        if zone is before:
            zones.append(zone)  # its files have not changed
            continue
        change = difference(before, zone)
        newer = is_newer(zone.serial, before.serial)
        if is_same_content(change) and not newer:
            # Also when a serial that was raised here is lower in the file still.
            zones.append(before)
            continue
        if not newer and zone.signed:
            zones.append(before)
            problems.append(cannot_raise(before, zone))
            continue
        if not newer:
            serial = successor(before.serial, today)
            problems.append(forgotten(zone, before.serial, serial))
            zone.renumber(serial)
            change = difference(before, zone)
        zones.append(zone)
        changes.append(change)
        news.append(zone)
    broken = {problem.file for problem in loaded.problems if problem.severity == "error"}
    for zone in old.values():
        if broken.intersection(zone.files):
            zones.append(zone)
            message = f"{zone.name} is served as it was, with serial {zone.serial}"
            problems.append(Problem(zone.files[0], 0, "warning", message))
    return Reloaded(tuple(zones), tuple(changes), tuple(news), tuple(problems), served)


def cannot_raise(before: Zone, zone: Zone) -> Problem:
    """The serial is signed, and the key is not ours (RFC 4035 §2.2)."""
    file, line = zone.place(zone.soa.where)
    message = (
        f"{zone.name} changed, but its serial {zone.serial} is not newer than {before.serial}, "
        "and it is signed elsewhere: it is served as it was"
    )
    return Problem(file, line, "warning", message)


def forgotten(zone: Zone, last: int, serial: int) -> Problem:
    """The serial of a changed zone is not newer than the last, so it is served with another."""
    file, line = zone.place(zone.soa.where)
    message = (
        f"{zone.name} changed, but its serial {zone.serial} is not newer than {last}; "
        f"it is served with {serial}: raise it beyond that with the next change"
    )
    return Problem(file, line, "warning", message)
