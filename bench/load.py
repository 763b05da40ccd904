"""Load generators: one shot of wrk, dnsperf, curl or idle connections, and what it measured.

Each takes the client namespace and returns a `Shot`. An answer that fails, is lost or has the
wrong status ends the benchmark: a figure beside errors means nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.lab import LabError, Namespace


@dataclass(frozen=True)
class Shot:
    """What one shot measured: the figure in the row's unit, and how many requests it took."""

    figure: float
    requests: int
    p99_us: float = 0.0  # latency that 99 of 100 requests stayed below; 0: not measured


def figure(pattern: str, text: str) -> float:
    """Find a number in a load generator's report; `LabError` when it has none."""
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise LabError(f"no {pattern!r} in the load generator's report:\n{text}")
    return float(found[1])


def pin(processor: int | None) -> list[str]:
    """Return the words that pin a command to a processor, none when there is but one."""
    return [] if processor is None else ["taskset", "--cpu-list", str(processor)]


def wrk(
    client: Namespace, processor: int | None, url: str, connections: int, seconds: int, *more: str
) -> Shot:
    """Ask for one URL from this many connections; the figure is requests per second."""
    report = client.run(
        *pin(processor),
        *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency"),
        *(*more, url),
        timeout=seconds + 60,
    )
    if "Non-2xx" in report or "Socket errors" in report:
        raise LabError(f"wrk met errors at {url}:\n{report}")
    return Shot(
        figure(r"^Requests/sec:\s+([\d.]+)", report),
        int(figure(r"^\s+(\d+) requests in", report)),
        percentile(report),
    )


def percentile(report: str) -> float:
    """Return wrk's 99th percentile of latency in µs; `LabError` when the report has none."""
    found = re.search(r"^\s+99%\s+([\d.]+)(us|ms|s)$", report, re.MULTILINE)
    if found is None:
        raise LabError(f"no 99th percentile in wrk's report:\n{report}")
    return float(found[1]) * {"us": 1.0, "ms": 1e3, "s": 1e6}[found[2]]


def dnsperf(
    client: Namespace,
    processor: int | None,
    server: str,
    queries: Path,
    seconds: int,
    source: str = "",
) -> Shot:
    """Ask the list of queries over UDP, over and over; the figure is queries per second.

    `source`: the address to ask from. Without one Linux picks one for each query, which over IPv6
    takes it half a microsecond (RFC 6724), and over IPv4 next to nothing.
    """
    report = client.run(
        *pin(processor),
        *("dnsperf", "-s", server, "-p", "53", "-d", str(queries), "-l", str(seconds)),
        *("-c", "4", "-T", "1", "-q", "200"),
        *(("-a", source) if source else ()),
        timeout=seconds + 60,
    )
    return _queries(server, report)


def barrage(
    client: Namespace, processor: int | None, server: str, queries: Path, seconds: int
) -> Shot:
    """Ask the same by `bench.barrage`, which costs less, and the same over IPv4 and IPv6."""
    return _sender("bench.barrage", client, processor, server, queries, seconds)


def strangers(
    client: Namespace, processor: int | None, server: str, queries: Path, seconds: int
) -> Shot:
    """Ask each query of the list from another port (`bench.strangers`)."""
    return _sender("bench.strangers", client, processor, server, queries, seconds)


def _sender(
    module: str,
    client: Namespace,
    processor: int | None,
    server: str,
    queries: Path,
    seconds: int,
) -> Shot:
    report = client.run(
        *pin(processor),
        *(sys.executable, "-m", module, server, str(queries), str(seconds)),
        timeout=seconds + 60,
    )
    return _queries(server, report)


def _queries(server: str, report: str) -> Shot:
    sent = figure(r"Queries sent:\s+(\d+)", report)
    completed = figure(r"Queries completed:\s+(\d+)", report)
    if completed < 0.999 * sent:  # a full queue may drop a few; a server that loses more is broken
        raise LabError(f"{server} lost queries:\n{report}")
    return Shot(figure(r"Queries per second:\s+([\d.]+)", report), int(completed))


def download(client: Namespace, processor: int | None, url: str, length: int) -> Shot:
    """Fetch one large body and throw it away; the figure is MB per second."""
    report = client.run(
        *pin(processor),
        *("curl", "--silent", "--show-error", "--output", "/dev/null"),
        *("--write-out", "%{http_code} %{size_download} %{time_total}", url),
        timeout=300,
    )
    status, size, seconds = report.split()
    if (int(status), int(size)) != (200, length):
        raise LabError(f"{url}: status {status}, {size} of {length} octets")
    return Shot(length / 1e6 / float(seconds), 1)


@contextmanager
def idle(client: Namespace, address: str, path: str, count: int) -> Iterator[None]:
    """Hold this many connections open, each of which has had one answer."""
    command = [sys.executable, "-m", "bench.client", "idle", address, "80", path, str(count)]
    process = subprocess.Popen(
        client.command(*command),
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise LabError(f"could not open {count} connections to {address}")
        yield
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
