"""Other people's zones on our disk, so that a restart does not have to ask for them.

    NAME.zone ────── a whole version, as a master file; its time says when it was last confirmed
    NAME.journal ─── the differences since, and some before, so that IXFR goes on from there too

A difference costs its own length. When those that the master file lacks have grown to half of it,
it is written anew. What is torn by a crash is an older version, which the primary brings up to
date: nobody was promised more.

No loop: whatever waits for the disk is called by a thread, one call at a time. Imports the leaves
of this package.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from appliance.dns import names
from appliance.dns.edit import apply
from appliance.dns.errors import LocalError
from appliance.dns.journal import LIMIT, Entry, Journal, Mark, replay, write_atomically
from appliance.dns.serial import Difference, condense
from appliance.dns.zone import Zone

LEAST: Final = 1 << 18
"""Octets that a journal may have, however small its zone."""
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

    __slots__ = ("_gone", "_journal", "_path", "_serial")

    def __init__(self, folder: Path, origin: bytes) -> None:
        """Nothing is read or written yet; `folder` is made when it is needed."""
        name = names.file_name(origin)
        self._path = folder / f"{name}.zone"
        self._journal = Journal(folder / f"{name}.journal")
        self._serial: int | None = None
        """The version from which a difference may go on; None if that is not known."""
        self._gone = False

    def load(self) -> Found | None:
        """What is there, if anything is.

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
        entries = self._entries()
        lacking, known = replay(entries, zone.digest, zone.serial)
        try:
            if not known:
                raise LocalError("somebody has edited it")
            zone = _forward(zone, lacking)
            changes = tuple(one for one in entries if isinstance(one, Difference))
        except LocalError:
            # As the file has it; the primary is asked for what is newer.
            changes = ()
            self._begin(zone.digest, zone.serial)
        self._serial = zone.serial
        zone.files = ()
        return Found(zone, status.st_mtime, changes)

    def save(self, zone: Zone, changes: Sequence[Difference] = ()) -> None:
        """Keep a version, which `changes`, if there are any, lead to; OSError."""
        fits = bool(changes) and changes[0].old_serial == self._serial
        self._serial = None
        try:
            follows = fits and self._append(changes)
            if follows and not self._journal.full:
                self.confirm()
            else:
                self._whole(zone, follows=follows)
            self._serial = zone.serial
        finally:
            if self._gone:
                self.forget()  # while it was being written

    def confirm(self) -> None:
        """A primary has nothing newer; OSError."""
        os.utime(self._path)

    def forget(self) -> None:
        """Nothing of it may come back; OSError."""
        self._gone = True
        for path in (self._path, self._journal.path):
            path.unlink(missing_ok=True)

    def _entries(self) -> list[Entry]:
        """The journal's; none of one that cannot be used."""
        try:
            return self._journal.open()
        except LocalError:
            self._journal.path.unlink()
            self._journal.close()
            return self._journal.open()
        finally:
            # Thousands of zones would need as many descriptors.
            self._journal.close()

    def _append(self, changes: Sequence[Difference]) -> bool:
        """Keep differences; False if the disk does not take them, or not so large ones."""
        journal = self._journal
        try:
            journal.open_again()
        except OSError:
            return False
        try:
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

        text = zone_text(zone, HEAD).encode()
        digest = hashlib.sha256(text).digest()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._journal.limit = _limit(len(text))
        # The mark comes first: whatever file a crash leaves, the journal does not mislead.
        if not follows:
            self._begin(digest, zone.serial)
            write_atomically(self._path, text)
            return
        self._journal.open_again()
        try:
            self._journal.append(Mark(digest, zone.serial))
            self._journal.sync()
            write_atomically(self._path, text)
            if self._journal.bulky:
                self._journal.compact()
        finally:
            self._journal.close()

    def _begin(self, digest: bytes, serial: int) -> None:
        """A journal of nothing but a file's mark."""
        self._entries()
        self._journal.open_again()
        try:
            self._journal.rewrite([Mark(digest, serial)])
        finally:
            self._journal.close()


def _limit(octets: int) -> int:
    """A journal's limit, half of which may be what the master file lacks."""
    return min(max(octets, LEAST), LIMIT)


def _forward(zone: Zone, changes: Sequence[Difference]) -> Zone:
    """The version that differences lead to; LocalError if they do not fit."""
    if not changes:
        return zone
    try:
        return apply(zone, condense(changes)).zone
    except LocalError:
        for change in changes:
            zone = apply(zone, change).zone
        return zone
