"""Repairing loss: timeouts, fast retransmission, tail probes, and how much leaves meanwhile."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest

from appliance.net.counters import Counters
from appliance.net.repair import Repair
from appliance.net.tcb import TcpSettings
from tests.net.tcp.harness import FULL, App, Peer, Scene, active, passive, pattern

RENO = TcpSettings(congestion="newreno")
RTT = 0.1  # SRTT 100 ms, RTTVAR 50 ms, so RTO 300 ms (RFC 6298 §2.2)
RTO = 0.3


def flying(segments: int, **options: object) -> tuple[Scene, Peer, App]:
    """`segments` full segments have left and are not acknowledged."""
    options = {"rtt": RTT, **options}
    scene, peer, app = passive(**options)  # type: ignore[arg-type]
    app.send(pattern(segments * FULL))
    assert sum(len(s.data) for s in peer.drain()) == segments * FULL
    peer.got = 1
    return scene, peer, app


def at(segment: int) -> int:
    """Number of the first octet of the n-th full segment, counted from 0."""
    return 1 + segment * FULL


def span(first: int, past: int) -> tuple[int, int]:
    """A SACK block of segments [first, past)."""
    return at(first), at(past)


def sacks(peer: Peer, upto: int, *blocks: tuple[int, int]) -> None:
    """The peer has everything below segment `upto`, and `blocks` beyond a hole."""
    peer.sends(".", ack=at(upto), sack=blocks)


def numbers(peer: Peer) -> list[int]:
    """Which segments left since the last look."""
    return [(s.seq - 1) // FULL for s in peer.drain() if s.data]


# ---------------------------------------------------------------------- the timer


def test_timeout_resends_and_doubles() -> None:
    """RFC 6298 §5.4 to §5.6: the earliest segment, the timer twice as long each time."""
    scene, peer, app = passive(rtt=RTT, sack=False)
    app.send(b"x")
    sent = scene.now
    scene.advance(10)
    times = [s.at - sent for s in peer.drain()]
    assert times == pytest.approx([0, 0.3, 0.9, 2.1, 4.5, 9.3])
    assert scene.counter("tcp_timeouts") == 5
    assert scene.counter("tcp_retransmitted") == 5


def test_timeout_has_a_floor_and_a_ceiling() -> None:
    """RFC 6298 §2.4 (200 ms, as Linux), §2.5 (at least 60 s)."""
    scene, peer, app = passive(rtt=0.001, sack=False)
    app.send(b"x")
    sent = scene.now
    scene.advance(1500)
    times = [s.at - sent for s in peer.drain()]
    assert times[1] == pytest.approx(0.201)
    gaps = [b - a for a, b in pairwise(times)]
    assert max(gaps) == pytest.approx(120)


def test_gives_up() -> None:
    """RFC 9293 §3.8.3 MUST-20: R2 is at least 100 s; fifteen retransmissions, as Linux."""
    scene, peer, app = flying(1)
    scene.advance(100)
    assert app.state == "ESTABLISHED"
    scene.advance(2000)
    assert isinstance(app.error, TimeoutError)
    assert app.events == ["established", "closed"]
    assert app.state == "CLOSED"
    peer.drain()
    scene.advance(1000)
    peer.expects_nothing()
    assert scene.tcp_deadline() == inf


def test_user_timeout() -> None:
    """RFC 9293 §3.8.3 MUST-21, RFC 5482 §3.1 as a local setting."""
    scene, _, app = flying(1, settings=TcpSettings(user_timeout=5.0))
    scene.advance(4.5)
    assert app.state == "ESTABLISHED"
    scene.advance(6)
    assert isinstance(app.error, TimeoutError)


def test_user_timeout_starts_anew_with_progress() -> None:
    """RFC 5482 §3.1: the time that data may remain unacknowledged."""
    scene, peer, app = flying(4, settings=TcpSettings(user_timeout=5.0))
    for n in range(1, 4):
        scene.advance(4)
        peer.drain()
        peer.sends(".", ack=at(n))
    assert app.state == "ESTABLISHED"


def test_progress_that_measures_nothing_is_progress() -> None:
    """RFC 9293 §3.8.3: R2 counts transmissions of one segment, whatever Karn's timer remembers.

    Without timestamps nothing that was sent twice is measured, so the timer stays where it is.
    """
    settings = TcpSettings(user_timeout=600.0)
    scene, peer, app = passive(rtt=RTT, sack=False, ts=False, settings=settings)
    app.send(pattern(40 * 1460))
    for n in range(40):
        peer.drain()
        before = scene.counter("tcp_timeouts")
        while scene.counter("tcp_timeouts") == before:
            scene.advance(1)
            assert app.state == "ESTABLISHED", f"given up with {n} segments acknowledged"
        peer.sends(".", ack=1 + (n + 1) * 1460)
    assert scene.counter("tcp_black_holes_suspected") == 0


def test_another_loss_lowers_the_threshold_again() -> None:
    """RFC 5681 §3.1, equation 4: held constant for the same segment alone."""
    _, peer, app = passive(rtt=RTT, sack=False, ts=False, settings=RENO)
    scene = peer.scene
    app.send(pattern(100 * 1460))
    peer.drain()
    scene.advance(0.35)
    peer.sends(".", ack=1 + 10 * 1460)
    threshold = app.connection.repair.cc.ssthresh
    assert threshold == 5 * 1460
    peer.drain()
    out = app.connection.snd_nxt - app.connection.snd_una
    scene.advance(1)
    assert scene.counter("tcp_timeouts") == 2
    assert app.connection.repair.cc.ssthresh == max(out // 2, 2 * 1460) < threshold


def test_duplicates_after_a_needless_timeout_are_no_loss() -> None:
    """RFC 6582 §3.2 step 2: what leaves again arrives twice, and each copy is answered."""
    scene, peer, app = passive(rtt=RTT, sack=False, ts=False)
    app.send(pattern(60 * 1460))
    scene.advance(0.35)
    for n in range(1, 11):
        peer.sends(".", ack=1 + n * 1460)
    assert scene.counter("tcp_timeouts") == 1
    for _ in range(6):
        peer.sends(".", ack=1 + 10 * 1460)
    assert scene.counter("tcp_fast_recoveries") == 0


@pytest.mark.parametrize("sack", [False, True])
def test_new_octets_do_not_put_the_timer_off(sack: bool) -> None:
    """RFC 6298 §5.1: "if the timer is not running"; RFC 8985 §7.2: no probe after its time."""
    scene, peer, app = passive(rtt=RTT, sack=sack, settings=TcpSettings(nodelay=True))
    for _ in range(20):
        app.send(b"a little more")
        scene.advance(0.05)
    peer.drain()
    assert scene.counter("tcp_timeouts") >= 1
    assert scene.counter("tcp_tail_probes") == (1 if sack else 0)


def test_timer_stops_when_all_is_acknowledged() -> None:
    """RFC 6298 §5.2."""
    scene, peer, _ = flying(3)
    peer.sends(".", ack=at(3))
    assert scene.tcp_deadline() == inf
    scene.advance(60)
    peer.expects_nothing()


def test_timer_restarts_with_progress() -> None:
    """RFC 6298 §5.3: from the acknowledgment, not from the sending."""
    scene, peer, _ = flying(3, sack=False)
    scene.advance(0.2)
    peer.sends(".", ack=at(1))
    began = scene.now
    scene.advance(5)
    first = peer.drain()[0]
    assert first.seq == at(1)
    assert first.at - began > 0.2


def test_duplicates_do_not_restart_the_timer() -> None:
    """RFC 6298 §5.3: only an acknowledgment of new data does."""
    scene, peer, _ = flying(2, sack=False)
    sent = scene.now
    scene.advance(0.25)
    peer.sends(".", ack=1)
    scene.advance(0.1)
    assert peer.drain()[0].at - sent == pytest.approx(RTO)


def test_karn() -> None:
    """RFC 6298 §3: what was sent twice measures nothing, and the backed-off timeout stays."""
    scene, peer, app = passive(rtt=RTT, sack=False, ts=False)
    app.send(b"x")
    scene.advance(0.95)  # two timeouts
    peer.drain()
    peer.sends(".")
    app.send(b"y")
    sent = scene.now
    peer.drain()
    scene.advance(2)
    assert peer.drain()[0].at - sent == pytest.approx(1.2)


def test_a_fresh_sample_ends_the_backing_off() -> None:
    """RFC 6298 §5, end: a new measurement collapses RTO to what it computes."""
    scene, peer, app = passive(rtt=RTT, sack=False, ts=False)
    app.send(b"x")
    scene.advance(0.95)
    peer.drain()
    peer.sends(".")
    app.send(b"y")
    scene.advance(RTT)
    peer.drain()
    peer.sends(".")
    app.send(b"z")
    sent = scene.now
    peer.drain()
    scene.advance(2)
    assert peer.drain()[0].at - sent < 0.35


def test_timestamps_measure_what_was_sent_twice() -> None:
    """RFC 7323 §4.1: the echo says which copy is meant, so Karn's rule need not apply."""
    scene, peer, app = passive(rtt=RTT, sack=False)
    app.send(b"x")
    scene.advance(0.95)
    peer.drain()
    peer.sends(".")  # echoes the copy sent 50 ms ago
    app.send(b"y")
    sent = scene.now
    peer.drain()
    scene.advance(2)
    assert peer.drain()[0].at - sent < 0.35


