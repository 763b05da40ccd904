"""Several stacks that are one host: each frame finds the one that it is for, in virtual time."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from appliance.net.link import Ipv6Settings
from appliance.net.stack import Host
from appliance.net.steer import ASKED, SameSecret, Steer, addressing, follow
from appliance.net.tcp import Connection
from appliance.net.vif.pair import PairEnd, pair
from appliance.net.wire import ethernet
from appliance.net.wire.address import from_text, to_text
from appliance.net.wire.virtio import PLAIN

OURS, PEER, OTHER = "10.0.0.2", "10.0.0.1", "02:00:00:00:00:99"
OURS6, PEER6 = "2001:db8::2", "2001:db8::1"
WEB, DNS = 80, 53


class Sink:
    """A user of a connection, and of datagrams, who keeps what comes."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.errors: list[object] = []

    def tcp_established(self) -> None: ...
    def tcp_eof(self) -> None: ...
    def tcp_writable(self) -> None: ...

    def tcp_data(self, data: bytes) -> None:
        self.got.append(data)

    def tcp_closed(self, error: Exception | None) -> None:
        self.errors.append(error)

    def udp_datagram(self, data: bytes, _source: tuple[str, int]) -> None:
        self.got.append(data)

    def udp_error(self, error: Exception) -> None:
        self.errors.append(error)


class Family:
    """Some hosts that are one, their messages, and scapy in the place of the network."""

    def __init__(self, count: int, room: int = 1000) -> None:
        self.now = 100.0
        self.far: list[PairEnd] = []
        self.hosts: list[Host] = []
        self.steers: list[Steer] = []
        self.messages: list[tuple[int, bytes]] = []
        self.room = room
        self.web: list[Sink] = []
        self.dns: list[Sink] = []
        for index in range(count):
            near, far = pair()
            host = Host(near, random=random.Random(index), tcp_random=SameSecret(b"k" * 16))
            host.use_ipv6(Ipv6Settings(b"s" * 16, autonomous=False, detect=0, follows=index > 0))
            self.far.append(far)
            self.hosts.append(host)
            self.web.append(Sink())
            self.dns.append(Sink())
            host.tcp_listen("", WEB, lambda _connection, index=index: self.web[index])
            host.udp_bind("", DNS, self.dns[index])
            self.steers.append(
                Steer(host, index, count, tcp=[WEB, DNS], udp=[DNS], pass_on=self._pass_on)
            )
        first = self.hosts[0]
        first.add_address(f"{OURS}/24")
        first.add_gateway(PEER)
        first.network.add_address(f"{OURS6}/64")
        self.run(5.0)
        for host in self.hosts[1:]:
            follow(host.network, addressing(first.network))
        for host in self.hosts:
            host.links[0].arp.learn(
                from_text(PEER), ethernet.mac_from_text(OTHER), self.now, create=True
            )
        self.answers()

    def _pass_on(self, worker: int, message: bytes) -> bool:
        if len(self.messages) >= self.room:
            return False
        self.messages.append((worker, message))
        return True

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        for host in self.hosts:
            host.flush(self.now)
        while (due := min(host.deadline() for host in self.hosts)) <= until:
            self.now = max(self.now, due)
            for host in self.hosts:
                host.run_timers(self.now)
        self.now = until

    def put(self, queue: int, packet: Packet, dst: str = "") -> None:
        """A frame comes into a queue, and messages go until there are none."""
        to = dst or ethernet.mac_text(self.hosts[0].vif.mac)
        # The pairs have an address each, and a family one: the frame is written for its reader.
        frames = [bytes(Ether(src=OTHER, dst=to) / packet)]
        self.hosts[queue].receive([PLAIN + frame for frame in frames], self.now)
        self.deliver()

    def deliver(self) -> None:
        while self.messages:
            worker, message = self.messages.pop(0)
            self.steers[worker].taken([message], self.now)

    def answers(self) -> list[list[Packet]]:
        """What left, by queue."""
        left: list[list[Packet]] = []
        for far in self.far:
            packets: list[Packet] = []
            while frames := far.receive(64):
                packets += [Ether(frame[10:]) for frame in frames]
            left.append(packets)
        return left

    def connect(self, queue: int, port: int) -> tuple[int, int]:
        """Open a connection by a queue; the next numbers of ours and theirs."""
        ip = IP(src=PEER, dst=OURS)
        self.put(
            queue, ip / TCP(sport=port, dport=WEB, seq=1000, flags="S", options=[("MSS", 1460)])
        )
        (syn_ack,) = self.answers()[queue]
        assert syn_ack[TCP].flags == "SA"
        self.put(
            queue,
            ip / TCP(sport=port, dport=WEB, seq=1001, ack=syn_ack[TCP].seq + 1, flags="A"),
        )
        return 1001, syn_ack[TCP].seq + 1

    def flows(self) -> list[int]:
        return [
            sum(isinstance(flow, Connection) for flow in host.tcp.flows.values())
            for host in self.hosts
        ]


