"""Knot and BIND follow the catalog zone that we make of our own zones (RFC 9432)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
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
from tests.dns.test_interop_secondaries import KEY, TEXT, ask, free_port, has_serial, until

pytestmark = pytest.mark.interop


def knot(directory: Path, port: int, master: int) -> list[str]:
    (directory / "knot.conf").write_text(f"""\
server:
  listen: 127.0.0.1@{port}
  rundir: {directory}
database:
  storage: {directory}/db
key:
  - id: xfr.example
    algorithm: hmac-sha256
    secret: {TEXT}
remote:
  - id: ours
    address: 127.0.0.1@{master}
    key: xfr.example
acl:
  - id: notify
    address: 127.0.0.1
    key: xfr.example
    action: notify
template:
  - id: default
    storage: {directory}
  - id: member
    storage: {directory}
    master: ours
    acl: notify
zone:
  - domain: catalog.test
    master: ours
    acl: notify
    catalog-role: interpret
    catalog-template: member
""")
    return ["knotd", "-c", f"{directory}/knot.conf"]


def bind(directory: Path, port: int, master: int) -> list[str]:
    primary = f"{{ 127.0.0.1 port {master} key xfr.example; }}"
    (directory / "named.conf").write_text(f"""\
options {{
  directory "{directory}"; pid-file none; session-keyfile none; recursion no;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  dnssec-validation no; allow-new-zones yes;
  catalog-zones {{
    zone "catalog.test" default-masters {primary} min-update-interval 0;
  }};
}};
controls {{}};
key "xfr.example" {{ algorithm hmac-sha256; secret "{TEXT}"; }};
zone "catalog.test" {{
  type slave; file "catalog.test"; masters {primary}; allow-notify {{ key xfr.example; }};
}};
""")
    return ["named", "-g", "-c", f"{directory}/named.conf"]


SERVERS: dict[str, Callable[[Path, int, int], list[str]]] = {"knotd": knot, "named": bind}


def zone(name: str, serial: int) -> str:
    return f"$TTL 60\n@ SOA ns h {serial} 7200 1800 1209600 300\n@ NS ns\nns A 127.0.0.1\n"


@pytest.mark.parametrize("program", SERVERS)
def test_our_catalog_is_followed(program: str, tmp_path: Path) -> None:
    """RFC 9432: a zone that comes is fetched, one that goes is refused."""
    if shutil.which(program) is None:
        told = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        told(f"{program} is not installed")
    directory = tmp_path / "secondary"
    directory.mkdir(mode=0o777)
    (directory / "db").mkdir()
    for path in (tmp_path, directory, directory / "db"):
        path.chmod(0o777)
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
        log = (tmp_path / "log").open("wb")
        process = subprocess.Popen(  # noqa: ASYNC220
            SERVERS[program](directory, port, ours), stdout=log, stderr=log
        )
        try:
            await until(lambda: has_serial(port, "a.test.", 1))
            (zones / "b.test.zone").write_text(zone("b", 5))
            await service.reload(load_zones(zones))
            await until(lambda: has_serial(port, "b.test.", 5))
            (zones / "a.test.zone").unlink()
            await service.reload(load_zones(zones))

            async def gone() -> bool:
                answer = await ask(port, "a.test.", "SOA")
                return answer is not None and not answer.answer

            await until(gone)
            assert await has_serial(port, "b.test.", 5)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            log.close()
            end.close()
            streams.close()
            await service.end()
            await asyncio.sleep(0.01)  # until the transports are closed

    try:
        asyncio.run(scenario())
    except BaseException:
        print((tmp_path / "log").read_text()[-4000:])  # noqa: T201
        raise