def test_erratic_paths_are_waited_for() -> None:
    """RFC 6298 §2.3: RTO = SRTT + 4 RTTVAR."""
    scene, peer, app = passive(rtt=RTT, sack=False)
    srtt, rttvar = RTT, RTT / 2
    for rtt in (0.2, 0.1, 0.2, 0.1):
        app.send(b"x")
        scene.advance(rtt)
        peer.expects("P.", data=b"x")
        peer.sends(".")
        rttvar += (abs(srtt - rtt) - rttvar) / 4
        srtt += (rtt - srtt) / 8
    app.send(b"x")
    sent = peer.expects("P.").at
    scene.advance(3)
    assert peer.expects("P.").at - sent == pytest.approx(srtt + 4 * rttvar)


def test_after_a_timeout_one_segment_and_slow_start() -> None:
    """RFC 5681 §3.1: the loss window is one segment, then two per acknowledgment."""
    scene, peer, _ = flying(8, sack=False, settings=RENO)
    scene.advance(RTO + 0.01)
    assert numbers(peer) == [0]
    scene.advance(RTT)
    peer.sends(".", ack=at(1))
    assert numbers(peer) == [1, 2]
    peer.sends(".", ack=at(3))
    assert numbers(peer) == [3, 4, 5, 6]


def test_after_a_timeout_what_was_sacked_stays() -> None:
    """RFC 2018 §8 allows forgetting, RFC 8985 §6.3 does not: only the holes are filled."""
    scene, peer, _ = flying(6)
    sacks(peer, 0, span(3, 5))
    peer.drain()
    scene.advance(RTO * 4)
    peer.drain()
    sacks(peer, 1, span(3, 5))
    sacks(peer, 2, span(3, 5))
    assert 3 not in (sent := numbers(peer))
    assert 4 not in sent


