"""A DHCP client before servers that are odd, broken or hostile: what no usual server says."""

from __future__ import annotations

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.packet import Packet, Raw

from appliance.net.dhcp import LAST_RETRY, Lease
from appliance.net.errors import WireError
from appliance.net.wire import dhcp
from appliance.net.wire.address import from_text
from tests.net.test_configuring import MAC, MINE, SERVER, Leasing

NOBODY = bytes(4)


def seconds(option: int, number: int) -> tuple[int, bytes]:
    return option, number.to_bytes(4)


class Odd(Leasing):
    """A client, and whatever a server says, with no option but those that are given."""

    def say(
        self, kind: int, *options: tuple[int, bytes], address: bytes = MINE, server: bytes = SERVER
    ) -> None:
        request = self.sent[-1][0]
        said = [*options, *([(dhcp.SERVER_ID, server)] if server else [])]
        message = dhcp.build(kind, request.xid, MAC, said, op=dhcp.REPLY, yiaddr=address)
        self.client.received(message, self.now)

    def requests(self) -> None:
        """Until a request has been sent."""
        self.client.start(self.now)
        self.until(self.now + 1.0)
        self.say(dhcp.OFFER)
        assert self.until(self.now + 0.1) == [dhcp.REQUEST_LEASE]

    def binds(self, *options: tuple[int, bytes]) -> Lease:
        self.requests()
        self.say(dhcp.ACK, *options)
        assert self.checking == MINE
        self.client.checked(True, self.now)
        lease = self.told[-1]
        assert isinstance(lease, Lease)
        return lease


def test_a_server_that_refuses_what_it_offers() -> None:
    """RFC 2131 §4.1: a client backs off; offers and refusals must not chase each other."""
    scene = Odd()
    scene.client.start(0.0)
    asked = 0
    while scene.now < 600.0:
        for kind in scene.until(scene.now + 0.01):
            asked += 1
            scene.say(dhcp.OFFER if kind == dhcp.DISCOVER else dhcp.NAK)
    assert asked < 2 * (600.0 / LAST_RETRY + 8)
    # It comes to its senses, and we are there.
    while dhcp.DISCOVER not in scene.until(scene.now + 1.0):
        assert scene.now < 700.0
    scene.say(dhcp.OFFER)
    assert scene.until(scene.now + 0.1) == [dhcp.REQUEST_LEASE]
    scene.say(dhcp.ACK, seconds(dhcp.LEASE_TIME, 600))
    scene.client.checked(True, scene.now)
    assert scene.client.state == "bound"
    # A refusal long after that is a first one again: asked at once.
    scene.until(scene.now + 301.0)
    scene.say(dhcp.NAK)
    assert scene.until(scene.now) == [dhcp.DISCOVER]


def test_a_short_lease_is_not_outstayed() -> None:
    """RFC 2131 §4.4.5: when a lease expires the client MUST stop, however short it was."""
    scene = Odd()
    lease = scene.binds(seconds(dhcp.LEASE_TIME, 20))
    began = scene.now
    assert lease.expires_at <= began + 20.0
    assert scene.until(began + 19.0) == [dhcp.REQUEST_LEASE] * 2  # T1, and T2
    scene.until(began + 20.0)
    assert scene.told[-1] == "unbound"


@pytest.mark.parametrize(
    "lease", [[], [seconds(dhcp.LEASE_TIME, 0)], [seconds(dhcp.LEASE_TIME, 9)]]
)
def test_leases_that_are_none(lease: list[tuple[int, bytes]]) -> None:
    """RFC 2131 §4.3.1, table 3: a server MUST say how long; less than a probe is no use."""
    scene = Odd()
    scene.requests()
    scene.say(dhcp.ACK, *lease)
    assert (scene.checking, scene.client.state) == (None, "requesting")


@pytest.mark.parametrize(
    ("t1", "t2"), [(0, 0), (2000, 0), (0, 2000), (900, 800), (2000, 3000), (500, 875)]
)
def test_times_that_contradict_the_lease(t1: int, t2: int) -> None:
    """RFC 2131 §4.4.5: T1 MUST be earlier than T2, and T2 than the end: else the defaults."""
    scene = Odd()
    times = [seconds(dhcp.RENEWAL_TIME, t1), seconds(dhcp.REBINDING_TIME, t2)]
    lease = scene.binds(seconds(dhcp.LEASE_TIME, 1000), *times)
    start = lease.expires_at - 1000
    assert (lease.renew_at - start, lease.rebind_at - start) == pytest.approx((500.0, 875.0))


@pytest.mark.parametrize(
    ("mask", "prefix_len"),
    [
        ("", 24), ("0.0.0.0", 24), ("255.0.255.0", 24), ("0.255.255.255", 24), ("255.255.0.1", 24),
        ("255.255.255.255", 32), ("255.255.240.0", 20), ("128.0.0.0", 1),
    ],
)  # fmt: skip
def test_masks(mask: str, prefix_len: int) -> None:
    """RFC 2132 §3.3: what is no mask makes no network; 0.0.0.0 would put everybody on the link."""
    options = [(dhcp.SUBNET_MASK, from_text(mask))] if mask else []
    assert Odd().binds(seconds(dhcp.LEASE_TIME, 600), *options).prefix_len == prefix_len


