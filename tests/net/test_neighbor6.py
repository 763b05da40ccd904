"""RFC 4861 §7, the reachability machine, as scripts: time, message in, message out."""

from __future__ import annotations

import math
import random

import pytest

from appliance.net.neighbor import DELAY, IDLE, INCOMPLETE, PROBING, REACHABLE, STALE, UNUSED
from appliance.net.neighbor6 import DELAY_FIRST_PROBE_TIME, REACHABLE_TIME, NeighborCache6
from appliance.net.wire import ethernet, icmpv6, ipv6, ndp
from appliance.net.wire.address import from_text
from appliance.net.wire.virtio import PLAIN, VNET_HDR_LEN

OURS, PEER = from_text("fe80::1"), from_text("fe80::2")
OUR_MAC, MAC, OTHER = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2", b"\2\0\0\0\0\3"
HEAD = PLAIN + ethernet.header(bytes(6), OUR_MAC, ethernet.ETHERTYPE_IPV6) + b"packet"


class Link:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.unreachable: list[tuple[bytes, list[bytes]]] = []
        self.lost: list[bytes] = []
        self.cache = NeighborCache6(
            OUR_MAC,
            self.send,
            source_for=lambda _: OURS,
            random=random.Random(1),
            on_unreachable=lambda a, f: self.unreachable.append((a, f)),
            on_lost=self.lost.append,
        )

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        self.sent.append(bytes(head) + bytes(payload))
        return True

    def taken(self) -> list[bytes]:
        frames, self.sent = self.sent, []
        return frames

    def solicitations(self) -> list[tuple[bytes, bytes]]:
        """(Ethernet destination, IPv6 destination) of the solicitations that left."""
        found = []
        for frame in self.taken():
            packet = ipv6.parse(frame, 24, len(frame))
            assert packet.hop_limit == ndp.HOP_LIMIT
            message = icmpv6.parse(
                frame, packet.payload_at, packet.payload_end, packet.src, packet.dst
            )
            assert message.type == icmpv6.NEIGHBOR_SOLICITATION
            body = ndp.parse_solicitation(
                frame, message.body_at, message.body_end, packet.src, packet.dst
            )
            assert body == (PEER, OUR_MAC, b"")
            found.append((frame[VNET_HDR_LEN : VNET_HDR_LEN + 6], packet.dst))
        return found

    def answer(
        self, now: float, mac: bytes = MAC, *, solicited: bool = True, override: bool = True,
        router: bool = False,
    ) -> None:  # fmt: skip
        self.cache.advertised(ndp.Advertisement(PEER, mac, router, solicited, override), now)

    def run(self, until: float) -> None:
        while (at := self.cache.deadline()) <= until:
            self.cache.advance(max(at, 0.0))


GROUP = ipv6.solicited_node(PEER)
TO_GROUP = (ipv6.multicast_mac(GROUP), GROUP)
TO_PEER = (MAC, PEER)


def reachable(now: float = 0.0) -> tuple[Link, object]:
    link = Link()
    neighbor = link.cache.lookup(PEER, now)
    link.taken()
    link.answer(now)
    assert neighbor.state == REACHABLE
    return link, neighbor


def test_resolution() -> None:
    """§7.2.2: to the solicited-node group; the packet waits, and leaves when the answer comes."""
    link = Link()
    neighbor = link.cache.lookup(PEER, 0.0)
    link.cache.enqueue(neighbor, HEAD)
    assert link.solicitations() == [TO_GROUP]
    assert neighbor.state == INCOMPLETE
    link.answer(0.1)
    assert link.taken() == [HEAD[:10] + MAC + HEAD[16:]]
    assert (neighbor.state, neighbor.mac) == (REACHABLE, MAC)


def test_nobody_answers() -> None:
    """§7.2.2: three solicitations, a second apart; then the packets come back."""
    link = Link()
    neighbor = link.cache.lookup(PEER, 0.0)
    link.cache.enqueue(neighbor, HEAD)
    link.run(2.9)
    assert link.solicitations() == [TO_GROUP] * 3
    assert link.unreachable == []
    link.run(3.1)
    assert link.unreachable == [(PEER, [HEAD])]
    assert link.lost == []
    assert neighbor.state == IDLE


def test_stale_delay_probe() -> None:
    """§7.3.3: REACHABLE runs out; the first packet starts DELAY; then three unicast questions."""
    link, neighbor = reachable()
    link.run(REACHABLE_TIME * 1.5)
    assert (neighbor.state, neighbor.mac) == (STALE, None)
    assert link.taken() == []
    link.cache.enqueue(neighbor, HEAD)
    assert link.taken() == [HEAD[:10] + MAC + HEAD[16:]]
    assert (neighbor.state, neighbor.mac) == (DELAY, MAC)
    link.cache.advance(100.0)
    assert link.cache.deadline() == 100.0 + DELAY_FIRST_PROBE_TIME
    link.run(107.9)
    assert neighbor.state == PROBING
    assert link.solicitations() == [TO_PEER] * 3
    link.run(108.1)
    assert neighbor.state == IDLE
    assert link.lost == [PEER]


def test_unused_is_not_probed() -> None:
    """§7.3.3: nothing is sent about a STALE entry that nobody uses; it is forgotten at last."""
    link, neighbor = reachable()
    link.run(REACHABLE_TIME * 1.5 + UNUSED + 1)
    assert link.taken() == []
    assert neighbor.state == IDLE
    assert len(link.cache) == 0
    assert link.cache.deadline() == math.inf


