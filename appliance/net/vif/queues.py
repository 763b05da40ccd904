"""Several queues of one interface, for as many processes: what keeps each flow to one of them.

A tap steers by a hash of the flow, and follows a flow to the queue that its answers leave by
(Linux, tun_automq_select_queue). A card's AF_PACKET sockets share its frames by a hash of the flow
(packet(7), PACKET_FANOUT_HASH). Both count on the queues that are open: whoever opens them here
keeps them open, whatever becomes of the processes. Imports the interfaces and the operating system.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from appliance.net.errors import LinkError
from appliance.net.vif.packet import SOL_PACKET, PacketVif, open_packet
from appliance.net.vif.tap import Tap, open_tap_queues

# linux/if_packet.h
PACKET_FANOUT: Final = 18
PACKET_FANOUT_HASH: Final = 0

__all__ = ["open_packet_queues", "open_tap_queues", "queues_of"]


def queues_of(link: str, count: int) -> list[Tap] | list[PacketVif]:
    """The queues of "tap:NAME" or "packet:IFACE"; raises LinkError."""
    kind, _, name = link.partition(":")
    return open_tap_queues(name, count) if kind == "tap" else open_packet_queues(name, count)


def open_packet_queues(name: str, count: int) -> list[PacketVif]:
    """`count` sockets on the card `name` that share its frames by flow; raises LinkError."""
    queues: list[PacketVif] = []
    try:
        # A group is known by 16 bits, in one network namespace, and is of one card.
        group = os.getpid() * 31 + socket.if_nametoindex(name) & 0xFFFF
        for _ in range(count):
            queue = open_packet(name)
            queues.append(queue)
            with socket.socket(fileno=os.dup(queue.fileno())) as handle:
                handle.setsockopt(SOL_PACKET, PACKET_FANOUT, group | PACKET_FANOUT_HASH << 16)
    except OSError as error:
        for opened in queues:
            opened.close()
        if isinstance(error, LinkError):
            raise
        reason = os.strerror(error.errno or 0)
        raise LinkError(error.errno or 0, f"{name} gives no queues to share: {reason}") from error
    return queues
