"""IP packets of either version, as scripts need them: read, written, and named by ICMP.

A script says the same of IPv4 and IPv6 (a mark, a hop limit, a protocol); what differs on the wire
is put away here. The names of ICMP messages are packetdrill's, which has other ones for ICMPv6.
Imports the shapes and `net.wire`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from appliance.fuzz.script.events import NO_IP_INFO, Icmp, IpInfo
from appliance.fuzz.script.faults import InapplicableError
from appliance.net.wire import icmp as wire_icmp
from appliance.net.wire import icmpv6, ipv4, ipv6, ndp

IPV4: Final = "ipv4"
IPV6: Final = "ipv6"
MAPPED: Final = "ipv4-mapped-ipv6"
VERSIONS: Final = (IPV4, MAPPED, IPV6)
"""What --ip_version may be; mapped: sockets of IPv6 with IPv4 on the wire (RFC 4291 §2.5.5.2)."""

ECN: Final = {None: 0, "noecn": 0, "ect1": 1, "ect0": 2, "ect01": 2, "ce": 3}
"""RFC 3168 §5, by the names of scripts."""

_TYPES4: Final = {
    "unreachable": wire_icmp.UNREACHABLE,
    "echo_reply": wire_icmp.ECHO_REPLY,
    "echo_request": wire_icmp.ECHO_REQUEST,
    "source_quench": wire_icmp.SOURCE_QUENCH,
    "redirect": wire_icmp.REDIRECT,
    "time_exceeded": wire_icmp.TIME_EXCEEDED,
    "parameter_problem": wire_icmp.PARAMETER_PROBLEM,
}
# RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1, and of time exceeded.
_CODES4: Final = {
    "net_unreachable": 0,
    "host_unreachable": 1,
    "protocol_unreachable": 2,
    "port_unreachable": 3,
    "frag_needed": 4,
    "source_route_failed": 5,
    "net_unknown": 6,
    "host_unknown": 7,
    "source_host_isolated": 8,
    "net_prohibited": 9,
    "host_prohibited": 10,
    "net_unreachable_for_tos": 11,
    "host_unreachable_for_tos": 12,
    "packet_filtered": 13,
    "precedence_violation": 14,
    "precedence_cutoff": 15,
    "ttl_exceeded": 0,
    "reassembly_time_exceeded": 1,
}
_TYPES6: Final = {
    "unreachable": icmpv6.UNREACHABLE,
    "packet_too_big": icmpv6.PACKET_TOO_BIG,
    "time_exceeded": icmpv6.TIME_EXCEEDED,
    "parameter_problem": icmpv6.PARAMETER_PROBLEM,
    "echo_request": icmpv6.ECHO_REQUEST,
    "echo_reply": icmpv6.ECHO_REPLY,
}
# RFC 4443 §3.1, §3.3, §3.4.
_CODES6: Final = {
    "net_unreachable": icmpv6.UNREACHABLE_ROUTE,
    "no_route": icmpv6.UNREACHABLE_ROUTE,
    "admin_prohibited": icmpv6.UNREACHABLE_ADMIN,
    "not_neighbour": icmpv6.UNREACHABLE_SCOPE,
    "address_unreachable": icmpv6.UNREACHABLE_ADDRESS,
    "port_unreachable": icmpv6.UNREACHABLE_PORT,
    "exceeded_hop_limit": icmpv6.EXCEEDED_HOPS,
    "exceeded_frag_time": icmpv6.EXCEEDED_REASSEMBLY,
    "header_field": ipv6.ERRONEOUS_FIELD,
    "unknown_next_header": ipv6.UNKNOWN_NEXT_HEADER,
    "unknown_option": ipv6.UNKNOWN_OPTION,
}
# What a host says to its link and its routers (RFC 4861, RFC 3810), and scripts never ask for.
_OF_THE_LINK: Final = frozenset(
    (*range(icmpv6.MLD_QUERY, icmpv6.REDIRECT + 1), icmpv6.MLDV2_REPORT)
)


class Header(NamedTuple):
    """The IP header of a packet; lengths in octets, offsets from its start."""

    protocol: int
    src: bytes
    dst: bytes
    tos: int
    ttl: int
    flow_label: int
    payload_at: int
    payload_end: int
    fragment: bool = False
    later: bool = False  # a fragment that is not the first


def read(packet: bytes) -> Header:
    """Read a packet of either version; raises only WireError."""
    if packet[:1] and packet[0] >> 4 == 6:
        six = ipv6.parse(packet, 0, len(packet))
        return Header(
            six.protocol, six.src, six.dst, six.traffic_class, six.hop_limit, six.flow_label,
            six.payload_at, six.payload_end, six.fragment_at >= 0,
            _is_later(packet, six.fragment_at),
        )  # fmt: skip
    four = ipv4.parse(packet, 0, len(packet))
    return Header(
        four.protocol, four.src, four.dst, four.dscp_ecn, four.ttl, 0, four.payload_at,
        four.payload_end, four.fragment_offset > 0 or bool(four.flags & ipv4.FLAG_MF),
        four.fragment_offset > 0,
    )  # fmt: skip


def _is_later(packet: bytes, fragment_at: int) -> bool:
    return fragment_at >= 0 and ipv6.parse_fragment(packet, fragment_at).offset > 0


def wrap(
    src: bytes, dst: bytes, protocol: int, body: bytes, info: IpInfo = NO_IP_INFO, size: int = -1
) -> bytes:
    """A packet with `body`; `size` is what its header claims to carry, if not all of `body`."""
    size = len(body) if size < 0 else size
    tos = ECN[info.ecn] if info.tos is None else info.tos
    if len(src) == 4:
        ttl = ipv4.DEFAULT_TTL if info.ttl is None else info.ttl
        return ipv4.header(src, dst, protocol, size, dscp_ecn=tos, ttl=ttl) + body
    hops = ipv6.DEFAULT_HOP_LIMIT if info.ttl is None else info.ttl
    label = info.flow_label or 0
    head = ipv6.header(
        src, dst, protocol, size, hop_limit=hops, traffic_class=tos, flow_label=label
    )
    return head + body


def icmp_protocol(address: bytes) -> int:
    """The protocol of ICMP among addresses like `address`."""
    return wire_icmp.PROTOCOL if len(address) == 4 else icmpv6.PROTOCOL


def is_of_the_link(packet: bytes, head: Header) -> bool:
    """Whether a packet of the host is about neighbours, routers or groups."""
    if len(head.src) == 4:
        return head.dst == b"\xff\xff\xff\xff"
    return head.protocol == icmpv6.PROTOCOL and packet[head.payload_at] in _OF_THE_LINK


def icmp_kind(message: Icmp, address: bytes) -> tuple[int, int]:
    """Type and code by a script's names; raises InapplicableError for one that nobody knows."""
    name, code = message.type, message.code
    if (name, code) == ("unreachable", "packet_too_big"):
        name, code = "packet_too_big", None
    types: Mapping[str, int] = _TYPES4 if len(address) == 4 else _TYPES6
    codes: Mapping[str, int] = _CODES4 if len(address) == 4 else _CODES6
    if name not in types or (code is not None and code not in codes):
        told = " ".join(filter(None, (message.type, message.code)))
        other = "ICMP" if len(address) == 4 else "ICMPv6"
        raise InapplicableError(f"icmp {told} is no message of {other}")
    return types[name], 0 if code is None else codes[code]


