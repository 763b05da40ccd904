"""A zone from a primary: SOA, then IXFR (RFC 1995) or AXFR (RFC 5936), over one stream.

    ask SOA ┬ not newer ─────────────────────────────── up to date
            └ newer ┬ we have a version ── IXFR ┬ differences ─ ready
                    │                           ├ the whole zone ─ ready
                    │                           └ refused, or makes no sense ┐
                    └ we have none ───────────────────────────── AXFR ───────┴ ready

Sans-I/O: `start` gives the first message, `received` takes one and may give the next. All answers
must be signed if the query was (RFC 8945). Raises `WireError` for a primary that cannot be used;
whoever drives this tries another. Imports the leaves of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from appliance.dns import names
from appliance.dns.consts import AXFR, HEADER_LEN, IN, IXFR, NOERROR, RCODE_NAMES, SOA, TSIG
from appliance.dns.edns import keepalive, private_query
from appliance.dns.errors import LocalError, SenselessError, WireError
from appliance.dns.prepared import AA, QR, TC
from appliance.dns.reader import (
    WireRecord,
    check_rdata,
    is_meta,
    last_record,
    name_at,
    record_at,
    sections,
)
from appliance.dns.serial import Difference, Record, is_newer, serial_of
from appliance.dns.tsig import Key, Verifier, record_length, sign_query
from appliance.dns.zone import ZoneBuilder

MAX_RECORDS: Final = 5_000_000
"""Records of a zone that is taken from a primary: about 5 GB, beyond any machine this is for."""
MAX_DIFFERENCES: Final = 10_000
"""Versions that one IXFR may lead through."""


class UpToDate(NamedTuple):
    """The primary has nothing newer."""

    serial: int


class Whole(NamedTuple):
    """A whole zone, still to be finished by `ZoneBuilder.finish`."""

    builder: ZoneBuilder
    left_out: int
    """Records outside the zone."""


Result = UpToDate | Whole | tuple[Difference, ...]


class _Part:
    """One difference as it comes."""

    def __init__(self, old: Record) -> None:
        self.old = old
        self.new: Record | None = None
        self.removed: list[Record] = []
        self.added: list[Record] = []


class Incoming:
    """One conversation with one primary about one zone; use once."""

    def __init__(
        self,
        name: bytes,
        serial: int | None,
        *,
        key: Key | None = None,
        random: Random,
        wall: Callable[[], float],
        whole: bool = False,
        padded: bool = False,
    ) -> None:
        """`serial`: of the version we have; `whole`: ask for all of it even so.

        `padded`: the stream is encrypted, so lengths are to tell nothing.
        """
        self.name = name
        self._lowered = name.lower()
        self._serial = serial
        self._key = key
        self._random = random
        self._wall = wall
        self._padded = padded
        self._incremental = serial is not None and not whole
        self._verifier: Verifier | None = None
        self._identifier = b""
        self._asked = 0
        self._records = 0
        self._first: Record | None = None
        """The SOA that a transfer begins and ends with."""
        self._builder: ZoneBuilder | None = None
        self._left_out = 0
        self._second = False
        self._removing = True
        self._parts: list[_Part] = []
        self.keepalive: float | None = None
        """Seconds for which the primary would keep an idle stream, if it has said so."""
        self.result: Result | None = None
        """Set when all has been said."""

    def start(self) -> bytes:
        """The first message to send."""
        return self._query(SOA)

    def _query(self, qtype: int) -> bytes:
        identifier = self._random.getrandbits(16).to_bytes(2, "big")
        self._identifier, self._asked = identifier, qtype
        with_soa = qtype == IXFR and self._serial is not None
        head = identifier + bytes((0, 0, 0, 1, 0, 0, 0, with_soa, 0, 0))
        message = head + self.name + qtype.to_bytes(2, "big") + IN.to_bytes(2, "big")
        if with_soa:
            # RFC 1995 §3: an SOA of which only the serial counts.
            assert self._serial is not None
            rdata = b"\0\0" + self._serial.to_bytes(4, "big") + bytes(16)
            fixed = SOA.to_bytes(2, "big") + IN.to_bytes(2, "big") + bytes(4)
            message += b"\xc0\x0c" + fixed + len(rdata).to_bytes(2, "big") + rdata
        if self._padded:
            message = private_query(message, record_length(self._key) if self._key else 0)
        if self._key is not None:
            message, mac = sign_query(message, self._key, self._wall())
            self._verifier = Verifier(self._key, mac)
        return message

    def received(self, message: bytes) -> bytes | None:
        """Take in one message; the next one to send, if any. WireError if nothing comes of it.

        SenselessError if that is so of differences, and all of the zone is to be asked for.
        """
        at, counts = sections(message)
        if message[:2] != self._identifier or not message[2] & QR or message[2] & 0x78:
            raise WireError("not an answer to what was asked")
        self._verify(message, counts[3])
        rcode = message[3] & 15
        if rcode != NOERROR or message[2] & TC:
            return self._refused(rcode)
        if counts[0] and name_at(message, HEADER_LEN)[0].lower() != self._lowered:
            raise WireError("the answer is about another name")
        if self._asked == SOA:
            if self._padded:
                self.keepalive = keepalive(message, at, sum(counts[1:]))
            return self._told(message, at, counts[1])
        for _ in range(counts[1]):
            record, at = record_at(message, at)
            try:
                if self.result is not None:
                    raise WireError("records behind the end of the transfer")
                self._take(record)
            except (LocalError, WireError) as error:
                raise (SenselessError if self._parts else WireError)(str(error)) from None
        if self.result is not None and self._verifier is not None and not self._verifier.settled:
            raise WireError("the end of the transfer is not signed")
        return None

    def _verify(self, message: bytes, additional: int) -> None:
        if self._verifier is None:
            return
        at = last_record(message) if additional else 0
        if at and message[names.skip(message, at) :][:2] != TSIG.to_bytes(2, "big"):
            at = 0
        self._verifier.check(message, at, self._wall())

    def _refused(self, rcode: int) -> bytes:
        said = RCODE_NAMES.get(rcode, str(rcode)).upper()
        if self._asked == IXFR and self._first is None:
            # RFC 1995 §4: not all servers know it.
            self._incremental = False
            return self._query(AXFR)
        raise WireError(f"the primary says {said}")

    def _told(self, message: bytes, at: int, count: int) -> bytes | None:
        """Compare the primary's serial with ours."""
        for _ in range(count):
            record, at = record_at(message, at)
            if record.rtype == SOA and record.owner.lower() == self._lowered:
                check_rdata(SOA, record.rdata)
                break
        else:
            raise WireError("the primary has no such zone")
        if not message[2] & AA:
            raise WireError("the primary is not authoritative for the zone")
        serial = serial_of(record.rdata)
        if self._serial is not None and not is_newer(serial, self._serial):
            self.result = UpToDate(serial)
            return None
        return self._query(IXFR if self._incremental else AXFR)

    def _take(self, record: WireRecord) -> None:
        """The next record of a transfer."""
        self._records += 1
        if self._records > MAX_RECORDS:
            raise WireError(f"more than {MAX_RECORDS} records")
        if record.rclass != IN:
            raise WireError("a record of another class")
        if is_meta(record.rtype):
            raise WireError(f"a record of type {record.rtype}, which no zone has")
        check_rdata(record.rtype, record.rdata)
        soa = record.rtype == SOA
        plain = (record.owner, record.rtype, record.ttl, record.rdata)
        if soa and record.owner.lower() != self._lowered:
            raise WireError("an SOA of another zone")
        if self._first is None:
            if not soa:
                raise WireError("a transfer begins with the SOA")
            self._first = plain
            serial = serial_of(record.rdata)
            newer = self._serial is None or is_newer(serial, self._serial)
            if self._asked == IXFR and not newer:
                self.result = UpToDate(serial)
            return
        if not self._second:
            self._second = True
            if self._asked == IXFR and soa and serial_of(record.rdata) == self._serial:
                self._parts.append(_Part(plain))
                return
            self._begin_whole()
        if self._builder is not None:
            self._whole(plain, soa)
        elif soa:
            self._turn(plain)
        else:
            part = self._parts[-1]
            (part.removed if self._removing else part.added).append(plain)

    def _begin_whole(self) -> None:
        assert self._first is not None
        self._builder = ZoneBuilder(self._first[0])
        self._builder.add(*self._first)

    def _whole(self, record: Record, soa: bool) -> None:
        assert self._builder is not None
        assert self._first is not None
        if soa:
            if serial_of(record[3]) != serial_of(self._first[3]):
                raise WireError("the zone changed while it was sent")
            self.result = Whole(self._builder, self._left_out)
        elif names.is_below(record[0].lower(), self._lowered):
            self._builder.add(*record)
        else:
            self._left_out += 1

    def _turn(self, soa: Record) -> None:
        """An SOA within differences: from what goes to what comes, or to the next version."""
        assert self._first is not None
        part = self._parts[-1]
        if self._removing:
            part.new = soa
            self._removing = False
            return
        assert part.new is not None
        if serial_of(soa[3]) != serial_of(part.new[3]):
            raise WireError("a difference does not begin where the one before ended")
        if serial_of(soa[3]) == serial_of(self._first[3]):
            self.result = tuple(
                Difference(one.old, one.new, tuple(one.removed), tuple(one.added))
                for one in self._parts
                if one.new is not None
            )
            return
        if len(self._parts) >= MAX_DIFFERENCES:
            raise WireError("too many versions at once")
        self._parts.append(_Part(soa))
        self._removing = True
