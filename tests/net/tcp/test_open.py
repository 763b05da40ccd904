"""Opening: the handshake from both sides, and what may happen instead."""

from __future__ import annotations

import errno

import pytest

from appliance.net.stack import Limits
from appliance.net.tcb import TcpSettings
from appliance.net.wire import tcp, virtio
from tests.net.tcp.harness import PEER_ADDRESS, Peer, Scene, active, passive

# ---------------------------------------------------------------------- active


def test_active_open() -> None:
    """RFC 9293 §3.5, figure 6; §3.10.7.3."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    syn = peer.expects("S", seq=0, len=0)
    assert app.state == "SYN-SENT"
    assert syn.options.mss == 1460
    peer.sends("S.")
    peer.expects(".", seq=1, ack=1, len=0)
    assert app.state == "ESTABLISHED"
    assert app.events == ["established"]
    assert scene.counter("tcp_connected") == 1


def test_options_of_a_syn_stand_where_linux_puts_them() -> None:
    """RFC 9293 §3.7.1 SHLD-5: MSS, SACK-permitted, timestamps, NOP, window scale."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    raw: list[bytes] = []
    hears = peer.hears

    def keep(frame: bytes, t: tcp.TcpHeader, vnet: virtio.VnetHeader) -> None:
        raw.append(frame[t.options_at : t.payload_at])
        hears(frame, t, vnet)

    peer.hears = keep  # type: ignore[method-assign]
    scene.connect(80)
    kinds = [raw[0][at] for at in (0, 4, 6, 16, 17)]
    assert kinds == [2, 4, 8, 1, 3]


def test_syn_is_sent_again_and_given_up() -> None:
    """RFC 9293 §3.8.3 MUST-22, MUST-23 (here after 127 s, as Linux); RFC 6298 §2.1, §5.5."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    scene.advance(200)
    assert [round(s.at - 1000) for s in peer.drain()] == [0, 1, 3, 7, 15, 31, 63]
    assert app.events == ["closed"]
    assert isinstance(app.error, TimeoutError)
    assert app.state == "CLOSED"
    assert scene.counter("tcp_syn_retransmitted") == 6


def test_user_timeout_ends_the_attempt_sooner() -> None:
    """RFC 9293 §3.8.3 MUST-21: the application sets R2 of its connection."""
    scene = Scene()
    Peer(scene, 80, 4000)
    app = scene.connect(80, settings=TcpSettings(user_timeout=5.0))
    scene.advance(10)
    assert isinstance(app.error, TimeoutError)


def test_refused() -> None:
    """RFC 9293 §3.10.7.3, second: a RST that acknowledges the SYN."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    peer.expects("S")
    peer.sends("R.", seq=0, ack=1)
    assert isinstance(app.error, ConnectionRefusedError)
    assert app.error.errno == errno.ECONNREFUSED
    assert app.events == ["closed"]
    scene.advance(100)
    peer.expects_nothing()


@pytest.mark.parametrize("ack", [0, 2, 1000])
def test_reset_for_another_syn_is_ignored(ack: int) -> None:
    """RFC 9293 §3.10.7.3: an unacceptable ACK with RST is dropped."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    peer.expects("S")
    peer.sends("R.", seq=0, ack=ack)
    peer.sends("R", seq=0)
    assert app.state == "SYN-SENT"
    peer.expects_nothing()


@pytest.mark.parametrize("flags", [".", "S.", "F.", "P."])
@pytest.mark.parametrize("ack", [0, 2])
def test_wrong_ack_in_syn_sent_is_reset(flags: str, ack: int) -> None:
    """RFC 9293 §3.10.7.3, first: <SEQ=SEG.ACK><CTL=RST>."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    peer.expects("S")
    peer.sends(flags, seq=0, ack=ack)
    peer.expects("R", seq=ack, len=0)
    assert app.state == "SYN-SENT"
    peer.nxt = 0
    peer.sends("S.")
    peer.expects(".", seq=1, ack=1)
    assert app.state == "ESTABLISHED"


