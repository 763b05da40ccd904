"""The figures of the name server that are too long for every run of the tests.

    python -m tests.dns.figures million [RECORDS]   load time, memory, and speed beside a small zone
    python -m tests.dns.figures mutants [QUERIES]   mutated queries: no exception, no long answer
    python -m tests.dns.figures ixfr [CHANGES]      three secondaries follow many changes
    python -m tests.dns.figures kills [TIMES]       SIGKILL during updates (`crash`)

`make figures ARGS="ixfr"` is the same. Each prints what it has measured in a line or two, and ends
with an error where something is not as it must be. `test_figures` runs all of them, small.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from socket import inet_aton

import dns.edns
import dns.message
import dns.opcode
import dns.query
import dns.zone

from appliance.dns import (
    Catalog,
    Extensions,
    Keys,
    RateLimiter,
    Transfers,
    Zone,
    grant,
    key,
    load_zones,
    names,
)
from appliance.dns.authority import Authority, Options
from appliance.dns.consts import DEFAULT_UDP, SOA, A
from appliance.dns.cookies import Cookies
from appliance.dns.edit import apply
from appliance.dns.message import parse
from appliance.dns.policy import Policy, rule
from appliance.dns.reload import LoadedZones
from appliance.dns.serial import Difference, Record, records, soa_record, with_serial
from appliance.dns.tsig import sign_query
from appliance.dns.zone import canonical
from bench import material
from tests.dns.test_interop_secondaries import (
    SERVERS,
    Primary,
    Secondary,
    has_serial,
)
from tests.dns.util import DATA, question
from tests.ports import free_port

PEER = ("192.0.2.77", 5300)
CONVERGE = 300.0
"""Seconds that three secondaries may take to follow."""


def say(line: str) -> None:
    """Tell the person who waits."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# ---- A large zone.


