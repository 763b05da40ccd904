"""Helper that runs inside the client namespace: what needs sockets there and is no load generator.

python -m bench.client idle ADDRESS PORT PATH COUNT     connections that stay open, doing nothing
python -m bench.client dns OURS PEER                    answers of both servers, compared
python -m bench.client ask SERVER NAME                  exit 0 if the server knows the zone
"""

from __future__ import annotations

import asyncio
import sys

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset

from bench import material

_SAMPLE = 400  # of the 20,000 queries, how many answers are compared record by record
_TIMEOUT = 5.0  # seconds for one answer


async def _visit(address: str, port: int, path: str) -> asyncio.StreamWriter:
    reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 30)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"expected status 200, got {head[:60]!r}")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    await asyncio.wait_for(reader.readexactly(int(fields[b"content-length"])), 30)
    return writer


async def idle(address: str, port: int, path: str, count: int) -> None:
    """Open `count` connections, ask once on each, say `ready`, and keep them until stdin ends."""
    writers = [await _visit(address, port, path) for _ in range(count)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for writer in writers:
        writer.close()


def _records(section: list[dns.rrset.RRset]) -> set[tuple[str, int, str, int]]:
    return {
        (str(rrset.name).lower(), int(rrset.rdtype), str(rdata).lower(), rrset.ttl)
        for rrset in section
        for rdata in rrset
    }


def _essence(reply: dns.message.Message) -> tuple[object, ...]:
    """What two correct servers must agree on: not the name servers added to a positive answer."""
    positive = bool(reply.answer)
    return (
        dns.rcode.to_text(reply.rcode()),
        bool(reply.flags & dns.flags.AA),
        _records(reply.answer),
        set() if positive else _records(reply.authority),
    )


def compare(ours: str, peer: str) -> None:
    """Ask both servers a sample of the queries; leave with the first difference."""
    sample = material.queries()[:_SAMPLE]
    seen: set[object] = set()
    for name, rrtype in sample:
        question = dns.message.make_query(name, rrtype, flags=0)
        essences = []
        for server in (ours, peer):
            try:
                reply = dns.query.udp(question, server, timeout=_TIMEOUT)
            except (TimeoutError, dns.exception.Timeout):
                raise SystemExit(f"{server} does not answer {name} {rrtype}") from None
            essences.append(_essence(reply))
        if essences[0] != essences[1]:
            raise SystemExit(f"{name} {rrtype}:\n  ours {essences[0]}\n  peer {essences[1]}")
        seen.add((essences[0][0], essences[0][1]))
    wanted = {("NOERROR", True), ("NXDOMAIN", True), ("NOERROR", False)}
    if not wanted <= seen:
        raise SystemExit(f"the sample lacks {wanted - seen}")


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["idle", address, port, path, count]:
            asyncio.run(idle(address, int(port), path, int(count)))
        case ["dns", ours, peer]:
            compare(ours, peer)
        case ["ask", server, name]:
            question = dns.message.make_query(name, "SOA", flags=0)
            try:
                sys.exit(0 if dns.query.udp(question, server, timeout=0.5).answer else 1)
            except (OSError, dns.exception.DNSException):
                sys.exit(1)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
