"""Scripts of segments: a scripted peer on one side, a whole host on the other, time by hand.

    scene, peer, app = passive()            # three-way handshake, done
    peer.sends("P.", data=b"hello")         # flags as packetdrill writes them; "." is ACK
    peer.expects(".", seq=1, ack=6, len=0)  # the oldest frame not looked at yet
    app.send(b"world")
    scene.advance(0.3)                      # seconds; every timer that falls due is run

Numbers are relative: 0 is each side's SYN, 1 its first octet.  Windows are in octets.

Every scene happens in two worlds at once, one with the fast path and one without; after each step
both must have sent the same octets, told the application the same and set the same timers.  So
each script is also a test that the fast path cannot be seen from outside.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import Any, NamedTuple

from appliance.net.seq import MASK, unwrap
from appliance.net.stack import Host, Limits
from appliance.net.tcb import TcpSettings
from appliance.net.tcp import Connection
from appliance.net.vif.offload import finish_checksum
from appliance.net.wire import arp, ethernet, icmp, ipv4, tcp, udp, virtio
from appliance.net.wire.address import from_text
from appliance.net.wire.tcp import TcpOptions

OUR_ADDRESS = "10.0.0.2"
PEER_ADDRESS = "10.0.0.1"
OUR_MAC = b"\2\0\0\0\0\2"
PEER_MAC = b"\2\0\0\0\0\1"
START = 1000.0  # seconds: when every scene begins
ETH = virtio.VNET_HDR_LEN
IP = ETH + ethernet.HEADER_LEN
FULL = 1448  # octets of data in a full segment at MTU 1500 with timestamps
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, ".": 16, "U": 32, "E": 64, "W": 128}
DEFAULT: Any = object()


class FakeVif:
    """A link that keeps what is sent, while `room` lasts."""

    def __init__(self, mtu: int = 1500, gso_max: int = 0, udp_segments: int = 0) -> None:
        self.name = "fake"
        self.mac = OUR_MAC
        self.mtu = mtu
        self.gso_max = gso_max
        self.checksum_offload = True
        self.udp_segments = udp_segments
        self.on_readable: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.sent: list[bytes] = []
        self.room = inf  # frames taken before `send` returns False

    def fileno(self) -> int:
        return -1

    def receive(self, limit: int) -> list[bytes]:
        return []

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        if self.room <= 0:
            return False
        self.room -= 1
        self.sent.append(b"".join((head, payload)))
        return True

    def close(self) -> None:
        pass


class User:
    """An application in one world: notes what it is told, and reacts as the script says."""

    def __init__(self, react: dict[str, Callable[[Connection], object]]) -> None:
        self.connection: Connection
        self.data = b""
        self.events: list[str] = []
        self.error: Exception | None = None
        self._react = react

    def _told(self, event: str) -> None:
        assert "closed" not in self.events, f"{event} after closed"
        self.events.append(event)
        if event in self._react:
            self._react[event](self.connection)

    def tcp_established(self) -> None:
        self._told("established")

    def tcp_data(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        assert data
        assert "eof" not in self.events
        self.data += data
        self._told("data")

    def tcp_eof(self) -> None:
        self._told("eof")

    def tcp_writable(self) -> None:
        self._told("writable")

    def tcp_closed(self, error: Exception | None) -> None:
        self.error = error
        self._told("closed")

    def snapshot(self) -> object:
        c = self.connection
        error = (type(self.error), str(self.error))
        numbers = (c.state_name, c.snd_una, c.snd_nxt, c.rcv_nxt, c.unsent, c.next_deadline())
        return self.data, self.events, error, numbers


class World:
    """One host, its link and its applications."""

    def __init__(self, fast: bool, vif: FakeVif, limits: Limits | None, seed: int) -> None:
        self.fast = fast
        self.vif = vif
        self.host = Host(vif, random=random.Random(seed), limits=limits)
        if not fast:
            # One of several processes: a segment of no flow goes the long way, to be asked about.
            self.host.strays = lambda frame, packet, now: False
        self.host.add_address(OUR_ADDRESS + "/24")
        self.users: list[User] = []

    def settings(self, settings: TcpSettings) -> TcpSettings:
        return replace(settings, fast_path=self.fast)

    def snapshot(self) -> object:
        counters = self.host.counters.as_dict()
        del counters["tcp_fast_path"]
        users = [u.snapshot() for u in self.users]
        return self.vif.sent, counters, users, self.host.blocked()


class Segment(NamedTuple):
    """One frame of TCP that the host sent, numbers relative, `window` in octets."""

    at: float
    flags: str
    seq: int
    ack: int
    window: int
    data: bytes
    options: TcpOptions
    vnet: virtio.VnetHeader  # its gso_size: octets of each piece of a super-segment, or 0
    urgent: int


class Scene:
    """The host in both worlds, its peers, and the clock."""

    def __init__(
        self,
        *,
        mtu: int = 1500,
        gso_max: int = 0,
        udp_segments: int = 0,
        limits: Limits | None = None,
        now: float = START,
        arp_answers: bool = True,
        seed: int = 1,
    ) -> None:
        self.now = now
        self.arp_answers = arp_answers
        self.worlds = [
            World(f, FakeVif(mtu, gso_max, udp_segments), limits, seed) for f in (True, False)
        ]
        self.peers: dict[tuple[str, int, int], Peer] = {}
        self.others: list[bytes] = []  # IP packets that are not TCP to a known peer
        for world in self.worlds:
            world.host.flush(now)
            world.vif.sent.clear()
        if arp_answers:
            self.receive(arp_frame(arp.REQUEST, PEER_ADDRESS, PEER_MAC, OUR_ADDRESS))

    @property
    def host(self) -> Host:
        """The host with the fast path; look, but do not act on it alone."""
        return self.worlds[0].host

    def counter(self, name: str) -> int:
        return self.host.counters.as_dict()[name]

    # -- time and frames

    def receive(self, *frames: bytes) -> None:
        """One batch of frames arrives."""
        self.step(lambda world: world.host.receive(list(frames), self.now))

    def advance(self, seconds: float) -> None:
        """Let time pass; whatever falls due happens at its own instant."""
        until = self.now + seconds
        while (due := self.deadline()) <= until:
            self.now = max(self.now, due)
            self.step(lambda world: world.host.run_timers(self.now))
        self.now = until

    def room(self, frames: float) -> None:
        """Let the link take so many frames more, and have what waits for room leave."""
        for world in self.worlds:
            world.vif.room = frames
        self.step(lambda world: world.host.flush(self.now))

    def deadline(self) -> float:
        """When the host next wants to be called, in either world (spurious calls do no harm)."""
        return min(world.host.deadline() for world in self.worlds)

    def tcp_deadline(self) -> float:
        """When some connection of the host has something to do; ARP left out."""
        return min(u.connection.next_deadline() for u in self.worlds[0].users)

    def step(self, action: Callable[[World], object]) -> None:
        """Do the same in both worlds, compare, and hand what was sent to whom it is for."""
        for world in self.worlds:
            action(world)
        fast, slow = self.worlds
        assert fast.snapshot() == slow.snapshot(), "the fast path shows"
        frames, fast.vif.sent = fast.vif.sent, []
        slow.vif.sent = []
        for frame in frames:
            self._sort(frame)

    def _sort(self, frame: bytes) -> None:
        to, source, kind = ethernet.parse(frame, ETH)
        assert source == OUR_MAC
        if kind == ethernet.ETHERTYPE_ARP:
            packet = arp.parse(frame, IP, len(frame))
            asked = packet.operation == arp.REQUEST and packet.target == from_text(PEER_ADDRESS)
            if asked and self.arp_answers:
                self.receive(arp_frame(arp.REPLY, PEER_ADDRESS, PEER_MAC, OUR_ADDRESS))
            return
        assert to == PEER_MAC
        vnet = virtio.parse(frame)
        frame = finish_checksum(frame)
        header = ipv4.parse(frame, IP, len(frame))
        assert header.payload_end == len(frame)
        at, end = header.payload_at, header.payload_end
        if header.protocol == tcp.PROTOCOL:
            assert tcp.verify(frame, at, end, header.src, header.dst)
            t = tcp.parse(frame, at, end)
            address = ".".join(map(str, header.dst))
            peer = self.peers.get((address, t.dst_port, t.src_port))
            if peer is not None:
                peer.hears(frame, t, vnet)
                return
        self.others.append(frame[IP:])

    # -- applications

    def listen(
        self,
        port: int = 80,
        *,
        settings: TcpSettings | None = None,
        backlog: int = 128,
        address: str = "",
        react: dict[str, Callable[[Connection], object]] | None = None,
        accepting: Callable[[Connection], object] = lambda connection: None,
    ) -> Both:
        """Passive OPEN; `react` says what the application does when told "data", "eof", ..."""
        listeners = []
        for world in self.worlds:

            def accept(connection: Connection, world: World = world) -> User:
                user = User(react or {})
                user.connection = connection
                world.users.append(user)
                accepting(connection)
                return user

            chosen = world.settings(settings or TcpSettings())
            listeners.append(
                world.host.tcp_listen(address, port, accept, backlog=backlog, settings=chosen)
            )
        return Both(self, listeners)

    def connect(
        self,
        port: int = 80,
        *,
        local_port: int = 4000,
        settings: TcpSettings | None = None,
        react: dict[str, Callable[[Connection], object]] | None = None,
        first: bytes = b"",
    ) -> App:
        """Active OPEN to the peer; `first` is written before the SYN has left."""

        def begin(world: World) -> None:
            user = User(react or {})
            chosen = world.settings(settings or TcpSettings())
            user.connection = world.host.tcp_connect(
                PEER_ADDRESS, port, user, local_port=local_port, settings=chosen
            )
            world.users.append(user)
            user.connection.send(first)
            world.host.flush(self.now)

        self.step(begin)
        return self.app()

    def app(self, index: int = -1) -> App:
        """The application of the newest (or another) connection."""
        return App(self, [world.users[index] for world in self.worlds])


class Both:
    """The same object in both worlds; calling a method calls it in each, then flushes."""

    def __init__(self, scene: Scene, things: Sequence[Any]) -> None:
        self._scene = scene
        self._things = dict(zip(scene.worlds, things, strict=True))

    def do(self, action: Callable[[Any], object], *, flush: bool = True) -> None:
        """Let the application act on the thing (in one turn)."""

        def act(world: World) -> None:
            action(self._things[world])
            if flush:
                world.host.flush(self._scene.now)

        self._scene.step(act)

    def close(self) -> None:
        self.do(lambda thing: thing.close())


class App(Both):
    """One connection as its application sees it."""

    def __init__(self, scene: Scene, users: list[User]) -> None:
        super().__init__(scene, [user.connection for user in users])
        self._user = users[0]
        self.connection = users[0].connection

    @property
    def data(self) -> bytes:
        return self._user.data

    @property
    def events(self) -> list[str]:
        """What the application was told, several "data" in a row as one."""
        told = self._user.events
        return [e for i, e in enumerate(told) if e != "data" or i == 0 or told[i - 1] != "data"]

    @property
    def error(self) -> Exception | None:
        assert "closed" in self._user.events, "not closed"
        return self._user.error

    @property
    def state(self) -> str:
        return self.connection.state_name

    def send(self, data: bytes) -> None:
        self.do(lambda c: c.send(data))

    def shutdown(self) -> None:
        self.do(lambda c: c.shutdown())

    def abort(self) -> None:
        self.do(lambda c: c.abort())

    def pause(self) -> None:
        self.do(lambda c: c.pause())

    def resume(self) -> None:
        self.do(lambda c: c.resume())


class Peer:
    """The other end of one flow, moved by the script alone."""

    def __init__(
        self,
        scene: Scene,
        port: int = 4000,
        host_port: int = 80,
        *,
        address: str = PEER_ADDRESS,
        isn: int = 0xFFFF_F000,  # so that numbers soon wrap
        mss: int | None = 1460,
        wscale: int | None = 3,
        sack: bool = True,
        ts: bool = True,
        window: int = 1 << 16,
        clock: int = 0xFFFF_FF00,
    ) -> None:
        self.scene = scene
        self.port, self.host_port, self.address = port, host_port, address
        self.isn = isn
        self.iss = -1  # the host's, known from its SYN
        self.mss, self.wscale, self.sack, self.ts = mss, wscale, sack, ts
        self.window = window  # octets
        self.nxt = 0  # next number to send
        self.got = 0  # next number expected
        self.echo = 0  # the host's timestamp seen last
        self.host_wscale = 0
        self._clock = clock - int(scene.now * 1000)
        self._heard: list[Segment] = []
        scene.peers[address, port, host_port] = self

    @property
    def clock(self) -> int:
        return (self._clock + int(self.scene.now * 1000)) & MASK

    # -- to the host

    def sends(self, flags: str = ".", **fields: Any) -> None:
        """One segment; see `frame` for the fields."""
        self.scene.receive(self.frame(flags, **fields))

    def opens(self) -> None:
        """The three-way handshake, from this side."""
        self.sends("S")
        self.expects("S.", seq=0, ack=1, len=0)
        self.sends(".")

    def frame(
        self,
        flags: str = ".",
        *,
        seq: int = DEFAULT,
        ack: int = DEFAULT,
        data: bytes = b"",
        window: int = DEFAULT,
        options: bytes = DEFAULT,
        ts: tuple[int, int] | None = DEFAULT,
        sack: Sequence[tuple[int, int]] = (),
        urgent: int = 0,
        raw_ack: int | None = None,
        **ip: Any,
    ) -> bytes:
        """One frame; without `seq` and `ack` what comes next, `sack` blocks relative too."""
        bits = sum(FLAGS[f] for f in flags)
        if seq is DEFAULT:
            seq = self.nxt
            self.nxt += len(data) + ("S" in flags) + ("F" in flags)
        if ack is DEFAULT:
            ack = self.got
        wire_ack = (self.iss + ack) & MASK if "." in flags else 0
        if raw_ack is not None:
            wire_ack = raw_ack
        if window is DEFAULT:
            window = self.window
        if "S" not in flags and self.host_wscale >= 0:
            window >>= self.wscale or 0
        if options is DEFAULT:
            stamp: tuple[int, int] | None = None
            if ts is not DEFAULT:
                stamp = ts
            elif self.ts and "R" not in flags:
                stamp = (self.clock, self.echo if "." in flags else 0)
            if "S" in flags:
                options = self.syn_options(stamp)
            else:
                blocks = tuple(((self.iss + a) & MASK, (self.iss + b) & MASK) for a, b in sack)
                options = tcp.build_options(stamp, blocks)
        src, dst = from_text(self.address), from_text(OUR_ADDRESS)
        segment = tcp.build(
            src, dst, self.port, self.host_port, (self.isn + seq) & MASK, wire_ack, bits,
            min(window, 0xFFFF), options=options, payload=data,
        )  # fmt: skip
        if urgent:
            segment = resummed(segment[:18] + urgent.to_bytes(2) + segment[20:], src, dst)
        return ip_frame(self.address, OUR_ADDRESS, tcp.PROTOCOL, segment, **ip)

    def syn_options(self, stamp: tuple[int, int] | None) -> bytes:
        options = tcp.build_syn_options(self.mss or 0, self.wscale, self.sack, stamp)
        return options if self.mss is not None else options[4:]

    # -- from the host

    def hears(self, frame: bytes, t: tcp.TcpHeader, vnet: virtio.VnetHeader) -> None:
        options = tcp.parse_options(frame, t.options_at, t.payload_at)
        flags = "".join(f for f, bit in FLAGS.items() if t.flags & bit)
        if "S" in flags:
            self.iss = t.seq
            scaled = options.window_scale is not None and self.wscale is not None
            self.host_wscale = options.window_scale or 0 if scaled else 0
        if options.timestamp is not None:
            self.echo = options.timestamp[0]
        window = t.window if "S" in flags else t.window << self.host_wscale
        seq = unwrap((t.seq - self.iss) & MASK, self.got) if self.iss >= 0 else t.seq
        ack = unwrap((t.ack - self.isn) & MASK, self.nxt) if "." in flags else 0
        data = frame[t.payload_at : t.payload_end]
        at = self.scene.now
        self._heard.append(
            Segment(at, _ordered(flags), seq, ack, window, data, options, vnet, t.urgent)
        )

    def expects(
        self,
        flags: str,
        *,
        seq: int | None = None,
        ack: int | None = None,
        len: int | None = None,  # noqa: A002 - as packetdrill calls it
        data: bytes | None = None,
        window: int | None = None,
        at: float | None = None,
    ) -> Segment:
        """The oldest segment not looked at yet has these; PSH matters only when it is named."""
        assert self._heard, f"nothing came; expected {flags}"
        s = self._heard.pop(0)
        shown = s._replace(data=s.data[:32])
        got = s.flags if "P" in flags else s.flags.replace("P", "")
        assert got == _ordered(flags), shown
        assert seq is None or s.seq == seq, shown
        assert ack is None or s.ack == ack, shown
        assert len is None or _len(s.data) == len, shown
        assert data is None or s.data == data, shown
        assert window is None or s.window == window, shown
        assert at is None or abs(s.at - START - at) < 1e-6, shown
        end = s.seq + _len(s.data) + ("S" in s.flags) + ("F" in s.flags)
        if s.seq <= self.got < end:
            self.got = end
        return s

    def expects_nothing(self) -> None:
        assert not self._heard, self._heard

    def drain(self) -> list[Segment]:
        """Everything not looked at yet, taken as received."""
        out = []
        while self._heard:
            out.append(self.expects(self._heard[0].flags))
        return out


_len = len


def _ordered(flags: str) -> str:
    return "".join(f for f in "SFRPUEW." if f in flags)


# ---------------------------------------------------------------------- frames


def resummed(segment: bytes, src: bytes, dst: bytes) -> bytes:
    """The TCP segment with its checksum computed anew."""
    from appliance.net.checksum import ones_complement_sum, pseudo_header_sum

    segment = segment[:16] + b"\0\0" + segment[18:]
    total = ones_complement_sum(segment, pseudo_header_sum(src, dst, tcp.PROTOCOL, len(segment)))
    return segment[:16] + (total ^ 0xFFFF).to_bytes(2) + segment[18:]


def ip_frame(
    src: str,
    dst: str,
    protocol: int,
    body: bytes,
    *,
    to: bytes = OUR_MAC,
    vnet: bytes = virtio.PLAIN,
    **fields: Any,
) -> bytes:
    """A frame around an IP packet."""
    header = ipv4.header(from_text(src), from_text(dst), protocol, len(body), **fields)
    return vnet + ethernet.header(to, PEER_MAC, ethernet.ETHERTYPE_IPV4) + header + body


def arp_frame(operation: int, sender: str, sender_mac: bytes, target: str) -> bytes:
    packet = arp.build(operation, sender_mac, from_text(sender), OUR_MAC, from_text(target))
    return virtio.PLAIN + ethernet.header(OUR_MAC, sender_mac, ethernet.ETHERTYPE_ARP) + packet


def icmp_error(kind: int, code: int, quoted: bytes, *, mtu: int = 0) -> bytes:
    """A frame with an ICMP error that quotes the head of an IP packet of the host."""
    message = icmp.build(kind, code, mtu, quoted)
    return ip_frame(PEER_ADDRESS, OUR_ADDRESS, icmp.PROTOCOL, message)


def quote(peer: Peer, seq: int, length: int = 0) -> bytes:
    """IP header and eight octets of a segment of the host to `peer` from relative `seq` on."""
    head = ipv4.header(from_text(OUR_ADDRESS), from_text(peer.address), tcp.PROTOCOL, 20 + length)
    ports = peer.host_port.to_bytes(2) + peer.port.to_bytes(2)
    return head + ports + ((peer.iss + seq) & MASK).to_bytes(4)


def udp_frame(data: bytes, port: int, host_port: int, *, src: str = PEER_ADDRESS) -> bytes:
    datagram = udp.build(from_text(src), from_text(OUR_ADDRESS), port, host_port, data)
    return ip_frame(src, OUR_ADDRESS, udp.PROTOCOL, datagram)


# ---------------------------------------------------------------------- openings


def passive(
    *,
    settings: TcpSettings | None = None,
    react: dict[str, Callable[[Connection], object]] | None = None,
    scene: Scene | None = None,
    rtt: float = 0.0,
    **options: Any,
) -> tuple[Scene, Peer, App]:
    """The peer has connected to port 80."""
    scene = scene or Scene()
    scene.listen(80, settings=settings, react=react)
    peer = Peer(scene, **options)
    peer.sends("S")
    peer.expects("S.", seq=0, ack=1, len=0)
    scene.advance(rtt)
    peer.sends(".")
    peer.expects_nothing()
    return scene, peer, scene.app()


def active(
    *,
    settings: TcpSettings | None = None,
    react: dict[str, Callable[[Connection], object]] | None = None,
    scene: Scene | None = None,
    rtt: float = 0.0,
    **options: Any,
) -> tuple[Scene, Peer, App]:
    """The host has connected to the peer's port 80."""
    scene = scene or Scene()
    peer = Peer(scene, 80, 4000, **options)
    app = scene.connect(80, settings=settings, react=react)
    peer.expects("S", seq=0, len=0)
    scene.advance(rtt)
    peer.sends("S.")
    peer.expects(".", seq=1, ack=1, len=0)
    return scene, peer, app


def pattern(length: int) -> bytes:
    """Octets of which every stretch shows where it belongs."""
    return bytes(_blocks(length))[:length]


def _blocks(length: int) -> Iterator[int]:
    for n in range(0, length, 4):
        yield from n.to_bytes(4)
