"""Segments that a script expects: waiting for them, joining them, comparing them.

Imports the flow and the comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.fuzz.script import events as e
from appliance.fuzz.script import packets
from appliance.fuzz.script.faults import MismatchError, Row
from appliance.fuzz.script.flow import Flow, Leaving, joined
from appliance.fuzz.script.stage import MICRO, Sent, Stage
from appliance.fuzz.script.written import compare, icmp_text, segment_text
from appliance.net.seq import MASK
from appliance.net.tcp import Connection
from appliance.net.wire import tcp as wire_tcp
from appliance.net.wire import udp as wire_udp

TOLERANCE_PERCENT: Final = 12.5  # of the time since the event before; packetdrill's default
PATIENCE: Final = 2 * MICRO  # how long after its time a segment is still waited for
FOREVER: Final = 3600 * MICRO  # a segment at time * is waited for this long


@dataclass
class Expectations:
    """How strictly what leaves is judged; times in microseconds."""

    stage: Stage
    tolerance: int
    tick: int  # of a timestamp's unit; 0: their values are not compared
    strict: bool  # one packet for one expected, never several
    exact_push: bool

    def segment(
        self,
        event: e.Event,
        flow: Flow,
        connection: Callable[[], Connection | None],
        at: int,
        until: int,
        since: int,
    ) -> None:
        """The next segment of `flow` is the one expected, `since` after the event before."""
        action = event.action
        assert isinstance(action, e.Segment)
        pieces = self._pieces(flow, action, until + self._patience(event))
        self._compare(event, action, flow, joined(pieces), connection(), at, until, since)

    def other(self, event: e.Event, at: int, until: int, since: int) -> None:
        """The next packet is the ICMP message or datagram expected."""
        action = event.action
        sent = self._next(until + self._patience(event), lambda sent: True)
        if sent is None:
            name = icmp_text(action) if isinstance(action, e.Icmp) else "> udp"
            raise MismatchError(f"nothing left; {name} was expected", [when_row(at, until, -1)])
        if event.when.kind == e.ANY:
            at = until = sent.at
        when = when_row(at, until, sent.at, self.allowed(since))
        _fail_if([when, *_other_rows(action, sent)])

    def _patience(self, event: e.Event) -> int:
        return FOREVER if event.when.kind == e.ANY else PATIENCE

    def _pieces(self, flow: Flow, expected: e.Segment, until: int) -> list[Leaving]:
        """The next segment of the flow; of consecutive ones as many as were expected in one."""
        pieces: list[Leaving] = []
        length = 0
        while not pieces or (length < expected.length and not self.strict):
            sent = self._next(until, lambda sent: is_of(sent.packet, flow))
            if sent is None:
                break
            piece = flow.leaving(sent.packet, sent.at, expected if not pieces else None)
            previous = pieces[-1] if pieces else None
            apart = previous is not None and (
                piece.seq != previous.seq + previous.length
                or piece.ack != previous.ack
                or not piece.length
                or bool(piece.flags & wire_tcp.RST)
            )
            if apart:
                self.stage.waiting.appendleft(sent)
                break
            pieces.append(piece)
            length += piece.length
        if not pieces:
            raise MismatchError(
                f"nothing left until {seconds(self.stage.now)} s; "
                f"{segment_text(expected)} was expected",
                [Row("segment", segment_text(expected), "none", False)],
            )
        return pieces

    def _next(self, until: int, fits: Callable[[Sent], bool]) -> Sent | None:
        """The oldest packet not looked at that fits, waiting for it until `until`."""
        waiting = self.stage.waiting
        while True:
            while waiting:
                sent = waiting.popleft()
                if fits(sent):
                    return sent
            if self.stage.now >= until:
                return None
            self.stage.advance(until, lambda: bool(waiting))

    def _compare(
        self,
        event: e.Event,
        expected: e.Segment,
        flow: Flow,
        got: Leaving,
        connection: Connection | None,
        at: int,
        until: int,
        since: int,
    ) -> None:
        allowed = self.allowed(since)
        if event.when.kind == e.ANY:
            at = until = got.at
        empties = True
        if connection is not None and flow.live_isn >= 0:
            end = (got.seq + got.length) & MASK
            empties = end >= connection.snd_nxt + connection.unsent - connection.iss
        rows = compare(
            expected,
            got,
            tick=self.tick,
            tolerance=max(self.tolerance, int(at * TOLERANCE_PERCENT / 100)),
            empties=empties,
            exact_push=self.exact_push,
        )
        when = when_row(at, until, got.at, allowed)
        if when.same:
            when = when_row(at, until, got.until, allowed)
        _fail_if([when, *rows])

    def allowed(self, since: int) -> int:
        """How far an event may be off that comes `since` after the one before."""
        return max(self.tolerance, int(since * TOLERANCE_PERCENT / 100))


def _fail_if(rows: list[Row]) -> None:
    wrong = [row for row in rows if not row.same]
    if wrong:
        told = "; ".join(
            f"{row.what}: {row.expected or 'none'} expected, {row.got or 'none'} came"
            for row in wrong
        )
        raise MismatchError(told, rows)


def seconds(at: int) -> str:
    """Microseconds as seconds."""
    return f"{at / MICRO:.6f}"


def when_row(at: int, until: int, got: int, allowed: int = 0) -> Row:
    """Expected time and the one that came; -1: it never did."""
    wanted = seconds(at) if at == until else f"{seconds(at)}~{seconds(until)}"
    same = at - allowed <= got <= until + allowed
    return Row(
        "when", f"{wanted} ± {allowed / MICRO:g}", "never" if got < 0 else seconds(got), same
    )


def is_of(packet: bytes, flow: Flow) -> bool:
    """Whether a packet of the host is a segment of the flow."""
    head = packets.read(packet)
    if head.protocol != wire_tcp.PROTOCOL or head.dst != flow.there:
        return False
    at = head.payload_at
    ports = (int.from_bytes(packet[at : at + 2]), int.from_bytes(packet[at + 2 : at + 4]))
    return ports == (flow.our_port, flow.their_port)


def _other_rows(action: e.Action, sent: Sent) -> list[Row]:
    """Compare an ICMP message or a datagram."""
    head = packets.read(sent.packet)
    if isinstance(action, e.Datagram):
        came = head.payload_end - head.payload_at - 8 if head.protocol == wire_udp.PROTOCOL else -1
        return [Row("udp", str(action.length), str(came), came == action.length)]
    if head.protocol != packets.icmp_protocol(head.src) or not isinstance(action, e.Icmp):
        return [Row("protocol", "icmp", str(head.protocol), False)]
    kind, told = packets.icmp_kind(action, head.src), packets.icmp_told(sent.packet, head)
    wanted, got = (f"{pair[0]} {pair[1]}" for pair in (kind, told))
    return [Row("icmp", wanted, got, wanted == got)]
