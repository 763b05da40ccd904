"""What a secondary keeps on the disk: a whole version, and the differences since."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import pytest

from appliance import files
from appliance.dns import Zone, names
from appliance.dns.consts import NS, SOA, TXT
from appliance.dns.copies import Copy
from appliance.dns.edit import apply
from appliance.dns.journal import MAGIC, Entry, Journal, Mark
from appliance.dns.serial import (
    Difference,
    difference,
    records,
    soa_record,
    with_serial,
)
from appliance.dns.zone import ZoneBuilder

NAME = b"\1x\4test\0"


def version(serial: int, *lines: str) -> Zone:
    head = f"$ORIGIN x.test.\n$TTL 60\n@ SOA ns h {serial} 60 60 600 1\n@ NS ns\nns A 192.0.2.1\n"
    return Zone.from_text(head + "".join(line + "\n" for line in lines))


def content(zone: Zone) -> set[object]:
    """All records; the case of an owner is that of whoever named it first."""
    return {(owner.lower(), *rest) for owner, *rest in records(zone)}


class Disk:
    """A folder with one copy, and what it is to hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copy = Copy(folder, NAME)
        self.zone = version(1, *(f"h{n} A 10.0.0.{n}" for n in range(200)))
        self.copy.save(self.zone)

    @property
    def file(self) -> bytes:
        return (self.folder / "x.test.zone").read_bytes()

    def step(self, *lines: str) -> Difference:
        """One version on, kept."""
        following = version(self.zone.serial + 1, *lines)
        change = difference(self.zone, following)
        self.zone = following
        self.copy.save(following, (change,))
        return change

    def check(self) -> tuple[Difference, ...]:
        """A later process finds that version; what led to it."""
        found = Copy(self.folder, NAME).load()
        assert found is not None
        assert content(found.zone) == content(self.zone)
        return found.changes


