"""Connections, as a trace file or a packet capture tells of them.

`read(path)` takes either: JSON lines as `net.trace` writes them, or a classic pcap file. A capture
has only segments; which end is "ours" is then the one that sent more octets. Numbers count from
each side's SYN, times in seconds from the file's first event.

Errors are `TraceError`, with file and line. Imports `net.trace`, `net.vif.pcap`, `net.wire`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from appliance.net.errors import WireError
from appliance.net.trace import VERSION, Segment, segment_of
from appliance.net.trace import Flow as Numbers
from appliance.net.vif.pcap import MAGIC_MICRO, MAGIC_NANO, read_pcap
from appliance.net.wire import ethernet
from appliance.net.wire.address import to_text

MAX_OCTETS: Final = 1 << 30
"""Of a file: what is read is kept, and a picture of more says nothing."""
_NS: Final = 1e9
_NEITHER: Final = "neither a trace of the appliance nor a pcap file"


class TraceError(Exception):
    """A file that cannot be used; the message names it, and the line."""


@dataclass(frozen=True, slots=True)
class Event:
    """One segment: `sent` by us or received."""

    at: float
    sent: bool
    seq: int
    length: int
    flags: str
    ack: int | None
    window: int
    sack: tuple[tuple[int, int], ...]
    again: bool


@dataclass(frozen=True, slots=True)
class State:
    """What a connection was, at the end of a turn; octets and seconds."""

    at: float
    name: str
    snd_una: int
    snd_nxt: int
    cwnd: int
    ssthresh: int | None
    in_flight: int
    srtt: float
    rttvar: float
    rto: float
    snd_wnd: int
    rcv_wnd: int
    ca: str
    congestion: str
    retransmitted: int


@dataclass
class Connection:
    """One connection: `number` from 1 in order of appearance."""

    number: int
    local: str
    remote: str
    events: list[Event] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    ended: float | None = None

    @property
    def begun(self) -> float:
        """When its first segment passed."""
        return self.events[0].at if self.events else 0.0

    @property
    def lasted(self) -> float:
        """Seconds from its first event to its last."""
        last = max((each[-1].at for each in (self.events, self.states) if each), default=0.0)
        return last - self.begun

    def between(self, start: float, end: float) -> Connection:
        """Return the part of it between two times, in seconds of the file."""
        part = replace(self)
        part.events = [event for event in self.events if start <= event.at <= end]
        part.states = [state for state in self.states if start <= state.at <= end]
        return part

    def octets(self, sent: bool) -> int:
        """Octets that were sent, or received, the first time."""
        return sum(e.length for e in self.events if e.sent == sent and not e.again)

    def again(self) -> int:
        """Segments with octets that we sent before."""
        return sum(1 for e in self.events if e.sent and e.again)

    def round_trips(self) -> list[tuple[float, float]]:
        """(time of the acknowledgment, seconds) of what was sent once (RFC 6298 §3, Karn)."""
        waiting: list[tuple[int, float]] = []
        found: list[tuple[float, float]] = []
        for event in self.events:
            if event.sent:
                end = event.seq + event.length + ("S" in event.flags) + ("F" in event.flags)
                if event.again:
                    waiting = [each for each in waiting if each[0] <= event.seq]
                elif end > event.seq:
                    waiting.append((end, event.at))
            elif event.ack is not None:
                done = [each for each in waiting if each[0] <= event.ack]
                if done:
                    found.append((event.at, event.at - done[-1][1]))
                    waiting = waiting[len(done) :]
        return found


def read(path: Path) -> list[Connection]:
    """Read a trace or a capture; TraceError when it is neither, or has no connection in it."""
    try:
        if path.stat().st_size > MAX_OCTETS:
            raise TraceError(f"{path}: larger than {MAX_OCTETS >> 20} MB")
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error
    if not magic:
        raise TraceError(f"{path}: the file is empty")
    if int.from_bytes(magic, "little") == 0x0A0D0D0A:
        raise TraceError(
            f"{path}: a pcapng file; make it classic: editcap -F pcap {path.name} out.pcap"
        )
    numbers = {int.from_bytes(magic, "little"), int.from_bytes(magic)}
    try:
        found = _capture(path) if numbers & {MAGIC_MICRO, MAGIC_NANO} else _lines(path)
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error
    if not found:
        raise TraceError(f"{path}: no TCP connection in it")
    return found


# ---- JSON lines


def _lines(path: Path) -> list[Connection]:
    found: dict[int, Connection] = {}
    begun: float | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                item = json.loads(line)
            except ValueError:
                if number > 1 and not line.endswith(b"\n"):
                    break  # the last line of a run that was killed
                if number == 1:
                    raise TraceError(f"{path}: {_NEITHER}") from None
                raise TraceError(f"{where}: not a line of JSON") from None
            if number == 1:
                _check_head(where, item)
                continue
            try:
                begun = float(item["t"]) if begun is None else begun
                _take(found, item, float(item["t"]) - begun)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise TraceError(f"{where}: not a line of a trace: {error!r}") from None
    return list(found.values())


def _check_head(where: str, item: Any) -> None:
    if not isinstance(item, dict) or item.get("e") != "trace":
        raise TraceError(f"{where}: {_NEITHER}")
    if item.get("version") != VERSION:
        raise TraceError(
            f"{where}: a trace of version {item.get('version')}; this program reads {VERSION}"
        )


def _take(found: dict[int, Connection], item: Mapping[str, Any], at: float) -> None:
    number, event = int(item["c"]), item["e"]
    if event == "open":
        found[number] = Connection(number, str(item["local"]), str(item["remote"]))
        return
    connection = found[number]
    if event in ("in", "out"):
        ack = item.get("ack")
        connection.events.append(
            Event(
                at=at,
                sent=event == "out",
                seq=int(item["seq"]),
                length=int(item["len"]),
                flags=str(item["flags"]),
                ack=None if ack is None else int(ack),
                window=int(item["wnd"]),
                sack=tuple((int(left), int(right)) for left, right in item.get("sack", ())),
                again=bool(item.get("again")),
            )
        )
    elif event == "state":
        ssthresh = item["ssthresh"]
        connection.states.append(
            State(
                at=at,
                name=str(item["state"]),
                ssthresh=None if ssthresh is None else int(ssthresh),
                ca=str(item["ca"]),
                congestion=str(item["congestion"]),
                snd_una=int(item["snd_una"]),
                snd_nxt=int(item["snd_nxt"]),
                cwnd=int(item["cwnd"]),
                in_flight=int(item["in_flight"]),
                srtt=float(item["srtt"]),
                rttvar=float(item["rttvar"]),
                rto=float(item["rto"]),
                snd_wnd=int(item["snd_wnd"]),
                rcv_wnd=int(item["rcv_wnd"]),
                retransmitted=int(item["retransmitted"]),
            )
        )
    elif event == "end":
        connection.ended = at
    else:
        raise ValueError(f"event {event!r}")


# ---- captures


def _capture(path: Path) -> list[Connection]:
    """Both ends' segments; first from the view of whoever spoke first, then turned if need be."""
    try:
        records = read_pcap(path)
    except WireError:
        raise TraceError(f"{path}: not a whole pcap file of Ethernet frames") from None
    begun = records[0].time_ns if records else 0
    flows: dict[frozenset[bytes], list[tuple[float, bytes, Segment]]] = {}
    for record in records:
        segment = segment_of(record.octets, ethernet.HEADER_LEN)
        if segment is not None:
            ends = frozenset(
                (
                    _end(segment.source, segment.src_port),
                    _end(segment.destination, segment.dst_port),
                )
            )
            at = (record.time_ns - begun) / _NS
            flows.setdefault(ends, []).append((at, record.octets, segment))
    return [_connection(number, flow) for number, flow in enumerate(flows.values(), 1)]


