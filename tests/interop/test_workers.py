"""`serve --workers 2` on a tap with two queues: what happens to one is not seen at the other."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.net.vif.pcap import read_pcap
from bench import lab
from bench.lab import Namespace, Server
from tests.interop.conftest import ENVIRONMENT, OURS, ROOT, require, tap_namespace, write_house
from tests.interop.test_lan import PREFIX, cable

NETWORK, KERNEL = f"{OURS}/24", "10.78.1.1/24"
SECRET = base64.b64encode(b"s" * 32).decode()

# Opens connections, waits for a line, and says how many of them still answer.
HOLD = f"""
import socket, sys
REQUEST = b"GET /1k.txt HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"
def answer(s):
    s.sendall(REQUEST)
    got = b""
    while b"\\r\\n\\r\\n" not in got or len(got) < 1000:
        more = s.recv(65536)
        if not more:
            raise ConnectionResetError
        got += more
held = []
for _ in range(int(sys.argv[1])):
    s = socket.create_connection(("{OURS}", 80), timeout=5)
    answer(s)
    held.append(s)
print("held", flush=True)
sys.stdin.readline()
alive = reset = 0
for s in held:
    try:
        answer(s)
        alive += 1
    except ConnectionError:
        reset += 1
print(alive, reset, flush=True)
"""


class Host:
    """The appliance, its workers, and the namespace that it is a neighbour in."""

    def __init__(self, space: Namespace, server: Server, folder: Path) -> None:
        self.space = space
        self.server = server
        self.folder = folder
        self.pids: list[int] = []

    def said(self) -> str:
        """All that it has said."""
        return self.server.log.read_text()

    def workers(self) -> list[int]:
        """The processes in their places, by what the supervisor says last of each."""
        said = self.said()
        first = re.search(r"2 workers, processes (\d+), (\d+)", said)
        assert first is not None
        pids = [int(first[1]), int(first[2])]
        for number, pid in re.findall(r"worker (\d) \(process (\d+)\) serves", said):
            pids[int(number)] = int(pid)
        return pids

    def until(self, ready: Callable[[], bool], seconds: float = 10.0) -> None:
        self.server.wait(ready, seconds)

    def replaced(self, before: int) -> None:
        index = self.workers().index(before)
        self.until(lambda: self.workers()[index] != before)

    def curl(self, path: str) -> str:
        return self.space.run("curl", "-sS", "--max-time", "10", f"http://{OURS}{path}")

    def size(self, path: str) -> str:
        form = "%{http_code} %{size_download}"
        return self.space.run(
            *("curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", form),
            f"http://{OURS}{path}",
        )

    def dig(self, *arguments: str) -> str:
        return self.space.run("dig", f"@{OURS}", "+short", "+tries=1", "+time=5", *arguments)

    def holding(self, count: int) -> Holding:
        return Holding(self, count)


class Holding:
    """Connections that somebody holds."""

    def __init__(self, host: Host, count: int) -> None:
        command = host.space.command(sys.executable, "-c", HOLD, str(count))
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def ask(self) -> tuple[int, int]:
        """How many answer, and how many were reset."""
        said, _ = self.process.communicate("go\n", timeout=30)
        alive, reset = said.split()
        return int(alive), int(reset)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Two workers, with updates and metrics."""
    require("curl", "dig", "ping", "nsupdate")
    folder = tmp_path_factory.mktemp("workers")
    arguments, _ = write_house(folder)
    (folder / "key").write_text(SECRET)
    (folder / "zones" / "dyn.test.zone").write_text(
        "$ORIGIN dyn.test.\n$TTL 60\n@ SOA ns hostmaster 1 3600 900 604800 60\n NS ns\n"
        "ns A 192.0.2.1\n"
    )
    with (folder / "appliance.toml").open("a") as settings:
        settings.write(
            'dhcp = false\n[[dns.key]]\nname = "up"\nfile = "key"\n'
            '[[dns.update]]\nkey = "up"\nzones = ["dyn.test"]\n'
            "[metrics]\nport = 9090\n[tls]\nport = 443\n"
        )
    with ExitStack() as stack:
        space = stack.enter_context(lab.namespace("workers"))
        command = space.command(
            *(sys.executable, "-m", "appliance", "serve", "--workers", "2", "--link", "tap:many0"),
            *("--address", NETWORK, "--host-address", KERNEL, *arguments),
            *("--pcap", str(folder / "seen.pcap"), "--trace", str(folder / "seen.trace")),
        )
        server = stack.enter_context(lab.serve("appliance", command, folder, env=ENVIRONMENT))
        server.wait(lambda: "2 workers, processes" in server.words(), 30.0)
        host = Host(space, server, folder)
        yield host
        assert "Traceback" not in server.log.read_text()


