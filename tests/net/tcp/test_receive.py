"""Receiving: order out of disorder, acknowledgments in time, and a window that keeps its word."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.reassembly import MAX_STRETCHES
from appliance.net.tcb import TcpSettings
from tests.net.tcp.harness import FULL, App, Peer, Scene, passive, pattern


def settled() -> tuple[Scene, Peer, App]:
    """A connection whose first, quick acknowledgments are over."""
    scene, peer, app = passive()
    for _ in range(16):
        peer.sends("P.", data=b"x")
        peer.expects(".", ack=peer.nxt)
    return scene, peer, app


# ---------------------------------------------------------------------- delayed acknowledgments


def test_first_segments_are_acknowledged_at_once() -> None:
    """RFC 9293 §3.8.6.3 SHLD-18 permits a delay; a slow-starting peer is better served now."""
    _, peer, _ = passive()
    for _ in range(16):
        peer.sends("P.", data=b"x")
        peer.expects(".", ack=peer.nxt, len=0)


def test_acknowledgment_waits_forty_milliseconds() -> None:
    """RFC 9293 §3.8.6.3 MUST-40: less than half a second."""
    scene, peer, _ = settled()
    began = scene.now
    peer.sends("P.", data=b"x")
    peer.expects_nothing()
    scene.advance(0.5)
    assert peer.expects(".", ack=peer.nxt, len=0).at == pytest.approx(began + 0.04)
    peer.expects_nothing()
    assert scene.tcp_deadline() == float("inf")


def test_the_delay_runs_from_the_first_octet() -> None:
    """RFC 9293 §3.8.6.3: later octets do not postpone it."""
    scene, peer, _ = settled()
    began = scene.now
    for _ in range(10):
        peer.sends("P.", data=b"x")
        scene.advance(0.01)
    assert peer.expects(".").at == pytest.approx(began + 0.04)


def test_every_second_full_segment_is_acknowledged() -> None:
    """RFC 9293 §3.8.6.3 SHLD-19, RFC 5681 §4.2."""
    _, peer, _ = settled()
    peer.sends(".", data=bytes(FULL))
    peer.expects_nothing()
    peer.sends(".", data=bytes(FULL))
    peer.expects(".", ack=peer.nxt, len=0)
    peer.sends(".", data=bytes(FULL))
    peer.expects_nothing()


def test_a_batch_is_acknowledged_once() -> None:
    """RFC 9293 §3.10.7.4: process all queued segments before sending ACKs (SHLD-31, MUST-58)."""
    scene, peer, _ = settled()
    scene.receive(*(peer.frame(".", data=bytes(FULL)) for _ in range(10)))
    peer.expects(".", ack=peer.nxt, len=0)
    peer.expects_nothing()


def test_a_super_segment_is_acknowledged_at_once() -> None:
    """RFC 5681 §4.2: it stands for more than two segments."""
    _, peer, _ = settled()
    peer.sends(".", data=bytes(3 * FULL))
    peer.expects(".", ack=peer.nxt, len=0)


def test_data_carries_the_acknowledgment() -> None:
    """RFC 9293 §3.8.6.3: an answer within the turn needs no ACK of its own."""
    _, peer, app = passive(react={"data": lambda c: c.send(b"answer")})
    peer.sends("P.", data=b"question")
    peer.expects("P.", ack=9, data=b"answer")
    peer.expects_nothing()
    assert app.data == b"question"


def test_an_answer_cancels_the_delayed_acknowledgment() -> None:
    """RFC 9293 §3.8.6.3."""
    scene, peer, app = settled()
    peer.sends("P.", data=b"x")
    app.send(b"y")
    peer.expects("P.", ack=peer.nxt)
    peer.sends(".")
    scene.advance(1)
    peer.expects_nothing()


# ---------------------------------------------------------------------- order


def test_out_of_order_is_kept_and_acknowledged_at_once() -> None:
    """RFC 9293 §3.8.6 SHLD-31, RFC 5681 §4.2; RFC 2018 §4 for the blocks."""
    scene, peer, app = settled()
    start = peer.nxt
    peer.sends(".", seq=start + 10, data=b"klmno")
    ack = peer.expects(".", ack=start, len=0)
    assert [(b - a) & 0xFFFFFFFF for a, b in ack.options.sack] == [5]
    assert app.data == b"x" * 16
    peer.sends(".", seq=start, data=b"abcdefghij")
    assert peer.expects(".", ack=start + 15, len=0).options.sack == ()
    assert app.data == b"x" * 16 + b"abcdefghijklmno"
    assert scene.counter("tcp_out_of_order") == 1


def blocks(peer: Peer) -> list[tuple[int, int]]:
    """The SACK blocks of the next ACK, relative."""
    wire = peer.expects(".").options.sack
    return [((a - peer.isn) & 0xFFFFFFFF, (b - peer.isn) & 0xFFFFFFFF) for a, b in wire]


def test_blocks_newest_first() -> None:
    """RFC 2018 §4: the first block has the newest segment, then those reported most recently."""
    _, peer, _ = passive()
    peer.sends(".", seq=101, data=bytes(10))
    assert blocks(peer) == [(101, 111)]
    peer.sends(".", seq=301, data=bytes(10))
    assert blocks(peer) == [(301, 311), (101, 111)]
    peer.sends(".", seq=201, data=bytes(10))
    assert blocks(peer)[0] == (201, 211)
    peer.sends(".", seq=111, data=bytes(10))
    assert blocks(peer)[0] == (101, 121)


def test_blocks_that_follow_are_the_most_recently_reported() -> None:
    """RFC 2018 §4 (c): SHOULD repeat what was reported last, so that each is said thrice."""
    _, peer, _ = passive()
    for seq in (901, 101, 501, 301):
        peer.sends(".", seq=seq, data=bytes(10))
    heard = [blocks(peer) for _ in range(4)]
    assert heard[3] == [(301, 311), (501, 511), (101, 111)]


def test_at_most_three_blocks_beside_a_timestamp_and_four_without() -> None:
    """RFC 2018 §3: forty octets of options."""
    for ts, most in ((True, 3), (False, 4)):
        _, peer, _ = passive(ts=ts)
        for n in range(6):
            peer.sends(".", seq=101 + 100 * n, data=bytes(10))
        assert [len(blocks(peer)) for _ in range(6)] == [min(n + 1, most) for n in range(6)]


def test_duplicate_below_the_window_is_reported() -> None:
    """RFC 2883 §4.1: a DSACK block first; RFC 9293 §3.10.7.4: an ACK, and drop."""
    scene, peer, app = passive()
    peer.sends(".", data=b"abcdef")
    peer.expects(".", ack=7)
    peer.sends(".", seq=1, data=b"abcdef")
    assert blocks(peer) == [(1, 7)]
    assert app.data == b"abcdef"
    assert scene.counter("tcp_duplicate_octets") == 6
    peer.sends(".", data=b"g")
    assert blocks(peer) == []


def test_duplicate_above_a_hole_is_reported() -> None:
    """RFC 2883 §4.1, §4.2: the duplicate, then the block that holds it."""
    _, peer, _ = passive()
    peer.sends(".", seq=101, data=bytes(20))
    peer.drain()
    peer.sends(".", seq=105, data=bytes(5))
    assert blocks(peer) == [(105, 110), (101, 121)]


def test_partly_new_segment_is_trimmed() -> None:
    """RFC 9293 §3.10.7.4: "portions of the segment that lie outside the window" are cut."""
    _, peer, app = passive()
    peer.sends(".", data=b"abcd")
    peer.sends(".", seq=3, data=b"XXefgh")
    assert app.data == b"abcdefgh"
    peer.expects(".", ack=5)
    peer.expects(".", ack=9)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_first_to_arrive_wins(order: tuple[int, ...]) -> None:
    """RFC 9293 §3.10.7.4: what has been received is not replaced, whatever overlaps it."""
    _, peer, app = passive()
    pieces = [(11, b"A" * 20), (21, b"B" * 20), (16, b"C" * 20)]
    expected: dict[int, int] = {n: ord(".") for n in range(1, 11)}
    for index in order:
        seq, data = pieces[index]
        peer.sends(".", seq=seq, data=data)
        for n, octet in enumerate(data):
            expected.setdefault(seq + n, octet)
    peer.sends(".", seq=1, data=b"." * 10)
    assert app.data == bytes(expected[n] for n in sorted(expected))


@given(st.permutations(range(12)), st.integers(1, 40))
def test_any_order_comes_out_in_order(order: list[int], size: int) -> None:
    """RFC 9293 §3.8: the stream is the same in whatever order its segments come."""
    sent = pattern(12 * size)
    _, peer, app = passive()
    for n in order:
        peer.sends(".", seq=1 + n * size, data=sent[n * size : (n + 1) * size])
    assert app.data == sent
    assert peer.drain()[-1].ack == 1 + len(sent)


def test_islands_are_bounded() -> None:
    """Chopping into single octets costs the chopper, not us."""
    scene, peer, app = passive()
    scene.receive(*(peer.frame(".", seq=2 + 2 * n, data=b"x") for n in range(MAX_STRETCHES + 5)))
    assert scene.counter("tcp_reassembly_full") == 5
    peer.sends(".", seq=1, data=b"-" * (2 * MAX_STRETCHES + 20))
    assert len(app.data) == 2 * MAX_STRETCHES + 20


def test_fin_ahead_of_a_hole_waits() -> None:
    """RFC 9293 §3.10.7.4, eighth: the FIN counts in its place in the stream."""
    _, peer, app = passive()
    peer.sends("FP.", seq=4, data=b"def")
    peer.expects(".", ack=1)
    assert app.state == "ESTABLISHED"
    peer.sends(".", seq=1, data=b"abc")
    peer.expects(".", ack=8)
    assert app.data == b"abcdef"
    assert app.events == ["established", "data", "eof"]
    assert app.state == "CLOSE-WAIT"


def test_bare_fin_ahead_of_a_hole_waits() -> None:
    """RFC 9293 §3.10.7.4, eighth."""
    _, peer, app = passive()
    peer.sends("F.", seq=4)
    peer.expects(".", ack=1)
    peer.sends(".", seq=1, data=b"abc")
    peer.expects(".", ack=5)
    assert app.state == "CLOSE-WAIT"


def test_octets_beyond_a_fin_do_not_exist() -> None:
    """RFC 9293 §3.10.7.4, seventh and eighth: the FIN ends the stream, even seen ahead of time."""
    _, peer, app = passive()
    peer.sends("F.", seq=4)
    peer.sends(".", seq=4, data=b"never")
    peer.sends(".", seq=1, data=b"abc")
    assert app.data == b"abc"
    assert app.events[-1] == "eof"


def test_data_after_the_fin_is_ignored() -> None:
    """RFC 9293 §3.10.7.4, seventh: in CLOSE-WAIT "this should not occur ... ignore the text"."""
    _, peer, app = passive()
    peer.sends("F.")
    peer.expects(".", ack=2)
    peer.sends("P.", data=b"more")
    assert app.data == b""
    assert app.state == "CLOSE-WAIT"
    assert all(s.ack == 2 for s in peer.drain())


def test_urgent_octets_stay_in_line() -> None:
    """RFC 6093 §5, §6; RFC 9293 §3.8.5 MUST-30 to MUST-32: any length, nothing is taken out."""
    _, peer, app = passive()
    peer.sends("PU.", data=b"abc", urgent=2)
    peer.sends("PU.", data=b"def", urgent=60_000)
    peer.sends("P.", data=b"ghi", urgent=1)
    assert app.data == b"abcdefghi"


# ---------------------------------------------------------------------- what is not acceptable


@pytest.mark.parametrize(
    ("seq", "data"),
    [(1 << 20, b"x"), (-5, b"abc"), (-100_000, b"x"), (0, b""), (1 << 20, b"")],
)
def test_outside_the_window(seq: int, data: bytes) -> None:
    """RFC 9293 §3.10.7.4, first: an ACK of where we are, and drop."""
    scene, peer, app = passive()
    peer.sends("P.", seq=seq, data=data)
    peer.expects(".", seq=1, ack=1, len=0)
    assert app.data == b""
    assert scene.counter("tcp_out_of_window") == 1


def test_beyond_the_right_edge_is_cut() -> None:
    """RFC 9293 §3.10.7.4, first and seventh: only what fits the window is taken."""
    settings = TcpSettings(receive_buffer=1000, receive_start=1000)
    _, peer, app = passive(settings=settings)
    app.pause()
    peer.sends(".", data=pattern(1400))
    peer.expects(".", ack=1001)
    app.resume()
    assert app.data == pattern(1400)[:1000]


def test_no_ack_flag_no_effect() -> None:
    """RFC 9293 §3.10.7.4, fifth: "if the ACK bit is off, drop the segment and return"."""
    scene, peer, app = passive()
    peer.sends("P", seq=1, data=b"x")
    peer.sends("F", seq=1)
    peer.expects_nothing()
    assert app.data == b""
    assert scene.counter("tcp_no_ack_flag") == 2


# ---------------------------------------------------------------------- the window we offer


def small(size: int = 4096, **options: object) -> tuple[Scene, Peer, App]:
    settings = TcpSettings(receive_buffer=size, receive_start=size)
    return passive(settings=settings, **options)  # type: ignore[arg-type]


def test_what_is_not_read_closes_the_window() -> None:
    """RFC 9293 §3.8.6: the right edge stays; nothing is lost."""
    _, peer, app = small()
    app.pause()
    sent = pattern(4096)
    for at in range(0, 4096, 1024):
        peer.sends(".", data=sent[at : at + 1024])
        peer.expects(".", ack=1 + at + 1024, window=4096 - at - 1024)
    assert app.data == b""
    app.resume()
    peer.expects(".", ack=4097, window=4096)
    assert app.data == sent


def test_the_edge_never_moves_left() -> None:
    """RFC 9293 §3.8.6 SHLD-14, MUST-33 spirit: what was offered stays offered."""
    _, peer, app = small(20_000)
    edge = 0
    for n in range(12):
        if n == 4:
            app.pause()
        if n == 9:
            app.resume()
        peer.sends(".", data=bytes(1000))
        for s in peer.drain():
            assert s.ack + s.window >= edge
            edge = s.ack + s.window


def test_probe_of_a_closed_window_is_answered() -> None:
    """RFC 9293 §3.8.6.1 MUST-36, §3.10.7.4: the octet is refused, its ACK field is not."""
    _, peer, app = small(1000)
    app.pause()
    app.send(b"unacknowledged")
    peer.expects("P.")
    peer.sends(".", data=bytes(1000), ack=1)
    peer.expects(".", ack=1001, window=0)
    peer.sends(".", seq=1001, data=b"?", ack=15)
    peer.expects(".", ack=1001, window=0)
    assert app.connection.snd_una == app.connection.snd_nxt
    app.resume()
    assert app.data == bytes(1000)


def test_window_opens_by_worthwhile_steps_only() -> None:
    """RFC 9293 §3.8.6.2.2 MUST-39: half the buffer, or a full segment."""
    _, peer, app = small(4 * FULL)
    app.pause()
    peer.sends(".", data=bytes(4 * FULL))
    peer.expects(".", window=0)
    # Reads one octet's worth at a time cannot be scripted from outside; windows offered can.
    app.resume()
    opened = peer.expects(".").window
    assert opened >= min(2 * FULL, FULL)


def test_what_is_written_carries_the_opened_window() -> None:
    """RFC 9293 §3.8.6: who reads and answers in one turn says both in one segment."""
    _, peer, app = small(4 * FULL)
    app.pause()
    peer.sends(".", data=bytes(4 * FULL))
    peer.expects(".", window=0)
    app.do(lambda c: (c.resume(), c.send(b"answer")))
    peer.expects("P.", data=b"answer", window=4 * FULL)
    peer.expects_nothing()


def test_a_window_that_is_large_enough_is_not_announced_again() -> None:
    """RFC 1122 §4.2.3.3 aims at few segments: an update says at least twice what is on offer."""
    _, peer, app = small(64 * FULL)
    app.pause()
    peer.sends(".", data=bytes(FULL))
    peer.sends(".", data=bytes(FULL))
    peer.drain()
    app.resume()
    peer.expects_nothing()


def test_window_of_the_trickle_fed() -> None:
    """RFC 9293 §3.8.6.2.2 MUST-39: while little is free, the edge stays where it was."""
    _, peer, app = small(4 * FULL)
    app.pause()
    edges = set()
    for _ in range(50):
        peer.sends(".", data=bytes(100))
        s = peer.drain()[-1:]
        edges |= {x.ack + x.window for x in s}
    assert edges == {1 + 4 * FULL}


def test_a_dribbling_peer_cannot_overfill_the_buffer() -> None:
    """RFC 9293 §3.8.6, RFC 7323 §2.3: rounding to the scale must not open a closed window."""
    buffer = 1 << 17
    settings = TcpSettings(receive_buffer=buffer * 50, receive_start=buffer)
    _, peer, app = passive(settings=settings)
    app.pause()
    unit = 1 << peer.host_wscale
    assert unit > 1
    sent = 0
    while sent < buffer - 1:
        size = min(1400, buffer - 1 - sent)
        peer.sends(".", data=bytes(size))
        sent += size
    for _ in range(20 * unit):
        peer.sends(".", data=b"x")
    peer.drain()
    held = app.connection.rcv_nxt - app.connection.irs - 1
    assert held <= buffer + unit


def test_fin_into_a_closed_window_is_seen_when_it_opens() -> None:
    """RFC 9293 §3.10.7.4: a FIN beyond the window is sent again, and counts then."""
    _, peer, app = small(1000)
    app.pause()
    peer.sends(".", data=bytes(1000))
    peer.sends("F.", seq=1001)
    assert app.state in ("ESTABLISHED", "CLOSE-WAIT")
    app.resume()
    peer.sends("F.", seq=1001)
    assert app.events == ["established", "data", "eof"]
    assert app.state == "CLOSE-WAIT"


def test_eof_waits_for_what_is_held() -> None:
    """Octets first, then their end, though both are here already."""
    _, peer, app = passive()
    app.pause()
    peer.sends("FP.", data=b"last words")
    peer.expects(".", ack=12)
    assert app.events == ["established"]
    app.resume()
    assert app.data == b"last words"
    assert app.events == ["established", "data", "eof"]


def test_pausing_inside_data() -> None:
    """What was already in the batch is held, not lost."""
    scene, peer, app = passive(react={"data": lambda c: c.pause()})
    scene.receive(*(peer.frame(".", data=bytes([65 + n])) for n in range(3)))
    assert app.data == b"A"
    app.resume()
    app.resume()
    assert app.data == b"ABC"


def test_the_window_grows_with_what_is_read() -> None:
    """RFC 9293 §3.8.6; the buffer follows need, to its bound and not beyond."""
    settings = TcpSettings(receive_buffer=1 << 20, receive_start=1 << 16)
    scene, peer, _ = passive(settings=settings, rtt=0.05)
    most = 0
    for _ in range(40):
        for _ in range(30):
            peer.sends(".", data=bytes(FULL))
        scene.advance(0.05)
        most = max(s.window for s in peer.drain())
    assert 1 << 17 < most <= (1 << 20) + (1 << peer.host_wscale)
