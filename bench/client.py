"""Helper that runs inside the client namespace: what needs sockets there and is no load generator.

python -m bench.client idle ADDRESS PORT PATH COUNT     connections that stay open, doing nothing
python -m bench.client flood ADDRESS PORT COUNT SECONDS   SYNs from random addresses, evenly spread
python -m bench.client push ADDRESS PORT OCTETS         an upload; prints the seconds it took
python -m bench.client dns OURS PEER                    answers of both servers, compared
python -m bench.client ask SERVER NAME                  exit 0 if the server knows the zone
"""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import struct
import sys
import time

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset

from bench import material

_SAMPLE = 400  # of the 20,000 queries, how many answers are compared record by record
_AT_ONCE = 50  # connections opened at once: fewer than any queue for them holds
_BURST = 20  # SYNs sent at once: at 20,000 a second, one millisecond of them
_PIECE = 1 << 18  # octets of one write of an upload
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


def _hard_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


async def idle(address: str, port: int, path: str, count: int) -> None:
    """Open `count` connections, ask once on each, say `ready`, and keep them until stdin ends."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard_limit(), _hard_limit()))
    writers: list[asyncio.StreamWriter] = []
    for start in range(0, count, _AT_ONCE):
        some = (_visit(address, port, path) for _ in range(min(_AT_ONCE, count - start)))
        writers += await asyncio.gather(*some)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for writer in writers:
        writer.close()


def syn(source: bytes, destination: bytes, ports: bytes, seq: int) -> bytes:
    """Return an IPv4 packet with a SYN as Linux sends it: MSS, SACK, timestamp, window scale."""
    options = b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + struct.pack(">II", seq, 0) + b"\x01\x03\x03\x07"
    segment = ports + struct.pack(">IIHHHH", seq, 0, 0xA002, 64_240, 0, 0) + options
    pseudo = source + destination + struct.pack(">HH", 6, len(segment))
    total: int = sum(struct.unpack(f">{(len(pseudo) + len(segment)) // 2}H", pseudo + segment))
    checksum = ~(total % 0xFFFF) & 0xFFFF
    segment = segment[:16] + checksum.to_bytes(2) + segment[18:]
    # The kernel fills in the header's own checksum and identification (raw(7), IP_HDRINCL).
    return (
        struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0)
        + source
        + destination
        + segment
    )


def flood(address: str, port: int, count: int, seconds: float) -> None:
    """Say `ready` once the packets are made, wait for a line, send them, and print how long."""
    chance = random.Random(count)
    there = socket.inet_aton(address)
    packets = []
    for _ in range(count):
        source = bytes((chance.randrange(11, 120), *chance.randbytes(3)))
        ports = struct.pack(">HH", chance.randrange(1024, 65_536), port)
        packets.append(syn(source, there, ports, chance.getrandbits(32)))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        start = time.monotonic()
        for number, packet in enumerate(packets):
            if number % _BURST == 0:
                ahead = start + number * seconds / count - time.monotonic()
                if ahead > 0:
                    time.sleep(ahead)
            raw.sendto(packet, (address, 0))
        print(time.monotonic() - start, flush=True)


def push(address: str, port: int, octets: int) -> None:
    """Send this many octets and wait until the server says that it has them all."""
    piece = memoryview(bytes(_PIECE))
    with socket.create_connection((address, port)) as connection:
        start = time.monotonic()
        for sent in range(0, octets, _PIECE):
            connection.sendall(piece[: octets - sent])
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile() as answer:
            if (count := answer.readline()) != f"{octets}\n":
                raise SystemExit(f"{address} has {count!r} of {octets} octets")
        print(time.monotonic() - start)


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
        case ["flood", address, port, count, seconds]:
            flood(address, int(port), int(count), float(seconds))
        case ["push", address, port, octets]:
            push(address, int(port), int(octets))
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
