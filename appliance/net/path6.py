"""Where a flow's packets go over IPv6: `path`'s header templates, poured the other way.

Shorter work than IPv4's: there is no header checksum, and a flow's label is part of the constants
(RFC 6437). It imports `path`'s constants, `wire`, `checksum`, the keyed hash and the neighbour that
it sends to.
"""

from __future__ import annotations

from hashlib import shake_256
from struct import Struct
from typing import Final

from appliance.net.checksum import pseudo_header_sum
from appliance.net.isn import keyed_hash
from appliance.net.neighbor import Neighbor
from appliance.net.path import (
    ECT_0,
    ETHERNET_LEN,
    TCP,
    TCP_LEN,
    TIMESTAMP_WORD,
    UDP,
    UDP_LEN,
    UdpPath,
    tcp_super,
    udp_vnet,
)
from appliance.net.wire import ethernet, ipv6, virtio

IPV6_LEN: Final = 40

# virtio_net_hdr | dst MAC | src MAC, ethertype, version+class+label | payload length | next header,
# hop limit, addresses and ports | seq, ack, offset+flags, window, checksum, urgent; of a datagram,
# the word with the label and the remote port stand alone
_TCP6: Final = Struct(">10s6s12sH38sIIHHHH")
_TCP6_TIMESTAMP: Final = Struct(">10s6s12sH38sIIHHHHIII")
_UDP6: Final = Struct(">10s6s8sIH36sHHH")

# A number for each octet of the remote port, and then of ours.
_NUMBERS: Final = Struct(">1024I")

_NO_MAC: Final = bytes(6)
_VNET6: Final = virtio.pack(
    flags=virtio.NEEDS_CSUM, csum_start=ETHERNET_LEN + IPV6_LEN, csum_offset=16
)


def _front(src_mac: bytes, label: int, traffic_class: int) -> bytes:
    first = 6 << 28 | traffic_class << 20 | label
    return src_mac + ethernet.ETHERTYPE_IPV6.to_bytes(2) + first.to_bytes(4)


class Ipv6Path:
    """Header template of one TCP connection over IPv6; `label` has 20 bits."""

    __slots__ = (
        "_class",
        "_flow",
        "_front",
        "_label",
        "_pseudo",
        "_segment",
        "_src_mac",
        "_super",
        "local",
        "mtu",
        "neighbor",
        "overhead",
        "remote",
    )

    def __init__(
        self,
        neighbor: Neighbor,
        src_mac: bytes,
        local: bytes,
        remote: bytes,
        local_port: int,
        remote_port: int,
        mtu: int,
        hop_limit: int,
        label: int,
    ) -> None:
        self.neighbor = neighbor
        self.local = local
        self.remote = remote
        self.mtu = mtu
        self.overhead = IPV6_LEN
        self._flow = (
            bytes((TCP, hop_limit))
            + local
            + remote
            + local_port.to_bytes(2)
            + remote_port.to_bytes(2)
        )
        self._pseudo = pseudo_header_sum(local, remote, TCP, 0)
        self._src_mac = src_mac
        self._label = label
        self._class = 0  # as `_front` has it
        self._front = _front(src_mac, label, 0)
        self._segment = mtu - IPV6_LEN - TCP_LEN
        self._super = b""

    def set_segment(self, payload: int) -> None:
        """Segments carry `payload` octets from now on; longer ones are super-segments."""
        self._segment = payload
        self._super = b""

    def set_ect(self, on: bool) -> None:
        """Let packets to come say, or not say, that marks will be answered (RFC 3168 §5)."""
        traffic_class = ECT_0 if on else 0
        if traffic_class != self._class:
            self._class = traffic_class
            self._front = _front(self._src_mac, self._label, traffic_class)

    def head_timestamp(
        self, seq: int, ack: int, flags: int, window: int, tsval: int, tsecr: int, length: int
    ) -> bytes:
        """Headers of a segment whose only option is the timestamp."""
        tcp_length = length + 32
        tcp_sum = self._pseudo + tcp_length
        return _TCP6_TIMESTAMP.pack(
            _VNET6 if length <= self._segment else self._super or self._super_timestamp(),
            self.neighbor.mac or _NO_MAC,
            self._front,
            tcp_length,
            self._flow,
            seq,
            ack,
            0x8000 | flags,
            window,
            (tcp_sum & 0xFFFF) + (tcp_sum >> 16),
            0,
            TIMESTAMP_WORD,
            tsval,
            tsecr,
        )

    def _super_timestamp(self) -> bytes:
        """The virtio_net_hdr of those that are cut, made when the first one leaves."""
        self._super = tcp_super(virtio.GSO_TCPV6, ETHERNET_LEN + IPV6_LEN, 32, self._segment)
        return self._super

    def head(
        self, seq: int, ack: int, flags: int, window: int, options: bytes, length: int
    ) -> bytes:
        """Headers of a segment with `options` (a multiple of 4) before `length` octets."""
        header = TCP_LEN + len(options)
        tcp_sum = self._pseudo + length + header
        vnet = _VNET6
        if length > self._segment:
            vnet = tcp_super(virtio.GSO_TCPV6, ETHERNET_LEN + IPV6_LEN, header, self._segment)
        return (
            _TCP6.pack(
                vnet,
                self.neighbor.mac or _NO_MAC,
                self._front,
                length + header,
                self._flow,
                seq,
                ack,
                (header << 10) | flags,
                window,
                (tcp_sum & 0xFFFF) + (tcp_sum >> 16),
                0,
            )
            + options
        )


