"""Sequence numbers: one number of many that are congruent, and which of two comes first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.seq import HALF, MASK, MODULUS, before, unwrap

wires = st.integers(0, MASK)


@given(wires, st.integers(-MODULUS, MODULUS * 5))
def test_unwrap_is_congruent_and_nearest(wire: int, near: int) -> None:
    """RFC 9293 §3.4: modulo 2**32, and within half of it."""
    number = unwrap(wire, near)
    assert number & MASK == wire
    assert -HALF <= number - near < HALF


@given(st.integers(0, MODULUS * 5), st.integers(-HALF + 1, HALF - 1))
def test_unwrap_undoes_the_cut(near: int, distance: int) -> None:
    """RFC 9293 §3.4: what is near comes back as it was."""
    assert unwrap((near + distance) & MASK, near) == near + distance


@pytest.mark.parametrize(
    ("wire", "near", "number"),
    [
        (0, 0, 0),
        (MASK, 0, -1),
        (0, MASK, MODULUS),
        (5, MODULUS - 5, MODULUS + 5),
        (HALF, 0, -HALF),
        (HALF - 1, 0, HALF - 1),
    ],
)
def test_unwrap_at_the_edges(wire: int, near: int, number: int) -> None:
    """RFC 9293 §3.4: around the wrap, and exactly half way round."""
    assert unwrap(wire, near) == number


@given(wires, st.integers(1, HALF - 1))
def test_before_is_an_order_of_neighbours(a: int, distance: int) -> None:
    """RFC 1982 §3.2."""
    b = (a + distance) & MASK
    assert before(a, b)
    assert not before(b, a)
    assert not before(a, a)
