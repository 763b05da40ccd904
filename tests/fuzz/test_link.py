"""Links: each fault by itself, in the measure asked for, and nothing else."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest

from appliance.fuzz.codel import INTERVAL, TARGET, CoDel
from appliance.fuzz.damage import corrupted, marked, padded, too_big, truncated
from appliance.fuzz.link import Burst, Direction, Link, packet_length
from appliance.net.checksum import ones_complement_sum
from appliance.net.wire import ethernet, icmp, ipv4, tcp
from appliance.net.wire.virtio import PLAIN, VNET_HDR_LEN

SRC, DST = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
AT = VNET_HDR_LEN + ethernet.HEADER_LEN


def frame(payload: bytes = b"x" * 100, tos: int = 0) -> bytes:
    segment = tcp.build(SRC, DST, 1, 2, 3, 4, tcp.ACK, 5, payload=payload)
    head = bytearray((0x45, tos)) + (20 + len(segment)).to_bytes(2) + b"\0\1\x40\0"
    head += bytes((64, 6, 0, 0)) + SRC + DST
    head[10:12] = (ones_complement_sum(bytes(head)) ^ 0xFFFF).to_bytes(2)
    return PLAIN + ethernet.header(bytes(6), b"\2" * 6, 0x0800) + bytes(head) + segment


class Way:
    """A direction, and what came out of it."""

    def __init__(self, link: Link, seed: int = 1) -> None:
        self.out: list[tuple[float, bytes]] = []
        self.back: list[bytes] = []
        self.direction = Direction(
            link,
            random.Random(seed),
            lambda due, one: self.out.append((due, one)),
            self.back.append,
            since=0.0,
            mac=b"\2" * 6,
        )
        self.counts = self.direction.counts

    def send(self, count: int, gap: float = 0.0, one: bytes = frame()) -> Way:
        for n in range(count):
            self.direction.admit(one, n * gap)
        return self


def test_a_plain_link_delays() -> None:
    way = Way(Link(delay=0.25)).send(3, 0.1)
    assert [due for due, _ in way.out] == pytest.approx([0.25, 0.35, 0.45])
    assert all(one == frame() for _, one in way.out)


def test_loss_is_what_was_asked_for() -> None:
    way = Way(Link(loss=0.1)).send(10_000)
    assert 900 < way.counts.lost < 1_100
    assert way.counts.delivered + way.counts.lost == 10_000


def test_losses_come_in_bursts() -> None:
    """Gilbert and Elliott: bursts of 1 / `end` frames, in begin / (begin + end) of all frames."""
    way = Way(Link(burst=Burst(begin=0.01, end=0.25))).send(40_000, 1.0)
    arrived = [round(due) for due, _ in way.out]
    gaps = [b - a - 1 for a, b in itertools.pairwise(arrived) if b - a > 1]
    assert 3.5 < sum(gaps) / len(gaps) < 4.5
    assert 0.03 < way.counts.lost / 40_000 < 0.05


def test_rate_and_queue() -> None:
    """164 octets at 8,000 bit/s leave every 0.164 s; of ten at once, what finds no room is lost."""
    way = Way(Link(rate=8_000.0, queue=500)).send(10)
    dues = [due for due, _ in way.out]
    size = len(frame()) - VNET_HDR_LEN
    assert dues == pytest.approx([size / 1000 * (n + 1) for n in range(len(dues))])
    assert way.counts.overflowed == 10 - len(dues) == 6


def test_a_full_queue_can_hold_its_sender_up() -> None:
    way = Way(Link(rate=8_000.0, queue=500, full="refuse"))
    taken = [way.direction.admit(frame(), 0.0) for _ in range(10)]
    assert taken == [True] * taken.count(True) + [False] * taken.count(False)
    assert way.counts.overflowed == 0
    assert way.counts.refused == taken.count(False) > 0
    later = way.direction.writable_at(0.0)
    assert way.direction.admit(frame(), later)


def test_jitter_keeps_the_order_and_reordering_does_not() -> None:
    calm = Way(Link(jitter=0.05)).send(500, 0.001)
    dues = [due for due, _ in calm.out]
    assert dues == sorted(dues)
    assert len(set(dues)) > 10
    wild = Way(Link(reorder=0.2, reorder_by=0.01)).send(500, 0.001)
    dues = [due for due, _ in wild.out]
    assert dues != sorted(dues)
    assert 60 < wild.counts.reordered < 140


def test_duplicates_are_whole() -> None:
    way = Way(Link(duplicate=0.5)).send(1_000)
    assert 400 < way.counts.duplicated < 600
    assert len(way.out) == 1_000 + way.counts.duplicated


def test_nothing_passes_in_a_blackout() -> None:
    way = Way(Link(blackouts=((1.0, 2.0), (5.0, 6.0)))).send(80, 0.1)
    sent_at = [round(due, 6) for due, _ in way.out]
    assert not [at for at in sent_at if 1.0 <= at < 2.0 or 5.0 <= at < 6.0]
    assert way.counts.blacked_out == 20


def test_a_changed_link_overtakes_nothing() -> None:
    way = Way(Link(delay=1.0)).send(1)
    way.direction.link = Link(delay=0.0)
    way.direction.admit(frame(), 0.5)
    assert [due for due, _ in way.out] == [1.0, 1.0]


def test_damage_is_noticed_by_whoever_looks() -> None:
    """RFC 1071: sums that differ by a power of two differ."""
    source = random.Random(3)
    for _ in range(300):
        damaged = corrupted(frame(), source)
        assert damaged is not None
        assert damaged != frame()
        assert len(damaged) == len(frame())
        header = damaged[AT : AT + 20]
        whole = ones_complement_sum(header) == 0xFFFF and tcp.verify(
            damaged, AT + 20, len(damaged), damaged[AT + 12 : AT + 16], damaged[AT + 16 : AT + 20]
        )
        assert not whole


class Chosen(random.Random):
    """Draws what it was told to."""

    def __init__(self, *draws: int) -> None:
        super().__init__()
        self._draws = list(draws)

    def randrange(self, *bounds: int) -> int:  # type: ignore[override]
        return self._draws.pop(0)


def test_a_second_flip_does_not_hide_the_first() -> None:
    """Found by `appliance fuzz`, behind routers: 1 made 0 in one word, 0 made 1 in another.

    RFC 1071 §1: a sum of words does not see it; so no host could be blamed for not seeing it.
    """
    whole = frame()
    one = AT + 20 + 4  # two octets of the sequence number, which differ in their lowest bit
    other = next(i for i in range(one + 2, len(whole), 2) if (whole[i] ^ whole[one]) & 1)
    once = corrupted(whole, Chosen(one, 0))
    assert once is not None
    assert corrupted(once, Chosen(other, 0)) is None
    assert corrupted(once, Chosen(other, 1)) is not None
    # Nor do octets that pad a frame stand in for those that it has lost.
    assert padded(whole[:-5], Chosen()) is None


def test_what_is_cut_short_says_its_old_length_and_padding_is_outside() -> None:
    source = random.Random(4)
    short = truncated(frame(), source)
    long = padded(frame(), source)
    assert short is not None
    assert long is not None
    assert frame().startswith(short)
    assert len(short) < len(frame())
    assert long.startswith(frame())
    assert ipv4.parse(long, AT, len(long)).payload_end == len(frame())


def test_frames_that_somebody_else_damaged_can_be_damaged_again() -> None:
    """Found by a liar in between: a frame that ends inside its IP header."""
    source = random.Random(5)
    for size in range(AT + 21):
        for make in (corrupted, truncated, padded):
            make(frame()[:size], source)
        marked(frame(tos=1)[:size])
        too_big(frame()[:size], 100, bytes(6))


def test_marks_are_only_for_those_who_know_them() -> None:
    """RFC 3168 §5: a router sets CE on ECN-capable packets alone, and the header's sum holds."""
    assert marked(frame()) is None
    one = marked(frame(tos=2))
    assert one is not None
    assert ipv4.parse(one, AT, len(one)).dscp_ecn == 3


