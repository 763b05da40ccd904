"""Transaction signatures (RFC 8945): who asked, and that nobody changed the message on its way.

A key is a name, an HMAC and a secret that two parties share. The last record of a signed message
holds the MAC over everything before it, over the record's own fields and, in an answer, over the
query's MAC, which ties the two together. In an answer of many messages each is tied to the one
before. `now` is wall-clock seconds, since both parties must agree about it. Imports `consts`,
`errors`, `names`.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from appliance.dns import names
from appliance.dns.consts import CLASS_ANY, TSIG
from appliance.dns.errors import LocalError, WireError

BADSIG: Final = 16
BADKEY: Final = 17
BADTIME: Final = 18
BADTRUNC: Final = 22
"""Errors inside the record (RFC 8945 §3); the message's response code is NOTAUTH."""

FUDGE: Final = 300
"""Seconds by which the clocks may differ (RFC 8945 §10 recommends this)."""

ALGORITHMS: Final = {
    names.from_text("hmac-sha1."): ("sha1", 20),
    names.from_text("hmac-sha224."): ("sha224", 28),
    names.from_text("hmac-sha256."): ("sha256", 32),
    names.from_text("hmac-sha384."): ("sha384", 48),
    names.from_text("hmac-sha512."): ("sha512", 64),
}
"""Name in wire form to hash and octets of the MAC (RFC 8945 §6); MD5 is not among them."""
MIN_SECRET: Final = 16
"""Octets of a secret; RFC 8945 §8 asks for as much as the hash has, and people use 16 to 64."""

MAX_UNSIGNED: Final = 99
"""Messages of a transfer between two signed ones at most (RFC 8945 §5.3.1)."""

_FIXED: Final = struct.Struct("!HHIH")
_TIMERS: Final = struct.Struct("!HIH")
"""48 bits of time, 16 of fudge."""
_TAIL: Final = struct.Struct("!HHH")
"""Original identifier, error, length of other data."""


class Key(NamedTuple):
    """A shared secret; made by `key`."""

    name: bytes
    """Wire form in lower case."""
    algorithm: bytes
    """Wire form in lower case; one of `ALGORITHMS`."""
    secret: bytes

    def __repr__(self) -> str:
        """Never the secret."""
        return f"Key({names.to_text(self.name)} {names.to_text(self.algorithm)})"


def key(name: str, algorithm: str, secret: bytes) -> Key:
    """A key from text like "transfer.example." and "hmac-sha256"; LocalError if it is none."""
    wire = names.from_text(algorithm, names.ROOT).lower()
    if wire not in ALGORITHMS:
        known = ", ".join(names.to_text(one)[:-1] for one in ALGORITHMS)
        raise LocalError(f"{algorithm!r} is none of {known}")
    if len(secret) < MIN_SECRET:
        raise LocalError(f"the secret of {name} has {len(secret)} octets, not {MIN_SECRET} or more")
    return Key(names.from_text(name, names.ROOT).lower(), wire, secret)


class Keys:
    """The keys that a server knows."""

    __slots__ = ("_by_name",)

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        """LocalError if two have one name."""
        self._by_name: dict[bytes, Key] = {}
        for one in keys:
            if self._by_name.setdefault(one.name, one) is not one:
                raise LocalError(f"two keys are called {names.to_text(one.name)}")

    def get(self, name: bytes, algorithm: bytes) -> Key | None:
        """The key with this name, if it is for this algorithm."""
        found = self._by_name.get(name)
        return found if found is not None and found.algorithm == algorithm else None


class Signature(NamedTuple):
    """What a TSIG record says, and what was found out about it."""

    key_name: bytes
    algorithm: bytes
    time: int
    """Seconds since 1970, by the signer's clock."""
    fudge: int
    mac: bytes
    original_id: bytes
    said_error: int
    other: bytes
    """Error and other data as the sender wrote them."""
    error: int
    """0: the signature is good; otherwise what to answer in a TSIG of one's own."""
    key: Key | None


