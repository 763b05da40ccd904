"""Truncated and lying headers at every layer: a named counter or plain values, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.checksum import checksum
from appliance.net.counters import Counters
from appliance.net.errors import WireError
from appliance.net.wire import COUNTERS, address, arp, ethernet, icmp, ipv4, tcp, udp, virtio

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))

PARSERS: dict[str, Callable[[bytes, int, int], object]] = {
    "virtio": lambda data, at, end: virtio.parse(data[:end], at),
    "ethernet": lambda data, at, end: ethernet.parse(data[:end], at),
    "arp": arp.parse,
    "ipv4": ipv4.parse,
    "ipv4 quoted": ipv4.parse_quoted,
    "icmp": icmp.parse,
    "udp": udp.parse,
    "tcp": tcp.parse,
    "tcp options": tcp.parse_options,
}
WHOLE: dict[str, bytes] = {
    "virtio": virtio.pack(1, 1, 66, 1448, 34, 16),
    "ethernet": ethernet.header(ethernet.BROADCAST, b"\2" * 6, 0x800),
    "arp": arp.build(arp.REQUEST, b"\2" * 6, A, bytes(6), B),
    "ipv4": ipv4.header(A, B, 6, 4, options=b"\x94\x04\0\0") + b"data",
    "icmp": icmp.echo_request(1, 2, b"body"),
    "udp": udp.build(A, B, 1, 2, b"data"),
    "tcp": tcp.build(A, B, 1, 2, 3, 4, tcp.ACK, 5, options=b"\1" * 12, payload=b"data"),
}


def outcome(name: str, data: bytes, at: int, end: int) -> str:
    """The counter that the parser named, or nothing; anything else it raises fails the test."""
    try:
        PARSERS[name](data, at, end)
    except WireError as error:
        return error.counter
    return ""


def test_every_counter_exists_in_the_stack() -> None:
    missing = [name for name in COUNTERS if not hasattr(Counters(), name)]
    assert not missing


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=120), at=st.integers(0, 60), spare=st.integers(-8, 8))
def test_any_octets_raise_only_wire_errors(name: str, data: bytes, at: int, spare: int) -> None:
    assert outcome(name, data, at, max(at, len(data) + spare)) in {"", *COUNTERS}


@pytest.mark.parametrize("name", WHOLE)
def test_each_truncation_is_refused(name: str) -> None:
    whole = WHOLE[name]
    PARSERS[name](whole, 0, len(whole))
    shortest = {"icmp": 8, "tcp": 32}.get(name, len(whole))
    for length in range(shortest):
        with pytest.raises(WireError):
            PARSERS[name](whole[:length], 0, length)
        with pytest.raises(WireError):
            # The octets are there, but do not belong to this packet.
            PARSERS[name](whole + bytes(64), 0, length)


@pytest.mark.parametrize("name", WHOLE)
@given(at=st.integers(0, 63), value=st.integers(0, 255))
def test_a_changed_octet_raises_only_wire_errors(name: str, at: int, value: int) -> None:
    data = bytearray(WHOLE[name])
    data[at % len(data)] = value
    assert outcome(name, bytes(data), 0, len(data)) in {"", *COUNTERS}


def resummed(header: bytes, **changes: int) -> bytes:
    """An IPv4 header with octets changed (`o0=0x45` is octet 0) and a checksum that holds."""
    data = bytearray(header)
    for name, value in changes.items():
        data[int(name[1:])] = value
    data[10:12] = b"\0\0"
    data[10:12] = checksum(data).to_bytes(2)
    return bytes(data)


@pytest.mark.parametrize(
    ("header", "counter"),
    [
        (resummed(ipv4.header(A, B, 6, 0), o0=0x65), "ip_version"),
        (resummed(ipv4.header(A, B, 6, 0), o0=0x44), "ip_header_length"),
        (resummed(ipv4.header(A, B, 6, 0), o0=0x4F), "ip_truncated"),
        (resummed(ipv4.header(A, B, 6, 0), o3=19), "ip_total_length"),
        (resummed(ipv4.header(A, B, 6, 0), o3=21), "ip_truncated"),
        (resummed(ipv4.header(A, B, 6, 0), o2=0xFF), "ip_truncated"),
        (ipv4.header(A, B, 6, 0)[:10] + b"\0\0" + A + B, "ip_checksum"),
        (ipv4.header(A, B, 6, 0, options=b"\x44\0\0\0"), "ip_options"),
        (ipv4.header(A, B, 6, 0, options=b"\x44\1\0\0"), "ip_options"),
        (ipv4.header(A, B, 6, 0, options=b"\x44\5\0\0"), "ip_options"),
        (ipv4.header(A, B, 6, 0, options=b"\1\1\1\x44"), "ip_options"),
    ],
)
def test_ipv4_lies(header: bytes, counter: str) -> None:
    """RFC 791 §3.1 and RFC 1122 §3.2.1: version, lengths, checksum and options."""
    with pytest.raises(WireError) as caught:
        ipv4.parse(header, 0, len(header))
    assert caught.value.counter == counter


@pytest.mark.parametrize(
    "options", [b"\1\1\1\1", b"\0\xff\xff\xff", b"\x44\4\0\0", b"\x44\3\0\1", b"\1\x44\3\0"]
)
def test_ipv4_options_are_skipped(options: bytes) -> None:
    """RFC 1122 §3.2.1.8: unknown options are ignored; after "end" comes padding."""
    header = ipv4.header(A, B, 17, 3, options=options)
    got = ipv4.parse(header + b"abc", 0, len(header) + 3)
    assert (got.options, got.payload_at, got.payload_end) == (options, 24, 27)


def test_ethernet_padding_is_cut_off() -> None:
    """RFC 894: a short datagram is padded to 46 octets, and the total length says where it ends."""
    datagram = ipv4.header(A, B, 17, 3) + b"abc"
    padded = datagram + bytes(46 - len(datagram))
    got = ipv4.parse(padded, 0, len(padded))
    assert padded[got.payload_at : got.payload_end] == b"abc"


def test_quoted_header_is_read_though_its_payload_is_missing() -> None:
    """RFC 792: an error quotes the header and eight octets."""
    quote = resummed(ipv4.header(A, B, 6, 1000), o10=1)[:20] + b"12345678"
    got = ipv4.parse_quoted(quote, 0, len(quote))
    assert (got.src, got.dst, got.total_len) == (A, B, 1020)
    assert (got.payload_at, got.payload_end) == (20, 28)
    with pytest.raises(WireError):
        ipv4.parse(quote, 0, len(quote))


def test_header_builder_refuses_what_does_not_fit() -> None:
    assert len(ipv4.header(A, B, 6, 65535 - 20)) == 20
    with pytest.raises(ValueError):
        ipv4.header(A, B, 6, 65535 - 19)
    with pytest.raises(ValueError):
        ipv4.header(A, B, 6, 0, options=bytes(41))
    with pytest.raises(ValueError):
        tcp.header(1, 2, 3, 4, 0, 5, options=bytes(41))
    with pytest.raises(ValueError):
        udp.build(A, B, 1, 2, bytes(65528))


@pytest.mark.parametrize("prefix", ["000208000604", "000186dd0604", "000108000804", "000108000610"])
def test_arp_for_other_kinds_of_address(prefix: str) -> None:
    """RFC 826: hardware and protocol types and lengths that are not ours are none of ours."""
    data = bytes.fromhex(prefix) + WHOLE["arp"][6:]
    with pytest.raises(WireError, match="arp_unsupported"):
        arp.parse(data, 0, len(data))


def test_icmp_checksum() -> None:
    """RFC 1122 §3.2.2: verified, unless the link has done so."""
    data = bytearray(WHOLE["icmp"])
    data[-1] ^= 1
    with pytest.raises(WireError, match="icmp_checksum"):
        icmp.parse(bytes(data), 0, len(data))
    assert icmp.parse(bytes(data), 0, len(data), verified=True).type == icmp.ECHO_REQUEST


@pytest.mark.parametrize("length", [0, 7, 13, 65535])
def test_udp_lengths(length: int) -> None:
    """RFC 768: the length covers the header and fits the datagram."""
    data = WHOLE["udp"][:4] + length.to_bytes(2) + WHOLE["udp"][6:]
    with pytest.raises(WireError, match="udp_length"):
        udp.parse(data, 0, len(data))


def test_udp_checksums() -> None:
    """RFC 768: zero is "none"; RFC 8200 §8.1: not over IPv6; a computed zero is sent as ffff."""
    whole = WHOLE["udp"]
    assert udp.verify(whole, 0, udp.parse(whole, 0, len(whole)), A, B)
    bad = whole[:-1] + b"?"
    assert not udp.verify(bad, 0, udp.parse(bad, 0, len(bad)), A, B)
    none = whole[:6] + b"\0\0" + whole[8:]
    assert udp.verify(none, 0, udp.parse(none, 0, len(none)), A, B)
    assert not udp.verify(none, 0, udp.parse(none, 0, len(none)), A * 4, B * 4)
    stored = int.from_bytes(udp.build(A, B, 1, 2, b"\0\0")[6:8])
    computed_zero = udp.build(A, B, 1, 2, stored.to_bytes(2))
    assert computed_zero[6:8] == b"\xff\xff"


def test_tcp_checksum() -> None:
    """RFC 9293 §3.1: over the pseudo-header, header, options and data."""
    whole = WHOLE["tcp"]
    assert tcp.verify(whole, 0, len(whole), A, B)
    assert not tcp.verify(whole, 0, len(whole), A, A)
    for at in range(len(whole)):
        assert not tcp.verify(
            whole[:at] + bytes((whole[at] ^ 0x10,)) + whole[at + 1 :], 0, len(whole), A, B
        )


@pytest.mark.parametrize("offset", [0, 1, 4, 15])
def test_tcp_data_offset(offset: int) -> None:
    """RFC 9293 §3.1: at least five words, and inside the segment."""
    data = WHOLE["tcp"][:12] + bytes((offset << 4,)) + WHOLE["tcp"][13:]
    with pytest.raises(WireError, match="tcp_data_offset"):
        tcp.parse(data, 0, len(data))


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        ("", tcp.TcpOptions()),
        ("00", tcp.TcpOptions()),
        ("0101 0101", tcp.TcpOptions()),
        ("020405b4", tcp.TcpOptions(mss=1460)),
        # End of list: what follows is padding, whatever it looks like.
        ("00 020405b4", tcp.TcpOptions()),
        # Length zero, one, past the end, and no length at all end the walk.
        ("0300 020405b4", tcp.TcpOptions(malformed=True)),
        ("0301 020405b4", tcp.TcpOptions(malformed=True)),
        ("020405b4 0328", tcp.TcpOptions(mss=1460, malformed=True)),
        ("020405b4 08", tcp.TcpOptions(mss=1460, malformed=True)),
        # A known kind with a wrong length is skipped; the walk goes on.
        ("0203aa 030307", tcp.TcpOptions(window_scale=7, malformed=True)),
        ("0508 000000000000 0402", tcp.TcpOptions(sack_permitted=True, malformed=True)),
        ("0502 0402", tcp.TcpOptions(sack_permitted=True, malformed=True)),
        # Unknown kinds are skipped by their length (RFC 9293 §3.1, MUST-6).
        ("fe04abcd 0303ff", tcp.TcpOptions(window_scale=14)),
        ("fe02 1c04801e", tcp.TcpOptions(user_timeout=1800)),
        ("1c04001e", tcp.TcpOptions(user_timeout=30)),
        # Said twice: the later counts.
        ("020405b4 02040218", tcp.TcpOptions(mss=536)),
        ("0101080a 00000001 00000002", tcp.TcpOptions(timestamp=(1, 2))),
        (
            "020405b4 0402080a 00000001 00000002 0103030f",
            tcp.TcpOptions(1460, 14, True, (), (1, 2)),
        ),
        (
            "020405b4 0402080a 00000001 00000002 01030207",
            tcp.TcpOptions(1460, None, True, (), (1, 2), None, True),
        ),
        ("080a 00000001 00000002 0000", tcp.TcpOptions(timestamp=(1, 2))),
        ("0101080a 00000001 000002", tcp.TcpOptions(malformed=True)),
    ],
)
def test_tcp_options(octets: str, expected: tcp.TcpOptions) -> None:
    """RFC 9293 §3.1, RFC 7323 §2.3 (shift at most 14), RFC 2018 §3, RFC 5482 §3."""
    data = b"###" + bytes.fromhex(octets)
    assert tcp.parse_options(data, 3, len(data)) == expected
    assert tcp.parse_options(memoryview(data), 3, len(data)) == expected


@given(st.binary(max_size=40))
def test_option_walk_stays_inside_and_short_cut_agrees(options: bytes) -> None:
    """The look-up for the usual pattern gives what the walk gives (two NOPs more change it)."""
    got = tcp.parse_options(options, 0, len(options))
    walked = tcp.parse_options(b"\1\1" + options, 0, len(options) + 2)
    assert got == walked
    assert tcp.parse_options(options + b"\x02\x04\xff\xff", 0, len(options)) == got


@pytest.mark.parametrize("text", ["02:00:5e:00:00:01", "02-00-5E-00-00-01"])
def test_mac_text(text: str) -> None:
    assert ethernet.mac_from_text(text) == b"\x02\0\x5e\0\0\1"
    assert ethernet.mac_text(b"\x02\0\x5e\0\0\1") == "02:00:5e:00:00:01"


@pytest.mark.parametrize(
    "text",
    ["", "02:00:5e:00:00", "02:00:5e:00:00:01:02", "02:00:5e:00:00:0g", "2:0:5e:0:0:1", "\n"],
)
def test_not_a_mac(text: str) -> None:
    with pytest.raises(ValueError, match="not a MAC"):
        ethernet.mac_from_text(text)


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_address_text_comes_back(octets: bytes) -> None:
    assert address.from_text(address.to_text(octets)) == octets


@given(st.lists(st.sampled_from([0, 0, 1, 0xA0, 0xFFFF]), min_size=8, max_size=8))
def test_addresses_of_ipv6_are_written_as_others_write_them(groups: list[int]) -> None:
    """RFC 5952 §4."""
    octets = b"".join(group.to_bytes(2) for group in groups)
    assert address.to_text(octets) == str(IPv6Address(octets))


def test_addresses() -> None:
    assert address.to_text(A) == "10.0.0.1"
    assert address.interface_from_text("10.0.0.2/24") == (B, 24)
    assert address.interface_from_text("fd00::1/64") == (b"\xfd" + bytes(14) + b"\1", 64)
    assert address.in_network(B, A, 24)
    assert address.in_network(B, A, 0)
    assert not address.in_network(B, A, 32)
    assert not address.in_network(B, bytes(16), 0)
    for text in ("10.0.0", "10.0.0.256", "", "fe80::1::2"):
        with pytest.raises(ValueError):
            address.from_text(text)
    with pytest.raises(ValueError):
        address.to_text(b"12345")
