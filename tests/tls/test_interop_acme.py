"""Certificates from Pebble (Let's Encrypt's test server) over our own TCP/IP.

A namespace has a tap; the appliance is the whole host behind it, authority for example.test, and
Pebble on the kernel's side asks that zone, with its refused nonces and reused authorisations on.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from appliance.tls.authority import Authority
from appliance.tls.credential import key_pem
from bench import lab
from bench.lab import Namespace, Server

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]
EAB_KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"  # of Pebble's manual
OURS, KERNEL, TAP = "10.79.1.2", "10.79.1.1", "tap0"
CA_HOST = "ca.example.net"
ZONE = f"""\
$ORIGIN example.test.
$TTL 300
@ SOA ns1 hostmaster 2026010100 7200 3600 1209600 300
@ NS ns1
ns1 A {OURS}
@ A {OURS}
www A {OURS}
"""


@dataclass
class Lab:
    space: Namespace
    folder: Path
    pebble: Server

    def settings(self, **acme: Any) -> Path:
        """Write appliance.toml with these keys in [acme]."""
        wanted: dict[str, Any] = {
            "directory": f"https://{CA_HOST}:14000/dir",
            "names": ["example.test", "*.example.test"],
            "contact": ["mailto:admin@example.test"],
            "agree": True,
            "ca_file": str(self.folder / "ca.pem"),
            "resolvers": [KERNEL],
            **acme,
        }
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in wanted.items())
        path = self.folder / "appliance.toml"
        path.write_text(
            '[site]\ntitle = "ACME"\nbase_url = "http://example.test"\n'
            f'[net]\nlink = "tap:{TAP}"\naddress = ["{OURS}/24"]\ngateway = ["{KERNEL}"]\n'
            "probe = false\n"
            f"[acme]\n{lines}\n"
        )
        return path

    @contextmanager
    def appliance(self, **acme: Any) -> Iterator[Server]:
        """Run the appliance with these settings."""
        words = self.space.command(
            sys.executable, "-m", "appliance", "serve", "-c", str(self.settings(**acme))
        )
        environment = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with lab.serve("appliance", words, self.folder, env=environment) as server:
            server.wait(lambda: "Ctrl-C ends it" in server.words(), 30)
            yield server

    def status(self) -> dict[str, Any]:
        """What the appliance tells of the certificate from Pebble."""
        path = self.folder / "state/tls/status.json"
        rows = json.loads(path.read_text())["certificates"]
        return next(row for row in rows if row["source"] == "ACME")

    def shown(self, name: str = "example.test", alpn: str = "http/1.1") -> x509.Certificate:
        """The certificate that a client is shown."""
        text = self.space.run(
            *("openssl", "s_client", "-connect", f"{OURS}:443", "-servername", name),
            *("-alpn", alpn, "-showcerts"),
            timeout=20,
        )
        return x509.load_pem_x509_certificate(text[text.index("-----BEGIN") :].encode())

    def ask(self, name: str, kind: str) -> list[str]:
        """What our zone answers, as lines."""
        return self.space.run("dig", f"@{OURS}", "+short", "+time=2", name, kind).splitlines()


def wait(server: Server, ready: Callable[[], Any], seconds: float = 40) -> None:
    server.wait(lambda: bool(ready()), seconds)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    reason = lab.missing(["ip", "curl", "dig"]) or (
        "" if shutil.which("pebble") else "needs pebble: apt-get install pebble"
    )
    if reason:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("acme")
    now = dt.datetime.now(dt.UTC)
    authority = Authority.make(["example.net"], now)
    credential = authority.issue([CA_HOST], now)
    (folder / "ca.pem").write_bytes(authority.pem())
    (folder / "pebble.pem").write_bytes(credential.pem())
    (folder / "pebble.key").write_bytes(key_pem(credential.key))
    (folder / "pebble.json").write_text(json.dumps({"pebble": {
        "listenAddress": f"{KERNEL}:14000", "managementListenAddress": f"{KERNEL}:15000",
        "certificate": str(folder / "pebble.pem"), "privateKey": str(folder / "pebble.key"),
        "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "",
        "externalAccountBindingRequired": False, "certificateValidityPeriod": 7776000,
    }}))  # fmt: skip
    site, zones = folder / "site", folder / "zones"
    site.mkdir()
    zones.mkdir()
    (site / "index.md").write_text("---\ntitle: ACME\n---\n\nHere.\n")
    (zones / "example.test.zone").write_text(ZONE)
    with ExitStack() as stack:
        space = stack.enter_context(lab.namespace("acme"))
        space.tap(TAP, f"{KERNEL}/24")
        names = stack.enter_context(
            lab.serve(
                "challtestsrv",
                space.command(
                    "pebble-challtestsrv", "-defaultIPv6", "", "-defaultIPv4", KERNEL,
                    "-dns01", f"{KERNEL}:53", "-http01", "", "-https01", "", "-tlsalpn01", "",
                    "-management", f"{KERNEL}:8055",
                ),
                folder,
            )
        )  # fmt: skip
        pebble = stack.enter_context(
            lab.serve(
                "pebble",
                space.command(
                    "pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"{OURS}:53"
                ),
                folder,
                env={"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"},
            )
        )
        pebble.wait(lambda: "ACME directory available" in pebble.words(), 20)
        bound = json.loads((folder / "pebble.json").read_text())["pebble"] | {
            "listenAddress": f"{KERNEL}:14001", "managementListenAddress": f"{KERNEL}:15001",
            "externalAccountBindingRequired": True, "externalAccountMACKeys": {"kid-1": EAB_KEY},
        }  # fmt: skip
        (folder / "bound.json").write_text(json.dumps({"pebble": bound}))
        words = ("pebble", "-config", str(folder / "bound.json"), "-dnsserver", f"{OURS}:53")
        strict = stack.enter_context(
            lab.serve("bound", space.command(*words), folder, env={"PEBBLE_VA_NOSLEEP": "1"})
        )
        strict.wait(lambda: "ACME directory available" in strict.words(), 20)
        assert names.process.poll() is None, names.words()
        yield Lab(space, folder, pebble)


def forget(laboratory: Lab) -> None:
    shutil.rmtree(laboratory.folder / "state", ignore_errors=True)


def test_issue_and_renew_by_dns(laboratory: Lab) -> None:
    """RFC 8555 §8.4: a wildcard, proven by our own zone; TLSA as RFC 7671 wants it."""
    forget(laboratory)
    with laboratory.appliance(tlsa=True) as server:
        wait(server, lambda: laboratory.status()["sha256"])
        row = laboratory.status()
        assert row["error"] is None
        assert row["names"] == ["example.test", "*.example.test"]
        assert "Pebble" in row["issuer"]
        first = laboratory.shown()
        assert first == laboratory.shown("some.example.test")
        assert laboratory.ask("_acme-challenge.example.test", "TXT") == []
        assert len(laboratory.ask("_443._tcp.example.test", "TLSA")) == 1
        left = dt.datetime.fromisoformat(row["renewal"]) - dt.datetime.now(dt.UTC)
        assert dt.timedelta(days=50) < left < dt.timedelta(days=70)
    with laboratory.appliance() as server:  # what was kept is used, and nothing is ordered
        assert laboratory.shown() == first
        folder = laboratory.folder / "state/tls/acme"
        assert (folder / "certificate.pem").stat().st_mode & 0o777 == 0o600
    kept = laboratory.folder / "state/tls/acme/certificate.pem"
    kept.unlink()  # as if it was time: the account is used again
    with laboratory.appliance() as server:
        wait(server, lambda: laboratory.status()["sha256"])
        assert laboratory.shown() != first


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
def test_issue_by_our_listeners(laboratory: Lab, challenge: str) -> None:
    """RFC 8555 §8.3, RFC 8737."""
    forget(laboratory)
    with laboratory.appliance(challenge=challenge, names=["www.example.test"]) as server:
        wait(server, lambda: laboratory.status()["sha256"])
        row = laboratory.status()
        assert row["error"] is None, row
        assert row["names"] == ["www.example.test"]
        assert laboratory.shown("www.example.test").issuer != laboratory.shown("localhost").issuer


def test_an_external_account_and_a_staging_directory(laboratory: Lab) -> None:
    """RFC 8555 §7.3.4; and the names are tried at the staging directory first."""
    forget(laboratory)
    (laboratory.folder / "eab.key").write_text(f"{EAB_KEY}\n")
    wanted = {
        "directory": f"https://{CA_HOST}:14001/dir",
        "staging": f"https://{CA_HOST}:14001/dir",
        "names": ["example.test"],
    }
    with laboratory.appliance(**wanted) as server:
        wait(server, lambda: laboratory.status()["error"])
        assert "external account binding" in laboratory.status()["error"]
    forget(laboratory)
    bound = {"eab_kid": "kid-1", "eab_key": str(laboratory.folder / "eab.key")}
    with laboratory.appliance(**wanted, **bound) as server:
        wait(server, lambda: laboratory.status()["sha256"])
        assert (laboratory.folder / "state/tls/acme/staging.json").exists()


def test_a_failure_names_step_and_record(laboratory: Lab) -> None:
    """The certificate of before stays, and the error says what was asked and seen."""
    forget(laboratory)
    with laboratory.appliance(challenge="http-01", names=["absent.example.test"]) as server:
        wait(server, lambda: laboratory.status()["error"])
        error = laboratory.status()["error"]
        assert error.startswith("http-01 for absent.example.test: ")
        assert "http://absent.example.test/.well-known/acme-challenge/" in error
        assert laboratory.shown().issuer.rfc4514_string().startswith("CN=appliance local CA")
        assert (laboratory.folder / "state/tls/acme/failures.json").exists()


def test_an_authority_that_nobody_trusts(laboratory: Lab) -> None:
    forget(laboratory)
    with laboratory.appliance(ca_file="/etc/ssl/certs/ca-certificates.crt") as server:
        wait(server, lambda: laboratory.status()["error"])
        error = laboratory.status()["error"]
        assert error.startswith(f"directory https://{CA_HOST}:14000/dir: ")
        assert "certificate verify failed" in error
