"""Hostile frames for a live host. Imports `target`, `mutate`, `invariants`, `world` and `net`."""

from __future__ import annotations

import random as random_module
from operator import attrgetter
from typing import Any

from appliance.fuzz import invariants, mutate
from appliance.fuzz.link import Link
from appliance.fuzz.target import PATIENCE, BrokenRuleError, corpus
from appliance.fuzz.world import DETECTION, World
from appliance.net.checksum import ones_complement_sum, pseudo_header_sum
from appliance.net.tcb import TcpSettings
from appliance.net.tcp import Connection
from appliance.net.tcp_state import CLOSED
from appliance.net.wire import arp, ethernet, icmp, ipv4, ipv6, tcp, udp
from appliance.net.wire.address import from_text
from appliance.net.wire.tcp import ACK, FIN, PSH, RST, SYN
from appliance.net.wire.virtio import PLAIN

OURS, THEIRS = "10.0.0.1", "10.0.0.2"
OURS6, THEIRS6 = "fd00::1", "fd00::2"


class _User:
    """The application of the live connection; it may echo a little."""

    def __init__(self, echoes: bool = True) -> None:
        self.connection: Connection | None = None
        self._echoes = echoes

    def tcp_established(self) -> None: ...

    def tcp_data(self, data: bytes) -> None:
        if self.connection is not None and self._echoes:
            self.connection.send(bytes(data[:100]))

    def tcp_eof(self) -> None:
        if self.connection is not None:
            self.connection.shutdown()

    def tcp_writable(self) -> None: ...

    def tcp_closed(self, error: Exception | None) -> None: ...

    def udp_datagram(self, data: bytes, source: tuple[str, int]) -> None: ...

    def udp_error(self, error: OSError) -> None: ...


