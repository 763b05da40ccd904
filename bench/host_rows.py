"""Rows about the host itself, beside itself: IPv6 beside IPv4, several workers beside one.

The peer is the appliance, too. A ratio of 1.00 means that an address of the other family costs
nothing. For workers look at the processor time of a request, which must not grow, and at "also":
how many processors were busy; for requests each second can only rise where the load generator
leaves one free. Of two processors it has one, but in the row of requests that take the long way
through HTTP, dear to answer and cheap to send: there all of them may use both.

The rows of DNS are asked by `bench.barrage`, and by dnsperf besides ("also"). With dnsperf alone
they would measure dnsperf: it takes more processor for a query than the server that it asks, so
that the server's turns are never full.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from bench import load, material, rows
from bench.lab import LabError, Server, serve
from bench.load import Shot
from bench.rows import OURS_ADDRESS, OURS_HOST, TAP, Bench, Files, Result, Side

OURS6, OURS6_HOST = "fd77:1::2", "fd77:1::1"
MANY_TAP, MANY_ADDRESS, MANY_HOST = "tap1", "10.77.3.2", "10.77.3.1"
_BESIDE = {OURS6: OURS6_HOST, OURS_ADDRESS: OURS_HOST, MANY_ADDRESS: MANY_HOST}
ONE = "one worker"
IPV4 = "IPv4"


@contextmanager
def _appliance(
    bench: Bench, files: Files, name: str, ready: str, *words: str, pinned: bool = True
) -> Iterator[Server]:
    """Run the appliance on a link until it serves `ready`, a host as in a URL."""
    settings = material.write_settings(bench.folder)
    command = [
        *load.pin(bench.server_cpu if pinned else None),
        *(sys.executable, "-m", "appliance", "serve", "-c", str(settings)),
        *("--site", str(files.site), "--zones", str(files.zones), *words),
    ]
    environment = {"PYTHONPATH": rows.build(), "PYTHONUNBUFFERED": "1"}
    with serve(name, bench.client.command(*command), bench.folder, env=environment) as server:
        server.wait(lambda: _serves(bench, f"http://{ready}/index.txt"), rows.START_SECONDS)
        yield server


def _serves(bench: Bench, url: str) -> bool:
    command = ("curl", "-g", "-s", "-f", "-o", "/dev/null", "--max-time", "1", url)
    try:
        bench.client.run(*command)
    except LabError:
        return False
    return True


Ask = Callable[[Bench, Server, str, str], Side]
"""Measures a server at one of its addresses, and at the path of a page."""


def _asked(shoot: Callable[[Bench, str, str], Shot]) -> Ask:
    """As `rows.measure`, with how many processors the server kept busy."""

    def ask(bench: Bench, server: Server, address: str, path: str) -> Side:
        cpu, began = server.cpu_us(), time.monotonic()
        shot = shoot(bench, address, path)
        used = server.cpu_us() - cpu
        busy = used / 1e6 / (time.monotonic() - began)
        more = {"processors busy": busy}
        return Side(shot.figure, used / max(shot.requests, 1), shot.p99_us, more)

    return ask


# ---- IPv6 beside IPv4


def _both_families(
    row: str,
    unit: str,
    page: tuple[str, int] | None,
    ask: Ask,
) -> Callable[[Bench], Result]:
    """Return a row of one server, asked at its two addresses in turn."""

    def measure(bench: Bench) -> Result:
        with ExitStack() as stack:
            files = rows.open_files(bench, stack)
            made = material.write_page(files.site, *page) if page is not None else None
            bench.client.run("ip", "address", "replace", f"{OURS6_HOST}/64", "dev", TAP, "nodad")
            server = stack.enter_context(
                _appliance(
                    bench, files, "appliance", f"[{OURS6}]", "--link", f"tap:{TAP}",
                    "--address", f"{OURS_ADDRESS}/24", "--gateway", OURS_HOST,
                    "--address", f"{OURS6}/64",
                )
            )  # fmt: skip
            path = made.path if made is not None else ""
            if made is not None:
                rows.check_page(bench.client, OURS_ADDRESS, made)
            return rows.alternate(
                bench,
                Result(row, IPV4, unit),
                lambda: ask(bench, server, OURS6, path),
                lambda: ask(bench, server, OURS_ADDRESS, path),
            )

    return measure


def _url(address: str, path: str) -> str:
    return f"http://[{address}]{path}" if ":" in address else f"http://{address}{path}"


def _wrk(bench: Bench, address: str, path: str) -> Shot:
    url = _url(address, path)
    return load.wrk(bench.client, bench.generator_cpu, url, 32, bench.seconds)


def _download(bench: Bench, address: str, path: str) -> Shot:
    url = _url(address, path)
    return load.download(bench.client, bench.generator_cpu, url, material.LARGE)


def _unusual(bench: Bench, address: str, path: str) -> Shot:
    """Requests that are read field by field: another method, content, fields that nobody knows."""
    lua = bench.folder / "unusual.lua"
    fields = (f'wrk.headers["X-Field-{n}"] = "{n * 1234567}"' for n in range(16))
    lua.write_text("\n".join(['wrk.method = "OPTIONS"', 'wrk.body = "content"', *fields, ""]))
    more = ("-s", str(lua))
    url = _url(address, path)
    return load.wrk(bench.client, bench.generator_cpu, url, 32, bench.seconds, *more)


def _strangers(bench: Bench, address: str, path: str) -> Shot:
    queries = material.write_queries(bench.folder)
    return load.strangers(bench.client, bench.generator_cpu, address, queries, bench.seconds)


def _queries(bench: Bench, server: Server, address: str, path: str) -> Side:
    """Queries over UDP: as many as it can answer, and besides, as many as dnsperf can ask."""
    asking = (
        bench.client, bench.generator_cpu, address, material.write_queries(bench.folder),
        bench.seconds,
    )  # fmt: skip
    side = _asked(lambda *_: load.barrage(*asking))(bench, server, address, path)
    other = _asked(lambda *_: load.dnsperf(*asking, _BESIDE[address]))(bench, server, address, path)
    more = {"queries/s by dnsperf": other.figure, "cpu µs by dnsperf": other.cpu_us}
    return replace(side, more=side.more | more)


# ---- several workers beside one


def _workers(
    row: str,
    count: int,
    unit: str,
    page: tuple[str, int],
    ask: Ask,
    *,
    free: bool = False,
) -> Callable[[Bench], Result]:
    """Return a row of several workers on the queues of one tap, beside one on another tap.

    `free`: servers and generator may use every processor.
    """

    def measure(bench: Bench) -> Result:
        if free:
            bench = replace(bench, server_cpu=None, generator_cpu=None)
        with ExitStack() as stack:
            files = rows.open_files(bench, stack)
            made = material.write_page(files.site, *page)
            # A tap with queues is made by whoever opens them; with two processors the generator
            # has one, and all workers share the other, as the one beside them has it.
            crowded = len(os.sched_getaffinity(0)) <= 2
            spread = replace(bench, server_cpu=bench.server_cpu if crowded else None)
            many = stack.enter_context(
                _appliance(
                    spread, files, "workers", MANY_ADDRESS, "--link", f"tap:{MANY_TAP}",
                    "--address", f"{MANY_ADDRESS}/24", "--host-address", f"{MANY_HOST}/24",
                    "--workers", str(count),
                )
            )  # fmt: skip
            one = stack.enter_context(rows.appliance(bench, files.site, files.zones))
            for address in (MANY_ADDRESS, OURS_ADDRESS):
                rows.check_page(bench.client, address, made)
            return rows.alternate(
                bench,
                Result(row, ONE, unit),
                lambda: ask(bench, many, MANY_ADDRESS, made.path),
                lambda: ask(bench, one, OURS_ADDRESS, made.path),
            )

    return measure


SMALL = ("1k.txt", material.SMALL)
LARGE = ("1g.bin", material.LARGE)
ROWS: dict[str, Callable[[Bench], Result]] = {
    "http-1k-c32-v6": _both_families("http-1k-c32-v6", "requests/s", SMALL, _asked(_wrk)),
    "http-1g-v6": _both_families("http-1g-v6", "MB/s", LARGE, _asked(_download)),
    "dns-ports-v6": _both_families("dns-ports-v6", "queries/s", None, _asked(_strangers)),
    "dns-mixed-v6": _both_families("dns-mixed-v6", "queries/s", None, _queries),
    "http-1k-c32-workers-2": _workers(
        "http-1k-c32-workers-2", 2, "requests/s", SMALL, _asked(_wrk)
    ),
    "http-unusual-workers-2": _workers(
        "http-unusual-workers-2", 2, "requests/s", SMALL, _asked(_unusual), free=True
    ),
    "dns-mixed-workers-2": _workers("dns-mixed-workers-2", 2, "queries/s", SMALL, _queries),
}
