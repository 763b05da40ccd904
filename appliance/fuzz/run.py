"""Run a scenario under every rule there is, and say what was broken.

    build -> open the flows -> events, each followed by the rules -> all ends -> idle rules

`run` is a function of the scenario alone. What a failure may be excused by is
in `excuses`. It imports that, `world`, `application`, `monitor`, `invariants`, `scenario`.
"""

from __future__ import annotations

import errno
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Final, NamedTuple

from appliance.fuzz import invariants
from appliance.fuzz.application import Application, Stream
from appliance.fuzz.excuses import cut_short, excuses, lossy, own_doing
from appliance.fuzz.monitor import Key, Monitor
from appliance.fuzz.port import Sink
from appliance.fuzz.router import Router
from appliance.fuzz.scenario import Flow, Scenario
from appliance.fuzz.world import Cable, LivelockError, Station, World
from appliance.net.tcp import Connection
from appliance.net.tcp_state import ALLOWED, CLOSED, NAMES, TIME_WAIT
from appliance.net.tcp_table import Limits
from appliance.net.wire.address import from_text

PORT: Final = 1000
"""The server's port of the first flow; each flow has its own."""
BOTH_PORT: Final = 20_000
"""The client's port of the first connection that both open."""
SETTLE: Final = 2_000.0
"""Seconds after which no trace of a connection may be left: the orphan's minute, 2 MSL, and the
retransmissions of a peer that had its answers lost (RFC 9293 §3.8.3: some 15 minutes)."""
PATIENCE: Final = 1_800.0
"""Seconds without any progress after which a connection is called stuck: fifteen of the longest
waits for an answer (RFC 6298 §2.5 allows 60 s and more; ours is 120 s)."""
FEW: Final = 8
"""Connections that are looked at after each event; of more, the next so many in turn."""
MAX_EVENTS: Final = 2_000_000
"""Instants of one run; a scenario that takes more makes no progress, or is too large."""
MAX_FINDINGS: Final = 20


class Finding(NamedTuple):
    """One broken rule: its name, and how."""

    rule: str
    text: str


@dataclass
class Outcome:
    """What a run came to."""

    scenario: Scenario
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    """Virtual seconds until all connections had ended."""
    packets: int = 0
    """Segments that the monitor saw, sent or received."""
    connections: int = 0
    slow: int = 0
    """Connections that were still getting somewhere when time ran out."""
    errors: Counter[str] = field(default_factory=Counter)
    """How often applications heard of which error."""
    transitions: set[tuple[int, int]] = field(default_factory=set)
    counters: Counter[str] = field(default_factory=Counter)
    """Of both hosts."""
    digest: str = ""
    """SHA-256 over everything that both hosts sent, with its times."""


@dataclass
class Pair:
    """The two ends of one connection; either may not have come to be."""

    flow: Flow
    number: int
    client: Application
    server: Application
    accepted: bool = False


