"""Strangers: who asks a socket that answers at once, and from a port not seen before."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from appliance.net.path6 import Labels
from appliance.net.routes import Route
from appliance.net.stack import Host, Limits
from appliance.net.udp import UdpSocket
from appliance.net.udp_table import PEER_SECONDS
from appliance.net.vif.pair import pair
from appliance.net.wire import ethernet, icmp, ipv4, udp
from appliance.net.wire.address import from_text
from appliance.net.wire.virtio import PLAIN
from tests.net.tcp.harness import (
    OUR_ADDRESS,
    PEER_ADDRESS,
    Scene,
    icmp_error,
    ip_frame,
    udp_frame,
)
from tests.net.test_network6 import OURS, PEER, PEER_MAC, Wire, six

SECOND = "10.0.0.3"
FAR = "192.0.2.7"
ASK = b"a question of a resolver"
NOPS = bytes((1, 1, 1, 1))
LONG = b"octets enough to fill a short Ethernet frame"


class Server:
    """Answers with what it was asked, or does as the script says; notes what it is told."""

    def __init__(self, script: Callable[[Server, bytes, tuple[str, int]], bytes | None]) -> None:
        self.socket: UdpSocket
        self.got: list[tuple[bytes, tuple[str, int]]] = []
        self.errors: list[OSError] = []
        self.script = script

    def answer(self, data: bytes, source: tuple[str, int]) -> bytes | None:
        self.got.append((data, source))
        return self.script(self, data, source)

    def udp_datagram(self, data: bytes, source: tuple[str, int]) -> None:
        raise AssertionError("the answerer is asked")

    def udp_error(self, error: OSError) -> None:
        self.errors.append(error)


def _echo(server: Server, data: bytes, source: tuple[str, int]) -> bytes | None:
    return data


def _later(server: Server, data: bytes, source: tuple[str, int]) -> bytes | None:
    """Answer as an UPDATE is answered: by sending, and not at once."""
    server.socket.send(data, source)
    return None


def serve(host: Host, script: Any = _echo, address: str = "") -> Server:
    server = Server(script)
    server.socket = host.udp_bind(address, 53, server)
    server.socket.answer_by(server.answer, _fail)
    return server


def _fail(error: Exception) -> None:
    raise error


def scene(script: Any = _echo, **options: Any) -> tuple[Scene, Server]:
    """A host whose port 53 answers; the server of the first world."""
    made = Scene(**options)
    for world in made.worlds:
        world.host.add_gateway(PEER_ADDRESS)
    servers = [serve(world.host, script) for world in made.worlds]
    return made, servers[0]


def meet(made: Scene, server: Server, *addresses: str) -> None:
    """Have strangers asked from addresses, which are known from then on; nothing else is left."""
    for _ in range(2):
        for src in addresses or (PEER_ADDRESS,):
            made.receive(udp_frame(ASK, 3000 + len(server.got), 53, src=src))
    assert len(made.host.udp.peers) == len(addresses or (PEER_ADDRESS,))
    assert not made.host.udp.flows
    server.got.clear()
    made.others.clear()


def to(address: str, data: bytes, port: int = 4000) -> bytes:
    datagram = udp.build(from_text(PEER_ADDRESS), from_text(address), port, 53, data)
    return ip_frame(PEER_ADDRESS, address, udp.PROTOCOL, datagram)


def sent(made: Scene) -> list[bytes]:
    packets, made.others = made.others, []
    return packets


def sources(made: Scene) -> list[bytes]:
    return [packet[12:16] for packet in sent(made)]


@given(
    data=st.binary(min_size=12, max_size=600),
    src=st.sampled_from([PEER_ADDRESS, FAR, "198.51.100.1"]),
)
def test_a_stranger_is_answered_as_a_correspondent(data: bytes, src: str) -> None:
    """The first answer, the second and the third: the same but for ports; and by the long way."""
    made, server = scene()
    made.receive(udp_frame(data, 4000, 53, src=src))
    assert not made.host.udp.flows  # who asks once is not remembered
    made.receive(udp_frame(data, 4000, 53, src=src))
    assert len(made.host.udp.flows) == 1  # who writes again is
    made.receive(udp_frame(data, 4000, 53, src=src))
    datagram = udp.build(from_text(src), from_text(OUR_ADDRESS), 4001, 53, data)
    made.receive(ip_frame(src, OUR_ADDRESS, udp.PROTOCOL, datagram, options=NOPS))
    packets = sent(made)
    assert [udp.parse(packet, 20, len(packet)).dst_port for packet in packets] == [4000] * 3 + [
        4001
    ]
    assert packets[0] == packets[1] == packets[2]
    assert packets[3][:22] + packets[3][28:] == packets[0][:22] + packets[0][28:]
    assert made.counter("udp_in") == made.counter("udp_out") == 4
    assert server.got == [(data, (src, 4000))] * 3 + [(data, (src, 4001))]


def test_strangers_over_ipv6() -> None:
    """RFC 6437 §3: a flow has one label from its first packet on, and others have others."""
    wire = Wire()
    serve(wire.host)
    ports = [4000, 4000, 4000, *range(5000, 5064)]
    asked = [six(UDP(sport=port, dport=53), Raw(ASK)) for port in ports]
    frames = [wire.answers(packet)[0] for packet in asked]
    assert [frame[UDP].dport for frame in frames] == ports
    labels = [frame[IPv6].fl for frame in frames]
    assert all(labels)
    assert labels[0] == labels[1] == labels[2]
    assert len(set(labels[2:])) > 60
    assert bytes(frames[0]) == bytes(frames[1]) == bytes(frames[2])
    assert {key[-4:-2] for key in wire.host.udp.flows} == {(4000).to_bytes(2)}


def test_labels_are_spread_and_secret() -> None:
    """RFC 6437 §3: uniformly distributed, and another secret gives others; nought is none."""
    ours, others = Labels(b"a" * 16), Labels(b"b" * 16)
    addresses = from_text(PEER) + from_text(OURS)
    ports = range(65_536)
    base = ours.base(addresses, 53)
    labels = [ours.of(base, port) for port in ports]
    assert min(labels) > 0
    assert max(labels) < 1 << 20
    filled = [0] * 64
    for label in labels:
        filled[label >> 14] += 1
    assert max(filled) < 2 * min(filled)
    assert ours.base(addresses, 853) != base != ours.base(addresses[::-1], 53)
    assert (
        sum(
            others.of(others.base(addresses, 53), port) == label
            for port, label in zip(ports, labels, strict=True)
        )
        < 10
    )


@pytest.mark.parametrize(
    "src", ["10.0.0.255", "224.0.0.1", "127.0.0.1", "0.0.0.0", OUR_ADDRESS, SECOND]
)
def test_nobody_s_questions(src: str) -> None:
    """RFC 1122 §3.2.1.3: what is no host's address asks nothing."""
    made, server = scene()
    for world in made.worlds:
        world.host.add_address(SECOND + "/24")
    made.receive(udp_frame(ASK, 4000, 53, src=src))
    assert server.got == []
    assert made.counter("ip_bad_source") == 1