def resident() -> float:
    """Megabytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def million(count: int = 1_000_000, rounds: int = 15) -> tuple[float, float, float]:
    """Seconds to load and render, megabytes more, time of an answer beside that of a small zone."""
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large"), Path(folder, "small")
        for where in (large, small):
            where.mkdir()
        hosts = material.write_large(large, count)
        few = material.write_large(small, 1_000)
        before, began = resident(), time.perf_counter()
        loaded = load_zones(large)
        assert [str(one) for one in loaded.problems if one.severity == "error"] == []
        catalog = Catalog(loaded.zones)
        seconds = time.perf_counter() - began
        memory = resident() - before
        other = Catalog(load_zones(small).zones)
        sides = [
            (one, [question(*asked) for asked in material.large_queries(number)])
            for one, number in ((catalog, hosts), (other, few))
        ]
        times: list[list[float]] = [[], []]
        for number in range(rounds + 1):
            for side in (0, 1) if number % 2 else (1, 0):
                answer, queries = sides[side][0].answer, sides[side][1]
                began = time.perf_counter()
                for query in queries:
                    answer(query)
                if number:  # the first round fills what is remembered
                    times[side].append((time.perf_counter() - began) / len(queries))
    one, two = (statistics.median(side) * 1e6 for side in times)
    say(f"million: {count} records loaded and rendered in {seconds:.1f} s, {memory:.0f} MB; "
        f"an answer {one:.2f} µs, of a small zone {two:.2f} µs")  # fmt: skip
    return seconds, memory, one - two


# ---- Mutated queries.


def seeds(zone: Zone) -> list[bytes]:
    """Sound messages of every kind, to be spoilt."""
    known = [names.to_text(node.owner) for node in zone.nodes.values()]
    known += [f"zz.{name}" for name in known if len(name) < 200] + ["nowhere.", "version.bind."]
    out = []
    for name in known:
        for rdtype in ("A", "TXT", "ANY", "SOA", "MX", "HTTPS", "AXFR", "TYPE65500"):
            out.append(question(name, rdtype))
            sizes = (512, 1232, 65535)
            out += [question(name, rdtype, use_edns=0, payload=size) for size in sizes]
    ten = dns.message.make_query("corner.test.", "SOA", use_edns=0)
    ten.use_edns(0, options=[dns.edns.CookieOption(b"12345678", b""), dns.edns.NSIDOption(b"")])
    out += [ten.to_wire()] * 20
    secret = key("upd.example.", "hmac-sha256", bytes(32))
    out += [sign_query(one, secret, 1e9)[0] for one in out[:200]]
    for opcode in (dns.opcode.NOTIFY, dns.opcode.UPDATE, dns.opcode.STATUS):
        message = dns.message.make_query("corner.test.", "SOA")
        message.set_opcode(opcode)
        out += [message.to_wire()] * 20
    return out


def spoil(chance: Random, message: bytes) -> bytes:
    """Change octets, cut, lengthen, or repeat."""
    data = bytearray(message)
    for _ in range(chance.randrange(1, 5)):
        if not data:
            break
        at = chance.randrange(len(data))
        kind = chance.randrange(8)
        if kind < 5:
            data[at] = chance.randrange(256) if kind < 3 else chance.choice(b"\0\xff\xc0\x0c\x29")
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            data[at:at] = chance.randbytes(chance.randrange(1, 12))
        else:
            data += data[at : at + 64]
    return bytes(data)


def long_zone() -> Zone:
    """Answers beyond all limits of datagrams, and one that is just so long."""
    texts = "".join(f'@ TXT "{number:0200}"\n@ MX {number} host{number}\n' for number in range(60))
    some = "".join(f"some TXT {number:0100}\n" for number in range(9))
    return Zone.from_text(
        f"$ORIGIN long.test.\n$TTL 60\n@ SOA ns1 h 1 1 1 1 1\n@ NS ns1\n"
        f"ns1 A 192.0.2.1\n{texts}{some}"
    )


def mutants(count: int = 10_000_000, seed: int = 1) -> dict[str, int]:
    """Ask mutated queries of one client that is within its limit, and one that is far beyond."""
    chance = Random(seed)
    zones = (Zone.from_file(DATA / "corner.zone"), long_zone())
    keys = Keys([key("upd.example.", "hmac-sha256", bytes(32))])

    def server(keys: Keys, limiter: RateLimiter | None) -> Authority:
        one = Authority(
            Options(
                extensions=Extensions(
                    nsid=b"a server", cookies=Cookies([bytes(16)]), keys=keys, clock=lambda: 1e9
                ),
                limiter=limiter,
                policy=Policy([rule("upd.example.", None, ["*"], [])]),
            ),
            random=Random(1),
            clock=lambda: 1.0,  # time stands still: whoever has used up its burst stays limited
        )
        one.begin(LoadedZones(zones, (), frozenset()))
        return one

    limiter = RateLimiter(b"key", rate=0.001, total=0.001, burst=0, slip=1)
    limiter.judge(PEER[0], 1, 1.0)
    free, limited = server(keys, None), server(Keys(), limiter)
    assert limiter.judge(PEER[0], 1, 1.0), "the client is not limited yet"
    pool = [*seeds(zones[0]), *seeds(zones[1]) * 20]
    pool += [question("some.long.test.", "TXT", use_edns=0, payload=1232)] * (len(pool) // 10)
    seen = {"answered": 0, "silent": 0, "long": 0, "updates": 0}
    updated: list[bytes] = []
    for number in range(count):
        message = spoil(chance, chance.choice(pool))
        answer = free.current.answer(message, peer=PEER)
        if answer is None:
            seen["silent"] += 1
            if len(message) >= 12 and message[2] & 0xF8 == 0x28:
                seen["updates"] += 1
                free.update(message, PEER, updated.append)
                answer = updated.pop() if updated else None
        if answer is not None:
            seen["answered"] += 1
            check_size(message, answer)
            seen["long"] += len(answer) > 512
        slipped = limited.current.answer(message, peer=PEER)
        if slipped is not None and message[2] & 0x78 != 0x20:  # a NOTIFY's answer is as long as it
            assert len(slipped) <= len(message), (message.hex(), slipped.hex())
        elif slipped is not None:
            assert len(slipped) <= len(message) + 11, (message.hex(), slipped.hex())
        if number % 1_000_000 == 999_999:
            say(f"mutants: {number + 1}")
    say(f"mutants: {count} queries, {seen}: none raised, none too long, none amplified")
    return seen


def check_size(message: bytes, answer: bytes) -> None:
    """RFC 6891 §6.2.3: no more than the client takes, nor than we send over UDP."""
    assert len(answer) >= 12
    assert answer[:2] == message[:2]
    if len(answer) > 512:
        edns = parse(message).edns
        assert edns is not None, message.hex()
        assert len(answer) <= min(edns.size, DEFAULT_UDP), message.hex()


# ---- Secondaries.

Plain = set[tuple[bytes, int, int, bytes]]


class Watched(Transfers):
    """Notes what kind of transfer is given."""

    __slots__ = ("kinds",)

    def __init__(self) -> None:
        super().__init__(default=[grant("127.0.0.0/8", "xfr.example.")])
        self.kinds: list[str] = []

    def answer(self, zone: Zone, serial: int | None) -> Iterator[Record]:
        """The records; as they are for the client to go on from its serial."""
        rows = list(super().answer(zone, serial))
        soas = sum(row[1] == SOA for row in rows)
        self.kinds.append("whole" if soas == 2 else "differences" if soas > 2 else "up to date")
        return iter(rows)


def moving(hosts: int) -> Zone:
    """The first version of a zone whose hosts move."""
    lines = "".join(f"h{number} A {address(number)}\n" for number in range(hosts))
    return Zone.from_text(
        "$ORIGIN moving.test.\n$TTL 60\n@ SOA ns1 h 1 7200 5 1209600 300\n"
        f"@ NS ns1\nns1 A 127.0.0.1\n{lines}"
    )


def address(number: int) -> str:
    """An address for each number."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def moved(zone: Zone, hosts: dict[int, int], some: list[int]) -> Difference:
    """What it takes to give some hosts their next address."""
    removed, added = [], []
    for number in some:
        owner = names.from_text(f"h{number}.moving.test.")
        removed.append((owner, A, 60, inet_aton(address(hosts[number]))))
        hosts[number] += 1
        added.append((owner, A, 60, inet_aton(address(hosts[number]))))
    old = soa_record(zone)
    new = (*old[:3], with_serial(old[3], zone.serial + 1))
    return Difference(old, new, tuple(removed), tuple(added))


