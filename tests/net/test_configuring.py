"""IPv4 finds its address: RFC 5227 claims, RFC 2131 leases, RFC 3927; MLD, routes and sources."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from appliance.net import acd, linklocal, mld, source
from appliance.net.acd import Claim
from appliance.net.dhcp import Client, Lease
from appliance.net.errors import WireError
from appliance.net.routes import CAPACITY, Route, Routes
from appliance.net.wire import arp, dhcp, ipv6
from appliance.net.wire import mld as wire_mld
from appliance.net.wire.address import from_text, to_text

MAC, OTHER = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
MINE, PEER, NOBODY = b"\n\0\0\5", b"\n\0\0\x09", bytes(4)


def run(machine: Any, now: float, until: float) -> float:
    """Advance from deadline to deadline."""
    while (due := machine.deadline()) <= until:
        now = max(now, due)
        machine.advance(now)
    return until


# ---------------------------------------------------------------------- RFC 5227


class Claiming:
    def __init__(self, *, keep: bool = False) -> None:
        self.sent: list[arp.ArpPacket] = []
        self.told: list[str] = []
        self.claim = Claim(
            MINE,
            MAC,
            lambda packet: self.sent.append(arp.parse(packet, 0, len(packet))),
            random=random.Random(1),
            on_ready=lambda: self.told.append("ready"),
            on_conflict=lambda mac: self.told.append("conflict"),
            keep=keep,
        )

    def hear(self, operation: int, sender: bytes, target: bytes, now: float) -> None:
        self.claim.arp_arrives(arp.ArpPacket(operation, OTHER, sender, bytes(6), target), now)


def test_probe_then_announce() -> None:
    """RFC 5227 §2.1.1, §2.3: three probes one to two seconds apart, silence, two announcements."""
    scene = Claiming()
    scene.claim.start(0.0)
    times = []
    now = 0.0
    while scene.claim.deadline() < inf:
        now = scene.claim.deadline()
        before = len(scene.sent)
        scene.claim.advance(now)
        times += [now] * (len(scene.sent) - before)
    assert [packet.sender for packet in scene.sent] == [NOBODY] * 3 + [MINE] * 2
    assert all(packet.target == MINE for packet in scene.sent)
    assert all(packet.operation == arp.REQUEST for packet in scene.sent)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert 0 <= times[0] <= acd.PROBE_WAIT
    assert all(acd.PROBE_MIN <= gap <= acd.PROBE_MAX for gap in gaps[:2])
    assert gaps[2:] == [pytest.approx(acd.ANNOUNCE_WAIT), pytest.approx(acd.ANNOUNCE_INTERVAL)]
    assert scene.told == ["ready"]


@pytest.mark.parametrize(
    ("operation", "sender", "target", "conflict"),
    [
        (arp.REPLY, MINE, PEER, True),
        (arp.REQUEST, MINE, PEER, True),
        (arp.REQUEST, NOBODY, MINE, True),  # another one probes for the same
        (arp.REQUEST, PEER, MINE, False),  # somebody merely asks for it
        (arp.REPLY, PEER, NOBODY, False),
    ],
)
def test_conflict_while_probing(
    operation: int, sender: bytes, target: bytes, conflict: bool
) -> None:
    """RFC 5227 §2.1.1."""
    scene = Claiming()
    scene.claim.start(0.0)
    run(scene.claim, 0.0, 1.5)
    scene.hear(operation, sender, target, 1.5)
    run(scene.claim, 1.5, 60.0)
    assert scene.told == (["conflict"] if conflict else ["ready"])


@pytest.mark.parametrize("keep", [True, False])
def test_defence(keep: bool) -> None:
    """RFC 5227 §2.4 (b), (c): one announcement in ten seconds; then it is kept or given up."""
    scene = Claiming(keep=keep)
    scene.claim.start(0.0, probe=False)
    assert scene.told == ["ready"]
    run(scene.claim, 0.0, 10.0)
    scene.sent.clear()
    scene.hear(arp.REPLY, MINE, PEER, 20.0)
    assert [packet.sender for packet in scene.sent] == [MINE]
    scene.hear(arp.REPLY, MINE, PEER, 25.0)
    assert len(scene.sent) == 1
    assert scene.told == (["ready"] if keep else ["ready", "conflict"])
    scene.hear(arp.REPLY, MINE, PEER, 31.0)
    assert len(scene.sent) == (2 if keep else 1)


def test_our_own_packets_are_no_conflict() -> None:
    scene = Claiming()
    scene.claim.start(0.0)
    scene.claim.arp_arrives(arp.ArpPacket(arp.REPLY, MAC, MINE, bytes(6), PEER), 0.5)
    run(scene.claim, 0.5, 60.0)
    assert scene.told == ["ready"]


# ---------------------------------------------------------------------- RFC 3927


def test_link_local_candidates() -> None:
    """RFC 3927 §2.1: within the range, the same for the same MAC, spread evenly."""
    first = linklocal.candidate(MAC, 0)
    assert first == linklocal.candidate(MAC, 0)
    many = {linklocal.candidate(MAC, attempt) for attempt in range(500)}
    assert len(many) > 490
    for address in many:
        assert b"\xa9\xfe\x01\x00" <= address <= b"\xa9\xfe\xfe\xff"
    assert linklocal.wait(9) == 0.0
    assert linklocal.wait(10) == 60.0


# ---------------------------------------------------------------------- RFC 2131

SERVER = b"\n\0\0\1"


class Leasing:
    """A client, and a server that answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[dhcp.DhcpMessage, bytes, bytes]] = []
        self.told: list[Any] = []
        self.checking: bytes | None = None
        self.client = Client(self, MAC, random=random.Random(4), name="om")
        self.now = 0.0

    def send_dhcp(self, message: bytes, src: bytes, dst: bytes) -> None:
        self.sent.append((dhcp.parse(message), src, dst))

    def check(self, address: bytes) -> None:
        self.checking = address

    def bound(self, lease: Lease) -> None:
        self.told.append(lease)

    def unbound(self, lease: Lease) -> None:
        self.told.append("unbound")

    def until(self, at: float) -> list[int]:
        """Run to `at`; the types of what was sent."""
        before = len(self.sent)
        while self.client.deadline() <= at:
            self.now = max(self.now, self.client.deadline())
            self.client.advance(self.now)
        self.now = at
        return [message.kind for message, _, _ in self.sent[before:]]

    def reply(self, kind: int, *options: tuple[int, bytes], address: bytes = MINE) -> None:
        request = self.sent[-1][0]
        common = [(dhcp.SERVER_ID, SERVER), (dhcp.SUBNET_MASK, b"\xff\xff\xff\0")]
        if kind == dhcp.ACK:
            common.append((dhcp.LEASE_TIME, (1000).to_bytes(4)))
        message = dhcp.build(
            kind, request.xid, MAC, [*options, *common], op=dhcp.REPLY, yiaddr=address
        )
        self.client.received(message, self.now)

    def lease(self, *options: tuple[int, bytes]) -> Lease:
        """All the way to BOUND."""
        self.client.start(self.now)
        assert self.until(self.now + 1.0) == [dhcp.DISCOVER]
        self.reply(dhcp.OFFER)
        assert self.until(self.now + 0.1) == [dhcp.REQUEST_LEASE]
        self.reply(dhcp.ACK, *options)
        assert self.checking == MINE
        self.client.checked(True, self.now)
        lease = self.told[-1]
        assert isinstance(lease, Lease)
        return lease