def test_questions_to_others() -> None:
    """RFC 1122 §3.2.1.3, §3.3.6: another's address, and a link-layer broadcast to ours."""
    made, server = scene()
    made.receive(to("10.0.0.99", ASK))
    datagram = udp.build(from_text(PEER_ADDRESS), from_text(OUR_ADDRESS), 4000, 53, ASK)
    made.receive(ip_frame(PEER_ADDRESS, OUR_ADDRESS, udp.PROTOCOL, datagram, to=b"\xff" * 6))
    assert server.got == []
    assert made.counter("ip_not_ours") == 2


def _put(at: int, value: int) -> Callable[[bytearray], None]:
    def change(frame: bytearray) -> None:
        frame[at : at + 2] = value.to_bytes(2)

    return change


@pytest.mark.parametrize(
    ("change", "counter"),
    [
        (_put(44 + 6, 0xDEAD), "udp_checksum"),
        (_put(44 + 4, 7), "udp_length"),
        (_put(44 + 4, 100), "udp_length"),
        (_put(24 + 10, 0xDEAD), "ip_checksum"),
        (_put(24 + 4, 0x1234), "ip_checksum"),
    ],
)
@pytest.mark.parametrize("met", [False, True])
def test_damaged_questions(change: Any, counter: str, met: bool) -> None:
    """RFC 768, RFC 1122 §3.2.1.2: counted and dropped, whether the address is known or not."""
    made, server = scene()
    if met:
        made.receive(udp_frame(LONG, 3999, 53))
    frame = bytearray(udp_frame(LONG, 4000, 53))
    change(frame)
    made.receive(bytes(frame))
    assert len(server.got) == met
    assert made.counter(counter) == 1