# ---------------------------------------------------------------------- without SACK


def test_third_duplicate_resends() -> None:
    """RFC 5681 §3.2: at once, without waiting for the timer; not at the second."""
    _, peer, _ = flying(5, sack=False)
    for _ in range(2):
        peer.sends(".", ack=1)
    assert numbers(peer) == []
    peer.sends(".", ack=1)
    assert numbers(peer) == [0]
    peer.sends(".", ack=1)
    assert 0 not in numbers(peer)


@pytest.mark.parametrize("disguise", ["window", "data", "fin"])
def test_what_is_no_duplicate(disguise: str) -> None:
    """RFC 5681 §2: same ACK, same window, no data, no SYN or FIN."""
    _, peer, _ = flying(5, sack=False)
    for n in range(6):
        if disguise == "window":
            peer.sends(".", ack=1, window=50_000 + 1000 * n)
        elif disguise == "data":
            peer.sends("P.", ack=1, data=b"x")
        else:
            peer.sends("F." if n == 0 else ".", ack=1, **({} if n == 0 else {"data": b"x"}))
    assert numbers(peer) == []


def test_nothing_outstanding_nothing_to_resend() -> None:
    """RFC 5681 §2 (a): the receiver of the ACK has outstanding data."""
    _, peer, _ = passive()
    for _ in range(5):
        peer.sends(".")
    peer.expects_nothing()


def test_duplicates_let_new_data_out() -> None:
    """RFC 3042: limited transmit, one new segment for each of the first two."""
    _, peer, app = flying(10, sack=False)
    app.send(bytes(10 * FULL))
    assert numbers(peer) == []
    peer.sends(".", ack=1)
    peer.sends(".", ack=1)
    assert numbers(peer) == [10, 11]


def test_partial_acknowledgment_resends_the_next_hole() -> None:
    """RFC 6582 §3.2 step 3: one hole per round trip."""
    scene, peer, _ = flying(10, sack=False)
    for _ in range(5):
        peer.sends(".", ack=1)
    assert numbers(peer) == [0]
    scene.advance(RTT)
    peer.sends(".", ack=at(4))
    assert 4 in numbers(peer)
    scene.advance(RTT)
    peer.sends(".", ack=at(10))
    assert scene.tcp_deadline() == inf
    assert scene.counter("tcp_fast_recoveries") == 1
    assert scene.counter("tcp_timeouts") == 0


# ---------------------------------------------------------------------- with SACK


