"""Conditional requests: If-Match and its kin, with the precedence of RFC 9110 §13.2.2.

Pure: field values and validators in, a status out.  Imports the standard library only.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Mapping

_TAG = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
# A list of entity-tags; an opaque tag may itself hold commas, so the list cannot be split on them.
_TAGS = re.compile(rb'[ \t,]*(?:(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"[ \t]*(?:,[ \t,]*|$))+')

_MONTHS = {
    name: number
    for number, name in enumerate(
        b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), start=1
    )
}
_MONTH = rb"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK = rb"([0-2]\d):([0-5]\d):([0-5]\d|60)"
# RFC 9110 §5.6.7: IMF-fixdate, and the two obsolete forms a recipient must accept.
_IMF = re.compile(
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) " + _MONTH + rb" (\d{4}) " + _CLOCK + rb" GMT"
)
_RFC850 = re.compile(
    rb"(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday), (\d\d)-"
    + _MONTH + rb"-(\d\d) " + _CLOCK + rb" GMT"
)  # fmt: skip
_ASCTIME = re.compile(
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) " + _MONTH + rb" ([ \d]\d) " + _CLOCK + rb" (\d{4})"
)


def http_date(seconds: float) -> bytes:
    """Format seconds since the epoch as an IMF-fixdate (RFC 9110 §5.6.7)."""
    t = time.gmtime(seconds)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[t.tm_wday]
    month = [*_MONTHS][t.tm_mon - 1]
    return b"%s, %02d %s %04d %02d:%02d:%02d GMT" % (
        day.encode(), t.tm_mday, month, t.tm_year, t.tm_hour, t.tm_min, t.tm_sec,
    )  # fmt: skip


def parse_http_date(value: bytes, now: int) -> int | None:
    """Read an HTTP-date in any of its three forms; seconds since the epoch, None if it is none.

    `now` decides the century of the two-digit year of RFC 850 (RFC 9110 §5.6.7).
    """
    if match := _IMF.fullmatch(value):
        day, month, year, hour, minute, second = match.groups()
    elif match := _RFC850.fullmatch(value):
        day, month, year, hour, minute, second = match.groups()
        this = time.gmtime(now).tm_year
        full = this - this % 100 + int(year)
        # A date more than 50 years ahead is the last one in the past with the same digits.
        year = b"%d" % (full - 100 if full > this + 50 else full)
    elif match := _ASCTIME.fullmatch(value):
        month, day, hour, minute, second, year = match.groups()
    else:
        return None
    try:
        fields = (int(year), _MONTHS[month], int(day), int(hour), int(minute), min(int(second), 59))
        if not 1 <= fields[2] <= _days(fields[0], fields[1]) or fields[3] > 23:
            return None
        return calendar.timegm((*fields, 0, 0, 0))
    except ValueError:  # year 0000 is no date that `calendar` knows
        return None


def _days(year: int, month: int) -> int:
    return calendar.monthrange(year, month)[1]


def matches(field: bytes, etag: bytes, *, weak: bool) -> bool:
    """Say whether an If-Match or If-None-Match list names our strong entity-tag.

    `weak` selects the weak comparison of RFC 9110 §8.8.3.2.  A malformed list names nothing.
    """
    if field.strip(b" \t") == b"*":
        return True
    if not _TAGS.fullmatch(field):
        return False
    return any(
        opaque == etag and (weak or not weakness) for weakness, opaque in _TAG.findall(field)
    )


def evaluate(
    fields: Mapping[bytes, bytes], etag: bytes, last_modified: int | None, now: int
) -> int:
    """Return 200 (go on), 304 or 412 for a GET or HEAD (RFC 9110 §13.2.2, steps 1 to 4)."""
    if (if_match := fields.get(b"if-match")) is not None:
        if not matches(if_match, etag, weak=False):
            return 412
    elif (since := fields.get(b"if-unmodified-since")) is not None and last_modified is not None:
        date = parse_http_date(since, now)
        if date is not None and last_modified > date:
            return 412
    if (if_none_match := fields.get(b"if-none-match")) is not None:
        return 304 if matches(if_none_match, etag, weak=True) else 200
    if (since := fields.get(b"if-modified-since")) is not None and last_modified is not None:
        date = parse_http_date(since, now)
        if date is not None and last_modified <= date:
            return 304
    return 200


def range_applies(
    fields: Mapping[bytes, bytes], etag: bytes, last_modified: int | None, now: int
) -> bool:
    """Step 5: say whether Range is to be honoured, given If-Range (RFC 9110 §13.1.5)."""
    condition = fields.get(b"if-range")
    if condition is None:
        return True
    if condition.startswith((b'"', b"W/")):
        return condition == etag  # the strong comparison: ours is strong, W/ never equals it
    # RFC 9110 §8.8.2.2: a date is a strong validator only if the content cannot have changed
    # twice within its second; `now` is when the site was loaded.
    date = parse_http_date(condition, now)
    return date is not None and date == last_modified and last_modified < now
