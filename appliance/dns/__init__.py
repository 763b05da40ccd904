"""An authoritative name server without sockets: zones in, answers to queries out.

`Zone.from_text` and `Zone.from_file` read master files, `load_zones` a directory of them, and
`Catalog(zones).answer(query)` turns a query's octets into the answer's. `DnsDatagramProtocol` and
`DnsStreamProtocol` put that behind any asyncio transport. Imports nothing of `appliance.net`.
"""

from __future__ import annotations

from appliance.dns.answer import Catalog
from appliance.dns.counters import Counters
from appliance.dns.errors import DnsError, LocalError, Problem, ZoneError
from appliance.dns.protocol import DnsDatagramProtocol, DnsStreamProtocol, Holder, Streams
from appliance.dns.zone import Zone
from appliance.dns.zonefile import LoadedZones, load_zones

__all__ = [
    "Catalog",
    "Counters",
    "DnsDatagramProtocol",
    "DnsError",
    "DnsStreamProtocol",
    "Holder",
    "LoadedZones",
    "LocalError",
    "Problem",
    "Streams",
    "Zone",
    "ZoneError",
    "load_zones",
]