def test_a_question_from_port_nought_gets_no_answer_by_itself() -> None:
    """RFC 768: nought says that no reply is expected."""
    made, server = scene()
    told: list[bytes] = []
    server.udp_datagram = lambda data, source: told.append(data)  # type: ignore[method-assign]
    made.worlds[0].host.receive([udp_frame(ASK, 0, 53)], made.now)
    assert (server.got, told) == ([], [ASK])


def test_errors_about_answers_to_strangers() -> None:
    """RFC 1122 §4.1.3.3, RFC 5927 §4.2: handed up if we did write there, and not otherwise."""
    made, server = scene()
    made.receive(udp_frame(ASK, 4000, 53))
    (answer,) = sent(made)
    other = answer[:22] + (4001).to_bytes(2) + answer[24:]
    for quoted in (other, answer):
        made.receive(icmp_error(icmp.UNREACHABLE, icmp.UNREACHABLE_PORT, quoted))
    assert [error.errno for error in server.errors] == [errno.ECONNREFUSED]
    assert made.counter("icmp_ignored") == 1


def test_a_neighbour_that_does_not_answer_a_stranger() -> None:
    """RFC 1122 §4.1.3.3: told of as for others."""
    made, server = scene(arp_answers=False)
    made.receive(udp_frame(ASK, 4000, 53))
    made.advance(5)
    assert [error.errno for error in server.errors] == [errno.EHOSTUNREACH]


@pytest.mark.parametrize("asked", [1, 2])
def test_a_smaller_path_holds_for_all_ports(asked: int) -> None:
    """RFC 1191 §6.3: what was said of one answer, a stranger's or not, holds for the address."""
    made, server = scene()
    meet(made, server)
    for _ in range(asked):
        made.receive(udp_frame(bytes(1400), 4000, 53))
    quoted = sent(made)[-1]
    made.receive(icmp_error(icmp.UNREACHABLE, icmp.UNREACHABLE_FRAGMENTATION, quoted, mtu=1000))
    for port in (4000, 4001):
        made.receive(udp_frame(bytes(1400), port, 53))
        assert [len(packet) <= 1000 for packet in sent(made)] == [True, True]


@pytest.mark.parametrize("asked", [1, 2])
def test_an_answer_that_can_be_shorter_leaves_in_no_fragments(asked: int) -> None:
    """RFC 9715 §1, §3.1: what a router says is easily forged, and then are fragments."""
    made, server = scene()
    for world in made.worlds:
        socket = world.host.udp.socket(from_text(OUR_ADDRESS), 53)
        assert socket is not None
        socket.answer_by(socket.answerer, _fail, lambda answer: answer[:100] or None)
    meet(made, server)
    for _ in range(asked):
        made.receive(udp_frame(bytes(1400), 4000, 53))
    quoted = sent(made)[-1]
    made.receive(icmp_error(icmp.UNREACHABLE, icmp.UNREACHABLE_FRAGMENTATION, quoted, mtu=600))
    for port in (4000, 4001):
        made.receive(udp_frame(bytes(500), port, 53), udp_frame(bytes(1400), port, 53))
        assert sorted(len(packet) for packet in sent(made)) == [128, 528]


def test_a_smaller_path_over_ipv6() -> None:
    """RFC 8201 §4."""
    wire = Wire()
    serve(wire.host)
    (sent6,) = wire.answers(six(UDP(sport=4000, dport=53), Raw(bytes(1400))))
    wire.put(six(ICMPv6PacketTooBig(mtu=1300) / Raw(bytes(sent6[IPv6])[:1200])))
    frames = wire.answers(six(UDP(sport=4001, dport=53), Raw(bytes(1400))))
    assert len(frames) == 2
    assert max(len(frame[IPv6]) for frame in frames) <= 1300


