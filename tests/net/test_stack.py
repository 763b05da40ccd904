"""The host: what is dropped at each layer and counted, ICMP echo, ports, turns and timers."""

from __future__ import annotations

import errno
import random
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.ephemeral import EPHEMERAL_FIRST
from appliance.net.stack import Host, Limits
from appliance.net.wire import arp, ethernet, icmp, ipv4, tcp, udp
from appliance.net.wire.address import from_text
from appliance.net.wire.virtio import PLAIN
from tests.net.tcp.harness import (
    OUR_ADDRESS,
    OUR_MAC,
    PEER_ADDRESS,
    PEER_MAC,
    FakeVif,
    Peer,
    Scene,
    User,
    arp_frame,
    ip_frame,
    passive,
    udp_frame,
)

US, THEM = from_text(OUR_ADDRESS), from_text(PEER_ADDRESS)


def syn(*, src: str = PEER_ADDRESS, dst: str = OUR_ADDRESS, **fields: Any) -> bytes:
    segment = tcp.build(from_text(src), from_text(dst), 4000, 80, 5, 0, tcp.SYN, 1000)
    return ip_frame(src, dst, tcp.PROTOCOL, segment, **fields)


def patched(frame: bytes, at: int, value: bytes, *, header_sum: bool = True) -> bytes:
    """The frame with octets of its IP header changed, and the sum made good again."""
    from appliance.net.checksum import checksum

    out = bytearray(frame)
    out[at : at + len(value)] = value
    if header_sum:
        end = 24 + (out[24] & 15) * 4
        out[34:36] = b"\0\0"
        out[34:36] = checksum(out[24:end]).to_bytes(2)
    return bytes(out)


# ---------------------------------------------------------------------- the two ways in


@pytest.mark.parametrize("port", [80, 81])
@pytest.mark.parametrize("src_port", [4000, 0])
def test_a_segment_of_no_flow_is_answered_alike_on_the_long_way(port: int, src_port: int) -> None:
    scene = Scene()  # which compares the two
    scene.listen(80)
    for flags in range(256):
        source = src_port and src_port + flags
        segment = tcp.build(THEM, US, source, port, 5, 77, flags, 1000)
        scene.receive(ip_frame(PEER_ADDRESS, OUR_ADDRESS, tcp.PROTOCOL, segment))
    assert scene.counter("tcp_in") == 256
    assert (len(scene.host.tcp.flows) > 0) == (port == 80 and src_port > 0)


# ---------------------------------------------------------------------- what is dropped, and where

