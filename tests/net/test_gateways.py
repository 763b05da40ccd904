"""Several gateways on a link, of which one is dead: what goes by it goes by another (RFC 1122)."""

from __future__ import annotations

import errno

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6NDOptDstLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP
from scapy.packet import Packet

from appliance.net.tcb import TcpSettings
from appliance.net.wire import ethernet
from appliance.net.wire.address import from_text, to_text
from tests.net.tcp.harness import User
from tests.net.test_links import OTHER, Ports
from tests.net.test_network6 import Inbox

FAR = {4: "192.0.2.7", 6: "2001:db8:ffff::7"}
OURS = {4: "10.0.0.2", 6: "2001:db8::2"}
FIRST = {4: "10.0.0.1", 6: "fe80::1"}
SECOND = {4: "10.0.0.9", 6: "fe80::9"}


def host(family: int, *gateways: str) -> Ports:
    """A host with gateways, of which it knows the MAC of the second alone."""
    ports = Ports(f"{OURS[family]}/{24 if family == 4 else 64}")
    ports.run(5.0)
    for gateway in gateways:
        ports.host.add_gateway(gateway)
    hears(ports, family)
    ports.taken(0)
    return ports


def hears(ports: Ports, family: int) -> None:
    """The second gateway is heard of."""
    if family == 4:
        ports.learn(0, SECOND[family])
    else:
        mac = ethernet.mac_from_text(OTHER)
        ports.link(0).nd.heard(from_text(SECOND[family]), mac, ports.now, create=True)


def ping(ports: Ports, family: int) -> list[Packet]:
    """What somebody far away is sent at once when it asks for an echo."""
    if family == 4:
        ports.put(0, IP(src=FAR[4], dst=OURS[4]) / ICMP())
        return [p for p in ports.taken(0) if ICMP in p]
    ports.put(0, IPv6(src=FAR[6], dst=OURS[6]) / ICMPv6EchoRequest())
    return [p for p in ports.taken(0) if ICMPv6EchoReply in p]


def gateways(ports: Ports) -> list[str]:
    """In the order in which they are taken."""
    return [to_text(r.gateway) for r in ports.host.network.routes if r.gateway is not None]


@pytest.mark.parametrize("family", [4, 6])
def test_what_a_dead_gateway_does_not_take_goes_by_another(family: int) -> None:
    """RFC 1122 §3.3.1.4, §3.3.1.6 (MUST choose an alternate); RFC 4861 §6.3.6."""
    ports = host(family, FIRST[family], SECOND[family])
    assert ping(ports, family) == []
    ports.run(2.9)
    hears(ports, family)
    ports.taken(0)
    ports.run(0.2)
    # The reply that waited for it, too.
    (reply,) = [p for p in ports.taken(0) if ICMP in p or ICMPv6EchoReply in p]
    assert reply.dst == OTHER


@pytest.mark.parametrize("family", [4, 6])
def test_a_handshake_goes_on_by_another_gateway(family: int) -> None:
    """RFC 1122 §3.3.1.4: nobody has to begin anew."""
    ports = host(family, FIRST[family], SECOND[family])
    user = User({})
    user.connection = ports.host.tcp_connect(
        FAR[family], 80, user, local_port=4000, settings=TcpSettings()
    )
    ports.host.flush(ports.now)
    ports.run(4.0)
    hears(ports, family)
    (reply,) = ping(ports, family)
    assert reply.dst == OTHER
    # A handshake goes on by the other one.
    assert user.events == []
    ports.taken(0)
    ports.run(4.0)
    assert [p.dst for p in ports.taken(0) if TCP in p] == [OTHER]


@pytest.mark.parametrize("family", [4, 6])
def test_a_gateway_that_is_heard_again_is_one_again(family: int) -> None:
    """RFC 1122 §3.3.1.4: the other one dies, and what goes by it comes back."""
    ports = host(family, FIRST[family], SECOND[family])
    ping(ports, family)
    ports.run(4.0)
    assert gateways(ports) == [SECOND[family], FIRST[family]]
    back = "02:00:00:00:00:77"
    if family == 4:
        ports.put(0, ARP(op=1, hwsrc=back, psrc=FIRST[4], pdst=OURS[4]), "ff:ff:ff:ff:ff:ff")
    else:
        tells = ICMPv6ND_NA(tgt=FIRST[6], R=1, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=back)
        ports.put(0, IPv6(src=FIRST[6], dst=OURS[6]) / tells)
        mac = ethernet.mac_from_text(back)
        ports.link(0).nd.heard(from_text(FIRST[6]), mac, ports.now, create=True)
    assert not any(route.demoted for route in ports.host.network.routes)


@pytest.mark.parametrize("family", [4, 6])
def test_gateways_that_are_all_silent_take_turns(family: int) -> None:
    """RFC 4861 §6.3.6: round-robin, so that one that is back is found."""
    ports = host(family, FIRST[family], SECOND[family])
    cache = ports.link(0).arp if family == 4 else ports.link(0).nd
    cache._forget(cache.lookup(from_text(SECOND[family]), ports.now))
    first = []
    for _ in range(5):
        first.append(gateways(ports)[0])
        ping(ports, family)
        ports.run(4.0)
    assert first == [FIRST[family], SECOND[family]] * 2 + [FIRST[family]]


@pytest.mark.parametrize("family", [4, 6])
def test_who_sends_hears_when_no_gateway_answers(family: int) -> None:
    """RFC 1122 §3.3.1.4, §4.1.3.3: what waits goes on to the next one once, and no further."""
    ports = host(family, FIRST[family], SECOND[family])
    cache = ports.link(0).arp if family == 4 else ports.link(0).nd
    cache._forget(cache.lookup(from_text(SECOND[family]), ports.now))
    inbox = Inbox()
    ports.host.udp_bind("", 9, inbox).send(b"x", (FAR[family], 9))
    ports.host.flush(ports.now)
    ports.run(4.0)
    assert inbox.errors == []
    ports.run(4.0)
    assert [error.errno for error in inbox.errors] == [errno.EHOSTUNREACH]
    assert [p for p in ports.taken(0) if UDP in p] == []


@pytest.mark.parametrize("family", [4, 6])
def test_the_only_gateway_is_asked_for_and_no_oftener(family: int) -> None:
    """RFC 1122 §2.3.2.1, §3.3.1.4: no other way, and no flood of questions for it."""
    ports = host(family, FIRST[family])
    ping(ports, family)
    user = User({})
    user.connection = ports.host.tcp_connect(
        FAR[family], 80, user, local_port=4000, settings=TcpSettings()
    )
    ports.host.flush(ports.now)
    ports.run(60.0)
    assert isinstance(user.error, OSError)
    assert (
        ports.link(0).arp.counters.neighbor_failed + ports.link(0).nd.counters.neighbor_failed == 1
    )
