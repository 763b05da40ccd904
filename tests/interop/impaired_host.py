"""`stack_host.py` behind a bad link.

    python impaired_host.py TAP CIDR SEED LINK FILE

LINK is what `appliance.fuzz.Link` takes, as JSON; both directions are alike. What the link did in
each direction is written to FILE, as JSON, at the end.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from appliance.fuzz.link import Burst, Link
from appliance.fuzz.relay import Relay
from appliance.net.vif.base import Vif
from appliance.net.vif.offload import equip
from tests.interop import stack_host


def link_of(text: str) -> Link:
    """Read a link."""
    table = json.loads(text)
    if "burst" in table:
        table["burst"] = Burst(**table["burst"])
    return Link(**table)


async def main(tap: str, cidr: str, seed: str, link: str) -> list[dict[str, int]]:
    """Serve until SIGTERM; what the link did, to us and from us."""
    bad = link_of(link)
    loop = asyncio.get_running_loop()
    relays: list[Relay] = []

    def wrap(vif: Vif) -> Vif:
        relays.append(Relay(vif, to_us=bad, from_us=bad, seed=int(seed), loop=loop))
        return equip(relays[0])

    await stack_host.main(tap, cidr, wrap)
    ways = (relays[0].to_us, relays[0].from_us)
    return [way.counts.as_dict() for way in ways]


if __name__ == "__main__":
    *words, file = sys.argv[1:]
    Path(file).write_text(json.dumps(asyncio.run(main(*words))))
