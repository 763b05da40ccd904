"""What the network says about our segments, and how far it is believed (RFC 1122, 1191, 5927)."""

from __future__ import annotations

import errno

import pytest

from appliance.net.wire import icmp
from tests.net.tcp.harness import FULL, Peer, Scene, icmp_error, passive, quote

HARD = [(3, 2), (3, 3)]
SOFT = [(3, 0), (3, 1), (3, 5), (3, 13), (11, 0), (11, 1), (12, 0)]


def opening() -> tuple[Scene, Peer]:
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    scene.connect(80)
    peer.expects("S")
    return scene, peer


@pytest.mark.parametrize(
    ("kind", "code", "number"),
    [
        (3, 0, errno.ENETUNREACH),
        (3, 1, errno.EHOSTUNREACH),
        (3, 2, errno.ECONNREFUSED),
        (3, 3, errno.ECONNREFUSED),
        (3, 13, errno.EHOSTUNREACH),
        (11, 0, errno.EHOSTUNREACH),
        (12, 0, errno.EPROTO),
    ],
)
def test_error_ends_the_handshake(kind: int, code: int, number: int) -> None:
    """RFC 5461 §4.1: in SYN-SENT even a soft error is news worth having (MUST-55, MUST-56)."""
    scene, peer = opening()
    scene.receive(icmp_error(kind, code, quote(peer, 0)))
    app = scene.app()
    assert isinstance(app.error, OSError)
    assert app.error.errno == number
    assert app.state == "CLOSED"
    scene.advance(100)
    peer.expects_nothing()


@pytest.mark.parametrize(("kind", "code"), HARD + SOFT)
def test_error_does_not_end_what_is_established(kind: int, code: int) -> None:
    """RFC 5927 §6, RFC 9293 §3.9.2.2 MUST-56: soft, every one of them."""
    scene, peer, app = passive()
    app.send(b"x")
    peer.drain()
    scene.receive(icmp_error(kind, code, quote(peer, 1, 1)))
    assert app.state == "ESTABLISHED"
    assert app.events == ["established"]
    peer.sends("P.", data=b"y")
    assert app.data == b"y"


def test_error_ends_a_handshake_that_the_peer_began() -> None:
    """RFC 5461 §4.1 before synchronization; RFC 5927 §4: only if it quotes our SYN,ACK."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends("S")
    peer.expects("S.")
    scene.receive(icmp_error(3, 1, quote(peer, 7)))
    assert len(scene.host.tcp.flows) == 1
    scene.receive(icmp_error(3, 1, quote(peer, 0)))
    assert not scene.host.tcp.flows
    peer.sends(".")
    peer.expects("R", seq=1)


@pytest.mark.parametrize("offset", [-1, 1, 1000, -(1 << 20), 1 << 20])
def test_error_about_nothing_outstanding_is_a_forgery(offset: int) -> None:
    """RFC 5927 §4.1: the number quoted must lie in SND.UNA <= SEG.SEQ < SND.NXT."""
    scene, peer = opening()
    scene.receive(icmp_error(3, 3, quote(peer, offset)))
    assert scene.app().state == "SYN-SENT"
    assert scene.counter("icmp_ignored") == 1


def test_error_about_another_flow_is_ignored() -> None:
    """RFC 5927 §3, RFC 9293 §3.9.2.2 MUST-54: demultiplexed by the pair of sockets quoted."""
    scene, peer = opening()
    stranger = Peer(scene, 80, 4001)
    stranger.iss = peer.iss
    scene.receive(icmp_error(3, 3, quote(stranger, 0)))
    assert scene.app().state == "SYN-SENT"
    assert scene.counter("icmp_ignored") == 1


def test_error_with_too_little_quoted_is_ignored() -> None:
    """RFC 792: the header and eight octets; less names nobody."""
    scene, peer = opening()
    whole = quote(peer, 0)
    for length in (0, 10, 20, 27):
        scene.receive(icmp_error(3, 3, whole[:length]))
    assert scene.app().state == "SYN-SENT"
    counters = scene.host.counters
    assert counters.icmp_ignored + counters.ip_truncated + counters.icmp_truncated == 4


@pytest.mark.parametrize("kind", [icmp.SOURCE_QUENCH, icmp.REDIRECT])
def test_source_quench_and_redirect_are_discarded(kind: int) -> None:
    """RFC 9293 §3.9.2.2 MUST-55: Source Quench silently; RFC 6633 §3."""
    scene, peer, app = passive()
    app.send(b"x")
    peer.drain()
    scene.receive(icmp_error(kind, 0, quote(peer, 1)))
    assert app.state == "ESTABLISHED"
    peer.expects_nothing()


# ---------------------------------------------------------------------- path MTU


def test_fragmentation_needed_makes_segments_smaller() -> None:
    """RFC 1191 §3, §6.5: what was too large leaves again at once, in pieces that fit."""
    scene, peer, app = passive()
    app.send(bytes(3 * FULL))
    peer.drain()
    scene.receive(icmp_error(3, 4, quote(peer, 1, FULL + 12), mtu=1200))
    smaller = 1200 - 40 - 12
    sent = peer.drain()
    assert sent
    assert max(len(s.data) for s in sent) == smaller
    assert sent[0].seq == 1
    assert scene.counter("tcp_path_mtu_reduced") == 1
    for _ in range(20):
        peer.got = max(peer.got, app.connection.snd_nxt - app.connection.iss)
        peer.sends(".")
    app.send(bytes(3000))
    assert len(peer.drain()[0].data) == smaller


def test_super_segments_shrink_with_the_path() -> None:
    """VIRTIO 1.2 §5.1.6.2 and RFC 1191: gso_size follows the MSS."""
    scene, peer, app = passive(scene=Scene(gso_max=65_535))
    app.send(bytes(5 * FULL))
    peer.drain()
    scene.receive(icmp_error(3, 4, quote(peer, 1, FULL + 12), mtu=1200))
    smaller = 1200 - 40 - 12
    for s in peer.drain():
        assert s.vnet.gso_size == (smaller if len(s.data) > smaller else 0)


@pytest.mark.parametrize("mtu", [1500, 9000, 65_535, 67, 1])
def test_fragmentation_needed_that_cannot_be_is_ignored(mtu: int) -> None:
    """RFC 1191 §3, RFC 5927 §7: never up, and not below what every link carries."""
    scene, peer, app = passive()
    app.send(bytes(3 * FULL))
    peer.drain()
    scene.receive(icmp_error(3, 4, quote(peer, 1, FULL + 12), mtu=mtu))
    peer.expects_nothing()
    assert app.connection.mss == FULL


def test_fragmentation_needed_has_a_floor() -> None:
    """RFC 5927 §7.2 spirit, Linux's min_pmtu of 552: nobody shall make us send crumbs."""
    scene, peer, app = passive()
    app.send(bytes(3 * FULL))
    peer.drain()
    scene.receive(icmp_error(3, 4, quote(peer, 1, FULL + 12), mtu=68))
    assert max(len(s.data) for s in peer.drain()) == 552 - 52