def verify(message: bytes, at: int, keys: Keys, now: float, asked: bytes = b"") -> Signature:
    """Judge the TSIG record at `at`, the last of a message; WireError if it is malformed.

    `asked` is the MAC of the query if the message is an answer. RFC 8945 §5.2: first the key, then
    the MAC, then the time.
    """
    found = _read(message, at)
    known = keys.get(found.key_name, found.algorithm)
    if known is None:
        return found._replace(error=BADKEY)
    size = ALGORITHMS[known.algorithm][1]
    if len(found.mac) > size or len(found.mac) < max(10, size // 2):
        raise WireError("MAC of impossible length")  # RFC 8945 §5.2.2.1
    # The digest is over the message as it was before TSIG was added (RFC 8945 §4.3.2).
    count = int.from_bytes(message[10:12], "big") - 1
    bare = found.original_id + message[2:10] + count.to_bytes(2, "big") + message[12:at]
    variables = _variables(known, found.time, found.fudge, found.said_error, found.other)
    prior = len(asked).to_bytes(2, "big") + asked if asked else b""
    expected = _mac(known, prior, bare, variables)
    if not hmac.compare_digest(expected[: len(found.mac)], found.mac):
        return found._replace(error=BADSIG)
    if abs(now - found.time) > found.fudge:
        return found._replace(error=BADTIME, key=known)
    if len(found.mac) < size:
        return found._replace(error=BADTRUNC, key=known)
    return found._replace(key=known)


def _read(message: bytes, at: int) -> Signature:
    name_end = names.end_of(message, at)
    try:
        rtype, rclass, ttl, length = _FIXED.unpack_from(message, name_end)
        start = name_end + _FIXED.size
        if rtype != TSIG or rclass != CLASS_ANY or ttl or start + length != len(message):
            raise WireError("malformed TSIG")
        algorithm_end = names.end_of(message, start)
        high, low, fudge = _TIMERS.unpack_from(message, algorithm_end)
        mac_at = algorithm_end + _TIMERS.size + 2
        mac_end = mac_at + int.from_bytes(message[mac_at - 2 : mac_at], "big")
        _, said_error, other = _TAIL.unpack_from(message, mac_end)
    except struct.error:
        raise WireError("malformed TSIG") from None
    if mac_end + _TAIL.size + other != len(message):
        raise WireError("malformed TSIG")
    return Signature(
        message[at:name_end].lower(),
        message[start:algorithm_end].lower(),
        high << 32 | low,
        fudge,
        message[mac_at:mac_end],
        message[mac_end : mac_end + 2],
        said_error,
        message[mac_end + _TAIL.size :],
        0,
        None,
    )


def _mac(known: Key, *parts: bytes) -> bytes:
    return hmac.digest(known.secret, b"".join(parts), ALGORITHMS[known.algorithm][0])


def _variables(known: Key, time: int, fudge: int, error: int, other: bytes) -> bytes:
    """RFC 8945 §4.3.3: what of the record itself is signed."""
    return b"".join(
        (
            known.name,
            CLASS_ANY.to_bytes(2, "big"),
            bytes(4),
            known.algorithm,
            _TIMERS.pack(time >> 32, time & 0xFFFFFFFF, fudge),
            error.to_bytes(2, "big"),
            len(other).to_bytes(2, "big"),
            other,
        )
    )


def record_length(known: Key) -> int:
    """Octets that `sign_query` adds to a message."""
    mac = ALGORITHMS[known.algorithm][1]
    fixed = _FIXED.size + _TIMERS.size + 2 + _TAIL.size
    return len(known.name) + len(known.algorithm) + fixed + mac


def sign_query(message: bytes, known: Key, now: float) -> tuple[bytes, bytes]:
    """A query with its TSIG record, and the MAC that its answer will cover."""
    time = int(now)
    mac = _mac(known, message, _variables(known, time, FUDGE, 0, b""))
    return _with_record(message, known.name, known.algorithm, time, mac), mac


def _with_record(
    message: bytes,
    name: bytes,
    algorithm: bytes,
    time: int,
    mac: bytes,
    error: int = 0,
    other: bytes = b"",
) -> bytes:
    """The message with a TSIG record behind everything else."""
    rdata = b"".join(
        (
            algorithm,
            _TIMERS.pack(time >> 32, time & 0xFFFFFFFF, FUDGE),
            len(mac).to_bytes(2, "big"),
            mac,
            message[:2],
            error.to_bytes(2, "big"),
            len(other).to_bytes(2, "big"),
            other,
        )
    )
    count = int.from_bytes(message[10:12], "big") + 1
    head = message[:10] + count.to_bytes(2, "big")
    fixed = _FIXED.pack(TSIG, CLASS_ANY, 0, len(rdata))
    return b"".join((head, message[12:], name, fixed, rdata))


class Signer:
    """Signs the answer to one query: one message, or all messages of a stream in their order."""

    __slots__ = ("_asked", "_first", "_prior", "error", "key", "length")

    def __init__(self, asked: Signature) -> None:
        """`asked`: the query's signature as it was judged."""
        self._asked = asked
        self.error = asked.error
        """0 if the query's signature was good."""
        self.key = asked.key
        self._prior = asked.mac
        self._first = True
        mac = ALGORITHMS[asked.key.algorithm][1] if asked.key is not None else 0
        other = 6 if asked.error == BADTIME else 0
        fixed = _FIXED.size + _TIMERS.size + 2 + _TAIL.size
        self.length = len(asked.key_name) + len(asked.algorithm) + fixed + mac + other
        """Octets that each record takes."""

    def sign(self, message: bytes, now: float) -> bytes:
        """The message with its TSIG record, which comes after everything else."""
        asked, known = self._asked, self._asked.key
        time, other = int(now), b""
        if asked.error == BADTIME:
            # RFC 8945 §5.2.3: the client's time is echoed, ours goes along.
            time, other = asked.time, int(now).to_bytes(6, "big")
        timers = _TIMERS.pack(time >> 32, time & 0xFFFFFFFF, FUDGE)
        mac = b""
        if known is not None:
            # RFC 8945 §5.3.1: behind the first message only the timers are signed.
            prior = len(self._prior).to_bytes(2, "big") + self._prior
            last = _variables(known, time, FUDGE, asked.error, other) if self._first else timers
            mac = _mac(known, prior, message, last)
        self._prior = mac
        self._first = False
        name, algorithm = asked.key_name, asked.algorithm
        return _with_record(message, name, algorithm, time, mac, asked.error, other)


class Verifier:
    """Judges the answers to one signed query, in their order: one message, or a whole transfer."""

    __slots__ = ("_first", "_held", "_key", "_prior")

    def __init__(self, known: Key, asked: bytes) -> None:
        """`asked` is the query's MAC."""
        self._key = known
        self._prior = asked
        self._first = True
        self._held: list[bytes] = []
        """Messages without a signature of their own: the next one covers them."""

    @property
    def settled(self) -> bool:
        """True if everything seen so far is covered by a signature (RFC 8945 §5.3.1)."""
        return not self._held and not self._first

    def check(self, message: bytes, at: int, now: float) -> None:
        """Judge a message whose TSIG is at `at`, 0 if it has none; WireError unless it is good."""
        if not at:
            if self._first or len(self._held) >= MAX_UNSIGNED:
                raise WireError("the answer is not signed")
            self._held.append(message)
            return
        known, found = self._key, _read(message, at)
        if found.said_error or not found.mac:
            raise WireError(f"the other side says TSIG error {found.said_error}")
        if (found.key_name, found.algorithm) != (known.name, known.algorithm):
            raise WireError("the answer is signed with another key")
        count = int.from_bytes(message[10:12], "big") - 1
        bare = found.original_id + message[2:10] + count.to_bytes(2, "big") + message[12:at]
        if self._first:
            last = _variables(known, found.time, found.fudge, found.said_error, found.other)
        else:
            last = _TIMERS.pack(found.time >> 32, found.time & 0xFFFFFFFF, found.fudge)
        prior = len(self._prior).to_bytes(2, "big") + self._prior
        expected = _mac(known, prior, *self._held, bare, last)
        if not hmac.compare_digest(expected, found.mac):
            raise WireError("the signature is not good")
        if abs(now - found.time) > found.fudge:
            raise WireError("the signature is of another time; are the clocks right?")
        self._prior = found.mac
        self._first = False
        self._held.clear()
