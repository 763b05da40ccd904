"""What each connection did and why, as JSON lines: the trace that `appliance trace` draws.

A `Trace` sees every frame of a host (`Traced` stands between host and interface) and, at the end
of each turn, the connections that those frames belong to. It writes, one JSON object a line,

    {"t": 12.3, "c": 1, "e": "open", "local": "10.0.0.2:80", "remote": "10.0.0.1:40000"}
    {"t": 12.3, "c": 1, "e": "out", "seq": 1, "len": 1448, "flags": "PA", "ack": 80, "wnd": 65535}
    {"t": 12.4, "c": 1, "e": "in", "seq": 80, "len": 0, "flags": "A", "ack": 1, "wnd": 64128,
     "sack": [[1449, 2897]]}
    {"t": 12.4, "c": 1, "e": "state", "state": "ESTABLISHED", "snd_una": 1, "cwnd": 14480, ...}
    {"t": 12.9, "c": 1, "e": "end"}

`t` in monotonic seconds, `c` numbers the connections from 1, sequence numbers count from each
side's SYN and do not wrap, windows are in octets, scaled. `again` marks octets that were sent
before. While there is no trace, all that a turn pays is the question whether there is one.

Flows that never become a connection (floods, scans) are not written. It opens no file and reads
no clock. Imports `wire`, `seq`, `tcp` and the shape of an interface.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from appliance.net.congestion import INFINITE
from appliance.net.repair import LOSS, RECOVERY
from appliance.net.seq import unwrap
from appliance.net.tcp import Connection
from appliance.net.time_wait import TimeWait
from appliance.net.vif.base import Vif
from appliance.net.wire import ethernet
from appliance.net.wire.address import to_text
from appliance.net.wire.tcp import ACK, FIN, HEADER_LEN, PROTOCOL, SYN, parse_options
from appliance.net.wire.virtio import VNET_HDR_LEN

VERSION: Final = 1
MAX_FLOWS: Final = 4_096  # followed at once: a thousand octets each; more than anyone looks at
MAX_PENDING: Final = 16  # lines kept of a flow that is no connection yet: SYNs and their answers
FLAGS: Final = "FSRPAUEC"  # from the lowest bit up
_IP_AT: Final = VNET_HDR_LEN + ethernet.HEADER_LEN


class Segment:
    """One TCP segment as it stood in a frame: addresses and numbers as on the wire."""

    __slots__ = (
        "ack", "destination", "dst_port", "flags", "length", "options_at", "payload_at", "seq",
        "source", "src_port", "window",
    )  # fmt: skip

    source: bytes
    destination: bytes
    src_port: int
    dst_port: int
    seq: int
    ack: int
    flags: int
    window: int
    length: int
    options_at: int
    payload_at: int


def segment_of(frame: bytes, at: int = _IP_AT) -> Segment | None:
    """Return the TCP segment in a frame whose IP header begins at `at`; None when there is none.

    Only the headers need be there. Fragments and IPv6 extension headers are not followed. Never
    raises.
    """
    kind = int.from_bytes(frame[at - 2 : at])
    if kind == ethernet.ETHERTYPE_IPV4 and len(frame) >= at + 20 and frame[at + 9] == PROTOCOL:
        if int.from_bytes(frame[at + 6 : at + 8]) & 0x3FFF:
            return None
        tcp = at + (frame[at] & 15) * 4
        end = at + int.from_bytes(frame[at + 2 : at + 4])
        addresses = frame[at + 12 : at + 20]
    elif kind == ethernet.ETHERTYPE_IPV6 and len(frame) >= at + 40 and frame[at + 6] == PROTOCOL:
        tcp = at + 40
        end = tcp + int.from_bytes(frame[at + 4 : at + 6])
        addresses = frame[at + 8 : at + 40]
    else:
        return None
    if len(frame) < tcp + HEADER_LEN:
        return None
    found = Segment()
    half = len(addresses) // 2
    found.source, found.destination = addresses[:half], addresses[half:]
    found.src_port = int.from_bytes(frame[tcp : tcp + 2])
    found.dst_port = int.from_bytes(frame[tcp + 2 : tcp + 4])
    found.seq = int.from_bytes(frame[tcp + 4 : tcp + 8])
    found.ack = int.from_bytes(frame[tcp + 8 : tcp + 12])
    found.flags = frame[tcp + 13]
    found.window = int.from_bytes(frame[tcp + 14 : tcp + 16])
    found.options_at = tcp + HEADER_LEN
    found.payload_at = tcp + (frame[tcp + 12] >> 4) * 4
    found.length = end - found.payload_at
    if found.payload_at < found.options_at or found.length < 0:
        return None
    return found


class Side:
    """One direction of a flow: where its numbers begin, how it scales, how far it has come."""

    __slots__ = ("base", "highest", "scale", "top")

    def __init__(self) -> None:
        self.base = -1  # wire number of the SYN; -1: not seen
        self.top = 0  # highest number seen, relative: what later ones are unwrapped by
        self.highest = 0  # past the last octet sent
        self.scale = 0  # shift of the windows that this side sends

    def relative(self, wire: int) -> int:
        """Count a wire number from this side's SYN."""
        if self.base < 0:
            self.base = wire
        number = unwrap((wire - self.base) & 0xFFFFFFFF, self.top)
        self.top = max(self.top, number)
        return number


