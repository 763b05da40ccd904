"""Recipes for the initramfs: what is read at once, what is unpacked when wanted, and the packing.

    base  python/: the interpreter and hot modules; lib64/ld-linux, lib/*.so: what it is linked
          with; lib/appliance/made.marshal; lib/modules: the kernel's, if it has any
    page  init, our own package, lib/appliance: the content
    cold  all other modules, as a squashfs: a drive of its own, so that it takes no memory, or
          lib/cold.squashfs where there is but one disk

Imports zstandard, the standard library and this package.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import zstandard

from appliance.image.closure import EXTENSION, in_image
from appliance.image.cpio import write_cpio
from appliance.image.graph import Bench, BuildError
from appliance.image.make_python import LOADER
from appliance.image.tools import run

MODULES: Final = f"python/lib/python{sys.version_info[0]}.{sys.version_info[1]}"
"""Where the interpreter looks for its library, relative to the root; hot modules all lie here. It
looks beside itself and above, but not in the root itself, so it has a folder of its own."""
COLD_MODULES: Final = "lib/python"
"""The same for what is not hot, relative to /usr."""
FIRST: Final = 32767
"""The highest priority that mksquashfs knows; nought is everybody else's."""
NATIVE: Final = ("library", "dependencies")


def hot_files(bench: Bench) -> tuple[dict[str, Path], dict[str, Path], set[str]]:
    """Modules' files, hot and cold by their place, and the names of hot shared objects."""
    names = set(json.loads((bench.inputs["hot"] / "hot.json").read_text()))
    linked = json.loads((bench.inputs["objects"] / "linked.json").read_text())
    hot: dict[str, Path] = {}
    cold: dict[str, Path] = {}
    objects = set(linked[""])
    for step in NATIVE:
        modules = bench.inputs[step] / "modules"
        for path in sorted(modules.rglob("*")):
            if path.is_dir():
                continue
            place = str(path.relative_to(modules))
            if not in_image(place):
                continue
            if _module_name(place) in names or place == "os.pyc":  # the interpreter's landmark
                hot[place] = path
                objects |= set(linked.get(place, ()))
            else:
                cold[place] = path
    return hot, cold, objects


def _module_name(place: str) -> str:
    """`dns.name` for dns/name.pyc; empty for data."""
    for suffix in ("/__init__.pyc", ".pyc", str(EXTENSION), ".abi3.so"):
        if place.endswith(suffix):
            return place.removesuffix(suffix).replace("/", ".")
    return ""


def make_cold(bench: Bench) -> None:
    """A squashfs of everything that can wait, for /usr."""
    top = bench.scratch / "usr"
    shutil.rmtree(top, ignore_errors=True)
    _, cold, hot_objects = hot_files(bench)
    for place, path in cold.items():
        _put(path, top / COLD_MODULES / place)
    for path in _objects(bench):
        if path.name not in hot_objects:
            _put(path, top / "lib" / path.name)
    _put(bench.inputs["state"] / "state.ext4", top / "state.ext4")  # guest/state.py
    for path in [top, *top.rglob("*")]:  # whatever the builder's umask is
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    bench.say(f"{len(cold)} files into a squashfs")
    order = bench.scratch / "order"
    order.write_text("".join(
        f"{path} {priority}\n" for path, priority in _priorities(bench, cold).items()
    ))  # fmt: skip
    run([
        "mksquashfs", ".", bench.out / "cold.squashfs", "-sort", order, "-noappend",
        "-no-progress", "-quiet", "-all-root", "-no-xattrs", "-no-exports",
        "-mkfs-time", "0", "-all-time", "0", "-processors", "1",
        "-comp", "xz", "-Xbcj", "x86", "-b", "512K",
    ], cwd=top)  # fmt: skip


def _priorities(bench: Bench, cold: Mapping[str, Path]) -> dict[str, int]:
    """Files in the order in which a machine wants them, the first with the highest number.

    Small files share a block, which is unpacked whole, and few of these are remembered. Larger
    blocks than half a MB pack better, but starting TLS in 80 MB then takes a third longer.
    """
    warm = json.loads((bench.inputs["hot"] / "warm.json").read_text())
    places = {_module_name(place): place for place in cold}
    there = [places[name] for name in warm if name in places]
    return {f"{COLD_MODULES}/{place}": FIRST - at for at, place in enumerate(there)}


def make_base(bench: Bench) -> None:
    """The part that changes with Python, the libraries and the kernel."""
    top = bench.scratch / "base"
    shutil.rmtree(top, ignore_errors=True)
    hot, _, hot_objects = hot_files(bench)
    for place, path in hot.items():
        _put(path, top / MODULES / place)
    _put(bench.inputs["objects"] / "bin" / "python3", top / "python" / "bin" / "python3")
    for path in _objects(bench):
        if path.name in hot_objects:
            folder = "lib64" if path.name.startswith(LOADER) else "lib"
            _put(path, top / folder / path.name)
    _put(bench.inputs["hot"] / "made.marshal", top / "lib" / "appliance" / "made.marshal")
    (top / "lib" / "machine").touch()  # a container has none (guest/machine.py)
    modules = bench.inputs["kernel"] / "modules"
    if modules.is_dir():
        shutil.copytree(modules, top / "lib" / "modules")
    (top / MODULES / "lib-dynload").mkdir(exist_ok=True)
    for name in ("dev", "proc", "sys", "usr", "tmp", "state"):
        (top / name).mkdir()
    with (bench.out / "part.cpio").open("wb") as file:
        write_cpio(top, file)


def make_cold_part(bench: Bench) -> None:
    """The cold part as a part of an initramfs, for a machine without a drive for it."""
    (source,) = bench.inputs.values()
    top = bench.scratch / "cold"
    shutil.rmtree(top, ignore_errors=True)
    _put(source / "cold.squashfs", top / "lib" / "cold.squashfs")
    with (bench.out / "part.cpio").open("wb") as file:
        write_cpio(top, file, nodes={})


def make_page(init: Path, bench: Bench) -> None:
    """The part that changes with our own source and with what is served."""
    top = bench.scratch / "page"
    shutil.rmtree(top, ignore_errors=True)
    modules = bench.inputs["application"] / "modules"
    for path in sorted(modules.rglob("*")):
        if path.is_file():
            _put(path, top / MODULES / path.relative_to(modules))
    _put(bench.inputs["content"] / "content.pickle", top / "lib" / "appliance" / "content.pickle")
    _put(init, top / "init")
    (top / "init").chmod(0o755)
    with (bench.out / "part.cpio").open("wb") as file:
        write_cpio(top, file, nodes={})


def make_initramfs(bench: Bench) -> None:
    """Both parts, as they are: QEMU puts them into memory faster than a guest unpacks them."""
    with (bench.out / "initramfs").open("wb") as file:
        for step in ("base", "page"):
            with (bench.inputs[step] / "part.cpio").open("rb") as part:
                shutil.copyfileobj(part, file)


def make_packed(level: int, bench: Bench) -> None:
    """The one part that this step needs, packed by zstd, filled up to four octets."""
    (source,) = bench.inputs.values()
    bench.say("packing")
    data = (source / "part.cpio").read_bytes()
    packed = zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data)
    (bench.out / "part.cpio").write_bytes(packed + bytes(-len(packed) % 4))


def _objects(bench: Bench) -> Iterator[Path]:
    found = sorted((bench.inputs["objects"] / "lib").iterdir())
    if not found:
        raise BuildError("the interpreter is linked with nothing: it cannot be one of Debian's")
    yield from found


def _put(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)
