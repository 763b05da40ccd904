"""The Dockerfile, built by buildah on a base of our own making, and run by podman in every way that
site/docs/container.md tells: without a privilege, on a tap, on a network card, and beside NSD.

    make container-test

Takes two to three minutes of a processor, most of them for compiling and for the base
(tests/image/base.py), which is kept; so `make test` leaves it out, and .ci/run has it.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bench import lab
from tests.image import vessels
from tests.image.base import base

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/appliance:latest"
SECONDARY = "localhost/appliance-secondary:latest"
BASES = ("docker.io/library/python:3.11.13-slim-bookworm", "docker.io/library/debian:bookworm-slim")
"""What the Dockerfiles name; ours stands for both."""
IN, OUT = "10.77.8.2", "10.77.8.1"
SERVED = "http://127.0.0.1:8080/"
PIP = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "cert",
    "trusted-host",
    "proxy",
    "timeout",
)
"""Settings of pip that say where packages are, and how to get there."""

pytestmark = pytest.mark.skipif(
    os.environ.get("CONTAINERS") != "1", reason="takes minutes: make container-test"
)


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vessels.Vessels]:
    """A store that holds the images of both Dockerfiles."""
    vessels.require("buildah", "debootstrap")
    with vessels.vessels(tmp_path_factory.mktemp("podman")) as made:
        made.podman("import", "--quiet", str(base()), BASES[0], timeout=300)
        made.podman("tag", *BASES)
        for folder, name in ((ROOT, IMAGE), (ROOT / "container" / "secondary", SECONDARY)):
            made.run(
                "buildah", "bud", "--isolation=chroot", "--pull-never", "--layers=false",
                "--format", "docker", "--build-arg", "OPTIMIZE=0",
                *packages_of_this_host(made.folder), "-t", name, str(folder), timeout=600,
            )  # fmt: skip
        yield made


def packages_of_this_host(folder: Path) -> list[str]:
    """How pip here finds packages, for pip there: a mirror, and whom to trust about it."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    told = dict(line.partition("=")[::2] for line in listed.splitlines())
    keys = sorted(told, key=lambda key: key.startswith(":env:"))  # which stands over the files
    found = {key.rpartition(".")[2]: str(ast.literal_eval(told[key])) for key in keys}
    settings = {key: found[key] for key in PIP if key in found}
    conf = folder / "pip.conf"
    lines = (f"{key} = {' '.join(value.split())}\n" for key, value in settings.items())
    conf.write_text(f"[global]\n{''.join(lines)}")
    there = [Path("/etc/ssl/certs/ca-certificates.crt")]
    for word in " ".join(settings.values()).split():
        path = Path(word.removeprefix("file://"))
        # Beside an index on a disk lie the files that it names.
        there.append(path.parent if path.name == "simple" else path)
    places = [(conf, Path("/etc/pip.conf"))]
    places += [
        (path, path) for path in dict.fromkeys(there) if path.is_absolute() and path.exists()
    ]
    return [word for host, path in places for word in ("-v", f"{host}:{path}:ro")]


def test_other_commands(harbour: vessels.Vessels) -> None:
    """Words of a container may be another command than `serve`."""
    run = ("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", IMAGE)
    assert harbour.podman(*run, "--version").endswith("(compiled)")
    assert "COMMAND" in harbour.podman(*run, "--help")
    assert "0 errors" in harbour.podman(*run, "check")
    with pytest.raises(AssertionError, match="invalid choice: 'sevre'"):
        harbour.podman(*run, "sevre")


