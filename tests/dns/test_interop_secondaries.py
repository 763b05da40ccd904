"""NSD, Knot and BIND as secondaries of ours: NOTIFY, AXFR, IXFR and TSIG on loopback."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype
import pytest

from appliance.dns import (
    Catalog,
    DnsDatagramProtocol,
    DnsNotifyProtocol,
    DnsStreamProtocol,
    Extensions,
    Keys,
    Notifier,
    Target,
    Transfers,
    Zone,
    grant,
)
from appliance.dns.serial import difference
from tests.dns import programs
from tests.dns.programs import KEY
from tests.dns.util import DATA
from tests.ports import free_port

pytestmark = pytest.mark.interop

UNCHECKED = "    semantic-checks: off\n"
PATIENCE = 30.0
"""Seconds that a secondary may take; they poll and wait in seconds."""


@dataclass
class Secondary:
    """One of the servers, running."""

    process: subprocess.Popen[bytes]
    port: int


def nsd(directory: Path, port: int, master: int, zones: list[str]) -> list[str]:
    followed = (
        f"""zone:
  name: "{zone}"
  zonefile: "{zone}"
  request-xfr: 127.0.0.1@{master} xfr.example
  allow-notify: 127.0.0.1 xfr.example
"""
        for zone in zones
    )
    return programs.nsd(directory, port, "".join(followed))


def knot(directory: Path, port: int, master: int, zones: list[str]) -> list[str]:
    followed = (f"  - domain: {zone}\n    master: ours\n    acl: told\n" for zone in zones)
    return programs.knot(
        directory, port, "zone:\n" + "".join(followed), template=UNCHECKED, ours=master
    )


def bind(directory: Path, port: int, master: int, zones: list[str]) -> list[str]:
    followed = (
        f"""zone "{zone}" {{
  type slave; masters {{ 127.0.0.1 port {master} key xfr.example; }}; masterfile-format text;
  file "{zone}"; allow-notify {{ key xfr.example; }}; check-names ignore;
}};
"""
        for zone in zones
    )
    options = "check-names slave ignore; minimal-responses yes;"
    return programs.bind(directory, port, "".join(followed), options=options)


SERVERS: dict[str, Callable[[Path, int, int, list[str]], list[str]]] = {
    "nsd": nsd,
    "knotd": knot,
    "named": bind,
}


class Primary:
    """Ours, on asyncio's own transports."""

    def __init__(self) -> None:
        self.transfers = Transfers(default=[grant("127.0.0.0/8", "xfr.example.")])
        self.extensions = Extensions(keys=Keys([KEY]))
        self.zones: dict[bytes, Zone] = {}
        self.current = Catalog([])
        self.port = 0
        self.notify: DnsNotifyProtocol | None = None
        self._ends: list[Any] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: DnsStreamProtocol(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        endpoint, _ = await loop.create_datagram_endpoint(
            lambda: DnsDatagramProtocol(self), local_addr=("127.0.0.1", self.port)
        )
        self._ends = [server, endpoint]

    async def tell(self, port: int) -> None:
        import time

        notifier = Notifier(
            default=[Target("127.0.0.1", port, KEY)], random=Random(), wall=time.time
        )
        endpoint, self.notify = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: DnsNotifyProtocol(notifier), local_addr=("127.0.0.1", 0)
        )
        self._ends.append(endpoint)

    def serve(self, *zones: Zone) -> None:
        for zone in zones:
            before = self.zones.get(zone.origin)
            if before is not None:
                self.transfers.changed(difference(before, zone))
            self.zones[zone.origin] = zone
        self.current = Catalog(
            self.zones.values(),
            transfers=self.transfers,
            extensions=self.extensions,
            counters=self.current.counters,
        )
        if self.notify is not None:
            for zone in zones:
                self.notify.changed(zone)

    def close(self) -> None:
        for end in self._ends:
            end.close()


