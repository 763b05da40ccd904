"""Zones and catalogs that are edited say the same as those that are made anew."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import dns.rdata
import pytest

from appliance.dns import Catalog, LocalError, Zone, ZoneError, edit, names
from appliance.dns import zone as zones
from appliance.dns.consts import MX, NSEC, RRSIG, SOA, A
from appliance.dns.edit import Edited, apply, apply_all
from appliance.dns.lookup import Lookup
from appliance.dns.serial import Difference, difference, soa_record, with_serial
from tests.dns.util import Reply, question, zone

LABELS = ("a", "b", "*", "c")
SINGLE = {
    "A": lambda r: f"A 192.0.2.{r.randrange(5)}",
    "TXT": lambda r: f'TXT "{r.randrange(5)}"',
    "MX": lambda r: f"MX 10 {r.choice(LABELS[:2])}",
    "CNAME": lambda r: f"CNAME {r.choice(LABELS[:2])}.{r.choice(LABELS[:2])}",
    "NS": lambda r: f"NS {r.choice(LABELS[:2])}",
    "DNAME": lambda r: f"DNAME {r.choice(LABELS[:2])}",
}


def text(random: Random, serial: int) -> str:
    """A small zone of any shape that can be loaded."""
    owners: dict[str, list[str]] = {}
    for _ in range(random.randrange(9)):
        name = ".".join(random.choice(LABELS) for _ in range(random.randrange(1, 4)))
        kind = random.choice(list(SINGLE))
        records = owners.setdefault(name, [])
        alone = kind in ("CNAME", "DNAME")
        if (alone and records) or any("CNAME" in one or "DNAME" in one for one in records):
            continue
        if "*" in name and kind in ("NS", "DNAME"):
            continue
        records.append(SINGLE[kind](random))
    # Nothing may stand below a DNAME.
    tops = [name for name, some in owners.items() if any("DNAME" in one for one in some)]
    lines = [
        f"{name} {record}"
        for name, some in owners.items()
        if not any(name.endswith("." + top) for top in tops)
        for record in some
    ]
    soa = f"@ SOA ns1 h {serial} 7200 1800 1209600 300\n@ NS ns1\nns1 A 192.0.2.53\n"
    return "$ORIGIN example.test.\n$TTL 60\n" + soa + "\n".join(dict.fromkeys(lines)) + "\n"


def build(random: Random, serial: int) -> Zone:
    while True:
        try:
            return Zone.from_text(text(random, serial))
        except LocalError:
            continue


def questions() -> list[bytes]:
    names = ["@"] + [
        ".".join(parts)
        for parts in (
            *[(one,) for one in (*LABELS, "x")],
            *[(one, two) for one in (*LABELS, "x") for two in LABELS],
            *[(one, two, three) for one in ("a", "x") for two in LABELS for three in LABELS],
            ("x", "a", "b", "c"),
        )
    ]
    return [
        question("example.test." if name == "@" else f"{name}.example.test.", rdtype)
        for name in names
        for rdtype in ("A", "MX", "NS", "ANY", "SOA", "DS")
    ]


def shape(one: Zone) -> object:
    return {
        name: (
            node.owner.lower(),
            {rtype: (rrset.ttl, sorted(rrset.rdatas)) for rtype, rrset in node.rrsets.items()},
            node.cover.name if node.cover is not None else None,
            node.wildcard.name if node.wildcard is not None else None,
            node.children,
        )
        for name, node in one.nodes.items()
    }


@pytest.mark.parametrize("seed", range(60))
def test_edited_zones_and_catalogs_are_as_made_anew(seed: int) -> None:
    random = Random(seed)
    served = build(random, 1)
    catalog = Catalog([served])
    asked = questions()
    for serial in range(2, 6):
        wanted = build(random, serial)
        before = shape(served)
        edited = apply(served, difference(served, wanted))
        assert shape(served) == before
        assert shape(edited.zone) == shape(wanted)
        assert edited.zone.records == wanted.records
        for node in edited.zone.nodes.values():
            for other in (node.cover, node.wildcard):
                assert other is None or edited.zone.nodes[other.name] is other
        for query in random.sample(asked, 40):
            catalog.answer(query)  # so that something is remembered
        served = edited.zone
        catalog.edit(edited)
        fresh = Catalog([served])
        for query in asked:
            assert catalog.answer(query) == fresh.answer(query)


def exactly(one: Zone) -> object:
    """Everything, the order of records and the case of names too, but for the order of names."""
    return (
        one.records,
        one.signed,
        {
            name: (
                node.owner,
                {
                    rtype: (rrset.ttl, rrset.rdatas, rrset.where, rrset.signatures is not None)
                    for rtype, rrset in node.rrsets.items()
                },
                node.cover.name if node.cover is not None else None,
                node.wildcard.name if node.wildcard is not None else None,
                node.children,
            )
            for name, node in one.nodes.items()
        },
    )


def one_by_one(one: Zone, changes: list[Difference]) -> Edited:
    touched: set[bytes] = set()
    for change in changes:
        edited = apply(one, change)
        one, touched = edited.zone, touched | edited.names
    return Edited(one, frozenset(touched))


def signed_by_turns(one: Zone) -> Zone:
    """With a signature of the SOA in versions of odd serials."""
    if not one.serial % 2:
        return one
    rdata = rdata_of(f"SOA 13 3 60 20400101000000 20200101000000 1 {one.name} AAAA")
    denial = bytes((*one.origin, 0, 7, 0x22, 0, 0, 0, 0, 3, 0x80))  # NS SOA RRSIG NSEC DNSKEY
    before = soa_record(one)
    added = ((one.origin, RRSIG, 60, rdata), (one.origin, NSEC, 60, denial))
    return apply(one, Difference(before, before, (), added)).zone


def rdata_of(words: str) -> bytes:
    return dns.rdata.from_text("IN", "RRSIG", words).to_wire() or b""


@pytest.mark.parametrize("seed", range(60))
def test_rfc1995_4_many_versions_at_once_are_as_one_after_another(seed: int) -> None:
    """To the letter: records in their order, owners as they were last spelt, covers, everything."""
    random = Random(seed)
    versions = [build(random, serial) for serial in range(1, 8)]
    if seed % 3 == 0:
        versions = [signed_by_turns(one) for one in versions]
    changes = [difference(*pair) for pair in itertools.pairwise(versions)]
    if seed % 2:
        # A name that comes back is spelt in another way.
        upper = [
            tuple((one[0].upper(), *one[1:]) for one in change.added) for change in changes[1::2]
        ]
        changes[1::2] = [
            change._replace(added=added) for change, added in zip(changes[1::2], upper, strict=True)
        ]
    before = exactly(versions[0])
    wanted, got = one_by_one(versions[0], changes), apply_all(versions[0], changes)
    assert exactly(got.zone) == exactly(wanted.zone)
    assert got.names >= wanted.names & got.zone.nodes.keys()
    assert exactly(versions[0]) == before
    for node in got.zone.nodes.values():
        for other in (node.cover, node.wildcard):
            assert other is None or got.zone.nodes[other.name] is other
    catalog, fresh = Catalog([versions[0]]), Catalog([wanted.zone])
    asked = questions()
    for query in random.sample(asked, 40):
        catalog.answer(query)
    catalog.edit(got)
    for query in asked:
        assert catalog.answer(query) == fresh.answer(query)


def step(serial: int, removed: str = "", added: str = "", onto: int = 0) -> Difference:
    """From a serial to the next, by A records of the names."""
    soa = soa_record(zone(""))
    old, new = ((*soa[:3], with_serial(soa[3], one)) for one in (serial, onto or serial + 1))
    some = [
        tuple((bytes((1, ord(letter))) + soa[0], A, 60, b"\1\2\3\4") for letter in letters)
        for letters in (removed, added)
    ]
    return Difference(old, new, *some)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ([step(1, added="a"), step(3)], "is from 3, not from 2"),
        ([step(2)], "is from 2, not from 1"),
        # What the sum of both would not show.
        ([step(1, added="a"), step(2, added="a"), step(3, removed="a")], "has this record already"),
        ([step(1, removed="a"), step(2, added="a")], "has no such record"),
        ([step(1, added="a"), step(2, removed="a"), step(3, removed="a")], "has no such record"),
    ],
)
def test_rfc1995_4_versions_that_do_not_fit_are_noticed(
    changes: list[Difference], complaint: str
) -> None:
    one = zone("")
    one.renumber(1)
    with pytest.raises(LocalError, match=complaint):
        apply_all(one, changes)
    with pytest.raises(LocalError, match=complaint):
        one_by_one(one, changes)
    assert apply_all(one, ()).zone.apex.rrsets[SOA].rdatas == one.soa.rdatas


def test_zones_that_come_and_go_within_others() -> None:
    """A name belongs to the deepest zone that has it, whenever that came."""
    outer = zone("x.sub A 192.0.2.1\nsub NS ns1\nal CNAME w.sub\n")
    inner = zone("w A 192.0.2.9\n", origin="sub.example.test.")
    other = zone("y A 192.0.2.3\n", origin="sub.example.test.")
    asked = [
        question(name, rdtype)
        for name in ("sub.example.test.", "x.sub.example.test.", "w.sub.example.test.",
                     "q.w.sub.example.test.", "al.example.test.", "y.sub.example.test.")
        for rdtype in ("A", "NS", "DS", "SOA")
    ]  # fmt: skip
    catalog = Catalog([outer])

    def same_as(*zones: Zone) -> None:
        fresh = Catalog(zones)
        for _ in range(2):
            for query in asked:
                assert catalog.answer(query) == fresh.answer(query)

    same_as(outer)
    catalog.replace(inner, catalog.render_zone(inner))
    same_as(outer, inner)
    catalog.replace(other)
    same_as(outer, other)
    catalog.remove(other.origin)
    same_as(outer)
    catalog.remove(outer.origin)
    same_as()
    catalog.replace(inner)
    same_as(inner)
    catalog.replace(outer)
    same_as(inner, outer)


def test_a_zone_without_data_is_not_refused() -> None:
    """RFC 1035 §4.3.5: what has expired is not answered from, and not denied either."""
    inner = zone("w A 192.0.2.9\n", origin="sub.example.test.")
    outer = zone("sub NS ns1\n")
    catalog = Catalog([outer, inner])
    assert Reply(catalog.answer(question("w.sub.example.test."))).rcode == "NOERROR"
    catalog.expire(inner.origin)
    for name in ("w.sub.example.test.", "sub.example.test.", "n.sub.example.test."):
        assert Reply(catalog.answer(question(name))).rcode == "SERVFAIL", name
    assert Reply(catalog.answer(question("elsewhere.test."))).rcode == "REFUSED"
    assert Reply(catalog.answer(question("n.example.test."))).rcode == "NXDOMAIN"
    catalog.replace(inner)
    assert Reply(catalog.answer(question("w.sub.example.test."))).rcode == "NOERROR"


def test_an_alias_into_a_zone_without_data_ends_there() -> None:
    """RFC 1035 §4.3.5: the zone above does not know what is below, so it denies nothing."""
    inner = zone("w A 192.0.2.9\n", origin="sub.example.test.")
    catalog = Catalog([zone("a CNAME w.sub\n*.d CNAME w.sub\n"), inner])
    catalog.expire(inner.origin)
    for name in ("a.example.test.", "x.d.example.test."):
        for _ in range(2):
            reply = Reply(catalog.answer(question(name)))
            assert (reply.rcode, reply.kinds()) == ("NOERROR", (["CNAME"], [], []))


def test_a_difference_of_another_version_is_refused() -> None:
    """RFC 1995 §4: differences are applied to the version that they name."""
    one, two = zone("a A 192.0.2.1\n"), zone("a A 192.0.2.2\n")
    change = difference(one, two)
    edited = apply(one, change)
    assert edited.zone.nodes[b"\1a\7example\4test\0"].rrsets[1].rdatas == (b"\xc0\0\2\2",)
    with pytest.raises(LocalError):
        apply(edited.zone, change)  # the record that must go is not there
    assert apply(edited.zone, change, lenient=True).zone.records == two.records


@pytest.mark.parametrize("seed", range(20))
def test_zones_of_any_depth_that_come_and_go(seed: int) -> None:
    """The root's and those between, too: whatever came before, answers are as if it were new."""
    random = Random(seed)
    origins = [".", "test.", "a.test.", "b.a.test.", "c.b.a.test.", "x.test.", "x.y.test."]
    zones = {
        origin: zone("q A 192.0.2.1\n*.w A 192.0.2.2\nb.a A 192.0.2.3\nx NS ns1\n", origin=origin)
        for origin in origins
    }
    asked = [
        question(f"{label}.{origin}".replace("..", "."), "A")
        for origin in origins
        for label in ("q", "n.w", "none", "a", "n.b.a", "b", "n.x", "x.y")
    ]
    catalog, there, absent = Catalog([]), {}, set[str]()
    for _ in range(30):
        origin = random.choice(origins)
        one = zones[origin]
        absent.discard(origin)
        action = random.choice(["come", "come", "go", "expire"])
        if action == "come":
            catalog.replace(one, catalog.render_zone(one) if random.random() < 0.5 else None)
            there[origin] = one
        elif action == "go":
            catalog.remove(one.origin)
            there.pop(origin, None)
        else:
            catalog.expire(one.origin)
            there.pop(origin, None)
            absent.add(origin)
        fresh = Catalog(there.values())
        for other in absent:
            fresh.expire(zones[other].origin)
        assert places(catalog) == places(fresh)
        assert catalog._places._nested == fresh._places._nested
        assert catalog._places._below == fresh._places._below
        lookup = Lookup(catalog.zones)
        for query in asked:
            answer = catalog.answer(query)
            assert answer == fresh.answer(query)
            wanted = lookup.resolve(query[12 : query.index(b"\0", 12) + 1], A).rcode
            assert answer is not None
            assert answer[3] & 15 == wanted


