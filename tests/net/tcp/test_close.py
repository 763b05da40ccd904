"""Closing: every way out of ESTABLISHED, and what each end may still do on it."""

from __future__ import annotations

import pytest

from tests.net.tcp.harness import FULL, App, Peer, Scene, active, passive

# ---------------------------------------------------------------------- we close first


def test_active_close() -> None:
    """RFC 9293 §3.6 case 1, figure 12: FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT."""
    scene, peer, app = passive()
    app.close()
    peer.expects("F.", seq=1, ack=1, len=0)
    assert app.state == "FIN-WAIT-1"
    assert app.events == ["established", "closed"]
    assert app.error is None
    peer.sends(".")
    assert app.state == "FIN-WAIT-2"
    peer.sends("F.")
    peer.expects(".", seq=2, ack=2, len=0)
    assert app.state == "TIME-WAIT"
    scene.advance(120)
    peer.expects_nothing()


def test_fin_and_its_acknowledgment_together() -> None:
    """RFC 9293 §3.10.7.4, eighth: FIN-WAIT-1 with our FIN acknowledged goes to TIME-WAIT."""
    _, peer, app = passive()
    app.shutdown()
    peer.expects("F.", seq=1)
    peer.sends("F.", ack=2)
    peer.expects(".", seq=2, ack=2)
    assert app.state == "TIME-WAIT"
    assert app.events == ["established", "eof", "closed"]


def test_fin_follows_what_is_queued() -> None:
    """RFC 9293 §3.10.4: "any pending SENDs ... then FIN"; the FIN rides on the last segment."""
    _, peer, app = passive()
    app.do(lambda c: (c.send(bytes(2 * FULL)), c.close()))
    peer.expects(".", seq=1, len=FULL)
    last = peer.expects("FP.", seq=1 + FULL, len=FULL)
    assert last.flags == "FP."
    assert app.events == ["established", "closed"]


def test_close_is_told_once_all_has_been_sent() -> None:
    """The application's last call comes when queue and FIN have left, not before."""
    _, peer, app = passive(window=1000)
    app.do(lambda c: (c.send(bytes(2000)), c.close()))
    peer.drain()
    assert app.events == ["established"]
    peer.window = 1 << 16
    peer.sends(".", ack=peer.got)
    assert "F" in peer.drain()[-1].flags
    assert app.events == ["established", "closed"]


def test_half_close_still_receives() -> None:
    """RFC 9293 §3.6: "the user who CLOSEs may continue to RECEIVE"; §3.6 case 1."""
    _, peer, app = passive()
    app.shutdown()
    peer.expects("F.")
    peer.sends("P.", data=b"still")
    peer.expects(".", seq=2, ack=6)
    assert app.state == "FIN-WAIT-2"
    peer.sends("FP.", data=b" here")
    assert app.data == b"still here"
    assert app.events == ["established", "data", "eof", "closed"]
    assert app.state == "TIME-WAIT"


def test_nothing_is_sent_after_shutdown() -> None:
    """RFC 9293 §3.10.2: SEND after CLOSE is an error."""
    _, _, app = passive()
    app.shutdown()
    with pytest.raises(ValueError, match="after shutdown"):
        app.send(b"x")


def test_shutdown_twice_is_once() -> None:
    """One stream has one end."""
    scene, peer, app = passive()
    app.shutdown()
    app.shutdown()
    peer.expects("F.", seq=1)
    peer.sends(".")
    app.shutdown()
    scene.advance(30)
    peer.expects_nothing()


def test_fin_lost_is_sent_again() -> None:
    """RFC 9293 §3.8.1: a FIN is retransmitted like any octet."""
    scene, peer, app = passive()
    app.shutdown()
    peer.expects("F.", seq=1)
    scene.advance(1.5)
    peer.expects("F.", seq=1)
    peer.sends(".")
    assert app.state == "FIN-WAIT-2"