def test_both_serve(host: Host) -> None:
    """Many connections and queries: they are spread, and the metrics add them up."""
    for _ in range(12):
        assert host.size("/1k.txt") == "200 1000"
    for port in range(12):
        assert host.dig("any.wild.bench.test", "A") == "192.0.2.4\n", port
        assert host.dig("+tcp", "any.wild.bench.test", "A") == "192.0.2.4\n", port
    assert "2 received" in host.space.run("ping", "-c", "2", "-i", "0.2", OURS)
    holding = host.holding(24)
    time.sleep(1.5)  # what the other has counted comes once a second
    told = host.curl(":9090/metrics")
    flows = dict(re.findall(r'appliance_worker_tcp_flows\{worker="(\d)"\} (\d+)', told))
    assert int(flows["0"]) > 0, told
    assert int(flows["1"]) > 0
    queries = re.search(r'appliance_dns_queries_total\{transport="udp"\} (\d+)', told)
    assert queries is not None
    assert int(queries[1]) >= 12
    assert holding.ask() == (24, 0)


def test_an_update_is_seen_everywhere(host: Host) -> None:
    """RFC 2136: whichever worker gets it, whichever is asked."""
    for number in range(6):
        transport = ["-v"] if number & 1 else []
        lines = [f"server {OURS}", "zone dyn.test", f"update add n{number}.dyn.test 60 A 192.0.2.9"]
        script = host.folder / "script"
        script.write_text("\n".join([*lines, "send", ""]))
        host.space.run("nsupdate", *transport, "-y", f"hmac-sha256:up:{SECRET}", str(script))
    host.until(lambda: all(host.dig("n5.dyn.test", "A") == "192.0.2.9\n" for _ in range(8)), 5.0)
    for _ in range(8):
        for number in range(6):
            assert host.dig(f"n{number}.dyn.test", "A") == "192.0.2.9\n"


def asked(file: Path, path: str = "/1k.txt") -> int:
    """How many frames of a recording carry the head of a request for a path."""
    head = f"GET {path} ".encode()
    return sum(head in record.octets for record in read_pcap(file))


def begun(file: Path) -> bool:
    """Whether a recording has its header."""
    return file.exists() and file.stat().st_size >= 24


def test_both_are_captured_and_recorded(host: Host) -> None:
    """`appliance capture` asks the first worker, and sees the flows of all; --pcap makes files."""
    file = host.folder / "captured.pcap"
    words = ("-m", "appliance", "capture", "-c", str(host.folder / "appliance.toml"), "-w")
    with subprocess.Popen([sys.executable, *words, str(file)], env=os.environ | ENVIRONMENT) as it:
        try:
            # Until it sees the first worker's; the other has been told before.
            host.until(lambda: bool(host.size("/1k.txt")) and begun(file) and asked(file) > 3)
            requests = 16
            for _ in range(requests):
                host.size("/100k.bin")
            host.until(lambda: asked(file, "/100k.bin") == requests)
        finally:
            it.terminate()
    recorded = [asked(host.folder / f"seen.worker{n}.pcap", "/100k.bin") for n in (0, 1)]
    assert min(recorded) > 0
    assert sum(recorded) == requests
    for index in (0, 1):
        assert (host.folder / f"seen.worker{index}.trace").stat().st_size > 0


@pytest.mark.parametrize("index", [1, 0])
def test_a_worker_is_killed(host: Host, index: int) -> None:
    """Its connections get resets, the others go on; another takes its place, and knows all."""
    holding = host.holding(24)
    victim = host.workers()[index]
    os.kill(victim, signal.SIGKILL)
    host.replaced(victim)
    alive, reset = holding.ask()
    assert alive > 0
    assert reset > 0
    assert alive + reset == 24
    # What it had recorded is kept beside what its successor records.
    assert asked(host.folder / f"seen.worker{index}.1.pcap") > 0
    assert (host.folder / f"seen.worker{index}.1.trace").exists()
    for _ in range(12):
        assert host.size("/1k.txt") == "200 1000"
        assert host.dig("n3.dyn.test", "A") == "192.0.2.9\n"
    assert "1 received" in host.space.run("ping", "-c", "1", OURS)


