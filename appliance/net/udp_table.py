"""The UDP sockets of a host: ports, and who has written to them (RFC 768, RFC 1122 §4.1).

The host's fast pattern finds a known correspondent in `flows`; a stranger comes the long way, is
remembered, and is a correspondent from then on.

It imports `wire`, the sockets and the network layer.
"""

from __future__ import annotations

import errno
import random as random_module
from typing import Protocol

from appliance.net.ephemeral import claim
from appliance.net.network import Network
from appliance.net.path import Ipv4UdpPath
from appliance.net.udp import Endpoint, UdpFlow, UdpSocket, UdpUser
from appliance.net.wire import ipv4
from appliance.net.wire import udp as wire_udp
from appliance.net.wire.address import from_text, to_text


class UdpSender(Protocol):
    """Who puts datagrams on the link."""

    def udp_transmit(self, path: Ipv4UdpPath, head: bytes, payload: bytes) -> None:
        """Send one datagram; a full link loses it."""


class UdpTable:
    """Sockets by address and port, flows by the octets of addresses and ports as they arrive."""

    def __init__(
        self, host: UdpSender, network: Network, random: random_module.Random, max_flows: int
    ) -> None:
        self.flows: dict[bytes, UdpFlow] = {}
        self.counters = network.counters
        self._host = host
        self._network = network
        self._random = random
        self._max_flows = max_flows
        self._sockets: dict[tuple[bytes, int], UdpSocket] = {}

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
        for key in socket.flows:
            flow = self.flows.get(key)
            if flow is not None and flow.socket is socket:
                del self.flows[key]

    def udp_path(self, socket: UdpSocket, destination: Endpoint) -> Ipv4UdpPath:
        """Find the way from `socket` to `destination`; OSError(ENETUNREACH) without one."""
        network = self._network
        there = from_text(destination[0])
        here = from_text(socket.address) if socket.address else network.addresses.source_for(there)
        if here is not None and network.reachable(there):
            path = network.udp_path(here, there, socket.port, destination[1])
            if path is not None:
                return path
        raise OSError(errno.ENETUNREACH, f"no route to {destination[0]}")

    def udp_transmit(self, path: Ipv4UdpPath, head: bytes, payload: bytes) -> None:
        """Send one datagram."""
        self._host.udp_transmit(path, head, payload)

    def arrives(
        self, frame: bytes, packet: ipv4.Ipv4Header, trusted: bool, broadcast: bool
    ) -> bool:
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
        if not broadcast and header.src_port:
            # The answer leaves from the address that was asked (RFC 1122 §4.1.3.5).
            path = self._network.udp_path(packet.dst, packet.src, header.dst_port, header.src_port)
            if path is not None:
                self._remember(packet.src + packet.dst + frame[at : at + 4], socket, source, path)
        socket.user.udp_datagram(frame[header.payload_at : header.payload_end], source)
        return True

    def _remember(self, key: bytes, socket: UdpSocket, source: Endpoint, path: Ipv4UdpPath) -> None:
        if len(self.flows) >= self._max_flows:
            oldest = next(iter(self.flows))
            self.flows.pop(oldest).socket.flows.discard(oldest)
        self.flows[key] = UdpFlow(socket, source, path)
        socket.flows.add(key)
        socket.remember(source, path)

    def error(self, address: bytes, port: int, error: OSError) -> None:
        """Tell the socket that sent from `address` and `port`."""
        socket = self.socket(address, port)
        if socket is not None:
            socket.user.udp_error(error)

    def socket(self, address: bytes, port: int) -> UdpSocket | None:
        """Return who receives datagrams to `address` and `port`."""
        return self._sockets.get((address, port)) or self._sockets.get((b"", port))
