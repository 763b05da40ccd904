"""The network layer of a host: its interface, its addresses, and the long way in.

A frame that does not fit the host's one pattern is taken apart here layer by layer, and what it
carries is handed up: segments to the TCP table, datagrams to the UDP table. ICMP lives here, since
it speaks of everybody (RFC 1122 §3.2.2). Ways out, as header templates, are found here too.

It imports `wire`, the neighbours, the paths and the addresses, and knows the layers above it by
their interfaces only.
"""

from __future__ import annotations

import errno
import random as random_module
from typing import Final, Protocol

from appliance.net import icmp
from appliance.net.counters import Counters
from appliance.net.errors import WireError
from appliance.net.ip import Addresses
from appliance.net.neighbor import NeighborCache
from appliance.net.path import TCP, UDP, Ipv4Path, Ipv4UdpPath, datagram
from appliance.net.vif.base import Vif
from appliance.net.wire import ethernet, ipv4
from appliance.net.wire import icmp as wire_icmp
from appliance.net.wire.virtio import DATA_VALID, NEEDS_CSUM, VNET_HDR_LEN

ETHERNET_AT: Final = VNET_HDR_LEN
IP_AT: Final = ETHERNET_AT + ethernet.HEADER_LEN
_TCP_AT: Final = IP_AT + 20
CHECKED: Final = NEEDS_CSUM | DATA_VALID
"""Flags of the virtio header that say: no need to sum this."""


class Upper(Protocol):
    """The layers above: who gets what arrives."""

    def tcp_arrives(self, frame: bytes, packet: ipv4.Ipv4Header, now: float, trusted: bool) -> None:
        """A packet carries a segment; `trusted`: its checksum needs no look."""

    def udp_arrives(
        self, frame: bytes, packet: ipv4.Ipv4Header, now: float, trusted: bool, broadcast: bool
    ) -> bool:
        """A packet carries a datagram; False: nobody receives on its port."""
        ...

    def tcp_error(
        self, key: bytes, sequence: int, error: OSError | None, mtu: int, now: float
    ) -> bool:
        """ICMP speaks of a segment of ours on flow `key`: an error, or a path MTU.

        False: it speaks of nothing outstanding (RFC 5927 §4).
        """
        ...

    def udp_error(self, address: bytes, port: int, error: OSError) -> None:
        """ICMP speaks of a datagram that was sent from `address` and `port`."""

    def neighbor_failed(self, address: bytes, error: OSError) -> None:
        """Nobody answers at the next hop `address`."""