def test_bare_ack_of_the_syn_is_not_enough() -> None:
    """RFC 9293 §3.10.7.3, fifth: neither SYN nor RST, so drop."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    peer.expects("S")
    peer.sends(".", seq=0, ack=1)
    peer.expects_nothing()
    assert app.state == "SYN-SENT"


def test_syn_ack_with_data_and_fin() -> None:
    """RFC 9293 §3.10.7.3, fourth: what comes with the SYN is processed from the sixth step on."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    peer.expects("S")
    peer.sends("SFP.", data=b"bye")
    peer.expects(".", seq=1, ack=5)
    assert app.data == b"bye"
    assert app.events == ["established", "data", "eof"]
    assert app.state == "CLOSE-WAIT"


def test_syn_ack_twice_is_acknowledged_twice() -> None:
    """RFC 9293 §3.10.7.4, first: our ACK was lost, the old SYN,ACK gets another."""
    _, peer, app = active()
    peer.sends("S.", seq=0, ack=1)
    peer.expects(".", seq=1, ack=1, len=0)
    assert app.state == "ESTABLISHED"


def test_data_waits_for_the_handshake() -> None:
    """RFC 9293 §3.10.2: SEND in SYN-SENT queues."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    app.send(b"early")
    app.shutdown()
    peer.expects("S", len=0)
    peer.expects_nothing()
    peer.sends("S.")
    peer.expects("FP.", seq=1, ack=1, data=b"early")
    assert app.state == "FIN-WAIT-1"


def test_close_before_the_answer() -> None:
    """RFC 9293 §3.10.4: CLOSE in SYN-SENT deletes the TCB; what comes then meets CLOSED."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    peer.expects("S")
    app.close()
    assert app.events == ["closed"]
    assert app.error is None
    peer.expects_nothing()
    peer.sends("S.")
    peer.expects("R", seq=1)


