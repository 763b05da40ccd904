"""Zones to secondaries: AXFR (RFC 5936) and IXFR (RFC 1995), and who may have them.

A transfer is a row of messages over a stream. They are made one by one when the stream asks, so
that a large zone neither waits in memory nor keeps others waiting. Names keep the case that the
zone's owner wrote, since a secondary will serve them. Of the changes between versions a bounded
history is kept (`History`); a secondary that is further behind gets the whole zone.

The TSIG of a transfer covers each of its messages. No I/O, no clock. Imports the leaves.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from appliance.dns import names
from appliance.dns.consts import HEADER_LEN
from appliance.dns.errors import LocalError
from appliance.dns.prepared import AA, HEAD, QR, RD
from appliance.dns.render import Renderer
from appliance.dns.serial import Difference, Record, is_newer, records, serial_of, soa_record
from appliance.dns.tsig import Signer
from appliance.dns.zone import Zone

MESSAGE: Final = 16_000
"""Octets of a transfer's message, a little under what compression pointers reach (RFC 1035 §4.1.4):
larger ones would compress worse."""
HISTORY_RECORDS: Final = 100_000
"""Records of one zone's history: more than that is quicker sent as the whole of most zones."""
HISTORY_VERSIONS: Final = 1000
"""Versions of one zone's history."""
CONCURRENT: Final = 20
"""Transfers at once: each holds a version of its zone in memory until it ends."""


class Grant(NamedTuple):
    """Whom a zone is given to: clients in a network, and with a key if one is named."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    key: bytes | None
    """The key's name in lower-cased wire form."""
    tls: bool = False
    """Under TLS only (RFC 9103 §11)."""


def grant(network: str, key: str | None = None, *, tls: bool = False) -> Grant:
    """A grant from text like "192.0.2.0/24" and "transfer.example."; LocalError if it is none."""
    try:
        parsed = ipaddress.ip_network(network)
    except ValueError as error:
        raise LocalError(str(error)) from None
    return Grant(parsed, None if key is None else names.from_text(key, names.ROOT).lower(), tls)


class History:
    """The latest differences of one zone, oldest first; each begins where the one before ended."""

    __slots__ = ("_records", "differences")

    def __init__(self) -> None:
        """Empty."""
        self.differences: deque[Difference] = deque()
        self._records = 0

    def add(self, change: Difference) -> None:
        """Remember a difference; what no longer fits, or does not lead to it, is forgotten."""
        kept = self.differences
        if kept and kept[-1].new_serial != change.old_serial:
            kept.clear()
            self._records = 0
        kept.append(change)
        self._records += len(change.removed) + len(change.added)
        while kept and (self._records > HISTORY_RECORDS or len(kept) > HISTORY_VERSIONS):
            gone = kept.popleft()
            self._records -= len(gone.removed) + len(gone.added)

    def since(self, serial: int, current: int) -> list[Difference] | None:
        """The differences from `serial` to `current`; None if they are not all here."""
        found: list[Difference] = []
        for change in self.differences:
            if found or change.old_serial == serial:
                found.append(change)
        return found if found and found[-1].new_serial == current else None


class Grants:
    """Who may do something with which zone."""

    __slots__ = ("_default", "_grants")

    def __init__(
        self,
        grants: Mapping[str, Iterable[Grant]] | None = None,
        default: Iterable[Grant] = (),
    ) -> None:
        """`grants` by zone name; `default` for zones that are not named. LocalError for no name."""
        self._grants = {
            names.from_text(zone, names.ROOT).lower(): tuple(some)
            for zone, some in (grants or {}).items()
        }
        self._default = tuple(default)

    def __bool__(self) -> bool:
        """True if anybody may."""
        return bool(self._default) or any(self._grants.values())

    def allows(self, zone: bytes, address: str, key: bytes | None, *, tls: bool = False) -> bool:
        """True if a client at `address`, with a verified key or None and under TLS or not, may."""
        try:
            client = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(
            client in one.network and (one.key is None or one.key == key) and (tls or not one.tls)
            for one in self._grants.get(zone, self._default)
        )


