"""Recipes for the kernel: Debian's for clouds, or our own from Debian's source.

    out/vmlinuz   a bzImage with an EFI stub, for disks and for QEMU
    out/vmlinux   the same, uncompressed with a PVH entry (our own only): what boots fastest
    out/modules   modules and `order`, in which they are loaded (Debian's only)
    out/about     the release, for people

Our own is `make tinyconfig` with kernel.config put over it: everything built in, and no IP stack at
all. Imports the standard library and this package.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from appliance.image.graph import Bench, BuildError, Step, file_digest
from appliance.image.tools import run

CONFIG: Final = Path(__file__).with_name("kernel.config")
MODULES: Final = (
    "failover", "net_failover", "virtio_ring", "virtio", "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev", "virtio_pci", "virtio_net",
)  # fmt: skip
"""What the first answer needs of Debian's kernel, in order."""
LATER_MODULES: Final = (
    "virtio_blk", "virtio-rng", "loop", "squashfs", "evdev", "button", "ptp_kvm",
)  # fmt: skip
"""What is loaded after it: disks, entropy, the cold part, the power button, the clock."""
META: Final = "linux-image-cloud-amd64"
"""The package that depends on the newest of them."""
SOURCE: Final = Path("/usr/src")
BUILD_TOOLS: Final = ("make", "gcc", "flex", "bison", "bc", "ld", "xz", "tar")
"""Programs that building a kernel takes; libelf-dev besides."""


def debian_step(package: str, version: str, sha256: str) -> Step:
    """Debian's kernel: a package, its version and the digest of its file, as the lock has them."""
    wish = f"{package}={version}"
    make = partial(make_debian, wish, sha256)
    return Step("kernel", make, values={"package": wish, "sha256": sha256})


def own_step(source: Path, jobs: int) -> Step:
    """Our own kernel, from Debian's packed source; `jobs` compilers run at once."""
    return Step(
        "kernel", partial(make_own, source, jobs), files={"source": source, "config": CONFIG}
    )


def download(package: str, sha256: str, folder: Path) -> Path:
    """Get a package's file as apt does, without installing it; needs no privilege.

    Raises BuildError when it is not what the lock has.
    """
    run(["apt-get", "download", "-q", package], cwd=folder)
    found = sorted(folder.glob(f"{package.partition('=')[0]}_*.deb"))
    if not found:
        raise BuildError(f"apt-get brought no file of {package}")
    if sha256 and file_digest(found[-1]) != sha256:
        raise BuildError(f"{found[-1].name} is not the file that the lock has; configure again")
    return found[-1]


def make_debian(package: str, sha256: str, bench: Bench) -> None:
    """Unpack the kernel's package and keep what an image needs."""
    bench.say(f"getting {package}")
    file = download(package, sha256, bench.scratch)
    top = bench.scratch / "unpacked"
    shutil.rmtree(top, ignore_errors=True)
    run(["dpkg-deb", "-x", file, top])
    images = sorted((top / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        raise BuildError(f"{package} holds {len(images)} kernels")
    shutil.copyfile(images[0], bench.out / "vmlinuz")
    modules = {path.stem: path for path in top.rglob("*.ko")}
    (bench.out / "modules").mkdir()
    for name, order in (("order", MODULES), ("later", LATER_MODULES)):
        there = [module for module in order if module in modules]
        for module in there:
            run(["strip", "-g", "-o", bench.out / "modules" / f"{module}.ko", modules[module]])
        (bench.out / "modules" / name).write_text("\n".join(there) + "\n")
    (bench.out / "about").write_text(f"Debian's {images[0].name.removeprefix('vmlinuz-')}\n")
    shutil.rmtree(top)


def make_own(source: Path, jobs: int, bench: Bench) -> None:
    """Configure and compile; an interrupted compilation goes on where it was."""
    trees = [path for path in bench.scratch.glob("linux-source-*") if path.is_dir()]
    if not (bench.scratch / "unpacked").exists():
        bench.say(f"unpacking {source.name}")
        run(["tar", "-xf", source, "-C", bench.scratch])
        (bench.scratch / "unpacked").touch()
        trees = [path for path in bench.scratch.glob("linux-source-*") if path.is_dir()]
    (tree,) = trees
    env = {
        # What the kernel says of its own making: nothing that differs from one build to the next.
        "KBUILD_BUILD_TIMESTAMP": "@1",
        "KBUILD_BUILD_USER": "appliance",
        "KBUILD_BUILD_HOST": "image",
        "KBUILD_BUILD_VERSION": "1",
    }
    if not (tree / ".configured").exists():
        run(["make", "-s", "tinyconfig"], cwd=tree, env=env)
        config = tree / ".config"
        config.write_text(config.read_text() + CONFIG.read_text())
        run(["make", "-s", "olddefconfig"], cwd=tree, env=env)
        check_config(config.read_text(), CONFIG.read_text())
        (tree / ".configured").touch()
    bench.say("compiling, which takes minutes once")
    run(["make", "-s", f"-j{jobs}", "vmlinux", "bzImage"], cwd=tree, env=env)
    release = run(["make", "-s", "kernelrelease"], cwd=tree, env=env).strip()
    shutil.copyfile(tree / "arch/x86/boot/bzImage", bench.out / "vmlinuz")
    run(["strip", "-s", "-o", bench.out / "vmlinux", tree / "vmlinux"])
    (bench.out / "about").write_text(f"our own {release}, without an IP stack\n")


def check_config(made: str, wanted: str) -> None:
    """Raise BuildError for every line of `wanted` that `made` does not have."""
    have = set(made.splitlines())
    missing = [
        line for line in wanted.splitlines() if line.startswith("CONFIG_") and line not in have
    ]
    for line in wanted.splitlines():
        off = re.match(r"# (CONFIG_\w+) is not set", line)
        if off is not None and any(made_line.startswith(f"{off[1]}=") for made_line in have):
            missing.append(line)
    if missing:
        raise BuildError(f"the kernel's source does not take: {'; '.join(missing)}")


def newest_source() -> Path:
    """Debian's kernel source; raises BuildError when its package is not installed."""
    found = sorted(SOURCE.glob("linux-source-*.tar.xz"), key=lambda path: path.name)
    if not found:
        raise BuildError(
            "our own kernel is built from Debian's source; on Debian: "
            "apt-get install linux-source flex bison bc libelf-dev gcc make"
        )
    return found[-1]


def processors() -> int:
    """Compilers to run at once: one less than there are processors, so that people can work."""
    return max(1, (os.cpu_count() or 2) - 1)


def newest_debian(before: Mapping[str, str]) -> dict[str, str]:
    """What a lock says of Debian's newest kernel for clouds; raises BuildError.

    Without apt's lists, the one that was locked before stays.
    """
    try:
        about = run(["apt-cache", "show", META])
        depends = re.search(r"^Depends: (linux-image-\S+) \(= (\S+)\)", about, re.MULTILINE)
        if depends is None:
            raise BuildError(f"apt knows no {META}: apt-get update")
        package, version = depends[1], depends[2]
        about = run(["apt-cache", "show", f"{package}={version}"])
        digest = re.search(r"^SHA256: ([0-9a-f]{64})$", about, re.MULTILINE)
    except BuildError:
        if before.get("kind") == "debian":
            return dict(before)
        raise
    if digest is None:
        raise BuildError(f"apt has no digest of {package}")
    return {"kind": "debian", "package": package, "version": version, "sha256": digest[1]}
