"""When a secondary asks whom (virtual time), and what a primary may send it."""

from __future__ import annotations

import asyncio
import errno
import itertools
import math
import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import dns.edns
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from appliance.dns import (
    Extensions,
    Key,
    Keys,
    LoadedZones,
    Transfers,
    Zone,
    copies,
    grant,
    incoming,
    load_zones,
    names,
)
from appliance.dns.authority import Authority, Options
from appliance.dns.conversation import TransferProtocol
from appliance.dns.copies import Copy
from appliance.dns.errors import LocalError, SenselessError, WireError
from appliance.dns.incoming import Incoming, UpToDate, Whole
from appliance.dns.members import make, read
from appliance.dns.secondary import FIRST_RETRY, JITTER, MAX_RETRY, Primary, Secondary
from appliance.dns.serial import difference, records, soa_record
from appliance.dns.service import Service
from appliance.dns.tsig import key
from appliance.dns.zone import ZoneBuilder
from tests.dns.util import Reply, question

ONE, TWO = Primary("192.0.2.1"), Primary("192.0.2.2")
NAME = b"\1x\4test\0"
KEY = key("xfr.", "hmac-sha256", b"0123456789abcdef")
PEER = ("192.0.2.9", 53)


def version(serial: int, times: str = "7200 1800 1209600", *lines: str) -> Zone:
    head = f"$ORIGIN x.test.\n$TTL 60\n@ SOA ns h {serial} {times} 300\n@ NS ns\nns A 192.0.2.1\n"
    return Zone.from_text(head + "".join(line + "\n" for line in lines))


def secondary(*primaries: Primary) -> Secondary:
    return Secondary(NAME, primaries or (ONE, TWO), random=Random(1))


def test_rfc1035_4_3_5_refresh_retry_expire() -> None:
    """The timers of the SOA, each pause a little shorter by chance."""
    one = secondary(ONE)
    assert one.due(0.0) == ONE
    assert one.due(0.0) is None  # one conversation at a time
    one.have(version(1), 0.0)
    assert one.due(8000.0) is None  # it is still being written to the disk
    one.finished(0.0)
    assert 7200 * (1 - JITTER) <= one.deadline() <= 7200
    now = one.deadline()
    assert one.due(now - 1) is None
    pauses = []
    for _ in range(6):
        assert one.due(now) == ONE
        one.failed(now, "no answer")
        one.finished(now)
        pauses.append(one.deadline() - now)
        now = one.deadline()
    wanted = [1800, 3600, 7200, 7200, 7200, 7200]
    for pause, most in zip(pauses, wanted, strict=True):
        assert most * (1 - JITTER) <= pause <= most
    assert one.due(now) == ONE
    one.confirmed(now)
    one.finished(now)
    assert 7200 * (1 - JITTER) <= one.deadline() - now <= 7200
    assert not one.expired(now + 1209599)
    assert one.expired(now + 1209600)
    assert not one.expired(now + 1209600)  # told once
    assert one.zone is None


def test_the_next_primary_is_asked_at_once() -> None:
    one = secondary(ONE, TWO)
    assert one.due(0.0) == ONE
    one.failed(0.0, "no answer")
    one.finished(0.0)
    assert one.due(0.0) == TWO
    one.failed(0.0, "no answer")
    one.finished(0.0)
    assert one.due(0.0) is None
    pause, now = one.deadline(), one.deadline()
    assert FIRST_RETRY * (1 - JITTER) <= pause <= FIRST_RETRY
    for _ in range(40):
        assert one.due(now) is not None
        one.failed(now, "no answer")
        one.finished(now)
        now = max(now, one.deadline())
    assert one.deadline() - now <= MAX_RETRY


def test_rfc1996_3_11_notify() -> None:
    """It brings the check forward, unless the serial is the one we have."""
    one = secondary(ONE, TWO)
    one.due(0.0)
    one.have(version(5), 0.0)
    one.finished(0.0)
    one.notified(10.0, TWO.address, 5)
    assert one.due(10.0) is None
    one.notified(10.0, TWO.address, 6)
    assert one.due(10.0) == TWO  # whoever told is asked first
    one.notified(11.0, ONE.address, 7)  # in the middle of the conversation
    assert one.due(11.0) is None
    one.have(version(6), 12.0)
    assert one.due(12.0) is None
    one.finished(12.0)
    assert one.due(12.0) == ONE


