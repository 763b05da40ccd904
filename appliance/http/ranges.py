"""Byte ranges: what a Range field selects of a representation.

RFC 9110 §14.  Ranges that overlap, touch or nearly touch are merged, so that an answer grows with
the representation and not with the request.  Pure; imports the standard library only.
"""

from __future__ import annotations

import re

# More ranges than this in one request are an attack, not a download (RFC 9110 §17.15).
MAX_RANGES = 100
# Octets.  RFC 9110 §15.3.7.2: merge ranges whose gap costs less than one more part heading.
GAP = 120
# A number past 2**63 is past every file: what longer strings of digits are cut to.
_MAX_DIGITS = 18

_FIELD = re.compile(rb"bytes=([0-9\-, \t]+)", re.IGNORECASE)
_SPEC = re.compile(rb"[ \t]*([0-9]*)-([0-9]*)[ \t]*")


def _number(digits: bytes) -> int:
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def select(field: bytes, size: int) -> list[tuple[int, int]] | None:
    """Return the half-open ranges to send, merged, in the order they were asked for in.

    None: the field is to be ignored (unknown unit, malformed, or too many).
    []: none can be satisfied, which is a 416.
    """
    match = _FIELD.fullmatch(field)
    if match is None:
        return None
    ranges: list[tuple[int, int]] = []
    specs = 0
    for spec in match[1].split(b","):
        if not spec.strip(b" \t"):
            continue  # RFC 9110 §5.6.1.2: empty list elements are allowed
        parsed = _SPEC.fullmatch(spec)
        specs += 1
        if parsed is None or specs > MAX_RANGES:
            return None
        first, last = parsed.groups()
        if first:
            start = _number(first)
            if last and _number(last) < start:
                return None  # RFC 9110 §14.1.1: such a range is invalid
            stop = min(_number(last) + 1, size) if last else size
            if start < size:
                ranges.append((start, stop))
        elif last:
            if length := _number(last):
                # A suffix longer than the representation is all of it; of an empty one, nothing
                # can be said in Content-Range, so the whole (empty) representation is sent.
                if not size:
                    return None
                ranges.append((max(size - length, 0), size))
        else:
            return None
    if not specs:
        return None
    return _merge(ranges)


def _merge(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    places: list[int] = []  # of the first one asked for, of those that became one
    for start, stop, place in sorted((*pair, place) for place, pair in enumerate(ranges)):
        if merged and start <= merged[-1][1] + GAP:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
            places[-1] = min(places[-1], place)
        else:
            merged.append((start, stop))
            places.append(place)
    # RFC 9110 §15.3.7.2: the order of the request, which knows what it wants first.
    return [pair for _, pair in sorted(zip(places, merged, strict=True))]
