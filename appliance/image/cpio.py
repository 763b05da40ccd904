"""An initramfs: files as a cpio archive in the new ASCII format, the same octets for the same
files.

The format is Linux's `Documentation/driver-api/early-userspace/buffer-format.rst`. Everything
belongs to root, has no time, and is in the order of names. Device nodes need no privilege here:
they are just entries. Imports the standard library.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

NODES: Final[Mapping[str, tuple[int, int]]] = {
    "dev/console": (5, 1),
    "dev/null": (1, 3),
    "dev/urandom": (1, 9),
}
"""Character devices that Python wants before anything is mounted (Linux's devices.txt)."""


def write_cpio(top: Path, file: BinaryIO, nodes: Mapping[str, tuple[int, int]] = NODES) -> None:
    """Write everything below `top`, and `nodes`, to `file`."""
    number = 0
    for number, (name, mode, content, device) in enumerate(_entries(top, nodes), 1):
        _write(file, name, number, mode, content, device)
    _write(file, "TRAILER!!!", 0, 0, b"", (0, 0))
    file.write(bytes(-file.tell() % 512))
    del number


def _entries(
    top: Path, nodes: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, int, bytes, tuple[int, int]]]:
    names = {str(path.relative_to(top)) for path in top.rglob("*")} | set(nodes)
    names |= {parent for name in nodes for parent in [os.path.dirname(name)]}
    for name in sorted(names):
        path = top / name
        if name in nodes:
            yield name, stat.S_IFCHR | 0o600, b"", nodes[name]
        elif path.is_symlink():
            yield name, stat.S_IFLNK | 0o777, os.readlink(path).encode(), (0, 0)
        elif path.is_file():
            executable = 0o755 if path.stat().st_mode & 0o100 else 0o644
            yield name, stat.S_IFREG | executable, path.read_bytes(), (0, 0)
        else:
            yield name, stat.S_IFDIR | 0o755, b"", (0, 0)


def _write(
    file: BinaryIO, name: str, number: int, mode: int, content: bytes, device: tuple[int, int]
) -> None:
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    file.write(head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4))
