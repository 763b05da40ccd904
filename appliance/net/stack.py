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

import errno
import random as random_module
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from struct import Struct
from typing import Final

from appliance.net import icmp, syn_cookie
from appliance.net.checksum import ones_complement_sum
from appliance.net.counters import Counters
from appliance.net.errors import WireError
from appliance.net.ip import Addresses
from appliance.net.isn import SECRET_LENGTH, initial_sequence_number, timestamp_offset
from appliance.net.neighbor import NeighborCache
from appliance.net.path import TCP, UDP, Ipv4Path, Ipv4UdpPath, TcpPath, datagram
from appliance.net.seq import HALF, MASK
from appliance.net.syn_queue import SYN_ACK_RETRIES, HalfOpen, Listener
from appliance.net.tcp import DEFAULT_MSS, Connection, TcpSettings, TcpUser
from appliance.net.time_wait import TIME_WAIT_SECONDS, TimeWait
from appliance.net.udp import Endpoint, UdpFlow, UdpSocket, UdpUser
from appliance.net.vif.base import Vif
from appliance.net.wire import ethernet, ipv4
from appliance.net.wire import icmp as wire_icmp
from appliance.net.wire import tcp as wire_tcp
from appliance.net.wire import udp as wire_udp
from appliance.net.wire.address import from_text, to_text
from appliance.net.wire.tcp import ACK, CWR, ECE, FIN, RST, SYN
from appliance.net.wire.virtio import DATA_VALID, NEEDS_CSUM, VNET_HDR_LEN

