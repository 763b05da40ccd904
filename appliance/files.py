"""Files that are replaced whole or not at all, whatever ends the process or the power meanwhile.

    .NAME.appliance-new ── locked, written, brought to the disk ── becomes NAME; so does its folder

What is written stands beside the file under a name that nobody else gives, and under a lock that
ends with the process. So what a process left that was killed is told from what another is about to
put into place: whoever writes next overwrites it, and `sweep` and `discard` remove it.

For whatever is kept: journals and zones, keys and certificates, locks and disks of images. For
every room above the stack. Imports the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

SUFFIX: Final = ".appliance-new"
NAME_MAX: Final = 255
"""Octets of a file's name (Linux)."""


def place_beside(path: Path) -> Path:
    """Where a file's new content is written; of a long name only the beginning is in it."""
    room = NAME_MAX - len(SUFFIX) - 1
    name = os.fsdecode(os.fsencode(path.name)[:room])
    return path.with_name(f".{name}{SUFFIX}")


@contextlib.contextmanager
def beside(path: Path, *, wait: bool = True) -> Iterator[BinaryIO]:
    """An empty file, for its owner alone, in which a file's new content is to be written.

    Others write to it by way of `place_beside`. `put` makes it the file; else it is gone in the
    end. Raises OSError, which names `path`; BlockingIOError if another process is writing the same
    file and it is not to be waited for.
    """
    place = place_beside(path)
    try:
        file = _locked(place, wait)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        with file:
            try:
                os.ftruncate(file.fileno(), 0)  # what somebody left who was killed
                yield file
            finally:
                if _stands_at(file.fileno(), place):
                    os.unlink(place)
                with contextlib.suppress(OSError):
                    fcntl.flock(file.fileno(), fcntl.LOCK_UN)  # should it live on by another number
    except OSError as error:
        if error.filename == str(place):
            error.filename = str(path)
        raise


def put(file: BinaryIO, path: Path, *, mode: int | None = None, durable: bool = True) -> None:
    """Make what was written beside a file the file; OSError.

    If it is `durable`, it is on the disk, and `sync_folder` sees that its name is. It gets `mode`,
    or else what the one before has, and its owner and group where we may; 644 without one. A
    symbolic link stays one only if `beside` was given what it leads to.
    """
    descriptor = file.fileno()
    file.flush()
    before: os.stat_result | None = None
    with contextlib.suppress(FileNotFoundError):
        before = os.stat(path)
    if before is not None:
        for owner, group in ((-1, before.st_gid), (before.st_uid, -1)):
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, owner, group)
    if mode is None:
        mode = 0o644 if before is None else stat.S_IMODE(before.st_mode)
    os.fchmod(descriptor, mode)
    if durable:
        os.fsync(descriptor)
    os.replace(place_beside(path), path)


def write_whole(path: Path, data: bytes, *, mode: int | None = None, durable: bool = True) -> None:
    """Replace a file, or what a symbolic link leads to, so that a crash leaves all or nothing.

    `mode` and `durable` as in `put`; OSError leaves what was there.
    """
    path = Path(os.path.realpath(path))
    with beside(path) as file:
        file.write(data)
        put(file, path, mode=mode, durable=durable)
    if durable:
        sync_folder(path.parent)


def discard(path: Path) -> None:
    """Remove what was left beside a file by a process that was killed; never fails."""
    _remove(place_beside(path))


def sweep(folder: Path) -> None:
    """Remove all that was left in a folder by processes that were killed; never fails."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(".") and name.endswith(SUFFIX):
                _remove(folder / name)


def sync_folder(folder: Path) -> None:
    """Bring names to the disk: without it a power cut can take a rename back (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(place: Path, wait: bool) -> BinaryIO:
    """The file there, made if it is not, and under our lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        descriptor = os.open(place, flags, 0o600)
        try:
            _lock(descriptor, wait)
            if _stands_at(descriptor, place):
                return open(descriptor, "r+b")
        except BaseException:
            os.close(descriptor)
            raise
        # Whoever had the lock has put it into place, or removed it.
        os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> None:
    """flock(2), where the file system has it; BlockingIOError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return  # some have none: then two who write the same file are not kept apart


def _stands_at(descriptor: int, place: Path) -> bool:
    try:
        there = os.stat(place, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _remove(place: Path) -> None:
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # not there, or not ours
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and _stands_at(descriptor, place):
                os.unlink(place)
    finally:
        os.close(descriptor)
