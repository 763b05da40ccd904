"""Files too large to be kept in memory: mapped while somebody downloads them.

A map costs no memory of ours and no copy; the price is that a file truncated *in place* while
mapped would take the process down with SIGBUS when the missing page is touched.  So the map is
made from a file whose identity still is what the loader saw, and `intact` is asked again before
each slice is queued; replace large files by renaming a new one over them.  Imports the standard
library only.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class View:
    """A mapped file, shared by those who download it at the same time."""

    __slots__ = ("__weakref__", "descriptor", "octets")

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.octets = memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))

    def __del__(self) -> None:
        os.close(self.descriptor)


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


class LargeFile:
    """A file on disk whose content was hashed at load."""

    __slots__ = ("_open", "identity", "path")

    def __init__(self, path: str, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self._open: weakref.ref[View] | None = None

    def __len__(self) -> int:
        return self.identity.size

    def open(self) -> View:
        """Map the file; raises OSError when it is gone or no longer what was loaded."""
        view = self._open() if self._open is not None else None
        if view is None:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            if Identity.of(os.fstat(descriptor)) != self.identity:
                os.close(descriptor)
                raise OSError(f"{self.path}: changed since the site was loaded")
            view = View(descriptor, self.identity.size)
            self._open = weakref.ref(view)
        return view


class Mapped(NamedTuple):
    """A large file and its map, for as long as an answer is being sent from it."""

    file: LargeFile
    view: View

    @property
    def intact(self) -> bool:
        """Whether the file still has the octets that were promised."""
        return os.fstat(self.view.descriptor).st_size >= self.file.identity.size


class FileSlice(NamedTuple):
    """Octets [start, stop) of a large file."""

    file: LargeFile
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def open_parts(
    parts: Sequence[bytes | memoryview | FileSlice],
) -> tuple[list[bytes | memoryview], Mapped | None]:
    """Turn the parts of an answer into octets at hand; raises OSError like `open`."""
    found: list[bytes | memoryview] = []
    mapped: Mapped | None = None
    for part in parts:
        if isinstance(part, FileSlice):
            view = part.file.open()
            mapped = Mapped(part.file, view)
            found.append(view.octets[part.start : part.stop])
        else:
            found.append(part)
    return found, mapped
