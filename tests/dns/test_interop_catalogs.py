"""Knot and BIND follow the catalog zone that we make of our own zones (RFC 9432)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from appliance.dns import (
    DnsDatagramProtocol,
    DnsStreamProtocol,
    Extensions,
    Keys,
    Notifier,
    Target,
    Transfers,
    grant,
    load_zones,
    names,
)
from appliance.dns.authority import Authority, Options
from appliance.dns.service import Service
from tests.dns import programs
from tests.dns.programs import KEY
from tests.dns.test_interop_secondaries import ask, has_serial, until
from tests.ports import free_port

pytestmark = pytest.mark.interop


def knot(directory: Path, port: int, master: int) -> list[str]:
    rest = f"""  - id: member
    storage: {directory}
    master: ours
    acl: told
zone:
  - domain: catalog.test
    master: ours
    acl: told
    catalog-role: interpret
    catalog-template: member
"""
    return programs.knot(directory, port, rest, ours=master)


def bind(directory: Path, port: int, master: int) -> list[str]:
    primary = f"{{ 127.0.0.1 port {master} key xfr.example; }}"
    options = f"""allow-new-zones yes;
  catalog-zones {{
    zone "catalog.test" default-masters {primary} min-update-interval 0;
  }};"""
    rest = f"""zone "catalog.test" {{
  type slave; file "catalog.test"; masters {primary}; allow-notify {{ key xfr.example; }};
}};
"""
    return programs.bind(directory, port, rest, options=options)


SERVERS: dict[str, Callable[[Path, int, int], list[str]]] = {"knotd": knot, "named": bind}


def zone(name: str, serial: int) -> str:
    return f"$TTL 60\n@ SOA ns h {serial} 7200 1800 1209600 300\n@ NS ns\nns A 127.0.0.1\n"


@pytest.mark.parametrize("program", SERVERS)
def test_our_catalog_is_followed(program: str, tmp_path: Path) -> None:
    """RFC 9432: a zone that comes is fetched, one that goes is refused."""
    programs.installed(program)
    directory = programs.folder(tmp_path)
    zones = tmp_path / "zones"
    zones.mkdir()
    (zones / "a.test.zone").write_text(zone("a", 1))

    async def scenario() -> None:
        import time

        port = free_port()
        notifier = Notifier(
            default=[Target("127.0.0.1", port, KEY)], random=Random(), wall=time.time
        )
        server = Authority(
            Options(
                extensions=Extensions(keys=Keys([KEY])),
                transfers=Transfers(default=[grant("127.0.0.0/8", "xfr.example.")]),
                notifier=notifier,
                produce=names.from_text("catalog.test."),
            ),
            random=Random(),
        )
        server.begin(load_zones(zones))
        service = Service(server, random=Random())
        loop = asyncio.get_running_loop()
        streams = await loop.create_server(lambda: DnsStreamProtocol(service), "127.0.0.1", 0)
        ours = streams.sockets[0].getsockname()[1]
        end, _ = await loop.create_datagram_endpoint(
            lambda: DnsDatagramProtocol(service), local_addr=("127.0.0.1", ours)
        )
        await service.begin()
        with programs.running(SERVERS[program](directory, port, ours), tmp_path / "log"):
            await until(lambda: has_serial(port, "a.test.", 1))
            (zones / "b.test.zone").write_text(zone("b", 5))
            await service.reload(load_zones(zones))
            await until(lambda: has_serial(port, "b.test.", 5))
            (zones / "a.test.zone").unlink()
            await service.reload(load_zones(zones))

            async def gone() -> bool:
                answer = await ask(port, "a.test.", "SOA")
                return not answer.answer

            await until(gone)
            assert await has_serial(port, "b.test.", 5)
        end.close()
        streams.close()
        await service.end()
        await asyncio.sleep(0.01)  # until the transports are closed

    programs.run(scenario, tmp_path / "log")
