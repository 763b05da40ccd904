"""What a bad link does to the octets of one frame: flips, cuts, lengthens or marks them.

Each function takes a frame as the stack has it (a virtio header, then Ethernet) and gives the
changed one, or None where the change would be one that no checksum covers: a card that checks
Ethernet's own sequence loses such a frame instead. Unfinished checksums are finished first, so that
there is something to notice the damage with. No state, no clock; randomness comes from the caller.
Imports `net.vif.offload` and `net.wire`.
"""

from __future__ import annotations

import random as random_module
from struct import Struct
from typing import Final

from appliance.net.checksum import ones_complement_sum, pseudo_header_sum
from appliance.net.errors import WireError
from appliance.net.vif.offload import ETHERTYPE_AT, NETWORK_AT, finish_checksum
from appliance.net.wire import ethernet, icmp, icmpv6, ipv4, ipv6
from appliance.net.wire.virtio import GSO_NONE, PLAIN, VNET_HDR_LEN

MAX_PAD: Final = 64
"""Octets of padding at the most; Ethernet itself pads up to 46 (IEEE 802.3 §3.2.7)."""

_U16: Final = Struct("!H")
_TOS_AT: Final = NETWORK_AT + 1
_PROTOCOL_AT: Final = NETWORK_AT + 9
_SUM_AT: Final = NETWORK_AT + 10
# Where UDP's checksum stands behind an IPv4 header without options, in octets.
_UDP_CHECKSUM_AT: Final = NETWORK_AT + ipv4.HEADER_LEN + 6
_ECT: Final = 3
_CE: Final = 3


def ethertype(frame: bytes) -> int:
    """The Ethernet type of a frame; 0 when it is too short to have one."""
    return int.from_bytes(frame[ETHERTYPE_AT : ETHERTYPE_AT + 2])


def verifiable(frame: bytes) -> bytes | None:
    """The frame with its checksum finished; None when none covers its transport's octets."""
    kind = ethertype(frame)
    if len(frame) <= NETWORK_AT or kind not in (
        ethernet.ETHERTYPE_IPV4,
        ethernet.ETHERTYPE_IPV6,
    ):
        return None
    try:
        frame = finish_checksum(frame)
    except WireError:
        return None
    if (
        kind == ethernet.ETHERTYPE_IPV4
        and frame[_PROTOCOL_AT : _PROTOCOL_AT + 1] == bytes((ipv4.PROTO_UDP,))
        and frame[_UDP_CHECKSUM_AT : _UDP_CHECKSUM_AT + 2] == b"\0\0"
    ):
        return None
    return frame


def corrupted(frame: bytes, random: random_module.Random) -> bytes | None:
    """The frame with one bit of its IP packet flipped, to be verified by whoever receives it.

    The Internet checksum always notices one: sums that differ by a power of two differ.  But behind
    a router comes a second link, whose flip may make up for that of the first: None, then.
    """
    whole = verifiable(frame)
    if whole is None:
        return None
    at = random.randrange(NETWORK_AT, len(whole))
    flipped = bytes((whole[at] ^ 1 << random.randrange(8),))
    # PLAIN: neither "unfinished" nor "verified", so that the receiver looks.
    damaged = b"".join((PLAIN, whole[VNET_HDR_LEN:at], flipped, whole[at + 1 :]))
    return None if holds(damaged) and not holds(whole) else damaged


def holds(frame: bytes) -> bool:
    """Tell whether the checksums of a frame's packet hold, as whoever receives it would see."""
    try:
        packet: ipv4.Ipv4Header | ipv6.Ipv6Packet
        if ethertype(frame) == ethernet.ETHERTYPE_IPV4:
            packet = ipv4.parse(frame, NETWORK_AT, len(frame))
        else:
            packet = ipv6.parse(frame, NETWORK_AT, len(frame))
    except WireError:
        return False
    at, end = packet.payload_at, packet.payload_end
    initial = 0
    if packet.protocol != icmp.PROTOCOL:
        initial = pseudo_header_sum(packet.src, packet.dst, packet.protocol, end - at)
    return ones_complement_sum(frame[at:end], initial) == 0xFFFF


def truncated(frame: bytes, random: random_module.Random) -> bytes | None:
    """The frame cut short somewhere inside its IP packet; its lengths still tell of the whole."""
    whole = verifiable(frame)
    if whole is None:
        return None
    return PLAIN + whole[VNET_HDR_LEN : random.randrange(NETWORK_AT, len(whole))]


