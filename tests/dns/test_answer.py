"""Headers, EDNS, sizes and hostile octets (RFC 8906, 6891, 2181)."""

from __future__ import annotations

import pickle

import dns.edns
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import Catalog, Counters, Zone
from appliance.dns.zonefile import Reader
from appliance.dns.zonefile import read as read_any
from tests.dns.util import SOA, Reply, ask, corner, question, zone

CORNER = corner()
NAME = "ns1.corner.test."
PLAIN = question(NAME)


def header(wire: bytes | None) -> tuple[int, int, list[int]]:
    assert wire is not None
    counts = [int.from_bytes(wire[at : at + 2], "big") for at in (4, 6, 8, 10)]
    return wire[2], wire[3], counts


def flags(query: bytes, first: int, second: int) -> bytes:
    return query[:2] + bytes((first, second)) + query[4:]


@pytest.mark.parametrize(
    "name", [NAME, "none.ns1.corner.test.", "x.sub.corner.test.", "x.dn.corner.test."]
)
def test_rfc8906_3_1_identifier_and_rd_are_copied_and_the_rest_is_ours(name: str) -> None:
    """RFC 1035 §4.1.1; RFC 4035 §3.1.6 (AD, CD); RFC 8906 §3.1.3 (Z)."""
    query = question(name)
    for first in range(8):
        for second in (0, 0x10, 0x20, 0x40, 0x7F):
            asked = b"\xab\xcd" + flags(query, first, second)[2:]
            wire = CORNER.answer(asked)
            assert wire is not None
            assert wire[:2] == b"\xab\xcd"
            assert wire[2] & 0xFB == 0x80 | first & 1
            assert wire[3] & 0xF0 == 0


@pytest.mark.parametrize(
    "name", [NAME, "none.ns1.corner.test.", "x.dn.corner.test.", "abroad.test."]
)
def test_a_query_in_a_bytearray_is_answered_as_one_in_bytes(name: str) -> None:
    """As dnslib packs them."""
    for query in (question(name), question(name, use_edns=0), question(name, want_dnssec=True)):
        for other in (bytearray(query), memoryview(query)):
            assert CORNER.answer(other) == CORNER.answer(query) is not None
    assert CORNER.answer(bytearray(b"\0\1")) is None


@pytest.mark.parametrize("name", ["NS1.cOrNeR.tEsT.", "X.dN.corner.TEST.", "Zz.wIld.corner.test."])
def test_the_question_comes_back_as_it_was_written(name: str) -> None:
    """RFC 4343 §4.1 and every resolver that varies the case as a nonce."""
    for how in ({}, {"use_edns": 0}):
        query = question(name, **how)
        wire = CORNER.answer(query)
        assert wire is not None
        end = wire.index(b"\0", 12) + 5
        assert wire[12:end] == query[12:end]
        assert str(Reply(wire).message.answer[0].name).lower() in (name.lower(), "dn.corner.test.")


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 7, 15])
def test_rfc8906_3_1_4_unknown_opcodes(opcode: int) -> None:
    """RFC 8906 §3.1.3, §3.1.4, §8.1.4: NOTIMP, the opcode in place, nothing more, not even RD."""
    for rest in (PLAIN[4:], bytes(8), b"\xff" * 8):
        wire = CORNER.answer(PLAIN[:2] + bytes((opcode << 3 | 1, 0)) + rest)
        assert wire is not None
        assert len(wire) == 12
        assert header(wire) == (0x80 | opcode << 3, dns.rcode.NOTIMP, [0, 0, 0, 0])


def test_silence() -> None:
    """Responses and fragments of a header are not answered."""
    counters = Counters()
    catalog = Catalog([zone()], counters=counters)
    for octets in (b"", b"x", PLAIN[:11], flags(PLAIN, 0x80, 0), b"\xff" * 100):
        assert catalog.answer(octets) is None
        assert catalog.answer(octets, transport="tcp") is None
    assert counters.dropped == 10


def test_rfc8906_3_1_2_unknown_types() -> None:
    """RFC 8906 §3.1.2: NODATA for types that nobody knows."""
    for rdtype in ("TYPE1000", "TYPE65279", "TYPE130", "A6", "NSAP"):
        reply = ask(CORNER, NAME, rdtype)
        assert (reply.rcode, reply.kinds()) == ("NOERROR", ([], ["SOA"], []))


@pytest.mark.parametrize(
    ("rdtype", "rcode"),
    [
        ("OPT", "FORMERR"),
        ("TSIG", "FORMERR"),
        ("TKEY", "FORMERR"),
        ("AXFR", "NOTAUTH"),  # of what is no zone of ours
        ("IXFR", "NOTAUTH"),
        ("MAILA", "NOTIMP"),
        ("MAILB", "NOTIMP"),
    ],
)
def test_types_that_are_no_questions(rdtype: str, rcode: str) -> None:
    """RFC 6895 §3.1, RFC 5936 §2.2.1, RFC 1035 §3.2.3; of any name, in any path."""
    for name in (NAME, "none.ns1.corner.test.", "x.sub.corner.test.", "x.wild.corner.test."):
        for transport in ("udp", "tcp"):
            reply = Reply(CORNER.answer(question(name, rdtype), transport=transport))
            assert (reply.rcode, reply.flags, reply.kinds()) == (rcode, {"QR"}, ([], [], []))


