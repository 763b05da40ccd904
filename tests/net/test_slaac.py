"""RFC 4861 §6.3, RFC 4862, RFC 7217, RFC 8106: an interface configures itself, in virtual time."""

from __future__ import annotations

import itertools
import random
from math import inf
from typing import Any

import pytest

from appliance.net.neighbor6 import NeighborCache6
from appliance.net.router_discovery import MAX_PREFIXES, MAX_ROUTERS, MAX_SERVERS
from appliance.net.slaac import (
    DEPRECATED,
    MAX_ADDRESSES,
    PREFERRED,
    TENTATIVE,
    OwnAddress,
    Slaac,
)
from appliance.net.stable_iid import identifier, reserved
from appliance.net.wire import icmpv6, ipv6, ndp
from appliance.net.wire.address import from_text, to_text

MAC, ROUTER_MAC = b"\2\0\0\0\0\1", b"\2\0\0\0\0\xfe"
ROUTER, OTHER_ROUTER = from_text("fe80::fe"), from_text("fe80::fd")
PREFIX = from_text("2001:db8:1::")
PEER = from_text("fe80::77")


class Scene:
    """A machine, and everything that it had its owner do."""

    def __init__(self, **options: Any) -> None:
        self.sent: list[tuple[bytes, bytes, int, int, bytes]] = []
        self.changes: list[tuple[str, str]] = []
        self.routes: set[tuple[str, int, str | None]] = set()
        self.groups: list[bytes] = []
        self.mtu = 1500
        self.hop: bytes | None = ROUTER
        self.now = 0.0
        self.cache = NeighborCache6(
            MAC,
            lambda head, payload=b"": True,
            source_for=lambda _: bytes(16),
            random=random.Random(2),
            on_unreachable=lambda a, f: None,
            on_lost=lambda a: self.machine.lost(a, self.now),
        )
        options = {"secret": b"s" * 16, "random": random.Random(3), **options}
        self.machine = Slaac(self, self.cache, MAC, "eth0", 1500, **options)

    # What the machine asks of its owner.

    def send_icmp6(
        self, src: bytes, dst: bytes, kind: int, rest: int, body: bytes, mac: bytes = b""
    ) -> None:
        self.sent.append((src, dst, kind, rest, body))

    def address_changed(self, own: OwnAddress) -> None:
        self.changes.append((own.state, to_text(own.address)))

    def address_gone(self, own: OwnAddress, duplicate: bool) -> None:
        self.changes.append(("duplicate" if duplicate else "gone", to_text(own.address)))

    def join(self, group: bytes) -> None:
        self.groups.append(group)

    def leave(self, group: bytes) -> None:
        self.groups.remove(group)

    def set_route(self, network: bytes, prefix_len: int, gateway: bytes | None) -> None:
        self.routes.add((to_text(network), prefix_len, gateway and to_text(gateway)))

    def drop_route(self, network: bytes, prefix_len: int, gateway: bytes | None) -> None:
        self.routes.remove((to_text(network), prefix_len, gateway and to_text(gateway)))

    def first_hop(self, destination: bytes) -> bytes | None:
        return self.hop

    def path_mtu6(self, mtu: int) -> None:
        self.mtu = mtu

    # The script's verbs.

    def until(self, at: float) -> list[tuple[float, int]]:
        """Run to `at`; (time, ICMPv6 type) of what was sent."""
        told = []
        while (due := self.machine.deadline()) <= at:
            self.now = max(self.now, due)
            before = len(self.sent)
            self.machine.advance(self.now)
            told += [(self.now, message[2]) for message in self.sent[before:]]
            assert self.machine.deadline() > self.now
        self.now = at
        return told

    def ready(self) -> Scene:
        """Past duplicate detection of the link-local address."""
        self.machine.start(0.0)
        self.until(2.5)
        assert self.machine.link_local() is not None
        self.sent.clear()
        return self

    def advertise(
        self, *prefixes: ndp.Prefix, src: bytes = ROUTER, lifetime: int = 1800, **fields: Any
    ) -> None:
        values: dict[str, Any] = {
            "hop_limit": 0, "managed": False, "other": False, "lifetime": lifetime,
            "reachable": 0.0, "retransmit": 0.0, "link": b"", "mtu": 0,
            "prefixes": prefixes, "servers": (), **fields,
        }  # fmt: skip
        self.machine.router_advertised(src, ndp.RouterAdvertisement(**values), self.now)

    def of(self, origin: str) -> list[OwnAddress]:
        return [own for own in self.machine.addresses.values() if own.origin == origin]


def prefix(valid: int = 7200, preferred: int = 3600, **fields: Any) -> ndp.Prefix:
    values: dict[str, Any] = {
        "length": 64, "on_link": True, "autonomous": True, "valid": valid,
        "preferred": preferred, "prefix": PREFIX, **fields,
    }  # fmt: skip
    return ndp.Prefix(**values)


