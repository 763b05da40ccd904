"""Our addresses, and the way to others (RFC 1122 §3.3, RFC 4291)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.counters import Counters
from appliance.net.ip import LIMITED_BROADCAST, MAX_ADDRESSES, Addresses
from appliance.net.stack import Host
from appliance.net.vif.pair import pair
from appliance.net.wire.address import from_text, to_text


def of(*cidrs: str) -> Addresses:
    addresses = Addresses()
    for cidr in cidrs:
        addresses.add(cidr)
    return addresses


def host(*cidrs: str, gateways: tuple[str, ...] = ()) -> Host:
    made = Host(pair()[0], random=random.Random(1))
    for cidr in cidrs:
        made.add_address(cidr)
    for gateway in gateways:
        made.add_gateway(gateway)
    return made


def hop(made: Host, there: str) -> str | None:
    way = made.network.way(from_text(there))
    return to_text(way[1].address) if way is not None else None


def test_neighbours_are_reached_directly_and_others_by_the_gateway() -> None:
    """RFC 1122 §3.3.1.1, §3.3.1.2."""
    made = host("10.0.0.2/24", gateways=("10.0.0.1",))
    assert hop(made, "10.0.0.77") == "10.0.0.77"
    assert hop(made, "192.0.2.1") == "10.0.0.1"


def test_without_a_gateway_there_is_no_way() -> None:
    assert hop(host("10.0.0.2/24"), "192.0.2.1") is None
    assert hop(host(), "192.0.2.1") is None


def test_families_do_not_mix() -> None:
    """Addresses of 4 and 16 octets: an IPv4 gateway is none for IPv6."""
    made = host("10.0.0.2/24", gateways=("10.0.0.1",))
    assert hop(made, "2001::") is None
    assert made.network.source_for(from_text("2001::")) is None
    six = host("2001:db8::2/64", gateways=("fe80::1",))
    assert hop(six, "2001:db8::9") == "2001:db8::9"
    assert hop(six, "2001:db9::9") == "fe80::1"
    assert hop(six, "10.0.0.1") is None


def test_source_is_on_the_network_of_the_destination() -> None:
    """RFC 1122 §3.3.4.3: else the first of the family."""
    addresses = of("10.0.0.2/24", "192.168.5.9/16")
    assert addresses.source_for(from_text("192.168.1.1")) == from_text("192.168.5.9")
    assert addresses.source_for(from_text("10.0.0.1")) == from_text("10.0.0.2")


def test_broadcasts() -> None:
    """RFC 1122 §3.2.1.3: directed and limited; RFC 3021: a /31 has none, nor has a /32."""
    assert of("10.1.2.3/20").broadcasts == {LIMITED_BROADCAST, from_text("10.1.15.255")}
    assert of("10.1.2.3/31").broadcasts == {LIMITED_BROADCAST}
    assert of("10.1.2.3").broadcasts == {LIMITED_BROADCAST}
    both = of("10.1.2.3/20", "10.2.0.1/16")
    assert both.several
    both.remove(from_text("10.1.2.3"))
    assert both.broadcasts == {LIMITED_BROADCAST, from_text("10.2.255.255")}
    assert not both.several


@pytest.mark.parametrize(
    "cidr",
    [
        "224.0.0.1/4", "255.255.255.255", "127.0.0.1/8", "0.0.0.0/0", "10.0.0.2/33", "x", "",
        "::/0", "::1/128", "ff02::1/16", "::ffff:10.0.0.1/128",
    ],
)  # fmt: skip
def test_addresses_that_no_host_has(cidr: str) -> None:
    """RFC 1122 §3.2.1.3, RFC 4291 §2.5."""
    with pytest.raises(ValueError, match=r"."):
        of(cidr)
    with pytest.raises(ValueError, match=r"."):
        host(cidr)


@pytest.mark.parametrize("gateway", ["192.0.2.1", "nonsense", "2001:db8::1"])
def test_gateways_must_be_neighbours(gateway: str) -> None:
    """RFC 1122 §3.3.1.2."""
    with pytest.raises(ValueError, match=r"."):
        host("10.0.0.2/24", gateways=(gateway,))


def test_addresses_are_bounded() -> None:
    addresses = of(*(f"10.0.{n}.1/24" for n in range(MAX_ADDRESSES)))
    with pytest.raises(ValueError, match="more than"):
        addresses.add("10.9.0.1/24")


@given(st.binary(min_size=4, max_size=4))
def test_who_may_send(address: bytes) -> None:
    """RFC 1122 §3.2.1.3: classes A to C without 0 and 127."""
    first = address[0]
    assert Addresses.is_unicast(address) == (1 <= first <= 223 and first != 127)


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("::", False), ("::1", False), ("ff02::1", False), ("::ffff:10.0.0.1", False),
        ("fe80::1", True), ("2001:db8::1", True), ("0:0:0:1::", True), ("64:ff9b::10.0.0.1", True),
    ],
)  # fmt: skip
def test_who_may_send_ipv6(address: str, good: bool) -> None:
    """RFC 4291 §2.5.2, §2.5.3, §2.5.5.2, §2.7: what no other host can have."""
    assert Addresses.is_unicast(from_text(address)) == good


def test_counters_know_every_name() -> None:
    assert "ip_reassembled" in Counters().as_dict()