def test_classes() -> None:
    """RFC 1035 §6.2 (ANY: no AA); CHAOS and the rest are refused."""
    for rdclass in ("CH", "HS", "NONE", "CLASS1000"):
        wire = question("version.bind.", "TXT", rdclass=rdclass)
        assert Reply(CORNER.answer(wire)).rcode == "REFUSED"
    for name in (NAME, "none.ns1.corner.test.", "alias.corner.test."):
        both = [
            Reply(CORNER.answer(question(name, rdclass=rdclass)))
            for rdclass in ("IN", "ANY", "ANY")
        ]
        assert both[1].flags == both[2].flags == {"QR"}
        assert both[0].flags == {"QR", "AA"}
        assert both[0].answer == both[1].answer == both[2].answer
    assert Reply(CORNER.answer(question("example.", rdclass="ANY"))).rcode == "REFUSED"


def test_rfc6891_6_1_3_other_edns_versions() -> None:
    """RFC 6891 §6.1.3, RFC 8906 §8.2.2: BADVERS, our version, the question, no answer."""
    for version in (1, 100, 255):
        wire = question(NAME, use_edns=version, ednsflags=0x8000 | version << 16)
        message = Reply(CORNER.answer(wire)).message
        assert message.rcode() == dns.rcode.BADVERS
        assert (message.edns, message.answer, len(message.question)) == (0, [], 1)


def test_rfc8906_3_2_edns_flags_options_and_sizes() -> None:
    """RFC 8906 §3.2, §8.2: unknown options are ignored, unknown flags cleared, DO copied."""
    for edns_flags, copied in ((0, 0), (0x8000, 0x8000), (0x7FFF, 0), (0xFFFF, 0x8000)):
        wire = question(
            NAME,
            use_edns=0,
            payload=100,
            ednsflags=edns_flags,
            options=[dns.edns.GenericOption(65001, b"x"), dns.edns.GenericOption(100, b"")],
        )
        message = Reply(CORNER.answer(wire)).message
        assert (message.edns, message.ednsflags, message.payload) == (0, copied, 1232)
        assert list(message.options) == []
        assert len(message.answer) == 1


def test_no_edns_in_the_answer_unless_in_the_query() -> None:
    """RFC 6891 §7."""
    for name in (NAME, "none.ns1.corner.test.", "example.", "x.dn.corner.test."):
        assert Reply(CORNER.answer(question(name))).message.edns == -1
        assert Reply(CORNER.answer(question(name, use_edns=0))).message.edns == 0


def test_two_opts_and_other_nonsense_are_format_errors() -> None:
    """RFC 6891 §6.1.1: two OPTs MUST give FORMERR."""
    opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    message = PLAIN[:10] + b"\0\2" + PLAIN[12:] + opt + opt
    wire = CORNER.answer(message)
    assert header(wire)[1] == dns.rcode.FORMERR
    assert Reply(wire).message.edns == 0
    assert len(Reply(wire).message.question) == 1
    wire = CORNER.answer(PLAIN[:4] + bytes(8))
    assert wire == PLAIN[:2] + b"\x80\x01" + bytes(8)
    assert header(CORNER.answer(PLAIN + b"x")) == (0x80, dns.rcode.FORMERR, [1, 0, 0, 0])


def unjudged(text: str) -> Zone:
    """A zone as a primary elsewhere may have it: one of its sets goes into no message."""
    text = f"$ORIGIN example.test.\n$TTL 600\n{SOA}{text}"
    return read_any(Reader(None, judge=False), "<text>", text, None, None)


BIG = unjudged(
    "".join(f'big TXT "{chr(97 + n) * 200}"\n' for n in range(4))
    + "".join(f'huge TXT "{n:03d}{"x" * 250}"\n' for n in range(300))
    + "".join(f"sub NS ns{n}.sub\nns{n}.sub A 192.0.2.{n}\n" for n in range(40))
    + "".join(f"mx MX {n} mail{n}\nmail{n} AAAA 2001:db8::{n}\n" for n in range(20))
)


@pytest.mark.parametrize(
    ("how", "transport", "limit", "truncated"),
    [
        ({}, "udp", 512, True),
        ({"use_edns": 0, "payload": 512}, "udp", 512, True),
        ({"use_edns": 0, "payload": 1000}, "udp", 1000, False),
        ({"use_edns": 0, "payload": 4096}, "udp", 1232, False),
        ({}, "tcp", 65535, False),
    ],
)
def test_rfc2181_9_truncation(
    how: dict[str, int], transport: str, limit: int, truncated: bool
) -> None:
    """RFC 2181 §9, RFC 6891 §6.2.3 to §6.2.5: whole RRsets, TC, OPT kept."""
    catalog = Catalog([BIG])
    for _ in range(2):
        wire = catalog.answer(question("big.example.test.", "TXT", **how), transport=transport)
        assert wire is not None
        assert len(wire) <= limit
        reply = Reply(wire)
        assert ("TC" in reply.flags) == truncated
        assert len(reply.answer) == (0 if truncated else 4)
        assert (reply.message.edns == 0) == bool(how)