DROPPED = {
    "truncated Ethernet": (syn()[:20], "ethernet_truncated"),
    "nothing at all": (b"", "ethernet_truncated"),
    "another station's": (syn(to=b"\2\0\0\0\0\x77"), "ethernet_not_ours"),
    "unknown ethertype": (patched(syn(), 22, b"\x86\xdd", header_sum=False), "ethertype_unknown"),
    "802.3 length": (patched(syn(), 22, b"\x00\x40", header_sum=False), "ethertype_unknown"),
    "truncated ARP": (arp_frame(1, PEER_ADDRESS, PEER_MAC, OUR_ADDRESS)[:40], "arp_truncated"),
    "truncated IP header": (syn()[:40], "ip_truncated"),
    "IP version": (patched(syn(), 24, b"\x65"), "ip_version"),
    "IP header length": (patched(syn(), 24, b"\x44"), "ip_header_length"),
    "IP total length too small": (patched(syn(), 26, b"\x00\x13"), "ip_total_length"),
    "IP total length past the end": (patched(syn(), 26, b"\x02\x00"), "ip_truncated"),
    "IP checksum": (patched(syn(), 34, b"\xde\xad", header_sum=False), "ip_checksum"),
    "another host's, with options that lie": (
        syn(dst="10.0.0.77", options=b"\x07\x00\x04\x00"),
        "ip_not_ours",
    ),
    "another host's": (syn(dst="10.0.0.77"), "ip_not_ours"),
    "multicast": (syn(dst="224.0.0.1"), "ip_not_ours"),
    "loopback": (syn(dst="127.0.0.1"), "ip_not_ours"),
    "source broadcast": (syn(src="255.255.255.255"), "ip_bad_source"),
    "source directed broadcast": (syn(src="10.0.0.255"), "ip_bad_source"),
    "source multicast": (syn(src="224.0.0.1"), "ip_bad_source"),
    "source this host": (syn(src="0.0.0.0"), "ip_bad_source"),
    "source loopback": (syn(src="127.0.0.1"), "ip_bad_source"),
    "source ourselves": (syn(src=OUR_ADDRESS), "ip_bad_source"),
    "SYN to the broadcast address": (syn(dst="10.0.0.255", to=b"\xff" * 6), "ip_not_ours"),
    "unicast packet in a broadcast frame": (syn(to=b"\xff" * 6), "ip_not_ours"),
    "truncated TCP": (ip_frame(PEER_ADDRESS, OUR_ADDRESS, 6, bytes(19)), "tcp_truncated"),
    "truncated UDP": (ip_frame(PEER_ADDRESS, OUR_ADDRESS, 17, bytes(7)), "udp_truncated"),
    "truncated ICMP": (ip_frame(PEER_ADDRESS, OUR_ADDRESS, 1, bytes(7)), "icmp_truncated"),
    "ICMP checksum": (ip_frame(PEER_ADDRESS, OUR_ADDRESS, 1, bytes(7) + b"x"), "icmp_checksum"),
    "ICMP of no use": (
        ip_frame(PEER_ADDRESS, OUR_ADDRESS, 1, icmp.build(13, 0, 0, b"")),
        "icmp_ignored",
    ),
    "ICMP error quoting nothing": (
        ip_frame(PEER_ADDRESS, OUR_ADDRESS, 1, icmp.build(3, 3, 0, b"")),
        "ip_truncated",
    ),
}


@pytest.mark.parametrize("name", DROPPED)
def test_each_drop_has_its_counter(name: str) -> None:
    """RFC 1122 §3.2.1, §3.2.2: silently, but counted, and by one counter only."""
    frame, counter = DROPPED[name]
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    before = scene.host.counters.as_dict()
    scene.receive(frame)
    after = scene.host.counters.as_dict()
    told = {n: after[n] - before[n] for n in after if after[n] != before[n]}
    assert told.pop("frames_in") == 1
    told.pop("icmp_errors_in", None)
    assert told == {counter: 1}
    peer.expects_nothing()
    assert scene.others == []


@pytest.mark.parametrize("options", [b"\x07\x00\x04\x00", b"\x07\x28\x04\x00"])
def test_options_that_lie(options: bytes) -> None:
    """RFC 1122 §3.2.2.5: dropped, counted and told of; the listener sees nothing."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    scene.receive(syn(options=options))
    assert scene.host.counters.ip_options == 1
    assert scene.host.counters.icmp_errors_out == 1
    peer.expects_nothing()
    assert len(scene.others) == 1


def test_a_good_frame_after_all_that() -> None:
    """None of them leaves the host in a state where honest packets suffer."""
    scene = Scene()
    scene.listen(80)
    scene.receive(*(frame for frame, _ in DROPPED.values()))
    peer = Peer(scene)
    peer.opens()
    assert scene.app().state == "ESTABLISHED"


@given(st.lists(st.binary(max_size=120), max_size=5), st.binary(max_size=80))
def test_any_octets_at_all(frames: list[bytes], tail: bytes) -> None:
    """No frame raises: alone, behind good Ethernet, behind a good IP header."""
    scene, peer, app = passive()
    good = ethernet.header(OUR_MAC, PEER_MAC, 0x0800)
    scene.receive(*frames, PLAIN + good + tail, PLAIN + good[:12] + b"\x08\x06" + tail)
    for protocol in (1, 6, 17, 99):
        scene.receive(ip_frame(PEER_ADDRESS, OUR_ADDRESS, protocol, tail))
    peer.sends("P.", data=b"unharmed")
    assert app.data.endswith(b"unharmed")


def test_ip_options_are_skipped() -> None:
    """RFC 1122 §3.2.1.8: a host ignores options that it does not know; the packet counts."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    scene.receive(peer.frame("S", options=b""))
    peer.drain()
    segment = tcp.build(THEM, US, 4001, 80, 5, 0, tcp.SYN, 1000)
    other = Peer(scene, 4001, isn=5)
    scene.receive(ip_frame(PEER_ADDRESS, OUR_ADDRESS, 6, segment, options=b"\x07\x07\x04\0\0\0\0"))
    other.expects("S.", ack=1)