@pytest.mark.parametrize(
    ("address", "mask"),
    [
        ("0.0.0.0", "255.255.255.0"), ("255.255.255.255", "255.255.255.0"),
        ("224.0.0.1", "255.255.255.0"), ("127.0.0.1", "255.0.0.0"), ("10.0.0.255", "255.255.255.0"),
        ("10.0.3.255", "255.255.252.0"),
    ],
)  # fmt: skip
def test_addresses_that_no_host_has(address: str, mask: str) -> None:
    """RFC 1122 §3.2.1.3: neither offered nor granted are they taken."""
    scene = Odd()
    scene.requests()
    options = seconds(dhcp.LEASE_TIME, 600), (dhcp.SUBNET_MASK, from_text(mask))
    scene.say(dhcp.ACK, *options, address=from_text(address))
    assert scene.checking is None


@pytest.mark.parametrize("server", [b"", NOBODY, b"\xff\xff\xff\xff", b"\xe0\0\0\1"])
def test_offers_of_nobody(server: bytes) -> None:
    """RFC 2131 §4.3.1, table 3: a server MUST say who it is, since the request names it."""
    scene = Odd()
    scene.client.start(0.0)
    scene.until(1.0)
    scene.say(dhcp.OFFER, server=server)
    assert scene.until(1.5) == []


def test_routers_that_are_none() -> None:
    """RFC 2132 §3.5, RFC 3442: 0.0.0.0 is no router, and all the rest stays."""
    length = seconds(dhcp.LEASE_TIME, 600)
    routers = b"".join(map(from_text, ("0.0.0.0", "10.0.0.9", "224.0.0.1", "255.255.255.255")))
    lease = Odd().binds(length, (dhcp.ROUTER, routers), (dhcp.DNS, routers))
    assert lease.routes == ((NOBODY, 0, from_text("10.0.0.9")),)
    assert lease.servers == (from_text("10.0.0.9"),)
    classless = bytes((16, 10, 1, 0, 0, 0, 0, 16, 10, 2, 224, 0, 0, 1, 0, 10, 0, 0, 8))
    lease = Odd().binds(length, (dhcp.CLASSLESS_ROUTES, classless), (dhcp.ROUTER, routers))
    assert lease.routes == (
        (from_text("10.1.0.0"), 16, NOBODY),
        (NOBODY, 0, from_text("10.0.0.8")),
    )
    # Malformed, it is ignored, and the routers are taken.
    lease = Odd().binds(length, (dhcp.CLASSLESS_ROUTES, b"\x21\1\2"), (dhcp.ROUTER, routers))
    assert lease.routes == ((NOBODY, 0, from_text("10.0.0.9")),)


@pytest.mark.parametrize(
    ("mtu", "taken"), [(0, 0), (68, 0), (575, 0), (576, 576), (65_535, 65_535)]
)
def test_mtus(mtu: int, taken: int) -> None:
    """RFC 2132 §5.1 allows 68; less than any host takes (RFC 791 §3.1) is not believed."""
    lease = Odd().binds(seconds(dhcp.LEASE_TIME, 600), (dhcp.MTU, mtu.to_bytes(2)))
    assert lease.mtu == taken


def test_another_server_goes_on_with_the_lease() -> None:
    """RFC 2131 §4.4.5: while rebinding any server may grant it, and is asked from then on."""
    scene = Odd()
    lease = scene.binds(seconds(dhcp.LEASE_TIME, 1000))
    scene.until(lease.rebind_at + 1.0)
    assert scene.sent[-1][2] == b"\xff" * 4
    scene.say(dhcp.ACK, seconds(dhcp.LEASE_TIME, 1000), server=b"\n\0\0\7")
    assert (scene.client.state, scene.told[-1].server) == ("bound", b"\n\0\0\7")
    scene.until(scene.told[-1].renew_at)
    assert scene.sent[-1][2] == b"\n\0\0\7"


def test_a_server_that_changes_its_mind() -> None:
    """RFC 2131 §3.2, §4.4.5: another address while renewing is none of ours: begin anew."""
    scene = Odd()
    lease = scene.binds(seconds(dhcp.LEASE_TIME, 1000))
    scene.until(lease.renew_at)
    scene.say(dhcp.ACK, seconds(dhcp.LEASE_TIME, 1000), address=b"\n\0\0\x44")
    assert scene.told[-1] == "unbound"
    assert scene.until(scene.now) == [dhcp.DISCOVER]


def test_two_servers() -> None:
    """RFC 2131 §3.1 (3): the first offer is taken; the other's words about it count for nothing."""
    scene = Odd()
    scene.client.start(0.0)
    scene.until(1.0)
    scene.say(dhcp.OFFER)
    scene.say(dhcp.OFFER, address=b"\n\0\0\x63", server=b"\n\0\0\7")
    scene.until(1.1)
    request = scene.sent[-1][0]
    assert (request.address(dhcp.SERVER_ID), request.address(dhcp.REQUESTED_ADDRESS)) == (
        SERVER,
        MINE,
    )
    scene.say(dhcp.NAK, server=b"\n\0\0\7")
    scene.say(dhcp.ACK, seconds(dhcp.LEASE_TIME, 600), server=b"\n\0\0\7", address=b"\n\0\0\x63")
    assert (scene.client.state, scene.checking) == ("requesting", None)
    scene.say(dhcp.ACK, seconds(dhcp.LEASE_TIME, 600))
    assert scene.checking == MINE