class Run:
    """One scenario on its way."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.outcome = Outcome(scenario)
        self.world = World(scenario.seed)
        self.client = self._station("client")
        self.server = self._station("server")
        self.routers: list[Router] = []
        self.cable: Cable = self._connect()
        self.monitor = Monitor(self.report)
        self.pairs: list[Pair] = []
        self._digest = hashlib.sha256()
        self._states: dict[int, tuple[Connection, int]] = {}  # by identity
        self._cursor = 0
        self._random = self.world.random("applications")
        self._opened = 0
        self._to_open = sum(flow.count for flow in scenario.flow)
        self._live: list[Pair] = []

    def _connect(self) -> Cable:
        """A cable between the two; or one from each to a router, and one between the routers."""
        scenario, world, middle = self.scenario, self.world, self.scenario.middle
        if middle is None:
            return world.link(self.client, self.server, scenario.link, scenario.back)
        prefix = "fd00:{}::{}/64" if scenario.ip == 6 else "10.0.{}.{}/24"
        between = []
        for number, station in enumerate((self.client, self.server), 1):
            router = world.router(f"router {number}")
            router.signals = middle.signal
            # A network's link carries what its host sends; what is narrow is the middle.
            port = router.port(prefix.format(number, 254), mtu=station.port.mtu)
            link = scenario.link if number == 1 else scenario.back or scenario.link
            world.link(station, port, link)
            between.append(router.port(prefix.format(9, number), mtu=middle.mtu))
            # The other network alone: with default routes the two would be a ring for others.
            other = str(ip_network(prefix.format(3 - number, 0)))
            router.route(other, prefix.format(9, 3 - number).partition("/")[0])
            station.via(prefix.format(number, 254).partition("/")[0])
            self.routers.append(router)
        return world.link(between[0], between[1], middle.link)

    def _station(self, name: str) -> Station:
        machine = self.scenario.client if name == "client" else self.scenario.server
        number = 1 if name == "client" else 2
        return self.world.host(
            name,
            self._address(number),
            mtu=machine.mtu,
            offload=machine.offload,
            clock=machine.clock,
            limits=Limits(memory=machine.memory),
        )

    def _address(self, number: int) -> str:
        """One network for both hosts, or with routers between them one for each."""
        if self.scenario.middle is None:
            return f"fd00::{number}/64" if self.scenario.ip == 6 else f"10.0.0.{number}/24"
        return f"fd00:{number}::1/64" if self.scenario.ip == 6 else f"10.0.{number}.1/24"

    def report(self, rule: str, text: str) -> None:
        """Note a broken rule."""
        if len(self.outcome.findings) < MAX_FINDINGS:
            self.outcome.findings.append(Finding(rule, text))

    # ------------------------------------------------------------------ the run

    def go(self) -> Outcome:
        """Run it all."""
        scenario, world, outcome = self.scenario, self.world, self.outcome
        try:
            for station in world.stations:
                station.port.watchers += [self.monitor.watch, self._hash]
            world.after_event = self._after_event
            for number, flow in enumerate(scenario.flow):
                self._prepare(number, flow)
            start = world.now
            ended = world.run(self._done, seconds=scenario.seconds)
            outcome.seconds = world.now - start
            if not outcome.findings:
                if not ended:
                    self._unfinished()
                world.run(lambda: bool(outcome.findings), seconds=SETTLE)
            if not outcome.findings:  # else it did not get as far as its end
                self._judge()
        except LivelockError as error:
            self.report("livelock", str(error))
        except Exception as error:  # whatever escapes is the finding
            self.report("exception", describe(error))
        outcome.packets = self.monitor.segments
        outcome.connections = self._opened
        outcome.digest = self._digest.hexdigest()
        for station in world.stations:
            outcome.counters.update(station.host.counters.as_dict())
        return outcome

    def _done(self) -> bool:
        if self.outcome.findings:
            return True
        if self.world.events > MAX_EVENTS:
            self.report("progress", f"{self.world.events} events, and no end")
            return True
        return self._opened == self._to_open and not self._alive()

    def _alive(self) -> bool:
        """Whether any connection has not ended at both ends."""
        live = self._live
        while live and _over(live[-1]):
            live.pop()
        return bool(live)

    def _prepare(self, number: int, flow: Flow) -> None:
        """Listen for a flow, and set out to open its connections."""
        port = PORT + number
        settings, backlog = self.scenario.server.tcp, self.scenario.server.backlog
        waiting: dict[tuple[str, int], list[Pair]] = {}

        def accept(connection: Connection) -> Application:
            pairs = waiting.get(connection.remote) or [self._pair(flow)]
            # The one whose SYN it was: ports begin anew while old segments are under way.
            begun = (one for one in reversed(pairs) if one.client.began(connection.irs))
            pair = next(begun, pairs[-1])
            if pair.accepted or pair is not pairs[-1]:
                # A ghost: an old SYN came again, or an old ACK that a SYN cookie vouches for though
                # its connection is over (RFC 4987 §3.6 has no remedy). It hears the same octets.
                pair = self._pair(flow, pair)
                self.monitor.mute(_key(connection))
            pair.accepted = True
            self.monitor.expect(_key(connection), pair.server.mine)
            return pair.server.attach(connection)

        if flow.opens == "client":
            self.server.host.tcp_listen("", port, accept, settings=settings, backlog=backlog)
        start = self.world.now + flow.at
        for index in range(flow.count):
            self.world.at(start + index * flow.every, lambda i=index: open_one(i))  # type: ignore[misc]

        def open_one(index: int) -> None:
            self._opened += 1
            pair = self._pair(flow)
            self.pairs.append(pair)
            self._live.append(pair)
            try:
                if flow.opens == "both":
                    self._open_both(pair, port, BOTH_PORT + 1000 * number + index)
                else:
                    connection = self.client.host.tcp_connect(
                        self.server.address, port, pair.client, settings=self.scenario.client.tcp
                    )
                    waiting.setdefault(connection.local, []).append(pair)
                    self._attach(pair.client, connection)
                    pair.client.hurry()
            except OSError as error:
                pair.client.closed.append(error)

    def _open_both(self, pair: Pair, port: int, local: int) -> None:
        for station, other, app, mine, theirs, machine in (
            (self.client, self.server, pair.client, local, port, self.scenario.client),
            (self.server, self.client, pair.server, port, local, self.scenario.server),
        ):
            connection = station.host.tcp_connect(
                other.address, theirs, app, local_port=mine, settings=machine.tcp
            )
            self._attach(app, connection)
        pair.accepted = True

    def _attach(self, app: Application, connection: Connection) -> None:
        app.attach(connection)
        self.monitor.expect(_key(connection), app.mine)

    def _pair(self, flow: Flow, ghost_of: Pair | None = None) -> Pair:
        """Two applications of a flow; a ghost has the streams of what it is the ghost of."""
        number = len(self.pairs) if ghost_of is None else ghost_of.number
        there, back = Stream(2 * number), Stream(2 * number + 1)
        client = Application(
            self.world, flow.client, mine=there, theirs=back, wanted=flow.server.sends,
            rounds=flow.rounds, first=True, random=self._random, report=self.report,
            name=f"client {number}",
        )  # fmt: skip
        server = Application(
            self.world, flow.server, mine=back, theirs=there, wanted=flow.client.sends,
            rounds=flow.rounds, first=False, random=self._random, report=self.report,
            name=f"server {number}",
        )  # fmt: skip
        return Pair(flow, number, client, server)

    # ------------------------------------------------------------------ after every event

    def _after_event(self, ready: list[Sink]) -> None:
        for sink in ready:
            if not isinstance(sink, Station) or sink.woken:
                continue  # what has been asked for since its turn gets one at this same instant
            host, now = sink.host, sink.now
            flows = host.tcp.flows
            if len(flows) <= FEW:
                chosen = list(flows.values())
            else:
                every = list(flows.values())
                first = self._cursor = (self._cursor + FEW) % len(every)
                chosen = every[first : first + FEW]
            for flow in chosen:
                if type(flow) is Connection:
                    for rule, text in invariants.of_connection(flow, host, now):
                        self.report(rule, f"{now:.6f} {sink.name} {text}")
                    self._states.setdefault(id(flow), (flow, CLOSED))
            if len(flows) <= FEW:
                for rule, text in invariants.of_host(host):
                    self.report(rule, f"{now:.6f} {sink.name} {text}")
        if len(self._states) <= FEW or self.world.events % FEW == 0:
            self._note()

    def _note(self) -> None:
        """Note which states were reached, for the record of what has been tried."""
        states, transitions = self._states, self.outcome.transitions
        for name, (connection, before) in list(states.items()):
            state = connection.state
            if state != before:
                transitions.add((before, state))
                if state == CLOSED:
                    del states[name]
                elif state == TIME_WAIT:
                    del states[name]  # a smaller record has taken its place, for 2 MSL
                    transitions.add((TIME_WAIT, CLOSED))
                else:
                    states[name] = (connection, state)

    def _hash(self, now: float, sent: bool, frame: bytes) -> None:
        if sent:
            self._digest.update(b"%r" % now)
            self._digest.update(frame)

    # ------------------------------------------------------------------ at the end

    def _unfinished(self) -> None:
        """Tell what has not ended and is stuck from what is slow."""
        before = [_state(pair) for pair in self._live]
        self.world.run(self._done, seconds=PATIENCE)
        for state, pair in zip(before, list(self._live), strict=False):
            if not _over(pair) and _state(pair) != state:
                self.outcome.slow += 1
                for app in (pair.client, pair.server):
                    if app.connection is not None and not app.over:
                        app.conn.abort()
                        app.ended = "abort"
        self._stuck()

    def _stuck(self) -> None:
        """Look at what has not ended: some connections never hear that their peer is gone."""
        for pair in self._live:
            for app, peer in ((pair.client, pair.server), (pair.server, pair.client)):
                if app.connection is None or app.over:
                    continue
                if self._half_open(app, peer):
                    app.conn.abort()
                    app.ended = "abort"
                    continue
                self.report(
                    "progress",
                    f"{app.name} has not ended after {self.world.now:.0f} s: "
                    f"{app.conn.state_name}, got {app.got} of {app.wanted_total}, "
                    f"wrote {app.written} of {app.total}",
                )

    def _half_open(self, app: Application, peer: Application) -> bool:
        """Whether `app` is left alone in a way that TCP allows (RFC 9293 §3.5.1).

        Its peer gave up with a reason, and it has nothing to send that would bring that to light.
        """
        conn, other = app.conn, peer.connection
        if conn.unsent or conn.snd_nxt > conn.snd_una:
            return False
        if self.scenario.client.tcp.keepalive and self.scenario.server.tcp.keepalive:
            return False
        if other is None:
            return lossy(self.scenario)
        if other.state not in (CLOSED, TIME_WAIT):
            return False
        failed = bool(peer.closed) and peer.closed[0] is not None
        # A reset or the last FIN of an orphan may have been lost, and is not repeated for ever.
        return failed or (peer.ended in ("abort", "close") and lossy(self.scenario))

    def _judge(self) -> None:
        """Hold what the applications heard against what they may hear."""
        excuse = excuses(self.scenario)
        for pair in self.pairs:
            for app, peer in ((pair.client, pair.server), (pair.server, pair.client)):
                self._judge_end(pair, app, peer, excuse)
        expect = self.scenario.expect
        if self.outcome.seconds > expect.within:
            self.report("expect", f"it took {self.outcome.seconds:.3f} s, not {expect.within} s")
        again = sum(s.host.counters.tcp_retransmitted for s in self.world.stations)
        if again > expect.retransmissions:
            self.report("expect", f"{again} segments were sent again")
        for station in self.world.stations:
            for rule, text in invariants.of_idle_host(station.host):
                self.report(rule, f"{station.name}: {text}")

    def _judge_end(self, pair: Pair, app: Application, peer: Application, excuse: set[str]) -> None:
        error = app.closed[0] if app.closed else None
        if error is not None:
            name = type(error).__name__
            code = error.errno if isinstance(error, OSError) else None
            self.outcome.errors[errno.errorcode.get(code or 0, name)] += 1
            reasons = excuse | own_doing(pair)
            if self.scenario.expect.errors == "none" or name not in reasons:
                self.report("error", f"{app.name}: {name}: {error}, for no reason")
        if app.eof and app.got != app.wanted_total and not cut_short(peer):
            self.report("stream", f"{app.name}: the stream ended after {app.got} octets of "
                        f"{app.wanted_total}")  # fmt: skip
        if app.eof and app.got != peer.written:
            self.report("stream", f"{app.name}: ended after {app.got} octets, {peer.written} were "
                        "written")  # fmt: skip
        # A proper end after `shutdown` means that the peer's TCP has taken every octet.
        if app.closed == [None] and app.ended == "shutdown":
            if not app.eof:
                self.report("upcall", f"{app.name}: a proper end without the end of the stream")
            if peer.got != app.written and peer.ended not in ("close", "abort"):
                self.report("stream", f"{app.name}: ended well, but {peer.name} got {peer.got} of "
                            f"{app.written} octets")  # fmt: skip


def _state(pair: Pair) -> tuple[int, ...]:
    """How far a pair of ends has come."""
    parts: list[int] = []
    for app in (pair.client, pair.server):
        parts += (app.got, app.written, app.established, len(app.closed))
        if app.connection is not None:
            parts.append(app.connection.state)
    return tuple(parts)


def _over(pair: Pair) -> bool:
    if not pair.client.over:
        return False
    return pair.server.over or pair.server.connection is None


def _key(connection: Connection) -> Key:
    (here, port), (there, remote) = connection.local, connection.remote
    return from_text(here), port, from_text(there), remote


def describe(error: BaseException) -> str:
    """An exception, and the innermost place that it came from."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" in {code.co_name} ({Path(code.co_filename).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{place}"


def run(scenario: Scenario) -> Outcome:
    """Run a scenario."""
    return Run(scenario).go()


def names_of(transitions: set[tuple[int, int]]) -> set[tuple[str, str]]:
    """Transitions by the names of RFC 9293, those seen from one look to the next."""
    return {(NAMES[a], NAMES[b]) for a, b in transitions if (a, b) in ALLOWED or a == 0}
