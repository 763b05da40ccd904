"""Throughput of one connection, or of two that share, in virtual time; and what theory expects.

    python -m tests.sim.response site/docs/response.svg

draws both congestion controls against theory, in some minutes, as the site shows them.

A sender that never runs out, a receiver that never stops reading, and a link between them. Theory
has two formulas for a loss rate p per packet and a round trip R, in segments per second:

    Reno (Mathis et al., 1997; RFC 9438 §4.3)   sqrt(3 / 2p) / R
    CUBIC (RFC 9438 §5.1, equation 6)           (C (3 + β) / 4 (1 - β))^1/4 · (R / p)^3/4 / R

and CUBIC follows whichever is more (RFC 9438 §4.3). Both assume that losses are far apart and are
repaired without a timeout, which stops being so at some percent.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from appliance.fuzz import Link, World
from appliance.net.cubic import BETA, C
from appliance.net.tcb import TcpSettings
from appliance.net.tcp import Connection
from appliance.trace import draw

MSS = 1448  # octets of a full segment on Ethernet, with timestamps
AHEAD = 1 << 20  # octets that the sender writes ahead of the network
BLOCK = bytes(1 << 18)
CONTROLS = ("cubic", "newreno")


class Source:
    """Sends for ever."""

    def __init__(self) -> None:
        self.connection: Connection | None = None

    def tcp_established(self) -> None:
        self.tcp_writable()

    def tcp_writable(self) -> None:
        assert self.connection is not None
        while self.connection.unsent < AHEAD:
            self.connection.send(BLOCK)
        self.connection.notify_below = AHEAD // 2

    def tcp_data(self, data: bytes) -> None:
        raise AssertionError("the sink does not talk")

    def tcp_eof(self) -> None:
        raise AssertionError("the sink does not end")

    def tcp_closed(self, error: Exception | None) -> None:
        raise AssertionError(f"the connection ended: {error}")


class Sink:
    """Reads for ever, and counts."""

    def __init__(self) -> None:
        self.got = 0

    def tcp_established(self) -> None: ...

    def tcp_writable(self) -> None: ...

    def tcp_eof(self) -> None: ...

    def tcp_closed(self, error: Exception | None) -> None: ...

    def tcp_data(self, data: bytes) -> None:
        self.got += len(data)


@dataclass
class Network:
    """Hosts on a link, and as many connections as were asked for."""

    world: World
    sources: list[Source]
    sinks: list[Sink]

    def rates(self, seconds: float) -> list[float]:
        """Let time pass; return each connection's segments per second meanwhile."""
        before = [sink.got for sink in self.sinks]
        self.world.run(seconds=seconds)
        return [
            (sink.got - start) / MSS / seconds
            for sink, start in zip(self.sinks, before, strict=True)
        ]


def opened(control: str, link: Link, back: Link, *, seed: int, flows: int = 1) -> Network:
    """Connect `flows` senders to a receiver, half a second apart."""
    world = World(seed)
    sender, receiver = world.host("sender"), world.host("receiver")
    world.link(sender, receiver, link, back)
    sinks: list[Sink] = []

    def accept(_: Connection) -> Sink:
        sinks.append(Sink())
        return sinks[-1]

    settings = TcpSettings(congestion=control)
    receiver.host.tcp_listen("", 80, accept, settings=settings)
    sources = []
    for number in range(flows):
        source = Source()
        source.connection = sender.host.tcp_connect(receiver.address, 80, source, settings=settings)
        sources.append(source)
        world.run(lambda wanted=number + 1: len(sinks) == wanted, seconds=30.0)
        world.run(seconds=0.5)
    return Network(world, sources, sinks)


def rate(
    control: str, loss: float, rtt: float, *, segments: int, seed: int = 1, link: Link | None = None
) -> float:
    """Segments per second that one connection gets, over about so many of them."""
    forth = link or Link(delay=rtt / 2, loss=loss)
    network = opened(control, forth, Link(delay=rtt / 2), seed=seed)
    network.world.run(seconds=20.0 * rtt + 1.0)  # slow start is another matter
    expected = expectation(control, loss, rtt) if loss else forth.rate / 8 / 1514
    return network.rates(segments / expected)[0]


def reno(loss: float, rtt: float) -> float:
    """Segments per second of Reno (Mathis, Semke, Mahdavi and Ott, 1997)."""
    return sqrt(1.5 / loss) / rtt


def cubic(loss: float, rtt: float) -> float:
    """Segments per second of CUBIC (RFC 9438 §5.1), or Reno's where that is more (§4.3)."""
    window = (C * (3.0 + BETA) / (4.0 * (1.0 - BETA))) ** 0.25 * (rtt / loss) ** 0.75
    return max(window / rtt, reno(loss, rtt))


def expectation(control: str, loss: float, rtt: float) -> float:
    """What theory has for this congestion control, in segments per second."""
    return cubic(loss, rtt) if control == "cubic" else reno(loss, rtt)


# ---- the picture

LOSSES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
ROUND_TRIPS = (0.01, 0.05, 0.1, 0.3)
SEEDS = (1, 2, 3)
SEGMENTS = 40_000
COLOURS = ("blue", "green", "amber", "purple")
NAMES = {"cubic": "CUBIC", "newreno": "NewReno"}


def picture() -> str:
    """Both congestion controls: rate over loss, a colour for each round trip."""
    width, height = 880, 420
    limits = ((0.0009, 0.11), (0.08, 80.0))
    parts = [
        draw.text(70, 26, "Throughput of one connection under random loss", cls="f-ink b t"),
        draw.legend(
            70, 50,
            [(c, f"{rtt * 1e3:g} ms") for c, rtt in zip(COLOURS, ROUND_TRIPS, strict=True)],
        ),
        draw.text(420, 50, "dots: measured; lines: theory; Mbit/s over loss", cls="f-faint"),
    ]  # fmt: skip
    for number, control in enumerate(CONTROLS):
        panel = draw.Panel(70 + number * 410, 92, 370, 290, *limits, log_x=True, log_y=True)
        parts.append(
            panel.frame(
                NAMES[control],
                x_ticks=LOSSES,
                y_ticks=(0.1, 0.3, 1, 3, 10, 30),
                x_name=lambda loss: f"{loss * 100:g} %",
                y_name=lambda rate: f"{rate:g}",
            )
        )
        for colour, rtt in zip(COLOURS, ROUND_TRIPS, strict=True):
            theory = [(loss, megabits(expectation(control, loss, rtt))) for loss in LOSSES]
            parts.append(panel.line(theory, colour))
            measured = [(loss, megabits(average(control, loss, rtt))) for loss in LOSSES]
            parts.append(panel.dots(measured, colour, 3.2))
    title = "Throughput over loss for CUBIC and NewReno, measured and by RFC 9438 and Mathis"
    return draw.document(width, height, title, parts)


def average(control: str, loss: float, rtt: float) -> float:
    """Segments per second, the mean over SEEDS."""
    rates = [rate(control, loss, rtt, segments=SEGMENTS, seed=seed) for seed in SEEDS]
    mean = sum(rates) / len(rates)
    ratio = mean / expectation(control, loss, rtt)
    where = f"{control} {loss:.1%} {rtt * 1e3:g} ms"
    sys.stderr.write(f"{where}: {megabits(mean):.2f} Mbit/s, {ratio:.2f} of theory\n")
    return mean


def megabits(segments: float) -> float:
    """Mbit/s of data in so many segments per second."""
    return segments * MSS * 8 / 1e6


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 when all are equal, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
