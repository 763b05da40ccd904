"""Random scenarios: one seed, one scenario, so that a campaign is a row of numbers.

What is likely here is what goes wrong in the world, not what is common in it: small buffers, odd
MTUs, options missing at one end, links that are bad in one direction. Sizes are bounded by what a
run costs: some thousands of packets. Imports `scenario` and its parts.
"""

from __future__ import annotations

import math
import random as random_module
from dataclasses import replace
from typing import Final, Literal

from appliance.fuzz.application import End
from appliance.fuzz.link import Burst, Link
from appliance.fuzz.scenario import Flow, Machine, Middle, Scenario
from appliance.net.tcb import TcpSettings

PACKETS: Final = 2_000
"""Segments of data in one direction of a scenario, about."""

Random = random_module.Random


def scenario(seed: int) -> Scenario:
    """The scenario that belongs to `seed`."""
    random = Random(f"scenario {seed}")
    client, server = _machine(random), _machine(random)
    segment = min(_segment(client), _segment(server))
    link = _link(random)
    back = _link(random) if random.random() < 0.3 else None
    flows = tuple(_flow(random, segment) for _ in range(random.choice((1, 1, 1, 2, 3))))
    six = random.random() < 0.3
    if six:
        client, server = (replace(m, mtu=max(m.mtu, 1280)) for m in (client, server))
        link = replace(link, mtu=link.mtu and max(link.mtu, 1280))
        back = back and replace(back, mtu=back.mtu and max(back.mtu, 1280))
    middle = _middle(Random(f"middle {seed}"), six)
    client, server, flows = _fast(Random(f"fast open {seed}"), client, server, flows)
    return Scenario(
        seed=seed,
        ip=6 if six else 4,
        client=client,
        server=server,
        link=link,
        back=back,
        middle=middle,
        flow=flows,
    )


def _middle(random: Random, six: bool) -> Middle | None:
    """Routers, now and then; their draws are their own, so that other seeds stay what they are."""
    if random.random() >= 0.1:
        return None
    mtu = random.choice((1500, 1280, 1400, 1492) if six else (1500, 1280, 1400, 600, 576))
    rate = random.choice((math.inf, 1e8, 2e6))
    link = Link(
        delay=random.choice((0.0, 0.01, 0.05)), rate=rate, queue=100_000,
        loss=random.choice((0.0, 0.0, 0.001, 0.03)),
    )  # fmt: skip
    return Middle(mtu=mtu, signal=random.random() < 0.9, link=link)


def _fast(
    random: Random, client: Machine, server: Machine, flows: tuple[Flow, ...]
) -> tuple[Machine, Machine, tuple[Flow, ...]]:
    """TCP Fast Open (RFC 7413), now and then; its draws are its own too."""
    if random.random() >= 0.2:
        return client, server, flows
    cookies = random.random() < 0.6
    opens = replace(client.tcp, fast_open=1, fast_open_cookies=cookies)
    serves = replace(
        server.tcp, fast_open=random.choice((0, 1, 4, 1_000)), fast_open_cookies=cookies
    )
    early = tuple(
        replace(flow, client=replace(flow.client, early=random.random() < 0.8)) for flow in flows
    )
    return replace(client, tcp=opens), replace(server, tcp=serves), early


def _segment(machine: Machine) -> int:
    return min(machine.mtu - 52, machine.tcp.max_segment or 65_535, machine.tcp.receive_buffer)


def _machine(random: Random) -> Machine:
    chance = random.random
    return Machine(
        tcp=TcpSettings(
            congestion=random.choice(("cubic", "cubic", "newreno")),
            nodelay=chance() < 0.3,
            receive_buffer=random.choice((6 << 20, 6 << 20, 1 << 17, 65_535, 20_000, 5_000, 1_200)),
            receive_start=random.choice((1 << 16, 1 << 16, 10_000, 1_000)),
            window_scaling=chance() < 0.8,
            timestamps=chance() < 0.75,
            sack=chance() < 0.75,
            ecn=chance() < 0.8,
            ecn_request=chance() < 0.3,
            max_segment=random.choice((0, 0, 0, 1_000, 536, 200)),
            keepalive=random.choice((0.0, 0.0, 0.0, 0.0, 0.0, 30.0)),
            user_timeout=random.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 60.0)),
            fast_path=chance() < 0.9,
        ),
        mtu=random.choice((1500, 1500, 1500, 1280, 576, 9000, 200 + random.randrange(3000))),
        offload=chance() < 0.5,
        clock=random.choice((0.0, 0.0, 0.001, -3_600.0, 86_400.0)) if chance() < 0.5 else 0.0,
        backlog=random.choice((1024, 1024, 1024, 4)),
        memory=60_000 if chance() < 0.05 else 256 << 20,
    )


