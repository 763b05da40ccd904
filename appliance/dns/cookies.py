"""DNS cookies (RFC 7873) that any server with the same secret understands (RFC 9018).

A client sends eight octets of its own; the server adds sixteen that bind them to the client's
address and to a time. A client that sends back what it was given cannot be spoofed from elsewhere,
so it is never rate-limited. Nothing is kept for each client; a small memory of recent verdicts only
saves the hashing. `now` is wall-clock seconds, since servers with one secret must agree about it.
Imports `cache`, `errors` and `siphash`.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from hmac import compare_digest
from struct import Struct
from typing import Final, NamedTuple

from appliance.dns.cache import Generations
from appliance.dns.errors import LocalError, WireError
from appliance.siphash import KEY_LEN, siphash24

CLIENT_LEN: Final = 8
"""Octets of a client cookie (RFC 7873 §4)."""
SERVER_LEN: Final = 16
"""Octets of our server cookies: version, three reserved, time, hash (RFC 9018 §4)."""
SERVER_MIN: Final = 8
SERVER_MAX: Final = 32
"""Octets of any server cookie (RFC 7873 §4)."""
LIFETIME: Final = 3600
"""Seconds for which a server cookie is good (RFC 9018 §4.3)."""
RENEWAL: Final = 1800
"""Seconds after which a good one is replaced all the same (RFC 9018 §4.3)."""
FUTURE: Final = 300
"""Seconds that another server's clock may be ahead (RFC 9018 §4.3)."""
MEMORY: Final = 20_000
"""Verdicts remembered: a busy authority's resolvers; about 5 MB."""
VERDICT_SECONDS: Final = 60
"""Seconds for which a verdict is taken from memory."""

_VERSION: Final = b"\x01\0\0\0"
_TIME: Final = Struct("!I")


class Verdict(NamedTuple):
    """What is to be done about a cookie."""

    option: bytes
    """Client and server cookie to send back."""
    good: bool
    """The client has shown that it receives what is sent to its address."""
    server_sent: bool
    """It sent a server cookie at all, good or not."""


class Cookies:
    """Makes and judges server cookies."""

    __slots__ = ("_memory", "_secrets")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """16-octet secrets: the first makes cookies, all are accepted (RFC 9018 §5, roll-over)."""
        if not secrets or any(len(secret) != KEY_LEN for secret in secrets):
            raise LocalError(f"cookie secrets have {KEY_LEN} octets, and there is at least one")
        self._secrets = tuple(secrets)
        self._memory: Generations[tuple[bytes, str], tuple[float, Verdict]] = Generations(
            MEMORY, MEMORY * 256
        )

    def judge(self, option: bytes, address: str, now: float) -> Verdict:
        """Judge a COOKIE option's data; WireError if no cookie is that long (RFC 7873 §5.2.2)."""
        length = len(option)
        if length != CLIENT_LEN and not (
            CLIENT_LEN + SERVER_MIN <= length <= CLIENT_LEN + SERVER_MAX
        ):
            raise WireError("cookie of impossible length")
        key = (option, address)
        known = self._memory.get(key)
        if known is not None and 0 <= now - known[0] < VERDICT_SECONDS:
            return known[1]
        verdict = self._judge(option, address, int(now))
        self._memory.put(key, (now, verdict), 200)
        return verdict

    def _judge(self, option: bytes, address: str, now: int) -> Verdict:
        client, server = option[:CLIENT_LEN], option[CLIENT_LEN:]
        packed = _packed(address)
        if self._is_good(client, server, packed, now):
            # RFC 1982 arithmetic on the 32-bit time, as RFC 9018 §4.3 has it.
            age = (now - _TIME.unpack_from(server, 4)[0]) & 0xFFFFFFFF
            keep = age < RENEWAL or age > 0x7FFFFFFF
            if keep and self._is_by(self._secrets[0], client, server, packed):
                return Verdict(option, True, True)
            return Verdict(client + self._make(client, packed, now), True, True)
        return Verdict(client + self._make(client, packed, now), False, bool(server))

    def _make(self, client: bytes, packed: bytes, now: int) -> bytes:
        head = _VERSION + _TIME.pack(now & 0xFFFFFFFF)
        # RFC 9018 §4.4: Client Cookie | Version | Reserved | Timestamp | Client-IP.
        return head + siphash24(self._secrets[0], client + head + packed)

    def _is_good(self, client: bytes, server: bytes, packed: bytes, now: int) -> bool:
        if len(server) != SERVER_LEN or server[0] != 1:
            return False
        age = (now - _TIME.unpack_from(server, 4)[0]) & 0xFFFFFFFF
        if LIFETIME < age < 0x100000000 - FUTURE:
            return False
        return any(self._is_by(secret, client, server, packed) for secret in self._secrets)

    @staticmethod
    def _is_by(secret: bytes, client: bytes, server: bytes, packed: bytes) -> bool:
        return compare_digest(siphash24(secret, client + server[:8] + packed), server[8:])


def _packed(address: str) -> bytes:
    """4 or 16 octets; an address that is neither (a pipe, a test) counts by its text."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, address.partition("%")[0])
        except (OSError, ValueError):
            continue
    return address.encode("utf-8", "replace")[:16]