def test_reload_reaches_all_or_none(host: Host) -> None:
    """SIGHUP: new pages and zones at both; with an error at neither; and those to come have it."""
    (host.folder / "site" / "new.txt").write_text("new\n")
    zone = host.folder / "zones" / "fresh.test.zone"
    zone.write_text(
        "$ORIGIN fresh.test.\n$TTL 60\n@ SOA ns hostmaster 1 3600 900 604800 60\n NS ns\n"
        "ns A 192.0.2.1\nwww A 192.0.2.5\n"
    )
    os.kill(host.server.process.pid, signal.SIGHUP)
    host.until(lambda: "reloaded in" in host.server.words())
    host.until(lambda: all(host.dig("www.fresh.test") == "192.0.2.5\n" for _ in range(8)), 5.0)
    assert [host.curl("/new.txt") for _ in range(12)] == ["new\n"] * 12
    (host.folder / "site" / "new.txt").write_text("newer\n")
    bad = host.folder / "site" / "bad.md"
    bad.write_text("---\ndate: neither\n---\n")
    os.kill(host.server.process.pid, signal.SIGHUP)
    host.until(lambda: "not reloaded: 1 error" in host.server.words())
    assert [host.curl("/new.txt") for _ in range(12)] == ["new\n"] * 12
    bad.unlink()
    victim = host.workers()[1]
    os.kill(victim, signal.SIGKILL)
    host.replaced(victim)
    assert [host.curl("/new.txt") for _ in range(12)] == ["new\n"] * 12
    assert [host.dig("www.fresh.test") for _ in range(8)] == ["192.0.2.5\n"] * 8


def test_one_that_dies_again_soon_waits(host: Host) -> None:
    """So that a fault that kills a worker as it begins does not keep a processor busy."""
    for _ in range(2):
        victim = host.workers()[1]
        os.kill(victim, signal.SIGKILL)
        host.replaced(victim)
    assert re.search(r"was ended by SIGKILL: another takes its place in 0\.[1-9] s", host.said())
    assert host.size("/1k.txt") == "200 1000"


def test_a_ticket_of_one_is_good_at_all(host: Host) -> None:
    """RFC 8446 §4.6.1: keys of tickets are made before the fork."""
    kept = host.folder / "session"
    client = ("openssl", "s_client", "-connect", f"{OURS}:443", "-servername", "localhost")
    host.space.run("sh", "-c", f"sleep 1 | {' '.join(client)} -sess_out {kept}")
    for _ in range(8):
        said = host.space.run(*client, "-sess_in", str(kept))
        assert "Reused, TLS" in said


def test_two_links(tmp_path: Path) -> None:
    """Both workers serve on both links; one that dies is replaced on both."""
    require("curl", "ping")
    arguments, _ = write_house(tmp_path)
    second, its_kernel = "10.78.2.2", "10.78.2.1/24"
    with lab.namespace("twolinks") as space:
        command = space.command(
            *(sys.executable, "-m", "appliance", "serve", "--workers", "2"),
            *("--link", "tap:many1", "--address", NETWORK, "--host-address", KERNEL),
            *("--link", "tap:many2", "--address", f"{second}/24", "--host-address", its_kernel),
            *(*arguments, "--pcap", str(tmp_path / "seen.pcap")),
        )
        with lab.serve("appliance", command, tmp_path, env=ENVIRONMENT) as server:
            server.wait(lambda: "2 workers, processes" in server.words(), 30.0)
            host = Host(space, server, tmp_path)

            def served() -> None:
                for address in (OURS, second):
                    for _ in range(12):
                        url = f"http://{address}/1k.txt"
                        space.run("curl", "-sSf", "--max-time", "5", "-o", "/dev/null", url)
                    assert "1 received" in space.run("ping", "-c", "1", address)

            served()
            for index in (1, 0):
                victim = host.workers()[index]
                os.kill(victim, signal.SIGKILL)
                host.replaced(victim)
                served()
            assert server.stop() == 0
            assert "Traceback" not in server.log.read_text()
    for index in (0, 1):
        for name in ("", ".many2"):
            file = tmp_path / f"seen.worker{index}{name}.pcap"
            assert asked(file) > 0, file