def test_fin_with_data_lost_is_sent_again_whole() -> None:
    """RFC 9293 §3.8.1."""
    scene, peer, app = passive()
    app.do(lambda c: (c.send(b"bye"), c.close()))
    peer.expects("FP.", seq=1, data=b"bye")
    scene.advance(0.3)
    peer.expects("FP.", seq=1, data=b"bye")
    peer.sends(".", ack=4)
    scene.advance(2)
    assert peer.drain()[-1].seq == 4, "only the FIN is left"
    peer.sends(".", ack=5)
    assert app.state == "FIN-WAIT-2"


# ---------------------------------------------------------------------- the peer closes first


def test_passive_close() -> None:
    """RFC 9293 §3.6 case 2: CLOSE-WAIT, LAST-ACK, CLOSED."""
    scene, peer, app = passive()
    peer.sends("F.")
    peer.expects(".", seq=1, ack=2, len=0)
    assert app.state == "CLOSE-WAIT"
    assert app.events == ["established", "eof"]
    app.close()
    peer.expects("F.", seq=1, ack=2)
    assert app.state == "LAST-ACK"
    peer.sends(".")
    assert app.state == "CLOSED"
    assert app.error is None
    scene.advance(120)
    peer.expects_nothing()
    peer.sends(".", ack=2)
    peer.expects("R", seq=2)


def test_passive_half_close_still_sends() -> None:
    """RFC 9293 §3.6 case 2: CLOSE-WAIT is for what we have left to say."""
    _, peer, app = passive()
    peer.sends("F.")
    peer.expects(".", ack=2)
    app.send(b"parting words")
    peer.expects("P.", seq=1, ack=2, data=b"parting words")
    peer.sends(".")
    app.shutdown()
    peer.expects("F.", seq=14, ack=2)
    peer.sends(".")
    assert app.state == "CLOSED"
    assert app.events == ["established", "eof", "closed"]


def test_answering_the_fin_within_the_turn() -> None:
    """RFC 9293 §3.8.6.3: FIN and ACK of the peer's FIN share a segment."""
    _, peer, app = passive(react={"eof": lambda c: c.close()})
    peer.sends("F.")
    peer.expects("F.", seq=1, ack=2)
    peer.expects_nothing()
    assert app.state == "LAST-ACK"


def test_fin_again_is_acknowledged_again() -> None:
    """RFC 9293 §3.10.7.4, first: the peer did not hear our ACK."""
    _, peer, app = passive()
    peer.sends("F.")
    peer.expects(".", ack=2)
    peer.sends("F.", seq=1)
    peer.expects(".", seq=1, ack=2)
    assert app.state == "CLOSE-WAIT"
    assert app.events == ["established", "eof"]


def test_last_ack_repeats_its_fin() -> None:
    """RFC 9293 §3.8.1, LAST-ACK."""
    scene, peer, app = passive()
    peer.sends("F.")
    peer.drain()
    app.close()
    peer.expects("F.", seq=1)
    scene.advance(1.5)
    peer.expects("F.", seq=1)
    peer.sends(".")
    assert app.state == "CLOSED"


# ---------------------------------------------------------------------- both at once


def test_simultaneous_close() -> None:
    """RFC 9293 §3.6 case 3, figure 13: CLOSING, then TIME-WAIT."""
    _, peer, app = passive()
    app.shutdown()
    peer.expects("F.", seq=1, ack=1)
    peer.sends("F.", ack=1)
    peer.expects(".", seq=2, ack=2, len=0)
    assert app.state == "CLOSING"
    peer.sends(".", ack=2)
    assert app.state == "TIME-WAIT"
    assert app.events == ["established", "eof", "closed"]


def test_simultaneous_close_ends_in_silence() -> None:
    """RFC 9293 §3.6, figure 13: the ACK of our FIN is itself not acknowledged."""
    _, peer, app = passive()
    app.shutdown()
    peer.sends("F.", ack=1)
    peer.drain()
    peer.sends(".", ack=2)
    assert app.state == "TIME-WAIT"
    peer.expects_nothing()


def test_closing_repeats_its_fin() -> None:
    """RFC 9293 §3.8.1, CLOSING."""
    scene, peer, app = passive()
    app.shutdown()
    peer.sends("F.", ack=1)
    peer.drain()
    scene.advance(1.5)
    assert "F" in peer.drain()[0].flags
    assert app.state == "CLOSING"


# ---------------------------------------------------------------------- what does not belong