def test_abort_before_the_answer() -> None:
    """RFC 9293 §3.10.5: ABORT in SYN-SENT deletes the TCB without a word."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    peer.expects("S")
    app.abort()
    assert app.state == "CLOSED"
    assert app.events == []
    scene.advance(100)
    peer.expects_nothing()


# ---------------------------------------------------------------------- simultaneous


def simultaneous(**options: object) -> tuple[Scene, Peer]:
    scene = Scene()
    peer = Peer(scene, 80, 4000, **options)
    scene.connect(80)
    peer.expects("S", seq=0)
    peer.sends("S", seq=0)
    peer.nxt = 1
    return scene, peer


def test_simultaneous_open() -> None:
    """RFC 9293 §3.5 MUST-10, figure 7."""
    scene, peer = simultaneous()
    again = peer.expects("S.", seq=0, ack=1, len=0)
    assert again.options.mss == 1460
    assert scene.app().state == "SYN-RECEIVED"
    assert scene.app().events == []
    peer.sends(".")
    assert scene.app().state == "ESTABLISHED"
    assert scene.app().events == ["established"]


def test_simultaneous_open_by_crossing_syn_acks() -> None:
    """RFC 9293 §3.5, figure 7, lines 5 to 7: the peer says SYN,ACK too."""
    scene, peer = simultaneous()
    peer.expects("S.", seq=0, ack=1)
    peer.sends("S.", seq=0, ack=1)
    peer.expects(".", seq=1, ack=1, len=0)
    peer.sends(".")
    assert scene.app().state == "ESTABLISHED"


def test_simultaneous_open_repeats_its_syn_ack() -> None:
    """RFC 9293 §3.10.8: the retransmission timer runs in SYN-RECEIVED too."""
    scene, peer = simultaneous()
    peer.expects("S.", seq=0, ack=1)
    scene.advance(1.5)
    peer.expects("S.", seq=0, ack=1)
    scene.advance(200)
    assert isinstance(scene.app().error, TimeoutError)


def test_simultaneous_open_agrees_on_scaling_by_nought() -> None:
    """RFC 7323 §2.2: the option, even with shift 0, means that both may scale."""
    _, peer = simultaneous(wscale=0)
    assert peer.expects("S.").options.window_scale is not None


def test_simultaneous_open_reset() -> None:
    """RFC 9293 §3.10.7.4, second: RST in SYN-RECEIVED of an active OPEN means refused."""
    scene, peer = simultaneous()
    peer.expects("S.")
    peer.sends("R")
    assert isinstance(scene.app().error, ConnectionRefusedError)


def test_simultaneous_open_wrong_ack() -> None:
    """RFC 9293 §3.10.7.4, fifth: <SEQ=SEG.ACK><CTL=RST>, and SYN-RECEIVED stays."""
    scene, peer = simultaneous()
    peer.expects("S.")
    peer.sends(".", ack=5)
    peer.expects("R", seq=5)
    assert scene.app().state == "SYN-RECEIVED"


def test_close_in_syn_received() -> None:
    """RFC 9293 §3.10.4: CLOSE in SYN-RECEIVED sends the FIN once established."""
    scene, peer = simultaneous()
    peer.expects("S.")
    scene.app().close()
    peer.sends(".")
    peer.expects("F.", seq=1, ack=1)
    assert scene.app().state == "FIN-WAIT-1"
    assert scene.app().events == ["closed"]


def test_abort_in_syn_received() -> None:
    """RFC 9293 §3.10.5: ABORT in SYN-RECEIVED sends a RST."""
    scene, peer = simultaneous()
    peer.expects("S.")
    scene.app().abort()
    peer.expects("R.", seq=1, ack=1)
    assert scene.app().state == "CLOSED"


# ---------------------------------------------------------------------- passive


def test_passive_open() -> None:
    """RFC 9293 §3.10.7.2, §3.10.7.4: SYN, SYN+ACK, ACK."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends("S")
    answer = peer.expects("S.", seq=0, ack=1, len=0)
    assert answer.options.mss == 1460
    assert not scene.worlds[0].users, "not accepted before the handshake is done"
    peer.sends(".")
    peer.expects_nothing()
    assert scene.app().state == "ESTABLISHED"
    assert scene.app().events == ["established"]
    assert scene.app().connection.remote == (PEER_ADDRESS, 4000)
    assert scene.app().connection.local == ("10.0.0.2", 80)
    assert scene.counter("tcp_accepted") == 1


def test_two_connections_do_not_mix() -> None:
    """RFC 9293 §3.10.1 MUST-42: many connections share one local port."""
    scene = Scene()
    scene.listen(80)
    peers = [Peer(scene, port) for port in (4000, 4001)]
    for peer in peers:
        peer.sends("S")
        peer.expects("S.")
        peer.sends(".")
    for n, peer in enumerate(peers):
        peer.sends("P.", data=b"%d" % n)
        peer.expects(".", ack=2)
    assert [scene.app(n).data for n in (0, 1)] == [b"0", b"1"]


@pytest.mark.parametrize("flags", ["R", "R.", "SR", "SR.", "FR."])
def test_listen_ignores_resets(flags: str) -> None:
    """RFC 9293 §3.10.7.2, first."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends(flags, raw_ack=77)
    peer.expects_nothing()


@pytest.mark.parametrize("flags", [".", "S.", "F.", "P.", "SF.", "U."])
def test_listen_resets_what_acknowledges(flags: str) -> None:
    """RFC 9293 §3.10.7.2, second: <SEQ=SEG.ACK><CTL=RST>."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends(flags, raw_ack=77)
    reset = peer.expects("R", len=0, ack=0)
    assert reset.seq == 77


