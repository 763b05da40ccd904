"""The differences of a zone on disk: what an acknowledged change survives a crash by.

A journal is one file of entries, each with its length and a checksum, written at the end and never
changed. An entry is a difference between two versions, or a *mark*: "a master file with this hash
is version so-and-so". After a crash the file is read up to the last whole entry: what lies behind
was never acknowledged. From the version that the master file's hash stands for, the differences
that follow lead to the last version that anybody was told of.

A file that is to be written is marked before and after: whatever a crash leaves of it, the journal
knows it, and what comes to nothing (a disk that is full, one file of several) makes nobody believe
that the file has what it lacks.

The same differences are what IXFR hands out. A journal is bounded: beyond `limit` octets the older
half is left out, but never what the master file does not have yet.

Does file I/O, no waiting: `sync` is apart, so that another thread can wait for the disk. Imports
`errors`, `names`, `serial`, and `appliance.files`.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from appliance import files
from appliance.dns import names
from appliance.dns.errors import LocalError, WireError
from appliance.dns.serial import Difference, Record

MAGIC: Final = b"appliance journal 1\n"
LIMIT: Final = 32 << 20
"""Octets of a journal: some hundred thousand changed records."""
DIFFERENCE: Final = 1
MARK: Final = 2

_ENTRY: Final = Struct("!IIB")
"""Octets of the payload, CRC-32 of kind and payload, kind."""
_FIXED: Final = Struct("!HIH")
"""Type, TTL, octets of rdata."""
_COUNT: Final = Struct("!I")
_THERE: Final = b"\1"
"""What a mark ends with behind its hash if the file was there."""
_HASH: Final = 32
"""Octets of a hash."""
MAX_ENTRY: Final = 1 << 30
"""Octets of one difference at most."""


class Mark(NamedTuple):
    """The master file with this SHA-256 holds this version."""

    digest: bytes
    serial: int
    there: bool = False
    """It was there, whole: read, or written. Otherwise it was about to be written."""


Entry = Difference | Mark


def encode(entry: Entry) -> bytes:
    """An entry as it stands in the file."""
    if isinstance(entry, Mark):
        kind, payload = MARK, _COUNT.pack(entry.serial) + entry.digest
        payload += _THERE if entry.there else b""
    else:
        kind = DIFFERENCE
        payload = b"".join(
            (
                _record(entry.old),
                _record(entry.new),
                _COUNT.pack(len(entry.removed)),
                *map(_record, entry.removed),
                _COUNT.pack(len(entry.added)),
                *map(_record, entry.added),
            )
        )
    return _ENTRY.pack(len(payload), _checksum(kind, payload), kind) + payload


def _checksum(kind: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(bytes((kind,))))


def _record(record: Record) -> bytes:
    owner, rtype, ttl, rdata = record
    return owner + _FIXED.pack(rtype, ttl, len(rdata)) + rdata


def _read_record(data: bytes, at: int) -> tuple[Record, int]:
    end = names.end_of(data, at)
    rtype, ttl, length = _FIXED.unpack_from(data, end)
    start = end + _FIXED.size
    return (data[at:end], rtype, ttl, data[start : start + length]), start + length


def _read_records(data: bytes, at: int) -> tuple[tuple[Record, ...], int]:
    (count,) = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    found: list[Record] = []
    for _ in range(count):
        record, at = _read_record(data, at)
        found.append(record)
    return tuple(found), at


def _decode(kind: int, payload: bytes) -> Entry:
    if kind == MARK:
        end = _COUNT.size + _HASH
        return Mark(
            payload[_COUNT.size : end], _COUNT.unpack_from(payload)[0], payload[end:] == _THERE
        )
    if kind != DIFFERENCE:
        raise WireError("an entry of unknown kind")
    old, at = _read_record(payload, 0)
    new, at = _read_record(payload, at)
    removed, at = _read_records(payload, at)
    added, _ = _read_records(payload, at)
    return Difference(old, new, removed, added)


def decode(data: bytes) -> tuple[list[Entry], int]:
    """The whole entries of a file's octets, and where they end; LocalError if it is no journal."""
    if not data.startswith(MAGIC):
        raise LocalError("not a journal of this program")
    at = len(MAGIC)
    found: list[Entry] = []
    while at + _ENTRY.size <= len(data):
        length, checksum, kind = _ENTRY.unpack_from(data, at)
        start = at + _ENTRY.size
        payload = data[start : start + length]
        if len(payload) < length or _checksum(kind, payload) != checksum:
            break
        try:
            found.append(_decode(kind, payload))
        except (WireError, ValueError, IndexError):
            break
        at = start + length
    return found, at


