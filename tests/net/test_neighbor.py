"""The neighbour cache as scripts: time, packet in, packet out."""

from __future__ import annotations

import gc
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.errors import WireError
from appliance.net.neighbor import (
    ATTEMPTS,
    QUEUE_FRAMES,
    QUEUE_OCTETS,
    REACHABLE_MAX,
    REACHABLE_MIN,
    RETRY,
    UNUSED,
    NeighborCounters,
)
from appliance.net.neighbor4 import NeighborCache4
from appliance.net.wire import arp, ethernet
from appliance.net.wire.virtio import PLAIN, VNET_HDR_LEN

OUR_MAC = b"\2\0\0\0\0\1"
MAC = b"\2\0\0\0\0\2"
OTHER_MAC = b"\2\0\0\0\0\3"
OURS = bytes((10, 0, 0, 1))
PEER = bytes((10, 0, 0, 2))
LOCAL = frozenset((OURS,))
HEAD = PLAIN + ethernet.header(bytes(6), OUR_MAC, ethernet.ETHERTYPE_IPV4) + b"ip-"


class Link:
    """A cache and everything that left through it."""

    def __init__(self, capacity: int = 1024) -> None:
        self.sent: list[bytes] = []
        self.room = True
        self.failed: list[tuple[bytes, list[bytes]]] = []
        self.cache = NeighborCache4(
            OUR_MAC,
            self.send,
            source_for=lambda address: OURS,
            random=random.Random(1),
            on_unreachable=lambda address, frames: self.failed.append((address, frames)),
            capacity=capacity,
        )
        self.counters = self.cache.counters

    def send(self, head: bytes, payload: bytes = b"") -> bool:
        if self.room:
            self.sent.append(bytes(head) + bytes(payload))
        return self.room

    def taken(self) -> list[bytes]:
        frames, self.sent = self.sent, []
        return frames

    def hears(
        self,
        operation: int,
        sender_mac: bytes,
        sender: bytes,
        target: bytes,
        now: float,
        target_mac: bytes = OUR_MAC,
    ) -> None:
        packet = arp.build(operation, sender_mac, sender, target_mac, target)
        frame = PLAIN + ethernet.header(OUR_MAC, sender_mac, ethernet.ETHERTYPE_ARP) + packet
        self.cache.arp_arrives(frame, VNET_HDR_LEN + 14, len(frame), now, LOCAL)

    def answered(self, now: float, mac: bytes = MAC, address: bytes = PEER) -> None:
        self.hears(arp.REPLY, mac, address, OURS, now)

    def run_until(self, until: float) -> list[tuple[float, bytes]]:
        """Advance from deadline to deadline; what left, and when."""
        out: list[tuple[float, bytes]] = []
        while (due := self.cache.deadline()) <= until:
            self.cache.advance(due)
            out += [(due, frame) for frame in self.taken()]
        return out


@pytest.fixture
def link() -> Link:
    return Link()


def question(frame: bytes) -> tuple[bytes, arp.ArpPacket]:
    """Destination and packet of an ARP frame."""
    destination, source, kind = ethernet.parse(frame, VNET_HDR_LEN)
    assert (source, kind) == (OUR_MAC, ethernet.ETHERTYPE_ARP)
    assert frame[:VNET_HDR_LEN] == PLAIN
    return destination, arp.parse(frame, VNET_HDR_LEN + 14, len(frame))


ASKED = arp.ArpPacket(arp.REQUEST, OUR_MAC, OURS, bytes(6), PEER)


# Asking


def test_ask_answer_send(link: Link) -> None:
    """RFC 826: a broadcast request, the answer to it, and what waited leaves in order."""
    neighbor = link.cache.lookup(PEER, 0.0)
    assert neighbor.mac is None
    assert [question(frame) for frame in link.taken()] == [(ethernet.BROADCAST, ASKED)]
    link.cache.enqueue(neighbor, HEAD, b"one")
    link.cache.enqueue(neighbor, HEAD, memoryview(b"two"))
    assert link.taken() == []
    link.answered(0.1)
    assert neighbor.mac == MAC
    patched = PLAIN + MAC + HEAD[16:]
    assert link.taken() == [patched + b"one", patched + b"two"]
    assert link.counters.neighbor_resolved == 1
    # From now on senders use `mac`; one that was late is served at once.
    link.cache.enqueue(neighbor, HEAD, b"three")
    assert link.taken() == [patched + b"three"]
    assert link.cache.lookup(PEER, 0.2) is neighbor
    assert link.taken() == []


