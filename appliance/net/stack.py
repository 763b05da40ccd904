"""The host: frames in, frames out, and everything between them found by one look-up.

A host has one interface, its addresses, and tables of what listens and what is connected.  It
does nothing by itself: a driver hands in batches of frames with the time, and calls back when the
earliest deadline is due.  A *turn* takes a whole batch; connections that it touched, by packets
or by their applications' calls, are collected and run `output` once, at the turn's end.

A frame is taken apart by one precompiled Struct over virtio, Ethernet, IPv4 and TCP headers, and
the twelve octets of addresses and ports, as they stand on the wire, are the key of the table.  A
frame that does not fit that pattern (options, other protocols, ARP, anything odd) takes the long
way through `wire`, which checks the same things one by one.

Bounds are in `Limits`.  It imports everything below it in this folder and no operating system.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from math import inf
from struct import Struct
from typing import Final

from appliance.net.checksum import ones_complement_sum
from appliance.net.counters import Counters
from appliance.net.network import CHECKED, IP_AT, Network
from appliance.net.path import TCP, UDP, Ipv4UdpPath, TcpPath
from appliance.net.syn_queue import Listener
from appliance.net.tcp import Connection, TcpSettings, TcpUser
from appliance.net.tcp_table import AUDIT_INTERVAL, Limits, TcpTable
from appliance.net.udp import UdpSocket, UdpUser
from appliance.net.udp_table import UdpTable
from appliance.net.vif.base import Vif
from appliance.net.wire import ipv4

# flags of virtio | destination MAC | ethertype, version+IHL, TOS | total length | fragment field |
# protocol | addresses and ports | seq, ack, offset+flags, window, checksum (or UDP's own header)
_FAST: Final = Struct(">B9x6s6xIH2xHxB2x12sIIHHH")
_FAST_LEN: Final = _FAST.size
_IPV4_PLAIN: Final = 0x08004500  # ethertype IPv4, version 4, five words of header
_NOT_TOS: Final = 0xFFFFFF00
_TCP_AT: Final = IP_AT + 20
SPARE_TIMERS: Final = 4_096  # void deadlines that may stay, of 100 octets: no sweep is worth them
_CE: Final = 3  # congestion experienced; RFC 3168 §5


class Host:
    """A sans-I/O internet host on one interface.

    `random` gives ports, secrets and identifications.  The methods that take `now` (monotonic
    seconds) are turns; all others may be called inside or outside a turn.
    """

    def __init__(
        self,
        vif: Vif,
        *,
        random: random_module.Random,
        limits: Limits | None = None,
    ) -> None:
        self.vif = vif
        self.mac = vif.mac
        self.gso_max = vif.gso_max
        self.short_of_memory = False
        self.counters = Counters()
        self.wake: Callable[[], None] = _nothing
        self.on_turn: Callable[[float, Mapping[bytes, object]], None] | None = None
        """Called at the end of each turn with the time and the table of flows (`net.trace`)."""
        self.network = Network(vif, self.counters, random, self)
        self.addresses = self.network.addresses
        self.neighbors = self.network.neighbors
        self.tcp = TcpTable(self, self.network, self.counters, random, limits or Limits())
        self.udp = UdpTable(self, self.network, random, self.tcp.limits.udp_flows)
        self._vif_send = vif.send
        # Heap of when to look at which flow; void unless it is that connection's `heap_at`.  Keys,
        # not connections: a deadline keeps nobody alive, and the collector does not walk it.
        self._timers: list[tuple[float, bytes]] = []
        self._dirty: list[Connection] = []
        self._in_turn = False
        self._woken = False
        self._blocked = False

    # ------------------------------------------------------------------ configuration

    def add_address(self, cidr: str) -> None:
        """Take the address and network `cidr`, such as "10.0.0.2/24"; ValueError if malformed."""
        self.network.add_address(cidr)

    def add_gateway(self, address: str) -> None:
        """Send what lies outside our networks to `address`; ValueError unless it is inside one."""
        self.addresses.add_gateway(address)

    # ------------------------------------------------------------------ turns

    def receive(self, frames: list[bytes], now: float) -> None:
        """Take in a batch of frames and send whatever follows from it."""
        self._begin_turn(now)
        counters = self.counters
        counters.frames_in += len(frames)
        mac = self.mac
        flows = self.tcp.flows
        udp_flows = self.udp.flows
        slow = self.network.arrives
        several = len(self.addresses.local) > 1
        unpack = _FAST.unpack_from
        for frame in frames:
            size = len(frame)
            if size >= _FAST_LEN:
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
                        payload_at = _TCP_AT + (of >> 12) * 4
                        if (
                            flow is not None
                            and _TCP_AT + 20 <= payload_at <= end
                            and (vnet & CHECKED or self._tcp_sum_holds(frame, end, key))
                        ):
                            counters.tcp_in += 1
                            if kind & _CE == _CE and type(flow) is Connection:
                                flow.congestion_experienced()
                            if (
                                flow.segment_arrives(
                                    now, seq, ack, of, wnd, frame, _TCP_AT + 20, payload_at, end
                                )
                                is True
                            ):
                                slow(frame, now)
                            continue
                    elif protocol == UDP:
                        udp = udp_flows.get(key)
                        if (
                            udp is not None
                            and total == (seq >> 16) + 20
                            and (vnet & CHECKED or self._udp_sum_holds(frame, end, key, seq))
                        ):
                            counters.udp_in += 1
                            if several:
                                udp.socket.remember(udp.source, udp.path)
                            udp.socket.user.udp_datagram(frame[_TCP_AT + 8 : end], udp.source)
                            continue
            slow(frame, now)
        self._finish_turn(now)

    def flush(self, now: float) -> None:
        """Send what applications queued outside a turn, or what a full link held up."""
        self._begin_turn(now)
        self._blocked = False
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
        if self._dirty and self.tcp.audit_at == inf:
            self.tcp.audit_at = now + AUDIT_INTERVAL
        while self._dirty and not self._blocked:
            batch, self._dirty = self._dirty, []
            for connection in batch:
                connection.output(now)
        if self.neighbors.deadline() <= now:
            self.neighbors.advance(now)
        if self.on_turn is not None:
            self.on_turn(now, self.tcp.flows)
        self._in_turn = False
        self._woken = False

    def deadline(self) -> float:
        """When `run_timers` has something to do, monotonic seconds; inf: never."""
        earliest = self.neighbors.deadline()
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

    def touch(self, connection: Connection) -> None:
        """Run `connection.output` before the turn ends, or in a turn of its own."""
        if not connection.dirty:
            connection.dirty = True
            self._dirty.append(connection)
            if not self._in_turn and not self._woken:
                self._woken = True
                self.wake()

    def schedule(self, connection: Connection, at: float) -> None:
        """Look at `connection` at `at`, which it has noted as its `heap_at`."""
        heappush(self._timers, (at, connection.key))

    def _rearm(self, connection: Connection) -> None:
        at = connection.next_deadline()
        if at < inf:
            connection.heap_at = at
            heappush(self._timers, (at, connection.key))

    def transmit(self, path: TcpPath, head: bytes, payload: bytes | memoryview) -> bool:
        """Send one frame; False: the link is full and has taken nothing."""
        neighbor = path.neighbor
        neighbor.used = True
        if neighbor.mac is None:
            self.neighbors.enqueue(neighbor, head, payload)
            return True
        if self._vif_send(head, payload):
            self.counters.frames_out += 1
            return True
        self._blocked = True
        self.counters.vif_full += 1
        return False

    def emit(self, path: TcpPath, head: bytes) -> None:
        """Send a segment without data, which may be lost."""
        self.counters.tcp_out += 1
        self.transmit(path, head, b"")

    def established(self, connection: Connection) -> None:
        """A connection completed its handshake: nothing more to do here."""

    def release(self, connection: Connection) -> None:
        """Forget a connection that is CLOSED."""
        self.tcp.release(connection)

    def enter_time_wait(self, connection: Connection, now: float) -> None:
        """Put a TIME-WAIT record in the place of `connection`."""
        self.tcp.enter_time_wait(connection, now)

    def udp_transmit(self, path: Ipv4UdpPath, head: bytes, payload: bytes) -> None:
        """Send one datagram; a full link loses it, as links do."""
        self.counters.udp_out += 1
        neighbor = path.neighbor
        neighbor.used = True
        if neighbor.mac is None:
            self.neighbors.enqueue(neighbor, head, payload)
            if not self._in_turn and not self._woken:
                self._woken = True
                self.wake()
        elif self._vif_send(head, payload):
            self.counters.frames_out += 1
        else:
            self.counters.vif_full += 1

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

    def tcp_arrives(self, frame: bytes, packet: ipv4.Ipv4Header, now: float, trusted: bool) -> None:
        """A segment that opens a connection, belongs to none, or came with IP options."""
        self.tcp.arrives(frame, packet, now, trusted)

    def udp_arrives(
        self, frame: bytes, packet: ipv4.Ipv4Header, now: float, trusted: bool, broadcast: bool
    ) -> bool:
        """A datagram of somebody who has not written before, or to nobody (then False)."""
        return self.udp.arrives(frame, packet, trusted, broadcast)

    def tcp_error(
        self, key: bytes, sequence: int, error: OSError | None, mtu: int, now: float
    ) -> bool:
        """ICMP speaks of a segment of ours; False when it speaks of nothing outstanding."""
        return self.tcp.error(key, sequence, error, mtu, now)

    def udp_error(self, address: bytes, port: int, error: OSError) -> None:
        """ICMP speaks of a datagram of ours."""
        self.udp.error(address, port, error)

    def neighbor_failed(self, address: bytes, error: OSError) -> None:
        """Nobody answers at a next hop: who wanted it hears of it (RFC 1122 §2.3.2.1)."""
        self.tcp.neighbor_failed(address, error)

    def _tcp_sum_holds(self, frame: bytes, end: int, key: bytes) -> bool:
        pseudo = int.from_bytes(key[:8]) + TCP + end - _TCP_AT
        return ones_complement_sum(frame[_TCP_AT:end], pseudo) == 0xFFFF

    def _udp_sum_holds(self, frame: bytes, end: int, key: bytes, length_and_sum: int) -> bool:
        if not length_and_sum & 0xFFFF:
            return True  # RFC 768: the sender made none
        pseudo = int.from_bytes(key[:8]) + UDP + end - _TCP_AT
        return ones_complement_sum(frame[_TCP_AT:end], pseudo) == 0xFFFF


def _nothing() -> None:
    """Stand in for the driver that a host does not have yet."""
