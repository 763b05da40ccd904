"""The ways through `Catalog.answer` lead to the same octets, whatever is asked."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import Catalog, Zone, ZoneError, names
from appliance.dns.cache import Generations
from appliance.dns.quick import name_end
from tests.dns.util import DATA, question, zone

ZONE = Zone.from_file(DATA / "corner.zone")
OTHER = zone(
    "*.w A 192.0.2.1\nsub NS ns.sub\nns.sub A 192.0.2.2\nout CNAME alias.corner.test.\n"
    "*.h HTTPS 1 . alpn=h2\n*.h A 192.0.2.3\n*.h2 HTTPS 1 x.h2\n*.h2 A 192.0.2.4\n"
    "*.m MX 1 x.m\n*.m MX 2 y.m\n*.m A 192.0.2.5\n*.c CNAME x.h\n*.cc CNAME x.cc\n",
    "other.test.",
)
CHILD = zone("a A 192.0.2.6\n", "sub.corner.test.")
ZONES = [ZONE, OTHER, CHILD]
TYPES = [
    "A",
    "AAAA",
    "NS",
    "CNAME",
    "DNAME",
    "SOA",
    "TXT",
    "MX",
    "SRV",
    "SVCB",
    "HTTPS",
    "DS",
    "ANY",
    "TYPE65500",
    "TYPE97",
    "RRSIG",
]


@pytest.mark.parametrize(
    ("octets", "end"),
    [
        (b"\0", 13),
        (b"\1a\0", 15),
        (b"\x3f" + b"a" * 63 + b"\0", 77),
        (b"\x40" + b"a" * 64 + b"\0", 0),
        ((b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0", 267),
        ((b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0", 0),
        (b"\xc0\x0c", 0),
        (b"\1a\xc0\x0c", 0),
        (b"\3a\0", 0),
        (b"", 0),
    ],
)
def test_where_a_plain_name_ends(octets: bytes, end: int) -> None:
    """RFC 1035 §2.3.4: labels of 63 octets at most, names of 255; §4.1.4: pointers are none."""
    assert name_end(bytes(12) + octets) == end


@cache
def ready() -> Catalog:
    """Everything rendered at load."""
    return Catalog(ZONES)


@cache
def lazy() -> Catalog:
    """Nothing rendered at load, everything remembered."""
    return Catalog(ZONES, eager=0)


@cache
def forgetful() -> Catalog:
    """Its memory is taken away before each query; see `slow`."""
    return Catalog(ZONES, eager=0)


def slow(query: bytes) -> bytes | None:
    """Parsed, decided and rendered for this query alone."""
    catalog = forgetful()
    catalog._warm = Generations(2, 2)
    catalog._shaped = Generations(2, 2)
    return catalog._slow.answer(query, "udp")


def all_names() -> list[str]:
    """Every name there is, names below each, and names beside all zones."""
    known = {names.to_text(node.owner) for zone in ZONES for node in zone.nodes.values()}
    below = {f"{label}.{name}" for name in known for label in ("zz", "a.b", "*", "_tcp")}
    return sorted(known | below | {"test.", "corner.tes.", "nowhere."})


def variants(name: str, rdtype: str, seed: int) -> list[bytes]:
    """The same question with and without EDNS, RD, DO, and in another case."""
    case = random.Random(seed)
    mixed = "".join(char.swapcase() if case.random() < 0.5 else char for char in name)
    return [
        question(name, rdtype),
        question(mixed, rdtype, flags=0x0100),
        question(name, rdtype, use_edns=0, payload=1232),
        question(mixed, rdtype, use_edns=0, payload=4096, ednsflags=0x8000, flags=0x0120),
    ]


def test_every_name_and_type_by_every_way() -> None:
    for number, name in enumerate(name for name in all_names() if len(name) < 200):
        for rdtype in TYPES[number % 3 :: 3]:
            for query in variants(name, rdtype, number):
                expected = slow(query)
                assert ready().answer(query) == expected, (name, rdtype)
                assert lazy().answer(query) == expected, (name, rdtype)
                assert lazy().answer(query) == expected, (name, rdtype)


LABEL = st.sampled_from(
    [*b"a x * w h h2 m sub ns1 wild dn c wc star".split(), b"\0", b"\0\0\1", b"A\0\x06corner"]
)
APEX = st.sampled_from(
    [b"\x06corner\x04test\0", b"\x05other\x04test\0", b"\x03sub\x06corner\x04test\0", b"\0"]
)
QNAME = st.builds(
    lambda labels, apex: b"".join(bytes((len(label),)) + label for label in labels) + apex,
    st.lists(LABEL, max_size=5),
    APEX,
)


@given(QNAME, st.sampled_from([1, 2, 5, 6, 15, 16, 28, 39, 43, 64, 65, 97, 255, 252, 41]),
       st.sampled_from([b"\0\1", b"\0\xff", b"\0\3"]), st.booleans())  # fmt: skip
def test_odd_names_by_every_way(qname: bytes, qtype: int, qclass: bytes, edns: bool) -> None:
    """Labels with zero octets in them, of which the plain path could mistake the end."""
    query = (
        b"\xab\xcd\1\0\0\1\0\0\0\0\0" + bytes((edns,)) + qname + qtype.to_bytes(2, "big") + qclass
    )
    if edns:
        query += b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    expected = slow(query)
    assert ready().answer(query) == expected
    assert lazy().answer(query) == expected
    assert lazy().answer(query) == expected


def test_a_flood_does_not_push_out_what_is_hot() -> None:
    catalog = Catalog([zone("a A 192.0.2.1")])
    chance = random.Random(1)
    for _ in range(2000):
        name = f"{chance.getrandbits(64):x}.example.test."
        assert catalog.answer(question(name)) is not None
    before = catalog.counters.hot
    catalog.answer(question("a.example.test."))
    assert catalog.counters.hot == before + 1
    assert catalog.counters.slow < 20
    assert len(catalog._warm) == 0


def random_name(chance: random.Random, longest: int) -> str:
    return ".".join(chance.choice("abcd*") for _ in range(chance.randrange(1, longest + 1)))


def random_zone(chance: random.Random, origin: str) -> Zone | None:
    """A zone of odd records; what makes it refused is thrown out again by chance."""
    kinds = ("A 192.0.2.1", "TXT x", "NS {}", "CNAME {}.{}", "DNAME {}", "MX 1 {}.{}")
    lines = [
        f"{random_name(chance, 3)} {chance.choice(kinds).format(*chance.choices('abcd', k=2))}"
        for _ in range(chance.randrange(8))
    ]
    while lines:
        try:
            return zone("\n".join(lines), origin)
        except ZoneError:
            lines.pop(chance.randrange(len(lines)))
    return None


@pytest.mark.parametrize("seed", range(25))
def test_random_zones_one_below_the_other_by_every_way(seed: int) -> None:
    chance = random.Random(seed)
    origins = ("t.", "a.t.", "b.a.t.", "c.t.")
    zones = [found for origin in origins if (found := random_zone(chance, origin)) is not None]
    eager, remembering, slow_one = (Catalog(zones, eager=count) for count in (1000, 0, 0))
    for _ in range(100):
        name = f"{random_name(chance, 4)}.{chance.choice(origins)}"
        query = question(
            name, chance.choice(["A", "TXT", "NS", "CNAME", "DNAME", "DS", "MX", "ANY"])
        )
        slow_one._warm = Generations(2, 2)
        slow_one._shaped = Generations(2, 2)
        expected = slow_one._slow.answer(query, "udp")
        assert eager.answer(query) == expected, name
        assert remembering.answer(query) == expected, name
        assert remembering.answer(query) == expected, name