def _end(address: bytes, port: int) -> bytes:
    return address + port.to_bytes(2)


def _connection(number: int, flow: list[tuple[float, bytes, Segment]]) -> Connection:
    sums: dict[bytes, int] = {}
    for _, _, segment in flow:
        end = _end(segment.source, segment.src_port)
        sums[end] = sums.get(end, 0) + segment.length
    ours = max(sums, key=lambda end: sums[end])
    first = flow[0][2]
    source, destination = (
        f"{to_text(first.source)}:{first.src_port}",
        f"{to_text(first.destination)}:{first.dst_port}",
    )
    mine = ours == _end(first.source, first.src_port)
    local, remote = (source, destination) if mine else (destination, source)
    connection = Connection(number, local, remote)
    numbers = Numbers(number)
    for at, frame, segment in flow:
        sent = _end(segment.source, segment.src_port) == ours
        item: dict[str, Any] = numbers.fields(sent, segment, frame)
        connection.events.append(
            Event(
                at=at,
                sent=sent,
                seq=item["seq"],
                length=item["len"],
                flags=item["flags"],
                ack=item.get("ack"),
                window=item["wnd"],
                sack=tuple((left, right) for left, right in item.get("sack", ())),
                again=bool(item.get("again")),
            )
        )
    return connection
