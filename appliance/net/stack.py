"""The host: frames in, frames out, and everything between them found by one look-up.

A host has interfaces, addresses, and tables of what listens and what is connected.  It does nothing
by itself: a driver hands in batches of frames with the time, and calls back when the earliest
deadline is due.  A *turn* takes a whole batch; connections that it touched, by packets or by their
applications' calls, are collected and run `output` once, at the turn's end.

A frame is taken apart by one precompiled Struct over virtio, Ethernet, IP and TCP headers, and the
octets of addresses and ports, twelve or thirty-six, as they stand on the wire, are the key of the
table.  There is one pattern for each Internet Protocol, IPv4's first; a frame that fits neither
(options, extension headers, other protocols, ARP, anything odd) takes the long way through `wire`,
which checks the same things one by one.

Bounds are in `Limits`.  It imports everything below it in this folder and no operating system.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Collection, Mapping
from heapq import heapify, heappop, heappush
from math import inf
from struct import Struct
from typing import Final

from appliance.net.checksum import ones_complement_sum
from appliance.net.counters import Counters
from appliance.net.link import Ipv6Settings, Link
from appliance.net.network import CHECKED, IP_AT, Network
from appliance.net.path import TCP, UDP, TcpPath, UdpPath
from appliance.net.syn_queue import Listener
from appliance.net.tcb import Tcb, TcpSettings, TcpUser
from appliance.net.tcp import Connection
from appliance.net.tcp_table import AUDIT_INTERVAL, Limits, TcpTable
from appliance.net.udp import UdpSocket, UdpUser, words_of
from appliance.net.udp_table import UdpTable
from appliance.net.upper import Packet
from appliance.net.vif.base import Vif

# flags of virtio | destination MAC | ethertype, version+IHL, TOS | total length | fragment field |
# protocol | addresses and ports | seq, ack, offset+flags, window, checksum
_FAST: Final = Struct(">B9x6s6xIH2xHxB2x12sIIHHH")
_FAST_LEN: Final = _FAST.size
_IPV4_PLAIN: Final = 0x08004500  # ethertype IPv4, version 4, five words of header
_NOT_TOS: Final = 0xFFFFFF00
_TCP_AT: Final = IP_AT + 20
_ETHERNET_AT: Final = IP_AT - 14
_PROTOCOL_AT: Final = IP_AT + 9
_PROTOCOL6_AT: Final = IP_AT + 6
# flags of virtio | payload length | next header | addresses and ports | seq, ack, offset+flags,
# window
_FAST6: Final = Struct(">B27xHBx36sIIHH")
_IPV6: Final = 0x86DD6  # ethertype and version
_TCP6_AT: Final = IP_AT + 40
_FAST6_LEN: Final = _TCP6_AT + 20
SPARE_TIMERS: Final = 4_096  # void deadlines that may stay, of 100 octets: no sweep is worth them
_CE: Final = 3  # congestion experienced; RFC 3168 §5
_CE6: Final = 3 << 4  # the same where IPv6 has its traffic class


class Host:
    """A sans-I/O internet host; `vif` is its first interface, and `add_vif` gives it more.

    `random` gives ports, secrets and identifications.  The methods that take `now` (monotonic
    seconds) are turns; all others may be called inside or outside a turn.
    """

    def __init__(
        self,
        vif: Vif,
        *,
        random: random_module.Random,
        limits: Limits | None = None,
        tcp_random: random_module.Random | None = None,
    ) -> None:
        """`tcp_random`: what TCP draws from, if not `random` (see `steer.SameSecret`)."""
        self.vif = vif
        self.gso_max = vif.gso_max
        self.short_of_memory = False
        self.counters = Counters()
        self.wake: Callable[[], None] = _nothing
        self.on_turn: Callable[[float, Mapping[bytes, object]], None] | None = None
        """Called at the end of each turn with the time and the table of flows (`net.trace`)."""
        self.network = Network(vif, self.counters, random, self)
        self.arrives: Callable[[bytes, float, Link], None] = self.network.arrives
        """Takes frames that fit no flow; here, and in `strays`, `steer` puts itself."""
        self.strays: Callable[[bytes, Packet, float], bool] | None = None
        """Asked about each segment that took the long way; True: it was another process's."""
        self.addresses = self.network.addresses
        self._agenda = self.network.agenda
        self.links = self.network.links
        self.neighbors = self.links[0].arp
        self.tcp = TcpTable(
            self, self.network, self.counters, tcp_random or random, limits or Limits()
        )
        self.udp = UdpTable(self, self.network, random, self.tcp.limits.udp_flows)
        # Heap of when to look at which flow; void unless it is that connection's `heap_at`.  Keys,
        # not connections: a deadline keeps nobody alive, and the collector does not walk it.
        self._timers: list[tuple[float, bytes]] = []
        self._dirty: list[Tcb] = []
        self._in_turn = False
        self._woken = False
        self._blocked = False

    # ------------------------------------------------------------------ configuration

    def add_address(self, cidr: str, link: Link | None = None) -> None:
        """Take the address and network `cidr`, such as "10.0.0.2/24"; ValueError if malformed."""
        self.network.add_address(cidr, link)

    def add_gateway(self, address: str, link: Link | None = None) -> None:
        """Send what lies outside our networks to `address`; ValueError unless it is inside one."""
        self.network.add_gateway(address, link)

    def add_vif(self, vif: Vif) -> Link:
        """Have one more interface; its frames are handed in with the link that this returns."""
        self.gso_max = min(self.gso_max, vif.gso_max)
        return self.network.add_link(vif)

    def use_ipv6(self, settings: Ipv6Settings, link: Link | None = None) -> None:
        """Speak IPv6 on a link (the first), and take addresses from routers."""
        (link or self.links[0]).use_ipv6(settings)

    def use_dhcp(self, name: str = "", link: Link | None = None) -> None:
        """Ask for an IPv4 address on a link (the first)."""
        (link or self.links[0]).use_dhcp(name)

    # ------------------------------------------------------------------ turns

    def receive(self, frames: list[bytes], now: float, link: Link | None = None) -> None:
        """Take in a batch of frames of one link (the first) and send whatever follows from it."""
        self._begin_turn(now)
        if link is None:
            link = self.links[0]
        counters = self.counters
        counters.frames_in += len(frames)
        mac = link.mac
        flows = self.tcp.flows
        slow = self.arrives
        flooded = self.tcp.flooded_until
        unpack = _FAST.unpack_from
        for frame in frames:
            size = len(frame)
            if size >= _FAST_LEN:
                if frame[_PROTOCOL_AT] == UDP and self._udp_fast(frame, size, mac):
                    continue
                if (
                    frame[_PROTOCOL6_AT] == UDP
                    and frame[IP_AT - 2] == 0x86
                    and self._udp6_fast(frame, size, mac, link)
                ):
                    continue
                vnet, to_mac, kind, total, fragment, protocol, key, seq, ack, of, wnd, _ = unpack(
                    frame
                )
                end = IP_AT + total
                if (
                    to_mac == mac
                    and kind & _NOT_TOS == _IPV4_PLAIN
                    and not fragment & 0x3FFF
                    and end <= size
                    and int.from_bytes(frame[IP_AT:_TCP_AT]) % 0xFFFF == 0
                ):
                    if protocol == TCP:
                        flow = flows.get(key)
                        if flow is None and now < flooded and self.tcp.sheds(key, of, now):
                            continue
                        payload_at = _TCP_AT + (of >> 12) * 4
                        if (
                            _TCP_AT + 20 <= payload_at <= end
                            and (flow is not None or self._opens(key))
                            and (vnet & CHECKED or self._tcp_sum_holds(frame, end, key))
                        ):
                            counters.tcp_in += 1
                            if kind & _CE == _CE and type(flow) is Connection:
                                flow.congestion_experienced()
                            at = _TCP_AT + 20
                            if flow is None or flow.segment_arrives(
                                now, seq, ack, of, wnd, frame, at, payload_at, end
                            ):
                                self.tcp.unclaimed(
                                    key, now, seq, ack, of, wnd, frame, at, payload_at, end
                                )
                            continue
                elif (
                    kind >> 12 == _IPV6
                    and to_mac == mac
                    and size >= _FAST6_LEN
                    and self._ipv6_fast(frame, size, kind, now, link)
                ):
                    continue
            slow(frame, now, link)
        self._finish_turn(now)

    def _opens(self, key: bytes) -> bool:
        """Tell whether a segment of no flow may be taken as it is, no other process knowing it."""
        size = (len(key) - 4) >> 1
        return self.strays is None and self.addresses.are_ends(key[:size], key[size:-4])

    def _udp_fast(self, frame: bytes, size: int, mac: bytes) -> bool:
        """Take a datagram of a known flow or a stranger over IPv4; False: it needs the long way."""
        key = frame[_TCP_AT - 8 : _TCP_AT + 4]
        flow = self.udp.flows.get(key)
        if flow is None:
            if self.udp.is_recent(key):
                return False  # to be remembered
            peer = self.udp.peers.get(key[:8])
            words = peer.words if peer is not None else words_of(key[:8])
        else:
            words = flow.words
        # Octet by octet, since a compiler makes nothing dearer than an addition of it.
        if (
            frame[IP_AT] != 0x45  # version 4, five words of header
            or frame[IP_AT - 2] != 8  # ethertype 0x0800
            or frame[IP_AT - 1]
            or frame[_ETHERNET_AT : _ETHERNET_AT + 6] != mac
        ):
            return False
        total = frame[IP_AT + 2] << 8 | frame[IP_AT + 3]
        end = IP_AT + total
        if (
            end > size
            or frame[_TCP_AT + 4] << 8 | frame[_TCP_AT + 5] != total - 20
            or frame[IP_AT + 6] & 0x3F
            or frame[IP_AT + 7]
            or (
                words
                + frame[IP_AT + 1]
                + total
                + (frame[IP_AT + 4] + frame[IP_AT + 6] + frame[IP_AT + 8] + frame[IP_AT + 10] << 8)
                + frame[IP_AT + 5]
                + frame[IP_AT + 11]
            )
            % 0xFFFF
        ):
            return False
        if not frame[0] & CHECKED:
            length_and_sum = int.from_bytes(frame[_TCP_AT + 4 : _TCP_AT + 8])
            if not self._udp_sum_holds(frame, end, key, length_and_sum):
                return False
        if flow is None:
            return self.udp.stranger(key, frame[_TCP_AT + 8 : end])
        self.counters.udp_in += 1
        socket = flow.socket
        if socket.answerer is not None:
            self.udp.answer(flow, frame[_TCP_AT + 8 : end])
            return True
        if self.addresses.several:
            socket.remember(flow.source, flow.path)
        socket.user.udp_datagram(frame[_TCP_AT + 8 : end], flow.source)
        return True

    def _ipv6_fast(self, frame: bytes, size: int, kind: int, now: float, link: Link) -> bool:
        """Take a segment over IPv6; False: it needs the long way."""
        vnet, length, protocol, key, seq, ack, of, wnd = _FAST6.unpack_from(frame)
        end = _TCP6_AT + length
        if end > size:
            return False
        if protocol != TCP:
            return False
        flow = self.tcp.flows.get(key)
        payload_at = _TCP6_AT + (of >> 12) * 4
        if flow is None and now < self.tcp.flooded_until and self.tcp.sheds(key, of, now):
            return True
        if not (
            _TCP6_AT + 20 <= payload_at <= end
            and (flow is not None or (link.slaac is not None and self._opens(key)))
            and (vnet & CHECKED or self._sum6_holds(frame, end, key, TCP))
        ):
            return False
        self.counters.tcp_in += 1
        if kind & _CE6 == _CE6 and type(flow) is Connection:
            flow.congestion_experienced()
        at = _TCP6_AT + 20
        if flow is None or flow.segment_arrives(now, seq, ack, of, wnd, frame, at, payload_at, end):
            self.tcp.unclaimed(key, now, seq, ack, of, wnd, frame, at, payload_at, end)
        return True

    def _udp6_fast(self, frame: bytes, size: int, mac: bytes, link: Link) -> bool:
        """Take a datagram of a known flow or a stranger over IPv6; False: it needs the long way."""
        key = frame[_TCP6_AT - 32 : _TCP6_AT + 4]
        flow = self.udp.flows.get(key)
        if size < _TCP6_AT + 8 or (
            flow is None and (link.slaac is None or self.udp.is_recent(key))
        ):
            return False
        length = frame[IP_AT + 4] << 8 | frame[IP_AT + 5]
        end = _TCP6_AT + length
        if (
            end > size
            or frame[IP_AT] >> 4 != 6
            or frame[IP_AT - 1] != 0xDD  # ethertype 0x86DD
            or frame[_TCP6_AT + 4] << 8 | frame[_TCP6_AT + 5] != length
            or not (frame[_TCP6_AT + 6] | frame[_TCP6_AT + 7])  # RFC 8200 §8.1: there must be one
            or frame[_ETHERNET_AT : _ETHERNET_AT + 6] != mac
            or not (frame[0] & CHECKED or self._sum6_holds(frame, end, key, UDP))
        ):
            return False
        if flow is None:
            return self.udp.stranger(key, frame[_TCP6_AT + 8 : end])
        self.counters.udp_in += 1
        socket = flow.socket
        if socket.answerer is not None:
            self.udp.answer(flow, frame[_TCP6_AT + 8 : end])
            return True
        # The answer leaves from the address that was asked.
        socket.remember(flow.source, flow.path)
        socket.user.udp_datagram(frame[_TCP6_AT + 8 : end], flow.source)
        return True

    def flush(self, now: float, link: Link | None = None) -> None:
        """Send what applications queued outside a turn, or what a full link held up."""
        self._begin_turn(now)
        if link is None:
            for each in self.links:
                each.blocked = False
            self._blocked = False
        else:
            link.blocked = False
            self._blocked = any(each.blocked for each in self.links)
        self._finish_turn(now)

    def run_timers(self, now: float) -> None:
        """Run every timer that is due, then send what follows."""
        self._begin_turn(now)
        timers = self._timers
        flows = self.tcp.flows
        while timers and timers[0][0] <= now:
            at, key = heappop(timers)
            connection = flows.get(key)
            if type(connection) is not Connection or connection.heap_at != at:
                continue
            connection.heap_at = inf
            if connection.next_deadline() <= now:
                connection.expire(now)
            else:
                self._rearm(connection)
        # Most connections are over before their deadline: nobody is woken up for those.
        while timers and not self._is_due_at(timers[0][1], timers[0][0]):
            heappop(timers)
        if len(timers) > 4 * len(flows) + SPARE_TIMERS:
            self._timers = [(at, key) for at, key in timers if self._is_due_at(key, at)]
            heapify(self._timers)
        self.tcp.run_timers(now)
        self._finish_turn(now)

    def _is_due_at(self, key: bytes, at: float) -> bool:
        flow = self.tcp.flows.get(key)
        return type(flow) is Connection and flow.heap_at == at

    def _begin_turn(self, now: float) -> None:
        # A turn that raised has left `_in_turn` set; the next one starts clean all the same.
        self._in_turn = True
        self._woken = False
        self.network.now = now

    def _finish_turn(self, now: float) -> None:
        if self.udp.answered or self.udp.strangers:
            self.udp.send_answers()
        if self._dirty and self.tcp.audit_at == inf:
            self.tcp.audit_at = now + AUDIT_INTERVAL
        while self._dirty and not self._blocked:
            batch, self._dirty = self._dirty, []
            for connection in batch:
                connection.output(now)
                if self.blocked():
                    # When there is room again, who has had no turn comes before who filled it.
                    self._dirty = batch[batch.index(connection) + 1 :] + self._dirty
                    break
        if self._dirty and len(self.links) > 1:
            self._finish_elsewhere(now)
        if self._agenda.at <= now:
            self.network.advance(now)
        if self.on_turn is not None:
            self.on_turn(now, self.tcp.flows)
        self._in_turn = False
        self._woken = False

    def _finish_elsewhere(self, now: float) -> None:
        """One link is full: let the connections on the others speak all the same."""
        waiting: list[Tcb] = []
        while self._dirty:
            batch, self._dirty = self._dirty, []
            for connection in batch:
                if connection.path.neighbor.cache.link.blocked:
                    waiting.append(connection)
                else:
                    connection.output(now)
        self._dirty = waiting

    def deadline(self) -> float:
        """When `run_timers` has something to do, monotonic seconds; inf: never."""
        earliest = self._agenda.at
        timers = self._timers
        if timers and timers[0][0] < earliest:
            earliest = timers[0][0]
        other = self.tcp.deadline()
        if other < earliest:
            earliest = other
        return earliest

    def blocked(self) -> bool:
        """Tell whether the link refused frames: call `flush` when it is writable."""
        return self._blocked

    # ------------------------------------------------------------------ what connections ask for

    def touch(self, connection: Tcb) -> None:
        """Run `connection.output` before the turn ends, or in a turn of its own."""
        if not connection.dirty:
            connection.dirty = True
            self._dirty.append(connection)
            if not self._in_turn and not self._woken:
                self._woken = True
                self.wake()

    def schedule(self, connection: Tcb, at: float) -> None:
        """Look at `connection` at `at`, which it has noted as its `heap_at`."""
        heappush(self._timers, (at, connection.key))

    def _rearm(self, connection: Tcb) -> None:
        at = connection.next_deadline()
        if at < inf:
            connection.heap_at = at
            heappush(self._timers, (at, connection.key))

    def transmit(self, path: TcpPath, head: bytes, payload: bytes | memoryview) -> bool:
        """Send one frame; False: the link is full and has taken nothing."""
        neighbor = path.neighbor
        neighbor.used = True
        if neighbor.mac is None:
            neighbor.cache.enqueue(neighbor, head, payload)
            return True
        if neighbor.send(head, payload):
            self.counters.frames_out += 1
            return True
        neighbor.cache.link.blocked = self._blocked = True
        self.counters.vif_full += 1
        return False

    def emit(self, path: TcpPath, head: bytes) -> None:
        """Send a segment without data, which may be lost."""
        self.counters.tcp_out += 1
        self.transmit(path, head, b"")

    def established(self, connection: Tcb) -> None:
        """A connection completed its handshake: nothing more to do here."""

    def release(self, connection: Tcb) -> None:
        """Forget a connection that is CLOSED."""
        self.tcp.release(connection)

    def enter_time_wait(self, connection: Tcb, now: float) -> None:
        """Put a TIME-WAIT record in the place of `connection`."""
        self.tcp.enter_time_wait(connection, now)

    def udp_queued(self, path: UdpPath) -> None:
        """Have a turn if a neighbour must be asked for, or a timer set."""
        if not self._in_turn and not self._woken:
            self._woken = True
            self.wake()

    # ------------------------------------------------------------------ what applications ask for

    def tcp_listen(
        self,
        address: str,
        port: int,
        accept: Callable[[Connection], TcpUser],
        *,
        backlog: int = 128,
        settings: TcpSettings | None = None,
    ) -> Listener:
        """Accept connections; see `TcpTable.listen`."""
        return self.tcp.listen(address, port, accept, backlog=backlog, settings=settings)

    def tcp_connect(
        self,
        remote: str,
        port: int,
        user: TcpUser,
        *,
        local: str = "",
        local_port: int = 0,
        settings: TcpSettings | None = None,
    ) -> Connection:
        """Open a connection; see `TcpTable.connect`."""
        return self.tcp.connect(
            remote, port, user, local=local, local_port=local_port, settings=settings
        )

    def udp_bind(self, address: str, port: int, user: UdpUser) -> UdpSocket:
        """Receive datagrams; see `UdpTable.bind`."""
        return self.udp.bind(address, port, user)

    def unacknowledged(self) -> int:
        """Return how many connections have sent what their peers have not yet acknowledged."""
        return self.tcp.unacknowledged()

    # ------------------------------------------------------------------ what the network hands up

    def tcp_arrives(self, frame: bytes, packet: Packet, now: float, trusted: bool) -> None:
        """A segment that opens a connection, belongs to none, or came with IP options."""
        if self.strays is None or not self.strays(frame, packet, now):
            self.tcp.arrives(frame, packet, now, trusted)

    def udp_arrives(
        self, frame: bytes, packet: Packet, now: float, trusted: bool, broadcast: bool
    ) -> bool:
        """A datagram of somebody who has not written before, or to nobody (then False)."""
        return self.udp.arrives(frame, packet, trusted, broadcast)

    def tcp_error(
        self, key: bytes, sequence: int, error: OSError | None, mtu: int, now: float
    ) -> bool:
        """ICMP speaks of a segment of ours; False when it speaks of nothing outstanding."""
        return self.tcp.error(key, sequence, error, mtu, now)

    def udp_error(
        self, local: bytes, port: int, remote: bytes, remote_port: int, error: OSError | None
    ) -> bool:
        """ICMP speaks of a datagram of ours; False when we never sent one there."""
        return self.udp.error(local, port, remote, remote_port, error)

    def path_mtus_changed(self, remotes: Collection[bytes]) -> None:
        """Datagrams follow what is known of their ways; TCP searches by itself (`plpmtud`)."""
        self.udp.path_mtus_changed(remotes)

    def link_mtu_changed(self, link: Link, now: float) -> None:
        """What a link carries has changed."""
        self.udp.link_mtu_changed(link)
        self.tcp.link_mtu_changed(link, now)

    def rerouted(self, cache: object, hop: bytes) -> None:
        """What goes by a neighbour must find its way anew."""
        self.tcp.rerouted(cache, hop)
        self.udp.rerouted(cache, hop)

    def address_lost(self, address: bytes) -> None:
        """An address is ours no longer."""
        self.tcp.address_lost(address)
        self.udp.address_lost(address)

    def neighbor_failed(self, cache: object, hop: bytes, error: OSError) -> None:
        """Nobody answers at a next hop: who wanted it hears of it (RFC 1122 §2.3.2.1)."""
        self.tcp.neighbor_failed(cache, hop, error)

    def _tcp_sum_holds(self, frame: bytes, end: int, key: bytes) -> bool:
        pseudo = int.from_bytes(key[:8]) + TCP + end - _TCP_AT
        return ones_complement_sum(frame[_TCP_AT:end], pseudo) == 0xFFFF

    def _sum6_holds(self, frame: bytes, end: int, key: bytes, protocol: int) -> bool:
        pseudo = int.from_bytes(key[:32]) + protocol + end - _TCP6_AT
        return ones_complement_sum(frame[_TCP6_AT:end], pseudo) == 0xFFFF

    def _udp_sum_holds(self, frame: bytes, end: int, key: bytes, length_and_sum: int) -> bool:
        if not length_and_sum & 0xFFFF:
            return True  # RFC 768: the sender made none
        pseudo = int.from_bytes(key[:8]) + UDP + end - _TCP_AT
        return ones_complement_sum(frame[_TCP_AT:end], pseudo) == 0xFFFF


def _nothing() -> None:
    """Stand in for the driver that a host does not have yet."""
