"""One side of a recorded conversation, played to the stack: where does our answer differ?

A capture holds both sides of a TCP connection.  One of them is taken out and the stack put in its
place; what the other side sent arrives again at the instants of the recording, its numbers
translated to those that our side chose.  The application is read off the recording as well: a
message is written whole when its first octet was seen, a FIN is a shutdown, a reset an abort.

A recorded peer does not react to us.  Where it acknowledges what we have not sent yet, the
acknowledgment is cut down to what we have, and that is counted.  What cannot be judged this way
is loss that only our own packets would meet.

It imports the capture (`recorded`), the stage and the numbers of `script`, and `net`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Final

from appliance.fuzz.recorded import Conversation, Recorded, ReplayError
from appliance.fuzz.script import packets
from appliance.fuzz.script.events import Segment, TcpOption
from appliance.fuzz.script.flow import FLAGS, Flow, Leaving, joined
from appliance.fuzz.script.player import HERE, HERE6, THERE, THERE6, gateway_of
from appliance.fuzz.script.sockets import Stream
from appliance.fuzz.script.stage import MICRO, Stage
from appliance.fuzz.script.written import leaving_text, letters, segment_text
from appliance.net.seq import HALF, MASK, unwrap
from appliance.net.tcb import TcpSettings
from appliance.net.tcp import Connection
from appliance.net.wire import tcp as wire_tcp
from appliance.net.wire.address import from_text

TOGETHER: Final = 1_000  # microseconds: contiguous segments this close are one burst
MTU: Final = 65_535  # octets of the link we play on, the most there is: the recorded MSS decides
ENDING: Final = 2 * MICRO  # how long we go on after the last recorded packet


@dataclass(frozen=True)
class Line:
    """One line of the comparison; `mark` is `=`, `~` (another time), `!`, `-` (missing), `+`."""

    at: int
    mark: str
    recorded: str
    ours: str


@dataclass
class Outcome:
    """What came of a replay."""

    lines: list[Line] = field(default_factory=list)
    clamped: int = 0  # acknowledgments of the peer that were ahead of us
    same_stream: bool = True  # our side sent the same octets, and ended the same way
    verdict: str = ""

    def differences(self) -> int:
        """How many lines differ in more than their time."""
        return sum(line.mark in "!-+" for line in self.lines)


# ---------------------------------------------------------------------- reading one side


@dataclass
class _Given:
    """What the peer sent, and what the application on our side did, each at its time."""

    peer: list[tuple[int, Segment]]
    ours: list[Leaving]
    writes: list[tuple[int, int]]  # when, and how many octets
    ends: list[tuple[int, str]]  # when, "shutdown" or "abort"
    settings: TcpSettings
    stamps: list[tuple[int, int]]  # of our recorded side: TSval, and when it left first


def _read(conversation: Conversation, server: bool) -> _Given:
    """Sort a conversation into given, expected and done; raises ReplayError."""
    us, them = conversation.server, conversation.client
    if not server:
        us, them = them, us
    first_us = next((s for s in conversation.segments if s.source == us), None)
    first_them = next((s for s in conversation.segments if s.source == them), None)
    if first_us is None or not first_us.flags & wire_tcp.SYN:
        raise ReplayError("the side that we would play never sent a SYN")
    if first_them is None:
        raise ReplayError("the other side never sent anything")
    flow = Flow(us[0], them[0], us[1], them[1])
    flow.live_isn = _tcp(first_us).seq
    flow.remote_isn = _tcp(first_them).seq
    given = _Given([], [], [], [], _settings(first_us), [])
    sent = received = answered = acked = 0
    for segment in conversation.segments:
        tcp = _tcp(segment)
        length = tcp.payload_end - tcp.payload_at
        if segment.source == them:
            given.peer.append((segment.at, _arrived(segment, tcp, flow)))
            if tcp.flags & wire_tcp.ACK:
                acked = max(acked, unwrap(tcp.ack - flow.live_isn, acked))
            if length:
                received = max(received, unwrap(tcp.seq - flow.remote_isn, received) + length)
            continue
        leaving = flow.leaving(segment.packet, segment.at, None)
        if leaving.flags & FLAGS["S"] and leaving.flags & FLAGS["."]:
            leaving = leaving._replace(ack=(leaving.ack - flow.remote_isn) & MASK)
        given.ours.append(leaving)
        for option in leaving.options:
            if option.name == "TS":
                given.stamps.append((option.numbers[0], segment.at))
        end = unwrap(leaving.seq, max(sent, 1)) + length
        if length and end > sent:
            # One message: everything until the peer has said something new, or all had arrived
            # and the application still had nothing to say.
            fresh = end - max(sent, 1)
            if given.writes and received == answered and acked < sent and not given.ends:
                at, size = given.writes.pop()
                given.writes.append((at, size + fresh))
            else:
                given.writes.append((segment.at, fresh))
            sent, answered = end, received
        if segment.flags & wire_tcp.RST:
            given.ends.append((segment.at, "abort"))
        elif segment.flags & wire_tcp.FIN and not given.ends:
            given.ends.append((segment.at, "shutdown"))
    return given


def _tcp(segment: Recorded) -> wire_tcp.TcpHeader:
    head = packets.read(segment.packet)
    return wire_tcp.parse(segment.packet, head.payload_at, head.payload_end)


def _arrived(segment: Recorded, tcp: wire_tcp.TcpHeader, flow: Flow) -> Segment:
    """A segment of the peer in relative numbers."""
    syn = bool(tcp.flags & wire_tcp.SYN)
    seq = 0 if syn else (tcp.seq - flow.remote_isn) & MASK
    ack = (tcp.ack - flow.live_isn) & MASK if tcp.flags & wire_tcp.ACK else None
    parsed = wire_tcp.parse_options(segment.packet, tcp.options_at, tcp.payload_at)
    options: list[TcpOption] = []
    if parsed.mss is not None:
        options.append(TcpOption("mss", (parsed.mss,)))
    if parsed.sack_permitted:
        options.append(TcpOption("sackOK"))
    if parsed.window_scale is not None:
        options.append(TcpOption("wscale", (parsed.window_scale,)))
    if parsed.timestamp is not None:
        options.append(TcpOption("TS", parsed.timestamp))
    if parsed.sack:
        edges = tuple((edge - flow.live_isn) & MASK for block in parsed.sack for edge in block)
        options.append(TcpOption("sack", edges))
    length = tcp.payload_end - tcp.payload_at
    return Segment(
        True, letters(tcp.flags).replace("-", ""), seq, seq + length, length, ack, tcp.window,
        tcp.urgent, tuple(options),
    )  # fmt: skip


def _settings(syn: Recorded) -> TcpSettings:
    """The options that our recorded side offered, as settings of ours."""
    tcp = _tcp(syn)
    offered = wire_tcp.parse_options(syn.packet, tcp.options_at, tcp.payload_at)
    shift = offered.window_scale
    ecn = bool(tcp.flags & wire_tcp.ECE)
    return TcpSettings(
        timestamps=offered.timestamp is not None,
        sack=offered.sack_permitted,
        window_scaling=shift is not None,
        receive_buffer=max(65_535 << shift if shift else 65_535, tcp.window),
        receive_start=max(tcp.window, 536),
        max_segment=offered.mss or 536,
        ecn=ecn,
        ecn_request=ecn and not tcp.flags & wire_tcp.ACK,
    )


# ---------------------------------------------------------------------- playing


class _Reader(Stream):
    """An application that reads whatever comes at once."""

    def tcp_data(self, data: bytes) -> None:
        """Read."""


class Replay:
    """One conversation being played; `server` says which side is ours."""

    def __init__(self, conversation: Conversation, *, server: bool, seed: int = 1) -> None:
        self.given = _read(conversation, server)
        self.server = server
        us, them = conversation.server, conversation.client
        if not server:
            us, them = them, us
        self._us, self._them = us, them
        six = len(us[0]) == 16
        here, self._there = (HERE6, THERE6) if six else (HERE, THERE)
        self.stage = Stage(
            seed=seed, mtu=MTU, cidr=f"{here}/{64 if six else 16}", gateway=gateway_of(here)
        )
        self.flow = Flow(from_text(here), from_text(self._there), us[1], them[1])
        self.outcome = Outcome()
        self._reader = _Reader()
        self._sent_to = 0  # past the highest number of ours that has left
        self._looked = 0
        self._queued = 0  # octets written while there was no connection yet
        self._first_stamp: tuple[int, int] | None = None  # our TSval, and when it left

    def play(self) -> Outcome:
        """Play everything at its time, then compare."""
        given, stage = self.given, self.stage
        doings: list[tuple[int, int, object]] = []
        doings += [(at, 0, segment) for at, segment in given.peer]
        doings += [(at, 1, size) for at, size in given.writes]
        doings += [(at, 2, how) for at, how in given.ends]
        doings.sort(key=lambda doing: doing[:2])
        if self.server:
            stage.host.tcp_listen("", self._us[1], self._accept, settings=given.settings)
        else:
            connection = stage.host.tcp_connect(
                self._there, self._them[1], self._reader, local_port=self._us[1],
                settings=given.settings,
            )  # fmt: skip
            self._reader.connection = connection
            stage.now = given.ours[0].at
            stage.flush()
        for at, _, doing in doings:
            stage.advance(at)
            self._look()
            if isinstance(doing, Segment):
                self._inject(doing)
            else:
                self._act(doing)
            self._look()
        stage.advance(stage.now + ENDING)
        self._look()
        self._compare()
        return self.outcome

    def _accept(self, connection: Connection) -> Stream:
        self._reader.connection = connection
        if self._queued:
            connection.send(bytes(self._queued))
        return self._reader

    def _act(self, doing: object) -> None:
        """The application writes, ends or aborts."""
        connection = self._reader.connection
        if isinstance(doing, int):
            if connection is None:
                self._queued += doing
            else:
                try:
                    connection.send(bytes(doing))
                except ValueError:
                    pass  # we ended before the recorded side did; the comparison shows it
        elif connection is not None:
            if doing == "abort":
                connection.abort()
            else:
                connection.shutdown()
        self.stage.flush()

    def _inject(self, segment: Segment) -> None:
        """Bring a segment of the peer, in numbers that fit what we have sent."""
        ack = segment.ack
        if ack is not None and self.flow.live_isn >= 0 and 0 < ack - self._sent_to < HALF:
            self.outcome.clamped += 1
            ack = self._sent_to
        options = tuple(
            self._translated(option) for option in segment.options or () if option.name != "sack"
        )
        for option in segment.options or ():
            if option.name == "sack" and max(option.numbers) <= self._sent_to:
                options += (option,)
        if "S" in segment.flags:
            self.flow.remote_isn = 0
        self.stage.inject(self.flow.arriving(replace(segment, ack=ack, options=options), True))

    def _translated(self, option: TcpOption) -> TcpOption:
        """A timestamp's echo as the number that our clock showed at that instant."""
        if option.name != "TS" or self._first_stamp is None or not option.numbers[1]:
            return option
        echoed = [at for value, at in self.given.stamps if value == option.numbers[1]]
        stamp, at = self._first_stamp
        when = min(echoed[0] if echoed else self.stage.now, self.stage.now)
        ours = (stamp + (when - at) // 1000) & MASK
        self.flow.stamps[option.numbers[1]] = ours
        return option

    def _look(self) -> None:
        """Take in what we have sent since."""
        for sent in self.stage.sent[self._looked :]:
            leaving = self.flow.leaving(sent.packet, sent.at, None)
            end = leaving.seq + leaving.length + bool(leaving.flags & (FLAGS["F"] | FLAGS["S"]))
            if not leaving.flags & FLAGS["R"]:
                self._sent_to = max(self._sent_to, end)
            for option in leaving.options:
                if option.name == "TS" and self._first_stamp is None:
                    self._first_stamp = (option.numbers[0], sent.at)
        self._looked = len(self.stage.sent)

    # ------------------------------------------------------------------ comparing

    def _compare(self) -> None:
        ours = [self.flow.leaving(sent.packet, sent.at, None) for sent in self.stage.sent]
        lines = [Line(at, "<", _given_text(segment), "") for at, segment in self.given.peer]
        instants = [at for at, _ in self.given.peer]
        lines += _aligned(_bursts(self.given.ours, instants), _bursts(ours, instants))
        lines.sort(key=lambda line: line.at)
        outcome = self.outcome
        outcome.lines = lines
        recorded_end, our_end = _ending(self.given.ours), _ending(ours)
        outcome.same_stream = recorded_end == our_end
        outcome.verdict = (
            f"recorded side: {_ending_text(recorded_end)}; ours: {_ending_text(our_end)}"
        )


def _bursts(segments: list[Leaving], instants: list[int]) -> list[Leaving]:
    """Contiguous data with nothing between is one: how a link cuts it does not matter."""
    found: list[list[Leaving]] = []
    for segment in segments:
        last = found[-1][-1] if found else None
        if (
            last is not None
            and last.length
            and segment.length
            and segment.seq == last.seq + last.length
            and segment.ack == last.ack
            and segment.at - last.at <= TOGETHER
            and not last.flags & (FLAGS["S"] | FLAGS["F"] | FLAGS["R"])
            and not any(last.at < at <= segment.at for at in instants)
        ):
            found[-1].append(segment)
        else:
            found.append([segment])
    return [joined(burst) for burst in found]


def _key(segment: Leaving) -> tuple[int, int, int, int]:
    return segment.flags & ~FLAGS["P"], segment.seq, segment.length, segment.ack


def _aligned(recorded: list[Leaving], ours: list[Leaving]) -> list[Line]:
    """Both lists side by side, in the alignment with the most lines that agree."""
    lines: list[Line] = []
    matcher = SequenceMatcher(None, [_key(s) for s in recorded], [_key(s) for s in ours], False)
    for kind, a, b, c, d in matcher.get_opcodes():
        left, right = recorded[a:b], ours[c:d]
        for i in range(max(len(left), len(right))):
            one = left[i] if i < len(left) else None
            two = right[i] if i < len(right) else None
            mark = "=" if kind == "equal" else "!" if one and two else "-" if one else "+"
            if mark == "=" and one and two and abs(one.at - two.at) > 4 * TOGETHER:
                mark = "~"
            at = one.at if one else two.at if two else 0
            late = f"  ({two.at / MICRO:.6f})" if one and two and mark != "=" else ""
            texts = [_text(s) if s else "" for s in (one, two)]
            lines.append(Line(at, mark, texts[0], texts[1] + late))
    return lines


def _given_text(segment: Segment) -> str:
    options = tuple(TcpOption("TS", ()) if o.name == "TS" else o for o in segment.options or ())
    return segment_text(replace(segment, options=options))


def _text(segment: Leaving) -> str:
    """A segment for people: two clocks never show the same, so timestamps have no numbers."""
    options = tuple(TcpOption("TS", ()) if o.name == "TS" else o for o in segment.options)
    return leaving_text(segment._replace(options=options))


def _ending(segments: list[Leaving]) -> tuple[int, bool, bool]:
    """How many octets a side sent, whether it sent a FIN, and whether a reset."""
    most = max((s.seq + s.length for s in segments if not s.flags & FLAGS["S"]), default=1)
    fin = any(s.flags & FLAGS["F"] for s in segments)
    return max(most - 1, 0), fin, any(s.flags & FLAGS["R"] for s in segments)


def _ending_text(ending: tuple[int, bool, bool]) -> str:
    octets, fin, reset = ending
    return f"{octets} octets{', FIN' if fin else ''}{', reset' if reset else ''}"
