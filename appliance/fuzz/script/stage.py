"""One host, the far end of its cable, and the clock, for a script to play on.

The host is `net.stack.Host` as it is; the link hands over what it sends with the time, answers ARP
for the gateway at once, and brings what the script sends.  Time is virtual and exact: it moves
only by `advance`, which runs each timer of the host at its own instant.  Imports `net`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple

from appliance.fuzz.script.faults import MismatchError
from appliance.net.stack import Host
from appliance.net.vif.offload import finish_checksum
from appliance.net.wire import arp, ethernet, ipv4, virtio
from appliance.net.wire.address import from_text

START: Final = 1000.0  # seconds: the host's clock when a script begins; not nought
MICRO: Final = 1_000_000
OUR_MAC: Final = b"\x02\x00\x00\x00\x00\x02"
THEIR_MAC: Final = b"\x02\x00\x00\x00\x00\x01"
ETHERNET_AT: Final = virtio.VNET_HDR_LEN
IP_AT: Final = ETHERNET_AT + ethernet.HEADER_LEN
MAX_WAITING: Final = 100_000  # frames that a script has not looked at: a host that raves
SPINS: Final = 10_000  # timers at one instant before it is called a livelock


class Sent(NamedTuple):
    """One IP packet of the host: when (microseconds of the script), and its octets."""

    at: int
    packet: bytes


class Tap:
    """The link, as the host sees it: takes everything, one segment a frame."""

    def __init__(self, mtu: int) -> None:
        self.name = "script"
        self.mac = OUR_MAC
        self.mtu = mtu
        self.gso_max = 0
        self.checksum_offload = True
        self.udp_segments = 0
        self.on_readable: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.sent: list[bytes] = []

    def fileno(self) -> int:
        """No descriptor."""
        return -1

    def receive(self, limit: int) -> list[bytes]:
        """Nothing: frames are handed to the host directly."""
        return []

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        """Keep the frame."""
        self.sent.append(b"".join((head, payload)))
        return True

    def close(self) -> None:
        """Nothing to give up."""


class Stage:
    """The host under test, from `cidr`, with everything else behind `gateway`."""

    def __init__(self, *, seed: int, mtu: int, cidr: str, gateway: str) -> None:
        self._tap = Tap(mtu)
        self.now = 0  # microseconds since the script began
        self.host = Host(self._tap, random=random.Random(seed))
        self.host.add_address(cidr)
        self.host.add_gateway(gateway)
        self.waiting: deque[Sent] = deque()  # what the host sent and the script has not looked at
        self.sent: list[Sent] = []  # everything, for the trace
        self.watch: Callable[[], None] = _nothing  # after each turn of the host
        self._gateway = from_text(gateway)
        self._ours = from_text(cidr.partition("/")[0])
        # The gateway asks first, so that the host knows it from the start.
        self._arp(arp.REQUEST)

    def clock(self) -> float:
        """The host's monotonic seconds."""
        return START + self.now / MICRO

    # -- time

    def deadline(self) -> int:
        """When the host's next timer is due, in microseconds of the script; -1: none is armed."""
        due = self.host.deadline()
        if due == inf:
            return -1
        return max(self.now, round((due - START) * MICRO))

    def advance(self, until: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass to `until`, or to the first instant after which `stop()` holds."""
        spins = 0
        while not stop():
            due = self.deadline()
            if due < 0 or due > until:
                self.now = max(self.now, until)
                return
            spins = spins + 1 if due == self.now else 0
            if spins > SPINS:
                raise MismatchError(f"the host's timers keep firing at {self.now / MICRO:.6f} s")
            self.now = due
            # A deadline between two microseconds is due at the later one.
            self.host.run_timers(max(self.clock(), self.host.deadline()))
            self._gather()

    def flush(self) -> None:
        """Let the host send what its applications queued."""
        self.host.flush(self.clock())
        self._gather()

    def inject(self, packet: bytes, segment: int = 0) -> None:
        """An IP packet arrives; its transport checksum counts as verified by the link.

        `segment` octets: what the link says that the pieces of a super-segment had; 0: nothing.
        """
        kind = virtio.GSO_TCPV4 if segment else virtio.GSO_NONE
        header = virtio.pack(flags=virtio.DATA_VALID, gso_type=kind, gso_size=segment)
        frame = header + ethernet.header(OUR_MAC, THEIR_MAC, ethernet.ETHERTYPE_IPV4) + packet
        self.host.receive([frame], self.clock())
        self._gather()

    def _arp(self, operation: int) -> None:
        asked = arp.build(operation, THEIR_MAC, self._gateway, OUR_MAC, self._ours)
        head = ethernet.header(OUR_MAC, THEIR_MAC, ethernet.ETHERTYPE_ARP)
        self.host.receive([virtio.PLAIN + head + asked], self.clock())
        self._gather()

    def _gather(self) -> None:
        """Sort what the host has sent, and tell whoever waits for the host."""
        while self._tap.sent:
            frames, self._tap.sent = self._tap.sent, []
            for frame in frames:
                _, _, kind = ethernet.parse(frame, ETHERNET_AT)
                if kind == ethernet.ETHERTYPE_ARP:
                    asked = arp.parse(frame, IP_AT, len(frame))
                    if asked.operation == arp.REQUEST and asked.target == self._gateway:
                        self._arp(arp.REPLY)
                    continue
                packet = Sent(self.now, finish_checksum(frame)[IP_AT:])
                self.sent.append(packet)
                if ipv4.parse(packet.packet, 0, len(packet.packet)).dst != b"\xff\xff\xff\xff":
                    self.waiting.append(packet)
                if len(self.waiting) > MAX_WAITING:
                    raise MismatchError(
                        f"the host has sent {MAX_WAITING} packets that nobody expects"
                    )
        self.watch()


def _nothing() -> None:
    """Watch nothing."""
