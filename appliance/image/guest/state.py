"""The state disk: what must outlive the machine, in a plain and checked layout.

An ext4 file system labelled `appliance-state`, made by `appliance run --state` with the keys in it,
or by the first boot on an empty disk, holding LAYOUT (one line, the layout's number) and below it
what the parts keep, each in a folder of its own: `tls/`, `dns/`, ... Each file there is written
anew beside the old one, synced and renamed, or only ever appended to and synced, by the part that
owns it; ext4's journal does the rest, so a power cut loses nothing that was acknowledged. Without a
state disk the same folders are in memory.

A disk is empty if its first and its last MB are all zero: whatever anybody keeps on disks leaves a
mark there. It gets the template that the image brings along (image/state_disk.py), and the file
system grows to its disk whenever that is larger. A power cut while it is formatted leaves a mark of
our own, so the next boot begins again. Any other disk is refused: it belongs to somebody else.

Writes are acknowledged when the kernel's barriers have reached the disk, which QEMU's cache=none
and libvirt's pass on to the host's. Imports the standard library and `appliance.files`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import BinaryIO, Final

from appliance import files
from appliance.app import StartError
from appliance.image.guest import machine

PLACE: Final = "/state"
LABEL: Final = b"appliance-state"
LAYOUT: Final = "1"
WAIT: Final = 5.0
"""Seconds for a disk to appear: some buses are slow to find theirs."""
TEMPLATE: Final = "/usr/state.ext4"
EDGE: Final = 1 << 20
"""Octets at either end of an empty disk that are zero: partition tables, RAID, ZFS, LUKS and all
file systems write there."""
FORMATTING: Final = b"appliance-state is being formatted\n".ljust(512, b"\0")
"""The first sector of a disk that is half formatted; ext4 leaves it to boot loaders."""
BLOCK: Final = 4096
"""Octets of the file system's blocks (image/state_disk.py)."""
EXT4_IOC_RESIZE_FS, EXT4_IOC_SETFSUUID = 0x40086610, 0x4008662C
"""linux/fs/ext4/ext4.h."""
_BLOCKS: Final = 4
_SUPERBLOCK: Final = 1024
_MAGIC: Final = (_SUPERBLOCK + 56, b"\x53\xef")
_LABEL: Final = (_SUPERBLOCK + 120, 16)
"""Where ext4 has its magic number and its label (linux/Documentation/filesystems/ext4)."""

_mounted: list[str] = []
"""The device, while it is mounted."""


def mount(device: str) -> None:
    """Mount the state disk, if it is one; raises StartError, which says why not."""
    if _mounted:
        return
    machine.mount_kernel()
    machine.load_modules("later")
    fresh = not look_at(device)
    if fresh:
        format_disk(device)
    try:
        flags = machine.MS_NOSUID | machine.MS_NODEV | machine.MS_NOEXEC
        machine.mount(device, PLACE, "ext4", flags, "errors=remount-ro,data=ordered")
    except OSError as error:
        raise StartError(f"{device}: {error.strerror or error}") from error
    _mounted.append(device)
    grow(device, PLACE, fresh)
    check_layout(PLACE)


def look_at(device: str) -> bool:
    """Whether a device holds a file system of ours, or is empty; StartError if it is neither."""
    until = time.monotonic() + WAIT
    while not os.path.exists(device) and time.monotonic() < until:
        time.sleep(0.05)
    try:
        with open(device, "rb") as disk:
            head = disk.read(_LABEL[0] + _LABEL[1])
    except OSError as error:
        raise StartError(f"no state disk at {device}: {error.strerror}") from error
    at, magic = _MAGIC
    if head.startswith(FORMATTING):
        return False
    if head[at : at + 2] != magic:
        if is_empty(device):
            return False
        raise StartError(
            f"{device} is no state disk and not empty, so it is not ours; to give it to the "
            "appliance, write zeros over its first and its last MB"
        )
    label = head[_LABEL[0] :].rstrip(b"\0")
    if label != LABEL:
        raise StartError(
            f"{device} is labelled {label.decode(errors='replace')!r}, so it is not ours"
        )
    return True


