"""What a start makes of master files that are not as the journal knows them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import dns.rdata
import dns.rdataclass
import pytest

from appliance import files
from appliance.dns import Catalog, Zone, load_zones, service, writeback
from appliance.dns.authority import Authority, Options
from appliance.dns.errors import Problem
from appliance.dns.journal import Journal, Mark
from appliance.dns.serial import Difference, difference
from appliance.dns.service import Service
from appliance.dns.writer import zone_text
from tests.dns.signing import ZONE as UNSIGNED
from tests.dns.signing import signed
from tests.dns.test_update import ZONE, Rig, new, rcode
from tests.dns.util import Reply, question

PERSON = "person A 192.0.2.77\n"


class Crash(BaseException):
    """Of the process."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    close(made)


def close(rig: Rig) -> None:
    for kept in rig.server.kept.values():
        if kept.journal is not None:
            kept.journal.close()


def restart(rig: Rig) -> None:
    close(rig)
    rig.start()


def reload(rig: Rig) -> list[Problem]:
    loaded = load_zones(rig.path.parent)
    served = [kept.zone for kept in rig.server.kept.values()]
    return rig.server.install(rig.server.plan(rig.server.unchanged(loaded), served), loaded)


def write_back(rig: Rig) -> None:
    """What a second after an update does."""

    async def run() -> None:
        driver = Service(rig.server, random=Random(1))
        for kept in rig.server.kept.values():
            if kept.dirty:
                await driver._write_zone(kept)

    asyncio.run(run())


def add(rig: Rig, name: str, address: str) -> None:
    update = new()
    update.add(name, 300, "A", address)
    assert rcode(rig.send(update)) == "NOERROR"


def edited(serial: int, more: str = PERSON) -> str:
    return ZONE.replace(" 7 7200", f" {serial} 7200") + more


def warnings(problems: list[Problem]) -> list[str]:
    return [one.message for one in problems if one.severity == "warning"]


@pytest.mark.parametrize("serial", [7, 6, 7 + (1 << 31)])
def test_rfc1982_a_start_raises_a_forgotten_serial_as_a_reload_does(rig: Rig, serial: int) -> None:
    """Secondaries that have the one before would not come for it, and the operator must know."""
    rig.path.write_text(edited(serial))
    restart(rig)
    assert rig.zone.serial == 8
    (problem,) = rig.problems
    assert (problem.file, problem.line, problem.severity) == (str(rig.path), 2, "warning")
    assert f"its serial {serial} is not newer than 7; it is served with 8" in problem.message
    assert rig.ask("person.example.test.").rcode == "NOERROR"
    restart(rig)  # told once, and the serial stays
    assert (rig.zone.serial, rig.problems) == (8, [])


def test_an_edit_with_a_newer_serial_is_nothing_to_tell_of(rig: Rig) -> None:
    rig.path.write_text(edited(20))
    restart(rig)
    assert (rig.zone.serial, rig.problems) == (20, [])


def test_an_older_file_that_is_put_back_counts(rig: Rig) -> None:
    """While nothing ran: what was taken out is not put back from the journal, nor written back."""
    rig.path.write_text(edited(8))
    assert reload(rig) == []
    rig.path.write_text(ZONE)
    restart(rig)
    assert rig.ask("person.example.test.").rcode == "NXDOMAIN"
    assert rig.zone.serial == 9
    assert "its serial 7 is not newer than 8" in warnings(rig.problems)[0]
    assert not any(kept.dirty for kept in rig.server.kept.values())


def test_an_older_file_that_is_put_back_counts_after_updates_were_written_back(rig: Rig) -> None:
    add(rig, "b", "192.0.2.50")
    write_back(rig)
    add(rig, "c", "192.0.2.51")  # which no file has
    rig.path.write_text(ZONE)
    restart(rig)
    assert rig.ask("b.example.test.").rcode == "NXDOMAIN"
    assert rig.ask("c.example.test.").rcode == "NOERROR"
    assert rig.zone.serial > 9


def includes(tmp_path: Path) -> Rig:
    (tmp_path / "zones").mkdir()
    (tmp_path / "zones" / "hosts").write_text("b A 192.0.2.50\n")
    return Rig(tmp_path, ZONE + "$INCLUDE hosts\n")