async def ask(port: int, name: str, rdtype: str, wait: float = 10.0) -> dns.message.Message:
    """The answer, whole.

    Raises:
        dns.exception.DNSException: none came in `wait` seconds, or one that cannot be read.
        OSError: the port refuses.
    """
    query = dns.message.make_query(name, rdtype)
    answer, _ = await dns.asyncquery.udp_with_fallback(query, "127.0.0.1", wait, port)
    return answer


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for another program, which has no virtual clock."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def has_serial(port: int, zone: str, serial: int) -> bool:
    try:
        answer = await ask(port, zone, "SOA", 1.0)
    except (dns.exception.DNSException, OSError):
        return False
    return bool(
        answer.answer
        and answer.answer[0].rdtype == dns.rdatatype.SOA
        and answer.answer[0][0].serial == serial
    )


def version(serial: int, count: int) -> Zone:
    """A zone whose hosts move with each version."""
    lines = "".join(
        f"h{number} A 10.{(number + serial * (number % 7 == 0)) % 250}.{number // 250}.1\n"
        for number in range(count + serial)
    )
    return Zone.from_text(
        f"$ORIGIN moving.test.\n$TTL 60\n@ SOA ns1 h {serial} 7200 1800 1209600 300\n"
        f"@ NS ns1\nns1 A 127.0.0.1\nMixed CNAME H1.Moving.TEST.\n{lines}"
    )


def same(one: dns.message.Message, other: dns.message.Message) -> bool:
    return one.rcode() == other.rcode() and [
        (rrset.name, rrset.rdtype, set(rrset)) for rrset in one.answer
    ] == [(rrset.name, rrset.rdtype, set(rrset)) for rrset in other.answer]


@pytest.mark.parametrize("program", SERVERS)
def test_a_secondary_follows(program: str, tmp_path: Path) -> None:
    """RFC 5936, RFC 1995, RFC 1996, RFC 8945: the whole zone, then changes as they are told."""
    programs.installed(program)
    directory = programs.folder(tmp_path)

    async def scenario() -> None:
        primary = Primary()
        await primary.start()
        text = (DATA / "corner.zone").read_text()
        # BIND takes no NS at a wildcard.
        corner = Zone.from_text("\n".join(x for x in text.splitlines() if "*.wns" not in x))
        primary.serve(version(1, 3000), corner)
        port = free_port()
        command = SERVERS[program](directory, port, primary.port, ["moving.test", "corner.test"])
        with programs.running(command, tmp_path / "log"):
            await until(lambda: has_serial(port, "moving.test.", 1))
            await until(lambda: has_serial(port, "corner.test.", 1))
            await primary.tell(port)
            for serial in range(2, 6):
                primary.serve(version(serial, 3000))
                wanted = serial
                await until(lambda: has_serial(port, "moving.test.", wanted))  # noqa: B023
            for name in ("h0", "h7", "h2100", "h3004", "h3005", "mixed", "none"):
                theirs = await ask(port, f"{name}.moving.test.", "A")
                ours = await ask(primary.port, f"{name}.moving.test.", "A")
                assert same(ours, theirs), name
            for node in corner.nodes.values():
                name = dns.name.from_wire(node.owner, 0)[0].to_text()
                if "loop" in name or "self" in name:
                    continue  # where aliases go in circles each stops as it likes
                for rdtype in ("A", "TXT", "MX", "SRV", "TYPE65500"):
                    theirs = await ask(port, name, rdtype)
                    if program == "knotd" and len(theirs.answer) == 5:
                        continue  # it follows no more than that many aliases
                    assert same(await ask(primary.port, name, rdtype), theirs), (name, rdtype)
            (history,) = primary.transfers.histories.values()
            assert sum(len(one.added) for one in history.differences) > 1000
            assert primary.current.counters.transfers >= 6
        primary.close()
        await asyncio.sleep(0)

    programs.run(scenario, tmp_path / "log")