def test_three_sacked_segments_resend_the_hole() -> None:
    """RFC 6675 §5, RFC 8985 §6.2 step 4 (DupThresh): at once, and only the hole."""
    scene, peer, _ = flying(8)
    scene.advance(RTT)
    sacks(peer, 0, span(1, 4))
    assert numbers(peer) == [0]
    assert scene.counter("tcp_fast_recoveries") == 1


def test_only_holes_are_resent() -> None:
    """RFC 6675 §4, NextSeg (1): what is lost and not sacked."""
    scene, peer, app = flying(10)
    scene.advance(RTT)
    sacks(peer, 0, span(9, 10), span(5, 7), span(1, 3))
    lost = numbers(peer)
    scene.advance(RTT)
    sacks(peer, 3, span(9, 10), span(5, 7))
    lost += numbers(peer)
    scene.advance(RTT)
    sacks(peer, 7, span(9, 10))
    lost += numbers(peer)
    assert sorted(lost) == [0, 3, 4, 7, 8]
    scene.advance(RTT)
    sacks(peer, 10)
    assert app.connection.snd_una == app.connection.snd_nxt


def test_part_of_a_super_segment_is_resent() -> None:
    """RFC 6675 §4: one frame carried ten segments, two of them were lost."""
    scene, peer, app = passive(scene=Scene(gso_max=65_535), rtt=RTT)
    sent = pattern(10 * FULL)
    app.send(sent)
    peer.expects("P.", len=10 * FULL)
    scene.advance(RTT)
    sacks(peer, 2, span(3, 5), span(6, 10))
    again = peer.drain()
    assert [(s.seq, s.data) for s in again] == [
        (at(n), sent[n * FULL : (n + 1) * FULL]) for n in (2, 5)
    ]


def test_a_run_of_lost_segments_is_resent_as_one_frame() -> None:
    """VIRTIO 1.2 §5.1.6.2: repairs use super-segments too, as far as the window lets them."""
    scene, peer, app = passive(scene=Scene(gso_max=65_535), rtt=RTT)
    app.send(pattern(10 * FULL))
    peer.drain()
    scene.advance(RTT)
    sacks(peer, 0, span(3, 10))
    frames = peer.drain()
    assert sum(len(s.data) for s in frames) in (FULL, 2 * FULL, 3 * FULL)
    assert frames[0].seq == 1


def test_a_little_reordering_is_waited_for() -> None:
    """RFC 8985 §6.2 step 4: a quarter of the least round trip, while fewer than three overtook."""
    scene, peer, _ = flying(4)
    scene.advance(RTT)
    sacks(peer, 0, span(1, 2))
    assert numbers(peer) == []
    scene.advance(RTT / 4 - 0.001)
    assert numbers(peer) == []
    scene.advance(0.002)
    assert numbers(peer) == [0]


def test_reordering_that_ends_in_time_costs_nothing() -> None:
    """RFC 8985 §6.2: the late segment arrived after all."""
    scene, peer, _ = flying(4)
    scene.advance(RTT)
    sacks(peer, 0, span(1, 2))
    scene.advance(RTT / 8)
    sacks(peer, 4)
    assert numbers(peer) == []
    scene.advance(5)
    peer.expects_nothing()
    assert scene.counter("tcp_fast_recoveries") == 0


def test_reordering_once_seen_widens_the_wait() -> None:
    """RFC 8985 §6.2 step 4: then even three sacked segments wait for the window."""
    scene, peer, app = flying(4)
    scene.advance(RTT)
    sacks(peer, 0, span(1, 2))
    scene.advance(0.005)
    sacks(peer, 4)  # the late one came without having been sent again
    app.send(pattern(8 * FULL))
    peer.drain()
    scene.advance(RTT)
    sacks(peer, 4, span(5, 8))
    assert numbers(peer) == []
    scene.advance(RTT)
    assert 4 in numbers(peer)


def test_a_lost_retransmission_is_noticed() -> None:
    """RFC 8985 §3.2: time tells it from what was sent after it; no timeout is needed."""
    scene, peer, app = flying(8)
    app.send(pattern(8 * FULL))
    peer.drain()
    scene.advance(RTT)
    sacks(peer, 0, span(1, 8))
    first = peer.drain()
    assert first[0].seq == 1
    assert first[-1].seq > at(7), "new data follows the repair"
    scene.advance(RTT)
    newest = (first[-1].seq - 1) // FULL
    sacks(peer, 0, span(newest, newest + 1), span(1, 8))
    scene.advance(RTT / 2)
    assert 0 in numbers(peer)
    assert scene.counter("tcp_timeouts") == 0


