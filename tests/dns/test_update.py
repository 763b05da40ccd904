"""Dynamic update (RFC 2136): what is decided, what is written, what survives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import dns.message
import dns.rcode
import dns.tsig
import dns.tsigkeyring
import dns.update
import pytest

from appliance.dns import Extensions, Keys, Transfers, Zone, edit, grant, key, load_zones
from appliance.dns import update as update_module
from appliance.dns.authority import Authority, Options
from appliance.dns.journal import Difference, Journal, Mark, decode
from appliance.dns.policy import Policy, rule
from appliance.dns.serial import difference
from appliance.dns.updates import Updates
from tests.dns.crash import scenario
from tests.dns.util import Reply, question
from tests.ports import free_port

SECRET = b"0123456789abcdef0123456789abcdef"
RING = {dns.name.from_text("upd."): dns.tsig.Key("upd.", SECRET), dns.name.from_text("txt."): (
    dns.tsig.Key("txt.", SECRET)
)}  # fmt: skip
NOW = 1_800_000_000.0
ZONE = """\
$TTL 300
@ SOA ns1 h 7 7200 1800 1209600 300
@ NS ns1
@ NS ns2
ns1 A 192.0.2.1
ns2 A 192.0.2.2
a A 192.0.2.10
a A 192.0.2.11
al CNAME a
sub.deep TXT "x"
"""


class Rig:
    """A server over a directory, whose disk is waited for when told to."""

    def __init__(self, folder: Path, text: str = ZONE) -> None:
        self.folder = folder
        self.path = folder / "zones" / "example.test.zone"
        self.path.parent.mkdir(exist_ok=True)
        if not self.path.exists():
            self.path.write_text(text)
        self.said: list[str] = []
        self.start()

    def start(self) -> None:
        keys = Keys([key("upd.", "hmac-sha256", SECRET), key("txt.", "hmac-sha256", SECRET)])
        self.server = Authority(
            Options(
                extensions=Extensions(keys=keys, clock=lambda: NOW),
                transfers=Transfers(default=[grant("0.0.0.0/0")]),
                policy=Policy(
                    [
                        rule("upd.", None, ["*"], []),
                        rule("txt.", "example.test.", ["@", "*.dyn", "www"], ["TXT"]),
                    ]
                ),
                state=self.folder / "state",
            ),
            random=Random(1),
            wall=lambda: NOW,
            clock=lambda: 0.0,
            say=self.said.append,
        )
        self.problems = self.server.begin(load_zones(self.path.parent))

    def send(self, update: Any, name: str = "upd.", sync: bool = True) -> list[bytes]:
        """Send one update; the answers that came."""
        answers: list[bytes] = []
        if name:
            update.use_tsig(RING, dns.name.from_text(name), algorithm=dns.tsig.HMAC_SHA256)
        wire = sign(update)
        assert self.server.current.answer(wire) is None
        self.server.update(wire, ("192.0.2.9", 1), answers.append)
        if sync:
            self.sync()
        return answers

    def sync(self, failed: bool = False) -> None:
        while (batch := self.server.commit()) is not None:
            Updates.sync(batch)
            self.server.committed(batch, failed)

    def ask(self, name: str, rdtype: str = "A") -> Reply:
        wire = question(name, rdtype)
        return Reply(self.server.current.answer(wire, peer=("192.0.2.9", 1)))

    @property
    def zone(self) -> Zone:
        return next(iter(self.server.kept.values())).zone


def sign(update: Any) -> bytes:
    """The message's octets, signed at NOW if it is to be."""
    wire: bytes
    time = dns.message.time.time  # type: ignore[attr-defined]
    try:
        dns.message.time.time = lambda: NOW  # type: ignore[attr-defined]
        wire = update.to_wire()
    finally:
        dns.message.time.time = time  # type: ignore[attr-defined]
    return wire


def new() -> Any:
    return dns.update.UpdateMessage("example.test.")


def rcode(answers: list[bytes]) -> str:
    (answer,) = answers
    return dns.rcode.to_text(answer[3] & 15)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    for kept in made.server.kept.values():
        assert kept.journal is not None
        kept.journal.close()