def test_three_questions_a_second_apart_then_failure(link: Link) -> None:
    """RFC 1122 §2.3.2.1: not more than one request a second for one address."""
    neighbor = link.cache.lookup(PEER, 3.0)  # between turns: with the time of the last one
    link.cache.enqueue(neighbor, HEAD, b"waits")
    link.cache.advance(10.0)
    asked = [(10.0, frame) for frame in link.taken()] + link.run_until(12.9)
    assert [now for now, _ in asked] == [10.0, 10.0 + RETRY, 10.0 + 2 * RETRY]
    assert {question(frame) for _, frame in asked} == {(ethernet.BROADCAST, ASKED)}
    assert link.failed == []
    assert link.run_until(100.0) == []
    assert link.failed == [(PEER, [HEAD + b"waits"])]
    assert link.counters.neighbor_failed == 1
    assert link.cache.deadline() == math.inf
    assert len(link.cache) == 0


def test_a_holder_of_a_failed_neighbour_may_try_again(link: Link) -> None:
    neighbor = link.cache.lookup(PEER, 0.0)
    link.run_until(10.0)
    assert link.failed == [(PEER, [])]
    link.taken()
    link.cache.enqueue(neighbor, HEAD, b"again")
    assert link.cache.deadline() == -math.inf
    link.cache.advance(500.0)
    assert [question(frame) for frame in link.taken()] == [(ethernet.BROADCAST, ASKED)]
    assert link.cache.deadline() == 500.0 + RETRY
    # Whoever looks it up meanwhile finds the same object.
    assert link.cache.lookup(PEER, 500.1) is neighbor
    link.answered(500.2)
    assert link.taken() == [PLAIN + MAC + HEAD[16:] + b"again"]


def test_an_answer_before_the_question_is_enough(link: Link) -> None:
    neighbor = link.cache.lookup(PEER, 0.0)
    link.run_until(10.0)
    link.taken()
    link.cache.enqueue(neighbor, HEAD, b"x")
    link.answered(11.0)
    assert link.taken() == [PLAIN + MAC + HEAD[16:] + b"x"]
    link.cache.advance(11.0)
    assert link.taken() == []


# Queues


def test_newest_frames_are_kept(link: Link) -> None:
    """RFC 1122 §2.3.2.2: save at least the latest packet."""
    neighbor = link.cache.lookup(PEER, 0.0)
    link.taken()
    for number in range(QUEUE_FRAMES + 5):
        link.cache.enqueue(neighbor, HEAD, bytes((number,)))
    link.answered(0.5)
    assert [frame[-1] for frame in link.taken()] == list(range(5, QUEUE_FRAMES + 5))
    assert link.counters.neighbor_queue_dropped == 5


def test_octets_of_all_queues_are_bounded(link: Link) -> None:
    big = bytes(65000)
    fit = QUEUE_OCTETS // (len(HEAD) + len(big))
    neighbors = [link.cache.lookup(bytes((10, 0, 1, n)), 0.0) for n in range(10)]
    link.taken()
    for neighbor in neighbors:
        for _ in range(QUEUE_FRAMES):
            link.cache.enqueue(neighbor, HEAD, big)
    kept = sum(len(neighbor.queue) for neighbor in neighbors)
    assert kept == fit
    assert link.counters.neighbor_queue_dropped == 10 * QUEUE_FRAMES - fit
    # Room comes back with the answers.
    link.answered(0.1, address=neighbors[0].address)
    assert len(link.taken()) == QUEUE_FRAMES
    link.cache.enqueue(neighbors[9], HEAD, big)
    assert len(neighbors[9].queue) == 1


def test_a_link_without_room_is_counted(link: Link) -> None:
    link.room = False
    neighbor = link.cache.lookup(PEER, 0.0)
    link.cache.enqueue(neighbor, HEAD)
    link.answered(0.1)
    assert link.counters.neighbor_send_refused == 2
    assert neighbor.queue == []


# Answering and learning


def test_requests_for_us_are_answered_and_teach(link: Link) -> None:
    """RFC 826: the asker will be talked to next, so it is learnt."""
    link.hears(arp.REQUEST, MAC, PEER, OURS, 1.0, target_mac=bytes(6))
    assert [question(frame) for frame in link.taken()] == [
        (MAC, arp.ArpPacket(arp.REPLY, OUR_MAC, OURS, MAC, PEER))
    ]
    assert link.cache.lookup(PEER, 1.0).mac == MAC
    assert link.taken() == []
    assert link.counters.arp_replies_sent == 1


