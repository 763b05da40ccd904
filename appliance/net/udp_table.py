"""The UDP sockets of a host: ports, and who has written to them (RFC 768, RFC 1122 §4.1).

The host's fast pattern finds a known correspondent in `flows`. Most who ask a name server are
strangers, as a resolver takes a new port for each question (RFC 5452 §9.2): one who asks a socket
that answers at once is answered by what is known of its address, and only its addresses and ports
are noted. Whoever writes again is remembered, and is a correspondent from then on.

Answers of a turn leave at its end.  Those of equal length to one correspondent go as one
super-datagram where the link takes such: the way through the kernel, the dearest part of an answer,
is walked once for all of them.

It imports `wire`, the sockets and the network layer.
"""

from __future__ import annotations

import errno
import random as random_module
from collections.abc import Callable, Collection
from itertools import islice
from typing import Final, Protocol

from appliance.net.ephemeral import claim
from appliance.net.network import Network
from appliance.net.path import UDP, UdpPath
from appliance.net.udp import Endpoint, UdpFlow, UdpPeer, UdpSocket, UdpUser
from appliance.net.upper import Packet
from appliance.net.wire import dhcp
from appliance.net.wire import udp as wire_udp
from appliance.net.wire.address import from_text, to_text

MAX_OCTETS: Final = 65_000
"""Payload of a super-datagram: what a packet's length field leaves, and a little less."""
EVICTED: Final = 64
"""This part of the flows goes when there are too many."""
PEER_SECONDS: Final = 10.0
"""How long the way to an address is not asked for again, although routes or path MTUs change."""


class UdpHost(Protocol):
    """Whose table it is."""

    def udp_queued(self, path: UdpPath) -> None:
        """Something for `path` was sent, or waits for its neighbour."""