class Journal:
    """One zone's journal, open for writing."""

    __slots__ = ("_planned", "_since", "_size", "_unmarked", "descriptor", "limit", "path", "torn")

    def __init__(self, path: Path, *, limit: int = LIMIT) -> None:
        """`open` makes or reads the file; `limit` in octets."""
        self.path = path
        self.descriptor = -1
        self.torn = 0
        """Octets of a torn entry that `open` cut off."""
        self.limit = limit
        self._size = 0
        self._unmarked = 0
        """Octets of differences that no file has which was there."""
        self._planned = b""
        """The hash of a file that is being written."""
        self._since = 0
        """Octets of differences that it will lack."""

    def open(self) -> list[Entry]:
        """Read the entries and open the file for more; OSError, LocalError if it is no journal."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(self.descriptor, "rb", closefd=False) as file:
            data = file.read()
        if len(data) < len(MAGIC) and MAGIC.startswith(data):
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, MAGIC, 0)
            os.fsync(self.descriptor)
            files.sync_folder(self.path.parent)
            data = MAGIC
        entries, end = decode(data)
        self.torn = len(data) - end
        if self.torn:
            os.ftruncate(self.descriptor, end)
        self._size = end
        self._unmarked = sum(len(encode(one)) for one in _unmarked(entries))
        self._planned = b""
        return entries

    def open_again(self) -> None:
        """Open the file for more after `close`, unread; OSError, also if it is not what it was."""
        if self.descriptor < 0:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            if not self._size or os.fstat(self.descriptor).st_size != self._size:
                self.close()
                raise OSError("somebody has changed it")

    @property
    def ahead(self) -> bool:
        """True if it has what the master file has not got."""
        return self._unmarked > 0

    @property
    def full(self) -> bool:
        """True if what the master file has not got takes half the journal: write it back."""
        return self._unmarked > self.limit // 2

    @property
    def bulky(self) -> bool:
        """True if it is beyond its limit: have it `compact`ed."""
        return self._size > self.limit

    def append(self, entry: Entry) -> None:
        """Write an entry, which is on the disk after `sync`; OSError leaves the file as it was."""
        data = encode(entry)
        if len(data) > MAX_ENTRY:
            raise OSError("the difference is too large for a journal")
        at = self._size
        try:
            rest = memoryview(data)
            while rest:
                written = os.pwrite(self.descriptor, rest, at)
                rest = rest[written:]
                at += written
        except OSError:
            self.truncate(self._size)
            raise
        self._size = at
        if isinstance(entry, Difference):
            self._unmarked += len(data)
            self._since += len(data)
        elif entry.there:
            self._unmarked = self._since if entry.digest == self._planned else 0
            self._planned = b""
        else:
            self._planned, self._since = entry.digest, 0

    @property
    def size(self) -> int:
        """Octets; what `truncate` goes back to."""
        return self._size

    def truncate(self, size: int) -> None:
        """Take back entries that were not synced."""
        os.ftruncate(self.descriptor, size)
        self._unmarked = max(self._unmarked - (self._size - size), 0)
        self._since = max(self._since - (self._size - size), 0)
        self._size = size

    def sync(self) -> None:
        """Wait until everything appended is on the disk."""
        os.fdatasync(self.descriptor)

    def rewrite(self, entries: Iterable[Entry]) -> None:
        """Put other entries in place of all, in one step that a crash cannot halve."""
        entries = list(entries)
        data = MAGIC + b"".join(map(encode, entries))
        with files.beside(self.path) as file:
            file.write(data)
            files.put(file, self.path, mode=0o600)
            descriptor = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 0)
        # The other file is no journal any more, whatever comes of what follows.
        self.close()
        self.descriptor = descriptor
        self._size = len(data)
        self._unmarked = sum(len(encode(one)) for one in _unmarked(entries))
        self._planned = b""
        files.sync_folder(self.path.parent)

    def entries(self) -> list[Entry]:
        """All entries."""
        with open(self.path, "rb") as file:
            return decode(file.read())[0]

    def unmarked(self) -> list[Difference]:
        """The differences that no file has which was there."""
        return _unmarked(self.entries())

    def compact(self) -> None:
        """Leave out the older half, but nothing that the master file lacks."""
        entries = self.entries()
        last = _last_there(entries)
        if last >= 0 and (lacking := _lacking(entries, last)):
            last = min(last, entries.index(lacking[0]))
        keep: list[Entry] = []
        room = self.limit // 2
        for number in range(len(entries) - 1, -1, -1):
            room -= len(encode(entries[number]))
            if room < 0 and number < last:
                break
            keep.append(entries[number])
        self.rewrite(reversed(keep))

    def close(self) -> None:
        """Let go of the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _last_there(entries: list[Entry]) -> int:
    """Where the last mark stands of a file that was there; -1 if there is none."""
    return max(
        (n for n, one in enumerate(entries) if isinstance(one, Mark) and one.there), default=-1
    )


def _unmarked(entries: list[Entry]) -> list[Difference]:
    """The differences that no file has which was there."""
    last = _last_there(entries)
    if last < 0:
        return [one for one in entries if isinstance(one, Difference)]
    return _lacking(entries, last)


def _lacking(entries: list[Entry], number: int) -> list[Difference]:
    """The differences that lead on from the version of the mark that stands there."""
    mark = entries[number]
    assert isinstance(mark, Mark)
    before = [one for one in entries[:number] if isinstance(one, Difference)]
    after = [one for one in entries[number:] if isinstance(one, Difference)]
    # A mark may stand behind differences that its file lacks: they came while it was written.
    # Serials come round (RFC 1982), so the last one from there is meant.
    if before and before[-1].new_serial != mark.serial:
        since = [n for n, one in enumerate(before) if one.old_serial == mark.serial]
        if since:
            return before[since[-1] :] + after
    from_it = [n for n, one in enumerate(after) if one.old_serial == mark.serial]
    return after[from_it[0] :] if from_it else []


def replay(entries: list[Entry], digest: bytes) -> tuple[list[Difference], bool]:
    """What a master file with this hash lacks, and whether the journal knows the file.

    If it does not, the differences are given that no file has which was there. It does not know
    files that somebody has edited, nor an older one that somebody has put back, nor what a crash
    has left of several files.
    """
    known = max(
        (n for n, one in enumerate(entries) if isinstance(one, Mark) and one.digest == digest),
        default=-1,
    )
    if known < 0 or any(
        isinstance(one, Mark) and one.there and one.digest != digest for one in entries[known:]
    ):
        return _unmarked(entries), False
    return _lacking(entries, known), True