def padded(frame: bytes, random: random_module.Random) -> bytes | None:
    """The frame with octets behind its packet that do not belong to it; harmless by RFC 894."""
    whole = verifiable(frame)
    if whole is None or whole[1] != GSO_NONE or _is_short(whole):
        return None
    return PLAIN + whole[VNET_HDR_LEN:] + random.randbytes(random.randint(1, MAX_PAD))


def _is_short(frame: bytes) -> bool:
    """Whether a packet lost its end on a link before: what is appended would stand in for it."""
    at = NETWORK_AT + (2 if ethertype(frame) == ethernet.ETHERTYPE_IPV4 else 4)
    length = int.from_bytes(frame[at : at + 2])
    return len(frame) - NETWORK_AT < length + (40 if at == NETWORK_AT + 4 else 0)


def marked(frame: bytes) -> bytes | None:
    """The frame with "congestion experienced" set; None unless it is ECN-capable (RFC 3168 §5)."""
    kind = ethertype(frame)
    if kind == ethernet.ETHERTYPE_IPV6 and len(frame) >= NETWORK_AT + ipv6.HEADER_LEN:
        # RFC 8200 §7: the traffic class stands across the first two octets; nothing sums it.
        if not frame[_TOS_AT] & _ECT << 4:
            return None
        return frame[:_TOS_AT] + bytes((frame[_TOS_AT] | _CE << 4,)) + frame[_TOS_AT + 1 :]
    if kind != ethernet.ETHERTYPE_IPV4 or len(frame) < NETWORK_AT + ipv4.HEADER_LEN:
        return None
    if not frame[_TOS_AT] & _ECT:
        return None
    head = bytearray(frame[: NETWORK_AT + (frame[NETWORK_AT] & 15) * 4])
    rest = frame[len(head) :]
    head[_TOS_AT] |= _CE
    head[_SUM_AT : _SUM_AT + 2] = b"\0\0"
    _U16.pack_into(head, _SUM_AT, ones_complement_sum(bytes(head[NETWORK_AT:])) ^ 0xFFFF)
    return bytes(head) + rest


def too_big(frame: bytes, mtu: int, mac: bytes) -> bytes | None:
    """What a router says of a packet longer than its next link's `mtu` octets (RFC 1191 §4).

    An ICMP "fragmentation needed", or ICMPv6 "packet too big", from the packet's destination to its
    source, in a frame that comes from `mac`; None for what is no IP packet or may be fragmented.
    """
    to = frame[VNET_HDR_LEN + 6 : VNET_HDR_LEN + 12]
    kind = ethertype(frame)
    try:
        if kind == ethernet.ETHERTYPE_IPV4:
            body = _too_big_4(frame, mtu)
        elif kind == ethernet.ETHERTYPE_IPV6:
            body = _too_big_6(frame, mtu)
        else:
            return None
    except WireError:
        return None
    return PLAIN + ethernet.header(to, mac, kind) + body if body else None


def _too_big_4(frame: bytes, mtu: int) -> bytes:
    header = ipv4.parse_quoted(frame, NETWORK_AT, len(frame))
    if not header.flags & ipv4.FLAG_DF:
        return b""
    # RFC 792: the header and the first 64 bits of what it carries, at the least.
    message = icmp.unreachable(
        icmp.UNREACHABLE_FRAGMENTATION, frame[NETWORK_AT : header.payload_at + 8], mtu
    )
    head = bytearray((0x45, 0, *(20 + len(message)).to_bytes(2), 0, 0, 0, 0, 64, icmp.PROTOCOL))
    head += b"\0\0" + header.dst + header.src
    _U16.pack_into(head, 10, ones_complement_sum(bytes(head)) ^ 0xFFFF)
    return bytes(head) + message


def _too_big_6(frame: bytes, mtu: int) -> bytes:
    """RFC 8201 §4, RFC 4443 §3.2."""
    packet = ipv6.parse_quoted(frame, NETWORK_AT, len(frame))
    message = icmpv6.error(
        packet.dst, packet.src, icmpv6.PACKET_TOO_BIG, 0, mtu, frame[NETWORK_AT:]
    )
    length = len(message).to_bytes(2)
    head = bytes((0x60, 0, 0, 0)) + length + bytes((icmpv6.PROTOCOL, 64))
    return head + packet.dst + packet.src + message
