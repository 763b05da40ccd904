"""Playing a script: its events in order, in virtual time, against the stack.

As in packetdrill, an event happens at its time: calls, commands, code and segments that arrive are
done then; a segment that is expected may have left within 4 ms of it (or an eighth of the time
since the event before).  Here time is exact, so that tolerance forgives no machine, only the
rounding of whoever wrote the script down.

A script ends as `passed`, `failed` (with expected and got side by side), or `not applicable` (with
the reason).  Imports everything in this folder, and `net`.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from appliance.fuzz.script import events as e
from appliance.fuzz.script.calls import DEFAULT_PORT, Calls
from appliance.fuzz.script.environment import Environment
from appliance.fuzz.script.faults import InapplicableError, MismatchError, Row
from appliance.fuzz.script.flow import Flow, Leaving, icmp_arriving, joined
from appliance.fuzz.script.parser import DEFINITIONS, ScriptError, parse_file
from appliance.fuzz.script.sockets import ErrnoError, Socket, Stream
from appliance.fuzz.script.stage import MICRO, Sent, Stage
from appliance.fuzz.script.symbols import errno_name, number, written
from appliance.fuzz.script.written import compare, icmp_text, leaving_text, segment_text
from appliance.net import tcp_info
from appliance.net.tcp import Connection
from appliance.net.wire import icmp as wire_icmp
from appliance.net.wire import ipv4
from appliance.net.wire import tcp as wire_tcp
from appliance.net.wire import udp as wire_udp
from appliance.net.wire.address import from_text

PASSED: Final = "passed"
FAILED: Final = "failed"
NOT_APPLICABLE: Final = "not applicable"

TOLERANCE: Final = 4_000  # microseconds; packetdrill's default
TOLERANCE_PERCENT: Final = 12.5  # of the time since the event before; packetdrill's default
PATIENCE: Final = 2 * MICRO  # how long after its time a segment is still waited for
FOREVER: Final = 3600 * MICRO  # a segment at time * is waited for this long
FIRST_PORT: Final = 40_001  # of the peers that connect to us, one after another
SEED: Final = 1
_MAX_TRACE: Final = 20  # packets shown with a failure

# enum tcp_ca_state (without CWR, which the stack does not have: a mark reduces at once) and the
# states and options of struct tcp_info, for code.
_CONSTANTS: Final = {
    "TCP_CA_Open": 0, "TCP_CA_Disorder": 1, "TCP_CA_Recovery": 3, "TCP_CA_Loss": 4,
    "TCP_ESTABLISHED": 1, "TCP_SYN_SENT": 2, "TCP_SYN_RECV": 3, "TCP_FIN_WAIT1": 4,
    "TCP_FIN_WAIT2": 5, "TCP_TIME_WAIT": 6, "TCP_CLOSE": 7, "TCP_CLOSE_WAIT": 8,
    "TCP_LAST_ACK": 9, "TCP_LISTEN": 10, "TCP_CLOSING": 11,
    "TCPI_OPT_TIMESTAMPS": 1, "TCPI_OPT_SACK": 2, "TCPI_OPT_WSCALE": 4, "TCPI_OPT_ECN": 8,
    "TCPI_OPT_ECN_SEEN": 16, "TCPI_OPT_SYN_DATA": 32,
}  # fmt: skip


@dataclass
class Result:
    """How one script ended."""

    path: str
    outcome: str
    line: int = 0
    reason: str = ""
    detail: str = ""  # expected and got, and the last packets
    seconds: float = 0.0  # of virtual time
    took: float = 0.0  # of the machine
    events: int = 0
    output: str = ""


@dataclass(frozen=True)
class Choices:
    """How scripts are played."""

    definitions: Mapping[str, str] = field(default_factory=lambda: dict(DEFINITIONS))
    exact_push: bool = False
    seed: int = SEED


def run_file(path: str | Path, choices: Choices | None = None) -> Result:
    """Play one script; raises OSError when it cannot be read.  A syntax error is a failure."""
    choices = choices or Choices()
    began = time.perf_counter()
    try:
        script = parse_file(path, choices.definitions)
    except ScriptError as error:
        result = Result(
            str(path), FAILED, error.line, f"syntax: {error.message} (column {error.column})"
        )
    else:
        result = run_script(script, choices)
    result.took = time.perf_counter() - began
    return result


def run_script(script: e.Script, choices: Choices | None = None) -> Result:
    """Play a script that has been read."""
    result = Result(script.path, PASSED)
    player: Player | None = None
    try:
        player = Player(script, choices or Choices())
        player.play()
    except InapplicableError as reason:
        result.outcome, result.reason = NOT_APPLICABLE, str(reason)
    except Exception as fault:
        if not isinstance(fault, MismatchError):
            # Nothing may escape the stack: that it did is what is wrong.
            told = traceback.extract_tb(fault.__traceback__)[-1]
            where = f"{told.filename}:{told.lineno}"
            fault = MismatchError(f"the stack raised {fault!r} at {where}")
        result.outcome, result.reason = FAILED, fault.summary
        trace = player.trace() if player else ""
        result.detail = "\n".join(filter(None, (fault.table(), trace)))
    if player is not None:
        result.line = player.line if result.outcome != PASSED else 0
        result.events = player.done
        result.seconds = player.stage.now / MICRO
        result.output = player.output.getvalue()
    elif script.setup is not None:
        result.line = script.setup[1].line
    return result


class Player:
    """One script being played."""

    def __init__(self, script: e.Script, choices: Choices) -> None:
        self.script = script
        self.choices = choices
        self.line = 0
        self.done = 0
        self.output = io.StringIO()  # what the script's code prints
        self.environment = Environment()
        self.options = _options(script)
        if script.setup is not None:
            self.line = script.setup[1].line
            self.environment.run(script.setup[0].text)
        self._foresee()
        here, there = self.options["local_ip"], self.options["remote_ip"]
        self.stage = Stage(
            seed=choices.seed,
            mtu=int(self.options["mtu"]),
            cidr=f"{here}/16",
            gateway=_gateway(here),
        )
        self.calls = Calls(
            self.stage,
            self.environment,
            here,
            there,
            int(self.options["bind_port"]),
            int(self.options["connect_port"]),
        )
        self.stage.watch = self._ask_again
        self.flow: Flow | None = None
        self._passive = False  # the flow was opened by the peer, whose handshake is under way
        self._here, self._there = from_text(here), from_text(there)
        self._tolerance = int(self.options["tolerance_usecs"])
        self._tick = int(self.options["tcp_ts_tick_usecs"])
        self._next_port = FIRST_PORT
        self._last: tuple[e.Event, int] | None = None  # the event before, and its time
        self._names: dict[str, Any] = dict(_CONSTANTS)
        self._blocked: _Blocked | None = None

    def _foresee(self) -> None:
        """Find what cannot be judged before anything is played; raises InapplicableError."""
        self._refuse_pacing()
        later = replace(self.environment)
        for event in self.script.events:
            if isinstance(event.action, e.Command):
                self.line = event.place.line
                later.run(event.action.text)
            elif isinstance(event.action, e.Code) and "TCP_CA_CWR" in event.action.text:
                self.line = event.place.line
                raise InapplicableError("the stack has no state CWR: a mark reduces at once")

    def _refuse_pacing(self) -> None:
        """Without its pacing, what the fq discipline sends when is not to be compared."""
        expects = any(
            isinstance(event.action, e.Segment) and not event.action.arrives and event.action.length
            for event in self.script.events
        )
        if self.environment.paced and expects:
            raise InapplicableError("the fq queueing discipline paces Linux's packets")

    # ------------------------------------------------------------------ events

    def play(self) -> None:
        """Do one event after the other; raises MismatchError and InapplicableError."""
        for event in self.script.events:
            self.line = event.place.line
            self._play(event)
            self.done += 1
        if self._blocked is not None:
            self.line = self._blocked.event.place.line
            self._await_blocked()

    def _play(self, event: e.Event) -> None:
        action = event.action
        base = 0 if event.when.kind == e.ABSOLUTE else self._base(event)
        at = base + event.when.at
        until = at if event.when.until is None else base + event.when.until
        expected = isinstance(action, e.Segment | e.Datagram | e.Icmp) and not action.arrives
        if expected:
            self._expect(event, at, until)
        else:
            if event.when.kind != e.ANY:
                self.stage.advance(at)
                if self.stage.now > until + self._tolerance:
                    raise MismatchError(
                        f"time has passed: it is {self.stage.now / MICRO:.6f} s already",
                        [Row("when", _seconds(at), _seconds(self.stage.now), False)],
                    )
            if isinstance(action, e.Call):
                self._call(event, action, base)
            elif isinstance(action, e.Command):
                self.environment.run(action.text)
                self._refuse_pacing()
            elif isinstance(action, e.Code):
                self._code(action)
            else:
                self._arrive(action)
        self._last = (event, at)

    def _base(self, event: e.Event) -> int:
        """What a relative time counts from: packets that arrive in a row, from one another."""
        if self._last is not None and _arrives(self._last[0]) and _arrives(event):
            return self._last[1]
        return self.stage.now

    # ------------------------------------------------------------------ system calls

    def _call(self, event: e.Event, call: e.Call, base: int) -> None:
        if self._blocked is not None:
            self._await_blocked()
        running = self.calls.start(call)
        blocked = _Blocked(event, call, running, base + call.ends if call.ends else None)
        if blocked.step():
            self._judge(blocked)
        elif call.ends is None:
            raise MismatchError(f"{call.name}() waits, and the script does not say until when")
        else:
            self._blocked = blocked

    def _ask_again(self) -> None:
        """After each turn of the host: can the call that waits go on?"""
        blocked = self._blocked
        if blocked is not None and not blocked.stepping and blocked.ended < 0 and blocked.step():
            blocked.ended = self.stage.now

    def _await_blocked(self) -> None:
        blocked = self._blocked
        assert blocked is not None
        until = (blocked.ends or self.stage.now) + PATIENCE
        while blocked.ended < 0 and self.stage.now < until:
            # A poll's own timeout is no timer of the host: look again every millisecond.
            self.stage.advance(min(self.stage.now + 1000, until), lambda: blocked.ended >= 0)
            self._ask_again()
        self._blocked = None
        line, self.line = self.line, blocked.event.place.line
        if blocked.ended < 0:
            raise MismatchError(
                f"{blocked.call.name}() still waits at {self.stage.now / MICRO:.6f} s",
                [Row("ends", _seconds(blocked.ends or 0), "not yet", False)],
            )
        self._judge(blocked)
        ends = blocked.ends or 0
        if abs(blocked.ended - ends) > self._tolerance:
            raise MismatchError(
                f"{blocked.call.name}() ended at another time",
                [Row("ends", _seconds(ends), _seconds(blocked.ended), False)],
            )
        self.line = line

    def _judge(self, blocked: _Blocked) -> None:
        """Compare the result of a call with the script's."""
        call = blocked.call
        if blocked.fault is not None:
            raise blocked.fault
        expected = call.result
        if isinstance(expected, e.Whatever) or expected == e.Symbol("?"):
            return
        wanted = number(expected)
        wanted_text = f"{written(expected)} {call.errno or ''}".strip()
        got = str(blocked.result)
        if blocked.errno:
            got = f"-1 {errno_name(blocked.errno)}"
        same = wanted == blocked.result
        if call.errno is not None:
            same = same and errno_name(blocked.errno) == call.errno
        elif blocked.errno and wanted == -1:
            same = True
        if not same:
            raise MismatchError(
                f"{call.name}() returned {got}, not {wanted_text}",
                [Row("result", wanted_text, got, False)],
            )

    # ------------------------------------------------------------------ packets that arrive

    def _arrive(self, action: e.Action) -> None:
        if isinstance(action, e.Segment):
            flow = self._flow_of(action)
            scaled = "tcp_ts_ecr_scaled" in self.script.options
            self.stage.inject(flow.arriving(action, scaled))
        elif isinstance(action, e.Icmp):
            socket = self.calls.newest
            protocol = wire_udp.PROTOCOL if socket and socket.kind == "udp" else wire_tcp.PROTOCOL
            self.stage.inject(icmp_arriving(self._any_flow(), action, protocol))
        elif isinstance(action, e.Datagram):
            self._arrive_datagram(action)

    def _arrive_datagram(self, action: e.Datagram) -> None:
        socket = next(
            (s for s in self.calls.table.values() if isinstance(s, Socket) and s.kind == "udp"),
            None,
        )
        ours, theirs = (socket.port if socket else DEFAULT_PORT), DEFAULT_PORT
        if action.ports is not None:
            theirs, ours = action.ports
        body = wire_udp.build(self._there, self._here, theirs, ours, bytes(action.length))
        head = ipv4.header(self._there, self._here, wire_udp.PROTOCOL, len(body))
        self.stage.inject(head + body)

    def _flow_of(self, segment: e.Segment) -> Flow:
        """The connection that an arriving segment belongs to; a SYN to a listener begins one."""
        listening = next(
            (s for s in self.calls.table.values() if isinstance(s, Socket) and s.listener), None
        )
        syn = "S" in segment.flags and "." not in segment.flags
        cookie = any(o.name in ("FO", "FOEXP") for o in segment.options or ())
        if syn and (cookie or segment.length) and self.environment.serves_fast_open(cookie):
            raise InapplicableError("TCP Fast Open (RFC 7413) is not there")
        if syn and listening is not None and segment.ports is None:
            self._leave_flow()
            self.flow = Flow(
                self._here, self._there, listening.port, self._next_port, remote_isn=segment.seq
            )
            self._next_port += 1
            self._passive = True
            return self.flow
        flow = self._any_flow()
        if syn and listening is not None:
            flow.reopened = segment.seq
        if "S" in segment.flags and not self._passive:
            flow.remote_isn = segment.seq
        return flow

    def _leave_flow(self) -> None:
        """Packets of the connection before that nobody asked for are not this one's."""
        self.stage.waiting.clear()

    def _any_flow(self) -> Flow:
        socket = self.calls.newest
        connection = socket.connection() if socket else None
        if self.flow is None or (connection is not None and self._is_other(connection)):
            if connection is not None:
                self._follow(connection)
            elif socket is not None and socket.kind == "udp":
                return Flow(self._here, self._there, socket.port, DEFAULT_PORT)
        if self.flow is None:
            self.flow = Flow(self._here, self._there, DEFAULT_PORT, FIRST_PORT)
        return self.flow

    def _is_other(self, connection: Connection) -> bool:
        """Whether a connection that we opened is not the flow at hand."""
        assert self.flow is not None
        same = (connection.local[1], connection.remote[1]) == (
            self.flow.our_port,
            self.flow.their_port,
        )
        return not same and not connection.passive

    def _follow(self, connection: Connection) -> None:
        here, there = from_text(connection.local[0]), from_text(connection.remote[0])
        self.flow = Flow(here, there, connection.local[1], connection.remote[1])
        self._passive = False

    def connection(self) -> Connection | None:
        """The connection at hand, whether or not it has been accepted."""
        socket = self.calls.newest
        found = socket.connection() if socket else None
        flow = self.flow
        if flow is None or (
            found is not None and not self._is_other(found) and found.remote[1] == flow.their_port
        ):
            return found
        streams: list[Stream] = []
        for thing in self.calls.table.values():
            if isinstance(thing, Socket):
                streams += [*thing.waiting, *([thing.stream] if thing.stream else [])]
        for stream in streams:
            held = stream.connection
            if held is not None and held.remote[1] == flow.their_port:
                return held
        return found

    # ------------------------------------------------------------------ packets that leave

    def _expect(self, event: e.Event, at: int, until: int) -> None:
        action = event.action
        patience = FOREVER if event.when.kind == e.ANY else PATIENCE
        if isinstance(action, e.Segment):
            if any(o.name in ("FO", "FOEXP") for o in action.options or ()):
                raise InapplicableError("TCP Fast Open (RFC 7413) is not there")
            flow = self._any_flow()
            pieces = self._pieces(flow, action, until + patience)
            self._compare(event, action, flow, joined(pieces), at, until)
            return
        sent = self._next(until + patience, lambda sent: True)
        name = icmp_text(action) if isinstance(action, e.Icmp) else "> udp"
        if sent is None:
            raise MismatchError(f"nothing left; {name} was expected", [_when_row(at, until, -1)])
        rows = [_when_row(at, until, sent.at, self._allowed(event, at)), *_other_rows(action, sent)]
        self._fail_if(rows, event)

    def _pieces(self, flow: Flow, expected: e.Segment, until: int) -> list[Leaving]:
        """The next segment of the flow; of consecutive ones as many as were expected in one."""
        pieces: list[Leaving] = []
        length = 0
        strict = "strict_segments" in self.script.options
        while not pieces or (length < expected.length and not strict):
            sent = self._next(until, lambda sent: _is_of(sent.packet, flow))
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
                f"nothing left until {_seconds(self.stage.now)} s; "
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
        self, event: e.Event, expected: e.Segment, flow: Flow, got: Leaving, at: int, until: int
    ) -> None:
        allowed = self._allowed(event, at)
        if event.when.kind == e.ANY:
            at = until = got.at
        connection = self.connection()
        empties = True
        if connection is not None and flow.live_isn >= 0:
            end = (got.seq + got.length) & 0xFFFF_FFFF
            empties = end >= connection.snd_nxt + connection.unsent - connection.iss
        rows = compare(
            expected,
            got,
            tick=self._tick,
            tolerance=max(self._tolerance, int(at * TOLERANCE_PERCENT / 100)),
            empties=empties,
            exact_push=self.choices.exact_push,
        )
        when = _when_row(at, until, got.at, allowed)
        if not when.same or at - allowed <= got.until <= until + allowed:
            self._fail_if([when, *rows], event)
        else:
            self._fail_if([_when_row(at, until, got.until, allowed), *rows], event)

    def _allowed(self, event: e.Event, at: int) -> int:
        """Microseconds that an event may be off."""
        if self._last is None:
            return self._tolerance
        return max(self._tolerance, int((at - self._last[1]) * TOLERANCE_PERCENT / 100))

    def _fail_if(self, rows: list[Row], event: e.Event) -> None:
        wrong = [row for row in rows if not row.same]
        if wrong:
            told = "; ".join(
                f"{row.what}: {row.expected or 'none'} expected, {row.got or 'none'} came"
                for row in wrong
            )
            raise MismatchError(told, rows)

    # ------------------------------------------------------------------ code

    def _code(self, code: e.Code) -> None:
        """Run the script's Python with the `tcpi_` names of the connection at hand.

        A script is as trusted as a test: its code is run, not judged.
        """
        connection = self.connection()
        if connection is not None:
            snapshot = tcp_info.snapshot(connection, self.stage.clock())
            self._names.update(asdict(snapshot))
        source = textwrap.dedent(code.text).rstrip() + "\n"
        compiled: Any
        try:
            compiled = compile("\n" * (self.line - 1) + source + "\n", self.script.path, "exec")
        except SyntaxError as error:
            raise MismatchError(f"the code is no Python: {error.msg}") from None
        try:
            with contextlib.redirect_stdout(self.output):
                exec(compiled, self._names)  # noqa: S102
        except AssertionError as error:
            line = (
                error.__traceback__.tb_next.tb_lineno
                if error.__traceback__ and error.__traceback__.tb_next
                else 0
            )
            text = self.script.text.split("\n")[line - 1].strip() if line else ""
            raise MismatchError(
                f"{text or 'assert'}: {error}", [Row("code", text, str(error), False)]
            ) from None
        except NameError as error:
            if error.name and error.name.startswith(("tcpi_", "SO_", "TCP")):
                raise InapplicableError(f"the stack does not keep {error.name}") from None
            raise MismatchError(f"the code fails: {error}") from None
        except Exception as error:
            raise MismatchError(f"the code fails: {error!r}") from None

    # ------------------------------------------------------------------ for people

    def trace(self) -> str:
        """The last packets that the host sent, as a script would write them."""
        flow = self.flow
        lines: list[str] = []
        for sent in self.stage.sent[-_MAX_TRACE:]:
            if flow is not None and _is_of(sent.packet, flow):
                text = leaving_text(flow.leaving(sent.packet, sent.at, None))
                lines.append(f"  {_seconds(sent.at):>12}  {text}")
        return "  sent:\n" + "\n".join(lines) if lines else ""


