"""Selective acknowledgments, read and written (RFC 2018, RFC 2883)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net import sack
from appliance.net.seq import MASK

ACK, NXT = 1000, 9000


def read(*blocks: tuple[int, int]) -> tuple[sack.Block | None, list[sack.Block]]:
    wire = tuple((a & MASK, b & MASK) for a, b in blocks)
    return sack.read(wire, ACK, NXT)


def test_blocks_above_the_acknowledgment() -> None:
    """RFC 2018 §3."""
    assert read((3000, 4000), (1500, 2000)) == (None, [(3000, 4000), (1500, 2000)])


@pytest.mark.parametrize(
    "block", [(4000, 3000), (3000, 3000), (8000, 9001), (20_000, 30_000), (3000, 3000 - (1 << 31))]
)
def test_blocks_that_cannot_be(block: tuple[int, int]) -> None:
    """RFC 2018 §5: beyond SND.NXT, empty or inverted: nothing that we ever sent."""
    assert read(block) == (None, [])


@pytest.mark.parametrize("block", [(500, 1000), (1, 2), (900, 950)])
def test_duplicate_below_the_acknowledgment(block: tuple[int, int]) -> None:
    """RFC 2883 §4.1: reported first, below the cumulative acknowledgment."""
    assert read(block, (3000, 4000)) == (block, [(3000, 4000)])


def test_duplicate_inside_the_second_block() -> None:
    """RFC 2883 §4.1: above it, contained in a larger block that follows."""
    assert read((3200, 3300), (3000, 4000)) == ((3200, 3300), [(3000, 4000)])
    assert read((3000, 4000), (3000, 4000)) == ((3000, 4000), [(3000, 4000)])


def test_only_the_first_block_reports_a_duplicate() -> None:
    """RFC 2883 §4: what is below elsewhere is merely old."""
    assert read((3000, 4000), (500, 600)) == (None, [(3000, 4000)])


@given(st.lists(st.tuples(st.integers(0, MASK), st.integers(0, MASK)), max_size=4))
def test_whatever_comes_stays_inside_what_was_sent(wire: list[tuple[int, int]]) -> None:
    """RFC 2018 §5: hostile blocks mark nothing outside [ACK, SND.NXT)."""
    duplicate, blocks = sack.read(tuple(wire), ACK, NXT)
    assert all(ACK <= left < right <= NXT for left, right in blocks)
    assert duplicate is None or duplicate[0] < duplicate[1] <= NXT


@given(st.integers(0, MASK), st.integers(1, 1000))
def test_numbers_wrap(start: int, length: int) -> None:
    """RFC 9293 §3.4: blocks across the wrap are blocks."""
    near = start + (1 << 32)
    wire = (((near + 10) & MASK, (near + 10 + length) & MASK),)
    assert sack.read(wire, near, near + 5000) == (None, [(near + 10, near + 10 + length)])


def test_written_newest_first() -> None:
    """RFC 2018 §4: the block of the segment that came last, then those reported before."""
    held = [(100, 110), (200, 210), (300, 310), (400, 410), (500, 510)]
    assert sack.by_recency(held, [205, 405, 105]) == [
        (200, 210), (400, 410), (100, 110), (500, 510),
    ]  # fmt: skip


def test_islands_that_have_merged_are_reported_once() -> None:
    """RFC 2018 §4."""
    assert sack.by_recency([(100, 300)], [250, 120]) == [(100, 300)]


def test_a_duplicate_goes_first_and_takes_a_place() -> None:
    """RFC 2883 §4."""
    islands = [(300, 310), (400, 410), (500, 510)]
    assert sack.write(islands, (1, 2), 3) == ((1, 2), (300, 310), (400, 410))
    assert sack.write(islands, None, 4) == tuple(islands)


def test_written_numbers_are_cut_to_the_wire() -> None:
    assert sack.write([((1 << 32) - 1, (1 << 32) + 9)], None, 3) == ((MASK, 9),)