def message(options: Packet, xid: int = 7, **fields: bytes) -> bytes:
    bootp = BOOTP(op=2, xid=xid, yiaddr="10.0.0.9", chaddr=MAC, **fields)
    return bytes(bootp / options)


def test_huge_options() -> None:
    """RFC 3396 §5: a long option comes in parts of up to 255 octets, wherever they stand."""
    routes = b"".join(bytes((24, 10, n, 0, 10, 0, 0, 1)) for n in range(60))
    parts = [(121, routes[i : i + 255]) for i in range(0, len(routes), 255)]
    raw = b"".join(bytes((code, len(value))) + value + b"\0" for code, value in parts)
    octets = message(Raw(b"\x63\x82\x53\x63\x35\1\2" + raw + b"\xff"))
    parsed = dhcp.parse(octets)
    assert dhcp.classless_routes(parsed.options[121])[-1] == (b"\n\x3b\0\0", 24, b"\n\0\0\1")
    lease = Odd().binds(seconds(dhcp.LEASE_TIME, 600), *parts)
    assert len(lease.routes) == 32


@pytest.mark.parametrize(
    ("options", "fields", "found"),
    [
        # RFC 2131 §4.1: `file` before `sname`; a part of an option in each of three places.
        (b"\x34\1\3\x06\4\1\1\1\1", {"file": b"\x06\4\2\2\2\2\xff", "sname": b"\x06\4\3\3\3\3\xff"},
         b"\1\1\1\1\2\2\2\2\3\3\3\3"),
        (b"\x34\1\1\x06\4\1\1\1\1", {"file": b"\x06\4\2\2\2\2\xff", "sname": b"\x06\4\3\3\3\3\xff"},
         b"\1\1\1\1\2\2\2\2"),
        (b"\x06\4\1\1\1\1", {"file": b"\x06\4\2\2\2\2\xff"}, b"\1\1\1\1"),
        # Without an end, and an overload inside what was overloaded, which says nothing new.
        (b"\x34\1\2", {"sname": b"\x06\4\3\3\3\3\x34\1\1", "file": b"\x06\4\2\2\2\2"}, b"\3\3\3\3"),
    ],
)  # fmt: skip
def test_overload(options: bytes, fields: dict[str, bytes], found: bytes) -> None:
    """RFC 2131 §4.1, RFC 2132 §9.3: options go on in `file` and `sname` if the server says so."""
    octets = message(Raw(b"\x63\x82\x53\x63\x35\1\2" + options + b"\xff"), **fields)
    assert dhcp.parse(octets).options[dhcp.DNS] == found


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        bytes(239),
        message(Raw(b"\x63\x82\x53\x64\x35\1\2\xff")),  # another cookie
        message(DHCP(options=[("message-type", 2)]), hlen=8),
        message(DHCP(options=[("message-type", 2)]), htype=6),
        message(Raw(b"\x63\x82\x53\x63\x35")),
        message(Raw(b"\x63\x82\x53\x63\x35\1\2\x06\x20\1\1\1\1")),  # beyond the end
        message(Raw(b"\x63\x82\x53\x63\x34\1\1\xff"), file=b"\x06\xc8" + b"x" * 126),
    ],
)
def test_malformed(octets: bytes) -> None:
    """RFC 2131 §2, RFC 2132 §2: dropped, and the client goes on."""
    with pytest.raises(WireError):
        dhcp.parse(octets)
    scene = Odd()
    scene.client.start(0.0)
    scene.until(1.0)
    with pytest.raises(WireError):
        scene.client.received(octets, scene.now)
    scene.say(dhcp.OFFER)
    assert scene.until(1.1) == [dhcp.REQUEST_LEASE]


def test_options_of_odd_lengths() -> None:
    """RFC 2132 §2: each option has its length; one of another is as if it were not there."""
    odd = [(code, b"\1\2\3") for code in (1, 3, 6, 26, 58, 59)]
    lease = Odd().binds(seconds(dhcp.LEASE_TIME, 600), *odd)
    assert (lease.prefix_len, lease.routes, lease.servers, lease.mtu) == (24, (), (), 0)
    assert lease.renew_at == pytest.approx(lease.expires_at - 300.0)


def test_plain_bootp_is_not_answered() -> None:
    """RFC 1534 §2 lets a client take it; ours asks for a lease, which BOOTP does not know."""
    scene = Odd()
    scene.client.start(0.0)
    scene.until(1.0)
    xid = scene.sent[-1][0].xid
    scene.client.received(message(Raw(b"\x63\x82\x53\x63\xff"), xid=xid), scene.now)
    assert scene.client.state == "selecting"