class UdpTable:
    """Sockets by address and port, flows by the octets of addresses and ports as they arrive."""

    def __init__(
        self, host: UdpHost, network: Network, random: random_module.Random, max_flows: int
    ) -> None:
        self.flows: dict[bytes, UdpFlow] = {}
        self.counters = network.counters
        self._host = host
        self._network = network
        self._random = random
        self._max_flows = max_flows
        self._sockets: dict[tuple[bytes, int], UdpSocket] = {}
        self.answered: list[UdpFlow] = []
        """Those with answers that have not left yet."""
        self.peers: dict[bytes, UdpPeer] = {}
        """By the octets of both addresses, at most `max_flows` of 0.6 KB; then all begin anew."""
        self._peers_until = 0.0
        self.strangers: list[tuple[UdpPeer, int, bytes]] = []
        """Those answered in this turn: where from, the port, and the answer, which has not left."""
        # Strangers of late, as keys of `flows`, of 0.1 KB; each about `max_flows`, and the second
        # the older. What ICMP says of their answers is believed (RFC 5927 §4.2).
        self._recent: set[bytes] = set()
        self._before: set[bytes] = set()
        self._asking = b""  # the key of the stranger who was asked about last

    def bind(self, address: str, port: int, user: UdpUser) -> UdpSocket:
        """Receive datagrams to `address` ("" for any of ours) and `port` (0: one is chosen).

        Raises OSError: EADDRNOTAVAIL for an address that is not ours, EADDRINUSE for a port that
        is taken.
        """
        packed = self._network.own(from_text(address), address) if address else b""
        port = claim(self._random, port, packed, self._sockets, "UDP")
        socket = UdpSocket(self, address, port, user)
        self._sockets[packed, port] = socket
        return socket

    def udp_close(self, socket: UdpSocket) -> None:
        """Give the socket's port back."""
        packed = from_text(socket.address) if socket.address else b""
        self._sockets.pop((packed, socket.port), None)
        self.peers.clear()
        for key in socket.flows:
            flow = self.flows.get(key)
            if flow is not None and flow.socket is socket:
                del self.flows[key]

    def udp_path(self, socket: UdpSocket, destination: Endpoint) -> UdpPath:
        """Find the way from `socket` to `destination`; OSError(ENETUNREACH) without one."""
        network = self._network
        there = from_text(destination[0])
        here = from_text(socket.address) if socket.address else None
        if here is None:
            here = self._asked_at(there, destination[1], socket.port) or network.source_for(there)
        if here is not None and len(here) == len(there) and network.reachable(there):
            path = network.udp_path(here, there, socket.port, destination[1])
            if path is not None:
                return path
        raise OSError(errno.ENETUNREACH, f"no route to {destination[0]}")

    def _asked_at(self, there: bytes, remote_port: int, port: int) -> bytes | None:
        """Which address of ours somebody wrote to, if of late: the answer may come later."""
        ports = remote_port.to_bytes(2) + port.to_bytes(2)
        found = None
        for here in self._network.addresses.local:
            key = there + here + ports
            if key == self._asking:
                return here
            if key in self.flows or self.is_recent(key):
                found = here
        return found

    def udp_transmit(self, path: UdpPath, head: bytes, payload: bytes) -> None:
        """Send one datagram, or one super-datagram; a full link loses it, as links do."""
        self.counters.udp_out += 1
        neighbor = path.neighbor
        neighbor.used = True
        if neighbor.mac is None:
            neighbor.cache.enqueue(neighbor, head, payload)
            self._host.udp_queued(path)
        elif neighbor.send(head, payload):
            self.counters.frames_out += 1
        else:
            self.counters.vif_full += 1

    def udp_cut(self, path: UdpPath, payload: bytes) -> None:
        """Send one datagram in fragments; OSError(EMSGSIZE) for more than a datagram can be."""
        size = len(path.remote)
        # RFC 768, RFC 791 §3.1: lengths have 16 bits; RFC 8200 §3 does not count its own header.
        room = (65_535 if size == 16 else 65_515) - wire_udp.HEADER_LEN
        if len(payload) > room:
            raise OSError(errno.EMSGSIZE, f"a datagram of {len(payload)} octets; {room} fit")
        self.counters.udp_out += 1
        body = wire_udp.build(path.local, path.remote, path.local_port, path.remote_port, payload)
        self._network.send(path.local, path.remote, UDP, body)
        self._host.udp_queued(path)

    def arrives(self, frame: bytes, packet: Packet, trusted: bool, broadcast: bool) -> bool:
        """Hand a datagram up; False when nobody receives on its port.  Raises WireError."""
        at = packet.payload_at
        header = wire_udp.parse(frame, at, packet.payload_end)
        if not trusted and not wire_udp.verify(frame, at, header, packet.src, packet.dst):
            self.counters.udp_checksum += 1
            return True
        self.counters.udp_in += 1
        socket = self.socket(packet.dst, header.dst_port)
        if socket is None:
            self.counters.udp_no_port += 1
            return False
        source = (to_text(packet.src), header.src_port)
        data = frame[header.payload_at : header.payload_end]
        if not broadcast and header.src_port:
            key = packet.src + packet.dst + frame[at : at + 4]
            flow = self.flows.get(key)
            if flow is None or flow.socket is not socket:
                # The answer leaves from the address that was asked (RFC 1122 §4.1.3.5).
                path = self._network.udp_path(
                    packet.dst, packet.src, header.dst_port, header.src_port
                )
                if path is not None:
                    flow = self._remember(key, socket, source, path)
            elif socket.answerer is None:
                socket.remember(source, flow.path)
            if flow is not None and socket.answerer is not None:
                self.answer(flow, data)
                return True
        socket.user.udp_datagram(data, source)
        return True

    def is_recent(self, key: bytes) -> bool:
        """Tell whether a stranger of late was the one of this key."""
        return key in self._recent or key in self._before

    def stranger(self, key: bytes, data: bytes) -> bool:
        """Have the sound datagram of a stranger answered; False if it must take the long way.

        RFC 1122 §4.1.3.5: the answer will leave from the address that was asked.
        """
        peer = self.peers.get(key[:-4])
        if peer is None or key[-2:] != peer.port:
            peer = self._meet(key)
            if peer is None:
                return False
        socket = peer.socket
        answerer = socket.answerer
        at = len(key) - 4
        port = key[at] << 8 | key[at + 1]
        if answerer is None or not port:
            return False
        self.counters.udp_in += 1
        source = (peer.text, port)
        socket.unlearn(source)
        self._asking = key
        try:
            answer = answerer(data, source)
        except Exception as error:
            socket.on_failure(error)
            answer = None
        if answer is not None:
            self.strangers.append((peer, port, answer))
        if len(self._recent) >= self._max_flows:
            self._before, self._recent = self._recent, set()
        self._recent.add(key)
        return True

    def _meet(self, key: bytes) -> UdpPeer | None:
        """Find out how to answer whoever sends from one address to a port of ours; None: do not."""
        size = (len(key) - 4) >> 1
        there, here = key[:size], key[size:-4]
        port = int.from_bytes(key[-2:])
        socket = self.socket(here, port)
        if (
            socket is None
            or socket.answerer is None
            or port == dhcp.CLIENT_PORT  # the link has a look first
            or not self._network.addresses.are_ends(there, here)
        ):
            return None
        path = self._network.udp_path(here, there, port, 0)
        if path is None:
            return None
        if len(self.peers) >= self._max_flows:
            self.peers.clear()
        peer = self.peers[there + here] = UdpPeer(socket, to_text(there), path)
        return peer

    def answer(self, flow: UdpFlow, data: bytes) -> None:
        """Have a datagram answered, and keep the answer for the end of the turn."""
        answerer = flow.socket.answerer
        if answerer is None:
            return  # closed by an earlier answer
        try:
            answer = answerer(data, flow.source)
        except Exception as error:
            flow.socket.on_failure(error)
            return
        if answer is not None:
            if not flow.answers:
                self.answered.append(flow)
            flow.answers.append(answer)

    def send_answers(self) -> None:
        """Send what has been answered in this turn."""
        if self.strangers:
            self._answer_strangers()
        flows, self.answered = self.answered, []
        for flow in flows:
            answers, flow.answers = flow.answers, []
            path = flow.path
            most: int = path.neighbor.cache.link.udp_segments
            if len(answers) == 1 or most < 2 or path.neighbor.mac is None:
                for answer in answers:
                    self._send_one(flow.socket, path, answer)
            else:
                self._send_many(flow, answers, most)

    def _answer_strangers(self) -> None:
        """Send each its answer."""
        strangers, self.strangers = self.strangers, []
        for peer, port, answer in strangers:
            path = peer.path
            path.aim(port)
            self._send_one(peer.socket, path, answer)
        now = self._network.now
        if now >= self._peers_until:
            self._peers_until = now + PEER_SECONDS
            self.peers.clear()

    def _send_one(self, socket: UdpSocket, path: UdpPath, answer: bytes) -> None:
        length = len(answer)
        if length + path.overhead <= path.mtu:
            self.udp_transmit(path, path.head(length), answer)
            return
        short = self._shortened(socket, path, answer)
        if short is not None:
            self.udp_transmit(path, path.head(len(short)), short)
            return
        try:
            self.udp_cut(path, answer)
        except OSError as error:
            socket.user.udp_error(error)

    def _shortened(self, socket: UdpSocket, path: UdpPath, answer: bytes) -> bytes | None:
        """What fits a path that is narrow because a router said so; None: there is nothing.

        That word is easily forged, and so are fragments: RFC 9715 §1.
        """
        link = path.neighbor.cache.link
        if socket.shorten is None or path.mtu >= self._network.link_mtu(link, path.remote):
            return None
        try:
            short = socket.shorten(answer)
        except Exception as error:
            socket.on_failure(error)
            return None
        return short if short is not None and len(short) + path.overhead <= path.mtu else None

    def _send_many(self, flow: UdpFlow, answers: list[bytes], most: int) -> None:
        """Send answers in super-datagrams of at most `most`: equal ones, and a shorter one last."""
        path = flow.path
        answers.sort(key=len, reverse=True)
        count = len(answers)
        first = 0
        while first < count:
            size = len(answers[first])
            end = first + 1
            if size and size + path.overhead <= path.mtu:
                limit = min(count, first + min(most, MAX_OCTETS // size))
                while end < limit and len(answers[end]) == size:
                    end += 1
                # The last one may be shorter, and but for an empty one makes no difference.
                if end < limit and answers[end]:
                    end += 1
            if end == first + 1:
                self._send_one(flow.socket, path, answers[first])
            else:
                octets = b"".join(answers[first:end])
                head = path.super_head(len(octets), size)
                self.counters.udp_out += end - first - 1
                self.udp_transmit(path, head, octets)
            first = end

    def _remember(self, key: bytes, socket: UdpSocket, source: Endpoint, path: UdpPath) -> UdpFlow:
        if len(self.flows) >= self._max_flows:
            # Many at once: the way to the oldest leads by the places of all that have gone before.
            for oldest in list(islice(self.flows, 1 + self._max_flows // EVICTED)):
                self.flows.pop(oldest).socket.flows.discard(oldest)
        flow = self.flows[key] = UdpFlow(socket, source, path)
        socket.flows.add(key)
        if socket.answerer is None:
            socket.remember(source, path)
            return flow
        socket.unlearn(source)
        for number, (peer, port, answer) in enumerate(self.strangers):
            if port == path.remote_port and peer.leads_as(path):
                # Again in the same turn: both answers may leave together.
                del self.strangers[number]
                flow.answers.append(answer)
                self.answered.append(flow)
                break
        return flow

    def error(
        self, local: bytes, port: int, remote: bytes, remote_port: int, error: OSError | None
    ) -> bool:
        """Tell the socket of an error, if there is one; False if it never wrote there."""
        socket = self.socket(local, port)
        # RFC 5927 §4.2: of what was sent only the addresses and ports are remembered.
        key = remote + local + remote_port.to_bytes(2) + port.to_bytes(2)
        if socket is None or not (
            key in self.flows or self.is_recent(key) or socket.knows((to_text(remote), remote_port))
        ):
            return False
        if error is not None:
            socket.user.udp_error(error)
        return True

    def path_mtus_changed(self, remotes: Collection[bytes]) -> None:
        """Packets to `remotes` must be smaller, or may be larger again (RFC 8201 §5.2, §5.3)."""
        self._measure_anew(lambda path: path.remote in remotes)
        for own in self._network.addresses.local:
            for remote in remotes:
                self.peers.pop(remote + own, None)

    def link_mtu_changed(self, link: object) -> None:
        """The same of all packets that leave by `link` (RFC 4861 §6.3.4)."""
        self._measure_anew(lambda path: path.neighbor.cache.link is link)
        self.peers.clear()

    def _measure_anew(self, wanted: Callable[[UdpPath], bool]) -> None:
        paths = [flow.path for flow in self.flows.values()]
        for socket in self._sockets.values():
            paths += socket.paths()
        for path in paths:
            if wanted(path):
                path.mtu = self._network.mtu_of(path.neighbor.cache.link, path.remote)

    def rerouted(self, cache: object, hop: bytes) -> None:
        """Find the way anew to whoever was reached by the neighbour `hop` of `cache`."""

        def gone(path: UdpPath) -> bool:
            """Whether it has another link now; on the same one it only turns to another."""
            neighbor = path.neighbor
            if neighbor.address != hop or neighbor.cache is not cache:
                return False
            found = self._network.next_hop(path.remote, path.local)
            if found is None or found[0] is not neighbor.cache.link:
                return True
            if found[1] != hop:
                way = self._network.way(path.remote, path.local)
                if way is not None:
                    path.neighbor = way[1]
            return False

        self._forget(gone)

    def address_lost(self, address: bytes) -> None:
        """Answer no longer from an address that is not ours."""
        self._forget(lambda path: path.local == address)

    def _forget(self, wanted: Callable[[UdpPath], bool]) -> None:
        self.peers.clear()
        for socket in self._sockets.values():
            socket.forget(wanted)
        for key in [key for key, flow in self.flows.items() if wanted(flow.path)]:
            self.flows.pop(key).socket.flows.discard(key)

    def socket(self, address: bytes, port: int) -> UdpSocket | None:
        """Return who receives datagrams to `address` and `port`."""
        return self._sockets.get((address, port)) or self._sockets.get((b"", port))