def test_link_local_address() -> None:
    """RFC 4862 §5.3, §5.4.2: joined first, then asked for from "::", and ours after a second."""
    scene = Scene()
    scene.machine.start(0.0)
    own = scene.of("link-local")[0]
    assert own.address[:8] == from_text("fe80::")[:8]
    assert own.state == TENTATIVE
    assert scene.groups == [ipv6.ALL_NODES, ipv6.solicited_node(own.address)]
    told = scene.until(2.5)
    asked, kind = told[0]
    assert kind == icmpv6.NEIGHBOR_SOLICITATION
    assert 0 <= asked <= 1.0
    src, dst, _, _, body = scene.sent[0]
    assert (src, dst) == (ipv6.UNSPECIFIED, ipv6.solicited_node(own.address))
    # RFC 7527 §4.1: with a nonce, without our MAC (RFC 4861 §4.3).
    question = ndp.parse_solicitation(body, 0, len(body), src, dst)
    assert question == (own.address, b"", own.nonce)
    assert scene.changes == [(PREFERRED, to_text(own.address))]
    # RFC 4861 §6.3.7: and then routers are looked for.
    assert told[1] == (asked + 1.0, icmpv6.ROUTER_SOLICITATION)
    src, dst, _, _, body = scene.sent[1]
    assert (src, dst, body) == (own.address, ipv6.ALL_ROUTERS, ndp.router_solicitation(MAC))


def test_router_solicitations_back_off() -> None:
    """RFC 7559 §2: four seconds, then twice as long each time, an hour at the most, for ever."""
    scene = Scene().ready()
    times = [at for at, kind in scene.until(20_000.0) if kind == icmpv6.ROUTER_SOLICITATION]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    for gap, nominal in zip(gaps, (8, 16, 32, 64, 128, 256, 512, 1024, 2048), strict=False):
        assert nominal * 0.6 < gap < nominal * 1.6
    assert 3200 < gaps[-1] < 4000
    assert len(times) > 11
    scene.advertise(lifetime=0)  # by a router that is none
    assert len(scene.until(30_000.0)) >= 2
    scene.advertise(lifetime=1800)
    assert scene.until(31_799.0) == []
    # Its lifetime has ended and nobody else is there: all over again.
    assert len(scene.until(31_830.0)) == 4


@pytest.mark.parametrize("how", ["advertisement", "solicitation"])
def test_duplicate(how: str) -> None:
    """RFC 4862 §5.4.3, §5.4.4; RFC 7217 §6: another identifier, three times, then silence."""
    scene = Scene()
    scene.machine.start(0.0)
    tried = []
    for _ in range(6):
        addresses = scene.of("link-local")
        if not addresses:
            break
        own = addresses[0]
        tried.append(own.address)
        scene.until(own.check_at)
        if how == "advertisement":
            heard = ndp.Advertisement(own.address, ROUTER_MAC, False, False, True)
            scene.machine.advertised(heard, scene.now)
        else:
            scene.machine.solicited(
                ipv6.UNSPECIFIED, ndp.Solicitation(own.address, b"", b"theirs"), scene.now
            )
    assert len(set(tried)) == 4
    assert [change for change, _ in scene.changes] == ["duplicate"] * 4
    assert scene.groups == [ipv6.ALL_NODES]


def test_our_own_echo_is_no_duplicate() -> None:
    """RFC 7527 §4.2: a solicitation with our nonce came back on a loop; one from a unicast
    address is resolution, and ignored (RFC 4862 §5.4.3).
    """
    scene = Scene()
    scene.machine.start(0.0)
    own = scene.of("link-local")[0]
    scene.until(own.check_at)
    scene.machine.solicited(
        ipv6.UNSPECIFIED, ndp.Solicitation(own.address, b"", own.nonce), scene.now
    )
    scene.machine.solicited(PEER, ndp.Solicitation(own.address, ROUTER_MAC, b""), scene.now)
    scene.until(3.0)
    assert own.state == PREFERRED


def test_answers() -> None:
    """RFC 4861 §7.2.4: solicited to who asks, unsolicited to all when nobody in particular did."""
    scene = Scene().ready()
    own = scene.of("link-local")[0].address
    scene.machine.solicited(PEER, ndp.Solicitation(own, ROUTER_MAC, b""), 3.0)
    scene.machine.solicited(ipv6.UNSPECIFIED, ndp.Solicitation(own, b"", b""), 3.0)
    scene.machine.solicited(PEER, ndp.Solicitation(PEER, ROUTER_MAC, b""), 3.0)
    body = ndp.advertisement(own, MAC)
    both = ndp.SOLICITED | ndp.OVERRIDE
    assert scene.sent == [
        (own, PEER, icmpv6.NEIGHBOR_ADVERTISEMENT, both, body),
        (own, ipv6.ALL_NODES, icmpv6.NEIGHBOR_ADVERTISEMENT, ndp.OVERRIDE, body),
    ]
    # §7.2.3: and who asked is known from now on.
    assert scene.cache.entries()[0].address == PEER