def test_lease() -> None:
    """RFC 2131 §3.1, §4.4.1, table 5: what is in each message, and where it goes."""
    scene = Leasing()
    lease = scene.lease(
        (dhcp.ROUTER, SERVER), (dhcp.DNS, SERVER + PEER), (dhcp.MTU, (1400).to_bytes(2))
    )
    (discover, src, dst), (request, _, to) = scene.sent
    assert (src, dst, to) == (NOBODY, b"\xff" * 4, b"\xff" * 4)
    assert discover.options[dhcp.CLIENT_ID] == b"\1" + MAC
    assert dhcp.REQUESTED_ADDRESS not in discover.options
    assert request.address(dhcp.REQUESTED_ADDRESS) == MINE
    assert request.address(dhcp.SERVER_ID) == SERVER
    assert lease.address == MINE
    assert (lease.prefix_len, lease.mtu, lease.servers) == (24, 1400, (SERVER, PEER))
    assert lease.routes == ((NOBODY, 0, SERVER),)


def test_classless_routes_come_first() -> None:
    """RFC 3442: with option 121 the router option MUST be ignored."""
    value = bytes((24, 10, 9, 9)) + PEER
    lease = Leasing().lease((dhcp.ROUTER, SERVER), (dhcp.CLASSLESS_ROUTES, value))
    assert lease.routes == ((b"\n\x09\x09\0", 24, PEER),)
    broken = Leasing().lease((dhcp.ROUTER, SERVER), (dhcp.CLASSLESS_ROUTES, b"\x18\1"))
    assert broken.routes == ((NOBODY, 0, SERVER),)