def test_dsack_is_counted_and_harmless() -> None:
    """RFC 2883 §4: a report of what came twice."""
    scene, peer, app = flying(4)
    sacks(peer, 2, (at(0), at(1)))
    assert numbers(peer) == []
    assert scene.counter("tcp_dsack_in") == 1
    assert app.connection.snd_una == at(2) + app.connection.iss


@pytest.mark.parametrize(
    "block",
    [
        (at(2), at(1)),
        (at(2), at(2)),
        (at(3), at(50)),
        (at(100), at(101)),
        (-70_000, -69_000),
    ],
)
def test_blocks_that_cannot_be_are_ignored(block: tuple[int, int]) -> None:
    """RFC 2018 §5, RFC 5961 §5 spirit: inverted, empty, beyond SND.NXT, or long past."""
    scene, peer, app = flying(4)
    scene.advance(RTT)
    for _ in range(5):
        sacks(peer, 0, block)
    assert app.connection.repair.flight.sacked == 0
    sacks(peer, 4)
    scene.advance(5)
    assert 3 not in numbers(peer)


def test_reneging() -> None:
    """RFC 2018 §8: a peer may discard what it sacked, so it is kept until acknowledged."""
    scene, peer, app = flying(6)
    scene.advance(RTT)
    sacks(peer, 0, span(1, 6))
    assert numbers(peer) == [0]
    scene.advance(RTT)
    sacks(peer, 1)  # it had 1 to 5, and now it has not
    peer.got = at(1)
    for _ in range(20):
        scene.advance(1)
        peer.drain()
        peer.sends(".")
    assert app.connection.snd_una == app.connection.snd_nxt
    assert scene.counter("tcp_sack_reneged") >= 1


# ---------------------------------------------------------------------- the tail


def test_tail_probe_before_the_timeout() -> None:
    """RFC 8985 §7.2, §7.3: after two round trips the last segment again, once."""
    scene, peer, _ = flying(3)
    sent = scene.now
    scene.advance(RTO - 0.01)
    probe = peer.expects("P.", seq=at(2), len=FULL)
    assert probe.at - sent == pytest.approx(2 * RTT, abs=0.02)
    peer.expects_nothing()
    assert scene.counter("tcp_tail_probes") == 1


def test_tail_probe_brings_the_repair() -> None:
    """RFC 8985 §7.1: its SACK shows the hole; no timeout."""
    scene, peer, _ = flying(3)
    scene.advance(2 * RTT + 0.02)
    assert numbers(peer) == [2]
    scene.advance(RTT)
    sacks(peer, 0, span(2, 3))
    scene.advance(RTT / 4 + 0.01)
    assert numbers(peer)[0] == 0
    scene.advance(RTT)
    sacks(peer, 1, span(2, 3))
    scene.advance(RTT)
    sacks(peer, 3)
    assert scene.tcp_deadline() == inf
    assert scene.counter("tcp_timeouts") == 0


def test_tail_probe_prefers_new_data() -> None:
    """RFC 8985 §7.3: unsent data does the same and wastes nothing."""
    scene, peer, app = flying(10)
    app.send(pattern(2 * FULL))
    assert numbers(peer) == [], "the congestion window is full"
    scene.advance(2 * RTT + 0.02)
    assert numbers(peer) == [10]


def test_tail_of_one_segment_allows_for_a_delayed_acknowledgment() -> None:
    """RFC 8985 §7.2: PTO = 2 SRTT + max_ack_delay with one segment out."""
    scene, peer, app = passive(rtt=0.5)
    app.send(b"x")
    sent = scene.now
    scene.advance(1.45)
    assert peer.drain()[-1].at - sent == pytest.approx(1.2)
    assert scene.counter("tcp_tail_probes") == 1


def test_tail_probe_that_repaired_costs_a_reduction() -> None:
    """RFC 8985 §7.4.2: a loss is a loss, though only the probe noticed."""
    scene, peer, app = flying(10)
    scene.advance(2 * RTT + 0.02)
    assert numbers(peer) == [9]
    scene.advance(RTT)
    sacks(peer, 10)
    app.send(pattern(20 * FULL))
    peer.drain()
    before = app.connection.repair.cc.cwnd
    sacks(peer, 11)
    assert app.connection.repair.cc.cwnd < before


def test_what_a_tail_probe_repaired_is_measured_by_what_was_out() -> None:
    """RFC 5681 §3.1, equation 4: FlightSize when the loss was found, not what is left of it."""
    scene, peer, app = flying(2, settings=RENO)
    scene.advance(0.25)
    assert scene.counter("tcp_tail_probes") == 1
    app.send(pattern(8 * FULL))
    peer.drain()
    sacks(peer, 10)
    assert app.connection.repair.cc.ssthresh == 5 * FULL


