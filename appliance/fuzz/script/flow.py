"""Between a script's numbers and those on the wire.

A script counts sequence numbers from 0 at each side's SYN and calls timestamps as it likes; hosts
choose both at random.  A `Flow` knows the difference for one connection: it makes the segments
that arrive and reads the segments that leave, as packetdrill does.  Imports the shapes,
the packets and `net`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from appliance.fuzz.script import packets
from appliance.fuzz.script.events import Icmp, Segment, TcpOption
from appliance.fuzz.script.faults import InapplicableError, MismatchError
from appliance.net.seq import MASK
from appliance.net.wire import tcp as wire_tcp

FLAGS: Final = {"F": 1, "S": 2, "R": 4, "P": 8, ".": 16, "U": 32, "E": 64, "W": 128}
FAST_OPEN: Final = 34  # RFC 7413 §4.1.1
EXPERIMENTAL: Final = 254  # RFC 4727, RFC 6994; Fast Open's magic number is 0xF989
FAST_OPEN_MAGIC: Final = b"\xf9\x89"
MD5_SIGNATURE: Final = 19  # RFC 2385 §3


class Leaving(NamedTuple):
    """A segment of the host in the script's numbers; `fields` of several pieces are joined."""

    at: int  # microseconds: the first piece
    until: int  # the last piece
    flags: int
    seq: int
    length: int
    ack: int
    window: int
    urgent: int
    options: tuple[TcpOption, ...]
    tos: int
    ttl: int
    pieces: int


@dataclass
class Flow:
    """One connection between `here` and `there`, its first numbers and timestamps."""

    here: bytes
    there: bytes
    our_port: int
    their_port: int
    script_isn: int = 0  # ours, as the script calls it
    live_isn: int = -1  # ours, as the host chose it; -1: not yet known
    remote_isn: int = 0  # theirs: the same in the script and on the wire
    reopened: int = -1  # theirs, of a SYN that would open the same pair of sockets again
    first_script_stamp: int = -1
    first_live_stamp: int = 0
    stamps: dict[int, int] = field(default_factory=dict)  # script's TS val -> the host's

    # -- what arrives

    def arriving(self, segment: Segment, scaled_echo: bool) -> bytes:
        """The IP packet of a segment that a script injects."""
        syn = "S" in segment.flags
        seq = segment.seq if syn else segment.seq + self.remote_isn
        # The "." flag without a number acknowledges number 0.
        ack = (segment.ack or 0) + self._ours(syn) if "." in segment.flags else 0
        options = b"".join(
            self._arriving_option(o, segment, self._ours(syn), scaled_echo)
            for o in segment.options or ()
        )
        flags = sum(FLAGS[letter] for letter in segment.flags if letter in FLAGS)
        if set(segment.flags) - set(FLAGS):
            raise InapplicableError("accurate ECN (RFC 9768) is not there")
        our_port, their_port = self.our_port, self.their_port
        if segment.ports is not None:
            their_port, our_port = segment.ports
        if len(options) > wire_tcp.MAX_OPTIONS:
            raise MismatchError(f"{len(options)} octets of options do not fit into a TCP header")
        octets = wire_tcp.build(
            self.there,
            self.here,
            their_port,
            our_port,
            seq & MASK,
            ack & MASK,
            flags,
            segment.window or 0,
            options=options + bytes(-len(options) % 4),
            payload=bytes(segment.length),
        )
        if segment.urgent:
            octets = octets[:18] + segment.urgent.to_bytes(2) + octets[20:]
        return packets.wrap(self.there, self.here, wire_tcp.PROTOCOL, octets, segment.ip)

    def _ours(self, syn: bool) -> int:
        """What to add to a number of our own stream in the script to have it as on the wire."""
        if self.live_isn < 0:
            return 0
        return self.live_isn - self.script_isn if syn else self.live_isn

    def _arriving_option(
        self, option: TcpOption, segment: Segment, offset: int, scaled_echo: bool
    ) -> bytes:
        numbers = option.numbers
        if option.name == "nop":
            return b"\x01"
        if option.name == "eol":
            return b"\x00"
        if option.name == "mss":
            return b"\x02\x04" + numbers[0].to_bytes(2)
        if option.name == "wscale":
            return b"\x03\x03" + numbers[0].to_bytes(1)
        if option.name == "sackOK":
            return b"\x04\x02"
        if option.name == "sack":
            edges = b"".join(((n + offset) & MASK).to_bytes(4) for n in numbers)
            return bytes((5, 2 + len(edges))) + edges
        if option.name == "TS":
            echo = numbers[1]
            if segment.ack is not None:
                echo = self._echo(echo, scaled_echo)
            return b"\x08\x0a" + numbers[0].to_bytes(4) + echo.to_bytes(4)
        if option.name == "md5":
            return bytes((MD5_SIGNATURE, 2 + len(option.blob))) + option.blob
        if option.name == "FO":
            return bytes((FAST_OPEN, 2 + len(option.blob))) + option.blob
        return bytes((EXPERIMENTAL, 4 + len(option.blob))) + FAST_OPEN_MAGIC + option.blob

    def _echo(self, echo: int, scaled: bool) -> int:
        """The timestamp of ours that the script's number stands for."""
        if echo in self.stamps:
            return self.stamps[echo]
        if scaled and self.first_script_stamp >= 0:
            return (echo - self.first_script_stamp + self.first_live_stamp) & MASK
        raise MismatchError(f"TS ecr {echo}: no segment with this TS val was expected before")

    # -- what leaves

    def leaving(self, packet: bytes, at: int, learn: Segment | None) -> Leaving:
        """Read a segment of the host; `learn` is what a script expects in its place, if known."""
        head = packets.read(packet)
        tcp = wire_tcp.parse(packet, head.payload_at, head.payload_end)
        syn = bool(tcp.flags & wire_tcp.SYN)
        if syn and self.reopened >= 0:
            self.live_isn, self.remote_isn, self.reopened = -1, self.reopened, -1
        if syn and self.live_isn < 0:
            self.live_isn = tcp.seq
            if learn is not None:
                self.script_isn = learn.seq
        seq = (tcp.seq - self._ours(syn)) & MASK
        ack = 0
        if tcp.flags & wire_tcp.ACK:
            ack = (tcp.ack - (0 if syn else self.remote_isn)) & MASK
        options = self._leaving_options(packet, tcp, 0 if syn else self.remote_isn, learn)
        return Leaving(
            at, at, tcp.flags, seq, tcp.payload_end - tcp.payload_at, ack, tcp.window, tcp.urgent,
            options, head.tos, head.ttl, 1,
        )  # fmt: skip

    def _leaving_options(
        self, packet: bytes, tcp: wire_tcp.TcpHeader, offset: int, learn: Segment | None
    ) -> tuple[TcpOption, ...]:
        found: list[TcpOption] = []
        at, end = tcp.options_at, tcp.payload_at
        while at < end:
            kind = packet[at]
            length = packet[at + 1] if kind > 1 and at + 1 < end else 1
            body = packet[at + 2 : at + length]
            at += max(length, 1)
            found.append(self._read_option(kind, body, offset, learn))
        return tuple(found)

    def _read_option(self, kind: int, body: bytes, offset: int, learn: Segment | None) -> TcpOption:
        if kind < 2:
            return TcpOption(("eol", "nop")[kind])
        if kind == wire_tcp.OPTION_MSS:
            return TcpOption("mss", (int.from_bytes(body),))
        if kind == wire_tcp.OPTION_WINDOW_SCALE:
            return TcpOption("wscale", (int.from_bytes(body),))
        if kind == wire_tcp.OPTION_SACK_PERMITTED:
            return TcpOption("sackOK")
        if kind == wire_tcp.OPTION_SACK:
            edges = (int.from_bytes(body[i : i + 4]) for i in range(0, len(body), 4))
            return TcpOption("sack", tuple((edge - offset) & MASK for edge in edges))
        if kind == wire_tcp.OPTION_TIMESTAMP:
            live, echo = int.from_bytes(body[:4]), int.from_bytes(body[4:])
            return TcpOption("TS", (self._stamp(live, learn), echo))
        if kind == FAST_OPEN:
            return TcpOption("FO", blob=body)
        if kind == EXPERIMENTAL and body.startswith(FAST_OPEN_MAGIC):
            return TcpOption("FOEXP", blob=body[len(FAST_OPEN_MAGIC) :])
        return TcpOption(f"option {kind}", blob=body)

    def _stamp(self, live: int, learn: Segment | None) -> int:
        """The host's timestamp in the script's numbers."""
        expected = _timestamp(learn)
        if expected >= 0:
            self.stamps[expected] = live
            if self.first_script_stamp < 0:
                self.first_script_stamp, self.first_live_stamp = expected, live
        if self.first_script_stamp < 0:
            return live
        return (live - self.first_live_stamp + self.first_script_stamp) & MASK


