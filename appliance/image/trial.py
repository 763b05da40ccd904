"""A trial of what `freeze` has written, to see what a booting machine needs: run as a program.

    PYTHONPATH=... PYTHONHASHSEED=0 python -S -s -P trial.py OUT

answers a request and a query on a pair of interfaces from OUT's `content.pickle`, in an interpreter
that has not imported what loads a site. OUT gets `hot.json`, the modules that this took,
`made.marshal`, what they compiled (guest/made.py), and `warm.json`, the modules that a machine
imports next, in their order.
"""

from __future__ import annotations

from appliance.image.guest import made

if __name__ == "__main__":
    record = made.Record()  # before anything is imported that compiles

import asyncio
import json
import marshal
import pickle
import sys
from pathlib import Path
from typing import Any

HOT = (
    "appliance.image.guest.boot", "appliance.image.guest.machine", "appliance.net.vif.packet",
    "pathlib", "ctypes", "traceback", "importlib.machinery", "encodings.ascii",
)  # fmt: skip
"""What a machine needs besides what the trial uses."""


def trial(data: bytes) -> Any:
    """Answer a request and a query from what was written; returns its settings."""
    settings, content = pickle.loads(data)  # noqa: S301 - written a moment ago
    for outside in ("key", "secondary", "primary", "update"):
        setattr(settings.dns, outside, ())  # secrets and neighbours are the machine's

    async def serve() -> None:
        from appliance.net.transport import Stack
        from appliance.net.vif.pair import pair
        from appliance.parts.authority import Authority
        from appliance.parts.web import Web

        ours, theirs = pair()
        stack = Stack(ours, addresses=["10.0.0.2/24"], gateways=["10.0.0.1"])
        client = Stack(theirs, addresses=["10.0.0.1/24"])
        await stack.start()
        await client.start()
        for part in (Web(settings, content), Authority(settings, content)):
            await part.begin(stack)
        await _ask(client, settings)
        await client.close()
        await stack.close()

    asyncio.run(serve())
    return settings


async def _ask(client: Any, settings: Any) -> None:
    loop = asyncio.get_running_loop()
    page, answer = loop.create_future(), loop.create_future()

    class Http(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            if not page.done():
                page.set_result(data)

    class Dns(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            if not answer.done():
                answer.set_result(data)

    transport, _ = await client.create_connection(Http, "10.0.0.2", settings.http.port)
    transport.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    udp, _ = await client.create_datagram_endpoint(Dns, remote_addr=("10.0.0.2", settings.dns.port))
    udp.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0\0\0\2\0\1")
    async with asyncio.timeout(20):
        assert (await page).startswith(b"HTTP/1.1 "), await page
        assert (await answer)[:2] == b"\0\1"
    transport.close()
    udp.close()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    sys.modules["ssl"] = sys.modules["_hashlib"] = None  # type: ignore[assignment]  # as PID 1 does
    for name in HOT:
        __import__(name)
    settings = trial((place / "content.pickle").read_bytes())
    (place / "hot.json").write_text(json.dumps(sorted(sys.modules)))
    # Twice, as in bytecode.py: what is written depends on what else refers to it.
    data = marshal.dumps(marshal.loads(marshal.dumps(record.used())))  # noqa: S302
    (place / "made.marshal").write_bytes(data)
    hot = set(sys.modules)
    from appliance.app import bring_in

    bring_in(settings)
    warm = [name for name in sys.modules if name not in hot]
    (place / "warm.json").write_text(json.dumps(warm))