def test_an_soa_without_reason_is_bounded() -> None:
    one = secondary(ONE)
    one.have(version(1, "0 0 0"), 0.0)
    assert one.deadline() >= 4
    one.have(version(1, "2147483647 1 1"), 0.0)
    assert one.deadline() < 4 * 604800 + 1
    assert one.deadline() < math.inf


def test_rfc8467_4_1_queries_under_tls_are_padded() -> None:
    """Names and keys of any length: 128 octets, or a multiple, and the padding is of zeroes."""
    for key_of, name in itertools.product((None, KEY), (NAME, b"\x30" + b"a" * 48 + NAME)):
        for serial in (None, 7):
            asked = Incoming(
                name, serial, key=key_of, random=Random(3), wall=lambda: 5e8, padded=True
            )
            query = asked.start()
            assert len(query) % 128 == 0
            parsed = dns.message.from_wire(query, keyring=False)
            _, option = parsed.options
            assert option.otype == dns.edns.OptionType.PADDING
            assert not any(option.to_wire())
            assert (parsed.tsig is not None) == bool(key_of)
    plain = Incoming(NAME, None, random=Random(3), wall=lambda: 5e8).start()
    assert dns.message.from_wire(plain).edns == -1  # in the clear as ever


# What a primary sends.


class PrimaryServer:
    """Ours, at the other end of an `Incoming`."""

    def __init__(self, *versions: Zone, signed: bool = True) -> None:
        transfers = Transfers(default=[grant("192.0.2.0/24", "xfr." if signed else None)])
        for old, new in pairwise(versions):
            transfers.changed(difference(old, new))
        self.server = Authority(
            Options(extensions=Extensions(keys=Keys([KEY]), clock=lambda: 5e8),
                    transfers=transfers),
            random=Random(2),
        )  # fmt: skip
        self.server.begin(LoadedZones((versions[-1],), ()))

    def talk(self, have: Zone | None, secret: Key | None = KEY, mutate: object = None) -> Incoming:
        incoming = Incoming(
            NAME,
            have.serial if have is not None else None,
            key=secret,
            random=Random(3),
            wall=lambda: 5e8,
        )
        message: bytes | None = incoming.start()
        number = 0
        while message is not None and incoming.result is None:
            found = self.server.current.stream(message, peer=PEER)
            assert found is not None
            message = None
            for one in [found] if isinstance(found, bytes) else found:
                number += 1
                if callable(mutate):
                    one = mutate(number, one)
                message = incoming.received(one)
        return incoming


BIG = [f"h{n} A 10.0.{n // 250}.{n % 250}" for n in range(3000)]


def test_rfc5936_a_whole_zone_comes_in_many_messages() -> None:
    zone = version(9, "7200 1800 1209600", *BIG, "Mixed CNAME H1.Out.TEST.", "*.w MX 1 ns")
    result = PrimaryServer(zone).talk(None).result
    assert isinstance(result, Whole)
    got = result.builder.finish()
    assert set(records(got)) == set(records(zone))
    assert got.soa.rdatas == zone.soa.rdatas


def test_rfc1995_differences_come_if_there_are_some() -> None:
    one = version(1, "7200 1800 1209600", *BIG)
    two = version(2, "7200 1800 1209600", *BIG[1:], "new TXT a")
    three = version(3, "7200 1800 1209600", *BIG[2:], "new TXT b")
    primary = PrimaryServer(one, two, three)
    result = primary.talk(one).result
    assert isinstance(result, tuple)
    assert [(change.old_serial, change.new_serial) for change in result] == [(1, 2), (2, 3)]
    assert result == (difference(one, two), difference(two, three))
    assert isinstance(primary.talk(three).result, UpToDate)
    assert isinstance(primary.talk(version(5)).result, UpToDate)
    # A version that the primary has never heard of: it sends everything.
    strange = PrimaryServer(three).talk(one).result
    assert isinstance(strange, Whole)


