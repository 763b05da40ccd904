"""One host, the far end of its cable, and the clock, for a script to play on.

The host is `net.stack.Host` as it is; the link hands over what it sends with the time, answers ARP
for the gateway at once, and brings what the script sends.  Time is virtual and exact: it moves
only by `advance`, which runs each timer of the host at its own instant.  A host of IPv6 has had
its address tested (RFC 4862 §5.4) before the script begins.  Imports the packets and `net`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple

from appliance.fuzz.script import packets
from appliance.fuzz.script.faults import MismatchError
from appliance.net.stack import Host
from appliance.net.vif.offload import finish_checksum
from appliance.net.wire import arp, ethernet, virtio
from appliance.net.wire.address import from_text

START: Final = 1000.0  # seconds: the host's clock when a script begins; not nought
MICRO: Final = 1_000_000
DETECTION: Final = 5 * MICRO  # microseconds: an address of IPv6 is tested in two (RFC 4862 §5.4)
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
        # Timers that are not the host's: microseconds of the script, and what is called then.
        self.alarms: dict[int, tuple[int, Callable[[], None]]] = {}
        self._gateway = from_text(gateway)
        self._ours = from_text(cidr.partition("/")[0])
        self._start = START
        if len(self._ours) == 16:
            self.advance(DETECTION)
            self._start, self.now = START + DETECTION / MICRO, 0
        # The gateway asks first, so that the host knows it from the start.
        self._meet(asks=True)

    def clock(self) -> float:
        """The host's monotonic seconds."""
        return self._start + self.now / MICRO

    # -- time

    def deadline(self) -> int:
        """When the host's next timer is due, in microseconds of the script; -1: none is armed."""
        due = self.host.deadline()
        if due == inf:
            return -1
        if due == -inf:  # as soon as may be: a link that has just come up
            return self.now
        return max(self.now, round((due - self._start) * MICRO))

    def advance(self, until: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass to `until`, or to the first instant after which `stop()` holds."""
        spins = 0
        while not stop():
            due = self.deadline()
            alarm = min(self.alarms.items(), key=lambda item: item[1][0], default=None)
            if alarm is not None and alarm[1][0] <= until and not 0 <= due <= alarm[1][0]:
                del self.alarms[alarm[0]]
                self.now = max(self.now, alarm[1][0])
                alarm[1][1]()
                continue
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
        six = packet[0] >> 4 == 6
        kind = (virtio.GSO_TCPV6 if six else virtio.GSO_TCPV4) if segment else virtio.GSO_NONE
        header = virtio.pack(flags=virtio.DATA_VALID, gso_type=kind, gso_size=segment)
        ethertype = ethernet.ETHERTYPE_IPV6 if six else ethernet.ETHERTYPE_IPV4
        self._receive(header, ethertype, packet)

    def _receive(self, header: bytes, ethertype: int, body: bytes) -> None:
        frame = header + ethernet.header(OUR_MAC, THEIR_MAC, ethertype) + body
        self.host.receive([frame], self.clock())
        self._gather()

    def _meet(self, *, asks: bool) -> None:
        """The gateway asks for the host, or answers it: by ARP or Neighbour Discovery."""
        if len(self._ours) == 4:
            operation = arp.REQUEST if asks else arp.REPLY
            said = arp.build(operation, THEIR_MAC, self._gateway, OUR_MAC, self._ours)
            self._receive(virtio.PLAIN, ethernet.ETHERTYPE_ARP, said)
        else:
            said = packets.neighbor(self._gateway, self._ours, THEIR_MAC, asks=asks)
            self._receive(virtio.PLAIN, ethernet.ETHERTYPE_IPV6, said)

    def _gather(self) -> None:
        """Sort what the host has sent, and tell whoever waits for the host."""
        while self._tap.sent:
            frames, self._tap.sent = self._tap.sent, []
            for frame in frames:
                _, _, kind = ethernet.parse(frame, ETHERNET_AT)
                if kind == ethernet.ETHERTYPE_ARP:
                    asked = arp.parse(frame, IP_AT, len(frame))
                    if asked.operation == arp.REQUEST and asked.target == self._gateway:
                        self._meet(asks=False)
                    continue
                packet = Sent(self.now, finish_checksum(frame)[IP_AT:])
                head = packets.read(packet.packet)
                if packets.is_of_the_link(packet.packet, head):
                    if packets.solicited(packet.packet, head) == self._gateway:
                        self._meet(asks=False)
                    continue
                self.sent.append(packet)
                self.waiting.append(packet)
                if len(self.waiting) > MAX_WAITING:
                    raise MismatchError(
                        f"the host has sent {MAX_WAITING} packets that nobody expects"
                    )
        self.watch()


def _nothing() -> None:
    """Watch nothing."""
