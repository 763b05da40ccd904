"""Telling secondaries that a zone has changed (RFC 1996), until they say that they have heard.

A NOTIFY is a small message with the zone's name and, as a hint, its new SOA. Over UDP it may be
lost, so it is repeated with growing pauses; a secondary that never answers will find out by itself
when its refresh time has come. One word about a newer version replaces that about an older.

No I/O and no clock: `due` gives what must be sent at `now`, `received` takes what has come, and
`deadline` says when to ask again. `now` is monotonic seconds, `wall` the time of day for TSIG.
`Notified` is the other side: what primaries tell us. Imports the leaves of this package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any, Final, NamedTuple

from appliance.dns import names
from appliance.dns.consts import (
    BADVERS,
    DEFAULT_UDP,
    FORMERR,
    HEADER_LEN,
    IN,
    NOERROR,
    NOTAUTH,
    OPCODE_NOTIFY,
    REFUSED,
    SOA,
)
from appliance.dns.counters import Counters
from appliance.dns.edns import Extensions, opt_record
from appliance.dns.errors import WireError
from appliance.dns.prepared import AA, HEAD, QR
from appliance.dns.reader import Parts, last_record, take_apart
from appliance.dns.render import QUESTION_NAME, question_table, render
from appliance.dns.rrl import address_of
from appliance.dns.serial import serial_of
from appliance.dns.tsig import Key, Keys, Signer, sign_query, verify
from appliance.dns.zone import Zone

FIRST: Final = 2.0
"""Seconds until the first repetition; each further pause is twice as long."""
TRIES: Final = 6
"""Messages until a secondary is given up: for two minutes. RFC 1996 §3.6 suggests five minutes'
worth at a fixed minute; zones that change often want the quick start."""
JITTER: Final = 0.25
"""Part of a pause by which it may be longer, so that many zones' words do not come in step."""
STALE: Final = 1000
"""Entries of the agenda that may be about nothing, beyond one for each word."""
PENDING: Final = 100_000
"""Words under way at once: many zones times some secondaries; the rest waits for the refresh."""


class Target(NamedTuple):
    """A secondary."""

    address: str
    port: int = 53
    key: Key | None = None


class _Word:
    """One zone's news for one secondary."""

    __slots__ = ("at", "identifier", "mac", "message", "name", "pause", "target", "tries")

    def __init__(self, target: Target, name: bytes, message: bytes, now: float) -> None:
        self.target = target
        self.name = name
        """The zone's, in lower case."""
        self.message = message
        """Unsigned, with an identifier of its own."""
        self.identifier = message[:2]
        self.mac = b""
        self.at = now
        """When to send next."""
        self.pause = FIRST
        self.tries = 0


class Notifier:
    """What every secondary is still to be told."""

    __slots__ = (
        "_agenda",
        "_default",
        "_number",
        "_random",
        "_targets",
        "_wall",
        "_words",
        "given_up",
        "heard",
    )

    def __init__(
        self,
        targets: Mapping[str, Iterable[Target]] | None = None,
        default: Iterable[Target] = (),
        *,
        random: Random,
        wall: Callable[[], float],
    ) -> None:
        """`targets` by zone name, `default` for all others; LocalError for what is no name."""
        self._targets = {
            names.from_text(zone, names.ROOT).lower(): tuple(some)
            for zone, some in (targets or {}).items()
        }
        self._default = tuple(default)
        self._random = random
        self._wall = wall
        self._words: dict[tuple[bytes, Target], _Word] = {}
        self._agenda: list[tuple[float, int, _Word]] = []
        """A heap of words by when they are sent next; some are not to be sent any more."""
        self._number = 0
        """Of entries so far: those of one time come in their order."""
        self.heard = 0
        """Words that were acknowledged."""
        self.given_up = 0
        """Words that were not, or that found no room."""

    def changed(self, zone: Zone, now: float) -> None:
        """Begin to tell a zone's secondaries of its version."""
        for target in self._targets.get(zone.origin, self._default):
            key = (zone.origin, target)
            if key not in self._words and len(self._words) >= PENDING:
                self.given_up += 1
                continue
            identifier = self._random.getrandbits(16).to_bytes(2, "big")
            word = self._words[key] = _Word(target, zone.origin, _message(zone, identifier), now)
            self._plan(word)
        if len(self._agenda) > len(self._words) + STALE:
            self._agenda = [entry for entry in self._agenda if self._counts(entry[2])]
            heapify(self._agenda)

    def _plan(self, word: _Word) -> None:
        self._number += 1
        heappush(self._agenda, (word.at, self._number, word))

    def _counts(self, word: _Word) -> bool:
        """Whether a word is still to be sent: not answered, nor replaced by a newer one."""
        return self._words.get((word.name, word.target)) is word

    def deadline(self) -> float:
        """When `due` has something to give; infinity if never."""
        agenda = self._agenda
        while agenda and not self._counts(agenda[0][2]):
            heappop(agenda)
        return agenda[0][0] if agenda else math.inf

    def due(self, now: float) -> list[tuple[Target, bytes]]:
        """The messages to send now."""
        out: list[tuple[Target, bytes]] = []
        while self.deadline() <= now:
            word = heappop(self._agenda)[2]
            if word.tries >= TRIES:
                self.given_up += 1
                del self._words[word.name, word.target]
                continue
            message = word.message
            if word.target.key is not None:
                message, word.mac = sign_query(message, word.target.key, self._wall())
            out.append((word.target, message))
            word.tries += 1
            word.at = now + word.pause * (1 + JITTER * self._random.random())
            word.pause *= 2
            self._plan(word)
        return out

    def received(self, message: bytes, source: tuple[str, int]) -> bool:
        """Take in an answer; False if it is none that was waited for."""
        if len(message) < HEADER_LEN or message[2] & 0xF8 != QR | OPCODE_NOTIFY << 3:
            return False
        try:
            name = message[HEADER_LEN : names.end_of(message, HEADER_LEN)].lower()
        except WireError:
            return False
        for target in self._targets.get(name, self._default):
            word = self._words.get((name, target))
            if (
                word is not None
                and word.identifier == message[:2]
                and word.tries
                and (target.address, target.port) == source[:2]
                and self._is_genuine(message, word)
            ):
                # RFC 1996 §4.7: any answer ends it; one that is no acknowledgement will not
                # become one by repetition.
                del self._words[name, target]
                if message[3] & 15 == NOERROR:
                    self.heard += 1
                else:
                    self.given_up += 1
                return True
        return False

    def _is_genuine(self, message: bytes, word: _Word) -> bool:
        known = word.target.key
        if known is None:
            return True
        at = last_record(message)
        if not at:
            return False
        try:
            judged = verify(message, at, Keys([known]), self._wall(), word.mac)
        except WireError:
            return False
        return not judged.error