def test_too_long_an_answer() -> None:
    """RFC 768: the length field ends it; the user hears."""
    made, server = scene(lambda server, data, source: bytes(65_508))
    made.receive(udp_frame(ASK, 4000, 53))
    assert [error.errno for error in server.errors] == [errno.EMSGSIZE]


@pytest.mark.parametrize("script", [_echo, _later])
def test_from_the_address_that_was_asked(script: Any) -> None:
    """RFC 1122 §4.1.3.5: at once or later, from two addresses in turn, by one port or by more."""
    made, _ = scene(script)
    for world in made.worlds:
        world.host.add_address(SECOND + "/24")
    made.step(lambda world: world.host.flush(made.now))
    for address, port in (
        (SECOND, 4000), (OUR_ADDRESS, 4000), (SECOND, 4001), (OUR_ADDRESS, 4002), (SECOND, 4002),
    ):  # fmt: skip
        made.receive(to(address, ASK, port))
        assert sources(made) == [from_text(address)]


def test_an_answer_long_after() -> None:
    """RFC 1122 §4.1.3.5: other questions come in between."""
    made, server = scene(lambda server, data, source: None)
    for world in made.worlds:
        world.host.add_address(SECOND + "/24")
    made.step(lambda world: world.host.flush(made.now))
    made.receive(to(SECOND, ASK, 4000), *(to(OUR_ADDRESS, ASK, port) for port in range(1, 99)))
    server.socket.send(b"!", (PEER_ADDRESS, 4000))
    assert made.worlds[0].vif.sent[-1][36:40] == from_text(SECOND)


def test_what_strangers_cost_is_bounded() -> None:
    """Many ports and many addresses: each is answered, and few are kept."""
    made, _ = scene(limits=Limits(udp_flows=10))
    table = made.host.udp
    for number in range(100):
        made.receive(udp_frame(ASK, 1000 + number, 53, src=f"192.0.2.{number + 1}"))
        assert len(table.peers) <= 10
    assert len(sent(made)) == 100
    assert table.is_recent(server_key("192.0.2.100", 1099))
    assert not table.is_recent(server_key("192.0.2.80", 1079))
    assert not table.flows


def test_unanswered_strangers_are_bounded() -> None:
    """Nor do those stay who get no answer."""
    made, _ = scene(lambda server, data, source: None, limits=Limits(udp_flows=10))
    for port in range(1000, 1100):
        made.receive(udp_frame(ASK, port, 53))
    assert [made.host.udp.is_recent(server_key(PEER_ADDRESS, port)) for port in (1099, 1079)] == [
        True, False,
    ]  # fmt: skip


def server_key(src: str, port: int) -> bytes:
    return from_text(src) + from_text(OUR_ADDRESS) + port.to_bytes(2) + (53).to_bytes(2)


def test_a_more_particular_socket_and_its_end() -> None:
    """What was known of an address is not kept when sockets come and go."""
    made = Scene()
    for world in made.worlds:
        world.host.add_address(SECOND + "/24")
    made.step(lambda world: world.host.flush(made.now))
    first = [serve(world.host, address=SECOND) for world in made.worlds]
    made.receive(to(OUR_ADDRESS, ASK, 4000))
    (refusal,) = sent(made)
    assert ipv4.parse(refusal, 0, len(refusal)).protocol == icmp.PROTOCOL
    second = [serve(world.host, address=OUR_ADDRESS) for world in made.worlds]
    made.receive(to(OUR_ADDRESS, ASK, 4001), to(SECOND, ASK, 4001))
    made.receive(to(OUR_ADDRESS, ASK, 4004))
    assert [len(server.got) for server in (first[0], second[0])] == [1, 2]
    for server in second:
        server.socket.close()
    sent(made)
    made.receive(to(OUR_ADDRESS, ASK, 4002))
    assert len(second[0].got) == 2
    assert made.counter("udp_no_port") == 2
    third = [serve(world.host, address=OUR_ADDRESS) for world in made.worlds]
    made.receive(to(OUR_ADDRESS, ASK, 4003))
    assert len(third[0].got) == 1
    assert not made.host.udp.flows