PREREQUISITES = [
    # RFC 2136 §2.4.1 to §2.4.5: RRset exists, of this value, exists not; name in use, not in use.
    (lambda u: u.present("a", "A"), "NOERROR"),
    (lambda u: u.present("a", "MX"), "NXRRSET"),
    (lambda u: u.present("none", "A"), "NXRRSET"),
    (lambda u: (u.present("a", "A", "192.0.2.11"), u.present("a", "A", "192.0.2.10")), "NOERROR"),
    (lambda u: u.present("a", "A", "192.0.2.10"), "NXRRSET"),
    (lambda u: u.absent("a", "MX"), "NOERROR"),
    (lambda u: u.absent("a", "A"), "YXRRSET"),
    (lambda u: u.present("a"), "NOERROR"),
    (lambda u: u.present("none"), "NXDOMAIN"),
    (lambda u: u.absent("none"), "NOERROR"),
    (lambda u: u.absent("a"), "YXDOMAIN"),
    # RFC 2136 §2.4.4: an empty non-terminal owns no records, so it is not in use.
    (lambda u: u.absent("deep"), "NOERROR"),
    (lambda u: u.present("deep"), "NXDOMAIN"),
    (lambda u: u.present("AL", "CNAME", "A.example.TEST."), "NOERROR"),
]


@pytest.mark.parametrize(("prerequisite", "expected"), PREREQUISITES)
def test_rfc2136_prerequisites(rig: Rig, prerequisite: Any, expected: str) -> None:
    update = new()
    prerequisite(update)
    update.add("new", 60, "A", "192.0.2.99")
    assert rcode(rig.send(update)) == expected
    assert (rig.ask("new.example.test.").rcode == "NOERROR") == (expected == "NOERROR")


UPDATES = [
    # RFC 2136 §2.5.1 to §2.5.4: add, delete an RRset, all RRsets, one record.
    (lambda u: u.add("a", 60, "A", "192.0.2.12"), "a", "A", 3),
    (lambda u: u.add("a", 60, "A", "192.0.2.10"), "a", "A", 2),
    (lambda u: u.delete("a", "A"), "a", "A", 0),
    (lambda u: u.delete("a"), "a", "A", 0),
    (lambda u: u.delete("a", "A", "192.0.2.10"), "a", "A", 1),
    (lambda u: u.delete("none", "A"), "a", "A", 2),
    # §3.4.2.2: an alias stands alone; what would change that is ignored.
    (lambda u: u.add("al", 60, "A", "192.0.2.12"), "al", "CNAME", 1),
    (lambda u: u.add("a", 60, "CNAME", "ns1"), "a", "A", 2),
    (lambda u: u.add("al", 60, "CNAME", "ns1.example.test."), "al", "CNAME", 1),
    # §3.4.2.3, §3.4.2.4: the apex keeps its SOA and a name server.
    (lambda u: u.delete("@"), "@", "NS", 2),
    (lambda u: u.delete("@", "NS"), "@", "NS", 2),
    (lambda u: u.delete("@", "SOA"), "@", "SOA", 1),
    (
        lambda u: (u.delete("@", "NS", "ns1"), u.delete("@", "NS", "ns2")),
        "@",
        "NS",
        1,
    ),
]


@pytest.mark.parametrize(("change", "name", "rdtype", "count"), UPDATES)
def test_rfc2136_updates(rig: Rig, change: Any, name: str, rdtype: str, count: int) -> None:
    update = new()
    change(update)
    assert rcode(rig.send(update)) == "NOERROR"
    full = "example.test." if name == "@" else f"{name}.example.test."
    assert len(rig.ask(full, rdtype).answer) == count


def test_rfc2136_all_or_nothing(rig: Rig) -> None:
    """§3.4.1: one record that may not be stops them all."""
    update = new()
    update.add("new", 60, "A", "192.0.2.99")
    update.add("below.al.dn", 60, "A", "192.0.2.99")
    update.add("dn", 60, "DNAME", "elsewhere.test.")  # RFC 6672 §2.4: nothing below it
    assert rcode(rig.send(update)) == "REFUSED"
    assert rig.ask("new.example.test.").rcode == "NXDOMAIN"
    assert rig.zone.serial == 7


def test_the_serial_is_raised_once_an_update_and_only_for_a_change(rig: Rig) -> None:
    """RFC 2136 §3.6."""
    update = new()
    update.add("b", 60, "A", "192.0.2.1")
    update.add("c", 60, "A", "192.0.2.1")
    rig.send(update)
    assert rig.zone.serial == 8
    update = new()
    update.add("b", 60, "A", "192.0.2.1")
    update.delete("none")
    assert rcode(rig.send(update)) == "NOERROR"
    assert rig.zone.serial == 8
    update = new()
    update.add("@", 300, "SOA", "ns1 h 100 7200 1800 1209600 300")
    rig.send(update)
    assert rig.zone.serial == 100
    update = new()
    update.add("@", 300, "SOA", "ns1 h 50 7200 1800 1209600 300")  # §3.4.2.2: not newer
    rig.send(update)
    assert rig.zone.serial == 100


