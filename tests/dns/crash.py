"""Kill a server again and again while updates come; look what it knows when it is back.

Each acknowledged update must be there afterwards, and the zone must be whole: every update adds one
record to each of two names, which are never seen with different numbers of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.tsig
import dns.tsigkeyring
import dns.update

SECRET = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
KEYRING = dns.tsigkeyring.from_text({"upd.example.": SECRET})
ZONE = """\
; A zone that is changed a lot.
$TTL 60
@ SOA ns1 h 1 7200 1800 1209600 300
@ NS ns1
ns1 A 127.0.0.1
one TXT "start"   ; both have
two TXT "start"   ; the same
"""
NAME = "crash.test."

SERVER = """
import asyncio, sys
from pathlib import Path
from random import Random
from appliance.dns import DnsDatagramProtocol, DnsStreamProtocol, Extensions, Keys, key, load_zones
from appliance.dns.authority import Authority, Options
from appliance.dns.policy import Policy, rule
from appliance.dns.service import Service

async def main(folder, port):
    import base64
    keys = Keys([key("upd.example.", "hmac-sha256", base64.b64decode(sys.argv[3]))])
    server = Authority(
        Options(extensions=Extensions(keys=keys), state=folder / "state",
                policy=Policy([rule("upd.example.", None, ["*"], [])]), journal_limit=20_000),
        random=Random(), say=lambda line: print(line, flush=True))
    for problem in server.begin(load_zones(folder / "zones")):
        print(problem, flush=True)
    service = Service(server, random=Random(), write_back=0.01)
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: DnsStreamProtocol(service), "127.0.0.1", port)
    await loop.create_datagram_endpoint(
        lambda: DnsDatagramProtocol(service), local_addr=("127.0.0.1", port))
    await service.begin()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@contextmanager
def server(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """The server, ready; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder), str(port), SECRET],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line == "ready\n":
                break
            if "error" in line:
                raise AssertionError(line)
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def seen(port: int, name: str) -> set[str]:
    query = dns.message.make_query(f"{name}.{NAME}", "TXT")
    answer = dns.query.tcp(query, "127.0.0.1", port=port, timeout=5)
    assert answer.rcode() == dns.rcode.NOERROR
    return {str(rdata) for rrset in answer.answer for rdata in rrset}


def serial(port: int) -> int:
    answer = dns.query.tcp(dns.message.make_query(NAME, "SOA"), "127.0.0.1", port=port, timeout=5)
    return int(answer.answer[0][0].serial)


async def updates(port: int, first: int, acknowledged: list[int]) -> None:
    """Send updates, four at a time, until the server is gone."""
    number = first

    async def client() -> None:
        nonlocal number
        import dns.asyncquery

        while True:
            mine = number
            number += 1
            update = dns.update.UpdateMessage(NAME, keyring=KEYRING)
            for name in ("one", "two"):
                update.add(name, 60, "TXT", str(mine))
                update.delete(name, "TXT", str(mine - 50))  # so that it stays small
            answer = await dns.asyncquery.tcp(update, "127.0.0.1", port=port, timeout=2)
            assert answer.rcode() == dns.rcode.NOERROR
            acknowledged.append(mine)

    tasks = [asyncio.ensure_future(client()) for _ in range(4)]
    _, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        expected = (OSError, EOFError, dns.exception.DNSException, asyncio.CancelledError)
        if not isinstance(result, expected):
            raise AssertionError(result)


def scenario(folder: Path, times: int, port: int, seed: int = 1) -> tuple[int, int]:
    """Kill as often; updates acknowledged, and the serial at the end."""
    random = Random(seed)
    (folder / "zones").mkdir()
    (folder / "zones" / "crash.test.zone").write_text(ZONE)
    acknowledged: list[int] = []
    first, before = 1000, 0
    for _ in range(times + 1):
        with server(folder, port) as process:
            one, two = seen(port, "one"), seen(port, "two")
            assert one == two, "half of an update is served"
            # What was deleted since by a later update, acknowledged or not, may be gone.
            newest = max((int(text.strip('"')) for text in one if text != '"start"'), default=0)
            for number in acknowledged[-46:]:
                if number > newest - 50 + 4:
                    assert f'"{number}"' in one, f"{number} was acknowledged, and is lost"
            now = serial(port)
            assert now >= before, "the serial went back"
            before = now

            def kill(process: subprocess.Popen[str] = process) -> None:
                time.sleep(random.uniform(0.02, 0.25))
                os.kill(process.pid, signal.SIGKILL)

            async def storm(first: int, kill: Callable[[], None] = kill) -> None:
                loop = asyncio.get_running_loop()
                killer = loop.run_in_executor(None, kill)
                await updates(port, first, acknowledged)
                await killer

            asyncio.run(storm(first))
            first = max([first, *acknowledged]) + 10
    return len(acknowledged), before