def test_ip_options_within_a_connection() -> None:
    """RFC 1122 §3.2.1.8: the long way in leads to the same place."""
    scene, peer, app = passive()
    frame = peer.frame("P.", data=b"optional")
    body = frame[44:]
    scene.receive(ip_frame(PEER_ADDRESS, OUR_ADDRESS, 6, body, options=b"\x01\x01\x01\x00"))
    assert app.data == b"optional"
    peer.expects(".", ack=9)


def test_octets_behind_the_packet_are_padding() -> None:
    """RFC 894: short frames are padded; the IP length counts."""
    scene, peer, app = passive()
    scene.receive(peer.frame("P.", data=b"abc") + b"padding")
    assert app.data == b"abc"


@pytest.mark.parametrize("tos", [0x00, 0x28, 0xB8, 0x02])
def test_type_of_service_is_no_matter(tos: int) -> None:
    """RFC 2474 §3: any DSCP."""
    scene, peer, app = passive()
    scene.receive(peer.frame("P.", data=b"abc", dscp_ecn=tos))
    assert app.data == b"abc"


# ---------------------------------------------------------------------- ICMP


def echo(data: bytes = b"ping", *, dst: str = OUR_ADDRESS, **fields: Any) -> bytes:
    return ip_frame(PEER_ADDRESS, dst, 1, icmp.echo_request(7, 1, data), **fields)


@pytest.mark.parametrize("data", [b"", b"ping", bytes(1472), b"odd"])
def test_echo(data: bytes) -> None:
    """RFC 1122 §3.2.2.6: a host MUST answer, with the same data."""
    scene = Scene()
    scene.receive(echo(data))
    packet = scene.others.pop()
    ip = ipv4.parse(packet, 0, len(packet))
    reply = icmp.parse(packet, ip.payload_at, ip.payload_end)
    assert (ip.src, ip.dst) == (US, THEM)
    assert (reply.type, reply.code, reply.echo_id, reply.echo_seq) == (0, 0, 7, 1)
    assert packet[reply.body_at : reply.body_end] == data
    assert scene.counter("icmp_echo_replies") == 1


def test_echo_to_everybody_is_ignored() -> None:
    """RFC 1122 §3.2.2.6 MAY: nobody shall be made an amplifier."""
    scene = Scene()
    scene.receive(echo(dst="10.0.0.255", to=b"\xff" * 6))
    assert scene.others == []
    assert scene.counter("icmp_ignored") == 1


def test_unknown_protocol() -> None:
    """RFC 1122 §3.2.2.1: protocol unreachable."""
    scene = Scene()
    frame = ip_frame(PEER_ADDRESS, OUR_ADDRESS, 132, b"sctp")
    scene.receive(frame)
    packet = scene.others.pop()
    ip = ipv4.parse(packet, 0, len(packet))
    message = icmp.parse(packet, ip.payload_at, ip.payload_end)
    assert (message.type, message.code) == (3, 2)
    assert packet[message.body_at : message.body_end] == frame[24:]
    assert scene.counter("ip_protocol_unknown") == 1


def test_errors_are_limited_in_rate() -> None:
    """RFC 1812 §4.3.2.8: a burst, then a thousand a second."""
    scene = Scene()
    scene.receive(*(udp_frame(b"", 4000, 9) for _ in range(200)))
    assert len(scene.others) == 50
    assert scene.counter("icmp_rate_limited") == 150
    scene.advance(1 / 64)
    scene.others.clear()
    scene.receive(*(udp_frame(b"", 4000, 9) for _ in range(200)))
    assert len(scene.others) == 15


