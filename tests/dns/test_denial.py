"""Answers from signed zones: signatures, and proofs of what is not there (RFC 4035, RFC 5155)."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.update
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import (
    Catalog,
    Extensions,
    Keys,
    LoadedZones,
    Zone,
    ZoneError,
    denial,
    key,
    load_zones,
)
from appliance.dns.authority import Authority, Options
from appliance.dns.consts import NSEC, NSEC3, NSEC3PARAM, RRSIG, SOA
from appliance.dns.copies import Copy
from appliance.dns.denial import _place
from appliance.dns.edit import apply
from appliance.dns.errors import WireError
from appliance.dns.incoming import Whole
from appliance.dns.policy import Policy, rule
from appliance.dns.reload import reload
from appliance.dns.secondary import Primary
from appliance.dns.serial import difference, records, soa_record
from appliance.dns.service import Service
from appliance.dns.updates import Updates
from appliance.dns.writer import zone_text
from appliance.dns.zone import ZoneBuilder
from tests.dns.signing import ORIGIN, ZONE, owners, signed, unproved
from tests.dns.util import Reply, question

SECRET = bytes(range(32))
KEY = key("upd.", "hmac-sha256", SECRET)
KINDS: list[dict[str, Any]] = [
    {},
    {"nsec3": True},
    {"nsec3": True, "salt": "ABCD", "rounds": 5},
    {"nsec3": True, "opt_out": True},
]
TYPES = ["A", "AAAA", "TXT", "DS", "NS", "SOA", "CNAME", "MX", "DNAME", "HTTPS", "DNSKEY"]
LABELS = [b"a", b"*", b"zz", b"ns", b"www", b"y"]


def proving(name: str, rdtype: str = "A", **how: Any) -> bytes:
    return question(name, rdtype, use_edns=0, want_dnssec=True, payload=4096, **how)


def ask(catalog: Catalog, name: str, rdtype: str = "A") -> dns.message.Message:
    wire = catalog.answer(proving(f"{name}.example.test." if name else "example.test.", rdtype))
    return Reply(wire).message


def kinds(section: list[Any]) -> list[str]:
    return [dns.rdatatype.to_text(rrset.rdtype) for rrset in section]


@pytest.fixture(scope="module", params=KINDS, ids=["nsec", "nsec3", "salt", "opt-out"])
def zone(request: pytest.FixtureRequest) -> Zone:
    return signed(**request.param)


def test_every_answer_proves_what_it_claims(zone: Zone) -> None:
    """RFC 4035 §3.1, §5.4; RFC 5155 §7.2, §8: names of the zone, above, below and beside them."""
    catalog = Catalog([zone], udp_size=4096)
    random = Random(3)
    some = owners(zone)
    asked = {(name, rdtype) for name in some for rdtype in TYPES}
    for _ in range(250):
        name = random.choice(some)
        for _ in range(random.choice((1, 1, 2))):
            name = dns.name.Name([random.choice(LABELS), *name.labels])
        asked.add((name, random.choice(TYPES)))
    for name, rdtype in asked:
        message = Reply(catalog.answer(proving(str(name), rdtype))).message
        assert unproved(message) == [], (name, rdtype, message.to_text())


def test_the_judge_misses_what_is_missing(zone: Zone) -> None:
    catalog = Catalog([zone], udp_size=4096)
    for name in ("www", "none", "y.ent", "a.wild", "plain"):
        message = ask(catalog, name)
        assert unproved(message) == []
        for section in (message.answer, message.authority):
            for rrset in list(section):
                if rrset.rdtype in (RRSIG, NSEC, NSEC3) and rrset.covers != dns.rdatatype.SOA:
                    section.remove(rrset)
        assert unproved(message) != [], name


def test_who_does_not_ask_gets_what_there_was_before(zone: Zone) -> None:
    """RFC 4035 §3.1: without DO no DNSSEC records, but those that are asked for by type."""
    plain, catalog = Catalog([Zone.from_text(ZONE)]), Catalog([zone])
    for name in owners(plain.zones.by_origin[b"\7example\4test\0"]):
        for rdtype in TYPES:
            for how in ({}, {"use_edns": 0}):
                one = question(str(name), rdtype, **how)
                assert Reply(catalog.answer(one)).kinds() == Reply(plain.answer(one)).kinds()


def test_what_is_remembered_is_what_was_made(zone: Zone) -> None:
    catalog = Catalog([zone])
    for name in ("www", "NONE", "a.wild", "b.wild", "sub", "x.plain", "x.dn", "y.ent"):
        one = proving(f"{name}.example.test.")
        fresh = Catalog([zone]).answer(one)
        assert catalog.answer(one) == catalog.answer(one) == fresh
        other = proving(f"{name.swapcase()}.example.test.", id=int.from_bytes(one[:2], "big"))
        answer = catalog.answer(other)
        assert answer is not None
        assert answer[12 : 12 + len(name)] == other[12 : 12 + len(name)]
        assert answer == Catalog([zone]).answer(other)
    put_away = pickle.loads(pickle.dumps(catalog))
    assert put_away.answer(proving("none.example.test.")) is not None
    assert kinds(ask(put_away, "none").authority)[:2] == ["SOA", "RRSIG"]


def test_ttls() -> None:
    """RFC 4034 §3: a signature's TTL is that of what it signs; RFC 2308 §5 for SOA."""
    zone = signed()
    assert not any("TTL" in problem.message for problem in zone.problems)
    catalog = Catalog([zone])
    for rdtype, ttl in (("A", 600), ("TXT", 60)):
        assert {rrset.ttl for rrset in ask(catalog, "www", rdtype).answer} == {ttl}
    assert {rrset.ttl for rrset in ask(catalog, "none").authority} == {300}
    kept = {
        (rdata[0] << 8 | rdata[1]): ttl
        for owner, rtype, ttl, rdata in records(zone)
        if rtype == RRSIG and owner.startswith(b"\3www")
    }
    assert kept == {1: 600, 16: 60, 47: 300}