def test_rfc8945_every_change_on_the_way_is_noticed() -> None:
    primary = PrimaryServer(version(9, "7200 1800 1209600", *BIG))
    for message in range(1, 6):
        for at in (30, -30, -100):

            def mutate(number: int, data: bytes, message: int = message, at: int = at) -> bytes:
                if number != message:
                    return data
                return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :] if at > 0 else (
                    data[:at] + bytes((data[at] ^ 1,)) + data[len(data) + at + 1 :]
                )  # fmt: skip

            with pytest.raises(WireError):
                primary.talk(None, mutate=mutate)
    other = key("xfr.", "hmac-sha256", b"another secret!!")
    with pytest.raises(WireError):
        primary.talk(None, other)
    with pytest.raises(WireError, match="REFUSED"):
        primary.talk(None, None)


@pytest.mark.parametrize("rtype", [0, 41, 128, 249, 250, 252, 255])
def test_rfc6895_3_1_types_that_no_zone_has_are_not_taken(rtype: int) -> None:
    """They would be answered, and the copy on the disk could not be read again."""
    primary = PrimaryServer(version(9, "60 60 600", "x TYPE65281 \\# 1 00"), signed=False)
    wire = (65281).to_bytes(2, "big") + b"\0\1"

    def mutate(_number: int, message: bytes) -> bytes:
        return message.replace(wire, rtype.to_bytes(2, "big") + b"\0\1")

    with pytest.raises(WireError):
        primary.talk(None, None, mutate)


def test_any_octets_raise_nothing_but_wire_errors() -> None:
    primary = PrimaryServer(version(9, "7200 1800 1209600", *BIG[:50]), signed=False)
    random = Random(4)
    finished = 0
    for _ in range(500):

        def mutate(number: int, data: bytes) -> bytes:
            changed = bytearray(data)
            for _ in range(random.randrange(3)):
                changed[random.randrange(2, len(changed))] = random.randrange(256)
            return bytes(changed[: random.choice((len(changed), random.randrange(len(changed))))])

        try:
            finished += primary.talk(None, None, mutate).result is not None
        except WireError:
            continue
    assert 0 < finished < 500


# Catalog zones.


def test_rfc9432_members_come_back() -> None:
    origins = [names.from_text(f"z{n}.example.") for n in range(50)]
    catalog = make(names.from_text("catalog.example."), origins, 7)
    found = read(catalog)
    assert set(found) == set(origins)
    assert len(set(found.values())) == 50
    assert {member.heir for member in found.values()} == {None}
    again = read(make(names.from_text("catalog.example."), origins[:10], 8))
    assert all(found[origin] == label for origin, label in again.items())


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ('version TXT "1"\n', "version 2"),
        ("", "version 2"),
        ('version TXT "2"\na.zones PTR x.\na.zones PTR y.\n', "not one PTR"),
        ('version TXT "2"\na.zones PTR x.\nb.zones PTR X.\n', "twice"),
    ],
)
def test_rfc9432_5_1_a_broken_catalog_is_not_processed(lines: str, why: str) -> None:
    zone = Zone.from_text(
        f"$ORIGIN cat.\n$TTL 0\n@ SOA invalid. invalid. 1 60 60 600 0\n@ NS invalid.\n{lines}"
    )
    with pytest.raises(LocalError, match=why):
        read(zone)


