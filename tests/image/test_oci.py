"""An image without Dockerfile and daemon: what it is made of, that it is made alike everywhere, and
that podman runs it without privilege and as a host of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from appliance import __version__
from appliance.image.graph import tree_digest
from bench import lab
from tests.image import vessels

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/appliance:latest"
IN, OUT = "10.77.9.2", "10.77.9.1"


def appliance(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "appliance", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def project(folder: Path, lock: Path | None = None) -> Path:
    """Openmirage.org, configured and built in a folder; returns what was made."""
    folder.mkdir(parents=True)
    for name in ("site", "zones"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "appliance.toml", folder)
    if lock is None:
        appliance(folder, "configure", "--target", "oci")
    else:
        shutil.copy(lock, folder)
    appliance(folder, "build")
    return folder / "build" / "image" / "oci"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for program in ("ldd", "strip"):
        if shutil.which(program) is None:
            told = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            told(f"needs {program}: apt-get install binutils libc-bin")
    return project(tmp_path_factory.mktemp("oci") / "here")


def blob(layout: Path, described: dict[str, Any]) -> bytes:
    """What a descriptor points at, after a look at what it says of it."""
    kind, _, digest = described["digest"].partition(":")
    data = (layout / "blobs" / kind / digest).read_bytes()
    assert hashlib.new(kind, data).hexdigest() == digest
    assert len(data) == described["size"]
    return data


def parts(made: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    layout = made / "layout"
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    (described,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads(blob(layout, described))
    assert manifest["mediaType"] == described["mediaType"]
    (layer,) = manifest["layers"]
    config = json.loads(blob(layout, manifest["config"]))
    return manifest, config, blob(layout, layer)


def test_every_digest_and_size_is_that_of_its_blob(made: Path) -> None:
    manifest, config, packed = parts(made)
    assert manifest["schemaVersion"] == 2
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    layer = zstandard.ZstdDecompressor().decompress(packed)
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    named = {described["digest"] for described in (manifest["config"], *manifest["layers"])}
    blobs = {f"sha256:{path.name}" for path in (made / "layout/blobs/sha256").iterdir()}
    assert named < blobs
    assert len(blobs) == 3  # and the manifest


def test_it_holds_one_program_and_no_secret(made: Path) -> None:
    _, config, packed = parts(made)
    assert config["config"]["User"] == "65534:65534"
    assert config["config"]["Labels"]["org.opencontainers.image.version"] == __version__
    layer = zstandard.ZstdDecompressor().decompress(packed)
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        members = archive.getmembers()
    programs = [m.name for m in members if m.isfile() and m.mode & 0o111 and ".so" not in m.name]
    assert sorted(programs) == ["init", "python/bin/python3"]
    assert not [m.name for m in members if m.mtime or m.issym() or m.islnk() or m.mode & 0o6000]
    secret = (".key", ".pem", ".py", "appliance.lock")
    found = [m.name for m in members if m.name.endswith(secret)]
    assert [name for name in found if not name.endswith("certifi/cacert.pem")] == []


def test_two_builds_are_equal(made: Path, tmp_path: Path) -> None:
    lock = made.parents[2] / "appliance.lock"
    other = project(tmp_path / "another" / "place", lock)
    assert tree_digest(other) == tree_digest(made)


@pytest.fixture(scope="module")
def harbour(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[vessels.Vessels]:
    with vessels.vessels(tmp_path_factory.mktemp("podman")) as harbour:
        harbour.podman("load", "--quiet", "--input", str(made / "appliance.oci.tar"))
        yield harbour


def test_other_commands(harbour: vessels.Vessels) -> None:
    run = ("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", IMAGE)
    assert harbour.podman(*run, "--version") == f"appliance {__version__}"
    assert "--http-port" in harbour.podman(*run, "--help")
    assert "; 0 errors" in harbour.podman(*run, "check", "--http-port", "8088")
    with pytest.raises(AssertionError, match="must be an integer from 1"):
        harbour.podman(*run, "check", "--http-port", "none")
    with pytest.raises(AssertionError, match="no such command: sevre"):
        harbour.podman(*run, "sevre")


def test_it_serves_without_any_privilege(harbour: vessels.Vessels) -> None:
    health = ("--health-cmd", '["/init", "health"]')
    with lab.namespace("oci") as space, harbour.running(space, IMAGE, *health) as name:
        url = "http://127.0.0.1:8080/"
        vessels.until(
            lambda: "openmirage.org" in vessels.page(space, url), lambda: harbour.log(name)
        )
        assert vessels.address(space, "127.0.0.1") == "10.0.0.2"
        secure = space.run("curl", "-sSk", "--max-time", "5", "https://127.0.0.1:8443/")
        assert "openmirage.org" in secure
        harbour.podman("healthcheck", "run", name)
        harbour.podman("kill", "--signal", "HUP", name)
        vessels.until(lambda: "reloaded in" in harbour.log(name), lambda: harbour.log(name))
        assert "openmirage.org" in vessels.page(space, url)
        harbour.podman("stop", "--time", "8", name)
        state = harbour.podman("inspect", "--format", "{{.State.ExitCode}}", name)
        assert state == "0", harbour.log(name)


def test_it_is_a_host_of_its_own(harbour: vessels.Vessels) -> None:
    """On a card without addresses of the kernel's, as root without any other capability."""
    with lab.namespace("out") as outside, lab.namespace("in") as space:
        lab.run(
            *("ip", "-n", space.name, "link", "add", "eth0", "type", "veth"),
            *("peer", "name", "veth0", "netns", outside.name),
        )
        lab.run("ip", "-n", space.name, "link", "set", "eth0", "up")
        space.run("sysctl", "-qw", "net.ipv4.ip_forward=0")  # a namespace begins as its host is
        outside.address("veth0", f"{OUT}/24")
        link = ("--link", "packet:eth0", "--address", f"{IN}/24", "--gateway", OUT)
        options = ("--user", "0:0", "--cap-add", "NET_RAW", "--cap-add", "NET_ADMIN")
        with harbour.running(space, IMAGE, *options, "--", *link) as name:
            vessels.until(
                lambda: "openmirage.org" in vessels.page(outside, f"http://{IN}/"),
                lambda: harbour.log(name),
            )
            assert vessels.address(outside, IN, 53) == "10.0.0.2"
            outside.run("ping", "-c", "1", "-W", "2", IN)
            harbour.podman("exec", name, "/init", "health")  # asked on its control socket
