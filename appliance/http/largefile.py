"""Files too large to be kept in memory: they stay on disk, and are read as the peer takes them.

A slice is read with one `pread` into octets that nobody changes any more, so it goes down to the
interface without another copy, and a file that is truncated in place costs a download and not, as
touching a lost page of a memory map would (SIGBUS), the process.  Whether a read would wait for
the disk is asked first (RWF_NOWAIT); if so it belongs into a thread, and the loop goes on.  What
was loaded is told from what lies there now by device, inode, size and times, before each slice.
Imports the standard library only.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Octets read at a time: a few frames of 64 KB, and 100 µs of copying.
SLICE = 256 * 1024


class ChangedError(OSError):
    """A file that is no longer the one whose validators were promised."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one state of a file from another."""

    device: int
    inode: int
    size: int  # octets
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Take the identity out of what `stat` said."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Opened:
    """An open file, shared by those who download it at the same time; closed with the last."""

    __slots__ = ("__weakref__", "_nowait", "_probe", "descriptor", "identity", "path")

    def __init__(self, path: str, identity: Identity) -> None:
        """Open a file; raises ChangedError when it is not what was loaded, else as open does."""
        self.path = path
        self.identity = identity
        self._nowait = hasattr(os, "RWF_NOWAIT")
        self._probe = bytearray(1)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._check()

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def _check(self) -> None:
        if Identity.of(os.fstat(self.descriptor)) != self.identity:
            raise ChangedError(f"{self.path}: changed since the site was loaded")

    def at_hand(self, start: int, stop: int) -> bool:
        """Say whether octets [start, stop) can be read without waiting for the disk.

        Both ends are looked at: the kernel reads ahead in runs longer than a slice.
        """
        if self._nowait:
            try:
                # preadv2(2): with RWF_NOWAIT, EAGAIN instead of a wait.
                for offset in (start, stop - 1):
                    os.preadv(self.descriptor, [self._probe], offset, os.RWF_NOWAIT)
            except BlockingIOError:
                return False
            except OSError:
                self._nowait = False  # this file system cannot say (EOPNOTSUPP)
        return True

    def read(self, start: int, stop: int) -> bytes:
        """Read octets [start, stop); raises ChangedError, or OSError from the disk."""
        octets = os.pread(self.descriptor, stop - start, start)
        self._check()
        if len(octets) != stop - start:
            raise ChangedError(f"{self.path}: cut short")
        return octets


class LargeFile:
    """A file on disk whose content was hashed at load."""

    __slots__ = ("_opened", "identity", "path")

    def __init__(self, path: str, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self._opened: weakref.ref[Opened] | None = None

    def __len__(self) -> int:
        return self.identity.size

    def open(self) -> Opened:
        """Open the file, or share what is open; raises OSError when it is not what was loaded."""
        opened = self._opened() if self._opened is not None else None
        if opened is None:
            opened = Opened(self.path, self.identity)
            self._opened = weakref.ref(opened)
        return opened


class FileSlice(NamedTuple):
    """Octets [start, stop) of a large file."""

    file: LargeFile
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class Stretch:
    """Octets of an open file that are still to be sent; `start` moves on as they are read."""

    __slots__ = ("file", "start", "stop")

    def __init__(self, file: Opened, start: int, stop: int) -> None:
        self.file = file
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def end(self) -> int:
        """Where the next slice of it ends."""
        return min(self.start + SLICE, self.stop)

    def at_hand(self) -> bool:
        """Say whether the next slice can be read without waiting."""
        return self.file.at_hand(self.start, self.end)

    def read(self) -> bytes:
        """Read the next slice and move on; raises OSError."""
        end = self.end
        octets = self.file.read(self.start, end)
        self.start = end
        return octets


def open_parts(
    parts: Sequence[bytes | memoryview | FileSlice],
) -> list[bytes | memoryview | Stretch]:
    """Open what the parts of an answer are to be read from; raises OSError like `open`."""
    return [
        Stretch(part.file.open(), part.start, part.stop) if isinstance(part, FileSlice) else part
        for part in parts
    ]
