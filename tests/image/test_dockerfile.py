"""The Dockerfile, built by buildah on a base of our own making, and run by podman in every way that
site/docs/container.md tells: without a privilege, on a tap, on a network card, and beside NSD.

    make container-test

Takes two to three minutes, most of them for the base (debootstrap) and for compiling, so `make
test` leaves it out. CONTAINER_BASE names a base that is there already, as a tar archive.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import lab
from tests.image import vessels

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "localhost/base:latest", "localhost/appliance:latest"
SUITE = "bookworm"
INCLUDE = "python3,python3-venv,python3-dev,gcc,libc6-dev,nsd"
"""Of the base; NSD, so that the secondary of container/compose.yaml runs on it as well."""
IN, OUT = "10.77.8.2", "10.77.8.1"

pytestmark = pytest.mark.skipif(
    os.environ.get("CONTAINERS") != "1", reason="takes minutes: make container-test"
)


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vessels.Vessels]:
    """A store that holds the image of the Dockerfile."""
    vessels.require("buildah", "debootstrap", "nsd")
    with vessels.vessels(tmp_path_factory.mktemp("podman")) as made:
        base = Path(os.environ.get("CONTAINER_BASE") or make_base(made.folder))
        made.podman("import", "--quiet", str(base), BASE, timeout=300)
        made.run(
            "buildah", "bud", "--isolation=chroot", "--pull-never", "--layers=false",
            "--format", "docker", "--build-arg", f"PYTHON={BASE}", "--build-arg", "OPTIMIZE=0",
            *packages_of_this_host(), "-t", IMAGE, str(ROOT), timeout=600,
        )  # fmt: skip
        yield made


def make_base(folder: Path) -> Path:
    """A small Debian with Python, as an archive."""
    top, base = folder / "base", folder / "base.tar"
    lab.run(
        "debootstrap", "--variant=minbase", f"--include={INCLUDE}", SUITE, str(top), timeout=600
    )
    lab.run("tar", "-C", str(top), "-cf", str(base), ".", timeout=120)
    shutil.rmtree(top)
    return base


def packages_of_this_host() -> list[str]:
    """How pip here finds packages, for pip there: a mirror, and whom to trust about it."""
    words = []
    for path in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
        if Path(path).exists():
            words += ["-v", f"{path}:{path}:ro"]
    configured = subprocess.run(
        ["python3", "-m", "pip", "config", "list"], capture_output=True, text=True
    ).stdout
    for word in configured.replace("'", " ").split():
        folder = Path(word.removeprefix("file://"))
        if folder.is_absolute() and folder.is_dir():
            words += ["-v", f"{folder}:{folder}:ro"]
    return words


def test_it_serves_without_any_privilege(harbour: vessels.Vessels) -> None:
    """In a namespace of the test's, where its ports are; `test_ports_are_published` has -p."""
    with lab.namespace("docker") as space, harbour.running(space, IMAGE) as name:
        vessels.until(
            lambda: "openmirage.org" in vessels.page(space, "http://127.0.0.1:8080/"),
            lambda: harbour.log(name),
        )
        assert vessels.address(space, "127.0.0.1") == "10.0.0.2"
        harbour.podman("healthcheck", "run", name)
        assert harbour.podman("exec", name, "id", "-u") == "65534"
        with pytest.raises(AssertionError, match="Read-only"):
            harbour.podman("exec", "--user", "0:0", name, "touch", "/srv/appliance.toml")
        harbour.podman("stop", "--time", "8", name)
        state = harbour.podman("inspect", "--format", "{{.State.ExitCode}}", name)
        assert state == "0", harbour.log(name)


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


def test_the_services_of_compose_run(harbour: vessels.Vessels) -> None:
    """What container/compose.yaml says, by hand: a key, the appliance, NSD, with its volumes."""
    settings = ("-v", f"{ROOT / 'container' / 'compose.toml'}:/srv/appliance.toml:ro")
    with lab.namespace("compose") as space:
        harbour.podman(
            "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", *settings,
            "-v", "keys:/srv/keys", "--entrypoint",
            '["/opt/appliance/bin/appliance", "configure", "--keys"]', IMAGE,
        )  # fmt: skip
        volumes = (*settings, "-v", "keys:/srv/keys:ro", "-v", "state:/srv/state")
        with harbour.running(space, IMAGE, *volumes) as name:
            vessels.until(
                lambda: vessels.address(space, "127.0.0.1") == "10.0.0.2",
                lambda: harbour.log(name),
            )
            harbour.podman(
                "run", "--detach", "--name", "secondary",
                "--network", f"ns:/run/netns/{space.name}",
                "-e", "PRIMARY=127.0.0.1@5353", "-e", "ZONES=openmirage.org",
                "-e", "KEY=secondary.openmirage.org", "-e", "KEY_FILE=/keys/secondary.key",
                "-v", "keys:/keys:ro",
                "-v", f"{ROOT / 'container' / 'secondary' / 'start.sh'}:/start.sh:ro",
                "--entrypoint", '["/bin/sh", "/start.sh"]', BASE,
            )  # fmt: skip
            vessels.until(
                lambda: vessels.address(space, "127.0.0.1", 53) == "10.0.0.2",
                lambda: harbour.log("secondary"),
            )