def test_address_from_a_prefix() -> None:
    """RFC 4862 §5.5.3: made, checked, preferred, deprecated, gone; the prefix is on-link."""
    scene = Scene().ready()
    scene.advertise(prefix(valid=9000, preferred=600))
    own = scene.of("slaac")[0]
    assert own.address[:8] == PREFIX[:8]
    assert own.address[8:] == identifier(b"s" * 16, PREFIX, "eth0", 0)
    assert ("2001:db8:1::", 64, None) in scene.routes
    assert ("::", 0, "fe80::fe") in scene.routes
    scene.until(10.0)
    assert own.state == PREFERRED
    scene.until(700.0)
    assert own.state == DEPRECATED
    scene.until(9010.0)
    assert [state for state, address in scene.changes if address == to_text(own.address)] == [
        PREFERRED, DEPRECATED, "gone",
    ]  # fmt: skip
    assert scene.routes == {("fe80::", 64, None)}  # RFC 4861 §6.3.5: prefix and router timed out


@pytest.mark.parametrize(
    "bad",
    [
        prefix(prefix=from_text("fe80::")),
        prefix(valid=10, preferred=20),
        prefix(length=56),
        prefix(valid=0, preferred=0),
        prefix(autonomous=False),
    ],
)
def test_prefixes_that_make_no_address(bad: ndp.Prefix) -> None:
    """RFC 4862 §5.5.3 (a) to (d)."""
    scene = Scene().ready()
    scene.advertise(bad)
    assert scene.of("slaac") == []


@pytest.mark.parametrize(
    ("remaining", "advertised", "expected"),
    [
        (10_000, 20_000, 20_000),
        (1_000, 2_000, 2_000),
        (1_000, 500, 1_000),
        (5_000, 60, 5_000),
        (50_000, 60, 7_200),
        (50_000, 7_300, 7_300),
    ],
)
def test_two_hours(remaining: int, advertised: int, expected: int) -> None:
    """RFC 4862 §5.5.3 (e): a forged advertisement cannot take an address away at once."""
    scene = Scene().ready()
    scene.advertise(prefix(valid=remaining, preferred=remaining))
    scene.advertise(prefix(valid=advertised, preferred=0))
    assert scene.of("slaac")[0].valid_until == scene.now + expected
    assert scene.of("slaac")[0].preferred_until == scene.now


def test_deprecated_comes_back() -> None:
    scene = Scene().ready()
    scene.advertise(prefix(preferred=60))
    scene.until(100.0)
    own = scene.of("slaac")[0]
    assert own.state == DEPRECATED
    scene.advertise(prefix(preferred=600))
    assert own.state == PREFERRED


def test_infinite_lifetimes() -> None:
    """RFC 4861 §4.6.2."""
    scene = Scene().ready()
    scene.advertise(prefix(valid=ndp.INFINITE, preferred=ndp.INFINITE))
    own = scene.of("slaac")[0]
    assert (own.valid_until, own.preferred_until) == (inf, inf)


def test_parameters_of_the_router() -> None:
    """RFC 4861 §6.3.4: hop limit, times, MTU; what makes no sense is ignored."""
    scene = Scene().ready()
    scene.advertise(hop_limit=77, reachable=20.0, retransmit=0.5, mtu=1400, link=ROUTER_MAC)
    assert scene.machine.hop_limit == 77
    assert (scene.cache.base_reachable, scene.cache.retransmit, scene.mtu) == (20.0, 0.5, 1400)
    assert scene.cache.entries()[0].router
    for mtu in (1279, 1501, 9000):
        scene.advertise(mtu=mtu)
    scene.advertise(reachable=4000.0, retransmit=4_000_000.0)
    assert (scene.cache.base_reachable, scene.cache.retransmit, scene.mtu) == (20.0, 0.5, 1400)


def test_router_says_goodbye() -> None:
    """RFC 4861 §6.3.4: lifetime nought is a router that is none any more."""
    scene = Scene().ready()
    scene.advertise()
    scene.advertise(src=OTHER_ROUTER, lifetime=60)
    assert set(scene.machine.routers) == {ROUTER, OTHER_ROUTER}
    scene.advertise(lifetime=0)
    assert set(scene.machine.routers) == {OTHER_ROUTER}
    scene.until(100.0)
    assert not scene.machine.routers
    assert scene.routes == {("fe80::", 64, None)}