@pytest.mark.parametrize("flags", ["", "F", "P", "U"])
def test_listen_drops_the_rest(flags: str) -> None:
    """RFC 9293 §3.10.7.2, fourth: "drop the segment and return"."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends(flags, data=b"?")
    peer.expects_nothing()


def test_syn_with_data() -> None:
    """RFC 9293 §3.10.7.2, third: data with the SYN may be left to be sent again."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends("S", data=b"early")
    taken = peer.expects("S.", seq=0).ack - 1
    assert taken in (0, 5)
    peer.sends(".", seq=1 + taken)
    peer.sends("P.", seq=1, data=b"early")
    assert scene.app().data == b"early"


def test_handshake_completed_by_data() -> None:
    """RFC 9293 §3.10.7.4: the third segment may carry data and FIN."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends("S")
    peer.expects("S.")
    peer.sends("FP.", data=b"all at once")
    peer.expects(".", seq=1, ack=13)
    assert scene.app().data == b"all at once"
    assert scene.app().events == ["established", "data", "eof"]
    assert scene.app().state == "CLOSE-WAIT"


def test_third_segment_lost_data_completes() -> None:
    """RFC 9293 §3.10.7.4, fifth: any acceptable ACK completes the handshake."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends("S")
    peer.expects("S.")
    peer.sends("P.", data=b"abc")
    peer.expects(".", ack=4)
    assert scene.app().data == b"abc"