def test_a_tap_with_one_queue(tmp_path: Path) -> None:
    """The error says how to make one that has several."""
    require("curl")
    arguments, _ = write_house(tmp_path)
    with tap_namespace("onequeue") as space:
        command = (sys.executable, "-m", "appliance", "serve", "--workers", "2", *arguments)
        with pytest.raises(lab.LabError, match="ip tuntap add dev tap0 mode tap multi_queue"):
            space.run("env", f"PYTHONPATH={ROOT}", *command, "--link", "tap:tap0")


def test_all_end_together(host: Host) -> None:
    """SIGTERM to the supervisor; last, since it ends what the others use."""
    pids = host.server.pids()
    assert len(pids) >= 3
    assert host.server.stop() == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_when_the_supervisor_dies(tmp_path: Path) -> None:
    """Nobody would look after the workers: they end, too."""
    require("curl")
    arguments, _ = write_house(tmp_path)
    with lab.namespace("orphans") as space:
        command = space.command(
            *(sys.executable, "-m", "appliance", "serve", "--workers", "2", "--link", "tap:many1"),
            *("--address", NETWORK, *arguments),
        )
        with lab.serve("appliance", command, tmp_path, env=ENVIRONMENT) as server:
            server.wait(lambda: "2 workers, processes" in server.words(), 30.0)
            pids = server.pids()[1:]
            server.process.kill()
            server.process.wait()
            end = time.monotonic() + 10.0
            while time.monotonic() < end and any(Path(f"/proc/{pid}").exists() for pid in pids):
                time.sleep(0.05)
            assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_on_a_card_that_finds_its_addresses(tmp_path: Path) -> None:
    """RFC 2131, RFC 4862: the first worker finds them, both have them; both protocols."""
    require("dnsmasq", "curl", "dig", "ping", "sysctl")
    arguments, _ = write_house(tmp_path)
    with ExitStack() as stack:
        house, router = cable(stack, "w")
        dnsmasq = router.command(
            *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=lan0"),
            *("--dhcp-range=10.9.0.50,10.9.0.60,2m", f"--dhcp-leasefile={tmp_path}/leases"),
            *("--enable-ra", f"--dhcp-range={PREFIX}:,ra-only", "--user=root"),
        )
        stack.enter_context(lab.serve("dnsmasq", dnsmasq, tmp_path))
        command = house.command(
            *(sys.executable, "-m", "appliance", "serve", "--workers", "2"),
            *("--link", "packet:card0", *arguments),
        )
        server = stack.enter_context(lab.serve("appliance", command, tmp_path, env=ENVIRONMENT))
        server.wait(lambda: "2 workers, processes" in server.words(), 40.0)
        urls = re.findall(r"^  (http://\S+/)$", server.words(), re.MULTILINE)
        assert len(urls) == 2, server.words()
        form = ("-o", "/dev/null", "-w", "%{http_code} %{size_download}")
        for url in urls:
            for _ in range(10):
                told = router.run("curl", "-sS", "-g", "--max-time", "5", *form, f"{url}1k.txt")
                assert told == "200 1000"
            host = url.removeprefix("http://").strip("/[]")
            router.run("ping", "-c", "1", "-W", "2", "-s", "4000", host)  # in fragments
            for _ in range(6):
                said = router.run("dig", f"@{host}", "+short", "any.wild.bench.test", "A")
                assert said == "192.0.2.4\n"
        # A first worker that comes later is who the one before it was, until it knows better.
        first = re.search(r"2 workers, processes (\d+),", server.words())
        assert first is not None
        os.kill(int(first[1]), signal.SIGKILL)
        server.wait(lambda: " serves" in server.words().rpartition("worker 0 (")[2], 10.0)
        router.run("ip", "neigh", "flush", "dev", "lan0")
        # It has yet to ask for a lease; discovery has to be found anew (RFC 4862 §5.4).
        url, url6 = sorted(urls)
        told = router.run("curl", "-sS", "--max-time", "3", *form, f"{url}1k.txt")
        assert told == "200 1000"
        again = ("--retry", "10", "--retry-all-errors", "--retry-delay", "1", "--max-time", "15")
        told = router.run("curl", "-sS", "-g", *again, *form, f"{url6}1k.txt")
        assert told.endswith("200 1000")
        assert server.stop() == 0
        assert "Traceback" not in server.words()
