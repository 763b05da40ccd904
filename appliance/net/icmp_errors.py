"""ICMP and ICMPv6 of a host: echo answered, errors told sparingly and believed warily.

What arrives is handed to whom it quotes, if it quotes something that is really outstanding
(RFC 5927, RFC 8201 §4); what leaves is limited in rate for both families together (RFC 1812
§4.3.2.8, RFC 4443 §2.4 (f)), and never speaks of an error, a group or a nobody (RFC 1122 §3.2.2,
RFC 4443 §2.4 (e)).

It imports `wire` and `icmp`, and knows the network layer by an interface only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from appliance.net import icmp
from appliance.net.counters import Counters
from appliance.net.errors import WireError
from appliance.net.ip import Addresses
from appliance.net.path import IPV4_LEN, TCP, UDP
from appliance.net.path6 import IPV6_LEN
from appliance.net.path_mtu import PathMtus
from appliance.net.wire import icmp as wire_icmp
from appliance.net.wire import icmpv6, ipv4, ipv6
from appliance.net.wire.address import to_text

if TYPE_CHECKING:
    from appliance.net.link import Link
    from appliance.net.upper import Upper

_IPV4_FLOOR: Final = 552
"""Octets: no smaller path MTU is believed (Linux's ip_rt_min_pmtu; RFC 791 promises 68)."""
_IPV4_BLIND: Final = 576
"""Octets when a router that predates RFC 1191 names none."""
_ECHOES: Final = 64
"""Echo messages, and destinations, whose path MTU may be learnt: who pings us is anybody."""


Answered = Callable[[str, int, str], None]
"""Told who answered, to which number, and why there is no reply ("" with one)."""


class Sender(Protocol):
    """What this asks of the network layer."""

    addresses: Addresses
    upper: Upper
    now: float

    def send(self, src: bytes, dst: bytes, protocol: int, body: bytes) -> None:
        """Send a whole message."""

    def source_for(self, there: bytes) -> bytes | None:
        """Our address to speak to `there` from."""
        ...

    def learn_path_mtu(self, there: bytes, mtu: int) -> None:
        """Remember a smaller path MTU."""

    def redirected4(self, src: bytes, destination: bytes, gateway: bytes) -> None:
        """The router `src` says that another is a better first hop to `destination`."""


class Errors:
    """The two ICMPs of one host."""

    def __init__(self, network: Sender, counters: Counters) -> None:
        self._network = network
        self._counters = counters
        self._bucket = icmp.TokenBucket(icmp.RATE, icmp.BURST)
        self.echoes: dict[int, Answered] = {}
        """Who hears of echo replies, by their identifier: one for each `ping` that runs."""
        self._echoed_to: dict[tuple[bytes, int], None] = {}
        """Echo messages that left last: destination, identifier and number."""
        self._echo_mtus = PathMtus(_ECHOES)

    def _may_send(self, now: float) -> bool:
        if self._bucket.take(now):
            self._counters.icmp_errors_out += 1
            return True
        self._counters.icmp_rate_limited += 1
        return False

    # ------------------------------------------------------------------ IPv4

    def icmp4_arrives(
        self, frame: bytes, packet: ipv4.Ipv4Header, now: float, broadcast: bool
    ) -> None:
        """RFC 1122 §3.2.2; raises WireError."""
        message = wire_icmp.parse(frame, packet.payload_at, packet.payload_end)
        if message.type == wire_icmp.ECHO_REQUEST:
            # RFC 1122 §3.2.2.6: a request to a broadcast address MAY be discarded.
            if broadcast:
                self._counters.icmp_ignored += 1
                return
            self._counters.icmp_echo_replies += 1
            reply = wire_icmp.echo_reply(frame, message)
            self.echo_leaves(packet.src, message.rest, len(reply))
            self._network.send(packet.dst, packet.src, wire_icmp.PROTOCOL, reply)
        elif message.type == wire_icmp.ECHO_REPLY:
            self._echoed(packet.src, message.rest)
        elif message.type in wire_icmp.ERROR_TYPES:
            self._counters.icmp_errors_in += 1
            self._error4_arrives(packet.src, frame, message, now)
        else:
            self._counters.icmp_ignored += 1

    def _error4_arrives(
        self, src: bytes, frame: bytes, message: wire_icmp.IcmpMessage, now: float
    ) -> None:
        quoted = ipv4.parse_quoted(frame, message.body_at, message.body_end)
        error = icmp.error_of(message.type, message.code)
        mtu = 0
        if error is None and message.type == wire_icmp.UNREACHABLE:
            # RFC 1191 §3; 68 octets is the least an IPv4 link carries (RFC 791 §3.2).
            mtu = message.next_hop_mtu
            if 68 <= mtu < quoted.total_len or mtu == 0:
                mtu = max(mtu or _IPV4_BLIND, _IPV4_FLOOR)
            else:
                mtu = 0
        known = self._tell(src, frame, quoted, quoted.fragment_offset == 0, error, mtu, now)
        if known and message.type == wire_icmp.REDIRECT:
            # RFC 1122 §3.2.2.2: for a network as for the host that was quoted.
            self._network.redirected4(src, quoted.dst, message.rest.to_bytes(4))

    def unreachable4(
        self, code: int, frame: bytes, at: int, packet: ipv4.Ipv4Header, now: float
    ) -> None:
        """Tell that a packet to us cannot be delivered (RFC 1122 §3.2.2.1)."""
        if self._may_send(now):
            message = wire_icmp.unreachable(code, frame[at : packet.payload_end])
            self._network.send(packet.dst, packet.src, wire_icmp.PROTOCOL, message)

    def bad_option4(
        self, problem: ipv4.OptionError, frame: bytes, at: int, packet: ipv4.Ipv4Header, now: float
    ) -> None:
        """Tell of an option that cannot be (RFC 1122 §3.2.2.5), or asks us to route (§3.3.5)."""
        if packet.fragment_offset or _is_error4(frame, packet):
            return
        if problem.pointer < 0:
            self.unreachable4(wire_icmp.UNREACHABLE_SOURCE_ROUTE, frame, at, packet, now)
        elif self._may_send(now):
            quoted = frame[at : packet.payload_end]
            message = wire_icmp.parameter_problem(problem.pointer, quoted)
            self._network.send(packet.dst, packet.src, wire_icmp.PROTOCOL, message)

    # ------------------------------------------------------------------ IPv6

    def icmp6_arrives(self, frame: bytes, packet: ipv6.Ipv6Packet, now: float, link: Link) -> None:
        """RFC 4443 §2.4, §4; raises WireError."""
        message = icmpv6.parse(frame, packet.payload_at, packet.payload_end, packet.src, packet.dst)
        if message.type == icmpv6.ECHO_REQUEST:
            if not any(packet.src):
                self._counters.icmp_ignored += 1
                return
            # RFC 4443 §4.2: to a group SHOULD be answered, from an address of ours.
            src: bytes | None = packet.dst
            if ipv6.is_multicast(packet.dst):
                src = self._network.source_for(packet.src)
            if src is not None:
                self._counters.icmp_echo_replies += 1
                body = frame[message.body_at : message.body_end]
                reply = icmpv6.build(src, packet.src, icmpv6.ECHO_REPLY, 0, message.rest, body)
                self.echo_leaves(packet.src, message.rest, len(reply))
                self._network.send(src, packet.src, icmpv6.PROTOCOL, reply)
        elif message.type == icmpv6.ECHO_REPLY:
            self._echoed(packet.src, message.rest)
        elif message.type < icmpv6.FIRST_INFORMATIONAL:
            self._counters.icmp_errors_in += 1
            self._error6_arrives(packet.src, frame, message, now)
        elif not link.icmp6_arrives(frame, packet, message, now):
            self._counters.icmp_ignored += 1

    def _error6_arrives(
        self, src: bytes, frame: bytes, message: icmpv6.Icmpv6Message, now: float
    ) -> None:
        quoted = ipv6.parse_quoted(frame, message.body_at, message.body_end)
        error = icmp.error6_of(message.type, message.code)
        mtu = 0
        if message.type == icmpv6.PACKET_TOO_BIG:
            # RFC 8201 §4: what is below the least MTU MUST be ignored.
            mtu = message.rest
            if not ipv6.MIN_MTU <= mtu < quoted.payload_len + ipv6.HEADER_LEN:
                mtu = 0
        first = quoted.fragment_at < 0 or not ipv6.parse_fragment(frame, quoted.fragment_at).offset
        self._tell(src, frame, quoted, first, error, mtu, now)

    def error6(
        self,
        kind: int,
        code: int,
        rest: int,
        frame: bytes,
        at: int,
        packet: ipv6.Ipv6Packet,
        now: float,
        *,
        always: bool = False,
    ) -> None:
        """Tell of a packet to us (RFC 4443 §2.4 (e)); `always`: also of one to a group."""
        dst: bytes | None = packet.dst
        if not any(packet.src) or _is_error6(frame, at, packet):
            return  # to nobody, and never about an error
        if ipv6.is_multicast(packet.dst):
            if not always:
                return
            dst = self._network.source_for(packet.src)
        if dst is not None and self._may_send(now):
            message = icmpv6.error(
                dst, packet.src, kind, code, rest, frame[at : packet.payload_end]
            )
            self._network.send(dst, packet.src, icmpv6.PROTOCOL, message)

    # ------------------------------------------------------------------ both

    def echo_leaves(self, there: bytes, rest: int, size: int) -> None:
        """Remember an echo message of `size` octets, so that its path MTU is believed."""
        if size <= (_IPV4_FLOOR - IPV4_LEN if len(there) == 4 else ipv6.MIN_MTU - IPV6_LEN):
            return  # none is smaller
        if len(self._echoed_to) >= _ECHOES:
            del self._echoed_to[next(iter(self._echoed_to))]
        self._echoed_to[there, rest] = None

    def echo_mtu(self, there: bytes, mtu: int) -> int:
        """Octets that an echo message to `there` may have, where others may have `mtu`.

        What routers say of echo messages holds for those alone: anybody can have us send one, so
        whoever forges such a word can know what it must quote (RFC 5927 §7 asks more of TCP's).
        """
        return self._echo_mtus.towards(there, mtu, self._network.now)

    def _echo_too_big(self, there: bytes, rest: int, mtu: int) -> bool:
        """A router takes no more than `mtu` octets; False if we sent no such message."""
        if (there, rest) not in self._echoed_to:
            return False
        self._echo_mtus.learn(there, mtu, self._network.now)
        return True

    def _echoed(self, src: bytes, rest: int) -> None:
        """Hand a reply to who asked (RFC 1122 §3.2.2.6)."""
        answered = self.echoes.get(rest >> 16)
        if answered is None:
            self._counters.icmp_ignored += 1
        else:
            answered(to_text(src), rest & 0xFFFF, "")

    def _not_echoed(self, src: bytes, kind: int, rest: int, error: OSError) -> bool:
        """Hand an error about a request of ours to who sent it; False if nobody did."""
        answered = self.echoes.get(rest >> 16)
        if answered is None or kind not in (wire_icmp.ECHO_REQUEST, icmpv6.ECHO_REQUEST):
            return False
        answered(to_text(src), rest & 0xFFFF, error.strerror or str(error))
        return True

    def _tell(
        self,
        src: bytes,
        frame: bytes,
        quoted: ipv4.Ipv4Header | ipv6.Ipv6Packet,
        first: bool,
        error: OSError | None,
        mtu: int,
        now: float,
    ) -> bool:
        """Hand an error to whom it quotes, if it quotes something outstanding (RFC 5927 §4).

        `error` None and `mtu` 0 tell nobody anything; False: it quotes nothing of ours.
        """
        at = quoted.payload_at
        here, there = quoted.src, quoted.dst
        known = False
        if at + 8 <= quoted.payload_end and here in self._network.addresses.local and first:
            upper = self._network.upper
            ports = frame[at + 2 : at + 4] + frame[at : at + 2]
            if quoted.protocol == UDP:
                port, remote_port = int.from_bytes(ports[2:]), int.from_bytes(ports[:2])
                known = upper.udp_error(here, port, there, remote_port, error)
            elif quoted.protocol == TCP:
                sequence = int.from_bytes(frame[at + 4 : at + 8])
                known = upper.tcp_error(there + here + ports, sequence, error, mtu, now)
            elif quoted.protocol in (wire_icmp.PROTOCOL, icmpv6.PROTOCOL):
                rest = int.from_bytes(frame[at + 4 : at + 8])
                if mtu:
                    known = self._echo_too_big(there, rest, mtu)
                elif error is None:
                    known = rest >> 16 in self.echoes
                else:
                    known = self._not_echoed(src, frame[at], rest, error)
                mtu = 0
        if not known:
            self._counters.icmp_ignored += 1
        elif mtu:
            self._network.learn_path_mtu(there, mtu)
        return known

    def reassembly_timeout(self, family: int, quote: bytes, now: float) -> None:
        """A datagram never became whole (RFC 1122 §3.3.2, RFC 8200 §4.5); `quote` began it."""
        try:
            if family == 4:
                packet = ipv4.parse_quoted(quote, 0, len(quote))
                if _is_error4(quote, packet):
                    return
                if packet.dst in self._network.addresses.local and self._may_send(now):
                    body = wire_icmp.time_exceeded(wire_icmp.EXCEEDED_REASSEMBLY, quote)
                    self._network.send(packet.dst, packet.src, wire_icmp.PROTOCOL, body)
            else:
                six = ipv6.parse_quoted(quote, 0, len(quote))
                if six.dst in self._network.addresses.local:
                    code = icmpv6.EXCEEDED_REASSEMBLY
                    self.error6(icmpv6.TIME_EXCEEDED, code, 0, quote, 0, six, now)
        except WireError as error:
            self._counters.count(error.counter)

    def not_sent(self, frame: bytes, at: int, error: OSError) -> None:
        """A frame of ours found nobody at its next hop: tell the socket, or ping, that sent it."""
        try:
            packet: ipv4.Ipv4Header | ipv6.Ipv6Packet
            if frame[at] >> 4 == 4:
                packet = ipv4.parse_quoted(frame, at, len(frame))
            else:
                packet = ipv6.parse_quoted(frame, at, len(frame))
        except (WireError, IndexError):
            return
        start = packet.payload_at
        if packet.protocol == UDP and start + 4 <= len(frame):
            port, remote_port = (
                int.from_bytes(frame[start : start + 2]),
                int.from_bytes(frame[start + 2 : start + 4]),
            )
            # RFC 1122 §4.1.3.3.
            self._network.upper.udp_error(packet.src, port, packet.dst, remote_port, error)
        elif packet.protocol in (wire_icmp.PROTOCOL, icmpv6.PROTOCOL) and start + 8 <= len(frame):
            rest = int.from_bytes(frame[start + 4 : start + 8])
            self._not_echoed(packet.src, frame[start], rest, error)


def _is_error4(data: bytes, packet: ipv4.Ipv4Header) -> bool:
    """Whether a datagram carries an ICMP error: none is sent about it (RFC 1122 §3.2.2)."""
    at = packet.payload_at
    return (
        packet.protocol == wire_icmp.PROTOCOL
        and at < packet.payload_end
        and data[at] in wire_icmp.ERROR_TYPES
    )


def _is_error6(data: bytes, start: int, packet: ipv6.Ipv6Packet) -> bool:
    """Whether a packet carries an ICMPv6 error or a redirect (RFC 4443 §2.4 (e.1), (e.2)).

    Of a fragment only the first can tell.
    """
    if packet.fragment_at >= 0:
        if ipv6.parse_fragment(data, packet.fragment_at).offset:
            return False
        try:
            packet = ipv6.parse_quoted(data, start, packet.payload_end)
        except WireError:
            return False  # its headers are not all there
    at = packet.payload_at
    return (
        packet.protocol == icmpv6.PROTOCOL
        and at < packet.payload_end
        and (data[at] < icmpv6.FIRST_INFORMATIONAL or data[at] == icmpv6.REDIRECT)
    )
