"""Response rate limiting: a name server must not be anybody's amplifier.

Whoever forges a victim's address in queries has us send answers there. Such queries come in
numbers and call for the same answers, which resolvers, with their caches, do not. So answers are
counted for each network of clients and each kind of answer, and what exceeds the rate is dropped,
but for one in `slip`, which is sent truncated and empty: a genuine client behind the same address
asks again over TCP, which cannot be forged, and never is limited; nor is a client with a good
cookie.

The measure is GCRA, a leaky bucket that needs one number for each bucket: the time at which it
would be empty. All buckets lie in one array, found by a keyed hash (`hash` of octets is SipHash
under the process's own secret). Two networks may share one; with a quarter of a million that is
rare, and cannot be brought about on purpose. Nothing grows, nothing must be evicted, and a flood
from forged addresses costs the same as an honest one. (BIND and Knot call the whole RRL; there is
no RFC.) `now` is monotonic seconds. Imports `errors`.
"""

from __future__ import annotations

import ipaddress
import socket
from array import array
from collections.abc import Iterable
from typing import Any, Final

from appliance.dns.errors import LocalError

SEND: Final = 0
DROP: Final = 1
SLIP: Final = 2
"""Verdicts."""

BUCKETS: Final = 1 << 18
"""One double each, 2 MB."""
RATE: Final = 200.0
"""Answers of one kind a second to one network; NSD's default. A resolver asks for one name once
in its TTL."""
TOTAL: Final = 2000.0
"""Answers of all kinds a second to one network: names may be varied, too."""
BURST: Final = 2.0
"""Seconds of the rate that may come at once: a resolver that has just started."""
SLIP_RATIO: Final = 2
"""One in so many limited answers is sent truncated; BIND's and NSD's default."""
IPV4_PREFIX: Final = 24
IPV6_PREFIX: Final = 56
"""Bits of a client's network: what one site has (RFC 6177 §2 for IPv6)."""
NETWORKS: Final = 50_000
"""Addresses whose network is remembered, about 8 MB."""

_SPREAD: Final = 0x9E3779B97F4A7C15
"""2⁶⁴ divided by the golden ratio: neighbouring kinds come to lie far apart."""


class RateLimiter:
    """Decides whether an answer may be sent."""

    __slots__ = (
        "_burst",
        "_exempt",
        "_interval",
        "_key",
        "_limited",
        "_masks",
        "_networks",
        "_slip",
        "_times",
        "_total_interval",
    )

    def __init__(
        self,
        key: bytes,
        *,
        rate: float = RATE,
        total: float = TOTAL,
        burst: float = BURST,
        slip: int = SLIP_RATIO,
        ipv4_prefix: int = IPV4_PREFIX,
        ipv6_prefix: int = IPV6_PREFIX,
        exempt: Iterable[str] = (),
        buckets: int = BUCKETS,
    ) -> None:
        """`key`: secret octets; `rate` and `total` a second, `burst` in seconds, `slip` 0: never.

        `exempt` are networks like "192.0.2.0/24". LocalError for what makes no sense.
        """
        if rate <= 0 or total <= 0 or burst < 0 or slip < 0 or buckets < 1:
            raise LocalError("rates must be positive, and burst, slip and buckets not negative")
        if not (0 <= ipv4_prefix <= 32 and 0 <= ipv6_prefix <= 128):
            raise LocalError("prefixes are 0..32 bits for IPv4 and 0..128 for IPv6")
        self._key = key
        self._interval = 1 / rate
        self._total_interval = 1 / total
        self._burst = burst
        self._slip = slip
        self._masks = (
            (1 << 32) - (1 << 32 - ipv4_prefix),
            (1 << 128) - (1 << 128 - ipv6_prefix),
        )
        try:
            self._exempt = [ipaddress.ip_network(network) for network in exempt]
        except ValueError as error:
            raise LocalError(f"exempt networks: {error}") from None
        self._times = array("d", bytes(8 * buckets))
        self._limited = 0
        self._networks: dict[str, bytes] = {}
        """Networks of the addresses seen lately, to save parsing them; emptied when it is full."""

    def judge(self, address: str, kind: int, now: float) -> int:
        """Count an answer of a `kind` to an address: SEND, DROP or SLIP."""
        network = self._networks.get(address)
        if network is None:
            network = self._network(address)
        if not network:
            return SEND
        times = self._times
        size = len(times)
        place = hash(network)
        whole = place % size
        part = (place + _SPREAD * (kind | 1)) % size
        limit = now + self._burst
        whole_time, part_time = times[whole], times[part]
        if part_time <= limit and whole_time <= limit:
            # What is not sent costs nothing: a network at its limit gets its rate, not less.
            times[whole] = (max(now, whole_time)) + self._total_interval
            times[part] = (max(now, part_time)) + self._interval
            return SEND
        self._limited += 1
        return SLIP if self._slip and self._limited % self._slip == 0 else DROP

    def _network(self, address: str) -> bytes:
        """What stands for an address's network; nothing if it is exempt or no address."""
        plain = address.partition("%")[0]
        packed = network = b""
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                packed = socket.inet_pton(family, plain)
                break
            except (OSError, ValueError):
                continue
        number = int.from_bytes(packed, "big")
        if packed and not self._is_exempt(number, len(packed)):
            mask = self._masks[len(packed) == 16]
            network = self._key + (number & mask).to_bytes(len(packed), "big")
        if len(self._networks) >= NETWORKS:
            self._networks.clear()
        self._networks[address] = network
        return network

    def _is_exempt(self, number: int, octets: int) -> bool:
        return any(
            network.max_prefixlen == 8 * octets
            and number & int(network.netmask) == int(network.network_address)
            for network in self._exempt
        )


def address_of(peer: Any) -> str:
    """The address in what asyncio calls a peer; empty if there is none."""
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""
