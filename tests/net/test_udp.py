"""UDP sockets on a host: who gets a datagram, where answers come from, what is refused."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from appliance.net.stack import Limits
from appliance.net.udp import MAX_PATHS, UdpSocket
from appliance.net.wire import icmp, ipv4, udp
from appliance.net.wire.address import from_text
from tests.net.tcp.harness import (
    OUR_ADDRESS,
    PEER_ADDRESS,
    Both,
    Scene,
    icmp_error,
    ip_frame,
    udp_frame,
)

SECOND = "10.0.0.3"
LONG = b"octets enough to fill a short Ethernet frame"


class Receiver:
    """An application that notes, and answers when told to."""

    def __init__(self, answer: bytes = b"") -> None:
        self.got: list[tuple[bytes, tuple[str, int]]] = []
        self.errors: list[OSError] = []
        self.answer = answer
        self.socket: UdpSocket

    def udp_datagram(self, data: bytes, source: tuple[str, int]) -> None:
        self.got.append((data, source))
        if self.answer:
            self.socket.send(self.answer, source)

    def udp_error(self, error: OSError) -> None:
        self.errors.append(error)


def bound(
    scene: Scene, port: int = 53, *, address: str = "", answer: bytes = b""
) -> tuple[Both, Receiver]:
    """A socket in both worlds; the receiver of the first."""
    receivers = [Receiver(answer) for _ in scene.worlds]
    for world, receiver in zip(scene.worlds, receivers, strict=True):
        receiver.socket = world.host.udp_bind(address, port, receiver)
    return Both(scene, [r.socket for r in receivers]), receivers[0]


def sent(scene: Scene) -> list[tuple[str, int, str, int, bytes]]:
    """Datagrams that left: source, destination, octets."""
    out = []
    for packet in scene.others:
        ip = ipv4.parse(packet, 0, len(packet))
        assert ip.protocol == udp.PROTOCOL
        header = udp.parse(packet, ip.payload_at, ip.payload_end)
        assert header.checksum
        assert udp.verify(packet, ip.payload_at, header, ip.src, ip.dst)
        src, dst = (".".join(map(str, a)) for a in (ip.src, ip.dst))
        data = packet[header.payload_at : header.payload_end]
        out.append((src, header.src_port, dst, header.dst_port, data))
    scene.others.clear()
    return out


def test_datagram_to_an_open_port() -> None:
    """RFC 768; the second takes the short way."""
    scene = Scene()
    _, receiver = bound(scene)
    sizes = [b"first", LONG, LONG[::-1], b""]
    for data in sizes:
        scene.receive(udp_frame(data, 4000, 53))
    assert receiver.got == [(d, (PEER_ADDRESS, 4000)) for d in sizes]
    assert scene.counter("udp_in") == 4


def test_the_answer_leaves_in_the_same_turn() -> None:
    """RFC 1122 §4.1.3.5: from the address and port that were asked."""
    scene = Scene()
    bound(scene, answer=b"here")
    for _ in range(2):
        scene.receive(udp_frame(LONG, 4000, 53))
    assert sent(scene) == [(OUR_ADDRESS, 53, PEER_ADDRESS, 4000, b"here")] * 2


def test_the_answer_leaves_from_the_address_that_was_asked() -> None:
    """RFC 1122 §4.1.3.5: also when one client asks two of our addresses in turn."""
    scene = Scene()
    for world in scene.worlds:
        world.host.add_address(SECOND + "/24")
    scene.step(lambda world: world.host.flush(scene.now))
    bound(scene, answer=b"x")
    asked = [OUR_ADDRESS, SECOND, OUR_ADDRESS, SECOND]
    for address in asked:
        datagram = udp.build(from_text(PEER_ADDRESS), from_text(address), 4000, 53, LONG)
        scene.receive(ip_frame(PEER_ADDRESS, address, udp.PROTOCOL, datagram))
    assert [d[0] for d in sent(scene)] == asked


def test_sending_unasked() -> None:
    """RFC 1122 §4.1.4: our address on the network of the destination, the bound port."""
    scene = Scene()
    socket, _ = bound(scene, 5000)
    socket.do(lambda s: s.send(b"hello", (PEER_ADDRESS, 99)))
    assert sent(scene) == [(OUR_ADDRESS, 5000, PEER_ADDRESS, 99, b"hello")]


def test_sending_to_a_neighbour_not_yet_known() -> None:
    """RFC 1122 §2.3.2.2: kept until ARP has answered; the driver is woken."""
    scene = Scene(arp_answers=False)
    scene.arp_answers = True
    woken: list[int] = []
    for world in scene.worlds:
        world.host.wake = lambda: woken.append(1)
    socket, _ = bound(scene, 5000)
    socket.do(lambda s: s.send(b"hello", (PEER_ADDRESS, 99)), flush=False)
    assert len(woken) == 2
    scene.step(lambda world: world.host.flush(scene.now))
    assert [d[4] for d in sent(scene)] == [b"hello"]


def test_a_neighbour_that_does_not_answer() -> None:
    """RFC 1122 §4.1.3.3: the application hears that its datagram went nowhere."""
    scene = Scene(arp_answers=False)
    socket, receiver = bound(scene, 5000)
    socket.do(lambda s: s.send(b"hello", (PEER_ADDRESS, 99)))
    scene.advance(5)
    assert [e.errno for e in receiver.errors] == [errno.EHOSTUNREACH]
    assert sent(scene) == []


def test_too_long_for_a_packet() -> None:
    """RFC 791 §3.2: what fits goes whole, more goes in fragments, 65,508 octets not at all."""
    scene = Scene()
    socket, _ = bound(scene)
    socket.do(lambda s: s.send(bytes(1472), (PEER_ADDRESS, 99)))
    assert len(sent(scene)[0][4]) == 1472
    socket.do(lambda s: s.send(bytes(1473), (PEER_ADDRESS, 99)))
    pieces = [ipv4.parse(packet, 0, len(packet)) for packet in scene.others]
    assert [(p.total_len, p.flags, p.fragment_offset) for p in pieces] == [
        (1500, ipv4.FLAG_MF, 0), (21, 0, 1480),
    ]  # fmt: skip
    scene.others.clear()
    with pytest.raises(OSError, match="65507 fit") as raised:
        socket.do(lambda s: s.send(bytes(65_508), (PEER_ADDRESS, 99)))
    assert raised.value.errno == errno.EMSGSIZE


@pytest.mark.parametrize("address", ["192.0.2.1", "224.0.0.1", "255.255.255.255", "127.0.0.1"])
def test_no_way_there(address: str) -> None:
    """RFC 1122 §3.3.1: ENETUNREACH."""
    scene = Scene()
    socket, _ = bound(scene)
    with pytest.raises(OSError, match="no route") as raised:
        socket.do(lambda s: s.send(b"x", (address, 99)))
    assert raised.value.errno == errno.ENETUNREACH


def test_the_directed_broadcast_is_no_neighbour() -> None:
    """RFC 1122 §3.2.1.3, §3.3.6: nobody answers ARP for it; refused at the call."""
    scene = Scene()
    socket, _ = bound(scene)
    with pytest.raises(OSError, match=r"."):
        socket.do(lambda s: s.send(b"x", ("10.0.0.255", 99)))


@pytest.mark.parametrize("destination", [("nonsense", 99), ("", 99)])
def test_not_an_address(destination: tuple[str, int]) -> None:
    scene = Scene()
    socket, _ = bound(scene)
    with pytest.raises(ValueError, match=r"."):
        socket.do(lambda s: s.send(b"x", destination))


def test_a_closed_socket() -> None:
    """Its port is free, what comes is unreachable, what is sent is an error."""
    scene = Scene()
    socket, receiver = bound(scene)
    scene.receive(udp_frame(LONG, 4000, 53))
    socket.close()
    socket.close()
    scene.receive(udp_frame(LONG, 4000, 53))
    assert len(receiver.got) == 1
    assert scene.counter("udp_no_port") == 1
    with pytest.raises(OSError, match="closed") as raised:
        socket.do(lambda s: s.send(b"x", (PEER_ADDRESS, 99)))
    assert raised.value.errno == errno.EBADF
    scene.others.clear()
    bound(scene)


def test_a_closed_socket_does_not_answer_old_correspondents() -> None:
    """As above, when it had written to them before."""
    scene = Scene()
    socket, _ = bound(scene)
    socket.do(lambda s: s.send(b"x", (PEER_ADDRESS, 99)))
    socket.close()
    with pytest.raises(OSError, match="closed"):
        socket.do(lambda s: s.send(b"y", (PEER_ADDRESS, 99)))


def test_nobody_at_the_port() -> None:
    """RFC 1122 §4.1.3.1 SHOULD: port unreachable, quoting the datagram (RFC 792)."""
    scene = Scene()
    frame = udp_frame(b"anyone?", 4000, 9)
    scene.receive(frame)
    packet = scene.others.pop()
    ip = ipv4.parse(packet, 0, len(packet))
    message = icmp.parse(packet, ip.payload_at, ip.payload_end)
    assert (message.type, message.code) == (icmp.UNREACHABLE, icmp.UNREACHABLE_PORT)
    assert packet[message.body_at : message.body_end] == frame[24:]
    assert scene.counter("udp_no_port") == 1


def test_errors_reach_the_socket() -> None:
    """RFC 1122 §4.1.3.3: ICMP errors are passed up; not those that say nothing."""
    scene = Scene()
    socket, receiver = bound(scene, 5000)
    socket.do(lambda s: s.send(b"x", (PEER_ADDRESS, 99)))
    quoted = scene.others.pop()
    for kind, code in ((3, 3), (3, 1), (4, 0), (5, 0)):
        scene.receive(icmp_error(kind, code, quoted))
    numbers = [e.errno for e in receiver.errors]
    assert numbers == [errno.ECONNREFUSED, errno.EHOSTUNREACH]


def test_ports_are_claimed() -> None:
    """EADDRINUSE, EADDRNOTAVAIL, OverflowError: as with sockets."""
    host = Scene().host
    user = Receiver()
    host.udp_bind("", 53, user)
    for address, port, number in (
        ("", 53, errno.EADDRINUSE),
        (OUR_ADDRESS, 53, errno.EADDRINUSE),
        ("10.0.0.99", 54, errno.EADDRNOTAVAIL),
    ):
        with pytest.raises(OSError, match=r".") as raised:
            host.udp_bind(address, port, user)
        assert raised.value.errno == number
    with pytest.raises(OverflowError):
        host.udp_bind("", 65_536, user)
    host.udp_bind(OUR_ADDRESS, 55, user)
    with pytest.raises(OSError, match="in use"):
        host.udp_bind("", 55, user)
    chosen = host.udp_bind("", 0, user)
    assert 49_152 <= chosen.port < 65_536


def test_the_more_specific_socket_is_preferred() -> None:
    """Two addresses of ours, a socket each, on one port."""
    scene = Scene()
    for world in scene.worlds:
        world.host.add_address(SECOND + "/24")
    scene.step(lambda world: world.host.flush(scene.now))
    _, first = bound(scene, address=OUR_ADDRESS)
    _, second = bound(scene, address=SECOND)
    scene.receive(udp_frame(b"x", 4000, 53))
    assert [len(r.got) for r in (first, second)] == [1, 0]


def damaged(change: Any) -> bytes:
    frame = bytearray(udp_frame(LONG, 4000, 53))
    change(frame)
    return bytes(frame)


def put(at: int, value: int) -> Any:
    def change(frame: bytearray) -> None:
        frame[at : at + 2] = value.to_bytes(2)

    return change


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("change", "counter"),
    [
        (put(44 + 6, 0xDEAD), "udp_checksum"),
        (put(44 + 4, 7), "udp_length"),
        (put(44 + 4, 100), "udp_length"),
        (put(44 + 4, 0), "udp_length"),
    ],
)
def test_bad_datagrams_are_counted_and_dropped(change: Any, counter: str, known: bool) -> None:
    """RFC 768, RFC 1122 §4.1.3.4: on the first datagram of a flow, and on later ones."""
    scene = Scene()
    _, receiver = bound(scene)
    if known:
        scene.receive(udp_frame(b"good", 4000, 53))
    scene.receive(damaged(change))
    assert len(receiver.got) == known
    assert scene.counter(counter) == 1


@pytest.mark.parametrize("known", [False, True])
def test_a_checksum_of_nought_is_none(known: bool) -> None:
    """RFC 768: "an all zero transmitted checksum value means that the transmitter generated no
    checksum"; RFC 1122 §4.1.3.4 leaves dropping it to the application.
    """
    scene = Scene()
    _, receiver = bound(scene)
    if known:
        scene.receive(udp_frame(b"good", 4000, 53))
    scene.receive(damaged(put(44 + 6, 0)))
    assert receiver.got[-1][0] == LONG


@pytest.mark.parametrize("known", [False, True])
def test_octets_behind_the_datagram_are_padding(known: bool) -> None:
    """RFC 768: its own length counts; Ethernet pads short frames."""
    scene = Scene()
    _, receiver = bound(scene)
    if known:
        scene.receive(udp_frame(b"good", 4000, 53))
    for data in (b"short", LONG):
        scene.receive(udp_frame(data, 4000, 53) + bytes(20))
        assert receiver.got[-1][0] == data
        inner = udp.build(from_text(PEER_ADDRESS), from_text(OUR_ADDRESS), 4000, 53, data)
        scene.receive(ip_frame(PEER_ADDRESS, OUR_ADDRESS, udp.PROTOCOL, inner + b"++++"))
        assert receiver.got[-1][0] == data


def test_flows_and_paths_are_bounded() -> None:
    """Many correspondents: the oldest are forgotten, and answered as well as ever."""
    scene = Scene(limits=Limits(udp_flows=10))
    socket, receiver = bound(scene, answer=b"!")
    for port in range(1000, 1050):
        scene.receive(udp_frame(b"?", port, 53))
    scene.receive(udp_frame(b"?", 1000, 53))
    assert len(receiver.got) == 51
    assert [d[3] for d in sent(scene)] == [*range(1000, 1050), 1000]
    for n in range(MAX_PATHS + 10):
        socket.do(lambda s, n=n: s.send(b"x", (PEER_ADDRESS, 2000 + n)))
    assert len(sent(scene)) == MAX_PATHS + 10
    assert len(receiver.socket._paths) == MAX_PATHS


def test_broadcasts_are_heard_and_not_answered_by_icmp() -> None:
    """RFC 1122 §3.2.2, §4.1.3.6."""
    scene = Scene()
    _, receiver = bound(scene)
    for port in (53, 9):
        datagram = udp.build(from_text(PEER_ADDRESS), from_text("10.0.0.255"), 4000, port, b"all")
        frame = ip_frame(PEER_ADDRESS, "10.0.0.255", udp.PROTOCOL, datagram, to=b"\xff" * 6)
        scene.receive(frame)
    assert [d for d, _ in receiver.got] == [b"all"]
    assert scene.others == []