def closing_in(state: str) -> tuple[Scene, Peer, App]:
    """A connection of which one end or both have said FIN."""
    scene, peer, app = passive()
    if state in ("CLOSE-WAIT", "LAST-ACK"):
        peer.sends("F.")
    if state != "CLOSE-WAIT":
        app.shutdown()
    if state == "CLOSING":
        peer.sends("F.", ack=1)
    peer.drain()
    if state == "FIN-WAIT-2":
        peer.sends(".")
    assert app.state == state
    return scene, peer, app


CLOSING_STATES = ["CLOSE-WAIT", "LAST-ACK", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSING"]


@pytest.mark.parametrize("state", CLOSING_STATES)
def test_outside_the_window_while_closing(state: str) -> None:
    """RFC 9293 §3.10.7.4, first: <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>, in every state."""
    _, peer, app = closing_in(state)
    said = 1 if state == "CLOSE-WAIT" else 2
    heard = 1 if state in ("FIN-WAIT-1", "FIN-WAIT-2") else 2
    peer.sends(".", seq=1 + (1 << 20), ack=1, data=b"far off")
    peer.expects(".", seq=said, ack=heard, len=0)
    assert (app.state, app.data) == (state, b"")


@pytest.mark.parametrize("state", CLOSING_STATES)
def test_an_ack_of_what_was_never_sent_while_closing(state: str) -> None:
    """RFC 9293 §3.10.7.4, fifth: "send an ACK, drop the segment"; no FIN is acknowledged by it."""
    _, peer, app = closing_in(state)
    peer.sends(".", ack=100)
    peer.expects(".", len=0)
    assert app.state == state


# ---------------------------------------------------------------------- abort and reset


@pytest.mark.parametrize("before", [b"", b"unsent and never to be"])
def test_abort_in_established(before: bytes) -> None:
    """RFC 9293 §3.10.5: <SEQ=SND.NXT><CTL=RST>, queues are flushed, no upcall follows."""
    scene, peer, app = passive(window=0)
    app.do(lambda c: (c.send(before), c.abort()))
    peer.expects("R.", seq=1, len=0)
    peer.expects_nothing()
    assert app.state == "CLOSED"
    assert app.events == ["established"]
    scene.advance(100)
    peer.expects_nothing()


def test_abort_in_each_state_that_says_so() -> None:
    """RFC 9293 §3.10.5: FIN-WAIT-1, FIN-WAIT-2 and CLOSE-WAIT send a RST."""
    for script in ("shut", "shut acked", "eof"):
        _, peer, app = passive()
        if "shut" in script:
            app.shutdown()
            peer.expects("F.")
        if "acked" in script:
            peer.sends(".")
        if "eof" in script:
            peer.sends("F.")
            peer.expects(".")
        app.abort()
        peer.expects("R.", seq=1 if script == "eof" else 2)
        assert app.state == "CLOSED"


@pytest.mark.parametrize("state", ["CLOSING", "LAST-ACK"])
def test_abort_when_all_is_said(state: str) -> None:
    """RFC 9293 §3.10.5: in CLOSING and LAST-ACK the TCB goes without a RST."""
    scene, peer, app = passive()
    if state == "CLOSING":
        app.shutdown()
        peer.sends("F.", ack=1)
    else:
        peer.sends("F.")
        app.shutdown()
    peer.drain()
    assert app.state == state
    app.abort()
    assert app.state == "CLOSED"
    peer.expects_nothing()
    scene.advance(60)
    peer.expects_nothing()


def test_abort_in_time_wait_says_nothing() -> None:
    """RFC 9293 §3.10.5: in TIME-WAIT the TCB goes without a RST."""
    _, peer, app = passive()
    app.shutdown()
    peer.expects("F.")
    peer.sends("F.", ack=2)
    peer.expects(".")
    assert app.state == "TIME-WAIT"
    app.abort()
    peer.expects_nothing()


def test_a_reset_waits_for_room_on_the_link() -> None:
    """RFC 9293 §3.10.5: a peer that waits for us has nothing out by which it would hear of it."""
    scene, peer, app = passive()
    scene.room(0)
    app.send(b"x")
    app.abort()
    peer.expects_nothing()
    scene.room(10)
    peer.expects("R.", seq=1)
    peer.expects_nothing()
    assert app.state == "CLOSED"
    assert scene.counter("tcp_resets_out") == 1


def test_abort_twice_and_after_the_end_is_nothing() -> None:
    """Misuse that cannot be told from lateness."""
    _, peer, app = passive()
    app.abort()
    peer.expects("R.")
    app.abort()
    app.close()
    peer.expects_nothing()
    assert app.events == ["established"]


@pytest.mark.parametrize("script", ["est", "shut", "shut acked", "eof", "data"])
def test_reset_by_the_peer(script: str) -> None:
    """RFC 9293 §3.10.7.4, second: the user hears "connection reset", exactly once."""
    scene, peer, app = passive()
    if "data" in script:
        app.send(bytes(5000))
        peer.drain()
    if "shut" in script:
        app.shutdown()
        peer.expects("F.")
    if "acked" in script:
        peer.sends(".")
    if "eof" in script:
        peer.sends("F.")
        peer.expects(".")
    peer.sends("R")
    assert isinstance(app.error, ConnectionResetError)
    assert app.events.count("closed") == 1
    assert app.state == "CLOSED"
    assert scene.counter("tcp_resets_in") == 1
    scene.advance(100)
    peer.expects_nothing()


@pytest.mark.parametrize("state", ["CLOSING", "LAST-ACK"])
def test_reset_when_all_is_said(state: str) -> None:
    """RFC 9293 §3.10.7.4, second: CLOSING and LAST-ACK just end; nothing was lost."""
    _, peer, app = passive()
    if state == "CLOSING":
        app.shutdown()
        peer.sends("F.", ack=1)
    else:
        peer.sends("F.")
        app.shutdown()
    peer.drain()
    assert app.state == state
    peer.sends("R")
    assert app.state == "CLOSED"
    assert app.error is None


# ---------------------------------------------------------------------- orphans


def test_unread_data_at_close_is_a_reset() -> None:
    """RFC 9293 §3.10.7.1, RFC 2525 §2.17, RFC 1122 §4.2.2.13: the peer must know."""
    _, peer, app = passive()
    app.pause()
    peer.sends("P.", data=b"unread")
    peer.drain()
    app.close()
    peer.expects("R.", seq=1, ack=7)
    assert app.state == "CLOSED"
    assert app.data == b""
    assert app.events == ["established", "closed"]


def test_data_after_close_is_a_reset() -> None:
    """RFC 1122 §4.2.2.13, RFC 9293 §3.6.1 (SHLD-3): nobody is there to read it."""
    scene, peer, app = passive()
    app.close()
    peer.expects("F.", seq=1)
    peer.sends("P.", data=b"too late")
    reset = peer.drain()[-1]
    assert reset.flags.startswith("R")
    assert reset.seq == 2
    assert app.state == "CLOSED"
    assert app.data == b""
    assert app.events == ["established", "closed"]
    assert scene.counter("tcp_data_after_close") == 1


def test_close_before_what_had_come_early_is_a_reset() -> None:
    """RFC 1122 §4.2.2.13: octets behind a hole that closes the application were not read."""
    _, peer, app = passive(react={"data": lambda c: c.close()})
    peer.sends("P.", seq=2, data=b"b")
    peer.expects(".", ack=1)
    peer.sends("P.", seq=1, data=b"a")
    peer.expects("R.", seq=1, ack=3)
    assert (app.data, app.events[-1]) == (b"a", "closed")


def test_old_data_after_close_is_no_reason() -> None:
    """RFC 9293 §3.10.7.4, first: a late duplicate is acknowledged as ever."""
    _, peer, app = passive()
    peer.sends("P.", data=b"abc")
    peer.drain()
    app.close()
    peer.expects("F.")
    peer.sends("P.", seq=1, data=b"abc", ack=1)
    peer.expects(".", ack=4)
    assert app.state == "FIN-WAIT-1"


def test_close_in_the_middle_of_a_batch() -> None:
    """The application closes while reading: what follows in the same batch was not read."""
    scene, peer, app = passive(react={"data": lambda c: c.close()})
    scene.receive(*(peer.frame(".", data=b"%d" % n) for n in range(3)))
    assert app.data == b"0"
    assert "R" in peer.drain()[-1].flags
    assert app.state == "CLOSED"


def test_orphan_does_not_wait_for_ever_in_fin_wait_2() -> None:
    """RFC 9293 §3.6, note on FIN-WAIT-2: sixty seconds, as Linux."""
    scene, peer, app = passive()
    app.close()
    peer.expects("F.")
    peer.sends(".")
    scene.advance(59)
    assert app.state == "FIN-WAIT-2"
    scene.advance(2)
    assert app.state == "CLOSED"
    assert scene.counter("tcp_orphans_timed_out") == 1
    peer.expects_nothing()


def test_half_closed_application_waits_for_ever() -> None:
    """RFC 9293 §3.6: who has not closed may receive for as long as the peer likes."""
    scene, peer, app = passive()
    app.shutdown()
    peer.expects("F.")
    peer.sends(".")
    scene.advance(100_000)
    assert app.state == "FIN-WAIT-2"
    peer.sends("P.", data=b"x", ts=(peer.clock, peer.echo))
    assert app.data == b"x"


def test_closing_after_half_closing_makes_an_orphan_too() -> None:
    """As above: FIN acknowledged first, application gone later."""
    scene, peer, app = passive()
    app.shutdown()
    peer.expects("F.")
    peer.sends(".")
    scene.advance(10)
    app.close()
    assert app.events == ["established", "closed"]
    scene.advance(61)
    assert app.state == "CLOSED"


def test_closing_long_after_half_closing_leaves_the_peer_its_time() -> None:
    """RFC 9293 §3.6: sixty seconds from the close, not from what the peer said last."""
    scene, peer, app = passive()
    app.shutdown()
    peer.expects("F.")
    peer.sends(".")
    scene.advance(100)
    app.close()
    scene.advance(59)
    assert app.state == "FIN-WAIT-2"
    peer.sends("F.", ts=(peer.clock, peer.echo))
    peer.expects(".", ack=2)
    assert app.state == "TIME-WAIT"


def test_orphan_gives_up_on_a_peer_that_never_acknowledges() -> None:
    """RFC 9293 §3.8.3 MUST-20: R2 holds without an application, too."""
    scene, peer, app = passive()
    app.do(lambda c: (c.send(b"x"), c.close()))
    scene.advance(2000)
    assert app.state == "CLOSED"
    assert app.events == ["established", "closed"]
    peer.drain()
    scene.advance(2000)
    peer.expects_nothing()


def test_the_user_hears_an_error_that_comes_before_the_fin_left() -> None:
    """Closed, but not all sent: the reset is what became of it."""
    _, peer, app = passive(window=0)
    app.do(lambda c: (c.send(b"stuck"), c.close()))
    assert app.events == ["established"]
    peer.sends("R")
    assert isinstance(app.error, ConnectionResetError)


def test_closed_says_nothing_more() -> None:
    """RFC 9293 §3.10.7.1: the flow is as unknown as any other."""
    scene, peer, app = active()
    app.abort()
    peer.expects("R.")
    peer.sends("P.", data=b"hello?")
    peer.expects("R", seq=1)
    assert app.data == b""
    assert scene.counter("tcp_no_listener") == 1


def test_the_pair_of_sockets_is_free_again() -> None:
    """RFC 9293 §3.10.1: after CLOSED the same ports open anew."""
    scene, peer, app = active()
    app.abort()
    peer.expects("R.")
    again = Peer(scene, 80, 4000)
    scene.connect(80)
    again.expects("S")
    again.sends("S.")
    again.expects(".")
    assert scene.app().state == "ESTABLISHED"
    assert isinstance(scene, Scene)


def test_who_has_closed_is_not_asked_for_more() -> None:
    """The last call is `tcp_closed`; after `close` there is no other."""
    _, peer, app = passive(window=1000)
    app.do(lambda c: (c.send(bytes(2000)), setattr(c, "notify_below", 500), c.close()))
    peer.window = 1 << 16
    peer.drain()
    peer.sends(".")
    peer.drain()
    peer.sends(".")
    assert app.events == ["established", "closed"]