@pytest.mark.parametrize("written", [0, 1, 2])
def test_rfc2136_3_5_a_crash_between_two_files_of_a_zone_loses_no_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The serial stands in one file and the record in the other."""
    rig = includes(tmp_path)
    add(rig, "b", "192.0.2.99")
    left = written
    write = service.write_whole

    def crash(path: Path, text: bytes) -> None:
        nonlocal left
        if not left:
            raise Crash
        left -= 1
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(service, "write_whole", crash)
        with contextlib.suppress(Crash):
            write_back(rig)
    for _ in range(2):
        restart(rig)
        both = ["b.example.test. A 192.0.2.50", "b.example.test. A 192.0.2.99"]
        assert sorted(rig.ask("b.example.test.").answer) == both
        assert rig.zone.serial == (9 if written == 1 else 8)
    write_back(rig)
    assert (rig.path.parent / "hosts").read_text().count("b ") == 2
    close(rig)


@pytest.mark.parametrize("how", [restart, reload])
def test_rfc2136_3_5_what_could_not_be_written_back_outlives_an_edit(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, how: Callable[[Rig], object]
) -> None:
    """Where the server may not write beside the file, its updates are in the journal alone."""

    def refuse(path: Path, text: bytes) -> None:
        raise OSError(30, os.strerror(30))

    add(rig, "b", "192.0.2.50")
    with monkeypatch.context() as patch:
        patch.setattr(service, "write_whole", refuse)
        write_back(rig)
    assert "cannot be written back" in rig.said[-1]
    rig.path.write_text(ZONE + PERSON)
    how(rig)
    assert rig.ask("b.example.test.").rcode == "NOERROR"
    assert rig.ask("person.example.test.").rcode == "NOERROR"
    write_back(rig)
    assert "192.0.2.50" in rig.path.read_text()
    assert "192.0.2.77" in rig.path.read_text()
    restart(rig)
    assert (rig.zone.serial, rig.problems) == (9, [])


def test_a_journal_that_cannot_be_begun_anew_stops_no_start(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(journal: Journal, entries: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Journal, "rewrite", full)
    rig.path.write_text(edited(20))
    restart(rig)
    assert rig.zone.serial == 20
    (problem,) = rig.problems
    assert problem.severity == "error"
    assert "No space left on device: example.test. takes no updates" in problem.message
    assert rig.ask("person.example.test.").rcode == "NOERROR"


class Signed:
    """A server of a zone that others sign."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "zones" / "example.test.zone"
        self.path.parent.mkdir()
        self.state = folder / "state"

    def start(self, serial: int, more: str = "") -> list[str]:
        """Begin with a file; what is said of serials."""
        zone = signed(UNSIGNED.replace("hostmaster 1 ", f"hostmaster {serial} ") + more)
        self.path.write_text(zone_text(zone, ""))
        server = Authority(Options(state=self.state), random=Random(1))
        problems = server.begin(load_zones(self.path.parent))
        (kept,) = server.kept.values()
        assert kept.zone.serial == serial  # which is signed (RFC 4035 §2.2)
        assert kept.journal is not None
        kept.journal.close()
        return [one.message for one in problems if "RFC 1982" in one.message]


def test_rfc1982_a_signed_serial_that_went_back_is_told_of_until_it_is_newer(
    tmp_path: Path,
) -> None:
    """It cannot be raised here, and the version before is nowhere: it is served all the same."""
    server = Signed(tmp_path)
    assert server.start(10) == []
    for serial, more in ((5, ""), (5, ""), (8, ""), (5, "")):
        (told,) = server.start(serial, more)
        assert f"served with serial {serial}, which is not newer than 10" in told
        assert "a serial beyond 10" in told
    assert server.start(11) == []
    (told,) = server.start(11, "more A 192.0.2.9\n")
    assert "not newer than 11" in told
    assert server.start(12) == []
    assert server.start(12) == []


def test_a_mark_of_before_and_one_of_after(tmp_path: Path) -> None:
    """Of a journal with updates that came while a file was written."""
    zones = [Zone.from_text("$ORIGIN x.\n$TTL 1\n@ SOA a b " + f"{n} 7 1 99 3\n@ NS ns\n"
                            f"ns A 192.0.2.{n}\n") for n in range(1, 5)]  # fmt: skip
    changes = [difference(zones[n], zones[n + 1]) for n in range(3)]
    journal = Journal(tmp_path / "x.journal")
    journal.open()
    before, after = Mark(b"1" * 32, 1, there=True), Mark(b"2" * 32, 2)
    lacking: list[tuple[object, list[Difference]]] = [
        (before, []),
        (changes[0], changes[:1]),
        (after, changes[:1]),
        (changes[1], changes[:2]),
        (after._replace(there=True), changes[1:2]),
        (changes[2], changes[1:]),
    ]
    for entry, wanted in lacking:
        journal.append(entry)  # type: ignore[arg-type]
        assert journal.unmarked() == wanted
        assert journal.ahead == bool(wanted)
        again = Journal(journal.path)
        again.open()
        assert again.ahead == bool(wanted)
        again.close()
    size = journal.size
    journal.append(changes[0])
    journal.truncate(size)
    journal.limit = 1
    journal.compact()
    assert journal.unmarked() == changes[1:]
    journal.close()


