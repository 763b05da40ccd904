"""Other people's programs: run, or missed by name with the Debian package that brings each.

Imports the standard library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from appliance.image.graph import BuildError

PACKAGES: Final[Mapping[str, str]] = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "bc": "bc", "bison": "bison", "dpkg-deb": "dpkg", "flex": "flex",
    "gcc": "gcc", "ldd": "libc-bin", "ld": "binutils", "make": "make", "mcopy": "mtools",
    "mke2fs": "e2fsprogs", "mkfs.vfat": "dosfstools", "mksquashfs": "squashfs-tools",
    "mmd": "mtools", "objcopy": "binutils", "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86", "sgdisk": "gdisk", "strip": "binutils",
    "syslinux": "syslinux", "xz": "xz-utils",
}  # fmt: skip
"""The Debian package that brings a program."""
SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian has mke2fs and its kin, which is not on everybody's path."""


def find(program: str) -> str:
    """The path of a program; raises BuildError, which names the package, when it is missing."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")
    if found is None:
        package = PACKAGES.get(program, program)
        raise BuildError(f"{program} is needed; on Debian: apt-get install {package}")
    return found


def run(
    words: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end; returns what it printed.

    `env` is the whole environment besides PATH, HOME and the plain locale; raises BuildError with
    the program's last lines when it fails.
    """
    whole = {"PATH": f"{os.environ.get('PATH', os.defpath)}:{SBIN}", "LC_ALL": "C", "TZ": "UTC"}
    whole["HOME"] = os.environ.get("HOME", "/")
    whole |= env or {}
    command = [find(str(words[0])), *map(str, words[1:])]
    done = subprocess.run(  # noqa: S603 - fixed programs, no shell
        command,
        cwd=cwd,
        env=whole,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise BuildError(f"{Path(command[0]).name} failed ({done.returncode}):\n{last}")
    return done.stdout