def test_packets_too_long_are_told_of() -> None:
    """RFC 1191 §4: the error tells the next hop's MTU and quotes the packet."""
    way = Way(Link(mtu=100)).send(1)
    assert way.out == []
    (answer,) = way.back
    packet = ipv4.parse(answer, AT, len(answer))
    message = icmp.parse(answer, packet.payload_at, packet.payload_end)
    assert (message.type, message.code, message.next_hop_mtu) == (3, 4, 100)
    assert (packet.src, packet.dst) == (DST, SRC)
    assert Way(Link(mtu=100, signal=False)).send(1).back == []
    assert too_big(frame()[: AT + 10], 100, bytes(6)) is None


def test_length_of_what_a_super_segment_is_cut_into() -> None:
    assert packet_length(frame()) == 140
    header = (1, 1, 54, 0, 60, 0, 34, 0, 16, 0)
    assert packet_length(bytes(header) + frame(bytes(600))[VNET_HDR_LEN:]) == 54 - 14 + 60


def test_codel_waits_an_interval_then_drops_ever_more_often() -> None:
    """RFC 8289 §5.3, §5.5: drops INTERVAL / sqrt(n) apart, none once the wait is short."""
    codel = CoDel()
    drops = [t / 1000 for t in range(1_000) if codel.drops(t / 1000, 2 * TARGET)]
    assert drops[0] == pytest.approx(INTERVAL, abs=0.002)
    gaps = [b - a for a, b in itertools.pairwise(drops)]
    wanted = [INTERVAL / math.sqrt(n) for n in range(1, len(gaps) + 1)]
    assert gaps == pytest.approx(wanted, abs=0.003)
    assert not codel.drops(1.0, TARGET / 2)
    assert not codel.drops(1.001, 2 * TARGET)


def test_codel_keeps_a_standing_queue_short() -> None:
    def waits(link: Link) -> float:
        way = Way(link).send(4_000, 0.0015, frame(b"x" * 1200))
        last = way.out[-1][0]
        return last - 4_000 * 0.0015

    slow = Link(rate=5e6, queue=10**6)
    assert waits(slow) > 1.0
    assert waits(replace(slow, discipline="codel")) < 1.0