def test_fragmentation_needed_from_an_old_router() -> None:
    """RFC 1191 §5: an MTU of nought means that it does not know; 576 is safe."""
    scene, peer, app = passive()
    app.send(bytes(3 * FULL))
    peer.drain()
    scene.receive(icmp_error(3, 4, quote(peer, 1, FULL + 12), mtu=0))
    assert max(len(s.data) for s in peer.drain()) == 576 - 52


def test_forged_fragmentation_needed_is_ignored() -> None:
    """RFC 5927 §7: the number quoted must be outstanding."""
    scene, peer, app = passive()
    app.send(bytes(3 * FULL))
    peer.drain()
    for seq in (0, 1 + 3 * FULL, 1 << 20):
        scene.receive(icmp_error(3, 4, quote(peer, seq, FULL + 12), mtu=600))
    peer.expects_nothing()
    assert app.connection.mss == FULL
    assert scene.counter("icmp_ignored") == 3


def test_fragmentation_needed_about_a_syn_is_no_error() -> None:
    """RFC 1191 §6.5: SYNs are small; nothing to learn, nothing to end."""
    scene, peer = opening()
    scene.receive(icmp_error(3, 4, quote(peer, 0), mtu=1000))
    assert scene.app().state == "SYN-SENT"


# ---------------------------------------------------------------------- no neighbour


def test_nobody_answers_for_the_address() -> None:
    """RFC 1122 §2.3.2.1, §2.4: three questions, then the connection hears EHOSTUNREACH."""
    scene = Scene(arp_answers=False)
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    scene.advance(2.5)
    assert app.state == "SYN-SENT"
    scene.advance(1)
    assert isinstance(app.error, OSError)
    assert app.error.errno == errno.EHOSTUNREACH
    peer.expects_nothing()


def test_a_neighbour_that_answers_late_gets_what_waited() -> None:
    """RFC 1122 §2.3.2.2: the latest packet is kept, and sent when the answer comes."""
    scene = Scene(arp_answers=False)
    peer = Peer(scene, 80, 4000)
    scene.connect(80)
    peer.expects_nothing()
    scene.arp_answers = True
    scene.advance(1.0)
    assert {s.flags for s in peer.drain()} == {"S"}
    peer.sends("S.", ack=1)
    assert scene.app().state == "ESTABLISHED"