def test_resolvers() -> None:
    """RFC 8106 §5.3.1: lifetimes, and nought takes one back."""
    scene = Scene().ready()
    one, two = from_text("2001:db8::53"), from_text("2001:db8::54")
    scene.advertise(servers=((600, (one, two)),))
    assert list(scene.machine.servers) == [one, two]
    scene.advertise(servers=((0, (one,)),))
    assert list(scene.machine.servers) == [two]
    scene.until(700.0)
    assert not scene.machine.servers


def test_redirects() -> None:
    """RFC 4861 §8.1, §8.3: from the first hop only; until its target is lost."""
    scene = Scene().ready()
    scene.advertise()
    there = from_text("2001:db8:9::1")
    scene.machine.redirected(OTHER_ROUTER, ndp.Redirect(OTHER_ROUTER, there, b""), scene.now)
    assert not scene.machine.redirects
    scene.machine.redirected(ROUTER, ndp.Redirect(OTHER_ROUTER, there, ROUTER_MAC), scene.now)
    assert ("2001:db8:9::1", 128, "fe80::fd") in scene.routes
    scene.machine.redirected(ROUTER, ndp.Redirect(there, there, b""), scene.now)
    assert ("2001:db8:9::1", 128, None) in scene.routes
    assert ("2001:db8:9::1", 128, "fe80::fd") not in scene.routes
    scene.machine.redirected(ROUTER, ndp.Redirect(OTHER_ROUTER, there, b""), scene.now)
    scene.machine.lost(OTHER_ROUTER, scene.now)
    assert not scene.machine.redirects
    assert not [route for route in scene.routes if route[1] == 128]


def test_the_only_router_is_lost() -> None:
    """RFC 4861 §6.3.6, §7.3.3: ask whether there is another one."""
    scene = Scene().ready()
    scene.advertise()
    scene.machine.lost(ROUTER, scene.now)
    assert [kind for _, kind in scene.until(scene.now + 1)] == [icmpv6.ROUTER_SOLICITATION]


def test_a_flood_of_advertisements_is_bounded() -> None:
    """RFC 6104 §2: thousands of routers, prefixes and resolvers fill tables of a fixed size."""
    scene = Scene().ready()
    for number in range(2000):
        network = from_text("2001:db8::")[:4] + number.to_bytes(4) + bytes(8)
        scene.advertise(
            prefix(prefix=network),
            src=ROUTER[:12] + number.to_bytes(4),
            servers=((600, (network,)),),
        )
        scene.machine.redirected(ROUTER, ndp.Redirect(network, network, b""), scene.now)
    machine = scene.machine
    assert len(machine.addresses) == MAX_ADDRESSES
    assert len(machine.prefixes) == MAX_PREFIXES
    assert len(machine.routers) == MAX_ROUTERS
    assert len(machine.servers) == MAX_SERVERS
    assert len(scene.routes) < 100


def test_static_addresses_are_checked_too() -> None:
    """RFC 4862 §5.4: all unicast addresses, however they were obtained."""
    scene = Scene(autonomous=False).ready()
    mine = from_text("2001:db8:5::5")
    scene.machine.add(mine, 64, scene.now)
    assert ("2001:db8:5::", 64, None) in scene.routes
    scene.until(scene.now + 3)
    assert scene.machine.addresses[mine].state == PREFERRED
    scene.advertise(prefix())
    assert scene.of("slaac") == []
    assert scene.machine.routers == {}


def test_without_detection() -> None:
    """RFC 4862 §5.1: DupAddrDetectTransmits of nought uses addresses at once."""
    scene = Scene(detect=0)
    scene.machine.start(0.0)
    scene.until(0.0)
    assert scene.of("link-local")[0].state == PREFERRED


def test_stable_identifiers() -> None:
    """RFC 7217 §4: the same in the same network, different in another, for another interface."""
    other = from_text("2001:db8:2::")
    base = identifier(b"k" * 16, PREFIX, "eth0", 0)
    assert identifier(b"k" * 16, PREFIX, "eth0", 0) == base
    variants = {
        identifier(b"k" * 16, other, "eth0", 0),
        identifier(b"k" * 16, PREFIX, "eth1", 0),
        identifier(b"k" * 16, PREFIX, "eth0", 1),
        identifier(b"K" * 16, PREFIX, "eth0", 0),
    }
    assert len(variants | {base}) == 5
    # RFC 5453: what has a meaning already.
    assert reserved(bytes(8))
    assert reserved(bytes.fromhex("02005efffe000001"))
    assert reserved(bytes.fromhex("fdffffffffffff80"))
    assert not reserved(bytes.fromhex("fdffffffffffff7f"))