_UDP6_VNET: Final = udp_vnet(IPV6_LEN)


class Labels:
    """Flow labels of datagrams: one for each flow, evenly spread, hard to guess (RFC 6437 §3).

    Addresses go through a keyed hash, once for all the ports between them; then each octet of the
    ports picks a number from a secret table of its own, and these are summed without carries
    (tabulation hashing, Carter and Wegman 1979). A resolver asks from a new port each time.
    """

    __slots__ = ("_numbers", "_secret")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        octets = shake_256(b"labels" + secret).digest(4 * 1024)
        self._numbers: list[int] = list(_NUMBERS.unpack(octets))

    def base(self, addresses: bytes, port: int) -> int:
        """What all flows between `addresses` and our `port` share."""
        numbers = self._numbers
        base = keyed_hash(self._secret, b"label" + addresses)
        return base ^ numbers[512 + (port >> 8)] ^ numbers[768 + (port & 0xFF)]

    def of(self, base: int, remote_port: int) -> int:
        """The label of the flow to `remote_port`."""
        numbers = self._numbers
        return label_of(base ^ numbers[remote_port >> 8] ^ numbers[256 + (remote_port & 0xFF)])


class Ipv6UdpPath(UdpPath):
    """Header template of the datagrams from one local port to one remote port over IPv6."""

    __slots__ = ("_base", "_flow", "_front", "_labels", "_pseudo", "_word")

    def __init__(
        self,
        neighbor: Neighbor,
        src_mac: bytes,
        local: bytes,
        remote: bytes,
        local_port: int,
        remote_port: int,
        mtu: int,
        hop_limit: int,
        labels: Labels,
    ) -> None:
        super().__init__(
            neighbor, local, remote, local_port, remote_port, mtu, IPV6_LEN, _UDP6_VNET
        )
        self._labels = labels
        self._base = labels.base(remote + local, local_port)
        self._front = src_mac + ethernet.ETHERTYPE_IPV6.to_bytes(2)
        self._flow = bytes((UDP, hop_limit)) + local + remote + local_port.to_bytes(2)
        self._pseudo = pseudo_header_sum(local, remote, UDP, 0)
        self.aim(remote_port)

    def aim(self, remote_port: int) -> None:
        """Go to another port of the same address."""
        self.remote_port = remote_port
        self._word = 6 << 28 | self._labels.of(self._base, remote_port)

    def _pour(self, vnet: bytes, length: int) -> bytes:
        udp = length + UDP_LEN
        udp_sum = self._pseudo + udp
        return _UDP6.pack(
            vnet,
            self.neighbor.mac or _NO_MAC,
            self._front,
            self._word,
            udp,
            self._flow,
            self.remote_port,
            udp,
            (udp_sum & 0xFFFF) + (udp_sum >> 16),
        )


def label_of(digest: int) -> int:
    """Twenty bits of flow label that are not nought (RFC 6437 §3)."""
    return (digest & 0xFFFFF) or 1


assert ipv6.HEADER_LEN == IPV6_LEN
