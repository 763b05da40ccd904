"""The rows of the table: who serves, what is asked, how often, and what is measured.

A row opens its own servers, ours and the peer's, on the same files; checks that both give the
right answers; and then measures them in alternation. To add a row, write a function that takes a
`Bench` and returns a `Result`, and name it in `ROWS`.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import load, material
from bench.lab import LabError, Namespace, Server, serve
from bench.load import Shot
from bench.material import Page

OURS_ADDRESS, OURS_HOST = "10.77.1.2", "10.77.1.1"  # the appliance, and the tap's kernel side
PEER_ADDRESS, PEER_HOST = "10.77.2.2", "10.77.2.1"  # the server namespace, and the client's veth
TAP = "tap0"
_START_SECONDS = 60.0  # the gigabyte has to be read and hashed first
_SETTLE_SECONDS = 0.5  # between rounds, for connections to be closed on both ends
_IDLE = 1000  # connections


@dataclass(frozen=True)
class Bench:
    """What every row is given: the laboratory and how long to measure."""

    client: Namespace
    server: Namespace
    folder: Path
    rounds: int
    seconds: int
    generator_cpu: int | None
    server_cpu: int | None


@dataclass(frozen=True)
class Round:
    """One round: the figures in the row's unit, and server processor time per request in µs."""

    ours: float
    peer: float
    cpu_us_ours: float
    cpu_us_peer: float


@dataclass
class Result:
    """A row of the table."""

    row: str
    peer_name: str
    unit: str
    rounds: list[Round] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Return the median over the rounds of one of a round's values."""
        return statistics.median(float(getattr(each, name)) for each in self.rounds)

    def spread(self, name: str) -> float:
        """Return how far the extremes lie apart, as a fraction of the median."""
        values = [getattr(each, name) for each in self.rounds]
        return (max(values) - min(values)) / self.median(name) if self.median(name) else 0.0

    @property
    def ratio(self) -> float:
        """Ours over the peer's, of the medians."""
        return self.median("ours") / self.median("peer") if self.median("peer") else float("inf")


# ---- servers


def _curl(client: Namespace, url: str) -> bool:
    command = ("curl", "--silent", "--fail", "--output", "/dev/null", "--max-time", "1", url)
    try:
        client.run(*command)
    except LabError:
        return False
    return True


def _knows_zone(client: Namespace, address: str) -> bool:
    try:
        client.run(sys.executable, "-m", "bench.client", "ask", address, material.ORIGIN)
    except LabError:
        return False
    return True


