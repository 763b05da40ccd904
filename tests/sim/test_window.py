"""Flow control as a third party on the wire would judge it, from the frames alone."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from appliance.net.errors import WireError
from appliance.net.tcb import TcpSettings
from appliance.net.wire import ethernet, ipv4, tcp
from tests.sim.network import Peer, Trace, World, exchange, pieces
from tests.sim.test_transfer import LINK, WIRES, check

# A window that is never scaled, smaller than eight segments, and closed half of the time.
SMALL = TcpSettings(receive_buffer=600, max_segment=100)


class Seen(NamedTuple):
    """A segment that a host was given whole."""

    at: float
    seq: int
    ack: int
    window: int
    length: int


def segments(trace: Trace) -> list[Seen]:
    """What a host was given, without what is no TCP or fails a checksum."""
    out: list[Seen] = []
    for at, frame in trace:
        try:
            if ethernet.parse(frame, 10)[2] != ethernet.ETHERTYPE_IPV4:
                continue
            ip = ipv4.parse(frame, 24, len(frame))
            header = tcp.parse(frame, ip.payload_at, ip.payload_end)
        except WireError:
            continue
        if ip.protocol == tcp.PROTOCOL and tcp.verify(
            frame, ip.payload_at, ip.payload_end, ip.src, ip.dst
        ):
            length = header.payload_end - header.payload_at
            out.append(Seen(at, header.seq, header.ack, header.window, length))
    return out


def overshoots(receiver: Trace, sender: Trace, base: int) -> list[tuple[Seen, int]]:
    """Segments of data that went past every edge that their sender had been shown by then.

    `base` is the sender's initial number. A single octet past the edge is a window probe.
    """
    shown = [(seen.at, (seen.ack - base + seen.window) & 0xFFFFFFFF) for seen in segments(sender)]
    out: list[tuple[Seen, int]] = []
    for seen in segments(receiver):
        edge = max((edge for at, edge in shown if at <= seen.at), default=0)
        end = (seen.seq - base + seen.length) & 0xFFFFFFFF
        if seen.length and end > edge + (seen.length == 1):
            out.append((seen, edge))
    return out


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_nobody_sends_past_the_window(seed: int, fast_path: bool) -> None:
    """RFC 9293 §3.8.6: SND.UNA + SND.WND bounds what may be sent, whichever ACK came last."""
    generator = random.Random(seed)
    world = World(seed, WIRES["everything"], offload=False)
    client = Peer(pieces(generator, 40_000, 4_000))
    server = Peer(pieces(generator, 40_000, 4_000))
    client.pause_every = server.pause_every = 5
    settings = TcpSettings(receive_buffer=600, max_segment=100, fast_path=fast_path)
    exchange(world, client, server, settings=settings)
    for _ in range(3_000):
        world.run(lambda: bool(client.closed and server.closed), seconds=0.2)
        if client.closed and server.closed:
            break
        for peer in (client, server):
            if peer.connection is not None:
                peer.conn.resume()
    check(client, server)
    assert overshoots(world.traces["server"], world.traces["client"], client.conn.iss) == []
    assert overshoots(world.traces["client"], world.traces["server"], server.conn.iss) == []


def test_a_small_window_is_filled_not_dribbled_into() -> None:
    """RFC 9293 §3.8.6.2.1: after the override timeout the sender sends what fits, not an octet."""
    world = World(17, LINK, offload=False)
    client, server = Peer([bytes(5_000)]), Peer([])
    server.pause_every = 1
    exchange(world, client, server, settings=SMALL)
    world.run(seconds=2.0)
    # The first 88 octets were read, and 600 fit after them: seven segments, and the 72 left over.
    assert server.conn.rcv_nxt - server.conn.irs - 1 == 688
    assert len([seen for seen in segments(world.traces["server"]) if seen.length == 1]) < 6
