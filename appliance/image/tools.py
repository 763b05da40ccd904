"""Other people's programs: run, or missed by name with the Debian package that brings each.

Imports the standard library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

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

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What interrupts a command."""
GRACE: Final = 5.0
"""Seconds that an interrupted program has for taking away what it has half written."""


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
    with contextlib.ExitStack() as ends:
        with _undisturbed():
            program = ends.enter_context(
                subprocess.Popen(  # noqa: S603 - fixed programs, no shell
                    command,
                    cwd=cwd,
                    env=whole,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    process_group=0,
                )
            )
            ends.push(lambda kind, *_: _end(program) if kind else None)
        said, _ = program.communicate()
    if program.returncode:
        last = "\n".join(said.strip().splitlines()[-8:])
        raise BuildError(f"{Path(command[0]).name} failed ({program.returncode}):\n{last}")
    return said


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put signals off: between a program's start and our knowing it, nobody could end it."""
    late: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other one hears of signals
        for one in SIGNALS:
            if callable(signal.getsignal(one)):
                before[one] = signal.signal(one, lambda number, _: late.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in late:
            signal.raise_signal(number)


def _end(program: subprocess.Popen[str]) -> None:
    """End a program and all that it has started, which have a process group of their own.

    A make whose life is cut leaves the compilers and the further makes that it began.
    """
    try:
        os.killpg(program.pid, signal.SIGTERM)
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            program.poll()
            os.killpg(program.pid, 0)  # is anybody left?
            time.sleep(0.02)
    except ProcessLookupError:
        pass  # nobody is
    finally:  # also when somebody does not wish to wait for it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