def test_what_does_not_even_go_into_tcp_is_truncated_there() -> None:
    reply = Reply(Catalog([BIG]).answer(question("huge.example.test.", "TXT"), transport="tcp"))
    assert ("TC" in reply.flags, reply.answer) == (True, [])


def test_rfc9471_glue_that_does_not_fit_sets_tc() -> None:
    """RFC 9471 §2.1: in-domain glue is required."""
    catalog = Catalog([BIG])
    reply = ask(catalog, "x.sub.example.test.", use_edns=0, payload=1232)
    assert "TC" in reply.flags
    assert reply.authority
    wire = catalog.answer(question("x.sub.example.test."), transport="tcp")
    assert len(Reply(wire).additional) == 40
    assert "TC" not in Reply(wire).flags


def test_helpful_records_are_left_out_without_tc() -> None:
    """RFC 2181 §9: TC is not set for what is not required."""
    reply = ask(Catalog([BIG]), "mx.example.test.", "MX")
    assert len(reply.answer) == 20
    assert 0 < len(reply.additional) < 20
    assert "TC" not in reply.flags


@pytest.mark.parametrize("size", [0, 511, 65536])
def test_a_size_out_of_bounds_is_a_callers_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="udp_size"):
        Catalog([], udp_size=size)


def test_counters_say_what_was_done() -> None:
    catalog = Catalog([zone("d DNAME ns1")])
    for name in ("ns1", "none", "none", "x.d", "x.d"):
        ask(catalog, f"{name}.example.test.")
    ask(catalog, "other.")
    catalog.answer(PLAIN + b"x")
    counted = catalog.counters.as_dict()
    assert (counted["hot"], counted["shaped"], counted["slow"]) == (1, 1, 3)
    assert counted["rcode_noerror"] == 1
    assert counted["rcode_nxdomain"] == 4
    assert counted["rcode_refused"] == 1
    assert counted["rcode_formerr"] == 1


QUERIES = [
    question(f"{name}.corner.test.", rdtype, **how)
    for name in ("ns1", "alias", "sub", "x.sub", "x.dn", "x.wild", "none.ns1", "big", "*")
    for rdtype in ("A", "TXT", "ANY")
    for how in (
        {},
        {"use_edns": 0},
        {"use_edns": 0, "options": [dns.edns.GenericOption(10, b"x" * 8)]},
    )
]


def hostile(query: bytes, changes: list[tuple[int, int]], cut: int, extra: bytes) -> bytes:
    message = bytearray(query)
    for at, value in changes:
        message[at % len(message)] = value
    return bytes(message[: len(message) - cut % (len(message) + 1)]) + extra


@given(
    st.sampled_from(QUERIES),
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 255)), max_size=4),
    st.just(0) | st.integers(0, 60),
    st.just(b"") | st.binary(max_size=20),
    st.sampled_from(["udp", "tcp"]),
)
def test_hostile_octets_never_raise_and_answers_keep_the_rules(
    query: bytes, changes: list[tuple[int, int]], cut: int, extra: bytes, transport: str
) -> None:
    message = hostile(query, changes, cut, extra)
    wire = CORNER.answer(message, transport=transport)
    if len(message) < 12 or message[2] & 0x80:
        assert wire is None
        return
    assert wire is not None
    assert wire[:2] == message[:2]
    # RD comes back with the opcode that it means something to.
    assert wire[2] & 0xF9 == 0x80 | (message[2] & 0x78 or message[2] & 0x01)
    assert wire[3] & 0xF0 == 0
    assert len(wire) <= (1232 if transport == "udp" else 65535)
    if b"\0\0\x29" not in message and transport == "udp":
        assert len(wire) <= 512
    if wire[3] & 15 in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.REFUSED):
        assert len(wire) <= len(message) + 11  # no amplification: at most an OPT more
    parsed = dns.message.from_wire(wire, question_only=False)
    assert parsed.id == int.from_bytes(message[:2], "big")


@given(st.binary(max_size=80))
def test_any_octets_at_all(message: bytes) -> None:
    wire = CORNER.answer(message)
    assert wire is None or len(wire) >= 12


def test_a_catalog_can_be_put_away_and_taken_out() -> None:
    """An image carries its zones rendered; what comes out answers the same."""
    catalog = corner()
    asked = [question(f"{name}.corner.test.") for name in ("ns1", "x.wild", "no", "alias", "any.d")]
    before = [catalog.answer(query) for query in asked for _ in range(2)]
    again = pickle.loads(pickle.dumps(catalog))
    assert [again.answer(query) for query in asked for _ in range(2)] == before


def test_what_is_put_away_needs_no_dnspython() -> None:
    """An image is smaller without it; a record type from it, once, brought all of it along."""
    zone = Zone.from_text("$ORIGIN a.test.\n$TTL 1\n@ SOA n h 1 1 1 1 1\n@ NS n\n@ TYPE777 \\# 0\n")
    assert b"rdatatype" not in pickle.dumps(Catalog([zone]))
