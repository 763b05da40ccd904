"""All the rooms together: what is loaded, said, served, loaded again and ended.

The appliance runs as a process of its own on a pair, without privilege, with a small site and zone.
What programs of others see of it is in tests/interop.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.message
import dns.query
import pytest

from appliance import banner, cli, config
from appliance.app import Appliance
from appliance.content import Size, load_content
from appliance.net.vif.pair import pair
from appliance.parts.base import Part
from appliance.settings import Settings
from tests.ports import free_port

ROOT = Path(__file__).parent.parent
PATIENCE = 30.0  # seconds for what takes one on a quiet machine

ZONE = """\
$ORIGIN example.org.
$TTL 3600
@ IN SOA ns hostmaster 1 7200 900 1209600 600
@ IN NS ns
ns IN A 10.0.0.2
@ IN A 10.0.0.2
"""


def write(folder: Path, *, more: str = "") -> Path:
    """A site of a page, a file and a dotfile, and a zone of four records."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "zones").mkdir(exist_ok=True)
    (folder / "site" / "index.md").write_text("---\ntitle: Home\n---\n\nFirst words.\n")
    (folder / "site" / "big.bin").write_bytes(bytes(range(256)) * 40_000)  # 10 MB
    (folder / "site" / ".secret").write_text("not for you")
    (folder / "zones" / "example.org.zone").write_text(ZONE)
    path = folder / "appliance.toml"
    path.write_text(
        '[site]\ntitle = "Example"\nbase_url = "http://www.example.org"\n'
        f"[gateway]\nhttp = {free_port()}\ndns = {free_port()}\n{more}"
    )
    return path


class Running:
    """A process that serves, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until something has been said."""
        end = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.said)) is None:
            assert time.monotonic() < end, f"never said {pattern!r}:\n{self.said}"
            assert self.process.poll() is None, f"has ended:\n{self.said}"
            time.sleep(0.01)
        return found

    def ended(self) -> int:
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert "Traceback" not in self.said, self.said
        return status

    @property
    def http(self) -> int:
        return int(self.wait_for(r"http://127\.0\.0\.1:(\d+)/")[1])

    @property
    def dns(self) -> int:
        return int(self.wait_for(r"dig @127\.0\.0\.1 -p (\d+)")[1])

    def get(self, path: str = "/") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def ask(self, name: str, kind: str, *, tcp: bool = False) -> list[str]:
        query = dns.message.make_query(name, kind)
        ask = dns.query.tcp if tcp else dns.query.udp
        answer = ask(query, "127.0.0.1", timeout=PATIENCE, port=self.dns)
        return [rdata.to_text() for rrset in answer.answer for rdata in rrset]