def test_who_may_change_what(rig: Rig) -> None:
    """RFC 2136 §3.3, RFC 3007 §3: by key, name and type."""

    def attempt(name: str, rdtype: str, text: str, by: str) -> str:
        update = new()
        update.add(name, 60, rdtype, text)
        return rcode(rig.send(update, by))

    assert attempt("x", "A", "192.0.2.1", "") == "REFUSED"
    assert attempt("x", "TXT", "x", "txt.") == "REFUSED"
    assert attempt("x.dyn", "A", "192.0.2.1", "txt.") == "REFUSED"
    assert attempt("dyn", "TXT", "x", "txt.") == "REFUSED"
    assert attempt("x.dyn", "TXT", "x", "txt.") == "NOERROR"
    assert attempt("@", "TXT", "x", "txt.") == "NOERROR"
    assert attempt("WWW", "TXT", "x", "txt.") == "NOERROR"
    update = new()
    update.delete("x.dyn")  # all types, of which some are none of its business
    assert rcode(rig.send(update, "txt.")) == "REFUSED"
    other = dns.update.UpdateMessage("elsewhere.test.")
    other.add("x", 60, "A", "192.0.2.1")
    assert rcode(rig.send(other)) == "NOTAUTH"
    forged = new()
    forged.add("y", 60, "A", "192.0.2.1")
    forged.use_tsig({dns.name.from_text("upd."): dns.tsig.Key("upd.", b"wrong" * 8)})
    answers: list[bytes] = []
    rig.server.update(sign(forged), None, answers.append)
    assert rcode(answers) == "NOTAUTH"


def test_strangers_learn_nothing_from_prerequisites(rig: Rig) -> None:
    update = new()
    update.present("none", "A")
    assert rcode(rig.send(update, "")) == "REFUSED"


def test_nothing_is_served_or_answered_before_it_is_on_the_disk(rig: Rig) -> None:
    update = new()
    update.add("b", 60, "A", "192.0.2.1")
    first = rig.send(update, sync=False)
    second_update = new()
    second_update.present("b", "A")
    second_update.add("c", 60, "A", "192.0.2.1")
    second = rig.send(second_update, sync=False)
    assert first == second == []
    assert rig.ask("b.example.test.").rcode == "NXDOMAIN"
    rig.sync()
    assert rcode(first) == rcode(second) == "NOERROR"
    assert rig.ask("c.example.test.").rcode == "NOERROR"
    assert rig.zone.serial == 9


def test_a_disk_that_fails_undoes_everything(rig: Rig) -> None:
    update = new()
    update.add("b", 60, "A", "192.0.2.1")
    answers = rig.send(update, sync=False)
    batch = rig.server.commit()
    assert batch is not None
    later_update = new()
    later_update.add("c", 60, "A", "192.0.2.1")
    later = rig.send(later_update, sync=False)
    rig.server.committed(batch, failed=True)
    assert rcode(answers) == rcode(later) == "SERVFAIL"
    assert rig.ask("b.example.test.").rcode == "NXDOMAIN"
    update = new()
    update.add("d", 60, "A", "192.0.2.1")
    assert rcode(rig.send(update)) == "NOERROR"
    assert rig.zone.serial == 8
    rig.start()
    assert rig.ask("d.example.test.").rcode == "NOERROR"
    assert rig.ask("c.example.test.").rcode == "NXDOMAIN"


