"""Octets in the SYN, by scripted peers: TCP Fast Open (RFC 7413)."""

from __future__ import annotations

import pytest

from appliance.net.tcb import TcpSettings
from appliance.net.wire import icmp
from appliance.net.wire.tcp import build_fast_open
from tests.net.tcp.harness import App, Peer, Scene, World, icmp_error, pattern, quote

SERVES = TcpSettings(fast_open=4)
ASKS = TcpSettings(fast_open=1)
FREELY = TcpSettings(fast_open=1, fast_open_cookies=False)


def opens(peer: Peer, cookie: bytes | None, data: bytes = b"") -> None:
    """The peer's SYN, with a cookie (b"": asking for one) and octets."""
    options = peer.syn_options((peer.clock, 0) if peer.ts else None)
    if cookie is not None:
        options += build_fast_open(cookie)
    peer.sends("S", data=data, options=options)


def given(scene: Scene, port: int = 3999) -> bytes:
    """A cookie, from a connection that came to ask for one."""
    peer = Peer(scene, port)
    opens(peer, b"")
    answer = peer.expects("S.", seq=0, ack=1, len=0)
    assert answer.options.fast_open is not None
    peer.sends("R.")
    return answer.options.fast_open[0]


def serving(settings: TcpSettings = SERVES, **options: object) -> tuple[Scene, bytes]:
    scene = Scene()
    scene.listen(80, settings=settings, **options)  # type: ignore[arg-type]
    return scene, given(scene)


# ---------------------------------------------------------------------- the server


def test_octets_of_a_syn_are_delivered_and_answered_before_the_handshake() -> None:
    """RFC 7413 §4.2.2: the SYN,ACK acknowledges them, and data may follow it at once."""
    scene, cookie = serving(react={"data": lambda c: c.send(b"hello")})
    peer = Peer(scene)
    opens(peer, cookie, b"GET /")
    app = scene.app()
    assert (app.data, app.state, app.events) == (b"GET /", "SYN-RECEIVED", ["established", "data"])
    answer = peer.expects("S.", seq=0, ack=6, len=0)
    assert answer.options.fast_open is None
    peer.expects(".", seq=1, ack=6, data=b"hello")
    peer.sends(".")
    assert (app.state, app.events) == ("ESTABLISHED", ["established", "data"])
    assert scene.counter("tcp_fast_open_accepted") == 1
    peer.sends("P.", data=b"more")
    assert app.data == b"GET /more"