def test_no_error_about_an_error() -> None:
    """RFC 1122 §3.2.2: never."""
    scene = Scene()
    quoted = ipv4.header(US, THEM, 132, 8) + bytes(8)
    scene.receive(ip_frame(PEER_ADDRESS, OUR_ADDRESS, 1, icmp.build(3, 2, 0, quoted)))
    assert scene.others == []


def test_errors_fit_576_octets() -> None:
    """RFC 1812 §4.3.2.3, RFC 1122 §3.2.2: as much as fits."""
    scene = Scene()
    scene.receive(udp_frame(bytes(1400), 4000, 9))
    assert len(scene.others[0]) == 576


# ---------------------------------------------------------------------- ARP, gateways


def test_the_host_answers_for_its_address() -> None:
    """RFC 826."""
    vif = FakeVif()
    host = Host(vif, random=random.Random(1))
    host.add_address(OUR_ADDRESS + "/24")
    vif.sent.clear()
    host.receive([arp_frame(arp.REQUEST, PEER_ADDRESS, PEER_MAC, OUR_ADDRESS)], 1.0)
    host.receive([arp_frame(arp.REQUEST, PEER_ADDRESS, PEER_MAC, "10.0.0.77")], 1.0)
    assert len(vif.sent) == 1
    answer = arp.parse(vif.sent[0], 24, len(vif.sent[0]))
    assert answer == (arp.REPLY, OUR_MAC, US, PEER_MAC, THEM)


def test_addresses_are_announced() -> None:
    """RFC 5227 §2.3: so that neighbours' caches are right from the start."""
    vif = FakeVif()
    host = Host(vif, random=random.Random(1))
    host.add_address(OUR_ADDRESS + "/24")
    packet = arp.parse(vif.sent[0], 24, len(vif.sent[0]))
    assert (packet.sender, packet.target) == (US, US)


def test_strangers_are_reached_by_the_gateway() -> None:
    """RFC 1122 §3.3.1: its Ethernet address, their IP address."""
    scene = Scene()
    for world in scene.worlds:
        world.host.add_gateway(PEER_ADDRESS)
    scene.listen(80)
    peer = Peer(scene, address="192.0.2.9")
    peer.opens()
    peer.sends("P.", data=b"from afar")
    assert scene.app().data == b"from afar"
    assert scene.app().connection.remote == ("192.0.2.9", 4000)


def test_without_a_gateway_strangers_get_no_answer() -> None:
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene, address="192.0.2.9")
    peer.sends("S")
    peer.expects_nothing()
    assert scene.counter("ip_no_route") == 1


# ---------------------------------------------------------------------- ports


def accept(connection: object) -> User:
    return User({})


def host(*, seed: int = 1, limits: Limits | None = None) -> Host:
    made = Host(FakeVif(), random=random.Random(seed), limits=limits)
    made.add_address(OUR_ADDRESS + "/24")
    made.add_address("10.0.0.3/24")
    return made


@pytest.mark.parametrize(
    ("address", "port", "number"),
    [
        ("", 80, errno.EADDRINUSE),
        (OUR_ADDRESS, 80, errno.EADDRINUSE),
        ("", 81, errno.EADDRINUSE),
        (OUR_ADDRESS, 81, errno.EADDRINUSE),
        ("10.0.0.9", 82, errno.EADDRNOTAVAIL),
    ],
)
def test_listening_is_refused(address: str, port: int, number: int) -> None:
    """RFC 9293 §3.10.1: a port is listened to once; an address must be ours."""
    h = host()
    h.tcp_listen("", 80, accept)
    h.tcp_listen(OUR_ADDRESS, 81, accept)
    with pytest.raises(OSError, match=r".") as raised:
        h.tcp_listen(address, port, accept)
    assert raised.value.errno == number


def test_listening_on_each_address() -> None:
    h = host()
    h.tcp_listen(OUR_ADDRESS, 80, accept)
    h.tcp_listen("10.0.0.3", 80, accept)
    with pytest.raises(OverflowError):
        h.tcp_listen("", 65_536, accept)