@pytest.fixture(autouse=True)
def one_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """All queues are of one interface, which has one Ethernet address."""
    import appliance.net.vif.pair as module

    monkeypatch.setattr(module, "derived_mac", lambda _name: b"\x02\0\0\0\0\x01", raising=True)


def test_whoever_gets_the_syn_keeps_the_connection() -> None:
    family = Family(3)
    for queue in range(3):
        seq, ack = family.connect(queue, 5000 + queue)
        tcp = TCP(sport=5000 + queue, dport=WEB, seq=seq, ack=ack, flags="PA")
        family.put(queue, IP(src=PEER, dst=OURS) / tcp / b"GET")
        assert family.web[queue].got == [b"GET"]
    assert family.flows() == [1, 1, 1]
    assert not any(steer.asked or steer.handed_over for steer in family.steers)


def test_a_segment_in_the_wrong_queue_finds_its_flow() -> None:
    """Asked around in order; answered by whoever has the connection, by that one's queue."""
    family = Family(3)
    seq, ack = family.connect(2, 6000)
    tcp = TCP(sport=6000, dport=WEB, seq=seq, ack=ack, flags="PA")
    family.put(0, IP(src=PEER, dst=OURS) / tcp / b"lost?")
    assert family.web[2].got == [b"lost?"]
    assert (family.steers[0].asked, family.steers[2].taken_over) == (1, 1)
    family.run(0.5)
    left = family.answers()
    assert [len(some) for some in left] == [0, 0, 1]
    assert left[2][0][TCP].ack == seq + 5


@pytest.mark.parametrize("queue", [0, 1])
def test_a_flow_that_nobody_knows_is_reset_once(queue: int) -> None:
    """RFC 9293 §3.10.7.1: of a worker that died, say; by whoever got the segment."""
    family = Family(3)
    tcp = TCP(sport=6001, dport=WEB, seq=7, ack=99, flags="A")
    family.put(queue, IP(src=PEER, dst=OURS) / tcp)
    left = family.answers()
    assert [len(some) for some in left] == [int(index == queue) for index in range(3)]
    assert left[queue][0][TCP].flags == "R"
    assert left[queue][0][TCP].seq == 99


def test_a_flood_of_strays_is_answered_without_asking() -> None:
    """The others are asked a bounded number of times a second."""
    family = Family(2, room=1 << 20)
    resets = 0
    for port in range(ASKED + 50):
        family.put(1, IP(src=PEER, dst=OURS) / TCP(sport=1024 + port, dport=WEB, ack=9, flags="A"))
        resets += sum(packet[TCP].flags == "R" for packet in family.answers()[1])
    assert family.steers[1].asked == ASKED
    assert resets == ASKED + 50
    family.run(1.0)
    family.put(1, IP(src=PEER, dst=OURS) / TCP(sport=9, dport=WEB, ack=9, flags="A"))
    assert family.steers[1].asked == ASKED + 1


def test_the_first_answers_for_the_host() -> None:
    """RFC 826, RFC 1122 §3.2.2.6, RFC 4861 §7.2.4: ARP, echo, discovery, from whatever queue."""
    family = Family(2)
    family.put(1, ARP(op=1, hwsrc=OTHER, psrc=PEER, pdst=OURS), dst="ff:ff:ff:ff:ff:ff")
    family.put(1, IP(src=PEER, dst=OURS) / ICMP(type=8, id=1, seq=1) / b"ping")
    group = "ff02::1:ff00:2"
    solicit = ICMPv6ND_NS(tgt=OURS6) / ICMPv6NDOptSrcLLAddr(lladdr=OTHER)
    family.put(1, IPv6(src=PEER6, dst=group, hlim=255) / solicit, dst="33:33:ff:00:00:02")
    left = family.answers()
    assert left[1] == []
    assert left[0][0][ARP].psrc == OURS
    assert left[0][1][ICMP].type == 0
    assert left[0][2].type == 0x86DD
    assert family.steers[1].handed_over == 3