def test_nothing_is_ahead_of_a_file_that_was_read(rig: Rig) -> None:
    """An edit's difference is for secondaries, and never put on top of the next edit."""
    rig.path.write_text(edited(8))
    reload(rig)
    (kept,) = rig.server.kept.values()
    assert kept.journal is not None
    assert not kept.journal.ahead


def soa(server: Authority) -> list[str]:
    answer = Reply(server.current.answer(question("example.test.", "SOA"), peer=("192.0.2.9", 1)))
    return [line.split()[4] for line in answer.answer]


@pytest.mark.parametrize("update", [False, True])
def test_what_was_rendered_before_the_journal_was_read_is_not_answered(
    rig: Rig, update: bool
) -> None:
    """Secondaries would see the serial of the file, and not come; at the next start, too."""
    if update:
        add(rig, "b", "192.0.2.50")
    close(rig)
    rig.path.write_text(ZONE + PERSON)
    for _ in range(2):
        loaded = load_zones(rig.path.parent)
        catalog = Catalog(loaded.zones)
        server = Authority(rig.server.options, random=Random(1))
        server.begin(loaded, catalog)
        assert server.current is catalog
        (kept,) = server.kept.values()
        assert catalog.zones.by_origin[kept.zone.origin] is kept.zone
        assert soa(server) == [str(kept.zone.serial)] == ["9" if update else "8"]
        assert kept.zone.files == loaded.zones[0].files
        assert kept.journal is not None
        kept.journal.close()


def test_a_zone_that_comes_back_is_answered_as_its_journal_has_it(rig: Rig) -> None:
    """Though it was rendered for the reload as its file has it."""
    rig.path.write_text(ZONE + PERSON)
    reload(rig)
    rig.path.rename(rig.path.with_suffix(".away"))
    reload(rig)
    rig.path.with_suffix(".away").rename(rig.path)
    loaded = load_zones(rig.path.parent)
    (zone,) = loaded.zones
    rendered = {zone.origin: rig.server.current.render_zone(zone)}
    rig.server.install(rig.server.plan(loaded, ()), loaded, rendered)
    assert soa(rig.server) == [str(rig.zone.serial)] == ["8"]


def test_rfc2136_3_5_updates_upon_an_edit_that_was_undone_are_there(rig: Rig) -> None:
    """The file is known, but what was updated upon the edit does not follow from it."""
    add(rig, "b", "192.0.2.50")
    rig.path.write_text(ZONE + PERSON)
    restart(rig)
    add(rig, "c", "192.0.2.51")
    serial = rig.zone.serial
    rig.path.write_text(ZONE)
    restart(rig)
    (problem,) = rig.problems
    assert (problem.severity, problem.file.endswith(".journal")) == ("error", True)
    assert "does not fit" in problem.message
    assert rig.ask("b.example.test.").rcode == "NOERROR"
    assert rig.ask("c.example.test.").rcode == "NOERROR"
    assert rig.zone.serial >= serial
    write_back(rig)
    restart(rig)
    assert rig.problems == []
    assert rig.ask("c.example.test.").rcode == "NOERROR"


def test_a_start_removes_what_a_killed_process_left_and_nothing_else(rig: Rig) -> None:
    add(rig, "b", "192.0.2.50")
    folders = [
        rig.path.parent,
        *(rig.folder / "state" / name for name in ("journals", "secondary")),
    ]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        files.place_beside(folder / "x.test.zone").write_text("half")
        (folder / ".x.test.zone.new").write_text("somebody's")
    restart(rig)
    for folder in folders:
        assert not files.place_beside(folder / "x.test.zone").exists()
        assert (folder / ".x.test.zone.new").exists()
    assert rig.problems == []
    assert rig.ask("b.example.test.").rcode == "NOERROR"