class Transfers(Grants):
    """Who may have which zone, and the zones' histories; outlives the catalogs."""

    __slots__ = ("active", "histories")

    def __init__(
        self,
        grants: Mapping[str, Iterable[Grant]] | None = None,
        default: Iterable[Grant] = (),
    ) -> None:
        """`grants` by zone name; `default` for zones that are not named. LocalError for no name."""
        super().__init__(grants, default)
        self.histories: dict[bytes, History] = {}
        """By origin."""
        self.active = 0
        """Transfers under way."""

    def __bool__(self) -> bool:
        """Always: it has the histories, whoever may have the zones."""
        return True

    def changed(self, change: Difference) -> None:
        """Remember what led to a zone's new version."""
        self.histories.setdefault(change.new[0].lower(), History()).add(change)

    def answer(self, zone: Zone, serial: int | None) -> Iterator[Record]:
        """The records of an answer: to AXFR if `serial` is None, to IXFR from a client's serial."""
        if serial is None:
            return _whole(zone)
        if not is_newer(zone.serial, serial):
            # RFC 1995 §2: the client is up to date, or ahead: the SOA alone.
            return iter([soa_record(zone)])
        history = self.histories.get(zone.origin)
        changes = history.since(serial, zone.serial) if history is not None else None
        return _whole(zone) if changes is None else _changes(zone, changes)

    def messages(
        self,
        query: bytes,
        end: int,
        rows: Iterator[Record],
        opt: Callable[[int], bytes],
        signer: Signer | None,
        now: Callable[[], float],
    ) -> Iterator[bytes]:
        """Answers to a query whose question ends at `end`, each with a signature if there is one.

        `opt` gives the OPT record of a message that has so many octets without it, b"" for none.
        Counted as active from the first message until the last, or until the iterator is closed.
        """
        self.active += 1
        try:
            for message in _messages(query, end, rows, opt):
                yield message if signer is None else signer.sign(message, now())
        finally:
            self.active -= 1


def _whole(zone: Zone) -> Iterator[Record]:
    # RFC 5936 §2.2: the SOA first and last, everything else between in any order.
    yield soa_record(zone)
    yield from records(zone)
    yield soa_record(zone)


def _changes(zone: Zone, changes: list[Difference]) -> Iterator[Record]:
    # RFC 1995 §4: for each version the old SOA, what goes, the new SOA, what comes.
    yield soa_record(zone)
    for change in changes:
        yield change.old
        yield from change.removed
        yield change.new
        yield from change.added
    yield soa_record(zone)


def _messages(
    query: bytes, end: int, rows: Iterator[Record], opt: Callable[[int], bytes]
) -> Iterator[bytes]:
    question = query[HEADER_LEN:end]
    edns = bool(opt(0))
    name = question[:-4]
    flags = QR | AA | query[2] & RD
    writer, count = _writer(name, end), 0
    for row in rows:
        before = len(writer.octets)
        writer.record(*row)
        if count and (end + len(writer.octets) > MESSAGE or count == 0xFFFF):
            head = query[:2] + HEAD(flags, 0, 1, count, 0, edns)
            yield head + question + bytes(writer.octets[:before]) + opt(end + before)
            writer, count = _writer(name, end), 0
            writer.record(*row)
        count += 1
    head = query[:2] + HEAD(flags, 0, 1, count, 0, edns)
    yield head + question + bytes(writer.octets) + opt(end + len(writer.octets))


def _writer(name: bytes, end: int) -> Renderer:
    writer = Renderer({}, end)
    writer.seed(name, HEADER_LEN)
    return writer


def client_serial(query: bytes, authority_at: int) -> int | None:
    """The serial in an IXFR query's authority section (RFC 1995 §3); None if there is no SOA."""
    if not authority_at:
        return None
    at = names.skip(query, authority_at)
    length = int.from_bytes(query[at + 8 : at + 10], "big")
    rdata = query[at + 10 : at + 10 + length]
    return serial_of(rdata) if len(rdata) >= 22 else None
