"""Byte ranges by RFC 9110 §14."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.http.ranges import GAP, MAX_RANGES, select


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        (b"bytes=0-499", [(0, 500)]),
        (b"Bytes=0-499", [(0, 500)]),
        (b"bytes=500-999", [(500, 1000)]),
        (b"bytes=-500", [(9500, 10000)]),
        (b"bytes=9500-", [(9500, 10000)]),
        (b"bytes=0-0,-1", [(0, 1), (9999, 10000)]),
        (b"bytes= 0-0 ,\t-1", [(0, 1), (9999, 10000)]),
        (b"bytes=,0-0,,", [(0, 1)]),
        (b"bytes=500-700,601-999", [(500, 1000)]),  # overlap
        (b"bytes=500-600,601-999", [(500, 1000)]),  # touch
        (b"bytes=9000-,0-99", [(9000, 10000), (0, 100)]),
        (b"bytes=9000-,0-99,8950-8999", [(8950, 10000), (0, 100)]),
        (b"bytes=500-599,-100,0-99,580-700", [(500, 701), (9900, 10000), (0, 100)]),
        (b"bytes=-20000", [(0, 10000)]),
        (b"bytes=9999-99999999999999999999999999", [(9999, 10000)]),
        (b"bytes=-0", []),
        (b"bytes=10000-", []),
        (b"bytes=99999999999999999999999999-", []),
        (b"bytes=10000-,-0", []),
        (b"bytes=10000-,0-0", [(0, 1)]),
        (b"bytes=", None),
        (b"bytes=,", None),
        (b"bytes", None),
        (b"bytes=-", None),
        (b"bytes=5-4", None),
        (b"bytes=0-0,5-4", None),
        (b"bytes=1--2", None),
        (b"bytes=0-0;1-1", None),
        (b"bytes=0 - 5", None),
        (b"bytes=+1-5", None),
        (b"bytes=0x1-5", None),
        (b"lines=0-5", None),
        (b"0-5", None),
    ],
)
def test_rfc9110_ranges(field: bytes, wanted: list[tuple[int, int]] | None) -> None:
    """RFC 9110 §14.1, §14.2: the RFC's examples, the edges, and what is to be ignored.

    §15.3.7.2: parts SHOULD come in the order of the request.
    """
    assert select(field, 10000) == wanted


def test_rfc9110_of_nothing_nothing_can_be_had() -> None:
    """RFC 9110 §14.1.2: no first position is inside an empty representation."""
    assert select(b"bytes=0-", 0) == []
    assert select(b"bytes=-0", 0) == []
    assert select(b"bytes=-5", 0) is None  # satisfiable by all of it, which is nothing


def test_rfc9110_many_ranges() -> None:
    """RFC 9110 §17.15: overlapping ranges are one, and too many are ignored."""
    overlapping = b"bytes=" + b",".join(b"0-" for _ in range(MAX_RANGES))
    assert select(overlapping, 20000) == [(0, 20000)]
    assert select(overlapping + b",0-", 20000) is None


SPEC = st.one_of(
    st.tuples(st.integers(0, 3000), st.integers(0, 3000)).map(lambda p: b"%d-%d" % p),
    st.integers(0, 3000).map(lambda n: b"%d-" % n),
    st.integers(0, 3000).map(lambda n: b"-%d" % n),
)


def _oracle(specs: list[bytes], size: int) -> set[int] | None:
    """Every position that was asked for, spelled out; None for an invalid spec."""
    positions: set[int] = set()
    for spec in specs:
        first, last = spec.split(b"-")
        if first and last and int(first) > int(last):
            return None
        if first:
            positions.update(range(int(first), min(int(last) + 1, size) if last else size))
        else:
            positions.update(range(max(size - int(last), 0), size))
    return positions


@given(st.lists(SPEC, min_size=1, max_size=8), st.integers(1, 2500))
def test_rfc9110_ranges_against_positions_spelled_out(specs: list[bytes], size: int) -> None:
    """RFC 9110 §14.2: what is selected holds every position asked for, in order, and fits."""
    wanted = _oracle(specs, size)
    got = select(b"bytes=" + b", ".join(specs), size)
    if wanted is None:
        assert got is None
    elif not wanted:
        assert got == []
    else:
        assert got is not None
        covered = {n for start, stop in got for n in range(start, stop)}
        assert wanted <= covered <= set(range(size))
        for start, stop in got:
            assert start in wanted
            assert stop - 1 in wanted
        assert all(a[1] + GAP < b[0] for a, b in itertools.pairwise(sorted(got)))
        # §15.3.7.2: by the first of the ranges asked for that lies in it.
        alone = [select(b"bytes=" + spec, size) or [(-1, -1)] for spec in specs]
        firsts = [
            next(at for at, [(first, last)] in enumerate(alone) if start <= first < last <= stop)
            for start, stop in got
        ]
        assert firsts == sorted(firsts)


@given(st.binary(max_size=40), st.integers(0, 100))
def test_any_octets_select_something_inside(field: bytes, size: int) -> None:
    for start, stop in select(b"bytes=" + field, size) or []:
        assert 0 <= start < stop <= size