def test_it_serves_without_any_privilege(harbour: vessels.Vessels, tmp_path: Path) -> None:
    """In a namespace of the test's, where its ports are; `test_ports_are_published` has -p."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "site", site)
    opened(tmp_path)
    mounted = ("-v", f"{site}:/srv/site:ro")
    with lab.namespace("docker") as space, harbour.running(space, IMAGE, *mounted) as name:
        vessels.until(
            lambda: "openmirage.org" in vessels.page(space, SERVED), lambda: harbour.log(name)
        )
        assert vessels.address(space, "127.0.0.1") == "10.0.0.2"
        assert f"  {SERVED}\n" in harbour.log(name)
        harbour.podman("healthcheck", "run", name)
        health = "{{.State.Health.Status}}"
        assert harbour.podman("inspect", "--format", health, name) == "healthy"
        assert harbour.podman("exec", name, "id", "-u") == "65534"
        with pytest.raises(AssertionError, match="Read-only"):
            harbour.podman("exec", "--user", "0:0", name, "touch", "/srv/appliance.toml")
        (site / "new.md").write_text("---\ntitle: A page that came later\n---\n\nText.\n")
        harbour.podman("kill", "--signal", "HUP", name)
        vessels.until(
            lambda: "A page that came later" in vessels.page(space, f"{SERVED}new"),
            lambda: harbour.log(name),
        )
        # Killed, which is what follows after that time, it would have ended with 137.
        harbour.podman("stop", "--time", "8", name)
        state = harbour.podman("inspect", "--format", "{{.State.ExitCode}}", name)
        assert state == "0", harbour.log(name)


def opened(folder: Path) -> None:
    """Let everybody, so the container's nobody too, read what is below a folder of pytest's."""
    for above in (folder, *folder.parents[:2]):  # not /tmp, which everybody writes into
        above.chmod(above.stat().st_mode | 0o055)


@pytest.mark.parametrize(
    ("target", "mode", "said"),
    [
        ("/srv/site", 0o700, "error: site: Permission denied"),
        ("/srv/zones", 0o700, "error: zones: cannot be read: Permission denied"),
        ("/srv/state", 0o755, "HTTPS is off, for want of a local CA: state/tls"),
        ("/srv", 0o700, "/srv cannot be looked into: Permission denied"),
        ("/srv", 0o755, "no appliance.toml in /srv"),
    ],
)
def test_a_mount_that_is_wrong_is_told(
    harbour: vessels.Vessels, tmp_path: Path, target: str, mode: int, said: str
) -> None:
    """Of root's, while the container runs as nobody: what can be served is, and the rest told."""
    (tmp_path / "mounted").mkdir(mode=mode)
    mount = ("-v", f"{tmp_path / 'mounted'}:{target}")
    with lab.namespace("docker-wrong") as space, harbour.running(space, IMAGE, *mount) as name:
        vessels.until(lambda: said in harbour.log(name), lambda: harbour.log(name))
        assert "Traceback" not in harbour.log(name)


def test_ports_are_published(harbour: vessels.Vessels) -> None:
    """`-p`, with podman's own bridge, in a namespace that has its own packet filter."""
    ports = ("-p", "8080:8080", "-p", "5353:5353/udp", "-p", "5353:5353/tcp")
    with lab.namespace("docker-ports") as space:
        words = harbour.words(
            "podman", "run", "--detach", "--name", "published", "--read-only", "--cap-drop", "ALL",
            "--security-opt", "no-new-privileges", *ports, IMAGE,
        )  # fmt: skip
        # Not `ip netns exec`, whose own /sys lacks the control groups that runc looks for.
        enter = ("nsenter", f"--net=/run/netns/{space.name}")
        enter += ("env", f"CONTAINERS_CONF={harbour.folder / 'containers.conf'}")
        try:
            lab.run(*enter, *words)
            vessels.until(
                lambda: "openmirage.org" in vessels.page(space, "http://127.0.0.1:8080/"),
                lambda: harbour.log("published"),
            )
            bridge = space.run("ip", "-4", "-o", "address", "show", "scope", "global").split()
            host = bridge[bridge.index("inet") + 1].partition("/")[0]
            assert vessels.address(space, host) == "10.0.0.2"
        finally:
            lab.run(*enter, *harbour.words("podman", "rm", "-f", "-t", "1", "published"))


