"""Several stacks that are one host: which of them a frame is for, and what the others must hear.

Workers share an interface, or several, with a queue for each. Whoever fills the queues (a tap,
AF_PACKET's fanout) puts the frames of a flow into one of them by a hash of its addresses and ports,
and that does not change while the queues stay open: so whoever gets a SYN keeps the connection, and
what is known here takes the host's short way and never comes by this module. The rest is parted:

    TCP to a port that all serve      its flow is here, or it opens one: mine; else *asked* around
    UDP to a port that all serve      mine
    everything else                   the first worker's: ARP, discovery, ICMP, DHCP, fragments,
                                      other ports, and answers to what it asked others
    what others have to know, too     *copied* by the first worker: answers of neighbours, errors

A segment that is asked around (from a fragment, or of a flow that is no more) goes from worker to
worker until one knows its flow; if nobody does it comes back, and is answered where it came in.

Sans-I/O: messages leave by a callable that may refuse, and then a frame is lost, as links lose
them. It imports the network layer and knows the host by an interface.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol

from appliance.net.ip import Local
from appliance.net.link import Link
from appliance.net.network import CHECKED, ETHERNET_AT, IP_AT, Network
from appliance.net.path import TCP, UDP
from appliance.net.routes import Route
from appliance.net.upper import Packet
from appliance.net.wire import arp, ethernet, icmp, icmpv6
from appliance.net.wire.tcp import ACK, RST, SYN

__all__ = ["CHECKED", "Addressing", "SameSecret", "Steer", "addressing", "follow"]

# The first octet of a message between workers.
HOME: Final = 0
"""The number of a link, and a frame of it that is yours."""
ASK: Final = 1
"""The link, who asks, the key's length, the key, the frame: whoever knows the flow takes it."""
BACK: Final = 2
"""The link, and the frame that you asked about: nobody knows it."""
COPY: Final = 3
"""The link, and a frame that all should hear."""

MAX_WORKERS: Final = 256
"""Queues of a tap (MAX_TAP_QUEUES, linux/if_tun.h)."""
ASKED: Final = 1000
"""Segments a second, and at once, that a worker asks about: beyond, it answers them by itself, so
that a flood of strays costs the others no more than some ten milliseconds of each second."""

_KIND_AT: Final = ETHERNET_AT + 12
_IPV4: Final = ethernet.ETHERTYPE_IPV4.to_bytes(2)
_IPV6: Final = ethernet.ETHERTYPE_IPV6.to_bytes(2)
_ARP: Final = ethernet.ETHERTYPE_ARP.to_bytes(2)
_IPV6_BODY_AT: Final = IP_AT + 40
_ICMP_ERRORS: Final = frozenset(
    (icmp.UNREACHABLE, icmp.TIME_EXCEEDED, icmp.PARAMETER_PROBLEM, icmp.REDIRECT)
)
_FLAGS_AT: Final = 13  # octets from the beginning of a TCP header
_LEAST_TCP: Final = 20  # octets of a TCP header without options


class Table(Protocol):
    """What is asked of a host's TCP."""

    flows: dict[bytes, Any]
    flooded_until: float


class SteeredHost(Protocol):
    """What is asked of a host."""

    network: Network
    tcp: Any  # a Table; a protocol's attribute would have to be of just that type
    arrives: Callable[[bytes, float, Link], None]
    strays: Callable[[bytes, Packet, float], bool] | None

    def receive(self, frames: list[bytes], now: float, link: Link | None = None) -> None:
        """Take in a batch of frames of one link (the first)."""


