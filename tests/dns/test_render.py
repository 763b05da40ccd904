"""Octets: compression, its limits, cutting at whole RRsets."""

from __future__ import annotations

import dns.message
import dns.name
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import names
from appliance.dns.consts import CNAME, MX, NS, SOA, SRV, TXT, A
from appliance.dns.render import MAX_POINTERS, QUESTION_NAME, fit, question_table, render
from appliance.dns.zone import RRset

QNAME = names.from_text("www.Example.test.")
BASE = 12 + len(QNAME) + 4
HEADER = bytes((0x12, 0x34, 0x84, 0, 0, 1))


def message(body: bytes, answers: int) -> dns.message.Message:
    counts = answers.to_bytes(2, "big") + bytes(4)
    return dns.message.from_wire(HEADER + counts + QNAME + b"\0\1\0\1" + body)


def rendered(*records: tuple[bytes, RRset]) -> tuple[bytes, dns.message.Message]:
    body = render(question_table(QNAME), BASE, records, (), (), ())
    return body.octets, message(body.octets, body.marks[-1].answers)


def wire(text: str) -> bytes:
    return names.from_text(text, names.ROOT)


SERVERS = ("ns.Other.example", "n2.other.example")


def test_names_point_to_the_question_in_any_case_and_to_each_other_in_their_own() -> None:
    """RFC 1035 §4.1.4; RFC 4343: the case that the owner wrote is kept."""
    octets, read = rendered(
        (QUESTION_NAME, RRset(CNAME, 1, (wire("a.EXAMPLE.TEST"),))),
        (
            wire("a.EXAMPLE.TEST"),
            RRset(NS, 1, (wire("ns.Other.example"), wire("n2.other.example"))),
        ),
    )
    # Owner, fixed part and `a` with a pointer to the question's tail.
    assert octets[:16] == b"\xc0\x0c\0\x05\0\1\0\0\0\1\0\4\1a\xc0\x10"
    assert [str(rdata) for rdata in read.answer[1]] == ["ns.Other.example.", "n2.other.example."]
    assert str(read.answer[0][0]) == "a.Example.test."
    # The tails that differ in case were not shared, the one that does not was.
    assert octets.count(b"\x07example\0") == 1
    assert octets.lower().count(b"\x05other") == 2


def test_rfc3597_4_only_old_types_are_compressed() -> None:
    """RFC 3597 §4; RFC 2782 forbids it for SRV in so many words."""
    octets, _ = rendered((QUESTION_NAME, RRset(SRV, 1, (bytes(6) + QNAME,))))
    assert octets.endswith(QNAME)
    octets, read = rendered((QUESTION_NAME, RRset(MX, 1, (b"\0\x05" + QNAME,))))
    assert octets.endswith(b"\0\4\0\5\xc0\x0c")
    assert str(read.answer[0][0]) == "5 www.Example.test."


def test_soa_has_two_names() -> None:
    rdata = QNAME + wire("host.example.test.") + bytes(20)
    octets, read = rendered((QUESTION_NAME, RRset(SOA, 1, (rdata,))))
    assert len(octets) == 12 + 2 + 7 + 20
    assert str(read.answer[0][0]) == "www.Example.test. host.Example.test. 0 0 0 0 0"


def test_nothing_points_past_16_kilobytes() -> None:
    """RFC 1035 §4.1.4: 14 bits; larger answers over TCP must be right all the same."""
    filler = RRset(TXT, 1, tuple(b"\xff" + bytes((n,)) * 255 for n in range(70)))
    late = tuple(b"\0\1" + wire(f"mail{n % 3}.late{n % 5}.example.org") for n in range(15))
    octets, read = rendered((wire("x.example."), filler), (wire("y.example."), RRset(MX, 1, late)))
    assert len(octets) > 0x4000
    assert {str(rdata.exchange) for rdata in read.answer[1]} == {
        f"mail{n % 3}.late{n % 5}.example.org." for n in range(15)
    }
    assert str(read.answer[1].name) == "y.example."


