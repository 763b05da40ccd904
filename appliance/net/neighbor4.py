"""Neighbours over IPv4: the cache of `neighbor_cache`, filled by ARP (RFC 826).

A request is answered for our own addresses; a packet that somebody sends teaches where he is, but
makes an entry only when it was for us. What is our own address, and whether somebody else claims
it, is `acd`'s to judge. Sans-I/O. Imports the cache and `wire`.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from appliance.net.neighbor import REACHABLE, RETRY, Neighbor
from appliance.net.neighbor_cache import NeighborCache
from appliance.net.wire import arp, ethernet
from appliance.net.wire.ipv4 import is_link_local
from appliance.net.wire.virtio import PLAIN

_ZERO_ADDRESS: Final = bytes(4)


class NeighborCache4(NeighborCache):
    """Neighbours of one link over IPv4; everything is as in `NeighborCache`."""

    def arp_arrives(
        self, frame: bytes, at: int, end: int, now: float, local_addresses: Container[bytes]
    ) -> None:
        """Take in the ARP packet in frame[at:end]: learn, and answer for our own addresses.

        Raises only WireError.
        """
        packet = arp.parse(frame, at, end)
        self.counters.arp_in += 1
        sender, mac = packet.sender, packet.sender_mac
        for_us = packet.target in local_addresses
        if mac == self._own_mac or ethernet.is_group(mac) or mac == ethernet.ZERO:
            self.counters.arp_ignored += 1
            return
        if sender in local_addresses:
            # RFC 5227 §2.4: an address of ours in use by another. Keeping it and saying so once
            # more is allowed when the address is a server's; believing the packet never is.
            self.counters.arp_conflicts += 1
        elif sender == _ZERO_ADDRESS:
            pass  # RFC 5227 §2.1.1: a probe is answered, and teaches nothing
        elif sender[0] == 127 or sender[0] >= 224 or sender[0] == 0:
            self.counters.arp_ignored += 1
            return
        else:
            # RFC 826, "Packet Reception": an entry is updated whatever the packet was for, and
            # made only when it was for us.
            self.learn(sender, mac, now, create=for_us)
        if for_us and packet.operation == arp.REQUEST:
            answer = arp.build(arp.REPLY, self._own_mac, packet.target, mac, sender)
            self.counters.arp_replies_sent += 1
            self._send_arp(ethernet.BROADCAST if is_link_local(packet.target) else mac, answer)

    def learn(self, address: bytes, mac: bytes, now: float, *, create: bool) -> None:
        """Note that `address` is at `mac`, and send what waited for it.

        An address that nobody holds is ignored unless `create` says otherwise.
        """
        neighbor = self._table.get(address)
        if neighbor is None:
            if not create:
                return
            neighbor = self._admit(address)
        if neighbor.mac is None:
            self.counters.neighbor_resolved += 1
        elif neighbor.mac != mac:
            self.counters.neighbor_changed += 1
        neighbor.mac = mac
        neighbor.confirmed_at = now
        neighbor.used_at = max(neighbor.used_at, now)
        neighbor.state = REACHABLE
        neighbor.attempts = 0
        self._arm(neighbor, now + self._lifetime())
        for frame in self._take_queue(neighbor):
            self._send_to(mac, frame)

    # What leaves.

    def _ask(self, neighbor: Neighbor, now: float) -> None:
        """One request: to the neighbour itself while its address is known, else to everybody.

        RFC 1122 §2.3.2.1 (2), unicast poll.
        """
        neighbor.attempts += 1
        self._arm(neighbor, now + RETRY)
        source = self._source_for(neighbor.address)
        target = neighbor.mac
        if target is None or is_link_local(source):
            target = ethernet.BROADCAST  # RFC 3927 §2.5: whatever such an address says is for all
        packet = arp.build(arp.REQUEST, self._own_mac, source, ethernet.ZERO, neighbor.address)
        self.counters.arp_requests_sent += 1
        self._send_arp(target, packet)

    def _send_arp(self, mac: bytes, packet: bytes) -> None:
        head = PLAIN + ethernet.header(mac, self._own_mac, ethernet.ETHERTYPE_ARP)
        if not self._send(head + packet, b""):
            self.counters.neighbor_send_refused += 1
