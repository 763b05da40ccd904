"""A zone as it was served last: its master file, and what its journal has beyond it.

    file ┬ the journal knows it ──── its serial, then the changes that it lacks
         └ somebody has edited it ┬─ updates were in it already: it counts, with a newer serial
           or put an older back   └─ updates were not: they are put on top, and written back soon
                                     (on top of what others have signed: they are lost)

A serial that is not newer than the one served last is raised and told of, as by a reload: nobody
who has that one would come for the change (RFC 1982, RFC 1995 §2). Where the serial is signed it is
told of alone, since the version before is nowhere any more.

No I/O but the journal's. Imports the leaves of this package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from appliance.dns.edit import apply_all, renumbered
from appliance.dns.errors import LocalError, Problem
from appliance.dns.journal import Journal, Mark, replay
from appliance.dns.reload import forgotten
from appliance.dns.serial import HALF, MASK, Difference, difference, is_newer, successor
from appliance.dns.updates import Kept
from appliance.dns.zone import Zone


def restore(
    zone: Zone, journal: Journal, today: int, problems: list[Problem]
) -> tuple[Kept, Sequence[Difference]]:
    """A zone that was read, as it goes on, and the changes that lead to it, for IXFR.

    The zone itself stays as it is, since it may have been rendered.

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
    last = _last_serial(entries)
    if differences and not known and zone.signed:
        problems.append(Problem(main, 0, "warning", lost_updates(zone)))
        differences = []
    if known:
        _know(kept, entries)
    if differences:
        _put_on_top(kept, differences, known, problems)
    same = known and zone.serial == last
    if zone.signed and last is not None and not same and not is_newer(zone.serial, last):
        problems.append(_behind(zone, last))
    if known:
        return kept, [entry for entry in entries if isinstance(entry, Difference)]
    if kept.dirty:
        message = (
            f"{main} was edited while {len(differences)} updates were not in it yet; "
            "they have been put on top"
        )
        problems.append(Problem(main, 0, "warning", message))
    try:
        _new_file(kept, last, today, problems)
    except OSError as error:
        problems.append(Problem(path, 0, "error", f"{error}: {zone.name} takes no updates"))
        journal.close()
        kept.journal = None
    return kept, ()


def fold(zone: Zone, journal: Journal, read: Zone) -> None:
    """Leave in a journal what leads from a file, as it was just `read`, to the zone that is served.

    For a file that cannot be written back, whose journal would grow for ever. OSError, LocalError.
    """
    marks = [one for one in journal.entries() if isinstance(one, Mark) and one.there]
    if marks and marks[-1].digest == read.digest:
        serial = marks[-1].serial
    else:
        # What the file says alone was never served, so it gets a serial that nobody has.
        serial = zone.serial - (HALF - 1) & MASK
    change = difference(renumbered(read, serial), zone)
    journal.rewrite([Mark(read.digest, serial, there=True), change])


def _know(kept: Kept, entries: Sequence[Mark | Difference]) -> None:
    """Give a file that the journal knows its serial, and note that it has been there."""
    assert kept.journal is not None
    mark = next(
        one for one in reversed(entries) if isinstance(one, Mark) and one.digest == kept.digest
    )
    kept.zone = renumbered(kept.zone, mark.serial)
    if not mark.there:
        with contextlib.suppress(OSError):  # the journal knows the file all the same
            kept.journal.append(mark._replace(there=True))


def _put_on_top(
    kept: Kept, differences: Sequence[Difference], known: bool, problems: list[Problem]
) -> None:
    """The version that updates lead to; of those that do not fit, what can be had of them."""
    assert kept.journal is not None
    zone = kept.zone
    for lenient in (False, True) if known else (True,):
        try:
            kept.zone = apply_all(zone, differences, lenient=lenient).zone
            kept.dirty = True
            return
        except LocalError as error:
            message = f"does not fit {zone.files[0]}: {error}"
            problems.append(Problem(str(kept.journal.path), 0, "error", message))


def lost_updates(zone: Zone) -> str:
    """What is said when updates cannot be put on top of a new file, lest its signatures fail."""
    return (
        f"{zone.name} is signed elsewhere now (RFC 3007 §4): updates that its file lacks are lost"
    )


def _behind(zone: Zone, last: int) -> Problem:
    """The serial went back, and the key to raise it is not ours (RFC 4035 §2.2)."""
    file, line = zone.place(zone.soa.where)
    message = (
        f"{zone.name} is served with serial {zone.serial}, which is not newer than {last}, "
        "served before: who has that will not fetch it (RFC 1982). It is signed elsewhere: "
        f"have it signed again with a serial beyond {last}"
    )
    return Problem(file, line, "warning", message)


def _new_file(kept: Kept, last: int | None, today: int, problems: list[Problem]) -> None:
    """A file that the journal does not know: begin the journal anew from it."""
    assert kept.journal is not None
    zone = kept.zone
    behind = last is not None and not is_newer(zone.serial, last)
    if last is not None and behind and not zone.signed:
        serial = successor(last, today)
        if not kept.dirty:
            problems.append(forgotten(zone, last, serial))
        kept.zone = zone = renumbered(zone, serial)
    if kept.dirty:
        # What the file lacks must not be forgotten: it is written back soon (`service`), and until
        # then the old entries stay.
        return
    marks = [Mark(kept.digest, zone.serial, there=True)]
    if last is not None and behind and zone.signed:
        # Of no file: the serial stays known until there is a newer one.
        marks.insert(0, Mark(bytes(32), last, there=True))
    kept.journal.rewrite(marks)


def _last_serial(entries: Iterable[Mark | Difference]) -> int | None:
    """The newest that was served."""
    last = None
    for entry in entries:
        serial = entry.serial if isinstance(entry, Mark) else entry.new_serial
        if last is None or is_newer(serial, last):
            last = serial
    return last