def test_what_only_the_first_serves_is_handed_over() -> None:
    """Its other listeners, connections that it opened itself, and datagrams to other ports."""
    family = Family(2)
    user = Sink()
    connection = family.hosts[0].tcp_connect(PEER, 53, user)
    family.run(0.0)
    syn = family.answers()[0][0][TCP]
    answer = TCP(sport=53, dport=syn.sport, seq=1, ack=syn.seq + 1, flags="SA")
    family.put(1, IP(src=PEER, dst=OURS) / answer)
    assert connection.state_name == "ESTABLISHED"
    asked = Sink()
    family.hosts[0].udp_bind("", 4000, asked)
    family.put(1, IP(src=PEER, dst=OURS) / UDP(sport=53, dport=4000) / b"answer")
    assert asked.got == [b"answer"]
    family.put(1, IP(src=PEER, dst=OURS) / UDP(sport=999, dport=DNS) / b"query")
    assert family.dns[1].got == [b"query"]
    assert family.dns[0].got == []


def test_strangers_are_answered_where_they_ask() -> None:
    """By each worker's own socket; those to other ports by the first's."""
    family = Family(2)
    for host in family.hosts:
        socket = host.udp.socket(b"", DNS)
        assert socket is not None
        socket.answer_by(lambda data, source: data, _raise)
    family.hosts[0].udp_bind("", 4000, Sink()).answer_by(lambda data, source: data, _raise)
    text = b"a question of a resolver"
    for queue in (0, 1):
        for port in (7000, 7001):
            family.put(queue, IP(src=PEER, dst=OURS) / UDP(sport=port, dport=DNS) / text)
            left = family.answers()
            assert [len(packets) for packets in left] == [1 - queue, queue]
            assert (left[queue][0][UDP].dport, bytes(left[queue][0][UDP].payload)) == (port, text)
    assert family.steers[1].handed_over == 0
    family.put(1, IP(src=PEER, dst=OURS) / UDP(sport=7000, dport=4000) / text)
    assert [len(packets) for packets in family.answers()] == [1, 0]
    assert family.steers[1].handed_over == 1


def _raise(error: Exception) -> None:
    raise error


def test_fragments_meet_at_the_first_and_go_where_they_belong() -> None:
    """RFC 791: of a segment for a connection of another worker."""
    family = Family(2)
    seq, ack = family.connect(1, 6100)
    whole = IP(src=PEER, dst=OURS, id=5) / TCP(
        sport=6100, dport=WEB, seq=seq, ack=ack, flags="PA"
    ) / Raw(b"x" * 1000)  # fmt: skip
    octets = bytes(whole)[20:]
    first = IP(src=PEER, dst=OURS, id=5, flags="MF", proto=6) / Raw(octets[:504])
    second = IP(src=PEER, dst=OURS, id=5, frag=63, proto=6) / Raw(octets[504:])
    family.put(0, first)
    family.put(1, second)
    assert family.web[1].got == [b"x" * 1000]


def test_several_links() -> None:
    """What is handed over, told and followed is of the link that it came by."""
    family = Family(2)
    seconds = []
    for host in family.hosts:
        near, far = pair(names=("second", "its-peer"))
        host.add_vif(near)
        seconds.append(far)
    first, other = family.hosts
    first.network.add_address("10.1.0.2/24", first.links[1])
    follow(other.network, addressing(first.network))
    on_second = other.addresses.of(other.links[1])
    assert [to_text(own.address) for own in on_second] == ["10.1.0.2"]
    assert [own.link for own in other.addresses.of(other.links[0])] == [other.links[0]] * 3
    # A question comes to the other worker; it is answered by the first, on the second link.
    question = ARP(op=1, hwsrc=OTHER, psrc="10.1.0.1", pdst="10.1.0.2")
    frame = PLAIN + bytes(Ether(src=OTHER, dst="ff:ff:ff:ff:ff:ff") / question)
    first.flush(family.now)
    for far in (*seconds, *family.far):
        far.receive(64)
    other.receive([frame], family.now, other.links[1])
    family.deliver()
    (answer,) = seconds[0].receive(64)
    assert Ether(answer[10:])[ARP].psrc == "10.1.0.2"
    assert seconds[1].receive(64) == family.far[0].receive(64) == []
    # A neighbour's answer comes to the first, and is told to the other, on that link.
    other.links[1].arp.lookup(from_text("10.1.0.1"), family.now)
    reply = ARP(op=2, hwsrc=OTHER, psrc="10.1.0.1", pdst="10.1.0.2")
    frame = PLAIN + bytes(Ether(src=OTHER, dst=ethernet.mac_text(first.links[1].mac)) / reply)
    first.receive([frame], family.now, first.links[1])
    family.deliver()
    assert [n.mac for n in other.links[1].arp.entries()] == [ethernet.mac_from_text(OTHER)]
    assert from_text("10.1.0.1") not in [n.address for n in other.links[0].arp.entries()]
    # A stray on the second link is asked around and comes back there.
    stray = IP(src="10.1.0.1", dst="10.1.0.2") / TCP(sport=7, dport=WEB, flags="A", ack=1)
    frame = PLAIN + bytes(Ether(src=OTHER, dst=ethernet.mac_text(other.links[1].mac)) / stray)
    seconds[1].receive(64)  # the question above
    other.receive([frame], family.now, other.links[1])
    family.deliver()
    (reset,) = seconds[1].receive(64)
    assert Ether(reset[10:])[TCP].flags == "R"


