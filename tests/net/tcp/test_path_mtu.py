"""Paths that carry less than their first link, whether a router says so or not (RFC 4821)."""

from __future__ import annotations

import pytest

from appliance.net.plpmtud import BASE, LEAST, RAISE_AFTER, WORTH, PathMtuSearch, shrunk
from tests.net.tcp.harness import FULL, App, Peer, Scene, World, icmp_error, passive, quote

RTT = 0.1


def narrow(scene: Scene, peer: Peer, limit: int, rounds: int) -> bytes:
    """A path that drops segments of more than `limit` octets of data; the peer reads the rest."""
    got: dict[int, bytes] = {}
    read = b""
    for _ in range(rounds):
        scene.advance(RTT)
        arrived = [s for s in peer.drain() if len(s.data) <= limit]
        for segment in arrived:
            got[segment.seq] = segment.data
        while 1 + len(read) in got:
            read += got[1 + len(read)]
        if arrived:
            ack = 1 + len(read)
            beyond = sorted((q, q + len(d)) for q, d in got.items() if q > ack)
            peer.sends(".", ack=ack, sack=beyond[:1])
    return read


def test_a_black_hole_is_found_and_left() -> None:
    """RFC 4821 §7.7: full segments vanish, nobody says why; smaller ones carry everything."""
    scene, peer, app = passive(rtt=RTT, window=1 << 18)
    data = bytes(range(250)) * 200
    app.send(data)
    assert narrow(scene, peer, 1200, 60) == data
    assert scene.counter("tcp_black_holes_suspected") == 1
    assert app.connection.mss == shrunk(FULL + 12) - 12


def test_a_narrower_hole_takes_another_step() -> None:
    """RFC 4821 §7.7: down to what every host must take."""
    scene, peer, app = passive(rtt=RTT, window=1 << 18)
    data = bytes(range(250)) * 40
    app.send(data)
    assert narrow(scene, peer, 540, 400) == data
    assert app.connection.mss == LEAST - 12


def test_a_silent_peer_is_no_reason_to_go_below_the_least() -> None:
    """RFC 9293 §3.7.1: 536 octets fit every path."""
    scene, peer, app = passive(rtt=RTT)
    app.send(bytes(3 * FULL))
    scene.advance(200)
    assert peer.drain()
    assert app.connection.mss == LEAST - 12


def raised(scene: Scene, peer: Peer, app: App, data: bytes, limit: int) -> bytes:
    """After ten minutes of quiet, send `data` over a path of `limit`; return what arrived."""
    scene.advance(RAISE_AFTER + 1)
    peer.drain()
    before = peer.got
    app.send(data)
    read = b""
    got: dict[int, bytes] = {}
    for _ in range(80):
        scene.advance(RTT)
        for segment in peer.drain():
            if len(segment.data) <= limit:
                got[segment.seq] = segment.data
        while before + len(read) in got:
            read += got[before + len(read)]
        ack = before + len(read)
        beyond = sorted((q, q + len(d)) for q, d in got.items() if q > ack)
        peer.sends(".", ack=ack, sack=beyond[:1])
    return read


def test_a_path_that_widened_is_used_again() -> None:
    """RFC 4821 §7.3, RFC 1191 §6.3: after ten minutes one larger segment tries it."""
    scene, peer, app = passive(rtt=RTT, window=1 << 18)
    narrow_data = bytes(20_000)
    app.send(narrow_data)
    assert narrow(scene, peer, 1200, 60) == narrow_data
    data = bytes(range(250)) * 80
    peer.got = 1 + len(narrow_data)
    assert raised(scene, peer, app, data, 1500) == data
    assert app.connection.mss == FULL
    assert scene.counter("tcp_path_mtu_raised") == 1


def test_a_path_that_stayed_narrow_costs_one_segment() -> None:
    """RFC 4821 §3, §7.6.2: the probe is repaired in smaller pieces, and nothing else changes."""
    scene, peer, app = passive(rtt=RTT, window=1 << 18)
    narrow_data = bytes(20_000)
    app.send(narrow_data)
    assert narrow(scene, peer, 1200, 60) == narrow_data
    small = app.connection.mss
    threshold = app.connection.repair.cc.ssthresh
    data = bytes(range(250)) * 80
    peer.got = 1 + len(narrow_data)
    assert raised(scene, peer, app, data, 1200) == data
    assert app.connection.mss == small
    assert app.connection.repair.cc.ssthresh >= threshold, "no sign of congestion"
    assert scene.counter("tcp_fast_recoveries") == 0
    assert scene.counter("tcp_path_mtu_raised") == 0


def test_the_search_halves_what_is_left() -> None:
    """RFC 4821 §7.3: the top first, then the middle, until the gain is not worth a probe."""
    search = PathMtuSearch(730, 1460, 0.0)
    assert search.next_size(RAISE_AFTER - 1) == 0
    now = RAISE_AFTER
    assert search.next_size(now) == 1460
    search.sent(1460, 1, 1449)
    assert search.next_size(now) == 0
    search.lost(now)
    assert search.next_size(now) == 0
    now += RAISE_AFTER
    assert search.next_size(now) == 1095
    search.sent(1095, 1, 1084)
    assert search.arrived(now) == 1095
    assert search.next_size(now) == 1277


