"""Sending: how much, in what pieces, and what to do about a closed window."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.tcb import TcpSettings
from appliance.net.wire import virtio
from tests.net.tcp.harness import FULL, App, Peer, Scene, passive, pattern

NODELAY = TcpSettings(nodelay=True)

# ---------------------------------------------------------------------- segments


def test_octets_leave_in_order_and_full_segments() -> None:
    """RFC 9293 §3.7, §3.8.6.2.1."""
    _, peer, app = passive()
    sent = pattern(3 * FULL)
    app.send(sent)
    for n in range(3):
        peer.expects(".", seq=1 + n * FULL, ack=1, data=sent[n * FULL : (n + 1) * FULL])


def test_many_small_writes_of_one_turn_share_segments() -> None:
    """RFC 9293 §3.7.4: nothing is transmitted before the turn ends."""
    _, peer, app = passive()
    app.do(lambda c: [c.send(b"%03d" % n) for n in range(10)])
    peer.expects("P.", data=b"".join(b"%03d" % n for n in range(10)))
    peer.expects_nothing()


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=12))
def test_writes_of_any_size_make_one_stream(sizes: list[int]) -> None:
    """RFC 9293 §3.8: no octet is lost, doubled or moved at the seams of writes."""
    whole = pattern(sum(sizes))
    _, peer, app = passive(window=1 << 20)
    at = 0
    for size in sizes:
        app.send(whole[at : at + size])
        at += size
    got = b""
    for _ in range(len(whole) // FULL + 20):
        got += b"".join(s.data for s in peer.drain())
        peer.sends(".")
    assert got == whole


def test_psh_ends_what_was_written() -> None:
    """RFC 9293 §3.9.1.2 MUST-60, MUST-61: on the last segment of the queue, and only there."""
    _, peer, app = passive()
    app.send(bytes(2 * FULL))
    assert peer.expects(".").flags == "."
    assert peer.expects("P.").flags == "P."


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_memory_views_are_taken_too(kind: type) -> None:
    """The seam takes both, and copies neither."""
    _, peer, app = passive()
    app.send(kind(b"octets"))
    peer.expects("P.", data=b"octets")


def test_a_full_link_delays_and_loses_nothing() -> None:
    """Back-pressure: what the link refuses leaves when it is writable again."""
    scene, peer, app = passive()
    for world in scene.worlds:
        world.vif.room = 2
    sent = pattern(5 * FULL)
    app.do(lambda c: (c.send(sent), c.shutdown()))
    assert len(peer.drain()) == 2
    assert scene.host.blocked()
    for world in scene.worlds:
        world.vif.room = 1 << 30
    scene.step(lambda world: world.host.flush(scene.now))
    assert not scene.host.blocked()
    rest = peer.drain()
    assert b"".join(s.data for s in rest) == sent[2 * FULL :]
    assert "F" in rest[-1].flags


@pytest.mark.parametrize("what", ["ack", "retransmission", "fin", "syn"])
def test_a_full_link_delays_everything_else_too(what: str) -> None:
    """Back-pressure: an ACK, a FIN or a repair is sent once there is room."""
    if what == "syn":
        scene = Scene()
        peer = Peer(scene, 80, 4000)
    else:
        # Without SACK there is no tail probe: what the timer finds lost is sent.
        scene, peer, app = passive(sack=what != "retransmission")
    if what == "retransmission":
        app.send(b"lost")
        peer.drain()
    for world in scene.worlds:
        world.vif.room = 0
    if what == "ack":
        peer.sends("P.", data=b"x")
    elif what == "fin":
        app.shutdown()
    elif what == "syn":
        scene.connect(80)
    else:
        scene.advance(0.25)
    peer.expects_nothing()
    for world in scene.worlds:
        world.vif.room = 1 << 30
    scene.step(lambda world: world.host.flush(scene.now))
    flags = {"ack": ".", "retransmission": "P.", "fin": "F.", "syn": "S"}[what]
    peer.expects(flags)


# ---------------------------------------------------------------------- write buffer


def test_unsent_and_writable() -> None:
    """The write buffer: what was never transmitted, and word when it has drained."""
    _, peer, app = passive(window=2 * FULL)
    app.send(bytes(4 * FULL))
    assert app.connection.unsent == 2 * FULL
    app.do(lambda c: setattr(c, "notify_below", FULL))
    assert "writable" not in app.events
    peer.drain()
    peer.sends(".", ack=1 + FULL)
    assert app.events[-1] == "writable"
    assert app.connection.notify_below == -1
    peer.sends(".", ack=1 + 3 * FULL)
    assert app.events.count("writable") == 1


def test_writable_may_write() -> None:
    """Refilling from the upcall goes out in the same turn."""
    _, peer, app = passive(react={"writable": lambda c: c.send(b"more")}, settings=NODELAY)
    app.do(lambda c: (setattr(c, "notify_below", 0), c.send(b"first")))
    got = b"".join(s.data for s in peer.drain())
    assert got in (b"firstmore", b"morefirst"[:0] + b"morefirst")
    assert app.connection.unsent == 0


# ---------------------------------------------------------------------- Nagle


def test_nagle_holds_the_second_small_segment() -> None:
    """RFC 9293 §3.7.4 SHLD-7: until what is out has been acknowledged."""
    _, peer, app = passive()
    app.send(b"a")
    peer.expects("P.", data=b"a")
    app.send(b"b")
    app.send(b"c")
    peer.expects_nothing()
    peer.sends(".")
    peer.expects("P.", data=b"bc")


def test_nagle_lets_full_segments_pass() -> None:
    """RFC 9293 §3.7.4: they do not wait, the tail behind them does."""
    _, peer, app = passive()
    app.send(b"a")
    peer.drain()
    app.send(bytes(FULL + 10))
    peer.expects(".", len=FULL)
    peer.expects_nothing()
    peer.sends(".")
    peer.expects("P.", len=10)


def test_nagle_does_not_make_a_write_wait_for_its_own_tail() -> None:
    """RFC 9293 appendix A.3: only another small segment that is out holds a small one back."""
    _, peer, app = passive()
    app.send(bytes(2 * FULL + 10))
    assert [len(s.data) for s in peer.drain()] == [FULL, FULL, 10]
    # The tail is out now, so the next one waits, whatever was sent in between.
    app.send(bytes(FULL + 20))
    peer.expects(".", len=FULL)
    peer.expects_nothing()
    peer.sends(".", ack=1 + 2 * FULL + 10)
    peer.expects("P.", len=20)


def test_nagle_knows_a_small_segment_that_a_tail_probe_sent() -> None:
    """RFC 8985 §7.3, RFC 9293 appendix A.3."""
    scene, peer, app = passive()
    app.send(b"a")
    app.send(b"b")
    peer.expects("P.", data=b"a")
    scene.advance(0.3)
    peer.expects("P.", data=b"b")
    peer.sends(".", ack=2)
    app.send(b"c")
    peer.expects_nothing()
    peer.sends(".")
    peer.expects("P.", data=b"c")


def test_nagle_counts_options_as_the_segment_does() -> None:
    """RFC 9293 §3.7.4: "full" is the effective MSS, options deducted, not the announced one."""
    _, peer, app = passive()
    app.send(bytes(10 * FULL))
    assert [len(s.data) for s in peer.drain()] == [FULL] * 10


def test_nagle_off() -> None:
    """RFC 9293 §3.7.4 MUST-17: an application can turn it off."""
    _, peer, app = passive(settings=NODELAY)
    app.send(b"a")
    app.send(b"b")
    peer.expects("P.", data=b"a")
    peer.expects("P.", data=b"b")


def test_nagle_turned_off_on_the_way() -> None:
    """RFC 9293 §3.7.4 MUST-17, per connection and at any time."""
    _, peer, app = passive()
    app.send(b"a")
    app.send(b"b")
    peer.expects("P.", data=b"a")
    peer.expects_nothing()
    app.do(lambda c: (setattr(c, "nodelay", True), c.send(b"c")))
    peer.expects("P.", data=b"bc")


def test_nagle_does_not_hold_the_end() -> None:
    """RFC 9293 §3.7.4: nothing more will be written, so there is nothing to wait for."""
    _, peer, app = passive()
    app.send(b"a")
    app.send(b"b")
    app.shutdown()
    peer.expects("P.", data=b"a")
    peer.expects("FP.", data=b"b")


# ---------------------------------------------------------------------- the peer's window


def test_window_of_the_peer_is_kept() -> None:
    """RFC 9293 §3.8.6: nothing beyond SND.UNA + SND.WND."""
    _, peer, app = passive(window=3 * FULL)
    app.send(bytes(10 * FULL))
    assert sum(len(s.data) for s in peer.drain()) <= 3 * FULL
    peer.sends(".", ack=1 + FULL)
    assert peer.drain()[-1].seq + FULL <= 1 + 4 * FULL


@pytest.mark.parametrize("window", [64, 3000])
def test_window_of_the_handshake_is_kept(window: int) -> None:
    """RFC 9293 §3.8.6; RFC 7323 §2.2: the one of the SYN,ACK holds from the first octet on."""
    scene = Scene()
    peer = Peer(scene, 80, 4000, window=window)
    app = scene.connect(80)
    app.send(bytes(5000))
    peer.expects("S", len=0)
    peer.sends("S.")
    assert 0 < sum(len(s.data) for s in peer.drain()) <= window


def test_window_taken_back_is_borne() -> None:
    """RFC 9293 §3.8.6 MUST-34: a sender must be robust against shrinking."""
    scene, peer, app = passive(window=8 * FULL)
    app.send(bytes(20 * FULL))
    assert len(peer.drain()) == 8
    peer.sends(".", ack=1, window=FULL)
    peer.expects_nothing()
    peer.sends(".", ack=1 + FULL, window=FULL)
    peer.expects_nothing()
    scene.advance(0.5)
    assert all(s.seq < 1 + 8 * FULL for s in peer.drain())
    peer.got = 1 + 8 * FULL
    peer.sends(".", window=4 * FULL)
    assert [s.seq for s in peer.drain()] == [1 + n * FULL for n in range(8, 12)]


def test_an_older_segment_does_not_change_the_window() -> None:
    """RFC 9293 §3.10.7.4, fifth: SND.WL1 and SND.WL2."""
    _, peer, app = passive()
    app.send(b"x")
    peer.drain()
    peer.sends("P.", data=b"abc", window=50_048)
    assert app.connection.snd_wnd == 50_048
    peer.sends(".", seq=1, data=b"abcd", ack=1, window=128)
    assert app.connection.snd_wnd == 50_048


@pytest.mark.parametrize("window", [100, FULL // 3, FULL - 1])
def test_silly_windows_are_not_filled(window: int) -> None:
    """RFC 9293 §3.8.6.2.1 MUST-38: less than a segment, less than half of the largest window."""
    _, peer, app = passive(window=10 * FULL)
    app.send(bytes(20 * FULL))
    peer.drain()
    peer.sends(".", window=window)
    peer.expects_nothing()


def test_half_the_largest_window_is_not_silly() -> None:
    """RFC 9293 §3.8.6.2.1 (3): Fs = 1/2; for peers whose whole buffer is less than a segment."""
    _, peer, app = passive(window=1024, wscale=0)
    app.send(bytes(5000))
    peer.expects(".", len=1024)
    peer.sends(".", window=512)
    peer.expects(".", len=512)
    peer.sends(".", window=511)
    peer.expects_nothing()


def test_silliness_is_overridden_in_the_end() -> None:
    """RFC 9293 §3.8.6.2.1 (4): the override timeout, 0.1 to 1 s, avoids a deadlock."""
    scene, peer, app = passive(window=10 * FULL)
    app.send(bytes(20 * FULL))
    peer.drain()
    peer.sends(".", window=128)
    scene.advance(1.0)
    assert peer.drain(), "deadlock"


# ---------------------------------------------------------------------- zero window


def closed(octets: int = 5000) -> tuple[Scene, Peer, App]:
    """Everything acknowledged, `octets` waiting, the window shut."""
    scene, peer, app = passive(rtt=0.1, window=FULL)
    app.send(pattern(FULL + octets))
    peer.expects(".", len=FULL)
    peer.window = 0
    scene.advance(0.1)
    peer.sends(".")
    peer.expects_nothing()
    return scene, peer, app


def test_probes_back_off_to_a_minute() -> None:
    """RFC 9293 §3.8.6.1 MUST-36, SHLD-29, SHLD-30: first after an RTO, then exponentially."""
    scene, peer, _ = closed()
    scene.advance(400)
    times = [s.at for s in peer.drain()]
    gaps = [b - a for a, b in pairwise(times)]
    assert 0.2 <= times[0] - 1000.2 <= 1.0
    for shorter, longer in pairwise(gaps):
        assert longer == pytest.approx(min(2 * shorter, 60.0))
    assert gaps[-1] == pytest.approx(60.0)
    assert scene.counter("tcp_window_probes") == len(times)


def test_probe_is_one_octet_of_the_stream() -> None:
    """RFC 9293 §3.8.6.1: "at least one octet of new data", the same until it is taken."""
    scene, peer, _ = closed()
    scene.advance(10)
    for s in peer.drain():
        assert (s.seq, s.data) == (1 + FULL, pattern(FULL + 1)[-1:])


def test_probe_refused_then_the_window_opens() -> None:
    """RFC 9293 §3.8.6.1: the answer to a probe brings the window."""
    scene, peer, _ = closed()
    scene.advance(1)
    peer.drain()
    peer.got = 1 + FULL
    peer.sends(".")
    peer.expects_nothing()
    peer.window = 1 << 16
    peer.sends(".")
    got = pattern(FULL + 5000)
    segments = peer.drain()
    assert segments[0].seq == 1 + FULL
    assert segments[0].data == got[FULL : FULL + len(segments[0].data)]


def test_probe_of_the_last_octet_refused() -> None:
    """RFC 9293 §3.8.6.1: there is nothing else to send, and still it must arrive."""
    scene, peer, _ = passive(window=0)
    scene.app().send(b"x")
    scene.advance(1.5)
    assert all(s.data == b"x" for s in peer.drain())
    peer.got = 1
    peer.window = 1000
    peer.sends(".")
    scene.advance(3)
    assert peer.drain()[0].data == b"x"


def test_probe_taken() -> None:
    """RFC 9293 §3.8.6.1: its octet is acknowledged like any, and not sent again."""
    scene, peer, _ = closed()
    scene.advance(1)
    peer.drain()
    peer.window = 1 << 16
    peer.sends(".", ack=2 + FULL)
    peer.expects(".", seq=2 + FULL, len=FULL)


def test_probe_taken_while_the_window_stays_shut() -> None:
    """RFC 9293 §3.8.6.1: the next probe is the next octet."""
    scene, peer, _ = closed()
    scene.advance(1)
    peer.drain()
    peer.got = 2 + FULL
    peer.sends(".")
    scene.advance(60)
    assert {s.seq for s in peer.drain()} == {2 + FULL}


def test_probe_taken_but_told_late() -> None:
    """RFC 9293 §3.8.6.1: two answers to one probe, the first of them a plain duplicate."""
    scene, peer, _ = closed()
    scene.advance(0.5)
    peer.drain()
    peer.sends(".", ack=1 + FULL, window=128)
    peer.drain()
    peer.got = 2 + FULL
    peer.sends(".", window=1 << 16)
    assert scene.counter("tcp_ack_invalid") == 0
    peer.expects(".", seq=2 + FULL)


def test_what_comes_during_a_probe_is_acknowledged_inside_the_window() -> None:
    """RFC 9293 §3.10.7.4, first: behind a refused probe an ACK would not be heard.

    A peer that uploads and does not read meanwhile would send the same for ever.
    """
    scene, peer, app = closed()
    scene.advance(0.5)
    assert peer.drain()[-1].seq == 1 + FULL
    peer.got = 1 + FULL
    peer.sends("P.", data=b"upload")
    peer.expects(".", seq=1 + FULL, ack=7, len=0)
    app.abort()
    peer.expects("R.", seq=1 + FULL)


def test_a_fin_behind_a_full_window_is_behind_its_acknowledgments_too() -> None:
    """RFC 9293 §3.10.7.4, first: who has taken it drops what lies before it, and the ACK in that.

    Of two that fill each other's windows and end at once, neither heard that its FIN had come.
    """
    _, peer, app = passive(window=FULL)
    app.send(pattern(FULL))
    peer.expects(".", seq=1, len=FULL)
    app.close()
    peer.expects("F.", seq=1 + FULL)
    peer.sends("F.", ack=1)
    peer.expects(".", seq=2 + FULL, ack=2, len=0)
    # It has the octets, and no room for an end: then an ACK before the FIN is heard.
    peer.window = 0
    peer.sends(".", ack=1 + FULL)
    peer.sends("F.", seq=1, ack=1 + FULL)
    peer.expects(".", seq=1 + FULL, ack=2, len=0)


def test_window_update_lost_is_found_by_the_probe() -> None:
    """RFC 9293 §3.8.6.1: why probes exist."""
    scene, peer, app = closed()
    peer.window = 1 << 16
    while app.connection.unsent or app.connection.snd_una < app.connection.snd_nxt:
        scene.advance(5)
        assert peer.drain()
        peer.sends(".")
    assert app.connection.snd_una == 1 + FULL + 5000 + app.connection.iss


def test_a_window_shut_for_ever_is_borne_while_the_peer_answers() -> None:
    """RFC 9293 §3.8.6.1 MUST-37: the connection stays open."""
    scene, peer, app = closed()
    for _ in range(120):
        scene.advance(60)
        peer.drain()
        peer.got = 1 + FULL
        peer.sends(".")
    assert app.state == "ESTABLISHED"
    peer.window = 1 << 16
    peer.sends(".")
    assert peer.drain()


def test_a_window_shut_over_what_is_out_is_borne_too() -> None:
    """RFC 9293 §3.8.6.1 MUST-37, §3.8.6 MUST-34: shrunk to nothing, but the peer answers."""
    scene, peer, app = passive(rtt=0.1)
    app.send(bytes(4 * FULL))
    peer.drain()
    peer.got = 1
    peer.window = 0
    for _ in range(120):
        peer.sends(".")
        scene.advance(60)
        peer.drain()
        peer.got = 1
    assert app.state == "ESTABLISHED"
    peer.window = 1 << 16
    peer.sends(".")
    scene.advance(5)
    assert peer.drain()


def test_a_fin_into_a_shut_window_is_borne_too() -> None:
    """RFC 9293 §3.8.6.1 MUST-37."""
    scene, peer, app = passive(rtt=0.1)
    peer.window = 0
    peer.sends(".")
    app.shutdown()
    for _ in range(60):
        scene.advance(60)
        peer.drain()
        peer.got = 1
        peer.sends(".")
    assert app.state == "FIN-WAIT-1"
    peer.window = 1 << 16
    peer.sends(".")
    scene.advance(61)
    assert "F" in peer.drain()[-1].flags


def test_a_shut_window_without_answers_ends() -> None:
    """RFC 9293 §3.8.3 MUST-20, R2: a peer that has vanished is not probed for ever."""
    scene, peer, app = closed()
    scene.advance(4 * 3600)
    assert app.state == "CLOSED"
    assert isinstance(app.error, TimeoutError)
    peer.drain()


def test_user_timeout_in_a_shut_window() -> None:
    """RFC 9293 §3.8.3 MUST-21."""
    scene = Scene()
    scene, peer, app = passive(settings=TcpSettings(user_timeout=20.0), window=0, scene=scene)
    app.send(b"x")
    scene.advance(60)
    assert isinstance(app.error, TimeoutError)
    peer.drain()


@pytest.mark.parametrize("window", [0, 100])
def test_user_timeout_counts_from_when_there_was_something_to_send(window: int) -> None:
    """RFC 5482 §3.1: what was written a moment ago is not given up for an hour of idleness."""
    scene, peer, app = passive(settings=TcpSettings(user_timeout=20.0))
    peer.window = window
    peer.sends(".")
    scene.advance(3600)
    app.send(bytes(5000))
    scene.advance(5)
    assert app.state == "ESTABLISHED"
    assert peer.drain(), "a probe, or what fits"


def test_what_a_peer_sends_does_not_put_the_override_off() -> None:
    """RFC 9293 §3.8.6.2.1 (4): 0.1 to 1 s, whatever repeats the same small window meanwhile."""
    scene, peer, app = passive(rtt=0.1)
    peer.window = 96
    peer.sends(".")
    app.send(bytes(5000))
    for _ in range(10):
        scene.advance(0.1)
        peer.sends("P.", data=bytes(100))
    assert 96 in [len(s.data) for s in peer.drain()]


def test_zero_window_from_the_start() -> None:
    """RFC 9293 §3.8.6.1: a SYN may offer nothing."""
    scene, peer, app = passive(window=0)
    app.send(b"patience")
    peer.expects_nothing()
    scene.advance(2)
    assert peer.drain()[0].data == b"p"
    peer.window = 1000
    peer.sends(".", ack=2)
    peer.expects("P.", data=b"atience")


# ---------------------------------------------------------------------- a full link


def test_a_full_link_is_shared() -> None:
    """Who has filled it comes last when there is room again: nobody waits for another's window."""
    scene = Scene()
    scene.listen(80)
    peers = [Peer(scene, 4000 + n) for n in range(3)]
    for peer in peers:
        peer.opens()
    scene.room(0)
    for n in range(3):
        scene.app(n).send(pattern(5 * FULL))
    for _ in range(5):
        for _ in peers:
            scene.room(1)
        assert [len(peer.drain()) for peer in peers] == [1, 1, 1]


