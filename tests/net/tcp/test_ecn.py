"""Congestion marks instead of losses (RFC 3168)."""

from __future__ import annotations

import pytest

from appliance.net.tcb import TcpSettings
from tests.net.tcp.harness import FULL, App, Peer, Scene, passive, pattern

CE = 3
ECT = 2


def marked() -> tuple[Scene, Peer, App, list[int]]:
    """A connection that has agreed on ECN, and the ECN field of every packet that leaves."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    seen = watch(peer)
    peer.sends("SEW")
    peer.expects("S.E", seq=0, ack=1)
    scene.advance(0.1)
    peer.sends(".")
    return scene, peer, scene.app(), seen


def watch(peer: Peer) -> list[int]:
    seen: list[int] = []
    hears = peer.hears

    def look(frame: bytes, *rest: object) -> None:
        seen.append(frame[25] & 3)
        hears(frame, *rest)  # type: ignore[arg-type]

    peer.hears = look  # type: ignore[method-assign]
    return seen


def test_agreed_on_when_offered() -> None:
    """RFC 3168 §6.1.1: ECN-setup SYN (ECE and CWR), ECN-setup SYN-ACK (ECE alone)."""
    _, _, app, seen = marked()
    assert app.connection.ecn_on
    assert seen == [0], "RFC 3168 §6.1.1: no ECT on a SYN-ACK"


@pytest.mark.parametrize("flags", ["S", "SE", "SW"])
def test_not_agreed_on_otherwise(flags: str) -> None:
    """RFC 3168 §6.1.1: anything else is a non-ECN-setup SYN."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends(flags)
    peer.expects("S.")
    peer.sends(".")
    assert not scene.app().connection.ecn_on


def test_may_be_refused() -> None:
    """RFC 3168 §6.1.1: an option."""
    scene = Scene()
    scene.listen(80, settings=TcpSettings(ecn=False))
    peer = Peer(scene)
    peer.sends("SEW")
    peer.expects("S.")


def test_offered_on_request() -> None:
    """RFC 3168 §6.1.1: our own ECN-setup SYN."""
    for answer, agreed in (("S.E", True), ("S.", False), ("S.EW", False)):
        scene = Scene()
        peer = Peer(scene, 80, 4000)
        app = scene.connect(80, settings=TcpSettings(ecn_request=True))
        peer.expects("SEW")
        peer.sends(answer)
        peer.expects(".")
        assert app.connection.ecn_on == agreed


def test_an_offer_that_was_not_repeated_is_none() -> None:
    """RFC 3168 §6.1.1: ECT needs that "no non-ECN-setup SYN" was sent; marks are answered still."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80, settings=TcpSettings(ecn_request=True))
    peer.expects("SEW")
    scene.advance(1.5)
    peer.expects("S")
    seen = watch(peer)
    peer.sends("S.E")
    app.send(b"x")
    assert ECT not in seen
    peer.sends("P.", ack=2, data=b"y", dscp_ecn=CE)
    assert "E" in peer.drain()[-1].flags


def test_a_peer_that_repeats_its_syn_without_the_offer() -> None:
    """RFC 3168 §6.1.1: after a non-ECN-setup SYN data SHOULD NOT be ECT; Linux repeats so."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends("SEW")
    peer.expects("S.E")
    peer.sends("S", seq=0)
    peer.expects("S.")
    peer.sends(".")
    assert not scene.app().connection.ecn_on


def test_only_new_data_says_that_marks_are_understood() -> None:
    """RFC 3168 §6.1.4, §6.1.5: not pure ACKs, not what is sent again."""
    scene, peer, app, seen = marked()
    peer.sends("P.", data=b"x")
    app.send(b"y")
    scene.advance(2)
    copies = [s for s in peer.drain() if s.data]
    assert len(copies) > 1
    ends = seen[1:]
    assert ends[0] == 0
    assert ends[1] == ECT
    assert set(ends[2:]) == {0}


def test_a_mark_is_echoed_until_it_has_been_heard() -> None:
    """RFC 3168 §6.1.3: ECE in every ACK until CWR comes."""
    _, peer, app, _ = marked()
    peer.sends("P.", data=b"a", dscp_ecn=CE)
    assert "E" in peer.drain()[-1].flags
    peer.sends("P.", data=b"b", dscp_ecn=ECT)
    assert "E" in peer.drain()[-1].flags
    peer.sends("PW.", data=b"c", dscp_ecn=ECT)
    assert "E" not in peer.drain()[-1].flags
    assert app.data == b"abc"


