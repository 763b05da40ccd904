"""Keep-alive: asking a peer that has long been silent whether it is still there."""

from __future__ import annotations

from math import inf

import pytest

from appliance.net.tcb import TcpSettings
from tests.net.tcp.harness import App, Peer, Scene, passive

ON = TcpSettings(keepalive=100.0, keepalive_interval=10.0, keepalive_count=3)


def idle() -> tuple[Scene, Peer, App]:
    return passive(settings=ON)


def test_off_unless_asked_for() -> None:
    """RFC 9293 §3.8.4 MUST-24, MUST-25."""
    scene, peer, app = passive()
    scene.advance(1_000_000)
    peer.expects_nothing()
    assert app.state == "ESTABLISHED"
    assert scene.tcp_deadline() == inf


def test_probe_draws_an_answer() -> None:
    """RFC 9293 §3.8.4: SEG.SEQ = SND.NXT-1, no data: an old number that must be answered."""
    scene, peer, _ = idle()
    scene.advance(100)
    peer.expects(".", seq=0, ack=1, len=0, at=100)
    peer.sends(".")
    scene.advance(99.9)
    peer.expects_nothing()
    scene.advance(0.2)
    peer.expects(".", seq=0, at=200)
    assert scene.counter("tcp_keepalive_probes") == 2


def test_unanswered_probes_end_it() -> None:
    """RFC 9293 §3.8.4 MUST-27, MUST-28: not one lost probe, but a number of them."""
    scene, peer, app = idle()
    scene.advance(129)
    assert [s.at for s in peer.drain()] == pytest.approx([1100, 1110, 1120])
    assert app.state == "ESTABLISHED"
    scene.advance(2)
    assert isinstance(app.error, TimeoutError)
    assert app.state == "CLOSED"


def test_traffic_postpones_it() -> None:
    """RFC 9293 §3.8.4 MUST-26: only when nothing was received for the interval."""
    scene, peer, _ = idle()
    for _ in range(5):
        scene.advance(60)
        peer.sends("P.", data=b"x")
        peer.drain()
    assert scene.counter("tcp_keepalive_probes") == 0


def test_data_outstanding_is_its_own_probe() -> None:
    """RFC 9293 §3.8.4 MUST-26: no data or acknowledgments outstanding."""
    scene, peer, app = idle()
    app.send(b"x")
    scene.advance(150)
    assert all(s.seq == 1 for s in peer.drain())
    assert scene.counter("tcp_keepalive_probes") == 0


def test_we_answer_the_probes_of_others() -> None:
    """RFC 9293 §3.10.7.4, first; §3.8.4 MUST-29: with or without an octet of garbage."""
    scene, peer, app = passive()
    for data in (b"", b"\0"):
        scene.advance(10)
        peer.sends(".", seq=0, data=data)
        peer.expects(".", seq=1, ack=1, len=0)
    assert app.data == b""


def test_half_closed_peers_are_probed_too() -> None:
    """RFC 9293 §3.8.4: in every synchronized state."""
    scene, peer, app = idle()
    peer.sends("F.")
    peer.drain()
    scene.advance(200)
    assert isinstance(app.error, TimeoutError)