@pytest.mark.parametrize("told", [0, 1100])
def test_the_search_begins_anew(told: int) -> None:
    """RFC 8201 §4, RFC 8899 §5.1.1: what was found holds for ten minutes, since paths change."""
    search = PathMtuSearch(1000, 1460, 0.0)
    now, tried = RAISE_AFTER, []
    while size := search.next_size(now):
        tried.append(size)
        search.sent(size, 1, 2)
        if size <= 1100:
            search.arrived(now)
        else:
            search.lost(now, told)
            now += 0.0 if told else RAISE_AFTER
    assert 1100 - search.low < WORTH
    assert tried[0] == 1460
    assert search.next_size(now + RAISE_AFTER - 1) == 0
    assert search.next_size(now + RAISE_AFTER) == 1460
    search.sent(1460, 1, 2)
    assert search.arrived(now) == 1460
    # Nothing larger is wanted.
    assert search.next_size(now + 10 * RAISE_AFTER) == 0


def test_a_connection_that_began_on_a_narrow_path_tries_a_wider_one() -> None:
    """RFC 8201 §4, RFC 1191 §6.3: what was said to another holds for it, too, and not for good."""
    scene, peer, app = passive(rtt=RTT)
    app.send(bytes(3 * FULL))
    scene.receive(icmp_error(3, 4, quote(peer, 1, FULL + 12), mtu=1200))
    second = Peer(scene, 4001, window=1 << 18)
    second.sends("S")
    assert second.expects("S.").options.mss == 1160
    second.sends(".")
    app = scene.app()
    assert app.connection.mss == 1160 - 12
    data = bytes(20_000)
    app.send(data)
    assert narrow(scene, second, 1148, 20) == data
    second.got = 1 + len(data)
    assert raised(scene, second, app, data, 1500) == data
    assert app.connection.mss == FULL
    assert app.connection.path.mtu == 1500


def test_a_router_that_answers_the_probe_sets_the_top() -> None:
    """RFC 4821 §7.6.3: no need to search what has been said."""
    search = PathMtuSearch(730, 1460, 0.0)
    search.sent(1460, 1, 1449)
    search.lost(RAISE_AFTER, 1200)
    assert search.next_size(RAISE_AFTER) == (730 + 1200 + 1) // 2


def test_what_a_black_hole_falls_back_to() -> None:
    """RFC 4821 §7.2: not below what every path carries, not at all when small already."""
    assert shrunk(65_000) == BASE
    assert shrunk(1460) == 730
    assert shrunk(730) == LEAST
    assert shrunk(LEAST) == LEAST
    assert shrunk(300) == 300


def test_progress_confirms_the_neighbour() -> None:
    """RFC 4861 §7.3.1: new data acknowledged says that packets arrive; a repetition does not."""
    scene, peer, app = passive()
    neighbor = app.connection.path.neighbor
    app.send(b"x")
    scene.advance(1.0)
    before = neighbor.confirmed_at
    peer.sends(".", ack=1)
    assert neighbor.confirmed_at == before
    peer.sends(".", ack=2)
    assert neighbor.confirmed_at > before


def carry(scene: Scene, mtu: int) -> None:
    """Somebody says what the link carries."""

    def told(world: World) -> None:
        world.host.links[0].carry(mtu, mtu)
        world.host.flush(scene.now)

    scene.step(told)


def test_connections_follow_what_the_link_carries() -> None:
    """RFC 4861 §6.3.4, RFC 2132 §5.1: from now on, and nothing larger is tried later."""
    scene, peer, app = passive(rtt=RTT, window=1 << 18)
    app.send(bytes(2 * FULL))
    assert [len(s.data) for s in peer.drain()] == [FULL, FULL]
    carry(scene, 1200)
    again = peer.drain()
    assert again
    assert max(len(s.data) for s in again) == 1200 - 52
    peer.got = 1
    assert narrow(scene, peer, 1200 - 52, 20) == bytes(2 * FULL)
    data = bytes(range(250)) * 80
    peer.got = 1 + 2 * FULL
    assert raised(scene, peer, app, data, 1500) == data
    assert app.connection.mss == 1200 - 52
    assert app.connection.path.mtu == 1200


def test_a_search_does_not_go_beyond_the_link() -> None:
    """RFC 4821 §7.3: the link's MTU bounds it, although that came later."""
    scene, peer, app = passive(rtt=RTT, window=1 << 18)
    app.send(bytes(2 * FULL))
    scene.receive(icmp_error(3, 4, quote(peer, 1, FULL + 12), mtu=1000))
    carry(scene, 1200)
    assert app.connection.mss == 1000 - 52
    peer.got = 1
    peer.drain()
    assert narrow(scene, peer, 1000 - 52, 20) == bytes(2 * FULL)
    peer.got = 1 + 2 * FULL
    data = bytes(range(250)) * 80
    assert raised(scene, peer, app, data, 1500) == data
    assert app.connection.mss == 1200 - 52


def test_a_handshake_follows_what_the_link_carries() -> None:
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends("S")
    peer.expects("S.")
    carry(scene, 1200)
    peer.sends(".")
    assert scene.app().connection.mss == 1200 - 52
