"""The stub resolver between two of our own stacks: whom it asks, over which family, for what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6NDOptRDNSS, IPv6
from scapy.layers.l2 import Ether

from appliance.net import Stack
from appliance.net.dhcp import Lease
from appliance.net.link import Ipv6Settings
from appliance.net.vif.pair import pair
from appliance.net.wire.address import from_text
from appliance.net.wire.virtio import PLAIN
from appliance.resolver import (
    MAX_ASKED,
    NoSuchNameError,
    Resolver,
    ResolverError,
    _kinds,
    system_resolvers,
)

FOUR, SIX = "10.0.0.53", "2001:db8::53"
RECORDS = {"A": "192.0.2.1", "AAAA": "2001:db8:1::1"}


class Server(asyncio.DatagramProtocol):
    """Knows www.example.org; remembers what it was asked, and from where."""

    def __init__(self, asked: list[tuple[str, str]]) -> None:
        self.asked = asked
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((addr[0], kind))
        reply = dns.message.make_response(query)
        if question.name.to_text() == "www.example.org.":
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, RECORDS[kind]))
        elif question.name.to_text() != "empty.example.org.":
            reply.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(reply.to_wire(), addr)


@asynccontextmanager
async def cable(*ours: str) -> AsyncIterator[tuple[Stack, list[tuple[str, str]]]]:
    """Our stack with its addresses, and what a server on the other end of the cable was asked."""
    near, far = pair()
    quick = Ipv6Settings(b"s" * 16, detect=0)
    asked: list[tuple[str, str]] = []
    async with (
        Stack(near, addresses=ours, ipv6=quick) as stack,
        Stack(far, addresses=[f"{FOUR}/24", f"{SIX}/64"], ipv6=quick) as other,
    ):
        for address in (FOUR, SIX):
            await other.configured(5.0, lambda had, a=address: any(a in one for one in had))
            await other.create_datagram_endpoint(lambda: Server(asked), local_addr=(address, 53))
        yield stack, asked


def advertise(stack: Stack, *servers: str) -> None:
    """A router says who resolves."""
    ra = IPv6(src="fe80::9", dst="ff02::1", hlim=255) / ICMPv6ND_RA()
    frame = Ether(src="02:00:00:00:00:99", dst="33:33:00:00:00:01") / ra
    octets = PLAIN + bytes(frame / ICMPv6NDOptRDNSS(dns=list(servers), lifetime=600))
    stack.host.receive([octets], time.monotonic())


def lend(stack: Stack, *servers: str) -> None:
    """A DHCP server says who resolves."""
    named = tuple(from_text(server) for server in servers)
    mine = from_text("10.0.0.2")
    stack.host.links[0].v4.lease = Lease(mine, 24, named[0], (), named, 0, inf, inf, inf)


@pytest.mark.asyncio
async def test_an_advertised_resolver_is_asked_over_ipv6(tmp_path: Path) -> None:
    """RFC 8106 §5.3.1, on a network with IPv6 only: a name becomes an IPv6 address."""
    async with cable("2001:db8::2/64") as (stack, asked):
        await stack.configured(5.0, lambda had: "2001:db8::2/64" in had)
        resolver = Resolver(stack, system=tmp_path / "none")
        with pytest.raises(ResolverError, match="no resolver to ask"):
            await resolver.query("www.example.org", "AAAA")
        advertise(stack, SIX)
        assert resolver.servers() == [SIX]
        assert await resolver.addresses("www.example.org") == [RECORDS["AAAA"]]
        assert asked == [("2001:db8::2", "AAAA")]
        with pytest.raises(NoSuchNameError):
            await resolver.addresses("nobody.example.org")
        with pytest.raises(ResolverError, match="has no address"):
            await resolver.addresses("empty.example.org")


@pytest.mark.asyncio
async def test_a_lent_resolver_is_asked_over_ipv4(tmp_path: Path) -> None:
    """RFC 2132 §3.8: the option that DHCP servers send."""
    async with cable("10.0.0.2/24") as (stack, asked):
        lend(stack, FOUR)
        resolver = Resolver(stack, system=tmp_path / "none")
        assert await resolver.addresses("www.example.org") == [RECORDS["A"]]
        assert asked == [("10.0.0.2", "A")]


@pytest.mark.asyncio
async def test_both_families(tmp_path: Path) -> None:
    """RFC 6724 §2.1: what IPv6 reaches comes first; a literal address is its own."""
    async with cable("10.0.0.2/24", "2001:db8::2/64") as (stack, asked):
        await stack.configured(5.0, lambda had: "2001:db8::2/64" in had)
        resolver = Resolver(stack, [FOUR])
        assert await resolver.addresses("www.example.org") == [RECORDS["AAAA"], RECORDS["A"]]
        assert sorted(kind for _, kind in asked) == ["A", "AAAA"]
        assert await resolver.addresses("2001:db8::7") == ["2001:db8::7"]


@pytest.mark.asyncio
async def test_who_is_asked(tmp_path: Path) -> None:
    """The settings, else what the network offers, routers first, else the system's; never many."""
    system = tmp_path / "resolv.conf"
    system.write_text("nameserver 192.0.2.9\n")
    async with cable("10.0.0.2/24") as (stack, _):
        assert Resolver(stack, system=system).servers() == ["192.0.2.9"]
        lend(stack, FOUR)
        advertise(stack, SIX)
        assert Resolver(stack, system=system).servers() == [SIX, FOUR]
        assert Resolver(stack, ["192.0.2.7"], system=system).servers() == ["192.0.2.7"]
        advertise(stack, *(f"2001:db8::{number}" for number in range(1, 9)))
        assert len(Resolver(stack, system=system).servers()) == MAX_ASKED


def test_the_systems_resolvers(tmp_path: Path) -> None:
    """Those that others reach too, of both families."""
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# nameserver 192.0.2.1\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.9\n"
        "nameserver 2001:db8::53\nnameserver fe80::1%eth0\nnameserver\nnameserver what\nsearch a\n"
    )
    assert system_resolvers(path) == ["192.0.2.9", "2001:db8::53"]
    assert system_resolvers(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("ours", "kinds"),
    [
        ([], ["A"]),
        (["fe80::2/64"], ["A"]),
        (["10.0.0.2/24", "fe80::2/64"], ["A"]),
        (["10.0.0.2/24", "fd00::2/64"], ["A", "AAAA"]),
        (["10.0.0.2/24", "2001:db8::2/64"], ["AAAA", "A"]),
        (["2001:db8::2/64"], ["AAAA"]),
        (["fd00::2/64"], ["AAAA"]),
    ],
)
def test_families_by_our_addresses(ours: list[str], kinds: list[str]) -> None:
    assert _kinds(ours) == kinds