def test_without_a_setting_octets_of_a_syn_are_not_taken() -> None:
    """RFC 7413 §4.2.2: TFO is off for who did not ask for it; the SYN,ACK covers the SYN alone."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    opens(peer, b"", b"GET /")
    assert peer.expects("S.", seq=0, ack=1, len=0).options.fast_open is None
    assert not scene.worlds[0].users


def test_a_wrong_cookie_is_answered_by_a_right_one() -> None:
    """RFC 7413 §4.2.2: and the octets are dropped; the client sends them again."""
    scene, cookie = serving()
    peer = Peer(scene)
    opens(peer, b"wrong...", b"GET /")
    answer = peer.expects("S.", seq=0, ack=1, len=0)
    assert answer.options.fast_open == (cookie, False)
    assert scene.counter("tcp_fast_open_cookies_failed") == 1
    peer.nxt = 1
    peer.sends("P.", data=b"GET /")
    assert scene.app().data == b"GET /"


def test_the_server_may_speak_first() -> None:
    """RFC 7413 §4.2.2: a cookie without data opens too."""
    scene, cookie = serving(react={"established": lambda c: c.send(b"220 ready")})
    peer = Peer(scene)
    opens(peer, cookie)
    peer.expects("S.", seq=0, ack=1, len=0)
    peer.expects(".", seq=1, ack=1, data=b"220 ready")


def test_what_follows_the_syn_ack_stays_in_the_window_of_the_syn() -> None:
    """RFC 9293 §3.8.6; RFC 7323 §2.2: that window is not scaled."""
    scene, cookie = serving(react={"data": lambda c: c.send(pattern(5000))})
    peer = Peer(scene, window=2896)
    opens(peer, cookie, b"x")
    peer.expects("S.", ack=2)
    assert sum(len(s.data) for s in peer.drain()) == 2896


def test_the_initial_window_bounds_what_is_sent_before_the_handshake() -> None:
    """RFC 7413 §4.2.2, RFC 6928 §2."""
    scene, cookie = serving(react={"data": lambda c: c.send(pattern(60_000))})
    peer = Peer(scene)
    opens(peer, cookie, b"x")
    peer.expects("S.", ack=2)
    assert len(peer.drain()) == 10


def test_a_lost_syn_ack_is_sent_again_with_all_that_it_said() -> None:
    """RFC 6298 §5: by the timer; the octets of the SYN stay acknowledged."""
    scene, cookie = serving()
    peer = Peer(scene)
    opens(peer, cookie, b"GET /")
    peer.expects("S.", ack=6)
    scene.advance(0.9)
    peer.expects_nothing()
    scene.advance(0.1)
    peer.expects("S.", seq=0, ack=6, len=0)
    scene.advance(2.0)
    peer.expects("S.", seq=0, ack=6, len=0)


def test_a_syn_that_is_repeated_is_answered_by_the_same_syn_ack() -> None:
    """RFC 7413 §4.1.3.1: the client repeats it without data; nothing is delivered twice."""
    scene, cookie = serving()
    peer = Peer(scene)
    opens(peer, cookie, b"GET /")
    peer.expects("S.", ack=6)
    scene.advance(0.5)
    peer.sends("S", seq=0, options=peer.syn_options((peer.clock, 0)))
    peer.expects("S.", seq=0, ack=6, len=0)
    opens_again = peer.syn_options((peer.clock, 0)) + build_fast_open(cookie)
    peer.sends("S", seq=0, data=b"GET /", options=opens_again)
    peer.expects("S.", seq=0, ack=6, len=0)
    assert scene.app().data == b"GET /"


def test_two_copies_of_a_syn_in_one_batch_open_one_connection() -> None:
    """Found by `appliance fuzz`: the second comes before the first has been answered."""
    scene, cookie = serving()
    peer = Peer(scene)
    options = peer.syn_options((peer.clock, 0)) + build_fast_open(cookie)
    frame = peer.frame("S", data=b"x", options=options)
    scene.receive(frame, frame)
    peer.expects("S.", seq=0, ack=2, len=0)
    peer.expects_nothing()
    assert scene.app().data == b"x"


def test_data_sent_before_the_handshake_is_repaired_after_it() -> None:
    """RFC 7413 §4.2.2: until then only the SYN,ACK is repeated."""
    scene, cookie = serving(react={"data": lambda c: c.send(b"hello")})
    peer = Peer(scene)
    opens(peer, cookie, b"x")
    peer.expects("S.", ack=2)
    peer.expects(".", seq=1, data=b"hello")
    scene.advance(1.0)
    peer.expects("S.", seq=0, ack=2, len=0)
    peer.expects_nothing()
    peer.sends(".", ack=1)
    peer.expects(".", seq=1, data=b"hello")


def test_an_answer_too_large_for_the_path_does_not_wait_for_the_timer() -> None:
    """RFC 1191 §6.5, RFC 7413 §4.2.2: smaller at once when the handshake is complete.

    Until then nothing is repeated, least of all the SYN,ACK, which was not too large.
    """
    scene, cookie = serving(react={"data": lambda c: c.send(pattern(3000))})
    peer = Peer(scene)
    opens(peer, cookie, b"x")
    mss = peer.expects("S.", ack=2).options.mss
    assert [len(s.data) for s in peer.drain()] == [1448, 1448, 104]
    scene.advance(0.1)
    scene.receive(icmp_error(3, 4, quote(peer, 1, 1460), mtu=1000))
    peer.expects_nothing()
    peer.got = 1
    peer.sends(".", ack=1)
    again = peer.drain()
    assert b"".join(s.data for s in again) == pattern(3000)
    assert max(len(s.data) for s in again) == 1000 - 52
    assert scene.counter("tcp_path_mtu_reduced") == 1
    assert scene.counter("tcp_syn_retransmitted") == 0
    assert mss == 1460


def test_a_syn_ack_says_the_same_whatever_a_router_told() -> None:
    """RFC 9293 §3.7.1: the MSS is of what we take, and a repetition no other SYN,ACK."""
    scene, cookie = serving(react={"data": lambda c: c.send(pattern(3000))})
    peer = Peer(scene)
    opens(peer, cookie, b"x")
    first = peer.expects("S.", ack=2)
    peer.drain()
    scene.receive(icmp_error(3, 4, quote(peer, 1, 1460), mtu=1000))
    scene.advance(1.0)
    assert peer.expects("S.", seq=0, ack=2, len=0).options.mss == first.options.mss
    peer.expects_nothing()
    peer.got = 1
    peer.sends(".", ack=1)
    assert max(len(s.data) for s in peer.drain()) == 1000 - 52


@pytest.mark.parametrize("early", [b"", b"x"])
def test_a_router_that_speaks_of_a_syn_ack_alone_is_not_believed(early: bytes) -> None:
    """RFC 1191 §6.5: SYNs are small; nothing was sent that could be too large."""
    scene, cookie = serving()
    peer = Peer(scene)
    opens(peer, cookie, early)
    peer.expects("S.")
    scene.receive(icmp_error(3, 4, quote(peer, 0, 1460), mtu=1000))
    assert scene.counter("tcp_path_mtu_reduced") == 0
    peer.expects_nothing()


def test_a_close_waits_for_the_handshake() -> None:
    """RFC 9293 §3.10.4, SYN-RECEIVED: "queue for processing after entering ESTABLISHED"."""
    scene, cookie = serving(react={"data": lambda c: (c.send(b"bye"), c.close())})
    peer = Peer(scene)
    opens(peer, cookie, b"x")
    peer.expects("S.", ack=2)
    peer.expects(".", seq=1, data=b"bye")
    peer.expects_nothing()
    peer.sends(".")
    peer.expects("F.", seq=4, len=0)
    assert scene.app().state == "FIN-WAIT-1"


def test_a_fin_in_the_syn_is_left_to_an_ordinary_handshake() -> None:
    scene, cookie = serving()
    peer = Peer(scene)
    options = peer.syn_options((peer.clock, 0)) + build_fast_open(cookie)
    peer.sends("SF", data=b"x", options=options)
    peer.expects("S.", seq=0, ack=1, len=0)


def test_beyond_the_limit_opens_are_ordinary() -> None:
    """RFC 7413 §5.1: PendingFastOpenRequests; a completed handshake makes room."""
    scene, cookie = serving(TcpSettings(fast_open=1))
    one, two, three = Peer(scene, 4001), Peer(scene, 4002), Peer(scene, 4003)
    opens(one, cookie, b"1")
    one.expects("S.", ack=2)
    opens(two, cookie, b"2")
    assert two.expects("S.", ack=1).options.fast_open is None
    assert scene.counter("tcp_fast_open_overflows") == 1
    one.sends(".")
    opens(three, cookie, b"3")
    three.expects("S.", ack=2)


def test_a_reset_makes_no_room_at_once() -> None:
    """RFC 7413 §5.1: else an attacker who resets, or lets others reset, has no limit."""
    scene, cookie = serving(TcpSettings(fast_open=1))
    one, two, three = Peer(scene, 4001), Peer(scene, 4002), Peer(scene, 4003)
    opens(one, cookie, b"1")
    one.expects("S.", ack=2)
    one.sends("R.")
    assert isinstance(scene.app().error, ConnectionResetError)
    scene.advance(59.0)
    opens(two, cookie, b"2")
    two.expects("S.", ack=1)
    scene.advance(2.0)
    opens(three, cookie, b"3")
    three.expects("S.", ack=2)


def test_an_icmp_error_ends_an_open_that_is_pending() -> None:
    """RFC 5461 §4.1: before it is synchronized; octets that were held may be looked at in time."""
    scene, cookie = serving(accepting=lambda c: c.pause())
    peer = Peer(scene)
    opens(peer, cookie, b"x")
    peer.expects("S.", ack=2)
    scene.receive(icmp_error(icmp.UNREACHABLE, icmp.UNREACHABLE_HOST, quote(peer, 0)))
    assert isinstance(scene.app().error, OSError)
    assert scene.host.tcp.flows == {}


def test_an_answer_that_never_comes_ends_it() -> None:
    """RFC 9293 §3.8.3: the SYN,ACK is repeated, and then given up."""
    scene, cookie = serving()
    peer = Peer(scene)
    opens(peer, cookie, b"x")
    scene.advance(130.0)
    assert isinstance(scene.app().error, TimeoutError)
    assert len(peer.drain()) == 7
    # It has counted as pending for as long.
    opens(Peer(scene, 4001), cookie, b"y")
    assert scene.counter("tcp_fast_open_accepted") == 2


def test_ecn_is_agreed_on_in_a_fast_open_too() -> None:
    """RFC 3168 §6.1.1."""
    scene, cookie = serving()
    peer = Peer(scene)
    options = peer.syn_options((peer.clock, 0)) + build_fast_open(cookie)
    peer.sends("SEW", data=b"x", options=options)
    peer.expects("SE.", ack=2)


def test_a_full_syn_queue_knows_no_fast_opens() -> None:
    """RFC 4987 §3.6 comes first: who is answered by a SYN cookie leaves nothing behind."""
    scene, cookie = serving(backlog=1)
    opens(Peer(scene, 4001), None)
    peer = Peer(scene, 4002)
    opens(peer, cookie, b"x")
    peer.expects("S.", ack=1)


# ---------------------------------------------------------------------- the client


def connects(
    scene: Scene, first: bytes = b"", settings: TcpSettings = ASKS, port: int = 4000
) -> tuple[Peer, App]:
    peer = Peer(scene, 80, port)
    return peer, scene.connect(80, local_port=port, settings=settings, first=first)


def learned(cookie: bytes = b"8octets!", mss: int = 1460) -> Scene:
    """The host has asked the peer for a cookie and got it."""
    scene = Scene()
    peer, app = connects(scene, port=3999)
    peer.mss = mss
    answers(peer, cookie)
    peer.expects(".", ack=1)
    app.abort()
    peer.drain()
    return scene


def answers(peer: Peer, cookie: bytes | None = None, ack: int = 1) -> None:
    """The peer's SYN,ACK of what lies below `ack`."""
    syn = peer.drain()[-1]
    assert "S" in syn.flags
    options = peer.syn_options((peer.clock, peer.echo))
    peer.sends("S.", ack=ack, options=options + (build_fast_open(cookie) if cookie else b""))


