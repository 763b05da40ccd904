"""The TCP of a host: every flow by its addresses and ports, and what happens where there is none.

One table holds whatever answers to a flow: a `Connection`, the half-open record of a SYN, or what
is left in TIME-WAIT.  The host's fast pattern looks into it; everything else comes the long
way through `arrives`, which is RFC 9293 §3.10.7 for the states LISTEN and CLOSED.

Bounds are in `Limits`.  It imports `wire`, the connections, the queues and the network layer.
"""

from __future__ import annotations

import errno
import random as random_module
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from appliance.net import syn_cookie
from appliance.net.counters import Counters
from appliance.net.ephemeral import claim, free_port
from appliance.net.fast_open import NO_FAST_OPEN, Cookies, Opening, Servers
from appliance.net.isn import SECRET_LENGTH, initial_sequence_number, timestamp_offset
from appliance.net.network import Network
from appliance.net.path import TcpPath
from appliance.net.seq import HALF, MASK
from appliance.net.syn_budget import SynBudget
from appliance.net.syn_queue import HalfOpen, Listener, SynQueue
from appliance.net.tcb import Tcb, TcpHost, TcpSettings, TcpUser, default_mss, first_hop_mtu
from appliance.net.tcp import Connection
from appliance.net.time_wait import TimeWait, TimeWaitQueue
from appliance.net.upper import Packet
from appliance.net.wire import tcp as wire_tcp
from appliance.net.wire.address import from_text, to_text
from appliance.net.wire.tcp import ACK, CWR, ECE, FIN, RST, SYN, TcpOptions