def test_rfc9432_what_is_listed_is_followed() -> None:
    catalog = names.from_text("cat.")
    a, b = names.from_text("a.test."), names.from_text("b.test.")
    server = Authority(Options(catalogs={catalog: (ONE,)}), random=Random(1))
    server.begin(LoadedZones((), ()))

    def serve(*members: bytes) -> None:
        server.take_over(server.secondaries[catalog], make(catalog, members, 1), (), None)

    def rcode(name: str) -> str:
        return Reply(server.current.answer(question(name))).rcode

    assert rcode("a.test.") == "REFUSED"
    serve(a, b)
    assert set(server.secondaries) == {catalog, a, b}
    assert rcode("www.a.test.") == rcode("b.test.") == "SERVFAIL"  # ours, and not here yet
    zone = Zone.from_text("$ORIGIN a.test.\n$TTL 1\n@ SOA ns h 1 60 60 600 1\n@ NS ns\n")
    server.take_over(server.secondaries[a], zone, (), None)
    assert rcode("a.test.") == "NOERROR"
    serve(a)
    assert rcode("b.test.") == "REFUSED"
    assert rcode("a.test.") == "NOERROR"
    broken = Zone.from_text("$ORIGIN cat.\n$TTL 0\n@ SOA a. b. 9 60 60 600 0\n@ NS a.\n")
    server.take_over(server.secondaries[catalog], broken, (), None)
    assert rcode("a.test.") == "NOERROR"


def listing(origin: str, *lines: str) -> Zone:
    """A catalog zone as another primary may write it."""
    head = '@ SOA invalid. invalid. 1 60 60 600 0\n@ NS invalid.\nversion TXT "2"\n'
    return Zone.from_text(f"$ORIGIN {origin}\n$TTL 0\n{head}" + "".join(f"{x}\n" for x in lines))


class Follower:
    """A server that follows two catalogs, from a primary each."""

    def __init__(self) -> None:
        self.origins = (names.from_text("one."), names.from_text("two."))
        self.primaries = ((ONE,), (TWO,))
        catalogs = dict(zip(self.origins, self.primaries, strict=True))
        self.server = Authority(Options(catalogs=catalogs), random=Random(1))
        self.server.begin(LoadedZones((), ()))
        self.gone: list[bytes] = []
        self.server.forgotten = self.gone.append

    def take(self, origin: str, *lines: str) -> None:
        zone = listing(origin, *lines)
        self.server.take_over(self.server.secondaries[zone.origin], zone, (), None)

    def bring(self) -> None:
        zone = Zone.from_text("$ORIGIN a.test.\n$TTL 1\n@ SOA ns h 1 60 60 600 1\n@ NS ns\n")
        self.server.take_over(self.server.secondaries[zone.origin], zone, (), None)

    def state(self) -> tuple[str, tuple[Primary, ...]]:
        rcode = Reply(self.server.current.answer(question("a.test."))).rcode
        return rcode, self.server.secondaries[names.from_text("a.test.")].primaries


def test_rfc9432_5_4_another_label_means_another_zone() -> None:
    follower = Follower()
    follower.take("one.", "x.zones PTR a.test.")
    follower.bring()
    follower.take("one.", "x.zones PTR A.test.", 'group.x.zones TXT "any"')
    assert (follower.state(), follower.gone) == (("NOERROR", (ONE,)), [])
    follower.take("one.", "y.zones PTR a.test.")
    assert follower.state() == ("SERVFAIL", (ONE,))
    assert follower.gone == [names.from_text("a.test.")]


@pytest.mark.parametrize("heir_first", [False, True])
@pytest.mark.parametrize(("label", "rcode"), [("x", "NOERROR"), ("y", "SERVFAIL")])
def test_rfc9432_5_5_a_zone_goes_to_the_catalog_that_may_have_it(
    label: str, rcode: str, heir_first: bool
) -> None:
    """RFC 9432 §4.3.1, §5.5: with its state if the label is the same; in either order."""
    follower = Follower()
    follower.take("one.", "x.zones PTR a.test.")
    follower.bring()
    follower.take("two.", f"{label}.zones PTR a.test.")
    assert follower.state() == ("NOERROR", (ONE,))  # §5.2: a clash, and the first keeps it
    follower.take("one.", "x.zones PTR a.test.", "coo.x.zones PTR TWO.")
    if not heir_first:
        follower.take("two.", f"{label}.zones PTR a.test.")
    assert follower.state() == (rcode, (TWO,))
    follower.take("one.")
    assert follower.state() == (rcode, (TWO,))