class Flow:
    """Both directions of a flow; turns segments into the fields of a line."""

    __slots__ = ("number", "ours", "pending", "theirs")

    def __init__(self, number: int) -> None:
        self.number = number  # 0: not a connection yet
        self.ours = Side()
        self.theirs = Side()
        self.pending: list[dict[str, object]] = []

    def fields(self, sent: bool, segment: Segment, frame: bytes) -> dict[str, object]:
        """Describe one segment that we `sent` or received."""
        here, there = (self.ours, self.theirs) if sent else (self.theirs, self.ours)
        flags = segment.flags
        options = parse_options(frame, segment.options_at, segment.payload_at)
        if flags & SYN:
            if (here.base - segment.seq) & 0xFFFFFFFF:
                here.base, here.top, here.highest = segment.seq, 0, 0
            # RFC 7323 §2.2: scaling is on when both SYNs have the option.
            here.scale = options.window_scale or 0
            if flags & ACK and options.window_scale is None:
                there.scale = 0
        seq = here.relative(segment.seq)
        end = seq + segment.length + bool(flags & SYN) + bool(flags & FIN)
        scale = 0 if flags & SYN else here.scale
        found: dict[str, object] = {
            "seq": seq,
            "len": segment.length,
            "flags": "".join(name for bit, name in enumerate(FLAGS) if flags >> bit & 1),
            "wnd": segment.window << scale,
        }
        if flags & ACK:
            found["ack"] = there.relative(segment.ack)
        if options.sack:
            found["sack"] = [[there.relative(n) for n in block] for block in options.sack]
        if end > seq and end <= here.highest:
            found["again"] = True
        here.highest = max(here.highest, end)
        return found


class Trace:
    """Follows the connections of one host; `write` is given whole lines, a turn's at once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._noted: list[tuple[bool, bytes]] = []  # frames of this turn: at most a batch, and
        # what the host answered
        self._flows: dict[bytes, Flow] = {}
        self._count = 0
        self.missed = 0
        """Flows that were not followed, since there were MAX_FLOWS."""
        write(json.dumps({"e": "trace", "version": VERSION}) + "\n")

    def note(self, sent: bool, frame: bytes) -> None:
        """A frame passed, sent or received, in this turn; at least its headers are there."""
        self._noted.append((sent, frame))

    def turn(self, now: float, flows: Mapping[bytes, object]) -> None:
        """A turn is over at `now` (seconds); `flows` is the host's table."""
        if not self._noted:
            return
        noted, self._noted = self._noted, []
        lines: list[dict[str, object]] = []
        touched: dict[bytes, Flow] = {}
        at = round(now, 6)
        for sent, frame in noted:
            segment = segment_of(frame)
            if segment is None:
                continue
            ports = segment.src_port.to_bytes(2), segment.dst_port.to_bytes(2)
            if sent:
                key = segment.destination + segment.source + ports[1] + ports[0]
            else:
                key = segment.source + segment.destination + ports[0] + ports[1]
            flow = self._flows.get(key) or self._begin(key, flows)
            if flow is None:
                continue
            line: dict[str, object] = {"t": at, "c": flow.number, "e": "out" if sent else "in"}
            line.update(flow.fields(sent, segment, frame))
            if flow.number:
                lines.append(line)
            elif len(flow.pending) < MAX_PENDING:
                flow.pending.append(line)
            touched[key] = flow
        for key, flow in touched.items():
            lines += self._look(at, key, flow, flows.get(key))
        if lines:
            self._write("".join(json.dumps(line) + "\n" for line in lines))

    def _begin(self, key: bytes, flows: Mapping[bytes, object]) -> Flow | None:
        """Follow a flow that the host knows, unless that is but its TIME-WAIT."""
        if key not in flows or isinstance(flows[key], TimeWait):
            return None
        if len(self._flows) >= MAX_FLOWS:
            for old in [old for old in self._flows if old not in flows]:
                del self._flows[old]
            if len(self._flows) >= MAX_FLOWS:
                self.missed += 1
                return None
        flow = self._flows[key] = Flow(0)
        return flow

    def _look(self, at: float, key: bytes, flow: Flow, entry: object) -> list[dict[str, object]]:
        """Return the lines that tell what has become of a flow in this turn."""
        lines: list[dict[str, object]] = []
        if isinstance(entry, Connection):
            if not flow.number:
                self._count += 1
                flow.number = self._count
                begun = flow.pending[0]["t"] if flow.pending else at
                half = (len(key) - 4) // 2
                remote = f"{to_text(key[:half])}:{int.from_bytes(key[-4:-2])}"
                local = f"{to_text(key[half:-4])}:{int.from_bytes(key[-2:])}"
                number = flow.number
                lines.append(
                    {"t": begun, "c": number, "e": "open", "local": local, "remote": remote}
                )
                lines += [{**line, "c": number} for line in flow.pending]
                flow.pending = []
            lines.append({"t": at, "c": flow.number, "e": "state", **state_of(entry)})
        elif entry is None or isinstance(entry, TimeWait):
            del self._flows[key]
            if flow.number:
                lines.append({"t": at, "c": flow.number, "e": "end"})
        return lines