_ECN_SETUP: Final = ECE | CWR
_NO_PORT: Final = b"\0\0"  # RFC 6335 §6: nobody sends from port 0
FLOOD_MEMORY: Final = 1.0  # seconds after a SYN that found the queue full
AUDIT_INTERVAL: Final = 1.0  # seconds; 10,000 idle connections take it some 5 ms


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one host takes on; counts unless said otherwise."""

    connections: int = 65_536  # a full TCB idles at a few KB: half a gigabyte at the worst
    half_open: int = 1_024  # of all listeners; Linux's tcp_max_syn_backlog of a small machine
    time_wait: int = 16_384  # about 0.4 KB each
    udp_flows: int = 4_096  # remote ports whose socket is remembered, and as many addresses
    per_peer: int = 32_768  # connections of one remote address; half of all
    memory: int = 256 << 20  # octets queued and held by all connections together


class TableHost(TcpHost, Protocol):
    """What the table asks of its host."""

    def emit(self, path: TcpPath, head: bytes) -> None:
        """Send a segment without data, which may be lost."""


class TcpTable:
    """All flows of a host by the octets of addresses and ports, remote before local."""

    def __init__(
        self,
        host: TableHost,
        network: Network,
        counters: Counters,
        random: random_module.Random,
        limits: Limits,
    ) -> None:
        self.flows: dict[bytes, Connection | HalfOpen | TimeWait] = {}
        self.counters = counters
        self.limits = limits
        self.audit_at = inf  # when memory is counted next; inf: nothing happened since
        self._host = host
        self._network = network
        self._random = random
        self._secret = random.randbytes(SECRET_LENGTH)
        self._listeners: dict[tuple[bytes, int], Listener] = {}
        self._time_wait = TimeWaitQueue(limits.time_wait, counters, self._ended)
        self._half_open = SynQueue(limits.half_open, counters)
        self._cookies_until = 0.0  # cookies that we sent may come back until then
        self.flooded_until = 0.0  # more SYNs came than can be waited for, a moment ago
        self._syn_budget = SynBudget()
        self._reopened: tuple[bytes, int] = (b"", 0)  # key and SND.NXT of who last left TIME-WAIT
        self._per_peer: dict[bytes, int] = {}  # full connections by remote address
        self.fast_cookies = Cookies(self._secret, counters)  # RFC 7413: as a server, ...
        self.fast_servers = Servers()  # ... and as a client

    # ------------------------------------------------------------------ for applications

    def listen(
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
        port = claim(self._random, port, packed, self._listeners, "TCP")
        listener = Listener(
            address, port, accept, max(backlog, 1), settings or TcpSettings(), self._unlisten
        )
        self._listeners[packed, port] = listener
        return listener

    def connect(
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
        network = self._network
        there = from_text(remote)
        if not network.reachable(there) or not 0 < port < 65_536:
            raise OSError(errno.EADDRNOTAVAIL, f"cannot connect to {remote} port {port}")
        here = self._own(local) or network.source_for(there)
        if here is None or len(here) != len(there) or network.way(there) is None:
            raise OSError(errno.ENETUNREACH, f"no route to {remote}")
        if len(self.flows) >= self.limits.connections:
            raise OSError(errno.ENOBUFS, "too many connections")
        suffix = port.to_bytes(2)
        prefix = there + here + suffix
        if local_port == 0:
            local_port = free_port(self._random, lambda p: prefix + p.to_bytes(2) in self.flows)
        key = prefix + local_port.to_bytes(2)
        if key in self.flows:
            raise OSError(errno.EADDRINUSE, f"{local or to_text(here)} port {local_port} is in use")
        path = network.tcp_path(key)
        assert path is not None
        connection = Connection(
            self._host,
            path,
            key,
            (to_text(here), local_port),
            (remote, port),
            settings or TcpSettings(),
            user,
            initial_sequence_number(self._secret, key, network.now),
            self._timestamp_offset(key),
        )
        self.flows[key] = connection
        self._count_peer(there, 1)
        if settings is not None and settings.fast_open:
            connection.fast = self.fast_servers.begin(
                there, network.now, cookies=settings.fast_open_cookies
            )
        connection.open(network.now)
        return connection

    def unacknowledged(self) -> int:
        """Return how many connections have sent what their peers have not yet acknowledged."""
        return sum(
            flow.snd_una < flow.snd_nxt or flow.unsent > 0
            for flow in self.flows.values()
            if isinstance(flow, Connection)
        )

    def _own(self, address: str) -> bytes:
        """Return one of our addresses as bytes, b"" for ""; OSError(EADDRNOTAVAIL) otherwise."""
        return self._network.own(from_text(address), address) if address else b""

    def _unlisten(self, listener: Listener) -> None:
        packed = from_text(listener.address) if listener.address else b""
        if self._listeners.get((packed, listener.port)) is listener:
            del self._listeners[packed, listener.port]
            for half in self._half_open.of(listener):
                self.drop_half_open(half)

    def _listener(self, key: bytes) -> Listener | None:
        """Return who accepts connections to the local address and port of a flow."""
        listeners = self._listeners
        address, port = key[(len(key) - 4) >> 1 : -4], int.from_bytes(key[-2:])
        return listeners.get((address, port)) or listeners.get((b"", port))

    # ------------------------------------------------------------------ the long way in

    def arrives(self, frame: bytes, packet: Packet, now: float, trusted: bool) -> None:
        """A segment that opens a connection, belongs to none, or came with IP options."""
        at, end = packet.payload_at, packet.payload_end
        header = wire_tcp.parse(frame, at, end)
        if not trusted and not wire_tcp.verify(frame, at, end, packet.src, packet.dst):
            self.counters.tcp_checksum += 1
            return
        self.counters.tcp_in += 1
        key = packet.src + packet.dst + frame[at : at + 4]
        seq, ack, window = header.seq, header.ack, header.window
        of = int.from_bytes(frame[at + 12 : at + 14])
        options_at, payload_at = header.options_at, header.payload_at
        flow = self.flows.get(key)
        if flow is not None:
            again = flow.segment_arrives(
                now, seq, ack, of, window, frame, options_at, payload_at, end
            )
            if again is not True:
                return
        self.unclaimed(key, now, seq, ack, of, window, frame, options_at, payload_at, end)

    def unclaimed(
        self,
        key: bytes,
        now: float,
        seq: int,
        ack: int,
        offset_flags: int,
        window: int,
        frame: bytes,
        options_at: int,
        payload_at: int,
        end: int,
    ) -> None:
        """SEGMENT ARRIVES for a segment of no flow, whose checksum holds (RFC 9293 §3.10.7)."""
        flags = offset_flags & 0xFF
        # RFC 9293 §3.10.7.2: LISTEN.
        if flags & RST:
            return
        if not flags & ACK and key[-4:-2] != _NO_PORT:
            listener = self._listener(key)
            if listener is not None:
                # Third, a SYN; fourth, anything else is dropped.
                if flags & SYN:
                    options = wire_tcp.parse_options(frame, options_at, payload_at)
                    self._syn_arrives(
                        listener, key, seq, flags, window, options, frame[payload_at:end], now
                    )
                return
        elif flags & (SYN | ACK) == ACK and now < self._cookies_until:
            options = wire_tcp.parse_options(frame, options_at, payload_at)
            connection = self._cookie_arrives(key, seq, ack, window, options, now)
            if connection is not None:
                connection.segment_arrives(
                    now, seq, ack, offset_flags, window, frame, options_at, payload_at, end
                )
                return
        # RFC 9293 §3.10.7.1: CLOSED.
        self.counters.tcp_no_listener += 1
        self.counters.tcp_resets_out += 1
        if flags & ACK:
            self.answer(key, ack, 0, RST, 0, b"")
        else:
            length = end - payload_at + bool(flags & SYN) + bool(flags & FIN)
            self.answer(key, 0, (seq + length) & MASK, RST | ACK, 0, b"")

    def sheds(self, key: bytes, offset_flags: int, now: float) -> bool:
        """Tell whether a segment of no flow is a SYN too many, and count it if so.

        Asked before anything else is looked at, while SYNs flood in: dropping has to be cheap.
        """
        if offset_flags & (SYN | ACK | RST) != SYN or self._syn_budget.admits(key, now):
            return False
        self.counters.tcp_in += 1
        self.counters.tcp_syns_shed += 1
        return True

    def _syn_arrives(
        self,
        listener: Listener,
        key: bytes,
        seq: int,
        flags: int,
        window: int,
        options: TcpOptions,
        payload: bytes,
        now: float,
    ) -> None:
        """RFC 9293 §3.10.7.2, third: a half-open connection is made."""
        if self._refuses(key):
            return
        path = self._network.tcp_path(key)
        if path is None:
            return
        full = self._half_open.is_full(listener)
        if full:
            iss = syn_cookie.sequence_number(
                self._secret, key, seq, options.mss or default_mss(path), now
            )
        else:
            iss = self._iss(key, now)
        half = HalfOpen(
            self,
            listener,
            path,
            key,
            seq,
            iss,
            window,
            options,
            self._timestamp_offset(key),
            # RFC 3168 §6.1.1: an ECN-setup SYN has both flags.
            listener.settings.ecn and not full and flags & _ECN_SETUP == _ECN_SETUP,
        )
        if full:
            self.counters.tcp_cookies_sent += 1
            self._cookies_until = now + 2 * syn_cookie.PERIOD
            self.flooded_until = now + FLOOD_MEMORY
            half.send_syn_ack(now, cookie=True)
            return
        if listener.settings.fast_open and self._opens_fast(half, flags, payload, now):
            return
        self.flows[key] = half
        half.send_syn_ack(now)
        self._half_open.add(half)

    def _refuses(self, key: bytes) -> bool:
        """Tell whether a connection would be one too many, of all or of its peer, and count it."""
        if len(self.flows) - self._time_wait.count >= self.limits.connections:
            self.counters.tcp_backlog_dropped += 1
        elif self._per_peer.get(key[: (len(key) - 4) >> 1], 0) >= self.limits.per_peer:
            self.counters.tcp_per_peer_dropped += 1
        else:
            return False
        return True

    def _opens_fast(self, half: HalfOpen, flags: int, payload: bytes, now: float) -> bool:
        """Open at once what a cookie vouches for (RFC 7413 §4.2.2); else `half` may give one."""
        listener, options = half.listener, half.options
        offered, experimental = options.fast_open or (None, False)
        verdict = NO_FAST_OPEN
        if not flags & FIN:
            verdict = self.fast_cookies.judge(
                listener.opens,
                listener.settings.fast_open,
                offered,
                bool(payload),
                half.key[:-4],
                now,
                required=listener.settings.fast_open_cookies,
            )
        if not verdict.opens:
            if verdict.cookie is not None:
                half.fast_open = wire_tcp.build_fast_open(verdict.cookie, experimental)
            return False
        self.counters.tcp_fast_open_accepted += 1
        fast = Opening(verdict.cookie, experimental)
        fast.octets, fast.taken = len(payload), bool(payload)
        fast.queue = listener.opens
        listener.opens.enter()
        connection = self._make(half)
        connection.accept_fast(now, fast, half.irs, options, half.window, half.ecn)
        connection.user = listener.accept(connection)
        connection.taste(now, payload)
        return True

    def _iss(self, key: bytes, now: float) -> int:
        """Return the ISS of a connection that a SYN opens."""
        iss = initial_sequence_number(self._secret, key, now)
        old_key, old_nxt = self._reopened
        if old_key == key and (iss - old_nxt - 1) & MASK >= HALF:
            # RFC 9293 §3.6.1, MAY-2 (1): above every number of the incarnation before.
            iss = (old_nxt + 0x10001) & MASK
        return iss

    def _cookie_arrives(
        self, key: bytes, seq: int, ack: int, window: int, options: TcpOptions, now: float
    ) -> Connection | None:
        """Make the connection that a cookie attests; None when it attests none (RFC 4987 §3.6)."""
        listener = self._listener(key)
        path = self._network.tcp_path(key) if listener is not None else None
        if listener is None or path is None:
            return None
        attested = syn_cookie.read(self._secret, key, seq, ack, options, now)
        if attested is None:
            self.counters.tcp_cookies_failed += 1
            return None
        if self._refuses(key):
            return None
        self.counters.tcp_cookies_valid += 1
        irs, iss = (seq - 1) & MASK, (ack - 1) & MASK
        offset = self._timestamp_offset(key)
        half = HalfOpen(self, listener, path, key, irs, iss, window, attested, offset, False)
        half.sent_at = now
        connection = self._connect_half(half)
        # RFC 6298 §3: when its SYN,ACK left is forgotten, too; a timestamp may tell.
        connection.repair.flight.records[0].retransmitted = True
        return connection

    def drop_half_open(self, half: HalfOpen) -> None:
        """Forget a half-open connection."""
        if self._half_open.drop(half):
            del self.flows[half.key]

    def promote(self, half: HalfOpen, now: float) -> Connection | None:
        """Make the connection whose handshake `half` has kept."""
        self.drop_half_open(half)
        return self._connect_half(half)

    def _connect_half(self, half: HalfOpen) -> Connection:
        connection = self._make(half)
        repeats = max(half.retries, half.repeated)
        connection.accept(half.irs, half.options, half.window, half.sent_at, repeats, half.ecn)
        connection.user = half.listener.accept(connection)
        return connection

    def _make(self, half: HalfOpen) -> Connection:
        """Put a connection in the place of `half`."""
        key, listener = half.key, half.listener
        size = (len(key) - 4) >> 1
        there = key[:size]
        connection = Connection(
            self._host,
            half.path,
            key,
            (to_text(key[size:-4]), int.from_bytes(key[-2:])),
            (to_text(there), int.from_bytes(key[-4:-2])),
            listener.settings,
            _NOBODY,
            half.iss,
            half.ts_offset,
        )
        self.flows[key] = connection
        self._count_peer(there, 1)
        return connection

    def _timestamp_offset(self, key: bytes) -> int:
        return timestamp_offset(self._secret, key[:-4])

    def emit(self, path: TcpPath, head: bytes) -> None:
        """Send a segment without data, which may be lost."""
        self._host.emit(path, head)

    def answer(
        self, key: bytes, seq: int, ack: int, flags: int, window: int, options: bytes
    ) -> None:
        """Send a bare segment along the flow `key`."""
        path = self._network.tcp_path(key)
        if path is not None:
            self._host.emit(path, path.head(seq, ack, flags, window, options, 0))

    # ------------------------------------------------------------------ errors from the network

    def error(self, key: bytes, sequence: int, error: OSError | None, mtu: int, now: float) -> bool:
        """Tell the connection that ICMP quotes; False when it quotes nothing outstanding."""
        flow = self.flows.get(key)
        # RFC 5927 §4: an error about a segment that is not in flight is not believed.
        if isinstance(flow, HalfOpen) and error is not None and sequence == flow.iss:
            # RFC 5461 §4.1: before it is synchronized a connection is given up, as in SYN-SENT.
            self.drop_half_open(flow)
            return True
        if not isinstance(flow, Connection) or not flow.covers(sequence):
            return False
        if error is not None:
            flow.unreachable(error)
        elif mtu:
            flow.path_mtu(mtu, now)
        return True

    def neighbor_failed(self, cache: object, hop: bytes, error: OSError) -> None:
        """Tell every connection whose next hop is the neighbour `hop` of `cache`."""
        for flow in list(self.flows.values()):
            if isinstance(flow, Connection):
                neighbor = flow.path.neighbor
                if neighbor.address == hop and neighbor.cache is cache:
                    flow.unreachable(error)

    def link_mtu_changed(self, link: object, now: float) -> None:
        """Have what leaves by `link` fit it; what may be larger than before stays (`plpmtud`)."""
        for flow in self.flows.values():
            if not isinstance(flow, TimeWait) and flow.path.neighbor.cache.link is link:
                mtu = first_hop_mtu(flow.path)
                if isinstance(flow, HalfOpen):
                    flow.path.mtu = min(flow.path.mtu, mtu)
                else:
                    flow.link_mtu(mtu, now)

    def rerouted(self, cache: object, hop: bytes) -> None:
        """Send what went by the neighbour `hop` of `cache` by whoever is the next hop now."""
        for flow in self.flows.values():
            if isinstance(flow, Connection):
                path, neighbor = flow.path, flow.path.neighbor
                if neighbor.address == hop and neighbor.cache is cache:
                    found = self._network.next_hop(path.remote, path.local)
                    if found is None or found == (neighbor.cache.link, hop):
                        continue  # who does not answer is not asked for again by this
                    way = self._network.way(path.remote, path.local)
                    if way is not None:
                        path.neighbor = way[1]

    def address_lost(self, address: bytes) -> None:
        """End the connections from an address that is ours no longer (RFC 5227 §2.4)."""
        error = OSError(errno.EADDRNOTAVAIL, f"{to_text(address)} is no longer ours")
        for key, flow in list(self.flows.items()):
            if key[(len(key) - 4) >> 1 : -4] != address:
                continue
            if isinstance(flow, Connection):
                flow.lose(error)
            elif isinstance(flow, HalfOpen):
                self.drop_half_open(flow)

    # ------------------------------------------------------------------ ends of connections

    def release(self, connection: Tcb) -> None:
        """Forget a connection that is CLOSED."""
        if self.flows.get(connection.key) is connection:
            del self.flows[connection.key]
            self._count_peer(connection.path.remote, -1)

    def _count_peer(self, address: bytes, change: int) -> None:
        count = self._per_peer.get(address, 0) + change
        if count:
            self._per_peer[address] = count
        else:
            self._per_peer.pop(address, None)

    def enter_time_wait(self, connection: Tcb, now: float) -> None:
        """Put a TIME-WAIT record in the place of `connection`."""
        record = TimeWait(
            self,
            connection.key,
            connection.snd_nxt,
            connection.rcv_nxt,
            max(connection.rcv_adv - connection.rcv_nxt, 0) >> connection.rcv_wscale,
            connection.ts_recent if connection.ts_on else -1,
            connection.ts_offset,
        )
        if self.flows.get(connection.key) is connection:
            self.flows[connection.key] = record
            self._count_peer(connection.path.remote, -1)
            self._time_wait.add(record, now)

    def restart_time_wait(self, record: TimeWait, now: float) -> None:
        """Count the 2 MSL from `now`."""
        self._time_wait.restart(record, now)

    def reopen(self, record: TimeWait) -> bool:
        """Forget the record in favour of a new connection."""
        self._time_wait.end(record)
        self._reopened = (record.key, record.snd_nxt)
        return True

    def forget(self, record: TimeWait) -> None:
        """End TIME-WAIT."""
        self._time_wait.end(record)

    def _ended(self, record: TimeWait) -> None:
        if self.flows.get(record.key) is record:
            del self.flows[record.key]

    # ------------------------------------------------------------------ timers, and memory

    def run_timers(self, now: float) -> None:
        """Do what is due for those that are not connections."""
        self._half_open.run(now)
        self._time_wait.run(now)
        if self.audit_at <= now:
            self._audit(now)

    def deadline(self) -> float:
        """When `run_timers` has something to do; inf: never."""
        queues = min(self._half_open.deadline(), self._time_wait.deadline())
        return min(queues, self.audit_at)

    def _audit(self, now: float) -> None:
        """Keep the memory of all connections under its bound: the largest hoarders go first."""
        limit = self.limits.memory
        holding = [
            (flow.memory(), flow) for flow in self.flows.values() if isinstance(flow, Connection)
        ]
        self.audit_at = inf
        total = sum(octets for octets, _ in holding)
        if total > limit:
            # Least valuable first: what holds most for a peer that has been silent longest.
            holding.sort(key=lambda h: h[0] * (now - h[1].last_heard + 1.0), reverse=True)
            for octets, connection in holding:
                if total <= limit * 3 // 4:
                    break
                connection.shed(now)
                total -= octets
        self._host.short_of_memory = total > limit // 2


class _Nobody:
    """The user of a connection between its creation and its acceptance."""

    def tcp_established(self) -> None: ...
    def tcp_data(self, data: bytes) -> None: ...
    def tcp_eof(self) -> None: ...
    def tcp_writable(self) -> None: ...
    def tcp_closed(self, error: Exception | None) -> None: ...


_NOBODY: Final = _Nobody()
