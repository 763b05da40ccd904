"""TIME-WAIT: what is remembered, for how long, and who may interrupt it."""

from __future__ import annotations

import pytest

from appliance.net.stack import Limits
from tests.net.tcp.harness import App, Peer, Scene, passive, pattern


def closed_first(**options: object) -> tuple[Scene, Peer, App]:
    """We closed, the peer followed: TIME-WAIT with rcv_nxt = snd_nxt = 2."""
    scene, peer, app = passive(**options)  # type: ignore[arg-type]
    app.shutdown()
    peer.expects("F.", seq=1)
    peer.sends("F.", ack=2)
    peer.expects(".", seq=2, ack=2)
    assert app.state == "TIME-WAIT"
    return scene, peer, app


def gone(peer: Peer) -> bool:
    """Tell whether the host has forgotten: then an old ACK meets CLOSED."""
    peer.sends(".", seq=2, ack=2)
    heard = peer.drain()
    return bool(heard) and heard[0].flags == "R"


def test_it_lasts_sixty_seconds() -> None:
    """RFC 9293 §3.6.1 MUST-13 asks for 2 MSL; Linux's minute stands for it."""
    scene, peer, _ = closed_first()
    scene.advance(59.9)
    assert not gone(peer)
    scene.advance(0.2)
    assert gone(peer)


def test_fin_again_is_acknowledged_and_starts_it_anew() -> None:
    """RFC 9293 §3.10.7.4, eighth, TIME-WAIT."""
    scene, peer, _ = closed_first()
    scene.advance(40)
    peer.sends("F.", seq=1, ack=2)
    peer.expects(".", seq=2, ack=2, len=0)
    scene.advance(40)
    assert not gone(peer)
    scene.advance(21)
    assert gone(peer)


def test_a_bare_ack_gets_no_answer() -> None:
    """RFC 9293 §3.10.7.4: two ends in TIME-WAIT must not acknowledge each other for ever."""
    _, peer, _ = closed_first()
    peer.sends(".", seq=2, ack=2)
    peer.expects_nothing()


@pytest.mark.parametrize(("seq", "data"), [(1, b""), (2, b"x"), (-50, b"old"), (1 << 20, b"x")])
def test_anything_else_is_told_where_we_are(seq: int, data: bytes) -> None:
    """RFC 9293 §3.10.7.4, first: <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>, with the timestamp."""
    scene, peer, app = closed_first()
    peer.sends("P.", seq=seq, ack=2, data=data)
    answer = peer.expects(".", seq=2, ack=2, len=0)
    assert answer.options.timestamp is not None
    assert app.data == b""
    scene.advance(60.1)
    assert gone(peer)


def test_a_reset_at_the_exact_number_ends_it() -> None:
    """RFC 9293 §3.10.7.4, second; RFC 5961 §3.2."""
    _, peer, _ = closed_first()
    peer.sends("R", seq=2)
    peer.expects_nothing()
    assert gone(peer)


@pytest.mark.parametrize("seq", [0, 1, 3, 1000])
def test_any_other_reset_does_not(seq: int) -> None:
    """RFC 5961 §3.2, RFC 1337 §3: assassination by old duplicates."""
    _, peer, _ = closed_first()
    peer.sends("R", seq=seq)
    peer.drain()
    assert not gone(peer)


def test_a_syn_with_a_later_timestamp_opens_anew() -> None:
    """RFC 6191 §2, whatever its number; RFC 9293 §3.6.1 MAY-2."""
    scene, peer, _ = closed_first()
    scene.advance(1)
    again = Peer(scene, isn=peer.isn - 50_000, clock=peer.clock)
    again.sends("S")
    again.expects("S.", ack=1)
    again.sends(".")
    assert scene.app().state == "ESTABLISHED"
    assert scene.counter("tcp_time_wait_reused") == 1


def test_a_syn_with_a_higher_number_opens_anew() -> None:
    """RFC 9293 §3.6.1 MAY-2, RFC 1122 §4.2.2.13: without timestamps the number decides."""
    scene, peer, _ = closed_first(ts=False)
    again = Peer(scene, isn=(peer.isn + 10) & 0xFFFFFFFF, ts=False)
    again.opens()
    assert scene.app().state == "ESTABLISHED"


