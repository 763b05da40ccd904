"""Rows about the web server: sizes, heads that differ, HTTP/2, and patience with slow clients.

The peers beside nginx are what Python sites run today: uvicorn with httptools and uvloop under
Starlette's StaticFiles, and aiohttp's static files with its C parser. They are programs of this
module, run in the server namespace: `python -m bench.http_rows uvicorn ADDRESS SITE`.
"""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import load, material, rows
from bench.lab import LabError, Server, serve
from bench.load import Shot
from bench.rows import OURS_ADDRESS, PEER_ADDRESS, TAP, Bench, Result, Side

HEADS = 200  # distinct heads in the mix: a busy minute's browsers
H2_PORT = 81  # nginx 1.22 speaks one version on a port in the clear
SLOW = 5_000
SLOW_OURS, SLOW_PEER = "10.77.1.3", "10.77.2.3"  # where the slow clients sit
TRICKLE_SECONDS = 3.0

# wrk's request() for each row; a real browser's fields, of about 700 octets.
_BROWSER = (
    "Host: bench.test",
    "Connection: keep-alive",
    "Upgrade-Insecure-Requests: 1",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site: none",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-User: ?1",
    "Sec-Fetch-Dest: document",
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
    "Sec-CH-UA-Platform: Linux",
    "Priority: u=0, i",
)
_AGENT = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/"
)
_LINES = "".join(line + r"\r\n" for line in _BROWSER)
_FIELDS = f"""
local fields = "{_LINES}"
local agent = "{_AGENT}"
local count = 0
"""
MIX = f"""{_FIELDS}
local heads = {{}}
for n = 1, {HEADS} do
  heads[n] = "GET /1k.txt HTTP/1.1\\r\\n" .. fields .. agent .. n .. ".0 Safari/537.36\\r\\n\\r\\n"
end
request = function() count = count % {HEADS} + 1; return heads[count] end
"""
DISTINCT = f"""{_FIELDS}
local start = "GET /1k.txt HTTP/1.1\\r\\n" .. fields .. agent
request = function() count = count + 1; return start .. count .. ".0 Safari/537.36\\r\\n\\r\\n" end
"""


# ---- peers


@contextmanager
def _python(bench: Bench, name: str, site: Path) -> Iterator[Server]:
    if importlib.util.find_spec(name) is None:
        raise LabError(f"needs {name}: pip install '.[peers]'")
    command = [
        *load.pin(bench.server_cpu),
        *(sys.executable, "-m", "bench.http_rows", name, PEER_ADDRESS, str(site)),
    ]
    with serve(name, bench.server.command(*command), bench.folder) as server:
        url = f"http://{PEER_ADDRESS}/index.txt"
        server.wait(lambda: _answers(bench, url), rows.START_SECONDS)
        yield server


def _answers(bench: Bench, url: str) -> bool:
    try:
        bench.client.run("curl", "-sf", "-o", "/dev/null", "--max-time", "1", url)
    except LabError:
        return False
    return True


def _uvicorn(address: str, site: str) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    app = Starlette(routes=[Mount("/", StaticFiles(directory=site))])
    uvicorn.run(
        app, host=address, port=80, loop="uvloop", http="httptools", access_log=False,
        log_level="warning", limit_concurrency=None,
    )  # fmt: skip


def _aiohttp(address: str, site: str) -> None:
    from aiohttp import web

    app = web.Application()
    app.router.add_static("/", site)
    web.run_app(app, host=address, port=80, access_log=None, print=None)


# ---- rows


def _scripted(row: str, script: str, peer_name: str) -> Callable[[Bench], Result]:
    """Return a row whose heads a script makes."""

    def measure(bench: Bench) -> Result:
        with ExitStack() as stack:
            files = rows.open_files(bench, stack)
            page = material.write_page(files.site, "1k.txt", material.SMALL)
            lua = bench.folder / f"{row}.lua"
            lua.write_text(script)
            ours = stack.enter_context(rows.appliance(bench, files.site, files.zones))
            opened = (
                rows.nginx(bench, files.site)
                if peer_name == "nginx"
                else _python(bench, peer_name, files.site)
            )
            peer = stack.enter_context(opened)
            for address in (OURS_ADDRESS, PEER_ADDRESS):
                rows.check_page(bench.client, address, page)

            def shoot(address: str) -> Callable[[], Shot]:
                url = f"http://{address}{page.path}"
                more = ("-s", str(lua))
                return lambda: load.wrk(
                    bench.client, bench.generator_cpu, url, 32, bench.seconds, *more
                )

            return rows.alternate(
                bench,
                Result(row, peer_name, "requests/s"),
                lambda: rows.measure(ours, shoot(OURS_ADDRESS)),
                lambda: rows.measure(peer, shoot(PEER_ADDRESS)),
            )

    return measure


def h2load(bench: Bench, url: str) -> Shot:
    """Ask over HTTP/2 from ten connections with 100 streams each."""
    report = bench.client.run(
        *load.pin(bench.generator_cpu),
        *("h2load", "-t1", "-c10", "-m100", f"-D{bench.seconds}", "--warm-up-time=1", url),
        timeout=bench.seconds + 60,
    )
    wrong = load.figure(r"(\d+) failed", report) + load.figure(r"(\d+) errored", report)
    done = int(load.figure(r"(\d+) succeeded", report))
    if wrong > done * 0.001:  # those cut off at the end of the time
        raise LabError(f"h2load met errors at {url}:\n{report}")
    return Shot(load.figure(r"finished in [\d.]+m?s, ([\d.]+) req/s", report), done)


