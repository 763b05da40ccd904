"""Frames for people and for Wireshark: a line each, and a capture file.

Sequence numbers in lines count from each end's SYN, as tcpdump's do. Imports `net.wire` and
`net.vif`.
"""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from appliance.fuzz.sight import Packet, packet_of
from appliance.net.errors import WireError
from appliance.net.seq import HALF
from appliance.net.vif.offload import finish_checksum
from appliance.net.vif.pcap import LINKTYPE_ETHERNET, MAGIC_NANO, SNAPLEN
from appliance.net.wire import ethernet, tcp, udp
from appliance.net.wire.virtio import VNET_HDR_LEN

_FILE: Final = Struct("<IHHiIII")
_RECORD: Final = Struct("<IIII")
_FLAGS: Final = "FSRP.UEW"
"""The eight bits of the flags, the lowest first, as tcpdump writes them."""


class Seen(NamedTuple):
    """A frame, when it was seen, and whether the host sent it."""

    time: float
    sent: bool
    frame: bytes


def write_pcap(path: Path, seen: list[Seen]) -> None:
    """Write frames as a classic pcap file with nanoseconds, without their virtio headers."""
    parts = [_FILE.pack(MAGIC_NANO, 2, 4, 0, 0, SNAPLEN, LINKTYPE_ETHERNET)]
    for time, _, frame in seen:
        try:
            octets = finish_checksum(frame)[VNET_HDR_LEN:]
        except WireError:
            octets = frame[VNET_HDR_LEN:]
        nanoseconds = round(time * 1e9)
        parts.append(
            _RECORD.pack(*divmod(nanoseconds, 10**9), min(len(octets), SNAPLEN), len(octets))
        )
        parts.append(octets[:SNAPLEN])
    path.write_bytes(b"".join(parts))


class Teller:
    """Writes a line for each frame of one run."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._first: dict[tuple[bytes, int, bytes, int], int] = {}

    def line(self, name: str, seen: Seen) -> str:
        """The line of one frame that the host called `name` sent or received."""
        mark = ">" if seen.sent else "<"
        return f"{seen.time - self._start:12.6f} {name:>8} {mark} {self._what(seen.frame)}"

    def _what(self, frame: bytes) -> str:
        try:
            kind = ethernet.parse(frame, VNET_HDR_LEN)[2]
            if kind == ethernet.ETHERTYPE_ARP:
                return "ARP"
            packet = packet_of(frame)
            if packet is None:
                return f"ethertype {kind:#06x}, {len(frame)} octets"
            ecn = " CE" if packet.tos & 3 == 3 else ""
            length = packet.payload_end - packet.payload_at
            if packet.protocol == tcp.PROTOCOL:
                return self._tcp(frame, packet) + ecn
            if packet.protocol == udp.PROTOCOL:
                header = udp.parse(frame, packet.payload_at, packet.payload_end)
                return f"UDP {header.src_port} > {header.dst_port}"
            return f"IP protocol {packet.protocol}, {length} octets{ecn}"
        except WireError as error:
            return f"damaged ({error}), {len(frame) - VNET_HDR_LEN} octets"

    def _tcp(self, frame: bytes, packet: Packet) -> str:
        header = tcp.parse(frame, packet.payload_at, packet.payload_end)
        key = (packet.src, header.src_port, packet.dst, header.dst_port)
        back = (packet.dst, header.dst_port, packet.src, header.src_port)
        flags = header.flags
        if flags & tcp.SYN:
            self._first[key] = header.seq
        seq = _relative(header.seq, self._first.get(key, 0))
        ack = _relative(header.ack, self._first.get(back, 0))
        letters = "".join(c for n, c in enumerate(_FLAGS) if flags >> n & 1)
        length = header.payload_end - header.payload_at
        options = tcp.parse_options(frame, header.options_at, header.payload_at)
        parts = [
            f"{header.src_port} > {header.dst_port} [{letters}] {seq}:{seq + length}({length})"
        ]
        if flags & tcp.ACK:
            parts.append(f"ack {ack}")
        parts.append(f"win {header.window}")
        if options.mss is not None:
            parts.append(f"mss {options.mss}")
        if options.window_scale is not None:
            parts.append(f"wscale {options.window_scale}")
        if options.timestamp is not None:
            parts.append(f"TS {options.timestamp[0]} {options.timestamp[1]}")
        first = self._first.get(back, 0)
        for left, right in options.sack:
            parts.append(f"sack {_relative(left, first)}:{_relative(right, first)}")
        sound = frame[0] or tcp.verify(
            frame, packet.payload_at, packet.payload_end, packet.src, packet.dst
        )
        if not sound:
            parts.append("WRONG SUM")
        if frame[1]:
            parts.append(f"to be cut to {int.from_bytes(frame[4:6], 'little')}")
        return " ".join(parts)


def _relative(number: int, first: int) -> int:
    distance = (number - first) & 0xFFFFFFFF
    return distance - (1 << 32) if distance >= HALF else distance
