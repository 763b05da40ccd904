"""The TCP connections of a capture: classic pcap and pcapng, Ethernet, IPv4 and IPv6.

A frame may carry one 802.1Q tag, which is stepped over. Classic captures are read by
`net.vif.pcap`, pcapng (several sections, several interfaces, and a clock for each) by scapy's
reader, which is imported when such a file comes (`pip install 'appliance[fuzz]'`). Imports `net`
and the packets of `script`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from struct import error as struct_error
from typing import Any, Final, NamedTuple

from appliance.fuzz.script import packets
from appliance.net.errors import WireError
from appliance.net.vif.pcap import LINKTYPE_ETHERNET, read_pcap
from appliance.net.wire import ethernet
from appliance.net.wire import tcp as wire_tcp
from appliance.net.wire.address import to_text

PCAPNG: Final = b"\n\r\r\n"
"""Block type of a section header (draft-ietf-opsawg-pcapng §4.1)."""
VLAN: Final = 0x8100  # EtherType of a tag (IEEE 802.1Q-2018 §9.6)
TAG: Final = 4  # octets of a tag
NS: Final = 1_000_000_000


class ReplayError(Exception):
    """The capture cannot be replayed, and why."""


class Recorded(NamedTuple):
    """One TCP segment of a capture: microseconds since its first, and the IP packet."""

    at: int
    packet: bytes
    source: tuple[bytes, int]
    destination: tuple[bytes, int]
    flags: int


@dataclass
class Conversation:
    """One connection of a capture; `client` opened it."""

    client: tuple[bytes, int]
    server: tuple[bytes, int]
    segments: list[Recorded] = field(default_factory=list)

    def __str__(self) -> str:
        ends = (_written(host, port) for host, port in (self.client, self.server))
        return f"{' > '.join(ends)}, {len(self.segments)} segments"


def _written(host: bytes, port: int) -> str:
    return f"{to_text(host)}:{port}" if len(host) == 4 else f"[{to_text(host)}]:{port}"


def conversations(path: str | PathLike[str]) -> list[Conversation]:
    """The connections of a capture whose SYN it holds, in their order.

    Raises OSError, and ReplayError when it is no capture of Ethernet.
    """
    found: list[Conversation] = []
    at_hand: dict[frozenset[tuple[bytes, int]], Conversation] = {}
    start = -1
    for time_ns, octets in _frames(Path(path)):
        start = time_ns if start < 0 else start
        segment = _segment_of(octets, (time_ns - start) // 1000)
        if segment is None:
            continue
        ends = frozenset((segment.source, segment.destination))
        syn = segment.flags & (wire_tcp.SYN | wire_tcp.ACK) == wire_tcp.SYN
        known = at_hand.get(ends)
        repeated = known is not None and known.client == segment.source and len(known.segments) < 3
        if syn and not repeated:
            known = at_hand[ends] = Conversation(segment.source, segment.destination)
            found.append(known)
        if known is not None:
            known.segments.append(segment)
    return found


def _frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """Nanoseconds since 1970 and octets of each frame."""
    with path.open("rb") as file:
        kind = file.read(len(PCAPNG))
    if kind == PCAPNG:
        yield from _frames_of_pcapng(path)
        return
    try:
        records = read_pcap(path)
    except WireError as error:
        raise ReplayError(f"not a capture of Ethernet frames ({error.counter})") from None
    for record in records:
        yield record.time_ns, record.octets


def _frames_of_pcapng(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        from scapy.error import Scapy_Exception
        from scapy.utils import RawPcapNgReader
    except ImportError:
        raise ReplayError("a pcapng file wants scapy: pip install 'appliance[fuzz]'") from None
    try:
        with path.open("rb") as file:
            reader: Any = RawPcapNgReader
            for octets, about in reader(file):
                if about.linktype != LINKTYPE_ETHERNET:
                    raise ReplayError(f"frames of link type {about.linktype}, not of Ethernet")
                if about.tsresol and about.tshigh is not None:
                    yield (about.tshigh << 32 | about.tslow) * NS // about.tsresol, bytes(octets)
    except (Scapy_Exception, struct_error, ValueError, KeyError, IndexError) as error:
        raise ReplayError(f"not a sound pcapng file ({error})") from None


def _segment_of(frame: bytes, at: int) -> Recorded | None:
    """The TCP segment in an Ethernet frame, if it is one and whole."""
    try:
        _, _, kind = ethernet.parse(frame, 0)
        packet = frame[ethernet.HEADER_LEN :]
        if kind == VLAN:
            kind = int.from_bytes(packet[2:TAG])
            packet = packet[TAG:]
        if kind not in (ethernet.ETHERTYPE_IPV4, ethernet.ETHERTYPE_IPV6):
            return None
        head = packets.read(packet)
        if head.protocol != wire_tcp.PROTOCOL or head.fragment:
            return None
        tcp = wire_tcp.parse(packet, head.payload_at, head.payload_end)
    except WireError:
        return None
    packet = packet[: head.payload_end]
    return Recorded(at, packet, (head.src, tcp.src_port), (head.dst, tcp.dst_port), tcp.flags)