def places(catalog: Catalog) -> dict[bytes, object]:
    """What each name of its table means."""
    meant = {number: key for key, number in catalog._places._numbers.items()}
    return {name: meant.get(place) for name, place in catalog._places.table.items()}


def asked_in_turn(catalog: Catalog, *questions: str) -> list[str]:
    """Response codes and whose SOA comes along, of a row of questions."""
    out = []
    for one in questions:
        reply = Reply(catalog.answer(question(*one.split())))
        out.append(f"{reply.rcode} {' '.join(line.split()[0] for line in reply.authority)}")
    return out


def test_rfc1034_4_3_2_a_zone_within_one_that_is_replaced_keeps_its_names() -> None:
    """A name of the same length that does not exist is asked for first, and is remembered."""
    delegation = "sub NS ns.sub\nns.sub A 192.0.2.1\n"
    inner = zone("ns A 192.0.2.1\n", origin="sub.test.")
    catalog = Catalog([zone(delegation, origin="test."), inner])
    catalog.replace(zone(delegation + "new A 192.0.2.7\n", origin="test."))
    assert asked_in_turn(
        catalog, "xxx.test. TXT", "sub.test. TXT", "xx.xxx.test. AAAA", "ns.sub.test. AAAA"
    ) == ["NXDOMAIN test.", "NOERROR sub.test.", "NXDOMAIN test.", "NOERROR sub.test."]