def test_tail_probe_that_was_not_needed_costs_nothing() -> None:
    """RFC 8985 §7.4.2: the DSACK says so."""
    scene, peer, app = flying(10)
    scene.advance(2 * RTT + 0.02)
    assert numbers(peer) == [9]
    before = app.connection.repair.cc.cwnd
    sacks(peer, 10)
    sacks(peer, 10, span(9, 10))
    assert app.connection.repair.cc.cwnd >= before


def test_timeout_follows_an_unanswered_probe() -> None:
    """RFC 8985 §7.3: one probe, then the timer."""
    scene, peer, _ = flying(3)
    scene.advance(2)
    sent = numbers(peer)
    assert sent[0] == 2
    assert sent[1] == 0
    assert scene.counter("tcp_tail_probes") == 1
    assert scene.counter("tcp_timeouts") >= 1


def test_a_probe_later_than_the_timer_takes_its_place() -> None:
    """RFC 8985 §7.2: the PTO is at most the RTO, and what leaves then is a probe, not a timeout."""
    scene, peer, app = passive(rtt=RTT)
    app.send(b"x")  # alone: twice the round trip and the peer's delayed ACK are more than the RTO
    sent = scene.now
    peer.drain()
    scene.advance(1.0)
    times = [s.at - sent for s in peer.drain()]
    assert times[0] == pytest.approx(RTT + max(2 * RTT, 0.2))
    assert scene.counter("tcp_tail_probes") == 1
    assert times[1] == pytest.approx(2 * times[0])
    assert scene.counter("tcp_timeouts") == 1


def test_tail_probe_of_a_fin() -> None:
    """RFC 8985 §7.3: the FIN is the tail."""
    scene, peer, app = passive(rtt=0.5)
    app.do(lambda c: (c.send(b"bye"), c.close()))
    peer.expects("FP.", seq=1, data=b"bye")
    scene.advance(1.4)
    peer.expects("FP.", seq=1, data=b"bye")


# ---------------------------------------------------------------------- congestion window


def cwnd_in_use(peer: Peer, app: App, octets: int = 400 * FULL) -> int:
    """Segments that leave when there is no end of data and nothing is out."""
    app.send(bytes(octets))
    return len(peer.drain())


def test_initial_window_is_ten_segments() -> None:
    """RFC 6928 §2: min(10 MSS, max(2 MSS, 14600))."""
    _, peer, app = passive(window=1 << 19)
    assert cwnd_in_use(peer, app) == 10
    scene = Scene(mtu=9000)
    _, peer, app = passive(scene=scene, mss=8960, window=1 << 19)
    assert cwnd_in_use(peer, app) == 2
    _, peer, app = passive(mss=536, window=1 << 19)
    assert cwnd_in_use(peer, app) == 10


def test_lost_syns_start_with_one_segment() -> None:
    """RFC 5681 §3.1 MUST (after one; RFC 6928 and Linux: after more than one)."""
    scene = Scene()
    peer = Peer(scene, 80, 4000, window=1 << 19)
    app = scene.connect(80)
    scene.advance(3.5)
    peer.drain()
    peer.sends("S.", ack=1)
    peer.drain()
    assert cwnd_in_use(peer, app) == 1


def test_slow_start_doubles() -> None:
    """RFC 5681 §3.1, by octets acknowledged (RFC 3465)."""
    scene, peer, app = passive(rtt=RTT, window=1 << 19)
    assert cwnd_in_use(peer, app) == 10
    for expected in (20, 40, 80):
        scene.advance(RTT)
        for upto in range(app.connection.snd_una - app.connection.iss, peer.got, 2 * FULL):
            peer.sends(".", ack=min(upto + 2 * FULL, peer.got))
        assert len(peer.drain()) == expected


def test_one_acknowledgment_of_all_counts_them_all() -> None:
    """RFC 3465 §2.3: stretch acknowledgments of merging links."""
    _, peer, app = passive(rtt=RTT, window=1 << 19)
    assert cwnd_in_use(peer, app) == 10
    peer.sends(".")
    assert len(peer.drain()) == 20


def test_the_window_grows_only_while_it_limits() -> None:
    """RFC 9438 §5.8, RFC 7661 §1: an application that sends little proves nothing."""
    scene, peer, app = passive(rtt=RTT, window=1 << 19)
    for _ in range(50):
        app.send(bytes(FULL))
        scene.advance(RTT)
        peer.drain()
        peer.sends(".")
    assert cwnd_in_use(peer, app) <= 11


