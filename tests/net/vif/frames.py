"""Frames for the tests of interfaces, and scapy's opinion on checksums."""

from __future__ import annotations

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from appliance.net.checksum import pseudo_header_sum
from appliance.net.wire import ethernet, ipv4, tcp, virtio

V4 = (bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)))
V6 = (b"\xfd" + bytes(14) + b"\1", b"\xfd" + bytes(14) + b"\2")
MACS = ethernet.BROADCAST, b"\2\0\0\0\0\1"


def super_segment(
    ends: tuple[bytes, bytes],
    payload: bytes,
    size: int,
    *,
    seq: int = 1000,
    flags: int = tcp.ACK,
    options: bytes = b"",
    ident: int = 7,
) -> tuple[bytes, bytes]:
    """Head and payload of a frame as the stack hands it down: only the pseudo-header is summed."""
    src, dst = ends
    length = tcp.HEADER_LEN + len(options) + len(payload)
    initial = pseudo_header_sum(src, dst, tcp.PROTOCOL, length)
    segment = tcp.header(80, 4000, seq, 5, flags, 6, checksum=initial, options=options)
    if len(src) == 4:
        network = ipv4.header(src, dst, tcp.PROTOCOL, length, ident=ident)
        kind, gso = ethernet.ETHERTYPE_IPV4, virtio.GSO_TCPV4
    else:
        network = b"\x60\0\0\0" + length.to_bytes(2) + b"\x06\x40" + src + dst
        kind, gso = ethernet.ETHERTYPE_IPV6, virtio.GSO_TCPV6
    l4 = ethernet.HEADER_LEN + len(network)
    vnet = virtio.pack(
        virtio.NEEDS_CSUM,
        gso if len(payload) > size else virtio.GSO_NONE,
        l4 + tcp.HEADER_LEN + len(options),
        size,
        l4,
        tcp.CHECKSUM_OFFSET,
    )
    return vnet + ethernet.header(*MACS, kind) + network + segment, payload


def sums_hold(packet: Ether) -> bool:
    """Does scapy, computing every checksum anew, come to the same octets?"""
    again = packet.copy()
    for layer in (IP, TCP, UDP):
        if layer in again:
            del again[layer].chksum
    return bytes(again) == bytes(packet)