def test_it_is_a_host_on_a_tap(harbour: vessels.Vessels) -> None:
    options = ("--user", "0:0", "--cap-add", "NET_ADMIN", "--device", "/dev/net/tun")
    link = ("--link", "tap:om0", "--address", f"{IN}/24", "--gateway", OUT)
    with (
        lab.namespace("docker-tap") as space,
        harbour.running(space, IMAGE, *options, "--", *link) as name,
    ):
        vessels.until(lambda: "om0" in space.run("ip", "link"), lambda: harbour.log(name))
        space.address("om0", f"{OUT}/24")
        reached(harbour, space, name)


def test_it_is_a_host_on_a_card(harbour: vessels.Vessels) -> None:
    options = ("--user", "0:0", "--cap-add", "NET_RAW")
    link = ("--link", "packet:eth0", "--address", f"{IN}/24", "--gateway", OUT)
    with lab.namespace("docker-out") as outside, lab.namespace("docker-in") as space:
        lab.run(
            *("ip", "-n", space.name, "link", "add", "eth0", "type", "veth"),
            *("peer", "name", "veth0", "netns", outside.name),
        )
        lab.run("ip", "-n", space.name, "link", "set", "eth0", "up")
        space.run("sysctl", "-qw", "net.ipv4.ip_forward=0")  # a namespace begins as its host is
        outside.address("veth0", f"{OUT}/24")
        with harbour.running(space, IMAGE, *options, "--", *link) as name:
            reached(harbour, outside, name)


def reached(harbour: vessels.Vessels, space: lab.Namespace, name: str) -> None:
    """Web, name server, ping and the health check of a host of its own."""
    vessels.until(
        lambda: "openmirage.org" in vessels.page(space, f"http://{IN}/"),
        lambda: harbour.log(name),
    )
    assert vessels.address(space, IN, 53) == "10.0.0.2"
    space.run("ping", "-c", "1", "-W", "2", IN)
    harbour.podman("healthcheck", "run", name)


def test_compose_runs(harbour: vessels.Vessels, tmp_path: Path) -> None:
    """The whole of container/compose.yaml: key, appliance, and NSD with the zone and its news."""
    zones = tmp_path / "zones"
    shutil.copytree(ROOT / "zones", zones)
    opened(tmp_path)
    over = tmp_path / "over.yaml"
    services = {
        "appliance": {"volumes": [f"{zones}:/srv/zones:ro"]},
        "secondary": {"environment": {"REFRESH": "1"}},
    }
    over.write_text(json.dumps({"services": services}))  # JSON is YAML
    words = (
        *(sys.executable, "-m", "podman_compose", "--podman-path", str(harbour.program())),
        *("--project-name", "pair"),
        *("-f", str(ROOT / "container" / "compose.yaml"), "-f", str(over)),
    )
    with lab.namespace("compose") as space:
        enter = ("nsenter", f"--net=/run/netns/{space.name}", *words)
        try:
            lab.run(*enter, "up", "--detach", "--no-build", timeout=120)
            log = partial(harbour.log, "pair_secondary_1")
            for ask in (
                partial(vessels.address, space, "127.0.0.1", port) for port in (5353, 5354)
            ):
                vessels.until(lambda ask=ask: ask() == "10.0.0.2", log)
            assert "openmirage.org" in vessels.page(space, SERVED)
            zone = zones / "openmirage.org.zone"
            text = zone.read_text()
            serial = re.search(r"\d{10}", text)
            assert serial is not None
            changed = text.replace(serial[0], str(int(serial[0]) + 1), 1)
            zone.write_text(f"{changed}\nlater IN A 192.0.2.9\n")
            harbour.podman("kill", "--signal", "HUP", "pair_appliance_1")
            vessels.until(
                lambda: (
                    vessels.address(space, "127.0.0.1", 5354, "later.openmirage.org") == "192.0.2.9"
                ),
                log,
            )
        finally:
            lab.run(*enter, "down", "--volumes", "--timeout", "2", timeout=60)
