"""A network in virtual time: hosts, switches and the links between them.

    world = World(seed=7)
    client, server = world.host("client"), world.host("server")
    world.link(client, server, Link(delay=0.05, loss=0.01))
    ... world.run(lambda: finished)

A `World` jumps from event to event; nothing waits and nothing reads a clock. Every event (a frame
that arrives, a timer, a call by the scenario) stands in one heap, ordered by time and then by when
it was put there. One seed decides everything random: ports and secrets of the hosts, and each
frame's fate. The same seed gives the same frames, octet for octet, on every machine.

Each `Station` is a `net.stack.Host` with one interface and what its driver would remember; its
clock may run ahead of or behind the world's. Imports `link`, `port`, `switch`, `router`
and `net`.
"""

from __future__ import annotations

import hashlib
import math
import random as random_module
from collections.abc import Callable
from heapq import heappop, heappush
from ipaddress import ip_address, ip_interface
from typing import Final

from appliance.fuzz.link import Direction, Link
from appliance.fuzz.port import Port, Sink
from appliance.fuzz.router import Router, RouterPort
from appliance.fuzz.switch import Switch
from appliance.net.stack import Host
from appliance.net.tcp_table import Limits
from appliance.net.vif.base import Vif
from appliance.net.vif.offload import equip
from appliance.net.wire.address import from_text, to_text

START: Final = 10_000.0
"""Seconds: the world's clock at the beginning; hosts' clocks may be behind it, but count up from
nought like any monotonic clock."""
SPINS: Final = 20_000
"""Rounds at one instant before the world is called a livelock."""
DETECTION: Final = 5.0
"""Seconds until an address of IPv6 is known to be nobody else's (RFC 4862 §5.4: about two)."""
BATCH: Final = 64
"""Frames handed to a host at a time, as its driver does."""


class LivelockError(AssertionError):
    """Things kept happening while no time passed."""


class Station:
    """A host, its interface, and what its driver would remember."""

    def __init__(
        self,
        world: World,
        name: str,
        address: str,
        *,
        mtu: int,
        offload: bool,
        clock: float,
        limits: Limits | None,
    ) -> None:
        self.name = name
        self.cidr = address
        self.address = address.partition("/")[0]
        self.clock = clock
        """Seconds that its clock is ahead of the world's."""
        self.port = Port(world, name, mtu, offload)
        self.port.sink = self
        self.vif: Vif = equip(self.port)
        self.host = Host(self.vif, random=world.random(f"host {name}"), limits=limits)
        self.host.wake = self._wake
        self.inbox: list[bytes] = []
        self.scheduled = math.inf
        """World time of the earliest wake-up that is on its way."""
        self.turns = 0
        self._world = world
        self.woken = False
        """It has been asked for a turn at this instant."""
        self._time = -math.inf  # of the host's last turn, by its own clock
        self.vif.on_writable = self._wake
        self.host.add_address(address)
        world.wake_at(world.now, self)

    @property
    def now(self) -> float:
        """The time by this host's clock."""
        return self._world.now + self.clock

    def via(self, gateway: str) -> None:
        """Send what lies outside its networks to `gateway`; ValueError unless it is on one."""
        self.host.add_gateway(gateway)

    def turn(self, now: float) -> None:
        """Do what a driver does in one wake-up."""
        host = self.host
        self.turns += 1
        # Adding and subtracting the offset rounds: no turn may be earlier than its timer.
        time = now + self.clock
        if time < self._time:
            time = self._time
        frames = self.inbox
        if frames:
            self.inbox = []
            if self.port.watchers:
                for frame in frames:
                    for watcher in self.port.watchers:
                        watcher(now, False, frame)
            if len(frames) <= BATCH:
                host.receive(frames, time)
            else:
                for first in range(0, len(frames), BATCH):
                    host.receive(frames[first : first + BATCH], time)
        if self.woken:
            self.woken = False
            host.flush(time)
        at = host.deadline()
        if now >= self.scheduled:
            self.scheduled = math.inf
            if at <= time or at - self.clock <= now:
                time = max(time, at) if at < math.inf else time
                host.run_timers(time)
                at = host.deadline()
        elif at <= time:
            host.run_timers(time)
            at = host.deadline()
        self._time = time
        at -= self.clock
        if at < self.scheduled:
            self.scheduled = at
            self._world.wake_at(max(at, now), self)

    def _wake(self) -> None:
        if not self.woken:
            self.woken = True
            self._world.wake_at(self._world.now, self)


