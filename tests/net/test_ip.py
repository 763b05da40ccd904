"""Our addresses, and the way to others (RFC 1122 §3.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.ip import LIMITED_BROADCAST, MAX_ADDRESSES, Addresses


def octets(text: str) -> bytes:
    return bytes(int(part) for part in text.split("."))


def of(*cidrs: str, gateways: tuple[str, ...] = ()) -> Addresses:
    addresses = Addresses()
    for cidr in cidrs:
        addresses.add(cidr)
    for gateway in gateways:
        addresses.add_gateway(gateway)
    return addresses


def test_neighbours_are_reached_directly_and_others_by_the_gateway() -> None:
    """RFC 1122 §3.3.1.1, §3.3.1.2."""
    addresses = of("10.0.0.2/24", gateways=("10.0.0.1",))
    assert addresses.next_hop(octets("10.0.0.77")) == octets("10.0.0.77")
    assert addresses.next_hop(octets("192.0.2.1")) == octets("10.0.0.1")


def test_without_a_gateway_there_is_no_way() -> None:
    assert of("10.0.0.2/24").next_hop(octets("192.0.2.1")) is None
    assert of().next_hop(octets("192.0.2.1")) is None


def test_families_do_not_mix() -> None:
    """Addresses of 4 and 16 octets: an IPv4 gateway is none for IPv6."""
    addresses = of("10.0.0.2/24", gateways=("10.0.0.1",))
    there = bytes((0x20, 1)) + bytes(14)
    assert addresses.next_hop(there) is None
    assert addresses.source_for(there) is None


def test_source_is_on_the_network_of_the_destination() -> None:
    """RFC 1122 §3.3.4.3: else the first of the family."""
    addresses = of("10.0.0.2/24", "192.168.5.9/16")
    assert addresses.source_for(octets("192.168.1.1")) == octets("192.168.5.9")
    assert addresses.source_for(octets("10.0.0.1")) == octets("10.0.0.2")
    assert addresses.source_for(octets("8.8.8.8")) == octets("10.0.0.2")


def test_broadcasts() -> None:
    """RFC 1122 §3.2.1.3: directed and limited; RFC 3021: a /31 has none, nor has a /32."""
    assert of("10.1.2.3/20").broadcasts == {LIMITED_BROADCAST, octets("10.1.15.255")}
    assert of("10.1.2.3/31").broadcasts == {LIMITED_BROADCAST}
    assert of("10.1.2.3").broadcasts == {LIMITED_BROADCAST}


@pytest.mark.parametrize(
    "cidr", ["224.0.0.1/4", "255.255.255.255", "127.0.0.1/8", "0.0.0.0/0", "10.0.0.2/33", "x", ""]
)
def test_addresses_that_no_host_has(cidr: str) -> None:
    """RFC 1122 §3.2.1.3."""
    with pytest.raises(ValueError, match=r"."):
        of(cidr)


@pytest.mark.parametrize("gateway", ["192.0.2.1", "nonsense"])
def test_gateways_must_be_neighbours(gateway: str) -> None:
    """RFC 1122 §3.3.1.2."""
    with pytest.raises(ValueError, match=r"."):
        of("10.0.0.2/24", gateways=(gateway,))


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
    [(bytes(16), False), (b"\xff\x02" + bytes(14), False), (b"\xfe\x80" + bytes(14), True)],
)
def test_who_may_send_ipv6(address: bytes, good: bool) -> None:
    """RFC 4291 §2.5.2, §2.7: neither the unspecified address nor a group."""
    assert Addresses.is_unicast(address) == good