class Steer:
    """Puts itself into the long way of a host's frames; `index` 0 is the first worker.

    `pass_on(worker, message)` sends to another one, and is False when there is no room.
    `tcp` and `udp` are the ports that every worker serves.
    """

    def __init__(
        self,
        host: SteeredHost,
        index: int,
        count: int,
        *,
        tcp: Sequence[int],
        udp: Sequence[int],
        pass_on: Callable[[int, bytes], bool],
    ) -> None:
        self._host = host
        self._index = index
        self._count = count
        self._served = self._tcp = frozenset(tcp)
        self._udp = frozenset(port.to_bytes(2) for port in udp)
        self._pass_on = pass_on
        self._whole = host.network.arrives
        self._final = False  # what comes now is for us, whatever it is
        self._link = 0  # the number of the link of what comes now
        self._tokens = float(ASKED)
        self._tokens_at = 0.0
        self.handed_over = 0
        """Frames given to the first worker."""
        self.asked = 0
        """Segments that the others were asked about."""
        self.taken_over = 0
        """Segments that another worker asked about, and whose flow is here."""
        self.copied = 0
        """Frames that the others were told, each counted once."""
        self.lost = 0
        """Frames that another worker had no room for."""
        host.arrives = self.arrives
        host.strays = self.strays

    def leave(self, ports: Sequence[int]) -> None:
        """Leave new connections to these ports to the first worker, and serve all others."""
        self._tcp = self._served.difference(ports)

    def as_dict(self) -> dict[str, int]:
        """Every counter by name."""
        names = ("handed_over", "asked", "taken_over", "copied", "lost")
        return {f"worker_{name}": getattr(self, name) for name in names}

    # ------------------------------------------------------------------ from the queue

    def arrives(self, frame: bytes, now: float, link: Link) -> None:
        """A frame that the host does not know by its flow."""
        self._link = self._host.network.links.index(link)
        if self._final:
            self._whole(frame, now, link)
        elif self._index:
            if self._is_served(frame):
                self._whole(frame, now, link)
            else:
                self.handed_over += 1
                self._send(0, bytes((HOME, self._link)) + frame)
        else:
            self._whole(frame, now, link)
            if _concerns_all(frame):
                self.copied += 1
                for other in range(1, self._count):
                    self._send(other, bytes((COPY, self._link)) + frame)

    def strays(self, frame: bytes, packet: Packet, now: float) -> bool:
        """A whole segment that took the long way; True if it is not this worker's, and is gone."""
        at = packet.payload_at
        if self._final or packet.payload_end - at < _LEAST_TCP:
            return False
        key = packet.src + packet.dst + frame[at : at + 4]
        if key in self._host.tcp.flows:
            return False
        if int.from_bytes(frame[at + 2 : at + 4]) not in self._tcp:
            # Only the first worker connects to others, and has listeners of its own.
            if not self._index:
                return False
            self.handed_over += 1
            self._send(0, bytes((HOME, self._link)) + frame)
            return True
        if frame[at + _FLAGS_AT] & (SYN | ACK | RST) == SYN or not self._may_ask(now):
            return False
        self.asked += 1
        asked = bytes((ASK, self._link, self._index, len(key))) + key
        self._send((self._index + 1) % self._count, asked + frame)
        return True

    def _may_ask(self, now: float) -> bool:
        if self._count == 1 or now < self._host.tcp.flooded_until:
            return False
        self._tokens = min(ASKED, self._tokens + (now - self._tokens_at) * ASKED)
        self._tokens_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _is_served(self, frame: bytes) -> bool:
        """Whether a frame is a segment, or a datagram to a port that every worker serves."""
        kind = frame[_KIND_AT:IP_AT]
        if kind == _IPV4:
            if len(frame) < IP_AT + 20 or int.from_bytes(frame[IP_AT + 6 : IP_AT + 8]) & 0x3FFF:
                return False  # RFC 791: a fragment
            protocol, at = frame[IP_AT + 9], IP_AT + (frame[IP_AT] & 15) * 4
        elif kind == _IPV6 and len(frame) >= _IPV6_BODY_AT:
            protocol, at = frame[IP_AT + 6], _IPV6_BODY_AT
        else:
            return False
        return protocol == TCP or (protocol == UDP and frame[at + 2 : at + 4] in self._udp)

    # ------------------------------------------------------------------ from other workers

    def taken(self, messages: Sequence[bytes], now: float) -> None:
        """What other workers sent: a turn of the host, if it comes to that."""
        ours: dict[int, list[bytes]] = {}
        told: dict[int, list[bytes]] = {}
        for message in messages:
            kind, link = message[0], message[1]
            if kind == HOME:
                ours.setdefault(link, []).append(message[2:])
            elif kind == ASK:
                if (frame := self._asked(message)) is not None:
                    ours.setdefault(link, []).append(frame)
            else:
                told.setdefault(link, []).append(message[2:])
        self._receive(ours, now)
        if told:
            self._final = True
            try:
                self._receive(told, now)
            finally:
                self._final = False

    def _receive(self, frames: dict[int, list[bytes]], now: float) -> None:
        links = self._host.network.links
        for number, those in frames.items():
            if number < len(links):
                self._host.receive(those, now, links[number])

    def _asked(self, message: bytes) -> bytes | None:
        """The frame, if its flow is here; else the message goes on, or back."""
        home, at = message[2], 4 + message[3]
        following = (self._index + 1) % self._count
        if message[4:at] in self._host.tcp.flows:
            self.taken_over += 1
            return message[at:]
        if following == home:
            self._send(home, bytes((BACK, message[1])) + message[at:])
        else:
            self._send(following, message)
        return None

    def _send(self, worker: int, message: bytes) -> None:
        if not self._pass_on(worker, message):
            self.lost += 1