def test_rfc9432_4_3_1_only_the_heir_that_is_named() -> None:
    follower = Follower()
    for lines in (
        ("coo.x.zones PTR three.",),
        ("coo.x.zones PTR two.", "coo.x.zones PTR three."),
        ("coo.x.zones TXT two.",),
    ):
        follower.take("one.", "x.zones PTR a.test.", *lines)
        follower.take("two.", "x.zones PTR a.test.")
        assert follower.state()[1] == (ONE,)


def test_a_zone_that_nobody_follows_any_more_is_not_taken_over() -> None:
    follower = Follower()
    follower.take("one.", "x.zones PTR a.test.")
    late = follower.server.secondaries[names.from_text("a.test.")]
    follower.take("one.")
    zone = Zone.from_text("$ORIGIN a.test.\n$TTL 1\n@ SOA ns h 1 60 60 600 1\n@ NS ns\n")
    assert not follower.server.take_over(late, zone, (), None)
    assert Reply(follower.server.current.answer(question("a.test."))).rcode == "REFUSED"


def test_what_happens_while_a_file_is_read_or_written_counts(tmp_path: Path) -> None:
    """A newer version came; a catalog lists a member no more (RFC 9432 §5.6)."""
    server = Authority(Options(secondaries={NAME: (ONE,)}, state=tmp_path), random=Random(1))
    server.begin(LoadedZones((), ()))
    service = Service(server, random=Random(1))
    follower = server.secondaries[NAME]

    async def run() -> None:
        await service._save(follower, version(1))
        reading = asyncio.ensure_future(service._load(follower))
        await asyncio.sleep(0)
        server.take_over(follower, version(2), (), None)
        await reading
        assert server.current.zones.by_origin[NAME].serial == 2
        writing = asyncio.ensure_future(service._save(follower, version(2)))
        await asyncio.sleep(0)
        del server.secondaries[NAME]
        service._forgotten(NAME)
        await writing
        assert list((tmp_path / "secondary").iterdir()) == []

    asyncio.run(run())


class Slow:
    """A disk that a thread waits for, until it is let go on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.writes = 0
        self.go_on = threading.Event()
        write = copies.write_whole

        def slow(path: Path, text: bytes) -> None:
            self.writes += 1
            assert self.go_on.wait(20)
            write(path, text)

        patch.setattr(copies, "write_whole", slow)

    async def begun(self, writes: int = 1) -> None:
        while self.writes < writes:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def kept(folder: Path) -> int | None:
    """The serial that a process finds which begins now."""
    found = Copy(folder / "secondary", NAME).load()
    return None if found is None else found.zone.serial


def test_rfc9432_5_6_a_zone_that_comes_back_while_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written late is of the zone that is gone, and takes nothing from the new one."""
    server = Authority(Options(secondaries={NAME: (ONE,)}, state=tmp_path), random=Random(1))
    server.begin(LoadedZones((), ()))
    service = Service(server, random=Random(1))
    disk = Slow(monkeypatch)

    async def run() -> None:
        old = asyncio.ensure_future(service._save(server.secondaries[NAME], version(7)))
        await disk.begun()
        service._forgotten(NAME)
        new = server.secondaries[NAME] = secondary()
        both = [old, asyncio.ensure_future(service._save(new, version(1)))]
        later = version(2)
        both.append(asyncio.ensure_future(
            service._save(new, later, (difference(version(1), later),))
        ))  # fmt: skip
        await asyncio.sleep(0.01)
        disk.go_on.set()
        await asyncio.gather(*both)
        assert kept(tmp_path) == 2

    asyncio.run(asyncio.wait_for(run(), 20))


class Scripted(Service):
    """A service whose primaries have the next of some versions, whole."""

    versions: Iterator[Zone] = iter(())
    talks = 0

    async def _converse(self, secondary: Secondary, primary: Primary, before: object) -> Incoming:
        self.talks += 1
        incoming = Incoming(NAME, None, random=Random(1), wall=lambda: 5e8)
        zone = next(self.versions, None)
        if zone is None:
            incoming.result = UpToDate(0)
            return incoming
        builder = ZoneBuilder(zone.origin)
        builder.add(*soa_record(zone))
        for record in records(zone):
            builder.add(*record)
        incoming.result = Whole(builder, 0)
        return incoming


