"""A directory of master files: each `*.zone` is a zone, and one bad zone stops no other.

Imports `errors`, `reload`, `zone`, `zonefile`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from appliance.dns.errors import Problem, ZoneError
from appliance.dns.reload import LoadedZones
from appliance.dns.zone import Zone
from appliance.dns.zonefile import SUFFIX, Progress, digest_of, read_file, reason


def load_zones(
    directory: str | Path,
    progress: Callable[[Path], Progress] | None = None,
    known: Mapping[str, tuple[Zone, bytes]] | None = None,
) -> LoadedZones:
    """Read every `*.zone` file of a directory; one bad zone does not stop the others.

    `progress` gives, for a file, whom to tell how far its reading is.
    `known` has, by main file, zones that were read before, and the digest of their files: a zone
    whose files have not changed is not read again, the very object is given back; nor is one lost
    whose files have errors now.
    """
    root = Path(directory)
    zones: dict[bytes, Zone] = {}
    problems: list[Problem] = []
    stale: set[bytes] = set()
    try:
        paths = sorted(path for path in root.iterdir() if path.name.endswith(SUFFIX))
    except OSError as error:
        problem = Problem(str(root), 0, "error", f"cannot be read: {reason(error)}")
        return LoadedZones((), (problem,))
    for path in paths:
        zone, digest = (known or {}).get(str(path), (None, b""))
        if zone is not None and digest and digest_of(zone.files) == digest:
            zones.setdefault(zone.origin, zone)
            continue
        try:
            told = progress(path) if progress is not None else None
            zone = read_file(path, root=root, progress=told)
        except ZoneError as error:
            problems.extend(error.problems)
            if zone is not None and zone.origin not in zones:
                zones[zone.origin] = zone
                stale.add(zone.origin)
                message = f"{zone.name} has errors now, and is served as it was"
                problems.append(Problem(str(path), 0, "warning", message))
            continue
        problems.extend(zone.problems)
        other = zones.setdefault(zone.origin, zone)
        if other is not zone:
            message = f"{zone.name} is in {other.files[0]} already; this file is left out"
            problems.append(Problem(str(path), zone.soa.where & 0xFFFFFFFF, "error", message))
    return LoadedZones(tuple(zones.values()), tuple(problems), frozenset(stale))
