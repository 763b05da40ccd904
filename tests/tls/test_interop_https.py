"""HTTPS, DNS over TLS and over HTTPS through the gateway, as other people's programs see them."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.tls.authority import Authority
from appliance.tls.credential import key_pem
from bench import lab
from bench.lab import Server
from tests.ports import free_port

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]
PROGRAMS = {"curl": "curl", "kdig": "knot-dnsutils", "sslscan": "sslscan", "openssl": "openssl"}
ZONE = """\
$ORIGIN example.test.
$TTL 300
@ SOA ns1 hostmaster 1 7200 3600 1209600 300
@ NS ns1
@ A 127.0.0.1
ns1 A 127.0.0.1
"""


@dataclass
class House:
    folder: Path
    server: Server
    https: int
    http: int
    dot: int

    def curl(self, *words: str) -> str:
        ca = str(self.folder / "state/tls/ca.pem")
        return lab.run("curl", "--silent", "--show-error", "--cacert", ca, "-m", "10", *words)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    absent = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if absent:
        reason = f"needs {' '.join(absent)}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("https")
    for name in ("site", "zones"):
        (folder / name).mkdir()
    (folder / "site/index.md").write_text("---\ntitle: House\n---\n\nSecure.\n")
    (folder / "site/large.bin").write_bytes(os.urandom(3_000_000))
    (folder / "zones/example.test.zone").write_text(ZONE)
    (folder / "appliance.toml").write_text(
        '[site]\ntitle = "House"\nbase_url = "http://example.test"\n'
        f"[gateway]\nhttp = {free_port()}\ndns = {free_port()}\n"
        f"https = {free_port()}\ndot = {free_port()}\n"
        "[tls]\nredirect = true\nhsts = 3600\n"
    )
    words = [sys.executable, "-m", "appliance", "serve"]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with lab.serve("appliance", words, folder, env=environment) as server:
        server.wait(lambda: "Ctrl-C ends it" in server.words(), 30)
        said = server.words()
        https = re.search(r"^  https://127\.0\.0\.1:(\d+)/", said, re.MULTILINE)
        http = re.search(r"^  http://127\.0\.0\.1:(\d+)/", said, re.MULTILINE)
        dot = re.search(r"kdig @127\.0\.0\.1 -p (\d+)", said)
        assert https is not None
        assert http is not None
        assert dot is not None
        yield House(folder, server, int(https[1]), int(http[1]), int(dot[1]))


@pytest.mark.parametrize(("option", "version"), [("--http2", "2"), ("--http1.1", "1.1")])
def test_the_printed_ca_satisfies_curl(house: House, option: str, version: str) -> None:
    """RFC 9113 §3.3, RFC 7301: the version by ALPN; RFC 6797 §7.2: HSTS."""
    for host in ("127.0.0.1", "localhost"):
        head = house.curl(option, "--include", f"https://{host}:{house.https}/")
        assert head.startswith(f"HTTP/{version} 200")
        assert "strict-transport-security: max-age=3600" in head.lower()


def test_without_the_ca_curl_refuses(house: House) -> None:
    with pytest.raises(lab.LabError, match="certificate"):
        lab.run("curl", "--silent", "--show-error", f"https://localhost:{house.https}/")


@pytest.mark.parametrize("option", ["--http2", "--http1.1"])
def test_a_large_body_arrives_whole(house: House, option: str) -> None:
    target = house.folder / "got.bin"
    house.curl(option, "-o", str(target), f"https://localhost:{house.https}/large.bin")
    assert target.read_bytes() == (house.folder / "site/large.bin").read_bytes()


def test_plain_http_is_sent_to_https(house: House) -> None:
    """RFC 9110 §15.4.9."""
    url = f"http://localhost:{house.http}/some/where"
    told = house.curl("-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", url)
    assert told == f"308 https://localhost:{house.https}/some/where"


def test_plain_http_on_the_secure_port(house: House) -> None:
    told = house.curl("-w", "%{http_code}", f"http://localhost:{house.https}/")
    assert "speaks TLS" in told
    assert told.endswith("400")


def test_the_ca_can_be_downloaded(house: House) -> None:
    ca = (house.folder / "state/tls/ca.pem").read_text()
    assert house.curl(f"http://localhost:{house.http}/local-ca.crt") == ca


def test_dns_over_tls(house: House) -> None:
    """RFC 7858, with the strict profile of RFC 8310."""
    ca = f"+tls-ca={house.folder / 'state/tls/ca.pem'}"
    words = ("kdig", "@127.0.0.1", "-p", str(house.dot), ca, "+tls-hostname=localhost")
    told = lab.run(*words, "example.test", "SOA")
    assert "TLS session (TLS1.3)" in told
    assert "hostmaster.example.test." in told


@pytest.mark.parametrize("how", [(), ("+https-get",)])
def test_dns_over_https(house: House, how: tuple[str, ...]) -> None:
    """RFC 8484 §4.1."""
    words = ("kdig", "@127.0.0.1", "-p", str(house.https), "+https=/dns-query", *how)
    told = lab.run(*words, "ns1.example.test", "A")
    assert "status: 200" in told
    assert "127.0.0.1" in told


def test_curl_resolves_by_us(house: House) -> None:
    told = house.curl(
        *("--doh-insecure", "--doh-url", f"https://127.0.0.1:{house.https}/dns-query"),
        *("-o", "/dev/null", "-w", "%{http_code} %{remote_ip}"),
        f"http://example.test:{house.http}/",
    )
    assert told == "308 127.0.0.1"


def test_sslscan_finds_nothing(house: House) -> None:
    """RFC 8996, RFC 9325: old versions, weak suites, compression and renegotiation are off."""
    report = lab.run("sslscan", "--no-colour", f"localhost:{house.https}")
    for version in ("SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"):
        assert re.search(rf"^{re.escape(version)}\s+disabled", report, re.MULTILINE), report
    assert "Session renegotiation not supported" in report
    suites = re.findall(
        r"^(?:Preferred|Accepted)\s+TLSv1\.2\s+\d+ bits\s+(\S+)", report, re.MULTILINE
    )
    assert suites
    assert all(s.startswith("ECDHE-") and ("GCM" in s or "CHACHA20" in s) for s in suites)


def test_resumption_through_the_stack(house: House) -> None:
    """RFC 8446 §2.2: s_client takes its session up again."""
    session = house.folder / "session.pem"
    target = f"localhost:{house.https}"
    first = ("openssl", "s_client", "-connect", target, "-sess_out", str(session))
    request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    subprocess.run([*first, "-quiet"], input=request, capture_output=True, text=True, timeout=20)
    second = ("openssl", "s_client", "-connect", target, "-sess_in", str(session))
    again = subprocess.run(second, input="Q", capture_output=True, text=True, timeout=20)
    assert "Reused, TLSv1.3" in again.stdout


def test_a_certificate_of_files_is_mended_and_swapped_without_a_restart(tmp_path: Path) -> None:
    """Connections go on; the next handshake sees the new one."""
    authority = Authority.make(["example.test", "localhost"], dt.datetime.now(dt.UTC))

    def put() -> None:
        made = authority.issue(["localhost"], dt.datetime.now(dt.UTC))
        (tmp_path / "new.key").touch(0o600)
        (tmp_path / "new.key").write_bytes(key_pem(made.key))
        (tmp_path / "new.pem").write_bytes(made.pem())
        (tmp_path / "new.key").replace(tmp_path / "house.key")
        (tmp_path / "new.pem").replace(tmp_path / "house.pem")

    (tmp_path / "ca.pem").write_bytes(authority.pem())
    for name in ("site", "zones"):
        (tmp_path / name).mkdir()
    (tmp_path / "site/index.md").write_text("---\ntitle: House\n---\n\nSecure.\n")
    (tmp_path / "zones/example.test.zone").write_text(ZONE)
    port = free_port()
    (tmp_path / "appliance.toml").write_text(
        '[site]\ntitle = "House"\nbase_url = "http://example.test"\n'
        f"[gateway]\nhttp = {free_port()}\ndns = {free_port()}\n"
        f"https = {port}\ndot = {free_port()}\n"
        '[tls]\nredirect = true\n[[certificate]]\nchain = "house.pem"\nkey = "house.key"\n'
    )

    def plain_http() -> str:
        told = re.search(r"^  (http://127\.0\.0\.1:\d+/)", server.words(), re.MULTILINE)
        assert told is not None
        return lab.run("curl", "--silent", "-o", "/dev/null", "-w", "%{http_code}", told[1])

    def fingerprint() -> str:
        told = lab.run(
            *("curl", "--silent", "--cacert", str(tmp_path / "ca.pem"), "-o", "/dev/null"),
            *("-w", "%{certs}%{http_code}", f"https://localhost:{port}/"),
        )
        assert told.endswith("200")
        return told

    def got() -> str:
        try:
            return fingerprint()
        except lab.LabError:
            return ""

    words = [sys.executable, "-m", "appliance", "serve"]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with lab.serve("appliance", words, tmp_path, env=environment) as server:
        server.wait(lambda: "Ctrl-C ends it" in server.words(), 30)
        assert "certificate refused" in server.words()
        with pytest.raises(lab.LabError, match="exit 35"):  # a failed handshake
            fingerprint()
        assert plain_http() == "200"  # a redirect would lead to nothing
        put()
        server.process.send_signal(signal.SIGHUP)  # look at once
        server.wait(lambda: bool(got()), 15)
        first = fingerprint()
        assert plain_http() == "308"
        put()
        server.wait(lambda: fingerprint() != first, 15)
        second = fingerprint()
        (tmp_path / "house.pem").write_text("spoilt")
        server.wait(lambda: "the old one stays" in server.words(), 15)
        assert fingerprint() == second
