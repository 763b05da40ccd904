"""More rows: what only TCP decides. A flood of SYNs, churn, an upload, a long lossy path.

Each opens its servers as the rows of `rows` do, and adds what those cannot show: memory, how a
rate holds under attack, goodput through a relay (`relay`) that delays and drops the same packets
for both by a seeded schedule.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import lab, load, material, rows
from bench.lab import LabError, Namespace, Server
from bench.load import Shot
from bench.rows import (
    OURS_ADDRESS,
    PEER_ADDRESS,
    PEER_HOST,
    SETTLE_SECONDS,
    TAP,
    Bench,
    Result,
    Side,
)

ROOT = Path(__file__).parent.parent
SYNS = 100_000  # of a flood
FLOOD_SECONDS = 5  # that it takes, however long the other rows are: 20,000 a second
FLOOD_CONNECTIONS = 32  # that are established when it comes
CHURN = 200_000  # connections opened and closed
CHURN_PATIENCE = 70.0  # seconds for memory to come back: TIME-WAIT is a minute
UPLOAD = 1_000_000_000  # octets
SINK_PORT = 9  # discard, RFC 863
WAN_RTT = 0.05  # seconds
WAN_LOSS = 0.01  # of the packets towards the client
WAN_RATE = 100_000_000  # bits per second
WAN_OCTETS = 6_000_000  # one download: about a quarter of a minute
WAN_NETWORK, WAN_ROUTER, WAN_CLIENT = "10.77.3.0/24", "10.77.3.1", "10.77.3.2"
_MB = 1024.0  # KB


@contextmanager
def _helper(space: Namespace, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m bench.<arguments>` in a namespace, its ends of stdin and stdout open."""
    process = subprocess.Popen(
        space.command(sys.executable, "-m", f"bench.{arguments[0]}", *arguments[1:]),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise LabError(f"a helper of the benchmark failed: {process.args!r}")
    return line.strip()


# ---- a flood of SYNs


def syn_flood(bench: Bench) -> Result:
    """Requests on established connections while SYNs come from random addresses, in % of before."""

    def attack(server: Server, device: str, address: str, url: str) -> Side:
        dropped = ("cat", f"/sys/class/net/{device}/statistics/tx_dropped")

        def requests() -> Shot:
            return load.wrk(
                *(bench.client, bench.generator_cpu, url, FLOOD_CONNECTIONS, FLOOD_SECONDS)
            )

        calm = requests()
        time.sleep(SETTLE_SECONDS)
        memory, cpu, lost = server.rss_kb(), server.cpu_us(), int(bench.client.run(*dropped))
        arguments = ("client", "flood", address, "80", str(SYNS), str(FLOOD_SECONDS))
        with _helper(bench.client, *arguments) as flood, ThreadPoolExecutor(1) as pool:
            _line(flood)  # its packets are made
            attacked = pool.submit(requests)
            assert flood.stdin is not None
            flood.stdin.write("go\n")
            flood.stdin.flush()
            time.sleep(FLOOD_SECONDS / 2)
            visit = _new_connection(bench.client, url)
            shot = attacked.result()
            took = float(_line(flood))
        cpu = server.cpu_us() - cpu
        lost = int(bench.client.run(*dropped)) - lost
        time.sleep(SETTLE_SECONDS)
        return Side(
            100.0 * shot.figure / calm.figure,
            cpu / shot.requests,
            shot.p99_us,
            {
                "SYNs/s": SYNS / took,
                "packets that the cable dropped": lost,
                "memory grown, MB": (server.rss_kb() - memory) / _MB,
                "a new connection's answer, ms": visit,
            },
        )

    with ExitStack() as stack:
        files = rows.open_files(bench, stack)
        page = material.write_page(files.site, "1k.txt", material.SMALL)
        # The answers to those addresses must leave, as they would on the internet.
        bench.server.run("ip", "route", "replace", "default", "via", PEER_HOST)
        ours = stack.enter_context(rows.appliance(bench, files.site, files.zones))
        peer = stack.enter_context(rows.nginx(bench, files.site))
        for address in (OURS_ADDRESS, PEER_ADDRESS):
            rows.check_page(bench.client, address, page)
        return rows.alternate(
            bench,
            Result("syn-flood", "nginx", "% of rate kept"),
            lambda: attack(ours, TAP, OURS_ADDRESS, f"http://{OURS_ADDRESS}{page.path}"),
            lambda: attack(peer, "veth0", PEER_ADDRESS, f"http://{PEER_ADDRESS}{page.path}"),
        )


def _new_connection(client: Namespace, url: str) -> float:
    """Return the ms that a new connection and one answer on it take; `LabError` if it fails."""
    report = client.run(
        *("curl", "--silent", "--show-error", "--fail", "--max-time", "10"),
        *("--output", "/dev/null", "--write-out", "%{time_total}", url),
    )
    return float(report) * 1e3


# ---- churn


def churn(bench: Bench) -> Result:
    """Memory that 200,000 connections, opened, used once and closed, leave behind; one round."""

    def wear(server: Server, url: str) -> Side:
        def close_each(seconds: int) -> int:
            return load.wrk(
                *(bench.client, bench.generator_cpu, url, 32, seconds),
                *("-H", "Connection: close"),
            ).requests

        close_each(1)  # what is allocated once is not left behind
        time.sleep(SETTLE_SECONDS)
        memory, cpu, done = server.rss_kb(), server.cpu_us(), 0
        while done < CHURN:
            done += close_each(bench.seconds)
        cpu = server.cpu_us() - cpu
        peak = server.rss_kb() - memory
        start = time.monotonic()
        while server.rss_kb() - memory > 10 * _MB and time.monotonic() - start < CHURN_PATIENCE:
            time.sleep(1.0)
        return Side(
            (server.rss_kb() - memory) / _MB,
            cpu / done,
            0.0,
            {"grown at the end, MB": peak / _MB, "s until then": time.monotonic() - start},
        )

    with ExitStack() as stack:
        files = rows.open_files(bench, stack)
        page = material.write_page(files.site, "1k.txt", material.SMALL)
        ours = stack.enter_context(rows.appliance(bench, files.site, files.zones))
        peer = stack.enter_context(rows.nginx(bench, files.site))
        once = Bench(**{**vars(bench), "rounds": 1})
        return rows.alternate(
            once,
            Result("churn-200000", "nginx", "MB left"),
            lambda: wear(ours, f"http://{OURS_ADDRESS}{page.path}"),
            lambda: wear(peer, f"http://{PEER_ADDRESS}{page.path}"),
        )


# ---- an upload


@contextmanager
def _sink(bench: Bench, space: Namespace, *arguments: str) -> Iterator[Server]:
    command = [*load.pin(bench.server_cpu), sys.executable, "-m", "bench.sink", *arguments]
    environment = {"PYTHONPATH": f"{rows.build()}:{ROOT}", "PYTHONUNBUFFERED": "1"}
    with lab.serve(
        f"sink-{arguments[0]}", space.command(*command), bench.folder, env=environment
    ) as server:
        server.wait(lambda: "ready" in server.words(), rows.START_SECONDS)
        yield server


def upload(bench: Bench) -> Result:
    """One upload of 1 GB by the kernel: to a sink on our stack, and to one on a kernel socket."""

    def push(server: Server, address: str) -> Side:
        before = server.cpu_us()
        seconds = float(
            bench.client.run(
                *load.pin(bench.generator_cpu),
                *(sys.executable, "-m", "bench.client", "push", address, str(SINK_PORT)),
                str(UPLOAD),
                timeout=300,
            )
        )
        return Side(UPLOAD / 1e6 / seconds, server.cpu_us() - before)

    with ExitStack() as stack:
        ours = stack.enter_context(
            _sink(bench, bench.client, "stack", TAP, f"{OURS_ADDRESS}/24", str(SINK_PORT))
        )
        peer = stack.enter_context(
            _sink(bench, bench.server, "kernel", PEER_ADDRESS, str(SINK_PORT))
        )
        return rows.alternate(
            bench,
            Result("upload-1g", "kernel", "MB/s"),
            lambda: push(ours, OURS_ADDRESS),
            lambda: push(peer, PEER_ADDRESS),
        )


# ---- a long lossy path


def wan(bench: Bench) -> Result:
    """One download at 50 ms, 1 % loss and 100 Mbit/s: our CUBIC against Linux's.

        server (either) - client namespace, routing - relay - far namespace: curl

    The relay drops the same packets, by their count from the download's first, in both.
    """
    with ExitStack() as stack:
        far = stack.enter_context(lab.namespace("far"))
        files = rows.open_files(bench, stack)
        page = material.write_page(files.site, "wan.bin", WAN_OCTETS)
        bench.client.run("sysctl", "-q", "net.ipv4.ip_forward=1")
        # Forwarding must not shortcut by telling either server of a better way.
        bench.client.run("sysctl", "-q", "net.ipv4.conf.all.send_redirects=0")
        # Each round is a first visit: nothing is remembered of the path.
        bench.server.run("sysctl", "-q", "net.ipv4.tcp_no_metrics_save=1")
        bench.server.run(
            *("ip", "route", "replace", "default", "via", PEER_HOST, "congctl", "cubic")
        )
        settings = {
            "near": bench.client.name, "far": far.name, "rtt": WAN_RTT, "loss": WAN_LOSS,
            "rate": WAN_RATE,
        }  # fmt: skip
        relay = stack.enter_context(_helper(bench.client, "relay", json.dumps(settings)))
        _line(relay)
        bench.client.address("wan0", f"{WAN_ROUTER}/24")
        far.address("wan0", f"{WAN_CLIENT}/24")
        far.run("ip", "route", "add", "default", "via", WAN_ROUTER)
        ours = stack.enter_context(rows.appliance(bench, files.site, files.zones))
        peer = stack.enter_context(rows.nginx(bench, files.site))
        for address in (OURS_ADDRESS, PEER_ADDRESS):
            rows.check_page(bench.client, address, page)
        turns = {OURS_ADDRESS: 0, PEER_ADDRESS: 0}

        def fetch(server: Server, address: str) -> Side:
            turns[address] += 1
            assert relay.stdin is not None
            relay.stdin.write(f"{turns[address]}\n")  # the schedule's seed, both the same
            relay.stdin.flush()
            _line(relay)
            before = server.cpu_us()
            shot = load.download(far, None, f"http://{address}{page.path}", WAN_OCTETS)
            return Side(shot.figure * 8.0, server.cpu_us() - before)

        return rows.alternate(
            bench,
            Result("wan-50ms-1%", "linux cubic", "Mbit/s"),
            lambda: fetch(ours, OURS_ADDRESS),
            lambda: fetch(peer, PEER_ADDRESS),
        )


ROWS: dict[str, Callable[[Bench], Result]] = {
    "upload-1g": upload,
    "syn-flood": syn_flood,
    "churn-200000": churn,
    "wan-50ms-1%": wan,
}
