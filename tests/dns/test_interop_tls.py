"""Transfers over TLS (RFC 9103): BIND as a primary of ours, BIND and NSD as secondaries."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.dns import DnsStreamProtocol, names
from appliance.dns.members import make
from appliance.dns.secondary import Primary as Whence
from appliance.dns.secondary import Trust
from appliance.dns.writer import zone_text
from appliance.parts.primaries import SecurePrimaries
from appliance.tls.authority import Authority
from appliance.tls.contexts import Contexts
from appliance.tls.credential import key_pem
from appliance.tls.protocol import TlsServer
from tests.dns import programs
from tests.dns.programs import KEY
from tests.dns.test_interop_primaries import CATALOG, MOVING, Ours, same
from tests.dns.test_interop_secondaries import Primary, has_serial, until, version
from tests.ports import free_port

pytestmark = pytest.mark.interop

NAME = "ns1.primary.test"
# Other programs judge by the real clock.
AUTHORITY = Authority.make(["primary.test"], dt.datetime.now(dt.UTC))
CREDENTIAL = AUTHORITY.issue((NAME,), dt.datetime.now(dt.UTC))


def folder(tmp_path: Path) -> Path:
    """Where another program works, with the certificates."""
    directory = programs.folder(tmp_path)
    (directory / "ca.pem").write_bytes(AUTHORITY.pem())
    (directory / "chain.pem").write_bytes(CREDENTIAL.pem())
    (directory / "key.pem").write_bytes(key_pem(CREDENTIAL.key))
    return directory


def test_a_primary_is_followed_over_tls(tmp_path: Path) -> None:
    """RFC 9103: SOA, AXFR, IXFR and a catalog under TLS, with TSIG in it, from nobody else."""
    programs.installed("named")
    directory, port, here = folder(tmp_path), free_port(), free_port()
    zones = ["moving.test", "catalog.test"]
    handed = (
        f"""zone "{zone}" {{
  type master; file "{zone}"; check-integrity no; ixfr-from-differences yes;
  allow-transfer port {port} transport tls {{ key xfr.example; }};
  also-notify {{ 127.0.0.1 port {here} key xfr.example; }};
}};
"""
        for zone in zones
    )
    keys = f'cert-file "{directory}/chain.pem"; key-file "{directory}/key.pem";'
    command = programs.bind(
        directory,
        port,
        f"tls ours {{ {keys} }};\n" + "".join(handed),
        options="notify explicit; notify-delay 0;",
        transport="tls ours ",
    )
    (directory / "moving.test").write_text(zone_text(version(1, 3000)))
    (directory / "catalog.test").write_text(zone_text(make(CATALOG, [MOVING], 1)))
    at = Whence("127.0.0.1", port, KEY, Trust(NAME, directory / "ca.pem"))

    async def refused(trust: Trust, words: str) -> None:
        ours = Ours(tmp_path / "nowhere", at._replace(tls=trust), SecurePrimaries())
        await ours.begin(free_port())
        async with asyncio.timeout(10):
            while not ours.said:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert words in ours.said[0]
        assert ours.zone(CATALOG) is None
        await ours.close()

    async def scenario() -> None:
        with programs.running(command, tmp_path / "log") as process:
            await asyncio.sleep(0.7)  # another program begins
            ours = Ours(tmp_path / "state", at, SecurePrimaries())
            await ours.begin(here)

            async def has(serial: int) -> bool:
                return ours.has(MOVING, serial)

            await until(lambda: has(1))
            assert same(ours.zone(MOVING), version(1, 3000))
            for serial in (2, 3):
                (directory / "moving.test").write_text(zone_text(version(serial, 3000)))
                process.send_signal(signal.SIGHUP)
                await until(lambda: has(serial))  # noqa: B023
            assert same(ours.zone(MOVING), version(3, 3000))
            history = ours.server.options.transfers.histories[MOVING]
            assert len(history.since(1, 3) or []) == 2
            assert not ours.said[1:], ours.said  # but that the catalog brought a zone
            await ours.close()
            # RFC 9103 §7.5: nobody else will do, whatever the key for TSIG.
            await refused(Trust("ns2.primary.test", directory / "ca.pem"), "hostname mismatch")
            other = directory / "other.pem"
            other.write_bytes(Authority.make(["primary.test"], dt.datetime.now(dt.UTC)).pem())
            await refused(Trust(NAME, other), "TLS handshake with ns1.primary.test: certificate")
            await refused(Trust(pins=frozenset([bytes(32)])), "not one of those that are pinned")

    programs.run(scenario, tmp_path / "log")


def named(directory: Path, port: int, master: int) -> list[str]:
    trust = f'ca-file "{directory}/ca.pem"; remote-hostname "{NAME}";'
    rest = f"""tls theirs {{ {trust} }};
zone "moving.test" {{
  type slave; masters {{ 127.0.0.1 port {master} key xfr.example tls theirs; }};
  file "moving.test"; allow-notify {{ key xfr.example; }}; check-names ignore;
}};
"""
    return programs.bind(directory, port, rest)


def nsd(directory: Path, port: int, master: int) -> list[str]:
    server = f"""  xfrd-reload-timeout: 0
  tls-cert-bundle: "{directory}/ca.pem"
"""
    rest = f"""tls-auth:
  name: theirs
  auth-domain-name: "{NAME}"
zone:
  name: "moving.test"
  zonefile: "moving.test"
  request-xfr: 127.0.0.1@{master} xfr.example theirs
  allow-notify: 127.0.0.1 xfr.example
"""
    return programs.nsd(directory, port, rest, server)


@pytest.mark.parametrize("program", [named, nsd])
def test_a_secondary_follows_over_tls(
    program: Callable[[Path, int, int], list[str]], tmp_path: Path
) -> None:
    """RFC 9103: the whole zone, and then a difference."""
    programs.installed(program.__name__)
    directory = folder(tmp_path)

    async def scenario() -> None:
        primary = Primary()
        await primary.start()
        primary.serve(version(1, 3000))
        contexts = Contexts([CREDENTIAL], protocols=[b"dot"], service="dot", now=0.0)
        listener = TlsServer(contexts, lambda _alpn: DnsStreamProtocol(primary, kind="tls"))
        server = await asyncio.get_running_loop().create_server(listener, "127.0.0.1", 0)
        port = free_port()
        command = program(directory, port, server.sockets[0].getsockname()[1])
        with programs.running(command, tmp_path / "log"):
            await until(lambda: has_serial(port, "moving.test.", 1))
            await primary.tell(port)
            primary.serve(version(2, 3000))
            await until(lambda: has_serial(port, "moving.test.", 2))
        server.close()
        primary.close()
        await asyncio.sleep(0.05)  # until the streams are closed
        counters = primary.current.counters
        assert counters.transfers >= 2
        assert not counters.tcp_queries
        assert names.from_text("moving.test.") in primary.transfers.histories

    programs.run(scenario, tmp_path / "log")
