"""What hostile octets are tried on: a live host, the name server, the web server.

A `Target` has seeds, a mutator that knows their structure, and `try_one`, which raises when a rule
is broken: whatever escapes is a finding. The same targets serve the plain mode and the
coverage-guided one. Imports `mutate`, `invariants`, and the rooms that it tries.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Callable, Mapping
from importlib.resources import files
from operator import attrgetter
from typing import Any, Final, Protocol

from appliance.fuzz import invariants, mutate
from appliance.fuzz.link import Link
from appliance.fuzz.world import DETECTION, World
from appliance.net.checksum import ones_complement_sum, pseudo_header_sum
from appliance.net.tcb import TcpSettings
from appliance.net.tcp import Connection
from appliance.net.tcp_state import CLOSED
from appliance.net.wire import arp, ethernet, icmp, ipv4, ipv6, tcp, udp
from appliance.net.wire.address import from_text
from appliance.net.wire.tcp import ACK, FIN, PSH, RST, SYN
from appliance.net.wire.virtio import PLAIN

PATIENCE: Final = 256
"""Inputs that one live host sees before it is replaced, so that a finding can be shown again."""
OURS, THEIRS = "10.0.0.1", "10.0.0.2"
OURS6, THEIRS6 = "fd00::1", "fd00::2"


class BrokenRuleError(AssertionError):
    """A rule does not hold; the first word names it."""


class Target(Protocol):
    """Something to try octets on."""

    name: str

    def seeds(self) -> list[bytes]:
        """Sound inputs to begin from."""
        ...

    def mutate(self, data: bytes, random: random_module.Random) -> bytes:
        """Something like `data`."""
        ...

    def try_one(self, data: bytes) -> None:
        """Try it; raises BrokenRuleError, or whatever escapes."""
        ...

    def renew(self) -> None:
        """Forget everything: the next input meets what the first one met."""
        ...


def corpus(name: str) -> list[bytes]:
    """The inputs kept for a target, the smallest set that reaches what has been reached."""
    folder = files("appliance.fuzz") / "corpus" / name
    if not folder.is_dir():
        return []
    return [entry.read_bytes() for entry in sorted(folder.iterdir(), key=lambda e: e.name)]


# ---------------------------------------------------------------------- frames


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


# ---------------------------------------------------------------------- DNS


_ZONE: Final = """\
$ORIGIN example.test.
$TTL 600
@ IN SOA ns1 hostmaster 1 7200 1800 1209600 300
@ IN NS ns1
@ IN MX 10 mail
@ IN TXT "one" "two"
ns1 IN A 192.0.2.53
ns1 IN AAAA 2001:db8::53
mail IN A 192.0.2.25
www IN CNAME web
web IN A 192.0.2.80
loop IN CNAME loop2
loop2 IN CNAME loop
*.wild IN A 192.0.2.99
a.b.empty IN TXT "deep"
child IN NS ns.child
ns.child IN A 192.0.2.100
dn IN DNAME example.test.
big IN TXT "{big}"
"""


class Dns:
    """A name server with one zone: octets in, an answer out, or none."""

    name = "dns"

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """A new catalog."""
        from appliance.dns import Catalog, Zone

        text = _ZONE.replace("{big}", '" "'.join(["x" * 200] * 20))
        self._catalog = Catalog([Zone.from_text(text)])

    def seeds(self) -> list[bytes]:
        """Questions of many kinds."""
        names = (
            "", "example.test", "www.example.test", "x.wild.example.test", "loop.example.test",
            "a.child.example.test", "x.dn.example.test", "big.example.test",
            "b.empty.example.test", "nothing.example.test", "elsewhere.test",
        )  # fmt: skip
        out: list[bytes] = []
        for name in names:
            wire = b"".join(bytes((len(p),)) + p.encode() for p in name.split(".") if p) + b"\0"
            head = b"\x12\x34\1\0\0\1\0\0\0\0\0"
            out += [head + b"\0" + wire + bytes((0, kind, 0, 1)) for kind in (1, 16, 255)]
            out.append(head + b"\1" + wire + b"\0\1\0\1\0\0\x29\x04\xd0" + bytes(6))
        return corpus(self.name) + out

    def mutate(self, data: bytes, random: random_module.Random) -> bytes:
        """Another message."""
        return mutate.dns(data, random)

    def try_one(self, data: bytes) -> None:
        """RFC 1035 §4: an answer has the question's number and fits what the asker takes."""
        for transport, limit in (("udp", 4_096), ("tcp", 65_535)):
            answer = self._catalog.answer(data, transport=transport)
            if answer is None:
                continue
            if len(data) < 12 or answer[:2] != data[:2] or not answer[2] & 0x80:
                raise BrokenRuleError("answer: not to what was asked")
            if len(answer) > limit:
                raise BrokenRuleError(f"size: {len(answer)} octets over {transport}")
            if data[2] & 0x80:
                raise BrokenRuleError("answer: an answer was answered")