def test_rfc1034_4_3_2_what_a_zone_within_another_hides_is_hidden() -> None:
    """Of the outer zone there may be names that the inner one does not have."""
    outer = zone("n.sub A 192.0.2.1\n", origin="test.")
    catalog = Catalog([outer])
    catalog.replace(zone(origin="sub.test."))
    assert asked_in_turn(catalog, "qqqqqqq.test. A", "q.n.sub.test. A") == [
        "NXDOMAIN test.",
        "NXDOMAIN sub.test.",
    ]


@pytest.mark.parametrize("again", [False, True])
def test_rfc1035_4_3_5_nothing_of_an_expired_zone_is_answered_by_one_around_it(
    again: bool,
) -> None:
    outer = zone("n.sub A 192.0.2.1\n", origin="test.")
    catalog = Catalog([outer])
    catalog.expire(b"\3sub\4test\0")
    if again:
        catalog.replace(outer, catalog.render_zone(outer))
    asked = ("qqqqqqq.test. A", "q.n.sub.test. A", "n.sub.test. A", "sub.test. A")
    assert asked_in_turn(catalog, *asked) == ["NXDOMAIN test.", *["SERVFAIL "] * 3]
    catalog.remove(b"\3sub\4test\0")
    assert asked_in_turn(catalog, *asked) == [
        "NXDOMAIN test.",
        "NXDOMAIN test.",
        "NOERROR ",
        "NOERROR test.",
    ]