def test_rfc5155_7_2_8_hashes_are_no_names() -> None:
    zone = signed(nsec3=True)
    owner = next(node.owner for node in zone.nodes.values() if NSEC3 in node.rrsets)
    name = dns.name.from_wire(owner, 0)[0].relativize(ORIGIN).to_text()
    catalog = Catalog([zone], udp_size=4096)
    for rdtype in ("A", "NSEC3", "RRSIG"):
        for below in (name, f"a.{name}"):
            message = ask(catalog, below, rdtype)
            assert message.rcode() == dns.rcode.NXDOMAIN
            assert unproved(message) == []
            plain = Reply(catalog.answer(question(f"{below}.example.test.", rdtype)))
            assert plain.rcode == "NXDOMAIN"
    wild = signed(ZONE + "* A 192.0.2.9\n", nsec3=True)
    owner = next(node.owner for node in wild.nodes.values() if NSEC3 in node.rrsets)
    name = dns.name.from_wire(owner, 0)[0].relativize(ORIGIN).to_text()
    catalog = Catalog([wild], udp_size=4096)
    assert kinds(ask(catalog, name).answer) == ["A", "RRSIG"]
    # Nor is what is below them where other names of the same length are that do not exist.
    lost = question(f"{'q' * (len(name) - 2)}.www.example.test.")
    assert Reply(catalog.answer(lost)).rcode == "NXDOMAIN"
    assert Reply(catalog.answer(question(f"x.{name}.example.test."))).rcode == "NOERROR"


def test_any_and_rrsig_get_one_set(zone: Zone) -> None:
    """RFC 8482 §4.1, §7: what is asked for in order to get much for little."""
    catalog = Catalog([zone])
    assert kinds(ask(catalog, "www", "ANY").answer) == ["TXT", "RRSIG"]
    (rrset,) = ask(catalog, "www", "RRSIG").answer
    assert [rdata.type_covered for rdata in rrset] == [dns.rdatatype.TXT]


def test_rfc4035_3_1_1_what_does_not_fit_is_truncated(zone: Zone) -> None:
    catalog = Catalog([zone])
    whole = catalog.answer(proving("none.example.test."), transport="tcp")
    assert whole is not None
    small = question("none.example.test.", use_edns=0, want_dnssec=True, payload=512)
    reply = Reply(catalog.answer(small))
    assert ("TC" in reply.flags) == (len(whole) > 512)
    assert "TC" not in Reply(whole).flags


