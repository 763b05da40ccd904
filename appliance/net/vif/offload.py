"""Segmentation and checksums in software, for links that have no hardware or kernel to do them.

The stack always hands down TCP super-segments and unfinished checksums. `equip` gives back the
interface itself when it takes both, and otherwise wraps it: a super-segment of up to 64 KB becomes
segments of `gso_size` octets of payload, each with its own lengths, sequence number, IPv4
identification and sums, as a network card would cut it.

Only TCP over IPv4 and IPv6 is cut; the transport header is found through `csum_start`. Imports
`wire`, `checksum` and `errors`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final

from appliance.net.checksum import fold, ones_complement_sum, pseudo_header_sum
from appliance.net.errors import WireError
from appliance.net.vif.base import Vif
from appliance.net.wire import ethernet, ipv4, ipv6, tcp, udp, virtio
from appliance.net.wire.virtio import PLAIN, VNET_HDR_LEN

ETHERTYPE_AT: Final = VNET_HDR_LEN + 12
NETWORK_AT: Final = VNET_HDR_LEN + ethernet.HEADER_LEN
"""Offsets in a frame, in octets: the Ethernet type and the IP header."""

_U16: Final = Struct("!H")
_U32: Final = Struct("!I")
_GSO_TYPES: Final = frozenset((virtio.GSO_TCPV4, virtio.GSO_TCPV6))

COUNTERS: Final = ("vnet_checksum_place", "vnet_segment_layout")


def finish_checksum(frame: bytes) -> bytes:
    """The frame with its unfinished checksum computed and its header saying so.

    A super-segment stays whole: one sum over all of it. Frames that need nothing come back as they
    are. Raises only WireError, when the place of the checksum is outside the frame.
    """
    header = virtio.parse(frame)
    if not header.flags & virtio.NEEDS_CSUM:
        return frame
    start = VNET_HDR_LEN + header.csum_start
    place = start + header.csum_offset
    if start < NETWORK_AT or place + 2 > len(frame):
        raise WireError("vnet_checksum_place")
    # What stands in the field is the pseudo-header's sum, so summing over it includes it.
    total = ones_complement_sum(frame[start:])
    value = total ^ 0xFFFF
    if value == 0 and header.csum_offset == udp.CHECKSUM_OFFSET:
        value = 0xFFFF  # RFC 768: zero would say that there is no checksum
    vnet = PLAIN
    if header.gso_type != virtio.GSO_NONE:
        vnet = virtio.pack(0, header.gso_type, header.hdr_len, header.gso_size)
    return b"".join((vnet, frame[VNET_HDR_LEN:place], _U16.pack(value), frame[place + 2 :]))


def segments(frame: bytes, *, unfinished: bool) -> Iterator[tuple[bytes, memoryview]]:
    """Cut a TCP super-segment into (head, payload) frames of at most gso_size octets of payload.

    `unfinished`: leave the TCP checksums to the link below (NEEDS_CSUM), else compute them. Raises
    only WireError, before the first piece, when the layout is not TCP over IPv4 or IPv6.
    """
    vnet = virtio.parse(frame)
    l4 = VNET_HDR_LEN + vnet.csum_start
    ethertype = int.from_bytes(frame[ETHERTYPE_AT : ETHERTYPE_AT + 2])
    v4 = ethertype == ethernet.ETHERTYPE_IPV4
    if (
        vnet.gso_size == 0
        or not (v4 or ethertype == ethernet.ETHERTYPE_IPV6)
        or vnet.csum_offset != tcp.CHECKSUM_OFFSET
        or l4 < NETWORK_AT + (ipv4.HEADER_LEN if v4 else ipv6.HEADER_LEN)
        or l4 + tcp.HEADER_LEN > len(frame)
    ):
        raise WireError("vnet_segment_layout")
    payload_at = l4 + (frame[l4 + 12] >> 4) * 4
    if payload_at < l4 + tcp.HEADER_LEN or payload_at > len(frame):
        raise WireError("vnet_segment_layout")
    cut = _cut_v4 if v4 else _cut_v6
    return _cut_tcp(frame, l4, payload_at, vnet.gso_size, cut, unfinished)


def _cut_v4(head: bytearray, l4: int, length: int, index: int) -> int:
    """Make the IPv4 header that of piece `index`; the sum of its pseudo-header comes back."""
    ident = int.from_bytes(head[NETWORK_AT + 4 : NETWORK_AT + 6])
    _U16.pack_into(head, NETWORK_AT + 2, l4 - NETWORK_AT + length)
    # RFC 6864 §4: with DF set the value means nothing, without it each datagram needs its own.
    _U16.pack_into(head, NETWORK_AT + 4, (ident + index) & 0xFFFF)
    _U16.pack_into(head, NETWORK_AT + 10, 0)
    _U16.pack_into(head, NETWORK_AT + 10, ones_complement_sum(head[NETWORK_AT:l4]) ^ 0xFFFF)
    src, dst = head[NETWORK_AT + 12 : NETWORK_AT + 16], head[NETWORK_AT + 16 : NETWORK_AT + 20]
    return pseudo_header_sum(bytes(src), bytes(dst), tcp.PROTOCOL, length)


def _cut_v6(head: bytearray, l4: int, length: int, index: int) -> int:
    """Make the IPv6 header that of one piece; the sum of its pseudo-header comes back."""
    at = NETWORK_AT + ipv6.PAYLOAD_LEN_AT
    _U16.pack_into(head, at, l4 - NETWORK_AT - ipv6.HEADER_LEN + length)
    src = head[NETWORK_AT + ipv6.SRC_AT : NETWORK_AT + ipv6.DST_AT]
    dst = head[NETWORK_AT + ipv6.DST_AT : NETWORK_AT + ipv6.HEADER_LEN]
    return pseudo_header_sum(bytes(src), bytes(dst), tcp.PROTOCOL, length)


def _cut_tcp(
    frame: bytes,
    l4: int,
    payload_at: int,
    size: int,
    cut: Callable[[bytearray, int, int, int], int],
    unfinished: bool,
) -> Iterator[tuple[bytes, memoryview]]:
    view = memoryview(frame)
    seq = int.from_bytes(frame[l4 + 4 : l4 + 8])
    flags = frame[l4 + tcp.FLAGS_OFFSET]
    vnet = PLAIN
    if unfinished:
        vnet = virtio.pack(
            virtio.NEEDS_CSUM, csum_start=l4 - VNET_HDR_LEN, csum_offset=tcp.CHECKSUM_OFFSET
        )
    # A super-segment without payload is one segment.
    starts = range(payload_at, max(len(frame), payload_at + 1), size)
    for index, start in enumerate(starts):
        payload = view[start : start + size]
        head = bytearray(frame[:payload_at])
        head[:VNET_HDR_LEN] = vnet
        _U32.pack_into(head, l4 + 4, (seq + index * size) & 0xFFFFFFFF)
        piece_flags = flags
        # RFC 3168 §6.1.2: CWR is set on one new segment; FIN and PSH belong to the last octet.
        if index:
            piece_flags &= ~tcp.CWR
        if start + size < len(frame):
            piece_flags &= ~(tcp.FIN | tcp.PSH)
        head[l4 + tcp.FLAGS_OFFSET] = piece_flags
        total = cut(head, l4, payload_at - l4 + len(payload), index)
        if not unfinished:
            _U16.pack_into(head, l4 + tcp.CHECKSUM_OFFSET, 0)
            # The header's length is a multiple of four: the payload's words begin evenly.
            total = fold(total + ones_complement_sum(head[l4:]) + ones_complement_sum(payload))
            total ^= 0xFFFF
        _U16.pack_into(head, l4 + tcp.CHECKSUM_OFFSET, total)
        yield bytes(head), payload


class SoftwareOffload:
    """An interface that takes super-segments and unfinished checksums, over one that does not."""

    def __init__(self, inner: Vif) -> None:
        self.inner = inner
        self.name = inner.name
        self.mac = inner.mac
        self.mtu = inner.mtu
        self.gso_max = ipv4.MAX_TOTAL_LEN
        self.checksum_offload = True
        self.udp_segments = 0
        self.on_writable: Callable[[], None] | None = None
        self.refused = 0
        """Frames dropped because their layout could not be cut or summed."""
        self._left: deque[tuple[bytes, memoryview]] = deque()
        """Pieces of the one super-segment that the link took in part: never more than that."""
        inner.on_writable = self._inner_writable

    @property
    def on_readable(self) -> Callable[[], None] | None:
        """As in `Vif`; receiving passes through unchanged."""
        return self.inner.on_readable

    @on_readable.setter
    def on_readable(self, callback: Callable[[], None] | None) -> None:
        self.inner.on_readable = callback

    def fileno(self) -> int:
        """The inner interface's descriptor."""
        return self.inner.fileno()

    def receive(self, limit: int) -> list[bytes]:
        """Up to `limit` frames from the inner interface."""
        if self._left:
            self._drain()
        return self.inner.receive(limit)

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        """Cut, sum and send head + payload; False when full. Pieces are taken all or none.

        When the link takes only some pieces, the rest waits here and goes first: at the next
        `send` or `receive`, or when the link tells that it is writable.
        """
        if self._left and not self._drain():
            return False
        if head[1] == virtio.GSO_NONE:
            if not head[0] & virtio.NEEDS_CSUM or self.inner.checksum_offload:
                return self.inner.send(head, payload)
            try:
                return self.inner.send(finish_checksum(head + payload))
            except WireError:
                self.refused += 1
                return True
        if head[1] & ~virtio.GSO_ECN not in _GSO_TYPES:
            self.refused += 1
            return True
        try:
            pieces = segments(head + payload, unfinished=self.inner.checksum_offload)
        except WireError:
            self.refused += 1
            return True
        for index, piece in enumerate(pieces):
            if not self.inner.send(*piece):
                if index == 0:
                    return False
                self._left.append(piece)
                self._left.extend(pieces)
                break
        return True

    def close(self) -> None:
        """Close the inner interface; pieces that wait are lost."""
        self._left.clear()
        self.inner.close()

    def _drain(self) -> bool:
        """Send the pieces that wait; True when none is left."""
        left = self._left
        while left:
            if not self.inner.send(*left[0]):
                return False
            left.popleft()
        return True

    def _inner_writable(self) -> None:
        if self._drain() and self.on_writable is not None:
            self.on_writable()


def equip(vif: Vif) -> Vif:
    """The interface itself if it cuts super-segments and finishes checksums, else a wrapper."""
    if vif.gso_max and vif.checksum_offload:
        return vif
    return SoftwareOffload(vif)