def test_the_first_syn_asks_for_a_cookie_and_carries_nothing() -> None:
    """RFC 7413 §4.2.1; what was written follows the handshake."""
    scene = Scene()
    peer, _ = connects(scene, b"GET /")
    assert peer.expects("S", seq=0, len=0).options.fast_open == (b"", False)
    peer.sends("S.", ack=1)
    peer.expects(".", seq=1, ack=1, data=b"GET /")


def test_the_next_syn_shows_it_and_carries_what_was_written() -> None:
    """RFC 7413 §4.2.2, and §4.1.3: as much as the MSS of before allows."""
    scene = learned(mss=1000)
    data = pattern(3000)
    peer, app = connects(scene, data)
    syn = peer.expects("S", seq=0, data=data[:960])
    assert syn.options.fast_open == (b"8octets!", False)
    answers_to = peer.syn_options((peer.clock, peer.echo))
    peer.sends("S.", ack=961, options=answers_to)
    assert b"".join(s.data for s in peer.drain()) == data[960:]
    assert app.events == ["established"]
    assert scene.counter("tcp_fast_open_connected") == 1


def test_what_the_server_has_not_taken_leaves_again_at_once() -> None:
    """RFC 7413 §4.2.2: and without a reduction, for nothing was congested."""
    scene = learned()
    data = pattern(1000)
    peer, app = connects(scene, data)
    answers(peer, ack=1)
    peer.expects(".", seq=1, ack=1, data=data)
    assert scene.counter("tcp_fast_open_refused") == 1
    assert app.connection.repair.cc.cwnd >= 10 * app.connection.mss