@dataclass
class _Blocked:
    """A system call under way."""

    event: e.Event
    call: e.Call
    running: Generator[None, None, int]
    ends: int | None
    ended: int = -1
    result: int = 0
    errno: int = 0
    stepping: bool = False
    fault: Exception | None = None

    def step(self) -> bool:
        """Go on; True when the call is done."""
        self.stepping = True
        try:
            next(self.running)
        except StopIteration as done:
            self.result = done.value
            return True
        except ErrnoError as error:
            self.result, self.errno = -1, error.number
            return True
        except OSError as error:
            self.result, self.errno = -1, error.errno or 0
            return True
        except (MismatchError, InapplicableError) as fault:
            self.fault = fault
            return True
        finally:
            self.stepping = False
        return False


def _options(script: e.Script) -> dict[str, str]:
    """The options of a script with packetdrill's defaults; raises InapplicableError."""
    found = {
        "bind_port": str(DEFAULT_PORT),
        "connect_port": str(DEFAULT_PORT),
        "gateway_ip": "",
        "ip_version": "ipv4",
        "local_ip": "192.168.0.1",
        "mss": "0",
        "mtu": "1500",
        "netmask_ip": "255.255.0.0",
        "remote_ip": "192.0.2.1",
        "strict_segments": "",
        "tcp_ts_ecr_scaled": "",
        "tcp_ts_tick_usecs": "0",
        "tolerance_usecs": str(TOLERANCE),
    }
    for name, value in script.options.items():
        if name not in found:
            raise InapplicableError(f"the option --{name} means nothing here")
        found[name] = value
    if found["ip_version"] != "ipv4":
        raise InapplicableError("IPv6 is not there yet")
    return found


