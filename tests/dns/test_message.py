"""Queries taken apart; what is malformed is told apart from what is not."""

from __future__ import annotations

import dns.edns
import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns.message import FormatError, parse
from tests.dns.util import question

PLAIN = question("www.example.test.", "TXT")
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
END = len(PLAIN)


def counted(message: bytes, *counts: int) -> bytes:
    head = b"".join(count.to_bytes(2, "big") for count in counts)
    return message[:4] + head + message[12:]


def test_a_plain_question() -> None:
    query = parse(PLAIN)
    assert (query.opcode, query.qtype, query.qclass) == (0, 16, 1)
    assert (query.name_end, query.end) == (END - 4, END)
    assert query.edns is None


def test_edns_with_options() -> None:
    """RFC 6891 §6.1.2."""
    wire = question(
        "x.",
        use_edns=0,
        payload=4096,
        ednsflags=0x8000,
        options=[dns.edns.GenericOption(3, b""), dns.edns.GenericOption(65001, b"abc")],
    )
    edns = parse(wire).edns
    assert edns is not None
    assert (edns.size, edns.version, edns.flags) == (4096, 0, 0x8000)
    # A trailing option without data is an option too.
    assert edns.options == [(3, b""), (65001, b"abc")]


def test_the_options_of_another_version_are_left_alone() -> None:
    """RFC 6891 §6.1.3."""
    wire = counted(PLAIN + b"\0\0\x29\x04\xd0\0\x01\0\0\0\x03xyz", 1, 0, 0, 1)
    edns = parse(wire).edns
    assert edns is not None
    assert (edns.version, edns.options) == (1, [])


RECORD = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4abcd"
TSIG = b"\0\0\xfa\0\xff\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("message", "understood"),
    [
        (PLAIN[:12], 12),
        (PLAIN[:20], 12),
        (PLAIN[:-1], 12),
        (PLAIN[:12] + b"\xc0\x0c\0\1\0\1", 12),
        (PLAIN[:12] + b"\x40" + PLAIN[13:], 12),
        (PLAIN[:12] + b"\x01x" * 127 + b"\x01x\0\0\1\0\1", 12),
        (counted(PLAIN, 0, 0, 0, 0), 12),
        (counted(PLAIN, 2, 0, 0, 0), 12),
        (counted(PLAIN + PLAIN[12:], 2, 0, 0, 0), 12),
        (counted(PLAIN + RECORD, 1, 1, 0, 0), END),
        (counted(PLAIN + RECORD, 1, 0, 1, 0), END),
        (PLAIN + b"x", END),
        (counted(PLAIN, 1, 0, 0, 1), END),
        (counted(PLAIN + RECORD[:-1], 1, 0, 0, 1), END),
        (counted(PLAIN + RECORD[:8], 1, 0, 0, 1), END),
        (counted(PLAIN + RECORD * 5, 1, 0, 0, 5), END),
        (counted(PLAIN + OPT + OPT, 1, 0, 0, 2), END),
        (counted(PLAIN + b"\x01x" + OPT, 1, 0, 0, 1), END),
        (counted(PLAIN + OPT[:-2] + b"\0\3\0\1\0", 1, 0, 0, 1), END),
        (counted(PLAIN + OPT[:-2] + b"\0\5\0\1\0\2x", 1, 0, 0, 1), END),
        (counted(PLAIN + TSIG + OPT, 1, 0, 0, 2), END),
    ],
)
def test_format_errors(message: bytes, understood: int) -> None:
    """RFC 1035 §4.1, RFC 9619 §4 (one question), RFC 6891 §6.1.1 (one OPT), RFC 8945 §5.1."""
    with pytest.raises(FormatError) as caught:
        parse(message)
    assert caught.value.query.end == understood


def test_other_records_may_stand_in_the_additional_section() -> None:
    assert parse(counted(PLAIN + RECORD + OPT, 1, 0, 0, 2)).edns is not None
    assert parse(counted(PLAIN + OPT + TSIG, 1, 0, 0, 2)).tsig_at == END + len(OPT)
    ixfr = PLAIN[:-4] + b"\0\xfb\0\1"
    assert parse(counted(ixfr + RECORD, 1, 0, 1, 0)).qtype == 251


@given(st.binary(min_size=12, max_size=100))
def test_any_octets(message: bytes) -> None:
    try:
        query = parse(message)
    except FormatError as error:
        query = error.query
    assert 12 <= query.end <= len(message)
