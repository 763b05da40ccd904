"""The TCP/IP stack: a whole internet host in user space, usable as a library of its own.

    from appliance.net import Stack, open_tap

`Stack` has asyncio's own signatures; below it everything is sans-I/O. The public names are loaded
when they are first used, so that importing a leaf does not import asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance.net.transport import Server, Stack
    from appliance.net.transport_datagram import DatagramTransport
    from appliance.net.transport_stream import StreamTransport

_HOMES = {
    "DatagramTransport": "appliance.net.transport_datagram",
    "Server": "appliance.net.transport",
    "Stack": "appliance.net.transport",
    "StreamTransport": "appliance.net.transport_stream",
}

__all__ = ["DatagramTransport", "Server", "Stack", "StreamTransport"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
