"""Ethernet switches. Imports `port` and `net`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from appliance.fuzz.port import Port
from appliance.net.wire import ethernet
from appliance.net.wire.ipv4 import MAX_TOTAL_LEN
from appliance.net.wire.virtio import VNET_HDR_LEN

if TYPE_CHECKING:
    from appliance.fuzz.world import World


class Switch:
    """An Ethernet switch: it learns who is where, and floods what it has not learnt."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.ports: list[SwitchPort] = []
        self.table: dict[bytes, SwitchPort] = {}
        """Ethernet address to port; bounded by the addresses in the scenario, and TABLE."""
        self._world = world

    def plug(self) -> SwitchPort:
        """Return a new port."""
        name = f"{self.name}.{len(self.ports)}"
        port = SwitchPort(self, Port(self._world, name, MAX_TOTAL_LEN, True))
        self.ports.append(port)
        return port

    def forward(self, source: SwitchPort, frame: bytes) -> None:
        """Send a frame on to where its destination is."""
        if len(frame) < VNET_HDR_LEN + ethernet.HEADER_LEN:
            return
        to = frame[VNET_HDR_LEN : VNET_HDR_LEN + 6]
        sender = frame[VNET_HDR_LEN + 6 : VNET_HDR_LEN + 12]
        if not sender[0] & 1 and len(self.table) < TABLE:
            self.table[sender] = source
        known = self.table.get(to)
        for port in self.ports if known is None else (known,):
            if port is not source:
                port.port.send(frame)


TABLE: Final = 4096
"""Addresses that a switch learns; small ones learn a few thousand."""


class SwitchPort:
    """One port of a switch."""

    def __init__(self, switch: Switch, port: Port) -> None:
        self.switch = switch
        self.port = port
        self.port.sink = self
        self.inbox: list[bytes] = []

    def turn(self, _: float) -> None:
        """Forward what has arrived."""
        frames, self.inbox = self.inbox, []
        for frame in frames:
            self.switch.forward(self, frame)
