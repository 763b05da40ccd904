"""Site and zones become one file that a booting machine has only to read: run as a program.

    PYTHONPATH=... PYTHONHASHSEED=0 python -S -s -P freeze.py DATE OUT LINK

in a folder with appliance.toml as the build wrote it down, and what it names. DATE (seconds since
the epoch) is every file's date, so the same content gives the same octets whenever it is built.
OUT gets `content.pickle`, and `hot.json`: the modules that were needed to read it and to answer a
request and a query on a pair of interfaces. Problems go to standard error; status 1 if one is an
error.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HOT = (
    "appliance.image.guest.boot", "appliance.image.guest.machine", "appliance.net.vif.packet",
    "pathlib", "ctypes", "traceback", "importlib.machinery", "encodings.ascii", "encodings.idna",
)  # fmt: skip
"""What a machine needs besides what the trial uses."""
COMPUTED = ("first",)
"""What settings work out of others, for `appliance.image.guest.overrides` to leave out."""


def plain(value: Any) -> Any:
    """Settings without the library that validated them."""
    if hasattr(type(value), "model_fields"):
        fields = type(value).model_fields
        inner = {name: plain(getattr(value, name)) for name in fields}
        inner |= {name: getattr(value, name) for name in COMPUTED if hasattr(value, name)}
        if isinstance(inner.get("state"), Path):  # state/dns is /state/dns, not /state/state/dns
            inner["state"] = Path("/state", *value.state.parts[1:])
        return SimpleNamespace(**inner)
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, Path) and not value.is_absolute():
        return Path("/state", value)  # keys, journals: what must not lie in an image
    return value


def freeze(date: int, out: Path, link: str) -> int:
    """Load, judge, write; the number of errors."""
    from appliance.config import load
    from appliance.content import load_content

    settings = load(Path("appliance.toml"), {"site.directory": "site", "dns.zones": "zones"})
    hosts = [
        host.model_copy(update={"directory": Path("host", host.name)}) for host in settings.host
    ]
    settings = settings.model_copy(update={"host": tuple(hosts)})
    content = load_content(settings, now=date)
    for problem in content.problems:
        sys.stderr.write(f"{problem.severity}: {problem}\n")
    if content.errors:
        return content.errors
    content.site.origins = {}  # where things were found on the machine that builds
    content.site.pages = ()
    frozen = plain(settings)
    if link == "pair":
        frozen.net.link, frozen.gateway.bind = link, "0.0.0.0"  # noqa: S104 - of a container
    elif not frozen.net.link.startswith("packet:"):
        frozen.net.link = link
    frozen.net.host_address = frozen.net.pcap = None
    # Only cards are in a machine; and one that boots in a second asks nobody for five, unless told.
    frozen.net.more = tuple(one for one in frozen.net.more if one.link.startswith("packet:"))
    for cable in (frozen.net, *frozen.net.more):
        cable.host_address, cable.probe = None, bool(cable.probe)
    object.__setattr__(content, "problems", ())
    data = pickle.dumps((frozen, content), protocol=5)
    for inner in (str(Path.cwd()), *sys.path):
        if inner and inner.encode() in data:
            sys.stderr.write(f"error: {inner} got into what is served\n")
            return 1
    (out / "content.pickle").write_bytes(data)
    (out / "settings.json").write_text(
        json.dumps({"address": list(frozen.net.address), "gateway": list(frozen.net.gateway),
                    "http": frozen.http.port, "dns": frozen.dns.port, "zones": content.zones})
    )  # fmt: skip
    return 0


def trial(data: bytes) -> None:
    """Answer a request and a query from what was written."""
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
    place = Path(sys.argv[2])
    if len(sys.argv) == 4:
        if freeze(int(sys.argv[1]), place, sys.argv[3]):
            raise SystemExit(1)
        # In an interpreter of its own, which has not imported what loads a site.
        raise SystemExit(os.spawnv(  # noqa: S606 - ourselves
            os.P_WAIT, sys.executable, [
            sys.executable, "-S", "-s", "-P", __file__, *sys.argv[1:], "trial"]))  # fmt: skip
    sys.modules["ssl"] = sys.modules["_hashlib"] = None  # type: ignore[assignment]  # as PID 1 does
    for name in HOT:
        __import__(name)
    trial((place / "content.pickle").read_bytes())
    (place / "hot.json").write_text(json.dumps(sorted(sys.modules)))