def test_progress_confirms() -> None:
    """§7.3.1: a transport that sees its packets acknowledged keeps the entry REACHABLE."""
    link, neighbor = reachable()
    for second in range(1, 300):
        neighbor.confirmed_at = float(second)
        link.run(float(second))
        assert neighbor.state == REACHABLE
    link.run(340.0)
    assert neighbor.state == STALE
    link.cache.enqueue(neighbor, HEAD)
    link.cache.advance(341.0)
    neighbor.confirmed_at = 344.0
    link.taken()
    link.run(346.5)
    assert neighbor.state == REACHABLE
    assert link.taken() == []


def test_progress_ends_the_questions() -> None:
    """§7.3.1: also when the neighbour is being probed already; the next look finds it REACHABLE."""
    link, neighbor = reachable()
    link.run(REACHABLE_TIME * 1.5)
    link.cache.enqueue(neighbor, HEAD)
    link.cache.advance(100.0)
    link.run(105.5)
    assert neighbor.state == PROBING
    link.taken()
    neighbor.confirmed_at = 105.9
    link.run(110.0)
    assert neighbor.state == REACHABLE
    assert link.taken() == []
    assert link.lost == []


def test_advertised_times_are_used() -> None:
    """§6.3.4: reachable time and retransmission timer as the router wants them."""
    link = Link()
    link.cache.base_reachable, link.cache.retransmit = 2.0, 0.25
    link.cache.lookup(PEER, 0.0)
    link.run(0.7)
    assert len(link.solicitations()) == 3
    link.answer(0.7)
    link.run(0.7 + 3.0)
    assert link.cache.entries()[0].state == STALE


@pytest.mark.parametrize(
    ("mac", "solicited", "override", "state", "address"),
    [
        (MAC, True, False, REACHABLE, MAC),
        (MAC, False, False, REACHABLE, MAC),
        (b"", True, False, REACHABLE, MAC),
        (OTHER, False, False, STALE, MAC),  # I: R=no override, another address
        (OTHER, True, False, STALE, MAC),
        (OTHER, False, True, STALE, OTHER),
        (OTHER, True, True, REACHABLE, OTHER),
    ],
)
def test_advertisements_about_a_known_neighbour(
    mac: bytes, solicited: bool, override: bool, state: int, address: bytes
) -> None:
    """§7.2.5, appendix C: what an advertisement does to a REACHABLE entry."""
    link, neighbor = reachable()
    link.answer(1.0, mac, solicited=solicited, override=override)
    assert neighbor.state == state
    assert (neighbor.mac or neighbor.last_mac) == address


@pytest.mark.parametrize("override", [False, True])
def test_unsolicited_answer_to_a_question(override: bool) -> None:
    """§7.2.5: INCOMPLETE takes any address; solicited or not decides the state."""
    link = Link()
    neighbor = link.cache.lookup(PEER, 0.0)
    link.cache.enqueue(neighbor, HEAD)
    link.taken()
    link.answer(0.1, b"", solicited=True)
    assert neighbor.state == INCOMPLETE
    link.answer(0.1, solicited=False, override=override)
    assert link.taken() == [HEAD[:10] + MAC + HEAD[16:]]
    assert neighbor.state == DELAY  # STALE, and the packet that waited was sent through it


def test_nothing_is_learnt_from_strangers() -> None:
    """§7.2.5: no entry is made by an advertisement; nor by a group's or our own MAC."""
    link = Link()
    link.answer(0.0)
    assert len(link.cache) == 0
    for mac in (b"\x33\x33\0\0\0\1", bytes(6), OUR_MAC):
        link.cache.heard(PEER, mac, 0.0, create=True)
    assert len(link.cache) == 0
    link.cache.heard(PEER, MAC, 0.0, create=False)
    assert len(link.cache) == 0


def test_heard_makes_stale() -> None:
    """§7.2.3: the source's address of a solicitation makes an entry, STALE; the same, nothing."""
    link = Link()
    link.cache.heard(PEER, MAC, 0.0, create=True)
    neighbor = link.cache.entries()[0]
    assert (neighbor.state, neighbor.last_mac) == (STALE, MAC)
    link.cache.enqueue(neighbor, HEAD)
    assert link.taken() == [HEAD[:10] + MAC + HEAD[16:]]
    link.answer(1.0)
    link.cache.heard(PEER, MAC, 2.0, create=True)
    assert neighbor.state == REACHABLE
    link.cache.heard(PEER, OTHER, 2.0, create=True)
    assert (neighbor.state, neighbor.last_mac) == (STALE, OTHER)


def test_a_router_that_is_none_any_more() -> None:
    """§7.2.5: the router flag going out takes it off the list of default routers."""
    link, _neighbor = reachable()
    link.answer(1.0, router=True)
    assert link.lost == []
    link.answer(2.0, router=False)
    assert link.lost == [PEER]


def test_spoofed_advertisements_fill_nothing() -> None:
    """A flood of advertisements for addresses that we never asked about leaves no trace."""
    link = Link()
    for number in range(5000):
        target = PEER[:12] + number.to_bytes(4)
        link.cache.advertised(ndp.Advertisement(target, MAC, True, True, True), 0.0)
    assert len(link.cache) == 0
    for number in range(5000):
        link.cache.heard(PEER[:12] + number.to_bytes(4), MAC, 0.0, create=True)
    assert len(link.cache) == 1024