def _timestamp(segment: Segment | None) -> int:
    for option in (segment.options or ()) if segment else ():
        if option.name == "TS":
            return option.numbers[0]
    return -1


def joined(pieces: list[Leaving]) -> Leaving:
    """Consecutive segments as the one that an offloading link would have carried."""
    first, last = pieces[0], pieces[-1]
    return first._replace(
        until=last.at,
        flags=last.flags | first.flags & FLAGS["W"],
        length=sum(piece.length for piece in pieces),
        pieces=len(pieces),
    )


def icmp_arriving(flow: Flow, message: Icmp, protocol: int) -> bytes:
    """The IP packet of an ICMP message that a script injects, quoting a segment of the host."""
    kind, code = packets.icmp_kind(message, flow.here)
    if not packets.is_error(kind, flow.here):
        return packets.icmp(flow.there, flow.here, kind, code, (message.ident or 0) << 16, b"")
    name, numbers = message.echoed or ("tcp", (0, 0, 0))
    length = numbers[2] if name == "tcp" else numbers[0]
    ports = flow.our_port.to_bytes(2) + flow.their_port.to_bytes(2)
    start = numbers[0] + (flow.live_isn - flow.script_isn if flow.live_isn >= 0 else 0)
    if name == "tcp":
        quoted = ports + (start & MASK).to_bytes(4)
        length += wire_tcp.HEADER_LEN
    else:
        length += 8
        quoted = ports + length.to_bytes(2) + bytes(2)
    size = max(length, len(quoted))
    if message.echoed is None:
        size = max(size, message.mtu or 0)  # what was too large for an MTU is larger
    original = packets.wrap(flow.here, flow.there, protocol, quoted, size=size)
    return packets.icmp(flow.there, flow.here, kind, code, message.mtu or 0, original)