def test_one_version_after_another_goes_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """News come while a version is being written; the next waits for it."""
    server = Authority(Options(secondaries={NAME: (ONE,)}, state=tmp_path), random=Random(1))
    server.begin(LoadedZones((), ()))
    service = Scripted(server, random=Random(1))
    service.versions = iter((version(1), version(2)))
    follower = server.secondaries[NAME]
    disk = Slow(monkeypatch)

    async def run() -> None:
        await service.begin()
        await disk.begun()
        for _ in range(3):
            follower.notified(server.clock(), ONE.address, None)
            server.stir(follower)
            await asyncio.sleep(0.005)
        assert (service.talks, disk.writes) == (1, 1)
        disk.go_on.set()
        await disk.begun(2)
        while follower.busy:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert service.talks == 2
        assert kept(tmp_path) == 2
        await service.end()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_disk_that_was_full_gets_the_zone_when_it_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once; and what is older on the disk is not taken for confirmed."""
    said: list[str] = []
    server = Authority(
        Options(secondaries={NAME: (ONE,)}, state=tmp_path), random=Random(1), say=said.append
    )
    server.begin(LoadedZones((), ()))
    service = Scripted(server, random=Random(1))
    follower = server.secondaries[NAME]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def talk() -> None:
        follower.busy = True
        service._talking += 1
        await service._talk(follower, ONE)

    async def run() -> None:
        service.versions = iter((version(1), version(2)))
        await talk()
        path = tmp_path / "secondary" / "x.test.zone"
        os.utime(path, (1e9, 1e9))
        with monkeypatch.context() as patch:
            patch.setattr(copies, "write_whole", full)
            await talk()
            await talk()
        assert said == ["error: x.test was not kept on the disk: No space left on device"]
        assert path.stat().st_mtime == 1e9
        assert kept(tmp_path) == 1
        await talk()
        assert kept(tmp_path) == 2
        os.utime(path, (1e9, 1e9))
        await talk()
        assert path.stat().st_mtime > 1e9
        await service.end()

    asyncio.run(asyncio.wait_for(run(), 20))


def begun(folder: Path, *, now: float, catalogs: tuple[bytes, ...] = ()) -> Scripted:
    """A service that has yet to begin, at a time of day."""
    of = dict.fromkeys(catalogs, (ONE,)) or {}
    server = Authority(
        Options(secondaries={} if catalogs else {NAME: (ONE,)}, catalogs=of, state=folder),
        random=Random(1),
        wall=lambda: now,
    )
    server.begin(LoadedZones((), ()))
    return Scripted(server, random=Random(1))


@pytest.mark.parametrize(("age", "rcode"), [(590, "NOERROR"), (610, "SERVFAIL")])
def test_rfc1035_4_3_5_what_expired_on_the_disk_is_not_served(
    tmp_path: Path, age: int, rcode: str
) -> None:
    """Not for a moment; a primary is asked at once."""
    copy = Copy(tmp_path / "secondary", NAME)
    copy.save(version(1, "200 300 600"))
    os.utime(tmp_path / "secondary" / "x.test.zone", (1e9, 1e9))
    service = begun(tmp_path, now=1e9 + age)
    follower = service.authority.secondaries[NAME]

    async def run() -> None:
        await service._load(follower)
        assert Reply(service.authority.current.answer(question("x.test."))).rcode == rcode
        assert (follower.zone is None) == (rcode == "SERVFAIL")
        assert follower.due(service.authority.clock()) == ONE

    asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize("text", ["", "?\n", None])
def test_what_the_disk_cannot_give_is_said_once(tmp_path: Path, text: str | None) -> None:
    """A copy that is none, or that has expired."""
    Copy(tmp_path / "secondary", NAME).save(version(1, "200 300 600"))
    path = tmp_path / "secondary" / "x.test.zone"
    if text is not None:
        path.write_text(text)
    os.utime(path, (1e9, 1e9))
    service = begun(tmp_path, now=1e9 + (0 if text is not None else 1e6))
    said: list[str] = []
    service.authority.say = said.append

    async def run() -> None:
        await service.begin()
        await service.end()

    asyncio.run(asyncio.wait_for(run(), 20))
    (line,) = said
    assert "has expired: it was on the disk for too long" in line or "cannot be used" in line


def test_after_a_restart_primaries_are_asked_at_once(tmp_path: Path) -> None:
    """What changed meanwhile was told to nobody; a crash may have taken the last version."""
    Copy(tmp_path / "secondary", NAME).save(version(1))
    service = begun(tmp_path, now=time.time())

    async def run() -> None:
        service.versions = iter((version(2),))
        await service.begin()
        follower = service.authority.secondaries[NAME]
        while follower.busy:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert follower.zone is not None
        assert follower.zone.serial == 2
        await service.end()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_nothing_is_asked_for_while_the_disk_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A catalog brings members, of which the disk has copies too."""
    catalog = names.from_text("cat.")
    Copy(tmp_path / "secondary", catalog).save(make(catalog, [NAME], 1))
    Copy(tmp_path / "secondary", NAME).save(version(1))
    service = begun(tmp_path, now=time.time(), catalogs=(catalog,))
    load = Copy.load
    talks = []

    def slow(copy: Copy) -> object:
        time.sleep(0.02)
        talks.append(service.talks)
        return load(copy)

    monkeypatch.setattr(Copy, "load", slow)

    async def run() -> None:
        await service.begin()
        assert talks == [0, 0]
        assert service.authority.secondaries[NAME].zone is not None
        await service.end()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_rfc1995_many_versions_leave_the_rest_rendered_and_are_all_handed_on(
    tmp_path: Path,
) -> None:
    """A large zone is copied once for all of them, and not rendered anew for a few records."""
    hosts = [f"h{n} A 10.0.{n >> 8}.{n & 255}" for n in range(1100)]
    versions = [version(1, "60 60 600", *hosts)]
    for serial in range(2, 5):
        hosts[serial] = f"h{serial} A 192.0.2.{serial}"
        versions.append(version(serial, "60 60 600", *hosts))
    changes = tuple(difference(*pair) for pair in pairwise(versions))
    service = begun(tmp_path, now=1e9)
    server = service.authority
    follower = server.secondaries[NAME]
    server.take_over(follower, versions[0], (), server.current.render_zone(versions[0]))

    async def run() -> None:
        await service._differences(follower, versions[0], changes)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert follower.zone is server.current.zones.by_origin[NAME]
    before = server.counters.slow
    for n in (2, 3, 4, 900):
        (answer,) = Reply(server.current.answer(question(f"h{n}.x.test."))).answer
        assert answer.endswith(f"192.0.2.{n}" if n < 5 else "10.0.3.132")
    assert server.counters.slow == before
    history = server.options.transfers.histories[NAME]
    assert history.since(1, 4) == list(changes)
    found = Copy(tmp_path / "secondary", NAME).load()
    assert found is not None
    assert found.zone.serial == 4