def _concerns_all(frame: bytes) -> bool:
    """Whether every worker should hear a frame: a neighbour's answer, or an ICMP error."""
    kind = frame[_KIND_AT:IP_AT]
    if kind == _ARP:
        return frame[IP_AT + 6 : IP_AT + 8] == arp.REPLY.to_bytes(2)
    if kind == _IPV4 and len(frame) > IP_AT + 20 and frame[IP_AT + 9] == icmp.PROTOCOL:
        at = IP_AT + (frame[IP_AT] & 15) * 4
        return frame[at : at + 1] != b"" and frame[at] in _ICMP_ERRORS
    if kind == _IPV6 and len(frame) > _IPV6_BODY_AT and frame[IP_AT + 6] == icmpv6.PROTOCOL:
        # RFC 4443 §2.1: errors are below 128.
        return frame[_IPV6_BODY_AT] < 128 or frame[_IPV6_BODY_AT] == icmpv6.NEIGHBOR_ADVERTISEMENT
    return False


class OnLink(NamedTuple):
    """Who a host is on one link, and its ways to others by it."""

    addresses: tuple[tuple[bytes, int, str, bool], ...]
    """Address, prefix length, origin, deprecated."""
    routes: tuple[tuple[bytes, int, bytes | None, int, str, bool], ...]
    """Network, prefix length, gateway, metric, origin, demoted."""
    mtu: int
    mtu6: int
    hop_limit: int | None
    """What routers advertise; None: no IPv6."""


Addressing = tuple[OnLink, ...]
"""Who a host is on each link: what the first worker finds and the others follow."""


def addressing(network: Network) -> Addressing:
    """Who we are now."""
    return tuple(_on(network, link) for link in network.links)


def _on(network: Network, link: Link) -> OnLink:
    return OnLink(
        tuple(
            (own.address, own.prefix_len, own.origin, own.deprecated)
            for own in network.addresses.of(link)
        ),
        tuple(
            (route.network, route.prefix_len, route.gateway, route.metric, route.origin,
             route.demoted)
            for route in network.routes if route.link is link
        ),
        link.mtu,
        link.mtu6,
        link.slaac.hop_limit if link.slaac is not None else None,
    )  # fmt: skip


def follow(network: Network, wanted: Addressing) -> None:
    """Be who the first worker is: addresses come and go as there; connections of lost ones end."""
    for link, on_it in zip(network.links, wanted, strict=False):
        _follow(network, link, on_it)


def _follow(network: Network, link: Link, wanted: OnLink) -> None:
    link.carry(wanted.mtu, wanted.mtu6)
    if link.slaac is not None and wanted.hop_limit is not None:
        link.slaac.hop_limit = wanted.hop_limit
    network.routes.remove(lambda route: route.link is link)
    for prefix, prefix_len, gateway, metric, origin, demoted in wanted.routes:
        network.routes.add(
            Route(prefix, prefix_len, link, gateway, metric, origin, demoted=demoted)
        )
    present = {own.address for own in network.addresses.of(link)}
    for address, prefix_len, origin, deprecated in wanted.addresses:
        present.discard(address)
        network.address_taken(Local(address, prefix_len, link, origin, deprecated))
    for address in present:
        network.address_lost(address)


class SameSecret(random_module.SystemRandom):
    """Random, but for what is drawn first: that is the same in all processes with one `secret`.

    What TCP draws first is the secret of its sequence numbers, cookies and timestamps (RFC 6528,
    RFC 4987): a worker that takes another's place goes on with them.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret: bytes | None = secret

    def randbytes(self, n: int) -> bytes:
        """`n` octets; of the secret, the first time."""
        if self._secret is None:
            return super().randbytes(n)
        secret, self._secret = self._secret, None
        return blake2b(b"appliance sequence numbers", key=secret, digest_size=n).digest()
