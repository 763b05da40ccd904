"""One odd zone in NSD, Knot, BIND and here: hundreds of questions, and what most of them answer.

Response code, AA, answer and authority are those of two servers of the three at least, the helpful
records those of one. What no two of the three agree about is not asked: ANY, where each chooses as
it likes (RFC 8482 §4.1), and types that may stand beside an alias (RFC 3007 §3).

The same zone is signed by BIND's tools, with NSEC and with NSEC3, and asked with DO. Here answers
and proofs are those of one of the three at least (Knot and we send the same), since they differ
about which records are too many, and all signatures must be good.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import dns.asyncquery
import dns.dnssec
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest

from appliance.dns import Catalog, Zone
from tests.dns import programs
from tests.dns.util import DATA
from tests.ports import free_port

pytestmark = pytest.mark.interop

ZONE = "odd.test"
QUESTIONS = 500
SIZES = {False: 1232, True: 4096}
"""Octets of an answer, without and with signatures: enough for nearly all."""
SIGNING = {"nsec": [], "nsec3": ["-3", "-"], "opt-out": ["-3", "abcd", "-H", "5", "-A"]}
PATIENCE = 20.0
"""Seconds until a server must have begun."""
COMMON = ["A", "AAAA", "NS", "CNAME", "SOA", "MX", "TXT", "DS", "DNAME"]
TYPES = [*COMMON, "SVCB", "HTTPS", "SRV", "NAPTR", "RRSIG", "NXT", "TYPE65280", "TYPE4711"]
LABELS = [b"a", b"x", b"*", b"www", b"ns", b"sub", b"mid", b"q" * 63, b"*a"]


def nsd(directory: Path, port: int) -> list[str]:
    server = "  minimal-responses: yes\n  ipv4-edns-size: 4096\n  rrl-ratelimit: 0\n"
    rest = f'zone:\n  name: "{ZONE}"\n  zonefile: "zone"\n'
    return programs.nsd(directory, port, rest, server)


def knot(directory: Path, port: int) -> list[str]:
    return programs.knot(
        directory,
        port,
        f"zone:\n  - domain: {ZONE}\n    file: zone\n",
        server="  udp-max-payload: 4096\n",
        template="    semantic-checks: off\n    zonefile-sync: -1\n",
    )


def bind(directory: Path, port: int) -> list[str]:
    options = """
  check-names master ignore; check-integrity no; minimal-responses yes; max-udp-size 4096;"""
    rest = f'zone "{ZONE}" {{ type master; file "zone"; check-names ignore; }};\n'
    return programs.bind(directory, port, rest, options=options)


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


def sign(folder: Path, options: list[str]) -> str:
    """The zone with keys, signatures and a chain."""
    text = (DATA / "odd.zone").read_text()
    for flags in (["-f", "KSK"], []):
        key = run(folder, "dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", *flags, ZONE).strip()
        text += (folder / f"{key}.key").read_text()
    (folder / "plain").write_text(text)
    run(folder, "dnssec-signzone", "-P", "-S", *options, "-o", ZONE, "-f", "signed", "plain")
    return (folder / "signed").read_text()


def run(folder: Path, *command: str) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def check_signatures(message: dns.message.Message, keys: dns.rrset.RRset) -> None:
    """Every signature is good (RFC 4035 §5.3); whether it is there others tell."""
    for section in (message.answer, message.authority, message.additional):
        for rrset in section:
            if rrset.name.is_wild():
                continue  # dnspython takes every such name for the wildcard itself
            for signatures in section:
                if signatures.covers == rrset.rdtype and signatures.name == rrset.name:
                    dns.dnssec.validate(rrset, signatures, {keys.name: keys})


def questions(zone: Zone, count: int, signed: bool) -> list[dns.message.Message]:
    """Names of the zone, above and below them, beside wildcards; with EDNS or without."""
    random = Random(9)
    owners = [
        dns.name.from_wire(node.owner, 0)[0]
        for node in zone.nodes.values()
        if dns.rdatatype.NSEC3 not in node.rrsets
    ]
    found: list[dns.message.Message] = []
    while len(found) < count:
        name = random.choice(owners)
        for _ in range(random.choice((0, 0, 1, 1, 2))):
            name = dns.name.Name([random.choice(LABELS), *name.labels])
        if random.random() < 0.1 and len(name.labels) > 4:
            name = name.parent()
        edns = 0 if signed else random.choice((-1, 0))
        rdtype = random.choice([*COMMON, "NSEC3PARAM"] if signed else TYPES)
        query = dns.message.make_query(name, rdtype, use_edns=edns, payload=SIZES[signed], flags=0)
        if signed:
            query.want_dnssec()
        found.append(query)
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


async def compare(zone: Zone, ports: dict[str, int], count: int) -> int:
    """Ask everybody everything; how many answers were whole."""
    catalog = Catalog([zone], udp_size=SIZES[zone.signed])
    for port in ports.values():
        await begun(port)
    keys = dns.message.from_wire(
        catalog.answer(dns.message.make_query(ZONE, "DNSKEY").to_wire()) or b""
    ).answer
    whole = 0
    for query in questions(zone, count, zone.signed):
        theirs = await asyncio.gather(*(ask(query, port) for port in ports.values()))
        wire = catalog.answer(query.to_wire())
        assert wire is not None
        message = dns.message.from_wire(wire)
        ours, helpful = heard(message)
        if message.flags & dns.flags.TC:
            # RFC 9471 §3.1: all glue or TC; NSD and BIND leave some out silently.
            name = query.question[0].name.to_text()
            assert zone.signed or "manyglue" in name or "big" in name
            continue
        if keys:
            check_signatures(message, keys[0])
        whole += 1
        others = [heard(one) for one in theirs]
        what = f"{query.question[0]}: {ours}, not {dict(zip(ports, others, strict=True))}"
        assert sum(said == ours for said, _ in others) >= 2 - zone.signed, what
        # RFC 9460 §4.1: of SVCB and HTTPS all three send less than they should.
        if all(f" {int(kind)} " not in line for line in ours.answer for kind in (64, 65)):
            assert any(some == helpful for _, some in others), f"{what}: {helpful}"
    return whole


@pytest.mark.parametrize("how", ["plain", *SIGNING])
def test_most_servers_answer_likewise(how: str, tmp_path: Path) -> None:
    for program in SERVERS:
        programs.installed(program)
    running: list[subprocess.Popen[bytes]] = []
    ports: dict[str, int] = {}
    for path in (tmp_path, *tmp_path.parents):
        if path.name.startswith("pytest"):
            path.chmod(0o755)
    text = (DATA / "odd.zone").read_text()
    if how != "plain":
        text = sign(tmp_path, SIGNING[how])
    zone = Zone.from_text(text)
    assert zone.signed == (how != "plain")
    try:
        for program, configure in SERVERS.items():
            folder = tmp_path / program
            for path in (folder, folder / "db"):
                path.mkdir()
                path.chmod(0o777)
            (folder / "zone").write_text(text)
            ports[program] = free_port()
            with (folder / "log").open("wb") as log:
                command = configure(folder, ports[program])
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
        count = QUESTIONS // 4 if zone.signed else QUESTIONS
        assert asyncio.run(compare(zone, ports, count)) > count * 0.8
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(30)