def _gateway(here: str) -> str:
    """A neighbour of ours: the way to everybody else."""
    octets = from_text(here)
    last = 2 if octets[3] != 2 else 3
    return ".".join(map(str, (*octets[:3], last)))


def _arrives(event: e.Event) -> bool:
    action = event.action
    return isinstance(action, e.Segment | e.Datagram | e.Icmp) and action.arrives


def _seconds(at: int) -> str:
    return f"{at / MICRO:.6f}"


def _when_row(at: int, until: int, got: int, allowed: int = 0) -> Row:
    wanted = _seconds(at) if at == until else f"{_seconds(at)}~{_seconds(until)}"
    same = at - allowed <= got <= until + allowed
    return Row(
        "when", f"{wanted} ± {allowed / MICRO:g}", "never" if got < 0 else _seconds(got), same
    )


def _is_of(packet: bytes, flow: Flow) -> bool:
    """Whether a packet of the host is a segment of the flow."""
    head = ipv4.parse(packet, 0, len(packet))
    if head.protocol != wire_tcp.PROTOCOL or head.dst != flow.there:
        return False
    at = head.payload_at
    ports = (int.from_bytes(packet[at : at + 2]), int.from_bytes(packet[at + 2 : at + 4]))
    return ports == (flow.our_port, flow.their_port)


def _other_rows(action: e.Action, sent: Sent) -> list[Row]:
    """Compare an ICMP message or a datagram."""
    head = ipv4.parse(sent.packet, 0, len(sent.packet))
    if isinstance(action, e.Datagram):
        came = head.payload_end - head.payload_at - 8 if head.protocol == wire_udp.PROTOCOL else -1
        return [Row("udp", str(action.length), str(came), came == action.length)]
    if head.protocol != wire_icmp.PROTOCOL or not isinstance(action, e.Icmp):
        return [Row("protocol", "icmp", str(head.protocol), False)]
    from appliance.fuzz.script.flow import ICMP_CODES, ICMP_NAMES

    message = wire_icmp.parse(sent.packet, head.payload_at, head.payload_end)
    kind, code = ICMP_NAMES.get(action.type, -1), ICMP_CODES.get(action.code or "", 0)
    wanted, came_text = f"{kind} {code}", f"{message.type} {message.code}"
    return [Row("icmp", wanted, came_text, wanted == came_text)]