def state_of(c: Connection) -> dict[str, object]:
    """Everything that decides what a connection may send; octets and seconds."""
    repair = c.repair
    rtt, flight, cc = repair.rtt, repair.flight, repair.cc
    out = c.snd_nxt - c.snd_una
    return {
        "state": c.state_name,
        "snd_una": c.snd_una - c.iss,
        "snd_nxt": c.snd_nxt - c.iss,
        "rcv_nxt": c.rcv_nxt - c.irs,
        "unsent": c.unsent,
        "cwnd": cc.cwnd,
        "ssthresh": None if cc.ssthresh >= INFINITE else cc.ssthresh,
        "in_flight": out - flight.sacked - flight.reno_sacked - flight.lost,
        "sacked": flight.sacked + flight.reno_sacked,
        "lost": flight.lost,
        "srtt": round(rtt.srtt, 6),
        "rttvar": round(rtt.rttvar, 6),
        "rto": round(rtt.rto, 6),
        "snd_wnd": c.snd_wnd,
        "rcv_wnd": max(c.rcv_adv - c.rcv_nxt, 0),
        "ca": {RECOVERY: "recovery", LOSS: "loss"}.get(repair.state, "open"),
        "congestion": cc.name,
        "mss": c.mss,
        "retransmitted": c.retransmitted,
    }


class Traced:
    """An interface whose frames a `Trace` sees; a `Vif`.  `closed` is called when it is closed."""

    def __init__(self, vif: Vif, trace: Trace, closed: Callable[[], None]) -> None:
        self._closed = closed
        self.inner = vif
        self.trace = trace
        self.name = vif.name
        self.mac = vif.mac
        self.mtu = vif.mtu
        self.gso_max = vif.gso_max
        self.checksum_offload = vif.checksum_offload
        self.udp_segments = vif.udp_segments

    @property
    def on_readable(self) -> Callable[[], None] | None:
        """As in `Vif`."""
        return self.inner.on_readable

    @on_readable.setter
    def on_readable(self, callback: Callable[[], None] | None) -> None:
        self.inner.on_readable = callback

    @property
    def on_writable(self) -> Callable[[], None] | None:
        """As in `Vif`."""
        return self.inner.on_writable

    @on_writable.setter
    def on_writable(self, callback: Callable[[], None] | None) -> None:
        self.inner.on_writable = callback

    def fileno(self) -> int:
        """The inner interface's descriptor."""
        return self.inner.fileno()

    def receive(self, limit: int) -> list[bytes]:
        """Up to `limit` frames from the inner interface, noted."""
        frames = self.inner.receive(limit)
        for frame in frames:
            self.trace.note(False, frame)
        return frames

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        """Send and, if the frame was taken, note its headers."""
        taken = self.inner.send(head, payload)
        if taken:
            self.trace.note(True, head)
        return taken

    def close(self) -> None:
        """Close the inner interface."""
        self.inner.close()
        self._closed()
