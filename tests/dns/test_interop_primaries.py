"""NSD, Knot and BIND as primaries of ours: AXFR, IXFR, NOTIFY, TSIG and catalog zones."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from appliance.dns import (
    DnsDatagramProtocol,
    DnsStreamProtocol,
    Extensions,
    Keys,
    LoadedZones,
    Zone,
    names,
)
from appliance.dns.authority import Authority, Options
from appliance.dns.members import make
from appliance.dns.secondary import Primary
from appliance.dns.serial import records
from appliance.dns.service import Secure, Service
from appliance.dns.writer import zone_text
from appliance.dns.zone import canonical
from tests.dns import programs
from tests.dns.programs import KEY
from tests.dns.test_interop_secondaries import version
from tests.dns.util import DATA
from tests.ports import free_port

pytestmark = pytest.mark.interop

PATIENCE = 30.0
CATALOG = b"\7catalog\4test\0"
MOVING, CORNER = b"\6moving\4test\0", b"\6corner\4test\0"
ZONES = ["moving.test", "corner.test", "catalog.test"]


def nsd(directory: Path, port: int, ours: int) -> list[str]:
    handed = (
        f"""zone:
  name: "{zone}"
  zonefile: "{zone}"
  provide-xfr: 127.0.0.1 xfr.example
  notify: 127.0.0.1@{ours} xfr.example
  create-ixfr: yes
"""
        for zone in ZONES
    )
    return programs.nsd(directory, port, "".join(handed), "  xfrd-reload-timeout: 0\n")


def knot(directory: Path, port: int, ours: int) -> list[str]:
    handed = (
        f"  - domain: {zone}\n    file: {zone}\n    notify: ours\n    acl: told\n" for zone in ZONES
    )
    template = """    semantic-checks: off
    zonefile-load: difference
    zonefile-sync: -1
    journal-content: all
"""
    return programs.knot(directory, port, "zone:\n" + "".join(handed), template=template, ours=ours)


def bind(directory: Path, port: int, ours: int) -> list[str]:
    handed = (
        f"""zone "{zone}" {{
  type master; file "{zone}"; check-names ignore; check-integrity no;
  ixfr-from-differences yes; allow-transfer {{ key xfr.example; }};
  also-notify {{ 127.0.0.1 port {ours} key xfr.example; }};
}};
"""
        for zone in ZONES
    )
    options = "check-names master ignore; notify explicit; notify-delay 0;"
    return programs.bind(directory, port, "".join(handed), options=options)


SERVERS: dict[str, Callable[[Path, int, int], list[str]]] = {
    "nsd": nsd,
    "knotd": knot,
    "named": bind,
}


class Ours:
    """A secondary of a catalog, and of what it lists."""

    def __init__(self, state: Path, primary: Primary, secure: Secure | None = None) -> None:
        self.said: list[str] = []
        self.server = Authority(
            Options(
                extensions=Extensions(keys=Keys([KEY])),
                state=state,
                catalogs={CATALOG: (primary,)},
            ),
            random=Random(),
            say=self.said.append,
        )
        self.server.begin(LoadedZones((), ()))
        self.service = Service(self.server, random=Random(), secure=secure)
        self.end: Any = None
        self.streams: Any = None

    async def begin(self, port: int) -> None:
        await self.service.begin()
        # Knot sends NOTIFY over TCP.
        self.streams = await asyncio.get_running_loop().create_server(
            lambda: DnsStreamProtocol(self.service), "127.0.0.1", port
        )
        self.end, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: DnsDatagramProtocol(self.service), local_addr=("127.0.0.1", port)
        )

    def zone(self, origin: bytes) -> Zone | None:
        return self.server.current.zones.by_origin.get(origin)

    def has(self, origin: bytes, serial: int) -> bool:
        zone = self.zone(origin)
        return zone is not None and zone.serial == serial

    async def close(self) -> None:
        self.end.close()
        self.streams.close()
        await self.service.end()
        await asyncio.sleep(0.01)  # until the transports are closed


def content(zone: Zone) -> set[tuple[bytes, int, int, bytes]]:
    """All records; NSD hands names out in lower case, so case does not count."""
    return {
        (owner.lower(), rtype, ttl, canonical(rtype, rdata).lower())
        for owner, rtype, ttl, rdata in records(zone)
    }


def same(one: Zone | None, other: Zone) -> bool:
    assert one is not None
    return content(one) == content(other)


@pytest.mark.parametrize("program", SERVERS)
def test_a_primary_is_followed(program: str, tmp_path: Path) -> None:
    """RFC 5936, RFC 1995, RFC 1996, RFC 8945, RFC 9432: a catalog, what it lists, and changes."""
    programs.installed(program)
    directory = programs.folder(tmp_path)
    text = (DATA / "corner.zone").read_text()
    corner = Zone.from_text("\n".join(x for x in text.splitlines() if "*.wns" not in x))

    def write(zone: Zone) -> None:
        (directory / names.to_text(zone.origin)[:-1]).write_text(zone_text(zone))

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def scenario() -> None:
        write(version(1, 3000))
        write(corner)
        write(make(CATALOG, [MOVING, CORNER], 1))
        port, here = free_port(), free_port()
        ours = Ours(tmp_path / "state", Primary("127.0.0.1", port, KEY))
        with programs.running(SERVERS[program](directory, port, here), tmp_path / "log") as process:
            await asyncio.sleep(0.7)  # another program begins
            await ours.begin(here)
            await until(lambda: ours.has(MOVING, 1) and ours.zone(CORNER) is not None)
            assert same(ours.zone(MOVING), version(1, 3000))
            assert same(ours.zone(CORNER), corner)
            zone = version(1, 3000)
            for serial in range(2, 5):
                zone = version(serial, 3000)
                write(zone)
                process.send_signal(signal.SIGHUP)
                wanted = serial
                await until(lambda: ours.has(MOVING, wanted))  # noqa: B023
            assert same(ours.zone(MOVING), zone)
            history = ours.server.options.transfers.histories.get(MOVING)
            if program != "nsd":
                # They keep differences, so these came by IXFR, and can be handed on by it.
                assert history is not None
                assert len(history.since(1, 4) or []) == 3
            # RFC 9432 §5.3: what the catalog lists no more is gone.
            write(make(CATALOG, [MOVING], 2))
            process.send_signal(signal.SIGHUP)
            await until(lambda: ours.zone(CORNER) is None)
            assert ours.server.counters.notifies > 0
            await asyncio.sleep(0.3)  # until the disk has it
        await ours.close()
        # What is on the disk is served again without the primary.
        again = Ours(tmp_path / "state", Primary("127.0.0.1", port, KEY))
        await again.begin(here)
        assert again.has(MOVING, 4)
        assert same(again.zone(MOVING), zone)
        if program != "nsd":
            history = again.server.options.transfers.histories[MOVING]
            assert len(history.since(1, 4) or []) == 3
        await again.close()

    programs.run(scenario, tmp_path / "log")