def test_a_round_in_slow_start_counts_whole() -> None:
    """RFC 7661 §4: the most that was out in a round is what was needed, not what is left of it."""
    scene, peer, app = passive(rtt=RTT, window=1 << 19)
    app.send(bytes(10 * FULL))
    scene.advance(RTT)
    peer.drain()
    for n in range(2, 11, 2):
        peer.sends(".", ack=1 + n * FULL)
    assert app.connection.repair.cc.cwnd == 20 * FULL


def test_half_a_window_in_use_grows_nothing() -> None:
    """RFC 7661 §4: five segments of ten prove nothing about ten."""
    scene, peer, app = passive(rtt=RTT, window=1 << 19)
    app.send(bytes(5 * FULL))
    scene.advance(RTT)
    peer.drain()
    peer.sends(".")
    assert app.connection.repair.cc.cwnd == 10 * FULL


def test_growth_counts_what_newly_arrived() -> None:
    """RFC 5681 §3.1: octets that were sacked before have been counted out of the pipe already."""
    scene, peer, app = passive(rtt=RTT, window=1 << 19)
    app.send(bytes(40 * FULL))
    scene.advance(RTT)
    peer.drain()
    sacks(peer, 0, span(1, 2))
    peer.drain()
    before = app.connection.repair.cc.cwnd
    peer.sends(".", ack=1 + 2 * FULL)
    assert app.connection.repair.cc.cwnd == before + FULL


def test_a_loss_found_by_time_is_repaired_one_by_one() -> None:
    """RFC 9937 §6: when a timer finds the loss, one segment leaves and ACKs pace the others."""
    repair = Repair("newreno", FULL, True, Counters())
    for n in range(10):
        repair.sent_new(n * FULL, (n + 1) * FULL, 0.0)
    for record in repair.flight.records[:7]:
        repair.flight.mark_lost(record)
    repair.enter_by_time(0.2, 0, 10 * FULL)
    record = repair.next_lost(0, 10 * FULL, 100 * FULL)
    assert record is not None
    repair.sent_again(record, FULL, 0.2, 0)
    assert repair.next_lost(0, 10 * FULL, 100 * FULL) is None


def test_an_idle_window_may_be_kept() -> None:
    """RFC 5681 §4.1 is a SHOULD; who knows the path may keep its window."""
    settings = TcpSettings(slow_start_after_idle=False)
    scene, peer, app = passive(rtt=RTT, window=1 << 19, settings=settings)
    app.send(bytes(70 * FULL))
    for _ in range(5):
        scene.advance(RTT)
        peer.drain()
        peer.sends(".")
    scene.advance(30)
    assert cwnd_in_use(peer, app) > 20


def test_without_tail_probes_the_timer_repairs() -> None:
    """RFC 8985 §7 is optional: then the tail waits for RFC 6298's timer."""
    scene, peer, app = passive(rtt=RTT, settings=TcpSettings(tail_probe=False))
    app.send(bytes(FULL))
    scene.advance(RTT)
    peer.drain()
    sent_at = scene.now - RTT
    scene.advance(RTT + 0.05)  # two round trips and a half: a probe would have left
    assert peer.drain() == []
    scene.advance(2.0)
    assert peer.drain()[0].at - sent_at >= RTT + 0.2


def everything(peer: Peer, app: App) -> None:
    """The peer acknowledges all that was sent."""
    peer.drain()
    peer.got = app.connection.snd_nxt - app.connection.iss
    peer.sends(".")