@pytest.mark.parametrize(
    ("rtype", "data", "expected"),
    [
        # A record that a message has no room for beside what goes with it.
        (65280, bytes(64_001), "FORMERR"),
        (16, b"\xff" * 256 * 251, "FORMERR"),
        (65280, bytes(64_000), "NOERROR"),
        # RFC 1183 §3.2: an empty sub-address, which dnspython leaves out.
        (20, b"\x051234\x35\x00", "NOERROR"),
        (20, b"\x051234\x35\x00\x00", "FORMERR"),
    ],
)
def test_no_update_makes_a_file_that_cannot_be_read_again(
    rig: Rig, rtype: int, data: bytes, expected: str
) -> None:
    """The zone would be gone with the next start."""
    update = new()
    update.add("b", 300, dns.rdata.GenericRdata(dns.rdataclass.IN, rtype, data))
    assert rcode(rig.send(update)) == expected
    write_back(rig)
    for _ in range(2):
        restart(rig)
        assert rig.problems == []
        node = rig.zone.nodes.get(b"\1b" + rig.zone.origin)
        assert (node is not None) == (expected == "NOERROR")
        assert node is None or node.rrsets[rtype].rdatas == (data,)


def test_what_would_not_be_read_as_it_is_served_is_not_written(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writeback.Rewriter, "_change", broken)
    monkeypatch.setattr(writeback, "zone_text", lambda _zone: ZONE)
    add(rig, "b", "192.0.2.50")
    write_back(rig)
    assert "cannot be written back: what would be written is not what is served" in rig.said[-1]
    assert rig.path.read_text() == ZONE
    monkeypatch.undo()
    restart(rig)
    assert rig.ask("b.example.test.").rcode == "NOERROR"


def broken(*_: object) -> None:
    raise KeyError


def test_an_end_while_a_file_is_being_written_waits_for_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would take what was just written for somebody's edit, and read it again."""
    begun, go_on = threading.Event(), threading.Event()
    write = service.write_whole

    def slow(path: Path, text: bytes) -> None:
        write(path, text)
        begun.set()
        assert go_on.wait(10)

    monkeypatch.setattr(service, "write_whole", slow)
    add(rig, "b", "192.0.2.50")

    async def run() -> None:
        driver = Service(rig.server, random=Random(1), write_back=0.0)
        await driver.begin()
        while not begun.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        ending = asyncio.ensure_future(driver.end())
        for _ in range(20):
            await asyncio.sleep(0.001)
        go_on.set()
        await asyncio.wait_for(ending, 10)

    asyncio.run(run())
    assert rig.said == []
    assert "192.0.2.50" in rig.path.read_text()
    restart(rig)
    assert (rig.zone.serial, rig.problems) == (8, [])


@pytest.mark.parametrize("touched", [False, True])
def test_the_journal_of_a_file_that_cannot_be_written_is_bounded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, touched: bool
) -> None:
    """A challenge that comes and goes leaves nothing, however often; what stays is kept."""

    def refuse(path: Path, text: bytes) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(service, "write_whole", refuse)
    add(rig, "b", "192.0.2.50")
    if touched:
        write_back(rig)
        rig.path.write_text(edited(7))
        restart(rig)  # with a serial that is not the file's
    (kept,) = rig.server.kept.values()
    assert kept.journal is not None
    kept.journal.limit = 3000
    for number in range(100):
        add(rig, "c", f"192.0.2.{number}")
        update = new()
        update.delete("c")
        rig.send(update)
        write_back(rig)
        assert kept.journal.size < 4000
    before = rig.zone.serial
    restart(rig)
    assert (rig.zone.serial, rig.problems) == (before, [])
    assert rig.ask("b.example.test.").answer == ["b.example.test. A 192.0.2.50"]
    assert rig.ask("c.example.test.").rcode == "NXDOMAIN"
    wanted = "NOERROR" if touched else "NXDOMAIN"
    assert rig.ask("person.example.test.").rcode == wanted
    monkeypatch.undo()
    write_back(rig)
    assert "192.0.2.50" in rig.path.read_text()
    restart(rig)
    assert (rig.zone.serial, rig.problems) == (before, [])


def test_an_edit_of_a_file_that_cannot_be_written_is_not_undone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what bounds its journal."""
    (kept,) = rig.server.kept.values()
    assert kept.journal is not None
    kept.journal.limit = 100
    add(rig, "b", "192.0.2.50")
    read = service._rewritten

    def edited_meanwhile(zone: Zone, digest: bytes) -> object:
        found = read(zone, digest)
        rig.path.write_text(edited(7))
        return found

    def refuse(path: Path, text: bytes) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(service, "_rewritten", edited_meanwhile)
    monkeypatch.setattr(service, "write_whole", refuse)
    write_back(rig)
    restart(rig)
    assert rig.ask("b.example.test.").rcode == "NOERROR"
    assert rig.ask("person.example.test.").rcode == "NOERROR"
