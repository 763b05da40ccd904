"""What TLS has counted, for the operators.

Imports the standard library.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

MAX_REASONS: Final = 64
"""Kinds of failure that are told apart: OpenSSL's reasons, of which a peer can provoke dozens."""


class TlsCounters:
    """Counters of one or several listeners."""

    __slots__ = (
        "accepted", "failures", "handshakes", "http", "late", "limited", "ragged", "resumed",
        "tls12", "tls13",
    )  # fmt: skip

    def __init__(self) -> None:
        self.accepted = 0  # connections begun
        self.handshakes = 0  # done
        self.resumed = 0  # of these, with a ticket
        self.tls12 = 0
        self.tls13 = 0
        self.http = 0  # plain HTTP requests, answered with 400
        self.late = 0  # handshakes that took too long
        self.limited = 0  # connections refused or ended because of too many handshakes
        self.ragged = 0  # ended by the peer without close_notify
        self.failures: Counter[str] = Counter()  # by reason; at most MAX_REASONS of them

    def failed(self, reason: str) -> None:
        """Count a failure by its reason."""
        if reason not in self.failures and len(self.failures) >= MAX_REASONS:
            reason = "other"
        self.failures[reason] += 1

    def events(self) -> dict[str, int]:
        """What is neither a version nor a failure."""
        names = ("accepted", "http", "late", "limited", "ragged", "resumed")
        return {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, int]:
        """All counters by name, those of failures as `failed: REASON`."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "failures"}
        return plain | {f"failed: {reason}": n for reason, n in sorted(self.failures.items())}
