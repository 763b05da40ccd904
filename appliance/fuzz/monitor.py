"""A third party on the wire that holds every segment against what it may be (RFC 9293, RFC 7323).

It sees what each host sends and what each host is given, keeps for each direction what a correct
TCP must know, and reports what a correct TCP would not have sent: octets beyond the window that its
peer had been seen to offer, acknowledgments of what never arrived, edges that move left, other
octets than the application wrote, segments larger than the peer takes, wrong checksums, clocks that
run backwards, anything after a reset.

Frames with damage are no news to the host that gets them, nor here. Imports `application` (for the
streams) and `net.wire`.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from appliance.fuzz.application import Report, Stream
from appliance.fuzz.sight import packet_of
from appliance.net.errors import WireError
from appliance.net.seq import HALF, MASK
from appliance.net.wire import tcp
from appliance.net.wire.tcp import ACK, FIN, RST, SYN
from appliance.net.wire.virtio import DATA_VALID, NEEDS_CSUM

Key = tuple[bytes, int, bytes, int]
"""Source address and port, destination address and port."""

LEAST_MSS: Final = 88
"""Octets; `net.tcp.MIN_MSS`, below which nobody's wish is heard (as in Linux)."""
DEFAULT_MSS: Final = 536  # octets; RFC 9293 §3.7.1, over IPv4
DEFAULT_MSS_IPV6: Final = 1220
"""Octets; RFC 9293 §3.7.1: what a peer takes that has not said."""