def test_a_disk_that_does_not_even_take_things_back_ends_updates(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody is answered, and the zone is served and can be reloaded as before."""

    def fails(_journal: Journal, _size: int) -> None:
        raise OSError(5, "Input/output error")

    update = new()
    update.add("b", 60, "A", "192.0.2.1")
    answers = rig.send(update, sync=False)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "truncate", fails)
        rig.sync(failed=True)
    assert rcode(answers) == "SERVFAIL"
    assert rig.ask("b.example.test.").rcode == "NXDOMAIN"
    assert rcode(rig.send(update)) == "SERVFAIL"
    (kept,) = rig.server.kept.values()
    assert kept.staged is None
    rig.path.write_text(ZONE.replace(" 7 7200", " 9 7200") + "person A 192.0.2.77\n")
    loaded = load_zones(rig.path.parent)
    rig.server.install(rig.server.plan(rig.server.unchanged(loaded), [kept.zone]), loaded)
    assert rig.ask("person.example.test.").rcode == "NOERROR"


@pytest.mark.parametrize("kind", ["add", "again", "delete"])
def test_an_update_of_a_large_set_costs_its_own_length(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whoever may change one TXT record alone must not keep everybody waiting."""
    whole = new()
    for number in range(1000):
        whole.add("b", 60, "A", f"10.0.{number >> 8}.{number & 255}")
    looks = 0
    real = update_module.canonical

    def looked(rtype: int, rdata: bytes) -> bytes:
        nonlocal looks
        looks += 1
        return real(rtype, rdata)

    if kind != "add":
        rig.send(whole)
    update = new()
    for number in range(1000):
        if kind == "delete":
            update.delete("b", "A", f"10.0.{number >> 8}.{number & 255}")
        else:
            update.add("b", 61, "A", f"10.0.{number >> 8}.{number & 255}")
    monkeypatch.setattr(update_module, "canonical", looked)
    assert rcode(rig.send(update)) == "NOERROR"
    assert looks < 10_000
    node = rig.zone.nodes.get(b"\1b" + rig.zone.origin)
    assert (node is None) == (kind == "delete")
    assert node is None or (node.rrsets[1].ttl, len(node.rrsets[1].rdatas)) == (61, 1000)


def test_an_update_that_makes_a_set_too_large_is_refused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit, "MAX_SET", 20)
    update = new()
    for number in range(21):
        update.add("b", 60, "A", f"192.0.2.{number}")
    assert rcode(rig.send(update)) == "REFUSED"
    assert rig.ask("b.example.test.").rcode == "NXDOMAIN"


def test_a_zone_that_goes_while_its_update_is_written_holds_up_no_other(rig: Rig) -> None:
    other = rig.path.with_name("other.test.zone")
    other.write_text(ZONE)
    rig.start()
    updates = [dns.update.UpdateMessage(name) for name in ("example.test.", "other.test.")]
    answers = []
    for update in updates:
        update.add("b", 60, "A", "192.0.2.1")
        answers.append(rig.send(update, sync=False))
    batch = rig.server.commit()
    assert batch is not None
    Updates.sync(batch)
    rig.path.unlink()
    loaded = load_zones(rig.path.parent)
    served = [kept.zone for kept in rig.server.kept.values()]
    rig.server.install(rig.server.plan(rig.server.unchanged(loaded), served), loaded)
    rig.server.committed(batch, False)
    assert [rcode(answer) for answer in answers] == ["NOERROR", "NOERROR"]
    assert rig.ask("b.other.test.").rcode == "NOERROR"
    assert rig.ask("b.example.test.").rcode == "REFUSED"


def test_what_was_acknowledged_is_there_after_a_restart(rig: Rig) -> None:
    for number in range(1, 6):
        update = new()
        update.add("b", 60, "A", f"192.0.2.{number}")
        update.delete("b", "A", f"192.0.2.{number - 1}")
        assert rcode(rig.send(update)) == "NOERROR"
    rig.start()
    assert rig.ask("b.example.test.").answer == ["b.example.test. A 192.0.2.5"]
    assert rig.zone.serial == 12
    history = rig.server.options.transfers.histories[rig.zone.origin]
    assert len(history.since(7, 12) or []) == 5


def test_an_edit_of_the_file_meanwhile_loses_no_update(rig: Rig) -> None:
    update = new()
    update.add("b", 60, "A", "192.0.2.1")
    update.delete("al")
    rig.send(update)
    rig.path.write_text(ZONE + "person A 192.0.2.77\n")
    rig.start()
    assert any("edited while" in str(problem) for problem in rig.problems)
    assert rig.ask("person.example.test.").rcode == "NOERROR"
    assert rig.ask("b.example.test.").rcode == "NOERROR"
    assert rig.ask("al.example.test.", "CNAME").rcode == "NXDOMAIN"
    assert rig.zone.serial > 8