def test_nobody_answers() -> None:
    """RFC 2131 §4.1: four seconds, doubled to 64, each give or take one, without end."""
    scene = Leasing()
    scene.client.start(0.0)
    times = []
    while scene.now < 400.0:
        scene.now = scene.client.deadline()
        scene.client.advance(scene.now)
        times.append(scene.now)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    for gap, nominal in zip(gaps, (4, 8, 16, 32, 64, 64), strict=False):
        assert abs(gap - nominal) <= 1.0
    assert scene.client.unanswered == len(times)


def test_an_offer_that_comes_late() -> None:
    """RFC 2131 §4.1, §2.2: a server that pings first offers when we have asked again already."""
    scene = Leasing()
    scene.client.start(0.0)
    assert scene.until(1.0) == [dhcp.DISCOVER]
    first = scene.sent[-1][0].xid
    assert scene.until(6.0) == [dhcp.DISCOVER]
    assert scene.sent[-1][0].xid == first
    scene.reply(dhcp.OFFER)
    assert scene.until(6.5) == [dhcp.REQUEST_LEASE]


def test_renew_rebind_expire() -> None:
    """RFC 2131 §4.4.5: T1 to the server, T2 to everybody, and at the end the address goes."""
    scene = Leasing()
    lease = scene.lease()
    began = lease.expires_at - 1000.0
    assert lease.renew_at == began + 500.0
    assert lease.rebind_at == began + 875.0
    assert scene.until(began + 499.0) == []
    assert scene.until(began + 874.0) == [dhcp.REQUEST_LEASE] * 4  # 500, 687, 781, 841
    message, src, dst = scene.sent[-1]
    assert (src, dst) == (MINE, SERVER)
    assert dhcp.SERVER_ID not in message.options
    assert dhcp.REQUESTED_ADDRESS not in message.options
    assert scene.until(began + 999.0) == [dhcp.REQUEST_LEASE] * 3  # 875, 937, 997
    assert scene.sent[-1][1:] == (MINE, b"\xff" * 4)
    assert scene.until(began + 1000.5) == [dhcp.DISCOVER]
    assert scene.told[-1] == "unbound"
    # What was given up is not renewed by a late answer.
    scene.reply(dhcp.ACK)
    assert scene.told[-1] == "unbound"


def test_renewal_succeeds() -> None:
    """RFC 2131 §4.4.5: the lease goes on, and its times begin anew with the request."""
    scene = Leasing()
    first = scene.lease()
    scene.until(first.renew_at + 1)
    scene.reply(dhcp.ACK)
    second = scene.told[-1]
    # RFC 2131 §4.4.5: counted from the request, a second before the answer.
    assert second.expires_at == pytest.approx(scene.now - 1.0 + 1000.0)
    assert scene.client.state == "bound"


@pytest.mark.parametrize("state", ["requesting", "renewing"])
def test_nak(state: str) -> None:
    """RFC 2131 §4.4.4, §4.4.5: begin anew; a lease that was ours is no longer."""
    scene = Leasing()
    if state == "renewing":
        lease = scene.lease()
        scene.until(lease.renew_at)
    else:
        scene.client.start(0.0)
        scene.until(1.0)
        scene.reply(dhcp.OFFER)
        scene.until(1.1)
    scene.reply(dhcp.NAK)
    assert (scene.told[-1:] == ["unbound"]) is (state == "renewing")
    assert scene.until(scene.now + 1.0) == [dhcp.DISCOVER]