def test_congestion_avoidance_adds_one_segment_per_round() -> None:
    """RFC 5681 §3.1, equation 3; RFC 3465 §2.1."""
    scene, peer, app = flying(10, settings=RENO, window=1 << 19)
    app.send(bytes(400 * FULL))
    scene.advance(RTT)
    sacks(peer, 0, span(1, 10))
    scene.advance(RTT)
    everything(peer, app)
    flights = []
    for _ in range(6):
        flights.append((app.connection.snd_nxt - app.connection.snd_una) // FULL)
        scene.advance(RTT)
        everything(peer, app)
    assert flights[0] == 5
    assert all(0 <= b - a <= 1 for a, b in pairwise(flights))
    assert flights[-1] >= flights[0] + 4


@pytest.mark.parametrize(("settings", "share"), [(RENO, 0.5), (TcpSettings(), 0.7)])
def test_a_loss_reduces_the_window_once(settings: TcpSettings, share: float) -> None:
    """RFC 5681 §3.2 step 2 (half), RFC 9438 §4.6 (0.7); many losses of one window count once."""
    scene, peer, app = flying(10, settings=settings, window=1 << 19)
    app.send(bytes(400 * FULL))
    scene.advance(RTT)
    sacks(peer, 0, span(5, 10))
    peer.drain()
    scene.advance(RTT)
    sacks(peer, 2, span(5, 10))
    scene.advance(RTT)
    everything(peer, app)
    assert app.connection.repair.cc.ssthresh == pytest.approx(share * 10 * FULL, abs=FULL)
    out = app.connection.snd_nxt - app.connection.snd_una
    assert out <= share * 10 * FULL + FULL


def test_sending_goes_on_in_proportion_during_recovery() -> None:
    """RFC 9937 §6: neither silence nor a burst; about half a segment per segment delivered."""
    scene, peer, app = flying(10, settings=RENO, window=1 << 19)
    app.send(bytes(400 * FULL))
    scene.advance(RTT)
    sent = []
    for n in range(2, 11):
        sacks(peer, 0, span(1, n))
        sent.append(len(peer.drain()))
    assert max(sent) <= 2
    assert 4 <= sum(sent) <= 7


def test_a_timeout_of_lost_retransmissions_reduces_once() -> None:
    """RFC 5681 §3.1: ssthresh is not lowered again for the same loss."""
    scene, peer, app = flying(10, settings=RENO, sack=False)
    scene.advance(RTO + 0.1)
    first = app.connection.repair.cc.ssthresh
    scene.advance(10)
    assert app.connection.repair.cc.ssthresh == first == 5 * FULL
    peer.drain()


def test_idle_restarts_slowly() -> None:
    """RFC 5681 §4.1: after an idle RTO no more than the restart window at once."""
    scene, peer, app = passive(rtt=RTT, window=1 << 19)
    app.send(bytes(70 * FULL))
    for _ in range(5):
        scene.advance(RTT)
        peer.drain()
        peer.sends(".")
    assert app.connection.snd_una == app.connection.snd_nxt
    scene.advance(30)
    assert cwnd_in_use(peer, app) == 10


# ---------------------------------------------------------------------- illusions


def test_spurious_timeout_is_undone() -> None:
    """RFC 3522 §3.2, RFC 4015 §3: the echo shows that the first copy had arrived."""
    scene, peer, app = flying(10, window=1 << 19)
    app.send(bytes(400 * FULL))
    early = peer.echo
    before = app.connection.repair.cc.cwnd
    scene.advance(1.0)  # a delay spike: a tail probe, then the timer
    peer.drain()
    assert app.connection.repair.cc.cwnd < before
    peer.sends(".", ack=at(1), ts=(peer.clock, early))
    assert app.connection.repair.cc.cwnd >= before
    assert scene.counter("tcp_spurious_recoveries") == 1
    peer.sends(".", ack=at(10), ts=(peer.clock, early))
    peer.drain()
    scene.advance(0.01)
    assert app.connection.state == 4


def test_real_timeout_is_not_undone() -> None:
    """RFC 3522 §3.2: an echo of the second copy proves the loss."""
    scene, peer, app = flying(10, window=1 << 19)
    before = app.connection.repair.cc.cwnd
    scene.advance(1.0)
    peer.drain()
    peer.sends(".", ack=at(1))
    assert app.connection.repair.cc.cwnd < before
    assert scene.counter("tcp_spurious_recoveries") == 0


# ---------------------------------------------------------------------- what a copy looks like


def test_a_copy_acknowledges_what_has_come_since() -> None:
    """RFC 9293 §3.8.1: the header is made anew: ACK, window and timestamp of now."""
    scene, peer, app = active(rtt=RTT)
    app.send(b"question")
    first = peer.expects("P.", ack=1)
    peer.sends("P.", data=b"meanwhile", ack=1)
    scene.advance(1)
    copies = [s for s in peer.drain() if s.data]
    assert all(s.ack == 10 and s.data == b"question" for s in copies)
    assert copies[0].options.timestamp is not None
    assert first.options.timestamp is not None
    assert copies[0].options.timestamp[0] > first.options.timestamp[0]


def test_small_segments_are_not_merged_beyond_the_window() -> None:
    """RFC 9293 §3.8.6: a copy of several small segments is still within the peer's window."""
    scene, peer, app = passive(rtt=RTT, settings=TcpSettings(nodelay=True))
    for n in range(5):
        app.send(b"%d" % n)
    peer.drain()
    peer.got = 1
    scene.advance(20)
    octets = {s.seq + i: bytes([o]) for s in peer.drain() for i, o in enumerate(s.data)}
    assert octets == {n: b"%d" % (n - 1) for n in octets}
    assert set(octets) >= {1, 5}  # the timer's and the tail probe's
