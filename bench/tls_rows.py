"""Rows with TLS: HTTPS beside nginx, handshakes whole and resumed, memory of idle connections.

Both serve one P-256 certificate, made for the row, and prefer the same suites: AES-128-GCM.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.tls.authority import self_signed
from appliance.tls.credential import key_pem
from bench import load, material, rows
from bench.lab import LabError, Namespace, Server, serve
from bench.load import Shot
from bench.material import Page
from bench.rows import (
    OURS_ADDRESS,
    OURS_HOST,
    PEER_ADDRESS,
    SETTLE_SECONDS,
    START_SECONDS,
    TAP,
    Bench,
    Result,
    Side,
)

HANDSHAKERS = 16
"""Processes of `openssl s_time`, each of which does one handshake after the other. Four of them got
a fifth to a third less out of either server: at times all were waiting."""
CHAIN = "bench.pem"
IDLE = 1000  # connections
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Credential:
    """PEM files of a certificate and its key."""

    chain: Path
    key: Path


def _credential(folder: Path) -> Credential:
    """Make a certificate that nobody trusts and nobody has to."""
    made = self_signed(["bench.test"], dt.datetime.now(dt.UTC))
    files = Credential(folder / CHAIN, folder / "bench.key")
    files.chain.write_bytes(made.pem())
    files.key.touch(0o600)
    files.key.write_bytes(key_pem(made.key))
    return files


def _ready(client: Namespace, address: str) -> bool:
    words = ("curl", "--silent", "--fail", "--insecure", "--output", "/dev/null")
    try:
        client.run(*words, "--max-time", "1", f"https://{address}/index.txt")
    except LabError:
        return False
    return True


@contextmanager
def appliance(bench: Bench, files: rows.Files, credential: Credential) -> Iterator[Server]:
    """Run the appliance on the tap, with the certificate."""
    settings = material.write_settings(bench.folder)
    with settings.open("a") as file:
        file.write(f'[[certificate]]\nchain = "{credential.chain}"\nkey = "{credential.key}"\n')
    command = [
        *load.pin(bench.server_cpu),
        *(sys.executable, "-m", "appliance", "serve", "-c", str(settings)),
        *("--link", f"tap:{TAP}", "--address", f"{OURS_ADDRESS}/24", "--gateway", OURS_HOST),
        *("--site", str(files.site), "--zones", str(files.zones)),
    ]
    environment = {"PYTHONPATH": rows.build(), "PYTHONUNBUFFERED": "1"}
    words = bench.client.command(*command)
    with serve("appliance", words, bench.folder, env=environment) as server:
        server.wait(lambda: _ready(bench.client, OURS_ADDRESS), START_SECONDS)
        yield server


@contextmanager
def nginx(bench: Bench, files: rows.Files, credential: Credential) -> Iterator[Server]:
    """Run nginx with the certificate, tickets, and one worker."""
    settings = material.write_nginx(bench.folder, files.site, PEER_ADDRESS)
    plain = f"listen {PEER_ADDRESS}:80 backlog=4096;"
    secure = (
        f"{plain} listen {PEER_ADDRESS}:443 ssl http2 backlog=4096; "
        f"ssl_certificate {credential.chain}; ssl_certificate_key {credential.key}; "
        "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on; ssl_prefer_server_ciphers on; "
        "ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256; "
        "ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"
    )
    text = settings.read_text()
    if plain not in text:
        raise LabError("nginx's settings have no listen line to add TLS to")
    settings.write_text(text.replace(plain, secure))
    command = [*load.pin(bench.server_cpu), "nginx", "-e", "stderr", "-c", str(settings)]
    with serve("nginx", bench.server.command(*command), bench.folder) as server:
        server.wait(lambda: _ready(bench.client, PEER_ADDRESS), START_SECONDS)
        yield server


def _pair(
    bench: Bench, row: str, unit: str, shoot: Callable[[str], Shot], page: tuple[str, int]
) -> Result:
    """Serve one file from both by HTTPS, and measure shots at their addresses."""
    with ExitStack() as stack:
        files = rows.open_files(bench, stack)
        credential = _credential(bench.folder)
        material.write_page(files.site, *page)
        ours = stack.enter_context(appliance(bench, files, credential))
        peer = stack.enter_context(nginx(bench, files, credential))
        return rows.alternate(
            bench,
            Result(row, "nginx", unit),
            lambda: rows.measure(ours, lambda: shoot(OURS_ADDRESS)),
            lambda: rows.measure(peer, lambda: shoot(PEER_ADDRESS)),
        )


def _requests(row: str, connections: int, *more: str) -> Callable[[Bench], Result]:
    """Return a row of small requests over HTTPS, by wrk."""

    def measure(bench: Bench) -> Result:
        def shoot(address: str) -> Shot:
            url = f"https://{address}/1k.txt"
            return load.wrk(
                bench.client, bench.generator_cpu, url, connections, bench.seconds, *more
            )

        return _pair(bench, row, "requests/s", shoot, ("1k.txt", material.SMALL))

    return measure


def https_1g(bench: Bench) -> Result:
    """One download of 1 GB over HTTP/1.1 and TLS 1.3, by curl."""

    def shoot(address: str) -> Shot:
        report = bench.client.run(
            *load.pin(bench.generator_cpu),
            *("curl", "--silent", "--show-error", "--insecure", "--http1.1"),
            *(
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code} %{size_download} %{time_total}",
            ),
            f"https://{address}/1g.bin",
            timeout=300,
        )
        status, size, seconds = report.split()
        if (int(status), int(size)) != (200, material.LARGE):
            raise LabError(f"{address}: status {status}, {size} octets")
        return Shot(material.LARGE / 1e6 / float(seconds), 1)

    return _pair(bench, "https-1g", "MB/s", shoot, ("1g.bin", material.LARGE))


def _handshakes(row: str, *more: str) -> Callable[[Bench], Result]:
    """Return a row of handshakes that carry nothing, by several of `openssl s_time` at once.

    They believe the row's certificate and look nowhere else: by default OpenSSL 3.0 reads the whole
    folder of the system's authorities for each certificate that it does not know, a quarter of the
    client's time. A whole handshake still costs the client more than it costs either server, so the
    figure is bounded by the client's processor; what the servers pay stands beside it.
    """

    def shoot(bench: Bench, address: str) -> Shot:
        words = bench.client.command(
            *load.pin(bench.generator_cpu),
            *("openssl", "s_time", "-connect", f"{address}:443", "-time", str(bench.seconds)),
            *("-CAfile", str(bench.folder / CHAIN), "-no-CApath", "-no-CAstore"),
            *more,
        )
        running = [
            subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(HANDSHAKERS)
        ]
        total = 0
        for process in running:
            report, _ = process.communicate(timeout=bench.seconds + 60)
            # s_time tells connections per user second first, then per real second.
            found = re.findall(r"(\d+) connections in (\d+) real seconds", report)
            if not found:
                raise LabError(f"openssl s_time met errors at {address}:\n{report}")
            total += int(found[-1][0])
        return Shot(total / bench.seconds, total)

    def measure(bench: Bench) -> Result:
        page = ("1k.txt", material.SMALL)
        return _pair(bench, row, "handshakes/s", lambda address: shoot(bench, address), page)

    return measure


def tls_idle(bench: Bench) -> Result:
    """Resident memory of each idle HTTPS connection, TCP's included; a fresh server each round."""
    with ExitStack() as stack:
        files = rows.open_files(bench, stack)
        credential = _credential(bench.folder)
        page = material.write_page(files.site, "1k.txt", material.SMALL)

        def ours() -> Side:
            with appliance(bench, files, credential) as server:
                return _cost(bench, server, OURS_ADDRESS, page)

        def peer() -> Side:
            with nginx(bench, files, credential) as server:
                return _cost(bench, server, PEER_ADDRESS, page)

        return rows.alternate(bench, Result("tls-idle", "nginx", "KB/connection"), ours, peer)


