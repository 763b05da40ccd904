"""Octets ahead of a hole, against a model that keeps each octet by its number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.reassembly import MAX_STRETCHES, SMALL_PIECE, ReassemblyQueue

inserts = st.lists(st.tuples(st.integers(1, 60), st.binary(min_size=1, max_size=20)), max_size=30)


def runs(octets: dict[int, int]) -> list[tuple[int, int]]:
    """The contiguous stretches of a set of numbers."""
    out: list[tuple[int, int]] = []
    for n in sorted(octets):
        if out and out[-1][1] == n:
            out[-1] = (out[-1][0], n + 1)
        else:
            out.append((n, n + 1))
    return out


@given(inserts)
def test_the_first_to_arrive_wins(pieces: list[tuple[int, bytes]]) -> None:
    """RFC 9293 §3.10.7.4: what overlaps is trimmed from what comes later."""
    queue, model = ReassemblyQueue(), dict[int, int]()
    for seq, data in pieces:
        before = len(model)
        for n, octet in enumerate(data, seq):
            model.setdefault(n, octet)
        assert queue.insert(seq, data) == len(model) - before
        assert queue.octets == len(model)
        assert queue.blocks() == runs(model)
        assert len(queue) == len(runs(model))


@given(inserts, st.lists(st.integers(0, 90), max_size=8))
def test_what_becomes_contiguous_is_taken(
    pieces: list[tuple[int, bytes]], points: list[int]
) -> None:
    """RFC 9293 §3.10.7.4: all of it, in order, once."""
    queue, model = ReassemblyQueue(), dict[int, int]()
    for seq, data in pieces:
        queue.insert(seq, data)
        for n, octet in enumerate(data, seq):
            model.setdefault(n, octet)
    for rcv_nxt in sorted(points):
        got = queue.take(rcv_nxt)
        expected = b""
        for n in [n for n in model if n < rcv_nxt]:
            del model[n]
        while rcv_nxt in model:
            expected += bytes((model.pop(rcv_nxt),))
            rcv_nxt += 1
        assert got == expected
        assert queue.octets == len(model)


def test_nothing_to_take_before_the_hole_is_filled() -> None:
    queue = ReassemblyQueue()
    queue.insert(10, b"abc")
    assert queue.take(9) == b""
    assert queue.take(10) == b"abc"
    assert (len(queue), queue.octets) == (0, 0)


def test_a_full_queue_refuses_new_islands_but_not_what_touches_old_ones() -> None:
    queue = ReassemblyQueue()
    for n in range(MAX_STRETCHES):
        assert queue.insert(2 * n, b"x") == 1
    assert queue.insert(5000, b"x") == -1
    assert queue.insert(1, b"y") == 1, "fills a hole"
    assert queue.insert(5000, b"x") == 1, "and so makes room"


def test_many_small_pieces_are_few_objects() -> None:
    """A peer that sends single octets must not cost forty times what it sends."""
    queue = ReassemblyQueue()
    for n in range(4 * SMALL_PIECE):
        queue.insert(10 + n, b"x")
    assert len(queue._stretches[0].pieces) <= 8
    assert queue.take(10) == b"x" * (4 * SMALL_PIECE)


def test_cleared() -> None:
    queue = ReassemblyQueue()
    queue.insert(1, b"abc")
    queue.clear()
    assert (queue.octets, queue.blocks(), queue.take(1)) == (0, [], b"")


@pytest.mark.parametrize("base", [0, (1 << 32) - 5, 1 << 40])
def test_numbers_are_only_numbers(base: int) -> None:
    """Unwrapped numbers grow without bound (see `seq`)."""
    queue = ReassemblyQueue()
    queue.insert(base + 10, b"def")
    queue.insert(base + 7, b"abc")
    assert queue.take(base + 7) == b"abcdef"