def test_again_in_the_same_turn() -> None:
    """Both answers leave together, where the link takes that."""
    made, server = scene(udp_segments=64)
    meet(made, server)
    for world in made.worlds:
        world.host.receive([udp_frame(ASK, 4000, 53)] * 2, made.now)
        (frame,) = world.vif.sent
        assert frame.endswith(ASK * 2)
        world.vif.sent.clear()
    assert made.counter("udp_in") == made.counter("udp_out") == 4


def test_a_link_without_ipv6() -> None:
    """RFC 1122 §2.3.3: what is not spoken there is not heard, be it for an address of ours."""
    wire = Wire(f"{OURS}/64")
    server = serve(wire.host)
    near, _ = pair(offload=True)
    other = wire.host.add_vif(near)
    packet = six(UDP(sport=4000, dport=53), Raw(ASK))
    frame = PLAIN + bytes(Ether(src=PEER_MAC, dst=ethernet.mac_text(near.mac)) / packet)
    wire.host.receive([frame], wire.now, other)
    assert server.got == []
    assert wire.counter("ethertype_unknown") == 1
    assert len(wire.answers(packet)) == 1


def test_leases_are_for_the_link() -> None:
    """RFC 2131 §4.1: what a DHCP server sends to a client is read by ours, and by nobody else."""
    made, _ = scene()
    host = made.worlds[0].host
    host.use_dhcp()
    server = Server(_echo)
    host.udp_bind("", 68, server).answer_by(server.answer, _fail)
    host.receive([udp_frame(bytes(300), 67, 68)], made.now)
    assert server.got == []


def test_two_ports_that_answer() -> None:
    """One address asks both in turn."""
    made, _ = scene()
    for world in made.worlds:
        other = Server(lambda server, data, source: b"other")
        world.host.udp_bind("", 54, other).answer_by(other.answer, _fail)
    for port in (53, 54, 53, 54):
        made.receive(udp_frame(ASK, 4000 + len(made.others), port))
    packets = sent(made)
    ports = [udp.parse(packet, 20, len(packet)).src_port for packet in packets]
    assert (ports, [packet[28:] for packet in packets]) == ([53, 54] * 2, [ASK, b"other"] * 2)


def test_a_new_route_is_taken() -> None:
    """Within ten seconds, however often its address asks."""
    made, _ = scene()
    for port in (4000, 4001):
        made.receive(udp_frame(ASK, port, 53, src=FAR))
    hops = []
    for world in made.worlds:
        network = world.host.network
        network.routes.add(Route(from_text(FAR), 32, network.links[0], from_text("10.0.0.9")))
        network.links[0].arp.learn(from_text("10.0.0.9"), b"\2" * 6, made.now, create=True)
    for port in (5000, 5001, 5002):
        made.now += PEER_SECONDS / 2
        for world in made.worlds:
            world.host.receive([udp_frame(ASK, port, 53, src=FAR)], made.now)
        hops.append(made.worlds[0].vif.sent[-1][10:16])
    assert hops[0] != hops[2] == b"\2" * 6


def test_an_address_that_is_lost() -> None:
    """What was known of who asked it goes with it."""
    made, server = scene()
    meet(made, server)
    for world in made.worlds:
        world.host.network.address_lost(from_text(OUR_ADDRESS))
    assert not made.host.udp.peers
    made.receive(udp_frame(ASK, 4001, 53))
    assert server.got == []
    assert made.counter("ip_not_ours") == 1


def test_an_answerer_that_raises() -> None:
    """It costs one answer."""
    failures: list[Exception] = []

    def fails(data: bytes, source: tuple[str, int]) -> bytes | None:
        raise ValueError(data)

    made = Scene()
    for world in made.worlds:
        world.host.udp_bind("", 53, Server(_echo)).answer_by(fails, failures.append)
    made.receive(udp_frame(ASK, 4000, 53))
    assert [type(error) for error in failures] == [ValueError] * 2
    assert sent(made) == []