class Frames:
    """A host with a listener, a UDP socket and an established connection, and its peer's link.

    The first octet of an input says what is done to the rest, an Ethernet frame: bit 0 aims it at
    the connection (addresses, ports, numbers counted from where the connection stands), bit 1
    repairs its sums, bits 2 and 3 let time pass before it: none, an instant, 1 s, 70 s.
    """

    name = "frames"

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """A new host, an established connection."""
        self._used = 0
        self._world = World(1)
        self._host = self._world.host("victim", f"{OURS}/24")
        self._peer = self._world.host("peer", f"{THEIRS}/24")
        self._world.link(self._host, self._peer, Link(delay=0.001))
        self._user = _User()
        listening = _User()

        def accept(connection: Connection) -> _User:
            user = _User(echoes=connection.local[1] == 80)
            user.connection = connection
            return user

        host = self._host.host
        host.add_address(f"{OURS6}/64")
        host.tcp_listen("", 80, accept, settings=TcpSettings(), backlog=4)
        host.udp_bind("", 53, listening)
        self._peer.host.tcp_listen("", 81, accept)
        self._user.connection = host.tcp_connect(THEIRS, 81, self._user, local_port=50_000)
        self._user.connection.send(bytes(100))
        self._world.run(seconds=DETECTION)
        # From here on the peer is silent: what it would send, the fuzzer sends.
        self._peer.port.out = None
        self._names = sorted(host.counters.as_dict())
        self._read = attrgetter(*self._names)

    def seeds(self) -> list[bytes]:
        """Frames of every kind that a host is sent."""
        return corpus(self.name) + _frames(self._host.port.mac, self._peer.port.mac)

    def mutate(self, data: bytes, random: random_module.Random) -> bytes:
        """Another frame, mostly aimed and repaired."""
        control = random.choice((3, 3, 3, 3, 2, 2, 7, 11, 15, 0, 1))
        return bytes((control,)) + mutate.frame(data[1:], random)

    def try_one(self, data: bytes) -> None:
        """Hand a frame to the host; every rule must hold, and some counter must tell of it."""
        if not data:
            return
        self._used += 1
        gone = self._user.connection is None or self._user.connection.state == CLOSED
        if self._used > PATIENCE or (gone and self._used > PATIENCE // 2):
            self.renew()
        station, host = self._host, self._host.host
        wait = (0.0, 0.001, 1.0, 70.0)[data[0] >> 2 & 3]
        if wait:
            self._world.run(seconds=wait)
        frame = data[1:]
        if data[0] & 1:
            frame = self._aimed(frame)
        if data[0] & 2:
            frame = mutate.repaired(frame)
        before, others = self._read(host.counters), _moved(host)
        self._world.inject(station, PLAIN + frame)
        after = self._read(host.counters)
        moved = [n for n, a, b in zip(self._names, before, after, strict=True) if a != b]
        if "frames_in" not in moved:
            raise BrokenRuleError("accounting: a frame arrived and was not counted")
        tells = [n for n in moved if n not in ("frames_in", "frames_out")]
        if not tells and _moved(host) == others:
            raise BrokenRuleError(f"accounting: no counter tells what became of {frame.hex()}")
        self._check(station.now)

    def _check(self, now: float) -> None:
        host = self._host.host
        for flow in list(host.tcp.flows.values()):
            if type(flow) is Connection:
                for rule, text in invariants.of_connection(flow, host, now):
                    raise BrokenRuleError(f"{rule}: {text}")
        for rule, text in invariants.of_host(host):
            raise BrokenRuleError(f"{rule}: {text}")

    def _aimed(self, frame: bytes) -> bytes:
        """The frame as if the connection's peer had sent it."""
        if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != ipv4.PROTO_TCP:
            return frame
        connection = self._user.connection
        at = 14 + (frame[14] & 15) * 4
        if connection is None or at + 20 > len(frame):
            return frame
        octet = bytearray(frame)
        octet[0:6] = self._host.port.mac
        octet[26:34] = from_text(THEIRS) + from_text(OURS)
        ports = connection.remote[1].to_bytes(2) + connection.local[1].to_bytes(2)
        octet[at : at + 4] = ports
        seq = int.from_bytes(octet[at + 4 : at + 8]) + connection.rcv_nxt
        ack = int.from_bytes(octet[at + 8 : at + 12]) + connection.snd_una
        octet[at + 4 : at + 8] = (seq & 0xFFFFFFFF).to_bytes(4)
        octet[at + 8 : at + 12] = (ack & 0xFFFFFFFF).to_bytes(4)
        return bytes(octet)


def _moved(host: Any) -> tuple[int, ...]:
    """The counters that neighbours and their kin keep."""
    found: list[int] = []
    for holder in (host.neighbors, getattr(host.network, "neighbors6", None)):
        counters = getattr(holder, "counters", None)
        if counters is not None and counters is not host.counters:
            found += counters.as_dict().values()
    return tuple(found)


def _frames(to: bytes, source: bytes) -> list[bytes]:
    """Sound frames: what the corpus was made from."""
    ours, theirs = from_text(OURS), from_text(THEIRS)

    def ip(protocol: int, body: bytes, flags: int = 0, offset: int = 0) -> bytes:
        head = bytearray((0x45, 0)) + (20 + len(body)).to_bytes(2) + b"\0\1"
        head += (flags << 13 | offset >> 3).to_bytes(2) + bytes((64, protocol, 0, 0))
        head += theirs + ours
        head[10:12] = (ones_complement_sum(bytes(head)) ^ 0xFFFF).to_bytes(2)
        return ethernet.header(to, source, ethernet.ETHERTYPE_IPV4) + bytes(head) + body

    stamp = tcp.build_options((10_100_000, 0))
    sack = tcp.build_options((10_100_000, 0), ((1, 2), (5, 9)))
    syn = tcp.build_syn_options(1460, 7, True, (1, 0))

    def segment(port: int, flags: int, options: bytes = stamp, payload: bytes = b"") -> bytes:
        return ip(6, tcp.build(theirs, ours, 81, port, 0, 0, flags, 1000, options=options,
                               payload=payload))  # fmt: skip

    quoted = ip(6, tcp.build(ours, theirs, 50_000, 81, 1, 1, ACK, 1000, payload=b"x" * 8))[14:]
    frames = [
        *(b"\3" + segment(50_000, flags) for flags in (ACK, FIN | ACK, RST, RST | ACK, SYN, 0)),
        b"\3" + segment(50_000, ACK | PSH, payload=b"some octets"),
        b"\3" + segment(50_000, ACK, sack),
        b"\3" + segment(50_000, ACK, b""),
        b"\2" + segment(80, SYN, syn),
        b"\2" + segment(80, SYN | 0xC0, syn),
        b"\2" + segment(80, ACK),
        b"\2" + segment(4_711, SYN, b""),
        *(b"\2" + ip(17, udp.build(theirs, ours, 4711, port, b"query")) for port in (53, 54)),
        b"\2" + ip(1, icmp.echo_request(1, 1, b"ping")),
        *(b"\2" + ip(1, icmp.unreachable(code, quoted, 600)) for code in (0, 1, 2, 3, 4, 13)),
        b"\2" + ip(1, icmp.time_exceeded(0, quoted)),
        b"\2" + ip(1, icmp.parameter_problem(1, quoted)),
        b"\2" + ip(1, icmp.build(5, 1, 0, quoted)),
        b"\2" + ip(17, bytes(24), ipv4.FLAG_MF),
        b"\2" + ip(17, bytes(24), 0, 24),
        b"\2" + ip(6, bytes(8), ipv4.FLAG_MF),
        b"\2" + ip(132, bytes(8)),
    ]
    for operation, claimed in ((1, theirs), (2, theirs), (1, ours), (2, bytes(4))):
        packet = arp.build(operation, source, claimed, to if operation == 2 else bytes(6), ours)
        frames.append(b"\0" + ethernet.header(to, source, ethernet.ETHERTYPE_ARP) + packet)
    return frames + _frames6(to, source)


def _frames6(mac: bytes, source: bytes) -> list[bytes]:
    """Frames of IPv6: the host may speak it or not, and must count them either way."""
    us, them = from_text(OURS6), from_text(THEIRS6)
    group = ipv6.solicited_node(us)
    made: list[bytes] = []

    def packet(protocol: int, body: bytes, dst: bytes = us, hops: int = 255) -> bytes:
        head = bytes((0x60, 0, 0, 0)) + len(body).to_bytes(2) + bytes((protocol, hops)) + them + dst
        to = ipv6.multicast_mac(dst) if dst[0] == 0xFF else mac
        return ethernet.header(to, source, ethernet.ETHERTYPE_IPV6) + head + body

    def message(kind: int, body: bytes, dst: bytes = us) -> bytes:
        whole = bytes((kind, 0, 0, 0)) + body
        total = ones_complement_sum(whole, pseudo_header_sum(them, dst, 58, len(whole))) ^ 0xFFFF
        return packet(58, whole[:2] + total.to_bytes(2) + whole[4:], dst)

    made += [message(135, bytes(4) + us + b"\1\1" + source, group)]  # neighbour solicitation
    made += [message(136, b"\x60\0\0\0" + them + b"\2\1" + source)]  # and advertisement
    made += [message(134, bytes(12) + b"\3\4\x40\xc0" + bytes(28), from_text("ff02::1"))]
    made += [message(128, b"\0\1\0\1ping"), message(2, b"\0\0\5\0" + bytes(48))]
    made += [message(1, bytes(4) + bytes(48)), packet(44, b"\6\0\0\1" + bytes(20))]
    syn = tcp.build_syn_options(1440, 7, True, (1, 0))
    for port, flags, options in ((80, SYN, syn), (80, ACK, b""), (4_711, SYN, b"")):
        made.append(packet(6, tcp.build(them, us, 81, port, 0, 0, flags, 1000, options=options)))
    made += [packet(17, udp.build(them, us, 4711, port, b"query")) for port in (53, 54)]
    made += [packet(0, b"\6\0\1\4\0\0\0\0" + bytes(20)), packet(17, bytes(16)), packet(59, b"")]
    return [b"\2" + frame for frame in made]
