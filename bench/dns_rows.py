"""More rows: the name server beside NSD and Knot, under five kinds of load, and a large zone.

Hot names that everybody asks for, the mixture of `material`, a flood of random subdomains that do
not exist, the mixture with each query from another port, as resolvers ask, and the mixture over
four TCP connections with many queries under way. Both peers run one worker, give minimal answers
and log nothing. The mixture over a zone of a million records has no peer but ourselves: the same
server is asked of a small zone, too.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import load, material, rows
from bench.lab import LabError, Server, serve
from bench.load import Shot
from bench.rows import OURS_ADDRESS, PEER_ADDRESS, Bench, Result

HOT = 100  # names that everybody asks for
FLOOD = 200_000  # names that do not exist, each different
LARGE_SECONDS = 120.0  # until a million records are served, at most
_SEED = 7


def _hot(folder: Path) -> Path:
    chance = random.Random(_SEED)
    return _write(folder, "hot", [f"host{chance.randrange(HOT)}" for _ in range(20_000)])


def _flood(folder: Path) -> Path:
    chance = random.Random(_SEED)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    labels = ["".join(chance.choices(letters, k=chance.randrange(6, 16))) for _ in range(FLOOD)]
    return _write(folder, "flood", labels)


def _write(folder: Path, name: str, labels: list[str]) -> Path:
    path = folder / f"{name}.txt"
    path.write_text("".join(f"{label}.{material.ORIGIN} A\n" for label in labels))
    return path


LOADS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "hot": (_hot, "udp"),
    "mixed": (material.write_queries, "udp"),
    "flood": (_flood, "udp"),
    "ports": (material.write_queries, "ports"),
    "tcp": (material.write_queries, "tcp"),
}
"""What is asked, and over what; "ports": over UDP, too."""


def _ask(bench: Bench, server: str, queries: Path, mode: str) -> Shot:
    """Ask the list over and over, 200 outstanding from four sockets or connections, or many."""
    if mode == "ports":
        asking = (bench.client, bench.generator_cpu, server, queries, bench.seconds)
        return load.strangers(*asking)
    report = bench.client.run(
        *load.pin(bench.generator_cpu),
        *("dnsperf", "-s", server, "-p", "53", "-d", str(queries), "-l", str(bench.seconds)),
        *("-m", mode, "-c", "4", "-T", "1", "-q", "200"),
        timeout=bench.seconds + 60,
    )
    sent = load.figure(r"Queries sent:\s+(\d+)", report)
    completed = load.figure(r"Queries completed:\s+(\d+)", report)
    if completed < 0.999 * sent:
        raise LabError(f"{server} lost queries:\n{report}")
    return Shot(load.figure(r"Queries per second:\s+([\d.]+)", report), int(completed))


@contextmanager
def knot(bench: Bench, zones: Path) -> Iterator[Server]:
    """Run Knot with one worker of each kind in the server namespace."""
    folder = bench.folder / "knot"
    folder.mkdir(exist_ok=True)
    path = folder / "knot.conf"
    path.write_text(f"""\
server:
    rundir: {folder}
    listen: {PEER_ADDRESS}@53
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    tcp-max-clients: 100
database:
    storage: {folder}
template:
  - id: default
    storage: {zones}
    journal-content: none
    zonefile-sync: -1
    semantic-checks: off
zone:
  - domain: {material.ORIGIN}
    file: bench.test.zone
log:
  - target: stderr
    any: error
""")
    command = bench.server.command(*load.pin(bench.server_cpu), "knotd", "-c", str(path))
    with serve("knot", command, bench.folder) as server:
        server.wait(lambda: _answers(bench), rows.START_SECONDS)
        yield server


def _answers(bench: Bench) -> bool:
    asked = (sys.executable, "-m", "bench.client", "ask", PEER_ADDRESS, material.ORIGIN)
    try:
        bench.client.run(*asked)
    except LabError:
        return False
    return True


def _row(kind: str, name: str) -> Callable[[Bench], Result]:
    """A row of one load beside one peer."""
    write, mode = LOADS[kind]
    row = f"dns-{kind}" if name == "nsd" else f"dns-{kind}-{name}"

    def measure(bench: Bench) -> Result:
        with ExitStack() as stack:
            files = rows.open_files(bench, stack)
            asked = write(bench.folder)
            ours = stack.enter_context(rows.appliance(bench, files.site, files.zones))
            start = rows.nsd if name == "nsd" else knot
            peer = stack.enter_context(start(bench, files.zones))
            check = (sys.executable, "-m", "bench.client", "dns", OURS_ADDRESS, PEER_ADDRESS)
            bench.client.run(*check)
            return rows.alternate(
                bench,
                Result(row, name, "queries/s"),
                lambda: rows.measure(ours, lambda: _ask(bench, OURS_ADDRESS, asked, mode)),
                lambda: rows.measure(peer, lambda: _ask(bench, PEER_ADDRESS, asked, mode)),
            )

    return measure


def _large(bench: Bench) -> Result:
    """Our answers from a million records beside those from a thousand, of one server."""
    with ExitStack() as stack:
        files = rows.open_files(bench, stack)
        small = material.write_queries(bench.folder)
        large = material.write_large_queries(bench.folder, material.write_large(files.zones))
        before = time.monotonic()
        ours = stack.enter_context(
            rows.appliance(bench, files.site, files.zones, patience=LARGE_SECONDS)
        )
        sys.stderr.write(
            f"dns-million: serves after {time.monotonic() - before:.1f} s, "
            f"{ours.rss_kb() / 1024:,.0f} MB\n"
        )
        return rows.alternate(
            bench,
            Result("dns-million", "a small zone", "queries/s"),
            lambda: rows.measure(ours, lambda: _ask(bench, OURS_ADDRESS, large, "udp")),
            lambda: rows.measure(ours, lambda: _ask(bench, OURS_ADDRESS, small, "udp")),
        )


ROWS: dict[str, Callable[[Bench], Result]] = {
    "dns-million": _large,
} | {
    (f"dns-{kind}" if name == "nsd" else f"dns-{kind}-{name}"): _row(kind, name)
    for kind in LOADS
    for name in ("nsd", "knot")
    if (kind, name) != ("mixed", "nsd")  # `rows` has it
}