def held(port: int) -> Plain:
    """All records that a server has of the zone."""
    zone = dns.zone.from_xfr(
        dns.query.xfr("127.0.0.1", "moving.test.", port=port, relativize=False, timeout=60),
        relativize=False,
    )
    return {
        (
            (name.to_wire() or b"").lower(),
            rdata.rdtype,
            ttl,
            canonical(rdata.rdtype, rdata.to_wire() or b""),
        )
        for name, ttl, rdata in zone.iterate_rdatas()
    }


async def look(port: int) -> Plain:
    """What a server has, though it may break off once when it takes over another version."""
    for _ in range(30):
        try:
            return await asyncio.to_thread(held, port)
        except (EOFError, ConnectionError):
            await asyncio.sleep(1)
    raise AssertionError(f"port {port}: no transfer")


def allow_transfers(program: str, folder: Path) -> None:
    """Let us look into what a secondary has."""
    if program == "nsd":
        path = folder / "nsd.conf"
        text = path.read_text().replace("  allow-notify", "  provide-xfr: 127.0.0.1 NOKEY\n"
                                        "  allow-notify")  # fmt: skip
    elif program == "knotd":
        path = folder / "knot.conf"
        text = path.read_text().replace(
            "acl:\n", "acl:\n  - id: look\n    address: 127.0.0.1\n    action: transfer\n"
        ).replace("acl: told", "acl: [told, look]")  # fmt: skip
        # Who reads slowly is hung up on after half a second, and dnspython on a busy machine does.
        text = text.replace("server:\n", "server:\n  tcp-io-timeout: 30000\n")
    else:
        return  # BIND lets everybody
    path.write_text(text)


def start(program: str, folder: Path, primary: int) -> Secondary:
    """Run a secondary of the zone in a folder of its own."""
    folder.mkdir()
    (folder / "db").mkdir()
    for path in (folder, folder / "db"):
        path.chmod(0o777)
    port = free_port()
    command = SERVERS[program](folder, port, primary, ["moving.test"])
    allow_transfers(program, folder)
    with (folder / "log").open("wb") as log:
        return Secondary(subprocess.Popen(command, stdout=log, stderr=log), port)