def _cost(bench: Bench, server: Server, address: str, page: Page) -> Side:
    with _idle(bench.client, address, page.path, 10):
        pass  # what is imported or allocated once is no connection's cost
    time.sleep(SETTLE_SECONDS)
    memory, cpu = server.rss_kb(), server.cpu_us()
    with _idle(bench.client, address, page.path, IDLE):
        time.sleep(SETTLE_SECONDS)
        return Side((server.rss_kb() - memory) / IDLE, (server.cpu_us() - cpu) / IDLE)


@contextmanager
def _idle(client: Namespace, address: str, path: str, count: int) -> Iterator[None]:
    """Hold this many HTTPS connections open, each of which has had one answer."""
    command = [sys.executable, "-m", "bench.tls_rows", address, path, str(count)]
    process = subprocess.Popen(
        client.command(*command),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
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
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _hold(address: str, path: str, count: int) -> None:
    """Open connections, ask once on each, say `ready`, and keep them until stdin ends."""
    import socket
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    held = []
    for _ in range(count):
        sock = context.wrap_socket(socket.create_connection((address, 443), 30))
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        if not sock.recv(65536).startswith(b"HTTP/1.1 200 "):
            raise SystemExit("expected status 200")
        held.append(sock)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    for sock in held:
        sock.close()


ROWS: dict[str, Callable[[Bench], Result]] = {
    "https-1k-c32": _requests("https-1k-c32", 32),
    "https-conn": _requests("https-conn", 32, "-H", "Connection: close"),
    "https-1g": https_1g,
    "tls-full": _handshakes("tls-full", "-new"),
    # s_time takes up a session before TLS 1.3 has sent its ticket, so this is TLS 1.2.
    "tls-resumed": _handshakes("tls-resumed", "-reuse", "-tls1_2"),
    "tls-idle": tls_idle,
}

if __name__ == "__main__":
    _hold(sys.argv[1], sys.argv[2], int(sys.argv[3]))