# ---------------------------------------------------------------------- super-segments


def offloaded(gso_max: int = 65_535, **options: object) -> tuple[Scene, Peer, App]:
    return passive(scene=Scene(gso_max=gso_max), **options)  # type: ignore[arg-type]


def test_one_frame_carries_many_segments() -> None:
    """VIRTIO 1.2 §5.1.6.2: gso_size is the data of each piece; the whole queue is one frame."""
    _, peer, app = offloaded()
    sent = pattern(8 * FULL + 100)
    app.send(sent)
    whole = peer.expects("P.", seq=1, data=sent)
    assert whole.vnet.gso_size == FULL


def test_what_fits_a_segment_is_a_plain_frame() -> None:
    """VIRTIO 1.2 §5.1.6.2: no segmentation is asked for where none is needed."""
    _, peer, app = offloaded()
    app.send(bytes(FULL))
    assert peer.expects("P.", len=FULL).vnet.gso_type == virtio.GSO_NONE


@pytest.mark.parametrize("ts", [True, False])
def test_header_of_a_super_segment(ts: bool) -> None:
    """VIRTIO 1.2 §5.1.6.2: hdr_len, csum_start and csum_offset point where they say."""
    _, peer, app = offloaded(ts=ts)
    app.send(bytes(5 * 1460))
    mss = 1448 if ts else 1460
    headers = 14 + 20 + 20 + 12 * ts
    assert peer.expects("P.").vnet == (virtio.NEEDS_CSUM, virtio.GSO_TCPV4, headers, mss, 34, 16)


