"""Recipe for a container image as an OCI layout, without a daemon and without a Dockerfile.

One layer with what the initramfs has: the interpreter, the modules, the content, PID 1. Written by
hand after the OCI image specification 1.1, which for one layer is three JSON files and a tar; the
same octets for the same files. Imports zstandard, the standard library and this package.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import zstandard

from appliance import __version__
from appliance.image.closure import in_image
from appliance.image.graph import Bench, Step
from appliance.image.make_initramfs import MODULES
from appliance.image.make_python import LOADER
from appliance.image.recipe import CHOICE, INIT

PLAIN: Final = "application/vnd.oci.image"
USER: Final = "65534:65534"
"""Nobody: without --user the appliance has no privilege at all."""
PORTS: Final = ("5353/tcp", "5353/udp", "8080/tcp", "8443/tcp", "8853/tcp")
LABELS: Final = {
    "org.opencontainers.image.title": "appliance",
    "org.opencontainers.image.description": (
        "A whole internet host in one process: TCP/IP, DNS and HTTP"
    ),
    "org.opencontainers.image.licenses": "ISC",
    "org.opencontainers.image.version": __version__,
}
"""OCI image specification 1.1, annotations.md."""
EPOCH: Final = "1970-01-01T00:00:00Z"
LEVEL: Final = 15


def oci_steps(python: Mapping[str, Step], content: Mapping[str, Step]) -> Step:
    """The layout."""
    return Step(
        "oci",
        make_oci,
        needs=(*python.values(), content["content"]),
        files={"init": INIT} | CHOICE,
    )


def make_oci(bench: Bench) -> None:
    """`layout/`, and the same as one tar, for `podman load` and `docker load`."""
    layer = _layer(bench)
    layout = bench.out / "layout"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    bench.say("packing")
    packed = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(layer)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": EPOCH,
        "config": {
            "User": USER,
            "Entrypoint": ["/init"],
            "Env": ["PATH=/python/bin"],
            "WorkingDir": "/",
            "ExposedPorts": {port: {} for port in PORTS},
            "Volumes": {"/state": {}},
            "StopSignal": "SIGTERM",
            "Labels": LABELS,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]},
        "history": [{"created": EPOCH, "created_by": "appliance build --target oci"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{PLAIN}.manifest.v1+json",
        "config": _blob(blobs, _json(config), f"{PLAIN}.config.v1+json"),
        "layers": [_blob(blobs, packed, f"{PLAIN}.layer.v1.tar+zstd")],
    }
    described = _blob(blobs, _json(manifest), f"{PLAIN}.manifest.v1+json")
    described["annotations"] = {"org.opencontainers.image.ref.name": "appliance:latest"}
    index = {
        "schemaVersion": 2,
        "mediaType": f"{PLAIN}.index.v1+json",
        "manifests": [described],
    }
    (layout / "index.json").write_bytes(_json(index))
    (layout / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    with tarfile.open(bench.out / "appliance.oci.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(layout.rglob("*")):
            _add(archive, str(path.relative_to(layout)), path)


def _layer(bench: Bench) -> bytes:
    """The root file system as a tar."""
    files: dict[str, Path] = {"init": INIT}
    for step in ("library", "dependencies", "application"):
        modules = bench.inputs[step] / "modules"
        for path in modules.rglob("*"):
            place = str(path.relative_to(modules))
            if path.is_file() and in_image(place):
                files[f"{MODULES}/{place}"] = path
    objects = bench.inputs["objects"]
    files["python/bin/python3"] = objects / "bin" / "python3"
    for path in (objects / "lib").iterdir():
        folder = "lib64" if path.name.startswith(LOADER) else "lib"
        files[f"{folder}/{path.name}"] = path
    (content,) = (folder for name, folder in bench.inputs.items() if name.startswith("content"))
    for name in ("content.pickle", "made.marshal"):
        files[f"lib/appliance/{name}"] = content / name
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    folders |= {"dev", "proc", "sys", "tmp", "state", f"{MODULES}/lib-dynload"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(folders | set(files)):
            _add(archive, name, files.get(name))
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, path: Path | None) -> None:
    """A file or a folder that belongs to root and has no time."""
    entry = tarfile.TarInfo(name)
    if path is None or path.is_dir():
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        if name in ("tmp", "state"):
            # Of root's group too, so that root without any capability can keep state there.
            entry.mode = 0o1777 if name == "tmp" else 0o770
            if name == "state":
                entry.uid = int(USER.partition(":")[0])
        archive.addfile(entry)
        return
    data = path.read_bytes()
    executable = name == "init" or path.stat().st_mode & 0o100
    entry.mode, entry.size = 0o755 if executable else 0o644, len(data)
    archive.addfile(entry, io.BytesIO(data))


def _blob(blobs: Path, data: bytes, kind: str) -> dict[str, Any]:
    digest = _sha256(data)
    (blobs / digest).write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