class _Call:
    """A call that the scenario asked for."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.inbox: list[bytes] = []
        self._call = call

    def turn(self, _: float) -> None:
        self._call()


class Cable:
    """Two directions between two ports."""

    def __init__(self, there: Direction, back: Direction) -> None:
        self.directions = (there, back)
        self.there = there.counts
        self.back = back.counts

    def set(self, there: Link, back: Link | None = None) -> None:
        """Change what happens to frames from now on; those on their way stay as they are."""
        self.directions[0].link = there
        self.directions[1].link = there if back is None else back


Node = Station | Switch | RouterPort
"""What a cable can be plugged into."""


class World:
    """Hosts, switches, routers, links, and the time.

    Hosts know each other's Ethernet addresses as soon as they are connected; with `introduce` false
    they have to ask, over the links as they are.
    """

    def __init__(self, seed: int = 0, *, introduce: bool = True) -> None:
        self.seed = seed
        self.now = START
        self.stations: list[Station] = []
        self.cables: list[Cable] = []
        self.events = 0
        """Instants so far at which something happened."""
        self.after_event: Callable[[list[Sink]], None] | None = None
        """Called after each, with those that had a turn."""
        self._heap: list[tuple[float, int, Sink, bytes | None]] = []
        self._serial = 0
        self._introduce = introduce
        self._beside: dict[int, list[Node]] = {}  # by identity: who is cabled to whom

    def random(self, purpose: str) -> random_module.Random:
        """A random source that depends on the seed and the purpose alone."""
        digest = hashlib.sha256(f"{self.seed} {purpose}".encode()).digest()
        return random_module.Random(int.from_bytes(digest))

    # ------------------------------------------------------------------ building

    def host(
        self,
        name: str,
        address: str = "",
        *,
        mtu: int = 1500,
        offload: bool = False,
        clock: float = 0.0,
        limits: Limits | None = None,
    ) -> Station:
        """A new host; `address` as 10.0.0.1/24 or fd00::1/64, the next of 10.0.0.0/24 unless given.

        `mtu` in octets; `offload`: its interface takes super-segments; `clock`: seconds that its
        clock is ahead. Raises ValueError for a name that is taken, a malformed address, or a clock
        that would be below nought.
        """
        if clock < -START:
            raise ValueError(f"a clock {-clock} s behind a world that begins at {START} s")
        if any(station.name == name for station in self.stations):
            raise ValueError(f"there is a host called {name!r} already")
        address = address or f"10.0.0.{len(self.stations) + 1}/24"
        station = Station(self, name, address, mtu=mtu, offload=offload, clock=clock, limits=limits)
        self.stations.append(station)
        return station

    def switch(self, name: str = "switch") -> Switch:
        """A new switch."""
        return Switch(self, name)

    def router(self, name: str = "router") -> Router:
        """A new router, whose ports are given to `link`."""
        return Router(self, name)

    def link(self, one: Node, other: Node, there: Link, back: Link | None = None) -> Cable:
        """Connect two; `back` is the way from `other` to `one`, like `there` unless given.

        Raises ValueError when a host is connected already: it has one interface.
        """
        left, right = (n if isinstance(n, Station) else n.plug() for n in (one, other))
        random = self.random(f"cable {len(self.cables)}")
        directions = []
        for source, sink, link in ((left, right, there), (right, left, back or there)):
            if source.port.out is not None:
                raise ValueError(f"{source.port.name} is connected already")
            direction = Direction(
                link,
                random,
                self._deliver_to(sink),
                self._bounce_to(source),
                since=self.now,
                mac=sink.port.mac,
            )
            directions.append(direction)
        left.port.out, right.port.out = directions
        cable = Cable(*directions)
        self.cables.append(cable)
        self._beside.setdefault(id(one), []).append(other)
        self._beside.setdefault(id(other), []).append(one)
        if self._introduce:
            self._meet(one)
            if isinstance(one, RouterPort):
                self._meet(other)
        return cable

    def _deliver_to(self, sink: Sink) -> Callable[[float, bytes], None]:
        heap = self._heap

        def deliver(due: float, frame: bytes) -> None:
            self._serial += 1
            heappush(heap, (due, self._serial, sink, frame))

        return deliver

    def _bounce_to(self, source: Sink) -> Callable[[bytes], None]:
        def bounce(frame: bytes) -> None:
            self._serial += 1
            heappush(self._heap, (self.now, self._serial, source, frame))

        return bounce

    # ------------------------------------------------------------------ time

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Call `call` at `time`, or now if that has passed."""
        self.wake_at(max(time, self.now), _Call(call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call `call` in `seconds`."""
        self.at(self.now + seconds, call)

    def wake_at(self, time: float, sink: Sink) -> None:
        """Give `sink` a turn at `time`."""
        if time < math.inf:
            self._serial += 1
            heappush(self._heap, (time, self._serial, sink, None))

    def run(self, done: Callable[[], bool] | None = None, *, seconds: float = 600.0) -> bool:
        """Go on until `done()`, or until nothing is left to happen, at most for `seconds`.

        Returns whether it is done. Raises LivelockError when time stands still.
        """
        until = self.now + seconds
        heap = self._heap
        spins = 0
        while done is None or not done():
            if not heap:
                return False
            time = heap[0][0]
            if time > until:
                self.now = until
                return False
            if time > self.now:
                self.now = time
                spins = 0
            else:
                spins += 1
                if spins > SPINS:
                    raise LivelockError(f"livelock at {self.now}")
            self._instant()
        return True

    def _instant(self) -> None:
        """Let everything happen that is due now."""
        heap, now = self._heap, self.now
        ready: list[Sink] = []
        while heap and heap[0][0] <= now:
            _, _, sink, frame = heappop(heap)
            if frame is not None:
                sink.inbox.append(frame)
            if sink not in ready:
                ready.append(sink)
        for sink in ready:
            sink.turn(now)
        self.events += 1
        if self.after_event is not None:
            self.after_event(ready)

    # ------------------------------------------------------------------ conveniences

    def _meet(self, node: Node) -> None:
        """Let the hosts that `node` connects learn each other's Ethernet addresses, in no time.

        Three lost questions end an attempt to connect, which is right (RFC 1122 §2.3.2.1), and
        seldom what a scenario is about.
        """
        reached: list[Node] = [node]
        for one in reached:
            if isinstance(one, RouterPort):
                continue  # another network begins behind it
            reached += [n for n in self._beside.get(id(one), []) if n not in reached]
        stations = [one for one in reached if isinstance(one, Station)]
        names = [station.address for station in stations]
        for one in reached:
            if isinstance(one, RouterPort):
                names += map(to_text, one.addresses)
        links = [[direction.link for direction in cable.directions] for cable in self.cables]
        for cable in self.cables:
            cable.set(Link())
        if any(":" in station.address for station in stations):
            self.run(seconds=DETECTION)
        for station in stations:
            network = ip_interface(station.cidr).network
            for name in names:
                if name != station.address and ip_address(name) in network:
                    station.host.network.way(from_text(name))
                    station.host.flush(station.now)
        self.run(seconds=0.0)
        for cable, (there, back) in zip(self.cables, links, strict=True):
            cable.set(there, back)
            for direction in cable.directions:
                direction.counts.clear()

    def inject(self, station: Station, frame: bytes) -> None:
        """Give a host a frame that nobody sent, now; whoever watches its port does not see it."""
        station.host.receive([frame], station.now)
        self.wake_at(self.now, station)

    def settle(self, seconds: float = 1_000.0) -> None:
        """Let everything end: FIN exchanges, orphans, TIME-WAIT."""
        self.run(seconds=seconds)

    def flows(self) -> list[object]:
        """Everything that any host still keeps of any TCP connection."""
        return [flow for station in self.stations for flow in station.host.tcp.flows.values()]
