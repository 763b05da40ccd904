"""What a client MUST do by RFC 2131 and RFC 5227: a whole host, and scapy as the server.

The machines by themselves are in test_configuring.py, given addresses in test_links.py.
"""

from __future__ import annotations

import errno
import itertools

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP
from scapy.packet import Packet

from appliance.net import dhcp
from appliance.net.tcp import Connection
from appliance.net.wire.address import from_text
from tests.net.tcp.harness import User
from tests.net.test_links import OTHER, Ports

MINE, SERVER, EVERYBODY = "10.0.0.50", "10.0.0.1", "255.255.255.255"
NOBODY = "0.0.0.0"
LEASE = 1000


class Leased(Ports):
    """A host that asks, and a server that answers what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.host.use_dhcp("om")
        self.heard: list[Packet] = []

    def messages(self, seconds: float = 0.0) -> list[Packet]:
        """DHCP messages that leave within some seconds; all are kept in `heard`."""
        self.run(seconds)
        new = [packet for packet in self.taken(0) if packet.haslayer(DHCP)]
        self.heard += new
        return new

    def answer(self, kind: str, **options: object) -> None:
        asked = self.heard[-1]
        said: list[object] = [("message-type", kind), ("server_id", SERVER)]
        if kind != "nak":
            said += [("subnet_mask", "255.255.255.0"), ("router", options.pop("router", SERVER))]
            said += [("lease_time", LEASE), *options.items()]
        bootp = BOOTP(op=2, xid=asked[BOOTP].xid, yiaddr=MINE, chaddr=asked[BOOTP].chaddr)
        packet = IP(src=SERVER, dst=MINE) / UDP(sport=67, dport=68) / bootp
        self.put(0, packet / DHCP(options=[*said, "end"]))

    def bind(self) -> None:
        self.messages(2.0)
        self.answer("offer")
        self.messages(0.5)
        self.answer("ack")
        self.messages(8.0)
        assert self.ours() == [from_text(MINE)]


def options(packet: Packet) -> dict[str, object]:
    return {option[0]: option[1] for option in packet[DHCP].options if isinstance(option, tuple)}


KINDS = {1: "discover", 3: "request", 4: "decline", 7: "release"}


def kind(packet: Packet) -> str:
    return KINDS[int(str(options(packet)["message-type"]))]


def test_every_message() -> None:
    """RFC 2131 §4.1, §4.4.1, table 5: what each MUST and MUST NOT have, and where it goes."""
    ports = Leased()
    ports.bind()
    ports.learn(0, SERVER)
    ports.messages(LEASE * 0.6)
    ports.learn(0, SERVER)
    ports.host.links[0].close(ports.now)
    ports.messages()
    discover, request, *renewals, release = ports.heard
    assert [kind(packet) for packet in (discover, request, release)] == [
        "discover", "request", "release",
    ]  # fmt: skip
    identifier = options(discover)["client_id"]
    for packet in ports.heard:
        # §4.2: the same client identifier in all messages; §2: no broadcast flag, no hops.
        assert options(packet)["client_id"] == identifier
        assert (packet[BOOTP].op, packet[BOOTP].flags, packet[BOOTP].hops) == (1, 0, 0)
        assert (packet[UDP].sport, packet[UDP].dport) == (68, 67)
    # Table 5: SELECTING names server and address and has no ciaddr.
    for packet in (discover, request):
        assert (packet[IP].src, packet[IP].dst, packet[BOOTP].ciaddr) == (NOBODY, EVERYBODY, NOBODY)
    assert "server_id" not in options(discover)
    assert (options(request)["server_id"], options(request)["requested_addr"]) == (SERVER, MINE)
    # §3.5: the parameters asked for in a DHCPDISCOVER are asked for in every DHCPREQUEST.
    for packet in (request, *renewals):
        assert options(packet)["param_req_list"] == options(discover)["param_req_list"]
    # Table 5: RENEWING goes to the server, from the address, which stands in ciaddr alone.
    assert len(renewals) >= 1
    for packet in renewals:
        assert (packet[IP].src, packet[IP].dst, packet[BOOTP].ciaddr) == (MINE, SERVER, MINE)
        assert not {"server_id", "requested_addr"} & options(packet).keys()
    assert (release[IP].dst, release[BOOTP].ciaddr) == (SERVER, MINE)
    assert options(release)["server_id"] == SERVER
    for forbidden in ("requested_addr", "lease_time", "param_req_list", "max_dhcp_size"):
        assert forbidden not in options(release)


def test_what_a_renewal_says_no_longer_is_over() -> None:
    """RFC 2131 §4.4.5: what counts is the latest acknowledgment; of the MTU, too."""
    ports = Leased()
    ports.messages(2.0)
    ports.answer("offer")
    ports.messages(0.5)
    ports.answer("ack", **{"interface-mtu": 1200})
    ports.messages(8.0)
    assert ports.link(0).mtu == 1200
    ports.learn(0, SERVER)
    assert ports.messages(LEASE * 0.5) != []
    ports.answer("ack")
    assert ports.host.links[0].dhcp is not None
    assert ports.host.links[0].dhcp.state == dhcp.BOUND
    assert ports.link(0).mtu == 1500


def test_another_router_of_a_renewal_is_taken_at_once() -> None:
    """RFC 2131 §4.4.5, RFC 1122 §3.3.1.4: by those, too, who went by the one of before."""
    ports = Leased()
    ports.bind()
    user = User({})

    def accept(connection: Connection) -> User:
        user.connection = connection
        return user

    ports.host.tcp_listen("", 80, accept)
    ports.learn(0, SERVER)
    far = IP(src="192.0.2.7", dst=MINE) / TCP(sport=4000, dport=80, flags="S", seq=1)
    ports.put(0, far)
    (answer,) = [packet for packet in ports.taken(0) if packet.haslayer(TCP)]
    far[TCP].flags, far[TCP].seq, far[TCP].ack = "A", 2, answer[TCP].seq + 1
    ports.put(0, far)
    for router in (SERVER, "10.0.0.77"):
        while not (asked := ports.messages(20.0)):
            ports.learn(0, SERVER)
        assert [kind(packet) for packet in asked] == ["request"]
        ports.answer("ack", router=router)
        assert user.connection.path.neighbor.address == from_text(router)


def test_an_offer_is_probed_and_declined() -> None:
    """RFC 2131 §3.1 (5), §4.4.1: in use by somebody, MUST be declined; table 5: what that has."""
    ports = Leased()
    ports.messages(2.0)
    ports.answer("offer")
    ports.messages(0.5)
    ports.answer("ack")
    ports.run(1.5)
    probes = [packet for packet in ports.taken(0) if packet.haslayer(ARP)]
    assert {(packet[ARP].psrc, packet[ARP].pdst) for packet in probes} == {(NOBODY, MINE)}
    ports.put(0, ARP(op=2, hwsrc=OTHER, psrc=MINE, pdst=NOBODY), dst="ff:ff:ff:ff:ff:ff")
    (decline,) = ports.messages(1.0)
    assert kind(decline) == "decline"
    assert (decline[IP].src, decline[IP].dst, decline[BOOTP].ciaddr) == (NOBODY, EVERYBODY, NOBODY)
    told = options(decline)
    assert (told["server_id"], told["requested_addr"]) == (SERVER, MINE)
    assert "client_id" in told
    assert "param_req_list" not in told
    # §3.1 (5): ten seconds at least before it begins again.
    assert ports.messages(8.5) == []
    assert [kind(packet) for packet in ports.messages(2.0)] == ["discover"]
    assert ports.ours() == []


def test_declining_without_end_is_limited() -> None:
    """RFC 5227 §2.1.1: after MAX_CONFLICTS, MUST NOT try more than one address a minute."""
    ports = Leased()
    times: list[float] = []
    while len(times) < dhcp.MAX_CONFLICTS + 3:
        while not [p for p in ports.messages(1.0) if kind(p) == "discover"]:
            pass
        times.append(ports.now)
        ports.answer("offer")
        ports.messages(0.5)
        ports.answer("ack")
        ports.run(1.5)
        ports.put(0, ARP(op=2, hwsrc=OTHER, psrc=MINE, pdst=NOBODY), dst="ff:ff:ff:ff:ff:ff")
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert max(gaps[: dhcp.MAX_CONFLICTS - 1]) < 20.0
    assert min(gaps[dhcp.MAX_CONFLICTS - 1 :]) >= dhcp.RATE_LIMIT_INTERVAL


def test_the_end_of_a_lease() -> None:
    """RFC 2131 §4.4.5: MUST immediately stop: no answers, no routes, no connections of before."""
    ports = Leased()
    ports.bind()
    ports.learn(0, SERVER)
    lease = ports.host.links[0].lease
    assert lease is not None
    socket = ports.host.udp_bind("", 53, Nobody())
    ports.run(lease.expires_at - ports.now - 1.0)
    ports.learn(0, SERVER)
    ports.taken(0)
    ports.put(0, IP(src=SERVER, dst=MINE) / ICMP())
    assert len([p for p in ports.taken(0) if p.haslayer(ICMP)]) == 1
    ports.run(1.5)
    ports.taken(0)
    assert ports.ours() == []
    ports.put(0, IP(src=SERVER, dst=MINE) / ICMP())
    ports.put(0, ARP(op=1, hwsrc=OTHER, psrc=SERVER, pdst=MINE), dst="ff:ff:ff:ff:ff:ff")
    assert [p for p in ports.taken(0) if not p.haslayer(DHCP)] == []
    assert [route for route in ports.host.network.routes if route.origin == "dhcp"] == []
    with pytest.raises(OSError, match="no route") as caught:
        socket.send(b"x", (SERVER, 9))
    assert caught.value.errno == errno.ENETUNREACH


class Nobody:
    def udp_datagram(self, data: bytes, source: tuple[str, int]) -> None:
        """Nothing comes."""

    def udp_error(self, error: OSError) -> None:
        """Nor does this."""


def test_a_lease_that_somebody_else_uses() -> None:
    """RFC 5227 §2.4 (b): defended once, and given up at the second conflict within ten seconds."""
    ports = Leased()
    ports.bind()
    ports.run(5.0)
    ports.taken(0)
    rival = ARP(op=2, hwsrc=OTHER, psrc=MINE, pdst=SERVER)
    ports.put(0, rival, dst="ff:ff:ff:ff:ff:ff")
    (defence,) = [packet for packet in ports.taken(0) if packet.haslayer(ARP)]
    assert (defence[ARP].psrc, defence[ARP].pdst) == (MINE, MINE)
    assert ports.ours() == [from_text(MINE)]
    ports.put(0, rival, dst="ff:ff:ff:ff:ff:ff")
    assert ports.ours() == []
    assert [kind(packet) for packet in ports.messages(0.0)] == ["decline"]


@pytest.mark.parametrize("state", ["requesting", "renewing"])
def test_refused(state: str) -> None:
    """RFC 2131 §3.2 (4), §4.4.5: a DHCPNAK MUST end the use of an address, and begins anew."""
    ports = Leased()
    if state == "renewing":
        ports.bind()
        ports.learn(0, SERVER)
        ports.messages(LEASE * 0.5)
    else:
        ports.messages(2.0)
        ports.answer("offer")
        ports.messages(0.5)
    assert kind(ports.heard[-1]) == "request"
    ports.answer("nak")
    assert ports.ours() == []
    assert [kind(packet) for packet in ports.messages(1.0)] == ["discover"]


def test_answers_are_taken_without_an_address() -> None:
    """RFC 2131 §4.1: MUST be prepared for unicast to an address that is not configured yet.

    And for broadcast, whatever the flag said.
    """
    for to in (MINE, EVERYBODY):
        ports = Leased()
        (discover,) = ports.messages(2.0)
        bootp = BOOTP(op=2, xid=discover[BOOTP].xid, yiaddr=MINE, chaddr=discover[BOOTP].chaddr)
        packet = IP(src=SERVER, dst=to) / UDP(sport=67, dport=68) / bootp
        said = DHCP(options=[("message-type", "offer"), ("server_id", SERVER), "end"])
        ports.put(0, packet / said, dst="ff:ff:ff:ff:ff:ff" if to == EVERYBODY else "")
        assert [kind(p) for p in ports.messages(0.5)] == ["request"]
