"""Recipe for a disk that boots anywhere: GPT, one EFI system partition, BIOS and UEFI.

    sector 0       Debian's gptmbr: starts the partition marked for BIOS
    partition 1    FAT: EFI/BOOT/BOOTX64.EFI (systemd-boot), syslinux for BIOS,
                   one kernel and one initramfs for both

Identical octets for identical inputs: identifiers come from the content, times are nought. Imports
the standard library and this package.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path
from typing import Final

from appliance.image.graph import Bench, BuildError, Step
from appliance.image.tools import run

COMMAND_LINE: Final = "console=ttyS0 rootfstype=ramfs panic=10 quiet loglevel=4"
"""A panic restarts the machine after ten seconds, which are for reading it."""
SYSLINUX_MBR: Final = Path("/usr/lib/syslinux/mbr/gptmbr.bin")
SYSTEMD_BOOT: Final = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
SECTOR: Final = 512
START: Final = 2048
"""The partition's first sector: 1 MiB, as every tool aligns."""
SLACK: Final = 2 << 20
"""Octets of the file system besides its files."""
LEAST: Final = 34 << 20
"""Octets below which mkfs.vfat makes no FAT32, which is what firmware likes best."""
EPOCH: Final = 315532800
"""1980-01-01: the first time that FAT can write."""


def disk_step(kernel: Step, *parts: Step) -> Step:
    """The disk of a kernel and the parts of an initramfs."""
    return Step("disk", make_disk, needs=(kernel, *parts), values={"command line": COMMAND_LINE})


def make_disk(bench: Bench) -> None:
    """appliance.img and appliance.qcow2."""
    files = bench.scratch / "files"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir()
    shutil.copyfile(bench.inputs["kernel"] / "vmlinuz", files / "vmlinuz")
    with (files / "initrd").open("wb") as initrd:
        for name, folder in bench.inputs.items():
            if name != "kernel":
                initrd.write((folder / "part.cpio").read_bytes())
    (files / "syslinux.cfg").write_text(
        f"DEFAULT appliance\nPROMPT 0\nSAY appliance\nLABEL appliance\n"
        f"  KERNEL /vmlinuz\n  INITRD /initrd\n  APPEND {COMMAND_LINE}\n"
    )
    (files / "loader.conf").write_text("timeout 0\ndefault appliance.conf\n")
    (files / "appliance.conf").write_text(
        f"title appliance\nlinux /vmlinuz\ninitrd /initrd\noptions {COMMAND_LINE}\n"
    )
    if not SYSTEMD_BOOT.exists():
        raise BuildError("UEFI needs systemd-boot; on Debian: apt-get install systemd-boot-efi")
    if not SYSLINUX_MBR.exists():
        raise BuildError("BIOS needs syslinux; on Debian: apt-get install syslinux syslinux-common")
    shutil.copyfile(SYSTEMD_BOOT, files / "boot.efi")
    for path in files.iterdir():
        os.utime(path, (EPOCH, EPOCH))
    size = sum(path.stat().st_size for path in files.iterdir()) + SLACK
    size = max(size, LEAST) // (1 << 20) * (1 << 20) + (1 << 20)
    image = bench.out / "appliance.img"
    digest = hashlib.sha256(b"".join(_digest(path) for path in sorted(files.iterdir()))).digest()
    partition = bench.scratch / "esp"
    _make_partition(partition, size, files, digest)
    _make_table(image, size, digest)
    with image.open("r+b") as file:
        file.seek(START * SECTOR)
        with partition.open("rb") as part:
            shutil.copyfileobj(part, file)
        file.seek(0)
        file.write(SYSLINUX_MBR.read_bytes()[:440])
    bench.say("compressing as qcow2")
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c",
         "-o", "compression_type=zstd,cluster_size=16K",
         image, bench.out / "appliance.qcow2"])  # fmt: skip


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _make_partition(partition: Path, size: int, files: Path, digest: bytes) -> None:
    """A FAT with the files, and syslinux in its boot sector."""
    with partition.open("wb") as file:
        file.truncate(size)
    env = {"SOURCE_DATE_EPOCH": str(EPOCH), "MTOOLS_SKIP_CHECK": "1"}
    run(["mkfs.vfat", "--invariant", "-F", "32", "-i", digest[:4].hex(), "-n", "APPLIANCE",
         partition], env=env)  # fmt: skip
    for folder in ("EFI", "EFI/BOOT", "loader", "loader/entries"):
        run(["mmd", "-i", partition, f"::/{folder}"], env=env)
    for name, place in (
        ("boot.efi", "EFI/BOOT/BOOTX64.EFI"),
        ("loader.conf", "loader/loader.conf"),
        ("appliance.conf", "loader/entries/appliance.conf"),
        ("vmlinuz", "vmlinuz"),
        ("initrd", "initrd"),
        ("syslinux.cfg", "syslinux.cfg"),
    ):
        run(["mcopy", "-m", "-i", partition, files / name, f"::/{place}"], env=env)
    run(["syslinux", "--install", partition], env=env)


def _make_table(image: Path, size: int, digest: bytes) -> None:
    """A GPT with one EFI system partition, marked for BIOS as well."""
    sectors = size // SECTOR
    with image.open("wb") as file:
        file.truncate((START + sectors + START) * SECTOR)
    disk, part = (str(uuid.UUID(bytes=digest[at : at + 16], version=4)) for at in (0, 16))
    run(["sgdisk", "--clear", f"--disk-guid={disk}",
         f"--new=1:{START}:{START + sectors - 1}", "--typecode=1:ef00", "--change-name=1:appliance",
         f"--partition-guid=1:{part}", "--attributes=1:set:2", image])  # fmt: skip
