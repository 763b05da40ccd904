"""When a secondary asks which primary: the timers of RFC 1035 §4.3.5, and NOTIFY (RFC 1996).

One `Secondary` stands for one zone. It says when something is to be done (`deadline`), what
(`due`), and is told what came of it. After a success the zone's own refresh time runs; after a
failure the next primary is asked at once, and when all have failed, the retry time, doubled for
each round up to the refresh time. Each pause is a little shorter by chance, so that zones do not
move in step. A zone that nobody has confirmed for its expire time is not answered from any more.

Sans-I/O; `now` is monotonic seconds. Imports `serial`, `tsig`, `zone`.
"""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from struct import Struct
from typing import Final, NamedTuple

from appliance.dns.tsig import Key
from appliance.dns.zone import Zone

FIRST_RETRY: Final = 5.0
"""Seconds until a zone that we have never had is asked for again; doubled for each round."""
MAX_RETRY: Final = 3600.0
"""Seconds between rounds for such a zone at most."""
MIN_PAUSE: Final = 5.0
"""Seconds: the least refresh and retry time, whatever the SOA says."""
MAX_REFRESH: Final = 4 * 604800.0
"""Seconds; an SOA may say 68 years."""
JITTER: Final = 0.1
"""Part of a pause by which it may be shorter."""

_TIMES: Final = Struct("!III")


class Trust(NamedTuple):
    """How a primary shows over TLS that it is the one (RFC 9103 §7.5); by a name, pins, or both."""

    name: str = ""
    """Its authentication domain name (RFC 8310 §7.1), or an address; "" where pins alone decide."""
    ca_file: Path | None = None
    """Certificates of the authorities to believe, in PEM; None: those that the system believes."""
    pins: frozenset[bytes] = frozenset()
    """SHA-256 of a subjectPublicKeyInfo each (RFC 7858 §4.2); the primary's must be among them."""


class Primary(NamedTuple):
    """Where a zone is had from."""

    address: str
    port: int = 53
    key: Key | None = None
    tls: Trust | None = None
    """None: it is asked in the clear."""


class Secondary:
    """One zone that somebody else is the primary of."""

    def __init__(self, origin: bytes, primaries: tuple[Primary, ...], *, random: Random) -> None:
        """`origin` in lower case; there is at least one primary."""
        self.origin = origin
        self.primaries = primaries
        self.zone: Zone | None = None
        self.busy = False
        """A conversation, or what has come of it, is under way to the disk; one at a time."""
        self.queued = False
        """It is due, and waits until there is room for a conversation."""
        self.failures = 0
        """Primaries in a row that were of no use."""
        self.problem = ""
        """What the last of them said, for people."""
        self._random = random
        self._next = 0
        self._at = 0.0
        self._expires = math.inf
        self._again = False
        """News came while a conversation was under way."""

    def have(self, zone: Zone, now: float, age: float = 0.0) -> None:
        """A version has been taken over, or was on the disk, confirmed `age` seconds ago."""
        self.zone = zone
        self.confirmed(now, age)

    def confirmed(self, now: float, age: float = 0.0) -> None:
        """A primary has nothing newer."""
        self.failures = 0
        self.problem = ""
        if self.zone is None:
            return
        refresh, _, expire = self._times()
        self._at = now + max(0.0, self._shorter(refresh) - age)
        self._expires = now + expire - age

    def failed(self, now: float, why: str) -> None:
        """A primary was of no use: the next one, or after a pause the first again."""
        self.failures += 1
        self.problem = why
        self._next = (self._next + 1) % len(self.primaries)
        if self._next:
            self._at = now
            return
        rounds = min(self.failures // len(self.primaries) - 1, 16)
        if self.zone is None:
            pause = min(FIRST_RETRY * 2**rounds, MAX_RETRY)
        else:
            refresh, retry, _ = self._times()
            pause = min(retry * 2**rounds, max(refresh, retry))
        self._at = now + self._shorter(pause)

    def finished(self, now: float) -> None:
        """The next conversation may begin; news that came meanwhile are asked for at once."""
        self.busy = False
        if self._again:
            self._at = now
        self._again = False

    def notified(self, now: float, address: str, serial: int | None) -> None:
        """A primary says that there is something new, perhaps with its serial."""
        if serial is not None and self.zone is not None and serial == self.zone.serial:
            return  # RFC 1996 §3.11: we have that
        for number, primary in enumerate(self.primaries):
            if primary.address == address:
                self._next = number  # RFC 1996 §4.3: whoever tells of it is asked first
                break
        if self.busy:
            self._again = True
        else:
            self._at = min(self._at, now)

    def move(self, primaries: tuple[Primary, ...]) -> None:
        """Others have the zone from now on; there is at least one."""
        self.primaries = primaries
        self._next = 0

    def expired(self, now: float) -> bool:
        """True once when the zone has outlived its expire time."""
        if now < self._expires or self.zone is None:
            return False
        self.zone = None
        self._expires = math.inf
        return True

    def deadline(self) -> float:
        """When `due` or `expired` has something to say."""
        return min(self._expires, math.inf if self.busy or self.queued else self._at)

    def is_due(self, now: float) -> bool:
        """Whether a primary is to be talked to."""
        return not self.busy and now >= self._at

    def begin(self) -> Primary:
        """The primary to talk to; it is followed by what came of it, and by `finished`."""
        self.busy = True
        return self.primaries[self._next]

    def due(self, now: float) -> Primary | None:
        """`begin`, if it is due."""
        return self.begin() if self.is_due(now) else None

    def ask_now(self, now: float) -> None:
        """Do not wait for the timers: a person wants to know."""
        self._at = min(self._at, now)

    def _shorter(self, pause: float) -> float:
        return pause * (1 - JITTER * self._random.random())

    def _times(self) -> tuple[float, float, float]:
        """Refresh, retry and expire in seconds, within reason."""
        assert self.zone is not None
        refresh, retry, expire = _TIMES.unpack(self.zone.soa.rdatas[0][-16:-4])
        refresh = min(max(refresh, MIN_PAUSE), MAX_REFRESH)
        retry = min(max(retry, MIN_PAUSE), MAX_REFRESH)
        return refresh, retry, max(expire, refresh + retry)