def test_a_reload_while_the_file_lacks_updates_loses_neither(rig: Rig) -> None:
    update = new()
    update.add("b", 60, "A", "192.0.2.1")
    rig.send(update)
    rig.path.write_text(ZONE + "person A 192.0.2.77\n")
    loaded = load_zones(rig.path.parent)
    served = [kept.zone for kept in rig.server.kept.values()]
    rig.server.install(rig.server.plan(rig.server.unchanged(loaded), served), loaded)
    assert rig.ask("person.example.test.").rcode == "NOERROR"
    assert rig.ask("b.example.test.").rcode == "NOERROR"
    assert rig.zone.serial == 9
    rig.start()
    assert rig.ask("person.example.test.").rcode == "NOERROR"
    assert rig.ask("b.example.test.").rcode == "NOERROR"


def test_a_torn_journal_ends_before_the_tear(tmp_path: Path) -> None:
    zones = [Zone.from_text("$ORIGIN x.\n$TTL 1\n@ SOA a b " + f"{n} 7 1 99 3\n@ NS ns\n"
                            f"ns A 192.0.2.{n}\n") for n in range(1, 6)]  # fmt: skip
    journal = Journal(tmp_path / "x.journal")
    assert journal.open() == []
    changes = [difference(zones[n], zones[n + 1]) for n in range(4)]
    journal.append(Mark(bytes(32), 1))
    for change in changes:
        journal.append(change)
    journal.sync()
    journal.close()
    whole = journal.path.read_bytes()
    entries, end = decode(whole)
    assert entries == [Mark(bytes(32), 1), *changes]
    assert end == len(whole)
    random = Random(3)
    for _ in range(300):
        cut = random.randrange(20, len(whole))
        data = bytearray(whole[:cut])
        if random.random() < 0.5 and cut > 25:
            data[random.randrange(20, cut)] ^= 1 << random.randrange(8)
        found, end = decode(bytes(data))
        assert found == entries[: len(found)]
        journal.path.write_bytes(data)
        again = Journal(journal.path)
        assert again.open() == found
        assert again.size == end
        again.append(changes[0])
        again.close()
        assert decode(journal.path.read_bytes())[0] == [*found, changes[0]]


def test_a_journal_is_bounded_and_keeps_what_the_file_lacks(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.journal", limit=2000)
    journal.open()
    zones = [Zone.from_text("$ORIGIN x.\n$TTL 1\n@ SOA a b " + f"{n} 7 1 99 3\n@ NS ns\n"
                            f"ns A 192.0.2.{n % 200}\n") for n in range(1, 80)]  # fmt: skip
    for n in range(78):
        if n in (10, 40, 70):
            journal.append(Mark(bytes((n,)) * 32, n + 1, there=True))
        journal.append(difference(zones[n], zones[n + 1]))
        if journal.bulky:
            journal.compact()
    assert journal.size < 3000
    entries = journal.entries()
    assert Mark(bytes((70,)) * 32, 71, there=True) in entries
    assert [one.new_serial for one in entries[-8:] if isinstance(one, Difference)] == [
        *range(72, 80)
    ]
    assert len(journal.unmarked()) == 8


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_any_octets_are_answered_or_dropped(rig: Rig, cut: int) -> None:
    """Whatever an UPDATE looks like, it raises nothing and changes nothing unless it is sound."""
    update = new()
    update.present("a", "A")
    update.add("b", 60, "MX", "10 mail")
    update.delete("a", "A", "192.0.2.10")
    update.use_tsig(RING, dns.name.from_text("upd."), algorithm=dns.tsig.HMAC_SHA256)
    wire = sign(update)
    random = Random(cut)
    for _ in range(400):
        data = bytearray(wire)
        for _ in range(random.randrange(1, 4)):
            data[random.randrange(2, len(data))] = random.randrange(256)
        data[2] = 0x28
        mutated = bytes(data[: random.randrange(12, len(data) + 1)])
        answers: list[bytes] = []
        rig.server.update(mutated, ("192.0.2.9", 1), answers.append)
        rig.sync()
        assert len(answers) <= 1
        for answer in answers:
            assert len(answer) <= max(len(mutated) + 160, 512)
    assert rig.zone.serial == 7


def test_a_server_killed_while_updates_come_loses_none(tmp_path: Path) -> None:
    """RFC 2136 §3.5: acknowledged means on the disk (200 times: `make figures ARGS=kills`)."""
    acknowledged, serial = scenario(tmp_path, 3, free_port())
    assert acknowledged > 3
    assert serial > 3