async def until_serial(running: dict[str, Secondary], serial: int) -> None:
    """Wait until all have it."""
    async with asyncio.timeout(CONVERGE):
        for secondary in running.values():
            while not await has_serial(secondary.port, "moving.test.", serial):  # noqa: ASYNC110
                await asyncio.sleep(0.2)


def ixfr(count: int = 10_000, versions: Sequence[int] = (1, 100)) -> dict[int, list[int]]:
    """Three secondaries follow as many changes, in one version and in many; what each was sent."""
    programs = [program for program in SERVERS if shutil.which(program)]
    if not programs:
        raise SystemExit("none of nsd, knotd and named is installed")
    sent: dict[int, list[int]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        asyncio.run(_ixfr(folder, programs, count, versions, sent))
    return sent


async def _ixfr(
    folder: Path,
    programs: list[str],
    count: int,
    versions: Sequence[int],
    sent: dict[int, list[int]],
) -> None:
    primary = Primary()
    primary.transfers = transfers = Watched()
    await primary.start()
    hosts = {number: number for number in range(2 * count)}
    chance = Random(1)
    zone = moving(len(hosts))
    primary.serve(zone)
    running = {program: start(program, folder / program, primary.port) for program in programs}
    try:
        await until_serial(running, zone.serial)
        for steps in versions:
            transfers.kinds.clear()
            began = time.perf_counter()
            for _ in range(steps):
                some = chance.sample(range(len(hosts)), count // steps)
                change = moved(zone, hosts, some)
                zone = apply(zone, change).zone
                transfers.changed(change)
            primary.zones.clear()
            primary.serve(zone)
            for secondary in running.values():
                await primary.tell(secondary.port)
                assert primary.notify is not None
                primary.notify.changed(zone)
            await until_serial(running, zone.serial)
            seconds = time.perf_counter() - began
            expected = {
                (owner.lower(), rtype, ttl, canonical(rtype, rdata))
                for owner, rtype, ttl, rdata in (soa_record(zone), *records(zone))
            }
            for program, secondary in running.items():
                theirs = await look(secondary.port)
                assert theirs == expected, f"{program}: {len(theirs ^ expected)} records differ"
            kinds = transfers.kinds
            sent[steps] = [kinds.count("differences"), kinds.count("whole")]
            say(
                f"ixfr: {count} changes in {steps} versions: {', '.join(running)} have all "
                f"{len(expected)} records after {seconds:.1f} s; transfers of differences "
                f"{sent[steps][0]}, of the whole zone {sent[steps][1]}"
            )
    finally:
        for secondary in running.values():
            secondary.process.send_signal(signal.SIGTERM)
        for secondary in running.values():
            secondary.process.wait(30)
        primary.close()
        await asyncio.sleep(0.05)


# ---- Kills.


def kills(times: int = 200) -> int:
    """Kill a server as often while updates come; how many it acknowledged."""
    from tests.dns.crash import scenario

    with tempfile.TemporaryDirectory() as folder:
        count, serial = scenario(Path(folder), times, free_port())
    say(f"kills: {times} times, {count} updates acknowledged, none lost; serial {serial}")
    return count


FIGURES: dict[str, Callable[..., object]] = {
    "million": million,
    "mutants": mutants,
    "ixfr": ixfr,
    "kills": kills,
}


def wanted(words: list[str]) -> Iterator[tuple[Callable[..., object], list[int]]]:
    """What to run, with the numbers behind each name; all if none is named."""
    for at, word in enumerate(words or list(FIGURES)):
        if word.isdecimal():
            continue
        if word not in FIGURES:
            raise SystemExit(f"{word} is none of {', '.join(FIGURES)}")
        behind = words[at + 1 : at + 2]
        yield FIGURES[word], [int(one) for one in behind if one.isdecimal()]


if __name__ == "__main__":
    for figure, sizes in wanted(sys.argv[1:]):
        figure(*sizes)