def is_error(kind: int, address: bytes) -> bool:
    """Whether a type of message quotes a packet."""
    if len(address) == 4:
        return kind in wire_icmp.ERROR_TYPES
    return kind < icmpv6.FIRST_INFORMATIONAL


def icmp(src: bytes, dst: bytes, kind: int, code: int, rest: int, body: bytes) -> bytes:
    """A packet with an ICMP message; `rest` is the 32 bits behind its checksum."""
    if len(src) == 4:
        message = wire_icmp.build(kind, code, rest, body)
    else:
        message = icmpv6.build(src, dst, kind, code, rest, body)
    return wrap(src, dst, icmp_protocol(src), message)


def icmp_told(packet: bytes, head: Header) -> tuple[int, int]:
    """Type and code of the ICMP message in a packet; raises only WireError."""
    if len(head.src) == 4:
        four = wire_icmp.parse(packet, head.payload_at, head.payload_end)
        return four.type, four.code
    six = icmpv6.parse(packet, head.payload_at, head.payload_end, head.src, head.dst)
    return six.type, six.code


def solicited(packet: bytes, head: Header) -> bytes:
    """Whom a neighbour solicitation asks for; empty if the packet is none (RFC 4861 §4.3)."""
    at = head.payload_at
    if head.protocol == icmpv6.PROTOCOL and packet[at] == icmpv6.NEIGHBOR_SOLICITATION:
        return packet[at + 8 : at + 24]
    return b""


ECHO: Final = {4: wire_icmp.ECHO_REPLY, 16: icmpv6.ECHO_REPLY}
"""The type of an answer to an echo request, by the octets of an address."""


def is_icmp_error(packet: bytes, head: Header) -> bool:
    """Whether a packet is itself an ICMP error."""
    mine = head.protocol == icmp_protocol(head.src) and head.payload_at < head.payload_end
    return mine and is_error(packet[head.payload_at], head.src)


def is_echo_request(packet: bytes, head: Header) -> bool:
    """Whether a packet asks for an echo."""
    kind = wire_icmp.ECHO_REQUEST if len(head.src) == 4 else icmpv6.ECHO_REQUEST
    return (
        head.protocol == icmp_protocol(head.src)
        and head.payload_end - head.payload_at >= 8
        and packet[head.payload_at] == kind
    )


def neighbor(src: bytes, dst: bytes, mac: bytes, *, asks: bool, to: bytes | None = None) -> bytes:
    """A solicitation for `dst` by `src`, or an advertisement of `src` to it (RFC 4861 §4.3).

    `to`: where it is sent, if not to `dst` itself.
    """
    body = ndp.solicitation(dst, mac) if asks else ndp.advertisement(src, mac)
    kind = icmpv6.NEIGHBOR_SOLICITATION if asks else icmpv6.NEIGHBOR_ADVERTISEMENT
    flags = 0 if asks else _SOLICITED_OVERRIDE
    message = icmpv6.build(src, to or dst, kind, 0, flags, body)
    return wrap(src, to or dst, icmpv6.PROTOCOL, message, IpInfo(ttl=ndp.HOP_LIMIT))


_SOLICITED_OVERRIDE: Final = 0x60 << 24
"""Flags S and O (RFC 4861 §4.4)."""
