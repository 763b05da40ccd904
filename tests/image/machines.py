"""Virtual machines for tests: an image is built once for all of them, and started under QEMU.

Emulated (TCG), since every machine can do that; reached through QEMU's user-mode network, which
needs no privilege. Skips with the reason where a program is missing; on CI that is a failure.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest

from appliance.image import qemu
from tests.dns import crash
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
"""Seconds for a machine to serve; emulated on a busy host it takes ten, and 128 MB more."""
PORTS = (("tcp", 80), ("udp", 53), ("tcp", 53), ("tcp", 443))
"""What is reached of a machine: protocol and port."""
SETTINGS = """
[[dns.key]]
name = "upd.example"
file = "keys/update.key"

[[dns.update]]
key = "upd.example"
zones = ["crash.test"]
names = ["*"]
"""
"""Beside openmirage.org's: a zone that tests change."""
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86", "mksquashfs": "squashfs-tools", "mke2fs": "e2fsprogs",
    "ldd": "libc-bin", "strip": "binutils", "dpkg-deb": "dpkg", "apt-get": "apt", "xz": "xz-utils",
}  # fmt: skip


def require() -> None:
    """Skip, or fail on CI, when a machine cannot be built or started."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    absent = [package for name, package in PROGRAMS.items() if not shutil.which(name, path=path)]
    if absent:
        told = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        told(f"needs a machine's tools: apt-get install {' '.join(absent)}")


def appliance(folder: Path, *words: str) -> str:
    """Run one of our commands in a project; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path, more: str = SETTINGS) -> Path:
    """Openmirage.org, configured and built; the folder of the image.

    `more` settings bring the zone that they speak of.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("site", "zones"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    changing = folder / "zones" / "crash.test.zone"
    changing.unlink(missing_ok=True)
    if more:
        changing.write_text(crash.ZONE)
    (folder / "appliance.toml").write_text((ROOT / "appliance.toml").read_text() + more)
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    (folder / "keys" / "update.key").write_text(crash.SECRET + "\n")
    (folder / "keys" / "update.key").chmod(0o600)
    appliance(folder, "configure", "--target", "qemu")
    appliance(folder, "build")
    return folder / "build" / "image" / "qemu"


def free_ports() -> tuple[tuple[str, int, int], ...]:
    """A free port of 127.0.0.1 for each of PORTS; one for both of DNS."""
    found = {inner: free_port() for _, inner in PORTS}
    return tuple((kind, found[inner], inner) for kind, inner in PORTS)


@dataclass
class Guest:
    """A machine that runs."""

    process: subprocess.Popen[bytes]
    log: Path
    ports: dict[int, int]
    """Ports of 127.0.0.1 by those of the machine."""

    def said(self) -> str:
        """What stands on its console."""
        return self.log.read_text(errors="replace")

    def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait until something holds; fails with the console's end."""
        limit = time.monotonic() + patience
        while not condition():
            assert self.process.poll() is None, self.said()[-3000:]
            assert time.monotonic() < limit, self.said()[-3000:]
            time.sleep(0.05)

    def until_said(self, words: str, patience: float = PATIENCE) -> None:
        """Wait for words on the console."""
        self.until(lambda: words in self.said(), patience)

    def page(self, path: str = "/") -> str:
        """A page over HTTP; empty when nobody answers."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.ports[80]}{path}", timeout=3
            ) as answer:
                found: str = answer.read().decode()
                return found
        except OSError:
            return ""

    def ask(self, name: str, kind: str = "A") -> set[str]:
        """What the name server says over UDP; empty when nobody answers."""
        try:
            answer = dns.query.udp(
                dns.message.make_query(name, kind), "127.0.0.1", port=self.ports[53], timeout=2
            )
        except (OSError, dns.exception.DNSException):
            return set()
        return {str(rdata) for rrset in answer.answer for rdata in rrset}

    def serves(self) -> bool:
        """Whether web and name server answer."""
        return "10.0.0.2" in self.ask("openmirage.org") and "openmirage" in self.page()

    def power_button(self) -> int:
        """Press it, by QEMU's monitor; the status of QEMU."""
        self.process.stdin.write(b"system_powerdown\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return self.process.wait(PATIENCE)

    def cut_power(self) -> None:
        """The end without a warning."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def guest(image: Path, folder: Path, **changes: Any) -> Iterator[Guest]:
    """A machine of an image; its power is cut at the end. `changes`: of `qemu.Machine`."""
    ports = () if changes.get("tap") else free_ports()
    machine = qemu.Machine(image=image, forwards=ports, **changes)
    words = qemu.command(machine)
    log = folder / "console.log"
    words[words.index("-serial") + 1] = f"file:{log}"
    log.write_bytes(b"")
    with (folder / "qemu.log").open("wb") as told:
        process = subprocess.Popen(
            [*words, "-monitor", "stdio"],
            stdin=subprocess.PIPE,
            stdout=told,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    made = Guest(process, log, {inner: port for _, port, inner in ports})
    try:
        yield made
    finally:
        if process.poll() is None:
            made.cut_power()
        assert process.stdin is not None
        process.stdin.close()
