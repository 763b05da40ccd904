"""Blind attacks: resets, SYNs and acknowledgments that guess (RFC 5961)."""

from __future__ import annotations

import pytest

from appliance.net.tcb import TcpSettings
from tests.net.tcp.harness import active, passive

WINDOW = TcpSettings(receive_buffer=10_000, receive_start=10_000)


def test_reset_at_exactly_rcv_nxt() -> None:
    """RFC 5961 §3.2 (2)."""
    _, peer, app = passive()
    peer.sends("P.", data=b"abc")
    peer.expects(".")
    peer.sends("R", seq=4)
    assert isinstance(app.error, ConnectionResetError)
    assert app.error.errno == 104
    peer.expects_nothing()


@pytest.mark.parametrize("seq", [2, 100, 10_000])
def test_reset_inside_the_window_is_challenged(seq: int) -> None:
    """RFC 5961 §3.2 (3): <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>."""
    scene, peer, app = passive(settings=WINDOW)
    peer.sends("R", seq=seq)
    peer.expects(".", seq=1, ack=1, len=0)
    assert app.state == "ESTABLISHED"
    assert scene.counter("tcp_challenge_acks") == 1
    # A peer that really has lost the connection answers the challenge with the exact number.
    peer.sends("R", seq=1)
    assert app.state == "CLOSED"


@pytest.mark.parametrize("seq", [0, -1, 10_001, 1 << 30, -(1 << 30)])
def test_reset_outside_the_window_is_dropped(seq: int) -> None:
    """RFC 5961 §3.2 (1): silently."""
    scene, peer, app = passive(settings=WINDOW)
    peer.sends("R", seq=seq)
    peer.expects_nothing()
    assert app.state == "ESTABLISHED"
    assert scene.counter("tcp_resets_ignored") == 1


def test_reset_with_a_closed_window() -> None:
    """RFC 9293 §3.10.7.4, MUST-66: even with a window of zero RST is processed."""
    _, peer, app = passive(settings=TcpSettings(receive_buffer=100, receive_start=100))
    app.pause()
    peer.sends(".", data=bytes(100))
    peer.expects(".", window=0)
    peer.sends("R", seq=102)
    assert app.state == "ESTABLISHED"
    peer.sends("R", seq=101)
    assert isinstance(app.error, ConnectionResetError)


def test_reset_with_data_and_whatever_ack() -> None:
    """RFC 9293 §3.5.3 SHLD-2: a RST may carry an explanation."""
    _, peer, app = passive()
    peer.sends("R.", seq=1, data=b"go away", ack=77_777)
    assert isinstance(app.error, ConnectionResetError)
    assert app.data == b""


@pytest.mark.parametrize("seq", [-100, 0, 1, 500, 1 << 30])
@pytest.mark.parametrize("flags", ["S", "S."])
def test_syn_in_established_is_challenged(seq: int, flags: str) -> None:
    """RFC 5961 §4.2, RFC 9293 §3.10.7.4, fourth: wherever it lies."""
    scene, peer, app = passive()
    peer.sends(flags, seq=seq, ack=1)
    peer.expects(".", seq=1, ack=1, len=0)
    assert app.state == "ESTABLISHED"
    assert scene.counter("tcp_challenge_acks") == 1


def test_syn_after_a_peer_restarted() -> None:
    """RFC 9293 §3.5.1, figure 10: the challenge draws a RST, and the way is free."""
    scene, peer, app = passive()
    peer.sends("S", seq=70_000)
    peer.expects(".", ack=1)
    peer.sends("R", seq=1)
    assert app.state == "CLOSED"
    peer.sends("S", seq=70_000)
    peer.expects("S.", ack=70_001)
    assert scene.counter("tcp_resets_in") == 1


def test_challenges_are_throttled() -> None:
    """RFC 5961 §7."""
    scene, peer, _ = passive()
    for n in range(100):
        peer.sends("S", seq=n)
    assert len(peer.drain()) == 1
    assert scene.counter("tcp_challenge_throttled") == 99
    scene.advance(1)
    peer.sends("S", seq=5)
    peer.expects(".")


@pytest.mark.parametrize("beyond", [1, 1000, 1 << 20])
def test_ack_of_what_was_never_sent(beyond: int) -> None:
    """RFC 9293 §3.10.7.4, fifth: an ACK, and drop; RFC 5961 §5.2."""
    scene, peer, app = passive()
    peer.sends("P.", data=b"forged", ack=1 + beyond)
    peer.expects(".", seq=1, ack=1, len=0)
    assert app.data == b""
    assert scene.counter("tcp_ack_invalid") == 1


def test_ack_too_old() -> None:
    """RFC 5961 §5.2: below SND.UNA - MAX.SND.WND, so an ACK, and drop."""
    scene, peer, app = passive(window=20_000)
    app.send(bytes(1000))
    peer.expects("P.")
    peer.sends(".")
    peer.sends("P.", data=b"forged", ack=1001 - 70_000)
    peer.expects(".", ack=1)
    assert app.data == b""
    assert scene.counter("tcp_ack_invalid") == 1


def test_ack_a_little_old_is_no_matter() -> None:
    """RFC 9293 §3.10.7.4, fifth: "can be ignored", but its octets are good."""
    _, peer, app = passive()
    app.send(bytes(1000))
    peer.expects("P.")
    peer.sends(".")
    peer.sends("P.", data=b"fine", ack=500)
    assert app.data == b"fine"
    assert app.connection.snd_una == app.connection.snd_nxt


def test_forged_segments_do_not_keep_the_connection_alive() -> None:
    """RFC 9293 §3.8.4: what is dropped proves nothing about the peer."""
    scene, peer, app = passive(settings=TcpSettings(keepalive=10, keepalive_interval=5))
    for _ in range(20):
        scene.advance(5)
        peer.sends("P.", data=b"x", seq=1 << 24)
        peer.sends("R", seq=1 << 24)
    assert app.state == "CLOSED"


def test_two_dropped_challenges_do_not_start_a_war() -> None:
    """RFC 5961 §5.2: challenge met by challenge must die out."""
    scene, peer, _ = active()
    peer.sends(".", ack=500)
    peer.expects(".", len=0)
    for _ in range(5):
        peer.sends(".", ack=500)
    peer.expects_nothing()
    assert scene.counter("tcp_challenge_throttled") == 5