def test_a_port_is_free_again_after_close() -> None:
    h = host()
    listener = h.tcp_listen("", 80, accept)
    listener.close()
    listener.close()
    h.tcp_listen("", 80, accept)


class Rigged(random.Random):
    """Draws the same port until it has been asked a few times."""

    def randrange(self, start: int, stop: Any = None, step: int = 1) -> int:
        self.draws = getattr(self, "draws", 0) + 1
        return 0 if self.draws < 5 else 7


def test_a_chosen_port_is_free_on_every_address() -> None:
    """RFC 6056 §3.2: chosen for "any address", it must be free on each of them."""
    for bind in ("tcp", "udp"):
        h = host()
        h.tcp._random = h.udp._random = Rigged()

        def claim(address: str, port: int, h: Host = h, bind: str = bind) -> int:
            if bind == "tcp":
                return h.tcp_listen(address, port, accept).port
            return h.udp_bind(address, port, None).port  # type: ignore[arg-type]

        claim(OUR_ADDRESS, EPHEMERAL_FIRST)
        assert claim("", 0) == EPHEMERAL_FIRST + 7


def test_local_ports_of_connections() -> None:
    """RFC 6056 §3.3.1: drawn at random from 49152 up, another for each connection to one place."""
    h = host()
    user = User({})
    ports = {h.tcp_connect(PEER_ADDRESS, 80, user).local[1] for _ in range(300)}
    assert len(ports) == 300
    assert min(ports) >= EPHEMERAL_FIRST
    assert sorted(ports) != list(range(min(ports), min(ports) + 300))


def test_the_last_free_port_is_found_and_then_there_is_none() -> None:
    """RFC 6056 §3.3.1: the search in order behind the draw."""
    h = host(limits=Limits(connections=1 << 20, per_peer=1 << 20))
    user = User({})
    for port in range(EPHEMERAL_FIRST, 65_536):
        if port != 60_000:
            h.tcp.flows[THEM + US + (80).to_bytes(2) + port.to_bytes(2)] = None  # type: ignore[assignment]
    assert h.tcp_connect(PEER_ADDRESS, 80, user).local[1] == 60_000
    with pytest.raises(OSError, match="no ephemeral port") as raised:
        h.tcp_connect(PEER_ADDRESS, 80, user)
    assert raised.value.errno == errno.EADDRNOTAVAIL
    h.tcp_connect(PEER_ADDRESS, 81, user)


def test_one_pair_of_sockets_one_connection() -> None:
    """RFC 9293 §3.10.1: "connection already exists"."""
    h = host()
    user = User({})
    h.tcp_connect(PEER_ADDRESS, 80, user, local_port=4000)
    with pytest.raises(OSError, match="in use") as raised:
        h.tcp_connect(PEER_ADDRESS, 80, user, local_port=4000)
    assert raised.value.errno == errno.EADDRINUSE
    h.tcp_connect(PEER_ADDRESS, 81, user, local_port=4000)
    h.tcp_connect(PEER_ADDRESS, 80, user, local="10.0.0.3", local_port=4000)


@pytest.mark.parametrize(
    ("remote", "port", "local", "number"),
    [
        ("192.0.2.1", 80, "", errno.ENETUNREACH),
        ("224.0.0.1", 80, "", errno.EADDRNOTAVAIL),
        ("255.255.255.255", 80, "", errno.EADDRNOTAVAIL),
        ("0.0.0.0", 80, "", errno.EADDRNOTAVAIL),
        (PEER_ADDRESS, 0, "", errno.EADDRNOTAVAIL),
        (PEER_ADDRESS, 80, "10.0.0.9", errno.EADDRNOTAVAIL),
        pytest.param(
            "10.0.0.255",
            80,
            "",
            errno.EADDRNOTAVAIL,
        ),
    ],
)
def test_connecting_is_refused(remote: str, port: int, local: str, number: int) -> None:
    """RFC 9293 §3.9.2.3 MUST-46: an OPEN to a broadcast or multicast address is an error."""
    with pytest.raises(OSError, match=r".") as raised:
        host().tcp_connect(remote, port, User({}), local=local)
    assert raised.value.errno == number


