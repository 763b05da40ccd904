"""An authoritative name server without sockets: zones in, answers to queries out.

`Zone.from_text` and `Zone.from_file` read master files, `load_zones` a directory of them, and
`Catalog(zones).answer(query)` turns a query's octets into the answer's. `DnsDatagramProtocol` and
`DnsStreamProtocol` put that behind any asyncio transport. Imports nothing of `appliance.net`.

What reads master files brings dnspython with it, and is imported when it is first asked for: a
machine that boots with its zones already rendered (appliance/image) answers without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from appliance.dns.answer import Catalog
from appliance.dns.cookies import Cookies
from appliance.dns.counters import Counters
from appliance.dns.edns import Extensions
from appliance.dns.errors import DnsError, LocalError, Problem, ZoneError
from appliance.dns.notify import Notifier, Target
from appliance.dns.protocol import (
    DnsDatagramProtocol,
    DnsNotifyProtocol,
    DnsStreamProtocol,
    Holder,
    Streams,
)
from appliance.dns.reload import LoadedZones, Reloaded, reload
from appliance.dns.rrl import RateLimiter
from appliance.dns.transfer import Grant, Transfers, grant
from appliance.dns.tsig import Key, Keys, key
from appliance.dns.zone import Zone

if TYPE_CHECKING:
    from appliance.dns.loading import load_zones

__all__ = [
    "Catalog",
    "Cookies",
    "Counters",
    "DnsDatagramProtocol",
    "DnsError",
    "DnsNotifyProtocol",
    "DnsStreamProtocol",
    "Extensions",
    "Grant",
    "Holder",
    "Key",
    "Keys",
    "LoadedZones",
    "LocalError",
    "Notifier",
    "Problem",
    "RateLimiter",
    "Reloaded",
    "Streams",
    "Target",
    "Transfers",
    "Zone",
    "ZoneError",
    "grant",
    "key",
    "load_zones",
    "reload",
]


def __getattr__(name: str) -> object:
    """What reads master files (PEP 562)."""
    if name == "load_zones":
        return getattr(import_module("appliance.dns.loading"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
