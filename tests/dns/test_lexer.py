"""Statements of a master file (RFC 1035 §5.1) and $GENERATE."""

from __future__ import annotations

import io

import pytest

from appliance.dns.errors import LocalError
from appliance.dns.lexer import generate_range, generate_text, statements


def cut(text: str) -> tuple[list[tuple[int, bool, list[str]]], list[tuple[int, str]]]:
    faults: list[tuple[int, str]] = []
    found = statements(io.StringIO(text), lambda line, message: faults.append((line, message)))
    return [(s.line, s.indented, s.words) for s in found], faults


def test_lines_comments_and_white_space() -> None:
    text = "; only a comment\n\na IN A 1 ; one\n\t TXT x;y\r\n   \n;\nb A 2"
    assert cut(text) == (
        [(3, False, ["a", "IN", "A", "1"]), (4, True, ["TXT", "x"]), (7, False, ["b", "A", "2"])],
        [],
    )


def test_parentheses_join_lines_and_keep_the_first_line_number() -> None:
    """RFC 1035 §5.1: parentheses group data that crosses a line boundary."""
    text = "a SOA x (\n 1 ; serial ( not a parenthesis\n 2\n) y\nb A 1\n"
    assert cut(text) == (
        [(1, False, ["a", "SOA", "x", "1", "2", "y"]), (5, False, ["b", "A", "1"])],
        [],
    )


def test_quotes_protect_what_is_special() -> None:
    text = 'a TXT "; ( ) \\" x" y\\;z k="v w"\n'
    assert cut(text) == ([(1, False, ["a", "TXT", '"; ( ) \\" x"', "y\\;z", 'k="v w"'])], [])


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ('a TXT "open\nb A 1\n', 1, "no end"),
        ("x\ny\\\nb A 1\n", 2, "no end"),
        ("x\na A ) 1\nb A 1\n", 2, "not opened"),
        ("x\n\na SOA (\n1\nb A 1\n", 3, "never closed"),
    ],
)
def test_faults_name_their_line_and_reading_goes_on(text: str, line: int, complaint: str) -> None:
    found, faults = cut(text)
    assert [fault[0] for fault in faults] == [line]
    assert complaint in faults[0][1]
    if "never" not in complaint:
        assert found[-1][2] == ["b", "A", "1"]


def test_generate_counts_and_formats() -> None:
    assert list(generate_range("1-3")) == [1, 2, 3]
    assert list(generate_range("0-10/5")) == [0, 5, 10]
    assert generate_text("host-$.x", 7) == "host-7.x"
    assert generate_text("$$ \\$ \\065", 7) == "$ $ \\065"
    assert generate_text("${10,4}", 7) == "0017"
    assert generate_text("${-5}", 7) == "2"
    assert generate_text("${0,2,x} ${0,0,X} ${0,3,o}", 171) == "ab AB 253"
    assert generate_text("${0,7,n}", 0x1A2) == "2.a.1.0"


@pytest.mark.parametrize("text", ["", "1", "5-1", "1-2/0", "a-b", "1-99999999999"])
def test_bad_ranges(text: str) -> None:
    with pytest.raises(LocalError):
        generate_range(text)


@pytest.mark.parametrize("text", ["${", "${1,2,q}", "${1,999}", "${-9}"])
def test_bad_modifiers(text: str) -> None:
    with pytest.raises(LocalError):
        generate_text(text, 1)