def test_decline() -> None:
    """RFC 2131 §3.1 (5), §4.4.4: the address is in use; the server hears so, and we wait."""
    scene = Leasing()
    scene.client.start(0.0)
    scene.until(1.0)
    scene.reply(dhcp.OFFER)
    scene.until(1.1)
    scene.reply(dhcp.ACK)
    scene.client.checked(False, scene.now)
    message, _, dst = scene.sent[-1]
    assert (message.kind, dst) == (dhcp.DECLINE, b"\xff" * 4)
    assert message.address(dhcp.REQUESTED_ADDRESS) == MINE
    assert message.address(dhcp.SERVER_ID) == SERVER
    assert scene.told == []
    assert scene.until(scene.now + 9.9) == []
    assert scene.until(scene.now + 0.2) == [dhcp.DISCOVER]


def test_conflict_in_use() -> None:
    """RFC 5227 §2.4 (a), RFC 2131 §4.4.1."""
    scene = Leasing()
    scene.lease()
    scene.client.conflict(scene.now)
    assert scene.told[-1] == "unbound"
    assert scene.sent[-1][0].kind == dhcp.DECLINE


def test_silent_server_after_the_offer() -> None:
    """RFC 2131 §3.1 (5): four requests, then everything anew."""
    scene = Leasing()
    scene.client.start(0.0)
    scene.until(1.0)
    scene.reply(dhcp.OFFER)
    kinds = scene.until(100.0)
    assert kinds[:4] == [dhcp.REQUEST_LEASE] * 4
    assert dhcp.DISCOVER in kinds[4:]


@pytest.mark.parametrize(
    "field", [{"xid": 1}, {"chaddr": OTHER}, {"op": dhcp.REQUEST}, {"kind": dhcp.ACK}]
)
def test_answers_to_others(field: dict[str, Any]) -> None:
    """RFC 2131 §4.4.1: another transaction, client or state."""
    scene = Leasing()
    scene.client.start(0.0)
    scene.until(1.0)
    values = {"xid": scene.sent[-1][0].xid, "chaddr": MAC, "op": dhcp.REPLY, "kind": dhcp.OFFER}
    values |= field
    options = [(dhcp.SERVER_ID, SERVER), (dhcp.LEASE_TIME, bytes((0, 0, 9, 9)))]
    message = dhcp.build(
        values["kind"], values["xid"], values["chaddr"], options, op=values["op"], yiaddr=MINE
    )
    scene.client.received(message, 1.0)
    assert scene.until(1.5) == []


def test_release() -> None:
    """RFC 2131 §4.4.6: to the server, from the address that is given back."""
    scene = Leasing()
    scene.lease()
    scene.client.stop(scene.now)
    message, src, dst = scene.sent[-1]
    assert (message.kind, src, dst) == (dhcp.RELEASE, MINE, SERVER)
    assert scene.until(1e6) == []


def test_hostile_replies() -> None:
    scene = Leasing()
    scene.client.start(0.0)
    scene.until(1.0)
    rng = random.Random(6)
    good = dhcp.build(dhcp.OFFER, 1, MAC, [(dhcp.SERVER_ID, SERVER)], op=2, yiaddr=MINE)
    for _ in range(3000):
        octets = bytearray(good)
        octets[4:8] = scene.sent[-1][0].xid.to_bytes(4)
        for _ in range(rng.randrange(6)):
            octets[rng.randrange(236, 260)] = rng.randrange(256)
        try:
            scene.client.received(bytes(octets[: rng.randrange(230, 301)]), scene.now)
        except WireError:
            pass
        scene.until(scene.now + 0.01)


# ---------------------------------------------------------------------- RFC 3810

GROUP, OTHER_GROUP = from_text("ff02::1:ff00:1"), from_text("ff02::1:ff00:2")


def listener() -> tuple[mld.Listener, list[list[tuple[int, bytes]]]]:
    sent: list[list[tuple[int, bytes]]] = []
    return mld.Listener(sent.append, lambda *what: sent.append([what]), random.Random(1)), sent


def test_joining_is_reported_twice() -> None:
    """RFC 3810 §6.1: at once, and once more within a second; leaving too; never ff02::1."""
    groups, sent = listener()
    groups.join(ipv6.ALL_NODES, 0.0)
    assert groups.deadline() == inf
    groups.join(GROUP, 1.0)
    groups.join(GROUP, 1.0)
    run(groups, 1.0, 3.0)
    assert sent == [[(wire_mld.CHANGE_TO_EXCLUDE, GROUP)]] * 2
    groups.leave(GROUP, 4.0)
    assert GROUP in groups
    groups.leave(GROUP, 4.0)
    assert GROUP not in groups
    run(groups, 4.0, 6.0)
    assert sent[2:] == [[(wire_mld.CHANGE_TO_INCLUDE, GROUP)]] * 2