def _link(random: Random) -> Link:
    chance = random.random

    def sometimes(odds: float, most: float) -> float:
        return round(random.uniform(0.0, most), 4) if chance() < odds else 0.0

    rate = random.choice((math.inf, math.inf, 1e9, 1e8, 1e7, 2e6, 3e5))
    delay = random.choice((0.0, 0.0001, 0.001, 0.01, 0.05, 0.1, 0.3))
    queue = random.choice((3_000, 20_000, 100_000, 1_000_000))
    blackouts = []
    at = 0.0
    while chance() < 0.15:
        at += random.uniform(0.0, 5.0)
        length = random.choice((0.1, 0.5, 2.0, 20.0, 100.0))
        blackouts.append((round(at, 3), round(at + length, 3)))
        at += length
    return Link(
        delay=delay,
        jitter=sometimes(0.3, 0.05),
        rate=rate,
        # No more than two seconds of queue: a neighbour must be able to answer.
        queue=queue if rate == math.inf else min(queue, max(int(rate / 4), 3_000)),
        discipline="codel" if chance() < 0.25 else "tail",
        full="refuse" if chance() < 0.2 else "drop",
        mark=chance() < 0.7,
        mtu=random.choice((1_400, 1_000, 600)) if chance() < 0.1 else 0,
        loss=random.choice((0.001, 0.01, 0.03, 0.07, 0.25)) if chance() < 0.5 else 0.0,
        burst=Burst(begin=0.01, end=random.choice((0.1, 0.3, 0.6))) if chance() < 0.1 else None,
        duplicate=sometimes(0.2, 0.1),
        corrupt=sometimes(0.2, 0.03),
        truncate=sometimes(0.1, 0.03),
        pad=sometimes(0.1, 0.5),
        reorder=sometimes(0.3, 0.2),
        reorder_by=random.choice((0.0005, 0.01, 0.1, 1.0)),
        blackouts=tuple(blackouts),
    )


def _flow(random: Random, segment: int) -> Flow:
    """One of the ways in which applications use TCP."""
    octets = max(min(PACKETS * segment, random.choice((0, 1, 1_000, 30_000, 300_000))), 1)
    piece = random.choice((1, 9, 200, 1_460, 20_000, 65_536))
    piece = max(piece, octets // 2_000)
    sender = End(sends=octets, piece=piece)
    kind = random.choice(_KINDS)
    at = random.choice((0.0, 0.0, 1.0))
    if kind == "bulk":
        return Flow(client=sender, server=End(when="eof"), at=at)
    if kind == "download":
        return Flow(client=End(when="eof"), server=sender, at=at)
    if kind == "both ways":
        return Flow(client=sender, server=sender, at=at)
    if kind == "request/response":
        ask = End(sends=random.randint(1, 3_000), when="done", ending=_ending(random))
        answer = End(sends=random.randint(1, 20_000), when="eof")
        return Flow(client=ask, server=answer, rounds=random.randint(1, 20), at=at)
    if kind == "slow reader":
        rest = random.choice((0.05, 1.0, 30.0))
        slow = End(when="eof", pause_every=random.randint(1, 5), pause=rest)
        return Flow(client=End(sends=min(octets, 100 * segment), piece=piece), server=slow, at=at)
    if kind == "half-close":
        late = End(sends=octets, piece=max(piece, octets // 200), gap=random.choice((0.0, 0.5)))
        return Flow(client=End(sends=1), server=late, at=at)
    if kind == "abort":
        quits = End(
            sends=octets, ending=random.choice(("abort", "close")),
            when=random.choice(("sent", "received", "time")),
            after=random.choice((0.0, 0.2, 5.0)),
        )  # fmt: skip
        ends = (quits, End(sends=octets, when="sent"))
        one, other = ends if random.random() < 0.5 else ends[::-1]
        return Flow(client=one, server=other, at=at)
    if kind == "simultaneous open":
        return Flow(client=sender, server=sender, opens="both", at=at)
    if kind == "trickle":
        drip = End(sends=min(octets, 400), piece=10, gap=random.choice((0.01, 0.3)), when="sent")
        return Flow(client=drip, server=End(sends=min(octets, 100), when="eof"), at=at)
    # Many short connections.
    count = random.choice((10, 100, 500))
    ask = End(sends=random.randint(1, 200), when="done", ending=_ending(random))
    answer = End(sends=random.randint(1, 400), when="sent", ending=_ending(random))
    return Flow(
        client=ask, server=answer, rounds=1, count=count, every=random.choice((0.0, 0.001, 0.1))
    )


_KINDS: Final = (
    "bulk", "download", "both ways", "request/response", "slow reader", "half-close", "abort",
    "simultaneous open", "trickle", "many",
)  # fmt: skip


def _ending(random: Random) -> Literal["shutdown", "close"]:
    return random.choice(("shutdown", "close"))