class Intervals:
    """Octets that arrived, by relative sequence number: disjoint, in order."""

    __slots__ = ("ends", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Add [start, end)."""
        starts, ends = self.starts, self.ends
        if ends and ends[-1] == start:
            ends[-1] = end
            return
        at = bisect_right(starts, start)
        if at and ends[at - 1] >= start:
            at -= 1
            start = starts[at]
        last = at
        while last < len(starts) and starts[last] <= end:
            end = max(end, ends[last])
            last += 1
        starts[at:last] = [start]
        ends[at:last] = [end]

    def covers(self, start: int, end: int) -> bool:
        """Tell whether all of [start, end) arrived."""
        at = bisect_right(self.starts, start) - 1
        return at >= 0 and self.ends[at] >= end

    def contiguous(self) -> int:
        """The end of what arrived without a hole, from 0 on."""
        return self.ends[0] if self.starts and self.starts[0] <= 0 else 0


class Side:
    """What is known of one end of a flow; numbers count from its own, or its peer's, SYN."""

    __slots__ = (
        "ack", "arrived", "edge", "fin", "highest", "iss", "mss", "muted", "offered", "pending",
        "permitted", "reset", "scale", "stamp", "stamped", "stream",
    )  # fmt: skip

    def __init__(self, iss: int, stream: Stream | None) -> None:
        self.iss = iss
        self.stream = stream
        self.pending = False  # it has heard a SYN, but not sent its own: `iss` is not known
        self.muted = False  # two incarnations of the flow are under way: nothing can be told
        self.highest = 1  # past the highest number sent
        self.fin = -1  # number of its FIN
        self.reset = False
        self.mss = DEFAULT_MSS  # of what it takes
        self.scale: int | None = None  # of the windows that it sends; None: it offered none
        self.stamped: bool | None = None  # whether its SYN had a timestamp
        self.stamp = -1  # its last timestamp
        self.ack = 0  # last acknowledgment sent, of the peer's numbers
        self.offered = 0  # right edge last offered, of the peer's numbers
        self.edge = 0  # furthest right edge that it was given, of its own numbers
        self.permitted = False  # it was given any edge
        self.arrived = Intervals()  # the peer's numbers that it was given


class Monitor:
    """Watches the flows between hosts; `report` hears of what must not be."""

    def __init__(self, report: Report) -> None:
        self.segments = 0
        self._report = report
        self._sides: dict[Key, Side] = {}
        self._streams: dict[Key, Stream] = {}
        self._old: dict[Key, int] = {}  # ISS of a side whose peer has begun anew with its ports

    def expect(self, key: Key, stream: Stream) -> None:
        """Say what the octets of the flow `key` are to be."""
        self._streams[key] = stream
        if key in self._sides:
            self._sides[key].stream = stream

    def forget(self, key: Key) -> None:
        """Forget the flow `key`: its ports may be used again."""
        self._sides.pop(key, None)
        self._streams.pop(key, None)
        self._old.pop(key, None)

    def mute(self, key: Key) -> None:
        """Look no more at the flow `key`, of which two incarnations are under way."""
        for side in (self._sides.get(key), self._sides.get((key[2], key[3], key[0], key[1]))):
            if side is not None:
                side.muted = True

    def watch(self, now: float, sent: bool, frame: bytes) -> None:
        """Look at a frame that a host sent, or else was given; a `Watcher`."""
        try:
            packet = packet_of(frame)
            if packet is None or packet.protocol != tcp.PROTOCOL:
                return
            header = tcp.parse(frame, packet.payload_at, packet.payload_end)
        except WireError as error:
            if sent:
                self._report("malformed", f"{now:.6f}: a host sent what is no packet: {error}")
            return
        if not frame[0] & (NEEDS_CSUM | DATA_VALID) and not tcp.verify(
            frame, packet.payload_at, packet.payload_end, packet.src, packet.dst
        ):
            if sent:
                self._report("malformed", f"{now:.6f}: a host sent a segment with a wrong sum")
            return
        key = (packet.src, header.src_port, packet.dst, header.dst_port)
        self.segments += 1
        if sent:
            size = int.from_bytes(frame[4:6], "little") if frame[1] else 0
            self._sent(now, key, frame, header, size)
        else:
            self._given(key, header)

    # ------------------------------------------------------------------ what hosts send

    def _sent(self, now: float, key: Key, frame: bytes, header: tcp.TcpHeader, cut: int) -> None:
        """Hold a segment against what its sender may send; `cut` is the size of its parts."""
        flags = header.flags
        side = self._sides.get(key)
        peer = self._sides.get((key[2], key[3], key[0], key[1]))
        options = tcp.parse_options(frame, header.options_at, header.payload_at)
        if flags & SYN:
            side = self._syn_sent(key, side, peer, header, options)
        if side is None or side.pending or (flags & RST and not side.permitted):
            return  # an answer for what does not exist has no state of its own
        if flags & RST:
            # Without an ACK it answers a segment that belongs to nothing (RFC 9293 §3.5.2).
            side.reset |= bool(flags & ACK)
            return
        if side.muted:
            return
        here = f"{now:.6f} {key[1]}>{key[3]}"
        start = (header.seq - side.iss) & MASK
        length = header.payload_end - header.payload_at
        if side.reset:
            self._report("after-reset", f"{here}: a segment after a reset")
        if start >= HALF:
            # A keep-alive probe asks with a number before the first.
            start -= 1 << 32
            if start != -1 and start != 0:
                self._report("sequence", f"{here}: number {start} before the SYN")
        first = start + bool(flags & SYN)  # a SYN may carry octets (RFC 7413)
        end = first + length
        if length:
            self._data(here, side, peer, frame, header, first, cut or length)
        if flags & FIN:
            if side.fin not in (-1, end):
                self._report("fin", f"{here}: FIN at {end}, before at {side.fin}")
            side.fin = end
            end += 1
        if side.fin >= 0 and end > side.fin + 1:
            self._report("fin", f"{here}: octets up to {end} beyond the FIN at {side.fin}")
        side.highest = max(side.highest, end)
        self._stamps(here, side, peer, flags, options)
        if flags & ACK and peer is not None:
            self._acknowledges(here, side, peer, header, options)

    def _syn_sent(
        self,
        key: Key,
        side: Side | None,
        peer: Side | None,
        header: tcp.TcpHeader,
        options: tcp.TcpOptions,
    ) -> Side | None:
        if self._old.get(key) == header.seq:
            return None  # a half-open connection that has not heard yet that its peer gave it up
        if side is not None and not side.pending and side.iss == header.seq:
            if peer is not None and header.flags & ACK and (side.fin >= 0 or side.ack > 1):
                # The connection is over, and an old SYN of its was answered by a cookie: of the
                # same numbers at the same minute (RFC 4987 §3.6), so with the same ISS.
                side.muted = peer.muted = True
            return side
        fresh = self._sides[key] = Side(header.seq, self._streams.get(key))
        fallback = DEFAULT_MSS if len(key[0]) == 4 else DEFAULT_MSS_IPV6
        fresh.mss = options.mss if options.mss is not None else fallback
        fresh.scale = options.window_scale
        fresh.stamped = options.timestamp is not None
        if side is not None and side.pending:
            fresh.arrived = side.arrived
            fresh.edge, fresh.permitted = side.edge, side.permitted
        elif side is not None and not header.flags & ACK:
            # A new incarnation; what the other end says of the old one is no concern.
            back = (key[2], key[3], key[0], key[1])
            old = self._sides.pop(back, None)
            if old is not None and not old.pending:
                self._old[back] = old.iss
        elif side is not None and peer is not None:
            # An old SYN came again, and was answered as if it were new.
            fresh.muted = peer.muted = True
        return fresh

    def _data(
        self,
        here: str,
        side: Side,
        peer: Side | None,
        frame: bytes,
        header: tcp.TcpHeader,
        start: int,
        size: int,
    ) -> None:
        length = header.payload_end - header.payload_at
        end = start + length
        if side.stream is not None and not side.stream.matches(
            start - 1, frame[header.payload_at : header.payload_end]
        ):
            self._report("content", f"{here}: other octets at {start - 1} than were written")
        # RFC 9293 §3.8.6: SND.UNA + SND.WND bounds what may be sent.
        if side.permitted and end > side.edge + (length == 1):
            self._report("window", f"{here}: sent up to {end}, offered was {side.edge}")
        # RFC 9293 §3.7.1, RFC 6691 §2: the peer's MSS counts the data, and options come out of it.
        options = header.payload_at - header.options_at
        if peer is not None and size + options > max(peer.mss, LEAST_MSS):
            self._report("mss", f"{here}: {size} octets and {options} of options for an MSS of "
                         f"{peer.mss}")  # fmt: skip

    def _stamps(
        self, here: str, side: Side, peer: Side | None, flags: int, options: tcp.TcpOptions
    ) -> None:
        """RFC 7323 §3.2, §4.1: once agreed on, on every segment; a clock that does not run back."""
        both = bool(side.stamped and peer is not None and peer.stamped)
        if options.timestamp is None:
            if both and not flags & SYN:
                self._report("timestamp", f"{here}: a segment without a timestamp")
            return
        value = options.timestamp[0]
        if side.stamp >= 0 and (value - side.stamp) & MASK >= HALF:
            self._report("timestamp", f"{here}: the timestamp went from {side.stamp} to {value}")
        side.stamp = value

    def _acknowledges(
        self, here: str, side: Side, peer: Side, header: tcp.TcpHeader, options: tcp.TcpOptions
    ) -> None:
        ack = (header.ack - peer.iss) & MASK
        arrived = side.arrived.contiguous()
        if ack > arrived:
            self._report("acknowledgment", f"{here}: ACK {ack}, but {arrived} had arrived")
            return
        if ack < side.ack:
            self._report("acknowledgment", f"{here}: ACK {ack} after {side.ack}")
        side.ack = max(ack, side.ack)
        scale = side.scale if side.scale is not None and peer.scale is not None else 0
        edge = ack + (header.window if header.flags & SYN else header.window << scale)
        # RFC 9293 §3.8.6 (SHLD-14): the right edge does not move left.
        # What TIME-WAIT remembers of it is rounded to the scale (RFC 7323 §2.4).
        if edge + (1 << scale) <= side.offered:
            self._report("edge", f"{here}: the right edge went from {side.offered} to {edge}")
        side.offered = max(side.offered, edge)
        for left, right in options.sack:
            first, last = (left - peer.iss) & MASK, (right - peer.iss) & MASK
            if first >= last or not side.arrived.covers(first, last):
                self._report("sack", f"{here}: SACK {first}-{last}, which did not arrive")

    # ------------------------------------------------------------------ what hosts are given

    def _given(self, key: Key, header: tcp.TcpHeader) -> None:
        """Note what the host at the other end may know from now on."""
        sender = self._sides.get(key)
        side = self._sides.get((key[2], key[3], key[0], key[1]))
        if sender is None:
            return
        flags = header.flags
        if side is None:
            if not flags & SYN or flags & ACK:
                return
            side = Side(0, None)
            side.pending = True
            self._sides[key[2], key[3], key[0], key[1]] = side
        self._hear(sender, side, header)

    def _hear(self, sender: Side, side: Side, header: tcp.TcpHeader) -> None:
        flags = header.flags
        start = (header.seq - sender.iss) & MASK
        if start >= HALF:
            start -= 1 << 32
        end = start + header.payload_end - header.payload_at + bool(flags & FIN)
        if flags & SYN:
            end += 1
        if end > start and end > 0:
            side.arrived.add(max(start, 0), end)
        if flags & RST:
            return
        if flags & SYN:
            side.edge = max(side.edge, 1 + header.window)
            side.permitted = True
        if flags & ACK and not side.pending:
            ack = (header.ack - side.iss) & MASK
            if ack < HALF and ack <= side.highest:
                scale = sender.scale if sender.scale is not None and side.scale is not None else 0
                window = header.window if flags & SYN else header.window << scale
                side.edge = max(side.edge, ack + window)
                side.permitted = True