def test_queries() -> None:
    """RFC 3810 §6.2: a general one asks for all, another for its group, within the time given."""
    groups, sent = listener()
    for group in (ipv6.ALL_NODES, GROUP, OTHER_GROUP):
        groups.join(group, 0.0)
    run(groups, 0.0, 5.0)
    sent.clear()
    groups.query_arrives(wire_mld.Query(OTHER_GROUP, 2.0, 2), 10.0)
    assert 10.0 <= groups.deadline() <= 12.0
    run(groups, 10.0, 12.0)
    assert sent == [[(wire_mld.MODE_IS_EXCLUDE, OTHER_GROUP)]]
    groups.query_arrives(wire_mld.Query(from_text("ff02::99"), 2.0, 2), 20.0)
    assert groups.deadline() == inf
    groups.query_arrives(wire_mld.Query(bytes(16), 2.0, 2), 20.0)
    run(groups, 20.0, 22.0)
    assert sent[-1] == [
        (wire_mld.MODE_IS_EXCLUDE, GROUP), (wire_mld.MODE_IS_EXCLUDE, OTHER_GROUP),
    ]  # fmt: skip


def test_a_querier_of_version_1() -> None:
    """RFC 3810 §8.2.1, RFC 2710 §4: its version is spoken while it is there, and not for longer."""
    groups, sent = listener()
    for group in (ipv6.ALL_NODES, GROUP, OTHER_GROUP):
        groups.join(group, 0.0)
    run(groups, 0.0, 5.0)
    groups.join(from_text("ff02::77"), 10.0)
    sent.clear()
    groups.query_arrives(wire_mld.Query(bytes(16), 2.0, 1), 10.0)
    run(groups, 10.0, 12.0)
    # What waited in version 2 is cancelled.
    assert sent == [[(131, GROUP)], [(131, OTHER_GROUP)], [(131, from_text("ff02::77"))]]
    sent.clear()
    groups.leave(OTHER_GROUP, 20.0)
    run(groups, 20.0, 22.0)
    assert sent == [[(132, OTHER_GROUP)]] * 2
    # A group that somebody else has answered for needs no second answer.
    sent.clear()
    groups.query_arrives(wire_mld.Query(bytes(16), 2.0, 1), 30.0)
    groups.report_arrives(GROUP)
    run(groups, 30.0, 32.0)
    assert sent == [[(131, from_text("ff02::77"))]]
    groups.query_arrives(wire_mld.Query(GROUP, 2.0, 1), 40.0)
    groups.report_arrives(GROUP)
    assert groups.deadline() == inf
    # It is silent for long: version 2 again.
    sent.clear()
    groups.join(OTHER_GROUP, 40.0 + mld.OLDER_VERSION_QUERIER_PRESENT)
    run(groups, 40.0 + mld.OLDER_VERSION_QUERIER_PRESENT, 400.0)
    assert sent == [[(wire_mld.CHANGE_TO_EXCLUDE, OTHER_GROUP)]] * 2


def test_groups_are_bounded() -> None:
    groups, _ = listener()
    for number in range(mld.MAX_GROUPS):
        groups.join(GROUP[:14] + number.to_bytes(2), 0.0)
    with pytest.raises(ValueError, match="more than"):
        groups.join(from_text("ff02::99"), 0.0)


# ---------------------------------------------------------------------- routes, RFC 1122 §3.3.1


def route(cidr: str, gateway: str | None = None, link: object = "a", **fields: Any) -> Route:
    network, _, bits = cidr.partition("/")
    hop = from_text(gateway) if gateway else None
    return Route(from_text(network), int(bits), link, hop, **fields)