def test_what_the_server_has_taken_in_part_is_completed() -> None:
    """RFC 7413 §4.2.2: "the client SHOULD retransmit" what is beyond the acknowledgment."""
    scene = learned()
    data = pattern(1000)
    peer, _ = connects(scene, data)
    answers(peer, ack=401)
    peer.expects(".", seq=401, ack=1, data=data[400:])


def test_octets_beyond_the_window_wait_for_it() -> None:
    """RFC 9293 §3.8.6; found by `appliance fuzz`: the SYN could not know the peer's window."""
    scene = learned()
    peer, _ = connects(scene, pattern(1000))
    peer.window = 300
    answers(peer, ack=1)
    assert sum(len(s.data) for s in peer.drain()) <= 300


def test_a_syn_is_repeated_without_cookie_and_data() -> None:
    """RFC 7413 §4.1.3.1: something on the way may have dropped it for either."""
    scene = learned()
    peer, _ = connects(scene, b"GET /")
    peer.expects("S", data=b"GET /")
    scene.advance(1.0)
    assert peer.expects("S", seq=0, len=0).options.fast_open is None
    peer.sends("S.", ack=1)
    peer.expects(".", seq=1, ack=1, data=b"GET /")


def test_a_syn_ack_of_more_than_was_sent_is_reset() -> None:
    """RFC 9293 §3.10.7.3, first."""
    scene = learned()
    peer, _ = connects(scene, b"GET /")
    peer.expects("S", data=b"GET /")
    peer.sends("S.", ack=7)
    peer.expects("R", seq=7)