def _message(zone: Zone, identifier: bytes) -> bytes:
    """RFC 1996 §3.7: AA, the zone's name and type SOA, and the new SOA as a hint."""
    name = zone.apex.owner
    question = name + SOA.to_bytes(2, "big") + IN.to_bytes(2, "big")
    base = HEADER_LEN + len(question)
    body = render(question_table(name), base, [(QUESTION_NAME, zone.soa)], (), (), ())
    head = HEAD(OPCODE_NOTIFY << 3 | AA, 0, 1, 1, 0, 0)
    return identifier + head + question + body.octets


class Heard(NamedTuple):
    """News of a zone."""

    zone: bytes
    """Its origin in lower case."""
    address: str
    """Who told."""
    serial: int | None
    """What it is said to have become (RFC 1996 §3.7: a hint)."""


MayNotify = Callable[[bytes, str, bytes | None], bool | None]
"""Whether an address, with a verified key or None, may tell of a zone; None: not ours to hear."""


class Notified:
    """Takes NOTIFY messages that others send us."""

    __slots__ = ("_counters", "_extensions")

    def __init__(self, extensions: Extensions, counters: Counters) -> None:
        """`extensions` has the keys."""
        self._extensions = extensions
        self._counters = counters

    def take(self, message: bytes, peer: Any, may: MayNotify) -> tuple[Heard | None, bytes]:
        """What a NOTIFY of at least 12 octets tells, and the answer to it."""
        heard: Heard | None = None
        signer: Signer | None = None
        end, edns, do = HEADER_LEN, False, 0
        try:
            parts = take_apart(message)
            end, edns, do = parts.end, parts.edns, parts.do
            if parts.tsig_at:
                signer = self._extensions.signer(message, parts.tsig_at)
            rcode = BADVERS if parts.version else FORMERR  # RFC 6891 §6.1.3
            if parts.qtype == SOA and parts.qclass == IN and not parts.version:
                rcode, heard = self._judge(parts, signer, address_of(peer), may)
        except WireError:
            rcode = FORMERR
        self._counters.rcodes[rcode].count += 1
        self._counters.notifies += heard is not None
        # RFC 1996 §4.7: the query's header with QR, and its question; with AA if we know the zone.
        aa = AA if rcode == NOERROR else 0
        head = HEAD(QR | OPCODE_NOTIFY << 3 | aa, rcode & 15, end > HEADER_LEN, 0, 0, edns)
        opt = opt_record(DEFAULT_UDP, do, rcode) if edns else b""
        answer = message[:2] + head + message[HEADER_LEN:end] + opt
        if signer is not None:
            answer = signer.sign(answer, self._extensions.clock())
        return heard, answer

    @staticmethod
    def _judge(
        parts: Parts, signer: Signer | None, address: str, may: MayNotify
    ) -> tuple[int, Heard | None]:
        if signer is not None and signer.error:
            return NOTAUTH, None  # RFC 8945 §5.2
        key = signer.key.name if signer is not None and signer.key is not None else None
        allowed = may(parts.name, address, key)
        if allowed is None:
            return NOTAUTH, None
        if not allowed:
            return REFUSED, None  # RFC 1996 §3.10: only those that are known as primaries
        serial = None
        for record in parts.sections[0]:
            if record.rtype == SOA and record.owner.lower() == parts.name:
                serial = serial_of(record.rdata) if len(record.rdata) >= 22 else None
        return NOERROR, Heard(parts.name, address, serial)