def test_data_ahead_of_a_hole_completes_the_handshake() -> None:
    """RFC 9293 §3.10.7.4: its ACK is good, its data waits."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends("S")
    peer.expects("S.")
    peer.sends("P.", seq=4, data=b"def")
    assert scene.app().state == "ESTABLISHED"
    peer.expects(".", ack=1)
    peer.sends("P.", seq=1, data=b"abc")
    peer.expects(".", ack=7)
    assert scene.app().data == b"abcdef"


# ---------------------------------------------------------------------- SYN-RECEIVED, passive


def half_open(scene: Scene | None = None, **options: object) -> tuple[Scene, Peer]:
    scene = scene or Scene()
    scene.listen(80)
    peer = Peer(scene, **options)
    peer.sends("S")
    peer.expects("S.", seq=0, ack=1)
    return scene, peer


def test_syn_again_gets_syn_ack_again() -> None:
    """RFC 9293 §3.5: the SYN,ACK was lost."""
    scene, peer = half_open()
    peer.sends("S", seq=0)
    peer.expects("S.", seq=0, ack=1)
    peer.sends(".")
    assert scene.app().state == "ESTABLISHED"


def test_syn_ack_is_sent_again_and_given_up() -> None:
    """RFC 9293 §3.8.3, RFC 6298 §5.5; five times, as Linux."""
    scene, peer = half_open()
    scene.advance(200)
    assert [round(s.at - 1000) for s in peer.drain()] == [1, 3, 7, 15, 31]
    assert not scene.worlds[0].users
    peer.sends(".")
    peer.expects("R", seq=1)


def test_repeated_syns_do_not_keep_a_half_open_connection_alive() -> None:
    """RFC 4987 §3.2: a half-open connection ends whatever its peer repeats."""
    scene, peer = half_open()
    for _ in range(124):
        peer.sends("S", seq=0)
        scene.advance(0.5)
    # The last repetition is a second old, and the 63 s of the SYN,ACK's own timeouts are over.
    scene.advance(1.5)
    peer.drain()
    peer.sends(".", seq=1, ack=1)
    assert scene.worlds[0].users == []


def test_syn_ack_lost_once() -> None:
    """RFC 9293 §3.10.8: the answer to the second SYN,ACK opens as well as any."""
    scene, peer = half_open()
    scene.advance(1.2)
    peer.expects("S.", seq=0, ack=1, at=1.0)
    peer.sends(".")
    assert scene.app().state == "ESTABLISHED"
    scene.advance(30)
    peer.expects_nothing()


def test_reset_in_syn_received_returns_to_listen() -> None:
    """RFC 9293 §3.10.7.4, second: back to LISTEN, nobody is told."""
    scene, peer = half_open()
    peer.sends("R", seq=1)
    peer.expects_nothing()
    assert scene.worlds[0].users == []
    peer.sends("S", seq=0)
    peer.expects("S.", ack=1)


def test_reset_in_the_window_is_challenged_in_syn_received() -> None:
    """RFC 5961 §3.2: not exactly RCV.NXT, so a challenge ACK."""
    scene, peer = half_open()
    peer.sends("R", seq=100)
    peer.expects(".", seq=1, ack=1)
    peer.sends(".")
    assert scene.app().state == "ESTABLISHED"


def test_reset_outside_the_window_is_dropped_in_syn_received() -> None:
    """RFC 5961 §3.2."""
    scene, peer = half_open()
    peer.sends("R", seq=1 << 20)
    peer.sends("R", seq=0)
    peer.expects_nothing()
    peer.sends(".", seq=1)
    assert scene.app().state == "ESTABLISHED"


def test_syn_in_the_window_is_challenged_in_syn_received() -> None:
    """RFC 9293 §3.10.7.4, fourth; RFC 5961 §4.2."""
    _, peer = half_open()
    peer.sends("S", seq=50)
    peer.expects(".", seq=1, ack=1)


def test_challenge_in_syn_received_carries_the_timestamp() -> None:
    """RFC 7323 §3.2: once agreed on, in every segment that is not a RST."""
    _, peer = half_open()
    peer.sends("S", seq=50)
    assert peer.expects(".").options.timestamp is not None


def test_challenges_in_syn_received_are_throttled() -> None:
    """RFC 5961 §7."""
    _, peer = half_open()
    for n in range(50):
        peer.sends("S", seq=50 + n)
    assert len(peer.drain()) <= 2


@pytest.mark.parametrize("ack", [0, 2, 5000])
def test_wrong_ack_in_syn_received_is_reset(ack: int) -> None:
    """RFC 9293 §3.10.7.4, fifth: <SEQ=SEG.ACK><CTL=RST>, and SYN-RECEIVED stays."""
    scene, peer = half_open()
    peer.sends(".", seq=1, ack=ack)
    peer.expects("R", seq=ack, len=0)
    peer.sends(".", seq=1, ack=1)
    assert scene.app().state == "ESTABLISHED"


def test_out_of_window_in_syn_received() -> None:
    """RFC 9293 §3.10.7.4, first: an ACK, and drop."""
    scene, peer = half_open()
    peer.sends("P.", seq=1 << 20, data=b"x")
    peer.expects(".", seq=1, ack=1)
    assert not scene.worlds[0].users


def test_no_ack_flag_in_syn_received() -> None:
    """RFC 9293 §3.10.7.4, fifth: drop."""
    scene, peer = half_open()
    peer.sends("P", seq=1, data=b"x")
    peer.expects_nothing()
    assert scene.counter("tcp_no_ack_flag") == 1


def test_paws_in_syn_received() -> None:
    """RFC 7323 §5.3: older than the SYN, so an ACK, and drop."""
    scene, peer = half_open()
    peer.sends(".", seq=1, ts=(peer.clock - 5000, peer.echo))
    peer.expects(".", ack=1)
    assert scene.counter("tcp_paws_dropped") == 1
    assert not scene.worlds[0].users


def test_missing_timestamp_is_forgiven() -> None:
    """Deviates from RFC 7323 §3.2 (SHOULD drop) as Linux does."""
    scene, peer = half_open()
    peer.sends(".", seq=1, ts=None)
    assert scene.app().state == "ESTABLISHED"
    assert scene.counter("tcp_missing_timestamp") >= 1


def test_a_listener_that_closes_takes_its_half_open_with_it() -> None:
    """RFC 9293 §3.10.4: CLOSE in LISTEN; SYN-RECEIVED of it has nobody to accept."""
    scene = Scene()
    listener = scene.listen(80)
    peer = Peer(scene)
    peer.sends("S")
    peer.expects("S.")
    listener.close()
    peer.sends(".")
    peer.expects("R", seq=1)
    peer.sends("S", seq=0)
    peer.expects("R.")
    assert scene.counter("tcp_no_listener") == 2


# ---------------------------------------------------------------------- bounds


def test_beyond_the_backlog_a_cookie_remembers_for_us() -> None:
    """RFC 4987 §3.6: nothing is kept and nothing sent again, yet the handshake completes."""
    scene = Scene()
    scene.listen(80, backlog=2)
    peers = [Peer(scene, 4000 + n) for n in range(3)]
    for peer in peers:
        peer.sends("S")
        peer.expects("S.", seq=0, ack=1)
    assert scene.counter("tcp_cookies_sent") == 1
    scene.advance(1.5)
    assert [len(peer.drain()) for peer in peers] == [1, 1, 0]
    peers[2].sends("P.", data=b"remembered")
    peers[2].expects(".", seq=1, ack=11)
    assert scene.app().data == b"remembered"
    assert scene.counter("tcp_cookies_valid") == 1


def test_a_cookie_keeps_the_options() -> None:
    """RFC 4987 §3.6: MSS in the number, window scale and SACK in the timestamp."""
    scene = Scene()
    scene.listen(80, backlog=1)
    Peer(scene, 4000).sends("S")
    peer = Peer(scene, 4001, mss=1400, wscale=9)
    peer.sends("S")
    peer.expects("S.")
    peer.sends(".")
    scene.app().send(bytes(2 * 1388))
    peer.expects(".", len=1388)
    peer.expects("P.", len=1388)
    assert scene.app().connection.snd_wnd == 1 << 16
    peer.sends("P.", seq=101, data=b"ahead")
    assert peer.expects(".").options.sack


@pytest.mark.parametrize("ts", [True, False])
def test_a_cookie_measures_by_the_timestamp_or_not_at_all(ts: bool) -> None:
    """RFC 6298 §2.1, §2.2: when the SYN,ACK left is forgotten; it did not take nought."""
    scene = Scene()
    scene.listen(80, backlog=1)
    Peer(scene, 4000).sends("S")
    peer = Peer(scene, 4001, ts=ts)
    peer.sends("S")
    peer.expects("S.")
    scene.advance(0.5)
    peer.sends(".")
    rtt = scene.app().connection.repair.rtt
    if ts:
        assert 0.5 <= rtt.srtt < 0.5 + 0.064, "the low six bits carry options"
    else:
        assert (rtt.srtt, rtt.rto) == (0.0, 1.0)


def test_a_cookie_without_timestamps_keeps_the_mss_alone() -> None:
    """RFC 4987 §3.6: nothing would carry the rest."""
    scene = Scene()
    scene.listen(80, backlog=1)
    Peer(scene, 4000).sends("S")
    peer = Peer(scene, 4001, mss=1400, ts=False)
    peer.sends("S")
    answer = peer.expects("S.").options
    assert answer.window_scale is None
    assert not answer.sack_permitted
    peer.wscale = None
    peer.sends(".")
    assert scene.app().connection.mss == 1400
    assert scene.app().connection.snd_wnd == 65535


@pytest.mark.parametrize(("seq", "ack"), [(2, 1), (1, 9), (1, -7)])
def test_a_forged_cookie_opens_nothing(seq: int, ack: int) -> None:
    """RFC 4987 §3.6: what the hash did not make is reset as RFC 9293 §3.10.7.1 says."""
    scene = Scene()
    scene.listen(80, backlog=1)
    Peer(scene, 4000).sends("S")
    peer = Peer(scene, 4001)
    peer.sends("S")
    peer.expects("S.")
    peer.sends(".", seq=seq, ack=ack)
    peer.expects("R", seq=ack)
    assert scene.counter("tcp_cookies_failed") == 1
    assert scene.worlds[0].users == []


def test_an_old_cookie_opens_nothing() -> None:
    """RFC 4987 §3.6: a cookie lives for two minutes at most."""
    scene = Scene()
    scene.listen(80, backlog=1)
    Peer(scene, 4000).sends("S")
    peer = Peer(scene, 4001)
    peer.sends("S")
    peer.expects("S.")
    scene.advance(200)
    Peer(scene, 4002).sends("S")
    Peer(scene, 4003).sends("S")
    peer.sends(".")
    peer.expects("R", seq=1)
    assert scene.worlds[0].users == []


def test_a_place_in_the_backlog_comes_back() -> None:
    """RFC 9293 §3.10.7.2: completed, reset and expired handshakes all free theirs."""
    scene = Scene()
    scene.listen(80, backlog=1)
    peers = [Peer(scene, 4000 + n) for n in range(4)]
    peers[0].opens()
    peers[1].sends("S")
    peers[1].sends("R", seq=1)
    peers[2].sends("S")
    scene.advance(64)
    peers[3].sends("S")
    assert scene.counter("tcp_cookies_sent") == 0


def test_half_open_connections_of_all_listeners_are_bounded() -> None:
    """RFC 4987 §3: one bound for the host beside those of the listeners."""
    scene = Scene(limits=Limits(half_open=3))
    scene.listen(80)
    scene.listen(81)
    peers = [Peer(scene, 4000 + n, 80 + n % 2) for n in range(4)]
    for peer in peers:
        peer.sends("S")
        peer.expects("S.")
    assert scene.counter("tcp_cookies_sent") == 1
    scene.advance(1.5)
    assert [len(peer.drain()) for peer in peers] == [1, 1, 1, 0]


def test_connections_of_one_peer_are_bounded() -> None:
    """One address cannot take every place."""
    scene = Scene(limits=Limits(per_peer=1))
    scene.listen(80)
    first, second = Peer(scene, 4000), Peer(scene, 4001)
    first.opens()
    second.sends("S")
    second.expects_nothing()
    assert scene.counter("tcp_per_peer_dropped") == 1
    scene.app().abort()
    second.sends("S", seq=0)
    second.expects("S.")


def test_cookies_of_one_peer_are_bounded_too() -> None:
    """RFC 4987 §3.6: what the SYN,ACKs of a flood remember is no way around the bound."""
    scene = Scene(limits=Limits(per_peer=1))
    scene.listen(80, backlog=1)
    Peer(scene, 3999).sends("S")
    peers = [Peer(scene, 4000 + n) for n in range(2)]
    for peer in peers:
        peer.sends("S")
        peer.expects("S.")
    for peer in peers:
        peer.sends(".")
    peers[0].expects_nothing()
    peers[1].expects("R")
    assert scene.counter("tcp_per_peer_dropped") == 1


def test_connections_are_bounded() -> None:
    """Both doors are shut at the bound, and open again below it."""
    scene = Scene(limits=Limits(connections=2))
    scene.listen(80)
    peers = [Peer(scene, 4000 + n) for n in range(3)]
    for peer in peers[:2]:
        peer.sends("S")
        peer.expects("S.")
        peer.sends(".")
    peers[2].sends("S")
    peers[2].expects_nothing()
    assert scene.counter("tcp_backlog_dropped") == 1
    with pytest.raises(OSError, match="connections") as raised:
        scene.connect(80)
    assert raised.value.errno == errno.ENOBUFS
    for world in scene.worlds:
        world.users = world.users[:2]
    scene.app(0).abort()
    peers[2].sends("S", seq=0)
    peers[2].expects("S.")


# ---------------------------------------------------------------------- CLOSED


@pytest.mark.parametrize(
    ("flags", "data", "counted"),
    [("S", b"", 1), ("F", b"", 1), ("P", b"abc", 3), ("SF", b"ab", 4), ("", b"", 0)],
)
def test_closed_port_without_ack(flags: str, data: bytes, counted: int) -> None:
    """RFC 9293 §3.10.7.1: <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>."""
    scene = Scene()
    peer = Peer(scene)
    peer.sends(flags, seq=10, data=data)
    reset = peer.expects("R.", ack=10 + counted, len=0)
    assert reset.seq == 0
    assert reset.window == 0


@pytest.mark.parametrize("flags", [".", "S.", "F.", "P."])
def test_closed_port_with_ack(flags: str) -> None:
    """RFC 9293 §3.10.7.1: <SEQ=SEG.ACK><CTL=RST>."""
    scene = Scene()
    peer = Peer(scene)
    peer.sends(flags, seq=10, raw_ack=12345)
    assert peer.expects("R", len=0).seq == 12345


@pytest.mark.parametrize("flags", ["R", "R.", "SR"])
def test_closed_port_never_answers_a_reset(flags: str) -> None:
    """RFC 9293 §3.10.7.1."""
    scene = Scene()
    peer = Peer(scene)
    peer.sends(flags, seq=10, raw_ack=12345)
    peer.expects_nothing()


def test_reset_carries_no_options() -> None:
    """RFC 7323 §3.2 allows a RST without timestamps; nobody knows which were agreed on."""
    scene = Scene()
    peer = Peer(scene)
    peer.sends("S")
    assert peer.expects("R.").options == tcp.NO_OPTIONS


# ---------------------------------------------------------------------- initial numbers


def test_initial_numbers_grow_and_differ_between_flows() -> None:
    """RFC 6528 §3, RFC 9293 §3.4.1 MUST-8, MUST-9."""
    scene = Scene()
    scene.listen(80)
    numbers = []
    for port in (4000, 4001):
        peer = Peer(scene, port)
        peer.sends("S")
        numbers.append(peer.iss)
    assert abs(numbers[0] - numbers[1]) > 1000
    peer.sends("R", seq=1)
    scene.advance(10)
    peer.nxt = 0
    peer.sends("S")
    assert (peer.iss - numbers[1]) & 0xFFFFFFFF == pytest.approx(10 * 250_000, abs=1)


def test_rto_after_a_lost_syn_is_three_seconds() -> None:
    """RFC 6298 §5.7: MUST be re-initialized to 3 s when data transmission begins."""
    scene = Scene()
    peer = Peer(scene, 80, 4000, ts=False)
    app = scene.connect(80)
    scene.advance(1.5)
    peer.sends("S.", ack=1)
    peer.drain()
    began = scene.now
    app.send(b"x")
    peer.expects("P.")
    scene.advance(4)
    assert peer.expects("P.").at == pytest.approx(began + 3.0)


def test_first_rto_of_data_follows_the_measured_handshake() -> None:
    """RFC 6298 §2.2: SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 RTTVAR = 3 R."""
    scene, peer, app = active(rtt=0.5, sack=False)
    app.send(b"x")
    sent = peer.expects("P.").at
    scene.advance(2)
    assert peer.expects("P.").at == pytest.approx(sent + 1.5, abs=0.01)


def test_passive_open_measures_the_handshake_too() -> None:
    """RFC 6298 §2.2, §3."""
    scene, peer, app = passive(rtt=0.5, sack=False)
    app.send(b"x")
    sent = peer.expects("P.").at
    scene.advance(2)
    assert peer.expects("P.").at == pytest.approx(sent + 1.5, abs=0.01)


def test_a_flood_of_syns_is_answered_at_a_bounded_rate() -> None:
    """RFC 4987: beyond the queue come cookies, and beyond their rate nothing until repeated."""
    scene = Scene(limits=Limits(half_open=4))
    scene.listen(80)
    for port in range(2000, 4000):
        Peer(scene, port=port).sends("S")
    assert scene.counter("tcp_syns_shed") > 0
    assert scene.counter("tcp_cookies_sent") + scene.counter("tcp_syns_shed") == 2000 - 4
    late = Peer(scene, port=5000)
    late.sends("S")
    late.drain()
    late.sends("S")
    late.expects("S.")
