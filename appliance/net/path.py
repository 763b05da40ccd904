"""Where a flow's packets go: its addresses and ports, poured into a header template.

Every packet of a flow shares nearly all of its headers, so their bytes and their contribution to
the checksums are computed once.  A packet then costs one `Struct.pack`: the few fields that
change between constants that do not.  The flow does not know which Internet Protocol it runs on;
`Ipv4Path` is one way to pour, `path6.Ipv6Path` the other.

The checksum field of TCP and UDP holds only the folded pseudo-header sum: the VIF, or the edge
in front of it, adds the payload (`vif.offload`).

It imports `wire`, `checksum` and the neighbour that it sends to.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, Protocol

from appliance.net.checksum import fold
from appliance.net.neighbor import Neighbor
from appliance.net.wire import ethernet, virtio

TCP: Final = 6
UDP: Final = 17
ECT_0: Final = 2  # ECN-capable transport; RFC 3168 §5, figure 1
DEFAULT_TTL: Final = 64  # hops; RFC 1700, as Linux
TIMESTAMP_WORD: Final = 0x0101080A  # NOP, NOP, kind 8, length 10 (RFC 7323 appendix A)

ETHERNET_LEN: Final = 14
IPV4_LEN: Final = 20
TCP_LEN: Final = 20
UDP_LEN: Final = 8

# virtio_net_hdr | dst MAC | src MAC, ethertype, version+IHL, TOS | total length | id, DF, TTL,
# protocol | checksum | addresses and ports | seq, ack, offset+flags, window, checksum, urgent
_TCP4: Final = Struct(">10s6s10sH6sH12sIIHHHH")
_TCP4_TIMESTAMP: Final = Struct(">10s6s10sH6sH12sIIHHHHIII")
_UDP4: Final = Struct(">10s6s10sH6sH10sHHH")  # the remote port stands alone

_NO_MAC: Final = bytes(6)
# What is the same in every packet over IPv4: ethertype, version, header length and TOS; then
# identification, flags, TTL and protocol.
_FRONT4: Final = ethernet.ETHERTYPE_IPV4.to_bytes(2) + bytes((0x45, 0))
# RFC 6864 §4.1: an atomic datagram's identification means nothing; DF makes it atomic.
_MIDDLE4_TCP: Final = bytes((0, 0, 0x40, 0, DEFAULT_TTL, TCP))
_MIDDLE4_UDP: Final = bytes((0, 0, 0x40, 0, DEFAULT_TTL, UDP))
_IP_WORDS: Final = 0x4500 + 0x4000 + (DEFAULT_TTL << 8)  # their sum, without the protocol
_VNET4: Final = virtio.pack(
    flags=virtio.NEEDS_CSUM, csum_start=ETHERNET_LEN + IPV4_LEN, csum_offset=16
)


class TcpPath(Protocol):
    """What a TCP connection needs to know of the way its segments go."""

    neighbor: Neighbor
    local: bytes
    remote: bytes
    mtu: int
    overhead: int  # octets of IP header per packet

    def head(
        self, seq: int, ack: int, flags: int, window: int, options: bytes, length: int
    ) -> bytes:
        """Headers of a segment with `options` (a multiple of 4) before `length` octets of data."""
        ...

    def head_timestamp(
        self, seq: int, ack: int, flags: int, window: int, tsval: int, tsecr: int, length: int
    ) -> bytes:
        """Headers of a segment whose only option is the timestamp."""
        ...

    def set_segment(self, payload: int) -> None:
        """Segments carry `payload` octets from now on; longer ones are super-segments."""
        ...

    def set_ect(self, on: bool) -> None:
        """Let packets to come say, or not say, that marks will be answered (RFC 3168 §5)."""
        ...


class Ipv4Path:
    """Header template of one TCP connection over IPv4."""

    __slots__ = (
        "_flow", "_front", "_ip_sum", "_pseudo", "_segment", "_super", "_tos", "local", "mtu",
        "neighbor", "overhead", "remote",
    )  # fmt: skip

    def __init__(
        self,
        neighbor: Neighbor,
        src_mac: bytes,
        local: bytes,
        remote: bytes,
        local_port: int,
        remote_port: int,
        mtu: int,
    ) -> None:
        self.neighbor = neighbor
        self.local = local
        self.remote = remote
        self.mtu = mtu
        self.overhead = IPV4_LEN
        self._flow = local + remote + local_port.to_bytes(2) + remote_port.to_bytes(2)
        self._front = src_mac + _FRONT4
        self._tos = 0
        addresses = int.from_bytes(self._flow[:8])
        self._ip_sum = fold(addresses + _IP_WORDS + TCP)
        # Deviates from RFC 9293 §3.8.1 in nothing: the sum below lacks the payload on purpose.
        self._pseudo = fold(addresses + TCP)
        self._segment = mtu - IPV4_LEN - TCP_LEN
        self._super = b""

    def set_segment(self, payload: int) -> None:
        """Segments carry `payload` octets from now on; longer ones are super-segments."""
        self._segment = payload
        self._super = b""

    def set_ect(self, on: bool) -> None:
        """Let packets to come say, or not say, that marks will be answered (RFC 3168 §5)."""
        tos = ECT_0 if on else 0
        if tos != self._tos:
            self._tos = tos
            self._front = self._front[:-1] + bytes((tos,))

    def head_timestamp(
        self, seq: int, ack: int, flags: int, window: int, tsval: int, tsecr: int, length: int
    ) -> bytes:
        """Headers of a segment whose only option is the timestamp."""
        total = length + 52
        ip_sum = self._ip_sum + self._tos + total
        tcp_sum = self._pseudo + length + 32
        return _TCP4_TIMESTAMP.pack(
            _VNET4 if length <= self._segment else self._super or self._super_timestamp(),
            self.neighbor.mac or _NO_MAC,
            self._front,
            total,
            _MIDDLE4_TCP,
            ((ip_sum & 0xFFFF) + (ip_sum >> 16)) ^ 0xFFFF,
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
        self._super = tcp_super(virtio.GSO_TCPV4, ETHERNET_LEN + IPV4_LEN, 32, self._segment)
        return self._super

    def head(
        self, seq: int, ack: int, flags: int, window: int, options: bytes, length: int
    ) -> bytes:
        """Headers of a segment with `options` (a multiple of 4) before `length` octets."""
        header = TCP_LEN + len(options)
        total = length + IPV4_LEN + header
        ip_sum = self._ip_sum + self._tos + total
        tcp_sum = self._pseudo + length + header
        vnet = _VNET4
        if length > self._segment:
            vnet = tcp_super(virtio.GSO_TCPV4, ETHERNET_LEN + IPV4_LEN, header, self._segment)
        return (
            _TCP4.pack(
                vnet,
                self.neighbor.mac or _NO_MAC,
                self._front,
                total,
                _MIDDLE4_TCP,
                ((ip_sum & 0xFFFF) + (ip_sum >> 16)) ^ 0xFFFF,
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


def tcp_super(kind: int, start: int, header: int, size: int) -> bytes:
    """The virtio_net_hdr over segments of `size` octets, a TCP header of `header` at `start`."""
    return virtio.pack(
        flags=virtio.NEEDS_CSUM,
        gso_type=kind,
        hdr_len=start + header,
        gso_size=size,
        csum_start=start,
        csum_offset=16,
    )


def udp_vnet(header: int) -> tuple[bytes, bytes, bytes]:
    """The virtio_net_hdr over a datagram; over several, what is before and behind their size.

    `header`: octets of IP header.
    """
    start = ETHERNET_LEN + header
    several = virtio.pack(
        flags=virtio.NEEDS_CSUM,
        gso_type=virtio.GSO_UDP_L4,
        hdr_len=start + UDP_LEN,
        csum_start=start,
        csum_offset=6,
    )
    return (
        virtio.pack(flags=virtio.NEEDS_CSUM, csum_start=start, csum_offset=6),
        several[: virtio.GSO_SIZE_AT],
        several[virtio.GSO_SIZE_AT + 2 :],
    )


class UdpPath:
    """The way of the datagrams from one local port to one remote port.

    A class of its own and no protocol: a compiler reaches into it, instead of asking for names.
    """

    __slots__ = (
        "_before",
        "_behind",
        "_plain",
        "local",
        "local_port",
        "mtu",
        "neighbor",
        "overhead",
        "remote",
        "remote_port",
    )

    def __init__(
        self,
        neighbor: Neighbor,
        local: bytes,
        remote: bytes,
        local_port: int,
        remote_port: int,
        mtu: int,
        header: int,
        vnet: tuple[bytes, bytes, bytes],
    ) -> None:
        """`mtu` in octets of packet; `header`: of IP header in each; `vnet` by `udp_vnet`."""
        self.neighbor = neighbor
        self.local = local
        self.remote = remote
        self.local_port = local_port
        self.remote_port = remote_port
        self.mtu = mtu
        self.overhead = header + UDP_LEN  # octets of IP and UDP header per packet
        self._plain, self._before, self._behind = vnet

    def aim(self, remote_port: int) -> None:
        """Go to another port of the same address."""
        raise NotImplementedError

    def head(self, length: int) -> bytes:
        """Headers of a datagram of `length` octets."""
        return self._pour(self._plain, length)

    def super_head(self, length: int, size: int) -> bytes:
        """Headers of a super-datagram: `length` octets, to be cut to `size` octets each."""
        return self._pour(self._before + size.to_bytes(2, "little") + self._behind, length)

    def _pour(self, vnet: bytes, length: int) -> bytes:
        """Headers behind `vnet`, of `length` octets."""
        raise NotImplementedError


_UDP4_VNET: Final = udp_vnet(IPV4_LEN)


class Ipv4UdpPath(UdpPath):
    """Header template of the datagrams from one local port to one remote port over IPv4."""

    __slots__ = ("_flow", "_front", "_ip_sum", "_pseudo")

    def __init__(
        self,
        neighbor: Neighbor,
        src_mac: bytes,
        local: bytes,
        remote: bytes,
        local_port: int,
        remote_port: int,
        mtu: int,
    ) -> None:
        super().__init__(
            neighbor, local, remote, local_port, remote_port, mtu, IPV4_LEN, _UDP4_VNET
        )
        self._flow = local + remote + local_port.to_bytes(2)
        self._front = src_mac + _FRONT4
        addresses = int.from_bytes(self._flow[:8])
        self._ip_sum = fold(addresses + _IP_WORDS + UDP)
        self._pseudo = fold(addresses + UDP)

    def aim(self, remote_port: int) -> None:
        """Go to another port of the same address."""
        self.remote_port = remote_port

    def _pour(self, vnet: bytes, length: int) -> bytes:
        udp = length + UDP_LEN
        total = udp + IPV4_LEN
        ip_sum = self._ip_sum + total
        udp_sum = self._pseudo + udp
        return _UDP4.pack(
            vnet,
            self.neighbor.mac or _NO_MAC,
            self._front,
            total,
            _MIDDLE4_UDP,
            ((ip_sum & 0xFFFF) + (ip_sum >> 16)) ^ 0xFFFF,
            self._flow,
            self.remote_port,
            udp,
            (udp_sum & 0xFFFF) + (udp_sum >> 16),
        )


def frame(src_mac: bytes, mac: bytes, packet: bytes) -> bytes:
    """One whole frame around a finished packet, for what is sent now and then: ICMP, fragments."""
    kind = ethernet.ETHERTYPE_IPV4 if packet[0] >> 4 == 4 else ethernet.ETHERTYPE_IPV6
    return virtio.PLAIN + ethernet.header(mac, src_mac, kind) + packet
