"""Path MTUs that routers told of: how long they hold, and who hears when they do no longer."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    IPv6,
)
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from appliance.net.path_mtu import PATH_MTU_SECONDS, PathMtus
from appliance.net.wire.address import from_text
from tests.net.test_network6 import OURS, PEER, PEER_MAC, Inbox, Wire, six
from tests.net.test_suites import OURS4, PEER4, four, too_big

A, B, C = (bytes((10, 0, 0, n)) for n in (1, 2, 3))


def test_a_larger_one_is_not_believed() -> None:
    """RFC 8201 §4: a node MUST NOT raise its estimate by what a router tells."""
    known = PathMtus()
    known.learn(A, 1300, 0.0)
    known.learn(A, 1400, 100.0)
    assert known.towards(A, 1500, 100.0) == 1300
    # After a while it is nobody's word any longer.
    known.learn(A, 1400, 100.0 + PATH_MTU_SECONDS)
    assert known.towards(A, 1500, 100.0 + PATH_MTU_SECONDS) == 1400


def test_they_are_forgotten_in_their_order() -> None:
    """RFC 1191 §6.3: ten minutes after the last word about each."""
    known = PathMtus()
    known.learn(A, 1300, 0.0)
    known.learn(B, 1300, 1.0)
    known.learn(A, 1300, 2.0)
    assert known.deadline() == 1.0 + PATH_MTU_SECONDS
    assert known.expire(PATH_MTU_SECONDS) == []
    assert known.expire(1.0 + PATH_MTU_SECONDS) == [B]
    assert known.deadline() == 2.0 + PATH_MTU_SECONDS
    assert known.expire(2.0 + PATH_MTU_SECONDS) == [A]
    assert known.deadline() == float("inf")


def test_the_oldest_makes_room() -> None:
    """A bound, and whose turn it is hears of it."""
    known = PathMtus(2)
    assert known.learn(A, 1300, 0.0) == b""
    assert known.learn(B, 1300, 0.0) == b""
    assert known.learn(B, 1300, 0.0) == b""
    assert known.learn(C, 1300, 0.0) == A
    assert len(known) == 2


def sizes(frames: list[Packet]) -> list[int]:
    return [len(frame[IPv6] if IPv6 in frame else frame[IP]) for frame in frames]


def attend(wire: Wire, seconds: float) -> None:
    """Time passes, and the neighbour answers whenever it is asked whether it is still there."""
    until = wire.now + seconds
    while wire.now < until:
        wire.run(min(0.5, until - wire.now))
        for frame in wire.taken():
            if ICMPv6ND_NS in frame:
                tells = ICMPv6ND_NA(tgt=PEER, R=0, S=1, O=1)
                wire.put(six(tells, ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC)))
            elif ARP in frame:
                wire.put(ARP(op=2, hwsrc=PEER_MAC, psrc=PEER4, pdst=OURS4))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("answers", [True, False])
def test_long_lived_flows_use_a_wider_path_again(family: int, answers: bool) -> None:
    """RFC 8201 §4, §5.3, RFC 1191 §6.3: ten minutes later, though they never ceased to speak."""
    wire = Wire()
    socket = wire.host.udp_bind("", 53, Inbox())
    if answers:
        socket.answer_by(lambda data, source: data, lambda error: None)
    build = six if family == 6 else four
    whole = 1400 + 8 + (40 if family == 6 else 20)

    def asked() -> Packet:
        """What answers a long question."""
        wire.taken()  # questions for the neighbour
        frames = wire.answers(build(UDP(sport=4000, dport=53), Raw(bytes(1400))))
        if not answers:
            socket.send(bytes(1400), (PEER if family == 6 else PEER4, 4000))
            frames = wire.taken()
        return frames[0]

    for _ in range(3):
        answer = asked()
        assert sizes([answer]) == [whole]
    wire.put(too_big(answer, 1300))
    told = wire.now
    while wire.now < told + PATH_MTU_SECONDS - 61.0:
        assert sizes([asked()])[0] <= 1300
        attend(wire, 60.0)
    assert sizes([asked()])[0] <= 1300
    attend(wire, told + PATH_MTU_SECONDS - wire.now)
    assert sizes([asked()]) == [whole]
    # By the short way, as before.
    paths = [flow.path for flow in wire.host.udp.flows.values()] + list(socket.paths())
    assert {path.mtu for path in paths} == {1500}


def test_who_makes_room_for_others_is_not_small_for_good() -> None:
    """The table is bounded: a flow to an address that it forgot finds its way as a new one does."""
    wire = Wire()
    socket = wire.host.udp_bind("", 53, Inbox())
    wire.know_peer()
    socket.send(bytes(1400), (PEER, 4000))
    wire.put(too_big(wire.taken()[-1], 1300))
    network = wire.host.network
    for number in range(0x1000, 0x1400):
        network.learn_path_mtu(from_text(PEER)[:-2] + number.to_bytes(2), 1280)
    assert {path.mtu for path in socket.paths()} == {1500}


@pytest.mark.parametrize("answers", [True, False])
def test_flows_follow_what_routers_say_of_the_link(answers: bool) -> None:
    """RFC 4861 §6.3.4: the MTU option is the link's, for those who spoke before it, too."""
    wire = Wire(f"{OURS}/64", autonomous=True)
    wire.know_peer()
    socket = wire.host.udp_bind("", 53, Inbox())
    if answers:
        socket.answer_by(lambda data, source: data, lambda error: None)

    def asked() -> list[int]:
        wire.taken()
        wire.put(six(UDP(sport=4000, dport=53), Raw(bytes(1400))))
        if not answers:
            socket.send(bytes(1400), (PEER, 4000))
        return sizes(wire.taken())

    for mtu, whole in ((0, True), (1300, False), (1500, True)):
        if mtu:
            told = IPv6(src="fe80::9", dst="ff02::1", hlim=255) / ICMPv6ND_RA()
            wire.put(told / ICMPv6NDOptMTU(mtu=mtu), dst="33:33:00:00:00:01")
        for _ in range(3):
            assert (asked() == [1448]) == whole
            assert max(asked()) <= (mtu or 1500)
