"""What is served and asked: files, a zone, a list of queries, and the peers' configuration.

Made from a fixed seed, so that two runs ask for the same things. The peers get their better
settings (files kept open, minimal answers, no log): what is compared is the serving.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

ORIGIN = "bench.test."
LARGE_ORIGIN = "large.test."
LARGE_RECORDS = 1_000_000
SMALL, MEDIUM, LARGE = 1_000, 100_000, 1_000_000_000  # octets of the bodies
_HOSTS = 850  # with CNAMEs, delegations and the rest, about 1,010 names
_ALIASES = 100
_DELEGATIONS = 20
_QUERIES = 20_000
_SEED = 2013
_BLOCK = 1_000_000  # octets after which a body repeats
# Of a hundred queries, how many are of each kind.
_MIX = {"host": 55, "aaaa": 5, "alias": 10, "wildcard": 10, "absent": 10, "referral": 10}


@dataclass(frozen=True)
class Page:
    """One file of the site: its path in the URL, its length in octets and its SHA-256."""

    path: str
    length: int
    sha256: str


def write_page(folder: Path, name: str, length: int) -> Page:
    """Write a file of random octets, repeated from `_BLOCK` on, and return what it must hash to."""
    block = random.Random(_SEED).randbytes(min(length, _BLOCK))
    digest = hashlib.sha256()
    with (folder / name).open("wb") as file:
        for start in range(0, length, _BLOCK):
            piece = block[: length - start]
            digest.update(piece)
            file.write(piece)
    return Page(f"/{name}", length, digest.hexdigest())


def write_zone(folder: Path) -> None:
    """Write the zone as `bench.test.zone`, a master file that every server reads."""
    lines = [
        f"$ORIGIN {ORIGIN}",
        "$TTL 3600",
        "@ SOA ns1 hostmaster 2026010100 7200 3600 1209600 3600",
        "@ NS ns1",
        "@ NS ns2",
        "@ MX 10 mail",
        '@ TXT "v=spf1 mx -all"',
        "ns1 A 192.0.2.1",
        "ns2 A 192.0.2.2",
        "mail A 192.0.2.3",
        '*.wild TXT "a wildcard"',
        "*.wild A 192.0.2.4",
    ]
    for n in range(_HOSTS):
        lines.append(f"host{n} A 198.51.{n // 250}.{n % 250 + 1}")
        if n % 4 == 0:
            lines.append(f"host{n} AAAA 2001:db8::{n + 1:x}")
    lines += [f"alias{n} CNAME host{n}" for n in range(_ALIASES)]
    for n in range(_DELEGATIONS):
        lines += [f"child{n} NS ns.child{n}", f"ns.child{n} A 203.0.113.{n + 1}"]
    (folder / "bench.test.zone").write_text("\n".join(lines) + "\n")


def write_large(folder: Path, wanted: int = LARGE_RECORDS) -> int:
    """Write `large.test.zone`, of about as many records; the number of its hosts."""
    records, host = 4, 0
    with (folder / "large.test.zone").open("w") as file:
        file.write(
            f"$ORIGIN {LARGE_ORIGIN}\n$TTL 3600\n@ SOA ns1 h 1 7200 3600 1209600 3600\n"
            "@ NS ns1\nns1 A 192.0.2.1\n*.wild A 192.0.2.4\n"
        )
        while records < wanted:
            lines = [f"host{host} A 198.51.{host // 250 % 250}.{host % 250 + 1}"]
            if host % 4 == 0:
                lines.append(f"host{host} AAAA 2001:db8::{host % 65536:x}")
            if host % 9 == 0:
                lines.append(f"alias{host} CNAME host{host}")
            if host % 40 == 0:
                lines += [f"child{host} NS ns.child{host}", f"ns.child{host} A 203.0.113.1"]
            file.write("\n".join(lines) + "\n")
            records += len(lines)
            host += 1
    return host


def large_queries(hosts: int) -> list[tuple[str, str]]:
    """Return the mixture of `queries`, of names all over the large zone."""
    chance = random.Random(_SEED)
    found = []
    for n, kind in enumerate(chance.choices(list(_MIX), list(_MIX.values()), k=_QUERIES)):
        host = chance.randrange(hosts)
        label = {
            "host": f"host{host}",
            "aaaa": f"host{host // 4 * 4}",
            "alias": f"alias{host // 9 * 9}",
            "wildcard": f"w{n}.wild",
            "absent": f"absent{n}",
            "referral": f"www{n}.child{host // 40 * 40}",
        }[kind]
        found.append((f"{label}.{LARGE_ORIGIN}", "AAAA" if kind == "aaaa" else "A"))
    return found


def write_large_queries(folder: Path, hosts: int) -> Path:
    """Write `large_queries` as dnsperf reads them and return the file."""
    path = folder / "large.txt"
    path.write_text("".join(f"{name} {rrtype}\n" for name, rrtype in large_queries(hosts)))
    return path


def queries() -> list[tuple[str, str]]:
    """Return the list of (name, type) that is asked, in a shuffled order that never changes."""
    chance = random.Random(_SEED)
    kinds = chance.choices(list(_MIX), list(_MIX.values()), k=_QUERIES)
    return [_query(kind, n, chance) for n, kind in enumerate(kinds)]


def _query(kind: str, n: int, chance: random.Random) -> tuple[str, str]:
    if kind == "aaaa":
        return f"host{chance.randrange(_HOSTS)}.{ORIGIN}", "AAAA"
    label = {
        "host": f"host{chance.randrange(_HOSTS)}",
        "alias": f"alias{chance.randrange(_ALIASES)}",
        "wildcard": f"w{n}.wild",
        "absent": f"absent{n}",
        "referral": f"www{n}.child{chance.randrange(_DELEGATIONS)}",
    }[kind]
    return f"{label}.{ORIGIN}", "A"


def write_queries(folder: Path) -> Path:
    """Write the queries as dnsperf reads them and return the file."""
    path = folder / "queries.txt"
    path.write_text("".join(f"{name} {rrtype}\n" for name, rrtype in queries()))
    return path


def write_nginx(folder: Path, site: Path, address: str) -> Path:
    """Write the configuration of nginx with one worker and return the file."""
    path = folder / "nginx.conf"
    path.write_text(f"""\
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
    open_file_cache max=1000 inactive=600s;
    open_file_cache_valid 600s;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    types {{ text/plain txt; application/octet-stream bin; }}
    server {{ listen {address}:80 backlog=4096; root {site}; }}
}}
""")
    return path


def write_nsd(folder: Path, zones: Path, address: str) -> Path:
    """Write the configuration of NSD with one server and return the file."""
    path = folder / "nsd.conf"
    path.write_text(f"""\
server:
    server-count: 1
    ip-address: {address}
    port: 53
    username: "root"
    chroot: ""
    zonesdir: "{zones}"
    database: ""
    pidfile: "{folder}/nsd.pid"
    xfrdfile: "{folder}/nsd-xfrd.state"
    zonelistfile: "{folder}/nsd-zone.list"
    xfrdir: "{folder}"
    minimal-responses: yes
    rrl-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: "{ORIGIN}"
    zonefile: "bench.test.zone"
""")
    return path


def write_settings(folder: Path) -> Path:
    """Write the appliance's own settings: nothing that the command line does not say better."""
    path = folder / "appliance.toml"
    path.write_text(
        '[site]\ntitle = "Benchmark"\nbase_url = "http://bench.test"\n'
        "[dns]\nrate_limit = 0\n"  # as with the peers: all load comes from one address
        "[http]\nconnections = 20000\nconnections_each = 20000\n"
        "[net]\nprobe = false\n"  # nor do they ask whether anybody has their address
    )
    return path