def test_an_old_syn_does_not() -> None:
    """RFC 6191 §2: neither later nor higher, so an ACK is all it gets."""
    scene, peer, app = closed_first(ts=False)
    peer.sends("S", seq=0)
    peer.expects(".", seq=2, ack=2)
    assert scene.app() is not None
    assert not gone(peer)
    scene, peer, app = closed_first()
    peer.sends("S", seq=-50_000, ts=(peer.clock - 1000, 0))
    peer.expects(".", seq=2, ack=2)
    assert app.state == "TIME-WAIT"


def test_an_old_timestamp_outweighs_a_higher_number() -> None:
    """RFC 6191 §2: "otherwise, silently drop", as PAWS would; an ACK tells who is really there."""
    scene, peer, app = closed_first()
    peer.sends("S", seq=50_000, ts=(peer.clock - 1000, 0))
    peer.expects(".", seq=2, ack=2)
    assert app.state == "TIME-WAIT"
    assert scene.counter("tcp_time_wait_reused") == 0


def test_the_new_incarnation_starts_above_the_old() -> None:
    """RFC 9293 §3.6.1 MAY-2 (1), RFC 1122 §4.2.2.13 (1): ISS larger than any number used before."""
    scene, peer, app = passive()
    sent = pattern(1_000_000)  # much faster than the clock of initial numbers ticks
    app.send(sent)
    app.shutdown()
    while app.state == "ESTABLISHED" or app.connection.snd_una < app.connection.snd_nxt:
        peer.drain()
        peer.sends(".")
    peer.sends("F.")
    peer.drain()
    assert app.state == "TIME-WAIT"
    scene.advance(1)
    again = Peer(scene, isn=(peer.isn + 10) & 0xFFFFFFFF, clock=peer.clock)
    again.sends("S")
    last = (peer.iss + 1 + len(sent) + 1) & 0xFFFFFFFF
    assert 0 < (again.iss - last) & 0xFFFFFFFF < 1 << 31


def test_they_are_bounded_and_the_oldest_goes_first() -> None:
    """A bound, counted."""
    scene = Scene(limits=Limits(time_wait=2))
    peers = []
    for n in range(3):
        if n == 0:
            scene.listen(80)
        peer = Peer(scene, 4000 + n)
        peer.opens()
        scene.app().shutdown()
        peer.expects("F.")
        peer.sends("F.", ack=2)
        peer.expects(".")
        peers.append(peer)
        scene.advance(1)
    assert scene.counter("tcp_time_wait_evicted") == 1
    assert [gone(peer) for peer in peers] == [True, False, False]


def test_what_is_held_is_still_read_in_time_wait() -> None:
    """RFC 9293 §3.10.3: RECEIVE in TIME-WAIT... what came before the FIN belongs to the user."""
    _, peer, app = passive()
    app.pause()
    app.shutdown()
    peer.expects("F.")
    peer.sends("FP.", data=b"late reader", ack=2)
    assert app.state == "TIME-WAIT"
    assert app.events == ["established"]
    app.resume()
    assert app.data == b"late reader"
    assert app.events == ["established", "data", "eof", "closed"]
    assert app.error is None


def test_close_with_octets_unread_in_time_wait_is_silent() -> None:
    """RFC 9293 §3.10.4, §3.10.5: TIME-WAIT never answers the application with a RST."""
    _, peer, app = passive()
    app.pause()
    app.shutdown()
    peer.expects("F.")
    peer.sends("FP.", data=b"unread", ack=2)
    peer.drain()
    app.close()
    peer.expects_nothing()
    assert app.events[-1] == "closed"


def test_a_malformed_fin_does_not_prolong_it() -> None:
    """RFC 9293 §3.10.7.4, first: what is outside the window is not a FIN sent again."""
    scene, peer, _ = closed_first()
    scene.advance(40)
    peer.sends("F.", seq=1 << 24, ack=2)
    peer.drain()
    scene.advance(21)
    assert gone(peer)