@pytest.mark.parametrize("kind", KINDS[:3], ids=["nsec", "nsec3", "salt"])
def test_an_edited_zone_answers_as_one_made_anew(kind: dict[str, Any]) -> None:
    """What IXFR brings: names that come, go and change, and with them the chain."""
    random = Random(5)
    old = signed(**kind)
    catalog = Catalog([old], udp_size=4096)
    for serial in range(2, 4):
        lines = [line for line in ZONE.splitlines() if random.random() < 0.9 or "@" in line]
        lines += [f"n{random.randrange(9)}.z A 192.0.2.{serial}" for _ in range(3)]
        text = "\n".join(lines).replace(" 1 7200", f" {serial} 7200") + "\n"
        if "$ORIGIN" not in text or "$TTL" not in text:
            text = "$ORIGIN example.test.\n$TTL 600\n" + text
        new = signed(text, **kind)
        edited = apply(old, difference(old, new))
        catalog.edit(edited)
        fresh = Catalog([new], udp_size=4096)
        for name in {*map(str, owners(new)), *map(str, owners(old)), "none.example.test."}:
            for rdtype in ("A", "DS"):
                one = proving(name, rdtype)
                got, wanted = Reply(catalog.answer(one)), Reply(fresh.answer(one))
                assert (got.rcode, got.answer) == (wanted.rcode, wanted.answer)
                assert got.authority == wanted.authority
                assert unproved(got.message) == []
        old = edited.zone


def test_signed_and_unsigned_zones_come_and_go() -> None:
    catalog = Catalog([Zone.from_text(ZONE)])
    assert kinds(ask(catalog, "none").authority) == ["SOA"]
    catalog.replace(signed(nsec3=True))
    assert kinds(ask(catalog, "none").authority)[:2] == ["SOA", "RRSIG"]
    other = Zone.from_text(ZONE.replace("example", "other"))
    catalog.replace(other)
    one = proving("none.other.test.")
    assert Reply(catalog.answer(one)).kinds()[1] == ["SOA"]
    catalog.replace(Zone.from_text(ZONE))
    assert kinds(ask(catalog, "none").authority) == ["SOA"]
    assert Reply(catalog.answer(one)).kinds()[1] == ["SOA"]


def test_signatures_count_from_when_the_soa_is_signed() -> None:
    """Not before, as with NSD, Knot and BIND; a version that is edited is as one that is read."""
    whole = signed()
    builder = ZoneBuilder(whole.apex.owner)
    builder.add(*soa_record(whole))
    for record in records(whole):
        if record[1] != RRSIG or int.from_bytes(record[3][:2], "big") != SOA:
            builder.add(*record)
    partly = builder.finish()
    assert RRSIG in partly.apex.rrsets
    catalogs = {zone: Catalog([zone], udp_size=4096) for zone in (whole, partly)}
    assert kinds(ask(catalogs[whole], "www").answer) == ["A", "RRSIG"]
    assert kinds(ask(catalogs[partly], "www").answer) == ["A"]
    for old, new in ((partly, whole), (whole, partly)):
        edited = apply(old, difference(old, new))
        catalog = Catalog([old], udp_size=4096)
        asked = [proving(str(name), id=1) for name in (*owners(whole), "none.example.test.")]
        for one in asked:
            catalog.answer(one)
        catalog.edit(edited)
        for one in asked:
            got, wanted = Reply(catalog.answer(one)), Reply(catalogs[new].answer(one))
            assert (got.rcode, got.answer) == (wanted.rcode, wanted.answer)
            assert got.authority == wanted.authority


def test_a_signed_zone_makes_others_no_dearer(zone: Zone) -> None:
    """Most resolvers ask with DO; what has no signatures is the same for them, and as quick."""
    text = "$ORIGIN un.test.\n$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n"
    other = Zone.from_text(text + "*.w TXT x\nsub NS ns\nto CNAME www.example.test.\n")
    catalog, alone = Catalog([other, zone]), Catalog([other])
    for name in ("ns", "NS", "none", "a.w", "b.w", "x.sub", "lost"):
        one = proving(f"{name}.un.test.", id=1)
        assert catalog.answer(one) == alone.answer(one)
    for name in ("ns", "gone", "c.w", "y.sub"):
        before = catalog.counters.slow
        assert catalog.answer(proving(f"{name}.un.test.")) is not None
        assert catalog.counters.slow == before
    assert catalog.answer(proving("not.ours.", id=1)) == alone.answer(proving("not.ours.", id=1))
    for do in (True, False, True):
        one = question("to.un.test.", use_edns=0, want_dnssec=do, payload=4096)
        wanted = ["CNAME", "A", "RRSIG"] if do else ["CNAME", "A"]
        assert kinds(Reply(catalog.answer(one)).message.answer) == wanted


