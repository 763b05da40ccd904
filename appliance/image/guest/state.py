"""The state disk: what must outlive the machine, in a plain and checked layout.

An ext4 file system labelled `appliance-state`, made by `appliance build` or by

    mke2fs -t ext4 -L appliance-state FILE 64M

holding LAYOUT (one line, the layout's number) and below it what the parts keep, each in a folder of
its own: `tls/`, `dns/`, ... Each file there is written anew beside the old one, synced and renamed,
or only ever appended to and synced, by the part that owns it; ext4's journal does the rest, so a
power cut loses nothing that was acknowledged. Without a state disk the same folders are in memory.

A disk of another label or layout is refused: it belongs to somebody else. Imports the standard
library.
"""

from __future__ import annotations

import os
import time
from typing import Final

from appliance.app import StartError
from appliance.image.guest import machine

PLACE: Final = "/state"
LABEL: Final = b"appliance-state"
LAYOUT: Final = "1"
WAIT: Final = 5.0
"""Seconds for a disk to appear: some buses are slow to find theirs."""
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
    look_at(device)
    try:
        flags = machine.MS_NOSUID | machine.MS_NODEV | machine.MS_NOEXEC
        machine.mount(device, PLACE, "ext4", flags, "errors=remount-ro,data=ordered")
    except OSError as error:
        raise StartError(f"{device}: {error.strerror or error}") from error
    _mounted.append(device)
    check_layout(PLACE)


def look_at(device: str) -> None:
    """Raise StartError unless a device holds a file system of ours."""
    until = time.monotonic() + WAIT
    while not os.path.exists(device) and time.monotonic() < until:
        time.sleep(0.05)
    try:
        with open(device, "rb") as disk:
            head = disk.read(_LABEL[0] + _LABEL[1])
    except OSError as error:
        raise StartError(f"no state disk at {device}: {error.strerror}") from error
    at, magic = _MAGIC
    if head[at : at + 2] != magic:
        raise StartError(f"{device} holds no ext4 file system: mke2fs -t ext4 -L {LABEL.decode()}")
    label = head[_LABEL[0] :].rstrip(b"\0")
    if label != LABEL:
        raise StartError(
            f"{device} is labelled {label.decode(errors='replace')!r}, so it is not ours"
        )


def check_layout(place: str) -> None:
    """Write the layout's number onto a new disk; raises StartError for one of another layout."""
    mark = os.path.join(place, "LAYOUT")
    try:
        with open(mark, encoding="ascii") as file:
            found = file.read().strip()
    except FileNotFoundError:
        if set(os.listdir(place)) - {"lost+found"}:
            raise StartError(f"{place} holds files but no LAYOUT, so it is not ours") from None
        write_whole(mark, f"{LAYOUT}\n".encode())
        return
    if found != LAYOUT:
        raise StartError(f"{place} has layout {found}; this image knows {LAYOUT}")


def write_whole(path: str, data: bytes) -> None:
    """Write a file so that after a power cut all of it is there or nothing."""
    fresh = f"{path}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(fresh, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def unmount() -> None:
    """Take the disk off, so that the next boot has no journal to replay."""
    if _mounted:
        _mounted.clear()
        machine.unmount(PLACE)
