"""Power cuts: QEMU is killed while updates are acknowledged and certificates are written.

    POWER_CUTS=100 python -m pytest tests/image/test_power.py -s

What was acknowledged is there after the next boot, and there is a next boot. Without POWER_CUTS
each test cuts once, which takes half a minute; a cut takes ten seconds more, emulated.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

import dns.asyncquery
import dns.exception
import dns.rcode
import dns.update
import pytest

from appliance.image.project import load
from appliance.image.state_disk import make_state
from tests.dns import crash
from tests.image import machines

CUTS = int(os.environ.get("POWER_CUTS", "1"))
FRESH = 4
"""Cuts that a disk sees; then comes a new one, so that first certificates are written often."""
LATEST = 8.0
"""Seconds from the first answer to a cut at most; what begins later begins meanwhile, emulated."""
AFTER = 2.0
"""Seconds from a certificate to a cut at most: less than what ext4 waits to write by itself, 5."""
CLIENTS = 4
WINDOW = 50
"""Records that updates leave at a name; the older ones are deleted again."""


class Witness:
    """What the machine has acknowledged."""

    def __init__(self) -> None:
        self.updates: list[int] = []
        self.number = 1000
        self.authority = ""
        """The local authority's certificate, once it was handed out."""
        self.serial = 0

    def check_zone(self, guest: machines.Guest) -> None:
        """Nothing acknowledged is lost, and no update is there by half."""
        port = guest.ports[53]
        one, two = (asked(guest, partial(crash.seen, port, name)) for name in ("one", "two"))
        assert one == two, "half of an update is served"
        newest = max((int(text.strip('"')) for text in one if text != '"start"'), default=0)
        for number in self.updates:
            # An update in flight may have deleted the oldest without a word to anybody.
            if number > newest - WINDOW + CLIENTS:
                assert f'"{number}"' in one, f"{number} was acknowledged, and is lost"
        assert newest >= max(self.updates, default=0)
        serial = asked(guest, partial(crash.serial, port))
        assert serial >= self.serial, "the serial went back"
        self.serial = serial

    def check_disk(self, disk: Path, folder: Path) -> None:
        """The certificate that was handed out is on the disk, once its journal is replayed."""
        copy = folder / "copy.img"
        shutil.copyfile(disk, copy)
        done = subprocess.run(["/sbin/e2fsck", "-p", str(copy)], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stdout  # 1: the journal was replayed
        assert read(copy, "/LAYOUT") == "1\n"
        if self.authority:
            assert read(copy, "/tls/ca.pem") == self.authority
            assert "PRIVATE KEY" in read(copy, "/tls/ca.key")
        copy.unlink()


T = TypeVar("T")


def asked(guest: machines.Guest, ask: Callable[[], T]) -> T:
    """What a machine answers in the end: on a busy host it may not within the time of one ask."""
    found: list[T] = []

    def heard() -> bool:
        with suppress(OSError, EOFError, dns.exception.DNSException):
            found.append(ask())
        return bool(found)

    guest.until(heard)
    return found[0]


def answers(guest: machines.Guest) -> bool:
    """Whether the zone is there over UDP and over TCP, which listens a moment later."""
    if not guest.ask(crash.NAME, "SOA"):
        return False
    try:
        return bool(crash.seen(guest.ports[53], "one"))
    except (OSError, EOFError, dns.exception.DNSException):
        return False


def read(disk: Path, path: str) -> str:
    return subprocess.run(
        ["/sbin/debugfs", "-R", f"cat {path}", str(disk)], capture_output=True, text=True
    ).stdout


def take_certificate(guest: machines.Guest, witness: Witness) -> None:
    """Wait for the local authority, which a new disk gets now, and have its certificate."""
    guest.until_said("init: all serve")
    guest.until(lambda: "BEGIN CERTIFICATE" in guest.page("/local-ca.crt"))
    witness.authority = guest.page("/local-ca.crt")


async def storm(guest: machines.Guest, witness: Witness, seconds: float) -> None:
    """Updates from several clients at once, until the power is cut."""
    ended = False

    async def client() -> None:
        while not ended:
            witness.number += 1
            mine = witness.number
            update = dns.update.UpdateMessage(crash.NAME, keyring=crash.KEYRING)
            for name in ("one", "two"):
                update.add(name, 60, "TXT", str(mine))
                update.delete(name, "TXT", str(mine - WINDOW))
            try:
                answer = await dns.asyncquery.tcp(
                    update, "127.0.0.1", port=guest.ports[53], timeout=LATEST
                )
            except (OSError, EOFError, dns.exception.DNSException):
                continue
            assert answer.rcode() == dns.rcode.NOERROR
            witness.updates.append(mine)

    tasks = [asyncio.ensure_future(client()) for _ in range(CLIENTS)]
    await asyncio.sleep(seconds)
    guest.cut_power()
    ended = True
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert result is None or isinstance(result, asyncio.CancelledError), result


def test_nothing_acknowledged_is_lost(image: Path, tmp_path: Path) -> None:
    """RFC 2136 §3.5: an update that was answered with NOERROR is in permanent storage."""
    random = Random(CUTS)
    keys = load(image.parents[2] / "appliance.toml").state_files()
    acknowledged = handed = 0
    began = time.monotonic()
    for cut in range(CUTS + 1):
        if cut % FRESH == 0:
            witness, disk = Witness(), tmp_path / "state.img"
            disk.unlink(missing_ok=True)
            make_state(disk, keys=keys)
        before = len(witness.updates)
        with machines.guest(image, tmp_path, state=disk) as guest:
            guest.until(partial(answers, guest))
            witness.check_zone(guest)
            if cut == CUTS:
                break
            late = random.uniform(0.1, LATEST)
            if cut % FRESH == 0:
                take_certificate(guest, witness)
                late = random.uniform(0.0, AFTER)
            asyncio.run(storm(guest, witness, late))
        witness.check_disk(disk, tmp_path)
        acknowledged += len(witness.updates) - before
        handed += cut % FRESH == 0
        sys.stdout.write(
            f"cut {cut + 1}: {acknowledged} updates acknowledged, {handed} certificates handed "
            f"out, none lost; {time.monotonic() - began:.0f} s\n"
        )
        sys.stdout.flush()
    assert acknowledged


def test_a_first_boot_formats_an_empty_disk(plain: Path, tmp_path: Path) -> None:
    """The disk becomes a state disk, grows to its size, and outlives cuts at any moment."""
    random = Random(CUTS)
    disk = tmp_path / "state.img"
    for _ in range(CUTS - 1):  # any moment from the kernel's start to the certificates'
        with disk.open("wb") as file:
            file.truncate(24 << 20)
        with machines.guest(plain, tmp_path, state=disk) as guest:
            guest.until_said("is empty; formatting")
            time.sleep(random.uniform(0.0, 1.5))
            guest.cut_power()
        with machines.guest(plain, tmp_path, state=disk) as guest:
            guest.until(lambda: "10.0.0.2" in guest.ask("openmirage.org"))
    with disk.open("wb") as file:
        file.truncate(24 << 20)
    with machines.guest(plain, tmp_path, state=disk) as guest:
        guest.until_said("init: all serve")
        assert "/dev/vda is empty; formatting it as a state disk" in guest.said()
        assert "stays as large" not in guest.said()
        authority = guest.page("/local-ca.crt")
        assert "BEGIN CERTIFICATE" in authority
    with machines.guest(plain, tmp_path, state=disk) as guest:
        guest.until_said("init: all serve")  # only then is the button looked at
        assert "formatting" not in guest.said()
        assert guest.power_button() == 0
        assert "init: ended with status 0" in guest.said()
    done = subprocess.run(["/sbin/e2fsck", "-f", "-n", str(disk)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert read(disk, "/tls/ca.pem") == authority
    about = subprocess.run(["/sbin/dumpe2fs", "-h", str(disk)], capture_output=True, text=True)
    lines = dict(line.split(":", 1) for line in about.stdout.splitlines() if ":" in line)
    assert int(lines["Block count"]) * 4096 == 24 << 20


def test_a_disk_of_somebody_else_is_refused(plain: Path, tmp_path: Path) -> None:
    """With the reason on the console, and not an octet of it changed."""
    disk = tmp_path / "theirs.img"
    with disk.open("wb") as file:
        file.truncate(24 << 20)
        file.seek(510)
        file.write(b"\x55\xaa")
    before = disk.read_bytes()
    with machines.guest(plain, tmp_path, state=disk) as guest:
        assert guest.process.wait(machines.PATIENCE) == 0
        assert "is no state disk and not empty, so it is not ours" in guest.said()
        assert "init: ended with status 1" in guest.said()
    assert disk.read_bytes() == before


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
def test_the_cache_of_the_disk_is_right(plain: Path, tmp_path: Path, accelerator: str) -> None:
    """`cache=none`: the guest's barriers are the host's fdatasync, and nothing lies in between."""
    from appliance.image import qemu

    words = qemu.command(qemu.Machine(plain, state=tmp_path / "s", accelerator=accelerator))
    (drive,) = (word for word in words if word.startswith(f"file={tmp_path}"))
    assert "cache=none" in drive.split(",")