def test_everybody_hears_errors_and_neighbours() -> None:
    """RFC 5927 §4: an error is believed by whoever has the flow; RFC 826: so is an answer."""
    family = Family(3)
    family.connect(1, 6200)
    connection = next(iter(family.hosts[1].tcp.flows.values()))
    assert isinstance(connection, Connection)
    connection.send(b"y" * 1400)
    family.run(0.0)
    quoted = Raw(bytes(family.answers()[1][-1][IP])[:28])
    family.put(2, IP(src=PEER, dst=OURS) / ICMP(type=3, code=4, nexthopmtu=1300) / quoted)
    known = [h.network.mtu_of(h.links[0], from_text(PEER)) for h in family.hosts]
    assert known == [1500, 1300, 1500]
    wanted = family.hosts[1].links[0].arp.lookup(from_text("10.0.0.7"), family.now)
    family.hosts[1].links[0].arp.enqueue(wanted, bytes(24))  # somebody asks who that is
    family.put(2, ARP(op=2, hwsrc=OTHER, psrc="10.0.0.7", pdst=OURS), dst=_mac(family))
    assert wanted.mac == ethernet.mac_from_text(OTHER)


def test_ports_can_be_left_to_the_first() -> None:
    """As while a certificate authority looks for a proof there (RFC 8555 §8.3)."""
    family = Family(2)
    family.connect(1, 6250)
    family.steers[1].leave([WEB])
    family.put(1, IP(src=PEER, dst=OURS) / TCP(sport=6251, dport=WEB, seq=1, flags="S"))
    left = family.answers()
    assert [len(some) for some in left] == [1, 0]
    tcp = TCP(sport=6251, dport=WEB, seq=2, ack=left[0][0][TCP].seq + 1, flags="A")
    family.put(1, IP(src=PEER, dst=OURS) / tcp)
    assert family.flows() == [1, 1]
    family.steers[1].leave([])
    tcp.flags = "PA"
    family.put(1, IP(src=PEER, dst=OURS) / tcp / b"GET")
    assert family.web[0].got == [b"GET"]
    family.connect(1, 6252)
    assert family.flows() == [1, 2]


def test_a_full_channel_loses_the_frame_and_counts_it() -> None:
    family = Family(2, room=0)
    family.put(1, IP(src=PEER, dst=OURS) / ICMP(type=8, id=1, seq=1))
    assert family.steers[1].lost == 1
    assert family.answers() == [[], []]


def test_addresses_come_and_go_as_at_the_first() -> None:
    """And the connections from one that is gone end (RFC 5227 §2.4)."""
    family = Family(2)
    family.connect(1, 6300)
    first = family.hosts[0]
    first.add_address("10.0.9.2/24")
    follow(family.hosts[1].network, addressing(first.network))
    assert set(family.hosts[1].addresses.local) == set(first.addresses.local)
    first.network.address_lost(from_text(OURS))
    follow(family.hosts[1].network, addressing(first.network))
    assert from_text(OURS) not in family.hosts[1].addresses.local
    assert family.flows() == [0, 0]
    assert isinstance(family.web[1].errors[0], OSError)


def test_a_follower_asks_nobody_for_addresses() -> None:
    """RFC 4862 §5.4, RFC 4861 §6.3.7: no probes nor solicitations but the first's."""
    near, far = pair()
    host = Host(near, random=random.Random(1))
    host.use_ipv6(Ipv6Settings(b"s" * 16, autonomous=True, follows=True))
    host.flush(0.0)
    for now in (1.0, 5.0, 20.0):
        host.run_timers(now)
    assert far.receive(64) == []


def test_secrets_are_the_same_and_chance_is_not() -> None:
    """RFC 6528 §3: numbers of one flow go on in whoever takes a worker's place."""
    one, two = SameSecret(b"a" * 16), SameSecret(b"a" * 16)
    assert one.randbytes(16) == two.randbytes(16)
    assert one.randbytes(16) != two.randbytes(16)
    assert SameSecret(b"b" * 16).randbytes(16) != SameSecret(b"a" * 16).randbytes(16)


def _mac(family: Family) -> str:
    return ethernet.mac_text(family.hosts[0].vif.mac)
