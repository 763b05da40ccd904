"""Answers that leave at the end of a turn, many in one frame where the link takes that."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.path6 import Ipv6UdpPath, Labels
from appliance.net.udp import UdpSocket
from appliance.net.vif.offload import finish_checksum
from appliance.net.wire import ethernet, ipv4, udp, virtio
from appliance.net.wire.address import from_text
from tests.net.tcp.harness import OUR_ADDRESS, PEER_ADDRESS, Scene, udp_frame

MTU = 1500
FITS = MTU - ipv4.HEADER_LEN - udp.HEADER_LEN


class Echo:
    """Answers with as many octets as it is asked for; keeps what its socket tells it."""

    def __init__(self) -> None:
        self.socket: UdpSocket
        self.received: list[bytes] = []
        self.errors: list[OSError] = []
        self.failures: list[Exception] = []

    def udp_datagram(self, data: bytes, source: tuple[str, int]) -> None:
        self.received.append(data)

    def udp_error(self, error: OSError) -> None:
        self.errors.append(error)

    def failed(self, error: Exception) -> None:
        self.failures.append(error)

    def answer(self, data: bytes, source: tuple[str, int]) -> bytes | None:
        if data == b"nothing":
            return None
        if data == b"close":
            self.socket.close()
        length, _, mark = data.partition(b" ")
        return mark[:1] * int(length)


def scene(segments: int = 64) -> tuple[Scene, list[list[bytes]], Echo]:
    """A host whose port 53 answers, what it sends (per turn a list of frames), and the answerer."""
    made = Scene(udp_segments=segments)
    echoes = []
    for world in made.worlds:
        echo = Echo()
        echo.socket = world.host.udp_bind("", 53, echo)
        echo.socket.answer_by(echo.answer, echo.failed)
        echoes.append(echo)
    turns: list[list[bytes]] = []
    sort = made._sort

    def keep(frame: bytes) -> None:
        if frame[virtio.VNET_HDR_LEN + 12 :][:2] == ethernet.ETHERTYPE_IPV4.to_bytes(2):
            turns[-1].append(frame)
        else:
            sort(frame)

    made._sort = keep  # type: ignore[method-assign]
    ask(made, turns, (b"1 .", 1))  # from now on the neighbour is known
    return made, turns, echoes[0]


def ask(made: Scene, turns: list[list[bytes]], *questions: tuple[bytes, int]) -> list[bytes]:
    turns.append([])
    made.receive(*(udp_frame(data, port, 53) for data, port in questions))
    return turns[-1]


def cut(frame: bytes) -> list[bytes]:
    """What a kernel makes of a frame: the payloads, checked (VIRTIO 1.2 §5.1.6.2)."""
    vnet = virtio.parse(frame)
    ip = ipv4.parse(frame, 24, len(frame))
    header = udp.parse(frame, ip.payload_at, ip.payload_end)
    assert header.payload_end == ip.payload_end == len(frame)
    assert udp.verify(finish_checksum(frame), ip.payload_at, header, ip.src, ip.dst)
    payload = frame[header.payload_at :]
    if vnet.gso_type == virtio.GSO_NONE:
        return [payload]
    assert vnet.gso_type == virtio.GSO_UDP_L4
    assert vnet.hdr_len == 42
    assert (vnet.csum_start, vnet.csum_offset) == (34, 6)
    assert 0 < vnet.gso_size < len(payload)  # else the kernel calls it invalid
    assert vnet.gso_size <= FITS
    return [payload[at : at + vnet.gso_size] for at in range(0, len(payload), vnet.gso_size)]


def test_answers_of_a_turn_leave_together() -> None:
    made, turns, _ = scene()
    first = ask(made, turns, (b"50 a", 4000))
    assert [cut(frame) for frame in first] == [[b"a" * 50]]
    frames = ask(made, turns, (b"50 a", 4000), (b"50 b", 4000), (b"nothing", 4000), (b"40 c", 4000))
    assert [cut(frame) for frame in frames] == [[b"a" * 50, b"b" * 50, b"c" * 40]]
    assert made.counter("udp_out") == 5


def test_each_correspondent_has_its_own() -> None:
    made, turns, _ = scene()
    frames = ask(made, turns, *((b"30 x", port) for port in (4000, 4001, 4000, 4001)))
    assert [cut(frame) for frame in frames] == [[b"x" * 30] * 2] * 2
    ports = [udp.parse(frame, 44, len(frame)).dst_port for frame in frames]
    assert ports == [4000, 4001]


def test_a_link_that_does_not_cut_datagrams_gets_each_alone() -> None:
    made, turns, _ = scene(segments=0)
    frames = ask(made, turns, *((b"30 x", 4000) for _ in range(5)))
    assert [cut(frame) for frame in frames] == [[b"x" * 30]] * 5


def test_answers_that_need_fragments_stand_alone() -> None:
    """RFC 791 §3.2: no piece of a super-datagram is longer than the path takes."""
    made, turns, echo = scene()
    asked = [b"%d x" % size for size in (FITS + 1, FITS, FITS, 65_508)]
    frames = ask(made, turns, *((data, 4000) for data in asked))
    assert [len(frame) for frame in frames[:2]] == [24 + MTU, 24 + 20 + 1]
    assert cut(frames[2]) == [b"x" * FITS] * 2
    assert [error.errno for error in echo.errors] == [errno.EMSGSIZE]


def test_what_an_answerer_raises_costs_one_answer() -> None:
    made, turns, echo = scene()
    frames = ask(made, turns, (b"10 a", 4000), (b"broken", 4000), (b"10 b", 4000))
    assert [cut(frame) for frame in frames] == [[b"a" * 10, b"b" * 10]]
    assert [type(error) for error in echo.failures] == [ValueError]


def test_a_socket_closed_by_its_answerer() -> None:
    made, turns, _ = scene()
    frames = ask(made, turns, (b"10 a", 4000), (b"close", 4000), (b"10 b", 4000))
    assert cut(frames[-1]) == [b"a" * 10]
    assert made.counter("udp_no_port") == 1


def test_without_an_answerer_the_user_is_told_again() -> None:
    made, turns, echo = scene()
    for world in made.worlds:
        socket = world.host.udp.socket(b"", 53)
        assert socket is not None
        socket.answer_by(None, echo.failed)
    assert ask(made, turns, (b"10 a", 4000)) == []
    assert echo.received == [b"10 a"]


def test_a_neighbour_that_is_not_known_yet() -> None:
    """RFC 1122 §2.3.2.2: the answers wait for ARP one by one, and none is lost."""
    made = Scene(udp_segments=64, arp_answers=False)
    made.arp_answers = True
    for world in made.worlds:
        echo = Echo()
        world.host.udp_bind("", 53, echo).answer_by(echo.answer, echo.failed)
    made.receive(udp_frame(b"9 a", 4000, 53), udp_frame(b"9 b", 4000, 53))
    assert [packet[28:] for packet in made.others] == [b"a" * 9, b"b" * 9]


@given(
    sizes=st.lists(st.sampled_from([0, 1, 2, 40, 41, 500, 1000, FITS]), max_size=64),
    segments=st.sampled_from([0, 1, 2, 3, 64]),
)
def test_whatever_is_answered_arrives(sizes: list[int], segments: int) -> None:
    """No answer is lost, changed or doubled, however they are put together."""
    made, turns, _ = scene(segments)
    asked = [b"%d %c" % (size, 65 + number) for number, size in enumerate(sizes)]
    frames = ask(made, turns, *((data, 4000) for data in asked))
    pieces = [cut(frame) for frame in frames]
    wanted = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    assert sorted(answer for piece in pieces for answer in piece) == sorted(wanted)
    assert all(len(piece) <= max(segments, 1) for piece in pieces)
    assert all(len(frame) <= 24 + 65_535 for frame in frames)
    assert made.counter("udp_out") == len(sizes) + 1


@pytest.mark.parametrize("known", [False, True])
def test_the_source_is_told(known: bool) -> None:
    made = Scene()
    told: list[tuple[str, int]] = []
    for world in made.worlds:
        socket = world.host.udp_bind(OUR_ADDRESS, 53, Echo())
        socket.answer_by(lambda data, source: told.append(source), told.append)  # type: ignore[arg-type]
    for _ in range(1 + known):
        made.receive(udp_frame(b"?", 4000, 53))
    assert set(told) == {(PEER_ADDRESS, 4000)}


def test_super_datagrams_over_ipv6() -> None:
    """VIRTIO 1.2 §5.1.6.2: the same header, forty octets of IP."""
    here, there = from_text("2001:db8::2"), from_text("2001:db8::1")

    class Known:
        mac = b"\2" * 6

    labels = Labels(b"secret")
    path = Ipv6UdpPath(Known(), b"\4" * 6, here, there, 53, 4000, MTU, 64, labels)  # type: ignore[arg-type]
    frame = path.super_head(7, 3) + b"aaabbbc"
    vnet = virtio.parse(frame)
    assert vnet == (virtio.NEEDS_CSUM, virtio.GSO_UDP_L4, 62, 3, 54, 6)
    assert frame[virtio.VNET_HDR_LEN : 64] == path.head(7)[virtio.VNET_HDR_LEN : 64]
    header = udp.parse(frame, 64, len(frame))
    assert udp.verify(finish_checksum(frame), 64, header._replace(checksum=1), here, there)