@contextmanager
def appliance(bench: Bench, site: Path, zones: Path) -> Iterator[Server]:
    """Run the appliance on the tap of the client namespace."""
    settings = material.write_settings(bench.folder)
    command = [
        *load.pin(bench.server_cpu),
        *(sys.executable, "-m", "appliance", "serve", "-c", str(settings)),
        *("--link", f"tap:{TAP}", "--address", f"{OURS_ADDRESS}/24", "--gateway", OURS_HOST),
        *("--site", str(site), "--zones", str(zones)),
    ]
    root = os.environ.get("APPLIANCE_BUILD") or str(Path(__file__).parent.parent)
    environment = {"PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}
    words = bench.client.command(*command)
    with serve("appliance", words, bench.folder, env=environment) as server:
        server.wait(lambda: _curl(bench.client, f"http://{OURS_ADDRESS}/index.txt"), _START_SECONDS)
        yield server


@contextmanager
def nginx(bench: Bench, site: Path) -> Iterator[Server]:
    """Run nginx in the server namespace."""
    settings = material.write_nginx(bench.folder, site, PEER_ADDRESS)
    command = [*load.pin(bench.server_cpu), "nginx", "-e", "stderr", "-c", str(settings)]
    with serve("nginx", bench.server.command(*command), bench.folder) as server:
        server.wait(lambda: _curl(bench.client, f"http://{PEER_ADDRESS}/index.txt"), _START_SECONDS)
        yield server


@contextmanager
def nsd(bench: Bench, zones: Path) -> Iterator[Server]:
    """Run NSD in the server namespace."""
    settings = material.write_nsd(bench.folder, zones, PEER_ADDRESS)
    command = [*load.pin(bench.server_cpu), "nsd", "-d", "-c", str(settings)]
    with serve("nsd", bench.server.command(*command), bench.folder) as server:
        server.wait(lambda: _knows_zone(bench.client, PEER_ADDRESS), _START_SECONDS)
        yield server


@dataclass(frozen=True)
class _Files:
    """What one row serves."""

    site: Path
    zones: Path


def _files(bench: Bench, stack: ExitStack) -> _Files:
    """Make the folders of one row, emptied at its end: the gigabyte must not stay in memory."""
    files = _Files(bench.folder / "site", bench.folder / "zones")
    for folder in (files.site, files.zones):
        folder.mkdir()
        stack.callback(_empty, folder)
    (files.site / "index.md").write_text("---\ntitle: Benchmark\n---\n\nNothing to see.\n")
    (files.site / "index.txt").write_text("ready\n")
    material.write_zone(files.zones)
    return files


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


# ---- checks


def check_page(client: Namespace, address: str, page: Page) -> None:
    """Fetch a page once and compare status, Content-Length, length and hash."""
    body = Path("/dev/shm") if page.length > 10_000_000 else Path("/tmp")
    target = body / f"{client.name}.body"
    try:
        report = client.run(
            *("curl", "--silent", "--show-error", "--output", str(target)),
            *("--write-out", "%{http_code} %{size_download} %header{content-length}"),
            f"http://{address}{page.path}",
            timeout=300,
        )
        if report.split() != ["200", str(page.length), str(page.length)]:
            raise LabError(f"{address}{page.path}: status, length, Content-Length are {report}")
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    finally:
        target.unlink(missing_ok=True)
    if found != page.sha256:
        raise LabError(f"{address}{page.path}: the body has the wrong hash")


# ---- measuring


def _measure(server: Server, shoot: Callable[[], Shot]) -> tuple[float, float]:
    """Return the figure of one shot, and the server's µs per request."""
    before = server.cpu_us()
    shot = shoot()
    return shot.figure, (server.cpu_us() - before) / max(shot.requests, 1)


def _alternate(
    bench: Bench,
    result: Result,
    ours: Callable[[], tuple[float, float]],
    peer: Callable[[], tuple[float, float]],
) -> Result:
    """Measure ours and the peer in turn, each round beginning with the other one."""
    for number in range(bench.rounds):
        if number % 2:
            peer_figure, peer_cpu = peer()
            ours_figure, ours_cpu = ours()
        else:
            ours_figure, ours_cpu = ours()
            peer_figure, peer_cpu = peer()
        result.rounds.append(Round(ours_figure, peer_figure, ours_cpu, peer_cpu))
        sys.stderr.write(
            f"{result.row} round {number + 1}: {ours_figure:,.0f} against {peer_figure:,.0f} "
            f"{result.unit}\n"
        )
        time.sleep(_SETTLE_SECONDS)
    return result


def dns_mixed(bench: Bench) -> Result:
    """Mixed queries over UDP, 200 outstanding from four sockets."""
    with ExitStack() as stack:
        files = _files(bench, stack)
        asked = material.write_queries(bench.folder)
        ours = stack.enter_context(appliance(bench, files.site, files.zones))
        peer = stack.enter_context(nsd(bench, files.zones))
        bench.client.run(*(sys.executable, "-m", "bench.client", "dns", OURS_ADDRESS, PEER_ADDRESS))

        def shoot(address: str) -> Callable[[], Shot]:
            return lambda: load.dnsperf(
                bench.client, bench.generator_cpu, address, asked, bench.seconds
            )

        return _alternate(
            bench,
            Result("dns-mixed", "nsd", "queries/s"),
            lambda: _measure(ours, shoot(OURS_ADDRESS)),
            lambda: _measure(peer, shoot(PEER_ADDRESS)),
        )


def _http(
    bench: Bench, row: str, unit: str, name: str, length: int, shoot: Callable[[str], Shot]
) -> Result:
    """Serve one file from both and measure shots at its URL."""
    with ExitStack() as stack:
        files = _files(bench, stack)
        page = material.write_page(files.site, name, length)
        ours = stack.enter_context(appliance(bench, files.site, files.zones))
        peer = stack.enter_context(nginx(bench, files.site))
        for address in (OURS_ADDRESS, PEER_ADDRESS):
            check_page(bench.client, address, page)
        return _alternate(
            bench,
            Result(row, "nginx", unit),
            lambda: _measure(ours, lambda: shoot(f"http://{OURS_ADDRESS}{page.path}")),
            lambda: _measure(peer, lambda: shoot(f"http://{PEER_ADDRESS}{page.path}")),
        )


def _requests(
    row: str, name: str, length: int, connections: int, *more: str
) -> Callable[[Bench], Result]:
    """Return a row of small requests, by wrk."""

    def measure(bench: Bench) -> Result:
        def shoot(url: str) -> Shot:
            return load.wrk(
                bench.client, bench.generator_cpu, url, connections, bench.seconds, *more
            )

        return _http(bench, row, "requests/s", name, length, shoot)

    return measure


def http_1g(bench: Bench) -> Result:
    """One download of 1 GB, by curl."""

    def shoot(url: str) -> Shot:
        return load.download(bench.client, bench.generator_cpu, url, material.LARGE)

    return _http(bench, "http-1g", "MB/s", "1g.bin", material.LARGE, shoot)


def idle_1000(bench: Bench) -> Result:
    """Resident memory of each of a thousand idle connections; a fresh server for each round."""
    with ExitStack() as stack:
        files = _files(bench, stack)
        page = material.write_page(files.site, "1k.txt", material.SMALL)

        def cost(server: Server, address: str) -> tuple[float, float]:
            check_page(bench.client, address, page)
            with load.idle(bench.client, address, page.path, 10):
                pass  # what is imported or allocated once is no connection's cost
            time.sleep(_SETTLE_SECONDS)
            memory, cpu = server.rss_kb(), server.cpu_us()
            with load.idle(bench.client, address, page.path, _IDLE):
                time.sleep(_SETTLE_SECONDS)
                return (server.rss_kb() - memory) / _IDLE, (server.cpu_us() - cpu) / _IDLE

        def ours() -> tuple[float, float]:
            with appliance(bench, files.site, files.zones) as server:
                return cost(server, OURS_ADDRESS)

        def peer() -> tuple[float, float]:
            with nginx(bench, files.site) as server:
                return cost(server, PEER_ADDRESS)

        return _alternate(bench, Result("idle-1000", "nginx", "KB/connection"), ours, peer)


ROWS: dict[str, Callable[[Bench], Result]] = {
    "dns-mixed": dns_mixed,
    "http-1k-c1": _requests("http-1k-c1", "1k.txt", material.SMALL, 1),
    "http-1k-c32": _requests("http-1k-c32", "1k.txt", material.SMALL, 32),
    "http-1k-c256": _requests("http-1k-c256", "1k.txt", material.SMALL, 256),
    "http-100k-c32": _requests("http-100k-c32", "100k.bin", material.MEDIUM, 32),
    "http-1g": http_1g,
    "http-conn": _requests("http-conn", "1k.txt", material.SMALL, 32, "-H", "Connection: close"),
    "idle-1000": idle_1000,
}
