"""Multicast Listener Discovery, version 2 (RFC 3810 §5), as far as a listener speaks it.

Queries of version 1 (RFC 2710) are shorter and are read too: they ask the same. Only groups
without source lists are reported. Imports `errors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from appliance.net.errors import WireError

MODE_IS_EXCLUDE: Final = 2
CHANGE_TO_INCLUDE: Final = 3
CHANGE_TO_EXCLUDE: Final = 4
"""Record types (RFC 3810 §5.2.12): with no sources, "listens", "no longer", "from now on"."""

COUNTERS: Final = ("mld_truncated",)


class Query(NamedTuple):
    """A query: group ("::" is every one), and the seconds within which to answer."""

    group: bytes
    max_response: float
    version: int


def parse_query(data: bytes | memoryview, at: int, end: int, rest: int) -> Query:
    """Read the body of a query at `at`; raises WireError. `rest` has the response code."""
    size = min(end, len(data)) - at
    code = rest >> 16
    # RFC 3810 §8.1: 24 octets with the header are version 1, 28 and more version 2.
    if size == 16:
        return Query(bytes(data[at : at + 16]), code / 1000.0, 1)
    if size < 20:
        raise WireError("mld_truncated")
    if code >= 0x8000:
        # RFC 3810 §5.1.3: a floating-point value.
        code = ((code & 0x0FFF) | 0x1000) << ((code >> 12 & 7) + 3)
    return Query(bytes(data[at : at + 16]), code / 1000.0, 2)


def report(records: Sequence[tuple[int, bytes]]) -> tuple[int, bytes]:
    """(rest, body) of a version 2 report with (type, group) records without sources (§5.2)."""
    return len(records), b"".join(bytes((kind, 0, 0, 0)) + group for kind, group in records)