ETHERNET_AT: Final = VNET_HDR_LEN
IP_AT: Final = ETHERNET_AT + ethernet.HEADER_LEN
# flags of virtio | destination MAC | ethertype, version+IHL, TOS | total length | fragment field |
# protocol | addresses and ports | seq, ack, offset+flags, window, checksum (or UDP's own header)
_FAST: Final = Struct(">B9x6s6xIH2xHxB2x12sIIHHH")
_FAST_LEN: Final = _FAST.size
_IPV4_PLAIN: Final = 0x08004500  # ethertype IPv4, version 4, five words of header
_NOT_TOS: Final = 0xFFFFFF00
_CHECKED: Final = NEEDS_CSUM | DATA_VALID
_TCP_AT: Final = IP_AT + 20
_ECN_SETUP: Final = ECE | CWR
_CE: Final = 3  # congestion experienced; RFC 3168 §5
AUDIT_INTERVAL: Final = 1.0  # seconds; 10,000 idle connections take it some 5 ms
EPHEMERAL_FIRST: Final = 49_152  # RFC 6335 §6
EPHEMERAL_COUNT: Final = 65_536 - EPHEMERAL_FIRST
_PORT_TRIES: Final = 64  # draws before a port is searched for in order


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one host takes on; counts unless said otherwise."""

    connections: int = 65_536  # a full TCB idles at a few KB: half a gigabyte at the worst
    half_open: int = 1_024  # of all listeners; Linux's tcp_max_syn_backlog of a small machine
    time_wait: int = 16_384  # about 0.4 KB each
    udp_flows: int = 4_096  # remote ports whose socket is remembered
    per_peer: int = 32_768  # connections of one remote address; half of all
    memory: int = 256 << 20  # octets queued and held by all connections together


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
        self.addresses = Addresses()
        self.wake: Callable[[], None] = _nothing
        self._limits = limits or Limits()
        self._random = random
        self._secret = random.randbytes(SECRET_LENGTH)
        self._vif_send = vif.send
        self.neighbors = NeighborCache(
            vif.mac,
            vif.send,
            source_for=self._source_for,
            random=random,
            on_unreachable=self._neighbor_failed,
        )
        self._icmp_errors = icmp.TokenBucket(icmp.RATE, icmp.BURST)
        # Everything that answers to a flow, by the 12 octets of addresses and ports as they arrive.
        self._tcp: dict[bytes, Connection | HalfOpen | TimeWait] = {}
        self._listeners: dict[tuple[bytes, int], Listener] = {}
        self._udp_flows: dict[bytes, UdpFlow] = {}
        self._udp_sockets: dict[tuple[bytes, int], UdpSocket] = {}
        # Oldest first; records whose time was moved stand again further back.
        self._time_wait: deque[tuple[float, TimeWait]] = deque()
        self._time_wait_count = 0
        self._half_open: list[tuple[float, int, HalfOpen]] = []  # heap by due time
        self._half_open_count = 0
        self._cookies_until = 0.0  # cookies that we sent may come back until then
        self._reopened: tuple[bytes, int] = (b"", 0)  # key and SND.NXT of who last left TIME-WAIT
        self._serial = 0  # breaks ties in heaps
        self._timers: list[tuple[float, Connection]] = []  # heap; void unless it is heap_at
        self._dirty: list[Connection] = []
        self._per_peer: dict[bytes, int] = {}  # full connections by remote address
        self._audit_at = inf  # when memory is counted next; inf: nothing happened since
        self._in_turn = False
        self._woken = False
        self._blocked = False
        self._now = 0.0  # of the current or last turn

    # ------------------------------------------------------------------ configuration

    def add_address(self, cidr: str) -> None:
        """Take the address and network `cidr`, such as "10.0.0.2/24"; ValueError if malformed."""
        address = self.addresses.add(cidr)
        self.neighbors.announce(address)

    def add_gateway(self, address: str) -> None:
        """Send what lies outside our networks to `address`; ValueError unless it is inside one."""
        self.addresses.add_gateway(address)

    def _source_for(self, destination: bytes) -> bytes:
        return self.addresses.source_for(destination) or bytes(len(destination))

    # ------------------------------------------------------------------ turns

    def receive(self, frames: list[bytes], now: float) -> None:
        """Take in a batch of frames and send whatever follows from it."""
        self._begin_turn(now)
        counters = self.counters
        counters.frames_in += len(frames)
        mac = self.mac
        flows = self._tcp
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
                            and (vnet & _CHECKED or self._tcp_sum_holds(frame, end, key))
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
                                self._slow(frame, now)
                            continue
                    elif protocol == UDP:
                        udp = self._udp_flows.get(key)
                        if (
                            udp is not None
                            and total == (seq >> 16) + 20
                            and (vnet & _CHECKED or self._udp_sum_holds(frame, end, key, seq))
                        ):
                            counters.udp_in += 1
                            if several:
                                udp.socket.remember(udp.source, udp.path)
                            udp.socket.user.udp_datagram(frame[_TCP_AT + 8 : end], udp.source)
                            continue
            self._slow(frame, now)
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
        while timers and timers[0][0] <= now:
            at, connection = heappop(timers)
            if connection.heap_at != at:
                continue
            connection.heap_at = inf
            if connection.next_deadline() <= now:
                connection.expire(now)
            else:
                self._rearm(connection)
        while self._half_open and self._half_open[0][0] <= now:
            self._syn_ack_timeout(heappop(self._half_open)[2], now)
        while self._time_wait and self._time_wait[0][0] <= now:
            at, record = self._time_wait.popleft()
            if record.ends_at == at:
                self.forget(record)
        if self._audit_at <= now:
            self._audit(now)
        self._finish_turn(now)

    def _begin_turn(self, now: float) -> None:
        # A turn that raised has left `_in_turn` set; the next one starts clean all the same.
        self._in_turn = True
        self._woken = False
        self._now = now

    def _finish_turn(self, now: float) -> None:
        if self._dirty and self._audit_at == inf:
            self._audit_at = now + AUDIT_INTERVAL
        while self._dirty and not self._blocked:
            batch, self._dirty = self._dirty, []
            for connection in batch:
                connection.output(now)
        if self.neighbors.deadline() <= now:
            self.neighbors.advance(now)
        self._in_turn = False
        self._woken = False

    def deadline(self) -> float:
        """When `run_timers` has something to do, monotonic seconds; inf: never."""
        earliest = self.neighbors.deadline()
        timers = self._timers
        if timers and timers[0][0] < earliest:
            earliest = timers[0][0]
        if self._half_open and self._half_open[0][0] < earliest:
            earliest = self._half_open[0][0]
        if self._time_wait and self._time_wait[0][0] < earliest:
            earliest = self._time_wait[0][0]
        if self._audit_at < earliest:
            earliest = self._audit_at
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
        heappush(self._timers, (at, connection))

    def _rearm(self, connection: Connection) -> None:
        at = connection.next_deadline()
        if at < inf:
            connection.heap_at = at
            heappush(self._timers, (at, connection))

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
        if self._tcp.get(connection.key) is connection:
            del self._tcp[connection.key]
            self._count_peer(connection.path.remote, -1)

    def _count_peer(self, address: bytes, change: int) -> None:
        count = self._per_peer.get(address, 0) + change
        if count:
            self._per_peer[address] = count
        else:
            self._per_peer.pop(address, None)

    def _audit(self, now: float) -> None:
        """Keep the memory of all connections under its bound: the largest hoarders go first."""
        limit = self._limits.memory
        holding = [
            (flow.memory(), flow) for flow in self._tcp.values() if isinstance(flow, Connection)
        ]
        self._audit_at = inf
        total = sum(octets for octets, _ in holding)
        if total > limit:
            # Least valuable first: what holds most for a peer that has been silent longest.
            holding.sort(key=lambda h: h[0] * (now - h[1].last_heard + 1.0), reverse=True)
            for octets, connection in holding:
                if total <= limit * 3 // 4:
                    break
                connection.shed()
                total -= octets
        self.short_of_memory = total > limit // 2

    def enter_time_wait(self, connection: Connection, now: float) -> None:
        """Put a TIME-WAIT record in the place of `connection`."""
        record = TimeWait(
            self,
            connection.key,
            connection.snd_nxt,
            connection.rcv_nxt,
            max(connection.rcv_adv - connection.rcv_nxt, 0) >> connection.rcv_wscale,
            connection.ts_recent if connection.ts_on else -1,
            self._timestamp_offset(connection.key),
        )
        if self._tcp.get(connection.key) is connection:
            if self._time_wait_count >= self._limits.time_wait:
                self._evict_time_wait()
            self._tcp[connection.key] = record
            self._count_peer(connection.path.remote, -1)
            self._time_wait_count += 1
            self.restart_time_wait(record, now)

    # ------------------------------------------------------------------ TIME-WAIT

    def restart_time_wait(self, record: TimeWait, now: float) -> None:
        """Count the 2 MSL from `now`."""
        if record.ends_at != now + TIME_WAIT_SECONDS:
            record.ends_at = now + TIME_WAIT_SECONDS
            self._time_wait.append((record.ends_at, record))
            # A peer that repeats its FIN moves its record each time: drop what is void.
            if len(self._time_wait) > 2 * self._limits.time_wait:
                self._time_wait = deque(e for e in self._time_wait if e[1].ends_at == e[0])

    def reopen(self, record: TimeWait) -> bool:
        """Forget the record in favour of a new connection."""
        self.forget(record)
        self._reopened = (record.key, record.snd_nxt)
        return True

    def forget(self, record: TimeWait) -> None:
        """End TIME-WAIT."""
        if self._tcp.get(record.key) is record:
            del self._tcp[record.key]
            self._time_wait_count -= 1
        record.ends_at = 0.0

    def _evict_time_wait(self) -> None:
        while self._time_wait:
            at, record = self._time_wait.popleft()
            if record.ends_at == at:
                self.counters.tcp_time_wait_evicted += 1
                self.forget(record)
                return

    def answer(
        self, key: bytes, seq: int, ack: int, flags: int, window: int, options: bytes
    ) -> None:
        """Send a bare segment along the flow `key`."""
        path = self._path_of(key)
        if path is not None:
            self.emit(path, path.head(seq, ack, flags, window, options, 0))

    # ------------------------------------------------------------------ TCP for applications

    def tcp_listen(
        self,
        address: str,
        port: int,
        accept: Callable[[Connection], TcpUser],
        *,
        backlog: int = 128,
        settings: TcpSettings | None = None,
    ) -> Listener:
        """Accept connections to `address` ("" for any of ours) and `port` (0: one is chosen).

        `accept(connection)` returns the user of each new connection.  Raises OSError:
        EADDRNOTAVAIL for an address that is not ours, EADDRINUSE for a port that is taken.
        """
        packed = self._own(address)
        port = self._claim(port, packed, self._listeners, "TCP")
        listener = Listener(
            address, port, accept, max(backlog, 1), settings or TcpSettings(), self._unlisten
        )
        self._listeners[packed, port] = listener
        return listener

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
        """Open a connection; `user` hears how it went.

        Raises OSError: ENETUNREACH without a route, EADDRNOTAVAIL for a local address that is not
        ours or when no port is free, EADDRINUSE when the pair of sockets is in use, ENOBUFS at the
        bound of connections.
        """
        there = from_text(remote)
        if not self._reachable(there) or not 0 < port < 65_536:
            raise OSError(errno.EADDRNOTAVAIL, f"cannot connect to {remote} port {port}")
        here = self._own(local) or self.addresses.source_for(there)
        if here is None or self.addresses.next_hop(there) is None:
            raise OSError(errno.ENETUNREACH, f"no route to {remote}")
        if len(self._tcp) >= self._limits.connections:
            raise OSError(errno.ENOBUFS, "too many connections")
        suffix = port.to_bytes(2)
        prefix = there + here + suffix
        if local_port == 0:
            local_port = self._free_port(lambda p: prefix + p.to_bytes(2) in self._tcp)
        key = prefix + local_port.to_bytes(2)
        if key in self._tcp:
            raise OSError(errno.EADDRINUSE, f"{local or to_text(here)} port {local_port} is in use")
        path = self._path_of(key)
        assert path is not None
        connection = Connection(
            self,
            path,
            key,
            (to_text(here), local_port),
            (remote, port),
            settings or TcpSettings(),
            user,
            initial_sequence_number(self._secret, key, self._now),
            self._timestamp_offset(key),
        )
        self._tcp[key] = connection
        self._count_peer(there, 1)
        connection.open(self._now)
        return connection

    def unacknowledged(self) -> int:
        """Return how many connections have sent what their peers have not yet acknowledged."""
        return sum(
            flow.snd_una < flow.snd_nxt or flow.unsent > 0
            for flow in self._tcp.values()
            if isinstance(flow, Connection)
        )

    def _reachable(self, address: bytes) -> bool:
        """Tell whether `address` can be one host's (RFC 9293 §3.9.2.3, MUST-46)."""
        return self.addresses.is_unicast(address) and address not in self.addresses.broadcasts

    def _unlisten(self, listener: Listener) -> None:
        packed = from_text(listener.address) if listener.address else b""
        if self._listeners.get((packed, listener.port)) is listener:
            del self._listeners[packed, listener.port]
            for _, _, half in self._half_open:
                if half.listener is listener:
                    self.drop_half_open(half)

    def _own(self, address: str) -> bytes:
        """Return one of our addresses as bytes, b"" for ""; OSError(EADDRNOTAVAIL) otherwise."""
        if not address:
            return b""
        packed = from_text(address)
        if packed not in self.addresses.local:
            raise OSError(errno.EADDRNOTAVAIL, f"{address} is not an address of this host")
        return packed

    def _claim(
        self, port: int, address: bytes, table: Mapping[tuple[bytes, int], object], name: str
    ) -> int:
        if not 0 <= port < 65_536:
            raise OverflowError(f"port {port} is not in 0-65535")

        def taken(port: int) -> bool:
            if (address, port) in table or (b"", port) in table:
                return True
            return not address and any(p == port for _, p in table)

        if port == 0:
            return self._free_port(taken)
        if taken(port):
            raise OSError(errno.EADDRINUSE, f"{name} port {port} is in use")
        return port

    def _free_port(self, taken: Callable[[int], bool]) -> int:
        """Draw an ephemeral port (RFC 6056 §3.3.1), or search when the draw is unlucky."""
        for _ in range(_PORT_TRIES):
            port = EPHEMERAL_FIRST + self._random.randrange(EPHEMERAL_COUNT)
            if not taken(port):
                return port
        for port in range(EPHEMERAL_FIRST, 65_536):
            if not taken(port):
                return port
        raise OSError(errno.EADDRNOTAVAIL, "no ephemeral port is free")

    # ------------------------------------------------------------------ UDP for applications

    def udp_bind(self, address: str, port: int, user: UdpUser) -> UdpSocket:
        """Receive datagrams to `address` ("" for any of ours) and `port` (0: one is chosen).

        Raises OSError like `tcp_listen`.
        """
        packed = self._own(address)
        port = self._claim(port, packed, self._udp_sockets, "UDP")
        socket = UdpSocket(self, address, port, user)
        self._udp_sockets[packed, port] = socket
        return socket

    def udp_close(self, socket: UdpSocket) -> None:
        """Give the socket's port back."""
        packed = from_text(socket.address) if socket.address else b""
        self._udp_sockets.pop((packed, socket.port), None)
        for key in socket.flows:
            flow = self._udp_flows.get(key)
            if flow is not None and flow.socket is socket:
                del self._udp_flows[key]

    def udp_path(self, socket: UdpSocket, destination: Endpoint) -> Ipv4UdpPath:
        """Find the way from `socket` to `destination`."""
        there = from_text(destination[0])
        here = from_text(socket.address) if socket.address else self.addresses.source_for(there)
        hop = self.addresses.next_hop(there)
        if here is None or hop is None or not self._reachable(there):
            raise OSError(errno.ENETUNREACH, f"no route to {destination[0]}")
        return self._udp_path(here, there, socket.port, destination[1], hop)

    def _udp_path(
        self, here: bytes, there: bytes, port: int, remote_port: int, hop: bytes
    ) -> Ipv4UdpPath:
        neighbor = self.neighbors.lookup(hop, self._now)
        return Ipv4UdpPath(neighbor, self.mac, here, there, port, remote_port, self.vif.mtu)

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

    # ------------------------------------------------------------------ the long way in

    def _slow(self, frame: bytes, now: float) -> None:
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
        trusted = bool(frame[0] & _CHECKED)
        # RFC 1122 §3.3.6: a link-layer broadcast must carry an IP broadcast, or be dropped.
        if group and not broadcast:
            self.counters.ip_not_ours += 1
        elif header.protocol == TCP:
            if broadcast:
                # RFC 9293 §3.9.2.3 (MUST-57): a SYN to a broadcast address is silently dropped.
                self.counters.ip_not_ours += 1
            else:
                self._tcp_arrives(frame, header, now, trusted)
        elif header.protocol == UDP:
            self._udp_arrives(frame, at, header, now, trusted, broadcast)
        elif header.protocol == wire_icmp.PROTOCOL:
            self._icmp_arrives(frame, header, now, broadcast)
        else:
            self.counters.ip_protocol_unknown += 1
            if not broadcast:
                # RFC 1122 §3.2.2.1: code 2 when the protocol is not supported.
                self._send_icmp_error(wire_icmp.UNREACHABLE_PROTOCOL, frame, at, header, now)

    def _tcp_sum_holds(self, frame: bytes, end: int, key: bytes) -> bool:
        pseudo = int.from_bytes(key[:8]) + TCP + end - _TCP_AT
        return ones_complement_sum(frame[_TCP_AT:end], pseudo) == 0xFFFF

    def _udp_sum_holds(self, frame: bytes, end: int, key: bytes, length_and_sum: int) -> bool:
        if not length_and_sum & 0xFFFF:
            return True  # RFC 768: the sender made none
        pseudo = int.from_bytes(key[:8]) + UDP + end - _TCP_AT
        return ones_complement_sum(frame[_TCP_AT:end], pseudo) == 0xFFFF

    def _tcp_arrives(
        self, frame: bytes, packet: ipv4.Ipv4Header, now: float, trusted: bool
    ) -> None:
        """A segment that opens a connection, belongs to none, or came with IP options."""
        at, end = packet.payload_at, packet.payload_end
        header = wire_tcp.parse(frame, at, end)
        if not trusted and not wire_tcp.verify(frame, at, end, packet.src, packet.dst):
            self.counters.tcp_checksum += 1
            return
        self.counters.tcp_in += 1
        key = packet.src + packet.dst + frame[at : at + 4]
        flow = self._tcp.get(key)
        if flow is not None:
            of = int.from_bytes(frame[at + 12 : at + 14])
            again = flow.segment_arrives(
                now, header.seq, header.ack, of, header.window, frame,
                header.options_at, header.payload_at, end,
            )  # fmt: skip
            if again is not True:
                return
        flags = header.flags
        # RFC 9293 §3.10.7.2: LISTEN.
        if flags & RST:
            return
        listener = None
        if not flags & ACK and header.src_port:
            listener = self._listener(packet.dst, header.dst_port)
        if listener is not None:
            # Third, a SYN; fourth, anything else is dropped.
            if flags & SYN:
                self._syn_arrives(listener, key, frame, header, now)
            return
        if flags & (SYN | ACK) == ACK and now < self._cookies_until:
            connection = self._cookie_arrives(key, frame, header, now)
            if connection is not None:
                of = int.from_bytes(frame[at + 12 : at + 14])
                connection.segment_arrives(
                    now, header.seq, header.ack, of, header.window, frame,
                    header.options_at, header.payload_at, end,
                )  # fmt: skip
                return
        # RFC 9293 §3.10.7.1: CLOSED.
        self.counters.tcp_no_listener += 1
        self.counters.tcp_resets_out += 1
        if flags & ACK:
            self.answer(key, header.ack, 0, RST, 0, b"")
        else:
            length = end - header.payload_at + bool(flags & SYN) + bool(flags & FIN)
            self.answer(key, 0, (header.seq + length) & 0xFFFFFFFF, RST | ACK, 0, b"")

    def _syn_arrives(
        self,
        listener: Listener,
        key: bytes,
        frame: bytes,
        header: wire_tcp.TcpHeader,
        now: float,
    ) -> None:
        """RFC 9293 §3.10.7.2, third: a half-open connection is made."""
        limits = self._limits
        if len(self._tcp) - self._time_wait_count >= limits.connections:
            self.counters.tcp_backlog_dropped += 1
            return
        if self._per_peer.get(key[:4], 0) >= limits.per_peer:
            self.counters.tcp_per_peer_dropped += 1
            return
        path = self._path_of(key)
        if path is None:
            return
        options = wire_tcp.parse_options(frame, header.options_at, header.payload_at)
        full = self._half_open_count >= limits.half_open or listener.half_open >= listener.backlog
        if full:
            iss = syn_cookie.sequence_number(
                self._secret, key, header.seq, options.mss or DEFAULT_MSS, now
            )
        else:
            iss = self._iss(key, now)
        half = HalfOpen(
            self,
            listener,
            path,
            key,
            header.seq,
            iss,
            header.window,
            options,
            self._timestamp_offset(key),
            # RFC 3168 §6.1.1: an ECN-setup SYN has both flags.
            listener.settings.ecn and not full and header.flags & _ECN_SETUP == _ECN_SETUP,
        )
        if full:
            self.counters.tcp_cookies_sent += 1
            self._cookies_until = now + 2 * syn_cookie.PERIOD
            half.send_syn_ack(now, cookie=True)
            return
        self._tcp[key] = half
        listener.half_open += 1
        self._half_open_count += 1
        half.send_syn_ack(now)
        self._push_half_open(half)

    def _iss(self, key: bytes, now: float) -> int:
        """Return the ISS of a connection that a SYN opens."""
        iss = initial_sequence_number(self._secret, key, now)
        old_key, old_nxt = self._reopened
        if old_key == key and (iss - old_nxt - 1) & MASK >= HALF:
            # RFC 9293 §3.6.1, MAY-2 (1): above every number of the incarnation before.
            iss = (old_nxt + 0x10001) & MASK
        return iss

    def _cookie_arrives(
        self, key: bytes, frame: bytes, header: wire_tcp.TcpHeader, now: float
    ) -> Connection | None:
        """Make the connection that a cookie attests; None when it attests none (RFC 4987 §3.6)."""
        listener = self._listener(key[4:8], header.dst_port)
        path = self._path_of(key) if listener is not None else None
        if listener is None or path is None or len(self._tcp) >= self._limits.connections:
            return None
        options = syn_cookie.read(
            self._secret,
            key,
            header.seq,
            header.ack,
            wire_tcp.parse_options(frame, header.options_at, header.payload_at),
            now,
        )
        if options is None:
            self.counters.tcp_cookies_failed += 1
            return None
        self.counters.tcp_cookies_valid += 1
        irs, iss = (header.seq - 1) & 0xFFFFFFFF, (header.ack - 1) & 0xFFFFFFFF
        offset = self._timestamp_offset(key)
        half = HalfOpen(
            self, listener, path, key, irs, iss, header.window, options, offset, False
        )  # fmt: skip
        half.sent_at = now
        return self._connect_half(half)

    def _push_half_open(self, half: HalfOpen) -> None:
        self._serial += 1
        heappush(self._half_open, (half.due_at, self._serial, half))
        # Entries of handshakes completed stay until they are due; a busy server's are swept.
        if len(self._half_open) > 4 * self._limits.half_open:
            self._half_open = [e for e in self._half_open if self._tcp.get(e[2].key) is e[2]]
            self._half_open.sort()

    def _syn_ack_timeout(self, half: HalfOpen, now: float) -> None:
        if self._tcp.get(half.key) is not half:
            return
        if half.due_at > now:
            self._push_half_open(half)
            return
        half.retries += 1
        half.repeated = True
        if half.retries > SYN_ACK_RETRIES:
            self.drop_half_open(half)
            return
        self.counters.tcp_syn_retransmitted += 1
        half.send_syn_ack(now)
        self._push_half_open(half)

    def drop_half_open(self, half: HalfOpen) -> None:
        """Forget a half-open connection."""
        if self._tcp.get(half.key) is half:
            del self._tcp[half.key]
            half.listener.half_open -= 1
            self._half_open_count -= 1

    def promote(self, half: HalfOpen, now: float) -> Connection | None:
        """Make the connection whose handshake `half` has kept."""
        self.drop_half_open(half)
        return self._connect_half(half)

    def _connect_half(self, half: HalfOpen) -> Connection:
        key, listener = half.key, half.listener
        connection = Connection(
            self,
            half.path,
            key,
            (to_text(key[4:8]), int.from_bytes(key[10:12])),
            (to_text(key[:4]), int.from_bytes(key[8:10])),
            listener.settings,
            _NOBODY,
            half.iss,
            half.ts_offset,
        )
        self._tcp[key] = connection
        self._count_peer(key[:4], 1)
        connection.accept(
            half.irs,
            half.options,
            half.window,
            half.sent_at,
            max(half.retries, half.repeated),
            half.ecn,
        )
        connection.user = listener.accept(connection)
        return connection

    def _path_of(self, key: bytes) -> Ipv4Path | None:
        """Return the way back along the flow `key`; None when there is none."""
        there, here = key[:4], key[4:8]
        hop = self.addresses.next_hop(there)
        if hop is None:
            self.counters.ip_no_route += 1
            return None
        return Ipv4Path(
            self.neighbors.lookup(hop, self._now),
            self.mac,
            here,
            there,
            int.from_bytes(key[10:12]),
            int.from_bytes(key[8:10]),
            self.vif.mtu,
        )

    def _timestamp_offset(self, key: bytes) -> int:
        return timestamp_offset(self._secret, key[:8])

    def _udp_arrives(
        self,
        frame: bytes,
        ip_at: int,
        packet: ipv4.Ipv4Header,
        now: float,
        trusted: bool,
        broadcast: bool,
    ) -> None:
        at = packet.payload_at
        header = wire_udp.parse(frame, at, packet.payload_end)
        if not trusted and not wire_udp.verify(frame, at, header, packet.src, packet.dst):
            self.counters.udp_checksum += 1
            return
        self.counters.udp_in += 1
        socket = self._udp_socket(packet.dst, header.dst_port)
        if socket is None:
            self.counters.udp_no_port += 1
            if not broadcast:
                # RFC 1122 §4.1.3.1: an unused port SHOULD be told of.
                self._send_icmp_error(wire_icmp.UNREACHABLE_PORT, frame, ip_at, packet, now)
            return
        source = (to_text(packet.src), header.src_port)
        hop = self.addresses.next_hop(packet.src)
        if not broadcast and hop is not None and header.src_port:
            key = packet.src + packet.dst + frame[at : at + 4]
            flows = self._udp_flows
            if len(flows) >= self._limits.udp_flows:
                oldest = next(iter(flows))
                flows.pop(oldest).socket.flows.discard(oldest)
            # The answer leaves from the address that was asked (RFC 1122 §4.1.3.5).
            path = self._udp_path(packet.dst, packet.src, header.dst_port, header.src_port, hop)
            flows[key] = UdpFlow(socket, source, path)
            socket.flows.add(key)
            socket.remember(source, path)
        socket.user.udp_datagram(frame[header.payload_at : header.payload_end], source)

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
        key = quoted.dst + quoted.src + frame[at + 2 : at + 4] + frame[at : at + 2]
        error = icmp.error_of(message.type, message.code)
        if quoted.protocol == UDP:
            port = int.from_bytes(frame[at : at + 2])
            socket = self._udp_socket(quoted.src, port)
            if socket is not None and error is not None:
                socket.user.udp_error(error)
            return
        flow = self._tcp.get(key)
        if quoted.protocol != TCP or not isinstance(flow, Connection):
            self.counters.icmp_ignored += 1
            return
        if not flow.covers(int.from_bytes(frame[at + 4 : at + 8])):
            self.counters.icmp_ignored += 1
        elif error is not None:
            flow.unreachable(error)
        elif message.type == wire_icmp.UNREACHABLE:
            # RFC 1191 §3; 68 octets is the least an IPv4 link carries (RFC 791 §3.2).
            mtu = message.next_hop_mtu
            if 68 <= mtu < quoted.total_len or mtu == 0:
                flow.path_mtu(max(mtu or 576, 552), now)

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
        neighbor = self.neighbors.lookup(hop, self._now)
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
        for flow in list(self._tcp.values()):
            if isinstance(flow, Connection) and flow.path.neighbor.address == address:
                flow.unreachable(error)
        for frame in frames:
            # Our own frames: an IPv4 header without options (RFC 1122 §4.1.3.3 for UDP).
            if len(frame) >= _TCP_AT + 8 and frame[IP_AT + 9] == UDP:
                src, port = frame[IP_AT + 12 : IP_AT + 16], frame[_TCP_AT : _TCP_AT + 2]
                socket = self._udp_socket(src, int.from_bytes(port))
                if socket is not None:
                    socket.user.udp_error(error)

    def _udp_socket(self, address: bytes, port: int) -> UdpSocket | None:
        """Return who receives datagrams to `address` and `port`."""
        sockets = self._udp_sockets
        return sockets.get((address, port)) or sockets.get((b"", port))

    def _listener(self, address: bytes, port: int) -> Listener | None:
        """Return who accepts connections to `address` and `port`."""
        listeners = self._listeners
        return listeners.get((address, port)) or listeners.get((b"", port))


class _Nobody:
    """The user of a connection between its creation and its acceptance."""

    def tcp_established(self) -> None: ...
    def tcp_data(self, data: bytes) -> None: ...
    def tcp_eof(self) -> None: ...
    def tcp_writable(self) -> None: ...
    def tcp_closed(self, error: Exception | None) -> None: ...


_NOBODY: Final = _Nobody()


def _nothing() -> None:
    """Stand in for the driver that a host does not have yet."""
