"""Link-local addresses of IPv4 beside others, a whole host against scapy (RFC 3927)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP

from appliance.net.wire import ethernet
from appliance.net.wire.address import from_text
from tests.net.test_links import Ports
from tests.net.test_network6 import Inbox

NEAR, NEAR_MAC = "169.254.9.9", "02:00:00:00:00:77"
EVERYBODY = "ff:ff:ff:ff:ff:ff"


@pytest.mark.parametrize(("ours", "to"), [("169.254.3.4/16", EVERYBODY), ("10.0.0.2/24", NEAR_MAC)])
def test_arp_about_a_link_local_address_is_for_everybody(ours: str, to: str) -> None:
    """RFC 3927 §2.5: replies, too, MUST be broadcast, so that a conflict is seen at once."""
    ports = Ports(ours)
    ports.run(5.0)
    ports.taken(0)
    address = ours.partition("/")[0]
    ports.put(0, ARP(op=1, hwsrc=NEAR_MAC, psrc="169.254.9.9", pdst=address), EVERYBODY)
    (reply,) = ports.taken(0)
    assert (reply.dst, reply[ARP].op, reply[ARP].hwdst) == (to, 2, NEAR_MAC)
    # Whether a neighbour is still there is asked the same way.
    asked = []
    for _ in range(4):
        ports.put(0, IP(src=NEAR, dst=address) / ICMP())
        ports.run(20.0)
        asked += [p.dst for p in ports.taken(0) if ARP in p and p[ARP].pdst == NEAR]
    assert asked[0] == to


@pytest.mark.parametrize("gateway", [True, False])
def test_link_local_neighbours_are_on_the_link(gateway: bool) -> None:
    """RFC 3927 §2.6.2, §7: asked for there whatever our address is, and never by a router."""
    ports = Ports("10.0.0.2/24")
    if gateway:
        ports.host.add_gateway("10.0.0.1")
    ports.run(5.0)
    ports.learn(0, "10.0.0.1")
    ports.taken(0)
    ports.put(0, IP(src=NEAR, dst="10.0.0.2") / ICMP())
    (asked,) = ports.taken(0)
    assert (asked[ARP].psrc, asked[ARP].pdst) == ("10.0.0.2", NEAR)
    ports.put(0, ARP(op=2, hwsrc=NEAR_MAC, psrc=NEAR, pdst="10.0.0.2"))
    (reply,) = ports.taken(0)
    assert (reply.dst, reply[IP].dst) == (NEAR_MAC, NEAR)
    # And who is spoken to first.
    socket = ports.host.udp_bind("", 0, Inbox())
    socket.send(b"x", (NEAR, 9))
    (sent,) = ports.taken(0)
    assert (sent.dst, sent[IP].src, sent[UDP].dport) == (NEAR_MAC, "10.0.0.2", 9)


def test_link_local_neighbours_of_several_links() -> None:
    """RFC 3927 §3: on the link of our address; of one that has none, where they were heard."""
    ports = Ports("10.0.0.2/24", "10.1.0.2/24")
    ports.host.add_gateway("10.0.0.1", ports.link(0))
    ports.run(5.0)
    mac = ethernet.mac_from_text(NEAR_MAC)
    ports.link(1).arp.learn(from_text(NEAR), mac, ports.now, create=True)
    for number in (0, 1):
        ports.taken(number)
    ports.put(1, IP(src=NEAR, dst="10.1.0.2") / ICMP())
    assert ports.taken(0) == []
    (reply,) = ports.taken(1)
    assert reply.dst == NEAR_MAC
