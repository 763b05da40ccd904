"""Frames that carry fragments, put together to frames that carry whole packets.

`fragments` knows pieces and holes; here is what the headers of both Internet Protocols say about
them: which datagram a piece belongs to, what the whole's header is, and which fragments are wrong
in a way that their sender is to hear of (RFC 8200 §4.5, RFC 7112 §5).

Sans-I/O. Imports `fragments`, `checksum`, `errors`, `wire`.
"""

from __future__ import annotations

from typing import Final

from appliance.net.checksum import checksum
from appliance.net.counters import Counters
from appliance.net.errors import WireError
from appliance.net.fragments import Reassembler
from appliance.net.wire import ethernet, icmpv6, ipv4, ipv6
from appliance.net.wire.virtio import PLAIN, VNET_HDR_LEN

_ETHERNET_AT: Final = VNET_HDR_LEN
_IP_AT: Final = _ETHERNET_AT + ethernet.HEADER_LEN


class Pieces:
    """The fragments of one host; frames have their virtio and Ethernet headers."""

    def __init__(self, counters: Counters) -> None:
        self.reassembler = Reassembler()
        self._counters = counters

    def ipv4(self, frame: bytes, header: ipv4.Ipv4Header, now: float) -> bytes | None:
        """Keep a fragment; the whole datagram's frame when it was the last. Raises WireError."""
        self._counters.ip_fragments_in += 1
        at, end = header.payload_at, header.payload_end
        whole = self.reassembler.add(
            (header.src, header.dst, header.ident, header.protocol),
            header.src,
            header.fragment_offset,
            bool(header.flags & ipv4.FLAG_MF),
            frame[at:end],
            frame[_IP_AT:at],
            frame[_IP_AT:end],
            now,
            marked=header.dscp_ecn & 3 == 3,
        )
        if whole is None:
            return None
        total = len(whole.head) + len(whole.payload)
        if total > ipv4.MAX_TOTAL_LEN:
            raise WireError("ip_fragment_malformed")
        self._counters.ip_reassembled += 1
        head = bytearray(whole.head)
        # RFC 3168 §5.3: one marked fragment marks the whole.
        head[1] |= 3 if whole.marked else 0
        head[2:4] = total.to_bytes(2)
        head[6:8] = head[10:12] = b"\0\0"
        head[10:12] = checksum(head).to_bytes(2)
        return PLAIN + frame[_ETHERNET_AT:_IP_AT] + head + whole.payload

    def ipv6(self, frame: bytes, packet: ipv6.Ipv6Packet, now: float) -> bytes | None:
        """Keep a fragment; the whole packet's frame when it was the last.

        Raises WireError, and its HeaderError for what the sender is to hear of.
        """
        self._counters.ip_fragments_in += 1
        header = ipv6.parse_fragment(frame, packet.fragment_at)
        at, end = packet.payload_at, packet.payload_end
        malformed = "ip_fragment_malformed"
        if header.more and (end - at) & 7:
            raise ipv6.HeaderError(malformed, ipv6.ERRONEOUS_FIELD, ipv6.PAYLOAD_LEN_AT)
        if header.offset + end - at > ipv6.MAX_PAYLOAD:
            pointer = packet.fragment_at + 2 - _IP_AT
            raise ipv6.HeaderError(malformed, ipv6.ERRONEOUS_FIELD, pointer)
        if not header.offset and not ipv6.chain_is_whole(frame, header.next_header, at, end):
            raise ipv6.HeaderError(malformed, ipv6.INCOMPLETE_CHAIN, 0)  # RFC 7112 §5
        head = bytearray(frame[_IP_AT : packet.fragment_at])
        head[packet.named_at - _IP_AT] = header.next_header
        whole = self.reassembler.add(
            (packet.src, packet.dst, header.ident),
            packet.src,
            header.offset,
            header.more,
            frame[at:end],
            bytes(head),
            frame[_IP_AT:end],
            now,
            marked=packet.traffic_class & 3 == 3,
        )
        if whole is None:
            return None
        length = len(whole.head) - ipv6.HEADER_LEN + len(whole.payload)
        if length > ipv6.MAX_PAYLOAD:
            raise WireError("ip_fragment_malformed")
        self._counters.ip_reassembled += 1
        head = bytearray(whole.head)
        head[1] |= 0x30 if whole.marked else 0
        head[4:6] = length.to_bytes(2)
        made = PLAIN + frame[_ETHERNET_AT:_IP_AT] + head + whole.payload
        if _is_discovery(made):
            raise WireError("nd_ignored")
        return made


def _is_discovery(frame: bytes) -> bool:
    """Whether it is a message of Neighbour Discovery: MUST be ignored, in pieces (RFC 6980 §5)."""
    packet = ipv6.parse_quoted(frame, _IP_AT, len(frame))
    return (
        packet.protocol == icmpv6.PROTOCOL
        and packet.payload_at < packet.payload_end
        and icmpv6.ROUTER_SOLICITATION <= frame[packet.payload_at] <= icmpv6.REDIRECT
    )