# ---------------------------------------------------------------------- HTTP


class _Holder:
    def __init__(self, current: Any) -> None:
        self.current = current


class _Timer:
    def cancel(self) -> None: ...


class _Loop:
    """Time that stands still."""

    def time(self) -> float:
        return 100.0

    def call_later(self, delay: float, call: Callable[..., Any], *args: Any) -> _Timer:
        return _Timer()

    def call_soon(self, call: Callable[..., Any], *args: Any) -> _Timer:
        return _Timer()


class _Transport(asyncio.Transport):
    """Collects what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711)})
        self.sent = bytearray()
        self.protocol: Any = None
        self.closed = False

    def write(self, data: Any) -> None:
        if self.closed:
            raise BrokenRuleError("transport: written to after it was closed")
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connection_lost(None)

    abort = close


class Http:
    """A web server with a small site: a request's octets in, answers out."""

    name = "http"

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """A new server."""
        from appliance.http.media import media_type
        from appliance.http.representation import Redirect, build
        from appliance.http.served import Site
        from appliance.http.server import HttpServer, Limits
        from appliance.http.target import location

        page = build(b"<!doctype html><p>home" * 50, media_type("x.html"), last_modified=1391212800)
        resources: dict[bytes, Any] = {
            b"/": page,
            b"/about": page,
            b"/about.html": Redirect(location(b"/about")),
            b"/data.bin": build(
                bytes(range(256)) * 9, media_type("x.bin"), last_modified=1391212800
            ),
        }
        missing = build(b"<!doctype html><p>no such page", media_type("x.html"))
        site = Site(resources, missing, loaded_at=1391310245)
        self._server = HttpServer(
            _Holder(site),
            limits=Limits(),
            clock=lambda: 1391310245.0,
            loop=_Loop(),  # type: ignore[arg-type]
        )

    def seeds(self) -> list[bytes]:
        """Requests of many kinds."""
        host = b"Host: example.org\r\n"
        return [
            *corpus(self.name),
            b"GET / HTTP/1.1\r\n" + host + b"\r\n",
            b"HEAD /about HTTP/1.1\r\n" + host + b"Accept-Encoding: gzip, br\r\n\r\n",
            b"GET /data.bin HTTP/1.1\r\n" + host + b"Range: bytes=0-9,20-29\r\n\r\n",
            b"GET /data.bin HTTP/1.1\r\n" + host + b'If-None-Match: "x", W/"y"\r\n\r\n',
            b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 5\r\n\r\nhello",
            b"POST / HTTP/1.1\r\n"
            + host
            + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\n" + host + b"\r\nGET /about.html HTTP/1.1\r\n" + host + b"\r\n",
            b"GET http://example.org/nothing?q#f HTTP/1.1\r\n"
            + host
            + b"Connection: close\r\n\r\n",
        ]

    def mutate(self, data: bytes, random: random_module.Random) -> bytes:
        """Another request."""
        return mutate.http(data, random)

    def try_one(self, data: bytes) -> None:
        """RFC 9112 §2: what comes back is answers, whole and in pieces of the input alike."""
        from appliance.http.http1 import HttpProtocol

        transport = _Transport()
        transport.protocol = HttpProtocol(self._server)
        transport.protocol.connection_made(transport)
        half = len(data) // 2
        for part in (data[:half], data[half:]):
            if part and not transport.closed:
                transport.protocol.data_received(part)
        if transport.sent and not transport.sent.startswith((b"HTTP/1.1 ", b"\0")):
            raise BrokenRuleError(f"answer: begins with {bytes(transport.sent[:20])!r}")
        if not transport.closed:
            transport.closed = True
            transport.protocol.connection_lost(None)


TARGETS: Final[Mapping[str, Callable[[], Target]]] = {"frames": Frames, "dns": Dns, "http": Http}