def test_longest_prefix_wins() -> None:
    table = Routes()
    for made in (
        route("0.0.0.0/0", "10.0.0.1"),
        route("10.0.0.0/24"),
        route("10.0.0.128/25", "10.0.0.2"),
        route("10.0.0.200/32", link="b"),
        route("::/0", "fe80::1"),
        route("2001:db8::/32", link="b"),
    ):
        table.add(made)
    expected = {
        "192.0.2.1": "default via 10.0.0.1",
        "10.0.0.7": "10.0.0.0/24",
        "10.0.0.129": "10.0.0.128/25 via 10.0.0.2",
        "10.0.0.200": "10.0.0.200/32",
        "2001:db8::5": "2001:db8::/32",
        "2001:db9::5": "default via fe80::1",
    }
    assert {to: str(table.lookup(from_text(to))) for to in expected} == expected
    found = table.lookup(from_text("2001:db8::5"), "a")
    assert str(found) == "default via fe80::1"


def test_metric_and_dead_routers() -> None:
    """RFC 4861 §6.3.6: routers that answer are preferred over those that do not."""
    table = Routes()
    first = table.add(route("::/0", "fe80::1"))
    second = table.add(route("::/0", "fe80::2"))
    worse = table.add(route("::/0", "fe80::3", metric=10))
    there = from_text("2001:db8::1")
    assert table.lookup(there) is first
    table.demote(from_text("fe80::1"), "a", True)
    assert table.lookup(there) is second
    table.demote(from_text("fe80::2"), "a", True)
    assert table.lookup(there) is worse
    table.demote(from_text("fe80::1"), "a", False)
    assert table.lookup(there) is first
    assert table.remove(lambda r: r.gateway is not None) == 3
    assert table.lookup(there) is None


def test_table_is_bounded_and_keeps_no_doubles() -> None:
    table = Routes()
    for _ in range(3):
        table.add(route("10.0.0.0/24"))
    assert len(table) == 1
    for number in range(CAPACITY - 1):
        table.add(Route(number.to_bytes(4), 32, "a", None))
    with pytest.raises(ValueError, match="routes"):
        table.add(Route(b"last", 32, "a", None))
    with pytest.raises(ValueError, match="gateway"):
        Routes().add(route("10.0.0.0/8", "fe80::1"))


# ---------------------------------------------------------------------- RFC 6724

D: Callable[[str], bytes] = from_text


def chosen(destination: str, *own: str, link: str = "a", deprecated: tuple[str, ...] = ()) -> str:
    candidates = [source.Candidate(D(text), 64, "a", text in deprecated) for text in own]
    found = source.choose(D(destination), candidates, link)
    return to_text(found) if found else ""


@pytest.mark.parametrize(
    ("destination", "own", "expected"),
    [
        # RFC 6724 §10.1, its examples as far as they choose a source by these rules.
        ("2001:db8:1::1", ("2001:db8:3::1", "fe80::1"), "2001:db8:3::1"),
        ("ff05::1", ("2001:db8:3::1", "fe80::1"), "2001:db8:3::1"),
        ("2001:db8:1::1", ("2001:db8:1::1", "2001:db8:2::1"), "2001:db8:1::1"),
        ("fe80::1", ("fe80::2", "2001:db8:1::1"), "fe80::2"),
        ("2001:db8:1::d5e3:0:0:1", ("2001:db8:1::2", "2001:db8:3::2"), "2001:db8:1::2"),
        ("2002:c633:6401::d5e3:0:0:1", ("2002:c633:6401::2", "2001:db8:1::2"), "2002:c633:6401::2"),
        ("fd00:1::1", ("2001:db8:1::2", "fd00:2::2"), "fd00:2::2"),
        ("ff02::1", ("2001:db8:1::2", "fe80::2"), "fe80::2"),
        ("10.0.0.1", ("fe80::1",), ""),
        ("10.0.5.1", ("10.0.9.1", "10.0.5.9"), "10.0.5.9"),
        ("169.254.7.7", ("10.0.0.1", "169.254.1.1"), "169.254.1.1"),
    ],
)
def test_source_selection(destination: str, own: tuple[str, ...], expected: str) -> None:
    assert chosen(destination, *own) == expected
    assert chosen(destination, *reversed(own)) == expected


def test_deprecated_and_scope() -> None:
    """RFC 6724 §5, rules 2 and 3, and §4: a link-local address belongs to its link."""
    one, two = "2001:db8:1::1", "2001:db8:2::1"
    assert chosen("2001:db8:1::9", one, two, deprecated=(one,)) == two
    assert chosen("2001:db8:1::9", one, "fe80::1", deprecated=(one,)) == one
    assert chosen("fe80::9", "fe80::1", link="b") == ""
