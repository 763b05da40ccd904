"""One odd zone in NSD, Knot, BIND and here: hundreds of questions, and what most of them answer.

Response code, AA, answer and authority are those of two servers of the three at least, the helpful
records those of one. What no two of the three agree about is not asked: ANY, where each chooses as
it likes (RFC 8482 §4.1), and types that may stand beside an alias (RFC 3007 §3).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest

from appliance.dns import Catalog, Zone
from tests.dns.test_interop_secondaries import free_port
from tests.dns.util import DATA

pytestmark = pytest.mark.interop

ZONE = "odd.test"
QUESTIONS = 500
PATIENCE = 20.0
"""Seconds until a server must have begun."""
COMMON = ["A", "AAAA", "NS", "CNAME", "SOA", "MX", "TXT", "DS", "DNAME"]
TYPES = [*COMMON, "SVCB", "HTTPS", "SRV", "NAPTR", "RRSIG", "NXT", "TYPE65280", "TYPE4711"]
LABELS = [b"a", b"x", b"*", b"www", b"ns", b"sub", b"mid", b"q" * 63, b"*a"]


def nsd(directory: Path, port: int) -> list[str]:
    (directory / "conf").write_text(
        f"""server:
  ip-address: 127.0.0.1@{port}
  username: ""
  zonesdir: "{directory}"
  pidfile: "{directory}/pid"
  database: ""
  zonelistfile: "{directory}/list"
  xfrdfile: "{directory}/xfrd"
  xfrdir: "{directory}"
  minimal-responses: yes
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: "{ZONE}"
  zonefile: "zone"
"""
    )
    return ["nsd", "-d", "-c", f"{directory}/conf"]


def knot(directory: Path, port: int) -> list[str]:
    (directory / "conf").write_text(
        f"""server:
  listen: 127.0.0.1@{port}
  rundir: {directory}
database:
  storage: {directory}/db
template:
  - id: default
    storage: {directory}
    semantic-checks: off
    zonefile-sync: -1
zone:
  - domain: {ZONE}
    file: zone
"""
    )
    return ["knotd", "-c", f"{directory}/conf"]


def bind(directory: Path, port: int) -> list[str]:
    (directory / "conf").write_text(
        f"""options {{
  directory "{directory}"; pid-file none; session-keyfile none; recursion no;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; dnssec-validation no;
  check-names master ignore; check-integrity no; minimal-responses yes;
}};
controls {{}};
zone "{ZONE}" {{ type master; file "zone"; check-names ignore; }};
"""
    )
    return ["named", "-g", "-c", f"{directory}/conf"]


SERVERS: dict[str, Callable[[Path, int], list[str]]] = {"nsd": nsd, "knotd": knot, "named": bind}


class Said(NamedTuple):
    """An answer, but for its helpful records."""

    rcode: str
    aa: bool
    answer: frozenset[str]
    authority: frozenset[str]


def heard(message: dns.message.Message) -> tuple[Said, frozenset[str]]:
    """What is compared, and the helpful records; names and texts in lower case."""
    answer, authority, additional = (
        frozenset(
            f"{rrset.name} {rrset.ttl} {rrset.rdtype} {rdata}".lower()
            for rrset in section
            for rdata in rrset
        )
        for section in (message.answer, message.authority, message.additional)
    )
    aa = bool(message.flags & dns.flags.AA)
    return Said(dns.rcode.to_text(message.rcode()), aa, answer, authority), additional


def questions(zone: Zone) -> list[dns.message.Message]:
    """Names of the zone, above and below them, beside wildcards; with EDNS or without."""
    random = Random(9)
    owners = [dns.name.from_wire(node.owner, 0)[0] for node in zone.nodes.values()]
    found: list[dns.message.Message] = []
    while len(found) < QUESTIONS:
        name = random.choice(owners)
        for _ in range(random.choice((0, 0, 1, 1, 2))):
            name = dns.name.Name([random.choice(LABELS), *name.labels])
        if random.random() < 0.1 and len(name.labels) > 4:
            name = name.parent()
        edns = random.choice((-1, 0))
        found.append(
            dns.message.make_query(name, random.choice(TYPES), use_edns=edns, payload=1232, flags=0)
        )
    return found


async def ask(query: dns.message.Message, port: int) -> dns.message.Message:
    for _ in range(3):
        try:
            return await dns.asyncquery.udp(query, "127.0.0.1", 2.0, port)
        except dns.exception.Timeout:
            continue
    raise AssertionError(f"port {port} does not answer {query.question}")


async def begun(port: int) -> None:
    """Wait until a server has the zone."""
    query = dns.message.make_query(ZONE, "SOA")
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if (await dns.asyncquery.udp(query, "127.0.0.1", 0.5, port)).answer:
                    return
            except (dns.exception.Timeout, OSError):
                pass
            await asyncio.sleep(0.1)


async def compare(ports: dict[str, int]) -> int:
    """Ask everybody everything; how many answers were whole."""
    catalog = Catalog([Zone.from_file(DATA / "odd.zone")])
    for port in ports.values():
        await begun(port)
    whole = 0
    for query in questions(catalog.zones.by_origin[b"\3odd\4test\0"]):
        theirs = await asyncio.gather(*(ask(query, port) for port in ports.values()))
        wire = catalog.answer(query.to_wire())
        assert wire is not None
        message = dns.message.from_wire(wire)
        ours, helpful = heard(message)
        if message.flags & dns.flags.TC:
            # RFC 9471 §3.1: all glue or TC; NSD and BIND leave some out silently.
            assert "manyglue" in query.question[0].name.to_text() or "big" in str(query.question)
            continue
        whole += 1
        others = [heard(one) for one in theirs]
        what = f"{query.question[0]}: {ours}, not {dict(zip(ports, others, strict=True))}"
        assert sum(said == ours for said, _ in others) >= 2, what
        # RFC 9460 §4.1: of SVCB and HTTPS all three send less than they should.
        if all(f" {int(kind)} " not in line for line in ours.answer for kind in (64, 65)):
            assert any(some == helpful for _, some in others), f"{what}: {helpful}"
    return whole


def test_most_servers_answer_likewise(tmp_path: Path) -> None:
    for program in SERVERS:
        if shutil.which(program) is None:
            told = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            told(f"{program} is not installed")
    running: list[subprocess.Popen[bytes]] = []
    ports: dict[str, int] = {}
    for path in (tmp_path, *tmp_path.parents):
        if path.name.startswith("pytest"):
            path.chmod(0o755)
    try:
        for program, configure in SERVERS.items():
            folder = tmp_path / program
            for path in (folder, folder / "db"):
                path.mkdir()
                path.chmod(0o777)
            (folder / "zone").write_bytes((DATA / "odd.zone").read_bytes())
            ports[program] = free_port()
            with (folder / "log").open("wb") as log:
                command = configure(folder, ports[program])
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
        assert asyncio.run(compare(ports)) > QUESTIONS * 0.8
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(30)