def is_empty(device: str) -> bool:
    """Whether both ends of a disk are zero; OSError."""
    with open(device, "rb") as disk:
        size = disk.seek(0, os.SEEK_END)
        for at in (0, max(0, size - EDGE)):
            disk.seek(at)
            if any(disk.read(EDGE)):
                return False
    return True


def format_disk(device: str, template: str = TEMPLATE) -> None:
    """Lay the template onto an empty disk; raises StartError.

    The superblock comes last and our mark first, so it is a state disk, or half of one, or empty.
    """
    if template == TEMPLATE:
        machine.mount_cold()
    try:
        with open(template, "rb") as source, open(device, "r+b", buffering=0) as disk:
            size, room = source.seek(0, os.SEEK_END), disk.seek(0, os.SEEK_END)
            if room < size:
                raise StartError(
                    f"{device} is too small: a state disk has at least {size >> 20} MB"
                )
            machine.say(f"init: {device} is empty; formatting it as a state disk")
            _put(disk, 0, FORMATTING)
            for at in range(BLOCK, size, EDGE):
                source.seek(at)
                _put(disk, at, source.read(min(EDGE, size - at)), wait=False)
            os.fsync(disk.fileno())
            source.seek(_SUPERBLOCK)
            _put(disk, _SUPERBLOCK, source.read(BLOCK - _SUPERBLOCK))
            _put(disk, 0, bytes(len(FORMATTING)))
    except OSError as error:
        raise StartError(f"{device}: {error.strerror}") from error


def _put(disk: BinaryIO, at: int, data: bytes, *, wait: bool = True) -> None:
    """Write at a place, and wait for the disk."""
    disk.seek(at)
    view = memoryview(data)
    while view:
        view = view[disk.write(view) :]
    if wait:
        os.fsync(disk.fileno())


def grow(device: str, place: str, fresh: bool) -> None:
    """Let the mounted file system have all of its disk, and a fresh one an identifier of its own.

    Neither is needed for it to work, so what the kernel refuses is said and no more.
    """
    import fcntl
    import struct

    with open(device, "rb") as disk:
        room = disk.seek(0, os.SEEK_END) // BLOCK
        disk.seek(_SUPERBLOCK + _BLOCKS)
        (has,) = struct.unpack("<I", disk.read(4))
        disk.seek(_SUPERBLOCK + 24)
        same = disk.read(4) == struct.pack("<I", 2)  # 1024 << 2: blocks of 4096 octets
    top = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if fresh:
            own = struct.pack("II", 16, 0) + os.urandom(16)
            fcntl.ioctl(top, EXT4_IOC_SETFSUUID, own)
        if same and room > has:
            fcntl.ioctl(top, EXT4_IOC_RESIZE_FS, struct.pack("Q", room))
    except OSError as error:
        machine.say(f"init: {device} stays as large as it is: {error.strerror}")
    finally:
        os.close(top)


def check_layout(place: str) -> None:
    """Write the layout's number onto a new disk; raises StartError for one of another layout."""
    mark = os.path.join(place, "LAYOUT")
    try:
        with open(mark, encoding="ascii") as file:
            found = file.read().strip()
    except FileNotFoundError:
        # The power may have been cut while it was written.
        if set(os.listdir(place)) - {"lost+found", files.place_beside(Path(mark)).name}:
            raise StartError(f"{place} holds files but no LAYOUT, so it is not ours") from None
        files.write_whole(Path(mark), f"{LAYOUT}\n".encode(), mode=0o600)
        return
    if found != LAYOUT:
        raise StartError(f"{place} has layout {found}; this image knows {LAYOUT}")


def unmount() -> None:
    """Take the disk off, so that the next boot has no journal to replay."""
    if _mounted:
        _mounted.clear()
        machine.unmount(PLACE)