def test_packets_for_others_update_and_do_not_create(link: Link) -> None:
    """RFC 826, the merge flag."""
    stranger = bytes((10, 0, 0, 77))
    link.hears(arp.REQUEST, MAC, PEER, stranger, 1.0)
    assert len(link.cache) == 0
    assert link.taken() == []
    neighbor = link.cache.lookup(PEER, 1.0)
    link.answered(1.1)
    link.hears(arp.REQUEST, OTHER_MAC, PEER, stranger, 2.0)
    assert neighbor.mac == OTHER_MAC
    assert link.counters.neighbor_changed == 1


def test_gratuitous_announcement_updates(link: Link) -> None:
    """RFC 5227 §2.3: sender and target are the same."""
    neighbor = link.cache.lookup(PEER, 0.0)
    link.answered(0.0)
    link.hears(arp.REQUEST, OTHER_MAC, PEER, PEER, 1.0, target_mac=bytes(6))
    assert neighbor.mac == OTHER_MAC


@pytest.mark.parametrize(
    ("mac", "sender"),
    [
        (ethernet.BROADCAST, PEER),
        (b"\1\0\x5e\0\0\1", PEER),
        (bytes(6), PEER),
        (OUR_MAC, PEER),
        (MAC, bytes((255, 255, 255, 255))),
        (MAC, bytes((224, 0, 0, 1))),
        (MAC, bytes((127, 0, 0, 1))),
        (MAC, bytes((0, 1, 2, 3))),
    ],
)
def test_senders_that_cannot_be_neighbours(link: Link, mac: bytes, sender: bytes) -> None:
    link.hears(arp.REQUEST, mac, sender, OURS, 1.0)
    assert link.taken() == []
    assert len(link.cache) == 0
    assert link.counters.arp_ignored == 1


def test_probe_is_answered_and_teaches_nothing(link: Link) -> None:
    """RFC 5227 §2.1.1: a probe has no sender address; our answer defends ours."""
    link.hears(arp.REQUEST, MAC, bytes(4), OURS, 1.0)
    assert [question(frame)[1].operation for frame in link.taken()] == [arp.REPLY]
    assert len(link.cache) == 0


def test_conflict_is_counted_and_not_believed(link: Link) -> None:
    """RFC 5227 §2.4: someone else uses our address."""
    link.hears(arp.REPLY, MAC, OURS, OURS, 1.0)
    assert link.counters.arp_conflicts == 1
    assert len(link.cache) == 0
    assert link.taken() == []


def test_reply_that_nobody_asked_for_creates_only_if_for_us(link: Link) -> None:
    link.hears(arp.REPLY, MAC, PEER, bytes((10, 0, 0, 9)), 1.0)
    assert len(link.cache) == 0
    link.hears(arp.REPLY, MAC, PEER, OURS, 1.0)
    assert len(link.cache) == 1


@given(st.binary(max_size=60))
def test_any_octets_raise_only_wire_errors(octets: bytes) -> None:
    link = Link()
    try:
        link.cache.arp_arrives(octets, 0, len(octets), 0.0, LOCAL)
    except WireError as error:
        assert error.counter in arp.COUNTERS  # noqa: PT017 - what is tested is what may be raised


# Ageing


def test_a_used_entry_is_refreshed_directly_and_stays_usable(link: Link) -> None:
    """RFC 1122 §2.3.2.1 (2): unicast poll."""
    neighbor = link.cache.lookup(PEER, 0.0)
    link.answered(0.0)
    link.taken()
    neighbor.used = True
    ((now, frame),) = link.run_until(link.cache.deadline())
    assert REACHABLE_MIN <= now <= REACHABLE_MAX
    assert question(frame) == (MAC, ASKED)
    assert neighbor.mac == MAC
    link.answered(now + 0.01)
    assert link.run_until(now + REACHABLE_MIN) == []
    assert link.failed == []


def test_a_neighbour_that_went_away_is_dropped_and_asked_for_by_all(link: Link) -> None:
    neighbor = link.cache.lookup(PEER, 0.0)
    link.answered(0.0)
    link.taken()
    asked = link.run_until(REACHABLE_MAX + 10)
    assert [question(frame) for _, frame in asked] == [(MAC, ASKED)] * ATTEMPTS
    assert neighbor.mac is None
    assert len(link.cache) == 0
    # Nothing waited, so nobody is told: it may only have a new Ethernet address.
    assert link.failed == []
    assert link.counters.neighbor_lost == 1
    link.cache.enqueue(neighbor, HEAD, b"x")
    link.cache.advance(200.0)
    assert [question(frame)[0] for frame in link.taken()] == [ethernet.BROADCAST]


