"""Conditional requests by RFC 9110 §13."""

from __future__ import annotations

import email.utils
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.http.preconditions import (
    evaluate,
    http_date,
    matches,
    parse_http_date,
    range_applies,
)

ETAG = b'"abc,def"'  # with a comma inside, which is allowed
MODIFIED = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example
NOW = 784200000


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"Sun, 06 Nov 1994 08:49:37 GMT", MODIFIED),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", MODIFIED),
        (b"Sun Nov  6 08:49:37 1994", MODIFIED),
        (b"Sun Nov 16 08:49:37 1994", MODIFIED + 10 * 86400),
        (b"Fri, 31 Dec 1999 23:59:60 GMT", 946684799),  # a leap second is that second
        (b"Sun, 06 Nov 1994 08:49:37 +0000", None),
        (b"Sun, 06 Nov 1994 08:49:37", None),
        (b"Sun, 6 Nov 1994 08:49:37 GMT", None),
        (b"Sun, 06 nov 1994 08:49:37 GMT", None),
        (b"Sun, 31 Feb 1994 08:49:37 GMT", None),
        (b"Sun, 00 Feb 1994 08:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 24:49:37 GMT", None),
        (b"Sun, 06 Nov 0000 08:49:37 GMT", None),
        (b"784111777", None),
        (b"", None),
    ],
)
def test_rfc9110_dates(value: bytes, seconds: int | None) -> None:
    """RFC 9110 §5.6.7: three forms are read, anything else is no date."""
    assert parse_http_date(value, NOW) == seconds


def test_rfc9110_two_digit_years_are_not_far_in_the_future() -> None:
    """RFC 9110 §5.6.7: more than 50 years ahead means the most recent past year."""
    at_2026 = 1795000000
    year = {
        digits: http_date(parse_http_date(b"Sunday, 06-Nov-%s 08:49:37 GMT" % digits, at_2026) or 0)
        for digits in (b"94", b"76", b"77", b"26")
    }
    assert [year[d][12:16] for d in (b"94", b"76", b"77", b"26")] == [
        b"1994", b"2076", b"1977", b"2026",
    ]  # fmt: skip


@given(st.integers(0, 253402300799))
def test_rfc9110_dates_written_are_those_of_the_standard_library(seconds: int) -> None:
    """RFC 9110 §5.6.7: IMF-fixdate, both ways."""
    assert http_date(seconds) == email.utils.formatdate(seconds, usegmt=True).encode()
    assert parse_http_date(http_date(seconds), NOW) == seconds


@given(st.binary(max_size=40))
def test_any_octets_are_a_date_or_none(value: bytes) -> None:
    parse_http_date(value, NOW)
    matches(value, ETAG, weak=True)


@pytest.mark.parametrize(
    ("field", "strong", "weak"),
    [
        (b"*", True, True),
        (b' "abc,def" ', True, True),
        (b'W/"abc,def"', False, True),
        (b'"x", "abc,def"', True, True),
        (b'"x",W/"abc,def" , "y"', False, True),
        (b',, "x" ,, "abc,def",', True, True),
        (b'"abc', False, False),
        (b"abc,def", False, False),
        (b'"abc", "def"', False, False),
        (b'w/"abc,def"', False, False),
        (b'"x" "abc,def"', False, False),
        (b"", False, False),
        (b'"", "*"', False, False),
    ],
)
def test_rfc9110_entity_tag_lists(field: bytes, strong: bool, weak: bool) -> None:
    """RFC 9110 §8.8.3.2: strong and weak comparison over a list."""
    assert matches(field, ETAG, weak=False) is strong
    assert matches(field, ETAG, weak=True) is weak


# Every combination of the four conditions, each absent, true or false.
IF_MATCH = {None: None, True: b'"no", "abc,def"', False: b'"no"'}
UNMODIFIED = {None: None, True: http_date(MODIFIED), False: http_date(MODIFIED - 1)}
IF_NONE_MATCH = {None: None, True: b'"no"', False: b'W/"abc,def"'}
SINCE = {None: None, True: http_date(MODIFIED - 1), False: http_date(MODIFIED + 99)}


@pytest.mark.parametrize(
    ("match", "unmodified", "none_match", "since"),
    list(itertools.product((None, True, False), repeat=4)),
)
def test_rfc9110_precedence(
    match: bool | None, unmodified: bool | None, none_match: bool | None, since: bool | None
) -> None:
    """RFC 9110 §13.2.2: the steps in their order, for all 81 combinations."""
    names = (b"if-match", b"if-unmodified-since", b"if-none-match", b"if-modified-since")
    values = (IF_MATCH[match], UNMODIFIED[unmodified], IF_NONE_MATCH[none_match], SINCE[since])
    fields = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    wanted = 200
    if (match if match is not None else unmodified) is False:
        wanted = 412
    elif (none_match if none_match is not None else since) is False:
        wanted = 304
    assert evaluate(fields, ETAG, MODIFIED, NOW) == wanted


def test_rfc9110_dates_that_are_none_are_ignored() -> None:
    """RFC 9110 §13.1.3, §13.1.4: an invalid date, or no Last-Modified, leaves the condition out."""
    for name in (b"if-modified-since", b"if-unmodified-since"):
        assert evaluate({name: b"yesterday"}, ETAG, MODIFIED, NOW) == 200
        assert evaluate({name: http_date(0)}, ETAG, None, NOW) == 200


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        (ETAG, True),
        (b'"other"', False),
        (b"W/" + ETAG, False),
        (http_date(MODIFIED), True),
        (http_date(MODIFIED + 1), False),
        (http_date(MODIFIED - 1), False),
        (b"rubbish", False),
        (b"*", False),
    ],
)
def test_rfc9110_if_range(condition: bytes, applies: bool) -> None:
    """RFC 9110 §13.1.5: strong comparison, or exactly the same date."""
    assert range_applies({b"if-range": condition}, ETAG, MODIFIED, NOW) is applies


def test_rfc9110_if_range_needs_a_date_that_is_strong() -> None:
    """RFC 9110 §8.8.2.2: content loaded in the second it changed may change again in it."""
    fields = {b"if-range": http_date(MODIFIED)}
    assert not range_applies(fields, ETAG, MODIFIED, MODIFIED)
    assert range_applies(fields, ETAG, MODIFIED, MODIFIED + 1)