def test_connecting_names_the_local_address() -> None:
    """RFC 9293 §3.10.1 MUST-43, MUST-44: the application may choose; else the host does."""
    h = host()
    assert h.tcp_connect(PEER_ADDRESS, 80, User({})).local[0] == OUR_ADDRESS
    assert h.tcp_connect(PEER_ADDRESS, 80, User({}), local="10.0.0.3").local[0] == "10.0.0.3"


# ---------------------------------------------------------------------- turns and timers


def test_the_driver_is_woken_once() -> None:
    """Work queued outside a turn asks for one, and only once."""
    h = host()
    woken: list[int] = []
    h.wake = lambda: woken.append(1)
    for n in range(3):
        h.tcp_connect(PEER_ADDRESS, 80 + n, User({}))
    assert woken == [1]
    h.flush(1.0)
    h.tcp_connect(PEER_ADDRESS, 90, User({}))
    assert woken == [1, 1]


def test_nothing_to_do_no_deadline() -> None:
    """A host that nobody talks to sleeps."""
    h = host()
    h.flush(1.0)
    h.run_timers(h.deadline())  # RFC 5227 §2.3: an address is announced twice
    assert h.deadline() == inf
    assert not h.blocked()


def test_a_host_falls_asleep_again() -> None:
    """After all connections are gone, nothing wakes it but ARP."""
    scene, peer, app = passive()
    app.send(b"x")
    peer.drain()
    peer.sends(".")
    app.abort()
    scene.advance(2000)
    assert scene.host.deadline() == inf


def test_timers_of_connections_that_are_over_wake_nobody() -> None:
    """A busy server's connections end before their timers are due: one look is for them all."""
    scene = Scene()
    scene.listen(80)
    for n in range(5):
        peer = Peer(scene, 4000 + n)
        peer.sends("S")
        peer.expects("S.")
        peer.sends(".")
        scene.app().send(b"x")
        peer.expects("P.", data=b"x")
        peer.sends("R")
        assert scene.app().state == "CLOSED"
        scene.advance(0.01)
    looks = []
    while (at := scene.host.deadline()) < scene.now + 1.5:
        looks.append(at)
        scene.host.run_timers(at)
    # What was sent last, our SYN,ACKs, memory: that of the first, and none of the four after it.
    assert len(looks) <= 3, looks


def test_an_idle_connection_has_nothing_to_do() -> None:
    """Its own timers are all off; the host looks after memory, and no more often than it says."""
    scene, _, _ = passive()
    assert scene.tcp_deadline() == inf


def test_a_batch_is_one_turn() -> None:
    """DESIGN, "How a packet walks": answers of a batch leave once, at its end."""
    scene, peer, app = passive(react={"data": lambda c: c.send(b"z")})
    scene.receive(*(peer.frame(".", data=b"%d" % n) for n in range(5)))
    assert app.data == b"01234"
    peer.expects("P.", ack=6, data=b"zzzzz")
    peer.expects_nothing()


def test_counters_have_names() -> None:
    """Every counter can be shown, and is a number."""
    counters = host().counters.as_dict()
    assert all(isinstance(v, int) for v in counters.values())
    for module in (ethernet, arp, ipv4, icmp, tcp, udp):
        assert set(module.COUNTERS) <= set(counters)


def test_memory_is_bounded_and_the_hoarder_goes_first() -> None:
    """The bound of all connections together: a reset, ConnectionAbortedError, counted."""
    scene = Scene(limits=Limits(memory=100_000))
    scene.listen(80)
    modest, greedy = Peer(scene, 4000, window=0), Peer(scene, 4001, window=0)
    for peer in (modest, greedy):
        peer.opens()
    scene.app(0).send(bytes(1000))
    scene.app(1).send(bytes(200_000))
    scene.advance(3)
    assert isinstance(scene.app(1).error, ConnectionAbortedError)
    assert scene.app(0).state == "ESTABLISHED"
    assert scene.counter("tcp_memory_shed") == 1
    assert any("R" in s.flags for s in greedy.drain())