def test_an_unused_entry_is_not_asked_about_and_goes_after_ten_minutes(link: Link) -> None:
    neighbor = link.cache.lookup(PEER, 0.0)
    link.answered(0.0)
    neighbor.used = False
    link.taken()
    assert link.run_until(UNUSED - 1) == []
    assert neighbor.mac == MAC
    assert link.run_until(UNUSED + REACHABLE_MAX) == []
    assert neighbor.mac is None
    assert len(link.cache) == 0
    assert link.failed == []


def test_use_after_a_pause_is_checked(link: Link) -> None:
    neighbor = link.cache.lookup(PEER, 0.0)
    link.answered(0.0)
    neighbor.used = False
    link.taken()
    link.run_until(300.0)
    neighbor.used = True
    asked = link.run_until(300.0 + REACHABLE_MAX)
    assert question(asked[0][1]) == (MAC, ASKED)


def test_confirmation_from_above_spares_the_question(link: Link) -> None:
    """RFC 4861 §7.3.1: acknowledged data is proof enough."""
    neighbor = link.cache.lookup(PEER, 0.0)
    link.answered(0.0)
    link.taken()
    for second in range(0, 300, 5):
        neighbor.used = True
        neighbor.confirmed_at = float(second)
        assert link.run_until(second + 4.9) == []
    neighbor.used = True
    assert link.run_until(295.0 + REACHABLE_MIN) == []
    neighbor.used = True
    assert question(link.run_until(295.0 + 3 * REACHABLE_MAX)[0][1]) == (MAC, ASKED)


def test_confirmation_from_above_ends_the_questions(link: Link) -> None:
    """RFC 4861 §7.3.1, RFC 1122 §2.3.2.1 (4): advice of the transport, in the midst of a poll."""
    neighbor = link.cache.lookup(PEER, 0.0)
    link.answered(0.0)
    link.taken()
    neighbor.used = True
    at = link.cache.deadline()
    assert len(link.run_until(at)) == 1
    neighbor.confirmed_at = at + 0.5
    assert link.run_until(at + REACHABLE_MIN) == []
    assert neighbor.mac == MAC


def test_lifetimes_differ(link: Link) -> None:
    addresses = [bytes((10, 0, 2, n)) for n in range(50)]
    held = [link.cache.lookup(address, 0.0) for address in addresses]
    for address in addresses:
        link.answered(0.0, address=address)
    link.taken()
    firsts = {now for now, _ in link.run_until(REACHABLE_MAX)}
    assert len(firsts) > 30
    assert len(held) == 50


# Bounds of the table


def test_the_table_is_bounded_and_used_entries_survive() -> None:
    link = Link(capacity=8)
    busy = link.cache.lookup(PEER, 0.0)
    link.answered(0.0)
    for number in range(200):
        busy.used = True
        link.cache.lookup(bytes((10, 0, 3, number)), 0.0).used = False
        assert len(link.cache) <= 8
    assert link.counters.neighbor_evicted == 200 - 7
    assert busy.mac == MAC
    assert link.cache.lookup(PEER, 0.0) is busy


def test_a_table_full_of_used_entries_still_makes_room() -> None:
    link = Link(capacity=4)
    held = [link.cache.lookup(bytes((10, 0, 3, number)), 0.0) for number in range(10)]
    assert len(link.cache) == 4
    for neighbor in held:
        link.cache.enqueue(neighbor, HEAD, b"x")
    assert len(link.cache) == 4
    assert sum(len(neighbor.queue) for neighbor in held) == 4
    assert link.counters.neighbor_queue_dropped == 6


def test_evicted_while_held_comes_back_as_the_same() -> None:
    link = Link(capacity=2)
    first = link.cache.lookup(PEER, 0.0)
    link.answered(0.0)
    for number in range(5):
        link.cache.lookup(bytes((10, 0, 3, number)), 0.0)
    assert first.mac is None
    assert link.cache.lookup(PEER, 1.0) is first


def test_forgotten_entries_leave_nothing_behind() -> None:
    link = Link()
    for number in range(500):
        link.cache.lookup(bytes((10, 1, number >> 8, number & 255)), 0.0)
    link.run_until(100.0)
    gc.collect()
    assert len(link.cache) == 0
    assert len(link.cache._held) == 0
    assert len(link.cache._heap) == 0


def test_many_answers_do_not_grow_the_heap(link: Link) -> None:
    link.cache.lookup(PEER, 0.0)
    for number in range(50_000):
        link.answered(number / 1000)
    assert len(link.cache._heap) <= 4 * 1024 + 1


def test_counters_by_name() -> None:
    counters = NeighborCounters()
    counters.neighbor_lost += 1
    assert counters.as_dict()["neighbor_lost"] == 1
    assert set(counters.as_dict().values()) == {0, 1}