def test_a_zone_that_comes_looks_at_those_around_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    is_below = names.is_below

    def looked(name: bytes, other: bytes) -> bool:
        nonlocal looks
        looks += 1
        return is_below(name, other)

    zones = [zone(origin=f"z{number}.test.") for number in range(200)]
    catalog = Catalog([zone(origin="test."), zone(origin="z7.example.")])
    monkeypatch.setattr(names, "is_below", looked)
    for one in zones:
        catalog.replace(one)
    assert looks < 10 * len(zones)


def mail(*numbers: int, upper: bool = False) -> tuple[tuple[bytes, int, int, bytes], ...]:
    """MX records of the apex."""
    apex = soa_record(zone(""))[0]
    hosts = [bytes((4,)) + f"h{number:03}".encode() + apex for number in numbers]
    return tuple((apex, MX, 60, b"\0\1" + (one.upper() if upper else one)) for one in hosts)


def turn(serial: int, removed: tuple[Any, ...] = (), added: tuple[Any, ...] = ()) -> Difference:
    return step(serial)._replace(removed=removed, added=added)


def test_large_sets_are_edited_as_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 2181 §5: a record is there once, in whatever case its names are written."""
    one = zone("")
    one.renumber(1)
    looks = 0
    real = edit.canonical

    def looked(rtype: int, rdata: bytes) -> bytes:
        nonlocal looks
        looks += 1
        return real(rtype, rdata)

    monkeypatch.setattr(edit, "canonical", looked)
    several = [
        turn(1, (), mail(*range(300))),
        turn(2, mail(5, upper=True), mail(5)),
        turn(3, mail(*range(295)), ()),
        turn(4, (), mail(*range(20))),
    ]
    edited = apply_all(one, several).zone
    assert looks < 300 * 300 / 4
    assert exactly(edited) == exactly(one_by_one(one, several).zone)
    for wrong in (turn(5, (), mail(7, upper=True)), turn(5, (), mail(299)), turn(5, mail(20))):
        with pytest.raises(LocalError):
            apply_all(one, [*several, wrong])
    gone = turn(5, mail(*range(20), *range(295, 300)))
    back = turn(6, (), mail(1))
    assert exactly(apply_all(one, [*several, gone, back]).zone) == exactly(
        one_by_one(one, [*several, gone, back]).zone
    )


def test_rfc1035_4_2_2_no_set_is_larger_than_a_message_could_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever sends a million records of one name and type would keep everybody waiting."""
    for module in (edit, zones):
        monkeypatch.setattr(module, "MAX_SET", 20)
    one = zone("")
    one.renumber(1)
    assert len(apply(one, turn(1, (), mail(*range(20)))).zone.apex.rrsets[MX].rdatas) == 20
    with pytest.raises(LocalError, match="a set of more than"):
        apply(one, turn(1, (), mail(*range(21))))
    builder = zones.ZoneBuilder(one.origin)
    for record in mail(*range(20)):
        assert builder.add(*record) is None
    assert builder.add(*mail(3)[0]) is not None  # there already
    with pytest.raises(LocalError, match="a set of more than"):
        builder.add(*mail(20)[0])
    with pytest.raises(ZoneError, match="a set of more than"):
        zone("".join(f"@ MX 1 h{number}\n" for number in range(30)))
