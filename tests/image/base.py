"""A base for containers: a small Debian with Python, made by debootstrap, as a tar archive.

    python3 -m tests.image.base

prints where the archive is, and makes it first if need be. It stands for the bases that the
Dockerfiles name, where no registry can be asked. The mirror, and the way to it, are those of this
machine's apt. The archive is kept in $XDG_CACHE_HOME/appliance for a week, by what it is made of.
Imports the standard library only, since .ci/run makes it before there is anything else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

SUITE: Final = "bookworm"
PACKAGES: Final = ("python3", "python3-venv", "libpython3-dev")
"""Besides Debian's minimum: what an image of Python has. Compiler and NSD are the builds' own."""
UNREAD: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists")
"""Left out, as Debian's own images for containers do."""
WEEK: Final = 7 * 86400.0
ROOM: Final = 2 << 30
"""Octets that the making takes at most, with half of them to spare."""
LIMIT: Final = 600.0
"""Seconds for debootstrap; it takes half a minute on an idle machine."""


def base() -> Path:
    """The archive, made if there is none that is a week young. Raises RuntimeError."""
    mirror, settings = _mirror(), _apt_settings()
    recipe = "\n".join((SUITE, *PACKAGES, *UNREAD, mirror, settings))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "appliance"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"base-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.tar"
    with (folder / "base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be making it
        for old in folder.glob("base-*.tar"):
            if old.stat().st_mtime < time.time() - WEEK:
                old.unlink()
        if not archive.exists():
            _make(archive, mirror, settings)
    return archive


def _make(archive: Path, mirror: str, settings: str) -> None:
    unfinished = archive.with_suffix(".unfinished")
    with tempfile.TemporaryDirectory(prefix="appliance-base-", dir=_place()) as folder:
        top = Path(folder) / "root"
        try:
            _run(
                *("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
                *(SUITE, str(top), mirror),
                env=_proxies(settings),
            )
        finally:  # what is mounted by one that was interrupted is not ours to remove
            for name in ("proc", "sys"):
                subprocess.run(["umount", "-q", top / name], stderr=subprocess.DEVNULL)
        (top / "etc/apt/apt.conf.d/90mirror").write_text(settings)
        for archived in (top / "var/cache/apt/archives").glob("*.deb"):
            archived.unlink()
        for name in UNREAD:
            shutil.rmtree(top / name)
            (top / name).mkdir()
        _run("tar", "-C", str(top), "--numeric-owner", "-cf", str(unfinished), ".")
    unfinished.replace(archive)


def _place() -> str | None:
    """A folder in memory, where dpkg waits for no disk, if there is room and devices work there."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < ROOM:
        return None
    return None if os.statvfs(memory).f_flag & (os.ST_NODEV | os.ST_NOEXEC) else str(memory)


def _mirror() -> str:
    """Where this machine's apt gets the suite from. Raises RuntimeError."""
    listed = _run(
        "apt-get", "indextargets", "--format", "$(RELEASE) $(CODENAME) $(COMPONENT) $(SITE)"
    )
    for line in listed.splitlines():
        *names, component, site = line.split()
        if SUITE in names and component == "main":
            return site
    raise RuntimeError(f"apt has no source for {SUITE} main")


def _apt_settings() -> str:
    """What apt is told about the way: proxies, and clocks that differ."""
    told = _run("apt-config", "dump").splitlines()
    wanted = re.compile(r'Acquire::(https?::Proxy|Check-|Languages|Retries)[^"]*"[^"]+";')
    return "".join(f"{line}\n" for line in told if wanted.match(line))


def _proxies(settings: str) -> dict[str, str]:
    """The same for debootstrap, which goes by wget; apt has "DIRECT" for none."""
    found = re.findall(r'^Acquire::(https?)::Proxy "(https?://[^"]+)"', settings, re.MULTILINE)
    return {f"{scheme}_proxy": proxy for scheme, proxy in found}


def _run(*words: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=LIMIT, env=(env or {}) | dict(os.environ)
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.stdout.write(f"{base()}\n")
