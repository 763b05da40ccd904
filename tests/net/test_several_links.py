"""Hosts on several links whose routers have the same link-local address, as virtual ones do."""

from __future__ import annotations

from scapy.layers.inet import TCP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6

from appliance.net.link import Link
from appliance.net.tcb import TcpSettings
from appliance.net.wire import ethernet
from appliance.net.wire.address import from_text
from tests.net.tcp.harness import User
from tests.net.test_links import OTHER, Ports

FAR = "2001:db8:ffff::7"
ROUTER = "fe80::1"


def two() -> Ports:
    """Two links of their own networks, with a router on each."""
    ports = Ports("2001:db8:1::2/64", "2001:db8:2::2/64")
    ports.run(5.0)
    for number in (0, 1):
        ports.host.add_gateway(ROUTER, ports.link(number))
        ports.taken(number)
    return ports


def know(ports: Ports, link: Link, address: str) -> None:
    link.nd.heard(from_text(address), ethernet.mac_from_text(OTHER), ports.now, create=True)


def connect(ports: Ports, local: str) -> User:
    user = User({})
    user.connection = ports.host.tcp_connect(
        FAR, 80, user, local=local, local_port=4000, settings=TcpSettings()
    )
    ports.host.flush(ports.now)
    return user


def syns(ports: Ports, number: int) -> list[str]:
    """Where SYNs went to: the MACs."""
    return [frame.dst for frame in ports.taken(number) if TCP in frame]


def test_a_router_that_is_silent_on_one_link_is_not_silent_on_another() -> None:
    """RFC 4861 §5.1: a neighbour is one of a link; fe80::1 on two of them is two."""
    ports = two()
    know(ports, ports.link(1), ROUTER)
    user = connect(ports, "2001:db8:2::2")
    assert syns(ports, 1) == [OTHER]
    ports.put(0, IPv6(src=FAR, dst="2001:db8:1::2") / ICMPv6EchoRequest())
    assert ICMPv6ND_NS in ports.taken(0)[0]
    ports.run(4.0)
    assert ports.link(0).nd.counters.neighbor_failed == 1
    assert user.connection.state_name == "SYN-SENT"
    assert user.events == []


def test_what_goes_by_another_router_stays_on_its_link() -> None:
    """RFC 1122 §3.3.4.2, the strong model, RFC 4861 §7.3.3: next-hop determination anew."""
    ports = two()
    other = ports.link(1)
    know(ports, ports.link(0), ROUTER)
    know(ports, other, ROUTER)
    user = connect(ports, "2001:db8:2::2")
    assert syns(ports, 1) == [OTHER]
    second = "02:00:00:00:00:77"
    ports.host.add_gateway("fe80::2", other)
    other.nd.heard(from_text("fe80::2"), ethernet.mac_from_text(second), ports.now, create=True)
    ports.run(12.0)  # the first router does not answer whether it is there
    assert user.connection.path.neighbor.address == from_text("fe80::2")
    assert user.connection.path.neighbor.cache is other.nd
    assert syns(ports, 0) == []
    ports.taken(1)
    ports.run(4.0)
    assert syns(ports, 1) == [second]
