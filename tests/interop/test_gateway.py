"""`appliance serve` without arguments: pair and gateway, on 127.0.0.1, without privilege."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import lab
from bench.lab import Namespace, Server
from tests.interop.conftest import ENVIRONMENT, ROOT, require

# Root without any capability: what it may do to the network is what anybody may.
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


@pytest.fixture
def space() -> Iterator[Namespace]:
    """A namespace with nothing but a loopback interface: its ports are ours."""
    require("curl", "dig", "setpriv")
    with lab.namespace("pair") as here:
        yield here


def start(space: Namespace, *arguments: str) -> list[str]:
    """Return the command that serves this repository's own site from the pair."""
    settings = ("-c", str(ROOT / "appliance.toml"))
    command = (sys.executable, "-m", "appliance", "serve", *settings, *arguments)
    return space.command(*UNPRIVILEGED, *command)


def curl(space: Namespace, *arguments: str) -> str:
    """Run curl in the namespace."""
    return space.run("curl", "--silent", "--show-error", "--max-time", "30", *arguments)


def ready(server: Server) -> None:
    """Wait for the banner."""
    server.wait(lambda: "http://127.0.0.1" in server.words(), 20)


def test_serves_without_privilege(space: Namespace, tmp_path: Path) -> None:
    """The two lines of README: a page and a name, over UDP and TCP; then a clean end."""
    with lab.serve("appliance", start(space), tmp_path, env=ENVIRONMENT) as server:
        ready(server)
        assert "http://127.0.0.1:8080" in server.words()
        assert "openmirage.org" in server.words()
        page = curl(space, "http://127.0.0.1:8080/")
        assert "<title>" in page
        assert "OpenMirage" in page or "openmirage" in page
        for transport in ("+notcp", "+tcp"):
            told = space.run(
                *("dig", "@127.0.0.1", "-p", "5353", transport, "+tries=1", "openmirage.org", "A")
            )
            assert "status: NOERROR" in told
            assert re.search(r"^openmirage\.org\.\s+\d+\s+IN\s+A\s+\d", told, re.MULTILINE)
        assert server.stop() == 0, server.words()
        assert "Traceback" not in server.words()


def test_every_link_of_the_home_page_answers(space: Namespace, tmp_path: Path) -> None:
    with lab.serve("appliance", start(space), tmp_path, env=ENVIRONMENT) as server:
        ready(server)
        page = curl(space, "http://127.0.0.1:8080/")
        paths = sorted(set(re.findall(r'(?:href|src)="(/[^"#]*)', page)))
        assert len(paths) > 3
        for path in paths:
            status = curl(
                space, "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:8080{path}"
            )
            assert status == "200", path


def test_the_banner_costs_less_than_a_second(space: Namespace, tmp_path: Path) -> None:
    """Of the processor, with the whole site: what else runs stretches that less than the clock."""
    costs = []
    for _ in range(3):
        with lab.serve("appliance", start(space), tmp_path, env=ENVIRONMENT) as server:
            ready(server)
            costs.append(server.cpu_us())
    assert min(costs) < 1_000_000


def test_interrupt_is_a_clean_end(space: Namespace, tmp_path: Path) -> None:
    with lab.serve("appliance", start(space), tmp_path, env=ENVIRONMENT) as server:
        ready(server)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.words()


_HOLD = """
import socket, sys, time
tcp = socket.create_server(("127.0.0.1", 8080))
udp = socket.socket(type=socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 5353))
print("held", flush=True); time.sleep(600)
"""


def test_taken_ports_are_replaced_and_said(space: Namespace, tmp_path: Path) -> None:
    holder = space.command(sys.executable, "-c", _HOLD)
    with lab.serve("holder", holder, tmp_path) as held:
        held.wait(lambda: "held" in held.words(), 10)
        with lab.serve("appliance", start(space), tmp_path, env=ENVIRONMENT) as server:
            ready(server)
            words = server.words()
            assert "8080" in words  # that it is taken is said
            url = re.search(r"http://127\.0\.0\.1:(\d+)", words)
            assert url is not None
            assert url[1] != "8080"
            assert "<title>" in curl(space, f"{url[0]}/")
            port = re.search(r"dig @127\.0\.0\.1 -p (\d+)", words)
            assert port is not None
            assert port[1] != "5353"
            told = space.run("dig", "@127.0.0.1", "-p", port[1], "+tries=1", "openmirage.org")
            assert "status: NOERROR" in told


def test_large_body_crosses_the_pair(space: Namespace, tmp_path: Path) -> None:
    """Back-pressure on both sides of the gateway: every octet, and a reader may stop half-way."""
    body = tmp_path / "site" / "large.bin"
    body.parent.mkdir()
    (body.parent / "index.md").write_text("---\ntitle: Large\n---\n\nOne file.\n")
    data = bytes(range(251)) * 80_000  # 20 MB
    body.write_bytes(data)
    command = start(space, "--site", str(body.parent))
    with lab.serve("appliance", command, tmp_path, env=ENVIRONMENT) as server:
        ready(server)
        target = tmp_path / "copy.bin"
        curl(space, "-o", str(target), "http://127.0.0.1:8080/large.bin")
        assert target.read_bytes() == data
        with pytest.raises(lab.LabError, match="exit 28"):  # curl: operation timed out
            curl(
                *(space, "--limit-rate", "100K", "--max-time", "1", "-o", "/dev/null"),
                "http://127.0.0.1:8080/large.bin",
            )
        assert "<title>" in curl(space, "http://127.0.0.1:8080/")