def test_a_forgotten_serial_of_a_signed_zone_is_not_raised() -> None:
    """RFC 4035 §2.2: the SOA is signed, and we have no key."""
    before, after = signed(), signed(ZONE + "new A 192.0.2.9\n")
    plan = reload([before], LoadedZones((after,), ()), 20261130)
    assert plan.zones == (before,)
    assert after.serial == 1
    assert "is served as it was" in plan.problems[0].message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("@ NSEC3PARAM 1 0 10 -\n", "wants 0"),
        ("@ NSEC3PARAM 1 0 501 -\n", "at most 500 are served"),
        ("", "has neither NSEC nor NSEC3PARAM"),
    ],
)
def test_chains_that_are_missing_or_cost_too_much(text: str, complaint: str) -> None:
    """RFC 9276 §3.1; the work for one answer is bounded whatever a zone has."""
    head = "@ RRSIG SOA 13 2 600 20400101000000 20200101000000 1 @ AAAA\n"
    try:
        problems = Zone.from_text(ZONE + head + text).problems
    except ZoneError as error:
        problems = tuple(error.problems)
    assert complaint in problems[-1].message + problems[0].message


def test_rfc9276_3_1_nobody_else_makes_answers_dear_either(tmp_path: Path) -> None:
    """What a primary sends, whole or in part, and what lies on the disk."""
    sound = signed(nsec3=True)
    origin = sound.origin

    def whole(zone: Zone, rounds: int) -> Whole:
        builder = ZoneBuilder(origin)
        for owner, rtype, ttl, rdata in (soa_record(zone), *records(zone)):
            if rtype == NSEC3PARAM:
                rdata = rdata[:2] + rounds.to_bytes(2, "big") + rdata[4:]
            builder.add(owner, rtype, ttl, rdata)
        return Whole(builder, 0)

    newer = signed(ZONE.replace("hostmaster 1 ", "hostmaster 2 "), nsec3=True)
    dear = whole(newer, 501).builder.finish()
    server = Authority(
        Options(secondaries={origin: (Primary("192.0.2.1"),)}, state=tmp_path), random=Random(1)
    )
    server.begin(LoadedZones((), ()))
    service = Service(server, random=Random(1))
    secondary = server.secondaries[origin]

    async def run() -> None:
        with pytest.raises(WireError, match="at most 500"):
            await service._whole(secondary, whole(newer, 501))
        await service._whole(secondary, whole(sound, 500))
        assert secondary.zone is not None
        changes = (difference(secondary.zone, dear),)
        with pytest.raises(WireError, match="at most 500"):
            await service._differences(secondary, secondary.zone, changes)
        assert secondary.zone.serial == 1
        await service._save(secondary, dear)
        secondary.zone = None
        await service._load(secondary)
        assert secondary.zone is None
        await service._save(secondary, sound)
        await service._load(secondary)
        assert secondary.zone is not None

    asyncio.run(run())


def test_without_a_chain_there_are_signatures_and_no_proofs() -> None:
    head = "@ RRSIG SOA 13 2 600 20400101000000 20200101000000 1 @ AAAA\n"
    for parameters in ("", "@ NSEC3PARAM 1 0 0 -\n", "@ NSEC3PARAM 2 0 0 -\n"):
        catalog = Catalog([Zone.from_text(ZONE + head + parameters)])
        for name in ("none", "www", "a.wild", "plain", "y.ent"):
            ask(catalog, name)
            ask(catalog, name, "MX")
        assert kinds(ask(catalog, "none").authority) == ["SOA", "RRSIG"]


@given(st.lists(st.lists(st.binary(min_size=1, max_size=3), max_size=4), min_size=2, max_size=6))
def test_rfc4034_6_1_canonical_order(some: list[list[bytes]]) -> None:
    """By labels from the right, as octets; the shorter of two first."""
    wires = [b"".join(bytes((len(x),)) + x for x in labels).lower() + b"\0" for labels in some]
    ours = sorted(wires, key=_place)
    theirs = sorted(wires, key=lambda wire: dns.name.from_wire(wire, 0)[0])
    assert [dns.name.from_wire(wire, 0)[0] for wire in ours] == [
        dns.name.from_wire(wire, 0)[0] for wire in theirs
    ]


def test_a_signed_zone_takes_no_updates(tmp_path: Path) -> None:
    """RFC 3007 §4: what changes must be signed, and we have no key."""
    (tmp_path / "example.test.zone").write_text(ZONE)
    server = Authority(
        Options(
            extensions=Extensions(keys=Keys([KEY])),
            policy=Policy([rule("upd.", None, ["*"], [])]),
            state=tmp_path / "state",
        ),
        random=Random(1),
    )
    server.begin(load_zones(tmp_path))
    update = dns.update.UpdateMessage("example.test.")
    update.add("new", 60, "A", "192.0.2.9")
    update.use_tsig({dns.name.from_text("upd."): SECRET}, algorithm="hmac-sha256")
    said: list[int] = []
    for zone in (None, signed()):
        if zone is not None:
            server.kept[zone.origin].zone = zone
        server.update(update.to_wire(), ("192.0.2.1", 53), lambda reply: said.append(reply[3] & 15))
        batch = server.commit()
        if batch is not None:
            server.committed(batch, False)
    assert said == [dns.rcode.NOERROR, dns.rcode.REFUSED]
    server.kept[b"\7example\4test\0"].journal.close()  # type: ignore[union-attr]