class Network:
    """One interface and its addresses; `now` is the time of the current or last turn."""

    def __init__(
        self, vif: Vif, counters: Counters, random: random_module.Random, upper: Upper
    ) -> None:
        self.vif = vif
        self.mac = vif.mac
        self.counters = counters
        self.addresses = Addresses()
        self.now = 0.0
        self._upper = upper
        self._vif_send = vif.send
        self.neighbors = NeighborCache(
            vif.mac,
            vif.send,
            source_for=self._source_for,
            random=random,
            on_unreachable=self._neighbor_failed,
        )
        self._icmp_errors = icmp.TokenBucket(icmp.RATE, icmp.BURST)

    def add_address(self, cidr: str) -> None:
        """Take the address and network `cidr`, such as "10.0.0.2/24"; ValueError if malformed."""
        address = self.addresses.add(cidr)
        self.neighbors.announce(address)

    def _source_for(self, destination: bytes) -> bytes:
        return self.addresses.source_for(destination) or bytes(len(destination))

    # ------------------------------------------------------------------ ways out

    def tcp_path(self, key: bytes) -> Ipv4Path | None:
        """Return the way back along the flow `key`; None when there is none."""
        there, here = key[:4], key[4:8]
        hop = self.addresses.next_hop(there)
        if hop is None:
            self.counters.ip_no_route += 1
            return None
        return Ipv4Path(
            self.neighbors.lookup(hop, self.now),
            self.mac,
            here,
            there,
            int.from_bytes(key[10:12]),
            int.from_bytes(key[8:10]),
            self.vif.mtu,
        )

    def udp_path(
        self, here: bytes, there: bytes, port: int, remote_port: int
    ) -> Ipv4UdpPath | None:
        """Return the way from our `here` to `there`; None when there is none."""
        hop = self.addresses.next_hop(there)
        if hop is None:
            return None
        neighbor = self.neighbors.lookup(hop, self.now)
        return Ipv4UdpPath(neighbor, self.mac, here, there, port, remote_port, self.vif.mtu)

    def reachable(self, address: bytes) -> bool:
        """Tell whether `address` can be one host's (RFC 9293 §3.9.2.3, MUST-46)."""
        return self.addresses.is_unicast(address) and address not in self.addresses.broadcasts

    def own(self, packed: bytes, address: str) -> bytes:
        """Return `packed`, one of our addresses; OSError(EADDRNOTAVAIL) if it is none."""
        if packed not in self.addresses.local:
            raise OSError(errno.EADDRNOTAVAIL, f"{address} is not an address of this host")
        return packed

    # ------------------------------------------------------------------ the long way in

    def arrives(self, frame: bytes, now: float) -> None:
        """Take a frame apart layer by layer; what is wrong with it is counted and dropped."""
        try:
            to_mac, _, kind = ethernet.parse(frame, ETHERNET_AT)
            at = ETHERNET_AT + ethernet.HEADER_LEN
            if to_mac != self.mac and not ethernet.is_group(to_mac):
                self.counters.ethernet_not_ours += 1
            elif kind == ethernet.ETHERTYPE_IPV4:
                self._ipv4_arrives(frame, at, now, ethernet.is_group(to_mac))
            elif kind == ethernet.ETHERTYPE_ARP:
                self.neighbors.arp_arrives(frame, at, len(frame), now, self.addresses.local)
            else:
                self.counters.ethertype_unknown += 1
        except WireError as error:
            self.counters.count(error.counter)

    def _ipv4_arrives(self, frame: bytes, at: int, now: float, group: bool) -> None:
        """RFC 1122 §3.2.1; raises WireError."""
        header = ipv4.parse(frame, at, len(frame))
        broadcast = header.dst in self.addresses.broadcasts
        if header.dst not in self.addresses.local and not broadcast:
            # RFC 1122 §3.2.1.3: not for us; a host does not forward.
            self.counters.ip_not_ours += 1
            return
        if not self.addresses.is_unicast(header.src) or header.src in self.addresses.broadcasts:
            # RFC 1122 §3.2.1.3: a source MUST NOT be a broadcast or multicast address.
            self.counters.ip_bad_source += 1
            return
        if header.src in self.addresses.local:
            self.counters.ip_bad_source += 1
            return
        if header.flags & ipv4.FLAG_MF or header.fragment_offset:
            self.counters.ip_fragments_refused += 1
            return
        trusted = bool(frame[0] & CHECKED)
        # RFC 1122 §3.3.6: a link-layer broadcast must carry an IP broadcast, or be dropped.
        if group and not broadcast:
            self.counters.ip_not_ours += 1
        elif header.protocol == TCP:
            if broadcast:
                # RFC 9293 §3.9.2.3 (MUST-57): a SYN to a broadcast address is silently dropped.
                self.counters.ip_not_ours += 1
            else:
                self._upper.tcp_arrives(frame, header, now, trusted)
        elif header.protocol == UDP:
            known = self._upper.udp_arrives(frame, header, now, trusted, broadcast)
            if not known and not broadcast:
                # RFC 1122 §4.1.3.1: an unused port SHOULD be told of.
                self._send_icmp_error(wire_icmp.UNREACHABLE_PORT, frame, at, header, now)
        elif header.protocol == wire_icmp.PROTOCOL:
            self._icmp_arrives(frame, header, now, broadcast)
        else:
            self.counters.ip_protocol_unknown += 1
            if not broadcast:
                # RFC 1122 §3.2.2.1: code 2 when the protocol is not supported.
                self._send_icmp_error(wire_icmp.UNREACHABLE_PROTOCOL, frame, at, header, now)

    # ------------------------------------------------------------------ ICMP

    def _icmp_arrives(
        self, frame: bytes, packet: ipv4.Ipv4Header, now: float, broadcast: bool
    ) -> None:
        """RFC 1122 §3.2.2."""
        message = wire_icmp.parse(frame, packet.payload_at, packet.payload_end)
        if message.type == wire_icmp.ECHO_REQUEST:
            # RFC 1122 §3.2.2.6: a request to a broadcast address MAY be discarded.
            if broadcast:
                self.counters.icmp_ignored += 1
                return
            self.counters.icmp_echo_replies += 1
            reply = wire_icmp.echo_reply(frame, message)
            self._send_datagram(packet.dst, packet.src, wire_icmp.PROTOCOL, reply)
        elif message.type in wire_icmp.ERROR_TYPES:
            self.counters.icmp_errors_in += 1
            self._icmp_error_arrives(frame, message, now)
        else:
            self.counters.icmp_ignored += 1

    def _icmp_error_arrives(self, frame: bytes, message: wire_icmp.IcmpMessage, now: float) -> None:
        """Hand an error to whom it quotes, if it quotes something outstanding (RFC 5927 §4)."""
        quoted = ipv4.parse_quoted(frame, message.body_at, message.body_end)
        at = quoted.payload_at
        if at + 8 > message.body_end or quoted.src not in self.addresses.local:
            self.counters.icmp_ignored += 1
            return
        error = icmp.error_of(message.type, message.code)
        if quoted.protocol == UDP:
            if error is not None:
                self._upper.udp_error(quoted.src, int.from_bytes(frame[at : at + 2]), error)
            return
        mtu = 0
        if error is None and message.type == wire_icmp.UNREACHABLE:
            # RFC 1191 §3; 68 octets is the least an IPv4 link carries (RFC 791 §3.2).
            mtu = message.next_hop_mtu
            mtu = max(mtu or 576, 552) if 68 <= mtu < quoted.total_len or mtu == 0 else 0
        key = quoted.dst + quoted.src + frame[at + 2 : at + 4] + frame[at : at + 2]
        sequence = int.from_bytes(frame[at + 4 : at + 8])
        if quoted.protocol != TCP or not self._upper.tcp_error(key, sequence, error, mtu, now):
            self.counters.icmp_ignored += 1

    def _send_icmp_error(
        self, code: int, frame: bytes, at: int, packet: ipv4.Ipv4Header, now: float
    ) -> None:
        """Send destination unreachable about a packet, if the rate allows (RFC 1812 §4.3.2.8)."""
        if not self._icmp_errors.take(now):
            self.counters.icmp_rate_limited += 1
            return
        self.counters.icmp_errors_out += 1
        message = wire_icmp.unreachable(code, frame[at : packet.payload_end])
        self._send_datagram(packet.dst, packet.src, wire_icmp.PROTOCOL, message)

    def _send_datagram(self, src: bytes, dst: bytes, protocol: int, body: bytes) -> None:
        hop = self.addresses.next_hop(dst)
        if hop is None:
            self.counters.ip_no_route += 1
            return
        neighbor = self.neighbors.lookup(hop, self.now)
        if src in self.addresses.broadcasts:
            src = self.addresses.source_for(dst) or src
        frame = datagram(self.mac, neighbor, src, dst, protocol, body)
        if neighbor.mac is None:
            self.neighbors.enqueue(neighbor, frame)
        elif self._vif_send(frame):
            self.counters.frames_out += 1
        else:
            self.counters.vif_full += 1

    def _neighbor_failed(self, address: bytes, frames: list[bytes]) -> None:
        """Nobody answers at a next hop: who wanted it hears EHOSTUNREACH (RFC 1122 §2.3.2.1)."""
        error = OSError(errno.EHOSTUNREACH, "No route to host")
        self._upper.neighbor_failed(address, error)
        for frame in frames:
            # Our own frames: an IPv4 header without options (RFC 1122 §4.1.3.3 for UDP).
            if len(frame) >= _TCP_AT + 8 and frame[IP_AT + 9] == UDP:
                src, port = frame[IP_AT + 12 : IP_AT + 16], frame[_TCP_AT : _TCP_AT + 2]
                self._upper.udp_error(src, int.from_bytes(port), error)
