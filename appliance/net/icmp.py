"""ICMP: telling of errors sparingly, believing them warily (RFC 792, RFC 1122 §3.2.2).

Errors are what an attacker likes best to forge: they need no handshake.  So ours are limited in
rate, never sent about an error, a fragment's tail or a broadcast, and those that arrive are
believed only when they quote something that is really outstanding (RFC 5927), which is for the
transport to judge.

It imports `wire`.
"""

from __future__ import annotations

import errno
from typing import Final

from appliance.net.wire import icmp as wire
from appliance.net.wire import icmpv6

RATE: Final = 1000.0  # errors per second, Linux's icmp_msgs_per_sec; RFC 1812 §4.3.2.8
BURST: Final = 50.0  # errors at once, Linux's icmp_msgs_burst


class TokenBucket:
    """At most `rate` events a second in the long run and `burst` at once."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Spend a token if there is one at `now`."""
        tokens = min(self._tokens + (now - self._at) * self._rate, self._burst)
        self._at = now
        if tokens < 1.0:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1.0
        return True


def error_of(kind: int, code: int) -> OSError | None:
    """Return what an ICMP error means to a socket; None: nothing (RFC 1122 §4.2.3.9)."""
    if kind == wire.UNREACHABLE:
        if code == wire.UNREACHABLE_PORT or code == wire.UNREACHABLE_PROTOCOL:
            return ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        if code == wire.UNREACHABLE_FRAGMENTATION:
            return None
        if code == wire.UNREACHABLE_NET:
            return OSError(errno.ENETUNREACH, "Network is unreachable")
        return OSError(errno.EHOSTUNREACH, "No route to host")
    if kind == wire.TIME_EXCEEDED:
        return OSError(errno.EHOSTUNREACH, "No route to host (time exceeded)")
    if kind == wire.PARAMETER_PROBLEM:
        return OSError(errno.EPROTO, "Protocol error")
    return None


def error6_of(kind: int, code: int) -> OSError | None:
    """Return what an ICMPv6 error means to a socket; None: nothing (RFC 4443 §3)."""
    if kind == icmpv6.UNREACHABLE:
        if code == icmpv6.UNREACHABLE_PORT:
            return ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        if code == icmpv6.UNREACHABLE_ROUTE:
            return OSError(errno.ENETUNREACH, "Network is unreachable")
        if code == icmpv6.UNREACHABLE_ADMIN:
            return OSError(errno.EACCES, "Permission denied (by a router on the way)")
        return OSError(errno.EHOSTUNREACH, "No route to host")
    if kind == icmpv6.TIME_EXCEEDED:
        return OSError(errno.EHOSTUNREACH, "No route to host (time exceeded)")
    if kind == icmpv6.PARAMETER_PROBLEM:
        return OSError(errno.EPROTO, "Protocol error")
    return None