@pytest.mark.parametrize("mtu", [840, 1060])  # its octets do not fit; nor do they with the headers
def test_a_syn_too_large_for_the_path_leaves_again_without_its_data(mtu: int) -> None:
    """RFC 7413 §4.1.3.1 (ICMP errors), RFC 1191 §6.5."""
    scene = learned()
    peer, _ = connects(scene, pattern(1000))
    peer.expects("S", len=1000)
    scene.receive(
        icmp_error(icmp.UNREACHABLE, icmp.UNREACHABLE_FRAGMENTATION, quote(peer, 0, 1032), mtu=mtu)
    )
    syn = peer.expects("S", seq=0, len=0)
    assert syn.options.mss == mtu - 40
    peer.sends("S.", ack=1)
    assert sum(len(s.data) for s in peer.drain()) == 1000


def test_without_cookies_the_first_syn_carries_data() -> None:
    """RFC 7413 §7.3."""
    scene = Scene()
    peer, _ = connects(scene, b"GET /", FREELY)
    syn = peer.expects("S", seq=0, data=b"GET /")
    assert syn.options.fast_open is None


@pytest.mark.parametrize("cookies", [True, False])
def test_nothing_written_is_nothing_sent_along(cookies: bool) -> None:
    scene = learned()
    peer, _ = connects(scene, b"", ASKS if cookies else FREELY)
    syn = peer.expects("S", seq=0, len=0)
    assert (syn.options.fast_open is not None) == cookies


def test_nothing_overtakes_a_syn_ack_that_found_no_room() -> None:
    """RFC 9293 §3.10.7.2: the SYN has the first number, and the room may come right after it."""
    scene, cookie = serving(react={"data": lambda c: c.send(b"hello")})
    peer = Peer(scene)

    def hesitate(world: World) -> None:
        sends = iter((lambda head, payload=b"": False,))

        def send(head: bytes, payload: bytes | memoryview = b"") -> bool:
            return next(sends, world.vif.send)(head, payload)

        world.host.links[0].divert(send)

    for world in scene.worlds:
        hesitate(world)
    opens(peer, cookie, b"GET /")
    scene.step(lambda world: world.host.flush(scene.now))
    peer.expects("S.", seq=0, ack=6, len=0)
    peer.expects(".", seq=1, ack=6, data=b"hello")
    peer.expects_nothing()


@pytest.mark.parametrize("how", ["close", "abort"])
def test_who_is_turned_away_at_once_hears_it(how: str) -> None:
    """RFC 9293 §3.10.7.3, second: in SYN-SENT only a reset with an ACK counts.

    RFC 7413 §5.1: resets of our own make room again.
    """
    scene, cookie = serving(react={"established": lambda c: getattr(c, how)()})
    peer = Peer(scene)
    opens(peer, cookie, b"GET /")
    peer.expects("R.", ack=1)
    peer.expects_nothing()
    app = scene.app()
    assert (app.state, app.data) == ("CLOSED", b"")
    (listener,) = scene.host.tcp._listeners.values()
    assert listener.opens.pending == 0
