"""Other people's zones on our disk, so that a restart does not depend on their primaries.

    NAME.zone ────── a whole version, as a master file; its time says when it was last confirmed
    NAME.journal ─── the differences since, and some before, so that IXFR goes on from there too

A difference costs its own length. When those that the master file lacks have grown to half of it,
it is written anew. What is torn by a crash is an older version, which the primary brings up to
date: nobody was promised more.

No loop: whatever waits for the disk is called by a thread, one call at a time for all copies of one
name; `forget` at any time. Imports the leaves of this package.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Final, NamedTuple

from appliance.dns import names
from appliance.dns.edit import apply_all
from appliance.dns.errors import LocalError
from appliance.dns.journal import LIMIT, MAGIC, Entry, Journal, Mark, replay
from appliance.dns.serial import Difference
from appliance.dns.zone import Zone
from appliance.files import discard, write_whole

LEAST: Final = 1 << 18
"""Octets that a journal may have, however small its zone."""
RECORD: Final = 32
"""Octets of a record in a journal, few rather than many."""
HEAD: Final = "Written by the appliance, as it came from the primary."


class Found(NamedTuple):
    """What a disk had."""

    zone: Zone
    confirmed: float
    """Seconds since the epoch: when a primary last had nothing newer."""
    changes: tuple[Difference, ...]
    """What led to this version, oldest first; for IXFR."""


class Copy:
    """One zone's files."""

    __slots__ = ("_gone", "_journal", "_path", "_serial", "problem")

    def __init__(self, folder: Path, origin: bytes) -> None:
        """Nothing is read or written yet; `folder` is made when it is needed."""
        name = names.file_name(origin)
        self._path = folder / f"{name}.zone"
        self._journal = Journal(folder / f"{name}.journal")
        self._serial: int | None = None
        """The version from which a difference may go on; None if that is not known."""
        self._gone = Event()
        self.problem = ""
        """Why the disk did not take it last; for whoever tells people, and once is enough."""

    def load(self) -> Found | None:
        """What is there, if anything is; a disk that takes nothing is read all the same.

        Raises:
            OSError: the disk fails.
            ZoneError: the master file cannot be read.
        """
        from appliance.dns.zonefile import read_file

        if not self._path.exists():
            return None
        status = self._path.stat()
        zone = read_file(self._path, judge=False)
        self._journal.limit = _limit(status.st_size)
        entries, usable = self._entries()
        lacking, known = replay(entries, zone.digest)
        try:
            if not known:
                raise LocalError("somebody has edited it")
            zone = apply_all(zone, lacking).zone
        except LocalError:
            # As the file has it; the primary is asked for what is newer.
            entries = []
            usable = self._begin(Mark(zone.digest, zone.serial, there=True))
        self._serial = zone.serial if usable else None
        zone.files = ()
        return Found(zone, status.st_mtime, _leading_to(zone.serial, entries))

    def save(self, zone: Zone, changes: Sequence[Difference] = ()) -> None:
        """Keep a version, which `changes`, if there are any, lead to; OSError."""
        if self._gone.is_set():
            return
        fits = bool(changes) and changes[0].old_serial == self._serial and self._holds(changes)
        self._serial = None
        try:
            follows = fits and self._append(changes)
            if follows and not self._journal.full and self._path.exists():
                os.utime(self._path)
            else:
                self._whole(zone, follows=follows)
            self._serial = zone.serial
        finally:
            if self._gone.is_set():
                self.forget()  # while it was being written

    def confirm(self, serial: int) -> bool:
        """A primary has nothing newer; False if the disk has not got that version. OSError."""
        if self._serial != serial:
            return False
        os.utime(self._path)
        return True

    def forget(self) -> None:
        """Nothing of it may come back; OSError."""
        self._gone.set()
        for path in (self._path, self._journal.path):
            discard(path)
            path.unlink(missing_ok=True)

    def _entries(self) -> tuple[list[Entry], bool]:
        """The journal's, none of one that cannot be used; and whether it takes more."""
        try:
            return self._open(), True
        except OSError:
            pass
        finally:
            # Thousands of zones would need as many descriptors.
            self._journal.close()
        try:
            return self._journal.entries(), False
        except (OSError, LocalError):
            return [], False

    def _open(self) -> list[Entry]:
        """Open the journal, or another if it is none; OSError."""
        try:
            return self._journal.open()
        except LocalError:
            self._journal.path.unlink()
            self._journal.close()
            return self._journal.open()

    def _holds(self, changes: Sequence[Difference]) -> bool:
        """False for more than a journal keeps: written and read again, they would be left out."""
        records = sum(len(one.removed) + len(one.added) for one in changes)
        return records * RECORD <= self._journal.limit

    def _append(self, changes: Sequence[Difference]) -> bool:
        """Keep differences; False if the disk does not take them, or not so large ones."""
        journal = self._journal
        try:
            journal.open_again()
            for change in changes:
                journal.append(change)
            journal.sync()
        except OSError:
            return False
        finally:
            journal.close()
        return True

    def _whole(self, zone: Zone, *, follows: bool) -> None:
        """Write the master file; `follows`: the journal leads to this version."""
        from appliance.dns.writer import zone_text

        journal = self._journal
        try:
            journal.open_again()
        except OSError:
            journal.close()
            self._open()
        try:
            text = zone_text(zone, HEAD).encode()
            mark, before = Mark(hashlib.sha256(text).digest(), zone.serial), journal.size
            journal.limit = _limit(len(text))
            # A mark comes first: whatever file a crash leaves, the journal knows it.
            journal.append(mark)
            journal.sync()
            write_whole(self._path, text)
            mark = mark._replace(there=True)
            if not follows and before > len(MAGIC):
                journal.rewrite([mark])
                return
            journal.append(mark)
            if journal.bulky:
                journal.compact()
        finally:
            journal.close()

    def _begin(self, mark: Mark) -> bool:
        """A journal of nothing but a file's mark; False if the disk does not take it."""
        try:
            self._journal.rewrite([mark])
        except OSError:
            return False
        finally:
            self._journal.close()
        return True


def _limit(octets: int) -> int:
    """A journal's limit, half of which may be what the master file lacks."""
    return min(max(octets, LEAST), LIMIT)


def _leading_to(serial: int, entries: Sequence[Entry]) -> tuple[Difference, ...]:
    """A journal's differences, if the last of them leads to a version."""
    found = tuple(one for one in entries if isinstance(one, Difference))
    return found if found and found[-1].new_serial == serial else ()