def test_a_mark_on_the_segment_that_says_reduced_is_echoed_too() -> None:
    """RFC 3168 §6.1.3: "if another CE packet is received", be it the one with CWR."""
    _, peer, _, _ = marked()
    peer.sends("P.", data=b"a", dscp_ecn=CE)
    assert "E" in peer.drain()[-1].flags
    peer.sends("PW.", data=b"b", dscp_ecn=CE)
    assert "E" in peer.drain()[-1].flags
    peer.sends("PW.", data=b"c", dscp_ecn=ECT)
    assert "E" not in peer.drain()[-1].flags


@pytest.mark.parametrize(("seq", "ack"), [(-500_000, 1), (1, 500_000)])
def test_a_mark_on_a_segment_that_is_dropped_means_nothing(seq: int, ack: int) -> None:
    """RFC 5961 §3 spirit: who knows addresses and ports alone does not slow the peer down."""
    scene, peer, app, _ = marked()
    peer.sends("P.", seq=seq, ack=ack, data=b"a", dscp_ecn=CE)
    scene.advance(1)
    peer.sends("P.", seq=1, ack=1, data=b"b", dscp_ecn=ECT)
    assert "E" not in "".join(s.flags for s in peer.drain())
    assert app.data == b"b"


def test_a_mark_without_an_agreement_means_nothing() -> None:
    """RFC 3168 §6.1.1: no ECE from a host that has not agreed."""
    _, peer, _ = passive()
    peer.sends("P.", data=b"a", dscp_ecn=CE)
    assert peer.drain()[-1].flags == "."


def test_an_echo_reduces_the_window_once_a_round() -> None:
    """RFC 3168 §6.1.2: as for a loss, once per window, and CWR on the next new segment."""
    scene, peer, app, _ = marked()
    app.send(pattern(100 * FULL))
    assert len(peer.drain()) == 10
    scene.advance(0.1)
    before = app.connection.repair.cc.cwnd
    peer.sends(".E", ack=1 + 5 * FULL)
    after = app.connection.repair.cc.cwnd
    assert after == pytest.approx(0.7 * before, abs=FULL)
    peer.sends(".E", ack=1 + 6 * FULL)
    peer.sends(".E", ack=1 + 7 * FULL)
    assert app.connection.repair.cc.cwnd >= after
    assert scene.counter("tcp_ecn_reductions") == 1
    for n in (8, 9, 10):
        peer.sends(".", ack=1 + n * FULL)
    flags = [s.flags for s in peer.drain()]
    assert "W" in flags[0]
    assert not any("W" in f for f in flags[1:])


def test_cwr_tells_of_a_loss_as_well() -> None:
    """RFC 3168 §6.1.2: "for any reason", on the first new data packet after the reduction."""
    scene, peer, app, _ = marked()
    app.send(pattern(100 * FULL))
    assert len(peer.drain()) == 10
    scene.advance(0.1)
    peer.sends(".", ack=1, sack=[(1 + FULL, 1 + 10 * FULL)])
    segments = peer.drain()
    assert [s.flags for s in segments if s.seq == 1] == ["."], "not on what is sent again"
    new = [s.flags for s in segments if s.seq > 1]
    assert "W" in new[0]
    assert not any("W" in f for f in new[1:])


def test_cwr_waits_for_room_on_the_link() -> None:
    """RFC 3168 §6.1.2: a segment that has not left tells nothing."""
    scene, peer, app, _ = marked()
    app.send(pattern(100 * FULL))
    assert len(peer.drain()) == 10
    scene.advance(0.1)
    scene.room(0)
    peer.sends(".E", ack=1 + 10 * FULL)
    peer.expects_nothing()
    scene.room(100)
    assert ["W" in s.flags for s in peer.drain()][:2] == [True, False]


def test_an_echo_resends_nothing() -> None:
    """RFC 3168 §6.1.2: the packet arrived; only the window learns from the mark."""
    _, peer, app, _ = marked()
    app.send(pattern(10 * FULL))
    peer.drain()
    peer.sends(".E", ack=1 + 5 * FULL)
    peer.expects_nothing()
