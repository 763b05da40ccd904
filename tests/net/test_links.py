"""Several links in one host, and an address that is asked for before it is used (RFC 5227 §2.1)."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6NDOptRDNSS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from appliance.net.link import Ipv6Settings, Link
from appliance.net.stack import Host
from appliance.net.vif.pair import PairEnd, pair
from appliance.net.wire import ethernet
from appliance.net.wire.address import from_text
from appliance.net.wire.virtio import PLAIN

OTHER = "02:00:00:00:00:99"


class Ports:
    """A host with as many links as there are networks, and scapy at the other end of each."""

    def __init__(self, *cidrs: str, probe: bool = False) -> None:
        self.now = 100.0
        self.vifs: list[PairEnd] = []
        self.far: list[PairEnd] = []
        for _ in cidrs or ("",):
            near, far = pair()
            self.vifs.append(near)
            self.far.append(far)
        self.host = Host(self.vifs[0], random=random.Random(5))
        for vif in self.vifs[1:]:
            self.host.add_vif(vif)
        self.conflicts: list[tuple[str, str, bool]] = []
        self.host.network.on_conflict.append(lambda *told: self.conflicts.append(told))
        for link, cidr in zip(self.host.links, cidrs, strict=False):
            self.host.network.add_address(cidr, link, probe)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        self.host.flush(self.now)
        while (due := self.host.deadline()) <= until:
            self.now = max(self.now, due)
            self.host.run_timers(self.now)
        self.now = until

    def put(self, number: int, packet: Packet, dst: str = "") -> None:
        to = dst or ethernet.mac_text(self.vifs[number].mac)
        frame = PLAIN + bytes(Ether(src=OTHER, dst=to) / packet)
        self.host.receive([frame], self.now, self.link(number))

    def link(self, number: int) -> Link:
        return self.host.links[number]

    def taken(self, number: int) -> list[Packet]:
        packets: list[Packet] = []
        while frames := self.far[number].receive(64):
            packets += [Ether(frame[10:]) for frame in frames]
        return packets

    def learn(self, number: int, address: str) -> None:
        mac = ethernet.mac_from_text(OTHER)
        self.link(number).arp.learn(from_text(address), mac, self.now, create=True)

    def ours(self) -> list[bytes]:
        return list(self.host.addresses.local)


def test_an_answer_leaves_by_the_link_of_its_address() -> None:
    """RFC 1122 §3.3.4.2, the strong model: whatever the default route says, if the link can."""
    ports = Ports("10.0.0.2/24", "10.1.0.2/24")
    ports.host.add_gateway("10.0.0.1", ports.link(0))
    ports.host.add_gateway("10.1.0.1", ports.link(1))
    ports.run(5.0)
    for number in (0, 1):
        ports.learn(number, f"10.{number}.0.1")
        ports.taken(number)
    far = "192.0.2.7"
    ports.put(1, IP(src=far, dst="10.1.0.2") / ICMP(id=5, seq=6))
    assert ports.taken(0) == []
    (reply,) = ports.taken(1)
    assert (reply[IP].src, reply[IP].dst, reply[ICMP].type) == ("10.1.0.2", far, 0)
    # Ours of the other link by this one: the answer goes where its address lives.
    ports.put(1, IP(src=far, dst="10.0.0.2") / ICMP(id=5, seq=7))
    (reply,) = ports.taken(0)
    assert reply[IP].src == "10.0.0.2"
    # A link without a way there leaves it to the others.
    ports.host.network.routes.remove(lambda r: r.gateway == from_text("10.1.0.1"))
    ports.put(1, IP(src=far, dst="10.1.0.2") / ICMP(id=5, seq=8))
    (reply,) = ports.taken(0)
    assert reply[IP].src == "10.1.0.2"


def test_an_address_is_answered_for_on_its_own_link() -> None:
    """RFC 826, "Packet Reception": am I the target, on this cable?"""
    ports = Ports("10.0.0.2/24", "10.1.0.2/24")
    ports.run(5.0)
    for number in (0, 1):
        ports.taken(number)
        for asked in ("10.0.0.2", "10.1.0.2"):
            question = ARP(op=1, hwsrc=OTHER, psrc=f"10.{number}.0.9", pdst=asked)
            ports.put(number, question, dst="ff:ff:ff:ff:ff:ff")
        (answer,) = ports.taken(number)
        assert answer[ARP].psrc == f"10.{number}.0.2"


def test_datagrams_answer_by_their_link() -> None:
    """RFC 1122 §4.1.3.5: from the address that was asked, which decides the link."""
    ports = Ports("10.0.0.2/24", "10.1.0.2/24")
    ports.host.add_gateway("10.0.0.1", ports.link(0))
    ports.host.add_gateway("10.1.0.1", ports.link(1))
    ports.run(5.0)
    for number in (0, 1):
        ports.learn(number, f"10.{number}.0.1")
        ports.taken(number)
    ports.put(1, IP(src="192.0.2.7", dst="10.1.0.2") / UDP(sport=9, dport=99) / b"x")
    (refused,) = ports.taken(1)  # port unreachable, by the same door
    assert (refused[IP].src, refused[ICMP].code) == ("10.1.0.2", 3)
    assert ports.taken(0) == []


def test_a_given_address_is_probed_for() -> None:
    """RFC 5227 §2.1: MUST be tested before use; three probes, silence, then ours and announced."""
    ports = Ports("10.0.0.2/24", probe=True)
    ports.host.add_gateway("10.0.0.1")  # the network is known before the address is ours
    ports.run(0.0)
    assert ports.ours() == []
    ports.run(3.0)
    assert ports.ours() == []
    ports.run(4.0)
    assert ports.ours() == [from_text("10.0.0.2")]
    sent = [p[ARP] for p in ports.taken(0)]
    # RFC 5227 §2.1.1: a probe has an all-zero sender, so that nobody's cache is spoilt.
    assert [(p.psrc, p.pdst) for p in sent[:3]] == [("0.0.0.0", "10.0.0.2")] * 3
    assert (sent[3].psrc, sent[3].pdst) == ("10.0.0.2", "10.0.0.2")
    ports.run(3.0)
    assert len(ports.taken(0)) == 1  # the second announcement
    assert ports.conflicts == []


def test_nothing_is_answered_while_probing() -> None:
    """RFC 5227 §2.1: until it is known to be free, the address is nobody's here."""
    ports = Ports("10.0.0.2/24", probe=True)
    ports.run(2.0)
    ports.taken(0)
    question = ARP(op=1, hwsrc=OTHER, psrc="10.0.0.9", pdst="10.0.0.2")
    ports.put(0, question, dst="ff:ff:ff:ff:ff:ff")
    ports.put(0, IP(src="10.0.0.9", dst="10.0.0.2") / ICMP())
    assert ports.taken(0) == []