def test_chains_of_pointers_are_short() -> None:
    records = []
    owner = wire("a.growing.")
    for _ in range(60):
        target = b"\x01a" + owner
        records.append((owner, RRset(CNAME, 1, (target,))))
        owner = target
    body = render(question_table(QNAME), BASE, records, (), (), ())
    whole = HEADER + b"\0\x3c\0\0\0\0" + QNAME + b"\0\1\0\1" + body.octets
    assert len(dns.message.from_wire(whole).answer) == 60
    for start in range(BASE, len(whole) - 2):
        at, hops = start, 0
        while whole[at] >= 0xC0 and hops <= MAX_POINTERS + 1:
            at = (whole[at] & 0x3F) << 8 | whole[at + 1]
            hops += 1
            while at < len(whole) and 0 < whole[at] < 64:
                at += 1 + whole[at]
            if at >= len(whole):
                break
        assert hops <= MAX_POINTERS + 1


LABEL = st.sampled_from([b"a", b"A", b"bb", b"example", b"Example", b"test"])
NAME = st.lists(LABEL, max_size=6).map(
    lambda labels: b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
)


@given(NAME, st.lists(st.tuples(NAME, NAME), max_size=12))
def test_any_names_come_back_as_they_went_in(
    qname: bytes, pairs: list[tuple[bytes, bytes]]
) -> None:
    records = [(owner, RRset(CNAME, n, (target,))) for n, (owner, target) in enumerate(pairs)]
    body = render(question_table(qname), 12 + len(qname) + 4, records, (), (), ())
    counts = len(pairs).to_bytes(2, "big") + bytes(4)
    read = dns.message.from_wire(
        HEADER + counts + qname + b"\0\1\0\1" + body.octets, one_rr_per_rrset=True
    )
    for (owner, target), rrset in zip(pairs, read.answer, strict=True):
        assert rrset.name == dns.name.from_wire(owner, 0)[0]
        assert rrset[0].target == dns.name.from_wire(target, 0)[0]


def test_a_shape_renders_the_same_for_every_name_of_its_length() -> None:
    soa = RRset(SOA, 1, (wire("ab.cd.example.test.") + wire("h.example.test.") + bytes(20),))
    tail = wire("example.test.")
    bodies = []
    for text in ("abcde.example.test.", "ab.cd.example.test.", "a.b.c.example.test."):
        name = wire(text)
        table = question_table(name, len(tail))
        bodies.append(render(table, 12 + len(name) + 4, (), [(tail, soa)], (), ()).octets)
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0].startswith(b"\xc0\x12\0\x06")


def rrset(octet: int) -> RRset:
    return RRset(A, 1, (bytes(4), bytes((octet,) * 4)))


@pytest.mark.parametrize(
    ("room", "counts", "truncated"),
    [
        (1000, (2, 2, 4), False),
        (32 * 4, (2, 2, 4), False),
        (32 * 4 - 1, (2, 2, 2), False),
        (32 * 3 - 1, (2, 2, 0), True),
        (32 * 2 - 1, (2, 0, 0), True),
        (31, (0, 0, 0), True),
        (-5, (0, 0, 0), True),
    ],
)
def test_rfc2181_9_rrsets_are_whole_and_tc_tells_what_is_missing(
    room: int, counts: tuple[int, int, int], truncated: bool
) -> None:
    """RFC 2181 §5.1, §9: no part of an RRset; TC only for what was required (glue: RFC 9471)."""
    parts = [[(QUESTION_NAME, rrset(n))] for n in range(4)]
    body = render(question_table(QNAME), BASE, *parts)
    mark, tc = fit(body.marks, body.required, room)
    assert (mark[1:], tc) == (counts, truncated)
    assert mark.end == 16 * sum(counts)