def _h2(row: str, name: str, length: int) -> Callable[[Bench], Result]:
    def measure(bench: Bench) -> Result:
        with ExitStack() as stack:
            files = rows.open_files(bench, stack)
            page = material.write_page(files.site, name, length)
            ours = stack.enter_context(rows.appliance(bench, files.site, files.zones))
            peer = stack.enter_context(_nginx(bench, files.site))
            rows.check_page(bench.client, OURS_ADDRESS, page)
            urls = (f"http://{OURS_ADDRESS}", f"http://{PEER_ADDRESS}:{H2_PORT}")
            return rows.alternate(
                bench,
                Result(row, "nginx", "requests/s"),
                lambda: rows.measure(ours, lambda: h2load(bench, urls[0] + page.path)),
                lambda: rows.measure(peer, lambda: h2load(bench, urls[1] + page.path)),
            )

    return measure


@contextmanager
def _nginx(bench: Bench, site: Path) -> Iterator[Server]:
    """Run nginx with a listener for HTTP/2 beside the plain one."""
    settings = material.write_nginx(bench.folder, site, PEER_ADDRESS)
    text = settings.read_text()
    before, server, _after = text.rpartition("    server {")
    listener = (
        f"    http2_max_concurrent_streams 128;\n{server} listen {PEER_ADDRESS}:{H2_PORT} http2 "
        f"backlog=4096; root {site}; }}\n"
    )
    settings.write_text(before + listener + server + _after)
    command = [*load.pin(bench.server_cpu), "nginx", "-e", "stderr", "-c", str(settings)]
    with serve("nginx", bench.server.command(*command), bench.folder) as running:
        url = f"http://{PEER_ADDRESS}/index.txt"
        running.wait(lambda: _answers(bench, url), rows.START_SECONDS)
        yield running


@contextmanager
def _slow(bench: Bench, address: str, source: str) -> Iterator[None]:
    """Hold connections whose heads never end."""
    command = [sys.executable, "-m", "bench.http_rows", "slow", address, source]
    process = subprocess.Popen(
        bench.client.command(*load.pin(bench.generator_cpu), *command),
        cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise LabError(f"could not open {SLOW} slow connections to {address}")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _slow_client(address: str, source: str) -> None:
    """Open connections, send an octet of a head on each now and then, open again what is closed."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (SLOW + 100, SLOW + 100))
    open_now: list[socket.socket] = []
    told = False
    while True:
        began = time.monotonic()
        alive = []
        for sock in open_now:
            try:
                sock.send(b"a")
                alive.append(sock)
            except OSError:
                sock.close()
        open_now = alive
        while len(open_now) < SLOW and time.monotonic() - began < TRICKLE_SECONDS:
            sock = socket.socket()
            sock.settimeout(1.0)
            try:
                sock.bind((source, 0))
                sock.connect((address, 80))
                sock.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
                sock.setblocking(False)
                open_now.append(sock)
            except OSError:
                sock.close()
                break
        if not told:
            told = True
            print("ready", flush=True)
        time.sleep(max(TRICKLE_SECONDS - (time.monotonic() - began), 0.0))


def slowloris(bench: Bench) -> Result:
    """Measure honest requests beside 5,000 slow clients, as a percentage of those alone."""
    bench.client.address(TAP, f"{SLOW_OURS}/24")
    name = next(
        line.split(":")[1].split("@")[0].strip()
        for line in bench.client.run("ip", "-o", "link").splitlines()
        if TAP not in line and " lo:" not in line
    )
    bench.client.address(name, f"{SLOW_PEER}/24")
    with ExitStack() as stack:
        files = rows.open_files(bench, stack)
        page = material.write_page(files.site, "1k.txt", material.SMALL)
        ours = stack.enter_context(rows.appliance(bench, files.site, files.zones))
        peer = stack.enter_context(rows.nginx(bench, files.site))

        def side(server: Server, address: str, source: str) -> Side:
            url = f"http://{address}{page.path}"
            cpu = bench.generator_cpu
            alone = load.wrk(bench.client, cpu, url, 32, bench.seconds).figure
            with _slow(bench, address, source):
                beside = rows.measure(
                    server, lambda: load.wrk(bench.client, cpu, url, 32, bench.seconds)
                )
            return Side(100 * beside.figure / alone, beside.cpu_us)

        return rows.alternate(
            bench,
            Result("slowloris-5000", "nginx", "% of the rate"),
            lambda: side(ours, OURS_ADDRESS, SLOW_OURS),
            lambda: side(peer, PEER_ADDRESS, SLOW_PEER),
        )


ROWS: dict[str, Callable[[Bench], Result]] = {
    "http-10k-c32": rows._requests("http-10k-c32", "10k.bin", 10_000, 32),
    "http-mix-200": _scripted("http-mix-200", MIX, "nginx"),
    "http-distinct": _scripted("http-distinct", DISTINCT, "nginx"),
    "http-distinct-uvicorn": _scripted("http-distinct-uvicorn", DISTINCT, "uvicorn"),
    "http-distinct-aiohttp": _scripted("http-distinct-aiohttp", DISTINCT, "aiohttp"),
    "h2-1k": _h2("h2-1k", "1k.txt", material.SMALL),
    "h2-10k": _h2("h2-10k", "10k.bin", 10_000),
    "slowloris-5000": slowloris,
}

if __name__ == "__main__":
    {"uvicorn": _uvicorn, "aiohttp": _aiohttp, "slow": _slow_client}[sys.argv[1]](*sys.argv[2:])
