"""Attackers against a live conversation, in virtual time.

    off path     forges packets of a connection whose numbers it does not know. RFC 5961 and RFC
                 5927 say that nothing must come of them, except by a guess of one in billions; here
                 the attacker knows where the guesses would be right, and aims just beside them
    in between   changes, drops and repeats what passes, sums repaired: the connection may break,
                 the host may not

`off_path` and `in_between` are functions of a seed, and say what was broken like `run.run` does.
Imports `run`, `mutate`, `scenario` and `net.wire`.
"""

from __future__ import annotations

import dataclasses
import random as random_module
from collections.abc import Callable, Collection, Mapping
from typing import Final

from appliance.fuzz import invariants, invent, mutate
from appliance.fuzz.application import End
from appliance.fuzz.link import Link
from appliance.fuzz.port import Sink
from appliance.fuzz.run import SETTLE, Outcome, Run, describe
from appliance.fuzz.scenario import Expect, Flow, Machine, Scenario
from appliance.fuzz.world import LivelockError, Station
from appliance.net.checksum import ones_complement_sum
from appliance.net.seq import MASK
from appliance.net.tcb import TcpSettings
from appliance.net.tcp import Connection
from appliance.net.tcp_state import ESTABLISHED
from appliance.net.wire import ethernet, icmp, ipv4, tcp, udp
from appliance.net.wire.address import from_text
from appliance.net.wire.tcp import ACK, FIN, PSH, RST, SYN
from appliance.net.wire.virtio import PLAIN, VNET_HDR_LEN

Random = random_module.Random

FORGED: Final = 0.3
"""Chance of a forged packet after an event."""
MOST: Final = 400
"""Forged packets in a run."""


# ---------------------------------------------------------------------- off path


def conversation(seed: int) -> Scenario:
    """Two machines that talk for a while over a good link; nothing but an attacker could hurt."""
    random = Random(f"conversation {seed}")
    settings = TcpSettings(
        timestamps=random.random() < 0.5,
        sack=random.random() < 0.7,
        receive_buffer=random.choice((6 << 20, 65_535, 10_000)),
        ecn_request=random.random() < 0.3,
    )
    talk = End(sends=random.choice((2_000, 100_000)), piece=5_000, gap=0.05, when="done")
    slow = dataclasses.replace(talk, pause_every=random.choice((0, 3)), pause=0.5)
    return Scenario(
        seed=seed,
        client=Machine(tcp=settings),
        server=Machine(tcp=settings),
        link=Link(delay=random.choice((0.001, 0.05))),
        flow=(Flow(client=talk, server=slow), Flow(client=talk, server=talk)),
        expect=Expect(errors="none"),
    )


