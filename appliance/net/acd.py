"""Address conflict detection for IPv4 (RFC 5227): ask before an address is used, defend it then.

    WAIT -> three probes -> a silence -> ANNOUNCE twice -> in use (and defended)

A probe is an ARP request from nobody; an answer, or somebody else's probe for the same address,
is a conflict. An address in use is defended at most once in ten seconds; whether it is then kept
or given up is chosen when it is made: a server keeps what its operator gave it (§2.4 (c)), a lease
is given back (§2.4 (b)).

Sans-I/O. Imports `wire`.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable
from math import inf
from typing import Final

from appliance.net.wire import arp, ethernet

PROBE_WAIT: Final = 1.0
PROBE_MIN: Final = 1.0
PROBE_MAX: Final = 2.0
ANNOUNCE_WAIT: Final = 2.0
ANNOUNCE_INTERVAL: Final = 2.0
DEFEND_INTERVAL: Final = 10.0
"""Seconds (RFC 5227 §1.1)."""
PROBE_NUM: Final = 3
ANNOUNCE_NUM: Final = 2

PROBING: Final = "probing"
ANNOUNCING: Final = "announcing"
IN_USE: Final = "in use"
LOST: Final = "lost"

NOBODY: Final = bytes(4)


class Claim:
    """One address that is being claimed, or held.

    `send(packet)` broadcasts an ARP packet. `on_ready()` is called when the address may be used,
    `on_conflict(mac)` when it must not be, or no longer, `on_rival(mac)` when it was defended.
    """

    def __init__(
        self,
        address: bytes,
        mac: bytes,
        send: Callable[[bytes], None],
        *,
        random: random_module.Random,
        on_ready: Callable[[], None],
        on_conflict: Callable[[bytes], None],
        on_rival: Callable[[bytes], None] | None = None,
        keep: bool,
    ) -> None:
        self.address = address
        self.state = PROBING
        self._mac = mac
        self._send = send
        self._random = random
        self._on_ready = on_ready
        self._on_conflict = on_conflict
        self._on_rival = on_rival
        self._keep = keep
        self._left = PROBE_NUM
        self._due = inf
        self._defended_at = -inf

    def start(self, now: float, *, probe: bool = True) -> None:
        """Begin to ask, or (`probe` False) only to tell: for an address that is trusted."""
        if probe:
            self._due = now + self._random.random() * PROBE_WAIT
        else:
            self._use(now)

    def deadline(self) -> float:
        """When `advance` is due, seconds; inf: never."""
        return self._due

    def advance(self, now: float) -> None:
        """Ask once more, or believe, or announce, when it is due (RFC 5227 §2.1.1, §2.3)."""
        if self._due > now:
            return
        if self.state == PROBING and self._left:
            self._left -= 1
            self._send(arp.build(arp.REQUEST, self._mac, NOBODY, ethernet.ZERO, self.address))
            wait = self._random.uniform(PROBE_MIN, PROBE_MAX) if self._left else ANNOUNCE_WAIT
            self._due = now + wait
        elif self.state == PROBING:
            self._use(now)
        elif self.state == ANNOUNCING:
            self._announce(now)
        else:
            self._due = inf

    def arp_arrives(self, packet: arp.ArpPacket, now: float) -> None:
        """Look for a conflict in any ARP packet (RFC 5227 §2.1.1, §2.4)."""
        if packet.sender_mac == self._mac or self.state == LOST:
            return
        claims = packet.sender == self.address
        if self.state == PROBING:
            probes = (
                packet.operation == arp.REQUEST
                and packet.sender == NOBODY
                and packet.target == self.address
            )
            if claims or probes:
                self._lose(packet.sender_mac)
        elif claims:
            if now - self._defended_at >= DEFEND_INTERVAL:
                self._defended_at = now
                self._send(self._announcement())
                if self._on_rival is not None:
                    self._on_rival(packet.sender_mac)
            elif not self._keep:
                self._lose(packet.sender_mac)

    def withdraw(self) -> None:
        """Do nothing more about the address."""
        self.state = LOST
        self._due = inf

    def _use(self, now: float) -> None:
        self.state = ANNOUNCING
        self._left = ANNOUNCE_NUM
        self._announce(now)
        self._on_ready()

    def _announce(self, now: float) -> None:
        self._left -= 1
        self._send(self._announcement())
        if self._left:
            self._due = now + ANNOUNCE_INTERVAL
        else:
            self.state = IN_USE
            self._due = inf

    def _announcement(self) -> bytes:
        return arp.build(arp.REQUEST, self._mac, self.address, ethernet.ZERO, self.address)

    def _lose(self, mac: bytes) -> None:
        self.withdraw()
        self._on_conflict(mac)