@contextlib.contextmanager
def serving(settings: Path, *arguments: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-m", "appliance", "serve", "-c", str(settings), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=settings.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    running = Running(process)
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        running._reader.join(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# A run.


def test_a_page_and_a_name_through_our_own_stack(tmp_path: Path) -> None:
    with serving(write(tmp_path), "-v") as running:
        status, body = running.get()
        assert status == 200
        assert b"First words." in body
        assert running.get("/big.bin") == (200, bytes(range(256)) * 40_000)
        assert running.get("/.secret")[0] == 404
        assert running.ask("example.org", "A") == ["10.0.0.2"]
        assert running.ask("example.org", "NS", tcp=True) == ["ns.example.org."]
        running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 0
        # The stack's own counters: it was our TCP and UDP that carried this.
        counted = running.said
        assert re.search(r"pair-a: .*'tcp_accepted': 4", counted), counted
        assert re.search(r"pair-b: .*'tcp_connected': 4", counted), counted


def test_the_banner(tmp_path: Path) -> None:
    settings = write(tmp_path)
    (tmp_path / "site" / "draft.md").write_text("---\ntitle: Draft\ndraft: true\n---\n\nNot yet.\n")
    with serving(settings) as running:
        running.wait_for("Ctrl-C ends it")
        ports = config.load(settings).gateway
        assert "serves Example" in running.said
        assert f"  http://127.0.0.1:{ports.http}/\n" in running.said
        assert f"  dig @127.0.0.1 -p {ports.dns} example.org\n" in running.said
        assert re.search(r"1 page, \d+ files, 10\.\d MB", running.said)
        assert "1 zone, 4 records, over UDP and TCP" in running.said
        assert "stack: 10.0.0.2/24 on pair" in running.said
        assert "refused: 1 dotfile hidden" in running.said
        assert "waiting: 1 page" in running.said


def test_taken_ports_are_replaced_and_said(tmp_path: Path) -> None:
    settings = write(tmp_path)
    wanted = config.load(settings).gateway
    with (
        socket.create_server(("127.0.0.1", wanted.http)),
        socket.create_server(("127.0.0.1", wanted.dns)),
        serving(settings) as running,
    ):
        running.wait_for("Ctrl-C ends it")
        assert f"note: port {wanted.http} is taken: HTTP is on {running.http}" in running.said
        assert f"note: port {wanted.dns} is taken: DNS is on {running.dns}" in running.said
        assert running.http != wanted.http
        assert running.get()[0] == 200
        assert running.ask("example.org", "A") == ["10.0.0.2"]


def test_another_network_and_other_ports(tmp_path: Path) -> None:
    settings = write(tmp_path, more="[http]\nport = 8000\n[dns]\nport = 5300\n")
    with serving(settings, "--address", "192.0.2.9/29") as running:
        assert running.get()[0] == 200
        assert running.ask("example.org", "A") == ["10.0.0.2"]


def test_a_recording(tmp_path: Path) -> None:
    from appliance.net.vif.pcap import read_pcap

    trace = tmp_path / "trace.pcap"
    with serving(write(tmp_path), "--pcap", str(trace)) as running:
        assert running.get()[0] == 200
        assert f"note: every frame is recorded in {trace}" in running.said
        running.process.send_signal(signal.SIGINT)
        assert running.ended() == 0
    assert any(b"First words." in captured.octets for captured in read_pcap(trace))


# Ends.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    with serving(write(tmp_path)) as running:
        running.wait_for("Ctrl-C ends it")
        running.process.send_signal(number)
        assert running.ended() == 0


def test_idle_connections_do_not_hold_it_up(tmp_path: Path) -> None:
    with serving(write(tmp_path)) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.http, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            assert connection.getresponse().read()
            began = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            assert running.ended() == 0
            assert time.monotonic() - began < 4.0  # it did not wait for the limit
            assert "cut off" not in running.said


def read_slowly(port: int) -> socket.socket:
    """Ask for the big file, and have read its head."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", port))
    sock.sendall(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
    assert sock.recv(100).startswith(b"HTTP/1.1 200")
    return sock


def test_a_download_under_way_is_finished_first(tmp_path: Path) -> None:
    with serving(write(tmp_path)) as running, read_slowly(running.http) as sock:
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("ending")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.http))
        size = 100
        while data := sock.recv(1 << 20):
            size += len(data)
        assert size > 256 * 40_000
        assert running.ended() == 0
        assert "cut off" not in running.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_loads(number: signal.Signals, tmp_path: Path) -> None:
    """PID 1 of a container hears of no signal without a handler (signal(7), pid_namespaces(7))."""
    settings = tmp_path / "appliance.toml"
    os.mkfifo(settings)
    with serving(settings) as running:
        writer = os.open(settings, os.O_WRONLY)  # it has come to read it
        for harmless in (signal.SIGHUP, signal.SIGUSR1):
            running.process.send_signal(harmless)
        running.process.send_signal(number)
        assert running.ended() == 128 + number
        os.close(writer)


def silent_tap(folder: Path) -> Path:
    """Settings of a tap that nobody lends an address on."""
    return write(folder, more='[net]\nlink = "tap:om-nobody"\nwait = 60\nipv6 = "off"\n')


def test_a_signal_ends_it_while_it_looks_for_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, with status 0; and one that comes while it begins loads again when it has begun."""
    monkeypatch.setattr("appliance.app.open_cable", lambda *_: (pair()[0], None))
    loaded: list[object] = []

    async def scenario() -> None:
        settings = config.load(silent_tap(tmp_path))
        settings = settings.model_copy(update={"tls": settings.tls.model_copy(
            update={"port": 0, "dot_port": 0})})  # fmt: skip
        looking = asyncio.Event()

        def say(line: str) -> None:
            if "looking for an address" in line:
                looking.set()

        made = Appliance(settings, say, load=lambda *_, **__: loaded.append(1))
        running = asyncio.create_task(made.run())
        await looking.wait()
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.05)
        await asyncio.wait_for(running, PATIENCE)

    asyncio.run(scenario())
    assert not loaded  # there was nothing yet that could have served it


def test_a_reload_that_a_part_cannot_take_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And the next one is done all the same."""

    async def scenario() -> None:
        settings = config.load(write(tmp_path, more="[tls]\nport = 0\ndot_port = 0\n"))
        made = Appliance(settings, said.append)
        made._begun = True

        def fails(_content: object) -> None:
            raise OSError("no more descriptors")

        made._parts = [Part(), Part()]
        made._parts[1].reload = fails  # type: ignore[method-assign]
        for _ in range(2):
            made._told_to_reload()
            assert made._reloading is not None
            await made._reloading

    said: list[str] = []
    asyncio.run(scenario())
    assert caplog.text.count("reloaded, but not everything") == 2
    assert not any(line.startswith("reloaded in") for line in said)


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with serving(write(tmp_path)) as running, read_slowly(running.http):
        running.process.send_signal(signal.SIGINT)
        running.wait_for("ending")
        began = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        assert running.ended() == 128 + signal.SIGINT
        assert time.monotonic() - began < 4.0


def test_a_client_that_resets_bothers_nobody(tmp_path: Path) -> None:
    with serving(write(tmp_path)) as running:
        for _ in range(3):
            with read_slowly(running.http) as sock:
                linger = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert running.get()[0] == 200
        running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 0


# Loading again.


def test_sighup_loads_site_and_zones_again(tmp_path: Path) -> None:
    with serving(write(tmp_path)) as running:
        kept = http.client.HTTPConnection("127.0.0.1", running.http, timeout=PATIENCE)
        with contextlib.closing(kept):
            kept.request("GET", "/")
            assert b"First words." in kept.getresponse().read()
            page = tmp_path / "site" / "index.md"
            page.write_text("---\ntitle: Home\n---\n\nOther words.\n")
            zone = tmp_path / "zones" / "example.org.zone"
            zone.write_text(ZONE.replace("soa 1", "soa 2") + "new IN A 10.0.0.7\n")
            running.process.send_signal(signal.SIGHUP)
            running.wait_for(r"reloaded in \d")
            kept.request("GET", "/")  # on the connection from before
            assert b"Other words." in kept.getresponse().read()
        assert running.ask("new.example.org", "A") == ["10.0.0.7"]


def test_sighup_with_a_bad_zone_keeps_the_last_good_one(tmp_path: Path) -> None:
    """One bad zone stops nothing else, and is told of."""
    with serving(write(tmp_path)) as running:
        assert running.get()[0] == 200
        page = tmp_path / "site" / "index.md"
        page.write_text("---\ntitle: Home\n---\n\nOther words.\n")
        zone = tmp_path / "zones" / "example.org.zone"
        zone.write_text(ZONE + "new IN A 10.0.0.777\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("served as it was")
        running.wait_for(r"reloaded in \d")
        assert re.search(r"error: zones/example\.org\.zone:7: ", running.said)
        assert b"Other words." in running.get()[1]
        assert running.ask("example.org", "A") == ["10.0.0.2"]
        zone.write_text(ZONE + "new IN A 10.0.0.77\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for(r"changed, but its serial 1 is not newer")
        assert running.ask("new.example.org", "A") == ["10.0.0.77"]


def test_sighup_with_an_error_of_the_site_keeps_the_old_one(tmp_path: Path) -> None:
    with serving(write(tmp_path)) as running:
        assert running.get()[0] == 200
        page = tmp_path / "site" / "index.md"
        page.write_text("---\ntitle: [\n---\n\nOther words.\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("not reloaded: 1 error")
        assert b"First words." in running.get()[1]


# What cannot begin.


def refused(settings: Path, *arguments: str) -> str:
    """The one line that `serve` ends with."""
    with serving(settings, *arguments) as running:
        assert running.ended() == 1
        return running.lines[-1].rstrip()


def test_sigusr1_opens_the_logs_again(tmp_path: Path) -> None:
    """Both of them; `mv` and a signal is how they are rotated."""
    more = '[http]\naccess_file = "access.log"\n[dns]\nquery_log = "query.log"\n'
    with serving(write(tmp_path, more=more)) as running:
        running.get("/before")
        running.ask("before.example.org", "A")
        until(lambda: b"/before" in (tmp_path / "access.log").read_bytes())
        until(lambda: b"before" in (tmp_path / "query.log").read_bytes())
        for name in ("access.log", "query.log"):
            (tmp_path / name).rename(tmp_path / f"{name}.1")
        running.process.send_signal(signal.SIGUSR1)
        until(lambda: (tmp_path / "access.log").exists() and (tmp_path / "query.log").exists())
        running.get("/after")
        running.ask("after.example.org", "A")
        running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 0
    for name in ("access.log", "query.log"):
        assert "after" in (tmp_path / name).read_text()
        assert "after" not in (tmp_path / f"{name}.1").read_text()


def test_sigusr1_without_a_log_changes_nothing(tmp_path: Path) -> None:
    """What rotates logs signals to whoever may have one."""
    with serving(write(tmp_path)) as running:
        running.wait_for("Ctrl-C ends it")
        running.process.send_signal(signal.SIGUSR1)
        assert running.get()[0] == 200
        running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 0


def test_the_query_log_has_what_came_over_tls_and_https(tmp_path: Path) -> None:
    ports = {"https": free_port(), "dot": free_port()}
    more = "".join(f"{name} = {port}\n" for name, port in ports.items())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with serving(write(tmp_path, more=f'{more}[dns]\nquery_log = "query.log"\n')) as running:
        dot = int(running.wait_for(r"kdig @127\.0\.0\.1 -p (\d+)")[1])
        https = int(running.wait_for(r"https://127\.0\.0\.1:(\d+)/")[1])
        query = dns.message.make_query("tls.example.org", "A")
        dns.query.tls(query, "127.0.0.1", PATIENCE, dot, ssl_context=context)
        query = dns.message.make_query("https.example.org", "A")
        web = http.client.HTTPSConnection("127.0.0.1", https, timeout=PATIENCE, context=context)
        with contextlib.closing(web):
            fields = {"Content-Type": "application/dns-message"}
            web.request("POST", "/dns-query", query.to_wire(), fields)
            assert web.getresponse().read()
        running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 0
    lines = [line.split()[1:] for line in (tmp_path / "query.log").read_text().splitlines()]
    assert [line[:5] for line in lines] == [
        ["10.0.0.1", "tls", "tls.example.org.", "A", "nxdomain"],
        ["10.0.0.1", "https", "https.example.org.", "A", "nxdomain"],
    ]


def test_a_card_that_is_not_there(tmp_path: Path) -> None:
    """A sentence, whether for want of the card or (unprivileged) of the right to look."""
    assert refused(write(tmp_path), "--link", "packet:nowhere0") in (
        "appliance: there is no interface nowhere0 (ip link shows them)",
        "appliance: not allowed to open nowhere0: run as root or with CAP_NET_RAW",
    )


@pytest.mark.parametrize(
    ("option", "key"), [("--site", "site.directory"), ("--zones", "dns.zones")]
)
def test_a_directory_that_is_not_there(option: str, key: str, tmp_path: Path) -> None:
    said = refused(write(tmp_path), option, "nowhere")
    assert said == f"appliance: {tmp_path}/nowhere is not a directory ({option} DIR, or {key})"


def test_a_recording_that_cannot_be_written(tmp_path: Path) -> None:
    said = refused(write(tmp_path), "--pcap", "/nowhere/x.pcap")
    assert said == "appliance: cannot record to /nowhere/x.pcap: No such file or directory"


@pytest.mark.parametrize("setting", ["[http]\naccess_file", "[dns]\nquery_log"])
def test_a_log_that_cannot_be_written_is_named(setting: str, tmp_path: Path) -> None:
    said = refused(write(tmp_path, more=f'{setting} = "/nowhere/x.log"\n'))
    assert said == "appliance: /nowhere/x.log: No such file or directory"


def test_two_services_on_one_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write(tmp_path, more="[http]\nport = 53\n")
    assert cli.main(["check", "-c", str(settings)]) == 1
    assert "error: http.port = 53: must be another port than dns.port" in capsys.readouterr().out


# check.


def test_check_of_what_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "-c", str(write(tmp_path))]) == 0
    assert re.search(
        r"1 page, \d+ files, 1 zone, 4 records; 0 errors, \d+ warn", capsys.readouterr().out
    )


def test_check_tells_everything_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = write(tmp_path, more='[log]\nlevel = "loud"\n')
    (tmp_path / "site" / "bad.md").write_text("No front matter.\n")
    (tmp_path / "zones" / "example.org.zone").write_text(
        ZONE + "one IN A 10.0.0.777\ntwo IN A 10.0.0.2\nthree IN NONSENSE x\n"
    )
    assert cli.main(["check", "-c", str(settings)]) == 1
    said = capsys.readouterr().out
    assert re.search(rf"^{settings}:\d+: error: log\.level = \"loud\"", said, re.MULTILINE)
    assert re.search(r"^site/bad\.md:1: error: ", said, re.MULTILINE)
    assert re.search(r"^zones/example\.org\.zone:7: error: ", said, re.MULTILINE)
    assert re.search(r"^zones/example\.org\.zone:9: error: ", said, re.MULTILINE)
    assert re.search(r"; 4 errors, \d+ warnings?$", said)


def test_check_follows_the_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write(tmp_path)
    (tmp_path / "site" / "lost.md").write_text(
        "---\ntitle: Lost\n---\n[nowhere](/no-such-page)\n", encoding="utf-8"
    )
    assert cli.main(["check", "-c", str(settings)]) == 1
    assert re.search(r"lost\.md.*error.*no-such-page", capsys.readouterr().out)


def test_check_of_a_file_that_is_no_toml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "appliance.toml"
    settings.write_text("[site\n")
    assert cli.main(["check", "-c", str(settings)]) == 1
    assert f"{settings}:1: error: is not TOML" in capsys.readouterr().out


def test_the_site_and_zones_of_this_repository_have_no_errors() -> None:
    content = load_content(config.load(ROOT / "appliance.toml"))
    assert [str(p) for p in content.problems if p.severity == "error"] == []
    assert content.size.pages > 10
    assert len(content.zones) >= 2


def test_the_state_diagram_is_on_its_page() -> None:
    content = load_content(config.load(ROOT / "appliance.toml"))
    page = content.site.resources[b"/docs/tcp"]
    assert b'data-from="SYN-SENT" data-to="ESTABLISHED"' in page.identity.body


# The banner's parts.


def test_the_banner_of_a_secondary_says_where_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zones that come from primaries later are ours to answer from the first, with SERVFAIL."""
    settings = Settings.model_validate(
        {
            "net": {"link": "tap:t", "address": ["192.0.2.1/24"]},
            "dns": {"primary": [{"address": "192.0.2.9", "zones": ["b.example", "a.example"]}]},
        }
    )
    content: Any = SimpleNamespace(size=Size(1, 1, 1, 0, 0), zones=(), records=0, problems=())
    monkeypatch.setattr(banner, "_report", lambda _vif: "fine")
    vif: Any = None
    said = "\n".join(banner.banner(settings, content, [vif], None))
    assert "dig @192.0.2.1 b.example\n" in said
    assert "0 zones, 0 records, and 2 zones of primaries, over UDP and TCP\n" in said


def test_which_zone_is_asked_for() -> None:
    zones = ("0.0.10.in-addr.arpa.", "other.example.", "example.org.")
    assert banner._zone_to_ask("http://www.example.org", zones) == "example.org"
    assert banner._zone_to_ask("http://elsewhere.test", zones) == "other.example"
    assert banner._zone_to_ask("http://elsewhere.test", zones[:1]) == "0.0.10.in-addr.arpa"


def test_urls_can_be_typed() -> None:
    assert banner.url("10.0.0.2", 80) == "http://10.0.0.2/"
    assert banner.url("127.0.0.1", 8080) == "http://127.0.0.1:8080/"
    assert banner.url("::1", 8080) == "http://[::1]:8080/"


def test_plural() -> None:
    assert banner.plural(1, "page") == "1 page"
    assert banner.plural(0, "page") == "0 pages"
    assert banner.plural(12345, "record") == "12,345 records"


def test_a_tap_alone_in_its_network_has_no_hint(tmp_path: Path) -> None:
    """There is no address left for the host's side."""
    text = '[net]\nlink = "tap:om-none"\naddress = ["192.0.2.7/{}"]\n'
    for length, hint in ((32, None), (31, "ip address add 192.0.2.6/31 dev om-none")):
        net = config.load(write(tmp_path, more=text.format(length))).net
        found = banner._host_side(net)
        assert (found is None) == (hint is None)
        assert hint is None or hint in str(found)


@pytest.mark.parametrize("allow", ["", 'allow = ["10.0.0.0/24"]\n'])
def test_the_dashboard_is_for_this_host_unless_others_are_named(tmp_path: Path, allow: str) -> None:
    """Behind the gateway everybody has its address, whatever that listens on."""
    more = (
        f"metrics = {free_port()}\n[metrics]\nport = 9090\n{allow}[tls]\nport = 0\ndot_port = 0\n"
    )
    with serving(write(tmp_path, more=more), "--bind", "0.0.0.0") as running:
        port = int(running.wait_for(r"http://127\.0\.0\.1:(\d+)/  \(dashboard")[1])
        # Every address of 127.0.0.0/8 is this host's; what listens on one alone is not on another.
        for address, there in (("127.0.0.1", True), ("127.0.0.2", bool(allow))):
            with contextlib.closing(socket.socket()) as asked:
                asked.settimeout(PATIENCE)
                assert (asked.connect_ex((address, port)) == 0) == there


def test_a_second_address_on_a_pair_is_not_the_gateway_s(tmp_path: Path) -> None:
    more = '[net]\naddress = ["10.0.0.2/24", "10.0.0.1/24"]\n'
    with serving(write(tmp_path, more=more)) as running:
        assert running.get()[0] == 200