def spoilt(kind: str) -> object:
    """Has an answer of differences make no sense from its first message on."""

    def mutate(number: int, message: bytes) -> bytes:
        if number == 1:
            return message  # of the SOA
        parsed = dns.message.from_wire(message, one_rr_per_rrset=True)
        places = [n for n, one in enumerate(parsed.answer) if one.rdtype == dns.rdatatype.SOA]
        soa = parsed.answer[places[3]]
        if kind == "gap":
            other = dns.rrset.from_rdata(soa.name, soa.ttl, soa[0].replace(serial=77))
            parsed.answer[places[3]] = other
        else:
            parsed.answer.append(soa)
        return parsed.to_wire(max_size=65535)

    return mutate


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [("gap", "does not begin where"), ("behind", "records behind"), ("many", "too many versions")],
)
def test_rfc1995_4_differences_without_sense_are_told_from_a_bad_primary(
    monkeypatch: pytest.MonkeyPatch, kind: str, complaint: str
) -> None:
    versions = [version(serial, "60 60 600", f"new A 192.0.2.{serial}") for serial in range(1, 5)]
    primary = PrimaryServer(*versions, signed=False)
    mutate = None if kind == "many" else spoilt(kind)
    if kind == "many":
        monkeypatch.setattr(incoming, "MAX_DIFFERENCES", 2)
    with pytest.raises(SenselessError, match=complaint):
        primary.talk(versions[0], None, mutate)
    assert isinstance(primary.talk(None, None).result, Whole)