class Forger:
    """Makes packets that a connection must survive, from what it knows of the connection."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._kinds: tuple[tuple[str, Callable[[Connection], tuple[int, bytes] | None]], ...] = (
            ("reset in the window", self._reset_in_window),
            ("reset outside", self._reset_outside),
            ("SYN", self._syn),
            ("data with a wrong ACK", self._data_wrong_ack),
            ("data outside the window", self._data_outside),
            ("FIN with a wrong ACK", self._fin_wrong_ack),
            ("bare ACK of what was never sent", self._ack_unsent),
            ("no ACK flag", self._no_ack),
            ("ICMP error that quotes nothing in flight", self._icmp),
            ("UDP", self._udp),
            ("fragments", self._fragment),
        )

    def forge(self, connection: Connection) -> tuple[str, bytes] | None:
        """A frame without addresses of Ethernet, and what kind it is."""
        name, make = self._random.choice(self._kinds)
        made = make(connection)
        if made is None:
            return None
        protocol, body = made
        return name, self._packet(connection, protocol, body)

    # -- numbers

    def _window(self, c: Connection) -> int:
        return max(c.rcv_adv - c.rcv_nxt, 0)

    def _inside(self, c: Connection) -> int | None:
        """A number in the receive window, but not the next one."""
        window = self._window(c)
        if window < 2:
            return None
        return c.rcv_nxt + self._random.randrange(1, window)

    def _outside(self, c: Connection) -> int:
        """A number well outside the receive window and the octets before it."""
        span = self._window(c) + (1 << 20)
        return c.rcv_nxt + span + self._random.randrange((1 << 32) - 2 * span)

    def _wrong_ack(self, c: Connection) -> int:
        """Outside [SND.UNA - MAX.SND.WND, SND.NXT], where RFC 5961 §5.2 believes an ACK."""
        span = c.max_snd_wnd + (1 << 17)
        return (
            c.snd_nxt + 1 + self._random.randrange((1 << 32) - span - (c.snd_nxt - c.snd_una) - 2)
        )

    # -- kinds

    def _segment(
        self, c: Connection, seq: int, ack: int, flags: int, payload: bytes = b""
    ) -> tuple[int, bytes]:
        # Whoever does not see the connection does not know its timestamps, but may guess well.
        stamp = (c.ts_recent + self._random.choice((0, 1, 1000))) & MASK
        options = tcp.build_options((stamp, 0)) if c.ts_on else b""
        return tcp.PROTOCOL, tcp.build(
            from_text(c.remote[0]), from_text(c.local[0]), c.remote[1], c.local[1], seq & MASK,
            ack & MASK, flags, self._random.choice((0, 1, 1000, 65_535)), options=options,
            payload=payload,
        )  # fmt: skip

    def _reset_in_window(self, c: Connection) -> tuple[int, bytes] | None:
        # RFC 5961 §3.2: answered with a challenge, and nothing else.
        seq = self._inside(c)
        return None if seq is None else self._segment(c, seq, c.snd_una, RST | ACK)

    def _reset_outside(self, c: Connection) -> tuple[int, bytes]:
        return self._segment(c, self._outside(c), 0, RST)

    def _syn(self, c: Connection) -> tuple[int, bytes]:
        # RFC 5961 §4.2: whatever its number.
        seq = self._random.choice((c.rcv_nxt, c.rcv_nxt - 1, self._outside(c), c.rcv_nxt + 1))
        return self._segment(c, seq, c.snd_una, SYN | self._random.choice((0, ACK)))

    def _data_wrong_ack(self, c: Connection) -> tuple[int, bytes] | None:
        payload = self._random.randbytes(self._random.choice((1, 100, 1000)))
        return self._segment(c, c.rcv_nxt, self._wrong_ack(c), ACK | PSH, payload)

    def _data_outside(self, c: Connection) -> tuple[int, bytes]:
        return self._segment(c, self._outside(c), c.snd_una, ACK, bytes(100))

    def _fin_wrong_ack(self, c: Connection) -> tuple[int, bytes]:
        return self._segment(c, c.rcv_nxt, self._wrong_ack(c), FIN | ACK)

    def _ack_unsent(self, c: Connection) -> tuple[int, bytes]:
        return self._segment(c, c.rcv_nxt, self._wrong_ack(c), ACK)

    def _no_ack(self, c: Connection) -> tuple[int, bytes]:
        flags = self._random.choice((0, FIN, PSH, FIN | PSH))
        return self._segment(c, c.rcv_nxt, 0, flags, b"blind")

    def _icmp(self, c: Connection) -> tuple[int, bytes]:
        # RFC 5927 §4: an error must quote a number in flight.
        number = c.snd_nxt + 1 + self._random.randrange(1 << 31)
        quoted = self._quote(c, number)
        made = self._random.choice(
            (
                icmp.unreachable(self._random.choice((0, 1, 2, 3, 13)), quoted),
                icmp.unreachable(4, quoted, self._random.choice((0, 68, 296, 576, 1400))),
                icmp.time_exceeded(0, quoted),
                icmp.build(icmp.SOURCE_QUENCH, 0, 0, quoted),
                icmp.build(icmp.REDIRECT, 1, int.from_bytes(from_text("10.0.0.9")), quoted),
                icmp.parameter_problem(self._random.randrange(40), quoted),
            )
        )
        return ipv4.PROTO_ICMP, made

    def _quote(self, c: Connection, number: int) -> bytes:
        body = c.local[1].to_bytes(2) + c.remote[1].to_bytes(2) + (number & MASK).to_bytes(4)
        return _ipv4_header(c.local[0], c.remote[0], tcp.PROTOCOL, len(body) + 32) + body

    def _udp(self, c: Connection) -> tuple[int, bytes]:
        port = self._random.choice((53, c.local[1], 4711))
        here, there = from_text(c.local[0]), from_text(c.remote[0])
        return udp.PROTOCOL, udp.build(there, here, c.remote[1], port, b"hello")

    def _fragment(self, c: Connection) -> tuple[int, bytes]:
        # Too short for a header: RFC 1858 §3, "tiny fragments". See `_packet`.
        return tcp.PROTOCOL, self._random.randbytes(self._random.choice((8, 16, 24)))

    def _packet(self, c: Connection, protocol: int, body: bytes) -> bytes:
        fragment = 0
        if protocol == tcp.PROTOCOL and len(body) in (8, 16, 24) and body[12:13] != b"\x50":
            fragment = self._random.choice((0x2000, 0x2001, 1, 0x1FFF))
        head = _ipv4_header(c.remote[0], c.local[0], protocol, len(body), fragment)
        return ethernet.ETHERTYPE_IPV4.to_bytes(2) + head + body


def _ipv4_header(src: str, dst: str, protocol: int, length: int, fragment: int = 0) -> bytes:
    head = bytearray((0x45, 0)) + (20 + length).to_bytes(2) + b"\x12\x34" + fragment.to_bytes(2)
    head += bytes((64, protocol, 0, 0)) + from_text(src) + from_text(dst)
    head[10:12] = (ones_complement_sum(bytes(head)) ^ 0xFFFF).to_bytes(2)
    return bytes(head)


class OffPath(Run):
    """A conversation, and forged packets into it; `only` those of these numbers, if given."""

    def __init__(self, seed: int, only: Collection[int] | None = None) -> None:
        super().__init__(conversation(seed))
        self._seed = seed
        self._only = only
        self._asked = 0
        self.forged: list[tuple[int, float, str, str]] = []
        """Number, time, victim and kind of each packet that was forged."""

    def report(self, rule: str, text: str) -> None:
        """Note a broken rule.

        A duplicate of forged octets is reported to the peer like any other (RFC 2883 §4), though
        none of them ever passed the wire.
        """
        if rule != "sack":
            super().report(rule, text)

    def _after_event(self, ready: list[Sink]) -> None:
        super()._after_event(ready)
        # A packet is made from its number and the state of its victim: those that are left out
        # change nothing about the making of the others.
        random = Random(f"{self._seed} {self.world.events}")
        if random.random() >= FORGED or self._asked >= MOST:
            return
        station = random.choice((self.client, self.server))
        victims = [
            flow
            for flow in station.host.tcp.flows.values()
            if type(flow) is Connection and flow.state == ESTABLISHED
        ]
        if not victims:
            return
        self._asked += 1
        if self._only is not None and self._asked not in self._only:
            return
        made = Forger(random).forge(random.choice(victims))
        if made is None:
            return
        self.forged.append((self._asked, self.world.now, station.name, made[0]))
        self.world.inject(station, _from_elsewhere(station, made[1]))


def _from_elsewhere(station: Station, rest: bytes) -> bytes:
    """A frame for a host as its router would send it."""
    return b"".join((PLAIN, station.port.mac, b"\x02\0\0\0\0\x99", rest))


def off_path(seed: int, only: Collection[int] | None = None) -> Outcome:
    """Run a conversation under attack from off the path."""
    return OffPath(seed, only).go()


def fewest(seed: int, rule: str) -> list[int]:
    """The forged packets that it takes to break `rule`: halves are left out while it breaks."""

    def breaks(numbers: Collection[int]) -> bool:
        return any(finding.rule == rule for finding in off_path(seed, numbers).findings)

    run = OffPath(seed)
    run.go()
    numbers = [entry[0] for entry in run.forged]
    size = len(numbers) // 2
    while size:
        at = 0
        while at < len(numbers):
            fewer = numbers[:at] + numbers[at + size :]
            if breaks(fewer):
                numbers = fewer
            else:
                at += size
        size //= 2
    return numbers


# ---------------------------------------------------------------------- in between

HURTS_ONLY_THE_CONNECTION: Final = frozenset(
    ("stream", "error", "progress", "expect", "content", "acknowledgment", "sack", "window", "mss")
)
"""Rules that an attacker who rewrites packets may break: they are about the two ends together."""


class InBetween(Run):
    """A random scenario whose packets are rewritten on their way."""

    def __init__(self, seed: int) -> None:
        scenario = invent.scenario(seed)
        super().__init__(dataclasses.replace(scenario, seconds=600.0))
        self._tamper = Random(f"in between {seed}")
        self._rate = self._tamper.choice((0.01, 0.1, 0.5))

    def report(self, rule: str, text: str) -> None:
        """Note a broken rule that is the host's own."""
        if rule not in HURTS_ONLY_THE_CONNECTION:
            super().report(rule, text)

    def go(self) -> Outcome:
        """Run it, give the connections up, and see what is left."""
        scenario, world, outcome = self.scenario, self.world, self.outcome
        try:
            for direction in self.cable.directions:
                direction.tamper = self._changed
            world.after_event = self._after_event
            for number, flow in enumerate(scenario.flow):
                self._prepare(number, flow)
            world.run(self._done, seconds=scenario.seconds)
            for direction in self.cable.directions:
                direction.tamper = None
            for pair in self.pairs:
                for app in (pair.client, pair.server):
                    if app.connection is not None and not app.over:
                        app.conn.abort()
                        app.ended = "abort"
            for station in world.stations:
                for flow_left in list(station.host.tcp.flows.values()):
                    if type(flow_left) is Connection:
                        flow_left.abort()
            world.run(lambda: bool(outcome.findings), seconds=SETTLE)
            for station in world.stations:
                for rule, text in invariants.of_idle_host(station.host):
                    self.report(rule, f"{station.name}: {text}")
        except LivelockError as error:
            self.report("livelock", str(error))
        except Exception as error:  # whatever escapes is the finding
            self.report("exception", describe(error))
        outcome.packets = sum(way.counts.delivered for way in self.cable.directions)
        outcome.connections = self._opened
        for station in world.stations:
            outcome.counters.update(station.host.counters.as_dict())
        return outcome

    def _changed(self, frame: bytes) -> list[bytes]:
        """What becomes of a frame."""
        random = self._tamper
        if random.random() >= self._rate or frame[1]:
            return [frame]
        plain = mutate.repaired(frame[VNET_HDR_LEN:])
        changed = PLAIN + mutate.frame(plain, random)
        return random.choice(([changed], [changed], [frame, changed], [changed, frame], []))


def in_between(seed: int) -> Outcome:
    """Run a scenario with a liar in the middle."""
    return InBetween(seed).go()


ATTACKS: Final[Mapping[str, Callable[[int], Outcome]]] = {
    "off-path": off_path,
    "in-between": in_between,
}