def test_super_segments_keep_to_the_link_and_whole_segments() -> None:
    """VIRTIO 1.2: never more than the link takes; the remainder waits for whole segments."""
    _, peer, app = offloaded(gso_max=10_000, window=1 << 20)
    app.send(bytes(14_000))
    for s in peer.drain():
        assert len(s.data) + 52 <= 10_000
        assert len(s.data) % FULL == 0 or "P" in s.flags


def test_super_segments_keep_to_the_windows() -> None:
    """RFC 9293 §3.8.6, RFC 6928: a large frame is no licence."""
    _, peer, app = offloaded(window=1 << 20)
    app.send(bytes(200_000))
    assert sum(len(s.data) for s in peer.drain()) == 10 * FULL
    _, peer, app = offloaded(window=5 * FULL + 100)
    app.send(bytes(200_000))
    assert sum(len(s.data) for s in peer.drain()) == 5 * FULL


def test_psh_and_fin_stand_on_the_super_segment() -> None:
    """RFC 9293 §3.9.1.2: the link moves them to the last piece."""
    _, peer, app = offloaded()
    app.do(lambda c: (c.send(bytes(4 * FULL)), c.shutdown()))
    assert peer.expects("FP.", len=4 * FULL).flags == "FP."


def test_nagle_behind_a_super_segment() -> None:
    """RFC 9293 §3.7.4: with something out, the tail of a large write waits."""
    _, peer, app = offloaded()
    app.send(b"first")
    peer.expects("P.")
    app.send(bytes(3 * FULL + 7))
    peer.expects(".", len=3 * FULL)
    peer.expects_nothing()
    peer.sends(".")
    peer.expects("P.", len=7)