class Senseless(Scripted):
    """A service whose primary's differences never make sense."""

    async def _converse(self, secondary: Secondary, primary: Primary, before: object) -> Incoming:
        if before is not None:
            self.talks += 1
            raise SenselessError("too many versions at once")
        return await super()._converse(secondary, primary, before)


def test_rfc1995_4_where_differences_make_no_sense_the_whole_zone_is_taken() -> None:
    """Else it would be as old as its expire time allows: the next ones make as little sense."""
    said: list[str] = []
    server = Authority(Options(secondaries={NAME: (ONE,)}), random=Random(1), say=said.append)
    server.begin(LoadedZones((), ()))
    service = Senseless(server, random=Random(1))
    service.versions = iter((version(7),))
    follower = server.secondaries[NAME]
    server.take_over(follower, version(1), (), None)

    async def run() -> None:
        follower.busy = True
        await service._talk(follower, ONE)
        await service.end()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert service.talks == 2
    assert follower.zone is not None
    assert follower.zone.serial == 7
    assert said == ["warning: IXFR from 192.0.2.1 makes no sense: too many versions at once"]


def test_why_a_conversation_failed_is_passed_on() -> None:
    class Asked:
        def start(self) -> bytes:
            return b"?"

        def received(self, message: bytes) -> None:
            raise SenselessError("no sense")

    async def run() -> None:
        protocol = TransferProtocol()
        protocol.connection_made(asyncio.Transport())
        protocol._send = lambda message: None  # type: ignore[method-assign]
        done = protocol.begin(Asked())  # type: ignore[arg-type]
        protocol.data_received(b"\0\1?")
        with pytest.raises(SenselessError, match="no sense"):
            await done

    asyncio.run(run())


def test_a_zone_whose_file_is_gone_comes_from_its_primary(tmp_path: Path) -> None:
    """As the settings say it, or a catalog; until then the file counted."""
    catalog = b"\3cat\0"
    for name, text in (("x.test", ""), ("a.test", ""), ("mine.test", "")):
        head = "$TTL 60\n@ SOA ns h 1 60 60 600 1\n@ NS ns\nns A 192.0.2.1\n"
        (tmp_path / f"{name}.zone").write_text(head + text)
    said: list[str] = []
    server = Authority(
        Options(secondaries={NAME: (ONE,)}, catalogs={catalog: (TWO,)}),
        random=Random(1),
        say=said.append,
    )
    server.begin(load_zones(tmp_path))
    member = names.from_text("a.test.")
    server.take_over(server.secondaries[catalog], make(catalog, [member], 1), (), None)
    assert list(server.secondaries) == [catalog]
    stirred: list[bool] = []
    server.stirred = lambda: stirred.append(True)
    for path in tmp_path.iterdir():
        path.unlink()
    loaded = load_zones(tmp_path)
    server.install(server.plan(loaded, [kept.zone for kept in server.kept.values()]), loaded)
    assert set(server.secondaries) == {catalog, NAME, member}
    assert server.secondaries[member].primaries == (TWO,)
    assert set(server.agenda.due(server.clock())) >= {
        server.secondaries[NAME],
        server.secondaries[member],
    }
    assert stirred
    assert "x.test. has no file any more; it comes from its primary" in said
    codes = [Reply(server.current.answer(question(f"{one}.test."))).rcode for one in ("x", "mine")]
    assert codes == ["SERVFAIL", "REFUSED"]
