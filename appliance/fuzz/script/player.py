"""Playing a script: its events in order, in virtual time, against the stack.

As in packetdrill, an event happens at its time: calls, commands, code and segments that arrive are
done then; a segment that is expected may have left within 4 ms of it (or an eighth of the time
since the event before).  Here time is exact, so that tolerance forgives no machine, only the
rounding of whoever wrote the script down.

Imports everything else in this folder but the runner, and `net`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from appliance.fuzz.script import events as e
from appliance.fuzz.script import packets
from appliance.fuzz.script.calls import DEFAULT_PORT, Calls
from appliance.fuzz.script.environment import Environment
from appliance.fuzz.script.expect import PATIENCE, Expectations, is_of, seconds
from appliance.fuzz.script.faults import InapplicableError, MismatchError, Row
from appliance.fuzz.script.flow import Flow, icmp_arriving
from appliance.fuzz.script.interpreter import Interpreter
from appliance.fuzz.script.sockets import Socket, Stream
from appliance.fuzz.script.stage import MICRO, Stage
from appliance.fuzz.script.underway import Underway
from appliance.fuzz.script.written import leaving_text
from appliance.net.tcp import Connection
from appliance.net.wire import tcp as wire_tcp
from appliance.net.wire import udp as wire_udp
from appliance.net.wire.address import from_text, to_text

TOLERANCE: Final = 4_000  # microseconds; packetdrill's default
FIRST_PORT: Final = 40_001  # of the peers that connect to us, one after another
SEED: Final = 1
# The hosts and links of packetdrill's own runner (run_all.py); its link of IPv6 carries 20 octets
# more, so that a segment is as long as over IPv4.
HERE: Final = "192.168.0.1"
THERE: Final = "192.0.2.1"
HERE6: Final = "fd3d:a0b:17d6::1"
THERE6: Final = "fd3d:fa7b:d17d::1"
MTU: Final = 1500
MTU6: Final = 1520
_MAX_TRACE: Final = 20  # packets shown with a failure


class Player:
    """One script being played."""

    def __init__(
        self,
        script: e.Script,
        *,
        seed: int = SEED,
        exact_push: bool = False,
        ip_version: str = packets.IPV4,
    ) -> None:
        self.script = script
        self.line = 0
        self.done = 0
        self.interpreter = Interpreter(script)
        self.environment = Environment()
        self.options = _options(script, ip_version)
        if script.setup is not None:
            self.line = script.setup[1].line
            self.environment.run(script.setup[0].text)
        self._foresee()
        here, there = self.options["local_ip"], self.options["remote_ip"]
        six = self.options["ip_version"] == packets.IPV6
        self.stage = Stage(
            seed=seed,
            mtu=int(self.options["mtu"]),
            cidr=f"{here}/64" if six else f"{here}/16",
            gateway=gateway_of(here),
        )
        self.calls = Calls(
            self.stage,
            self.environment,
            here,
            there,
            int(self.options["bind_port"]),
            int(self.options["connect_port"]),
            self.options["ip_version"],
        )
        self.stage.watch = self._ask_again
        self.environment.counters = self.stage.host.counters.as_dict
        self._forgotten = 0
        self._settle()
        self.flow: Flow | None = None
        self._passive = False  # the flow was opened by the peer, whose handshake is under way
        self._here, self._there = from_text(here), from_text(there)
        self._tolerance = int(self.options["tolerance_usecs"])
        self._expectations = Expectations(
            self.stage,
            self._tolerance,
            int(self.options["tcp_ts_tick_usecs"]),
            "strict_segments" in script.options,
            exact_push,
        )
        self._next_port = FIRST_PORT
        self._last: tuple[e.Event, int] | None = None  # the event before, and its time
        self._blocked: Underway | None = None

    def _foresee(self) -> None:
        """Find what cannot be judged before anything is played; raises InapplicableError."""
        self._refuse_pacing()
        later = replace(self.environment, counters=None)
        for event in self.script.events:
            if isinstance(event.action, e.Command):
                self.line = event.place.line
                later.run(event.action.text)
            elif isinstance(event.action, e.Code) and "TCP_CA_CWR" in event.action.text:
                self.line = event.place.line
                raise InapplicableError("the stack has no state CWR: a mark reduces at once")

    def _refuse_pacing(self) -> None:
        """What fq sends later is also measured later: round trips, and what follows from them."""
        if self.environment.paced:
            raise InapplicableError("the fq queueing discipline paces Linux's packets")

    def _settle(self) -> None:
        """Give the host what commands have said of it as a whole."""
        tcp, environment = self.stage.host.tcp, self.environment
        tcp.fast_cookies.use_keys(environment.fast_keys)
        if environment.forgotten != self._forgotten:
            self._forgotten = environment.forgotten
            tcp.fast_servers.forget()

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
            since = at - self._last[1] if self._last else 0
            if isinstance(action, e.Segment):
                flow = self._any_flow()
                self._expectations.segment(event, flow, self.connection, at, until, since)
            else:
                self._expectations.other(event, at, until, since)
        else:
            if event.when.kind != e.ANY:
                self.stage.advance(at)
                if self.stage.now > until + self._tolerance:
                    raise MismatchError(
                        f"time has passed: it is {self.stage.now / MICRO:.6f} s already",
                        [Row("when", seconds(at), seconds(self.stage.now), False)],
                    )
            if isinstance(action, e.Call):
                self._call(event, action, base)
            elif isinstance(action, e.Command):
                self.environment.run(action.text)
                self._refuse_pacing()
                self._settle()
            elif isinstance(action, e.Code):
                self.interpreter.run(action, self.line, self.connection(), self.stage.clock())
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
        blocked = Underway(event, call, running, base + call.ends if call.ends else None)
        if blocked.step():
            blocked.judge()
        elif call.ends is None:
            raise MismatchError(f"{call.name}() waits, and the script does not say until when")
        else:
            self._blocked = blocked

    def _ask_again(self) -> None:
        """After each turn of the host: can the call that waits go on?"""
        for thing in list(self.calls.table.values()):
            if isinstance(thing, Socket) and thing.held:
                thing.acknowledged()
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
                [Row("ends", seconds(blocked.ends or 0), "not yet", False)],
            )
        blocked.judge()
        ends = blocked.ends or 0
        if abs(blocked.ended - ends) > self._tolerance:
            raise MismatchError(
                f"{blocked.call.name}() ended at another time",
                [Row("ends", seconds(ends), seconds(blocked.ended), False)],
            )
        self.line = line

    # ------------------------------------------------------------------ packets that arrive

    def _arrive(self, action: e.Action) -> None:
        if isinstance(action, e.Segment):
            flow = self._flow_of(action)
            scaled = "tcp_ts_ecr_scaled" in self.script.options
            mss = int(self.options["mss"])
            self.stage.inject(flow.arriving(action, scaled), mss if 0 < mss < action.length else 0)
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
        self.stage.inject(packets.wrap(self._there, self._here, wire_udp.PROTOCOL, body, action.ip))

    def _flow_of(self, segment: e.Segment) -> Flow:
        """The connection that an arriving segment belongs to; a SYN to a listener begins one."""
        listening = next(
            (s for s in self.calls.table.values() if isinstance(s, Socket) and s.listener), None
        )
        syn = "S" in segment.flags and "." not in segment.flags
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

    # ------------------------------------------------------------------ for people

    def trace(self) -> str:
        """The last packets that the host sent, as a script would write them."""
        flow = self.flow
        lines: list[str] = []
        for sent in self.stage.sent[-_MAX_TRACE:]:
            if flow is not None and is_of(sent.packet, flow):
                text = leaving_text(flow.leaving(sent.packet, sent.at, None))
                lines.append(f"  {seconds(sent.at):>12}  {text}")
        return "  sent:\n" + "\n".join(lines) if lines else ""


def _options(script: e.Script, ip_version: str) -> dict[str, str]:
    """The options of a script with packetdrill's defaults; raises InapplicableError."""
    six = script.options.get("ip_version", ip_version) == packets.IPV6
    found = {
        "bind_port": str(DEFAULT_PORT),
        "connect_port": str(DEFAULT_PORT),
        "gateway_ip": "",
        "ip_version": ip_version,
        "local_ip": HERE6 if six else HERE,
        "mss": "0",
        "mtu": str(MTU6 if six else MTU),
        "netmask_ip": "255.255.0.0",
        "remote_ip": THERE6 if six else THERE,
        "strict_segments": "",
        "tcp_ts_ecr_scaled": "",
        "tcp_ts_tick_usecs": "0",
        "tolerance_usecs": str(TOLERANCE),
    }
    for name, value in script.options.items():
        if name not in found:
            raise InapplicableError(f"the option --{name} means nothing here")
        found[name] = value
    if found["ip_version"] not in packets.VERSIONS:
        told = " or ".join(packets.VERSIONS)
        raise InapplicableError(f"--ip_version is {told}, not {found['ip_version']}")
    for name in ("local_ip", "remote_ip"):
        try:
            length = len(from_text(found[name]))
        except ValueError:
            raise InapplicableError(f"--{name}={found[name]} is no address") from None
        # Cookies of Fast Open, for one, are of the addresses that a script names.
        if length != (16 if six else 4):
            raise InapplicableError(f"--{name}={found[name]} is none of {found['ip_version']}")
    return found


def gateway_of(here: str) -> str:
    """A neighbour of ours: the way to everybody else."""
    address = from_text(here)
    return to_text(address[:-1] + bytes((2 if address[-1] != 2 else 3,)))


def _arrives(event: e.Event) -> bool:
    action = event.action
    return isinstance(action, e.Segment | e.Datagram | e.Icmp) and action.arrives
