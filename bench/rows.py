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
START_SECONDS = 60.0  # the gigabyte has to be read and hashed first
SETTLE_SECONDS = 0.5  # between rounds, for connections to be closed on both ends


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
    p99_us_ours: float = 0.0  # 99th percentile of latency; 0: not measured
    p99_us_peer: float = 0.0
    more: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Whatever else a row measures, under its name and unit: (ours, the peer's)."""


@dataclass(frozen=True)
class Side:
    """What one server did in one round."""

    figure: float
    cpu_us: float
    p99_us: float = 0.0
    more: dict[str, float] = field(default_factory=dict)


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

    def more(self) -> dict[str, tuple[float, float]]:
        """Return the medians of whatever else was measured: name to (ours, the peer's)."""
        names = self.rounds[0].more if self.rounds else {}
        return {
            name: (
                statistics.median(each.more[name][0] for each in self.rounds),
                statistics.median(each.more[name][1] for each in self.rounds),
            )
            for name in names
        }

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


def build() -> str:
    """Return the folder that holds the package to be measured."""
    return os.environ.get("APPLIANCE_BUILD") or str(Path(__file__).parent.parent)


@contextmanager
def appliance(
    bench: Bench, site: Path, zones: Path, patience: float = START_SECONDS
) -> Iterator[Server]:
    """Run the appliance on the tap of the client namespace."""
    settings = material.write_settings(bench.folder)
    command = [
        *load.pin(bench.server_cpu),
        *(sys.executable, "-m", "appliance", "serve", "-c", str(settings)),
        *("--link", f"tap:{TAP}", "--address", f"{OURS_ADDRESS}/24", "--gateway", OURS_HOST),
        *("--site", str(site), "--zones", str(zones)),
    ]
    environment = {"PYTHONPATH": build(), "PYTHONUNBUFFERED": "1"}
    words = bench.client.command(*command)
    with serve("appliance", words, bench.folder, env=environment) as server:
        server.wait(lambda: _curl(bench.client, f"http://{OURS_ADDRESS}/index.txt"), patience)
        yield server


@contextmanager
def nginx(bench: Bench, site: Path) -> Iterator[Server]:
    """Run nginx in the server namespace."""
    settings = material.write_nginx(bench.folder, site, PEER_ADDRESS)
    command = [*load.pin(bench.server_cpu), "nginx", "-e", "stderr", "-c", str(settings)]
    with serve("nginx", bench.server.command(*command), bench.folder) as server:
        server.wait(lambda: _curl(bench.client, f"http://{PEER_ADDRESS}/index.txt"), START_SECONDS)
        yield server


@contextmanager
def nsd(bench: Bench, zones: Path) -> Iterator[Server]:
    """Run NSD in the server namespace."""
    settings = material.write_nsd(bench.folder, zones, PEER_ADDRESS)
    command = [*load.pin(bench.server_cpu), "nsd", "-d", "-c", str(settings)]
    with serve("nsd", bench.server.command(*command), bench.folder) as server:
        server.wait(lambda: _knows_zone(bench.client, PEER_ADDRESS), START_SECONDS)
        yield server


@dataclass(frozen=True)
class Files:
    """What one row serves."""

    site: Path
    zones: Path


def open_files(bench: Bench, stack: ExitStack) -> Files:
    """Make the folders of one row, emptied at its end: the gigabyte must not stay in memory."""
    files = Files(bench.folder / "site", bench.folder / "zones")
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


def measure(server: Server, shoot: Callable[[], Shot]) -> Side:
    """Return the figure of one shot, and the server's µs per request."""
    before = server.cpu_us()
    shot = shoot()
    cpu = (server.cpu_us() - before) / max(shot.requests, 1)
    return Side(shot.figure, cpu, shot.p99_us)


def alternate(
    bench: Bench, result: Result, ours: Callable[[], Side], peer: Callable[[], Side]
) -> Result:
    """Measure ours and the peer in turn, each round beginning with the other one."""
    for number in range(bench.rounds):
        if number % 2:
            theirs = peer()
            own = ours()
        else:
            own = ours()
            theirs = peer()
        more = {name: (own.more[name], theirs.more[name]) for name in own.more}
        result.rounds.append(
            Round(
                *(own.figure, theirs.figure, own.cpu_us, theirs.cpu_us),
                *(own.p99_us, theirs.p99_us, more),
            )
        )
        sys.stderr.write(
            f"{result.row} round {number + 1}: {own.figure:,.1f} against {theirs.figure:,.1f} "
            f"{result.unit}\n"
        )
        time.sleep(SETTLE_SECONDS)
    return result


def dns_mixed(bench: Bench) -> Result:
    """Mixed queries over UDP, 200 outstanding from four sockets."""
    with ExitStack() as stack:
        files = open_files(bench, stack)
        asked = material.write_queries(bench.folder)
        ours = stack.enter_context(appliance(bench, files.site, files.zones))
        peer = stack.enter_context(nsd(bench, files.zones))
        bench.client.run(*(sys.executable, "-m", "bench.client", "dns", OURS_ADDRESS, PEER_ADDRESS))

        def shoot(address: str) -> Callable[[], Shot]:
            return lambda: load.dnsperf(
                bench.client, bench.generator_cpu, address, asked, bench.seconds
            )

        return alternate(
            bench,
            Result("dns-mixed", "nsd", "queries/s"),
            lambda: measure(ours, shoot(OURS_ADDRESS)),
            lambda: measure(peer, shoot(PEER_ADDRESS)),
        )


def _http(
    bench: Bench, row: str, unit: str, name: str, length: int, shoot: Callable[[str], Shot]
) -> Result:
    """Serve one file from both and measure shots at its URL."""
    with ExitStack() as stack:
        files = open_files(bench, stack)
        page = material.write_page(files.site, name, length)
        ours = stack.enter_context(appliance(bench, files.site, files.zones))
        peer = stack.enter_context(nginx(bench, files.site))
        for address in (OURS_ADDRESS, PEER_ADDRESS):
            check_page(bench.client, address, page)
        return alternate(
            bench,
            Result(row, "nginx", unit),
            lambda: measure(ours, lambda: shoot(f"http://{OURS_ADDRESS}{page.path}")),
            lambda: measure(peer, lambda: shoot(f"http://{PEER_ADDRESS}{page.path}")),
        )


def _requests(
    row: str, name: str, length: int, connections: int, *more: str
) -> Callable[[Bench], Result]:
    """Return a row of small requests, by wrk."""

    def measure_requests(bench: Bench) -> Result:
        def shoot(url: str) -> Shot:
            return load.wrk(
                bench.client, bench.generator_cpu, url, connections, bench.seconds, *more
            )

        return _http(bench, row, "requests/s", name, length, shoot)

    return measure_requests


def http_1g(bench: Bench) -> Result:
    """One download of 1 GB, by curl."""

    def shoot(url: str) -> Shot:
        return load.download(bench.client, bench.generator_cpu, url, material.LARGE)

    return _http(bench, "http-1g", "MB/s", "1g.bin", material.LARGE, shoot)


def _idle(row: str, count: int) -> Callable[[Bench], Result]:
    """Return a row of resident memory per idle connection; a fresh server for each round."""

    def cost(bench: Bench, server: Server, address: str, page: Page) -> Side:
        check_page(bench.client, address, page)
        with load.idle(bench.client, address, page.path, 10):
            pass  # what is imported or allocated once is no connection's cost
        time.sleep(SETTLE_SECONDS)
        memory, cpu = server.rss_kb(), server.cpu_us()
        with load.idle(bench.client, address, page.path, count):
            time.sleep(SETTLE_SECONDS)
            return Side((server.rss_kb() - memory) / count, (server.cpu_us() - cpu) / count)

    def measure_idle(bench: Bench) -> Result:
        with ExitStack() as stack:
            files = open_files(bench, stack)
            page = material.write_page(files.site, "1k.txt", material.SMALL)

            def ours() -> Side:
                with appliance(bench, files.site, files.zones) as server:
                    return cost(bench, server, OURS_ADDRESS, page)

            def peer() -> Side:
                with nginx(bench, files.site) as server:
                    return cost(bench, server, PEER_ADDRESS, page)

            return alternate(bench, Result(row, "nginx", "KB/connection"), ours, peer)

    return measure_idle


ROWS: dict[str, Callable[[Bench], Result]] = {
    "dns-mixed": dns_mixed,
    "http-1k-c1": _requests("http-1k-c1", "1k.txt", material.SMALL, 1),
    "http-1k-c32": _requests("http-1k-c32", "1k.txt", material.SMALL, 32),
    "http-1k-c256": _requests("http-1k-c256", "1k.txt", material.SMALL, 256),
    "http-100k-c32": _requests("http-100k-c32", "100k.bin", material.MEDIUM, 32),
    "http-1g": http_1g,
    "http-conn": _requests("http-conn", "1k.txt", material.SMALL, 32, "-H", "Connection: close"),
    "idle-1000": _idle("idle-1000", 1_000),
    "idle-10000": _idle("idle-10000", 10_000),
}
