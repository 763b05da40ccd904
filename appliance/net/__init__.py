"""The TCP/IP stack: a whole internet host in user space, usable as a library of its own.

    from appliance.net import Stack, open_tap

    async with Stack(open_tap("tap0"), addresses=["10.0.0.2/24"]) as stack:
        server = await stack.create_server(MyProtocol, port=80)

`Stack` has asyncio's own signatures; everything below it is sans-I/O. The public names are loaded
when they are first used, so that importing a leaf does not import asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance.net.errors import LinkError, LocalError
    from appliance.net.tcb import TcpSettings
    from appliance.net.transport import Server, Stack
    from appliance.net.transport_datagram import DatagramTransport
    from appliance.net.transport_stream import StreamTransport
    from appliance.net.vif.base import Vif
    from appliance.net.vif.pair import pair
    from appliance.net.vif.pcap import Recorder
    from appliance.net.vif.tap import open_tap

__all__ = [
    "DatagramTransport",
    "LinkError",
    "LocalError",
    "Recorder",
    "Server",
    "Stack",
    "StreamTransport",
    "TcpSettings",
    "Vif",
    "open_tap",
    "pair",
]

_HOMES = {
    "DatagramTransport": "transport_datagram",
    "LinkError": "errors",
    "LocalError": "errors",
    "Recorder": "vif.pcap",
    "Server": "transport",
    "Stack": "transport",
    "StreamTransport": "transport_stream",
    "TcpSettings": "tcb",
    "Vif": "vif.base",
    "open_tap": "vif.tap",
    "pair": "vif.pair",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
