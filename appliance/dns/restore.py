"""A zone as it was served last: its master file, and what its journal has beyond it.

    file ┬ the journal knows it ──── its serial, then the changes that it lacks
         └ somebody has edited it ┬─ updates were in it already: it counts, with a newer serial
           or put an older back   └─ updates were not: they are put on top, and written back soon
                                     (on top of what others have signed: they are lost)

No I/O but the journal's. Imports the leaves of this package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from appliance.dns.edit import apply
from appliance.dns.errors import LocalError, Problem
from appliance.dns.journal import Journal, Mark, replay
from appliance.dns.serial import Difference, is_newer, successor
from appliance.dns.updates import Kept
from appliance.dns.zone import Zone


def restore(
    zone: Zone, journal: Journal, today: int, problems: list[Problem]
) -> tuple[Kept, Sequence[Difference]]:
    """A zone that was read, as it goes on, and the changes that lead to it, for IXFR.

    `today` as 20260131, for serials that are dates. What is wrong is added to `problems`; a journal
    that cannot be used means that there are no updates.
    """
    main, path = zone.files[0], str(journal.path)
    try:
        entries = journal.open()
    except (OSError, LocalError) as error:
        problems.append(Problem(path, 0, "error", f"{error}: {zone.name} takes no updates"))
        return Kept(zone, None), ()
    if journal.torn:
        message = f"{journal.torn} octets of a change that nobody was told of are cut off"
        problems.append(Problem(path, 0, "warning", message))
    kept = Kept(zone, journal)
    differences, known = replay(entries, zone.digest)
    last = differences[-1].new_serial if differences else None
    if differences and not known and zone.signed:
        problems.append(Problem(main, 0, "warning", lost_updates(zone)))
        differences = []
    try:
        if known:
            _know(zone, journal, entries)
        for change in differences:
            kept.zone = apply(kept.zone, change, lenient=not known).zone
        kept.dirty = bool(differences)
    except LocalError as error:
        problems.append(Problem(path, 0, "error", f"does not fit {main}: {error}"))
    if known:
        return kept, [entry for entry in entries if isinstance(entry, Difference)]
    if kept.dirty:
        message = (
            f"{main} was edited while {len(differences)} updates were not in it yet; "
            "they have been put on top"
        )
        problems.append(Problem(main, 0, "warning", message))
    _new_file(kept, last if last is not None else _last_serial(entries), today)
    return kept, ()


def _know(zone: Zone, journal: Journal, entries: Sequence[Mark | Difference]) -> None:
    """Give a file that the journal knows its serial, and note that it has been there."""
    mark = next(
        one for one in reversed(entries) if isinstance(one, Mark) and one.digest == zone.digest
    )
    zone.renumber(mark.serial)
    if not mark.there:
        with contextlib.suppress(OSError):  # the journal knows the file all the same
            journal.append(mark._replace(there=True))


def lost_updates(zone: Zone) -> str:
    """What is said when updates cannot be put on top of a new file, lest its signatures fail."""
    return (
        f"{zone.name} is signed elsewhere now (RFC 3007 §4): updates that its file lacks are lost"
    )


def _new_file(kept: Kept, last: int | None, today: int) -> None:
    """A file that the journal does not know: begin the journal anew from it."""
    assert kept.journal is not None
    zone = kept.zone
    serial = zone.serial
    if last is not None and not is_newer(serial, last) and not zone.signed:
        serial = successor(last, today)
        zone.renumber(serial)
    if kept.dirty:
        # What the file lacks must not be forgotten: it is written back soon (`service`), and
        # until then the old entries stay.
        return
    kept.journal.rewrite([Mark(kept.digest, serial, there=True)])


def _last_serial(entries: Iterable[Mark | Difference]) -> int | None:
    last = None
    for entry in entries:
        last = entry.serial if isinstance(entry, Mark) else entry.new_serial
    return last