@pytest.mark.parametrize("how", ["answer", "probe"])
def test_a_given_address_that_somebody_has(how: str) -> None:
    """RFC 5227 §2.1.1: MUST NOT be used, the operator hears it; a minute later it is tried again.

    An ARP packet from the address, or somebody else's probe for it, is the conflict.
    """
    ports = Ports("10.0.0.2/24", probe=True)
    ports.run(1.5)
    sender = "10.0.0.2" if how == "answer" else "0.0.0.0"
    target = "10.0.0.9" if how == "answer" else "10.0.0.2"
    ports.put(0, ARP(op=1, hwsrc=OTHER, psrc=sender, pdst=target), dst="ff:ff:ff:ff:ff:ff")
    assert ports.conflicts == [("10.0.0.2", OTHER, False)]
    assert ports.host.counters.arp_address_conflicts == 1
    ports.taken(0)
    ports.run(58.0)
    assert ports.taken(0) == []
    assert ports.ours() == []
    ports.run(12.0)
    assert ports.ours() == [from_text("10.0.0.2")]


def test_without_a_probe_it_is_ours_at_once() -> None:
    """RFC 5227 §2.3, §2.4 (c): announced, and defended for good."""
    ports = Ports("10.0.0.2/24")
    assert ports.ours() == [from_text("10.0.0.2")]
    announced = ports.taken(0)
    assert [(p[ARP].psrc, p[ARP].pdst) for p in announced] == [("10.0.0.2", "10.0.0.2")]
    ports.run(5.0)
    ports.taken(0)
    for _ in range(3):
        rival = ARP(op=2, hwsrc=OTHER, psrc="10.0.0.2", pdst="10.0.0.9")
        ports.put(0, rival, dst="ff:ff:ff:ff:ff:ff")
    assert [p[ARP].psrc for p in ports.taken(0)] == ["10.0.0.2"]  # once in ten seconds
    assert ports.conflicts == [("10.0.0.2", OTHER, True)]
    assert ports.ours() == [from_text("10.0.0.2")]


def test_advertised_resolvers_are_told() -> None:
    """RFC 8106 §5.3.1: kept with their lifetimes, of every link, for whoever looks names up."""
    ports = Ports("10.0.0.2/24")
    options: Any = {"autonomous": True}
    ports.host.use_ipv6(Ipv6Settings(b"s" * 16, **options))
    ports.run(3.0)
    assert ports.host.network.resolvers() == []
    ra = IPv6(src="fe80::9", dst="ff02::1", hlim=255) / ICMPv6ND_RA()
    servers = ["2001:db8::53", "fe80::53"]
    ports.put(0, ra / ICMPv6NDOptRDNSS(dns=servers, lifetime=600), dst="33:33:00:00:00:01")
    assert ports.host.network.resolvers() == servers
    ports.run(601.0)
    assert ports.host.network.resolvers() == []