@given(st.integers(1, 60_000), st.sampled_from([0, 3000, 65_535]))
def test_the_stream_is_the_same_however_it_is_cut(length: int, gso_max: int) -> None:
    """RFC 9293 §3.8."""
    sent = pattern(length)
    _, peer, app = offloaded(gso_max, window=1 << 20)
    app.send(sent)
    got = b""
    while len(got) < length:
        got += b"".join(s.data for s in peer.drain())
        peer.sends(".")
    assert got == sent


def test_segments_in_of_any_size() -> None:
    """VIRTIO 1.2 §5.1.6.4: a received frame may be a merged super-segment of up to 64 KB."""
    settings = TcpSettings(receive_start=1 << 20)
    _, peer, app = offloaded(settings=settings)
    sent = pattern(60_000)
    peer.sends("P.", data=sent, vnet=virtio.pack(2, virtio.GSO_TCPV4, 66, FULL))
    assert app.data == sent
    peer.expects(".", ack=60_001, len=0)


def test_a_super_segment_is_pushed() -> None:
    """RFC 9293 §3.9.1.2: a sender may set PSH; Linux does on what it hands to the link in one."""
    _, peer, app = passive(scene=Scene(gso_max=1 << 16))
    app.send(bytes(30 * FULL))
    first = next(iter(peer.drain()))
    assert len(first.data) == 10 * FULL
    assert first.flags == "P."


def test_a_short_segment_that_a_closed_window_refused_does_not_hold_itself_back() -> None:
    """RFC 9293 §3.7.4: Nagle waits for what is unacknowledged, and nothing is any more."""
    scene, peer, app = passive(sack=False)
    app.send(b"x")
    peer.expects("P.", seq=1, data=b"x")
    peer.sends(".", ack=1, window=0)
    scene.advance(1.5)
    assert {s.data for s in peer.drain()} == {b"x"}  # probes by now (RFC 9293 §3.8.6.1)
    peer.sends(".", ack=1, window=1000)
    peer.expects("P.", seq=1, data=b"x")