def updated(zones: Path, state: Path, say: Callable[[str], None]) -> Authority:
    """A server of the zones that has taken an update of one, which its file has not got yet."""
    options = Options(
        extensions=Extensions(keys=Keys([KEY])),
        policy=Policy([rule("upd.", None, ["*"], [])]),
        state=state,
    )
    server = Authority(options, random=Random(1), say=say)
    server.begin(load_zones(zones))
    update = dns.update.UpdateMessage("example.test.")
    update.add("new", 60, "A", "192.0.2.9")
    update.use_tsig({dns.name.from_text("upd."): SECRET}, algorithm="hmac-sha256")
    server.update(update.to_wire(), ("192.0.2.1", 53), lambda _: None)
    batch = server.commit()
    assert batch is not None
    Updates.sync(batch)
    server.committed(batch, False)
    return server


def test_no_update_is_put_on_top_of_what_others_have_signed(tmp_path: Path) -> None:
    """RFC 4035 §2.2: neither its SOA nor what was updated would have a signature that holds."""
    path = tmp_path / "zones" / "example.test.zone"
    path.parent.mkdir()
    for restarted in (False, True):
        path.write_text(ZONE)
        said: list[str] = []
        server = updated(path.parent, tmp_path / f"state{restarted}", said.append)
        zone = signed(ZONE.replace("hostmaster 1 ", "hostmaster 9 "))
        path.write_text(zone_text(zone, ""))
        loaded = load_zones(path.parent)
        if restarted:
            server.kept[zone.origin].journal.close()  # type: ignore[union-attr]
            server = Authority(server.options, random=Random(1))
            said += map(str, server.begin(loaded))
        else:
            plan = server.plan(server.unchanged(loaded), [server.kept[zone.origin].zone])
            server.install(plan, loaded)
        assert any("are lost" in one for one in said)
        served = server.kept[zone.origin].zone
        assert (served.serial, served.soa.signatures is not None) == (9, True)
        assert ask(server.current, "new").rcode() == dns.rcode.NXDOMAIN
        assert not server.kept[zone.origin].dirty
        server.kept[zone.origin].journal.close()  # type: ignore[union-attr]


@pytest.mark.parametrize(("serial", "served"), [(1, 2), (2, 2), (9, 9)])
def test_a_signed_file_that_is_read_again_is_newer_or_not_served(
    tmp_path: Path, serial: int, served: int
) -> None:
    """As at a reload: secondaries would not follow to a serial that is not newer (RFC 1982)."""
    (tmp_path / "example.test.zone").write_text(ZONE)
    said: list[str] = []
    server = updated(tmp_path, tmp_path / "state", said.append)
    zone = signed(ZONE.replace("hostmaster 1 ", f"hostmaster {serial} "))
    zone.files = (str(tmp_path / "example.test.zone"),)
    kept = server.kept[zone.origin]
    server.reread(kept, zone)
    assert kept.zone.serial == served
    assert ("is served as it was" in said[-1]) == (serial != 9)
    gone = ask(server.current, "new").rcode() == dns.rcode.NXDOMAIN
    assert gone == (serial == 9)
    assert not kept.dirty
    assert kept.journal is not None
    kept.journal.close()


def test_a_copy_from_the_disk_is_sorted_by_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain of a million names takes seconds, in which the loop would answer nobody."""
    zone = signed()
    Copy(tmp_path / "secondary", zone.origin).save(zone)
    server = Authority(
        Options(secondaries={zone.origin: (Primary("192.0.2.1"),)}, state=tmp_path),
        random=Random(1),
    )
    server.begin(LoadedZones((), ()))
    made: list[bool] = []
    chain = denial.Names

    class Watched(chain):  # type: ignore[misc, valid-type]
        def __init__(self, *of: Any) -> None:
            made.append(threading.current_thread() is threading.main_thread())
            super().__init__(*of)

    monkeypatch.setattr(denial, "Names", Watched)
    asyncio.run(Service(server, random=Random(1))._load(server.secondaries[zone.origin]))
    assert kinds(ask(server.current, "www").answer) == ["A", "RRSIG"]
    assert made == [False]