def test_a_difference_costs_its_own_length(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    before = disk.file
    disk.check()
    changes = tuple(disk.step(f"new A 192.0.2.{n}", "Mixed.Case TXT a") for n in range(3))
    assert disk.file == before
    assert disk.check() == changes


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    first = disk.step("one A 192.0.2.2")
    disk.copy = Copy(tmp_path, NAME)
    assert disk.copy.load() is not None
    before = disk.file
    second = disk.step("two A 192.0.2.3")
    assert disk.file == before
    assert disk.check() == (first, second)


def test_many_differences_are_worth_a_whole_file(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    before = disk.file
    text = " ".join(f'"{"x" * 250}"' for _ in range(40))
    for n in range(40):
        disk.step(f"t{n} TXT {text}")
    assert disk.file != before
    assert (tmp_path / "x.test.journal").stat().st_size < 400_000
    history = disk.check()
    assert history[-1].new_serial == disk.zone.serial


def test_more_than_a_journal_keeps_is_not_written_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One IXFR may have millions of records, which would be read again only to be left out."""
    disk = Disk(tmp_path)
    written: list[object] = []
    append = Journal.append

    def counted(to: Journal, entry: Entry) -> None:
        written.append(type(entry))
        append(to, entry)

    monkeypatch.setattr(Journal, "append", counted)
    disk.step(*(f"n{n} A 10.1.{n >> 8}.{n & 255}" for n in range(9000)))
    assert written == [Mark]
    assert disk.check() == ()
    disk.step(*(f"n{n} A 10.1.{n >> 8}.{n & 255}" for n in range(1, 9000)))
    assert written == [Mark, Difference]
    assert len(disk.check()) == 1


def test_a_version_out_of_nowhere_is_written_whole(tmp_path: Path) -> None:
    """By AXFR, or after a version that the disk did not take."""
    disk = Disk(tmp_path)
    disk.step("one A 192.0.2.2")
    disk.zone = version(9, "nine A 192.0.2.9")
    disk.copy.save(disk.zone)
    assert disk.check() == ()
    later = version(12)
    disk.zone = later
    disk.copy.save(later, (difference(version(11), later),))
    assert disk.check() == ()


def test_a_torn_journal_is_an_older_version(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    first = disk.step("one A 192.0.2.2")
    zone = disk.zone
    disk.step("two A 192.0.2.3")
    journal = tmp_path / "x.test.journal"
    os.truncate(journal, journal.stat().st_size - 1)
    disk.zone = zone
    assert disk.check() == (first,)


@pytest.mark.parametrize("garbage", [b"", b"?" * 100, MAGIC + b"?" * 100])
def test_a_journal_that_is_none_leaves_the_file(tmp_path: Path, garbage: bytes) -> None:
    disk = Disk(tmp_path)
    zone = disk.zone
    disk.step("one A 192.0.2.2")
    (tmp_path / "x.test.journal").write_bytes(garbage)
    disk.zone = zone
    assert disk.check() == ()
    assert disk.check() == ()


def test_a_file_that_somebody_has_edited_counts_alone(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.step("one A 192.0.2.2")
    path = tmp_path / "x.test.zone"
    path.write_text(path.read_text() + "more.x.test. 60 IN A 192.0.2.77\n")
    found = Copy(tmp_path, NAME).load()
    assert found is not None
    assert found.changes == ()
    assert b"\4more\1x\4test\0" in found.zone.nodes
    assert b"\3one\1x\4test\0" not in found.zone.nodes


def test_what_the_disk_refuses_is_kept_whole_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    pwrite = os.pwrite

    def full(descriptor: int, data: bytes, at: int) -> int:
        if 0 < len(data) < 100:
            return pwrite(descriptor, data, at)  # there is room for a mark
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    disk.step("one A 192.0.2.2")  # the whole goes another way
    assert disk.check() == ()
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert disk.step("two A 192.0.2.3") in disk.check()
    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(os, "replace", lambda *_: full(0, b"", 0))
    zone = disk.zone
    with pytest.raises(OSError, match="No space"):
        disk.step("three A 192.0.2.4")
    monkeypatch.undo()
    disk.zone = zone
    assert {path.name for path in tmp_path.iterdir()} == {"x.test.zone", "x.test.journal"}
    disk.check()
    disk.step("four A 192.0.2.5")
    disk.check()


def test_a_disk_that_takes_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounted read-only after a fault, or full: what is on it counts as before."""
    disk = Disk(tmp_path)
    disk.step("one A 192.0.2.2")
    path = tmp_path / "x.test.journal"
    opened = os.open

    def refused(path: object, flags: int, *mode: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(str(path), flags, *mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        assert len(disk.check()) == 1
        copy = Copy(tmp_path, NAME)
        copy.load()
        with pytest.raises(OSError, match="Read-only"):
            copy.save(version(3), (difference(disk.zone, version(3)),))
        # Of a file that is older than what was confirmed, the time stays.
        assert not copy.confirm(3)
        path.unlink()
        disk.zone = version(1, *(f"h{n} A 10.0.0.{n}" for n in range(200)))
        assert disk.check() == ()
    assert disk.check() == ()


def test_a_file_that_was_taken_away_is_written_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    for name in ("x.test.zone", "x.test.journal"):
        (tmp_path / name).unlink()
        disk.step(f"{name} A 192.0.2.2")
        disk.check()


def test_a_journal_that_somebody_has_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.step("one A 192.0.2.2")
    journal = tmp_path / "x.test.journal"
    os.truncate(journal, journal.stat().st_size // 2)
    disk.step("two A 192.0.2.3")
    disk.check()


def test_rfc1982_serials_that_come_round(tmp_path: Path) -> None:
    """In three steps, which is how a serial is brought down: the later of two same ones counts."""
    disk = Disk(tmp_path)
    text = " ".join(f'"{"x" * 250}"' for _ in range(40))
    serials = itertools.cycle([1 << 31, (1 << 32) - 2, 1])
    for n in range(60):
        following = version(next(serials), f"h{n} A 10.0.0.{n}", f"t{n % 4} TXT {text}")
        change = difference(disk.zone, following)
        disk.zone = following
        disk.copy.save(following, (change,))
        assert disk.check()[-1] == change


@pytest.mark.parametrize(
    "origin",
    [
        b"\0",
        b"\5%root\0",
        b"\1/\2..\0",
        b"\4\0\n\\%\0",
        (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0",
        (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 60 + b"b\0",
        (b"\x3f" + b"\xff" * 63) * 3 + b"\x3d" + b"\xff" * 61 + b"\0",
    ],
)
def test_a_zone_of_any_name_is_kept(tmp_path: Path, origin: bytes) -> None:
    """RFC 1035 §3.1: 255 octets of any kind, where a file's name has 255 characters."""
    folder = tmp_path / "copies"
    rdata = b"\2ns\0\1h\0" + b"".join(n.to_bytes(4, "big") for n in (1, 60, 60, 600, 1))
    builder = ZoneBuilder(origin)
    builder.add(origin, SOA, 60, rdata)
    builder.add(origin, NS, 60, b"\2ns\0")
    old = builder.finish()
    step = Difference(
        soa_record(old), (origin, SOA, 60, with_serial(rdata, 2)), (), ((origin, TXT, 60, b"\1a"),)
    )
    new = apply(old, step).zone
    copy = Copy(folder, origin)
    copy.save(old)
    copy.save(new, (step,))
    found = Copy(folder, origin).load()
    assert found is not None
    assert found.zone.origin == origin
    assert content(found.zone) == content(new)
    copy.save(old)
    assert all(len(path.name) > 5 and path.is_file() for path in folder.iterdir())
    assert len(list(folder.iterdir())) == 2
    assert list(tmp_path.iterdir()) == [folder]


def test_names_of_files_are_of_one_zone() -> None:
    begin = (b"\x3f" + b"a" * 63) * 3 + b"\x3d"
    long = [begin + b"a" * n + b"b" * (61 - n) + b"\0" for n in range(62)]
    escaped = [(b"\x3f" + b"\xff" * 63) * n + b"\0" for n in (1, 2, 3)]
    short = [
        b"\0", b"\5%root\0", b"\1.\0", b"\1\\\0", b"\2\\.\0", b"\1/\0", b"\3%2F\0",
        b"\1a\1b\0", b"\3a.b\0",
    ]  # fmt: skip
    found = {names.file_name(one) for one in (*long, *escaped, *short)}
    assert len(found) == len(long) + len(escaped) + len(short)
    assert max(map(len, found)) <= 243


def test_a_journal_goes_on_in_the_file_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file has taken the place of the old, and only then the disk fails."""
    made = Journal(tmp_path / "j")
    made.open()

    def fails(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_folder", fails)
        with pytest.raises(OSError, match="Input/output"):
            made.rewrite([Mark(b"?" * 32, 1)])
    change = difference(version(1), version(2))
    made.append(change)
    made.close()
    assert made.entries() == [Mark(b"?" * 32, 1), change]


def test_thousands_of_copies_hold_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    disk = Disk(tmp_path)
    disk.step("one A 192.0.2.2")
    disk.check()
    assert disk.copy.confirm(disk.zone.serial)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_forgotten_does_not_come_back(tmp_path: Path) -> None:
    """RFC 9432 §5.6; also when it was just being written."""
    disk = Disk(tmp_path)
    disk.copy.forget()
    assert list(tmp_path.iterdir()) == []
    assert Copy(tmp_path, NAME).load() is None
    disk.step("one A 192.0.2.2")
    assert list(tmp_path.iterdir()) == []


def test_a_journal_begun_anew_is_not_full(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", limit=1000)
    journal.open()
    one, two = version(1), version(2, *(f"h{n} A 192.0.2.{n}" for n in range(99)))
    journal.append(difference(one, two))
    assert journal.full
    journal.rewrite([])
    assert not journal.full
    journal.close()
